// SPDX-License-Identifier: GPL-2.0

//! Users, groups and capabilities, of each thread its own.

use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fails_with,
    getpid,
    gettid,
    kill, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::io;
use std::os::unix::fs::{
    chown,
    PermissionsExt, //
};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("user", user),
        Case::new("dumpable", dumpable),
        Case::new("thread", other_thread),
        Case::new("daemon", daemon),
        Case::new("capabilities", capabilities),
        Case::new("process-limit", process_limit),
    ],
    customs: &[
        Custom {
            name: "of-another-user",
            run: of_another_user,
        },
        Custom {
            name: "more-capabilities",
            run: more_capabilities,
        },
        Custom {
            name: "groups-in-a-user-namespace",
            run: groups_in_a_user_namespace,
        },
    ],
    victims: &[
        Case::new("plain", |v| v.stand()),
        Case::new("with-a-capability", with_a_capability).no_control(),
        Case::new("user-with-groups", |v| v.stand()).no_control(),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("creds")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Lines of /proc/self/task/TID/status about credentials.
fn status(tid: i32) -> Result<Vec<String>> {
    let names = ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:"];
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/status"))?;
    let lines = text
        .lines()
        .filter(|l| names.iter().any(|n| l.starts_with(n)));
    Ok(lines.map(str::to_owned).collect())
}

fn syscall(number: libc::c_long, args: [libc::c_long; 3]) -> io::Result<libc::c_long> {
    // SAFETY: only calls with numbers, or with pointers that the caller vouches for, are made.
    cvt(unsafe { libc::syscall(number, args[0], args[1], args[2]) })
}

/// Changes the ids of this thread alone, unlike the functions of the C library.
fn become_user(uids: [libc::c_long; 3], gids: [libc::c_long; 3], groups: &[u32]) -> Result<()> {
    syscall(
        libc::SYS_setgroups,
        [groups.len() as i64, groups.as_ptr() as i64, 0],
    )?;
    syscall(libc::SYS_setresgid, gids)?;
    syscall(libc::SYS_setresuid, uids)?;
    Ok(())
}

const USER: u32 = 1000;

/// Makes the victim's directory its own, for what it says in the end.
fn own_directory(v: &Victim, uid: u32) -> Result<()> {
    let dir = v.path("");
    chown(&dir, Some(uid), None)?;
    fs::write(v.path("secret"), "of root")?;
    fs::set_permissions(v.path("secret"), fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Three different ids of each kind, and one for files.
fn user(v: &Victim) -> Result<()> {
    own_directory(v, 1003)?;
    become_user([1001, 1002, 1003], [101, 102, 103], &[7, 5, 70000])?;
    // SAFETY: no memory is involved.
    unsafe {
        libc::syscall(libc::SYS_setfsuid, 1003);
        libc::syscall(libc::SYS_setfsgid, 103);
    }
    let before = status(getpid())?;
    ensure!(before[0].ends_with("1001\t1002\t1003\t1003"), "{before:?}");
    v.stand()?;
    same("credentials", before, status(getpid())?)?;
    ensure!(
        fs::read(v.path("secret")).is_err(),
        "it can read a file of root"
    );
    ensure!(
        fails_with(kill(1, 0), libc::EPERM),
        "it may signal a process of root"
    );
    ensure!(
        syscall(libc::SYS_setuid, [0, 0, 0]).is_err(),
        "it may become root"
    );
    fs::write(v.path("mine"), "")?;
    use std::os::unix::fs::MetadataExt;
    let made = fs::metadata(v.path("mine"))?;
    same("owner of a new file", (1003, 103), (made.uid(), made.gid()))
}

fn prctl(option: i32, value: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: only options with numbers are used.
    cvt(unsafe { libc::prctl(option, value, 0, 0, 0) })
}

/// Waits until process `pid` is one of user `uid`.
fn until_user(pid: i32, uid: u32) -> Result<()> {
    let changed = || {
        let text = fs::read_to_string(format!("/proc/{pid}/status"));
        text.is_ok_and(|text| text.contains(&format!("Uid:\t{uid}\t")))
    };
    ensure!(
        sys::until(Duration::from_secs(10), changed),
        "process {pid} does not change its user"
    );
    Ok(())
}

/// New credentials forbid others to look, and take the death signal: unless that is set again.
fn dumpable(v: &Victim) -> Result<()> {
    own_directory(v, USER)?;
    let user = || become_user([USER.into(); 3], [USER.into(); 3], &[]);
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let result = || -> Result<()> {
            user()?;
            prctl(libc::PR_SET_DUMPABLE, 1)?;
            prctl(libc::PR_SET_PDEATHSIG, libc::SIGWINCH as libc::c_ulong)?;
            v.wait();
            same("dumpable", 1, prctl(libc::PR_GET_DUMPABLE, 0)?)?;
            let mut signal = 0;
            // SAFETY: the signal is valid for writing.
            cvt(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, std::ptr::from_mut(&mut signal)) })?;
            same("death signal", libc::SIGWINCH, signal)
        };
        i32::from(result().is_err())
    })?;
    drop(numbers);
    user()?;
    same("dumpable", 0, prctl(libc::PR_GET_DUMPABLE, 0)?)?;
    until_user(child.pid, USER)?;
    v.stand()?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child is not as it was");
    same("dumpable", 0, prctl(libc::PR_GET_DUMPABLE, 0)?)
}

/// Threads of one process with different users.
fn other_thread(v: &Victim) -> Result<()> {
    let (go, wait) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let secret = v.path("secret");
    fs::write(&secret, "of root")?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let numbers = NumbersThatFollow::choose();
    let other = thread::spawn(move || -> Result<()> {
        let set = become_user([USER.into(); 3], [USER.into(); 3], &[42]);
        tell.send((gettid(), set))?;
        wait.recv()?;
        ensure!(
            fs::read(&secret).is_err(),
            "the thread reads a file of root"
        );
        Ok(())
    });
    let (tid, set) = told.recv()?;
    drop(numbers);
    set?;
    let before = (status(getpid())?, status(tid)?);
    ensure!(before.0 != before.1, "both threads have the same");
    v.stand()?;
    same("credentials", before, (status(getpid())?, status(tid)?))?;
    ensure!(
        fs::read(v.path("secret")).is_ok(),
        "the first thread does not"
    );
    go.send(())?;
    other.join().expect("the thread panicked")
}

/// A process of root with one of a user, as daemons are.
fn daemon(v: &Victim) -> Result<()> {
    let parent = getpid();
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let result = || -> Result<()> {
            become_user([USER.into(); 3], [USER.into(); 3], &[USER])?;
            let before = status(getpid())?;
            v.wait();
            same("credentials of the child", before, status(getpid())?)?;
            ensure!(
                fails_with(kill(parent, 0), libc::EPERM),
                "it may signal its parent"
            );
            Ok(())
        };
        i32::from(result().is_err())
    })?;
    drop(numbers);
    let before = status(getpid())?;
    until_user(child.pid, USER)?;
    v.stand()?;
    same("credentials", before, status(getpid())?)?;
    kill(child.pid, 0)?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child is not as it was");
    Ok(())
}

const CAP_NET_BIND_SERVICE: u32 = 10;

/// struct __user_cap_data_struct, for both halves.
type Sets = [[u32; 3]; 2];

fn set_caps(effective: u32, permitted: u32, inheritable: u32) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let sets: Sets = [[effective, permitted, inheritable], [0; 3]];
    syscall(
        libc::SYS_capset,
        [header.as_ptr() as i64, sets.as_ptr() as i64, 0],
    )?;
    Ok(())
}

/// A user with one capability, also ambient, a bounding set that lacks others, and locked bits.
fn capabilities(v: &Victim) -> Result<()> {
    const PR_CAP_AMBIENT: i32 = 47;
    const PR_CAP_AMBIENT_RAISE: libc::c_ulong = 2;
    const NOROOT_LOCKED: libc::c_ulong = 3;
    own_directory(v, USER)?;
    for cap in [7, 12, 21] {
        prctl(libc::PR_CAPBSET_DROP, cap)?;
    }
    prctl(libc::PR_SET_SECUREBITS, NOROOT_LOCKED)?;
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    become_user([USER.into(); 3], [USER.into(); 3], &[])?;
    let one = 1 << CAP_NET_BIND_SERVICE;
    set_caps(one, one | 1, one)?;
    // SAFETY: no memory is involved.
    cvt(unsafe {
        libc::prctl(
            PR_CAP_AMBIENT,
            PR_CAP_AMBIENT_RAISE,
            libc::c_ulong::from(CAP_NET_BIND_SERVICE),
            0,
            0,
        )
    })?;
    let before = (status(getpid())?, prctl(libc::PR_GET_SECUREBITS, 0)?);
    ensure!(before.1 & 0x13 == 0x13, "securebits {:#x}", before.1);
    v.stand()?;
    let now = (status(getpid())?, prctl(libc::PR_GET_SECUREBITS, 0)?);
    same("capabilities", before, now)?;
    // It still has what it has, and no more.
    set_caps(one | 1, one | 1, one)?;
    ensure!(set_caps(one | 2, one | 2, one).is_err(), "it gained one");
    Ok(())
}

/// Processes count against the limit of the user that they belong to.
fn process_limit(v: &Victim) -> Result<()> {
    const ID: u32 = 12_345;
    own_directory(v, ID)?;
    let user = || become_user([ID.into(); 3], [ID.into(); 3], &[]);
    let numbers = NumbersThatFollow::choose();
    let child = Process::fork(|| {
        if user().is_err() {
            return 1;
        }
        // SAFETY: no memory is involved.
        unsafe { libc::pause() }
    })?;
    drop(numbers);
    user()?;
    until_user(child.pid, ID)?;
    let limit = libc::rlimit {
        rlim_cur: 2,
        rlim_max: 2,
    };
    // SAFETY: the limit is valid.
    cvt(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &limit) })?;
    v.stand()?;
    // SAFETY: a child that is made against expectation ends at once.
    let third = unsafe {
        let third = libc::fork();
        if third == 0 {
            libc::_exit(0);
        }
        third
    };
    ensure!(
        fails_with(cvt(third), libc::EAGAIN),
        "there is room for a third process: {third}"
    );
    drop(child);
    let gone = || Process::fork(|| 0).is_ok();
    ensure!(
        sys::until(Duration::from_secs(10), gone),
        "there is no room when a process has ended"
    );
    Ok(())
}

/// Requires that user 1000 cannot restart the victim `name` of root, for the reason `words`.
fn refused_to_user(b: &Bench<'_>, name: &str, words: &[&str]) -> Result<()> {
    let mut life = b.start(name)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    chown(&image, Some(USER), Some(USER))?;
    chown(&b.dir, Some(USER), Some(USER))?;
    b.rstr()
        .arg("-i")
        .arg(&image)
        .as_user(USER)
        .run()?
        .refused("rstr as user 1000", words)?;
    ensure!(
        selftests::Task::read(life.pid).is_none(),
        "something of the tree is left"
    );
    Ok(())
}

fn of_another_user(b: &Bench<'_>) -> Result<()> {
    refused_to_user(
        b,
        "plain",
        &[
            "user ids [0, 0, 0, 0]",
            "group ids",
            "permitted capabilities",
        ],
    )
}

/// The user is the caller's, the capability is not.
fn with_a_capability(v: &Victim) -> Result<()> {
    own_directory(v, USER)?;
    prctl(libc::PR_SET_KEEPCAPS, 1)?;
    become_user([USER.into(); 3], [USER.into(); 3], &[])?;
    set_caps(1, 1, 0)?;
    v.stand()
}

fn more_capabilities(b: &Bench<'_>) -> Result<()> {
    refused_to_user(
        b,
        "with-a-capability",
        &["permitted capabilities 0x1 are more"],
    )
}

/// A user who is in more groups than one.
fn user_with_groups() -> io::Result<()> {
    let groups = [27, USER, 70_000];
    syscall(libc::SYS_setgroups, [3, groups.as_ptr() as i64, 0])?;
    syscall(libc::SYS_setgid, [USER.into(), 0, 0])?;
    syscall(libc::SYS_setuid, [USER.into(), 0, 0]).map(drop)
}

/// There the others have no name, and nobody may set them: the caller's stay.
fn groups_in_a_user_namespace(b: &Bench<'_>) -> Result<()> {
    chown(&b.dir, Some(USER), Some(USER))?;
    let mut command = b.command(b.case("user-with-groups")?)?;
    chown(b.path("log"), Some(USER), Some(USER))?;
    // SAFETY: these are system calls.
    unsafe { command.pre_exec(user_with_groups) };
    let mut life = b.start_with("user-with-groups", command)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    chown(&image, Some(USER), Some(USER))?;
    let rstr = b.rstr().args(["--new-pidns", "-i"]).arg(&image);
    life.restart_by(rstr.pre_exec(user_with_groups))?;
    life.passes()
}
