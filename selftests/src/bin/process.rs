// SPDX-License-Identifier: GPL-2.0

//! What a process is: numbers, name, limits, and how it ends.

use selftests::prelude::*;
use selftests::{
    Bench,
    Life,
    Outcome,
    Task, //
};
use std::fs;
use std::mem;
use std::os::unix::fs::chown;
use std::os::unix::process::{
    CommandExt,
    ExitStatusExt, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("numbers", numbers),
        Case::new("session-of-its-own", session_of_its_own),
        Case::new("session-outside", session_outside).same_session(),
        Case::new("parent", parent),
        Case::new("comm", comm),
        Case::new("exe", exe),
        Case::new("command-line", command_line),
        Case::new("credentials", credentials),
        Case::new("namespaces", namespaces),
        Case::new("personality", personality),
        Case::new("limits", limits),
        Case::new("lowered-limit", lowered_limit),
        Case::new("nice", nice),
        Case::new("scheduling", scheduling),
        Case::new("affinity", affinity),
        Case::new("dumpable", dumpable),
        Case::new("timer-slack", timer_slack),
        Case::new("death-signal", death_signal),
        Case::new("no-new-privileges", no_new_privileges),
        Case::new("oom-score", oom_score),
        Case::new("child-afterwards", child_afterwards),
        Case::new("thread-afterwards", thread_afterwards),
    ],
    customs: &[
        Custom {
            name: "exit-status",
            run: exit_status,
        },
        Custom {
            name: "exit-signal",
            run: exit_signal,
        },
        Custom {
            name: "exit-core-signal",
            run: exit_core_signal,
        },
        Custom {
            name: "frozen",
            run: frozen,
        },
        Custom {
            name: "new-pid-namespace",
            run: new_pid_namespace,
        },
        Custom {
            name: "new-pid-namespace-of-a-user",
            run: new_pid_namespace_of_a_user,
        },
    ],
    victims: &[
        Case::new("same-number", same_number).no_control(),
        Case::new("exits-with-7", exits_with_7).no_control(),
        Case::new("dies-of-sigterm", |v| dies(v, libc::SIGTERM)).no_control(),
        Case::new("dies-of-sigabrt", |v| dies(v, libc::SIGABRT)).no_control(),
    ],
    ..Suite::new("process")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Process, thread, group, session.
fn ids() -> [i32; 4] {
    // SAFETY: no memory is involved.
    unsafe {
        let tid = libc::syscall(libc::SYS_gettid) as i32;
        [libc::getpid(), tid, libc::getpgrp(), libc::getsid(0)]
    }
}

fn numbers(v: &Victim) -> Result<()> {
    let [pid, tid, ..] = ids();
    v.stand()?;
    let [now, thread, ..] = ids();
    same("pid and tid", (pid, tid), (now, thread))?;
    same(
        "/proc/self",
        pid.to_string(),
        fs::read_link("/proc/self")?.display().to_string(),
    )
}

fn session_of_its_own(v: &Victim) -> Result<()> {
    let before = ids();
    same("session before", before[0], before[3])?;
    v.stand()?;
    same("pid, tid, group and session", before, ids())
}

/// With the leader of the session outside, it is in that of its parent afterwards.
fn session_outside(v: &Victim) -> Result<()> {
    v.stand()?;
    // SAFETY: no memory is involved.
    let (mine, parents) = unsafe { (libc::getsid(0), libc::getsid(libc::getppid())) };
    ensure!(mine > 0, "session {mine}");
    same("session", parents, mine)?;
    ensure!(mine != ids()[0], "it became the leader of a session");
    Ok(())
}

fn parent(v: &Victim) -> Result<()> {
    v.stand()?;
    // SAFETY: no memory is involved.
    let parent = unsafe { libc::getppid() };
    ensure!(parent > 0, "the parent is {parent}");
    ensure!(
        selftests::Task::read(parent).is_some(),
        "there is no process {parent}"
    );
    Ok(())
}

fn comm(v: &Victim) -> Result<()> {
    // SAFETY: the name is a C string.
    sys::cvt(unsafe { libc::prctl(libc::PR_SET_NAME, c"odd) (name 1234".as_ptr()) })?;
    v.stand()?;
    same(
        "comm",
        "odd) (name 1234",
        fs::read_to_string("/proc/self/comm")?.trim_end(),
    )
}

fn exe(v: &Victim) -> Result<()> {
    let before = fs::read_link("/proc/self/exe")?;
    v.stand()?;
    same("exe", &before, &fs::read_link("/proc/self/exe")?)?;
    same(
        "size",
        fs::metadata(&before)?.len(),
        fs::metadata("/proc/self/exe")?.len(),
    )
}

fn command_line(v: &Victim) -> Result<()> {
    let read = || -> Result<_> {
        Ok([
            fs::read("/proc/self/cmdline")?,
            fs::read("/proc/self/environ")?,
        ])
    };
    let before = read()?;
    ensure!(
        before[0].windows(8).any(|w| w == b"--victim"),
        "{:?}",
        before[0]
    );
    v.stand()?;
    same("command line and environment", before, read()?)
}

/// Lines of /proc/self/status that begin with one of `names`.
fn status(names: &[&str]) -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/status")?;
    let lines = text
        .lines()
        .filter(|l| names.iter().any(|n| l.starts_with(n)));
    Ok(lines.map(str::to_owned).collect())
}

fn credentials(v: &Victim) -> Result<()> {
    let names = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:", "Seccomp:"];
    let before = status(&names)?;
    v.stand()?;
    same("credentials", before, status(&names)?)
}

/// They are those of whoever has started it, or restarted it; a boot gives them other numbers.
fn namespaces(v: &Victim) -> Result<()> {
    let check = || -> Result<()> {
        // The time namespace may be a new one: that is how clocks go on after a reboot.
        for ns in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{ns}"));
            // SAFETY: no memory is involved.
            let (own, parent) = unsafe { (libc::getpid(), libc::getppid()) };
            same(ns, of(parent)?, of(own)?)?;
        }
        Ok(())
    };
    check()?;
    v.stand()?;
    check()
}

fn personality(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let set = |persona: i32| sys::cvt(unsafe { libc::personality(persona as libc::c_ulong) });
    let wanted = libc::ADDR_NO_RANDOMIZE | libc::SHORT_INODE;
    set(wanted)?;
    v.stand()?;
    same("personality", wanted, set(-1)?)
}

fn all_limits() -> Result<Vec<(u64, u64)>> {
    (0..16)
        .map(|which| {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: the limit is valid for writing.
            sys::cvt(unsafe { libc::getrlimit(which, &mut limit) })?;
            Ok((limit.rlim_cur, limit.rlim_max))
        })
        .collect()
}

fn limits(v: &Victim) -> Result<()> {
    let before = all_limits()?;
    v.stand()?;
    same("limits", before, all_limits()?)
}

fn lowered_limit(v: &Victim) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 300,
        rlim_max: 700,
    };
    // SAFETY: the limit is valid.
    sys::cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    let before = all_limits()?;
    v.stand()?;
    same("limits", before, all_limits()?)?;
    // SAFETY: no memory is involved.
    let beyond = sys::cvt(unsafe { libc::dup2(0, 300) });
    ensure!(
        sys::fails_with(beyond, libc::EBADF),
        "the limit of open files does not act"
    );
    Ok(())
}

fn nice(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    unsafe {
        sys::cvt(libc::setpriority(libc::PRIO_PROCESS, 0, 7))?;
        v.stand()?;
        same("nice", 7, libc::getpriority(libc::PRIO_PROCESS, 0))
    }
}

fn scheduling(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let read = || unsafe {
        (
            libc::sched_getscheduler(0),
            libc::getpriority(libc::PRIO_PROCESS, 0),
        )
    };
    let before = read();
    v.stand()?;
    same("policy and nice", before, read())
}

fn processors() -> Result<Vec<usize>> {
    // SAFETY: all zeroes is a set, and it is valid for writing.
    unsafe {
        let mut set: libc::cpu_set_t = mem::zeroed();
        sys::cvt(libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set))?;
        Ok((0..libc::CPU_SETSIZE as usize)
            .filter(|&c| libc::CPU_ISSET(c, &set))
            .collect())
    }
}

fn affinity(v: &Victim) -> Result<()> {
    let all = processors()?;
    let [.., last] = all[..] else {
        bail!("no processor")
    };
    if all.len() == 1 {
        return skip("there is one processor only");
    }
    // SAFETY: the number is that of a processor.
    unsafe {
        let mut one: libc::cpu_set_t = mem::zeroed();
        libc::CPU_SET(last, &mut one);
        sys::cvt(libc::sched_setaffinity(0, mem::size_of_val(&one), &one))?;
    }
    v.stand()?;
    same("processors", vec![last], processors()?)
}

/// prctl(2) with one number.
fn prctl(option: i32, value: libc::c_ulong) -> std::io::Result<i32> {
    // SAFETY: only options with numbers are used.
    sys::cvt(unsafe { libc::prctl(option, value, 0, 0, 0) })
}

fn dumpable(v: &Victim) -> Result<()> {
    let before = prctl(libc::PR_GET_DUMPABLE, 0)?;
    v.stand()?;
    same("dumpable", before, prctl(libc::PR_GET_DUMPABLE, 0)?)
}

fn timer_slack(v: &Victim) -> Result<()> {
    prctl(libc::PR_SET_TIMERSLACK, 123_456)?;
    v.stand()?;
    same("timer slack", 123_456, prctl(libc::PR_GET_TIMERSLACK, 0)?)
}

fn death_signal(v: &Victim) -> Result<()> {
    let read = || -> Result<i32> {
        let mut signal = 0;
        // SAFETY: the signal is valid for writing.
        sys::cvt(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, std::ptr::from_mut(&mut signal)) })?;
        Ok(signal)
    };
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGWINCH as libc::c_ulong)?;
    v.stand()?;
    same("signal at the parent's death", libc::SIGWINCH, read()?)
}

fn no_new_privileges(v: &Victim) -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    v.stand()?;
    same("no_new_privs", 1, prctl(libc::PR_GET_NO_NEW_PRIVS, 0)?)
}

fn oom_score(v: &Victim) -> Result<()> {
    fs::write("/proc/self/oom_score_adj", "321")?;
    v.stand()?;
    same(
        "oom_score_adj",
        "321",
        fs::read_to_string("/proc/self/oom_score_adj")?.trim(),
    )
}

/// It can still have children, with status and signal.
fn child_afterwards(v: &Victim) -> Result<()> {
    v.stand()?;
    let parent = ids()[0];
    let status = sys::forked(|| {
        // SAFETY: no memory is involved.
        if unsafe { libc::getppid() } == parent {
            42
        } else {
            1
        }
    })?;
    same("status of the child", 42 << 8, status)
}

fn thread_afterwards(v: &Victim) -> Result<()> {
    v.stand()?;
    let main = ids();
    let handle = std::thread::spawn(move || {
        let [pid, tid, ..] = ids();
        pid == main[0] && tid != main[1]
    });
    same(
        "numbers of a thread are right",
        true,
        handle.join().unwrap_or(false),
    )
}

fn exits_with_7(v: &Victim) -> Result<()> {
    v.stand()?;
    // SAFETY: ends the victim.
    unsafe { libc::_exit(7) }
}

fn dies(v: &Victim, signal: i32) -> Result<()> {
    v.stand()?;
    // SAFETY: the default action ends the victim.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    bail!("signal {signal} did not end it")
}

/// How rstr ends when the victim `name` does.
fn end_of(b: &Bench<'_>, name: &str) -> Result<std::process::ExitStatus> {
    let mut life: Life<'_> = b.start(name)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    life.tell()?;
    Ok(b.rstr().arg("-i").arg(&image).run()?.status)
}

fn exit_status(b: &Bench<'_>) -> Result<()> {
    same(
        "exit status of rstr",
        Some(7),
        end_of(b, "exits-with-7")?.code(),
    )
}

/// rstr ends by the same signal, or with the status a shell gives.
fn passes_on(b: &Bench<'_>, name: &str, signal: i32) -> Result<()> {
    let status = end_of(b, name)?;
    ensure!(
        status.signal() == Some(signal) || status.code() == Some(128 + signal),
        "the victim died of signal {signal}, rstr ended with {status}"
    );
    Ok(())
}

fn exit_signal(b: &Bench<'_>) -> Result<()> {
    passes_on(b, "dies-of-sigterm", libc::SIGTERM)
}

fn exit_core_signal(b: &Bench<'_>) -> Result<()> {
    passes_on(b, "dies-of-sigabrt", libc::SIGABRT)
}

/// Its number is the same, whatever namespace that is in.
fn same_number(v: &Victim) -> Result<()> {
    let number = || fs::read_link("/proc/self").context("/proc/self");
    let before = number()?;
    v.stand()?;
    same("number", before, number()?)
}

/// A tree that is left held does nothing until it is let go, longer than a lease lasts.
fn frozen(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("same-number")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    life.tell()?;
    life.restart(&image, &["--frozen"])?;
    ensure!(
        sys::until(Duration::from_secs(20), || Task::read(life.pid).is_some()),
        "there is no process {}",
        life.pid
    );
    sys::nap(Duration::from_secs(12));
    ensure!(!b.path("result").exists(), "it ran although it is held");
    sys::kill(life.front()?, libc::SIGCONT)?;
    same("how it ended", Outcome::Pass, life.ends_well()?)
}

/// A number that is taken outside is free in a namespace of its own.
fn new_pid_namespace(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("same-number")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    life.restart(&image, &["--new-pidns"])?;
    life.passes()
}

/// And for that nobody has to be privileged.
fn new_pid_namespace_of_a_user(b: &Bench<'_>) -> Result<()> {
    const USER: u32 = 1000;
    chown(&b.dir, Some(USER), Some(USER))?;
    let mut command = b.command(b.case("same-number")?)?;
    chown(b.path("log"), Some(USER), Some(USER))?;
    command.uid(USER).gid(USER);
    let mut life = b.start_with("same-number", command)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    chown(&image, Some(USER), Some(USER))?;
    let rstr = b
        .rstr()
        .arg("--new-pidns")
        .arg("-i")
        .arg(&image)
        .as_user(USER);
    life.restart_by(rstr)?;
    life.passes()
}
