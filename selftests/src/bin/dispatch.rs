// SPDX-License-Identifier: GPL-2.0

//! System calls that user space makes itself: PR_SET_SYSCALL_USER_DISPATCH.

use selftests::prelude::*;
use selftests::sys::cvt;
use std::io;
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    AtomicU8,
    Ordering, //
};

const SUITE: Suite = Suite {
    cases: &[Case::new("selector", selector), Case::new("range", range)],
    ..Suite::new("dispatch")
};

fn main() -> ExitCode {
    SUITE.main()
}

const OFF: libc::c_ulong = 0;
const EXCLUSIVE_ON: libc::c_ulong = 1;
const INCLUSIVE_ON: libc::c_ulong = 2;

const ALLOW: u8 = 0;
const BLOCK: u8 = 1;

static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
static CAUGHT: AtomicI32 = AtomicI32::new(0);

extern "C" fn caught(_: i32) {
    SELECTOR.store(ALLOW, Ordering::SeqCst);
    CAUGHT.fetch_add(1, Ordering::SeqCst);
}

fn set(mode: libc::c_ulong, offset: usize, len: usize, selector: *const u8) -> io::Result<()> {
    const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
    // SAFETY: the selector lives as long as the program.
    cvt(unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, mode, offset, len, selector) }).map(drop)
}

fn begin(mode: libc::c_ulong, offset: usize, len: usize) -> Result<()> {
    // SAFETY: all zeroes is a sigaction, and the handler has the right type.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = caught as *const () as usize;
        cvt(libc::sigaction(libc::SIGSYS, &action, ptr::null_mut()))?;
    }
    match set(mode, offset, len, SELECTOR.as_ptr()) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            skip("this kernel has no such dispatch")
        }
        other => Ok(other?),
    }
}

/// A call that the dispatch catches instead of the kernel.
fn blocked() -> i32 {
    CAUGHT.store(0, Ordering::SeqCst);
    SELECTOR.store(BLOCK, Ordering::SeqCst);
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_getppid) };
    SELECTOR.store(ALLOW, Ordering::SeqCst);
    CAUGHT.load(Ordering::SeqCst)
}

fn selector(v: &Victim) -> Result<()> {
    begin(EXCLUSIVE_ON, 0, 0)?;
    same("calls that are caught", 1, blocked())?;
    v.stand()?;
    same("calls that are caught", 1, blocked())?;
    set(OFF, 0, 0, ptr::null())?;
    same("calls that are caught afterwards", 0, blocked())
}

/// Only calls of a range of code that has none.
fn range(v: &Victim) -> Result<()> {
    begin(INCLUSIVE_ON, 0x1000, 0x1000)?;
    same("calls that are caught", 0, blocked())?;
    v.stand()?;
    same("calls that are caught", 0, blocked())?;
    set(OFF, 0, 0, ptr::null())?;
    Ok(())
}
