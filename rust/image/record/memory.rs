// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Address spaces and shared memory.

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
    super::{
        frame::PAGE_SIZE,
        layout::{
            ArrayRecord,
            Check,
            Field,
            IdRule,
            Layout,
            Record,
            Rule,
            Rules,
            Tail, //
        }, //
    },
    Item,
    Kind, //
};

layout! {
    /// Shared anonymous memory. Its pages come in chunks with its id, at byte offsets; what is in
    /// no chunk is a hole.
    pub struct Shmem {
        /// Size in bytes, whole pages.
        pub size: U64,
        /// No flag is defined; zero.
        pub flags: U32 => Check::Zero,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(Shmem, object: true, tail: Tail::None, check: |shmem, _| {
    if shmem.size.get() % u64::from(PAGE_SIZE) != 0 || shmem.size.get() > 1 << 62 {
        return Err("impossible size");
    }
    Ok(())
});

layout! {
    /// Huge pages of mmap(MAP_ANONYMOUS | MAP_HUGETLB). Those of private mappings come in chunks of
    /// their Mm, those of shared ones in chunks with this id, at byte offsets.
    pub struct Hugetlb {
        /// Size in bytes, whole huge pages.
        pub size: U64,
        /// Size of a huge page, as a power of two.
        pub page_shift: U32 => Check::Range(13, 62),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(Hugetlb, object: true, tail: Tail::None, check: |huge, _| {
    let mask = (1u64 << (huge.page_shift.get() & 63)) - 1;
    if huge.size.get() & mask != 0 || huge.size.get() > 1 << 62 {
        return Err("impossible size");
    }
    Ok(())
});

bits! {
    /// Bits of [`Mm::flags`].
    pub mod mm_flags {
        /// New mappings are locked: mlockall(MCL_FUTURE).
        LOCK_FUTURE = 0,
        /// And only when they are touched: MCL_ONFAULT.
        LOCK_ONFAULT = 1,
        /// No transparent huge pages: PR_SET_THP_DISABLE.
        THP_DISABLE = 2,
        /// All pages may be merged: PR_SET_MEMORY_MERGE.
        MERGE_ANY = 3,
        /// No mapping becomes executable: PR_MDWE_REFUSE_EXEC_GAIN.
        MDWE = 4,
        /// And children do not inherit that: PR_MDWE_NO_INHERIT.
        MDWE_NO_INHERIT = 5,
        /// The mappings lie bottom-up, as with an unlimited stack or ADDR_COMPAT_LAYOUT.
        LEGACY_LAYOUT = 6,
    }
}

layout! {
    /// An address space. Its mappings follow in Vmas records, directly; its pages come in chunks
    /// with its id, at their addresses. The tail is the auxiliary vector.
    pub struct Mm {
        /// First address of the program's text.
        pub start_code: U64,
        /// End of the program's text.
        pub end_code: U64,
        /// First address of the program's data.
        pub start_data: U64,
        /// End of the program's data.
        pub end_data: U64,
        /// First address of the heap.
        pub start_brk: U64,
        /// End of the heap.
        pub brk: U64,
        /// Address of the stack at exec.
        pub start_stack: U64,
        /// First address of the arguments.
        pub arg_start: U64,
        /// End of the arguments.
        pub arg_end: U64,
        /// First address of the environment.
        pub env_start: U64,
        /// End of the environment.
        pub env_end: U64,
        /// Where the search for free addresses starts.
        pub mmap_base: U64,
        /// Address of the vdso, 0 if there is none.
        pub vdso: U64,
        /// Id of the executable.
        pub exe: U32 => Check::Id(&[Kind::FileRegular, Kind::FileUnnamed]),
        /// Length of the auxiliary vector in bytes.
        pub auxv_len: U32 => Check::Range(0, 4096),
        /// Number of mappings in the Vmas records that follow.
        pub vmas: U32,
        /// Bits of `mm_flags`.
        pub flags: U32 => Check::Bits(mm_flags::ALL),
        /// PR_GET_DUMPABLE: 0, 1 or 2.
        pub dumpable: U32 => Check::Range(0, 2),
        /// What a core dump contains, as in /proc/PID/coredump_filter.
        pub coredump_filter: U32 => Check::Bits(0x1ff),
        /// Protection keys in use, bit n for key n; 0 or 1 if there are none but key 0.
        pub pkeys: U32 => Check::Bits(0xffff),
        /// The key of mappings that can only be executed, 0 if there is none.
        pub execute_only_pkey: U32 => Check::Range(0, 15),
        /// Zero.
        pub reserved: [u8; 24] => Check::Zero,
    }
}

record!(
    Mm,
    object: true,
    tail: Tail::Bytes(core::mem::offset_of!(Mm, auxv_len)),
    check: |mm, _| {
        if mm.auxv_len.get() % 16 != 0 {
            return Err("the auxiliary vector is no array of pairs");
        }
        Ok(())
    }
);

layout! {
    /// A name of anonymous memory: PR_SET_VMA_ANON_NAME. The tail is the name, of 1 to 79
    /// printable characters other than backslash, backquote, dollar and brackets, or nothing.
    pub struct AnonName {
        /// Zero.
        pub reserved: U64 => Check::Zero,
    }
}

record!(AnonName, object: true, tail: Tail::Text, check: |_, name| {
    let allowed = |byte: &u8| matches!(*byte, 0x20..=0x7e) && !b"\\`$[]".contains(byte);
    if name.len() > 79 || !name.iter().all(allowed) {
        return Err("impossible name");
    }
    Ok(())
});

/// Values of [`MemPolicy::mode`].
pub mod mem_policy {
    /// MPOL_PREFERRED.
    pub const PREFERRED: u32 = 1;
    /// MPOL_BIND.
    pub const BIND: u32 = 2;
    /// MPOL_INTERLEAVE.
    pub const INTERLEAVE: u32 = 3;
    /// MPOL_LOCAL.
    pub const LOCAL: u32 = 4;
    /// MPOL_PREFERRED_MANY.
    pub const PREFERRED_MANY: u32 = 5;
    /// MPOL_WEIGHTED_INTERLEAVE.
    pub const WEIGHTED_INTERLEAVE: u32 = 6;
}

bits! {
    /// Bits of [`MemPolicy::flags`].
    pub mod mem_policy_flags {
        /// MPOL_F_STATIC_NODES.
        STATIC_NODES = 0,
        /// MPOL_F_RELATIVE_NODES.
        RELATIVE_NODES = 1,
        /// MPOL_F_NUMA_BALANCING.
        NUMA_BALANCING = 2,
    }
}

layout! {
    /// A NUMA policy, of mappings or of a task. The tail is its set of nodes.
    pub struct MemPolicy {
        /// 1 preferred, 2 bind, 3 interleave, 4 local, 5 preferred many, 6 weighted interleave.
        pub mode: U32 => Check::Range(1, 6),
        /// Bits of `mem_policy_flags`.
        pub flags: U32 => Check::Bits(mem_policy_flags::ALL),
        /// set_mempolicy_home_node(2), or -1.
        pub home_node: I32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(MemPolicy, object: true, tail: Tail::Mask);

bits! {
    /// Bits of [`Vma::flags`].
    pub mod vma_flags {
        /// PROT_READ.
        READ = 0,
        /// PROT_WRITE.
        WRITE = 1,
        /// PROT_EXEC.
        EXEC = 2,
        /// MAP_SHARED.
        SHARED = 3,
        /// PROT_READ may be set.
        MAYREAD = 4,
        /// PROT_WRITE may be set.
        MAYWRITE = 5,
        /// PROT_EXEC may be set.
        MAYEXEC = 6,
        /// The mapping counts as shared, although it may not be writable.
        MAYSHARE = 7,
        /// MAP_GROWSDOWN.
        GROWSDOWN = 8,
        /// mlock(2).
        LOCKED = 9,
        /// mlock2(2) with MLOCK_ONFAULT.
        LOCKONFAULT = 10,
        /// MADV_DONTFORK.
        DONTFORK = 11,
        /// MADV_WIPEONFORK.
        WIPEONFORK = 12,
        /// MADV_DONTDUMP.
        DONTDUMP = 13,
        /// MADV_HUGEPAGE.
        HUGEPAGE = 14,
        /// MADV_NOHUGEPAGE.
        NOHUGEPAGE = 15,
        /// MADV_MERGEABLE.
        MERGEABLE = 16,
        /// MAP_NORESERVE.
        NORESERVE = 17,
        /// MADV_SEQUENTIAL.
        SEQ_READ = 18,
        /// MADV_RANDOM.
        RAND_READ = 19,
        /// Its pages count as committed memory.
        ACCOUNT = 20,
        /// MAP_DROPPABLE: never saved, comes back zeroed.
        DROPPABLE = 21,
        /// mseal(2).
        SEALED = 22,
        /// Protection key, lowest bit.
        PKEY0 = 23,
        /// Protection key, second bit.
        PKEY1 = 24,
        /// Protection key, third bit.
        PKEY2 = 25,
        /// Protection key, highest bit.
        PKEY3 = 26,
        /// MADV_GUARD_INSTALL was used on it; Guards records say what is left of that.
        GUARDED = 27,
    }
}

/// Values of [`Vma::kind`].
pub mod vma_kind {
    /// Private anonymous memory.
    pub const ANON: u32 = 1;
    /// A file.
    pub const FILE: u32 = 2;
    /// Shared anonymous memory.
    pub const SHMEM: u32 = 3;
    /// The vdso's code.
    pub const VDSO: u32 = 4;
    /// What the kernel maps beside the vdso: its data, and the like.
    pub const SPECIAL: u32 = 5;
    /// Huge pages.
    pub const HUGETLB: u32 = 6;
    /// The ring of a context of asynchronous I/O.
    pub const AIO: u32 = 7;
    /// Their names, the first for 1.
    pub const NAMES: &[&str] = &["anon", "file", "shmem", "vdso", "special", "hugetlb", "aio"];
}

layout! {
    /// A context of asynchronous I/O, io_setup(2), with no request in flight. Its number is the
    /// address at which its ring is mapped. The tail is an array of AioEvent: what is in the ring,
    /// whether it has been read or not.
    pub struct AioContext {
        /// How many requests io_setup(2) was told.
        pub max_reqs: U32 => Check::Range(1, 0x7fff_ffff),
        /// For how many events the ring has room. It fills its pages, with a head as long as an
        /// event.
        pub slots: U32 => Check::Range(127, (1 << 23) - 1),
        /// The slot of the next event to be read.
        pub head: U32,
        /// The slot of the next event to come; if it is `head`, all have been read.
        pub tail: U32,
        /// Number of events in the tail.
        pub count: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

layout! {
    /// What is in one slot of a ring, unless it is zero.
    pub struct AioEvent {
        /// Number of the slot.
        pub slot: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// What the request had as aio_data.
        pub data: U64,
        /// Address of the request.
        pub obj: U64,
        /// Its result.
        pub res: I64,
        /// And the second one.
        pub res2: I64,
    }
}

record!(
    AioContext,
    object: true,
    tail: Tail::Items(Item::AioEvent, core::mem::offset_of!(AioContext, count)),
    check: |context, tail| {
        let events = <[AioEvent]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        let slots = context.slots.get();
        if u64::from(slots + 1) * AioContext::EVENT % u64::from(PAGE_SIZE) != 0 {
            return Err("a ring that does not fill its pages");
        }
        // The kernel makes one for twice as many requests, or for so many a processor.
        let least = u64::from(context.max_reqs.get()) * 2 + 2;
        let most = least.max(AioContext::PROCESSORS) * AioContext::EVENT + u64::from(PAGE_SIZE);
        if u64::from(slots) < least || u64::from(slots) * AioContext::EVENT > most {
            return Err("a ring of impossible size");
        }
        if context.head.get() >= slots || context.tail.get() >= slots {
            return Err("a place outside the ring");
        }
        let ascend = |pair: &[AioEvent]| matches!(pair, [a, b] if a.slot.get() < b.slot.get());
        if !events.windows(2).all(ascend)
            || events.last().is_some_and(|last| last.slot.get() >= slots)
        {
            return Err("the events do not ascend in the ring");
        }
        Ok(())
    }
);

impl ArrayRecord for AioContext {
    type Item = AioEvent;
}

impl AioContext {
    /// Most events in one record.
    pub const MAX_EVENTS: usize = 400_000;
    /// Length of an event in the ring in bytes.
    const EVENT: u64 = 32;
    /// Most slots of a ring for few requests: eight a processor, of which there are 8192 at most.
    const PROCESSORS: u64 = 8 * 8192 + 2;
}

layout! {
    /// Mappings of an address space. They follow the Mm directly, in as many records as it takes,
    /// and ascend. The tail is an array of Vma.
    pub struct Vmas {
        /// Id of the Mm.
        pub mm: U32 => Check::Id(&[Kind::Mm]),
        /// Number of mappings in this record.
        pub count: U32,
    }
}

layout! {
    /// One mapping.
    pub struct Vma {
        /// First address.
        pub start: U64,
        /// First address after it.
        pub end: U64,
        /// Byte of the object at which the mapping starts; of anonymous memory the address at which
        /// it was once mapped, which mremap(2) does not change.
        pub offset: U64,
        /// Bits of `vma_flags`.
        pub flags: U32 => Check::Bits(vma_flags::ALL),
        /// What is mapped: 1 private anonymous memory, 2 a file, 3 shared anonymous memory, 4 the
        /// vdso's code, 5 what the kernel maps beside it, 6 huge pages, 7 the ring of a context of
        /// asynchronous I/O.
        pub kind: U32 => Check::Range(1, 7),
        /// Id of the file (kind 2), Shmem (kind 3), Hugetlb (kind 6) or AioContext (kind 7), else 0.
        pub object: U32
            => Check::IdOrNone(&[
                Kind::FileRegular,
                Kind::FileDevice,
                Kind::FileUnnamed,
                Kind::Shmem,
                Kind::Hugetlb,
                Kind::FileUring,
                Kind::AioContext,
            ]),
        /// Id of its name, 0 if it has none.
        pub name: U32 => Check::IdOrNone(&[Kind::AnonName]),
        /// Id of its memory policy, 0 if it has none.
        pub policy: U32 => Check::IdOrNone(&[Kind::MemPolicy]),
        /// Private mappings that were once one have the same number here: within an address space
        /// they were split, and can be merged again; those of several address spaces were made by
        /// fork(2), and may have pages in common. 0 if there is no other.
        pub family: U32,
    }
}

/// Highest address that a mapping may reach, with five levels of page tables.
const ADDRESS_END: u64 = 1 << 56;

record!(
    Vmas,
    object: false,
    tail: Tail::Items(Item::Vma, core::mem::offset_of!(Vmas, count)),
    check: |_, tail| {
        let vmas = <[Vma]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        let page = u64::from(PAGE_SIZE);
        let mut free = 0;
        for vma in vmas {
            let (start, end) = (vma.start.get(), vma.end.get());
            if start % page != 0 || end % page != 0 || vma.offset.get() % page != 0 {
                return Err("a mapping does not lie on pages");
            }
            if start >= end || end > ADDRESS_END {
                return Err("impossible addresses of a mapping");
            }
            if start < free {
                return Err("the mappings do not ascend");
            }
            if vma.offset.get().checked_add(end - start).is_none() {
                return Err("impossible offset of a mapping");
            }
            let has_object = matches!(
                vma.kind.get(),
                vma_kind::FILE | vma_kind::SHMEM | vma_kind::HUGETLB | vma_kind::AIO
            );
            if has_object != (vma.object.get() != 0) {
                return Err("a mapping and its object do not match");
            }
            free = end;
        }
        Ok(())
    }
);

impl ArrayRecord for Vmas {
    type Item = Vma;
}

layout! {
    /// Guard regions of an address space: what MADV_GUARD_INSTALL left without access. They follow
    /// the Vmas of the Mm. The tail is an array of Guard, ascending and apart.
    pub struct Guards {
        /// Id of the Mm.
        pub mm: U32 => Check::Id(&[Kind::Mm]),
        /// Number of regions in this record.
        pub count: U32,
    }
}

layout! {
    /// One guard region.
    pub struct Guard {
        /// First address.
        pub start: U64,
        /// First address after it.
        pub end: U64,
    }
}

record!(
    Guards,
    object: false,
    tail: Tail::Items(Item::Guard, core::mem::offset_of!(Guards, count)),
    check: |_, tail| {
        let guards = <[Guard]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        let page = u64::from(PAGE_SIZE);
        let mut free = 0;
        for guard in guards {
            let (start, end) = (guard.start.get(), guard.end.get());
            if start % page != 0 || end % page != 0 {
                return Err("a guard region does not lie on pages");
            }
            if start < free || start >= end || end > ADDRESS_END {
                return Err("impossible addresses of a guard region");
            }
            free = end;
        }
        Ok(())
    }
);

impl ArrayRecord for Guards {
    type Item = Guard;
}
