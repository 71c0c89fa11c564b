// SPDX-License-Identifier: GPL-2.0

//! Fanotify groups: how they were made, what they watch.

use libc::{
    AT_FDCWD,
    FAN_CLASS_CONTENT,
    FAN_CLASS_NOTIF,
    FAN_CLOEXEC,
    FAN_CLOSE_NOWRITE,
    FAN_CLOSE_WRITE,
    FAN_CREATE,
    FAN_DELETE,
    FAN_EVENT_ON_CHILD,
    FAN_MARK_ADD,
    FAN_MARK_FILESYSTEM,
    FAN_MARK_IGNORED_MASK,
    FAN_MARK_IGNORED_SURV_MODIFY,
    FAN_MARK_INODE,
    FAN_MARK_MOUNT,
    FAN_MARK_REMOVE,
    FAN_MODIFY,
    FAN_NONBLOCK,
    FAN_ONDIR,
    FAN_OPEN,
    FAN_REPORT_FID,
    FAN_UNLIMITED_MARKS,
    FAN_UNLIMITED_QUEUE,
    O_CLOEXEC,
    O_LARGEFILE,
    O_RDONLY,
    O_RDWR, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    forked,
    open,
    owned,
    read, //
};
use selftests::{
    Bench,
    Process, //
};
use std::ffi::CString;
use std::fs;
use std::io;
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
use std::ptr;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("file", file),
        Case::new("children", children),
        Case::new("names", names),
        Case::new("ignored", ignored),
        Case::new("ignored-open-for-writing", ignored_open_for_writing),
        Case::new("ignore", ignore),
        Case::new("nothing", nothing),
        Case::new("evictable", evictable),
        Case::new("mount", mount),
        Case::new("file-system", file_system),
        Case::new("unprivileged", unprivileged),
        Case::new("flags", flags),
        Case::new("reader", reader),
        Case::new("permission", permission),
    ],
    refusals: &[
        Refusal::new("unread", unread, &["fanotify", "events that were not read"]),
        Refusal::new(
            "unanswered",
            unanswered,
            &["fanotify", "permission events that were not answered"],
        ),
        Refusal::new("no-name", no_name, &["fanotify", "file that has no name"]),
        Refusal::new(
            "mount-namespace",
            mount_namespace,
            &["fanotify", "mark of a mount namespace"],
        ),
    ],
    customs: &[Custom {
        name: "unmounted",
        run: unmounted,
    }],
    victims: &[Case::new("has-mount", has_mount).no_control()],
    // What one does on a mount, others would see.
    jobs: 1,
    ..Suite::new("fanotify")
};

fn main() -> ExitCode {
    SUITE.main()
}

const FAN_MARK_EVICTABLE: u32 = 0x200;
const FAN_MARK_IGNORE: u32 = 0x400;
const FAN_MARK_MNTNS: u32 = 0x110;
const FAN_REPORT_DIR_FID: u32 = 0x400;
const FAN_REPORT_NAME: u32 = 0x800;
const FAN_REPORT_MNT: u32 = 0x4000;
const FAN_OPEN_PERM: u64 = 0x1_0000;
const FAN_MNT_ATTACH: u64 = 0x100_0000;

/// An event: mask, process, path of the file that comes with it.
#[derive(Debug, PartialEq, Eq)]
struct Event {
    mask: u64,
    pid: i32,
    path: Option<PathBuf>,
    /// What follows the metadata, as text.
    info: String,
}

struct Group(OwnedFd);

impl Group {
    fn new(flags: u32) -> Result<Self> {
        Self::with(flags, O_RDONLY | O_LARGEFILE | O_CLOEXEC)
    }

    fn with(flags: u32, event_flags: i32) -> Result<Self> {
        let flags = flags | FAN_CLOEXEC | FAN_NONBLOCK;
        // SAFETY: no memory is involved.
        match owned(unsafe { libc::fanotify_init(flags, event_flags as u32) }) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => skip("no fanotify"),
            fd => Ok(Self(fd?)),
        }
    }

    fn try_mark(&self, flags: u32, mask: u64, path: &Path) -> Result<io::Result<()>> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let fd = self.0.as_raw_fd();
        // SAFETY: `path` is a string.
        let ret = unsafe { libc::fanotify_mark(fd, flags, mask, AT_FDCWD, path.as_ptr()) };
        Ok(cvt(ret).map(drop))
    }

    fn mark(&self, flags: u32, mask: u64, path: &Path) -> Result<()> {
        self.try_mark(FAN_MARK_ADD | flags, mask, path)?
            .with_context(|| format!("mark {flags:#x} of {}", path.display()))
    }

    /// All events that are there.
    fn events(&self) -> Result<Vec<Event>> {
        const METADATA: usize = 24;
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
            let len = word(0) as usize;
            let mask = u64::from(word(8)) | u64::from(word(12)) << 32;
            let path = match word(16) as i32 {
                fd if fd >= 0 => {
                    let fd = owned(fd)?;
                    Some(fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?)
                }
                _ => None,
            };
            events.push(Event {
                mask,
                pid: word(20) as i32,
                path,
                info: String::from_utf8_lossy(&rest[METADATA..len]).into_owned(),
            });
            rest = &rest[len..];
        }
        Ok(events)
    }

    /// Checks that these are the masks of all events that are there, of this file.
    fn saw(&self, what: &str, masks: &[u64], path: &Path) -> Result<()> {
        let events = self.events()?;
        for event in &events {
            same(what, Some(path), event.path.as_deref())?;
            same("process", sys::getpid(), event.pid)?;
        }
        let seen: Vec<u64> = events.iter().map(|event| event.mask).collect();
        same(what, masks, seen.as_slice())
    }

    /// The group and its marks as the kernel shows them, without what names an object.
    fn shown(&self) -> Result<Vec<String>> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let names = ["ino:", "sdev:", "mnt_id:", "fhandle-", "f_handle:"];
        let mut all: Vec<String> = info
            .lines()
            .filter(|line| line.starts_with("fanotify ") || line.starts_with("flags:"))
            .map(|line| {
                let kept = line
                    .split(' ')
                    .filter(|word| !names.iter().any(|name| word.starts_with(name)));
                kept.collect::<Vec<_>>().join(" ")
            })
            .collect();
        all.sort();
        Ok(all)
    }
}

/// Stands, and checks that the group and its marks are as they were and that the restart was not seen.
fn stand(v: &Victim, group: &Group) -> Result<()> {
    let before = group.shown()?;
    v.stand()?;
    same("group and marks", before, group.shown()?)?;
    same("events", Vec::<Event>::new(), group.events()?)
}

fn directory(v: &Victim, name: &str) -> Result<PathBuf> {
    let dir = v.path(name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn some_file(v: &Victim) -> Result<PathBuf> {
    let path = v.path("file");
    fs::write(&path, "old")?;
    Ok(path)
}

/// Events come with a file, which has the flags that were asked for.
fn file(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::with(FAN_CLASS_NOTIF, O_RDWR | O_CLOEXEC)?;
    group.mark(FAN_MARK_INODE, FAN_OPEN | FAN_CLOSE_WRITE, &path)?;
    stand(v, &group)?;
    fs::write(&path, "old")?;
    group.saw("events", &[FAN_OPEN | FAN_CLOSE_WRITE], &path)?;
    fs::read(&path)?;
    group.saw("more", &[FAN_OPEN], &path)?;
    let removed = group.try_mark(FAN_MARK_REMOVE, FAN_OPEN | FAN_CLOSE_WRITE, &path)?;
    removed.context("the mark is not there")?;
    fs::read(&path)?;
    same("events of none", Vec::<Event>::new(), group.events()?)
}

/// A directory, with what is in it.
fn children(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let (inside, below) = (dir.join("inside"), dir.join("below"));
    fs::write(&inside, "")?;
    fs::create_dir(&below)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    let mask = FAN_CLOSE_NOWRITE | FAN_EVENT_ON_CHILD | FAN_ONDIR;
    group.mark(FAN_MARK_INODE, mask, &dir)?;
    stand(v, &group)?;
    fs::read(&inside)?;
    group.saw("file", &[FAN_CLOSE_NOWRITE], &inside)?;
    drop(fs::read_dir(&below)?);
    group.saw("directory", &[FAN_CLOSE_NOWRITE], &below)
}

/// Events come with names.
fn names(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let group = Group::new(FAN_CLASS_NOTIF | FAN_REPORT_DIR_FID | FAN_REPORT_NAME)?;
    match group.try_mark(FAN_MARK_ADD, FAN_CREATE | FAN_DELETE, &dir)? {
        Err(e) if [libc::EOPNOTSUPP, libc::ENODEV].contains(&e.raw_os_error().unwrap_or(0)) => {
            return skip("no file handles here");
        }
        other => other?,
    }
    stand(v, &group)?;
    fs::write(dir.join("made"), "")?;
    let events = group.events()?;
    fs::remove_file(dir.join("made"))?;
    same("number of events", 1, events.len())?;
    same("mask", FAN_CREATE, events[0].mask)?;
    ensure!(events[0].info.contains("made\0"), "{events:?}");
    same("path", None, events[0].path.as_ref())
}

/// What is ignored, whatever happens to the file.
fn ignored(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_INODE, FAN_OPEN | FAN_CLOSE_NOWRITE, &path)?;
    let flags = FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY;
    group.mark(flags, FAN_OPEN, &path)?;
    fs::write(&path, "old")?;
    stand(v, &group)?;
    fs::read(&path)?;
    group.saw("what is not ignored", &[FAN_CLOSE_NOWRITE], &path)
}

/// What is ignored until the file is modified, which it is open for.
fn ignored_open_for_writing(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_INODE, FAN_OPEN, &path)?;
    group.mark(FAN_MARK_IGNORED_MASK, FAN_OPEN, &path)?;
    let writer = open(&path, O_RDWR | O_CLOEXEC)?;
    stand(v, &group)?;
    fs::read(&path)?;
    same(
        "events while it is ignored",
        Vec::<Event>::new(),
        group.events()?,
    )?;
    sys::write(&writer, b"old")?;
    fs::read(&path)?;
    group.saw("events afterwards", &[FAN_OPEN], &path)
}

/// The newer way to ignore, for a directory.
fn ignore(v: &Victim) -> Result<()> {
    let dir = directory(v, "dir")?;
    let inside = dir.join("inside");
    fs::write(&inside, "")?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    let mask = FAN_OPEN | FAN_CLOSE_NOWRITE | FAN_EVENT_ON_CHILD;
    group.mark(FAN_MARK_INODE, mask, &dir)?;
    let flags = FAN_MARK_IGNORE | FAN_MARK_IGNORED_SURV_MODIFY;
    group.mark(flags, FAN_OPEN | FAN_EVENT_ON_CHILD, &dir)?;
    stand(v, &group)?;
    fs::read(&inside)?;
    group.saw("what is not ignored", &[FAN_CLOSE_NOWRITE], &inside)?;
    let older = group.try_mark(FAN_MARK_ADD | FAN_MARK_IGNORED_MASK, FAN_OPEN, &dir)?;
    ensure!(
        sys::fails_with(older, libc::EEXIST),
        "the older way is possible again"
    );
    Ok(())
}

/// A mark of which nothing is left, since the file was modified, is there all the same.
fn nothing(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_IGNORED_MASK, FAN_OPEN, &path)?;
    fs::write(&path, "old")?;
    let shown = group.shown()?;
    ensure!(
        shown.iter().any(|line| line.contains("ignored_mask:0")),
        "{shown:?}"
    );
    stand(v, &group)?;
    group
        .try_mark(FAN_MARK_REMOVE, FAN_MODIFY, &path)?
        .context("the mark is not there")
}

fn evictable(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_EVICTABLE, FAN_CLOSE_WRITE, &path)?;
    stand(v, &group)?;
    fs::write(&path, "old")?;
    group.saw("event", &[FAN_CLOSE_WRITE], &path)
}

/// Where nobody else looks.
const MOUNT: &str = "/sys";
const ON_MOUNT: &str = "/sys/kernel/uevent_seqnum";

fn look(group: &Group) -> Result<()> {
    let path = Path::new(ON_MOUNT);
    fs::read(path)?;
    group.saw("event", &[FAN_CLOSE_NOWRITE], path)
}

fn mount(v: &Victim) -> Result<()> {
    let group = Group::new(FAN_CLASS_NOTIF)?;
    // By a path on the mount, and not that of its root.
    group.mark(FAN_MARK_MOUNT, FAN_CLOSE_NOWRITE, Path::new("/sys/kernel"))?;
    look(&group)?;
    stand(v, &group)?;
    look(&group)
}

fn file_system(v: &Victim) -> Result<()> {
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_FILESYSTEM, FAN_CLOSE_NOWRITE, Path::new(MOUNT))?;
    let flags = FAN_MARK_FILESYSTEM | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY;
    group.mark(flags, FAN_MODIFY, Path::new(MOUNT))?;
    stand(v, &group)?;
    look(&group)
}

/// A group that a user has made does not tell who it was.
fn unprivileged(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    // SAFETY: no memory is involved.
    let user = |uid: u32| cvt(unsafe { libc::seteuid(uid) });
    user(1000)?;
    let group = Group::new(FAN_CLASS_NOTIF | FAN_REPORT_FID);
    user(0)?;
    let group = group?;
    match group.try_mark(FAN_MARK_ADD, FAN_CLOSE_WRITE, &path)? {
        Err(e) if [libc::EOPNOTSUPP, libc::ENODEV].contains(&e.raw_os_error().unwrap_or(0)) => {
            return skip("no file handles here");
        }
        other => other?,
    }
    let pids = || -> Result<Vec<i32>> {
        fs::write(&path, "old")?;
        let own = group.events()?;
        same(
            "status of the child",
            0,
            forked(|| i32::from(fs::write(&path, "old").is_err()))?,
        )?;
        let others = group.events()?;
        Ok(own.iter().chain(&others).map(|event| event.pid).collect())
    };
    same("processes", vec![sys::getpid(), 0], pids()?)?;
    stand(v, &group)?;
    same("processes afterwards", vec![sys::getpid(), 0], pids()?)
}

/// Flags of the group, and of the descriptor.
fn flags(v: &Victim) -> Result<()> {
    let group = Group::with(
        FAN_CLASS_CONTENT | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS,
        O_RDWR | libc::O_APPEND | libc::O_NOATIME | libc::O_DSYNC | O_LARGEFILE,
    )?;
    sys::fcntl(&group.0, libc::F_SETFL, 0)?;
    sys::fcntl(&group.0, libc::F_SETFD, 0)?;
    let path = some_file(v)?;
    group.mark(FAN_MARK_INODE, FAN_OPEN, &path)?;
    let seen = || -> Result<_> {
        let flags = sys::fcntl(&group.0, libc::F_GETFL, 0)?;
        Ok((flags, sys::fcntl(&group.0, libc::F_GETFD, 0)?))
    };
    let before = (seen()?, group.shown()?);
    v.stand()?;
    same("flags", before, (seen()?, group.shown()?))?;
    fs::read(&path)?;
    group.saw("event", &[FAN_OPEN], &path)
}

/// Who waits for events in read(2) waits again.
fn reader(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_INODE, FAN_OPEN, &path)?;
    sys::fcntl(&group.0, libc::F_SETFL, 0)?;
    let told = std::thread::scope(|scope| -> Result<_> {
        let reader = scope.spawn(|| group.events());
        v.stand()?;
        fs::read(&path)?;
        reader.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })?;
    let masks: Vec<u64> = told.iter().map(|event| event.mask).collect();
    same("events", vec![FAN_OPEN], masks)
}

fn unread(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_INODE, FAN_OPEN, &path)?;
    fs::read(&path)?;
    v.ready_fd(group.0.as_raw_fd())?;
    v.wait();
    group.saw("events", &[FAN_OPEN], &path)
}

/// A group that is asked who may open a file, which is there.
fn gate(path: &Path) -> Result<Group> {
    let group = Group::new(FAN_CLASS_CONTENT)?;
    match group.try_mark(FAN_MARK_ADD, FAN_OPEN_PERM, path)? {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => skip("no permission events"),
        other => {
            other?;
            Ok(group)
        }
    }
}

/// Waits for a question, and returns the file that it comes with.
fn question(group: &Group) -> Result<OwnedFd> {
    let mut event = [0; 24];
    let here = sys::until(Duration::from_secs(10), || {
        read(&group.0, &mut event).is_ok_and(|len| len == event.len())
    });
    ensure!(here, "no event");
    same(
        "mask",
        FAN_OPEN_PERM,
        u64::from_ne_bytes(event[8..16].try_into()?),
    )?;
    Ok(owned(i32::from_ne_bytes(event[16..20].try_into()?))?)
}

fn answer(group: &Group, question: &OwnedFd) -> Result<()> {
    // struct fanotify_response: the descriptor, FAN_ALLOW.
    let mut response = [0; 8];
    response[..4].copy_from_slice(&question.as_raw_fd().to_ne_bytes());
    response[4..].copy_from_slice(&1u32.to_ne_bytes());
    sys::write(&group.0, &response)?;
    Ok(())
}

/// It is asked after the restart, when it was asked before, and not by the restart.
fn permission(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = gate(&path)?;
    let asked = || {
        std::thread::scope(|scope| {
            let opener = scope.spawn(|| fs::read(&path));
            let question = question(&group)?;
            ensure!(!opener.is_finished(), "it did not wait");
            answer(&group, &question)?;
            let read = opener.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
            same("contents", b"old".as_slice(), &read?)
        })
    };
    asked()?;
    stand(v, &group)?;
    asked()
}

/// Somebody waits for leave to open a file; the event has been read.
fn unanswered(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = gate(&path)?;
    let seen = v.path("seen");
    // An orphan is not of the tree: one of its tasks would not stand still.
    let status = forked(|| {
        let opener = Process::fork(|| {
            let read = fs::read(&path).and_then(|bytes| fs::write(&seen, bytes));
            i32::from(read.is_err())
        });
        // Which would be its end.
        opener.map(std::mem::forget).map_or(1, |()| 0)
    })?;
    same("status", 0, status)?;
    let question = question(&group)?;
    v.ready_fd(group.0.as_raw_fd())?;
    v.wait();
    answer(&group, &question)?;
    let right = || fs::read(&seen).is_ok_and(|bytes| bytes == b"old");
    ensure!(sys::until(Duration::from_secs(10), right), "it still waits");
    Ok(())
}

fn no_name(v: &Victim) -> Result<()> {
    let path = some_file(v)?;
    let group = Group::new(FAN_CLASS_NOTIF)?;
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    group.mark(FAN_MARK_INODE, FAN_CLOSE_WRITE, &path)?;
    fs::remove_file(&path)?;
    v.ready_fd(group.0.as_raw_fd())?;
    v.wait();
    drop(file);
    same("number of events", 1, group.events()?.len())
}

fn mount_namespace(v: &Victim) -> Result<()> {
    let group = Group::new(FAN_REPORT_MNT)?;
    let path = Path::new("/proc/self/ns/mnt");
    group.mark(FAN_MARK_MNTNS, FAN_MNT_ATTACH, path)?;
    v.ready_fd(group.0.as_raw_fd())?;
    v.wait();
    Ok(())
}

const MOUNTED: &str = "mounted";

/// It watches what is mounted there.
fn has_mount(v: &Victim) -> Result<()> {
    let at = v.path(MOUNTED);
    let group = Group::new(FAN_CLASS_NOTIF)?;
    group.mark(FAN_MARK_MOUNT, FAN_CLOSE_WRITE, &at)?;
    stand(v, &group)?;
    let path = at.join("file");
    fs::write(&path, "")?;
    group.saw("event", &[FAN_CLOSE_WRITE], &path)?;
    fs::write(v.path("file"), "")?;
    same("events elsewhere", Vec::<Event>::new(), group.events()?)
}

/// Where nothing is mounted any more, more would be watched than was.
fn unmounted(b: &Bench<'_>) -> Result<()> {
    let at = b.path(MOUNTED);
    fs::create_dir_all(&at)?;
    let target = CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: the strings are C strings.
    cvt(unsafe {
        libc::mount(
            c"none".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            ptr::null(),
        )
    })?;
    let image = b.path("image");
    let result = b.start("has-mount").and_then(|mut life| {
        life.checkpoint_and_kill(&image)?;
        life.restart(&image, &[])?;
        life.passes()
    });
    // SAFETY: the path is a C string.
    cvt(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })?;
    result?;
    b.rstr()
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &[MOUNTED, "nothing is mounted there"])?;
    Ok(())
}
