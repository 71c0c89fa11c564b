// SPDX-License-Identifier: GPL-2.0

//! Locks of files: POSIX, OFD, flock(2), leases.

use libc::{
    F_RDLCK,
    F_UNLCK,
    F_WRLCK,
    LOCK_EX,
    LOCK_NB,
    LOCK_SH,
    O_CREAT,
    O_RDONLY,
    O_RDWR, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fcntl,
    open,
    read,
    write, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("posix", posix),
        Case::new("posix-of-two-processes", posix_of_two),
        Case::new("ofd", ofd),
        Case::new("flock", flock),
        Case::new("flock-shared-by-fork", flock_shared_by_fork),
        Case::new("lease", lease),
        Case::new("waiters", waiters),
        Case::new("many", many),
    ],
    refusals: &[Refusal::new(
        "breaking-lease",
        breaking_lease,
        &["lease that is being broken"],
    )],
    customs: &[Custom {
        name: "taken",
        run: taken,
    }],
    victims: &[Case::new("whole-file", whole_file)],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("locks")
};

/// Not in the libc crate.
const F_SETSIG: i32 = 10;

fn main() -> ExitCode {
    SUITE.main()
}

fn lock(ty: i32, start: i64, len: i64) -> libc::flock {
    // SAFETY: all zeroes is a flock.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = ty as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = len;
    lock
}

fn set(fd: &OwnedFd, cmd: i32, ty: i32, start: i64, len: i64) -> io::Result<()> {
    // SAFETY: the lock is valid.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), cmd, &lock(ty, start, len)) }).map(drop)
}

/// What stands in the way of a lock for writing from `start` on: type, start, length, process.
fn found(fd: &OwnedFd, cmd: i32, start: i64, len: i64) -> Result<(i32, i64, i64, i32)> {
    let mut lock = lock(F_WRLCK, start, len);
    // SAFETY: the lock is valid for reading and writing.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), cmd, &mut lock) })?;
    Ok((i32::from(lock.l_type), lock.l_start, lock.l_len, lock.l_pid))
}

/// What another process finds, as text.
fn found_by_other(v: &Victim, starts: &[i64]) -> Result<Vec<String>> {
    let out = v.path("found");
    let status = sys::forked(|| {
        let ask = || -> Result<()> {
            let fd = open(&v.path("data"), O_RDWR)?;
            let mut text = String::new();
            for start in starts {
                text += &format!("{:?}\n", found(&fd, libc::F_GETLK, *start, 0)?);
            }
            Ok(fs::write(&out, text)?)
        };
        i32::from(ask().is_err())
    })?;
    same("status of the child", 0, status)?;
    Ok(fs::read_to_string(&out)?
        .lines()
        .map(str::to_owned)
        .collect())
}

fn data(v: &Victim) -> Result<OwnedFd> {
    Ok(open(&v.path("data"), O_RDWR | O_CREAT)?)
}

/// Several ranges of both types, by two descriptors.
fn posix(v: &Victim) -> Result<()> {
    let (fd, other) = (data(v)?, data(v)?);
    set(&fd, libc::F_SETLK, F_WRLCK, 10, 10)?;
    set(&other, libc::F_SETLK, F_RDLCK, 15, 100)?;
    set(&fd, libc::F_SETLK, F_UNLCK, 50, 10)?;
    set(&fd, libc::F_SETLK, F_WRLCK, 1 << 40, 0)?;
    let starts = [0, 15, 50, 60, 200];
    let before = found_by_other(v, &starts)?;
    let me = sys::getpid();
    same(
        "first lock",
        format!("({F_WRLCK}, 10, 5, {me})"),
        before[0].clone(),
    )?;
    same(
        "last lock",
        format!("({F_WRLCK}, {}, 0, {me})", 1i64 << 40),
        before[4].clone(),
    )?;
    v.stand()?;
    let now = found_by_other(v, &starts)?;
    same("locks", before, now)?;
    // Closing any descriptor of the file drops all, as always.
    drop(other);
    let free = format!("({F_UNLCK}, 0, 0, 0)");
    same("after a close", free, found_by_other(v, &[0])?.remove(0))
}

fn posix_of_two(v: &Victim) -> Result<()> {
    let fd = data(v)?;
    set(&fd, libc::F_SETLK, F_WRLCK, 0, 10)?;
    let (end, ends) = sys::pipe(0)?;
    let (locked, locks) = sys::pipe(0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let hold = || -> Result<()> {
            let fd = data(v)?;
            set(&fd, libc::F_SETLK, F_WRLCK, 10, 10)?;
            write(&locks, b"x")?;
            v.wait();
            // What the parent has is not the child's.
            let (ty, start, len, pid) = found(&fd, libc::F_GETLK, 0, 5)?;
            // SAFETY: no memory is involved.
            let parent = unsafe { libc::getppid() };
            same(
                "the parent's lock",
                (F_WRLCK, 0, 10, parent),
                (ty, start, len, pid),
            )?;
            read(&end, &mut [0])?;
            Ok(())
        };
        i32::from(hold().is_err())
    })?;
    drop(numbers);
    same("told", 1, read(&locked, &mut [0])?)?;
    v.stand()?;
    same(
        "the child's",
        (F_WRLCK, 10, 10, child.pid),
        found(&fd, libc::F_GETLK, 10, 1)?,
    )?;
    write(&ends, b"x")?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child found something else");
    let after = found(&fd, libc::F_GETLK, 10, 1)?.0;
    same("after the child's end", F_UNLCK, after)
}

/// The lock belongs to the open file: another in the same process is kept out, a copy is not.
fn ofd(v: &Victim) -> Result<()> {
    let (fd, other) = (data(v)?, data(v)?);
    let copy = fd.try_clone()?;
    set(&fd, libc::F_OFD_SETLK, F_WRLCK, 100, 50)?;
    v.stand()?;
    same(
        "lock",
        (F_WRLCK, 100, 50, -1),
        found(&other, libc::F_OFD_GETLK, 0, 0)?,
    )?;
    ensure!(
        sys::fails_with(
            set(&other, libc::F_OFD_SETLK, F_RDLCK, 120, 1),
            libc::EAGAIN
        ),
        "another open file gets it too"
    );
    set(&copy, libc::F_OFD_SETLK, F_RDLCK, 120, 1)?;
    drop(fd);
    same(
        "lock of the copy",
        (F_RDLCK, 120, 1, -1),
        found(&other, libc::F_OFD_GETLK, 120, 1)?,
    )?;
    drop(copy);
    same(
        "after the last close",
        F_UNLCK,
        found(&other, libc::F_OFD_GETLK, 0, 0)?.0,
    )
}

fn flocked(fd: &OwnedFd, how: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::flock(fd.as_raw_fd(), how | LOCK_NB) }).map(drop)
}

fn flock(v: &Victim) -> Result<()> {
    let (fd, other) = (data(v)?, data(v)?);
    flocked(&fd, LOCK_EX)?;
    let shared = open(&v.path("shared"), O_RDWR | O_CREAT)?;
    flocked(&shared, LOCK_SH)?;
    let dir = open(&v.path(""), O_RDONLY)?;
    flocked(&dir, LOCK_EX)?;
    v.stand()?;
    ensure!(
        sys::fails_with(flocked(&other, LOCK_SH), libc::EAGAIN),
        "the lock is gone"
    );
    let second = open(&v.path("shared"), O_RDWR)?;
    flocked(&second, LOCK_SH)?;
    ensure!(
        sys::fails_with(flocked(&second, LOCK_EX), libc::EAGAIN),
        "the shared one is gone"
    );
    let second = open(&v.path(""), O_RDONLY)?;
    ensure!(
        sys::fails_with(flocked(&second, LOCK_SH), libc::EAGAIN),
        "the directory's is gone"
    );
    drop(fd);
    Ok(flocked(&other, LOCK_EX)?)
}

/// The child has the same open file, and so the lock, until both have closed it.
fn flock_shared_by_fork(v: &Victim) -> Result<()> {
    let (fd, other) = (data(v)?, data(v)?);
    flocked(&fd, LOCK_EX)?;
    let (end, ends) = sys::pipe(0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let told = read(&end, &mut [0]).is_ok();
        // It is this one's already.
        i32::from(!told || flocked(&fd, LOCK_EX).is_err())
    })?;
    drop(numbers);
    v.stand()?;
    drop(fd);
    ensure!(
        sys::fails_with(flocked(&other, LOCK_EX), libc::EAGAIN),
        "it is not the child's"
    );
    write(&ends, b"x")?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child does not have it");
    Ok(flocked(&other, LOCK_EX)?)
}

/// Opens the file of a lease in another process, which breaks it, without waiting.
fn breaks(v: &Victim, flags: i32) -> Result<bool> {
    let status = sys::forked(|| {
        let opened = open(&v.path("data"), flags | libc::O_NONBLOCK);
        i32::from(sys::fails_with(opened, libc::EWOULDBLOCK))
    })?;
    Ok(status != 0)
}

fn lease(v: &Victim) -> Result<()> {
    fs::write(v.path("data"), "x")?;
    let fd = open(&v.path("data"), O_RDONLY)?;
    fcntl(&fd, libc::F_SETLEASE, F_RDLCK)?;
    fcntl(&fd, F_SETSIG, libc::SIGUSR1)?;
    let own = open(&v.path("own"), O_RDWR | O_CREAT)?;
    fcntl(&own, libc::F_SETLEASE, F_WRLCK)?;
    sys::mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
    v.stand()?;
    same("lease", F_RDLCK, fcntl(&fd, libc::F_GETLEASE, 0)?)?;
    same("the other", F_WRLCK, fcntl(&own, libc::F_GETLEASE, 0)?)?;
    ensure!(!breaks(v, O_RDONLY)?, "reading breaks a lease for reading");
    ensure!(breaks(v, libc::O_WRONLY)?, "writing does not break it");
    // SAFETY: all zeroes is a siginfo, valid for writing; the set and the time are valid.
    let (signal, fds) = unsafe {
        let mut info: [i32; 32] = [0; 32];
        let second = sys::timespec(Duration::from_secs(5));
        let set = sys::sigset(&[libc::SIGUSR1]);
        let signal = cvt(libc::sigtimedwait(&set, info.as_mut_ptr().cast(), &second))?;
        // si_fd, after si_band.
        (signal, info[6])
    };
    same("signal", libc::SIGUSR1, signal)?;
    same("descriptor of the signal", fd.as_raw_fd(), fds)
}

fn breaking_lease(v: &Victim) -> Result<()> {
    fs::write(v.path("data"), "x")?;
    let fd = open(&v.path("data"), O_RDONLY)?;
    fcntl(&fd, libc::F_SETLEASE, F_RDLCK)?;
    sys::mask(libc::SIG_BLOCK, &[libc::SIGIO])?;
    ensure!(breaks(v, libc::O_WRONLY)?, "it does not break");
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    same("lease", F_UNLCK, fcntl(&fd, libc::F_GETLEASE, 0)?)
}

/// Who waits for a lock gets it when it becomes free.
fn waiters(v: &Victim) -> Result<()> {
    let (fd, ranges) = (data(v)?, open(&v.path("ranges"), O_RDWR | O_CREAT)?);
    flocked(&fd, LOCK_EX)?;
    set(&ranges, libc::F_SETLK, F_WRLCK, 0, 10)?;
    let numbers = NumbersThatFollow::choose();
    let mut children = Vec::new();
    for kind in 0..2 {
        children.push(Process::fork(|| {
            let wait = || -> Result<()> {
                // The parent's open file is not this one's to keep.
                // SAFETY: nobody uses the number any more.
                cvt(unsafe { libc::close(fd.as_raw_fd()) })?;
                if kind == 0 {
                    let other = data(v)?;
                    // SAFETY: no memory is involved.
                    cvt(unsafe { libc::flock(other.as_raw_fd(), LOCK_EX) })?;
                } else {
                    let other = open(&v.path("ranges"), O_RDWR)?;
                    set(&other, libc::F_SETLKW, F_WRLCK, 5, 10)?;
                }
                ensure!(v.told(), "the lock was free too early");
                Ok(())
            };
            i32::from(wait().is_err())
        })?);
    }
    drop(numbers);
    sys::nap(Duration::from_millis(50));
    v.stand()?;
    for child in &mut children {
        same("ended", None, child.ended()?)?;
    }
    drop((fd, ranges));
    for child in &mut children {
        ensure!(
            child.wait(Duration::from_secs(20))?.success(),
            "a child did not get its lock"
        );
    }
    Ok(())
}

fn many(v: &Victim) -> Result<()> {
    let fd = data(v)?;
    for i in 0..500 {
        set(
            &fd,
            libc::F_SETLK,
            if i % 2 == 0 { F_RDLCK } else { F_WRLCK },
            i * 10,
            5,
        )?;
    }
    let starts: Vec<i64> = (0..500).map(|i| i * 10).collect();
    let before = found_by_other(v, &starts)?;
    v.stand()?;
    same("locks", before, found_by_other(v, &starts)?)
}

fn whole_file(v: &Victim) -> Result<()> {
    let fd = data(v)?;
    set(&fd, libc::F_SETLK, F_WRLCK, 0, 0)?;
    v.stand()?;
    same("lock", 1, found_by_other(v, &[0])?.len())
}

/// Somebody else has the lock at the restart: it says which file, and leaves nothing.
fn taken(b: &Bench<'_>) -> Result<()> {
    let image = b.path("image");
    let mut life = b.start("whole-file")?;
    life.checkpoint_and_kill(&image)?;
    let path = b.path("data");
    let fd = open(&path, O_RDWR)?;
    set(&fd, libc::F_OFD_SETLK, F_WRLCK, 5, 1)?;
    b.rstr()
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &["lock is taken", &path.display().to_string()])?;
    drop(fd);
    life.restart(&image, &[])?;
    life.passes()
}
