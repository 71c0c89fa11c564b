// SPDX-License-Identifier: GPL-2.0

//! The stream an image goes to or comes from: written and read in order, never seeked.

use core::mem::MaybeUninit;

use kernel::{
    alloc::{
        Allocator,
        Flags,
        Vec, //
    },
    bindings,
    error::to_result,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        Crc32c,
        Sink,
        TooLong, //
    }, //
};

/// The kernel's CRC-32C.
pub(crate) struct KernelCrc;

impl Crc32c for KernelCrc {
    fn crc32c(crc: u32, data: &[u8]) -> u32 {
        // SAFETY: `data` is valid for reads of its length.
        unsafe { bindings::crc32c(crc, data.as_ptr().cast(), data.len()) }
    }
}

/// A file opened for reading or writing, at its own position.
///
/// All transfers may sleep. A fatal signal ends them with `EINTR`; another signal does so only
/// where the file's own driver looks at it (pipes and sockets).
pub(crate) struct Stream {
    file: ARef<File>,
}

impl Stream {
    /// Uses `file`, which the caller has opened with the mode that is needed.
    ///
    /// # Errors
    ///
    /// `EBADF` when `file` cannot be written (`writing`) or read, `EISDIR` when it is a directory.
    pub(crate) fn new(file: ARef<File>, writing: bool) -> Result<Self> {
        let need = if writing {
            bindings::FMODE_WRITE
        } else {
            bindings::FMODE_READ
        };
        // SAFETY: `file` is a valid file; `f_mode` does not change after open.
        let mode = unsafe { (*file.as_ptr()).f_mode };
        if mode & need == 0 {
            return Err(EBADF);
        }
        if files::file_type(&file) == bindings::S_IFDIR {
            return Err(EISDIR);
        }
        Ok(Self { file })
    }

    /// The file, to tell whether a descriptor in the tree is the stream itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Moves bytes between `iter` and the file position, and returns how many.
    ///
    /// # Errors
    ///
    /// What the file says.
    fn step(&self, iter: &mut bindings::iov_iter, writing: bool) -> Result<usize> {
        let file = self.file.as_ptr();
        // SAFETY: `file` is valid and open for the direction; `iter` covers memory that stays.
        // `f_pos` races only with the caller's own use of the descriptor, as for read(2) and
        // write(2) on a shared one.
        let moved = unsafe {
            let mut pos = (*file).f_pos;
            let moved = if writing {
                bindings::vfs_iter_write(file, iter, &mut pos, 0)
            } else {
                bindings::vfs_iter_read(file, iter, &mut pos, 0)
            };
            if moved > 0 {
                (*file).f_pos = pos;
            }
            moved
        };
        usize::try_from(moved).or_else(|_| Err(ended(Error::from_errno(i32::try_from(moved)?))))
    }

    /// Moves all of the `left` bytes that `iter` covers.
    ///
    /// # Errors
    ///
    /// What the file says; `EIO` when it takes nothing more, `ENODATA` when it has nothing more.
    fn transfer(&self, iter: &mut bindings::iov_iter, mut left: usize, writing: bool) -> Result {
        while left > 0 {
            // A file that comes to the limit of its length has cut off what is beyond.
            // SAFETY: The iterator covers so much, of which it has gone through the rest.
            unsafe { iter.__bindgen_anon_1.__bindgen_anon_1.as_mut() }.count = left;
            match self.step(iter, writing)? {
                0 if writing => return Err(EIO),
                0 => return Err(ENODATA),
                moved => left -= moved.min(left),
            }
        }
        Ok(())
    }

    /// Reads up to `buf.len()` bytes; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// What the file says.
    pub(crate) fn read_some(&self, buf: &mut [u8]) -> Result<usize> {
        let vec = bindings::kvec {
            iov_base: buf.as_mut_ptr().cast(),
            iov_len: buf.len(),
        };
        // SAFETY: `vec` describes `buf`, and both outlive the iterator.
        let mut iter = unsafe { kvec_iter(bindings::ITER_DEST, &vec) };
        self.step(&mut iter, false)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    ///
    /// What the file says, among it `EPIPE` when nobody reads a pipe and `ENOSPC`.
    pub(crate) fn write_all(&self, bytes: &[u8]) -> Result {
        let base = bytes.as_ptr().cast_mut().cast();
        let vec = bindings::kvec {
            iov_base: base,
            iov_len: bytes.len(),
        };
        // SAFETY: `vec` describes `bytes`, and both outlive the iterator.
        let mut iter = unsafe { kvec_iter(bindings::ITER_SOURCE, &vec) };
        self.transfer(&mut iter, bytes.len(), true)
    }

    /// Writes all that is in `buffer`.
    ///
    /// # Errors
    ///
    /// As [`Stream::write_all`].
    pub(crate) fn write_buffer(&self, buffer: &Buffer) -> Result {
        buffer.pieces().try_for_each(|piece| self.write_all(piece))
    }

    /// Hands whole pages to whoever reads the stream, if it is a pipe or a socket. Returns whether
    /// that is so; if not, they are to be written.
    ///
    /// # Errors
    ///
    /// As [`Stream::write_all`].
    ///
    /// # Safety
    ///
    /// Every entry refers to pages that the caller holds a reference to, and whose contents do not
    /// change as long as anybody has one.
    pub(crate) unsafe fn splice(&self, pages: &[bindings::bio_vec]) -> Result<bool> {
        let count = u32::try_from(pages.len())?;
        // SAFETY: The file is valid and open for writing; the rest by the safety requirement.
        let done = unsafe {
            bindings::checkpoint_splice(self.file.as_ptr(), pages.as_ptr(), count, total(pages))
        };
        to_result(done.min(0)).map_err(ended)?;
        Ok(done != 0)
    }

    /// Adds copies of `pages` pages, those of `runs`, to a file in tmpfs. Returns how many are in it
    /// now; the others are to be written.
    ///
    /// # Safety
    ///
    /// The caller holds a reference to the pages of every run, and there are so many of them.
    pub(crate) unsafe fn write_cached(&self, runs: &[bindings::checkpoint_run], pages: u32) -> u32 {
        // SAFETY: The file is valid and open for writing; the rest by the safety requirement. As for
        // `step()`.
        unsafe { bindings::checkpoint_write_cached(self.file.as_ptr(), runs.as_ptr(), pages) }
    }

    /// Writes whole pages, without a copy in between.
    ///
    /// # Errors
    ///
    /// As [`Stream::write_all`].
    ///
    /// # Safety
    ///
    /// Every entry refers to pages that the caller holds a reference to.
    pub(crate) unsafe fn write_pages(&self, pages: &[bindings::bio_vec]) -> Result {
        // SAFETY: By the safety requirement; `pages` outlives the iterator.
        let mut iter = unsafe { pages_iter(bindings::ITER_SOURCE, pages) };
        self.transfer(&mut iter, total(pages), true)
    }

    /// Whether pages can become pages of the file where it stands.
    pub(crate) fn takes_pages(&self) -> bool {
        // SAFETY: The file is valid.
        unsafe { bindings::checkpoint_takes_pages(self.file.as_ptr()) }
    }

    /// Where the stream stands, in pages; `None` within one.
    pub(crate) fn page_index(&self) -> Option<usize> {
        // SAFETY: The file is valid. As for `step()`.
        let pos = usize::try_from(unsafe { (*self.file.as_ptr()).f_pos }).ok()?;
        (pos % PAGE_SIZE == 0).then_some(pos / PAGE_SIZE)
    }

    /// Goes on behind the next `len` bytes of a file that takes pages.
    ///
    /// # Errors
    ///
    /// `EFBIG`.
    pub(crate) fn skip(&self, len: usize) -> Result {
        // SAFETY: The file is valid. As for `step()`.
        let pos = unsafe { &mut (*self.file.as_ptr()).f_pos };
        *pos = pos.checked_add(i64::try_from(len)?).ok_or(EFBIG)?;
        Ok(())
    }

    /// Waits until all is on the disk, if the stream is a file that knows of one.
    ///
    /// # Errors
    ///
    /// What the file says, among it `EIO`.
    pub(crate) fn sync(&self) -> Result {
        if files::file_type(&self.file) != bindings::S_IFREG {
            return Ok(());
        }
        // SAFETY: The file is valid.
        match to_result(unsafe { bindings::vfs_fsync(self.file.as_ptr(), 0) }) {
            Err(err) if err == EINVAL => Ok(()),
            result => result,
        }
    }

    /// Copies what comes next in a file in tmpfs into `pages` pages, those of `runs`. Returns how many
    /// have their contents now; the others are to be read.
    ///
    /// # Safety
    ///
    /// As for [`Stream::write_cached`], and the caller may write to the pages.
    pub(crate) unsafe fn read_cached(&self, runs: &[bindings::checkpoint_run], pages: u32) -> u32 {
        // SAFETY: The file is valid and open for reading; the rest by the safety requirement. As for
        // `step()`.
        unsafe { bindings::checkpoint_read_cached(self.file.as_ptr(), runs.as_ptr(), pages) }
    }

    /// Reads whole pages from the stream, without a copy in between.
    ///
    /// # Errors
    ///
    /// `ENODATA` when the stream ends before; otherwise what the file says.
    ///
    /// # Safety
    ///
    /// Every entry refers to pages that the caller holds a reference to and may write.
    pub(crate) unsafe fn read_pages(&self, pages: &[bindings::bio_vec]) -> Result {
        // SAFETY: By the safety requirement; `pages` outlives the iterator.
        let mut iter = unsafe { pages_iter(bindings::ITER_DEST, pages) };
        self.transfer(&mut iter, total(pages), false)
    }
}

/// What the caller is told when a transfer ends with `err`: the position in the stream is lost, so
/// the call cannot be restarted.
fn ended(err: Error) -> Error {
    let restart = [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND];
    if restart.contains(&err) {
        EINTR
    } else {
        err
    }
}

/// An iterator over one piece of kernel memory.
///
/// # Safety
///
/// `vec` and what it describes outlive the result.
unsafe fn kvec_iter(direction: u32, vec: &bindings::kvec) -> bindings::iov_iter {
    let mut iter = MaybeUninit::uninit();
    // SAFETY: By the safety requirement; the function initialises the iterator.
    unsafe {
        bindings::iov_iter_kvec(iter.as_mut_ptr(), direction, vec, 1, vec.iov_len);
        iter.assume_init()
    }
}

/// Bytes in runs of pages.
fn total(pages: &[bindings::bio_vec]) -> usize {
    pages.iter().map(|run| run.bv_len as usize).sum()
}

/// An iterator over whole pages.
///
/// # Safety
///
/// `pages` and what it refers to outlive the result.
unsafe fn pages_iter(direction: u32, pages: &[bindings::bio_vec]) -> bindings::iov_iter {
    let mut iter = MaybeUninit::uninit();
    // SAFETY: By the safety requirement; the function initialises the iterator.
    unsafe {
        bindings::iov_iter_bvec(
            iter.as_mut_ptr(),
            direction,
            pages.as_ptr(),
            pages.len(),
            total(pages),
        );
        iter.assume_init()
    }
}

/// Says whether the caller is being killed, between two steps of long work.
///
/// # Errors
///
/// `EINTR` when it is.
pub(crate) fn interrupted() -> Result {
    // SAFETY: The function looks at the current task.
    if unsafe { bindings::checkpoint_killed() } {
        return Err(EINTR);
    }
    Ok(())
}

/// Makes `bytes` so long; what is new is zero. [`Vec::resize()`] writes it byte by byte.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn resize<A: Allocator>(bytes: &mut Vec<u8, A>, len: usize, flags: Flags) -> Result {
    let Some(more) = len.checked_sub(bytes.len()) else {
        bytes.truncate(len);
        return Ok(());
    };
    bytes.reserve(more, flags)?;
    // SAFETY: There is room for so many more, and any byte is a `u8`.
    unsafe {
        let spare = bytes.spare_capacity_mut().as_mut_ptr();
        spare.write_bytes(0, more);
        bytes.inc_len(more);
    }
    Ok(())
}

/// The part of an image that is made while the tree stands still: grows in memory, written later.
///
/// It grows by pieces, so that nothing is copied when it does.
pub(crate) struct Buffer {
    pieces: KVVec<VVec<u8>>,
}

impl Buffer {
    /// Room in the first piece and in the largest ones.
    const LEAST: usize = 16 << 10;
    const MOST: usize = 1 << 20;

    pub(crate) fn new() -> Self {
        Self {
            pieces: KVVec::new(),
        }
    }

    /// What is in it, one piece after the other.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| piece.as_slice())
    }

    /// Forgets what is in it, and keeps some of the room.
    pub(crate) fn clear(&mut self) {
        self.pieces.truncate(1);
        if let Some(piece) = self.pieces.as_mut_slice().first_mut() {
            piece.clear();
        }
    }

    /// A piece with room for at least one byte more.
    fn piece(&mut self) -> Result<&mut VVec<u8>> {
        let full = |piece: &VVec<u8>| piece.len() == piece.capacity();
        if self.pieces.last().is_none_or(full) {
            let last = self.pieces.last().map_or(0, |piece| piece.capacity());
            let room = (last * 2).clamp(Self::LEAST, Self::MOST);
            let piece = VVec::with_capacity(room, GFP_KERNEL_ACCOUNT)?;
            self.pieces.push(piece, GFP_KERNEL_ACCOUNT)?;
        }
        self.pieces.as_mut_slice().last_mut().ok_or(EINVAL)
    }
}

/// Appends as much of `bytes` as there is room for in `piece`, and returns the rest. `Vec` would
/// copy byte by byte.
fn fill<'a>(piece: &mut VVec<u8>, bytes: &'a [u8]) -> &'a [u8] {
    let spare = piece.spare_capacity_mut();
    let (now, later) = bytes.split_at_checked(spare.len()).unwrap_or((bytes, &[]));
    // SAFETY: There is room for `now`, which is no part of that.
    unsafe {
        let spare = spare.as_mut_ptr();
        spare.copy_from_nonoverlapping(now.as_ptr().cast(), now.len());
        piece.inc_len(now.len());
    }
    later
}

impl Sink for Buffer {
    type Error = Error;

    fn put(&mut self, parts: &[&[u8]]) -> Result {
        let mut piece = self.piece()?;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let mut rest = fill(piece, part);
            while !rest.is_empty() {
                piece = self.piece()?;
                rest = fill(piece, rest);
            }
        }
        Ok(())
    }
}

impl Sink for &Stream {
    type Error = Error;

    fn put(&mut self, parts: &[&[u8]]) -> Result {
        parts.iter().try_for_each(|part| self.write_all(part))
    }
}

impl From<TooLong> for Error {
    fn from(_: TooLong) -> Self {
        E2BIG
    }
}
