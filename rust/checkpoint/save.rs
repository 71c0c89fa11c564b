// SPDX-License-Identifier: GPL-2.0

//! Saving a tree that stands still.
//!
//! Everything but the contents of memory goes into a plan in memory first, while the tree is held
//! and nothing is written to any descriptor. Then the memory is snapshot as fork(2) does it, the
//! tree is let go, and plan and pages drain to the stream. What a snapshot does not cover (memory
//! shared with others, mappings that a fork does not inherit) is written while the tree is held.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    rbtree::RBTree,
    sync::aref::ARef,
    task::Pid, //
};

use crate::{
    files::{
        external::Request,
        survey::Survey,
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
        MmRef,
        Range, //
    },
    objects::{
        Class,
        Objects, //
    },
    pages::Drain,
    process,
    report::{
        Place,
        Report, //
    },
    stream::{
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
        /// Where private memory is.
        ranges: KVVec<Range>,
        /// A copy as fork(2) makes it has everything that is in `ranges`.
        covered: bool,
    },
    /// Shared anonymous memory.
    Shmem {
        /// Its number in the image.
        id: u32,
        file: ARef<File>,
        /// Length in bytes.
        size: u64,
    },
}

/// The plan in the making.
pub(crate) struct Saver<'a> {
    pub(crate) report: &'a mut Report,
    pub(crate) objects: Objects,
    pub(crate) memory: KVVec<Memory>,
    /// The stream, which may be open in the tree itself.
    pub(crate) stream: Option<&'a Stream>,
    /// Files that the plan refers to by identity, kept so that no address comes to mean another.
    files: KVVec<ARef<File>>,
    /// Unix sockets, whose queues are saved at the end.
    pub(crate) sockets: KVVec<unix::Socket>,
    /// What the tree has open.
    pub(crate) survey: Survey<'a>,
    /// Numbers of the tasks of the tree, and whether each leads a process.
    tasks: RBTree<Pid, bool>,
    /// Which process has each table that threads share.
    owners: RBTree<u32, Pid>,
    encoder: Encoder<KernelCrc>,
    buffer: Buffer,
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

    /// The number under which an open file was saved, if it was.
    pub(crate) fn remembered(&self, file: &File) -> Option<u32> {
        self.objects.get(Class::File, file.as_ptr())
    }

    /// Notes under which number an open file was saved, and keeps it.
    pub(crate) fn remember(&mut self, file: &ARef<File>, id: u32) -> Result {
        if self.remembered(file).is_none() {
            self.objects.insert(Class::File, file.as_ptr(), id)?;
            self.files.push(file.clone(), GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Whether a process of the tree has this number.
    pub(crate) fn is_process(&self, pid: Pid) -> bool {
        self.tasks.get(&pid).copied() == Some(true)
    }

    /// Whether a task of the tree has this number.
    pub(crate) fn is_task(&self, pid: Pid) -> bool {
        self.tasks.get(&pid).is_some()
    }

    /// Refuses `what`, object `id`, when another process than that of `held` has it too.
    pub(crate) fn own(&mut self, held: &Held, id: u32, what: &str) -> Result {
        match self.owners.get(&id).copied() {
            Some(owner) if owner != held.tgid() => {
                self.refuse(
                    Place::Task(held.pid()),
                    fmt!("{what} shared with process {owner}: not supported"),
                );
            }
            Some(_) => {}
            None => {
                self.owners
                    .try_create_and_insert(id, held.tgid(), GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Walks the tree into the plan.
    fn tree(&mut self, tasks: &[Held]) -> Result {
        for held in tasks {
            self.survey.add(held)?;
            self.tasks
                .try_create_and_insert(held.pid(), held.is_leader(), GFP_KERNEL)?;
        }
        machine::save(self, tasks)?;

        for (index, leader) in tasks
            .iter()
            .enumerate()
            .filter(|(_, task)| task.is_leader())
        {
            if leader.state() == Still::Zombie {
                self.refuse(Place::Task(leader.pid()), fmt!("zombie: not supported"));
                continue;
            }
            let threads = tasks.get(index..).unwrap_or_default();
            let count = threads
                .iter()
                .take_while(|task| task.tgid() == leader.tgid())
                .count();
            let threads = threads.get(..count).unwrap_or_default();
            // Without a process its tasks are walked all the same, to list what else there is.
            let process = process::save(self, leader)?;
            task::save_all(self, process, threads)?;
            if let Some(process) = process {
                timers::save(self, leader, process)?;
            }
        }
        unix::finish(self)
    }

    /// Whether a snapshot as fork(2) makes it has all contents.
    fn covered(&self) -> bool {
        self.memory
            .iter()
            .all(|memory| matches!(memory, Memory::Mm { covered: true, .. }))
    }

    /// Replaces each address space by a snapshot that nobody runs in.
    fn snapshot(&mut self) -> Result {
        for memory in self.memory.iter_mut() {
            if let Memory::Mm { mm, .. } = memory {
                *mm = mm.snapshot()?;
            }
        }
        Ok(())
    }

    /// Writes plan and contents: of a snapshot, or, `live`, of the tree that stands still.
    fn drain(&mut self, stream: &Stream, hold: &Hold, live: bool) -> Result<Stats> {
        let encoder = &mut self.encoder;
        encoder.plan_end(&mut self.buffer)?;

        let tasks = encoder.tasks();
        let header = Header::new(tasks, 0, encoder.plan_len()).seal::<KernelCrc>();
        stream.write_all(zerocopy::IntoBytes::as_bytes(&header))?;
        stream.write_all(self.buffer.bytes())?;

        let mut drain = Drain::new(stream, encoder, hold)?;
        for memory in self.memory.iter() {
            match memory {
                Memory::Mm {
                    id,
                    pid,
                    mm,
                    ranges,
                    ..
                } => {
                    drain.mm(*id, mm, *pid, ranges, self.report)?;
                }
                Memory::Shmem { id, file, size } => drain.shmem(*id, file, *size)?,
            }
        }
        let pages = drain.pages;
        if live {
            // What was written is of one moment only if the tree still stands.
            hold.verify(self.report)?;
        }
        encoder.trailer(&mut { stream })?;
        Ok(Stats {
            tasks: u64::from(tasks),
            pages,
            bytes: encoder.totals().bytes,
        })
    }
}

/// Saves what `hold` holds to `stream`, or, without one, only lists what is in the way.
///
/// Returns when the image is complete. With `CHECKPOINT_RELEASE`, or when the hold is this call's
/// own, the tree goes on as soon as its state is captured. `requests` is what the caller says of
/// descriptors that lead outside.
///
/// # Errors
///
/// `EOPNOTSUPP` with lines in `report` when the tree cannot be saved; the tree is unharmed. What the
/// stream says when it takes no more: what it holds is no image then.
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
        files: KVVec::new(),
        sockets: KVVec::new(),
        survey: Survey::new(requests),
        tasks: RBTree::new(),
        owners: RBTree::new(),
        encoder: Encoder::new(),
        buffer: Buffer::new(),
    };
    saver.tree(hold.tasks())?;
    hold.verify(saver.report)?;
    if saver.report.count() != problems {
        return Err(EOPNOTSUPP);
    }
    let Some(stream) = stream else {
        return Ok(Stats::default());
    };

    let early = flags & u64::from(bindings::CHECKPOINT_RELEASE) != 0
        && flags & u64::from(bindings::CHECKPOINT_NO_SNAPSHOT) == 0
        && saver.covered();
    if early {
        saver.snapshot()?;
        hold.release_early();
    }
    saver.drain(stream, hold, !early)
}
