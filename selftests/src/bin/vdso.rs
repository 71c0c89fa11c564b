// SPDX-License-Identifier: GPL-2.0

//! The vdso, and what the kernel told the program at its start.

use selftests::prelude::*;
use selftests::sys::clock;
use std::fs;
use std::mem;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("image", image),
        Case::new("clocks", clocks),
        Case::new("in-use", in_use).settle(300),
        Case::new("getcpu", getcpu),
        Case::new("auxv", auxv),
        Case::new("at-random", at_random),
        Case::new("getrandom", getrandom),
    ],
    ..Suite::new("vdso")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn base() -> usize {
    // SAFETY: no memory is involved.
    (unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) }) as usize
}

/// It is where it was, and it is an ELF image there.
fn image(v: &Victim) -> Result<()> {
    let before = base();
    ensure!(before != 0, "the kernel gave no vdso");
    v.stand()?;
    same("address", before, base())?;
    // SAFETY: it is mapped there, or the victim fails by SIGSEGV.
    let magic = unsafe { std::slice::from_raw_parts(before as *const u8, 4) };
    same("magic", b"\x7fELF", magic)?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let line = maps
        .lines()
        .find(|l| l.ends_with("[vdso]"))
        .context("no [vdso] in maps")?;
    ensure!(
        line.starts_with(&format!("{before:x}-")),
        "auxv says {before:x}, maps {line}"
    );
    ensure!(maps.contains("[vvar"), "no [vvar] in maps");
    Ok(())
}

/// A clock read by the system call, past the vdso.
fn by_syscall(id: libc::clockid_t) -> Result<Duration> {
    let mut now = sys::timespec(Duration::ZERO);
    // SAFETY: `now` is valid for writing.
    sys::cvt(unsafe { libc::syscall(libc::SYS_clock_gettime, id, &mut now) })?;
    Ok(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
}

const CLOCKS: [libc::clockid_t; 6] = [
    libc::CLOCK_REALTIME,
    libc::CLOCK_MONOTONIC,
    libc::CLOCK_BOOTTIME,
    libc::CLOCK_MONOTONIC_RAW,
    libc::CLOCK_MONOTONIC_COARSE,
    libc::CLOCK_TAI,
];

/// The vdso's clocks go on, and agree with those of the kernel.
fn clocks(v: &Victim) -> Result<()> {
    v.stand()?;
    for id in CLOCKS {
        let before = by_syscall(id)?;
        let seen = clock(id)?;
        let after = by_syscall(id)?;
        ensure!(
            (before..=after).contains(&seen),
            "clock {id}: the vdso says {seen:?}, the kernel {before:?} and {after:?}"
        );
        sys::nap(Duration::from_millis(20));
        let later = clock(id)?;
        ensure!(later > seen, "clock {id} stands still at {seen:?}");
        ensure!(
            later - seen < Duration::from_secs(60),
            "clock {id} went from {seen:?} to {later:?}"
        );
    }
    Ok(())
}

/// The checkpoint comes while it is used all the time.
fn in_use(v: &Victim) -> Result<()> {
    v.ready()?;
    let mut last = clock(libc::CLOCK_MONOTONIC)?;
    while !v.told() {
        for _ in 0..100_000 {
            let now = clock(libc::CLOCK_MONOTONIC)?;
            ensure!(
                now >= last,
                "CLOCK_MONOTONIC went back from {last:?} to {now:?}"
            );
            last = now;
        }
    }
    Ok(())
}

fn getcpu(v: &Victim) -> Result<()> {
    v.stand()?;
    // SAFETY: all zeroes is a set, and it is valid for writing.
    let allowed = unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        sys::cvt(libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set))?;
        set
    };
    for _ in 0..1000 {
        // SAFETY: no memory is involved.
        let cpu = sys::cvt(unsafe { libc::sched_getcpu() })?;
        // SAFETY: the number is that of a processor.
        let right = unsafe { libc::CPU_ISSET(cpu as usize, &allowed) };
        ensure!(right, "runs on processor {cpu}");
    }
    Ok(())
}

fn auxv(v: &Victim) -> Result<()> {
    let before = fs::read("/proc/self/auxv")?;
    ensure!(
        before.len() >= 16 * 15,
        "only {} bytes of auxv",
        before.len()
    );
    v.stand()?;
    same("/proc/self/auxv", before, fs::read("/proc/self/auxv")?)
}

/// Stack protectors and pointer guards depend on these bytes.
fn at_random(v: &Victim) -> Result<()> {
    // SAFETY: the kernel points it at 16 bytes on the stack.
    let bytes = || unsafe { *(libc::getauxval(libc::AT_RANDOM) as *const [u8; 16]) };
    let before = bytes();
    v.stand()?;
    same("AT_RANDOM", before, bytes())
}

/// Random numbers still come, and are not those of before.
fn getrandom(v: &Victim) -> Result<()> {
    let draw = || -> Result<[u8; 32]> {
        let mut bytes = [0; 32];
        // SAFETY: the bytes are valid for writing.
        same("getrandom", 32, unsafe {
            libc::getrandom(bytes.as_mut_ptr().cast(), 32, 0)
        })?;
        Ok(bytes)
    };
    let before = draw()?;
    v.stand()?;
    let after = draw()?;
    ensure!(before != after, "the same random bytes twice");
    // A second life of the same image must not draw what the first one drew.
    let path = v.path("drawn");
    let drawn = fs::read(&path).unwrap_or_default();
    ensure!(
        !drawn.chunks(32).any(|c| c == after),
        "another restart drew the same bytes"
    );
    fs::write(path, [drawn, after.to_vec()].concat())?;
    Ok(())
}
