// SPDX-License-Identifier: GPL-2.0

//! Images that are damaged, tools that are killed, disks that are full: each gives its own clear
//! error, no task is left behind, and the target lives.

use libc::{
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    fill,
    kill,
    verify,
    Area,
    Tmpfs, //
};
use selftests::{
    Bench,
    Finished,
    Life,
    Task, //
};
use std::fs::{
    self,
    File, //
};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::{
    chown,
    PermissionsExt, //
};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{
    ExitCode,
    ExitStatus,
    Stdio, //
};

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "intact",
            run: intact,
        },
        Custom {
            name: "not-an-image",
            run: not_an_image,
        },
        Custom {
            name: "truncated",
            run: truncated,
        },
        Custom {
            name: "flipped",
            run: flipped,
        },
        Custom {
            name: "header-flipped",
            run: header_flipped,
        },
        Custom {
            name: "newer-version",
            run: |b| header(b, |h| h[8] = 2, &["format 2"]),
        },
        Custom {
            name: "other-architecture",
            run: |b| header(b, |h| h[12] = 183, &["architecture"]),
        },
        Custom {
            name: "unknown-feature",
            run: |b| header(b, |h| h[31] = 0x80, &["feature"]),
        },
        Custom {
            name: "other-page-size",
            run: |b| header(b, |h| h[41] = 0x40, &["16384"]),
        },
        Custom {
            name: "newer-minor-version",
            run: newer_minor_version,
        },
        Custom {
            name: "unknown-record",
            run: unknown_record,
        },
        Custom {
            name: "swapped-records",
            run: swapped_records,
        },
        Custom {
            name: "read-to-its-end-only",
            run: read_to_its_end_only,
        },
        Custom {
            name: "from-a-pipe",
            run: from_a_pipe,
        },
        Custom {
            name: "compressed",
            run: compressed,
        },
        Custom {
            name: "compressed-from-a-pipe",
            run: compressed_from_a_pipe,
        },
        Custom {
            name: "compressed-to-a-full-disk",
            run: compressed_to_a_full_disk,
        },
        Custom {
            name: "compressed-and-damaged",
            run: compressed_and_damaged,
        },
        Custom {
            name: "writer-of-the-stream-gone",
            run: writer_gone,
        },
        Custom {
            name: "reader-of-the-stream-gone",
            run: reader_gone,
        },
        Custom {
            name: "disk-full",
            run: disk_full,
        },
        Custom {
            name: "directory-missing",
            run: directory_missing,
        },
        Custom {
            name: "terminal",
            run: terminal,
        },
        Custom {
            name: "pid-taken",
            run: pid_taken,
        },
        Custom {
            name: "image-of-another-user",
            run: image_of_another_user,
        },
        Custom {
            name: "restart-without-privilege",
            run: restart_without_privilege,
        },
        Custom {
            name: "program-missing",
            run: program_missing,
        },
        Custom {
            name: "ckpt-killed",
            run: ckpt_killed,
        },
        Custom {
            name: "rstr-killed",
            run: rstr_killed,
        },
        Custom {
            name: "target-killed",
            run: target_killed,
        },
    ],
    victims: &[Case::new("small", |v| v.stand()), Case::new("large", large)],
    ..Suite::new("damage")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// 16 MiB of known contents, so that there is time to disturb a checkpoint.
fn large(v: &Victim) -> Result<()> {
    let area = Area::anon(16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE)?;
    fill(area.bytes(), 1);
    v.stand()?;
    verify("16 MiB", area.bytes(), 1)
}

const HEADER: usize = 64;
const FRAME: usize = 16;
const PAGES: u16 = 0x100;

/// An image in memory, cut into its records.
struct Image {
    bytes: Vec<u8>,
    pid: i32,
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes
        .get(at..at + 4)
        .context("the image ends within a record")?;
    Ok(u32::from_le_bytes(word.try_into()?))
}

/// CRC-32C.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

impl Image {
    /// The image of a killed victim `name`.
    fn of(b: &Bench<'_>, name: &str) -> Result<Self> {
        let mut life = b.start(name)?;
        let path = b.path("image");
        life.checkpoint_and_kill(&path)?;
        Ok(Self {
            bytes: fs::read(path)?,
            pid: life.pid,
        })
    }

    /// Frame, payload and data of each record.
    fn records(&self) -> Result<Vec<[Range<usize>; 3]>> {
        let (mut records, mut at) = (Vec::new(), HEADER);
        while at < self.bytes.len() {
            let kind = u32_at(&self.bytes, at)? as u16;
            let len = u32_at(&self.bytes, at + 4)? as usize;
            let payload = at + FRAME..at + FRAME + len;
            let data = payload.end.next_multiple_of(8);
            let pages = if kind == PAGES {
                u32_at(&self.bytes, payload.start)? as usize
            } else {
                0
            };
            let end = data + pages * sys::PAGE;
            ensure!(
                end <= self.bytes.len(),
                "record of kind {kind:#x} at byte {at} is too long"
            );
            records.push([at..at + FRAME, payload, data..end]);
            at = end;
        }
        ensure!(records.len() > 5, "only {} records", records.len());
        Ok(records)
    }

    /// Computes the checksum of the header anew.
    fn seal_header(&mut self) {
        self.bytes[60..64].fill(0);
        let crc = crc(&self.bytes[..HEADER]).to_le_bytes();
        self.bytes[60..64].copy_from_slice(&crc);
    }
}

/// Restarts from `bytes`, which has to fail for a reason with all of `words`, and to leave no task.
fn fails(b: &Bench<'_>, what: &str, bytes: &[u8], pid: i32, words: &[&str]) -> Result<()> {
    let path = b.path("damaged");
    fs::write(&path, bytes)?;
    let done = b.rstr().arg("--detach").arg("-i").arg(&path).run()?;
    let left = Task::read(pid);
    if left.is_some() {
        let _ = kill(pid, libc::SIGKILL);
    }
    done.refused(what, words)?;
    ensure!(left.is_none(), "{what}: task {left:?} was left");
    Ok(())
}

/// Every word of the format that follows means something only if this holds.
fn intact(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    image.records()?;
    let mut sealed = Image {
        bytes: image.bytes.clone(),
        pid: image.pid,
    };
    sealed.seal_header();
    ensure!(
        sealed.bytes == image.bytes,
        "the checksum of the header is not understood"
    );
    restart(b)?;
    goes_on(b, image.pid)
}

/// Restarts the victim from its image; it is an orphan then.
fn restart(b: &Bench<'_>) -> Result<Finished> {
    b.rstr()
        .arg("--detach")
        .arg("-i")
        .arg(b.path("image"))
        .run()?
        .succeeded("rstr")
}

/// The restarted victim, an orphan, passes its check.
fn goes_on(b: &Bench<'_>, pid: i32) -> Result<()> {
    let status = ends(b, pid)?;
    ensure!(status.success(), "the victim ended with {status}");
    same("result", "PASS", fs::read_to_string(b.path("result"))?)
}

/// Tells the restarted victim, an orphan, to check itself, and waits for its end.
fn ends(b: &Bench<'_>, pid: i32) -> Result<ExitStatus> {
    fs::write(b.path("go"), "")?;
    selftests::Process::adopt(pid).wait(Duration::from_secs(60))
}

/// The victim is alive and passes its check.
fn unharmed(mut life: Life<'_>) -> Result<()> {
    life.passes()
}

fn not_an_image(b: &Bench<'_>) -> Result<()> {
    let free = 4_000_000;
    fails(b, "empty file", b"", free, &["empty"])?;
    fails(
        b,
        "text",
        b"#!/bin/sh\necho this is something else\n",
        free,
        &["not a checkpoint image"],
    )?;
    fails(b, "zeroes", &[0; 5000], free, &["not a checkpoint image"])?;
    for (device, word) in [
        ("/dev/null", "empty"),
        ("/dev/zero", "not a checkpoint image"),
    ] {
        b.rstr()
            .stdin(File::open(device)?)
            .run()?
            .refused(device, &[word])?;
    }
    b.rstr()
        .arg("-i")
        .arg(b.path("missing"))
        .run()?
        .refused("missing file", &["missing"])?;
    b.rstr()
        .arg("-i")
        .arg(&b.dir)
        .run()?
        .refused("directory", &["director"])?;
    Ok(())
}

fn truncated(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    let mut cuts = vec![1, 7, 8, HEADER / 2, HEADER - 1, HEADER];
    for [frame, payload, data] in image.records()? {
        // Before every record and inside of it.
        cuts.extend([frame.start, payload.start + payload.len() / 2]);
        if b.long {
            cuts.extend([frame.start + FRAME / 2, payload.start]);
        }
        if b.long && !data.is_empty() {
            cuts.extend([
                data.start,
                data.start + sys::PAGE,
                data.start + data.len() / 2 + 1,
            ]);
        }
    }
    cuts.push(image.bytes.len() - 1);
    cuts.sort_unstable();
    cuts.dedup();
    for cut in cuts {
        fails(
            b,
            &format!("cut at byte {cut}"),
            &image.bytes[..cut],
            image.pid,
            &["image"],
        )?;
    }
    Ok(())
}

/// One bit in each part of each record.
fn flipped(b: &Bench<'_>) -> Result<()> {
    let mut image = Image::of(b, "small")?;
    for (number, parts) in image.records()?.into_iter().enumerate() {
        for part in parts.into_iter().filter(|p| !p.is_empty()) {
            let places: &[usize] = match part.len() {
                FRAME => &[0, 2, 5, 9, 13],
                len => &[0, len / 2, len - 1],
            };
            // One bit of each part, of another place in each record.
            let some = &places[number % places.len()..][..1];
            for at in if b.long { places } else { some } {
                let at = part.start + at;
                image.bytes[at] ^= 4;
                let what = format!("flipped bit in byte {at}, record {number}");
                fails(b, &what, &image.bytes, image.pid, &["image"])?;
                image.bytes[at] ^= 4;
            }
        }
    }
    Ok(())
}

fn header_flipped(b: &Bench<'_>) -> Result<()> {
    let mut image = Image::of(b, "small")?;
    for at in (0..HEADER).step_by(if b.long { 1 } else { 3 }) {
        image.bytes[at] ^= 1;
        fails(
            b,
            &format!("flipped bit in byte {at}"),
            &image.bytes,
            image.pid,
            &["image"],
        )?;
        image.bytes[at] ^= 1;
    }
    Ok(())
}

/// A header that is whole and says something that this reader cannot do.
fn header(b: &Bench<'_>, change: fn(&mut [u8]), words: &[&str]) -> Result<()> {
    let mut image = Image::of(b, "small")?;
    change(&mut image.bytes[..HEADER]);
    // The page size is one number, of which only the changed byte may remain.
    if words == ["16384"] {
        image.bytes[40] = 0;
    }
    image.seal_header();
    fails(b, "changed header", &image.bytes, image.pid, words)
}

/// What is added within a version does not concern older readers.
fn newer_minor_version(b: &Bench<'_>) -> Result<()> {
    let mut image = Image::of(b, "small")?;
    image.bytes[10] += 1;
    image.seal_header();
    let path = b.path("newer");
    fs::write(&path, &image.bytes)?;
    b.rstr()
        .arg("--detach")
        .arg("-i")
        .arg(&path)
        .run()?
        .succeeded("rstr")?;
    goes_on(b, image.pid)
}

/// A whole record of a kind from the future, without the bit that lets readers skip it.
fn unknown_record(b: &Bench<'_>) -> Result<()> {
    let mut image = Image::of(b, "small")?;
    let [frame, payload, _] = image.records()?.swap_remove(0);
    image.bytes[frame.start..frame.start + 4].copy_from_slice(&[0xff, 0x70, 0, 0]);
    let mut summed = image.bytes[frame.start..frame.start + 12].to_vec();
    summed.extend(&image.bytes[payload]);
    image.bytes[frame.start + 12..frame.end].copy_from_slice(&crc(&summed).to_le_bytes());
    fails(b, "unknown record", &image.bytes, image.pid, &["unknown"])
}

/// Whole records in another order: each checksum is right, that of the whole is not.
fn swapped_records(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    let records = image.records()?;
    for pair in records.windows(2).take(records.len() - 2) {
        let (first, second) = (&pair[0], &pair[1]);
        let mut bytes = image.bytes[..first[0].start].to_vec();
        bytes.extend(&image.bytes[second[0].start..second[2].end]);
        bytes.extend(&image.bytes[first[0].start..first[2].end]);
        bytes.extend(&image.bytes[second[2].end..]);
        let what = format!(
            "records at bytes {} and {} swapped",
            first[0].start, second[0].start
        );
        fails(b, &what, &bytes, image.pid, &["image"])?;
    }
    Ok(())
}

/// What follows the trailer in the stream belongs to somebody else.
fn read_to_its_end_only(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    let path = b.path("longer");
    fs::write(&path, [&image.bytes[..], b"what follows"].concat())?;
    let stream = File::open(&path)?;
    b.rstr()
        .arg("--detach")
        .stdin(stream.try_clone()?)
        .run()?
        .succeeded("rstr")?;
    goes_on(b, image.pid)?;
    same(
        "bytes read",
        image.bytes.len() as i64,
        sys::seek(&stream, 0, libc::SEEK_CUR)?,
    )
}

/// `ckpt | rstr`, with a reader that takes a few bytes at a time.
fn from_a_pipe(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("large")?;
    let (r, w) = sys::pipe(libc::O_CLOEXEC)?;
    let ckpt = b
        .ckpt()
        .arg("--kill")
        .arg(life.pid.to_string())
        .stdout(w)
        .start()?;
    // All is read before the first byte goes on: the number must be free by then.
    let mut image = Vec::new();
    File::from(r).read_to_end(&mut image)?;
    ckpt.finish()?.succeeded("ckpt to a pipe")?;
    same("signal", Some(libc::SIGKILL), life.reap()?.signal())?;
    ensure!(image.len() > 16 << 20, "the image is too short");
    restart_from_a_pipe(b, image)?;
    goes_on(b, life.pid)
}

/// Restarts with a pipe that a few bytes come through at a time.
fn restart_from_a_pipe(b: &Bench<'_>, image: Vec<u8>) -> Result<()> {
    let (r, w) = sys::pipe(libc::O_CLOEXEC)?;
    sys::fcntl(&w, libc::F_SETPIPE_SZ, 4096)?;
    let copied = std::thread::spawn(move || -> Result<()> {
        let mut bytes = 0;
        while bytes < image.len() {
            let end = image.len().min(bytes + 1001);
            bytes += sys::write(&w, &image[bytes..end])?;
        }
        Ok(())
    });
    let restarted = b.rstr().arg("--detach").stdin(r).run()?;
    let copied = copied
        .join()
        .map_err(|_| anyhow::anyhow!("the copying thread panicked"))?;
    restarted.succeeded("rstr from a pipe")?;
    copied
}

/// A compressed image of a victim that was killed, and its process number.
fn compressed_image(b: &Bench<'_>, name: &str) -> Result<(Vec<u8>, i32)> {
    let mut life = b.start(name)?;
    let plain = b.path("plain");
    life.checkpoint(&[], &plain)?;
    let image = b.path("image");
    life.checkpoint(&["--compress", "--kill"], &image)?;
    same("signal", Some(libc::SIGKILL), life.reap()?.signal())?;
    let (bytes, all) = (fs::read(&image)?, fs::metadata(&plain)?.len());
    ensure!(
        (bytes.len() as u64) < all,
        "{} of {all} bytes are left",
        bytes.len()
    );
    b.ckpt()
        .arg("verify")
        .arg(&image)
        .run()?
        .succeeded("ckpt verify")?;
    Ok((bytes, life.pid))
}

fn compressed(b: &Bench<'_>) -> Result<()> {
    let (_, pid) = compressed_image(b, "large")?;
    restart(b)?;
    goes_on(b, pid)?;
    // In a namespace of its own the image comes from another process than the one that reads it.
    for name in ["go", "result"] {
        fs::remove_file(b.path(name))?;
    }
    let restarted = b
        .rstr()
        .args(["--new-pidns", "--files=truncate"])
        .stdin(File::open(b.path("image"))?)
        .start()?;
    fs::write(b.path("go"), "")?;
    restarted.finish()?.succeeded("rstr --new-pidns")?;
    same("result", "PASS", fs::read_to_string(b.path("result"))?)
}

fn compressed_from_a_pipe(b: &Bench<'_>) -> Result<()> {
    let (image, pid) = compressed_image(b, "small")?;
    restart_from_a_pipe(b, image)?;
    goes_on(b, pid)
}

/// What the compression cannot write makes the checkpoint fail, before the victim is killed.
fn compressed_to_a_full_disk(b: &Bench<'_>) -> Result<()> {
    let life = b.start("large")?;
    b.ckpt()
        .args(["--compress", "--kill"])
        .arg(life.pid.to_string())
        .stdout(File::create("/dev/full")?)
        .run()?
        .refused("ckpt", &["space"])?;
    unharmed(life)
}

fn compressed_and_damaged(b: &Bench<'_>) -> Result<()> {
    let (image, pid) = compressed_image(b, "small")?;
    for cut in [5, 100, image.len() / 2, image.len() - 100] {
        fails(b, &format!("cut at {cut}"), &image[..cut], pid, &["image"])?;
    }
    let mut damaged = image.clone();
    for i in 0..20 {
        // Neither the magic number nor the mark of the end, which the image does not need.
        let at = 4 + (image.len() - 12) * i / 20;
        damaged[at] ^= 1 << (i % 8);
        fails(b, &format!("byte {at}"), &damaged, pid, &["image"])?;
        damaged[at] = image[at];
    }
    Ok(())
}

/// The other end closes in the middle of the image.
fn writer_gone(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    let (r, w) = sys::pipe(libc::O_CLOEXEC)?;
    let rstr = b.rstr().arg("--detach").stdin(r).start()?;
    let half = image.bytes.len() / 2;
    let mut sent = 0;
    while sent < half {
        sent += sys::write(&w, &image.bytes[sent..half])?;
    }
    drop(w);
    rstr.finish()?.refused("rstr", &["truncated"])?;
    ensure!(Task::read(image.pid).is_none(), "a task was left");
    Ok(())
}

fn reader_gone(b: &Bench<'_>) -> Result<()> {
    let life = b.start("large")?;
    let (r, w) = sys::pipe(libc::O_CLOEXEC)?;
    let ckpt = b
        .ckpt()
        .arg("--kill")
        .arg(life.pid.to_string())
        .stdout(w)
        .start()?;
    let mut some = [0; 5000];
    sys::read(&r, &mut some)?;
    drop(r);
    let done = ckpt.finish()?;
    ensure!(
        !done.status.success(),
        "ckpt succeeded although nobody read the image"
    );
    // Not killed: the image is not whole.
    unharmed(life)
}

fn disk_full(b: &Bench<'_>) -> Result<()> {
    let life = b.start("large")?;
    let path = b.path("small-disk");
    let _disk = Tmpfs::mount(&path, "size=1m")?;
    let ckpt = b
        .ckpt()
        .arg("--kill")
        .arg(life.pid.to_string())
        .arg("-o")
        .arg(path.join("image"));
    ckpt.run()?.refused("ckpt", &["space"])?;
    same("files left", 0, fs::read_dir(&path)?.count())?;
    unharmed(life)
}

fn directory_missing(b: &Bench<'_>) -> Result<()> {
    let life = b.start("small")?;
    let path = b.path("missing/image");
    let ckpt = b
        .ckpt()
        .arg("--kill")
        .arg(life.pid.to_string())
        .arg("-o")
        .arg(&path);
    ckpt.run()?.refused("ckpt", &["missing"])?;
    unharmed(life)
}

/// A binary image is not for a terminal, and none is typed.
fn terminal(b: &Bench<'_>) -> Result<()> {
    let life = b.start("small")?;
    // SAFETY: no memory is involved.
    let master = match sys::owned(unsafe {
        libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC)
    }) {
        Ok(master) => master,
        Err(e) => return skip(format!("no terminals: {e}")),
    };
    use std::os::fd::AsRawFd;
    let mut name = [0; 64];
    // SAFETY: the name has room.
    unsafe {
        cvt(libc::grantpt(master.as_raw_fd()))?;
        cvt(libc::unlockpt(master.as_raw_fd()))?;
        same(
            "ptsname_r",
            0,
            libc::ptsname_r(master.as_raw_fd(), name.as_mut_ptr(), name.len()),
        )?;
    }
    // SAFETY: ptsname_r wrote a C string.
    let name = unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) }.to_str()?;
    let tty = || {
        sys::open(
            Path::new(name),
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        )
    };
    b.ckpt()
        .arg(life.pid.to_string())
        .stdout(tty()?)
        .run()?
        .refused("ckpt", &["terminal"])?;
    b.rstr()
        .stdin(tty()?)
        .run()?
        .refused("rstr", &["terminal"])?;
    unharmed(life)
}

fn pid_taken(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("small")?;
    let image = b.path("image");
    life.checkpoint(&[], &image)?;
    let pid = life.pid.to_string();
    b.rstr()
        .arg("--detach")
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &[&pid])?;
    unharmed(life)
}

fn image_of_another_user(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    let mode = fs::metadata(b.path("image"))?.permissions().mode() & 0o777;
    same("mode of the image", 0o600, mode)?;
    b.rstr()
        .arg("-i")
        .arg(b.path("image"))
        .as_user(1000)
        .run()?
        .refused("rstr", &["permi"])?;
    ensure!(Task::read(image.pid).is_none(), "a task was left");
    Ok(())
}

/// Chosen numbers need a privilege; the message names what helps.
fn restart_without_privilege(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "small")?;
    chown(b.path("image"), Some(1000), Some(1000))?;
    let rstr = b
        .rstr()
        .arg("--detach")
        .arg("-i")
        .arg(b.path("image"))
        .as_user(1000);
    rstr.run()?.refused("rstr", &["--new-pidns"])?;
    ensure!(Task::read(image.pid).is_none(), "a task was left");
    Ok(())
}

/// The program that the image maps is no longer there.
fn program_missing(b: &Bench<'_>) -> Result<()> {
    let copy = b.path("program");
    fs::copy(std::env::current_exe()?, &copy)?;
    let mut command = std::process::Command::new(&copy);
    command
        .args(["--victim", "small"])
        .arg(&b.dir)
        .current_dir(&b.dir);
    command
        .stdin(Stdio::null())
        .stdout(File::create(b.path("log"))?)
        .stderr(Stdio::null());
    let mut life = b.start_with("small", command)?;
    let image = b.path("image");
    life.checkpoint_and_kill(&image)?;
    fs::remove_file(&copy)?;
    b.rstr()
        .arg("--detach")
        .arg("-i")
        .arg(&image)
        .run()?
        .refused("rstr", &["/program"])?;
    ensure!(Task::read(life.pid).is_none(), "a task was left");
    Ok(())
}

/// Moments, spread over what `whole` took, at which to strike.
fn moments(b: &Bench<'_>, whole: Duration) -> impl Iterator<Item = Duration> {
    let n = if b.long { 300 } else { 20 };
    (0..n).map(move |i| whole * (i * 7 % n) / n)
}

/// Whenever ckpt is killed, the target goes on at once, and can be checkpointed by another.
fn ckpt_killed(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("large")?;
    let image = b.path("image");
    let whole = life.checkpoint(&[], &image)?.took;
    let pid = life.pid.to_string();
    for moment in moments(b, whole) {
        let mut ckpt = b.ckpt().arg(&pid).arg("-o").arg(&image).start()?;
        sys::nap(moment);
        let _ = kill(ckpt.process.pid, libc::SIGKILL);
        ckpt.process
            .wait(Duration::from_secs(20))
            .context("a killed ckpt does not end")?;
        let state = || Task::read(life.pid).map(|t| t.state);
        ensure!(
            sys::until(Duration::from_secs(20), || matches!(
                state(),
                Some('S' | 'R')
            )),
            "ckpt killed after {moment:?}: the target is in state {:?}",
            state()
        );
    }
    life.checkpoint(&[], &image).context("after all that")?;
    unharmed(life)?;
    b.forget()?;
    b.rstr()
        .arg("--detach")
        .arg("-i")
        .arg(&image)
        .run()?
        .succeeded("rstr")?;
    goes_on(b, pid.parse()?)
}

/// Whenever rstr is killed, there is the whole tree afterwards or nothing.
fn rstr_killed(b: &Bench<'_>) -> Result<()> {
    let image = Image::of(b, "large")?;
    let path = b.path("image");
    let done = restart(b)?;
    goes_on(b, image.pid)?;
    for moment in moments(b, done.took) {
        b.forget()?;
        let mut rstr = b.rstr().arg("--detach").arg("-i").arg(&path).start()?;
        sys::nap(moment);
        let _ = kill(rstr.process.pid, libc::SIGKILL);
        rstr.process
            .wait(Duration::from_secs(20))
            .context("a killed rstr does not end")?;
        // What was built and not yet let go is taken down; what runs, runs.
        sys::nap(Duration::from_millis(300));
        match Task::read(image.pid) {
            None => {}
            // Taken down; nobody has read its status yet.
            Some(task) if task.state == 'Z' => {
                selftests::Process::adopt(image.pid).wait(Duration::from_secs(1))?;
            }
            Some(_) => {
                let status = ends(b, image.pid)?;
                // On its way to be taken down it may still have been there.
                ensure!(
                    status.success() || status.signal() == Some(libc::SIGKILL),
                    "rstr killed after {moment:?}: the victim ended with {status}"
                );
                if status.success() {
                    same("result", "PASS", fs::read_to_string(b.path("result"))?)?;
                }
            }
        }
    }
    Ok(())
}

/// Whenever the target dies, ckpt ends, and there is an image if it says so.
fn target_killed(b: &Bench<'_>) -> Result<()> {
    let mut life = b.start("large")?;
    let whole = life.checkpoint(&[], &b.path("first"))?.took;
    life.kill()?;
    for moment in moments(b, whole) {
        let _ = fs::remove_file(b.path("ready"));
        let mut life = b.start("large")?;
        let image = b.path("image");
        let _ = fs::remove_file(&image);
        let ckpt = b
            .ckpt()
            .arg(life.pid.to_string())
            .arg("-o")
            .arg(&image)
            .start()?;
        sys::nap(moment);
        life.kill()?;
        let done = ckpt.finish()?;
        ensure!(
            done.status.code().is_some(),
            "ckpt ended with {}",
            done.status
        );
        same(
            "image there, as ckpt says",
            done.status.success(),
            image.exists(),
        )?;
    }
    Ok(())
}
