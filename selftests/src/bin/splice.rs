// SPDX-License-Identifier: GPL-2.0

//! Images into pipes and sockets, which get the pages of a snapshot themselves: what the tree does
//! with its memory later does not change them.

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    pipe,
    verify,
    Area,
    PAGE, //
};
use selftests::{
    Bench,
    Life, //
};
use std::fs::File;
use std::io::{
    Read,
    Write, //
};
use std::net::{
    TcpListener,
    TcpStream, //
};
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "pipe",
            run: |b| into_pipe(b, &[]),
        },
        Custom {
            name: "no-snapshot",
            run: |b| into_pipe(b, &["--no-snapshot"]),
        },
        Custom {
            name: "packets",
            run: into_packets,
        },
        Custom {
            name: "socket",
            run: into_socket,
        },
        Custom {
            name: "tcp",
            run: into_tcp,
        },
        Custom {
            name: "slow-reader",
            run: slow_reader,
        },
        Custom {
            name: "reader-gone",
            run: reader_gone,
        },
        Custom {
            name: "no-room",
            run: no_room,
        },
    ],
    victims: &[Case::new("writer", writer)],
    ..Suite::new("splice")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
/// More than is copied while the tree stands still, and less than a pipe may hold.
const LEN: usize = 120 * PAGE;
/// What an unprivileged pipe may hold.
const ROOM: usize = 1 << 20;

/// Writes to all of its memory when it has seen what is in it.
fn writer(v: &Victim) -> Result<()> {
    let own = Area::anon(LEN, RW, MAP_PRIVATE)?;
    let shared = Area::anon(20 * PAGE, RW, MAP_SHARED)?;
    fill(own.bytes(), 1);
    fill(shared.bytes(), 2);
    v.stand()?;
    verify("own memory", own.bytes(), 1)?;
    verify("shared memory", shared.bytes(), 2)?;
    fill(own.bytes(), 3);
    fill(shared.bytes(), 4);
    verify("own memory, written again", own.bytes(), 3)?;
    verify("shared memory, written again", shared.bytes(), 4)
}

/// The image waits in `to` until the victim has written to its memory and ended; then it is
/// restarted from `from`.
fn written_meanwhile(b: &Bench<'_>, args: &[&str], to: OwnedFd, from: OwnedFd) -> Result<()> {
    let mut life = b.start("writer")?;
    let ckpt = b.ckpt().args(args).arg(life.pid.to_string());
    ckpt.stdout(to).run()?.succeeded("ckpt")?;
    life.passes()?;
    b.forget()?;
    life.restart_by(b.rstr().stdin(from))?;
    life.settle(Duration::from_millis(50))?;
    life.passes()
}

fn large_pipe(flags: i32) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe(libc::O_CLOEXEC | flags)?;
    sys::fcntl(&write, libc::F_SETPIPE_SZ, ROOM as i32)?;
    Ok((read, write))
}

fn into_pipe(b: &Bench<'_>, args: &[&str]) -> Result<()> {
    let (read, write) = large_pipe(0)?;
    written_meanwhile(b, args, write, read)
}

/// A pipe that has the bounds of each write(2): one that reads less at a time would lose the rest.
fn into_packets(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("writer")?;
    let (read, write) = large_pipe(libc::O_DIRECT)?;
    let ckpt = b.ckpt().arg(life.pid.to_string());
    ckpt.stdout(write).run()?.succeeded("ckpt")?;
    life.passes()?;
    let image = read_slowly(read, ROOM)?;
    passes_from(b, &mut life, image)
}

/// All that comes, at most `len` bytes at a time.
fn read_slowly(from: OwnedFd, len: usize) -> Result<Vec<u8>> {
    let mut from = File::from(from);
    let mut all = Vec::new();
    let mut part = vec![0; len];
    loop {
        match from.read(&mut part)? {
            0 => return Ok(all),
            n => all.extend_from_slice(&part[..n]),
        }
        sys::nap(Duration::from_millis(1));
    }
}

/// Restarts the victim, which has ended, from `image`.
fn passes_from(b: &Bench<'_>, life: &mut Life<'_>, image: Vec<u8>) -> Result<()> {
    b.forget()?;
    let (from, to) = UnixStream::pair()?;
    let feeder = std::thread::spawn(move || (&to).write_all(&image));
    life.restart_by(b.rstr().stdin(OwnedFd::from(from)))?;
    feeder.join().expect("the feeder panicked")?;
    life.settle(Duration::from_millis(50))?;
    life.passes()
}

fn into_socket(b: &Bench<'_>) -> Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    written_into(b, theirs.into(), ours.into())
}

/// Pages wait in the queue of the sender until the other side has them.
fn into_tcp(b: &Bench<'_>) -> Result<()> {
    loopback()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let theirs = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    written_into(b, theirs.into(), ours.into())
}

fn loopback() -> Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is valid for a struct of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: `request` is valid.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) })?;
    Ok(())
}

/// Of a socket that has room for the whole image.
fn written_into(b: &Bench<'_>, to: OwnedFd, from: OwnedFd) -> Result<()> {
    // What it is charged for a page is more than a page.
    let room = (4 * ROOM) as libc::c_int;
    let (room, len) = (&raw const room, size_of_val(&room) as u32);
    let fd = to.as_raw_fd();
    // SAFETY: `room` is valid for reads of its length.
    cvt(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room.cast(), len) })?;
    written_meanwhile(b, &[], to, from)
}

/// What does not fit waits, and arrives in order, however the reader reads.
fn slow_reader(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("writer")?;
    let (read, write) = pipe(libc::O_CLOEXEC)?;
    let ckpt = b.ckpt().arg(life.pid.to_string()).stdout(write).start()?;
    let image = read_slowly(read, 3 * PAGE + 17)?;
    ckpt.finish()?.succeeded("ckpt")?;
    life.passes()?;
    passes_from(b, &mut life, image)
}

fn reader_gone(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("writer")?;
    let (read, write) = pipe(libc::O_CLOEXEC)?;
    let ckpt = b.ckpt().arg(life.pid.to_string()).stdout(write).start()?;
    let mut read = File::from(read);
    read.read_exact(&mut vec![0; 10 * PAGE])?;
    drop(read);
    ckpt.finish()?.refused("ckpt", &["went away"])?;
    life.passes()
}

/// A pipe that does not wait.
fn no_room(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("writer")?;
    let (_read, write) = pipe(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    let ckpt = b.ckpt().arg(life.pid.to_string()).stdout(write).run()?;
    ckpt.refused("ckpt", &["cannot write the image"])?;
    life.passes()
}
