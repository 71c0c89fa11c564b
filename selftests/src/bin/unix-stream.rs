// SPDX-License-Identifier: GPL-2.0

//! Unix sockets of the type SOCK_STREAM.

use libc::{
    ECONNRESET,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLPRI,
    POLLRDHUP,
    SOCK_NONBLOCK,
    SOCK_STREAM, //
};
use selftests::prelude::*;
use selftests::sys::{
    fails_with,
    fcntl,
    fill,
    read,
    verify,
    write, //
};
use selftests::unix::{
    accept,
    bind,
    client,
    get,
    listener,
    name,
    option,
    own_creds,
    pair,
    peer,
    peer_creds,
    polled,
    recv,
    recv_message,
    recv_now,
    send,
    set,
    set_option,
    shutdown,
    socket,
    Name, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process,
    Task, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd, //
};
use std::os::unix::fs::{
    MetadataExt,
    PermissionsExt, //
};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("pair", pair_with_data),
        Case::new("full", full),
        Case::new("peer-gone", peer_gone),
        Case::new("half-closed", half_closed),
        Case::new("out-of-band", out_of_band),
        Case::new("out-of-band-read", out_of_band_read),
        Case::new("options", options),
        Case::new("peek-offset", peek_offset),
        Case::new("path", path),
        Case::new("relative-path", relative_path),
        Case::new("removed-path", removed_path),
        Case::new("abstract", abstract_name),
        Case::new("pending", pending),
        Case::new("backlog-full", backlog_full),
        Case::new("unconnected", unconnected),
        Case::new("blocked", blocked),
    ],
    customs: &[
        Custom {
            name: "path-made-again",
            run: path_made_again,
        },
        Custom {
            name: "name-in-use",
            run: name_in_use,
        },
        Custom {
            name: "outside-refused",
            run: outside_refused,
        },
        Custom {
            name: "outside-dropped",
            run: outside_dropped,
        },
        Custom {
            name: "outside-supplied",
            run: outside_supplied,
        },
        Custom {
            name: "pending-outside",
            run: pending_outside,
        },
    ],
    victims: &[
        Case::new("listens", listens),
        Case::new("has-given", has_given).no_control(),
        Case::new("accepts-gone", accepts_gone).no_control(),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("unix-stream")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Exchanges a word in both directions.
fn talk(a: &OwnedFd, b: &OwnedFd) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        send(from, b"word", 0)?;
        same("word", b"word".to_vec(), recv_now(to)?)?;
    }
    Ok(())
}

fn pair_with_data(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let mut bytes = vec![0; 100_000];
    fill(&mut bytes, 1);
    write(&a, &bytes)?;
    write(&b, b"back")?;
    let mut seen = vec![0; 100_000];
    // The first part of it is read.
    same("first read", 10_001, read(&b, &mut seen[..10_001])?)?;
    let unread: i32 = queued(&b)?;
    v.stand()?;
    same("bytes in the queue", unread, queued(&b)?)?;
    let mut at = 10_001;
    while at < seen.len() {
        at += read(&b, &mut seen[at..])?;
    }
    verify("data", &seen, 1)?;
    same("other direction", b"back".to_vec(), recv_now(&a)?)?;
    same("peer of a", own_creds(), peer_creds(&a)?)?;
    same("peer of b", own_creds(), peer_creds(&b)?)?;
    same("name", Name::none(), name(&a)?)?;
    same("name of the peer", Name::none(), peer(&a)?)?;
    talk(&a, &b)?;
    drop(a);
    same("end", Vec::<u8>::new(), recv_now(&b)?)
}

/// SIOCINQ.
fn queued(fd: &OwnedFd) -> Result<i32> {
    let mut value = 0;
    // SAFETY: there is room for an integer.
    sys::cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &mut value) })?;
    Ok(value)
}

/// As much as fits in, and not more afterwards.
fn full(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM | SOCK_NONBLOCK)?;
    let mut sent = Vec::<u8>::new();
    loop {
        let mut bytes = vec![0; 5000];
        fill(&mut bytes, sent.len() as u64);
        match write(&a, &bytes) {
            Ok(n) => sent.extend(&bytes[..n]),
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => break,
            Err(e) => return Err(e.into()),
        }
    }
    same("events", 0, polled(&a)? & POLLOUT)?;
    v.stand()?;
    ensure!(
        fails_with(write(&a, b"x"), libc::EAGAIN),
        "a full socket takes one more byte"
    );
    same("events", 0, polled(&a)? & POLLOUT)?;
    let mut seen = Vec::<u8>::new();
    while seen.len() < sent.len() {
        let mut bytes = [0; 3000];
        let n = read(&b, &mut bytes)?;
        seen.extend(&bytes[..n]);
    }
    ensure!(seen == sent, "the data differs");
    ensure!(polled(&a)? & POLLOUT != 0, "it stays full");
    talk(&a, &b)
}

/// The data comes first, then the end; the error of what was not read is told once.
fn peer_gone(v: &Victim) -> Result<()> {
    let path = v.path("socket");
    let server = listener(SOCK_STREAM, &Name::path(&path), 5)?;
    let (a, b) = pair(SOCK_STREAM)?;
    let reset = client(SOCK_STREAM, &Name::path(&path))?;
    write(&b, b"last words")?;
    drop(b);
    write(&reset, b"never read")?;
    drop(accept(&server)?);
    let events = [polled(&a)?, polled(&reset)?];
    ensure!(events[0] & POLLHUP != 0, "no hang-up: {events:?}");
    ensure!(events[1] & POLLERR != 0, "no error: {events:?}");
    v.stand()?;
    same("events", events, [polled(&a)?, polled(&reset)?])?;
    same("data", b"last words".to_vec(), recv_now(&a)?)?;
    same("end", Vec::<u8>::new(), recv_now(&a)?)?;
    ensure!(
        fails_with(write(&a, b"x"), libc::EPIPE),
        "somebody is there"
    );
    same("name of the peer", Name::path(&path), peer(&reset)?)?;
    ensure!(fails_with(recv_now(&reset), ECONNRESET), "no ECONNRESET");
    same("end after it", Vec::<u8>::new(), recv_now(&reset)?)
}

fn half_closed(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    let (c, d) = pair(SOCK_STREAM)?;
    write(&a, b"before")?;
    shutdown(&a, libc::SHUT_WR)?;
    shutdown(&c, libc::SHUT_RD)?;
    let all = || [&a, &b, &c, &d].map(|fd| polled(fd).ok());
    let events = all();
    v.stand()?;
    same("events", events, all())?;
    same("data", b"before".to_vec(), recv_now(&b)?)?;
    same("end", Vec::<u8>::new(), recv_now(&b)?)?;
    ensure!(fails_with(send(&a, b"x", 0), libc::EPIPE), "a can send");
    send(&b, b"back", 0)?;
    same("other direction", b"back".to_vec(), recv_now(&a)?)?;
    ensure!(fails_with(send(&d, b"x", 0), libc::EPIPE), "c can receive");
    send(&c, b"forth", 0)?;
    same("from c", b"forth".to_vec(), recv_now(&d)?)
}

/// SIOCATMARK.
fn at_mark(fd: &OwnedFd) -> Result<bool> {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    let mut value = 0;
    // SAFETY: there is room for an integer.
    sys::cvt(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCATMARK, &mut value) })?;
    Ok(value == 1)
}

fn out_of_band(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    send(&a, b"abc", 0)?;
    send(&a, b"d", libc::MSG_OOB)?;
    send(&a, b"ef", 0)?;
    v.stand()?;
    ensure!(polled(&b)? & POLLPRI != 0, "no urgent data");
    ensure!(!at_mark(&b)?, "it is at the mark before it is");
    same("before it", b"abc".to_vec(), recv_now(&b)?)?;
    ensure!(at_mark(&b)?, "it is not at the mark");
    same("out of band", b"d".to_vec(), recv(&b, libc::MSG_OOB)?)?;
    same("behind it", b"ef".to_vec(), recv_now(&b)?)
}

/// The byte has been read, and its place is still a place to stop at.
fn out_of_band_read(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    send(&a, b"abc", 0)?;
    send(&a, b"d", libc::MSG_OOB)?;
    send(&a, b"ef", 0)?;
    same("out of band", b"d".to_vec(), recv(&b, libc::MSG_OOB)?)?;
    v.stand()?;
    same("urgent data", 0, polled(&b)? & POLLPRI)?;
    same("before it", b"abc".to_vec(), recv_now(&b)?)?;
    ensure!(at_mark(&b)?, "it is not at the mark");
    same("behind it", b"ef".to_vec(), recv_now(&b)?)
}

const SO_PASSPIDFD: i32 = 76;
const SO_PASSRIGHTS: i32 = 83;

/// Options that are integers, and what they are set to.
const INTEGERS: &[(i32, i32)] = &[
    (libc::SO_SNDBUF, 50_000),
    (libc::SO_RCVBUF, 60_000),
    (libc::SO_PASSCRED, 1),
    (SO_PASSPIDFD, 1),
    (SO_PASSRIGHTS, 0),
    (libc::SO_RCVLOWAT, 3),
    (libc::SO_OOBINLINE, 1),
    (libc::SO_KEEPALIVE, 1),
    (libc::SO_REUSEADDR, 1),
    (libc::SO_BROADCAST, 1),
    (libc::SO_PRIORITY, 4),
    (libc::SO_TIMESTAMP, 1),
];

fn options(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM | SOCK_NONBLOCK)?;
    for &(number, value) in INTEGERS {
        set_option(&a, number, value).with_context(|| format!("option {number}"))?;
    }
    let time = |sec, usec| libc::timeval {
        tv_sec: sec,
        tv_usec: usec,
    };
    set(&a, libc::SO_RCVTIMEO, time(7, 500_000))?;
    set(&a, libc::SO_SNDTIMEO, time(100, 0))?;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 9,
    };
    set(&a, libc::SO_LINGER, linger)?;
    let all = |fd: &OwnedFd| -> Result<Vec<i32>> {
        let mut values = Vec::new();
        for &(number, _) in INTEGERS {
            values.push(option(fd, number)?);
        }
        for number in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
            let time: libc::timeval = get(fd, number)?;
            values.extend([time.tv_sec as i32, time.tv_usec as i32]);
        }
        let linger: libc::linger = get(fd, libc::SO_LINGER)?;
        values.extend([linger.l_onoff, linger.l_linger]);
        Ok(values)
    };
    let as_file = |fd: &OwnedFd| fd.try_clone().map(fs::File::from);
    as_file(&a)?.set_permissions(fs::Permissions::from_mode(0o640))?;
    fcntl(&a, libc::F_SETFL, libc::O_NONBLOCK | libc::O_APPEND)?;
    let modes = || -> Result<_> {
        let mode = |fd| as_file(fd)?.metadata().map(|of| of.mode());
        Ok([mode(&a)?, mode(&b)?])
    };
    let flags = || -> Result<_> {
        let flags = |fd| fcntl(fd, libc::F_GETFL, 0);
        Ok([flags(&a)?, flags(&b)?])
    };
    let before = [all(&a)?, all(&b)?];
    let (modes_before, flags_before) = (modes()?, flags()?);
    v.stand()?;
    same("options", before, [all(&a)?, all(&b)?])?;
    same("modes", modes_before, modes()?)?;
    same("flags", flags_before, flags()?)?;
    // SO_RCVLOWAT counts, and so does SO_PASSCRED.
    send(&b, b"four", 0)?;
    let message = recv_message(&a, 0)?;
    same("credentials", Some(own_creds()), message.creds)
}

/// SO_PEEK_OFF: each look sees what the last has not.
fn peek_offset(v: &Victim) -> Result<()> {
    let (a, b) = pair(SOCK_STREAM)?;
    set_option(&b, libc::SO_PEEK_OFF, 0)?;
    send(&a, b"abcdef", 0)?;
    let mut two = [0; 2];
    // SAFETY: there is room for two bytes.
    let n =
        sys::cvt(unsafe { libc::recv(b.as_raw_fd(), two.as_mut_ptr().cast(), 2, libc::MSG_PEEK) })?;
    same("first look", (2, *b"ab"), (n, two))?;
    v.stand()?;
    same("offset", 2, option(&b, libc::SO_PEEK_OFF)?)?;
    same("next look", b"cdef".to_vec(), recv(&b, libc::MSG_PEEK)?)?;
    same("data", b"abcdef".to_vec(), recv_now(&b)?)
}

/// A connection through a path, which goes on to lead to the listener.
fn path(v: &Victim) -> Result<()> {
    let path = v.path("socket");
    let at = Name::path(&path);
    let server = listener(SOCK_STREAM, &at, 5)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
    let inode = fs::metadata(&path)?.ino();
    let near = client(SOCK_STREAM, &at)?;
    let far = accept(&server)?;
    write(&near, b"near")?;
    write(&far, b"far")?;
    v.stand()?;
    let there = fs::metadata(&path)?;
    same("inode", inode, there.ino())?;
    same("mode", 0o640, there.mode() & 0o7777)?;
    same("name of the listener", at.clone(), name(&server)?)?;
    same("name of what was accepted", at.clone(), name(&far)?)?;
    same("name of the peer", at.clone(), peer(&near)?)?;
    same("name of the client", Name::none(), peer(&far)?)?;
    same("at the far end", b"near".to_vec(), recv_now(&far)?)?;
    same("at the near end", b"far".to_vec(), recv_now(&near)?)?;
    same("peer", own_creds(), peer_creds(&near)?)?;
    ensure!(fails_with(peer(&server), libc::ENOTCONN), "it has a peer");
    let other = client(SOCK_STREAM, &at)?;
    talk(&other, &accept(&server)?)?;
    drop(server);
    ensure!(
        fails_with(client(SOCK_STREAM, &at), libc::ECONNREFUSED),
        "somebody listens"
    );
    talk(&near, &far)
}

fn relative_path(v: &Victim) -> Result<()> {
    let dir = v.path("dir");
    fs::create_dir(&dir)?;
    std::env::set_current_dir(&dir)?;
    let at = Name(b"here\0".to_vec());
    let server = listener(SOCK_STREAM, &at, 5)?;
    std::env::set_current_dir("/")?;
    v.stand()?;
    same("name", at, name(&server)?)?;
    let other = client(SOCK_STREAM, &Name::path(&dir.join("here")))?;
    talk(&other, &accept(&server)?)
}

/// The name stays with the socket, and another may have the path.
fn removed_path(v: &Victim) -> Result<()> {
    let path = v.path("socket");
    let at = Name::path(&path);
    let server = listener(SOCK_STREAM, &at, 5)?;
    let near = client(SOCK_STREAM, &at)?;
    let far = accept(&server)?;
    fs::remove_file(&path)?;
    v.stand()?;
    same("name", at.clone(), name(&server)?)?;
    ensure!(!path.exists(), "the path is there again");
    ensure!(
        fails_with(bind(&server, &at), libc::EINVAL),
        "it has no name any more"
    );
    talk(&near, &far)?;
    let second = listener(SOCK_STREAM, &at, 5)?;
    let other = client(SOCK_STREAM, &at)?;
    talk(&other, &accept(&second)?)?;
    fs::remove_file(&path)?;
    Ok(())
}

/// A name outside the file system, one that the kernel chose, and a number of them with NULs.
fn abstract_name(v: &Victim) -> Result<()> {
    let pid = sys::getpid();
    let at = Name::hidden(&format!("selftest\0{pid}"));
    let server = listener(SOCK_STREAM, &at, 5)?;
    let chosen = listener(SOCK_STREAM, &Name::none(), 5)?;
    let auto = name(&chosen)?;
    same("length of a name by the kernel", 6, auto.0.len())?;
    let near = client(SOCK_STREAM, &at)?;
    let far = accept(&server)?;
    v.stand()?;
    same("name", at.clone(), name(&server)?)?;
    same("name by the kernel", auto.clone(), name(&chosen)?)?;
    same("name of the peer", at.clone(), peer(&near)?)?;
    talk(&near, &far)?;
    for (server, at) in [(&server, &at), (&chosen, &auto)] {
        let other = client(SOCK_STREAM, at)?;
        talk(&other, &accept(server)?)?;
        let second = socket(SOCK_STREAM)?;
        ensure!(
            fails_with(bind(&second, at), libc::EADDRINUSE),
            "another can have the name"
        );
    }
    Ok(())
}

/// Connections that nobody has accepted: in their order, with what was sent, also by a client that
/// is gone.
fn pending(v: &Victim) -> Result<()> {
    let at = Name::path(&v.path("socket"));
    let server = listener(SOCK_STREAM, &at, 5)?;
    set_option(&server, libc::SO_PASSCRED, 1)?;
    let mut clients = Vec::new();
    for i in 0..3u8 {
        let near = socket(SOCK_STREAM)?;
        bind(&near, &Name::hidden(&format!("{}-{i}", sys::getpid())))?;
        selftests::unix::connect(&near, &at)?;
        send(&near, &[i; 50], 0)?;
        clients.push(near);
    }
    drop(clients.remove(1));
    v.stand()?;
    ensure!(polled(&server)? & POLLIN != 0, "nothing to accept");
    let mut far = Vec::new();
    for i in 0..3u8 {
        let accepted = accept(&server)?;
        let from = Name::hidden(&format!("{}-{i}", sys::getpid()));
        same("name of the client", from, peer(&accepted)?)?;
        same("name", at.clone(), name(&accepted)?)?;
        same("SO_PASSCRED", 1, option(&accepted, libc::SO_PASSCRED)?)?;
        same("peer", own_creds(), peer_creds(&accepted)?)?;
        same("data", vec![i; 50], recv_now(&accepted)?)?;
        far.push(accepted);
    }
    same(
        "end of the one that is gone",
        Vec::<u8>::new(),
        recv_now(&far[1])?,
    )?;
    same("peer of a client", own_creds(), peer_creds(&clients[0])?)?;
    talk(&clients[0], &far[0])?;
    talk(&clients[1], &far[2])?;
    drop(server);
    talk(&clients[1], &far[2])
}

/// One more connection than may wait is not taken, and a place that becomes free is.
fn backlog_full(v: &Victim) -> Result<()> {
    let at = Name::hidden(&format!("{}", sys::getpid()));
    let server = listener(SOCK_STREAM, &at, 1)?;
    let first = [client(SOCK_STREAM, &at)?, client(SOCK_STREAM, &at)?];
    let more = || client(SOCK_STREAM | SOCK_NONBLOCK, &at);
    ensure!(fails_with(more(), libc::EAGAIN), "there was more room");
    v.stand()?;
    ensure!(fails_with(more(), libc::EAGAIN), "there is more room");
    let accepted = accept(&server)?;
    talk(&first[0], &accepted)?;
    more()?;
    drop(server);
    // It was never accepted.
    same("events", POLLHUP, polled(&first[1])? & POLLHUP)?;
    ensure!(
        fails_with(recv_now(&first[1]), ECONNRESET),
        "no reset of what was never accepted"
    );
    Ok(())
}

fn unconnected(v: &Victim) -> Result<()> {
    let fresh = socket(SOCK_STREAM)?;
    let bound = socket(SOCK_STREAM)?;
    let path = v.path("socket");
    bind(&bound, &Name::path(&path))?;
    let events = [polled(&fresh)?, polled(&bound)?];
    v.stand()?;
    same("events", events, [polled(&fresh)?, polled(&bound)?])?;
    ensure!(
        fails_with(send(&fresh, b"x", 0), libc::ENOTCONN),
        "it is connected"
    );
    ensure!(
        fails_with(client(SOCK_STREAM, &Name::path(&path)), libc::ECONNREFUSED),
        "it listens"
    );
    // SAFETY: no memory is involved.
    sys::cvt(unsafe { libc::listen(bound.as_raw_fd(), 5) })?;
    selftests::unix::connect(&fresh, &Name::path(&path))?;
    talk(&fresh, &accept(&bound)?)
}

/// Calls in which children wait go on.
fn blocked(v: &Victim) -> Result<()> {
    let at = Name::path(&v.path("socket"));
    let server = listener(SOCK_STREAM, &at, 0)?;
    let (a, b) = pair(SOCK_STREAM)?;
    let (c, d) = pair(SOCK_STREAM)?;
    set_option(&c, libc::SO_SNDBUF, 5000)?;
    let waiting = client(SOCK_STREAM, &at)?;
    let numbers = NumbersThatFollow::choose();
    let ok = |good: bool| i32::from(!good);
    let mut children = [
        // Reads what comes, in one piece.
        Process::fork(|| {
            let mut bytes = [0; 10];
            // SAFETY: there is room for so much.
            let n = unsafe {
                libc::recv(
                    b.as_raw_fd(),
                    bytes.as_mut_ptr().cast(),
                    10,
                    libc::MSG_WAITALL,
                )
            };
            ok(n == 10 && bytes == *b"0123456789")
        })?,
        // Writes more than fits in.
        Process::fork(|| {
            let mut left = 100_000;
            // As after SIGSTOP and SIGCONT, a part may have been written.
            while let Ok(n) = write(&c, &[7; 100_000][..left]) {
                left -= n;
                if left == 0 {
                    return 0;
                }
            }
            1
        })?,
        // Connects when there is no place.
        Process::fork(|| {
            let connected = client(SOCK_STREAM, &at);
            ok(connected.is_ok_and(|fd| matches!(write(&fd, b"in"), Ok(2))))
        })?,
    ];
    drop(numbers);
    // They are in their calls before long; before that, a restart is no harder.
    sys::nap(Duration::from_millis(50));
    v.stand()?;
    write(&a, b"01234")?;
    write(&a, b"56789")?;
    let mut all = Vec::new();
    while all.len() < 100_000 {
        all.extend(recv(&d, 0)?);
    }
    ensure!(all.iter().all(|&byte| byte == 7), "the data differs");
    let first = accept(&server)?;
    talk(&waiting, &first)?;
    let second = accept(&server)?;
    same(
        "from the one that waited",
        b"in".to_vec(),
        recv(&second, 0)?,
    )?;
    for child in &mut children {
        let status = child.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "a child ended with {status}");
    }
    Ok(())
}

fn listens(v: &Victim) -> Result<()> {
    let path = v.path("socket");
    let server = listener(SOCK_STREAM, &Name::path(&path), 5)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o601))?;
    v.stand()?;
    same("mode", 0o601, fs::metadata(&path)?.mode() & 0o7777)?;
    let other = client(SOCK_STREAM, &Name::path(&path))?;
    talk(&other, &accept(&server)?)
}

/// The restart makes a socket that was removed meanwhile, as of /run after a reboot.
fn path_made_again(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("listens")?;
    life.checkpoint_and_kill(&b.path("image"))?;
    fs::remove_file(b.path("socket"))?;
    life.restart(&b.path("image"), &[])?;
    life.passes()
}

fn name_in_use(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("listens")?;
    life.checkpoint_and_kill(&b.path("image"))?;
    let rstr = || b.rstr().arg("-i").arg(b.path("image"));
    let refused = |words: &[&str]| -> Result<()> {
        rstr().run()?.refused("rstr", words)?;
        ensure!(Task::read(life.pid).is_none(), "a task is left");
        Ok(())
    };
    let path = b.path("socket");
    fs::remove_file(&path)?;
    fs::write(&path, "text")?;
    refused(&["socket", "leads to another file"])?;
    fs::remove_file(&path)?;
    let other = listener(SOCK_STREAM, &Name::path(&path), 1)?;
    refused(&["/socket", "another socket is bound"])?;
    drop(other);
    fs::remove_file(&path)?;
    life.restart_by(rstr())?;
    life.passes()
}

/// The descriptor that the runner gives to the victim.
const GIVEN: i32 = 5;

/// Reads from the peer that the runner has, or had.
fn has_given(v: &Victim) -> Result<()> {
    // SAFETY: the runner put a socket there.
    let fd = unsafe { OwnedFd::from_raw_fd(GIVEN) };
    v.ready_fd(GIVEN)?;
    v.wait();
    same("data", b"from outside".to_vec(), recv(&fd, 0)?)?;
    same("end", Vec::<u8>::new(), recv(&fd, 0)?)?;
    same("events", POLLRDHUP, polled(&fd)? & POLLRDHUP)
}

/// Starts a victim that has one end of a pair; the other is the runner's.
fn start<'a>(b: &'a Bench<'_>, given: &OwnedFd) -> Result<selftests::Life<'a>> {
    let mut command = b.command(b.case("has-given")?)?;
    let fd = given.as_raw_fd();
    // SAFETY: a system call is all the child does.
    unsafe {
        command.pre_exec(move || sys::give(fd, GIVEN));
    }
    b.start_with("has-given", command)
}

fn outside_refused(b: &Bench<'_>) -> Result<()> {
    let (own, given) = pair(SOCK_STREAM)?;
    let mut life = start(b, &given)?;
    drop(given);
    let place = format!("task {}/fd {GIVEN}", life.pid);
    let words = [&place, "socket", "outside the tree", "--drop"];
    b.refuses(life.pid, &words)?;
    send(&own, b"from outside", 0)?;
    drop(own);
    life.passes()
}

/// What was sent is still there, then comes the end.
fn outside_dropped(b: &Bench<'_>) -> Result<()> {
    let (own, given) = pair(SOCK_STREAM)?;
    let mut life = start(b, &given)?;
    send(&own, b"from outside", 0)?;
    life.checkpoint(&["--kill", "--drop=all"], &b.path("image"))?;
    life.reap()?;
    life.restart(&b.path("image"), &[])?;
    life.passes()
}

fn outside_supplied(b: &Bench<'_>) -> Result<()> {
    let (_own, given) = pair(SOCK_STREAM)?;
    let mut life = start(b, &given)?;
    life.checkpoint(&["--kill", "--external=all"], &b.path("image"))?;
    life.reap()?;
    let rstr = || b.rstr().arg("-i").arg(b.path("image"));
    let args = ["--inherit-fd", "5=90"];
    let (r, _w) = sys::pipe(libc::O_CLOEXEC)?;
    rstr()
        .with_fd(90, &r)
        .args(args)
        .run()?
        .refused("rstr", &["of another kind"])?;
    let (own, given) = pair(SOCK_STREAM)?;
    life.restart_by(rstr().with_fd(90, &given).args(args))?;
    drop(given);
    send(&own, b"from outside", 0)?;
    shutdown(&own, libc::SHUT_WR)?;
    life.passes()
}

/// Accepts a connection whose client is gone, then another.
fn accepts_gone(v: &Victim) -> Result<()> {
    let at = Name::path(&v.path("socket"));
    let server = listener(SOCK_STREAM, &at, 5)?;
    v.stand()?;
    let gone = accept(&server)?;
    same("data", b"from outside".to_vec(), recv_now(&gone)?)?;
    same("end", Vec::<u8>::new(), recv_now(&gone)?)?;
    let other = client(SOCK_STREAM, &at)?;
    talk(&other, &accept(&server)?)
}

/// A connection that waits, whose client is the runner.
fn pending_outside(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("accepts-gone")?;
    let own = client(SOCK_STREAM, &Name::path(&b.path("socket")))?;
    send(&own, b"from outside", 0)?;
    b.refuses(life.pid, &["socket", "outside the tree"])?;
    life.checkpoint(&["--kill", "--drop=all"], &b.path("image"))?;
    life.reap()?;
    life.restart(&b.path("image"), &[])?;
    life.passes()
}
