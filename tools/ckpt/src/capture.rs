// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Taking a checkpoint.

use std::{
    fmt::Display,
    fs::File,
    io::{
        self,
        IsTerminal,
        Write, //
    },
    os::fd::{
        AsFd,
        OwnedFd, //
    },
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
    Scope,
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
    let to_stdout = !options.check && options.output.is_none();
    if to_stdout && io::stdout().is_terminal() {
        say("an image does not go to a terminal: redirect the output, or give -o FILE");
        return Ok(ExitCode::from(USAGE));
    }

    let (what, target, scope) = target(options)?;
    let mut call = Checkpoint::new(target.as_fd())
        .scope(scope)
        .timeout(options.timeout.unwrap_or_default())
        .lease(options.lease.unwrap_or_default())
        .no_snapshot(options.no_snapshot)
        .save_files(options.save_files);
    for (list, action) in [
        (&options.external, External::Supply),
        (&options.drop, External::Drop),
    ] {
        for arg in list {
            call = call.external(arg.pid, arg.fd, action);
        }
    }
    if options.check {
        return check(&what, &call, options.quiet);
    }

    let begin = Instant::now();
    let mut output = Output::new(options.output.as_deref())?;
    let progress = Progress::start(output.stream(), Direction::Write, options.quiet);
    let (stats, end) = if options.kill && !options.compress && output.is_in_memory() {
        // Its pages become those of the file, which has a name before.
        output.name()?;
        let stats = output.write(false, |to| call.write_and_kill(to))?;
        output.publish_or_keep()?;
        (stats, "killed")
    } else if options.kill || options.stop {
        let hold = call.hold()?;
        let held = Instant::now();
        let mut stats = while_renewed(&hold, options.lease, || -> anyhow::Result<Stats> {
            let stats = output.write(options.compress, |to| hold.write(to, &call))?;
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
        let stats = output.write(options.compress, |to| call.write(to))?;
        output.publish()?;
        (stats, "goes on")
    };
    drop(progress);

    for line in &stats.messages {
        say(line);
    }
    if !options.quiet {
        say(format_args!(
            "{what} {end}: {}, {}, {}; stood still {}, {} in all",
            count(stats.tasks, "task", "tasks"),
            count(stats.pages, "page", "pages"),
            Size(stats.bytes),
            Time(stats.stopped),
            Time(begin.elapsed()),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// What is meant: its name, and the descriptor that stands for it.
fn target(options: &Capture) -> anyhow::Result<(String, OwnedFd, Scope)> {
    if let Some(dir) = &options.cgroup {
        let name = format!("cgroup {}", dir.display());
        let dir = File::open(dir).with_context(|| name.clone())?;
        return Ok((name, dir.into(), Scope::Cgroup));
    }
    let pid = options.pid.unwrap_or_default();
    let target = checkpoint::process(pid).with_context(|| format!("process {pid}"))?;
    let (what, scope) = if options.group {
        ("process group of ", Scope::Group)
    } else if options.session {
        ("session of ", Scope::Session)
    } else if options.pid_namespace {
        ("pid namespace of ", Scope::PidNamespace)
    } else {
        ("", Scope::Process)
    };
    Ok((format!("{what}process {pid}"), target, scope))
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

fn check(what: &str, call: &Checkpoint<'_>, quiet: bool) -> anyhow::Result<ExitCode> {
    let blockers = call.check()?;
    let mut out = io::stdout().lock();
    for line in &blockers {
        writeln!(out, "{line}").context("cannot write the list")?;
    }
    if !quiet {
        say(match blockers.len() {
            0 => format!("{what}: nothing stands in the way of a checkpoint"),
            1 => format!("{what}: this stands in the way of a checkpoint"),
            n => format!("{what}: these {n} stand in the way of a checkpoint"),
        });
    }
    Ok(if blockers.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}
