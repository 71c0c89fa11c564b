// SPDX-License-Identifier: GPL-2.0

//! Clocks that never go back, not even over a reboot.

use libc::{
    CLOCK_BOOTTIME,
    CLOCK_MONOTONIC,
    CLOCK_PROCESS_CPUTIME_ID, //
};
use selftests::prelude::*;
use selftests::sys::clock;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("monotonic", |v| never_back(v, CLOCK_MONOTONIC)).settle(200),
        Case::new("boottime", |v| never_back(v, CLOCK_BOOTTIME)).settle(200),
        Case::new("every-reading", every_reading).settle(200),
        Case::new("instant", instant),
        Case::new("goes-on", goes_on),
        Case::new("cpu-time-goes-on", cpu_time),
    ],
    ..Suite::new("clock")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn never_back(v: &Victim, id: libc::clockid_t) -> Result<()> {
    v.ready()?;
    let mut last = clock(id)?;
    while !v.told() {
        sys::nap(Duration::from_millis(1));
        let now = clock(id)?;
        ensure!(now >= last, "clock {id} went back from {last:?} to {now:?}");
        last = now;
    }
    Ok(())
}

/// Without a pause, so that the checkpoint comes between any two instructions.
fn every_reading(v: &Victim) -> Result<()> {
    v.ready()?;
    let ids = [CLOCK_MONOTONIC, CLOCK_BOOTTIME];
    let mut last = [clock(ids[0])?, clock(ids[1])?];
    while !v.told() {
        for _ in 0..10_000 {
            for (id, last) in ids.into_iter().zip(&mut last) {
                let now = clock(id)?;
                ensure!(
                    now >= *last,
                    "clock {id} went back from {last:?} to {now:?}"
                );
                *last = now;
            }
        }
    }
    Ok(())
}

/// The standard library's view.
fn instant(v: &Victim) -> Result<()> {
    let before = Instant::now();
    v.stand()?;
    ensure!(
        Instant::now().checked_duration_since(before).is_some(),
        "Instant went back"
    );
    Ok(())
}

/// It runs at the usual rate afterwards, compared with the time of day.
fn goes_on(v: &Victim) -> Result<()> {
    v.stand()?;
    for id in [CLOCK_MONOTONIC, CLOCK_BOOTTIME] {
        let (begin, day) = (clock(id)?, clock(libc::CLOCK_REALTIME)?);
        sys::nap(Duration::from_millis(500));
        let (end, later) = (clock(id)?, clock(libc::CLOCK_REALTIME)?);
        let (by_clock, by_day) = (end - begin, later.saturating_sub(day));
        let differ = by_clock.abs_diff(by_day);
        ensure!(
            differ < Duration::from_millis(200),
            "clock {id} counted {by_clock:?}, the time of day {by_day:?}"
        );
    }
    Ok(())
}

/// Processor time of the process grows while it works.
fn cpu_time(v: &Victim) -> Result<()> {
    v.stand()?;
    let begin = clock(CLOCK_PROCESS_CPUTIME_ID)?;
    let limit = Instant::now() + Duration::from_secs(20);
    while clock(CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(begin) < Duration::from_millis(50) {
        ensure!(
            Instant::now() < limit,
            "50 ms of processor time are not reached in 20 s"
        );
    }
    Ok(())
}
