// SPDX-License-Identifier: GPL-2.0

//! Who gets signals about open files: F_SETOWN, F_SETSIG, O_ASYNC.

use libc::{
    O_ASYNC,
    O_CLOEXEC, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fcntl,
    write, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::io;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("process", process),
        Case::new("thread", thread),
        Case::new("group", group),
        Case::new("child", child),
        Case::new("real-time-signal", real_time_signal),
        Case::new("gone", gone),
    ],
    refusals: &[Refusal::new("outside", outside, &["owner 1 ", "outside"])],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("owner")
};

fn main() -> ExitCode {
    SUITE.main()
}

// Not in the libc crate.
const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_OWNER_TID: i32 = 0;
const F_OWNER_PID: i32 = 1;
const F_OWNER_PGRP: i32 = 2;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const F_GETOWNER_UIDS: i32 = 17;

fn set(fd: &OwnedFd, kind: i32, pid: i32) -> io::Result<()> {
    let owner = [kind, pid];
    // SAFETY: the owner is valid.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, owner.as_ptr()) }).map(drop)
}

/// Kind and number, the user's numbers, the signal, and whether there are signals at all.
fn get(fd: &OwnedFd) -> Result<([i32; 2], [u32; 2], i32, bool)> {
    let (mut owner, mut uids) = ([0; 2], [0; 2]);
    // SAFETY: both are valid for writing.
    unsafe {
        cvt(libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()))?;
        cvt(libc::fcntl(
            fd.as_raw_fd(),
            F_GETOWNER_UIDS,
            uids.as_mut_ptr(),
        ))?;
    }
    let flags = fcntl(fd, libc::F_GETFL, 0)?;
    Ok((owner, uids, fcntl(fd, F_GETSIG, 0)?, flags & O_ASYNC != 0))
}

/// Waits for a blocked signal; the number and the descriptor that it names.
fn wait_for(signal: i32) -> Result<(i32, i32)> {
    let mut info = [0i32; 32];
    let limit = sys::timespec(Duration::from_secs(5));
    // SAFETY: set and time are valid, and there is room for a siginfo.
    let got = cvt(unsafe {
        libc::sigtimedwait(&sys::sigset(&[signal]), info.as_mut_ptr().cast(), &limit)
    })?;
    // si_fd, after si_band.
    Ok((got, info[6]))
}

fn process(v: &Victim) -> Result<()> {
    let (r, w) = sys::pipe(O_CLOEXEC)?;
    sys::mask(libc::SIG_BLOCK, &[libc::SIGIO])?;
    fcntl(&r, libc::F_SETOWN, sys::getpid())?;
    fcntl(&r, libc::F_SETFL, O_ASYNC)?;
    let before = get(&r)?;
    same("owner", [F_OWNER_PID, sys::getpid()], before.0)?;
    v.stand()?;
    same("owner, users, signal, O_ASYNC", before, get(&r)?)?;
    write(&w, b"x")?;
    same("signal", libc::SIGIO, wait_for(libc::SIGIO)?.0)
}

fn thread(v: &Victim) -> Result<()> {
    let (r, _w) = sys::pipe(O_CLOEXEC)?;
    set(&r, F_OWNER_TID, sys::gettid())?;
    let before = get(&r)?;
    v.stand()?;
    same("owner", before, get(&r)?)
}

fn group(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let group = unsafe { libc::getpgrp() };
    let (r, _w) = sys::pipe(O_CLOEXEC)?;
    fcntl(&r, libc::F_SETOWN, -group)?;
    let before = get(&r)?;
    same("owner", [F_OWNER_PGRP, group], before.0)?;
    v.stand()?;
    same("owner", before, get(&r)?)
}

/// The child gets the signals of what the parent has open.
fn child(v: &Victim) -> Result<()> {
    let (r, w) = sys::pipe(O_CLOEXEC)?;
    sys::mask(libc::SIG_BLOCK, &[libc::SIGIO])?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        i32::from(!wait_for(libc::SIGIO).is_ok_and(|(signal, _)| signal == libc::SIGIO))
    })?;
    drop(numbers);
    fcntl(&r, libc::F_SETOWN, child.pid)?;
    fcntl(&r, libc::F_SETFL, O_ASYNC)?;
    v.stand()?;
    write(&w, b"x")?;
    ensure!(
        child.wait(Duration::from_secs(20))?.success(),
        "the child got no signal"
    );
    Ok(())
}

/// A signal of F_SETSIG says which descriptor it is about, and is queued.
fn real_time_signal(v: &Victim) -> Result<()> {
    let signal = libc::SIGRTMIN() + 3;
    let (r, w) = sys::pipe(O_CLOEXEC)?;
    sys::mask(libc::SIG_BLOCK, &[signal])?;
    fcntl(&r, F_SETSIG, signal)?;
    fcntl(&r, libc::F_SETOWN, sys::getpid())?;
    fcntl(&r, libc::F_SETFL, O_ASYNC)?;
    write(&w, b"before")?;
    let before = get(&r)?;
    v.stand()?;
    same("owner, users, signal, O_ASYNC", before, get(&r)?)?;
    write(&w, b"after")?;
    for when in ["before", "after"] {
        same(when, (signal, r.as_raw_fd()), wait_for(signal)?)?;
    }
    Ok(())
}

/// The owner has ended: there is none, as F_GETOWN says before and after.
fn gone(v: &Victim) -> Result<()> {
    let (r, _w) = sys::pipe(O_CLOEXEC)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| 0)?;
    drop(numbers);
    fcntl(&r, libc::F_SETOWN, child.pid)?;
    child.wait(Duration::from_secs(10))?;
    same("owner", 0, fcntl(&r, libc::F_GETOWN, 0)?)?;
    v.stand()?;
    same("owner", 0, fcntl(&r, libc::F_GETOWN, 0)?)
}

fn outside(v: &Victim) -> Result<()> {
    let (r, _w) = sys::pipe(O_CLOEXEC)?;
    fcntl(&r, libc::F_SETOWN, 1)?;
    v.ready_fd(r.as_raw_fd())?;
    v.wait();
    same("owner", 1, fcntl(&r, libc::F_GETOWN, 0)?)
}
