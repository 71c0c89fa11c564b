// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What can be wrong with an image.

use core::fmt;

use super::record::Kind;

/// Where in the image something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the record, counted from 0, chunks and trailer included.
    pub record: u64,
    /// Number of its kind, known or not.
    pub kind: u16,
    /// Byte of the stream at which its frame starts.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Kind::from_number(self.kind) {
            Some(kind) => write!(f, "record {} ({})", self.record, kind.name())?,
            None => write!(f, "record {} (kind {})", self.record, self.kind)?,
        }
        write!(f, " at byte {}", self.offset)
    }
}

/// A defect of an image. Its [`Display`](fmt::Display) is one sentence for whoever tried to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// There is not a single byte.
    Empty,
    /// The stream starts with something else.
    NotAnImage,
    /// The major version (first) is one that this reader does not know.
    Newer(u16, u16),
    /// The image is of another architecture (its ELF machine number).
    ForeignArch(u16),
    /// The image has pages of another size.
    ForeignPageSize(u32),
    /// This bit of the features that a reader must understand is unknown.
    UnknownFeature(u32),
    /// The stream ends here, in the middle of what is named.
    Truncated(u64, &'static str),
    /// The header's checksum does not match.
    DamagedHeader,
    /// The checksum of a record does not match.
    Damaged(Place),
    /// The checksum of the page data that follows a record does not match.
    DamagedData(Place),
    /// The header is not as the specification has it, although its checksum matches.
    MalformedHeader(&'static str),
    /// A record is not as the specification has it; with the reason.
    Malformed(Place, &'static str),
    /// The record is of an unknown kind, and none that may be skipped.
    UnknownRecord(Place),
}

/// The classes of [`ImageError`], for whoever maps it to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not a single byte.
    Empty,
    /// No image at all.
    NotAnImage,
    /// Written by something newer: version, feature or record unknown.
    Newer,
    /// Of another architecture or page size.
    Foreign,
    /// The stream ends too early.
    Truncated,
    /// A checksum does not match.
    Damaged,
    /// Checksums match, but the contents break the specification.
    Malformed,
}

impl ImageError {
    /// Returns the class of the defect.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::Empty,
            Self::NotAnImage => ErrorKind::NotAnImage,
            Self::Newer(..) | Self::UnknownFeature(_) | Self::UnknownRecord(_) => ErrorKind::Newer,
            Self::ForeignArch(_) | Self::ForeignPageSize(_) => ErrorKind::Foreign,
            Self::Truncated(..) => ErrorKind::Truncated,
            Self::DamagedHeader | Self::Damaged(_) | Self::DamagedData(_) => ErrorKind::Damaged,
            Self::MalformedHeader(_) | Self::Malformed(..) => ErrorKind::Malformed,
        }
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the image is empty"),
            Self::NotAnImage => f.write_str("this is not a checkpoint image"),
            Self::Newer(major, minor) => {
                write!(
                    f,
                    "the image has format {major}.{minor}, this reader knows 1 only"
                )
            }
            Self::ForeignArch(arch) => {
                write!(
                    f,
                    "the image is of another architecture (ELF machine {arch})"
                )
            }
            Self::ForeignPageSize(size) => write!(f, "the image has pages of {size} bytes"),
            Self::UnknownFeature(bit) => {
                write!(
                    f,
                    "the image needs feature bit {bit}, which this reader does not know"
                )
            }
            Self::Truncated(at, what) => {
                write!(
                    f,
                    "the image is truncated: it ends at byte {at} in the middle of {what}"
                )
            }
            Self::DamagedHeader => {
                f.write_str("header: checksum does not match: the image is damaged")
            }
            Self::Damaged(place) => {
                write!(f, "{place}: checksum does not match: the image is damaged")
            }
            Self::DamagedData(place) => {
                write!(
                    f,
                    "{place}: checksum of the pages does not match: the image is damaged"
                )
            }
            Self::MalformedHeader(reason) => write!(f, "header: {reason}: the image is malformed"),
            Self::Malformed(place, reason) => {
                write!(f, "{place}: {reason}: the image is malformed")
            }
            Self::UnknownRecord(place) => {
                write!(
                    f,
                    "{place}: unknown and must be understood: the image is of a newer kernel"
                )
            }
        }
    }
}

impl core::error::Error for ImageError {}
