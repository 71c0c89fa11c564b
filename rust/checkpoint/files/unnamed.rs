// SPDX-License-Identifier: GPL-2.0

//! Regular files without a name: unlinked ones, those of O_TMPFILE, and memfds.
//!
//! Their contents are in the image, and come back in a new file: of the same directory, made with
//! O_TMPFILE, or in a new memfd. Open files and mappings that shared one share it again.
//!
//! The new file is made before any task exists. Owner, permissions, times and seals are set when
//! its contents are complete.
//!
//! So do the contents of files that have a name and are mapped or executed, where the caller of
//! checkpoint(2) asks for it (`CHECKPOINT_SAVE_FILES`): in a memfd, if the file is missing or has
//! changed. Its owner is whoever restarts.
//!
//! Locks: the inode lock, by fchown(2) and the like.

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
        regular,
        HasPath,
        Name,
        OwnPath, //
    },
    image::{
        record::{
            seals,
            unnamed,
            unnamed_flags,
            FileUnnamed,
            Unnamed, //
        },
        RecordRef, //
    },
    numbers::Bits,
    objects::Class,
    plan::Opening,
    report::{
        Place,
        Report, //
    },
    save::{
        Memory,
        Saver, //
    }, //
};

/// What the kernel calls a memfd, before the name that it was given.
const MEMFD: &[u8] = b"memfd:";

/// How long a name may be that a memfd is given.
const MEMFD_NAME_MAX: usize = 249;

/// Seals of fcntl(2), and their bits in the image.
const SEALS: Bits = Bits(&[
    (bindings::F_SEAL_SEAL, seals::SEAL),
    (bindings::F_SEAL_SHRINK, seals::SHRINK),
    (bindings::F_SEAL_GROW, seals::GROW),
    (bindings::F_SEAL_WRITE, seals::WRITE),
    (bindings::F_SEAL_FUTURE_WRITE, seals::FUTURE_WRITE),
    (bindings::F_SEAL_EXEC, seals::EXEC),
]);

/// Permissions of a file on its way back: the caller's alone.
const PRIVATE: u16 = 0o600;

/// The name that a memfd was given, if `path` is what the kernel calls one.
fn memfd_name(path: &files::Path) -> Option<&[u8]> {
    let name = path.bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    name.strip_prefix(MEMFD)
}

/// Whether what `file` is open to is a memfd.
pub(crate) fn is_memfd(file: &File) -> bool {
    files::is_internal_shmem(file)
        && files::Path::of(file).is_ok_and(|path| memfd_name(&path).is_some())
}

/// Memfds, and files that have no name at all any more.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    if files::file_type(file) != bindings::S_IFREG {
        return false;
    }
    if files::is_internal_shmem(file) {
        return is_memfd(file);
    }
    // SAFETY: `file` is valid.
    files::is_unlinked(file) && unsafe { bindings::checkpoint_links(file.as_ptr()) } == 0
}

/// Saves an open file, and what it is open to unless it has been.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let Some(object) = save_contents(saver, place, file)? else {
        return Ok(None);
    };
    let record = FileUnnamed {
        flags: files::image_flags(file).into(),
        object: object.into(),
        pos: files::position(file).into(),
    };
    saver.object(&record, &[]).map(Some)
}

fn save_contents(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let inode = files::inode(file);
    if let Some(id) = saver.objects.get(Class::Unnamed, inode) {
        return Ok(Some(id));
    }
    // SAFETY: `file` is valid; the names are constants.
    let blocker = unsafe { bindings::checkpoint_inode_blocker(file.as_ptr()) };
    if !blocker.is_null() {
        // SAFETY: As above.
        let blocker = unsafe { CStr::from_char_ptr(blocker) };
        saver.refuse(place, fmt!("{}: {blocker}: not supported", Name(file)));
        return Ok(None);
    }
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: `file` is valid.
    unsafe { bindings::checkpoint_owner_ids(file.as_ptr(), &mut uid, &mut gid) };
    if uid == u32::MAX || gid == u32::MAX {
        saver.refuse(
            place,
            fmt!("{}: owner without a number: not supported", Name(file)),
        );
        return Ok(None);
    }
    let kind = if is_memfd(file) {
        unnamed::MEMFD
    } else {
        unnamed::UNLINKED
    };
    let Some(tail) = save_tail(saver, place, file, kind)? else {
        return Ok(None);
    };
    let Some(contents) = open_contents(saver, place, file) else {
        return Ok(None);
    };
    // SAFETY: `file` is valid.
    let (linkable, raw) = unsafe {
        (
            kind == unnamed::UNLINKED && bindings::checkpoint_is_linkable(file.as_ptr()),
            if kind == unnamed::MEMFD {
                u32::try_from(bindings::memfd_get_seals(file.as_ptr()))?
            } else {
                0
            },
        )
    };
    let stat = files::stat(file)?;
    let record = Unnamed {
        size: stat.size.into(),
        kind: kind.into(),
        mode: stat.mode.into(),
        uid: uid.into(),
        gid: gid.into(),
        flags: if linkable { unnamed_flags::LINKABLE } else { 0 }.into(),
        seals: SEALS.to_image(raw).into(),
        atime_sec: stat.atime_sec.into(),
        mtime_sec: stat.mtime_sec.into(),
        atime_nsec: stat.atime_nsec.into(),
        mtime_nsec: stat.mtime_nsec.into(),
    };
    let id = saver.object(&record, &[&tail])?;
    saver.objects.insert(Class::Unnamed, inode, id)?;
    if !files::is_internal_shmem(&contents) {
        // It may be larger than memory.
        saver.stand_still(c"unlinked files on a disk");
    }
    saver.memory.push(
        Memory::Shmem {
            id,
            file: contents,
            size: stat.size,
        },
        GFP_KERNEL,
    )?;
    Ok(Some(id))
}

/// What `file` is open to, opened once more; `None` when that is refused.
fn open_contents(saver: &mut Saver<'_>, place: Place, file: &File) -> Option<ARef<File>> {
    // SAFETY: `file` is valid; the new file comes with a reference.
    let contents = files::owned(unsafe { bindings::checkpoint_open_contents(file.as_ptr()) });
    let refuse = |err: &Error| {
        saver.refuse(
            place,
            fmt!("{}: contents cannot be read: {err:?}", Name(file)),
        );
    };
    contents.inspect_err(refuse).ok()
}

/// Saves what is in a file that has a name and is not open for writing, unless it has been.
pub(crate) fn save_along(saver: &mut Saver<'_>, place: Place, file: &File) -> Result {
    let inode = files::inode(file);
    if !regular::takes(saver, None, file)
        || files::is_unlinked(file)
        || files::mode(file) & bindings::FMODE_WRITE != 0
        || saver.objects.get(Class::Unnamed, inode).is_some()
    {
        return Ok(());
    }
    let Some(contents) = open_contents(saver, place, file) else {
        return Ok(());
    };
    let stat = files::stat(file)?;
    let path = files::Path::of(file)?;
    let name = path.bytes().rsplit(|byte| *byte == b'/').next();
    let name = name.unwrap_or_default();
    let record = Unnamed {
        size: stat.size.into(),
        kind: unnamed::CONTENTS.into(),
        mode: stat.mode.into(),
        uid: 0.into(),
        gid: 0.into(),
        flags: 0.into(),
        seals: 0.into(),
        atime_sec: stat.atime_sec.into(),
        mtime_sec: stat.mtime_sec.into(),
        atime_nsec: stat.atime_nsec.into(),
        mtime_nsec: stat.mtime_nsec.into(),
    };
    let id = saver.object(&record, &[name.get(..MEMFD_NAME_MAX).unwrap_or(name)])?;
    saver.objects.insert(Class::Unnamed, inode, id)?;
    saver.memory.push(
        Memory::File {
            id,
            file: contents,
            size: stat.size,
        },
        GFP_KERNEL,
    )?;
    Ok(())
}

/// The name of a memfd, or the directory where the file is made again; `None` when it is refused.
fn save_tail(
    saver: &mut Saver<'_>,
    place: Place,
    file: &File,
    kind: u32,
) -> Result<Option<KVec<u8>>> {
    let mut tail = KVec::new();
    if kind == unnamed::MEMFD {
        let path = files::Path::of(file)?;
        tail.extend_from_slice(memfd_name(&path).ok_or(EINVAL)?, GFP_KERNEL)?;
        return Ok(Some(tail));
    }
    // SAFETY: `file` is valid; the function writes the path with references.
    let dir = unsafe {
        OwnPath::from(|path| {
            bindings::checkpoint_directory_of(file.as_ptr(), path);
            0
        })
    }?;
    // SAFETY: The path is valid.
    if !unsafe { bindings::checkpoint_makes_unnamed(dir.path()) } {
        saver.refuse(
            place,
            fmt!(
                "{}: unlinked file of a file system without O_TMPFILE: not supported",
                Name(file)
            ),
        );
        return Ok(None);
    }
    let Some(path) = dir.from_root()? else {
        saver.refuse(
            place,
            fmt!("{}: not reachable by a path: not supported", Name(file)),
        );
        return Ok(None);
    };
    tail.extend_from_slice(path.bytes(), GFP_KERNEL)?;
    Ok(Some(tail))
}

/// Makes a file as large as a record says, all of it a hole; `None` for the contents of one that has
/// a name, which [`make_contents`] makes if they are needed.
///
/// # Errors
///
/// What open(2) with O_TMPFILE, memfd_create(2) and truncate(2) say, with a line in the report.
pub(crate) fn make(
    opening: &mut Opening<'_>,
    record: &RecordRef<'_>,
) -> Result<Option<ARef<File>>> {
    let kind = record.get::<Unnamed>().map_err(|_| EINVAL)?.0.kind.get();
    if kind == unnamed::CONTENTS {
        return Ok(None);
    }
    make_contents(opening, record).map(Some)
}

/// The same for all kinds.
pub(crate) fn make_contents(
    opening: &mut Opening<'_>,
    record: &RecordRef<'_>,
) -> Result<ARef<File>> {
    let (record, tail) = record.get::<Unnamed>().map_err(|_| EINVAL)?;
    let name: &kernel::str::BStr = tail.as_ref();
    if record.kind.get() != unnamed::UNLINKED {
        return make_memfd(record, tail).inspect_err(|err| {
            opening
                .report
                .problem(Place::Tree, fmt!("memfd {name}: {err:?}"));
        });
    }
    let dir = opening.locate(tail)?;
    let name = dir.name();
    make_unlinked(record, &dir).inspect_err(|err| {
        // What open(2) says where O_TMPFILE is not known, or not supported.
        let hint = if [EISDIR, EOPNOTSUPP].contains(err) {
            ", its file system has no O_TMPFILE"
        } else {
            ""
        };
        opening.report.problem(
            Place::Tree,
            fmt!("unlinked file of directory {name}: {err:?}{hint}"),
        );
    })
}

fn make_unlinked(record: &Unnamed, dir: &[u8]) -> Result<ARef<File>> {
    let mut flags =
        bindings::__O_TMPFILE | bindings::O_DIRECTORY | bindings::O_RDWR | bindings::O_LARGEFILE;
    if record.flags.get() & unnamed_flags::LINKABLE == 0 {
        flags |= bindings::O_EXCL;
    }
    let file = files::create(dir, flags, PRIVATE)?;
    truncate(&file, record)?;
    Ok(file)
}

fn make_memfd(record: &Unnamed, name: &[u8]) -> Result<ARef<File>> {
    let mut full = KVec::new();
    full.extend_from_slice(MEMFD, GFP_KERNEL)?;
    full.extend_from_slice(name, GFP_KERNEL)?;
    let full = files::string(&full)?;
    let executable = record.mode.get() & 0o111 != 0 || record.seals.get() & seals::EXEC == 0;
    // SAFETY: `full` is a string, which the function copies.
    let file =
        files::owned(unsafe { bindings::checkpoint_memfd(full.as_ptr().cast(), executable) })?;
    truncate(&file, record)?;
    // Nobody maps for writing what is sealed against it, so that it is sealed before it is mapped:
    // the kernel refuses this seal while somebody may write by a mapping.
    add_seals(&file, record.seals.get() & seals::WRITE)?;
    Ok(file)
}

fn truncate(file: &File, record: &Unnamed) -> Result {
    let size = i64::try_from(record.size.get())?;
    if size == 0 {
        return Ok(());
    }
    // SAFETY: A file keeps its path as long as it lives.
    to_result(unsafe { bindings::vfs_truncate(file.path(), size) })
}

fn add_seals(file: &File, image: u32) -> Result {
    let raw = SEALS.to_kernel(image);
    if raw == 0 {
        return Ok(());
    }
    // SAFETY: `file` is valid.
    to_result(unsafe { bindings::memfd_add_seals(file.as_ptr(), raw) })
}

/// The size of a file whose contents are written as write(2) does; not of a memfd, which may be
/// sealed against that.
pub(crate) fn written(record: &RecordRef<'_>) -> Option<u64> {
    let (record, _) = record.get::<Unnamed>().ok()?;
    (record.kind.get() == unnamed::UNLINKED).then_some(record.size.get())
}

/// Opens what [`make`] has made for a record, as another record says.
///
/// # Errors
///
/// What open(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileUnnamed>().map_err(|_| EINVAL)?;
    let made = opening.contents(record.object.get())?;
    let reopened = files::reopen_as(&made, record.flags.get()).and_then(|file| {
        files::seek(&file, record.pos.get())?;
        Ok(file)
    });
    reopened.inspect_err(|err| {
        let name = Name(&made);
        opening
            .report
            .problem(Place::Tree, fmt!("{name}: cannot be opened: {err:?}"));
    })
}

/// Gives `file`, whose contents are complete, owner, permissions, times and seals of its record.
///
/// # Errors
///
/// What fchown(2), fchmod(2) and utimensat(2) say, with a line in the report.
pub(crate) fn finish(file: &File, record: &RecordRef<'_>, report: &mut Report) -> Result {
    let (record, _) = record.get::<Unnamed>().map_err(|_| EINVAL)?;
    finish_file(file, record).inspect_err(|err| {
        let (uid, gid) = (record.uid.get(), record.gid.get());
        let mode = record.mode.get() & 0o7777;
        report.problem(
            Place::Tree,
            fmt!(
                "{}: owner {uid}, group {gid}, mode {mode:#o}: {err:?}",
                Name(file)
            ),
        );
    })
}

fn finish_file(file: &File, record: &Unnamed) -> Result {
    let raw = file.as_ptr();
    let (mut uid, mut gid) = (0, 0);
    let mut times = [
        bindings::timespec64 {
            tv_sec: record.atime_sec.get(),
            tv_nsec: isize::try_from(record.atime_nsec.get())?,
        },
        bindings::timespec64 {
            tv_sec: record.mtime_sec.get(),
            tv_nsec: isize::try_from(record.mtime_nsec.get())?,
        },
    ];
    let bits = match record.kind.get() {
        // Of another owner these would mean something else.
        unnamed::CONTENTS => 0o777,
        _ => 0o7777,
    };
    let mode = record.mode.get() & bits;
    // SAFETY: `file` is valid, and keeps its path as long as it lives. Who changes the owner loses
    // bits of the mode, and maybe the right to set times.
    unsafe {
        to_result(bindings::vfs_utimes(file.path(), times.as_mut_ptr()))?;
        bindings::checkpoint_owner_ids(raw, &mut uid, &mut gid);
        let owned = record.kind.get() != unnamed::CONTENTS;
        if owned && (uid, gid) != (record.uid.get(), record.gid.get()) {
            to_result(bindings::vfs_fchown(
                raw,
                record.uid.get(),
                record.gid.get(),
            ))?;
        }
        if files::stat(file)?.mode & 0o7777 != mode {
            to_result(bindings::vfs_fchmod(raw, u16::try_from(mode)?))?;
        }
    }
    let last = seals::SEAL;
    add_seals(file, record.seals.get() & !last)?;
    add_seals(file, record.seals.get() & last)
}
