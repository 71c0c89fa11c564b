// SPDX-License-Identifier: GPL-2.0

//! Fifos that only the tree has open.

use libc::{
    O_NONBLOCK,
    O_RDONLY,
    O_RDWR,
    O_WRONLY, //
};
use selftests::prelude::*;
use selftests::sys::{
    fails_with,
    fcntl,
    fill,
    mkfifo,
    open,
    read,
    verify,
    write, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process,
    Task, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("both-directions", both_directions),
        Case::new("unread-data", unread_data),
        Case::new("readers-and-writers", readers_and_writers),
        Case::new("two-names", two_names),
        Case::new("never-written", never_written),
        Case::new("writer-closed", writer_closed),
        Case::new("reader-closed", reader_closed),
        Case::new("waits-for-a-reader", waits_for_a_reader),
    ],
    refusals: &[Refusal::new("unlinked", unlinked, &["unlinked"])],
    customs: &[
        Custom {
            name: "missing",
            run: |b| refused(b, remove, &["fifo", "ENOENT"]),
        },
        Custom {
            name: "no-fifo-any-more",
            run: |b| refused(b, replace, &["is no fifo any more"]),
        },
        Custom {
            name: "in-use",
            run: in_use,
        },
    ],
    victims: &[Case::new("plain", unread_data)],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("fifo")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A fifo of this case.
fn fifo(v: &Victim) -> Result<PathBuf> {
    let path = v.path("fifo");
    mkfifo(&path)?;
    Ok(path)
}

/// What poll(2) says at once.
fn polled(fd: &OwnedFd) -> Result<i16> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: there is one entry.
    sys::cvt(unsafe { libc::poll(&mut poll, 1, 0) })?;
    Ok(poll.revents)
}

fn both_directions(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let both = open(&path, O_RDWR)?;
    write(&both, b"kept")?;
    v.stand()?;
    let mut bytes = [0; 10];
    same("read", 4, read(&both, &mut bytes)?)?;
    same("data", b"kept", &bytes[..4])?;
    let (here, there) = (
        fs::metadata(format!("/proc/self/fd/{}", both.as_raw_fd()))?,
        fs::metadata(&path)?,
    );
    same(
        "inode",
        (there.dev(), there.ino()),
        (here.dev(), here.ino()),
    )
}

fn unread_data(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let r = open(&path, O_RDONLY | O_NONBLOCK)?;
    let w = open(&path, O_WRONLY)?;
    let mut bytes = vec![0; 30_000];
    fill(&mut bytes, 1);
    write(&w, &bytes)?;
    let flags = [&r, &w].map(|fd| fcntl(fd, libc::F_GETFL, 0).ok());
    v.stand()?;
    same(
        "flags",
        flags,
        [&r, &w].map(|fd| fcntl(fd, libc::F_GETFL, 0).ok()),
    )?;
    let mut seen = vec![0; 40_000];
    same("read", 30_000, read(&r, &mut seen)?)?;
    verify("data", &seen[..30_000], 1)?;
    ensure!(
        fails_with(read(&r, &mut seen), libc::EAGAIN),
        "there is more"
    );
    drop(w);
    same("read at the end", 0, read(&r, &mut seen)?)
}

/// Each open file counts: the end comes with the last writer, EPIPE with the last reader.
fn readers_and_writers(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let readers = [(); 2].map(|()| open(&path, O_RDONLY | O_NONBLOCK));
    let [r1, r2] = readers;
    let (r1, r2) = (r1?, r2?);
    let (w1, w2) = (open(&path, O_WRONLY)?, open(&path, O_WRONLY)?);
    v.stand()?;
    write(&w1, b"one")?;
    drop(w1);
    let mut bytes = [0; 10];
    same("read", 3, read(&r1, &mut bytes)?)?;
    ensure!(
        fails_with(read(&r2, &mut bytes), libc::EAGAIN),
        "no writer is left"
    );
    drop(r1);
    write(&w2, b"two")?;
    same("read by the other", 3, read(&r2, &mut bytes)?)?;
    drop(r2);
    ensure!(
        fails_with(write(&w2, b"x"), libc::EPIPE),
        "a reader is left"
    );
    Ok(())
}

/// Hard links are one fifo.
fn two_names(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let other = v.path("other");
    fs::hard_link(&path, &other)?;
    let r = open(&path, O_RDONLY | O_NONBLOCK)?;
    let w = open(&other, O_WRONLY)?;
    write(&w, b"through")?;
    v.stand()?;
    write(&w, b" it")?;
    let mut bytes = [0; 20];
    same("read", 10, read(&r, &mut bytes)?)?;
    same("data", b"through it", &bytes[..10])
}

/// poll(2) shows no hang-up until a writer has been there.
fn never_written(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let r = open(&path, O_RDONLY | O_NONBLOCK)?;
    same("before", 0, polled(&r)?)?;
    v.stand()?;
    same("events", 0, polled(&r)?)?;
    drop(open(&path, O_WRONLY)?);
    same("events after a writer", libc::POLLHUP, polled(&r)?)
}

fn writer_closed(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let r = open(&path, O_RDONLY | O_NONBLOCK)?;
    write(&open(&path, O_WRONLY)?, b"last words")?;
    v.stand()?;
    same("events", libc::POLLIN | libc::POLLHUP, polled(&r)?)?;
    let mut bytes = [0; 20];
    same("read", 10, read(&r, &mut bytes)?)?;
    same("data", b"last words", &bytes[..10])?;
    same("read at the end", 0, read(&r, &mut bytes)?)
}

fn reader_closed(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let r = open(&path, O_RDONLY | O_NONBLOCK)?;
    let w = open(&path, O_WRONLY)?;
    drop(r);
    v.stand()?;
    ensure!(
        fails_with(write(&w, b"x"), libc::EPIPE),
        "somebody can read"
    );
    let r = open(&path, O_RDONLY | O_NONBLOCK)?;
    write(&w, b"y")?;
    same("read by a new reader", 1, read(&r, &mut [0; 5])?)
}

/// open(2) of a child blocks until the parent opens the other end.
fn waits_for_a_reader(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let written = open(&path, O_WRONLY).and_then(|w| write(&w, b"at last"));
        i32::from(!matches!(written, Ok(7)))
    })?;
    drop(numbers);
    // It blocks after a while, or not yet: both go on.
    v.stand()?;
    let r = open(&path, O_RDONLY)?;
    let mut bytes = [0; 10];
    same("read", 7, read(&r, &mut bytes)?)?;
    same("data", b"at last", &bytes[..7])?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the writer ended with {status}");
    Ok(())
}

fn unlinked(v: &Victim) -> Result<()> {
    let path = fifo(v)?;
    let both = open(&path, O_RDWR)?;
    fs::remove_file(&path)?;
    v.ready_fd(both.as_raw_fd())?;
    v.wait();
    write(&both, b"x")?;
    same("read", 1, read(&both, &mut [0; 2])?)
}

fn remove(b: &Bench<'_>) -> Result<()> {
    Ok(fs::remove_file(b.path("fifo"))?)
}

fn replace(b: &Bench<'_>) -> Result<()> {
    remove(b)?;
    Ok(fs::write(b.path("fifo"), "text")?)
}

/// The restart has to fail by name and to leave no task.
fn refused(b: &Bench<'_>, change: fn(&Bench<'_>) -> Result<()>, words: &[&str]) -> Result<()> {
    let mut life = b.start("plain")?;
    life.checkpoint_and_kill(&b.path("image"))?;
    change(b)?;
    let rstr = b.rstr().arg("-i").arg(b.path("image"));
    rstr.run()?.refused("rstr", words)?;
    let left = Task::read(life.pid);
    ensure!(left.is_none(), "the refused restart left {left:?}");
    Ok(())
}

/// What is in the tree's fifo is not mixed with what others have in theirs.
fn in_use(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("plain")?;
    life.checkpoint_and_kill(&b.path("image"))?;
    let other = open(&b.path("fifo"), O_RDWR)?;
    let rstr = || b.rstr().arg("-i").arg(b.path("image"));
    rstr()
        .run()?
        .refused("rstr", &["fifo", "others have it open"])?;
    ensure!(
        fails_with(
            {
                fcntl(&other, libc::F_SETFL, O_NONBLOCK)?;
                read(&other, &mut [0; 1])
            },
            libc::EAGAIN
        ),
        "the refused restart left data in the fifo"
    );
    drop(other);
    life.restart_by(rstr())?;
    life.passes()
}
