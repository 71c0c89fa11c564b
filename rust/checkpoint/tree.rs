// SPDX-License-Identifier: GPL-2.0

//! The tasks of a tree: a process, its threads and all their descendants.

use core::ptr::NonNull;

use kernel::{
    bindings,
    prelude::*,
    sync::aref::ARef,
    task::Task, //
};

/// Capacity of the first walk.
const FIRST: usize = 64;

/// All threads of the process of `root` and of its descendants, parents before children, a leader
/// before its other threads, each in the order of creation. Zombies are among them. Empty when
/// the process was reaped.
///
/// Takes `tasklist_lock` for reading. Tasks that are free to run may fork right afterwards.
pub(crate) fn walk(root: &Task) -> Result<KVVec<ARef<Task>>> {
    let mut room = FIRST;

    loop {
        let mut raw = KVVec::<*mut bindings::task_struct>::with_capacity(room, GFP_KERNEL)?;
        let mut tasks = KVVec::with_capacity(room, GFP_KERNEL)?;

        // SAFETY: `root` is a valid task, and there is room for `room` pointers.
        let len = unsafe { bindings::checkpoint_walk_tree(root.as_ptr(), raw.as_mut_ptr(), room) };
        if len > room {
            // `len` is where the walk stopped, so this may take several rounds.
            room = len.checked_mul(2).ok_or(ENOMEM)?;
            continue;
        }
        for i in 0..len {
            // SAFETY: The walk filled in the first `len` pointers, `len <= room`.
            let task = unsafe { raw.as_ptr().add(i).read() };
            // SAFETY: The pointer is not null, and comes with a reference that is ours.
            let task = unsafe { ARef::from_raw(NonNull::new_unchecked(task.cast::<Task>())) };

            if let Err(e) = tasks.push_within_capacity(task) {
                // Cannot happen: `tasks` has room for `room` entries.
                drop(e);
            }
        }
        return Ok(tasks);
    }
}

/// Whether both lists have the same tasks in the same order.
pub(crate) fn same(a: &[ARef<Task>], b: &[ARef<Task>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.as_ptr() == b.as_ptr())
}
