// SPDX-License-Identifier: GPL-2.0

//! What leads outside the tree is refused, supplied or dropped, as the caller says; paths move.

use libc::{
    O_CLOEXEC,
    O_RDONLY,
    O_RDWR, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    open,
    owned,
    pipe,
    read,
    write, //
};
use selftests::{
    Bench,
    Life,
    Task,
    Tool, //
};
use std::fs::{
    self,
    File, //
};
use std::io::{
    Read,
    Write, //
};
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd, //
};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "pipe-refused",
            run: pipe_refused,
        },
        Custom {
            name: "pipe-supplied",
            run: pipe_supplied,
        },
        Custom {
            name: "all-supplied",
            run: all_supplied,
        },
        Custom {
            name: "not-supplied",
            run: not_supplied,
        },
        Custom {
            name: "another-kind",
            run: another_kind,
        },
        Custom {
            name: "another-direction",
            run: another_direction,
        },
        Custom {
            name: "pipe-dropped",
            run: pipe_dropped,
        },
        Custom {
            name: "pidfd-supplied",
            run: pidfd_supplied,
        },
        Custom {
            name: "file-supplied",
            run: file_supplied,
        },
        Custom {
            name: "relocated",
            run: relocated,
        },
    ],
    victims: &[
        Case::new("says-hello", says_hello).no_control(),
        Case::new("finds-the-end", finds_the_end).no_control(),
        Case::new("has-pidfd", has_pidfd).no_control(),
        Case::new("has-file", has_file).no_control(),
        Case::new("has-paths", has_paths).no_control(),
    ],
    ..Suite::new("external")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// The descriptor that the runner gives to the victim, and that the victim has once more.
const GIVEN: i32 = 5;
const COPY: i32 = 7;

fn given(number: i32) -> OwnedFd {
    // SAFETY: the runner, or the victim itself, put it there, and it is used once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Writes into what it was given, and into its copy.
fn says_hello(v: &Victim) -> Result<()> {
    let fd = given(GIVEN);
    // SAFETY: no memory is involved, and the number is free.
    cvt(unsafe { libc::dup3(GIVEN, COPY, O_CLOEXEC) })?;
    let copy = given(COPY);
    v.ready_fd(GIVEN)?;
    v.wait();
    same("write", 5, write(&fd, b"hello")?)?;
    same("write of the copy", 6, write(&copy, b" again")?)
}

/// Reads what it was given: what is in it, then the end.
fn finds_the_end(v: &Victim) -> Result<()> {
    let fd = given(GIVEN);
    v.stand()?;
    let mut bytes = [0; 10];
    same("read", 4, read(&fd, &mut bytes)?)?;
    same("data", b"last", &bytes[..4])?;
    same("read at the end", 0, read(&fd, &mut bytes)?)
}

/// A pidfd of its parent.
fn has_pidfd(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let fd = sys::pidfd(unsafe { libc::getppid() })?;
    // SAFETY: no memory is involved, and the number is free.
    let fd = owned(unsafe { libc::dup3(fd.as_raw_fd(), GIVEN, O_CLOEXEC) })?;
    v.stand()?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{GIVEN}"))?;
    let wanted = fs::read_to_string(v.path("pid"))?;
    ensure!(
        info.lines().any(|line| line == format!("Pid:\t{wanted}")),
        "process {wanted} wanted: {info}"
    );
    drop(fd);
    Ok(())
}

/// A file that only this victim has; the restarter supplies another.
fn has_file(v: &Victim) -> Result<()> {
    fs::write(v.path("one"), "one")?;
    let fd = open(&v.path("one"), O_RDONLY)?;
    // SAFETY: no memory is involved, and the number is free.
    let fd = owned(unsafe { libc::dup3(fd.as_raw_fd(), GIVEN, O_CLOEXEC) })?;
    v.stand()?;
    let mut bytes = [0; 10];
    same("read", 3, read(&fd, &mut bytes)?)?;
    same("data", b"two", &bytes[..3])
}

/// A directory, a file, a fifo and a mapping in it, and itself as working directory.
fn has_paths(v: &Victim) -> Result<()> {
    let old = v.path("old");
    fs::create_dir(&old)?;
    fs::write(old.join("file"), "data")?;
    fs::write(old.join("mapped"), [9; sys::PAGE])?;
    sys::mkfifo(&old.join("fifo"))?;
    let log = v.path("log");
    let file = open(&old.join("file"), O_RDONLY)?;
    let fifo = open(&old.join("fifo"), O_RDWR)?;
    let dir = open(&old, O_RDONLY)?;
    let area = {
        let fd = open(&old.join("mapped"), O_RDONLY)?;
        sys::Area::map(
            sys::PAGE,
            libc::PROT_READ,
            libc::MAP_SHARED,
            fd.as_raw_fd(),
            0,
        )?
    };
    std::env::set_current_dir(&old)?;
    v.stand()?;
    let new = v.path("new");
    same("working directory", new.clone(), std::env::current_dir()?)?;
    for (fd, path) in [
        (&file, new.join("file")),
        (&fifo, new.join("fifo")),
        (&dir, new.clone()),
    ] {
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        same("link", path, link)?;
    }
    same("byte of the mapping", 9, area.bytes()[100])?;
    ensure!(log.exists(), "the log was elsewhere");
    same("read", 4, read(&file, &mut [0; 10])?)
}

/// Starts victim `name`, whose descriptor 5 is `fd`.
fn start<'a>(b: &'a Bench<'_>, name: &str, fd: &OwnedFd) -> Result<Life<'a>> {
    let mut command = b.command(b.case(name)?)?;
    let fd = fd.as_raw_fd();
    // SAFETY: a system call is all the child does.
    unsafe {
        command.pre_exec(move || sys::give(fd, GIVEN));
    }
    b.start_with(name, command)
}

/// An rstr of the image whose descriptor 90 is `fd`.
fn rstr(b: &Bench<'_>, fd: &impl AsRawFd) -> Tool {
    b.rstr().arg("-i").arg(b.path("image")).with_fd(90, fd)
}

/// The restart has to fail by name and to leave no task.
fn refused(life: &Life<'_>, rstr: Tool, words: &[&str]) -> Result<()> {
    rstr.run()?.refused("rstr", words)?;
    let left = Task::read(life.pid);
    ensure!(left.is_none(), "the refused restart left {left:?}");
    Ok(())
}

fn pipe_of_files() -> Result<(File, File)> {
    let (r, w) = pipe(O_CLOEXEC)?;
    Ok((r.into(), w.into()))
}

fn pipe_refused(b: &Bench<'_>) -> Result<()> {
    let (mut r, w) = pipe_of_files()?;
    let mut life = start(b, "says-hello", &w.into())?;
    let place = format!("task {}/fd {GIVEN}", life.pid);
    let words = [&place, "pipe", "outside the tree", "--external", "--drop"];
    b.refuses(life.pid, &words)?;
    life.passes()?;
    let mut text = String::new();
    r.read_to_string(&mut text)?;
    same("text", "hello again", text.as_str())
}

/// Checkpoints and kills a victim that holds a pipe of the runner.
fn gone<'a>(b: &'a Bench<'_>, args: &[&str]) -> Result<Life<'a>> {
    let (_r, w) = pipe(O_CLOEXEC)?;
    let mut life = start(b, "says-hello", &w)?;
    let mut all = vec!["--kill"];
    all.extend(args);
    life.checkpoint(&all, &b.path("image"))?;
    life.reap()?;
    Ok(life)
}

/// Named by one number, supplied for the other: it is one open file.
fn pipe_supplied(b: &Bench<'_>) -> Result<()> {
    let mut life = gone(b, &["--external", "7"])?;
    let (mut r, w) = pipe_of_files()?;
    life.restart_by(rstr(b, &w).args(["--inherit-fd", "5=90"]))?;
    drop(w);
    life.passes()?;
    let mut text = String::new();
    r.read_to_string(&mut text)?;
    same("text", "hello again", text.as_str())
}

/// Each number gets its own.
fn all_supplied(b: &Bench<'_>) -> Result<()> {
    let mut life = gone(b, &["--external=all"])?;
    let ((mut r, w), (mut r2, w2)) = (pipe_of_files()?, pipe_of_files()?);
    let pid = life.pid;
    life.restart_by(rstr(b, &w).with_fd(91, &w2).args([
        "--inherit-fd",
        &format!("{pid}:5=90"),
        "--inherit-fd",
        "7=91",
    ]))?;
    drop((w, w2));
    life.passes()?;
    let mut text = String::new();
    r.read_to_string(&mut text)?;
    same("text", "hello", text.as_str())?;
    text.clear();
    r2.read_to_string(&mut text)?;
    same("text of the copy", " again", text.as_str())
}

fn not_supplied(b: &Bench<'_>) -> Result<()> {
    let life = gone(b, &["--external=all"])?;
    let null = File::open("/dev/null")?;
    let words = ["fd 5", "pipe", "--inherit-fd 5=N"];
    refused(&life, rstr(b, &null), &words)
}

fn another_kind(b: &Bench<'_>) -> Result<()> {
    let life = gone(b, &["--external=all"])?;
    let null = File::options().write(true).open("/dev/null")?;
    let rstr = rstr(b, &null).args(["--inherit-fd", "5=90"]);
    refused(&life, rstr, &["fd 5", "of another kind"])
}

fn another_direction(b: &Bench<'_>) -> Result<()> {
    let life = gone(b, &["--external=all"])?;
    let (r, _w) = pipe(O_CLOEXEC)?;
    let rstr = rstr(b, &r).args(["--inherit-fd", "5=90"]);
    refused(&life, rstr, &["fd 5", "not open for writing"])
}

/// What is in it is still there, and then it ends.
fn pipe_dropped(b: &Bench<'_>) -> Result<()> {
    let (r, mut w) = pipe_of_files()?;
    w.write_all(b"last")?;
    let mut life = start(b, "finds-the-end", &r.into())?;
    life.checkpoint(&["--kill", "--drop", "5"], &b.path("image"))?;
    life.reap()?;
    life.restart(&b.path("image"), &[])?;
    life.passes()
}

fn pidfd_supplied(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-pidfd")?;
    life.checkpoint(&["--kill", "--external=all"], &b.path("image"))?;
    life.reap()?;
    fs::write(b.path("pid"), "1")?;
    let own = pipe(O_CLOEXEC)?.0;
    let args = ["--inherit-fd", "5=90"];
    refused(&life, rstr(b, &own).args(args), &["of another kind"])?;
    life.restart_by(rstr(b, &sys::pidfd(1)?).args(args))?;
    life.passes()
}

/// Any open file can be named.
fn file_supplied(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-file")?;
    life.checkpoint(&["--kill", "--external", "5"], &b.path("image"))?;
    life.reap()?;
    fs::remove_file(b.path("one"))?;
    fs::write(b.path("two"), "two")?;
    let two = File::open(b.path("two"))?;
    life.restart_by(rstr(b, &two).args(["--inherit-fd", "5=90"]))?;
    life.passes()
}

fn relocated(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("has-paths")?;
    life.checkpoint_and_kill(&b.path("image"))?;
    let (old, new) = (b.path("old"), b.path("new"));
    fs::rename(&old, &new)?;
    let restart = |from: &str, to: &str| {
        let relocate = format!("{}{from}={}{to}", old.display(), new.display());
        let rstr = b.rstr().arg("-i").arg(b.path("image"));
        rstr.arg("--relocate").arg(relocate)
    };
    // A part of a name is no directory.
    fs::create_dir(b.path("ol"))?;
    let part = format!("{}={}", b.path("ol").display(), b.path("ne").display());
    let rstr = b.rstr().arg("-i").arg(b.path("image"));
    refused(&life, rstr.arg("--relocate").arg(part), &["ENOENT", "/old"])?;
    life.restart_by(restart("", "/"))?;
    life.passes()
}
