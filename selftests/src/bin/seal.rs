// SPDX-License-Identifier: GPL-2.0

//! Sealed mappings: mseal(2).

use libc::{
    MAP_PRIVATE,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::maps::Maps;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fails_with,
    fill,
    verify,
    Area,
    PAGE, //
};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[Case::new("anonymous", anonymous), Case::new("file", file)],
    ..Suite::new("seal")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;

fn seal(area: &Area, at: usize, pages: usize) -> Result<()> {
    let addr = area.addr.wrapping_add(at * PAGE);
    // SAFETY: the area is ours.
    cvt(unsafe { libc::syscall(libc::SYS_mseal, addr, pages * PAGE, 0) })?;
    Ok(())
}

/// Requires that nothing can be changed about page `n`.
fn is_sealed(area: &Area, n: usize) -> Result<()> {
    let at = n * PAGE;
    let addr = area.addr.wrapping_add(at);
    ensure!(
        fails_with(area.protect(at, PAGE, PROT_READ | PROT_EXEC), libc::EPERM),
        "a sealed page can be protected"
    );
    // SAFETY: the area is ours, and is not used again if this should succeed.
    let unmapped = cvt(unsafe { libc::munmap(addr.cast(), PAGE) });
    ensure!(
        fails_with(unmapped, libc::EPERM),
        "a sealed page can be unmapped"
    );
    Ok(())
}

/// Sealed in the middle, writable and read-only.
fn anonymous(v: &Victim) -> Result<()> {
    let area = Area::anon(8 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    area.protect(4 * PAGE, PAGE, PROT_READ)?;
    seal(&area, 2, 3)?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("sealed memory", area.bytes(), 1)?;
    is_sealed(&area, 3)?;
    is_sealed(&area, 4)?;
    area.protect(5 * PAGE, PAGE, PROT_READ)?;
    fill(&mut area.bytes()[2 * PAGE..3 * PAGE], 2);
    verify("written again", &area.bytes()[2 * PAGE..3 * PAGE], 2)
}

fn file(v: &Victim) -> Result<()> {
    let path = v.path("sealed");
    let mut contents = vec![0; 4 * PAGE];
    fill(&mut contents, 3);
    std::fs::write(&path, &contents)?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let area = Area::map(4 * PAGE, RW, MAP_PRIVATE, file.as_raw_fd(), 0)?;
    area.bytes()[PAGE] ^= 1;
    seal(&area, 1, 2)?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    is_sealed(&area, 1)?;
    area.bytes()[PAGE] ^= 1;
    ensure!(*area.bytes() == contents[..], "contents");
    Ok(())
}
