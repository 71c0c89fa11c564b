// SPDX-License-Identifier: GPL-2.0

//! Pending signals, private and shared, with what they carry, in their order.
//!
//! They are queued by the coordinator as one of its last steps: no task that is being built looks
//! for them.
//!
//! Locks: `siglock`, while the queues are copied or filled.

use core::{
    mem::size_of,
    ptr, //
};

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
        self,
        Siginfo,
        Signals, //
    },
    report::Place,
    save::Saver,
    timers, //
};

/// The signal state of a task, locked.
///
/// # Invariants
///
/// The `siglock` of `sighand` is held, and `sighand` is that of `task`.
pub(crate) struct Locked<'a> {
    held: &'a Held,
    sighand: *mut bindings::sighand_struct,
    flags: usize,
}

impl<'a> Locked<'a> {
    /// # Errors
    ///
    /// `ESRCH` when the task has exited.
    pub(crate) fn new(held: &'a Held) -> Result<Self> {
        let mut flags = 0;
        // SAFETY: `held` keeps its task.
        let sighand = unsafe { bindings::checkpoint_lock_sighand(held.as_raw(), &mut flags) };
        if sighand.is_null() {
            return Err(ESRCH);
        }
        // INVARIANT: The lock has just been taken.
        Ok(Self {
            held,
            sighand,
            flags,
        })
    }

    pub(crate) fn sighand(&self) -> *mut bindings::sighand_struct {
        self.sighand
    }

    fn queue(&self, shared: bool) -> *const bindings::sigpending {
        let task = self.held.as_raw();
        // SAFETY: `held` keeps its task, which keeps its `signal`.
        unsafe {
            if shared {
                ptr::addr_of!((*(*task).signal).shared_pending)
            } else {
                ptr::addr_of!((*task).pending)
            }
        }
    }

    /// Calls `act` with each entry of a queue, in its order.
    fn each(&self, shared: bool, mut act: impl FnMut(&bindings::sigqueue)) {
        let queue = self.queue(shared);
        // SAFETY: By the type invariant the queue does not change.
        unsafe {
            let head = ptr::addr_of!((*queue).list);
            let mut at: *const bindings::list_head = (*head).next;
            while !ptr::eq(at, head) {
                let entry = kernel::container_of!(at.cast_mut(), bindings::sigqueue, list);
                act(&*entry);
                at = (*at).next;
            }
        }
    }

    /// Signals that are pending, queue entry or not.
    fn mask(&self, shared: bool) -> u64 {
        // SAFETY: By the type invariant the set does not change.
        unsafe { (*self.queue(shared)).signal.sig[0] as u64 }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::checkpoint_unlock_sighand(self.sighand, self.flags) };
    }
}

/// The POSIX timer whose signal is pending.
enum Timer {
    Id(u32),
    /// It is gone, and the signal is not delivered.
    Deleted,
}

/// The POSIX timer that `entry` belongs to, which is part of it then.
fn timer(entry: &bindings::sigqueue) -> Option<Timer> {
    if entry.flags & bindings::SIGQUEUE_PREALLOC as i32 == 0 {
        return None;
    }
    // SAFETY: Only POSIX timers have such entries. A timer that is in a queue is not freed, and bit
    // 0 says that it has been deleted.
    let (id, owner) = unsafe {
        let timer = kernel::container_of!(ptr::from_ref(entry), bindings::k_itimer, sigq);
        ((*timer).it_id, (*timer).it_signal.addr())
    };
    Some(match u32::try_from(id) {
        Ok(id) if owner & 1 == 0 => Timer::Id(id),
        _ => Timer::Deleted,
    })
}

/// The part of siginfo that the kernel keeps; the rest of what user space sees is zero.
const KEPT: usize = size_of::<bindings::kernel_siginfo>();

/// Saves a queue: that of task number `id` for `held`, or, `shared`, that of process number `id`.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held, shared: bool, id: u32) -> Result {
    let mut infos = KVVec::new();
    loop {
        let mut count = 0;
        let locked = Locked::new(held)?;
        if locked.mask(shared) == 0 {
            return Ok(());
        }
        locked.each(shared, |_| count += 1);
        drop(locked);
        // One for each signal more, for those without an entry of their own.
        infos.reserve(count + 64, GFP_KERNEL)?;

        let locked = Locked::new(held)?;
        let mut fits = true;
        let mut seen = 0u64;
        locked.each(shared, |entry| {
            let mut info = from_kernel(&entry.info);
            seen |= bit(info.signo.get());
            match timer(entry) {
                Some(Timer::Deleted) => return,
                Some(Timer::Id(id)) => info.timer = (id + 1).into(),
                None => {}
            }
            fits &= infos.push_within_capacity(info).is_ok();
        });
        // A signal whose entry could not be allocated carries nothing.
        for signo in (1..=64).filter(|signo| locked.mask(shared) & !seen & bit(*signo) != 0) {
            let info = Siginfo {
                signo: signo.into(),
                ..Siginfo::new_zeroed()
            };
            fits &= infos.push_within_capacity(info).is_ok();
        }
        drop(locked);
        if fits {
            break;
        }
        infos.clear();
    }
    if infos.is_empty() {
        // Only signals of timers that do not exist any more.
        return Ok(());
    }
    if infos.iter().any(is_fault) {
        // What the handler gets to see of the fault is in the task, and in no record.
        saver.refuse(
            Place::Task(held.pid()),
            fmt!("fault in progress: not supported"),
        );
    }
    let record = Signals {
        task: (if shared { 0 } else { id }).into(),
        process: (if shared { id } else { 0 }).into(),
        count: u32::try_from(infos.len())?.into(),
        reserved: 0.into(),
    };
    saver.put(&record, &[infos.as_bytes()])
}

/// Whether the kernel sent a signal because of an instruction.
fn is_fault(info: &Siginfo) -> bool {
    let signals = [
        bindings::SIGSEGV,
        bindings::SIGBUS,
        bindings::SIGILL,
        bindings::SIGFPE,
        bindings::SIGTRAP,
    ];
    info.code.get() > 0
        && signals
            .iter()
            .any(|signo| i64::from(*signo) == info.signo.get().into())
}

fn bit(signo: i32) -> u64 {
    u32::try_from(signo - 1)
        .ok()
        .and_then(|n| 1u64.checked_shl(n))
        .unwrap_or(0)
}

fn from_kernel(info: &bindings::kernel_siginfo) -> Siginfo {
    let mut image = Siginfo::new_zeroed();
    // SAFETY: The kernel zeroes a siginfo before it fills it in, padding included, since user space
    // gets to see all of it.
    let bytes = unsafe { core::slice::from_raw_parts(ptr::from_ref(info).cast::<u8>(), KEPT) };
    for (to, from) in image.as_mut_bytes().iter_mut().zip(bytes) {
        *to = *from;
    }
    image
}

/// Queues the signals of a record to `task`, or to its process, which has the POSIX timers
/// `timers`.
///
/// # Errors
///
/// `EAGAIN` when the queue of the user is full.
///
/// # Safety
///
/// `task` is valid, and has not been in user mode.
pub(crate) unsafe fn restore(
    task: *mut bindings::task_struct,
    shared: bool,
    infos: &[Siginfo],
    timers: &[record::Timer],
) -> Result {
    for image in infos {
        if let Some(id) = image.timer.get().checked_sub(1) {
            // SAFETY: By the safety requirement.
            unsafe { timers::queue(task, timers, id) }?;
            continue;
        }
        // SAFETY: Any bytes are a valid siginfo.
        let mut info = unsafe {
            let mut info: bindings::kernel_siginfo = core::mem::zeroed();
            ptr::copy_nonoverlapping(
                image.as_bytes().as_ptr(),
                ptr::from_mut(&mut info).cast::<u8>(),
                KEPT,
            );
            info
        };
        let kind = if shared {
            bindings::pid_type_PIDTYPE_TGID
        } else {
            bindings::pid_type_PIDTYPE_PID
        };
        // SAFETY: `task` is valid by the safety requirement.
        to_result(unsafe { bindings::do_send_sig_info(image.signo.get(), &mut info, task, kind) })?;
    }
    Ok(())
}
