// SPDX-License-Identifier: GPL-2.0
//! What a kernel with this subsystem takes: memory during a checkpoint (M13), and time and memory when nobody uses it
//! (M11).

use super::Options;
use crate::life::Life;
use crate::life::kib;
use crate::limit;
use crate::report::figure;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use checkpoint::Checkpoint;
use selftests::sys;
use selftests::sys::PAGE;
use std::fs;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::thread;

/// M13: by the size of the victim in MiB.
pub fn memory(options: &Options) -> Result<()> {
    let size = if options.quick { 64 } else { 512 };
    for (what, no_snapshot) in [("stop", true), ("snapshot", false)] {
        figure(&format!("M13/{what}/{size}/limit"), Ok::<_, anyhow::Error>(vec![(size << 20) as f64]))?;
        figure(&format!("M13/{what}/{size}/ours"), used(size, no_snapshot).map(|bytes| vec![bytes]))?;
    }
    Ok(())
}

/// The most memory that a checkpoint into a pipe took at any time.
fn used(size: usize, no_snapshot: bool) -> Result<f64> {
    let life = Life::start("memory", size)?;
    let (read, write) = sys::pipe(libc::O_CLOEXEC)?;
    let mut read = File::from(read);
    let mut part = vec![1; 1 << 16];
    let target = checkpoint::process(life.pid)?;
    let before = free()?;
    // The image goes nowhere, so nothing but the checkpoint takes memory.
    let reader = thread::spawn(move || -> Result<u64> {
        let mut least = u64::MAX;
        let (mut bytes, mut next) = (0, 0);
        loop {
            let n = read.read(&mut part)?;
            if n == 0 {
                return Ok(least);
            }
            bytes += n;
            if bytes >= next {
                least = least.min(free()?);
                next += 1 << 20;
            }
        }
    });
    let done = Checkpoint::new(target.as_fd()).no_snapshot(no_snapshot).write(write.as_fd());
    drop(write);
    let least = reader.join().map_err(|_| anyhow!("the reader panicked"))??;
    done?;
    ensure!(least < before, "{least} bytes free during the checkpoint, {before} before");
    Ok((before - least) as f64)
}

/// Bytes that are free, with what each processor keeps at hand.
fn free() -> Result<u64> {
    fs::read_to_string("/proc/sys/vm/stat_refresh").context("stat_refresh")?;
    let zones = fs::read_to_string("/proc/zoneinfo")?;
    let count = |line: &str| line.trim().strip_prefix("count:")?.trim().parse::<u64>().ok();
    let at_hand: u64 = zones.lines().filter_map(count).sum();
    Ok((kib("/proc/meminfo", "MemFree:")? << 10) + at_hand * PAGE as u64)
}

/// Runs of M11, of which the least counts.
const RUNS: usize = 101;

/// M11: under the key of `who`, as this runs in a kernel without the subsystem, too.
pub fn idle(who: &str) -> Result<()> {
    for (what, size) in [("syscall", 10_000), ("fault", 4096), ("processes", 100), ("exec", 20), ("switch", 1000)] {
        let least =
            limit::measure(what, size, RUNS).map(|runs| runs.into_iter().reduce(f64::min).into_iter().collect());
        figure(&format!("M11/{what}/{size}/{who}"), least)?;
    }
    for what in ["task_struct", "mm_struct", "vm_area_struct", "filp"] {
        let size = fs::read_to_string(format!("/sys/kernel/slab/{what}/object_size"));
        let size = size.with_context(|| what.to_owned()).and_then(|text| Ok(vec![text.trim().parse()?]));
        figure(&format!("M11/sizeof-{what}/1/{who}"), size)?;
    }
    Ok(())
}
