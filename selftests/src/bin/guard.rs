// SPDX-License-Identifier: GPL-2.0

//! Guard regions: memory without access and without a mapping of its own.

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
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("anonymous", anonymous),
        Case::new("many", many),
        Case::new("file", file),
        Case::new("locked", locked),
        Case::new("removed", removed),
    ],
    ..Suite::new("guard")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const INSTALL: i32 = 102;
const REMOVE: i32 = 103;

fn advise(area: &Area, pages: Range<usize>, advice: i32) -> Result<()> {
    let (addr, len) = (
        area.addr.wrapping_add(pages.start * PAGE),
        pages.len() * PAGE,
    );
    // SAFETY: the area is ours.
    cvt(unsafe { libc::madvise(addr.cast(), len, advice) })?;
    Ok(())
}

/// Requires that just the pages `guarded` cannot be read.
fn check(area: &Area, guarded: impl Fn(usize) -> bool) -> Result<()> {
    for page in 0..area.pages() {
        let readable = sys::readable(area.addr.wrapping_add(page * PAGE))?;
        same(&format!("page {page} readable"), !guarded(page), readable)?;
    }
    Ok(())
}

fn page(area: &Area, n: usize) -> &'static mut [u8] {
    &mut area.bytes()[n * PAGE..(n + 1) * PAGE]
}

/// At the start, in the middle and at the end; some where a page was, some where none was.
fn anonymous(v: &Victim) -> Result<()> {
    let area = Area::anon(16 * PAGE, RW, MAP_PRIVATE)?;
    let guarded = |page: usize| matches!(page, 0..=1 | 7 | 13..=15);
    fill(&mut area.bytes()[..8 * PAGE], 1);
    for pages in [0..2, 7..8, 13..16] {
        advise(&area, pages, INSTALL)?;
    }
    fill(page(&area, 9), 2);
    let kept = area.bytes()[2 * PAGE..7 * PAGE].to_vec();
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    check(&area, guarded)?;
    ensure!(
        area.bytes()[2 * PAGE..7 * PAGE] == kept[..],
        "between guard regions"
    );
    verify("page 9", page(&area, 9), 2)?;
    // Taken away, the memory is new.
    advise(&area, 0..16, REMOVE)?;
    check(&area, |_| false)?;
    ensure!(page(&area, 7).iter().all(|&b| b == 0), "page 7 is not new");
    advise(&area, 3..4, INSTALL)?;
    check(&area, |page| page == 3)
}

/// More than one page table of them.
fn many(v: &Victim) -> Result<()> {
    let area = Area::anon(1200 * PAGE, RW, MAP_PRIVATE)?;
    for n in (0..area.pages()).step_by(3) {
        fill(page(&area, n), n as u64);
    }
    for n in (1..area.pages()).step_by(3) {
        advise(&area, n..n + 1, INSTALL)?;
    }
    v.stand()?;
    check(&area, |page| page % 3 == 1)?;
    for n in (0..area.pages()).step_by(3) {
        verify(&format!("page {n}"), page(&area, n), n as u64)?;
    }
    Ok(())
}

fn file(v: &Victim) -> Result<()> {
    let path = v.path("guarded");
    let mut contents = vec![0; 8 * PAGE];
    fill(&mut contents, 3);
    std::fs::write(&path, &contents)?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let area = Area::map(8 * PAGE, RW, MAP_PRIVATE, file.as_raw_fd(), 0)?;
    page(&area, 1).fill(4);
    advise(&area, 2..5, INSTALL)?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    check(&area, |page| (2..5).contains(&page))?;
    ensure!(page(&area, 1).iter().all(|&b| b == 4), "page 1");
    ensure!(*page(&area, 6) == contents[6 * PAGE..7 * PAGE], "page 6");
    advise(&area, 2..5, REMOVE)?;
    ensure!(*page(&area, 3) == contents[3 * PAGE..4 * PAGE], "page 3");
    Ok(())
}

/// Locked after it was guarded, which the other way round is not allowed.
fn locked(v: &Victim) -> Result<()> {
    let area = Area::anon(8 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 5);
    let kept = area.bytes()[4 * PAGE..].to_vec();
    advise(&area, 2..4, INSTALL)?;
    // SAFETY: the area is ours. It says ENOMEM, because the guard region cannot be read.
    let _ = unsafe { libc::mlock(area.addr.cast(), area.len) };
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    check(&area, |page| (2..4).contains(&page))?;
    ensure!(
        area.bytes()[4 * PAGE..] == kept[..],
        "behind the guard region"
    );
    Ok(())
}

/// There was one, and nothing is left of it.
fn removed(v: &Victim) -> Result<()> {
    let area = Area::anon(4 * PAGE, RW, MAP_PRIVATE)?;
    advise(&area, 1..2, INSTALL)?;
    advise(&area, 0..4, REMOVE)?;
    fill(area.bytes(), 6);
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    check(&area, |_| false)?;
    verify("memory", area.bytes(), 6)
}
