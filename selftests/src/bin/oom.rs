// SPDX-License-Identifier: GPL-2.0

//! Checkpoints where memory is short.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    fill,
    verify,
    Area, //
};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("no-room-for-two", |v| limited(v, 24)),
        Case::new("room-for-two", |v| limited(v, 64)),
    ],
    ..Suite::new("oom")
};

fn main() -> ExitCode {
    SUITE.main()
}

const MIB: usize = 1 << 20;

/// Moves this process to a memory cgroup of its own that has so much.
fn limit(mib: usize) -> Result<()> {
    let root = PathBuf::from("/sys/fs/cgroup");
    if fs::write(root.join("cgroup.subtree_control"), "+memory").is_err() {
        return skip("there is no memory cgroup");
    }
    let group = root.join(format!("oom-{}", sys::getpid()));
    match fs::create_dir(&group) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(e.into()),
        _ => {}
    }
    fs::write(group.join("memory.max"), (mib * MIB).to_string())?;
    fs::write(group.join("cgroup.procs"), "0")?;
    Ok(())
}

/// Writes to all of its memory all the time: a second copy of it would be the end, unless there is
/// room.
fn limited(v: &Victim, mib: usize) -> Result<()> {
    limit(mib)?;
    let area = Area::anon(16 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE)?;
    // SAFETY: the area is ours. It must not go up in pages that are huge.
    unsafe { libc::madvise(area.addr.cast(), area.len, libc::MADV_NOHUGEPAGE) };
    fill(area.bytes(), 1);
    v.ready()?;
    let mut seed = 1;
    while !v.told() {
        seed += 1;
        fill(area.bytes(), seed);
    }
    verify("memory", area.bytes(), seed)
}
