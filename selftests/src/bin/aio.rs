// SPDX-License-Identifier: GPL-2.0

//! Contexts of asynchronous I/O: io_setup(2).

use libc::O_CLOEXEC;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    owned,
    pipe,
    read,
    write, //
};
use selftests::Bench;
use std::fs;
use std::io;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("idle", idle),
        Case::new("unread", unread),
        Case::new("wrapped", wrapped),
        Case::new("full", full),
        Case::new("several", several),
        Case::new("large", large),
        Case::new("user-space", user_space),
        Case::new("eventfd", eventfd),
        Case::new("busy", busy),
    ],
    refusals: &[
        Refusal::new("waits", waits, &["asynchronous I/O", "requests in flight"]),
        Refusal::new("unmapped", unmapped, &["context whose ring is not mapped"]),
        Refusal::new(
            "overwritten",
            overwritten,
            &["ring that has been overwritten"],
        ),
        Refusal::new(
            "protected",
            protected,
            &["ring that is mapped in another way"],
        ),
    ],
    customs: &[Custom {
        name: "limit",
        run: limit,
    }],
    victims: &[Case::new("has-idle", idle).no_control()],
    ..Suite::new("aio")
};

fn main() -> ExitCode {
    SUITE.main()
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const POLL: u16 = 5;

/// struct iocb.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    reqprio: i16,
    fd: u32,
    buf: u64,
    len: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// struct io_event.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Event {
    data: u64,
    obj: u64,
    res: i64,
    res2: i64,
}

/// The head of a ring: id, nr, head, tail, magic, two of features, length of the head.
type Head = [u32; 8];

struct IoContext(u64);

impl IoContext {
    fn new(requests: u32) -> Result<Self> {
        let mut context = 0u64;
        // SAFETY: the context is valid for writing.
        match cvt(unsafe { libc::syscall(libc::SYS_io_setup, requests, &mut context) }) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no aio"),
            other => other?,
        };
        Ok(Self(context))
    }

    /// Submits one request, which has to stay until it is complete.
    fn try_submit(&self, request: &Request) -> io::Result<()> {
        let list = [ptr::from_ref(request)];
        // SAFETY: there is one request.
        cvt(unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, list.as_ptr()) })?;
        Ok(())
    }

    fn submit(&self, request: &Request) -> Result<()> {
        self.try_submit(request).context("io_submit")
    }

    /// At least `min` events, and at most `max`.
    fn events(&self, min: usize, max: usize) -> Result<Vec<Event>> {
        let mut events = vec![Event::default(); max];
        let got = loop {
            // SAFETY: there is room for so many.
            let got = cvt(unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.0,
                    min,
                    max,
                    events.as_mut_ptr(),
                    ptr::null::<libc::timespec>(),
                )
            });
            match got {
                // A checkpoint, as SIGSTOP and SIGCONT.
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
                got => break got.context("io_getevents")?,
            }
        };
        events.truncate(got as usize);
        Ok(events)
    }

    /// The numbers of all events that are there.
    fn numbers(&self) -> Result<Vec<u64>> {
        Ok(self
            .events(0, 4096)?
            .iter()
            .map(|event| event.data)
            .collect())
    }

    fn destroy(self) -> Result<()> {
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::syscall(libc::SYS_io_destroy, self.0) }).context("io_destroy")?;
        Ok(())
    }

    fn head(&self) -> *mut Head {
        self.0 as *mut Head
    }

    fn read_head(&self) -> Head {
        // SAFETY: the ring is mapped there.
        unsafe { self.head().read_volatile() }
    }

    fn set(&self, field: usize, value: u32) {
        // SAFETY: as above.
        unsafe { self.head().cast::<u32>().add(field).write_volatile(value) };
    }

    /// The line of /proc/self/maps, and the length.
    fn mapping(&self) -> Result<(String, usize)> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let start = format!("{:x}-", self.0);
        let line = maps.lines().find(|line| line.starts_with(&start));
        let line = line.context("the ring is not mapped")?;
        let end = line[start.len()..].split(' ').next().unwrap_or_default();
        let len = usize::from_str_radix(end, 16)? - self.0 as usize;
        // What differs is the number of the inode.
        let words: Vec<&str> = line.split_whitespace().collect();
        Ok((format!("{} {} {:?}", words[0], words[1], words.last()), len))
    }
}

/// Something to read and write, which nobody else changes.
fn file() -> Result<OwnedFd> {
    sys::memfd("file", libc::MFD_CLOEXEC)
}

fn request(opcode: u16, fd: &OwnedFd, data: u64, buf: &[u8]) -> Request {
    Request {
        data,
        opcode,
        fd: fd.as_raw_fd() as u32,
        buf: buf.as_ptr() as u64,
        len: buf.len() as u64,
        ..Request::default()
    }
}

/// Writes through the page cache are complete when they are submitted.
fn written(context: &IoContext, fd: &OwnedFd, numbers: std::ops::Range<u64>) -> Result<()> {
    for number in numbers {
        context.submit(&request(PWRITE, fd, number, b"written"))?;
    }
    Ok(())
}

fn idle(v: &Victim) -> Result<()> {
    let fd = file()?;
    let context = IoContext::new(8)?;
    let before = (context.mapping()?, context.read_head());
    v.stand()?;
    same("ring", before, (context.mapping()?, context.read_head()))?;
    same("events", Vec::<u64>::new(), context.numbers()?)?;
    let write = request(PWRITE, &fd, 7, b"written");
    context.submit(&write)?;
    let expected = Event {
        data: 7,
        obj: ptr::from_ref(&write) as u64,
        res: 7,
        res2: 0,
    };
    same("event", vec![expected], context.events(1, 4)?)?;
    let mut bytes = [0; 7];
    sys::file(&fd)?.read_exact_at(&mut bytes, 0)?;
    same("file", *b"written", bytes)?;
    let at = context.0;
    context.destroy()?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    ensure!(!maps.contains(&format!("{at:x}-")), "the ring is there");
    ensure!(IoContext(at).destroy().is_err(), "it is destroyed twice");
    IoContext::new(8)?.destroy()
}

/// Some events were read, some were not.
fn unread(v: &Victim) -> Result<()> {
    let fd = file()?;
    let context = IoContext::new(8)?;
    written(&context, &fd, 1..6)?;
    same("first", 1, context.events(1, 1)?[0].data)?;
    v.stand()?;
    same("rest", vec![2, 3, 4, 5], context.numbers()?)?;
    same("events", Vec::<u64>::new(), context.numbers()?)?;
    written(&context, &fd, 6..8)?;
    same("new ones", vec![6, 7], context.numbers()?)?;
    context.destroy()
}

/// What was not read begins at the end of the ring, and goes on at its start.
fn wrapped(v: &Victim) -> Result<()> {
    let fd = file()?;
    let context = IoContext::new(8)?;
    let slots = u64::from(context.read_head()[1]);
    for number in 0..slots - 3 {
        written(&context, &fd, number..number + 1)?;
        same("event", vec![number], context.numbers()?)?;
    }
    written(&context, &fd, 1000..1006)?;
    let head = context.read_head();
    ensure!(head[2] > head[3], "{head:?}");
    v.stand()?;
    same("head", head, context.read_head())?;
    same("rest", (1000..1006).collect::<Vec<_>>(), context.numbers()?)?;
    for number in 0..2 * slots {
        written(&context, &fd, number..number + 1)?;
        same("event", vec![number], context.numbers()?)?;
    }
    context.destroy()
}

/// As many as it has room for, before and after; one by one they go.
fn full(v: &Victim) -> Result<()> {
    const REQUESTS: u64 = 100;
    let fd = file()?;
    let context = IoContext::new(REQUESTS as u32)?;
    written(&context, &fd, 0..40)?;
    v.stand()?;
    written(&context, &fd, 40..REQUESTS)?;
    let mut more = REQUESTS;
    let slots = u64::from(context.read_head()[1]);
    loop {
        match context.try_submit(&request(PWRITE, &fd, more, b"written")) {
            Ok(()) => more += 1,
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(e) => return Err(e.into()),
        }
        ensure!(more < slots, "{more} events in {slots} slots");
    }
    same("events", (0..more).collect::<Vec<_>>(), context.numbers()?)?;
    written(&context, &fd, 0..REQUESTS)?;
    same("and again", REQUESTS as usize, context.numbers()?.len())?;
    context.destroy()
}

/// Several, one of which is gone: they keep apart.
fn several(v: &Victim) -> Result<()> {
    let fd = file()?;
    let (a, gone, b, c) = (
        IoContext::new(1)?,
        IoContext::new(1)?,
        IoContext::new(20)?,
        IoContext::new(3)?,
    );
    gone.destroy()?;
    written(&a, &fd, 1..2)?;
    written(&b, &fd, 10..20)?;
    v.stand()?;
    same("events of the last", Vec::<u64>::new(), c.numbers()?)?;
    same("of the second", (10..20).collect::<Vec<_>>(), b.numbers()?)?;
    same("of the first", vec![1], a.numbers()?)?;
    b.destroy()?;
    written(&c, &fd, 3..5)?;
    same("of the last", vec![3, 4], c.numbers()?)?;
    a.destroy()?;
    c.destroy()
}

/// A ring of many pages.
fn large(v: &Victim) -> Result<()> {
    const REQUESTS: u64 = 3000;
    let fd = file()?;
    let context = IoContext::new(REQUESTS as u32)?;
    let (_, len) = context.mapping()?;
    ensure!(len > 100_000, "{len} bytes");
    written(&context, &fd, 0..REQUESTS)?;
    v.stand()?;
    same("length", len, context.mapping()?.1)?;
    same(
        "events",
        (0..REQUESTS).collect::<Vec<_>>(),
        context.numbers()?,
    )?;
    context.destroy()
}

/// Who reads the ring without a system call moves its head.
fn user_space(v: &Victim) -> Result<()> {
    let fd = file()?;
    let context = IoContext::new(8)?;
    written(&context, &fd, 1..5)?;
    let event = |slot: u32| {
        // SAFETY: the ring is mapped there, and has that many.
        unsafe {
            context
                .head()
                .add(1)
                .cast::<Event>()
                .add(slot as usize)
                .read_volatile()
        }
    };
    same("first", 1, event(context.read_head()[2]).data)?;
    context.set(2, 2);
    v.stand()?;
    let head = context.read_head();
    same("head and tail", [2, 4], [head[2], head[3]])?;
    same("what was read", 2, event(1).data)?;
    same("what was not", 3, event(2).data)?;
    context.set(2, 3);
    same("the rest", vec![4], context.numbers()?)?;
    context.destroy()
}

/// An eventfd counts completions.
fn eventfd(v: &Victim) -> Result<()> {
    const RESFD: u32 = 1;
    let fd = file()?;
    // SAFETY: no memory is involved.
    let counter = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    let context = IoContext::new(8)?;
    let told = || Request {
        flags: RESFD,
        resfd: counter.as_raw_fd() as u32,
        ..request(PWRITE, &fd, 1, b"written")
    };
    context.submit(&told())?;
    context.submit(&told())?;
    v.stand()?;
    context.submit(&told())?;
    let mut count = [0; 8];
    read(&counter, &mut count)?;
    same("count", 3, u64::from_ne_bytes(count))?;
    same("events", 3, context.numbers()?.len())?;
    context.destroy()
}

/// At any moment there are requests in flight: each completes once.
fn busy(v: &Victim) -> Result<()> {
    const AT_ONCE: u64 = 16;
    let fd = file()?;
    let context = IoContext::new(AT_ONCE as u32)?;
    let mut buffer = [0u8; 16];
    let target = buffer.as_mut_ptr() as u64;
    v.ready()?;
    let mut round = 0u64;
    while !v.told() {
        let first = round * AT_ONCE;
        let requests: Vec<Request> = (first..first + AT_ONCE)
            .map(|number| match number % 4 {
                0 => Request {
                    data: number,
                    opcode: FSYNC,
                    fd: fd.as_raw_fd() as u32,
                    ..Request::default()
                },
                1 => Request {
                    buf: target,
                    len: 16,
                    ..request(PREAD, &fd, number, &[])
                },
                _ => request(PWRITE, &fd, number, b"written"),
            })
            .collect();
        for request in &requests {
            context.submit(request)?;
        }
        let mut seen = Vec::new();
        while seen.len() < requests.len() {
            for event in context.events(1, AT_ONCE as usize)? {
                ensure!(event.res >= 0, "{event:?}");
                seen.push(event.data);
            }
        }
        seen.sort_unstable();
        same("events", (first..first + AT_ONCE).collect::<Vec<_>>(), seen)?;
        round += 1;
    }
    same("events at the end", Vec::<u64>::new(), context.numbers()?)?;
    context.destroy()
}

/// It waits for something to read.
fn waits(v: &Victim) -> Result<()> {
    let (read_end, write_end) = pipe(O_CLOEXEC)?;
    let context = IoContext::new(8)?;
    let mut poll = request(POLL, &read_end, 3, &[]);
    poll.buf = libc::POLLIN as u64;
    poll.len = 0;
    context.submit(&poll)?;
    v.stand()?;
    same("events", Vec::<u64>::new(), context.numbers()?)?;
    write(&write_end, b"x")?;
    let event = context.events(1, 1)?[0];
    same("number", 3, event.data)?;
    ensure!(event.res & i64::from(libc::POLLIN) != 0, "{event:?}");
    context.destroy()
}

fn unmapped(v: &Victim) -> Result<()> {
    let context = IoContext::new(8)?;
    let (_, len) = context.mapping()?;
    // SAFETY: nobody else uses the ring. Something has to be there, or anything may be.
    let at = unsafe {
        libc::mmap(
            context.0 as *mut libc::c_void,
            len,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    same("address", context.0, at as u64)?;
    v.stand()?;
    ensure!(context.numbers().is_err(), "it has events");
    Ok(())
}

fn overwritten(v: &Victim) -> Result<()> {
    let context = IoContext::new(8)?;
    let slots = context.read_head()[1];
    context.set(1, 3);
    v.stand()?;
    same("slots", 3, context.read_head()[1])?;
    context.set(1, slots);
    context.destroy()
}

fn protected(v: &Victim) -> Result<()> {
    let context = IoContext::new(8)?;
    let (_, len) = context.mapping()?;
    // SAFETY: nobody else uses the ring.
    cvt(unsafe { libc::mprotect(context.0 as *mut libc::c_void, len, libc::PROT_READ) })?;
    v.stand()?;
    context.destroy()
}

/// The system allows so many requests, and no more.
fn limit(b: &Bench<'_>) -> Result<()> {
    const LIMIT: &str = "/proc/sys/fs/aio-max-nr";
    let mut life = b.start("has-idle")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    let before = fs::read_to_string(LIMIT)?;
    fs::write(LIMIT, "4")?;
    let rstr = b.rstr().arg("-i").arg(&image).run();
    fs::write(LIMIT, before.trim())?;
    rstr?.refused("rstr", &["8 requests", "fs.aio-max-nr"])?;
    life.restart(&image, &[])?;
    life.passes()
}
