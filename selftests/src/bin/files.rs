// SPDX-License-Identifier: GPL-2.0

//! Descriptors of regular files, directories and the plain devices.

use libc::{
    O_APPEND,
    O_CREAT,
    O_RDONLY,
    O_RDWR,
    O_WRONLY,
    SEEK_CUR,
    SEEK_END,
    SEEK_SET, //
};
use selftests::prelude::*;
use selftests::sys::{
    descriptors,
    fcntl,
    fill,
    open,
    owned,
    read,
    seek,
    verify,
    write, //
};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{
    ExitCode,
    Stdio, //
};

const SUITE: Suite = Suite {
    cases: &[
        Case::new("offset", offset),
        Case::new("offset-past-the-end", offset_past_the_end),
        Case::new("write-at-offset", write_at_offset),
        Case::new("append", append),
        Case::new("overwrite", overwrite).writes_in_place(),
        Case::new("access-mode", access_mode),
        Case::new("status-flags", status_flags),
        Case::new("dup", dup),
        Case::new("opened-twice", opened_twice),
        Case::new("close-on-exec", close_on_exec),
        Case::new("numbers", numbers),
        Case::new("many", many),
        Case::new("table", table),
        Case::new("path-only", path_only),
        Case::new("directory", directory),
        Case::new("directory-position", directory_position),
        Case::new("null-zero-full", null_zero_full),
        Case::new("random", random),
        Case::new("deep-path", deep_path),
        Case::new("odd-name", odd_name),
        Case::new("symlink", symlink),
        Case::new("hard-link", hard_link),
        Case::new("log", log),
        Case::new("advice", advice),
    ],
    customs: &[
        Custom {
            name: "stdout-rewired",
            run: stdout_rewired,
        },
        Custom {
            name: "stdin-rewired",
            run: stdin_rewired,
        },
    ],
    victims: &[
        Case::new("writes-to-stdout", writes_to_stdout),
        Case::new("reads-stdin", reads_stdin).no_control(),
    ],
    ..Suite::new("files")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A file of `len` bytes of pattern `seed`.
fn file(path: &Path, len: usize, seed: u64) -> Result<()> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, seed);
    fs::write(path, bytes).with_context(|| format!("{}", path.display()))
}

fn position(fd: &OwnedFd) -> Result<i64> {
    Ok(seek(fd, 0, SEEK_CUR)?)
}

/// Reading goes on where it was.
fn offset(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 100_000, 1)?;
    let fd = open(&path, O_RDONLY)?;
    let mut bytes = vec![0; 100_000];
    same("first read", 33_333, read(&fd, &mut bytes[..33_333])?)?;
    v.stand()?;
    same("offset", 33_333, position(&fd)?)?;
    same("second read", 66_667, read(&fd, &mut bytes[33_333..])?)?;
    verify("contents of both reads", &bytes, 1)?;
    same("read at the end", 0, read(&fd, &mut bytes)?)
}

fn offset_past_the_end(v: &Victim) -> Result<()> {
    let fd = open(&v.path("data"), O_RDWR | O_CREAT)?;
    seek(&fd, 1 << 40, SEEK_SET)?;
    v.stand()?;
    same("offset", 1 << 40, position(&fd)?)?;
    same("read past the end", 0, read(&fd, &mut [0; 10])?)?;
    same("size", 0, seek(&fd, 0, SEEK_END)?)
}

/// Writing goes on where it was; the file is the whole at last.
fn write_at_offset(v: &Victim) -> Result<()> {
    let path = v.path("data");
    let mut bytes = vec![0; 20_000];
    fill(&mut bytes, 2);
    let fd = open(&path, O_WRONLY | O_CREAT)?;
    same("first write", 7_000, write(&fd, &bytes[..7_000])?)?;
    v.stand()?;
    same("second write", 13_000, write(&fd, &bytes[7_000..])?)?;
    same("length", 20_000, fs::read(&path)?.len())?;
    verify("file", &fs::read(&path)?, 2)
}

fn append(v: &Victim) -> Result<()> {
    let path = v.path("data");
    let fd = open(&path, O_WRONLY | O_CREAT | O_APPEND)?;
    write(&fd, b"one ")?;
    v.stand()?;
    ensure!(
        fcntl(&fd, libc::F_GETFL, 0)? & O_APPEND != 0,
        "O_APPEND is gone"
    );
    seek(&fd, 0, SEEK_SET)?;
    write(&fd, b"two")?;
    same("file", "one two".to_owned(), fs::read_to_string(&path)?)
}

fn overwrite(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 50_000, 3)?;
    let fd = open(&path, O_RDWR)?;
    seek(&fd, 10_000, SEEK_SET)?;
    v.stand()?;
    let mut new = vec![0; 10_000];
    fill(&mut new, 4);
    write(&fd, &new)?;
    let now = fs::read(&path)?;
    let mut expected = vec![0; 50_000];
    fill(&mut expected, 3);
    expected[10_000..20_000].copy_from_slice(&new);
    ensure!(now == expected, "the file is not what was written");
    Ok(())
}

/// What could not be written or read before cannot be now.
fn access_mode(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 10, 5)?;
    let (r, w, rw) = (
        open(&path, O_RDONLY)?,
        open(&path, O_WRONLY)?,
        open(&path, O_RDWR)?,
    );
    v.stand()?;
    ensure!(
        sys::fails_with(write(&r, b"x"), libc::EBADF),
        "a read-only descriptor writes"
    );
    ensure!(
        sys::fails_with(read(&w, &mut [0]), libc::EBADF),
        "a write-only descriptor reads"
    );
    same("read", 10, read(&rw, &mut [0; 20])?)?;
    for (fd, mode) in [(&r, O_RDONLY), (&w, O_WRONLY), (&rw, O_RDWR)] {
        same(
            "access mode",
            mode,
            fcntl(fd, libc::F_GETFL, 0)? & libc::O_ACCMODE,
        )?;
    }
    Ok(())
}

/// Each status flag by itself, as fcntl shows it.
fn status_flags(v: &Victim) -> Result<()> {
    let flags = [
        0,
        O_APPEND,
        libc::O_NONBLOCK,
        libc::O_SYNC,
        libc::O_DSYNC,
        libc::O_NOATIME,
        libc::O_DIRECT,
        libc::O_APPEND | libc::O_NONBLOCK | libc::O_NOATIME,
    ];
    let path = v.path("data");
    file(&path, 10, 6)?;
    let mut opened = Vec::new();
    for flag in flags {
        match open(&path, O_RDWR | flag) {
            Ok(fd) => opened.push((flag, fd)),
            // Not every file system has direct I/O.
            Err(e) if flag == libc::O_DIRECT && e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) => return Err(e).with_context(|| format!("open with {flag:#o}")),
        }
    }
    let all = || {
        opened
            .iter()
            .map(|(_, fd)| fcntl(fd, libc::F_GETFL, 0))
            .collect::<Vec<_>>()
    };
    let before = all();
    v.stand()?;
    for ((flag, _), (before, now)) in opened.iter().zip(before.into_iter().zip(all())) {
        same(&format!("status flags with {flag:#o}"), before?, now?)?;
    }
    Ok(())
}

/// Copies of a descriptor share the offset and the status flags, but not close-on-exec.
fn dup(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 1000, 7)?;
    let first = open(&path, O_RDWR)?;
    let second = owned(fcntl(&first, libc::F_DUPFD_CLOEXEC, 100)?)?;
    seek(&first, 100, SEEK_SET)?;
    v.stand()?;
    same("offset of the copy", 100, position(&second)?)?;
    seek(&second, 200, SEEK_SET)?;
    same("offset of the original", 200, position(&first)?)?;
    fcntl(&first, libc::F_SETFL, libc::O_NONBLOCK)?;
    ensure!(
        fcntl(&second, libc::F_GETFL, 0)? & libc::O_NONBLOCK != 0,
        "flags are not shared"
    );
    same(
        "close-on-exec of the original",
        0,
        fcntl(&first, libc::F_GETFD, 0)? & libc::FD_CLOEXEC,
    )?;
    same(
        "close-on-exec of the copy",
        1,
        fcntl(&second, libc::F_GETFD, 0)? & libc::FD_CLOEXEC,
    )
}

/// Two descriptions of one file do not share anything.
fn opened_twice(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 1000, 8)?;
    let (first, second) = (open(&path, O_RDONLY)?, open(&path, O_RDONLY)?);
    seek(&first, 100, SEEK_SET)?;
    v.stand()?;
    same("offset of the second", 0, position(&second)?)?;
    seek(&second, 300, SEEK_SET)?;
    same("offset of the first", 100, position(&first)?)
}

fn close_on_exec(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 10, 9)?;
    let mut fds = Vec::new();
    for i in 0..70 {
        let fd = open(&path, O_RDONLY)?;
        fcntl(&fd, libc::F_SETFD, i32::from(i % 3 == 0))?;
        fds.push(fd);
    }
    v.stand()?;
    for (i, fd) in fds.iter().enumerate() {
        let what = format!("close-on-exec of descriptor {}", fd.as_raw_fd());
        same(&what, i32::from(i % 3 == 0), fcntl(fd, libc::F_GETFD, 0)?)?;
    }
    Ok(())
}

/// The numbers are the same, and the gaps between them are gaps.
fn numbers(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 1000, 10)?;
    let wanted = [17, 63, 64, 65, 255, 256, 900, 1023];
    let mut fds = Vec::new();
    for n in wanted {
        let fd = open(&path, O_RDONLY)?;
        // SAFETY: nobody has these numbers.
        fds.push(owned(unsafe {
            libc::dup3(fd.as_raw_fd(), n, libc::O_CLOEXEC)
        })?);
        seek(&fd, i64::from(n), SEEK_SET)?;
    }
    v.stand()?;
    for (n, fd) in wanted.into_iter().zip(&fds) {
        same("number", n, fd.as_raw_fd())?;
        same(&format!("offset of {n}"), i64::from(n), position(fd)?)?;
    }
    same("next free number", 3, open(&path, O_RDONLY)?.as_raw_fd())
}

fn many(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 4000, 11)?;
    let fds = (0..600)
        .map(|_| Ok(open(&path, O_RDONLY)?))
        .collect::<Result<Vec<_>>>()?;
    for (i, fd) in fds.iter().enumerate() {
        seek(fd, i as i64 * 3, SEEK_SET)?;
    }
    v.stand()?;
    for (i, fd) in fds.iter().enumerate() {
        same(&format!("offset of file {i}"), i as i64 * 3, position(fd)?)?;
    }
    Ok(())
}

/// /proc/self/fd shows the same links, no more and no less.
fn table(v: &Victim) -> Result<()> {
    file(&v.path("data"), 10, 12)?;
    let _open = [
        open(&v.path("data"), O_RDONLY)?,
        open(&v.path("."), O_RDONLY | libc::O_DIRECTORY)?,
        open(Path::new("/dev/null"), O_RDWR)?,
    ];
    let before = descriptors()?;
    ensure!(before.len() >= 6, "only {before:?}");
    v.stand()?;
    same("descriptors", before, descriptors()?)
}

fn path_only(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 10, 13)?;
    let fd = open(&path, libc::O_PATH)?;
    v.stand()?;
    ensure!(
        fcntl(&fd, libc::F_GETFL, 0)? & libc::O_PATH != 0,
        "O_PATH is gone"
    );
    ensure!(
        sys::fails_with(read(&fd, &mut [0]), libc::EBADF),
        "it can be read"
    );
    same(
        "link",
        path,
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?,
    )
}

/// A directory that others are opened relative to.
fn directory(v: &Victim) -> Result<()> {
    fs::create_dir_all(v.path("d/e"))?;
    file(&v.path("d/e/data"), 10, 14)?;
    let dir = open(&v.path("d"), O_RDONLY | libc::O_DIRECTORY)?;
    v.stand()?;
    // SAFETY: the path is a C string.
    let fd = owned(unsafe { libc::openat(dir.as_raw_fd(), c"e/data".as_ptr(), O_RDONLY) })?;
    same("read", 10, read(&fd, &mut [0; 20])?)
}

/// Names that one getdents64(2) of `dir` returns; none at the end.
fn entries(dir: &OwnedFd) -> Result<Vec<String>> {
    let mut buffer = [0u8; 2048];
    // SAFETY: the buffer is valid for writing.
    let len = sys::cvt(unsafe {
        libc::syscall(
            libc::SYS_getdents64,
            dir.as_raw_fd(),
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    })? as usize;
    let (mut names, mut at) = (Vec::new(), 0);
    while at < len {
        // struct linux_dirent64: inode, offset, length, type, name.
        let size = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
        let name = buffer[at + 19..at + size]
            .split(|&b| b == 0)
            .next()
            .unwrap_or_default();
        names.push(String::from_utf8(name.to_vec())?);
        at += size;
    }
    Ok(names)
}

/// Reading a directory goes on: no name twice, none missing.
fn directory_position(v: &Victim) -> Result<()> {
    let mut expected = BTreeSet::from([".".to_owned(), "..".to_owned()]);
    fs::create_dir_all(v.path("d"))?;
    for i in 0..300 {
        let name = format!("a file with number {i}");
        fs::write(v.path("d").join(&name), "")?;
        expected.insert(name);
    }
    let dir = open(&v.path("d"), O_RDONLY | libc::O_DIRECTORY)?;
    let mut seen = entries(&dir)?;
    seen.extend(entries(&dir)?);
    ensure!(seen.len() < 200, "the directory was read in one go");
    v.stand()?;
    loop {
        let more = entries(&dir)?;
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    let unique: BTreeSet<_> = seen.iter().cloned().collect();
    same("names seen twice", 0, seen.len() - unique.len())?;
    same("names", expected, unique)
}

fn null_zero_full(v: &Victim) -> Result<()> {
    let device = |name: &str| open(&Path::new("/dev").join(name), O_RDWR);
    let (null, zero, full) = (device("null")?, device("zero")?, device("full")?);
    v.stand()?;
    let mut bytes = [7; 8];
    same("read of null", 0, read(&null, &mut bytes)?)?;
    same("write to null", 8, write(&null, &bytes)?)?;
    same("read of zero", 8, read(&zero, &mut bytes)?)?;
    same("zeroes", [0; 8], bytes)?;
    ensure!(
        sys::fails_with(write(&full, &bytes), libc::ENOSPC),
        "full takes bytes"
    );
    Ok(())
}

fn random(v: &Victim) -> Result<()> {
    let (random, urandom) = (
        open(Path::new("/dev/random"), O_RDONLY)?,
        open(Path::new("/dev/urandom"), O_RDONLY)?,
    );
    v.stand()?;
    let mut bytes = [[0; 16]; 2];
    same("read of random", 16, read(&random, &mut bytes[0])?)?;
    same("read of urandom", 16, read(&urandom, &mut bytes[1])?)?;
    ensure!(
        bytes[0] != bytes[1] && bytes[0] != [0; 16],
        "not random: {bytes:?}"
    );
    Ok(())
}

fn deep_path(v: &Victim) -> Result<()> {
    let mut dir = v.path("deep");
    for _ in 0..12 {
        dir.push("a".repeat(200));
    }
    fs::create_dir_all(&dir)?;
    let path = dir.join("data");
    file(&path, 100, 15)?;
    let fd = open(&path, O_RDONLY)?;
    v.stand()?;
    let mut bytes = [0; 100];
    same("read", 100, read(&fd, &mut bytes)?)?;
    verify("contents", &bytes, 15)
}

fn odd_name(v: &Victim) -> Result<()> {
    let path = v.path("spaces and\nnewlines, \u{e9}\u{4e2d}, \\ and (deleted)");
    file(&path, 100, 16)?;
    let fd = open(&path, O_RDONLY)?;
    v.stand()?;
    let mut bytes = [0; 100];
    same("read", 100, read(&fd, &mut bytes)?)?;
    verify("contents", &bytes, 16)
}

/// Opened by a link that points elsewhere meanwhile: the file counts, not the way to it.
fn symlink(v: &Victim) -> Result<()> {
    let link = v.path("link");
    let target = |name: &str| -> Result<()> {
        let _ = fs::remove_file(&link);
        Ok(std::os::unix::fs::symlink(v.path(name), &link)?)
    };
    file(&v.path("right"), 100, 17)?;
    file(&v.path("wrong"), 100, 18)?;
    target("right")?;
    let fd = open(&link, O_RDONLY)?;
    target("wrong")?;
    v.stand()?;
    let mut bytes = [0; 100];
    same("read", 100, read(&fd, &mut bytes)?)?;
    verify("contents", &bytes, 17)
}

fn hard_link(v: &Victim) -> Result<()> {
    file(&v.path("one"), 100, 19)?;
    fs::hard_link(v.path("one"), v.path("two"))?;
    let fd = open(&v.path("two"), O_RDWR)?;
    v.stand()?;
    let file = fs::File::from(fd);
    let mut bytes = [0; 100];
    file.read_exact_at(&mut bytes, 0)?;
    verify("contents", &bytes, 19)
}

/// What a program prints goes on at the end of its log.
fn log(v: &Victim) -> Result<()> {
    println!("before");
    v.stand()?;
    println!("after");
    same(
        "log",
        "before\nafter\n".to_owned(),
        fs::read_to_string(v.path("log"))?,
    )
}

fn writes_to_stdout(v: &Victim) -> Result<()> {
    v.stand()?;
    println!("hello");
    Ok(())
}

fn reads_stdin(v: &Victim) -> Result<()> {
    v.stand()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    same("line", "hello\n".to_owned(), line)
}

/// Standard output that led out of the tree leads to that of rstr.
fn stdout_rewired(b: &selftests::Bench<'_>) -> Result<()> {
    let (_r, w) = sys::pipe(libc::O_CLOEXEC)?;
    let mut command = b.command(b.case("writes-to-stdout")?)?;
    command.stdout(Stdio::from(w));
    let mut life = b.start_with("writes-to-stdout", command)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    life.tell()?;
    let out = b.path("out");
    let rstr = b
        .rstr()
        .arg("-i")
        .arg(&image)
        .stdout(fs::File::create(&out)?);
    rstr.run()?.succeeded("rstr")?;
    same("output", "hello\n".to_owned(), fs::read_to_string(&out)?)
}

/// Standard input as well.
fn stdin_rewired(b: &selftests::Bench<'_>) -> Result<()> {
    let (r, _w) = sys::pipe(libc::O_CLOEXEC)?;
    let mut command = b.command(b.case("reads-stdin")?)?;
    command.stdin(Stdio::from(r));
    let mut life = b.start_with("reads-stdin", command)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    life.tell()?;
    let (r, w) = sys::pipe(libc::O_CLOEXEC)?;
    write(&w, b"hello\n")?;
    b.rstr()
        .arg("-i")
        .arg(&image)
        .stdin(Stdio::from(r))
        .run()?
        .succeeded("rstr")?;
    same(
        "result",
        "PASS".to_owned(),
        fs::read_to_string(b.path("result"))?,
    )
}

/// What posix_fadvise(2) has said, of which no interface of the kernel tells: the image does.
fn advice(v: &Victim) -> Result<()> {
    let path = v.path("data");
    file(&path, 100_000, 77)?;
    let fds = (0..3)
        .map(|_| open(&path, O_RDONLY))
        .collect::<std::io::Result<Vec<_>>>()?;
    for (fd, advice) in fds.iter().zip([
        libc::POSIX_FADV_SEQUENTIAL,
        libc::POSIX_FADV_RANDOM,
        libc::POSIX_FADV_NOREUSE,
    ]) {
        // SAFETY: no memory is involved.
        let err = unsafe { libc::posix_fadvise(fd.as_raw_fd(), 0, 0, advice) };
        same("error of posix_fadvise", 0, err)?;
    }
    v.stand()?;
    for fd in &fds {
        let mut bytes = vec![0; 100_000];
        same("bytes", 100_000, read(fd, &mut bytes)?)?;
        verify("contents", &bytes, 77)?;
    }
    Ok(())
}
