// SPDX-License-Identifier: GPL-2.0

//! Mappings of files, private and shared.

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    O_RDONLY,
    O_RDWR,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    fill,
    open,
    verify,
    Area,
    PAGE, //
};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("private-read-only", private_read_only),
        Case::new("private-changed", private_changed),
        Case::new("private-then-read-only", private_then_read_only),
        Case::new("private-tail", private_tail),
        Case::new("offset", offset),
        Case::new("executable", executable),
        Case::new("shared", shared).writes_in_place(),
        Case::new("shared-read-only", shared_read_only).writes_in_place(),
        Case::new("shared-twice", shared_twice).writes_in_place(),
        Case::new("shared-upgradable", shared_upgradable).writes_in_place(),
        Case::new("own-program", own_program),
    ],
    ..Suite::new("file-mapping")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const PAGES: usize = 300;

/// Maps a file of `PAGES` pages of pattern `seed`; the descriptor is closed again.
fn mapped(path: &Path, seed: u64, how: libc::c_int, prot: i32, flags: i32) -> Result<Area> {
    file(path, seed)?;
    map(path, how, prot, flags)
}

fn file(path: &Path, seed: u64) -> Result<()> {
    let mut bytes = vec![0; PAGES * PAGE];
    fill(&mut bytes, seed);
    Ok(fs::write(path, bytes)?)
}

fn map(path: &Path, how: libc::c_int, prot: i32, flags: i32) -> Result<Area> {
    let fd = open(path, how)?;
    Area::map(PAGES * PAGE, prot, flags, fd.as_raw_fd(), 0)
}

fn page(area: &Area, at: usize) -> &'static mut [u8] {
    &mut area.bytes()[at * PAGE..][..PAGE]
}

fn private_read_only(v: &Victim) -> Result<()> {
    let area = mapped(&v.path("data"), 1, O_RDONLY, PROT_READ, MAP_PRIVATE)?;
    v.stand()?;
    verify("mapping", area.bytes(), 1)?;
    ensure!(!sys::writable(area.addr)?, "the mapping became writable");
    Ok(())
}

/// Pages that were written are the victim's own, the others are the file's, and the file is as it
/// was.
fn private_changed(v: &Victim) -> Result<()> {
    let path = v.path("data");
    let area = mapped(&path, 2, O_RDONLY, RW, MAP_PRIVATE)?;
    let mine = |at: usize| at % 7 == 3 || (100..130).contains(&at);
    for at in (0..PAGES).filter(|&at| mine(at)) {
        fill(page(&area, at), 1000 + at as u64);
    }
    v.stand()?;
    let file = fs::read(&path)?;
    verify("file", &file, 2)?;
    for at in 0..PAGES {
        if mine(at) {
            verify(
                &format!("changed page {at}"),
                page(&area, at),
                1000 + at as u64,
            )?;
        } else {
            same(
                &format!("page {at}"),
                &file[at * PAGE..][..PAGE],
                page(&area, at),
            )?;
        }
    }
    fill(page(&area, 50), 3000);
    verify("file after a write to the mapping", &fs::read(&path)?, 2)
}

/// As relocated data of a program: written once, then protected.
fn private_then_read_only(v: &Victim) -> Result<()> {
    let area = mapped(&v.path("data"), 3, O_RDONLY, RW, MAP_PRIVATE)?;
    for at in 10..20 {
        fill(page(&area, at), at as u64);
    }
    area.protect(0, 40 * PAGE, PROT_READ)?;
    v.stand()?;
    for at in 10..20 {
        verify(&format!("relocated page {at}"), page(&area, at), at as u64)?;
    }
    ensure!(
        !sys::writable(page(&area, 15).as_mut_ptr())?,
        "page 15 became writable"
    );
    ensure!(
        sys::writable(page(&area, 45).as_mut_ptr())?,
        "page 45 became read-only"
    );
    Ok(())
}

/// What follows the end of the file in its last page belongs to the mapping.
fn private_tail(v: &Victim) -> Result<()> {
    let path = v.path("data");
    fs::write(&path, [7; PAGE + 100])?;
    let fd = open(&path, O_RDONLY)?;
    let area = Area::map(2 * PAGE, RW, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
    drop(fd);
    area.bytes()[PAGE + 200..PAGE + 300].fill(8);
    v.stand()?;
    let bytes = area.bytes();
    ensure!(
        bytes[..PAGE + 100].iter().all(|&b| b == 7),
        "the file's part changed"
    );
    ensure!(
        bytes[PAGE + 100..PAGE + 200].iter().all(|&b| b == 0),
        "zeroes behind it changed"
    );
    ensure!(
        bytes[PAGE + 200..PAGE + 300].iter().all(|&b| b == 8),
        "the tail is lost"
    );
    same(
        "size of the file",
        (PAGE + 100) as u64,
        fs::metadata(&path)?.len(),
    )
}

fn offset(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 4)?;
    let fd = open(&path, O_RDONLY)?;
    let parts = [(250, 50), (0, 10), (17, 1)];
    let areas = parts.map(|(at, n)| {
        Area::map(
            n * PAGE,
            PROT_READ,
            MAP_PRIVATE,
            fd.as_raw_fd(),
            (at * PAGE) as i64,
        )
    });
    v.stand()?;
    let file = fs::read(&path)?;
    for ((at, n), area) in parts.into_iter().zip(areas) {
        let what = format!("{n} pages from page {at}");
        ensure!(
            file[at * PAGE..][..n * PAGE] == *area?.bytes(),
            "{what} differ"
        );
    }
    Ok(())
}

/// Code in a file, as that of a library.
fn executable(v: &Victim) -> Result<()> {
    let path = v.path("code");
    // lea eax, [rdi + rdi + 1]; ret
    fs::write(&path, [0x8d, 0x44, 0x3f, 0x01, 0xc3])?;
    let fd = open(&path, O_RDONLY)?;
    let area = Area::map(PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
    drop(fd);
    // SAFETY: the bytes of the file are a function of this type.
    let function: extern "C" fn(u32) -> u32 = unsafe { std::mem::transmute(area.addr) };
    v.stand()?;
    same("result", 15, function(7))
}

/// Writes before and after reach the file.
fn shared(v: &Victim) -> Result<()> {
    let path = v.path("data");
    let area = mapped(&path, 5, O_RDWR, RW, MAP_SHARED)?;
    fill(page(&area, 3), 31);
    v.stand()?;
    verify("page written before", page(&area, 3), 31)?;
    fill(page(&area, 200), 32);
    let file = fs::read(&path)?;
    verify(
        "page of the file written before",
        &file[3 * PAGE..][..PAGE],
        31,
    )?;
    verify(
        "page of the file written after",
        &file[200 * PAGE..][..PAGE],
        32,
    )?;
    verify("first pages of the file", &file[..3 * PAGE], 5)
}

/// What others write is seen.
fn shared_read_only(v: &Victim) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let path = v.path("data");
    let area = mapped(&path, 6, O_RDONLY, PROT_READ, MAP_SHARED)?;
    v.stand()?;
    let mut new = [0; PAGE];
    fill(&mut new, 61);
    fs::OpenOptions::new()
        .write(true)
        .open(&path)?
        .write_all_at(&new, 99 * PAGE as u64)?;
    verify("page written through the file", page(&area, 99), 61)?;
    ensure!(!sys::writable(area.addr)?, "the mapping became writable");
    Ok(())
}

/// Two mappings of one file, one of them through another descriptor.
fn shared_twice(v: &Victim) -> Result<()> {
    let path = v.path("data");
    let first = mapped(&path, 7, O_RDWR, RW, MAP_SHARED)?;
    let second = map(&path, O_RDWR, RW, MAP_SHARED)?;
    v.stand()?;
    fill(page(&first, 12), 71);
    verify("page seen by the other mapping", page(&second, 12), 71)?;
    fill(page(&second, 13), 72);
    verify("page seen by the first mapping", page(&first, 13), 72)
}

/// Mapped for reading from a descriptor that may write: mprotect may add writing later.
fn shared_upgradable(v: &Victim) -> Result<()> {
    let path = v.path("data");
    let writable = mapped(&path, 8, O_RDWR, PROT_READ, MAP_SHARED)?;
    let fixed = map(&path, O_RDONLY, PROT_READ, MAP_SHARED)?;
    v.stand()?;
    let refused = fixed.protect(0, PAGE, RW);
    ensure!(
        sys::fails_with(refused, libc::EACCES),
        "a read-only mapping can be made writable"
    );
    writable
        .protect(0, PAGE, RW)
        .context("make the mapping writable")?;
    fill(page(&writable, 0), 81);
    verify("file", &fs::read(&path)?[..PAGE], 81)
}

/// The program itself: text still the file's, data its own.
fn own_program(v: &Victim) -> Result<()> {
    use std::sync::atomic::{
        AtomicU64,
        Ordering, //
    };
    static DATA: AtomicU64 = AtomicU64::new(0x1111);
    static BSS: AtomicU64 = AtomicU64::new(0);
    DATA.store(0x2222, Ordering::Relaxed);
    BSS.store(0x3333, Ordering::Relaxed);
    let mapped = || -> Result<Vec<String>> {
        let exe = fs::read_link("/proc/self/exe")?.display().to_string();
        let maps = fs::read_to_string("/proc/self/maps")?;
        Ok(maps
            .lines()
            .filter(|l| l.ends_with(&exe))
            .map(str::to_owned)
            .collect())
    };
    let before = mapped()?;
    ensure!(before.len() >= 2, "only {before:?}");
    v.stand()?;
    same("data", 0x2222, DATA.load(Ordering::Relaxed))?;
    same("zeroed data", 0x3333, BSS.load(Ordering::Relaxed))?;
    same("mappings of the program", before, mapped()?)
}
