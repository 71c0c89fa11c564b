// SPDX-License-Identifier: GPL-2.0

//! Processes: ids, limits, what threads share.
//!
//! The leader begins its process as soon as it is created, and finishes it when it is furnished.
//! Groups and sessions are the coordinator's: see `restart.rs`.
//!
//! Locks: `tasklist_lock`, while the members of a group are counted; `task_lock()` of the leader,
//! for limits.

use kernel::{
    bindings,
    ffi::c_void,
    prelude::*,
    task::Pid, //
};

use zerocopy::FromZeros;

use crate::{
    attributes,
    files::tty,
    hold::{
        Held,
        Still, //
    },
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
    task,
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

/// What the processes of an address space need to know of the first that has it.
pub(crate) struct First {
    tgid: Pid,
    pub(crate) parent: *mut bindings::task_struct,
    sighand: *mut bindings::sighand_struct,
    pub(crate) sem_undo: *const c_void,
}

/// Saves address space and signal actions of the process of `head`, a thread that has not ended.
///
/// At a restart a process is created either by its parent, or, with CLONE_PARENT, by the first
/// process that has the same address space, if that is its sibling. It gets an address space of
/// its own or that of its creator; and its own signal actions or, with the address space, those of
/// its creator. Who shares in another way is refused.
fn save_memory(saver: &mut Saver<'_>, head: &Held) -> Result<Option<(u32, u32)>> {
    let mm = mm::save(saver, head)?;
    // SAFETY: `head` keeps its task, which stands still as its parent in the tree does: pointers
    // are read, and those of others compared only.
    let (parent, sighand, parents_mm, parents_sighand) = unsafe {
        let task = head.as_raw();
        let parent = bindings::checkpoint_parent(task);
        let sighand = (*task).sighand;
        let within = saver.objects.get(Class::Task, parent).is_some();
        (
            parent,
            sighand,
            within && (*parent).mm == (*task).mm,
            within && (*parent).sighand == sighand,
        )
    };
    let own_actions = saver.objects.get(Class::Sighand, sighand).is_none();
    let actions = sighand::save(saver, head)?;
    let Some(mm) = mm else {
        return Ok(None);
    };
    let place = Place::Task(head.pid());
    match saver.spaces.get(&mm) {
        None if own_actions => {
            let first = First {
                tgid: head.tgid(),
                parent,
                sighand,
                // SAFETY: As above.
                sem_undo: unsafe { bindings::checkpoint_sem_undo(head.as_raw()) },
            };
            saver.spaces.try_create_and_insert(mm, first, GFP_KERNEL)?;
        }
        None => saver.refuse(
            place,
            fmt!("signal actions without the address space of another process: not supported"),
        ),
        Some(_) if parents_mm && (own_actions || parents_sighand) => {}
        Some(first) if first.parent == parent && (own_actions || first.sighand == sighand) => {}
        Some(first) => {
            let first = first.tgid;
            saver.refuse(
                place,
                fmt!("address space shared with distant process {first}: not supported"),
            );
        }
    }
    Ok(Some((mm, actions)))
}

/// Saves the process of `threads`, its leader first, and returns its number.
///
/// Returns `None` when something was refused.
pub(crate) fn save(saver: &mut Saver<'_>, threads: &[Held]) -> Result<Option<u32>> {
    let leader = threads.first().ok_or(ESRCH)?;
    let head = threads.iter().find(|held| held.state() != Still::Zombie);
    let (mm, sighand) = match head {
        Some(head) => match save_memory(saver, head)? {
            Some(saved) => saved,
            None => return Ok(None),
        },
        None => (0, 0),
    };
    let task = leader.as_raw();
    // SAFETY: `leader` keeps its task. Parents in the tree stand still, so that what the function
    // returns is one of those that were saved, or outside.
    let parent = unsafe { bindings::checkpoint_parent(task) };
    let parent = saver.objects.get(Class::Task, parent).unwrap_or(0);

    let (pgid, pgid_outside) = group(saver, leader, bindings::pid_type_PIDTYPE_PGID)?;
    let (sid, sid_outside) = group(saver, leader, bindings::pid_type_PIDTYPE_SID)?;
    // A group is part of one session: what is left of it in a session of the tree is one of the
    // tree.
    let pgid_outside = pgid_outside && sid_outside;
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
    let stop_signal = threads.iter().map(task::stop_signal).max().unwrap_or(0);
    // SAFETY: As above.
    let (signal_flags, group_exit_code) = unsafe {
        let signal = (*task).signal;
        if head.is_some() && bindings::checkpoint_is_subreaper(task) {
            flags |= process_flags::SUBREAPER;
        }
        ((*signal).flags, (*signal).group_exit_code)
    };
    if signal_flags & bindings::SIGNAL_STOP_STOPPED != 0 {
        flags |= process_flags::STOPPED;
    }
    if signal_flags & bindings::SIGNAL_STOP_CONTINUED != 0 {
        flags |= process_flags::CONTINUED;
    }
    let cpu_timer =
        |clock| head.map_or_else(Itimer::new_zeroed, |head| timers::cpu_itimer(head, clock));
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
        itimer_virtual: cpu_timer(bindings::CPUCLOCK_VIRT),
        itimer_prof: cpu_timer(bindings::CPUCLOCK_PROF),
        exit_code: (group_exit_code as u32 & 0xffff).into(),
        stop_signal: stop_signal.into(),
        ..Process::new_zeroed()
    };
    let id = saver.object(&record, &[])?;
    // SAFETY: As above; only the address is used.
    let signal = unsafe { (*task).signal };
    saver.objects.insert(Class::Process, signal, id)?;
    usage::save_process(saver, head.unwrap_or(leader), id)?;
    if let Some(head) = head {
        signals::save(saver, head, true, id)?;
        attributes::save_mm(saver, head, id)?;
        tty::save_controlling(saver, head, id)?;
    }
    Ok(Some(id))
}

/// Number of a process group or session, and whether it is one of outside the tree: led by a
/// process there, or, when its leader is gone, with a member there.
fn group(saver: &mut Saver<'_>, held: &Held, kind: bindings::pid_type) -> Result<(Pid, bool)> {
    // SAFETY: `held` keeps its task; null stands for the caller's pid namespace.
    let pid = unsafe { bindings::__task_pid_nr_ns(held.as_raw(), kind, core::ptr::null_mut()) };
    if saver.is_process(pid) {
        return Ok((pid, false));
    }
    if let Some(outside) = saver.groups.get(&(kind, pid)).copied() {
        return Ok((pid, outside));
    }
    let mut members = KVVec::new();
    let mut lives = false;
    let mut list = |members: &mut KVVec<Pid>| {
        // SAFETY: There is room for as many numbers as said.
        unsafe {
            bindings::checkpoint_group_members(
                pid,
                kind,
                members.as_mut_ptr(),
                members.len(),
                &mut lives,
            )
        }
    };
    // One of outside has more members than the tree has tasks, or one that is none of them.
    let mut count = list(&mut members);
    if count <= saver.tasks_len() {
        members.resize(count, 0, GFP_KERNEL)?;
        count = list(&mut members);
    }
    let outside = lives
        || count == 0
        || !members
            .get(..count)
            .is_some_and(|members| members.iter().all(|pid| saver.is_process(*pid)));
    saver
        .groups
        .try_create_and_insert((kind, pid), outside, GFP_KERNEL)?;
    Ok((pid, outside))
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

/// Gives the current task, the leader of its process, what it needs before it creates others, and
/// to build the process: limits that are the restarter's, or its own where they are higher.
pub(crate) fn begin(record: &Process) {
    let flags = record.flags.get();
    // SAFETY: The functions act on the current task.
    unsafe {
        if flags & process_flags::EXECED != 0 {
            bindings::checkpoint_set_execed();
        }
        if flags & process_flags::SUBREAPER != 0 {
            bindings::checkpoint_set_subreaper();
        }
    }
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
