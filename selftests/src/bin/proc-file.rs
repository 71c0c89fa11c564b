// SPDX-License-Identifier: GPL-2.0

//! Open files and directories of procfs, sysfs and control groups.

use libc::{
    O_DIRECTORY,
    O_RDONLY,
    O_RDWR,
    SEEK_CUR, //
};
use selftests::prelude::*;
use selftests::sys::{
    getpid,
    open,
    read,
    seek,
    write, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("self", own),
        Case::new("position", position),
        Case::new("kernel", kernel),
        Case::new("child", child),
        Case::new("memory", memory),
        Case::new("descriptors", descriptors),
        Case::new("setting", setting),
        Case::new("sysfs", sysfs),
        Case::new("control-group", control_group),
    ],
    refusals: &[
        Refusal::new("outside", outside, &["/proc/1/", "outside the tree"]),
        Refusal::new("sysfs-writer", sysfs_writer, &["/sys/", "open for writing"]),
        Refusal::new("debugfs", debugfs, &["/debug/", "kernel interface"]),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("proc-file")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn all(fd: &OwnedFd) -> Result<String> {
    let mut text = Vec::new();
    let mut buf = [0; 1000];
    loop {
        match read(fd, &mut buf)? {
            0 => return Ok(String::from_utf8(text)?),
            n => text.extend_from_slice(&buf[..n]),
        }
    }
}

fn own(v: &Victim) -> Result<()> {
    let stat = open(Path::new("/proc/self/stat"), O_RDONLY)?;
    let task = open(
        Path::new(&format!("/proc/self/task/{}/comm", sys::gettid())),
        O_RDONLY,
    )?;
    v.stand()?;
    let text = all(&stat)?;
    ensure!(text.starts_with(&format!("{} (", getpid())), "{text:?}");
    same("name", "proc-file\n".to_owned(), all(&task)?)
}

/// What was read is not read again.
fn position(v: &Victim) -> Result<()> {
    let fd = open(Path::new("/proc/self/status"), O_RDONLY)?;
    let mut start = [0; 5];
    same("bytes", 5, read(&fd, &mut start)?)?;
    same("start", *b"Name:", start)?;
    v.stand()?;
    same("position", 5, seek(&fd, 0, SEEK_CUR)?)?;
    let rest = all(&fd)?;
    ensure!(rest.starts_with("\tproc-file\n"), "{rest:?}");
    Ok(())
}

fn kernel(v: &Victim) -> Result<()> {
    let version = open(Path::new("/proc/version"), O_RDONLY)?;
    let dir = open(Path::new("/proc/sys/kernel"), O_RDONLY | O_DIRECTORY)?;
    let before = fs::read_to_string("/proc/version")?;
    v.stand()?;
    same("version", before, all(&version)?)?;
    let link = fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    same("directory", Path::new("/proc/sys/kernel"), link.as_path())
}

/// The child does not exist yet when most files are opened.
fn child(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        // SAFETY: no memory is involved.
        unsafe { libc::pause() }
    })?;
    drop(numbers);
    let fd = open(Path::new(&format!("/proc/{}/stat", child.pid)), O_RDONLY)?;
    v.stand()?;
    let text = all(&fd)?;
    ensure!(text.starts_with(&format!("{} (", child.pid)), "{text:?}");
    sys::kill(child.pid, libc::SIGKILL)?;
    child.wait(Duration::from_secs(10))?;
    Ok(())
}

/// The memory behind the descriptor is that of the restarted process.
fn memory(v: &Victim) -> Result<()> {
    let fd = open(Path::new("/proc/self/mem"), O_RDWR)?;
    let maps = open(Path::new("/proc/self/maps"), O_RDONLY)?;
    let mut word = std::hint::black_box([17u8; 8]);
    v.stand()?;
    let file: fs::File = fd.into();
    let mut seen = [0; 8];
    file.read_exact_at(&mut seen, word.as_ptr() as u64)?;
    same("read", word, seen)?;
    file.write_all_at(&[18; 8], word.as_mut_ptr() as u64)?;
    same("written", [18; 8], std::hint::black_box(word))?;
    let text = all(&maps)?;
    ensure!(text.contains("[stack]"), "{text}");
    Ok(())
}

fn descriptors(v: &Victim) -> Result<()> {
    let fd = open(Path::new("/proc/self/fd"), O_RDONLY | O_DIRECTORY)?;
    v.stand()?;
    let listed = entries(&fd)?;
    let name = format!("{}\0", fd.as_raw_fd());
    let found = listed
        .windows(name.len())
        .any(|window| window == name.as_bytes());
    ensure!(found, "the descriptor is not in its own directory");
    Ok(())
}

/// Something that can be written.
fn setting(v: &Victim) -> Result<()> {
    let fd = open(Path::new("/proc/self/comm"), O_RDWR)?;
    v.stand()?;
    same("written", 5, write(&fd, b"other")?)?;
    same(
        "name",
        "other\n".to_owned(),
        fs::read_to_string("/proc/self/comm")?,
    )
}

fn outside(v: &Victim) -> Result<()> {
    let fd = open(Path::new("/proc/1/stat"), O_RDONLY)?;
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    ensure!(all(&fd)?.starts_with("1 ("), "another file");
    Ok(())
}

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// What was read of a file is not read again, and what was listed of a directory not listed again.
fn sysfs(v: &Victim) -> Result<()> {
    let path = Path::new(HUGE_PAGES);
    let dir = path.parent().context("no directory")?;
    let whole = fs::read_to_string(path)?;
    let unread = open(path, O_RDONLY)?;
    let partly = open(path, O_RDONLY)?;
    let mut start = [0; 3];
    same("bytes", 3, read(&partly, &mut start)?)?;
    let unlisted = open(dir, O_RDONLY | O_DIRECTORY)?;
    let listed = open(dir, O_RDONLY | O_DIRECTORY)?;
    let names = entries(&listed)?;
    v.stand()?;
    same("unread", whole.as_str(), &all(&unread)?)?;
    same("rest", &whole[3..], &all(&partly)?)?;
    same("names", names, entries(&unlisted)?)?;
    same("names left", 0, entries(&listed)?.len())
}

fn control_group(v: &Victim) -> Result<()> {
    let path = Path::new("/sys/fs/cgroup/cgroup.controllers");
    let dir = path.parent().context("no directory")?;
    let whole = fs::read_to_string(path)?;
    let fd = open(path, O_RDONLY)?;
    let dir_fd = open(dir, O_RDONLY | O_DIRECTORY)?;
    v.stand()?;
    same("controllers", whole, all(&fd)?)?;
    let link = fs::read_link(format!("/proc/self/fd/{}", dir_fd.as_raw_fd()))?;
    same("directory", dir, link.as_path())
}

/// Of a directory, what has not been listed yet.
fn entries(fd: &OwnedFd) -> Result<Vec<u8>> {
    let mut buf = vec![0u8; 4096];
    // SAFETY: there is room for as many bytes.
    let n = sys::cvt(unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            fd.as_raw_fd(),
            buf.as_mut_ptr(),
            buf.len(),
        )
    })?;
    buf.truncate(n as usize);
    Ok(buf)
}

fn sysfs_writer(v: &Victim) -> Result<()> {
    refused(v, open(Path::new(HUGE_PAGES), O_RDWR)?)
}

fn debugfs(v: &Victim) -> Result<()> {
    let path = Path::new("/sys/kernel/debug/fault_around_bytes");
    if !path.exists() {
        return skip("no debugfs");
    }
    refused(v, open(path, O_RDONLY)?)
}

fn refused(v: &Victim, fd: OwnedFd) -> Result<()> {
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    ensure!(!all(&fd)?.is_empty(), "empty");
    Ok(())
}
