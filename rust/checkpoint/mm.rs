// SPDX-License-Identifier: GPL-2.0

//! Address spaces: what is mapped where, and the layout that exec made.
//!
//! Not here: the contents, in `pages.rs`.

use core::ptr::NonNull;

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef,
    task::Pid,
    types::NotThreadSafe, //
};

use zerocopy::IntoBytes;

use crate::{
    files,
    hold::Held,
    image::record::{
        mm_flags,
        vma_flags,
        vma_kind,
        Mm,
        Vma,
        Vmas, //
    },
    objects::Class,
    plan::Blueprint,
    report::Place,
    save::{
        Memory,
        Saver, //
    },
    shmem, //
};

/// A part of an address space, page aligned.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// An address space that stays while this exists.
///
/// # Invariants
///
/// `mm_users` of the address space counts this.
pub(crate) struct MmRef {
    mm: NonNull<bindings::mm_struct>,
}

// SAFETY: An address space may be used and let go by any task.
unsafe impl Send for MmRef {}

impl MmRef {
    /// The address space of `task`, a raw pointer to a task that the caller holds a reference to.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the task has none (any more).
    ///
    /// # Safety
    ///
    /// `task` is valid.
    pub(crate) unsafe fn of(task: *mut bindings::task_struct) -> Result<Self> {
        // SAFETY: By the safety requirement.
        let mm = unsafe { bindings::get_task_mm(task) };
        // INVARIANT: get_task_mm() counted us.
        Ok(Self {
            mm: NonNull::new(mm).ok_or(ESRCH)?,
        })
    }

    /// Copies the address space as fork(2) does: contents are shared until one side writes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn snapshot(&self) -> Result<Self> {
        // SAFETY: The address space is alive. The copy belongs to the caller, who pays for it, not
        // to the task that is copied.
        let mm = unsafe { bindings::dup_mm(bindings::get_current(), self.as_raw()) };
        // INVARIANT: dup_mm() returns an address space with one user.
        Ok(Self {
            mm: NonNull::new(mm).ok_or(ENOMEM)?,
        })
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::mm_struct {
        self.mm.as_ptr()
    }

    /// Takes `mmap_lock` for reading.
    ///
    /// # Errors
    ///
    /// `EINTR` when the caller is killed while it waits.
    pub(crate) fn read_lock(&self) -> Result<ReadGuard<'_>> {
        // SAFETY: The address space is alive.
        kernel::error::to_result(unsafe { bindings::checkpoint_mmap_lock(self.as_raw()) })?;
        // INVARIANT: The lock has just been taken.
        Ok(ReadGuard {
            mm: self,
            _nts: NotThreadSafe,
        })
    }
}

impl Drop for MmRef {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a user to take away.
        unsafe { bindings::mmput(self.as_raw()) };
    }
}

/// `mmap_lock`, held for reading.
///
/// # Invariants
///
/// The lock of `mm` is held by this task.
pub(crate) struct ReadGuard<'a> {
    mm: &'a MmRef,
    _nts: NotThreadSafe,
}

impl ReadGuard<'_> {
    /// Gives up the guard of a lock that was dropped elsewhere.
    pub(crate) fn forget(self) {
        core::mem::forget(self);
    }

    /// The first mapping that ends above `addr`.
    fn next(&self, addr: usize) -> Option<VmaView<'_>> {
        // SAFETY: By the type invariant the lock is held.
        let vma = unsafe { bindings::find_vma(self.mm.as_raw(), addr) };
        Some(VmaView {
            vma: NonNull::new(vma)?,
            _guard: self,
        })
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::mmap_read_unlock(self.mm.as_raw()) };
    }
}

/// A mapping, as long as its address space is locked.
struct VmaView<'a> {
    vma: NonNull<bindings::vm_area_struct>,
    _guard: &'a ReadGuard<'a>,
}

impl VmaView<'_> {
    fn start(&self) -> usize {
        // SAFETY: The lock is held, so the mapping stays.
        unsafe {
            (*self.vma.as_ptr())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .vm_start
        }
    }

    fn end(&self) -> usize {
        // SAFETY: As above.
        unsafe {
            (*self.vma.as_ptr())
                .__bindgen_anon_1
                .__bindgen_anon_1
                .vm_end
        }
    }

    fn flags(&self) -> u64 {
        // SAFETY: As above.
        unsafe { (*self.vma.as_ptr()).__bindgen_anon_2.vm_flags as u64 }
    }

    /// Offset in the file in bytes.
    fn offset(&self) -> u64 {
        // SAFETY: As above.
        unsafe { (*self.vma.as_ptr()).vm_pgoff as u64 * kernel::page::PAGE_SIZE as u64 }
    }

    fn file(&self) -> Option<ARef<File>> {
        // SAFETY: As above; a mapping holds its file.
        let file = unsafe { (*self.vma.as_ptr()).vm_file };
        if file.is_null() {
            return None;
        }
        // SAFETY: `file` is valid while the lock is held, and positions are not used through it.
        Some(unsafe { File::from_raw_file(file) }.into())
    }

    /// Name of what the kernel itself maps.
    fn special(&self) -> Option<&'static CStr> {
        // SAFETY: As above.
        let name = unsafe { bindings::checkpoint_vma_name(self.vma.as_ptr()) };
        // SAFETY: These names are constants of the kernel.
        (!name.is_null()).then(|| unsafe { CStr::from_char_ptr(name) })
    }

    /// Name of state that no flag shows.
    fn blocker(&self) -> Option<&'static CStr> {
        // SAFETY: As above.
        let name = unsafe { bindings::checkpoint_vma_blocker(self.vma.as_ptr()) };
        // SAFETY: These names are constants.
        (!name.is_null()).then(|| unsafe { CStr::from_char_ptr(name) })
    }
}

/// One row a flag: bit number in the kernel, bit in the image, and how it comes back.
struct Flag {
    bit: u32,
    image: u32,
    back: Back,
}

/// How a flag of a mapping comes back.
enum Back {
    /// As a protection bit of mmap(2).
    Prot(u32),
    /// As a flag of mmap(2).
    Map(u32),
    /// By madvise(2) afterwards.
    Advice(u32),
    /// By itself, from what is mapped and how.
    Implied,
}

const FLAGS: &[Flag] = &[
    Flag {
        bit: bindings::VMA_READ_BIT,
        image: vma_flags::READ,
        back: Back::Prot(bindings::PROT_READ),
    },
    Flag {
        bit: bindings::VMA_WRITE_BIT,
        image: vma_flags::WRITE,
        back: Back::Prot(bindings::PROT_WRITE),
    },
    Flag {
        bit: bindings::VMA_EXEC_BIT,
        image: vma_flags::EXEC,
        back: Back::Prot(bindings::PROT_EXEC),
    },
    Flag {
        bit: bindings::VMA_SHARED_BIT,
        image: vma_flags::SHARED,
        back: Back::Implied,
    },
    Flag {
        bit: bindings::VMA_MAYREAD_BIT,
        image: vma_flags::MAYREAD,
        back: Back::Implied,
    },
    Flag {
        bit: bindings::VMA_MAYWRITE_BIT,
        image: vma_flags::MAYWRITE,
        back: Back::Implied,
    },
    Flag {
        bit: bindings::VMA_MAYEXEC_BIT,
        image: vma_flags::MAYEXEC,
        back: Back::Implied,
    },
    Flag {
        bit: bindings::VMA_MAYSHARE_BIT,
        image: vma_flags::MAYSHARE,
        back: Back::Implied,
    },
    Flag {
        bit: bindings::VMA_GROWSDOWN_BIT,
        image: vma_flags::GROWSDOWN,
        back: Back::Map(bindings::MAP_GROWSDOWN),
    },
    Flag {
        bit: bindings::VMA_LOCKED_BIT,
        image: vma_flags::LOCKED,
        back: Back::Map(bindings::MAP_LOCKED),
    },
    Flag {
        bit: bindings::VMA_DONTCOPY_BIT,
        image: vma_flags::DONTFORK,
        back: Back::Advice(bindings::MADV_DONTFORK),
    },
    Flag {
        bit: bindings::VMA_WIPEONFORK_BIT,
        image: vma_flags::WIPEONFORK,
        back: Back::Advice(bindings::MADV_WIPEONFORK),
    },
    Flag {
        bit: bindings::VMA_DONTDUMP_BIT,
        image: vma_flags::DONTDUMP,
        back: Back::Advice(bindings::MADV_DONTDUMP),
    },
    Flag {
        bit: bindings::VMA_HUGEPAGE_BIT,
        image: vma_flags::HUGEPAGE,
        back: Back::Advice(bindings::MADV_HUGEPAGE),
    },
    Flag {
        bit: bindings::VMA_NOHUGEPAGE_BIT,
        image: vma_flags::NOHUGEPAGE,
        back: Back::Advice(bindings::MADV_NOHUGEPAGE),
    },
    Flag {
        bit: bindings::VMA_NORESERVE_BIT,
        image: vma_flags::NORESERVE,
        back: Back::Map(bindings::MAP_NORESERVE),
    },
    Flag {
        bit: bindings::VMA_SEQ_READ_BIT,
        image: vma_flags::SEQ_READ,
        back: Back::Advice(bindings::MADV_SEQUENTIAL),
    },
    Flag {
        bit: bindings::VMA_RAND_READ_BIT,
        image: vma_flags::RAND_READ,
        back: Back::Advice(bindings::MADV_RANDOM),
    },
    Flag {
        bit: bindings::VMA_ACCOUNT_BIT,
        image: vma_flags::ACCOUNT,
        back: Back::Implied,
    },
    Flag {
        bit: bindings::VMA_DROPPABLE_BIT,
        image: vma_flags::DROPPABLE,
        back: Back::Implied,
    },
];

/// Names of flags that refuse a mapping, for the message.
const REFUSED: &[(u32, &str)] = &[
    (bindings::VMA_UFFD_MISSING_BIT, "userfaultfd"),
    (bindings::VMA_UFFD_WP_BIT, "userfaultfd"),
    (bindings::VMA_UFFD_MINOR_BIT, "userfaultfd"),
    (bindings::VMA_PFNMAP_BIT, "device memory"),
    (bindings::VMA_IO_BIT, "device memory"),
    (bindings::VMA_MIXEDMAP_BIT, "device memory"),
    (bindings::VMA_MAYBE_GUARD_BIT, "guard region"),
    (bindings::VMA_LOCKONFAULT_BIT, "lock on fault"),
    (bindings::VMA_HUGETLB_BIT, "hugetlb"),
    (bindings::VMA_SYNC_BIT, "MAP_SYNC"),
    (bindings::VMA_MERGEABLE_BIT, "MADV_MERGEABLE"),
    (bindings::VMA_SEALED_BIT, "sealed mapping"),
    (bindings::VMA_PKEY_BIT0_BIT, "protection key"),
    (bindings::VMA_PKEY_BIT1_BIT, "protection key"),
    (bindings::VMA_PKEY_BIT2_BIT, "protection key"),
    (bindings::VMA_PKEY_BIT3_BIT, "protection key"),
];

/// Only tells that pages were written since somebody asked; it starts anew.
const IGNORED: u64 = 1 << bindings::VMA_SOFTDIRTY_BIT;

fn bit(number: u32) -> u64 {
    1u64.checked_shl(number).unwrap_or(0)
}

/// Translates the flags of a mapping, or says which one has no place in an image.
fn image_flags(flags: u64) -> Result<u32, Option<&'static str>> {
    let mut image = 0;
    let mut rest = flags & !IGNORED;
    for flag in FLAGS {
        if rest & bit(flag.bit) != 0 {
            image |= flag.image;
            rest &= !bit(flag.bit);
        }
    }
    if rest == 0 {
        return Ok(image);
    }
    Err(REFUSED
        .iter()
        .find(|(number, _)| rest & bit(*number) != 0)
        .map(|(_, name)| *name))
}

/// Saves the address space of `held` unless it has been, and returns its number.
///
/// Returns `None` when something in it was refused.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held) -> Result<Option<u32>> {
    // SAFETY: `held` keeps its task.
    let mm = unsafe { MmRef::of(held.as_raw()) }?;
    if let Some(id) = saver.objects.get(Class::Mm, mm.as_raw()) {
        return Ok(Some(id));
    }
    let pid = held.pid();
    let problems = saver.report.count();
    let flags = save_flags(saver, pid, &mm)?;
    let exe = save_exe(saver, pid, &mm)?;

    let mut vmas = KVVec::new();
    let mut ranges = KVVec::new();
    let mut covered = true;
    let mut special = Special::default();
    let guard = mm.read_lock()?;
    let mut at = 0;
    while let Some(vma) = guard.next(at) {
        at = vma.end();
        if let Some(saved) = save_vma(saver, pid, &vma, &mut special)? {
            let flags = saved.flags.get();
            let private = flags & vma_flags::MAYSHARE == 0;
            if private
                && matches!(saved.kind.get(), vma_kind::ANON | vma_kind::FILE)
                && flags & vma_flags::DROPPABLE == 0
            {
                ranges.push(
                    Range {
                        start: vma.start(),
                        end: vma.end(),
                    },
                    GFP_KERNEL,
                )?;
                covered &= flags & (vma_flags::DONTFORK | vma_flags::WIPEONFORK) == 0;
            }
            vmas.push(saved, GFP_KERNEL)?;
        }
    }
    drop(guard);
    let vdso = special.check(saver, pid, &mm);

    let (Some(exe), Some(flags)) = (exe, flags) else {
        return Ok(None);
    };
    if saver.report.count() != problems {
        return Ok(None);
    }
    let raw = mm.as_raw();
    // SAFETY: The address space is alive and its tasks stand still, so nothing changes the layout.
    let (record, auxv) = unsafe {
        let layout = &(*raw).__bindgen_anon_1;
        let auxv = layout.saved_auxv;
        (
            Mm {
                start_code: (layout.start_code as u64).into(),
                end_code: (layout.end_code as u64).into(),
                start_data: (layout.start_data as u64).into(),
                end_data: (layout.end_data as u64).into(),
                start_brk: (layout.start_brk as u64).into(),
                brk: (layout.brk as u64).into(),
                start_stack: (layout.start_stack as u64).into(),
                arg_start: (layout.arg_start as u64).into(),
                arg_end: (layout.arg_end as u64).into(),
                env_start: (layout.env_start as u64).into(),
                env_end: (layout.env_end as u64).into(),
                mmap_base: (layout.mmap_base as u64).into(),
                vdso: (vdso as u64).into(),
                exe: exe.into(),
                auxv_len: u32::try_from(core::mem::size_of_val(&auxv))?.into(),
                vmas: u32::try_from(vmas.len())?.into(),
                flags: flags.into(),
                dumpable: u32::try_from(bindings::task_exec_state_get_dumpable(held.as_raw()))?
                    .into(),
                coredump_filter: coredump_filter(raw).into(),
                reserved: [0; 32],
            },
            auxv,
        )
    };
    let id = saver.object(&record, &[auxv.as_bytes()])?;
    for part in vmas.chunks(VMAS_A_RECORD) {
        let record = Vmas {
            mm: id.into(),
            count: u32::try_from(part.len())?.into(),
        };
        saver.put(&record, &[part.as_bytes()])?;
    }
    saver.objects.insert(Class::Mm, raw, id)?;
    saver.memory.push(
        Memory::Mm {
            id,
            pid,
            mm,
            ranges,
            covered,
        },
        GFP_KERNEL,
    )?;
    Ok(Some(id))
}

/// Mappings in one record, well below what a record may hold.
const VMAS_A_RECORD: usize = 4096;

/// Refuses what belongs to an address space as a whole and has no place in an image.
fn save_flags(saver: &mut Saver<'_>, pid: Pid, mm: &MmRef) -> Result<Option<u32>> {
    let problems = saver.report.count();
    let raw = mm.as_raw();
    let mut at = 0;
    loop {
        // SAFETY: The address space is alive; the names are constants.
        let name = unsafe { bindings::checkpoint_mm_blocker(raw, &mut at) };
        if name.is_null() {
            break;
        }
        // SAFETY: As above.
        let name = unsafe { CStr::from_char_ptr(name) };
        saver.refuse(Place::Task(pid), fmt!("{name}: not supported"));
    }
    // SAFETY: The address space is alive.
    let topdown = unsafe { bindings::checkpoint_mm_flag(raw, bindings::MMF_TOPDOWN) };
    let flags = if topdown { 0 } else { mm_flags::LEGACY_LAYOUT };
    Ok((saver.report.count() == problems).then_some(flags))
}

/// What a core dump contains, as /proc/PID/coredump_filter.
///
/// # Safety
///
/// `mm` is alive.
unsafe fn coredump_filter(mm: *mut bindings::mm_struct) -> u32 {
    (0..bindings::MMF_DUMP_FILTER_BITS).fold(0, |filter, number| {
        let flag = bindings::MMF_DUMP_FILTER_SHIFT + number;
        // SAFETY: By the safety requirement.
        let set = unsafe { bindings::checkpoint_mm_flag(mm, flag) };
        filter | u32::from(set) << number
    })
}

fn save_exe(saver: &mut Saver<'_>, pid: Pid, mm: &MmRef) -> Result<Option<u32>> {
    // SAFETY: The address space is alive; the file comes with a reference.
    let exe = unsafe { bindings::get_mm_exe_file(mm.as_raw()) };
    let Some(exe) = NonNull::new(exe) else {
        saver.refuse(Place::Task(pid), fmt!("no executable"));
        return Ok(None);
    };
    // SAFETY: The reference is ours.
    let exe = unsafe { ARef::<File>::from_raw(exe.cast()) };
    files::regular::save(saver, Place::Task(pid), &exe)
}

/// The mappings of the kernel's own that were found.
#[derive(Default)]
struct Special {
    start: Option<usize>,
    vdso: Option<Range>,
}

impl Special {
    /// Checks that the vdso is where the kernel would put it for its first mapping, and returns
    /// where, or 0 if there is none.
    fn check(&self, saver: &mut Saver<'_>, pid: Pid, mm: &MmRef) -> usize {
        let (Some(start), Some(vdso)) = (self.start, self.vdso) else {
            if self.start.is_some() {
                saver.refuse(Place::Task(pid), fmt!("vdso in parts: not supported"));
            }
            return 0;
        };
        // SAFETY: The address space is alive; the functions compute.
        let whole = unsafe {
            bindings::checkpoint_vdso_text(start) == vdso.start
                && bindings::checkpoint_vdso_size() == vdso.end - vdso.start
                && (*mm.as_raw()).__bindgen_anon_1.context.vdso.addr() == vdso.start
        };
        if !whole {
            saver.refuse(
                Place::Vma(pid, vdso.start),
                fmt!("moved vdso: not supported"),
            );
        }
        vdso.start
    }
}

/// Translates one mapping; `None` when it was refused.
fn save_vma(
    saver: &mut Saver<'_>,
    pid: Pid,
    vma: &VmaView<'_>,
    special: &mut Special,
) -> Result<Option<Vma>> {
    let place = Place::Vma(pid, vma.start());
    let range = Range {
        start: vma.start(),
        end: vma.end(),
    };
    let record = |offset: u64, flags: u32, kind: u32, object: u32| Vma {
        start: (range.start as u64).into(),
        end: (range.end as u64).into(),
        offset: offset.into(),
        flags: flags.into(),
        kind: kind.into(),
        object: object.into(),
        reserved: 0.into(),
    };

    if let Some(name) = vma.special() {
        let kind = match name.to_bytes() {
            b"[vdso]" => {
                special.vdso = Some(range);
                vma_kind::VDSO
            }
            b"[vvar]" | b"[vvar_vclock]" => vma_kind::SPECIAL,
            _ => {
                saver.refuse(place, fmt!("{name}: not supported"));
                return Ok(None);
            }
        };
        special.start.get_or_insert(range.start);
        let prot = vma_flags::READ
            | if kind == vma_kind::VDSO {
                vma_flags::EXEC
            } else {
                0
            };
        return Ok(Some(record(0, prot, kind, 0)));
    }

    let flags = match image_flags(vma.flags()) {
        Ok(flags) => flags,
        Err(Some(name)) => {
            saver.refuse(place, fmt!("{name}: not supported"));
            return Ok(None);
        }
        Err(None) => {
            saver.refuse(
                place,
                fmt!("mapping with flags {:#x}: not supported", vma.flags()),
            );
            return Ok(None);
        }
    };
    if let Some(name) = vma.blocker() {
        saver.refuse(place, fmt!("{name}: not supported"));
        return Ok(None);
    }
    let Some(file) = vma.file() else {
        return Ok(Some(record(range.start as u64, flags, vma_kind::ANON, 0)));
    };
    if shmem::is_anonymous(&file) {
        if flags & vma_flags::MAYSHARE == 0 {
            saver.refuse(
                place,
                fmt!("private mapping of shared memory: not supported"),
            );
            return Ok(None);
        }
        let id = shmem::save(saver, &file)?;
        return Ok(Some(record(vma.offset(), flags, vma_kind::SHMEM, id)));
    }
    let Some(id) = files::save_mapped(saver, place, &file)? else {
        return Ok(None);
    };
    Ok(Some(record(vma.offset(), flags, vma_kind::FILE, id)))
}

/// Empties the address space of the current task, a copy of the restarter's or of the parent's.
///
/// # Errors
///
/// What munmap(2) says.
pub(crate) fn empty() -> Result {
    // SAFETY: The current task is a fresh copy that has nothing in user memory to come back to: what
    // refers to it, as the rseq area, has been reset.
    kernel::error::to_result(unsafe { bindings::vm_munmap(0, bindings::checkpoint_task_size()) })
}

/// Maps what `mm` of the image has into the address space of the current task, which is empty.
/// Contents come later.
///
/// # Errors
///
/// What mmap(2) and madvise(2) say.
pub(crate) fn restore(blueprint: &Blueprint, mm: u32) -> Result {
    let (record, auxv) = blueprint.mm(mm)?;

    // Before anything is mapped: the kernel refuses to replace an executable that is, and the
    // restarter's own may be the same file.
    let exe = blueprint.file(record.exe.get())?;
    // SAFETY: `exe` was checked to be executable by the caller.
    kernel::error::to_result(unsafe {
        bindings::replace_mm_exe_file((*bindings::get_current()).mm, exe.as_ptr())
    })?;

    let mut special = None;
    for vma in blueprint.vmas(mm) {
        if matches!(vma.kind.get(), vma_kind::VDSO | vma_kind::SPECIAL) {
            special.get_or_insert(vma.start.get());
        } else {
            restore_vma(blueprint, vma)?;
        }
    }
    if let Some(start) = special {
        // SAFETY: The current task has an address space of its own without a vdso.
        kernel::error::to_result(unsafe {
            bindings::checkpoint_map_vdso(usize::try_from(start)?)
        })?;
    }

    let mut map = bindings::prctl_mm_map {
        start_code: record.start_code.get(),
        end_code: record.end_code.get(),
        start_data: record.start_data.get(),
        end_data: record.end_data.get(),
        start_brk: record.start_brk.get(),
        brk: record.brk.get(),
        start_stack: record.start_stack.get(),
        arg_start: record.arg_start.get(),
        arg_end: record.arg_end.get(),
        env_start: record.env_start.get(),
        env_end: record.env_end.get(),
        auxv: core::ptr::null_mut(),
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    // SAFETY: `auxv` is valid for reads of its length, and the map is validated before it is applied.
    unsafe {
        kernel::error::to_result(bindings::checkpoint_set_layout(
            &mut map,
            auxv.as_ptr().cast(),
            auxv.len(),
            usize::try_from(record.mmap_base.get())?,
            record.coredump_filter.get(),
            record.flags.get() & mm_flags::LEGACY_LAYOUT == 0,
        ))
    }
}

fn restore_vma(blueprint: &Blueprint, vma: &Vma) -> Result {
    let flags = vma.flags.get();
    let start = usize::try_from(vma.start.get())?;
    let len = usize::try_from(vma.end.get() - vma.start.get())?;
    // A shared mapping of a file that is not open for writing only counts as shared.
    let shared = flags & vma_flags::MAYSHARE != 0;

    let mut prot = 0;
    let mut map = bindings::MAP_FIXED_NOREPLACE;
    for flag in FLAGS.iter().filter(|flag| flags & flag.image != 0) {
        match flag.back {
            Back::Prot(bits) => prot |= bits,
            Back::Map(bits) => map |= bits,
            Back::Advice(_) | Back::Implied => {}
        }
    }
    // What was written before it became read-only still counts as committed memory.
    let committed = !shared
        && flags & vma_flags::ACCOUNT != 0
        && flags & (vma_flags::WRITE | vma_flags::NORESERVE) == 0;
    if committed {
        prot |= bindings::PROT_WRITE;
    }
    map |= if flags & vma_flags::DROPPABLE != 0 {
        bindings::MAP_DROPPABLE
    } else if shared {
        bindings::MAP_SHARED
    } else {
        bindings::MAP_PRIVATE
    };
    let (file, offset) = match vma.kind.get() {
        vma_kind::ANON => {
            map |= bindings::MAP_ANONYMOUS;
            (core::ptr::null_mut(), 0)
        }
        _ => (
            blueprint.file(vma.object.get())?.as_ptr(),
            usize::try_from(vma.offset.get())?,
        ),
    };
    // SAFETY: `file` is null or valid; the kernel checks the rest as for mmap(2).
    let at = unsafe {
        bindings::vm_mmap(
            file,
            start,
            len,
            usize::try_from(prot)?,
            usize::try_from(map)?,
            offset,
        )
    };
    if at != start {
        // An error comes as an address in the last page.
        let err = 0usize.wrapping_sub(at);
        let err = i32::try_from(err).map_or(EINVAL.to_errno(), |err| -err);
        return Err(Error::from_errno(err));
    }
    if committed {
        // SAFETY: The current task runs in this address space.
        kernel::error::to_result(unsafe {
            bindings::checkpoint_protect(start, start + len, bindings::VM_WRITE)
        })?;
    }
    for flag in FLAGS.iter().filter(|flag| flags & flag.image != 0) {
        if let Back::Advice(advice) = flag.back {
            // SAFETY: The current task runs in this address space.
            kernel::error::to_result(unsafe {
                bindings::do_madvise(
                    (*bindings::get_current()).mm,
                    start,
                    len,
                    i32::try_from(advice)?,
                )
            })?;
        }
    }
    Ok(())
}
