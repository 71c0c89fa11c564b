// SPDX-License-Identifier: GPL-2.0

//! Huge pages that a program asked for.

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::maps::Maps;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    verify,
    Area, //
};
use selftests::Bench;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("private", private),
        Case::new("shared", shared),
        Case::new("partly-unmapped", partly_unmapped),
    ],
    refusals: &[
        Refusal::new("memfd", memfd, &["hugetlb file"]),
        Refusal::new(
            "read-only",
            read_only,
            &["huge pages that cannot be written"],
        ),
    ],
    customs: &[Custom {
        name: "none-left",
        run: none_left,
    }],
    victims: &[Case::new("one-page", one_page).no_control()],
    // There are huge pages for one test at a time.
    jobs: 1,
    ..Suite::new("hugetlb")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const HUGE: usize = 2 << 20;
const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// How many huge pages the guest is booted with.
const BOOTED: usize = 16;

/// Has the kernel keep so many huge pages.
fn pool(pages: usize) -> Result<()> {
    fs::write(POOL, pages.to_string())?;
    Ok(())
}

fn huge(pages: usize, kind: i32) -> Result<Area> {
    if !Path::new(POOL).exists() {
        return skip("no huge pages in this kernel");
    }
    Area::anon(pages * HUGE, RW, kind | libc::MAP_HUGETLB)
}

/// Of three pages two have been touched; a child that is made later has its own copy.
fn private(v: &Victim) -> Result<()> {
    let area = huge(3, MAP_PRIVATE)?;
    let page = |n: usize| &mut area.bytes()[n * HUGE..(n + 1) * HUGE];
    fill(page(0), 1);
    fill(page(2), 2);
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("page 0", page(0), 1)?;
    verify("page 2", page(2), 2)?;
    ensure!(page(1).iter().all(|&b| b == 0), "page 1 is not zero");
    let status = sys::forked(|| {
        page(0)[5] ^= 1;
        i32::from(page(2)[HUGE - 1] == 0)
    })?;
    same("status of the child", 0, status)?;
    verify("page 0 after the child wrote", page(0), 1)
}

fn shared(v: &Victim) -> Result<()> {
    let area = huge(3, MAP_SHARED)?;
    let page = |n: usize| &mut area.bytes()[n * HUGE..(n + 1) * HUGE];
    fill(page(1), 3);
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("page 1", page(1), 3)?;
    ensure!(page(0).iter().all(|&b| b == 0), "page 0 is not zero");
    let status = sys::forked(|| {
        fill(page(2), 4);
        0
    })?;
    same("status of the child", 0, status)?;
    verify("what the child wrote", page(2), 4)
}

/// The middle of a private mapping is gone.
fn partly_unmapped(v: &Victim) -> Result<()> {
    let area = huge(3, MAP_PRIVATE)?;
    fill(area.bytes(), 5);
    let last = area.bytes()[2 * HUGE..].to_vec();
    // SAFETY: the page is ours and not used any more.
    cvt(unsafe { libc::munmap(area.addr.add(HUGE).cast(), HUGE) })?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("first page", &area.bytes()[..HUGE], 5)?;
    // SAFETY: the last page is mapped.
    let now = unsafe { std::slice::from_raw_parts(area.addr.add(2 * HUGE), HUGE) };
    ensure!(now == &last[..], "last page");
    Ok(())
}

/// Pages of a file that is not one of the kernel's own.
fn memfd(v: &Victim) -> Result<()> {
    if !Path::new(POOL).exists() {
        return skip("no huge pages in this kernel");
    }
    let fd = sys::memfd("huge", libc::MFD_CLOEXEC | libc::MFD_HUGETLB)?;
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::ftruncate(fd.as_raw_fd(), HUGE as i64) })?;
    let area = Area::map(HUGE, RW, MAP_SHARED, fd.as_raw_fd(), 0)?;
    drop(fd);
    fill(area.bytes(), 7);
    v.stand()?;
    verify("page", area.bytes(), 7)
}

/// A private page with contents that nobody may write any more.
fn read_only(v: &Victim) -> Result<()> {
    let area = huge(1, MAP_PRIVATE)?;
    fill(area.bytes(), 8);
    area.protect(0, HUGE, PROT_READ)?;
    v.stand()?;
    area.protect(0, HUGE, RW)?;
    verify("page", area.bytes(), 8)
}

fn one_page(v: &Victim) -> Result<()> {
    let area = huge(1, MAP_PRIVATE)?;
    fill(area.bytes(), 6);
    v.stand()?;
    verify("page", area.bytes(), 6)
}

/// Without huge pages there is no restart, and the message says why.
fn none_left(bench: &Bench<'_>) -> Result<()> {
    let mut life = bench.start("one-page")?;
    let image = bench.path("huge.img");
    life.checkpoint_and_kill(&image)?;
    pool(0)?;
    let restart = bench.rstr().arg("-i").arg(&image).run()?;
    restart.refused("rstr without huge pages", &["huge pages"])?;
    pool(BOOTED)
}
