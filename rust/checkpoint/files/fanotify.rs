// SPDX-License-Identifier: GPL-2.0

//! Fanotify groups: how they were made, and what they watch, by path. Events that were not read, or
//! not answered, refer to files and tasks of any kind: a group that has some is refused.
//!
//! A mark begins the moment before the tree runs, so that it does not see the restart.
//!
//! Locks: those of the group, while its marks and its queue are looked at; inside them `mount_lock`.

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
        inotify,
        HasPath, //
    },
    image::{
        record::{
            fanotify_flags,
            fanotify_mark,
            fanotify_mark_flags,
            fanotify_mask,
            file_flags,
            FanotifyMark,
            FileFanotify, //
        },
        RecordRef, //
    },
    numbers::{
        Bits,
        Numbers, //
    },
    plan::{
        Blueprint,
        Opening, //
    },
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// Flags of fanotify_init(2), and their bits in the image.
const FLAGS: Bits = Bits(&[
    (bindings::FAN_CLOEXEC, fanotify_flags::CLOEXEC),
    (bindings::FAN_NONBLOCK, fanotify_flags::NONBLOCK),
    (bindings::FAN_CLASS_CONTENT, fanotify_flags::CONTENT),
    (bindings::FAN_CLASS_PRE_CONTENT, fanotify_flags::PRE_CONTENT),
    (
        bindings::FAN_UNLIMITED_QUEUE,
        fanotify_flags::UNLIMITED_QUEUE,
    ),
    (
        bindings::FAN_UNLIMITED_MARKS,
        fanotify_flags::UNLIMITED_MARKS,
    ),
    (bindings::FAN_ENABLE_AUDIT, fanotify_flags::ENABLE_AUDIT),
    (bindings::FAN_REPORT_PIDFD, fanotify_flags::REPORT_PIDFD),
    (bindings::FAN_REPORT_TID, fanotify_flags::REPORT_TID),
    (bindings::FAN_REPORT_FID, fanotify_flags::REPORT_FID),
    (bindings::FAN_REPORT_DIR_FID, fanotify_flags::REPORT_DIR_FID),
    (bindings::FAN_REPORT_NAME, fanotify_flags::REPORT_NAME),
    (
        bindings::FAN_REPORT_TARGET_FID,
        fanotify_flags::REPORT_TARGET_FID,
    ),
    (
        bindings::FAN_REPORT_FD_ERROR,
        fanotify_flags::REPORT_FD_ERROR,
    ),
    (bindings::FAN_REPORT_MNT, fanotify_flags::REPORT_MNT),
]);

/// Flags of the files that come with events, but for the access mode, and their bits in the image.
const EVENT_FLAGS: Bits = Bits(&[
    (bindings::O_APPEND, file_flags::APPEND),
    (bindings::O_NONBLOCK, file_flags::NONBLOCK),
    (bindings::O_SYNC & !bindings::O_DSYNC, file_flags::SYNC),
    (bindings::O_DSYNC, file_flags::DSYNC),
    (bindings::O_LARGEFILE, file_flags::LARGEFILE),
    (bindings::O_NOATIME, file_flags::NOATIME),
    (bindings::O_CLOEXEC, file_flags::OPENED_CLOEXEC),
]);

/// Access modes of these files, and their bits in the image.
const ACCESS: Numbers = Numbers(&[
    (bindings::O_RDONLY, file_flags::READ),
    (bindings::O_WRONLY, file_flags::WRITE),
    (bindings::O_RDWR, file_flags::READ | file_flags::WRITE),
]);

/// Bits of fanotify_mark(2), and their bits in the image.
const MASK: Bits = Bits(&[
    (bindings::FAN_ACCESS, fanotify_mask::ACCESS),
    (bindings::FAN_MODIFY, fanotify_mask::MODIFY),
    (bindings::FAN_ATTRIB, fanotify_mask::ATTRIB),
    (bindings::FAN_CLOSE_WRITE, fanotify_mask::CLOSE_WRITE),
    (bindings::FAN_CLOSE_NOWRITE, fanotify_mask::CLOSE_NOWRITE),
    (bindings::FAN_OPEN, fanotify_mask::OPEN),
    (bindings::FAN_MOVED_FROM, fanotify_mask::MOVED_FROM),
    (bindings::FAN_MOVED_TO, fanotify_mask::MOVED_TO),
    (bindings::FAN_CREATE, fanotify_mask::CREATE),
    (bindings::FAN_DELETE, fanotify_mask::DELETE),
    (bindings::FAN_DELETE_SELF, fanotify_mask::DELETE_SELF),
    (bindings::FAN_MOVE_SELF, fanotify_mask::MOVE_SELF),
    (bindings::FAN_OPEN_EXEC, fanotify_mask::OPEN_EXEC),
    (bindings::FAN_FS_ERROR, fanotify_mask::FS_ERROR),
    (bindings::FAN_OPEN_PERM, fanotify_mask::OPEN_PERM),
    (bindings::FAN_ACCESS_PERM, fanotify_mask::ACCESS_PERM),
    (bindings::FAN_OPEN_EXEC_PERM, fanotify_mask::OPEN_EXEC_PERM),
    (bindings::FAN_PRE_ACCESS, fanotify_mask::PRE_ACCESS),
    (bindings::FAN_RENAME, fanotify_mask::RENAME),
    (bindings::FAN_EVENT_ON_CHILD, fanotify_mask::EVENT_ON_CHILD),
    (bindings::FAN_ONDIR, fanotify_mask::ONDIR),
]);

/// Flags of fanotify_mark(2) that a mark keeps, and their bits in the image.
const MARK_FLAGS: Bits = Bits(&[
    (
        bindings::FAN_MARK_IGNORED_SURV_MODIFY,
        fanotify_mark_flags::SURV_MODIFY,
    ),
    (bindings::FAN_MARK_EVICTABLE, fanotify_mark_flags::EVICTABLE),
    (bindings::FAN_MARK_IGNORE, fanotify_mark_flags::IGNORE),
]);

/// What can be marked, and its number in the image.
const TYPES: Numbers = Numbers(&[
    (bindings::FAN_MARK_INODE, fanotify_mark::INODE),
    (bindings::FAN_MARK_MOUNT, fanotify_mark::MOUNT),
    (bindings::FAN_MARK_FILESYSTEM, fanotify_mark::FILESYSTEM),
]);

/// Every fanotify group.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    // SAFETY: `file` is valid.
    unsafe { bindings::is_file_fanotify(file.as_ptr()) }
}

/// Saves a fanotify group and its marks.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let mut state = bindings::fanotify_group_state::default();
    // SAFETY: `file` is a group.
    let read = unsafe { bindings::fanotify_get_group(file.as_ptr(), &mut state) };
    let access = state.event_f_flags & bindings::O_ACCMODE;
    let access = ACCESS.to_image(access);
    let flags = FLAGS.all_to_image(state.flags);
    let event_flags = EVENT_FLAGS.all_to_image(state.event_f_flags & !bindings::O_ACCMODE);
    let what = match to_result(read) {
        Err(err) if err == EXDEV => "group of another user namespace",
        Err(err) if err == EINPROGRESS => "permission events that were not answered",
        Err(_) => "events that were not read",
        Ok(()) => "flags that no image has",
    };
    let (0, Some(access), Some(flags), Some(event_flags)) = (read, access, flags, event_flags)
    else {
        saver.refuse(place, fmt!("fanotify: {what}: not supported"));
        return Ok(None);
    };
    let unprivileged = if state.unprivileged {
        fanotify_flags::UNPRIVILEGED
    } else {
        0
    };
    let record = FileFanotify {
        flags: files::image_flags(file).into(),
        init_flags: (flags | unprivileged).into(),
        event_flags: (event_flags | access).into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[])?;
    let problems = saver.report.count();
    for mark in Marks::of(file)?.0.iter() {
        save_mark(saver, place, id, mark)?;
    }
    Ok((saver.report.count() == problems).then_some(id))
}

/// The marks of a group.
struct Marks(KVVec<bindings::fanotify_mark_state>);

impl Marks {
    fn of(file: &File) -> Result<Self> {
        // SAFETY: `file` is a group, and there is place for so many.
        unsafe {
            files::read_all(|place, max| {
                let count = bindings::fanotify_get_marks(file.as_ptr(), place, max);
                Ok(usize::try_from(count)?)
            })
        }
        .map(Self)
    }
}

impl Drop for Marks {
    fn drop(&mut self) {
        for mark in self.0.iter() {
            // SAFETY: Each mark has references to what is not null of it.
            unsafe {
                bindings::iput(mark.inode);
                bindings::path_put(&mark.path);
            }
        }
    }
}

fn save_mark(
    saver: &mut Saver<'_>,
    place: Place,
    id: u32,
    mark: &bindings::fanotify_mark_state,
) -> Result {
    let mut refuse = |what: &str| {
        saver.refuse(place, fmt!("fanotify: mark {what}: not supported"));
        Ok(())
    };
    let Some(ty) = TYPES.to_image(mark.type_) else {
        return refuse("of a mount namespace");
    };
    let (path, mode) = if mark.inode.is_null() {
        (mount_path(mark)?, bindings::S_IFDIR)
    } else {
        // SAFETY: The mark has a reference to its inode.
        let mode = u32::from(unsafe { (*mark.inode).i_mode });
        (inotify::path(mark.inode)?, mode)
    };
    let Some(path) = path else {
        return match ty {
            fanotify_mark::INODE => refuse("of a file that has no name here"),
            _ => refuse("of a mount or file system that has no path here"),
        };
    };
    let (Some(mask), Some(ignore_mask), Some(flags)) = (
        MASK.all_to_image(mark.mask),
        MASK.all_to_image(mark.ignore_mask),
        MARK_FLAGS.all_to_image(mark.flags),
    ) else {
        return refuse("with events that no image has");
    };
    let record = FanotifyMark {
        fanotify: id.into(),
        ty: ty.into(),
        mask: mask.into(),
        ignore_mask: ignore_mask.into(),
        flags: flags.into(),
        mode: mode.into(),
    };
    saver.object(&record, &[path.bytes()])?;
    Ok(())
}

/// The path from the caller's root to the mount that `mark` has found, if that leads there.
fn mount_path(mark: &bindings::fanotify_mark_state) -> Result<Option<files::Path>> {
    if mark.path.mnt.is_null() {
        return Ok(None);
    }
    // SAFETY: The mark has references to the path.
    let Some(name) = (unsafe { files::Path::from_root(&mark.path)? }) else {
        return Ok(None);
    };
    // Something may be mounted upon it.
    let leads = files::open(name.bytes(), bindings::O_PATH | bindings::O_NOFOLLOW)
        // SAFETY: A file keeps its path as long as it lives.
        .is_ok_and(|found| unsafe { (*found.path()).mnt } == mark.path.mnt);
    Ok(leads.then_some(name))
}

/// Makes the fanotify group of a record, which watches nothing yet.
///
/// # Errors
///
/// What fanotify_init(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileFanotify>().map_err(|_| EINVAL)?;
    let wanted = record.init_flags.get();
    let event_flags = record.event_flags.get();
    let access = event_flags & (file_flags::READ | file_flags::WRITE);
    let access = ACCESS.to_kernel(access)?;
    let file = create(
        FLAGS.to_kernel(wanted),
        EVENT_FLAGS.to_kernel(event_flags) | access,
        wanted & fanotify_flags::UNPRIVILEGED != 0,
    )
    .inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("fanotify: {err:?}"));
    })?;
    files::set_status(&file, record.flags.get());
    Ok(file)
}

/// A group that tells as much as the original: of one made by a user, no process; but one that tells
/// that is not made by a user.
fn create(flags: u32, event_flags: u32, unprivileged: bool) -> Result<ARef<File>> {
    let mut state = bindings::fanotify_group_state::default();
    // SAFETY: The function makes a file, of which the next ones read and set flags.
    unsafe {
        let file = files::owned(bindings::fanotify_create_file(flags, event_flags))?;
        if unprivileged {
            bindings::fanotify_set_unprivileged(file.as_ptr());
        }
        to_result(bindings::fanotify_get_group(file.as_ptr(), &mut state))?;
        if state.unprivileged && !unprivileged {
            return Err(EPERM);
        }
        Ok(file)
    }
}

/// Finds the file, or the mount, that a mark is to be of.
///
/// # Errors
///
/// What open(2) says, or `ESTALE`, with a line in the report.
pub(crate) fn find(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FanotifyMark>().map_err(|_| EINVAL)?;
    inotify::find_watched(opening, "fanotify", path, |found| {
        if record.ty.get() == fanotify_mark::INODE {
            return inotify::other_type(found, record.mode.get());
        }
        // Or more would be watched than was.
        // SAFETY: A file keeps its path as long as it lives.
        let mounted = unsafe { bindings::checkpoint_is_mount_root(found.path()) };
        (!mounted).then_some("nothing is mounted there")
    })
}

/// Begins to watch what [`find`] has found.
///
/// # Errors
///
/// What fanotify_mark(2) says, with a line in the report.
pub(crate) fn mark(
    blueprint: &Blueprint,
    record: &RecordRef<'static>,
    report: &mut Report,
) -> Result {
    let found = blueprint.file(record.id)?;
    let (record, path) = record.get::<FanotifyMark>().map_err(|_| EINVAL)?;
    let name: &kernel::str::BStr = path.as_ref();
    let file = blueprint.file(record.fanotify.get())?;
    let state = bindings::fanotify_mark_state {
        // SAFETY: `found` keeps its path, and lives longer than this copy.
        path: unsafe { *found.path() },
        type_: TYPES.to_kernel(record.ty.get())?,
        flags: MARK_FLAGS.to_kernel(record.flags.get()),
        mask: MASK.to_kernel(record.mask.get()),
        ignore_mask: MASK.to_kernel(record.ignore_mask.get()),
        ..Default::default()
    };
    // SAFETY: `file` is a group, and the path is valid during the call.
    to_result(unsafe { bindings::fanotify_restore_mark(file.as_ptr(), &state) }).inspect_err(
        |err| {
            report.problem(
                Place::Tree,
                fmt!("fanotify: file {name} cannot be watched: {err:?}"),
            );
        },
    )
}
