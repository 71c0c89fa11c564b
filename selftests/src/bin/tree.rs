// SPDX-License-Identifier: GPL-2.0

//! Trees: threads, children, and what they share.

use selftests::prelude::*;
use selftests::sys::{
    cvt,
    pipe,
    read,
    write, //
};
use selftests::{
    Counters,
    NumbersThatFollow,
    Process, //
};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("threads", threads),
        Case::new("thread-blocked-in-futex", thread_blocked),
        Case::new("child", child),
        Case::new("grandchild", grandchild),
        Case::new("groups", groups),
        Case::new("child-with-threads", child_with_threads),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("tree")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn getpgid(pid: i32) -> Result<i32> {
    // SAFETY: no memory is involved.
    Ok(cvt(unsafe { libc::getpgid(pid) })?)
}

fn threads(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let counters = Counters::start(5);
    counters.all_go_on()?;
    drop(numbers);
    v.stand()?;
    counters.all_go_on()?;
    counters.end()
}

/// The other thread waits for a mutex that this one holds meanwhile.
fn thread_blocked(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let value = Arc::new(std::sync::Mutex::new(1));
    let mut held = value.lock().expect("nobody panicked");
    let other = value.clone();
    let thread = thread::spawn(move || {
        let mut value = other.lock().expect("nobody panicked");
        *value *= 10;
        *value
    });
    sys::nap(Duration::from_millis(50));
    drop(numbers);
    v.stand()?;
    ensure!(!thread.is_finished(), "the mutex was given to two");
    *held += 1;
    drop(held);
    same("value", 20, thread.join().expect("the thread panicked"))
}

/// A child that answers each byte with the next one, and exits with 7 at the end of its input.
struct Echo {
    process: Process,
    to: OwnedFd,
    from: OwnedFd,
}

impl Echo {
    fn fork(before: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (input, to) = pipe(0)?;
        let (from, output) = pipe(0)?;
        let (to_raw, from_raw) = (&to, &from);
        let process = Process::fork(|| {
            use std::os::fd::AsRawFd;
            // SAFETY: the child does not use these ends, and leaves by _exit.
            unsafe {
                libc::close(to_raw.as_raw_fd());
                libc::close(from_raw.as_raw_fd());
            }
            if before().is_err() {
                return 1;
            }
            let mut byte = [0];
            loop {
                match read(&input, &mut byte) {
                    Ok(0) => return 7,
                    Ok(_) => {
                        byte[0] += 1;
                        if write(&output, &byte).is_err() {
                            return 2;
                        }
                    }
                    Err(_) => return 3,
                }
            }
        })?;
        Ok(Self { process, to, from })
    }

    fn answers(&self, byte: u8) -> Result<()> {
        sys::answers(&self.to, &self.from, byte)
    }

    fn end(mut self) -> Result<()> {
        drop(self.to);
        let status = self.process.wait(Duration::from_secs(10))?;
        same("exit status", Some(7), status.code())?;
        same("signal", None, status.signal())
    }
}

/// A child blocked in a read, with which the parent talks over pipes, and for which it waits.
fn child(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let echo = Echo::fork(|| Ok(()))?;
    echo.answers(1)?;
    drop(numbers);
    v.stand()?;
    echo.answers(50)?;
    echo.end()
}

/// The child of a child, which ends with it.
fn grandchild(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let parent = std::process::id() as i32;
    let echo = Echo::fork(move || {
        // SAFETY: no memory is involved.
        same("parent", parent, unsafe { libc::getppid() })?;
        let inner = Echo::fork(|| Ok(()))?;
        inner.answers(3)?;
        std::mem::forget(inner);
        Ok(())
    })?;
    echo.answers(1)?;
    drop(numbers);
    v.stand()?;
    echo.answers(9)?;
    echo.end()
}

/// Process groups led by members of the tree.
fn groups(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let own_group = || {
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::setpgid(0, 0) })?;
        Ok(())
    };
    let leads = Echo::fork(own_group)?;
    let follows = Echo::fork(|| Ok(()))?;
    leads.answers(1)?;
    follows.answers(1)?;
    let check = || {
        same(
            "group of its own",
            leads.process.pid,
            getpgid(leads.process.pid)?,
        )?;
        same(
            "group of the parent",
            getpgid(0)?,
            getpgid(follows.process.pid)?,
        )
    };
    check().context("before")?;
    drop(numbers);
    v.stand()?;
    check()?;
    leads.answers(7)?;
    follows.answers(8)?;
    // The second child has the ends of the first one open, too.
    follows.end()?;
    leads.end()
}

fn child_with_threads(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let echo = Echo::fork(|| {
        let counters = Counters::start(3);
        counters.all_go_on()?;
        std::mem::forget(counters);
        Ok(())
    })?;
    echo.answers(1)?;
    drop(numbers);
    v.stand()?;
    echo.answers(2)?;
    echo.end()
}
