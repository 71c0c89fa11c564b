// SPDX-License-Identifier: GPL-2.0

//! The runner's side: starts victims, has them checkpointed and restarted, reads their results.

use crate::ktap::Outcome;
use crate::pids;
use crate::suite::{
    Case,
    Mode,
    Suite, //
};
use crate::sys;
use crate::tool::{
    place,
    Finished,
    Process,
    Started,
    Tool,
    LIMIT, //
};
use crate::victim::{
    publish,
    skip,
    verdict,
    GO,
    READY,
    RESULT,
    WOKE, //
};
use anyhow::{
    bail,
    ensure,
    Context,
    Result, //
};
use std::env;
use std::fs::{
    self,
    OpenOptions, //
};
use std::io;
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
    Stdio, //
};
use std::time::{
    Duration,
    Instant, //
};

/// How late a victim may wake up in an emulator that has nothing else to do.
const LATE: Duration = Duration::from_millis(2000);

/// And by how much later in a busy one, as a multiple of the time that the checkpoints took.
const BUSY: u32 = 4;

/// How early its sleep may seem to end, as runner and victim do not look at the same moment.
const EARLY: Duration = Duration::from_millis(300);

const IMAGE: &str = "image";
/// What the first boot leaves for the second: a [`Life`], or why there is none.
const LEFT: &str = "left";
const SKIPPED: &str = "skipped: ";
const LOG: &str = "log";

/// One case in one mode.
pub(crate) struct Trial<'a> {
    bench: Bench<'a>,
    case: &'a Case,
}

impl<'a> Trial<'a> {
    pub(crate) fn new(suite: &'a Suite, case: &'a Case, dir: &Path, scratch: &Path) -> Self {
        Self {
            bench: Bench::new(suite, dir, scratch, false),
            case,
        }
    }

    pub(crate) fn in_mode(self, mode: Mode) -> Result<Outcome> {
        if mode == Mode::SecondBoot {
            return self.second_boot();
        }
        self.bench.clean()?;
        let outcome = Outcome::from(self.first_boot(mode));
        if let (true, Outcome::Skip(why)) = (mode.is_for_second_boot(), &outcome) {
            publish(&self.bench.dir, LEFT, &format!("{SKIPPED}{why}"))?;
        }
        Ok(outcome)
    }

    fn second_boot(mut self) -> Result<Outcome> {
        // The image lies where the first boot left it.
        for mode in [Mode::Chain, Mode::Image] {
            self.bench.dir.set_file_name(mode.name());
            if self.bench.path(LEFT).exists() {
                break;
            }
        }
        let left =
            fs::read_to_string(self.bench.path(LEFT)).context("the first boot left no image")?;
        if let Some(why) = left.strip_prefix(SKIPPED) {
            return Ok(Outcome::Skip(why.to_owned()));
        }
        self.bench.forget()?;
        let life = Life::left(&self.bench, self.case, &left)?;
        self.ends_after_restart(life, &self.bench.path(IMAGE), &[])
    }

    fn first_boot(&self, mode: Mode) -> Result<Outcome> {
        let image = self.bench.path(IMAGE);
        let mut life = match self.bench.begin(self.case)? {
            Ok(life) => life,
            Err(outcome) => return Ok(outcome),
        };
        if mode == Mode::Control {
            life.settle(self.case.settle)?;
            if self.bench.suite.stops {
                life.stop_and_continue()?;
            }
            life.wake()?;
            life.tell()?;
            return life.ends_well();
        }
        let settle = match mode {
            Mode::TwoCycles | Mode::Chain => self.case.settle / 2,
            _ => self.case.settle,
        };
        life.settle(settle)?;
        match mode {
            Mode::Control | Mode::SecondBoot => unreachable!("returned above"),
            Mode::SameBoot => {
                life.checkpoint_and_kill(&image)?;
                self.ends_after_restart(life, &image, &[])
            }
            Mode::TwoCycles => {
                life.checkpoint_and_kill(&image)?;
                life.restart_detached(&image, &[])?;
                life.settle(settle)?;
                let second = self.bench.path("image.2");
                life.checkpoint_and_kill(&second)?;
                self.ends_after_restart(life, &second, &[])
            }
            Mode::LeftRunning => {
                let again = self.left_running(life, &image)?;
                self.ends_after_restart(again, &image, &self.after_it_went_on())
            }
            Mode::Image => self.leave(life),
            Mode::Chain => {
                let first = self.bench.path("image.1");
                let mut again = self.left_running(life, &first)?;
                again.restart_detached(&first, &self.after_it_went_on())?;
                again.settle(settle)?;
                self.leave(again)
            }
        }
    }

    /// Checkpoints the victim, and lets it end well. Returns it as the image has it.
    fn left_running<'b>(&'b self, mut life: Life<'b>, image: &Path) -> Result<Life<'b>> {
        life.checkpoint(&[], image)?;
        let mut again = Life::restarted(&self.bench, self.case, life.pid);
        (again.alive, again.stopping) = (life.alive, life.stopping);
        life.wake()?;
        life.tell()?;
        match life.ends_well()? {
            Outcome::Pass => {}
            Outcome::Fail(why) => bail!("while left running: {why}"),
            Outcome::Skip(why) => return skip(why),
        }
        ensure!(
            pids::reap_orphans(life.pid, LIMIT)?,
            "children of process {} are still there",
            life.pid
        );
        self.bench.forget()?;
        Ok(again)
    }

    /// Arguments for an image whose victim has worked on its files since.
    fn after_it_went_on(&self) -> Vec<&str> {
        let mut args = vec!["--files=truncate"];
        args.extend(self.case.force.then_some("--force"));
        args
    }

    /// Checkpoints the victim and kills it, for a second boot.
    fn leave(&self, mut life: Life<'_>) -> Result<Outcome> {
        life.checkpoint_and_kill(&self.bench.path(IMAGE))?;
        publish(&self.bench.dir, LEFT, &life.to_leave())?;
        Ok(Outcome::Pass)
    }

    /// Restarts the image, has the victim check, and looks at how it ends.
    fn ends_after_restart(
        &self,
        mut life: Life<'_>,
        image: &Path,
        args: &[&str],
    ) -> Result<Outcome> {
        if self.case.wake.is_some() {
            life.restart_detached(image, args)?;
            life.settle(Duration::from_millis(200))?;
            life.wake()?;
            life.tell()?;
            return life.ends_well();
        }
        life.restart(image, args)?;
        life.tell()?;
        life.ends_well()
    }

    /// The case has to be refused, with a message that has the task and `expect`.
    pub(crate) fn refused(self, expect: &[&str]) -> Result<Outcome> {
        self.bench.clean()?;
        let mut life = match self.bench.begin(self.case)? {
            Ok(life) => life,
            Err(outcome) => return Ok(outcome),
        };
        life.settle(self.case.settle)?;
        let object = format!(
            "task {}{}",
            life.pid,
            fs::read_to_string(self.bench.path(READY))?
        );
        let mut words = vec![object.as_str()];
        words.extend(expect);
        self.bench.refuses(life.pid, &words)?;
        life.wake()?;
        life.tell()?;
        life.ends_well()
    }
}

/// A directory, the victims in it and the tools at hand.
pub struct Bench<'a> {
    suite: &'a Suite,
    /// The directory of this test alone.
    pub dir: PathBuf,
    scratch: PathBuf,
    /// There is time for the long form of a test.
    pub long: bool,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(suite: &'a Suite, dir: &Path, scratch: &Path, long: bool) -> Self {
        Self {
            suite,
            dir: dir.to_owned(),
            scratch: scratch.to_owned(),
            long,
        }
    }

    pub(crate) fn run(&self, test: fn(&Bench<'_>) -> Result<()>) -> Result<Outcome> {
        self.clean()?;
        test(self).map(|()| Outcome::Pass)
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A file system in memory with options as mount(8) takes them, and where it is.
    pub fn tmpfs(&self, options: &str) -> Result<(sys::Tmpfs, PathBuf)> {
        let path = self.path("memory");
        Ok((sys::Tmpfs::mount(&path, options)?, path))
    }

    /// A call of ckpt.
    pub fn ckpt(&self) -> Tool {
        Tool::new("ckpt", &self.dir)
    }

    /// A call of rstr.
    pub fn rstr(&self) -> Tool {
        Tool::new("rstr", &self.dir)
    }

    /// Makes the directory empty.
    fn clean(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("{}", self.dir.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&self.dir).with_context(|| format!("{}", self.dir.display()))
    }

    /// Removes what was said by and to the victim.
    pub fn forget(&self) -> Result<()> {
        for name in [GO, WOKE, RESULT] {
            match fs::remove_file(self.path(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Requires that no image and no part of one lies about.
    pub fn no_image(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            ensure!(!name.contains(IMAGE), "{name} was left behind");
        }
        Ok(())
    }

    /// Requires that ckpt refuses the tree of `pid`, with and without --check, by all of `words`.
    pub fn refuses(&self, pid: i32, words: &[&str]) -> Result<()> {
        let pid = pid.to_string();
        self.ckpt()
            .args(["--check", &pid])
            .run()?
            .refused("ckpt --check", words)?;
        self.ckpt()
            .arg(&pid)
            .arg("-o")
            .arg(self.path(IMAGE))
            .run()?
            .refused("ckpt", words)?;
        self.no_image()
    }

    /// Starts a victim by name and waits until it is ready. A victim that does not apply skips the
    /// test.
    pub fn start(&self, name: &str) -> Result<Life<'_>> {
        self.begin(self.suite.find(name)?)?
            .map_err(|outcome| match outcome {
                Outcome::Skip(why) => match crate::skip::<()>(why) {
                    Err(e) => e,
                    Ok(()) => unreachable!("skip never succeeds"),
                },
                other => anyhow::anyhow!("victim {name}: {other:?}"),
            })
    }

    /// The command of a victim, with the streams and the session it gets.
    pub fn command(&self, case: &Case) -> Result<Command> {
        fs::create_dir_all(&self.dir)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(LOG))?;
        let mut command = Command::new(env::current_exe()?);
        command
            .args(["--victim", case.name])
            .arg(&self.dir)
            .env_clear()
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if case.session {
            // SAFETY: setsid(2) is all the child does.
            unsafe {
                command.pre_exec(|| sys::cvt(libc::setsid()).map(drop));
            }
        }
        Ok(command)
    }

    fn begin(&self, case: &Case) -> Result<Result<Life<'_>, Outcome>> {
        let command = self.command(case)?;
        self.begin_with(case.name, command)
    }

    /// Checkpoints the victim `name` again and again while it works; every other time it goes on from
    /// the image.
    pub fn over_and_over(&self, name: &str) -> Result<()> {
        let mut life = self.start(name)?;
        let image = self.path("image");
        for turn in 0..if self.long { 200 } else { 20 } {
            life.settle(Duration::from_millis(10))?;
            if turn % 2 == 0 {
                life.checkpoint_and_kill(&image)?;
                life.restart_detached(&image, &[])?;
            } else {
                life.checkpoint(&[], &image)?;
            }
        }
        life.passes()
    }

    /// Starts the victim `name` by a command of the caller.
    pub fn start_with(&self, name: &str, command: Command) -> Result<Life<'_>> {
        self.begin_with(name, command)?
            .map_err(|o| anyhow::anyhow!("victim {name}: {o:?}"))
    }

    /// The description of a victim.
    pub fn case(&self, name: &str) -> Result<&Case> {
        self.suite.find(name)
    }

    fn begin_with(&self, name: &str, mut command: Command) -> Result<Result<Life<'_>, Outcome>> {
        let case = self.suite.find(name)?;
        let counter = self.scratch.join(format!("next-pid.{}", self.suite.name));
        let child = pids::spawn_high(&mut command, &counter)?;
        let mut life = Life::restarted(self, case, child.id() as i32);
        life.process = Some(Process::adopt(life.pid));
        let (ready, result) = (self.path(READY), self.path(RESULT));
        let process = life.process.as_mut().context("just set")?;
        let mut ended = None;
        sys::until(LIMIT, || {
            ended = process.ended().transpose();
            ready.exists() || result.exists() || ended.is_some()
        });
        if !ready.exists() {
            if let Ok(text) = fs::read_to_string(&result) {
                let _ = life.reap();
                return Ok(Err(verdict(&text)));
            }
            bail!(
                "never ready ({ended:?}, {}): {}",
                place(life.pid),
                self.log()
            );
        }
        life.since = Instant::now();
        Ok(Ok(life))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path(LOG)).unwrap_or_default()
    }
}

/// A victim from its start to its end, over all its checkpoints.
pub struct Life<'a> {
    bench: &'a Bench<'a>,
    case: &'a Case,
    /// Its number, the same in every life.
    pub pid: i32,
    /// The process to wait for: the victim, or the rstr that passes on its status.
    process: Option<Process>,
    rstr: Option<Started>,
    since: Instant,
    alive: Duration,
    stopping: Duration,
}

impl<'a> Life<'a> {
    fn restarted(bench: &'a Bench<'a>, case: &'a Case, pid: i32) -> Self {
        Self {
            bench,
            case,
            pid,
            process: None,
            rstr: None,
            since: Instant::now(),
            alive: Duration::ZERO,
            stopping: Duration::ZERO,
        }
    }

    /// What the second boot has to know of this life.
    fn to_leave(&self) -> String {
        let [alive, stopping] = [self.alive, self.stopping].map(|time| time.as_nanos());
        format!("{} {alive} {stopping}", self.pid)
    }

    /// The life that [`Life::to_leave`] described.
    fn left(bench: &'a Bench<'a>, case: &'a Case, left: &str) -> Result<Self> {
        let fields: Vec<u64> = left
            .split(' ')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the first boot left {left:?}"))?;
        let [pid, alive, stopping] = fields[..] else {
            bail!("the first boot left {left:?}");
        };
        let mut life = Self::restarted(bench, case, i32::try_from(pid)?);
        life.alive = Duration::from_nanos(alive);
        life.stopping = Duration::from_nanos(stopping);
        Ok(life)
    }

    /// Lets time pass; the victim must not end meanwhile.
    pub fn settle(&mut self, time: Duration) -> Result<()> {
        sys::nap(time);
        if let Some(status) = self
            .process
            .as_mut()
            .map(Process::ended)
            .transpose()?
            .flatten()
        {
            bail!(
                "the victim ended while it had to wait: {status}: {}",
                self.bench.log()
            );
        }
        Ok(())
    }

    /// Runs `ckpt ARGS PID -o IMAGE`.
    pub fn checkpoint(&mut self, args: &[&str], image: &Path) -> Result<Finished> {
        let begin = Instant::now();
        self.alive += begin - self.since;
        let done = self
            .bench
            .ckpt()
            .args(args)
            .arg(self.pid.to_string())
            .arg("-o")
            .arg(image)
            .run()?
            .succeeded("ckpt")?;
        self.since = Instant::now();
        self.stopping += begin.elapsed();
        let size = fs::metadata(image)
            .context("ckpt succeeded without an image")?
            .len();
        ensure!(size > 0, "ckpt succeeded with an empty image");
        Ok(done)
    }

    /// Checkpoints with --kill and requires that the victim is gone for that reason.
    pub fn checkpoint_and_kill(&mut self, image: &Path) -> Result<()> {
        self.checkpoint(&["--kill"], image)?;
        let status = self.reap()?;
        ensure!(
            status.signal() == Some(libc::SIGKILL),
            "after ckpt --kill the victim ended with {status}"
        );
        ensure!(
            pids::gone(self.pid, LIMIT),
            "process {} is still there",
            self.pid
        );
        ensure!(
            pids::reap_orphans(self.pid, LIMIT)?,
            "children of process {} are still there",
            self.pid
        );
        Ok(())
    }

    /// The same for a tree whose tasks may be many, under any numbers: for a program that runs one test
    /// at a time.
    pub fn checkpoint_and_kill_all(&mut self, image: &Path) -> Result<Finished> {
        let done = self.checkpoint(&["--kill"], image)?;
        self.reap()?;
        self.reap_rest()?;
        Ok(done)
    }

    /// Kills the victim.
    pub fn kill(&mut self) -> Result<()> {
        sys::kill(self.pid, libc::SIGKILL)?;
        self.reap()?;
        Ok(())
    }

    /// Waits for the end of the victim and returns how it ended.
    pub fn reap(&mut self) -> Result<std::process::ExitStatus> {
        let mut process = self.process.take().context("no process to wait for")?;
        process.wait(LIMIT).with_context(|| self.bench.log())
    }

    /// Waits for the end of its descendants, who come to this process, which has no other child.
    pub fn reap_rest(&self) -> Result<()> {
        ensure!(
            pids::reap_children(LIMIT),
            "descendants of process {} are still there: {:?}",
            self.pid,
            pids::tasks()?
        );
        Ok(())
    }

    /// Restarts the victim below an rstr that waits for it.
    pub fn restart(&mut self, image: &Path, args: &[&str]) -> Result<()> {
        self.restart_by(self.bench.rstr().args(args).arg("-i").arg(image))
    }

    /// Restarts the victim by an rstr of the caller's, which waits for it.
    pub fn restart_by(&mut self, rstr: Tool) -> Result<()> {
        self.since = Instant::now();
        self.rstr = Some(rstr.start()?);
        Ok(())
    }

    /// Restarts the victim with `rstr --detach`; it belongs to the runner then.
    pub fn restart_detached(&mut self, image: &Path, args: &[&str]) -> Result<Finished> {
        self.since = Instant::now();
        let done = self
            .bench
            .rstr()
            .arg("--detach")
            .args(args)
            .arg("-i")
            .arg(image)
            .run()?
            .succeeded("rstr --detach")?;
        ensure!(
            pids::Task::read(self.pid).is_some(),
            "rstr --detach succeeded, but there is no process {}",
            self.pid
        );
        self.process = Some(Process::adopt(self.pid));
        Ok(done)
    }

    /// Stops the victim by SIGSTOP and lets it go on by SIGCONT.
    fn stop_and_continue(&self) -> Result<()> {
        sys::kill(self.pid, libc::SIGSTOP)?;
        let stopped = || pids::Task::read(self.pid).is_some_and(|task| task.state == 'T');
        ensure!(sys::until(LIMIT, stopped), "the victim does not stop");
        sys::nap(Duration::from_millis(20));
        sys::kill(self.pid, libc::SIGCONT)?;
        sys::nap(Duration::from_millis(20));
        Ok(())
    }

    /// Sends the signal of the case, if it has one.
    pub fn wake(&self) -> Result<()> {
        match self.case.wake {
            Some(signal) => sys::kill(self.pid, signal).context("wake the victim"),
            None => Ok(()),
        }
    }

    /// Tells the victim to check.
    pub fn tell(&self) -> Result<()> {
        publish(&self.bench.dir, GO, "")
    }

    /// Number of the rstr that waits for the victim.
    pub fn front(&self) -> Result<i32> {
        let rstr = self.rstr.as_ref().context("no rstr waits")?;
        Ok(rstr.process.pid)
    }

    /// What the rstr that waits for the victim said so far.
    fn rstr_said(&self) -> String {
        self.rstr.as_ref().map(Started::said).unwrap_or_default()
    }

    /// Tells it to check, and requires that it finds nothing wrong.
    pub fn passes(&mut self) -> Result<()> {
        self.tell()?;
        crate::same("how the victim ended", Outcome::Pass, self.ends_well()?)
    }

    /// Waits for the verdict and for the end, which must be exit status 0.
    pub fn ends_well(&mut self) -> Result<Outcome> {
        let result = self.bench.path(RESULT);
        let woke = self.bench.path(WOKE);
        let mut timing = Ok(());
        let mut seen = self.case.sleeps.is_none();
        let wait = sys::Wait::begin();
        let mut ended = None;
        while ended.is_none() {
            if !seen && (woke.exists() || result.exists()) {
                seen = true;
                timing = self.slept_right();
            }
            ended = match (&mut self.rstr, &mut self.process) {
                (Some(rstr), _) => rstr.process.ended()?,
                (None, Some(process)) => process.ended()?,
                (None, None) => bail!("nothing to wait for"),
            };
            if wait.elapsed() > LIMIT {
                bail!(
                    "no end after {LIMIT:?}: {}: {}",
                    place(self.pid),
                    self.explain()
                );
            }
            wait.nap();
        }
        self.process = None;
        let status = ended.context("the loop ends with a status")?;
        let Ok(text) = fs::read_to_string(&result) else {
            bail!("no result; it ended with {status}: {}", self.explain());
        };
        let outcome = verdict(&text);
        if outcome == Outcome::Pass {
            timing?;
            ensure!(
                status.success(),
                "PASS, but it ended with {status}: {}",
                self.explain()
            );
        }
        Ok(outcome)
    }

    /// Compares the time the victim was alive until it woke with the time it had to sleep.
    fn slept_right(&self) -> Result<()> {
        let Some(sleep) = self.case.sleeps else {
            return Ok(());
        };
        let alive = self.alive + self.since.elapsed();
        ensure!(
            alive <= sleep.duration + LATE + self.stopping * BUSY,
            "slept for {alive:?} of its life instead of {:?}",
            sleep.duration
        );
        ensure!(
            sleep.absolute || alive + self.stopping + EARLY >= sleep.duration,
            "slept for only {alive:?} of its life instead of {:?}",
            sleep.duration
        );
        Ok(())
    }

    fn explain(&self) -> String {
        format!(
            "log [{}] rstr [{}]",
            self.bench.log().trim(),
            self.rstr_said().trim()
        )
    }
}

impl Drop for Life<'_> {
    fn drop(&mut self) {
        // Below an rstr the victim is not our child; numbers of victims are used only once.
        if self.rstr.take().is_some() && pids::Task::read(self.pid).is_some() {
            let _ = sys::kill(self.pid, libc::SIGKILL);
        }
    }
}
