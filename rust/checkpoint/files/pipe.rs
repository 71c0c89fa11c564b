// SPDX-License-Identifier: GPL-2.0

//! Pipes with all their ends in the tree: buffered data, size, packet mode, closed ends.
//!
//! Locks: the pipe's mutex, while its buffers are copied.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    rbtree::RBTree,
    sync::aref::ARef, //
};

use zerocopy::IntoBytes;

use crate::{
    files,
    hold::Held,
    image::{
        record::{
            file_flags,
            packet_flags,
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

/// How many open files of each pipe are in the tree.
pub(crate) struct Survey {
    ends: RBTree<usize, u32>,
    seen: RBTree<usize, ()>,
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self {
            ends: RBTree::new(),
            seen: RBTree::new(),
        }
    }

    /// Counts the pipe ends that `held` has open.
    pub(crate) fn add(&mut self, held: &Held) -> Result {
        files::each(held, |_, file, _| {
            let Some(pipe) = info(&file) else {
                return Ok(());
            };
            let key = file.as_ptr().addr();
            if self.seen.get(&key).is_some() {
                return Ok(());
            }
            self.seen.try_create_and_insert(key, (), GFP_KERNEL)?;
            let pipe = pipe.as_ptr().addr();
            match self.ends.get_mut(&pipe) {
                Some(count) => *count += 1,
                None => {
                    self.ends.try_create_and_insert(pipe, 1, GFP_KERNEL)?;
                }
            }
            Ok(())
        })
    }
}

/// The pipe behind `file`, if it is one or a fifo.
fn info(file: &File) -> Option<NonNull<bindings::pipe_inode_info>> {
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
    saver.pipes.ends.get(&pipe.as_ptr().addr()).copied() != Some(files)
}

/// Every pipe and fifo.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    files::file_type(file) == bindings::S_IFIFO && info(file).is_some()
}

/// Saves an open end, and the pipe itself unless it has been.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    if leads_outside(saver, file) {
        saver.refuse(place, fmt!("pipe to outside the tree: not supported"));
        return Ok(None);
    }
    let path = files::Path::of(file)?;
    if path.is_absolute() {
        saver.refuse(place, fmt!("fifo {}: not supported", files::Name(file)));
        return Ok(None);
    }
    let flags = files::image_flags(file);
    if flags & file_flags::READ != 0 && flags & file_flags::WRITE != 0 {
        saver.refuse(place, fmt!("pipe open for both directions: not supported"));
        return Ok(None);
    }
    let info = info(file).ok_or(EBADF)?;
    let writes = flags & file_flags::WRITE != 0;
    let end = if writes {
        Class::PipeWriter
    } else {
        Class::PipeReader
    };
    if saver.objects.get(end, info.as_ptr()).is_some() {
        saver.refuse(
            place,
            fmt!("pipe with several open files at one end: not supported"),
        );
        return Ok(None);
    }
    let Some(pipe) = save_pipe(saver, place, info)? else {
        return Ok(None);
    };
    saver.objects.insert(end, info.as_ptr(), pipe)?;
    let record = FilePipe {
        flags: flags.into(),
        pipe: pipe.into(),
        mode: files::stat(file)?.mode.into(),
        reserved: 0.into(),
    };
    saver.object(&record, &[]).map(Some)
}

fn save_pipe(
    saver: &mut Saver<'_>,
    place: Place,
    pipe: NonNull<bindings::pipe_inode_info>,
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
        reserved: 0.into(),
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

/// A pipe with both ends, until those that belong to the tree have been taken.
pub(crate) struct Ends {
    read: Option<ARef<File>>,
    write: Option<ARef<File>>,
}

/// Makes the pipe of a record, whose ends are taken by [`open`].
///
/// # Errors
///
/// As [`fill`], with a line in the report.
pub(crate) fn make(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<()> {
    let id = record.id;
    let (record, tail) = record.get::<Pipe>().map_err(|_| EINVAL)?;
    let ends = fill(record, tail).inspect_err(|err| {
        opening
            .report
            .problem(Place::Tree, fmt!("pipe {id}: {err:?}"));
    })?;
    opening.pipes.push((id, ends), GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// Makes a pipe and fills it.
///
/// # Errors
///
/// `EPERM` when it is larger than the caller may make one; otherwise what pipe(2) says.
fn fill(record: &Pipe, tail: &[u8]) -> Result<Ends> {
    let mut ends = [core::ptr::null_mut(); 2];
    // SAFETY: `ends` has room for two files, which come with a reference each.
    to_result(unsafe { bindings::create_pipe_files(ends.as_mut_ptr(), 0) })?;
    let [read, write] = ends;
    let (read, write) = (files::owned(read)?, files::owned(write)?);

    let size = usize::try_from(record.size.get())? * PAGE_SIZE;
    // SAFETY: `write` is a pipe.
    let got = unsafe {
        bindings::pipe_fcntl(write.as_ptr(), bindings::F_SETPIPE_SZ, u32::try_from(size)?)
    };
    if got < 0 {
        return Err(Error::from_errno(i32::try_from(got)?));
    }
    let (packets, mut data) = record.split(tail).ok_or(EINVAL)?;
    for packet in packets {
        let (bytes, rest) = data
            .split_at_checked(usize::try_from(packet.len.get())?)
            .ok_or(EINVAL)?;
        data = rest;
        let is_packet = packet.flags.get() & packet_flags::PACKET != 0;
        set_flags(
            &write,
            bindings::O_NONBLOCK | if is_packet { bindings::O_DIRECT } else { 0 },
        );
        let mut pos = 0;
        // SAFETY: `write` is open for writing and `bytes` is readable.
        let done = unsafe {
            bindings::kernel_write(write.as_ptr(), bytes.as_ptr().cast(), bytes.len(), &mut pos)
        };
        if done < 0 {
            return Err(Error::from_errno(i32::try_from(done)?));
        }
        if usize::try_from(done)? != bytes.len() {
            return Err(ENOSPC);
        }
    }
    Ok(Ends {
        read: Some(read),
        write: Some(write),
    })
}

/// Takes the end that a record describes from its pipe.
///
/// # Errors
///
/// `EINVAL` or `EOPNOTSUPP`, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FilePipe>().map_err(|_| EINVAL)?;
    let pipe = record.pipe.get();
    if !path.is_empty() {
        opening
            .report
            .problem(Place::Image, fmt!("fifo: not supported"));
        return Err(EOPNOTSUPP);
    }
    let found = opening
        .pipes
        .binary_search_by_key(&pipe, |(id, _)| *id)
        .ok()
        .and_then(|at| opening.pipes.get_mut(at));
    let (_, ends) = found.ok_or(EINVAL)?;
    ends.take(record).inspect_err(|_| {
        opening.report.problem(
            Place::Image,
            fmt!("pipe {pipe}: several open files at one end: not supported"),
        );
    })
}

impl Ends {
    /// Takes the end that `record` describes. What is not taken is closed with the pipe's maker, as
    /// it was closed in the tree.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it has been taken.
    fn take(&mut self, record: &FilePipe) -> Result<ARef<File>> {
        let flags = record.flags.get();
        let end = if flags & file_flags::WRITE != 0 {
            &mut self.write
        } else {
            &mut self.read
        };
        let end = end.take().ok_or(EINVAL)?;
        let status = bindings::O_NONBLOCK | bindings::O_DIRECT;
        set_flags(&end, files::open_flags(flags) & status);
        Ok(end)
    }
}

impl Drop for Ends {
    /// Closes what the tree does not have open, before a task of it runs.
    fn drop(&mut self) {
        for end in [self.read.take(), self.write.take()].into_iter().flatten() {
            let file = ARef::into_raw(end).as_ptr().cast();
            // SAFETY: The reference was ours, and the pipe is nobody else's yet.
            unsafe { bindings::checkpoint_close_now(file) };
        }
    }
}

/// Sets the status flags of a pipe end that nobody else has.
fn set_flags(file: &File, flags: u32) {
    let mask = bindings::O_NONBLOCK | bindings::O_DIRECT;
    // SAFETY: `file` is valid and not shared yet.
    unsafe {
        let raw = file.as_ptr();
        (*raw).f_flags = (*raw).f_flags & !mask | flags;
    }
}
