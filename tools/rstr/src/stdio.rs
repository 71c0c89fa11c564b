// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The descriptors that the tree takes over from rstr.

use std::{
    fs::OpenOptions,
    os::fd::{
        AsFd,
        OwnedFd, //
    },
    path::Path,
    str::FromStr, //
};

use anyhow::Context;
use checkpoint::{
    duplicate,
    inherited,
    Inherit, //
};

use super::say;

/// `[PID:]FD=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InheritArg {
    pid: Option<i32>,
    target: i32,
    own: i32,
}

impl FromStr for InheritArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usage = "expected FD=N or PID:FD=N, all of them numbers";
        let number = |text: &str| text.parse().ok().filter(|n| *n >= 0).ok_or(usage);
        let (target, own) = text.split_once('=').ok_or(usage)?;
        let (pid, target) = match target.split_once(':') {
            Some((pid, target)) => (
                Some(number(pid)?)
                    .filter(|pid| *pid > 0)
                    .ok_or(usage)
                    .map(Some)?,
                target,
            ),
            None => (None, target),
        };
        Ok(Self {
            pid,
            target: number(target)?,
            own: number(own)?,
        })
    }
}

/// A descriptor to offer.
pub struct Offer {
    pid: Option<i32>,
    target: i32,
    fd: OwnedFd,
}

impl Offer {
    pub fn inherit(&self) -> Inherit<'_> {
        Inherit {
            pid: self.pid,
            target: self.target,
            fd: self.fd.as_fd(),
        }
    }
}

/// Takes the descriptors named on the command line. To be called once, before any other is opened.
pub fn given(args: &[InheritArg]) -> anyhow::Result<Vec<Offer>> {
    let mut offers = Vec::<Offer>::new();
    for (i, arg) in args.iter().enumerate() {
        let earlier = args.iter().zip(&offers).take(i);
        if earlier
            .clone()
            .any(|(other, _)| (other.pid, other.target) == (arg.pid, arg.target))
        {
            anyhow::bail!(
                "--inherit-fd: two descriptors for descriptor {}",
                arg.target
            );
        }
        let mut same = earlier.filter(|(other, _)| other.own == arg.own);
        let fd = if let Some((_, offer)) = same.next() {
            offer.fd.try_clone()
        } else if arg.own <= 2 {
            duplicate(arg.own)
        } else {
            // SAFETY: Nothing was opened yet but the standard descriptors, so that it is one that
            // was left open for us; numbers that come twice were seen above.
            unsafe { inherited(arg.own) }
        };
        let fd = fd.with_context(|| format!("--inherit-fd: descriptor {} of rstr", arg.own))?;
        offers.push(Offer {
            pid: arg.pid,
            target: arg.target,
            fd,
        });
    }
    Ok(offers)
}

/// Takes standard input, output and error, but those given otherwise.
///
/// An image on standard input leaves the tree without one: it gets the terminal or nothing.
pub fn standard(from_stdin: bool, quiet: bool, given: &[Offer]) -> anyhow::Result<Vec<Offer>> {
    let mut offers = Vec::new();
    for target in 0..=2 {
        if given
            .iter()
            .any(|offer| offer.pid.is_none() && offer.target == target)
        {
            continue;
        }
        let fd = if target == 0 && from_stdin {
            let (fd, name) = substitute()?;
            if !quiet {
                say(format_args!(
                    "standard input holds the image: that of the tree is {name}"
                ));
            }
            fd
        } else {
            match duplicate(target) {
                Ok(fd) => fd,
                // Closed for us: the tree does without, or is refused.
                Err(_) => continue,
            }
        };
        offers.push(Offer {
            pid: None,
            target,
            fd,
        });
    }
    Ok(offers)
}

fn substitute() -> anyhow::Result<(OwnedFd, &'static str)> {
    let open = |path: &str| {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(Path::new(path))
    };
    match open("/dev/tty") {
        Ok(file) => Ok((file.into(), "/dev/tty")),
        Err(_) => {
            let null = open("/dev/null").context("cannot open /dev/null")?;
            Ok((null.into(), "/dev/null"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let arg = |text: &str| text.parse::<InheritArg>().ok();
        let some = |pid, target, own| Some(InheritArg { pid, target, own });
        assert_eq!(arg("5=3"), some(None, 5, 3));
        assert_eq!(arg("412:5=3"), some(Some(412), 5, 3));
        for wrong in [
            "", "5", "=", "5=", "=3", "a=3", "-1=3", "5=-1", "0:5=3", ":5=3", "5=3=1",
        ] {
            assert_eq!(arg(wrong), None, "{wrong}");
        }
    }
}
