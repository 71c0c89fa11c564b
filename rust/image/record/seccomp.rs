// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Seccomp filters.

use zerocopy::little_endian::{
    U16,
    U32, //
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
    Kind, //
};

bits! {
    /// Bits of [`SeccompFilter::flags`].
    pub mod seccomp_flags {
        /// What it does is logged: SECCOMP_FILTER_FLAG_LOG.
        LOG = 0,
    }
}

layout! {
    /// A seccomp filter, which tasks share that inherited it. The tail is its program, an array of
    /// SeccompInsn.
    pub struct SeccompFilter {
        /// Id of the filter that was installed before it, 0 for none.
        pub prev: U32 => Check::IdOrNone(&[Kind::SeccompFilter]),
        /// Bits of `seccomp_flags`.
        pub flags: U32 => Check::Bits(seccomp_flags::ALL),
        /// Number of instructions.
        pub count: U32 => Check::Range(1, 4096),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

layout! {
    /// One instruction of classic BPF, as struct sock_filter.
    pub struct SeccompInsn {
        /// Code.
        pub code: U16,
        /// Jump if true.
        pub jt: u8,
        /// Jump if false.
        pub jf: u8,
        /// Operand.
        pub k: U32,
    }
}

record!(
    SeccompFilter,
    object: true,
    tail: Tail::Items(Item::SeccompInsn, core::mem::offset_of!(SeccompFilter, count))
);

impl ArrayRecord for SeccompFilter {
    type Item = SeccompInsn;
}
