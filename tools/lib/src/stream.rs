// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Reading whole images.

use std::io::{
    self,
    Read, //
};

use checkpoint_image::{
    Checksum,
    Chunk,
    Crc32c,
    Header,
    ImageError,
    Next,
    Objects,
    Plan,
    Slot,
    Stream,
    FRAME_LEN,
    HEADER_LEN,
    PAGE_SIZE, //
};

use super::error::Error;

/// CRC-32C with the instructions of the processor.
#[derive(Clone, Copy, Debug)]
pub enum Crc {}

impl Crc32c for Crc {
    fn crc32c(crc: u32, data: &[u8]) -> u32 {
        !crc32c::crc32c_append(!crc, data)
    }
}

/// The header and the plan of an image, in memory.
pub struct Image {
    header: Header,
    plan: Vec<u8>,
}

/// Reads until `buffer` is full or the stream ends, and returns how much there was.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Image {
    /// Reads header and plan from the start of a stream.
    ///
    /// # Errors
    ///
    /// If the header is defective, or the stream fails. A stream that ends too early shows only
    /// when the plan is looked at.
    pub fn read(from: &mut impl Read) -> Result<Self, Error> {
        let mut header = [0; HEADER_LEN];
        let got = fill(from, &mut header)?;
        let header = Header::parse::<Crc>(header.get(..got).unwrap_or(&[]))?;
        let mut plan = Vec::new();
        // Not more memory than there are bytes: the length is only a claim.
        from.take(header.plan_len.get()).read_to_end(&mut plan)?;
        Ok(Self { header, plan })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Checks the plan, record by record.
    ///
    /// # Errors
    ///
    /// Names the first record with a defect.
    pub fn plan(&self) -> Result<Plan<'_, Crc>, ImageError> {
        Plan::new(&self.header, &self.plan)
    }
}

/// Returns memory for [`Objects::new`].
pub fn slots(plan: &Plan<'_, Crc>) -> Vec<Slot> {
    vec![Slot::default(); plan.objects()]
}

/// Counts of a whole image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole {
    /// Records of the plan.
    pub records: u64,
    /// Chunks.
    pub chunks: u64,
    /// Pages.
    pub pages: u64,
    /// Bytes, trailer included.
    pub bytes: u64,
}

fn truncated(stream: &Stream<Crc>, got: usize) -> Error {
    stream.truncated(u64::try_from(got).unwrap_or(0)).into()
}

/// Reads what follows the plan to the end of the trailer, and calls `each` with every chunk and its
/// data.
///
/// # Errors
///
/// If the image is defective, or the stream fails.
pub fn read_pages(
    from: &mut impl Read,
    plan: &Plan<'_, Crc>,
    objects: &Objects<'_, '_>,
    mut each: impl FnMut(&Chunk<'_>, &[u8]),
) -> Result<Whole, Error> {
    let mut stream = plan.stream();
    let mut payload = Vec::new();
    let mut data = Vec::new();
    loop {
        let mut frame = [0; FRAME_LEN];
        let got = fill(from, &mut frame)?;
        if got < frame.len() {
            return Err(truncated(&stream, got));
        }
        let next = stream.next(&frame)?;
        let (Next::Chunk(len) | Next::Shared(len) | Next::Trailer(len)) = next;
        payload.resize(len, 0);
        let got = fill(from, &mut payload)?;
        if got < payload.len() {
            return Err(truncated(&stream, FRAME_LEN + got));
        }
        if let Next::Trailer(_) = next {
            stream.trailer(&frame, &payload)?;
            let totals = stream.totals();
            return Ok(Whole {
                records: totals.records,
                chunks: totals.chunks,
                pages: totals.pages,
                bytes: totals.bytes,
            });
        }
        if let Next::Shared(_) = next {
            stream.shared(objects, &frame, &payload)?;
            continue;
        }
        let chunk = stream.chunk(objects, &frame, &payload)?;
        let len = u64::from(chunk.pages) * u64::from(PAGE_SIZE);
        data.resize(usize::try_from(len).unwrap_or(0), 0);
        let got = fill(from, &mut data)?;
        if got < data.len() {
            // The stream counts the frame of a chunk when it has checked it.
            return Err(truncated(&stream, got));
        }
        stream.data(&chunk, Checksum::<Crc>::of(&data))?;
        each(&chunk, &data);
    }
}
