// SPDX-License-Identifier: GPL-2.0

//! Pidfds of tasks of the tree, and of tasks that have been reaped.

use selftests::epoll::Epoll;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fails_with,
    fcntl,
    getpid,
    gettid,
    kill,
    owned, //
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
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{
    ExitCode,
    ExitStatus, //
};
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("self", own),
        Case::new("child", child),
        Case::new("parent", parent),
        Case::new("thread", other_thread),
        Case::new("nonblocking", nonblocking),
        Case::new("reaped", reaped),
    ],
    refusals: &[Refusal::new(
        "outside",
        outside,
        &["pidfd of task 1", "outside the tree"],
    )],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("pidfd")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// The number that the kernel shows for a pidfd, -1 for one of a reaped task.
fn target(fd: &OwnedFd) -> Result<i32> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    Ok(line.context("no pidfd")?.trim().parse()?)
}

/// Sends a signal through a pidfd.
fn signal(fd: &OwnedFd, signal: i32) -> std::io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal, 0, 0) })
        .map(drop)
}

/// Whether the process behind a pidfd has ended.
fn ended(fd: &OwnedFd) -> Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: there is one entry.
    Ok(cvt(unsafe { libc::poll(&mut poll, 1, 0) })? == 1)
}

fn own(v: &Victim) -> Result<()> {
    let fd = sys::pidfd(getpid())?;
    v.stand()?;
    same("process", getpid(), target(&fd)?)?;
    signal(&fd, 0)?;
    ensure!(
        !ended(&fd)?,
        "the process that checks has ended, says its pidfd"
    );
    let flags = fcntl(&fd, libc::F_GETFD, 0)?;
    same("close-on-exec", libc::FD_CLOEXEC, flags)
}

/// A child that does nothing, with a number that is free at the restart.
fn waiting_child() -> Result<Process> {
    let _numbers = NumbersThatFollow::choose();
    Process::fork(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() }
    })
}

/// The child is created later than its parent at a restart, whose descriptor refers to it.
fn child(v: &Victim) -> Result<()> {
    let mut child = waiting_child()?;
    let fd = sys::pidfd(child.pid)?;
    v.stand()?;
    same("child", child.pid, target(&fd)?)?;
    ensure!(!ended(&fd)?, "the child has ended, says its pidfd");
    signal(&fd, libc::SIGKILL)?;
    let status = child.wait(Duration::from_secs(10))?;
    same("signal", Some(libc::SIGKILL), status.signal())?;
    ensure!(ended(&fd)?, "the child has not ended, says its pidfd");
    Ok(())
}

fn parent(v: &Victim) -> Result<()> {
    let fd = sys::pidfd(getpid())?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        // SAFETY: no memory is involved.
        let parent = unsafe { libc::getppid() };
        i32::from(!target(&fd).is_ok_and(|target| target == parent))
    })?;
    drop(numbers);
    v.stand()?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child does not find its parent");
    Ok(())
}

/// PIDFD_THREAD: of a thread that leads no process.
fn other_thread(v: &Victim) -> Result<()> {
    let (tell, told) = mpsc::channel();
    let (end, ending) = mpsc::channel::<()>();
    let numbers = NumbersThatFollow::choose();
    let other = thread::spawn(move || {
        let _ = tell.send(gettid());
        let _ = ending.recv();
    });
    let number = told.recv()?;
    drop(numbers);
    // SAFETY: no memory is involved.
    let fd = owned(unsafe {
        libc::syscall(libc::SYS_pidfd_open, number, libc::PIDFD_THREAD) as libc::c_int
    })?;
    v.stand()?;
    same("thread", number, target(&fd)?)?;
    let flags = fcntl(&fd, libc::F_GETFL, 0)?;
    ensure!(
        flags & libc::PIDFD_THREAD as libc::c_int != 0,
        "it is a process's now: {flags:#o}"
    );
    ensure!(!ended(&fd)?, "the thread has ended, says its pidfd");
    drop(end);
    other.join().expect("the thread panicked");
    ensure!(
        sys::until(Duration::from_secs(10), || ended(&fd).unwrap_or(false)),
        "the thread has not ended, says its pidfd"
    );
    Ok(())
}

fn nonblocking(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let fd = owned(unsafe {
        libc::syscall(libc::SYS_pidfd_open, getpid(), libc::PIDFD_NONBLOCK) as libc::c_int
    })?;
    let before = fcntl(&fd, libc::F_GETFL, 0)?;
    v.stand()?;
    same("flags", before, fcntl(&fd, libc::F_GETFL, 0)?)
}

fn outside(v: &Victim) -> Result<()> {
    let fd = sys::pidfd(1)?;
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    same("process", 1, target(&fd)?)
}

/// How the task of a pidfd ended, as wait(2) would tell: PIDFD_GET_INFO for PIDFD_INFO_EXIT.
fn end(fd: &OwnedFd) -> Result<ExitStatus> {
    const EXIT: u64 = 1 << 3;
    // struct pidfd_info of the first version, 64 bytes: the mask comes first, the status last.
    let mut info = [0u64; 8];
    info[0] = EXIT;
    let request = 3 << 30 | 64 << 16 | 0xff << 8 | 11;
    // SAFETY: there is place for 64 bytes.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), request, info.as_mut_ptr()) })?;
    ensure!(info[0] & EXIT != 0, "the kernel does not tell how it ended");
    Ok(ExitStatus::from_raw((info[7] >> 32) as i32))
}

/// Of children that have been waited for: how each ended, and which are the same.
fn reaped(v: &Victim) -> Result<()> {
    let mut killed = waiting_child()?;
    let first = sys::pidfd(killed.pid)?;
    let second = sys::pidfd(killed.pid)?;
    kill(killed.pid, libc::SIGKILL)?;
    killed.wait(Duration::from_secs(10))?;
    let mut exited = Process::fork(|| 3)?;
    let other = sys::pidfd(exited.pid)?;
    exited.wait(Duration::from_secs(10))?;
    let ep = Epoll::new()?;
    ep.add(&first, libc::EPOLLIN | libc::EPOLLET, 1)?;
    same("events", vec![1], ep.ready()?)?;
    v.stand()?;
    for (fd, of_signal, code) in [
        (&first, Some(libc::SIGKILL), None),
        (&second, Some(libc::SIGKILL), None),
        (&other, None, Some(3)),
    ] {
        same("process", -1, target(fd)?)?;
        ensure!(ended(fd)?, "it has not ended");
        ensure!(fails_with(signal(fd, 0), libc::ESRCH), "it takes signals");
        let status = end(fd)?;
        same("signal", of_signal, status.signal())?;
        same("exit code", code, status.code())?;
    }
    let inode = |fd: &OwnedFd| -> Result<u64> {
        let file = fs::File::from(fd.try_clone()?);
        Ok(file.metadata()?.ino())
    };
    same("inode of the same task", inode(&first)?, inode(&second)?)?;
    ensure!(
        inode(&first)? != inode(&other)?,
        "two tasks have become one"
    );
    same("events that were told", Vec::<u64>::new(), ep.ready()?)
}
