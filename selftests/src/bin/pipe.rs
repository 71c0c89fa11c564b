// SPDX-License-Identifier: GPL-2.0

//! Pipes within the tree.

use libc::{
    F_GETFL,
    F_GETPIPE_SZ,
    F_SETPIPE_SZ,
    O_CLOEXEC,
    O_DIRECT,
    O_NONBLOCK, //
};
use selftests::prelude::*;
use selftests::sys::{
    fcntl,
    fill,
    owned,
    pipe,
    read,
    verify,
    write, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("empty", empty),
        Case::new("unread-data", unread_data),
        Case::new("partly-read", partly_read),
        Case::new("small-writes", small_writes),
        Case::new("full", full),
        Case::new("size", size),
        Case::new("packets", packets),
        Case::new("reader-closed", reader_closed),
        Case::new("writer-closed", writer_closed),
        Case::new("nonblocking", nonblocking),
        Case::new("dup", dup),
        Case::new("same-object", same_object),
        Case::new("two-pipes", two_pipes),
        Case::new("capacity-afterwards", capacity_afterwards),
        Case::new("opened-again", opened_again),
        Case::new("both-directions", both_directions),
        Case::new("children", children),
    ],
    customs: &[Custom {
        name: "larger-than-permitted",
        run: larger_than_permitted,
    }],
    victims: &[Case::new("large", large)],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("pipe")
};

fn main() -> ExitCode {
    SUITE.main()
}

fn empty(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    v.stand()?;
    same("write", 5, write(&w, b"hello")?)?;
    let mut bytes = [0; 10];
    same("read", 5, read(&r, &mut bytes)?)?;
    same("data", b"hello", &bytes[..5])
}

fn unread_data(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let mut bytes = vec![0; 30_000];
    fill(&mut bytes, 1);
    write(&w, &bytes)?;
    v.stand()?;
    let mut seen = vec![0; 40_000];
    same("read", 30_000, read(&r, &mut seen)?)?;
    verify("data", &seen[..30_000], 1)?;
    write(&w, b"more")?;
    same("read of what came later", 4, read(&r, &mut seen)?)?;
    same("data that came later", b"more", &seen[..4])
}

/// The first buffer begins in the middle.
fn partly_read(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let mut bytes = vec![0; 20_000];
    fill(&mut bytes, 2);
    write(&w, &bytes)?;
    let mut seen = vec![0; 20_000];
    same("first read", 5_001, read(&r, &mut seen[..5_001])?)?;
    v.stand()?;
    same("second read", 14_999, read(&r, &mut seen[5_001..])?)?;
    verify("data", &seen, 2)
}

/// Many buffers that are not full.
fn small_writes(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let mut expected = Vec::new();
    for i in 0..100u8 {
        let bytes = vec![i; usize::from(i) * 3 + 1];
        write(&w, &bytes)?;
        expected.extend(bytes);
    }
    v.stand()?;
    let mut seen = vec![0; expected.len() + 10];
    let n = read(&r, &mut seen)?;
    same("read", expected.len(), n)?;
    ensure!(seen[..n] == expected, "the data differs");
    Ok(())
}

/// Fills a pipe to the last byte and returns how much that is.
fn fill_up(w: &OwnedFd, seed: u64) -> Result<usize> {
    let size = fcntl(w, F_GETPIPE_SZ, 0)? as usize;
    let mut bytes = vec![0; size];
    fill(&mut bytes, seed);
    same("bytes that fill the pipe", size, write(w, &bytes)?)?;
    Ok(size)
}

fn is_full(w: &OwnedFd) -> Result<()> {
    let flags = fcntl(w, F_GETFL, 0)?;
    fcntl(w, libc::F_SETFL, flags | O_NONBLOCK)?;
    ensure!(
        sys::fails_with(write(w, b"x"), libc::EAGAIN),
        "a full pipe takes one more byte"
    );
    fcntl(w, libc::F_SETFL, flags)?;
    Ok(())
}

fn full(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let size = fill_up(&w, 3)?;
    v.stand()?;
    is_full(&w)?;
    let mut seen = vec![0; size];
    same("read", size, read(&r, &mut seen)?)?;
    verify("data", &seen, 3)
}

fn size(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let (small, large) = (pipe(O_CLOEXEC)?, pipe(O_CLOEXEC)?);
    fcntl(&small.0, F_SETPIPE_SZ, 4096)?;
    fcntl(&large.0, F_SETPIPE_SZ, 1 << 20)?;
    let many = fill_up(&large.1, 4)?;
    fill_up(&small.1, 5)?;
    let sizes = || [&r, &w, &small.0, &large.1].map(|fd| fcntl(fd, F_GETPIPE_SZ, 0).ok());
    let before = sizes();
    same(
        "sizes before",
        [Some(65536), Some(65536), Some(4096), Some(1 << 20)],
        before,
    )?;
    v.stand()?;
    same("sizes", before, sizes())?;
    is_full(&small.1)?;
    let mut seen = vec![0; many];
    same("read", many, read(&large.0, &mut seen)?)?;
    verify("data of the large pipe", &seen, 4)
}

/// Each read gets one packet, as it was written.
fn packets(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC | O_DIRECT)?;
    let lengths = [10, 1, 4096, 7, 3000];
    for (i, len) in lengths.into_iter().enumerate() {
        write(&w, &vec![i as u8; len])?;
    }
    v.stand()?;
    let mut bytes = [9; 5000];
    for (i, len) in lengths.into_iter().enumerate() {
        same(&format!("length of packet {i}"), len, read(&r, &mut bytes)?)?;
        ensure!(
            bytes[..len].iter().all(|&b| b == i as u8),
            "packet {i} differs"
        );
    }
    ensure!(
        fcntl(&w, F_GETFL, 0)? & O_DIRECT != 0,
        "packet mode is gone"
    );
    write(&w, b"ab")?;
    write(&w, b"c")?;
    same("length of a packet written after", 2, read(&r, &mut bytes)?)
}

fn reader_closed(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    drop(r);
    v.stand()?;
    // The library ignores SIGPIPE.
    ensure!(
        sys::fails_with(write(&w, b"x"), libc::EPIPE),
        "somebody can read"
    );
    let mut fds = [libc::pollfd {
        fd: w.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    }];
    // SAFETY: `fds` has one entry.
    sys::cvt(unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) })?;
    ensure!(
        fds[0].revents & libc::POLLERR != 0,
        "poll says {:#x}",
        fds[0].revents
    );
    Ok(())
}

/// The data comes first, then the end.
fn writer_closed(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    write(&w, b"last words")?;
    drop(w);
    v.stand()?;
    let mut bytes = [0; 20];
    same("read", 10, read(&r, &mut bytes)?)?;
    same("data", b"last words", &bytes[..10])?;
    same("read at the end", 0, read(&r, &mut bytes)?)
}

fn nonblocking(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    fcntl(&r, libc::F_SETFL, O_NONBLOCK)?;
    v.stand()?;
    ensure!(
        sys::fails_with(read(&r, &mut [0]), libc::EAGAIN),
        "the read end blocks or has data"
    );
    same(
        "O_NONBLOCK of the write end",
        0,
        fcntl(&w, F_GETFL, 0)? & O_NONBLOCK,
    )
}

/// The end comes only when all copies of the write end are closed.
fn dup(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC | O_NONBLOCK)?;
    let copy = owned(fcntl(&w, libc::F_DUPFD_CLOEXEC, 50)?)?;
    v.stand()?;
    drop(w);
    ensure!(
        sys::fails_with(read(&r, &mut [0]), libc::EAGAIN),
        "the copy does not keep it open"
    );
    write(&copy, b"x")?;
    drop(copy);
    same("read", 1, read(&r, &mut [0; 2])?)?;
    same("read at the end", 0, read(&r, &mut [0; 2])?)
}

/// Both ends are ends of the same pipe: same device and inode.
fn same_object(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let link = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    same("links before", link(&r)?, link(&w)?)?;
    v.stand()?;
    same("links", link(&r)?, link(&w)?)?;
    // An end can be opened anew through /proc, as of any pipe.
    let again = sys::open(
        format!("/proc/self/fd/{}", w.as_raw_fd()).as_ref(),
        libc::O_WRONLY,
    )?;
    write(&again, b"via proc")?;
    same("read", 8, read(&r, &mut [0; 20])?)
}

fn two_pipes(v: &Victim) -> Result<()> {
    let (a, b) = (pipe(O_CLOEXEC)?, pipe(O_CLOEXEC)?);
    write(&a.1, b"for a")?;
    write(&b.1, b"for b")?;
    v.stand()?;
    let mut bytes = [0; 10];
    for (name, (r, _)) in [(b"for a", a), (b"for b", b)] {
        same("read", 5, read(&r, &mut bytes)?)?;
        same("data", name, &bytes[..5])?;
    }
    Ok(())
}

/// As much fits in afterwards as before.
fn capacity_afterwards(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    write(&w, b"0123456789")?;
    v.stand()?;
    same("read", 10, read(&r, &mut [0; 20])?)?;
    let size = fill_up(&w, 6)?;
    is_full(&w)?;
    let mut seen = vec![0; size];
    same("read of all", size, read(&r, &mut seen)?)?;
    verify("data", &seen, 6)
}

/// Opens what `fd` is open on once more.
fn again(fd: &OwnedFd, flags: i32) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(sys::open(path.as_ref(), flags)?)
}

/// Several open files at one end, each with flags of its own.
fn opened_again(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let (r2, w2) = (
        again(&r, libc::O_RDONLY | O_NONBLOCK)?,
        again(&w, libc::O_WRONLY)?,
    );
    write(&w, b"one")?;
    let flags = || [&r, &w, &r2, &w2].map(|fd| fcntl(fd, F_GETFL, 0).ok());
    let before = flags();
    v.stand()?;
    same("flags", before, flags())?;
    write(&w2, b"two")?;
    drop(w);
    let mut bytes = [0; 10];
    same("read", 6, read(&r2, &mut bytes)?)?;
    same("data", b"onetwo", &bytes[..6])?;
    ensure!(
        sys::fails_with(read(&r2, &mut bytes), libc::EAGAIN),
        "no writer is left"
    );
    drop(r);
    write(&w2, b"x")?;
    drop(r2);
    ensure!(
        sys::fails_with(write(&w2, b"x"), libc::EPIPE),
        "a reader is left"
    );
    Ok(())
}

fn both_directions(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let both = again(&r, libc::O_RDWR)?;
    drop((r, w));
    write(&both, b"to itself")?;
    v.stand()?;
    let mut bytes = [0; 20];
    same("read", 9, read(&both, &mut bytes)?)?;
    same("data", b"to itself", &bytes[..9])?;
    write(&both, b"x")?;
    same("read of what came later", 1, read(&both, &mut bytes)?)
}

/// Children that each opened the write end for themselves, and one that reads it all.
fn children(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    let numbers = NumbersThatFollow::choose();
    let mut writers = Vec::new();
    for i in 0..3u8 {
        writers.push(Process::fork(|| {
            let Ok(own) = again(&w, libc::O_WRONLY) else {
                return 2;
            };
            v.wait();
            i32::from(!matches!(write(&own, &[i; 100]), Ok(100)))
        })?);
    }
    drop(numbers);
    drop(w);
    v.stand()?;
    let mut counts = [0; 3];
    let mut bytes = [0; 1000];
    loop {
        let n = read(&r, &mut bytes)?;
        if n == 0 {
            break;
        }
        for &byte in &bytes[..n] {
            counts[usize::from(byte)] += 1;
        }
    }
    same("bytes of each writer", [100; 3], counts)?;
    for mut writer in writers {
        let status = writer.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "a writer ended with {status}");
    }
    Ok(())
}

/// Larger than /proc/sys/fs/pipe-max-size, by a privilege that is given up afterwards.
fn large(v: &Victim) -> Result<()> {
    let (r, w) = pipe(O_CLOEXEC)?;
    match fcntl(&w, F_SETPIPE_SZ, 2 << 20) {
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => return skip("no CAP_SYS_RESOURCE"),
        other => other?,
    };
    sys::give_up(CAP_SYS_RESOURCE)?;
    v.stand()?;
    same("size", 2 << 20, fcntl(&r, F_GETPIPE_SZ, 0)?)
}

const CAP_SYS_RESOURCE: u32 = 24;

fn larger_than_permitted(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("large")?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    b.rstr()
        .without(CAP_SYS_RESOURCE)
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &["pipe", "fs.pipe-max-size", "EPERM"])?;
    life.restart(&image, &[])?;
    life.passes()
}
