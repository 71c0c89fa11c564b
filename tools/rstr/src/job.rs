// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The restarted tree, and waiting for it.

use std::{
    fs::File,
    io::{
        self,
        Write, //
    },
    os::fd::{
        AsFd,
        OwnedFd, //
    },
    time::Duration, //
};

use anyhow::Context;
use checkpoint::{
    compress::{
        decompress,
        Decompressing,
        Decompressor, //
    },
    progress::{
        Direction,
        Progress,
        Size,
        Time, //
    },
    signals::{
        self,
        Signals, //
    },
    Hold,
    Restart,
    Restarted,
    Stats, //
};
use rustix::{
    event::{
        poll,
        PollFd,
        PollFlags,
        Timespec, //
    },
    io::Errno,
    process::{
        getpgid,
        getpgrp,
        getpid,
        getsid,
        pidfd_send_signal,
        wait,
        Pid,
        Signal,
        WaitOptions,
        WaitStatus, //
    },
    termios::{
        tcgetpgrp,
        tcsetpgrp, //
    },
};

use super::{
    say,
    stdio::Offer,
    Clocks,
    Files,
    Options,
    RelocateArg, //
};

/// Signals that go on to the root of the tree.
pub const FORWARDED: &[i32] = &[
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
    libc::SIGCONT,
];

/// How often a hold is renewed; its lease is longer.
const RENEW: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

/// The image.
pub struct Image {
    /// What the kernel reads it from.
    stream: OwnedFd,
    /// What it is in, perhaps compressed.
    file: OwnedFd,
}

impl Image {
    /// Takes the image in `file`. If it is compressed, somebody else has to make it come.
    pub fn new(file: OwnedFd) -> anyhow::Result<(Self, Option<Decompressor>)> {
        let copy = file.try_clone();
        let (stream, decompressor) = copy.and_then(decompress).context("cannot read the image")?;
        Ok((Self { stream, file }, decompressor))
    }
}

/// A restarted tree.
pub struct Job {
    pid: i32,
    pidfd: OwnedFd,
    /// All children are roots, several if the image is that of a group or the like.
    alone: bool,
    /// The roots besides the first, if there may be other children.
    others: Vec<i32>,
    hold: Option<Hold>,
    stats: Stats,
    signals: Signals,
    terminal: Option<Terminal>,
}

/// The controlling terminal, which the tree uses in its own process group.
struct Terminal {
    file: File,
    /// The foreground group that was ours, if the tree's took its place.
    before: Option<Pid>,
}

impl Terminal {
    fn open() -> Option<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        Some(Self { file, before: None })
    }

    /// Gives the terminal to the group of `pid` if we have it and the group is in our session.
    fn give(&mut self, pid: i32) {
        let Some(pid) = Pid::from_raw(pid) else {
            return;
        };
        let (Ok(group), Ok(session)) = (getpgid(Some(pid)), getsid(Some(pid))) else {
            return;
        };
        let ours = getpgrp();
        if group != ours
            && Ok(session) == getsid(None)
            && tcgetpgrp(&self.file) == Ok(ours)
            && tcsetpgrp(&self.file, group).is_ok()
        {
            self.before = Some(ours);
        }
    }

    /// Takes it back.
    fn take(&mut self) {
        if let Some(before) = self.before.take() {
            // Whoever set another group meanwhile keeps it, and a terminal that is gone is no loss.
            let _ = tcsetpgrp(&self.file, before);
        }
    }
}

/// Returns how a process ended, if it did.
fn end(status: WaitStatus) -> Option<End> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => Some(End::Exited(u8::try_from(status & 0xff).ok()?)),
        (_, Some(signal)) => Some(End::Killed(signal)),
        _ => None,
    }
}

/// The children of this process.
fn children() -> impl Iterator<Item = i32> {
    let own = getpid().as_raw_nonzero().get().to_string();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(move |entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        (rest.split(' ').nth(1) == Some(own.as_str())).then_some(pid)
    })
}

impl Job {
    /// Brings back the tree. `work` makes its image come, if that is necessary here.
    pub fn start(
        options: &Options,
        image: Image,
        work: Option<Decompressing>,
        given: &[Offer],
        standard: &[Offer],
    ) -> anyhow::Result<Self> {
        let terminal = if options.detach {
            None
        } else {
            Terminal::open()
        };
        if terminal.is_some() {
            // Moving the terminal from the background must not stop us.
            signals::ignore(libc::SIGTTOU);
        }
        let mut restart = Restart::new()
            .frozen(options.frozen)
            .keep_files(options.files == Files::Keep)
            .truncate_files(options.files == Files::Truncate)
            .force(options.force)
            .keep_clocks(options.clocks == Some(Clocks::Keep))
            .inherit(given.iter().chain(standard).map(Offer::inherit));
        for RelocateArg { from, to } in &options.relocate {
            restart = restart.relocate(from, to);
        }
        // The thread of the bar starts before the signals are blocked, and may take them, as that of
        // the image may: they are gone when there is somebody to forward them to.
        let progress = Progress::start(image.file.as_fd(), Direction::Read, options.quiet);
        // Whoever called exec may have left us children.
        let alone = !getpid().is_init() && wait(WaitOptions::NOHANG).err() == Some(Errno::CHILD);
        let restarted = restart.read(image.stream.as_fd());
        drop((progress, image));
        let came = work.map_or(Ok(()), Decompressing::finish);
        let Restarted {
            pid,
            pidfd,
            hold,
            stats,
        } = restarted.map_err(|error| came.err().unwrap_or(error))?;
        let others = if getpid().is_init() {
            // Whose children all orphans become, too.
            children().filter(|child| *child != pid).collect()
        } else {
            Vec::new()
        };
        let numbers = [FORWARDED, &[libc::SIGCHLD]].concat();
        let signals = Signals::take(&numbers).context("cannot take signals")?;
        Ok(Self {
            pid,
            pidfd,
            alone,
            others,
            hold,
            stats,
            signals,
            terminal,
        })
    }

    /// Says what was brought back.
    ///
    /// `front` is the process number of the rstr that a user sees.
    pub fn announce(&self, options: &Options, front: u32) {
        for line in &self.stats.messages {
            say(line);
        }
        if options.detach || options.frozen {
            let mut out = io::stdout().lock();
            // The tree is there, whether or not somebody reads its number.
            let _ = writeln!(out, "{}", self.pid).and_then(|()| out.flush());
        }
        if !options.quiet {
            let stats = &self.stats;
            say(format_args!(
                "process {} {}: {} task{}, {} pages, {} in {}",
                self.pid,
                if options.frozen {
                    "is built and held"
                } else {
                    "goes on"
                },
                stats.tasks,
                if stats.tasks == 1 { "" } else { "s" },
                stats.pages,
                Size(stats.bytes),
                Time(stats.total),
            ));
            if options.frozen {
                say(format_args!("kill -CONT {front} lets it go on"));
            }
        }
    }

    /// Lets the tree go, unless it does already, and waits for its root unless detached.
    pub fn wait(&mut self, options: &Options) -> anyhow::Result<End> {
        if let Some(hold) = self.hold.take() {
            if let Some(end) = self.until_go(hold)? {
                return Ok(end);
            }
            if !options.quiet {
                say(format_args!("process {} goes on", self.pid));
            }
        }
        if options.detach {
            return Ok(End::Exited(0));
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.give(self.pid);
        }
        let end = self.until_end();
        if let Some(terminal) = &mut self.terminal {
            terminal.take();
        }
        end
    }

    /// Keeps the tree held until a signal says what to do.
    fn until_go(&mut self, hold: Hold) -> anyhow::Result<Option<End>> {
        loop {
            self.pause(Some(RENEW), true)?;
            while let Some(signal) = self.signals.next() {
                match signal.number {
                    libc::SIGCONT | libc::SIGUSR1 => {
                        hold.release()?;
                        return Ok(None);
                    }
                    libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT => {
                        hold.kill()?;
                        self.until_end()?;
                        return Ok(Some(End::Killed(signal.number)));
                    }
                    _ => (),
                }
            }
            // SIGKILL reaches what is held.
            if let Ok(Some((pid, status))) = self.look(false) {
                if let Some(end) = end(status).filter(|_| pid == self.pid) {
                    return Ok(Some(end));
                }
            }
            hold.renew()?;
        }
    }

    /// Waits for a signal, for the end of the root while it `lives`, or for some time.
    fn pause(&self, limit: Option<Duration>, lives: bool) -> anyhow::Result<()> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        match poll(&mut fds[..if lives { 2 } else { 1 }], limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait"),
        }
    }

    /// Waits for the end of all roots, forwards signals to the first, stops with it, and returns how it
    /// ended.
    fn until_end(&mut self) -> anyhow::Result<End> {
        let stops = self.terminal.is_some();
        let mut first = None;
        loop {
            if let Some(end) = first.filter(|_| !self.alone && self.others.is_empty()) {
                return Ok(end);
            }
            match self.look(stops) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    first = end(status);
                    if first.is_some() {
                        continue;
                    }
                    // A shell waits for us to stop when its job does.
                    signals::stop_self();
                    let _ = pidfd_send_signal(&self.pidfd, Signal::CONT);
                }
                Ok(Some(_)) | Err(Errno::INTR) => (),
                Ok(None) => {
                    // SIGCHLD says when there is something new; so does the end of the root, should
                    // it not be our child.
                    self.pause(None, first.is_none())?;
                    self.forward();
                }
                Err(error) => {
                    return first
                        .filter(|_| error == Errno::CHILD)
                        .ok_or(error)
                        .with_context(|| format!("cannot wait for process {}", self.pid));
                }
            }
        }
    }

    /// Looks for a child that ended or stopped.
    fn look(&mut self, stops: bool) -> Result<Option<(i32, WaitStatus)>, Errno> {
        let mut options = WaitOptions::NOHANG;
        if stops {
            options |= WaitOptions::UNTRACED;
        }
        let Some((pid, status)) = wait(options)? else {
            return Ok(None);
        };
        let pid = pid.as_raw_nonzero().get();
        if end(status).is_some() {
            self.others.retain(|other| *other != pid);
        }
        Ok(Some((pid, status)))
    }

    /// Passes on signals that processes sent. The terminal's reach the tree by themselves, or are
    /// not for it.
    fn forward(&self) {
        while let Some(signal) = self.signals.next() {
            if !signal.from_process || signal.number == libc::SIGCHLD {
                continue;
            }
            if let Some(signal) = Signal::from_named_raw(signal.number) {
                // It may have ended meanwhile.
                let _ = pidfd_send_signal(&self.pidfd, signal);
            }
        }
    }
}
