// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The machine.

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
    /// The machine that the tree ran on, at the moment when it stood still. Exactly one, the first
    /// record of the plan. The tail is the kernel's release, then the node name.
    pub struct Machine {
        /// Extended states (bit numbers of the architecture) that some task of the tree uses.
        pub xfeatures: U64,
        /// Boot id of the kernel, as in /proc/sys/kernel/random/boot_id; zeros if it is not known.
        pub boot_id: [u8; 16],
        /// CLOCK_REALTIME in nanoseconds.
        pub realtime_ns: I64,
        /// CLOCK_MONOTONIC in nanoseconds as the tree saw it.
        pub monotonic_ns: I64,
        /// CLOCK_BOOTTIME in nanoseconds as the tree saw it.
        pub boottime_ns: I64,
        /// Build id of the vdso, then zeros.
        pub vdso_id: [u8; 20],
        /// Length of the vdso's build id in bytes, 0 if there is none.
        pub vdso_id_len: U32 => Check::Range(0, 20),
        /// CPUs online.
        pub cpus_online: U32,
        /// Zero.
        pub reserved: [u8; 20] => Check::Zero,
    }
}

record!(Machine, object: false, tail: Tail::Strings(2));
