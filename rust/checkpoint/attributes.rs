// SPDX-License-Identifier: GPL-2.0

//! What a program has set of its tasks and its address space by prctl(2), sched_setattr(2) and
//! membarrier(2): bits of the records of tasks, and records of their own for what few programs
//! have.
//!
//! Restored while a task is furnished: options that mappings have to find before these, the other
//! ones after; policy and nice when nothing but the credentials is left.
//!
//! Locks: `mmap_lock` (write), for the options of an address space.

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    str::CStr, //
};

use zerocopy::{
    FromZeros,
    IntoBytes, //
};

use crate::{
    hold::Held,
    image::record::{
        mm_options,
        sched,
        scheduling_flags,
        task_flags,
        Dispatch,
        MmOptions,
        Scheduling,
        Task, //
    },
    mm::MmRef,
    numbers::Bits,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

const TASK: Bits = Bits(&[
    (bindings::CHECKPOINT_TASK_NO_TSC, task_flags::NO_TSC),
    (bindings::CHECKPOINT_TASK_MCE_POLICY, task_flags::MCE_POLICY),
    (bindings::CHECKPOINT_TASK_MCE_EARLY, task_flags::MCE_EARLY),
    (bindings::CHECKPOINT_TASK_IO_FLUSHER, task_flags::IO_FLUSHER),
]);

const MM: Bits = Bits(&[
    (bindings::CHECKPOINT_MM_NO_THP, mm_options::NO_THP),
    (bindings::CHECKPOINT_MM_ADVISED_THP, mm_options::ADVISED_THP),
    (bindings::CHECKPOINT_MM_MERGE, mm_options::MERGE),
    (bindings::CHECKPOINT_MM_MDWE, mm_options::MDWE),
    (
        bindings::CHECKPOINT_MM_MDWE_NO_INHERIT,
        mm_options::MDWE_NO_INHERIT,
    ),
    (bindings::CHECKPOINT_MM_FUTEX_HASH, mm_options::FUTEX_HASH),
    (
        bindings::CHECKPOINT_MM_MEMBARRIER_PRIVATE,
        mm_options::MEMBARRIER_PRIVATE,
    ),
    (
        bindings::CHECKPOINT_MM_MEMBARRIER_GLOBAL,
        mm_options::MEMBARRIER_GLOBAL,
    ),
    (
        bindings::CHECKPOINT_MM_MEMBARRIER_CORE,
        mm_options::MEMBARRIER_CORE,
    ),
    (
        bindings::CHECKPOINT_MM_MEMBARRIER_RSEQ,
        mm_options::MEMBARRIER_RSEQ,
    ),
]);

const SCHEDULING: Bits = Bits(&[
    (bindings::SCHED_FLAG_RECLAIM, scheduling_flags::RECLAIM),
    (bindings::SCHED_FLAG_DL_OVERRUN, scheduling_flags::OVERRUN),
    (
        bindings::SCHED_FLAG_UTIL_CLAMP_MIN,
        scheduling_flags::CLAMP_MIN,
    ),
    (
        bindings::SCHED_FLAG_UTIL_CLAMP_MAX,
        scheduling_flags::CLAMP_MAX,
    ),
]);

/// How a task is scheduled.
///
/// # Safety
///
/// `task` is valid.
unsafe fn sched_attr(task: *mut bindings::task_struct) -> bindings::sched_attr {
    let mut attr = bindings::sched_attr::default();
    // SAFETY: By the safety requirement.
    unsafe { bindings::checkpoint_sched_attr(task, &mut attr) };
    attr
}

/// The bits of [`Task::flags`] of `held`.
pub(crate) fn flags(held: &Held) -> u32 {
    // SAFETY: `held` keeps its task, which stands still.
    unsafe {
        let reset = (*held.as_raw()).sched_reset_on_fork() != 0;
        TASK.to_image(bindings::checkpoint_task_attributes(held.as_raw()))
            | if reset {
                task_flags::SCHED_RESET_ON_FORK
            } else {
                0
            }
    }
}

/// Saves what few tasks have, for `held`, task number `id`.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held, id: u32) -> Result {
    let mut dispatch = [0; 3];
    let [offset, len, selector] = &mut dispatch;
    // SAFETY: `held` keeps its task, which stands still.
    if unsafe { bindings::checkpoint_user_dispatch(held.as_raw(), offset, len, selector) } {
        let record = Dispatch {
            task: id.into(),
            reserved: 0.into(),
            offset: (*offset).into(),
            len: (*len).into(),
            selector: (*selector).into(),
        };
        saver.put(&record, &[])?;
    }
    // SAFETY: As above.
    let attr = unsafe { sched_attr(held.as_raw()) };
    let record = Scheduling {
        task: id.into(),
        flags: SCHEDULING.to_image(u32::try_from(attr.sched_flags)?).into(),
        runtime_ns: attr.sched_runtime.into(),
        deadline_ns: attr.sched_deadline.into(),
        period_ns: attr.sched_period.into(),
        clamp_min: attr.sched_util_min.into(),
        clamp_max: attr.sched_util_max.into(),
    };
    let nothing = Scheduling {
        task: id.into(),
        ..Scheduling::new_zeroed()
    };
    if record.as_bytes() != nothing.as_bytes() {
        saver.put(&record, &[])?;
    }
    Ok(())
}

/// Saves the options of the address space of the process that `leader` leads, number `id`.
pub(crate) fn save_mm(saver: &mut Saver<'_>, leader: &Held, id: u32) -> Result {
    // SAFETY: `leader` keeps its task.
    let mm = unsafe { MmRef::of(leader.as_raw()) }?;
    let mut slots = 0;
    // SAFETY: `mm` is valid.
    let options = unsafe { bindings::checkpoint_mm_options(mm.as_raw(), &mut slots) };
    if options == 0 {
        return Ok(());
    }
    let record = MmOptions {
        process: id.into(),
        flags: MM.to_image(options).into(),
        futex_slots: slots.into(),
        reserved: 0.into(),
    };
    saver.put(&record, &[])
}

/// Checks that tasks would not take over from the caller what no image has.
pub(crate) fn check_caller(report: &mut Report) {
    let mut at = 0;
    loop {
        // SAFETY: The function looks at the current task; the names are constants.
        let name = unsafe { bindings::checkpoint_inherited_blocker(&mut at) };
        if name.is_null() {
            return;
        }
        // SAFETY: As above.
        let name = unsafe { CStr::from_char_ptr(name) };
        report.problem(
            Place::Tree,
            fmt!("it would take over from the caller: {name}"),
        );
    }
}

/// Checks that the restarter may set what differs from its own.
pub(crate) fn check(record: &Task, cpus: &[u8], report: &mut Report) -> Result {
    let place = Place::Task(record.tid.get());
    let mut words = KVec::new();
    for word in cpus.chunks_exact(8) {
        words.push(
            u64::from_le_bytes(word.try_into().map_err(|_| EINVAL)?),
            GFP_KERNEL,
        )?;
    }
    let count = u32::try_from(words.len())?;
    // SAFETY: The set has as many words as the function is told.
    if !unsafe { bindings::checkpoint_has_cpu(words.as_ptr(), count) } {
        report.problem(place, fmt!("none of the CPUs that it may run on is there"));
    }
    // SAFETY: These look at the current task.
    let (own, nice_allowed, resource_allowed) = unsafe {
        let task = bindings::get_current();
        (
            (bindings::checkpoint_task_attributes(task), sched_attr(task)),
            bindings::checkpoint_capable(bindings::CAP_SYS_NICE as i32),
            bindings::checkpoint_capable(bindings::CAP_SYS_RESOURCE as i32),
        )
    };
    let io_flusher = own.0 & bindings::CHECKPOINT_TASK_IO_FLUSHER != 0;
    if (record.flags.get() & task_flags::IO_FLUSHER != 0) != io_flusher && !resource_allowed {
        report.problem(place, fmt!("PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE"));
    }
    if record.sched_policy.get() == sched::DEADLINE && !nice_allowed {
        report.problem(place, fmt!("SCHED_DEADLINE needs CAP_SYS_NICE"));
    }
    let left = own.1.sched_flags & u64::from(bindings::SCHED_FLAG_RESET_ON_FORK) != 0
        && record.flags.get() & task_flags::SCHED_RESET_ON_FORK == 0;
    if left && !nice_allowed {
        report.problem(
            place,
            fmt!("the caller has SCHED_RESET_ON_FORK, and may not give it up"),
        );
    }
    Ok(())
}

/// Checks that the restarter does not leave to its children what they cannot give up.
pub(crate) fn check_mm(record: Option<&MmOptions>, place: Place, report: &mut Report) -> Result {
    // SAFETY: The current task is valid.
    let own = unsafe { MmRef::of(bindings::get_current()) }?;
    let mut slots = 0;
    // SAFETY: `own` is valid.
    let own = unsafe { bindings::checkpoint_mm_options(own.as_raw(), &mut slots) };
    let inherits = bindings::CHECKPOINT_MM_MDWE | bindings::CHECKPOINT_MM_MDWE_NO_INHERIT;
    let flags = record.map_or(0, |record| record.flags.get());
    if own & inherits == bindings::CHECKPOINT_MM_MDWE && flags & mm_options::MDWE == 0 {
        report.problem(place, fmt!("PR_SET_MDWE is not set, the caller's is"));
    }
    Ok(())
}

/// Gives the current task what it has set of itself.
///
/// # Errors
///
/// What prctl(2) says.
pub(crate) fn restore(record: &Task, dispatch: Option<&Dispatch>) -> Result {
    // SAFETY: The functions act on the current task.
    unsafe {
        to_result(bindings::checkpoint_set_task_attributes(
            TASK.to_kernel(record.flags.get()),
        ))?;
        if let Some(dispatch) = dispatch {
            to_result(bindings::checkpoint_set_user_dispatch(
                dispatch.offset.get(),
                dispatch.len.get(),
                dispatch.selector.get(),
            ))?;
        }
    }
    Ok(())
}

/// Gives the current task its place among those that want to run, as far as it differs from the
/// restarter's.
///
/// # Errors
///
/// What sched_setattr(2) says.
pub(crate) fn restore_scheduling(record: &Task, more: Option<&Scheduling>) -> Result {
    // SAFETY: The current task is valid, and only it changes these.
    let own = unsafe { sched_attr(bindings::get_current()) };
    let flags = more.map_or(0, |more| SCHEDULING.to_kernel(more.flags.get()));
    let reset = if record.flags.get() & task_flags::SCHED_RESET_ON_FORK != 0 {
        bindings::SCHED_FLAG_RESET_ON_FORK
    } else {
        0
    };
    let mut attr = bindings::sched_attr {
        sched_policy: record.sched_policy.get(),
        sched_flags: u64::from(flags | reset),
        sched_nice: record.nice.get(),
        sched_priority: record.rt_priority.get(),
        sched_runtime: more.map_or(0, |more| more.runtime_ns.get()),
        sched_deadline: more.map_or(0, |more| more.deadline_ns.get()),
        sched_period: more.map_or(0, |more| more.period_ns.get()),
        sched_util_min: more.map_or(0, |more| more.clamp_min.get()),
        sched_util_max: more.map_or(0, |more| more.clamp_max.get()),
        ..own
    };
    if is_same(&attr, &own) {
        return Ok(());
    }
    // What the restarter has clamped is given up.
    let clamps =
        u64::from(bindings::SCHED_FLAG_UTIL_CLAMP_MIN | bindings::SCHED_FLAG_UTIL_CLAMP_MAX);
    let given_up = own.sched_flags & clamps & !attr.sched_flags;
    attr.sched_flags |= given_up;
    if given_up & u64::from(bindings::SCHED_FLAG_UTIL_CLAMP_MIN) != 0 {
        attr.sched_util_min = u32::MAX;
    }
    if given_up & u64::from(bindings::SCHED_FLAG_UTIL_CLAMP_MAX) != 0 {
        attr.sched_util_max = u32::MAX;
    }
    let fair = [sched::OTHER, sched::BATCH, sched::IDLE].contains(&attr.sched_policy);
    // SAFETY: The current task is valid, and the attributes are checked as those of a system call.
    unsafe {
        let task = bindings::get_current();
        if !fair && attr.sched_nice != own.sched_nice {
            // The nice value of other policies is that of the time before.
            let nice = bindings::sched_attr {
                sched_policy: sched::OTHER,
                sched_nice: attr.sched_nice,
                size: own.size,
                ..Default::default()
            };
            to_result(bindings::sched_setattr(task, &nice))?;
        }
        to_result(bindings::sched_setattr(task, &attr))
    }
}

fn is_same(a: &bindings::sched_attr, b: &bindings::sched_attr) -> bool {
    (
        a.sched_policy,
        a.sched_flags,
        a.sched_nice,
        a.sched_priority,
        a.sched_util_min,
        a.sched_util_max,
    ) == (
        b.sched_policy,
        b.sched_flags,
        b.sched_nice,
        b.sched_priority,
        b.sched_util_min,
        b.sched_util_max,
    ) && (a.sched_runtime, a.sched_deadline, a.sched_period)
        == (b.sched_runtime, b.sched_deadline, b.sched_period)
}

/// Gives the address space of the current task the options that its mappings take over: before it
/// has any.
///
/// # Errors
///
/// `EINTR`, `ENOMEM`.
pub(crate) fn prepare_mm(record: Option<&MmOptions>) -> Result {
    let wanted = record.map_or(0, |record| MM.to_kernel(record.flags.get()));
    // SAFETY: The function acts on the current task, which has not been in user mode.
    to_result(unsafe { bindings::checkpoint_prepare_mm_options(wanted) })
}

/// Gives it the others.
///
/// # Errors
///
/// What membarrier(2) and prctl(2) say.
pub(crate) fn finish_mm(record: Option<&MmOptions>) -> Result {
    let Some(record) = record else {
        return Ok(());
    };
    let wanted = MM.to_kernel(record.flags.get());
    // SAFETY: As above.
    to_result(unsafe { bindings::checkpoint_finish_mm_options(wanted, record.futex_slots.get()) })
}
