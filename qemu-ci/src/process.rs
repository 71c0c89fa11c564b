// SPDX-License-Identifier: GPL-2.0
//! Running programs: quietly with a log file, as root, and in step with the progress line.

use crate::ui::Step;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::LineWriter;
use std::io::Read;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

/// How many lines of a failed program's log are shown.
const EXCERPT_LINES: usize = 20;

/// Which of its two streams a program wrote a line to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A command that runs as root: directly, or through sudo.
pub fn as_root(program: impl AsRef<OsStr>) -> Command {
    if rustix::process::getuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Runs `command` with both streams going to `log`, while `step` shows that it is alive.
///
/// `on_line` sees every line and may return what to show on the progress line. A failure names the log and shows the
/// lines of it that tell most.
pub fn run(
    mut command: Command,
    log: &Path,
    step: &mut Step,
    mut on_line: impl FnMut(Stream, &str) -> Option<String>,
) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let mut out = LineWriter::new(File::create(log).with_context(|| log.display().to_string())?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program}: cannot be run"))?;
    let (sender, lines) = mpsc::channel();
    forward(child.stdout.take(), Stream::Out, sender.clone());
    forward(child.stderr.take(), Stream::Err, sender);
    let mut detail = String::new();
    loop {
        match lines.recv_timeout(Duration::from_secs(1)) {
            Ok((stream, line)) => {
                writeln!(out, "{line}").with_context(|| log.display().to_string())?;
                if let Some(new) = on_line(stream, &line) {
                    detail = new;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        step.tick(&detail);
    }
    out.flush().with_context(|| log.display().to_string())?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status}), full log in {}{}", step.what(), log.display(), excerpt(log));
    }
    Ok(())
}

fn forward(stream: Option<impl Read + Send + 'static>, kind: Stream, sender: Sender<(Stream, String)>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || each_line(stream, |line| sender.send((kind, line)).is_ok()));
}

/// Hands over each line of a stream, until it ends or `wanted` says no; bytes that are no UTF-8 are replaced.
pub fn each_line(stream: impl Read, mut wanted: impl FnMut(String) -> bool) {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        if !wanted(String::from_utf8_lossy(&line).trim_end().to_owned()) {
            break;
        }
        line.clear();
    }
}

/// The lines from the first that looks like an error, or else the last ones.
fn excerpt(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tells =
        |line: &&str| ["error:", "error[", "E: ", "*** ", "fatal:", "undefined "].iter().any(|s| line.contains(s));
    let first = lines.iter().position(tells).unwrap_or(lines.len().saturating_sub(EXCERPT_LINES));
    lines.iter().skip(first).take(EXCERPT_LINES).map(|line| format!("\n    {line}")).collect()
}
