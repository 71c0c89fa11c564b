// SPDX-License-Identifier: GPL-2.0

//! Files that are no longer what they were when the checkpoint was taken.

use libc::{
    LOCK_EX,
    LOCK_NB,
    MAP_PRIVATE,
    O_APPEND,
    O_CREAT,
    O_RDONLY,
    O_WRONLY,
    PROT_READ, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    open,
    write,
    Area, //
};
use selftests::{
    Bench,
    Life, //
};
use std::fs::{
    self,
    File, //
};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::SystemTime;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "unchanged",
            run: |b| accepted(b, "appends", |_| Ok(()), &[], "onetwo"),
        },
        Custom {
            name: "grown-refused",
            run: |b| refused(b, "appends", grow, &[], &["--files", DATA]),
        },
        Custom {
            name: "grown-refuse",
            run: |b| refused(b, "appends", grow, &["--files=refuse"], &["--files", DATA]),
        },
        Custom {
            name: "grown-keep",
            run: |b| accepted(b, "appends", grow, &["--files=keep"], "one+++two"),
        },
        Custom {
            name: "grown-truncate",
            run: |b| accepted(b, "appends", grow, &["--files=truncate"], "onetwo"),
        },
        Custom {
            name: "grown-locked",
            run: grown_locked,
        },
        Custom {
            name: "shorter",
            run: |b| refused(b, "appends", shorten, &[], &[DATA]),
        },
        Custom {
            name: "shorter-keep",
            run: |b| refused(b, "appends", shorten, &["--files=keep"], &[DATA]),
        },
        Custom {
            name: "shorter-truncate",
            run: |b| refused(b, "appends", shorten, &["--files=truncate"], &[DATA]),
        },
        Custom {
            name: "missing",
            run: |b| refused(b, "appends", remove, &[], &[DATA]),
        },
        Custom {
            name: "missing-truncate",
            run: |b| refused(b, "appends", remove, &["--files=truncate"], &[DATA]),
        },
        Custom {
            name: "other-kind",
            run: |b| refused(b, "appends", directory, &[], &[DATA]),
        },
        Custom {
            name: "read-only-changed",
            run: |b| refused(b, "reads", touch, &[], &[DATA]),
        },
        Custom {
            name: "read-only-changed-force",
            run: |b| accepted(b, "reads", touch, &["--force"], "one"),
        },
        Custom {
            name: "mapped-changed",
            run: |b| refused(b, "maps", touch, &[], &[DATA]),
        },
        Custom {
            name: "mapped-changed-force",
            run: |b| accepted(b, "maps", touch, &["--force"], "one"),
        },
        Custom {
            name: "mapped-missing",
            run: |b| refused(b, "maps", remove, &[], &[DATA]),
        },
        Custom {
            name: "bad-policy",
            run: bad_policy,
        },
    ],
    victims: &[
        Case::new("appends", appends),
        Case::new("locks", locks),
        Case::new("reads", reads),
        Case::new("maps", maps),
    ],
    ..Suite::new("files-policy")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Has to be in the messages.
const DATA: &str = "/data";

fn appends(v: &Victim) -> Result<()> {
    let fd = open(&v.path("data"), O_WRONLY | O_CREAT | O_APPEND)?;
    write(&fd, b"one")?;
    v.stand()?;
    same("write", 3, write(&fd, b"two")?)
}

fn locks(v: &Victim) -> Result<()> {
    let fd = open(&v.path("data"), O_WRONLY | O_CREAT | O_APPEND)?;
    write(&fd, b"one")?;
    flock(&fd)?;
    v.stand()
}

/// Takes the lock of a file that nobody else has.
fn flock(file: &impl AsRawFd) -> Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::flock(file.as_raw_fd(), LOCK_EX | LOCK_NB) }).context("flock")?;
    Ok(())
}

fn reads(v: &Victim) -> Result<()> {
    fs::write(v.path("data"), "one")?;
    let fd = open(&v.path("data"), O_RDONLY)?;
    v.stand()?;
    same("read", 3, sys::read(&fd, &mut [0; 10])?)
}

fn maps(v: &Victim) -> Result<()> {
    fs::write(v.path("data"), "one")?;
    let fd = open(&v.path("data"), O_RDONLY)?;
    let area = Area::map(sys::PAGE, PROT_READ, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
    drop(fd);
    v.stand()?;
    same("mapping", b"one", &area.bytes()[..3])
}

fn grow(b: &Bench<'_>) -> Result<()> {
    Ok(File::options()
        .append(true)
        .open(b.path("data"))?
        .write_all(b"+++")?)
}

fn shorten(b: &Bench<'_>) -> Result<()> {
    Ok(File::options()
        .write(true)
        .open(b.path("data"))?
        .set_len(2)?)
}

fn remove(b: &Bench<'_>) -> Result<()> {
    Ok(fs::remove_file(b.path("data"))?)
}

fn directory(b: &Bench<'_>) -> Result<()> {
    remove(b)?;
    Ok(fs::create_dir(b.path("data"))?)
}

/// Same contents, other time.
fn touch(b: &Bench<'_>) -> Result<()> {
    let later = SystemTime::now() + Duration::from_secs(100);
    Ok(File::options()
        .write(true)
        .open(b.path("data"))?
        .set_modified(later)?)
}

/// Checkpoints and kills the victim `name`, then changes its file.
fn changed<'a>(
    b: &'a Bench<'_>,
    name: &str,
    change: fn(&Bench<'_>) -> Result<()>,
) -> Result<Life<'a>> {
    let mut life = b.start(name)?;
    life.checkpoint_and_kill(&b.path("image"))?;
    change(b)?;
    Ok(life)
}

fn accepted(
    b: &Bench<'_>,
    name: &str,
    change: fn(&Bench<'_>) -> Result<()>,
    args: &[&str],
    contents: &str,
) -> Result<()> {
    let mut life = changed(b, name, change)?;
    life.restart(&b.path("image"), args)?;
    life.passes()?;
    same("file", contents, fs::read_to_string(b.path("data"))?)
}

/// The restart has to fail by name, to leave no task, and to leave the file as it found it.
fn refused(
    b: &Bench<'_>,
    name: &str,
    change: fn(&Bench<'_>) -> Result<()>,
    args: &[&str],
    words: &[&str],
) -> Result<()> {
    let life = changed(b, name, change)?;
    restart_refused(b, &life, args, words)
}

fn restart_refused(b: &Bench<'_>, life: &Life<'_>, args: &[&str], words: &[&str]) -> Result<()> {
    let before = fs::read(b.path("data")).ok();
    b.rstr()
        .args(args)
        .arg("-i")
        .arg(b.path("image"))
        .run()?
        .refused("rstr", words)?;
    let left = selftests::Task::read(life.pid);
    ensure!(left.is_none(), "the refused restart left {left:?}");
    same(
        "file after the refusal",
        before,
        fs::read(b.path("data")).ok(),
    )
}

/// What fails late, when the tree is all but complete, comes before the file is cut back.
fn grown_locked(b: &Bench<'_>) -> Result<()> {
    let mut life = changed(b, "locks", grow)?;
    let other = File::open(b.path("data"))?;
    flock(&other)?;
    restart_refused(b, &life, &["--files=truncate"], &[DATA, "lock"])?;
    drop(other);
    life.restart(&b.path("image"), &["--files=truncate"])?;
    life.passes()?;
    same("file", "one", fs::read_to_string(b.path("data"))?)
}

fn bad_policy(b: &Bench<'_>) -> Result<()> {
    let life = changed(b, "appends", |_| Ok(()))?;
    let rstr = b
        .rstr()
        .arg("--files=perhaps")
        .arg("-i")
        .arg(b.path("image"));
    rstr.run()?.refused("rstr", &["perhaps"])?;
    ensure!(selftests::Task::read(life.pid).is_none(), "a task was made");
    Ok(())
}
