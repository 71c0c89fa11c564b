// SPDX-License-Identifier: GPL-2.0

//! NUMA policies of the task and of its mappings.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::maps::Maps;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    verify,
    Area,
    PAGE, //
};
use std::fs;
use std::process::ExitCode;
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("mappings", mappings),
        Case::new("task", task),
        Case::new("threads", threads),
    ],
    // The number of a thread must be free at the restart.
    jobs: 1,
    ..Suite::new("mempolicy")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const DEFAULT: i32 = 0;
const PREFERRED: i32 = 1;
const BIND: i32 = 2;
const INTERLEAVE: i32 = 3;
const LOCAL: i32 = 4;
const PREFERRED_MANY: i32 = 5;
const STATIC: i32 = 1 << 15;
const RELATIVE: i32 = 1 << 14;
const BY_ADDRESS: i32 = 2;
const NODE_0: u64 = 1;

fn set(area: &Area, pages: std::ops::Range<usize>, mode: i32, nodes: u64) -> Result<()> {
    let addr = area.addr.wrapping_add(pages.start * PAGE);
    let len = pages.len() * PAGE;
    let nodes = [nodes, 0];
    // SAFETY: the area is ours, the mask is valid.
    cvt(unsafe { libc::syscall(libc::SYS_mbind, addr, len, mode, nodes.as_ptr(), 64u64, 0) })?;
    Ok(())
}

fn set_own(mode: i32, nodes: u64) -> Result<()> {
    let nodes = [nodes, 0];
    // SAFETY: the mask is valid.
    cvt(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), 64u64) })?;
    Ok(())
}

/// Mode and nodes, of the memory at an address or, for null, of the task.
fn get(addr: *const u8) -> Result<(i32, u64)> {
    let mut mode = 0;
    let mut nodes = [0u64; 16];
    let flags = if addr.is_null() { 0 } else { BY_ADDRESS };
    // SAFETY: both are valid for writing.
    cvt(unsafe {
        let nodes = nodes.as_mut_ptr();
        libc::syscall(
            libc::SYS_get_mempolicy,
            &mut mode,
            nodes,
            1024u64,
            addr,
            flags,
        )
    })?;
    Ok((mode, nodes[0]))
}

/// What numa_maps says of the mapping at an address.
fn numa_line(addr: *const u8) -> Result<String> {
    let text = fs::read_to_string("/proc/self/numa_maps")?;
    let prefix = format!("{:08x} ", addr as usize);
    let line = text.lines().find(|line| line.starts_with(&prefix));
    let policy = line.context("no such mapping")?.split(' ').nth(1);
    Ok(policy.unwrap_or_default().to_owned())
}

fn mappings(v: &Victim) -> Result<()> {
    let area = Area::anon(16 * PAGE, RW, MAP_PRIVATE)?;
    let shared = Area::anon(4 * PAGE, RW, libc::MAP_SHARED)?;
    let kinds = [
        (PREFERRED, NODE_0),
        (BIND, NODE_0),
        (INTERLEAVE, NODE_0),
        (LOCAL, 0),
        (PREFERRED_MANY, NODE_0),
        (BIND | STATIC, NODE_0),
        (INTERLEAVE | RELATIVE, NODE_0),
    ];
    for (n, (mode, nodes)) in kinds.into_iter().enumerate() {
        set(&area, 2 * n..2 * n + 1, mode, nodes)?;
    }
    // The nodes that were asked for count, also those that the machine lacks.
    set(&area, 15..16, BIND | STATIC, 0b101)?;
    set(&shared, 1..2, BIND, NODE_0)?;
    // SAFETY: the page is ours.
    cvt(unsafe { libc::syscall(450, area.addr.wrapping_add(2 * PAGE), PAGE, 0u64, 0u64) })?;
    fill(area.bytes(), 1);
    let at = |n: usize| area.addr.wrapping_add(n * PAGE);
    let all = || -> Result<Vec<_>> { (0..16).map(|n| get(at(n))).collect() };
    let before = all()?;
    let line = numa_line(at(2))?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    same("policies", before, all()?)?;
    same("policy of page 2", line, numa_line(at(2))?)?;
    same(
        "shared",
        (BIND, NODE_0),
        get(shared.addr.wrapping_add(PAGE))?,
    )?;
    same("shared, default", (DEFAULT, 0), get(shared.addr)?)?;
    same("task", (DEFAULT, 0), get(ptr::null())?)?;
    verify("memory", area.bytes(), 1)
}

fn task(v: &Victim) -> Result<()> {
    set_own(INTERLEAVE | STATIC, NODE_0)?;
    v.stand()?;
    same("task", (INTERLEAVE | STATIC, NODE_0), get(ptr::null())?)?;
    set_own(DEFAULT, 0)?;
    same("task, default again", (DEFAULT, 0), get(ptr::null())?)
}

/// Each thread has its own.
fn threads(v: &Victim) -> Result<()> {
    set_own(BIND, NODE_0)?;
    let numbers = selftests::NumbersThatFollow::choose();
    std::thread::scope(|scope| -> Result<()> {
        let other = scope.spawn(|| -> Result<()> {
            set_own(LOCAL, 0)?;
            v.wait();
            same("other thread", (LOCAL, 0), get(ptr::null())?)
        });
        drop(numbers);
        sys::nap(Duration::from_millis(20));
        v.stand()?;
        same("first thread", (BIND, NODE_0), get(ptr::null())?)?;
        other
            .join()
            .map_err(|_| anyhow::anyhow!("the other thread panicked"))?
    })
}
