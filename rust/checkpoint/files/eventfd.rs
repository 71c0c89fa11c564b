// SPDX-License-Identifier: GPL-2.0

//! Eventfds, with their counter, made before any task exists.
//!
//! Locks: that of the eventfd, while its counter is read.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::FileEventfd,
        RecordRef, //
    },
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// The counter, and whether it is a semaphore's, if `file` is an eventfd.
fn state(file: &File) -> Option<(u64, bool)> {
    let (mut count, mut semaphore) = (0, false);
    // SAFETY: `file` is valid.
    unsafe { bindings::eventfd_get_state(file.as_ptr(), &mut count, &mut semaphore) }
        .then_some((count, semaphore))
}

/// Every eventfd.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    state(file).is_some()
}

/// Saves an open eventfd.
pub(crate) fn save(saver: &mut Saver<'_>, _: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let (count, semaphore) = state(file).ok_or(EBADF)?;
    let record = FileEventfd {
        flags: files::image_flags(file).into(),
        semaphore: u32::from(semaphore).into(),
        count: count.into(),
    };
    saver.object(&record, &[]).map(Some)
}

/// Makes the eventfd of a record.
///
/// # Errors
///
/// What eventfd2(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileEventfd>().map_err(|_| EINVAL)?;
    let semaphore = if record.semaphore.get() != 0 {
        bindings::EFD_SEMAPHORE
    } else {
        0
    };
    // SAFETY: The function makes a file.
    let file = unsafe { bindings::eventfd_create_file(record.count.get(), semaphore as i32) };
    let file = files::owned(file).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("eventfd: {err:?}"));
    })?;
    files::set_status(&file, record.flags.get());
    Ok(file)
}
