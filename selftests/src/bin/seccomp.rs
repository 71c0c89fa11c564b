// SPDX-License-Identifier: GPL-2.0

//! Seccomp: filters stay in force, with the sharing that threads rely on; strict mode.

use selftests::prelude::*;
use selftests::sys::{
    cvt,
    getpid,
    gettid,
    owned,
    pipe,
    read,
    write, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::{
    CommandExt,
    ExitStatusExt, //
};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("filter", filter),
        Case::new("chain", chain),
        Case::new("threads", threads),
        Case::new("privileged", privileged),
        Case::new("strict", strict),
        Case::new("strict-kills", strict_kills),
    ],
    refusals: &[Refusal::new(
        "listener",
        listener,
        &["seccomp filter with a listener"],
    )],
    customs: &[
        Custom {
            name: "restarter-with-the-same-filter",
            run: same_filter,
        },
        Custom {
            name: "restarter-with-another-filter",
            run: another_filter,
        },
    ],
    victims: &[
        Case::new("two-filters", two_filters).no_control(),
        Case::new("one-more-filter", one_more_filter).no_control(),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("seccomp")
};

fn main() -> ExitCode {
    SUITE.main()
}

const fn insn(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Answers system call `number` with the error `errno`, and lets all others pass.
fn deny(number: libc::c_long, errno: i32) -> [libc::sock_filter; 4] {
    [
        // The number of the call.
        insn(0x20, 0, 0, 0),
        insn(0x15, 0, 1, number as u32),
        insn(6, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        insn(6, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// seccomp(SECCOMP_SET_MODE_FILTER).
fn install(program: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<i32> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program is valid, and the kernel only reads it.
    cvt(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &program,
        )
    })
    .map(|ret| ret as i32)
}

fn no_new_privs() -> io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Mode and number of filters, as the kernel shows them.
fn shown(tid: i32) -> Result<(String, String)> {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/status"))?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
            .context("no seccomp")
    };
    Ok((field("Seccomp:")?, field("Seccomp_filters:")?))
}

fn mode(mode: i32, filters: usize) -> (String, String) {
    (mode.to_string(), filters.to_string())
}

/// Calls with numbers that nobody needs here, so that filters may deny them.
const A: libc::c_long = libc::SYS_getpgid;
const B: libc::c_long = libc::SYS_getpriority;
const C: libc::c_long = libc::SYS_alarm;

fn call(number: libc::c_long) -> io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::syscall(number, 0, 0) }).map(drop)
}

fn denied(number: libc::c_long, errno: i32) -> Result<()> {
    match call(number) {
        Err(e) if e.raw_os_error() == Some(errno) => Ok(()),
        other => bail!("call {number}: {other:?} instead of error {errno}"),
    }
}

fn filter(v: &Victim) -> Result<()> {
    no_new_privs()?;
    install(&deny(A, libc::EDOM), libc::SECCOMP_FILTER_FLAG_LOG)?;
    denied(A, libc::EDOM)?;
    v.stand()?;
    denied(A, libc::EDOM)?;
    call(B)?;
    same("seccomp", mode(2, 1), shown(getpid())?)
}

/// A child adds a filter to those that it inherited.
fn chain(v: &Victim) -> Result<()> {
    no_new_privs()?;
    install(&deny(A, libc::EDOM), 0)?;
    install(&deny(B, libc::ENOTTY), 0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let result = || -> Result<()> {
            install(&deny(C, libc::EXDEV), 0)?;
            v.wait();
            denied(A, libc::EDOM)?;
            denied(B, libc::ENOTTY)?;
            denied(C, libc::EXDEV)?;
            same("seccomp of the child", mode(2, 3), shown(getpid())?)
        };
        i32::from(result().is_err())
    })?;
    drop(numbers);
    let filters = || {
        let text = fs::read_to_string(format!("/proc/{}/status", child.pid));
        text.is_ok_and(|text| text.contains("Seccomp_filters:\t3"))
    };
    ensure!(
        sys::until(Duration::from_secs(10), filters),
        "the child has no filter of its own"
    );
    v.stand()?;
    denied(A, libc::EDOM)?;
    denied(B, libc::ENOTTY)?;
    call(C)?;
    same("seccomp", mode(2, 2), shown(getpid())?)?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child is not as it was");
    Ok(())
}

/// What one thread installs for all needs that the others have the same filters, not only equal ones.
fn threads(v: &Victim) -> Result<()> {
    const TSYNC: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_TSYNC;
    no_new_privs()?;
    install(&deny(A, libc::EDOM), 0)?;
    let (tell, told) = mpsc::channel();
    let start = |own: Option<libc::c_long>| {
        let (go, wait) = mpsc::channel::<()>();
        let tell = tell.clone();
        let thread = thread::spawn(move || -> Result<()> {
            if let Some(number) = own {
                install(&deny(number, libc::EXDEV), 0)?;
            }
            tell.send(gettid())?;
            wait.recv()?;
            denied(A, libc::EDOM)?;
            denied(B, libc::ENOTTY)?;
            if let Some(number) = own {
                denied(number, libc::EXDEV)?;
            }
            Ok(())
        });
        (go, thread)
    };
    let numbers = NumbersThatFollow::choose();
    let first = start(None);
    let tid = told.recv()?;
    drop(numbers);
    v.stand()?;
    same("seccomp of the other", mode(2, 1), shown(tid)?)?;
    same(
        "filters for all threads",
        0,
        install(&deny(B, libc::ENOTTY), TSYNC)?,
    )?;
    denied(B, libc::ENOTTY)?;
    // A thread with a filter of its own stands in the way, and is named.
    let second = start(Some(C));
    let other = told.recv()?;
    same(
        "thread that prevents it",
        other,
        install(&deny(C, libc::EXDEV), TSYNC)?,
    )?;
    for (go, thread) in [first, second] {
        go.send(())?;
        thread.join().expect("the thread panicked")?;
    }
    Ok(())
}

/// Without no_new_privs, as root may do it.
fn privileged(v: &Victim) -> Result<()> {
    install(&deny(A, libc::EDOM), 0)?;
    v.stand()?;
    denied(A, libc::EDOM)?;
    // SAFETY: no memory is involved.
    same(
        "no_new_privs",
        0,
        cvt(unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) })?,
    )
}

/// A child in strict mode, which may read, write and exit.
fn strict_child(
    last: libc::c_long,
) -> Result<(Process, std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    let (to_read, to) = pipe(0)?;
    let (from, from_write) = pipe(0)?;
    let numbers = NumbersThatFollow::choose();
    let child = Process::fork(|| {
        let mut byte = [0];
        // SAFETY: read and write have a valid buffer; nothing but those and `last` is called.
        unsafe {
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0);
            libc::write(from_write.as_raw_fd(), byte.as_ptr().cast(), 1);
            libc::read(to_read.as_raw_fd(), byte.as_mut_ptr().cast(), 1);
            byte[0] += 1;
            libc::write(from_write.as_raw_fd(), byte.as_ptr().cast(), 1);
            libc::syscall(last, 5);
        }
        0
    })?;
    drop(numbers);
    same("read", 1, read(&from, &mut [0])?)?;
    Ok((child, to, from))
}

fn strict(v: &Victim) -> Result<()> {
    let (mut child, to, from) = strict_child(libc::SYS_exit)?;
    v.stand()?;
    let text = fs::read_to_string(format!("/proc/{}/status", child.pid))?;
    ensure!(
        text.contains("Seccomp:\t1"),
        "the child is not in strict mode"
    );
    write(&to, &[41])?;
    let mut byte = [0];
    same("read", 1, read(&from, &mut byte)?)?;
    same("answer", 42, byte[0])?;
    same(
        "how the child ended",
        Some(5),
        child.wait(Duration::from_secs(10))?.code(),
    )
}

/// What it may not call ends it.
fn strict_kills(v: &Victim) -> Result<()> {
    let (mut child, to, from) = strict_child(libc::SYS_getpid)?;
    v.stand()?;
    write(&to, &[41])?;
    same("read", 1, read(&from, &mut [0])?)?;
    same(
        "how the child ended",
        Some(libc::SIGKILL),
        child.wait(Duration::from_secs(10))?.signal(),
    )
}

/// Another process decides about a system call, here nobody.
fn listener(v: &Victim) -> Result<()> {
    const NEW_LISTENER: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    no_new_privs()?;
    let mut program = deny(A, 0);
    program[2].k = libc::SECCOMP_RET_USER_NOTIF;
    let _listener = owned(install(&program, NEW_LISTENER)?)?;
    v.stand()?;
    same("seccomp", mode(2, 1), shown(getpid())?)
}

/// What whoever starts a victim or restarts it has installed.
fn imposed() -> io::Result<()> {
    install(&deny(A, libc::EDOM), 0).map(drop)
}

/// One was imposed when it was started.
fn two_filters(v: &Victim) -> Result<()> {
    no_new_privs()?;
    install(&deny(B, libc::ENOTTY), 0)?;
    same("seccomp", mode(2, 2), shown(getpid())?)?;
    v.stand()?;
    denied(A, libc::EDOM)?;
    denied(B, libc::ENOTTY)?;
    same("seccomp", mode(2, 2), shown(getpid())?)
}

/// Another is imposed when it is restarted.
fn one_more_filter(v: &Victim) -> Result<()> {
    no_new_privs()?;
    install(&deny(B, libc::ENOTTY), 0)?;
    v.stand()?;
    denied(A, libc::EDOM)?;
    denied(B, libc::ENOTTY)?;
    same("seccomp", mode(2, 2), shown(getpid())?)
}

fn restarted_by_the_filtered(b: &Bench<'_>, mut life: selftests::Life<'_>) -> Result<()> {
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    let rstr = b.rstr().arg("-i").arg(&image).pre_exec(imposed);
    life.restart_by(rstr)?;
    life.passes()
}

/// It is not added twice.
fn same_filter(b: &Bench<'_>) -> Result<()> {
    let mut command = b.command(b.case("two-filters")?)?;
    // SAFETY: installing a filter is async-signal-safe.
    unsafe { command.pre_exec(imposed) };
    restarted_by_the_filtered(b, b.start_with("two-filters", command)?)
}

/// It is not given up.
fn another_filter(b: &Bench<'_>) -> Result<()> {
    restarted_by_the_filtered(b, b.start("one-more-filter")?)
}
