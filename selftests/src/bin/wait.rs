// SPDX-License-Identifier: GPL-2.0

//! System calls that wait for something to happen. A checkpoint may end them with EINTR if, and only
//! if, SIGSTOP and SIGCONT do, which is what happens to the victims in the mode `control`.

use libc::{
    SIGUSR1,
    SIGUSR2, //
};
use selftests::prelude::*;
use selftests::sys::{
    clock,
    cvt,
    getpid,
    gettid,
    handle,
    sigset, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    AtomicU32,
    Ordering, //
};
use std::thread;

/// The checkpoint comes when the call has begun.
const BEGUN: u64 = 200;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("wait4", wait4).settle(BEGUN),
        Case::new("waitid", waitid).settle(BEGUN),
        Case::new("wait-for-any", wait_for_any).settle(BEGUN),
        Case::new("pause", pause).settle(BEGUN).wake(SIGUSR1),
        Case::new("sigsuspend", sigsuspend)
            .settle(BEGUN)
            .wake(SIGUSR1),
        Case::new("sigwaitinfo", sigwaitinfo).settle(BEGUN),
        Case::new("sigtimedwait", sigtimedwait).settle(BEGUN),
        Case::new("futex-waitv", futex_waitv).settle(BEGUN),
        Case::new("futex-lock-pi", futex_lock_pi).settle(BEGUN),
    ],
    refusals: &[Refusal::new("cpu-clock", cpu_clock, &["timer of its own"])],
    // The numbers that follow are those of one victim.
    jobs: 1,
    stops: true,
    ..Suite::new("wait")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A child that ends with 3 when it is told to.
fn child(v: &Victim) -> Result<i32> {
    let _numbers = NumbersThatFollow::choose();
    let child = Process::fork(|| {
        v.wait();
        3
    })?;
    let pid = child.pid;
    mem::forget(child);
    Ok(pid)
}

fn wait4(v: &Victim) -> Result<()> {
    let pid = child(v)?;
    let mut status = 0;
    v.ready()?;
    // SAFETY: the status is valid for writing.
    let found = cvt(unsafe { libc::wait4(pid, &mut status, 0, ptr::null_mut()) })?;
    same("child and status", (pid, 3 << 8), (found, status))
}

fn wait_for_any(v: &Victim) -> Result<()> {
    let pids = [child(v)?, child(v)?];
    let mut found = [0; 2];
    v.ready()?;
    for pid in &mut found {
        // SAFETY: no status is asked for.
        *pid = cvt(unsafe { libc::waitpid(-1, ptr::null_mut(), 0) })?;
    }
    found.sort();
    same("children", pids, found)
}

fn waitid(v: &Victim) -> Result<()> {
    let pid = child(v)?;
    v.ready()?;
    // SAFETY: all zeroes is a siginfo, valid for writing.
    let info = unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        cvt(libc::waitid(
            libc::P_ALL,
            0,
            &mut info,
            libc::WEXITED | libc::WSTOPPED,
        ))?;
        info
    };
    // SAFETY: it is a child's siginfo.
    let (found, status) = unsafe { (info.si_pid(), info.si_status()) };
    same("child and status", (pid, 3), (found, status))
}

static HANDLED: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// A call ends with EINTR because the handler of SIGUSR1 has run, and not before.
fn until_handled(v: &Victim, call: impl FnOnce() -> libc::c_int) -> Result<()> {
    handle(SIGUSR1, count, libc::SA_RESTART)?;
    v.ready()?;
    let result = cvt(call());
    let handled = HANDLED.load(Ordering::SeqCst);
    ensure!(
        sys::fails_with(result, libc::EINTR),
        "the call did not end with EINTR"
    );
    same("signals when it ended", 1, handled)?;
    v.wait();
    Ok(())
}

fn pause(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    until_handled(v, || unsafe { libc::pause() })
}

/// The signal is blocked but for the call.
fn sigsuspend(v: &Victim) -> Result<()> {
    sys::mask(libc::SIG_BLOCK, &[SIGUSR1])?;
    let open = sigset(&[SIGUSR2]);
    // SAFETY: the set is valid.
    until_handled(v, || unsafe { libc::sigsuspend(&open) })?;
    same("mask", vec![SIGUSR1], sys::mask(libc::SIG_BLOCK, &[])?)
}

/// Both end with EINTR when they are disturbed, and nothing is taken from the queue.
fn disturbed(v: &Victim, call: impl FnOnce(&libc::sigset_t) -> libc::c_int) -> Result<()> {
    sys::mask(libc::SIG_BLOCK, &[SIGUSR1])?;
    let set = sigset(&[SIGUSR1]);
    v.ready()?;
    let result = cvt(call(&set));
    ensure!(
        sys::fails_with(result, libc::EINTR),
        "the call did not end with EINTR"
    );
    v.wait();
    sys::kill(getpid(), SIGUSR1)?;
    // SAFETY: the set is valid; no siginfo is asked for.
    let signal = cvt(unsafe { libc::sigwaitinfo(&set, ptr::null_mut()) })?;
    same("signal", SIGUSR1, signal)?;
    same("mask", vec![SIGUSR1], sys::mask(libc::SIG_BLOCK, &[])?)
}

fn sigwaitinfo(v: &Victim) -> Result<()> {
    disturbed(v, |set| {
        // SAFETY: the set is valid; no siginfo is asked for. Not the library's function, which does
        // not come back with EINTR.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                ptr::from_ref(set),
                ptr::null::<libc::siginfo_t>(),
                ptr::null::<libc::timespec>(),
                8,
            ) as libc::c_int
        }
    })
}

fn sigtimedwait(v: &Victim) -> Result<()> {
    let hour = sys::timespec(Duration::from_secs(3600));
    disturbed(v, |set| {
        // SAFETY: the pointers are valid; no siginfo is asked for.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigtimedwait,
                ptr::from_ref(set),
                ptr::null::<libc::siginfo_t>(),
                &hour,
                8,
            ) as libc::c_int
        }
    })
}

/// struct futex_waitv.
#[repr(C)]
struct Waitv {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// FUTEX2_SIZE_U32 | FUTEX2_PRIVATE.
const PRIVATE_WORD: u32 = 0x82;

/// It waits for either of two words, up to a point in time.
fn futex_waitv(v: &Victim) -> Result<()> {
    let words = [AtomicU32::new(1), AtomicU32::new(2)];
    let waiters = [(0, 1), (1, 2)].map(|(word, value)| Waitv {
        value,
        address: words[word].as_ptr() as u64,
        flags: PRIVATE_WORD,
        reserved: 0,
    });
    let deadline = clock(libc::CLOCK_MONOTONIC)? + Duration::from_millis(1500);
    let end = sys::timespec(deadline);
    v.ready()?;
    // SAFETY: the words and the time are valid.
    let result = cvt(unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            waiters.len(),
            0,
            &end,
            libc::CLOCK_MONOTONIC,
        )
    });
    let woke = clock(libc::CLOCK_MONOTONIC)?;
    let Err(error) = result else {
        bail!("somebody woke it");
    };
    match error.raw_os_error() {
        Some(libc::ENOSYS) => return skip("no futex_waitv"),
        Some(libc::ETIMEDOUT) => {}
        _ => return Err(error).context("futex_waitv"),
    }
    ensure!(woke >= deadline, "woke at {woke:?}, before {deadline:?}");
    v.wait();
    Ok(())
}

/// futex(2) with a word alone, and no time-out.
fn futex(word: &AtomicU32, op: i32) -> std::io::Result<i64> {
    // SAFETY: the word is valid.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            op | libc::FUTEX_PRIVATE_FLAG,
            0,
            ptr::null::<libc::timespec>(),
        )
    })
}

/// A thread that takes `lock`, and gives it up when it is told to.
fn holder<'s>(
    scope: &'s thread::Scope<'s, '_>,
    v: &'s Victim,
    lock: &'s AtomicU32,
) -> Result<thread::ScopedJoinHandle<'s, Result<()>>> {
    let numbers = NumbersThatFollow::choose();
    let thread = scope.spawn(move || {
        futex(lock, libc::FUTEX_LOCK_PI)?;
        v.wait();
        sys::nap(Duration::from_millis(20));
        futex(lock, libc::FUTEX_UNLOCK_PI)?;
        Ok(())
    });
    let taken = || lock.load(Ordering::SeqCst) != 0;
    ensure!(
        sys::until(Duration::from_secs(10), taken),
        "the lock is not taken"
    );
    drop(numbers);
    Ok(thread)
}

/// It waits for a lock that another thread has.
fn futex_lock_pi(v: &Victim) -> Result<()> {
    let lock = AtomicU32::new(0);
    thread::scope(|scope| {
        let thread = holder(scope, v, &lock)?;
        v.ready()?;
        futex(&lock, libc::FUTEX_LOCK_PI)?;
        let owner = lock.load(Ordering::SeqCst) & libc::FUTEX_TID_MASK;
        same("owner", gettid() as u32, owner)?;
        ensure!(v.told(), "it got the lock before it was given up");
        thread.join().expect("the thread panicked")?;
        futex(&lock, libc::FUTEX_UNLOCK_PI)?;
        Ok(())
    })
}

/// A sleep that lasts as long as its own thread does not run is cut short by a signal only.
fn cpu_clock(v: &Victim) -> Result<()> {
    handle(SIGUSR1, count, 0)?;
    let sender = getpid();
    let mut child = Process::fork(|| {
        v.wait();
        i32::from(sys::kill(sender, SIGUSR1).is_err())
    })?;
    let hour = sys::timespec(Duration::from_secs(3600));
    v.ready()?;
    // SAFETY: the request is valid.
    let error =
        unsafe { libc::clock_nanosleep(libc::CLOCK_PROCESS_CPUTIME_ID, 0, &hour, ptr::null_mut()) };
    same("error of clock_nanosleep", libc::EINTR, error)?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child ended with {status}");
    Ok(())
}
