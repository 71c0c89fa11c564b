// SPDX-License-Identifier: GPL-2.0

//! Shared anonymous memory: what mmap(MAP_SHARED | MAP_ANONYMOUS) made, shared by fork.

use kernel::{
    bindings,
    fs::File,
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
    plan::Opening,
    report::Place,
    save::{
        Memory,
        Saver, //
    }, //
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
