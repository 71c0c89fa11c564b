// SPDX-License-Identifier: GPL-2.0

//! Contents of memory: from page tables into the stream, and from the stream into page tables.
//!
//! Contents go out and come in as chunks of up to [`CHUNK_PAGES`] pages, straight from and into the
//! pages themselves. A chunk gathers runs of pages over holes, so scattered pages cost no more
//! records than dense ones.
//!
//! Locks: `mmap_lock` (read) → page table locks, inside [`Found::collect`] and the page faults only.
//! The stream is never touched under a lock.

use core::ptr;

use kernel::{
    bindings,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef,
    task::Pid, //
};

use crate::{
    hold::Hold,
    image::{
        Checksum,
        Encoder,
        Extent,
        CHUNK_PAGES, //
    },
    mm::{
        MmRef,
        Range, //
    },
    report::{
        Place,
        Report, //
    },
    stream::{
        interrupted,
        KernelCrc,
        Stream, //
    }, //
};

/// [`CHUNK_PAGES`] as a length.
const CHUNK: usize = CHUNK_PAGES as usize;

/// Up to a chunk of pages, each with a reference.
///
/// # Invariants
///
/// The first `found.count` entries of `pages` refer to pages that this object holds a reference to,
/// and those of `addrs` are their addresses, ascending.
pub(crate) struct Found {
    pages: KVVec<*mut bindings::page>,
    addrs: KVVec<usize>,
    count: usize,
}

impl Found {
    pub(crate) fn new() -> Result<Self> {
        let mut pages = KVVec::with_capacity(CHUNK, GFP_KERNEL)?;
        pages.extend_with(CHUNK, ptr::null_mut(), GFP_KERNEL)?;
        let mut addrs = KVVec::with_capacity(CHUNK, GFP_KERNEL)?;
        addrs.extend_with(CHUNK, 0, GFP_KERNEL)?;
        // INVARIANT: There are no entries.
        Ok(Self {
            pages,
            addrs,
            count: 0,
        })
    }

    fn clear(&mut self) {
        let count = core::mem::take(&mut self.count);
        for page in self.pages.iter().take(count) {
            // SAFETY: By the type invariant there is a reference to each of these pages.
            unsafe { bindings::checkpoint_put_page(*page) };
        }
    }

    fn is_full(&self) -> bool {
        self.count == CHUNK
    }

    /// Appends the pages of `range` in `mm` that have contents, as far as there is room. `pid` is
    /// who to name when one cannot be saved.
    ///
    /// Returns where to go on.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a guard region, with a line in `report`; what a page fault says.
    fn collect(
        &mut self,
        mm: &MmRef,
        pid: Pid,
        range: Range,
        report: &mut Report,
    ) -> Result<usize> {
        let end = range.end;
        let mut at = range.start;
        while at < end && !self.is_full() {
            let mut found = bindings::checkpoint_pages {
                pages: self.pages.as_mut_ptr(),
                addrs: self.addrs.as_mut_ptr(),
                max: CHUNK_PAGES,
                count: u32::try_from(self.count)?,
                next: at,
                ..Default::default()
            };
            let done = {
                let _guard = mm.read_lock()?;
                // SAFETY: `mm` is locked; both arrays have `max` entries.
                unsafe { bindings::checkpoint_collect_pages(mm.as_raw(), at, end, &mut found) }
            };
            // INVARIANT: The walk took a reference to each page it added, in ascending order.
            self.count = usize::try_from(found.count)?;
            if done < 0 {
                return Err(Error::from_errno(done));
            }
            if found.guard != 0 {
                report.problem(
                    Place::Vma(pid, found.guard),
                    fmt!("guard region: not supported"),
                );
                return Err(EOPNOTSUPP);
            }
            if found.fault != 0 {
                self.fault_in(mm, found.fault)?;
                at = found.fault + PAGE_SIZE;
            } else if done == 0 {
                at = end;
            } else {
                at = found.next;
            }
        }
        Ok(at)
    }

    /// Appends the page at `addr`, which is swapped out or on the move.
    fn fault_in(&mut self, mm: &MmRef, addr: usize) -> Result {
        let slot = self.pages.get_mut(self.count).ok_or(ENOSPC)?;
        let mut locked = 1;
        let guard = mm.read_lock()?;
        // SAFETY: `mm` is locked and `slot` has room for one page. `locked` says whether it still
        // is when the call returns.
        let got = unsafe {
            bindings::get_user_pages_remote(
                mm.as_raw(),
                addr,
                1,
                bindings::FOLL_FORCE | bindings::FOLL_DUMP,
                slot,
                &mut locked,
            )
        };
        if locked == 0 {
            guard.forget();
        }
        match got {
            1 => {
                *self.addrs.get_mut(self.count).ok_or(ENOSPC)? = addr;
                // INVARIANT: The call took a reference to the page; the walk goes upwards.
                self.count += 1;
                Ok(())
            }
            // A hole by now, or the zero page.
            err if err == -isize::try_from(bindings::EFAULT)? => Ok(()),
            err => Err(Error::from_errno(i32::try_from(err)?)),
        }
    }

    fn page(&self, index: usize) -> Option<*mut bindings::page> {
        self.pages.get(..self.count)?.get(index).copied()
    }

    /// The pages as an iterator over them wants them.
    fn bvecs(&self, into: &mut KVVec<bindings::bio_vec>) -> Result {
        into.clear();
        for page in self.pages.iter().take(self.count) {
            into.push(
                bindings::bio_vec {
                    bv_page: *page,
                    bv_len: PAGE_SIZE as u32,
                    bv_offset: 0,
                },
                GFP_KERNEL,
            )?;
        }
        Ok(())
    }

    /// Checksum of the contents of all pages, in order.
    fn checksum(&self) -> u32 {
        let mut sum = Checksum::<KernelCrc>::new();
        for index in 0..self.count {
            if let Some(page) = self.page(index) {
                // SAFETY: There is a reference to the page, and all memory is mapped on x86-64. Its
                // contents may change under a stream that is written without a snapshot of a
                // mapping shared with others; then only the checksum is wrong.
                sum.update(unsafe {
                    core::slice::from_raw_parts(
                        bindings::checkpoint_page_address(page).cast::<u8>(),
                        PAGE_SIZE,
                    )
                });
            }
        }
        sum.finish()
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        self.clear();
    }
}

// SAFETY: References to pages may be dropped by any task.
unsafe impl Send for Found {}

/// Writes the contents of memory as chunks.
pub(crate) struct Drain<'a> {
    stream: &'a Stream,
    /// Its lease is renewed by each chunk, if it lasts that long.
    hold: &'a Hold,
    encoder: &'a mut Encoder<KernelCrc>,
    found: Found,
    extents: KVVec<Extent>,
    bvecs: KVVec<bindings::bio_vec>,
    /// Pages written so far.
    pub(crate) pages: u64,
}

impl<'a> Drain<'a> {
    pub(crate) fn new(
        stream: &'a Stream,
        encoder: &'a mut Encoder<KernelCrc>,
        hold: &'a Hold,
    ) -> Result<Self> {
        Ok(Self {
            stream,
            hold,
            encoder,
            found: Found::new()?,
            extents: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
            bvecs: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
            pages: 0,
        })
    }

    /// Writes what private memory of `mm` holds in `ranges`, as object `id`.
    pub(crate) fn mm(
        &mut self,
        id: u32,
        mm: &MmRef,
        pid: Pid,
        ranges: &[Range],
        report: &mut Report,
    ) -> Result {
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let rest = Range {
                    start: at,
                    end: range.end,
                };
                at = self.found.collect(mm, pid, rest, report)?;
                if self.found.is_full() {
                    self.flush(id)?;
                }
            }
        }
        self.flush(id)
    }

    /// Writes what the shared memory `file` of `size` bytes holds, as object `id`.
    pub(crate) fn shmem(&mut self, id: u32, file: &File, size: u64) -> Result {
        let file = file.as_ptr();
        let mut at: i64 = 0;
        let size = i64::try_from(size)?;
        while at < size {
            // SAFETY: `file` is valid; shared memory knows its holes.
            let data = unsafe { bindings::vfs_llseek(file, at, bindings::SEEK_DATA as i32) };
            if data == -i64::from(bindings::ENXIO) {
                break;
            }
            if data < 0 {
                return Err(Error::from_errno(i32::try_from(data)?));
            }
            // SAFETY: As above.
            let hole = unsafe { bindings::vfs_llseek(file, data, bindings::SEEK_HOLE as i32) };
            if hole < 0 {
                return Err(Error::from_errno(i32::try_from(hole)?));
            }
            at = data;
            while at < hole {
                self.shmem_page(id, file, at)?;
                at += PAGE_SIZE as i64;
            }
        }
        self.flush(id)
    }

    fn shmem_page(&mut self, id: u32, file: *mut bindings::file, at: i64) -> Result {
        let slot = self.found.count;
        // SAFETY: `file` is valid; a page of its mapping comes back with a reference, or an error.
        let page =
            unsafe { bindings::checkpoint_shmem_page(file, usize::try_from(at)? / PAGE_SIZE) };
        let page = kernel::error::from_err_ptr(page)?;
        *self.found.pages.get_mut(slot).ok_or(ENOSPC)? = page;
        *self.found.addrs.get_mut(slot).ok_or(ENOSPC)? = usize::try_from(at)?;
        // INVARIANT: The page came with a reference; offsets ascend.
        self.found.count = slot + 1;
        if self.found.is_full() {
            self.flush(id)?;
        }
        Ok(())
    }

    /// Writes what has been found as one chunk.
    fn flush(&mut self, id: u32) -> Result {
        let count = self.found.count;
        if count == 0 {
            return Ok(());
        }
        self.extents.clear();
        for addr in self.found.addrs.iter().take(count) {
            let addr = u64::try_from(*addr)?;
            match self.extents.as_mut_slice().last_mut() {
                Some(last) if last.addr.get() + last.len() == addr => {
                    last.pages = (last.pages.get() + 1).into();
                }
                _ => self.extents.push(Extent::new(addr, 1), GFP_KERNEL)?,
            }
        }
        self.found.bvecs(&mut self.bvecs)?;
        let crc = self.found.checksum();
        self.encoder
            .chunk_header(&mut self.stream, id, &self.extents, crc)?;
        // SAFETY: `found` holds a reference to each page.
        unsafe { self.stream.write_pages(&self.bvecs) }?;
        self.pages += u64::try_from(count)?;
        self.found.clear();
        self.hold.renew();
        interrupted()
    }
}

/// Reads chunks into memory.
pub(crate) struct Fill<'a> {
    stream: &'a Stream,
    found: Found,
    bvecs: KVVec<bindings::bio_vec>,
}

impl<'a> Fill<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Result<Self> {
        Ok(Self {
            stream,
            found: Found::new()?,
            bvecs: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
        })
    }

    /// Makes `pages` pages at `addr` of `mm` present and writable for the kernel, to be filled.
    pub(crate) fn mm(&mut self, mm: &MmRef, addr: u64, pages: u32) -> Result {
        let mut addr = usize::try_from(addr)?;
        let mut left = usize::try_from(pages)?;
        while left > 0 {
            let slots = self
                .found
                .pages
                .get_mut(self.found.count..)
                .unwrap_or_default();
            if slots.len() < left {
                return Err(EINVAL);
            }
            let mut locked = 1;
            let guard = mm.read_lock()?;
            // SAFETY: `mm` is locked and `slots` has room for `left` pages. Writing by force breaks
            // copy-on-write in private mappings that user space may only read.
            let got = unsafe {
                bindings::get_user_pages_remote(
                    mm.as_raw(),
                    addr,
                    left,
                    bindings::FOLL_FORCE | bindings::FOLL_WRITE,
                    slots.as_mut_ptr(),
                    &mut locked,
                )
            };
            if locked == 0 {
                guard.forget();
            }
            if got <= 0 {
                return Err(if got == 0 {
                    EFAULT
                } else {
                    Error::from_errno(i32::try_from(got)?)
                });
            }
            let got = usize::try_from(got)?;
            // INVARIANT: The call took a reference to each of these pages.
            self.found.count += got;
            addr += got * PAGE_SIZE;
            left -= got;
        }
        Ok(())
    }

    /// Makes `pages` pages at byte `offset` of the shared memory `file` present, to be filled.
    pub(crate) fn shmem(&mut self, file: &ARef<File>, offset: u64, pages: u32) -> Result {
        let first = usize::try_from(offset)? / PAGE_SIZE;
        for index in 0..usize::try_from(pages)? {
            let slot = self.found.count;
            // SAFETY: `file` is valid; a page of its mapping comes back with a reference, or an
            // error.
            let page = unsafe { bindings::checkpoint_shmem_page(file.as_ptr(), first + index) };
            *self.found.pages.get_mut(slot).ok_or(EINVAL)? = kernel::error::from_err_ptr(page)?;
            // INVARIANT: The page came with a reference.
            self.found.count = slot + 1;
        }
        Ok(())
    }

    /// Reads the contents of what has been made present, and returns their checksum.
    pub(crate) fn read(&mut self) -> Result<u32> {
        self.found.bvecs(&mut self.bvecs)?;
        // SAFETY: `found` holds a reference to each page, and nobody else runs in that memory yet.
        unsafe { self.stream.read_pages(&self.bvecs) }?;
        for index in 0..self.found.count {
            if let Some(page) = self.found.page(index) {
                // SAFETY: There is a reference to the page.
                unsafe { bindings::checkpoint_dirty_page(page) };
            }
        }
        let crc = self.found.checksum();
        self.found.clear();
        Ok(crc)
    }
}
