// SPDX-License-Identifier: GPL-2.0

//! Files of namespaces: of those that the tree is in. They come back, when all tasks exist, as files
//! of those that it is in then.
//!
//! A namespace may have been mounted somewhere: a file that was opened there is opened there again,
//! and has to be of a namespace of the tree then, too.
//!
//! No locks.

use core::ptr;

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
        HasPath,
        Name,
        OwnPath, //
    },
    image::{
        record::{
            file_flags,
            namespace_kind,
            FileNamespace, //
        },
        RecordRef, //
    },
    numbers::Numbers,
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// Kinds of namespaces, as flags of clone(2), and their numbers in the image.
const KINDS: Numbers = Numbers(&[
    (bindings::CLONE_NEWNS, namespace_kind::MOUNT),
    (bindings::CLONE_NEWUTS, namespace_kind::UTS),
    (bindings::CLONE_NEWIPC, namespace_kind::IPC),
    (bindings::CLONE_NEWPID, namespace_kind::PID),
    (bindings::CLONE_NEWUSER, namespace_kind::USER),
    (bindings::CLONE_NEWNET, namespace_kind::NET),
    (bindings::CLONE_NEWCGROUP, namespace_kind::CGROUP),
    (bindings::CLONE_NEWTIME, namespace_kind::TIME),
]);

/// The kind of namespace that `file` is of, as a flag of clone(2), or 0.
fn kind(file: &File) -> u32 {
    // SAFETY: `file` is valid.
    unsafe { bindings::checkpoint_ns_type(file.as_ptr()) }
}

/// What files are opened from of the namespace of this kind that task `pid` is in.
fn of_task(pid: Pid, kind: u32) -> Result<OwnPath> {
    // SAFETY: The function writes the path with references, or fails.
    unsafe { OwnPath::from(|path| bindings::checkpoint_ns_path(pid, kind, path)) }
}

/// Whether `file` is of the namespace that is at `path`.
fn is_at(file: &File, path: &OwnPath) -> bool {
    // SAFETY: The path is valid by its references, and a namespace has one inode.
    let inode = unsafe { (*(*path.path()).dentry).d_inode };
    ptr::eq(files::inode(file), inode)
}

/// Every file of a namespace.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    kind(file) != 0
}

/// Saves an open file of a namespace.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let kind = kind(file);
    let known = KINDS.to_image(kind);
    let (Some(image), true) = (known, is_at(file, &of_task(saver.root, kind)?)) else {
        saver.refuse(
            place,
            fmt!(
                "{}: namespace that the tree is not in: not supported",
                Name(file)
            ),
        );
        return Ok(None);
    };
    let record = FileNamespace {
        flags: files::image_flags(file).into(),
        kind: image.into(),
    };
    // SAFETY: A file keeps its path as long as it lives.
    if unsafe { bindings::checkpoint_path_internal(file.path()) } {
        return saver.object(&record, &[]).map(Some);
    }
    let Some(path) = files::saved_path(saver, place, file)? else {
        return Ok(None);
    };
    saver.object(&record, &[path.bytes()]).map(Some)
}

/// Opens the file of a record again.
///
/// # Errors
///
/// What open(2) says, or `ESTALE` when another namespace is mounted there, with a line in the
/// report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FileNamespace>().map_err(|_| EINVAL)?;
    let number = record.kind.get();
    open_record(opening, record, path).inspect_err(|err| {
        let name = usize::try_from(number)
            .ok()
            .and_then(|number| namespace_kind::NAMES.get(number.checked_sub(1)?))
            .unwrap_or(&"");
        let at: &kernel::str::BStr = path.as_ref();
        let report = &mut *opening.report;
        match (*err, path.is_empty()) {
            (ESTALE, _) => report.problem(
                Place::Tree,
                fmt!("file {at}: is none of the {name} namespace that the tree is in"),
            ),
            (_, true) => report.problem(Place::Tree, fmt!("{name} namespace: {err:?}")),
            (_, false) => report.problem(Place::Tree, fmt!("file {at}: {err:?}")),
        }
    })
}

fn open_record(opening: &Opening<'_>, record: &FileNamespace, path: &[u8]) -> Result<ARef<File>> {
    let flags = record.flags.get();
    let kind = KINDS.to_kernel(record.kind.get())?;
    let own = of_task(opening.plan.first_living()?, kind)?;
    if path.is_empty() {
        return if flags & file_flags::PATH != 0 {
            files::reopen(&own, bindings::O_PATH)
        } else {
            files::reopen_as(&own, flags)
        };
    }
    let found = files::open(&opening.locate(path)?, bindings::O_PATH)?;
    if !is_at(&found, &own) {
        return Err(ESTALE);
    }
    if flags & file_flags::PATH != 0 {
        return Ok(found);
    }
    files::reopen_as(&found, flags)
}
