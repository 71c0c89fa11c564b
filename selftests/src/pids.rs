// SPDX-License-Identifier: GPL-2.0

//! Process numbers: victims get high ones, which are still free after the next boot.

use crate::sys;
use anyhow::{
    Context,
    Result, //
};
use std::fs;
use std::io;
use std::path::Path;
use std::process::{
    Child,
    Command, //
};
use std::sync::Mutex;

const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";

/// Below this the numbers of a freshly booted guest are in use.
const FIRST: u32 = 20_000;

static CHOOSING: Mutex<()> = Mutex::new(());

/// Starts `command` under a number that is none of those for victims.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let _choosing = CHOOSING.lock().unwrap_or_else(|e| e.into_inner());
    command
        .spawn()
        .with_context(|| format!("start {command:?}"))
}

/// Starts `command` under a number that no victim had before, on this boot or the last. Everything
/// else goes on where it was, so numbers of dead victims are not handed out again.
pub(crate) fn spawn_high(command: &mut Command, counter: &Path) -> Result<Child> {
    let _choosing = CHOOSING.lock().unwrap_or_else(|e| e.into_inner());
    let next: u32 = match fs::read_to_string(counter) {
        Ok(text) => text.trim().parse().context("counter of pids")?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => FIRST,
        Err(e) => return Err(e).context("counter of pids"),
    };
    let low = fs::read_to_string(LAST_PID);
    // Not permitted outside the guest, where only victims that are never checkpointed run.
    let chosen = fs::write(LAST_PID, next.to_string()).is_ok();
    let child = command
        .spawn()
        .with_context(|| format!("start {command:?}"));
    if let (true, Ok(low)) = (chosen, low) {
        fs::write(LAST_PID, low.trim()).context(LAST_PID)?;
    }
    let child = child?;
    fs::write(counter, (child.id().max(next) + ROOM as u32).to_string())?;
    Ok(child)
}

/// Threads and children of a victim take the numbers that follow its own, so many at most.
const ROOM: i32 = 200;

/// While this exists, the next tasks get the numbers that follow that of this process.
pub struct NumbersThatFollow(Option<String>);

impl NumbersThatFollow {
    /// Outside the guest that is not permitted, and not needed.
    pub fn choose() -> Self {
        let low = fs::read_to_string(LAST_PID).ok();
        let chosen = fs::write(LAST_PID, std::process::id().to_string()).is_ok();
        Self(low.filter(|_| chosen))
    }
}

impl Drop for NumbersThatFollow {
    fn drop(&mut self) {
        if let Some(low) = &self.0 {
            let _ = fs::write(LAST_PID, low.trim());
        }
    }
}

/// Waits until this process has no child any more, and reads their status.
pub(crate) fn reap_children(limit: std::time::Duration) -> bool {
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
pub(crate) fn reap_orphans(root: i32, limit: std::time::Duration) -> Result<bool> {
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

/// The number of a kernel thread, if any can be seen from this pid namespace.
pub fn a_kernel_thread() -> Result<Option<i32>> {
    Ok(all()?.into_iter().find(|t| t.is_kernel).map(|t| t.pid))
}

/// Waits until no process has this number.
pub(crate) fn gone(pid: i32, limit: std::time::Duration) -> bool {
    sys::until(limit, || !Path::new(&format!("/proc/{pid}")).exists())
}
