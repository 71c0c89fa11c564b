// SPDX-License-Identifier: GPL-2.0
//! What `test`, `demo` and `boot` do: build what the guest needs, boot it twice, judge what it says.

use crate::config::Flavour;
use crate::context::Context;
use crate::disk;
use crate::guest::Boot;
use crate::guest::Cpu;
use crate::guest::Ended;
use crate::guest::MEMORY;
use crate::guest::Mode;
use crate::guest::Pace;
use crate::initramfs;
use crate::kernel::Builder;
use crate::ktap;
use crate::ktap::Totals;
use crate::logscan;
use crate::members;
use crate::members::Outcome;
use crate::support;
use crate::ui;
use crate::userspace;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// What to test.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kernels.
    pub kernels: Vec<Flavour>,
    /// The guest's processor.
    pub cpu: Cpu,
    /// Whether the tests that take long run too.
    pub long: bool,
    /// Only tests whose name matches this pattern, and no unit tests.
    pub filter: Option<String>,
}

/// How long a boot may take.
fn limit(flavour: Flavour, long: bool) -> Duration {
    let minutes = match flavour {
        Flavour::Lean => 20,
        Flavour::Debug => 60,
        Flavour::Bench | Flavour::BenchOff => 60,
    };
    Duration::from_secs(60 * minutes * if long { 6 } else { 1 })
}

/// What a guest is made of, apart from its kernel.
struct Parts {
    initramfs: PathBuf,
    debian: PathBuf,
}

impl Parts {
    fn build(ctx: &Context, long: bool) -> Result<Self> {
        let initramfs = initramfs::build(ctx, &userspace::build(ctx)?)?;
        Ok(Self { initramfs, debian: disk::debian(ctx, long)? })
    }
}

/// The results so far, with the reason of each failure.
#[derive(Default)]
struct Results {
    totals: Totals,
    failures: Vec<String>,
}

impl Results {
    fn fail(&mut self, reason: String) {
        ui::say(&format!("FAILED: {reason}"));
        self.totals.failed += 1;
        self.failures.push(reason);
    }

    fn add(&mut self, what: &str, report: ktap::Report) {
        self.totals.add(&report.totals);
        self.failures.extend(report.failures.into_iter().map(|failure| format!("{what}: {failure}")));
    }

    /// Counts a test on the host: one that passed, or each of its problems.
    fn add_outcome(&mut self, what: &str, outcome: Outcome) {
        ui::say(&format!("{what}: {}", outcome.summary));
        self.totals.passed += usize::from(outcome.problems.is_empty());
        for problem in outcome.problems {
            self.fail(format!("{what}: {problem}"));
        }
    }
}

/// Runs all tests; the last line that it prints holds the totals. Says whether all passed.
pub fn test(ctx: &Context, options: &Options) -> bool {
    let mut results = Results::default();
    if let Err(e) = run_tests(ctx, options, &mut results) {
        results.fail(format!("{e:#}"));
    }
    if !results.failures.is_empty() {
        ui::say("\nWhat failed:");
        for failure in &results.failures {
            ui::say(&format!("  {}", failure.replace('\n', "\n    ")));
        }
    }
    ui::say(&results.totals.to_string());
    results.totals.failed == 0
}

fn run_tests(ctx: &Context, options: &Options, results: &mut Results) -> Result<()> {
    if options.filter.is_none() {
        for tests in &userspace::UNIT_TESTS {
            let totals = userspace::unit_tests(ctx, tests)?;
            results.totals.add(&totals);
            if totals.failed > 0 {
                results.failures.push(format!("unit tests of {}/: {} failed", tests.of, totals.failed));
            }
        }
        results.add_outcome("support", support::check(&ctx.repo)?);
    }
    let builder = Builder::prepare(ctx)?;
    let parts = Parts::build(ctx, options.long)?;
    for &flavour in &options.kernels {
        let kernel = builder.build(flavour)?;
        if options.filter.is_none() {
            let outcome = members::check(&builder.bindings(flavour), &ctx.repo)?;
            results.add_outcome(&format!("members, {} kernel", flavour.name()), outcome);
        }
        let scratch = disk::scratch(ctx, flavour.name())?;
        for number in [1, 2] {
            let mut append = Vec::new();
            append.extend(options.filter.iter().map(|filter| format!("ckpt.filter={filter}")));
            append.extend(options.long.then(|| "ckpt.long=1".to_owned()));
            if options.filter.is_none() && !options.long {
                let modes = if flavour == Flavour::Debug { "chain" } else { "chained" };
                append.push(format!("ckpt.modes={modes}"));
            }
            let boot = Boot {
                flavour,
                kernel: &kernel,
                initramfs: &parts.initramfs,
                debian: &parts.debian,
                scratch: Some(&scratch),
                pace: Pace::Free,
                memory: MEMORY,
                cpu: options.cpu,
                mode: Mode::Test,
                number,
                append,
                limit: limit(flavour, options.long),
            };
            test_boot(ctx, &boot, results)?;
        }
        fs::remove_file(&scratch)?;
    }
    Ok(())
}

/// One boot: the results of its tests, and reports in the kernel's log.
fn test_boot(ctx: &Context, boot: &Boot<'_>, results: &mut Results) -> Result<()> {
    let what = format!("{} kernel, boot {}", boot.flavour.name(), boot.number);
    ui::say(&format!("{what} ..."));
    let start = Instant::now();
    let mut parser = ktap::Parser::default();
    let ended = boot.run(ctx, |line| {
        ui::say(&format!("  {line}"));
        parser.line(line);
    })?;
    let report = parser.finish();
    ui::say(&format!("{what}: {} ({})", report.totals, ui::elapsed(start.elapsed())));
    results.add(&what, report);

    let log = console(ctx, boot)?;
    if let Err(e) = judge(ctx, boot, ended, &log) {
        results.fail(format!("{what}: {e:#}"));
    }
    Ok(())
}

/// The kernel's log of a boot.
pub fn console(ctx: &Context, boot: &Boot<'_>) -> Result<String> {
    let path = boot.console(ctx);
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Fails when the guest had to be ended, or when its kernel reported something.
pub fn judge(ctx: &Context, boot: &Boot<'_>, ended: Ended, log: &str) -> Result<()> {
    let path = boot.console(ctx);
    if let Some(excerpt) = logscan::reports(log) {
        bail!("the kernel reported, full log in {}\n{excerpt}", path.display());
    }
    if ended == Ended::TimedOut {
        bail!("ended after {}, log in {}", ui::elapsed(boot.limit), path.display());
    }
    Ok(())
}

/// Shows a checkpoint of a working program, and its restart after a reboot.
pub fn demo(ctx: &Context, cpu: Cpu) -> Result<()> {
    let builder = Builder::prepare(ctx)?;
    let parts = Parts::build(ctx, false)?;
    let kernel = builder.build(Flavour::Lean)?;
    let scratch = disk::scratch(ctx, "demo")?;
    for number in [1, 2] {
        let boot = Boot {
            flavour: Flavour::Lean,
            kernel: &kernel,
            initramfs: &parts.initramfs,
            debian: &parts.debian,
            scratch: Some(&scratch),
            pace: Pace::Free,
            memory: MEMORY,
            cpu,
            mode: Mode::Demo,
            number,
            append: Vec::new(),
            limit: limit(Flavour::Lean, false),
        };
        ui::say(&format!("\n== boot {number} of the guest =="));
        let mut last = String::new();
        let ended = boot.run(ctx, |line| {
            if let Some(text) = line.strip_prefix("demo: ") {
                ui::say(text);
            }
            last = line.to_owned();
        })?;
        judge(ctx, &boot, ended, &console(ctx, &boot)?)?;
        // So the guest's half ends when all went well.
        if last != format!("demo: boot {number}: ok") {
            bail!("the demonstration failed in boot {number}: {last}; log in {}", boot.console(ctx).display());
        }
    }
    fs::remove_file(&scratch)?;
    Ok(())
}

/// Boots the guest once: a shell, or the tests that match `filter`, without judging them.
pub fn boot(ctx: &Context, flavour: Flavour, cpu: Cpu, shell: bool, number: u32, filter: Option<&str>) -> Result<()> {
    let builder = Builder::prepare(ctx)?;
    let parts = Parts::build(ctx, false)?;
    let kernel = builder.build(flavour)?;
    let scratch = ctx.work.join("scratch-boot.ext4");
    if number == 1 || !scratch.exists() {
        disk::scratch(ctx, "boot")?;
    }
    let boot = Boot {
        flavour,
        kernel: &kernel,
        initramfs: &parts.initramfs,
        debian: &parts.debian,
        scratch: Some(&scratch),
        pace: Pace::Free,
        memory: MEMORY,
        cpu,
        mode: if shell { Mode::Shell } else { Mode::Test },
        number,
        append: filter.iter().map(|filter| format!("ckpt.filter={filter}")).collect(),
        limit: limit(flavour, false),
    };
    if shell {
        return boot.interactive(ctx);
    }
    let ended = boot.run(ctx, ui::say)?;
    judge(ctx, &boot, ended, &console(ctx, &boot)?)
}
