// SPDX-License-Identifier: GPL-2.0

//! Timerfds: clocks, what is left, points in time, intervals, unread expirations, set clocks.

use libc::{
    clockid_t,
    itimerspec,
    CLOCK_BOOTTIME,
    CLOCK_BOOTTIME_ALARM,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    CLOCK_REALTIME_ALARM,
    EPOLLET,
    EPOLLIN,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET, //
};
use selftests::epoll::{
    counted,
    Epoll, //
};
use selftests::prelude::*;
use selftests::sys::{
    clock,
    cvt,
    fails_with,
    owned,
    timespec, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::mem;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::process::ExitCode;
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("unset", unset),
        Case::new("left", left),
        Case::new("absolute", absolute),
        Case::new("absolute-near", absolute_near),
        Case::new("one-shot", one_shot),
        Case::new("unread", unread),
        Case::new("unread-interval", unread_interval),
        Case::new("interval", interval),
        Case::new("clock-set", clock_set),
        Case::new("epoll", watched),
        Case::new("waiting-reader", waiting_reader),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("timerfd")
};

fn main() -> ExitCode {
    SUITE.main()
}

const CLOCKS: [clockid_t; 5] = [
    CLOCK_REALTIME,
    CLOCK_MONOTONIC,
    CLOCK_BOOTTIME,
    CLOCK_REALTIME_ALARM,
    CLOCK_BOOTTIME_ALARM,
];

const HOUR: Duration = Duration::from_secs(3600);
const NEVER: Duration = Duration::ZERO;

fn timer(clock: clockid_t, flags: i32) -> Result<OwnedFd> {
    // SAFETY: no memory is involved.
    Ok(owned(unsafe {
        libc::timerfd_create(clock, TFD_CLOEXEC | flags)
    })?)
}

fn set(fd: &OwnedFd, flags: i32, first: Duration, interval: Duration) -> Result<()> {
    let spec = itimerspec {
        it_interval: timespec(interval),
        it_value: timespec(first),
    };
    // SAFETY: `spec` is valid, and the old one is not asked for.
    cvt(unsafe { libc::timerfd_settime(fd.as_raw_fd(), flags, &spec, ptr::null_mut()) })?;
    Ok(())
}

/// What is left, and the interval.
fn get(fd: &OwnedFd) -> Result<(Duration, Duration)> {
    // SAFETY: all zeroes is an itimerspec, which is valid for writing.
    let spec = unsafe {
        let mut spec: itimerspec = mem::zeroed();
        cvt(libc::timerfd_gettime(fd.as_raw_fd(), &mut spec))?;
        spec
    };
    let [left, interval] = [spec.it_value, spec.it_interval]
        .map(|time| Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
    Ok((left, interval))
}

fn unset(v: &Victim) -> Result<()> {
    let fresh = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    let stopped = timer(CLOCK_REALTIME, TFD_NONBLOCK)?;
    set(&stopped, 0, HOUR, HOUR)?;
    set(&stopped, 0, NEVER, NEVER)?;
    v.stand()?;
    for fd in [&fresh, &stopped] {
        same("time left", (NEVER, NEVER), get(fd)?)?;
        ensure!(
            fails_with(counted(fd), libc::EAGAIN),
            "a timer that is not set has expired"
        );
    }
    set(&fresh, 0, Duration::from_millis(1), NEVER)?;
    ensure!(
        sys::until(Duration::from_secs(10), || counted(&fresh)
            .is_ok_and(|n| n == 1)),
        "it does not expire"
    );
    Ok(())
}

/// What is left of an hour; the time until the restart does not count.
fn left(v: &Victim) -> Result<()> {
    let interval = Duration::from_secs(7200);
    let timers = CLOCKS.map(|clock| timer(clock, 0));
    for fd in timers.iter().flatten() {
        set(fd, 0, HOUR, interval)?;
    }
    v.stand()?;
    for fd in timers {
        let (left, is) = get(&fd?)?;
        same("interval", interval, is)?;
        ensure!(
            left <= HOUR && left > HOUR - Duration::from_secs(300),
            "{left:?} is left"
        );
    }
    Ok(())
}

/// A point in time stays where it is on its clock.
fn absolute(v: &Victim) -> Result<()> {
    // The alarm clocks cannot be read without a clock that runs in the dark.
    let pairs = [
        (CLOCK_REALTIME, CLOCK_REALTIME),
        (CLOCK_MONOTONIC, CLOCK_MONOTONIC),
        (CLOCK_BOOTTIME, CLOCK_BOOTTIME),
        (CLOCK_REALTIME, CLOCK_REALTIME_ALARM),
        (CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM),
    ];
    let timers = pairs.map(|(id, alarm)| -> Result<(OwnedFd, clockid_t, Duration)> {
        let end = clock(id)? + HOUR;
        let fd = timer(alarm, 0)?;
        set(&fd, TFD_TIMER_ABSTIME, end, NEVER)?;
        Ok((fd, id, end))
    });
    v.stand()?;
    for timer in timers {
        let (fd, id, end) = timer?;
        let before = end.saturating_sub(clock(id)?);
        let (left, _) = get(&fd)?;
        let after = end.saturating_sub(clock(id)?);
        let slack = Duration::from_millis(1);
        ensure!(
            left <= before + slack && left + slack >= after,
            "clock {id}: {left:?} is left, expected {after:?} to {before:?}"
        );
    }
    Ok(())
}

/// It does not expire early, and it does expire.
fn absolute_near(v: &Victim) -> Result<()> {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    let end = clock(CLOCK_MONOTONIC)? + Duration::from_millis(500);
    set(&fd, TFD_TIMER_ABSTIME, end, NEVER)?;
    v.stand()?;
    same("expirations", 1, counted(&fd)?)?;
    let now = clock(CLOCK_MONOTONIC)?;
    ensure!(now >= end, "it expired at {now:?} instead of {end:?}");
    Ok(())
}

fn one_shot(v: &Victim) -> Result<()> {
    let fd = timer(CLOCK_REALTIME, 0)?;
    set(&fd, 0, Duration::from_millis(300), NEVER)?;
    v.stand()?;
    same("expirations", 1, counted(&fd)?)?;
    same("time left", (NEVER, NEVER), get(&fd)?)
}

/// What expired before, and was not read.
fn unread(v: &Victim) -> Result<()> {
    let fd = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    set(&fd, 0, Duration::from_millis(1), NEVER)?;
    sys::nap(Duration::from_millis(20));
    v.stand()?;
    same("expirations", 1, counted(&fd)?)?;
    ensure!(
        fails_with(counted(&fd), libc::EAGAIN),
        "it expired once more"
    );
    Ok(())
}

/// An interval that was not read counts on from its first expiration.
fn unread_interval(v: &Victim) -> Result<()> {
    let interval = Duration::from_millis(20);
    let fd = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    set(&fd, 0, interval, interval)?;
    let counts = timer(CLOCK_BOOTTIME, TFD_NONBLOCK)?;
    set(&counts, 0, interval, interval)?;
    sys::nap(Duration::from_millis(110));
    // This one has counted what has expired until here, the other has not.
    let (left, _) = get(&counts)?;
    ensure!(left <= interval, "{left:?} is left");
    v.stand()?;
    for fd in [&fd, &counts] {
        let count = counted(fd)?;
        ensure!(count >= 5, "expired {count} times");
        let (left, is) = get(fd)?;
        same("interval", interval, is)?;
        ensure!(left <= interval, "{left:?} is left");
        ensure!(
            sys::until(Duration::from_secs(10), || counted(fd).is_ok()),
            "it does not go on"
        );
    }
    Ok(())
}

fn interval(v: &Victim) -> Result<()> {
    let fd = timer(CLOCK_BOOTTIME, 0)?;
    set(&fd, 0, Duration::from_millis(1), Duration::from_millis(100))?;
    ensure!(counted(&fd)? >= 1, "it did not expire");
    v.stand()?;
    ensure!(counted(&fd)? >= 1, "it did not expire");
    let begin = Instant::now();
    let mut count = 0;
    for _ in 0..3 {
        count += counted(&fd)?;
    }
    let took = begin.elapsed();
    ensure!(count >= 3, "it expired {count} times in three reads");
    ensure!(
        took >= Duration::from_millis(100) * (count as u32 - 1),
        "it expired {count} times in {took:?}"
    );
    Ok(())
}

/// Sets the clock to what it is.
fn set_clock() -> Result<()> {
    let now = timespec(clock(CLOCK_REALTIME)?);
    // SAFETY: the time is valid.
    cvt(unsafe { libc::clock_settime(CLOCK_REALTIME, &now) })?;
    Ok(())
}

/// TFD_TIMER_CANCEL_ON_SET: of a clock that was set before, and of one that is set after.
fn clock_set(v: &Victim) -> Result<()> {
    let flags = TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET;
    let end = clock(CLOCK_REALTIME)? + HOUR;
    let before = timer(CLOCK_REALTIME, TFD_NONBLOCK)?;
    set(&before, flags, end, NEVER)?;
    if set_clock().is_err() {
        return skip("the clock cannot be set");
    }
    let after = timer(CLOCK_REALTIME, TFD_NONBLOCK)?;
    set(&after, flags, end, NEVER)?;
    let settings = || -> Result<String> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", after.as_raw_fd()))?;
        let line = info.lines().find(|line| line.starts_with("settime flags"));
        Ok(line.context("no timerfd")?.to_owned())
    };
    let were = settings()?;
    v.stand()?;
    ensure!(
        fails_with(counted(&before), libc::ECANCELED),
        "that the clock was set is not told"
    );
    ensure!(
        fails_with(counted(&before), libc::EAGAIN),
        "it is told again"
    );
    same("flags", were, settings()?)?;
    ensure!(
        fails_with(counted(&after), libc::EAGAIN),
        "the clock was set, says the other"
    );
    set_clock()?;
    ensure!(
        fails_with(counted(&after), libc::ECANCELED),
        "that the clock is set is not told"
    );
    Ok(())
}

/// What epoll has told is not told again; the next expiration is.
fn watched(v: &Victim) -> Result<()> {
    let fd = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    set(&fd, 0, Duration::from_millis(1), NEVER)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN | EPOLLET, 1)?;
    same("events", vec![(EPOLLIN, 1)], ep.wait(9, 10_000)?)?;
    v.stand()?;
    same("events that were told", Vec::<u64>::new(), ep.ready()?)?;
    set(&fd, 0, Duration::from_millis(1), NEVER)?;
    same("events", vec![(EPOLLIN, 1)], ep.wait(9, 10_000)?)?;
    same("expirations", 1, counted(&fd)?)
}

fn waiting_reader(v: &Victim) -> Result<()> {
    let fd = timer(CLOCK_MONOTONIC, 0)?;
    set(&fd, 0, Duration::from_millis(300), NEVER)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| i32::from(!counted(&fd).is_ok_and(|n| n == 1)))?;
    drop(numbers);
    v.stand()?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the reader has got something else");
    Ok(())
}
