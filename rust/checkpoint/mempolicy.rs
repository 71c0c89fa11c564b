// SPDX-License-Identifier: GPL-2.0

//! NUMA policies, of mappings and of tasks.
//!
//! Checked against the nodes of the machine with the plan; set while a task is furnished.
//!
//! Locks: `mmap_lock` (read), by the caller, while that of a mapping is read.

use core::ptr;

use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

use zerocopy::IntoBytes;

use crate::{
    image::record::{
        mem_policy,
        mem_policy_flags,
        MemPolicy, //
    },
    numbers::{
        Bits,
        Numbers, //
    },
    objects::Class,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// Policies by their numbers in the kernel and in an image.
const MODES: Numbers = Numbers(&[
    (
        bindings::mempolicy_mode_MPOL_PREFERRED,
        mem_policy::PREFERRED,
    ),
    (bindings::mempolicy_mode_MPOL_BIND, mem_policy::BIND),
    (
        bindings::mempolicy_mode_MPOL_INTERLEAVE,
        mem_policy::INTERLEAVE,
    ),
    (bindings::mempolicy_mode_MPOL_LOCAL, mem_policy::LOCAL),
    (
        bindings::mempolicy_mode_MPOL_PREFERRED_MANY,
        mem_policy::PREFERRED_MANY,
    ),
    (
        bindings::mempolicy_mode_MPOL_WEIGHTED_INTERLEAVE,
        mem_policy::WEIGHTED_INTERLEAVE,
    ),
]);

/// The same for their flags.
const FLAGS: Bits = Bits(&[
    (
        bindings::MPOL_F_STATIC_NODES,
        mem_policy_flags::STATIC_NODES,
    ),
    (
        bindings::MPOL_F_RELATIVE_NODES,
        mem_policy_flags::RELATIVE_NODES,
    ),
    (
        bindings::MPOL_F_NUMA_BALANCING,
        mem_policy_flags::NUMA_BALANCING,
    ),
]);

/// Words of a set of nodes in an image.
const NODE_WORDS: usize = (1usize << bindings::CONFIG_NODES_SHIFT).div_ceil(64);

/// Saves the policy of `vma`, or, where that is null, of `task`, unless it has been.
///
/// Returns its number, 0 when there is none, and `None` when it was refused.
///
/// # Safety
///
/// The address space of `vma` is locked; `task` is null or valid and stands still.
pub(crate) unsafe fn save(
    saver: &mut Saver<'_>,
    place: Place,
    vma: *mut bindings::vm_area_struct,
    task: *mut bindings::task_struct,
) -> Result<Option<u32>> {
    let mut policy = bindings::checkpoint_mempolicy {
        words: u32::try_from(NODE_WORDS)?,
        ..Default::default()
    };
    let mut nodes = [0u64; NODE_WORDS];
    // SAFETY: By the safety requirements; `nodes` has as many words as it says.
    let identity =
        unsafe { bindings::checkpoint_get_mempolicy(vma, task, &mut policy, nodes.as_mut_ptr()) };
    if identity.is_null() {
        return Ok(Some(0));
    }
    if let Some(id) = saver.objects.get(Class::MemPolicy, identity) {
        return Ok(Some(id));
    }
    let mode = MODES.to_image(policy.mode);
    let (Some(mode), Some(flags)) = (mode, FLAGS.all_to_image(policy.flags)) else {
        saver.refuse(place, fmt!("memory policy {}: not supported", policy.mode));
        return Ok(None);
    };
    let record = MemPolicy {
        mode: mode.into(),
        flags: flags.into(),
        home_node: policy.home_node.into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[nodes.as_bytes()])?;
    saver.objects.insert(Class::MemPolicy, identity, id)?;
    Ok(Some(id))
}

/// A policy as the kernel side wants it.
pub(crate) struct Wanted {
    policy: bindings::checkpoint_mempolicy,
    nodes: KVec<u64>,
}

impl Wanted {
    pub(crate) fn new(record: &MemPolicy, mask: &[u8]) -> Result<Self> {
        let mut nodes = KVec::with_capacity(mask.len() / 8, GFP_KERNEL)?;
        for word in mask.chunks_exact(8) {
            nodes.push(
                u64::from_le_bytes(word.try_into().map_err(|_| EINVAL)?),
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            policy: bindings::checkpoint_mempolicy {
                mode: MODES.to_kernel(record.mode.get())?,
                flags: FLAGS.to_kernel(record.flags.get()),
                home_node: record.home_node.get(),
                words: u32::try_from(nodes.len())?,
                nodes: ptr::null(),
            },
            nodes,
        })
    }

    /// The policy, valid as long as this is.
    pub(crate) fn get(&mut self) -> *const bindings::checkpoint_mempolicy {
        self.policy.nodes = self.nodes.as_ptr();
        &self.policy
    }
}

/// Checks that the nodes of a policy are there: all of them, or, where missing ones are allowed
/// for, one.
pub(crate) fn check(record: &MemPolicy, mask: &[u8], report: &mut Report) {
    let flags = record.flags.get();
    if flags & mem_policy_flags::RELATIVE_NODES != 0 {
        return;
    }
    let nodes = mask.iter().enumerate().flat_map(|(at, byte)| {
        (0..8)
            .filter(move |bit| byte & (1 << bit) != 0)
            .map(move |bit| at * 8 + bit)
    });
    let mut missing = None;
    for node in nodes {
        // SAFETY: The function looks at the machine and the current task.
        let usable =
            u32::try_from(node).is_ok_and(|node| unsafe { bindings::checkpoint_node_usable(node) });
        if !usable {
            missing = Some(node);
        } else if flags & mem_policy_flags::STATIC_NODES != 0 {
            return;
        }
    }
    if let Some(node) = missing {
        report.problem(
            Place::Tree,
            fmt!("memory policy: node {node} has no memory for the caller"),
        );
    }
}

/// Gives the current task a policy, or the default one instead of what it has inherited.
///
/// # Errors
///
/// What set_mempolicy(2) says.
pub(crate) fn restore(wanted: Option<Wanted>) -> Result {
    let mut wanted = wanted;
    let policy = wanted.as_mut().map_or(ptr::null(), |wanted| wanted.get());
    // SAFETY: The policy is null or valid for the call.
    to_result(unsafe { bindings::checkpoint_set_mempolicy(policy) })
}
