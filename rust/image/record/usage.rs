// SPDX-License-Identifier: GPL-2.0 OR MIT

//! CPU time and resource usage.

use zerocopy::little_endian::{
    I64,
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
    /// CPU time in nanoseconds.
    pub struct CpuTime {
        /// In user mode.
        pub user: U64,
        /// In the kernel.
        pub system: U64,
        /// Of `user`, that of guests of a virtual machine.
        pub guest: U64,
    }
}

layout! {
    /// What getrusage(2) counts besides time.
    pub struct Counts {
        /// Voluntary context switches.
        pub voluntary: U64,
        /// Other context switches.
        pub involuntary: U64,
        /// Page faults without input.
        pub minor_faults: U64,
        /// Page faults with input.
        pub major_faults: U64,
    }
}

layout! {
    /// What /proc/PID/io counts.
    pub struct IoCounts {
        /// Bytes that were read.
        pub read: U64,
        /// Bytes that were written.
        pub written: U64,
        /// System calls that read.
        pub reads: U64,
        /// System calls that write.
        pub writes: U64,
        /// Bytes that came from storage.
        pub storage_read: U64,
        /// Bytes on their way to storage.
        pub storage_written: U64,
        /// Bytes of those that did not have to be written after all.
        pub cancelled: U64,
    }
}

layout! {
    /// CPU time and resource usage of a task.
    pub struct Usage {
        /// Id of the Task.
        pub task: U32 => Check::Id(&[Kind::Task]),
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// CLOCK_MONOTONIC at its creation, as the tree saw it, in nanoseconds.
        pub start_monotonic_ns: I64,
        /// CLOCK_BOOTTIME at its creation: the starttime of /proc/PID/stat.
        pub start_boottime_ns: I64,
        /// CPU time as the clock's ticks count it.
        pub time: CpuTime,
        /// CPU time as the scheduler counts it, in nanoseconds.
        pub runtime_ns: U64,
        /// The user time that was last shown, which never goes back.
        pub shown_user: U64,
        /// The system time that was last shown.
        pub shown_system: U64,
        /// What it counts.
        pub counts: Counts,
        /// Its input and output.
        pub io: IoCounts,
        /// Memory in use, summed over CPU time: pages times microseconds.
        pub rss_integral: U64,
        /// Address space in use, summed in the same way.
        pub vm_integral: U64,
    }
}

record!(Usage, object: false, tail: Tail::None);

layout! {
    /// CPU time and resource usage of a process: of its threads that have ended, and of its children
    /// that have ended and been waited for.
    pub struct ProcessUsage {
        /// Id of the Process.
        pub process: U32 => Check::Id(&[Kind::Process]),
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// CPU time of the threads, as the clock's ticks count it.
        pub time: CpuTime,
        /// Their CPU time as the scheduler counts it, in nanoseconds.
        pub runtime_ns: U64,
        /// The user time of the process that was last shown, which never goes back.
        pub shown_user: U64,
        /// The system time that was last shown.
        pub shown_system: U64,
        /// What the threads counted.
        pub counts: Counts,
        /// Blocks of 512 bytes that the threads read from storage.
        pub blocks_read: U64,
        /// Blocks of 512 bytes that the threads wrote to storage.
        pub blocks_written: U64,
        /// Input and output of threads and children.
        pub io: IoCounts,
        /// The most memory that the process ever had, in bytes.
        pub max_rss: U64,
        /// CPU time of the children.
        pub children_time: CpuTime,
        /// What the children counted.
        pub children_counts: Counts,
        /// Blocks that the children read.
        pub children_blocks_read: U64,
        /// Blocks that the children wrote.
        pub children_blocks_written: U64,
        /// The most memory that a child ever had, in bytes.
        pub children_max_rss: U64,
    }
}

record!(ProcessUsage, object: false, tail: Tail::None);
