// SPDX-License-Identifier: GPL-2.0

//! Very many mappings, with very little in each.

use libc::{
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    fill,
    verify,
    Area,
    PAGE, //
};
use std::fs;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("ten-thousand", ten_thousand),
        Case::new("reserved", reserved),
    ],
    ..Suite::new("many-vmas")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const MANY: usize = 10_000;

/// Number of mappings.
fn count() -> Result<usize> {
    Ok(fs::read("/proc/self/maps")?
        .iter()
        .filter(|&&b| b == b'\n')
        .count())
}

fn ten_thousand(v: &Victim) -> Result<()> {
    let area = Area::anon(MANY * PAGE, RW, MAP_PRIVATE)?;
    let page = |n: usize| &mut area.bytes()[n * PAGE..(n + 1) * PAGE];
    // A page in every seventh; the others have none.
    for n in (0..MANY).step_by(7) {
        fill(page(n), n as u64);
    }
    for n in (0..MANY).step_by(2) {
        area.protect(n * PAGE, PAGE, PROT_READ)?;
    }
    let before = count()?;
    ensure!(before >= MANY, "{before} mappings");
    v.stand()?;
    same("mappings", before, count()?)?;
    for n in (0..MANY).step_by(7) {
        verify(&format!("page {n}"), page(n), n as u64)?;
    }
    for n in [0, 1, 2, 4999, 5000, 5001, MANY - 2, MANY - 1] {
        let writable = sys::writable(area.addr.wrapping_add(n * PAGE + 1))?;
        same(&format!("page {n} writable"), n % 2 == 1, writable)?;
    }
    // All of it is one mapping again.
    area.protect(0, area.len, PROT_READ)?;
    let after = count()?;
    ensure!(after < 200, "{after} mappings after all were made the same");
    Ok(())
}

/// A TiB of address space that nobody has touched, as sanitizers reserve it.
fn reserved(v: &Victim) -> Result<()> {
    let closed = Area::anon(1 << 40, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE)?;
    let open = Area::anon(1 << 40, RW, MAP_PRIVATE | MAP_NORESERVE)?;
    let page = |at: usize| &mut open.bytes()[at..at + PAGE];
    let places = [0, 1 << 30, (1 << 39) + PAGE, (1 << 40) - PAGE];
    for at in places {
        fill(page(at), at as u64);
    }
    v.stand()?;
    for at in places {
        verify(&format!("page at {at:#x}"), page(at), at as u64)?;
    }
    ensure!(page(1 << 35).iter().all(|&b| b == 0), "a hole is not zero");
    closed.protect(1 << 39, PAGE, RW)?;
    // SAFETY: it is ours and writable now.
    unsafe { closed.addr.add(1 << 39).write_volatile(1) };
    Ok(())
}
