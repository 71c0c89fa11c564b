// SPDX-License-Identifier: GPL-2.0

//! Open directories, by path, with their read position.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::FileDirectory,
        RecordRef, //
    },
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Every directory.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    files::file_type(file) == bindings::S_IFDIR
}

/// Saves an open directory.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let Some(path) = files::saved_path(saver, place, file)? else {
        return Ok(None);
    };
    let record = FileDirectory {
        flags: files::image_flags(file).into(),
        mode: files::stat(file)?.mode.into(),
        pos: files::position(file).into(),
    };
    saver.object(&record, &[path.bytes()]).map(Some)
}

/// Opens the directory of a record again.
///
/// # Errors
///
/// What open(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FileDirectory>().map_err(|_| EINVAL)?;
    let path = opening.locate(path)?;
    let name = path.name();
    let flags = files::open_flags(record.flags.get()) | bindings::O_DIRECTORY;
    let file = files::open(&path, flags).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("directory {name}: {err:?}"));
    })?;
    files::seek(&file, record.pos.get())?;
    Ok(file)
}
