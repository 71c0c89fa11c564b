// SPDX-License-Identifier: GPL-2.0

//! A session on a pty of the tree, with jobs in the foreground and in the background, as a shell has
//! them.

use libc::{
    O_NOCTTY,
    O_RDWR,
    SIGINT,
    SIGKILL,
    SIGTTIN,
    SIGTTOU, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    kill,
    open,
    owned,
    read,
    write, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("foreground", foreground),
        Case::new("changed-group", changed_group),
        Case::new("background-read", background_read),
        Case::new("hangup", hangup),
    ],
    // The numbers that follow are those of one victim, and so are those of terminals.
    jobs: 1,
    ..Suite::new("job-control")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A job: a process group of one process.
struct Job {
    pid: i32,
}

impl Job {
    /// Starts a job that waits for signals, or that reads the terminal.
    fn new(tty: &OwnedFd, reads: bool) -> Result<Self> {
        // SAFETY: this process has one thread.
        match cvt(unsafe { libc::fork() })? {
            0 => {
                // SAFETY: no memory but the buffer is involved; the process ends.
                unsafe {
                    libc::setpgid(0, 0);
                    libc::signal(SIGINT, libc::SIG_DFL);
                    let mut byte = [0u8];
                    loop {
                        if reads && libc::read(tty.as_raw_fd(), byte.as_mut_ptr().cast(), 1) == 1 {
                            libc::_exit(i32::from(byte[0]));
                        }
                        libc::usleep(10_000);
                    }
                }
            }
            pid => {
                // SAFETY: no memory is involved.
                unsafe { libc::setpgid(pid, pid) };
                Ok(Self { pid })
            }
        }
    }

    /// Waits until it has stopped or ended, and returns the wait status.
    fn status(&self) -> Result<i32> {
        let mut status = 0;
        let changed = sys::until(Duration::from_secs(10), || {
            let flags = libc::WNOHANG | libc::WUNTRACED;
            // SAFETY: the status is valid for writing.
            unsafe { libc::waitpid(self.pid, &mut status, flags) == self.pid }
        });
        ensure!(changed, "job {} goes on", self.pid);
        Ok(status)
    }

    fn killed_by(&self, signal: i32) -> Result<()> {
        let status = self.status()?;
        ensure!(
            libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == signal,
            "job {} ended with status {status:#x}",
            self.pid
        );
        Ok(())
    }
}

/// Puts `job` into the foreground, as `fg` of a shell does.
fn to_foreground(tty: &OwnedFd, job: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::tcsetpgrp(tty.as_raw_fd(), job) })?;
    Ok(())
}

fn in_foreground(tty: &OwnedFd) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { libc::tcgetpgrp(tty.as_raw_fd()) }
}

/// Runs `shell` as the leader of a session on a new pty; `setup` is what it does before the
/// checkpoint. The victim keeps the master, for `person` at the keyboard, and what that returns until
/// the end of the session.
fn session<T>(
    v: &Victim,
    setup: impl FnOnce(&OwnedFd) -> Result<T>,
    shell: impl FnOnce(&OwnedFd, T) -> Result<()>,
    person: impl FnOnce(OwnedFd) -> Result<Option<OwnedFd>>,
) -> Result<()> {
    // Others take the lowest number, which is taken at a restart then.
    let mut masters = Vec::new();
    for _ in 0..20 {
        // SAFETY: no memory is involved.
        masters.push(owned(unsafe { libc::posix_openpt(O_RDWR | O_NOCTTY) })?);
    }
    let master = masters.pop().context("no pty")?;
    drop(masters);
    let mut number = 0;
    // SAFETY: the descriptor is a master, the number is valid for writing.
    unsafe {
        cvt(libc::unlockpt(master.as_raw_fd()))?;
        cvt(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number))?;
    }
    let (ready, tells) = sys::pipe(0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let run = || -> Result<()> {
            // SAFETY: no memory is involved.
            unsafe {
                cvt(libc::setsid())?;
                libc::signal(SIGINT, libc::SIG_IGN);
                libc::signal(SIGTTOU, libc::SIG_IGN);
                cvt(libc::close(master.as_raw_fd()))?;
            }
            let tty = open(Path::new(&format!("/dev/pts/{number}")), O_RDWR)?;
            let state = setup(&tty)?;
            write(&tells, b"x")?;
            v.wait();
            shell(&tty, state)
        };
        match run() {
            Ok(()) => 0,
            Err(e) => {
                let _ = fs::write(v.path("shell"), format!("{e:#}"));
                1
            }
        }
    })?;
    same("told", 1, read(&ready, &mut [0])?)?;
    drop(numbers);
    v.stand()?;
    let _master = person(master)?;
    let status = child.wait(Duration::from_secs(30))?;
    let said = fs::read_to_string(v.path("shell")).unwrap_or_default();
    ensure!(status.success(), "the shell: {status}: {said}");
    Ok(())
}

fn ends(job: &Job) -> Result<()> {
    kill(job.pid, SIGKILL)?;
    job.killed_by(SIGKILL)
}

/// Ctrl-C reaches the job in the foreground, and not the one in the background.
fn foreground(v: &Victim) -> Result<()> {
    session(
        v,
        |tty| {
            let jobs = (Job::new(tty, false)?, Job::new(tty, false)?);
            to_foreground(tty, jobs.0.pid)?;
            Ok(jobs)
        },
        |tty, (first, second)| {
            same("foreground", first.pid, in_foreground(tty))?;
            first.killed_by(SIGINT)?;
            ends(&second)
        },
        |master| {
            write(&master, b"\x03")?;
            Ok(Some(master))
        },
    )
}

/// A job that is brought to the foreground after the restart is the one that Ctrl-C ends.
fn changed_group(v: &Victim) -> Result<()> {
    session(
        v,
        |tty| Ok((Job::new(tty, false)?, Job::new(tty, false)?)),
        |tty, (first, second)| {
            same("foreground", sys::getpid(), in_foreground(tty))?;
            to_foreground(tty, second.pid)?;
            second.killed_by(SIGINT)?;
            ends(&first)
        },
        |master| {
            // Until it is heard: the shell itself ignores it.
            for _ in 0..20 {
                write(&master, b"\x03")?;
                sys::nap(Duration::from_millis(50));
            }
            Ok(Some(master))
        },
    )
}

/// A job in the background that reads the terminal is stopped, and gets its input when it is brought
/// to the foreground.
fn background_read(v: &Victim) -> Result<()> {
    session(
        v,
        |tty| Job::new(tty, false).and_then(|job| Ok((job, Job::new(tty, false)?))),
        |tty, (first, second)| {
            ends(&first)?;
            ends(&second)?;
            let reader = Job::new(tty, true)?;
            let status = reader.status()?;
            ensure!(
                libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == SIGTTIN,
                "status {status:#x}"
            );
            to_foreground(tty, reader.pid)?;
            kill(-reader.pid, libc::SIGCONT)?;
            let status = reader.status()?;
            ensure!(
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == i32::from(b'k'),
                "status {status:#x}"
            );
            Ok(())
        },
        |master| {
            write(&master, b"k\n")?;
            Ok(Some(master))
        },
    )
}

/// The end of the terminal is told to the leader of the session.
fn hangup(v: &Victim) -> Result<()> {
    session(
        v,
        |_| {
            sys::mask(libc::SIG_BLOCK, &[libc::SIGHUP])?;
            Ok(())
        },
        |_, ()| {
            let limit = sys::timespec(Duration::from_secs(10));
            // SAFETY: set and time are valid.
            let signal = cvt(unsafe {
                libc::sigtimedwait(&sys::sigset(&[libc::SIGHUP]), std::ptr::null_mut(), &limit)
            })?;
            same("signal", libc::SIGHUP, signal)
        },
        |master| {
            drop(master);
            Ok(None)
        },
    )
}
