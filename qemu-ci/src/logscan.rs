// SPDX-License-Identifier: GPL-2.0
//! Reports of trouble in a kernel log.

use crate::ktap::without_timestamp;
use std::collections::BTreeSet;

/// How much of a log is shown from a report on.
const EXCERPT_LINES: usize = 40;

/// What no test may cause; a line that holds all parts of one row is a report.
const REPORTS: &[&[&str]] = &[
    &["BUG:"],
    &["WARNING:"],
    &["Oops"],
    &["KASAN:"],
    &["UBSAN:"],
    &["KCSAN:"],
    &["INFO: task ", " blocked"],
    &["INFO: possible recursive locking"],
    &["possible circular locking"],
    &["possible recursive locking"],
    &["inconsistent lock state"],
    &["suspicious RCU usage"],
    &["detected stall"],
    &["self-detected stall"],
    &["kthread starved"],
    &["soft lockup"],
    &["kmemleak: ", " new suspected"],
    &["general protection fault, "],
    &["refcount_t:"],
    &["list_add corruption"],
    &["list_del corruption"],
    &["Call Trace"],
    &["Kernel panic"],
    &["rust_kernel: panicked"],
];

/// How many other reports are named.
const OTHERS: usize = 10;

/// The first report in `log` with the lines that follow it, and the first line of each later one that is different.
pub fn reports(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().map(without_timestamp).collect();
    let first = lines.iter().position(|line| is_report(line))?;
    let end = lines.len().min(first + EXCERPT_LINES);
    let mut seen = BTreeSet::from([subject(lines[first])]);
    let others = lines[end..].iter().filter(|line| is_report(line) && !line.contains("Call Trace"));
    let others: Vec<_> = others.filter(|line| seen.insert(subject(line))).take(OTHERS).collect();
    let heading = if others.is_empty() { None } else { Some(&"later also:") };
    let all = lines[first..end].iter().chain(heading).chain(others);
    Some(all.map(|line| format!("    {line}\n")).collect())
}

/// What is the same in all reports of one place: the line up to the processor and task.
fn subject(line: &str) -> &str {
    line.split(", CPU#").next().unwrap_or(line)
}

fn is_report(line: &str) -> bool {
    REPORTS.iter().any(|parts| parts.iter().all(|part| line.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found() {
        for line in [
            "[    3.1] BUG: KASAN: slab-use-after-free in x+0x1/0x2",
            "[    3.1] WARNING: kernel/fork.c:12 at copy_process+0x1/0x2, CPU#1: init/1",
            "[    3.1] WARNING: possible circular locking dependency detected",
            "[    3.1] INFO: task init:1 blocked for more than 120 seconds.",
            "[    3.1] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "[    3.1] Oops: general protection fault, probably for non-canonical address 0xdead",
            "[    3.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[    3.1] refcount_t: underflow; use-after-free.",
            "[    3.1] UBSAN: shift-out-of-bounds in a.c:1:2",
        ] {
            assert!(is_report(line), "{line}");
        }
    }

    #[test]
    fn harmless_lines_are_not() {
        for line in [
            "[    0.0] kasan: KernelAddressSanitizer initialized (generic)",
            "[    0.0] kmemleak: Kernel memory leak detector initialized (mem pool available: 15868)",
            "[    3.1] traps: target[101] general protection fault ip:401000 sp:7ffc error:0",
            "[    0.0] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
            "[    0.0] Debug: sleeping function checks on",
        ] {
            assert!(!is_report(line), "{line}");
        }
    }

    #[test]
    fn the_excerpt_begins_with_the_report() {
        let log = format!("a\nb\n[    3.1] BUG: x\n{}", "y\n".repeat(100));
        let excerpt = reports(&log).unwrap();
        assert!(excerpt.starts_with("    BUG: x\n"));
        assert_eq!(excerpt.lines().count(), EXCERPT_LINES);
        assert_eq!(reports("fine\n"), None);
    }

    #[test]
    fn later_reports_are_named_once() {
        let noise = "y\n".repeat(100);
        let log = format!(
            "[ 1.0] WARNING: a.c:1 at f, CPU#0: x/1\n{noise}[ 2.0] WARNING: a.c:1 at f, CPU#1: x/2\n\
             [ 3.0] WARNING: b.c:1 at g, CPU#1: x/2\n[ 3.0] Call Trace:\n[ 4.0] WARNING: b.c:1 at g, CPU#0: x/3\n"
        );
        let excerpt = reports(&log).unwrap();
        assert!(excerpt.ends_with("    y\n    later also:\n    WARNING: b.c:1 at g, CPU#1: x/2\n"), "{excerpt}");
    }
}
