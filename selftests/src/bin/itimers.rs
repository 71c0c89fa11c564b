// SPDX-License-Identifier: GPL-2.0

//! Timers of setitimer(2) that count CPU time, and the limit of CPU time.

use selftests::prelude::*;
use selftests::sys::{
    burn_by,
    clock,
    cvt,
    mask,
    pending,
    take_signal, //
};
use std::mem;
use std::process::ExitCode;
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("virtual", |v| long(v, libc::ITIMER_VIRTUAL)),
        Case::new("prof", |v| long(v, libc::ITIMER_PROF)),
        Case::new("virtual-expires", |v| {
            expires(v, libc::ITIMER_VIRTUAL, VIRTUAL, libc::SIGVTALRM)
        }),
        Case::new("prof-expires", |v| {
            expires(v, libc::ITIMER_PROF, PROF, libc::SIGPROF)
        }),
        Case::new("real-pending", real_pending),
        Case::new("limit", limit).not(&[
            (Mode::TwoCycles, "it takes a second of CPU time"),
            (Mode::LeftRunning, "it takes a second of CPU time"),
        ]),
    ],
    ..Suite::new("itimers")
};

fn main() -> ExitCode {
    SUITE.main()
}

const LIMIT: Duration = Duration::from_secs(20);

fn set(which: libc::c_int, value: Duration, interval: Duration) -> Result<()> {
    let timeval = |time: Duration| libc::timeval {
        tv_sec: time.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(time.subsec_micros() as i32),
    };
    let setting = libc::itimerval {
        it_interval: timeval(interval),
        it_value: timeval(value),
    };
    // SAFETY: the times are valid.
    cvt(unsafe { libc::setitimer(which, &setting, ptr::null_mut()) })?;
    Ok(())
}

/// What is left, and the interval.
fn get(which: libc::c_int) -> Result<(Duration, Duration)> {
    // SAFETY: all zeroes is an itimerval, valid for writing.
    let now = unsafe {
        let mut now: libc::itimerval = mem::zeroed();
        cvt(libc::getitimer(which, &mut now))?;
        now
    };
    let duration = |t: libc::timeval| {
        Duration::new(t.tv_sec as u64, 0) + Duration::from_micros(t.tv_usec as u64)
    };
    Ok((duration(now.it_value), duration(now.it_interval)))
}

fn long(v: &Victim, which: libc::c_int) -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(1234);
    set(which, Duration::from_secs(3600), INTERVAL)?;
    v.stand()?;
    sys::check_hour(which)?;
    same("interval", INTERVAL, get(which)?.1)
}

/// The clocks of these timers count by ticks, of which a busy machine loses some.
const PROF: libc::clockid_t = !0 << 3;
const VIRTUAL: libc::clockid_t = !0 << 3 | 1;

/// It expires after the rest of its CPU time, and then after each interval.
fn expires(v: &Victim, which: libc::c_int, by: libc::clockid_t, signal: i32) -> Result<()> {
    const WHOLE: Duration = Duration::from_millis(80);
    const INTERVAL: Duration = Duration::from_millis(12);
    mask(libc::SIG_BLOCK, &[signal])?;
    let begin = clock(by)?;
    set(which, WHOLE, INTERVAL)?;
    burn_by(by, WHOLE / 4)?;
    v.stand()?;
    burn_until_pending(by, signal)?;
    let used = clock(by)?.saturating_sub(begin);
    ensure!(
        // Where everything is slow, standing there takes CPU time as well.
        (WHOLE..WHOLE * 20).contains(&used),
        "it expired after {used:?} instead of {WHOLE:?}"
    );
    take_signal(&[signal], LIMIT)?;
    let begin = clock(by)?;
    burn_until_pending(by, signal)?;
    let used = clock(by)?.saturating_sub(begin);
    ensure!(used < WHOLE * 20, "an interval takes {used:?}");
    set(which, Duration::ZERO, Duration::ZERO)
}

/// Uses CPU time until `signal` is pending.
fn burn_until_pending(by: libc::clockid_t, signal: i32) -> Result<()> {
    let begin = clock(by)?;
    while !pending()?.contains(&signal) {
        burn_by(by, Duration::from_millis(4))?;
        let used = clock(by)?.saturating_sub(begin);
        ensure!(used < Duration::from_secs(5), "no signal within {used:?}");
    }
    Ok(())
}

/// The next interval of a timer of real time begins when its signal is taken.
fn real_pending(v: &Victim) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(10);
    mask(libc::SIG_BLOCK, &[libc::SIGALRM])?;
    set(libc::ITIMER_REAL, INTERVAL, INTERVAL)?;
    ensure!(
        sys::until(LIMIT, || pending()
            .is_ok_and(|set| set.contains(&libc::SIGALRM))),
        "it does not expire"
    );
    v.stand()?;
    same("interval", INTERVAL, get(libc::ITIMER_REAL)?.1)?;
    for time in ["first", "second", "third"] {
        take_signal(&[libc::SIGALRM], LIMIT)?
            .with_context(|| format!("the {time} signal does not come"))?;
    }
    Ok(())
}

/// CPU time of before counts against the limit, which is of one second.
fn limit(v: &Victim) -> Result<()> {
    mask(libc::SIG_BLOCK, &[libc::SIGXCPU])?;
    let limit = libc::rlimit {
        rlim_cur: 1,
        rlim_max: 100,
    };
    // SAFETY: the limit is valid.
    cvt(unsafe { libc::setrlimit(libc::RLIMIT_CPU, &limit) })?;
    burn_by(PROF, Duration::from_millis(700))?;
    ensure!(pending()?.is_empty(), "the limit was reached too early");
    let begin = clock(PROF)?;
    v.stand()?;
    burn_until_pending(PROF, libc::SIGXCPU)?;
    let used = clock(PROF)?.saturating_sub(begin);
    ensure!(
        used < Duration::from_millis(600),
        "the limit of a second acts after {used:?} more"
    );
    Ok(())
}
