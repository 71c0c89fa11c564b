// SPDX-License-Identifier: GPL-2.0
//! A victim as the measuring side sees it.

use crate::victim;
use crate::victim::GOOD;
use crate::victim::READY;
use crate::victim::RESULT;
use crate::victim::Watch;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use selftests::sys;
use std::fs;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

/// Where victims have their files; a tmpfs.
const DIR: &str = "/tmp/victim";

/// How long a victim may take for anything, on the guest's clock.
const LIMIT: Duration = Duration::from_secs(120);

/// What [`Watch`] held.
pub struct Seen {
    /// As there.
    pub longest: u64,
    /// As there.
    pub end: u64,
    rounds: u64,
    lengths: Vec<u64>,
}

impl Seen {
    /// How long all but one of a thousand writes took at most, in ns.
    ///
    /// # Errors
    ///
    /// If there were not as many writes.
    pub fn p999(&self) -> Result<f64> {
        let all: u64 = self.lengths.iter().sum();
        ensure!(all >= 1000, "only {all} writes");
        let mut longer = 0;
        for (index, count) in self.lengths.iter().enumerate().rev() {
            longer += count;
            if longer * 1000 > all {
                return Ok(victim::length(index) as f64);
            }
        }
        bail!("no writes")
    }
}

/// A tree of processes that stands still, or was killed.
pub struct Life {
    /// Its root, which leads a session and a group of its own.
    pub pid: i32,
    dir: PathBuf,
    /// Where its [`Watch`] is.
    watch: u64,
}

impl Life {
    /// Starts a victim and waits until it stands still.
    ///
    /// # Errors
    ///
    /// What it says.
    pub fn start(kind: &str, size: usize) -> Result<Self> {
        let dir = PathBuf::from(DIR);
        remove(&dir)?;
        fs::create_dir_all(&dir)?;
        let log = fs::File::create(dir.join("log"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["victim", kind, &size.to_string()]).arg(&dir);
        command.env_clear().current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: setsid(2) is all the child does.
        unsafe { command.pre_exec(|| sys::cvt(libc::setsid()).map(drop)) };
        let pid = command.spawn().context("victim")?.id() as i32;
        let mut life = Self { pid, dir, watch: 0 };
        let ready = life.said(READY)?;
        life.watch = ready.parse().with_context(|| format!("victim {kind} {size}: {ready}"))?;
        // What says so has to fall asleep, too.
        sys::nap(Duration::from_millis(20));
        Ok(life)
    }

    /// What the victim has published under `name`.
    fn said(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        let there = sys::until(LIMIT, || path.exists() || self.is_gone());
        if !there || !path.exists() {
            let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            bail!("victim {}: nothing said after {LIMIT:?} or before its end: {}", self.pid, log.trim());
        }
        Ok(fs::read_to_string(path)?)
    }

    /// Kills the tree, and waits until nothing of it is left.
    ///
    /// # Errors
    ///
    /// If something is.
    pub fn kill(&self) -> Result<()> {
        match sys::kill(-self.pid, libc::SIGKILL) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            result => result.context("kill")?,
        }
        self.gone()
    }

    /// Has the victim look at itself, and waits for its end.
    ///
    /// # Errors
    ///
    /// What it finds wrong.
    pub fn finish(&self) -> Result<()> {
        sys::kill(self.pid, libc::SIGUSR1).context("victim")?;
        let result = self.said(RESULT)?;
        ensure!(result == GOOD, "the victim finds: {result}");
        self.gone()
    }

    /// A child of this process has to be waited for; init buries the others.
    fn is_gone(&self) -> bool {
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
        matches!(sys::kill(-self.pid, 0), Err(e) if e.raw_os_error() == Some(libc::ESRCH))
    }

    fn gone(&self) -> Result<()> {
        ensure!(sys::until(LIMIT, || self.is_gone()), "victim {} does not end", self.pid);
        Ok(())
    }

    /// What the victim saw by its own clock.
    ///
    /// # Errors
    ///
    /// If its memory cannot be read.
    pub fn watch(&self) -> Result<Seen> {
        let mut bytes = [0; mem::size_of::<Watch>()];
        self.memory()?.read_exact_at(&mut bytes, self.watch)?;
        let mut words =
            bytes.chunks_exact(8).map(|word| word.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        let mut next = || words.next().context("the victim's watch");
        Ok(Seen { longest: next()?, end: next()?, rounds: next()?, lengths: words.collect() })
    }

    /// Has the victim begin anew with what it sees.
    ///
    /// # Errors
    ///
    /// If its memory cannot be written.
    pub fn forget(&self) -> Result<()> {
        Ok(self.memory()?.write_all_at(&[0; mem::size_of::<Watch>()], self.watch)?)
    }

    /// Not by process_vm_readv(2), which would pin pages.
    fn memory(&self) -> Result<fs::File> {
        Ok(fs::File::options().read(true).write(true).open(format!("/proc/{}/mem", self.pid))?)
    }

    /// Has the victim do its work once, and waits until it has.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn poke(&self) -> Result<()> {
        let before = self.watch()?.rounds;
        sys::kill(self.pid, libc::SIGUSR2)?;
        let done = sys::until(LIMIT, || self.watch().is_ok_and(|seen| seen.rounds != before));
        ensure!(done, "the victim does not work");
        Ok(())
    }

    /// Bytes of private memory of the tree, each page counted once.
    ///
    /// # Errors
    ///
    /// If /proc does not say.
    pub fn unique_bytes(&self) -> Result<f64> {
        let mut total = 0;
        for pid in self.members()? {
            total += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss_Anon:")?;
        }
        Ok((total << 10) as f64)
    }

    /// KiB of memory of its own that the root has at hand.
    ///
    /// # Errors
    ///
    /// If /proc does not say.
    pub fn resident(&self) -> Result<u64> {
        kib(&format!("/proc/{}/status", self.pid), "RssAnon:")
    }

    /// The processes of the group.
    fn members(&self) -> Result<Vec<i32>> {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // SAFETY: no memory is involved.
            if unsafe { libc::getpgid(pid) } == self.pid {
                members.push(pid);
            }
        }
        Ok(members)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.kill();
        let _ = remove(&self.dir);
    }
}

/// The number after `name` in a file of /proc.
///
/// # Errors
///
/// If there is none.
pub fn kib(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| path.to_owned())?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path}: {name}"))?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// Removes a directory that may be missing.
///
/// # Errors
///
/// If it stays.
pub fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).with_context(|| dir.display().to_string()),
        _ => Ok(()),
    }
}
