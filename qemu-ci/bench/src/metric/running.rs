// SPDX-License-Identifier: GPL-2.0
//! What a victim that runs sees of its checkpoints: M1 and M15 by its own clock, and M16.

use super::IMAGES;
use super::Options;
use super::empty;
use super::ns;
use crate::engine;
use crate::engine::Engine;
use crate::life::Life;
use crate::limit;
use crate::report::figure;
use anyhow::Result;
use selftests::sys;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// M1: the longest time that it does not run, by its size in MiB.
pub fn gaps(options: &Options) -> Result<()> {
    for size in options.sizes(&[4, 64, 512, 1024]) {
        figure(&format!("M1/gap/{size}/limit"), limit::measure("fork", size, options.many_runs()))?;
        for engine in options.engines_but_tools() {
            let samples: Result<_> = (0..options.many_runs()).map(|_| gap(engine, size)).collect();
            figure(&format!("M1/gap/{size}/{}", engine.name()), samples)?;
        }
    }
    Ok(())
}

fn gap(engine: Engine, size: usize) -> Result<f64> {
    let life = Life::start("clock", size)?;
    let images = empty(Path::new(IMAGES))?;
    life.forget()?;
    match engine {
        Engine::Criu => engine::criu_with_pre_dump(life.pid, images)?,
        _ => engine.checkpoint(life.pid, images)?,
    };
    Ok(life.watch()?.longest as f64)
}

/// M15: how long its writes take while the image is written, by its size in MiB.
pub fn disturbance(options: &Options) -> Result<()> {
    let size = if options.quick { 64 } else { 256 };
    let mut drain = Duration::ZERO;
    for engine in options.engines_but_tools() {
        let samples: Result<_> = (0..options.many_runs())
            .map(|_| {
                let life = Life::start("writer", size)?;
                let images = empty(Path::new(IMAGES))?;
                life.forget()?;
                let done = engine.checkpoint(life.pid, images);
                let seen = life.watch()?;
                if let (Engine::Calls, Ok(done)) = (engine, &done) {
                    drain = done.total;
                }
                done.and_then(|_| seen.p999())
            })
            .collect();
        figure(&format!("M15/writes/{size}/{}", engine.name()), samples)?;
    }
    let samples: Result<_> = (0..options.many_runs())
        .map(|_| {
            let life = Life::start("writer", size)?;
            life.forget()?;
            life.poke()?;
            sys::nap(drain);
            life.watch()?.p999()
        })
        .collect();
    figure(&format!("M15/writes/{size}/limit"), samples)
}

/// M16: one checkpoint after the other, a hundredth of the pages written in between.
pub fn continuous(options: &Options) -> Result<()> {
    let size = if options.quick { 16 } else { 64 };
    figure(&format!("M16/period/{size}/limit"), limit::measure("fork-wait", size, options.runs()))?;
    let life = Life::start("dirty", size)?;
    let samples: Result<_> = (0..options.many_runs())
        .map(|_| {
            let images = empty(Path::new(IMAGES))?;
            life.poke()?;
            let begin = Instant::now();
            Engine::Calls.checkpoint(life.pid, images)?;
            Ok(ns(begin.elapsed()))
        })
        .collect();
    life.finish()?;
    figure(&format!("M16/period/{size}/ours"), samples)
}
