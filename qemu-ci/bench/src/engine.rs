// SPDX-License-Identifier: GPL-2.0
//! What makes checkpoints and restarts: the system calls, the tools on top of them, CRIU.

use crate::report::Why;
use anyhow::Context as _;
use anyhow::Error;
use anyhow::Result;
use anyhow::bail;
use checkpoint::Checkpoint;
use checkpoint::Restart;
use std::fs;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// One that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// checkpoint(2) and restart(2), by the kernel's own stamps.
    Calls,
    /// The same, with a checkpoint that kills the tree, which gives its pages to the image.
    Killing,
    /// `ckpt` and `rstr`, from their start to their end.
    Tools,
    /// `criu`, likewise.
    Criu,
}

/// What one checkpoint or restart took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// From begin to end.
    pub total: Duration,
    /// How long the tree stood still; only of a checkpoint.
    pub stopped: Duration,
    /// Size of the image; only of a checkpoint.
    pub bytes: u64,
}

const IMAGE: &str = "image";
const CRIU: &str = "/usr/sbin/criu";

impl Engine {
    /// All that each metric is measured with.
    pub const ALL: [Self; 3] = [Self::Calls, Self::Tools, Self::Criu];

    /// The last part of the key of a figure.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calls => "ours",
            Self::Killing => "killed",
            Self::Tools => "tools",
            Self::Criu => "criu",
        }
    }

    /// Makes an image of the tree below `pid` in the empty directory `dir`; the tree goes on, unless
    /// it is killed.
    ///
    /// # Errors
    ///
    /// [`Why::Refused`] when the tree has something that is not supported.
    pub fn checkpoint(self, pid: i32, dir: &Path) -> Result<Done> {
        let image = dir.join(IMAGE);
        match self {
            Self::Calls | Self::Killing => {
                let target = checkpoint::process(pid)?;
                let file = File::create_new(&image)?;
                let call = Checkpoint::new(target.as_fd());
                let stats = match self {
                    Self::Killing => call.write_and_kill(file.as_fd()),
                    _ => call.write(file.as_fd()),
                };
                let stats = stats.map_err(explain)?;
                Ok(Done { total: stats.total, stopped: stats.stopped, bytes: stats.bytes })
            }
            Self::Tools => {
                let mut command = Command::new("ckpt");
                command.arg("-o").arg(&image).arg(pid.to_string());
                let total = run(command)?;
                Ok(Done { total, bytes: fs::metadata(&image)?.len(), ..Done::default() })
            }
            Self::Criu => {
                let total = run(criu("dump", dir).args(["--leave-running", "-t", &pid.to_string()]))?;
                let stopped = frozen(dir)?;
                Ok(Done { total, stopped, bytes: pages_and_all(dir)? })
            }
        }
    }

    /// Restarts what [`Self::checkpoint`] made, whose processes are gone.
    ///
    /// # Errors
    ///
    /// [`Why::Refused`] as there.
    pub fn restart(self, dir: &Path) -> Result<Done> {
        let image = dir.join(IMAGE);
        let total = match self {
            Self::Calls | Self::Killing => {
                let file = File::open(&image)?;
                Restart::new().read(file.as_fd()).map_err(explain)?.stats.total
            }
            Self::Tools => run(Command::new("rstr").args(["--detach", "-i"]).arg(&image))?,
            Self::Criu => run(criu("restore", dir).arg("--restore-detached"))?,
        };
        Ok(Done { total, ..Done::default() })
    }
}

/// The checkpoint with which CRIU keeps the tree frozen for the shortest time: most of the memory is written before, by
/// one that goes ahead, in a directory below `dir`.
///
/// # Errors
///
/// As [`Engine::checkpoint`].
pub fn criu_with_pre_dump(pid: i32, dir: &Path) -> Result<Done> {
    let ahead = dir.join("ahead");
    fs::create_dir(&ahead)?;
    let pid = pid.to_string();
    let mut total = run(criu("pre-dump", &ahead).args(["--track-mem", "-t", &pid]))?;
    let mut last = criu("dump", dir);
    last.args(["--track-mem", "--prev-images-dir", "ahead", "--leave-running", "-t", &pid]);
    total += run(last)?;
    Ok(Done { total, stopped: frozen(dir)?, bytes: pages_and_all(dir)? + pages_and_all(&ahead)? })
}

fn criu(action: &str, dir: &Path) -> Command {
    let mut command = Command::new(CRIU);
    command.args([action, "-v1", "--network-lock", "skip", "-D"]).arg(dir);
    command
}

/// How many lines of what a program said are passed on.
const LINES: usize = 4;

/// Runs a program to its end, and says how long it took.
fn run(mut command: impl std::borrow::BorrowMut<Command>) -> Result<Duration> {
    let command = command.borrow_mut();
    let said = File::options().create(true).write(true).truncate(true).open("/tmp/said")?;
    command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("{command:?}"))?;
    let took = begin.elapsed();
    if !status.success() {
        let said = fs::read_to_string("/tmp/said")?;
        let said: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        let said = said[said.len().saturating_sub(LINES)..].join("; ");
        if said.contains(": not supported") {
            return Err(Why::Refused(said).into());
        }
        bail!("{command:?}: {status}: {said}");
    }
    Ok(took)
}

fn explain(error: checkpoint::Error) -> Error {
    let first = error.problems().first().cloned().unwrap_or_default();
    if first.contains("not supported") {
        return Why::Refused(first).into();
    }
    Error::new(error).context(first)
}

/// How long CRIU says that it kept the tree frozen: field `frozen_time`, in us, of its statistics.
fn frozen(dir: &Path) -> Result<Duration> {
    let stats = fs::read(dir.join("stats-dump"))?;
    // Two magic numbers and a length, then `stats_entry` with `dump_stats_entry dump = 1` in it.
    let entry = stats.get(12..).context("stats-dump is too short")?;
    let dump = protobuf(entry, 1).context("stats-dump has no dump")?;
    let Field::Bytes(dump) = dump else { bail!("stats-dump is not as expected") };
    match protobuf(dump, 2) {
        Some(Field::Number(us)) => Ok(Duration::from_micros(us)),
        _ => bail!("stats-dump has no frozen_time"),
    }
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The first field `wanted` of a message in the form of Protocol Buffers.
fn protobuf(mut message: &[u8], wanted: u64) -> Option<Field<'_>> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let field = match key & 7 {
            0 => Field::Number(varint(&mut message)?),
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(len)?;
                message = rest;
                Field::Bytes(bytes)
            }
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(field);
        }
    }
    None
}

fn pages_and_all(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Statistics and the log are no part of the image.
        if entry.path().extension().is_some_and(|extension| extension == "img") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found() {
        let message = [0x0a, 5, 0x08, 0xac, 0x02, 0x10, 7];
        let Some(Field::Bytes(inner)) = protobuf(&message, 1) else { panic!("no field 1") };
        assert!(matches!(protobuf(inner, 1), Some(Field::Number(300))));
        assert!(matches!(protobuf(inner, 2), Some(Field::Number(7))));
        assert!(protobuf(inner, 3).is_none());
        assert!(protobuf(&message[..3], 1).is_none());
    }
}
