// SPDX-License-Identifier: GPL-2.0

//! File locks: POSIX, OFD, flock(2), leases. Who waits for one asks again by himself.
//!
//! The coordinator takes them when all tasks have their descriptors, before anything runs. One that
//! somebody else has taken meanwhile fails the restart.
//!
//! Locks: `flc_lock` of the inode, inside the functions of C only.

use core::ptr;

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*, //
};

use crate::{
    files::{
        inode,
        Name, //
    },
    image::record::{
        lock_kind,
        lock_type,
        Lock, //
    },
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// The locks that `file` itself has, or those that the table `files` has by it.
///
/// # Errors
///
/// `EBUSY` while a lease is being broken, `EOPNOTSUPP` for a delegation.
fn locks_of(
    file: &File,
    files: *mut bindings::files_struct,
) -> Result<Option<KVVec<bindings::checkpoint_lock>>> {
    let get = |to: *mut bindings::checkpoint_lock, max: usize| -> Result<usize> {
        let max = u32::try_from(max)?;
        // SAFETY: `file` is valid, the table is compared only, and there is room for `max` locks.
        let count = unsafe { bindings::checkpoint_get_locks(file.as_ptr(), files, to, max) };
        usize::try_from(count).map_err(|_| Error::from_errno(count))
    };
    let mut count = get(ptr::null_mut(), 0)?;
    // Most have none: an empty vector takes its time, too.
    if count == 0 {
        return Ok(None);
    }
    let mut locks = KVVec::new();
    loop {
        locks.resize(count, bindings::checkpoint_lock::default(), GFP_KERNEL)?;
        count = get(locks.as_mut_ptr(), locks.len())?;
        if count <= locks.len() {
            locks.truncate(count);
            return Ok(Some(locks));
        }
    }
}

/// Whether anybody has had locks on the inode of `file`.
pub(crate) fn may_have(file: &File) -> bool {
    // SAFETY: A file keeps its inode; the pointer is compared only.
    !unsafe { (*inode(file)).i_flctx }.is_null()
}

/// Saves the locks that `file`, which has the number `id`, has of its own, or, with a table and its
/// number, those that this has by descriptor `fd`.
pub(crate) fn save(
    saver: &mut Saver<'_>,
    place: Place,
    file: &File,
    id: u32,
    table: Option<(*mut bindings::files_struct, u32)>,
) -> Result {
    let (raw, files) = table.unwrap_or((ptr::null_mut(), 0));
    let locks = match locks_of(file, raw) {
        Ok(Some(locks)) => locks,
        Ok(None) => return Ok(()),
        Err(err) if [EBUSY, EOPNOTSUPP].contains(&err) => {
            let what = if err == EBUSY {
                "lease that is being broken"
            } else {
                "delegation"
            };
            saver.refuse(place, fmt!("{}: {what}: not supported", Name(file)));
            return Ok(());
        }
        Err(err) => return Err(err),
    };
    for lock in locks.iter() {
        let record = Lock {
            kind: lock.kind.into(),
            ty: if lock.type_ == bindings::F_WRLCK {
                lock_type::WRITE
            } else {
                lock_type::READ
            }
            .into(),
            file: id.into(),
            files: files.into(),
            start: lock.start.into(),
            end: lock.end.into(),
            fd: u32::try_from(lock.fd).unwrap_or(0).into(),
            reserved: 0.into(),
        };
        saver.put(&record, &[])?;
    }
    Ok(())
}

/// Whether `file` has locks of its own.
pub(crate) fn has_any(file: &File) -> bool {
    !matches!(locks_of(file, ptr::null_mut()), Ok(None))
}

/// Whether the table `files` has POSIX locks by `file`.
pub(crate) fn has_posix(file: &File, files: *mut bindings::files_struct) -> bool {
    // SAFETY: `file` is valid, the table is compared only, and no lock is written.
    unsafe { bindings::checkpoint_get_locks(file.as_ptr(), files, ptr::null_mut(), 0) > 0 }
}

/// Takes the lock of a record for `file`; a POSIX lock for the process of `task`.
///
/// # Errors
///
/// What flock(2) and fcntl(2) say, with a line in the report.
///
/// # Safety
///
/// `task` is valid and stands still, with a table of descriptors.
pub(crate) unsafe fn restore(
    record: &Lock,
    file: &File,
    task: *mut bindings::task_struct,
    report: &mut Report,
) -> Result {
    let lock = bindings::checkpoint_lock {
        kind: record.kind.get(),
        type_: if record.ty.get() == lock_type::WRITE {
            bindings::F_WRLCK
        } else {
            bindings::F_RDLCK
        },
        start: record.start.get(),
        end: record.end.get(),
        fd: i32::try_from(record.fd.get())?,
        pid: 0,
    };
    // SAFETY: `file` is valid, `task` by the safety requirement.
    let taken = to_result(unsafe { bindings::checkpoint_set_lock(file.as_ptr(), task, &lock) });
    taken.inspect_err(|err| {
        let kind = usize::try_from(record.kind.get()).unwrap_or_default();
        let kind = lock_kind::NAMES.get(kind.wrapping_sub(1)).unwrap_or(&"");
        let what = if *err == EAGAIN {
            "lock is taken by somebody else"
        } else {
            "lock cannot be taken"
        };
        report.problem(
            Place::Tree,
            fmt!("file {}: {kind} {what}: {err:?}", Name(file)),
        );
    })
}
