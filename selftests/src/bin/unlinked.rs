// SPDX-License-Identifier: GPL-2.0

//! Files that have no name any more, or never had one: their contents are in the image.

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    O_APPEND,
    O_CREAT,
    O_EXCL,
    O_RDONLY,
    O_RDWR,
    O_TMPFILE,
    O_WRONLY,
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
    open,
    owned,
    read,
    seek,
    verify,
    verify_file,
    write,
    Area,
    PAGE, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Process, //
};
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    FileExt,
    MetadataExt,
    PermissionsExt, //
};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{
    Command,
    ExitCode, //
};

const SUITE: Suite = Suite {
    cases: &[
        Case::new("contents", contents),
        Case::new("holes", holes),
        Case::new("attributes", attributes),
        Case::new("shared-by-open-files", shared_by_open_files),
        Case::new("shared-with-a-child", shared_with_a_child),
        Case::new("shared-mapping", shared_mapping),
        Case::new("private-mapping", private_mapping),
        Case::new("on-tmpfs", on_tmpfs),
        Case::new("tmpfile", tmpfile),
        Case::new("tmpfile-linked", tmpfile_linked),
        Case::new("hard-link", hard_link),
        Case::new("posix-shm", posix_shm),
        Case::new("directory-gone", directory_gone),
    ],
    refusals: &[
        Refusal::new("attribute", attribute, &["extended attributes"]),
        Refusal::new("executable", executable, &["unlinked file"]),
    ],
    customs: &[
        Custom {
            name: "no-directory",
            run: no_directory,
        },
        Custom {
            name: "too-large",
            run: too_large,
        },
    ],
    victims: &[
        Case::new("in-a-directory", in_a_directory),
        Case::new("large", large),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("unlinked")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// An open file that had the name `path`.
fn unlinked(path: &Path) -> Result<OwnedFd> {
    let fd = open(path, O_RDWR | O_CREAT | O_EXCL)?;
    fs::remove_file(path)?;
    Ok(fd)
}

fn contents(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    // The last page is not full.
    fill_file(&fd, 3 * PAGE + 77, 1)?;
    seek(&fd, 5000, SEEK_SET)?;
    v.stand()?;
    verify_file("contents", &fd, 3 * PAGE + 77, 1)?;
    same("position", 5000, seek(&fd, 0, SEEK_CUR)?)?;
    same("links", 0, file(&fd)?.metadata()?.nlink())?;
    // It is a file like before: it grows, and what comes then is zero.
    file(&fd)?.set_len(5 * PAGE as u64)?;
    let mut bytes = vec![1; 2 * PAGE - 77];
    file(&fd)?.read_exact_at(&mut bytes, 3 * PAGE as u64 + 77)?;
    ensure!(
        bytes.iter().all(|b| *b == 0),
        "there is something past the end"
    );
    same("bytes written", 3, write(&fd, b"new")?)?;
    let mut new = [0; 3];
    file(&fd)?.read_exact_at(&mut new, 5000)?;
    same("what was written", *b"new", new)
}

fn holes(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    let size = 1 << 33;
    file(&fd)?.set_len(size)?;
    let places = [
        0,
        70 * PAGE as u64,
        (1 << 32) - PAGE as u64,
        size - 2 * PAGE as u64,
    ];
    let mut bytes = vec![0; PAGE];
    for at in places {
        fill(&mut bytes, at);
        file(&fd)?.write_all_at(&bytes, at)?;
    }
    file(&fd)?.sync_all()?;
    let before = file(&fd)?.metadata()?.blocks();
    v.stand()?;
    for at in places {
        file(&fd)?.read_exact_at(&mut bytes, at)?;
        verify(&format!("page at {at:#x}"), &bytes, at)?;
    }
    same("size", size, file(&fd)?.metadata()?.len())?;
    file(&fd)?.sync_all()?;
    let now = file(&fd)?.metadata()?.blocks();
    ensure!(now <= before + 64, "{before} blocks became {now}");
    Ok(())
}

fn attributes(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    fill_file(&fd, 10, 2)?;
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::fchown(fd.as_raw_fd(), 1234, 5678) })?;
    file(&fd)?.set_permissions(fs::Permissions::from_mode(0o4751))?;
    let times = [(1_000_000_000, 123_456_789), (1_100_000_000, 987_654_321)]
        .map(|(tv_sec, tv_nsec)| libc::timespec { tv_sec, tv_nsec });
    // SAFETY: there are two times.
    cvt(unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) })?;
    let all = || -> Result<_> {
        let m = file(&fd)?.metadata()?;
        Ok((
            m.mode(),
            (m.uid(), m.gid()),
            (m.atime(), m.atime_nsec()),
            (m.mtime(), m.mtime_nsec()),
        ))
    };
    let before = all()?;
    v.stand()?;
    same("mode, owner, times", before, all()?)?;
    verify_file("contents", &fd, 10, 2)
}

fn reopen(fd: &OwnedFd, flags: i32) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    open(Path::new(&path), flags)
}

/// Several open files of one file have a position each, and the contents together.
fn shared_by_open_files(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    fill_file(&fd, 3000, 3)?;
    let (reads, writes) = (reopen(&fd, O_RDONLY)?, reopen(&fd, O_WRONLY | O_APPEND)?);
    let copy = fd.try_clone()?;
    seek(&reads, 1000, SEEK_SET)?;
    seek(&fd, 2000, SEEK_SET)?;
    v.stand()?;
    same("position of the copy", 2000, seek(&copy, 0, SEEK_CUR)?)?;
    same("position of the reader", 1000, seek(&reads, 0, SEEK_CUR)?)?;
    write(&writes, b"at the end")?;
    let mut end = [0; 10];
    file(&reads)?.read_exact_at(&mut end, 3000)?;
    same("what was appended", *b"at the end", end)?;
    ensure!(
        sys::fails_with(write(&reads, b"x"), libc::EBADF),
        "what was opened for reading writes"
    );
    ensure!(
        sys::fails_with(read(&writes, &mut [0]), libc::EBADF),
        "what was opened for writing reads"
    );
    ensure!(
        fcntl(&writes, libc::F_GETFL, 0)? & O_APPEND != 0,
        "O_APPEND is gone"
    );
    let inodes = [&fd, &copy, &reads, &writes].map(|fd| Ok(file(fd)?.metadata()?.ino()));
    let inodes = inodes.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(
        inodes.windows(2).all(|pair| pair[0] == pair[1]),
        "{inodes:?}"
    );
    Ok(())
}

fn shared_with_a_child(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    fill_file(&fd, 100, 4)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        v.wait();
        i32::from(!sys::until(Duration::from_secs(10), || {
            seek(&fd, 0, SEEK_CUR).is_ok_and(|at| at == 7)
        }))
    })?;
    drop(numbers);
    v.stand()?;
    seek(&fd, 7, SEEK_SET)?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "the child does not see the position");
    Ok(())
}

/// Mapped and open: what is written one way is seen the other.
fn shared_mapping(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    fill_file(&fd, 10 * PAGE, 5)?;
    let area = Area::map(
        4 * PAGE,
        PROT_READ | PROT_WRITE,
        MAP_SHARED,
        fd.as_raw_fd(),
        PAGE as i64,
    )?;
    let alone = unlinked(&v.path("other"))?;
    fill_file(&alone, 2 * PAGE, 6)?;
    let no_fd = Area::map(
        2 * PAGE,
        PROT_READ | PROT_WRITE,
        MAP_SHARED,
        alone.as_raw_fd(),
        0,
    )?;
    drop(alone);
    no_fd.bytes()[9] = 9;
    v.stand()?;
    let mut bytes = vec![0; 10 * PAGE];
    fill(&mut bytes, 5);
    ensure!(
        bytes[PAGE..5 * PAGE] == *area.bytes(),
        "the mapping differs"
    );
    area.bytes()[3] = 42;
    let mut byte = [0];
    file(&fd)?.read_exact_at(&mut byte, PAGE as u64 + 3)?;
    same("byte by the descriptor", 42, byte[0])?;
    file(&fd)?.write_all_at(&[43], PAGE as u64 + 4)?;
    same("byte by the mapping", 43, area.bytes()[4])?;
    fill(&mut bytes, 6);
    bytes[9] = 9;
    ensure!(
        bytes[..2 * PAGE] == *no_fd.bytes(),
        "the mapping without descriptor differs"
    );
    Ok(())
}

/// What the mapping has of its own stays its own, the rest is the file's.
fn private_mapping(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    fill_file(&fd, 2 * PAGE, 7)?;
    let area = Area::map(
        2 * PAGE,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE,
        fd.as_raw_fd(),
        0,
    )?;
    let mut expected = area.bytes().to_vec();
    area.bytes()[1] = 1;
    expected[1] = 1;
    v.stand()?;
    ensure!(*area.bytes() == *expected, "the mapping differs");
    verify_file("file", &fd, 2 * PAGE, 7)?;
    file(&fd)?.write_all_at(&[99], PAGE as u64)?;
    same("the file's page", 99, area.bytes()[PAGE])
}

fn on_tmpfs(v: &Victim) -> Result<()> {
    let name = format!("/dev/shm/unlinked-{}", sys::getpid());
    let fd = unlinked(Path::new(&name))?;
    fill_file(&fd, 5 * PAGE + 1, 8)?;
    v.stand()?;
    verify_file("contents", &fd, 5 * PAGE + 1, 8)
}

/// linkat(2) of an open file.
fn link(fd: &OwnedFd, to: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    let follow = libc::AT_SYMLINK_FOLLOW;
    // SAFETY: both are strings.
    cvt(unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            follow,
        )
    })
    .map(drop)
}

/// A file of O_TMPFILE gets a name afterwards, unless O_EXCL forbids it.
fn tmpfile(v: &Victim) -> Result<()> {
    let dir = v.path("");
    let (may, may_not) = (
        open(&dir, O_TMPFILE | O_RDWR)?,
        open(&dir, O_TMPFILE | O_EXCL | O_RDWR)?,
    );
    fill_file(&may, 5000, 9)?;
    fill_file(&may_not, 6000, 10)?;
    let flags = fcntl(&may, libc::F_GETFL, 0)?;
    let gone = unlinked(&v.path("unlinked"))?;
    v.stand()?;
    same("flags", flags, fcntl(&may, libc::F_GETFL, 0)?)?;
    verify_file("may get a name", &may, 5000, 9)?;
    verify_file("may not", &may_not, 6000, 10)?;
    let name = v.path("name");
    let _ = fs::remove_file(&name);
    for fd in [&may_not, &gone] {
        ensure!(
            sys::fails_with(link(fd, &name), libc::ENOENT),
            "it gets a name that it may not have"
        );
    }
    link(&may, &name)?;
    same("size by name", 5000, fs::metadata(&name)?.len())
}

/// It has a name by now, although not the one that it was opened by.
fn tmpfile_linked(v: &Victim) -> Result<()> {
    let fd = open(&v.path(""), O_TMPFILE | O_RDWR)?;
    fill_file(&fd, 100, 11)?;
    let name = v.path("name");
    link(&fd, &name)?;
    v.stand()?;
    same(
        "inode",
        fs::metadata(&name)?.ino(),
        file(&fd)?.metadata()?.ino(),
    )
}

/// The file has another name, under which others see what is written.
fn hard_link(v: &Victim) -> Result<()> {
    let (first, second) = (v.path("first"), v.path("second"));
    fs::write(&first, "x")?;
    fs::hard_link(&first, &second)?;
    // The kernel learns the other name when it is looked up.
    let fd = open(&first, O_RDWR)?;
    fs::remove_file(&first)?;
    fs::metadata(&second)?;
    v.stand()?;
    same(
        "inode",
        fs::metadata(&second)?.ino(),
        file(&fd)?.metadata()?.ino(),
    )?;
    same("byte", *b"x", {
        let mut byte = [0];
        file(&fd)?.read_exact_at(&mut byte, 0)?;
        byte
    })
}

/// What shm_open(3) makes is a file with a name; unlinked, it is one without.
fn posix_shm(v: &Victim) -> Result<()> {
    let name = CString::new(format!("/selftest-{}", sys::getpid()))?;
    // SAFETY: `name` is a string.
    let fd = owned(unsafe { libc::shm_open(name.as_ptr(), O_RDWR | O_CREAT | O_EXCL, 0o600) })?;
    file(&fd)?.set_len(3 * PAGE as u64)?;
    let area = Area::map(
        3 * PAGE,
        PROT_READ | PROT_WRITE,
        MAP_SHARED,
        fd.as_raw_fd(),
        0,
    )?;
    // SAFETY: as above.
    cvt(unsafe { libc::shm_unlink(name.as_ptr()) })?;
    fill(area.bytes(), 12);
    v.stand()?;
    verify("mapping", area.bytes(), 12)?;
    verify_file("file", &fd, 3 * PAGE, 12)?;
    area.bytes()[0] = 17;
    let mut byte = [0];
    file(&fd)?.read_exact_at(&mut byte, 0)?;
    same("byte", 17, byte[0])
}

/// The directory of the file is gone, too: the one above it takes its place.
fn directory_gone(v: &Victim) -> Result<()> {
    let dir = v.path("gone");
    fs::create_dir(&dir)?;
    let fd = unlinked(&dir.join("data"))?;
    fill_file(&fd, 1000, 13)?;
    fs::remove_dir(&dir)?;
    v.stand()?;
    verify_file("contents", &fd, 1000, 13)
}

fn attribute(v: &Victim) -> Result<()> {
    let fd = unlinked(&v.path("data"))?;
    let (name, value) = (c"user.color", b"blue");
    let size = value.len();
    // SAFETY: name and value are valid.
    let set = cvt(unsafe {
        libc::fsetxattr(
            fd.as_raw_fd(),
            name.as_ptr(),
            value.as_ptr().cast(),
            size,
            0,
        )
    });
    if sys::fails_with(set, libc::EOPNOTSUPP) {
        return skip("no extended attributes on this file system");
    }
    v.ready_fd(fd.as_raw_fd())?;
    v.wait();
    // SAFETY: the name is a string; only the size is asked for.
    let size =
        cvt(unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), std::ptr::null_mut(), 0) })?;
    same("size of the attribute", 4, size)
}

/// A program that was removed while it runs.
fn executable(v: &Victim) -> Result<()> {
    let copy = v.path("copy");
    if std::env::current_exe()? != copy {
        fs::copy("/proc/self/exe", &copy)?;
        return Err(Command::new(&copy)
            .args(std::env::args_os().skip(1))
            .exec()
            .into());
    }
    fs::remove_file(&copy)?;
    v.stand()
}

fn in_a_directory(v: &Victim) -> Result<()> {
    let dir = v.path("dir");
    fs::create_dir_all(&dir)?;
    let fd = unlinked(&dir.join("data"))?;
    fill_file(&fd, 100, 14)?;
    v.stand()?;
    verify_file("contents", &fd, 100, 14)
}

/// Where there is no directory any more, the restart says so and leaves nothing.
fn no_directory(b: &Bench<'_>) -> Result<()> {
    let image = b.path("image");
    let mut life = b.start("in-a-directory")?;
    life.checkpoint_and_kill(&image)?;
    let dir = b.path("dir");
    fs::remove_dir(&dir)?;
    let dir = dir.display().to_string();
    b.rstr()
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &["unlinked file", &dir])
        .map(drop)
}

/// Mounts a file system in memory.
fn mount(at: &Path, size: usize) -> Result<()> {
    let (at, options) = (
        CString::new(at.as_os_str().as_bytes())?,
        CString::new(format!("size={size}"))?,
    );
    let kind = c"tmpfs".as_ptr();
    // SAFETY: all are strings.
    cvt(unsafe { libc::mount(kind, at.as_ptr(), kind, 0, options.as_ptr().cast()) })?;
    Ok(())
}

fn unmount(at: &Path) -> Result<()> {
    let at = CString::new(at.as_os_str().as_bytes())?;
    // SAFETY: it is a string.
    cvt(unsafe { libc::umount2(at.as_ptr(), libc::MNT_DETACH) })?;
    Ok(())
}

fn large(v: &Victim) -> Result<()> {
    let dir = v.path("mounted");
    fs::create_dir_all(&dir)?;
    mount(&dir, 128 * PAGE)?;
    let fd = unlinked(&dir.join("data"))?;
    fill_file(&fd, 64 * PAGE, 15)?;
    v.stand()?;
    verify_file("contents", &fd, 64 * PAGE, 15)?;
    drop(fd);
    unmount(&dir)
}

/// Contents take room of the file system; where there is too little, the restart says so.
fn too_large(b: &Bench<'_>) -> Result<()> {
    let image = b.path("image");
    let dir = b.path("mounted");
    let mut life = b.start("large")?;
    life.checkpoint_and_kill(&image)?;
    unmount(&dir)?;
    mount(&dir, 16 * PAGE)?;
    let full = b.rstr().arg("-i").arg(&image).run()?;
    unmount(&dir)?;
    full.refused("rstr", &["ENOSPC"])?;
    mount(&dir, 128 * PAGE)?;
    life.restart(&image, &[])?;
    life.passes()
}
