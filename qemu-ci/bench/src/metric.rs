// SPDX-License-Identifier: GPL-2.0
//! The metrics: which victim of which size is measured how often, under which key.
//!
//! A key is `METRIC/WHAT/SIZE/WHO`; `WHO` is `limit`, `ours` (the system call), `tools` or `criu`.

mod footprint;
mod running;

use crate::engine;
use crate::engine::Done;
use crate::engine::Engine;
use crate::life;
use crate::life::Life;
use crate::limit;
use crate::report::Why;
use crate::report::figure;
use crate::victim;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use selftests::sys;
use std::fs;
use std::path::Path;
use std::time::Duration;

const IMAGES: &str = "/tmp/images";

/// What the host wants.
struct Options {
    quick: bool,
    only: Option<Vec<String>>,
    engines: Vec<Engine>,
    /// With two processors that run freely: only what the victims see by their own clocks.
    free: bool,
    /// Only M11, as this part of its key.
    idle: Option<String>,
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self> {
        let mut options = Self { quick: false, only: None, engines: Engine::ALL.to_vec(), free: false, idle: None };
        for arg in args {
            match arg.split_once('=') {
                None if *arg == "--quick" => options.quick = true,
                None if *arg == "--free" => options.free = true,
                Some(("--idle", who)) => options.idle = Some(who.to_owned()),
                None if *arg == "--no-criu" => options.engines.retain(|engine| *engine != Engine::Criu),
                Some(("--only", list)) => options.only = Some(list.split(',').map(str::to_owned).collect()),
                _ => return Err(anyhow!("{arg}: no such option")),
            }
        }
        Ok(options)
    }

    fn wants(&self, metrics: &[&str]) -> bool {
        self.only.as_ref().is_none_or(|only| metrics.iter().any(|metric| only.iter().any(|name| name == metric)))
    }

    /// The tools take the same as the calls that they make.
    fn engines_but_tools(&self) -> impl Iterator<Item = Engine> {
        self.engines.iter().copied().filter(|engine| *engine != Engine::Tools)
    }

    /// Of `all` sizes, the small ones if it has to be quick.
    fn sizes(&self, all: &[usize]) -> Vec<usize> {
        let count = if self.quick { all.len().div_ceil(2) } else { all.len() };
        all[..count].to_vec()
    }

    /// Runs of what repeats exactly.
    fn runs(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Runs of what wakes tasks up.
    fn many_runs(&self) -> usize {
        if self.quick { 3 } else { 7 }
    }
}

/// Measures what the host wants.
///
/// # Errors
///
/// If measuring as such fails; a figure that cannot be had is reported, and the next one follows.
pub fn run(args: &[&str]) -> Result<()> {
    let options = Options::parse(args)?;
    raise_limits()?;
    if let Some(who) = &options.idle {
        return footprint::idle(who);
    }
    // The first time is another: files are not in the page cache, and CRIU looks at the kernel.
    for &engine in &options.engines {
        let _ = cycle(engine, "memory", 1);
    }
    if options.free {
        if options.wants(&["M1"]) {
            running::gaps(&options)?;
        }
        if options.wants(&["M15"]) {
            running::disturbance(&options)?;
        }
        return Ok(());
    }
    if options.wants(&["M1", "M2", "M5", "M10"]) {
        memory(&options)?;
    }
    if options.wants(&["M10"]) {
        fork_tree(&options)?;
    }
    if options.wants(&["M3"]) {
        first_instruction(&options)?;
    }
    if options.wants(&["M7"]) {
        tasks(&options)?;
    }
    if options.wants(&["M8"]) {
        descriptors(&options)?;
    }
    if options.wants(&["M13"]) {
        footprint::memory(&options)?;
    }
    if options.wants(&["M14"]) {
        mappings(&options)?;
    }
    if options.wants(&["M16"]) {
        running::continuous(&options)?;
    }
    Ok(())
}

/// Room for the largest victims.
fn raise_limits() -> Result<()> {
    let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
    // SAFETY: `limit` is valid.
    sys::cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    fs::write("/proc/sys/vm/max_map_count", "200000").context("max_map_count")
}

/// Checkpoints a victim, kills it, restarts it, and has it look at itself. Returns what its memory takes, too.
fn cycle(engine: Engine, kind: &str, size: usize) -> Result<(f64, Done, Result<Done>)> {
    let life = Life::start(kind, size)?;
    let (unique, resident) = (life.unique_bytes()?, life.resident()?);
    let images = empty(Path::new(IMAGES))?;
    let checkpoint = engine.checkpoint(life.pid, images)?;
    life.kill()?;
    let restart = engine.restart(images).and_then(|done| {
        let now = life.resident()?;
        ensure!(now * 10 >= resident * 9, "only {now} of {resident} KiB are back in memory");
        life.finish()?;
        Ok(done)
    });
    drop(life);
    life::remove(images)?;
    Ok((unique, checkpoint, restart))
}

fn empty(dir: &Path) -> Result<&Path> {
    life::remove(dir)?;
    fs::create_dir_all(dir)?;
    Ok(dir)
}

/// As many cycles: the checkpoints and the restarts, or why there are none.
struct Cycles {
    /// Bytes of memory that the victim has for itself.
    unique: Result<f64, Why>,
    checkpoints: Result<Vec<Done>, Why>,
    restarts: Result<Vec<Done>, Why>,
}

fn cycles(engine: Engine, kind: &str, size: usize, runs: usize) -> Cycles {
    let (mut unique, mut checkpoints, mut restarts) = (0.0, Vec::new(), Vec::new());
    let mut failed = None;
    for _ in 0..runs {
        match cycle(engine, kind, size) {
            Ok((bytes, checkpoint, restart)) => {
                unique = bytes;
                checkpoints.push(checkpoint);
                match restart {
                    Ok(restart) => restarts.push(restart),
                    Err(e) => {
                        failed = Some(e.into());
                        break;
                    }
                }
            }
            Err(e) => {
                let why = Why::from(e);
                return Cycles { unique: Err(why.clone()), checkpoints: Err(why.clone()), restarts: Err(why) };
            }
        }
    }
    Cycles { unique: Ok(unique), checkpoints: Ok(checkpoints), restarts: failed.map_or(Ok(restarts), Err) }
}

fn ns(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

fn pick(done: &Result<Vec<Done>, Why>, of: impl Fn(&Done) -> f64) -> Result<Vec<f64>, Why> {
    done.as_ref().map(|all| all.iter().map(of).collect()).map_err(Clone::clone)
}

/// A figure that is the same for all engines.
fn once(result: &Result<f64, Why>) -> Result<Vec<f64>, Why> {
    result.as_ref().map(|value| vec![*value]).map_err(Clone::clone)
}

/// M1, M2, M5 and M10: private memory, by its size in MiB.
fn memory(options: &Options) -> Result<()> {
    for size in options.sizes(&[4, 64, 256, 512, 1024]) {
        let runs = options.runs();
        let limits: [(&[&str], _, _); 4] = [
            (&["M1"], "M1/stopped", "fork"),
            (&["M2"], "M2/write", "write"),
            (&["M5"], "M5/read", "read"),
            // Both have one.
            (&["M2", "M5"], "crc32c", "crc32c"),
        ];
        for (metrics, key, what) in limits {
            if options.wants(metrics) {
                figure(&format!("{key}/{size}/limit"), limit::measure(what, size, runs))?;
            }
        }
        if options.wants(&["M2"]) {
            let all = cycles(Engine::Killing, "memory", size, runs);
            figure(&format!("M2/dump/{size}/killed"), pick(&all.checkpoints, |done| ns(done.total)))?;
            figure(&format!("M5/restore/{size}/killed"), pick(&all.restarts, |done| ns(done.total)))?;
        }
        for &engine in &options.engines {
            let who = engine.name();
            let all = cycles(engine, "memory", size, runs);
            if engine == Engine::Calls {
                figure(&format!("M1/stopped/{size}/{who}"), pick(&all.checkpoints, |done| ns(done.stopped)))?;
            }
            if engine == Engine::Criu && options.wants(&["M1"]) {
                figure(&format!("M1/stopped/{size}/{who}"), criu_stopped(size).map(|stopped| vec![ns(stopped)]))?;
            }
            figure(&format!("M2/dump/{size}/{who}"), pick(&all.checkpoints, |done| ns(done.total)))?;
            figure(&format!("M5/restore/{size}/{who}"), pick(&all.restarts, |done| ns(done.total)))?;
            figure(&format!("M10/image/{size}/{who}"), pick(&all.checkpoints, |done| done.bytes as f64))?;
            if engine == Engine::Calls {
                figure(&format!("M10/image/{size}/limit"), once(&all.unique))?;
            }
        }
    }
    Ok(())
}

/// M1 of CRIU, in the mode that is best for it.
fn criu_stopped(size: usize) -> Result<Duration> {
    let life = Life::start("memory", size)?;
    Ok(engine::criu_with_pre_dump(life.pid, empty(Path::new(IMAGES))?)?.stopped)
}

/// M10 again: processes that share their memory since fork(2).
fn fork_tree(options: &Options) -> Result<()> {
    let size = if options.quick { 16 } else { 128 };
    for &engine in &options.engines {
        let all = cycles(engine, "shared", size, 1);
        figure(&format!("M10/shared/{size}/{}", engine.name()), pick(&all.checkpoints, |done| done.bytes as f64))?;
        if engine == Engine::Calls {
            figure(&format!("M10/shared/{size}/limit"), once(&all.unique))?;
        }
    }
    Ok(())
}

/// M3: from the call of the restart to the first look at the clock of a task that does nothing else.
fn first_instruction(options: &Options) -> Result<()> {
    figure("M3/first/1/limit", limit::measure("processes", 1, options.many_runs()))?;
    for &engine in &options.engines {
        let samples: Result<_> = (0..options.many_runs()).map(|_| until_first_instruction(engine)).collect();
        figure(&format!("M3/first/1/{}", engine.name()), samples)?;
    }
    Ok(())
}

fn until_first_instruction(engine: Engine) -> Result<f64> {
    let life = Life::start("clock", 0)?;
    let images = empty(Path::new(IMAGES))?;
    engine.checkpoint(life.pid, images)?;
    life.kill()?;
    // So the time between the two is the longest that the task did not run.
    sys::nap(Duration::from_millis(100));
    let begin = victim::now()?;
    engine.restart(images)?;
    let mut end = 0;
    let went_on = sys::until(Duration::from_secs(10), || {
        end = life.watch().map_or(0, |seen| seen.end);
        end > begin
    });
    ensure!(went_on, "the task does not go on");
    life.finish()?;
    Ok((end - begin) as f64)
}

/// M7: by the number of tasks.
fn tasks(options: &Options) -> Result<()> {
    for (kind, sizes) in [("processes", &[1, 10, 100, 1000][..]), ("threads", &[1, 10, 100, 1000, 10_000])] {
        for size in options.sizes(sizes) {
            let runs = options.many_runs().min(if size >= 1000 { 3 } else { 7 });
            figure(&format!("M7/{kind}-restore/{size}/limit"), limit::measure(kind, size, runs))?;
            figure(&format!("M7/{kind}-dump/{size}/limit"), limit::measure("stop", size, runs))?;
            both_ways(options, "M7", kind, size, runs)?;
        }
    }
    Ok(())
}

/// M8: by the number of descriptors.
fn descriptors(options: &Options) -> Result<()> {
    for size in options.sizes(&[10, 100, 1000, 10_000]) {
        let limit = limit::measure("open", size, options.runs()).map_err(Why::from);
        for kind in ["files", "pipes", "unix", "eventfds"] {
            for way in ["dump", "restore"] {
                figure(&format!("M8/{kind}-{way}/{size}/limit"), limit.clone())?;
            }
            both_ways(options, "M8", kind, size, options.runs())?;
        }
    }
    Ok(())
}

/// M14: by the number of mappings.
fn mappings(options: &Options) -> Result<()> {
    for size in options.sizes(&[1000, 10_000, 100_000]) {
        figure(&format!("M14/vmas-dump/{size}/limit"), limit::measure("fork-vmas", size, options.runs()))?;
        figure(&format!("M14/vmas-restore/{size}/limit"), limit::measure("mmap-vmas", size, options.runs()))?;
        both_ways(options, "M14", "vmas", size, options.runs())?;
    }
    Ok(())
}

fn both_ways(options: &Options, metric: &str, kind: &str, size: usize, runs: usize) -> Result<()> {
    for &engine in &options.engines {
        let all = cycles(engine, kind, size, runs);
        let who = engine.name();
        figure(&format!("{metric}/{kind}-dump/{size}/{who}"), pick(&all.checkpoints, |done| ns(done.total)))?;
        figure(&format!("{metric}/{kind}-restore/{size}/{who}"), pick(&all.restarts, |done| ns(done.total)))?;
    }
    Ok(())
}
