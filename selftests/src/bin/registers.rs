// SPDX-License-Identifier: GPL-2.0

//! General registers, flags and segment bases.

use selftests::prelude::*;
use std::arch::global_asm;
use std::cell::Cell;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("general", general).settle(300),
        Case::new("flags", flags).settle(300),
        Case::new("syscall", across_a_syscall),
        Case::new("fs-base", fs_base),
        Case::new("gs-base", gs_base),
    ],
    ..Suite::new("registers")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Long enough that nearly all time is spent between loading and storing.
const ROUNDS: u64 = 1 << 24;

const NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

extern "C" {
    /// Loads all registers but rsp from `registers_want`, counts `rounds` down in memory, and
    /// stores all to `registers_seen`.
    fn registers_spin(rounds: u64);
    /// Loads all registers but rax, rcx, rsp and r11, which belong to the system call, sleeps for
    /// 20 ms in nanosleep(2), and stores them.
    fn registers_sleep();
    /// Loads the flags, goes round in an instruction that changes none, returns the flags.
    fn registers_flags(flags: u64, rounds: u64) -> u64;
    static mut registers_want: [u64; 16];
    static mut registers_seen: [u64; 16];
}

global_asm!(
    ".pushsection .bss",
    ".balign 8",
    "registers_rounds: .skip 8",
    ".globl registers_want",
    "registers_want:",
    ".irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15",
    "registers_want_\\reg: .skip 8",
    ".endr",
    ".globl registers_seen",
    "registers_seen:",
    ".irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15",
    "registers_seen_\\reg: .skip 8",
    ".endr",
    ".popsection",
    ".pushsection .rodata",
    ".balign 8",
    "registers_20ms: .quad 0, 20000000",
    ".popsection",
    ".macro registers_load",
    ".irp reg, rbx, rbp, r12, r13, r14, r15",
    "push \\reg",
    ".endr",
    "mov [rip + registers_want_rsp], rsp",
    ".irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15",
    "mov \\reg, [rip + registers_want_\\reg]",
    ".endr",
    ".endm",
    ".macro registers_store",
    ".irp reg, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15",
    "mov [rip + registers_seen_\\reg], \\reg",
    ".endr",
    "mov rsp, [rip + registers_want_rsp]",
    ".irp reg, r15, r14, r13, r12, rbp, rbx",
    "pop \\reg",
    ".endr",
    "ret",
    ".endm",
    ".globl registers_spin",
    "registers_spin:",
    "mov [rip + registers_rounds], rdi",
    "registers_load",
    "2: dec qword ptr [rip + registers_rounds]",
    "jnz 2b",
    "registers_store",
    ".globl registers_sleep",
    "registers_sleep:",
    "registers_load",
    "mov eax, 35",
    "lea rdi, [rip + registers_20ms]",
    "xor esi, esi",
    "syscall",
    "registers_store",
    ".globl registers_flags",
    "registers_flags:",
    "mov rcx, rsi",
    "push rdi",
    "popfq",
    "2: loop 2b",
    "pushfq",
    "cld",
    "pop rax",
    "ret",
);

fn patterns() -> [u64; 16] {
    std::array::from_fn(|i| 0x0123_4567_89ab_cdef_u64.rotate_left(4 * i as u32) ^ (0x11 * i as u64))
}

/// Compares what was stored with what was loaded, except for the registers of `skipped`.
fn compare(skipped: &[&str]) -> Result<()> {
    // SAFETY: the victim has one thread, and the assembler is not running.
    let (want, seen) = unsafe { (registers_want, registers_seen) };
    for (i, name) in NAMES.iter().enumerate() {
        if !skipped.contains(name) {
            ensure!(
                want[i] == seen[i],
                "{name}: expected {:#x}, is {:#x}",
                want[i],
                seen[i]
            );
        }
    }
    Ok(())
}

fn general(v: &Victim) -> Result<()> {
    // SAFETY: as in `compare`.
    unsafe { registers_want = patterns() };
    v.ready()?;
    while !v.told() {
        // SAFETY: it saves what the calling convention asks for.
        unsafe { registers_spin(ROUNDS) };
        compare(&[])?;
    }
    Ok(())
}

fn across_a_syscall(v: &Victim) -> Result<()> {
    // SAFETY: as in `compare`.
    unsafe { registers_want = patterns() };
    v.ready()?;
    while !v.told() {
        // SAFETY: it saves what the calling convention asks for.
        unsafe { registers_sleep() };
        // rcx and r11 are the price of the instruction, rdi and rsi were the arguments.
        compare(&["rax", "rcx", "r11", "rdi", "rsi"])?;
        // SAFETY: as in `compare`.
        let (result, rsi) = unsafe { (registers_seen[0], registers_seen[4]) };
        ensure!(result == 0, "nanosleep returned {}", result as i64);
        ensure!(rsi == 0, "the second argument of nanosleep became {rsi:#x}");
    }
    Ok(())
}

fn flags(v: &Victim) -> Result<()> {
    // Carry, parity, adjust, zero, sign, direction, overflow, id.
    const ALL: u64 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 21;
    const SOME: u64 = 1 << 2 | 1 << 10 | 1 << 21;
    v.ready()?;
    while !v.told() {
        for want in [ALL, SOME, ALL & !SOME] {
            // SAFETY: only flags that user mode may set; direction is cleared again.
            let seen = unsafe { registers_flags(want, ROUNDS) } & ALL;
            ensure!(seen == want, "flags: expected {want:#x}, are {seen:#x}");
        }
    }
    Ok(())
}

const ARCH_SET_GS: i32 = 0x1001;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;

fn base(which: i32) -> Result<u64> {
    let mut base = 0u64;
    // SAFETY: `base` is valid for writing.
    sys::cvt(unsafe { libc::syscall(libc::SYS_arch_prctl, which, &mut base) })?;
    Ok(base)
}

fn fs_base(v: &Victim) -> Result<()> {
    thread_local!(static LOCAL: Cell<u64> = const { Cell::new(0) });
    LOCAL.set(0xfeed_f00d);
    let before = base(ARCH_GET_FS)?;
    v.stand()?;
    same("fs base", before, base(ARCH_GET_FS)?)?;
    same("thread-local variable", 0xfeed_f00d, LOCAL.get())
}

fn gs_base(v: &Victim) -> Result<()> {
    let words: Box<[u64; 4]> = Box::new([1, 2, 0xabad_cafe, 4]);
    let address = words.as_ptr() as u64;
    // SAFETY: user mode of x86-64 does not use gs.
    sys::cvt(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, address) })?;
    v.stand()?;
    same("gs base", address, base(ARCH_GET_GS)?)?;
    let seen: u64;
    // SAFETY: gs points at `words`.
    unsafe { std::arch::asm!("mov {}, gs:[16]", out(reg) seen, options(readonly, nostack)) };
    same("word behind gs", words[2], seen)
}
