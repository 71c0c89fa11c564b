// SPDX-License-Identifier: GPL-2.0

//! Files and credentials on their way through unix sockets.

use libc::{
    O_CLOEXEC,
    O_NONBLOCK,
    SOCK_DGRAM,
    SOCK_STREAM, //
};
use selftests::prelude::*;
use selftests::sys::{
    fails_with,
    open,
    pipe,
    read,
    seek,
    write, //
};
use selftests::unix::{
    accept,
    client,
    listener,
    own_creds,
    pair,
    recv,
    recv_message,
    recv_now,
    send,
    send_message,
    set_option,
    Name, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("file", file),
        Case::new("several", several),
        Case::new("pipe-end", pipe_end),
        Case::new("socket-in-socket", socket_in_socket),
        Case::new("itself", itself),
        Case::new("each-other", each_other),
        Case::new("pending", pending),
        Case::new("peeked", peeked),
        Case::new("credentials", credentials),
        Case::new("credentials-of-the-dead", credentials_of_the_dead),
        Case::new("not-glued", not_glued),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("scm")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// The only file of the next message.
fn take(fd: &OwnedFd, data: &[u8]) -> Result<OwnedFd> {
    let mut message = recv_message(fd, libc::MSG_DONTWAIT)?;
    same("data", data.to_vec(), message.data)?;
    same("files", 1, message.files.len())?;
    message.files.pop().context("there is one")
}

/// A file that is only in a queue, and one that is open as well: they share the position.
fn file(v: &Victim) -> Result<()> {
    fs::write(v.path("one"), "0123456789")?;
    fs::write(v.path("two"), "abcdefghij")?;
    let (a, b) = pair(SOCK_STREAM)?;
    let one = open(&v.path("one"), libc::O_RDONLY)?;
    let two = open(&v.path("two"), libc::O_RDWR)?;
    seek(&one, 3, libc::SEEK_SET)?;
    send_message(&a, b"1", &[&one], None)?;
    send_message(&a, b"2", &[&two], None)?;
    drop(one);
    v.stand()?;
    let one = take(&b, b"1")?;
    same("position", 3, seek(&one, 0, libc::SEEK_CUR)?)?;
    ensure!(fails_with(write(&one, b"x"), libc::EBADF), "it is writable");
    let again = take(&b, b"2")?;
    seek(&two, 5, libc::SEEK_SET)?;
    let mut bytes = [0; 10];
    same("read", 5, read(&again, &mut bytes)?)?;
    same("from the shared position", b"fghij", &bytes[..5])
}

/// In their order, the same one twice, and before the data of other messages.
fn several(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    let pipes = [(); 3].map(|()| pipe(O_CLOEXEC | O_NONBLOCK));
    let [p, q, r] = pipes;
    let (p, q, r) = (p?, q?, r?);
    send(&a, b"plain", 0)?;
    send_message(&a, b"many", &[&p.1, &q.1, &p.1, &r.1], None)?;
    send(&a, b"plain again", 0)?;
    drop((p.1, q.1, r.1));
    v.stand()?;
    same("first", b"plain".to_vec(), recv_now(&b)?)?;
    let many = recv_message(&b, libc::MSG_DONTWAIT)?;
    same("second", b"many".to_vec(), many.data)?;
    same("files", 4, many.files.len())?;
    for (fd, text) in many.files.iter().zip(["1", "2", "3", "4"]) {
        write(fd, text.as_bytes())?;
    }
    for (fd, text) in [(&p.0, "13"), (&q.0, "2"), (&r.0, "4")] {
        let mut bytes = [0; 10];
        let n = read(fd, &mut bytes)?;
        same("pipe", text.as_bytes(), &bytes[..n])?;
    }
    same("third", b"plain again".to_vec(), recv_now(&b)?)
}

/// Both ends of a pipe with data are only in queues.
fn pipe_end(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (r, w) = pipe(O_CLOEXEC)?;
    write(&w, b"in the pipe")?;
    send_message(&a, b"r", &[&r], None)?;
    send_message(&b, b"w", &[&w], None)?;
    drop((r, w));
    v.stand()?;
    let (r, w) = (take(&b, b"r")?, take(&a, b"w")?);
    let mut bytes = [0; 20];
    same("read", 11, read(&r, &mut bytes)?)?;
    drop(w);
    same("read at the end", 0, read(&r, &mut bytes)?)
}

/// A socket with a message in it is only in the queue of another, two deep.
fn socket_in_socket(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (c, d) = pair(SOCK_DGRAM)?;
    let (e, f) = pair(SOCK_STREAM)?;
    send(&e, b"deepest", 0)?;
    send_message(&c, b"f", &[&f], None)?;
    send_message(&a, b"d", &[&d], None)?;
    drop((d, f));
    v.stand()?;
    let d = take(&b, b"d")?;
    let f = take(&d, b"f")?;
    same("data", b"deepest".to_vec(), recv_now(&f)?)?;
    send(&f, b"up", 0)?;
    same("answer", b"up".to_vec(), recv_now(&e)?)?;
    send(&d, b"up", 0)?;
    same("answer of the middle", b"up".to_vec(), recv_now(&c)?)
}

/// Whether the writing end of a pipe is closed before long: the garbage collector runs when sockets
/// are closed.
fn collected(r: &OwnedFd) -> Result<()> {
    let gone = sys::until(Duration::from_secs(10), || {
        drop(pair(SOCK_STREAM));
        matches!(read(r, &mut [0; 1]), Ok(0))
    });
    ensure!(gone, "what nobody can reach is still there");
    Ok(())
}

/// A socket that carries itself and a pipe; closed, it is garbage.
fn itself(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (r, w) = pipe(O_CLOEXEC | O_NONBLOCK)?;
    send_message(&a, b"b", &[&b, &w], None)?;
    drop(w);
    v.stand()?;
    ensure!(
        fails_with(read(&r, &mut [0; 1]), libc::EAGAIN),
        "the pipe is closed"
    );
    // It can still be received.
    let message = recv_message(&b, libc::MSG_DONTWAIT)?;
    same("files", 2, message.files.len())?;
    let [again, w] = &message.files[..] else {
        bail!("two files");
    };
    send(&a, b"more", 0)?;
    same("through itself", b"more".to_vec(), recv_now(again)?)?;
    send_message(&a, b"b", &[&b, w], None)?;
    drop((message, a, b));
    collected(&r)
}

/// Two sockets that carry each other, one of which is open.
fn each_other(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (c, d) = pair(SOCK_STREAM)?;
    let (r, w) = pipe(O_CLOEXEC | O_NONBLOCK)?;
    send_message(&a, b"d", &[&d, &w], None)?;
    send_message(&c, b"b", &[&b], None)?;
    drop((d, w));
    v.stand()?;
    ensure!(
        fails_with(read(&r, &mut [0; 1]), libc::EAGAIN),
        "the pipe is closed"
    );
    send(&a, b"for b", 0)?;
    // What could receive them is in their queues.
    drop(b);
    collected(&r)?;
    ensure!(fails_with(send(&a, b"x", 0), libc::EPIPE), "b is there");
    ensure!(fails_with(send(&c, b"x", 0), libc::EPIPE), "d is there");
    Ok(())
}

/// In the queue of a connection that nobody has accepted.
fn pending(v: &Victim) -> Result<()> {
    let at = Name::path(&v.path("socket"));
    let server = listener(SOCK_STREAM, &at, 5)?;
    let near = client(SOCK_STREAM, &at)?;
    let (r, w) = pipe(O_CLOEXEC)?;
    send_message(&near, b"w", &[&w], None)?;
    send_message(&near, b"l", &[&server], None)?;
    drop(w);
    v.stand()?;
    let far = accept(&server)?;
    write(&take(&far, b"w")?, b"through")?;
    same("read", 7, read(&r, &mut [0; 10])?)?;
    let again = take(&far, b"l")?;
    drop(server);
    let other = client(SOCK_STREAM, &at)?;
    send(&other, b"hello", 0)?;
    same(
        "at the listener",
        b"hello".to_vec(),
        recv(&accept(&again)?, 0)?,
    )
}

/// A look gets files of its own and leaves them.
fn peeked(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (r, w) = pipe(O_CLOEXEC | O_NONBLOCK)?;
    send_message(&a, b"w", &[&w], None)?;
    let look = recv_message(&b, libc::MSG_PEEK)?;
    drop(w);
    v.stand()?;
    write(&look.files[0], b"1")?;
    let taken = take(&b, b"w")?;
    write(&taken, b"2")?;
    same("read", 2, read(&r, &mut [0; 5])?)?;
    drop((look, taken));
    same("read at the end", 0, read(&r, &mut [0; 5])?)
}

/// Those that a message came with, and those of the sender.
fn credentials(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_DGRAM)?;
    send(&a, b"before", 0)?;
    set_option(&b, libc::SO_PASSCRED, 1)?;
    send(&a, b"of the sender", 0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let sent = send(&a, b"of a child", 0);
        v.wait();
        i32::from(sent.is_err())
    })?;
    drop(numbers);
    ensure!(
        sys::until(Duration::from_secs(10), || {
            let mut poll = 0;
            // SAFETY: there is room for an integer.
            unsafe {
                libc::ioctl(
                    std::os::fd::AsRawFd::as_raw_fd(&b),
                    libc::FIONREAD,
                    &mut poll,
                )
            };
            poll > 0 && messages_of(&b) == 3
        }),
        "the child sends nothing"
    );
    let (pid, uid, gid) = own_creds();
    // Root may say what it wants.
    let said = (1, uid, gid);
    let claims = uid == 0;
    if claims {
        send_message(&a, b"of another", &[], Some(said))?;
    }
    v.stand()?;
    let expect = |text: &str, creds| -> Result<()> {
        let message = recv_message(&b, libc::MSG_DONTWAIT)?;
        same("data", text.as_bytes().to_vec(), message.data)?;
        same(text, Some(creds), message.creds)
    };
    // Nobody wanted them when it was sent.
    let first = recv_message(&b, libc::MSG_DONTWAIT)?;
    same("data", b"before".to_vec(), first.data)?;
    expect("of the sender", (pid, uid, gid))?;
    expect("of a child", (child.pid, uid, gid))?;
    if claims {
        expect("of another", said)?;
    }
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child ended with {status}");
    send(&a, b"later", 0)?;
    expect("later", (pid, uid, gid))
}

/// How many datagrams wait, by looking at each.
fn messages_of(fd: &OwnedFd) -> usize {
    let mut count = 0;
    if set_option(fd, libc::SO_PEEK_OFF, 0).is_err() {
        return 0;
    }
    while recv(fd, libc::MSG_PEEK | libc::MSG_DONTWAIT).is_ok() {
        count += 1;
    }
    let _ = set_option(fd, libc::SO_PEEK_OFF, -1);
    count
}

/// Of a process that has ended, also as the one that connected.
fn credentials_of_the_dead(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let at = Name::path(&v.path("socket"));
    let server = listener(SOCK_STREAM, &at, 5)?;
    set_option(&b, libc::SO_PASSCRED, 1)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        let connected = client(SOCK_STREAM, &at);
        let sent = send(&a, b"last", 0);
        i32::from(sent.is_err() || connected.is_err())
    })?;
    drop(numbers);
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child ended with {status}");
    let far = accept(&server)?;
    let (_, uid, gid) = own_creds();
    let creds = (child.pid, uid, gid);
    v.stand()?;
    same("peer", creds, selftests::unix::peer_creds(&far)?)?;
    let message = recv_message(&b, 0)?;
    same("data", b"last".to_vec(), message.data)?;
    same("sender", Some(creds), message.creds)
}

/// A stream does not glue what comes from different senders, or with files.
fn not_glued(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (r, _w) = pipe(O_CLOEXEC)?;
    set_option(&b, libc::SO_PASSCRED, 1)?;
    send(&a, b"one", 0)?;
    send(&a, b"two", 0)?;
    send_message(&a, b"three", &[&r], None)?;
    send(&a, b"four", 0)?;
    v.stand()?;
    same("up to the file", b"onetwothree".to_vec(), recv(&b, 0)?)?;
    same("behind it", b"four".to_vec(), recv(&b, 0)?)
}
