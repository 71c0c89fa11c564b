// SPDX-License-Identifier: GPL-2.0

//! Signalfds: a mask. What they return is pending for the task that reads.
//!
//! No locks: the mask is one word.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::FileSignalfd,
        RecordRef, //
    },
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// The signals that `file` takes, bit n-1 for signal n, if it is a signalfd.
fn mask(file: &File) -> Option<u64> {
    let mut others = bindings::sigset_t::default();
    // SAFETY: `file` is valid.
    let is = unsafe { bindings::signalfd_get_mask(file.as_ptr(), &mut others) };
    is.then_some(!others.sig[0] as u64)
}

/// Every signalfd.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    mask(file).is_some()
}

/// Saves an open signalfd.
pub(crate) fn save(saver: &mut Saver<'_>, _: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let record = FileSignalfd {
        flags: files::image_flags(file).into(),
        mask: mask(file).ok_or(EBADF)?.into(),
        reserved: 0.into(),
    };
    saver.object(&record, &[]).map(Some)
}

/// SIGKILL and SIGSTOP, which nobody takes.
const NEVER: u64 = 1 << (bindings::SIGKILL - 1) | 1 << (bindings::SIGSTOP - 1);

/// Makes the signalfd of a record.
///
/// # Errors
///
/// What signalfd(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileSignalfd>().map_err(|_| EINVAL)?;
    let others = bindings::sigset_t {
        sig: [usize::try_from(!(record.mask.get() & !NEVER))?],
    };
    // SAFETY: The function makes a file, and copies the mask.
    let file = files::owned(unsafe { bindings::signalfd_create_file(&others, 0) });
    let file = file.inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("signalfd: {err:?}"));
    })?;
    files::set_status(&file, record.flags.get());
    Ok(file)
}
