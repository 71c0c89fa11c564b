// SPDX-License-Identifier: GPL-2.0

//! Restarting a tree: all of it, or nothing.
//!
//! The caller of restart(2) coordinates. It reads and checks the whole plan and opens all files
//! before the first task exists. Then it goes through these steps with all tasks:
//!
//! 1. *Create.* The coordinator creates the roots, and every task, as `current`, its own threads
//!    and children. All have an empty address space, and a copy of the restarter's descriptors.
//!    Those that have ended end again, while nobody is told.
//! 2. *Arrange.* All tasks exist. The coordinator puts them into their sessions and groups, lets
//!    them share what they shared, opens the files that refer to tasks, and links those that refer
//!    to other files.
//! 3. *Furnish.* Every task gives itself its memory, descriptors, signal actions and the rest,
//!    through the ordinary ways of the kernel, its credentials last, and parks before user mode.
//! 4. *Fill.* The coordinator reads the contents of memory, and of files without a name, and loads
//!    the registers.
//! 5. *Finish.* The stream has been verified to its end. The coordinator adds what tasks would
//!    disturb by building themselves, or contents by coming: terminals, locks, CPU time, seccomp,
//!    pending signals, and last what runs by itself, as timers do.
//! 6. *Go.* All run, at once, or stay as stopped as they were.
//!
//! Whatever fails before the last step makes every task die where it is.
//!
//! Waits: the coordinator waits for all tasks after 1 and after 3, and for those that stop in 5;
//! every task waits for the coordinator after 1 and after 3, and a parent in vfork(2) for its child
//! after 6; all of them killably. Only who gives up waits for those that create others at that
//! moment whatever happens: they see it before the next. No lock is held in any of these waits.

use core::{
    ptr::{
        self,
        NonNull, //
    },
    sync::atomic::{
        AtomicBool,
        AtomicI32,
        AtomicPtr,
        AtomicUsize,
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
    attributes,
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
    mempolicy,
    mm::{
        self,
        MmRef, //
    },
    pages::{
        self,
        Fill,
        Filling, //
    },
    plan::{
        defect,
        has_exited,
        Blueprint,
        Policy,
        Relocation,
        Rest,
        Supplied, //
    },
    process,
    registers::{
        self,
        Stack, //
    },
    report::{
        Place,
        Report, //
    },
    save::Stats,
    sighand,
    signals,
    stream::{
        interrupted,
        resize,
        Stream, //
    },
    task,
    timers,
    tree::Scope,
    usage, //
};

/// How long the tasks of a tree may take from where they are parked into the trap of a hold, in ms.
const HOLD_WAIT_MS: u32 = 10_000;

/// One task of the tree in the making.
struct Member {
    /// The task, with a reference, from the moment it runs.
    task: AtomicPtr<bindings::task_struct>,
    /// 0, or the negative number of the error that stopped it.
    error: AtomicI32,
}

impl Member {
    fn new() -> Self {
        Self {
            task: AtomicPtr::new(ptr::null_mut()),
            error: AtomicI32::new(0),
        }
    }

    fn task(&self) -> Option<NonNull<bindings::task_struct>> {
        NonNull::new(self.task.load(Ordering::Acquire))
    }

    fn result(&self) -> Result {
        to_result(self.error.load(Ordering::Acquire))
    }

    fn failed(&self, err: Error) {
        self.error.store(err.to_errno(), Ordering::Release);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(task) = self.task() {
            // SAFETY: The reference is ours.
            unsafe { bindings::put_task_struct(task.as_ptr()) };
        }
    }
}

/// A step that all tasks have to finish.
#[pin_data]
struct Step {
    /// How many are still at it.
    left: AtomicUsize,
    /// None is.
    #[pin]
    done: Completion,
}

impl Step {
    fn new(count: usize) -> impl PinInit<Self> {
        pin_init!(Self {
            left: AtomicUsize::new(count),
            done <- Completion::new(),
        })
    }

    /// One more is at it, said by one who is.
    fn begin(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// One has finished, or given up.
    fn end(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.complete_all();
        }
    }
}

/// What all tasks in the making share.
#[pin_data]
struct Tree {
    blueprint: Blueprint,
    members: KVVec<Member>,
    /// Counts the tasks that create others, and the coordinator until it has created the root.
    creating: Pin<KBox<Step>>,
    /// All tasks exist, and may furnish themselves.
    #[pin]
    exist: Completion,
    furnishing: Pin<KBox<Step>>,
    /// Those that are stopped by job control may go, to stop.
    #[pin]
    halt: Completion,
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
        let count = blueprint.tasks.len();
        let mut members = KVVec::with_capacity(count, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            members.push(Member::new(), GFP_KERNEL_ACCOUNT)?;
        }
        let mut lives = 0;
        for index in 0..count {
            lives += usize::from(!has_exited(blueprint.task(index)?));
        }
        let creating = KBox::pin_init(Step::new(1), GFP_KERNEL_ACCOUNT)?;
        let furnishing = KBox::pin_init(Step::new(lives), GFP_KERNEL_ACCOUNT)?;
        Arc::pin_init(
            pin_init!(Self {
                blueprint,
                members,
                creating,
                exist <- Completion::new(),
                furnishing,
                halt <- Completion::new(),
                go <- Completion::new(),
                aborted: AtomicBool::new(false),
            }),
            GFP_KERNEL_ACCOUNT,
        )
    }

    fn member(&self, index: usize) -> Result<&Member> {
        self.members.get(index).ok_or(EINVAL)
    }

    /// Task number `index`, which exists as long as the tree does.
    fn task(&self, index: usize) -> Result<NonNull<bindings::task_struct>> {
        self.member(index)?.task().ok_or(ESRCH)
    }

    /// The leader of process number `number`.
    fn leader(&self, number: usize) -> Result<NonNull<bindings::task_struct>> {
        self.task(self.blueprint.leader(number)?)
    }

    /// Who of process number `number` has not ended, if it has not.
    fn head(&self, number: usize) -> Result<Option<NonNull<bindings::task_struct>>> {
        let process = self.blueprint.processes.get(number).ok_or(EINVAL)?;
        process.head.map(|head| self.task(head)).transpose()
    }

    /// The tasks that have not ended, each with its number.
    fn living(
        &self,
    ) -> impl Iterator<Item = Result<(usize, NonNull<bindings::task_struct>)>> + use<'_> {
        (0..self.members.len()).filter_map(|index| match self.blueprint.task(index) {
            Ok(record) if has_exited(record) => None,
            Ok(_) => Some(self.task(index).map(|task| (index, task))),
            Err(err) => Some(Err(err)),
        })
    }

    fn aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    /// Creates the leader of process number `number`, as a child of the current task or, where the
    /// plan says so, as a sibling. `creator` is the number of the current task, if it is one of the
    /// tree.
    fn spawn_process(self: &Arc<Self>, number: usize, creator: Option<usize>) -> Result {
        let plan = &self.blueprint;
        let process = plan.processes.get(number).ok_or(EINVAL)?;
        let leader = plan.leader(number)?;
        let mut flags = process.clone_flags;
        if let Some(creator) = creator {
            flags |= self.shared(creator, leader)?;
        }
        // Nobody is told of the end of those that have ended; see `bury`.
        let exit_signal = match process.head {
            Some(_) => plan.process(number)?.exit_signal.get(),
            None => 0,
        };
        self.spawn(leader, flags, exit_signal)
    }

    /// What task number `index` shares with task number `creator` from the start, besides memory
    /// and signal actions, as flags of clone(2).
    fn shared(&self, creator: usize, index: usize) -> Result<u32> {
        let plan = &self.blueprint;
        let (of, task) = (plan.task(creator)?, plan.task(index)?);
        let mut flags = 0;
        // Who ends at once need not have a table of its own.
        if of.files == task.files || has_exited(task) {
            flags |= bindings::CLONE_FILES;
        }
        if of.fs == task.fs || has_exited(task) {
            flags |= bindings::CLONE_FS;
        }
        if task.sem_undo.get() != 0 && of.sem_undo == task.sem_undo {
            flags |= bindings::CLONE_SYSVSEM;
        }
        Ok(flags)
    }

    /// Creates task number `index` as a child of the current one, or as a thread of it.
    ///
    /// # Errors
    ///
    /// What clone3(2) says, which becomes the result of the new member; `EINTR` when the tree is
    /// given up.
    fn spawn(self: &Arc<Self>, index: usize, flags: u32, exit_signal: u32) -> Result {
        let member = self.member(index)?;
        self.try_spawn(index, flags, exit_signal)
            .inspect_err(|err| member.failed(*err))
    }

    fn try_spawn(self: &Arc<Self>, index: usize, flags: u32, exit_signal: u32) -> Result {
        if self.aborted() {
            return Err(EINTR);
        }
        let seat = KBox::new(
            Seat {
                work: Opaque::uninit(),
                tree: self.clone(),
                index,
            },
            GFP_KERNEL_ACCOUNT,
        )?;
        let mut tid = self.blueprint.task(index)?.tid.get();
        let exit_signal = i32::try_from(exit_signal)?;
        let seat = KBox::into_raw(seat);
        let mut args = bindings::kernel_clone_args {
            flags: u64::from(flags | bindings::CLONE_UNTRACED) | bindings::CLONE_EMPTY_MM,
            exit_signal,
            set_tid: &mut tid,
            set_tid_size: 1,
            fn_: Some(entry),
            fn_arg: seat.cast(),
            ..Default::default()
        };
        self.creating.begin();
        // SAFETY: The arguments are valid; `entry` takes over the seat when the call succeeds.
        let pid = unsafe { bindings::kernel_clone(&mut args) };
        if pid < 0 {
            self.creating.end();
            // SAFETY: Nobody has taken it over.
            drop(unsafe { KBox::from_raw(seat) });
            return Err(Error::from_errno(pid));
        }
        Ok(())
    }

    /// What the current task, number `index`, does as soon as it runs: it creates its threads and
    /// children, up to the first that cannot be created.
    fn create(self: &Arc<Self>, index: usize) -> Result {
        // SAFETY: The current task has not been in user mode and has nothing to lose there.
        unsafe { bindings::checkpoint_reset_inherited() };
        let plan = &self.blueprint;
        let task = plan.tasks.get(index).ok_or(EINVAL)?;
        let process = plan.processes.get(task.process).ok_or(EINVAL)?;
        if process.head.is_some() && index == plan.leader(task.process)? {
            process::begin(plan.process(task.process)?);
            for thread in process.tasks.iter().skip(1) {
                let flags = bindings::CLONE_VM | bindings::CLONE_SIGHAND | bindings::CLONE_THREAD;
                let flags = flags | self.shared(index, *thread)?;
                if self.spawn(*thread, flags, 0).is_err() {
                    return Ok(());
                }
            }
        }
        for child in task.creates.iter() {
            if self.spawn_process(*child, Some(index)).is_err() {
                break;
            }
        }
        if has_exited(plan.task(index)?) {
            task::restore_exited(plan.task(index)?);
            let (cred, groups) = plan.cred(plan.task(index)?.cred.get())?;
            cred::restore(cred, groups)?;
        }
        Ok(())
    }

    /// How the current task, number `index`, has to end as soon as it has created others, if it has
    /// to.
    fn end_of(&self, index: usize) -> Option<End> {
        let plan = &self.blueprint;
        let record = plan.task(index).ok()?;
        if !has_exited(record) {
            return None;
        }
        let number = plan.tasks.get(index)?.process;
        Some(match plan.processes.get(number)?.head {
            Some(_) => End::Thread(record.exit_code.get()),
            None => End::Process(plan.process(number).ok()?.exit_code.get()),
        })
    }

    /// As [`Tree::furnish`], when all tasks exist.
    ///
    /// # Errors
    ///
    /// `EINTR` when the current task is killed.
    fn furnish_when_told(&self, index: usize) -> Result {
        wait_killable(&self.exist)?;
        if self.aborted() {
            return Err(EINTR);
        }
        self.furnish(index)
    }

    /// Gives the current task, number `index`, all that it has but for contents of memory and
    /// registers.
    fn furnish(&self, index: usize) -> Result {
        let plan = &self.blueprint;
        let (record, cpus) = plan.task_with_cpus(index)?;
        let number = plan.tasks.get(index).ok_or(EINVAL)?.process;
        let head = plan.heads(index);

        // What several have is made by the first of them.
        if let Some(process) = head {
            if plan.owner(process.mm.get())? == number {
                attributes::prepare_mm(plan.mm_options(number))?;
                mm::restore(plan, process.mm.get())?;
            }
            if plan.owner(process.sighand.get())? == number {
                sighand::restore(plan.actions(process.sighand.get())?)?;
                files::epoll::link_own(plan, number)?;
            }
        }
        if plan.owner(record.files.get())? == index {
            files::restore(plan, record.files.get(), record.tid.get())?;
        }
        if plan.owner(record.fs.get())? == index {
            let (fs, dir) = plan.fs(record.fs.get())?;
            fs::restore(fs, &dir);
        }
        task::restore(record, cpus)?;
        if let (Some(_), Some((record, timers))) = (head, plan.timers(number)) {
            timers::create(record, timers)?;
        }
        attributes::restore(record, plan.dispatch(index))?;
        mempolicy::restore(plan.mempolicy(record.mempolicy.get())?)?;
        if let Some(process) = head {
            if plan.owner(process.mm.get())? == number {
                attributes::finish_mm(plan.mm_options(number))?;
            }
            process::finish(process);
        }
        for (ring, user) in plan.rings_of(index) {
            files::uring::restore_own(&*plan.file(ring)?, user)?;
        }
        attributes::restore_scheduling(record, plan.scheduling(index))?;
        // What it may no longer do after this, it has done.
        let (cred, groups) = plan.cred(record.cred.get())?;
        cred::restore(cred, groups)?;
        task::restore_death_signal(record);
        Ok(())
    }

    /// Reads the contents of memory, to the end of the stream.
    fn fill(&self, stream: &Stream, mut rest: Rest, report: &mut Report) -> Result<Stats> {
        let plan = &self.blueprint;
        let spaces = self.spaces()?;
        mm::relate(plan, &spaces)?;
        let mut filling = KVVec::new();
        for (id, mm) in spaces.iter() {
            filling.push((*id, Filling::begin(mm)?), GFP_KERNEL_ACCOUNT)?;
        }
        let space = |id: u32| {
            let at = filling.binary_search_by_key(&id, |(id, _)| *id).ok()?;
            filling.get(at).map(|(_, space)| space)
        };

        let mut fill = Fill::new(stream)?;
        let mut payload = KVVec::new();
        loop {
            interrupted()?;
            let mut frame = [0; FRAME_LEN];
            read(stream, &mut frame, &rest, 0, report)?;
            let next = rest.next(&frame).map_err(|err| defect(report, err))?;
            let (Next::Chunk(len) | Next::Shared(len) | Next::Trailer(len)) = next;
            resize(&mut payload, len, GFP_KERNEL)?;
            read(stream, &mut payload, &rest, FRAME_LEN, report)?;

            match next {
                Next::Chunk(_) => {}
                Next::Shared(_) => {
                    let (id, shares) = rest
                        .shared(plan.objects(), &frame, &payload)
                        .map_err(|err| defect(report, err))?;
                    let to = space(id).ok_or(EINVAL)?;
                    for share in shares {
                        let from = space(share.from.get()).ok_or(EINVAL)?;
                        pages::share(from.mm(), to.mm(), share).inspect_err(|err| {
                            let addr = share.addr.get();
                            report
                                .problem(Place::Image, fmt!("shared pages at {addr:#x}: {err:?}"));
                        })?;
                    }
                    continue;
                }
                Next::Trailer(_) => {
                    rest.trailer(&frame, &payload)
                        .map_err(|err| defect(report, err))?;
                    let totals = rest.totals();
                    filling.clear();
                    for (id, mm) in spaces.iter() {
                        mm::populate(plan, *id, mm)?;
                    }
                    return Ok(Stats {
                        tasks: u64::try_from(self.members.len())?,
                        pages: totals.pages,
                        bytes: totals.bytes,
                    });
                }
            }
            let chunk = rest
                .chunk(plan.objects(), &frame, &payload)
                .map_err(|err| defect(report, err))?;
            let object = plan.objects().get(chunk.id).ok_or(EINVAL)?;
            let written = files::unnamed::written(&object);
            let into = if object.kind == Kind::Mm {
                Some(space(chunk.id).ok_or(EINVAL)?)
            } else {
                None
            };
            let crc = if object.kind == Kind::Unnamed && plan.file(chunk.id).is_err() {
                // Contents of a file that is there.
                fill.skip(chunk.extents)
            } else if let Some(size) = written {
                fill.write(&*plan.file(chunk.id)?, size, chunk.extents)
            } else {
                for extent in chunk.extents {
                    let (addr, pages) = (extent.addr.get(), extent.pages.get());
                    match (into, object.kind) {
                        (Some(space), _) => fill.mm(space, addr, pages),
                        (None, Kind::Hugetlb) => fill.hugetlb(&plan.file(chunk.id)?, addr, pages),
                        (None, _) => fill.shmem(&plan.file(chunk.id)?, addr, pages),
                    }
                    .inspect_err(|err| {
                        report.problem(Place::Image, fmt!("pages at {addr:#x}: {err:?}"));
                    })?;
                }
                fill.read()
            };
            let crc = crc.map_err(|err| {
                if err == ENODATA {
                    return defect(report, rest.truncated(1));
                }
                report.problem(Place::Image, fmt!("contents of memory: {err:?}"));
                err
            })?;
            rest.data(&chunk, crc).map_err(|err| defect(report, err))?;
            fill.finish(into).inspect_err(|err| {
                report.problem(Place::Image, fmt!("mapping pages: {err:?}"));
            })?;
        }
    }

    /// The address spaces that the tree has made, ascending by their numbers in the image.
    fn spaces(&self) -> Result<KVVec<(u32, MmRef)>> {
        let plan = &self.blueprint;
        let mut spaces: KVVec<(u32, MmRef)> = KVVec::new();
        for number in 0..plan.processes.len() {
            let id = plan.process(number)?.mm.get();
            let Some(head) = self.head(number)? else {
                continue;
            };
            if plan.owner(id)? != number {
                continue;
            }
            // SAFETY: The member holds a reference to its task.
            let mm = unsafe { MmRef::of(head.as_ptr()) }?;
            spaces.push((id, mm), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(spaces)
    }

    /// Loads the registers of all tasks, which are parked.
    fn load_registers(&self, report: &mut Report) -> Result {
        for living in self.living() {
            let (index, task) = living?;
            // SAFETY: The member holds a reference to its task.
            let stack = Stack::keep(unsafe { task.cast::<Task>().as_ref() });
            let task = task.as_ptr();
            let load = |_kept: Stack| {
                let general = self.blueprint.registers(index)?;
                // SAFETY: The member holds a reference to its task. It is parked, so that it is off
                // its CPU when the wait ends; it never runs before `go`, except to die. Its stack is
                // kept.
                unsafe {
                    to_result(bindings::checkpoint_wait_parked(task))?;
                    registers::restore_general(task, general)?;
                    registers::restore_extended(task, self.blueprint.xstate(index))
                }
            };
            stack.ok_or(ESRCH).and_then(load).inspect_err(|err| {
                report.problem(self.place(index), fmt!("registers: {err:?}"));
            })?;
        }
        Ok(())
    }

    /// Puts processes into the groups and sessions of the tree; the others stay with the caller's.
    fn set_ids(&self) -> Result {
        let plan = &self.blueprint;
        for number in 0..plan.processes.len() {
            let record = plan.process(number)?;
            let flags = record.flags.get();
            let task = self.leader(number)?;
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
            // SAFETY: The member holds a reference to its task, which has not been in user mode.
            to_result(unsafe { bindings::checkpoint_set_ids(task.as_ptr(), pgid, sid) })?;
        }
        Ok(())
    }

    /// Gives sessions and processes their controlling terminals.
    fn set_terminals(&self, report: &mut Report) -> Result {
        let plan = &self.blueprint;
        for (id, pty) in plan.ptys() {
            let session = pty.session.get();
            let leader = plan.led_by(session).filter(|number| {
                let process = plan.process(*number);
                process.is_ok_and(|process| process.flags.get() & process_flags::SID_OUTSIDE == 0)
            });
            let Some(leader) = leader else {
                report.problem(
                    Place::Image,
                    fmt!("a pty controls session {session}, which is not in the tree"),
                );
                return Err(EINVAL);
            };
            let leader = self.leader(leader)?.as_ptr();
            let file = plan.file(id)?;
            // SAFETY: The member holds a reference to its task.
            unsafe { files::tty::set_session(&file, pty, leader, report) }?;
        }
        for (process, tty) in plan.terminals() {
            let task = self.head(process)?.ok_or(EINVAL)?.as_ptr();
            let file = plan.file(tty.pty.get())?;
            // SAFETY: The member holds a reference to its task, which has not been in user mode.
            unsafe { files::tty::set_controlling(&file, task) }.inspect_err(|err| {
                let tgid = plan
                    .process(process)
                    .map_or(0, |process| process.tgid.get());
                report.problem(Place::Task(tgid), fmt!("controlling terminal: {err:?}"));
            })?;
        }
        Ok(())
    }

    /// Gives rings of io_uring their state and memory, before they are mapped or polled.
    fn restore_rings(&self, report: &mut Report) -> Result {
        let plan = &self.blueprint;
        for (memory, bytes) in plan.ring_memory() {
            interrupted()?;
            files::uring::fill(&*plan.file(memory.ring.get())?, memory, bytes, report)?;
        }
        for state in plan.rings() {
            let issuer = match state.issuer.get() {
                0 => ptr::null_mut(),
                tid => self.task(plan.by_tid(tid).ok_or(EINVAL)?)?.as_ptr(),
            };
            let mm = match state.mm.get() {
                0 => None,
                mm => self.head(plan.owner(mm)?)?,
            };
            // SAFETY: The member holds a reference to its task.
            let mm = mm
                .map(|head| unsafe { MmRef::of(head.as_ptr()) })
                .transpose()?;
            let mm = mm.as_ref().map_or(ptr::null_mut(), MmRef::as_raw);
            let file = plan.file(state.ring.get())?;
            // SAFETY: The member holds a reference to its task; the address space is kept.
            unsafe { files::uring::restore(&file, state, issuer, mm, report) }?;
        }
        Ok(())
    }

    /// Takes the locks of all files, and sets who gets signals about them.
    ///
    /// The owner comes after the lease, which sets one too.
    fn set_locks(&self, report: &mut Report) -> Result {
        let plan = &self.blueprint;
        for lock in plan.locks() {
            let task = match lock.files.get() {
                0 => self.leader(0)?,
                files => self.task(plan.owner(files)?)?,
            }
            .as_ptr();
            // SAFETY: The member holds a reference to its task, which is parked and has its table.
            unsafe { files::locks::restore(lock, &*plan.file(lock.file.get())?, task, report) }?;
        }
        for owner in plan.owners() {
            files::owner::restore(owner, &*plan.file(owner.file.get())?, report)?;
        }
        Ok(())
    }

    /// Waits for the end of those that have ended, and gives them what would have been in its way.
    fn bury(&self) -> Result {
        let plan = &self.blueprint;
        for index in 0..self.members.len() {
            let record = plan.task(index)?;
            if has_exited(record) {
                let task = self.task(index)?.as_ptr();
                // SAFETY: The member holds a reference to its task, which ends by itself.
                unsafe {
                    to_result(bindings::checkpoint_wait_exited(task))?;
                    (*task).exit_code = record.exit_code.get() as i32;
                }
            }
        }
        for number in 0..plan.processes.len() {
            let process = plan.processes.get(number).ok_or(EINVAL)?;
            // A sibling takes over the signal of its creator.
            if process.head.is_none() || process.clone_flags & bindings::CLONE_PARENT != 0 {
                let exit_signal = i32::try_from(plan.process(number)?.exit_signal.get())?;
                let leader = self.leader(number)?.as_ptr();
                // SAFETY: The member holds a reference to its task.
                unsafe { bindings::checkpoint_set_exit_signal(leader, exit_signal) };
            }
        }
        Ok(())
    }

    /// Lets tasks use the descriptors and working directories of the first who has them.
    fn share(&self) -> Result {
        let plan = &self.blueprint;
        for living in self.living() {
            let (index, task) = living?;
            let record = plan.task(index)?;
            let files = self.task(plan.owner(record.files.get())?)?;
            let fs = self.task(plan.owner(record.fs.get())?)?;
            // SAFETY: The members hold references to their tasks, which wait for the coordinator
            // and use neither table meanwhile.
            unsafe {
                to_result(bindings::checkpoint_share_files(
                    task.as_ptr(),
                    files.as_ptr(),
                ))?;
                to_result(bindings::checkpoint_share_fs(task.as_ptr(), fs.as_ptr()))?;
            }
        }
        Ok(())
    }

    /// Queues the pending signals of all tasks and processes.
    fn queue_signals(&self) -> Result {
        let plan = &self.blueprint;
        let timers = |process| plan.timers(process).map_or(&[][..], |(_, timers)| timers);
        for living in self.living() {
            let (index, task) = living?;
            let timers = timers(plan.tasks.get(index).ok_or(EINVAL)?.process);
            // SAFETY: The member holds a reference to its task, which has not been in user mode.
            unsafe { signals::restore(task.as_ptr(), false, plan.task_signals(index), timers) }?;
        }
        for number in 0..plan.processes.len() {
            if let Some(head) = self.head(number)? {
                let signals = plan.process_signals(number);
                // SAFETY: As above.
                unsafe { signals::restore(head.as_ptr(), true, signals, timers(number)) }?;
            }
        }
        Ok(())
    }

    /// Lets CPU time and resource usage of all tasks go on, which are parked or have ended.
    fn restore_usage(&self) -> Result {
        let plan = &self.blueprint;
        for index in 0..self.members.len() {
            if let Some(usage) = plan.usage(index) {
                // SAFETY: The member holds a reference to its task, which does not run.
                unsafe { usage::restore(self.task(index)?.as_ptr(), usage) };
            }
        }
        for number in 0..plan.processes.len() {
            if let Some(usage) = plan.process_usage(number) {
                // SAFETY: As above.
                unsafe { usage::restore_process(self.leader(number)?.as_ptr(), usage) };
            }
        }
        Ok(())
    }

    /// Puts all tasks into their seccomp modes.
    fn restrict(&self, report: &mut Report) -> Result {
        let plan = &self.blueprint;
        let filters = plan.seccomp_filters(report)?;
        for living in self.living() {
            let (index, task) = living?;
            // SAFETY: The member holds a reference to its task, which is parked.
            unsafe { filters.give(task.as_ptr(), plan.task(index)?) }?;
        }
        Ok(())
    }

    /// Says who may look at the processes, which new credentials have made nobody.
    fn set_dumpable(&self) -> Result {
        let plan = &self.blueprint;
        for number in 0..plan.processes.len() {
            let Some(head) = self.head(number)? else {
                continue;
            };
            let (mm, _) = plan.mm(plan.process(number)?.mm.get())?;
            // SAFETY: The member holds a reference to its task, which is parked.
            unsafe { bindings::checkpoint_set_dumpable(head.as_ptr(), mm.dumpable.get()) };
        }
        Ok(())
    }

    /// Starts the timers of all processes: the last before they go.
    fn start_timers(&self) -> Result {
        let plan = &self.blueprint;
        for number in 0..plan.processes.len() {
            let Some(head) = self.head(number)? else {
                continue;
            };
            let timers = plan.timers(number).map_or(&[][..], |(_, timers)| timers);
            // SAFETY: The member holds a reference to its task, which has not been in user mode.
            unsafe { timers::start(head.as_ptr(), plan.process(number)?, timers) }?;
        }
        Ok(())
    }

    /// Lets the tasks that are stopped by job control stop, before others go, while nobody is told.
    fn stop(&self) -> Result {
        let plan = &self.blueprint;
        for number in 0..plan.processes.len() {
            let record = plan.process(number)?;
            let flags = record.flags.get();
            let Some(head) = self.head(number)? else {
                continue;
            };
            // SAFETY: The member holds a reference to its task, which has not been in user mode.
            unsafe {
                bindings::checkpoint_set_stopped(
                    head.as_ptr(),
                    flags & process_flags::STOPPED != 0,
                    flags & process_flags::CONTINUED != 0,
                    record.exit_code.get() as i32,
                )
            };
        }
        for living in self.living() {
            let (index, task) = living?;
            if let Some((signal, stopped)) = plan.stop(index) {
                // SAFETY: As above.
                unsafe { bindings::checkpoint_stop_task(task.as_ptr(), signal, stopped) };
            }
        }
        self.halt.complete_all();
        for living in self.living() {
            let (index, task) = living?;
            if plan.is_stopped(index) {
                // SAFETY: As above.
                to_result(unsafe { bindings::checkpoint_wait_stopped(task.as_ptr()) })?;
            }
        }
        Ok(())
    }

    /// Lets all tasks go, or, with a lease for a hold, only as far as into its trap.
    fn release(&self, hold_ms: Option<u32>, report: &mut Report) -> Result<Option<Hold>> {
        let Some(lease_ms) = hold_ms else {
            self.go.complete_all();
            return Ok(None);
        };
        let mut roots = KVVec::new();
        for root in self.blueprint.roots.iter() {
            roots.push(self.leader(*root)?, GFP_KERNEL)?;
        }
        // SAFETY: The members hold references to their tasks.
        let scope = unsafe { Scope::of_trees(&roots) }?;
        Hold::stop_when(
            scope,
            false,
            HOLD_WAIT_MS,
            lease_ms,
            || self.go.complete_all(),
            report,
        )
        .map(Some)
    }

    /// What task number `index` is called in messages.
    fn place(&self, index: usize) -> Place {
        Place::Task(self.blueprint.task(index).map_or(0, |task| task.tid.get()))
    }

    /// Names those that somebody else has killed, which may be why the restart has failed.
    fn name_killed(&self, report: &mut Report) {
        for (index, task) in self.living().flatten() {
            // SAFETY: The member holds a reference to its task.
            if unsafe { bindings::checkpoint_is_killed(task.as_ptr()) } {
                report.problem(self.place(index), fmt!("was killed during the restart"));
            }
        }
    }

    /// Makes all tasks die, and waits until they have.
    fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.exist.complete_all();
        self.halt.complete_all();
        self.go.complete_all();
        // Nobody creates any more after this, so that all are known. It does not take long: whoever
        // creates looks at `aborted` before each.
        self.creating.done.wait_for_completion();
        for member in self.members.iter() {
            if let Some(task) = member.task() {
                // SAFETY: The member holds a reference to its task. A task may still be furnishing
                // itself: its own waits are killable, and then it sees `aborted`.
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

    /// Waits until all tasks have finished a step.
    ///
    /// # Errors
    ///
    /// What the first task that failed says, with a line in `report`; `EINTR` when the caller is
    /// killed.
    fn wait(&self, step: &Step, what: &str, report: &mut Report) -> Result {
        wait_killable(&step.done)?;
        for (index, member) in self.members.iter().enumerate() {
            member.result().inspect_err(|err| {
                report.problem(self.place(index), fmt!("cannot be {what}: {err:?}"));
            })?;
        }
        Ok(())
    }

    /// Takes the tree from its plan to where it is ready to go, and calls `publish` with the root.
    fn build(
        self: &Arc<Self>,
        stream: &Stream,
        rest: Rest,
        publish: impl FnOnce(*mut bindings::task_struct) -> Result,
        report: &mut Report,
    ) -> Result<Stats> {
        let plan = &self.blueprint;
        let spawned = plan
            .roots
            .iter()
            .try_for_each(|root| self.spawn_process(*root, None));
        self.creating.end();
        self.wait(&self.creating, "created", report)?;
        spawned?;

        self.bury()?;
        self.set_ids()?;
        self.share()?;
        self.restore_rings(report)?;
        plan.open_late(report)?;
        plan.link(report)?;
        self.exist.complete_all();
        self.wait(&self.furnishing, "restored", report)?;

        let stats = self.fill(stream, rest, report)?;
        self.load_registers(report)?;
        plan.finish_files(report)?;
        self.set_terminals(report)?;
        self.set_locks(report)?;
        self.restore_usage()?;
        self.set_dumpable()?;
        self.restrict(report)?;
        self.queue_signals()?;
        // Last of what somebody else would see if the rest failed, and before anyone watches.
        for truncate in plan.truncate.iter() {
            let done = truncate.carry_out(&*plan.file(truncate.id)?);
            done.inspect_err(|err| {
                report.problem(Place::Tree, fmt!("cutting back a file: {err:?}"));
            })?;
        }
        plan.start(report)?;
        plan.forget_files();
        publish(self.leader(0)?.as_ptr())?;
        self.stop()?;
        self.start_timers()?;
        Ok(stats)
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

/// How a task has to end.
enum End {
    /// With its status, while its process goes on.
    Thread(u32),
    /// With the status of its process.
    Process(u32),
}

impl End {
    /// Ends the current task, which holds nothing.
    fn carry_out(self) -> ! {
        // SAFETY: The current task is one of user space, and in a context where it may end.
        match self {
            End::Thread(code) => unsafe { bindings::do_exit(code as isize) },
            End::Process(code) => unsafe { bindings::do_group_exit(code as i32) },
        }
    }
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
    let tree = &seat.tree;
    if let Ok(member) = tree.member(seat.index) {
        // SAFETY: The current task is valid; the member takes a reference.
        let task = unsafe {
            let task = bindings::get_current();
            bindings::get_task_struct(task);
            task
        };
        member.task.store(task, Ordering::Release);
        let note = |err: &Error| member.failed(*err);
        let created = tree.create(seat.index).inspect_err(note);
        let end = tree.end_of(seat.index);
        tree.creating.end();
        if let Some(end) = end {
            drop(seat);
            end.carry_out();
        }
        let _ = created.and_then(|()| tree.furnish_when_told(seat.index).inspect_err(note));
        tree.furnishing.end();
    }
    let work = seat.work.get();
    let seat = KBox::into_raw(seat);
    // SAFETY: The work is part of the seat, which `park` takes over. The current task is not
    // exiting, so that the work is taken.
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
    let plan = &tree.blueprint;
    let done = Opaque::uninit();
    let child = plan
        .vfork_child(seat.index)
        .and_then(|child| Some((tree.task(child).ok()?.as_ptr(), plan.task(child).ok()?.tid)));
    if let Some((child, _)) = child {
        // SAFETY: The member holds a reference to its task. The completion stays on this stack,
        // where a checkpoint looks for it, until the wait is over or given up below.
        unsafe { bindings::checkpoint_vfork_begin(child, done.get()) };
    }
    let gate = if plan.is_stopped(seat.index) {
        &tree.halt
    } else {
        &tree.go
    };
    let mut goes = wait_killable(gate).is_ok() && !tree.aborted();
    if let Some((child, tid)) = child {
        // SAFETY: As above; the wait has begun.
        let waited = unsafe { bindings::checkpoint_vfork_end(child, done.get(), goes) };
        if waited == 0 {
            // What the system call returns.
            // SAFETY: The registers are those of the current task, on its way to user mode.
            unsafe {
                (*bindings::checkpoint_pt_regs(bindings::get_current())).ax = tid.get() as usize
            };
        }
        goes &= waited == 0;
    }
    // SAFETY: The current task is valid.
    unsafe {
        match plan.task(seat.index) {
            Ok(record) if goes => {
                task::resume(record);
                // Restarts the interrupted call, and delivers what is pending.
                bindings::checkpoint_set_sigpending(bindings::get_current());
            }
            _ => {
                bindings::send_sig(bindings::SIGKILL as i32, bindings::get_current(), 1);
            }
        }
    }
}

/// What the caller of restart(2) asks for.
pub(crate) struct Request {
    pub(crate) policy: Policy,
    pub(crate) keep_clocks: bool,
    pub(crate) supplied: KVVec<Supplied>,
    pub(crate) relocations: KVVec<Relocation>,
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
    blueprint.prepare(
        request.supplied,
        request.relocations,
        request.policy,
        report,
    )?;
    blueprint.notes(report)?;
    let time_ns = TimeNs::enter(blueprint.machine()?, request.keep_clocks, report)?;

    let tree = Tree::new(blueprint)?;
    let result = tree
        .build(stream, rest, publish, report)
        .and_then(|stats| Ok((stats, tree.release(request.hold_ms, report)?)));
    drop(time_ns);
    match result {
        Ok((stats, hold)) => Ok(Restarted {
            root: tree.blueprint.task(0)?.tid.get(),
            stats,
            hold,
        }),
        Err(err) => {
            tree.name_killed(report);
            tree.abort();
            Err(err)
        }
    }
}
