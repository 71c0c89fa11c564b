// SPDX-License-Identifier: GPL-2.0

//! A tree that is held stands still, and can always be let go or killed.

use libc::{
    MAP_SHARED,
    O_CREAT,
    O_RDWR,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::checkpoint::{
    self,
    call,
    Args,
    Hold, //
};
use selftests::sys::{
    cvt,
    kill,
    open,
    Area, //
};
use selftests::{
    Bench,
    Life,
    Process,
    Task, //
};
use std::fs;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::fs::chown;
use std::os::unix::process::{
    CommandExt,
    ExitStatusExt, //
};
use std::path::Path;
use std::process::{
    ExitCode,
    ExitStatus, //
};
use std::sync::atomic::{
    AtomicPtr,
    AtomicU64,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "stands-still",
            run: stands_still,
        },
        Custom {
            name: "close-releases",
            run: close_releases,
        },
        Custom {
            name: "in-user-mode",
            run: |b| still_and_on(b, "busy"),
        },
        Custom {
            name: "while-forking",
            run: |b| still_and_on(b, "forking"),
        },
        Custom {
            name: "tree",
            run: |b| still_and_on(b, "tree"),
        },
        Custom {
            name: "again-and-again",
            run: again_and_again,
        },
        Custom {
            name: "second-holder",
            run: second_holder,
        },
        Custom {
            name: "opener-killed",
            run: opener_killed,
        },
        Custom {
            name: "lease-runs-out",
            run: lease_runs_out,
        },
        Custom {
            name: "lease-renewed",
            run: lease_renewed,
        },
        Custom {
            name: "sigkill-passes",
            run: sigkill_passes,
        },
        Custom {
            name: "kill",
            run: kills,
        },
        Custom {
            name: "stop",
            run: stops,
        },
        Custom {
            name: "stopped-stays-stopped",
            run: stopped_stays_stopped,
        },
        Custom {
            name: "sigcont-while-held",
            run: sigcont_while_held,
        },
        Custom {
            name: "sigstop-while-held",
            run: sigstop_while_held,
        },
        Custom {
            name: "signal-arrives-once",
            run: signal_arrives_once,
        },
        Custom {
            name: "sleep-is-not-cut",
            run: sleep_is_not_cut,
        },
        Custom {
            name: "ptrace-while-held",
            run: ptrace_while_held,
        },
        Custom {
            name: "while-restarting",
            run: while_restarting,
        },
        Custom {
            name: "unprivileged",
            run: unprivileged,
        },
        Custom {
            name: "unprivileged-off",
            run: unprivileged_off,
        },
        Custom {
            name: "filtered-caller",
            run: filtered_caller,
        },
        Custom {
            name: "caller-in-tree",
            run: caller_in_tree,
        },
        Custom {
            name: "arguments",
            run: arguments,
        },
    ],
    victims: &[
        Case::new("counter", counter),
        Case::new("busy", busy),
        Case::new("forking", forking),
        Case::new("tree", tree),
        Case::new("counts-signals", counts_signals),
        Case::new("sleeper", sleeper),
    ],
    jobs: 1,
    ..Suite::new("hold")
};

fn main() -> ExitCode {
    SUITE.main()
}

const THREADS: usize = 50;
const CHILDREN: usize = 20;
const SLOTS: usize = 1 + THREADS + CHILDREN;
const LEASE: Duration = Duration::from_secs(60);

/// Counters in a file that victim and runner both map.
fn slots(path: &Path) -> Result<&'static [AtomicU64]> {
    let fd = open(path, O_RDWR | O_CREAT)?;
    fs::File::from(fd.try_clone()?).set_len(sys::PAGE as u64)?;
    let area = Area::map(
        sys::PAGE,
        PROT_READ | PROT_WRITE,
        MAP_SHARED,
        fd.as_raw_fd(),
        0,
    )?;
    // SAFETY: the page is aligned, zeroed at first, and stays mapped.
    Ok(unsafe { std::slice::from_raw_parts(area.addr.cast(), SLOTS) })
}

/// Counts in one slot, with a short sleep each time, until it is told to stop, for which it looks now and
/// then: there are many of its kind.
fn count(v: &Victim, slot: &AtomicU64) {
    while !v.told() {
        for _ in 0..16 {
            slot.fetch_add(1, Ordering::Relaxed);
            sys::nap(Duration::from_millis(4));
        }
    }
}

fn counter(v: &Victim) -> Result<()> {
    let slots = slots(&v.path("count"))?;
    v.ready()?;
    count(v, &slots[0]);
    Ok(())
}

/// Counts without any system call for long stretches.
fn busy(v: &Victim) -> Result<()> {
    let slots = slots(&v.path("count"))?;
    v.ready()?;
    while !v.told() {
        for _ in 0..1_000_000 {
            slots[0].fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Each child counts once.
fn forking(v: &Victim) -> Result<()> {
    let slots = slots(&v.path("count"))?;
    v.ready()?;
    while !v.told() {
        sys::forked(|| {
            slots[0].fetch_add(1, Ordering::Relaxed);
            0
        })?;
    }
    Ok(())
}

fn tree(v: &Victim) -> Result<()> {
    let slots = slots(&v.path("count"))?;
    let mut children = Vec::new();
    for slot in &slots[1 + THREADS..] {
        children.push(Process::fork(|| {
            count(v, slot);
            0
        })?);
    }
    thread::scope(|scope| -> Result<()> {
        for slot in &slots[1..=THREADS] {
            scope.spawn(|| count(v, slot));
        }
        v.ready()?;
        count(v, &slots[0]);
        Ok(())
    })?;
    for mut child in children {
        same(
            "status of a child",
            Some(0),
            child.wait(Duration::from_secs(30))?.code(),
        )?;
    }
    Ok(())
}

static SIGNALS: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn count_signal(_: i32) {
    // SAFETY: set before the handler is installed, and never unmapped.
    unsafe { (*SIGNALS.load(Ordering::Relaxed)).fetch_add(1, Ordering::Relaxed) };
}

/// Slot 1 counts signals.
fn counts_signals(v: &Victim) -> Result<()> {
    let slots = slots(&v.path("count"))?;
    SIGNALS.store(std::ptr::from_ref(&slots[1]).cast_mut(), Ordering::Relaxed);
    sys::handle(libc::SIGUSR1, count_signal, libc::SA_RESTART)?;
    v.ready()?;
    count(v, &slots[0]);
    Ok(())
}

fn sleeper(v: &Victim) -> Result<()> {
    let whole = Duration::from_millis(1500);
    v.ready()?;
    let begin = Instant::now();
    // SAFETY: the request is valid.
    cvt(unsafe { libc::nanosleep(&sys::timespec(whole), std::ptr::null_mut()) })?;
    let slept = begin.elapsed();
    v.wait();
    ensure!(slept >= whole, "slept for {slept:?} only");
    Ok(())
}

/// A victim and its counters.
struct Watched<'a> {
    life: Life<'a>,
    slots: &'static [AtomicU64],
    used: usize,
}

impl<'a> Watched<'a> {
    fn start(b: &'a Bench<'_>, name: &str) -> Result<Self> {
        if !checkpoint::exists() {
            return skip("the kernel has no checkpoint(2)");
        }
        let life = b.start(name)?;
        let slots = slots(&b.path("count"))?;
        Ok(Self {
            life,
            slots,
            used: if name == "tree" { SLOTS } else { 1 },
        })
    }

    fn hold(&self, lease: Duration) -> Result<Hold> {
        Hold::new(self.life.pid, lease).context("hold")
    }

    fn read(&self) -> Vec<u64> {
        self.slots[..self.used]
            .iter()
            .map(|s| s.load(Ordering::Relaxed))
            .collect()
    }

    /// Whether no counter moves for a while.
    fn still(&self) -> bool {
        let before = self.read();
        sys::nap(Duration::from_millis(300));
        before == self.read()
    }

    fn stands(&self) -> Result<()> {
        ensure!(self.still(), "it does not stand still");
        Ok(())
    }

    /// Every counter moves before long.
    fn moves(&self) -> Result<()> {
        let before = self.read();
        let moved = sys::until(Duration::from_secs(30), || {
            before
                .iter()
                .zip(self.read())
                .all(|(before, now)| *before != now)
        });
        ensure!(
            moved,
            "it does not go on: counters {before:?}, then {:?}",
            self.read()
        );
        Ok(())
    }

    fn ends(mut self) -> Result<()> {
        self.moves()?;
        self.life.passes()
    }

    fn state(&self) -> Option<char> {
        Task::read(self.life.pid).map(|t| t.state)
    }

    fn is_stopped(&self) -> Result<()> {
        let stopped = sys::until(Duration::from_secs(10), || self.state() == Some('T'));
        ensure!(stopped, "it is not stopped but in state {:?}", self.state());
        Ok(())
    }
}

fn still_and_on(b: &Bench<'_>, name: &str) -> Result<()> {
    let w = Watched::start(b, name)?;
    w.moves()?;
    let hold = w.hold(LEASE)?;
    w.stands()?;
    hold.release()?;
    w.ends()
}

fn stands_still(b: &Bench<'_>) -> Result<()> {
    still_and_on(b, "counter")
}

fn close_releases(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let hold = w.hold(LEASE)?;
    w.stands()?;
    drop(hold);
    w.ends()
}

fn again_and_again(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "tree")?;
    for _ in 0..if b.long { 500 } else { 30 } {
        w.hold(LEASE)?.release()?;
    }
    let hold = w.hold(LEASE)?;
    w.stands()?;
    hold.release()?;
    w.ends()
}

fn second_holder(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let hold = w.hold(LEASE)?;
    let second = Hold::new(w.life.pid, LEASE);
    ensure!(
        sys::fails_with(second, libc::EBUSY),
        "a second holder does not get EBUSY"
    );
    w.stands()?;
    hold.release()?;
    drop(hold);
    w.hold(LEASE)
        .context("after the first holder let go")?
        .release()?;
    w.ends()
}

/// The hold ends with its opener, although another process has inherited the descriptor.
fn opener_killed(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let pid = w.life.pid;
    let heir = b.path("heir");
    let opener = Process::fork(|| {
        let Ok(_hold) = Hold::new(pid, LEASE) else {
            return 1;
        };
        // SAFETY: both processes only sleep from here on.
        let child = unsafe { libc::fork() };
        if child > 0 {
            let _ = fs::write(&heir, child.to_string());
        }
        sys::nap(LEASE);
        0
    })?;
    ensure!(
        sys::until(Duration::from_secs(20), || heir.exists() && w.still()),
        "never held"
    );
    drop(opener);
    let on = w.moves();
    let heir: i32 = fs::read_to_string(&heir)?.parse()?;
    kill(heir, libc::SIGKILL)?;
    // It is an orphan, so it comes to the runner.
    Process::adopt(heir).wait(Duration::from_secs(10))?;
    on.context("its opener is dead")?;
    w.ends()
}

fn lease_runs_out(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let begin = Instant::now();
    let hold = w.hold(Duration::from_millis(1000))?;
    w.stands()?;
    w.moves().context("the lease is over")?;
    ensure!(
        begin.elapsed() >= Duration::from_millis(1000),
        "after {:?} only",
        begin.elapsed()
    );
    ensure!(hold.renew().is_err(), "a hold that is over can be renewed");
    w.ends()
}

fn lease_renewed(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let hold = w.hold(Duration::from_millis(1500))?;
    for _ in 0..10 {
        w.stands()?;
        hold.renew()?;
    }
    hold.release()?;
    w.ends()
}

fn killed(status: ExitStatus) -> Result<()> {
    same("signal that ended it", Some(libc::SIGKILL), status.signal())
}

fn sigkill_passes(b: &Bench<'_>) -> Result<()> {
    let mut w = Watched::start(b, "tree")?;
    let hold = w.hold(LEASE)?;
    w.stands()?;
    hold.check()?;
    kill(w.life.pid, libc::SIGKILL)?;
    killed(w.life.reap()?)?;
    // Nothing is saved of who is gone, though the hold refers to it.
    let checked = hold.check();
    ensure!(sys::fails_with(checked, libc::EAGAIN), "it is saved");
    // The children are held still; they go on and end by themselves.
    drop(hold);
    w.life.tell()?;
    w.life.reap_rest()
}

fn kills(b: &Bench<'_>) -> Result<()> {
    let mut w = Watched::start(b, "tree")?;
    let hold = w.hold(LEASE)?;
    hold.kill()?;
    killed(w.life.reap()?)?;
    // The children too, who are not told to end.
    w.life.reap_rest()
}

fn stops(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let hold = w.hold(LEASE)?;
    hold.stop()?;
    drop(hold);
    w.is_stopped()?;
    w.stands()?;
    kill(w.life.pid, libc::SIGCONT)?;
    w.ends()
}

fn stopped_stays_stopped(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    kill(w.life.pid, libc::SIGSTOP)?;
    w.is_stopped()?;
    w.hold(LEASE)?.release()?;
    w.stands()?;
    w.is_stopped()?;
    kill(w.life.pid, libc::SIGCONT)?;
    w.ends()
}

fn sigcont_while_held(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    kill(w.life.pid, libc::SIGSTOP)?;
    w.is_stopped()?;
    let hold = w.hold(LEASE)?;
    kill(w.life.pid, libc::SIGCONT)?;
    w.stands().context("SIGCONT must not end the hold")?;
    hold.release()?;
    w.ends()
}

fn sigstop_while_held(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let hold = w.hold(LEASE)?;
    kill(w.life.pid, libc::SIGSTOP)?;
    w.stands()?;
    hold.release()?;
    w.is_stopped()?;
    w.stands()?;
    kill(w.life.pid, libc::SIGCONT)?;
    w.ends()
}

fn signal_arrives_once(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counts-signals")?;
    let hold = w.hold(LEASE)?;
    let arrived = || w.slots[1].load(Ordering::Relaxed);
    // A standard signal is pending once, however often it is sent.
    for _ in 0..5 {
        kill(w.life.pid, libc::SIGUSR1)?;
    }
    w.stands()?;
    same("signals handled while held", 0, arrived())?;
    hold.release()?;
    w.moves()?;
    same("signals handled afterwards", 1, arrived())?;
    w.ends()
}

fn sleep_is_not_cut(b: &Bench<'_>) -> Result<()> {
    let mut w = Watched::start(b, "sleeper")?;
    sys::nap(Duration::from_millis(300));
    for _ in 0..3 {
        let hold = w.hold(LEASE)?;
        sys::nap(Duration::from_millis(100));
        hold.release()?;
    }
    w.life.passes()
}

/// A debugger waits or is refused; it cannot make the victim move.
fn ptrace_while_held(b: &Bench<'_>) -> Result<()> {
    let w = Watched::start(b, "counter")?;
    let hold = w.hold(LEASE)?;
    let pid = w.life.pid;
    // SAFETY: PTRACE_SEIZE involves no memory.
    let seized = cvt(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) }).is_ok();
    w.stands()?;
    hold.release()?;
    if seized {
        w.moves()?;
        // SAFETY: as above; a tracee must be stopped to be detached.
        unsafe {
            cvt(libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0))?;
            cvt(libc::waitpid(pid, &mut 0, libc::__WALL))?;
            cvt(libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0))?;
        }
    }
    w.ends()
}

const USER: u32 = 1000;

/// A victim of an ordinary user.
fn users<'a>(b: &'a Bench<'_>) -> Result<Watched<'a>> {
    if !checkpoint::exists() {
        return skip("the kernel has no checkpoint(2)");
    }
    let mut command = b.command(b.case("counter")?)?;
    for entry in fs::read_dir(&b.dir)? {
        chown(entry?.path(), Some(USER), Some(USER))?;
    }
    chown(&b.dir, Some(USER), Some(USER))?;
    command.uid(USER).gid(USER);
    let life = b.start_with("counter", command)?;
    Ok(Watched {
        life,
        slots: slots(&b.path("count"))?,
        used: 1,
    })
}

/// A hold that comes too early is refused, and the restart does not notice.
fn while_restarting(b: &Bench<'_>) -> Result<()> {
    let mut w = Watched::start(b, "tree")?;
    let image = b.path("image");
    w.life.checkpoint_and_kill_all(&image)?;
    w.life.restart(&image, &[])?;
    let begin = Instant::now();
    let mut early = 0;
    let hold = loop {
        match Hold::new(w.life.pid, LEASE) {
            Ok(hold) => break hold,
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => early += 1,
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => return Err(e).context("hold"),
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "it never runs, {early} times too early: {}",
            fs::read_to_string(b.path("rstr.err"))?
        );
    };
    ensure!(early > 0, "no hold came too early");
    hold.release()?;
    w.ends()
}

/// An ordinary user may checkpoint what belongs to them.
fn unprivileged(b: &Bench<'_>) -> Result<()> {
    let w = users(b)?;
    let image = b.path("image");
    let ckpt = b
        .ckpt()
        .arg(w.life.pid.to_string())
        .arg("-o")
        .arg(&image)
        .as_user(USER);
    ckpt.run()?.succeeded("ckpt as user 1000")?;
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&image)?) & 0o777;
    same("mode of the image", 0o600, mode)?;
    w.ends()
}

/// ... unless the administrator has switched that off.
fn unprivileged_off(b: &Bench<'_>) -> Result<()> {
    const SWITCH: &str = "/proc/sys/kernel/checkpoint_unprivileged";
    let w = users(b)?;
    let before = fs::read_to_string(SWITCH).context(SWITCH)?;
    fs::write(SWITCH, "0")?;
    let ckpt = || {
        b.ckpt()
            .arg(w.life.pid.to_string())
            .arg("-o")
            .arg(b.path("image"))
    };
    let user = ckpt().as_user(USER).run();
    let root = ckpt().run();
    fs::write(SWITCH, before.trim())?;
    user?.refused("ckpt as user 1000", &["permi"])?;
    root?.succeeded("ckpt as root")?;
    w.ends()
}

/// Whoever is behind a filter that has never heard of the call may not use it.
fn filtered_caller(b: &Bench<'_>) -> Result<()> {
    let w = users(b)?;
    let pid = w.life.pid;
    let mut caller = Process::fork(|| {
        let mut allow = [libc::sock_filter {
            code: 6,
            jt: 0,
            jf: 0,
            k: libc::SECCOMP_RET_ALLOW,
        }];
        let program = libc::sock_fprog {
            len: 1,
            filter: allow.as_mut_ptr(),
        };
        // SAFETY: the program is valid. The numbers are set by the system calls themselves, as the
        // library would want to tell its other threads.
        let ready = unsafe {
            libc::syscall(libc::SYS_setresgid, USER, USER, USER) == 0
                && libc::syscall(libc::SYS_setresuid, USER, USER, USER) == 0
                && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        match (ready, Hold::new(pid, LEASE)) {
            (false, _) => 77,
            (true, Ok(_)) => 1,
            (true, Err(e)) if e.raw_os_error() == Some(libc::EPERM) => 0,
            (true, Err(_)) => 2,
        }
    })?;
    match caller.wait(Duration::from_secs(20))?.code() {
        Some(0) => {}
        Some(77) => return skip("no seccomp filters"),
        Some(1) => bail!("a filtered caller holds a task"),
        other => bail!("a filtered caller gets another error than EPERM ({other:?})"),
    }
    w.ends()
}

/// Nobody holds themselves.
fn caller_in_tree(b: &Bench<'_>) -> Result<()> {
    if !checkpoint::exists() {
        return skip("the kernel has no checkpoint(2)");
    }
    let w = Watched::start(b, "counter")?;
    let mine = std::process::id() as i32;
    ensure!(Hold::new(mine, LEASE).is_err(), "the runner holds itself");
    w.ends()
}

/// Arguments that mean nothing are refused, so that they can mean something later.
fn arguments(b: &Bench<'_>) -> Result<()> {
    if !checkpoint::exists() {
        return skip("the kernel has no checkpoint(2)");
    }
    let w = Watched::start(b, "counter")?;
    let target = sys::pidfd(w.life.pid)?;
    let good = Args {
        flags: checkpoint::HOLD,
        target: target.as_raw_fd(),
        fd: -1,
        log_fd: -1,
        ..Args::default()
    };
    /// Arguments with more behind them than this kernel knows.
    #[repr(C)]
    struct Longer {
        args: Args,
        more: u64,
    }
    const SIZE_OF_THE_FIRST: usize = 40;
    let size = mem::size_of::<Args>();
    let attempt = |what: &str, args: Args, size: usize, errno: i32| -> Result<()> {
        let longer = Longer { args, more: 0 };
        let result = call(&longer.args, size);
        ensure!(
            sys::fails_with(result, errno),
            "{what}: not the error {errno}"
        );
        Ok(())
    };
    attempt("no size", good, 0, libc::EINVAL)?;
    attempt("too short", good, SIZE_OF_THE_FIRST - 8, libc::EINVAL)?;
    attempt(
        "unknown flag",
        Args {
            flags: 1 << 63,
            ..good
        },
        size,
        libc::EINVAL,
    )?;
    attempt(
        "reserved field",
        Args {
            reserved: 1,
            ..good
        },
        size,
        libc::EINVAL,
    )?;
    attempt(
        "external descriptors of a hold",
        Args {
            nr_external: 1,
            ..good
        },
        size,
        libc::EINVAL,
    )?;
    attempt("bad target", Args { target: -1, ..good }, size, libc::EBADF)?;
    attempt(
        "target that is no pidfd",
        Args { target: 0, ..good },
        size,
        libc::EBADF,
    )?;
    attempt(
        "HOLD and CHECK",
        Args {
            flags: checkpoint::HOLD | checkpoint::CHECK,
            ..good
        },
        size,
        libc::EINVAL,
    )?;
    attempt(
        "KILL and CHECK",
        Args {
            flags: checkpoint::KILL | checkpoint::CHECK,
            ..good
        },
        size,
        libc::EINVAL,
    )?;
    attempt("no stream", Args { flags: 0, ..good }, size, libc::EBADF)?;
    let longer = Longer {
        args: good,
        more: 1,
    };
    let result = call(&longer.args, size + 8);
    ensure!(
        sys::fails_with(result, libc::E2BIG),
        "a byte past the known end: not E2BIG"
    );
    let longer = Longer {
        args: good,
        more: 0,
    };
    let fd = call(&longer.args, size + 8).context("zeroes past the known end")?;
    w.stands()?;
    drop(sys::owned(fd as i32)?);
    w.ends()
}
