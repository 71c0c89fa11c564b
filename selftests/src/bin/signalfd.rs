// SPDX-License-Identifier: GPL-2.0

//! Signalfds: masks, what is pending, and epoll instances that watch them.

use libc::{
    EPOLLET,
    EPOLLIN,
    SFD_CLOEXEC,
    SFD_NONBLOCK,
    SIGHUP,
    SIGKILL,
    SIGUSR1,
    SIGUSR2,
    SIG_BLOCK, //
};
use selftests::epoll::Epoll;
use selftests::prelude::*;
use selftests::sys::{
    fails_with,
    getpid,
    kill,
    mask,
    owned,
    read,
    sigset, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("pending", pending),
        Case::new("mask", masks),
        Case::new("waiting-reader", waiting_reader),
        Case::new("epoll", watched),
        Case::new("epoll-edge", watched_edge),
        Case::new("epoll-of-the-child", watched_by_the_child),
        Case::new("epoll-of-an-ended-process", watched_by_an_ended_process),
    ],
    customs: &[Custom {
        name: "epoll-of-the-parent",
        run: for_a_process_outside,
    }],
    victims: &[Case::new("has-told-to-watch", has_told_to_watch).no_control()],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("signalfd")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A signalfd of signals that are blocked from here on.
fn signalfd(signals: &[i32], flags: i32) -> Result<OwnedFd> {
    mask(SIG_BLOCK, signals)?;
    // SAFETY: the mask is valid.
    Ok(owned(unsafe {
        libc::signalfd(-1, &sigset(signals), SFD_CLOEXEC | flags)
    })?)
}

/// Reads one signal: its number and its value.
fn take(fd: &OwnedFd) -> std::io::Result<(i32, i32)> {
    // struct signalfd_siginfo: ssi_signo comes first, ssi_int is at byte 44.
    let mut info = [0; 128];
    read(fd, &mut info)?;
    let word = |at: usize| i32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
    Ok((word(0), word(44)))
}

fn queue(signal: i32, value: usize) -> Result<()> {
    let value = libc::sigval {
        sival_ptr: value as *mut libc::c_void,
    };
    // SAFETY: the value is a number.
    sys::cvt(unsafe { libc::sigqueue(getpid(), signal, value) })?;
    Ok(())
}

fn pending(v: &Victim) -> Result<()> {
    let real = libc::SIGRTMIN() + 3;
    let fd = signalfd(&[SIGUSR1, SIGHUP, real], SFD_NONBLOCK)?;
    queue(real, 1)?;
    queue(SIGUSR1, 2)?;
    queue(real, 3)?;
    v.stand()?;
    for expected in [(SIGUSR1, 2), (real, 1), (real, 3)] {
        same("signal", expected, take(&fd)?)?;
    }
    ensure!(fails_with(take(&fd), libc::EAGAIN), "there is a fourth");
    kill(getpid(), SIGHUP)?;
    same("signal afterwards", SIGHUP, take(&fd)?.0)
}

/// The mask as the kernel shows it and as it acts.
fn masks(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1, SIGKILL, libc::SIGRTMAX()], SFD_NONBLOCK)?;
    mask(SIG_BLOCK, &[SIGUSR2])?;
    let show = || -> Result<String> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
        let line = info.lines().find(|line| line.starts_with("sigmask:"));
        Ok(line.context("no signalfd")?.to_owned())
    };
    let before = show()?;
    v.stand()?;
    same("mask", before, show()?)?;
    kill(getpid(), SIGUSR2)?;
    ensure!(
        fails_with(take(&fd), libc::EAGAIN),
        "it takes a signal that is not in its mask"
    );
    kill(getpid(), SIGUSR1)?;
    same("signal", SIGUSR1, take(&fd)?.0)
}

/// Who waits in a read is woken by a signal.
fn waiting_reader(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1], 0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| i32::from(!take(&fd).is_ok_and(|(n, _)| n == SIGUSR1)))?;
    drop(numbers);
    v.stand()?;
    ensure!(child.ended()?.is_none(), "the reader does not wait");
    kill(child.pid, SIGUSR1)?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the reader has got something else");
    Ok(())
}

/// A signal that is pending is told, and so is the next.
fn watched(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1, SIGUSR2], SFD_NONBLOCK)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN, 1)?;
    kill(getpid(), SIGUSR1)?;
    v.stand()?;
    same("events", vec![1], ep.ready()?)?;
    same("signal", SIGUSR1, take(&fd)?.0)?;
    same("events without signals", Vec::<u64>::new(), ep.ready()?)?;
    kill(getpid(), SIGUSR2)?;
    same("events of the next", vec![1], ep.ready()?)
}

fn watched_edge(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1, SIGUSR2], SFD_NONBLOCK)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN | EPOLLET, 1)?;
    kill(getpid(), SIGUSR1)?;
    v.stand()?;
    same("events", vec![1], ep.ready()?)?;
    same("events again", Vec::<u64>::new(), ep.ready()?)?;
    kill(getpid(), SIGUSR2)?;
    same("events of the next", vec![1], ep.ready()?)
}

/// An instance that a child has made tells of the child's signals.
fn watched_by_the_child(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1], SFD_NONBLOCK)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let Ok(ep) = Epoll::new() else { return 2 };
        if ep.add(&fd, EPOLLIN, 5).is_err() {
            return 3;
        }
        loop {
            match ep.wait(9, 60_000) {
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Ok(events) if events == [(EPOLLIN, 5)] => break 0,
                _ => break 4,
            }
        }
    })?;
    drop(numbers);
    v.stand()?;
    ensure!(child.ended()?.is_none(), "the child does not wait");
    kill(child.pid, SIGUSR1)?;
    let status = child.wait(Duration::from_secs(10))?;
    same("status of the child", Some(0), status.code())
}

/// What was added by a process that has ended tells nothing.
fn watched_by_an_ended_process(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1], SFD_NONBLOCK)?;
    let ep = Epoll::new()?;
    let mut child = Process::fork(|| i32::from(ep.add(&fd, EPOLLIN, 1).is_err()))?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child cannot add");
    // Its end has been noted as an event, which nobody is told.
    same("events of the end", Vec::<u64>::new(), ep.ready()?)?;
    let before = ep.watched()?;
    same("number of them", 1, before.len())?;
    v.stand()?;
    same("watched", before, ep.watched()?)?;
    kill(getpid(), SIGUSR1)?;
    same("events", Vec::<u64>::new(), ep.ready()?)?;
    same("signal", SIGUSR1, take(&fd)?.0)
}

/// Leaves an instance that watches a signalfd for this process to a child.
fn has_told_to_watch(v: &Victim) -> Result<()> {
    let fd = signalfd(&[SIGUSR1], SFD_NONBLOCK)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN, 1)?;
    let child = Process::fork(|| loop {
        sys::nap(Duration::from_secs(1));
    })?;
    fs::write(v.path("child"), child.pid.to_string())?;
    v.stand()?;
    kill(getpid(), SIGUSR1)?;
    same("events", vec![1], ep.ready()?)
}

/// Without its parent the child is refused: nobody would get the signals that are watched.
fn for_a_process_outside(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-told-to-watch")?;
    let child = fs::read_to_string(b.path("child"))?;
    let task = format!("task {child}");
    b.refuses(child.parse()?, &[&task, "for a process outside the tree"])?;
    life.passes()
}
