// SPDX-License-Identifier: GPL-2.0

//! Donation: a tree that is killed when its image is complete gives its pages to the image, where
//! that is a file in tmpfs.
//!
//! While the image is written, such pages are only summed up and left out: the stream goes on behind
//! them. Each is kept by a reference. When all else is written and the tree still stands, they move
//! into the file one after the other, and the tree is killed. From the first of them on there is no
//! way back, so nothing of it can fail: what turns out to be used by somebody else is copied.
//!
//! What is not given away is written as ever: pages that others have too, that are locked in memory,
//! larger or shared folios, and all of an address space one of whose threads has a robust futex, as
//! the kernel reads the list of these when the thread dies.
//!
//! Locks: inode lock of the image → `mmap_lock` → page table locks, in C functions only.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    hold::Held,
    mm::MmRef,
    pages::KeptPage,
    report::{
        Place,
        Report, //
    },
    save::Memory,
    sort,
    stream::Stream, //
};

/// Pages that follow each other in memory and in the image.
struct Run {
    /// Number of the memory.
    memory: usize,
    addr: usize,
    /// Number of its first page among all pages.
    first: usize,
    nr: u32,
    /// Where it begins in the image, in pages.
    index: usize,
}

/// The pages that a tree gives away.
pub(crate) struct Donation {
    /// Address spaces that give none, in order; they are compared only.
    spared: KVVec<*const c_void>,
    runs: KVVec<Run>,
    pages: KVVec<KeptPage>,
}

impl Donation {
    /// What `tasks`, which stand still, give to `stream`, if that takes pages.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(tasks: &[Held], stream: &Stream) -> Result<Option<Self>> {
        if !stream.takes_pages() {
            return Ok(None);
        }
        let mut spared = KVVec::new();
        for held in tasks {
            // SAFETY: The task is valid.
            let mm = unsafe { bindings::checkpoint_robust_mm(held.as_raw()) };
            if !mm.is_null() {
                spared.push(mm, GFP_KERNEL)?;
            }
        }
        sort::by_key(&mut spared, |mm| *mm);
        Ok(Some(Self {
            spared,
            runs: KVVec::new(),
            pages: KVVec::new(),
        }))
    }

    /// Whether `mm` gives pages away.
    pub(crate) fn takes_from(&self, mm: &MmRef) -> bool {
        let mm = mm.as_raw().cast_const().cast::<c_void>();
        self.spared.binary_search(&mm).is_err()
    }

    /// Takes note of `run`, of memory number `memory`, if it can be given away; it will be in the
    /// image from page `index` on. Returns whether it is so.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn take(
        &mut self,
        memory: usize,
        run: &bindings::checkpoint_run,
        index: usize,
    ) -> Result<bool> {
        let page = NonNull::new(run.page).ok_or(EINVAL)?;
        // SAFETY: The caller has a reference to the page.
        if run.nr != 1 || !unsafe { bindings::checkpoint_may_donate(page.as_ptr()) } {
            return Ok(false);
        }
        let first = self.pages.len();
        // SAFETY: As above.
        self.pages
            .push(unsafe { KeptPage::new(page) }, GFP_KERNEL_ACCOUNT)?;
        if let Some(last) = self.runs.as_mut_slice().last_mut() {
            let nr = usize::try_from(last.nr)?;
            if last.memory == memory
                && last.addr + nr * PAGE_SIZE == run.addr
                && last.index + nr == index
            {
                last.nr += 1;
                return Ok(true);
            }
        }
        let run = Run {
            memory,
            addr: run.addr,
            first,
            nr: 1,
            index,
        };
        self.runs.push(run, GFP_KERNEL_ACCOUNT)?;
        Ok(true)
    }

    /// Moves the pages into the image, which is complete but for them.
    ///
    /// Returns whether all arrived: when one did not, the image is lost, and so is what the tree
    /// had in memory. That takes somebody who makes the file have pages there at the same time, and
    /// a disk with swapped-out pages that fails.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, `EDQUOT`; `EPERM`, `EIO` when the file has been sealed or cut back. All is as it
    /// was then.
    pub(crate) fn complete(
        self,
        memory: &[Memory],
        stream: &Stream,
        report: &mut Report,
    ) -> Result<bool> {
        if self.pages.is_empty() {
            return Ok(true);
        }
        let mm = |run: &Run| match memory.get(run.memory) {
            Some(Memory::Mm { mm, pid, .. }) => Ok((mm.as_raw(), *pid)),
            _ => Err(EINVAL),
        };
        self.runs.iter().try_for_each(|run| mm(run).map(drop))?;
        let file = stream.file().as_ptr();
        let count = self.pages.len();
        // SAFETY: The file is valid, and takes pages.
        let begun = to_result(unsafe { bindings::checkpoint_donate_begin(file, count) });
        begun.inspect_err(|err| {
            report.problem(Place::Image, fmt!("no space for {count} pages: {err:?}"));
        })?;
        let (pages, _, room) = self.pages.into_raw_parts();
        let mut whole = true;
        for run in self.runs.iter() {
            // There is one, by the look at all before.
            let Ok((mm, pid)) = mm(run) else { continue };
            let donation = bindings::checkpoint_donation {
                mm,
                addr: run.addr,
                // SAFETY: There are so many pages. A `KeptPage` is a pointer to one.
                pages: unsafe { pages.add(run.first) }.cast(),
                nr: run.nr,
                index: run.index,
            };
            // SAFETY: File and address space are valid, and there is a reference to each of the
            // pages from there on, which is not used again.
            let moved = to_result(unsafe { bindings::checkpoint_donate(file, &donation) });
            if let Err(err) = moved {
                report.problem(Place::Vma(pid, run.addr), fmt!("lost its pages: {err:?}"));
                whole = false;
            }
        }
        // SAFETY: It was begun with the same number.
        unsafe { bindings::checkpoint_donate_end(file, count) };
        // SAFETY: These are its parts, without the pages, all of which are given away.
        drop(unsafe { KVVec::from_raw_parts(pages, 0, room) });
        Ok(whole)
    }
}
