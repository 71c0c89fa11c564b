// SPDX-License-Identifier: GPL-2.0

//! The Kernel Test Anything Protocol, version 1.

use crate::victim::Skipped;
use anyhow::Result;
use std::io::{
    self,
    Write, //
};

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should.
    Pass,
    /// It does not apply here, for this reason.
    Skip(String),
    /// It failed, for this reason. May have several lines.
    Fail(String),
}

impl From<Result<Outcome>> for Outcome {
    fn from(result: Result<Outcome>) -> Self {
        result.unwrap_or_else(|e| match e.downcast_ref::<Skipped>() {
            Some(why) => Outcome::Skip(why.to_string()),
            None => Outcome::Fail(format!("{e:#}")),
        })
    }
}

/// Writes results, numbered and in order.
pub struct Reporter<W: Write> {
    out: W,
    number: usize,
    failed: usize,
}

impl<W: Write> Reporter<W> {
    /// Announces `planned` tests.
    pub fn new(mut out: W, planned: usize) -> io::Result<Self> {
        writeln!(out, "KTAP version 1\n1..{planned}")?;
        out.flush()?;
        Ok(Self {
            out,
            number: 0,
            failed: 0,
        })
    }

    /// Writes the result of one test; the reason of a failure goes before it, as diagnostics.
    pub fn result(&mut self, name: &str, outcome: &Outcome) -> io::Result<()> {
        self.number += 1;
        let number = self.number;
        match outcome {
            Outcome::Pass => writeln!(self.out, "ok {number} {name}")?,
            Outcome::Skip(why) => {
                let why = why.lines().next().unwrap_or_default();
                writeln!(self.out, "ok {number} {name} # SKIP {why}")?;
            }
            Outcome::Fail(why) => {
                self.failed += 1;
                for line in why.lines() {
                    writeln!(self.out, "# {line}")?;
                }
                writeln!(self.out, "not ok {number} {name}")?;
            }
        }
        self.out.flush()
    }

    /// Passes on a line of a nested test, or a diagnostic.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Number of tests that failed so far.
    pub fn failed(&self) -> usize {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_numbered_and_failures_explained() {
        let mut out = Vec::new();
        let mut ktap = Reporter::new(&mut out, 3).expect("a vector takes everything");
        for (name, outcome) in [
            ("a", Outcome::Pass),
            ("b", Outcome::Skip("no avx\nmore".into())),
            ("c", Outcome::Fail("one\ntwo".into())),
        ] {
            ktap.result(name, &outcome)
                .expect("a vector takes everything");
        }
        assert_eq!(ktap.failed(), 1);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "KTAP version 1\n1..3\nok 1 a\nok 2 b # SKIP no avx\n# one\n# two\nnot ok 3 c\n"
        );
    }
}
