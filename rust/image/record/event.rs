// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Descriptors that tell events: eventfd, timerfd, signalfd, epoll, inotify, fanotify.

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
    file_flags,
    Item,
    Kind,
    OPEN_FILES, //
};

layout! {
    /// An eventfd.
    pub struct FileEventfd {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// 1 if a read takes 1 from the counter, as from a semaphore, 0 if it takes all of it.
        pub semaphore: U32 => Check::Range(0, 1),
        /// The counter.
        pub count: U64,
    }
}

record!(FileEventfd, object: true, tail: Tail::None);

layout! {
    /// A signalfd. What it returns is what is pending for who reads it.
    pub struct FileSignalfd {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// The signals that it takes, bit n-1 for signal n.
        pub mask: U64,
    }
}

record!(FileSignalfd, object: true, tail: Tail::None);

/// Values of [`FileTimerfd::clock`].
pub mod timerfd_clock {
    /// CLOCK_REALTIME.
    pub const REALTIME: u32 = 1;
    /// CLOCK_MONOTONIC.
    pub const MONOTONIC: u32 = 2;
    /// CLOCK_BOOTTIME.
    pub const BOOTTIME: u32 = 3;
    /// CLOCK_REALTIME_ALARM.
    pub const REALTIME_ALARM: u32 = 4;
    /// CLOCK_BOOTTIME_ALARM.
    pub const BOOTTIME_ALARM: u32 = 5;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &[
        "realtime",
        "monotonic",
        "boottime",
        "realtime-alarm",
        "boottime-alarm",
    ];
}

/// Values of [`FileTimerfd::state`].
pub mod timerfd_state {
    /// It was not set, or has expired for good.
    pub const IDLE: u32 = 0;
    /// It is going to expire.
    pub const ARMED: u32 = 1;
    /// It has expired, and was not read since. With an interval it has expired several times by the
    /// time it is read.
    pub const EXPIRED: u32 = 2;
}

bits! {
    /// Bits of [`FileTimerfd::timer_flags`].
    pub mod timerfd_flags {
        /// TFD_TIMER_ABSTIME: it was set to a point in time.
        ABSTIME = 0,
        /// TFD_TIMER_CANCEL_ON_SET.
        CANCEL_ON_SET = 1,
        /// Its clock was set, which the next read tells.
        CANCELED = 2,
    }
}

layout! {
    /// A timerfd.
    pub struct FileTimerfd {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// The clock: 1 realtime, 2 monotonic, 3 boottime, 4 realtime alarm, 5 boottime alarm.
        pub clock: U32 => Check::Range(1, 5),
        /// Bits of `timerfd_flags`.
        pub timer_flags: U32 => Check::Bits(timerfd_flags::ALL),
        /// 0 idle, 1 armed, 2 expired and not read since.
        pub state: U32 => Check::Range(0, 2),
        /// The interval in nanoseconds, or 0.
        pub interval_ns: I64,
        /// How many times it has expired since the last read.
        pub ticks: U64,
        /// When it expires next, or, if it is expired, did last: in nanoseconds on its clock, as the
        /// tree saw it, with ABSTIME; otherwise from the checkpoint on. 0 if it is idle.
        pub time_ns: I64,
    }
}

record!(FileTimerfd, object: true, tail: Tail::None, check: |timer, _| {
    use timerfd_flags::*;

    if timer.interval_ns.get() < 0 {
        return Err("negative interval of a timer");
    }
    let flags = timer.timer_flags.get();
    if timer.state.get() == timerfd_state::EXPIRED
        && flags & ABSTIME == 0
        && timer.time_ns.get() > 0
    {
        return Err("a timer expires later and has expired");
    }
    let clock = timer.clock.get();
    let is_real = clock == timerfd_clock::REALTIME || clock == timerfd_clock::REALTIME_ALARM;
    let may_be_canceled = is_real && flags & ABSTIME != 0 && flags & CANCEL_ON_SET != 0;
    if flags & CANCELED != 0 && !may_be_canceled {
        return Err("a timer that cannot be canceled was");
    }
    Ok(())
});

layout! {
    /// An epoll instance. What it watches is in records of EpollItems.
    pub struct FileEpoll {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// How long to poll network devices, in microseconds.
        pub busy_poll_usecs: U32 => Check::Range(0, 0x7fff_ffff),
        /// How many packets to take in one go, 0 for the default.
        pub busy_poll_budget: U32 => Check::Range(0, 0xffff),
        /// Whether polling is preferred over interrupts.
        pub prefer_busy_poll: U32 => Check::Range(0, 1),
    }
}

record!(FileEpoll, object: true, tail: Tail::None);

layout! {
    /// What an epoll instance watches, or a part of it: one instance may have several such records.
    /// They come after all open files. The tail is an array of EpollItem; what is ready is delivered
    /// in this order.
    pub struct EpollItems {
        /// Id of the FileEpoll.
        pub epoll: U32 => Check::Id(&[Kind::FileEpoll]),
        /// Number of items.
        pub count: U32,
    }
}

bits! {
    /// Bits of [`EpollItem::events`].
    pub mod epoll_events {
        /// EPOLLIN.
        IN = 0,
        /// EPOLLPRI.
        PRI = 1,
        /// EPOLLOUT.
        OUT = 2,
        /// EPOLLERR, which is always watched.
        ERR = 3,
        /// EPOLLHUP, which is always watched.
        HUP = 4,
        /// EPOLLRDNORM.
        RDNORM = 5,
        /// EPOLLRDBAND.
        RDBAND = 6,
        /// EPOLLWRNORM.
        WRNORM = 7,
        /// EPOLLWRBAND.
        WRBAND = 8,
        /// EPOLLMSG.
        MSG = 9,
        /// EPOLLRDHUP.
        RDHUP = 10,
        /// EPOLLEXCLUSIVE.
        EXCLUSIVE = 11,
        /// EPOLLWAKEUP.
        WAKEUP = 12,
        /// EPOLLONESHOT. Without EPOLLERR and EPOLLHUP it has told its one event.
        ONESHOT = 13,
        /// EPOLLET.
        ET = 14,
    }
}

bits! {
    /// Bits of [`EpollItem::flags`].
    pub mod epoll_item_flags {
        /// It is among those that epoll_wait(2) looks at next.
        READY = 0,
    }
}

layout! {
    /// A descriptor that an epoll instance watches.
    pub struct EpollItem {
        /// Id of the open file.
        pub file: U32 => Check::Id(OPEN_FILES),
        /// The descriptor by which it was added, which may be closed, or another file's now.
        pub fd: U32 => Check::Range(0, 0x7fff_ffff),
        /// Bits of `epoll_events`.
        pub events: U32 => Check::Bits(epoll_events::ALL),
        /// Bits of `epoll_item_flags`.
        pub flags: U32 => Check::Bits(epoll_item_flags::ALL),
        /// What epoll_wait(2) returns with an event.
        pub data: U64,
        /// Of a signalfd: id of the Sighand of the process that it tells about, which is the one that
        /// added it, or 0 if that has ended. Otherwise 0.
        pub sighand: U32 => Check::IdOrNone(&[Kind::Sighand]),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(
    EpollItems,
    object: false,
    tail: Tail::Items(Item::EpollItem, core::mem::offset_of!(EpollItems, count)),
    check: |_, tail| {
        use epoll_events::*;

        const ALWAYS: u32 = ERR | HUP;
        const HOW: u32 = EXCLUSIVE | WAKEUP | ONESHOT | ET;
        let items = <[EpollItem]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        let possible = |item: &EpollItem| {
            let events = item.events.get();
            let told = events & ONESHOT != 0 && events & !HOW == 0;
            events & ALWAYS == ALWAYS || told
        };
        if !items.iter().all(possible) {
            return Err("impossible events of an epoll instance");
        }
        Ok(())
    }
);

impl ArrayRecord for EpollItems {
    type Item = EpollItem;
}

layout! {
    /// An inotify instance. Its events and what it watches are records of their own.
    pub struct FileInotify {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// The number that the next watch gets, or the next one that is free; 0 before the first.
        pub next_wd: U32 => Check::Range(0, 0x7fff_ffff),
    }
}

record!(FileInotify, object: true, tail: Tail::None);

bits! {
    /// Bits of [`InotifyEvent::mask`] and [`InotifyWatch::mask`].
    pub mod inotify_mask {
        /// IN_ACCESS.
        ACCESS = 0,
        /// IN_MODIFY.
        MODIFY = 1,
        /// IN_ATTRIB.
        ATTRIB = 2,
        /// IN_CLOSE_WRITE.
        CLOSE_WRITE = 3,
        /// IN_CLOSE_NOWRITE.
        CLOSE_NOWRITE = 4,
        /// IN_OPEN.
        OPEN = 5,
        /// IN_MOVED_FROM.
        MOVED_FROM = 6,
        /// IN_MOVED_TO.
        MOVED_TO = 7,
        /// IN_CREATE.
        CREATE = 8,
        /// IN_DELETE.
        DELETE = 9,
        /// IN_DELETE_SELF.
        DELETE_SELF = 10,
        /// IN_MOVE_SELF.
        MOVE_SELF = 11,
        /// IN_UNMOUNT, of an event.
        UNMOUNT = 12,
        /// IN_Q_OVERFLOW, of an event.
        Q_OVERFLOW = 13,
        /// IN_IGNORED, of an event.
        IGNORED = 14,
        /// IN_ISDIR, of an event.
        ISDIR = 15,
        /// IN_EXCL_UNLINK, of a watch.
        EXCL_UNLINK = 16,
        /// IN_ONESHOT, of a watch.
        ONESHOT = 17,
    }
}

layout! {
    /// An event that was not read from an inotify instance, in their order. The tail is the name
    /// that it has, which may be empty.
    pub struct InotifyEvent {
        /// Id of the FileInotify.
        pub inotify: U32 => Check::Id(&[Kind::FileInotify]),
        /// Number of the watch, -1 for IN_Q_OVERFLOW.
        pub wd: I32,
        /// Bits of `inotify_mask`.
        pub mask: U32 => Check::Bits(inotify_mask::ALL),
        /// Number that connects two events.
        pub cookie: U32,
    }
}

record!(InotifyEvent, object: false, tail: Tail::Text, check: |event, tail| {
    if event.mask.get() & (inotify_mask::EXCL_UNLINK | inotify_mask::ONESHOT) != 0 {
        return Err("an event with flags of a watch");
    }
    if tail.len() > 255 {
        return Err("the name is too long");
    }
    Ok(())
});

layout! {
    /// What an inotify instance watches. The tail is its absolute path.
    pub struct InotifyWatch {
        /// Id of the FileInotify.
        pub inotify: U32 => Check::Id(&[Kind::FileInotify]),
        /// Number of the watch.
        pub wd: U32 => Check::Range(1, 0x7fff_ffff),
        /// Bits of `inotify_mask`.
        pub mask: U32 => Check::Bits(inotify_mask::ALL),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
    }
}

record!(InotifyWatch, object: true, tail: Tail::Path, check: |watch, _| {
    use inotify_mask::*;

    if watch.mask.get() & (UNMOUNT | Q_OVERFLOW | IGNORED | ISDIR) != 0 {
        return Err("a watch with flags of an event");
    }
    Ok(())
});

bits! {
    /// Bits of [`FileFanotify::init_flags`].
    pub mod fanotify_flags {
        /// FAN_CLOEXEC.
        CLOEXEC = 0,
        /// FAN_NONBLOCK.
        NONBLOCK = 1,
        /// FAN_CLASS_CONTENT.
        CONTENT = 2,
        /// FAN_CLASS_PRE_CONTENT.
        PRE_CONTENT = 3,
        /// FAN_UNLIMITED_QUEUE.
        UNLIMITED_QUEUE = 4,
        /// FAN_UNLIMITED_MARKS.
        UNLIMITED_MARKS = 5,
        /// FAN_ENABLE_AUDIT.
        ENABLE_AUDIT = 6,
        /// FAN_REPORT_PIDFD.
        REPORT_PIDFD = 7,
        /// FAN_REPORT_TID.
        REPORT_TID = 8,
        /// FAN_REPORT_FID.
        REPORT_FID = 9,
        /// FAN_REPORT_DIR_FID.
        REPORT_DIR_FID = 10,
        /// FAN_REPORT_NAME.
        REPORT_NAME = 11,
        /// FAN_REPORT_TARGET_FID.
        REPORT_TARGET_FID = 12,
        /// FAN_REPORT_FD_ERROR.
        REPORT_FD_ERROR = 13,
        /// FAN_REPORT_MNT.
        REPORT_MNT = 14,
        /// It was made without CAP_SYS_ADMIN, and does not tell of other processes.
        UNPRIVILEGED = 15,
    }
}

/// Bits of [`FileFanotify::event_flags`].
const FANOTIFY_EVENT_FLAGS: u32 = file_flags::READ
    | file_flags::WRITE
    | file_flags::APPEND
    | file_flags::NONBLOCK
    | file_flags::SYNC
    | file_flags::DSYNC
    | file_flags::NOATIME
    | file_flags::LARGEFILE
    | file_flags::OPENED_CLOEXEC;

layout! {
    /// A fanotify group that has told all its events. What it watches is in records of its own.
    pub struct FileFanotify {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Bits of `fanotify_flags`.
        pub init_flags: U32 => Check::Bits(fanotify_flags::ALL),
        /// How files are opened that come with events: bits of `file_flags`.
        pub event_flags: U32 => Check::Bits(FANOTIFY_EVENT_FLAGS),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(FileFanotify, object: true, tail: Tail::None, check: |group, _| {
    if group.event_flags.get() & (file_flags::READ | file_flags::WRITE) == 0 {
        return Err("files of events that are open for nothing");
    }
    Ok(())
});

bits! {
    /// Bits of [`FanotifyMark::mask`] and [`FanotifyMark::ignore_mask`].
    pub mod fanotify_mask {
        /// FAN_ACCESS.
        ACCESS = 0,
        /// FAN_MODIFY.
        MODIFY = 1,
        /// FAN_ATTRIB.
        ATTRIB = 2,
        /// FAN_CLOSE_WRITE.
        CLOSE_WRITE = 3,
        /// FAN_CLOSE_NOWRITE.
        CLOSE_NOWRITE = 4,
        /// FAN_OPEN.
        OPEN = 5,
        /// FAN_MOVED_FROM.
        MOVED_FROM = 6,
        /// FAN_MOVED_TO.
        MOVED_TO = 7,
        /// FAN_CREATE.
        CREATE = 8,
        /// FAN_DELETE.
        DELETE = 9,
        /// FAN_DELETE_SELF.
        DELETE_SELF = 10,
        /// FAN_MOVE_SELF.
        MOVE_SELF = 11,
        /// FAN_OPEN_EXEC.
        OPEN_EXEC = 12,
        /// FAN_FS_ERROR.
        FS_ERROR = 13,
        /// FAN_OPEN_PERM.
        OPEN_PERM = 14,
        /// FAN_ACCESS_PERM.
        ACCESS_PERM = 15,
        /// FAN_OPEN_EXEC_PERM.
        OPEN_EXEC_PERM = 16,
        /// FAN_PRE_ACCESS.
        PRE_ACCESS = 17,
        /// FAN_RENAME.
        RENAME = 18,
        /// FAN_EVENT_ON_CHILD.
        EVENT_ON_CHILD = 19,
        /// FAN_ONDIR.
        ONDIR = 20,
    }
}

bits! {
    /// Bits of [`FanotifyMark::flags`].
    pub mod fanotify_mark_flags {
        /// FAN_MARK_IGNORED_SURV_MODIFY.
        SURV_MODIFY = 0,
        /// FAN_MARK_EVICTABLE.
        EVICTABLE = 1,
        /// FAN_MARK_IGNORE, unlike FAN_MARK_IGNORED_MASK.
        IGNORE = 2,
    }
}

/// Values of [`FanotifyMark::ty`].
pub mod fanotify_mark {
    /// A file or directory.
    pub const INODE: u32 = 1;
    /// A mount.
    pub const MOUNT: u32 = 2;
    /// A file system.
    pub const FILESYSTEM: u32 = 3;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &["inode", "mount", "filesystem"];
}

layout! {
    /// What a fanotify group watches. The tail is its absolute path: of a mount its root, of a file
    /// system the root of a mount of it.
    pub struct FanotifyMark {
        /// Id of the FileFanotify.
        pub fanotify: U32 => Check::Id(&[Kind::FileFanotify]),
        /// What it is: 1 a file or directory, 2 a mount, 3 a file system.
        pub ty: U32 => Check::Range(1, 3),
        /// Bits of `fanotify_mask`: the events.
        pub mask: U32 => Check::Bits(fanotify_mask::ALL),
        /// The same: the events that are ignored.
        pub ignore_mask: U32 => Check::Bits(fanotify_mask::ALL),
        /// Bits of `fanotify_mark_flags`.
        pub flags: U32 => Check::Bits(fanotify_mark_flags::ALL),
        /// Type and permissions as stat(2) has them.
        pub mode: U32,
    }
}

record!(FanotifyMark, object: true, tail: Tail::Path);
