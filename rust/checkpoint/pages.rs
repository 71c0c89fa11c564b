// SPDX-License-Identifier: GPL-2.0

//! Contents of memory: from page tables into the stream, and from the stream into page tables.
//!
//! Contents go out and come in as chunks of up to [`CHUNK_PAGES`] pages, straight from and into the
//! pages themselves. A chunk gathers runs of pages over holes, so scattered pages cost no more
//! records than dense ones. Pages that a restart reads are mapped when their checksum is right,
//! many at a time; none of them is zeroed before, and none takes a page fault.
//!
//! # Pages that processes have in common
//!
//! fork(2) shares pages until one side writes. They are saved once and shared again:
//!
//! - A checkpoint writes the pages of one address space after the other. A page that has more
//!   mappings than its own address space accounts for is looked up by its frame number among those
//!   that were written before. If it is there, the image gets the place at which it was
//!   ([`Share`]) instead of its contents. A frame number alone proves nothing, as a page may be
//!   swapped out or moved meanwhile and its frame get other contents. So the earlier address space
//!   is asked whether it has that very page at that place now: it stands still or is a snapshot, so
//!   what it has there is what was written. Where little is copied, a reference keeps the page until
//!   all is, and with it the meaning of its frame number.
//! - Mappings that were once one have the number of their family in the plan. A restart relates
//!   them before any has a page, as fork(2) would have done: reverse mapping finds all places of a
//!   page through the anon_vma of the first of the family. What a [`Share`] names is
//!   then mapped at its second place, read-only at both. Where the mappings are not related that
//!   way, as in an image that somebody made up, the page is copied.
//!
//! Locks: `mmap_lock` → page table locks, inside the C functions and the page faults only. The
//! stream is never touched under a lock.

use core::ptr::{
    self,
    NonNull, //
};

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    page::PAGE_SIZE,
    prelude::*,
    sync::aref::ARef,
    task::Pid,
    types::Opaque, //
};

use crate::{
    donate::Donation,
    files,
    hold::Hold,
    image::{
        record::Share,
        Checksum,
        Encoder,
        Extent,
        Sink,
        CHUNK_PAGES, //
    },
    mm::MmRef,
    report::{
        Place,
        Report, //
    },
    save::Memory,
    stream::{
        interrupted,
        resize,
        Buffer,
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
/// Each entry of `runs` is a run of pages of one folio, and this object holds a reference to that,
/// unless its page is null. There is room for `CHUNK` entries.
pub(crate) struct Runs {
    runs: KVVec<bindings::checkpoint_run>,
    pages: usize,
}

impl Runs {
    /// When a piece of memory is long enough, in bytes: nobody else runs while it is summed up.
    const PIECE: usize = 32 * PAGE_SIZE;

    fn new() -> Result<Self> {
        // INVARIANT: There are no entries.
        Ok(Self {
            runs: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
            pages: 0,
        })
    }

    fn clear(&mut self) {
        for run in self.runs.iter().filter(|run| !run.page.is_null()) {
            // SAFETY: By the type invariant there is a reference.
            unsafe { bindings::checkpoint_put_page(run.page) };
        }
        // INVARIANT: There are no entries any more.
        self.runs.clear();
        self.pages = 0;
    }

    fn is_full(&self) -> bool {
        self.pages == CHUNK
    }

    /// Lets `call` add to the runs, or take their pages.
    ///
    /// # Safety
    ///
    /// `call` keeps the type invariant for the entries that it counts.
    unsafe fn with<R>(
        &mut self,
        call: impl FnOnce(&mut bindings::checkpoint_runs) -> R,
    ) -> Result<R> {
        let mut raw = bindings::checkpoint_runs {
            runs: self.runs.as_mut_ptr(),
            max: CHUNK_PAGES,
            count: u32::try_from(self.runs.len())?,
            pages: u32::try_from(self.pages)?,
            ..Default::default()
        };
        let result = call(&mut raw);
        self.pages = usize::try_from(raw.pages)?;
        let more = usize::try_from(raw.count)?.saturating_sub(self.runs.len());
        // SAFETY: By the safety requirement these entries are initialised, within the capacity.
        unsafe { self.runs.inc_len(more) };
        Ok(result)
    }

    /// Appends a run, whose reference is given away.
    fn push(&mut self, run: bindings::checkpoint_run) -> Result {
        if self.runs.len() >= CHUNK {
            return Err(ENOSPC);
        }
        // INVARIANT: The reference is ours now.
        self.pages += usize::try_from(run.nr)?;
        Ok(self.runs.push(run, GFP_KERNEL)?)
    }

    /// Appends the private pages of `mm` from `start` on that have contents, as far as there is
    /// room. `pid` is who to name when one cannot be saved.
    ///
    /// Returns where to go on, or `None` at the end.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` for a poisoned page, with a line in `report`; what a page fault says.
    fn collect(
        &mut self,
        mm: &MmRef,
        own_mappings: i32,
        pid: Pid,
        start: usize,
        report: &mut Report,
    ) -> Result<Option<usize>> {
        let mut at = start;
        let end = crate::plan::task_size() as usize;
        while !self.is_full() {
            let guard = mm.read_lock()?;
            // SAFETY: `mm` is locked; the walk takes a reference for each run that it adds.
            let (done, found) = unsafe {
                self.with(|raw| {
                    raw.own_mappings = own_mappings;
                    let done = bindings::checkpoint_collect_pages(mm.as_raw(), at, end, raw);
                    (done, *raw)
                })?
            };
            drop(guard);
            if done < 0 {
                return Err(Error::from_errno(done));
            }
            if found.poison != 0 {
                report.problem(
                    Place::Vma(pid, found.poison),
                    fmt!("poisoned page: not supported"),
                );
                return Err(EOPNOTSUPP);
            }
            if found.fault != 0 {
                self.fault_in(mm, found.fault)?;
                at = found.fault + PAGE_SIZE;
            } else if done == 0 {
                return Ok(None);
            } else {
                at = found.next;
            }
        }
        Ok(Some(at))
    }

    /// Appends the page at `addr`, which is swapped out or on the move.
    fn fault_in(&mut self, mm: &MmRef, addr: usize) -> Result {
        let mut page = ptr::null_mut();
        let mut locked = 1;
        let guard = mm.read_lock()?;
        // SAFETY: `mm` is locked and there is room for one page. `locked` says whether it still is
        // when the call returns.
        let got = unsafe {
            bindings::get_user_pages_remote(
                mm.as_raw(),
                addr,
                1,
                bindings::FOLL_FORCE | bindings::FOLL_DUMP,
                &mut page,
                &mut locked,
            )
        };
        if locked == 0 {
            guard.forget();
        }
        match got {
            1 => self.push(bindings::checkpoint_run {
                page,
                addr,
                nr: 1,
                // It may be: it is looked up.
                shared: true,
            }),
            // A hole by now, or the zero page.
            err if err == -isize::try_from(bindings::EFAULT)? => Ok(()),
            err => Err(Error::from_errno(i32::try_from(err)?)),
        }
    }

    /// The runs but for their first `skip` pages, as an iterator over them wants them. Returns
    /// whether anything is left.
    fn bvecs(&self, mut skip: u32, into: &mut KVVec<bindings::bio_vec>) -> Result<bool> {
        into.clear();
        if usize::try_from(skip)? == self.pages {
            return Ok(false);
        }
        for run in self.runs.iter() {
            let without = skip.min(run.nr);
            skip -= without;
            if without < run.nr {
                into.push(bvec(run, without), GFP_KERNEL)?;
            }
        }
        Ok(true)
    }

    /// Calls `act` with the contents of all pages, in order, of those at once that follow each other
    /// in the machine's memory.
    fn each(&self, mut act: impl FnMut(&[u8]) -> Result) -> Result {
        let mut piece = (ptr::null::<u8>(), 0);
        let mut act = |(start, len): (*const u8, usize)| {
            if len == 0 {
                return Ok(());
            }
            // SAFETY: There is a reference to the pages, and all memory is mapped on x86-64. Their
            // contents may change under a stream that is written without a snapshot of a mapping
            // shared with others; then only the checksum is wrong.
            act(unsafe { core::slice::from_raw_parts(start, len) })
        };
        for run in self.runs.iter() {
            // SAFETY: There is a reference to the page.
            let start = unsafe { bindings::checkpoint_page_address(run.page) };
            let (start, len) = (start.cast::<u8>().cast_const(), run.nr as usize * PAGE_SIZE);
            if piece.0.wrapping_add(piece.1) == start && piece.1 < Self::PIECE {
                piece.1 += len;
            } else {
                act(core::mem::replace(&mut piece, (start, len)))?;
            }
        }
        act(piece)
    }

    /// Checksum of the contents of all pages, in order.
    fn checksum(&self) -> Result<u32> {
        let mut sum = Checksum::<KernelCrc>::new();
        self.each(|bytes| {
            sum.update(bytes);
            Ok(())
        })?;
        Ok(sum.finish())
    }
}

/// `run` but for its first `skip` pages, of which it has more.
fn bvec(run: &bindings::checkpoint_run, skip: u32) -> bindings::bio_vec {
    bindings::bio_vec {
        bv_page: run.page.wrapping_add(skip as usize),
        bv_len: (run.nr - skip) * PAGE_SIZE as u32,
        bv_offset: 0,
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Where pages were seen first, by their frames.
struct Seen(Pin<KBox<Opaque<bindings::xarray>>>);

impl Seen {
    /// Address spaces that can be told apart, and pages of one.
    const MM_BITS: u32 = 17;
    const PAGE_BITS: u32 = 45;

    fn new() -> Result<Self> {
        let seen = KBox::pin_init(
            Opaque::ffi_init(|slot| {
                // SAFETY: `slot` is valid for writes.
                unsafe { bindings::checkpoint_seen_init(slot) }
            }),
            GFP_KERNEL,
        )?;
        Ok(Self(seen))
    }

    /// The number of page `addr` of memory number `index`, unless there are too many of these.
    fn number(index: usize, addr: usize) -> Option<u64> {
        let index = u64::try_from(index).ok()? + 1;
        (index < 1 << Self::MM_BITS).then_some(index << Self::PAGE_BITS | (addr / PAGE_SIZE) as u64)
    }

    /// What [`Seen::number`] made a number of.
    fn place(number: u64) -> (usize, usize) {
        let index = (number >> Self::PAGE_BITS).saturating_sub(1);
        let page = number & ((1 << Self::PAGE_BITS) - 1);
        (index as usize, page as usize * PAGE_SIZE)
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        // SAFETY: The array is initialised, and nobody uses it any more.
        unsafe { bindings::checkpoint_seen_destroy(self.0.get()) };
    }
}

/// Where contents go.
pub(crate) enum Output<'a> {
    /// Straight into the image.
    Stream(&'a Stream),
    /// Into a copy, made while all stand still.
    Copy(&'a mut Buffer),
}

impl Output<'_> {
    fn write(&mut self, header: &Buffer) -> Result {
        match self {
            Self::Stream(stream) => stream.write_buffer(header),
            Self::Copy(buffer) => header.pieces().try_for_each(|piece| buffer.put(&[piece])),
        }
    }

    /// Writes the pages of `runs`, by way of `bvecs`; those that are `lasting` may go by reference.
    fn write_pages(
        &mut self,
        runs: &Runs,
        bvecs: &mut KVVec<bindings::bio_vec>,
        lasting: bool,
    ) -> Result {
        match self {
            Self::Stream(stream) => {
                let pages = u32::try_from(runs.pages)?;
                // SAFETY: `runs` holds a reference to each page.
                let done = unsafe { stream.write_cached(&runs.runs, pages) };
                // SAFETY: As above; those that are lasting do not change.
                unsafe {
                    if !runs.bvecs(done, bvecs)? || lasting && stream.splice(bvecs)? {
                        return Ok(());
                    }
                    stream.write_pages(bvecs)
                }
            }
            Self::Copy(buffer) => runs.each(|bytes| buffer.put(&[bytes])),
        }
    }
}

/// A reference to a page, or to the folio that it is part of.
#[repr(transparent)]
pub(crate) struct KeptPage(NonNull<bindings::page>);

impl KeptPage {
    /// # Safety
    ///
    /// The caller has a reference.
    pub(crate) unsafe fn new(page: NonNull<bindings::page>) -> Self {
        // SAFETY: By the safety requirement.
        unsafe { bindings::checkpoint_get_page(page.as_ptr()) };
        Self(page)
    }
}

impl Drop for KeptPage {
    fn drop(&mut self) {
        // SAFETY: The reference is ours.
        unsafe { bindings::checkpoint_put_page(self.0.as_ptr()) };
    }
}

/// Writes the contents of memory.
pub(crate) struct Drain<'a> {
    output: Output<'a>,
    hold: &'a Hold,
    encoder: &'a mut Encoder<KernelCrc>,
    memory: &'a [Memory],
    own_mappings: i32,
    /// Of the tree itself, not of a snapshot.
    live: bool,
    /// The pages at hand do not change any more.
    lasting: bool,
    runs: Runs,
    spare: Option<Runs>,
    extents: KVVec<Extent>,
    bvecs: KVVec<bindings::bio_vec>,
    header: Buffer,
    /// Only if several address spaces may have pages in common.
    seen: Option<Seen>,
    /// Pages that were seen, for a copy.
    kept: KVVec<KeptPage>,
    /// What becomes of pages that are given to the image.
    donation: Option<&'a mut Donation>,
    /// The number of the memory that gives pages to it.
    giver: Option<usize>,
    shares: KVVec<Share>,
    pub(crate) pages: u64,
}

impl<'a> Drain<'a> {
    /// Of `memory`, that of a snapshot or, `live`, of the tree. What the output is given goes into
    /// `donation` instead.
    pub(crate) fn new(
        output: Output<'a>,
        donation: Option<&'a mut Donation>,
        encoder: &'a mut Encoder<KernelCrc>,
        hold: &'a Hold,
        memory: &'a [Memory],
        live: bool,
    ) -> Result<Self> {
        let spaces = memory
            .iter()
            .filter(|memory| matches!(memory, Memory::Mm { .. }))
            .count();
        let seen = (spaces > 1).then(Seen::new).transpose()?;
        Ok(Self {
            output,
            hold,
            encoder,
            memory,
            // A snapshot maps each page once more.
            own_mappings: match (seen.is_some(), live) {
                (false, _) => i32::MAX,
                (true, true) => 1,
                (true, false) => 2,
            },
            live,
            lasting: false,
            runs: Runs::new()?,
            spare: None,
            extents: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
            bvecs: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
            header: Buffer::new(),
            seen,
            kept: KVVec::new(),
            donation,
            giver: None,
            shares: KVVec::new(),
            pages: 0,
        })
    }

    /// Writes what memory number `index` holds.
    pub(crate) fn memory(&mut self, index: usize, report: &mut Report) -> Result {
        let memory = self.memory.get(index).ok_or(EINVAL)?;
        // A file is not the tree's alone.
        self.lasting = !self.live && !matches!(memory, Memory::File { .. });
        match memory {
            Memory::Mm { id, pid, mm, .. } => self.mm(index, *id, mm, *pid, report),
            Memory::Shmem { id, file, size } | Memory::File { id, file, size } => {
                self.shmem(*id, file, *size)
            }
            Memory::Hugetlb { id, file, size } => self.hugetlb(*id, file, *size),
        }
    }

    fn mm(&mut self, index: usize, id: u32, mm: &MmRef, pid: Pid, report: &mut Report) -> Result {
        let giving = self.donation.as_deref();
        self.giver = giving.is_some_and(|to| to.takes_from(mm)).then_some(index);
        let mut at = Some(0);
        while let Some(start) = at {
            at = self
                .runs
                .collect(mm, self.own_mappings, pid, start, report)?;
            self.share(index, id)?;
            self.flush(id)?;
        }
        self.giver = None;
        self.flush_shares(id)
    }

    /// Takes pages out of what has been found that earlier address spaces have, too.
    fn share(&mut self, index: usize, id: u32) -> Result {
        if self.seen.is_none() || !self.runs.runs.iter().any(|run| run.shared) {
            return Ok(());
        }
        let room = match self.spare.take() {
            Some(room) => room,
            None => Runs::new()?,
        };
        let mut found = core::mem::replace(&mut self.runs, room);
        for run in found.runs.iter() {
            let mut done = 0;
            while done < run.nr {
                let (nr, data) = self.share_some(index, id, run, done)?;
                if data {
                    // SAFETY: `found` holds a reference to the folio.
                    let page = unsafe {
                        bindings::checkpoint_get_page(run.page);
                        run.page.add(done as usize)
                    };
                    self.runs.push(bindings::checkpoint_run {
                        page,
                        addr: run.addr + done as usize * PAGE_SIZE,
                        nr,
                        shared: false,
                    })?;
                }
                done += nr;
            }
        }
        found.clear();
        self.spare = Some(found);
        Ok(())
    }

    /// Looks at `run` from its page number `from` on. Returns for how many pages it knows what to
    /// do, and whether that is to write them.
    fn share_some(
        &mut self,
        index: usize,
        id: u32,
        run: &bindings::checkpoint_run,
        from: u32,
    ) -> Result<(u32, bool)> {
        let left = run.nr - from;
        let addr = run.addr + from as usize * PAGE_SIZE;
        let (true, Some(seen), Some(number)) = (run.shared, &self.seen, Seen::number(index, addr))
        else {
            return Ok((left, true));
        };
        let seen = seen.0.get();
        let mut before = 0;
        // SAFETY: The array is valid, and the caller holds a reference to the pages of the run.
        let (page, nr) = unsafe {
            let page = run.page.add(from as usize);
            let nr = bindings::checkpoint_page_seen(seen, page, left, number, &mut before);
            (page, nr)
        };
        let nr = u32::try_from(nr).map_err(|_| Error::from_errno(nr))?;
        let copies = matches!(self.output, Output::Copy(_));
        if before == 0 {
            if copies {
                let page = NonNull::new(page).ok_or(EINVAL)?;
                // SAFETY: As above.
                self.kept.push(unsafe { KeptPage::new(page) }, GFP_KERNEL)?;
            }
            return Ok((nr, true));
        }
        let (other, other_addr) = Seen::place(before);
        let memory = self.memory;
        if let (Some(Memory::Mm { id: from, mm, .. }), true) = (memory.get(other), other != index) {
            let same = if copies {
                nr
            } else {
                // SAFETY: `mm` is alive, and there is a reference to the pages.
                unsafe { bindings::checkpoint_same_pages(mm.as_raw(), other_addr, page, nr) }
            };
            if same != 0 {
                self.add_share(id, addr, *from, other_addr, same)?;
                return Ok((same, false));
            }
        }
        // The frames have other contents by now.
        // SAFETY: As above.
        to_result(unsafe { bindings::checkpoint_page_replace(seen, page, nr, number) })?;
        Ok((nr, true))
    }

    fn add_share(&mut self, id: u32, addr: usize, from: u32, from_addr: usize, nr: u32) -> Result {
        let (addr, from_addr) = (u64::try_from(addr)?, u64::try_from(from_addr)?);
        if let Some(last) = self.shares.as_mut_slice().last_mut() {
            if last.from.get() == from
                && last.addr.get() + last.len() == addr
                && last.from_addr.get() + last.len() == from_addr
            {
                if let Some(pages) = last.pages.get().checked_add(nr) {
                    last.pages = pages.into();
                    return Ok(());
                }
            }
        }
        if self.shares.len() == CHUNK {
            self.flush_shares(id)?;
        }
        self.shares.push(
            Share {
                addr: addr.into(),
                from_addr: from_addr.into(),
                from: from.into(),
                pages: nr.into(),
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    fn flush_shares(&mut self, id: u32) -> Result {
        if self.shares.is_empty() {
            return Ok(());
        }
        self.header.clear();
        self.encoder.shared(&mut self.header, id, &self.shares)?;
        self.output.write(&self.header)?;
        self.shares.clear();
        self.hold.renew();
        interrupted()
    }

    /// Writes what `file` of `size` bytes holds, shared memory or another file, as object `id`.
    fn shmem(&mut self, id: u32, file: &File, size: u64) -> Result {
        each_page(file, size, |at| {
            self.shmem_page(id, file.as_ptr(), at)?;
            Ok(())
        })?;
        self.flush(id)
    }

    fn shmem_page(&mut self, id: u32, file: *mut bindings::file, at: usize) -> Result {
        // SAFETY: `file` is valid; a page of its mapping comes back with a reference, or an error.
        let page = unsafe { bindings::checkpoint_file_page(file, at / PAGE_SIZE) };
        self.runs.push(bindings::checkpoint_run {
            page: kernel::error::from_err_ptr(page)?,
            addr: at,
            nr: 1,
            shared: false,
        })?;
        if self.runs.is_full() {
            self.flush(id)?;
        }
        Ok(())
    }

    /// Writes what the shared huge pages `file` of `size` bytes hold, as object `id`.
    fn hugetlb(&mut self, id: u32, file: &File, size: u64) -> Result {
        let pages = usize::try_from(size)? / PAGE_SIZE;
        let mut at = 0;
        while at < pages {
            // SAFETY: `file` is valid; a page of its mapping comes back with a reference, or
            // nothing.
            let page = unsafe { bindings::checkpoint_hugetlb_page(file.as_ptr(), at, false) };
            // SAFETY: As above.
            let left = unsafe { bindings::checkpoint_hugetlb_left(file.as_ptr(), at) };
            let nr = left.min(CHUNK - self.runs.pages);
            if page.is_null() {
                at += left;
                interrupted()?;
                continue;
            }
            self.runs.push(bindings::checkpoint_run {
                page,
                addr: at * PAGE_SIZE,
                nr: u32::try_from(nr)?,
                shared: false,
            })?;
            at += nr;
            if self.runs.is_full() {
                self.flush(id)?;
            }
        }
        self.flush(id)
    }

    /// Writes the pages of a chunk that are not given to the image. Returns false if none can be.
    fn give(&mut self) -> Result<bool> {
        let (Output::Stream(stream), Some(donation), Some(memory)) =
            (&self.output, &mut self.donation, self.giver)
        else {
            return Ok(false);
        };
        let Some(mut index) = stream.page_index() else {
            return Ok(false);
        };
        let mut given = 0;
        self.bvecs.clear();
        for run in self.runs.runs.iter() {
            if donation.take(memory, run, index)? {
                // SAFETY: `runs` holds a reference to each page.
                unsafe { write(stream, &mut self.bvecs) }?;
                given += 1;
            } else {
                skip(stream, &mut given)?;
                self.bvecs.push(bvec(run, 0), GFP_KERNEL)?;
            }
            index += usize::try_from(run.nr)?;
        }
        // SAFETY: As above.
        unsafe { write(stream, &mut self.bvecs) }?;
        skip(stream, &mut given)?;
        Ok(true)
    }

    /// Writes what has been found as one chunk.
    fn flush(&mut self, id: u32) -> Result {
        if self.runs.pages == 0 {
            return Ok(());
        }
        self.extents.clear();
        for run in self.runs.runs.iter() {
            let addr = u64::try_from(run.addr)?;
            match self.extents.as_mut_slice().last_mut() {
                Some(last) if last.addr.get() + last.len() == addr => {
                    last.pages = (last.pages.get() + run.nr).into();
                }
                _ => self.extents.push(Extent::new(addr, run.nr), GFP_KERNEL)?,
            }
        }
        let crc = self.runs.checksum()?;
        self.header.clear();
        self.encoder
            .chunk_header(&mut self.header, id, &self.extents, crc)?;
        self.output.write(&self.header)?;
        if !self.give()? {
            self.output
                .write_pages(&self.runs, &mut self.bvecs, self.lasting)?;
        }
        self.pages += u64::try_from(self.runs.pages)?;
        self.runs.clear();
        self.hold.renew();
        interrupted()
    }
}

/// Has a stream go on behind so many pages, if there are any, which are given to it later.
fn skip(stream: &Stream, pages: &mut usize) -> Result {
    match core::mem::take(pages) {
        0 => Ok(()),
        pages => stream.skip(pages * PAGE_SIZE),
    }
}

/// Writes what is in `pages`, if anything is, and forgets it.
///
/// # Safety
///
/// As for [`Stream::write_pages`].
unsafe fn write(stream: &Stream, pages: &mut KVVec<bindings::bio_vec>) -> Result {
    if !pages.is_empty() {
        // SAFETY: By the safety requirement.
        unsafe { stream.write_pages(pages) }?;
        pages.clear();
    }
    Ok(())
}

/// Calls `each` with the offset of every page of `file`, of `size` bytes, that is no hole. The
/// position of `file` is nobody else's.
pub(crate) fn each_page(file: &File, size: u64, mut each: impl FnMut(usize) -> Result) -> Result {
    let file = file.as_ptr();
    let mut at: i64 = 0;
    let size = i64::try_from(size)?;
    while at < size {
        // SAFETY: `file` is valid. Where a file system knows nothing of holes, all is data.
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
        // Blocks of a file system may be smaller than pages.
        at = data - data % PAGE_SIZE as i64;
        while at < hole {
            each(usize::try_from(at)?)?;
            at += PAGE_SIZE as i64;
        }
    }
    Ok(())
}

/// An address space that nobody runs in, while its contents come in: khugepaged, which would take
/// what is still empty for zeroes, leaves it alone.
pub(crate) struct Filling<'a> {
    mm: &'a MmRef,
    /// It may have huge pages.
    huge: bool,
}

impl<'a> Filling<'a> {
    /// # Errors
    ///
    /// `EINTR`.
    pub(crate) fn begin(mm: &'a MmRef) -> Result<Self> {
        // SAFETY: `mm` is alive.
        let huge = unsafe { bindings::checkpoint_begin_fill(mm.as_raw()) };
        to_result(huge.min(0))?;
        Ok(Self {
            mm,
            huge: huge != 0,
        })
    }

    pub(crate) fn mm(&self) -> &'a MmRef {
        self.mm
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if self.huge {
            // SAFETY: `mm` is alive.
            unsafe { bindings::checkpoint_end_fill(self.mm.as_raw()) };
        }
    }
}

/// Reads chunks into memory.
pub(crate) struct Fill<'a> {
    stream: &'a Stream,
    runs: Runs,
    bvecs: KVVec<bindings::bio_vec>,
}

impl<'a> Fill<'a> {
    pub(crate) fn new(stream: &'a Stream) -> Result<Self> {
        Ok(Self {
            stream,
            runs: Runs::new()?,
            bvecs: KVVec::with_capacity(CHUNK, GFP_KERNEL)?,
        })
    }

    /// Makes `pages` pages for `addr` of `space`, to be filled and then mapped.
    pub(crate) fn mm(&mut self, space: &Filling<'_>, addr: u64, pages: u32) -> Result {
        let addr = usize::try_from(addr)?;
        if self.runs.pages + usize::try_from(pages)? > CHUNK {
            return Err(EINVAL);
        }
        let mm = space.mm.as_raw();
        // SAFETY: `mm` is alive and there is room for a run a page; each comes with a reference.
        to_result(unsafe {
            self.runs
                .with(|raw| bindings::checkpoint_new_pages(mm, space.huge, addr, pages, raw))?
        })
    }

    /// Makes `pages` pages at byte `offset` of the shared memory `file` present, to be filled.
    pub(crate) fn shmem(&mut self, file: &ARef<File>, offset: u64, pages: u32) -> Result {
        let offset = usize::try_from(offset)?;
        for index in 0..usize::try_from(pages)? {
            let addr = offset + index * PAGE_SIZE;
            // SAFETY: `file` is valid; a page of its mapping comes back with a reference, or an
            // error.
            let page = unsafe { bindings::checkpoint_file_page(file.as_ptr(), addr / PAGE_SIZE) };
            self.runs.push(bindings::checkpoint_run {
                page: kernel::error::from_err_ptr(page)?,
                addr,
                nr: 1,
                shared: false,
            })?;
        }
        Ok(())
    }

    /// Reads a chunk into `file`, which is `size` bytes long, as write(2) does, and returns the
    /// checksum of what was read.
    ///
    /// # Errors
    ///
    /// What the stream says, or what write(2) says.
    pub(crate) fn write(&mut self, file: &File, size: u64, extents: &[Extent]) -> Result<u32> {
        let (bytes, crc) = self.bytes(extents)?;
        let mut rest = bytes.as_slice();
        for extent in extents {
            let (part, after) = rest
                .split_at_checked(usize::try_from(extent.len())?)
                .ok_or(EINVAL)?;
            rest = after;
            // What the last page has past the end of the file belongs to nobody.
            let within = size.saturating_sub(extent.addr.get());
            let within = usize::try_from(within)?.min(part.len());
            files::write_at(file, part.get(..within).unwrap_or(part), extent.addr.get())?;
        }
        Ok(crc)
    }

    /// Reads a chunk that nobody needs, and returns its checksum.
    ///
    /// # Errors
    ///
    /// What the stream says.
    pub(crate) fn skip(&mut self, extents: &[Extent]) -> Result<u32> {
        self.bytes(extents).map(|(_, crc)| crc)
    }

    /// Reads a chunk into a buffer, with its checksum.
    fn bytes(&self, extents: &[Extent]) -> Result<(KVVec<u8>, u32)> {
        let len = extents.iter().map(Extent::len).sum::<u64>();
        let mut bytes = KVVec::new();
        resize(&mut bytes, usize::try_from(len)?, GFP_KERNEL)?;
        let mut done = 0;
        while let Some(part) = bytes.get_mut(done..).filter(|part| !part.is_empty()) {
            match self.stream.read_some(part)? {
                0 => return Err(ENODATA),
                got => done += got,
            }
        }
        let mut sum = Checksum::<KernelCrc>::new();
        sum.update(&bytes);
        Ok((bytes, sum.finish()))
    }

    /// The same as [`Fill::shmem`] for the shared huge pages `file`.
    pub(crate) fn hugetlb(&mut self, file: &ARef<File>, offset: u64, pages: u32) -> Result {
        let mut at = usize::try_from(offset)? / PAGE_SIZE;
        let end = at + usize::try_from(pages)?;
        while at < end {
            // SAFETY: `file` is valid; a page of its mapping comes back with a reference, or an
            // error.
            let (page, left) = unsafe {
                (
                    bindings::checkpoint_hugetlb_page(file.as_ptr(), at, true),
                    bindings::checkpoint_hugetlb_left(file.as_ptr(), at),
                )
            };
            let nr = left.min(end - at);
            self.runs.push(bindings::checkpoint_run {
                page: kernel::error::from_err_ptr(page)?,
                addr: at * PAGE_SIZE,
                nr: u32::try_from(nr)?,
                shared: false,
            })?;
            at += nr;
        }
        Ok(())
    }

    /// Reads the contents of what has been made, and returns their checksum.
    pub(crate) fn read(&mut self) -> Result<u32> {
        let pages = u32::try_from(self.runs.pages)?;
        // SAFETY: `runs` holds a reference to each page, and nobody else runs in that memory yet.
        let done = unsafe { self.stream.read_cached(&self.runs.runs, pages) };
        if self.runs.bvecs(done, &mut self.bvecs)? {
            // SAFETY: As above.
            unsafe { self.stream.read_pages(&self.bvecs) }?;
        }
        self.runs.checksum()
    }

    /// Maps what has been read into `space`, or, without one, hands it to the shared memory that it
    /// belongs to.
    ///
    /// # Errors
    ///
    /// `EEXIST` where there is a page already.
    pub(crate) fn finish(&mut self, space: Option<&Filling<'_>>) -> Result {
        match space {
            Some(space) => {
                let mm = space.mm.as_raw();
                // SAFETY: `mm` is alive; what is mapped loses its page in `runs`.
                let mapped = unsafe {
                    self.runs
                        .with(|raw| bindings::checkpoint_map_pages(mm, raw))?
                };
                to_result(mapped)?;
            }
            None => {
                for run in self.runs.runs.iter() {
                    // SAFETY: There is a reference to the page.
                    unsafe { bindings::checkpoint_dirty_page(run.page) };
                }
            }
        }
        self.runs.clear();
        Ok(())
    }
}

/// Maps pages of `from` into `to`, copy-on-write.
///
/// # Errors
///
/// `EFAULT` where there are none, `EEXIST` where there are some already.
pub(crate) fn share(from: &MmRef, to: &MmRef, share: &Share) -> Result {
    // SAFETY: Both are alive, and nobody runs in them.
    to_result(unsafe {
        bindings::checkpoint_share_pages(
            from.as_raw(),
            usize::try_from(share.from_addr.get())?,
            to.as_raw(),
            usize::try_from(share.addr.get())?,
            share.pages.get(),
        )
    })
}
