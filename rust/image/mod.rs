// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The stream format of checkpoint(2) and restart(2).
//!
//! This module knows bytes and nothing of a kernel: the very same files build into the kernel and
//! into the tools. It never allocates, never panics and holds no unsafe code. Every integer of the
//! format is little-endian, every record has alignment 1, and every constant is the format's own.
//!
//! An image is written and read strictly in order:
//!
//! ```text
//! Header | plan record ... PlanEnd | Pages chunk + data ... | Trailer
//! ```
//!
//! - Whoever writes encodes the plan with an [`Encoder`] into memory, then builds the [`Header`],
//!   which carries the length of the plan, then sends header, plan, chunks and trailer.
//! - Whoever reads gives 64 bytes to [`Header::parse`], as many bytes as the header says to
//!   [`Plan::new`], lets [`Objects::new`] check what refers to what, and follows with a [`Stream`]
//!   the chunks to the trailer. Nothing of it trusts the image.
//!
//! The list of all kinds of records is [`KINDS`]; validation, the inspector and the specification
//! (`Documentation/image-format.rst`) derive from it.

// The kernel and the tools each use a part of it, the kernel as a private module.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod crc;
mod error;
mod frame;
#[macro_use]
mod layout;
mod read;
pub mod record;
mod write;

pub use self::{
    crc::{
        Checksum,
        Crc32c, //
    },
    error::{
        ErrorKind,
        ImageError,
        Place, //
    },
    frame::{
        padding,
        Frame,
        Header,
        ARCH_X86_64,
        CHUNK_PAGES,
        FEATURES,
        FRAME_LEN,
        HEADER_LEN,
        MAGIC,
        MAJOR,
        MAX_PLAN,
        MAX_RECORD,
        MINOR,
        OPTIONAL,
        PAGE_SIZE, //
    },
    layout::{
        ArrayRecord,
        Check,
        Field,
        KindInfo,
        Layout,
        Record,
        Tail, //
    },
    read::{
        Chunk,
        Next,
        Objects,
        Plan,
        RecordRef,
        Records,
        Slot,
        Stream, //
    },
    record::{
        Extent,
        Item,
        Kind,
        KINDS, //
    },
    write::{
        Encoder,
        Sink,
        TooLong,
        Totals, //
    }, //
};
