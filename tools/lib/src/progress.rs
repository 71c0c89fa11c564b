// SPDX-License-Identifier: GPL-2.0 OR MIT

//! How far a long transfer is, on a terminal.

use std::{
    fmt,
    io::{
        self,
        IsTerminal, //
    },
    os::fd::{
        AsFd,
        BorrowedFd,
        OwnedFd, //
    },
    sync::mpsc::{
        self,
        RecvTimeoutError,
        Sender, //
    },
    thread::{
        self,
        JoinHandle, //
    },
    time::Duration, //
};

use indicatif::{
    HumanBytes,
    ProgressBar,
    ProgressStyle, //
};
use rustix::fs::{
    fstat,
    tell,
    FileType, //
};

/// Transfers that take less are not worth a bar.
const PATIENCE: Duration = Duration::from_millis(700);

/// A bar that a thread draws while the kernel reads or writes a file.
#[derive(Debug)]
pub struct Progress {
    running: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Which side of the transfer the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It is read, from a length that is known.
    Read,
    /// It is written.
    Write,
}

impl Progress {
    /// Draws on stderr how far `file` is, if stderr is a terminal and `file` a regular file.
    pub fn start(file: BorrowedFd<'_>, direction: Direction, quiet: bool) -> Self {
        let regular = fstat(file)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        let file = (!quiet && regular && io::stderr().is_terminal())
            .then(|| file.try_clone_to_owned().ok())
            .flatten();
        let running = file.map(|file| {
            let (stop, stopped) = mpsc::channel();
            let draw = move || {
                if stopped.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                let bar = bar(&file, direction);
                while stopped.recv_timeout(Duration::from_millis(100))
                    == Err(RecvTimeoutError::Timeout)
                {
                    bar.set_position(position(&file, direction));
                }
                bar.finish_and_clear();
            };
            (stop, thread::spawn(draw))
        });
        Self { running }
    }
}

fn position(file: &OwnedFd, direction: Direction) -> u64 {
    match direction {
        Direction::Read => tell(file).unwrap_or(0),
        Direction::Write => size(file),
    }
}

fn size(file: &OwnedFd) -> u64 {
    fstat(file.as_fd()).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
}

fn bar(file: &OwnedFd, direction: Direction) -> ProgressBar {
    let (bar, style) = match direction {
        Direction::Read => (
            ProgressBar::new(size(file)),
            "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        Direction::Write => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec} {elapsed}",
        ),
    };
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A bar that failed to draw is no loss.
            let _ = thread.join();
        }
    }
}

/// A number of bytes, for people.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HumanBytes(self.0).fmt(f)
    }
}

/// A time, for people: three digits of what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let (value, unit) = match seconds {
            s if s >= 1.0 => (s, "s"),
            s if s >= 1e-3 => (s * 1e3, "ms"),
            s => (s * 1e6, "us"),
        };
        let digits = match value {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}
