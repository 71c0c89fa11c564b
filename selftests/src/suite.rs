// SPDX-License-Identifier: GPL-2.0

//! What a selftest program consists of, and its main function.

use crate::ktap::{
    Outcome,
    Reporter, //
};
use crate::runner::{
    Bench,
    Trial, //
};
use crate::sys;
use crate::victim::Victim;
use anyhow::{
    bail,
    Context,
    Result, //
};
use std::collections::VecDeque;
use std::env;
use std::ffi::CString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// What happens to the victim of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: it is never checkpointed.
    Control,
    /// Checkpointed, killed and restarted.
    SameBoot,
    /// What was restarted is checkpointed, killed and restarted once more.
    TwoCycles,
    /// It goes on after the checkpoint and ends well; then the image is restarted.
    LeftRunning,
    /// First boot: checkpointed and killed.
    Image,
    /// First boot: the three before with one victim. It goes on after the checkpoint and ends well; the
    /// image is restarted; and that is checkpointed once more, and killed.
    Chain,
    /// Second boot: restarted from the image of the first.
    SecondBoot,
}

impl Mode {
    const FIRST_BOOT: [Self; 5] = [
        Self::Control,
        Self::SameBoot,
        Self::TwoCycles,
        Self::LeftRunning,
        Self::Image,
    ];
    const CHAINED: [Self; 3] = [Self::Control, Self::SameBoot, Self::Chain];
    const CHAIN: [Self; 1] = [Self::Chain];
    const SECOND_BOOT: [Self; 1] = [Self::SecondBoot];

    /// What it leaves is for a second boot.
    pub(crate) fn is_for_second_boot(self) -> bool {
        matches!(self, Self::Image | Self::Chain)
    }

    /// Its name in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::SameBoot => "same-boot",
            Self::TwoCycles => "two-cycles",
            Self::LeftRunning => "left-running",
            Self::Image => "image",
            Self::Chain => "chain",
            Self::SecondBoot => "second-boot",
        }
    }
}

/// Which modes a case is run in, on the first boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Modes {
    /// Each by itself.
    All,
    /// Control, same boot, and the chain.
    Chained,
    /// The chain alone, for a slow kernel.
    Chain,
}

/// A victim and how it is treated.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name within the program.
    pub name: &'static str,
    pub(crate) victim: fn(&Victim) -> Result<()>,
    pub(crate) settle: Duration,
    pub(crate) sleeps: Option<Sleep>,
    pub(crate) wake: Option<i32>,
    pub(crate) force: bool,
    pub(crate) session: bool,
    pub(crate) not: &'static [(Mode, &'static str)],
}

/// How long a victim sleeps in the system call under test.
#[derive(Clone, Copy)]
pub(crate) struct Sleep {
    pub(crate) duration: Duration,
    /// The time between checkpoint and restart counts.
    pub(crate) absolute: bool,
}

impl Case {
    /// A victim that is checkpointed as soon as it is ready.
    pub const fn new(name: &'static str, victim: fn(&Victim) -> Result<()>) -> Self {
        Self {
            name,
            victim,
            settle: Duration::from_millis(20),
            sleeps: None,
            wake: None,
            force: false,
            session: true,
            not: &[],
        }
    }

    /// The checkpoint comes this long after the victim was ready.
    pub const fn settle(mut self, ms: u64) -> Self {
        self.settle = Duration::from_millis(ms);
        self
    }

    /// The victim sleeps this long, and the time between checkpoint and restart does not count.
    pub const fn sleeps(mut self, ms: u64) -> Self {
        self.sleeps = Some(Sleep {
            duration: Duration::from_millis(ms),
            absolute: false,
        });
        self
    }

    /// The victim sleeps until a point in time this far away.
    pub const fn sleeps_until(mut self, ms: u64) -> Self {
        self.sleeps = Some(Sleep {
            duration: Duration::from_millis(ms),
            absolute: true,
        });
        self
    }

    /// The runner sends this signal before the victim has to check.
    pub const fn wake(mut self, signal: i32) -> Self {
        self.wake = Some(signal);
        self
    }

    /// The victim overwrites files in place when it checks, so their time differs if it was left
    /// running and the image is restarted afterwards.
    pub const fn writes_in_place(mut self) -> Self {
        self.force = true;
        self
    }

    /// The victim stays in the session and the group of the runner.
    pub const fn same_session(mut self) -> Self {
        self.session = false;
        self
    }

    /// The victim makes sense with what a custom test gives it only.
    pub const fn no_control(self) -> Self {
        self.not(&[(Mode::Control, "it needs the test that it is part of")])
    }

    /// Modes that make no sense for this case, and why.
    pub const fn not(mut self, modes: &'static [(Mode, &'static str)]) -> Self {
        self.not = modes;
        self
    }

    /// Why a mode makes no sense for this case, if it does not.
    fn excludes(&self, mode: Mode) -> Option<&'static str> {
        let entry = self.not.iter().find(|(not, _)| *not == mode);
        entry.map(|(_, why)| *why)
    }
}

/// A victim that has to be refused by name and to go on unharmed.
#[derive(Clone, Copy)]
pub struct Refusal {
    /// The victim; one descriptor that it names when it is ready has to be in the message.
    pub case: Case,
    /// What the message has to contain, besides the task.
    pub expect: &'static [&'static str],
}

impl Refusal {
    /// A victim and the words of its refusal.
    pub const fn new(
        name: &'static str,
        victim: fn(&Victim) -> Result<()>,
        expect: &'static [&'static str],
    ) -> Self {
        Self {
            case: Case::new(name, victim),
            expect,
        }
    }
}

/// A test that drives the tools itself.
#[derive(Clone, Copy)]
pub struct Custom {
    /// Its name within the program.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&Bench<'_>) -> Result<()>,
}

/// One selftest program.
pub struct Suite {
    /// The resource it is named after.
    pub name: &'static str,
    /// Victims that have to survive, in every mode.
    pub cases: &'static [Case],
    /// Victims that have to be refused.
    pub refusals: &'static [Refusal],
    /// Tests of another shape.
    pub customs: &'static [Custom],
    /// Victims of those; in the mode `control` they run by themselves.
    pub victims: &'static [Case],
    /// How many tests run at a time; 0 for as many as there are processors.
    pub jobs: usize,
    /// In the mode `control` its victims are stopped and continued instead, which no system call may
    /// notice in another way than a checkpoint.
    pub stops: bool,
}

impl Suite {
    /// A program without any test.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            cases: &[],
            refusals: &[],
            customs: &[],
            victims: &[],
            jobs: 0,
            stops: false,
        }
    }

    /// Runs the program: a victim if that is what the arguments say, else all tests.
    pub fn main(&self) -> ExitCode {
        let status = match Options::parse(env::args().skip(1)) {
            Ok(Options {
                victim: Some((name, dir)),
                ..
            }) => self.victim(&name, dir),
            Ok(options) => self.test(&options),
            Err(e) => Err(e),
        };
        match status {
            Ok(status) => ExitCode::from(status),
            Err(e) => {
                eprintln!("{}: {e:#}", self.name);
                ExitCode::from(2)
            }
        }
    }

    fn victim(&self, name: &str, dir: PathBuf) -> Result<u8> {
        let case = self.find(name)?;
        Ok(Victim::new(dir)?.run(case.victim) as u8)
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Case> {
        let refused = self.refusals.iter().map(|r| &r.case);
        self.cases
            .iter()
            .chain(refused)
            .chain(self.victims)
            .find(|c| c.name == name)
            .with_context(|| format!("{}: no victim {name:?}", self.name))
    }

    /// All tests of this boot as (name, what to do).
    fn tests(&self, boot: u32, modes: Modes) -> Vec<(String, Test<'_>)> {
        let undisturbed = modes != Modes::Chain;
        let mut tests = Vec::new();
        let mut add = |name: &str, what: &str, test| {
            tests.push((format!("{}:{name}:{what}", self.name), test));
        };
        for case in self.cases {
            let modes: &[Mode] = match (boot, modes) {
                (2, _) => &Mode::SECOND_BOOT,
                (_, Modes::Chained) if case.not.is_empty() => &Mode::CHAINED,
                (_, Modes::Chain) if case.not.is_empty() => &Mode::CHAIN,
                _ => &Mode::FIRST_BOOT,
            };
            for &mode in modes {
                add(case.name, mode.name(), Test::Case(case, mode));
            }
        }
        if boot != 2 {
            for refusal in self.refusals {
                let case = &refusal.case;
                if undisturbed {
                    add(
                        case.name,
                        Mode::Control.name(),
                        Test::Case(case, Mode::Control),
                    );
                }
                add(case.name, "refused", Test::Refusal(refusal));
            }
            for victim in self.victims {
                if undisturbed && victim.excludes(Mode::Control).is_none() {
                    add(
                        victim.name,
                        Mode::Control.name(),
                        Test::Case(victim, Mode::Control),
                    );
                }
            }
            for custom in self.customs {
                add(custom.name, "custom", Test::Custom(custom));
            }
        }
        tests
    }

    fn test(&self, options: &Options) -> Result<u8> {
        let mut tests = self.tests(options.boot, options.modes);
        tests.retain(|(name, _)| options.selects(name));
        if options.list {
            for (name, _) in &tests {
                println!("{name}");
            }
            return Ok(0);
        }
        // Orphans of `rstr --detach` come to the runner, which waits for them.
        // SAFETY: no memory is involved.
        sys::cvt(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) })?;

        let mut ktap = Reporter::new(io::stdout(), tests.len())?;
        let jobs = match self.jobs {
            0 => thread::available_parallelism()?.get(),
            n => n,
        };
        let total = tests.len();
        let queue: Mutex<VecDeque<_>> = Mutex::new(tests.into_iter().enumerate().collect());
        let (sender, results) = mpsc::channel();
        thread::scope(|scope| -> Result<()> {
            for _ in 0..jobs {
                let (sender, queue) = (sender.clone(), &queue);
                scope.spawn(move || loop {
                    let next = queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front();
                    let Some((index, (name, test))) = next else {
                        break;
                    };
                    let outcome = self.run(&name, &test, options);
                    if sender.send((index, name, outcome)).is_err() {
                        break;
                    }
                });
            }
            drop(sender);
            let mut waiting: Vec<Option<(String, Outcome)>> = (0..total).map(|_| None).collect();
            let mut next = 0;
            for (index, name, outcome) in results {
                waiting[index] = Some((name, outcome));
                while let Some((name, outcome)) = waiting.get_mut(next).and_then(Option::take) {
                    ktap.result(&name, &outcome)?;
                    next += 1;
                }
            }
            Ok(())
        })?;
        Ok(u8::from(ktap.failed() > 0))
    }

    fn run(&self, name: &str, test: &Test<'_>, options: &Options) -> Outcome {
        let dir = options.scratch.join(name.replace(':', "/"));
        let outcome = match test {
            Test::Case(case, mode) => {
                if let Some(why) = case.excludes(*mode) {
                    return Outcome::Skip(why.to_owned());
                }
                Trial::new(self, case, &dir, &options.scratch).in_mode(*mode)
            }
            Test::Refusal(refusal) => {
                Trial::new(self, &refusal.case, &dir, &options.scratch).refused(refusal.expect)
            }
            Test::Custom(custom) => {
                Bench::new(self, &dir, &options.scratch, options.long).run(custom.run)
            }
        };
        let outcome = Outcome::from(outcome);
        let is_left = matches!(test, Test::Case(_, mode) if mode.is_for_second_boot());
        if matches!(outcome, Outcome::Pass) && !is_left {
            // The disk has room for the images of the second boot and those of the moment.
            let _ = fs::remove_dir_all(&dir);
        }
        outcome
    }
}

enum Test<'a> {
    Case(&'a Case, Mode),
    Refusal(&'a Refusal),
    Custom(&'a Custom),
}

struct Options {
    boot: u32,
    scratch: PathBuf,
    /// Patterns, one of which has to match; none for all tests.
    filter: Vec<CString>,
    list: bool,
    long: bool,
    modes: Modes,
    victim: Option<(String, PathBuf)>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            boot: 1,
            scratch: "/scratch/tests".into(),
            filter: Vec::new(),
            list: false,
            long: false,
            modes: Modes::All,
            victim: None,
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--boot" => options.boot = value()?.parse().context("--boot")?,
                "--scratch" => options.scratch = value()?.into(),
                "--filter" => {
                    let patterns = value()?;
                    let patterns = patterns.split(',').map(CString::new);
                    options.filter = patterns.collect::<Result<_, _>>()?;
                }
                "--list" => options.list = true,
                "--long" => options.long = true,
                "--modes" => {
                    options.modes = match value()?.as_str() {
                        "all" => Modes::All,
                        "chained" => Modes::Chained,
                        "chain" => Modes::Chain,
                        modes => bail!("unknown modes {modes:?}; known are all, chained, chain"),
                    }
                }
                "--victim" => options.victim = Some((value()?, value()?.into())),
                _ => bail!(
                    "unknown argument {arg:?}; known are --boot 1|2, --scratch DIR, \
                     --filter GLOB[,GLOB ...], --list, --long and --modes all|chained|chain"
                ),
            }
        }
        Ok(options)
    }

    fn selects(&self, name: &str) -> bool {
        if self.filter.is_empty() {
            return true;
        }
        let matches = |text: &str| match CString::new(text) {
            Ok(text) => self.filter.iter().any(|filter| {
                // SAFETY: both are C strings.
                unsafe { libc::fnmatch(filter.as_ptr(), text.as_ptr(), 0) == 0 }
            }),
            Err(_) => false,
        };
        // "memory", "memory:heap" and "memory:heap:control" all select the last.
        let ends = name
            .match_indices(':')
            .map(|(at, _)| at)
            .chain([name.len()]);
        ends.into_iter().any(|end| matches(&name[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(filter: &str) -> Options {
        let args = ["--filter", filter].map(str::to_owned);
        Options::parse(args.into_iter()).expect("known arguments")
    }

    #[test]
    fn filters_select_programs_cases_and_modes() {
        let name = "memory:heap:same-boot";
        for filter in [
            "memory",
            "mem*",
            "memory:heap",
            "*:same-boot",
            "memory:heap:same-boot",
            "pipe,mem*",
        ] {
            assert!(options(filter).selects(name), "{filter}");
        }
        for filter in ["heap", "memory:stack", "*:control", "pipe,heap"] {
            assert!(!options(filter).selects(name), "{filter}");
        }
    }
}
