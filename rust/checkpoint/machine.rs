// SPDX-License-Identifier: GPL-2.0

//! The machine a tree ran on, as far as the tree depends on it: CPU features, vdso, clocks, and the
//! namespaces that it shares with the caller.
//!
//! Checked with the plan. The time namespace, if one is needed, is that of the children of the
//! caller while the tree is built.
//!
//! Locks: `task_lock()`, while namespaces are compared.

use core::ptr::{
    self,
    NonNull, //
};

use kernel::{
    bindings,
    prelude::*, //
};

use zerocopy::FromZeros;

use crate::{
    hold::{
        Held,
        Still, //
    },
    image::record::Machine,
    registers,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// Longest build id.
const ID_LEN: usize = 20;

/// CLOCK_MONOTONIC and CLOCK_BOOTTIME in nanoseconds, as a task sees them.
#[derive(Clone, Copy)]
pub(crate) struct Clocks {
    monotonic: i64,
    boottime: i64,
}

impl Clocks {
    /// # Safety
    ///
    /// `task` is valid.
    unsafe fn of(task: *mut bindings::task_struct) -> Self {
        let (mut monotonic, mut boottime) = (0, 0);
        // SAFETY: By the safety requirement.
        unsafe { bindings::checkpoint_clocks(task, &mut monotonic, &mut boottime) };
        Self {
            monotonic,
            boottime,
        }
    }
}

/// By how much CLOCK_MONOTONIC and CLOCK_BOOTTIME are ahead for a task, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Offsets {
    pub(crate) monotonic: i64,
    pub(crate) boottime: i64,
}

impl Offsets {
    /// # Safety
    ///
    /// `task` is valid; the current one stands for its children.
    pub(crate) unsafe fn of(task: *mut bindings::task_struct) -> Self {
        let mut offsets = Self::default();
        // SAFETY: By the safety requirement.
        unsafe {
            bindings::checkpoint_clock_offsets(task, &mut offsets.monotonic, &mut offsets.boottime)
        };
        offsets
    }
}

fn vdso_id() -> ([u8; ID_LEN], u32) {
    let (mut id, mut len) = ([0; ID_LEN], 0);
    // SAFETY: `id` has room for the longest build id. Without one the length stays 0.
    unsafe { bindings::checkpoint_vdso_id(id.as_mut_ptr(), &mut len) };
    (id, len)
}

/// Saves the machine, and refuses tasks in other namespaces than the caller's.
pub(crate) fn save(saver: &mut Saver<'_>, tasks: &[Held]) -> Result {
    let lives = |held: &&Held| held.state() != Still::Zombie;
    let root = tasks.iter().find(lives).ok_or(ESRCH)?;
    for held in tasks {
        check_namespaces(saver, root, held);
    }
    // SAFETY: `root` keeps its task.
    let clocks = unsafe { Clocks::of(root.as_raw()) };
    saver.root = root.pid();
    // SAFETY: As above.
    saver.offsets = unsafe { Offsets::of(root.as_raw()) };
    let (vdso_id, vdso_id_len) = vdso_id();
    // SAFETY: The function only reads a clock.
    let realtime = unsafe { bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_REAL) };
    // SAFETY: The function only counts.
    let cpus = unsafe { bindings::checkpoint_cpus_online() };
    let record = Machine {
        xfeatures: registers::used(tasks).into(),
        realtime_ns: realtime.into(),
        monotonic_ns: clocks.monotonic.into(),
        boottime_ns: clocks.boottime.into(),
        vdso_id,
        vdso_id_len: vdso_id_len.into(),
        cpus_online: cpus.into(),
        ..Machine::new_zeroed()
    };
    // SAFETY: The names are those of the caller's uts namespace; each ends with a NUL.
    let (release, node) = unsafe {
        let uts = bindings::checkpoint_utsname();
        ((*uts).release, (*uts).nodename)
    };
    saver.put(&record, &[c_string(&release), c_string(&node)])
}

/// The string in a fixed array, with its NUL.
fn c_string(array: &[u8]) -> &[u8] {
    let len = array
        .iter()
        .position(|byte| *byte == 0)
        .map_or(array.len(), |nul| nul + 1);
    array.get(..len).unwrap_or(array)
}

/// Refuses a task that is in another namespace than the caller, whose namespaces a restart uses, or
/// whose children would be.
fn check_namespaces(saver: &mut Saver<'_>, root: &Held, held: &Held) {
    if held.state() == Still::Zombie {
        return;
    }
    // SAFETY: All three tasks are valid.
    let (theirs, ours, roots) = unsafe {
        (
            Namespaces::of(held.as_raw()),
            Namespaces::of(bindings::get_current()),
            Namespaces::of(root.as_raw()),
        )
    };
    let place = Place::Task(held.pid());
    for ((name, theirs), (_, ours)) in theirs.shared.iter().zip(&ours.shared) {
        if theirs != ours {
            saver.refuse(
                place,
                fmt!("another {name} namespace than the caller's: not supported"),
            );
        }
    }
    if theirs.pid_for_children != theirs.pid {
        saver.refuse(
            place,
            fmt!("another pid namespace for children: not supported"),
        );
    }
    if theirs.time != roots.time {
        saver.refuse(
            place,
            fmt!("another time namespace than the root's: not supported"),
        );
    }
    if theirs.time_for_children != theirs.time {
        saver.refuse(
            place,
            fmt!("another time namespace for children: not supported"),
        );
    }
}

/// Namespaces of a task by identity. The user namespace belongs to the credentials; a time
/// namespace is made anew where it is needed.
struct Namespaces {
    /// Those that are the caller's, by name.
    shared: [(&'static str, usize); 6],
    pid: usize,
    pid_for_children: usize,
    time: usize,
    time_for_children: usize,
}

impl Namespaces {
    /// # Safety
    ///
    /// `task` is valid.
    unsafe fn of(task: *mut bindings::task_struct) -> Self {
        // SAFETY: By the safety requirement; the lock keeps the nsproxy, null after exit.
        unsafe {
            let pid = bindings::task_active_pid_ns(task).addr();
            bindings::checkpoint_task_lock(task);
            let of = match NonNull::new((*task).nsproxy) {
                None => [0; 8],
                Some(proxy) => {
                    let proxy = proxy.as_ptr();
                    [
                        (*proxy).uts_ns.addr(),
                        (*proxy).ipc_ns.addr(),
                        (*proxy).mnt_ns.addr(),
                        (*proxy).net_ns.addr(),
                        (*proxy).cgroup_ns.addr(),
                        (*proxy).pid_ns_for_children.addr(),
                        (*proxy).time_ns.addr(),
                        (*proxy).time_ns_for_children.addr(),
                    ]
                }
            };
            bindings::checkpoint_task_unlock(task);
            let [uts, ipc, mount, network, cgroup, pid_for_children, time, time_for_children] = of;
            Self {
                shared: [
                    ("pid", pid),
                    ("uts", uts),
                    ("ipc", ipc),
                    ("mount", mount),
                    ("network", network),
                    ("cgroup", cgroup),
                ],
                pid,
                pid_for_children,
                time,
                time_for_children,
            }
        }
    }
}

/// Checks that this machine can go on with what ran on another.
pub(crate) fn check(record: &Machine, uses_vdso: bool, report: &mut Report) {
    registers::check(record.xfeatures.get(), report);
    let (id, len) = vdso_id();
    if uses_vdso && (record.vdso_id != id || record.vdso_id_len.get() != len) {
        report.problem(
            Place::Tree,
            fmt!("the vdso is that of another kernel build: not supported"),
        );
    }
}

/// A time namespace for the children of the current task, until this is dropped.
pub(crate) struct TimeNs(*mut bindings::nsproxy);

impl TimeNs {
    /// Keeps the clocks of `record` from going back: when they stand behind, children are born into
    /// a time namespace in which they go on.
    ///
    /// # Errors
    ///
    /// `EPERM`, with a line in `report`, when that is needed and not permitted.
    pub(crate) fn enter(
        record: &Machine,
        accept: bool,
        report: &mut Report,
    ) -> Result<Option<Self>> {
        // SAFETY: The current task is valid.
        let now = unsafe { Clocks::of(bindings::get_current()) };
        let monotonic = record.monotonic_ns.get().saturating_sub(now.monotonic);
        let boottime = record.boottime_ns.get().saturating_sub(now.boottime);
        if accept || (monotonic <= 0 && boottime <= 0) {
            return Ok(None);
        }
        let mut old = ptr::null_mut();
        // SAFETY: The current task waits for its children in this call, and gets its own back.
        let err = unsafe {
            bindings::checkpoint_enter_time_ns(monotonic.max(0), boottime.max(0), &mut old)
        };
        kernel::error::to_result(err).inspect_err(|err| {
            report.problem(
                Place::Tree,
                fmt!(
                    "CLOCK_MONOTONIC would go back by {} s, and a time namespace cannot be made \
                     ({err:?}); --clocks=keep accepts it",
                    monotonic.max(boottime) / 1_000_000_000
                ),
            );
        })?;
        Ok(Some(Self(old)))
    }
}

impl Drop for TimeNs {
    fn drop(&mut self) {
        // SAFETY: The reference came with `enter`.
        unsafe { bindings::checkpoint_leave_time_ns(self.0) };
    }
}
