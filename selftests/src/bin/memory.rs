// SPDX-License-Identifier: GPL-2.0

//! Private anonymous memory, stack and heap.

use libc::{
    MAP_GROWSDOWN,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MAP_STACK, //
};
use libc::{
    PROT_EXEC,
    PROT_NONE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::maps::{
    flags_at,
    Maps, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    verify,
    Area,
    PAGE, //
};
use std::fs;
use std::hint::black_box;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("pattern", pattern),
        Case::new("holes", holes),
        Case::new("zero-pages", zero_pages),
        Case::new("sparse", sparse),
        Case::new("protection", protection),
        Case::new("read-only", read_only),
        Case::new("code", code),
        Case::new("guard-page", guard_page),
        Case::new("stack", stack),
        Case::new("grows-down", grows_down),
        Case::new("brk", brk),
        Case::new("allocator", allocator),
        Case::new("many-areas", many_areas),
        Case::new("shapes", shapes),
        Case::new("neighbours", neighbours),
        Case::new("moved", moved),
        Case::new("names", names),
        Case::new("mapping-after", mapping_after),
        Case::new("copy-on-write", copy_on_write),
        Case::new("once-pinned", once_pinned),
        Case::new("locked", locked),
        Case::new("locked-on-fault", locked_on_fault),
        Case::new("locked-in-future", locked_in_future),
    ],
    ..Suite::new("memory")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const MIB: usize = 1 << 20;

/// A whole that is larger than any buffer on the way.
fn pattern(v: &Victim) -> Result<()> {
    let area = Area::anon(32 * MIB, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    v.stand()?;
    verify("32 MiB", area.bytes(), 1)?;
    fill(area.bytes(), 2);
    verify("32 MiB, written again", area.bytes(), 2)
}

/// Pages that were never touched are not there after the restart either.
fn holes(v: &Victim) -> Result<()> {
    let area = Area::anon(32 * MIB, RW, MAP_PRIVATE)?;
    // Runs of pages of very different lengths, with holes of other lengths between them.
    let runs: Vec<_> = (0..)
        .map(|i: usize| (i * i * 7 % 97 + 1, i * 13 % 41 + 1))
        .scan(0, |at, (run, hole)| {
            let start = *at;
            *at += run + hole;
            Some(start..start + run)
        })
        .take_while(|run| run.end <= area.pages())
        .collect();
    for run in &runs {
        fill(
            &mut area.bytes()[run.start * PAGE..run.end * PAGE],
            run.start as u64,
        );
    }
    let before = area.present()?;
    let touched: usize = runs.iter().map(ExactSizeIterator::len).sum();
    let there = before.iter().filter(|&&p| p).count();
    ensure!(there >= touched, "{touched} pages touched, {there} there");
    ensure!(
        there < area.pages(),
        "no hole to keep: huge pages filled them"
    );
    v.stand()?;
    for (page, (before, now)) in before.iter().zip(area.present()?).enumerate() {
        ensure!(
            *before || !now,
            "page {page} was a hole and is one no longer"
        );
    }
    for run in &runs {
        let what = format!("pages {run:?}");
        verify(
            &what,
            &area.bytes()[run.start * PAGE..run.end * PAGE],
            run.start as u64,
        )?;
    }
    let mut end = 0;
    for run in &runs {
        let hole = &area.bytes()[end * PAGE..run.start * PAGE];
        ensure!(
            hole.iter().all(|&b| b == 0),
            "hole before page {} is not zero",
            run.start
        );
        end = run.end;
    }
    Ok(())
}

/// Anonymous memory of this process in KiB.
fn rss_anon() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("RssAnon:"))
        .context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Pages that were only read cost nothing, before and after.
fn zero_pages(v: &Victim) -> Result<()> {
    let area = Area::anon(16 * MIB, RW, MAP_PRIVATE)?;
    // Huge zero pages are not what is tested.
    // SAFETY: the area is ours.
    unsafe { libc::madvise(area.addr.cast(), area.len, libc::MADV_NOHUGEPAGE) };
    let sum = || {
        area.bytes()
            .iter()
            .step_by(PAGE)
            .map(|&b| u64::from(b))
            .sum::<u64>()
    };
    let rss = rss_anon()?;
    same("sum of zero pages", 0, sum())?;
    ensure!(
        rss_anon()? < rss + 1024,
        "reading zero pages allocated memory"
    );
    v.stand()?;
    ensure!(
        rss_anon()? < rss + 2048,
        "RssAnon was {rss} KiB, is {} KiB",
        rss_anon()?
    );
    same("sum of zero pages", 0, sum())?;
    ensure!(
        rss_anon()? < rss + 2048,
        "reading zero pages allocated memory after the restart"
    );
    area.bytes()[5 * PAGE] = 9;
    same("sum after one write", 9, sum())
}

/// As much address space as big programs reserve, with a few pages in it.
fn sparse(v: &Victim) -> Result<()> {
    let area = Area::anon(1 << 36, RW, MAP_PRIVATE | MAP_NORESERVE)?;
    let places = [0, 3 * PAGE, 1 << 30, (1 << 35) + PAGE, (1 << 36) - PAGE];
    let page = |at: usize| &mut area.bytes()[at..at + PAGE];
    for at in places {
        fill(page(at), at as u64);
    }
    v.stand()?;
    for at in places {
        verify(&format!("page at {at:#x}"), page(at), at as u64)?;
    }
    Ok(())
}

/// What is forbidden stays forbidden, what is allowed stays allowed.
fn protection(v: &Victim) -> Result<()> {
    let area = Area::anon(6 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 3);
    let kinds = [
        PROT_NONE,
        PROT_READ,
        RW,
        PROT_NONE,
        PROT_READ | PROT_EXEC,
        RW,
    ];
    for (i, prot) in kinds.into_iter().enumerate() {
        area.protect(i * PAGE, PAGE, prot)?;
    }
    v.stand()?;
    for (i, prot) in kinds.into_iter().enumerate() {
        let addr = area.addr.wrapping_add(i * PAGE + 8);
        same(
            &format!("page {i} readable"),
            prot & PROT_READ != 0,
            sys::readable(addr)?,
        )?;
        // The last page may lose a byte, the others are compared below.
        let addr = area.addr.wrapping_add((i + 1) * PAGE - 1);
        if i == 5 || prot & PROT_WRITE == 0 {
            same(
                &format!("page {i} writable"),
                prot & PROT_WRITE != 0,
                sys::writable(addr)?,
            )?;
        }
    }
    area.protect(0, area.len, PROT_READ)?;
    verify("pages of all protections", &area.bytes()[..area.len - 8], 3)
}

/// Contents of memory that cannot be written any more.
fn read_only(v: &Victim) -> Result<()> {
    let area = Area::anon(4 * MIB, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 4);
    area.protect(0, area.len, PROT_READ)?;
    v.stand()?;
    verify("read-only memory", area.bytes(), 4)?;
    ensure!(
        !sys::writable(area.addr)?,
        "read-only memory became writable"
    );
    Ok(())
}

/// Code that the program wrote itself.
fn code(v: &Victim) -> Result<()> {
    let area = Area::anon(PAGE, RW, MAP_PRIVATE)?;
    // lea eax, [rdi + rdi + 1]; ret
    area.bytes()[..5].copy_from_slice(&[0x8d, 0x44, 0x3f, 0x01, 0xc3]);
    area.protect(0, PAGE, PROT_READ | PROT_EXEC)?;
    // SAFETY: the bytes above are a function of this type.
    let function: extern "C" fn(u32) -> u32 = unsafe { std::mem::transmute(area.addr) };
    same("result before", 43, function(21))?;
    v.stand()?;
    same("result after", 43, function(21))
}

/// A page that catches overruns still does.
fn guard_page(v: &Victim) -> Result<()> {
    let area = Area::anon(3 * PAGE, RW, MAP_PRIVATE)?;
    area.protect(PAGE, PAGE, PROT_NONE)?;
    v.stand()?;
    let status = sys::forked(|| {
        // The library has a handler of its own that says more than is wanted here.
        // SAFETY: the default action ends the child, the write is meant to fault.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            area.addr.add(PAGE).write_volatile(1);
        }
        0
    })?;
    ensure!(
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV,
        "writing to the guard page ended with status {status:#x}"
    );
    Ok(())
}

/// Uses `depth` frames of 16 KiB and returns a sum over all of them.
fn deep(depth: u64) -> u64 {
    let mut frame = [0u64; 2048];
    fill(bytes(&mut frame), depth);
    let below = if depth > 0 { deep(depth - 1) } else { 0 };
    black_box(&mut frame)
        .iter()
        .fold(below, |sum, &word| sum.wrapping_add(word))
}

fn bytes(words: &mut [u64]) -> &mut [u8] {
    // SAFETY: any memory can be seen as bytes.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * 8) }
}

/// Contents of the stack, and its growth after the restart.
fn stack(v: &Victim) -> Result<()> {
    let mut frame = [0u64; 16 * 1024];
    fill(bytes(&mut frame), 5);
    let sum = deep(20);
    v.stand()?;
    verify("frame on the stack", bytes(black_box(&mut frame)), 5)?;
    same("sum over 320 KiB of stack", sum, deep(20))?;
    let far = deep(300);
    same("sum over 4.8 MiB of stack", far, deep(300))
}

/// Another area that grows by itself.
fn grows_down(v: &Victim) -> Result<()> {
    let reserve = Area::anon(4 * MIB, PROT_NONE, MAP_PRIVATE)?;
    let top = reserve.addr.wrapping_add(2 * MIB);
    // Room below and above, so that no neighbour is met.
    // SAFETY: the reservation is ours.
    let area = unsafe {
        libc::munmap(reserve.addr.cast(), reserve.len);
        let flags = MAP_PRIVATE | libc::MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK;
        libc::mmap(
            top.cast(),
            PAGE,
            RW,
            flags | libc::MAP_FIXED_NOREPLACE,
            -1,
            0,
        )
    };
    ensure!(
        area == top.cast(),
        "mmap: {}",
        std::io::Error::last_os_error()
    );
    let touch = |pages: usize| {
        for page in 0..pages {
            // SAFETY: the kernel lets the area grow to where it is touched.
            unsafe { top.sub(page * PAGE).add(8).write_volatile(page as u8) };
        }
    };
    let check = |pages: usize| {
        for page in 0..pages {
            // SAFETY: as above.
            let byte = unsafe { top.sub(page * PAGE).add(8).read_volatile() };
            ensure!(byte == page as u8, "page {page} below the top has {byte}");
        }
        Ok(())
    };
    touch(10);
    v.stand()?;
    check(10)?;
    touch(100);
    check(100)
}

/// The break stays where it was and can be moved both ways.
fn brk(v: &Victim) -> Result<()> {
    /// Moves the break and returns where it was.
    fn sbrk(by: isize) -> Result<*mut u8> {
        // SAFETY: only memory that this function handed out is given back.
        let old = unsafe { libc::sbrk(by) };
        ensure!(
            old as isize != -1,
            "sbrk({by}): {}",
            std::io::Error::last_os_error()
        );
        Ok(old.cast())
    }
    fn at(addr: *mut u8) -> &'static mut [u8] {
        // SAFETY: all callers pass a MiB that they got from sbrk.
        unsafe { std::slice::from_raw_parts_mut(addr, MIB) }
    }
    let heap = sbrk(MIB as isize)?;
    fill(at(heap), 6);
    let end = sbrk(0)?;
    v.stand()?;
    same("break", end, sbrk(0)?)?;
    verify("heap", at(heap), 6)?;
    let more = sbrk(MIB as isize)?;
    same("begin of the growth", end, more)?;
    ensure!(at(more).iter().all(|&b| b == 0), "new heap is not zero");
    fill(at(more), 7);
    verify("heap before the growth", at(heap), 6)?;
    verify("growth", at(more), 7)?;
    sbrk(-(MIB as isize))?;
    same("break after shrinking", end, sbrk(0)?)
}

/// malloc's own state: thousands of blocks of all sizes, freed and allocated after the restart.
fn allocator(v: &Victim) -> Result<()> {
    let block = |i: usize| {
        let mut block = vec![0u8; i * 37 % 5000 + i % 7 * 40_000 * usize::from(i % 50 == 0) + 1];
        fill(&mut block, i as u64);
        block
    };
    let mut blocks: Vec<_> = (0..2000).map(block).collect();
    for i in (0..2000).step_by(3) {
        blocks[i] = Vec::new();
    }
    v.stand()?;
    for i in (0..2000).step_by(3) {
        blocks[i] = block(i);
    }
    for (i, block) in blocks.iter().enumerate() {
        verify(&format!("block {i}"), block, i as u64)?;
    }
    Ok(())
}

/// A thousand areas that cannot be merged.
fn many_areas(v: &Victim) -> Result<()> {
    let area = Area::anon(2000 * PAGE, RW, MAP_PRIVATE)?;
    for i in 0..area.pages() {
        fill(&mut area.bytes()[i * PAGE..][..PAGE], i as u64);
    }
    for i in (0..area.pages()).step_by(2) {
        area.protect(i * PAGE, PAGE, PROT_READ)?;
    }
    v.stand()?;
    for i in 0..area.pages() {
        verify(
            &format!("area {i}"),
            &area.bytes()[i * PAGE..][..PAGE],
            i as u64,
        )?;
    }
    ensure!(
        !sys::writable(area.addr.wrapping_add(998 * PAGE))?,
        "area 998 became writable"
    );
    ensure!(
        sys::writable(area.addr.wrapping_add(999 * PAGE))?,
        "area 999 became read-only"
    );
    Ok(())
}

/// Each line of /proc/self/maps is what it was, and so are the flags of each mapping.
fn shapes(v: &Victim) -> Result<()> {
    let _shapes = [
        Area::anon(5 * PAGE, RW, MAP_PRIVATE)?,
        Area::anon(5 * PAGE, PROT_READ, MAP_PRIVATE | MAP_NORESERVE)?,
        Area::anon(5 * PAGE, PROT_NONE, MAP_PRIVATE)?,
        Area::anon(5 * PAGE, RW | PROT_EXEC, MAP_PRIVATE)?,
        Area::anon(5 * PAGE, RW, MAP_PRIVATE | MAP_NORESERVE)?,
    ];
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()
}

/// Maps `pages` pages at `addr`.
fn map_at(addr: *mut u8, pages: usize) -> Result<()> {
    let flags = MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: the callers own what is there.
    let at = unsafe { libc::mmap(addr.cast(), pages * PAGE, RW, flags, -1, 0) };
    ensure!(
        at == addr.cast(),
        "mmap: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// Neighbours that look the same and are two mappings all the same stay two.
fn neighbours(v: &Victim) -> Result<()> {
    let area = Area::anon(6 * PAGE, PROT_NONE, MAP_PRIVATE)?;
    let page = |n: usize| area.addr.wrapping_add(n * PAGE);
    // Two with pages of their own, and then one between that can join one of them only.
    map_at(page(1), 1)?;
    map_at(page(3), 1)?;
    fill(&mut area.bytes()[PAGE..2 * PAGE], 20);
    fill(&mut area.bytes()[3 * PAGE..4 * PAGE], 21);
    map_at(page(2), 1)?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("first", &area.bytes()[PAGE..2 * PAGE], 20)?;
    verify("second", &area.bytes()[3 * PAGE..4 * PAGE], 21)
}

/// Memory that mremap(2) has moved and cut into pieces can be moved and forked again.
fn moved(v: &Victim) -> Result<()> {
    let old = Area::anon(8 * PAGE, RW, MAP_PRIVATE)?;
    fill(old.bytes(), 22);
    let expected = old.bytes().to_vec();
    let room = Area::anon(16 * PAGE, PROT_NONE, MAP_PRIVATE)?;
    let move_to = |from: *mut u8, pages: usize, to: *mut u8| -> Result<()> {
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        let len = pages * PAGE;
        // SAFETY: both ranges are ours.
        let at = unsafe { libc::mremap(from.cast(), len, len, how, to) };
        ensure!(
            at == to.cast(),
            "mremap: {}",
            std::io::Error::last_os_error()
        );
        Ok(())
    };
    // The second half comes before the first, with a gap.
    move_to(
        old.addr.wrapping_add(4 * PAGE),
        4,
        room.addr.wrapping_add(PAGE),
    )?;
    move_to(old.addr, 4, room.addr.wrapping_add(8 * PAGE))?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    let half = |at: usize| &mut room.bytes()[at * PAGE..(at + 4) * PAGE];
    ensure!(*half(1) == expected[4 * PAGE..], "the second half differs");
    ensure!(*half(8) == expected[..4 * PAGE], "the first half differs");
    // Side by side again, in the old order.
    move_to(
        room.addr.wrapping_add(PAGE),
        4,
        room.addr.wrapping_add(12 * PAGE),
    )?;
    let status = sys::forked(|| {
        let seen = room.bytes()[8 * PAGE..] == expected[..];
        fill(&mut room.bytes()[8 * PAGE..], 23);
        i32::from(!seen)
    })?;
    same("status of the child", 0, status)?;
    ensure!(
        room.bytes()[8 * PAGE..] == expected[..],
        "after the child wrote"
    );
    Ok(())
}

/// Gives memory a name, or takes it.
fn name(area: &Area, at: usize, pages: usize, name: Option<&std::ffi::CStr>) -> Result<()> {
    let (addr, len) = (area.addr.wrapping_add(at * PAGE), pages * PAGE);
    let text = name.map_or(std::ptr::null(), std::ffi::CStr::as_ptr);
    // SAFETY: the area is ours, the name ends.
    cvt(unsafe {
        libc::prctl(
            libc::PR_SET_VMA,
            libc::PR_SET_VMA_ANON_NAME,
            addr,
            len,
            text,
        )
    })?;
    Ok(())
}

/// Names of anonymous memory.
fn names(v: &Victim) -> Result<()> {
    let long = "n".repeat(79);
    let long = std::ffi::CString::new(long)?;
    let private = Area::anon(6 * PAGE, RW, MAP_PRIVATE)?;
    let shared = Area::anon(2 * PAGE, RW, libc::MAP_SHARED)?;
    fill(private.bytes(), 24);
    name(&private, 0, 2, Some(c"heap of a program"))?;
    name(&private, 3, 1, Some(c"heap of a program"))?;
    name(&private, 4, 1, Some(&long))?;
    name(&private, 5, 1, Some(c""))?;
    name(&shared, 1, 1, Some(c"shared {with} (none)"))?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("named memory", private.bytes(), 24)?;
    let text = fs::read_to_string("/proc/self/maps")?;
    same(
        "areas with the name",
        2,
        text.matches("[anon:heap of a program]").count(),
    )?;
    // Without its name it joins its neighbour.
    name(&private, 0, 6, None)?;
    let text = fs::read_to_string("/proc/self/maps")?;
    same(
        "areas with the name",
        0,
        text.matches("[anon:heap of a program]").count(),
    )
}

/// New mappings find room, and old ones can be moved, grown and removed.
fn mapping_after(v: &Victim) -> Result<()> {
    let old = Area::anon(64 * PAGE, RW, MAP_PRIVATE)?;
    fill(old.bytes(), 8);
    v.stand()?;
    let new = Area::anon(MIB, RW, MAP_PRIVATE)?;
    fill(new.bytes(), 9);
    // SAFETY: `old` is not used any more; its contents move.
    let moved = unsafe {
        libc::mremap(old.addr.cast(), old.len, 2 * MIB, libc::MREMAP_MAYMOVE).cast::<u8>()
    };
    ensure!(
        moved as isize != -1,
        "mremap: {}",
        std::io::Error::last_os_error()
    );
    let moved = Area {
        addr: moved,
        len: 2 * MIB,
    };
    verify("moved memory", &moved.bytes()[..old.len], 8)?;
    ensure!(
        moved.bytes()[old.len..].iter().all(|&b| b == 0),
        "growth is not zero"
    );
    verify("new mapping", new.bytes(), 9)?;
    // SAFETY: nothing refers to it any more.
    sys::cvt(unsafe { libc::munmap(moved.addr.cast(), moved.len) })?;
    ensure!(!sys::readable(moved.addr)?, "unmapped memory can be read");
    Ok(())
}

/// A child after the restart has its own copy.
fn copy_on_write(v: &Victim) -> Result<()> {
    let area = Area::anon(2 * MIB, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 10);
    v.stand()?;
    let status = sys::forked(|| {
        let seen = verify("in the child", area.bytes(), 10).is_ok();
        fill(area.bytes(), 11);
        i32::from(!seen)
    })?;
    same("status of the child", 0, status)?;
    verify("after the child wrote", area.bytes(), 10)
}

/// The kernel notes for ever that it has pinned a page once.
fn once_pinned(v: &Victim) -> Result<()> {
    let area = Area::anon(4 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 28);
    let mut copy = vec![0u8; area.len];
    let to = libc::iovec {
        iov_base: copy.as_mut_ptr().cast(),
        iov_len: copy.len(),
    };
    let from = libc::iovec {
        iov_base: area.addr.cast(),
        iov_len: area.len,
    };
    // SAFETY: both ranges are ours.
    let got = cvt(unsafe { libc::process_vm_readv(sys::getpid(), &to, 1, &from, 1, 0) })?;
    same("bytes", area.len as isize, got)?;
    v.stand()?;
    verify("memory", area.bytes(), 28)?;
    verify("copy", &copy, 28)
}

/// KiB of locked memory in use.
fn locked_kib() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmLck:"))
        .context("no VmLck")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Locked memory stays locked, and all of it is there.
fn locked(v: &Victim) -> Result<()> {
    let area = Area::anon(8 * PAGE, RW, MAP_PRIVATE)?;
    // SAFETY: the area is ours.
    cvt(unsafe { libc::mlock(area.addr.cast(), 4 * PAGE) })?;
    fill(&mut area.bytes()[..PAGE], 25);
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    same("locked KiB", 16, locked_kib()?)?;
    ensure!(
        area.present()?[..4].iter().all(|&p| p),
        "a locked page is not there"
    );
    verify("locked memory", &area.bytes()[..PAGE], 25)
}

fn locked_on_fault(v: &Victim) -> Result<()> {
    let area = Area::anon(8 * PAGE, RW, MAP_PRIVATE)?;
    let flags = libc::MLOCK_ONFAULT;
    // SAFETY: the area is ours.
    cvt(unsafe { libc::syscall(libc::SYS_mlock2, area.addr, area.len, flags) })?;
    fill(&mut area.bytes()[2 * PAGE..3 * PAGE], 26);
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    same("locked KiB", 32, locked_kib()?)?;
    same("pages", 1, area.present()?.iter().filter(|&&p| p).count())?;
    verify("locked memory", &area.bytes()[2 * PAGE..3 * PAGE], 26)
}

/// mlockall(2): what is mapped later is locked as well.
fn locked_in_future(v: &Victim) -> Result<()> {
    let before = Area::anon(4 * PAGE, RW, MAP_PRIVATE)?;
    fill(before.bytes(), 27);
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })?;
    let maps = Maps::read()?;
    v.stand()?;
    maps.check()?;
    verify("before", before.bytes(), 27)?;
    let after = Area::anon(4 * PAGE, PROT_READ, MAP_PRIVATE)?;
    ensure!(
        flags_at(after.addr)?.iter().any(|f| f == "lo"),
        "new memory is not locked"
    );
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::munlockall() })?;
    let after = Area::anon(4 * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE)?;
    ensure!(
        !flags_at(after.addr)?.iter().any(|f| f == "lo"),
        "it is locked all the same"
    );
    Ok(())
}
