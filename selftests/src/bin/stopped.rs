// SPDX-License-Identifier: GPL-2.0

//! Processes that are stopped by job control, and what their parents have been told of it.

use libc::{
    SIGCONT,
    SIGSTOP,
    SIGTSTP,
    WCONTINUED,
    WNOHANG,
    WUNTRACED, //
};
use selftests::prelude::*;
use selftests::sys::{
    cvt,
    getpid,
    handle,
    kill,
    pipe,
    read,
    write, //
};
use selftests::{
    NumbersThatFollow,
    Process,
    Task, //
};
use std::mem;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{
    AtomicU32,
    Ordering, //
};
use std::thread;

const SUITE: Suite = Suite {
    cases: &[
        Case::new("told", told),
        Case::new("not-told", not_told),
        Case::new("continued-not-told", continued_not_told),
        Case::new("job", job),
        Case::new("signalled-once", signalled_once),
        Case::new("threads", threads),
        Case::new("root", root).settle(100).wake(SIGCONT),
    ],
    // The numbers that follow are those of one victim.
    jobs: 1,
    ..Suite::new("stopped")
};

fn main() -> ExitCode {
    SUITE.main()
}

/// A child that answers bytes while it is not stopped.
struct Child {
    process: Process,
    to: OwnedFd,
    from: OwnedFd,
}

impl Child {
    fn fork(before: fn()) -> Result<Self> {
        let _numbers = NumbersThatFollow::choose();
        let (input, to) = pipe(0)?;
        let (from, output) = pipe(0)?;
        let process = Process::fork(|| {
            before();
            let mut byte = [0];
            while let Ok(1) = read(&input, &mut byte) {
                if byte[0] == END {
                    return 0;
                }
                byte[0] += 1;
                let _ = write(&output, &byte);
            }
            1
        })?;
        let child = Self { process, to, from };
        child.answers(1)?;
        Ok(child)
    }

    fn pid(&self) -> i32 {
        self.process.pid
    }

    fn answers(&self, byte: u8) -> Result<()> {
        write(&self.to, &[byte])?;
        self.answered(byte)
    }

    fn answered(&self, byte: u8) -> Result<()> {
        let mut answer = [0];
        same("length of the answer", 1, read(&self.from, &mut answer)?)?;
        same("answer", byte + 1, answer[0])
    }

    fn is(&self, state: char) -> Result<()> {
        let is = || Task::read(self.pid()).is_some_and(|task| task.state == state);
        ensure!(
            sys::until(Duration::from_secs(10), is),
            "its state is not {state}: {:?}",
            Task::read(self.pid())
        );
        Ok(())
    }

    fn stop(&self, signal: i32) -> Result<()> {
        kill(self.pid(), signal)?;
        self.is('T')
    }

    /// What waitpid(2) tells, if anything.
    fn told(&self, options: i32) -> Result<Option<i32>> {
        let mut status = 0;
        // SAFETY: the status is valid for writing.
        let pid = cvt(unsafe { libc::waitpid(self.pid(), &mut status, options | WNOHANG) })?;
        Ok((pid != 0).then_some(status))
    }

    /// It stands until SIGCONT, and goes on then.
    fn goes_on(&self) -> Result<()> {
        self.is('T')?;
        write(&self.to, &[30])?;
        sys::nap(Duration::from_millis(20));
        self.is('T')?;
        kill(self.pid(), SIGCONT)?;
        self.answered(30)?;
        same("told of SIGCONT", Some(0xffff), self.told(WCONTINUED)?)?;
        same("told again", None, self.told(WCONTINUED | WUNTRACED)?)
    }

    fn end(mut self) -> Result<()> {
        write(&self.to, &[END])?;
        let status = self.process.wait(Duration::from_secs(10))?;
        ensure!(status.success(), "the child ended with {status}");
        Ok(())
    }
}

/// The byte that ends a child.
const END: u8 = 255;

/// What waitpid(2) says of one that is stopped.
const fn stopped_by(signal: i32) -> i32 {
    signal << 8 | 0x7f
}

fn told(v: &Victim) -> Result<()> {
    let child = Child::fork(|| ())?;
    child.stop(SIGSTOP)?;
    same("told", Some(stopped_by(SIGSTOP)), child.told(WUNTRACED)?)?;
    v.stand()?;
    child.is('T')?;
    same("told again", None, child.told(WUNTRACED)?)?;
    child.goes_on()?;
    child.end()
}

fn not_told(v: &Victim) -> Result<()> {
    let child = Child::fork(|| ())?;
    child.stop(SIGSTOP)?;
    v.stand()?;
    child.is('T')?;
    same("told", Some(stopped_by(SIGSTOP)), child.told(WUNTRACED)?)?;
    same("told again", None, child.told(WUNTRACED)?)?;
    child.goes_on()?;
    child.end()
}

fn continued_not_told(v: &Victim) -> Result<()> {
    let child = Child::fork(|| ())?;
    child.stop(SIGSTOP)?;
    kill(child.pid(), SIGCONT)?;
    child.answers(3)?;
    v.stand()?;
    child.answers(4)?;
    same("told of a stop", None, child.told(WUNTRACED)?)?;
    same("told", Some(0xffff), child.told(WCONTINUED)?)?;
    same("told again", None, child.told(WCONTINUED)?)?;
    child.end()
}

/// A stopped job: a group of its own within the session, which is told nothing by a restart.
fn job(v: &Victim) -> Result<()> {
    let child = Child::fork(|| {
        // SAFETY: no memory is involved.
        unsafe { libc::setpgid(0, 0) };
    })?;
    child.stop(SIGTSTP)?;
    v.stand()?;
    same("told", Some(stopped_by(SIGTSTP)), child.told(WUNTRACED)?)?;
    child.goes_on()?;
    child.end()
}

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::SeqCst);
}

fn signalled_once(v: &Victim) -> Result<()> {
    handle(libc::SIGCHLD, count, libc::SA_RESTART)?;
    let child = Child::fork(|| ())?;
    child.stop(SIGSTOP)?;
    let counted = |number| {
        sys::until(Duration::from_secs(10), || {
            SIGNALS.load(Ordering::SeqCst) >= number
        });
        same("signals", number, SIGNALS.load(Ordering::SeqCst))
    };
    counted(1)?;
    v.stand()?;
    child.is('T')?;
    counted(1)?;
    child.goes_on()?;
    counted(2)?;
    child.end()
}

/// All threads stop, and go on.
fn threads(v: &Victim) -> Result<()> {
    let child = Child::fork(|| {
        for _ in 0..3 {
            let thread = thread::spawn(|| loop {
                sys::nap(Duration::from_millis(1));
            });
            mem::forget(thread);
        }
    })?;
    child.stop(SIGSTOP)?;
    let states = || -> Result<Vec<char>> {
        let mut states = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{}/task", child.pid()))? {
            let stat = std::fs::read_to_string(entry?.path().join("stat"))?;
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.chars().next());
            states.extend(state);
        }
        Ok(states)
    };
    let all = || states().is_ok_and(|states| states == ['T'; 4]);
    ensure!(sys::until(Duration::from_secs(10), all), "{:?}", states()?);
    v.stand()?;
    same("states", vec!['T'; 4], states()?)?;
    same("told", Some(stopped_by(SIGSTOP)), child.told(WUNTRACED)?)?;
    child.goes_on()?;
    child.end()
}

/// The tree is stopped as a whole.
fn root(v: &Victim) -> Result<()> {
    v.ready()?;
    kill(getpid(), SIGSTOP)?;
    v.wait();
    Ok(())
}
