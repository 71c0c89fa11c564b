// SPDX-License-Identifier: GPL-2.0

//! Process numbers: victims get high ones, which are still free after the next boot.

use crate::sys;
use anyhow::{
    Context,
    Result, //
};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{
    Path,
    PathBuf, //
};
use std::process::{
    Child,
    Command, //
};
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use std::time::{
    Duration,
    Instant, //
};

const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// The first number of a victim. What all else takes in a long run stays below.
const FIRST: u32 = 1_000_000;

/// The last one below that was seen; at first the kernel's RESERVED_PIDS. The kernel takes no lock when
/// its counter is set: a fork that is under way on another CPU puts it back to where it was.
static LAST_LOW: AtomicU32 = AtomicU32::new(300);

/// Who says which numbers the next tasks get has made this symbolic link, one for each pid namespace. It
/// leads to the number after which all the others go on, and to what makes it unlike any other.
fn turn() -> io::Result<PathBuf> {
    let namespace = fs::read_link("/proc/self/ns/pid")?;
    Ok(Path::new("/tmp").join(format!("selftests-{}", namespace.display())))
}

/// So long nobody needs the turn who is alive.
const ABANDONED: Duration = Duration::from_secs(20);

/// One process at a time says which numbers the next tasks get, and while one does so no tool is
/// started. Else a number that is meant for one becomes that of another, and what is meant to be the end
/// of it, the beginning for all that follows.
struct Turn {
    /// Where the link leads.
    token: String,
    /// Numbers have been chosen.
    chosen: bool,
}

impl Turn {
    /// Waits for it.
    fn take() -> io::Result<Self> {
        let link = turn()?;
        let mut other: Option<(String, Instant)> = None;
        let wait = sys::Wait::begin();
        loop {
            let last = last_pid();
            let now = sys::clock(libc::CLOCK_MONOTONIC).map_err(io::Error::other)?;
            let low = if last < FIRST {
                LAST_LOW.store(last, Ordering::Relaxed);
                last
            } else {
                LAST_LOW.load(Ordering::Relaxed)
            };
            let token = format!("{low} {} {now:?}", std::process::id());
            match symlink(&token, &link) {
                // Another's turn may have ended after it was read.
                Ok(()) if last_pid() != last => {
                    fs::remove_file(&link)?;
                    continue;
                }
                Ok(()) => {
                    let mut turn = Self {
                        token,
                        chosen: false,
                    };
                    if low != last {
                        turn.go_on_after(low);
                    }
                    return Ok(turn);
                }
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                Err(_) => {}
            }
            match (holder(), &other) {
                (Some(token), Some((seen, since))) if token == *seen => {
                    if since.elapsed() > ABANDONED {
                        drop(Self {
                            token,
                            chosen: true,
                        });
                    }
                }
                (token, _) => other = token.map(|token| (token, Instant::now())),
            }
            wait.nap();
        }
    }

    /// The next task of anybody gets the first free number after `last`. Outside the guest that is not
    /// permitted, and not needed.
    fn go_on_after(&mut self, last: u32) {
        self.chosen = fs::write(LAST_PID, last.to_string()).is_ok();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A copy in the memory of a child, or in that of one who was restarted, is none.
        if holder().as_ref() != Some(&self.token) {
            return;
        }
        if let (true, Some((last, _))) = (self.chosen, self.token.split_once(' ')) {
            let _ = fs::write(LAST_PID, last);
        }
        let _ = turn().and_then(fs::remove_file);
    }
}

/// The number that was given out last; 0 if that is not to be known.
fn last_pid() -> u32 {
    let text = fs::read_to_string(LAST_PID).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Whose turn it is.
fn holder() -> Option<String> {
    turn()
        .and_then(fs::read_link)
        .ok()?
        .into_os_string()
        .into_string()
        .ok()
}

/// Starts `command` under a number that is none of those for victims.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let _turn = Turn::take().context("a turn to choose process numbers")?;
    command
        .spawn()
        .with_context(|| format!("start {command:?}"))
}

/// Starts `command` under a number that no victim had before, on this boot or the last. Everything
/// else goes on where it was, so numbers of dead victims are not handed out again.
pub(crate) fn spawn_high(command: &mut Command, counter: &Path) -> Result<Child> {
    let mut turn = Turn::take().context("a turn to choose process numbers")?;
    let next: u32 = match fs::read_to_string(counter) {
        Ok(text) => text.trim().parse().context("counter of pids")?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => FIRST,
        Err(e) => return Err(e).context("counter of pids"),
    };
    turn.go_on_after(next);
    if turn.chosen {
        let check = move || match std::process::id() > next {
            true => Ok(()),
            false => Err(io::Error::from_raw_os_error(LOW)),
        };
        // SAFETY: getpid(2) is all the child does.
        unsafe { command.pre_exec(check) };
    }
    let child = loop {
        match command.spawn() {
            // The counter was put back.
            Err(e) if e.raw_os_error() == Some(LOW) => turn.go_on_after(next),
            child => break child.with_context(|| format!("start {command:?}"))?,
        }
    };
    fs::write(counter, (child.id().max(next) + ROOM as u32).to_string())?;
    Ok(child)
}

/// What a victim says whose number is not the one that was chosen.
const LOW: i32 = libc::ESTALE;

/// Threads and children of a victim take the numbers that follow its own, so many at most.
const ROOM: i32 = 200;

/// While this exists, the next tasks get the numbers that follow that of this process. Nobody can be
/// checkpointed meanwhile, as tools are started by turns, too.
pub struct NumbersThatFollow {
    _turn: Option<Turn>,
}

impl NumbersThatFollow {
    /// Waits until nobody else does so.
    pub fn choose() -> Self {
        let mut turn = Turn::take().ok();
        if let Some(turn) = &mut turn {
            turn.go_on_after(std::process::id());
        }
        Self { _turn: turn }
    }
}

/// Waits until this process has no child any more, and reads their status.
pub(crate) fn reap_children(limit: Duration) -> bool {
    sys::until(limit, || loop {
        // SAFETY: no status is asked for.
        match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
            0 => break false,
            -1 => break true,
            _ => {}
        }
    })
}

/// Waits until the children of the victim `root`, which is dead, are gone as well, and reads the
/// status of those that came to this process.
pub(crate) fn reap_orphans(root: i32, limit: Duration) -> Result<bool> {
    let mut result = Ok(());
    let gone = sys::until(limit, || {
        // A kernel thread may have got one of the numbers.
        let left: Vec<Task> = match tasks() {
            Ok(tasks) => tasks,
            Err(e) => {
                result = Err(e);
                return true;
            }
        }
        .into_iter()
        .filter(|t| (root + 1..root + ROOM).contains(&t.pid))
        .collect();
        for task in left.iter().filter(|t| t.state == 'Z') {
            // SAFETY: no memory is involved. It fails for the child of another, who waits for it.
            unsafe { libc::waitpid(task.pid, std::ptr::null_mut(), libc::WNOHANG) };
        }
        left.is_empty()
    });
    result?;
    Ok(gone)
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// Process number.
    pub pid: i32,
    /// Number of the parent.
    pub ppid: i32,
    /// State letter as in /proc/PID/stat.
    pub state: char,
    /// Name.
    pub comm: String,
    /// It is one of the kernel.
    pub is_kernel: bool,
}

/// PF_KTHREAD, in the flags of /proc/PID/stat.
const KERNEL_THREAD: u32 = 0x0020_0000;

impl Task {
    /// Reads the state of one process; `None` when there is none.
    pub fn read(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(") ")?;
        let comm = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split(' ');
        let state = fields.next()?.chars().next()?;
        let ppid = fields.next()?.parse().ok()?;
        // Group, session, terminal and its foreground group stand before the flags.
        let flags: u32 = fields.nth(4)?.parse().ok()?;
        Some(Self {
            pid,
            ppid,
            state,
            comm,
            is_kernel: flags & KERNEL_THREAD != 0,
        })
    }
}

fn all() -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) {
            tasks.extend(Task::read(pid));
        }
    }
    tasks.sort();
    Ok(tasks)
}

/// All processes except kernel threads.
pub fn tasks() -> Result<Vec<Task>> {
    Ok(all()?.into_iter().filter(|t| !t.is_kernel).collect())
}

/// The children of `parent`.
pub fn children(parent: i32) -> Result<Vec<Task>> {
    let of = |task: &Task| task.ppid == parent;
    Ok(tasks()?.into_iter().filter(of).collect())
}

/// The number of a kernel thread, if any can be seen from this pid namespace.
pub fn a_kernel_thread() -> Result<Option<i32>> {
    Ok(all()?.into_iter().find(|t| t.is_kernel).map(|t| t.pid))
}

/// Waits until no process has this number.
pub(crate) fn gone(pid: i32, limit: Duration) -> bool {
    sys::until(limit, || !Path::new(&format!("/proc/{pid}")).exists())
}
