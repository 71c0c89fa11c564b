// SPDX-License-Identifier: GPL-2.0
//! The benchmark: one guest measures checkpoint(2) and restart(2), CRIU, and what the kernel itself takes for the like.
//!
//! The guest's processor is emulated such that each instruction takes a nanosecond of the guest's time. So the figures
//! are instructions rather than times: they repeat, whatever else the host does, and only their ratios mean anything.

mod figures;
mod table;

use crate::config::Flavour;
use crate::context::Context;
use crate::disk;
use crate::files;
use crate::guest::Boot;
use crate::guest::Cpu;
use crate::guest::Ended;
use crate::guest::Mode;
use crate::guest::Pace;
use crate::initramfs;
use crate::kernel::Builder;
use crate::suite;
use crate::ui;
use crate::userspace;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use clap::Args;
use figures::Figures;
use serde::Deserialize;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::Duration;
use xshell::Shell;
use xshell::cmd;

/// MiB of memory that the largest victim and its image need.
const MEMORY: u32 = 6144;

const LIMIT: Duration = Duration::from_secs(3 * 3600);

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// What to measure, and what to do with it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only these metrics, with commas in between: M2,M5.
    #[arg(long)]
    only: Option<String>,
    /// Fewer runs, smaller sizes.
    #[arg(long)]
    quick: bool,
    /// Without CRIU.
    #[arg(long)]
    no_criu: bool,
    /// Also what a kernel with the subsystem costs when nobody uses it; builds another kernel.
    #[arg(long)]
    idle: bool,
    /// Compare with the last run that measured the same.
    #[arg(long)]
    compare: bool,
    /// Print the last run again instead of measuring.
    #[arg(long)]
    last: bool,
    /// Put the table into README.md.
    #[arg(long)]
    write: bool,
}

/// One run, as it is kept in the cache.
#[derive(Serialize, Deserialize)]
struct Run {
    /// Date and time, UTC.
    date: String,
    /// Commit of the clone, with a mark if files differ from it.
    commit: String,
    linux: String,
    quick: bool,
    figures: Figures,
}

/// Measures, prints the table and keeps the figures; says whether all that was wanted could be measured.
pub fn bench(ctx: &Context, options: &Options) -> Result<bool> {
    let dir = ctx.cache.join("bench");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let mut runs = kept(&dir)?;
    let run = if options.last { runs.pop().context("there is no run yet")? } else { measure(ctx, options)? };
    let before = runs.into_iter().rev().find(|before| before.quick == run.quick).filter(|_| options.compare);
    if options.compare && before.is_none() {
        ui::say("there is no earlier run to compare with");
    }
    if !options.last {
        files::write_json(&dir.join(format!("{}.json", run.date.replace(':', ""))), &run)?;
    }
    let rows = table::rows(&run.figures);
    ui::say(&table::text(&rows, before.map(|before| table::rows(&before.figures)).as_deref()));
    let errors = run.figures.errors();
    for error in &errors {
        ui::say(&format!("not measured: {error}"));
    }
    if options.write {
        write(ctx, &run, &rows)?;
    }
    Ok(errors.is_empty())
}

/// The runs in the cache, the latest last.
fn kept(dir: &Path) -> Result<Vec<Run>> {
    let runs = files::walk(dir, &|_| false)?;
    Ok(runs.iter().filter_map(|file| files::read_json(&dir.join(file))).collect())
}

fn measure(ctx: &Context, options: &Options) -> Result<Run> {
    let sh = Shell::new()?;
    sh.change_dir(&ctx.repo);
    // What is built now: there may be others by the time that all is measured.
    let commit = cmd!(sh, "git describe --always --dirty").quiet().read()?;
    let builder = Builder::prepare(ctx)?;
    let kernel = builder.build(Flavour::Bench)?;
    let initramfs = initramfs::build(ctx, &userspace::build(ctx)?)?;
    let debian = disk::criu(ctx)?;
    let mut words = Vec::new();
    words.extend(options.quick.then(|| "--quick".to_owned()));
    words.extend(options.no_criu.then(|| "--no-criu".to_owned()));
    words.extend(options.only.as_ref().map(|only| format!("--only={only}")));
    let mut boot = Boot {
        flavour: Flavour::Bench,
        kernel: &kernel,
        initramfs: &initramfs,
        debian: &debian,
        scratch: None,
        pace: Pace::Counted,
        memory: MEMORY,
        cpu: Cpu::Max,
        mode: Mode::Bench,
        number: 1,
        append: append(&words),
        limit: LIMIT,
    };
    let mut figures = Figures::default();
    guest(ctx, &boot, &mut figures)?;
    let wants = |metric| options.only.as_ref().is_none_or(|only| only.split(',').any(|name| name == metric));
    if wants("M1") || wants("M15") {
        boot.pace = Pace::Free;
        boot.number += 1;
        words.push("--free".into());
        boot.append = append(&words);
        guest(ctx, &boot, &mut figures)?;
    }
    if options.idle {
        let without = builder.build(Flavour::BenchOff)?;
        boot.pace = Pace::Counted;
        for (flavour, kernel, who) in [(Flavour::Bench, &kernel, "ours"), (Flavour::BenchOff, &without, "limit")] {
            boot.number += 1;
            (boot.flavour, boot.kernel) = (flavour, kernel);
            boot.append = append(&[format!("--idle={who}")]);
            guest(ctx, &boot, &mut figures)?;
        }
        let added = text_bytes(&builder.vmlinux(Flavour::Bench))? - text_bytes(&builder.vmlinux(Flavour::BenchOff))?;
        figures.put("M12/text/1/ours", added)?;
    }
    Ok(Run {
        date: cmd!(sh, "date --utc +%FT%TZ").quiet().read()?,
        commit,
        linux: builder.version().to_owned(),
        quick: options.quick,
        figures,
    })
}

fn append(words: &[String]) -> Vec<String> {
    words.iter().map(|word| format!("ckpt.bench={word}")).collect()
}

/// Size of a kernel's instructions and constants.
fn text_bytes(vmlinux: &Path) -> Result<f64> {
    let sh = Shell::new()?;
    let sections = cmd!(sh, "size -A -d {vmlinux}").quiet().read()?;
    let size = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (name == ".text" || name == ".rodata").then(|| words.next()?.parse::<f64>().ok())?
    };
    Ok(sections.lines().filter_map(size).sum())
}

/// Runs one guest to its end and takes the figures that it reports.
fn guest(ctx: &Context, boot: &Boot<'_>, figures: &mut Figures) -> Result<()> {
    let mut last = String::new();
    let mut bad = None;
    let ended = boot.run(ctx, |line| {
        if let Some(figure) = line.strip_prefix("bench: ") {
            ui::say(&format!("  {figure}"));
            bad = bad.take().or(figures.add(figure).err());
        }
        last = line.to_owned();
    })?;
    suite::judge(ctx, boot, ended, &suite::console(ctx, boot)?)?;
    if let Some(e) = bad {
        return Err(e);
    }
    // So init ends when the measuring side went through all of its metrics.
    if ended == Ended::TimedOut || last != "bench ended: exit status: 0" {
        bail!("the benchmark failed: {last}; log in {}", boot.console(ctx).display());
    }
    Ok(())
}

/// Puts the table between its marks in README.md.
fn write(ctx: &Context, run: &Run, rows: &[table::Row]) -> Result<()> {
    let path = ctx.repo.join("README.md");
    let readme = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = format!(
        "Measured {} at {}, Linux {}{}.\n\n{}",
        &run.date[..10],
        run.commit,
        run.linux,
        if run.quick { ", small sizes only" } else { "" },
        table::markdown(rows)
    );
    let new = files::between(&readme, BEGIN, END, &text)
        .with_context(|| format!("README.md: two lines are wanted, {BEGIN} and {END}"))?;
    files::write_if_changed(&path, new)?;
    Ok(())
}
