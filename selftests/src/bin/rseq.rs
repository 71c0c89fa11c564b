// SPDX-License-Identifier: GPL-2.0

//! Restartable sequences.

use selftests::prelude::*;
use std::arch::asm;
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicBool,
    Ordering, //
};

const SUITE: Suite = Suite {
    cases: &[
        Case::new("registration", registration),
        Case::new("processor-number", processor_number),
        Case::new("critical-section", critical_section)
            .settle(100)
            .wake(libc::SIGUSR1),
        Case::new("commits", commits).settle(100),
        Case::new("second-version", second_version),
    ],
    ..Suite::new("rseq")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// What the C library registers with.
const SIGNATURE: u32 = 0x5305_3053;

/// struct rseq, as far as it is needed.
#[repr(C)]
struct Rseq {
    cpu_id_start: u32,
    cpu_id: u32,
    critical: u64,
}

extern "C" {
    static __rseq_offset: isize;
    static __rseq_size: u32;
}

/// The area of this thread and the length it is registered with.
fn area() -> Result<(*mut Rseq, u32)> {
    let thread: *mut u8;
    // SAFETY: the first word behind fs is its own address.
    unsafe { asm!("mov {}, fs:[0]", out(reg) thread, options(readonly, nostack)) };
    // SAFETY: the C library sets both before main.
    let (offset, size) = unsafe { (__rseq_offset, __rseq_size) };
    if size == 0 {
        return skip("the C library registered no rseq area");
    }
    // The library tells the size in use; the registration is never shorter than the first version.
    Ok((thread.wrapping_offset(offset).cast(), size.max(32)))
}

fn register(area: *mut Rseq, len: u32, signature: u32) -> std::io::Result<i64> {
    // SAFETY: the area belongs to this thread and is registered already, so nothing changes.
    sys::cvt(unsafe { libc::syscall(libc::SYS_rseq, area, len, 0, signature) })
}

/// The kernel knows the same area under the same signature.
fn registration(v: &Victim) -> Result<()> {
    let (area, len) = area()?;
    let check = || {
        ensure!(
            sys::fails_with(register(area, len, SIGNATURE), libc::EBUSY),
            "the area is no longer registered"
        );
        ensure!(
            sys::fails_with(register(area, len, SIGNATURE + 1), libc::EPERM),
            "it is registered under another signature"
        );
        ensure!(
            sys::fails_with(register(area.wrapping_add(2), len, SIGNATURE), libc::EINVAL),
            "another area is registered"
        );
        Ok(())
    };
    check().context("before")?;
    v.stand()?;
    check()
}

/// The kernel writes the number of the processor there, at each change.
fn processor_number(v: &Victim) -> Result<()> {
    let (area, _) = area()?;
    v.stand()?;
    // SAFETY: all zeroes is a set, and all of them are valid.
    unsafe {
        let mut allowed: libc::cpu_set_t = mem::zeroed();
        sys::cvt(libc::sched_getaffinity(
            0,
            mem::size_of_val(&allowed),
            &mut allowed,
        ))?;
        for _ in 0..3 {
            for cpu in (0..libc::CPU_SETSIZE as usize).filter(|&c| libc::CPU_ISSET(c, &allowed)) {
                let mut one: libc::cpu_set_t = mem::zeroed();
                libc::CPU_SET(cpu, &mut one);
                sys::cvt(libc::sched_setaffinity(0, mem::size_of_val(&one), &one))?;
                let seen = ptr::read_volatile(&(*area).cpu_id);
                same("cpu_id", cpu as u32, seen)?;
                let seen = ptr::read_volatile(&(*area).cpu_id_start);
                same("cpu_id_start", cpu as u32, seen)?;
            }
        }
    }
    Ok(())
}

/// struct rseq_cs.
#[repr(C, align(32))]
struct Critical {
    version: u32,
    flags: u32,
    start: u64,
    len: u64,
    abort: u64,
}

/// Enters a critical section that goes round `rounds` times. Returns whether it came to its end.
fn enter(area: *mut Rseq, critical: &mut Critical, rounds: u64) -> bool {
    let done: u64;
    // SAFETY: the section writes no memory; the abort handler is preceded by the signature.
    unsafe {
        asm!(
            "lea {tmp}, [rip + 2f]",
            "mov [{critical} + 8], {tmp}",
            "lea {tmp}, [rip + 5f]",
            "mov [{critical} + 24], {tmp}",
            "lea {tmp}, [rip + 4f]",
            "sub {tmp}, [{critical} + 8]",
            "mov [{critical} + 16], {tmp}",
            "mov [{area} + 8], {critical}",
            "2:",
            "3:",
            "dec {rounds}",
            "jnz 3b",
            "4:",
            "mov {done:e}, 1",
            "jmp 6f",
            // The signature as operand of an instruction that is never run.
            ".byte 0x0f, 0xb9, 0x3d",
            ".long 0x53053053",
            "5:",
            "xor {done:e}, {done:e}",
            "6:",
            "mov qword ptr [{area} + 8], 0",
            tmp = out(reg) _,
            critical = in(reg) critical,
            area = in(reg) area,
            rounds = inout(reg) rounds => _,
            done = out(reg) done,
            options(nostack),
        );
    }
    done == 1
}

fn unset() -> Critical {
    Critical {
        version: 0,
        flags: 0,
        start: 0,
        len: 0,
        abort: 0,
    }
}

static WOKEN: AtomicBool = AtomicBool::new(false);

extern "C" fn woken(_: i32) {
    WOKEN.store(true, Ordering::Relaxed);
}

/// The checkpoint comes inside of a critical section without an end, which only an abort leaves.
fn critical_section(v: &Victim) -> Result<()> {
    let (area, _) = area()?;
    sys::handle(libc::SIGUSR1, woken, 0)?;
    let mut critical = unset();
    v.ready()?;
    while !WOKEN.load(Ordering::Relaxed) {
        ensure!(
            !enter(area, &mut critical, u64::MAX),
            "2^64 rounds cannot be over"
        );
    }
    v.woke()
}

/// Sections that are not interrupted come to their end.
fn commits(v: &Victim) -> Result<()> {
    let (area, _) = area()?;
    let mut critical = unset();
    v.ready()?;
    let (mut before, mut after) = (0, 0);
    while !v.told() {
        before += u32::from(enter(area, &mut critical, 100_000));
    }
    for _ in 0..100 {
        after += u32::from(enter(area, &mut critical, 1000));
    }
    ensure!(before > 0, "no section came to its end before it was told");
    ensure!(
        after > 50,
        "only {after} of 100 short sections came to their end"
    );
    Ok(())
}

/// An area of the second version, which is longer, and whose fields the kernel checks whenever it
/// updates them.
fn second_version(v: &Victim) -> Result<()> {
    const AT_RSEQ_FEATURE_SIZE: u64 = 27;
    const AT_RSEQ_ALIGN: u64 = 28;
    const FIRST_VERSION: usize = 32;
    const UNREGISTER: i32 = 1;

    #[repr(C, align(256))]
    struct Longer([u8; 256]);

    // SAFETY: these only look up numbers.
    let (size, align) = unsafe {
        (
            libc::getauxval(AT_RSEQ_FEATURE_SIZE) as usize,
            libc::getauxval(AT_RSEQ_ALIGN) as usize,
        )
    };
    if size <= FIRST_VERSION {
        return skip("the kernel has the first version only");
    }
    ensure!(
        size <= 256 && align <= 256,
        "{size} bytes, aligned to {align}"
    );
    let (first, len) = area()?;
    let longer = Box::leak(Box::new(Longer([0; 256])));
    let longer: *mut Rseq = ptr::from_mut(longer).cast();
    // SAFETY: the area of the library is that of this thread, and nothing here uses it afterwards;
    // the new one is never freed.
    unsafe {
        sys::cvt(libc::syscall(
            libc::SYS_rseq,
            first,
            len,
            UNREGISTER,
            SIGNATURE,
        ))?;
        sys::cvt(libc::syscall(
            libc::SYS_rseq,
            longer,
            size as u32,
            0,
            SIGNATURE,
        ))?;
    }
    let check = || {
        // Long enough for some interrupts, at which the kernel looks at the area.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(100) {
            // SAFETY: the area is valid.
            let cpu = unsafe { ptr::read_volatile(&(*longer).cpu_id) };
            ensure!(cpu < libc::CPU_SETSIZE as u32, "cpu_id is {cpu:#x}");
        }
        Ok(())
    };
    check().context("before")?;
    v.stand()?;
    check()
}
