// SPDX-License-Identifier: GPL-2.0

//! Data that is on its way while the tree is checkpointed over and over: every byte arrives once,
//! and in order.

use libc::{
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM, //
};
use selftests::prelude::*;
use selftests::sys::{
    open,
    pipe,
    read,
    write, //
};
use selftests::unix;
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "killed-and-restarted",
            run: |b| over_and_over(b, true),
        },
        Custom {
            name: "left-running",
            run: |b| over_and_over(b, false),
        },
    ],
    victims: &[Case::new("all", all)],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("transfer")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// What a channel carries last.
const END: u64 = u64::MAX;

/// How data goes from one process to another.
struct Channel {
    name: &'static str,
    reader: OwnedFd,
    writer: OwnedFd,
    /// Numbers in one piece.
    piece: usize,
    /// A piece arrives as a whole.
    whole: bool,
}

fn channels(v: &Victim) -> Result<Vec<Channel>> {
    let mut list = Vec::new();
    let mut add = |name, (reader, writer), piece, whole| {
        list.push(Channel {
            name,
            reader,
            writer,
            piece,
            whole,
        });
    };
    add("pipe", pipe(libc::O_CLOEXEC)?, 300, false);
    add("packets", pipe(libc::O_CLOEXEC | libc::O_DIRECT)?, 7, true);
    let fifo = v.path("fifo");
    sys::mkfifo(&fifo)?;
    let reader = open(&fifo, libc::O_RDONLY | libc::O_NONBLOCK)?;
    let writer = open(&fifo, libc::O_WRONLY)?;
    sys::fcntl(&reader, libc::F_SETFL, 0)?;
    add("fifo", (reader, writer), 100, false);
    add("stream", unix::pair(SOCK_STREAM)?, 1000, false);
    add("dgram", unix::pair(SOCK_DGRAM)?, 50, true);
    add("seqpacket", unix::pair(SOCK_SEQPACKET)?, 20, true);
    let at = unix::Name::path(&v.path("socket"));
    let server = unix::listener(SOCK_STREAM, &at, 5)?;
    let writer = unix::client(SOCK_STREAM, &at)?;
    add("connection", (unix::accept(&server)?, writer), 33, false);
    Ok(list)
}

/// Sends the numbers from 0 until it is told, then the end. Returns what an exit status says.
fn send(v: &Victim, channel: &Channel) -> i32 {
    let mut next = 0u64;
    let mut bytes = vec![0; channel.piece * 8];
    loop {
        let last = next > 0 && v.told();
        for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
            let number = if last { END } else { next + i as u64 };
            word.copy_from_slice(&number.to_ne_bytes());
        }
        let mut at = 0;
        while at < bytes.len() {
            match write(&channel.writer, &bytes[at..]) {
                Ok(n) if n > 0 && (!channel.whole || n == bytes.len()) => at += n,
                _ => return 3,
            }
        }
        if last {
            return 0;
        }
        next += channel.piece as u64;
    }
}

/// Receives them. Returns what an exit status says.
fn receive(channel: &Channel) -> i32 {
    let mut next = 0u64;
    let mut bytes = vec![0; 65536];
    let mut have = 0;
    loop {
        match read(&channel.reader, &mut bytes[have..]) {
            Ok(n) if n > 0 && (!channel.whole || n == channel.piece * 8) => have += n,
            _ => return 4,
        }
        let whole = have / 8 * 8;
        for word in bytes[..whole].chunks_exact(8) {
            let mut number = [0; 8];
            number.copy_from_slice(word);
            match u64::from_ne_bytes(number) {
                END if next > 0 => return 0,
                number if number == next => next += 1,
                _ => return 5,
            }
        }
        bytes.copy_within(whole..have, 0);
        have -= whole;
    }
}

/// Two processes for each channel.
fn all(v: &Victim) -> Result<()> {
    let channels = channels(v)?;
    let numbers = NumbersThatFollow::choose();
    let mut children = Vec::new();
    for channel in &channels {
        children.push((channel.name, "writer", Process::fork(|| send(v, channel))?));
        children.push((channel.name, "reader", Process::fork(|| receive(channel))?));
    }
    drop(numbers);
    drop(channels);
    v.stand()?;
    for (name, role, mut child) in children {
        let status = child
            .wait(Duration::from_secs(30))
            .with_context(|| format!("{name}: {role}"))?;
        ensure!(status.success(), "{name}: the {role} ended with {status}");
    }
    Ok(())
}

fn over_and_over(b: &Bench<'_>, kill: bool) -> Result<()> {
    let mut life = b.start("all")?;
    let image = b.path("image");
    for _ in 0..if b.long { 200 } else { 20 } {
        life.settle(Duration::from_millis(10))?;
        if kill {
            life.checkpoint_and_kill(&image)?;
            life.restart_detached(&image, &[])?;
        } else {
            life.checkpoint(&[], &image)?;
        }
    }
    life.passes()
}
