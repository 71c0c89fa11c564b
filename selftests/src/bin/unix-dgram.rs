// SPDX-License-Identifier: GPL-2.0

//! Unix sockets of the type SOCK_DGRAM.

use libc::{
    POLLOUT,
    SOCK_DGRAM,
    SOCK_NONBLOCK, //
};
use selftests::prelude::*;
use selftests::sys::{
    fails_with,
    fill,
    verify,
    write, //
};
use selftests::unix::{
    bind,
    client,
    connect,
    name,
    option,
    pair,
    peer,
    polled,
    recv,
    recv_message,
    recv_now,
    send,
    send_to,
    set_option,
    shutdown,
    socket,
    Name, //
};
use std::fs;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("pair", pair_with_data),
        Case::new("large", large),
        Case::new("senders", senders),
        Case::new("one-way", one_way),
        Case::new("peer-gone", peer_gone),
        Case::new("full", full),
        Case::new("peek-offset", peek_offset),
        Case::new("half-closed", half_closed),
        Case::new("to-itself", to_itself),
        Case::new("time", time),
        Case::new("removed-path", removed_path),
    ],
    ..Suite::new("unix-dgram")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A name of this victim.
fn own(name: &str) -> Name {
    Name::hidden(&format!("dgram-{}-{name}", sys::getpid()))
}

/// A socket with a name.
fn bound(name: &Name) -> Result<OwnedFd> {
    let fd = socket(SOCK_DGRAM)?;
    bind(&fd, name)?;
    Ok(fd)
}

/// Each datagram is one, also an empty one.
fn pair_with_data(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    for text in ["one", "", "three"] {
        send(&a, text.as_bytes(), 0)?;
    }
    send(&b, b"back", 0)?;
    v.stand()?;
    for text in ["one", "", "three"] {
        same("datagram", text.as_bytes().to_vec(), recv_now(&b)?)?;
    }
    ensure!(fails_with(recv_now(&b), libc::EAGAIN), "there is more");
    same("other direction", b"back".to_vec(), recv_now(&a)?)?;
    send(&a, b"four", 0)?;
    same("later", b"four".to_vec(), recv_now(&b)?)
}

fn large(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    let mut bytes = vec![0; 60_001];
    fill(&mut bytes, 1);
    send(&a, &bytes, 0)?;
    set_option(&a, libc::SO_SNDBUF, 150_000)?;
    send(&a, &[5; 130_000], 0)?;
    v.stand()?;
    let seen = recv_now(&b)?;
    same("length", bytes.len(), seen.len())?;
    verify("data", &seen, 1)?;
    let mut rest = vec![0; 140_000];
    same("length of the larger", 130_000, sys::read(&b, &mut rest)?)?;
    ensure!(rest[..130_000].iter().all(|&b| b == 5), "its data differs");
    Ok(())
}

/// Many send to one, which sees from whom each message is: one has a name, one a path, one none, one
/// is gone.
fn senders(v: &Victim) -> Result<()> {
    let at = own("receiver");
    let path = Name::path(&v.path("sender"));
    let receiver = bound(&at)?;
    let named = bound(&own("sender"))?;
    let by_path = bound(&path)?;
    let nameless = socket(SOCK_DGRAM)?;
    let gone = bound(&own("gone"))?;
    for (fd, text) in [
        (&named, "one"),
        (&by_path, "two"),
        (&gone, "three"),
        (&nameless, "four"),
        (&named, "five"),
    ] {
        send_to(fd, text.as_bytes(), &at)?;
    }
    drop(gone);
    v.stand()?;
    for (from, text) in [
        (own("sender"), "one"),
        (path, "two"),
        (own("gone"), "three"),
        (Name::none(), "four"),
        (own("sender"), "five"),
    ] {
        let message = recv_message(&receiver, libc::MSG_DONTWAIT)?;
        same("datagram", text.as_bytes().to_vec(), message.data)?;
        same("sender", from, message.from)?;
    }
    send_to(&receiver, b"answer", &own("sender"))?;
    let answer = recv_message(&named, libc::MSG_DONTWAIT)?;
    same("answer", b"answer".to_vec(), answer.data)?;
    same("who answers", at, answer.from)
}

/// Connected to one that is not connected back; it hears only its peer.
fn one_way(v: &Victim) -> Result<()> {
    let receiver = bound(&own("receiver"))?;
    let one = client(SOCK_DGRAM, &own("receiver"))?;
    let two = bound(&own("two"))?;
    connect(&two, &own("receiver"))?;
    send(&one, b"one", 0)?;
    send(&two, b"two", 0)?;
    v.stand()?;
    same("peer", own("receiver"), peer(&one)?)?;
    ensure!(fails_with(peer(&receiver), libc::ENOTCONN), "it has a peer");
    same("first", b"one".to_vec(), recv_now(&receiver)?)?;
    same("second", b"two".to_vec(), recv_now(&receiver)?)?;
    send(&one, b"three", 0)?;
    same("third", b"three".to_vec(), recv_now(&receiver)?)?;
    ensure!(
        fails_with(send_to(&one, b"x", &own("two")), libc::EPERM),
        "who has a peer hears another"
    );
    send_to(&receiver, b"answer", &own("two"))?;
    same("answer", b"answer".to_vec(), recv_now(&two)?)
}

fn peer_gone(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    let receiver = bound(&own("receiver"))?;
    let one = client(SOCK_DGRAM, &own("receiver"))?;
    send(&b, b"left", 0)?;
    drop((b, receiver));
    v.stand()?;
    same("name of the peer", own("receiver"), peer(&one)?)?;
    same("what it left", b"left".to_vec(), recv_now(&a)?)?;
    for fd in [&a, &one] {
        ensure!(
            fails_with(send(fd, b"x", 0), libc::ECONNREFUSED),
            "somebody is there"
        );
        ensure!(
            fails_with(send(fd, b"x", 0), libc::ENOTCONN),
            "it stays connected"
        );
    }
    Ok(())
}

/// A queue that takes no more of those to whom it is not connected.
fn full(v: &Victim) -> Result<()> {
    let receiver = bound(&own("receiver"))?;
    let sender = client(SOCK_DGRAM | SOCK_NONBLOCK, &own("receiver"))?;
    let mut count = 0u32;
    while send(&sender, &count.to_ne_bytes(), 0).is_ok() {
        count += 1;
    }
    ensure!(count > 3, "only {count} fit in");
    v.stand()?;
    ensure!(
        fails_with(send(&sender, b"x", 0), libc::EAGAIN),
        "one more fits in"
    );
    same("events", 0, polled(&sender)? & POLLOUT)?;
    for i in 0..count {
        same("datagram", i.to_ne_bytes().to_vec(), recv_now(&receiver)?)?;
    }
    ensure!(polled(&sender)? & POLLOUT != 0, "it stays full");
    Ok(())
}

fn peek_offset(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    set_option(&b, libc::SO_PEEK_OFF, 2)?;
    send(&a, b"abcd", 0)?;
    send(&a, b"efgh", 0)?;
    v.stand()?;
    same("offset", 2, option(&b, libc::SO_PEEK_OFF)?)?;
    same("look", b"cd".to_vec(), recv(&b, libc::MSG_PEEK)?)?;
    same("first", b"abcd".to_vec(), recv_now(&b)?)?;
    same("second", b"efgh".to_vec(), recv_now(&b)?)
}

fn half_closed(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    shutdown(&a, libc::SHUT_WR)?;
    shutdown(&b, libc::SHUT_WR)?;
    shutdown(&b, libc::SHUT_RD)?;
    let events = [polled(&a)?, polled(&b)?];
    v.stand()?;
    same("events", events, [polled(&a)?, polled(&b)?])?;
    ensure!(fails_with(send(&a, b"x", 0), libc::EPIPE), "it can send");
    Ok(())
}

fn to_itself(v: &Victim) -> Result<()> {
    let fd = bound(&own("self"))?;
    connect(&fd, &own("self"))?;
    write(&fd, b"echo")?;
    v.stand()?;
    same("peer", own("self"), peer(&fd)?)?;
    same("echo", b"echo".to_vec(), recv_now(&fd)?)?;
    write(&fd, b"again")?;
    same("later", b"again".to_vec(), recv_now(&fd)?)
}

fn removed_path(v: &Victim) -> Result<()> {
    let path = v.path("socket");
    let receiver = bound(&Name::path(&path))?;
    let sender = client(SOCK_DGRAM, &Name::path(&path))?;
    fs::remove_file(&path)?;
    send(&sender, b"before", 0)?;
    v.stand()?;
    same("name", Name::path(&path), name(&receiver)?)?;
    send(&sender, b"after", 0)?;
    same("first", b"before".to_vec(), recv_now(&receiver)?)?;
    same("second", b"after".to_vec(), recv_now(&receiver)?)?;
    ensure!(
        fails_with(send_to(&sender, b"x", &Name::path(&path)), libc::ENOENT),
        "the path is there again"
    );
    Ok(())
}

/// SO_TIMESTAMP: when the datagram came, and not when it was read.
fn time(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    set_option(&b, libc::SO_TIMESTAMP, 1)?;
    send(&a, b"x", 0)?;
    let sent = sys::clock(libc::CLOCK_REALTIME)?.as_micros() as i64;
    v.stand()?;
    let first = recv_message(&b, libc::MSG_DONTWAIT)?;
    let stamp = first.stamp.context("no time")?;
    ensure!(
        (sent - 1_000_000..=sent).contains(&stamp),
        "it came at {stamp}, and was sent before {sent}"
    );
    send(&a, b"y", 0)?;
    let second = recv_message(&b, libc::MSG_DONTWAIT)?;
    ensure!(second.stamp.is_some_and(|later| later >= stamp), "no time");
    Ok(())
}
