// SPDX-License-Identifier: GPL-2.0
//! The programs that are checkpointed. Each makes its state, says that it is ready by a file, stands still (or keeps
//! reading its clock), and on SIGUSR1 looks at what it has and says whether it is all there.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use selftests::sys;
use selftests::sys::Area;
use selftests::sys::PAGE;
use std::fs;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

/// Appears when the victim is ready; holds the address of its [`Watch`].
pub const READY: &str = "ready";
/// Appears when it has looked at itself; holds [`GOOD`] or what is wrong.
pub const RESULT: &str = "result";
/// All is as it was.
pub const GOOD: &str = "good";

/// How many lengths of time are told apart.
pub const LENGTHS: usize = 512;

/// What the victim sees by its own clock, in ns. The measuring side reads and clears it from outside.
#[repr(C)]
pub struct Watch {
    /// The longest time between two looks at the clock.
    pub longest: AtomicU64,
    /// When that ended, as CLOCK_MONOTONIC.
    pub end: AtomicU64,
    /// How often it did what it does.
    pub rounds: AtomicU64,
    /// How many of its writes took how long, see [`length`].
    pub lengths: [AtomicU64; LENGTHS],
}

static WATCH: Watch = Watch {
    longest: AtomicU64::new(0),
    end: AtomicU64::new(0),
    rounds: AtomicU64::new(0),
    lengths: [const { AtomicU64::new(0) }; LENGTHS],
};

impl Watch {
    fn see(&self, last: u64, this: u64) {
        if this - last > self.longest.load(Relaxed) {
            self.longest.store(this - last, Relaxed);
            self.end.store(this, Relaxed);
        }
    }
}

/// Which of [`Watch::lengths`] a time belongs to: eight for each power of two.
fn length_index(ns: u64) -> usize {
    let power = ns.max(8).ilog2();
    (((power as usize - 3) << 3) + ((ns.max(8) >> (power - 3)) as usize & 7)).min(LENGTHS - 1)
}

/// The shortest time, in ns, that belongs to the index.
pub fn length(index: usize) -> u64 {
    (8 + (index as u64 & 7)) << (index >> 3)
}

static WOKEN: AtomicBool = AtomicBool::new(false);
static POKED: AtomicBool = AtomicBool::new(false);

extern "C" fn wake(signal: i32) {
    let flag = if signal == libc::SIGUSR1 { &WOKEN } else { &POKED };
    flag.store(true, Relaxed);
}

/// Processes of the fork tree of M10.
pub const SHARERS: usize = 8;

/// Is a victim.
///
/// # Errors
///
/// What prevents its state from being made.
pub fn run(kind: &str, size: usize, dir: &Path) -> Result<()> {
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        sys::handle(signal, wake, 0)?;
    }
    block(&[libc::SIGUSR1, libc::SIGUSR2])?;
    let result = match kind {
        "memory" => {
            let memory = memory(size)?;
            stand(dir)?;
            verify(memory)
        }
        "clock" => {
            let memory = memory(size)?;
            watch_clock(dir)?;
            verify(memory)
        }
        "writer" => {
            let memory = memory(size)?;
            write_at_random(memory, dir)
        }
        "dirty" => {
            let memory = memory(size)?;
            write_when_poked(memory, dir)?;
            verify(memory)
        }
        "shared" => {
            let memory = memory(size)?;
            let children = children(SHARERS - 1, || verify(memory))?;
            stand(dir)?;
            verify(memory).and_then(|()| bury(&children))
        }
        "processes" => {
            let children = children(size - 1, || Ok(()))?;
            stand(dir)?;
            bury(&children)
        }
        "threads" => threads(size - 1, dir),
        "files" => descriptors(dir, size, |n| Ok(vec![fs::File::create(dir.join(format!("file{n}")))?.into()])),
        "pipes" => descriptors(dir, size, |_| sys::pipe(0).map(|(r, w)| vec![r, w])),
        "unix" => descriptors(dir, size, |_| socketpair()),
        // SAFETY: no memory is involved.
        "eventfds" => descriptors(dir, size, |_| sys::owned(unsafe { libc::eventfd(0, 0) }).map(|fd| vec![fd])),
        "vmas" => {
            let area = vmas(size)?;
            stand(dir)?;
            count_vmas(area)
        }
        _ => bail!("{kind}: no such victim"),
    };
    let text = match result {
        Ok(()) => GOOD.to_owned(),
        Err(e) => format!("{e:#}"),
    };
    publish(dir, RESULT, &text)
}

/// A file that appears with all that is in it.
fn publish(dir: &Path, name: &str, text: &str) -> Result<()> {
    let temp = dir.join(format!("{name}.new"));
    fs::write(&temp, text)?;
    fs::rename(temp, dir.join(name)).context("publish")
}

fn mask(how: libc::c_int, signals: &[libc::c_int]) -> Result<libc::sigset_t> {
    // SAFETY: all zeroes is a signal set; both sets are valid, and the signals exist.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        let mut old: libc::sigset_t = mem::zeroed();
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        sys::cvt(libc::sigprocmask(how, &set, &mut old))?;
        Ok(old)
    }
}

fn block(signals: &[libc::c_int]) -> Result<()> {
    mask(libc::SIG_BLOCK, signals).map(drop)
}

/// Sleeps until SIGUSR1.
fn sleep() {
    sleep_until(|| WOKEN.load(Relaxed));
}

/// Sleeps until a signal has made it so.
fn sleep_until(done: impl Fn() -> bool) {
    while !done() {
        // SAFETY: all zeroes is the empty set.
        unsafe {
            let none: libc::sigset_t = mem::zeroed();
            libc::sigsuspend(&none);
        }
    }
}

fn ready(dir: &Path) -> Result<()> {
    publish(dir, READY, &(ptr::from_ref(&WATCH) as usize).to_string())
}

fn stand(dir: &Path) -> Result<()> {
    ready(dir)?;
    sleep();
    Ok(())
}

/// Does nothing but look for the longest time between two looks at the clock.
fn watch_clock(dir: &Path) -> Result<()> {
    ready(dir)?;
    mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1])?;
    let mut last = now()?;
    while !WOKEN.load(Relaxed) {
        let this = now()?;
        WATCH.see(last, this);
        last = this;
    }
    Ok(())
}

/// Writes to one page after the other, in no order, and looks how long each write takes. On SIGUSR2 it forks a child
/// that does nothing, so the pages are shared with that.
fn write_at_random(memory: Area, dir: &Path) -> Result<()> {
    ready(dir)?;
    mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1, libc::SIGUSR2])?;
    let bytes = memory.bytes();
    let (pages, mut page) = (memory.pages(), 0);
    while !WOKEN.load(Relaxed) {
        if POKED.swap(false, Relaxed) {
            children(1, || Ok(()))?;
            WATCH.rounds.fetch_add(1, Relaxed);
        }
        // Visits all pages once before it visits one again: their number is a power of two.
        page = (page * 5 + 12345) % pages;
        let begin = now()?;
        // SAFETY: the place is inside of the mapping.
        unsafe { ptr::write_volatile(&raw mut bytes[page * PAGE + 64], 1) };
        let end = now()?;
        WATCH.see(begin, end);
        WATCH.lengths[length_index(end - begin)].fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Writes to every hundredth page each time that SIGUSR2 arrives.
fn write_when_poked(memory: Area, dir: &Path) -> Result<()> {
    ready(dir)?;
    for first in (0..100).cycle() {
        sleep_until(|| WOKEN.load(Relaxed) || POKED.load(Relaxed));
        if WOKEN.load(Relaxed) {
            break;
        }
        POKED.store(false, Relaxed);
        for page in memory.bytes().chunks_exact_mut(PAGE).skip(first).step_by(100) {
            page[64] = page[64].wrapping_add(1);
        }
        WATCH.rounds.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// CLOCK_MONOTONIC in ns.
///
/// # Errors
///
/// If there is no such clock.
pub fn now() -> Result<u64> {
    Ok(sys::clock(libc::CLOCK_MONOTONIC)?.as_nanos() as u64)
}

/// Anonymous memory of `mib` MiB, of a page if that is 0, with a number of its own in each page.
///
/// # Errors
///
/// If there is not enough.
pub fn memory(mib: usize) -> Result<Area> {
    let area = Area::anon((mib << 20).max(PAGE), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
    for (n, page) in area.bytes().chunks_exact_mut(PAGE).enumerate() {
        page[..8].copy_from_slice(&number(n));
    }
    Ok(area)
}

fn number(page: usize) -> [u8; 8] {
    (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

fn verify(area: Area) -> Result<()> {
    let wrong = area.bytes().chunks_exact(PAGE).enumerate().find(|(n, page)| page[..8] != number(*n));
    match wrong {
        Some((n, page)) => bail!("page {n} begins with {:x?}", &page[..8]),
        None => Ok(()),
    }
}

/// Forks children that sleep until SIGUSR1 and end with status 0 if `check` succeeds.
fn children(count: usize, check: impl Fn() -> Result<()>) -> Result<Vec<i32>> {
    let mut pids = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: the process has one thread.
        match sys::cvt(unsafe { libc::fork() }).context("fork")? {
            0 => {
                sleep();
                let status = i32::from(check().is_err());
                // SAFETY: ends the child.
                unsafe { libc::_exit(status) }
            }
            pid => pids.push(pid),
        }
    }
    Ok(pids)
}

/// Wakes the children and requires that each ends with status 0.
fn bury(children: &[i32]) -> Result<()> {
    for pid in children {
        sys::kill(*pid, libc::SIGUSR1).with_context(|| format!("child {pid}"))?;
    }
    for pid in children {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        sys::cvt(unsafe { libc::waitpid(*pid, &mut status, 0) }).with_context(|| format!("child {pid}"))?;
        ensure!(status == 0, "child {pid} ended with {status:#x}");
    }
    Ok(())
}

fn threads(count: usize, dir: &Path) -> Result<()> {
    for _ in 0..count {
        thread::Builder::new()
            .stack_size(16 << 10)
            .spawn(|| {
                loop {
                    // SAFETY: no memory is involved.
                    unsafe { libc::pause() };
                }
            })
            .context("thread")?;
    }
    stand(dir)?;
    let there = fs::read_dir("/proc/self/task")?.count();
    ensure!(there == count + 1, "{there} threads");
    Ok(())
}

fn socketpair() -> std::io::Result<Vec<OwnedFd>> {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors.
    sys::cvt(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()) })?;
    fds.into_iter().map(sys::owned).collect()
}

/// Has `count` descriptors that `open` makes, on top of the standard ones.
fn descriptors(dir: &Path, count: usize, open: impl Fn(usize) -> std::io::Result<Vec<OwnedFd>>) -> Result<()> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(open(all.len()).with_context(|| format!("descriptor {}", all.len()))?);
    }
    stand(dir)?;
    for fd in &all {
        sys::fcntl(fd, libc::F_GETFD, 0)?;
    }
    Ok(())
}

/// `count` mappings that touch, every other one without permission to write.
///
/// # Errors
///
/// If the kernel allows so many in no address space.
pub fn vmas(count: usize) -> Result<Area> {
    let area = Area::anon(count * PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
    for n in (1..count).step_by(2) {
        area.protect(n * PAGE, PAGE, libc::PROT_READ).context("mprotect")?;
    }
    Ok(area)
}

fn count_vmas(area: Area) -> Result<()> {
    let (begin, end) = (area.addr as usize, area.addr as usize + area.len);
    let maps = fs::read_to_string("/proc/self/maps")?;
    let address = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
    let there = maps.lines().filter_map(address).filter(|at| (begin..end).contains(at)).count();
    ensure!(there == area.pages(), "{there} mappings instead of {}", area.pages());
    Ok(())
}
