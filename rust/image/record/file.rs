// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Open files, pipes, descriptor tables.

use zerocopy::{
    little_endian::{
        I32,
        I64,
        U32,
        U64, //
    },
    FromBytes, //
};

use super::{
    super::layout::{
        item,
        ArrayRecord,
        Check,
        Count,
        Field,
        ItemInfo,
        Layout,
        Record,
        Tail, //
    },
    Kind,
    OPEN_FILES, //
};

bits! {
    /// Bits of `flags` in the records of open files.
    pub mod file_flags {
        /// Open for reading.
        READ = 0,
        /// Open for writing.
        WRITE = 1,
        /// O_APPEND.
        APPEND = 2,
        /// O_NONBLOCK.
        NONBLOCK = 3,
        /// O_DIRECT; of a pipe: packet mode.
        DIRECT = 4,
        /// O_SYNC, which includes O_DSYNC.
        SYNC = 5,
        /// O_DSYNC.
        DSYNC = 6,
        /// O_NOATIME.
        NOATIME = 7,
        /// O_PATH.
        PATH = 8,
        /// O_ASYNC.
        ASYNC = 9,
        /// O_LARGEFILE, which F_GETFL shows.
        LARGEFILE = 10,
        /// O_DIRECTORY, which F_GETFL shows.
        DIRECTORY = 11,
        /// O_NOFOLLOW, which F_GETFL shows.
        NOFOLLOW = 12,
        /// O_CLOEXEC was given to open, which F_GETFL shows; the descriptor's own flag is in Files.
        OPENED_CLOEXEC = 13,
        /// POSIX_FADV_SEQUENTIAL.
        ADVISE_SEQUENTIAL = 14,
        /// POSIX_FADV_RANDOM.
        ADVISE_RANDOM = 15,
        /// POSIX_FADV_NOREUSE.
        ADVISE_NOREUSE = 16,
        /// Of a regular file: the image itself went there, so that its size and time say nothing.
        STREAM = 31,
    }
}

layout! {
    /// An open regular file: an object to which descriptors and mappings refer, shared by all
    /// that dup and fork made. The tail is its absolute path.
    pub struct FileRegular {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Position in bytes.
        pub pos: I64,
        /// Size of the file in bytes.
        pub size: U64,
        /// Time of the last change of the contents: seconds.
        pub mtime_sec: I64,
        /// And nanoseconds.
        pub mtime_nsec: U32 => Check::Range(0, 999_999_999),
        /// Zero.
        pub reserved: [u8; 12] => Check::Zero,
    }
}

record!(FileRegular, object: true, tail: Tail::Path, check: |file, _| {
    if file.pos.get() < 0 {
        return Err("negative position");
    }
    if file.size.get() > i64::MAX.unsigned_abs() {
        return Err("impossible size");
    }
    Ok(())
});

layout! {
    /// An open directory. The tail is its absolute path.
    pub struct FileDirectory {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Position as lseek(2) has it.
        pub pos: I64,
    }
}

record!(FileDirectory, object: true, tail: Tail::Path, check: |file, _| {
    if file.pos.get() < 0 {
        return Err("negative position");
    }
    Ok(())
});

layout! {
    /// An open character device that keeps no state of its own. The tail is its absolute path.
    pub struct FileDevice {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Major number of the device.
        pub major: U32,
        /// Minor number of the device.
        pub minor: U32,
        /// Position in bytes.
        pub pos: I64,
    }
}

record!(FileDevice, object: true, tail: Tail::Path, check: |file, _| {
    if file.pos.get() < 0 {
        return Err("negative position");
    }
    Ok(())
});

bits! {
    /// Bits of [`Packet::flags`].
    pub mod packet_flags {
        /// The bytes are a packet: they are not merged with others and what a read leaves is
        /// dropped.
        PACKET = 0,
    }
}

bits! {
    /// Bits of [`Pipe::flags`].
    pub mod pipe_flags {
        /// It has a name: the open ends tell which.
        FIFO = 0,
    }
}

layout! {
    /// A pipe or fifo with what is buffered in it. The tail is an array of Packet, then their data,
    /// the next to be read first.
    pub struct Pipe {
        /// Capacity in slots of one page, a power of two.
        pub size: U32 => Check::Range(1, 1 << 20),
        /// Number of packets.
        pub packets: U32 => Check::Range(0, 1 << 20),
        /// Bytes in all packets.
        pub bytes: U32,
        /// Bits of `pipe_flags`.
        pub flags: U32 => Check::Bits(pipe_flags::ALL),
    }
}

layout! {
    /// The contents of one slot of a pipe.
    pub struct Packet {
        /// Length in bytes.
        pub len: U32 => Check::Range(1, 4096),
        /// Bits of `packet_flags`.
        pub flags: U32 => Check::Bits(packet_flags::ALL),
    }
}

/// The description of [`Packet`].
pub static PACKET: ItemInfo = item::<Packet>();

record!(
    Pipe,
    object: true,
    tail: Tail::ItemsAndBytes(
        &PACKET,
        Count::Field(core::mem::offset_of!(Pipe, packets)),
        core::mem::offset_of!(Pipe, bytes),
    ),
    check: |pipe, tail| {
    if !pipe.size.get().is_power_of_two() {
        return Err("the size of the pipe is no power of two");
    }
    if pipe.packets.get() > pipe.size.get() {
        return Err("more packets than slots");
    }
    let Some((packets, data)) = pipe.split(tail) else {
        return Err("the tail is too short");
    };
    let bytes = packets.iter().map(|packet| u64::from(packet.len.get())).sum::<u64>();
    if bytes != u64::from(pipe.bytes.get()) || u64::try_from(data.len()) != Ok(bytes) {
        return Err("the packets do not add up");
    }
    Ok(())
    }
);

impl Pipe {
    /// Splits the tail of the record into packets and data.
    pub fn split<'a>(&self, tail: &'a [u8]) -> Option<(&'a [Packet], &'a [u8])> {
        let count = usize::try_from(self.packets.get()).ok()?;
        <[Packet]>::ref_from_prefix_with_elems(tail, count).ok()
    }
}

bits! {
    /// Bits of [`FilePipe::end_flags`].
    pub mod end_flags {
        /// No writer has been there since it was opened, so that poll(2) does not show POLLHUP.
        NO_WRITER_YET = 0,
    }
}

layout! {
    /// A pipe or fifo as it was opened for reading, writing or both. The tail is the absolute path
    /// of a fifo, and empty for a pipe.
    pub struct FilePipe {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Id of the Pipe.
        pub pipe: U32 => Check::Id(&[Kind::Pipe]),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Bits of `end_flags`.
        pub end_flags: U32 => Check::Bits(end_flags::ALL),
    }
}

record!(FilePipe, object: true, tail: Tail::PathOrNone);

/// Values of [`FileExternal::kind`].
pub mod external {
    /// A terminal.
    pub const TTY: u32 = 1;
    /// A pipe or fifo with an end outside the tree.
    pub const PIPE: u32 = 2;
    /// A socket.
    pub const SOCKET: u32 = 3;
    /// Something else.
    pub const OTHER: u32 = 4;
    /// A pidfd.
    pub const PIDFD: u32 = 5;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &["tty", "pipe", "socket", "other", "pidfd"];
}

layout! {
    /// An open file whose other side is outside the tree: the restarter supplies a descriptor of
    /// the same kind. The tail describes what it was, for people.
    pub struct FileExternal {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// What it was: 1 a terminal, 2 a pipe or fifo, 3 a socket, 4 something else, 5 a pidfd.
        pub kind: U32 => Check::Range(1, 5),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(FileExternal, object: true, tail: Tail::Text);

bits! {
    /// Bits of [`FilePidfd::pidfd_flags`].
    pub mod pidfd_flags {
        /// It refers to a thread: PIDFD_THREAD.
        THREAD = 0,
        /// The process is killed when it is closed: CLONE_PIDFD_AUTOKILL.
        AUTOKILL = 1,
    }
}

layout! {
    /// A pidfd of a task of the tree.
    pub struct FilePidfd {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Id of the task, as gettid(2) returns it.
        pub pid: I32 => Check::Range(1, 0x3fff_ffff),
        /// Bits of `pidfd_flags`.
        pub pidfd_flags: U32 => Check::Bits(pidfd_flags::ALL),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(FilePidfd, object: true, tail: Tail::None);

layout! {
    /// A table of file descriptors. The tail is an array of Fd, ascending by number.
    pub struct Files {
        /// Number of descriptors.
        pub count: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

bits! {
    /// Bits of [`Fd::flags`].
    pub mod fd_flags {
        /// FD_CLOEXEC.
        CLOEXEC = 0,
    }
}

layout! {
    /// One descriptor.
    pub struct Fd {
        /// Its number.
        pub fd: U32 => Check::Range(0, 0x3fff_ffff),
        /// Bits of `fd_flags`.
        pub flags: U32 => Check::Bits(fd_flags::ALL),
        /// Id of the open file.
        pub file: U32 => Check::Id(OPEN_FILES),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

static FD: ItemInfo = item::<Fd>();

record!(
    Files,
    object: true,
    tail: Tail::Items(&FD, Count::Field(core::mem::offset_of!(Files, count))),
    check: |_, tail| {
        let fds = <[Fd]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        if !fds.windows(2).all(|pair| matches!(pair, [a, b] if a.fd.get() < b.fd.get())) {
            return Err("the descriptors do not ascend");
        }
        Ok(())
    }
);

impl ArrayRecord for Files {
    type Item = Fd;
}
