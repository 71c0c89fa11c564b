// SPDX-License-Identifier: GPL-2.0

//! Threads that show that they go on.

use crate::same;
use crate::sys::{
    self,
    gettid, //
};
use anyhow::{
    ensure,
    Result, //
};
use std::sync::atomic::{
    AtomicBool,
    AtomicU64,
    Ordering, //
};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Threads that count until they are told to stop.
pub struct Counters {
    stop: Arc<AtomicBool>,
    counts: Vec<Arc<AtomicU64>>,
    threads: Vec<thread::JoinHandle<Result<()>>>,
}

impl Counters {
    /// Starts so many.
    pub fn start(number: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts: Vec<_> = (0..number).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let threads = counts
            .iter()
            .map(|count| {
                let (stop, count) = (stop.clone(), count.clone());
                thread::spawn(move || {
                    let tid = gettid();
                    while !stop.load(Ordering::SeqCst) {
                        same("number of a thread", tid, gettid())?;
                        count.fetch_add(1, Ordering::SeqCst);
                        sys::nap(Duration::from_millis(2));
                    }
                    Ok(())
                })
            })
            .collect();
        Self {
            stop,
            counts,
            threads,
        }
    }

    /// Requires that each of them counts.
    pub fn all_go_on(&self) -> Result<()> {
        for count in &self.counts {
            let before = count.load(Ordering::SeqCst);
            ensure!(
                sys::until(Duration::from_secs(10), || count.load(Ordering::SeqCst)
                    > before),
                "a thread stands still"
            );
        }
        Ok(())
    }

    /// Stops them, and requires that none found anything wrong.
    pub fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a thread panicked")?;
        }
        Ok(())
    }
}
