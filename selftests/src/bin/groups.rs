// SPDX-License-Identifier: GPL-2.0

//! Process groups and sessions, led by the living and by the dead, orphans and who adopts them.

use libc::{
    SIGHUP,
    SIGUSR1,
    SIGWINCH, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    getpid,
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
use std::mem;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("dead-group-leader", dead_group_leader),
        Case::new("dead-session-leader", dead_session_leader),
        Case::new("zombie-leader", zombie_leader),
        Case::new("across-the-tree", across_the_tree),
        Case::new("session-below", session_below),
        Case::new("subreaper", subreaper),
        Case::new("orphan", orphan),
        Case::new("death-signal", death_signal),
        Case::new("death-signal-of-thread", death_signal_of_thread),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("groups")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Group and session of a process.
fn ids(pid: i32) -> Result<(i32, i32)> {
    // SAFETY: no memory is involved.
    unsafe { Ok((cvt(libc::getpgid(pid))?, cvt(libc::getsid(pid))?)) }
}

fn set_group(pid: i32, group: i32) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::setpgid(pid, group) })?;
    Ok(())
}

/// A child that waits for a signal.
fn sleeper() -> Result<Process> {
    Process::fork(|| loop {
        // SAFETY: no memory is involved.
        unsafe { libc::pause() };
    })
}

fn ends_by(process: &mut Process, signal: i32) -> Result<()> {
    let status = process.wait(Duration::from_secs(10))?;
    same("signal that ended it", Some(signal), status.signal())
}

/// The member of a group whose leader is gone: it has its number, and gets its signals.
fn dead_group_leader(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut leader = sleeper()?;
    let mut members = [sleeper()?, sleeper()?];
    set_group(leader.pid, leader.pid)?;
    for member in &members {
        set_group(member.pid, leader.pid)?;
    }
    kill(leader.pid, libc::SIGKILL)?;
    ends_by(&mut leader, libc::SIGKILL)?;
    drop(numbers);
    let group = leader.pid;
    ensure!(Task::read(group).is_none(), "the leader is still there");
    v.stand()?;
    let (_, session) = ids(0)?;
    for member in &members {
        same("group and session", (group, session), ids(member.pid)?)?;
    }
    kill(-group, SIGUSR1)?;
    for member in &mut members {
        ends_by(member, SIGUSR1)?;
    }
    let gone = kill(-group, 0);
    ensure!(
        sys::fails_with(gone, libc::ESRCH),
        "the group is still there"
    );
    Ok(())
}

fn become_subreaper(yes: bool) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, libc::c_ulong::from(yes)) })?;
    Ok(())
}

/// A process whose parent has ended, after it ran `before`; it has come to this one.
fn orphaned(before: fn()) -> Result<(i32, Process)> {
    let (from, to) = pipe(0)?;
    let mut parent = Process::fork(|| {
        before();
        let Ok(child) = sleeper() else {
            return 1;
        };
        let _ = write(&to, &child.pid.to_le_bytes());
        mem::forget(child);
        0
    })?;
    let mut number = [0; 4];
    same("bytes of its number", 4, read(&from, &mut number)?)?;
    let status = parent.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the parent ended with {status}");
    let orphan = i32::from_le_bytes(number);
    let adopted = || Task::read(orphan).is_some_and(|task| task.ppid == getpid());
    ensure!(
        sys::until(Duration::from_secs(10), adopted),
        "the orphan does not come: {:?}",
        Task::read(orphan)
    );
    Ok((parent.pid, Process::adopt(orphan)))
}

/// A daemon: in a session, and a group, of one that is gone.
fn dead_session_leader(v: &Victim) -> Result<()> {
    become_subreaper(true)?;
    let numbers = NumbersThatFollow::choose();
    let (leader, mut daemon) = orphaned(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::setsid() };
    })?;
    drop(numbers);
    let check = || same("group and session", (leader, leader), ids(daemon.pid)?);
    check().context("before")?;
    v.stand()?;
    check()?;
    kill(-leader, SIGHUP)?;
    ends_by(&mut daemon, SIGHUP)
}

/// The leader has ended, but nobody has waited for it.
fn zombie_leader(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut leader = sleeper()?;
    let mut member = sleeper()?;
    set_group(leader.pid, leader.pid)?;
    set_group(member.pid, leader.pid)?;
    kill(leader.pid, SIGHUP)?;
    let ended = || Task::read(leader.pid).is_some_and(|task| task.state == 'Z');
    ensure!(
        sys::until(Duration::from_secs(10), ended),
        "it does not end"
    );
    drop(numbers);
    v.stand()?;
    same("group", leader.pid, ids(member.pid)?.0)?;
    same("group of the dead", leader.pid, ids(leader.pid)?.0)?;
    ends_by(&mut leader, SIGHUP)?;
    same("group afterwards", leader.pid, ids(member.pid)?.0)?;
    kill(-leader.pid, SIGUSR1)?;
    ends_by(&mut member, SIGUSR1)
}

/// A child that has a child, whose number it says when it has done what `then` does with it.
fn middle(v: &Victim, then: fn(i32) -> Result<()>) -> Result<(Process, i32)> {
    let (from, to) = pipe(0)?;
    let middle = Process::fork(|| {
        let Ok(mut inner) = sleeper() else {
            return 1;
        };
        if then(inner.pid).is_err() {
            return 2;
        }
        let _ = write(&to, &inner.pid.to_le_bytes());
        v.wait();
        i32::from(ends_by(&mut inner, SIGUSR1).is_err())
    })?;
    let mut number = [0; 4];
    same("bytes of its number", 4, read(&from, &mut number)?)?;
    Ok((middle, i32::from_le_bytes(number)))
}

/// A grandchild leads the group of a child.
fn across_the_tree(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let (mut middle, inner) = middle(v, |inner| set_group(inner, inner))?;
    let mut child = sleeper()?;
    set_group(child.pid, inner)?;
    drop(numbers);
    v.stand()?;
    same("group of the child", inner, ids(child.pid)?.0)?;
    same("group of the grandchild", inner, ids(inner)?.0)?;
    same("group of the root", getpid(), ids(0)?.0)?;
    kill(-inner, SIGUSR1)?;
    ends_by(&mut child, SIGUSR1)?;
    let status = middle.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child ended with {status}");
    Ok(())
}

/// A child that leads a session, with a group of its own besides.
fn session_below(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let (from, to) = pipe(0)?;
    let mut leader = Process::fork(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::setsid() };
        let Ok(mut job) = sleeper() else {
            return 1;
        };
        if set_group(job.pid, job.pid).is_err() {
            return 2;
        }
        let _ = write(&to, &job.pid.to_le_bytes());
        v.wait();
        i32::from(ends_by(&mut job, SIGUSR1).is_err())
    })?;
    let mut number = [0; 4];
    same("bytes of its number", 4, read(&from, &mut number)?)?;
    let job = i32::from_le_bytes(number);
    drop(numbers);
    let check = || -> Result<()> {
        same("the leader's", (leader.pid, leader.pid), ids(leader.pid)?)?;
        same("the job's", (job, leader.pid), ids(job)?)
    };
    check().context("before")?;
    v.stand()?;
    check()?;
    kill(-job, SIGUSR1)?;
    let status = leader.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the leader ended with {status}");
    Ok(())
}

/// Orphans below it come to it, also those of children that were there before.
fn subreaper(v: &Victim) -> Result<()> {
    become_subreaper(true)?;
    let numbers = NumbersThatFollow::choose();
    let (mut middle, inner) = middle(v, |_| Ok(()))?;
    drop(numbers);
    v.ready()?;
    v.wait();
    let mut yes: libc::c_int = 0;
    // SAFETY: the flag is valid for writing.
    cvt(unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, std::ptr::from_mut(&mut yes)) })?;
    same("subreaper", 1, yes)?;
    kill(middle.pid, libc::SIGKILL)?;
    ends_by(&mut middle, libc::SIGKILL)?;
    let mut orphan = Process::adopt(inner);
    kill(inner, SIGUSR1)?;
    ends_by(&mut orphan, SIGUSR1)
}

/// One that came before is a child like others; whoever adopted it adopts no more.
fn orphan(v: &Victim) -> Result<()> {
    become_subreaper(true)?;
    let numbers = NumbersThatFollow::choose();
    let (_, mut orphan) = orphaned(|| ())?;
    become_subreaper(false)?;
    drop(numbers);
    v.stand()?;
    let task = Task::read(orphan.pid).context("there is no orphan")?;
    same("parent", getpid(), task.ppid)?;
    kill(orphan.pid, SIGUSR1)?;
    ends_by(&mut orphan, SIGUSR1)
}

/// A child that wants this signal when its parent ends.
fn wants(signal: i32) -> Result<Process> {
    Process::fork(|| {
        if signal == SIGWINCH && sys::mask(libc::SIG_BLOCK, &[signal]).is_err() {
            return 1;
        }
        // SAFETY: no memory is involved.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong);
            loop {
                libc::pause();
            }
        }
    })
}

/// The restart itself is no death of a parent, and the signal is still wanted.
fn death_signal(v: &Victim) -> Result<()> {
    become_subreaper(true)?;
    let numbers = NumbersThatFollow::choose();
    let (from, to) = pipe(0)?;
    let mut parent = Process::fork(|| {
        let Ok(child) = wants(libc::SIGTERM) else {
            return 1;
        };
        sys::nap(Duration::from_millis(50));
        let _ = write(&to, &child.pid.to_le_bytes());
        mem::forget(child);
        v.wait();
        0
    })?;
    let mut number = [0; 4];
    same("bytes of its number", 4, read(&from, &mut number)?)?;
    drop(numbers);
    v.ready()?;
    v.wait();
    let mut child = Process::adopt(i32::from_le_bytes(number));
    let status = parent.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the parent ended with {status}");
    ends_by(&mut child, libc::SIGTERM)
}

/// The parent is a thread: its end counts, not that of the process.
fn death_signal_of_thread(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let (tell, told) = mpsc::channel();
    let (end, ending) = mpsc::channel::<()>();
    let thread = thread::spawn(move || -> Result<()> {
        let child = wants(SIGWINCH)?;
        tell.send(child)?;
        let _ = ending.recv();
        Ok(())
    });
    let child = told.recv()?;
    // The child blocks the signal, which so stays to be seen.
    sys::nap(Duration::from_millis(50));
    drop(numbers);
    let pid = child.pid;
    let pending = || -> Result<bool> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        let set = u64::from_str_radix(line.context("no pending set")?.trim(), 16)?;
        Ok(set & 1 << (SIGWINCH - 1) != 0)
    };
    v.stand()?;
    ensure!(!pending()?, "the signal came by the restart");
    drop(end);
    thread.join().expect("the thread panicked")?;
    ensure!(
        sys::until(Duration::from_secs(10), || pending().unwrap_or(false)),
        "the signal does not come at the end of the thread"
    );
    Ok(())
}
