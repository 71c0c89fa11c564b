// SPDX-License-Identifier: GPL-2.0

//! Holds: a tree of tasks that stands still.
//!
//! A task is made to stop by `JOBCTL_TRAP_CHECKPOINT`, and stops inside `get_signal()`, where its
//! registers still say how the system call that it was in is to go on. The bit is also the mark of
//! ownership: who has set it is the only one who clears it, and a second holder gets EBUSY.
//!
//! Standing still is a matter of consistency, never of memory safety: SIGKILL gets through at any
//! time, and a lease or the death of the opener can end a hold while it is being captured. What is
//! read of a held task is read under the locks that a running task would need;
//! [`Hold::verify`] tells afterwards whether it was all of one moment.
//!
//! Lock order:
//!
//! 1. the capture mutex of a hold descriptor (`hold_fd.rs`)
//! 2. `Inner::ended`; under it also what a donation takes (`donate.rs`)
//! 3. `exec_update_lock`, alone
//! 4. `tasklist_lock`
//! 5. `siglock`, or `alloc_lock` (`task_lock()`)
//!
//! The lock of a `wait_pidfd` queue nests outside the workqueue's only.

use core::cmp::Ordering;

use kernel::{
    bindings,
    container_of,
    error::to_result,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    },
    task::{
        Pid,
        Task, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Monotonic, //
    },
    types::Opaque, //
};

use kernel::macros::export;

use crate::{
    access,
    registers::Stack,
    report::{
        Place,
        Report, //
    },
    tree::{
        self,
        Scope, //
    }, //
};

/// How long one wait for a task lasts before it is looked at again, in ms: most tasks announce
/// that they are trapped, but not that they became a zombie or wait in vfork(2).
const WAIT_MIN: u32 = 1;
const WAIT_MAX: u32 = 16;

/// How long [`Control::stop`] waits for the processes to be stopped by job control, in ms.
const STOP_WAIT: i64 = 1000;

/// How a task stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Still {
    /// In the checkpoint trap: the registers are those of the entry to the kernel.
    Trapped,
    /// Stopped by job control, inside `get_signal()` too.
    JobStopped,
    /// Dead, its status not yet read by its parent.
    Zombie,
    /// In checkpoint(2): it is the caller, and runs.
    Caller,
    /// Inside vfork(2) (or clone with CLONE_VFORK), waiting for a child that stands still. The
    /// system call is not restartable: it goes on when the child execs or dies.
    VforkParent,
}

/// A thread that stands still.
pub(crate) struct Held {
    task: ARef<Task>,
    pid: Pid,
    tgid: Pid,
    still: Still,
    /// Whoever has a stack keeps it, even if it is killed while it is looked at.
    _stack: Option<Stack>,
}

impl Held {
    /// The task for C, which it stays as long as this exists.
    pub(crate) fn as_raw(&self) -> *mut bindings::task_struct {
        self.task.as_ptr()
    }

    /// The tid in the caller's pid namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The pid of the process in the caller's pid namespace.
    pub(crate) fn tgid(&self) -> Pid {
        self.tgid
    }

    /// Whether this is the thread that the process is named after.
    pub(crate) fn is_leader(&self) -> bool {
        self.pid == self.tgid
    }

    /// How it stands still.
    pub(crate) fn state(&self) -> Still {
        self.still
    }

    /// The number of the child that it waits for in vfork(2), 0 for none.
    pub(crate) fn vfork_child(&self) -> Pid {
        match self.still {
            Still::VforkParent => vfork_child(&self.task).map_or(0, |child| tid(&child)),
            _ => 0,
        }
    }
}

/// The number of `task` in the caller's pid namespace, 0 if it has none there.
fn pid_of(task: &Task, kind: bindings::pid_type) -> Pid {
    // SAFETY: `task` is valid; a null namespace is that of the caller.
    unsafe { bindings::__task_pid_nr_ns(task.as_ptr(), kind, core::ptr::null_mut()) }
}

fn tid(task: &Task) -> Pid {
    pid_of(task, bindings::pid_type_PIDTYPE_PID)
}

fn still(task: &Task) -> bindings::checkpoint_still {
    // SAFETY: `task` is a valid task.
    unsafe { bindings::checkpoint_task_still(task.as_ptr()) }
}

fn trap_clear(task: &Task) {
    // SAFETY: `task` is a valid task; the callers own its trap, or it has none.
    unsafe { bindings::checkpoint_trap_clear(task.as_ptr()) };
}

/// The child that `task` waits for in vfork(2).
fn vfork_child(task: &Task) -> Option<ARef<Task>> {
    // SAFETY: `task` is a valid task.
    let child = unsafe { bindings::checkpoint_vfork_child(task.as_ptr()) };

    // SAFETY: If it is not null, it comes with a reference that is ours.
    core::ptr::NonNull::new(child.cast::<Task>()).map(|child| unsafe { ARef::from_raw(child) })
}

fn by_address(a: &Task, b: &Task) -> Ordering {
    a.as_ptr().cmp(&b.as_ptr())
}

/// The caller is being killed.
fn killed() -> bool {
    // SAFETY: No preconditions.
    unsafe { bindings::checkpoint_caller_killed() }
}

/// Whether `task` is the current one.
fn is_caller(task: &Task) -> bool {
    task.as_ptr() == Task::current_raw()
}

/// A task whose trap was set.
struct Trap {
    task: ARef<Task>,
    /// A [`Hold`] takes care of it.
    kept: bool,
}

/// A tree on its way to stand still.
///
/// # Invariants
///
/// `mine` is sorted by address, and its tasks are those whose trap this object has set. Dropping
/// it clears the traps that are not kept.
struct Stopping {
    scope: Arc<Scope>,
    /// The caller may be one of the tasks.
    caller: bool,
    mine: KVVec<Trap>,
    since: Instant<Monotonic>,
    timeout_ms: i64,
}

impl Stopping {
    fn find(&self, task: &Task) -> Option<usize> {
        self.mine
            .binary_search_by(|t| by_address(&t.task, task))
            .ok()
    }

    fn expired(&self) -> bool {
        self.since.elapsed().as_millis() >= self.timeout_ms
    }

    /// Refuses `task` by name if it can never be held. Nothing is done to it.
    fn vet(&self, task: &Task, report: &mut Report) -> Result {
        let place = Place::Task(tid(task));
        let me = Task::current_raw();

        // SAFETY: Both tasks are valid; `signal` is set once and compared only.
        if !self.caller && unsafe { (*task.as_ptr()).signal == (*me).signal } {
            report.problem(place, fmt!("is the caller"));
            return Err(EDEADLK);
        }
        // SAFETY: `task` is a valid task.
        if unsafe { bindings::checkpoint_kernel_task(task.as_ptr()) } {
            report.problem(place, fmt!("is a kernel thread: not supported"));
            return Err(EOPNOTSUPP);
        }
        // A trap would make its restart fail.
        // SAFETY: `task` is a valid task.
        if unsafe { bindings::checkpoint_task_unfinished(task.as_ptr()) } {
            report.problem(place, fmt!("is being restarted"));
            return Err(EBUSY);
        }
        access::may_stop(task).inspect_err(|_| {
            report.problem(place, fmt!("permission denied"));
        })
    }

    /// Refuses `task` by name if it is traced.
    fn untraced(task: &Task, report: &mut Report) -> Result {
        // SAFETY: `task` is a valid task.
        let tracer = unsafe { bindings::checkpoint_tracer(task.as_ptr()) };
        let place = Place::Task(tid(task));

        match tracer {
            0 => return Ok(()),
            -1 => report.problem(place, fmt!("is traced: not supported")),
            _ => report.problem(place, fmt!("is traced by task {tracer}: not supported")),
        }
        Err(EOPNOTSUPP)
    }

    /// Sets the trap of every task of `tasks` that does not have ours yet. Returns how many.
    ///
    /// All problems of these tasks are reported; the error is that of the first.
    fn trap(&mut self, tasks: &[ARef<Task>], report: &mut Report) -> Result<usize> {
        let mut refused = Ok(());
        let mut new = KVVec::new();

        // Look at all before touching one, so that a refusal disturbs nobody.
        for task in tasks {
            if self.find(task).is_some() || self.caller && is_caller(task) {
                continue;
            }
            match self
                .vet(task, report)
                .and_then(|()| Self::untraced(task, report))
            {
                Ok(()) => new.push(task.clone(), GFP_KERNEL)?,
                Err(e) => refused = refused.and(Err(e)),
            }
        }
        refused?;

        self.mine.reserve(new.len(), GFP_KERNEL)?;
        let before = self.mine.len();
        let mut result = Ok(());
        for task in new {
            // SAFETY: `task` is a valid task.
            match to_result(unsafe { bindings::checkpoint_trap_set(task.as_ptr()) }) {
                Ok(()) => {
                    let trap = Trap { task, kept: false };

                    if let Err(e) = self.mine.push_within_capacity(trap) {
                        // Cannot happen, there is room for all of `new`.
                        trap_clear(&e.0.task);
                        result = Err(ENOMEM);
                    }
                }
                // It is dying. It is waited for.
                Err(e) if e == ESRCH => (),
                Err(e) if e == EBUSY => {
                    report.problem(
                        Place::Task(tid(&task)),
                        fmt!("is held by another checkpoint"),
                    );
                    result = result.and(Err(e));
                }
                Err(e) => {
                    // Traced since we looked.
                    if Self::untraced(&task, report).is_ok() {
                        report.problem(Place::Task(tid(&task)), fmt!("was traced"));
                    }
                    result = result.and(Err(e));
                }
            }
        }
        let after = self.mine.len();
        // INVARIANT: Sorted again.
        self.mine
            .as_mut_slice()
            .sort_unstable_by(|a, b| by_address(&a.task, &b.task));
        result.map(|()| after - before)
    }

    /// How `task` stands still, `None` when it does not, or is gone.
    fn state(task: &Task) -> Option<Still> {
        if is_caller(task) {
            return Some(Still::Caller);
        }
        match still(task) {
            bindings::checkpoint_still_CHECKPOINT_STILL_TRAPPED => Some(Still::Trapped),
            bindings::checkpoint_still_CHECKPOINT_STILL_STOPPED => Some(Still::JobStopped),
            bindings::checkpoint_still_CHECKPOINT_STILL_ZOMBIE => Some(Still::Zombie),
            bindings::checkpoint_still_CHECKPOINT_STILL_NOT => {
                // The child is waited for on its own account, if it is one of the tree; others are
                // not held.
                // SAFETY: It is a valid task.
                vfork_child(task)
                    .filter(|child| unsafe { bindings::checkpoint_is_trapped(child.as_ptr()) })?;
                Some(Still::VforkParent)
            }
            _ => None,
        }
    }

    /// Waits until `task` stands still or is gone (false), or the time is up (ETIMEDOUT).
    fn wait(&self, task: &Task) -> Result<bool> {
        let mut slice = WAIT_MIN;

        loop {
            if let Some(state) = Self::state(task) {
                if inactive(task, state) {
                    return Ok(true);
                }
                // A signal woke it: it goes through the trap again.
            } else if still(task) == bindings::checkpoint_still_CHECKPOINT_STILL_GONE {
                return Ok(false);
            } else {
                let jiffies = msecs_to_jiffies(slice).max(1);

                // SAFETY: `task` is a valid task.
                to_result(unsafe {
                    bindings::checkpoint_wait_trapped(
                        task.as_ptr(),
                        isize::try_from(jiffies).unwrap_or(1),
                    )
                })
                .map_err(|_| EINTR)?;
                slice = (slice * 2).min(WAIT_MAX);
            }
            if killed() {
                return Err(EINTR);
            }
            if self.expired() {
                return Err(ETIMEDOUT);
            }
        }
    }

    /// Names those of `tasks` that do not stand still.
    fn name_restless(tasks: &KVVec<ARef<Task>>, report: &mut Report) {
        let before = report.count();

        for task in tasks {
            if Self::state(task).is_some() {
                continue;
            }
            // SAFETY: `task` is a valid task.
            let state = unsafe { bindings::checkpoint_task_state(task.as_ptr()) };
            report.problem(
                Place::Task(tid(task)),
                fmt!("does not stand still (state {})", char::from(state)),
            );
        }
        if report.count() == before {
            report.problem(Place::Tree, fmt!("changes faster than it can be stopped"));
        }
    }

    /// Stops the tree. Returns its tasks, all of which stand still at once.
    fn run(&mut self, armed: impl FnOnce(), report: &mut Report) -> Result<KVVec<Held>> {
        let mut armed = Some(armed);
        loop {
            let tasks = tree::walk(&self.scope)?;
            if tasks.is_empty() {
                report.problem(Place::Tree, fmt!("is gone"));
                return Err(ESRCH);
            }
            if killed() {
                return Err(EINTR);
            }
            if self.expired() {
                Self::name_restless(&tasks, report);
                return Err(ETIMEDOUT);
            }
            let new = self.trap(&tasks, report)?;
            if let Some(armed) = armed.take() {
                armed();
            }
            if new > 0 {
                // Who was free to run until now may have forked: a fork that starts after its
                // trap is set fails, and is tried again after the release.
                continue;
            }

            let mut settled = true;
            for task in &tasks {
                match self.wait(task) {
                    Ok(still) => settled &= still,
                    Err(e) => {
                        if e == ETIMEDOUT {
                            Self::name_restless(&tasks, report);
                        }
                        return Err(e);
                    }
                }
            }
            // Somebody was reaped, or came to belong to the tree.
            if !settled || !tree::same(&tasks, &tree::walk(&self.scope)?) {
                continue;
            }
            if let Some(held) = self.settle(&tasks, report)? {
                return Ok(held);
            }
        }
    }

    /// The tasks as they stand, `None` when one of them moved meanwhile.
    fn settle(
        &self,
        tasks: &KVVec<ARef<Task>>,
        report: &mut Report,
    ) -> Result<Option<KVVec<Held>>> {
        let mut held = KVVec::with_capacity(tasks.len(), GFP_KERNEL)?;
        let mut refused = Ok(());

        for task in tasks {
            let Some(still) = Self::state(task) else {
                return Ok(None);
            };
            let stack = Stack::keep(task);
            if stack.is_none() && still != Still::Zombie {
                return Ok(None);
            }
            let pid = tid(task);

            if let Err(e) = Self::untraced(task, report) {
                refused = refused.and(Err(e));
            }
            match access::may_read(task) {
                Ok(()) => (),
                Err(e) if e == EPERM => {
                    report.problem(Place::Task(pid), fmt!("permission denied"));
                    refused = refused.and(Err(e));
                }
                Err(e) => return Err(e),
            }
            held.push(
                Held {
                    task: task.clone(),
                    pid,
                    tgid: pid_of(task, bindings::pid_type_PIDTYPE_TGID),
                    still,
                    _stack: stack,
                },
                GFP_KERNEL,
            )?;
        }
        refused?;
        if let Some(first) = held.first() {
            if held.iter().all(|h| h.still == Still::Zombie) {
                report.problem(Place::Task(first.pid), fmt!("has exited"));
                return Err(ESRCH);
            }
        }
        Ok(Some(held))
    }

    /// Hands the traps over to `held`. Those of tasks that left the tree, because their parent
    /// died while it was being stopped, are cleared.
    fn hand_over(mut self, held: &[Held]) {
        for h in held {
            if let Some(trap) = self.find(&h.task).and_then(|i| self.mine.get_mut(i)) {
                trap.kept = true;
            }
        }
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        for trap in self.mine.iter().filter(|t| !t.kept) {
            trap_clear(&trap.task);
        }
    }
}

/// Waits until `task` is off the CPU. False: it does not stand as `state` says any more.
fn inactive(task: &Task, state: Still) -> bool {
    let state = match state {
        Still::Trapped => bindings::checkpoint_still_CHECKPOINT_STILL_TRAPPED,
        Still::JobStopped => bindings::checkpoint_still_CHECKPOINT_STILL_STOPPED,
        Still::VforkParent => bindings::checkpoint_still_CHECKPOINT_STILL_VFORK,
        Still::Zombie | Still::Caller => return true,
    };

    // SAFETY: `task` is a valid task.
    unsafe { bindings::checkpoint_wait_inactive(task.as_ptr(), state) }
}

/// What a [`Hold`] and its descriptor share.
#[pin_data]
struct Inner {
    scope: Arc<Scope>,
    tasks: KVVec<Held>,
    since: Instant<Monotonic>,
    /// How long the tree was allowed to take to stand still.
    timeout_ms: i64,
    lease_ms: u32,
    /// How long the tree was stopped, once it has been released.
    #[pin]
    ended: Mutex<Option<Delta>>,
    #[pin]
    watch: Opaque<bindings::checkpoint_watch>,
}

// SAFETY: All fields but `watch` are `Send`; `watch` is used through functions that lock.
unsafe impl Send for Inner {}
// SAFETY: As above.
unsafe impl Sync for Inner {}

impl Inner {
    fn release(&self) {
        self.end(|_| ())
    }

    /// Runs `last` on the tasks and releases them, unless that has happened already.
    fn end(&self, last: impl FnOnce(&[Held])) {
        let mut ended = self.ended.lock();

        if ended.is_some() {
            return;
        }
        last(&self.tasks);
        *ended = Some(self.let_go());
    }

    /// Clears the traps. Returns how long the tree was stopped.
    fn let_go(&self) -> Delta {
        for held in &self.tasks {
            trap_clear(&held.task);
        }
        self.since.elapsed()
    }

    fn renew(&self) {
        // SAFETY: `watch` was initialised.
        unsafe {
            bindings::checkpoint_watch_renew(self.watch.get(), msecs_to_jiffies(self.lease_ms))
        };
    }
}

/// Ends the hold that `watch` belongs to.
///
/// # Safety
///
/// `watch` belongs to a hold, and was started.
#[export]
pub(crate) unsafe extern "C" fn rust_checkpoint_watch_expired(
    watch: *mut bindings::checkpoint_watch,
) {
    // SAFETY: Only `Hold` starts a watch. It is the `watch` of an `Inner`, which stays as it is
    // until `checkpoint_watch_stop()` has waited for this function.
    let inner = unsafe { &*container_of!(Opaque::cast_from(watch), Inner, watch) };

    inner.release();
}

/// A tree of tasks that stands still. Dropping it releases them.
///
/// # Invariants
///
/// The watch of `inner` runs.
pub(crate) struct Hold {
    inner: Arc<Inner>,
}

/// The operations on a hold that need not wait for a capture of it.
#[derive(Clone)]
pub(crate) struct Control {
    inner: Arc<Inner>,
}

impl Hold {
    /// Stops the processes of `scope`, their threads and all their descendants; but not the
    /// `caller`, should it be one of them and that be permitted.
    ///
    /// Takes `timeout_ms` at most. The hold ends when it is released or dropped, when the
    /// caller's process dies, and when it was not renewed for `lease_ms`.
    ///
    /// Refusals are reported by name; nothing stays stopped then. EPERM: the caller may not trace
    /// a task. EDEADLK: the caller is in the tree. EBUSY: a task is held by somebody else.
    /// EOPNOTSUPP: a task is traced, or is not one of user space. ETIMEDOUT: a task did not stand
    /// still in time. ESRCH: the process is gone. EINTR: the caller was killed.
    pub(crate) fn stop(
        scope: Scope,
        caller: bool,
        timeout_ms: u32,
        lease_ms: u32,
        report: &mut Report,
    ) -> Result<Hold> {
        Self::stop_when(scope, caller, timeout_ms, lease_ms, || (), report)
    }

    /// As [`Hold::stop`], and calls `armed` as soon as every task found has its trap set: tasks
    /// that wait for the caller may be let go then, and stop before they are in user mode.
    pub(crate) fn stop_when(
        scope: Scope,
        caller: bool,
        timeout_ms: u32,
        lease_ms: u32,
        armed: impl FnOnce(),
        report: &mut Report,
    ) -> Result<Hold> {
        // INVARIANT: No trap is set yet.
        let mut stopping = Stopping {
            scope: Arc::new(scope, GFP_KERNEL)?,
            caller,
            mine: KVVec::new(),
            since: Instant::now(),
            timeout_ms: i64::from(timeout_ms),
        };
        let since = stopping.since;
        let scope = stopping.scope.clone();
        let tasks = stopping.run(armed, report)?;

        let inner = Arc::pin_init(
            try_pin_init!(Inner {
                scope,
                tasks,
                since,
                timeout_ms: i64::from(timeout_ms),
                lease_ms,
                ended <- new_mutex!(None),
                watch <- Opaque::ffi_init(|slot| {
                    // SAFETY: `slot` is valid, and stays where it is.
                    unsafe { bindings::checkpoint_watch_init(slot) }
                }),
            }),
            GFP_KERNEL,
        )?;
        stopping.hand_over(&inner.tasks);

        // SAFETY: The watch was initialised, and is stopped when the `Hold` is dropped.
        unsafe { bindings::checkpoint_watch_start(inner.watch.get(), msecs_to_jiffies(lease_ms)) };
        // INVARIANT: The watch runs.
        Ok(Hold { inner })
    }

    /// Every thread: parents before children, a leader first and its threads after it, each in
    /// the order of creation.
    pub(crate) fn tasks(&self) -> &[Held] {
        &self.inner.tasks
    }

    /// Did the tree stand still since it was stopped? To be called after everything was read.
    ///
    /// EAGAIN, with the reasons reported, if a task was killed, traced or continued, or if the
    /// hold has ended.
    pub(crate) fn verify(&self, report: &mut Report) -> Result {
        let ended = || self.inner.ended.lock().is_some();

        if ended() {
            return Err(self.has_ended(report));
        }
        self.unchanged(report)?;
        // The lease may have run out while we looked.
        if ended() {
            return Err(self.has_ended(report));
        }
        Ok(())
    }

    fn has_ended(&self, report: &mut Report) -> Error {
        report.problem(
            Place::Tree,
            fmt!("the hold has ended (lease, opener or release)"),
        );
        EAGAIN
    }

    /// Whether all tasks stand as they did. EAGAIN, with the reasons reported.
    fn unchanged(&self, report: &mut Report) -> Result {
        let inner = &*self.inner;
        let mut result = Ok(());

        let now = tree::walk(&inner.scope)?;
        if now.len() != inner.tasks.len() {
            report.problem(Place::Tree, fmt!("has changed"));
            result = Err(EAGAIN);
        }
        for held in &inner.tasks {
            let change = match Stopping::state(&held.task) {
                Some(still) if still == held.still => None,
                Some(Still::Zombie) => Some("was killed"),
                Some(_) => Some("was continued"),
                None => Some("is being killed"),
            };
            if let Some(change) = change {
                report.problem(
                    Place::Task(held.pid),
                    fmt!("{change} during the checkpoint"),
                );
                result = Err(EAGAIN);
            }
            if Stopping::untraced(&held.task, report).is_err() {
                result = Err(EAGAIN);
            }
        }
        result
    }

    /// SIGKILL to every process, if all tasks still stand and `last` succeeds, and lets them go on
    /// to die. They stand until after `last`; nothing ends the hold meanwhile.
    ///
    /// On error nothing is killed, but for this: EAGAIN, with the reasons reported, if somebody else
    /// killed or continued a task after `last` had begun. What that left behind may not be whole.
    pub(crate) fn kill(
        &self,
        report: &mut Report,
        last: impl FnOnce(&mut Report) -> Result,
    ) -> Result {
        let mut ended = self.inner.ended.lock();

        if ended.is_some() {
            return Err(self.has_ended(report));
        }
        self.unchanged(report)?;
        last(report)?;
        let result = self.unchanged(report);
        kill(&self.inner.tasks);
        *ended = Some(self.inner.let_go());
        result
    }

    /// How long the tree was allowed to take to stand still, in ms.
    pub(crate) fn timeout_ms(&self) -> i64 {
        self.inner.timeout_ms
    }

    /// Starts the lease anew. Whoever takes long, and gets on, calls this now and then.
    pub(crate) fn renew(&self) {
        self.inner.renew();
    }

    /// Lets the tasks go on. Afterwards [`Hold::tasks`] tells what they were.
    pub(crate) fn release_early(&self) {
        self.inner.release();
    }

    /// How long the tree was stopped, from before the first task until after the last, in ns; 0
    /// while it is still held.
    pub(crate) fn stopped_ns(&self) -> u64 {
        let ended = *self.inner.ended.lock();

        ended.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(0))
    }

    /// A handle for the operations that a descriptor offers.
    pub(crate) fn control(&self) -> Control {
        Control {
            inner: self.inner.clone(),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.inner.release();
        // SAFETY: By the type invariant it was started. After this, `inner` is no longer used by
        // anything but its `Arc`s.
        unsafe { bindings::checkpoint_watch_stop(self.inner.watch.get()) };
    }
}

impl Control {
    /// Starts the lease anew. ESRCH: the hold has ended.
    pub(crate) fn renew(&self) -> Result {
        let ended = self.inner.ended.lock();

        if ended.is_some() {
            return Err(ESRCH);
        }
        self.inner.renew();
        Ok(())
    }

    /// Lets the tasks go on.
    pub(crate) fn release(&self) {
        self.inner.release();
    }

    /// SIGKILL to every process, then lets them go on to die. ESRCH: the hold has ended before.
    pub(crate) fn kill(&self) -> Result {
        self.end_with(kill)
    }

    /// SIGSTOP to every process, then lets them go on to stop. ESRCH: the hold has ended before.
    ///
    /// No thread gets to run in user mode in between: one of each process is let go, takes the
    /// signal and stops the others, which are still in their traps.
    pub(crate) fn stop(&self) -> Result {
        self.end_with(|tasks| {
            let trapped = |held: &&Held| {
                still(&held.task) == bindings::checkpoint_still_CHECKPOINT_STILL_TRAPPED
            };

            for threads in processes(tasks) {
                signal(threads, bindings::SIGSTOP);
                if let Some(first) = threads.iter().find(trapped) {
                    trap_clear(&first.task);
                }
            }

            let start = Instant::<Monotonic>::now();
            for held in processes(tasks).filter_map(|threads| threads.first()) {
                while start.elapsed().as_millis() < STOP_WAIT && !killed() {
                    // SAFETY: The task is valid.
                    if unsafe { bindings::checkpoint_process_stopped(held.task.as_ptr()) } {
                        break;
                    }
                    // SAFETY: This is a context that may sleep, no spinlock is held.
                    unsafe { bindings::msleep(1) };
                }
            }
        })
    }

    fn end_with(&self, last: impl FnOnce(&[Held])) -> Result {
        let mut done = false;

        self.inner.end(|tasks| {
            last(tasks);
            done = true;
        });
        if done {
            Ok(())
        } else {
            Err(ESRCH)
        }
    }

    /// Tells /proc/PID/fdinfo who is held by whom.
    pub(crate) fn show(&self, m: &kernel::seq_file::SeqFile) {
        let inner = &*self.inner;
        let ended = inner.ended.lock().is_some();

        // SAFETY: The `Hold` that owns the watch outlives the descriptor that is shown.
        let opener = unsafe { bindings::checkpoint_watch_opener(inner.watch.get()) };
        kernel::seq_print!(
            m,
            "hold-root:\t{}\nhold-tasks:\t{}\nhold-opener:\t{}\nhold-lease-ms:\t{}\n",
            inner.tasks.first().map_or(0, |held| held.pid),
            if ended { 0 } else { inner.tasks.len() },
            opener,
            inner.lease_ms,
        );
    }
}

/// The threads of each process, which follow one another.
fn processes(tasks: &[Held]) -> impl Iterator<Item = &[Held]> {
    tasks.chunk_by(|a, b| a.tgid == b.tgid)
}

/// Sends SIGKILL to every process.
fn kill(tasks: &[Held]) {
    for threads in processes(tasks) {
        signal(threads, bindings::SIGKILL);
    }
}

/// Sends `sig` to a process.
fn signal(threads: &[Held], sig: u32) {
    if let Some(held) = threads.first() {
        // SAFETY: The task is valid, and so is the signal.
        unsafe { bindings::checkpoint_signal(held.task.as_ptr(), sig as c_int) };
    }
}
