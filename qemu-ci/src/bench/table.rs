// SPDX-License-Identifier: GPL-2.0
//! From figures to the table: what is compared with what, and how far it has to go.

use crate::bench::figures::Figures;
use std::fmt;
use std::fmt::Write as _;

/// A number, or why there is none.
type Value = Result<f64, String>;

/// How a number is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// ns.
    Time,
    Bytes,
    /// How many times as much.
    Times,
}

/// The most that is allowed: so many times the limit, and something on top.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    times: f64,
    plus: f64,
}

const fn times(times: f64) -> Bound {
    Bound { times, plus: 0.0 }
}

/// What ships, and what is ahead of every peer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Aims<T> {
    must: T,
    goal: T,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    metric: &'static str,
    what: String,
    unit: Unit,
    /// `None` where there is nothing to compare with.
    limit: Option<Value>,
    ours: Value,
    aims: Option<Aims<Bound>>,
    /// What CRIU takes, and what our tools do for the same.
    peer: Option<(Value, Value)>,
    /// How many times as much CRIU should take.
    peer_aims: Option<Aims<f64>>,
    /// Whether it counts for the score.
    scored: bool,
}

impl Row {
    fn new(metric: &'static str, what: impl Into<String>, unit: Unit, limit: Value, ours: Value) -> Self {
        let what = what.into();
        Self { metric, what, unit, limit: Some(limit), ours, aims: None, peer: None, peer_aims: None, scored: false }
    }

    fn aims(mut self, must: Bound, goal: Bound) -> Self {
        self.aims = Some(Aims { must, goal });
        self
    }

    fn peer(mut self, criu: Value, tools: Value) -> Self {
        self.peer = Some((criu, tools));
        self
    }

    fn peer_aims(mut self, must: f64, goal: f64) -> Self {
        self.peer_aims = Some(Aims { must, goal });
        self
    }

    fn scored(mut self, scored: bool) -> Self {
        self.scored = scored;
        self
    }

    /// Ours as a multiple of the limit.
    fn ratio(&self) -> Option<f64> {
        Some(self.ours.as_ref().ok()? / self.limit.as_ref()?.as_ref().ok()?)
    }

    /// CRIU as a multiple of ours.
    fn peer_ratio(&self) -> Option<f64> {
        let (criu, tools) = self.peer.as_ref()?;
        Some(criu.as_ref().ok()? / tools.as_ref().ok()?)
    }

    fn verdict(&self) -> &'static str {
        let (Some(aims), Ok(ours), Ok(limit)) = (self.aims, &self.ours, self.limit.as_ref().unwrap_or(&Ok(0.0))) else {
            return "";
        };
        let within = |bound: Bound| *ours <= bound.times * limit + bound.plus;
        let ahead = |least: fn(Aims<f64>) -> f64| match self.peer_aims {
            Some(aims) => self.peer_ratio().is_none_or(|ratio| ratio >= least(aims)),
            None => true,
        };
        match () {
            () if within(aims.goal) && ahead(|aims| aims.goal) => "goal",
            () if within(aims.must) && ahead(|aims| aims.must) => "must",
            () => "missed",
        }
    }

    fn cells(&self) -> [String; COLUMNS] {
        let value = |value: &Value| match value {
            Ok(number) => number_text(*number, self.unit),
            Err(why) if why.starts_with("refused") => "refused".into(),
            Err(_) => "-".into(),
        };
        let ratio = |ratio: Option<f64>| ratio.map_or("-".into(), ratio_text);
        let aim = |bound: fn(Aims<Bound>) -> Bound| self.aims.map_or(String::new(), |aims| bound(aims).to_string());
        let peer = self.peer.as_ref().map_or(String::new(), |(criu, _)| value(criu));
        let peer_ratio = match (&self.peer, self.peer_ratio()) {
            (None, _) => String::new(),
            (_, found) => ratio(found),
        };
        let peer_aims = self.peer_aims.map_or(String::new(), |aims| format!("{} / {}", aims.must, aims.goal));
        [
            self.metric.into(),
            self.what.clone(),
            self.limit.as_ref().map_or(String::new(), value),
            value(&self.ours),
            self.limit.as_ref().map_or(String::new(), |_| ratio(self.ratio())),
            match self.aims {
                None => String::new(),
                Some(_) => format!("{} / {}", aim(|aims| aims.must), aim(|aims| aims.goal)),
            },
            self.verdict().into(),
            peer,
            peer_ratio,
            peer_aims,
        ]
    }

    /// Why ours or CRIU's number is missing.
    fn reasons(&self) -> Vec<String> {
        let values = [("limit", self.limit.as_ref()), ("ours", Some(&self.ours))];
        let peer = [("CRIU", self.peer.as_ref().map(|(criu, _)| criu))];
        let reason = |(who, value): (&str, Option<&Value>)| {
            let why = value?.as_ref().err()?;
            Some(format!("{} {}: {who}: {why}", self.metric, self.what))
        };
        values.into_iter().chain(peer).filter_map(reason).collect()
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.times, self.plus) {
            (times, 0.0) => write!(f, "{times}x"),
            (0.0, plus) => f.write_str(&number_text(plus, Unit::Bytes)),
            (times, plus) => write!(f, "{times}x + {}", number_text(plus, Unit::Bytes)),
        }
    }
}

const COLUMNS: usize = 10;

const HEADINGS: [&str; COLUMNS] =
    ["", "", "limit", "ours", "ours/limit", "must / goal", "", "CRIU", "CRIU/ours", "must / goal"];

/// Three digits with the unit that suits.
fn number_text(number: f64, unit: Unit) -> String {
    let steps: &[(f64, &str)] = match unit {
        Unit::Time => &[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")],
        Unit::Bytes => &[(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")],
        Unit::Times => &[(1.0, "")],
    };
    let (step, name) = steps.iter().find(|(step, _)| number >= *step).or(steps.last()).unwrap_or(&(1.0, ""));
    let scaled = number / step;
    let digits = match scaled {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{scaled:.digits$} {name}").trim_end().to_owned()
}

/// Enough digits to tell it from its neighbours.
fn ratio_text(ratio: f64) -> String {
    let digits = match ratio {
        0.9..1.1 => 4,
        0.0..0.1 => 5,
        _ => 2,
    };
    format!("{ratio:.digits$}")
}

/// What the figures are compared with.
pub fn rows(figures: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    memory(figures, &mut rows);
    tasks(figures, &mut rows);
    descriptors(figures, &mut rows);
    image_size(figures, &mut rows);
    footprint(figures, &mut rows);
    mappings(figures, &mut rows);
    running(figures, &mut rows);
    rows
}

/// A row with the limit and the peer of `key`.
fn plain(figures: &Figures, metric: &'static str, key: &str, what: String, unit: Unit, size: usize) -> Row {
    let get = |who| figures.get(key, size, who);
    Row::new(metric, what, unit, get("limit"), get("ours")).peer(get("criu"), get("tools"))
}

fn memory(figures: &Figures, rows: &mut Vec<Row>) {
    let key = "M1/stopped";
    if figures.sizes(key).len() > 1 {
        let get = |who| slope(figures, key, who);
        let row = Row::new("M1", "standing still, per GiB", Unit::Time, get("limit"), get("ours"));
        rows.push(row.aims(times(1.3), times(0.4)).scored(true));
    }
    for size in figures.sizes(key) {
        rows.push(still(figures, key, format!("standing still, {size} MiB"), size));
    }
    let sizes = figures.sizes("M2/dump");
    for &size in &sizes {
        let mut row = plain(figures, "M2", "M2/dump", format!("checkpoint of {size} MiB"), Unit::Time, size);
        row.limit = Some(with_checksum(figures, "M2/write", size));
        rows.push(row.aims(times(1.1), times(0.8)).scored(Some(&size) == sizes.last()));
    }
    for &size in &sizes {
        let what = format!("checkpoint of {size} MiB, killed");
        let (limit, ours) = (with_checksum(figures, "M2/write", size), figures.get("M2/dump", size, "killed"));
        rows.push(Row::new("M2", what, Unit::Time, limit, ours).aims(times(1.1), times(0.8)));
    }
    for size in figures.sizes("M3/first") {
        let row = plain(figures, "M3", "M3/first", "restart to the first instruction".into(), Unit::Time, size);
        rows.push(row.aims(times(5.0), times(2.5)).peer_aims(10.0, 20.0).scored(true));
    }
    let sizes = figures.sizes("M5/restore");
    for &size in &sizes {
        let mut row = plain(figures, "M5", "M5/restore", format!("restart of {size} MiB"), Unit::Time, size);
        row.limit = Some(with_checksum(figures, "M5/read", size));
        rows.push(row.aims(times(1.0), times(0.6)).peer_aims(2.5, 4.0).scored(Some(&size) == sizes.last()));
    }
}

/// The limit of what moves as much memory as `key` and has a checksum of it.
fn with_checksum(figures: &Figures, key: &str, size: usize) -> Result<f64, String> {
    Ok(figures.get(key, size, "limit")? + figures.get("crc32c", size, "limit")?)
}

/// A row of M1, where CRIU is compared with the system call.
fn still(figures: &Figures, key: &str, what: String, size: usize) -> Row {
    let get = |who| figures.get(key, size, who);
    Row::new("M1", what, Unit::Time, get("limit"), get("ours")).peer(get("criu"), get("ours"))
}

/// What victims that run see by their own clocks, and checkpoints without end.
fn running(figures: &Figures, rows: &mut Vec<Row>) {
    let key = "M1/gap";
    if figures.sizes(key).len() > 1 {
        let get = |who| slope(figures, key, who);
        let row = Row::new("M1", "longest gap, per GiB", Unit::Time, get("limit"), get("ours"));
        rows.push(row.aims(times(1.3), times(0.4)));
    }
    for size in figures.sizes(key) {
        let row = still(figures, key, format!("longest gap, {size} MiB"), size);
        rows.push(if size == 512 { row.peer_aims(20.0, 50.0) } else { row });
    }
    let key = "M15/writes";
    for size in figures.sizes(key) {
        let get = |who| figures.get(key, size, who);
        let what = format!("99.9 % of writes, {size} MiB");
        let row = Row::new("M15", what, Unit::Time, get("limit"), get("ours")).peer(get("criu"), get("ours"));
        rows.push(row.aims(times(1.3), times(1.1)));
    }
    let key = "M16/period";
    for size in figures.sizes(key) {
        let get = |who| figures.get(key, size, who);
        let what = format!("one checkpoint after the other, {size} MiB");
        rows.push(Row::new("M16", what, Unit::Time, get("limit"), get("ours")).aims(times(5.0), times(2.0)));
    }
}

/// What a kernel with this subsystem takes.
fn footprint(figures: &Figures, rows: &mut Vec<Row>) {
    for (what, name, most) in [
        ("syscall", "system calls", 1.0),
        ("fault", "page faults", 1.0),
        ("processes", "forks", 1.001),
        ("exec", "programs started", 1.001),
        ("switch", "wake-ups by pipe", 1.001),
    ] {
        let key = format!("M11/{what}");
        for size in figures.sizes(&key) {
            let get = |who| figures.get(&key, size, who);
            let row = Row::new("M11", format!("{size} {name}, idle"), Unit::Time, get("limit"), get("ours"));
            rows.push(row.aims(times(1.001), times(most)));
        }
    }
    for what in ["task_struct", "mm_struct", "vm_area_struct", "filp"] {
        let key = format!("M11/sizeof-{what}");
        for size in figures.sizes(&key) {
            let get = |who| figures.get(&key, size, who);
            let row = Row::new("M11", format!("size of {what}"), Unit::Bytes, get("limit"), get("ours"));
            rows.push(row.aims(times(1.0), times(1.0)));
        }
    }
    for size in figures.sizes("M12/text") {
        let ours = figures.get("M12/text", size, "ours");
        let mut row = Row::new("M12", "text and rodata added", Unit::Bytes, Ok(0.0), ours);
        row.limit = None;
        let kib = |kib: f64| Bound { times: 0.0, plus: kib * 1024.0 };
        rows.push(row.aims(kib(400.0), kib(200.0)));
    }
    for (what, name, most) in [
        ("stop", "memory to checkpoint, tree stopped", Bound { times: 0.0005, plus: 1_048_576.0 }),
        ("snapshot", "memory to checkpoint, snapshot", times(0.003)),
    ] {
        let key = format!("M13/{what}");
        for size in figures.sizes(&key) {
            let get = |who| figures.get(&key, size, who);
            let row = Row::new("M13", format!("{name}, {size} MiB"), Unit::Bytes, get("limit"), get("ours"));
            rows.push(row.aims(most, most));
        }
    }
}

fn tasks(figures: &Figures, rows: &mut Vec<Row>) {
    for kind in ["processes", "threads"] {
        for (way, what, aims) in [("dump", "checkpoint", (4.0, 2.0)), ("restore", "restart", (3.0, 1.5))] {
            let key = format!("M7/{kind}-{way}");
            let sizes = figures.sizes(&key);
            for &size in &sizes {
                let row = plain(figures, "M7", &key, format!("{what} of {size} {kind}"), Unit::Time, size);
                rows.push(row.aims(times(aims.0), times(aims.1)).scored(Some(&size) == sizes.last()));
            }
            linear(figures, rows, "M7", &key, &format!("{what}, {kind}"), 1.3);
        }
    }
}

fn descriptors(figures: &Figures, rows: &mut Vec<Row>) {
    for (kind, name) in [("files", "files"), ("pipes", "pipe ends"), ("unix", "unix sockets"), ("eventfds", "eventfds")]
    {
        for (way, what, aims) in [("dump", "checkpoint", (1.0, 0.5)), ("restore", "restart", (2.0, 1.2))] {
            let key = format!("M8/{kind}-{way}");
            let sizes = figures.sizes(&key);
            for &size in &sizes {
                let row = plain(figures, "M8", &key, format!("{what} of {size} {name}"), Unit::Time, size);
                rows.push(row.aims(times(aims.0), times(aims.1)).scored(Some(&size) == sizes.last()));
            }
        }
    }
}

fn image_size(figures: &Figures, rows: &mut Vec<Row>) {
    let aims = |row: Row| row.aims(Bound { times: 1.02, plus: 65_536.0 }, Bound { times: 1.005, plus: 16_384.0 });
    for size in figures.sizes("M10/image") {
        rows.push(aims(plain(figures, "M10", "M10/image", format!("image of {size} MiB"), Unit::Bytes, size)));
    }
    for size in figures.sizes("M10/shared") {
        let what = format!("image of 8 processes that share {size} MiB");
        rows.push(aims(plain(figures, "M10", "M10/shared", what, Unit::Bytes, size)));
    }
}

fn mappings(figures: &Figures, rows: &mut Vec<Row>) {
    for (way, what, aims) in [("dump", "checkpoint", (3.0, 1.5)), ("restore", "restart", (1.0, 0.5))] {
        let key = format!("M14/vmas-{way}");
        let sizes = figures.sizes(&key);
        for &size in &sizes {
            let row = plain(figures, "M14", &key, format!("{what} of {size} mappings"), Unit::Time, size);
            rows.push(row.aims(times(aims.0), times(aims.1)).scored(Some(&size) == sizes.last()));
        }
        linear(figures, rows, "M14", &key, &format!("{what}, mappings"), 1.1);
    }
}

/// Ten times as many from the second-largest size to the largest have to take about ten times as long.
fn linear(figures: &Figures, rows: &mut Vec<Row>, metric: &'static str, key: &str, what: &str, most: f64) {
    let [.., small, large] = figures.sizes(key)[..] else { return };
    if small < 100 {
        return;
    }
    let ratio = |who| Ok(figures.get(key, large, who)? / figures.get(key, small, who)?);
    let row =
        Row::new(metric, format!("{what}: {large} / {small}"), Unit::Times, Ok((large / small) as f64), ratio("ours"));
    rows.push(row.aims(times(most), times(most)).peer(ratio("criu"), Err("not compared".into())));
}

/// What one GiB more takes: the slope of the line that fits the samples of all sizes (MiB) best.
fn slope(figures: &Figures, key: &str, who: &str) -> Value {
    let points: Vec<(f64, f64)> = figures
        .sizes(key)
        .into_iter()
        .map(|size| Ok((size as f64 / 1024.0, figures.get(key, size, who)?)))
        .collect::<Result<_, String>>()?;
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    if below == 0.0 { Err("one size makes no slope".into()) } else { Ok(above / below) }
}

/// The geometric mean of limit / ours over the metrics that count, one scalar each, and which these are.
fn score(rows: &[Row]) -> Option<(f64, Vec<&'static str>)> {
    let mut metrics: Vec<(&'static str, Vec<f64>)> = Vec::new();
    for row in rows.iter().filter(|row| row.scored) {
        let Some(ratio) = row.ratio() else { continue };
        match metrics.iter_mut().find(|(metric, _)| *metric == row.metric) {
            Some((_, ratios)) => ratios.push(ratio),
            None => metrics.push((row.metric, vec![ratio])),
        }
    }
    if metrics.is_empty() {
        return None;
    }
    let mean = |logs: Vec<f64>| logs.iter().sum::<f64>() / logs.len() as f64;
    let log = |(_, ratios): &(&str, Vec<f64>)| -mean(ratios.iter().map(|ratio| ratio.ln()).collect());
    Some((mean(metrics.iter().map(log).collect()).exp(), metrics.iter().map(|(metric, _)| *metric).collect()))
}

const LATER: &str = "later: M4 and M6 (lazy restart), M9 (incremental checkpoint)";

const NOTES: &str = "\
ours: checkpoint(2) and restart(2) from entry to return by the kernel's stamps, images in tmpfs.\n\
CRIU/ours: `criu dump --leave-running` and `criu restore` against `ckpt -o` and `rstr --detach`, whole programs;\n\
M1: with `criu pre-dump` before it; standing still is what CRIU calls frozen_time, the longest gap what the victim sees.";

fn summary(rows: &[Row]) -> String {
    let mut text = String::new();
    if let Some((score, metrics)) = score(rows) {
        let _ = writeln!(text, "score {score:.3}: geometric mean of limit/ours over {}", metrics.join(", "));
    }
    let count = |verdict| rows.iter().filter(|row| row.verdict() == verdict).count();
    let _ = writeln!(text, "goal {}, must {}, missed {}", count("goal"), count("must"), count("missed"));
    text
}

/// Reasons of what is missing, each once.
fn missing(rows: &[Row]) -> Vec<String> {
    rows.iter().flat_map(Row::reasons).collect()
}

/// The table for a terminal; with the rows of an earlier run, and how ours changed since.
pub fn text(rows: &[Row], before: Option<&[Row]>) -> String {
    let mut lines: Vec<Vec<String>> = vec![HEADINGS.map(str::to_owned).to_vec()];
    if before.is_some() {
        lines[0].push("before".into());
    }
    for row in rows {
        let mut cells = row.cells().to_vec();
        if let Some(before) = before {
            let old = before.iter().find(|old| old.metric == row.metric && old.what == row.what);
            let change = old.and_then(|old| Some(row.ours.as_ref().ok()? / old.ours.as_ref().ok()?));
            cells.push(change.map_or("-".into(), |change| format!("{:+.1} %", (change - 1.0) * 100.0)));
        }
        lines.push(cells);
    }
    let widths: Vec<usize> =
        (0..lines[0].len()).map(|n| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::from("\n");
    for line in &lines {
        for (n, cell) in line.iter().enumerate() {
            let width = widths[n];
            // Names to the left, numbers to the right.
            let _ = if n < 2 { write!(text, "{cell:width$}  ") } else { write!(text, "{cell:>width$}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    let _ = write!(text, "\n{}{LATER}\n{NOTES}\n", summary(rows));
    for reason in missing(rows) {
        let _ = writeln!(text, "{reason}");
    }
    text
}

/// The table for README.md.
pub fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&HEADINGS.map(str::to_owned));
    text.push_str(&format!("|---|---|{}\n", "--:|".repeat(COLUMNS - 2)));
    for row in rows {
        text.push_str(&line(&row.cells()));
    }
    let _ = write!(text, "\n{}{LATER}\n\n{NOTES}\n", summary(rows));
    for reason in missing(rows) {
        let _ = write!(text, "\n- {reason}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lines: &[(&str, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (key, value) in lines {
            figures.add(&format!(r#"{{"key":"{key}","samples":[{value:?}]}}"#)).unwrap();
        }
        figures
    }

    fn find<'a>(rows: &'a [Row], what: &str) -> &'a Row {
        rows.iter().find(|row| row.what == what).unwrap()
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(number_text(1234.0, Unit::Time), "1.23 us");
        assert_eq!(number_text(12_340_000.0, Unit::Time), "12.3 ms");
        assert_eq!(number_text(0.5, Unit::Time), "0.50 ns");
        assert_eq!(number_text(65_536.0, Unit::Bytes), "64.0 KiB");
        assert_eq!(number_text(10.0, Unit::Times), "10.0");
    }

    #[test]
    fn what_has_a_checksum_is_compared_with_one() {
        let rows = rows(&figures(&[
            ("M2/write/64/limit", 100.0),
            ("M5/read/64/limit", 80.0),
            ("M5/restore/64/ours", 100.0),
            ("crc32c/64/limit", 20.0),
            ("M2/dump/64/ours", 126.0),
            ("M2/dump/64/tools", 200.0),
            ("M2/dump/64/criu", 400.0),
        ]));
        let row = find(&rows, "checkpoint of 64 MiB");
        assert_eq!(row.limit, Some(Ok(120.0)));
        assert_eq!(row.verdict(), "must");
        assert_eq!(row.peer_ratio(), Some(2.0));
        assert_eq!(find(&rows, "restart of 64 MiB").limit, Some(Ok(100.0)));
        assert_eq!(score(&rows), Some(((120.0_f64 / 126.0).sqrt(), vec!["M2", "M5"])));
    }

    #[test]
    fn verdicts_want_both_the_limit_and_the_peer() {
        let row = |ours, criu| {
            Row::new("M3", "x", Unit::Time, Ok(10.0), Ok(ours))
                .aims(times(5.0), times(2.5))
                .peer(Ok(criu), Ok(100.0))
                .peer_aims(10.0, 20.0)
                .verdict()
        };
        assert_eq!(row(25.0, 2000.0), "goal");
        assert_eq!(row(25.0, 1999.0), "must");
        assert_eq!(row(26.0, 2000.0), "must");
        assert_eq!(row(25.0, 999.0), "missed");
        assert_eq!(row(51.0, 2000.0), "missed");
    }

    #[test]
    fn slopes_are_per_gib() {
        let key = [("M1/stopped/256/ours", 35.0), ("M1/stopped/512/ours", 60.0), ("M1/stopped/1024/ours", 110.0)];
        let slope = slope(&figures(&key), "M1/stopped", "ours").unwrap();
        assert!((slope - 100.0).abs() < 1e-9, "{slope}");
    }

    #[test]
    fn what_is_missing_says_why() {
        let mut figures = figures(&[("M8/unix-dump/10/limit", 5.0)]);
        figures.add(r#"{"key":"M8/unix-dump/10/ours","refused":"socket: not supported"}"#).unwrap();
        let rows = rows(&figures);
        let text = text(&rows, None);
        assert!(text.contains("M8 checkpoint of 10 unix sockets: ours: refused: socket: not supported"), "{text}");
        assert_eq!(score(&rows), None);
    }

    #[test]
    fn linearity_compares_the_two_largest_sizes() {
        let rows = rows(&figures(&[("M14/vmas-dump/10000/ours", 100.0), ("M14/vmas-dump/100000/ours", 1200.0)]));
        let row = find(&rows, "checkpoint, mappings: 100000 / 10000");
        assert_eq!((row.ours.clone(), row.verdict()), (Ok(12.0), "missed"));
    }
}
