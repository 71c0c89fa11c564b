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
        ArrayRecord,
        Check,
        Field,
        IdRule,
        Layout,
        Record,
        Rule,
        Rules,
        Tail, //
    },
    Item,
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
        /// O_TMPFILE, which F_GETFL shows.
        TMPFILE = 17,
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
        /// Id of its contents, which are to take its place where it is missing or has changed, or 0.
        pub contents: U32 => Check::IdOrNone(&[Kind::Unnamed]),
        /// Zero.
        pub reserved: [u8; 8] => Check::Zero,
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

record!(
    Pipe,
    object: true,
    tail: Tail::ItemsAndBytes(
        Item::Packet,
        core::mem::offset_of!(Pipe, packets),
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

layout! {
    /// An open file or directory of procfs, of a task of the tree or of none, or one of sysfs or a
    /// control group that is not open for writing. The tail is its absolute path.
    pub struct FileProc {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Position as lseek(2) has it.
        pub pos: I64,
    }
}

record!(FileProc, object: true, tail: Tail::Path);

/// Values of [`FileNamespace::kind`].
pub mod namespace_kind {
    /// A mount namespace.
    pub const MOUNT: u32 = 1;
    /// A UTS namespace.
    pub const UTS: u32 = 2;
    /// An IPC namespace.
    pub const IPC: u32 = 3;
    /// A pid namespace.
    pub const PID: u32 = 4;
    /// A user namespace.
    pub const USER: u32 = 5;
    /// A network namespace.
    pub const NET: u32 = 6;
    /// A cgroup namespace.
    pub const CGROUP: u32 = 7;
    /// A time namespace.
    pub const TIME: u32 = 8;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &[
        "mount", "uts", "ipc", "pid", "user", "network", "cgroup", "time",
    ];
}

layout! {
    /// An open file of a namespace that the tree is in, as those of /proc/PID/ns are: after a restart,
    /// of the one of this kind that it is in then. The tail is the absolute path where it was mounted
    /// and opened, and empty for one of procfs.
    pub struct FileNamespace {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Its kind: 1 mount, 2 UTS, 3 IPC, 4 pid, 5 user, 6 network, 7 cgroup, 8 time.
        pub kind: U32 => Check::Range(1, 8),
    }
}

record!(FileNamespace, object: true, tail: Tail::PathOrNone);

/// Values of [`Unnamed::kind`].
pub mod unnamed {
    /// A file that was unlinked, or had no name from the beginning (O_TMPFILE).
    pub const UNLINKED: u32 = 1;
    /// What memfd_create(2) makes.
    pub const MEMFD: u32 = 2;
    /// What is in a file that has a name, and that the image takes along.
    pub const CONTENTS: u32 = 3;
}

bits! {
    /// Bits of [`Unnamed::flags`].
    pub mod unnamed_flags {
        /// It may get a name: opened with O_TMPFILE and without O_EXCL.
        LINKABLE = 0,
    }
}

bits! {
    /// Bits of [`Unnamed::seals`].
    pub mod seals {
        /// F_SEAL_SEAL.
        SEAL = 0,
        /// F_SEAL_SHRINK.
        SHRINK = 1,
        /// F_SEAL_GROW.
        GROW = 2,
        /// F_SEAL_WRITE.
        WRITE = 3,
        /// F_SEAL_FUTURE_WRITE.
        FUTURE_WRITE = 4,
        /// F_SEAL_EXEC.
        EXEC = 5,
    }
}

layout! {
    /// A regular file without a name. Its pages come in chunks with its id, at byte offsets; what is
    /// in no chunk is a hole, and what the last page has past the size is zero. The tail is the
    /// absolute path of a directory of its file system, the name of a memfd, or the last component of
    /// the path of a file that has one.
    pub struct Unnamed {
        /// Size in bytes.
        pub size: U64,
        /// What it is: 1 an unlinked file, 2 a memfd, 3 the contents of a file that has a name.
        pub kind: U32 => Check::Range(1, 3),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
        /// Owner.
        pub uid: U32,
        /// Group.
        pub gid: U32,
        /// Bits of `unnamed_flags`.
        pub flags: U32 => Check::Bits(unnamed_flags::ALL),
        /// Bits of `seals`, of a memfd.
        pub seals: U32 => Check::Bits(seals::ALL),
        /// Time of the last access: seconds.
        pub atime_sec: I64,
        /// Time of the last change of the contents: seconds.
        pub mtime_sec: I64,
        /// Time of the last access: nanoseconds.
        pub atime_nsec: U32 => Check::Range(0, 999_999_999),
        /// Time of the last change of the contents: nanoseconds.
        pub mtime_nsec: U32 => Check::Range(0, 999_999_999),
    }
}

record!(Unnamed, object: true, tail: Tail::Text, check: |file, tail| {
    if file.size.get() > 1 << 62 {
        return Err("impossible size");
    }
    if file.kind.get() == unnamed::UNLINKED && (!tail.starts_with(b"/") || file.seals.get() != 0) {
        return Err("an unlinked file without a directory, or with seals");
    }
    if file.kind.get() != unnamed::UNLINKED && file.flags.get() != 0 {
        return Err("flags of an unlinked file");
    }
    if file.kind.get() == unnamed::CONTENTS && file.seals.get() != 0 {
        return Err("contents with seals");
    }
    Ok(())
});

layout! {
    /// An open file without a name.
    pub struct FileUnnamed {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Id of the Unnamed.
        pub object: U32 => Check::Id(&[Kind::Unnamed]),
        /// Position in bytes.
        pub pos: I64,
    }
}

record!(FileUnnamed, object: true, tail: Tail::None, check: |file, _| {
    if file.pos.get() < 0 {
        return Err("negative position");
    }
    Ok(())
});

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
    /// A pidfd of a task of the tree, or of one that has been reaped.
    pub struct FilePidfd {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Number of the task, as gettid(2) returns it, or 0.
        pub pid: I32 => Check::Range(0, 0x3fff_ffff),
        /// Bits of `pidfd_flags`.
        pub pidfd_flags: U32 => Check::Bits(pidfd_flags::ALL),
        /// Id of the ReapedTask, or 0: exactly one of the two is given.
        pub reaped: U32 => Check::IdOrNone(&[Kind::ReapedTask]),
    }
}

record!(FilePidfd, object: true, tail: Tail::None, check: |file, _| {
    if (file.pid.get() == 0) == (file.reaped.get() == 0) {
        return Err("a pidfd is of either a task or one that was reaped");
    }
    Ok(())
});

bits! {
    /// Bits of [`ReapedTask::flags`].
    pub mod reaped_flags {
        /// How it ended is known.
        EXITED = 0,
        /// It has dumped core, or would have.
        COREDUMPED = 1,
    }
}

layout! {
    /// A task that has been reaped, of which there are pidfds. They tell how it ended.
    pub struct ReapedTask {
        /// Bits of `reaped_flags`.
        pub flags: U32 => Check::Bits(reaped_flags::ALL),
        /// Its status as wait(2) has it.
        pub exit_code: I32,
        /// The id of the cgroup that it was in.
        pub cgroup: U64,
        /// PIDFD_COREDUMP_* of the core dump.
        pub coredump_mask: U32,
        /// The signal that it died of.
        pub coredump_signal: U32,
        /// si_code of that signal.
        pub coredump_code: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(ReapedTask, object: true, tail: Tail::None);

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

/// Values of [`Lock::kind`].
pub mod lock_kind {
    /// A POSIX lock, which a table of descriptors has.
    pub const POSIX: u32 = 1;
    /// An OFD lock, which an open file has.
    pub const OFD: u32 = 2;
    /// A lock of flock(2), which an open file has.
    pub const FLOCK: u32 = 3;
    /// A lease, which an open file has.
    pub const LEASE: u32 = 4;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &["posix", "ofd", "flock", "lease"];
}

/// Values of [`Lock::ty`].
pub mod lock_type {
    /// F_RDLCK, LOCK_SH: shared.
    pub const READ: u32 = 1;
    /// F_WRLCK, LOCK_EX: exclusive.
    pub const WRITE: u32 = 2;
}

layout! {
    /// A lock or lease of a file that is open in the tree.
    pub struct Lock {
        /// What it is: 1 a POSIX lock, 2 an OFD lock, 3 a lock of flock(2), 4 a lease.
        pub kind: U32 => Check::Range(1, 4),
        /// 1 for reading (shared), 2 for writing (exclusive).
        pub ty: U32 => Check::Range(1, 2),
        /// Id of the open file.
        pub file: U32 => Check::Id(OPEN_FILES),
        /// Id of the Files that has it (kind 1), else 0.
        pub files: U32 => Check::IdOrNone(&[Kind::Files]),
        /// First byte.
        pub start: I64,
        /// Last byte, the largest number for all to come.
        pub end: I64,
        /// The descriptor that signals about a lease name.
        pub fd: U32 => Check::Range(0, 0x3fff_ffff),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(Lock, object: false, tail: Tail::None, check: |lock, _| {
    if (lock.kind.get() == lock_kind::POSIX) != (lock.files.get() != 0) {
        return Err("a POSIX lock and its table do not match");
    }
    if lock.start.get() < 0 || lock.end.get() < lock.start.get() {
        return Err("impossible range");
    }
    Ok(())
});

/// Values of [`Owner::kind`].
pub mod owner_kind {
    /// One thread: F_OWNER_TID.
    pub const TASK: u32 = 1;
    /// A process: F_OWNER_PID.
    pub const PROCESS: u32 = 2;
    /// A process group: F_OWNER_PGRP.
    pub const GROUP: u32 = 3;
}

bits! {
    /// Bits of [`Owner::flags`].
    pub mod owner_flags {
        /// O_ASYNC.
        ASYNC = 0,
    }
}

layout! {
    /// Who gets signals about an open file: F_SETOWN_EX, F_SETSIG, O_ASYNC.
    pub struct Owner {
        /// Id of the open file.
        pub file: U32 => Check::Id(OPEN_FILES),
        /// Bits of `owner_flags`.
        pub flags: U32 => Check::Bits(owner_flags::ALL),
        /// What `pid` is: 1 a thread, 2 a process, 3 a process group.
        pub kind: U32 => Check::Range(1, 3),
        /// Number of the thread, process or group, 0 for none.
        pub pid: I32 => Check::Range(0, 0x3fff_ffff),
        /// F_SETSIG.
        pub signum: U32 => Check::Range(0, 64),
        /// The user whose rights count for these signals.
        pub uid: U32,
        /// The effective one.
        pub euid: U32,
        /// The descriptor that these signals name.
        pub fd: U32 => Check::Range(0, 0x3fff_ffff),
    }
}

record!(Owner, object: false, tail: Tail::None);

record!(
    Files,
    object: true,
    tail: Tail::Items(Item::Fd, core::mem::offset_of!(Files, count)),
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
