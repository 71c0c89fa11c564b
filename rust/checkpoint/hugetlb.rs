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
    rbtree::RBTree,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::{
            vma_flags,
            vma_kind,
            Hugetlb,
            Vma, //
        },
        RecordRef, //
    },
    objects::Class,
    plan::{
        Blueprint,
        Opening, //
    },
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

/// Checks that the machine has the huge pages that all mappings take together.
///
/// # Errors
///
/// `ENOMEM` when it has not, with a line in the report for each size of pages.
pub(crate) fn check(plan: &Blueprint, report: &mut Report) -> Result {
    // By size; there are few of them.
    let mut needed: KVVec<(u32, u64)> = KVVec::new();
    let mut shared = RBTree::new();
    let huge = |vma: &&Vma| vma.kind.get() == vma_kind::HUGETLB;
    for vma in plan.all_vmas().filter(huge) {
        let id = vma.object.get();
        let (record, _) = plan.object::<Hugetlb>(id)?;
        let mut bytes = vma.end.get() - vma.start.get();
        if vma.flags.get() & vma_flags::MAYSHARE != 0 {
            // All mappings have the same pages.
            if shared.try_create_and_insert(id, (), GFP_KERNEL)?.is_some() {
                continue;
            }
            bytes = record.size.get();
        }
        let shift = record.page_shift.get();
        let pages = bytes.checked_shr(shift).unwrap_or(0);
        match needed.iter_mut().find(|(of, _)| *of == shift) {
            Some((_, sum)) => *sum = sum.saturating_add(pages),
            None => needed.push((shift, pages), GFP_KERNEL)?,
        }
    }
    let mut result = Ok(());
    for (shift, needed) in needed.iter() {
        // SAFETY: The function looks at the machine.
        let free = unsafe { bindings::checkpoint_hugetlb_free(*shift) };
        if *needed > free {
            let kib = 1u64.checked_shl(*shift).unwrap_or(0) / 1024;
            report.problem(
                Place::Tree,
                fmt!("huge pages of {kib} KiB: {needed} needed, {free} free"),
            );
            result = Err(ENOMEM);
        }
    }
    result
}
