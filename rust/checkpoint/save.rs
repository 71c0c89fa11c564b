// SPDX-License-Identifier: GPL-2.0

//! Saving a tree that stands still.
//!
//! Everything but the contents of memory goes into a plan in memory first, while the tree is held
//! and nothing is written to any descriptor. Then the memory is snapshot as fork(2) does it, the
//! tree is let go, and plan and pages drain to the stream. Memory that is shared with others is no
//! part of such a snapshot and is copied page by page; so is that of small processes, for which
//! fork(2) and the end of what it made take longer. Where there is no room for that, or something
//! cannot be copied, the tree is held until all is written.
//!
//! The order of the walk: asynchronous I/O in flight is waited for, which writes to memory and to
//! files; what the tree has open is noted, then what it shares with others; then
//! each process, with its address space and signal actions, and its tasks, with their descriptor
//! tables and open files; then what is in queues of sockets, and last what an open file says of
//! others, which are all in the plan by then ([`Saver::later`]).
//!
//! No locks of its own: each resource takes those at the head of its file.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    rbtree::RBTree,
    sync::aref::ARef,
    task::Pid, //
};

use crate::{
    aio,
    donate::Donation,
    files::{
        self,
        external::Request,
        survey::{
            Saved,
            Survey, //
        },
        unix, //
    },
    hold::{
        Held,
        Hold,
        Still, //
    },
    image::{
        Encoder,
        Header,
        Record, //
    },
    machine,
    mm::{
        self,
        MmRef,
        Uncovered, //
    },
    objects::Objects,
    outside,
    pages::{
        Drain,
        Output, //
    },
    process::{
        self,
        First, //
    },
    report::{
        Place,
        Report, //
    },
    shmem,
    stream::{
        interrupted,
        Buffer,
        KernelCrc,
        Stream, //
    },
    task,
    timers, //
};

/// What a checkpoint wrote.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stats {
    pub(crate) tasks: u64,
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
}

/// Memory whose contents follow the plan.
pub(crate) enum Memory {
    /// Private memory of an address space.
    Mm {
        /// Its number in the image.
        id: u32,
        /// A task that uses it, to name it by.
        pid: Pid,
        mm: MmRef,
        /// What a copy as fork(2) makes it would lack.
        uncovered: KVVec<Uncovered>,
    },
    /// Shared huge pages.
    Hugetlb {
        /// Its number in the image.
        id: u32,
        file: ARef<File>,
        /// Length in bytes.
        size: u64,
    },
    /// Shared anonymous memory, or a file without a name.
    Shmem {
        /// Its number in the image.
        id: u32,
        file: ARef<File>,
        /// Length in bytes.
        size: u64,
    },
    /// What is in a file that has a name, which others may change at any time.
    File {
        /// Its number in the image.
        id: u32,
        file: ARef<File>,
        /// Length in bytes.
        size: u64,
    },
}

/// Most pages of an address space that is copied page by page.
const FEW_PAGES: usize = 64;

/// A copy of memory.
enum Copy {
    Mm(MmRef),
    Shmem(ARef<File>),
    /// None: the file itself is read.
    File,
}

/// What is saved of a file when all files of the tree are in the plan.
pub(crate) type SaveLater = fn(&mut Saver<'_>, &Later) -> Result;

/// A file of which something is saved later.
pub(crate) struct Later {
    save: SaveLater,
    /// Where it was found.
    pub(crate) place: Place,
    pub(crate) file: ARef<File>,
    /// Its number in the image.
    pub(crate) id: u32,
}

/// The plan in the making.
pub(crate) struct Saver<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) objects: Objects,
    pub(crate) memory: KVVec<Memory>,
    /// The stream, which may be open in the tree itself.
    stream: Option<&'a Stream>,
    /// Why no snapshot is made.
    still: Option<&'static CStr>,
    /// Files that the plan refers to by identity, kept so that no address comes to mean another.
    files: KVVec<ARef<File>>,
    /// Unix sockets, whose queues are saved at the end.
    pub(crate) sockets: KVVec<unix::Socket>,
    /// What the tree has open.
    pub(crate) survey: Survey<'a>,
    later: KVVec<Later>,
    /// The first task that has not ended.
    pub(crate) root: Pid,
    /// How the clocks of the tree go.
    pub(crate) offsets: machine::Offsets,
    /// Numbers of the tasks of the tree, and whether each leads a process.
    tasks: RBTree<Pid, bool>,
    /// Numbers of mappings that fork(2) made of one, by their common anon_vma.
    families: RBTree<usize, u32>,
    last_family: u32,
    /// Groups and sessions without a leader in the tree, and whether each is one of outside.
    pub(crate) groups: RBTree<(bindings::pid_type, Pid), bool>,
    tasks_len: usize,
    /// A buffer for the next path.
    pub(crate) path_room: KVec<u8>,
    /// Who has each address space first.
    pub(crate) spaces: RBTree<u32, First>,
    /// The first task that has each list of semaphore adjustments.
    pub(crate) sem_undo: RBTree<usize, Pid>,
    encoder: Encoder<KernelCrc>,
    buffer: Buffer,
    /// All contents of memory and how many pages that are, where they were copied.
    copied: Option<(Buffer, u64)>,
}

impl Saver<'_> {
    /// Appends a record that is no object.
    pub(crate) fn put<T: Record>(&mut self, record: &T, tail: &[&[u8]]) -> Result {
        self.encoder.put(&mut self.buffer, record, tail)
    }

    /// Appends an object and returns its number.
    pub(crate) fn object<T: Record>(&mut self, record: &T, tail: &[&[u8]]) -> Result<u32> {
        self.encoder.object(&mut self.buffer, record, tail)
    }

    /// Notes why `place` cannot be saved and lets the walk go on to find what else there is.
    pub(crate) fn refuse(&mut self, place: Place, what: kernel::fmt::Arguments<'_>) {
        self.report.problem(place, what);
    }

    /// Whether the image goes to `file`, which a task of the tree has open, too.
    pub(crate) fn is_stream(&self, file: &File) -> bool {
        self.stream
            .is_some_and(|stream| core::ptr::eq(stream.file().as_ptr(), file.as_ptr()))
    }

    /// Notes whether a file is in the plan, and keeps it.
    pub(crate) fn remember(&mut self, file: &ARef<File>, saved: Saved) -> Result {
        if self.survey.set_saved(file.as_ptr(), saved)? {
            self.keep(file.clone())?;
        }
        Ok(())
    }

    /// Keeps a file that was saved under its identity.
    pub(crate) fn keep(&mut self, file: ARef<File>) -> Result {
        Ok(self.files.push(file, GFP_KERNEL)?)
    }

    /// Has the tree stand still until the image is written.
    pub(crate) fn stand_still(&mut self, why: &'static CStr) {
        self.still = Some(why);
    }

    /// The number of the mappings with this anon_vma at their root, 0 for none.
    pub(crate) fn family(&mut self, root: usize) -> Result<u32> {
        if root == 0 {
            return Ok(0);
        }
        if let Some(family) = self.families.get(&root) {
            return Ok(*family);
        }
        self.last_family = self.last_family.checked_add(1).ok_or(EOVERFLOW)?;
        self.families
            .try_create_and_insert(root, self.last_family, GFP_KERNEL)?;
        Ok(self.last_family)
    }

    /// Has `save` called for `file`, object `id`, when all files of the tree are in the plan: it
    /// refers to others without keeping them.
    pub(crate) fn later(
        &mut self,
        save: SaveLater,
        place: Place,
        file: &ARef<File>,
        id: u32,
    ) -> Result {
        let file = file.clone();
        self.later.push(
            Later {
                save,
                place,
                file,
                id,
            },
            GFP_KERNEL,
        )?;
        Ok(())
    }

    /// Saves what was put off.
    fn rest(&mut self) -> Result {
        for later in core::mem::replace(&mut self.later, KVVec::new()) {
            (later.save)(self, &later)?;
        }
        Ok(())
    }

    /// Whether a process of the tree has this number.
    pub(crate) fn is_process(&self, pid: Pid) -> bool {
        self.tasks.get(&pid).copied() == Some(true)
    }

    /// How many tasks the tree has.
    pub(crate) fn tasks_len(&self) -> usize {
        self.tasks_len
    }

    /// Whether a task of the tree has this number.
    pub(crate) fn is_task(&self, pid: Pid) -> bool {
        self.tasks.get(&pid).is_some()
    }

    /// Walks the tree into the plan.
    fn tree(&mut self, tasks: &[Held], save_files: bool) -> Result {
        // They could still write to memory and files, or open some.
        files::uring::check(self, tasks)?;
        let mut last = core::ptr::null();
        for held in tasks {
            // SAFETY: `held` keeps its task; the pointer is compared only.
            let table = unsafe { (*held.as_raw()).files }.cast_const();
            // Threads, which follow one another, share it as a rule.
            if table != last {
                self.survey.add(held)?;
                last = table;
            }
            self.tasks
                .try_create_and_insert(held.pid(), held.is_leader(), GFP_KERNEL)?;
        }
        outside::check(self, tasks)?;
        machine::save(self, tasks)?;
        if save_files {
            // Before the open files that refer to them.
            mm::save_files(self, tasks)?;
        }

        for (index, leader) in tasks
            .iter()
            .enumerate()
            .filter(|(_, task)| task.is_leader())
        {
            let threads = tasks.get(index..).unwrap_or_default();
            let count = threads
                .iter()
                .take_while(|task| task.tgid() == leader.tgid())
                .count();
            let threads = threads.get(..count).unwrap_or_default();
            // Without a process its tasks are walked all the same, to list what else there is.
            let process = process::save(self, threads)?;
            task::save_all(self, process, threads)?;
            let head = threads.iter().find(|held| held.state() != Still::Zombie);
            if let (Some(process), Some(head)) = (process, head) {
                timers::save(self, head, process)?;
            }
        }
        unix::finish(self)?;
        self.rest()?;
        files::uring::finish(self, tasks)
    }

    /// Takes the contents of all memory as they are now, for as long as it takes to write them.
    ///
    /// Returns whether there was room; if not, all is as it was.
    ///
    /// # Errors
    ///
    /// `EINTR`; as [`Drain::memory`].
    fn take_memory(&mut self, hold: &Hold) -> Result<bool> {
        let mut pages = 0;
        let few = self.memory.iter().all(|memory| match memory {
            Memory::Mm { mm, .. } => {
                let own = mm.private_pages();
                pages += own;
                own <= FEW_PAGES
            }
            Memory::Shmem { .. } | Memory::File { .. } | Memory::Hugetlb { .. } => false,
        });
        if few {
            Ok(mm::caller_has_room_for(pages) && self.copy(hold)?)
        } else {
            self.snapshot()
        }
    }

    /// Copies all memory, as the image has it, at the cost of the caller.
    fn copy(&mut self, hold: &Hold) -> Result<bool> {
        let before = self.encoder.clone();
        let mut copy = Buffer::new();
        let copied = self.contents(Output::Copy(&mut copy), None, hold, true);
        match copied {
            Ok(pages) => self.copied = Some((copy, pages)),
            Err(err) if err == ENOMEM => self.encoder = before,
            Err(err) => return Err(err),
        }
        Ok(self.copied.is_some())
    }

    /// Replaces all memory by copies that nobody runs in and that the caller pays for.
    fn snapshot(&mut self) -> Result<bool> {
        let mut pages = 0;
        for memory in self.memory.iter() {
            pages += match memory {
                Memory::Mm { mm, .. } => mm.private_pages(),
                Memory::Shmem { file, .. } => shmem::pages(file)?,
                Memory::File { .. } => 0,
                Memory::Hugetlb { .. } => return Ok(false),
            };
        }
        let room = self.memory.iter().all(|memory| match memory {
            Memory::Mm { mm, .. } => mm.has_room_for(pages),
            Memory::Shmem { .. } | Memory::File { .. } | Memory::Hugetlb { .. } => true,
        });
        if !room {
            return Ok(false);
        }
        let mut copies = KVVec::new();
        for memory in self.memory.iter() {
            let copy = match memory {
                Memory::Mm { mm, uncovered, .. } => mm.snapshot(uncovered).map(Copy::Mm),
                Memory::Shmem { file, size, .. } => shmem::copy(file, *size).map(Copy::Shmem),
                Memory::File { .. } => Ok(Copy::File),
                Memory::Hugetlb { .. } => return Err(EINVAL),
            };
            interrupted()?;
            match copy {
                Ok(copy) => copies.push(copy, GFP_KERNEL)?,
                Err(err) if err == ENOMEM => return Ok(false),
                Err(err) => return Err(err),
            }
        }
        for (memory, copy) in self.memory.iter_mut().zip(copies) {
            match (memory, copy) {
                (Memory::Mm { mm, .. }, Copy::Mm(copy)) => *mm = copy,
                (Memory::Shmem { file, .. }, Copy::Shmem(copy)) => *file = copy,
                (Memory::File { .. }, Copy::File) => {}
                _ => return Err(EINVAL),
            }
        }
        Ok(true)
    }

    /// Writes the contents of memory, and returns of how many pages: of a snapshot, or, `live`, of
    /// the tree that stands still.
    fn contents(
        &mut self,
        output: Output<'_>,
        donation: Option<&mut Donation>,
        hold: &Hold,
        live: bool,
    ) -> Result<u64> {
        let mut drain = Drain::new(
            output,
            donation,
            &mut self.encoder,
            hold,
            &self.memory,
            live,
        )?;
        for index in 0..self.memory.len() {
            drain.memory(index, self.report)?;
        }
        if live {
            // What was written is of one moment only if the tree still stands.
            hold.verify(self.report)?;
        }
        Ok(drain.pages)
    }

    /// Writes `header`, plan and contents, see [`Saver::contents`].
    fn drain(
        &mut self,
        header: &Header,
        stream: &Stream,
        donation: Option<&mut Donation>,
        hold: &Hold,
        live: bool,
    ) -> Result<Stats> {
        stream.write_all(zerocopy::IntoBytes::as_bytes(header))?;
        stream.write_buffer(&self.buffer)?;
        let pages = match self.copied.take() {
            Some((copy, pages)) => {
                stream.write_buffer(&copy)?;
                pages
            }
            None => self.contents(Output::Stream(stream), donation, hold, live)?,
        };
        self.encoder.trailer(&mut { stream })?;
        Ok(Stats {
            tasks: u64::from(self.encoder.tasks()),
            pages,
            bytes: self.encoder.totals().bytes,
        })
    }
}

/// Saves what `hold` holds to `stream`, or, without one, only lists what is in the way.
///
/// Returns when the image is complete. With `CHECKPOINT_RELEASE` the tree goes on as soon as its
/// state is captured, with `CHECKPOINT_KILL` it is killed at the end. `requests` is what the caller
/// says of descriptors that lead outside.
///
/// # Errors
///
/// `EOPNOTSUPP` with lines in `report` when the tree cannot be saved; the tree is unharmed. What
/// the stream says when it takes no more: what it holds is no image then.
pub(crate) fn capture(
    hold: &mut Hold,
    stream: Option<&Stream>,
    requests: &[Request],
    flags: u64,
    report: &mut Report,
) -> Result<Stats> {
    let problems = report.count();
    hold.renew();
    let mut saver = Saver {
        report,
        objects: Objects::new(),
        memory: KVVec::new(),
        stream,
        still: None,
        files: KVVec::new(),
        sockets: KVVec::new(),
        survey: Survey::new(requests),
        later: KVVec::new(),
        root: 0,
        offsets: machine::Offsets::default(),
        tasks: RBTree::new(),
        families: RBTree::new(),
        last_family: 0,
        groups: RBTree::new(),
        tasks_len: hold.tasks().len(),
        path_room: KVec::new(),
        spaces: RBTree::new(),
        sem_undo: RBTree::new(),
        encoder: Encoder::new(),
        buffer: Buffer::new(),
        copied: None,
    };
    let save_files = flags & u64::from(bindings::CHECKPOINT_SAVE_FILES) != 0;
    let saved = aio::drain(&mut saver, hold).and_then(|()| saver.tree(hold.tasks(), save_files));
    // Whoever was killed meanwhile is named.
    hold.verify(saver.report)?;
    saved?;
    if saver.report.count() != problems {
        return Err(EOPNOTSUPP);
    }
    let Some(stream) = stream else {
        return Ok(Stats::default());
    };

    let encoder = &mut saver.encoder;
    encoder.plan_end(&mut saver.buffer)?;
    let header = Header::new(encoder.tasks(), 0, encoder.plan_len()).seal::<KernelCrc>();

    let wanted = flags & u64::from(bindings::CHECKPOINT_RELEASE) != 0
        && flags & u64::from(bindings::CHECKPOINT_NO_SNAPSHOT) == 0;
    let early = wanted && saver.still.is_none() && saver.take_memory(hold)?;
    if early {
        hold.release_early();
    } else if wanted {
        let why = saver.still.unwrap_or(c"no room for a copy of its memory");
        saver.report.note(
            Place::Tree,
            fmt!("stands still until the image is written: {why}"),
        );
    }
    let kill = flags & u64::from(bindings::CHECKPOINT_KILL) != 0;
    let mut donation = None;
    if kill {
        donation = Donation::new(hold.tasks(), stream)?;
    }
    let stats = saver
        .drain(&header, stream, donation.as_mut(), hold, !early)
        .inspect_err(|err| {
            // It is not the tree that there is no permission for.
            if *err == EPERM {
                saver
                    .report
                    .problem(Place::Image, fmt!("cannot be written: {err:?}"));
            }
        })?;
    if !kill {
        return Ok(stats);
    }
    stream.sync()?;
    let mut whole = true;
    hold.kill(saver.report, |report| {
        if let Some(donation) = donation {
            whole = donation.complete(&saver.memory, stream, report)?;
        }
        Ok(())
    })?;
    if whole {
        Ok(stats)
    } else {
        Err(EIO)
    }
}
