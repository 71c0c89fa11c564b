// SPDX-License-Identifier: GPL-2.0

//! Character devices that keep no state of their own: null, zero, full, random, urandom. They are
//! opened by path, and have to have the same numbers.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::FileDevice,
        RecordRef, //
    },
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Minor numbers below `MEM_MAJOR`: null, zero, full, random, urandom.
const MINORS: [u32; 5] = [3, 5, 7, 8, 9];

/// Whether opening the device again brings back all there is to it.
fn is_stateless(major: u32, minor: u32) -> bool {
    major == bindings::MEM_MAJOR && MINORS.contains(&minor)
}

/// The devices that are listed above.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    files::file_type(file) == bindings::S_IFCHR
        && files::stat(file).is_ok_and(|stat| is_stateless(stat.major, stat.minor))
}

/// Saves an open device.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let Some(path) = files::saved_path(saver, place, file)? else {
        return Ok(None);
    };
    let stat = files::stat(file)?;
    let record = FileDevice {
        flags: files::image_flags(file).into(),
        mode: stat.mode.into(),
        major: stat.major.into(),
        minor: stat.minor.into(),
        pos: files::position(file).into(),
    };
    saver.object(&record, &[path.bytes()]).map(Some)
}

/// Opens the device of a record again, after checking that it is the same one.
///
/// # Errors
///
/// What open(2) says, or `ESTALE`, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FileDevice>().map_err(|_| EINVAL)?;
    let path = opening.locate(path)?;
    let name = path.name();
    let report = &mut *opening.report;
    let found = files::open(&path, bindings::O_PATH).inspect_err(|err| {
        report.problem(Place::Tree, fmt!("device {name}: {err:?}"));
    })?;
    let stat = files::stat(&found)?;
    let same = stat.mode & bindings::S_IFMT == bindings::S_IFCHR
        && (stat.major, stat.minor) == (record.major.get(), record.minor.get())
        && is_stateless(stat.major, stat.minor);
    if !same {
        report.problem(Place::Tree, fmt!("device {name}: is another file now"));
        return Err(ESTALE);
    }
    let flags = files::open_flags(record.flags.get());
    if flags & bindings::O_PATH != 0 {
        return Ok(found);
    }
    let file = files::reopen(&found, flags).inspect_err(|err| {
        report.problem(
            Place::Tree,
            fmt!("device {name}: cannot be opened: {err:?}"),
        );
    })?;
    files::seek(&file, record.pos.get())?;
    Ok(file)
}
