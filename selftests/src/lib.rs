// SPDX-License-Identifier: GPL-2.0

//! Selftests of checkpoint(2) and restart(2).
//!
//! One program per resource, named after it. Each has *cases*: a victim sets up its state, says that
//! it is ready, stands still (or sleeps in the system call under test), and once told to, checks its
//! own memory, descriptors and clocks. What happens to it in between is the mode, see [`Mode`]. A
//! victim that was never checkpointed has to pass as well: that is the mode `control`.
//!
//! Runner and victim talk only by files of one directory, which is on a disk that survives a reboot.
//! No pipe and no socket leads out of the victim, so the victim is all there is to save.

pub mod epoll;
mod ktap;
pub mod maps;
mod pids;
mod runner;
mod suite;
pub mod sys;
mod threads;
mod tool;
pub mod unix;
mod victim;

pub use ktap::{
    Outcome,
    Reporter, //
};
pub use pids::{
    a_kernel_thread,
    children,
    tasks,
    NumbersThatFollow,
    Task, //
};
pub use runner::{
    Bench,
    Life, //
};
pub use suite::{
    Case,
    Custom,
    Mode,
    Refusal,
    Suite, //
};
pub use threads::Counters;
pub use tool::{
    place,
    Finished,
    Process,
    Started,
    Tool, //
};
pub use victim::{
    same,
    skip,
    Skipped,
    Victim, //
};

/// What every selftest program needs.
pub mod prelude {
    pub use crate::{
        same,
        skip,
        sys,
        Case,
        Custom,
        Mode,
        Refusal,
        Suite,
        Victim, //
    };
    pub use anyhow::{
        bail,
        ensure,
        Context,
        Result, //
    };
    pub use std::time::{
        Duration,
        Instant, //
    };
}
