// SPDX-License-Identifier: GPL-2.0

//! Restarting a tree: all of it, or nothing.
//!
//! The caller of restart(2) coordinates. It reads and checks the whole plan and opens all files
//! before the first task exists; then it creates the root. Every task builds itself, as `current`,
//! through the ordinary ways of the kernel, creates its own threads and children, and parks before
//! user mode. The coordinator fills in memory, loads the registers, and when the stream has been
//! verified to its end it lets all go at once. Whatever fails before that makes every task die
//! where it is parked.
//!
//! Waits: a parent waits for each child to be built, the coordinator for the root, every task for
//! the coordinator; all of them killably. No lock is held in any of these waits.

use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicBool,
        AtomicI32,
        AtomicPtr,
        Ordering, //
    },
};

use kernel::{
    bindings,
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::{
        Arc,
        Completion, //
    },
    task::{
        Pid,
        Task, //
    },
    types::Opaque, //
};

use crate::{
    cred,
    files,
    fs,
    hold::Hold,
    image::{
        record::process_flags,
        Kind,
        Next,
        FRAME_LEN, //
    },
    machine::TimeNs,
    mm::{
        self,
        MmRef, //
    },
    pages::Fill,
    plan::{
        defect,
        Blueprint,
        Policy,
        Rest,
        Supplied, //
    },
    process,
    registers,
    report::{
        Place,
        Report, //
    },
    save::Stats,
    sighand,
    signals,
    stream::{
        interrupted,
        Stream, //
    },
    task, //
};

/// How long the tasks of a tree may take from where they are parked into the trap of a hold, in ms.
const HOLD_WAIT_MS: u32 = 10_000;

/// One task of the tree in the making.
#[pin_data(PinnedDrop)]
struct Member {
    /// The task, with a reference, from the moment it runs.
    task: AtomicPtr<bindings::task_struct>,
    /// It has built itself and all that it creates, or failed: see `error`.
    #[pin]
    ready: Completion,
    /// 0, or the negative number of the error that stopped it.
    error: AtomicI32,
}

#[pinned_drop]
impl PinnedDrop for Member {
    fn drop(self: Pin<&mut Self>) {
        if let Some(task) = NonNull::new(self.task.load(Ordering::Relaxed)) {
            // SAFETY: The reference is ours.
            unsafe { bindings::put_task_struct(task.as_ptr()) };
        }
    }
}

impl Member {
    fn task(&self) -> Option<NonNull<bindings::task_struct>> {
        NonNull::new(self.task.load(Ordering::Acquire))
    }

    fn result(&self) -> Result {
        to_result(self.error.load(Ordering::Acquire))
    }
}

/// What all tasks in the making share.
#[pin_data]
struct Tree {
    blueprint: Blueprint,
    members: KVVec<Pin<KBox<Member>>>,
    /// All may go, or, `aborted`, have to die.
    #[pin]
    go: Completion,
    aborted: AtomicBool,
}

/// The place of one task: the argument of its first function, later its parking ticket.
#[repr(C)]
struct Seat {
    work: Opaque<bindings::callback_head>,
    tree: Arc<Tree>,
    index: usize,
}

/// Waits until `completion` is done, or the current task is killed.
fn wait_killable(completion: &Completion) -> Result {
    // SAFETY: A completion of the kernel crate is a `struct completion` and nothing else.
    let raw = ptr::from_ref(completion)
        .cast_mut()
        .cast::<bindings::completion>();
    // SAFETY: `completion` is valid for as long as the wait lasts.
    to_result(unsafe { bindings::wait_for_completion_killable(raw) }).map_err(|_| EINTR)
}

impl Tree {
    fn new(blueprint: Blueprint) -> Result<Arc<Self>> {
        let mut members = KVVec::new();
        for _ in 0..blueprint.tasks.len() {
            let member = KBox::pin_init(
                pin_init!(Member {
                    task: AtomicPtr::new(ptr::null_mut()),
                    ready <- Completion::new(),
                    error: AtomicI32::new(0),
                }),
                GFP_KERNEL_ACCOUNT,
            )?;
            members.push(member, GFP_KERNEL_ACCOUNT)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                blueprint,
                members,
                go <- Completion::new(),
                aborted: AtomicBool::new(false),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn member(&self, index: usize) -> Result<&Member> {
        self.members
            .get(index)
            .map(|member| &**member)
            .ok_or(EINVAL)
    }

    /// Creates task number `index` as a child of the current one, or as a thread of it, and waits
    /// until it has been built.
    fn spawn(self: &Arc<Self>, index: usize, flags: u32, exit_signal: u32) -> Result {
        let seat = KBox::new(
            Seat {
                work: Opaque::uninit(),
                tree: self.clone(),
                index,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let mut tid = self.blueprint.task(index)?.tid.get();
        let seat = KBox::into_raw(seat);
        let mut args = bindings::kernel_clone_args {
            flags: u64::from(flags | bindings::CLONE_UNTRACED),
            exit_signal: i32::try_from(exit_signal)?,
            set_tid: &mut tid,
            set_tid_size: 1,
            fn_: Some(entry),
            fn_arg: seat.cast(),
            ..Default::default()
        };
        // SAFETY: The arguments are valid; `entry` takes over the seat when the call succeeds.
        let pid = unsafe { bindings::kernel_clone(&mut args) };
        if pid < 0 {
            // SAFETY: Nobody has taken it over.
            drop(unsafe { KBox::from_raw(seat) });
            return Err(Error::from_errno(pid));
        }
        let member = self.member(index)?;
        wait_killable(&member.ready)?;
        member.result()
    }

    /// Builds task number `index`, which is the current one, and all that it creates.
    fn build(self: &Arc<Self>, index: usize) -> Result {
        let plan = &self.blueprint;
        let record = plan.task(index)?;
        let number = plan.tasks.get(index).ok_or(EINVAL)?.process;
        let process = plan.processes.get(number).ok_or(EINVAL)?;
        let leader = process.tasks.first().copied().ok_or(EINVAL)?;
        let shared = plan.task(leader)?;

        // SAFETY: The current task has not been in user mode and has nothing to lose there.
        unsafe { bindings::checkpoint_reset_inherited() };
        let leads = index == leader;
        if leads {
            process::raise_limits(plan.process(number)?);
            mm::restore(plan, plan.process(number)?.mm.get())?;
            sighand::restore(plan.actions(plan.process(number)?.sighand.get())?)?;
        }
        if leads || record.files != shared.files {
            files::restore(plan, record.files.get(), record.tid.get())?;
        }
        if leads || record.fs != shared.fs {
            let (fs, dir) = plan.fs(record.fs.get())?;
            fs::restore(fs, &dir);
        }
        let (_, cpus) = plan.task_with_cpus(index)?;
        task::restore(record, cpus)?;
        if !leads {
            return cred::restore(plan.cred(record.cred.get())?);
        }

        for thread in process.tasks.iter().skip(1) {
            let other = plan.task(*thread)?;
            let mut flags = bindings::CLONE_VM
                | bindings::CLONE_SIGHAND
                | bindings::CLONE_THREAD
                | bindings::CLONE_SYSVSEM;
            if other.files == record.files {
                flags |= bindings::CLONE_FILES;
            }
            if other.fs == record.fs {
                flags |= bindings::CLONE_FS;
            }
            self.spawn(*thread, flags, 0)?;
        }
        for child in process.children.iter() {
            let leader = plan
                .processes
                .get(*child)
                .and_then(|child| child.tasks.first());
            let exit_signal = plan.process(*child)?.exit_signal.get();
            self.spawn(*leader.ok_or(EINVAL)?, 0, exit_signal)?;
        }
        process::finish(plan.process(number)?);
        // The last step: what it may no longer do, it has done.
        cred::restore(plan.cred(record.cred.get())?)
    }

    /// Reads the contents of memory, to the end of the stream.
    fn fill(&self, stream: &Stream, mut rest: Rest, report: &mut Report) -> Result<Stats> {
        let plan = &self.blueprint;
        let mut fill = Fill::new(stream)?;
        let mut payload = KVVec::new();
        let mut memory: Option<(u32, MmRef)> = None;
        loop {
            interrupted()?;
            let mut frame = [0; FRAME_LEN];
            read(stream, &mut frame, &rest, 0, report)?;
            let next = rest.next(&frame).map_err(|err| defect(report, err))?;
            let (Next::Chunk(len) | Next::Trailer(len)) = next;
            payload.resize(len, 0, GFP_KERNEL)?;
            read(stream, &mut payload, &rest, FRAME_LEN, report)?;

            if matches!(next, Next::Trailer(_)) {
                rest.trailer(&frame, &payload)
                    .map_err(|err| defect(report, err))?;
                let totals = rest.totals();
                return Ok(Stats {
                    tasks: u64::try_from(self.members.len())?,
                    pages: totals.pages,
                    bytes: totals.bytes,
                });
            }
            let chunk = rest
                .chunk(plan.objects(), &frame, &payload)
                .map_err(|err| defect(report, err))?;
            let object = plan.objects().get(chunk.id).ok_or(EINVAL)?;
            for extent in chunk.extents {
                let (addr, pages) = (extent.addr.get(), extent.pages.get());
                if object.kind == Kind::Shmem {
                    fill.shmem(&plan.file(chunk.id)?, addr, pages)?;
                    continue;
                }
                let mm = match &mut memory {
                    Some((id, mm)) if *id == chunk.id => mm,
                    other => &other.insert((chunk.id, self.mm(chunk.id)?)).1,
                };
                fill.mm(mm, addr, pages).inspect_err(|err| {
                    report.problem(Place::Image, fmt!("pages at {addr:#x}: {err:?}"));
                })?;
            }
            let crc = fill.read().map_err(|err| {
                if err == ENODATA {
                    return defect(report, rest.truncated(1));
                }
                report.problem(Place::Image, fmt!("reading pages: {err:?}"));
                err
            })?;
            rest.data(&chunk, crc).map_err(|err| defect(report, err))?;
        }
    }

    /// The address space that a task of the tree has made for `id`.
    fn mm(&self, id: u32) -> Result<MmRef> {
        let plan = &self.blueprint;
        let found = plan
            .processes
            .binary_search_by_key(&id, |process| {
                plan.process_of(process)
                    .map_or(0, |process| process.mm.get())
            })
            .map_err(|_| EINVAL)?;
        let process = plan.processes.get(found).ok_or(EINVAL)?;
        let leader = process.tasks.first().copied().ok_or(EINVAL)?;
        let task = self.member(leader)?.task().ok_or(ESRCH)?;
        // SAFETY: The member holds a reference to its task.
        unsafe { MmRef::of(task.as_ptr()) }
    }

    /// Loads the registers of all tasks, which are parked.
    fn load_registers(&self, report: &mut Report) -> Result {
        for (index, member) in self.members.iter().enumerate() {
            let task = member.task().ok_or(ESRCH)?.as_ptr();
            // SAFETY: The member holds a reference to its task. It is parked, so that it is off its
            // CPU when the wait ends; it never runs before `go`, except to die.
            let loaded = unsafe {
                to_result(bindings::checkpoint_wait_parked(task))?;
                registers::restore_general(task, self.blueprint.registers(index)?)
                    .and_then(|()| registers::restore_extended(task, self.blueprint.xstate(index)))
            };
            loaded.inspect_err(|err| {
                report.problem(
                    Place::Task(self.blueprint.task(index).map_or(0, |task| task.tid.get())),
                    fmt!("registers: {err:?}"),
                );
            })?;
        }
        Ok(())
    }

    /// Puts processes into the groups and sessions of the tree; the others stay with the caller's.
    fn set_ids(&self) -> Result {
        let plan = &self.blueprint;
        for (index, process) in plan.processes.iter().enumerate() {
            let record = plan.process(index)?;
            let flags = record.flags.get();
            let leader = process.tasks.first().copied().ok_or(EINVAL)?;
            let task = self.member(leader)?.task().ok_or(ESRCH)?;
            let pgid = if flags & process_flags::PGID_OUTSIDE == 0 {
                record.pgid.get()
            } else {
                0
            };
            let sid = if flags & process_flags::SID_OUTSIDE == 0 {
                record.sid.get()
            } else {
                0
            };
            // SAFETY: The member holds a reference to its task, which is parked.
            to_result(unsafe { bindings::checkpoint_set_ids(task.as_ptr(), pgid, sid) })?;
        }
        Ok(())
    }

    /// Queues the pending signals of all tasks and processes.
    fn queue_signals(&self) -> Result {
        let plan = &self.blueprint;
        for (index, member) in self.members.iter().enumerate() {
            let task = member.task().ok_or(ESRCH)?.as_ptr();
            // SAFETY: The member holds a reference to its task.
            unsafe { signals::restore(task, false, plan.task_signals(index)) }?;
        }
        for (index, process) in plan.processes.iter().enumerate() {
            let leader = process.tasks.first().copied().ok_or(EINVAL)?;
            let task = self.member(leader)?.task().ok_or(ESRCH)?.as_ptr();
            // SAFETY: As above.
            unsafe { signals::restore(task, true, plan.process_signals(index)) }?;
        }
        Ok(())
    }

    /// Lets all tasks go, or, with a lease for a hold, only as far as into its trap.
    fn release(&self, hold_ms: Option<u32>, report: &mut Report) -> Result<Option<Hold>> {
        let Some(lease_ms) = hold_ms else {
            self.go.complete_all();
            return Ok(None);
        };
        let root = self.member(0)?.task().ok_or(ESRCH)?;
        // SAFETY: The member holds a reference to its task, for longer than the call.
        let root = unsafe { root.cast::<Task>().as_ref() };
        Hold::stop_when(
            root,
            HOLD_WAIT_MS,
            lease_ms,
            || self.go.complete_all(),
            report,
        )
        .map(Some)
    }

    /// Makes all tasks die, and waits until they have.
    fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.go.complete_all();
        for member in self.members.iter() {
            if let Some(task) = member.task() {
                // SAFETY: The member holds a reference to its task. A task may still be building:
                // its own waits are killable, and then it sees `aborted`.
                unsafe { bindings::send_sig(bindings::SIGKILL as i32, task.as_ptr(), 1) };
            }
        }
        for member in self.members.iter() {
            if let Some(task) = member.task() {
                // SAFETY: As above.
                unsafe { bindings::checkpoint_wait_dead(task.as_ptr()) };
            }
        }
    }
}

/// Reads exactly `buf.len()` bytes of what follows the plan.
fn read(
    stream: &Stream,
    buf: &mut [u8],
    rest: &Rest,
    before: usize,
    report: &mut Report,
) -> Result {
    let mut done = 0;
    while let Some(part) = buf.get_mut(done..).filter(|part| !part.is_empty()) {
        match stream.read_some(part)? {
            0 => return Err(defect(report, rest.truncated((before + done) as u64))),
            got => done += got,
        }
    }
    Ok(())
}

/// The first function of a new task, whose current task it is.
///
/// It must return, and what it returns to is user mode with no registers worth the name: from here
/// on the task only parks or dies. It parks in task work and not here, because the way to user mode
/// clears a register after this function.
///
/// # Safety
///
/// `arg` is a [`Seat`] from [`KBox::into_raw`], and nobody else has it.
unsafe extern "C" fn entry(arg: *mut c_void) -> c_int {
    // SAFETY: By the safety requirement.
    let seat = unsafe { KBox::from_raw(arg.cast::<Seat>()) };
    if let Ok(member) = seat.tree.member(seat.index) {
        // SAFETY: The current task is valid; the member takes a reference.
        let task = unsafe {
            let task = bindings::get_current();
            bindings::get_task_struct(task);
            task
        };
        member.task.store(task, Ordering::Release);
        if let Err(err) = seat.tree.build(seat.index) {
            member.error.store(err.to_errno(), Ordering::Release);
        }
        member.ready.complete_all();
    }
    let work = seat.work.get();
    let seat = KBox::into_raw(seat);
    // SAFETY: The work is part of the seat, which `park` takes over. The current task is not exiting,
    // so that the work is taken.
    unsafe {
        bindings::init_task_work(work, Some(park));
        if bindings::task_work_add(
            bindings::get_current(),
            work,
            bindings::task_work_notify_mode_TWA_RESUME,
        ) != 0
        {
            drop(KBox::from_raw(seat));
            bindings::send_sig(bindings::SIGKILL as i32, bindings::get_current(), 1);
        }
    }
    0
}

/// Waits for the coordinator on the way to user mode.
///
/// # Safety
///
/// `work` is that of a [`Seat`] from [`KBox::into_raw`], and nobody else has it.
unsafe extern "C" fn park(work: *mut bindings::callback_head) {
    // SAFETY: By the safety requirement; the work is the first field of the seat.
    let seat = unsafe { KBox::from_raw(work.cast::<Seat>()) };
    let tree = &seat.tree;
    let released = wait_killable(&tree.go).is_ok() && !tree.aborted.load(Ordering::Acquire);
    let plan = &tree.blueprint;
    let resumed = released
        && plan.task(seat.index).is_ok_and(|record| {
            task::resume(record);
            if let Some((process, true)) = plan.leads(seat.index) {
                process::start_timer(process);
            }
            true
        });
    // SAFETY: The current task is valid.
    unsafe {
        if resumed {
            // Restarts the interrupted call, and delivers what is pending.
            bindings::checkpoint_set_sigpending(bindings::get_current());
        } else {
            bindings::send_sig(bindings::SIGKILL as i32, bindings::get_current(), 1);
        }
    }
}

/// What the caller of restart(2) asks for.
pub(crate) struct Request {
    pub(crate) policy: Policy,
    pub(crate) keep_clocks: bool,
    pub(crate) supplied: KVVec<Supplied>,
    /// Leave the tree held, for so long at a time, in ms.
    pub(crate) hold_ms: Option<u32>,
}

/// A tree that has been restarted.
pub(crate) struct Restarted {
    /// Number of the root.
    pub(crate) root: Pid,
    pub(crate) stats: Stats,
    /// The hold on it, if one was asked for; otherwise it runs.
    pub(crate) hold: Option<Hold>,
}

/// Restarts the tree whose image comes from `stream`, and calls `publish` with the root, which is
/// ready to go, before anything of it runs.
///
/// # Errors
///
/// What is wrong, with lines in `report`; then nothing is left of the tree.
pub(crate) fn run(
    stream: &Stream,
    request: Request,
    publish: impl FnOnce(*mut bindings::task_struct) -> Result,
    report: &mut Report,
) -> Result<Restarted> {
    let (mut blueprint, rest) = Blueprint::read(stream, report)?;
    blueprint.prepare(request.supplied, request.policy, report)?;
    blueprint.notes(report)?;
    let time_ns = TimeNs::enter(blueprint.machine()?, request.keep_clocks, report)?;

    let tree = Tree::new(blueprint)?;
    let result = create(&tree, stream, rest, publish, report)
        .and_then(|stats| Ok((stats, tree.release(request.hold_ms, report)?)));
    drop(time_ns);
    match result {
        Ok((stats, hold)) => Ok(Restarted {
            root: tree.blueprint.task(0)?.tid.get(),
            stats,
            hold,
        }),
        Err(err) => {
            tree.abort();
            Err(err)
        }
    }
}

/// Creates the tree and makes it ready to go.

fn create(
    tree: &Arc<Tree>,
    stream: &Stream,
    rest: Rest,
    publish: impl FnOnce(*mut bindings::task_struct) -> Result,
    report: &mut Report,
) -> Result<Stats> {
    let plan = &tree.blueprint;
    let leader = plan.processes.first().and_then(|root| root.tasks.first());
    let leader = *leader.ok_or(EINVAL)?;
    let exit_signal = plan.process(0)?.exit_signal.get();
    tree.spawn(leader, 0, exit_signal).inspect_err(|err| {
        tree.name_failure(*err, report);
    })?;

    let stats = tree.fill(stream, rest, report)?;
    tree.load_registers(report)?;
    tree.set_ids()?;
    for truncate in plan.truncate.iter() {
        truncate.carry_out().inspect_err(|err| {
            report.problem(Place::Tree, fmt!("cutting back a file: {err:?}"));
        })?;
    }
    plan.forget_files();
    tree.queue_signals()?;
    publish(tree.member(leader)?.task().ok_or(ESRCH)?.as_ptr())?;
    Ok(stats)
}

impl Tree {
    /// Says which task could not be built: the last in the order of creation that knows of an error,
    /// since that of a child becomes that of its parent.
    fn name_failure(&self, err: Error, report: &mut Report) {
        let failed = self
            .members
            .iter()
            .rposition(|member| member.result().is_err());
        let index = failed.unwrap_or(0);
        let tid = self.blueprint.task(index).map_or(0, |task| task.tid.get());
        let what = if failed.is_some() {
            "cannot be built"
        } else {
            "cannot be created"
        };
        report.problem(Place::Task(tid), fmt!("{what}: {err:?}"));
    }
}
