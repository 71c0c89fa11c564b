// SPDX-License-Identifier: GPL-2.0

//! Registers of x86-64: the general ones, and the extended ones by component.
//!
//! All go through the register sets that ptrace and core dumps use. They are read from tasks that
//! stand still, and loaded into tasks that are parked in the kernel, by the coordinator: the kernel
//! does not let a task load its own.
//!
//! No locks: whoever is read or written to is off its CPU. It may be killed all the same, and give up
//! its kernel stack, where the general registers are, while others refer to it: see [`Stack`].

use core::{
    mem::size_of,
    ptr, //
};

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::aref::ARef,
    task::Task, //
};

use zerocopy::{
    FromBytes,
    FromZeros,
    IntoBytes, //
};

use crate::{
    hold::{
        Held,
        Still, //
    },
    image::record::{
        Registers,
        Xstate, //
    },
    report::{
        Place,
        Report, //
    },
    save::Saver,
    stream::resize, //
};

/// Length of the general registers as ptrace has them: those of [`Registers`], in its order.
const GENERAL: usize = 27 * 8;

/// Length of the area of FXSAVE, which holds x87 and SSE.
const LEGACY: usize = 512;

/// Where the XSAVE header begins, which says what components follow.
const HEADER: usize = LEGACY;

/// Length of the XSAVE header.
const HEADER_LEN: usize = 64;

/// x87 and SSE, whose state is in the legacy area.
const LEGACY_FEATURES: u64 = 0b11;

/// The kernel stack of a task, which stays even if that dies.
///
/// # Invariants
///
/// This object has a reference to the task and one to its stack.
pub(crate) struct Stack(ARef<Task>);

impl Stack {
    /// Keeps the stack of `task`, unless it has none any more.
    pub(crate) fn keep(task: &Task) -> Option<Self> {
        // SAFETY: `task` is valid.
        let kept = unsafe { bindings::checkpoint_get_stack(task.as_ptr()) };
        // INVARIANT: The reference to the stack was taken just now.
        kept.then(|| Self(task.into()))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::put_task_stack(self.0.as_ptr()) };
    }
}

/// The register set of a type of note in core files.
///
/// # Safety
///
/// `task` is valid and does not run, unless it dies; its stack is kept.
unsafe fn regset(
    task: *mut bindings::task_struct,
    note: u32,
) -> Option<&'static bindings::user_regset> {
    // SAFETY: By the safety requirement; views and sets are constants of the kernel.
    unsafe {
        let view = bindings::task_user_regset_view(task);
        let count = usize::try_from((*view).n).ok()?;
        core::slice::from_raw_parts((*view).regsets, count)
            .iter()
            .find(|set| set.core_note_type == note)
    }
}

/// Reads a register set; `None` when the CPU does not have it.
///
/// # Safety
///
/// As for [`regset`].
unsafe fn get(task: *mut bindings::task_struct, note: u32) -> Result<Option<KVVec<u8>>> {
    // SAFETY: By the safety requirement.
    let Some(set) = (unsafe { regset(task, note) }) else {
        return Ok(None);
    };
    let len = set.n * set.size;
    let mut bytes = KVVec::new();
    resize(&mut bytes, usize::try_from(len)?, GFP_KERNEL)?;
    // SAFETY: As above; `bytes` has room for the whole set.
    let got = unsafe { bindings::regset_get(task, set, len, bytes.as_mut_ptr().cast()) };
    if got == ENODEV.to_errno() {
        return Ok(None);
    }
    if got < 0 {
        return Err(Error::from_errno(got));
    }
    bytes.truncate(usize::try_from(got)?);
    Ok(Some(bytes))
}

/// Writes a whole register set.
///
/// # Safety
///
/// As for [`regset`], and `task` is not the current one.
unsafe fn set(task: *mut bindings::task_struct, note: u32, bytes: &[u8]) -> Result {
    // SAFETY: By the safety requirement.
    let set = unsafe { regset(task, note) }.ok_or(ENODEV)?;
    let write = set.set.ok_or(ENODEV)?;
    // SAFETY: As above; `bytes` is readable.
    to_result(unsafe {
        write(
            task,
            set,
            0,
            u32::try_from(bytes.len())?,
            bytes.as_ptr().cast(),
            ptr::null(),
        )
    })
}

/// Whether `held` was interrupted in a call that goes on by restart_syscall(2).
pub(crate) fn asks_for_restart(held: &Held) -> bool {
    // SAFETY: `held` keeps its task, which stands still in the kernel, and its stack.
    unsafe {
        let regs = bindings::checkpoint_pt_regs(held.as_raw());
        (*regs).orig_ax != usize::MAX
            && (*regs).ax == 0usize.wrapping_sub(bindings::ERESTART_RESTARTBLOCK as usize)
    }
}

/// Saves the registers of `held`, which is task number `task`.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held, task: u32) -> Result {
    // SAFETY: `held` keeps its task, which stands still, and its stack.
    let general = unsafe { get(held.as_raw(), bindings::NT_PRSTATUS) }?.ok_or(EIO)?;
    let mut record = Registers {
        task: task.into(),
        ..Registers::new_zeroed()
    };
    let Some(to) = record
        .as_mut_bytes()
        .get_mut(size_of::<Registers>() - GENERAL..)
    else {
        return Err(EIO);
    };
    if general.len() != GENERAL {
        return Err(EIO);
    }
    to.copy_from_slice(&general);
    if held.state() == Still::Caller {
        // What checkpoint(2) returns in the task that a restart brings back.
        record.rax = 0.into();
    }
    saver.put(&record, &[])?;

    // SAFETY: As above.
    match unsafe { get(held.as_raw(), bindings::NT_X86_XSTATE) }? {
        Some(area) => save_area(saver, task, &area),
        None => {
            // SAFETY: As above.
            let legacy = unsafe { get(held.as_raw(), bindings::NT_PRFPREG) }?.ok_or(EIO)?;
            put(saver, task, 0, legacy.get(..LEGACY).ok_or(EIO)?)
        }
    }
}

/// Saves the components that are in use, each as a record of its own: where they lie in an area
/// differs between CPUs.
fn save_area(saver: &mut Saver<'_>, task: u32, area: &[u8]) -> Result {
    put(saver, task, 0, area.get(..LEGACY).ok_or(EIO)?)?;
    let (used, _) = u64::read_from_prefix(area.get(HEADER..).ok_or(EIO)?).map_err(|_| EIO)?;
    for feature in components(used & !LEGACY_FEATURES) {
        let bytes = area.get(Component::of(feature).range()?).ok_or(EIO)?;
        put(saver, task, feature, bytes)?;
    }
    Ok(())
}

fn put(saver: &mut Saver<'_>, task: u32, feature: u32, bytes: &[u8]) -> Result {
    let record = Xstate {
        task: task.into(),
        feature: feature.into(),
        size: u32::try_from(bytes.len())?.into(),
        reserved: 0.into(),
    };
    saver.put(&record, &[bytes])
}

/// The components that some task of the tree uses.
pub(crate) fn used(tasks: &[Held]) -> u64 {
    let alive = tasks.iter().filter(|held| held.state() != Still::Zombie);
    alive.fold(LEGACY_FEATURES, |all, held| {
        // SAFETY: `held` keeps its task, which stands still, or is the current one.
        all | unsafe { bindings::checkpoint_xfeatures_in_use(held.as_raw()) }
    })
}

/// Numbers of the bits that are set.
fn components(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |number| mask >> number & 1 != 0)
}

/// Where this CPU has a component in the standard format of XSAVE.
struct Component {
    offset: u32,
    size: u32,
}

impl Component {
    fn of(feature: u32) -> Self {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: The function only reads constants of the boot.
        unsafe { bindings::checkpoint_xfeature(feature, &mut offset, &mut size) };
        Self { offset, size }
    }

    fn range(&self) -> Result<core::ops::Range<usize>> {
        let offset = usize::try_from(self.offset)?;
        Ok(offset..offset + usize::try_from(self.size)?)
    }
}

/// The components that this kernel lets user space have, for [`check`] and the image's machine.
pub(crate) fn features() -> u64 {
    // SAFETY: The function only reads a constant of the boot.
    unsafe { bindings::checkpoint_user_xfeatures() }
}

/// Checks that this machine has all components of `used`.
pub(crate) fn check(used: u64, report: &mut Report) {
    let lacking = used & !(features() | LEGACY_FEATURES);
    for feature in components(lacking) {
        report.problem(
            Place::Tree,
            fmt!(
                "needs extended state {feature} ({}), which this CPU lacks",
                Name(feature)
            ),
        );
    }
}

/// What the architecture calls a component.
struct Name(u32);

impl kernel::fmt::Display for Name {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        f.write_str(match self.0 {
            0 => "x87",
            1 => "SSE",
            2 => "AVX",
            3 | 4 => "MPX",
            5..=7 => "AVX-512",
            9 => "PKRU",
            17 | 18 => "AMX",
            19 => "APX",
            _ => "unknown",
        })
    }
}

/// Checks that the general registers are those of a task in 64-bit user mode.
///
/// What the kernel does not let a task set is refused or cut off by the register set itself.
pub(crate) fn check_general(record: &Registers) -> Result {
    const USER_CS: u64 = 0x33;
    const USER_DS: u64 = 0x2b;
    if record.cs.get() != USER_CS || record.ss.get() != USER_DS {
        return Err(EINVAL);
    }
    Ok(())
}

/// Loads the registers of a record into a parked task.
///
/// # Errors
///
/// `EINVAL` or `EIO` for values that user space cannot have.
///
/// # Safety
///
/// As for [`set`].
pub(crate) unsafe fn restore_general(
    task: *mut bindings::task_struct,
    record: &Registers,
) -> Result {
    let bytes = record
        .as_bytes()
        .get(size_of::<Registers>() - GENERAL..)
        .ok_or(EIO)?;
    let mut aligned = KVVec::with_capacity(GENERAL, GFP_KERNEL)?;
    aligned.extend_from_slice(bytes, GFP_KERNEL)?;
    // SAFETY: By the safety requirement.
    unsafe {
        set(task, bindings::NT_PRSTATUS, &aligned)?;
        // The one flag that user mode may set and the register set leaves out.
        let id = record.rflags.get() as usize & 1 << bindings::X86_EFLAGS_ID_BIT;
        (*bindings::checkpoint_pt_regs(task)).flags |= id;
    }
    Ok(())
}

/// Loads extended registers into a parked task: all components that `records` have, the others
/// initial.
///
/// # Errors
///
/// `EINVAL` for values that user space cannot have, or sizes that this CPU does not know.
///
/// # Safety
///
/// As for [`set`].
pub(crate) unsafe fn restore_extended<'a>(
    task: *mut bindings::task_struct,
    records: impl Iterator<Item = (&'a Xstate, &'a [u8])>,
) -> Result {
    // SAFETY: By the safety requirement. What is there says how large the area is.
    let area = unsafe { get(task, bindings::NT_X86_XSTATE) }?;
    let with_header = area.is_some();
    let mut area = match area {
        Some(area) => area,
        // SAFETY: As above.
        None => unsafe { get(task, bindings::NT_PRFPREG) }?.ok_or(EIO)?,
    };
    let mut used = 0u64;
    if with_header {
        area.get_mut(HEADER..HEADER + HEADER_LEN)
            .ok_or(EIO)?
            .fill(0);
    }
    for (record, bytes) in records {
        let feature = record.feature.get();
        let range = if feature == 0 {
            used |= LEGACY_FEATURES;
            0..LEGACY
        } else if with_header {
            used |= 1u64.checked_shl(feature).unwrap_or(0);
            Component::of(feature).range()?
        } else {
            return Err(EINVAL);
        };
        let to = area.get_mut(range).ok_or(EINVAL)?;
        if to.len() != bytes.len() {
            return Err(EINVAL);
        }
        to.copy_from_slice(bytes);
    }
    if with_header {
        let to = area.get_mut(HEADER..HEADER + 8).ok_or(EIO)?;
        to.copy_from_slice(&used.to_le_bytes());
        // SAFETY: By the safety requirement.
        unsafe { set(task, bindings::NT_X86_XSTATE, &area) }
    } else {
        // SAFETY: By the safety requirement.
        unsafe { set(task, bindings::NT_PRFPREG, &area) }
    }
}
