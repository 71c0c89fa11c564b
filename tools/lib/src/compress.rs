// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Compressed images: what the kernel writes and reads, as an LZ4 frame, which lz4(1) knows too.
//!
//! The kernel has one end of a pipe, somebody at the other end compresses or decompresses.

use std::{
    fs::File,
    io::{
        self,
        ErrorKind,
        Read, //
    },
    os::fd::{
        AsFd,
        BorrowedFd,
        OwnedFd, //
    },
    thread::{
        self,
        JoinHandle, //
    },
};

use lz4_flex::frame::{
    BlockSize,
    FrameDecoder,
    FrameEncoder,
    FrameInfo, //
};
use rustix::{
    fs::{
        fstat,
        tell,
        FileType, //
    },
    io::{
        pread,
        retry_on_intr, //
    },
    net::{
        recv,
        RecvFlags, //
    },
    pipe::{
        fcntl_setpipe_size,
        pipe_with,
        tee,
        PipeFlags,
        SpliceFlags, //
    },
};

use super::error::Error;

/// How an LZ4 frame begins.
const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// Bytes of the pipe between the kernel and the thread.
const PIPE: usize = 1 << 20;

/// A pipe: where it is read, and where it is written.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let ends = pipe_with(PipeFlags::CLOEXEC)?;
    // A smaller one does, too.
    let _ = fcntl_setpipe_size(&ends.1, PIPE);
    Ok(ends)
}

/// Returns the first bytes of `image`, at most as many as [`MAGIC`] has, and leaves them there.
fn peek(image: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut start = MAGIC;
    let len = match FileType::from_raw_mode(fstat(image)?.st_mode) {
        FileType::RegularFile => retry_on_intr(|| pread(image, &mut start, tell(image)?))?,
        FileType::Socket => {
            let flags = RecvFlags::PEEK | RecvFlags::WAITALL;
            retry_on_intr(|| recv(image, &mut start, flags))?.0
        }
        FileType::Fifo => {
            let (mut copy, to) = pipe().map(|(copy, to)| (File::from(copy), to))?;
            let len = retry_on_intr(|| tee(image, &to, start.len(), SpliceFlags::empty()))?;
            copy.read_exact(start.get_mut(..len).unwrap_or_default())?;
            len
        }
        _ => 0,
    };
    Ok(start.get(..len).unwrap_or_default().to_vec())
}

type Work = JoinHandle<Result<(), Error>>;

fn end_of(work: Work) -> Result<(), Error> {
    let result = work.join();
    result.unwrap_or_else(|_| Err(io::Error::other("the thread for it panicked").into()))
}

/// Compresses what is written to its stream.
#[derive(Debug)]
pub struct Compressor {
    stream: OwnedFd,
    work: Work,
}

impl Compressor {
    /// Compresses to `to`.
    ///
    /// # Errors
    ///
    /// If there is no pipe or thread to be had.
    pub fn start(to: OwnedFd) -> io::Result<Self> {
        let (from, stream) = pipe()?;
        let info = FrameInfo::new()
            .block_size(BlockSize::Max4MB)
            .block_checksums(true);
        let work = thread::Builder::new().spawn(move || {
            let mut frame = FrameEncoder::with_frame_info(info, File::from(to));
            io::copy(&mut File::from(from), &mut frame)?;
            frame.finish().map_err(io::Error::from)?;
            Ok(())
        })?;
        Ok(Self { stream, work })
    }

    /// Returns what to write to.
    pub fn stream(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Waits until all has been compressed and written.
    ///
    /// # Errors
    ///
    /// If it could not be written; writing to the stream failed then, too.
    pub fn finish(self) -> Result<(), Error> {
        drop(self.stream);
        end_of(self.work)
    }
}

/// Decompresses an image; see [`decompress()`].
#[derive(Debug)]
pub struct Decompressor {
    image: OwnedFd,
    to: OwnedFd,
}

/// Returns what to read the image from, and who makes it come if it is compressed.
///
/// # Errors
///
/// If `image` cannot be looked at.
pub fn decompress(image: OwnedFd) -> io::Result<(OwnedFd, Option<Decompressor>)> {
    if peek(image.as_fd())? != MAGIC {
        return Ok((image, None));
    }
    let (stream, to) = pipe()?;
    Ok((stream, Some(Decompressor { image, to })))
}

impl Decompressor {
    /// Does the work. Whoever reads the stream must not have this object, and this process must not
    /// have the stream.
    ///
    /// # Errors
    ///
    /// If the image could not be read or decompressed.
    pub fn run(self) -> Result<(), Error> {
        let mut to = File::from(self.to);
        match io::copy(&mut FrameDecoder::new(File::from(self.image)), &mut to) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result.map(drop)?),
        }
    }

    /// Has a thread do it, which ends when this process has closed the stream, if not before.
    ///
    /// # Errors
    ///
    /// If there is no thread to be had.
    pub fn start(self) -> io::Result<Decompressing> {
        let work = thread::Builder::new().spawn(move || self.run())?;
        Ok(Decompressing(work))
    }
}

/// A decompressor at work.
#[derive(Debug)]
pub struct Decompressing(Work);

impl Decompressing {
    /// Waits for the end of the work, when the stream has been closed.
    ///
    /// # Errors
    ///
    /// If the image could not be read or decompressed.
    pub fn finish(self) -> Result<(), Error> {
        end_of(self.0)
    }
}

/// Returns a reader of an image, decompressed if need be.
///
/// # Errors
///
/// If `from` cannot be read.
pub fn reader<'a>(mut from: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    from.by_ref()
        .take(MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    let compressed = start == MAGIC;
    let whole = io::Cursor::new(start).chain(from);
    Ok(if compressed {
        Box::new(FrameDecoder::new(whole))
    } else {
        Box::new(whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::unix::net::UnixStream, //
    };

    /// Something that can be compressed, longer than a block.
    fn data() -> Vec<u8> {
        let numbers = (0..2_000_000_u32).map(|i| i / 7);
        numbers.flat_map(u32::to_le_bytes).collect()
    }

    fn compressed(data: &[u8]) -> Vec<u8> {
        let (from, to) = pipe().unwrap();
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            File::from(from).read_to_end(&mut bytes).map(|_| bytes)
        });
        let compressor = Compressor::start(to).unwrap();
        let stream = compressor.stream().try_clone_to_owned().unwrap();
        File::from(stream).write_all(data).unwrap();
        compressor.finish().unwrap();
        reader.join().unwrap().unwrap()
    }

    /// Sends `bytes` to `to` from a thread.
    fn send(bytes: &[u8], to: impl Into<OwnedFd>) {
        let (bytes, to) = (bytes.to_vec(), to.into());
        thread::spawn(move || {
            // Whoever reads may have seen enough.
            let _ = File::from(to).write_all(&bytes);
        });
    }

    /// What comes of an image, and how the work on it ended.
    fn restored(image: OwnedFd) -> (Vec<u8>, Option<Result<(), Error>>) {
        let (stream, decompressor) = decompress(image).unwrap();
        let work = decompressor.map(|decompressor| decompressor.start().unwrap());
        let mut bytes = Vec::new();
        File::from(stream).read_to_end(&mut bytes).unwrap();
        (bytes, work.map(Decompressing::finish))
    }

    #[test]
    fn an_image_comes_back_from_a_file_a_pipe_and_a_socket() {
        let data = data();
        let frame = compressed(&data);
        assert!(frame.len() < data.len() / 2, "{}", frame.len());
        for (image, is_compressed) in [(&frame, true), (&data, false)] {
            let path = std::env::temp_dir().join(format!("compress-{}", std::process::id()));
            std::fs::write(&path, [b"before", &image[..]].concat()).unwrap();
            let mut file = File::open(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            file.read_exact(&mut [0; 6]).unwrap();

            let (from_pipe, to_pipe) = pipe().unwrap();
            send(image, to_pipe);
            let (from_socket, to_socket) = UnixStream::pair().unwrap();
            send(image, to_socket);

            for from in [file.into(), from_pipe, from_socket.into()] {
                let (bytes, end) = restored(from);
                assert!(bytes == data, "{} bytes came back", bytes.len());
                assert_eq!(end.is_some(), is_compressed);
                assert!(end.is_none_or(|end| end.is_ok()));
            }

            let mut bytes = Vec::new();
            reader(&image[..]).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == data, "{} bytes were read", bytes.len());
        }
    }

    #[test]
    fn short_images_are_left_alone() {
        for image in [&b""[..], b"a", &MAGIC[..3]] {
            let (from, to) = pipe().unwrap();
            send(image, to);
            let (bytes, end) = restored(from);
            assert_eq!(bytes, image);
            assert!(end.is_none());
        }
    }

    #[test]
    fn damage_is_a_defect_of_the_image() {
        let frame = compressed(&data());
        let mut damaged = frame.clone();
        damaged[5] ^= 1;
        for image in [&damaged[..], &frame[..frame.len() / 2]] {
            let (from, to) = pipe().unwrap();
            send(image, to);
            let error = restored(from).1.unwrap().unwrap_err();
            assert!(error.is_defect(), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let compressor = Compressor::start(full.into()).unwrap();
        let stream = compressor.stream().try_clone_to_owned().unwrap();
        let written = File::from(stream).write_all(&vec![7; 64 << 20]);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
        let error = compressor.finish().unwrap_err();
        assert!(matches!(error, Error::Io(_)), "{error}");
    }

    #[test]
    fn a_reader_may_have_seen_enough() {
        let (from, to) = pipe().unwrap();
        send(&compressed(&data()), to);
        let (stream, decompressor) = decompress(from).unwrap();
        let work = decompressor.unwrap().start().unwrap();
        File::from(stream).read_exact(&mut [0; 64]).unwrap();
        work.finish().unwrap();
    }
}
