// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The records: one struct a kind, in the file of what it belongs to.

use core::fmt;

use super::layout::{
    row,
    Field,
    KindInfo,
    Layout,
    Record,
    Rules, //
};

mod attributes;
mod event;
mod file;
mod machine;
mod memory;
mod process;
mod seccomp;
mod signal;
mod socket;
mod stream;
mod timer;
mod tty;
mod uring;
mod usage;

pub use self::{
    attributes::*,
    event::*,
    file::*,
    machine::*,
    memory::*,
    process::*,
    seccomp::*,
    signal::*,
    socket::*,
    stream::*,
    timer::*,
    tty::*,
    uring::*,
    usage::*, //
};

/// Declares the kinds: the enum and the table, from one list.
///
/// What describes the format for people is inline: who does not call it, as the kernel, does not
/// carry its tables.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal,)*) => {
        /// What a record is about. The numbers are the format's and never change.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[doc = $doc])* $name = $number,)*
        }

        impl Kind {
            /// Returns the kind of this number.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Returns the number of the kind.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// Returns the name of the kind.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Returns the description of the kind's records.
            pub const fn info(self) -> &'static KindInfo {
                match self {
                    $(Self::$name => const { &row::<$name>() },)*
                }
            }

            /// Returns what its records are, by lines.
            #[inline]
            pub const fn doc(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => <$name as Layout>::DOC,)*
                }
            }

            /// Returns the fields of the fixed part of its records.
            #[inline]
            pub const fn fields(self) -> &'static [Field] {
                match self {
                    $(Self::$name => <$name as Layout>::FIELDS,)*
                }
            }

            /// Returns what these mean, by lines.
            #[inline]
            pub const fn field_docs(self) -> &'static [&'static [&'static str]] {
                match self {
                    $(Self::$name => <$name as Layout>::DOCS,)*
                }
            }
        }

        /// All kinds of this version, in the order of their numbers.
        pub const KINDS: &[Kind] = &[$(Kind::$name,)*];
    };
}

/// Declares the types of items in tails, from one list.
macro_rules! items {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What an array in a tail consists of.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Item {
            $($(#[doc = $doc])* $name,)*
        }

        impl Item {
            /// Returns the name of the type.
            #[inline]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Returns the size of one in bytes.
            pub const fn size(self) -> usize {
                match self {
                    $(Self::$name => size_of::<$name>(),)*
                }
            }

            /// Returns what its fields have to be.
            pub const fn rules(self) -> Rules {
                match self {
                    $(Self::$name => <$name as Layout>::RULES,)*
                }
            }

            /// Returns its fields.
            #[inline]
            pub const fn fields(self) -> &'static [Field] {
                match self {
                    $(Self::$name => <$name as Layout>::FIELDS,)*
                }
            }
        }
    };
}

items! {
    /// A packet in a pipe.
    Packet,
    /// A descriptor.
    Fd,
    /// A file in a message.
    FileRef,
    /// What an epoll instance watches.
    EpollItem,
    /// An event of asynchronous I/O.
    AioEvent,
    /// A mapping.
    Vma,
    /// A guard region.
    Guard,
    /// A group.
    Group,
    /// An instruction of a filter.
    SeccompInsn,
    /// What a signal does.
    Action,
    /// A pending signal.
    Siginfo,
    /// A timer.
    Timer,
    /// A user of a ring.
    UringUser,
    /// Pages that follow one another.
    Extent,
    /// Pages in common.
    Share,
}

kinds! {
    /// The machine that the tree ran on.
    Machine = 1,
    /// An open regular file.
    FileRegular = 2,
    /// An open directory.
    FileDirectory = 3,
    /// An open character device, such as /dev/null.
    FileDevice = 4,
    /// A pipe or fifo with what is buffered in it.
    Pipe = 5,
    /// An open pipe or fifo.
    FilePipe = 6,
    /// An open file whose other side is outside the tree, to be supplied at the restart.
    FileExternal = 7,
    /// Shared anonymous memory.
    Shmem = 8,
    /// An address space.
    Mm = 9,
    /// Mappings of an address space.
    Vmas = 10,
    /// Working directory and umask.
    Fs = 11,
    /// A table of file descriptors.
    Files = 12,
    /// Signal actions.
    Sighand = 13,
    /// A process: what its threads share.
    Process = 14,
    /// A task: one thread of a process.
    Task = 15,
    /// General registers of a task.
    Registers = 16,
    /// One component of the extended registers of a task.
    Xstate = 17,
    /// Pending signals of a task or of a process.
    Signals = 18,
    /// Credentials.
    Cred = 19,
    /// A pidfd.
    FilePidfd = 20,
    /// POSIX timers of a process.
    Timers = 32,
    /// CPU time and resource usage of a task.
    Usage = 33,
    /// The same of a process: of its threads that have ended, and of its children.
    ProcessUsage = 34,
    /// A seccomp filter.
    SeccompFilter = 35,
    /// Which system calls a task makes itself.
    Dispatch = 36,
    /// Deadlines and the like of a task.
    Scheduling = 37,
    /// Options of the address space of a process.
    MmOptions = 38,
    /// A unix socket.
    UnixSocket = 56,
    /// A socket is connected to another.
    UnixLink = 58,
    /// A connection that waits to be accepted.
    UnixPending = 59,
    /// A message in the queue of a socket.
    UnixMessage = 60,
    /// An eventfd.
    FileEventfd = 40,
    /// An epoll instance.
    FileEpoll = 41,
    /// What an epoll instance watches.
    EpollItems = 42,
    /// A timerfd.
    FileTimerfd = 43,
    /// A signalfd.
    FileSignalfd = 44,
    /// An inotify instance.
    FileInotify = 45,
    /// An event that was not read from an inotify instance.
    InotifyEvent = 46,
    /// What an inotify instance watches.
    InotifyWatch = 47,
    /// A task that has been reaped, of which there are pidfds.
    ReapedTask = 48,
    /// A fanotify group.
    FileFanotify = 52,
    /// What a fanotify group watches.
    FanotifyMark = 53,
    /// A regular file without a name, such as an unlinked one or a memfd.
    Unnamed = 72,
    /// An open file without a name.
    FileUnnamed = 73,
    /// A lock or lease of a file.
    Lock = 74,
    /// Who gets signals about an open file.
    Owner = 75,
    /// A pseudo terminal.
    Pty = 76,
    /// What one end of a pseudo terminal has received.
    TtyQueue = 77,
    /// An open end of a pseudo terminal.
    FileTty = 78,
    /// The controlling terminal of a process.
    ControllingTty = 79,
    /// An open file or directory of procfs.
    FileProc = 80,
    /// An io_uring.
    FileUring = 81,
    /// The state of an io_uring.
    UringState = 82,
    /// Memory of an io_uring.
    UringMemory = 83,
    /// An open file of a namespace.
    FileNamespace = 84,
    /// A name of anonymous memory.
    AnonName = 88,
    /// A NUMA policy.
    MemPolicy = 89,
    /// Guard regions of an address space.
    Guards = 90,
    /// Huge pages.
    Hugetlb = 91,
    /// A context of asynchronous I/O.
    AioContext = 94,
    /// A run of memory pages; their data follows the record.
    Pages = 0x100,
    /// Pages that an address space has in common with others, copy-on-write.
    Shared = 0x101,
    /// The end of the plan.
    PlanEnd = 0x7ffe,
    /// The end of the image.
    Trailer = 0x7fff,
}

impl Kind {
    /// Whether records of the kind belong into the plan.
    pub const fn in_plan(self) -> bool {
        !matches!(self, Self::Pages | Self::Shared | Self::Trailer)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The kinds of open files.
pub const OPEN_FILES: &[Kind] = &[
    Kind::FileRegular,
    Kind::FileDirectory,
    Kind::FileDevice,
    Kind::FilePipe,
    Kind::FileExternal,
    Kind::FilePidfd,
    Kind::UnixSocket,
    Kind::FileEventfd,
    Kind::FileEpoll,
    Kind::FileTimerfd,
    Kind::FileSignalfd,
    Kind::FileInotify,
    Kind::FileFanotify,
    Kind::FileUnnamed,
    Kind::FileTty,
    Kind::FileProc,
    Kind::FileUring,
    Kind::FileNamespace,
];
