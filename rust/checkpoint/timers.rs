// SPDX-License-Identifier: GPL-2.0

//! POSIX timers, and those of setitimer(2).
//!
//! Timers of CLOCK_MONOTONIC and CLOCK_BOOTTIME, and relative ones of CLOCK_REALTIME, go on with
//! the time that was left: between checkpoint and restart no time passes for the tree. Absolute
//! timers of CLOCK_REALTIME, and all of CLOCK_TAI, which the kernel does not tell apart, name a
//! moment of the outside world: they keep it, and one that has passed expires at once. Those that
//! count CPU time expire after as much of it as they would have.
//!
//! They run while the tree stands still. So what is read of a timer comes after the pending
//! signals: a signal that is in their record says where it stands in its queue, and the timer
//! whether it is there at all.
//!
//! A process makes its timers while it is furnished. The coordinator starts those of all, as its
//! last step.
//!
//! Locks: that of a timer, then `siglock`, by the kernel's own functions.

use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

use zerocopy::{
    FromZeros,
    IntoBytes, //
};

use crate::{
    hold::Held,
    image::record::{
        timer_clock,
        timer_flags,
        timer_notify,
        Itimer,
        Process,
        Timer,
        Timers, //
    },
    numbers::Numbers,
    report::Place,
    save::Saver,
    sort, //
};

/// The clocks that do not count CPU time, by their numbers in the image.
const CLOCKS: Numbers = Numbers(&[
    (bindings::CLOCK_REALTIME, timer_clock::REALTIME),
    (bindings::CLOCK_MONOTONIC, timer_clock::MONOTONIC),
    (bindings::CLOCK_BOOTTIME, timer_clock::BOOTTIME),
    (bindings::CLOCK_TAI, timer_clock::TAI),
]);

/// Kinds of notification, by their numbers in the image.
const NOTIFY: Numbers = Numbers(&[
    (bindings::SIGEV_SIGNAL, timer_notify::SIGNAL),
    (bindings::SIGEV_NONE, timer_notify::NONE),
    (bindings::SIGEV_THREAD, timer_notify::THREAD),
    (bindings::SIGEV_THREAD_ID, timer_notify::THREAD_ID),
]);

/// Bits of the clocks that count CPU time: what they count, and that it is that of a thread. The
/// others are the inverted number of the task, of which 0 stands for the caller.
const CPU_WHICH: i32 = 3;
const CPU_THREAD: i32 = 4;
const CPU_KINDS: u32 = 3;

/// The clock of a timer in the image's form, and whether it is named without a number.
fn clock(state: &bindings::posix_timer_saved) -> Option<(u32, bool)> {
    if state.clock >= 0 {
        return Some((CLOCKS.to_image(u32::try_from(state.clock).ok()?)?, false));
    }
    let which = u32::try_from(state.clock & CPU_WHICH).ok()?;
    let first = if state.clock & CPU_THREAD != 0 {
        timer_clock::THREAD_PROF
    } else {
        timer_clock::PROCESS_PROF
    };
    (which < CPU_KINDS).then_some((first + which, state.clock >> 3 == !0))
}

/// The clock of `timer` as the kernel has it.
fn kernel_clock(timer: &Timer) -> Result<i32> {
    if !timer.counts_cpu_time() {
        return Ok(i32::try_from(CLOCKS.to_kernel(timer.clock.get())?)?);
    }
    let kind = timer.clock.get() - timer_clock::PROCESS_PROF;
    let task = if timer.flags.get() & timer_flags::OWN_CLOCK != 0 {
        0
    } else {
        timer.clock_task.get()
    };
    let thread = if kind < CPU_KINDS { 0 } else { CPU_THREAD };
    Ok(!task << 3 | thread | i32::try_from(kind % CPU_KINDS)?)
}

fn to_record(state: &bindings::posix_timer_saved, clock: u32, own_clock: bool) -> Result<Timer> {
    let bits = [
        (state.armed, timer_flags::ARMED),
        (state.requeue, timer_flags::REQUEUE),
        (state.queued, timer_flags::QUEUED),
        (state.ignored, timer_flags::IGNORED),
        (state.stale, timer_flags::STALE),
        (state.absolute, timer_flags::ABSOLUTE),
        (own_clock, timer_flags::OWN_CLOCK),
    ];
    let set = bits.iter().filter(|(set, _)| *set);
    let flags = set.fold(0, |flags, (_, bit)| flags | bit);
    let notify = NOTIFY
        .to_image(u32::try_from(state.notify)?)
        .ok_or(EINVAL)?;
    let one_thread = notify == timer_notify::THREAD_ID;
    Ok(Timer {
        id: u32::try_from(state.id)?.into(),
        clock: clock.into(),
        clock_task: state.clock_task.into(),
        notify: notify.into(),
        signo: state.signo.into(),
        notify_task: (if one_thread { state.notify_task } else { 0 }).into(),
        flags: flags.into(),
        reserved: 0.into(),
        value: state.value.into(),
        interval_ns: u64::try_from(state.interval)?.into(),
        expires_ns: state.expires.into(),
        overrun: state.overrun.into(),
        overrun_last: state.overrun_last.into(),
    })
}

fn from_record(timer: &Timer) -> Result<bindings::posix_timer_saved> {
    let has = |bit: u32| timer.flags.get() & bit != 0;
    Ok(bindings::posix_timer_saved {
        id: i32::try_from(timer.id.get())?,
        clock: kernel_clock(timer)?,
        notify: i32::try_from(NOTIFY.to_kernel(timer.notify.get())?)?,
        signo: timer.signo.get(),
        notify_task: timer.notify_task.get(),
        clock_task: timer.clock_task.get(),
        value: timer.value.get(),
        armed: has(timer_flags::ARMED),
        requeue: has(timer_flags::REQUEUE),
        queued: has(timer_flags::QUEUED),
        ignored: has(timer_flags::IGNORED),
        stale: has(timer_flags::STALE),
        absolute: has(timer_flags::ABSOLUTE),
        interval: i64::try_from(timer.interval_ns.get())?,
        expires: timer.expires_ns.get(),
        overrun: timer.overrun.get(),
        overrun_last: timer.overrun_last.get(),
    })
}

/// The POSIX timers of the process of `leader`.
fn read(leader: &Held) -> Result<KVVec<bindings::posix_timer_saved>> {
    let mut states = KVVec::new();
    loop {
        // SAFETY: `leader` keeps its task, which stands still; the states have room for as many.
        let count = unsafe {
            bindings::posix_timers_save(
                leader.as_raw(),
                states.as_mut_ptr(),
                u32::try_from(states.len())?,
            )
        };
        let count = usize::try_from(count)?;
        if count <= states.len() {
            states.truncate(count);
            return Ok(states);
        }
        states.resize(count, bindings::posix_timer_saved::default(), GFP_KERNEL)?;
    }
}

/// Saves the POSIX timers of the process that `leader` leads, number `id`. Its pending signals come
/// before.
pub(crate) fn save(saver: &mut Saver<'_>, leader: &Held, id: u32) -> Result {
    let place = Place::Task(leader.pid());
    let mut timers = KVVec::new();
    for state in read(leader)? {
        let number = state.id;
        let Some((clock, own)) = clock(&state) else {
            let clock = state.clock;
            saver.refuse(
                place,
                fmt!("POSIX timer {number} of clock {clock}: not supported"),
            );
            continue;
        };
        if state.notify_task == 0 {
            saver.refuse(
                place,
                fmt!("POSIX timer {number} of a thread that has ended: not supported"),
            );
            continue;
        }
        if clock >= timer_clock::PROCESS_PROF && !saver.is_task(state.clock_task) {
            saver.refuse(
                place,
                fmt!("POSIX timer {number} of a task outside the tree: not supported"),
            );
            continue;
        }
        timers.push(to_record(&state, clock, own)?, GFP_KERNEL)?;
    }
    sort::by_key(&mut timers, |timer: &Timer| timer.id.get());
    let mut chosen = false;
    // SAFETY: `leader` keeps its task, which keeps its `signal`.
    let next = unsafe { bindings::checkpoint_timer_ids(leader.as_raw(), &mut chosen) };
    if timers.is_empty() && next == 0 && !chosen {
        return Ok(());
    }
    let record = Timers {
        process: id.into(),
        count: u32::try_from(timers.len())?.into(),
        next_id: next.into(),
        chooses_ids: u32::from(chosen).into(),
    };
    saver.put(&record, &[timers.as_bytes()])
}

/// Makes the POSIX timers of the current task's process anew. They do not run yet.
///
/// # Errors
///
/// What timer_create(2) says.
pub(crate) fn create(record: &Timers, timers: &[Timer]) -> Result {
    for timer in timers {
        // SAFETY: The function acts on the current task.
        to_result(unsafe { bindings::posix_timer_recreate(&from_record(timer)?) })?;
    }
    // SAFETY: As above.
    unsafe {
        bindings::checkpoint_set_timer_ids(record.next_id.get(), record.chooses_ids.get() != 0)
    };
    Ok(())
}

/// Puts the signal of POSIX timer number `id` at the end of its queue.
///
/// # Safety
///
/// `task` is valid, and has not been in user mode.
pub(crate) unsafe fn queue(task: *mut bindings::task_struct, timers: &[Timer], id: u32) -> Result {
    let found = timers.binary_search_by_key(&id, |timer| timer.id.get());
    let timer = found.ok().and_then(|found| timers.get(found));
    if timer.is_some_and(|timer| timer.flags.get() & timer_flags::QUEUED != 0) {
        // SAFETY: By the safety requirement.
        unsafe { bindings::posix_timer_queue(task, i32::try_from(id)?) };
    }
    Ok(())
}

/// Lets all timers of the process that `leader` leads run. Its pending signals have been queued,
/// and it has the CPU time that it had.
///
/// # Safety
///
/// `leader` is valid, and has not been in user mode.
pub(crate) unsafe fn start(
    leader: *mut bindings::task_struct,
    process: &Process,
    timers: &[Timer],
) -> Result {
    let real = Interval::new(&process.itimer_real)?;
    // SAFETY: By the safety requirement.
    unsafe {
        if real.left != 0 || real.interval != 0 {
            bindings::checkpoint_start_itimer(leader, real.left, real.interval);
        }
        for (number, timer) in [
            (bindings::CPUCLOCK_VIRT, &process.itimer_virtual),
            (bindings::CPUCLOCK_PROF, &process.itimer_prof),
        ] {
            let (left, interval) = (timer.remaining_ns.get(), timer.interval_ns.get());
            if left != 0 {
                bindings::checkpoint_start_cpu_itimer(leader, number, left, interval);
            }
        }
        for timer in timers {
            bindings::posix_timer_restore(leader, &from_record(timer)?);
        }
    }
    Ok(())
}

/// Times of a timer of setitimer(2) as the kernel has them.
struct Interval {
    left: i64,
    interval: i64,
}

impl Interval {
    fn new(timer: &Itimer) -> Result<Self> {
        Ok(Self {
            left: i64::try_from(timer.remaining_ns.get())?,
            interval: i64::try_from(timer.interval_ns.get())?,
        })
    }
}

/// A timer of setitimer(2) of the process of `leader` that counts CPU time.
pub(crate) fn cpu_itimer(leader: &Held, number: u32) -> Itimer {
    // SAFETY: `leader` keeps its task, which keeps its `signal` and stands still.
    unsafe {
        let left = bindings::checkpoint_cpu_itimer(leader.as_raw(), number);
        if left == 0 {
            return Itimer::new_zeroed();
        }
        let timer = (*(*leader.as_raw()).signal).it.get(number as usize);
        Itimer {
            interval_ns: timer.map_or(0, |timer| timer.incr).into(),
            remaining_ns: left.into(),
        }
    }
}
