// SPDX-License-Identifier: GPL-2.0

//! Pseudo terminals with both ends in the tree.

use libc::{
    O_NOCTTY,
    O_NONBLOCK,
    O_RDWR, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fcntl,
    open,
    owned,
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
use std::os::unix::fs::MetadataExt;
use std::path::{
    Path,
    PathBuf, //
};
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("settings", settings),
        Case::new("both-directions", both_directions),
        Case::new("unread", unread),
        Case::new("unread-lines", unread_lines),
        Case::new("full", full),
        Case::new("packet-mode", packet_mode),
        Case::new("stopped-output", stopped_output),
        Case::new("slave-closed", slave_closed),
        Case::new("never-opened", never_opened),
        Case::new("master-closed", master_closed),
        Case::new("flags-and-names", flags_and_names),
        Case::new("several", several),
        Case::new("controlling", controlling),
        Case::new("interrupt", interrupt),
        Case::new("blocked-reader", blocked_reader),
    ],
    refusals: &[
        Refusal::new("discipline", discipline, &["line discipline"]),
        Refusal::new("legacy", legacy, &["character device /dev/ptyp0 (2:0)"]),
    ],
    customs: &[Custom {
        name: "served-outside",
        run: served_outside,
    }],
    victims: &[Case::new("serves-outside", serves_outside).no_control()],
    // The numbers that follow are those of one victim, and so are those of terminals.
    jobs: 1,
    ..Suite::new("pty")
};

fn main() -> ExitCode {
    SUITE.main()
}

// Not in the libc crate.
const TIOCPKT_STOP: i32 = 4;
const TIOCPKT_START: i32 = 8;

/// A pty: master, slave and the slave's path.
struct Pty {
    master: OwnedFd,
    slave: OwnedFd,
    path: PathBuf,
}

/// A master whose number is free at a restart: others take the lowest.
fn new_master() -> Result<(OwnedFd, PathBuf)> {
    let mut low = Vec::new();
    for _ in 0..20 {
        // SAFETY: no memory is involved.
        low.push(owned(unsafe { libc::posix_openpt(O_RDWR | O_NOCTTY) })?);
    }
    let master = low.pop().context("no pty")?;
    // SAFETY: the descriptor is a master.
    cvt(unsafe { libc::unlockpt(master.as_raw_fd()) })?;
    let path = format!("/dev/pts/{}", number(&master)?);
    Ok((master, path.into()))
}

fn number(master: &OwnedFd) -> Result<i32> {
    let mut number = 0;
    // SAFETY: the number is valid for writing.
    cvt(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &mut number) })?;
    Ok(number)
}

fn new() -> Result<Pty> {
    let (master, path) = new_master()?;
    let slave = open(&path, O_RDWR | O_NOCTTY)?;
    Ok(Pty {
        master,
        slave,
        path,
    })
}

/// A pty that passes bytes on as they are.
fn raw() -> Result<Pty> {
    let pty = new()?;
    let mut settings = termios(&pty.slave)?;
    // SAFETY: the settings are valid.
    unsafe { libc::cfmakeraw(&mut settings) };
    set_termios(&pty.slave, &settings)?;
    Ok(pty)
}

fn termios(fd: &OwnedFd) -> Result<libc::termios> {
    // SAFETY: all zeroes is a termios, valid for writing.
    unsafe {
        let mut settings = mem::zeroed();
        cvt(libc::tcgetattr(fd.as_raw_fd(), &mut settings))?;
        Ok(settings)
    }
}

fn set_termios(fd: &OwnedFd, settings: &libc::termios) -> Result<()> {
    // SAFETY: the settings are valid.
    cvt(unsafe { libc::tcsetattr(fd.as_raw_fd(), libc::TCSANOW, settings) })?;
    Ok(())
}

fn as_numbers(t: &libc::termios) -> Vec<u32> {
    let cc = t.c_cc.iter().map(|c| u32::from(*c));
    [t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag]
        .into_iter()
        .chain(cc)
        .collect()
}

fn ioctl<T>(fd: &OwnedFd, request: libc::c_ulong, arg: &mut T) -> io::Result<i32> {
    // SAFETY: the argument is valid for what the request does.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), request, arg) })
}

fn window(fd: &OwnedFd) -> Result<[u16; 4]> {
    let mut size = [0u16; 4];
    ioctl(fd, libc::TIOCGWINSZ, &mut size)?;
    Ok(size)
}

/// Reads exactly `expected`, within a few seconds.
fn expect(what: &str, fd: &OwnedFd, expected: &[u8]) -> Result<()> {
    let mut got = Vec::new();
    let begin = Instant::now();
    while got.len() < expected.len() && begin.elapsed() < Duration::from_secs(5) {
        let mut poll = libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: there is one entry.
        if cvt(unsafe { libc::poll(&mut poll, 1, 1000) })? == 0 {
            continue;
        }
        let mut buf = [0; 4096];
        let n = read(fd, &mut buf)?;
        ensure!(n > 0, "{what}: the end after {} bytes", got.len());
        got.extend_from_slice(&buf[..n]);
    }
    ensure!(
        got == expected,
        "{what}: expected {:?}, read {:?}",
        String::from_utf8_lossy(expected),
        String::from_utf8_lossy(&got)
    );
    Ok(())
}

/// Bytes that can be read at once.
fn available(fd: &OwnedFd) -> Result<i32> {
    let mut count = 0;
    ioctl(fd, libc::FIONREAD, &mut count)?;
    Ok(count)
}

/// Requires that nothing can be read.
fn nothing(what: &str, fd: &OwnedFd) -> Result<()> {
    sys::nap(Duration::from_millis(30));
    same(what, 0, available(fd)?)
}

fn settings(v: &Victim) -> Result<()> {
    let pty = new()?;
    let mut t = termios(&pty.slave)?;
    t.c_iflag = (t.c_iflag | libc::IXANY | libc::IUTF8) & !libc::ICRNL;
    t.c_oflag &= !libc::OPOST;
    t.c_lflag = (t.c_lflag | libc::ECHOE) & !libc::ECHO;
    t.c_cc[libc::VINTR] = 0x11;
    t.c_cc[libc::VMIN] = 7;
    set_termios(&pty.slave, &t)?;
    let mut locked = t;
    locked.c_iflag = libc::IXANY;
    locked.c_cc = [0; 32];
    locked.c_cc[libc::VINTR] = 1;
    ioctl(&pty.slave, libc::TIOCSLCKTRMIOS, &mut locked)?;
    ioctl(&pty.master, libc::TIOCSWINSZ, &mut [50u16, 132, 1000, 2000])?;
    // SAFETY: the path is a string without NUL.
    let path = std::ffi::CString::new(pty.path.to_str().context("path")?)?;
    // SAFETY: as above.
    unsafe {
        cvt(libc::chown(path.as_ptr(), 1234, 5678))?;
        cvt(libc::chmod(path.as_ptr(), 0o640))?;
    }
    let all = || -> Result<_> {
        let m = fs::metadata(&pty.path)?;
        // SAFETY: all zeroes is a termios.
        let mut locked: libc::termios = unsafe { mem::zeroed() };
        ioctl(&pty.slave, libc::TIOCGLCKTRMIOS, &mut locked)?;
        Ok((
            as_numbers(&termios(&pty.slave)?),
            locked.c_iflag,
            (window(&pty.master)?, window(&pty.slave)?),
            (m.uid(), m.gid(), m.mode()),
        ))
    };
    let before = all()?;
    v.stand()?;
    same("settings, window, owner", before, all()?)
}

fn both_directions(v: &Victim) -> Result<()> {
    let pty = raw()?;
    v.stand()?;
    write(&pty.master, b"to the slave")?;
    expect("slave", &pty.slave, b"to the slave")?;
    write(&pty.slave, b"to the master")?;
    expect("master", &pty.master, b"to the master")
}

fn unread(v: &Victim) -> Result<()> {
    let pty = raw()?;
    write(&pty.master, b"xinput")?;
    write(&pty.slave, b"youtput")?;
    // A part has been read.
    let mut first = [0; 2];
    same("input", 1, read(&pty.slave, &mut first[..1])?)?;
    same("output", 1, read(&pty.master, &mut first[1..])?)?;
    same("first bytes", *b"xy", first)?;
    v.stand()?;
    expect("slave", &pty.slave, b"input")?;
    expect("master", &pty.master, b"output")
}

/// A line that is complete, one that is not, and what is edited in between.
fn unread_lines(v: &Victim) -> Result<()> {
    let pty = new()?;
    write(
        &pty.master,
        b"first line\nsecond wrong\x7f\x7f\x7f\x7f\x7fli",
    )?;
    ensure!(
        sys::until(Duration::from_secs(5), || available(&pty.slave)
            .is_ok_and(|n| n == 11)),
        "the first line does not come"
    );
    expect(
        "echo",
        &pty.master,
        b"first line\r\nsecond wrong\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08li",
    )?;
    v.stand()?;
    same("bytes of whole lines", 11, available(&pty.slave)?)?;
    let mut line = [0; 100];
    let n = read(&pty.slave, &mut line)?;
    same("first line", &b"first line\n"[..], &line[..n])?;
    nothing("the line that is not complete", &pty.slave)?;
    write(&pty.master, b"n\x7fne\n\x04")?;
    let n = read(&pty.slave, &mut line)?;
    same("second line", &b"second line\n"[..], &line[..n])?;
    same("end of file", 0, read(&pty.slave, &mut line)?)
}

/// As much as fits in both directions; every byte comes once.
fn full(v: &Victim) -> Result<()> {
    let pty = raw()?;
    let text: Vec<u8> = (0..400_000u32).map(|i| (i % 251) as u8).collect();
    let mut written = Vec::new();
    for fd in [&pty.master, &pty.slave] {
        fcntl(fd, libc::F_SETFL, O_NONBLOCK | O_RDWR)?;
        let mut done = 0;
        let mut refused = 0;
        while refused < 5 {
            match write(fd, &text[done..done + 1000]) {
                Ok(n) => done += n,
                Err(_) => {
                    refused += 1;
                    sys::nap(Duration::from_millis(5));
                }
            }
        }
        written.push(done);
    }
    ensure!(
        written.iter().all(|n| *n > 4096),
        "only {written:?} bytes fit"
    );
    v.stand()?;
    expect("slave", &pty.slave, &text[..written[0]])?;
    expect("master", &pty.master, &text[..written[1]])?;
    nothing("slave", &pty.slave)?;
    nothing("master", &pty.master)
}

fn packet_mode(v: &Victim) -> Result<()> {
    let pty = raw()?;
    ioctl(&pty.master, libc::TIOCPKT, &mut 1i32)?;
    write(&pty.slave, b"data")?;
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::tcflow(pty.slave.as_raw_fd(), libc::TCOOFF) })?;
    v.stand()?;
    let mut packet = [0; 100];
    let n = read(&pty.master, &mut packet)?;
    same("control byte", &[TIOCPKT_STOP as u8][..], &packet[..n])?;
    let n = read(&pty.master, &mut packet)?;
    same("data", &b"\0data"[..], &packet[..n])?;
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::tcflow(pty.slave.as_raw_fd(), libc::TCOON) })?;
    let n = read(&pty.master, &mut packet)?;
    same("control byte", &[TIOCPKT_START as u8][..], &packet[..n])
}

/// Ctrl-S stands through the restart, and Ctrl-Q lets the output go on.
fn stopped_output(v: &Victim) -> Result<()> {
    let pty = new()?;
    write(&pty.master, b"\x13")?;
    fcntl(&pty.slave, libc::F_SETFL, O_NONBLOCK | O_RDWR)?;
    // What is written before it stops arrives later.
    let mut got = 0;
    ensure!(
        sys::until(Duration::from_secs(5), || {
            let written = write(&pty.slave, b"more");
            got += *written.as_ref().unwrap_or(&0) as i32;
            sys::fails_with(written, libc::EAGAIN)
        }),
        "it does not stop"
    );
    ensure!(
        sys::until(Duration::from_secs(5), || {
            available(&pty.master).is_ok_and(|there| there == got)
        }),
        "what was written does not arrive"
    );
    v.stand()?;
    same("what came before", got, available(&pty.master)?)?;
    ensure!(
        sys::fails_with(write(&pty.slave, b"x"), libc::EAGAIN),
        "it goes on by itself"
    );
    write(&pty.master, b"\x11")?;
    ensure!(
        sys::until(Duration::from_secs(5), || write(&pty.slave, b"x").is_ok()),
        "it does not go on"
    );
    Ok(())
}

fn slave_closed(v: &Victim) -> Result<()> {
    let pty = raw()?;
    write(&pty.slave, b"last words")?;
    drop(pty.slave);
    v.stand()?;
    expect("master", &pty.master, b"last words")?;
    ensure!(
        sys::fails_with(read(&pty.master, &mut [0]), libc::EIO),
        "it is not closed"
    );
    let slave = open(&pty.path, O_RDWR | O_NOCTTY)?;
    write(&pty.master, b"again")?;
    expect("slave", &slave, b"again")
}

fn never_opened(v: &Victim) -> Result<()> {
    let (master, path) = new_master()?;
    fcntl(&master, libc::F_SETFL, O_NONBLOCK | O_RDWR)?;
    ioctl(&master, libc::TIOCSPTLCK, &mut 1i32)?;
    v.stand()?;
    ensure!(
        sys::fails_with(read(&master, &mut [0]), libc::EAGAIN),
        "it is closed"
    );
    ensure!(
        sys::fails_with(open(&path, O_RDWR | O_NOCTTY), libc::EIO),
        "it is not locked"
    );
    ioctl(&master, libc::TIOCSPTLCK, &mut 0i32)?;
    open(&path, O_RDWR | O_NOCTTY)?;
    Ok(())
}

/// The slave is dead, and stays so.
fn master_closed(v: &Victim) -> Result<()> {
    let pty = new()?;
    drop(pty.master);
    same("read before", 0, read(&pty.slave, &mut [0])?)?;
    v.stand()?;
    same("read", 0, read(&pty.slave, &mut [0])?)?;
    ensure!(
        sys::fails_with(write(&pty.slave, b"x"), libc::EIO),
        "it lives"
    );
    ensure!(!pty.path.exists(), "there is a node");
    Ok(())
}

fn flags_and_names(v: &Victim) -> Result<()> {
    let pty = new()?;
    let other = open(&pty.path, libc::O_RDONLY | O_NOCTTY | O_NONBLOCK)?;
    fcntl(&pty.master, libc::F_SETFL, O_NONBLOCK | O_RDWR)?;
    ioctl(&pty.slave, libc::TIOCEXCL, &mut 0i32)?;
    let all = || -> Result<_> {
        let of = |fd: &OwnedFd| -> Result<_> {
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            let m = fs::metadata(&link)?;
            Ok((
                fcntl(fd, libc::F_GETFL, 0)?,
                fs::read_link(&link)?,
                m.rdev(),
            ))
        };
        let mut exclusive = 0i32;
        ioctl(&pty.slave, libc::TIOCGEXCL, &mut exclusive)?;
        Ok((
            of(&pty.master)?,
            of(&pty.slave)?,
            of(&other)?,
            exclusive,
            number(&pty.master)?,
        ))
    };
    let before = all()?;
    v.stand()?;
    same("flags, names, number", before, all()?)
}

fn several(v: &Victim) -> Result<()> {
    let all = (0..6).map(|_| raw()).collect::<Result<Vec<_>>>()?;
    for (i, pty) in all.iter().enumerate() {
        write(&pty.slave, format!("output of {i}").as_bytes())?;
    }
    v.stand()?;
    for (i, pty) in all.iter().enumerate() {
        expect("master", &pty.master, format!("output of {i}").as_bytes())?;
        same(
            "path",
            pty.path.clone(),
            PathBuf::from(format!("/dev/pts/{}", number(&pty.master)?)),
        )?;
    }
    Ok(())
}

/// A child that leads a session with the slave as its terminal, and runs `act` there.
fn session(pty: &Pty, act: impl FnOnce() -> Result<()>) -> Result<Process> {
    let _numbers = NumbersThatFollow::choose();
    Process::fork(|| {
        let run = || -> Result<()> {
            // SAFETY: no memory is involved.
            unsafe {
                cvt(libc::setsid())?;
                cvt(libc::ioctl(pty.slave.as_raw_fd(), libc::TIOCSCTTY, 0))?;
            }
            act()
        };
        match run() {
            Ok(()) => 0,
            Err(e) => {
                let _ = fs::write("/dev/kmsg", format!("pty: {e:#}\n"));
                1
            }
        }
    })
}

/// Session, foreground group, and /dev/tty, opened before and after.
fn controlling(v: &Victim) -> Result<()> {
    let pty = raw()?;
    let set = v.path("set");
    let mut child = session(&pty, || {
        let before = open(Path::new("/dev/tty"), O_RDWR)?;
        // SAFETY: no memory is involved.
        let (session, group) = unsafe {
            (
                libc::tcgetsid(before.as_raw_fd()),
                libc::tcgetpgrp(before.as_raw_fd()),
            )
        };
        same("session", sys::getpid(), session)?;
        same("group", sys::getpid(), group)?;
        fs::write(&set, "")?;
        v.wait();
        // SAFETY: as above.
        let now = unsafe {
            (
                libc::tcgetsid(before.as_raw_fd()),
                libc::tcgetpgrp(before.as_raw_fd()),
            )
        };
        same("session and group", (session, group), now)?;
        let link = fs::read_link(format!("/proc/self/fd/{}", before.as_raw_fd()))?;
        same("name", Path::new("/dev/tty"), link.as_path())?;
        write(&before, b"before ")?;
        write(&open(Path::new("/dev/tty"), O_RDWR)?, b"after")?;
        Ok(())
    })?;
    ensure!(
        sys::until(Duration::from_secs(10), || set.exists()),
        "no session"
    );
    v.stand()?;
    expect("master", &pty.master, b"before after")?;
    ensure!(
        child.wait(Duration::from_secs(20))?.success(),
        "the child failed"
    );
    Ok(())
}

extern "C" fn note(signal: i32) {
    // SAFETY: the descriptor is that of the terminal; the bytes are valid.
    unsafe {
        let text = [b'0' + signal as u8];
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), 1);
    }
}

/// Ctrl-C after the restart reaches the foreground group, and the end of the terminal the session.
fn interrupt(v: &Victim) -> Result<()> {
    let pty = new()?;
    let set = v.path("set");
    let mut child = session(&pty, || {
        sys::handle(libc::SIGINT, note, 0)?;
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::dup2(pty.slave.as_raw_fd(), libc::STDERR_FILENO) })?;
        // SAFETY: no memory is involved; this copy of the master must not keep the pty.
        unsafe { libc::close(pty.master.as_raw_fd()) };
        fs::write(&set, "")?;
        loop {
            sys::nap(Duration::from_secs(1));
        }
    })?;
    ensure!(
        sys::until(Duration::from_secs(10), || set.exists()),
        "no session"
    );
    v.stand()?;
    write(&pty.master, b"\x03")?;
    // The echo of Ctrl-C, and what the handler wrote.
    let mut got = Vec::new();
    sys::until(Duration::from_secs(5), || {
        let mut buf = [0; 100];
        if available(&pty.master).is_ok_and(|n| n > 0) {
            let n = read(&pty.master, &mut buf).unwrap_or(0);
            got.extend_from_slice(&buf[..n]);
        }
        got.contains(&b'2') && got.starts_with(b"^C")
    });
    ensure!(got.contains(&b'2'), "no signal: {got:?}");
    drop(pty);
    let status = child.wait(Duration::from_secs(10))?;
    use std::os::unix::process::ExitStatusExt;
    same("signal of the end", Some(libc::SIGHUP), status.signal())
}

/// A read that waits for input goes on waiting.
fn blocked_reader(v: &Victim) -> Result<()> {
    let pty = new()?;
    let mut child = session(&pty, || {
        let mut line = [0; 100];
        let n = read(&pty.slave, &mut line)?;
        ensure!(v.told(), "input came too early");
        same("line", &b"hello\n"[..], &line[..n])
    })?;
    sys::nap(Duration::from_millis(50));
    v.stand()?;
    write(&pty.master, b"hello\n")?;
    ensure!(
        child.wait(Duration::from_secs(20))?.success(),
        "the child failed"
    );
    Ok(())
}

fn discipline(v: &Victim) -> Result<()> {
    let pty = new()?;
    let mut number = 0i32;
    // N_NULL, which every kernel has.
    if ioctl(&pty.slave, libc::TIOCSETD, &mut 27i32).is_err() {
        return skip("no other line discipline");
    }
    v.ready_fd(pty.slave.as_raw_fd())?;
    v.wait();
    ioctl(&pty.slave, libc::TIOCGETD, &mut number)?;
    same("discipline", 27, number)
}

/// A terminal of the BSD kind.
fn legacy(v: &Victim) -> Result<()> {
    let Ok(master) = open(Path::new("/dev/ptyp0"), O_RDWR | O_NOCTTY) else {
        return skip("no BSD terminals");
    };
    v.ready_fd(master.as_raw_fd())?;
    v.wait();
    Ok(())
}

/// Serves the terminal of a child's session, and has the slave of another pty open beside the child.
fn serves_outside(v: &Victim) -> Result<()> {
    let (served, shared) = (new()?, new()?);
    let child = session(&served, || {
        // SAFETY: the child does not use them any more.
        unsafe {
            cvt(libc::close(served.master.as_raw_fd()))?;
            cvt(libc::close(served.slave.as_raw_fd()))?;
        }
        loop {
            sys::nap(Duration::from_secs(1));
        }
    })?;
    let _again = open(&shared.path, O_RDWR | O_NOCTTY)?;
    // SAFETY: no memory is involved.
    let session = || unsafe { libc::tcgetsid(served.master.as_raw_fd()) };
    ensure!(
        sys::until(Duration::from_secs(10), || session() == child.pid),
        "the terminal has no session"
    );
    fs::write(v.path("child"), child.pid.to_string())?;
    v.stand()?;
    same("session", child.pid, session())
}

/// Terminals that are served or used from outside the tree are refused.
fn served_outside(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("serves-outside")?;
    let child = fs::read_to_string(b.path("child"))?;
    b.refuses(
        child.parse()?,
        &[
            "controlling terminal outside the tree",
            "open outside the tree, too",
        ],
    )?;
    life.passes()
}
