// SPDX-License-Identifier: GPL-2.0

//! Eventfds: counter, semaphore mode, flags, sharing, waiting readers and writers.

use libc::{
    EAGAIN,
    EFD_NONBLOCK,
    EFD_SEMAPHORE,
    F_GETFL,
    F_SETFL,
    O_APPEND,
    O_NONBLOCK, //
};
use selftests::epoll::{
    count,
    counted,
    counter, //
};
use selftests::prelude::*;
use selftests::sys::{
    fails_with,
    fcntl, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("counter", largest),
        Case::new("semaphore", semaphore),
        Case::new("flags", flags),
        Case::new("shared", shared),
        Case::new("waiting-reader", waiting_reader),
        Case::new("waiting-writer", waiting_writer),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("eventfd")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// The largest count that a write can leave, which no argument of eventfd(2) can be.
const FULL: u64 = u64::MAX - 1;

fn largest(v: &Victim) -> Result<()> {
    let zero = counter(0, EFD_NONBLOCK)?;
    let full = counter(0, EFD_NONBLOCK)?;
    count(&full, FULL)?;
    v.stand()?;
    ensure!(
        fails_with(counted(&zero), EAGAIN),
        "there is something in the empty one"
    );
    ensure!(
        fails_with(count(&full, 1), EAGAIN),
        "there is room in the full one"
    );
    same("count", FULL, counted(&full)?)?;
    count(&full, 3)?;
    same("count afterwards", 3, counted(&full)?)
}

fn semaphore(v: &Victim) -> Result<()> {
    let fd = counter(3, EFD_SEMAPHORE | EFD_NONBLOCK)?;
    same("first read", 1, counted(&fd)?)?;
    v.stand()?;
    same("second read", 1, counted(&fd)?)?;
    same("third read", 1, counted(&fd)?)?;
    ensure!(fails_with(counted(&fd), EAGAIN), "there is a fourth");
    Ok(())
}

/// Status flags, as they were and as fcntl(2) changed them.
fn flags(v: &Victim) -> Result<()> {
    let all = [
        counter(1, 0)?,
        counter(1, EFD_NONBLOCK)?,
        counter(1, EFD_NONBLOCK)?,
        counter(1, 0)?,
    ];
    fcntl(&all[2], F_SETFL, 0)?;
    fcntl(&all[3], F_SETFL, O_NONBLOCK | O_APPEND)?;
    let get = || -> Result<Vec<i32>> { all.iter().map(|fd| Ok(fcntl(fd, F_GETFL, 0)?)).collect() };
    let before = get()?;
    v.stand()?;
    same("flags", before, get()?)
}

/// One counter under two numbers and in two processes stays one.
fn shared(v: &Victim) -> Result<()> {
    let fd = counter(5, EFD_NONBLOCK)?;
    let other = fd.try_clone()?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        i32::from(count(&fd, 10).is_err())
    })?;
    drop(numbers);
    v.stand()?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child cannot write");
    same("count", 15, counted(&other)?)?;
    ensure!(fails_with(counted(&fd), EAGAIN), "there are two counters");
    Ok(())
}

/// Who waits in a read is woken by a write.
fn waiting_reader(v: &Victim) -> Result<()> {
    let fd = counter(0, 0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| i32::from(!counted(&fd).is_ok_and(|count| count == 7)))?;
    drop(numbers);
    v.stand()?;
    ensure!(child.ended()?.is_none(), "the reader does not wait");
    count(&fd, 7)?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the reader has got something else");
    Ok(())
}

/// Who waits in a write is woken by a read.
fn waiting_writer(v: &Victim) -> Result<()> {
    let fd = counter(0, 0)?;
    count(&fd, FULL)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| i32::from(count(&fd, 9).is_err()))?;
    drop(numbers);
    v.stand()?;
    ensure!(child.ended()?.is_none(), "the writer does not wait");
    same("count", FULL, counted(&fd)?)?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the writer failed");
    same("count of the writer", 9, counted(&fd)?)
}
