// SPDX-License-Identifier: GPL-2.0

//! Huge pages that mmap(MAP_ANONYMOUS | MAP_HUGETLB) made, private and shared.
//!
//! A snapshot does not keep them: a write of the original takes them from the copy when there are
//! no more of them. So the tree stands still until they are written.
//!
//! Both kinds are mapped from a file of the kernel's own, which is made before any task exists.
//! That there are enough of them is checked with the plan.
//!
//! No locks but those of page tables: see `pages.rs`.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::{
            vma_flags,
            Hugetlb,
            Vma, //
        },
        RecordRef, //
    },
    objects::Class,
    plan::Opening,
    report::{
        Place,
        Report, //
    },
    save::{
        Memory,
        Saver, //
    }, //
};

/// What the kernel calls the file behind such memory.
const NAME: &CStr = c"anon_hugepage";

/// Whether `file`, which is mapped, is such memory.
pub(crate) fn is_anonymous(file: &File) -> bool {
    shift(file) != 0 && files::name_is(file, NAME)
}

fn shift(file: &File) -> u32 {
    // SAFETY: `file` is valid.
    unsafe { bindings::checkpoint_hugetlb_shift(file.as_ptr()) }
}

/// Saves `file` unless it has been, and returns its number.
pub(crate) fn save(saver: &mut Saver<'_>, file: &ARef<File>, shared: bool) -> Result<u32> {
    saver.stand_still(c"huge pages");
    let inode = files::inode(file);
    if let Some(id) = saver.objects.get(Class::Hugetlb, inode) {
        return Ok(id);
    }
    let size = files::stat(file)?.size;
    let record = Hugetlb {
        size: size.into(),
        page_shift: shift(file).into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[])?;
    saver.objects.insert(Class::Hugetlb, inode, id)?;
    let file = file.clone();
    if shared {
        let memory = Memory::Hugetlb { id, file, size };
        saver.memory.push(memory, GFP_KERNEL)?;
    } else {
        saver.keep(file)?;
    }
    Ok(id)
}

/// Makes such memory as large as a record says, all of it holes.
///
/// # Errors
///
/// `ENODEV` when the machine has no huge pages of the size, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<Hugetlb>().map_err(|_| EINVAL)?;
    let size = usize::try_from(record.size.get())?;
    let shift = record.page_shift.get();
    // SAFETY: The name is a constant.
    let file = unsafe { bindings::checkpoint_hugetlb_file(NAME.as_char_ptr(), size, shift) };
    files::owned(file).inspect_err(|err| {
        let kib = 1u64.checked_shl(shift).unwrap_or(0) / 1024;
        opening
            .report
            .problem(Place::Tree, fmt!("huge pages of {kib} KiB: {err:?}"));
    })
}

/// Checks that the machine has the huge pages that mappings of object `id` take.
pub(crate) fn check<'a>(
    id: u32,
    record: &Hugetlb,
    vmas: impl Iterator<Item = &'a Vma>,
    report: &mut Report,
) {
    let mut bytes = 0u64;
    for vma in vmas.filter(|vma| vma.object.get() == id) {
        if vma.flags.get() & vma_flags::MAYSHARE != 0 {
            // All mappings have the same pages.
            bytes = record.size.get();
            break;
        }
        bytes = bytes.saturating_add(vma.end.get() - vma.start.get());
    }
    let shift = record.page_shift.get();
    let needed = bytes.checked_shr(shift).unwrap_or(0);
    // SAFETY: The function looks at the machine.
    let free = unsafe { bindings::checkpoint_hugetlb_free(shift) };
    if needed > free {
        let kib = 1u64.checked_shl(shift).unwrap_or(0) / 1024;
        report.problem(
            Place::Tree,
            fmt!("huge pages of {kib} KiB: {needed} needed, {free} free"),
        );
    }
}
