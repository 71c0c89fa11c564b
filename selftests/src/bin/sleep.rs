// SPDX-License-Identifier: GPL-2.0

//! System calls that sleep go on with the time that remains.
//!
//! The runner measures how long each victim was alive until it woke. That must be the time it asked
//! for: less means the sleep was cut short, more means it began anew.

use libc::{
    CLOCK_BOOTTIME,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    SIGUSR1, //
};
use selftests::prelude::*;
use selftests::sys::{
    clock,
    cvt,
    handle,
    timespec, //
};
use std::mem;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    AtomicU32,
    Ordering, //
};

/// Long enough for two checkpoints and for the difference between "all" and "the rest" to show.
const LONG: u64 = 5000;
/// The checkpoint comes after this long.
const PART: u64 = 3000;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("nanosleep", nanosleep).settle(PART).sleeps(LONG),
        Case::new("nanosleep-remaining", nanosleep_remaining)
            .settle(PART)
            .wake(SIGUSR1),
        Case::new("clock-monotonic", |v| relative(v, CLOCK_MONOTONIC))
            .settle(PART)
            .sleeps(LONG),
        Case::new("clock-boottime", |v| relative(v, CLOCK_BOOTTIME))
            .settle(PART)
            .sleeps(LONG),
        Case::new("clock-realtime", |v| relative(v, CLOCK_REALTIME))
            .settle(PART)
            .sleeps(LONG),
        Case::new("monotonic-absolute", |v| absolute(v, CLOCK_MONOTONIC))
            .settle(PART)
            .sleeps_until(LONG),
        Case::new("boottime-absolute", |v| absolute(v, CLOCK_BOOTTIME))
            .settle(PART)
            .sleeps_until(LONG),
        Case::new("realtime-absolute", |v| absolute(v, CLOCK_REALTIME))
            .settle(PART)
            .sleeps_until(LONG),
        Case::new("interval-timer", interval_timer),
        Case::new("poll", poll).settle(PART).sleeps(LONG),
        Case::new("ppoll", ppoll).settle(PART).sleeps(LONG),
        Case::new("select", select).settle(PART).sleeps(LONG),
        Case::new("pselect", pselect).settle(PART).sleeps(LONG),
        Case::new("futex", futex).settle(PART).sleeps(LONG),
        Case::new("futex-absolute", futex_absolute)
            .settle(PART)
            .sleeps_until(LONG),
        Case::new("futex-without-timeout", futex_forever)
            .settle(200)
            .wake(SIGUSR1),
        Case::new("poll-without-timeout", poll_forever)
            .settle(200)
            .wake(SIGUSR1),
        Case::new("read-empty-pipe", read_empty_pipe)
            .settle(200)
            .wake(SIGUSR1),
        Case::new("read-interrupted", read_interrupted)
            .settle(200)
            .wake(SIGUSR1),
        Case::new("write-full-pipe", write_full_pipe)
            .settle(200)
            .wake(SIGUSR1),
    ],
    jobs: 8,
    stops: true,
    ..Suite::new("sleep")
};

fn main() -> ExitCode {
    SUITE.main()
}

const SLEEP: Duration = Duration::from_millis(LONG);

/// Runs `call`, which has to sleep for `SLEEP` by CLOCK_MONOTONIC, and says that it woke.
fn sleeps(v: &Victim, call: impl FnOnce() -> Result<()>) -> Result<()> {
    v.ready()?;
    let begin = clock(CLOCK_MONOTONIC)?;
    let result = call();
    let slept = clock(CLOCK_MONOTONIC)?.saturating_sub(begin);
    v.woke()?;
    result?;
    ensure!(
        slept >= SLEEP,
        "slept for {slept:?} by its own clock instead of {SLEEP:?}"
    );
    Ok(())
}

fn nanosleep(v: &Victim) -> Result<()> {
    sleeps(v, || {
        // SAFETY: the request is valid, the remaining time is not asked for.
        cvt(unsafe { libc::nanosleep(&timespec(SLEEP), ptr::null_mut()) })?;
        Ok(())
    })
}

/// A handler ends the sleep, and the kernel says what is left.
fn nanosleep_remaining(v: &Victim) -> Result<()> {
    const WHOLE: Duration = Duration::from_secs(1000);
    handle(SIGUSR1, nothing, 0)?;
    let mut left = timespec(Duration::ZERO);
    v.ready()?;
    // SAFETY: both times are valid.
    let result = cvt(unsafe { libc::nanosleep(&timespec(WHOLE), &mut left) });
    ensure!(
        sys::fails_with(result, libc::EINTR),
        "nanosleep did not end with EINTR"
    );
    let left = Duration::new(left.tv_sec as u64, left.tv_nsec as u32);
    v.woke()?;
    let slept = WHOLE
        .checked_sub(left)
        .context("more time is left than was asked for")?;
    // It slept for PART at least, and nobody waits for minutes.
    ensure!(
        slept >= Duration::from_millis(PART / 2),
        "it slept for {slept:?} only"
    );
    ensure!(
        slept < Duration::from_secs(200),
        "of 1000 s, {left:?} are left"
    );
    Ok(())
}

fn relative(v: &Victim, id: libc::clockid_t) -> Result<()> {
    sleeps(v, || {
        // SAFETY: the request is valid, the remaining time is not asked for.
        let error = unsafe { libc::clock_nanosleep(id, 0, &timespec(SLEEP), ptr::null_mut()) };
        same("error of clock_nanosleep", 0, error)
    })
}

fn absolute(v: &Victim, id: libc::clockid_t) -> Result<()> {
    let deadline = clock(id)? + SLEEP;
    v.ready()?;
    let request = timespec(deadline);
    // SAFETY: the request is valid.
    let error =
        unsafe { libc::clock_nanosleep(id, libc::TIMER_ABSTIME, &request, ptr::null_mut()) };
    let woke = clock(id)?;
    v.woke()?;
    same("error of clock_nanosleep", 0, error)?;
    ensure!(woke >= deadline, "woke at {woke:?}, before {deadline:?}");
    Ok(())
}

/// An empty pipe whose write end is open, so its read end is never ready.
fn silent() -> Result<(OwnedFd, OwnedFd)> {
    Ok(sys::pipe(libc::O_CLOEXEC)?)
}

fn poll(v: &Victim) -> Result<()> {
    let (r, _w) = silent()?;
    let mut fds = [libc::pollfd {
        fd: r.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    sleeps(v, || {
        // SAFETY: `fds` has one entry.
        let n = cvt(unsafe { libc::poll(fds.as_mut_ptr(), 1, LONG as i32) })?;
        same("poll", 0, n)
    })
}

fn ppoll(v: &Victim) -> Result<()> {
    let (r, _w) = silent()?;
    let mut fds = [libc::pollfd {
        fd: r.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    let before = sys::mask(libc::SIG_BLOCK, &[libc::SIGHUP])?;
    let set = sys::sigset(&[libc::SIGUSR2]);
    sleeps(v, || {
        // SAFETY: `fds` has one entry, timeout and set are valid.
        let n = cvt(unsafe { libc::ppoll(fds.as_mut_ptr(), 1, &timespec(SLEEP), &set) })?;
        same("ppoll", 0, n)
    })?;
    let mut expected = before;
    expected.push(libc::SIGHUP);
    same(
        "mask after ppoll",
        expected,
        sys::mask(libc::SIG_BLOCK, &[])?,
    )
}

fn read_set(fd: &OwnedFd) -> libc::fd_set {
    // SAFETY: all zeroes is an empty set, and the number is in range.
    unsafe {
        let mut set: libc::fd_set = mem::zeroed();
        libc::FD_SET(fd.as_raw_fd(), &mut set);
        set
    }
}

fn select(v: &Victim) -> Result<()> {
    let (r, _w) = silent()?;
    let mut set = read_set(&r);
    let mut timeout = libc::timeval {
        tv_sec: (LONG / 1000) as i64,
        tv_usec: 0,
    };
    let null = ptr::null_mut();
    sleeps(v, || {
        // SAFETY: the set and the timeout are valid.
        let n =
            cvt(unsafe { libc::select(r.as_raw_fd() + 1, &mut set, null, null, &mut timeout) })?;
        same("select", 0, n)
    })
}

fn pselect(v: &Victim) -> Result<()> {
    let (r, _w) = silent()?;
    let mut set = read_set(&r);
    let (null, blocked) = (ptr::null_mut(), sys::sigset(&[libc::SIGUSR2]));
    let before = sys::mask(libc::SIG_BLOCK, &[])?;
    sleeps(v, || {
        let timeout = timespec(SLEEP);
        // SAFETY: sets and timeout are valid.
        let n = cvt(unsafe {
            libc::pselect(r.as_raw_fd() + 1, &mut set, null, null, &timeout, &blocked)
        })?;
        same("pselect", 0, n)
    })?;
    same(
        "mask after pselect",
        before,
        sys::mask(libc::SIG_BLOCK, &[])?,
    )
}

static WORD: AtomicU32 = AtomicU32::new(7);

/// futex(2) on `WORD`, expecting 7.
fn futex_wait(op: i32, timeout: Option<Duration>) -> std::io::Result<i64> {
    let timeout = timeout.map(timespec);
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word is static and the timeout valid or null.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_futex,
            WORD.as_ptr(),
            op,
            7,
            timeout,
            ptr::null::<u32>(),
            !0u32,
        )
    })
}

fn futex(v: &Victim) -> Result<()> {
    sleeps(v, || {
        let result = futex_wait(libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, Some(SLEEP));
        ensure!(
            sys::fails_with(result, libc::ETIMEDOUT),
            "futex did not end with ETIMEDOUT"
        );
        Ok(())
    })
}

fn futex_absolute(v: &Victim) -> Result<()> {
    let deadline = clock(CLOCK_MONOTONIC)? + SLEEP;
    v.ready()?;
    let result = futex_wait(libc::FUTEX_WAIT_BITSET, Some(deadline));
    let woke = clock(CLOCK_MONOTONIC)?;
    v.woke()?;
    ensure!(
        sys::fails_with(result, libc::ETIMEDOUT),
        "futex did not end with ETIMEDOUT"
    );
    ensure!(woke >= deadline, "woke at {woke:?}, before {deadline:?}");
    Ok(())
}

extern "C" fn nothing(_: i32) {}

extern "C" fn change_word(_: i32) {
    WORD.store(8, Ordering::Relaxed);
}

/// The wait is entered anew after the handler and sees the changed word.
fn futex_forever(v: &Victim) -> Result<()> {
    handle(SIGUSR1, change_word, libc::SA_RESTART)?;
    v.ready()?;
    let result = futex_wait(libc::FUTEX_WAIT, None);
    ensure!(
        sys::fails_with(result, libc::EAGAIN),
        "futex did not end with EAGAIN"
    );
    v.woke()
}

/// The two ends of the pipe that handlers use, and how much to read.
static ENDS: [AtomicI32; 2] = [AtomicI32::new(-1), AtomicI32::new(-1)];

fn handler_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (r, w) = silent()?;
    ENDS[0].store(r.as_raw_fd(), Ordering::Relaxed);
    ENDS[1].store(w.as_raw_fd(), Ordering::Relaxed);
    Ok((r, w))
}

extern "C" fn write_byte(_: i32) {
    // SAFETY: one byte is valid for reading.
    unsafe { libc::write(ENDS[1].load(Ordering::Relaxed), b"x".as_ptr().cast(), 1) };
}

extern "C" fn read_page(_: i32) {
    let mut page = [0u8; sys::PAGE];
    // SAFETY: the page is valid for writing.
    unsafe {
        libc::read(
            ENDS[0].load(Ordering::Relaxed),
            page.as_mut_ptr().cast(),
            page.len(),
        )
    };
}

/// poll(2) is never restarted after a handler.
fn poll_forever(v: &Victim) -> Result<()> {
    let (r, _w) = handler_pipe()?;
    handle(SIGUSR1, write_byte, libc::SA_RESTART)?;
    let mut fds = [libc::pollfd {
        fd: r.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    v.ready()?;
    // SAFETY: `fds` has one entry.
    let mut poll = || cvt(unsafe { libc::poll(fds.as_mut_ptr(), 1, -1) });
    let first = poll();
    ensure!(
        sys::fails_with(first, libc::EINTR),
        "poll did not end with EINTR"
    );
    same("poll again", 1, poll()?)?;
    v.woke()
}

/// The handler makes the pipe ready, and the read goes on and gets the byte.
fn read_empty_pipe(v: &Victim) -> Result<()> {
    let (r, _w) = handler_pipe()?;
    handle(SIGUSR1, write_byte, libc::SA_RESTART)?;
    let mut byte = [0];
    v.ready()?;
    let n = sys::read(&r, &mut byte)?;
    v.woke()?;
    same("bytes read", (1, *b"x"), (n, byte))
}

/// Without SA_RESTART the read ends with EINTR, by the signal and not by the checkpoint.
fn read_interrupted(v: &Victim) -> Result<()> {
    let (r, _w) = handler_pipe()?;
    handle(SIGUSR1, write_byte, 0)?;
    let mut byte = [0];
    v.ready()?;
    let first = sys::read(&r, &mut byte);
    ensure!(
        sys::fails_with(first, libc::EINTR),
        "read did not end with EINTR"
    );
    // Had the checkpoint ended it, the handler would not have run and this would block.
    same("bytes read", (1, *b"x"), (sys::read(&r, &mut byte)?, byte))?;
    v.woke()
}

/// The handler makes room, and the write goes on.
fn write_full_pipe(v: &Victim) -> Result<()> {
    let (_r, w) = handler_pipe()?;
    let size = sys::fcntl(&w, libc::F_GETPIPE_SZ, 0)? as usize;
    same(
        "bytes that fill the pipe",
        size,
        sys::write(&w, &vec![b'.'; size])?,
    )?;
    handle(SIGUSR1, read_page, libc::SA_RESTART)?;
    v.ready()?;
    let n = sys::write(&w, &[b'!'; sys::PAGE])?;
    v.woke()?;
    same("bytes written", sys::PAGE, n)
}

fn interval_timer(v: &Victim) -> Result<()> {
    sys::start_hour(libc::ITIMER_REAL)?;
    v.stand()?;
    sys::check_hour(libc::ITIMER_REAL)
}
