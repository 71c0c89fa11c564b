// SPDX-License-Identifier: GPL-2.0

//! Checkpoints of a process group, a session, a cgroup or a pid namespace, and of the caller itself.

use selftests::prelude::*;
use selftests::sys::{
    checkpoint::{
        self,
        Args, //
    },
    cvt,
    getpid,
    kill, //
};
use selftests::{
    Bench,
    Counters,
    NumbersThatFollow,
    Process,
    Task, //
};
use std::fs;
use std::mem;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "group",
            run: group,
        },
        Custom {
            name: "group-in-new-pid-namespace",
            run: group_in_new_pid_namespace,
        },
        Custom {
            name: "session",
            run: session,
        },
        Custom {
            name: "cgroup",
            run: cgroup,
        },
        Custom {
            name: "pid-namespace",
            run: pid_namespace,
        },
        Custom {
            name: "arguments",
            run: arguments,
        },
        Custom {
            name: "itself",
            run: |b| by_itself(b, "writes-itself"),
        },
        Custom {
            name: "itself-with-threads",
            run: |b| by_itself(b, "writes-itself-with-threads"),
        },
        Custom {
            name: "itself-in-a-tree",
            run: |b| by_itself(b, "writes-parent"),
        },
    ],
    victims: &[
        Case::new("group-family", group_family).no_control(),
        Case::new("session-family", session_family).no_control(),
        Case::new("cgroup-family", cgroup_family).no_control(),
        Case::new("namespace", namespace).no_control(),
        Case::new("writes-itself", writes_itself).no_control(),
        Case::new("writes-itself-with-threads", writes_with_threads).no_control(),
        Case::new("writes-parent", writes_parent).no_control(),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("scope")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// What a member of a family does: it stands, says what it then sees, and ends with 3 or, some time
/// later, 4.
fn member(v: &Victim, number: i32) -> i32 {
    let name = if number == 0 { "first" } else { "second" };
    v.wait();
    if number != 0 {
        sys::nap(Duration::from_millis(300));
    }
    // SAFETY: no memory is involved.
    let (parent, group) = unsafe { (libc::getppid(), libc::getpgrp()) };
    let parent = Task::read(parent).map(|task| task.comm).unwrap_or_default();
    let said = format!("{parent} {group}");
    i32::from(fs::write(v.path(name), said).is_err()) + 3 + number
}

/// Has `members` of a group until somebody kills them; the first can be named to the tools.
fn family(v: &Victim, members: [Process; 2]) -> Result<()> {
    // SAFETY: no memory is involved.
    let group = cvt(unsafe { libc::getpgid(members[0].pid) })?;
    fs::write(v.path("group"), group.to_string())?;
    fs::write(v.path("member"), members[0].pid.to_string())?;
    v.ready()?;
    for mut member in members {
        let status = member.wait(Duration::from_secs(60))?;
        ensure!(!status.success(), "a member ended with {status}");
    }
    v.wait();
    Ok(())
}

/// Two members of a group.
fn members(v: &Victim) -> Result<[Process; 2]> {
    let _numbers = NumbersThatFollow::choose();
    let members = [
        Process::fork(|| member(v, 0))?,
        Process::fork(|| member(v, 1))?,
    ];
    let first = members[0].pid;
    for member in &members {
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::setpgid(member.pid, first) })?;
    }
    Ok(members)
}

fn group_family(v: &Victim) -> Result<()> {
    family(v, members(v)?)
}

/// Two orphans in the session of one who is gone.
fn session_family(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;
    let numbers = NumbersThatFollow::choose();
    let (from, to) = sys::pipe(libc::O_CLOEXEC)?;
    let mut leader = Process::fork(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::setsid() };
        for number in 0..2 {
            let Ok(child) = Process::fork(|| {
                // Nothing but the tree has the pipe to its end.
                // SAFETY: the child does not use them.
                unsafe {
                    libc::close(from.as_raw_fd());
                    libc::close(to.as_raw_fd());
                }
                member(v, number)
            }) else {
                return 1;
            };
            let _ = sys::write(&to, &child.pid.to_le_bytes());
            mem::forget(child);
        }
        0
    })?;
    let status = leader.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the leader ended with {status}");
    let mut numbers_of = [[0; 4]; 2];
    for number in &mut numbers_of {
        same("bytes of a number", 4, sys::read(&from, number)?)?;
    }
    drop(numbers);
    family(
        v,
        numbers_of.map(|number| Process::adopt(i32::from_le_bytes(number))),
    )
}

const CGROUP: &str = "/sys/fs/cgroup/checkpoint-selftest";

fn cgroup_family(v: &Victim) -> Result<()> {
    let inner = Path::new(CGROUP).join("inner");
    if fs::create_dir_all(&inner).is_err() {
        return skip("no cgroups");
    }
    let members = members(v)?;
    for (member, dir) in members.iter().zip([Path::new(CGROUP), &inner]) {
        fs::write(dir.join("cgroup.procs"), member.pid.to_string())?;
    }
    family(v, members)
}

/// Checkpoints a family, kills it, brings it back, and looks at what its members say.
fn comes_back(b: &Bench<'_>, victim: &str, scope: &[&str], restart: &[&str]) -> Result<()> {
    let mut life = b.start(victim)?;
    let image = b.path("image");
    let first = fs::read_to_string(b.path("member"))?;
    let mut ckpt = b.ckpt().arg("--kill").args(scope);
    if !scope.contains(&"--cgroup") {
        ckpt = ckpt.arg(&first);
    }
    ckpt.arg("-o").arg(&image).run()?.succeeded("ckpt")?;
    life.passes()?;

    let done = b.rstr().args(restart).arg("-i").arg(&image).run()?;
    same(
        "status of rstr, which is that of the first",
        Some(3),
        done.status.code(),
    )
    .with_context(|| done.said.clone())?;
    let group = fs::read_to_string(b.path("group"))?;
    for name in ["first", "second"] {
        let said = fs::read_to_string(b.path(name))
            .with_context(|| format!("rstr did not wait for the {name}"))?;
        same(
            &format!("parent and group of the {name}"),
            format!("rstr {group}"),
            said,
        )?;
    }
    Ok(())
}

fn group(b: &Bench<'_>) -> Result<()> {
    comes_back(b, "group-family", &["--group"], &[])
}

fn group_in_new_pid_namespace(b: &Bench<'_>) -> Result<()> {
    comes_back(b, "group-family", &["--group"], &["--new-pidns"])
}

fn session(b: &Bench<'_>) -> Result<()> {
    comes_back(b, "session-family", &["--session"], &[])
}

fn cgroup(b: &Bench<'_>) -> Result<()> {
    comes_back(b, "cgroup-family", &["--cgroup", CGROUP], &[])
}

/// A process in a pid namespace of its own.
fn namespace(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::unshare(libc::CLONE_NEWPID) })?;
    let mut init = Process::fork(|| {
        v.wait();
        0
    })?;
    fs::write(v.path("member"), init.pid.to_string())?;
    v.ready()?;
    let status = init.wait(Duration::from_secs(60))?;
    ensure!(status.success(), "the init ended with {status}");
    Ok(())
}

/// Another namespace than the caller's is refused by name; all of it, and nothing but it.
fn pid_namespace(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("namespace")?;
    let init = fs::read_to_string(b.path("member"))?;
    let done = b
        .ckpt()
        .args(["--pid-namespace", &init])
        .arg("-o")
        .arg(b.path("image"))
        .run()?
        .refused("ckpt", &[&format!("task {init}: another pid namespace")])?;
    ensure!(
        !done.said.contains(&format!("task {}:", life.pid)),
        "it looked at others: {}",
        done.said
    );
    b.no_image()?;
    life.passes()
}

fn fails(what: &str, args: Args, errno: i32) -> Result<()> {
    let result = checkpoint::call(&args, mem::size_of::<Args>());
    ensure!(
        sys::fails_with(result, errno),
        "{what} does not fail with {errno}"
    );
    Ok(())
}

fn arguments(_: &Bench<'_>) -> Result<()> {
    if !checkpoint::exists() {
        return skip("no checkpoint(2)");
    }
    let own = sys::pidfd(getpid())?;
    let file = fs::File::open("/")?;
    let args = |flags, target| Args {
        flags: flags | checkpoint::CHECK,
        target,
        fd: -1,
        log_fd: -1,
        ..Args::default()
    };
    let scopes = [
        checkpoint::GROUP,
        checkpoint::SESSION,
        checkpoint::PID_NS,
        checkpoint::CGROUP,
    ];
    for (number, one) in scopes.into_iter().enumerate() {
        for other in &scopes[number + 1..] {
            let both = args(one | other, own.as_raw_fd());
            fails("two scopes", both, libc::EINVAL)?;
        }
        let held = args(one | checkpoint::HELD, own.as_raw_fd());
        fails("a scope of a hold", held, libc::EINVAL)?;
        fails("no descriptor", args(one, -1), libc::EBADF)?;
        fails("another file", args(one, file.as_raw_fd()), libc::EBADF)?;
    }
    fails(
        "a pidfd as cgroup",
        args(checkpoint::CGROUP, own.as_raw_fd()),
        libc::EBADF,
    )
}

/// This thread, where a pidfd is expected.
const PIDFD_SELF: i32 = -10_000;

/// Checkpoints `target`; whether this is the one that a restart brought back.
fn write_image(v: &Victim, target: i32) -> Result<bool> {
    let image = fs::File::create(v.path("image"))?;
    let log = fs::File::create(v.path("problems"))?;
    let args = Args {
        target,
        fd: image.as_raw_fd(),
        log_fd: log.as_raw_fd(),
        ..Args::default()
    };
    let result = checkpoint::call(&args, mem::size_of::<Args>());
    let tasks =
        result.with_context(|| fs::read_to_string(v.path("problems")).unwrap_or_default())?;
    if tasks == 0 {
        return Ok(true);
    }
    ensure!(tasks > 0, "{tasks} tasks");
    fs::write(v.path("written"), tasks.to_string())?;
    Ok(false)
}

fn writes_itself(v: &Victim) -> Result<()> {
    v.ready()?;
    let mut local = 5;
    if !write_image(v, PIDFD_SELF)? {
        // The original waits for its end.
        local = std::hint::black_box(local + 1);
        v.wait();
        bail!("it was told to go on, with {local}");
    }
    v.wait();
    same("what it was at", 5, local)
}

fn writes_with_threads(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let counters = Counters::start(1);
    drop(numbers);
    writes_itself(v)?;
    counters.all_go_on()?;
    counters.end()
}

/// A child that checkpoints its parent, with itself.
fn writes_parent(v: &Victim) -> Result<()> {
    // First: the file that says so would be among what the child finds open.
    v.ready()?;
    let numbers = NumbersThatFollow::choose();
    let root = sys::pidfd(getpid())?;
    let mut child = Process::fork(|| match write_image(v, root.as_raw_fd()) {
        Ok(true) => 7,
        Ok(false) => loop {
            sys::nap(Duration::from_secs(1));
        },
        Err(e) => {
            eprintln!("{e:#}");
            1
        }
    })?;
    drop(numbers);
    let status = child.wait(Duration::from_secs(60))?;
    same("status of the child", Some(7), status.code())?;
    v.wait();
    Ok(())
}

/// Kills a victim that has written an image which it is part of, and brings it back.
fn by_itself(b: &Bench<'_>, victim: &str) -> Result<()> {
    let mut life = b.start(victim)?;
    let written = b.path("written");
    let log = || fs::read_to_string(b.path("log")).unwrap_or_default();
    ensure!(
        sys::until(Duration::from_secs(30), || written.exists()),
        "no image was written: {}",
        log()
    );
    let all: Vec<Task> = selftests::tasks()?;
    let child = all.iter().find(|task| task.ppid == life.pid);
    life.kill()?;
    if let Some(child) = child {
        // It has come to this process.
        kill(child.pid, libc::SIGKILL)?;
        Process::adopt(child.pid).wait(Duration::from_secs(10))?;
    }
    life.restart(&b.path("image"), &[])?;
    life.passes()
}
