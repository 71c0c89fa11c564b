// SPDX-License-Identifier: GPL-2.0

//! Images in tmpfs, whose pages are copied many at a time where nothing is in the way of that.

use libc::{
    MAP_PRIVATE,
    MAP_SHARED,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    memfd,
    open,
    read,
    seek,
    verify,
    Area,
    PAGE, //
};
use selftests::{
    Bench,
    Finished,
    Life, //
};
use std::fs::{
    self,
    File, //
};
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "over-pages",
            run: over_pages,
        },
        Custom {
            name: "over-some-pages",
            run: over_some_pages,
        },
        Custom {
            name: "within-a-page",
            run: within_a_page,
        },
        Custom {
            name: "large-folios",
            run: large_folios,
        },
        Custom {
            name: "no-space",
            run: no_space,
        },
        Custom {
            name: "file-size-limit",
            run: file_size_limit,
        },
        Custom {
            name: "sealed",
            run: sealed,
        },
        Custom {
            name: "hole",
            run: hole,
        },
        Custom {
            name: "cut-short",
            run: cut_short,
        },
    ],
    victims: &[Case::new("pages", pages)],
    jobs: 1,
    ..Suite::new("tmpfs")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const MIB: usize = 1 << 20;
/// What the victim has.
const LEN: usize = 16 * MIB;

/// Has memory in small pages, and in some large ones.
fn pages(v: &Victim) -> Result<()> {
    let area = Area::anon(LEN, RW, MAP_PRIVATE)?;
    let (small, large) = (LEN / 2, LEN / 2);
    // SAFETY: both are parts of the area.
    unsafe {
        cvt(libc::madvise(
            area.addr.cast(),
            small,
            libc::MADV_NOHUGEPAGE,
        ))?;
        // It need not succeed.
        libc::madvise(area.addr.add(small).cast(), large, libc::MADV_HUGEPAGE);
    }
    fill(area.bytes(), 1);
    v.stand()?;
    verify("memory", area.bytes(), 1)
}

/// Checkpoints to where `image` stands.
fn write_to(b: &Bench<'_>, life: &Life<'_>, image: &OwnedFd) -> Result<Finished> {
    b.ckpt()
        .arg(life.pid.to_string())
        .stdout(image.try_clone()?)
        .run()
}

/// Kills the victim and restarts it from `pos` of `image`.
fn passes_from(b: &Bench<'_>, life: &mut Life<'_>, image: &OwnedFd, pos: i64) -> Result<()> {
    seek(image, pos, libc::SEEK_SET)?;
    life.kill()?;
    life.restart_by(b.rstr().stdin(image.try_clone()?))?;
    life.passes()
}

/// The pages that others have mapped stay those of the file.
fn over_pages(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("pages")?;
    let image = memfd("image", libc::MFD_CLOEXEC)?;
    let len = LEN + 4 * MIB;
    sys::file(&image)?.set_len(len as u64)?;
    let view = Area::map(len, RW, MAP_SHARED, image.as_raw_fd(), 0)?;
    view.bytes().fill(0xee);
    write_to(b, &life, &image)?.succeeded("ckpt")?;
    seek(&image, 0, libc::SEEK_SET)?;
    let mut bytes = vec![0; len];
    ensure!(read(&image, &mut bytes)? == len);
    ensure!(view.bytes() == bytes, "the mapping shows something else");
    ensure!(bytes.ends_with(&[0xee; PAGE]), "what comes behind");
    // SAFETY: nobody uses the view any more.
    unsafe { cvt(libc::munmap(view.addr.cast(), view.len)) }?;
    passes_from(b, &mut life, &image, 0)
}

fn over_some_pages(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("pages")?;
    let image = memfd("image", libc::MFD_CLOEXEC)?;
    let file = sys::file(&image)?;
    for page in [1, 40, 700, 701, 2000] {
        file.write_all_at(&[0xee; 100], page * PAGE as u64)?;
    }
    write_to(b, &life, &image)?.succeeded("ckpt")?;
    passes_from(b, &mut life, &image, 0)
}

fn within_a_page(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("pages")?;
    let image = memfd("image", libc::MFD_CLOEXEC)?;
    sys::file(&image)?.write_all_at(&[0xee; 1000], 0)?;
    seek(&image, 1000, libc::SEEK_SET)?;
    write_to(b, &life, &image)?.succeeded("ckpt")?;
    passes_from(b, &mut life, &image, 1000)
}

/// The file system makes large folios, and all are read.
fn large_folios(b: &Bench<'_>) -> Result<()> {
    let Ok((_disk, dir)) = b.tmpfs("size=64m,huge=always") else {
        return skip("there are no large folios in tmpfs");
    };
    let mut life = b.start("pages")?;
    let image = dir.join("image");
    life.checkpoint(&[], &image)?;
    life.kill()?;
    life.restart_detached(&image, &[])?;
    life.passes()
}

/// Nothing is left of what did not have room, neither file nor space.
fn no_space(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=4m")?;
    let mut life = b.start("pages")?;
    let before = sys::free_blocks(&dir)?;
    let ckpt = b.ckpt().arg(life.pid.to_string());
    let ckpt = ckpt.arg("-o").arg(dir.join("image")).run()?;
    ckpt.refused("ckpt", &["no space left"])?;
    same("files left", 0, fs::read_dir(&dir)?.count())?;
    same("free blocks", before, sys::free_blocks(&dir)?)?;
    life.passes()
}

/// Has what this process starts not write files of more than `len` bytes.
struct FileSize(libc::rlimit);

impl FileSize {
    fn limit(len: usize) -> Result<Self> {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `before` is valid for writes.
        cvt(unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut before) })?;
        let this = Self(before);
        let limit = libc::rlimit {
            rlim_cur: len as u64,
            ..before
        };
        // SAFETY: `limit` is valid.
        unsafe {
            cvt(libc::setrlimit(libc::RLIMIT_FSIZE, &limit))?;
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        }
        Ok(this)
    }
}

impl Drop for FileSize {
    fn drop(&mut self) {
        // SAFETY: the limit is valid.
        unsafe {
            libc::setrlimit(libc::RLIMIT_FSIZE, &self.0);
            libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        }
    }
}

fn file_size_limit(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("pages")?;
    let image = memfd("image", libc::MFD_CLOEXEC)?;
    let limit = FileSize::limit(4 * MIB + 100)?;
    write_to(b, &life, &image)?.refused("ckpt", &["larger than a file may be"])?;
    drop(limit);
    let len = sys::file(&image)?.metadata()?.len();
    ensure!(len <= 4 * MIB as u64 + 100, "{len} bytes were written");
    life.passes()
}

fn sealed(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("pages")?;
    let image = memfd("image", libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)?;
    sys::file(&image)?.set_len(4 * MIB as u64)?;
    sys::fcntl(&image, libc::F_ADD_SEALS, libc::F_SEAL_GROW)?;
    write_to(b, &life, &image)?.refused("ckpt", &["image: cannot be written: EPERM"])?;
    same(
        "length",
        4 * MIB as u64,
        sys::file(&image)?.metadata()?.len(),
    )?;
    life.passes()
}

/// Where a page of the image is gone there are zeroes, which are found out.
fn hole(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("pages")?;
    let image = dir.join("image");
    life.checkpoint(&[], &image)?;
    life.kill()?;
    let whole = fs::read(&image)?;
    let file = open(&image, libc::O_RDWR)?;
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let (pos, len) = (LEN as i64 / 2, PAGE as i64);
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::fallocate(file.as_raw_fd(), punch, pos, len) })?;
    let rstr = b.rstr().arg("-i").arg(&image).run()?;
    rstr.refused("rstr", &["damaged"])?;
    fs::write(&image, whole)?;
    life.restart_detached(&image, &[])?;
    life.passes()
}

fn cut_short(b: &Bench<'_>) -> Result<()> {
    let (_disk, dir) = b.tmpfs("size=64m")?;
    let mut life = b.start("pages")?;
    let image = dir.join("image");
    life.checkpoint(&[], &image)?;
    life.kill()?;
    let cut = dir.join("cut");
    for len in [LEN / 2, LEN / 2 + 100] {
        fs::copy(&image, &cut)?;
        File::options()
            .write(true)
            .open(&cut)?
            .set_len(len as u64)?;
        let rstr = b.rstr().arg("-i").arg(&cut).run()?;
        rstr.refused("rstr", &["truncated"])?;
    }
    life.restart_detached(&image, &[])?;
    life.passes()
}
