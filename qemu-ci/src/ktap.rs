// SPDX-License-Identifier: GPL-2.0
//! Test results in KTAP, as the kernel's own tests print them.
//!
//! Only leaves are counted: a test with subtests passes or fails with them. What is missing counts as failed: tests that
//! a plan promises, and a plan that never came. Lines that are no KTAP are let pass, since a kernel log has many.

use std::fmt;

/// How many tests ended in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed, or never reported.
    pub failed: usize,
    /// Tests that say that they could not be run here.
    pub skipped: usize,
}

impl Totals {
    /// Adds other totals to these.
    pub fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// The results of one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Counts of the leaves.
    pub totals: Totals,
    /// Names and reasons of what failed.
    pub failures: Vec<String>,
}

impl Report {
    fn fail(&mut self, reason: String) {
        self.totals.failed += 1;
        self.failures.push(reason);
    }
}

/// One level of nesting.
#[derive(Debug, Default)]
struct Level {
    indent: usize,
    plan: Option<usize>,
    /// How many results this level gave.
    results: usize,
    /// How many failures were counted in it and below.
    failed: usize,
}

/// Reads a stream line by line.
#[derive(Debug, Default)]
pub struct Parser {
    report: Report,
    /// The open levels, the outermost first; empty until the stream begins.
    levels: Vec<Level>,
    started: bool,
    bailed_out: bool,
    /// The diagnostic lines since the last result.
    diagnostics: Vec<String>,
}

/// So many of them are kept.
const DIAGNOSTICS: usize = 100;

/// A line that means something.
enum Line<'a> {
    Version,
    Plan(usize),
    Result { ok: bool, number: usize, name: &'a str, directive: Option<&'a str> },
    BailOut(&'a str),
}

fn parse(text: &str) -> Option<Line<'_>> {
    if text.starts_with("KTAP version ") || text.starts_with("TAP version ") {
        return Some(Line::Version);
    }
    if let Some(reason) = text.strip_prefix("Bail out!") {
        return Some(Line::BailOut(reason.trim()));
    }
    if let Some(rest) = text.strip_prefix("1..") {
        return rest.split_whitespace().next()?.parse().ok().map(Line::Plan);
    }
    let (ok, rest) = match text.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, text.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (name, directive) = match rest.split_once('#') {
        Some((name, directive)) => (name, Some(directive.trim())),
        None => (rest, None),
    };
    let name = name.trim().trim_start_matches("- ").trim();
    Some(Line::Result { ok, number: number.parse().ok()?, name, directive })
}

impl Parser {
    /// Takes one line of a stream.
    pub fn line(&mut self, line: &str) {
        let text = line.trim_start();
        let Some(meaning) = parse(text) else {
            if let Some(text) = text.strip_prefix("# ").filter(|_| self.diagnostics.len() < DIAGNOSTICS) {
                self.diagnostics.push(text.to_owned());
            }
            return;
        };
        let indent = line.len() - text.len();
        match meaning {
            Line::Version => self.open(indent),
            // What comes before the first version line is no KTAP.
            _ if !self.started => {}
            Line::BailOut(reason) => {
                self.bailed_out = true;
                self.report.fail(format!("bailed out: {reason}"));
            }
            Line::Plan(count) => {
                if self.levels.last().is_none_or(|level| level.indent < indent) {
                    self.open(indent);
                }
                if let Some(level) = self.levels.iter_mut().rfind(|level| level.indent == indent) {
                    level.plan = Some(count);
                }
            }
            Line::Result { ok, number, name, directive } => self.result(indent, ok, number, name, directive),
        }
    }

    fn open(&mut self, indent: usize) {
        self.started = true;
        while self.levels.last().is_some_and(|level| level.indent >= indent) {
            self.close("its parent");
        }
        self.levels.push(Level { indent, ..Level::default() });
    }

    /// Ends the innermost level; what its plan promised and did not come has failed.
    fn close(&mut self, name: &str) -> Option<Level> {
        let mut level = self.levels.pop()?;
        let missing = match level.plan {
            Some(plan) if plan > level.results => {
                Some(format!("{name}: {} of {plan} results are missing", plan - level.results))
            }
            Some(plan) if plan < level.results => Some(format!("{name}: {} results, {plan} planned", level.results)),
            None if level.results == 0 => Some(format!("{name}: neither a plan nor a result")),
            None => Some(format!("{name}: no plan")),
            Some(_) => None,
        };
        if let Some(reason) = missing {
            level.failed += 1;
            self.report.fail(reason);
        }
        if let Some(parent) = self.levels.last_mut() {
            parent.failed += level.failed;
        }
        Some(level)
    }

    fn result(&mut self, indent: usize, ok: bool, number: usize, name: &str, directive: Option<&str>) {
        let mut subtests: Option<Level> = None;
        while self.levels.last().is_some_and(|level| level.indent > indent) {
            subtests = self.close(name);
        }
        let label = if name.is_empty() { format!("test {number}") } else { name.to_owned() };
        let skipped =
            directive.is_some_and(|directive| directive.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("skip")));
        // A test whose subtests are none is a leaf.
        let failed_below = subtests.filter(|level| level.results + level.failed > 0).map(|level| level.failed);
        let mut failed = 0;
        let diagnostics = std::mem::take(&mut self.diagnostics).join("\n");
        if !ok && failed_below.unwrap_or(0) == 0 {
            let reason = directive.unwrap_or(&diagnostics);
            self.report.fail(if reason.is_empty() { label.clone() } else { format!("{label}: {reason}") });
            failed = 1;
        } else if failed_below.is_none() && skipped {
            self.report.totals.skipped += 1;
        } else if failed_below.is_none() {
            self.report.totals.passed += 1;
        }
        let Some(level) = self.levels.last_mut() else { return };
        level.results += 1;
        level.failed += failed;
        if number != level.results {
            let expected = level.results;
            level.results = number;
            level.failed += 1;
            self.report.fail(format!("{label}: result {number} came in place of {expected}"));
        }
    }

    /// Ends the stream.
    pub fn finish(mut self) -> Report {
        if self.bailed_out {
            return self.report;
        }
        while !self.levels.is_empty() {
            self.close("the run");
        }
        if !self.started {
            self.report.fail("no results came".into());
        }
        self.report
    }
}

/// A line of the kernel's log without the time stamp (and the caller) in front of it.
pub fn without_timestamp(line: &str) -> &str {
    let mut rest = line;
    while let Some((stamp, text)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        if !stamp.trim_start().starts_with(|c: char| c.is_ascii_digit() || c == 'T' || c == 'C') {
            break;
        }
        rest = text;
    }
    if rest.len() == line.len() { line } else { rest.strip_prefix(' ').unwrap_or(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Report {
        let mut parser = Parser::default();
        text.lines().for_each(|line| parser.line(line));
        parser.finish()
    }

    fn totals(passed: usize, failed: usize, skipped: usize) -> Totals {
        Totals { passed, failed, skipped }
    }

    #[test]
    fn flat() {
        let report = read(
            "boot noise\nok 7 noise\nKTAP version 1\n1..4\n# note\nok 1 a\nnot ok 2 - b # why\n\
             ok 3 c # SKIP no hugetlb\n# wrong size\n# of it\nnot ok 4 d\n",
        );
        assert_eq!(report.totals, totals(1, 2, 1));
        assert_eq!(report.failures, ["b: why", "d: wrong size\nof it"]);
    }

    #[test]
    fn leaves_are_counted() {
        let report = read(
            "KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n  ok 1 a\n  not ok 2 b\nnot ok 1 pipe\n\
             \x20 KTAP version 1\n  1..1\n    KTAP version 1\n    1..1\n    ok 1 deep\n  ok 1 c\nok 2 epoll\n",
        );
        assert_eq!(report.totals, totals(2, 1, 0));
        assert_eq!(report.failures, ["b"]);
    }

    #[test]
    fn a_subtest_may_leave_out_its_version_line() {
        let report = read("KTAP version 1\n1..1\n    # Subtest: x\n    1..2\n    ok 1 a\n    ok 2 b\nok 1 x\n");
        assert_eq!(report.totals, totals(2, 0, 0));
    }

    #[test]
    fn an_empty_plan_is_a_leaf() {
        let report = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..0\nok 1 x # SKIP nothing selected\n");
        assert_eq!(report.totals, totals(0, 0, 1));
    }

    #[test]
    fn a_parent_that_fails_by_itself_counts() {
        let report = read("KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  ok 1 a\nnot ok 1 leak\n");
        assert_eq!(report.totals, totals(1, 1, 0));
        assert_eq!(report.failures, ["leak"]);
    }

    #[test]
    fn an_early_end_fails() {
        assert_eq!(read("").failures, ["no results came"]);
        assert_eq!(read("KTAP version 1\n1..3\nok 1 a\n").failures, ["the run: 2 of 3 results are missing"]);
        assert_eq!(read("KTAP version 1\n").totals, totals(0, 1, 0));
        assert_eq!(read("KTAP version 1\nok 1 a\n").failures, ["the run: no plan"]);
        let report = read("KTAP version 1\n1..2\n  KTAP version 1\n  1..2\n  ok 1 a\nok 1 x\n");
        assert_eq!(report.failures, ["x: 1 of 2 results are missing", "the run: 1 of 2 results are missing"]);
    }

    #[test]
    fn wrong_numbers_fail() {
        assert_eq!(read("KTAP version 1\n1..2\nok 2 b\n").failures, ["b: result 2 came in place of 1"]);
        assert_eq!(read("KTAP version 1\n1..1\nok 1 a\nok 2 b\n").failures, ["the run: 2 results, 1 planned"]);
    }

    #[test]
    fn bail_out_ends_the_run() {
        assert_eq!(read("KTAP version 1\n1..5\nBail out! no scratch disk\n").failures, ["bailed out: no scratch disk"]);
    }

    #[test]
    fn timestamps_are_taken_off() {
        assert_eq!(without_timestamp("[    1.234567] ok 1 a"), "ok 1 a");
        assert_eq!(without_timestamp("[    1.234567][    T1]     ok 1 a"), "    ok 1 a");
        assert_eq!(without_timestamp("    ok 1 a"), "    ok 1 a");
        assert_eq!(without_timestamp("[x] y"), "[x] y");
    }
}
