// SPDX-License-Identifier: GPL-2.0

//! What tasks of different processes share: descriptors, working directory, memory, signal actions.

use libc::{
    c_int,
    c_void,
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT,
    CLONE_SIGHAND,
    CLONE_SYSVSEM,
    CLONE_VM,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE,
    SIGCHLD,
    SIGUSR1, //
};
use selftests::prelude::*;
use selftests::sys::{
    clone,
    cvt,
    getpid,
    gettid,
    kill,
    Area, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process,
    Task, //
};
use std::env;
use std::fs;
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    AtomicPtr,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("descriptors", descriptors),
        Case::new("descriptors-of-threads", descriptors_of_threads),
        Case::new("descriptors-of-siblings", descriptors_of_siblings),
        Case::new("working-directory", working_directory),
        Case::new("memory", memory),
        Case::new("signal-actions", signal_actions),
        Case::new("memory-of-a-sibling", memory_of_a_sibling),
        Case::new("all-but-the-thread-group", all),
        Case::new("child-of-the-grandparent", child_of_the_grandparent),
        Case::new("nothing", nothing),
    ],
    customs: &[
        Custom {
            name: "descriptors-outside",
            run: |b| outside(b, "holds-descriptors", "descriptor table"),
        },
        Custom {
            name: "working-directory-outside",
            run: |b| outside(b, "holds-working-directory", "working directory"),
        },
        Custom {
            name: "memory-outside",
            run: |b| outside(b, "holds-memory", "address space"),
        },
        Custom {
            name: "distant-memory",
            run: distant_memory,
        },
    ],
    victims: &[
        Case::new("holds-descriptors", |v| hold(v, CLONE_FILES)),
        Case::new("holds-working-directory", |v| hold(v, CLONE_FS)),
        Case::new("holds-memory", |v| hold(v, CLONE_VM)),
        Case::new("holds-distant-memory", hold_distant_memory),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("sharing")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// What a parent asks of a child, and its answer: in memory that they share in any case. Children that
/// run in their parent's memory meanwhile use system calls only.
struct Desk {
    asked: AtomicI32,
    answer: AtomicI32,
    also: [AtomicI32; 4],
}

/// Things to do.
const OPEN: i32 = 1;
const CHDIR: i32 = 2;
const HANDLE: i32 = 3;
const COUNT: i32 = 4;
const PARENT: i32 = 5;
const END: i32 = 6;

impl Desk {
    fn new() -> Result<&'static Self> {
        let area = Area::anon(sys::PAGE, PROT_READ | PROT_WRITE, MAP_SHARED)?;
        // SAFETY: the page is all zeroes, which is a desk, and stays.
        Ok(unsafe { &*area.addr.cast::<Self>() })
    }

    fn pointer(&'static self) -> *mut c_void {
        ptr::from_ref(self).cast_mut().cast()
    }

    /// Asks, and returns the answer.
    fn ask(&self, what: i32) -> Result<i32> {
        self.answer.store(i32::MIN, Ordering::SeqCst);
        self.asked.store(what, Ordering::SeqCst);
        let answered = || self.answer.load(Ordering::SeqCst) != i32::MIN;
        ensure!(
            sys::until(Duration::from_secs(20), answered),
            "no answer to {what}"
        );
        Ok(self.answer.load(Ordering::SeqCst))
    }

    /// Does what it is asked until the end.
    fn serve(&self) -> c_int {
        loop {
            let asked = self.asked.swap(0, Ordering::SeqCst);
            // SAFETY: system calls with valid arguments.
            let answer = unsafe {
                match asked {
                    OPEN => libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY),
                    CHDIR => libc::chdir(c"/proc".as_ptr()),
                    HANDLE => libc::signal(SIGUSR1, other as *const () as usize) as i32 & 1,
                    COUNT => COUNTER.fetch_add(1, Ordering::SeqCst) + 1,
                    PARENT => libc::getppid(),
                    END => return 0,
                    _ => {
                        sys::nap(Duration::from_millis(5));
                        continue;
                    }
                }
            };
            self.answer.store(answer, Ordering::SeqCst);
        }
    }

    /// Tells the child to end and waits for it.
    fn end(&self, pid: i32) -> Result<()> {
        self.asked.store(END, Ordering::SeqCst);
        let status = Process::adopt(pid).wait(Duration::from_secs(20))?;
        ensure!(status.success(), "the child ended with {status}");
        Ok(())
    }
}

/// In private memory.
static COUNTER: AtomicI32 = AtomicI32::new(0);
static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn first(_: i32) {
    HANDLED.store(1, Ordering::SeqCst);
}

extern "C" fn other(_: i32) {
    HANDLED.store(2, Ordering::SeqCst);
}

extern "C" fn serve(desk: *mut c_void) -> c_int {
    // SAFETY: it is a desk, which stays.
    unsafe { &*desk.cast::<Desk>() }.serve()
}

/// A child that shares what `flags` say.
fn child(flags: c_int) -> Result<(&'static Desk, i32)> {
    let _numbers = NumbersThatFollow::choose();
    let desk = Desk::new()?;
    let pid = clone(flags | SIGCHLD, serve, desk)?;
    Ok((desk, pid))
}

fn is_open(fd: i32) -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Whether what the child opens is open here.
fn shares_descriptors(desk: &Desk) -> Result<bool> {
    let fd = desk.ask(OPEN)?;
    ensure!(fd >= 0, "the child cannot open a file");
    let shared = is_open(fd);
    if shared {
        // SAFETY: it is the child's, and open.
        cvt(unsafe { libc::close(fd) })?;
    }
    Ok(shared)
}

/// Whether the child moves this process along.
fn shares_directory(desk: &Desk) -> Result<bool> {
    let before = env::current_dir()?;
    same("chdir of the child", 0, desk.ask(CHDIR)?)?;
    let now = env::current_dir()?;
    env::set_current_dir(&before)?;
    Ok(now != before)
}

fn shares_memory(desk: &Desk) -> Result<bool> {
    let before = COUNTER.load(Ordering::SeqCst);
    desk.ask(COUNT)?;
    Ok(COUNTER.load(Ordering::SeqCst) != before)
}

/// Whether the handler that the child sets is that of this process.
fn shares_actions(desk: &Desk) -> Result<bool> {
    sys::handle(SIGUSR1, first, 0)?;
    desk.ask(HANDLE)?;
    kill(getpid(), SIGUSR1)?;
    ensure!(
        sys::until(Duration::from_secs(5), || {
            HANDLED.load(Ordering::SeqCst) != 0
        }),
        "no handler ran"
    );
    Ok(HANDLED.swap(0, Ordering::SeqCst) == 2)
}

/// What is shared with the child that serves at `desk`, as flags of clone(2).
fn shared(desk: &Desk) -> Result<c_int> {
    let mut flags = 0;
    for (flag, shares) in [
        (CLONE_FILES, shares_descriptors(desk)?),
        (CLONE_FS, shares_directory(desk)?),
        (CLONE_VM, shares_memory(desk)?),
        (CLONE_SIGHAND, shares_actions(desk)?),
    ] {
        if shares {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// A child shares what `flags` say before and afterwards, and is one.
fn shares(v: &Victim, flags: c_int) -> Result<()> {
    let (desk, pid) = child(flags)?;
    let kept = flags & (CLONE_FILES | CLONE_FS | CLONE_VM | CLONE_SIGHAND);
    same("shared before", kept, shared(desk)?)?;
    v.stand()?;
    same("shared", kept, shared(desk)?)?;
    same("parent", getpid(), desk.ask(PARENT)?)?;
    desk.end(pid)
}

fn descriptors(v: &Victim) -> Result<()> {
    shares(v, CLONE_FILES)
}

fn working_directory(v: &Victim) -> Result<()> {
    shares(v, CLONE_FS)
}

fn memory(v: &Victim) -> Result<()> {
    shares(v, CLONE_VM)
}

fn signal_actions(v: &Victim) -> Result<()> {
    shares(v, CLONE_VM | CLONE_SIGHAND)
}

fn all(v: &Victim) -> Result<()> {
    shares(
        v,
        CLONE_VM | CLONE_SIGHAND | CLONE_FILES | CLONE_FS | CLONE_SYSVSEM,
    )
}

fn nothing(v: &Victim) -> Result<()> {
    shares(v, 0)
}

/// A thread that serves at a desk of its own, after `before`.
fn server(before: fn()) -> Result<&'static Desk> {
    let desk = Desk::new()?;
    mem::forget(thread::spawn(move || {
        before();
        desk.also[0].store(gettid(), Ordering::SeqCst);
        desk.serve();
    }));
    let there = || desk.also[0].load(Ordering::SeqCst) != 0;
    ensure!(
        sys::until(Duration::from_secs(10), there),
        "the thread does not begin"
    );
    Ok(desk)
}

/// Two threads have a table that is not that of the others.
fn descriptors_of_threads(v: &Victim) -> Result<()> {
    static INNER: AtomicPtr<Desk> = AtomicPtr::new(ptr::null_mut());
    let numbers = NumbersThatFollow::choose();
    let outer = server(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::unshare(CLONE_FILES) };
        // The second one takes it over from the first.
        if let Ok(desk) = server(|| ()) {
            INNER.store(desk.pointer().cast(), Ordering::SeqCst);
        }
    })?;
    let third = server(|| ())?;
    drop(numbers);
    // SAFETY: the desk was stored before the first thread was there, and stays.
    let inner = unsafe { INNER.load(Ordering::SeqCst).as_ref() }.context("no second thread")?;
    let check = || -> Result<()> {
        ensure!(!shares_descriptors(outer)?, "the first shares ours");
        ensure!(!shares_descriptors(inner)?, "the second shares ours");
        ensure!(shares_descriptors(third)?, "the third does not share ours");
        let fd = outer.ask(OPEN)?;
        let next = inner.ask(OPEN)?;
        same("descriptor that the second gets", fd + 1, next)
    };
    check().context("before")?;
    v.stand()?;
    check()
}

/// Children that share with each other, and not with their parent.
fn descriptors_of_siblings(v: &Victim) -> Result<()> {
    let (elder, elder_pid) = child(CLONE_FILES | CLONE_FS)?;
    let (younger, younger_pid) = child(CLONE_FILES | CLONE_FS)?;
    let numbers = NumbersThatFollow::choose();
    // This process leaves the tables to them.
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::unshare(CLONE_FILES | CLONE_FS) })?;
    drop(numbers);
    let check = || -> Result<()> {
        ensure!(!shares_descriptors(elder)?, "the elder shares ours");
        ensure!(!shares_directory(elder)?, "the elder moves this one");
        let fd = elder.ask(OPEN)?;
        same("descriptor of the younger", fd + 1, younger.ask(OPEN)?)
    };
    check().context("before")?;
    v.stand()?;
    check()?;
    elder.end(elder_pid)?;
    younger.end(younger_pid)
}

extern "C" fn with_sibling(desk: *mut c_void) -> c_int {
    // SAFETY: it is a desk, which stays.
    let desk = unsafe { &*desk.cast::<Desk>() };
    // The sibling serves at the desk, this one waits.
    let sibling = clone(CLONE_PARENT | CLONE_VM, serve, desk);
    desk.also[0].store(sibling.unwrap_or(-1), Ordering::SeqCst);
    while desk.also[1].load(Ordering::SeqCst) == 0 {
        sys::nap(Duration::from_millis(5));
    }
    COUNTER.load(Ordering::SeqCst)
}

/// A sibling of the child, made by it, in its memory.
fn memory_of_a_sibling(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let desk = Desk::new()?;
    let elder = clone(SIGCHLD, with_sibling, desk)?;
    let there = || desk.also[0].load(Ordering::SeqCst) != 0;
    ensure!(
        sys::until(Duration::from_secs(10), there),
        "there is no sibling"
    );
    let younger = desk.also[0].load(Ordering::SeqCst);
    drop(numbers);
    let parents = |pid: i32| Task::read(pid).map(|task| task.ppid);
    same("parent before", Some(getpid()), parents(younger))?;
    same("count before", 1, desk.ask(COUNT)?)?;
    v.stand()?;
    same("parent", Some(getpid()), parents(younger))?;
    same("count", 2, desk.ask(COUNT)?)?;
    ensure!(!shares_memory(desk)?, "their memory is ours");
    desk.end(younger)?;
    desk.also[1].store(1, Ordering::SeqCst);
    let status = Process::adopt(elder).wait(Duration::from_secs(20))?;
    same("count of the elder", Some(3), status.code())
}

extern "C" fn with_own_sibling(desk: *mut c_void) -> c_int {
    // SAFETY: it is a desk, which stays.
    let desk = unsafe { &*desk.cast::<Desk>() };
    let sibling = clone(CLONE_PARENT, serve, desk);
    desk.also[0].store(sibling.unwrap_or(-1), Ordering::SeqCst);
    0
}

/// A child that another one made for its parent, and which gets the same signal at its end.
fn child_of_the_grandparent(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let desk = Desk::new()?;
    let maker = clone(SIGCHLD, with_own_sibling, desk)?;
    let status = Process::adopt(maker).wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child ended with {status}");
    let pid = desk.also[0].load(Ordering::SeqCst);
    drop(numbers);
    v.stand()?;
    same("parent", getpid(), desk.ask(PARENT)?)?;
    desk.end(pid)
}

/// Has a child with which it shares what `flags` say, and which the test checkpoints alone.
fn hold(v: &Victim, flags: c_int) -> Result<()> {
    let (desk, pid) = child(flags)?;
    fs::write(v.path("child"), pid.to_string())?;
    v.stand()?;
    desk.end(pid)
}

/// What a tree shares with a process outside is refused by name.
fn outside(b: &Bench<'_>, victim: &str, what: &str) -> Result<()> {
    let mut life = b.start(victim)?;
    let child = fs::read_to_string(b.path("child"))?;
    let parent = format!("task {} outside the tree", life.pid);
    let task = format!("task {child}");
    b.refuses(child.parse()?, &[&task, what, &parent])?;
    life.passes()
}

extern "C" fn with_grandchild(desk: *mut c_void) -> c_int {
    // SAFETY: it is a desk, which stays.
    let desk = unsafe { &*desk.cast::<Desk>() };
    let child = clone(CLONE_VM | SIGCHLD, serve, desk);
    desk.also[0].store(child.unwrap_or(-1), Ordering::SeqCst);
    0
}

/// An orphan that shares the memory of its grandparent, and has come to another process since.
fn hold_distant_memory(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let desk = Desk::new()?;
    let mut keeper = Process::fork(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
        let top = || {
            let Ok(middle) = clone(CLONE_VM | SIGCHLD, with_grandchild, desk) else {
                return 1;
            };
            if Process::adopt(middle)
                .wait(Duration::from_secs(10))
                .is_err()
            {
                return 2;
            }
            v.wait();
            0
        };
        // Neither parent nor sibling of the orphan.
        let between = Process::fork(|| match Process::fork(top) {
            Ok(mut top) => i32::from(top.wait(Duration::from_secs(60)).is_err()),
            Err(_) => 3,
        });
        let status = between.and_then(|mut between| between.wait(Duration::from_secs(60)));
        desk.asked.store(END, Ordering::SeqCst);
        let orphan = desk.also[0].load(Ordering::SeqCst);
        let orphans = Process::adopt(orphan).wait(Duration::from_secs(20));
        i32::from(status.is_err() || orphans.is_err())
    })?;
    let adopted = || {
        let orphan = desk.also[0].load(Ordering::SeqCst);
        Task::read(orphan).is_some_and(|task| task.ppid == keeper.pid)
    };
    ensure!(
        sys::until(Duration::from_secs(10), adopted),
        "the orphan was not adopted"
    );
    drop(numbers);
    v.stand()?;
    let status = keeper.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "the keeper ended with {status}");
    Ok(())
}

fn distant_memory(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("holds-distant-memory")?;
    b.refuses(life.pid, &["address space shared with distant process"])?;
    life.passes()
}
