// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Rings of io_uring.

use zerocopy::little_endian::{
    I32,
    U32,
    U64, //
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
    Kind, //
};

bits! {
    /// Bits of [`FileUring::setup`]: the flags of io_uring_setup(2) of the same names.
    pub mod uring_setup {
        /// Only to be used when it was enabled.
        R_DISABLED = 0,
        /// An entry that fails does not end a submission.
        SUBMIT_ALL = 1,
        /// Completions do not interrupt.
        COOP_TASKRUN = 2,
        /// The ring shows that completions wait.
        TASKRUN_FLAG = 3,
        /// Entries of 128 bytes.
        SQE128 = 4,
        /// Completions of 32 bytes.
        CQE32 = 5,
        /// One task submits.
        SINGLE_ISSUER = 6,
        /// Completions come when it waits for them.
        DEFER_TASKRUN = 7,
        /// There is no array of indices.
        NO_SQARRAY = 8,
        /// Completions of 16 and of 32 bytes.
        CQE_MIXED = 9,
        /// Entries of 64 and of 128 bytes.
        SQE_MIXED = 10,
        /// Each submission begins at the first entry.
        SQ_REWIND = 11,
    }
}

layout! {
    /// An io_uring with no request in flight. Its state is in a UringState.
    pub struct FileUring {
        /// Bits of `file_flags`.
        pub flags: U32 => Check::Bits(file_flags::ALL),
        /// Bits of `uring_setup`.
        pub setup: U32 => Check::Bits(uring_setup::ALL),
        /// Entries of the submission queue, a power of two.
        pub sq_entries: U32 => Check::Range(1, 1 << 15),
        /// Entries of the completion queue, a power of two.
        pub cq_entries: U32 => Check::Range(1, 1 << 16),
    }
}

record!(FileUring, object: true, tail: Tail::None, check: |ring, _| {
    let (sq, cq) = (ring.sq_entries.get(), ring.cq_entries.get());
    if !sq.is_power_of_two() || !cq.is_power_of_two() {
        return Err("the size of a queue is no power of two");
    }
    if cq < sq {
        return Err("fewer completions than entries");
    }
    Ok(())
});

bits! {
    /// Bits of [`UringState::state`].
    pub mod uring_state {
        /// Completions were lost, and nobody has been told.
        DROPPED = 0,
        /// The next request waits for all before it.
        DRAIN_NEXT = 1,
        /// Requests wait for those before them.
        DRAIN_ACTIVE = 2,
        /// None can, as IOSQE_CQE_SKIP_SUCCESS was used.
        DRAIN_DISABLED = 3,
        /// Timeouts are of CLOCK_BOOTTIME.
        BOOTTIME = 4,
        /// `max_bounded` and `max_unbounded` say how many workers who uses it may have.
        LIMITED = 5,
        /// Memory that it pins is limited, as that of `uid`.
        ACCOUNTED = 6,
    }
}

layout! {
    /// The state of an io_uring, but for its memory. The tail is an array of UringUser.
    pub struct UringState {
        /// Id of the FileUring.
        pub ring: U32 => Check::Id(&[Kind::FileUring]),
        /// Bits of `uring_state`.
        pub state: U32 => Check::Bits(uring_state::ALL),
        /// Number of the next entry to be submitted, as the kernel counts them.
        pub sq_head: U32,
        /// Number of the next completion, in the same way.
        pub cq_tail: U32,
        /// Most workers for files and block devices, or 0.
        pub max_bounded: U32 => Check::Range(0, i32::MAX as u32),
        /// Most workers for anything else, or 0.
        pub max_unbounded: U32 => Check::Range(0, i32::MAX as u32),
        /// Owner of the memory that it pins, or 0.
        pub uid: U32,
        /// Number of the only task that submits, or 0.
        pub issuer: I32 => Check::Range(0, 0x3fff_ffff),
        /// Id of the Mm for which that memory is counted, or 0.
        pub mm: U32 => Check::IdOrNone(&[Kind::Mm]),
        /// Number of tasks that have used it.
        pub count: U32,
    }
}

layout! {
    /// A task that has used an io_uring.
    pub struct UringUser {
        /// Its number.
        pub tid: I32 => Check::Range(1, 0x3fff_ffff),
        /// The numbers under which it has registered the ring for itself, as bits.
        pub slots: U32 => Check::Bits(0xffff),
        /// Most workers that it may have for files and block devices.
        pub max_bounded: U32,
        /// Most workers for anything else.
        pub max_unbounded: U32,
    }
}

record!(
    UringState,
    object: false,
    tail: Tail::Items(Item::UringUser, core::mem::offset_of!(UringState, count)),
    check: |state, _| {
        let flags = state.state.get();
        let limits = state.max_bounded.get() | state.max_unbounded.get();
        if flags & uring_state::LIMITED == 0 && limits != 0 {
            return Err("a limit of workers that is none");
        }
        if flags & uring_state::ACCOUNTED == 0 && state.uid.get() != 0 {
            return Err("an owner of memory that is not limited");
        }
        Ok(())
    }
);

impl ArrayRecord for UringState {
    type Item = UringUser;
}

/// Values of [`UringMemory::region`].
pub mod uring_region {
    /// The two queues, as a program maps them at offset 0.
    pub const QUEUES: u32 = 0;
    /// The entries of the submission queue, as it maps them at offset 0x10000000.
    pub const ENTRIES: u32 = 1;
}

layout! {
    /// Some of the memory that an io_uring and programs have in common, whose other bytes are zero. In
    /// that of the queues are, from the beginning, each of 4 bytes: head and tail of the submission
    /// queue, head and tail of the completion queue, their masks, their sizes, how many entries were
    /// invalid, flags of the submission queue, flags of the completion queue, how many completions
    /// were lost; at 64, completions; after them, at a multiple of 64, the array of indices. The tail
    /// is the bytes.
    pub struct UringMemory {
        /// Id of the FileUring.
        pub ring: U32 => Check::Id(&[Kind::FileUring]),
        /// 0 the queues, 1 the entries of the submission queue.
        pub region: U32 => Check::Range(0, 1),
        /// Where the bytes are.
        pub offset: U64,
        /// How many there are.
        pub len: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(
    UringMemory,
    object: false,
    tail: Tail::Bytes(core::mem::offset_of!(UringMemory, len))
);
