// SPDX-License-Identifier: GPL-2.0

//! Processes: ids, limits, what threads share.

use kernel::{
    bindings,
    prelude::*,
    task::Pid, //
};

use zerocopy::FromZeros;

use crate::{
    attributes,
    hold::Held,
    image::record::{
        process_flags,
        Itimer,
        Process,
        Rlimit, //
    },
    mm,
    objects::Class,
    report::{
        Place,
        Report, //
    },
    save::Saver,
    sighand,
    signals,
    timers,
    usage, //
};

/// Names of the limits, in the order of their numbers.
const LIMITS: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// What a task takes over from its parent.
struct Inherited {
    limits: [Rlimit; 16],
    oom_score_adj: i32,
    oom_score_adj_min: i32,
}

impl Inherited {
    /// # Safety
    ///
    /// `task` is valid.
    unsafe fn of(task: *mut bindings::task_struct) -> Self {
        // SAFETY: By the safety requirement; a task keeps its `signal`. Each value is one word.
        unsafe {
            let signal = (*task).signal;
            Self {
                limits: (*signal).rlim.map(|limit| Rlimit {
                    cur: (limit.rlim_cur as u64).into(),
                    max: (limit.rlim_max as u64).into(),
                }),
                oom_score_adj: i32::from((*signal).oom_score_adj),
                oom_score_adj_min: i32::from((*signal).oom_score_adj_min),
            }
        }
    }
}

/// Refuses state of a process that has no place in an image.
fn refuse(saver: &mut Saver<'_>, held: &Held) {
    let place = Place::Task(held.pid());
    // SAFETY: `held` keeps its task, which keeps its `signal` and stands still.
    let found = unsafe {
        let signal = (*held.as_raw()).signal;
        [
            (
                bindings::checkpoint_is_subreaper(held.as_raw()),
                "PR_SET_CHILD_SUBREAPER",
            ),
            (
                (*signal).leader != 0 && !(*signal).tty.is_null(),
                "controlling terminal",
            ),
        ]
    };
    for (_, name) in found.iter().filter(|(found, _)| *found) {
        saver.refuse(place, fmt!("{name}: not supported"));
    }
}

/// Saves the process that `leader` leads, and returns its number.
///
/// Returns `None` when something was refused.
pub(crate) fn save(saver: &mut Saver<'_>, leader: &Held) -> Result<Option<u32>> {
    refuse(saver, leader);
    let mm = mm::save(saver, leader)?;
    let sighand = sighand::save(saver, leader)?;
    let Some(mm) = mm else {
        return Ok(None);
    };
    saver.own(leader, mm, "address space")?;
    saver.own(leader, sighand, "signal actions")?;
    let task = leader.as_raw();
    // SAFETY: `leader` keeps its task. Parents in the tree stand still, so that what the function
    // returns is one of those that were saved, or outside.
    let parent = unsafe { bindings::checkpoint_parent_signal(task) };
    let parent = saver.objects.get(Class::Process, parent).unwrap_or(0);

    let (pgid, pgid_outside) = group(saver, leader, bindings::pid_type_PIDTYPE_PGID);
    let (sid, sid_outside) = group(saver, leader, bindings::pid_type_PIDTYPE_SID);
    let mut flags = 0;
    if pgid_outside {
        flags |= process_flags::PGID_OUTSIDE;
    }
    if sid_outside {
        flags |= process_flags::SID_OUTSIDE;
    }
    // SAFETY: `leader` keeps its task, which stands still.
    let (inherited, exit_signal, forked, interval, remaining) = unsafe {
        let signal = (*task).signal;
        let timer = core::ptr::addr_of_mut!((*signal).real_timer);
        let remaining = if bindings::hrtimer_active(timer) {
            bindings::__hrtimer_get_remaining(timer, true).max(1)
        } else {
            0
        };
        (
            Inherited::of(task),
            bindings::checkpoint_exit_signal(task),
            (*task).flags & bindings::PF_FORKNOEXEC != 0,
            (*signal).it_real_incr,
            remaining,
        )
    };
    if !forked {
        flags |= process_flags::EXECED;
    }
    let record = Process {
        tgid: leader.tgid().into(),
        pgid: pgid.into(),
        sid: sid.into(),
        flags: flags.into(),
        parent: parent.into(),
        exit_signal: u32::try_from(exit_signal)?.into(),
        mm: mm.into(),
        sighand: sighand.into(),
        oom_score_adj: inherited.oom_score_adj.into(),
        oom_score_adj_min: inherited.oom_score_adj_min.into(),
        rlimits: inherited.limits,
        itimer_real: Itimer {
            interval_ns: u64::try_from(interval)?.into(),
            remaining_ns: u64::try_from(remaining)?.into(),
        },
        itimer_virtual: timers::cpu_itimer(leader, bindings::CPUCLOCK_VIRT),
        itimer_prof: timers::cpu_itimer(leader, bindings::CPUCLOCK_PROF),
        ..Process::new_zeroed()
    };
    let id = saver.object(&record, &[])?;
    // SAFETY: As above; only the address is used.
    saver
        .objects
        .insert(Class::Process, unsafe { (*task).signal }, id)?;
    signals::save(saver, leader, true, id)?;
    usage::save_process(saver, leader, id)?;
    attributes::save_mm(saver, leader, id)?;
    Ok(Some(id))
}

/// Number of a process group or session, and whether its leader is outside the tree.
fn group(saver: &Saver<'_>, held: &Held, kind: bindings::pid_type) -> (Pid, bool) {
    // SAFETY: `held` keeps its task; null stands for the caller's pid namespace.
    let pid = unsafe { bindings::__task_pid_nr_ns(held.as_raw(), kind, core::ptr::null_mut()) };
    (pid, !saver.is_process(pid))
}

/// Checks that the restarter may set what differs from its own.
pub(crate) fn check(record: &Process, report: &mut Report) {
    // SAFETY: The current task is valid; the function looks at its capabilities.
    let (own, privileged) = unsafe {
        (
            Inherited::of(bindings::get_current()),
            bindings::checkpoint_capable(bindings::CAP_SYS_RESOURCE as i32),
        )
    };
    if privileged {
        return;
    }
    let place = Place::Task(record.tgid.get());
    for ((name, image), own) in LIMITS.iter().zip(&record.rlimits).zip(&own.limits) {
        if image.max.get() > own.max.get() {
            let (image, own) = (Limit(image.max.get()), Limit(own.max.get()));
            report.problem(
                place,
                fmt!("RLIMIT_{name} is {image}, the caller's is {own}"),
            );
        }
    }
    if record.oom_score_adj.get() < own.oom_score_adj_min
        || record.oom_score_adj_min.get() < own.oom_score_adj_min
    {
        let image = record.oom_score_adj.get();
        let own = own.oom_score_adj_min;
        report.problem(
            place,
            fmt!("oom_score_adj is {image}, the caller's least is {own}"),
        );
    }
}

/// Sets the limits of the current task's process to what it takes to build it: the restarter's, or
/// its own where they are higher.
pub(crate) fn raise_limits(record: &Process) {
    // SAFETY: The current task is valid.
    let own = unsafe { Inherited::of(bindings::get_current()) };
    for ((number, image), own) in (0..).zip(&record.rlimits).zip(&own.limits) {
        let cur = image.cur.get().max(own.cur.get());
        let max = image.max.get().max(own.max.get());
        set_limit(number, cur, max);
    }
}

/// Gives the current task's process its limits, the last of what it takes to be built.
pub(crate) fn finish(record: &Process) {
    if record.flags.get() & process_flags::EXECED != 0 {
        // SAFETY: The function acts on the current task.
        unsafe { bindings::checkpoint_set_execed() };
    }
    for (number, limit) in (0..).zip(&record.rlimits) {
        set_limit(number, limit.cur.get(), limit.max.get());
    }
    let adj = i16::try_from(record.oom_score_adj.get()).unwrap_or(0);
    let min = i16::try_from(record.oom_score_adj_min.get()).unwrap_or(0);
    // SAFETY: The function acts on the current task; the restarter may set these, see `check`.
    unsafe { bindings::checkpoint_set_oom_score_adj(adj, min) };
}

fn set_limit(number: u32, cur: u64, max: u64) {
    // SAFETY: The function acts on the current task; there are as many limits as in the image.
    unsafe { bindings::checkpoint_set_rlimit(number, cur as usize, max as usize) };
}

/// A limit, for a message.
struct Limit(u64);

impl kernel::fmt::Display for Limit {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        match self.0 {
            u64::MAX => f.write_str("unlimited"),
            limit => write!(f, "{limit}"),
        }
    }
}
