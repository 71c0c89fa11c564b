// SPDX-License-Identifier: GPL-2.0

//! A tree that forks, ends, signals and makes threads as fast as it can, checkpointed at random
//! moments: each time all of it comes back, with no child and no signal lost or doubled. And trees of
//! which some are killed while they are saved, or made: all or nothing comes of that.

use selftests::epoll::Epoll;
use selftests::prelude::*;
use selftests::sys::{
    clone,
    cvt,
    getpid,
    owned,
    Area, //
};
use selftests::unix;
use selftests::{
    Bench,
    Counters,
    NumbersThatFollow,
    Process, //
};
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "storm",
            run: rounds,
        },
        Custom {
            name: "killed-while-saved",
            run: killed_while_saved,
        },
        Custom {
            name: "killed-while-restored",
            run: killed_while_restored,
        },
    ],
    victims: &[
        Case::new("storm", storm).settle(300),
        Case::new("crowd", crowd),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("stress")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Numbers that look random, the same for the same start (xorshift).
struct Random(u32);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % end
    }
}

/// Signals are queued with a number that adds up.
fn signal() -> i32 {
    libc::SIGRTMIN() + 1
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// What children say by their status: `CHILD` and how many signals they sent, more if they left an
/// orphan, which says `ORPHAN`.
const CHILD: i32 = 10;
const LEFT_ORPHAN: i32 = 20;
const ORPHAN: i32 = 5;
const FAILED: i32 = 99;

extern "C" fn in_vfork(_: *mut libc::c_void) -> libc::c_int {
    sys::nap(Duration::from_millis(1));
    ORPHAN
}

/// Waits for a child of a child, which has to end as an orphan does.
fn waited(pid: i32) -> bool {
    let mut status = 0;
    // SAFETY: the status is valid for writing.
    unsafe { libc::waitpid(pid, &mut status, 0) == pid && status == ORPHAN << 8 }
}

/// The life of a child of the storm.
fn child(parent: i32, seed: u32) -> i32 {
    let mut random = Random(seed);
    let mut left = 0;
    let well = match random.below(6) {
        0 => true,
        1 => {
            let threads: Vec<_> = (0..3)
                .map(|n| {
                    thread::spawn(move || {
                        sys::nap(Duration::from_micros(500));
                        n
                    })
                })
                .collect();
            let sum: u32 = threads.into_iter().filter_map(|t| t.join().ok()).sum();
            sum == 3
        }
        2 => {
            let inner = Process::fork(|| ORPHAN);
            inner.is_ok_and(|inner| {
                let pid = inner.pid;
                mem::forget(inner);
                waited(pid)
            })
        }
        3 => clone(
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            in_vfork,
            &(),
        )
        .is_ok_and(waited),
        4 => {
            left = LEFT_ORPHAN;
            Process::fork(|| {
                sys::nap(Duration::from_millis(2));
                ORPHAN
            })
            .map(mem::forget)
            .is_ok()
        }
        _ => {
            sys::nap(Duration::from_millis(3));
            true
        }
    };
    let signals = random.below(4) as i32;
    let none = libc::sigval {
        sival_ptr: ptr::null_mut(),
    };
    // SAFETY: the value is no pointer to anybody.
    let sent = (0..signals).all(|_| unsafe { libc::sigqueue(parent, signal(), none) } == 0);
    if well && sent {
        CHILD + left + signals
    } else {
        FAILED
    }
}

/// How many children there are at a time.
const AT_ONCE: u32 = 6;

fn storm(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
    sys::handle(signal(), count, libc::SA_RESTART)?;
    let numbers = NumbersThatFollow::choose();
    let mut random = Random(getpid() as u32);
    let (mut alive, mut signals, mut orphans, mut left) = (0u32, 0u32, 0u32, 0u32);
    let mut all = 0u64;
    let mut numbers = Some(numbers);
    loop {
        let told = v.told();
        while !told && alive < AT_ONCE {
            let seed = random.below(u32::MAX - 1) + 1;
            let parent = getpid();
            mem::forget(Process::fork(|| child(parent, seed))?);
            alive += 1;
        }
        let mut status = 0;
        // SAFETY: the status is valid for writing.
        let found = cvt(unsafe { libc::waitpid(-1, &mut status, 0) });
        match found {
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) && told => break,
            other => other.context("waitpid")?,
        };
        ensure!(status & 0x7f == 0, "a child died of {status:#x}");
        match status >> 8 {
            ORPHAN => orphans += 1,
            FAILED => bail!("a child failed"),
            said => {
                let mut sent = said - CHILD;
                if sent >= LEFT_ORPHAN {
                    sent -= LEFT_ORPHAN;
                    left += 1;
                }
                signals += u32::try_from(sent)?;
                alive -= 1;
                all += 1;
            }
        }
        if numbers.take().is_some() {
            v.ready()?;
        }
    }
    same("children alive", 0, alive)?;
    same("orphans", left, orphans)?;
    same("signals", signals, SIGNALS.load(Ordering::SeqCst))?;
    ensure!(all > 10, "{all} children only");
    Ok(())
}

fn rounds(b: &Bench<'_>) -> Result<()> {
    let mut random = Random(0x2545_f491);
    let mut life = b.start("storm")?;
    let mut refused = 0;
    let rounds = if b.long { 200 } else { 20 };
    for round in 0..rounds {
        let pause = Duration::from_millis(u64::from(random.below(60)));
        life.settle(pause)
            .with_context(|| format!("round {round}"))?;
        let image = b.path(&format!("image.{}", round % 2));
        if let Err(error) = life.checkpoint_and_kill_all(&image) {
            // By name, and the tree goes on.
            let why = format!("{error:#}");
            ensure!(why.contains("task ") || why.contains("tree: "), "{why}");
            refused += 1;
            continue;
        }
        life.restart_detached(&image, &[])
            .with_context(|| format!("round {round}"))?;
    }
    ensure!(refused * 4 <= rounds, "{refused} of {rounds} were refused");
    life.passes()
}

/// How many children the crowd has.
const CROWD: usize = 8;

/// A child of the crowd, which has something of everything.
fn member(v: &Victim) -> Result<()> {
    // Should the test fail, nobody is left.
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    let area = Area::anon(
        64 * sys::PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE,
    )?;
    area.bytes().fill(1);
    let (from, to) = sys::pipe(0)?;
    sys::write(&to, b"x")?;
    let ends = unix::pair(libc::SOCK_STREAM)?;
    sys::write(&ends.0, b"y")?;
    let watch = Epoll::new()?;
    watch.add(&from, libc::EPOLLIN, 1)?;
    // SAFETY: no memory is involved.
    let clock = owned(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) })?;
    watch.add(&clock, libc::EPOLLIN, 2)?;
    let file = sys::open(&v.path("locked"), libc::O_RDWR | libc::O_CREAT)?;
    // SAFETY: all zeroes is a lock, and a timer that does not run.
    let (mut lock, mut timer): (libc::flock, libc::itimerval) = unsafe { mem::zeroed() };
    lock.l_type = libc::F_RDLCK as i16;
    timer.it_value.tv_sec = 1000;
    // SAFETY: both are valid.
    unsafe {
        cvt(libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &lock))?;
        cvt(libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()))?;
    }
    let counters = Counters::start(2);
    counters.all_go_on()?;
    sys::nap(Duration::from_secs(600));
    counters.end()
}

/// Has so many children at any time, whoever kills them.
fn crowd(v: &Victim) -> Result<()> {
    let mut numbers = Some(NumbersThatFollow::choose());
    let mut all: Vec<Process> = Vec::new();
    while !v.told() {
        let mut ended = Vec::new();
        for (at, child) in all.iter_mut().enumerate() {
            if let Some(status) = child.ended()? {
                same("signal", Some(libc::SIGKILL), status.signal())?;
                ended.push(at);
            }
        }
        for at in ended.into_iter().rev() {
            all.swap_remove(at);
        }
        while all.len() < CROWD {
            all.push(Process::fork(|| i32::from(member(v).is_err()))?);
        }
        if numbers.take().is_some() {
            v.ready()?;
        }
        sys::nap(Duration::from_millis(1));
    }
    Ok(())
}

/// A moment while something that takes so long is done.
fn moment(random: &mut Random, took: Duration) -> Duration {
    Duration::from_micros(u64::from(random.below(took.as_micros() as u32 + 1)))
}

/// Kills one of these, if there are any.
fn kill_one(random: &mut Random, all: &[i32]) {
    if let Some(pid) = all.get(random.below(all.len().max(1) as u32) as usize) {
        let _ = sys::kill(*pid, libc::SIGKILL);
    }
}

/// The numbers of the children of `parent`.
fn numbers_of_children(parent: i32) -> Result<Vec<i32>> {
    let all = selftests::children(parent)?;
    Ok(all.into_iter().map(|task| task.pid).collect())
}

fn killed_while_saved(b: &Bench<'_>) -> Result<()> {
    let mut random = Random(0x1234_5679);
    let mut life = b.start("crowd")?;
    let image = b.path("image");
    let took = life.checkpoint(&[], &image)?.took;
    let (mut refused, rounds) = (0, if b.long { 400 } else { 40 });
    for round in 0..rounds {
        let pid = life.pid.to_string();
        let ckpt = b.ckpt().arg(&pid).arg("-o").arg(&image).start()?;
        sys::nap(moment(&mut random, took));
        kill_one(&mut random, &numbers_of_children(life.pid)?);
        let done = ckpt.finish()?;
        if !done.status.success() {
            let said = &done.said;
            let named = said.contains("task ") || said.contains("tree: ");
            ensure!(named && done.status.code().is_some(), "{round}: {done:?}");
            refused += 1;
        }
    }
    ensure!(refused > 0, "nobody was killed in time");
    life.kill()?;
    end_orphans()
}

/// Ends those that have become children of this process.
fn end_orphans() -> Result<()> {
    let gone = sys::until(Duration::from_secs(60), || {
        for child in numbers_of_children(getpid()).unwrap_or_default() {
            let _ = sys::kill(child, libc::SIGKILL);
            let _ = Process::adopt(child).ended();
        }
        numbers_of_children(getpid()).is_ok_and(|left| left.is_empty())
    });
    ensure!(gone, "some are left: {:?}", selftests::tasks()?);
    Ok(())
}

fn killed_while_restored(b: &Bench<'_>) -> Result<()> {
    let mut random = Random(0x7654_3211);
    let mut life = b.start("crowd")?;
    let image = b.path("image");
    let mut all = numbers_of_children(life.pid)?;
    all.push(life.pid);
    life.checkpoint_and_kill_all(&image)?;
    let took = life.restart_detached(&image, &[])?.took;
    life.kill()?;
    end_orphans()?;
    let (mut failed, rounds) = (0, if b.long { 400 } else { 40 });
    for round in 0..rounds {
        let rstr = b.rstr().arg("--detach").arg("-i").arg(&image).start()?;
        sys::nap(moment(&mut random, took));
        kill_one(&mut random, &all);
        let done = rstr.finish()?;
        if !done.status.success() {
            let left: Vec<_> = all
                .iter()
                .filter_map(|pid| selftests::Task::read(*pid))
                .collect();
            ensure!(
                left.iter().all(|task| task.state == 'Z'),
                "{round}: {left:?} are left: {done:?}"
            );
            let named = done.said.contains("task ");
            ensure!(named && done.status.code().is_some(), "{round}: {done:?}");
            failed += 1;
        }
        let _ = sys::kill(life.pid, libc::SIGKILL);
        end_orphans()?;
    }
    ensure!(failed > 0, "nobody was killed in time");
    life.restart(&image, &[])?;
    life.passes()?;
    end_orphans()
}
