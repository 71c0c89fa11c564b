// SPDX-License-Identifier: GPL-2.0

//! Descriptor tables, and the kinds of open files by one table.
//!
//! An open file is saved once, however many descriptors of however many tasks refer to it. What is
//! in no row of [`KINDS`] is refused by the name that the kernel has for it.
//!
//! A restart opens what needs no task before there is one, and the rest when all exist. Then come
//! [`LINKS`], which lead from one open file to another; the tables, each filled by the first task
//! that has it; contents; locks and owners of signals; and [`STARTS`], the moment before the tree
//! runs.
//!
//! Locks: `task_lock()`, then `file_lock` of the table, while descriptors are looked up. Files are
//! saved under neither.

use core::{
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::aref::ARef,
    task::Pid, //
};

use zerocopy::IntoBytes;

use crate::{
    files::survey::Saved,
    hold::Held,
    image::{
        record::{
            fd_flags,
            file_flags,
            Fd,
            Files, //
        },
        Kind, //
    },
    numbers::Bits,
    objects::Class,
    plan::{
        Blueprint,
        Link,
        Open,
        Stage, //
    },
    report::Place,
    save::Saver,
    sort, //
};

pub(crate) mod device;
pub(crate) mod directory;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod external;
pub(crate) mod fanotify;
pub(crate) mod inotify;
pub(crate) mod locks;
pub(crate) mod namespace;
pub(crate) mod owner;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod proc;
pub(crate) mod regular;
pub(crate) mod signalfd;
pub(crate) mod socket;
pub(crate) mod survey;
pub(crate) mod timerfd;
pub(crate) mod tty;
pub(crate) mod unix;
pub(crate) mod unnamed;
pub(crate) mod uring;

/// One kind of open files.
struct FileKind {
    /// The kind of its record.
    kind: Kind,
    /// Which files may be of it, see [`among`].
    among: u32,
    /// Whether the kind takes this file.
    takes: fn(&Saver<'_>, Option<u32>, &File) -> bool,
    /// Saves it, or refuses it and returns `None`.
    save: fn(&mut Saver<'_>, Place, &ARef<File>) -> Result<Option<u32>>,
    back: Back,
}

/// What files may be: most are none of most kinds, and not asked whether they are. Bits of a set.
mod among {
    pub(super) const SOCKETS: u32 = 1 << 0;
    pub(super) const PIPES: u32 = 1 << 1;
    pub(super) const CHARACTER_DEVICES: u32 = 1 << 2;
    pub(super) const DIRECTORIES: u32 = 1 << 3;
    /// Others that are on mounts of the kernel's own, which no path leads to.
    pub(super) const INTERNAL: u32 = 1 << 4;
    pub(super) const OTHERS: u32 = 1 << 5;
    pub(super) const ALL: u32 = (1 << 6) - 1;
}

/// The rows of [`KINDS`] that may take `file`, as bits.
fn rows(file: &File) -> u32 {
    const fn rows(of: u32) -> u32 {
        let (mut rows, mut bit, mut rest) = (0, 1, KINDS);
        while let [kind, later @ ..] = rest {
            if kind.among & of != 0 {
                rows |= bit;
            }
            (bit, rest) = (bit << 1, later);
        }
        rows
    }
    match file_type(file) {
        bindings::S_IFSOCK => const { rows(among::SOCKETS) },
        bindings::S_IFIFO => const { rows(among::PIPES) },
        bindings::S_IFCHR => const { rows(among::CHARACTER_DEVICES) },
        bindings::S_IFDIR => const { rows(among::DIRECTORIES) },
        // SAFETY: `file` is valid.
        _ if unsafe { bindings::checkpoint_is_internal(file.as_ptr()) } => {
            const { rows(among::INTERNAL) }
        }
        _ => const { rows(among::OTHERS) },
    }
}

/// How an open file comes back.
enum Back {
    /// The caller supplies another in its place.
    Supplied,
    /// It is opened before the first task exists, so that what is missing prevents the restart.
    Early(Open),
    /// It is opened when all tasks exist, before the first table of descriptors is filled.
    Late(Open),
    /// So it is, with what else its record describes: there may be no file.
    Made,
}

/// All kinds, the first that takes a file saves it.
const KINDS: &[FileKind] = &[
    FileKind {
        kind: Kind::FileExternal,
        among: among::ALL,
        takes: external::takes,
        save: external::save,
        back: Back::Supplied,
    },
    FileKind {
        kind: Kind::FileTty,
        among: among::CHARACTER_DEVICES,
        takes: tty::takes,
        save: tty::save,
        back: Back::Early(tty::open),
    },
    FileKind {
        kind: Kind::FilePipe,
        among: among::PIPES,
        takes: pipe::takes,
        save: pipe::save,
        back: Back::Early(pipe::open),
    },
    FileKind {
        kind: Kind::FileDevice,
        among: among::CHARACTER_DEVICES,
        takes: device::takes,
        save: device::save,
        back: Back::Early(device::open),
    },
    FileKind {
        kind: Kind::FileProc,
        among: among::DIRECTORIES | among::INTERNAL | among::OTHERS,
        takes: proc::takes,
        save: proc::save,
        back: Back::Late(proc::open),
    },
    FileKind {
        kind: Kind::FileNamespace,
        among: among::INTERNAL,
        takes: namespace::takes,
        save: namespace::save,
        back: Back::Late(namespace::open),
    },
    FileKind {
        kind: Kind::FileDirectory,
        among: among::DIRECTORIES,
        takes: directory::takes,
        save: directory::save,
        back: Back::Early(directory::open),
    },
    FileKind {
        kind: Kind::FilePidfd,
        among: among::INTERNAL,
        takes: pidfd::takes,
        save: pidfd::save,
        back: Back::Late(pidfd::open),
    },
    FileKind {
        kind: Kind::UnixSocket,
        among: among::SOCKETS,
        takes: unix::takes,
        save: unix::save,
        back: Back::Made,
    },
    FileKind {
        kind: Kind::FileUnnamed,
        among: among::INTERNAL | among::OTHERS,
        takes: unnamed::takes,
        save: unnamed::save,
        back: Back::Early(unnamed::open),
    },
    FileKind {
        kind: Kind::FileEventfd,
        among: among::INTERNAL,
        takes: eventfd::takes,
        save: eventfd::save,
        back: Back::Early(eventfd::open),
    },
    FileKind {
        kind: Kind::FileEpoll,
        among: among::INTERNAL,
        takes: epoll::takes,
        save: epoll::save,
        back: Back::Early(epoll::open),
    },
    FileKind {
        kind: Kind::FileTimerfd,
        among: among::INTERNAL,
        takes: timerfd::takes,
        save: timerfd::save,
        back: Back::Early(timerfd::open),
    },
    FileKind {
        kind: Kind::FileSignalfd,
        among: among::INTERNAL,
        takes: signalfd::takes,
        save: signalfd::save,
        back: Back::Early(signalfd::open),
    },
    FileKind {
        kind: Kind::FileInotify,
        among: among::INTERNAL,
        takes: inotify::takes,
        save: inotify::save,
        back: Back::Early(inotify::open),
    },
    FileKind {
        kind: Kind::FileFanotify,
        among: among::INTERNAL,
        takes: fanotify::takes,
        save: fanotify::save,
        back: Back::Early(fanotify::open),
    },
    FileKind {
        kind: Kind::FileUring,
        among: among::INTERNAL,
        takes: uring::takes,
        save: uring::save,
        back: Back::Early(uring::open),
    },
    FileKind {
        kind: Kind::FileRegular,
        among: among::INTERNAL | among::OTHERS,
        takes: regular::takes,
        save: regular::save,
        back: Back::Early(regular::open),
    },
];

/// What leads from one open file to another, by the kinds of its records: restored when all files
/// are open and have in them what they had.
const LINKS: &[(Kind, Link)] = &[(Kind::EpollItems, epoll::link)];

/// What runs by itself, or notices what others do: restored the moment before the tree runs.
const STARTS: &[(Kind, Link)] = &[
    (Kind::FileTimerfd, timerfd::start),
    (Kind::InotifyEvent, inotify::queue),
    (Kind::InotifyWatch, inotify::watch),
    (Kind::FanotifyMark, fanotify::mark),
];

fn find(rows: &[(Kind, Link)], kind: Kind) -> Option<Link> {
    let row = rows.iter().find(|(of, _)| *of == kind);
    row.map(|(_, link)| *link)
}

/// How what records of `kind` say of open files comes back when all of these exist, if it does.
pub(crate) fn linker(kind: Kind) -> Option<Link> {
    find(LINKS, kind)
}

/// How what records of `kind` say of open files starts, if it does.
pub(crate) fn starter(kind: Kind) -> Option<Link> {
    find(STARTS, kind)
}

/// How open files that have records of `kind` are opened in `stage`, if they are.
pub(crate) fn opener(kind: Kind, stage: Stage) -> Option<Open> {
    match (&KINDS.iter().find(|row| row.kind == kind)?.back, stage) {
        (Back::Early(open), Stage::Early) | (Back::Late(open), Stage::Late) => Some(*open),
        _ => None,
    }
}

/// Saves the descriptor table of `held` unless it has been, and returns its number.
///
/// Returns `None` when something in it was refused.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held) -> Result<Option<u32>> {
    // SAFETY: `held` keeps its task, which stands still: the pointer is read, not followed.
    let table = unsafe { (*held.as_raw()).files };
    if let Some(id) = saver.objects.get(Class::Files, table) {
        return Ok(Some(id));
    }
    let problems = saver.report.count();
    let descriptors = saver.survey.take(table);
    let mut fds = KVVec::with_capacity(descriptors.len(), GFP_KERNEL)?;
    let mut locked = KVVec::new();
    for Descriptor { fd, cloexec, file } in descriptors.iter() {
        let place = Place::Fd(held.pid(), *fd);
        let Some(id) = save_file(saver, place, Some(*fd), file)? else {
            continue;
        };
        let flags = if *cloexec { fd_flags::CLOEXEC } else { 0 };
        let entry = Fd {
            fd: (*fd).into(),
            flags: flags.into(),
            file: id.into(),
            reserved: 0.into(),
        };
        fds.push(entry, GFP_KERNEL)?;
        if locks::has_posix(file, table) {
            locked.push((file.clone(), id), GFP_KERNEL)?;
        }
    }
    saver.survey.put_back(table, descriptors);
    if saver.report.count() != problems {
        return Ok(None);
    }
    let record = Files {
        count: u32::try_from(fds.len())?.into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[fds.as_bytes()])?;
    saver.objects.insert(Class::Files, table, id)?;
    let mut done: Option<u32> = None;
    sort::by_key(&mut locked, |(_, file)| *file);
    for (file, file_id) in locked.iter() {
        // Several descriptors may be one open file.
        if done.replace(*file_id) != Some(*file_id) {
            let place = Place::Task(held.pid());
            locks::save(saver, place, file, *file_id, Some((table, id)))?;
        }
    }
    Ok(Some(id))
}

/// A descriptor of a table.
pub(crate) struct Descriptor {
    pub(crate) fd: u32,
    /// It is closed by exec.
    pub(crate) cloexec: bool,
    pub(crate) file: ARef<File>,
}

/// Some descriptors of a task, with a reference to the file of each.
struct Batch {
    found: [bindings::checkpoint_fd; Self::SIZE],
    used: core::ops::Range<usize>,
}

impl Batch {
    const SIZE: usize = 32;

    fn new() -> Self {
        Self {
            found: [bindings::checkpoint_fd::default(); Self::SIZE],
            used: 0..0,
        }
    }

    /// Gets the next descriptors of `held` from number `from` on. Returns whether there are any.
    fn fill(&mut self, held: &Held, from: u32) -> Result<bool> {
        let max = u32::try_from(Self::SIZE)?;
        // SAFETY: `held` keeps its task, and there is place for so many.
        let count = unsafe {
            bindings::checkpoint_get_fds(held.as_raw(), from, self.found.as_mut_ptr(), max)
        };
        self.used = 0..usize::try_from(count)?;
        Ok(count != 0)
    }
}

impl Iterator for Batch {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.found.get(self.used.next()?)?;
        let file = NonNull::new(next.file)?;
        Some(Descriptor {
            fd: next.fd,
            cloexec: next.cloexec,
            // SAFETY: The reference is ours, and the position is only read.
            file: unsafe { ARef::from_raw(file.cast()) },
        })
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Gives back the references of what was not looked at.
        for _ in self {}
    }
}

/// The descriptors of `held`, ascending.
pub(crate) fn descriptors(held: &Held) -> Result<KVVec<Descriptor>> {
    let mut all = KVVec::new();
    let mut from = 0;
    let mut batch = Batch::new();
    while batch.fill(held, from)? {
        all.reserve(Batch::SIZE, GFP_KERNEL)?;
        for descriptor in batch.by_ref() {
            from = descriptor.fd.checked_add(1).ok_or(EMFILE)?;
            all.push(descriptor, GFP_KERNEL)?;
        }
    }
    Ok(all)
}

/// Saves an open file unless it has been. What is in the queue of a socket comes later. `fd` is the
/// number it is known by, if it has one.
pub(crate) fn save_file(
    saver: &mut Saver<'_>,
    place: Place,
    fd: Option<u32>,
    file: &ARef<File>,
) -> Result<Option<u32>> {
    if let Some(id) = saver.survey.saved(file.as_ptr()).id() {
        return Ok(Some(id));
    }
    let saved = save_new(saver, place, fd, file)?;
    saver.remember(file, saved.map_or(Saved::Refused, Saved::As))?;
    Ok(saved)
}

fn save_new(
    saver: &mut Saver<'_>,
    place: Place,
    fd: Option<u32>,
    file: &ARef<File>,
) -> Result<Option<u32>> {
    if saver.is_stream(file) && !regular::takes(saver, fd, file) {
        saver.refuse(place, fmt!("is the stream that the image goes to"));
        return Ok(None);
    }
    // SAFETY: `file` is valid; the names are constants.
    let blocker = unsafe { bindings::checkpoint_file_blocker(file.as_ptr()) };
    if !blocker.is_null() && !external::takes(saver, fd, file) {
        // SAFETY: As above.
        let blocker = unsafe { CStr::from_char_ptr(blocker) };
        saver.refuse(place, fmt!("{}: {blocker}: not supported", Name(file)));
        return Ok(None);
    }
    let mut rows = rows(file);
    while rows != 0 {
        let kind = KINDS.get(usize::try_from(rows.trailing_zeros())?);
        rows &= rows - 1;
        let Some(kind) = kind.filter(|kind| (kind.takes)(saver, fd, file)) else {
            continue;
        };
        let Some(id) = (kind.save)(saver, place, file)? else {
            return Ok(None);
        };
        if !matches!(kind.back, Back::Supplied) {
            if locks::may_have(file) {
                locks::save(saver, place, file, id, None)?;
            }
            owner::save(saver, place, file, id, fd)?;
        } else if locks::has_any(file) || owner::has_any(file) {
            let name = Name(file);
            saver.refuse(
                place,
                fmt!("{name}: lock or signal owner of what leads outside: not supported"),
            );
        }
        return Ok(Some(id));
    }
    if let Some(socket) = socket::Described::of(file) {
        saver.refuse(place, fmt!("socket: {socket}: not supported"));
        return Ok(None);
    }
    // SAFETY: `file` is valid.
    let tty = unsafe { bindings::checkpoint_is_tty(file.as_ptr()) };
    let what = match file_type(file) {
        _ if tty => "tty ",
        bindings::S_IFCHR => "character device ",
        bindings::S_IFBLK => "block device ",
        _ => {
            saver.refuse(place, fmt!("{}: not supported", Name(file)));
            return Ok(None);
        }
    };
    let (name, stat) = (Name(file), stat(file)?);
    let (major, minor) = (stat.major, stat.minor);
    saver.refuse(place, fmt!("{what}{name} ({major}:{minor}): not supported"));
    Ok(None)
}

/// Saves a file that is mapped, by the same table; only what can be mapped again is taken.
pub(crate) fn save_mapped(
    saver: &mut Saver<'_>,
    place: Place,
    file: &ARef<File>,
) -> Result<Option<u32>> {
    let takes = [unnamed::takes, regular::takes, device::takes, uring::takes];
    if proc::takes(saver, None, file) || !takes.iter().any(|takes| takes(saver, None, file)) {
        saver.refuse(place, fmt!("mapping of {}: not supported", Name(file)));
        return Ok(None);
    }
    save_file(saver, place, None, file)
}

/// Gives the current task the descriptors that table `id` of the image has, and no others.
///
/// `pid` is the task, by which the caller may name descriptors that it supplies.
pub(crate) fn restore(blueprint: &Blueprint, id: u32, pid: Pid) -> Result {
    // SAFETY: The table is a copy that came with the current task, which runs in the kernel and has
    // no descriptor in use.
    unsafe { bindings::checkpoint_close_all() };
    for entry in blueprint.fds(id) {
        let fd = entry.fd.get();
        let file = blueprint.descriptor(pid, fd, entry.file.get())?;
        let cloexec = entry.flags.get() & fd_flags::CLOEXEC != 0;
        let flags = if cloexec { bindings::O_CLOEXEC } else { 0 };
        // SAFETY: `file` is valid; the table takes a reference of its own.
        to_result(unsafe { bindings::replace_fd(fd, file.as_ptr(), flags) })?;
    }
    Ok(())
}

/// All that `read` finds. It is given room for so many, and returns how many there are.
///
/// # Errors
///
/// `ENOMEM`; what `read` says.
///
/// # Safety
///
/// `read` initialises as many as it returns, unless there is not room for all of them.
pub(crate) unsafe fn read_all<T>(
    mut read: impl FnMut(*mut T, u32) -> Result<usize>,
) -> Result<KVVec<T>> {
    let mut all = KVVec::new();
    loop {
        let room = u32::try_from(all.capacity())?;
        let count = read(all.spare_capacity_mut().as_mut_ptr().cast(), room)?;
        if count <= all.capacity() {
            // SAFETY: By the safety requirement.
            unsafe { all.inc_len(count) };
            return Ok(all);
        }
        all.reserve(count, GFP_KERNEL)?;
    }
}

/// What the kernel calls an open file: its path, or the name of its anonymous inode.
pub(crate) struct Name<'a>(pub(crate) &'a File);

impl kernel::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        let Ok(path) = Path::of(self.0) else {
            return f.write_str("unnamed file");
        };
        let name = path.bytes();
        // An anonymous inode is called "anon_inode:[eventfd]", a socket "socket:[1234]".
        let name = name.strip_prefix(b"anon_inode:").unwrap_or(name);
        let name = match name.iter().position(|byte| *byte == b':') {
            Some(colon) if !name.starts_with(b"/") => name.get(..colon).unwrap_or(name),
            _ => name,
        };
        let name = name.strip_prefix(b"[").unwrap_or(name);
        let name = name.strip_suffix(b"]").unwrap_or(name);
        // What everybody else calls it.
        let name = if name == b"eventpoll" { b"epoll" } else { name };
        kernel::fmt::Display::fmt(kernel::str::BStr::from_bytes(name), f)
    }
}

/// The path of a file as the caller sees it.
///
/// # Invariants
///
/// The bytes of `buffer` from `start` on are a string, with its NUL at the end of the capacity.
pub(crate) struct Path {
    buffer: KVec<u8>,
    start: usize,
}

impl Path {
    /// Longest path, with its final NUL.
    const MAX: usize = bindings::PATH_MAX as usize;

    /// # Errors
    ///
    /// `ENAMETOOLONG`, `ENOMEM`.
    pub(crate) fn of(file: &File) -> Result<Self> {
        // SAFETY: A file keeps its path as long as it lives.
        unsafe { Self::of_raw(file.path()) }
    }

    /// # Safety
    ///
    /// `path` is valid.
    pub(crate) unsafe fn of_raw(path: *const bindings::path) -> Result<Self> {
        // SAFETY: `path` is valid by the safety requirement; the name goes to the end of the
        // buffer.
        let name = |buffer, len| unsafe { bindings::d_path(path, buffer, len) };
        Self::named(KVec::new(), name)?.ok_or(ENOENT)
    }

    /// The path from the caller's root, or `None` when it does not lead there: a mount of the
    /// kernel's own, or outside a changed root.
    ///
    /// # Errors
    ///
    /// As [`Path::of`].
    ///
    /// # Safety
    ///
    /// `path` is valid.
    pub(crate) unsafe fn from_root(path: *const bindings::path) -> Result<Option<Self>> {
        // SAFETY: By the safety requirement.
        unsafe { Self::from_root_in(KVec::new(), path) }
    }

    /// As [`Path::from_root`], in a buffer of [`Path::into_buffer`].
    ///
    /// # Errors
    ///
    /// As [`Path::of`].
    ///
    /// # Safety
    ///
    /// `path` is valid.
    unsafe fn from_root_in(buffer: KVec<u8>, path: *const bindings::path) -> Result<Option<Self>> {
        // SAFETY: `path` is valid by the safety requirement; the name goes to the end of the
        // buffer.
        Self::named(buffer, |buffer, len| unsafe {
            bindings::checkpoint_path_from_root(path, buffer, len)
        })
    }

    /// The buffer, for the next path: there are tens of thousands of files.
    pub(crate) fn into_buffer(self) -> KVec<u8> {
        self.buffer
    }

    /// Has `name` write a string to the end of a buffer of the length that it is given. It returns
    /// where that begins, or null if there is none.
    fn named(
        mut buffer: KVec<u8>,
        name: impl FnOnce(*mut kernel::ffi::c_char, i32) -> *mut kernel::ffi::c_char,
    ) -> Result<Option<Self>> {
        // Not cleared: there is one for each file.
        buffer.reserve(Self::MAX, GFP_KERNEL)?;
        let base = buffer.as_mut_ptr();
        let name = from_err_ptr(name(base.cast(), i32::try_from(Self::MAX)?))?;
        if name.is_null() {
            return Ok(None);
        }
        let start = name.addr() - base.addr();
        // INVARIANT: The string has been written to the end of what there is room for.
        Ok(Some(Self { buffer, start }))
    }

    /// Without the final NUL.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant these bytes have been written.
        let name = unsafe {
            core::slice::from_raw_parts(
                self.buffer.as_ptr().add(self.start),
                Self::MAX - self.start,
            )
        };
        name.strip_suffix(b"\0").unwrap_or(name)
    }
}

/// What has a path.
pub(crate) trait HasPath {
    /// It is valid as long as what has it.
    fn path(&self) -> *const bindings::path;
}

impl HasPath for File {
    fn path(&self) -> *const bindings::path {
        // SAFETY: The file is valid.
        unsafe { ptr::addr_of!((*self.as_ptr()).__bindgen_anon_1.f_path) }
    }
}

impl HasPath for ARef<File> {
    fn path(&self) -> *const bindings::path {
        File::path(self)
    }
}

/// What stat(2) says.
pub(crate) struct Stat {
    pub(crate) mode: u32,
    pub(crate) size: u64,
    /// Of 512 bytes.
    pub(crate) blocks: u64,
    pub(crate) mtime_sec: i64,
    pub(crate) mtime_nsec: u32,
    pub(crate) atime_sec: i64,
    pub(crate) atime_nsec: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// # Errors
///
/// What the file system says.
pub(crate) fn stat(of: &impl HasPath) -> Result<Stat> {
    let mut stat = MaybeUninit::<bindings::kstat>::uninit();
    // SAFETY: The path is valid. The function clears all that it does not set, unless it fails.
    let stat = unsafe {
        to_result(bindings::vfs_getattr(
            of.path(),
            stat.as_mut_ptr(),
            bindings::STATX_BASIC_STATS,
            0,
        ))?;
        stat.assume_init()
    };
    Ok(Stat {
        mode: u32::from(stat.mode),
        size: u64::try_from(stat.size)?,
        blocks: stat.blocks,
        mtime_sec: stat.mtime.tv_sec,
        mtime_nsec: u32::try_from(stat.mtime.tv_nsec)?,
        atime_sec: stat.atime.tv_sec,
        atime_nsec: u32::try_from(stat.atime.tv_nsec)?,
        major: stat.rdev >> bindings::MINORBITS,
        minor: stat.rdev & ((1 << bindings::MINORBITS) - 1),
    })
}

/// The mode of the inode behind `file`.
pub(crate) fn file_mode(file: &File) -> u32 {
    // SAFETY: A file keeps its inode; the mode is one word.
    u32::from(unsafe { (*inode(file)).i_mode })
}

/// The type bits of the mode of the inode behind `file`, which do not change.
pub(crate) fn file_type(file: &File) -> u32 {
    file_mode(file) & bindings::S_IFMT
}

/// The inode behind `file`, as an identity.
pub(crate) fn inode(file: &File) -> *mut bindings::inode {
    // SAFETY: `file` is valid; the inode is set before anyone sees it.
    unsafe { (*file.as_ptr()).f_inode }
}

/// `f_mode` of an open file.
pub(crate) fn mode(file: &File) -> u32 {
    // SAFETY: `file` is valid, and these bits do not change after open.
    unsafe { (*file.as_ptr()).f_mode }
}

/// The position of an open file.
pub(crate) fn position(file: &File) -> i64 {
    // SAFETY: `file` is valid; those who could move the position stand still.
    unsafe { (*file.as_ptr()).f_pos }
}

/// Moves an open file to a position that lseek(2) could move it to.
pub(crate) fn seek(file: &File, pos: i64) -> Result {
    if pos == 0 || mode(file) & bindings::FMODE_LSEEK == 0 {
        return Ok(());
    }
    // SAFETY: `file` is valid.
    let at = unsafe { bindings::vfs_llseek(file.as_ptr(), pos, bindings::SEEK_SET as i32) };
    if at < 0 {
        return Err(Error::from_errno(i32::try_from(at)?));
    }
    Ok(())
}

/// Writes all of `bytes` at `pos`, as pwrite(2) does.
///
/// # Errors
///
/// What write(2) says.
pub(crate) fn write_at(file: &File, bytes: &[u8], pos: u64) -> Result {
    let mut pos = i64::try_from(pos)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: `file` is valid and open for writing, `rest` is readable.
        let done = unsafe {
            bindings::kernel_write(file.as_ptr(), rest.as_ptr().cast(), rest.len(), &mut pos)
        };
        if done <= 0 {
            return Err(Error::from_errno(i32::try_from(done)?.min(-1)));
        }
        rest = rest.get(usize::try_from(done)?..).unwrap_or_default();
    }
    Ok(())
}

/// Whether `file` is on the kernel's own mount of shared memory, which has no path.
pub(crate) fn is_internal_shmem(file: &File) -> bool {
    // SAFETY: `file` is valid.
    unsafe { bindings::checkpoint_is_internal_shmem(file.as_ptr()) }
}

/// Whether the last component of the file's name is `name`.
pub(crate) fn name_is(file: &File, name: &CStr) -> bool {
    Path::of(file).is_ok_and(|path| {
        let bytes = path.bytes();
        let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        bytes.strip_prefix(b"/").unwrap_or(bytes) == name.to_bytes()
    })
}

/// Takes over the reference that comes with the result of a C function.
pub(crate) fn owned(file: *mut bindings::file) -> Result<ARef<File>> {
    let file = NonNull::new(from_err_ptr(file)?).ok_or(ENOENT)?;
    // SAFETY: The reference is ours, and nobody else uses the position.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// Lets go of a file. If nobody else has it, it is closed when this returns.
pub(crate) fn close(file: ARef<File>) {
    let file = ARef::into_raw(file).as_ptr().cast();
    // SAFETY: The reference was ours.
    unsafe { bindings::checkpoint_close_now(file) };
}

/// Opens `path` under the caller's credentials.
///
/// # Errors
///
/// What open(2) says.
pub(crate) fn open(path: &[u8], flags: u32) -> Result<ARef<File>> {
    create(path, flags, 0)
}

/// As [`open`], with the permissions that a file has which the flags make.
pub(crate) fn create(path: &[u8], flags: u32, permissions: u16) -> Result<ARef<File>> {
    let name = string(path)?;
    let name = CStr::from_bytes_with_nul(&name).map_err(|_| EINVAL)?;
    // SAFETY: `name` is a string.
    owned(unsafe { bindings::filp_open(name.as_char_ptr(), i32::try_from(flags)?, permissions) })
}

/// `bytes` with a final NUL.
pub(crate) fn string(bytes: &[u8]) -> Result<KVec<u8>> {
    let mut string = KVec::with_capacity(bytes.len() + 1, GFP_KERNEL)?;
    put_string(&mut string, bytes)?;
    Ok(string)
}

/// Replaces what is in `string` by `bytes` and a final NUL.
fn put_string(string: &mut KVec<u8>, bytes: &[u8]) -> Result {
    string.clear();
    string.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(string.push(0, GFP_KERNEL)?)
}

/// What is at `path`, which has no NUL in it, as the caller may find it. `room` is for the name:
/// there are tens of thousands of files.
///
/// # Errors
///
/// What stat(2) says.
pub(crate) fn lookup(path: &[u8], room: &mut KVec<u8>) -> Result<OwnPath> {
    put_string(room, path)?;
    // SAFETY: The name ends with a NUL; the function writes the path with references, or fails.
    unsafe { OwnPath::from(|path| bindings::checkpoint_lookup(room.as_ptr().cast(), path)) }
}

/// Opens what was found, without a second look-up of the name, under the caller's credentials.
///
/// # Errors
///
/// What open(2) says.
pub(crate) fn reopen(found: &impl HasPath, flags: u32) -> Result<ARef<File>> {
    let flags = i32::try_from(flags)?;
    // SAFETY: The path is valid.
    owned(unsafe { bindings::file_open_root(found.path(), c"".as_char_ptr(), flags, 0) })
}

/// As [`reopen`], with the flags that `image` has, which F_GETFL then shows, and its advice.
///
/// # Errors
///
/// What open(2) says.
pub(crate) fn reopen_as(found: &impl HasPath, image: u32) -> Result<ARef<File>> {
    // Another meaning, or none, for what exists.
    let shown = bindings::__O_TMPFILE | bindings::O_DIRECTORY;
    let flags = open_flags(image);
    let file = reopen(found, flags & !shown)?;
    // SAFETY: `file` is valid and not shared yet.
    unsafe { (*file.as_ptr()).f_flags |= flags & shown };
    for (advice, _) in ADVICE.iter().filter(|(_, bit)| image & bit != 0) {
        let advice = i32::try_from(*advice)?;
        // SAFETY: `file` is valid. It is advice: who takes none is none the worse.
        let _ = unsafe { bindings::vfs_fadvise(file.as_ptr(), 0, 0, advice) };
    }
    Ok(file)
}

/// Flags of open(2) and fcntl(2), and their bits in the image.
const FLAGS: Bits = Bits(&[
    (bindings::O_LARGEFILE, file_flags::LARGEFILE),
    (bindings::O_APPEND, file_flags::APPEND),
    (bindings::O_NONBLOCK, file_flags::NONBLOCK),
    (bindings::O_DIRECT, file_flags::DIRECT),
    (bindings::O_SYNC & !bindings::O_DSYNC, file_flags::SYNC),
    (bindings::O_DSYNC, file_flags::DSYNC),
    (bindings::O_NOATIME, file_flags::NOATIME),
    (bindings::O_PATH, file_flags::PATH),
    (bindings::O_DIRECTORY, file_flags::DIRECTORY),
    (bindings::O_NOFOLLOW, file_flags::NOFOLLOW),
    (bindings::__O_TMPFILE, file_flags::TMPFILE),
]);

/// Advice of posix_fadvise(2) that is kept, and its bits in the image, the last first that takes
/// others back.
const ADVICE: &[(u32, u32)] = &[
    (
        bindings::POSIX_FADV_SEQUENTIAL,
        file_flags::ADVISE_SEQUENTIAL,
    ),
    (bindings::POSIX_FADV_RANDOM, file_flags::ADVISE_RANDOM),
    (bindings::POSIX_FADV_NOREUSE, file_flags::ADVISE_NOREUSE),
];

/// What F_GETFL shows of `file`, and what posix_fadvise(2) has said, in the image's bits.
pub(crate) fn image_flags(file: &File) -> u32 {
    let mode = mode(file);
    let mut flags = FLAGS.to_image(file.flags() & !bindings::O_ACCMODE);
    if mode & bindings::FMODE_READ != 0 {
        flags |= file_flags::READ;
    }
    if mode & bindings::FMODE_WRITE != 0 {
        flags |= file_flags::WRITE;
    }
    if file_type(file) == bindings::S_IFREG && mode & bindings::FMODE_PATH == 0 {
        // SAFETY: `file` is valid, and keeps its mapping.
        let advice = unsafe { bindings::checkpoint_get_advice(file.as_ptr()) };
        for (number, image) in ADVICE {
            if advice & 1 << number != 0 {
                flags |= image;
            }
        }
    }
    flags
}

/// The flags that open(2) takes to get a file as `image` says.
pub(crate) fn open_flags(image: u32) -> u32 {
    let access = match (
        image & file_flags::READ != 0,
        image & file_flags::WRITE != 0,
    ) {
        (_, false) => bindings::O_RDONLY,
        (false, true) => bindings::O_WRONLY,
        (true, true) => bindings::O_RDWR,
    };
    access | FLAGS.to_kernel(image)
}

/// Flags that fcntl(2) sets.
const STATUS: u32 =
    bindings::O_APPEND | bindings::O_NONBLOCK | bindings::O_DIRECT | bindings::O_NOATIME;

/// Sets the status flags of an open file that nobody else has yet, and that gives them no meaning
/// of its own.
pub(crate) fn set_status(file: &File, image: u32) {
    let flags = open_flags(image) & STATUS;
    // SAFETY: `file` is valid and not shared yet.
    unsafe {
        let raw = file.as_ptr();
        (*raw).f_flags = (*raw).f_flags & !STATUS | flags;
    }
}

/// Whether `file` was opened by a name that it no longer has, or never had one.
pub(crate) fn is_unlinked(file: &File) -> bool {
    // SAFETY: A file keeps its path as long as it lives.
    unsafe { bindings::checkpoint_path_unlinked(file.path()) }
}

/// A path with references of its own.
pub(crate) struct OwnPath(bindings::path);

impl OwnPath {
    /// The path that `fill` writes, with references, unless it returns an error.
    ///
    /// # Safety
    ///
    /// `fill` does as it says.
    pub(crate) unsafe fn from(fill: impl FnOnce(*mut bindings::path) -> i32) -> Result<Self> {
        let mut path = bindings::path::default();
        to_result(fill(&mut path))?;
        Ok(Self(path))
    }

    /// The path from the caller's root, see [`Path::from_root`].
    pub(crate) fn from_root(&self) -> Result<Option<Path>> {
        // SAFETY: The path is valid by the references that it has.
        unsafe { Path::from_root(self.path()) }
    }
}

impl HasPath for OwnPath {
    fn path(&self) -> *const bindings::path {
        &self.0
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        // SAFETY: The references are ours.
        unsafe { bindings::path_put(&self.0) };
    }
}

/// The path of a file, under any of its names, unless it is refused for having none.
pub(crate) fn saved_path(saver: &mut Saver<'_>, place: Place, file: &File) -> Result<Option<Path>> {
    let path = if is_unlinked(file) {
        // SAFETY: `file` is valid; the function writes the path with references, or fails.
        let other =
            unsafe { OwnPath::from(|path| bindings::checkpoint_linked_path(file.as_ptr(), path)) };
        let Ok(other) = other else {
            // SAFETY: `file` is valid.
            let elsewhere = match unsafe { bindings::checkpoint_links(file.as_ptr()) } {
                0 => "",
                _ => " whose other name is not known",
            };
            let name = Name(file);
            saver.refuse(
                place,
                fmt!("{name}: unlinked file{elsewhere}: not supported"),
            );
            return Ok(None);
        };
        other.from_root()?
    } else {
        let room = core::mem::replace(&mut saver.path_room, KVec::new());
        // SAFETY: A file keeps its path as long as it lives.
        unsafe { Path::from_root_in(room, file.path()) }?
    };
    if path.is_none() {
        saver.refuse(
            place,
            fmt!("{}: not reachable by a path: not supported", Name(file)),
        );
    }
    Ok(path)
}
