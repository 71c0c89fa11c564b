// SPDX-License-Identifier: GPL-2.0
//! Measures in the guest: checkpoint(2) and restart(2), CRIU, and what the kernel itself takes for the like.
//!
//! `bench run` goes through the metrics; each figure is a line on standard output, see [`report`]. The others are the
//! programs that are measured: `bench victim` is checkpointed, `bench limit` is timed.

mod engine;
mod life;
mod limit;
mod metric;
mod report;
mod victim;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["run", ref options @ ..] => metric::run(options),
        ["victim", kind, size, dir] => {
            size.parse().context("size").and_then(|size| victim::run(kind, size, Path::new(dir)))
        }
        ["limit", what, size, runs] => limit::run(what, size, runs),
        _ => usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> Result<()> {
    bail!("usage: bench run [--quick] [--only=M2,M5] | victim KIND SIZE DIR | limit WHAT SIZE RUNS")
}
