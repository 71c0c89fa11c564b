// SPDX-License-Identifier: GPL-2.0

//! Pages that fork(2) shares until somebody writes: saved once, and shared again.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
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
use std::fs;
use std::os::fd::{
    AsRawFd,
    OwnedFd, //
};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("child", child),
        Case::new("written", written),
        Case::new("grandchild", grandchild),
        Case::new("siblings", siblings),
        Case::new("moved", moved),
        Case::new("file", file),
        Case::new("huge", huge),
    ],
    customs: &[
        Custom {
            name: "size",
            run: size,
        },
        Custom {
            name: "khugepaged",
            run: khugepaged,
        },
    ],
    victims: &[Case::new("tree-of-eight", tree_of_eight)],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("cow")
};

fn main() -> ExitCode {
    SUITE.main()
}

const RW: i32 = PROT_READ | PROT_WRITE;
const MIB: usize = 1 << 20;

/// What /proc/PID/pagemap and /proc/kpagecount say of the pages of `area` in process `pid`: frame and
/// number of mappings.
fn frames(pid: i32, area: &Area) -> Result<Vec<u64>> {
    let mut entries = vec![0; area.pages() * 8];
    let index = (area.addr as usize / PAGE * 8) as u64;
    fs::File::open(format!("/proc/{pid}/pagemap"))?.read_exact_at(&mut entries, index)?;
    let frame = |e: &[u8]| -> Result<u64> {
        let entry = u64::from_le_bytes(e.try_into()?);
        Ok(if entry >> 63 == 1 {
            entry & ((1 << 55) - 1)
        } else {
            0
        })
    };
    entries.chunks_exact(8).map(frame).collect()
}

/// Requires that the pages `which` of `area` are one and the same in both processes, and that the
/// others are not.
fn check_shared(a: i32, b: i32, area: &Area, which: impl Fn(usize) -> bool) -> Result<()> {
    let (a, b) = (frames(a, area)?, frames(b, area)?);
    if a.iter().all(|&frame| frame == 0) {
        return skip("the kernel does not show page frames");
    }
    for (n, (a, b)) in a.iter().zip(&b).enumerate() {
        ensure!(*a != 0 && *b != 0, "page {n} is not there");
        same(&format!("page {n} is shared"), which(n), a == b)?;
    }
    Ok(())
}

/// Waits at `gate`, or ends.
fn ensure_passed(gate: &Gate) {
    if !gate.pass() {
        std::process::exit(9);
    }
}

/// Where a process waits until another one lets it pass: a pipe.
struct Gate {
    exit: OwnedFd,
    entry: OwnedFd,
}

impl Gate {
    fn new() -> Result<Self> {
        let (exit, entry) = sys::pipe(0)?;
        Ok(Self { exit, entry })
    }

    /// Waits.
    fn pass(&self) -> bool {
        sys::read(&self.exit, &mut [0]).is_ok_and(|n| n == 1)
    }

    /// Lets so many pass.
    fn open(&self, count: usize) -> Result<()> {
        ensure!(
            sys::write(&self.entry, &vec![1; count])? == count,
            "a pipe is full"
        );
        Ok(())
    }
}

/// A child that waits until it is let pass, and then checks.
fn checking(v: &Victim, gate: &Gate, check: impl Fn() -> Result<()>) -> Result<Process> {
    let _numbers = NumbersThatFollow::choose();
    Process::fork(|| {
        ensure_passed(gate);
        match check() {
            Ok(()) => 0,
            Err(e) => {
                let _ = fs::write(v.path("child"), format!("{e:#}"));
                1
            }
        }
    })
}

/// Waits for a child that has checked.
fn join(v: &Victim, mut child: Process) -> Result<()> {
    let status = child.wait(Duration::from_secs(20))?;
    let what = fs::read_to_string(v.path("child")).unwrap_or_default();
    ensure!(status.success(), "child: {status}: {what}");
    Ok(())
}

/// Nobody has written since.
fn child(v: &Victim) -> Result<()> {
    let area = Area::anon(2 * MIB, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    let gate = Gate::new()?;
    let child = checking(v, &gate, || {
        verify("in the child, after the parent wrote", area.bytes(), 1)?;
        fill(area.bytes(), 3);
        verify("what the child wrote", area.bytes(), 3)
    })?;
    check_shared(sys::getpid(), child.pid, &area, |_| true)?;
    v.stand()?;
    verify("in the parent", area.bytes(), 1)?;
    check_shared(sys::getpid(), child.pid, &area, |_| true)?;
    fill(area.bytes(), 2);
    check_shared(sys::getpid(), child.pid, &area, |_| false)?;
    gate.open(1)?;
    join(v, child)?;
    verify("after the child wrote", area.bytes(), 2)
}

/// Each has written some pages, and shares the others.
fn written(v: &Victim) -> Result<()> {
    let area = Area::anon(700 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 4);
    let page = |n: usize| &mut area.bytes()[n * PAGE..(n + 1) * PAGE];
    let (ready, gate) = (Gate::new()?, Gate::new()?);
    let mine = |n: usize| n % 5 == 1;
    let childs = |n: usize| n % 7 == 2;
    let child = {
        let _numbers = NumbersThatFollow::choose();
        Process::fork(|| {
            for n in (0..700).filter(|&n| childs(n)) {
                fill(page(n), 2000 + n as u64);
            }
            if ready.open(1).is_err() {
                return 3;
            }
            ensure_passed(&gate);
            let right = (0..700)
                .filter(|&n| childs(n))
                .all(|n| verify("page", page(n), 2000 + n as u64).is_ok());
            let old = (0..700)
                .filter(|&n| !childs(n))
                .all(|n| page(n).iter().any(|&b| b != 0xee));
            i32::from(!right) + 2 * i32::from(!old)
        })?
    };
    ensure!(ready.pass(), "the child is gone");
    for n in (0..700).filter(|&n| mine(n)) {
        page(n).fill(0xee);
    }
    let expected: Vec<u8> = area.bytes().to_vec();
    let shared = |n: usize| !mine(n) && !childs(n);
    check_shared(sys::getpid(), child.pid, &area, shared)?;
    v.stand()?;
    ensure!(*area.bytes() == expected[..], "in the parent");
    check_shared(sys::getpid(), child.pid, &area, shared)?;
    area.bytes().fill(0xee);
    gate.open(1)?;
    join(v, child)
}

/// Three generations; the one in the middle has written, so that the others share across it.
fn grandchild(v: &Victim) -> Result<()> {
    let area = Area::anon(64 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 5);
    let gate = Gate::new()?;
    let pid = v.path("grandchild");
    let _ = fs::remove_file(&pid);
    let numbers = NumbersThatFollow::choose();
    let child = Process::fork(|| {
        let Ok(mut grandchild) = Process::fork(|| {
            ensure_passed(&gate);
            let seen = verify("in the grandchild", area.bytes(), 5).is_ok();
            i32::from(!seen)
        }) else {
            return 4;
        };
        fill(area.bytes(), 6);
        if fs::write(&pid, grandchild.pid.to_string()).is_err() {
            return 3;
        }
        ensure_passed(&gate);
        let seen = verify("in the child", area.bytes(), 6).is_ok();
        let status = grandchild.wait(Duration::from_secs(20));
        i32::from(!seen) + 2 * i32::from(!status.is_ok_and(|s| s.success()))
    })?;
    let written = || fs::read_to_string(&pid).is_ok_and(|text| !text.is_empty());
    ensure!(
        sys::until(Duration::from_secs(20), written),
        "no grandchild"
    );
    drop(numbers);
    let pid: i32 = fs::read_to_string(&pid)?.parse()?;
    v.stand()?;
    check_shared(sys::getpid(), pid, &area, |_| true)?;
    check_shared(sys::getpid(), child.pid, &area, |_| false)?;
    verify("in the victim", area.bytes(), 5)?;
    gate.open(2)?;
    join(v, child)
}

/// Children share what their parent has written to since.
fn siblings(v: &Victim) -> Result<()> {
    let area = Area::anon(64 * PAGE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 7);
    let gate = Gate::new()?;
    let numbers = NumbersThatFollow::choose();
    let mut children = Vec::new();
    for _ in 0..3 {
        children.push(Process::fork(|| {
            ensure_passed(&gate);
            i32::from(verify("in a child", area.bytes(), 7).is_err())
        })?);
    }
    drop(numbers);
    fill(area.bytes(), 8);
    v.stand()?;
    verify("in the parent", area.bytes(), 8)?;
    check_shared(children[0].pid, children[1].pid, &area, |_| true)?;
    check_shared(children[0].pid, children[2].pid, &area, |_| true)?;
    check_shared(children[0].pid, sys::getpid(), &area, |_| false)?;
    gate.open(3)?;
    children.into_iter().try_for_each(|child| join(v, child))
}

/// The child has moved the memory, and protected a part of it.
fn moved(v: &Victim) -> Result<()> {
    let area = Area::anon(32 * PAGE, RW, MAP_PRIVATE)?;
    let room = Area::anon(64 * PAGE, libc::PROT_NONE, MAP_PRIVATE)?;
    fill(area.bytes(), 9);
    let (ready, gate) = (Gate::new()?, Gate::new()?);
    let target = room.addr.wrapping_add(8 * PAGE);
    let child = {
        let _numbers = NumbersThatFollow::choose();
        Process::fork(|| {
            let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: both ranges are ours.
            let at = unsafe { libc::mremap(area.addr.cast(), area.len, area.len, how, target) };
            let there = Area {
                addr: target,
                len: area.len,
            };
            if at != target.cast() || there.protect(0, 4 * PAGE, PROT_READ).is_err() {
                return 3;
            }
            if ready.open(1).is_err() {
                return 4;
            }
            ensure_passed(&gate);
            let seen = verify("moved memory", there.bytes(), 9).is_ok();
            fill(&mut there.bytes()[4 * PAGE..], 10);
            i32::from(!seen)
        })?
    };
    ensure!(ready.pass(), "the child is gone");
    v.stand()?;
    verify("in the parent", area.bytes(), 9)?;
    fill(area.bytes(), 11);
    gate.open(1)?;
    join(v, child)?;
    verify("after the child wrote", area.bytes(), 11)
}

/// Private pages of a file that were written before the fork.
fn file(v: &Victim) -> Result<()> {
    let path = v.path("mapped");
    fs::write(&path, vec![0x11; 16 * PAGE])?;
    let file = sys::open(&path, libc::O_RDONLY)?;
    let area = Area::map(16 * PAGE, RW, MAP_PRIVATE, file.as_raw_fd(), 0)?;
    fill(&mut area.bytes()[..8 * PAGE], 12);
    let gate = Gate::new()?;
    let child = checking(v, &gate, || {
        verify("in the child", &area.bytes()[..8 * PAGE], 12)?;
        ensure!(
            area.bytes()[8 * PAGE..].iter().all(|&b| b == 0x11),
            "the file"
        );
        area.bytes().fill(0);
        Ok(())
    })?;
    let written = Area {
        addr: area.addr,
        len: 8 * PAGE,
    };
    v.stand()?;
    check_shared(sys::getpid(), child.pid, &written, |_| true)?;
    gate.open(1)?;
    join(v, child)?;
    verify("after the child wrote", &area.bytes()[..8 * PAGE], 12)?;
    ensure!(
        area.bytes()[8 * PAGE..].iter().all(|&b| b == 0x11),
        "the file"
    );
    Ok(())
}

/// Huge pages, shared whole and after one of the processes has written to a part.
fn huge(v: &Victim) -> Result<()> {
    let room = Area::anon(8 * MIB, RW, MAP_PRIVATE)?;
    let start = (room.addr as usize).next_multiple_of(2 * MIB);
    let area = Area {
        addr: start as *mut u8,
        len: 4 * MIB,
    };
    // SAFETY: the area is ours.
    cvt(unsafe { libc::madvise(area.addr.cast(), area.len, libc::MADV_HUGEPAGE) })?;
    fill(area.bytes(), 13);
    let second = Area {
        addr: area.addr.wrapping_add(2 * MIB),
        len: 2 * MIB,
    };
    let (ready, gate) = (Gate::new()?, Gate::new()?);
    let expected = second.bytes().to_vec();
    let child = {
        let _numbers = NumbersThatFollow::choose();
        Process::fork(|| {
            second.bytes()[5 * PAGE] ^= 0xff;
            if ready.open(1).is_err() {
                return 3;
            }
            ensure_passed(&gate);
            let seen = area.bytes()[2 * MIB + 5 * PAGE] == expected[5 * PAGE] ^ 0xff;
            area.bytes()[0] ^= 0xff;
            i32::from(!seen)
        })?
    };
    ensure!(ready.pass(), "the child is gone");
    v.stand()?;
    let first = Area {
        addr: area.addr,
        len: 2 * MIB,
    };
    check_shared(sys::getpid(), child.pid, &first, |_| true)?;
    check_shared(sys::getpid(), child.pid, &second, |n| n != 5)?;
    gate.open(1)?;
    join(v, child)?;
    verify("after the child wrote", area.bytes(), 13)
}

/// How long khugepaged sleeps between two looks at memory, in ms.
const SCAN_SLEEP: &str = "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs";

/// Restarts while khugepaged looks all the time for ranges that have one page and room for a huge one.
fn khugepaged(b: &Bench<'_>) -> Result<()> {
    let Ok(before) = fs::read_to_string(SCAN_SLEEP) else {
        return skip("there are no transparent huge pages");
    };
    let mut life = b.start("huge")?;
    fs::write(SCAN_SLEEP, "0")?;
    let result = (0..8).try_for_each(|round| {
        let image = b.path(&format!("image{round}"));
        life.checkpoint_and_kill(&image)?;
        life.restart_detached(&image, &[]).map(drop)
    });
    fs::write(SCAN_SLEEP, before.trim())?;
    result?;
    life.passes()
}

/// KiB that the processes have together, each page counted once.
fn proportional(pids: &[i32]) -> Result<usize> {
    let mut sum = 0;
    for pid in pids {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
        sum += line
            .context("no Pss_Anon")?
            .trim()
            .trim_end_matches(" kB")
            .parse::<usize>()?;
    }
    Ok(sum)
}

const TREE: usize = 8 * MIB;

/// Seven children share 8 MiB with the victim.
fn tree_of_eight(v: &Victim) -> Result<()> {
    let area = Area::anon(TREE, RW, MAP_PRIVATE)?;
    fill(area.bytes(), 16);
    let gate = Gate::new()?;
    let numbers = NumbersThatFollow::choose();
    let mut pids = vec![sys::getpid()];
    let mut children = Vec::new();
    for _ in 0..7 {
        let child = Process::fork(|| {
            ensure_passed(&gate);
            i32::from(verify("in a child", area.bytes(), 16).is_err())
        })?;
        pids.push(child.pid);
        children.push(child);
    }
    drop(numbers);
    v.stand()?;
    let kib = proportional(&pids)?;
    ensure!(kib < TREE / 1024 * 2, "the tree takes {kib} KiB");
    verify("in the victim", area.bytes(), 16)?;
    gate.open(7)?;
    children.into_iter().try_for_each(|child| join(v, child))
}

/// The image of the tree has the pages once.
fn size(bench: &Bench<'_>) -> Result<()> {
    let mut life = bench.start("tree-of-eight")?;
    life.settle(Duration::from_millis(20))?;
    let image = bench.path("tree.img");
    life.checkpoint_and_kill(&image)?;
    let size = fs::metadata(&image)?.len() as usize;
    ensure!(size < TREE + TREE / 4, "the image takes {size} bytes");
    life.restart(&image, &[])?;
    life.tell()?;
    match life.ends_well()? {
        Outcome::Pass => Ok(()),
        other => bail!("{other:?}"),
    }
}
