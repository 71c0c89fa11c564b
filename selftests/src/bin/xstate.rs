// SPDX-License-Identifier: GPL-2.0

//! Extended registers, one case per state component of the processor.

use selftests::prelude::*;
use std::arch::global_asm;
use std::arch::x86_64::{
    __cpuid_count,
    _xgetbv,
    CpuidResult, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("x87", |v| component(v, 0, Held::Spin)).settle(200),
        Case::new("x87-syscall", |v| component(v, 0, Held::Sleep)),
        Case::new("sse", |v| component(v, 1, Held::Spin)).settle(200),
        Case::new("sse-syscall", |v| component(v, 1, Held::Sleep)),
        Case::new("avx", |v| component(v, 2, Held::Spin)).settle(200),
        Case::new("avx-syscall", |v| component(v, 2, Held::Sleep)),
        Case::new("avx512-opmask", |v| component(v, 5, Held::Spin)).settle(200),
        Case::new("avx512-high256", |v| component(v, 6, Held::Spin)).settle(200),
        Case::new("avx512-high16", |v| component(v, 7, Held::Spin)).settle(200),
        Case::new("pkru", |v| component(v, 9, Held::Spin)).settle(200),
        Case::new("all", all).settle(200),
        Case::new("initial", initial),
        Case::new("control-words", control_words),
    ],
    ..Suite::new("xstate")
};

fn main() -> ExitCode {
    SUITE.main()
}

const ROUNDS: u64 = 1 << 24;

/// Where the state is held in registers while the checkpoint comes.
#[derive(Clone, Copy)]
enum Held {
    /// In user mode.
    Spin,
    /// In nanosleep(2), which changes no extended register.
    Sleep,
}

extern "C" {
    /// Loads the components of `mask` from `from`, holds them, stores them to `to`. `mask` 0 uses
    /// fxrstor and fxsave, `rounds` 0 sleeps for 20 ms instead of counting.
    fn xstate_hold(from: *const Area, to: *mut Area, mask: u64, rounds: u64);
}

global_asm!(
    ".pushsection .rodata",
    ".balign 8",
    "xstate_20ms: .quad 0, 20000000",
    ".popsection",
    ".globl xstate_hold",
    "xstate_hold:",
    "push rbx",
    "push r12",
    "push r13",
    "mov rbx, rdx",
    "mov r12, rcx",
    "mov r13, rsi",
    "mov eax, edx",
    "shr rdx, 32",
    "test rbx, rbx",
    "jz 2f",
    "xrstor64 [rdi]",
    "jmp 3f",
    "2: fxrstor64 [rdi]",
    "3: mov rcx, r12",
    "jrcxz 5f",
    "4: loop 4b",
    "jmp 6f",
    "5: mov eax, 35",
    "lea rdi, [rip + xstate_20ms]",
    "xor esi, esi",
    "syscall",
    "6: mov rax, rbx",
    "mov rdx, rbx",
    "shr rdx, 32",
    "test rbx, rbx",
    "jz 7f",
    "xsave64 [r13]",
    "jmp 8f",
    "7: fxsave64 [r13]",
    // The calling convention wants an empty x87 stack and the usual control words.
    "8: fninit",
    "push 0x1f80",
    "ldmxcsr [rsp]",
    "pop rax",
    "pop r13",
    "pop r12",
    "pop rbx",
    "ret",
);

/// An XSAVE area in the standard format, with room for AMX.
#[repr(C, align(64))]
struct Area([u8; 16384]);

const XSTATE_BV: usize = 512;

impl Area {
    fn new() -> Box<Self> {
        Box::new(Self([0; 16384]))
    }
}

/// One state component: where it lies and what a valid state of it looks like.
struct Component {
    number: u32,
    offset: usize,
    len: usize,
}

impl Component {
    /// Looks for a component; those of the FXSAVE area are always there.
    fn find(number: u32) -> Option<Self> {
        let (offset, len) = match number {
            0 => (32, 128),
            1 => (160, 256),
            _ if xcr0() & 1 << number == 0 => return None,
            _ => {
                let leaf = cpuid(13, number);
                (leaf.ebx as usize, leaf.eax as usize)
            }
        };
        Some(Self {
            number,
            offset,
            len,
        })
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.len
    }

    /// Writes a state that is valid and not the initial one.
    fn prepare(&self, area: &mut Area) {
        let bytes = &mut area.0;
        if xcr0() != 0 {
            bytes[XSTATE_BV + (self.number / 8) as usize] |= 1 << (self.number % 8);
        }
        // MXCSR is loaded with every area that has SSE or AVX in its mask.
        bytes[24..28].copy_from_slice(&MXCSR.to_le_bytes());
        match self.number {
            0 => {
                bytes[0..2].copy_from_slice(&FCW.to_le_bytes());
                bytes[2..4].copy_from_slice(&FSW.to_le_bytes());
                bytes[4] = FTW;
                for (i, st) in bytes[self.range()].chunks_mut(16).enumerate() {
                    sys::fill(&mut st[..8], 100 + i as u64);
                    // A normal number: integer bit set, exponent near the bias.
                    st[7] |= 0x80;
                    st[8..10].copy_from_slice(&(0x3fff + i as u16).to_le_bytes());
                }
            }
            9 => bytes[self.offset..self.offset + 4].copy_from_slice(&PKRU.to_le_bytes()),
            n => sys::fill(&mut bytes[self.range()], u64::from(n)),
        }
    }

    fn compare(&self, want: &Area, seen: &Area) -> Result<()> {
        let what = format!("component {}", self.number);
        match self.number {
            0 => {
                let words = |a: &Area| -> [u8; 5] { std::array::from_fn(|i| a.0[i]) };
                same(
                    "control, status and tag word of the x87",
                    words(want),
                    words(seen),
                )?;
                for i in 0..8 {
                    let st = |a: &Area| a.0[32 + 16 * i..42 + 16 * i].to_vec();
                    same(&format!("st({i})"), st(want), st(seen))?;
                }
                Ok(())
            }
            9 => same(
                &what,
                want.0[self.range()][..4].to_vec(),
                seen.0[self.range()][..4].to_vec(),
            ),
            n => sys::verify(&what, &seen.0[self.range()], u64::from(n)),
        }
    }
}

/// Rounding up, 53 bits, all exceptions masked.
const FCW: u16 = 0x0a7f;
/// The stack begins at register 3, condition codes C0 and C2.
const FSW: u16 = 3 << 11 | 1 << 8 | 1 << 10;
/// Registers 3 to 7 and 0 are in use.
const FTW: u8 = 0b1111_1001;
/// Rounding down, flush to zero, all exceptions masked, inexact flag raised.
const MXCSR: u32 = 0x1f80 | 1 << 13 | 1 << 15 | 1 << 5;
/// Key 1 no access, key 2 no writing, key 15 no access; key 0 is in use by everything.
const PKRU: u32 = 0b11 << 30 | 0b10 << 4 | 0b11 << 2;

/// CPUID.
#[allow(unused_unsafe)] // It is safe in newer versions of Rust only.
fn cpuid(leaf: u32, sub: u32) -> CpuidResult {
    // SAFETY: x86-64 always has the instruction.
    unsafe { __cpuid_count(leaf, sub) }
}

/// The components that the system has switched on, 0 without XSAVE.
fn xcr0() -> u64 {
    /// Reads the register.
    ///
    /// # Safety
    ///
    /// OSXSAVE must be set.
    #[target_feature(enable = "xsave")]
    unsafe fn read() -> u64 {
        // SAFETY: the caller has looked.
        unsafe { _xgetbv(0) }
    }
    if cpuid(1, 0).ecx & 1 << 27 == 0 {
        return 0;
    }
    // SAFETY: OSXSAVE is set.
    unsafe { read() }
}

fn held(v: &Victim, components: &[Component], how: Held) -> Result<()> {
    let (mut from, mut to) = (Area::new(), Area::new());
    let mut mask = 0;
    for c in components {
        c.prepare(&mut from);
        mask |= 1 << c.number;
    }
    let rounds = match how {
        Held::Spin => ROUNDS,
        Held::Sleep => 0,
    };
    let mask = if xcr0() == 0 { 0 } else { mask };
    v.ready()?;
    while !v.told() {
        // SAFETY: both areas are valid, aligned and large enough.
        unsafe { xstate_hold(&*from, &mut *to, mask, rounds) };
        for c in components {
            c.compare(&from, &to)?;
        }
        if components.iter().any(|c| c.number == 1) {
            let mxcsr = |a: &Area| a.0[24..28].to_vec();
            same("mxcsr", mxcsr(&from), mxcsr(&to))?;
        }
    }
    Ok(())
}

fn component(v: &Victim, number: u32, how: Held) -> Result<()> {
    match Component::find(number) {
        Some(c) => held(v, &[c], how),
        None => skip(format!("the processor has no state component {number}")),
    }
}

fn all(v: &Victim) -> Result<()> {
    let numbers = [0, 1, 2, 5, 6, 7, 9];
    let components: Vec<_> = numbers.into_iter().filter_map(Component::find).collect();
    held(v, &components, Held::Spin)
}

/// Components that nobody has touched come back in their initial state.
fn initial(v: &Victim) -> Result<()> {
    if xcr0() == 0 {
        return skip("the processor has no XSAVE");
    }
    let numbers = [2, 5, 6, 7];
    let components: Vec<_> = numbers.into_iter().filter_map(Component::find).collect();
    let mask = components.iter().fold(0, |mask, c| mask | 1 << c.number);
    let (mut from, mut to) = (Area::new(), Area::new());
    from.0[24..28].copy_from_slice(&MXCSR.to_le_bytes());
    v.ready()?;
    while !v.told() {
        // SAFETY: as in `held`; an empty XSTATE_BV asks for the initial state.
        unsafe { xstate_hold(&*from, &mut *to, mask, ROUNDS / 8) };
        for c in &components {
            let dirty = to.0[c.range()].iter().any(|&b| b != 0);
            ensure!(
                !dirty,
                "component {} is no longer in its initial state",
                c.number
            );
        }
    }
    Ok(())
}

/// The control words act, they are not only stored.
fn control_words(v: &Victim) -> Result<()> {
    /// 1/3 rounded up and down differ in the last bit.
    fn third() -> (f64, f64) {
        let (mut x87, mut sse) = (0f64, 1f64);
        let (one, three) = (1f64, 3f64);
        // SAFETY: both divisions leave the stack as it was.
        unsafe {
            std::arch::asm!(
                "fld qword ptr [{one}]",
                "fdiv qword ptr [{three}]",
                "fstp qword ptr [{x87}]",
                "divsd {sse}, qword ptr [{three}]",
                one = in(reg) &one,
                three = in(reg) &three,
                x87 = in(reg) &mut x87,
                sse = inout(xmm_reg) sse,
                options(nostack),
            );
        }
        (x87, sse)
    }
    fn set(fcw: u16, mxcsr: u32) {
        // SAFETY: all exceptions stay masked.
        unsafe {
            std::arch::asm!(
                "fldcw word ptr [{}]",
                "ldmxcsr dword ptr [{}]",
                in(reg) &fcw,
                in(reg) &mxcsr,
                options(nostack, readonly),
            );
        }
    }
    let usual = third();
    // x87 up, SSE up.
    set(FCW, 0x1f80 | 2 << 13);
    let up = third();
    let set_up = usual != up;
    v.stand()?;
    let now = third();
    set(0x37f, 0x1f80);
    ensure!(set_up, "rounding up changes nothing");
    same("1/3 by x87 and by SSE, rounded up", up, now)?;
    same("1/3 rounded to nearest", usual, third())
}
