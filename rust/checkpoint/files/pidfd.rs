// SPDX-License-Identifier: GPL-2.0

//! Pidfds of tasks of the tree. They come back when all tasks exist.

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
            pidfd_flags,
            FilePidfd, //
        },
        RecordRef, //
    },
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Flags of pidfd_open(2) and clone3(2) that a pidfd keeps, and their bits in the image.
const FLAGS: &[(u32, u32)] = &[
    (bindings::PIDFD_THREAD, pidfd_flags::THREAD),
    (bindings::PIDFD_AUTOKILL, pidfd_flags::AUTOKILL),
];

/// Whether `file` is a pidfd.
pub(crate) fn is_pidfd(file: &File) -> bool {
    // SAFETY: `file` is valid; the result is an error or a pid, which is not followed.
    let pid = unsafe { bindings::pidfd_pid(file.as_ptr()) };
    kernel::error::from_err_ptr(pid).is_ok()
}

/// Whether `file` is a pidfd of a task that lives, and is not in the tree.
pub(crate) fn leads_outside(saver: &Saver<'_>, file: &File) -> bool {
    if !is_pidfd(file) {
        return false;
    }
    // SAFETY: `file` is a pidfd.
    let pid = unsafe { bindings::checkpoint_pidfd_target(file.as_ptr()) };
    pid != 0 && !saver.is_task(pid)
}

/// Every pidfd.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    is_pidfd(file)
}

/// Saves an open pidfd.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    // SAFETY: `file` is a pidfd.
    let pid = unsafe { bindings::checkpoint_pidfd_target(file.as_ptr()) };
    if pid == 0 {
        saver.refuse(place, fmt!("pidfd of a reaped task: not supported"));
        return Ok(None);
    }
    if !saver.is_task(pid) {
        saver.refuse(
            place,
            fmt!("pidfd of task {pid}, which is outside the tree: not supported"),
        );
        return Ok(None);
    }
    let raw = file.flags();
    let kept = FLAGS
        .iter()
        .filter(|(kernel, _)| raw & kernel != 0)
        .fold(0, |flags, (_, image)| flags | image);
    let record = FilePidfd {
        flags: files::image_flags(file).into(),
        pid: pid.into(),
        pidfd_flags: kept.into(),
        reserved: 0.into(),
    };
    saver.object(&record, &[]).map(Some)
}

/// Opens the pidfd of a record again.
///
/// # Errors
///
/// `ESRCH` when the image has no such task, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FilePidfd>().map_err(|_| EINVAL)?;
    let pid = record.pid.get();
    let kept = record.pidfd_flags.get();
    let flags = FLAGS
        .iter()
        .filter(|(_, image)| kept & image != 0)
        .fold(0, |flags, (kernel, _)| flags | kernel);
    let status = files::open_flags(record.flags.get()) & bindings::O_NONBLOCK;
    // SAFETY: The function looks the task up in the caller's pid namespace.
    let file = unsafe { bindings::checkpoint_open_pidfd(pid, flags | status) };
    files::owned(file).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("pidfd of task {pid}: {err:?}"));
    })
}
