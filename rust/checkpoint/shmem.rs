// SPDX-License-Identifier: GPL-2.0

//! Shared anonymous memory: what mmap(MAP_SHARED | MAP_ANONYMOUS) made, shared by fork.
//!
//! It is mapped from a file of the kernel's own, which is made before any task exists.
//!
//! No locks but those of the page cache.

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::Shmem,
        RecordRef, //
    },
    objects::Class,
    pages::each_page,
    plan::Opening,
    report::Place,
    save::{
        Memory,
        Saver, //
    },
    stream::interrupted, //
};

/// What the kernel calls the file behind such memory.
const NAME: &CStr = c"dev/zero";

/// Whether `file`, which is mapped, is shared anonymous memory.
pub(crate) fn is_anonymous(file: &File) -> bool {
    files::is_internal_shmem(file) && files::name_is(file, NAME)
}

/// Saves `file` unless it has been, and returns its number.
pub(crate) fn save(saver: &mut Saver<'_>, file: &ARef<File>) -> Result<u32> {
    // Several files may stand for the memory, as after mremap(2); the inode is the identity.
    let inode = files::inode(file);
    if let Some(id) = saver.objects.get(Class::Shmem, inode) {
        return Ok(id);
    }
    let size = files::stat(file)?.size;
    let record = Shmem {
        size: size.into(),
        flags: 0.into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[])?;
    saver.objects.insert(Class::Shmem, inode, id)?;
    saver.memory.push(
        Memory::Shmem {
            id,
            file: file.clone(),
            size,
        },
        GFP_KERNEL,
    )?;
    Ok(id)
}

/// How many pages `file` has.
pub(crate) fn pages(file: &File) -> Result<usize> {
    Ok(usize::try_from(files::stat(file)?.blocks)? * 512 / PAGE_SIZE)
}

/// Copies what `file` of `size` bytes holds into memory of the caller's.
///
/// # Errors
///
/// `ENOMEM`, `EINTR`.
pub(crate) fn copy(file: &File, size: u64) -> Result<ARef<File>> {
    // SAFETY: The name is a constant.
    let copy = files::owned(unsafe {
        bindings::checkpoint_shmem_file(NAME.as_char_ptr(), i64::try_from(size)?)
    })?;
    each_page(file, size, |at| {
        interrupted()?;
        // SAFETY: Both files are valid.
        to_result(unsafe {
            bindings::checkpoint_copy_shmem_page(file.as_ptr(), copy.as_ptr(), at / PAGE_SIZE)
        })
    })?;
    Ok(copy)
}

/// Makes shared anonymous memory as large as a record says, all of it holes.
///
/// # Errors
///
/// `ENOMEM`, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let id = record.id;
    let (record, _) = record.get::<Shmem>().map_err(|_| EINVAL)?;
    let size = i64::try_from(record.size.get())?;
    // SAFETY: The name is a constant. The memory is not reserved: it was not either where it stays
    // a hole.
    let file = unsafe { bindings::checkpoint_shmem_file(NAME.as_char_ptr(), size) };
    files::owned(file).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("shared memory {id}: {err:?}"));
    })
}
