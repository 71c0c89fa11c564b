// SPDX-License-Identifier: GPL-2.0

//! Parents that wait in vfork(2) until their child executes another program or ends.

use libc::{
    c_int,
    c_void,
    CLONE_VFORK,
    CLONE_VM,
    SIGCHLD, //
};
use selftests::prelude::*;
use selftests::sys::{
    clone,
    getpid, //
};
use selftests::{
    Counters,
    NumbersThatFollow,
    Process,
    Task, //
};
use std::ffi::CString;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    Ordering, //
};
use std::sync::Mutex;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("until-exit", until_exit),
        Case::new("until-exec", until_exec),
        Case::new("until-killed", until_killed),
        Case::new("memory-of-its-own", memory_of_its_own),
        Case::new("other-threads-go-on", other_threads_go_on),
        Case::new("signal-meanwhile", signal_meanwhile),
        Case::new("parent-is-a-child", parent_is_a_child),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("vfork")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// What parent and child have in common.
struct Common<'a> {
    v: &'a Victim,
    numbers: Mutex<Option<NumbersThatFollow>>,
    /// What the child leaves for its parent.
    left: AtomicI32,
    /// How it goes on once it is told to.
    then: fn() -> c_int,
}

extern "C" fn child(common: *mut c_void) -> c_int {
    // SAFETY: the parent waits meanwhile, and keeps what it has given.
    let common = unsafe { &*common.cast::<Common<'_>>() };
    common.numbers.lock().expect("nobody panicked").take();
    if common.v.stand().is_err() {
        return 99;
    }
    common.left.store(getpid(), Ordering::SeqCst);
    (common.then)()
}

/// Has a child that stands for the parent, and returns its number and what it left.
fn vfork(v: &Victim, flags: c_int, then: fn() -> c_int) -> Result<(i32, i32)> {
    let common = Common {
        v,
        numbers: Mutex::new(Some(NumbersThatFollow::choose())),
        left: AtomicI32::new(0),
        then,
    };
    let pid = clone(CLONE_VFORK | SIGCHLD | flags, child, &common)?;
    // In memory of its own the child has another one.
    let left = common.left.load(Ordering::SeqCst);
    drop(common);
    ensure!(v.told(), "it came back before the child went on");
    Ok((pid, left))
}

/// The child is that of the call, and ended with `status`.
fn check(pid: i32, status: i32) -> Result<()> {
    let parent = Task::read(pid).context("there is no child")?.ppid;
    same("parent", getpid(), parent)?;
    let ended = Process::adopt(pid).wait(Duration::from_secs(20))?;
    same("status", Some(status), ended.code())
}

fn until_exit(v: &Victim) -> Result<()> {
    let (pid, left) = vfork(v, CLONE_VM, || 5)?;
    same("what the child left in the memory of both", pid, left)?;
    check(pid, 5)
}

/// Executes this program, which ends at once: it does not know the argument.
fn execute() -> c_int {
    let arg = CString::new("--no-such-argument").expect("no NUL");
    let args = [arg.as_ptr(), arg.as_ptr(), ptr::null()];
    let none = [ptr::null()];
    // SAFETY: paths and arrays are valid and end.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), args.as_ptr(), none.as_ptr()) };
    98
}

fn until_exec(v: &Victim) -> Result<()> {
    let (pid, left) = vfork(v, CLONE_VM, execute)?;
    same("what the child left in the memory of both", pid, left)?;
    check(pid, 2)
}

fn until_killed(v: &Victim) -> Result<()> {
    let (pid, _) = vfork(v, CLONE_VM, || {
        // SAFETY: ends the child.
        unsafe { libc::raise(libc::SIGKILL) }
    })?;
    use std::os::unix::process::ExitStatusExt;
    let ended = Process::adopt(pid).wait(Duration::from_secs(20))?;
    same("signal", Some(libc::SIGKILL), ended.signal())
}

fn memory_of_its_own(v: &Victim) -> Result<()> {
    let (pid, left) = vfork(v, 0, || 6)?;
    same("what the child left in its memory", 0, left)?;
    check(pid, 6)
}

fn other_threads_go_on(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let counters = Counters::start(1);
    counters.all_go_on()?;
    drop(numbers);
    let (pid, _) = vfork(v, 0, || 7)?;
    counters.all_go_on()?;
    counters.end()?;
    check(pid, 7)
}

static SIGNALS: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

/// What the parent gets while it waits reaches it afterwards.
fn signal_meanwhile(v: &Victim) -> Result<()> {
    sys::handle(libc::SIGUSR1, count, libc::SA_RESTART)?;
    let numbers = NumbersThatFollow::choose();
    let parent = getpid();
    let mut sender = Process::fork(|| {
        let waits = || Task::read(parent).is_some_and(|task| task.state == 'D');
        let seen = sys::until(Duration::from_secs(10), waits);
        i32::from(!seen || sys::kill(parent, libc::SIGUSR1).is_err())
    })?;
    drop(numbers);
    let (pid, _) = vfork(v, 0, || {
        if SIGNALS.load(Ordering::SeqCst) == 0 {
            8
        } else {
            1
        }
    })?;
    same("signals", 1, SIGNALS.load(Ordering::SeqCst))?;
    let status = sender.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the sender ended with {status}");
    check(pid, 8)
}

fn parent_is_a_child(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut middle = Process::fork(|| {
        let result = vfork(v, CLONE_VM, || 4).and_then(|(pid, left)| {
            same("what the child left", pid, left)?;
            check(pid, 4)
        });
        match result {
            Ok(()) => 0,
            Err(e) => {
                eprintln!("{e:#}");
                1
            }
        }
    })?;
    drop(numbers);
    v.wait();
    let status = middle.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child ended with {status}");
    Ok(())
}
