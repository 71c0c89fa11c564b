// SPDX-License-Identifier: GPL-2.0
//! What the user sees while a run goes on: a live line on a terminal, plain lines elsewhere.

use indicatif::ProgressBar;
use indicatif::ProgressStyle;
use std::io::IsTerminal as _;
use std::io::Write as _;
use std::time::Duration;
use std::time::Instant;

/// How often a step says that it is still alive when the output is not a terminal.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Prints one line; a run goes on when nobody reads its output any more.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Seconds as people write them: `42 s`, `3 min 07 s`.
pub fn elapsed(time: Duration) -> String {
    match time.as_secs() {
        s @ 0..60 => format!("{s} s"),
        s => format!("{} min {:02} s", s / 60, s % 60),
    }
}

/// One step that takes long enough to be shown.
pub struct Step {
    what: String,
    start: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Announces the step.
    pub fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let now = Instant::now();
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(what.clone());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        if bar.is_none() {
            say(&format!("{what} ..."));
        }
        Self { what, start: now, last_line: now, bar }
    }

    /// What was announced.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Says how far the step is; cheap enough to be called for every line of a log.
    pub fn tick(&mut self, detail: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(detail.to_owned()),
            None if self.last_line.elapsed() >= PLAIN_INTERVAL => {
                self.last_line = Instant::now();
                let sep = if detail.is_empty() { "" } else { ", " };
                say(&format!("{}: {detail}{sep}{}", self.what, elapsed(self.start.elapsed())));
            }
            None => {}
        }
    }

    /// Prints a line that stays, above the live line.
    pub fn print(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    /// Ends the step with one line that stays.
    pub fn done(self, result: &str) {
        let line = format!("{}: {result} ({})", self.what, elapsed(self.start.elapsed()));
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        say(&line);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
