// SPDX-License-Identifier: GPL-2.0

//! Epoll instances: what they watch, and what of it is ready.

use libc::{
    EPOLLERR,
    EPOLLET,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLONESHOT,
    EPOLLOUT,
    EPOLLPRI,
    EPOLLRDHUP,
    EPOLLWAKEUP, //
};
use selftests::epoll::{
    count,
    counted,
    counter,
    Epoll, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fails_with,
    read,
    write, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd, //
};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("level", level),
        Case::new("edge-told", edge_told),
        Case::new("edge-not-told", edge_not_told),
        Case::new("order", order),
        Case::new("oneshot", oneshot),
        Case::new("masks", masks),
        Case::new("number-closed", number_closed),
        Case::new("number-reused", number_reused),
        Case::new("nested", nested),
        Case::new("nested-deep", nested_deep),
        Case::new("shared", shared),
        Case::new("waiting", waiting),
        Case::new("pipe-ends", pipe_ends),
        Case::new("many", many),
    ],
    customs: &[
        Custom {
            name: "not-open-in-the-tree",
            run: not_open_in_the_tree,
        },
        Custom {
            name: "hundred-thousand",
            run: hundred_thousand,
        },
    ],
    victims: &[
        Case::new("watches-outside", watches_outside).no_control(),
        Case::new("ten-thousand-files", |v| many_files(v, 10_000)).no_control(),
        Case::new("hundred-thousand-files", |v| many_files(v, 100_000)).no_control(),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("epoll")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// Requires that nothing is ready.
fn quiet(what: &str, ep: &Epoll) -> Result<()> {
    same(what, Vec::<u64>::new(), ep.ready()?)
}

/// What is ready is told each time, before and after.
fn level(v: &Victim) -> Result<()> {
    let (r, w) = sys::pipe(libc::O_CLOEXEC)?;
    let ep = Epoll::new()?;
    ep.add(&r, EPOLLIN, 7)?;
    write(&w, b"x")?;
    same("events", vec![(EPOLLIN, 7)], ep.wait(9, 0)?)?;
    v.stand()?;
    same("events afterwards", vec![(EPOLLIN, 7)], ep.wait(9, 0)?)?;
    same("events again", vec![(EPOLLIN, 7)], ep.wait(9, 0)?)?;
    read(&r, &mut [0; 9])?;
    quiet("events of an empty pipe", &ep)?;
    write(&w, b"y")?;
    same("events of a write", vec![(EPOLLIN, 7)], ep.wait(9, 1000)?)
}

/// An edge that was told is not told again; the next one is.
fn edge_told(v: &Victim) -> Result<()> {
    let fd = counter(1, 0)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN | EPOLLET, 1)?;
    same("events", vec![1], ep.ready()?)?;
    v.stand()?;
    quiet("events that were told", &ep)?;
    count(&fd, 1)?;
    same("events of a write", vec![1], ep.ready()?)?;
    same("count", 2, counted(&fd)?)
}

/// An edge that was not told is told, once.
fn edge_not_told(v: &Victim) -> Result<()> {
    let fd = counter(0, 0)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN | EPOLLET, 1)?;
    count(&fd, 1)?;
    v.stand()?;
    same("events", vec![1], ep.ready()?)?;
    quiet("events again", &ep)
}

/// Events come in the order in which they happened.
fn order(v: &Victim) -> Result<()> {
    let fds = (0..6)
        .map(|_| counter(0, 0))
        .collect::<std::io::Result<Vec<_>>>()?;
    let ep = Epoll::new()?;
    for (fd, data) in fds.iter().zip(0..) {
        ep.add(fd, EPOLLIN | EPOLLET, data)?;
    }
    for at in [4, 1, 5, 0] {
        count(&fds[at], 1)?;
    }
    v.stand()?;
    same(
        "first events",
        vec![(EPOLLIN, 4), (EPOLLIN, 1)],
        ep.wait(2, 0)?,
    )?;
    count(&fds[2], 1)?;
    same("other events", vec![5, 0, 2], ep.ready()?)
}

/// One that has told its event is quiet until it is armed again; one that has not tells it.
fn oneshot(v: &Victim) -> Result<()> {
    let told = counter(1, 0)?;
    let armed = counter(0, 0)?;
    let both = EPOLLIN | EPOLLONESHOT;
    let ep = Epoll::new()?;
    ep.add(&told, both, 1)?;
    ep.add(&armed, both | EPOLLET, 2)?;
    same("events", vec![1], ep.ready()?)?;
    let before = ep.watched()?;
    v.stand()?;
    same("watched", before, ep.watched()?)?;
    count(&told, 1)?;
    quiet("events of the one that has told", &ep)?;
    count(&armed, 1)?;
    same("events of the one that is armed", vec![2], ep.ready()?)?;
    count(&armed, 1)?;
    quiet("events of it again", &ep)?;
    ep.modify(&told, both, 3)?;
    same("events of the one armed again", vec![3], ep.ready()?)
}

/// Masks and data, as the kernel shows them and as they act.
fn masks(v: &Victim) -> Result<()> {
    let fd = counter(1, 0)?;
    let ep = Epoll::new()?;
    let all = [
        (EPOLLIN, 0),
        (EPOLLOUT | EPOLLRDHUP | EPOLLPRI, u64::MAX),
        (EPOLLIN | EPOLLET | EPOLLEXCLUSIVE, 0x0123_4567_89ab_cdef),
        (EPOLLIN | EPOLLWAKEUP, 3),
        (EPOLLERR | EPOLLHUP, 4),
    ];
    let fds = all
        .iter()
        .map(|(events, data)| {
            let other = fd.try_clone()?;
            ep.add(&other, *events, *data)?;
            Ok(other)
        })
        .collect::<Result<Vec<_>>>()?;
    let before = ep.watched()?;
    same("number of them", all.len(), before.len())?;
    v.stand()?;
    same("watched", before, ep.watched()?)?;
    let mut ready = ep.ready()?;
    ready.sort_unstable();
    same("events", vec![0, 3, 0x0123_4567_89ab_cdef, u64::MAX], ready)?;
    for fd in &fds {
        ep.remove(fd)?;
    }
    same("watched in the end", 0, ep.watched()?.len())
}

/// A descriptor that is closed while the file is open elsewhere stays watched.
fn number_closed(v: &Victim) -> Result<()> {
    let fd = counter(0, 0)?;
    let other = fd.try_clone()?;
    let number = fd.as_raw_fd();
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN, 5)?;
    drop(fd);
    let before = ep.watched()?;
    same("number", number, before[0].fd)?;
    v.stand()?;
    same("watched", before, ep.watched()?)?;
    count(&other, 1)?;
    same("events", vec![5], ep.ready()?)?;
    drop(other);
    same("watched when all are closed", 0, ep.watched()?.len())
}

/// One number stands for two files, of which it is one's no more.
fn number_reused(v: &Victim) -> Result<()> {
    let first = counter(0, 0)?;
    let second = counter(0, 0)?;
    let kept = first.try_clone()?;
    let number = first.as_raw_fd();
    let ep = Epoll::new()?;
    ep.add(&first, EPOLLIN, 1)?;
    // SAFETY: both are open, and `first` stays the owner of the number.
    cvt(unsafe { libc::dup3(second.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    ep.add(&first, EPOLLIN, 2)?;
    let before = ep.watched()?;
    v.stand()?;
    same("watched", before, ep.watched()?)?;
    count(&kept, 1)?;
    same("events of the first", vec![1], ep.ready()?)?;
    counted(&kept)?;
    count(&second, 1)?;
    same("events of the second", vec![2], ep.ready()?)?;
    ep.remove(&first)?;
    count(&kept, 1)?;
    same("events after a removal", vec![1], ep.ready()?)
}

/// An instance that watches another.
fn nested(v: &Victim) -> Result<()> {
    let (told, waits) = (counter(1, 0)?, counter(0, 0)?);
    let inner = Epoll::new()?;
    let outer = Epoll::new()?;
    // The outer one is saved first, the inner one has a higher number.
    outer.add(&inner, EPOLLIN | EPOLLET, 10)?;
    inner.add(&told, EPOLLIN | EPOLLET, 1)?;
    inner.add(&waits, EPOLLIN, 2)?;
    same("events of the outer", vec![10], outer.ready()?)?;
    same("events of the inner", vec![1], inner.ready()?)?;
    v.stand()?;
    quiet("events that were told", &outer)?;
    quiet("inner events that were told", &inner)?;
    count(&waits, 1)?;
    same("events of the outer", vec![10], outer.ready()?)?;
    same("events of the inner", vec![2], inner.ready()?)
}

/// As deep as it goes, and no deeper afterwards.
fn nested_deep(v: &Victim) -> Result<()> {
    let fd = counter(0, 0)?;
    let chain = (0..5)
        .map(|_| Epoll::new())
        .collect::<std::io::Result<Vec<_>>>()?;
    for pair in chain.windows(2) {
        pair[0].add(&pair[1], EPOLLIN, 1)?;
    }
    chain[4].add(&fd, EPOLLIN, 2)?;
    v.stand()?;
    let more = Epoll::new()?;
    ensure!(
        fails_with(more.add(&chain[0], EPOLLIN, 0), libc::ELOOP),
        "there is room for a deeper one"
    );
    ensure!(
        fails_with(chain[4].add(&chain[0], EPOLLIN, 0), libc::ELOOP),
        "there is room for a circle"
    );
    quiet("events", &chain[0])?;
    count(&fd, 1)?;
    same("events of the first", vec![1], chain[0].ready()?)?;
    same("events of the last", vec![2], chain[4].ready()?)
}

/// One instance of two processes stays one.
fn shared(v: &Victim) -> Result<()> {
    let (first, second) = (counter(0, 0)?, counter(0, 0)?);
    let ep = Epoll::new()?;
    ep.add(&first, EPOLLIN, 1)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        i32::from(ep.add(&second, EPOLLIN, 2).is_err())
    })?;
    drop(numbers);
    v.stand()?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child cannot add");
    count(&second, 1)?;
    same("events of what the child added", vec![2], ep.ready()?)
}

/// Who waits in epoll_wait(2) is told; EINTR may come first, as after SIGSTOP and SIGCONT.
fn waiting(v: &Victim) -> Result<()> {
    let fd = counter(0, 0)?;
    let ep = Epoll::new()?;
    ep.add(&fd, EPOLLIN, 1)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| loop {
        match ep.wait(9, 60_000) {
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            other => break i32::from(!other.is_ok_and(|events| events == [(EPOLLIN, 1)])),
        }
    })?;
    drop(numbers);
    v.stand()?;
    ensure!(child.ended()?.is_none(), "the child does not wait");
    count(&fd, 1)?;
    let status = child.wait(Duration::from_secs(10))?;
    ensure!(status.success(), "the child was told something else");
    Ok(())
}

/// Both ends of a pipe, and what closing one of them tells.
fn pipe_ends(v: &Victim) -> Result<()> {
    let (r, w) = sys::pipe(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    let ep = Epoll::new()?;
    ep.add(&r, EPOLLIN | EPOLLET, 1)?;
    ep.add(&w, EPOLLOUT | EPOLLET, 2)?;
    same("events", vec![2], ep.ready()?)?;
    write(&w, b"hello")?;
    v.stand()?;
    same("events of the data", vec![(EPOLLIN, 1)], ep.wait(9, 0)?)?;
    drop(w);
    same(
        "events of the end",
        vec![(EPOLLIN | EPOLLHUP, 1)],
        ep.wait(9, 0)?,
    )?;
    same("data", 5, read(&r, &mut [0; 9])?)
}

/// More than one record has room for: each of several files under each of many numbers.
fn many(v: &Victim) -> Result<()> {
    let fds = (0..10)
        .map(|_| counter(0, 0))
        .collect::<std::io::Result<Vec<_>>>()?;
    let ep = Epoll::new()?;
    for fd in &fds {
        for number in 100..1000 {
            // SAFETY: nobody else has these numbers.
            let other = unsafe {
                cvt(libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC))?;
                OwnedFd::from_raw_fd(number)
            };
            ep.add(&other, EPOLLIN, fd.as_raw_fd() as u64)?;
        }
    }
    let before = ep.watched()?;
    same("number of them", 9000, before.len())?;
    v.stand()?;
    same("watched", before, ep.watched()?)?;
    count(&fds[3], 1)?;
    let ready = ep.wait(1000, 0)?;
    same("number of events", 900, ready.len())?;
    let data = fds[3].as_raw_fd() as u64;
    ensure!(
        ready.iter().all(|event| *event == (EPOLLIN, data)),
        "events of another file"
    );
    Ok(())
}

fn watches_outside(v: &Victim) -> Result<()> {
    let ep = Epoll::new()?;
    // SAFETY: the runner put an eventfd there.
    let fd = unsafe { OwnedFd::from_raw_fd(5) };
    ep.add(&fd, EPOLLIN, 1)?;
    drop(fd);
    v.ready_fd(ep.as_raw_fd())?;
    v.wait();
    same("events", vec![1], ep.ready()?)
}

/// What only others than the tree have open cannot come back.
fn not_open_in_the_tree(b: &Bench<'_>) -> Result<()> {
    let event = counter(1, 0)?;
    let mut command = b.command(b.case("watches-outside")?)?;
    let fd = event.as_raw_fd();
    // SAFETY: dup2 is async-signal-safe, and nobody in the child has number 5 in use.
    unsafe {
        command.pre_exec(move || cvt(libc::dup2(fd, 5)).map(drop));
    }
    let mut life = b.start_with("watches-outside", command)?;
    b.refuses(life.pid, &["epoll", "does not have open"])?;
    life.passes()
}

/// So many files, all of which one instance watches.
fn many_files(v: &Victim, number: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: number + 100,
        rlim_max: number + 100,
    };
    // SAFETY: the limit is valid.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return skip("so many files may not be open");
    }
    let ep = Epoll::new()?;
    let fds = (0..number)
        .map(|data| {
            let fd = counter(0, 0)?;
            ep.add(&fd, EPOLLIN, data)?;
            Ok(fd)
        })
        .collect::<Result<Vec<_>>>()?;
    v.stand()?;
    for (fd, data) in fds.iter().zip(0..).step_by(997) {
        ensure!(fd.as_raw_fd() > 2, "it is another descriptor now");
        count(fd, 1)?;
        same("events", vec![data], ep.ready()?)?;
        same("count", 1, counted(fd)?)?;
    }
    // Closing that many takes its time, and is not the matter here.
    std::mem::forget(fds);
    Ok(())
}

/// Ten times as many take about ten times as long.
fn hundred_thousand(b: &Bench<'_>) -> Result<()> {
    if sys::has_kasan()? {
        return skip("it takes minutes to open so many files with KASAN");
    }
    let mut took = Vec::new();
    for name in ["ten-thousand-files", "hundred-thousand-files"] {
        let mut life = b.start(name)?;
        let image = b.path("image");
        let begin = Instant::now();
        life.checkpoint_and_kill(&image)?;
        let middle = Instant::now();
        life.restart_detached(&image, &[])?;
        took.push((middle - begin, middle.elapsed()));
        life.passes()?;
        b.forget()?;
        std::fs::remove_file(b.path("ready"))?;
    }
    // What a process costs in itself makes it less, a cache that is too small more.
    let slow = |few: Duration, many: Duration| many > few * 30;
    let (few, many) = (took[0], took[1]);
    ensure!(
        !slow(few.0, many.0) && !slow(few.1, many.1),
        "checkpoint and restart of 10000 took {few:?}, of 100000 {many:?}"
    );
    println!("# 10000 files and items: {few:?}, 100000: {many:?}");
    Ok(())
}
