// SPDX-License-Identifier: GPL-2.0

//! Policies and what belongs to them, of each thread its own.

use selftests::prelude::*;
use selftests::sys::{
    cvt,
    gettid, //
};
use selftests::NumbersThatFollow;
use std::io;
use std::mem;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("batch", |v| {
            stays(v, &[Attr::new(libc::SCHED_BATCH).nice(11)])
        }),
        Case::new("idle", |v| stays(v, &[Attr::new(libc::SCHED_IDLE).nice(3)])),
        Case::new("time-slice", |v| {
            stays(
                v,
                &[Attr::new(libc::SCHED_OTHER).nice(-5).runtime(5_000_000)],
            )
        }),
        Case::new("reset-on-fork", reset_on_fork),
        // The nice value is that of the time before, and comes back with the policy of that time.
        Case::new("real-time", |v| {
            stays(
                v,
                &[
                    Attr::new(libc::SCHED_OTHER).nice(7),
                    Attr::new(libc::SCHED_RR).priority(3),
                ],
            )
        }),
        Case::new("deadline", |v| {
            stays(v, &[Attr::new(SCHED_DEADLINE).deadline(20, 100, 200)])
        }),
        Case::new("clamps", clamps),
        Case::new("threads", threads),
    ],
    // The numbers that follow are those of one victim, and bandwidth is scarce.
    jobs: 1,
    ..Suite::new("scheduling")
};

fn main() -> ExitCode {
    SUITE.main()
}

const SCHED_DEADLINE: i32 = 6;
const RESET_ON_FORK: u64 = 1;
const RECLAIM: u64 = 2;
const CLAMP_MIN: u64 = 0x20;
const CLAMP_MAX: u64 = 0x40;

/// struct sched_attr.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    clamp_min: u32,
    clamp_max: u32,
}

impl Attr {
    fn new(policy: i32) -> Self {
        Self {
            size: mem::size_of::<Self>() as u32,
            policy: policy as u32,
            ..Self::default()
        }
    }

    fn nice(mut self, nice: i32) -> Self {
        self.nice = nice;
        self
    }

    fn runtime(mut self, ns: u64) -> Self {
        self.runtime = ns;
        self
    }

    fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }

    fn flags(mut self, flags: u64) -> Self {
        self.flags |= flags;
        self
    }

    /// In ms.
    fn deadline(mut self, runtime: u64, deadline: u64, period: u64) -> Self {
        (self.runtime, self.deadline, self.period) = (
            runtime * 1_000_000,
            deadline * 1_000_000,
            period * 1_000_000,
        );
        self.flags(RECLAIM)
    }

    /// Of the calling thread.
    fn set(&self) -> io::Result<()> {
        // SAFETY: the attributes are valid.
        cvt(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, self, 0) }).map(drop)
    }

    fn get(tid: i32) -> io::Result<Self> {
        let mut attr = Self::default();
        // SAFETY: the attributes are valid for writing.
        cvt(unsafe {
            libc::syscall(
                libc::SYS_sched_getattr,
                tid,
                &mut attr,
                mem::size_of::<Self>(),
                0,
            )
        })?;
        Ok(attr)
    }
}

/// Everything that is known of how a thread is scheduled, its nice value included.
fn known(tid: i32) -> Result<(Attr, i32)> {
    // SAFETY: no memory is involved.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, tid as libc::id_t) };
    Ok((Attr::get(tid)?, nice))
}

fn stays(v: &Victim, attrs: &[Attr]) -> Result<()> {
    for attr in attrs {
        attr.set().with_context(|| format!("{attr:?}"))?;
    }
    let before = known(0)?;
    same(
        "policy",
        attrs.last().map(|attr| attr.policy),
        Some(before.0.policy),
    )?;
    v.stand()?;
    same("scheduling", before, known(0)?)
}

/// A child has the default, as before.
fn reset_on_fork(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let fifo = Attr::new(libc::SCHED_FIFO).priority(2);
    // One that there is already has the policy.
    fifo.set()?;
    // SAFETY: no memory is involved.
    let child = selftests::Process::fork(|| unsafe { libc::pause() })?;
    drop(numbers);
    fifo.flags(RESET_ON_FORK).set()?;
    let before = (known(0)?, known(child.pid)?);
    v.stand()?;
    same("scheduling", before, (known(0)?, known(child.pid)?))?;
    let status = sys::forked(|| match Attr::get(0) {
        Ok(attr) => i32::from(attr.policy != libc::SCHED_OTHER as u32 || attr.flags != 0),
        Err(_) => 2,
    })?;
    same("status of a child that has the default", 0, status)
}

fn clamps(v: &Victim) -> Result<()> {
    let mut attr = Attr::new(libc::SCHED_OTHER).flags(CLAMP_MIN | CLAMP_MAX);
    (attr.clamp_min, attr.clamp_max) = (100, 700);
    match attr.set() {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return skip("this kernel has no utilization clamps")
        }
        other => other?,
    }
    let before = known(0)?;
    same(
        "clamps",
        (100, 700),
        (before.0.clamp_min, before.0.clamp_max),
    )?;
    v.stand()?;
    same("scheduling", before, known(0)?)
}

/// Each thread has its own.
fn threads(v: &Victim) -> Result<()> {
    let (tell, told) = mpsc::channel();
    let (end, ending) = mpsc::channel::<()>();
    let numbers = NumbersThatFollow::choose();
    let other = thread::spawn(move || -> Result<()> {
        tell.send((gettid(), Attr::new(libc::SCHED_BATCH).nice(9).set()))?;
        let _ = ending.recv();
        Ok(())
    });
    let (tid, set) = told.recv()?;
    drop(numbers);
    set?;
    let before = (known(0)?, known(tid)?);
    ensure!(before.0 != before.1, "both are scheduled alike");
    v.stand()?;
    same("scheduling", before, (known(0)?, known(tid)?))?;
    drop(end);
    other.join().expect("the thread panicked")
}
