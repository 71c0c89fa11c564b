// SPDX-License-Identifier: GPL-2.0

//! Running `ckpt` and `rstr` as programs.

use crate::{
    pids,
    skip,
    sys, //
};
use anyhow::{
    bail,
    Context,
    Result, //
};
use std::env;
use std::ffi::OsStr;
use std::fs::{
    self,
    OpenOptions, //
};
use std::os::fd::AsRawFd;
use std::os::unix::process::{
    CommandExt,
    ExitStatusExt, //
};
use std::path::{
    Path,
    PathBuf, //
};
use std::process::{
    Command,
    ExitStatus,
    Stdio, //
};
use std::time::{
    Duration,
    Instant, //
};

/// How long anything may take in the slowest guest.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A process that the runner waits for: its child, or an orphan below it.
#[derive(Debug)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    status: Option<ExitStatus>,
}

impl Process {
    /// A child of the runner, or an orphan that has come to it.
    pub fn adopt(pid: i32) -> Self {
        Self { pid, status: None }
    }

    /// Forks a process that runs `child`. As the runner has threads, `child` must be content with
    /// what is async-signal-safe.
    pub fn fork(child: impl FnOnce() -> i32) -> Result<Self> {
        // SAFETY: the caller answers for `child`.
        match sys::cvt(unsafe { libc::fork() })? {
            0 => {
                let status = child();
                // SAFETY: ends the child.
                unsafe { libc::_exit(status) }
            }
            pid => Ok(Self::adopt(pid)),
        }
    }

    /// The status if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: `status` is valid for writing.
            if sys::cvt(unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) })
                .with_context(|| format!("wait for process {}", self.pid))?
                != 0
            {
                self.status = Some(ExitStatus::from_raw(status));
            }
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let wait = sys::Wait::begin();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if wait.elapsed() > limit {
                bail!(
                    "process {} still runs after {limit:?}: {}",
                    self.pid,
                    place(self.pid)
                );
            }
            wait.nap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = sys::kill(self.pid, libc::SIGKILL);
            let _ = self.wait(Duration::from_secs(5));
        }
    }
}

/// Where a process is, for messages about those that do not end.
pub fn place(pid: i32) -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        text.trim().replace('\n', " < ")
    };
    format!(
        "stat [{}] syscall [{}] stack [{}]",
        read("stat"),
        read("syscall"),
        read("stack")
    )
}

/// One call of a tool.
pub struct Tool {
    command: Command,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    name: &'static str,
    dir: PathBuf,
}

/// What a tool left.
#[derive(Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// What it said, on either stream.
    pub said: String,
    /// How long it took.
    pub took: Duration,
}

impl Tool {
    /// Path of a tool: `$CKPT`, `$RSTR`, or in /bin.
    pub fn path(name: &str) -> PathBuf {
        match env::var_os(name.to_uppercase()) {
            Some(path) => path.into(),
            None => Path::new("/bin").join(name),
        }
    }

    /// A call of `name`; what it says is kept in `dir`.
    pub fn new(name: &'static str, dir: &Path) -> Self {
        let command = Command::new(Self::path(name));
        Self {
            command,
            stdin: None,
            stdout: None,
            name,
            dir: dir.to_owned(),
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Runs as an ordinary user.
    pub fn as_user(mut self, uid: u32) -> Self {
        self.command.uid(uid).gid(uid);
        self
    }

    /// Calls `prepare` in the new process before the tool runs.
    pub fn pre_exec(
        mut self,
        prepare: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        // SAFETY: what tests do there are system calls.
        unsafe { self.command.pre_exec(prepare) };
        self
    }

    /// Runs without a capability.
    pub fn without(self, capability: u32) -> Self {
        self.pre_exec(move || sys::give_up(capability))
    }

    /// Gives it a descriptor, which it has under `number`, which is in no other use.
    pub fn with_fd(self, number: i32, fd: &impl AsRawFd) -> Self {
        let fd = fd.as_raw_fd();
        self.pre_exec(move || sys::give(fd, number))
    }

    /// Sets the standard output.
    pub fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.stdout = Some(to.into());
        self
    }

    /// Sets the standard input.
    pub fn stdin(mut self, from: impl Into<Stdio>) -> Self {
        self.stdin = Some(from.into());
        self
    }

    fn said_path(&self) -> PathBuf {
        self.dir.join(format!("{}.err", self.name))
    }

    /// Starts it. Standard input is /dev/null and output goes to the file of what it says, unless
    /// set otherwise before. Without the tool the test is skipped.
    pub fn start(mut self) -> Result<Started> {
        if !Path::new(self.command.get_program()).exists() {
            return skip(format!("there is no {}", self.name));
        }
        let said = self.said_path();
        // Appended to, as both streams may lead there.
        let _ = fs::remove_file(&said);
        let err = OpenOptions::new().create(true).append(true).open(&said)?;
        self.command
            .stdin(self.stdin.unwrap_or_else(Stdio::null))
            .stdout(match self.stdout {
                Some(to) => to,
                None => err.try_clone()?.into(),
            })
            .stderr(err);
        let child = pids::spawn(&mut self.command)?;
        let process = Process::adopt(child.id() as i32);
        Ok(Started {
            process,
            said,
            begun: Instant::now(),
        })
    }

    /// Runs it to its end.
    pub fn run(self) -> Result<Finished> {
        self.start()?.finish()
    }
}

/// A tool that runs.
pub struct Started {
    /// Its process.
    pub process: Process,
    said: PathBuf,
    begun: Instant,
}

impl Started {
    /// Waits for its end.
    pub fn finish(mut self) -> Result<Finished> {
        let status = self.process.wait(LIMIT).with_context(|| self.said())?;
        Ok(Finished {
            status,
            said: self.said(),
            took: self.begun.elapsed(),
        })
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap_or_default()).into_owned()
    }
}

impl Finished {
    /// Requires exit status 0.
    pub fn succeeded(self, what: &str) -> Result<Self> {
        if !self.status.success() {
            bail!("{what}: {}: {}", self.status, self.said.trim());
        }
        Ok(self)
    }

    /// Requires exit status 1 or more and a message with all of `words`, and no crash.
    pub fn refused(self, what: &str, words: &[&str]) -> Result<Self> {
        match self.status.code() {
            Some(0) => bail!(
                "{what}: succeeded, though it had to be refused: {}",
                self.said.trim()
            ),
            None => bail!("{what}: {}: {}", self.status, self.said.trim()),
            Some(_) => {}
        }
        self.names(what, words)
    }

    /// Requires a message with all of `words`, whatever their case.
    pub fn names(self, what: &str, words: &[&str]) -> Result<Self> {
        let said = self.said.to_lowercase();
        for word in words {
            if !said.contains(&word.to_lowercase()) {
                bail!(
                    "{what}: the message does not name {word:?}: {:?}",
                    self.said.trim()
                );
            }
        }
        Ok(self)
    }
}
