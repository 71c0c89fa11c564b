// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Pseudo terminals.

use zerocopy::little_endian::{
    I32,
    U16,
    U32, //
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
    Kind, //
};

bits! {
    /// Bits of [`Pty::flags`].
    pub mod pty_flags {
        /// The master was closed: what is open to the slave is dead. Of the rest of the record only
        /// the number counts.
        HUNG_UP = 0,
        /// The slave cannot be opened: TIOCSPTLCK.
        LOCKED = 1,
        /// Packet mode of the master: TIOCPKT.
        PACKET = 2,
        /// TIOCEXCL of the master.
        MASTER_EXCLUSIVE = 3,
        /// The master sends nothing.
        MASTER_STOPPED = 4,
        /// By TCOOFF.
        MASTER_STOPPED_BY_CALL = 5,
        /// The slave was open and has been closed.
        SLAVE_CLOSED = 6,
        /// TIOCEXCL of the slave.
        SLAVE_EXCLUSIVE = 7,
        /// The slave sends nothing.
        SLAVE_STOPPED = 8,
        /// By TCOOFF.
        SLAVE_STOPPED_BY_CALL = 9,
    }
}

layout! {
    /// Settings of a terminal, with the bits that Linux has for x86-64 in termbits.h.
    pub struct Termios {
        /// c_iflag.
        pub iflag: U32,
        /// c_oflag.
        pub oflag: U32,
        /// c_cflag.
        pub cflag: U32,
        /// c_lflag.
        pub lflag: U32,
        /// c_ispeed.
        pub ispeed: U32,
        /// c_ospeed.
        pub ospeed: U32,
        /// c_cc, the last zero.
        pub cc: [u8; 20],
    }
}

layout! {
    /// A pseudo terminal. The tail is the absolute path of the device that made it.
    pub struct Pty {
        /// Its number.
        pub index: U32 => Check::Range(0, 0xfffff),
        /// Bits of `pty_flags`.
        pub flags: U32 => Check::Bits(pty_flags::ALL),
        /// What a read of the master in packet mode returns first: bits TIOCPKT_*.
        pub pktstatus: U32 => Check::Bits(0x7f),
        /// Type and permissions of the slave's node.
        pub mode: U32,
        /// Owner of the slave's node.
        pub uid: U32,
        /// Group of the slave's node.
        pub gid: U32,
        /// The session whose controlling terminal it is, 0 for none.
        pub session: I32 => Check::Range(0, 0x3fff_ffff),
        /// The foreground group, 0 for none.
        pub pgrp: I32 => Check::Range(0, 0x3fff_ffff),
        /// Rows of the window.
        pub rows: U16,
        /// Columns of the window.
        pub columns: U16,
        /// Width of the window in pixels.
        pub xpixel: U16,
        /// Height of the window in pixels.
        pub ypixel: U16,
        /// Settings.
        pub termios: Termios,
        /// Settings that are locked: TIOCSLCKTRMIOS.
        pub locked: Termios,
    }
}

record!(Pty, object: true, tail: Tail::Path);

bits! {
    /// Bits of [`TtyQueue::flags`].
    pub mod queue_flags {
        /// It is the slave's, else the master's.
        SLAVE = 0,
        /// The next character is taken as it is.
        LNEXT = 1,
        /// An erasure is being shown.
        ERASING = 2,
        /// A reader gets the rest although it is no line.
        PUSH = 3,
    }
}

layout! {
    /// What one end of a pty has received. The tail is the input, a bit for each byte of it, least
    /// significant first, which is set where a line ends, the echoes, and the bytes that come after
    /// the input and found no room.
    pub struct TtyQueue {
        /// Id of the Pty.
        pub pty: U32 => Check::Id(&[Kind::Pty]),
        /// Bits of `queue_flags`.
        pub flags: U32 => Check::Bits(queue_flags::ALL),
        /// Length of the tail in bytes.
        pub len: U32 => Check::Range(0, 0x40000),
        /// Bytes of input.
        pub read: U32 => Check::Range(0, 4096),
        /// How many of them a reader may have that does not read lines.
        pub commit: U32 => Check::Range(0, 4096),
        /// How many of them are whole lines.
        pub canon: U32 => Check::Range(0, 4096),
        /// Bytes of echoes: characters, and operations of the line discipline.
        pub echo: U32 => Check::Range(0, 4096),
        /// How many of them may go.
        pub echo_commit: U32 => Check::Range(0, 4096),
        /// The end of the last that belong together.
        pub echo_mark: U32 => Check::Range(0, 4096),
        /// Column of the cursor.
        pub column: U32,
        /// Column at the start of the line.
        pub canon_column: U32,
        /// Bytes that found no room.
        pub flip: U32 => Check::Range(0, 0x20000),
    }
}

record!(
    TtyQueue,
    object: false,
    tail: Tail::Bytes(core::mem::offset_of!(TtyQueue, len)),
    check: |queue, tail| {
        let (read, echo) = (queue.read.get(), queue.echo.get());
        if queue.commit.get() > read
            || queue.canon.get() > read
            || queue.echo_commit.get() > echo
            || queue.echo_mark.get() > echo
        {
            return Err("a position past the end");
        }
        if queue.split(tail).is_none() {
            return Err("the parts of the tail do not add up");
        }
        Ok(())
    }
);

impl TtyQueue {
    /// Splits the tail of the record.
    pub fn split<'a>(&self, tail: &'a [u8]) -> Option<Received<'a>> {
        let read = usize::try_from(self.read.get()).ok()?;
        let echo = usize::try_from(self.echo.get()).ok()?;
        let flip = usize::try_from(self.flip.get()).ok()?;
        let (input, rest) = tail.split_at_checked(read)?;
        let (marks, rest) = rest.split_at_checked(read.div_ceil(8))?;
        let (echo, rest) = rest.split_at_checked(echo)?;
        (rest.len() == flip).then_some(Received {
            input,
            marks,
            echo,
            rest,
        })
    }
}

/// The tail of a [`TtyQueue`].
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// What was received.
    pub input: &'a [u8],
    /// A bit for each byte of `input`, set where a line ends.
    pub marks: &'a [u8],
    /// Echoes that wait for room.
    pub echo: &'a [u8],
    /// What comes after `input` and found no room.
    pub rest: &'a [u8],
}

/// Values of [`FileTty::end`].
pub mod tty_end {
    /// The master.
    pub const MASTER: u32 = 1;
    /// The slave.
    pub const SLAVE: u32 = 2;
    /// The slave, opened as /dev/tty.
    pub const CURRENT: u32 = 3;
}

layout! {
    /// An open end of a pty. The tail is its absolute path.
    pub struct FileTty {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Which end: 1 the master, 2 the slave, 3 the slave, opened as /dev/tty.
        pub end: U32 => Check::Range(1, 3),
        /// Id of the Pty.
        pub pty: U32 => Check::Id(&[Kind::Pty]),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
    }
}

record!(FileTty, object: true, tail: Tail::Path);

layout! {
    /// The controlling terminal of a process.
    pub struct ControllingTty {
        /// Id of the Process.
        pub process: U32 => Check::Id(&[Kind::Process]),
        /// Id of the Pty.
        pub pty: U32 => Check::Id(&[Kind::Pty]),
    }
}

record!(ControllingTty, object: false, tail: Tail::None);
