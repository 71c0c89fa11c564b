// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Signals that are read instead of being suffered.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd,
        FromRawFd,
        OwnedFd, //
    },
    ptr, //
};

/// A set of signals, blocked for this thread and those it starts, to be read one by one.
#[derive(Debug)]
pub struct Signals(OwnedFd);

/// A signal that arrived.
#[derive(Clone, Copy, Debug)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Whether a process sent it; otherwise the kernel did, such as at a key of the terminal.
    pub from_process: bool,
}

fn set(numbers: &[i32]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is valid for writes, and initialised by the first call.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in numbers {
            libc::sigaddset(set.as_mut_ptr(), *number);
        }
        set.assume_init()
    }
}

impl Signals {
    /// Blocks these signals from now on. Call it while there is one thread only.
    ///
    /// # Errors
    ///
    /// Those of signalfd(2).
    pub fn take(numbers: &[i32]) -> io::Result<Self> {
        let set = set(numbers);
        // SAFETY: `set` is valid for reads; signalfd makes a new descriptor, which is ours.
        unsafe {
            if libc::sigprocmask(libc::SIG_BLOCK, &set, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            match libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(OwnedFd::from_raw_fd(fd))),
            }
        }
    }

    /// Returns the next signal that has arrived, if one has.
    pub fn next(&self) -> Option<Signal> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is valid for writes of its size, and every byte pattern is valid in it.
        let (got, info) = unsafe {
            let got = libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size);
            (got, info.assume_init())
        };
        (usize::try_from(got) == Ok(size)).then(|| Signal {
            number: i32::try_from(info.ssi_signo).unwrap_or(0),
            from_process: info.ssi_code <= 0,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ignores a signal.
pub fn ignore(number: i32) {
    // SAFETY: Ignoring a signal runs no code of ours.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

/// Ends this process as the signal does by default, but without a core of its own.
pub fn die(number: i32) -> ! {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` and the set are valid for reads; the default action runs no code of ours.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set(&[number]), ptr::null_mut());
    }
    // The default of this signal is to go on.
    std::process::exit(128 + number)
}

/// Stops this process, and returns when somebody lets it go on.
pub fn stop_self() {
    // SAFETY: The signal runs no code of ours.
    unsafe { libc::raise(libc::SIGSTOP) };
}
