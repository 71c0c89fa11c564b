// SPDX-License-Identifier: GPL-2.0

//! What has ended and is still waited for: zombies, and leaders that ended before their threads.

use selftests::prelude::*;
use selftests::sys::{
    cvt,
    getpid,
    gettid,
    handle,
    kill,
    pipe,
    read,
    write, //
};
use selftests::{
    NumbersThatFollow,
    Process,
    Task, //
};
use std::fs;
use std::mem;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::process::CommandExt;
use std::process::{
    Command,
    ExitCode, //
};
use std::ptr;
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("exited", exited),
        Case::new("killed", killed),
        Case::new("with-threads", with_threads),
        Case::new("told-once", told_once),
        Case::new("pending", pending),
        Case::new("before-they-were-ignored", before_they_were_ignored),
        Case::new("another-signal", another_signal),
        Case::new("of-a-child", of_a_child),
        Case::new("leader-ended", leader_ended),
        Case::new("leader-ended-with-child", leader_ended_with_child),
        Case::new("root-leader-ended", root_leader_ended),
        Case::new("exec-by-thread", exec_by_thread),
    ],
    victims: &[Case::new("after-exec", after_exec).no_control()],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("zombie")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Ends the calling thread alone.
fn end_thread(status: i32) -> ! {
    // SAFETY: ends the thread, whose stack stays.
    unsafe { libc::syscall(libc::SYS_exit, status) };
    unreachable!("exit returned")
}

/// Ends the process.
fn end_process(status: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// waitid(2): signal, code, status and number of what there is, `None` for nothing.
fn wait_id(pid: i32, options: i32) -> Result<Option<[i32; 4]>> {
    // SAFETY: all zeroes is a siginfo, valid for writing.
    let info = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        cvt(libc::waitid(
            libc::P_PID,
            pid as libc::id_t,
            &mut info,
            options,
        ))?;
        info
    };
    // SAFETY: the fields are those of a child's siginfo, or zero.
    let (found, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((found != 0).then_some([info.si_signo, info.si_code, status, found]))
}

/// Waits until `pid` is a zombie.
fn becomes_zombie(pid: i32) -> Result<()> {
    let is_zombie = || Task::read(pid).is_some_and(|task| task.state == 'Z');
    ensure!(
        sys::until(Duration::from_secs(10), is_zombie),
        "process {pid} is no zombie: {:?}",
        Task::read(pid)
    );
    Ok(())
}

/// A zombie that ended as `end` does.
fn zombie(end: impl FnOnce() -> i32) -> Result<i32> {
    let _numbers = NumbersThatFollow::choose();
    let child = Process::fork(end)?;
    let pid = child.pid;
    // It is waited for by number.
    mem::forget(child);
    wait_id(pid, libc::WEXITED | libc::WNOWAIT)?;
    Ok(pid)
}

/// A zombie has this code and status, once.
fn check(pid: i32, code: i32, status: i32) -> Result<()> {
    becomes_zombie(pid)?;
    let expected = Some([libc::SIGCHLD, code, status, pid]);
    let peek = wait_id(pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT)?;
    same("what is to be seen", expected, peek)?;
    let taken = wait_id(pid, libc::WEXITED | libc::WNOHANG)?;
    same("what there is", expected, taken)?;
    ensure!(
        Task::read(pid).is_none(),
        "process {pid} was not reaped: {:?}",
        Task::read(pid)
    );
    Ok(())
}

fn exited(v: &Victim) -> Result<()> {
    let pid = zombie(|| {
        // SAFETY: the name is a C string.
        unsafe { libc::prctl(libc::PR_SET_NAME, c"the late".as_ptr()) };
        42
    })?;
    v.stand()?;
    let task = Task::read(pid).context("no zombie")?;
    same("name", "the late", &task.comm)?;
    same("parent", getpid(), task.ppid)?;
    check(pid, libc::CLD_EXITED, 42)
}

fn killed(v: &Victim) -> Result<()> {
    let pid = zombie(|| {
        // SAFETY: ends the child.
        unsafe { libc::raise(libc::SIGKILL) }
    })?;
    v.stand()?;
    check(pid, libc::CLD_KILLED, libc::SIGKILL)
}

/// The last of its threads decides how a process has ended.
fn with_threads(v: &Victim) -> Result<()> {
    let pid = zombie(|| {
        let thread = thread::spawn(|| {
            sys::nap(Duration::from_millis(50));
            end_thread(7)
        });
        mem::forget(thread);
        end_thread(1)
    })?;
    v.stand()?;
    check(pid, libc::CLD_EXITED, 7)
}

static TOLD: AtomicU32 = AtomicU32::new(0);

extern "C" fn told(_: i32) {
    TOLD.fetch_add(1, Ordering::SeqCst);
}

fn told_once(v: &Victim) -> Result<()> {
    handle(libc::SIGCHLD, told, libc::SA_RESTART)?;
    let pid = zombie(|| 5)?;
    same("signals before", 1, TOLD.load(Ordering::SeqCst))?;
    v.stand()?;
    check(pid, libc::CLD_EXITED, 5)?;
    same("signals", 1, TOLD.load(Ordering::SeqCst))
}

/// The signal waits to be let in, with all that it carries.
fn pending(v: &Victim) -> Result<()> {
    sys::mask(libc::SIG_BLOCK, &[libc::SIGCHLD])?;
    let pid = zombie(|| 9)?;
    v.stand()?;
    let set = sys::sigset(&[libc::SIGCHLD]);
    let now = sys::timespec(Duration::ZERO);
    // SAFETY: all zeroes is a siginfo; all pointers are valid.
    let info = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        cvt(libc::sigtimedwait(&set, &mut info, &now)).context("no signal is pending")?;
        info
    };
    // SAFETY: it is a child's siginfo.
    let (who, status) = unsafe { (info.si_pid(), info.si_status()) };
    same("signal of", (pid, 9), (who, status))?;
    // SAFETY: as above.
    let again = cvt(unsafe { libc::sigtimedwait(&set, ptr::null_mut(), &now) });
    ensure!(
        sys::fails_with(again, libc::EAGAIN),
        "a second signal is pending"
    );
    check(pid, libc::CLD_EXITED, 9)
}

/// Whose parent says that it will not wait was there before is waited for all the same.
fn before_they_were_ignored(v: &Victim) -> Result<()> {
    let pid = zombie(|| 3)?;
    // SAFETY: ignoring a signal involves no memory.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    v.stand()?;
    check(pid, libc::CLD_EXITED, 3)
}

/// A child of clone(2) with a signal of its own, for which only __WCLONE waits.
fn another_signal(v: &Victim) -> Result<()> {
    handle(libc::SIGUSR1, told, libc::SA_RESTART)?;
    let numbers = NumbersThatFollow::choose();
    // SAFETY: as fork(2), with another signal.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGUSR1, 0, 0, 0, 0) as i32 };
    if cvt(pid)? == 0 {
        end_process(6);
    }
    becomes_zombie(pid)?;
    drop(numbers);
    v.stand()?;
    same("signals", 1, TOLD.load(Ordering::SeqCst))?;
    let other = wait_id(pid, libc::WEXITED | libc::WNOHANG);
    ensure!(other.is_err(), "it is an ordinary child now: {other:?}");
    let found = wait_id(pid, libc::WEXITED | libc::WNOHANG | libc::__WCLONE)?;
    same("status", Some(6), found.map(|[_, _, status, _]| status))
}

/// A zombie whose parent is not the root, and several at once.
fn of_a_child(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let (ready, set_up) = pipe(0)?;
    let mut child = Process::fork(|| {
        let all: Result<Vec<i32>> = (0..10).map(|status| zombie(|| status)).collect();
        let Ok(all) = all else {
            return 1;
        };
        let _ = write(&set_up, b"x");
        v.wait();
        for (status, pid) in (0..).zip(all) {
            if let Err(e) = check(pid, libc::CLD_EXITED, status) {
                eprintln!("{e:#}");
                return 2;
            }
        }
        0
    })?;
    // Each of its own takes a turn.
    drop(numbers);
    same("set up", 1, read(&ready, &mut [0])?)?;
    v.stand()?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child ended with {status}");
    Ok(())
}

/// A process whose leader has ended and whose other thread answers bytes, and ends with 9.
struct Headless {
    pid: i32,
    to: OwnedFd,
    from: OwnedFd,
}

impl Headless {
    fn fork(also: fn()) -> Result<Self> {
        let (input, to) = pipe(0)?;
        let (from, output) = pipe(0)?;
        let close = to.as_raw_fd();
        let child = Process::fork(|| {
            // SAFETY: the child does not use this end.
            unsafe { libc::close(close) };
            let thread = thread::spawn(move || {
                also();
                let mut byte = [0];
                while let Ok(1) = read(&input, &mut byte) {
                    byte[0] += 1;
                    let _ = write(&output, &byte);
                }
                end_process(9)
            });
            mem::forget(thread);
            end_thread(4)
        })?;
        let pid = child.pid;
        mem::forget(child);
        let headless = Self { pid, to, from };
        headless.answers(1)?;
        becomes_zombie(pid)?;
        Ok(headless)
    }

    fn answers(&self, byte: u8) -> Result<()> {
        sys::answers(&self.to, &self.from, byte)
    }

    fn end(self) -> Result<()> {
        becomes_zombie(self.pid)?;
        let early = wait_id(self.pid, libc::WEXITED | libc::WNOHANG)?;
        same("status while a thread goes on", None, early)?;
        drop(self.to);
        let ended = || wait_id(self.pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT);
        ensure!(
            sys::until(Duration::from_secs(10), || !matches!(ended(), Ok(None))),
            "the process does not end"
        );
        check(self.pid, libc::CLD_EXITED, 9)
    }
}

fn leader_ended(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let headless = Headless::fork(|| ())?;
    drop(numbers);
    v.stand()?;
    headless.answers(50)?;
    headless.end()
}

/// The thread that goes on has a child that gets a signal at its end.
fn leader_ended_with_child(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let headless = Headless::fork(|| {
        let child = Process::fork(|| {
            // SAFETY: no memory is involved.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause()
            }
        });
        mem::forget(child);
    })?;
    drop(numbers);
    // Whether one runs is a matter of the moment.
    let children = || -> Result<Vec<(i32, String)>> {
        let children = selftests::children(headless.pid)?.into_iter();
        Ok(children.map(|task| (task.pid, task.comm)).collect())
    };
    let before = children()?;
    same("number of its children", 1, before.len())?;
    v.stand()?;
    same("its children", before.clone(), children()?)?;
    headless.answers(7)?;
    headless.end()?;
    let pid = before[0].0;
    let gone = || Task::read(pid).is_none_or(|task| task.state == 'Z');
    ensure!(
        sys::until(Duration::from_secs(10), gone),
        "the child outlives the thread: {:?}",
        Task::read(pid)
    );
    Ok(())
}

/// The leader of the root has ended. Its other thread says how the case ended.
fn root_leader_ended(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let rest = move || {
        becomes_zombie(getpid())?;
        drop(numbers);
        v.stand()?;
        becomes_zombie(getpid())?;
        ensure!(gettid() != getpid(), "the thread leads the process");
        Ok(())
    };
    thread::scope(|scope| {
        scope.spawn(|| -> () { v.end(rest()) });
        end_thread(0)
    })
}

/// A thread that does not lead takes over the number of its process by execve(2).
fn exec_by_thread(v: &Victim) -> Result<()> {
    let dir = v.path("");
    let thread = thread::spawn(move || -> Result<()> {
        ensure!(gettid() != getpid(), "it is the leader");
        let error = Command::new("/proc/self/exe")
            .args(["--victim", "after-exec"])
            .arg(dir)
            .exec();
        Err(error.into())
    });
    thread.join().expect("the thread panicked")
}

fn after_exec(v: &Victim) -> Result<()> {
    let check = || -> Result<()> {
        same("number of the thread", getpid(), gettid())?;
        let threads = fs::read_dir("/proc/self/task")?.count();
        same("number of threads", 1, threads)?;
        kill(getpid(), 0)?;
        Ok(())
    };
    check()?;
    v.stand()?;
    check()
}
