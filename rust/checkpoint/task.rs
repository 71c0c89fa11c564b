// SPDX-License-Identifier: GPL-2.0

//! Tasks: what each thread has of its own, but for registers and pending signals.
//!
//! Of an interrupted system call, the registers say how it goes on; where the kernel keeps more
//! (`restart_block`), it is here, with the time that is left.
//!
//! Restored while a task is furnished; what counts time, or looks at user memory, just before it
//! goes.
//!
//! Locks: `task_lock()`, in functions of C.

use core::ptr;

use kernel::{
    bindings,
    error::to_result,
    prelude::*,
    task::Pid, //
};

use zerocopy::{
    FromZeros,
    IntoBytes, //
};

use crate::{
    attributes,
    cred,
    files,
    fs,
    hold::{
        Held,
        Still, //
    },
    image::record::{
        restart,
        task_flags,
        Task, //
    },
    mempolicy,
    mm::MmRef,
    objects::Class,
    registers,
    report::{
        Place,
        Report, //
    },
    save::Saver,
    seccomp,
    signals,
    usage, //
};

/// Saves the threads of process number `process`, its leader first.
pub(crate) fn save_all(saver: &mut Saver<'_>, process: Option<u32>, threads: &[Held]) -> Result {
    for held in threads {
        let exited = held.state() == Still::Zombie;
        if exited && !held.is_leader() {
            saver.refuse(
                Place::Task(held.pid()),
                fmt!("exited thread: not supported"),
            );
        } else if let Some(id) = save(saver, process, held, threads)? {
            saver.objects.insert(Class::Task, held.as_raw(), id)?;
            usage::save(saver, held, id)?;
            if !exited {
                registers::save(saver, held, id)?;
                signals::save(saver, held, false, id)?;
                attributes::save(saver, held, id)?;
            }
        }
    }
    Ok(())
}

/// The signal that stops `held`, 0 if none does.
pub(crate) fn stop_signal(held: &Held) -> u32 {
    match held.state() {
        // SAFETY: `held` keeps its task, which stands still.
        Still::JobStopped => unsafe {
            (*held.as_raw()).jobctl as u32 & bindings::JOBCTL_STOP_SIGMASK
        },
        _ => 0,
    }
}

/// The number of the first task with which `held`, one of `threads`, shares its semaphore
/// adjustments, as far as a restart can have it so; 0 if it has none.
fn save_sem_undo(saver: &mut Saver<'_>, held: &Held, threads: &[Held]) -> Result<Pid> {
    let leader = threads.first().ok_or(ESRCH)?;
    let head = threads.iter().find(|held| held.state() != Still::Zombie);
    let Some(head) = head else {
        return Ok(0);
    };
    // A leader that has ended had what its threads have: it has created them.
    let holder = |held: &Held| match held.state() {
        Still::Zombie => head.as_raw(),
        _ => held.as_raw(),
    };
    // SAFETY: All tasks are kept, and stand still as a parent in the tree does; the pointers are
    // compared only.
    let (own, creators) = unsafe {
        let own = bindings::checkpoint_sem_undo(holder(held));
        let creators = if held.is_leader() {
            let parent = bindings::checkpoint_parent(held.as_raw());
            let of_first = MmRef::of(holder(held))
                .ok()
                .and_then(|mm| saver.objects.get(Class::Mm, mm.as_raw()))
                .and_then(|mm| saver.spaces.get(&mm))
                .filter(|first| first.parent == parent)
                .map(|first| first.sem_undo);
            match of_first {
                Some(undo) if undo == own => undo,
                _ if saver.objects.get(Class::Task, parent).is_none() => ptr::null(),
                _ => bindings::checkpoint_sem_undo(parent),
            }
        } else {
            bindings::checkpoint_sem_undo(holder(leader))
        };
        (own, creators)
    };
    if own.is_null() {
        return Ok(0);
    }
    if let Some(first) = saver.sem_undo.get(&own.addr()).copied() {
        if own != creators {
            saver.refuse(
                Place::Task(held.pid()),
                fmt!("semaphore adjustments shared with distant task {first}: not supported"),
            );
        }
        return Ok(first);
    }
    let first = held.pid();
    saver
        .sem_undo
        .try_create_and_insert(own.addr(), first, GFP_KERNEL)?;
    Ok(first)
}

fn save(
    saver: &mut Saver<'_>,
    process: Option<u32>,
    held: &Held,
    threads: &[Held],
) -> Result<Option<u32>> {
    let problems = saver.report.count();
    let exited = held.state() == Still::Zombie;
    let (files, fs, restart) = if exited {
        (Some(0), Some(0), Some((restart::NONE, [0; 6])))
    } else {
        refuse(saver, held);
        (
            files::save(saver, held)?,
            fs::save(saver, held)?,
            save_restart(saver, held),
        )
    };
    let vfork_child = held.vfork_child();
    if vfork_child != 0 && !saver.is_task(vfork_child) {
        saver.refuse(
            Place::Task(held.pid()),
            fmt!("waits in vfork for task {vfork_child} outside the tree: not supported"),
        );
    }
    let cred = cred::save(saver, held)?;
    let sem_undo = save_sem_undo(saver, held, threads)?;
    let seccomp = if exited {
        Some(seccomp::State::default())
    } else {
        seccomp::save(saver, held)?
    };
    let place = Place::Task(held.pid());
    // SAFETY: `held` keeps its task, which stands still.
    let mempolicy = unsafe { mempolicy::save(saver, place, ptr::null_mut(), held.as_raw()) }?;

    let (
        Some(files),
        Some(fs),
        Some(cred),
        Some((restart_kind, restart_words)),
        Some(mempolicy),
        Some(process),
    ) = (files, fs, cred, restart, mempolicy, process)
    else {
        return Ok(None);
    };
    let Some(seccomp) = seccomp else {
        return Ok(None);
    };
    if saver.report.count() != problems {
        return Ok(None);
    }
    let task = held.as_raw();
    // SAFETY: `held` keeps its task, which stands still: nobody else writes these fields.
    let record = unsafe {
        let mut flags = attributes::flags(held);
        let restore_sigmask = bindings::checkpoint_restore_sigmask(task);
        if restore_sigmask {
            flags |= task_flags::RESTORE_SIGMASK;
        }
        if bindings::checkpoint_no_new_privs(task) {
            flags |= task_flags::NO_NEW_PRIVS;
        }
        if seccomp.strict {
            flags |= task_flags::SECCOMP_STRICT;
        }
        match held.state() {
            Still::Zombie => flags |= task_flags::EXITED,
            Still::JobStopped => flags |= task_flags::STOPPED,
            Still::Trapped | Still::Caller | Still::VforkParent => {}
        }
        let rseq = &(*task).rseq;
        let robust = (*task).futex.robust_list.addr();
        Task {
            tid: held.pid().into(),
            process: process.into(),
            flags: flags.into(),
            personality: (*task).personality.into(),
            comm: comm((*task).comm),
            files: files.into(),
            fs: fs.into(),
            cred: cred.into(),
            pdeath_signal: u32::try_from((*task).pdeath_signal)?.into(),
            blocked: ((*task).blocked.sig[0] as u64).into(),
            saved_mask: (if restore_sigmask {
                (*task).saved_sigmask.sig[0] as u64
            } else {
                0
            })
            .into(),
            altstack_sp: ((*task).sas_ss_sp as u64).into(),
            altstack_size: ((*task).sas_ss_size as u64).into(),
            altstack_flags: (*task).sas_ss_flags.into(),
            restart_kind: restart_kind.into(),
            restart_words: restart_words.map(Into::into),
            clear_child_tid: ((*task).clear_child_tid.addr() as u64).into(),
            set_child_tid: ((*task).set_child_tid.addr() as u64).into(),
            robust_list: (robust as u64).into(),
            robust_len: (if robust != 0 { ROBUST_LEN } else { 0 }).into(),
            rseq_ptr: (rseq.usrptr.addr() as u64).into(),
            rseq_len: rseq.len.into(),
            rseq_sig: rseq.sig.into(),
            sched_policy: (*task).policy.into(),
            nice: ((*task).static_prio - DEFAULT_PRIO).into(),
            rt_priority: (*task).rt_priority.into(),
            timerslack_ns: (*task).timer_slack_ns.into(),
            default_timerslack_ns: (*task).default_timer_slack_ns.into(),
            ioprio: u32::try_from(bindings::checkpoint_ioprio(task))?.into(),
            seccomp_filter: seccomp.filter.into(),
            mempolicy: mempolicy.into(),
            vfork_child: vfork_child.into(),
            sem_undo: sem_undo.into(),
            exit_code: (if exited {
                (*task).exit_code as u32 & 0xffff
            } else {
                0
            })
            .into(),
            ..Task::new_zeroed()
        }
    };
    let mask = cpus(task);
    saver.object(&record, &[mask.as_bytes()]).map(Some)
}

/// Length of the head of the robust list, the only one that the kernel takes.
const ROBUST_LEN: u64 = core::mem::size_of::<bindings::robust_list_head>() as u64;

/// `static_prio` of nice 0.
const DEFAULT_PRIO: i32 = 120;

/// Words of a set of CPUs in an image.
const CPU_WORDS: usize = (bindings::CONFIG_NR_CPUS as usize).div_ceil(64);

/// The CPUs that `task` may run on.
fn cpus(task: *mut bindings::task_struct) -> [u64; CPU_WORDS] {
    let mut words = [0; CPU_WORDS];
    // SAFETY: `task` is valid; the sets have room for all CPUs.
    unsafe { bindings::checkpoint_cpus(task, words.as_mut_ptr(), CPU_WORDS as u32) };
    words
}

fn comm(raw: [u8; 16]) -> [u8; 16] {
    let len = raw.iter().position(|byte| *byte == 0).unwrap_or(15).min(15);
    let mut comm = [0; 16];
    for (to, from) in comm.iter_mut().zip(raw.iter().take(len)) {
        *to = *from;
    }
    comm
}

/// Refuses state of a task that has no place in an image.
fn refuse(saver: &mut Saver<'_>, held: &Held) {
    let place = Place::Task(held.pid());
    let mut at = 0;
    loop {
        // SAFETY: `held` keeps its task; the names are constants.
        let name = unsafe { bindings::checkpoint_task_blocker(held.as_raw(), &mut at) };
        if name.is_null() {
            return;
        }
        // SAFETY: As above.
        let name = unsafe { CStr::from_char_ptr(name) };
        saver.refuse(place, fmt!("{name}: not supported"));
    }
}

/// Now, as the clocks count that restart blocks use.
fn now(clock: bindings::clockid_t) -> i64 {
    // SAFETY: These only read clocks.
    unsafe {
        match u32::try_from(clock) {
            Ok(bindings::CLOCK_REALTIME | bindings::CLOCK_TAI) => {
                bindings::ktime_get_with_offset(if clock == bindings::CLOCK_TAI as i32 {
                    bindings::tk_offsets_TK_OFFS_TAI
                } else {
                    bindings::tk_offsets_TK_OFFS_REAL
                })
            }
            Ok(bindings::CLOCK_BOOTTIME) => {
                bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT)
            }
            _ => bindings::ktime_get(),
        }
    }
}

const NANOS: i64 = 1_000_000_000;

/// Kind and words of the interrupted call that `held` goes on with, or `None` when it was refused.
fn save_restart(saver: &mut Saver<'_>, held: &Held) -> Option<(u32, [u64; 6])> {
    // SAFETY: `held` keeps its task, which stands still in the call or outside of any.
    let block = unsafe { &(*held.as_raw()).restart_block };
    // The block keeps what the last such call left in it; it counts only when registers ask for it.
    if !registers::asks_for_restart(held) {
        return Some((restart::NONE, [0; 6]));
    }
    let function = block.fn_.map_or(0, |function| function as usize);
    // SAFETY: Which part of the union is in use follows from the function.
    unsafe {
        if function == bindings::hrtimer_nanosleep_restart as usize {
            let sleep = &block.__bindgen_anon_1.nanosleep;
            let left = sleep.expires.saturating_sub(now(sleep.clockid)).max(0);
            if sleep.type_ == bindings::timespec_type_TT_COMPAT {
                saver.refuse(
                    Place::Task(held.pid()),
                    fmt!("32-bit system call: not supported"),
                );
                return None;
            }
            let rest = if sleep.type_ == bindings::timespec_type_TT_NATIVE {
                sleep.__bindgen_anon_1.rmtp.addr()
            } else {
                0
            };
            let clock = u64::try_from(sleep.clockid).ok()?;
            return Some((
                restart::NANOSLEEP,
                [clock, rest as u64, left.unsigned_abs(), 0, 0, 0],
            ));
        }
        if function == bindings::futex_wait_restart as usize {
            let futex = &block.__bindgen_anon_1.futex;
            let (flags, left) = save_futex(futex);
            return Some((
                restart::FUTEX,
                [
                    futex.uaddr.addr() as u64,
                    u64::from(futex.val),
                    flags,
                    left.unsigned_abs(),
                    u64::from(futex.bitset),
                    0,
                ],
            ));
        }
        if function == bindings::do_restart_poll as usize {
            let poll = &block.__bindgen_anon_1.poll;
            let end = poll
                .end_time
                .tv_sec
                .saturating_mul(NANOS)
                .saturating_add(poll.end_time.tv_nsec as i64);
            let monotonic = bindings::CLOCK_MONOTONIC as i32;
            let left = end.saturating_sub(now(monotonic)).max(0);
            let timed = poll.has_timeout != 0;
            return Some((
                restart::POLL,
                [
                    poll.ufds.addr() as u64,
                    u64::try_from(poll.nfds).ok()?,
                    u64::from(timed),
                    if timed { left.unsigned_abs() } else { 0 },
                    0,
                    0,
                ],
            ));
        }
    }
    saver.refuse(
        Place::Task(held.pid()),
        fmt!("interrupted system call that keeps a timer of its own: not supported"),
    );
    None
}

/// Flags of an interrupted futex wait in the image's form, and the time left.
fn save_futex(futex: &bindings::restart_block__bindgen_ty_1__bindgen_ty_1) -> (u64, i64) {
    let mut flags = 0;
    let mut left = 0;
    // SAFETY: These only compute.
    unsafe {
        let mut realtime = false;
        let mut timed = false;
        if bindings::checkpoint_futex_flags(futex.flags, &mut realtime, &mut timed) {
            flags |= restart::FUTEX_SHARED;
        }
        if realtime {
            flags |= restart::FUTEX_REALTIME;
        }
        if timed {
            flags |= restart::FUTEX_TIMEOUT;
            let clock = if realtime {
                bindings::CLOCK_REALTIME
            } else {
                bindings::CLOCK_MONOTONIC
            };
            left = futex.time.saturating_sub(now(clock as i32)).max(0);
        }
    }
    (flags, left)
}

/// Checks what children of the restarter inherit and nobody can take back.
pub(crate) fn check(record: &Task, report: &mut Report) {
    // SAFETY: The current task is valid.
    let own = unsafe { bindings::checkpoint_no_new_privs(bindings::get_current()) };
    if own && record.flags.get() & task_flags::NO_NEW_PRIVS == 0 {
        report.problem(
            Place::Task(record.tid.get()),
            fmt!("no_new_privs is not set, the caller's is"),
        );
    }
    seccomp::check(record, report);
}

/// Lets the current task run on its CPUs, and gives it its I/O priority, as far as these differ
/// from the restarter's.
///
/// # Errors
///
/// What sched_setaffinity(2) and ioprio_set(2) say.
fn restore_resources(record: &Task, cpus_allowed: &[u8]) -> Result {
    let ioprio = i32::try_from(record.ioprio.get())?;
    // SAFETY: The current task is valid, and only it changes these.
    unsafe {
        let task = bindings::get_current();
        #[cfg(CONFIG_BLOCK)]
        if bindings::checkpoint_ioprio(task) != ioprio {
            to_result(bindings::ioprio_check_cap(ioprio))?;
            to_result(bindings::set_task_ioprio(task, ioprio))?;
        }
        let own = cpus(task);
        if !same_set(cpus_allowed, own.as_bytes()) {
            let mut words = [0u64; CPU_WORDS];
            for (to, from) in words.as_mut_bytes().iter_mut().zip(cpus_allowed) {
                *to = *from;
            }
            to_result(bindings::checkpoint_set_cpus(
                words.as_ptr(),
                CPU_WORDS as u32,
            ))?;
        }
    }
    Ok(())
}

/// Whether two sets have the same members, whatever their room.
fn same_set(a: &[u8], b: &[u8]) -> bool {
    let len = a.len().max(b.len());
    (0..len).all(|index| a.get(index).copied().unwrap_or(0) == b.get(index).copied().unwrap_or(0))
}

/// Gives the current task what it has of its own.
///
/// # Errors
///
/// What the restarter is not permitted to set.
pub(crate) fn restore(record: &Task, cpus_allowed: &[u8]) -> Result {
    restore_resources(record, cpus_allowed)?;
    // SAFETY: The current task is valid, and only it looks at these before it runs in user mode.
    unsafe {
        let task = bindings::get_current();
        (*task).personality = record.personality.get();
        bindings::__set_task_comm(task, record.comm.as_ptr().cast(), false);
        (*task).timer_slack_ns = record.timerslack_ns.get();
        (*task).default_timer_slack_ns = record.default_timerslack_ns.get();
        (*task).set_child_tid = user_pointer(record.set_child_tid.get());
        (*task).sas_ss_sp = record.altstack_sp.get() as usize;
        (*task).sas_ss_size = record.altstack_size.get() as usize;
        (*task).sas_ss_flags = record.altstack_flags.get();
        if record.flags.get() & task_flags::NO_NEW_PRIVS != 0 {
            bindings::checkpoint_set_no_new_privs();
        }
        let mut blocked = bindings::sigset_t {
            sig: [record.blocked.get() as usize],
        };
        bindings::set_current_blocked(&mut blocked);
        if record.flags.get() & task_flags::RESTORE_SIGMASK != 0 {
            (*task).saved_sigmask = bindings::sigset_t {
                sig: [record.saved_mask.get() as usize],
            };
            bindings::checkpoint_set_restore_sigmask(task);
        }
    }
    Ok(())
}

/// Gives the current task its death signal, which new credentials take away.
pub(crate) fn restore_death_signal(record: &Task) {
    // SAFETY: The current task is valid, and only it looks at this.
    unsafe { (*bindings::get_current()).pdeath_signal = record.pdeath_signal.get() as i32 };
}

/// Gives the current task, which is about to end, what is still seen of it afterwards.
pub(crate) fn restore_exited(record: &Task) {
    // SAFETY: The current task is valid; the name ends.
    unsafe {
        bindings::__set_task_comm(bindings::get_current(), record.comm.as_ptr().cast(), false)
    };
}

fn user_pointer<T>(address: u64) -> *mut T {
    ptr::without_provenance_mut(address as usize)
}

/// What counts time or looks at user memory, the moment before the current task runs. One that is
/// killed before must not write to memory that is still in the making.
pub(crate) fn resume(record: &Task) {
    // SAFETY: The current task is valid, and only it uses these fields.
    unsafe {
        let task = bindings::get_current();
        (*task).clear_child_tid = user_pointer(record.clear_child_tid.get());
        (*task).futex.robust_list = user_pointer(record.robust_list.get());
    }
    if record.rseq_ptr.get() != 0 {
        // SAFETY: The function acts on the current task; user space checks are those of a
        // registration.
        unsafe {
            bindings::checkpoint_restore_rseq(
                record.rseq_ptr.get() as usize,
                record.rseq_len.get(),
                record.rseq_sig.get(),
            )
        };
    }
    restore_restart(record);
}

/// Lets the interrupted call go on with the time that was left.
fn restore_restart(record: &Task) {
    let [a, b, c, d, e, _] = record.restart_words.map(|word| word.get());
    let time = |left: u64, clock: i32| now(clock).saturating_add_unsigned(left);
    // SAFETY: The current task is valid, and only it uses its restart block. All pointers are those
    // of user space, looked at as such.
    unsafe {
        let block = &mut (*bindings::get_current()).restart_block;
        match record.restart_kind.get() {
            restart::NANOSLEEP => {
                let clock = a as i32;
                let sleep = &mut block.__bindgen_anon_1.nanosleep;
                sleep.clockid = clock;
                sleep.type_ = if b == 0 {
                    bindings::timespec_type_TT_NONE
                } else {
                    bindings::timespec_type_TT_NATIVE
                };
                sleep.__bindgen_anon_1.rmtp = user_pointer(b);
                sleep.expires = time(c, clock);
                block.fn_ = Some(bindings::hrtimer_nanosleep_restart);
            }
            restart::FUTEX => {
                let realtime = c & restart::FUTEX_REALTIME != 0;
                let clock = if realtime {
                    bindings::CLOCK_REALTIME
                } else {
                    bindings::CLOCK_MONOTONIC
                };
                let futex = &mut block.__bindgen_anon_1.futex;
                futex.uaddr = user_pointer(a);
                futex.val = b as u32;
                futex.flags = bindings::checkpoint_futex_kernel_flags(
                    c & restart::FUTEX_SHARED != 0,
                    realtime,
                    c & restart::FUTEX_TIMEOUT != 0,
                );
                futex.bitset = e as u32;
                futex.time = time(d, clock as i32);
                block.fn_ = Some(bindings::futex_wait_restart);
            }
            restart::POLL => {
                let end = time(d, bindings::CLOCK_MONOTONIC as i32);
                let poll = &mut block.__bindgen_anon_1.poll;
                poll.ufds = user_pointer(a);
                poll.nfds = b as i32;
                poll.has_timeout = i32::from(c != 0);
                poll.end_time.tv_sec = end / NANOS;
                poll.end_time.tv_nsec = (end % NANOS) as isize;
                block.fn_ = Some(bindings::do_restart_poll);
            }
            _ => {}
        }
    }
}

/// Checks that the words of an interrupted call are ones that the kernel could have left.
pub(crate) fn check_restart(record: &Task) -> Result {
    let [a, b, c, d, ..] = record.restart_words.map(|word| word.get());
    let user = |address: u64| address < crate::plan::task_size();
    let left = |time: u64| i64::try_from(time).is_ok();
    let valid = match record.restart_kind.get() {
        restart::NANOSLEEP => {
            let clocks = [
                bindings::CLOCK_REALTIME,
                bindings::CLOCK_MONOTONIC,
                bindings::CLOCK_BOOTTIME,
            ];
            clocks.iter().any(|clock| u64::from(*clock) == a) && user(b) && left(c)
        }
        restart::FUTEX => user(a) && u32::try_from(b).is_ok() && c < 8 && left(d),
        restart::POLL => user(a) && i32::try_from(b).is_ok() && left(d),
        _ => true,
    };
    if valid {
        Ok(())
    } else {
        Err(EINVAL)
    }
}
