// SPDX-License-Identifier: GPL-2.0

//! Advice about memory that changes what happens to it.

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
use std::os::fd::AsRawFd;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("states", states),
        Case::new("file", file),
        Case::new("not-for-children", not_for_children),
        Case::new("wiped-for-children", wiped_for_children),
        Case::new("merged", merged),
    ],
    ..Suite::new("madvise")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;

fn advise(area: &Area, advice: i32) -> Result<()> {
    // SAFETY: the area is ours.
    cvt(unsafe { libc::madvise(area.addr.cast(), area.len, advice) })?;
    Ok(())
}

/// Every state by itself, and several at a time.
fn states(v: &Victim) -> Result<()> {
    let kinds: &[&[i32]] = &[
        &[libc::MADV_DONTFORK],
        &[libc::MADV_WIPEONFORK],
        &[libc::MADV_DONTDUMP],
        &[libc::MADV_HUGEPAGE],
        &[libc::MADV_NOHUGEPAGE],
        &[libc::MADV_MERGEABLE],
        &[libc::MADV_SEQUENTIAL],
        &[libc::MADV_RANDOM],
        &[
            libc::MADV_DONTFORK,
            libc::MADV_DONTDUMP,
            libc::MADV_HUGEPAGE,
            libc::MADV_MERGEABLE,
            libc::MADV_RANDOM,
        ],
    ];
    let mut areas = Vec::new();
    for (seed, kinds) in kinds.iter().enumerate() {
        let area = Area::anon(3 * PAGE, RW, MAP_PRIVATE)?;
        for advice in *kinds {
            advise(&area, *advice)?;
        }
        fill(&mut area.bytes()[..2 * PAGE], seed as u64);
        areas.push(area);
    }
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    for (seed, area) in areas.iter().enumerate() {
        verify(
            &format!("area {seed}"),
            &area.bytes()[..2 * PAGE],
            seed as u64,
        )?;
    }
    Ok(())
}

/// The same for a mapping of a file, private and shared.
fn file(v: &Victim) -> Result<()> {
    let path = v.path("advised");
    let mut contents = vec![0; 4 * PAGE];
    fill(&mut contents, 30);
    std::fs::write(&path, &contents)?;
    let file = sys::open(&path, libc::O_RDWR)?;
    let private = Area::map(4 * PAGE, RW, MAP_PRIVATE, file.as_raw_fd(), 0)?;
    let shared = Area::map(4 * PAGE, RW, libc::MAP_SHARED, file.as_raw_fd(), 0)?;
    private.bytes()[0] ^= 1;
    for area in [&private, &shared] {
        advise(area, libc::MADV_DONTFORK)?;
        advise(area, libc::MADV_DONTDUMP)?;
        advise(area, libc::MADV_RANDOM)?;
    }
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    ensure!(private.bytes()[1..] == contents[1..], "private mapping");
    same("private page", contents[0] ^ 1, private.bytes()[0])?;
    ensure!(*shared.bytes() == contents[..], "shared mapping");
    Ok(())
}

fn not_for_children(v: &Victim) -> Result<()> {
    let area = Area::anon(64 * PAGE, RW, MAP_PRIVATE)?;
    advise(&area, libc::MADV_DONTFORK)?;
    fill(area.bytes(), 31);
    v.stand()?;
    verify("memory", area.bytes(), 31)?;
    let status = sys::forked(|| i32::from(sys::readable(area.addr).unwrap_or(true)))?;
    same("status of the child", 0, status)?;
    advise(&area, libc::MADV_DOFORK)?;
    let status = sys::forked(|| i32::from(verify("in the child", area.bytes(), 31).is_err()))?;
    same("status of the next child", 0, status)
}

fn wiped_for_children(v: &Victim) -> Result<()> {
    let area = Area::anon(64 * PAGE, RW, MAP_PRIVATE)?;
    advise(&area, libc::MADV_WIPEONFORK)?;
    fill(area.bytes(), 32);
    v.stand()?;
    verify("memory", area.bytes(), 32)?;
    let status = sys::forked(|| i32::from(area.bytes().iter().any(|&b| b != 0)))?;
    same("status of the child", 0, status)?;
    verify("after the child", area.bytes(), 32)
}

/// Pages that the kernel has merged because they are the same.
fn merged(v: &Victim) -> Result<()> {
    let area = Area::anon(64 * PAGE, RW, MAP_PRIVATE)?;
    area.bytes().fill(0x55);
    advise(&area, libc::MADV_MERGEABLE)?;
    // Not all kernels let us; then they are merged some day, or never.
    let _ = std::fs::write("/sys/kernel/mm/ksm/sleep_millisecs", "1");
    let _ = std::fs::write("/sys/kernel/mm/ksm/run", "1");
    let merged = || {
        let text = std::fs::read_to_string("/proc/self/ksm_stat").unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("ksm_merging_pages "))
            .any(|n| n.trim() != "0")
    };
    let _ = sys::until(Duration::from_millis(500), merged);
    v.stand()?;
    ensure!(area.bytes().iter().all(|&b| b == 0x55), "merged memory");
    for (n, page) in area.bytes().chunks_mut(PAGE).enumerate() {
        page[0] = n as u8;
    }
    for (n, page) in area.bytes().chunks(PAGE).enumerate() {
        same("first byte", n as u8, page[0])?;
        ensure!(page[1..].iter().all(|&b| b == 0x55), "page {n}");
    }
    Ok(())
}
