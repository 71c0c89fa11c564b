// SPDX-License-Identifier: GPL-2.0

//! Anonymous memory that is shared with children to come.

use libc::{
    MAP_SHARED,
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
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("contents", contents),
        Case::new("holes", holes),
        Case::new("child-shares", child_shares),
        Case::new("read-only", read_only),
        Case::new("partly-unmapped", partly_unmapped),
        Case::new("aliased", aliased),
        Case::new("two-objects", two_objects),
    ],
    ..Suite::new("shared-anon")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const MIB: usize = 1 << 20;

fn contents(v: &Victim) -> Result<()> {
    let area = Area::anon(8 * MIB, RW, MAP_SHARED)?;
    fill(area.bytes(), 1);
    v.stand()?;
    verify("8 MiB", area.bytes(), 1)?;
    fill(area.bytes(), 2);
    verify("8 MiB, written again", area.bytes(), 2)
}

/// KiB of shared memory in use by this process.
fn rss_shared() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("RssShmem:"))
        .context("no RssShmem")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn holes(v: &Victim) -> Result<()> {
    let area = Area::anon(64 * MIB, RW, MAP_SHARED)?;
    let places = [0, 5 * MIB, 5 * MIB + PAGE, 40 * MIB, 64 * MIB - PAGE];
    for at in places {
        fill(&mut area.bytes()[at..at + PAGE], at as u64);
    }
    let before = rss_shared()?;
    v.stand()?;
    for at in places {
        verify(
            &format!("page at {at:#x}"),
            &area.bytes()[at..at + PAGE],
            at as u64,
        )?;
    }
    let now = rss_shared()?;
    ensure!(
        now <= before.max(1024),
        "RssShmem was {before} KiB, is {now} KiB"
    );
    ensure!(
        area.bytes()[20 * MIB..21 * MIB].iter().all(|&b| b == 0),
        "a hole is not zero"
    );
    Ok(())
}

/// A child made after the restart writes, the victim sees it.
fn child_shares(v: &Victim) -> Result<()> {
    let area = Area::anon(MIB, RW, MAP_SHARED)?;
    fill(area.bytes(), 3);
    v.stand()?;
    let status = sys::forked(|| {
        let seen = verify("in the child", area.bytes(), 3).is_ok();
        fill(area.bytes(), 4);
        i32::from(!seen)
    })?;
    same("status of the child", 0, status)?;
    verify("what the child wrote", area.bytes(), 4)
}

fn read_only(v: &Victim) -> Result<()> {
    let area = Area::anon(MIB, RW, MAP_SHARED)?;
    fill(area.bytes(), 5);
    area.protect(0, MIB, PROT_READ)?;
    v.stand()?;
    verify("read-only memory", area.bytes(), 5)?;
    ensure!(!sys::writable(area.addr)?, "it became writable");
    area.protect(0, MIB, RW)?;
    fill(area.bytes(), 6);
    verify("writable again", area.bytes(), 6)
}

/// Only the middle of the object is mapped any more.
fn partly_unmapped(v: &Victim) -> Result<()> {
    let area = Area::anon(30 * PAGE, RW, MAP_SHARED)?;
    fill(area.bytes(), 7);
    let expected = area.bytes()[10 * PAGE..20 * PAGE].to_vec();
    // SAFETY: only the middle is used afterwards.
    unsafe {
        sys::cvt(libc::munmap(area.addr.cast(), 10 * PAGE))?;
        sys::cvt(libc::munmap(area.addr.add(20 * PAGE).cast(), 10 * PAGE))?;
    }
    let middle = Area {
        addr: area.addr.wrapping_add(10 * PAGE),
        len: 10 * PAGE,
    };
    v.stand()?;
    ensure!(*middle.bytes() == *expected, "the middle differs");
    ensure!(
        !sys::readable(area.addr)?,
        "what was unmapped is there again"
    );
    Ok(())
}

/// One object mapped at two places: a write at one is seen at the other.
fn aliased(v: &Victim) -> Result<()> {
    let first = Area::anon(MIB, RW, MAP_SHARED)?;
    fill(first.bytes(), 8);
    // An old length of zero makes a second mapping of a shared object.
    // SAFETY: the kernel chooses the address.
    let addr = unsafe { libc::mremap(first.addr.cast(), 0, MIB, libc::MREMAP_MAYMOVE) };
    ensure!(
        addr != libc::MAP_FAILED,
        "mremap: {}",
        std::io::Error::last_os_error()
    );
    let second = Area {
        addr: addr.cast(),
        len: MIB,
    };
    verify("second place before", second.bytes(), 8)?;
    v.stand()?;
    verify("first place", first.bytes(), 8)?;
    verify("second place", second.bytes(), 8)?;
    fill(first.bytes(), 9);
    verify("second place after a write at the first", second.bytes(), 9)?;
    fill(second.bytes(), 10);
    verify("first place after a write at the second", first.bytes(), 10)
}

/// Two objects side by side do not become one.
fn two_objects(v: &Victim) -> Result<()> {
    let (a, b) = (
        Area::anon(MIB, RW, MAP_SHARED)?,
        Area::anon(MIB, RW, MAP_SHARED)?,
    );
    fill(a.bytes(), 11);
    fill(b.bytes(), 12);
    v.stand()?;
    verify("first object", a.bytes(), 11)?;
    verify("second object", b.bytes(), 12)?;
    fill(a.bytes(), 13);
    verify("second object after a write to the first", b.bytes(), 12)
}
