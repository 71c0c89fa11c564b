// SPDX-License-Identifier: GPL-2.0

//! Who may checkpoint, and what.
//!
//! Whoever may attach to a task with ptrace may checkpoint it: checked for each task before it is
//! made to stop, and again once all stand still, because a task may execute a set-id program in
//! between.

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    task::Task, //
};

/// May the caller use checkpoint(2) and restart(2) at all?
///
/// EPERM: the caller has a seccomp filter (one that denies by list passes system calls it has
/// never heard of), or `kernel.checkpoint_unprivileged` is 0, and it has no CAP_CHECKPOINT_RESTORE
/// in the initial user namespace.
pub(crate) fn caller() -> Result {
    // SAFETY: These look at `current` and a global, and have no preconditions.
    let restricted = unsafe {
        bindings::checkpoint_caller_filtered() || !bindings::checkpoint_unprivileged_allowed()
    };
    // SAFETY: As above.
    if restricted && !unsafe { bindings::checkpoint_caller_capable() } {
        return Err(EPERM);
    }
    Ok(())
}

/// May the caller make `task` stop? EPERM if not.
pub(crate) fn may_stop(task: &Task) -> Result {
    // SAFETY: `task` is a valid task.
    to_result(unsafe { bindings::checkpoint_task_access(task.as_ptr(), false) })
}

/// May the caller read `task`, which stands still?
///
/// Takes `exec_update_lock`, so that the answer belongs to the mm and the credentials that the
/// task has. EPERM if not, EINTR if the caller is killed.
pub(crate) fn may_read(task: &Task) -> Result {
    // SAFETY: `task` is a valid task.
    to_result(unsafe { bindings::checkpoint_task_access(task.as_ptr(), true) })
}
