// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Taking a checkpoint.

use std::{
    fmt::Display,
    io::{
        self,
        IsTerminal,
        Write, //
    },
    os::fd::AsFd,
    process::ExitCode,
    sync::mpsc::{
        self,
        RecvTimeoutError, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};

use anyhow::Context;
use checkpoint::{
    progress::{
        Direction,
        Progress,
        Size,
        Time, //
    },
    Checkpoint,
    External,
    Hold,
    Stats, //
};

use super::{
    output::Output,
    say,
    Capture,
    REFUSED,
    USAGE, //
};

/// The kernel's lease of a hold if none is asked for.
const DEFAULT_LEASE: Duration = Duration::from_secs(10);

fn count(number: u64, one: &str, many: &str) -> impl Display {
    format!("{number} {}", if number == 1 { one } else { many })
}

pub fn run(options: &Capture) -> anyhow::Result<ExitCode> {
    let pid = options.pid.unwrap_or_default();
    let to_stdout = !options.check && options.output.is_none();
    if to_stdout && io::stdout().is_terminal() {
        say("an image does not go to a terminal: redirect the output, or give -o FILE");
        return Ok(ExitCode::from(USAGE));
    }

    let target = checkpoint::process(pid).with_context(|| format!("process {pid}"))?;
    let mut call = Checkpoint::new(target.as_fd())
        .timeout(options.timeout.unwrap_or_default())
        .lease(options.lease.unwrap_or_default())
        .no_snapshot(options.no_snapshot);
    for (list, action) in [
        (&options.external, External::Supply),
        (&options.drop, External::Drop),
    ] {
        for arg in list {
            call = call.external(arg.pid, arg.fd, action);
        }
    }
    if options.check {
        return check(pid, &call, options.quiet);
    }

    let begin = Instant::now();
    let output = Output::new(options.output.as_deref())?;
    let progress = Progress::start(output.stream(), Direction::Write, options.quiet);
    let (stats, end) = if options.kill || options.stop {
        let hold = call.hold()?;
        let held = Instant::now();
        let mut stats = while_renewed(&hold, options.lease, || -> anyhow::Result<Stats> {
            let stats = hold.write(output.stream(), &call)?;
            output.publish()?;
            Ok(stats)
        })?;
        // Only now, when nothing can be lost any more.
        let end = if options.kill {
            hold.kill()?;
            "killed"
        } else {
            hold.stop()?;
            "stopped"
        };
        stats.stopped = held.elapsed();
        (stats, end)
    } else {
        let stats = call.write(output.stream())?;
        output.publish()?;
        (stats, "goes on")
    };
    drop(progress);

    for line in &stats.messages {
        say(line);
    }
    if !options.quiet {
        say(format_args!(
            "process {pid} {end}: {}, {}, {}; stood still {}, {} in all",
            count(stats.tasks, "task", "tasks"),
            count(stats.pages, "page", "pages"),
            Size(stats.bytes),
            Time(stats.stopped),
            Time(begin.elapsed()),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Does `work` while a thread keeps the hold from running out.
fn while_renewed<T>(hold: &Hold, lease: Option<Duration>, work: impl FnOnce() -> T) -> T {
    let every = lease.unwrap_or(DEFAULT_LEASE) / 3;
    thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            while wait.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // A hold that has ended shows when it is used.
                let _ = hold.renew();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn check(pid: i32, call: &Checkpoint<'_>, quiet: bool) -> anyhow::Result<ExitCode> {
    let blockers = call.check()?;
    let mut out = io::stdout().lock();
    for line in &blockers {
        writeln!(out, "{line}").context("cannot write the list")?;
    }
    if !quiet {
        say(match blockers.len() {
            0 => format!("process {pid}: nothing stands in the way of a checkpoint"),
            1 => format!("process {pid}: this stands in the way of a checkpoint"),
            n => format!("process {pid}: these {n} stand in the way of a checkpoint"),
        });
    }
    Ok(if blockers.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}
