// SPDX-License-Identifier: GPL-2.0

//! Checkpoints where memory is short.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    enter_cgroup,
    fill,
    verify,
    Area, //
};
use std::fs;
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

/// Writes to all of its memory all the time: a second copy of it would be the end, unless there is
/// room.
fn limited(v: &Victim, mib: usize) -> Result<()> {
    let group = enter_cgroup("oom")?;
    fs::write(group.join("memory.max"), (mib * MIB).to_string())?;
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
