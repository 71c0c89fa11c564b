// SPDX-License-Identifier: GPL-2.0

//! epoll(7), and the event counters to watch with it.

use crate::sys::{
    cvt,
    owned,
    read,
    write, //
};
use anyhow::{
    Context,
    Result, //
};
use std::fs;
use std::io;
use std::os::fd::{
    AsRawFd,
    OwnedFd,
    RawFd, //
};

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll(OwnedFd);

/// What an epoll instance watches, as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watched {
    /// The descriptor by which it was added.
    pub fd: RawFd,
    /// The event mask in hexadecimal digits.
    pub events: String,
    /// The data in hexadecimal digits.
    pub data: String,
}

impl Epoll {
    /// epoll_create1(2) with close-on-exec.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Self)
    }

    fn ctl(&self, op: libc::c_int, fd: RawFd, events: i32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: data,
        };
        // SAFETY: the event is valid.
        cvt(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), op, fd, &mut event) }).map(drop)
    }

    /// EPOLL_CTL_ADD.
    pub fn add(&self, fd: &impl AsRawFd, events: i32, data: u64) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_ADD, fd.as_raw_fd(), events, data)
    }

    /// EPOLL_CTL_MOD.
    pub fn modify(&self, fd: &impl AsRawFd, events: i32, data: u64) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), events, data)
    }

    /// EPOLL_CTL_DEL.
    pub fn remove(&self, fd: &impl AsRawFd) -> io::Result<()> {
        self.ctl(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), 0, 0)
    }

    /// epoll_wait(2): events and data of what is ready, of at most `max`.
    pub fn wait(&self, max: usize, ms: i32) -> io::Result<Vec<(i32, u64)>> {
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; max];
        // SAFETY: there is place for so many events.
        let n = cvt(unsafe {
            libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), max as i32, ms)
        })?;
        events.truncate(n as usize);
        Ok(events.iter().map(|e| (e.events as i32, e.u64)).collect())
    }

    /// The data of all that is ready now.
    pub fn ready(&self) -> io::Result<Vec<u64>> {
        Ok(self.wait(64, 0)?.iter().map(|(_, data)| *data).collect())
    }

    /// What it watches, sorted.
    pub fn watched(&self) -> Result<Vec<Watched>> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let mut all = Vec::new();
        for line in info.lines().filter(|line| line.starts_with("tfd:")) {
            let mut words = line.split_whitespace();
            let mut field = || words.nth(1).context("fdinfo of epoll");
            all.push(Watched {
                fd: field()?.parse()?,
                events: field()?.to_owned(),
                data: field()?.to_owned(),
            });
        }
        all.sort();
        Ok(all)
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// eventfd(2) with close-on-exec.
pub fn counter(count: u32, flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    owned(unsafe { libc::eventfd(count, libc::EFD_CLOEXEC | flags) })
}

/// Adds to an eventfd.
pub fn count(fd: &impl AsRawFd, by: u64) -> io::Result<()> {
    write(fd, &by.to_ne_bytes()).map(drop)
}

/// Reads an eventfd, a timerfd or the like.
pub fn counted(fd: &impl AsRawFd) -> io::Result<u64> {
    let mut count = [0; 8];
    read(fd, &mut count)?;
    Ok(u64::from_ne_bytes(count))
}
