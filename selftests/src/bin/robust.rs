// SPDX-License-Identifier: GPL-2.0

//! What the kernel does with memory of a task that ends: robust list and clear_child_tid.

use selftests::prelude::*;
use std::process::ExitCode;
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("list", list),
        Case::new("own-list", own_list),
        Case::new("clear-child-tid", clear_child_tid),
        Case::new("own-clear-child-tid", own_clear_child_tid),
    ],
    ..Suite::new("robust")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Head and length of the robust list, as the kernel has them.
fn robust_list() -> Result<(usize, usize)> {
    let (mut head, mut len) = (0usize, 0usize);
    // SAFETY: both are valid for writing.
    sys::cvt(unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &mut head, &mut len) })?;
    Ok((head, len))
}

fn list(v: &Victim) -> Result<()> {
    let before = robust_list()?;
    ensure!(before.0 != 0, "the C library set no robust list");
    v.stand()?;
    same("robust list", before, robust_list()?)
}

fn own_list(v: &Victim) -> Result<()> {
    // An empty list: the head points at itself.
    let mut head: Box<[usize; 3]> = Box::new([0; 3]);
    head[0] = head.as_ptr() as usize;
    // SAFETY: the head stays where it is until the process ends.
    sys::cvt(unsafe { libc::syscall(libc::SYS_set_robust_list, head.as_ptr(), 24) })?;
    v.stand()?;
    same("robust list", (head.as_ptr() as usize, 24), robust_list()?)?;
    std::mem::forget(head);
    Ok(())
}

/// Where the kernel will write a zero when this task ends.
fn tid_address() -> Result<usize> {
    let mut address = 0usize;
    // SAFETY: the address is valid for writing.
    let result = unsafe { libc::prctl(libc::PR_GET_TID_ADDRESS, ptr::from_mut(&mut address)) };
    match sys::cvt(result) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            skip("the kernel does not tell clear_child_tid")
        }
        other => other.map(|_| address).map_err(Into::into),
    }
}

fn clear_child_tid(v: &Victim) -> Result<()> {
    let before = tid_address()?;
    v.stand()?;
    same("clear_child_tid", before, tid_address()?)
}

static WORD: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(5);

fn own_clear_child_tid(v: &Victim) -> Result<()> {
    // SAFETY: the word is static.
    sys::cvt(unsafe { libc::syscall(libc::SYS_set_tid_address, WORD.as_ptr()) })?;
    v.stand()?;
    same("clear_child_tid", WORD.as_ptr() as usize, tid_address()?)?;
    same(
        "the word",
        5,
        WORD.load(std::sync::atomic::Ordering::Relaxed),
    )
}
