// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The interface of the kernel, as in `include/uapi/linux/checkpoint.h`.

use std::{
    os::{
        fd::{
            AsRawFd,
            BorrowedFd,
            FromRawFd,
            OwnedFd, //
        },
        unix::ffi::OsStrExt,
    },
    path::Path, //
};

use rustix::io::Errno;

pub(crate) const HOLD: u64 = 1 << 0;
pub(crate) const HELD: u64 = 1 << 1;
pub(crate) const CHECK: u64 = 1 << 2;
pub(crate) const NO_SNAPSHOT: u64 = 1 << 4;
pub(crate) const GROUP: u64 = 1 << 5;
pub(crate) const SESSION: u64 = 1 << 6;
pub(crate) const PID_NS: u64 = 1 << 7;
pub(crate) const CGROUP: u64 = 1 << 8;
pub(crate) const SAVE_FILES: u64 = 1 << 9;
pub(crate) const KILL: u64 = 1 << 10;

pub(crate) const FROZEN: u64 = 1 << 0;
pub(crate) const FILES_KEEP: u64 = 1 << 1;
pub(crate) const FILES_TRUNCATE: u64 = 1 << 2;
pub(crate) const FORCE: u64 = 1 << 3;
pub(crate) const CLOCKS_KEEP: u64 = 1 << 4;

const SYS_CHECKPOINT: libc::c_long = 473;
const SYS_RESTART: libc::c_long = 474;

#[derive(Default)]
#[repr(C)]
pub(crate) struct CheckpointArgs {
    pub(crate) flags: u64,
    pub(crate) target: i32,
    pub(crate) fd: i32,
    pub(crate) log_fd: i32,
    pub(crate) timeout_ms: u32,
    pub(crate) lease_ms: u32,
    pub(crate) reserved: u32,
    pub(crate) stats: u64,
    pub(crate) external: u64,
    pub(crate) nr_external: u32,
    pub(crate) reserved2: u32,
}

const _: () = assert!(size_of::<CheckpointArgs>() == 56);

pub(crate) const EXTERNAL_SUPPLY: u32 = 1;
pub(crate) const EXTERNAL_DROP: u32 = 2;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RawExternal {
    pub(crate) pid: i32,
    pub(crate) fd: i32,
    pub(crate) action: u32,
    pub(crate) reserved: u32,
}

const _: () = assert!(size_of::<RawExternal>() == 16);

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct RawStats {
    pub(crate) tasks: u64,
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
    pub(crate) stopped_ns: u64,
    pub(crate) total_ns: u64,
    pub(crate) problems: u64,
}

const _: () = assert!(size_of::<RawStats>() == 48);

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct RawInherit {
    pub(crate) pid: i32,
    pub(crate) target_fd: i32,
    pub(crate) fd: i32,
    pub(crate) reserved: u32,
}

const _: () = assert!(size_of::<RawInherit>() == 16);

#[repr(C)]
struct RawRelocate {
    from: u64,
    to: u64,
    from_len: u32,
    to_len: u32,
}

const _: () = assert!(size_of::<RawRelocate>() == 24);

#[derive(Default)]
#[repr(C)]
struct RestartArgs {
    flags: u64,
    fd: i32,
    log_fd: i32,
    nr_inherit: u32,
    reserved: u32,
    inherit: u64,
    pidfd: u64,
    hold_fd: u64,
    stats: u64,
    relocate: u64,
    nr_relocate: u32,
    reserved2: u32,
}

const _: () = assert!(size_of::<RestartArgs>() == 72);

fn result(value: libc::c_long) -> Result<libc::c_long, Errno> {
    if value == -1 {
        let errno = std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO);
        return Err(Errno::from_raw_os_error(errno));
    }
    Ok(value)
}

fn address<T>(pointer: *const T) -> u64 {
    pointer.expose_provenance() as u64
}

/// checkpoint(2). The value is the number of tasks, or a descriptor with [`HOLD`].
pub(crate) fn checkpoint(
    args: CheckpointArgs,
    external: &[RawExternal],
    stats: &mut RawStats,
) -> Result<libc::c_long, Errno> {
    let args = CheckpointArgs {
        stats: address(&raw mut *stats),
        external: address(external.as_ptr()),
        nr_external: u32::try_from(external.len()).map_err(|_| Errno::TOOBIG)?,
        ..args
    };
    // SAFETY: The arguments are as the kernel has them, `stats` is valid for writes, `external` for
    // reads, and nothing else in them is an address.
    result(unsafe { libc::syscall(SYS_CHECKPOINT, &raw const args, size_of_val(&args)) })
}

/// What restart(2) returned.
pub(crate) struct RawRestarted {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) hold: Option<OwnedFd>,
}

/// restart(2).
pub(crate) fn restart(
    flags: u64,
    fd: BorrowedFd<'_>,
    log: BorrowedFd<'_>,
    inherit: &[RawInherit],
    relocate: &[(&Path, &Path)],
    stats: &mut RawStats,
) -> Result<RawRestarted, Errno> {
    let path = |path: &Path| {
        let bytes = path.as_os_str().as_bytes();
        let len = u32::try_from(bytes.len()).map_err(|_| Errno::NAMETOOLONG)?;
        Ok((address(bytes.as_ptr()), len))
    };
    let mut relocations = Vec::new();
    for &(from, to) in relocate {
        let ((from, from_len), (to, to_len)) = (path(from)?, path(to)?);
        relocations.push(RawRelocate {
            from,
            to,
            from_len,
            to_len,
        });
    }
    let mut pidfd: i32 = -1;
    let mut hold: i32 = -1;
    let frozen = flags & FROZEN != 0;
    let args = RestartArgs {
        flags,
        fd: fd.as_raw_fd(),
        log_fd: log.as_raw_fd(),
        nr_inherit: u32::try_from(inherit.len()).map_err(|_| Errno::INVAL)?,
        reserved: 0,
        inherit: address(inherit.as_ptr()),
        pidfd: address(&raw mut pidfd),
        hold_fd: if frozen { address(&raw mut hold) } else { 0 },
        stats: address(&raw mut *stats),
        relocate: address(relocations.as_ptr()),
        nr_relocate: u32::try_from(relocations.len()).map_err(|_| Errno::TOOBIG)?,
        reserved2: 0,
    };
    // SAFETY: The arguments are as the kernel has them; what they point to is valid for reads or
    // writes, in the length that the kernel knows.
    let pid = result(unsafe { libc::syscall(SYS_RESTART, &raw const args, size_of_val(&args)) })?;
    let own = |fd: i32| {
        // SAFETY: The kernel made the descriptor for us, and nobody else has seen it.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let (pidfd, hold) = (own(pidfd), own(hold));
    Ok(RawRestarted {
        pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?,
        pidfd: pidfd.ok_or(Errno::BADF)?,
        hold,
    })
}

/// Makes the descriptor that checkpoint(2) returned with [`HOLD`] ours.
pub(crate) fn hold(value: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = i32::try_from(value).map_err(|_| Errno::BADF)?;
    // SAFETY: The kernel made the descriptor for us, and nobody else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The ioctls of a hold.
#[derive(Clone, Copy)]
pub(crate) enum HoldOp {
    Renew = 0,
    Release = 1,
    Kill = 2,
    Stop = 3,
}

pub(crate) fn hold_op(hold: BorrowedFd<'_>, op: HoldOp) -> Result<(), Errno> {
    let request = (0xcb << 8) | op as libc::Ioctl;
    // SAFETY: The operation takes no argument.
    result(unsafe { libc::ioctl(hold.as_raw_fd(), request) }.into()).map(|_| ())
}

/// Returns a new descriptor, closed on exec, of the open file that descriptor number `fd` of this
/// process refers to, whoever owns that.
///
/// # Errors
///
/// EBADF if it refers to none.
pub fn duplicate(fd: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number; the descriptor that it makes is ours.
    unsafe {
        let fd = result(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3).into())?;
        Ok(OwnedFd::from_raw_fd(
            i32::try_from(fd).map_err(|_| Errno::BADF)?,
        ))
    }
}

/// Takes over descriptor number `fd`, which whoever started this process left open for it.
///
/// # Errors
///
/// EBADF if there is none.
///
/// # Safety
///
/// Nothing in this process owns the descriptor, and nobody uses its number afterwards.
pub unsafe fn inherited(fd: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: fcntl takes any number; by the safety requirement the descriptor is ours.
    unsafe {
        result(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC).into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// In which of the two processes a [`fork`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// In the new one.
    Child,
    /// In the old one, with the number of the new one.
    Parent(i32),
}

/// Makes a copy of this process, which has one thread.
///
/// # Errors
///
/// Those of fork(2), and EBUSY if there are more threads.
pub fn fork() -> std::io::Result<Fork> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() > 1) {
        return Err(Errno::BUSY.into());
    }
    // SAFETY: There is one thread: the child's memory is in a state that it can go on from.
    match result(unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(i32::try_from(pid).unwrap_or(-1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = include_str!("../../../rust/include/uapi/linux/checkpoint.h");

    /// Returns what the header defines a name as.
    fn defined(name: &str) -> &str {
        HEADER
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.strip_prefix(name))
            .find(|rest| rest.starts_with(['\t', ' ']))
            .map(|rest| rest.split("/*").next().unwrap_or(rest).trim())
            .unwrap_or_else(|| panic!("{name} is not in the header"))
    }

    #[test]
    fn constants_are_those_of_the_header() {
        for (name, value) in [
            ("CHECKPOINT_HOLD", HOLD),
            ("CHECKPOINT_HELD", HELD),
            ("CHECKPOINT_CHECK", CHECK),
            ("CHECKPOINT_NO_SNAPSHOT", NO_SNAPSHOT),
            ("CHECKPOINT_SAVE_FILES", SAVE_FILES),
            ("CHECKPOINT_KILL", KILL),
            ("CHECKPOINT_GROUP", GROUP),
            ("CHECKPOINT_SESSION", SESSION),
            ("CHECKPOINT_PID_NS", PID_NS),
            ("CHECKPOINT_CGROUP", CGROUP),
            ("RESTART_FROZEN", FROZEN),
            ("RESTART_FILES_KEEP", FILES_KEEP),
            ("RESTART_FILES_TRUNCATE", FILES_TRUNCATE),
            ("RESTART_FORCE", FORCE),
            ("RESTART_CLOCKS_KEEP", CLOCKS_KEEP),
        ] {
            assert_eq!(
                defined(name),
                format!("(1ULL << {})", value.trailing_zeros()),
                "{name}"
            );
        }
        for (name, value) in [
            ("CHECKPOINT_EXTERNAL_SUPPLY", EXTERNAL_SUPPLY),
            ("CHECKPOINT_EXTERNAL_DROP", EXTERNAL_DROP),
        ] {
            assert_eq!(defined(name), value.to_string(), "{name}");
        }
        for (name, op) in [
            ("CHECKPOINT_IOC_RENEW", HoldOp::Renew),
            ("CHECKPOINT_IOC_RELEASE", HoldOp::Release),
            ("CHECKPOINT_IOC_KILL", HoldOp::Kill),
            ("CHECKPOINT_IOC_STOP", HoldOp::Stop),
        ] {
            let number = op as u8;
            assert_eq!(
                defined(name),
                format!("_IO(CHECKPOINT_IOC_MAGIC, {number})"),
                "{name}"
            );
        }
        assert_eq!(defined("CHECKPOINT_IOC_MAGIC"), "0xcb");
        assert_eq!(defined("CHECKPOINT_ARGS_SIZE_VER0"), "40");
        assert_eq!(defined("RESTART_ARGS_SIZE_VER0"), "56");
    }
}
