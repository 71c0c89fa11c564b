// SPDX-License-Identifier: GPL-2.0

//! Inotify instances: watches, their numbers, events that were not read.

use libc::{
    EPOLLET,
    EPOLLIN,
    IN_ATTRIB,
    IN_CLOEXEC,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_NONBLOCK,
    IN_ONESHOT,
    IN_OPEN, //
};
use selftests::epoll::Epoll;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    owned,
    read, //
};
use std::ffi::CString;
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::path::{
    Path,
    PathBuf, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("watches", watches),
        Case::new("numbers", numbers),
        Case::new("unread", unread),
        Case::new("oneshot", oneshot),
        Case::new("epoll", watched),
        Case::new("open-files", open_files),
    ],
    refusals: &[Refusal::new("no-name", no_name, &["inotify", "no name"])],
    ..Suite::new("inotify")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// An event: number of the watch, mask, cookie, name.
type Event = (i32, u32, u32, String);

struct Inotify(OwnedFd);

impl Inotify {
    fn new() -> Result<Self> {
        // SAFETY: no memory is involved.
        let fd = owned(unsafe { libc::inotify_init1(IN_CLOEXEC | IN_NONBLOCK) })?;
        Ok(Self(fd))
    }

    fn watch(&self, path: &Path, mask: u32) -> Result<i32> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: `path` is a string.
        Ok(cvt(unsafe {
            libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), mask)
        })?)
    }

    fn forget(&self, watch: i32) -> Result<()> {
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) })?;
        Ok(())
    }

    /// All events that are there.
    fn events(&self) -> Result<Vec<Event>> {
        let mut bytes = vec![0; 65536];
        let len = match read(&self.0, &mut bytes) {
            Ok(len) => len,
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => 0,
            Err(e) => return Err(e.into()),
        };
        let mut rest = &bytes[..len];
        let mut events = Vec::new();
        while !rest.is_empty() {
            let word =
                |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().expect("4 bytes"));
            let len = word(12) as usize;
            let name = String::from_utf8_lossy(&rest[16..16 + len]);
            let name = name.trim_end_matches('\0').to_owned();
            events.push((word(0) as i32, word(4), word(8), name));
            rest = &rest[16 + len..];
        }
        Ok(events)
    }

    /// Number and mask of each watch, as the kernel shows them.
    fn shown(&self) -> Result<Vec<String>> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let mut all: Vec<String> = info
            .lines()
            .filter(|line| line.starts_with("inotify "))
            .map(|line| {
                let words = line.split(' ');
                let kept = words.filter(|w| w.starts_with("wd:") || w.starts_with("mask:"));
                kept.collect::<Vec<_>>().join(" ")
            })
            .collect();
        all.sort();
        Ok(all)
    }
}

/// An empty directory of this name.
fn directory(v: &Victim, name: &str) -> Result<PathBuf> {
    let dir = v.path(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn event(watch: i32, mask: u32, name: &str) -> Event {
    (watch, mask, 0, name.to_owned())
}

/// A directory and a file; the restart itself is not seen.
fn watches(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let file = v.path("file");
    fs::write(&file, "old")?;
    let inotify = Inotify::new()?;
    let of_dir = inotify.watch(&dir, IN_CREATE | IN_DELETE)?;
    let of_file = inotify.watch(&file, IN_MODIFY | IN_OPEN | IN_CLOSE_WRITE)?;
    let before = inotify.shown()?;
    v.stand()?;
    same("events", Vec::<Event>::new(), inotify.events()?)?;
    same("watches", before, inotify.shown()?)?;
    fs::create_dir(dir.join("new"))?;
    fs::remove_dir(dir.join("new"))?;
    fs::write(&file, "")?;
    let expected = vec![
        event(of_dir, IN_CREATE | IN_ISDIR, "new"),
        event(of_dir, IN_DELETE | IN_ISDIR, "new"),
        event(of_file, IN_OPEN, ""),
        event(of_file, IN_MODIFY, ""),
        event(of_file, IN_CLOSE_WRITE, ""),
    ];
    same("events afterwards", expected, inotify.events()?)
}

/// Numbers stay, and are not used again.
fn numbers(v: &Victim) -> Result<()> {
    let dirs = ["a", "b", "c", "d", "e"].map(|name| directory(v, name));
    let mut paths = Vec::new();
    for dir in dirs {
        paths.push(dir?);
    }
    let inotify = Inotify::new()?;
    let unused = Inotify::new()?;
    for (path, number) in paths.iter().take(4).zip(1..) {
        same("number", number, inotify.watch(path, IN_CREATE)?)?;
    }
    inotify.watch(&paths[1], IN_ATTRIB | IN_EXCL_UNLINK)?;
    inotify.forget(3)?;
    inotify.forget(4)?;
    inotify.events()?;
    let before = inotify.shown()?;
    v.stand()?;
    same("watches", before, inotify.shown()?)?;
    same("next number", 5, inotify.watch(&paths[4], IN_CREATE)?)?;
    same("a known one", 2, inotify.watch(&paths[1], IN_CREATE)?)?;
    same("first number", 1, unused.watch(&paths[1], IN_CREATE)?)
}

/// Events that were not read are read, in order, with names and cookies.
fn unread(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let gone = directory(v, "gone")?;
    let inotify = Inotify::new()?;
    let watch = inotify.watch(&dir, IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)?;
    let other = inotify.watch(&gone, IN_CREATE)?;
    let long = "x".repeat(200);
    fs::write(dir.join("a"), "")?;
    fs::rename(dir.join("a"), dir.join(&long))?;
    fs::remove_file(dir.join(&long))?;
    fs::remove_dir(&gone)?;
    v.stand()?;
    fs::create_dir(dir.join("b"))?;
    let events = inotify.events()?;
    fs::remove_dir(dir.join("b"))?;
    inotify.forget(watch)?;
    let rest = inotify.events()?;
    let cookie = events.get(1).map_or(0, |event| event.2);
    ensure!(cookie != 0, "no cookie: {events:?}");
    let expected = vec![
        event(watch, IN_CREATE, "a"),
        (watch, IN_MOVED_FROM, cookie, "a".to_owned()),
        (watch, IN_MOVED_TO, cookie, long.clone()),
        event(watch, IN_DELETE, &long),
        event(other, IN_IGNORED, ""),
        event(watch, IN_CREATE | IN_ISDIR, "b"),
    ];
    same("events", expected, events)?;
    let expected = vec![
        event(watch, IN_DELETE | IN_ISDIR, "b"),
        event(watch, IN_IGNORED, ""),
    ];
    same("more events", expected, rest)
}

/// A watch that tells one event.
fn oneshot(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let inotify = Inotify::new()?;
    let watch = inotify.watch(&dir, IN_CREATE | IN_ONESHOT)?;
    v.stand()?;
    fs::write(dir.join("a"), "")?;
    fs::write(dir.join("b"), "")?;
    // It may come back to this point.
    fs::remove_file(dir.join("a"))?;
    fs::remove_file(dir.join("b"))?;
    let expected = vec![event(watch, IN_CREATE, "a"), event(watch, IN_IGNORED, "")];
    same("events", expected, inotify.events()?)
}

/// Epoll tells of an event that was not read, and of the next.
fn watched(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let inotify = Inotify::new()?;
    inotify.watch(&dir, IN_CREATE)?;
    let ep = Epoll::new()?;
    ep.add(&inotify.0, EPOLLIN | EPOLLET, 1)?;
    fs::write(dir.join("a"), "")?;
    v.stand()?;
    same("events", vec![1], ep.ready()?)?;
    same("events again", Vec::<u64>::new(), ep.ready()?)?;
    same("number of them", 1, inotify.events()?.len())?;
    fs::write(dir.join("b"), "")?;
    fs::remove_file(dir.join("b"))?;
    same("events of the next", vec![1], ep.ready()?)
}

/// Files that the restart opens are not seen to be opened.
fn open_files(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let path = dir.join("file");
    fs::write(&path, "contents")?;
    let file = fs::File::open(&path)?;
    let inotify = Inotify::new()?;
    inotify.watch(&dir, IN_OPEN | libc::IN_CLOSE | libc::IN_ACCESS)?;
    v.stand()?;
    same("events", Vec::<Event>::new(), inotify.events()?)?;
    drop(file);
    same("number of them", 1, inotify.events()?.len())
}

/// What is watched has no name any more, and is kept by a descriptor.
fn no_name(v: &Victim) -> Result<()> {
    let path = v.path("unlinked");
    fs::write(&path, "")?;
    let inotify = Inotify::new()?;
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    let watch = inotify.watch(&path, IN_CLOSE_WRITE)?;
    fs::remove_file(&path)?;
    v.ready_fd(inotify.0.as_raw_fd())?;
    v.wait();
    drop(file);
    let first = inotify.events()?.first().cloned();
    same("event", Some(event(watch, IN_CLOSE_WRITE, "")), first)
}
