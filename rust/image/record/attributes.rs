// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What a program has set of its tasks and its address space, where that differs from the default.

use zerocopy::little_endian::{
    U32,
    U64, //
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
    Kind, //
};

layout! {
    /// PR_SET_SYSCALL_USER_DISPATCH of a task.
    pub struct Dispatch {
        /// Id of the Task.
        pub task: U32 => Check::Id(&[Kind::Task]),
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// Start of the code whose system calls the task makes itself.
        pub offset: U64,
        /// Its length in bytes; the range may wrap around.
        pub len: U64,
        /// Address of the byte that says whether it makes the others, too; 0 for none.
        pub selector: U64,
    }
}

record!(Dispatch, object: false, tail: Tail::None);

bits! {
    /// Bits of [`Scheduling::flags`].
    pub mod scheduling_flags {
        /// SCHED_FLAG_RECLAIM.
        RECLAIM = 0,
        /// SCHED_FLAG_DL_OVERRUN.
        OVERRUN = 1,
        /// `clamp_min` is set.
        CLAMP_MIN = 2,
        /// `clamp_max` is set.
        CLAMP_MAX = 3,
    }
}

layout! {
    /// What sched_setattr(2) sets besides policy, nice and priority.
    pub struct Scheduling {
        /// Id of the Task.
        pub task: U32 => Check::Id(&[Kind::Task]),
        /// Bits of `scheduling_flags`.
        pub flags: U32 => Check::Bits(scheduling_flags::ALL),
        /// Deadline policy: runtime in nanoseconds. Others: time slice, 0 for the default.
        pub runtime_ns: U64,
        /// Deadline policy: deadline in nanoseconds, else 0.
        pub deadline_ns: U64,
        /// Deadline policy: period in nanoseconds, else 0.
        pub period_ns: U64,
        /// Least utilization, of 1024.
        pub clamp_min: U32 => Check::Range(0, 1024),
        /// Greatest utilization, of 1024.
        pub clamp_max: U32 => Check::Range(0, 1024),
    }
}

record!(Scheduling, object: false, tail: Tail::None);

bits! {
    /// Bits of [`MmOptions::flags`].
    pub mod mm_options {
        /// PR_SET_THP_DISABLE.
        NO_THP = 0,
        /// PR_SET_THP_DISABLE with PR_THP_DISABLE_EXCEPT_ADVISED.
        ADVISED_THP = 1,
        /// PR_SET_MEMORY_MERGE.
        MERGE = 2,
        /// PR_SET_MDWE.
        MDWE = 3,
        /// PR_SET_MDWE with PR_MDWE_NO_INHERIT.
        MDWE_NO_INHERIT = 4,
        /// PR_FUTEX_HASH: the number of slots was chosen.
        FUTEX_HASH = 5,
        /// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED.
        MEMBARRIER_PRIVATE = 6,
        /// MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED.
        MEMBARRIER_GLOBAL = 7,
        /// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE.
        MEMBARRIER_CORE = 8,
        /// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ.
        MEMBARRIER_RSEQ = 9,
    }
}

layout! {
    /// What a process has asked for its address space as a whole.
    pub struct MmOptions {
        /// Id of the Process.
        pub process: U32 => Check::Id(&[Kind::Process]),
        /// Bits of `mm_options`.
        pub flags: U32 => Check::Bits(mm_options::ALL),
        /// Slots of a futex hash that was chosen, 0 for the global one.
        pub futex_slots: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(MmOptions, object: false, tail: Tail::None);
