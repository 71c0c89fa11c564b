// SPDX-License-Identifier: GPL-2.0
//! What the kernel takes for the like, as a program gets it by system calls.
//!
//! Each is measured in a process of its own, which has nothing but what is measured.

use crate::victim;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use selftests::sys;
use selftests::sys::Area;
use selftests::sys::PAGE;
use std::arch::x86_64::_mm_crc32_u64;
use std::fs;
use std::fs::File;
use std::hint;
use std::io::Read as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// How much one write(2) or read(2) moves.
const PART: usize = 1 << 20;

/// Times the limit `what` at `size` in processes of their own.
///
/// # Errors
///
/// If it cannot be measured.
pub fn measure(what: &str, size: usize, runs: usize) -> Result<Vec<f64>> {
    let output = Command::new(std::env::current_exe()?)
        .args(["limit", what, &size.to_string(), &runs.to_string()])
        .output()
        .context("bench limit")?;
    if !output.status.success() {
        bail!("limit {what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8(output.stdout)?;
    text.split_whitespace().map(|sample| Ok(sample.parse()?)).collect()
}

/// Measures here and prints the samples, in ns.
///
/// # Errors
///
/// If it cannot be measured.
pub fn run(what: &str, size: &str, runs: &str) -> Result<()> {
    let (size, runs): (usize, usize) = (size.parse()?, runs.parse()?);
    let mut samples = Vec::new();
    let mut measure = |mut once: Box<dyn FnMut() -> Result<Duration>>| -> Result<()> {
        for _ in 0..runs {
            samples.push(once()?.as_nanos());
        }
        Ok(())
    };
    match what {
        "fork" => {
            let memory = victim::memory(size)?;
            measure(Box::new(move || {
                // As the victim's, all of it can be written to; after a fork(2) it cannot be.
                memory.bytes().chunks_exact_mut(PAGE).for_each(|page| page[8] ^= 1);
                fork(false)
            }))?;
        }
        "fork-wait" => {
            victim::memory(size)?;
            measure(Box::new(|| fork(true)))?;
        }
        "fork-vmas" => {
            victim::vmas(size)?;
            measure(Box::new(|| fork(false)))?;
        }
        "mmap-vmas" => measure(Box::new(move || mmap(size)))?,
        "write" => {
            let memory = victim::memory(size)?;
            measure(Box::new(move || write(memory)))?;
        }
        "read" => {
            let memory = victim::memory(size)?;
            measure(Box::new(move || read(memory)))?;
        }
        "crc32c" => {
            let memory = victim::memory(size)?;
            measure(Box::new(move || crc32c(memory)))?;
        }
        "processes" => measure(Box::new(move || processes(size)))?,
        "threads" => measure(Box::new(move || threads(size)))?,
        "stop" => {
            let children: Vec<i32> = (0..size).map(|_| sleeper()).collect::<Result<_>>()?;
            let all = children.clone();
            measure(Box::new(move || stop(&all)))?;
            for pid in children {
                sys::kill(pid, libc::SIGKILL)?;
                wait_for(pid, 0)?;
            }
        }
        "open" => measure(Box::new(move || open(size)))?,
        "syscall" => measure(Box::new(move || Ok(time(|| syscalls(size)))))?,
        "fault" => measure(Box::new(move || faults(size)))?,
        "exec" => measure(Box::new(move || exec(size)))?,
        "switch" => measure(Box::new(move || switch(size)))?,
        "nothing" => {}
        _ => bail!("{what}: no such limit"),
    }
    for sample in samples {
        println!("{sample}");
    }
    Ok(())
}

fn time(work: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}

fn file() -> PathBuf {
    "/tmp/limit".into()
}

/// A child that ends at once; with `wait`, until it has.
fn fork(wait: bool) -> Result<Duration> {
    let begin = Instant::now();
    // SAFETY: the process has one thread; the child ends.
    let pid = sys::cvt(unsafe {
        match libc::fork() {
            0 => libc::_exit(0),
            pid => pid,
        }
    })?;
    let forked = begin.elapsed();
    wait_for(pid, 0)?;
    Ok(if wait { begin.elapsed() } else { forked })
}

fn wait_for(pid: i32, flags: libc::c_int) -> Result<()> {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    ensure!(sys::cvt(unsafe { libc::waitpid(pid, &mut status, flags) })? == pid);
    Ok(())
}

fn write(memory: Area) -> Result<Duration> {
    let begin = Instant::now();
    let mut file_ = File::create_new(file())?;
    for part in memory.bytes().chunks(PART) {
        file_.write_all(part)?;
    }
    let took = begin.elapsed();
    fs::remove_file(file())?;
    Ok(took)
}

/// Each time a file that has just been written, as an image is: the first time that it is read, the kernel moves its
/// pages to the list of active ones.
fn read(memory: Area) -> Result<Duration> {
    fs::write(file(), memory.bytes())?;
    let begin = Instant::now();
    let mut file_ = File::open(file())?;
    let area = Area::anon(memory.len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
    for part in area.bytes().chunks_mut(PART) {
        file_.read_exact(part)?;
    }
    let took = begin.elapsed();
    unmap(area)?;
    fs::remove_file(file())?;
    Ok(took)
}

/// With about as few instructions as the kernel's, which is what counts here; what crates take depends on what else they
/// are good for.
fn crc32c(memory: Area) -> Result<Duration> {
    ensure!(is_x86_feature_detected!("sse4.2"), "there is no instruction for crc32c");
    Ok(time(|| {
        // SAFETY: There is one.
        hint::black_box(unsafe { crc32c_of(memory.bytes()) });
    }))
}

#[target_feature(enable = "sse4.2")]
fn crc32c_of(pages: &[u8]) -> u64 {
    let mut crc = !0;
    for round in pages.chunks_exact(128) {
        for word in round.chunks_exact(8) {
            crc = _mm_crc32_u64(crc, word.try_into().map_or(0, u64::from_le_bytes));
        }
    }
    crc
}

fn unmap(area: Area) -> Result<()> {
    // SAFETY: nothing refers to the area any more.
    sys::cvt(unsafe { libc::munmap(area.addr.cast(), area.len) })?;
    Ok(())
}

/// Pairs of mappings: an mmap(2) for each of `count`, every other one without permission to write.
fn mmap(count: usize) -> Result<Duration> {
    let whole = Area::anon(count * sys::PAGE, libc::PROT_NONE, libc::MAP_PRIVATE)?;
    unmap(whole)?;
    let begin = Instant::now();
    for n in 0..count {
        let prot = if n % 2 == 0 { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: the range was mapped a moment ago, and nothing else maps anything in between.
        let at = unsafe {
            libc::mmap(
                whole.addr.add(n * sys::PAGE).cast(),
                sys::PAGE,
                prot,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        ensure!(at != libc::MAP_FAILED, "mapping {n}: {}", std::io::Error::last_os_error());
    }
    let took = begin.elapsed();
    unmap(whole)?;
    Ok(took)
}

/// A small process each time: made, ended, waited for.
fn processes(count: usize) -> Result<Duration> {
    let begin = Instant::now();
    for _ in 0..count {
        fork(true)?;
    }
    Ok(begin.elapsed())
}

fn threads(count: usize) -> Result<Duration> {
    let begin = Instant::now();
    for _ in 0..count {
        let thread = thread::Builder::new().stack_size(16 << 10).spawn(|| {})?;
        ensure!(thread.join().is_ok());
    }
    Ok(begin.elapsed())
}

/// A child that sleeps until it is killed.
fn sleeper() -> Result<i32> {
    // SAFETY: the process has one thread; the child does nothing else.
    let pid = sys::cvt(unsafe {
        match libc::fork() {
            0 => loop {
                libc::pause();
            },
            pid => pid,
        }
    })?;
    Ok(pid)
}

/// Stops all children, waits until each stands still, and lets them go on.
fn stop(children: &[i32]) -> Result<Duration> {
    // They have to sleep before.
    thread::sleep(Duration::from_millis(20));
    let begin = Instant::now();
    for pid in children {
        sys::kill(*pid, libc::SIGSTOP)?;
    }
    for pid in children {
        wait_for(*pid, libc::WUNTRACED)?;
    }
    let took = begin.elapsed();
    for pid in children {
        sys::kill(*pid, libc::SIGCONT)?;
    }
    Ok(took)
}

/// Opens as many files that are there.
fn open(count: usize) -> Result<Duration> {
    let dir = tempdir()?;
    let paths: Vec<PathBuf> = (0..count).map(|n| dir.join(n.to_string())).collect();
    for path in &paths {
        File::create(path)?;
    }
    let begin = Instant::now();
    let files: Vec<_> = paths.iter().map(|path| sys::open(path, libc::O_WRONLY)).collect::<Result<_, _>>()?;
    let took = begin.elapsed();
    drop(files);
    fs::remove_dir_all(dir)?;
    Ok(took)
}

fn syscalls(count: usize) {
    for _ in 0..count {
        // SAFETY: no memory is involved.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
}

fn faults(pages: usize) -> Result<Duration> {
    let area = Area::anon(pages * sys::PAGE, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
    let took = time(|| area.bytes().iter_mut().step_by(sys::PAGE).for_each(|byte| *byte = 1));
    unmap(area)?;
    Ok(took)
}

fn exec(count: usize) -> Result<Duration> {
    let program = std::env::current_exe()?;
    let begin = Instant::now();
    for _ in 0..count {
        ensure!(Command::new(&program).args(["limit", "nothing", "0", "0"]).status()?.success());
    }
    Ok(begin.elapsed())
}

/// Two processes that wake each other by pipes.
fn switch(rounds: usize) -> Result<Duration> {
    let (mut to, mut from) = (sys::pipe(0)?, sys::pipe(0)?);
    // SAFETY: the process has one thread; the child does nothing else.
    let pid = sys::cvt(unsafe { libc::fork() })?;
    let (input, output) = if pid == 0 { (&mut to.0, &mut from.1) } else { (&mut from.0, &mut to.1) };
    let begin = Instant::now();
    for _ in 0..rounds {
        if pid != 0 {
            sys::write(output, &[1])?;
        }
        ensure!(sys::read(input, &mut [0])? == 1);
        if pid == 0 {
            sys::write(output, &[1])?;
        }
    }
    if pid == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
    let took = begin.elapsed();
    wait_for(pid, 0)?;
    Ok(took)
}

fn tempdir() -> Result<PathBuf> {
    let dir = PathBuf::from("/tmp/limit.d");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
