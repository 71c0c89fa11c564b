// SPDX-License-Identifier: GPL-2.0

//! Standard input, output and error that lead outside the tree: a terminal, a pipe to another
//! program. The restarter supplies descriptors in their place.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files::{
        self,
        pipe,
        Name, //
    },
    image::record::{
        external,
        file_flags,
        FileExternal, //
    },
    report::Place,
    save::Saver, //
};

/// The last of the descriptors that a shell gives to every job.
const STDERR: u32 = 2;

/// What `file` is, if its other side is outside the tree.
fn kind(saver: &Saver<'_>, file: &File) -> Option<u32> {
    match files::file_type(file) {
        bindings::S_IFCHR => {
            // SAFETY: `file` is valid.
            unsafe { bindings::checkpoint_is_tty(file.as_ptr()) }.then_some(external::TTY)
        }
        bindings::S_IFIFO => pipe::leads_outside(saver, file).then_some(external::PIPE),
        _ => None,
    }
}

/// Descriptors 0, 1 and 2 when they lead outside.
pub(crate) fn takes(saver: &Saver<'_>, fd: Option<u32>, file: &File) -> bool {
    fd.is_some_and(|fd| fd <= STDERR) && kind(saver, file).is_some()
}

/// Saves what is to be supplied.
pub(crate) fn save(saver: &mut Saver<'_>, _: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let kind = kind(saver, file).unwrap_or(external::OTHER);
    let description = kernel::str::CString::try_from_fmt(fmt!("{}", Name(file)))?;
    let record = FileExternal {
        flags: files::image_flags(file).into(),
        kind: kind.into(),
        mode: files::stat(file)?.mode.into(),
        reserved: 0.into(),
    };
    saver.object(&record, &[description.to_bytes()]).map(Some)
}

/// Whether `supplied` can take the place of descriptor `fd`, which was open as `record` says.
///
/// A terminal is usually open for both directions, while what replaces one end of it is not: what
/// counts for the standard descriptors is the direction that they are for.
///
/// # Errors
///
/// `EBADF` when it is not open for the direction that is needed.
pub(crate) fn accepts(record: &FileExternal, fd: u32, supplied: &File) -> Result {
    let flags = record.flags.get();
    let both = flags & file_flags::READ != 0 && flags & file_flags::WRITE != 0;
    let need = match (both, fd) {
        (true, 0) => bindings::FMODE_READ,
        (true, _) => bindings::FMODE_WRITE,
        (false, _) if flags & file_flags::WRITE != 0 => bindings::FMODE_WRITE,
        (false, _) => bindings::FMODE_READ,
    };
    if files::mode(supplied) & need == 0 {
        return Err(EBADF);
    }
    Ok(())
}
