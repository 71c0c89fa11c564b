// SPDX-License-Identifier: GPL-2.0

//! Files and directories in which the kernel tells what it knows: of procfs, of the kernel and of
//! tasks of the tree; of sysfs and control groups, unless they are open for writing.
//!
//! They come back by path when all tasks exist. What a reader has got so far is his; the rest is
//! what the kernel says then.
//!
//! No locks.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files::{
        self,
        Name, //
    },
    image::{
        record::{
            file_flags,
            FileProc, //
        },
        RecordRef, //
    },
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Every regular file and directory of them.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    // SAFETY: `file` is valid.
    let proc = unsafe { bindings::checkpoint_is_proc(file.as_ptr()) };
    proc && [bindings::S_IFREG, bindings::S_IFDIR].contains(&files::file_type(file))
}

/// Saves an open file that [`takes()`] takes.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    // SAFETY: `file` is one that `checkpoint_is_proc()` is true of.
    let pid = unsafe { bindings::checkpoint_proc_pid(file.as_ptr()) };
    let what = match pid {
        0 => None,
        -1 => Some("of another pid namespace"),
        pid if !saver.is_task(pid) => Some("of a task outside the tree"),
        _ => None,
    };
    if let Some(what) = what {
        saver.refuse(place, fmt!("{}: {what}: not supported", Name(file)));
        return Ok(None);
    }
    let Some(path) = files::saved_path(saver, place, file)? else {
        return Ok(None);
    };
    let record = FileProc {
        flags: files::image_flags(file).into(),
        mode: files::stat(file)?.mode.into(),
        pos: files::position(file).into(),
    };
    saver.object(&record, &[path.bytes()]).map(Some)
}

/// Opens the file of a record again.
///
/// # Errors
///
/// What open(2) says, or `ESTALE` when it is none of these, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FileProc>().map_err(|_| EINVAL)?;
    let name: &kernel::str::BStr = path.as_ref();
    open_path(record, path).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("file {name}: cannot be opened: {err:?}"));
    })
}

fn open_path(record: &FileProc, path: &[u8]) -> Result<ARef<File>> {
    let flags = record.flags.get();
    let found = files::open(path, bindings::O_PATH)?;
    // SAFETY: `found` is valid.
    let proc = unsafe { bindings::checkpoint_is_proc(found.as_ptr()) };
    if !proc || files::file_type(&found) != record.mode.get() & bindings::S_IFMT {
        return Err(ESTALE);
    }
    if flags & file_flags::PATH != 0 {
        return Ok(found);
    }
    let file = files::reopen_as(&found, flags)?;
    if files::file_type(&file) == bindings::S_IFDIR {
        files::seek(&file, record.pos.get())?;
    } else {
        // Not by lseek(2), which may make the file say what there is to say now, of a task that has
        // nothing yet.
        // SAFETY: `file` is valid and not shared yet.
        unsafe { (*file.as_ptr()).f_pos = record.pos.get() };
    }
    Ok(file)
}
