// SPDX-License-Identifier: GPL-2.0

//! Devices that have state of their own are refused by name and number.

use selftests::prelude::*;
use selftests::sys::{
    open,
    seek, //
};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    refusals: &[
        Refusal::new(
            "character",
            character,
            &["character device /dev/kmsg (1:11)"],
        ),
        Refusal::new("block", block, &["block device /dev/vdb (254:16)"]),
    ],
    ..Suite::new("device")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn stands(v: &Victim, path: &str) -> Result<()> {
    let path = Path::new(path);
    if !path.exists() {
        return skip(format!("no {}", path.display()));
    }
    let fd = open(path, libc::O_RDONLY)?;
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    seek(&fd, 0, libc::SEEK_SET)?;
    Ok(())
}

fn character(v: &Victim) -> Result<()> {
    stands(v, "/dev/kmsg")
}

fn block(v: &Victim) -> Result<()> {
    stands(v, "/dev/vdb")
}
