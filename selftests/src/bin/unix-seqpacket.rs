// SPDX-License-Identifier: GPL-2.0

//! Unix sockets of the type SOCK_SEQPACKET.

use libc::SOCK_SEQPACKET;
use selftests::prelude::*;
use selftests::sys::fails_with;
use selftests::unix::{
    accept,
    client,
    listener,
    name,
    pair,
    peer,
    recv_message,
    recv_now,
    send,
    Name, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("pair", pair_with_data),
        Case::new("peer-gone", peer_gone),
        Case::new("path", path),
        Case::new("pending", pending),
    ],
    ..Suite::new("unix-seqpacket")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Each packet is one, and what does not fit is dropped.
fn pair_with_data(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_SEQPACKET)?;
    for text in ["first", "", "third"] {
        send(&a, text.as_bytes(), 0)?;
    }
    v.stand()?;
    let mut two = [0; 2];
    same("part of the first", 2, sys::read(&b, &mut two)?)?;
    same("its data", *b"fi", two)?;
    same("second", Vec::<u8>::new(), recv_now(&b)?)?;
    let third = recv_message(&b, libc::MSG_DONTWAIT)?;
    same("third", b"third".to_vec(), third.data)?;
    send(&b, b"back", 0)?;
    same("other direction", b"back".to_vec(), recv_now(&a)?)
}

fn peer_gone(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_SEQPACKET)?;
    send(&b, b"last", 0)?;
    drop(b);
    v.stand()?;
    same("data", b"last".to_vec(), recv_now(&a)?)?;
    same("end", Vec::<u8>::new(), recv_now(&a)?)?;
    ensure!(
        fails_with(send(&a, b"x", 0), libc::EPIPE),
        "somebody is there"
    );
    Ok(())
}

fn path(v: &Victim) -> Result<()> {
    let at = Name::path(&v.path("socket"));
    let server = listener(SOCK_SEQPACKET, &at, 5)?;
    let near = client(SOCK_SEQPACKET, &at)?;
    let far = accept(&server)?;
    send(&near, b"one", 0)?;
    send(&near, b"two", 0)?;
    v.stand()?;
    same("name", at.clone(), name(&far)?)?;
    same("name of the peer", at.clone(), peer(&near)?)?;
    same("first", b"one".to_vec(), recv_now(&far)?)?;
    same("second", b"two".to_vec(), recv_now(&far)?)?;
    let other = client(SOCK_SEQPACKET, &at)?;
    let accepted = accept(&server)?;
    send(&other, b"new", 0)?;
    same("later", b"new".to_vec(), recv_now(&accepted)?)
}

fn pending(v: &Victim) -> Result<()> {
    let at = Name::hidden(&format!("seqpacket-{}", sys::getpid()));
    let server = listener(SOCK_SEQPACKET, &at, 5)?;
    let clients = [client(SOCK_SEQPACKET, &at)?, client(SOCK_SEQPACKET, &at)?];
    for (i, fd) in (0..).zip(&clients) {
        send(fd, &[i; 3], 0)?;
        send(fd, &[i; 4], 0)?;
    }
    v.stand()?;
    for (i, near) in (0..).zip(&clients) {
        let far = accept(&server)?;
        same("first", vec![i; 3], recv_now(&far)?)?;
        same("second", vec![i; 4], recv_now(&far)?)?;
        send(&far, b"back", 0)?;
        same("other direction", b"back".to_vec(), recv_now(near)?)?;
    }
    Ok(())
}
