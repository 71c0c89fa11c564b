// SPDX-License-Identifier: GPL-2.0

//! After checkpoints and restarts, good ones and failed ones, the machine has what it had before.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    fill,
    verify,
    Area, //
};
use selftests::Bench;
use std::fs;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[Custom {
        name: "none",
        run: none,
    }],
    victims: &[Case::new("large", large)],
    ..Suite::new("leftovers")
};

fn main() -> ExitCode {
    SUITE.main()
}

const SIZE: usize = 16 << 20;

fn large(v: &Victim) -> Result<()> {
    let area = Area::anon(SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    v.stand()?;
    verify("16 MiB", area.bytes(), 1)
}

/// What can be counted.
struct Counted {
    tasks: usize,
    files: i64,
    free_kib: i64,
}

impl Counted {
    fn now() -> Result<Self> {
        // What is not written yet cannot be dropped.
        // SAFETY: no memory is involved.
        unsafe { libc::sync() };
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        let files = fs::read_to_string("/proc/sys/fs/file-nr")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let free = memory
            .lines()
            .find_map(|l| l.strip_prefix("MemFree:"))
            .context("no MemFree")?;
        Ok(Self {
            tasks: selftests::tasks()?.len(),
            files: files.split_whitespace().next().context("empty")?.parse()?,
            free_kib: free.trim().trim_end_matches(" kB").parse()?,
        })
    }
}

fn none(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("large")?;
    let (good, bad) = (b.path("image"), b.path("damaged"));
    life.checkpoint_and_kill(&good)?;
    let mut flipped = fs::read(&good)?;
    let last = flipped.len() - 1000;
    flipped[last] ^= 1;
    let mut round = || -> Result<()> {
        for damaged in [&flipped[..], &flipped[..last / 2]] {
            fs::write(&bad, damaged)?;
            let rstr = b.rstr().arg("--detach").arg("-i").arg(&bad);
            rstr.run()?.refused("rstr", &["image"])?;
        }
        b.forget()?;
        life.restart_detached(&good, &[])?;
        life.passes()
    };
    // What is allocated once is allocated now.
    round()?;
    let before = Counted::now()?;
    let rounds = if b.long { 100 } else { 8 };
    for _ in 0..rounds {
        round()?;
    }
    let after = Counted::now()?;
    same("tasks", before.tasks, after.tasks)?;
    ensure!(
        after.files - before.files <= 32,
        "open files: {} before, {} after",
        before.files,
        after.files
    );
    // There, kmemleak looks for what is lost.
    if sys::has_kasan()? {
        return Ok(());
    }
    // Less than half of what one image holds, for each round. Free pages that a processor keeps for
    // itself do not count as free, so that a fixed amount says nothing.
    let lost = before.free_kib - after.free_kib;
    ensure!(
        lost < (SIZE >> 11) as i64 * rounds,
        "{lost} KiB are gone after {rounds} rounds"
    );
    Ok(())
}
