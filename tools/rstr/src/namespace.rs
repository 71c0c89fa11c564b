// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `--new-pidns`: a process namespace where every number is free, with an init of its own.
//!
//! rstr makes the namespaces and one child, which is process 1 in them. That one mounts /proc,
//! restarts the tree, and adopts its orphans; how it goes comes through a pipe. It stays as long as
//! anybody is left in the namespace; when it ends, the kernel kills who is left.

use std::{
    fs::{
        self,
        File, //
    },
    io::{
        Read,
        Write, //
    },
    process, //
};

use anyhow::{
    bail,
    Context, //
};
use checkpoint::{
    compress::Decompressor,
    fork,
    signals::Signals,
    Fork, //
};
use rustix::{
    event::{
        poll,
        PollFd,
        PollFlags, //
    },
    io::Errno,
    mount::{
        mount,
        mount_change,
        MountFlags,
        MountPropagationFlags, //
    },
    pipe::{
        pipe_with,
        PipeFlags, //
    },
    process::{
        getegid,
        geteuid,
        kill_process,
        wait,
        waitpid,
        Pid,
        Signal,
        WaitOptions, //
    },
    thread::{
        unshare_unsafe,
        UnshareFlags, //
    },
};

use super::{
    explain,
    job::{
        End,
        Image,
        Job,
        FORWARDED, //
    },
    stdio::Offer,
    Options,
    FAILED, //
};

/// What init has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// The tree goes on, and is left alone.
    Detached,
    /// It failed, said why, and this is the status for it.
    Failed(u8),
    /// The root ended like this.
    Ended(End),
}

impl Message {
    fn bytes(self) -> [u8; 2] {
        match self {
            Self::Detached => [0, 0],
            Self::Failed(status) => [1, status],
            Self::Ended(End::Exited(status)) => [2, status],
            Self::Ended(End::Killed(signal)) => [3, u8::try_from(signal).unwrap_or(9)],
        }
    }

    fn from_bytes(bytes: [u8; 2]) -> Option<Self> {
        Some(match bytes {
            [0, _] => Self::Detached,
            [1, status] => Self::Failed(status),
            [2, status] => Self::Ended(End::Exited(status)),
            [3, signal] => Self::Ended(End::Killed(signal.into())),
            _ => return None,
        })
    }
}

/// Makes the namespaces. The next child is process 1 in them.
fn enter() -> anyhow::Result<()> {
    let flags = UnshareFlags::NEWPID | UnshareFlags::NEWNS;
    // SAFETY: Nothing here relies on this thread's descriptors being shared, and they stay so.
    match unsafe { unshare_unsafe(flags) } {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => (),
        Err(error) => return Err(error).context("cannot make a process namespace"),
    }
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    // SAFETY: As above.
    unsafe { unshare_unsafe(flags | UnshareFlags::NEWUSER) }
        .context("cannot make a process namespace without privilege, as user namespaces are off")?;
    // Whoever could drop groups could get at files that deny them.
    write_map("setgroups", "deny")?;
    write_map("uid_map", &format!("{uid} {uid} 1"))?;
    write_map("gid_map", &format!("{gid} {gid} 1"))
}

fn write_map(name: &str, text: &str) -> anyhow::Result<()> {
    let path = format!("/proc/self/{name}");
    fs::write(&path, text).with_context(|| format!("cannot write {path}"))
}

pub fn run(
    options: &Options,
    image: Image,
    decompressor: Option<Decompressor>,
    given: Vec<Offer>,
    standard: Vec<Offer>,
) -> anyhow::Result<End> {
    // A process, as one that is about to have children in another namespace gets no threads.
    let helper = match decompressor {
        Some(decompressor) => match fork().context("cannot decompress the image")? {
            Fork::Child => {
                drop((image, given, standard));
                let result = decompressor.run();
                process::exit(result.map_or_else(|error| explain(&error.into()).into(), |()| 0))
            }
            Fork::Parent(pid) => Pid::from_raw(pid),
        },
        None => None,
    };
    enter()?;
    let (from_init, to_parent) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let front = process::id();
    match fork().context("cannot make an init")? {
        Fork::Child => {
            drop(from_init);
            init(options, front, image, given, standard, to_parent.into())
        }
        Fork::Parent(pid) => {
            // Only init keeps what the tree has: a pipe ends when the tree closes it.
            drop((image, given, standard, to_parent));
            parent(pid, helper, from_init.into())
        }
    }
}

/// Waits for the message of init and passes on signals to it. Reaps `helper`.
fn parent(init: i32, helper: Option<Pid>, mut from_init: File) -> anyhow::Result<End> {
    let numbers = [FORWARDED, &[libc::SIGCHLD]].concat();
    let signals = Signals::take(&numbers).context("cannot take signals")?;
    let init = Pid::from_raw(init).context("no init")?;
    loop {
        if helper.is_some() {
            // What it had to say it has said.
            let _ = waitpid(helper, WaitOptions::NOHANG);
        }
        let mut fds = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&from_init, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => (),
            Err(error) => return Err(error).context("cannot wait"),
        }
        let spoken = !fds[1].revents().is_empty();
        while let Some(signal) = signals.next() {
            match Signal::from_named_raw(signal.number) {
                Some(Signal::CHILD) => (),
                // It may have ended meanwhile.
                Some(signal_) if signal.from_process => drop(kill_process(init, signal_)),
                _ => (),
            }
        }
        if !spoken {
            continue;
        }
        let mut bytes = [0; 2];
        if from_init.read_exact(&mut bytes).is_err() {
            bail!("the init of the namespace was killed, and the tree with it");
        }
        return match Message::from_bytes(bytes) {
            Some(Message::Detached) => Ok(End::Exited(0)),
            // Why was said by init.
            Some(Message::Failed(status)) => Ok(End::Exited(status)),
            Some(Message::Ended(end)) => Ok(end),
            None => bail!("the init of the namespace does not make sense"),
        };
    }
}

/// Is process 1 until nobody else is left.
fn init(
    options: &Options,
    front: u32,
    image: Image,
    given: Vec<Offer>,
    standard: Vec<Offer>,
    mut to_parent: File,
) -> ! {
    let message = match restart(options, front, image, given, standard) {
        Ok(message) => message,
        Err(error) => Message::Failed(explain(&error)),
    };
    // A parent that is gone does not need to know.
    let _ = to_parent.write_all(&message.bytes());
    drop(to_parent);
    if matches!(message, Message::Failed(_)) {
        process::exit(FAILED.into());
    }
    // Nobody waits for us any more; what is left of the tree has us as its parent.
    while matches!(wait(WaitOptions::empty()), Ok(_) | Err(Errno::INTR)) {}
    process::exit(0)
}

fn restart(
    options: &Options,
    front: u32,
    image: Image,
    given: Vec<Offer>,
    standard: Vec<Offer>,
) -> anyhow::Result<Message> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context("cannot make the mounts private")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).context("cannot mount /proc in the namespace")?;

    let mut job = Job::start(options, image, None, &given, &standard)?;
    drop((given, standard));
    job.announce(options, front);
    let end = job.wait(options)?;
    Ok(if options.detach {
        Message::Detached
    } else {
        Message::Ended(end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        for message in [
            Message::Detached,
            Message::Failed(126),
            Message::Ended(End::Exited(7)),
            Message::Ended(End::Killed(15)),
        ] {
            assert_eq!(Message::from_bytes(message.bytes()), Some(message));
        }
        assert_eq!(Message::from_bytes([9, 0]), None);
    }
}
