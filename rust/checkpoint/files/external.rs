// SPDX-License-Identifier: GPL-2.0

//! Open files whose other side is outside the tree: a terminal, a pipe to another program. Nobody
//! guesses what to do with them. For standard input, output and error, and where the caller of
//! checkpoint(2) says so, the image has what they were, and the restarter supplies descriptors in
//! their place; or the other side is gone after the restart; all others are refused.
//!
//! What leads outside is known by what the tree as a whole has open: `survey.rs`.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef,
    task::Pid, //
};

use crate::{
    files::{
        self,
        pidfd,
        pipe,
        survey::Supplies,
        unix,
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
pub(crate) const STDERR: u32 = 2;

/// What becomes of an open file that leads outside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The restarter supplies another.
    Supply,
    /// Its other side is gone after the restart.
    Drop,
}

/// What the caller of checkpoint(2) says of a descriptor.
pub(crate) struct Request {
    /// Of this task only, or 0.
    pub(crate) pid: Pid,
    /// Its number, or all that lead outside.
    pub(crate) fd: Option<u32>,
    pub(crate) action: Action,
}

/// What `file` is, if its other side is outside the tree.
fn kind(saver: &Saver<'_>, file: &File) -> Option<u32> {
    match files::file_type(file) {
        // SAFETY: `file` is valid.
        bindings::S_IFCHR if unsafe { bindings::checkpoint_is_tty(file.as_ptr()) } => {
            (!saver.survey.ttys.has(file)).then_some(external::TTY)
        }
        bindings::S_IFIFO if pipe::leads_outside(saver, file) => Some(external::PIPE),
        bindings::S_IFSOCK if unix::leads_outside(saver, file) => Some(external::SOCKET),
        _ if pidfd::leads_outside(saver, file) => Some(external::PIDFD),
        _ => None,
    }
}

/// What leads outside and is to be supplied, and all that the caller named.
pub(crate) fn takes(saver: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    match saver.survey.supplies(file) {
        Supplies::Always => true,
        Supplies::Outside => kind(saver, file).is_some(),
        Supplies::Never => false,
    }
}

/// Saves what is to be supplied.
pub(crate) fn save(saver: &mut Saver<'_>, _: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let kind = kind(saver, file).unwrap_or_else(|| match files::file_type(file) {
        bindings::S_IFIFO => external::PIPE,
        bindings::S_IFSOCK => external::SOCKET,
        _ => external::OTHER,
    });
    let description = kernel::str::CString::try_from_fmt(fmt!("{}", Name(file)))?;
    let record = FileExternal {
        flags: files::image_flags(file).into(),
        kind: kind.into(),
        mode: files::stat(file)?.mode.into(),
        reserved: 0.into(),
    };
    saver.object(&record, &[description.to_bytes()]).map(Some)
}

/// Refuses `file`, which leads outside, and says what else is possible.
pub(crate) fn refuse(
    saver: &mut Saver<'_>,
    place: Place,
    file: &File,
    what: kernel::fmt::Arguments<'_>,
) {
    saver.refuse(
        place,
        fmt!(
            "{}: {what}: not supported without --external or --drop",
            Name(file)
        ),
    );
}

/// Whether `supplied` can take the place of descriptor `fd`, which was open as `record` says.
///
/// For the standard descriptors only the direction that they are for counts, as for a shell that
/// redirects them.
///
/// # Errors
///
/// Says what is wrong.
pub(crate) fn accepts(record: &FileExternal, fd: u32, supplied: &File) -> Result<(), &'static str> {
    let flags = record.flags.get();
    let (reads, writes) = (
        flags & file_flags::READ != 0,
        flags & file_flags::WRITE != 0,
    );
    let (reads, writes) = match (reads && writes, fd) {
        (true, 0) => (true, false),
        (true, 1..=STDERR) => (false, true),
        _ => (reads, writes),
    };
    let kind = record.kind.get();
    let alike = match kind {
        external::TTY | external::PIPE | external::SOCKET if fd <= STDERR => true,
        // SAFETY: `supplied` is valid.
        external::TTY => unsafe { bindings::checkpoint_is_tty(supplied.as_ptr()) },
        external::PIDFD => pidfd::is_pidfd(supplied),
        _ => files::file_type(supplied) == record.mode.get() & bindings::S_IFMT,
    };
    let mode = files::mode(supplied);
    if !alike {
        Err("what is supplied is of another kind")
    } else if reads && mode & bindings::FMODE_READ == 0 {
        Err("what is supplied is not open for reading")
    } else if writes && mode & bindings::FMODE_WRITE == 0 {
        Err("what is supplied is not open for writing")
    } else {
        Ok(())
    }
}
