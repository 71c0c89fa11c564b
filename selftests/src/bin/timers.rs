// SPDX-License-Identifier: GPL-2.0

//! POSIX timers: ids, what is left, overruns, signals that are pending.

use selftests::prelude::*;
use selftests::sys::{
    burn,
    clock,
    cvt,
    getpid,
    gettid,
    handle,
    mask,
    pending,
    take_signal,
    timespec,
    Signal, //
};
use selftests::NumbersThatFollow;
use std::fs;
use std::io;
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    Ordering, //
};
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("ids", ids),
        Case::new("settings", settings),
        Case::new("expires", expires),
        Case::new("realtime-absolute", realtime_absolute),
        Case::new("periodic", periodic),
        Case::new("order", order),
        Case::new("stale", stale),
        Case::new("deleted", deleted),
        Case::new("ignored", ignored),
        Case::new("one-thread", one_thread),
        Case::new("cpu-time", cpu_time),
        Case::new("chosen-ids", chosen_ids),
    ],
    refusals: &[
        Refusal::new(
            "ended-thread",
            ended_thread,
            &["POSIX timer 0", "thread that has ended"],
        ),
        Refusal::new("outside", outside, &["POSIX timer 0", "outside the tree"]),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("timers")
};

fn main() -> ExitCode {
    SUITE.main()
}

const SIGNAL: i32 = libc::SIGUSR1;
const SI_TIMER: i32 = -2;
const LIMIT: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);
const NEVER: Duration = Duration::ZERO;

/// Nobody may take this much of an hour between setting a timer and looking at it.
const SLACK: Duration = Duration::from_secs(300);

/// struct sigevent of the kernel.
#[repr(C)]
struct Event {
    value: u64,
    signal: i32,
    notify: i32,
    thread: i32,
    rest: [i32; 11],
}

impl Event {
    fn new(notify: i32, signal: i32, value: i32) -> Self {
        Self {
            value: value as u64,
            signal,
            notify,
            thread: 0,
            rest: [0; 11],
        }
    }
}

/// A timer by its id, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer(i32);

impl Timer {
    fn with(clock: i32, event: &Event) -> io::Result<Self> {
        let mut id = -1i32;
        // SAFETY: event and id are valid.
        cvt(unsafe { libc::syscall(libc::SYS_timer_create, clock, event, &mut id) })?;
        Ok(Self(id))
    }

    /// One that sends a signal with its value.
    fn new(clock: i32, value: i32) -> io::Result<Self> {
        Self::with(clock, &Event::new(libc::SIGEV_SIGNAL, SIGNAL, value))
    }

    fn set(self, flags: i32, value: Duration, interval: Duration) -> io::Result<()> {
        let setting = libc::itimerspec {
            it_interval: timespec(interval),
            it_value: timespec(value),
        };
        let none = ptr::null_mut::<libc::itimerspec>();
        // SAFETY: the setting is valid, the old one is not asked for.
        cvt(unsafe { libc::syscall(libc::SYS_timer_settime, self.0, flags, &setting, none) })
            .map(drop)
    }

    /// What is left, and the interval.
    fn get(self) -> io::Result<(Duration, Duration)> {
        // SAFETY: all zeroes is an itimerspec, valid for writing.
        let now = unsafe {
            let mut now: libc::itimerspec = mem::zeroed();
            cvt(libc::syscall(libc::SYS_timer_gettime, self.0, &mut now))?;
            now
        };
        let duration = |t: libc::timespec| Duration::new(t.tv_sec as u64, t.tv_nsec as u32);
        Ok((duration(now.it_value), duration(now.it_interval)))
    }

    fn overrun(self) -> io::Result<i32> {
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::syscall(libc::SYS_timer_getoverrun, self.0) }).map(|n| n as i32)
    }

    fn delete(self) -> io::Result<()> {
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::syscall(libc::SYS_timer_delete, self.0) }).map(drop)
    }
}

/// What the kernel shows of all timers.
fn shown() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/timers")?)
}

/// Requires a signal of `timer`, which carries `value`, and returns its overruns.
fn comes(timer: Timer, value: i32) -> Result<i32> {
    let signal = take_signal(&[SIGNAL], LIMIT)?.context("the signal of the timer does not come")?;
    let overrun = signal.overrun;
    let expected = Signal {
        number: SIGNAL,
        code: SI_TIMER,
        value,
        timer: timer.0,
        overrun,
    };
    same("signal", expected, signal)?;
    same("timer_getoverrun", overrun, timer.overrun()?)?;
    Ok(overrun)
}

/// Waits until a signal is pending.
fn until_pending(signal: i32) -> Result<()> {
    let is_pending = || pending().is_ok_and(|set| set.contains(&signal));
    ensure!(sys::until(LIMIT, is_pending), "no signal becomes pending");
    Ok(())
}

/// Ids have gaps, and the next timer gets the one that it would have got.
fn ids(v: &Victim) -> Result<()> {
    let timers = (0..4)
        .map(|n| Timer::new(libc::CLOCK_MONOTONIC, n))
        .collect::<io::Result<Vec<_>>>()?;
    same(
        "ids",
        &[0, 1, 2, 3][..],
        &timers.iter().map(|t| t.0).collect::<Vec<_>>()[..],
    )?;
    timers[1].delete()?;
    timers[3].delete()?;
    let before = shown()?;
    v.stand()?;
    same("/proc/self/timers", before, shown()?)?;
    timers[0].get()?;
    ensure!(
        sys::fails_with(timers[1].get(), libc::EINVAL),
        "a deleted timer is there"
    );
    same(
        "id of a new timer",
        4,
        Timer::new(libc::CLOCK_MONOTONIC, 0)?.0,
    )
}

fn within(what: &str, left: Duration, most: Duration) -> Result<()> {
    ensure!(
        left <= most && left + SLACK >= most,
        "{what}: {left:?} are left of {most:?}"
    );
    Ok(())
}

/// Every clock and kind of notification; none expires.
fn settings(v: &Victim) -> Result<()> {
    let mut timers = Vec::new();
    for clock in [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_PROCESS_CPUTIME_ID,
        libc::CLOCK_THREAD_CPUTIME_ID,
    ] {
        for notify in [libc::SIGEV_SIGNAL, libc::SIGEV_NONE, libc::SIGEV_THREAD] {
            timers.push(Timer::with(clock, &Event::new(notify, SIGNAL, 7))?);
        }
    }
    for timer in &timers {
        timer.set(0, HOUR, Duration::from_secs(timer.0 as u64))?;
    }
    let unset = Timer::new(libc::CLOCK_MONOTONIC, 1)?;
    let before = shown()?;
    v.stand()?;
    same("/proc/self/timers", before, shown()?)?;
    for timer in &timers {
        let (left, interval) = timer.get()?;
        within("timer", left, HOUR)?;
        same("interval", Duration::from_secs(timer.0 as u64), interval)?;
    }
    same("unset timer", (NEVER, NEVER), unset.get()?)
}

/// What is left is what was left, not what is left of wall time; then it expires.
fn expires(v: &Victim) -> Result<()> {
    const LEFT: Duration = Duration::from_millis(400);
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    let begin = clock(libc::CLOCK_MONOTONIC)?;
    let timer = Timer::new(libc::CLOCK_REALTIME, 11)?;
    timer.set(0, LEFT, NEVER)?;
    v.stand()?;
    same("overruns", 0, comes(timer, 11)?)?;
    let lived = clock(libc::CLOCK_MONOTONIC)?.saturating_sub(begin);
    ensure!(
        lived >= LEFT,
        "it expired after {lived:?} instead of {LEFT:?}"
    );
    same("expired timer", (NEVER, NEVER), timer.get()?)
}

/// A moment of the outside world stays what it is, and comes at once when it has passed. All timers of
/// CLOCK_TAI name one.
fn realtime_absolute(v: &Victim) -> Result<()> {
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    let now = clock(libc::CLOCK_REALTIME)?;
    let far = Timer::new(libc::CLOCK_REALTIME, 1)?;
    let near = Timer::new(libc::CLOCK_REALTIME, 2)?;
    let tai = Timer::new(libc::CLOCK_TAI, 3)?;
    far.set(libc::TIMER_ABSTIME, now + HOUR, NEVER)?;
    near.set(libc::TIMER_ABSTIME, now + Duration::from_millis(50), NEVER)?;
    tai.set(0, HOUR, NEVER)?;
    v.stand()?;
    for timer in [far, tai] {
        let passed = clock(libc::CLOCK_REALTIME)?.saturating_sub(now);
        let (left, _) = timer.get()?;
        let sum = left + passed;
        ensure!(
            sum + Duration::from_secs(5) > HOUR && sum < HOUR + Duration::from_secs(5),
            "{left:?} are left after {passed:?}"
        );
    }
    comes(near, 2)?;
    Ok(())
}

/// Expires again and again while nobody takes the signal, which counts, and after.
fn periodic(v: &Victim) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(20);
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    let timer = Timer::new(libc::CLOCK_MONOTONIC, 5)?;
    let begin = clock(libc::CLOCK_MONOTONIC)?;
    timer.set(0, INTERVAL, INTERVAL)?;
    until_pending(SIGNAL)?;
    sys::nap(INTERVAL * 5);
    v.stand()?;
    let first = comes(timer, 5)?;
    let lived = clock(libc::CLOCK_MONOTONIC)?.saturating_sub(begin);
    ensure!(
        first >= 4 && INTERVAL * (first as u32) <= lived,
        "{first} overruns in {lived:?}"
    );
    for _ in 0..2 {
        comes(timer, 5)?;
    }
    let (left, interval) = timer.get()?;
    same("interval", INTERVAL, interval)?;
    ensure!(left <= INTERVAL, "{left:?} are left of {INTERVAL:?}");
    Ok(())
}

/// Sends this process a signal of `value`.
fn send(signal: i32, value: i32) -> io::Result<()> {
    let value = libc::sigval {
        sival_ptr: ptr::without_provenance_mut(value as usize),
    };
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::sigqueue(getpid(), signal, value) }).map(drop)
}

/// The signal of a timer has its place among other signals of its number.
fn order(v: &Victim) -> Result<()> {
    let signal = libc::SIGRTMIN();
    mask(libc::SIG_BLOCK, &[signal])?;
    let timer = Timer::with(
        libc::CLOCK_MONOTONIC,
        &Event::new(libc::SIGEV_SIGNAL, signal, 2),
    )?;
    send(signal, 1)?;
    timer.set(0, Duration::from_millis(1), NEVER)?;
    ensure!(
        sys::until(LIMIT, || timer.get().is_ok_and(|(left, _)| left == NEVER)),
        "the timer does not expire"
    );
    send(signal, 3)?;
    v.stand()?;
    for (value, code) in [(1, libc::SI_QUEUE), (2, SI_TIMER), (3, libc::SI_QUEUE)] {
        let got = take_signal(&[signal], LIMIT)?.context("a signal is lost")?;
        same("value and code", (value, code), (got.value, got.code))?;
    }
    same("another signal", None, take_signal(&[signal], NEVER)?)
}

/// The signal of a timer that was set anew meanwhile is not delivered, but that of its next end.
fn stale(v: &Victim) -> Result<()> {
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    let timer = Timer::new(libc::CLOCK_MONOTONIC, 1)?;
    timer.set(0, Duration::from_millis(1), NEVER)?;
    until_pending(SIGNAL)?;
    timer.set(0, HOUR, NEVER)?;
    v.stand()?;
    within("timer", timer.get()?.0, HOUR)?;
    same("signal", None, take_signal(&[SIGNAL], NEVER)?)?;
    timer.set(0, Duration::from_millis(1), NEVER)?;
    comes(timer, 1)?;
    Ok(())
}

/// Nor is that of a timer that has been deleted.
fn deleted(v: &Victim) -> Result<()> {
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    let timer = Timer::new(libc::CLOCK_MONOTONIC, 1)?;
    timer.set(0, Duration::from_millis(1), NEVER)?;
    until_pending(SIGNAL)?;
    timer.delete()?;
    v.stand()?;
    same("signal", None, take_signal(&[SIGNAL], NEVER)?)
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// A periodic timer with an ignored signal goes on as soon as that is handled.
fn ignored(v: &Victim) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(5);
    // SAFETY: no memory is involved.
    unsafe { libc::signal(SIGNAL, libc::SIG_IGN) };
    let timer = Timer::new(libc::CLOCK_MONOTONIC, 1)?;
    timer.set(0, INTERVAL, INTERVAL)?;
    sys::nap(INTERVAL * 4);
    v.stand()?;
    handle(SIGNAL, count, 0)?;
    ensure!(
        sys::until(LIMIT, || HANDLED.load(Ordering::SeqCst) >= 3),
        "{} signals were handled",
        HANDLED.load(Ordering::SeqCst)
    );
    Ok(())
}

/// SIGEV_THREAD_ID: pending for one thread, and for no other.
fn one_thread(v: &Victim) -> Result<()> {
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    let (tell, told) = mpsc::channel();
    let (go, wait) = mpsc::channel::<()>();
    let numbers = NumbersThatFollow::choose();
    let other = thread::spawn(move || -> Result<_> {
        tell.send(gettid())?;
        wait.recv()?;
        let first = take_signal(&[SIGNAL], LIMIT)?.context("the pending signal is lost")?;
        let second = take_signal(&[SIGNAL], LIMIT)?.context("the second signal does not come")?;
        Ok((first, second))
    });
    let mut event = Event::new(libc::SIGEV_THREAD_ID, SIGNAL, 9);
    event.thread = told.recv()?;
    drop(numbers);
    let expired = Timer::with(libc::CLOCK_MONOTONIC, &event)?;
    expired.set(0, Duration::from_millis(1), NEVER)?;
    ensure!(
        sys::until(LIMIT, || expired.get().is_ok_and(|(left, _)| left == NEVER)),
        "the timer does not expire"
    );
    let running = Timer::with(libc::CLOCK_MONOTONIC, &event)?;
    running.set(0, HOUR, NEVER)?;
    v.stand()?;
    same(
        "signal of the wrong thread",
        None,
        take_signal(&[SIGNAL], NEVER)?,
    )?;
    running.set(0, Duration::from_millis(50), NEVER)?;
    go.send(())?;
    let (first, second) = other.join().expect("the thread panicked")?;
    same("first", (expired.0, SI_TIMER), (first.timer, first.code))?;
    same("second", (running.0, SI_TIMER), (second.timer, second.code))
}

/// Timers of CPU time expire after as much of it as they were set to.
fn cpu_time(v: &Victim) -> Result<()> {
    const MORE: Duration = Duration::from_millis(60);
    mask(libc::SIG_BLOCK, &[SIGNAL])?;
    burn(Duration::from_millis(30))?;
    let mut timers = Vec::new();
    for (value, which) in [
        (1, libc::CLOCK_PROCESS_CPUTIME_ID),
        (2, libc::CLOCK_THREAD_CPUTIME_ID),
    ] {
        let far = Timer::with(which, &Event::new(libc::SIGEV_SIGNAL, libc::SIGUSR2, 0))?;
        let end = clock(which)? + HOUR;
        far.set(libc::TIMER_ABSTIME, end, NEVER)?;
        let near = Timer::new(which, value)?;
        let begin = clock(which)?;
        near.set(0, MORE, NEVER)?;
        timers.push((which, far, end, near, begin, value));
    }
    v.stand()?;
    for &(which, far, end, ..) in &timers {
        let now = clock(which)?;
        let (left, _) = far.get()?;
        // The clock moves on between the two.
        let sum = now + left;
        ensure!(
            sum <= end && sum + Duration::from_secs(5) >= end,
            "clock {which} is {now:?}, and {left:?} are left until {end:?}"
        );
    }
    // Only a tick of a task that runs notices it.
    burn(2 * MORE)?;
    let mut values = Vec::new();
    for _ in 0..2 {
        values.push(
            take_signal(&[SIGNAL], LIMIT)?
                .context("it does not expire")?
                .value,
        );
    }
    values.sort_unstable();
    same("timers that expired", vec![1, 2], values)?;
    for (which, _, _, near, begin, _) in timers {
        same("expired timer", NEVER, near.get()?.0)?;
        let used = clock(which)?.saturating_sub(begin);
        ensure!(used >= MORE, "clock {which} went on by {used:?} only");
    }
    Ok(())
}

/// PR_TIMER_CREATE_RESTORE_IDS.
fn chosen_ids(v: &Victim) -> Result<()> {
    const PR_TIMER_CREATE_RESTORE_IDS: i32 = 77;
    // SAFETY: no memory is involved.
    let prctl = |what: libc::c_ulong| unsafe {
        cvt(libc::prctl(PR_TIMER_CREATE_RESTORE_IDS, what, 0, 0, 0))
    };
    prctl(1)?;
    v.stand()?;
    same("PR_TIMER_CREATE_RESTORE_IDS_GET", 1, prctl(2)?)?;
    let event = Event::new(libc::SIGEV_SIGNAL, SIGNAL, 0);
    let mut id = 4711i32;
    // SAFETY: event and id are valid.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_timer_create,
            libc::CLOCK_MONOTONIC,
            &event,
            &mut id,
        )
    })?;
    same("id", 4711, id)?;
    prctl(0)?;
    Ok(())
}

fn ended_thread(v: &Victim) -> Result<()> {
    let (tell, told) = mpsc::channel();
    let (end, ending) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        let _ = tell.send(gettid());
        let _ = ending.recv();
    });
    let mut event = Event::new(libc::SIGEV_THREAD_ID, SIGNAL, 0);
    event.thread = told.recv()?;
    let timer = Timer::with(libc::CLOCK_MONOTONIC, &event)?;
    drop(end);
    other.join().expect("the thread panicked");
    let gone = || !fs::exists(format!("/proc/self/task/{}", event.thread)).unwrap_or(true);
    ensure!(sys::until(LIMIT, gone), "the thread does not go away");
    v.stand()?;
    same("timer", (NEVER, NEVER), timer.get()?)
}

/// It counts the CPU time of a process that is not in the tree.
fn outside(v: &Victim) -> Result<()> {
    let of_init = !1 << 3 | 2;
    let timer = Timer::new(of_init, 0)?;
    timer.set(0, HOUR, NEVER)?;
    v.stand()?;
    within("timer", timer.get()?.0, HOUR)
}
