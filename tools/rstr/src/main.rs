// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `rstr < img`: restarts a tree of processes from its image.

mod job;
mod namespace;
mod stdio;

use std::{
    fmt::Display,
    fs::File,
    io::{
        self,
        IsTerminal,
        Write, //
    },
    os::fd::{
        AsFd,
        OwnedFd, //
    },
    path::PathBuf,
    process::{
        self,
        ExitCode, //
    },
    str::FromStr,
};

use anyhow::Context;
use checkpoint::{
    compress::Decompressor,
    Error, //
};
use clap::{
    error::ErrorKind,
    Parser,
    ValueEnum, //
};

use self::{
    job::{
        End,
        Image, //
    },
    stdio::InheritArg, //
};

/// Restarts a tree of processes from its image
///
/// The image comes from standard input, or from a file. The tree comes back with the process
/// numbers that it had, and goes on where it was. rstr waits for its root and ends as it does.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit status: that of the root, or its death by the same signal; 0 with --detach; \
                  125 refused or failed, and nothing of the tree is left, or wrong usage; 126 the \
                  image is defective."
)]
pub struct Options {
    /// Image, instead of standard input
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// Print the process number of the root and do not wait for it
    #[arg(short, long)]
    detach: bool,

    /// Build the tree and hold it until rstr gets SIGCONT or SIGUSR1
    ///
    /// The process number of the root is printed as soon as it is built. SIGINT, SIGQUIT, SIGTERM and
    /// SIGHUP give the tree up.
    #[arg(long)]
    frozen: bool,

    /// Restart into a process namespace of its own, where every process number is free
    ///
    /// It has an init and a /proc of its own. Takes no privilege where user namespaces are
    /// permitted.
    #[arg(long)]
    new_pidns: bool,

    /// What to do with files that grew since the checkpoint
    #[arg(long, value_name = "POLICY", default_value = "refuse")]
    files: Files,

    /// Accept files that are others than at the checkpoint, as they are
    #[arg(long)]
    force: bool,

    /// Accept that the monotonic clocks go back
    #[arg(long, value_name = "POLICY")]
    clocks: Option<Clocks>,

    /// Descriptor N of rstr takes the place of descriptor FD of the tree, or of process PID in it
    ///
    /// It has to be one that leads outside the tree by the image, and N of the same kind. May be
    /// given more than once.
    #[arg(long, value_name = "[PID:]FD=N")]
    inherit_fd: Vec<InheritArg>,

    /// What had the path OLD, or one below it, has the path NEW now, or one below that
    ///
    /// Goes for files, directories, executables, fifos and the names of sockets. May be given more
    /// than once: the first that fits counts.
    #[arg(long, value_name = "OLD=NEW")]
    relocate: Vec<RelocateArg>,

    /// Say nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

/// `OLD=NEW`, both absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RelocateArg {
    from: PathBuf,
    to: PathBuf,
}

impl FromStr for RelocateArg {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let paths = text
            .split_once('=')
            .filter(|(from, to)| from.starts_with('/') && to.starts_with('/'));
        let (from, to) = paths.ok_or("expected OLD=NEW, both of them absolute paths")?;
        Ok(Self {
            from: from.into(),
            to: to.into(),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Files {
    /// Refuse the restart
    Refuse,
    /// Leave them as they are
    Keep,
    /// Cut them to the size they had
    Truncate,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clocks {
    /// Leave them as they are here
    Keep,
}

/// Refused, failed or called wrongly: what env(1) and timeout(1) say, too.
const FAILED: u8 = 125;
/// The image is defective.
const DEFECT: u8 = 126;

/// Says something on stderr. That nobody listens is no reason to fail.
fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "rstr: {what}");
}

/// Says why something failed and returns the exit status for it.
fn explain(error: &anyhow::Error) -> u8 {
    let known = error.downcast_ref::<Error>();
    for line in known.map_or(&[][..], Error::problems) {
        say(line);
    }
    if !known.is_some_and(Error::is_explained) {
        say(format_args!("{error:#}"));
    }
    if known.is_some_and(Error::is_defect) {
        DEFECT
    } else {
        FAILED
    }
}

fn image(options: &Options) -> anyhow::Result<OwnedFd> {
    match &options.input {
        Some(path) => Ok(File::open(path)
            .with_context(|| format!("cannot open {}", path.display()))?
            .into()),
        None if io::stdin().is_terminal() => {
            anyhow::bail!(
                "an image does not come from a terminal: redirect the input, or give -i FILE"
            )
        }
        None => io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .context("cannot read standard input"),
    }
}

fn run(options: &Options) -> anyhow::Result<End> {
    // Before a descriptor of our own takes one of these numbers.
    let given = stdio::given(&options.inherit_fd)?;
    let (image, decompressor) = Image::new(image(options)?)?;
    let from_stdin = options.input.is_none();
    let standard = stdio::standard(from_stdin, options.quiet, &given)?;
    if options.new_pidns {
        namespace::run(options, image, decompressor, given, standard)
    } else {
        let work = decompressor.map(Decompressor::start).transpose();
        let work = work.context("cannot decompress the image")?;
        let mut job = job::Job::start(options, image, work, &given, &standard)?;
        // Only the tree keeps them: a pipe ends when it closes it.
        drop((given, standard));
        job.announce(options, process::id());
        job.wait(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Nobody there to be told is no reason for another status.
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return ExitCode::from(if asked { 0 } else { FAILED });
        }
    };
    match run(&options) {
        Ok(End::Exited(status)) => ExitCode::from(status),
        Ok(End::Killed(signal)) => checkpoint::signals::die(signal),
        Err(error) => ExitCode::from(explain(&error)),
    }
}
