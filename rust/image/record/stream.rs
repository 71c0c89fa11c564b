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
            item,
            ArrayRecord,
            Check,
            Count,
            Field,
            ItemInfo,
            Layout,
            Record,
            Tail, //
        }, //
    },
    Kind, //
};

layout! {
    /// A chunk of memory pages. Its frame's id is that of the Mm or Shmem which they belong to. The
    /// tail is an array of Extent, ascending and apart; then, after the record, the data: `pages`
    /// times 4096 bytes, which the length in the frame does not count.
    pub struct Pages {
        /// Pages in all extents.
        pub pages: U32 => Check::Range(1, CHUNK_PAGES),
        /// Number of extents.
        pub extents: U32 => Check::Range(1, CHUNK_PAGES),
        /// CRC-32C of the data.
        pub data_crc: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

layout! {
    /// A run of pages.
    pub struct Extent {
        /// First byte: an address of the Mm, or an offset in the Shmem.
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

static EXTENT: ItemInfo = item::<Extent>();

record!(
    Pages,
    object: true,
    tail: Tail::Items(&EXTENT, Count::Field(core::mem::offset_of!(Pages, extents))),
    check: |chunk, tail| {
        let extents = <[Extent]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
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

impl ArrayRecord for Pages {
    type Item = Extent;
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
        /// Chunks.
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
