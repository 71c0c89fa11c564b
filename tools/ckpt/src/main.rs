// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `ckpt PID > img`: writes the image of a running tree of processes.

mod capture;
mod output;
mod show;

use std::{
    fmt::Display,
    io::{
        self,
        Write, //
    },
    path::PathBuf,
    process::ExitCode,
    str::FromStr,
    time::Duration, //
};

use checkpoint::Error;
use clap::{
    Args,
    Parser,
    Subcommand, //
};

/// Writes the image of a running tree of processes
///
/// The tree is the process PID and all its descendants. It stands still for the moment that the
/// capture takes and goes on; the image goes to standard output.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Exit status: 0 done; 1 refused or failed, and the tree goes on; 2 wrong usage; \
                  3 the image is defective (show, verify)."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    capture: Capture,
}

#[derive(Subcommand)]
enum Command {
    /// Show what is in an image: the tree, its memory, its files
    Show {
        /// Image, - for standard input
        image: PathBuf,
        /// Print every record as JSON
        #[arg(long)]
        json: bool,
    },
    /// Read a whole image and check every byte of it
    Verify {
        /// Image, - for standard input
        image: PathBuf,
        /// Say nothing if it is good
        #[arg(short, long)]
        quiet: bool,
    },
}

#[derive(Args)]
struct Capture {
    /// Process at the root of the tree
    #[arg(required_unless_present = "cgroup", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,

    /// Take all processes of the process group of PID, with their descendants
    #[arg(long, group = "scope")]
    group: bool,

    /// Take all processes of the session of PID, with their descendants
    #[arg(long, group = "scope")]
    session: bool,

    /// Take all processes of the pid namespace of PID, with their descendants
    #[arg(long, group = "scope")]
    pid_namespace: bool,

    /// Take all processes of a cgroup (v2) and those below it, with their descendants
    #[arg(long, value_name = "DIR", group = "scope", conflicts_with = "pid")]
    cgroup: Option<PathBuf>,

    /// Let the tree go on (default)
    #[arg(long, group = "after")]
    leave_running: bool,

    /// Kill the tree once the image is on the disk
    #[arg(long, group = "after")]
    kill: bool,

    /// Stop the tree, as SIGSTOP does, once the image is on the disk
    #[arg(long, group = "after")]
    stop: bool,

    /// Write no image, list all that stands in the way of one
    #[arg(long, conflicts_with_all = ["after", "output", "no_snapshot"])]
    check: bool,

    /// File for the image; it appears, or is replaced, when the image is complete
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Take along what is in executables, libraries and other mapped files
    ///
    /// A restart uses it where such a file is missing or has changed.
    #[arg(long)]
    save_files: bool,

    /// Compress the image (LZ4)
    ///
    /// rstr, show and verify take a compressed image like any other.
    #[arg(long, conflicts_with = "check")]
    compress: bool,

    /// How long to wait for all tasks to stand still, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,

    /// How long the tree stands still while nothing of its image gets written, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    lease: Option<Duration>,

    /// Let the tree stand still until the image is written, which takes less memory
    #[arg(long)]
    no_snapshot: bool,

    /// Descriptor FD leads outside the tree: rstr has to supply another (--inherit-fd)
    ///
    /// FD is a number, in process PID or in all, and may be any open file; or `all`, for all
    /// terminals, pipes, sockets and pidfds that have another side outside.
    #[arg(long, value_name = "[PID:]FD|all")]
    external: Vec<ExternalArg>,

    /// The other side of descriptor FD, outside the tree, is gone after the restart
    #[arg(long, value_name = "[PID:]FD|all")]
    drop: Vec<ExternalArg>,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// `[PID:]FD` or `all`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExternalArg {
    pid: Option<i32>,
    /// All, if there is none.
    fd: Option<i32>,
}

impl FromStr for ExternalArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" {
            return Ok(Self {
                pid: None,
                fd: None,
            });
        }
        let usage = "expected FD, PID:FD or all";
        let number = |text: &str, least: i32| {
            let number = text.parse().ok().filter(|n| *n >= least);
            number.ok_or(usage).map(Some)
        };
        Ok(match text.split_once(':') {
            Some((pid, fd)) => Self {
                pid: number(pid, 1)?,
                fd: number(fd, 0)?,
            },
            None => Self {
                pid: None,
                fd: number(text, 0)?,
            },
        })
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or("not a number of seconds")?;
    match duration.as_millis() {
        1..=3_600_000 => Ok(duration),
        _ => Err("not between 0.001 and 3600 seconds".into()),
    }
}

/// The tool did what it is for, but the answer is no.
const REFUSED: u8 = 1;
/// Wrong usage.
const USAGE: u8 = 2;
/// The image is defective.
const DEFECT: u8 = 3;

/// Says something on stderr. That nobody listens is no reason to fail.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "ckpt: {what}");
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => capture::run(&cli.capture),
        Some(Command::Show { image, json }) => show::show(&image, json),
        Some(Command::Verify { image, quiet }) => show::verify(&image, quiet),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            let known = error.downcast_ref::<Error>();
            for line in known.map_or(&[][..], Error::problems) {
                say(line);
            }
            if !known.is_some_and(Error::is_explained) {
                say(format_args!("{error:#}"));
            }
            ExitCode::from(if known.is_some_and(Error::is_defect) {
                DEFECT
            } else {
                REFUSED
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_descriptors_are_read() {
        let arg = |text: &str| text.parse::<ExternalArg>().ok();
        let some = |pid, fd| Some(ExternalArg { pid, fd });
        assert_eq!(arg("all"), some(None, None));
        assert_eq!(arg("7"), some(None, Some(7)));
        assert_eq!(arg("412:0"), some(Some(412), Some(0)));
        for wrong in ["", "a", "-1", "0:1", ":1", "412:", "412:all", "1:2:3"] {
            assert_eq!(arg(wrong), None, "{wrong}");
        }
    }
}
