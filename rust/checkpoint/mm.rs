// SPDX-License-Identifier: GPL-2.0

//! Address spaces: what is mapped where, and the layout that exec made.
//!
//! A process empties its address space as soon as it is created, before it has children. The first
//! process that has it in the image furnishes it with mappings.
//!
//! Not here: the contents, in `pages.rs`.
//!
//! Locks: `mmap_lock` (read), while mappings are copied and what they map is saved; (write) in the
//! functions of `vma.c`.

use core::ptr::{
    self,
    NonNull, //
};

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    sync::aref::ARef,
    task::Pid,
    types::NotThreadSafe, //
};

use zerocopy::IntoBytes;

use crate::{
    aio,
    files::{
        self,
        survey::Saved, //
    },
    hold::{
        Held,
        Still, //
    },
    hugetlb,
    image::record::{
        mm_flags,
        vma_flags,
        vma_kind,
        AnonName,
        Guard,
        Guards,
        Mm,
        Vma,
        Vmas, //
    },
    mempolicy,
    objects::Class,
    plan::Blueprint,
    report::Place,
    save::{
        Memory,
        Saver, //
    },
    shmem,
    stream::interrupted, //
};

/// A mapping that fork(2) does not copy.
pub(crate) struct Uncovered {
    start: usize,
    /// The flags that keep it from being copied.
    flags: bindings::vm_flags_t,
}

/// Where a mapping of the kernel's is.
#[derive(Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
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

    /// Copies the address space as fork(2) does: contents are shared until one side writes. Nobody
    /// runs in it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINTR`.
    pub(crate) fn snapshot(&self, uncovered: &[Uncovered]) -> Result<Self> {
        let mut changed = 0;
        let mut result = Ok(());
        for vma in uncovered {
            // SAFETY: The address space is alive.
            result = to_result(unsafe {
                bindings::checkpoint_clear_vma_flags(self.as_raw(), vma.start, vma.flags)
            });
            if result.is_err() {
                break;
            }
            changed += 1;
        }
        let mm = if result.is_ok() {
            // SAFETY: The address space is alive. The copy belongs to the caller, who pays for it,
            // not to the task that is copied.
            unsafe { bindings::dup_mm(bindings::get_current(), self.as_raw()) }
        } else {
            ptr::null_mut()
        };
        for vma in uncovered.iter().take(changed) {
            // SAFETY: As above.
            unsafe { bindings::checkpoint_restore_vma_flags(self.as_raw(), vma.start, vma.flags) };
        }
        result?;
        // INVARIANT: dup_mm() returns an address space with one user.
        Ok(Self {
            mm: NonNull::new(mm).ok_or(ENOMEM)?,
        })
    }

    /// Private pages, in memory and in swap.
    pub(crate) fn private_pages(&self) -> usize {
        // SAFETY: The address space is alive.
        unsafe { bindings::checkpoint_private_pages(self.as_raw()) }
    }

    /// Whether those who pay for the address space have room for so many more pages.
    pub(crate) fn has_room_for(&self, pages: usize) -> bool {
        // SAFETY: The address space is alive.
        unsafe { bindings::checkpoint_has_room(self.as_raw(), pages) }
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
        to_result(unsafe { bindings::checkpoint_mmap_lock(self.as_raw()) })?;
        // INVARIANT: The lock has just been taken.
        Ok(ReadGuard {
            mm: self,
            _nts: NotThreadSafe,
        })
    }
}

/// Whether those who pay for the caller have room for so many more pages.
pub(crate) fn caller_has_room_for(pages: usize) -> bool {
    // SAFETY: The caller came by a system call, and has an address space.
    unsafe { bindings::checkpoint_has_room((*bindings::get_current()).mm, pages) }
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

    /// Calls `each` with every mapping, in their order.
    fn each(&self, mut each: impl FnMut(&VmaView<'_>) -> Result) -> Result {
        let mut found = [ptr::null_mut(); 64];
        let mut at = 0;
        loop {
            // SAFETY: By the type invariant the lock is held; there is room for so many.
            let count = unsafe {
                bindings::checkpoint_vmas(self.mm.as_raw(), at, found.as_mut_ptr(), found.len())
            };
            for vma in found.iter().take(count) {
                let vma = VmaView {
                    vma: NonNull::new(*vma).ok_or(EINVAL)?,
                    _guard: self,
                };
                at = vma.end();
                each(&vma)?;
            }
            if count < found.len() {
                return Ok(());
            }
        }
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

    /// Address at which anonymous memory was first mapped.
    fn anon_offset(&self) -> u64 {
        // SAFETY: As above.
        let pgoff = unsafe { bindings::checkpoint_anon_pgoff(self.vma.as_ptr()) };
        pgoff as u64 * kernel::page::PAGE_SIZE as u64
    }

    /// What it has in common with the mappings that fork(2) made of the same one, or 0.
    fn anon_root(&self) -> usize {
        // SAFETY: As above.
        unsafe { bindings::checkpoint_anon_root(self.vma.as_ptr()) }.addr()
    }

    /// Saves its name, and returns the number of that, 0 for none.
    fn save_name(&self, saver: &mut Saver<'_>) -> Result<u32> {
        // SAFETY: As above.
        let name = unsafe { bindings::checkpoint_anon_name(self.vma.as_ptr()) };
        if name.is_null() {
            return Ok(0);
        }
        if let Some(id) = saver.objects.get(Class::AnonName, name) {
            return Ok(id);
        }
        // SAFETY: The lock is held, so the mapping keeps its name.
        let text = unsafe { CStr::from_char_ptr(name) };
        let id = saver.object(&AnonName { reserved: 0.into() }, &[text.to_bytes()])?;
        saver.objects.insert(Class::AnonName, name, id)?;
        Ok(id)
    }

    /// Appends the guard regions in it.
    fn guards(&self, guards: &mut KVVec<Guard>) -> Result {
        let (mut at, last) = (self.start(), self.end());
        while at < last {
            let (mut start, mut end) = (at, last);
            // SAFETY: The lock is held.
            let found = unsafe {
                bindings::checkpoint_next_guard(self._guard.mm.as_raw(), &mut start, &mut end)
            };
            match found {
                0 => break,
                1 => {}
                err => return Err(Error::from_errno(err)),
            }
            guards.push(
                Guard {
                    start: (start as u64).into(),
                    end: (end as u64).into(),
                },
                GFP_KERNEL,
            )?;
            at = end;
        }
        Ok(())
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
    /// By itself when private anonymous memory is mapped, afterwards to other mappings.
    Late,
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
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_DONTCOPY_BIT,
        image: vma_flags::DONTFORK,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_WIPEONFORK_BIT,
        image: vma_flags::WIPEONFORK,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_DONTDUMP_BIT,
        image: vma_flags::DONTDUMP,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_HUGEPAGE_BIT,
        image: vma_flags::HUGEPAGE,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_NOHUGEPAGE_BIT,
        image: vma_flags::NOHUGEPAGE,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_NORESERVE_BIT,
        image: vma_flags::NORESERVE,
        back: Back::Map(bindings::MAP_NORESERVE),
    },
    Flag {
        bit: bindings::VMA_SEQ_READ_BIT,
        image: vma_flags::SEQ_READ,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_RAND_READ_BIT,
        image: vma_flags::RAND_READ,
        back: Back::Late,
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
    Flag {
        bit: bindings::VMA_LOCKONFAULT_BIT,
        image: vma_flags::LOCKONFAULT,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_MERGEABLE_BIT,
        image: vma_flags::MERGEABLE,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_SEALED_BIT,
        image: vma_flags::SEALED,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_PKEY_BIT0_BIT,
        image: vma_flags::PKEY0,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_PKEY_BIT1_BIT,
        image: vma_flags::PKEY1,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_PKEY_BIT2_BIT,
        image: vma_flags::PKEY2,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_PKEY_BIT3_BIT,
        image: vma_flags::PKEY3,
        back: Back::Late,
    },
    Flag {
        bit: bindings::VMA_MAYBE_GUARD_BIT,
        image: vma_flags::GUARDED,
        back: Back::Late,
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
    (bindings::VMA_SYNC_BIT, "MAP_SYNC"),
];

/// Flags that keep others from being set, or that have to wait for guard regions.
const LATE: bindings::vm_flags_t = (1 << bindings::VMA_LOCKED_BIT)
    | (1 << bindings::VMA_LOCKONFAULT_BIT)
    | (1 << bindings::VMA_SEALED_BIT);

/// Flags of what fork(2) does not copy.
const NOT_COPIED: bindings::vm_flags_t =
    (1 << bindings::VMA_DONTCOPY_BIT) | (1 << bindings::VMA_WIPEONFORK_BIT);

/// Only tells that pages were written since somebody asked; it starts anew.
const IGNORED: u64 = 1 << bindings::VMA_SOFTDIRTY_BIT;

fn bit(number: u32) -> u64 {
    1u64.checked_shl(number).unwrap_or(0)
}

/// Bits in the image by the numbers of those in the kernel; 0 for none.
const IMAGE: [u32; u64::BITS as usize] = {
    let mut image = [0; u64::BITS as usize];
    let mut row = 0;
    while row < FLAGS.len() {
        image[FLAGS[row].bit as usize] = FLAGS[row].image;
        row += 1;
    }
    image
};

/// Translates the flags of a mapping, or says which one has no place in an image.
fn image_flags(flags: u64) -> Result<u32, Option<&'static str>> {
    let mut image = 0;
    let mut unknown = 0;
    let mut rest = flags & !IGNORED;
    while rest != 0 {
        let number = rest.trailing_zeros();
        rest &= rest - 1;
        match IMAGE.get(number as usize) {
            Some(0) | None => unknown |= bit(number),
            Some(known) => image |= known,
        }
    }
    if unknown == 0 {
        return Ok(image);
    }
    Err(REFUSED
        .iter()
        .find(|(number, _)| unknown & bit(*number) != 0)
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
    let mut uncovered = KVVec::new();
    let mut guards = KVVec::new();
    let mut contexts = 0;
    let mut special = Special::default();
    let guard = mm.read_lock()?;
    guard.each(|vma| {
        if let Some(saved) = save_vma(saver, pid, vma, &mut special)? {
            let flags = saved.flags.get();
            let skipped = vma.flags() as bindings::vm_flags_t & NOT_COPIED;
            if skipped != 0 && flags & (vma_flags::MAYSHARE | vma_flags::DROPPABLE) == 0 {
                uncovered.push(
                    Uncovered {
                        start: vma.start(),
                        flags: skipped,
                    },
                    GFP_KERNEL,
                )?;
            }
            if flags & vma_flags::GUARDED != 0 {
                vma.guards(&mut guards)?;
            }
            contexts += usize::from(saved.kind.get() == vma_kind::AIO);
            vmas.push(saved, GFP_KERNEL)?;
        }
        Ok(())
    })?;
    drop(guard);
    let vdso = special.check(saver, pid, &mm);

    let (Some(exe), Some(flags)) = (exe, flags) else {
        return Ok(None);
    };
    if saver.report.count() == problems {
        aio::check_all(saver, Place::Task(pid), &mm, contexts)?;
    }
    if saver.report.count() != problems {
        return Ok(None);
    }
    let raw = mm.as_raw();
    let (mut pkeys, mut execute_only) = (0, 0);
    // SAFETY: The address space is alive and its tasks stand still, so nothing changes the layout.
    let (record, auxv) = unsafe {
        bindings::checkpoint_pkeys(raw, &mut pkeys, &mut execute_only);
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
                pkeys: pkeys.into(),
                execute_only_pkey: execute_only.into(),
                reserved: [0; 24],
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
    for part in guards.chunks(VMAS_A_RECORD) {
        let record = Guards {
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
            uncovered,
        },
        GFP_KERNEL,
    )?;
    Ok(Some(id))
}

/// Mappings, or guard regions, in one record, well below what a record may hold.
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
    let mut flags = if topdown { 0 } else { mm_flags::LEGACY_LAYOUT };
    let (mut future, mut onfault) = (false, false);
    // SAFETY: As above.
    unsafe { bindings::checkpoint_lock_future(raw, &mut future, &mut onfault) };
    if future {
        flags |= mm_flags::LOCK_FUTURE;
    }
    if onfault {
        flags |= mm_flags::LOCK_ONFAULT;
    }
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

/// Saves what is in the executables of `tasks` and in the files that they have mapped.
///
/// # Errors
///
/// `ENOMEM`, `EINTR`.
pub(crate) fn save_files(saver: &mut Saver<'_>, tasks: &[Held]) -> Result {
    let mut last = ptr::null_mut();
    for held in tasks.iter().filter(|held| held.state() != Still::Zombie) {
        // SAFETY: `held` keeps its task.
        let mm = unsafe { MmRef::of(held.as_raw()) }?;
        // Threads, which follow one another, share it.
        if mm.as_raw() == last {
            continue;
        }
        last = mm.as_raw();
        let mut files = KVVec::new();
        files.extend_from_slice(exe(&mm).as_slice(), GFP_KERNEL)?;
        // They are opened when the lock is free.
        mm.read_lock()?.each(|vma| {
            let last = files.last().map(|file: &ARef<File>| files::inode(file));
            match vma.file() {
                Some(file) if last != Some(files::inode(&file)) => {
                    Ok(files.push(file, GFP_KERNEL)?)
                }
                _ => Ok(()),
            }
        })?;
        for file in files.iter() {
            files::unnamed::save_along(saver, Place::Task(held.pid()), file)?;
        }
    }
    Ok(())
}

/// The executable, if there is one.
fn exe(mm: &MmRef) -> Option<ARef<File>> {
    // SAFETY: The address space is alive; the file comes with a reference.
    let exe = NonNull::new(unsafe { bindings::get_mm_exe_file(mm.as_raw()) })?;
    // SAFETY: The reference is ours.
    Some(unsafe { ARef::from_raw(exe.cast()) })
}

fn save_exe(saver: &mut Saver<'_>, pid: Pid, mm: &MmRef) -> Result<Option<u32>> {
    let Some(exe) = exe(mm) else {
        saver.refuse(Place::Task(pid), fmt!("no executable"));
        return Ok(None);
    };
    // What a restart made of saved contents is a memfd.
    if files::unnamed::is_memfd(&exe) {
        return files::save_mapped(saver, Place::Task(pid), &exe);
    }
    if let Some(id) = saver.survey.saved(exe.as_ptr()).id() {
        return Ok(Some(id));
    }
    let id = files::regular::save(saver, Place::Task(pid), &exe)?;
    if let Some(id) = id {
        saver.remember(&exe, Saved::As(id))?;
    }
    Ok(id)
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
    let name = vma.save_name(saver)?;
    // SAFETY: The address space is locked.
    let policy = unsafe { mempolicy::save(saver, place, vma.vma.as_ptr(), ptr::null_mut()) }?;
    let Some(policy) = policy else {
        return Ok(None);
    };
    let family = if vma.flags() & bit(bindings::VMA_MAYSHARE_BIT) == 0 {
        saver.family(vma.anon_root())?
    } else {
        0
    };
    let record = |offset: u64, flags: u32, kind: u32, object: u32| Vma {
        start: (range.start as u64).into(),
        end: (range.end as u64).into(),
        offset: offset.into(),
        flags: flags.into(),
        kind: kind.into(),
        object: object.into(),
        name: name.into(),
        policy: policy.into(),
        family: family.into(),
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

    let huge = bit(bindings::VMA_HUGETLB_BIT);
    let ring = vma.file().filter(|file| aio::is_ring(file));
    let mut kernel_flags = vma.flags();
    if kernel_flags & huge != 0 || ring.is_some() {
        // What is mapped says so.
        kernel_flags &= !(huge | bit(bindings::VMA_DONTEXPAND_BIT));
    }
    if vma.file().is_some_and(|file| files::uring::is_ring(&file)) {
        // SAFETY: The address space is locked.
        if !unsafe { files::uring::check_mapping(saver, place, vma.vma.as_ptr()) } {
            return Ok(None);
        }
        kernel_flags &= !files::uring::VMA_FLAGS;
    }
    let flags = match image_flags(kernel_flags) {
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
    if let Some(ring) = ring {
        let (at, offset) = ((range.start, range.end), vma.offset());
        let id = aio::save(saver, place, &ring, at, offset, flags)?;
        return Ok(id.map(|id| record(0, flags, vma_kind::AIO, id)));
    }
    let Some(file) = vma.file() else {
        return Ok(Some(record(vma.anon_offset(), flags, vma_kind::ANON, 0)));
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
    if hugetlb::is_anonymous(&file) {
        let shared = flags & vma_flags::MAYSHARE != 0;
        if !shared && flags & vma_flags::WRITE == 0 && vma.anon_root() != 0 {
            // The kernel does not fill such pages by force.
            saver.refuse(
                place,
                fmt!("huge pages that cannot be written: not supported"),
            );
            return Ok(None);
        }
        let id = hugetlb::save(saver, &file, shared)?;
        return Ok(Some(record(vma.offset(), flags, vma_kind::HUGETLB, id)));
    }
    if vma.flags() & huge != 0 {
        saver.refuse(place, fmt!("hugetlb file: not supported"));
        return Ok(None);
    }
    let Some(id) = files::save_mapped(saver, place, &file)? else {
        return Ok(None);
    };
    Ok(Some(record(vma.offset(), flags, vma_kind::FILE, id)))
}

/// Maps what `mm` of the image has into the address space of the current task, which is empty.
/// Contents come later.
///
/// # Errors
///
/// What mmap(2) and madvise(2) say.
pub(crate) fn restore(blueprint: &Blueprint, mm: u32) -> Result {
    let (record, auxv) = blueprint.mm(mm)?;

    let exe = blueprint.file(record.exe.get())?;
    // SAFETY: `exe` was checked to be executable by the caller.
    to_result(unsafe {
        bindings::replace_mm_exe_file((*bindings::get_current()).mm, exe.as_ptr())
    })?;

    // SAFETY: The current task is the only one in its address space.
    to_result(unsafe {
        bindings::checkpoint_set_pkeys(record.pkeys.get(), record.execute_only_pkey.get())
    })?;
    let mut special = None;
    let mut batch = Batch::new()?;
    let mut guards = blueprint.guards(mm).peekable();
    for vma in blueprint.vmas(mm) {
        if matches!(vma.kind.get(), vma_kind::VDSO | vma_kind::SPECIAL) {
            special.get_or_insert(vma.start.get());
        } else if is_plain(vma) {
            batch.add(map_of(blueprint, vma)?)?;
        } else if vma.kind.get() == vma_kind::AIO {
            aio::restore(blueprint, vma)?;
            finish_vma(blueprint, vma)?;
        } else {
            restore_vma(blueprint, vma, &mut batch)?;
            while let Some(guard) = guards.next_if(|guard| guard.end.get() <= vma.end.get()) {
                restore_guard(guard)?;
            }
            finish_vma(blueprint, vma)?;
        }
    }
    batch.flush()?;
    if let Some(start) = special {
        // SAFETY: The current task has an address space of its own without a vdso.
        to_result(unsafe { bindings::checkpoint_map_vdso(usize::try_from(start)?) })?;
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
    // SAFETY: `auxv` is valid for reads of its length, and the map is validated before it is
    // applied.
    unsafe {
        to_result(bindings::checkpoint_set_layout(
            &mut map,
            auxv.as_ptr().cast(),
            auxv.len(),
            usize::try_from(record.mmap_base.get())?,
            record.coredump_filter.get(),
            record.flags.get() & mm_flags::LEGACY_LAYOUT == 0,
        ))?;
        if record.flags.get() & mm_flags::LOCK_FUTURE != 0 {
            let onfault = record.flags.get() & mm_flags::LOCK_ONFAULT != 0;
            to_result(bindings::checkpoint_set_lock_future(onfault))?;
        }
    }
    Ok(())
}

/// Private anonymous mappings on their way, made many at a time.
struct Batch {
    maps: KVVec<bindings::checkpoint_vma>,
}

impl Batch {
    const LEN: usize = 256;

    fn new() -> Result<Self> {
        Ok(Self {
            maps: KVVec::with_capacity(Self::LEN, GFP_KERNEL)?,
        })
    }

    fn add(&mut self, map: bindings::checkpoint_vma) -> Result {
        self.maps.push(map, GFP_KERNEL)?;
        if self.maps.len() >= Self::LEN {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result {
        // SAFETY: The current task runs in its address space; the names are those of the plan.
        let done = unsafe {
            bindings::checkpoint_map_anon(self.maps.as_ptr(), u32::try_from(self.maps.len())?)
        };
        self.maps.clear();
        to_result(done)
    }
}

/// Whether a mapping is made in one step.
fn is_plain(vma: &Vma) -> bool {
    vma.kind.get() == vma_kind::ANON
        && vma.flags.get() & (vma_flags::DROPPABLE | vma_flags::GUARDED) == 0
        && vma.policy.get() == 0
}

/// The description of a mapping for the kernel side, without its policy.
fn map_of(blueprint: &Blueprint, vma: &Vma) -> Result<bindings::checkpoint_vma> {
    let flags = vma.flags.get();
    let shared = vma_flags::SHARED | vma_flags::MAYSHARE;
    if vma.kind.get() == vma_kind::ANON && flags & shared != 0 {
        return Err(EINVAL);
    }
    let name = blueprint.anon_name(vma.name.get());
    Ok(bindings::checkpoint_vma {
        start: usize::try_from(vma.start.get())?,
        end: usize::try_from(vma.end.get())?,
        pgoff: usize::try_from(vma.offset.get())? / kernel::page::PAGE_SIZE,
        flags: FLAGS
            .iter()
            .filter(|flag| flags & flag.image != 0)
            .fold(0, |bits, flag| bits | bit(flag.bit))
            .try_into()?,
        name: name.map_or(ptr::null(), |name| name.as_ptr().cast()),
        name_len: name.map_or(0, <[u8]>::len),
        policy: ptr::null(),
    })
}

/// Gives a mapping what it gets when its guard regions are there: nobody may change a sealed one,
/// and a locked one can have none.
fn finish_vma(blueprint: &Blueprint, vma: &Vma) -> Result {
    let mut map = map_of(blueprint, vma)?;
    let mut policy = blueprint.mempolicy(vma.policy.get())?;
    if let Some(policy) = &mut policy {
        map.policy = policy.get();
    }
    // SAFETY: The current task runs in its address space; name and policy are valid for the call.
    to_result(unsafe { bindings::checkpoint_finish_vma(&map) })
}

fn restore_guard(guard: &Guard) -> Result {
    let start = usize::try_from(guard.start.get())?;
    let len = usize::try_from(guard.end.get())? - start;
    let advice = i32::try_from(bindings::MADV_GUARD_INSTALL)?;
    // SAFETY: The current task runs in this address space.
    to_result(unsafe { bindings::do_madvise((*bindings::get_current()).mm, start, len, advice) })
}

/// Relates private mappings that were once one, before any has a page: those of one address space
/// as if it had been split, those of several as fork(2) would have done. `spaces` are numbers in
/// the image, with the address spaces.
///
/// # Errors
///
/// `ENOMEM`, `EINTR`.
pub(crate) fn relate(blueprint: &Blueprint, spaces: &[(u32, MmRef)]) -> Result {
    let mut members = KVVec::new();
    for (number, (id, _)) in spaces.iter().enumerate() {
        for vma in blueprint.vmas(*id).filter(|vma| vma.family.get() != 0) {
            let start = usize::try_from(vma.start.get())?;
            members.push((vma.family.get(), number, start), GFP_KERNEL_ACCOUNT)?;
        }
    }
    members.as_mut_slice().sort_unstable();
    let mut starts = KVVec::new();
    for family in members
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|family| family.len() > 1)
    {
        let Some((_, root, root_start)) = family.first().copied() else {
            continue;
        };
        let (_, root) = spaces.get(root).ok_or(EINVAL)?;
        for group in family.chunk_by(|a, b| a.1 == b.1) {
            let Some((_, number, start)) = group.first().copied() else {
                continue;
            };
            let (_, mm) = spaces.get(number).ok_or(EINVAL)?;
            starts.clear();
            for (_, _, start) in group {
                starts.push(*start, GFP_KERNEL_ACCOUNT)?;
            }
            let others = starts.get(1..).unwrap_or_default();
            // SAFETY: Both are alive, and nobody runs in them.
            unsafe {
                to_result(bindings::checkpoint_relate(
                    root.as_raw(),
                    root_start,
                    mm.as_raw(),
                    &start,
                    1,
                ))?;
                to_result(bindings::checkpoint_relate(
                    mm.as_raw(),
                    start,
                    mm.as_raw(),
                    others.as_ptr(),
                    u32::try_from(others.len())?,
                ))?;
            }
        }
        interrupted()?;
    }
    Ok(())
}

/// Makes all of locked mappings present.
///
/// # Errors
///
/// `EINTR`.
pub(crate) fn populate(blueprint: &Blueprint, id: u32, mm: &MmRef) -> Result {
    let locked = |vma: &Vma| {
        vma.flags.get() & (vma_flags::LOCKED | vma_flags::LOCKONFAULT) == vma_flags::LOCKED
    };
    if !blueprint.vmas(id).any(locked) {
        return Ok(());
    }
    // SAFETY: The address space is alive.
    to_result(unsafe { bindings::checkpoint_populate_locked(mm.as_raw()) })
}

/// Maps what takes more than one step, or is not private anonymous memory, but for what
/// [`finish_vma`] does.
fn restore_vma(blueprint: &Blueprint, vma: &Vma, batch: &mut Batch) -> Result {
    let flags = vma.flags.get();
    if vma.kind.get() == vma_kind::ANON && flags & vma_flags::DROPPABLE == 0 {
        let mut map = map_of(blueprint, vma)?;
        map.flags &= !LATE;
        batch.add(map)?;
        return batch.flush();
    }
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
            Back::Late | Back::Implied => {}
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
    let file = match vma.kind.get() {
        vma_kind::ANON => None,
        _ => Some(blueprint.file(vma.object.get())?),
    };
    if let Some(ring) = file.as_ref().filter(|file| files::uring::is_ring(file)) {
        let map = map_of(blueprint, vma)?;
        // SAFETY: The current task runs in its address space; `ring` is valid.
        return to_result(unsafe { bindings::checkpoint_map_ring(&map, ring.as_ptr()) });
    }
    let (file, offset) = match &file {
        None => {
            map |= bindings::MAP_ANONYMOUS;
            (core::ptr::null_mut(), 0)
        }
        Some(file) => (file.as_ptr(), usize::try_from(vma.offset.get())?),
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
        to_result(unsafe { bindings::checkpoint_protect(start, start + len, bindings::VM_WRITE) })?;
    }
    Ok(())
}
