// SPDX-License-Identifier: GPL-2.0

//! Open files of namespaces.

use libc::{
    F_GETFD,
    F_GETFL,
    F_SETFL,
    O_CLOEXEC,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fcntl,
    open,
    owned, //
};
use selftests::{
    Bench,
    Process, //
};
use std::ffi::CString;
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("all", all),
        Case::new("flags", flags),
        Case::new("path", path),
        Case::new("enter", enter),
        Case::new("related", related),
    ],
    refusals: &[
        Refusal::new(
            "another",
            another,
            &["uts", "namespace that the tree is not in"],
        ),
        Refusal::new(
            "root",
            another_of_root,
            &["user", "namespace that the tree is not in"],
        ),
    ],
    customs: &[
        Custom {
            name: "new-pid-namespace",
            run: new_pid_namespace,
        },
        Custom {
            name: "mounted",
            run: mounted,
        },
    ],
    victims: &[
        Case::new("has-all", all).no_control(),
        Case::new("has-mounted", has_mounted).no_control(),
    ],
    ..Suite::new("namespace")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Names in /proc/PID/ns.
const NAMES: [&str; 10] = [
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
];

fn of(task: &str, name: &str) -> String {
    format!("/proc/{task}/ns/{name}")
}

/// The kind of namespace that a file is of, as a flag of clone(2).
fn kind(fd: &OwnedFd) -> Result<i32> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: no memory is involved.
    Ok(cvt(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) })?)
}

fn link(fd: &OwnedFd) -> Result<std::path::PathBuf> {
    Ok(fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
}

/// Checks that a file is of the namespace of this name that the caller is in.
fn is_own(fd: &OwnedFd, name: &str) -> Result<()> {
    let own = fs::metadata(of("self", name))?;
    let here = fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    same(name, (own.dev(), own.ino()), (here.dev(), here.ino()))
}

/// One of each kind, and a second descriptor of each.
fn all(v: &Victim) -> Result<()> {
    let mut files = Vec::new();
    for name in NAMES {
        // The machine may lack one.
        if let Ok(fd) = open(Path::new(&of("self", name)), O_RDONLY | O_CLOEXEC) {
            is_own(&fd, name)?;
            files.push((name, kind(&fd)?, fd));
        }
    }
    ensure!(files.len() >= 8, "only {} kinds", files.len());
    v.stand()?;
    for (name, was, fd) in &files {
        is_own(fd, name)?;
        same("kind", *was, kind(fd)?)?;
        same("name", fs::read_link(of("self", name))?, {
            let name = name.strip_suffix("_for_children").unwrap_or(name);
            let shown = link(fd)?;
            ensure!(
                shown.to_string_lossy().starts_with(&format!("{name}:[")),
                "{name}: {shown:?}"
            );
            shown
        })?;
    }
    Ok(())
}

/// What belongs to the descriptor, and what those of one open file share.
fn flags(v: &Victim) -> Result<()> {
    let net = Path::new("/proc/self/ns/net");
    let first = open(net, O_RDONLY)?;
    let other = open(net, O_RDONLY | O_CLOEXEC)?;
    // SAFETY: no memory is involved.
    let copy = owned(unsafe { libc::dup(first.as_raw_fd()) })?;
    fcntl(&copy, F_SETFL, O_NONBLOCK)?;
    let seen = |fd: &OwnedFd| -> Result<_> { Ok((fcntl(fd, F_GETFD, 0)?, fcntl(fd, F_GETFL, 0)?)) };
    let before = (seen(&first)?, seen(&other)?, seen(&copy)?);
    ensure!(before.0 .1 & O_NONBLOCK != 0, "{before:?}");
    v.stand()?;
    same(
        "flags",
        before,
        (seen(&first)?, seen(&other)?, seen(&copy)?),
    )?;
    fcntl(&copy, F_SETFL, 0)?;
    same("shared flags", 0, fcntl(&first, F_GETFL, 0)? & O_NONBLOCK)?;
    is_own(&first, "net")?;
    is_own(&other, "net")
}

/// O_PATH.
fn path(v: &Victim) -> Result<()> {
    let fd = open(Path::new("/proc/self/ns/ipc"), O_PATH | O_CLOEXEC)?;
    v.stand()?;
    ensure!(
        fcntl(&fd, F_GETFL, 0)? & O_PATH != 0,
        "it is open for more than its path"
    );
    is_own(&fd, "ipc")?;
    ensure!(kind(&fd).is_err(), "an ioctl succeeds");
    Ok(())
}

/// A way back: the file is kept, and another namespace is entered and left by it.
fn enter(v: &Victim) -> Result<()> {
    let back = open(Path::new("/proc/self/ns/uts"), O_RDONLY | O_CLOEXEC)?;
    let before = fs::read_to_string("/proc/sys/kernel/hostname")?;
    v.stand()?;
    // SAFETY: no memory is involved.
    match cvt(unsafe { libc::unshare(libc::CLONE_NEWUTS) }) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return skip("no uts namespaces"),
        other => other?,
    };
    // SAFETY: the name is valid.
    cvt(unsafe { libc::sethostname(c"elsewhere".as_ptr(), 9) })?;
    ensure!(is_own(&back, "uts").is_err(), "it is another's");
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::setns(back.as_raw_fd(), libc::CLONE_NEWUTS) })?;
    is_own(&back, "uts")?;
    same(
        "host name",
        before,
        fs::read_to_string("/proc/sys/kernel/hostname")?,
    )
}

/// The user namespace that another belongs to, as an ioctl has it.
fn related(v: &Victim) -> Result<()> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let uts = open(Path::new("/proc/self/ns/uts"), O_RDONLY | O_CLOEXEC)?;
    // SAFETY: no memory is involved.
    let user = owned(unsafe { libc::ioctl(uts.as_raw_fd(), NS_GET_USERNS) })?;
    is_own(&user, "user")?;
    v.stand()?;
    is_own(&user, "user")?;
    same("kind", libc::CLONE_NEWUSER, kind(&user)?)
}

/// A file of a namespace that a child has, which is gone.
fn of_child(flag: i32, name: &str) -> Result<OwnedFd> {
    let mut child = Process::fork(|| {
        // SAFETY: no memory is involved.
        match cvt(unsafe { libc::unshare(flag) }) {
            Ok(_) => loop {
                sys::nap(Duration::from_secs(1));
            },
            Err(_) => 1,
        }
    })?;
    let (own, theirs) = (of("self", name), of(&child.pid.to_string(), name));
    let own = fs::metadata(own)?.ino();
    let has = sys::until(Duration::from_secs(10), || {
        fs::metadata(&theirs).map_or(true, |found| found.ino() != own)
    });
    let Ok(fd) = open(Path::new(&theirs), O_RDONLY | O_CLOEXEC) else {
        return skip(format!("no {name} namespaces"));
    };
    sys::kill(child.pid, libc::SIGKILL)?;
    child.wait(Duration::from_secs(10))?;
    ensure!(has, "the child has no {name} namespace of its own");
    Ok(fd)
}

fn refused(v: &Victim, fd: &OwnedFd, name: &str) -> Result<()> {
    ensure!(is_own(fd, name).is_err(), "it is the own one");
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    Ok(())
}

fn another(v: &Victim) -> Result<()> {
    refused(v, &of_child(libc::CLONE_NEWUTS, "uts")?, "uts")
}

fn another_of_root(v: &Victim) -> Result<()> {
    refused(v, &of_child(libc::CLONE_NEWUSER, "user")?, "user")
}

/// In other namespaces than before, the files are of those.
fn new_pid_namespace(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-all")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    life.restart(&image, &["--new-pidns"])?;
    life.passes()
}

const MOUNTED: &str = "namespace";

/// It opens where the namespace is mounted.
fn has_mounted(v: &Victim) -> Result<()> {
    let at = v.path(MOUNTED);
    let fd = open(&at, O_RDONLY | O_CLOEXEC)?;
    same("kind", libc::CLONE_NEWNET, kind(&fd)?)?;
    v.stand()?;
    same("name", at, link(&fd)?)?;
    is_own(&fd, "net")
}

fn mounted(b: &Bench<'_>) -> Result<()> {
    let at = b.path(MOUNTED);
    fs::write(&at, "")?;
    let target = CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: the paths are C strings.
    cvt(unsafe {
        libc::mount(
            c"/proc/self/ns/net".as_ptr(),
            target.as_ptr(),
            ptr::null(),
            libc::MS_BIND,
            ptr::null(),
        )
    })?;
    let unmount = || {
        // SAFETY: the path is a C string.
        cvt(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
    };
    let result = restarted_where_mounted(b);
    unmount()?;
    let image = result?;
    // What is there now is an ordinary file.
    b.rstr()
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &[MOUNTED, "is none of the network namespace"])?;
    Ok(())
}

fn restarted_where_mounted(b: &Bench<'_>) -> Result<std::path::PathBuf> {
    let image = b.path("image");
    let mut life = b.start("has-mounted")?;
    life.checkpoint_and_kill(&image)?;
    life.restart(&image, &[])?;
    life.passes()?;
    Ok(image)
}
