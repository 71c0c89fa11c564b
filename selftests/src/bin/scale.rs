// SPDX-License-Identifier: GPL-2.0

//! Large trees: wide ones, deep ones, and many threads. With --long ten times as large, and the time
//! that a task takes must not grow with their number.

use selftests::prelude::*;
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::mem;
use std::process::ExitCode;
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "children",
            run: |b| grows(b, "children", 100),
        },
        Custom {
            name: "chain",
            run: |b| grows(b, "chain", 30),
        },
        Custom {
            name: "threads",
            run: |b| grows(b, "threads", 1000),
        },
    ],
    victims: &[
        Case::new("children", children).no_control(),
        Case::new("chain", chain).no_control(),
        Case::new("threads", threads).no_control(),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("scale")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// How many tasks a victim has to have.
fn number(v: &Victim) -> Result<u32> {
    Ok(fs::read_to_string(v.path("number"))?.parse()?)
}

/// Waits for the end of the tree, and little else.
fn sleeps(v: &Victim) {
    while !v.told() {
        sys::nap(Duration::from_millis(500));
    }
}

fn children(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut all = Vec::new();
    for status in 0..number(v)? as i32 {
        all.push(Process::fork(|| {
            sleeps(v);
            status % 100
        })?);
    }
    drop(numbers);
    v.ready()?;
    sleeps(v);
    for (status, child) in (0..).zip(&mut all) {
        let ended = child.wait(Duration::from_secs(60))?;
        same("status", Some(status % 100), ended.code())?;
    }
    Ok(())
}

/// Each process has one child, for which it waits.
fn link(v: &Victim, left: u32, numbers: &mut Option<NumbersThatFollow>) -> Result<()> {
    if left == 0 {
        *numbers = None;
        v.ready()?;
        sleeps(v);
        return Ok(());
    }
    let child = Process::fork(|| i32::from(link(v, left - 1, numbers).is_err()))?;
    let pid = child.pid;
    mem::forget(child);
    let mut status = 0;
    // SAFETY: the status is valid for writing.
    let found = sys::cvt(unsafe { libc::waitpid(pid, &mut status, 0) })?;
    same("child and status", (pid, 0), (found, status))
}

fn chain(v: &Victim) -> Result<()> {
    let mut numbers = Some(NumbersThatFollow::choose());
    let left = number(v)?;
    link(v, left, &mut numbers)
}

fn threads(v: &Victim) -> Result<()> {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    let numbers = NumbersThatFollow::choose();
    let wanted = number(v)?;
    for _ in 0..wanted {
        let builder = thread::Builder::new().stack_size(32 << 10);
        // SAFETY: the victim lives until all threads have counted.
        let v: &'static Victim = unsafe { &*std::ptr::from_ref(v) };
        builder.spawn(move || {
            sleeps(v);
            ENDED.fetch_add(1, Ordering::SeqCst);
        })?;
    }
    drop(numbers);
    v.ready()?;
    sleeps(v);
    ensure!(
        sys::until(Duration::from_secs(60), || {
            ENDED.load(Ordering::SeqCst) == wanted
        }),
        "{} of {wanted} threads went on",
        ENDED.load(Ordering::SeqCst)
    );
    Ok(())
}

/// Checkpoints and restarts a tree of `count` tasks: how long each took.
fn takes(b: &Bench<'_>, victim: &str, count: u32) -> Result<[Duration; 2]> {
    b.forget()?;
    let _ = fs::remove_file(b.path("ready"));
    fs::write(b.path("number"), count.to_string())?;
    let mut life = b.start(victim)?;
    let image = b.path("image");
    let ckpt = life.checkpoint_and_kill_all(&image)?.took;
    let rstr = life.restart_detached(&image, &[])?.took;
    life.passes()?;
    Ok([ckpt, rstr])
}

fn grows(b: &Bench<'_>, victim: &str, count: u32) -> Result<()> {
    let few = takes(b, victim, count)?;
    if !b.long {
        return Ok(());
    }
    let many = takes(b, victim, count * 10)?;
    eprintln!("{victim}: {count}: {few:?}, ten times as many: {many:?}");
    for (what, few, many) in [("ckpt", few[0], many[0]), ("rstr", few[1], many[1])] {
        ensure!(
            many <= few * 20,
            "{what}: {few:?} for {count}, {many:?} for ten times as many"
        );
    }
    Ok(())
}
