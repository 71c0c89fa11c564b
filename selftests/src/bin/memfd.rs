// SPDX-License-Identifier: GPL-2.0

//! Memory with a descriptor: memfd_create(2).

use libc::{
    F_ADD_SEALS,
    F_GET_SEALS,
    F_SEAL_FUTURE_WRITE,
    F_SEAL_GROW,
    F_SEAL_SEAL,
    F_SEAL_SHRINK,
    F_SEAL_WRITE,
    MAP_PRIVATE,
    MAP_SHARED,
    MFD_ALLOW_SEALING,
    MFD_CLOEXEC,
    PROT_READ,
    PROT_WRITE,
    SEEK_CUR,
    SEEK_SET, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fcntl,
    file,
    fill,
    fill_file,
    memfd,
    open,
    owned,
    seek,
    verify,
    verify_file,
    write,
    Area,
    PAGE, //
};
use selftests::{
    NumbersThatFollow,
    Process, //
};
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::{
    FileExt,
    MetadataExt, //
};
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("contents", contents),
        Case::new("name", name),
        Case::new("seals", seals),
        Case::new("sealed-and-mapped", sealed_and_mapped),
        Case::new("future-write", future_write),
        Case::new("no-exec", no_exec),
        Case::new("mapped-only", mapped_only),
        Case::new("private-mapping", private_mapping),
        Case::new("shared-with-a-child", shared_with_a_child),
        Case::new("opened-again", opened_again),
        Case::new("holes", holes),
    ],
    refusals: &[
        Refusal::new("secret", secret, &["secretmem"]),
        Refusal::new("huge", huge, &["not reachable by a path"]),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("memfd")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const NOEXEC_SEAL: u32 = 8;
const EXEC: u32 = 16;
const F_SEAL_EXEC: i32 = 0x20;

fn contents(v: &Victim) -> Result<()> {
    let fd = memfd("data", MFD_CLOEXEC)?;
    fill_file(&fd, 10 * PAGE + 123, 1)?;
    seek(&fd, 777, SEEK_SET)?;
    let m = file(&fd)?.metadata()?;
    let before = (m.mode(), m.uid(), m.mtime(), m.mtime_nsec());
    v.stand()?;
    let m = file(&fd)?.metadata()?;
    same(
        "attributes",
        before,
        (m.mode(), m.uid(), m.mtime(), m.mtime_nsec()),
    )?;
    verify_file("contents", &fd, 10 * PAGE + 123, 1)?;
    same("position", 777, seek(&fd, 0, SEEK_CUR)?)?;
    same(
        "close-on-exec",
        libc::FD_CLOEXEC,
        fcntl(&fd, libc::F_GETFD, 0)?,
    )?;
    file(&fd)?.set_len(11 * PAGE as u64)?;
    let mut end = vec![1; PAGE - 123];
    file(&fd)?.read_exact_at(&mut end, 10 * PAGE as u64 + 123)?;
    ensure!(
        end.iter().all(|b| *b == 0),
        "there is something past the end"
    );
    Ok(())
}

/// The name of a descriptor in /proc, and that of a mapping.
fn name(v: &Victim) -> Result<()> {
    let longest = "x".repeat(249);
    for name in ["", "a name/with: all [sorts] of (deleted)", &longest] {
        let fd = memfd(name, 0)?;
        fill_file(&fd, PAGE, 2)?;
        let area = Area::map(PAGE, PROT_READ, MAP_SHARED, fd.as_raw_fd(), 0)?;
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let shown = || -> Result<_> {
            let maps = fs::read_to_string("/proc/self/maps")?;
            let start = format!("{:012x}-", area.addr as usize);
            let line = maps
                .lines()
                .find(|line| line.starts_with(start.trim_start_matches('0')));
            let mapped = line.context("no mapping")?;
            let mapped = mapped
                .split_once("/memfd:")
                .context("no memfd")?
                .1
                .to_owned();
            Ok((fs::read_link(&link)?, mapped))
        };
        let before = shown()?;
        // The longest stands through the checkpoint.
        if name.len() > 100 {
            v.stand()?;
        }
        same("name", before, shown()?)?;
    }
    Ok(())
}

fn sealed(fd: &OwnedFd) -> Result<i32> {
    Ok(fcntl(fd, F_GET_SEALS, 0)?)
}

/// Every seal is there, and seals.
fn seals(v: &Victim) -> Result<()> {
    let sets = [
        0,
        F_SEAL_SHRINK,
        F_SEAL_GROW,
        F_SEAL_WRITE,
        F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL,
        F_SEAL_FUTURE_WRITE,
    ];
    let mut all = Vec::new();
    for set in sets {
        let fd = memfd("sealed", MFD_ALLOW_SEALING)?;
        fill_file(&fd, 2 * PAGE, set as u64)?;
        fcntl(&fd, F_ADD_SEALS, set)?;
        all.push((set, fd));
    }
    let never = memfd("never sealed", 0)?;
    v.stand()?;
    for (set, fd) in &all {
        same("seals", *set, sealed(fd)?)?;
        verify_file("contents", fd, 2 * PAGE, *set as u64)?;
        let may = |seal: i32, done: std::io::Result<()>| {
            same(
                &format!("{set:#x} without {seal:#x}"),
                set & seal == 0,
                done.is_ok(),
            )
        };
        may(
            F_SEAL_WRITE | F_SEAL_FUTURE_WRITE,
            file(fd)?.write_all_at(b"x", 0),
        )?;
        may(F_SEAL_GROW, file(fd)?.set_len(3 * PAGE as u64))?;
        may(F_SEAL_SHRINK, file(fd)?.set_len(PAGE as u64))?;
        may(F_SEAL_SEAL, fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK).map(drop))?;
    }
    same("seals of one that cannot be", F_SEAL_SEAL, sealed(&never)?)
}

/// What is sealed against writing is mapped nevertheless, before or after.
fn sealed_and_mapped(v: &Victim) -> Result<()> {
    let fd = memfd("sealed", MFD_ALLOW_SEALING)?;
    fill_file(&fd, 4 * PAGE, 3)?;
    fcntl(&fd, F_ADD_SEALS, F_SEAL_WRITE)?;
    let shared = Area::map(4 * PAGE, PROT_READ, MAP_SHARED, fd.as_raw_fd(), 0)?;
    let private = Area::map(4 * PAGE, RW, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
    private.bytes()[5] = 5;
    v.stand()?;
    same("seals", F_SEAL_WRITE, sealed(&fd)?)?;
    let mut bytes = vec![0; 4 * PAGE];
    fill(&mut bytes, 3);
    // SAFETY: the mapping is there, and nobody writes to it.
    let seen = unsafe { std::slice::from_raw_parts(shared.addr, shared.len) };
    ensure!(seen == bytes, "the shared mapping differs");
    bytes[5] = 5;
    ensure!(*private.bytes() == *bytes, "the private mapping differs");
    ensure!(
        sys::fails_with(shared.protect(0, PAGE, RW), libc::EACCES),
        "the shared mapping became writable"
    );
    Ok(())
}

/// The mapping that was there before may be written, no other.
fn future_write(v: &Victim) -> Result<()> {
    let fd = memfd("sealed", MFD_ALLOW_SEALING)?;
    fill_file(&fd, 4 * PAGE, 4)?;
    let area = Area::map(4 * PAGE, RW, MAP_SHARED, fd.as_raw_fd(), 0)?;
    fcntl(&fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE)?;
    v.stand()?;
    verify("mapping", area.bytes(), 4)?;
    same("seals", F_SEAL_FUTURE_WRITE, sealed(&fd)?)?;
    fill(area.bytes(), 5);
    verify_file("contents", &fd, 4 * PAGE, 5)?;
    ensure!(
        Area::map(PAGE, RW, MAP_SHARED, fd.as_raw_fd(), 0).is_err(),
        "it is mapped again for writing"
    );
    ensure!(write(&fd, b"x").is_err(), "it is written");
    Ok(())
}

fn no_exec(v: &Victim) -> Result<()> {
    let (never, may) = (memfd("data", NOEXEC_SEAL)?, memfd("program", EXEC)?);
    let mode = |fd: &OwnedFd| -> Result<u32> { Ok(file(fd)?.metadata()?.mode() & 0o7777) };
    let before = (mode(&never)?, mode(&may)?);
    v.stand()?;
    same("modes", before, (mode(&never)?, mode(&may)?))?;
    same("seals", F_SEAL_EXEC, sealed(&never)?)?;
    same("seals", F_SEAL_SEAL, sealed(&may)?)?;
    // SAFETY: no memory is involved.
    let changed = cvt(unsafe { libc::fchmod(never.as_raw_fd(), 0o700) });
    ensure!(
        sys::fails_with(changed, libc::EPERM),
        "it became executable"
    );
    Ok(())
}

fn mapped_only(v: &Victim) -> Result<()> {
    let fd = memfd("data", 0)?;
    file(&fd)?.set_len(8 * PAGE as u64)?;
    let first = Area::map(8 * PAGE, RW, MAP_SHARED, fd.as_raw_fd(), 0)?;
    let second = Area::map(4 * PAGE, RW, MAP_SHARED, fd.as_raw_fd(), 4 * PAGE as i64)?;
    drop(fd);
    fill(first.bytes(), 6);
    v.stand()?;
    verify("first mapping", first.bytes(), 6)?;
    ensure!(
        first.bytes()[4 * PAGE..] == *second.bytes(),
        "the mappings differ"
    );
    second.bytes()[8] = 88;
    same("byte at the other place", 88, first.bytes()[4 * PAGE + 8])
}

fn private_mapping(v: &Victim) -> Result<()> {
    let fd = memfd("data", 0)?;
    fill_file(&fd, 2 * PAGE, 7)?;
    let area = Area::map(2 * PAGE, RW, MAP_PRIVATE, fd.as_raw_fd(), 0)?;
    let mut expected = area.bytes().to_vec();
    area.bytes()[1] = 1;
    expected[1] = 1;
    v.stand()?;
    ensure!(*area.bytes() == *expected, "the mapping differs");
    verify_file("contents", &fd, 2 * PAGE, 7)
}

fn shared_with_a_child(v: &Victim) -> Result<()> {
    let fd = memfd("data", 0)?;
    file(&fd)?.set_len(PAGE as u64)?;
    let area = Area::map(PAGE, RW, MAP_SHARED, fd.as_raw_fd(), 0)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        // By the descriptor, which the parent sees in its mapping.
        i32::from(!file(&fd).is_ok_and(|file| file.write_all_at(b"child", 100).is_ok()))
    })?;
    drop(numbers);
    v.stand()?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child failed");
    same("what the child wrote", b"child", &area.bytes()[100..105])
}

/// Another open file of it, for reading only.
fn opened_again(v: &Victim) -> Result<()> {
    let fd = memfd("data", 0)?;
    fill_file(&fd, 5000, 8)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let reads = open(Path::new(&path), libc::O_RDONLY)?;
    seek(&reads, 99, SEEK_SET)?;
    drop(fd);
    v.stand()?;
    verify_file("contents", &reads, 5000, 8)?;
    same("position", 99, seek(&reads, 0, SEEK_CUR)?)?;
    ensure!(
        sys::fails_with(write(&reads, b"x"), libc::EBADF),
        "it writes"
    );
    Ok(())
}

fn holes(v: &Victim) -> Result<()> {
    let fd = memfd("data", 0)?;
    let size = 1 << 40;
    file(&fd)?.set_len(size)?;
    let places = [0, 1 << 30, size - PAGE as u64];
    let mut bytes = vec![0; PAGE];
    for at in places {
        fill(&mut bytes, at);
        file(&fd)?.write_all_at(&bytes, at)?;
    }
    let before = file(&fd)?.metadata()?.blocks();
    v.stand()?;
    for at in places {
        file(&fd)?.read_exact_at(&mut bytes, at)?;
        verify(&format!("page at {at:#x}"), &bytes, at)?;
    }
    let m = file(&fd)?.metadata()?;
    same("size", size, m.len())?;
    same("blocks", before, m.blocks())
}

fn secret(v: &Victim) -> Result<()> {
    // SAFETY: no memory is involved.
    let fd = cvt(unsafe { libc::syscall(libc::SYS_memfd_secret, 0) });
    let fd = match fd {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return skip("no memfd_secret"),
        fd => owned(fd? as libc::c_int)?,
    };
    file(&fd)?.set_len(PAGE as u64)?;
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    same("size", PAGE as u64, file(&fd)?.metadata()?.len())
}

fn huge(v: &Victim) -> Result<()> {
    let Ok(fd) = memfd("huge", libc::MFD_HUGETLB) else {
        return skip("no huge pages");
    };
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    same("size", 0, file(&fd)?.metadata()?.len())
}
