// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The two system calls, and the hold between them.

use std::{
    fs::File,
    io::Read,
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd,
        OwnedFd, //
    },
    path::{
        Path,
        PathBuf, //
    },
    thread,
    time::Duration, //
};

use rustix::{
    io::Errno,
    pipe::{
        pipe_with,
        PipeFlags, //
    }, //
};

use super::{
    error::Error,
    sys::{
        self,
        HoldOp,
        RawExternal,
        RawInherit,
        RawStats, //
    }, //
};

/// What a call did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks in the image.
    pub tasks: u64,
    /// Pages of memory in the image.
    pub pages: u64,
    /// Bytes of the image.
    pub bytes: u64,
    /// How long the tree stood still; zero while it does.
    pub stopped: Duration,
    /// How long the call took.
    pub total: Duration,
    /// What the kernel had to say, one line each.
    pub messages: Vec<String>,
}

impl Stats {
    fn new(raw: RawStats, messages: Vec<String>) -> Self {
        Self {
            tasks: raw.tasks,
            pages: raw.pages,
            bytes: raw.bytes,
            stopped: Duration::from_nanos(raw.stopped_ns),
            total: Duration::from_nanos(raw.total_ns),
            messages,
        }
    }
}

/// Calls `call` with a descriptor for the kernel's lines, and returns these as well.
fn with_log<T>(
    call: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
) -> Result<(Result<T, Errno>, Vec<String>), Error> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::System {
        what: "make a pipe",
        errno,
    })?;
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        // What was read until an error is what there is.
        let _ = File::from(read).read_to_end(&mut text);
        text
    });
    let result = call(write.as_fd());
    drop(write);
    let text = reader.join().unwrap_or_default();
    let lines = String::from_utf8_lossy(&text)
        .lines()
        .map(str::to_owned)
        .collect();
    Ok((result, lines))
}

/// What a checkpoint is of, besides all descendants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// The process of the pidfd.
    #[default]
    Process,
    /// The process group of the pidfd's process.
    Group,
    /// Its session.
    Session,
    /// Its pid namespace.
    PidNamespace,
    /// The cgroup whose directory it is, and those below.
    Cgroup,
}

/// What becomes of an open file that leads outside the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// The restarter supplies another.
    Supply,
    /// Its other side is gone after the restart.
    Drop,
}

/// A checkpoint to be made.
#[derive(Clone, Debug)]
pub struct Checkpoint<'fd> {
    target: BorrowedFd<'fd>,
    external: Vec<RawExternal>,
    scope: Scope,
    no_snapshot: bool,
    save_files: bool,
    timeout: Duration,
    lease: Duration,
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl<'fd> Checkpoint<'fd> {
    /// Of the tree whose root `target` is a pidfd of.
    pub fn new(target: BorrowedFd<'fd>) -> Self {
        Self {
            target,
            external: Vec::new(),
            scope: Scope::Process,
            no_snapshot: false,
            save_files: false,
            timeout: Duration::ZERO,
            lease: Duration::ZERO,
        }
    }

    /// What of the target is meant.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Whether the tree stays still until its image is written, which needs less memory.
    pub fn no_snapshot(mut self, no_snapshot: bool) -> Self {
        self.no_snapshot = no_snapshot;
        self
    }

    /// Whether the image has the contents of executables and mapped files, too.
    pub fn save_files(mut self, save_files: bool) -> Self {
        self.save_files = save_files;
        self
    }

    /// How long to wait for all tasks to stand still; zero for the kernel's default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a hold lasts without being used; zero for the kernel's default.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Says what becomes of descriptor `fd`, or of all that lead outside, in the task `pid`, or in
    /// all tasks. The first that fits counts.
    pub fn external(mut self, pid: Option<i32>, fd: Option<i32>, action: External) -> Self {
        self.external.push(RawExternal {
            pid: pid.unwrap_or(0),
            fd: fd.unwrap_or(-1),
            action: match action {
                External::Supply => sys::EXTERNAL_SUPPLY,
                External::Drop => sys::EXTERNAL_DROP,
            },
            reserved: 0,
        });
        self
    }

    fn call(&self, flags: u64, fd: Option<BorrowedFd<'_>>) -> Result<(i64, Stats), Error> {
        let held = flags & sys::HELD != 0;
        let mut stats = RawStats::default();
        let (result, lines) = with_log(|log| {
            // A hold knows what it holds.
            let scope = match self.scope {
                _ if held => 0,
                Scope::Process => 0,
                Scope::Group => sys::GROUP,
                Scope::Session => sys::SESSION,
                Scope::PidNamespace => sys::PID_NS,
                Scope::Cgroup => sys::CGROUP,
            };
            let args = sys::CheckpointArgs {
                flags: flags | scope,
                target: self.target.as_raw_fd(),
                fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
                log_fd: log.as_raw_fd(),
                timeout_ms: if held { 0 } else { millis(self.timeout) },
                lease_ms: if held { 0 } else { millis(self.lease) },
                ..Default::default()
            };
            let external = if flags & sys::HOLD != 0 {
                &[][..]
            } else {
                &self.external
            };
            sys::checkpoint(args, external, &mut stats)
        })?;
        match result {
            Ok(value) => Ok((value, Stats::new(stats, lines))),
            Err(errno) => Err(Error::Checkpoint {
                errno,
                problems: lines,
            }),
        }
    }

    /// The flags of a call that writes an image.
    fn flags(&self) -> u64 {
        let flags = [
            (self.no_snapshot, sys::NO_SNAPSHOT),
            (self.save_files, sys::SAVE_FILES),
        ];
        let given = flags.iter().filter(|(given, _)| *given);
        given.fold(0, |flags, (_, flag)| flags | flag)
    }

    /// Writes the image to `stream` and kills the tree when that is complete. A file in tmpfs gets
    /// the pages of the tree themselves.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`]: the tree goes on, and what was written is no image; but see
    /// checkpoint(2) for somebody else who kills it or writes to the file at the same time.
    pub fn write_and_kill(&self, stream: BorrowedFd<'_>) -> Result<Stats, Error> {
        self.call(self.flags() | sys::KILL, Some(stream))
            .map(|(_, stats)| stats)
    }

    /// Writes the image to `stream`; the tree goes on.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`]: the tree goes on as well, and what was written is no image.
    pub fn write(&self, stream: BorrowedFd<'_>) -> Result<Stats, Error> {
        self.call(self.flags(), Some(stream))
            .map(|(_, stats)| stats)
    }

    /// Returns what stands in the way of a checkpoint, one line each; empty if nothing does.
    ///
    /// # Errors
    ///
    /// If the tree could not even be looked at.
    pub fn check(&self) -> Result<Vec<String>, Error> {
        match self.call(sys::CHECK | self.flags() & !sys::NO_SNAPSHOT, None) {
            Ok((_, stats)) => Ok(stats.messages),
            Err(Error::Checkpoint {
                errno: Errno::OPNOTSUPP,
                problems,
            }) if !problems.is_empty() => Ok(problems),
            Err(error) => Err(error),
        }
    }

    /// Stops the tree and keeps it.
    ///
    /// # Errors
    ///
    /// If it does not stand still in time, or is held by somebody else.
    pub fn hold(&self) -> Result<Hold, Error> {
        let (value, _) = self.call(sys::HOLD, None)?;
        let fd = sys::hold(value).map_err(|errno| Error::Checkpoint {
            errno,
            problems: Vec::new(),
        })?;
        Ok(Hold(fd))
    }
}

/// A tree that stands still until this is dropped, its lease runs out, or this process dies.
#[derive(Debug)]
pub struct Hold(OwnedFd);

impl Hold {
    /// Writes the image of the tree to `stream`, as `checkpoint` says; it goes on standing still.
    ///
    /// # Errors
    ///
    /// As [`Checkpoint::write`]; the hold stays.
    pub fn write(
        &self,
        stream: BorrowedFd<'_>,
        checkpoint: &Checkpoint<'_>,
    ) -> Result<Stats, Error> {
        let call = Checkpoint {
            target: self.0.as_fd(),
            ..checkpoint.clone()
        };
        let flags = sys::HELD | call.flags();
        match call.call(flags, Some(stream)) {
            Ok((_, stats)) => Ok(stats),
            Err(Error::Checkpoint {
                errno: Errno::SRCH,
                problems,
            }) if problems.is_empty() => Err(Error::Ended("write the image")),
            Err(error) => Err(error),
        }
    }

    fn op(&self, op: HoldOp, what: &'static str) -> Result<(), Error> {
        sys::hold_op(self.0.as_fd(), op).map_err(|errno| match errno {
            Errno::SRCH => Error::Ended(what),
            errno => Error::System { what, errno },
        })
    }

    /// Starts the lease anew.
    ///
    /// # Errors
    ///
    /// If the hold has ended.
    pub fn renew(&self) -> Result<(), Error> {
        self.op(HoldOp::Renew, "renew the hold on the tree")
    }

    /// Lets the tree go on.
    ///
    /// # Errors
    ///
    /// If the hold has ended already.
    pub fn release(self) -> Result<(), Error> {
        self.op(HoldOp::Release, "let the tree go on")
    }

    /// Kills every task of the tree.
    ///
    /// # Errors
    ///
    /// If the hold has ended: the tree goes on.
    pub fn kill(self) -> Result<(), Error> {
        self.op(HoldOp::Kill, "kill the tree")
    }

    /// Stops every process of the tree as SIGSTOP does, and ends the hold.
    ///
    /// # Errors
    ///
    /// If the hold has ended: the tree goes on.
    pub fn stop(self) -> Result<(), Error> {
        self.op(HoldOp::Stop, "stop the tree")
    }
}

/// A descriptor of the caller's that takes the place of one whose other side is outside the tree.
#[derive(Clone, Copy, Debug)]
pub struct Inherit<'fd> {
    /// The task whose descriptor it replaces, `None` for every task.
    pub pid: Option<i32>,
    /// Number of the descriptor in the tree.
    pub target: i32,
    /// What replaces it.
    pub fd: BorrowedFd<'fd>,
}

/// A restart to be made.
#[derive(Clone, Debug, Default)]
pub struct Restart<'fd> {
    flags: u64,
    inherit: Vec<Inherit<'fd>>,
    relocate: Vec<(PathBuf, PathBuf)>,
}

/// A tree that a restart brought back.
#[derive(Debug)]
pub struct Restarted {
    /// Process number of its root, as the caller sees it.
    pub pid: i32,
    /// A pidfd of its root.
    pub pidfd: OwnedFd,
    /// The hold on it, after [`Restart::frozen`].
    pub hold: Option<Hold>,
    /// What was done.
    pub stats: Stats,
}

impl<'fd> Restart<'fd> {
    /// Returns a restart that changes nothing and accepts no difference.
    pub fn new() -> Self {
        Self::default()
    }

    fn flag(mut self, flag: u64, on: bool) -> Self {
        self.flags = if on {
            self.flags | flag
        } else {
            self.flags & !flag
        };
        self
    }

    /// Leaves the tree built and held.
    pub fn frozen(self, on: bool) -> Self {
        self.flag(sys::FROZEN, on)
    }

    /// Accepts files that grew since the checkpoint.
    pub fn keep_files(self, on: bool) -> Self {
        self.flag(sys::FILES_KEEP, on)
    }

    /// Cuts files that grew back to their recorded size.
    pub fn truncate_files(self, on: bool) -> Self {
        self.flag(sys::FILES_TRUNCATE, on)
    }

    /// Accepts files that are others than at the checkpoint.
    pub fn force(self, on: bool) -> Self {
        self.flag(sys::FORCE, on)
    }

    /// Accepts that clocks go back.
    pub fn keep_clocks(self, on: bool) -> Self {
        self.flag(sys::CLOCKS_KEEP, on)
    }

    /// Offers descriptors to the tree.
    pub fn inherit(mut self, inherit: impl IntoIterator<Item = Inherit<'fd>>) -> Self {
        self.inherit.extend(inherit);
        self
    }

    /// Says that what had the path `from`, or one below it, has the path `to` now, or one below
    /// that. The first that fits counts.
    pub fn relocate(mut self, from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        self.relocate.push((from.into(), to.into()));
        self
    }

    /// Reads an image from `stream`, to its end and never past it, and brings back its tree.
    ///
    /// # Errors
    ///
    /// [`Error::Restart`]: nothing of the tree is left.
    pub fn read(&self, stream: BorrowedFd<'_>) -> Result<Restarted, Error> {
        let inherit: Vec<RawInherit> = self
            .inherit
            .iter()
            .map(|entry| RawInherit {
                pid: entry.pid.unwrap_or(0),
                target_fd: entry.target,
                fd: entry.fd.as_raw_fd(),
                reserved: 0,
            })
            .collect();
        let mut stats = RawStats::default();
        let relocate: Vec<(&Path, &Path)> = self
            .relocate
            .iter()
            .map(|(from, to)| (from.as_path(), to.as_path()))
            .collect();
        let (result, lines) =
            with_log(|log| sys::restart(self.flags, stream, log, &inherit, &relocate, &mut stats))?;
        match result {
            Ok(raw) => Ok(Restarted {
                pid: raw.pid,
                pidfd: raw.pidfd,
                hold: raw.hold.map(Hold),
                stats: Stats::new(stats, lines),
            }),
            Err(errno) => Err(Error::Restart {
                errno,
                problems: lines,
            }),
        }
    }
}
