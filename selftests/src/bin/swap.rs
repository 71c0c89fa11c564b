// SPDX-License-Identifier: GPL-2.0

//! Memory that the kernel has put into swap.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    memfd,
    seek,
    verify,
    Area,
    PAGE, //
};
use selftests::{
    Bench,
    NumbersThatFollow,
    Outcome,
    Process, //
};
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "paged-out",
            run: |bench| with_swap(bench, "one-process"),
        },
        Custom {
            name: "paged-out-and-shared",
            run: |bench| with_swap(bench, "two-processes"),
        },
        Custom {
            name: "image",
            run: image_in_swap,
        },
    ],
    victims: &[
        Case::new("one-process", one_process).no_control(),
        Case::new("two-processes", two_processes).no_control(),
    ],
    // There is swap for one test at a time.
    jobs: 1,
    ..Suite::new("swap")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const MIB: usize = 1 << 20;
const SWAP_PAGES: u32 = 8192;

/// A file that the kernel swaps to.
struct Swap(CString);

impl Swap {
    fn new(path: &Path) -> Result<Self> {
        let mut file = fs::File::create(path)?;
        for _ in 0..SWAP_PAGES {
            file.write_all(&[0; PAGE])?;
        }
        // Version, last page, number of bad pages; and the signature at the end of the page.
        for (at, word) in [(1024, 1), (1028, SWAP_PAGES - 1), (1032, 0)] {
            file.write_all_at(&word.to_le_bytes(), at)?;
        }
        file.write_all_at(b"SWAPSPACE2", PAGE as u64 - 10)?;
        file.sync_all()?;
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: the path is a C string.
        cvt(unsafe { libc::swapon(path.as_ptr(), 0) }).context("swapon")?;
        Ok(Self(path))
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::swapoff(self.0.as_ptr()) };
    }
}

/// How many pages of an area are in swap.
fn in_swap(area: &Area) -> Result<usize> {
    let mut entries = vec![0; area.pages() * 8];
    let index = (area.addr as usize / PAGE * 8) as u64;
    fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, index)?;
    Ok(entries.chunks_exact(8).filter(|e| e[7] & 0x40 != 0).count())
}

fn page_out(area: &Area) -> Result<()> {
    // SAFETY: the area is ours.
    cvt(unsafe { libc::madvise(area.addr.cast(), area.len, libc::MADV_PAGEOUT) })?;
    let there = in_swap(area)?;
    ensure!(there > area.pages() / 2, "only {there} pages are in swap");
    Ok(())
}

fn one_process(v: &Victim) -> Result<()> {
    let area = Area::anon(8 * MIB, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    page_out(&area)?;
    v.stand()?;
    verify("memory", area.bytes(), 1)?;
    fill(area.bytes(), 2);
    verify("memory, written again", area.bytes(), 2)
}

/// Both have the pages, wherever they are.
fn two_processes(v: &Victim) -> Result<()> {
    let area = Area::anon(4 * MIB, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 3);
    // Before the child has the pages too: the kernel does not page out by request what others have.
    page_out(&area)?;
    let mut child = {
        let _numbers = NumbersThatFollow::choose();
        Process::fork(|| {
            v.wait();
            let seen = verify("in the child", area.bytes(), 3).is_ok();
            fill(area.bytes(), 4);
            i32::from(!seen || verify("what it wrote", area.bytes(), 4).is_err())
        })?
    };
    v.stand()?;
    verify("in the parent", area.bytes(), 3)?;
    let status = child.wait(Duration::from_secs(20))?;
    ensure!(status.success(), "child: {status}");
    verify("after the child wrote", area.bytes(), 3)
}

/// Checkpoints a victim that is in swap, pages it out again while its pages are shared anew, and
/// lets it check, in the order: left running, restarted.
fn with_swap(bench: &Bench<'_>, victim: &str) -> Result<()> {
    let _swap = Swap::new(&bench.path("swap"))?;
    let mut life = bench.start(victim)?;
    let image = bench.path("paged-out.img");
    life.checkpoint(&[], &image)?;
    let size = fs::metadata(&image)?.len() as usize;
    ensure!(size < 12 * MIB, "the image takes {size} bytes");
    life.tell()?;
    match life.ends_well()? {
        Outcome::Pass => {}
        other => bail!("left running: {other:?}"),
    }
    bench.forget()?;
    life.restart(&image, &[])?;
    life.settle(Duration::from_millis(50))?;
    life.tell()?;
    match life.ends_well()? {
        Outcome::Pass => Ok(()),
        other => bail!("restarted: {other:?}"),
    }
}

/// Bytes in swap.
fn used_swap() -> Result<usize> {
    // SAFETY: all zeroes is valid for a struct of numbers.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writes.
    cvt(unsafe { libc::sysinfo(&mut info) })?;
    Ok((info.totalswap - info.freeswap) as usize * info.mem_unit as usize)
}

/// The image itself is paged out.
fn image_in_swap(bench: &Bench<'_>) -> Result<()> {
    let _swap = Swap::new(&bench.path("swap"))?;
    let mut life = bench.start("one-process")?;
    let image = memfd("image", libc::MFD_CLOEXEC)?;
    let ckpt = bench.ckpt().arg(life.pid.to_string());
    ckpt.stdout(image.try_clone()?).run()?.succeeded("ckpt")?;
    life.kill()?;
    let len = sys::file(&image)?.metadata()?.len() as usize / PAGE * PAGE;
    let before = used_swap()?;
    let view = Area::map(len, RW, libc::MAP_SHARED, image.as_raw_fd(), 0)?;
    // What is not mapped is not paged out.
    std::hint::black_box(view.bytes().to_vec());
    // SAFETY: the area is ours.
    unsafe {
        cvt(libc::madvise(view.addr.cast(), len, libc::MADV_PAGEOUT))?;
        cvt(libc::munmap(view.addr.cast(), len))?;
    }
    let there = used_swap()?.saturating_sub(before);
    ensure!(there > len / 2, "only {there} of {len} bytes are in swap");
    seek(&image, 0, libc::SEEK_SET)?;
    life.restart_by(bench.rstr().stdin(image.try_clone()?))?;
    life.passes()
}
