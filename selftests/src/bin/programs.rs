// SPDX-License-Identifier: GPL-2.0

//! Programs of Debian as they are: checkpointed over and over while they work, killed, restarted, and
//! their output compared with that of a run that nobody disturbed.

use selftests::prelude::*;
use selftests::sys::cvt;
use selftests::{
    place,
    Bench,
    Tool, //
};
use std::ffi::CString;
use std::fs::{
    self,
    File,
    OpenOptions, //
};
use std::os::unix::process::{
    CommandExt,
    ExitStatusExt, //
};
use std::path::Path;
use std::process::{
    Command,
    ExitCode,
    ExitStatus,
    Stdio, //
};

const SUITE: Suite = Suite {
    customs: &[
        Custom {
            name: "pipeline",
            run: |b| goes_on(b, &PIPELINE),
        },
        Custom {
            name: "make",
            run: |b| goes_on(b, &MAKE),
        },
        Custom {
            name: "job-control",
            run: |b| goes_on(b, &JOB_CONTROL),
        },
        Custom {
            name: "tmux",
            run: |b| goes_on(b, &TMUX),
        },
        Custom {
            name: "inotifywait",
            run: |b| goes_on(b, &INOTIFYWAIT),
        },
        Custom {
            name: "redis",
            run: |b| goes_on(b, &REDIS),
        },
        Custom {
            name: "sqlite",
            run: |b| goes_on(b, &SQLITE),
        },
        Custom {
            name: "python-asyncio",
            run: |b| goes_on(b, &ASYNCIO),
        },
        Custom {
            name: "python-multiprocessing",
            run: |b| goes_on(b, &MULTIPROCESSING),
        },
        Custom {
            name: "java",
            run: |b| goes_on(b, &JAVA),
        },
        Custom {
            name: "node",
            run: |b| goes_on(b, &NODE),
        },
    ],
    // A restart needs the numbers of what was killed just before.
    jobs: 1,
    ..Suite::new("programs")
};

fn main() -> ExitCode {
    SUITE.main()
}

const DEBIAN: &str = "/debian";
const LIMIT: Duration = Duration::from_secs(180);

/// Checkpoints of each, unless it ends before; half of them where all is slow, and with time for the long
/// form as many as there can be.
const TIMES: u32 = 4;

/// What works for a while and writes to its standard output, which is the same each time. It makes the
/// file `works` when it is under way.
struct Program {
    /// What runs the first of the files.
    interpreter: &'static str,
    /// What has to be there besides.
    needs: &'static [&'static str],
    /// Where a descriptor leads that it has open whenever it is checkpointed.
    has: Option<&'static str>,
    /// Files of its directory.
    files: &'static [(&'static str, &'static str)],
}

/// A [`Program`] of files in `selftests/programs/`.
macro_rules! program {
    ($interpreter:literal, needs: $needs:expr, $($file:literal),+) => {
        Program {
            interpreter: $interpreter,
            needs: &$needs,
            has: None,
            files: &[$(($file, include_str!(concat!("../../programs/", $file)))),+],
        }
    };
}

const PIPELINE: Program = program!("sh", needs: ["find", "sort", "gzip"], "pipeline.sh");
const MAKE: Program = program!("sh", needs: ["make", "tcc"], "make.sh");
const JOB_CONTROL: Program = program!("python3", needs: ["bash"], "jobs.py", "terminal.py");
const TMUX: Program = program!("python3", needs: ["tmux", "vim.tiny"], "tmux.py", "terminal.py");
const INOTIFYWAIT: Program = program!("python3", needs: ["inotifywait"], "inotify.py");
const REDIS: Program = program!("python3", needs: ["redis-server"], "redis.py");
const SQLITE: Program = program!("python3", needs: [], "sqlite.py");
const ASYNCIO: Program = program!("python3", needs: [], "server.py");
const MULTIPROCESSING: Program = program!("python3", needs: [], "workers.py");
const JAVA: Program = program!("java", needs: [], "Pool.java");
/// Its event loop watches descriptors by way of a ring.
const NODE: Program = Program {
    has: Some("anon_inode:[io_uring]"),
    ..program!("node", needs: [], "loop.js")
};

/// Debian's root as it is seen from here, with the kernel's file systems in it.
fn debian() -> Result<()> {
    if !Path::new(DEBIAN).join("bin/sh").exists() {
        return skip("there is no Debian");
    }
    if Path::new(DEBIAN).join("proc/self").exists() {
        return Ok(());
    }
    for dir in ["/proc", "/sys", "/dev", "/tmp", "/scratch"] {
        let to = format!("{DEBIAN}{dir}");
        fs::create_dir_all(&to)?;
        let (from, to) = (CString::new(dir)?, CString::new(to)?);
        // SAFETY: the names are C strings, the other arguments are not looked at.
        cvt(unsafe {
            libc::mount(
                from.as_ptr(),
                to.as_ptr(),
                c"none".as_ptr(),
                libc::MS_BIND | libc::MS_REC,
                std::ptr::null(),
            )
        })
        .with_context(|| format!("mount {dir}"))?;
    }
    Ok(())
}

/// A file, as what runs in Debian can reach it.
fn file(path: &Path, options: &OpenOptions) -> Result<File> {
    let path = Path::new(DEBIAN).join(path.strip_prefix("/")?);
    options
        .open(&path)
        .with_context(|| format!("{}", path.display()))
}

/// What runs in Debian, in `dir`; what it says goes to the file `log` there.
fn inside(program: impl AsRef<std::ffi::OsStr>, dir: &Path, log: &str) -> Result<Command> {
    let root = CString::new(DEBIAN)?;
    let to = CString::new(dir.as_os_str().as_encoded_bytes())?;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/")
        .env("LC_ALL", "C.UTF-8")
        .stdin(file(Path::new("/dev/null"), OpenOptions::new().read(true))?)
        .stdout(Stdio::null())
        .stderr(file(
            &dir.join(log),
            OpenOptions::new().append(true).create(true),
        )?);
    // SAFETY: the calls are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            cvt(libc::chroot(root.as_ptr()))?;
            cvt(libc::chdir(to.as_ptr()))?;
            cvt(libc::setsid()).map(drop)
        });
    }
    Ok(command)
}

/// A program at work.
struct Run<'a> {
    dir: &'a Path,
    /// Its first process, a child of this one, also after a restart.
    pid: i32,
    status: Option<ExitStatus>,
}

impl<'a> Run<'a> {
    fn start(program: &Program, dir: &'a Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        for (name, text) in program.files {
            fs::write(dir.join(name), text)?;
        }
        let mut output = OpenOptions::new();
        let child = inside(program.interpreter, dir, "log")?
            .args(program.files.first().map(|(name, _)| name))
            .stdout(file(&dir.join("output"), output.write(true).create(true))?)
            .spawn()
            .with_context(|| program.interpreter)?;
        Ok(Self {
            dir,
            pid: child.id() as i32,
            status: None,
        })
    }

    /// Runs a tool, which sees what the program sees.
    fn tool(&self, name: &str, args: &[&str]) -> Result<ExitStatus> {
        let copy = self.dir.join(name);
        if !copy.exists() {
            fs::copy(Tool::path(name), &copy)?;
        }
        let status = inside(&copy, self.dir, "tools.log")?.args(args).status()?;
        Ok(status)
    }

    /// Buries those that have ended, of the program and its descendants that became orphans. Says
    /// whether some are left.
    fn bury(&mut self) -> bool {
        loop {
            let mut status = 0;
            // SAFETY: the status is valid for writing.
            match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
                0 => return true,
                pid if pid == self.pid => self.status = Some(ExitStatus::from_raw(status)),
                pid if pid > 0 => {}
                _ => return false,
            }
        }
    }

    /// Waits for the end of all.
    fn end(&mut self) -> Result<ExitStatus> {
        ensure!(
            sys::until(LIMIT, || !self.bury()),
            "no end: {}",
            self.said()
        );
        self.status.context("it has ended")
    }

    /// Waits for an end that must be exit status 0, and returns what was written.
    fn output(&mut self) -> Result<String> {
        let status = self.end()?;
        ensure!(status.success(), "it ended with {status}: {}", self.said());
        Ok(fs::read_to_string(self.dir.join("output"))?)
    }

    /// What it and the tools wrote, and what is left of it.
    fn said(&self) -> String {
        let mut text = String::new();
        for name in ["output", "log", "tools.log"] {
            text += &fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        }
        for task in selftests::tasks().unwrap_or_default() {
            if task.pid > sys::getpid() {
                text += &format!("{task:?} {}\n", place(task.pid));
            }
        }
        text
    }

    /// Whether its first process has a descriptor that leads to `target`.
    fn has(&self, target: &str) -> bool {
        let dir = fs::read_dir(format!("/proc/{}/fd", self.pid));
        let mut links = dir.into_iter().flatten().flatten();
        links.any(|link| fs::read_link(link.path()).is_ok_and(|to| to == Path::new(target)))
    }

    /// Has it checkpointed, killed and restarted, or says that it has ended meanwhile.
    fn comes_back(&mut self) -> Result<bool> {
        let pid = self.pid.to_string();
        let status = self.tool("ckpt", &["--kill", "-o", "image", &pid])?;
        if !status.success() {
            ensure!(
                sys::until(Duration::from_secs(1), || !self.bury()),
                "ckpt: {status}: {}",
                self.said()
            );
            return Ok(false);
        }
        self.end()?;
        let status = self.tool("rstr", &["--detach", "-i", "image"])?;
        ensure!(status.success(), "rstr: {status}: {}", self.said());
        Ok(true)
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        // This process has no other children.
        while self.bury() {
            for task in selftests::children(sys::getpid()).unwrap_or_default() {
                let _ = sys::kill(task.pid, libc::SIGKILL);
            }
            sys::nap(Duration::from_millis(10));
        }
    }
}

fn goes_on(b: &Bench<'_>, program: &Program) -> Result<()> {
    debian()?;
    for name in program.needs.iter().chain([&program.interpreter]) {
        // Not exists(): a link may lead to what is there for those inside only.
        let path = Path::new(DEBIAN).join("usr/bin").join(name);
        if path.symlink_metadata().is_err() {
            return skip(format!("there is no {name}"));
        }
    }
    let (undisturbed, restarted) = (b.path("undisturbed"), b.path("restarted"));
    let expected = Run::start(program, &undisturbed)?.output()?;
    ensure!(!expected.is_empty(), "no output");

    let mut run = Run::start(program, &restarted)?;
    let works = || restarted.join("works").exists();
    ensure!(sys::until(LIMIT, works), "it does not work: {}", run.said());
    if let Some(target) = program.has.filter(|target| !run.has(target)) {
        return skip(format!("this {} has no {target}", program.interpreter));
    }
    let enough = if sys::has_kasan()? { TIMES / 2 } else { TIMES };
    let mut times = 0;
    while (b.long || times < enough) && run.comes_back()? {
        times += 1;
        if let Some(target) = program.has {
            ensure!(run.has(target), "{target} is gone: {}", run.said());
        }
        sys::nap(Duration::from_millis(25) * times);
    }
    ensure!(times > 0, "it ended too early");
    same("output", expected, run.output()?)
}
