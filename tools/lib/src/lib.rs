// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Checkpoint and restart of trees of processes: safe wrappers of checkpoint(2) and restart(2), and
//! a reader of their images.
//!
//! ```no_run
//! # fn main() -> Result<(), checkpoint::Error> {
//! use std::{fs::File, os::fd::AsFd};
//!
//! let target = checkpoint::process(412)?;
//! let image = File::create("412.img")?;
//! let done = checkpoint::Checkpoint::new(target.as_fd()).write(image.as_fd())?;
//! println!("{} tasks stood still for {:?}", done.tasks, done.stopped);
//! # Ok(())
//! # }
//! ```

mod call;
pub mod compress;
mod error;
pub mod progress;
pub mod signals;
pub mod stream;
mod sys;

pub use self::{
    call::{
        Checkpoint,
        External,
        Hold,
        Inherit,
        Restart,
        Restarted,
        Scope,
        Stats, //
    },
    error::Error,
    sys::{
        duplicate,
        fork,
        inherited,
        Fork, //
    }, //
};

use std::os::fd::OwnedFd;

use rustix::process::{
    pidfd_open,
    Pid,
    PidfdFlags, //
};

/// Returns a pidfd of a process.
///
/// # Errors
///
/// [`Error::System`] if there is none of that number, or if it is a thread.
pub fn process(pid: i32) -> Result<OwnedFd, Error> {
    let what = "find the process";
    let pid = Pid::from_raw(pid)
        .filter(|pid| pid.as_raw_nonzero().get() > 0)
        .ok_or(Error::System {
            what,
            errno: rustix::io::Errno::SRCH,
        })?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::System { what, errno })
}
