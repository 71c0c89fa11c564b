// SPDX-License-Identifier: GPL-2.0
//! Where everything lives: the clone, the cache outside it, and the lock on the cache.

use crate::ui;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use rustix::fs::FlockOperation;
use std::env;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;

/// The places that a run works with.
///
/// Downloads, build roots and disks are shared by all clones. What is built lives in an *area* of its own, named by
/// `LINUX_CR_WORK` (default `main`), so that people who work in several worktrees need not rebuild each other's kernel.
pub struct Context {
    /// Root of the clone.
    pub repo: PathBuf,
    /// Root of the cache.
    pub cache: PathBuf,
    /// The area: kernel trees, build products and logs of this run.
    pub work: PathBuf,
    /// How many jobs a build may run at a time.
    pub jobs: usize,
    _lock: File,
}

impl Context {
    /// Finds the places, makes them and locks the area until the context is dropped.
    pub fn open() -> Result<Self> {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the xtask has no parent directory")?;
        let cache = cache_dir()?;
        let name = env::var("LINUX_CR_WORK").unwrap_or_else(|_| "main".into());
        if name.is_empty() || name.contains(['/', '.']) {
            bail!("LINUX_CR_WORK={name}: a plain name is wanted");
        }
        let work = cache.join("work").join(name);
        for dir in [work.join("logs"), cache.join("download"), cache.join("source"), cache.join("disk")] {
            std::fs::create_dir_all(&dir).with_context(|| format!("{}: cannot be made", dir.display()))?;
        }
        let lock = lock(&work.join("lock"))?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { repo: repo.into(), cache, work, jobs, _lock: lock })
    }

    /// Locks what all areas share, for as long as the returned file lives.
    pub fn lock_shared(&self) -> Result<File> {
        lock(&self.cache.join("lock"))
    }

    /// The log file of one step.
    pub fn log(&self, name: &str) -> PathBuf {
        self.work.join("logs").join(format!("{name}.log"))
    }

    /// Fails unless the cache's file system has `gib` GiB left.
    pub fn require_space(&self, gib: u64) -> Result<()> {
        let stat = rustix::fs::statvfs(&self.cache)?;
        let free = (stat.f_bavail * stat.f_frsize) >> 30;
        if free < gib {
            bail!(
                "{}: {free} GiB free, about {gib} GiB are needed (LINUX_CR_CACHE= names another place)",
                self.cache.display()
            );
        }
        Ok(())
    }
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("LINUX_CR_CACHE") {
        return Ok(std::path::absolute(dir)?);
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Ok(Path::new(&dir).join("linux-cr"));
    }
    let home = env::var_os("HOME").context("neither LINUX_CR_CACHE nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/linux-cr"))
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        ui::say(&format!("waiting for another run to end ({})", path.display()));
        rustix::fs::flock(&file, FlockOperation::LockExclusive).with_context(|| path.display().to_string())?;
    }
    Ok(file)
}
