// SPDX-License-Identifier: GPL-2.0

//! Mutexes of the C library that are held across a restart: robust ones, of which the kernel tells the
//! death of the owner, and ones with priority inheritance, for which it keeps who waits.

use selftests::prelude::*;
use selftests::sys::{
    gettid,
    kill,
    Area, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::{
    self,
    JoinHandle, //
};

const SUITE: Suite = Suite {
    cases: &[
        Case::new("robust", |v| owner_ends(v, Kind::ROBUST)),
        Case::new("priority-inheritance", owner_unlocks),
        Case::new("robust-priority-inheritance", |v| {
            owner_ends(v, Kind::ROBUST | Kind::INHERIT)
        }),
        Case::new("other-process", |v| process_ends(v, Kind::ROBUST)),
        Case::new("other-process-priority-inheritance", |v| {
            process_ends(v, Kind::ROBUST | Kind::INHERIT)
        }),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("mutex")
};

fn main() -> ExitCode {
    SUITE.main()
}

const LIMIT: Duration = Duration::from_secs(20);

/// What kind of mutex.
#[derive(Clone, Copy)]
struct Kind(u8);

impl Kind {
    const ROBUST: Self = Self(1);
    const INHERIT: Self = Self(2);
}

impl std::ops::BitOr for Kind {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A mutex in memory that child processes share.
#[derive(Clone, Copy)]
struct Mutex(*mut libc::pthread_mutex_t);

// SAFETY: it is made for threads.
unsafe impl Send for Mutex {}

fn check(ret: libc::c_int) -> io::Result<()> {
    match ret {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

impl Mutex {
    fn new(kind: Kind) -> Result<Self> {
        let area = Area::anon(
            sys::PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
        )?;
        let mutex = area.addr.cast();
        // SAFETY: the attributes are initialised first; the memory is zeroed and stays.
        unsafe {
            let mut attr = std::mem::zeroed();
            check(libc::pthread_mutexattr_init(&mut attr))?;
            check(libc::pthread_mutexattr_setpshared(
                &mut attr,
                libc::PTHREAD_PROCESS_SHARED,
            ))?;
            if kind.0 & Kind::ROBUST.0 != 0 {
                check(libc::pthread_mutexattr_setrobust(
                    &mut attr,
                    libc::PTHREAD_MUTEX_ROBUST,
                ))?;
            }
            if kind.0 & Kind::INHERIT.0 != 0 {
                check(libc::pthread_mutexattr_setprotocol(
                    &mut attr,
                    libc::PTHREAD_PRIO_INHERIT,
                ))?;
            }
            check(libc::pthread_mutex_init(mutex, &attr))?;
        }
        Ok(Self(mutex))
    }

    fn lock(self) -> io::Result<()> {
        // SAFETY: it is initialised, and stays.
        check(unsafe { libc::pthread_mutex_lock(self.0) })
    }

    fn unlock(self) -> io::Result<()> {
        // SAFETY: as above.
        check(unsafe { libc::pthread_mutex_unlock(self.0) })
    }
}

/// A thread that waits for `mutex`, does `then` when it has it, and says what lock() told it.
fn waiter(
    mutex: Mutex,
    then: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<io::Result<()>>> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = tell.send(gettid());
        mutex.lock().and_then(|()| then())
    });
    let path = format!("/proc/self/task/{}/syscall", told.recv()?);
    let waits = || {
        let text = fs::read_to_string(&path).unwrap_or_default();
        text.starts_with(&format!("{} ", libc::SYS_futex))
    };
    ensure!(sys::until(LIMIT, waits), "nobody waits for the mutex");
    Ok(thread)
}

fn dead_owner(result: io::Result<()>) -> Result<()> {
    ensure!(
        sys::fails_with(result.as_ref().map_err(clone).copied(), libc::EOWNERDEAD),
        "lock said {result:?}"
    );
    Ok(())
}

fn clone(e: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(0))
}

/// The thread that holds it ends.
fn owner_ends(v: &Victim, kind: Kind) -> Result<()> {
    let mutex = Mutex::new(kind)?;
    let (tell, told) = mpsc::channel();
    let (end, ending) = mpsc::channel::<()>();
    let numbers = NumbersThatFollow::choose();
    let owner = thread::spawn(move || {
        let _ = tell.send(mutex.lock());
        let _ = ending.recv();
    });
    told.recv()??;
    let waiter = waiter(mutex, || Ok(()))?;
    drop(numbers);
    v.stand()?;
    ensure!(!waiter.is_finished(), "a mutex that is held was locked");
    drop(end);
    owner.join().expect("the owner panicked");
    dead_owner(waiter.join().expect("the waiter panicked"))
}

fn owner_unlocks(v: &Victim) -> Result<()> {
    let mutex = Mutex::new(Kind::INHERIT)?;
    mutex.lock()?;
    let numbers = NumbersThatFollow::choose();
    let waiters = [0, 1].map(|_| waiter(mutex, move || mutex.unlock()));
    drop(numbers);
    let waiters = waiters.into_iter().collect::<Result<Vec<_>>>()?;
    v.stand()?;
    ensure!(
        waiters.iter().all(|waiter| !waiter.is_finished()),
        "a mutex that is held was locked"
    );
    mutex.unlock()?;
    // Each hands it on to the next.
    for waiter in waiters {
        waiter.join().expect("a waiter panicked")?;
    }
    mutex.lock()?;
    mutex.unlock()?;
    Ok(())
}

/// The process that holds it is killed.
fn process_ends(v: &Victim, kind: Kind) -> Result<()> {
    let mutex = Mutex::new(kind)?;
    let (locked, tell) = sys::pipe(0)?;
    let numbers = NumbersThatFollow::choose();
    let mut owner = Process::fork(|| {
        if mutex.lock().is_ok() && sys::write(&tell, &[1]).is_ok() {
            // SAFETY: no memory is involved.
            unsafe { libc::pause() };
        }
        1
    })?;
    sys::read(&locked, &mut [0])?;
    let waiter = waiter(mutex, || Ok(()))?;
    drop(numbers);
    v.stand()?;
    ensure!(!waiter.is_finished(), "a mutex that is held was locked");
    kill(owner.pid, libc::SIGKILL)?;
    owner.wait(LIMIT)?;
    dead_owner(waiter.join().expect("the waiter panicked"))
}
