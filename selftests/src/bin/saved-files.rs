// SPDX-License-Identifier: GPL-2.0

//! Executables and mapped files that the image takes along (`ckpt --save-files`).

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    O_RDONLY,
    O_RDWR,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    open,
    read,
    seek,
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
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{
    Command,
    ExitCode,
    Stdio, //
};

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "missing",
            run: |b| comes_back(b, missing),
        },
        Custom {
            name: "changed",
            run: |b| comes_back(b, changed),
        },
        Custom {
            name: "directory-missing",
            run: |b| comes_back(b, hidden),
        },
        Custom {
            name: "in-place",
            run: in_place,
        },
        Custom {
            name: "two-cycles",
            run: two_cycles,
        },
        Custom {
            name: "written",
            run: written,
        },
        Custom {
            name: "not-saved",
            run: not_saved,
        },
    ],
    victims: &[Case::new("reader", reader), Case::new("writer", writer)],
    ..Suite::new("saved-files")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Pages of the file that the victim maps: data, a hole, and a part of one at the end.
const PAGES: usize = 40;
const HOLE: std::ops::Range<usize> = 10..20;
const LENGTH: usize = PAGES * sys::PAGE - 1000;

fn byte(at: usize) -> u8 {
    if at < LENGTH && !HOLE.contains(&(at / sys::PAGE)) {
        (at % 251) as u8 + 1
    } else {
        0
    }
}

/// Where the files are that are to come from the image, below the directory of the test.
const FILES: &str = "files";
const DATA: &str = "files/data";
const PROGRAM: &str = "files/program";

/// Makes the directory with the file that is mapped, unless it is there.
fn prepare(dir: &Path) -> Result<()> {
    if dir.exists() {
        return Ok(());
    }
    fs::create_dir(dir)?;
    let file = File::create(dir.join("data"))?;
    let data: Vec<_> = (0..LENGTH).map(byte).collect();
    let (start, end) = (HOLE.start * sys::PAGE, HOLE.end * sys::PAGE);
    file.write_all_at(&data[..start], 0)?;
    file.write_all_at(&data[end..], end as u64)?;
    Ok(())
}

fn map(fd: &OwnedFd, prot: i32, flags: i32) -> Result<&'static [u8]> {
    let area = Area::map(PAGES * sys::PAGE, prot, flags, fd.as_raw_fd(), 0)?;
    // SAFETY: the mapping stays, and the victim has one thread.
    Ok(unsafe { std::slice::from_raw_parts(area.addr, area.len) })
}

/// Maps a file for reading: shared, and privately with a page that it has written.
fn reader(v: &Victim) -> Result<()> {
    prepare(&v.path(FILES))?;
    let fd = open(&v.path(DATA), O_RDONLY)?;
    let shared = map(&fd, PROT_READ, MAP_SHARED)?;
    let own = Area::map(
        PAGES * sys::PAGE,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE,
        fd.as_raw_fd(),
        0,
    )?
    .bytes();
    own[5 * sys::PAGE] = 200;
    seek(&fd, 77, libc::SEEK_SET)?;
    v.stand()?;
    let mut expected: Vec<_> = (0..PAGES * sys::PAGE).map(byte).collect();
    ensure!(shared == expected, "the shared mapping differs");
    expected[5 * sys::PAGE] = 200;
    ensure!(own == expected, "the private mapping differs");
    let mut next = [0; 3];
    same("bytes", 3, read(&fd, &mut next)?)?;
    same("position", [byte(77), byte(78), byte(79)], next)?;
    let program = fs::read("/proc/self/exe")?;
    ensure!(program.starts_with(b"\x7fELF"), "another executable");
    Ok(())
}

/// Has a file open that it writes.
fn writer(v: &Victim) -> Result<()> {
    prepare(&v.path(FILES))?;
    let fd = open(&v.path(DATA), O_RDWR)?;
    let shared = map(&fd, PROT_READ | PROT_WRITE, MAP_SHARED)?;
    v.stand()?;
    same("byte", byte(77), shared[77])
}

/// Starts a victim whose executable and data are in [`FILES`].
fn start<'b>(b: &'b Bench<'_>, name: &str) -> Result<Life<'b>> {
    prepare(&b.path(FILES))?;
    fs::copy(std::env::current_exe()?, b.path(PROGRAM))?;
    let mut command = Command::new(b.path(PROGRAM));
    command.args(["--victim", name]).arg(&b.dir);
    command.current_dir(&b.dir).stdin(Stdio::null());
    command
        .stdout(File::create(b.path("log"))?)
        .stderr(Stdio::null());
    b.start_with(name, command)
}

/// The victim comes back after `harm` has been done to each of its files.
fn comes_back(b: &Bench<'_>, harm: fn(&Path) -> Result<()>) -> Result<()> {
    let mut life = start(b, "reader")?;
    let image = b.path("image");
    kill_with_files(&mut life, &image)?;
    harm(&b.path(DATA))?;
    harm(&b.path(PROGRAM))?;
    let done = life.restart_detached(&image, &[])?;
    for file in [DATA, PROGRAM] {
        let file = b.path(file).display().to_string();
        let said = done
            .said
            .lines()
            .any(|line| line.contains(&file) && line.contains("come from the image"));
        ensure!(said, "nothing is said of {file}: {}", done.said);
    }
    life.passes()
}

fn kill_with_files(life: &mut Life<'_>, image: &Path) -> Result<()> {
    life.checkpoint(&["--save-files", "--kill"], image)?;
    same("signal", Some(libc::SIGKILL), life.reap()?.signal())
}

fn missing(file: &Path) -> Result<()> {
    Ok(fs::remove_file(file)?)
}

fn changed(file: &Path) -> Result<()> {
    Ok(fs::write(file, "this is something else\n")?)
}

/// The directory of the file is none any more.
fn hidden(file: &Path) -> Result<()> {
    let dir = file.parent().context("no directory")?;
    if dir.is_dir() {
        fs::remove_dir_all(dir)?;
        fs::write(dir, "a file")?;
    }
    Ok(())
}

/// What is as it was is used itself.
fn in_place(b: &Bench<'_>) -> Result<()> {
    let mut life = start(b, "reader")?;
    let image = b.path("image");
    kill_with_files(&mut life, &image)?;
    life.restart_detached(&image, &[])?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", life.pid))?;
    ensure!(!maps.contains("memfd"), "{maps}");
    ensure!(maps.contains(DATA) && maps.contains(PROGRAM), "{maps}");
    life.passes()
}

/// What came from an image goes into the next one by itself.
fn two_cycles(b: &Bench<'_>) -> Result<()> {
    let mut life = start(b, "reader")?;
    let image = b.path("image");
    kill_with_files(&mut life, &image)?;
    fs::remove_dir_all(b.path(FILES))?;
    life.restart_detached(&image, &[])?;
    let second = b.path("second");
    life.checkpoint_and_kill(&second)?;
    life.restart_detached(&second, &[])?;
    life.passes()
}

/// A file that is written is not the tree's to take along.
fn written(b: &Bench<'_>) -> Result<()> {
    let mut life = start(b, "writer")?;
    let image = b.path("image");
    kill_with_files(&mut life, &image)?;
    missing(&b.path(DATA))?;
    refused(b, &image, DATA)
}

fn not_saved(b: &Bench<'_>) -> Result<()> {
    let mut life = start(b, "reader")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    missing(&b.path(PROGRAM))?;
    refused(b, &image, PROGRAM)
}

fn refused(b: &Bench<'_>, image: &Path, word: &str) -> Result<()> {
    b.rstr()
        .arg("--detach")
        .arg("-i")
        .arg(image)
        .run()?
        .refused("rstr", &[word])
        .map(drop)
}
