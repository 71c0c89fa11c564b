// SPDX-License-Identifier: GPL-2.0
//! Builds the kernels, boots them and runs the tests; the Makefile's targets are its subcommands.

mod bench;
mod check;
mod config;
mod context;
mod debian;
mod disk;
mod files;
mod guest;
mod initramfs;
mod kernel;
mod ktap;
mod lexer;
mod logscan;
mod members;
mod overlay;
mod process;
mod series;
mod source;
mod suite;
mod support;
mod toolchain;
mod tree;
mod ui;
mod userspace;

use anyhow::Result;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use config::Flavour;
use context::Context;
use guest::Cpu;
use kernel::Builder;
use members::Outcome;
use source::Origin;
use source::Source;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Builds the checkpoint kernels, boots them and runs the tests")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Gets the kernel source.
    Fetch {
        /// Take it from there only.
        #[arg(long)]
        from: Option<Origin>,
    },
    /// Puts the patches and the Rust files on the tree, and configures it.
    Prepare,
    /// Builds a kernel.
    Build(Kernel),
    /// Boots the guest once.
    Boot {
        #[command(flatten)]
        kernel: Kernel,
        #[command(flatten)]
        machine: Machine,
        /// A shell instead of the tests.
        #[arg(long)]
        shell: bool,
        /// 2 stands for the second boot: the scratch disk of the first one is kept.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2))]
        boot: u32,
        /// Only tests whose name matches one of these patterns, with commas in between.
        filter: Option<String>,
    },
    /// Runs all tests.
    Test {
        /// Also those that take long.
        #[arg(long)]
        long: bool,
        /// Only under this kernel.
        #[arg(long)]
        kernel: Option<Flavour>,
        #[command(flatten)]
        machine: Machine,
        /// Only selftests whose name matches one of these patterns, with commas in between.
        filter: Option<String>,
    },
    /// Measures checkpoint and restart beside CRIU and what the kernel takes for the like.
    Bench(bench::Options),
    /// Shows a checkpoint of a working program, and its restart after a reboot.
    Demo(Machine),
    /// Writes the mailable series and checks that it applies.
    Series {
        /// Where to.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Build the objects that each step touches.
        #[arg(long)]
        build: bool,
    },
    /// Compares the kernel's structs with the tables in members/.
    Members {
        /// The bindings of this kernel instead of the one that was built.
        #[arg(long)]
        bindings: Option<PathBuf>,
        #[command(flatten)]
        kernel: Kernel,
    },
    /// Prints the support table.
    Support {
        /// Put it into README.md instead.
        #[arg(long, conflicts_with = "check")]
        write: bool,
        /// Fail when README.md has another one.
        #[arg(long)]
        check: bool,
    },
    /// Checks formatting, and runs clippy and checkpatch.
    Check,
    /// Removes what was built.
    Clean {
        /// And what was downloaded.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Args)]
struct Kernel {
    /// The debug kernel instead of the lean one.
    #[arg(long)]
    debug: bool,
}

impl Kernel {
    fn flavour(&self) -> Flavour {
        if self.debug { Flavour::Debug } else { Flavour::Lean }
    }
}

#[derive(Args)]
struct Machine {
    /// The guest's processor.
    #[arg(long, default_value = "max")]
    cpu: Cpu,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does the task; `false` stands for a failure that was told already.
fn run(task: Task) -> Result<bool> {
    let ctx = Context::open()?;
    match task {
        Task::Fetch { from } => {
            let source = Source::get(&ctx, from)?;
            let record = &source.record;
            ui::say(&format!("Linux {} from {}, sha256 {}", record.version, record.origin.describe(), record.sha256));
            ui::say(&source.dir.display().to_string());
        }
        Task::Prepare => {
            let builder = Builder::prepare(&ctx)?;
            for flavour in [Flavour::Lean, Flavour::Debug] {
                builder.configure(flavour, true)?;
            }
            ui::say(&builder.tree().display().to_string());
        }
        Task::Build(kernel) => {
            let image = Builder::prepare(&ctx)?.build(kernel.flavour())?;
            ui::say(&image.display().to_string());
        }
        Task::Boot { kernel, machine, shell, boot, filter } => {
            suite::boot(&ctx, kernel.flavour(), machine.cpu, shell, boot, filter.as_deref())?;
        }
        Task::Test { long, kernel, machine, filter } => {
            let kernels = kernel.map_or_else(|| vec![Flavour::Lean, Flavour::Debug], |kernel| vec![kernel]);
            return Ok(suite::test(&ctx, &suite::Options { kernels, cpu: machine.cpu, long, filter }));
        }
        Task::Bench(options) => return bench::bench(&ctx, &options),
        Task::Demo(machine) => suite::demo(&ctx, machine.cpu)?,
        Task::Series { out, build } => series::series(&ctx, out, build)?,
        Task::Members { bindings, kernel } => {
            let bindings = match bindings {
                Some(file) => file,
                None => Builder::prepare(&ctx)?.bindings(kernel.flavour()),
            };
            return Ok(tell(&members::check(&bindings, &ctx.repo)?));
        }
        Task::Support { check: true, .. } => return Ok(tell(&support::check(&ctx.repo)?)),
        Task::Support { write, .. } => support::support(&ctx, write)?,
        Task::Check => check::check(&ctx)?,
        Task::Clean { all } => clean(&ctx, all)?,
    }
    Ok(true)
}

/// Tells what a test on the host found; says whether it passed.
fn tell(outcome: &Outcome) -> bool {
    for problem in &outcome.problems {
        ui::say(problem);
    }
    ui::say(&format!("{}: {} problems", outcome.summary, outcome.problems.len()));
    outcome.problems.is_empty()
}

/// Empties the area, or all of the cache.
fn clean(ctx: &Context, all: bool) -> Result<()> {
    let mut dirs = vec![ctx.work.clone()];
    if all {
        let _lock = ctx.lock_shared()?;
        debian::remove_root_tree(&ctx.cache.join("toolchain"))?;
        debian::remove_root_tree(&ctx.cache.join("disk"))?;
        dirs.extend(["work", "bench", "source", "download", "apt", "xtask"].map(|dir| ctx.cache.join(dir)));
    }
    for dir in dirs {
        files::remove(&dir)?;
    }
    Ok(())
}
