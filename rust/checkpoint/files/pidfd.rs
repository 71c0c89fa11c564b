// SPDX-License-Identifier: GPL-2.0

//! Pidfds of tasks of the tree, which come back when all tasks exist, and of tasks that have been
//! reaped, which tell how those ended.
//!
//! No locks.

use kernel::{
    bindings,
    error::from_err_ptr,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::{
            pidfd_flags,
            reaped_flags,
            FilePidfd,
            ReapedTask, //
        },
        RecordRef, //
    },
    numbers::Bits,
    objects::Class,
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Flags of pidfd_open(2) and clone3(2) that a pidfd keeps, and their bits in the image.
const FLAGS: Bits = Bits(&[
    (bindings::PIDFD_THREAD, pidfd_flags::THREAD),
    (bindings::PIDFD_AUTOKILL, pidfd_flags::AUTOKILL),
]);

/// What `file` refers to, or an error if it is no pidfd.
fn pid(file: &File) -> Result<*mut bindings::pid> {
    // SAFETY: `file` is valid.
    from_err_ptr(unsafe { bindings::pidfd_pid(file.as_ptr()) })
}

/// Whether `file` is a pidfd.
pub(crate) fn is_pidfd(file: &File) -> bool {
    pid(file).is_ok()
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
    let reaped = match pid {
        0 => save_reaped(saver, place, file)?,
        _ => Some(0),
    };
    let Some(reaped) = reaped else {
        return Ok(None);
    };
    if pid != 0 && !saver.is_task(pid) {
        saver.refuse(
            place,
            fmt!("pidfd of task {pid}, which is outside the tree: not supported"),
        );
        return Ok(None);
    }
    let kept = FLAGS.to_image(file.flags());
    let record = FilePidfd {
        flags: files::image_flags(file).into(),
        pid: pid.into(),
        pidfd_flags: kept.into(),
        reaped: reaped.into(),
    };
    saver.object(&record, &[]).map(Some)
}

/// Saves the task that `file` refers to, which has been reaped, unless it has been saved.
fn save_reaped(saver: &mut Saver<'_>, place: Place, file: &File) -> Result<Option<u32>> {
    let pid = pid(file)?;
    if let Some(id) = saver.objects.get(Class::Reaped, pid) {
        return Ok(Some(id));
    }
    let mut end = bindings::pidfd_end::default();
    // SAFETY: `file` is a pidfd, and keeps its pid.
    unsafe { bindings::pidfs_get_end(pid, &mut end) };
    if end.has_xattrs {
        saver.refuse(
            place,
            fmt!("pidfd of a reaped task with extended attributes: not supported"),
        );
        return Ok(None);
    }
    let mut flags = 0;
    if end.exited {
        flags |= reaped_flags::EXITED;
    }
    if end.coredumped {
        flags |= reaped_flags::COREDUMPED;
    }
    let record = ReapedTask {
        flags: flags.into(),
        exit_code: end.exit_code.into(),
        cgroup: end.cgroupid.into(),
        coredump_mask: end.coredump_mask.into(),
        coredump_signal: end.coredump_signal.into(),
        coredump_code: end.coredump_code.into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[])?;
    saver.objects.insert(Class::Reaped, pid, id)?;
    Ok(Some(id))
}

/// Makes a pidfd of a task that was reaped, from which the others are opened.
///
/// # Errors
///
/// `ENOMEM`, `EAGAIN`, with a line in the report.
pub(crate) fn make_reaped(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<ReapedTask>().map_err(|_| EINVAL)?;
    let flags = record.flags.get();
    let end = bindings::pidfd_end {
        exited: flags & reaped_flags::EXITED != 0,
        coredumped: flags & reaped_flags::COREDUMPED != 0,
        exit_code: record.exit_code.get(),
        cgroupid: record.cgroup.get(),
        coredump_mask: record.coredump_mask.get(),
        coredump_signal: record.coredump_signal.get(),
        coredump_code: record.coredump_code.get(),
        ..Default::default()
    };
    // SAFETY: The function makes a file.
    files::owned(unsafe { bindings::pidfs_create_ended(&end) }).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("pidfd of a reaped task: {err:?}"));
    })
}

/// Opens the pidfd of a record again.
///
/// # Errors
///
/// `ESRCH` when the image has no such task, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FilePidfd>().map_err(|_| EINVAL)?;
    let flags = FLAGS.to_kernel(record.pidfd_flags.get());
    let flags = flags | files::open_flags(record.flags.get()) & bindings::O_NONBLOCK;
    let number = record.pid.get();
    if number == 0 {
        let reaped = opening.plan.file(record.reaped.get())?;
        // SAFETY: `reaped` is a pidfd, and keeps its pid.
        return files::owned(unsafe { bindings::pidfs_alloc_file(pid(&reaped)?, flags) });
    }
    // SAFETY: The function looks the task up in the caller's pid namespace.
    let file = unsafe { bindings::checkpoint_open_pidfd(number, flags) };
    files::owned(file).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("pidfd of task {number}: {err:?}"));
    })
}
