// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The header of an image and the frame around each record.

use zerocopy::{
    little_endian::{
        U16,
        U32,
        U64, //
    },
    FromBytes,
    IntoBytes, //
};
use zerocopy_derive::{
    FromBytes,
    Immutable,
    IntoBytes,
    KnownLayout,
    Unaligned, //
};

use super::{
    crc::{
        Checksum,
        Crc32c, //
    },
    error::ImageError, //
};

/// The first bytes of an image. Like PNG's they show a transfer that changed line ends.
pub const MAGIC: [u8; 8] = *b"\x89CKPT\r\n\x1a";
/// Version that a reader must know.
pub const MAJOR: u16 = 1;
/// Version of what is added within [`MAJOR`]; a reader may know less.
pub const MINOR: u16 = 0;
/// ELF machine number of x86-64.
pub const ARCH_X86_64: u16 = 62;
/// Size of a page of memory in bytes.
pub const PAGE_SIZE: u32 = 4096;
/// Names of the required features that this version knows, by bit number. None yet.
pub const FEATURES: &[(u32, &str)] = &[];

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 64;
/// Length of the frame of a record in bytes.
pub const FRAME_LEN: usize = 16;
/// Largest payload of one record in bytes.
pub const MAX_RECORD: u32 = 16 << 20;
/// Largest plan in bytes.
pub const MAX_PLAN: u64 = 1 << 30;
/// Most pages, and most extents, of one chunk.
pub const CHUNK_PAGES: u32 = 2048;

/// Frame flag: a reader that does not know the kind skips the record.
pub const OPTIONAL: u16 = 1 << 0;

// Sizes of records are `u32` in the format and `usize` in memory.
const _: () = assert!(usize::BITS >= u32::BITS);

/// Returns the number of zero bytes after a payload of `len` bytes.
pub const fn padding(len: u32) -> u32 {
    len.wrapping_neg() & 7
}

/// What comes first in an image.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`MAJOR`].
    pub major: U16,
    /// [`MINOR`].
    pub minor: U16,
    /// ELF machine number of the architecture: [`ARCH_X86_64`].
    pub arch: U16,
    /// Length of this header in bytes: 64.
    pub header_len: U16,
    /// No flag is defined; zero.
    pub flags: U32,
    /// Number of Task records in the plan.
    pub tasks: U32,
    /// Bits of [`FEATURES`] that a reader must understand.
    pub required: U64,
    /// Length of the plan in bytes, PlanEnd included.
    pub plan_len: U64,
    /// Size of a page in bytes: [`PAGE_SIZE`].
    pub page_size: U32,
    /// Zero.
    pub reserved: [u8; 16],
    /// CRC-32C of the header with this field zero.
    pub crc: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

impl Header {
    /// Returns the header of a plan of `plan_len` bytes with `tasks` Task records, to be sealed.
    pub fn new(tasks: u32, required: u64, plan_len: u64) -> Self {
        Self {
            magic: MAGIC,
            major: MAJOR.into(),
            minor: MINOR.into(),
            arch: ARCH_X86_64.into(),
            header_len: U16::new(64),
            flags: 0.into(),
            tasks: tasks.into(),
            required: required.into(),
            plan_len: plan_len.into(),
            page_size: PAGE_SIZE.into(),
            reserved: [0; 16],
            crc: 0.into(),
        }
    }

    /// Computes the checksum. The result's [`as_bytes`](IntoBytes::as_bytes) goes to the stream.
    pub fn seal<C: Crc32c>(mut self) -> Self {
        self.crc = 0.into();
        self.crc = Checksum::<C>::of(self.as_bytes()).into();
        self
    }

    /// Reads the header from the first [`HEADER_LEN`] bytes of a stream, or from as many as it has.
    ///
    /// # Errors
    ///
    /// Tells apart an empty stream, one that is no image, a truncated or damaged header, and one
    /// that this reader cannot understand.
    pub fn parse<C: Crc32c>(bytes: &[u8]) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        if !bytes.iter().zip(MAGIC.iter()).all(|(a, b)| a == b) {
            return Err(ImageError::NotAnImage);
        }
        let Ok((header, _)) = Self::read_from_prefix(bytes) else {
            let at = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return Err(ImageError::Truncated(at, "the header"));
        };
        // A version that differs may have a header that differs: look at it first. What damage
        // there leads to a wrong message is refused all the same.
        if header.seal::<C>().crc != header.crc {
            let foreign = header.major.get() > MAJOR && header.header_len.get() != 64;
            return Err(if foreign {
                ImageError::Newer(header.major.get(), header.minor.get())
            } else {
                ImageError::DamagedHeader
            });
        }
        if header.major.get() > MAJOR {
            return Err(ImageError::Newer(header.major.get(), header.minor.get()));
        }
        if header.arch.get() != ARCH_X86_64 {
            return Err(ImageError::ForeignArch(header.arch.get()));
        }
        let known = FEATURES
            .iter()
            .fold(0, |bits, (bit, _)| bits | (1u64 << (bit & 63)));
        let unknown = header.required.get() & !known;
        if unknown != 0 {
            return Err(ImageError::UnknownFeature(unknown.trailing_zeros()));
        }
        if header.page_size.get() != PAGE_SIZE {
            return Err(ImageError::ForeignPageSize(header.page_size.get()));
        }
        if header.major.get() != MAJOR {
            return Err(ImageError::MalformedHeader("no such version"));
        }
        if header.header_len.get() != 64 {
            return Err(ImageError::MalformedHeader("wrong length of the header"));
        }
        if header.flags.get() != 0 || header.reserved != [0; 16] {
            return Err(ImageError::MalformedHeader("a reserved field is not zero"));
        }
        if header.plan_len.get() > MAX_PLAN {
            return Err(ImageError::MalformedHeader("the plan is too long"));
        }
        if header.plan_len.get() % 8 != 0 {
            return Err(ImageError::MalformedHeader("the length of the plan is odd"));
        }
        Ok(header)
    }

    /// Returns the length of the plan in bytes, at most [`MAX_PLAN`] after [`Header::parse`].
    pub fn plan_len(&self) -> usize {
        usize::try_from(self.plan_len.get()).unwrap_or(usize::MAX)
    }
}

/// What comes before the payload of each record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Frame {
    /// Number of the kind.
    pub kind: U16,
    /// [`OPTIONAL`] or 0.
    pub flags: U16,
    /// Length of the payload in bytes, without the padding to a multiple of 8.
    pub len: U32,
    /// Id of the object that the record describes, or 0.
    pub id: U32,
    /// CRC-32C of the frame's first 12 bytes and the payload.
    pub crc: U32,
}

const _: () = assert!(size_of::<Frame>() == FRAME_LEN);

impl Frame {
    /// Returns the checksum that the frame must have with this payload, `head` and then `tail`.
    pub(super) fn checksum<C: Crc32c>(&self, head: &[u8], tail: &[&[u8]]) -> u32 {
        let mut sum = Checksum::<C>::new();
        // Itself comes last.
        let before = self
            .as_bytes()
            .get(..const { FRAME_LEN - size_of::<U32>() });
        sum.update(before.unwrap_or_default());
        sum.update(head);
        for part in tail {
            sum.update(part);
        }
        sum.finish()
    }
}
