// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Writing an image.

use zerocopy::{
    little_endian::U32,
    IntoBytes, //
};

use super::{
    crc::{
        Checksum,
        Crc32c, //
    },
    frame::{
        padding,
        Frame,
        CHUNK_PAGES,
        FRAME_LEN,
        HEADER_LEN,
        MAX_RECORD,
        PAGE_SIZE, //
    },
    layout::Record,
    record::{
        Extent,
        Kind,
        Pages,
        PlanEnd,
        Share,
        Shared,
        Trailer, //
    }, //
};

/// Where encoded bytes go.
pub trait Sink {
    /// Why it takes no more.
    type Error: From<TooLong>;

    /// Takes all bytes of `parts`, one part after the other.
    fn put(&mut self, parts: &[&[u8]]) -> Result<(), Self::Error>;
}

/// The payload of a record exceeds what the format allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// What has gone by, in writing or reading: the trailer in the making.
pub struct Totals<C: Crc32c> {
    /// Records of the plan.
    pub records: u64,
    /// Chunks, and records of shared pages.
    pub chunks: u64,
    /// Pages in all chunks.
    pub pages: u64,
    /// Bytes of the stream, header included.
    pub bytes: u64,
    digest: Checksum<C>,
}

impl<C: Crc32c> Totals<C> {
    /// Returns the totals after the header.
    pub(super) fn new() -> Self {
        Self {
            records: 0,
            chunks: 0,
            pages: 0,
            bytes: const { HEADER_LEN as u64 },
            digest: Checksum::new(),
        }
    }

    /// Counts a frame with its payload.
    pub(super) fn frame(&mut self, frame: &Frame) {
        let len = u64::from(frame.len.get()) + u64::from(padding(frame.len.get()));
        self.bytes += const { FRAME_LEN as u64 } + len;
        self.digest.update(frame.crc.as_bytes());
    }

    /// Counts the data of a chunk.
    pub(super) fn data(&mut self, chunk: &Pages) {
        self.chunks += 1;
        self.pages += u64::from(chunk.pages.get());
        self.bytes += u64::from(chunk.pages.get()) * u64::from(PAGE_SIZE);
        self.digest.update(chunk.data_crc.as_bytes());
    }

    /// Returns the trailer that belongs here.
    pub fn trailer(&self) -> Trailer {
        Trailer {
            records: self.records.into(),
            chunks: self.chunks.into(),
            pages: self.pages.into(),
            bytes: self.bytes.into(),
            digest: self.digest.finish().into(),
            reserved: 0.into(),
        }
    }
}

impl<C: Crc32c> Clone for Totals<C> {
    fn clone(&self) -> Self {
        Self {
            digest: self.digest.clone(),
            ..*self
        }
    }
}

/// The data of a chunk of at least so many pages lies on pages of the stream, where each can be
/// copied, mapped or moved as a whole.
const ALIGNED_PAGES: u32 = 8;

static ZEROES: [u8; const { PAGE_SIZE as usize }] = [0; const { PAGE_SIZE as usize }];

/// Encodes an image after its header, in the order of the stream.
///
/// It keeps the counts and the digest for the trailer. An error of the sink leaves it unusable, but
/// for a clone made before.
pub struct Encoder<C: Crc32c> {
    totals: Totals<C>,
    last_id: u32,
    tasks: u32,
}

impl<C: Crc32c> Encoder<C> {
    /// Returns the encoder of an empty plan.
    pub fn new() -> Self {
        Self {
            totals: Totals::new(),
            last_id: 0,
            tasks: 0,
        }
    }

    /// Returns what was encoded so far.
    pub fn totals(&self) -> &Totals<C> {
        &self.totals
    }

    /// Returns the number of Task records, for the header.
    pub fn tasks(&self) -> u32 {
        self.tasks
    }

    /// Returns the length of what was encoded so far in bytes. After [`Encoder::plan_end`] that is
    /// the `plan_len` of the header.
    pub fn plan_len(&self) -> u64 {
        self.totals.bytes - const { HEADER_LEN as u64 }
    }

    /// Encodes a record of any kind, whose payload is the concatenation of `parts`.
    ///
    /// `id` is 0, or greater than every id before it.
    pub fn record<S: Sink>(
        &mut self,
        sink: &mut S,
        kind: u16,
        flags: u16,
        id: u32,
        parts: &[&[u8]],
    ) -> Result<(), S::Error> {
        self.frame(sink, kind, flags, id, &[], parts)?;
        self.totals.records += 1;
        self.last_id = self.last_id.max(id);
        Ok(())
    }

    /// Encodes a record that describes no object. Its payload is `record`, then `tail`.
    pub fn put<S: Sink, T: Record>(
        &mut self,
        sink: &mut S,
        record: &T,
        tail: &[&[u8]],
    ) -> Result<(), S::Error> {
        debug_assert!(!T::OBJECT);
        self.typed(sink, 0, record, tail)
    }

    /// Encodes a record that describes an object and returns the id that it gives it. What refers
    /// to the object comes later.
    pub fn object<S: Sink, T: Record>(
        &mut self,
        sink: &mut S,
        record: &T,
        tail: &[&[u8]],
    ) -> Result<u32, S::Error> {
        debug_assert!(T::OBJECT);
        let id = self.last_id.checked_add(1).ok_or(TooLong)?;
        self.typed(sink, id, record, tail)?;
        Ok(id)
    }

    /// Encodes the end of the plan.
    pub fn plan_end<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let records = self.totals.records.into();
        self.put(sink, &PlanEnd { records }, &[])
    }

    /// Encodes what comes before the pages of `extents`, of which there are at most
    /// [`CHUNK_PAGES`]. The caller sends the data itself, whose CRC-32C is `data_crc`.
    pub fn chunk_header<S: Sink>(
        &mut self,
        sink: &mut S,
        id: u32,
        extents: &[Extent],
        data_crc: u32,
    ) -> Result<(), S::Error> {
        let pages = extents
            .iter()
            .map(|extent| u64::from(extent.pages.get()))
            .sum::<u64>();
        let count = u32::try_from(extents.len()).map_err(|_| TooLong)?;
        let pages = u32::try_from(pages).map_err(|_| TooLong)?;
        if pages > CHUNK_PAGES || count > CHUNK_PAGES {
            return Err(TooLong.into());
        }
        let extents = extents.as_bytes();
        let fill = if pages < ALIGNED_PAGES {
            &[]
        } else {
            let head = const { FRAME_LEN + size_of::<Pages>() };
            self.fill(head.saturating_add(extents.len()))
        };
        let chunk = Pages {
            pages: pages.into(),
            extents: count.into(),
            data_crc: data_crc.into(),
            fill: u32::try_from(fill.len()).map_err(|_| TooLong)?.into(),
        };
        let (kind, head) = (Kind::Pages.number(), chunk.as_bytes());
        match fill {
            [] => self.frame(sink, kind, 0, id, head, &[extents])?,
            _ => self.frame(sink, kind, 0, id, head, &[extents, fill])?,
        }
        self.totals.data(&chunk);
        Ok(())
    }

    /// Returns the zero bytes after which what follows the next `len` bytes lies on a page.
    fn fill(&self, len: usize) -> &'static [u8] {
        let len = u64::try_from(len).unwrap_or(0);
        let end = self.totals.bytes.wrapping_add(len);
        let fill = end.wrapping_neg() % u64::from(PAGE_SIZE);
        usize::try_from(fill)
            .ok()
            .and_then(|fill| ZEROES.get(..fill))
            .unwrap_or(&[])
    }

    /// Encodes which pages the Mm `id` has in common with earlier ones: at most [`CHUNK_PAGES`] runs.
    pub fn shared<S: Sink>(
        &mut self,
        sink: &mut S,
        id: u32,
        shares: &[Share],
    ) -> Result<(), S::Error> {
        let count = u32::try_from(shares.len()).map_err(|_| TooLong)?;
        if count > CHUNK_PAGES {
            return Err(TooLong.into());
        }
        let shared = Shared {
            count: count.into(),
            reserved: 0.into(),
        };
        let (head, tail) = (shared.as_bytes(), shares.as_bytes());
        self.frame(sink, Kind::Shared.number(), 0, id, head, &[tail])?;
        self.totals.chunks += 1;
        Ok(())
    }

    /// Encodes the trailer.
    pub fn trailer<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let trailer = self.totals.trailer();
        self.frame(sink, Kind::Trailer.number(), 0, 0, trailer.as_bytes(), &[])
    }

    fn typed<S: Sink, T: Record>(
        &mut self,
        sink: &mut S,
        id: u32,
        record: &T,
        tail: &[&[u8]],
    ) -> Result<(), S::Error> {
        self.frame(sink, T::KIND.number(), 0, id, record.as_bytes(), tail)?;
        self.totals.records += 1;
        self.last_id = self.last_id.max(id);
        if T::KIND == Kind::Task {
            self.tasks += 1;
        }
        Ok(())
    }

    fn frame<S: Sink>(
        &mut self,
        sink: &mut S,
        kind: u16,
        flags: u16,
        id: u32,
        head: &[u8],
        tail: &[&[u8]],
    ) -> Result<(), S::Error> {
        let len = tail
            .iter()
            .fold(head.len(), |len, part| len.saturating_add(part.len()));
        let len = u32::try_from(len).map_err(|_| TooLong)?;
        if len > MAX_RECORD {
            return Err(TooLong.into());
        }
        let mut frame = Frame {
            kind: kind.into(),
            flags: flags.into(),
            len: len.into(),
            id: id.into(),
            crc: U32::new(0),
        };
        frame.crc = frame.checksum::<C>(head, tail).into();
        let pad = usize::try_from(padding(len)).unwrap_or(0);
        let pad = [0; 8].get(..pad).unwrap_or(&[]);
        match *tail {
            [] => sink.put(&[frame.as_bytes(), head, pad])?,
            [part] => sink.put(&[frame.as_bytes(), head, part, pad])?,
            _ => {
                sink.put(&[frame.as_bytes(), head])?;
                sink.put(tail)?;
                sink.put(&[pad])?;
            }
        }
        self.totals.frame(&frame);
        Ok(())
    }
}

impl<C: Crc32c> Clone for Encoder<C> {
    fn clone(&self) -> Self {
        Self {
            totals: self.totals.clone(),
            ..*self
        }
    }
}

impl<C: Crc32c> Default for Encoder<C> {
    fn default() -> Self {
        Self::new()
    }
}
