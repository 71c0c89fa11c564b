// SPDX-License-Identifier: GPL-2.0

//! Signal actions, masks, alternate stacks, pending signals and handlers that are running.

use libc::{
    SIGRTMAX,
    SIGRTMIN,
    SIGTERM,
    SIGUSR1,
    SIGUSR2,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK, //
};
use selftests::prelude::*;
use selftests::sys::{
    handle,
    mask,
    sigset, //
};
use std::mem;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicI32,
    AtomicPtr,
    AtomicU64,
    AtomicUsize,
    Ordering, //
};

const SUITE: Suite = Suite {
    cases: &[
        Case::new("actions", actions),
        Case::new("handler-runs", handler_runs),
        Case::new("ignored", ignored),
        Case::new("reset-hand", reset_hand),
        Case::new("mask", masked),
        Case::new("altstack", altstack),
        Case::new("pending-private", pending_private),
        Case::new("pending-shared", pending_shared),
        Case::new("pending-realtime", pending_realtime),
        Case::new("pending-both", pending_both),
        Case::new("pending-fatal", pending_fatal),
        Case::new("inside-handler", inside_handler),
        Case::new("inside-handler-on-altstack", inside_handler_on_altstack),
        Case::new("sigsuspend", sigsuspend)
            .settle(100)
            .wake(SIGUSR1),
        Case::new("pause", pause).settle(100).wake(SIGUSR1),
    ],
    ..Suite::new("signals")
};

fn main() -> ExitCode {
    SUITE.main()
}

static COUNT: AtomicI32 = AtomicI32::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);

extern "C" fn count(signal: i32) {
    COUNT.fetch_add(1, Ordering::Relaxed);
    LAST.store(signal, Ordering::Relaxed);
}

/// struct sigaction of the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// The action as the kernel has it, not as the library shows it.
fn action(signal: i32) -> Result<Action> {
    let mut action = Action::default();
    // SAFETY: `action` has the layout of the kernel, with a mask of 8 bytes.
    sys::cvt(unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            ptr::null::<Action>(),
            &mut action,
            8,
        )
    })?;
    Ok(action)
}

/// Installs `count` for `signal`.
fn install(signal: i32, flags: i32, masked: &[i32]) -> Result<()> {
    // SAFETY: all zeroes is a sigaction; `count` is async-signal-safe.
    unsafe {
        let mut new: libc::sigaction = mem::zeroed();
        new.sa_sigaction = count as extern "C" fn(i32) as usize;
        new.sa_flags = flags;
        new.sa_mask = sigset(masked);
        sys::cvt(libc::sigaction(signal, &new, ptr::null_mut()))?;
    }
    Ok(())
}

fn raise(signal: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    Ok(sys::cvt(unsafe { libc::raise(signal) }).map(drop)?)
}

fn actions(v: &Victim) -> Result<()> {
    install(SIGUSR1, libc::SA_RESTART, &[libc::SIGALRM, SIGRTMAX()])?;
    install(SIGUSR2, libc::SA_NODEFER | libc::SA_ONSTACK, &[])?;
    install(
        SIGTERM,
        libc::SA_RESETHAND | libc::SA_SIGINFO,
        &[libc::SIGHUP],
    )?;
    install(SIGRTMIN() + 3, libc::SA_RESTART, &[SIGRTMIN()])?;
    install(SIGRTMAX(), 0, &[libc::SIGCHLD])?;
    install(libc::SIGCHLD, libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT, &[])?;
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    let all = || (1..=64).map(action).collect::<Result<Vec<_>>>();
    let before = all()?;
    let distinct = before.iter().filter(|a| **a != Action::default()).count();
    ensure!(distinct >= 7, "only {distinct} actions were installed");
    v.stand()?;
    for (signal, (before, now)) in (1..).zip(before.into_iter().zip(all()?)) {
        same(&format!("action of signal {signal}"), before, now)?;
    }
    Ok(())
}

fn handler_runs(v: &Victim) -> Result<()> {
    install(SIGUSR1, 0, &[SIGUSR2])?;
    install(SIGRTMIN() + 5, 0, &[])?;
    v.stand()?;
    for (i, signal) in [SIGUSR1, SIGRTMIN() + 5, SIGUSR1].into_iter().enumerate() {
        raise(signal)?;
        same(
            "signals handled",
            i as i32 + 1,
            COUNT.load(Ordering::Relaxed),
        )?;
        same("last signal", signal, LAST.load(Ordering::Relaxed))?;
    }
    Ok(())
}

fn ignored(v: &Victim) -> Result<()> {
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(SIGTERM, libc::SIG_IGN) };
    v.stand()?;
    // Ends the victim if it is no longer ignored.
    raise(SIGTERM)
}

/// A handler for one time only.
fn reset_hand(v: &Victim) -> Result<()> {
    install(SIGUSR1, libc::SA_RESETHAND, &[])?;
    v.stand()?;
    raise(SIGUSR1)?;
    same("signals handled", 1, COUNT.load(Ordering::Relaxed))?;
    same("action afterwards", libc::SIG_DFL, action(SIGUSR1)?.handler)
}

fn masked(v: &Victim) -> Result<()> {
    let set = [libc::SIGHUP, SIGUSR2, libc::SIGCHLD, SIGRTMIN() + 1, 64];
    mask(SIG_SETMASK, &set)?;
    let before = mask(SIG_BLOCK, &[])?;
    same("mask before", set.to_vec(), before.clone())?;
    v.stand()?;
    same("mask", before, mask(SIG_BLOCK, &[])?)?;
    install(SIGUSR2, 0, &[])?;
    raise(SIGUSR2)?;
    same("handled while blocked", 0, COUNT.load(Ordering::Relaxed))?;
    mask(SIG_UNBLOCK, &[SIGUSR2])?;
    same("handled when unblocked", 1, COUNT.load(Ordering::Relaxed))
}

static PLACE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note_stack(_: i32) {
    let here = 0u8;
    PLACE.store(ptr::from_ref(&here) as usize, Ordering::Relaxed);
}

/// Makes `stack` the alternate stack and returns what the kernel says about it.
fn set_altstack(stack: &mut [u8]) -> Result<()> {
    let new = libc::stack_t {
        ss_sp: stack.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: stack.len(),
    };
    // SAFETY: the stack outlives its use, the victim keeps it.
    sys::cvt(unsafe { libc::sigaltstack(&new, ptr::null_mut()) })?;
    Ok(())
}

fn get_altstack() -> Result<(usize, i32, usize)> {
    // SAFETY: all zeroes is a stack_t, which is valid for writing.
    unsafe {
        let mut now: libc::stack_t = mem::zeroed();
        sys::cvt(libc::sigaltstack(ptr::null(), &mut now))?;
        Ok((now.ss_sp as usize, now.ss_flags, now.ss_size))
    }
}

fn altstack(v: &Victim) -> Result<()> {
    let mut stack = vec![0u8; 128 * 1024];
    set_altstack(&mut stack)?;
    handle(SIGUSR1, note_stack, libc::SA_ONSTACK)?;
    let before = get_altstack()?;
    v.stand()?;
    same("alternate stack", before, get_altstack()?)?;
    raise(SIGUSR1)?;
    let place = PLACE.load(Ordering::Relaxed);
    ensure!(
        stack.as_ptr_range().contains(&(place as *const u8)),
        "the handler ran at {place:#x}"
    );
    Ok(())
}

/// A pending signal as sigtimedwait(2) hands it out.
#[derive(Debug, PartialEq, Eq)]
struct Pending {
    signal: i32,
    code: i32,
    pid: i32,
    uid: u32,
    value: usize,
}

/// Takes the next pending signal of `set`.
fn take(set: &[i32]) -> Result<Option<Pending>> {
    let zero = sys::timespec(Duration::ZERO);
    // SAFETY: the info is valid for writing, and its fields belong to signals sent by processes.
    unsafe {
        let mut info: libc::siginfo_t = mem::zeroed();
        // Not by the library, which makes SI_USER of SI_TKILL.
        let (set, nr) = (sigset(set), libc::SYS_rt_sigtimedwait);
        match sys::cvt(libc::syscall(nr, &set, &mut info, &zero, 8)) {
            Ok(signal) => Ok(Some(Pending {
                signal: signal as i32,
                code: info.si_code,
                pid: info.si_pid(),
                uid: info.si_uid(),
                value: info.si_value().sival_ptr as usize,
            })),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

fn me() -> (i32, u32) {
    // SAFETY: no memory is involved.
    unsafe { (libc::getpid(), libc::getuid()) }
}

/// siginfo of the kernel for a signal with a value.
#[repr(C)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: i32,
    uid: u32,
    value: usize,
    rest: [u64; 12],
}

/// Queues `signal` with a value, for the thread or for the process.
fn queue(signal: i32, value: usize, thread: bool) -> Result<()> {
    let (pid, uid) = me();
    let code = libc::SI_QUEUE;
    let info = Info {
        signal,
        errno: 0,
        code,
        pad: 0,
        pid,
        uid,
        value,
        rest: [0; 12],
    };
    // SAFETY: `info` has the layout and the size of siginfo.
    sys::cvt(unsafe {
        if thread {
            libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, pid, signal, &info)
        } else {
            libc::syscall(libc::SYS_rt_sigqueueinfo, pid, signal, &info)
        }
    })?;
    Ok(())
}

/// Requires exactly these pending signals, in this order.
fn drain(set: &[i32], expected: Vec<Pending>) -> Result<()> {
    let mut taken = Vec::new();
    while let Some(pending) = take(set)? {
        taken.push(pending);
    }
    for (i, (want, is)) in expected.iter().zip(&taken).enumerate() {
        same(&format!("pending signal {i}"), want, is)?;
    }
    same("number of pending signals", expected.len(), taken.len())
}

fn queued(signal: i32, value: usize) -> Pending {
    let (pid, uid) = me();
    Pending {
        signal,
        code: libc::SI_QUEUE,
        pid,
        uid,
        value,
    }
}

fn pending_private(v: &Victim) -> Result<()> {
    let set = [SIGUSR1, SIGUSR2];
    mask(SIG_BLOCK, &set)?;
    queue(SIGUSR2, 0xdead_0000_beef, true)?;
    let (pid, uid) = me();
    // SAFETY: no memory is involved.
    sys::cvt(unsafe { libc::syscall(libc::SYS_tgkill, pid, pid, SIGUSR1) })?;
    v.stand()?;
    // The value overlaps nothing of a signal sent by tgkill, which leaves it zero.
    let first = Pending {
        signal: SIGUSR1,
        code: libc::SI_TKILL,
        pid,
        uid,
        value: 0,
    };
    drain(&set, vec![first, queued(SIGUSR2, 0xdead_0000_beef)])
}

fn pending_shared(v: &Victim) -> Result<()> {
    let set = [SIGUSR1, SIGTERM];
    mask(SIG_BLOCK, &set)?;
    let (pid, uid) = me();
    for signal in [SIGTERM, SIGUSR1, SIGTERM] {
        sys::kill(pid, signal)?;
    }
    v.stand()?;
    let user = |signal| Pending {
        signal,
        code: libc::SI_USER,
        pid,
        uid,
        value: 0,
    };
    drain(&set, vec![user(SIGUSR1), user(SIGTERM)])
}

/// Real-time signals are queued, not merged, and keep their order.
fn pending_realtime(v: &Victim) -> Result<()> {
    let (low, high) = (SIGRTMIN() + 2, SIGRTMIN() + 9);
    mask(SIG_BLOCK, &[low, high])?;
    for (signal, value) in [(high, 1), (low, 2), (high, 3), (low, 4), (low, 5)] {
        queue(signal, value, false)?;
    }
    v.stand()?;
    let order = [(low, 2), (low, 4), (low, 5), (high, 1), (high, 3)];
    drain(
        &[low, high],
        order.map(|(signal, value)| queued(signal, value)).into(),
    )
}

/// What was sent to the thread comes before what was sent to the process, and stays with it.
fn pending_both(v: &Victim) -> Result<()> {
    let signal = SIGRTMIN() + 4;
    mask(SIG_BLOCK, &[signal])?;
    queue(signal, 1, false)?;
    queue(signal, 2, true)?;
    queue(signal, 3, false)?;
    queue(signal, 4, true)?;
    let pending = || -> Result<Vec<String>> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let wanted = |l: &&str| l.starts_with("SigPnd") || l.starts_with("ShdPnd");
        Ok(status.lines().filter(wanted).map(str::to_owned).collect())
    };
    let before = pending()?;
    v.stand()?;
    same("pending sets", before, pending()?)?;
    drain(
        &[signal],
        [2, 4, 1, 3].map(|value| queued(signal, value)).into(),
    )
}

/// A blocked signal that would end the victim does so once unblocked, not earlier.
fn pending_fatal(v: &Victim) -> Result<()> {
    mask(SIG_BLOCK, &[SIGTERM])?;
    v.ready()?;
    sys::kill(me().0, SIGTERM)?;
    v.wait();
    let status = sys::forked(|| {
        // Pending signals are not inherited: the child sends its own.
        let _ = sys::kill(me().0, SIGTERM);
        let _ = mask(SIG_UNBLOCK, &[SIGTERM]);
        0
    })?;
    same(
        "signal that ended the child",
        SIGTERM,
        libc::WTERMSIG(status),
    )?;
    let (pid, uid) = me();
    let expected = Pending {
        signal: SIGTERM,
        code: libc::SI_USER,
        pid,
        uid,
        value: 0,
    };
    drain(&[SIGTERM], vec![expected])
}

static VICTIM: AtomicPtr<Victim> = AtomicPtr::new(ptr::null_mut());
static IN_HANDLER: AtomicU64 = AtomicU64::new(0);

extern "C" fn stand_in_handler(_: i32) {
    // SAFETY: set by `stands_in_handler` before the signal is raised.
    let victim = unsafe { &*VICTIM.load(Ordering::Relaxed) };
    let inside = mask(SIG_BLOCK, &[]).unwrap_or_default();
    let stood = victim.stand().is_ok();
    let right = stood && inside == mask(SIG_BLOCK, &[]).unwrap_or_default() && inside.len() == 2;
    note_stack(0);
    IN_HANDLER.store(if right { 1 } else { 2 }, Ordering::Relaxed);
}

/// The checkpoint comes while a handler runs: its frame is on the stack, and leads back.
fn stands_in_handler(v: &Victim, flags: i32) -> Result<()> {
    VICTIM.store(ptr::from_ref(v).cast_mut(), Ordering::Relaxed);
    // SAFETY: all zeroes is a sigaction; the victim has one thread, which waits in raise.
    unsafe {
        let mut new: libc::sigaction = mem::zeroed();
        new.sa_sigaction = stand_in_handler as extern "C" fn(i32) as usize;
        new.sa_flags = flags;
        new.sa_mask = sigset(&[SIGUSR2]);
        sys::cvt(libc::sigaction(SIGUSR1, &new, ptr::null_mut()))?;
    }
    let before = mask(SIG_BLOCK, &[])?;
    raise(SIGUSR1)?;
    same(
        "handler came to its end with the right mask",
        1,
        IN_HANDLER.load(Ordering::Relaxed),
    )?;
    same("mask after the handler", before, mask(SIG_BLOCK, &[])?)
}

fn inside_handler(v: &Victim) -> Result<()> {
    stands_in_handler(v, 0)
}

fn inside_handler_on_altstack(v: &Victim) -> Result<()> {
    let mut stack = vec![0u8; 256 * 1024];
    set_altstack(&mut stack)?;
    stands_in_handler(v, libc::SA_ONSTACK)?;
    let place = PLACE.load(Ordering::Relaxed);
    ensure!(
        stack.as_ptr_range().contains(&(place as *const u8)),
        "the handler ran at {place:#x}"
    );
    same("flags of the stack after the handler", 0, get_altstack()?.1)
}

/// Waits in sigsuspend(2): the temporary mask holds meanwhile, the old one afterwards.
fn sigsuspend(v: &Victim) -> Result<()> {
    install(SIGUSR1, 0, &[])?;
    install(SIGUSR2, 0, &[])?;
    let usual = [libc::SIGHUP, SIGUSR1, SIGUSR2];
    mask(SIG_SETMASK, &usual)?;
    // Pending, and blocked by either mask, so it must not end the wait.
    raise(SIGUSR2)?;
    v.ready()?;
    // SAFETY: the set is valid.
    let result = sys::cvt(unsafe { libc::sigsuspend(&sigset(&[SIGUSR2])) });
    ensure!(
        sys::fails_with(result, libc::EINTR),
        "sigsuspend did not end with EINTR"
    );
    same(
        "signal that ended it",
        SIGUSR1,
        LAST.load(Ordering::Relaxed),
    )?;
    same("signals handled", 1, COUNT.load(Ordering::Relaxed))?;
    same("mask afterwards", usual.to_vec(), mask(SIG_BLOCK, &[])?)?;
    mask(SIG_UNBLOCK, &[SIGUSR2])?;
    same(
        "signals handled once all are unblocked",
        2,
        COUNT.load(Ordering::Relaxed),
    )?;
    v.woke()
}

fn pause(v: &Victim) -> Result<()> {
    install(SIGUSR1, libc::SA_RESTART, &[])?;
    v.ready()?;
    // SAFETY: no memory is involved.
    let result = sys::cvt(unsafe { libc::pause() });
    ensure!(
        sys::fails_with(result, libc::EINTR),
        "pause did not end with EINTR"
    );
    same("signals handled", 1, COUNT.load(Ordering::Relaxed))?;
    v.woke()
}
