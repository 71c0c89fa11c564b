// SPDX-License-Identifier: GPL-2.0

//! Data that is on its way, and locks that go from hand to hand, while the tree is checkpointed over
//! and over: every byte arrives once and in order, and no lock is held twice.

use libc::{
    SOCK_DGRAM,
    SOCK_SEQPACKET,
    SOCK_STREAM, //
};
use selftests::epoll::Epoll;
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    errno,
    open,
    owned,
    pipe,
    read,
    write, //
};
use selftests::unix;
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs::{
    self,
    File,
    OpenOptions, //
};
use std::io;
use std::mem;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "data",
            run: |b| b.over_and_over("all-data"),
        },
        Custom {
            name: "locks",
            run: |b| b.over_and_over("all-locks"),
        },
    ],
    victims: &[
        Case::new("all-data", all_data),
        Case::new("all-locks", all_locks),
    ],
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
    let (master, slave) = pty()?;
    let copies = (master.try_clone()?, slave.try_clone()?);
    add("typed", (slave, master), 60, false);
    add("displayed", copies, 90, false);
    Ok(list)
}

/// A terminal that passes bytes on as they are.
fn pty() -> Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: no memory is involved, then the descriptor is a master, then the settings are valid.
    unsafe {
        let master = owned(libc::posix_openpt(flags))?;
        cvt(libc::unlockpt(master.as_raw_fd()))?;
        let slave = owned(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags))?;
        let mut settings = mem::zeroed();
        cvt(libc::tcgetattr(slave.as_raw_fd(), &mut settings))?;
        libc::cfmakeraw(&mut settings);
        cvt(libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &settings))?;
        Ok((master, slave))
    }
}

/// Channels with somebody in the middle, who passes on what comes.
struct Relay {
    from: OwnedFd,
    to: OwnedFd,
    bytes: Vec<u8>,
    /// The end has come.
    last: bool,
}

impl Relay {
    const ROOM: usize = 5000;

    /// The relay between two channels, and the channel as those at its ends see it.
    fn between(
        name: &'static str,
        (from, writer): (OwnedFd, OwnedFd),
        (reader, to): (OwnedFd, OwnedFd),
        piece: usize,
    ) -> Result<(Self, Channel)> {
        for fd in [&from, &to] {
            sys::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK)?;
        }
        let relay = Self {
            from,
            to,
            bytes: Vec::new(),
            last: false,
        };
        let channel = Channel {
            name,
            reader,
            writer,
            piece,
            whole: false,
        };
        Ok((relay, channel))
    }

    /// Passes on what can be passed on now.
    fn pass_on(&mut self) -> io::Result<()> {
        loop {
            let had = self.bytes.len();
            self.bytes.resize(Self::ROOM, 0);
            let came = read(&self.from, &mut self.bytes[had..]);
            self.bytes.truncate(had + came.as_ref().map_or(0, |n| *n));
            self.last |= self.bytes.ends_with(&END.to_ne_bytes());
            let went = write(&self.to, &self.bytes);
            self.bytes.drain(..went.as_ref().map_or(0, |n| *n));
            match (came, went) {
                (Ok(_), Ok(_)) => {}
                (Err(e), _) | (_, Err(e)) if e.raw_os_error() != Some(libc::EAGAIN) => {
                    return Err(e);
                }
                // It goes on when one of both is ready again.
                (_, Err(_)) => return Ok(()),
                (Err(_), _) if self.bytes.is_empty() => return Ok(()),
                (Err(_), _) => {}
            }
        }
    }
}

fn relays() -> Result<(Vec<Relay>, Vec<Channel>)> {
    let made = [
        Relay::between(
            "relayed pipe",
            pipe(libc::O_CLOEXEC)?,
            unix::pair(SOCK_STREAM)?,
            200,
        )?,
        Relay::between(
            "relayed stream",
            unix::pair(SOCK_STREAM)?,
            pipe(libc::O_CLOEXEC)?,
            500,
        )?,
    ];
    Ok(made.into_iter().unzip())
}

/// A loop that serves all relays, told by edges. Returns what an exit status says.
fn relay(relays: &mut [Relay]) -> i32 {
    let watch = || {
        let epoll = Epoll::new()?;
        for (data, relay) in (0..).zip(&*relays) {
            epoll.add(&relay.from, libc::EPOLLIN | libc::EPOLLET, data)?;
            epoll.add(&relay.to, libc::EPOLLOUT | libc::EPOLLET, data)?;
        }
        io::Result::Ok(epoll)
    };
    let Ok(epoll) = watch() else {
        return 6;
    };
    while relays.iter().any(|r| !r.last || !r.bytes.is_empty()) {
        match epoll.wait(8, -1) {
            Ok(events) => {
                for (_, data) in events {
                    if relays[data as usize].pass_on().is_err() {
                        return 7;
                    }
                }
            }
            // As after SIGSTOP and SIGCONT.
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return 8,
        }
    }
    0
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

/// Two processes for each channel, and one for those who relay.
fn all_data(v: &Victim) -> Result<()> {
    let mut channels = channels(v)?;
    let (mut relays, relayed) = relays()?;
    channels.extend(relayed);
    // They are always busy, and the tools have to get something done as well.
    // SAFETY: no memory is involved.
    unsafe { libc::nice(19) };
    let numbers = NumbersThatFollow::choose();
    let mut children = vec![("relays", "loop", Process::fork(|| relay(&mut relays))?)];
    for channel in &channels {
        children.push((channel.name, "writer", Process::fork(|| send(v, channel))?));
        children.push((channel.name, "reader", Process::fork(|| receive(channel))?));
    }
    drop((numbers, channels, relays));
    v.stand()?;
    all_end_well(children)
}

fn all_end_well(children: Vec<(&str, &str, Process)>) -> Result<()> {
    for (name, role, mut child) in children {
        let status = child
            .wait(Duration::from_secs(30))
            .with_context(|| format!("{name}: {role}"))?;
        ensure!(status.success(), "{name}: the {role} ended with {status}");
    }
    Ok(())
}

/// A way to lock a file.
type Lock = fn(&File, held: bool) -> io::Result<()>;

const LOCKS: &[(&str, Lock)] = &[
    ("POSIX", |file, held| set_lock(file, libc::F_SETLKW, held)),
    ("OFD", |file, held| set_lock(file, libc::F_OFD_SETLKW, held)),
    ("flock", |file, held| {
        let how = if held { libc::LOCK_EX } else { libc::LOCK_UN };
        // SAFETY: no memory is involved.
        cvt(unsafe { libc::flock(file.as_raw_fd(), how) }).map(drop)
    }),
];

fn set_lock(file: &File, cmd: libc::c_int, held: bool) -> io::Result<()> {
    // SAFETY: all zeroes is a flock, which is valid for the call.
    unsafe {
        let mut lock: libc::flock = mem::zeroed();
        lock.l_type = (if held { libc::F_WRLCK } else { libc::F_UNLCK }) as libc::c_short;
        cvt(libc::fcntl(file.as_raw_fd(), cmd, &lock)).map(drop)
    }
}

/// How many take turns with each lock.
const HANDS: u64 = 3;

/// Takes the lock over and over until it is told. The file says who has it, how often it was taken,
/// and how often by each. Returns what an exit status says.
fn take_turns(v: &Victim, file: &File, lock: Lock, me: u64) -> i32 {
    let get = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at * 8)
            .map(|()| u64::from_ne_bytes(bytes))
    };
    let set = |at: u64, value: u64| file.write_all_at(&value.to_ne_bytes(), at * 8);
    let turn = |mine: u64| -> io::Result<bool> {
        lock(file, true)?;
        let (holder, turns) = (get(0)?, get(1)?);
        set(0, me)?;
        set(1, turns + 1)?;
        sys::nap(Duration::from_micros(200));
        let good = holder == 0 && (get(0)?, get(1)?, get(1 + me)?) == (me, turns + 1, mine);
        set(1 + me, mine + 1)?;
        set(0, 0)?;
        lock(file, false)?;
        Ok(good)
    };
    let mut mine = 0;
    while mine == 0 || !v.told() {
        match turn(mine) {
            Ok(true) => mine += 1,
            Ok(false) => return 5,
            Err(_) => return 3,
        }
    }
    0
}

/// Some processes for each kind of lock.
fn all_locks(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut children = Vec::new();
    for (name, lock) in LOCKS {
        let path = v.path(name);
        fs::write(&path, [0; 8 * (HANDS as usize + 2)])?;
        for me in 1..=HANDS {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let child = Process::fork(|| take_turns(v, &file, *lock, me))?;
            children.push((*name, "holder", child));
        }
    }
    drop(numbers);
    v.stand()?;
    all_end_well(children)?;
    for (name, _) in LOCKS {
        let bytes = fs::read(v.path(name))?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
            .collect();
        let sum = words[2..].iter().sum();
        same(name, (0, sum), (words[0], words[1]))?;
        ensure!(!words[2..].contains(&0), "{name}: one never had it");
    }
    Ok(())
}
