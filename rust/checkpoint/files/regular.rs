// SPDX-License-Identifier: GPL-2.0

//! Regular files: by path, with position, flags, and what the file must still be at the restart.
//! What is to be cut back is cut when all that another could prevent is done.
//!
//! No locks but those of truncate(2): who of the tree could write stands still.

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    str::BStr,
    sync::aref::ARef, //
};

use crate::{
    files::{
        self,
        HasPath,
        Stat, //
    },
    image::{
        record::{
            file_flags,
            FileRegular, //
        },
        RecordRef, //
    },
    objects::Class,
    plan::{
        Opening,
        Policy, //
    },
    report::Place,
    save::Saver, //
};

/// Regular files that have a path; shared memory without one is no file.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    files::file_type(file) == bindings::S_IFREG && !files::is_internal_shmem(file)
}

/// Saves an open file.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let Some(path) = files::saved_path(saver, place, file)? else {
        return Ok(None);
    };
    let stat = files::stat(file)?;
    let mut flags = files::image_flags(file);
    if saver.is_stream(file) {
        flags |= file_flags::STREAM;
    }
    let record = FileRegular {
        flags: flags.into(),
        mode: stat.mode.into(),
        pos: files::position(file).into(),
        size: stat.size.into(),
        mtime_sec: stat.mtime_sec.into(),
        mtime_nsec: stat.mtime_nsec.into(),
        contents: saver
            .objects
            .get(Class::Unnamed, files::inode(file))
            .unwrap_or(0)
            .into(),
        reserved: [0; 8],
    };
    let id = saver.object(&record, &[path.bytes()])?;
    saver.path_room = path.into_buffer();
    Ok(Some(id))
}

/// A file to be cut back to its recorded size when nothing else is likely to fail any more.
pub(crate) struct Truncate {
    /// Its open file, which is open for writing.
    pub(crate) id: u32,
    size: i64,
}

impl Truncate {
    /// # Errors
    ///
    /// What ftruncate(2) says.
    pub(crate) fn carry_out(&self, file: &File) -> Result {
        // SAFETY: `file` is valid. It was opened for writing, so that no lease of anybody but the
        // tree, which means to keep it, is in the way.
        to_result(unsafe { bindings::checkpoint_truncate(file.as_ptr(), self.size) })
    }
}

/// Opens the file of a record again, after checking that it is the one that was saved. If it is not,
/// and the image has its contents, they take its place.
///
/// # Errors
///
/// What open(2) says, or `ESTALE`, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let id = record.id;
    let (record, path) = record.get::<FileRegular>().map_err(|_| EINVAL)?;
    let path = opening.locate(path)?;
    let name = path.name();
    let flags = record.flags.get();
    let only_path = flags & file_flags::PATH != 0;
    let only_read = flags & file_flags::WRITE == 0 && !only_path;
    let contents = Some(record.contents.get()).filter(|id| *id != 0 && only_read);
    let found = match (files::lookup(&path, &mut opening.name_room), contents) {
        (Ok(found), _) => found,
        (Err(err), Some(id)) if [ENOENT, ENOTDIR].contains(&err) => {
            return open_contents(opening, record, name, id, "is missing");
        }
        (Err(err), _) => {
            opening
                .report
                .problem(Place::Tree, fmt!("file {name}: {err:?}"));
            return Err(err);
        }
    };
    let stat = files::stat(&found)?;
    match (check(record, &stat, opening.policy), contents) {
        (Verdict::Differs(_), Some(id)) => {
            return open_contents(opening, record, name, id, "is another one");
        }
        (Verdict::Differs(what), None) => {
            opening
                .report
                .problem(Place::Tree, fmt!("file {name}: {what}"));
            return Err(ESTALE);
        }
        (Verdict::Same, _) => {}
        (Verdict::Cut, _) => {
            let size = i64::try_from(record.size.get())?;
            opening.truncate.push(Truncate { id, size }, GFP_KERNEL)?;
        }
    }
    if only_path {
        return files::reopen(&found, bindings::O_PATH);
    }
    reopen(opening, record, name, &found)
}

/// Opens the saved contents `id` in place of the file `name`, of which `what` is true.
fn open_contents(
    opening: &mut Opening<'_>,
    record: &FileRegular,
    name: &BStr,
    id: u32,
    what: &str,
) -> Result<ARef<File>> {
    let made = opening.contents(id)?;
    opening.report.note(
        Place::Tree,
        fmt!("file {name}: {what}: its contents come from the image"),
    );
    reopen(opening, record, name, &made)
}

fn reopen(
    opening: &mut Opening<'_>,
    record: &FileRegular,
    name: &BStr,
    found: &impl HasPath,
) -> Result<ARef<File>> {
    let file = files::reopen_as(found, record.flags.get()).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("file {name}: cannot be opened: {err:?}"));
    })?;
    files::seek(&file, record.pos.get())?;
    Ok(file)
}

enum Verdict {
    /// The file that was saved, as it was.
    Same,
    /// It has grown and is to be cut back.
    Cut,
    /// Not to be used, because of this.
    Differs(&'static str),
}

fn check(record: &FileRegular, stat: &Stat, policy: Policy) -> Verdict {
    if stat.mode & bindings::S_IFMT != bindings::S_IFREG {
        return Verdict::Differs("is no regular file any more");
    }
    let size = record.size.get();
    if stat.size < size {
        return Verdict::Differs("is shorter than at the checkpoint");
    }
    if record.flags.get() & file_flags::STREAM != 0 {
        return Verdict::Same;
    }
    let untouched = stat.size == size
        && stat.mtime_sec == record.mtime_sec.get()
        && stat.mtime_nsec == record.mtime_nsec.get();
    let writes = record.flags.get() & file_flags::WRITE != 0;
    if policy.truncate && writes && stat.size > size {
        return Verdict::Cut;
    }
    if untouched || policy.force {
        return Verdict::Same;
    }
    if !writes {
        return Verdict::Differs("has changed since the checkpoint; --force accepts it");
    }
    if policy.keep || policy.truncate {
        return Verdict::Same;
    }
    Verdict::Differs(if stat.size > size {
        "has grown since the checkpoint; --files=truncate cuts it back, --files=keep accepts it"
    } else {
        "was written since the checkpoint; --files=keep or --files=truncate accepts it"
    })
}
