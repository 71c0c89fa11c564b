// SPDX-License-Identifier: GPL-2.0

//! A checkpoint of threads that write at full speed is of one moment: memory, registers and what
//! threads know of each other fit together.

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    Area,
    PAGE, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Outcome, //
};
use std::process::ExitCode;
use std::sync::atomic::{
    AtomicU64,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("private", |v| writers(v, MAP_PRIVATE)),
        Case::new("shared", |v| writers(v, MAP_SHARED)),
    ],
    customs: &[Custom {
        name: "again-and-again",
        run: again_and_again,
    }],
    // The numbers of threads have to be free.
    jobs: 1,
    ..Suite::new("consistent-cut")
};

fn main() -> ExitCode {
    SUITE.main()
}

const PAGES: usize = 256;

/// The first word of each page of new memory.
fn words(kind: i32) -> Result<Vec<&'static AtomicU64>> {
    let area = Area::anon(PAGES * PAGE, PROT_READ | PROT_WRITE, kind)?;
    // SAFETY: the pages are there as long as the process, and are used as this only.
    let word = |n: usize| unsafe { &*area.addr.add(n * PAGE).cast::<AtomicU64>() };
    Ok((0..PAGES).map(word).collect())
}

/// Writes round after round to all pages, in order, and looks whether the round before is there.
fn write(v: &Victim, pages: &[&AtomicU64], rounds: &AtomicU64) -> Result<()> {
    let mut round = 1;
    while !v.told() {
        for (n, page) in pages.iter().enumerate() {
            let before = page.swap(round, Ordering::SeqCst);
            ensure!(before == round - 1, "round {round}: page {n} has {before}");
        }
        for (n, page) in pages.iter().enumerate().rev() {
            let now = page.load(Ordering::SeqCst);
            ensure!(
                now == round,
                "round {round}: page {n} lost it and has {now}"
            );
        }
        rounds.store(round, Ordering::SeqCst);
        round += 1;
    }
    Ok(())
}

/// Copies what the other thread has written: its copy is never ahead.
fn follow(v: &Victim, from: &[&AtomicU64], to: &[&AtomicU64]) -> Result<()> {
    while !v.told() {
        for n in (0..PAGES).rev() {
            let ours = to[n].load(Ordering::SeqCst);
            let theirs = from[n].load(Ordering::SeqCst);
            ensure!(
                ours <= theirs,
                "page {n}: the copy is ahead: {ours} of {theirs}"
            );
            to[n].store(theirs, Ordering::SeqCst);
        }
    }
    Ok(())
}

fn writers(v: &Victim, kind: i32) -> Result<()> {
    let (first, second) = (words(kind)?, words(kind)?);
    let rounds = AtomicU64::new(0);
    let numbers = NumbersThatFollow::choose();
    thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| write(v, &first, &rounds));
        let follower = scope.spawn(|| follow(v, &first, &second));
        drop(numbers);
        let begun = sys::until(Duration::from_secs(20), || {
            rounds.load(Ordering::SeqCst) > 2
        });
        ensure!(begun, "the writer does not write");
        v.stand()?;
        let before = rounds.load(Ordering::SeqCst);
        for thread in [writer, follower] {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        ensure!(
            rounds.load(Ordering::SeqCst) >= before,
            "rounds go backwards"
        );
        Ok(())
    })
}

/// The running victim sees nothing of several checkpoints, and each image is good.
fn again_and_again(bench: &Bench<'_>) -> Result<()> {
    let mut images = Vec::new();
    let mut life = bench.start("private")?;
    for n in 0..4 {
        let image = bench.path(&format!("{n}.img"));
        life.checkpoint(&[], &image)?;
        images.push(image);
    }
    life.kill()?;
    for image in &images {
        bench.forget()?;
        life.restart(image, &[])?;
        life.settle(Duration::from_millis(50))?;
        life.tell()?;
        match life.ends_well()? {
            Outcome::Pass => {}
            other => bail!("{}: {other:?}", image.display()),
        }
    }
    Ok(())
}
