// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Unix sockets: their state, who is connected to whom, and what is in their queues.

use zerocopy::{
    little_endian::{
        I32,
        I64,
        U16,
        U32,
        U64, //
    },
    FromBytes, //
};

use super::{
    super::layout::{
        Check,
        Field,
        IdRule,
        Layout,
        Record,
        Rule,
        Rules,
        Tail, //
    },
    file_flags,
    Item,
    Kind,
    OPEN_FILES, //
};

/// Values of [`UnixSocket::socket_type`].
pub mod socket_type {
    /// SOCK_STREAM.
    pub const STREAM: u32 = 1;
    /// SOCK_DGRAM.
    pub const DGRAM: u32 = 2;
    /// SOCK_SEQPACKET.
    pub const SEQPACKET: u32 = 3;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &["stream", "dgram", "seqpacket"];
}

/// Values of [`UnixSocket::role`].
pub mod socket_role {
    /// A file of the tree refers to it.
    pub const OPEN: u32 = 1;
    /// A connection that waits to be accepted.
    pub const PENDING: u32 = 2;
    /// It is gone: its peer and what it has sent are left.
    pub const GONE: u32 = 3;
}

/// Values of [`UnixSocket::state`].
pub mod socket_state {
    /// Not connected.
    pub const CLOSED: u32 = 0;
    /// Connected.
    pub const CONNECTED: u32 = 1;
    /// It listens.
    pub const LISTENING: u32 = 2;
}

bits! {
    /// Bits of [`UnixSocket::flags`].
    pub mod socket_flags {
        /// SO_PASSCRED.
        PASSCRED = 0,
        /// SO_PASSPIDFD.
        PASSPIDFD = 1,
        /// SO_PASSSEC.
        PASSSEC = 2,
        /// SO_PASSRIGHTS is off.
        NO_RIGHTS = 3,
        /// SO_INQ.
        INQ = 4,
        /// SO_RIGHTS_NOTRUNC.
        RIGHTS_NOTRUNC = 5,
        /// SO_OOBINLINE.
        OOBINLINE = 6,
        /// SO_REUSEADDR.
        REUSEADDR = 7,
        /// SO_KEEPALIVE.
        KEEPALIVE = 8,
        /// SO_BROADCAST.
        BROADCAST = 9,
        /// SO_DONTROUTE.
        DONTROUTE = 10,
        /// SO_LINGER, with the time in `linger`.
        LINGER = 11,
        /// SO_TIMESTAMP.
        TIMESTAMP = 12,
        /// SO_TIMESTAMPNS.
        TIMESTAMPNS = 13,
        /// SO_TIMESTAMP with 64-bit seconds.
        TIMESTAMP_NEW = 14,
        /// SO_TIMESTAMPNS with 64-bit seconds.
        TIMESTAMPNS_NEW = 15,
        /// `sndbuf` was set.
        SNDBUF = 16,
        /// `rcvbuf` was set.
        RCVBUF = 17,
        /// SO_PEERCRED is known: `peer_pid`, `peer_uid` and `peer_gid`.
        PEERCRED = 18,
        /// Others find the socket by its name.
        BOUND = 19,
        /// It cannot receive any more.
        SHUT_RD = 20,
        /// It cannot send any more.
        SHUT_WR = 21,
    }
}

layout! {
    /// A unix socket, and the open file that it is if it is open. The tail is its name, as in
    /// sun_path, with the NUL of a path; then, if it is bound in the file system, the absolute path.
    pub struct UnixSocket {
        /// 1 stream, 2 dgram, 3 seqpacket.
        pub socket_type: U32 => Check::Range(1, 3),
        /// 1 open, 2 a connection that waits to be accepted, 3 gone.
        pub role: U32 => Check::Range(1, 3),
        /// 0 not connected, 1 connected, 2 listening.
        pub state: U32 => Check::Range(0, 2),
        /// Bits of `socket_flags`.
        pub flags: U32 => Check::Bits(socket_flags::ALL),
        /// How many connections or messages may wait.
        pub backlog: U32,
        /// Number of the pending error, as errno(3) has it on x86-64, or 0.
        pub err: U32 => Check::Range(0, 4095),
        /// Bytes that may be on their way.
        pub sndbuf: U32,
        /// Bytes that may wait.
        pub rcvbuf: U32,
        /// SO_RCVTIMEO in nanoseconds; all ones for none.
        pub rcvtimeo_ns: U64,
        /// SO_SNDTIMEO in nanoseconds; all ones for none.
        pub sndtimeo_ns: U64,
        /// SO_RCVLOWAT.
        pub rcvlowat: U32 => Check::Range(1, i32::MAX as u32),
        /// SO_PEEK_OFF, negative when it is off.
        pub peek_off: I32,
        /// SO_PRIORITY.
        pub priority: U32 => Check::Range(0, i32::MAX as u32),
        /// SO_LINGER in seconds.
        pub linger: U32,
        /// Process of the peer, 0 if it cannot be seen.
        pub peer_pid: I32 => Check::Range(0, 0x3fff_ffff),
        /// Effective user of the peer.
        pub peer_uid: U32,
        /// Effective group of the peer.
        pub peer_gid: U32,
        /// Type and permissions of the socket in the file system.
        pub mode: U16,
        /// Type and permissions as fstat(2) has them, if it is open.
        pub file_mode: U16,
        /// Length of the name.
        pub name_len: U32 => Check::Range(0, 109),
        /// Length of name and path.
        pub tail_len: U32,
        /// Bits of `file_flags`, if it is open.
        pub file_flags: U32 => Check::Bits(file_flags::ALL),
        /// Id of an earlier UnixSocket to which it is connected, as that is to it, or 0.
        pub mate: U32 => Check::IdOrNone(&[Kind::UnixSocket]),
    }
}

record!(
    UnixSocket,
    object: true,
    tail: Tail::Bytes(core::mem::offset_of!(UnixSocket, tail_len)),
    check: |socket, tail| {
        let Some((name, path)) = socket.split(tail) else {
            return Err("the name is longer than the tail");
        };
        let abstracted = name.first() == Some(&0);
        let bound = socket.flags.get() & socket_flags::BOUND != 0;
        let nuls = name.iter().filter(|byte| **byte == 0).count();
        if !name.is_empty() && !abstracted && (nuls != 1 || !name.ends_with(&[0])) {
            return Err("the name is no name");
        }
        if bound && name.is_empty() {
            return Err("it is bound without a name");
        }
        if path.is_empty() == (bound && !abstracted) {
            return Err("it has a path, and is not bound there, or has none");
        }
        if !path.is_empty() && (!path.starts_with(b"/") || path.contains(&0)) {
            return Err("the path is not absolute");
        }
        if path.len() >= 4096 {
            return Err("the path is too long");
        }
        let open = socket.role.get() == socket_role::OPEN;
        if !open && (socket.file_flags.get() != 0 || socket.file_mode.get() != 0) {
            return Err("it is not open, and says how");
        }
        Ok(())
    }
);

impl UnixSocket {
    /// Splits the tail of the record into name and path.
    pub fn split<'a>(&self, tail: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        tail.split_at_checked(usize::try_from(self.name_len.get()).ok()?)
    }
}

layout! {
    /// A socket sends to another that does not send back: between dgram sockets, or to one that is
    /// gone.
    pub struct UnixLink {
        /// Id of the UnixSocket.
        pub socket: U32 => Check::Id(&[Kind::UnixSocket]),
        /// Id of the UnixSocket that it sends to.
        pub peer: U32 => Check::Id(&[Kind::UnixSocket]),
    }
}

record!(UnixLink, object: false, tail: Tail::None);

layout! {
    /// A connection waits to be accepted; those of one listener are in their order.
    pub struct UnixPending {
        /// Id of the UnixSocket that listens.
        pub listener: U32 => Check::Id(&[Kind::UnixSocket]),
        /// Id of the UnixSocket that accept(2) returns.
        pub socket: U32 => Check::Id(&[Kind::UnixSocket]),
    }
}

record!(UnixPending, object: false, tail: Tail::None);

bits! {
    /// Bits of [`UnixMessage::flags`].
    pub mod message_flags {
        /// The credentials of the sender are there.
        CREDS = 0,
        /// It is out of band.
        OOB = 1,
        /// It has been read, and marks where a byte out of band was.
        READ = 2,
    }
}

layout! {
    /// A message in the queue of a socket, or bytes of a stream; those of one socket are in their
    /// order. The tail is an array of FileRef, the files that come with it, then the data.
    pub struct UnixMessage {
        /// Id of the UnixSocket that receives it.
        pub socket: U32 => Check::Id(&[Kind::UnixSocket]),
        /// Id of the UnixSocket that it came from.
        pub sender: U32 => Check::Id(&[Kind::UnixSocket]),
        /// Bits of `message_flags`.
        pub flags: U32 => Check::Bits(message_flags::ALL),
        /// Process of the sender, 0 if it cannot be seen.
        pub pid: I32 => Check::Range(0, 0x3fff_ffff),
        /// User of the sender.
        pub uid: U32,
        /// Group of the sender.
        pub gid: U32,
        /// When it came, in nanoseconds since 1970, or 0.
        pub stamp_ns: I64,
        /// Number of files.
        pub files: U32 => Check::Range(0, 253),
        /// Bytes of data.
        pub bytes: U32 => Check::Range(0, 8 << 20),
    }
}

layout! {
    /// A file in a message.
    pub struct FileRef {
        /// Id of the open file.
        pub file: U32 => Check::Id(OPEN_FILES),
    }
}

record!(
    UnixMessage,
    object: false,
    tail: Tail::ItemsAndBytes(
        Item::FileRef,
        core::mem::offset_of!(UnixMessage, files),
        core::mem::offset_of!(UnixMessage, bytes),
    ),
    check: |message, _| {
        let flags = message.flags.get();
        let single = flags & (message_flags::OOB | message_flags::READ) != 0;
        if single && message.bytes.get() != 1 {
            return Err("what is out of band is one byte");
        }
        Ok(())
    }
);

impl UnixMessage {
    /// Splits the tail of the record into files and data.
    pub fn split<'a>(&self, tail: &'a [u8]) -> Option<(&'a [FileRef], &'a [u8])> {
        let count = usize::try_from(self.files.get()).ok()?;
        <[FileRef]>::ref_from_prefix_with_elems(tail, count).ok()
    }
}
