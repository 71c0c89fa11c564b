// SPDX-License-Identifier: GPL-2.0

//! checkpoint(2) and restart(2): the calls, their arguments, and what they return.
//!
//! A checkpoint finds the tasks (`tree.rs`), asks whether the caller may (`access.rs`), makes them
//! stand still (`hold.rs`), and walks them into a plan (`save.rs`); the contents of memory follow
//! (`pages.rs`). A restart reads the plan and checks it as a whole (`plan.rs`), and builds the tree
//! by the steps at the head of `restart.rs`. Every other module is one resource, with both
//! directions side by side.
//!
//! # Locks
//!
//! The order of the locks of a hold is at the head of `hold.rs`. Those below belong to what is
//! saved or restored. Under none of them is the stream, a descriptor or the memory of the caller
//! used, or a task waited for. Functions of C take them and give them back, but for these, which
//! are held while something is copied: `mmap_lock` (read) in `mm.rs`, `siglock` in `signals.rs` and
//! `sighand.rs`, `task_lock()` in `machine.rs`, the mutex of a pipe in `files/pipe.rs`, the
//! `iolock` in `files/unix.rs`.
//!
//! `mmap_lock` (read) of a tree that is saved comes first: files that it maps are saved under it.
//! Of the others, those in different lines are never held together; within a line the left one is
//! taken first:
//!
//! - Memory: inode lock of an image that pages are given to; `mmap_lock` of one address space, that
//!   of another which gets pages of it, then `anon_vma` lock or page table locks. Huge pages have
//!   the same; those that are shared, what fallocate(2) takes.
//! - Tasks: `tasklist_lock`, then `ctrl.lock` of a terminal. `task_lock()`, then `file_lock` of a
//!   descriptor table or `seq` of a working directory. The lock of a POSIX timer, then `siglock`.
//! - Files: the mutex of a pipe. `mtx`, then `lock` of an epoll instance. `wqh.lock` of an eventfd
//!   or timerfd. `flc_lock` of an inode, for its locks and leases. The lock of an `f_owner`.
//! - Asynchronous I/O: `migrate_lock` of a ring, then `completion_lock` of its context.
//!   `aio_nr_lock`.
//! - Inotify and fanotify: `mark_mutex` of the group, then the lock of a connector, then
//!   `mount_lock`; the lock of a mark; `notification_lock`; `idr_lock`.
//! - Unix sockets: `iolock`, then that of the queue. State lock, then that of the queue. Inode
//!   lock, `bindlock`, the table of names. `sk_peer_lock`. `sk_callback_lock`.
//! - Terminals: `termios_rwsem`, then `output_lock` of the line discipline. `winsize_mutex`.
//!   `flow.lock`. `ctrl.lock`. The lock of the flip buffer. Not `tty_lock()`: see `tty.c`.
//! - Rings of io_uring: `uring_lock`; `tctx_lock`; the `mmap_lock` of a ring, after that of an address
//!   space, then page table locks.
//! - Inodes: their lock, where owner, permissions, times or size are set.
//!
//! The mutex in [`plan::Blueprint`] guards its open files. Nothing is opened, used or closed under
//! it.

#![crate_name = "checkpoint"]

use kernel::{
    bindings,
    error::from_result,
    fs::File,
    prelude::*,
    sync::aref::ARef,
    time::{
        Instant,
        Monotonic, //
    },
    uaccess::UserSlice, //
};

use kernel::macros::export;

mod access;
mod aio;
mod attributes;
mod cred;
mod donate;
mod files;
mod fs;
mod hold;
mod hold_fd;
mod hugetlb;
mod image;
mod machine;
mod mempolicy;
mod mm;
mod numbers;
mod objects;
mod outside;
mod pages;
mod plan;
mod process;
mod registers;
mod report;
mod restart;
mod save;
mod seccomp;
mod shmem;
mod sighand;
mod signals;
mod sort;
mod stream;
mod task;
mod timers;
mod tree;
mod usage;

use files::external;
use hold::Hold;
use hold_fd::{
    HoldRef,
    Slot, //
};
use report::Report;
use stream::Stream;
use tree::Scope;

/// Prefix of messages in the kernel log.
const __LOG_PREFIX: &[u8] = b"checkpoint\0";

const HOLD: u64 = 1 << 0;
const HELD: u64 = 1 << 1;
const CHECK: u64 = 1 << 2;
const RELEASE: u64 = 1 << 3;
const NO_SNAPSHOT: u64 = 1 << 4;
const SAVE_FILES: u64 = 1 << 9;
const KILL: u64 = 1 << 10;

/// Flags that say what is checkpointed, and what they stand for; one at most.
const SCOPES: [(u64, bindings::checkpoint_scope_kind); 4] = [
    (
        1 << 5,
        bindings::checkpoint_scope_kind_CHECKPOINT_SCOPE_GROUP,
    ),
    (
        1 << 6,
        bindings::checkpoint_scope_kind_CHECKPOINT_SCOPE_SESSION,
    ),
    (
        1 << 7,
        bindings::checkpoint_scope_kind_CHECKPOINT_SCOPE_PID_NS,
    ),
    (
        1 << 8,
        bindings::checkpoint_scope_kind_CHECKPOINT_SCOPE_CGROUP,
    ),
];

/// Bounds and default of `timeout_ms` and `lease_ms`.
const DEFAULT_MS: u32 = 10_000;
const MAX_MS: u32 = 3_600_000;

/// The arguments of checkpoint(2), checked.
struct Call<'a> {
    args: &'a bindings::checkpoint_args,
    scope: bindings::checkpoint_scope_kind,
    timeout_ms: u32,
    lease_ms: u32,
    external: KVVec<external::Request>,
    stream: Option<Stream>,
    log: Option<ARef<File>>,
    start: Instant<Monotonic>,
}

fn millis(ms: u32) -> Result<u32> {
    match ms {
        0 => Ok(DEFAULT_MS),
        1..=MAX_MS => Ok(ms),
        _ => Err(EINVAL),
    }
}

/// The file that `fd` refers to, which has to be open for writing.
fn writable(fd: i32) -> Result<ARef<File>> {
    let file = hold_fd::file(fd)?;

    // SAFETY: The file is valid.
    if !unsafe { bindings::checkpoint_writable(file.as_ptr()) } {
        return Err(EBADF);
    }
    Ok(file)
}

impl<'a> Call<'a> {
    /// EINVAL: unknown flags, flags that exclude each other, or arguments that they leave without
    /// meaning. EBADF: descriptors.
    fn new(args: &'a bindings::checkpoint_args) -> Result<Self> {
        let modes = args.flags & (HOLD | HELD | CHECK | RELEASE | NO_SNAPSHOT);
        let save_files = args.flags & SAVE_FILES;
        let kill = args.flags & KILL;

        let scope = match args.flags & !modes & !save_files & !kill {
            0 => bindings::checkpoint_scope_kind_CHECKPOINT_SCOPE_TREES,
            flag => SCOPES
                .iter()
                .find(|(known, _)| *known == flag)
                .map(|(_, kind)| *kind)
                .ok_or(EINVAL)?,
        };
        if args.reserved != 0
            || args.reserved2 != 0
            || (modes & HELD != 0 && modes | save_files != args.flags)
        {
            return Err(EINVAL);
        }
        // A hold has an operation for that.
        if kill != 0 && modes & !NO_SNAPSHOT != 0 {
            return Err(EINVAL);
        }
        if modes & HOLD != 0 && (args.nr_external != 0 || save_files != 0) {
            return Err(EINVAL);
        }
        match modes {
            0 | NO_SNAPSHOT | HOLD | CHECK => (),
            _ if modes & HELD != 0 => {
                let rest = modes & !HELD;
                // A check takes nothing with it, so there is nothing to release after.
                if rest & HOLD != 0 || (rest & CHECK != 0 && rest != CHECK) {
                    return Err(EINVAL);
                }
                if args.timeout_ms != 0 || args.lease_ms != 0 {
                    return Err(EINVAL);
                }
            }
            _ => return Err(EINVAL),
        }

        let stream = if modes & (HOLD | CHECK) != 0 {
            if args.fd != -1 {
                return Err(EINVAL);
            }
            None
        } else {
            Some(Stream::new(hold_fd::file(args.fd)?, true)?)
        };
        let log = match args.log_fd {
            -1 => None,
            fd => Some(writable(fd)?),
        };

        Ok(Self {
            args,
            scope,
            timeout_ms: millis(args.timeout_ms)?,
            lease_ms: millis(args.lease_ms)?,
            external: external(args)?,
            stream,
            log,
            start: Instant::now(),
        })
    }

    fn has(&self, flag: u64) -> bool {
        self.args.flags & flag != 0
    }

    /// Stops what the call is about. The `caller` may be part of that only if it neither keeps nor
    /// kills it.
    fn stop(&self, caller: bool, report: &mut Report) -> Result<Hold> {
        let scope = Scope::of_fd(self.scope, self.args.target)?;

        Hold::stop(scope, caller, self.timeout_ms, self.lease_ms, report)
    }

    /// Captures what `hold` holds: the number of tasks, or 0 after a check without problems.
    fn capture(
        &self,
        hold: &mut Hold,
        flags: u64,
        stats: &mut bindings::checkpoint_stats,
        report: &mut Report,
    ) -> Result<c_long> {
        let result = save::capture(hold, self.stream.as_ref(), &self.external, flags, report);

        if result.is_err() && !self.has(HELD) || flags & RELEASE != 0 {
            hold.release_early();
        }
        stats.stopped_ns = hold.stopped_ns();
        let done = result?;
        stats.tasks = done.tasks;
        stats.pages = done.pages;
        stats.bytes = done.bytes;
        if !self.has(CHECK) {
            Ok(c_long::try_from(done.tasks)?)
        } else if report.count() == 0 {
            Ok(0)
        } else {
            Err(EOPNOTSUPP)
        }
    }

    fn run(&self, stats: &mut bindings::checkpoint_stats, report: &mut Report) -> Result<c_long> {
        if self.has(HOLD) {
            let slot = Slot::reserve()?;
            let hold = self.stop(false, report)?;

            stats.tasks = u64::try_from(hold.tasks().len())?;
            Ok(c_long::try_from(slot.install(hold)?)?)
        } else if self.has(HELD) {
            let hold = HoldRef::get(self.args.target)?;
            let mut hold = hold.capture()?;

            self.capture(&mut hold, self.args.flags, stats, report)
        } else {
            let mut hold = self.stop(!self.has(KILL), report)?;
            let release = if self.has(KILL) { 0 } else { RELEASE };

            self.capture(&mut hold, self.args.flags | release, stats, report)
        }
    }
}

/// What the caller says of descriptors that lead outside the tree. EFAULT, EINVAL, E2BIG.
fn external(args: &bindings::checkpoint_args) -> Result<KVVec<external::Request>> {
    let mut list = KVVec::new();
    if args.nr_external > bindings::CHECKPOINT_EXTERNAL_MAX {
        return Err(E2BIG);
    }
    for index in 0..args.nr_external {
        // SAFETY: The struct consists of integers only.
        let entry: bindings::checkpoint_external = unsafe { read_entry(args.external, index) }?;
        let action = match entry.action {
            bindings::CHECKPOINT_EXTERNAL_SUPPLY => external::Action::Supply,
            bindings::CHECKPOINT_EXTERNAL_DROP => external::Action::Drop,
            _ => return Err(EINVAL),
        };
        if entry.reserved != 0 || entry.pid < 0 || entry.fd < -1 {
            return Err(EINVAL);
        }
        let request = external::Request {
            pid: entry.pid,
            fd: u32::try_from(entry.fd).ok(),
            action,
        };
        list.push(request, GFP_KERNEL)?;
    }
    Ok(list)
}

/// checkpoint(2).
///
/// # Safety
///
/// `args` points to a kernel copy of the arguments.
#[export]
pub unsafe extern "C" fn rust_checkpoint(args: *const bindings::checkpoint_args) -> c_long {
    // SAFETY: By the safety requirement.
    let args = unsafe { &*args };

    from_result(|| {
        let call = Call::new(args)?;
        access::caller()?;

        let mut report = Report::new();
        let mut stats = bindings::checkpoint_stats::default();
        if args.stats != 0 {
            // Fail now rather than after the work.
            write_stats(args.stats, &stats)?;
        }
        let result = call.run(&mut stats, &mut report);

        // This call holds nothing any more. Only a hold that the caller made before, and did not
        // release, can be left: then whoever reads the log should not be in that tree, or this
        // waits until the lease of the hold runs out.
        if let Some(log) = &call.log {
            // A reader that went away does not undo a checkpoint.
            let _ = report.write_to(log);
        }
        if args.stats != 0 {
            stats.problems = report.count();
            stats.total_ns = u64::try_from(call.start.elapsed().as_nanos()).unwrap_or(0);
            // As above: what is done stays done, and a new hold needs its descriptor known.
            let _ = write_stats(args.stats, &stats);
        }
        result
    })
}

/// Copies `stats` to the caller. EFAULT.
fn write_stats(ptr: u64, stats: &bindings::checkpoint_stats) -> Result {
    // SAFETY: The struct consists of u64 only: it has no padding, and is valid for reads.
    let bytes = unsafe {
        core::slice::from_raw_parts(
            core::ptr::from_ref(stats).cast::<u8>(),
            core::mem::size_of_val(stats),
        )
    };

    write_user(ptr, bytes)
}

/// Flags of restart(2).
const FROZEN: u64 = 1 << 0;
const FILES_KEEP: u64 = 1 << 1;
const FILES_TRUNCATE: u64 = 1 << 2;
const FORCE: u64 = 1 << 3;
const CLOCKS_KEEP: u64 = 1 << 4;

/// Reads a value that consists of integers only from the caller. EFAULT.
///
/// # Safety
///
/// Any bytes are a valid `T`.
unsafe fn read_user<T: Copy + Default>(ptr: u64) -> Result<T> {
    let mut value = T::default();
    // SAFETY: `value` is writable as a whole, and by the safety requirement stays valid.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(
            core::ptr::from_mut(&mut value).cast::<u8>(),
            core::mem::size_of::<T>(),
        )
    };
    UserSlice::new(UserPtr::from_addr(usize::try_from(ptr)?), bytes.len())
        .reader()
        .read_slice(bytes)?;
    Ok(value)
}

/// Reads entry number `index` of an array of the caller. EFAULT.
///
/// # Safety
///
/// As for [`read_user`].
unsafe fn read_entry<T: Copy + Default>(array: u64, index: u32) -> Result<T> {
    let size = u64::try_from(core::mem::size_of::<T>())?;
    let at = array.checked_add(u64::from(index) * size).ok_or(EFAULT)?;
    // SAFETY: By the safety requirement.
    unsafe { read_user(at) }
}

/// Reads an absolute path of the caller, without slashes at its end. EFAULT, EINVAL.
fn read_path(ptr: u64, len: u32) -> Result<KVec<u8>> {
    if !(1..bindings::PATH_MAX).contains(&len) {
        return Err(EINVAL);
    }
    let mut path = KVec::from_elem(0u8, usize::try_from(len)?, GFP_KERNEL)?;
    let at = UserPtr::from_addr(usize::try_from(ptr)?);
    UserSlice::new(at, path.len())
        .reader()
        .read_slice(&mut path)?;
    if !path.starts_with(b"/") || path.contains(&0) {
        return Err(EINVAL);
    }
    while path.ends_with(b"/") {
        path.pop();
    }
    Ok(path)
}

/// Where the caller has directories and files now. EFAULT, EINVAL, E2BIG.
fn relocations(args: &bindings::restart_args) -> Result<KVVec<plan::Relocation>> {
    let mut list = KVVec::new();
    if args.nr_relocate > bindings::RESTART_RELOCATE_MAX {
        return Err(E2BIG);
    }
    for index in 0..args.nr_relocate {
        // SAFETY: The struct consists of integers only.
        let entry: bindings::restart_relocate = unsafe { read_entry(args.relocate, index) }?;
        let relocation = plan::Relocation {
            from: read_path(entry.from, entry.from_len)?,
            to: read_path(entry.to, entry.to_len)?,
        };
        list.push(relocation, GFP_KERNEL)?;
    }
    Ok(list)
}

/// The descriptors that the caller supplies. EBADF, EFAULT, EINVAL, E2BIG.
fn supplied(args: &bindings::restart_args) -> Result<KVVec<plan::Supplied>> {
    if args.nr_inherit > bindings::RESTART_INHERIT_MAX {
        return Err(E2BIG);
    }
    let mut list = KVVec::with_capacity(usize::try_from(args.nr_inherit)?, GFP_KERNEL)?;
    for index in 0..args.nr_inherit {
        // SAFETY: The struct consists of integers only.
        let entry: bindings::restart_inherit = unsafe { read_entry(args.inherit, index) }?;
        if entry.reserved != 0 || entry.pid < 0 {
            return Err(EINVAL);
        }
        list.push(
            plan::Supplied {
                pid: entry.pid,
                target_fd: u32::try_from(entry.target_fd).map_err(|_| EBADF)?,
                file: hold_fd::file(entry.fd)?,
            },
            GFP_KERNEL,
        )?;
    }
    Ok(list)
}

/// A pidfd of the restarted root, to be given to the caller. EFAULT, EMFILE.
fn publish_pidfd(root: *mut bindings::task_struct, to: u64) -> Result {
    if to == 0 {
        return Ok(());
    }
    // SAFETY: `root` is a valid task; the function gives the caller a new descriptor.
    let fd = unsafe { bindings::checkpoint_install_pidfd(root) };
    kernel::error::to_result(fd.min(0))?;
    write_user(to, &fd.to_ne_bytes())
}

/// Copies `bytes` to the caller. EFAULT.
fn write_user(to: u64, bytes: &[u8]) -> Result {
    UserSlice::new(UserPtr::from_addr(usize::try_from(to)?), bytes.len())
        .writer()
        .write_slice(bytes)
}

/// restart(2).
///
/// # Safety
///
/// `args` points to a kernel copy of the arguments.
#[export]
pub unsafe extern "C" fn rust_restart(args: *const bindings::restart_args) -> c_long {
    // SAFETY: By the safety requirement.
    let args = unsafe { &*args };

    from_result(|| {
        let start = Instant::<Monotonic>::now();
        let known = FROZEN | FILES_KEEP | FILES_TRUNCATE | FORCE | CLOCKS_KEEP;
        let both = FILES_KEEP | FILES_TRUNCATE;
        if args.flags & !known != 0 || args.flags & both == both {
            return Err(EINVAL);
        }
        if args.reserved != 0 || args.reserved2 != 0 {
            return Err(EINVAL);
        }
        let frozen = args.flags & FROZEN != 0;
        if frozen != (args.hold_fd != 0) {
            return Err(EINVAL);
        }
        access::caller()?;
        let slot = if frozen { Some(Slot::reserve()?) } else { None };
        if frozen {
            // Find out now whether the descriptor can be told.
            write_user(args.hold_fd, &(-1i32).to_ne_bytes())?;
        }
        if args.stats != 0 {
            // A call that has done its work does not fail for this.
            write_stats(args.stats, &bindings::checkpoint_stats::default())?;
        }
        let stream = Stream::new(hold_fd::file(args.fd)?, false)?;
        let log = match args.log_fd {
            -1 => None,
            fd => Some(writable(fd)?),
        };
        let request = restart::Request {
            policy: plan::Policy {
                keep: args.flags & FILES_KEEP != 0,
                truncate: args.flags & FILES_TRUNCATE != 0,
                force: args.flags & FORCE != 0,
            },
            keep_clocks: args.flags & CLOCKS_KEEP != 0,
            supplied: supplied(args)?,
            relocations: relocations(args)?,
            hold_ms: frozen.then_some(DEFAULT_MS),
        };

        let mut report = Report::new();
        let result = restart::run(
            &stream,
            request,
            |root| publish_pidfd(root, args.pidfd),
            &mut report,
        );
        if let Some(log) = &log {
            // A reader that went away does not undo a restart.
            let _ = report.write_to(log);
        }
        let done = result
            .as_ref()
            .map_or(Default::default(), |restarted| restarted.stats);
        if args.stats != 0 {
            let stats = bindings::checkpoint_stats {
                tasks: done.tasks,
                pages: done.pages,
                bytes: done.bytes,
                stopped_ns: 0,
                total_ns: u64::try_from(start.elapsed().as_nanos()).unwrap_or(0),
                problems: report.count(),
            };
            let _ = write_stats(args.stats, &stats);
        }
        let restarted = result?;
        if let (Some(slot), Some(hold)) = (slot, restarted.hold) {
            let fd = i32::try_from(slot.install(hold)?)?;
            write_user(args.hold_fd, &fd.to_ne_bytes())?;
        }
        Ok(c_long::try_from(restarted.root)?)
    })
}
