// SPDX-License-Identifier: GPL-2.0

//! The tasks of a tree, or of several: processes, their threads and all their descendants.
//!
//! Locks: `tasklist_lock` (read), while they are listed.

use core::ptr::NonNull;

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    sync::aref::ARef,
    task::Task, //
};

/// Which processes are meant, besides their descendants.
///
/// # Invariants
///
/// The struct is as one of the functions that make one has left it, and keeps what it refers to.
pub(crate) struct Scope(bindings::checkpoint_scope);

// SAFETY: References to tasks, pids, namespaces and cgroups may be used and let go by any task.
unsafe impl Send for Scope {}
// SAFETY: Nothing in it changes.
unsafe impl Sync for Scope {}

impl Scope {
    /// That of descriptor `fd` of the caller.
    ///
    /// # Errors
    ///
    /// `EBADF`: it is no descriptor of the right kind. `ESRCH`: the process is gone, or the caller
    /// does not see it.
    pub(crate) fn of_fd(kind: bindings::checkpoint_scope_kind, fd: i32) -> Result<Self> {
        let mut scope = bindings::checkpoint_scope::default();
        // SAFETY: The function fills in the struct, with references, or fails.
        to_result(unsafe { bindings::checkpoint_get_scope(&mut scope, kind, fd) })?;
        // INVARIANT: It has.
        Ok(Self(scope))
    }

    /// The processes of `roots`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The tasks are valid.
    pub(crate) unsafe fn of_trees(roots: &[NonNull<bindings::task_struct>]) -> Result<Self> {
        let mut scope = bindings::checkpoint_scope::default();
        // SAFETY: The function makes room for as many tasks.
        to_result(unsafe { bindings::checkpoint_trees(&mut scope, roots.len()) })?;
        for (index, root) in roots.iter().enumerate() {
            // SAFETY: There is room; the task is valid by the safety requirement.
            unsafe {
                bindings::get_task_struct(root.as_ptr());
                *scope.__bindgen_anon_1.roots.add(index) = root.as_ptr();
            };
        }
        // INVARIANT: All roots are there, with references.
        Ok(Self(scope))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::checkpoint_put_scope(&mut self.0) };
    }
}

/// Capacity of the first walk.
const FIRST: usize = 64;

/// All threads of the processes of `scope` and of their descendants, parents before children, a
/// leader before its other threads, each in the order of creation. Zombies are among them. Empty
/// when all were reaped.
///
/// Takes `tasklist_lock` for reading. Tasks that are free to run may fork right afterwards.
pub(crate) fn walk(scope: &Scope) -> Result<KVVec<ARef<Task>>> {
    let mut room = FIRST;

    loop {
        let mut raw = KVVec::<*mut bindings::task_struct>::with_capacity(room, GFP_KERNEL)?;
        let mut tasks = KVVec::with_capacity(room, GFP_KERNEL)?;

        // SAFETY: `scope` is valid, and there is room for `room` pointers.
        let len = unsafe { bindings::checkpoint_walk(&scope.0, raw.as_mut_ptr(), room) };
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
