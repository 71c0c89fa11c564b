// SPDX-License-Identifier: GPL-2.0

//! Rings of io_uring that nothing is in flight on: queues, entries, mappings, who uses them, workers;
//! and what else a ring may have, which is refused.

use libc::{
    EEXIST,
    EOPNOTSUPP,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::epoll::Epoll;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fails_with,
    owned,
    pipe,
    read,
    write,
    Area, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process,
    Task, //
};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{
    CStr,
    CString, //
};
use std::fs;
use std::io;
use std::os::fd::{
    AsRawFd,
    OwnedFd,
    RawFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("idle", idle),
        Case::new("unread", unread),
        Case::new("prepared", prepared),
        Case::new("wrapped", wrapped),
        Case::new("no-array", no_array),
        Case::new("large", large),
        Case::new("shared", shared),
        Case::new("two-rings", two_rings),
        Case::new("two-descriptors", two_descriptors),
        Case::new("single-issuer", single_issuer),
        Case::new("deferred", deferred),
        Case::new("disabled", disabled),
        Case::new("registered-descriptor", registered_descriptor),
        Case::new("workers", workers),
        Case::new("worker-limits", worker_limits),
        Case::new("busy", busy),
        Case::new("no-drain", no_drain),
        Case::new("watched", watched),
        Case::new("mappings", mappings),
    ],
    refusals: &[
        Refusal::new("read-in-flight", read_in_flight, &["1 requests in flight"]),
        Refusal::new(
            "timeout-in-flight",
            timeout_in_flight,
            &["1 requests in flight"],
        ),
        Refusal::new("registered-file", registered_file, &["registered files"]),
        Refusal::new(
            "registered-buffer",
            registered_buffer,
            &["registered buffers"],
        ),
        Refusal::new(
            "registered-eventfd",
            registered_eventfd,
            &["registered eventfd"],
        ),
        Refusal::new("personality", personality, &["personality"]),
        Refusal::new("restrictions", restrictions, &["io_uring: restrictions"]),
        Refusal::new("filtered", filtered, &["io_uring: restrictions"]),
        Refusal::new(
            "restricted-task",
            restricted_task,
            &["io_uring restriction"],
        ),
        Refusal::new("provided-buffers", provided_buffers, &["provided buffers"]),
        Refusal::new("memory-region", memory_region, &["memory region"]),
        Refusal::new("busy-polling", busy_polling, &["NAPI busy polling"]),
        Refusal::new("overflow", overflow, &["completions that found no room"]),
        Refusal::new("sqpoll", sqpoll, &["IORING_SETUP_SQPOLL"]),
        Refusal::new("iopoll", iopoll, &["IORING_SETUP_IOPOLL"]),
        Refusal::new("attached", attached, &["IORING_SETUP_ATTACH_WQ"]),
        Refusal::new("own-memory", own_memory, &["IORING_SETUP_NO_MMAP"]),
        Refusal::new("32-bit", of_32_bits, &["ring of a 32-bit program"]),
        Refusal::new("message", message, &["completions on their way"]),
        Refusal::new(
            "no-issuer",
            no_issuer,
            &["its only issuer is not in the tree"],
        ),
        Refusal::new(
            "no-descriptor",
            no_descriptor,
            &["a ring that the tree does not have open"],
        ),
        Refusal::new("pinned-workers", pinned_workers, &["workers of some CPUs"]),
        Refusal::new("old-mapping", old_mapping, &["that is not the ring's"]),
        Refusal::new("private-mapping", private_mapping, &["private mapping"]),
        Refusal::new("part-of-mapping", part_of_mapping, &["part of a mapping"]),
    ],
    customs: &[
        Custom {
            name: "opening",
            run: |b| b.over_and_over("opening"),
        },
        Custom {
            name: "not-allowed",
            run: not_allowed,
        },
        Custom {
            name: "restricted-caller",
            run: restricted_caller,
        },
        Custom {
            name: "cut-short",
            run: cut_short,
        },
        Custom {
            name: "used-outside",
            run: used_outside,
        },
    ],
    victims: &[Case::new("opening", opening)],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("io_uring")
};

fn main() -> ExitCode {
    SUITE.main()
}

const SETUP_IOPOLL: u32 = 1 << 0;
const SETUP_SQPOLL: u32 = 1 << 1;
const SETUP_CQSIZE: u32 = 1 << 3;
const SETUP_ATTACH_WQ: u32 = 1 << 5;
const SETUP_R_DISABLED: u32 = 1 << 6;
const SETUP_TASKRUN_FLAG: u32 = 1 << 9;
const SETUP_SQE128: u32 = 1 << 10;
const SETUP_CQE32: u32 = 1 << 11;
const SETUP_SINGLE_ISSUER: u32 = 1 << 12;
const SETUP_DEFER_TASKRUN: u32 = 1 << 13;
const SETUP_NO_MMAP: u32 = 1 << 14;
const SETUP_NO_SQARRAY: u32 = 1 << 16;

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_REGISTERED_RING: u32 = 1 << 4;

const OP_NOP: u8 = 0;
const OP_TIMEOUT: u8 = 11;
const OP_OPENAT: u8 = 18;
const OP_CLOSE: u8 = 19;
const OP_READ: u8 = 22;
const OP_WRITE: u8 = 23;
const OP_MSG_RING: u8 = 40;

const SQE_DRAIN: u8 = 1 << 1;
const SQE_ASYNC: u8 = 1 << 4;
const SQE_SKIP_SUCCESS: u8 = 1 << 6;

const REGISTER_BUFFERS: u32 = 0;
const REGISTER_FILES: u32 = 2;
const REGISTER_EVENTFD: u32 = 4;
const REGISTER_PERSONALITY: u32 = 9;
const REGISTER_RESTRICTIONS: u32 = 11;
const REGISTER_ENABLE_RINGS: u32 = 12;
const REGISTER_IOWQ_AFF: u32 = 17;
const REGISTER_IOWQ_MAX_WORKERS: u32 = 19;
const REGISTER_RING_FDS: u32 = 20;
const REGISTER_PBUF_RING: u32 = 22;
const REGISTER_PBUF_STATUS: u32 = 26;
const REGISTER_NAPI: u32 = 27;
const REGISTER_RESIZE_RINGS: u32 = 33;
const REGISTER_MEM_REGION: u32 = 34;
const REGISTER_BPF_FILTER: u32 = 37;

/// Where mmap(2) finds the entries.
const ENTRIES: i64 = 0x1000_0000;

/// struct io_uring_params.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Params {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
    sq_thread_cpu: u32,
    sq_thread_idle: u32,
    features: u32,
    wq_fd: u32,
    resv: [u32; 3],
    sq: Offsets,
    cq: Offsets,
}

/// struct io_sqring_offsets and struct io_cqring_offsets, which have the same shape.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Offsets {
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    /// Flags, or overflow.
    fifth: u32,
    /// Dropped, or the completions.
    sixth: u32,
    /// The array, or flags.
    seventh: u32,
    resv: u32,
    user_addr: u64,
}

/// struct io_uring_sqe, as far as it is used.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    rest: [u64; 3],
}

impl Entry {
    fn nop(user_data: u64) -> Self {
        Self {
            opcode: OP_NOP,
            user_data,
            ..Self::default()
        }
    }

    fn read(fd: RawFd, buf: &mut [u8], user_data: u64) -> Self {
        Self {
            opcode: OP_READ,
            fd,
            addr: buf.as_mut_ptr() as u64,
            len: buf.len() as u32,
            user_data,
            ..Self::default()
        }
    }

    fn open(path: &CStr, user_data: u64) -> Self {
        Self {
            opcode: OP_OPENAT,
            fd: libc::AT_FDCWD,
            addr: path.as_ptr() as u64,
            user_data,
            ..Self::default()
        }
    }

    fn close(fd: RawFd, user_data: u64) -> Self {
        Self {
            opcode: OP_CLOSE,
            fd,
            user_data,
            ..Self::default()
        }
    }

    fn write(fd: RawFd, buf: &[u8], user_data: u64) -> Self {
        Self {
            opcode: OP_WRITE,
            fd,
            addr: buf.as_ptr() as u64,
            len: buf.len() as u32,
            user_data,
            ..Self::default()
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Completion {
    user_data: u64,
    res: i32,
}

fn done(user_data: u64, res: i32) -> Completion {
    Completion { user_data, res }
}

/// A ring, mapped.
struct Ring {
    fd: OwnedFd,
    params: Params,
    queues: Area,
    entries: Area,
    /// What is prepared and not submitted.
    prepared: Cell<u32>,
}

/// Skips the test where there is no io_uring.
fn setup(entries: u32, mut params: Params) -> Result<(OwnedFd, Params)> {
    // SAFETY: the parameters are valid for writing.
    let ret = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &mut params) };
    match owned(ret as i32) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => skip("no io_uring"),
        fd => Ok((fd?, params)),
    }
}

fn register<T>(fd: &impl AsRawFd, op: u32, arg: *mut T, count: u32) -> io::Result<i64> {
    // SAFETY: the callers pass what the operation wants.
    cvt(unsafe { libc::syscall(libc::SYS_io_uring_register, fd.as_raw_fd(), op, arg, count) })
}

fn enter(fd: RawFd, submit: u32, wait: u32, flags: u32) -> io::Result<i64> {
    // SAFETY: no memory is involved but that of the ring.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            submit,
            wait,
            flags,
            std::ptr::null::<u8>(),
            0usize,
        )
    })
}

impl Ring {
    fn new(entries: u32, flags: u32) -> Result<Self> {
        Self::sized(entries, flags, 0)
    }

    fn sized(entries: u32, flags: u32, cq_entries: u32) -> Result<Self> {
        let flags = flags | if cq_entries != 0 { SETUP_CQSIZE } else { 0 };
        let params = Params {
            flags,
            cq_entries,
            ..Params::default()
        };
        let (fd, params) = setup(entries, params)?;
        Self::map(fd, params)
    }

    fn map(fd: OwnedFd, params: Params) -> Result<Self> {
        let completion = 16 << u32::from(params.flags & SETUP_CQE32 != 0);
        let completions = params.cq.sixth + params.cq_entries * completion;
        let array = params.sq.seventh + params.sq_entries * 4;
        let entry = 64 << u32::from(params.flags & SETUP_SQE128 != 0);
        let prot = PROT_READ | PROT_WRITE;
        let raw = fd.as_raw_fd();
        let queues = Area::map(completions.max(array) as usize, prot, MAP_SHARED, raw, 0)?;
        let entries = (params.sq_entries * entry) as usize;
        let entries = Area::map(entries, prot, MAP_SHARED, raw, ENTRIES)?;
        Ok(Self {
            fd,
            params,
            queues,
            entries,
            prepared: Cell::new(0),
        })
    }

    fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: the word is inside of the mapping, which stays.
        unsafe { &*self.queues.addr.add(offset as usize).cast() }
    }

    /// Puts an entry into the queue.
    fn prepare(&self, entry: Entry) {
        let sq = &self.params.sq;
        let tail = self.word(sq.tail).load(Ordering::Acquire);
        let index = tail & self.word(sq.mask).load(Ordering::Relaxed);
        let shift = u32::from(self.params.flags & SETUP_SQE128 != 0);
        // SAFETY: there are as many entries as the mask says.
        unsafe {
            let entries: *mut Entry = self.entries.addr.cast();
            entries.add((index << shift) as usize).write_volatile(entry);
        }
        if self.params.flags & SETUP_NO_SQARRAY == 0 {
            self.word(sq.seventh + index * 4)
                .store(index, Ordering::Relaxed);
        }
        self.word(sq.tail)
            .store(tail.wrapping_add(1), Ordering::Release);
        self.prepared.set(self.prepared.get() + 1);
    }

    /// Submits what is prepared, and waits for so many completions.
    fn submit(&self, wait: u32) -> io::Result<()> {
        let submit = self.prepared.replace(0);
        let submitted = enter(self.fd.as_raw_fd(), submit, wait, ENTER_GETEVENTS)?;
        assert_eq!(submitted, i64::from(submit));
        Ok(())
    }

    /// The next completion that was not read.
    fn reap(&self) -> Option<Completion> {
        let cq = &self.params.cq;
        let head = self.word(cq.head).load(Ordering::Acquire);
        if head == self.word(cq.tail).load(Ordering::Acquire) {
            return None;
        }
        let index = head & self.word(cq.mask).load(Ordering::Relaxed);
        let shift = 4 + u32::from(self.params.flags & SETUP_CQE32 != 0);
        let at = cq.sixth + (index << shift);
        let low = self.word(at).load(Ordering::Relaxed);
        let high = self.word(at + 4).load(Ordering::Relaxed);
        let res = self.word(at + 8).load(Ordering::Relaxed) as i32;
        self.word(cq.head)
            .store(head.wrapping_add(1), Ordering::Release);
        Some(done(u64::from(high) << 32 | u64::from(low), res))
    }

    /// Submits one request and waits for what comes of it.
    fn run(&self, entry: Entry) -> Result<Completion> {
        self.prepare(entry);
        self.submit(1)?;
        self.reap().context("no completion")
    }

    /// Has workers do all of `entries`, and looks again and again for what comes of them, in the order
    /// of their data.
    fn work(&self, entries: &[Entry]) -> Result<Vec<Completion>> {
        for entry in entries {
            self.prepare(Entry {
                flags: entry.flags | SQE_ASYNC,
                ..*entry
            });
        }
        self.submit(0)?;
        let mut all = Vec::new();
        while all.len() < entries.len() {
            all.extend(self.reap());
            thread::yield_now();
        }
        all.sort_by_key(|done| done.user_data);
        Ok(all)
    }

    /// Requires that all kinds of requests work: those that are done at once, those that wait, and
    /// those of a worker.
    fn works(&self, seed: u64) -> Result<()> {
        same("a nop", done(seed, 0), self.run(Entry::nop(seed))?)?;
        let (from, to) = pipe(0)?;
        let mut got = [0];
        self.prepare(Entry::read(from.as_raw_fd(), &mut got, seed + 1));
        self.submit(0)?;
        same("what comes of a read of nothing", None, self.reap())?;
        let written = self.run(Entry::write(to.as_raw_fd(), b"x", seed + 2))?;
        // The reader is woken by the write, and may be told first.
        let mut both = vec![written];
        while both.len() < 2 {
            self.submit(1)?;
            both.extend(self.reap());
        }
        both.sort_by_key(|done| done.user_data);
        same("both", vec![done(seed + 1, 1), done(seed + 2, 1)], both)?;
        same("the byte", *b"x", got)?;
        let mut write = Entry::write(to.as_raw_fd(), b"yz", seed + 3);
        write.flags = SQE_ASYNC;
        same("a worker", done(seed + 3, 2), self.run(write)?)?;
        same("what is left", None, self.reap())
    }

    /// What the kernel says of the ring.
    fn info(&self) -> Result<Vec<String>> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        let kept = ["Sq", "Cq", "SQEs", "CQEs", "Cached", " "];
        let kept = |line: &&str| kept.iter().any(|start| line.starts_with(start));
        Ok(info.lines().filter(kept).map(str::to_owned).collect())
    }
}

fn idle(v: &Victim) -> Result<()> {
    let ring = Ring::new(8, 0)?;
    ring.works(100)?;
    let before = ring.info()?;
    v.stand()?;
    same("queues", before, ring.info()?)?;
    ring.works(200)
}

/// Completions that were not read are there, and nothing else.
fn unread(v: &Victim) -> Result<()> {
    let ring = Ring::new(8, 0)?;
    ring.works(100)?;
    for number in 0..5 {
        ring.prepare(Entry::nop(u64::MAX - number));
    }
    ring.submit(5)?;
    same("first", Some(done(u64::MAX, 0)), ring.reap())?;
    let before = ring.info()?;
    v.stand()?;
    same("queues", before, ring.info()?)?;
    for number in 1..5 {
        same("next", Some(done(u64::MAX - number, 0)), ring.reap())?;
    }
    same("what is left", None, ring.reap())?;
    ring.works(200)
}

/// What was prepared is submitted afterwards.
fn prepared(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let (from, to) = pipe(0)?;
    ring.works(100)?;
    ring.prepare(Entry::write(to.as_raw_fd(), b"abc", 1));
    ring.prepare(Entry::nop(2));
    let before = ring.info()?;
    v.stand()?;
    same("queues", before, ring.info()?)?;
    ring.submit(2)?;
    same("first", Some(done(1, 3)), ring.reap())?;
    same("second", Some(done(2, 0)), ring.reap())?;
    let mut got = [0; 8];
    same("bytes", 3, read(&from, &mut got)?)?;
    same("what was written", &b"abc"[..], &got[..3])?;
    ring.works(200)
}

/// Both queues have gone round, to different places.
fn wrapped(v: &Victim) -> Result<()> {
    let ring = Ring::sized(2, 0, 8)?;
    for number in 0..21 {
        same("a nop", done(number, 0), ring.run(Entry::nop(number))?)?;
    }
    v.stand()?;
    for number in 0..21 {
        same("a nop", done(number, 0), ring.run(Entry::nop(number))?)?;
    }
    ring.works(200)
}

fn no_array(v: &Victim) -> Result<()> {
    let ring = Ring::new(256, SETUP_NO_SQARRAY)?;
    ring.works(100)?;
    ring.prepare(Entry::nop(1));
    v.stand()?;
    ring.submit(1)?;
    same("what was prepared", Some(done(1, 0)), ring.reap())?;
    ring.works(200)
}

/// Large entries and completions, and many.
fn large(v: &Victim) -> Result<()> {
    let ring = Ring::sized(4096, SETUP_SQE128 | SETUP_CQE32, 16384)?;
    ring.works(100)?;
    for number in 0..3000 {
        ring.prepare(Entry::nop(number));
    }
    ring.submit(3000)?;
    for number in 0..4096 {
        ring.prepare(Entry::nop(10_000 + number));
    }
    v.stand()?;
    for number in 0..3000 {
        same("unread", Some(done(number, 0)), ring.reap())?;
    }
    ring.submit(4096)?;
    for number in 0..4096 {
        same("prepared", Some(done(10_000 + number, 0)), ring.reap())?;
    }
    ring.works(200)
}

/// A ring of two processes stays one.
fn shared(v: &Victim) -> Result<()> {
    let ring = Ring::new(8, 0)?;
    ring.works(100)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let used = ring.run(Entry::nop(1)).is_ok();
        // The completion is for the parent.
        v.wait();
        ring.prepare(Entry::nop(7));
        i32::from(!used || enter(ring.fd.as_raw_fd(), 1, 0, 0).is_err())
    })?;
    drop(numbers);
    v.stand()?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child cannot submit");
    same("of the child", Some(done(7, 0)), ring.reap())?;
    ring.works(200)
}

fn two_rings(v: &Victim) -> Result<()> {
    let (one, two) = (Ring::new(4, 0)?, Ring::new(64, 0)?);
    one.works(100)?;
    for number in 0..3 {
        one.prepare(Entry::nop(10 + number));
        two.prepare(Entry::nop(20 + number));
    }
    one.submit(3)?;
    v.stand()?;
    two.submit(3)?;
    for number in 0..3 {
        same("of one", Some(done(10 + number, 0)), one.reap())?;
        same("of the other", Some(done(20 + number, 0)), two.reap())?;
    }
    one.works(200)?;
    two.works(200)
}

fn two_descriptors(v: &Victim) -> Result<()> {
    let mut ring = Ring::new(4, 0)?;
    let other = ring.fd.try_clone()?;
    ring.works(100)?;
    v.stand()?;
    ring.prepare(Entry::nop(1));
    ring.fd = other;
    ring.submit(1)?;
    same("by the other", Some(done(1, 0)), ring.reap())?;
    ring.works(200)
}

/// A ring that only one thread may submit to knows that one.
fn single_issuer(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let result = thread::scope(|scope| {
        let worker = scope.spawn(|| -> Result<()> {
            let ring = Ring::new(4, SETUP_SINGLE_ISSUER)?;
            ring.works(100)?;
            drop(numbers);
            v.stand()?;
            ring.works(200)?;
            let fd = ring.fd.as_raw_fd();
            let other = thread::scope(|scope| scope.spawn(|| enter(fd, 1, 0, 0)).join());
            let Ok(other) = other else {
                bail!("the other thread failed");
            };
            ensure!(fails_with(other, EEXIST), "another thread may submit");
            Ok(())
        });
        worker.join()
    });
    result.unwrap_or_else(|_| bail!("the thread failed"))
}

/// Completions that come when the task waits for them.
fn deferred(v: &Victim) -> Result<()> {
    let flags = SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN | SETUP_TASKRUN_FLAG;
    let ring = Ring::new(16, flags)?;
    ring.works(100)?;
    // What the worker has done is forgotten when the task waits the next time.
    sys::nap(Duration::from_millis(50));
    ring.prepare(Entry::nop(1));
    ring.submit(1)?;
    v.stand()?;
    same("unread", Some(done(1, 0)), ring.reap())?;
    ring.works(200)?;
    let watch = Epoll::new()?;
    watch.add(&ring.fd, libc::EPOLLIN, 5)?;
    ring.prepare(Entry::nop(2));
    ring.submit(1)?;
    same("what is ready", vec![5], watch.ready()?)
}

/// A ring that waits to be enabled.
fn disabled(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, SETUP_R_DISABLED | SETUP_SINGLE_ISSUER)?;
    ring.prepare(Entry::nop(1));
    v.stand()?;
    let early = enter(ring.fd.as_raw_fd(), 1, 0, 0);
    ensure!(fails_with(early, libc::EBADFD), "it is enabled");
    register(
        &ring.fd,
        REGISTER_ENABLE_RINGS,
        std::ptr::null_mut::<u8>(),
        0,
    )?;
    ring.submit(1)?;
    same("what was prepared", Some(done(1, 0)), ring.reap())?;
    ring.works(200)
}

/// A task that knows its ring by another number than that of a descriptor.
fn registered_descriptor(v: &Victim) -> Result<()> {
    let (one, two) = (Ring::new(4, 0)?, Ring::new(4, 0)?);
    one.works(100)?;
    two.works(100)?;
    for (ring, slot) in [(&one, 3u64), (&two, 15)] {
        // struct io_uring_rsrc_update
        let mut update = [slot, ring.fd.as_raw_fd() as u64];
        register(&ring.fd, REGISTER_RING_FDS, update.as_mut_ptr(), 1)?;
    }
    // One that has no descriptor any more.
    let Ring {
        fd,
        params,
        queues,
        entries,
        prepared,
    } = two;
    drop(fd);
    let two = Ring {
        fd: one.fd.try_clone()?,
        params,
        queues,
        entries,
        prepared,
    };
    v.stand()?;
    for (ring, slot) in [(&one, 3), (&two, 15)] {
        ring.prepare(Entry::nop(slot));
        let flags = ENTER_GETEVENTS | ENTER_REGISTERED_RING;
        let submit = ring.prepared.replace(0);
        same("submitted", 1, enter(slot as RawFd, submit, 1, flags)?)?;
        same("by number", Some(done(slot, 0)), ring.reap())?;
    }
    one.works(200)
}

fn threads() -> Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// Workers that have nothing to do are not in the way, and what they used is not forgotten.
fn workers(v: &Victim) -> Result<()> {
    let ring = Ring::new(8, 0)?;
    let path = v.path("file");
    fs::write(&path, vec![7; 1 << 20])?;
    let file = fs::File::open(&path)?;
    let mut all = vec![0; 1 << 20];
    let mut read_all = |user_data| -> Result<()> {
        let mut read = Entry::read(file.as_raw_fd(), &mut all, user_data);
        read.flags = SQE_ASYNC;
        same("a worker", done(user_data, 1 << 20), ring.run(read)?)
    };
    for number in 0..20 {
        read_all(number)?;
    }
    ensure!(threads()? > 1, "there is no worker");
    let used = || -> Result<Duration> {
        // SAFETY: the struct is valid for writing.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            cvt(libc::getrusage(libc::RUSAGE_SELF, &mut usage))?;
            usage
        };
        let of = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
        };
        Ok(of(usage.ru_utime) + of(usage.ru_stime))
    };
    let before = used()?;
    v.stand()?;
    ensure!(used()? >= before, "less CPU time than before");
    for number in 0..20 {
        read_all(number)?;
    }
    ring.works(200)
}

/// Takes one turn after the other, with its number, until the victim is told to check, and then some.
fn keeps_on(v: &Victim, ring: &Ring, mut turn: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let mut number = 0;
    let mut next = || {
        number += 1;
        turn(number)
    };
    v.ready()?;
    while !v.told() {
        next()?;
    }
    for _ in 0..20 {
        next()?;
    }
    ring.works(number)
}

/// Requests that take a moment are waited for, and are done once.
fn busy(v: &Victim) -> Result<()> {
    let ring = Ring::new(8, 0)?;
    let (from, to) = pipe(0)?;
    let mut got = [0; 8];
    keeps_on(v, &ring, |number| {
        let bytes = number.to_ne_bytes();
        let read = Entry::read(from.as_raw_fd(), &mut got, number);
        let write = Entry::write(to.as_raw_fd(), &bytes, !number);
        let both = ring.work(&[read, write])?;
        same("both", vec![done(number, 8), done(!number, 8)], both)?;
        same("what was passed on", bytes, got)
    })
}

/// Workers open and close files. What is open is what completions say.
fn opening(v: &Victim) -> Result<()> {
    let ring = Ring::new(8, 0)?;
    let path = v.path("file");
    fs::write(&path, b"what it says")?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut open: VecDeque<(RawFd, i64)> = VecDeque::new();
    keeps_on(v, &ring, |number| {
        let mut entries = vec![Entry::open(&path, number)];
        if open.len() == 5 {
            let (oldest, _) = open.pop_front().context("there are some")?;
            entries.push(Entry::close(oldest, !number));
        }
        let all = ring.work(&entries)?;
        let fd = all.first().context("there is one")?.res;
        ensure!(fd > 0 && all.iter().skip(1).all(|c| c.res == 0), "{all:?}");
        let at = (number % 12) as i64;
        // SAFETY: no memory is involved, and the descriptor is the victim's.
        cvt(unsafe { libc::lseek(fd, at, libc::SEEK_SET) })?;
        open.push_back((fd, at));
        for (fd, at) in &open {
            // SAFETY: as above.
            let found = unsafe { libc::lseek(*fd, 0, libc::SEEK_CUR) };
            same("position", (*fd, *at), (*fd, found))?;
        }
        Ok(())
    })
}

/// How many workers there may be stays as it was said, for the task and for those who use the ring.
fn worker_limits(v: &Victim) -> Result<()> {
    let limits = |ring: &Ring, mut counts: [u32; 2]| -> Result<[u32; 2]> {
        register(&ring.fd, REGISTER_IOWQ_MAX_WORKERS, counts.as_mut_ptr(), 2)?;
        Ok(counts)
    };
    let ring = Ring::new(8, 0)?;
    ring.works(100)?;
    limits(&ring, [3, 5])?;
    v.stand()?;
    same("limits", [3, 5], limits(&ring, [0, 0])?)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let found = ring.works(200).and_then(|()| limits(&ring, [0, 0]));
        i32::from(!found.is_ok_and(|limits| limits == [3, 5]))
    })?;
    drop(numbers);
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "others may have more workers");
    ring.works(300)
}

/// A ring on which requests were silent has no request that waits for those before it.
fn no_drain(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let drain = |user_data| Entry {
        flags: SQE_DRAIN,
        ..Entry::nop(user_data)
    };
    same("a drain", done(1, 0), ring.run(drain(1))?)?;
    ring.prepare(Entry {
        flags: SQE_SKIP_SUCCESS,
        ..Entry::nop(2)
    });
    ring.submit(0)?;
    v.stand()?;
    let refused = ring.run(drain(3))?;
    same("a drain now", done(3, -EOPNOTSUPP), refused)?;
    ring.works(200)
}

/// Who watches the ring is told of what was not read, and of what comes.
fn watched(v: &Victim) -> Result<()> {
    let (full, empty) = (Ring::new(4, 0)?, Ring::new(4, 0)?);
    let watch = Epoll::new()?;
    watch.add(&full.fd, libc::EPOLLIN, 1)?;
    watch.add(&empty.fd, libc::EPOLLIN | libc::EPOLLET, 2)?;
    full.prepare(Entry::nop(1));
    full.submit(1)?;
    v.stand()?;
    same("what is ready", vec![1], watch.ready()?)?;
    same("unread", Some(done(1, 0)), full.reap())?;
    same("what is ready then", Vec::<u64>::new(), watch.ready()?)?;
    empty.prepare(Entry::nop(2));
    empty.submit(1)?;
    same("what is ready at last", vec![2], watch.ready()?)?;
    full.works(200)
}

/// Mappings of all kinds: twice, read-only, of less than all, larger than the ring, not for children.
fn mappings(v: &Victim) -> Result<()> {
    let ring = Ring::new(64, 0)?;
    let raw = ring.fd.as_raw_fd();
    let page = sys::PAGE;
    let shown = Area::map(page, PROT_READ, MAP_SHARED, raw, 0)?;
    let twice = Area::map(ring.queues.len, PROT_READ, MAP_SHARED, raw, 0x800_0000)?;
    let wide = Area::map(16 * page, PROT_READ, MAP_SHARED, raw, ENTRIES)?;
    // SAFETY: the mapping is there.
    cvt(unsafe {
        libc::madvise(
            ring.queues.addr.cast(),
            ring.queues.len,
            libc::MADV_DONTFORK,
        )
    })?;
    ring.works(100)?;
    let maps = || -> Result<Vec<String>> {
        let smaps = fs::read_to_string("/proc/self/smaps")?;
        let mut lines = Vec::new();
        let mut ours = false;
        for line in smaps.lines() {
            let first = line.split(' ').next().unwrap_or_default();
            if !first.ends_with(':') {
                ours = line.contains("[io_uring]");
                if ours {
                    // But for the inode.
                    let fields: Vec<_> = line.split_whitespace().take(3).collect();
                    lines.push(fields.join(" "));
                }
            } else if ours && line.starts_with("VmFlags") {
                lines.push(line.to_owned());
            }
        }
        Ok(lines)
    };
    let before = maps()?;
    same("mappings", 10, before.len())?;
    v.stand()?;
    same("mappings", before, maps()?)?;
    ring.works(200)?;
    same(
        "the queues",
        &ring.queues.bytes()[..64],
        &shown.bytes()[..64],
    )?;
    same("the queues", ring.queues.bytes(), twice.bytes())?;
    let len = ring.entries.len;
    same(
        "the entries",
        ring.entries.bytes(),
        &mut wide.bytes()[..len],
    )?;
    ensure!(
        !sys::readable(wide.addr.wrapping_add(8 * page))?,
        "too much is mapped"
    );
    Ok(())
}

/// Says which descriptor is in the way, and waits.
fn stand_with(v: &Victim, ring: &Ring) -> Result<()> {
    v.ready_fd(ring.fd.as_raw_fd())?;
    v.wait();
    Ok(())
}

fn read_in_flight(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let (from, to) = pipe(0)?;
    let mut got = [0];
    ring.prepare(Entry::read(from.as_raw_fd(), &mut got, 1));
    ring.submit(0)?;
    v.stand()?;
    write(&to, b"x")?;
    ring.submit(1)?;
    same("the read", Some(done(1, 1)), ring.reap())?;
    same("the byte", *b"x", got)
}

fn timeout_in_flight(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN)?;
    let time = [4i64, 0];
    ring.prepare(Entry {
        opcode: OP_TIMEOUT,
        addr: time.as_ptr() as u64,
        len: 1,
        user_data: 1,
        ..Entry::default()
    });
    ring.submit(0)?;
    v.stand()?;
    ring.submit(1)?;
    same("the timeout", Some(done(1, -libc::ETIME)), ring.reap())
}

fn registered_file(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let (from, _to) = pipe(0)?;
    let mut fd = from.as_raw_fd();
    register(&ring.fd, REGISTER_FILES, &mut fd, 1)?;
    stand_with(v, &ring)?;
    ring.works(200)
}

fn registered_buffer(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let buffer = Area::anon(sys::PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE)?;
    let mut iovec = libc::iovec {
        iov_base: buffer.addr.cast(),
        iov_len: buffer.len,
    };
    register(&ring.fd, REGISTER_BUFFERS, &mut iovec, 1)?;
    stand_with(v, &ring)?;
    ring.works(200)
}

fn registered_eventfd(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let counter = selftests::epoll::counter(0, 0)?;
    let mut fd = counter.as_raw_fd();
    register(&ring.fd, REGISTER_EVENTFD, &mut fd, 1)?;
    stand_with(v, &ring)?;
    ring.run(Entry::nop(1))?;
    same("count", 1, selftests::epoll::counted(&counter)?)
}

fn personality(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    register(
        &ring.fd,
        REGISTER_PERSONALITY,
        std::ptr::null_mut::<u8>(),
        0,
    )?;
    stand_with(v, &ring)?;
    ring.works(200)
}

fn restrictions(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, SETUP_R_DISABLED)?;
    // struct io_uring_restriction: IORING_RESTRICTION_SQE_OP, a nop.
    let mut allowed = [1u32, 0, 0, 0];
    register(&ring.fd, REGISTER_RESTRICTIONS, allowed.as_mut_ptr(), 1)?;
    register(
        &ring.fd,
        REGISTER_ENABLE_RINGS,
        std::ptr::null_mut::<u8>(),
        0,
    )?;
    stand_with(v, &ring)?;
    same("a nop", done(1, 0), ring.run(Entry::nop(1))?)?;
    let write = Entry::write(1, b"", 2);
    same("a write", done(2, -libc::EACCES), ring.run(write)?)
}

/// A program of BPF that lets no nop pass.
fn filtered(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let program = [libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    }];
    // struct io_uring_bpf: IO_URING_BPF_CMD_FILTER, a nop, one instruction.
    let mut filter = [0u64; 9];
    let first = [1, OP_NOP.into(), 1, program.as_ptr() as u64];
    filter[..4].copy_from_slice(&first);
    match register(&ring.fd, REGISTER_BPF_FILTER, filter.as_mut_ptr(), 1) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return skip("no filters of io_uring"),
        other => other?,
    };
    stand_with(v, &ring)?;
    same("a nop", done(1, -libc::EACCES), ring.run(Entry::nop(1))?)
}

/// What this task allows rings that it makes: nops.
fn restrict_task() -> io::Result<()> {
    // struct io_uring_task_restriction: one, which is IORING_RESTRICTION_SQE_OP.
    let mut allowed = [1u32 << 16, 0, 0, 0, 1, 0, 0, 0];
    register(&-1, REGISTER_RESTRICTIONS, allowed.as_mut_ptr(), 1).map(drop)
}

fn restricted_task(v: &Victim) -> Result<()> {
    restrict_task()?;
    v.stand()?;
    let ring = Ring::new(4, 0)?;
    same("a nop", done(1, 0), ring.run(Entry::nop(1))?)?;
    let write = Entry::write(1, b"", 2);
    same("a write", done(2, -libc::EACCES), ring.run(write)?)
}

fn provided_buffers(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    // struct io_uring_buf_reg: 8 entries, group 5, IOU_PBUF_RING_MMAP.
    let mut group = [0u32, 0, 8, 1 << 16 | 5, 0, 0, 0, 0, 0, 0];
    register(&ring.fd, REGISTER_PBUF_RING, group.as_mut_ptr(), 1)?;
    stand_with(v, &ring)?;
    // struct io_uring_buf_status
    let mut status = [5u32, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    register(&ring.fd, REGISTER_PBUF_STATUS, status.as_mut_ptr(), 1)?;
    ring.works(200)
}

fn memory_region(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let memory = Area::anon(sys::PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE)?;
    let region = || -> io::Result<()> {
        // struct io_uring_region_desc: IORING_MEM_REGION_TYPE_USER.
        let mut desc = [memory.addr as u64, memory.len as u64, 1, 0, 0, 0, 0, 0];
        // struct io_uring_mem_region_reg
        let mut region = [desc.as_mut_ptr() as u64, 0, 0, 0];
        register(&ring.fd, REGISTER_MEM_REGION, region.as_mut_ptr(), 1).map(drop)
    };
    region()?;
    stand_with(v, &ring)?;
    ensure!(fails_with(region(), libc::EBUSY), "the region is gone");
    ring.works(200)
}

fn busy_polling(v: &Victim) -> Result<()> {
    const MICROSECONDS: u32 = 50;
    let ring = Ring::new(4, 0)?;
    // struct io_uring_napi: IO_URING_NAPI_TRACKING_DYNAMIC.
    let mut napi = [MICROSECONDS, 0, 0, 0];
    match register(&ring.fd, REGISTER_NAPI, napi.as_mut_ptr(), 1) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            return skip("no NAPI busy polling")
        }
        other => other?,
    };
    stand_with(v, &ring)?;
    // It says what was before.
    napi = [MICROSECONDS, 0, 0, 0];
    register(&ring.fd, REGISTER_NAPI, napi.as_mut_ptr(), 1)?;
    same("before", [MICROSECONDS, 0, 0, 0], napi)?;
    ring.works(200)
}

fn overflow(v: &Victim) -> Result<()> {
    let ring = Ring::sized(4, 0, 4)?;
    for number in 0..6 {
        ring.prepare(Entry::nop(number));
        let submit = ring.prepared.replace(0);
        enter(ring.fd.as_raw_fd(), submit, 0, 0)?;
    }
    stand_with(v, &ring)?;
    for number in 0..4 {
        same("a nop", Some(done(number, 0)), ring.reap())?;
    }
    ring.submit(1)?;
    for number in 4..6 {
        same("a nop", Some(done(number, 0)), ring.reap())?;
    }
    Ok(())
}

fn sqpoll(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, SETUP_SQPOLL)?;
    stand_with(v, &ring)?;
    ring.prepare(Entry::nop(1));
    let limit = Duration::from_secs(10);
    let mut found = None;
    ensure!(
        sys::until(limit, || {
            // It may sleep: IORING_ENTER_SQ_WAKEUP.
            let _ = enter(ring.fd.as_raw_fd(), 1, 0, 2);
            found = ring.reap();
            found.is_some()
        }),
        "nobody submits"
    );
    same("a nop", Some(done(1, 0)), found)
}

fn iopoll(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, SETUP_IOPOLL)?;
    stand_with(v, &ring)?;
    ring.prepare(Entry::nop(1));
    same("submitted", 1, enter(ring.fd.as_raw_fd(), 1, 0, 0)?)
}

fn attached(v: &Victim) -> Result<()> {
    let first = Ring::new(4, 0)?;
    let params = Params {
        flags: SETUP_ATTACH_WQ,
        wq_fd: first.fd.as_raw_fd() as u32,
        ..Params::default()
    };
    let (fd, params) = setup(4, params)?;
    let ring = Ring::map(fd, params)?;
    stand_with(v, &ring)?;
    ring.works(200)
}

/// A ring in memory that the program has brought along.
fn own_memory(v: &Victim) -> Result<()> {
    let page = || Area::anon(sys::PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    let (queues, entries) = (page()?, page()?);
    let mut params = Params {
        flags: SETUP_NO_MMAP,
        ..Params::default()
    };
    params.cq.user_addr = queues.addr as u64;
    params.sq.user_addr = entries.addr as u64;
    let (fd, params) = setup(4, params)?;
    let ring = Ring {
        fd,
        params,
        queues,
        entries,
        prepared: Cell::new(0),
    };
    stand_with(v, &ring)?;
    ring.works(200)
}

/// io_uring_setup(2) of the 32-bit ABI.
fn of_32_bits(v: &Victim) -> Result<()> {
    if !Path::new("/proc/sys/abi/vsyscall32").exists() {
        return skip("no 32-bit system calls");
    }
    let prot = PROT_READ | PROT_WRITE;
    let low = Area::anon(sys::PAGE, prot, MAP_PRIVATE | libc::MAP_32BIT)?;
    let ret: u32;
    // SAFETY: the parameters are valid for writing; rbx is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {entries}",
            "int 0x80",
            "xchg rbx, {entries}",
            entries = inout(reg) 4u64 => _,
            inlateout("eax") libc::SYS_io_uring_setup as u32 => ret,
            in("ecx") low.addr as u32,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let fd = owned(ret as i32)?;
    // SAFETY: the parameters are there, and any bits make some.
    let ring = Ring::map(fd, unsafe { low.addr.cast::<Params>().read() })?;
    stand_with(v, &ring)?;
    ring.works(200)
}

/// A message from another ring that waits until the only issuer looks.
fn message(v: &Victim) -> Result<()> {
    let from = Ring::new(4, 0)?;
    let to = Ring::new(4, SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN)?;
    let sent = from.run(Entry {
        opcode: OP_MSG_RING,
        fd: to.fd.as_raw_fd(),
        off: 7,
        len: 9,
        user_data: 1,
        ..Entry::default()
    });
    same("sent", done(1, 0), sent?)?;
    stand_with(v, &to)?;
    same("what has come", None, to.reap())?;
    to.submit(1)?;
    same("the message", Some(done(7, 9)), to.reap())
}

fn no_issuer(v: &Victim) -> Result<()> {
    let params = Params {
        flags: SETUP_SINGLE_ISSUER,
        ..Params::default()
    };
    let Ok(made) = thread::spawn(move || setup(4, params)).join() else {
        bail!("the thread failed");
    };
    let (fd, _) = made?;
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    let submitted = enter(fd.as_raw_fd(), 1, 0, 0);
    ensure!(fails_with(submitted, EEXIST), "another thread may submit");
    Ok(())
}

/// A ring that is known by its number among those of the task only.
fn no_descriptor(v: &Victim) -> Result<()> {
    const SLOT: i32 = 3;
    let ring = Ring::new(4, 0)?;
    // struct io_uring_rsrc_update
    let mut update = [SLOT as u64, ring.fd.as_raw_fd() as u64];
    register(&ring.fd, REGISTER_RING_FDS, update.as_mut_ptr(), 1)?;
    for area in [ring.queues, ring.entries] {
        // SAFETY: nobody uses the mappings any more.
        unsafe { cvt(libc::munmap(area.addr.cast(), area.len)) }?;
    }
    drop(ring.fd);
    v.stand()?;
    same("submitted", 0, enter(SLOT, 0, 0, ENTER_REGISTERED_RING)?)
}

fn pinned_workers(v: &Victim) -> Result<()> {
    if thread::available_parallelism()?.get() < 2 {
        return skip("one CPU");
    }
    let ring = Ring::new(4, 0)?;
    ring.works(100)?;
    let mut first = 1u64;
    register(&ring.fd, REGISTER_IOWQ_AFF, &mut first, 8)?;
    v.stand()?;
    ring.works(200)
}

fn old_mapping(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN)?;
    let mut params = Params {
        sq_entries: 8,
        cq_entries: 16,
        flags: SETUP_CQSIZE,
        ..Params::default()
    };
    register(&ring.fd, REGISTER_RESIZE_RINGS, &mut params, 1)?;
    v.stand()?;
    params.flags |= ring.params.flags;
    Ring::map(ring.fd.try_clone()?, params)?.works(200)
}

fn private_mapping(v: &Victim) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    let raw = ring.fd.as_raw_fd();
    Area::map(ring.queues.len, PROT_READ, MAP_PRIVATE, raw, 0)?;
    v.stand()?;
    ring.works(200)
}

fn part_of_mapping(v: &Victim) -> Result<()> {
    let ring = Ring::new(128, 0)?;
    let len = ring.entries.len;
    same("entries", 2 * sys::PAGE, len)?;
    // SAFETY: nobody uses the entries in the second half.
    unsafe {
        cvt(libc::munmap(
            ring.entries.addr.add(sys::PAGE).cast(),
            sys::PAGE,
        ))
    }?;
    v.stand()?;
    ring.works(200)
}

/// Who may not have a ring does not get one by a restart.
fn not_allowed(b: &Bench<'_>) -> Result<()> {
    let disabled = Path::new("/proc/sys/kernel/io_uring_disabled");
    let Ok(before) = fs::read_to_string(disabled) else {
        return skip("no kernel.io_uring_disabled");
    };
    let mut life = b.start("idle")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    let words = ["io_uring", "kernel.io_uring_disabled"];
    fs::write(disabled, "2")?;
    let refused = b.rstr().arg("-i").arg(&image).run();
    fs::write(disabled, before.trim())?;
    refused?.refused("rstr", &words)?;
    life.restart(&image, &[])?;
    life.passes()
}

/// A restart does not pass on what restricts the caller.
fn restricted_caller(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("idle")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    let rstr = b.rstr().pre_exec(restrict_task).arg("-i").arg(&image);
    let words = ["from the caller: io_uring restriction"];
    rstr.run()?.refused("rstr", &words)?;
    life.restart(&image, &[])?;
    life.passes()
}

/// A restart that fails when all tasks have their rings leaves nothing in the way of another.
fn cut_short(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("registered-descriptor")?;
    let (image, part) = (b.path("image"), b.path("part"));
    life.checkpoint_and_kill(&image)?;
    let bytes = fs::read(&image)?;
    fs::write(&part, &bytes[..bytes.len() - 1])?;
    let rstr = b.rstr().arg("-i").arg(&part);
    rstr.run()?.refused("rstr", &["image"])?;
    let left = Task::read(life.pid);
    ensure!(left.is_none(), "the refused restart left {left:?}");
    life.restart(&image, &[])?;
    life.passes()
}

/// A ring that a task outside of the tree uses, too.
fn used_outside(b: &Bench<'_>) -> Result<()> {
    let ring = Ring::new(4, 0)?;
    ring.works(100)?;
    let mut child = Process::fork(|| {
        sys::nap(Duration::from_secs(60));
        0
    })?;
    b.refuses(child.pid, &["io_uring: used by a task outside the tree"])?;
    sys::kill(child.pid, libc::SIGKILL)?;
    child.wait(Duration::from_secs(10))?;
    ring.works(200)
}
