// SPDX-License-Identifier: GPL-2.0

//! What a program sets by prctl(2), and what membarrier(2) registers.

use selftests::prelude::*;
use selftests::sys::{
    cvt,
    Area, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("time-stamp-counter", time_stamp_counter),
        Case::new("machine-checks", machine_checks),
        Case::new("io-flusher", io_flusher),
        Case::new("huge-pages", |v| huge_pages(v, 0)),
        Case::new("huge-pages-if-advised", |v| {
            huge_pages(v, PR_THP_DISABLE_EXCEPT_ADVISED)
        }),
        Case::new("write-or-execute", write_or_execute),
        Case::new("membarrier", membarrier),
        Case::new("futex-hash", futex_hash),
        Case::new("read-implies-exec", read_implies_exec),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("prctl")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn prctl(option: i32, args: [libc::c_ulong; 3]) -> io::Result<i32> {
    // SAFETY: only options with numbers are used, and those whose pointers the caller vouches for.
    cvt(unsafe { libc::prctl(option, args[0], args[1], args[2], 0) })
}

fn tsc() -> Result<i32> {
    let mut mode = 0;
    prctl(libc::PR_GET_TSC, [&raw mut mode as libc::c_ulong, 0, 0])?;
    Ok(mode)
}

/// A child may not read the counter, its parent may.
fn time_stamp_counter(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        if prctl(
            libc::PR_SET_TSC,
            [libc::PR_TSC_SIGSEGV as libc::c_ulong, 0, 0],
        )
        .is_err()
        {
            return 1;
        }
        v.wait();
        // SAFETY: it is what has to fault.
        unsafe { core::arch::x86_64::_rdtsc() };
        2
    })?;
    drop(numbers);
    v.stand()?;
    same("mode of the parent", libc::PR_TSC_ENABLE, tsc()?)?;
    // SAFETY: it may be read.
    unsafe { core::arch::x86_64::_rdtsc() };
    same(
        "how the child ended",
        Some(libc::SIGSEGV),
        child.wait(Duration::from_secs(20))?.signal(),
    )
}

fn machine_checks(v: &Victim) -> Result<()> {
    let set = libc::PR_MCE_KILL_SET as libc::c_ulong;
    let early = libc::PR_MCE_KILL_EARLY as libc::c_ulong;
    prctl(libc::PR_MCE_KILL, [set, early, 0])?;
    v.stand()?;
    same(
        "policy",
        libc::PR_MCE_KILL_EARLY,
        prctl(libc::PR_MCE_KILL_GET, [0; 3])?,
    )?;
    prctl(libc::PR_MCE_KILL, [0; 3])?;
    same(
        "policy afterwards",
        libc::PR_MCE_KILL_DEFAULT,
        prctl(libc::PR_MCE_KILL_GET, [0; 3])?,
    )
}

fn io_flusher(v: &Victim) -> Result<()> {
    const PR_SET_IO_FLUSHER: i32 = 57;
    const PR_GET_IO_FLUSHER: i32 = 58;
    prctl(PR_SET_IO_FLUSHER, [1, 0, 0])?;
    v.stand()?;
    same("state", 1, prctl(PR_GET_IO_FLUSHER, [0; 3])?)
}

const PR_THP_DISABLE_EXCEPT_ADVISED: libc::c_ulong = 2;

fn huge_pages(v: &Victim, flags: libc::c_ulong) -> Result<()> {
    prctl(libc::PR_SET_THP_DISABLE, [1, flags, 0])?;
    let before = prctl(libc::PR_GET_THP_DISABLE, [0; 3])?;
    ensure!(before != 0, "they are not disabled");
    v.stand()?;
    same("state", before, prctl(libc::PR_GET_THP_DISABLE, [0; 3])?)
}

/// Memory that could be written cannot become executable.
fn write_or_execute(v: &Victim) -> Result<()> {
    const PR_SET_MDWE: i32 = 65;
    const PR_GET_MDWE: i32 = 66;
    const BOTH: libc::c_ulong = 3;
    prctl(PR_SET_MDWE, [BOTH, 0, 0])?;
    let area = Area::anon(
        sys::PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE,
    )?;
    v.stand()?;
    same("state", BOTH as i32, prctl(PR_GET_MDWE, [0; 3])?)?;
    let exec = area.protect(0, sys::PAGE, libc::PROT_READ | libc::PROT_EXEC);
    ensure!(
        sys::fails_with(exec, libc::EACCES),
        "written memory becomes executable"
    );
    Ok(())
}

fn membarrier(v: &Victim) -> Result<()> {
    const QUERY: i32 = 0;
    const REGISTRATIONS: i32 = 1 << 9;
    // Global, private, for all cores, with rseq.
    const REGISTER: [i32; 4] = [1 << 2, 1 << 4, 1 << 6, 1 << 8];
    // SAFETY: no memory is involved.
    let call = |command: i32| cvt(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) });
    if call(QUERY)? & i64::from(REGISTRATIONS) == 0 {
        return skip("this kernel does not tell what is registered");
    }
    for command in REGISTER {
        call(command)?;
    }
    let before = call(REGISTRATIONS)?;
    ensure!(before.count_ones() >= 4, "registered is {before:#x}");
    v.stand()?;
    same("registrations", before, call(REGISTRATIONS)?)?;
    // The barriers themselves: of all processes, private, for all cores, with rseq.
    for command in REGISTER {
        call(command >> 1)?;
    }
    Ok(())
}

fn futex_hash(v: &Victim) -> Result<()> {
    const PR_FUTEX_HASH: i32 = 78;
    const SET_SLOTS: libc::c_ulong = 1;
    const GET_SLOTS: libc::c_ulong = 2;
    if prctl(PR_FUTEX_HASH, [SET_SLOTS, 32, 0]).is_err() {
        return skip("this kernel has no futex hash of a process");
    }
    v.stand()?;
    same("slots", 32, prctl(PR_FUTEX_HASH, [GET_SLOTS, 0, 0])?)
}

/// Mappings of before stay what they are, those of after can be executed.
fn read_implies_exec(v: &Victim) -> Result<()> {
    const READ_IMPLIES_EXEC: libc::c_ulong = 0x0040_0000;
    let executable = |area: &Area| -> Result<bool> {
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let addr = area.addr as usize;
        let line = maps.lines().find(|line| {
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            range.is_some_and(|(from, to)| {
                let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
                (number(from)..number(to)).contains(&addr)
            })
        });
        Ok(line.context("not mapped")?.contains("rwx"))
    };
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let before = Area::anon(sys::PAGE, prot, libc::MAP_PRIVATE)?;
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::personality(READ_IMPLIES_EXEC) })?;
    let after = Area::anon(sys::PAGE, prot, libc::MAP_PRIVATE)?;
    let expected = (executable(&before)?, executable(&after)?);
    same("executable", (false, true), expected)?;
    v.stand()?;
    // SAFETY: no memory is involved.
    let now = cvt(unsafe { libc::personality(0xffff_ffff) })?;
    same("personality", READ_IMPLIES_EXEC as i32, now)?;
    let new = Area::anon(sys::PAGE, prot, libc::MAP_PRIVATE)?;
    let now = (executable(&before)?, executable(&after)?);
    same("executable", expected, now)?;
    ensure!(executable(&new)?, "a new mapping cannot be executed");
    Ok(())
}
