// SPDX-License-Identifier: GPL-2.0

//! CPU time and resource usage go on, and the start stays what it was.

use selftests::prelude::*;
use selftests::sys::{
    burn,
    clock,
    cvt,
    getpid,
    gettid,
    Area, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::mem;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("own", own),
        Case::new("children", children),
        Case::new("threads", threads),
        Case::new("io", io),
        Case::new("start", start),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("rusage")
};

fn main() -> ExitCode {
    SUITE.main()
}

const BURNT: Duration = Duration::from_millis(40);

/// What getrusage(2) says, as numbers that never go back.
fn usage(who: libc::c_int) -> Result<[i64; 9]> {
    // SAFETY: all zeroes is an rusage, valid for writing.
    let now = unsafe {
        let mut now: libc::rusage = mem::zeroed();
        cvt(libc::getrusage(who, &mut now))?;
        now
    };
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    Ok([
        micros(now.ru_utime),
        micros(now.ru_stime),
        now.ru_maxrss,
        now.ru_minflt,
        now.ru_majflt,
        now.ru_inblock,
        now.ru_oublock,
        now.ru_nvcsw,
        now.ru_nivcsw,
    ])
}

/// Names of those numbers, and how far each may go on while a victim stands and checks.
const NUMBERS: [(&str, i64); 9] = [
    ("user time", 5_000_000),
    ("system time", 5_000_000),
    ("memory", 100_000),
    ("minor faults", 3_000),
    ("major faults", 3_000),
    ("blocks read", 100_000),
    ("blocks written", 100_000),
    ("voluntary switches", 10_000),
    ("other switches", 10_000),
];

fn went_on(whose: &str, before: &[i64; 9], now: &[i64; 9]) -> Result<()> {
    for (((name, most), before), now) in NUMBERS.iter().zip(before).zip(now) {
        ensure!(
            (*before..=before + most).contains(now),
            "{name} of {whose}: was {before}, is {now}"
        );
    }
    Ok(())
}

/// Uses CPU time in user mode and in the kernel, memory, and switches of context.
fn work() -> Result<()> {
    const PAGES: usize = 5000;
    burn(BURNT)?;
    let area = Area::anon(
        PAGES * sys::PAGE,
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE,
    )?;
    area.bytes()
        .iter_mut()
        .step_by(sys::PAGE)
        .for_each(|b| *b = 1);
    // On a busy machine a sleep may be over before it begins.
    while usage(libc::RUSAGE_THREAD)?[7] < 5 {
        sys::nap(Duration::from_millis(2));
    }
    // SAFETY: nobody uses the area.
    cvt(unsafe { libc::munmap(area.addr.cast(), area.len) })?;
    Ok(())
}

fn own(v: &Victim) -> Result<()> {
    work()?;
    let clocks = [
        libc::CLOCK_PROCESS_CPUTIME_ID,
        libc::CLOCK_THREAD_CPUTIME_ID,
    ];
    let before = clocks.map(clock);
    let (process, thread) = (usage(libc::RUSAGE_SELF)?, usage(libc::RUSAGE_THREAD)?);
    ensure!(
        process[3] >= 5000 && process[7] >= 5,
        "what it did was not counted: {process:?}"
    );
    v.stand()?;
    went_on("the process", &process, &usage(libc::RUSAGE_SELF)?)?;
    went_on("the thread", &thread, &usage(libc::RUSAGE_THREAD)?)?;
    for (which, before) in clocks.into_iter().zip(before) {
        let (before, now) = (before?, clock(which)?);
        ensure!(
            before >= BURNT && now >= before && now < before + Duration::from_secs(5),
            "clock {which}: was {before:?}, is {now:?}"
        );
    }
    Ok(())
}

/// User and system time of the children as times(2) has them.
fn children_ticks() -> Result<(i64, i64)> {
    // SAFETY: all zeroes is a tms, valid for writing.
    let times = unsafe {
        let mut times: libc::tms = mem::zeroed();
        cvt(libc::times(&mut times))?;
        times
    };
    Ok((times.tms_cutime, times.tms_cstime))
}

/// Of children that have been waited for nothing changes.
fn children(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| i32::from(work().is_err()))?;
    drop(numbers);
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child failed");
    let before = usage(libc::RUSAGE_CHILDREN)?;
    ensure!(
        before[0] + before[1] > 0 && before[2] > 0,
        "nothing was counted: {before:?}"
    );
    let ticks = children_ticks()?;
    v.stand()?;
    same("usage of children", before, usage(libc::RUSAGE_CHILDREN)?)?;
    same("ticks of children", ticks, children_ticks()?)
}

/// A thread that has ended still counts, and each of the others has numbers of its own.
fn threads(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    thread::spawn(work).join().expect("the thread panicked")?;
    let (go, wait) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let other = thread::spawn(move || -> Result<()> {
        work()?;
        let before = (
            usage(libc::RUSAGE_THREAD)?,
            clock(libc::CLOCK_THREAD_CPUTIME_ID)?,
        );
        tell.send(gettid())?;
        wait.recv()?;
        went_on("the other thread", &before.0, &usage(libc::RUSAGE_THREAD)?)?;
        let now = clock(libc::CLOCK_THREAD_CPUTIME_ID)?;
        ensure!(now >= before.1, "its clock was {:?}, is {now:?}", before.1);
        Ok(())
    });
    told.recv()?;
    drop(numbers);
    let (process, thread) = (usage(libc::RUSAGE_SELF)?, usage(libc::RUSAGE_THREAD)?);
    let time = clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
    ensure!(
        time >= BURNT * 2,
        "only {time:?} of two threads are counted"
    );
    v.stand()?;
    went_on("the process", &process, &usage(libc::RUSAGE_SELF)?)?;
    went_on("the first thread", &thread, &usage(libc::RUSAGE_THREAD)?)?;
    let now = clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
    ensure!(
        now >= time,
        "the clock of the process was {time:?}, is {now:?}"
    );
    go.send(())?;
    other.join().expect("the thread panicked")
}

/// The lines of a file of /proc that consist of a name and a number.
fn counts(path: &str) -> Result<Vec<(String, u64)>> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let counts = text.lines().filter_map(|line| {
        let (name, number) = line.split_once(':')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    });
    Ok(counts.collect())
}

fn io(v: &Victim) -> Result<()> {
    const LEN: usize = 1 << 20;
    if !fs::exists("/proc/self/io")? {
        return skip("this kernel does not count I/O");
    }
    let file = v.path("data");
    fs::write(&file, vec![1; LEN])?;
    fs::read(&file)?;
    let before = counts("/proc/self/io")?;
    let written = before.iter().find(|(name, _)| name == "wchar");
    ensure!(
        written.is_some_and(|(_, count)| *count >= LEN as u64),
        "what it wrote was not counted: {before:?}"
    );
    v.stand()?;
    let now = counts("/proc/self/io")?;
    same("number of lines", before.len(), now.len())?;
    for ((name, before), (_, now)) in before.iter().zip(&now) {
        ensure!(
            (*before..before + LEN as u64 / 4).contains(now),
            "{name}: was {before}, is {now}"
        );
    }
    Ok(())
}

/// Field 22 of /proc/PID/stat.
fn start_time(path: &str) -> Result<u64> {
    let stat = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let start = fields.split(' ').nth(19).context("too few fields")?;
    Ok(start.parse()?)
}

/// Process number and start tell a process from the next that gets its number.
fn start(v: &Victim) -> Result<()> {
    let numbers = NumbersThatFollow::choose();
    // SAFETY: no memory is involved.
    let child = Process::fork(|| unsafe { libc::pause() })?;
    drop(numbers);
    let read = || -> Result<_> {
        Ok([
            start_time("/proc/self/stat")?,
            start_time(&format!("/proc/self/task/{}/stat", getpid()))?,
            start_time(&format!("/proc/{}/stat", child.pid))?,
        ])
    };
    let before = read()?;
    v.stand()?;
    same("start", before, read()?)?;
    let age = clock(libc::CLOCK_BOOTTIME)?.as_millis() as u64 / 10;
    ensure!(
        before.iter().all(|start| *start <= age),
        "{before:?} is later than now, {age}"
    );
    Ok(())
}
