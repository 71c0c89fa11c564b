// SPDX-License-Identifier: GPL-2.0

//! The plan of an image, read and checked as a whole before anything is made.
//!
//! `image` has checked each record by itself and what it refers to. Here the records of each task
//! and process are found, and what a restart wants is checked against the machine and the caller.
//! Then files are opened, in the order of the plan: before any task exists, or, if they refer to
//! tasks, when all do.
//!
//! Locks: the mutex of the open files, which tasks that are furnished look up at the same time.

use kernel::{
    bindings,
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Mutex, //
    },
    task::Pid, //
};

use crate::{
    aio,
    attributes,
    cred,
    files::{
        self,
        external,
        pipe::Pending,
        regular::Truncate,
        unix::Sockets, //
    },
    fs,
    hugetlb,
    image::{
        self,
        record::{
            process_flags,
            task_flags,
            AnonName,
            ControllingTty,
            Cred,
            Dispatch,
            EpollItem,
            EpollItems,
            Fd,
            FileExternal,
            Files,
            Fs,
            Group,
            Guard,
            Guards,
            Lock,
            Machine,
            MemPolicy,
            Mm,
            MmOptions,
            Owner,
            Process,
            ProcessUsage,
            Pty,
            Registers,
            Scheduling,
            SeccompFilter,
            Sighand,
            Siginfo,
            Signals,
            Task,
            Timer,
            Timers,
            TtyQueue,
            UringMemory,
            UringState,
            UringUser,
            Usage,
            Vma,
            Vmas,
            Xstate, //
        },
        ErrorKind,
        Header,
        ImageError,
        Kind,
        Objects,
        Record,
        RecordRef,
        Slot,
        HEADER_LEN, //
    },
    machine,
    mempolicy,
    process,
    registers,
    report::{
        Place,
        Report, //
    },
    seccomp,
    shmem,
    sort,
    stream::{
        interrupted,
        resize,
        KernelCrc,
        Stream, //
    },
    task,
    usage, //
};

/// How much of the plan is read, and so allocated, before more is seen to be there.
const STEP: usize = 1 << 20;

/// What the caller accepts of files that are not as they were.
#[derive(Clone, Copy, Default)]
pub(crate) struct Policy {
    pub(crate) keep: bool,
    pub(crate) truncate: bool,
    pub(crate) force: bool,
}

/// A descriptor of the caller that takes the place of one that led outside the tree.
pub(crate) struct Supplied {
    /// Of this task only, or 0.
    pub(crate) pid: Pid,
    pub(crate) target_fd: u32,
    pub(crate) file: ARef<File>,
}

/// Another place for a directory or a file of the image. Neither path ends in a slash.
pub(crate) struct Relocation {
    pub(crate) from: KVec<u8>,
    pub(crate) to: KVec<u8>,
}

/// Where a path of the image leads now.
pub(crate) enum Located<'a> {
    Same(&'a [u8]),
    Moved(KVec<u8>),
}

impl Located<'_> {
    /// The path as a name for messages.
    pub(crate) fn name(&self) -> &kernel::str::BStr {
        kernel::str::BStr::from_bytes(self)
    }
}

impl core::ops::Deref for Located<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Same(path) => path,
            Self::Moved(path) => path,
        }
    }
}

/// When an open file comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before the first task exists.
    Early,
    /// When all tasks exist.
    Late,
}

/// Opens what a record describes again. What is wrong has a line in the report.
pub(crate) type Open = fn(&mut Opening<'_>, &RecordRef<'static>) -> Result<ARef<File>>;

/// Restores what a record says of open files that all exist. What is wrong has a line in the
/// report.
pub(crate) type Link = fn(&Blueprint, &RecordRef<'static>, &mut Report) -> Result;

/// Open files on their way back.
pub(crate) struct Opening<'a> {
    /// The plan, with what is open already.
    pub(crate) plan: &'a Blueprint,
    pub(crate) policy: Policy,
    pub(crate) report: &'a mut Report,
    /// What to cut back at the end.
    pub(crate) truncate: KVVec<Truncate>,
    /// Pipes by the ids of their records.
    pub(crate) pipes: KVVec<(u32, Pending)>,
    /// Unix sockets that are being made.
    pub(crate) sockets: Sockets,
    /// A buffer for the next name.
    pub(crate) name_room: KVec<u8>,
}

impl<'a> Opening<'a> {
    fn new(plan: &'a Blueprint, report: &'a mut Report) -> Self {
        Self {
            plan,
            policy: plan.policy,
            report,
            sockets: Sockets::new(),
            truncate: KVVec::new(),
            pipes: KVVec::new(),
            name_room: KVec::new(),
        }
    }

    /// Whether a task of the image has this number.
    pub(crate) fn is_task(&self, pid: Pid) -> bool {
        self.plan.by_tid(pid).is_some()
    }

    /// A file with the contents `id` of one that has a name, made when it is first needed.
    ///
    /// # Errors
    ///
    /// As [`files::unnamed::make_contents`].
    pub(crate) fn contents(&mut self, id: u32) -> Result<ARef<File>> {
        let plan = self.plan;
        if let Ok(made) = plan.file(id) {
            return Ok(made);
        }
        let record = plan.objects.get(id).ok_or(EINVAL)?;
        let made = files::unnamed::make_contents(self, &record)?;
        let index = plan.objects.index(id).ok_or(EINVAL)?;
        *plan.open.lock().get_mut(index).ok_or(EINVAL)? = Some(made.clone());
        Ok(made)
    }

    /// Where `path` of the image leads now, by the first relocation that fits.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn locate<'p>(&self, path: &'p [u8]) -> Result<Located<'p>> {
        for Relocation { from, to } in self.plan.relocations.iter() {
            let Some(rest) = path.strip_prefix(from.as_slice()) else {
                continue;
            };
            if rest.is_empty() || rest.starts_with(b"/") {
                let mut moved = KVec::with_capacity(to.len() + rest.len() + 1, GFP_KERNEL)?;
                moved.extend_from_slice(to, GFP_KERNEL)?;
                moved.extend_from_slice(rest, GFP_KERNEL)?;
                if moved.is_empty() {
                    moved.push(b'/', GFP_KERNEL)?;
                }
                return Ok(Located::Moved(moved));
            }
        }
        Ok(Located::Same(path))
    }

    /// Opens or makes what `record` describes, if that is done in `stage`.
    fn open(&mut self, record: &RecordRef<'static>, stage: Stage) -> Result<Option<ARef<File>>> {
        match (record.kind, stage) {
            (Kind::Pipe, Stage::Early) => files::pipe::make(self, record).map(|()| None),
            (Kind::Shmem, Stage::Early) => shmem::open(self, record).map(Some),
            (Kind::Pty, Stage::Early) => files::tty::make(self, record).map(Some),
            (Kind::Unnamed, Stage::Early) => files::unnamed::make(self, record),
            (Kind::UnixSocket, Stage::Late) => files::unix::make(self, record),
            (Kind::Hugetlb, Stage::Early) => hugetlb::open(self, record).map(Some),
            (Kind::Fs, Stage::Early) => fs::open(self, record).map(Some),
            (Kind::ReapedTask, Stage::Early) => files::pidfd::make_reaped(self, record).map(Some),
            (Kind::InotifyWatch, Stage::Early) => files::inotify::find(self, record).map(Some),
            (Kind::FanotifyMark, Stage::Early) => files::fanotify::find(self, record).map(Some),
            (kind, stage) => files::opener(kind, stage)
                .map(|open| open(self, record))
                .transpose(),
        }
    }
}

/// What follows the plan in the stream.
pub(crate) type Rest = image::Stream<KernelCrc>;

/// Numbers of records.
type Index = usize;

/// One process of the plan.
pub(crate) struct ProcessPlan {
    record: Index,
    /// Numbers of its tasks among all tasks, the leader first.
    pub(crate) tasks: KVVec<usize>,
    /// The first of them that has not ended, who makes what all of them share.
    pub(crate) head: Option<usize>,
    /// What its leader shares with its creator from the start, as flags of clone(2).
    pub(crate) clone_flags: u32,
    /// Its shared pending signals.
    signals: Option<Index>,
    /// Its POSIX timers.
    timers: Option<Index>,
    usage: Option<Index>,
    mm_options: Option<Index>,
    /// Signalfds that epoll instances watch for it: numbers of the record and of the item.
    watches: KVVec<(Index, usize)>,
}

/// One task of the plan.
pub(crate) struct TaskPlan {
    record: Index,
    /// Number of its process among all processes.
    pub(crate) process: usize,
    /// Numbers of the processes that it creates: its children, or some of its siblings.
    pub(crate) creates: KVVec<usize>,
    registers: Option<Index>,
    xstate: KVec<Index>,
    signals: Option<Index>,
    usage: Option<Index>,
    dispatch: Option<Index>,
    scheduling: Option<Index>,
    /// Rings of io_uring that it has used: numbers of the record and of the item.
    rings: KVVec<(Index, usize)>,
}

/// The bytes of a plan and what is known of them.
///
/// # Invariants
///
/// `objects` and `records` borrow from `bytes` and `slots`, which do not change or move and are
/// dropped after them: their lifetime is that of this struct, and is handed out as no longer.
pub(crate) struct Blueprint {
    objects: Objects<'static, 'static>,
    records: KVVec<RecordRef<'static>>,
    /// Number of the record of each object, in the order of their ids.
    record_of: KVVec<Index>,
    pub(crate) processes: KVVec<ProcessPlan>,
    pub(crate) tasks: KVVec<TaskPlan>,
    /// Numbers of the processes that the coordinator creates.
    pub(crate) roots: KVVec<usize>,
    /// Of an object that several have, the number of the first: of the process that has an Mm or a
    /// Sighand, of the task that has a Files or an Fs. In the order of the objects' ids.
    owner: KVVec<usize>,
    /// Tids and numbers of all tasks, ascending.
    by_tid: KVVec<(Pid, usize)>,
    /// Open files, shared memory and working directories, in the order of the objects' ids; until
    /// the tree has them.
    open: Pin<KBox<Mutex<KVVec<Option<ARef<File>>>>>>,
    supplied: KVVec<Supplied>,
    relocations: KVVec<Relocation>,
    policy: Policy,
    /// What to cut back at the end.
    pub(crate) truncate: KVVec<Truncate>,
    _slots: KVVec<Slot>,
    _bytes: VVec<u8>,
}

/// Number of an image's defect for the caller.
pub(crate) fn errno(defect: &ImageError) -> Error {
    match defect.kind() {
        ErrorKind::Empty | ErrorKind::Truncated => ENODATA,
        ErrorKind::NotAnImage => ENOEXEC,
        ErrorKind::Newer => EOPNOTSUPP,
        ErrorKind::Foreign => ENOEXEC,
        ErrorKind::Damaged => EBADMSG,
        ErrorKind::Malformed => EINVAL,
    }
}

/// Notes a defect of the image, and returns its number.
pub(crate) fn defect(report: &mut Report, defect: ImageError) -> Error {
    report.problem(Place::Image, fmt!("{}", Sentence(defect)));
    errno(&defect)
}

/// The sentence for a defect.
struct Sentence(ImageError);

impl kernel::fmt::Display for Sentence {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}

/// End of user space.
pub(crate) fn task_size() -> u64 {
    // SAFETY: The function computes.
    unsafe { bindings::checkpoint_task_size() as u64 }
}

/// Reads up to `buf.len()` bytes, fewer only at the end of the stream.
fn read_up_to(stream: &Stream, buf: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match stream.read_some(rest)? {
            0 => break,
            got => done += got,
        }
    }
    Ok(done)
}

impl Blueprint {
    /// Reads header and plan from the stream and checks them against each other.
    ///
    /// # Errors
    ///
    /// The image's defect, with a line in `report`; what the stream says.
    pub(crate) fn read(stream: &Stream, report: &mut Report) -> Result<(Self, Rest)> {
        let mut header = [0; HEADER_LEN];
        let got = read_up_to(stream, &mut header)?;
        let header = Header::parse::<KernelCrc>(header.get(..got).unwrap_or_default())
            .map_err(|err| defect(report, err))?;

        let len = header.plan_len();
        let mut bytes = VVec::new();
        while bytes.len() < len {
            let at = bytes.len();
            let step = STEP.min(len - at);
            resize(&mut bytes, at + step, GFP_KERNEL_ACCOUNT)?;
            let got = read_up_to(stream, bytes.get_mut(at..).unwrap_or_default())?;
            if got < step {
                bytes.truncate(at + got);
                break;
            }
        }
        Self::new(&header, bytes, report)
    }

    fn new(header: &Header, bytes: VVec<u8>, report: &mut Report) -> Result<(Self, Rest)> {
        // SAFETY: The bytes stay where they are for as long as the new object lives, see its
        // invariant: a vector's elements do not move with it.
        let view: &'static [u8] =
            unsafe { core::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        let plan =
            image::Plan::<KernelCrc>::new(header, view).map_err(|err| defect(report, err))?;

        let mut slots = KVVec::new();
        slots.extend_with(plan.objects(), Slot::default(), GFP_KERNEL_ACCOUNT)?;
        // SAFETY: As above.
        let slots_view: &'static mut [Slot] =
            unsafe { core::slice::from_raw_parts_mut(slots.as_mut_ptr(), slots.len()) };
        let objects = Objects::new(&plan, slots_view).map_err(|err| defect(report, err))?;

        let mut open = KVVec::with_capacity(plan.objects(), GFP_KERNEL_ACCOUNT)?;
        for _ in 0..plan.objects() {
            open.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        // INVARIANT: Both vectors move into the struct, their elements stay.
        let mut blueprint = Self {
            objects,
            records: KVVec::with_capacity(
                usize::try_from(plan.totals().records)?,
                GFP_KERNEL_ACCOUNT,
            )?,
            record_of: KVVec::new(),
            processes: KVVec::new(),
            tasks: KVVec::new(),
            roots: KVVec::new(),
            owner: KVVec::new(),
            by_tid: KVVec::new(),
            open: KBox::pin_init(new_mutex!(open), GFP_KERNEL)?,
            supplied: KVVec::new(),
            relocations: KVVec::new(),
            policy: Policy::default(),
            truncate: KVVec::new(),
            _slots: slots,
            _bytes: bytes,
        };
        blueprint
            .index(plan.records(), plan.objects())
            .inspect_err(|err| {
                report.problem(Place::Image, fmt!("plan: {err:?}"));
            })?;
        Ok((blueprint, plan.stream()))
    }

    /// Finds out what belongs to what.
    fn index(
        &mut self,
        records: impl Iterator<Item = RecordRef<'static>>,
        objects: usize,
    ) -> Result {
        // Positions by object, in the order of their ids.
        let mut position = KVVec::from_elem(usize::MAX, objects, GFP_KERNEL_ACCOUNT)?;
        self.owner = KVVec::from_elem(usize::MAX, objects, GFP_KERNEL_ACCOUNT)?;
        self.record_of.reserve(objects, GFP_KERNEL_ACCOUNT)?;
        let mut object = 0;
        for record in records {
            let at = self.records.len();
            if record.id != 0 {
                object = self.record_of.len();
                self.record_of.push(at, GFP_KERNEL_ACCOUNT)?;
            }
            match record.kind {
                Kind::Process => {
                    let (process, _) = get::<Process>(&record)?;
                    let number = self.processes.len();
                    self.own(process.mm.get(), number)?;
                    self.own(process.sighand.get(), number)?;
                    *position.get_mut(object).ok_or(EINVAL)? = number;
                    let process = ProcessPlan {
                        record: at,
                        tasks: KVVec::new(),
                        head: None,
                        clone_flags: 0,
                        signals: None,
                        timers: None,
                        usage: None,
                        mm_options: None,
                        watches: KVVec::new(),
                    };
                    self.processes.push(process, GFP_KERNEL_ACCOUNT)?;
                }
                Kind::Task => {
                    let (task, _) = get::<Task>(&record)?;
                    let process = self.lookup(&position, task.process.get())?;
                    let number = self.tasks.len();
                    self.own(task.files.get(), number)?;
                    self.own(task.fs.get(), number)?;
                    *position.get_mut(object).ok_or(EINVAL)? = number;
                    let plan = self.processes.get_mut(process).ok_or(EINVAL)?;
                    plan.tasks.push(number, GFP_KERNEL_ACCOUNT)?;
                    if plan.head.is_none() && !has_exited(task) {
                        plan.head = Some(number);
                    }
                    self.by_tid
                        .push((task.tid.get(), number), GFP_KERNEL_ACCOUNT)?;
                    let task = TaskPlan {
                        record: at,
                        process,
                        creates: KVVec::new(),
                        registers: None,
                        xstate: KVec::new(),
                        signals: None,
                        usage: None,
                        dispatch: None,
                        scheduling: None,
                        rings: KVVec::new(),
                    };
                    self.tasks.push(task, GFP_KERNEL_ACCOUNT)?;
                }
                Kind::Registers => {
                    let (registers, _) = get::<Registers>(&record)?;
                    let task = self.lookup(&position, registers.task.get())?;
                    self.tasks.get_mut(task).ok_or(EINVAL)?.registers = Some(at);
                }
                Kind::Xstate => {
                    let (xstate, _) = get::<Xstate>(&record)?;
                    let task = self.lookup(&position, xstate.task.get())?;
                    let task = self.tasks.get_mut(task).ok_or(EINVAL)?;
                    task.xstate.push(at, GFP_KERNEL_ACCOUNT)?;
                }
                Kind::EpollItems => {
                    let (_, items) = record.get_array::<EpollItems>().map_err(|_| EINVAL)?;
                    for (number, item) in items.iter().enumerate() {
                        if item.sighand.get() == 0 {
                            continue;
                        }
                        let process = self.owner(item.sighand.get())?;
                        let process = self.processes.get_mut(process).ok_or(EINVAL)?;
                        process.watches.push((at, number), GFP_KERNEL_ACCOUNT)?;
                    }
                }
                Kind::Signals => {
                    let (signals, _) = get::<Signals>(&record)?;
                    let slot = match (signals.task.get(), signals.process.get()) {
                        (0, process) => {
                            let process = self.lookup(&position, process)?;
                            &mut self.processes.get_mut(process).ok_or(EINVAL)?.signals
                        }
                        (task, _) => {
                            let task = self.lookup(&position, task)?;
                            &mut self.tasks.get_mut(task).ok_or(EINVAL)?.signals
                        }
                    };
                    if slot.replace(at).is_some() {
                        return Err(EINVAL);
                    }
                }
                Kind::Timers => {
                    let (timers, _) = get::<Timers>(&record)?;
                    let process = self.lookup(&position, timers.process.get())?;
                    let process = self.processes.get_mut(process).ok_or(EINVAL)?;
                    if process.timers.replace(at).is_some() {
                        return Err(EINVAL);
                    }
                }
                Kind::Usage => {
                    let (usage, _) = get::<Usage>(&record)?;
                    let task = self.lookup(&position, usage.task.get())?;
                    self.tasks.get_mut(task).ok_or(EINVAL)?.usage = Some(at);
                }
                Kind::Dispatch => {
                    let (dispatch, _) = get::<Dispatch>(&record)?;
                    let task = self.lookup(&position, dispatch.task.get())?;
                    self.tasks.get_mut(task).ok_or(EINVAL)?.dispatch = Some(at);
                }
                Kind::Scheduling => {
                    let (scheduling, _) = get::<Scheduling>(&record)?;
                    let task = self.lookup(&position, scheduling.task.get())?;
                    self.tasks.get_mut(task).ok_or(EINVAL)?.scheduling = Some(at);
                }
                Kind::MmOptions => {
                    let (options, _) = get::<MmOptions>(&record)?;
                    let process = self.lookup(&position, options.process.get())?;
                    self.processes.get_mut(process).ok_or(EINVAL)?.mm_options = Some(at);
                }
                Kind::ProcessUsage => {
                    let (usage, _) = get::<ProcessUsage>(&record)?;
                    let process = self.lookup(&position, usage.process.get())?;
                    self.processes.get_mut(process).ok_or(EINVAL)?.usage = Some(at);
                }
                _ => {}
            }
            self.records.push(record, GFP_KERNEL_ACCOUNT)?;
        }
        sort::by_key(&mut self.by_tid, |entry| *entry);
        let twice = |pair: &[(Pid, usize)]| matches!(pair, [a, b] if a.0 == b.0);
        if self.by_tid.windows(2).any(twice) {
            return Err(EINVAL);
        }
        self.find_ring_users()?;
        self.find_creators(&position)
    }

    /// Notes that process or task number `number` has object `id`, if it has one.
    fn own(&mut self, id: u32, number: usize) -> Result {
        if id != 0 {
            let index = self.objects.index(id).ok_or(EINVAL)?;
            let owner = self.owner.get_mut(index).ok_or(EINVAL)?;
            *owner = number.min(*owner);
        }
        Ok(())
    }

    /// Finds out which rings each task has used.
    fn find_ring_users(&mut self) -> Result {
        for at in 0..self.records.len() {
            let record = self.records.get(at).ok_or(EINVAL)?;
            if record.kind != Kind::UringState {
                continue;
            }
            let (_, users) = record.get_array::<UringState>().map_err(|_| EINVAL)?;
            for (number, user) in users.iter().enumerate() {
                let task = self.by_tid(user.tid.get()).ok_or(EINVAL)?;
                let task = self.tasks.get_mut(task).ok_or(EINVAL)?;
                task.rings.push((at, number), GFP_KERNEL_ACCOUNT)?;
            }
        }
        Ok(())
    }

    /// Finds out who creates each process.
    fn find_creators(&mut self, position: &[usize]) -> Result {
        for number in 0..self.processes.len() {
            let (creator, clone_flags) = self.creator(position, number)?;
            let list = match creator {
                Some(task) => &mut self.tasks.get_mut(task).ok_or(EINVAL)?.creates,
                None => &mut self.roots,
            };
            list.push(number, GFP_KERNEL_ACCOUNT)?;
            self.processes.get_mut(number).ok_or(EINVAL)?.clone_flags = clone_flags;
        }
        Ok(())
    }

    /// The task that creates process number `number`, `None` for the coordinator, and what the two
    /// share: [`process::save`] has the rule.
    fn creator(&self, position: &[usize], number: usize) -> Result<(Option<usize>, u32)> {
        let process = self.process(number)?;
        let parent = match process.parent.get() {
            0 => None,
            id => Some(self.lookup(position, id)?),
        };
        if let Some(parent) = parent {
            if has_exited(self.task(parent)?) {
                return Err(EINVAL);
            }
        }
        let (mm, sighand) = (process.mm.get(), process.sighand.get());
        let own_actions = sighand == 0 || self.owner(sighand)? == number;
        if mm == 0 || self.owner(mm)? == number {
            return own_actions.then_some((parent, 0)).ok_or(EINVAL);
        }
        let shares = |other: usize| {
            let other = self.process(other).ok()?;
            let same_actions = other.sighand.get() == sighand;
            (other.mm.get() == mm && (same_actions || own_actions)).then_some(if same_actions {
                bindings::CLONE_VM | bindings::CLONE_SIGHAND
            } else {
                bindings::CLONE_VM
            })
        };
        let of_parent = parent.and_then(|parent| self.tasks.get(parent));
        if let Some(flags) = of_parent.and_then(|parent| shares(parent.process)) {
            return Ok((parent, flags));
        }
        let first = self.owner(mm)?;
        let flags = shares(first).ok_or(EINVAL)?;
        if self.process(first)?.parent.get() != process.parent.get() {
            return Err(EINVAL);
        }
        Ok((Some(self.leader(first)?), flags | bindings::CLONE_PARENT))
    }

    /// The number of the first process or task that has object `id`.
    pub(crate) fn owner(&self, id: u32) -> Result<usize> {
        let index = self.objects.index(id).ok_or(EINVAL)?;
        self.owner.get(index).copied().ok_or(EINVAL)
    }

    /// The leader of process number `number`.
    pub(crate) fn leader(&self, number: usize) -> Result<usize> {
        let process = self.processes.get(number).ok_or(EINVAL)?;
        process.tasks.first().copied().ok_or(EINVAL)
    }

    /// The task for whose exec or end task number `index` waits in vfork(2).
    pub(crate) fn vfork_child(&self, index: usize) -> Option<usize> {
        match self.task(index).ok()?.vfork_child.get() {
            0 => None,
            tid => self.by_tid(tid),
        }
    }

    /// The signal that stops task number `index`, and whether it has done so already.
    pub(crate) fn stop(&self, index: usize) -> Option<(i32, bool)> {
        let process = self.process(self.tasks.get(index)?.process).ok()?;
        let signal = process.stop_signal.get() as i32;
        let stopped = self.task(index).ok()?.flags.get() & task_flags::STOPPED != 0;
        (signal != 0).then_some((signal, stopped))
    }

    /// Whether task number `index` is stopped by job control.
    pub(crate) fn is_stopped(&self, index: usize) -> bool {
        matches!(self.stop(index), Some((_, true)))
    }

    /// Number of the process that task `tid` leads, if it leads one.
    pub(crate) fn led_by(&self, tid: Pid) -> Option<usize> {
        let process = self.tasks.get(self.by_tid(tid)?)?.process;
        (self.process(process).ok()?.tgid.get() == tid).then_some(process)
    }

    /// Number of the first task that has not ended.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub(crate) fn first_living(&self) -> Result<Pid> {
        for index in 0..self.tasks.len() {
            let task = self.task(index)?;
            if !has_exited(task) {
                return Ok(task.tid.get());
            }
        }
        Err(EINVAL)
    }

    /// The number of the task with this tid.
    pub(crate) fn by_tid(&self, tid: Pid) -> Option<usize> {
        let at = self
            .by_tid
            .binary_search_by_key(&tid, |(tid, _)| *tid)
            .ok()?;
        self.by_tid.get(at).map(|(_, number)| *number)
    }

    fn lookup(&self, position: &[usize], id: u32) -> Result<usize> {
        let index = self.objects.index(id).ok_or(EINVAL)?;
        position.get(index).copied().ok_or(EINVAL)
    }

    fn at<T: Record>(&self, index: Index) -> Result<(&T, &[u8])> {
        get(self.records.get(index).ok_or(EINVAL)?)
    }

    /// The kind of object `id`.
    pub(crate) fn kind(&self, id: u32) -> Option<Kind> {
        self.objects.get(id).map(|record| record.kind)
    }

    /// Object `id` and the tail of its record.
    pub(crate) fn object<T: Record>(&self, id: u32) -> Result<(&T, &[u8])> {
        self.objects.get_as(id).ok_or(EINVAL)
    }

    /// The machine of the image.
    pub(crate) fn machine(&self) -> Result<&Machine> {
        Ok(self.at::<Machine>(0)?.0)
    }

    /// What follows the plan.
    pub(crate) fn objects(&self) -> &Objects<'_, '_> {
        &self.objects
    }

    /// Process number `index`.
    pub(crate) fn process(&self, index: usize) -> Result<&Process> {
        Ok(self.at(self.processes.get(index).ok_or(EINVAL)?.record)?.0)
    }

    /// The process of task number `index`, if the task is its head.
    pub(crate) fn heads(&self, index: usize) -> Option<&Process> {
        let process = self.processes.get(self.tasks.get(index)?.process)?;
        if process.head != Some(index) {
            return None;
        }
        Some(self.at(process.record).ok()?.0)
    }

    /// Task number `index`.
    pub(crate) fn task(&self, index: usize) -> Result<&Task> {
        Ok(self.task_with_cpus(index)?.0)
    }

    /// Task number `index`, and the set of CPUs it may run on.
    pub(crate) fn task_with_cpus(&self, index: usize) -> Result<(&Task, &[u8])> {
        self.at(self.tasks.get(index).ok_or(EINVAL)?.record)
    }

    /// General registers of task number `index`.
    pub(crate) fn registers(&self, index: usize) -> Result<&Registers> {
        let at = self
            .tasks
            .get(index)
            .ok_or(EINVAL)?
            .registers
            .ok_or(EINVAL)?;
        Ok(self.at(at)?.0)
    }

    /// Extended registers of task number `index`.
    pub(crate) fn xstate(&self, index: usize) -> impl Iterator<Item = (&Xstate, &[u8])> {
        self.tasks
            .get(index)
            .into_iter()
            .flat_map(|task| task.xstate.iter())
            .filter_map(|at| self.at::<Xstate>(*at).ok())
    }

    fn infos(&self, at: Option<Index>) -> &[Siginfo] {
        at.and_then(|at| self.records.get(at))
            .and_then(|record| record.get_array::<Signals>().ok())
            .map_or(&[], |(_, infos)| infos)
    }

    /// Pending signals of task number `index`.
    pub(crate) fn task_signals(&self, index: usize) -> &[Siginfo] {
        self.infos(self.tasks.get(index).and_then(|task| task.signals))
    }

    /// Shared pending signals of process number `index`.
    pub(crate) fn process_signals(&self, index: usize) -> &[Siginfo] {
        self.infos(
            self.processes
                .get(index)
                .and_then(|process| process.signals),
        )
    }

    /// POSIX timers of process number `index`.
    pub(crate) fn timers(&self, index: usize) -> Option<(&Timers, &[Timer])> {
        let record = self.records.get(self.processes.get(index)?.timers?)?;
        record.get_array::<Timers>().ok()
    }

    /// CPU time and resource usage of task number `index`.
    pub(crate) fn usage(&self, index: usize) -> Option<&Usage> {
        Some(self.at(self.tasks.get(index)?.usage?).ok()?.0)
    }

    /// Which system calls task number `index` makes itself, unless it is all.
    pub(crate) fn dispatch(&self, index: usize) -> Option<&Dispatch> {
        Some(self.at(self.tasks.get(index)?.dispatch?).ok()?.0)
    }

    /// Deadlines and the like of task number `index`.
    pub(crate) fn scheduling(&self, index: usize) -> Option<&Scheduling> {
        Some(self.at(self.tasks.get(index)?.scheduling?).ok()?.0)
    }

    /// Options of the address space of process number `index`.
    pub(crate) fn mm_options(&self, index: usize) -> Option<&MmOptions> {
        Some(self.at(self.processes.get(index)?.mm_options?).ok()?.0)
    }

    /// The same of process number `index`, besides that of its tasks.
    pub(crate) fn process_usage(&self, index: usize) -> Option<&ProcessUsage> {
        Some(self.at(self.processes.get(index)?.usage?).ok()?.0)
    }

    /// What epoll instances watch for process number `index`: ids of the instance, and what.
    pub(crate) fn watches(&self, index: usize) -> impl Iterator<Item = (u32, &EpollItem)> {
        self.processes
            .get(index)
            .into_iter()
            .flat_map(|process| process.watches.iter())
            .filter_map(|(at, number)| {
                let (of, items) = self.records.get(*at)?.get_array::<EpollItems>().ok()?;
                Some((of.epoll.get(), items.get(*number)?))
            })
    }

    /// Rings that task number `index` has used: their ids, and how.
    pub(crate) fn rings_of(&self, index: usize) -> impl Iterator<Item = (u32, &UringUser)> {
        self.tasks
            .get(index)
            .into_iter()
            .flat_map(|task| task.rings.iter())
            .filter_map(|(at, number)| {
                let (of, users) = self.records.get(*at)?.get_array::<UringState>().ok()?;
                Some((of.ring.get(), users.get(*number)?))
            })
    }

    /// The states of all rings.
    pub(crate) fn rings(&self) -> impl Iterator<Item = &UringState> {
        self.records
            .iter()
            .filter_map(|record| Some(record.get_array::<UringState>().ok()?.0))
    }

    /// The memory of all rings, in parts.
    pub(crate) fn ring_memory(&self) -> impl Iterator<Item = (&UringMemory, &[u8])> {
        self.records
            .iter()
            .filter_map(|record| record.get::<UringMemory>().ok())
    }

    /// Address space `id` and its auxiliary vector.
    pub(crate) fn mm(&self, id: u32) -> Result<(&Mm, &[u8])> {
        self.object(id)
    }

    /// What follows the record of object `id`.
    fn after(&self, id: u32) -> &[RecordRef<'static>] {
        let first = self
            .objects
            .index(id)
            .and_then(|index| self.record_of.get(index))
            .map_or(usize::MAX, |at| at + 1);
        self.records.get(first..).unwrap_or_default()
    }

    /// The mappings of address space `id`, ascending.
    pub(crate) fn vmas(&self, id: u32) -> impl Iterator<Item = &Vma> {
        self.after(id)
            .iter()
            .map_while(|record| record.get_array::<Vmas>().ok())
            .flat_map(|(_, vmas)| vmas)
    }

    /// The mappings of all address spaces.
    pub(crate) fn all_vmas(&self) -> impl Iterator<Item = &Vma> {
        self.records
            .iter()
            .filter_map(|record| record.get_array::<Vmas>().ok())
            .flat_map(|(_, vmas)| vmas)
    }

    /// The guard regions of address space `id`, ascending.
    pub(crate) fn guards(&self, id: u32) -> impl Iterator<Item = &Guard> {
        self.after(id)
            .iter()
            .skip_while(|record| record.kind == Kind::Vmas)
            .map_while(|record| record.get_array::<Guards>().ok())
            .flat_map(|(_, guards)| guards)
    }

    /// The name `id` of anonymous memory.
    pub(crate) fn anon_name(&self, id: u32) -> Option<&[u8]> {
        Some(self.objects.get_as::<AnonName>(id)?.1)
    }

    /// The memory policy `id`, `None` for 0.
    pub(crate) fn mempolicy(&self, id: u32) -> Result<Option<mempolicy::Wanted>> {
        self.objects
            .get_as::<MemPolicy>(id)
            .map(|(policy, nodes)| mempolicy::Wanted::new(policy, nodes))
            .transpose()
    }

    /// The descriptors of table `id`, ascending.
    pub(crate) fn fds(&self, id: u32) -> &[Fd] {
        self.objects
            .get(id)
            .and_then(|record| record.get_array::<Files>().ok())
            .map_or(&[], |(_, fds)| fds)
    }

    /// Working directory and umask `id`.
    pub(crate) fn fs(&self, id: u32) -> Result<(&Fs, ARef<File>)> {
        Ok((self.object::<Fs>(id)?.0, self.file(id)?))
    }

    /// The seccomp filters of the image, made anew.
    ///
    /// # Errors
    ///
    /// What seccomp(2) says, with a line in `report`.
    pub(crate) fn seccomp_filters(&self, report: &mut Report) -> Result<seccomp::Filters> {
        let mut filters = seccomp::Filters::new();
        for record in self.records.iter() {
            if let Ok((filter, insns)) = record.get_array::<SeccompFilter>() {
                filters.add(record.id, filter, insns).inspect_err(|err| {
                    report.problem(Place::Tree, fmt!("a seccomp filter: {err:?}"));
                })?;
            }
        }
        Ok(filters)
    }

    /// Credentials `id`, with their groups.
    pub(crate) fn cred(&self, id: u32) -> Result<(&Cred, &[Group])> {
        let record = self.objects.get(id).ok_or(EINVAL)?;
        record.get_array::<Cred>().map_err(|_| EINVAL)
    }

    /// Signal actions `id`.
    pub(crate) fn actions(&self, id: u32) -> Result<&[image::record::Action]> {
        let record = self.objects.get(id).ok_or(EINVAL)?;
        Ok(record.get_array::<Sighand>().map_err(|_| EINVAL)?.1)
    }

    /// What was opened for object `id`.
    pub(crate) fn file(&self, id: u32) -> Result<ARef<File>> {
        let index = self.objects.index(id).ok_or(EINVAL)?;
        self.open.lock().get(index).cloned().flatten().ok_or(EINVAL)
    }

    /// Gives files without a name, whose contents are complete, and terminals what goes with them.
    ///
    /// # Errors
    ///
    /// As [`files::unnamed::finish`] and [`files::tty::finish`].
    pub(crate) fn finish_files(&self, report: &mut Report) -> Result {
        for record in self.records.iter() {
            match record.kind {
                Kind::Unnamed => {
                    // Contents that nobody needed have not been made.
                    if let Ok(file) = self.file(record.id) {
                        files::unnamed::finish(&file, record, report)?;
                    }
                }
                Kind::Pty => files::tty::finish(&*self.file(record.id)?, record, report)?,
                Kind::TtyQueue => {
                    let (queue, tail) = get::<TtyQueue>(record)?;
                    let pty = queue.pty.get();
                    files::tty::fill(&*self.file(pty)?, queue, tail).inspect_err(|err| {
                        report.problem(Place::Tree, fmt!("what pty {pty} has received: {err:?}"));
                    })?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The ptys that control a session, with their ids.
    pub(crate) fn ptys(&self) -> impl Iterator<Item = (u32, &Pty)> {
        let records = self.records.iter();
        records
            .filter(|record| record.kind == Kind::Pty)
            .filter_map(|record| Some((record.id, record.get::<Pty>().ok()?.0)))
            .filter(|(_, pty)| pty.session.get() != 0)
    }

    /// The processes that have a controlling terminal, by their number among all, and what it is.
    pub(crate) fn terminals(&self) -> impl Iterator<Item = (usize, &ControllingTty)> {
        let process_of = |id| {
            let at = *self.record_of.get(self.objects.index(id)?)?;
            let processes = &self.processes;
            processes
                .binary_search_by_key(&at, |process| process.record)
                .ok()
        };
        self.all::<ControllingTty>()
            .filter_map(move |tty| Some((process_of(tty.process.get())?, tty)))
    }

    /// Locks and leases of files.
    pub(crate) fn locks(&self) -> impl Iterator<Item = &Lock> {
        self.all()
    }

    /// Who gets signals about open files.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.all()
    }

    /// All records of one kind, which have no tail.
    fn all<'a, T: Record + 'a>(&'a self) -> impl Iterator<Item = &'a T> {
        let kind = self.records.iter().filter(|record| record.kind == T::KIND);
        kind.filter_map(|record| Some(record.get::<T>().ok()?.0))
    }

    /// Lets go of all files: what the tree has open is its own from here on.
    ///
    /// What only the plan had open is closed here and now, so that a task which runs next cannot
    /// find it still open.
    pub(crate) fn forget_files(&self) {
        let files = core::mem::replace(&mut *self.open.lock(), KVVec::new());
        for file in files.into_iter().flatten() {
            files::close(file);
        }
    }

    /// The file for descriptor `fd` of task `pid`: that of object `id`, or one that the caller
    /// supplies for just this descriptor.
    pub(crate) fn descriptor(&self, pid: Pid, fd: u32, id: u32) -> Result<ARef<File>> {
        if self.object::<FileExternal>(id).is_ok() {
            if let Some(file) = self.supply(pid, fd) {
                return Ok(file.clone());
            }
        }
        self.file(id)
    }

    fn supply(&self, pid: Pid, fd: u32) -> Option<&ARef<File>> {
        self.supplied
            .iter()
            .find(|supplied| supplied.target_fd == fd && (supplied.pid == 0 || supplied.pid == pid))
            .map(|supplied| &supplied.file)
    }

    /// Checks the plan against the machine and the restarter, and opens all files.
    ///
    /// All problems are listed in `report`.
    ///
    /// # Errors
    ///
    /// The first problem.
    pub(crate) fn prepare(
        &mut self,
        supplied: KVVec<Supplied>,
        relocations: KVVec<Relocation>,
        policy: Policy,
        report: &mut Report,
    ) -> Result {
        self.supplied = supplied;
        self.relocations = relocations;
        self.policy = policy;
        let mut first = Ok(());
        let uses_vdso = self
            .records
            .iter()
            .any(|record| matches!(record.get::<Mm>(), Ok((mm, _)) if mm.vdso.get() != 0));
        let before = report.count();
        machine::check(self.machine()?, uses_vdso, report);
        if report.count() != before {
            first = Err(EOPNOTSUPP);
        }
        for record in self.records.iter() {
            first = first.and(self.check(record, report));
        }
        first = first.and(hugetlb::check(self, report));
        first = first.and(aio::check(self, report));
        first = first.and(self.check_usage(report));
        first = first.and(self.check_inherited(report));
        let pids = self.check_pids(report);
        let pids = pids.and(self.check_groups(report));
        self.check_vfork().inspect_err(|_| {
            report.problem(
                Place::Image,
                fmt!("impossible vfork: the image is malformed"),
            );
        })?;
        let files = self.open_early(report);
        let fds = self.check_supplied(report);
        pids.and(files).and(fds).and(first)
    }

    /// Checks one record against the restarter and against what the kernel could have saved.
    ///
    /// # Errors
    ///
    /// `EPERM` for what the restarter may not have or set, `EINVAL` for a defect of the image, each
    /// with lines in `report`.
    fn check(&self, record: &RecordRef<'static>, report: &mut Report) -> Result {
        let before = report.count();
        let mut err = EPERM;
        match record.kind {
            Kind::Cred => {
                let (cred, groups) = record.get_array::<Cred>().map_err(|_| EINVAL)?;
                cred::check(cred, groups, report)?;
            }
            Kind::MemPolicy => {
                let (policy, nodes) = get::<MemPolicy>(record)?;
                mempolicy::check(policy, nodes, report);
                err = EINVAL;
            }
            Kind::Process => process::check(get::<Process>(record)?.0, report),
            Kind::Task => {
                let (task, cpus) = get::<Task>(record)?;
                task::check(task, report);
                attributes::check(task, cpus, report)?;
                if task::check_restart(task).is_err() {
                    err = EINVAL;
                    report.problem(
                        Place::Image,
                        fmt!("impossible interrupted system call: the image is malformed"),
                    );
                }
            }
            Kind::Registers => {
                let (registers, _) = get::<Registers>(record)?;
                if registers::check_general(registers).is_err() {
                    err = EINVAL;
                    report.problem(
                        Place::Image,
                        fmt!("registers that are not of 64-bit user mode: not supported"),
                    );
                }
            }
            _ => {}
        }
        if report.count() != before {
            return Err(err);
        }
        Ok(())
    }

    /// Checks that tasks would not take over from the caller what the image does not have.
    fn check_inherited(&self, report: &mut Report) -> Result {
        let before = report.count();
        attributes::check_caller(report);
        for index in 0..self.processes.len() {
            let place = Place::Task(self.process(index)?.tgid.get());
            attributes::check_mm(self.mm_options(index), place, report)?;
        }
        if report.count() != before {
            return Err(EPERM);
        }
        Ok(())
    }

    /// Checks the groups and sessions of the tree: those named after none of its processes need
    /// numbers that are free, and a group is part of one session.
    fn check_groups(&self, report: &mut Report) -> Result {
        let mut groups = KVVec::new();
        let mut numbers = KVVec::new();
        let mut possible = true;
        for number in 0..self.processes.len() {
            let process = self.process(number)?;
            let flags = process.flags.get();
            let inside = |bit, id: &zerocopy::little_endian::I32| {
                Some(id.get()).filter(|_| flags & bit == 0)
            };
            let sid = inside(process_flags::SID_OUTSIDE, &process.sid);
            let pgid = inside(process_flags::PGID_OUTSIDE, &process.pgid);
            let tgid = Some(process.tgid.get());
            possible &= (pgid.is_some() || sid.is_none()) && (sid != tgid || pgid == tgid);
            if let Some(pgid) = pgid {
                groups.push((pgid, sid), GFP_KERNEL)?;
            }
            for id in [pgid, sid].into_iter().flatten() {
                possible &= id > 0;
                match self.by_tid(id) {
                    None => numbers.push(id, GFP_KERNEL)?,
                    Some(task) => {
                        let of = self.tasks.get(task).ok_or(EINVAL)?.process;
                        possible &= self.leader(of)? == task;
                    }
                }
            }
        }
        sort::by_key(&mut groups, |group| *group);
        possible &= !groups
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.0 == b.0 && a.1 != b.1));
        if !possible {
            report.problem(
                Place::Image,
                fmt!("impossible groups or sessions: the image is malformed"),
            );
            return Err(EINVAL);
        }
        sort::by_key(&mut numbers, |number| *number);
        let mut result = Ok(());
        let mut last = 0;
        for id in numbers
            .into_iter()
            .filter(|id| core::mem::replace(&mut last, *id) != *id)
        {
            // SAFETY: The function looks for a number in the caller's pid namespace.
            if unsafe { bindings::checkpoint_pid_taken(id) } {
                report.problem(
                    Place::Tree,
                    fmt!(
                        "number {id} of a group or session is taken; rstr --new-pidns has all \
                         numbers free"
                    ),
                );
                result = Err(EEXIST);
            }
        }
        result
    }

    /// Checks that those who wait in vfork(2) wait for a task of their own that has not ended.
    fn check_vfork(&self) -> Result {
        let mut children = KVVec::new();
        for index in 0..self.tasks.len() {
            let record = self.task(index)?;
            if record.vfork_child.get() == 0 {
                continue;
            }
            let child = self.vfork_child(index).ok_or(EINVAL)?;
            if child == index || has_exited(record) || has_exited(self.task(child)?) {
                return Err(EINVAL);
            }
            children.push(child, GFP_KERNEL)?;
        }
        sort::by_key(&mut children, |child| *child);
        if children
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a == b))
        {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Checks that the CPU time of all tasks is one that there could have been.
    fn check_usage(&self, report: &mut Report) -> Result {
        let mut total = usage::Total::default();
        for record in self.records.iter() {
            match record.kind {
                Kind::Usage => total.add_task(get::<Usage>(record)?.0),
                Kind::ProcessUsage => total.add_process(get::<ProcessUsage>(record)?.0),
                _ => {}
            }
        }
        if total.is_possible() {
            return Ok(());
        }
        report.problem(
            Place::Image,
            fmt!("impossible CPU time: the image is malformed"),
        );
        Err(EINVAL)
    }

    /// Checks that the numbers of all tasks are free.
    fn check_pids(&self, report: &mut Report) -> Result {
        // SAFETY: The function looks at the caller.
        if !unsafe { bindings::checkpoint_may_choose_pids() } {
            report.problem(
                Place::Tree,
                fmt!(
                    "to give tasks their numbers needs CAP_CHECKPOINT_RESTORE; rstr --new-pidns \
                     does without"
                ),
            );
            return Err(EPERM);
        }
        let mut result = Ok(());
        for index in 0..self.tasks.len() {
            let tid = self.task(index)?.tid.get();
            // SAFETY: The function looks for a number in the caller's pid namespace.
            if unsafe { bindings::checkpoint_pid_taken(tid) } {
                report.problem(
                    Place::Task(tid),
                    fmt!("its number is taken; rstr --new-pidns has all numbers free"),
                );
                result = Err(EEXIST);
            }
        }
        result
    }

    /// Opens all files that need no task; pipes and shared memory are made.
    fn open_early(&mut self, report: &mut Report) -> Result {
        let mut opening = Opening::new(self, report);
        let opened = self.open_all(&mut opening, Stage::Early);
        let truncate = core::mem::replace(&mut opening.truncate, KVVec::new());
        drop(opening);
        opened?;
        self.truncate = truncate;
        self.check_executables(report)
    }

    /// Opens the files that need the tasks of the tree to exist.
    ///
    /// # Errors
    ///
    /// The first problem; all are listed in `report`.
    pub(crate) fn open_late(&self, report: &mut Report) -> Result {
        let mut opening = Opening::new(self, report);
        self.open_all(&mut opening, Stage::Late)?;
        self.link_all(&mut opening)
    }

    /// Connects what has been opened, when all of it has been.
    ///
    /// # Errors
    ///
    /// The first problem.
    fn link_all(&self, opening: &mut Opening<'_>) -> Result {
        for record in self.records.iter() {
            let linked = match record.kind {
                Kind::UnixSocket => files::unix::join(opening, record),
                Kind::UnixLink => files::unix::link(opening, record),
                Kind::UnixPending => files::unix::wait_accept(opening, record),
                Kind::UnixMessage => files::unix::put(opening, record, |id| self.file(id)),
                _ => Ok(()),
            };
            linked.inspect_err(|err| {
                let kind = record.kind.name();
                opening.report.problem(
                    Place::Image,
                    fmt!("record {} ({kind}): {err:?}", record.record),
                );
            })?;
        }
        files::unix::settle(opening);
        Ok(())
    }

    /// Opens what belongs to `stage`, in the order of the plan.
    fn open_all(&self, opening: &mut Opening<'_>, stage: Stage) -> Result {
        let mut result = Ok(());
        for (position, at) in self.record_of.iter().enumerate() {
            match opening.open(self.records.get(*at).ok_or(EINVAL)?, stage) {
                Ok(None) => {}
                Ok(file) => *self.open.lock().get_mut(position).ok_or(EINVAL)? = file,
                Err(err) => result = result.and(Err(err)),
            }
        }
        result
    }

    /// Restores what leads from one open file to another. All are open.
    ///
    /// # Errors
    ///
    /// The first problem; all are listed in `report`.
    pub(crate) fn link(&self, report: &mut Report) -> Result {
        self.restore_all(files::linker, report)
    }

    /// Starts what runs by itself, the moment before the tree does.
    ///
    /// # Errors
    ///
    /// The first problem; all are listed in `report`.
    pub(crate) fn start(&self, report: &mut Report) -> Result {
        self.restore_all(files::starter, report)
    }

    /// Restores what each record says for which `find` knows how, in the order of the plan.
    fn restore_all(&self, find: fn(Kind) -> Option<Link>, report: &mut Report) -> Result {
        let mut result = Ok(());
        for record in self.records.iter() {
            if let Some(restore) = find(record.kind) {
                interrupted()?;
                result = result.and(restore(self, record, report));
            }
        }
        result
    }

    /// Checks that the caller may execute what becomes the tasks' executables.
    fn check_executables(&self, report: &mut Report) -> Result {
        for record in self.records.iter().filter(|record| record.kind == Kind::Mm) {
            let exe = self.file(get::<Mm>(record)?.0.exe.get())?;
            // SAFETY: `exe` is valid.
            kernel::error::to_result(unsafe { bindings::prctl_check_exe_file(exe.as_ptr()) })
                .inspect_err(|err| {
                    report.problem(
                        Place::Tree,
                        fmt!("{} is not executable: {err:?}", files::Name(&exe)),
                    );
                })?;
        }
        Ok(())
    }

    /// Checks that the caller supplies what leads outside the tree. What is supplied for one
    /// descriptor of an open file is also for the others that nothing is supplied for.
    fn check_supplied(&self, report: &mut Report) -> Result {
        let mut result = Ok(());
        let external = |record: &RecordRef<'_>| record.kind == Kind::FileExternal;
        if !self.records.iter().any(external) {
            return result;
        }
        self.each_external(|pid, fd, position, record, description| {
            let Some(file) = self.supply(pid, fd) else {
                return Ok(());
            };
            if let Err(what) = external::accepts(record, fd, file) {
                let name: &kernel::str::BStr = description.as_ref();
                report.problem(
                    Place::Fd(pid, fd),
                    fmt!("{name}: leads outside the tree, {what}"),
                );
                result = Err(EBADF);
            }
            if let Some(slot) = self.open.lock().get_mut(position) {
                slot.get_or_insert_with(|| file.clone());
            }
            Ok(())
        })?;
        self.each_external(|pid, fd, position, _, description| {
            if self.open.lock().get(position).is_some_and(Option::is_none) {
                let name: &kernel::str::BStr = description.as_ref();
                report.problem(
                    Place::Fd(pid, fd),
                    fmt!("{name}: leads outside the tree, has to be supplied: --inherit-fd {fd}=N"),
                );
                result = Err(EBADF);
            }
            Ok(())
        })?;
        result
    }

    /// Calls `act` with each descriptor that the caller has to supply: task, number, position of
    /// the object, record, description.
    fn each_external(
        &self,
        mut act: impl FnMut(Pid, u32, usize, &FileExternal, &[u8]) -> Result,
    ) -> Result {
        for index in 0..self.tasks.len() {
            let task = self.task(index)?;
            // The table of its leader is the leader's, by whose number descriptors are supplied.
            let process = self.tasks.get(index).ok_or(EINVAL)?.process;
            let leader = self.task(self.leader(process)?)?;
            if task.tid != leader.tid && task.files == leader.files {
                continue;
            }
            for entry in self.fds(task.files.get()) {
                let id = entry.file.get();
                if let Ok((record, description)) = self.object::<FileExternal>(id) {
                    let position = self.objects.index(id).ok_or(EINVAL)?;
                    act(
                        task.tid.get(),
                        entry.fd.get(),
                        position,
                        record,
                        description,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// What the caller should know, although it is in order.
    pub(crate) fn notes(&self, report: &mut Report) -> Result {
        use image::record::process_flags::{
            PGID_OUTSIDE,
            SID_OUTSIDE, //
        };
        for index in 0..self.processes.len() {
            let process = self.process(index)?;
            let place = Place::Task(process.tgid.get());
            let flags = process.flags.get();
            if flags & PGID_OUTSIDE != 0 {
                report.note(
                    place,
                    fmt!("joins the session and process group of the caller"),
                );
            } else if flags & SID_OUTSIDE != 0 {
                report.note(place, fmt!("joins the session of the caller"));
            }
        }
        Ok(())
    }
}

/// Whether a task has ended.
pub(crate) fn has_exited(task: &Task) -> bool {
    task.flags.get() & task_flags::EXITED != 0
}

fn get<'a, T: Record>(record: &RecordRef<'a>) -> Result<(&'a T, &'a [u8])> {
    record.get().map_err(|_| EINVAL)
}
