// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The records that hold the stream together.

use zerocopy::{
    little_endian::{
        U32,
        U64, //
    },
    FromBytes, //
};

use super::{
    super::{
        frame::{
            CHUNK_PAGES,
            PAGE_SIZE, //
        },
        layout::{
            ArrayRecord,
            Check,
            Field,
            IdRule,
            Layout,
            Record,
            Rule,
            Rules,
            Tail, //
        }, //
    },
    Item,
    Kind, //
};

layout! {
    /// A chunk of memory pages. Its frame's id is that of the Mm, Shmem, Unnamed or Hugetlb which they
    /// belong to. The tail is an array of Extent, ascending and apart, and `fill` zero bytes; then,
    /// after the record, the data: `pages` times 4096 bytes, which the length in the frame does not
    /// count.
    pub struct Pages {
        /// Pages in all extents.
        pub pages: U32 => Check::Range(1, CHUNK_PAGES),
        /// Number of extents.
        pub extents: U32 => Check::Range(1, CHUNK_PAGES),
        /// CRC-32C of the data.
        pub data_crc: U32,
        /// Zero bytes before the data, by which it lies on pages of the stream.
        pub fill: U32 => Check::Range(0, PAGE_SIZE - 1),
    }
}

layout! {
    /// A run of pages.
    pub struct Extent {
        /// First byte: an address of the Mm, or an offset in the Shmem, Unnamed or Hugetlb.
        pub addr: U64,
        /// Number of pages.
        pub pages: U32 => Check::Range(1, CHUNK_PAGES),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

impl Extent {
    /// Returns the run of `pages` pages from byte `addr` on.
    pub fn new(addr: u64, pages: u32) -> Self {
        Self {
            addr: addr.into(),
            pages: pages.into(),
            reserved: 0.into(),
        }
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        u64::from(self.pages.get()) * u64::from(PAGE_SIZE)
    }

    /// Whether there is no page in it, which no valid one has.
    pub fn is_empty(&self) -> bool {
        self.pages.get() == 0
    }
}

record!(
    Pages,
    object: true,
    tail: Tail::ItemsAndBytes(
        Item::Extent,
        core::mem::offset_of!(Pages, extents),
        core::mem::offset_of!(Pages, fill)
    ),
    check: |chunk, tail| {
        let (extents, fill) = chunk.split(tail).ok_or("the tail has a wrong length")?;
        if fill.iter().any(|byte| *byte != 0) {
            return Err("what is before the data is not zero");
        }
        let mut free = 0;
        let mut pages = 0;
        for extent in extents {
            if extent.addr.get() % u64::from(PAGE_SIZE) != 0 {
                return Err("an extent does not lie on pages");
            }
            if extent.addr.get() < free {
                return Err("the extents do not ascend");
            }
            free = match extent.addr.get().checked_add(extent.len()) {
                Some(end) => end,
                None => return Err("impossible addresses of an extent"),
            };
            pages += u64::from(extent.pages.get());
        }
        if pages != u64::from(chunk.pages.get()) {
            return Err("the extents do not add up");
        }
        Ok(())
    }
);

impl Pages {
    /// Returns the extents of a chunk with this tail, and what is before the data.
    pub fn split<'a>(&self, tail: &'a [u8]) -> Option<(&'a [Extent], &'a [u8])> {
        let count = usize::try_from(self.extents.get()).ok()?;
        <[Extent]>::ref_from_prefix_with_elems(tail, count).ok()
    }
}

layout! {
    /// Pages that an Mm, whose id is that of the frame, has in common with others that come before
    /// it: they are the same pages until one of them writes. The tail is an array of Share,
    /// ascending and apart.
    pub struct Shared {
        /// Number of runs.
        pub count: U32 => Check::Range(1, CHUNK_PAGES),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

layout! {
    /// A run of pages that an earlier Mm has, too.
    pub struct Share {
        /// First byte of the run.
        pub addr: U64,
        /// Where the same pages are in the other Mm.
        pub from_addr: U64,
        /// Id of the other Mm. Its pages are in the stream before this record.
        pub from: U32,
        /// Number of pages.
        pub pages: U32 => Check::Range(1, u32::MAX),
    }
}

impl Share {
    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        u64::from(self.pages.get()) * u64::from(PAGE_SIZE)
    }

    /// Whether there is no page in it, which no valid one has.
    pub fn is_empty(&self) -> bool {
        self.pages.get() == 0
    }
}

record!(
    Shared,
    object: true,
    tail: Tail::Items(Item::Share, core::mem::offset_of!(Shared, count)),
    check: |_, tail| {
        let shares = <[Share]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        let mut free = 0;
        for share in shares {
            let page = u64::from(PAGE_SIZE);
            if share.addr.get() % page != 0 || share.from_addr.get() % page != 0 {
                return Err("a run does not lie on pages");
            }
            if share.addr.get() < free {
                return Err("the runs do not ascend");
            }
            let end = share.addr.get().checked_add(share.len());
            let from_end = share.from_addr.get().checked_add(share.len());
            free = match (end, from_end) {
                (Some(end), Some(_)) => end,
                _ => return Err("impossible addresses of a run"),
            };
        }
        Ok(())
    }
);

impl ArrayRecord for Shared {
    type Item = Share;
}

layout! {
    /// The end of the plan. Chunks or the trailer follow.
    pub struct PlanEnd {
        /// Number of records before it.
        pub records: U64,
    }
}

record!(PlanEnd, object: false, tail: Tail::None);

layout! {
    /// The end of the image, without which it is none. What it counts is all that comes before it.
    pub struct Trailer {
        /// Records of the plan, PlanEnd included.
        pub records: U64,
        /// Chunks, Shared records included.
        pub chunks: U64,
        /// Pages in all chunks.
        pub pages: U64,
        /// Bytes of the stream, header included.
        pub bytes: U64,
        /// CRC-32C over the little-endian checksums of all frames in their order, after a chunk's
        /// also that of its data.
        pub digest: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(Trailer, object: false, tail: Tail::None);
