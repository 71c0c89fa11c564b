// SPDX-License-Identifier: GPL-2.0

//! Memory protection keys: which are in use, on which memory, and what the task may do with them.

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
    fill,
    verify,
    Area,
    PAGE, //
};
use std::arch::asm;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("keys", keys),
        Case::new("execute-only", execute_only),
    ],
    ..Suite::new("pkeys")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const DISABLE_ACCESS: u32 = 1;
const DISABLE_WRITE: u32 = 2;

/// Takes a key, or skips the test on a processor that has none.
fn alloc(rights: u32) -> Result<i32> {
    // SAFETY: no memory is involved.
    match cvt(unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, rights) }) {
        Ok(key) => Ok(key as i32),
        Err(_) => skip("the processor has no protection keys"),
    }
}

fn free(key: i32) -> std::io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::syscall(libc::SYS_pkey_free, key) }).map(drop)
}

fn protect(area: &Area, page: usize, key: i32) -> Result<()> {
    let addr = area.addr.wrapping_add(page * PAGE);
    // SAFETY: the area is ours.
    cvt(unsafe { libc::syscall(libc::SYS_pkey_mprotect, addr, PAGE, RW, key) })?;
    Ok(())
}

/// Rights of this thread, two bits for each key.
fn rights() -> u32 {
    let rights: u32;
    // SAFETY: the processor has protection keys, which all callers know.
    unsafe { asm!("rdpkru", in("ecx") 0, out("eax") rights, out("edx") _) };
    rights
}

fn set_rights(rights: u32) {
    // SAFETY: as above; the callers take no right to memory that is in use.
    unsafe { asm!("wrpkru", in("eax") rights, in("ecx") 0, in("edx") 0) };
}

/// Signal that a child dies from when it does `what`, 0 for none.
fn dies(what: impl Fn()) -> Result<i32> {
    let status = sys::forked(|| {
        // SAFETY: the default action ends the child.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        what();
        0
    })?;
    Ok(libc::WTERMSIG(status))
}

/// Reads a byte.
///
/// # Safety
///
/// It is mapped, or the caller wants the fault.
unsafe fn touch(addr: *const u8) {
    // SAFETY: by the safety requirement.
    std::hint::black_box(unsafe { addr.read_volatile() });
}

fn keys(v: &Victim) -> Result<()> {
    let closed = alloc(DISABLE_ACCESS)?;
    let read_only = alloc(DISABLE_WRITE)?;
    let unused = alloc(0)?;
    let freed = alloc(0)?;
    let area = Area::anon(4 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    protect(&area, 1, closed)?;
    protect(&area, 2, read_only)?;
    free(freed)?;
    let before = rights();
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    same("rights", before, rights())?;
    let at = |page: usize| area.addr.wrapping_add(page * PAGE);
    // SAFETY: the memory is mapped; what may not be done is meant to fail, in a child.
    unsafe {
        let read = |page: usize| dies(|| touch(at(page)));
        let write = |page: usize| dies(|| at(page).write_volatile(0));
        same("reading page 0", 0, read(0)?)?;
        same("reading page 1", libc::SIGSEGV, read(1)?)?;
        same("reading page 2", 0, read(2)?)?;
        same("writing page 2", libc::SIGSEGV, write(2)?)?;
        same("writing page 3", 0, write(3)?)?;
    }
    same("the next key", freed, alloc(0)?)?;
    free(unused)?;
    same("the key after that", unused, alloc(0)?)?;
    set_rights(0);
    verify("memory, opened", area.bytes(), 1)
}

/// Memory that can only be executed has a key that the kernel takes.
fn execute_only(v: &Victim) -> Result<()> {
    free(alloc(0)?)?;
    let area = Area::anon(PAGE, RW, MAP_PRIVATE)?;
    // lea eax, [rdi + rdi + 1]; ret
    area.bytes()[..5].copy_from_slice(&[0x8d, 0x44, 0x3f, 0x01, 0xc3]);
    area.protect(0, PAGE, PROT_EXEC)?;
    // SAFETY: the bytes above are a function of this type.
    let function: extern "C" fn(u32) -> u32 = unsafe { std::mem::transmute(area.addr) };
    same("result before", 43, function(21))?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    same("result after", 43, function(21))?;
    // SAFETY: the read is meant to fail, in a child.
    let read = || unsafe { touch(area.addr) };
    same("reading it", libc::SIGSEGV, dies(read)?)?;
    let second = Area::anon(PAGE, RW, MAP_PRIVATE)?;
    second.protect(0, PAGE, PROT_EXEC)?;
    // SAFETY: as above.
    let read = || unsafe { touch(second.addr) };
    same("reading new memory of the kind", libc::SIGSEGV, dies(read)?)
}
