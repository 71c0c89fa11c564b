// SPDX-License-Identifier: GPL-2.0

//! Pipes and fifos that only the tree has open: buffered data, size, packet mode, closed ends.
//!
//! A pipe may be open any number of times in each direction, by fork, /proc/self/fd and the names
//! of fifos. Its own ends come back as pipe(2) makes them, all others are opened by the path; both
//! before any task exists.
//!
//! Locks: the pipe's mutex, while its buffers are copied.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};

use zerocopy::IntoBytes;

use crate::{
    files::{
        self,
        external, //
    },
    image::{
        record::{
            end_flags,
            file_flags,
            packet_flags,
            pipe_flags,
            FilePipe,
            Packet,
            Pipe, //
        },
        RecordRef, //
    },
    objects::Class,
    plan::Opening,
    report::Place,
    save::Saver, //
};

/// The pipe behind `file`, if it is one or a fifo.
pub(crate) fn info(file: &File) -> Option<NonNull<bindings::pipe_inode_info>> {
    // SAFETY: `file` is valid.
    NonNull::new(unsafe { bindings::get_pipe_info(file.as_ptr(), false) })
}

/// Whether a pipe has an end that no task of the tree has open.
pub(crate) fn leads_outside(saver: &Saver<'_>, file: &File) -> bool {
    let Some(pipe) = info(file) else {
        return false;
    };
    // SAFETY: `file` keeps its pipe. The count may change only by those outside the tree.
    let files = unsafe { (*pipe.as_ptr()).files };
    saver.survey.pipe_files(pipe) != files
}

/// Every pipe and fifo.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    files::file_type(file) == bindings::S_IFIFO && info(file).is_some()
}

/// Saves an open pipe or fifo, and what is in it unless that has been.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    // SAFETY: `file` is valid.
    let fifo = unsafe { bindings::checkpoint_is_fifo(file.as_ptr()) };
    if leads_outside(saver, file) && !saver.survey.drops(file) {
        let what = if fifo { "fifo" } else { "pipe" };
        external::refuse(saver, place, file, fmt!("{what} to outside the tree"));
        return Ok(None);
    }
    let path = if fifo {
        let Some(path) = files::saved_path(saver, place, file)? else {
            return Ok(None);
        };
        Some(path)
    } else {
        None
    };
    let info = info(file).ok_or(EBADF)?;
    let Some(pipe) = save_pipe(saver, place, info, fifo)? else {
        return Ok(None);
    };
    // SAFETY: `file` is open on the pipe.
    let waits = unsafe { bindings::checkpoint_pipe_no_writer_yet(file.as_ptr(), info.as_ptr()) };
    let record = FilePipe {
        flags: files::image_flags(file).into(),
        pipe: pipe.into(),
        mode: files::file_mode(file).into(),
        end_flags: if waits { end_flags::NO_WRITER_YET } else { 0 }.into(),
    };
    let path = path.as_ref().map_or(&[][..], files::Path::bytes);
    saver.object(&record, &[path]).map(Some)
}

fn save_pipe(
    saver: &mut Saver<'_>,
    place: Place,
    pipe: NonNull<bindings::pipe_inode_info>,
    fifo: bool,
) -> Result<Option<u32>> {
    if let Some(id) = saver.objects.get(Class::Pipe, pipe.as_ptr()) {
        return Ok(Some(id));
    }
    // SAFETY: The caller has a file of the pipe, which keeps it.
    if unsafe { bindings::checkpoint_pipe_has_notifications(pipe.as_ptr()) } {
        saver.refuse(place, fmt!("pipe with notifications: not supported"));
        return Ok(None);
    }
    let mut packets = KVVec::new();
    let mut data = KVVec::new();
    let lock = Lock::new(pipe);
    let size = lock.slots();
    for slot in lock.used() {
        let (len, packet) = lock.copy(slot, &mut data)?;
        let flags = if packet { packet_flags::PACKET } else { 0 };
        if len != 0 {
            packets.push(
                Packet {
                    len: len.into(),
                    flags: flags.into(),
                },
                GFP_KERNEL,
            )?;
        }
    }
    drop(lock);
    let record = Pipe {
        size: size.into(),
        packets: u32::try_from(packets.len())?.into(),
        bytes: u32::try_from(data.len())?.into(),
        flags: if fifo { pipe_flags::FIFO } else { 0 }.into(),
    };
    let id = saver.object(&record, &[packets.as_bytes(), &data])?;
    saver.objects.insert(Class::Pipe, pipe.as_ptr(), id)?;
    Ok(Some(id))
}

/// A pipe, locked.
///
/// # Invariants
///
/// The pipe's mutex is held by this task.
struct Lock(NonNull<bindings::pipe_inode_info>);

impl Lock {
    fn new(pipe: NonNull<bindings::pipe_inode_info>) -> Self {
        // SAFETY: The caller has a file of the pipe open, which keeps it.
        unsafe { bindings::pipe_lock(pipe.as_ptr()) };
        // INVARIANT: The mutex has just been taken.
        Self(pipe)
    }

    /// Capacity in slots.
    fn slots(&self) -> u32 {
        // SAFETY: By the type invariant nobody changes it.
        unsafe { (*self.0.as_ptr()).max_usage }
    }

    /// Numbers of the slots in use, the next to be read first.
    fn used(&self) -> impl Iterator<Item = u32> {
        let (mut head, mut tail) = (0, 0);
        // SAFETY: By the type invariant nobody changes these.
        unsafe { bindings::checkpoint_pipe_slots(self.0.as_ptr(), &mut head, &mut tail) };
        (0..head.wrapping_sub(tail)).map(move |index| tail.wrapping_add(index))
    }

    /// Appends the contents of a slot to `data`; returns how many bytes, and whether they are a
    /// packet.
    fn copy(&self, slot: u32, data: &mut KVVec<u8>) -> Result<(u32, bool)> {
        let pipe = self.0.as_ptr();
        // SAFETY: By the type invariant the ring stays, and `slot` is in use; the mask keeps the
        // index within it.
        unsafe {
            let index = usize::try_from(slot & ((*pipe).ring_size - 1))?;
            let buffer = (*pipe).bufs.add(index);
            if let Some(confirm) = (*(*buffer).ops).confirm {
                to_result(confirm(pipe, buffer))?;
            }
            let len = (*buffer).len;
            let offset = usize::try_from((*buffer).offset)?;
            let bytes = usize::try_from(len)?;
            if offset + bytes > PAGE_SIZE {
                return Err(EIO);
            }
            let page = bindings::checkpoint_page_address((*buffer).page).cast::<u8>();
            data.extend_from_slice(
                core::slice::from_raw_parts(page.add(offset), bytes),
                GFP_KERNEL,
            )?;
            Ok((len, (*buffer).flags & bindings::PIPE_BUF_FLAG_PACKET != 0))
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the mutex is held.
        unsafe { bindings::pipe_unlock(self.0.as_ptr()) };
    }
}

/// What is wrong with a pipe, in words.
type Wrong = (Error, &'static str);

/// A pipe of the plan on its way back.
pub(crate) enum Pending {
    /// A fifo, until the record of an open one tells its path.
    Named(RecordRef<'static>),
    Made(Ends),
}

/// A pipe with what is in it, while the open files of the tree are made.
pub(crate) struct Ends {
    /// The ends that pipe(2) makes, until they are taken. A fifo has none.
    read: Option<ARef<File>>,
    write: Option<ARef<File>>,
    /// Keeps the pipe, and others are opened by its path. Taken by the drop only.
    base: ManuallyDrop<ARef<File>>,
}

/// Makes the pipe of a record, whose open files are made by [`open`].
///
/// # Errors
///
/// As [`Ends::fill`], with a line in the report.
pub(crate) fn make(opening: &mut Opening<'_>, record: &RecordRef<'static>) -> Result<()> {
    let (pipe, tail) = record.get::<Pipe>().map_err(|_| EINVAL)?;
    let pending = if pipe.flags.get() & pipe_flags::FIFO != 0 {
        Pending::Named(*record)
    } else {
        let ends = Ends::anonymous().and_then(|ends| ends.fill(pipe, tail));
        Pending::Made(ends.map_err(|(err, what)| {
            let id = record.id;
            opening
                .report
                .problem(Place::Tree, fmt!("pipe {id}: {what}: {err:?}"));
            err
        })?)
    };
    opening
        .pipes
        .push((record.id, pending), GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// Opens a pipe or fifo as a record says.
///
/// # Errors
///
/// What open(2) says; `ESTALE` when the path of a fifo leads to something else, `EBUSY` when others
/// have it open: with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'static>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FilePipe>().map_err(|_| EINVAL)?;
    let path = opening.locate(path)?;
    let id = record.pipe.get();
    let at = opening
        .pipes
        .binary_search_by_key(&id, |(id, _)| *id)
        .map_err(|_| EINVAL)?;
    let (_, pending) = opening.pipes.get_mut(at).ok_or(EINVAL)?;
    pending.open(record, &path).map_err(|(err, what)| {
        let name = path.name();
        if path.is_empty() {
            opening
                .report
                .problem(Place::Tree, fmt!("pipe {id}: {what}: {err:?}"));
        } else {
            opening
                .report
                .problem(Place::Tree, fmt!("fifo {name}: {what}: {err:?}"));
        }
        err
    })
}

impl Pending {
    /// Opens it as `record` says, by `path` if it has one, and makes it for the first.
    fn open(&mut self, record: &FilePipe, path: &[u8]) -> Result<ARef<File>, Wrong> {
        let found = find(path)?;
        if let Self::Named(pipe) = self {
            let malformed = |_| (EINVAL, "is no record of a pipe");
            let (pipe, tail) = pipe.get::<Pipe>().map_err(malformed)?;
            let found = found.as_ref().ok_or((EINVAL, "has no name"))?;
            *self = Self::Made(Ends::fifo(found)?.fill(pipe, tail)?);
        }
        let Self::Made(ends) = self else {
            return Err((EINVAL, "is not made"));
        };
        if let Some(found) = found {
            if files::inode(&found) != files::inode(&ends.base) {
                return Err((ESTALE, "is another one than its other end"));
            }
        }
        ends.open(record)
    }
}

/// Looks a fifo up, if there is a path.
fn find(path: &[u8]) -> Result<Option<ARef<File>>, Wrong> {
    if path.is_empty() {
        return Ok(None);
    }
    let found = files::open(path, bindings::O_PATH).map_err(|err| (err, "cannot be looked up"))?;
    if files::file_type(&found) != bindings::S_IFIFO {
        return Err((ESTALE, "is no fifo any more"));
    }
    Ok(Some(found))
}

impl Ends {
    /// What pipe(2) makes.
    fn anonymous() -> Result<Self, Wrong> {
        let wrong = |err| (err, "cannot be made");
        let mut ends = [core::ptr::null_mut(); 2];
        // SAFETY: `ends` has room for two files, which come with a reference each.
        to_result(unsafe { bindings::create_pipe_files(ends.as_mut_ptr(), 0) }).map_err(wrong)?;
        let [read, write] = ends.map(|end| files::owned(end).map_err(wrong));
        let (read, write) = (read?, write?);
        Ok(Self {
            base: ManuallyDrop::new(write.clone()),
            read: Some(read),
            write: Some(write),
        })
    }

    /// The fifo `found`, which nobody may have open.
    fn fifo(found: &File) -> Result<Self, Wrong> {
        // For both directions, which waits for nobody and can be filled.
        let base = files::reopen(found, bindings::O_RDWR | bindings::O_NONBLOCK)
            .map_err(|err| (err, "cannot be opened for reading and writing"))?;
        let made = Self {
            read: None,
            write: None,
            base: ManuallyDrop::new(base),
        };
        let pipe = made.pipe()?;
        let lock = Lock::new(pipe);
        // SAFETY: The lock keeps the count.
        if unsafe { (*pipe.as_ptr()).files } != 1 || lock.used().next().is_some() {
            return Err((EBUSY, "others have it open"));
        }
        drop(lock);
        Ok(made)
    }

    fn pipe(&self) -> Result<NonNull<bindings::pipe_inode_info>, Wrong> {
        info(&self.base).ok_or((ESTALE, "is no pipe any more"))
    }

    /// Gives the pipe its size and its contents.
    ///
    /// # Errors
    ///
    /// `EPERM` when it is larger than the caller may make one.
    fn fill(self, record: &Pipe, tail: &[u8]) -> Result<Self, Wrong> {
        let wrong = |err| (err, "cannot be filled");
        let malformed = (EINVAL, "its contents do not add up");
        let page = u32::try_from(PAGE_SIZE).map_err(|_| malformed)?;
        let slots = record.size.get();
        let size = slots.checked_mul(page).ok_or(malformed)?;
        let pipe = self.pipe()?;
        // SAFETY: `base` is open on the pipe. One that has its size already is left alone.
        let got = unsafe {
            if (*pipe.as_ptr()).max_usage == slots {
                0
            } else {
                bindings::pipe_fcntl(self.base.as_ptr(), bindings::F_SETPIPE_SZ, size)
            }
        };
        if got < 0 {
            let err = Error::from_errno(i32::try_from(got).unwrap_or(-1));
            let what = if err == EPERM {
                "is larger than the caller may make one (fs.pipe-max-size, fs.pipe-user-pages-*)"
            } else {
                "cannot be made as large as it was"
            };
            return Err((err, what));
        }
        let (packets, mut data) = record.split(tail).ok_or(malformed)?;
        for packet in packets {
            let (bytes, rest) = usize::try_from(packet.len.get())
                .ok()
                .and_then(|len| data.split_at_checked(len))
                .ok_or(malformed)?;
            data = rest;
            let is_packet = packet.flags.get() & packet_flags::PACKET != 0;
            let direct = if is_packet { bindings::O_DIRECT } else { 0 };
            set_flags(&self.base, bindings::O_NONBLOCK | direct);
            let mut pos = 0;
            // SAFETY: `base` is open for writing and `bytes` is readable.
            let done = unsafe {
                bindings::kernel_write(
                    self.base.as_ptr(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    &mut pos,
                )
            };
            let done = i32::try_from(done).unwrap_or(-1);
            if done < 0 {
                return Err(wrong(Error::from_errno(done)));
            }
            if usize::try_from(done) != Ok(bytes.len()) {
                return Err(wrong(ENOSPC));
            }
        }
        Ok(self)
    }

    /// Opens the pipe as `record` says: by an end that pipe(2) has made, or by its path. Ends that
    /// are not taken are closed with the pipe's maker, as they were closed in the tree.
    fn open(&mut self, record: &FilePipe) -> Result<ARef<File>, Wrong> {
        let flags = record.flags.get();
        let end = match (
            flags & file_flags::READ != 0,
            flags & file_flags::WRITE != 0,
        ) {
            (true, false) => self.read.take(),
            (false, true) => self.write.take(),
            _ => None,
        };
        let open_flags = files::open_flags(flags);
        let access = open_flags & bindings::O_ACCMODE;
        let file = match end {
            Some(file) => file,
            None => files::reopen(&*self.base, access | bindings::O_NONBLOCK)
                .map_err(|err| (err, "cannot be opened"))?,
        };
        set_flags(&file, open_flags);
        if record.end_flags.get() & end_flags::NO_WRITER_YET != 0 {
            let pipe = self.pipe()?;
            // SAFETY: `file` is open on the pipe, and nobody else has it.
            unsafe { bindings::checkpoint_pipe_await_writer(file.as_ptr(), pipe.as_ptr()) };
        }
        Ok(file)
    }
}

impl Drop for Ends {
    /// Closes what the tree does not have open, before a task of it runs.
    fn drop(&mut self) {
        // SAFETY: Nothing uses it after this.
        let base = unsafe { ManuallyDrop::take(&mut self.base) };
        for end in [self.read.take(), self.write.take(), Some(base)]
            .into_iter()
            .flatten()
        {
            files::close(end);
        }
    }
}

/// Sets the status flags of an open pipe that nobody else has.
fn set_flags(file: &File, flags: u32) {
    let mask = bindings::O_NONBLOCK | bindings::O_DIRECT | bindings::O_LARGEFILE;
    // SAFETY: `file` is valid and not shared yet.
    unsafe {
        let raw = file.as_ptr();
        (*raw).f_flags = (*raw).f_flags & !mask | flags & mask;
    }
}
