// SPDX-License-Identifier: GPL-2.0

//! The victim's side of the protocol.

use crate::{
    sys,
    Outcome, //
};
use anyhow::{
    Context,
    Result, //
};
use std::ffi::CString;
use std::fmt::{
    self,
    Debug, //
};
use std::fs;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{
    Path,
    PathBuf, //
};

pub(crate) const READY: &str = "ready";
pub(crate) const GO: &str = "go";
pub(crate) const WOKE: &str = "woke";
pub(crate) const RESULT: &str = "result";

/// The process that is checkpointed, as it sees itself.
pub struct Victim {
    dir: PathBuf,
    go: CString,
}

/// A case that does not apply to this machine.
#[derive(Debug)]
pub struct Skipped(String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Ends a victim whose machine lacks what it tests.
pub fn skip<T>(why: impl Into<String>) -> Result<T> {
    Err(Skipped(why.into()).into())
}

/// Requires that `now` is what it was before the checkpoint.
pub fn same<T: PartialEq<U> + Debug, U: Debug>(what: &str, before: T, now: U) -> Result<()> {
    anyhow::ensure!(before == now, "{what}: expected {before:?}, is {now:?}");
    Ok(())
}

impl Victim {
    pub(crate) fn new(dir: PathBuf) -> Result<Self> {
        let go = CString::new(dir.join(GO).as_os_str().as_bytes())?;
        Ok(Self { dir, go })
    }

    /// A path in the directory that belongs to this case alone.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Says that everything is set up. From here on a checkpoint may come at any moment.
    pub fn ready(&self) -> Result<()> {
        self.note(READY, "")
    }

    /// As [`Victim::ready`], naming the descriptor that has to be named by a refusal.
    pub fn ready_fd(&self, fd: RawFd) -> Result<()> {
        self.note(READY, &format!("/fd {fd}"))
    }

    /// Whether it is time to check.
    pub fn told(&self) -> bool {
        // SAFETY: `go` is a C string.
        unsafe { libc::access(self.go.as_ptr(), libc::F_OK) == 0 }
    }

    /// Sleeps until it is time to check.
    pub fn wait(&self) {
        let wait = sys::Wait::begin();
        while !self.told() {
            wait.nap();
        }
    }

    /// Says that everything is set up and sleeps until it is time to check.
    pub fn stand(&self) -> Result<()> {
        self.ready()?;
        self.wait();
        Ok(())
    }

    /// Notes that the system call under test has come back, then waits until it is time to check.
    pub fn woke(&self) -> Result<()> {
        self.note(WOKE, "")?;
        self.wait();
        Ok(())
    }

    /// Publishes a file of the protocol in one step.
    fn note(&self, name: &str, text: &str) -> Result<()> {
        publish(&self.dir, name, text)
    }

    /// Runs the victim of a case to its end and returns the exit status.
    pub(crate) fn run(&self, victim: fn(&Victim) -> Result<()>) -> i32 {
        self.conclude(victim(self))
    }

    /// Ends the process, for a victim whose first thread has ended.
    pub fn end(&self, result: Result<()>) -> ! {
        let status = self.conclude(result);
        // SAFETY: ends the process.
        unsafe { libc::_exit(status) }
    }

    /// Says how the case ended, and returns the exit status.
    fn conclude(&self, result: Result<()>) -> i32 {
        let (status, text) = match result {
            Ok(()) => (0, "PASS".to_owned()),
            Err(e) if e.is::<Skipped>() => (0, format!("SKIP {e}")),
            Err(e) => (1, format!("FAIL {e:#}")),
        };
        match self.note(RESULT, &text) {
            Ok(()) => status,
            Err(_) => 2,
        }
    }
}

/// Writes a file so that whoever sees it sees all of it.
pub(crate) fn publish(dir: &Path, name: &str, text: &str) -> Result<()> {
    let unfinished = dir.join(format!("{name}.new"));
    fs::write(&unfinished, text).with_context(|| format!("{}", unfinished.display()))?;
    fs::rename(&unfinished, dir.join(name))?;
    Ok(())
}

/// Reads what [`Victim::run`] wrote.
pub(crate) fn verdict(text: &str) -> Outcome {
    match text.split_once(' ') {
        None if text == "PASS" => Outcome::Pass,
        Some(("SKIP", why)) => Outcome::Skip(why.to_owned()),
        Some(("FAIL", why)) => Outcome::Fail(why.to_owned()),
        _ => Outcome::Fail(format!("unreadable result {text:?}")),
    }
}
