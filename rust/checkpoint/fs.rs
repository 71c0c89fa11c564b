// SPDX-License-Identifier: GPL-2.0

//! Working directory and umask. The root directory is the restarter's, by check.
//!
//! The directory is found before any task exists; a task that is furnished enters it.
//!
//! Locks: `task_lock()`, then `seq` of the table, while paths are copied.

use core::mem::MaybeUninit;

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files::{
        self,
        HasPath, //
    },
    hold::Held,
    image::{
        record::Fs,
        RecordRef, //
    },
    objects::Class,
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Root, working directory and umask of a task, each path with a reference.
struct Paths {
    root: bindings::path,
    pwd: bindings::path,
    umask: u32,
}

impl Paths {
    /// # Errors
    ///
    /// `ESRCH` when the task has exited.
    ///
    /// # Safety
    ///
    /// `task` is valid.
    unsafe fn of(task: *mut bindings::task_struct) -> Result<Self> {
        let mut root = MaybeUninit::uninit();
        let mut pwd = MaybeUninit::uninit();
        let mut umask = 0;
        // SAFETY: `task` is valid; the function writes all three or fails.
        unsafe {
            to_result(bindings::checkpoint_get_fs(
                task,
                root.as_mut_ptr(),
                pwd.as_mut_ptr(),
                &mut umask,
            ))?;
            Ok(Self {
                root: root.assume_init(),
                pwd: pwd.assume_init(),
                umask: u32::try_from(umask)?,
            })
        }
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        // SAFETY: The references are ours.
        unsafe {
            bindings::path_put(&self.root);
            bindings::path_put(&self.pwd);
        }
    }
}

/// Saves the working directory and umask of `held` unless they have been, and returns their number.
///
/// Returns `None` when something was refused.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held) -> Result<Option<u32>> {
    let place = Place::Task(held.pid());
    // SAFETY: `held` keeps its task, which stands still: the pointer is read, not followed.
    let fs = unsafe { (*held.as_raw()).fs };
    if let Some(id) = saver.objects.get(Class::Fs, fs) {
        return Ok(Some(id));
    }
    // SAFETY: `held` keeps its task, and the current one is valid.
    let (paths, own) = unsafe {
        (
            Paths::of(held.as_raw())?,
            Paths::of(bindings::get_current())?,
        )
    };
    // SAFETY: Both paths are valid.
    if !unsafe { bindings::checkpoint_path_equal(&paths.root, &own.root) } {
        saver.refuse(
            place,
            fmt!("another root directory than the caller's: not supported"),
        );
        return Ok(None);
    }
    // SAFETY: The path is valid.
    let (pwd, unlinked) = unsafe {
        (
            files::Path::from_root(&paths.pwd)?,
            bindings::checkpoint_path_unlinked(&paths.pwd),
        )
    };
    let (Some(pwd), false) = (pwd, unlinked) else {
        saver.refuse(
            place,
            fmt!("unlinked or unreachable working directory: not supported"),
        );
        return Ok(None);
    };
    let record = Fs {
        umask: (paths.umask & 0o777).into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[pwd.bytes()])?;
    saver.objects.insert(Class::Fs, fs, id)?;
    Ok(Some(id))
}

/// Finds the working directory of a record, under the caller's credentials.
///
/// # Errors
///
/// What chdir(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (_, path) = record.get::<Fs>().map_err(|_| EINVAL)?;
    let path = opening.locate(path)?;
    let name = path.name();
    let flags = bindings::O_PATH | bindings::O_DIRECTORY;
    files::open(&path, flags)
        .and_then(|dir| {
            // SAFETY: A file keeps its path as long as it lives.
            to_result(unsafe { bindings::checkpoint_may_chdir(dir.path()) })?;
            Ok(dir)
        })
        .inspect_err(|err| {
            opening
                .report
                .problem(Place::Tree, fmt!("working directory {name}: {err:?}"));
        })
}

/// Gives the current task working directory and umask.
pub(crate) fn restore(record: &Fs, dir: &File) {
    // SAFETY: The current task has an `fs` of its own, and a file keeps its path as long as it
    // lives.
    unsafe {
        bindings::set_fs_pwd((*bindings::get_current()).fs, dir.path());
        bindings::checkpoint_set_umask(record.umask.get() as i32);
    }
}
