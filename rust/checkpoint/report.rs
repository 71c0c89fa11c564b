// SPDX-License-Identifier: GPL-2.0

//! What stands in the way of a checkpoint or a restart, said by name.
//!
//! Problems are collected in memory, because nothing is written to a descriptor of the caller
//! while tasks are held: whoever reads it may be one of them.

use kernel::{
    bindings,
    fmt,
    fmt::Write,
    fs::File,
    prelude::*,
    task::Pid, //
};

/// Lines beyond this are counted, not kept.
const TEXT_MAX: usize = 64 * 1024;

/// The object that a problem is about. Pids are those that the caller sees.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "constructed by the resources")]
pub(crate) enum Place {
    /// The tree as a whole.
    Tree,
    /// A thread, by its tid.
    Task(Pid),
    /// A descriptor of a task.
    Fd(Pid, u32),
    /// The mapping of a task that starts at the address.
    Vma(Pid, usize),
    /// The image.
    Image,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tree => f.write_str("tree"),
            Place::Task(pid) => write!(f, "task {pid}"),
            Place::Fd(pid, fd) => write!(f, "task {pid}/fd {fd}"),
            Place::Vma(pid, start) => write!(f, "task {pid}/vma {start:x}"),
            Place::Image => f.write_str("image"),
        }
    }
}

/// The lines of one system call, 64 KiB of text at most.
pub(crate) struct Report {
    text: KVVec<u8>,
    count: u64,
}

/// Appends whole writes, or fails.
struct Text<'a>(&'a mut KVVec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len() + s.len() > TEXT_MAX {
            return Err(fmt::Error);
        }
        self.0
            .extend_from_slice(s.as_bytes(), GFP_KERNEL)
            .map_err(|_| fmt::Error)
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new() -> Self {
        Self {
            text: KVVec::new(),
            count: 0,
        }
    }

    /// Adds the line "`place`: `what`". A line for which there is no room is only counted.
    pub(crate) fn problem(&mut self, place: Place, what: fmt::Arguments<'_>) {
        self.count += 1;
        self.note(place, what);
    }

    /// Adds a line that is no problem, but that the caller should know.
    pub(crate) fn note(&mut self, place: Place, what: fmt::Arguments<'_>) {
        let len = self.text.len();

        if Text(&mut self.text)
            .write_fmt(fmt!("{place}: {what}\n"))
            .is_err()
        {
            self.text.truncate(len);
        }
    }

    /// The number of problems, those without room included.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Writes the lines to `log`, at its position. May block: call it with nothing held.
    ///
    /// Errors are those of the file. A reader that is gone is no reason to fail a checkpoint, so
    /// the callers ignore them.
    pub(crate) fn write_to(&self, log: &File) -> Result {
        let mut text = self.text.as_slice();

        while !text.is_empty() {
            // SAFETY: `log` is a valid file and `text` is valid for reads of its length.
            let ret = unsafe {
                bindings::checkpoint_write(log.as_ptr(), text.as_ptr().cast(), text.len())
            };
            if ret < 0 {
                return Err(Error::from_errno(
                    i32::try_from(ret).unwrap_or(EIO.to_errno()),
                ));
            }
            let written = usize::try_from(ret)?;
            text = text.get(written..).unwrap_or(&[]);
            if written == 0 {
                return Err(EIO);
            }
        }
        Ok(())
    }
}
