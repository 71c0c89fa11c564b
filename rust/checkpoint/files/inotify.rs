// SPDX-License-Identifier: GPL-2.0

//! Inotify instances: what they watch, by path, and the events that were not read.
//!
//! A watch begins the moment before the tree runs, so that it does not see the restart.
//!
//! Locks: those of the instance, while its watches and its events are read.

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
        HasPath, //
    },
    image::{
        record::{
            inotify_mask,
            FileInotify,
            InotifyEvent,
            InotifyWatch, //
        },
        RecordRef, //
    },
    numbers::Bits,
    plan::{
        Blueprint,
        Opening, //
    },
    report::{
        Place,
        Report, //
    },
    save::Saver,
    sort, //
};

/// Bits of inotify_add_watch(2) and of events, and their bits in the image.
const MASK: Bits = Bits(&[
    (bindings::IN_ACCESS, inotify_mask::ACCESS),
    (bindings::IN_MODIFY, inotify_mask::MODIFY),
    (bindings::IN_ATTRIB, inotify_mask::ATTRIB),
    (bindings::IN_CLOSE_WRITE, inotify_mask::CLOSE_WRITE),
    (bindings::IN_CLOSE_NOWRITE, inotify_mask::CLOSE_NOWRITE),
    (bindings::IN_OPEN, inotify_mask::OPEN),
    (bindings::IN_MOVED_FROM, inotify_mask::MOVED_FROM),
    (bindings::IN_MOVED_TO, inotify_mask::MOVED_TO),
    (bindings::IN_CREATE, inotify_mask::CREATE),
    (bindings::IN_DELETE, inotify_mask::DELETE),
    (bindings::IN_DELETE_SELF, inotify_mask::DELETE_SELF),
    (bindings::IN_MOVE_SELF, inotify_mask::MOVE_SELF),
    (bindings::IN_UNMOUNT, inotify_mask::UNMOUNT),
    (bindings::IN_Q_OVERFLOW, inotify_mask::Q_OVERFLOW),
    (bindings::IN_IGNORED, inotify_mask::IGNORED),
    (bindings::IN_ISDIR, inotify_mask::ISDIR),
    (bindings::IN_EXCL_UNLINK, inotify_mask::EXCL_UNLINK),
    (bindings::IN_ONESHOT, inotify_mask::ONESHOT),
]);

/// Every inotify instance.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    // SAFETY: `file` is valid.
    unsafe { bindings::is_file_inotify(file.as_ptr()) }
}

/// Saves an inotify instance, its events and its watches.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    // SAFETY: `file` is an inotify instance.
    let next_wd = unsafe { bindings::inotify_get_next_wd(file.as_ptr()) };
    let record = FileInotify {
        flags: files::image_flags(file).into(),
        next_wd: next_wd.into(),
    };
    let id = saver.object(&record, &[])?;
    save_events(saver, id, file)?;
    let problems = saver.report.count();
    for watch in Watches::of(file)?.0.iter() {
        save_watch(saver, place, id, watch)?;
    }
    Ok((saver.report.count() == problems).then_some(id))
}

/// Bytes of an event before its name.
const HEAD: usize = size_of::<bindings::inotify_event>();

fn save_events(saver: &mut Saver<'_>, id: u32, file: &File) -> Result {
    let mut events = KVVec::<u8>::new();
    loop {
        // SAFETY: `file` is an inotify instance, and there is place for so many bytes.
        let len = unsafe {
            bindings::inotify_peek_events(file.as_ptr(), events.as_mut_ptr().cast(), events.len())
        };
        if len <= events.len() {
            events.truncate(len);
            break;
        }
        events.resize(len, 0, GFP_KERNEL)?;
    }
    let mut rest: &[u8] = &events;
    while let Some((head, after)) = rest.split_at_checked(HEAD) {
        let word = |at: usize| -> Result<[u8; 4]> {
            let bytes = head.get(at..at + 4).ok_or(EINVAL)?;
            bytes.try_into().map_err(|_| EINVAL)
        };
        // struct inotify_event: wd, mask, cookie, len.
        let len = usize::try_from(u32::from_ne_bytes(word(12)?))?;
        let (name, after) = after.split_at_checked(len).ok_or(EINVAL)?;
        let end = name.iter().position(|byte| *byte == 0);
        let name = name.get(..end.unwrap_or(len)).unwrap_or(name);
        let record = InotifyEvent {
            inotify: id.into(),
            wd: i32::from_ne_bytes(word(0)?).into(),
            mask: MASK.to_image(u32::from_ne_bytes(word(4)?)).into(),
            cookie: u32::from_ne_bytes(word(8)?).into(),
        };
        saver.put(&record, &[name])?;
        rest = after;
    }
    Ok(())
}

/// What an instance watches, by number.
struct Watches(KVVec<bindings::inotify_watch>);

impl Watches {
    fn of(file: &File) -> Result<Self> {
        // SAFETY: `file` is an inotify instance, and there is place for so many.
        let mut watches = unsafe {
            files::read_all(|place, max| {
                let count = bindings::inotify_get_watches(file.as_ptr(), place, max);
                Ok(usize::try_from(count)?)
            })
        }?;
        sort::by_key(&mut watches, |watch| watch.wd);
        Ok(Self(watches))
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for watch in self.0.iter() {
            // SAFETY: Each watch has a reference to its inode.
            unsafe { bindings::iput(watch.inode) };
        }
    }
}

fn save_watch(
    saver: &mut Saver<'_>,
    place: Place,
    id: u32,
    watch: &bindings::inotify_watch,
) -> Result {
    let number = watch.wd;
    let Some(path) = path(watch.inode)? else {
        saver.refuse(
            place,
            fmt!("inotify: watch {number} of a file that has no name here: not supported"),
        );
        return Ok(());
    };
    // SAFETY: The watch has a reference to its inode.
    let mode = u32::from(unsafe { (*watch.inode).i_mode });
    let record = InotifyWatch {
        inotify: id.into(),
        wd: u32::try_from(number)?.into(),
        mask: MASK.to_image(watch.mask).into(),
        mode: mode.into(),
    };
    saver.object(&record, &[path.bytes()])?;
    Ok(())
}

/// A path from the caller's root that leads to `inode`, if the kernel knows one.
pub(crate) fn path(inode: *mut bindings::inode) -> Result<Option<files::Path>> {
    let mut path = bindings::path::default();
    // SAFETY: The caller has a reference to the inode.
    if to_result(unsafe { bindings::checkpoint_inode_path(inode, &mut path) }).is_err() {
        return Ok(None);
    }
    // SAFETY: `path` has been found, with references, which go after the last use.
    let (unlinked, name) = unsafe {
        let unlinked = bindings::checkpoint_path_unlinked(&path);
        let name = files::Path::from_root(&path);
        bindings::path_put(&path);
        (unlinked, name?)
    };
    let Some(name) = name.filter(|_| !unlinked) else {
        return Ok(None);
    };
    // Something may be mounted upon it.
    let leads = files::open(name.bytes(), bindings::O_PATH | bindings::O_NOFOLLOW)
        .is_ok_and(|found| files::inode(&found) == inode);
    Ok(leads.then_some(name))
}

/// Makes the inotify instance of a record, which watches nothing yet.
///
/// # Errors
///
/// What inotify_init(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileInotify>().map_err(|_| EINVAL)?;
    // SAFETY: The function makes a file.
    let file = files::owned(unsafe { bindings::inotify_create_file(0) }).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("inotify: {err:?}"));
    })?;
    files::set_status(&file, record.flags.get());
    // SAFETY: `file` is an inotify instance.
    unsafe { bindings::inotify_set_next_wd(file.as_ptr(), record.next_wd.get()) };
    Ok(file)
}

/// Finds the file that a watch is to be of.
///
/// # Errors
///
/// What open(2) says, or `ESTALE`, with a line in the report.
pub(crate) fn find(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<InotifyWatch>().map_err(|_| EINVAL)?;
    find_watched(opening, "inotify", path, |found| {
        other_type(found, record.mode.get())
    })
}

/// What is at `path`, to be watched by a group of kind `who`, unless `wrong` says why not.
///
/// # Errors
///
/// What open(2) says, or `ESTALE`, with a line in the report.
pub(crate) fn find_watched(
    opening: &mut Opening<'_>,
    who: &str,
    path: &[u8],
    wrong: impl FnOnce(&ARef<File>) -> Option<&'static str>,
) -> Result<ARef<File>> {
    let path = opening.locate(path)?;
    let name = path.name();
    let report = &mut *opening.report;
    let found = files::open(&path, bindings::O_PATH | bindings::O_NOFOLLOW).inspect_err(|err| {
        report.problem(Place::Tree, fmt!("{who}: file {name}: {err:?}"));
    })?;
    if let Some(what) = wrong(&found) {
        report.problem(Place::Tree, fmt!("{who}: file {name}: {what}"));
        return Err(ESTALE);
    }
    Ok(found)
}

/// What is wrong with `found` if it has not the type that `mode` says.
pub(crate) fn other_type(found: &File, mode: u32) -> Option<&'static str> {
    let same = files::file_type(found) == mode & bindings::S_IFMT;
    (!same).then_some("is of another type now")
}

/// Queues an event that was not read.
///
/// # Errors
///
/// `ENOSPC` when there are more than the system has room for, `ENOMEM`; with a line in the report.
pub(crate) fn queue(
    blueprint: &Blueprint,
    record: &RecordRef<'static>,
    report: &mut Report,
) -> Result {
    let (record, name) = record.get::<InotifyEvent>().map_err(|_| EINVAL)?;
    let file = blueprint.file(record.inotify.get())?;
    let head = bindings::inotify_event {
        wd: record.wd.get(),
        mask: MASK.to_kernel(record.mask.get()),
        cookie: record.cookie.get(),
        ..Default::default()
    };
    // SAFETY: `file` is an inotify instance, and the name has so many bytes.
    to_result(unsafe {
        bindings::inotify_restore_event(file.as_ptr(), &head, name.as_ptr().cast(), name.len())
    })
    .inspect_err(|err| {
        report.problem(
            Place::Tree,
            fmt!("inotify: event that was not read: {err:?}"),
        );
    })
}

/// Begins to watch what [`find`] has found.
///
/// # Errors
///
/// What inotify_add_watch(2) says, with a line in the report.
pub(crate) fn watch(
    blueprint: &Blueprint,
    record: &RecordRef<'static>,
    report: &mut Report,
) -> Result {
    let found = blueprint.file(record.id)?;
    let (record, path) = record.get::<InotifyWatch>().map_err(|_| EINVAL)?;
    let name: &kernel::str::BStr = path.as_ref();
    let id = record.inotify.get();
    let file = blueprint.file(id)?;
    // SAFETY: `file` is an inotify instance, and a file keeps its path as long as it lives.
    let result = to_result(unsafe {
        let next = bindings::inotify_get_next_wd(file.as_ptr());
        let result = bindings::inotify_restore_watch(
            file.as_ptr(),
            found.path(),
            i32::try_from(record.wd.get())?,
            MASK.to_kernel(record.mask.get()),
        );
        bindings::inotify_set_next_wd(file.as_ptr(), next);
        result
    });
    result.inspect_err(|err| {
        report.problem(
            Place::Tree,
            fmt!("inotify: file {name} cannot be watched: {err:?}"),
        );
    })
}
