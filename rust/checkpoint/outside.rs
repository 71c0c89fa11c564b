// SPDX-License-Identifier: GPL-2.0

//! What tasks of a tree share with tasks outside of it, which a restart would have to split: it is
//! refused.
//!
//! No locks: those who use a table are listed under RCU.

use kernel::{
    bindings,
    prelude::*,
    rbtree::RBTree, //
};

use crate::{
    hold::{
        Held,
        Still, //
    },
    report::Place,
    save::Saver, //
};

/// What tasks share by reference, and its name.
const TABLES: [(bindings::checkpoint_table, &str); 4] = [
    (
        bindings::checkpoint_table_CHECKPOINT_TABLE_MM,
        "address space",
    ),
    (
        bindings::checkpoint_table_CHECKPOINT_TABLE_FILES,
        "descriptor table",
    ),
    (
        bindings::checkpoint_table_CHECKPOINT_TABLE_FS,
        "working directory",
    ),
    (
        bindings::checkpoint_table_CHECKPOINT_TABLE_SIGHAND,
        "signal actions",
    ),
];

/// More users than were counted before there may be when they are listed.
const SLACK: usize = 64;

/// Refuses what others than `tasks` have, too. References that no task has are transient, as those
/// of somebody who looks at /proc.
pub(crate) fn check(saver: &mut Saver<'_>, tasks: &[Held]) -> Result {
    for (table, name) in TABLES {
        let mut users: RBTree<usize, (usize, &Held)> = RBTree::new();
        for held in tasks.iter().filter(|held| held.state() != Still::Zombie) {
            // SAFETY: `held` keeps its task, which stands still.
            let address = unsafe { bindings::checkpoint_table(held.as_raw(), table) }.addr();
            match users.get_mut(&address) {
                Some((count, _)) => *count += 1,
                None => {
                    users.try_create_and_insert(address, (1, held), GFP_KERNEL)?;
                }
            }
        }
        for (_, (count, held)) in users.iter() {
            // SAFETY: As above.
            let all = unsafe { bindings::checkpoint_table_users(held.as_raw(), table) };
            if all <= *count {
                continue;
            }
            let mut pids = KVVec::from_elem(0, all + SLACK, GFP_KERNEL)?;
            // SAFETY: As above; there is room for as many numbers as said.
            let found = unsafe {
                bindings::checkpoint_find_users(held.as_raw(), table, pids.as_mut_ptr(), pids.len())
            };
            let outside = pids
                .iter()
                .take(found)
                .find(|pid| !saver.is_task(**pid))
                .copied();
            if let Some(pid) = outside {
                saver.refuse(
                    Place::Task(held.pid()),
                    fmt!("{name} shared with task {pid} outside the tree: not supported"),
                );
            }
        }
    }
    Ok(())
}
