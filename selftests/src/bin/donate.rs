// SPDX-License-Identifier: GPL-2.0

//! Trees that are killed when their image is complete (`ckpt --kill`), where that is a file in tmpfs:
//! it gets their pages.

use libc::{
    MADV_HUGEPAGE,
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    enter_cgroup,
    fill,
    memfd,
    open,
    pipe,
    read,
    seek,
    verify,
    write,
    Area,
    PAGE, //
};
use selftests::{
    Bench,
    Life,
    NumbersThatFollow,
    Process, //
};
use std::ffi::CString;
use std::fs::{
    self,
    File, //
};
use std::io::Write;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "two-cycles",
            run: two_cycles,
        },
        Custom {
            name: "copied",
            run: copied,
        },
        Custom {
            name: "moved",
            run: moved,
        },
        Custom {
            name: "at-hand",
            run: at_hand,
        },
        Custom {
            name: "no-room",
            run: no_room,
        },
        Custom {
            name: "file-with-pages",
            run: file_with_pages,
        },
        Custom {
            name: "sealed",
            run: sealed,
        },
        Custom {
            name: "appended",
            run: |b| behind(b, libc::O_APPEND, PAGE),
        },
        Custom {
            name: "behind-a-page",
            run: |b| behind(b, 0, PAGE),
        },
        Custom {
            name: "within-a-page",
            run: |b| behind(b, 0, 1000),
        },
        Custom {
            name: "owner-dies",
            run: owner_dies,
        },
        Custom {
            name: "no-name",
            run: no_name,
        },
    ],
    victims: &[
        Case::new("all-kinds", all_kinds),
        Case::new("in-a-cgroup", in_a_cgroup),
        Case::new("spliced", spliced),
        Case::new("owner", owner),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("donate")
};

fn main() -> ExitCode {
    SUITE.main()
}

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);
const RW: i32 = PROT_READ | PROT_WRITE;

/// Has pages of all kinds: its own, with a hole; locked ones; huge ones; hidden ones; those of a
/// file that it has written; and some that its child has, too.
fn all_kinds(v: &Victim) -> Result<()> {
    let own = Area::anon(8 * MIB, RW, MAP_PRIVATE)?;
    let hole = 300 * PAGE..310 * PAGE;
    fill(&mut own.bytes()[..hole.start], 1);
    fill(&mut own.bytes()[hole.end..], 2);
    let locked = Area::anon(100 * PAGE, RW, MAP_PRIVATE)?;
    // SAFETY: these are the bounds of areas that are ours.
    unsafe { cvt(libc::mlock(locked.addr.cast(), locked.len)) }?;
    fill(locked.bytes(), 3);
    let huge = Area::anon(6 * MIB, RW, MAP_PRIVATE)?;
    // SAFETY: as above. It need not succeed.
    unsafe { libc::madvise(huge.addr.cast(), huge.len, MADV_HUGEPAGE) };
    fill(huge.bytes(), 4);
    let hidden = Area::anon(100 * PAGE, RW, MAP_PRIVATE)?;
    fill(hidden.bytes(), 5);
    hidden.protect(0, hidden.len, PROT_NONE)?;
    let path = v.path("data");
    fs::write(&path, vec![6; 100 * PAGE])?;
    let file = open(&path, libc::O_RDONLY)?;
    let written = Area::map(100 * PAGE, RW, MAP_PRIVATE, file.as_raw_fd(), 0)?;
    fill(&mut written.bytes()[..50 * PAGE], 6);

    let shared = Area::anon(100 * PAGE, RW, MAP_PRIVATE)?;
    fill(shared.bytes(), 7);
    let (told, tell) = pipe(libc::O_CLOEXEC)?;
    let numbers = NumbersThatFollow::choose();
    let mut child = Process::fork(|| {
        fill(&mut shared.bytes()[..10 * PAGE], 8);
        let told = read(&told, &mut [0]).is_ok_and(|n| n == 1);
        let first = verify("pages of its own", &shared.bytes()[..10 * PAGE], 8);
        let rest = verify_from(&shared, 10, 7);
        i32::from(!told || first.is_err() || rest.is_err())
    })?;
    drop(numbers);

    v.stand()?;
    verify("before the hole", &own.bytes()[..hole.start], 1)?;
    verify("behind the hole", &own.bytes()[hole.end..], 2)?;
    let present = own.present()?;
    let pages = hole.start / PAGE..hole.end / PAGE;
    ensure!(!present[pages].contains(&true), "the hole was filled");
    verify("locked pages", locked.bytes(), 3)?;
    verify("huge pages", huge.bytes(), 4)?;
    hidden.protect(0, hidden.len, RW)?;
    verify("hidden pages", hidden.bytes(), 5)?;
    verify("written pages", &written.bytes()[..50 * PAGE], 6)?;
    ensure!(
        written.bytes()[50 * PAGE..].iter().all(|byte| *byte == 6),
        "pages of the file differ"
    );
    verify("shared pages", shared.bytes(), 7)?;
    write(&tell, b"x")?;
    ensure!(child.wait(LIMIT)?.success(), "the child found a difference");
    Ok(())
}

/// Verifies the pages of an area from the one with number `page` on, when all were filled at once.
fn verify_from(area: &Area, page: usize, seed: u64) -> Result<()> {
    let mut expected = vec![0; area.len];
    fill(&mut expected, seed);
    ensure!(area.bytes()[page * PAGE..] == expected[page * PAGE..]);
    Ok(())
}

/// Has memory that its own cgroup has paid for.
fn in_a_cgroup(v: &Victim) -> Result<()> {
    enter_cgroup("donate")?;
    let area = Area::anon(16 * MIB, RW, MAP_PRIVATE)?;
    // SAFETY: the area is ours.
    unsafe { libc::madvise(area.addr.cast(), area.len, libc::MADV_NOHUGEPAGE) };
    fill(area.bytes(), 1);
    v.stand()?;
    verify("memory", area.bytes(), 1)
}

/// Where others find the pipe of `spliced`, and how much is in it.
const PIPE: i32 = 100;
const SPLICED: usize = 4 * MIB;

/// Has a pipe with room for `SPLICED`.
fn large_pipe() -> Result<(OwnedFd, OwnedFd)> {
    let ends = pipe(libc::O_CLOEXEC)?;
    sys::fcntl(&ends.1, libc::F_SETPIPE_SZ, SPLICED as i32)?;
    Ok(ends)
}

/// Has pages that are in its pipe, too.
fn spliced(v: &Victim) -> Result<()> {
    enter_cgroup("donate")?;
    let area = Area::anon(16 * MIB, RW, MAP_PRIVATE)?;
    // SAFETY: the area is ours.
    unsafe { libc::madvise(area.addr.cast(), area.len, libc::MADV_NOHUGEPAGE) };
    fill(area.bytes(), 1);
    let (from, to) = large_pipe()?;
    let part = &area.bytes()[..SPLICED];
    let mut given = 0;
    while given < SPLICED {
        let iov = libc::iovec {
            iov_base: part[given..].as_ptr().cast_mut().cast(),
            iov_len: SPLICED - given,
        };
        // SAFETY: the pages are there.
        given += cvt(unsafe { libc::vmsplice(to.as_raw_fd(), &iov, 1, 0) })? as usize;
    }
    sys::give(from.as_raw_fd(), PIPE)?;
    v.stand()?;
    verify("memory", area.bytes(), 1)?;
    verify("what is in the pipe", &drain(&from)?, 1)
}

/// Reads `SPLICED` bytes.
fn drain(from: &OwnedFd) -> Result<Vec<u8>> {
    let mut bytes = vec![0; SPLICED];
    let mut got = 0;
    while got < SPLICED {
        let more = read(from, &mut bytes[got..])?;
        ensure!(more > 0, "the pipe ends after {got} bytes");
        got += more;
    }
    Ok(bytes)
}

fn two_cycles(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("all-kinds")?;
    let (first, second) = (dir.join("first"), dir.join("second"));
    life.checkpoint_and_kill(&first)?;
    b.ckpt()
        .arg("verify")
        .arg(&first)
        .run()?
        .succeeded("ckpt verify")?;
    life.restart_detached(&first, &[])?;
    life.checkpoint_and_kill(&second)?;
    fs::remove_file(&first)?;
    life.restart_detached(&second, &[])?;
    life.passes()
}

/// The image is a file like any other.
fn copied(b: &Bench<'_>) -> Result<()> {
    let (disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("all-kinds")?;
    let (image, copy) = (dir.join("image"), b.path("copy"));
    life.checkpoint_and_kill(&image)?;
    fs::copy(&image, &copy)?;
    drop(disk);
    life.restart_detached(&copy, &[])?;
    life.passes()
}

/// A number of the memory of the cgroup of a victim.
fn stat(pid: i32, name: &str) -> Result<usize> {
    let path = format!("/sys/fs/cgroup/donate-{pid}/memory.stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name}"))?.parse()?)
}

/// The pages are the very same: who has paid for them has paid for the image.
fn moved(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("in-a-cgroup")?;
    let pid = life.pid;
    let anon = stat(pid, "anon")?;
    ensure!(anon >= 16 * MIB, "it has {anon} bytes only");
    let image = dir.join("image");
    life.checkpoint_and_kill(&image)?;
    let shmem = || stat(pid, "shmem");
    // A few may be copied, as somebody else looks at them.
    ensure!(shmem()? >= 15 * MIB, "only {} bytes moved", shmem()?);
    let anon = stat(pid, "anon")?;
    ensure!(anon < MIB, "{anon} bytes are left");
    life.restart_detached(&image, &[])?;
    life.passes()?;
    fs::remove_file(&image)?;
    let freed = sys::until(LIMIT, || shmem().is_ok_and(|bytes| bytes < MIB));
    ensure!(freed, "{} bytes are left of the image", shmem()?);
    Ok(())
}

/// Pages that somebody outside of the tree has at hand are copied: what becomes of the image is
/// nothing to him.
fn at_hand(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("spliced")?;
    let (from, to) = large_pipe()?;
    let theirs = File::open(format!("/proc/{}/fd/{PIPE}", life.pid))?;
    // SAFETY: no memory is involved.
    let shared = cvt(unsafe { libc::tee(theirs.as_raw_fd(), to.as_raw_fd(), SPLICED, 0) })?;
    same("bytes that are shared", SPLICED as isize, shared)?;
    drop(theirs);
    let image = dir.join("image");
    life.checkpoint_and_kill(&image)?;
    let moved = stat(life.pid, "shmem")?;
    let (least, most) = (15 * MIB - SPLICED, 17 * MIB - SPLICED);
    ensure!((least..most).contains(&moved), "{moved} bytes moved");
    life.restart_detached(&image, &[])?;
    life.passes()?;
    let len = fs::metadata(&image)?.len();
    let mut image = fs::OpenOptions::new().write(true).open(&image)?;
    image.write_all(&vec![0xee; usize::try_from(len)?])?;
    verify("what was shared", &drain(&from)?, 1)
}

fn no_room(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=4m")?;
    let mut life = b.start("in-a-cgroup")?;
    let ckpt = b.ckpt().arg("--kill").arg(life.pid.to_string());
    ckpt.arg("-o")
        .arg(dir.join("image"))
        .run()?
        .refused("ckpt", &["space"])?;
    same("files left", 0, fs::read_dir(&dir)?.count())?;
    life.passes()
}

/// Checkpoints with standard output `to` and kills.
fn kill_to(b: &Bench<'_>, life: &mut Life<'_>, to: &OwnedFd) -> Result<()> {
    b.ckpt()
        .arg("--kill")
        .arg(life.pid.to_string())
        .stdout(to.try_clone()?)
        .run()?
        .succeeded("ckpt")?;
    same("signal", Some(libc::SIGKILL), life.reap()?.signal())?;
    life.reap_rest()
}

fn passes_from(b: &Bench<'_>, life: &mut Life<'_>, image: &OwnedFd) -> Result<()> {
    life.restart_by(b.rstr().stdin(image.try_clone()?))?;
    life.passes()
}

/// Somebody has mapped the file, and has made it have pages, which do not become others.
fn file_with_pages(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("all-kinds")?;
    let image = memfd("image", libc::MFD_CLOEXEC)?;
    let len = 12 * MIB;
    sys::file(&image)?.set_len(len as u64)?;
    let view = Area::map(len, RW, MAP_SHARED, image.as_raw_fd(), 0)?;
    view.bytes().fill(0xee);
    kill_to(b, &mut life, &image)?;
    seek(&image, 0, libc::SEEK_SET)?;
    let mut bytes = vec![0; len];
    ensure!(read(&image, &mut bytes)? == len);
    ensure!(view.bytes() == bytes, "the mapping shows something else");
    // SAFETY: nobody uses the view any more.
    unsafe { cvt(libc::munmap(view.addr.cast(), view.len)) }?;
    seek(&image, 0, libc::SEEK_SET)?;
    passes_from(b, &mut life, &image)
}

fn sealed(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("all-kinds")?;
    let image = memfd("image", libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
    sys::fcntl(&image, libc::F_ADD_SEALS, libc::F_SEAL_GROW)?;
    b.ckpt()
        .arg("--kill")
        .arg(life.pid.to_string())
        .stdout(image)
        .run()?
        .refused("ckpt", &["image: cannot be written: EPERM"])?;
    life.passes()
}

/// The image comes behind something else in its file.
fn behind(b: &Bench<'_>, flags: i32, len: usize) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("all-kinds")?;
    let path = dir.join("file");
    File::create(&path)?.write_all(&vec![0xee; len])?;
    let file = open(&path, libc::O_RDWR | flags)?;
    seek(&file, len as i64, libc::SEEK_SET)?;
    kill_to(b, &mut life, &file)?;
    seek(&file, 0, libc::SEEK_SET)?;
    let mut before = vec![0; len];
    ensure!(read(&file, &mut before)? == len);
    ensure!(before.iter().all(|byte| *byte == 0xee), "what was before");
    passes_from(b, &mut life, &file)
}

/// What the owner of a robust futex shares with the test.
fn shared_word(path: &Path) -> Result<Area> {
    let file = open(path, libc::O_RDWR)?;
    Area::map(PAGE, RW, MAP_SHARED, file.as_raw_fd(), 0)
}

/// Distance from an entry of the list to its futex, and what the kernel sets there.
const FUTEX: usize = 8;
const OWNER_DIED: u32 = 0x4000_0000;

/// Has a robust futex that others see; the list of these is in memory of its own.
fn owner(v: &Victim) -> Result<()> {
    fs::write(v.path("word"), [0; PAGE])?;
    let word = shared_word(&v.path("word"))?;
    let own = Area::anon(MIB, RW, MAP_PRIVATE)?;
    fill(own.bytes(), 1);
    let head: &mut [usize; 3] = Box::leak(Box::new([0; 3]));
    *head = [word.addr as usize, FUTEX, 0];
    // SAFETY: the entry is in the mapping, which stays, and so does the head.
    unsafe {
        word.addr.cast::<usize>().write(head.as_ptr() as usize);
        futex(&word).store(sys::gettid() as u32, Ordering::Relaxed);
        cvt(libc::syscall(libc::SYS_set_robust_list, head.as_ptr(), 24))?;
    }
    v.stand()?;
    verify("memory", own.bytes(), 1)
}

fn futex(word: &Area) -> &'static AtomicU32 {
    // SAFETY: the mapping stays, and the futex is in it.
    unsafe { &*ptr::from_ref(&word.bytes()[FUTEX]).cast() }
}

/// Others learn of the death of an owner as ever.
fn owner_dies(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("owner")?;
    let word = shared_word(&b.path("word"))?;
    let futex = futex(&word);
    same("owner", life.pid as u32, futex.load(Ordering::Relaxed))?;
    life.checkpoint_and_kill(&dir.join("image"))?;
    let now = futex.load(Ordering::Relaxed);
    ensure!(now & OWNER_DIED != 0, "nobody was told: {now:#x}");
    Ok(())
}

/// The tree is gone, so the image stays, whatever becomes of its name.
fn no_name(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("all-kinds")?;
    // Nothing takes the place of what something is mounted on.
    let image = dir.join("image");
    fs::write(&image, "")?;
    let name = CString::new(image.as_os_str().as_bytes())?;
    let (path, none) = (name.as_ptr(), ptr::null());
    // SAFETY: the paths are C strings.
    cvt(unsafe { libc::mount(path, path, none, libc::MS_BIND, none.cast()) })?;
    let ckpt = b.ckpt().arg("--kill").arg(life.pid.to_string());
    let ckpt = ckpt.arg("-o").arg(&image).run()?;
    ensure!(!ckpt.status.success(), "ckpt succeeded");
    let entries = fs::read_dir(&dir)?.collect::<std::io::Result<Vec<_>>>()?;
    let mut paths = entries.iter().map(|entry| entry.path());
    let part = paths.find(|path| *path != image).context("no image")?;
    ckpt.names("ckpt", &["cannot name", &part.display().to_string()])?;
    same("signal", Some(libc::SIGKILL), life.reap()?.signal())?;
    life.reap_rest()?;
    life.restart_detached(&part, &[])?;
    life.passes()
}
