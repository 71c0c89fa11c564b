// SPDX-License-Identifier: GPL-2.0
//! The tools and the selftests: static programs for the guest, and unit tests on the host.

use crate::context::Context;
use crate::files;
use crate::ktap::Totals;
use crate::process;
use crate::process::Stream;
use crate::ui::Step;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A program for the guest.
pub struct Program {
    /// Its name.
    pub name: String,
    /// The static binary.
    pub path: PathBuf,
    /// Whether it is one of the selftests, as opposed to a tool.
    pub is_selftest: bool,
}

/// The part of cargo's messages that tells what was built.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds all programs of the workspace `tools/`, among them the selftests.
pub fn build(ctx: &Context) -> Result<Vec<Program>> {
    let mut command = cargo(ctx, &ctx.repo.join("tools"), "build")?;
    command.args([
        "--workspace",
        "--bins",
        "--release",
        "--target",
        TARGET,
        "--message-format=json-render-diagnostics",
    ]);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let selftests = ctx.repo.join("selftests");
    let mut programs = Vec::new();
    let mut step = Step::start("tools and selftests");
    process::run(command, &ctx.log("tools"), &mut step, |stream, line| {
        if stream == Stream::Out {
            programs.extend(serde_json::from_str(line).ok().and_then(|message| program(message, &selftests)));
        }
        (stream == Stream::Err).then(|| line.trim().to_owned())
    })?;
    programs.sort_by(|a: &Program, b| a.name.cmp(&b.name));
    step.done(&format!("{} static programs", programs.len()));
    Ok(programs)
}

fn program(message: Message, selftests: &Path) -> Option<Program> {
    let is_selftest = message.manifest_path?.starts_with(selftests);
    Some(Program { name: message.target?.name, path: message.executable?, is_selftest })
}

/// Unit tests that run on the host.
pub struct UnitTests {
    /// The directory that they belong to.
    pub of: &'static str,
    workspace: &'static str,
    selection: &'static [&'static str],
}

/// All of them. The programs of selftests/ have none, but for init: only to build them for that would take longer than
/// the tests of all others.
pub const UNIT_TESTS: [UnitTests; 3] = [
    UnitTests { of: "qemu-ci", workspace: "qemu-ci", selection: &["--workspace"] },
    UnitTests { of: "tools", workspace: "tools", selection: &["--workspace", "--exclude=selftests"] },
    UnitTests {
        of: "selftests",
        workspace: "tools",
        selection: &["--package=selftests", "--lib", "--bin=selftest-init"],
    },
];

/// Runs unit tests.
pub fn unit_tests(ctx: &Context, tests: &UnitTests) -> Result<Totals> {
    let mut command = cargo(ctx, &ctx.repo.join(tests.workspace), "test")?;
    command.arg("--no-fail-fast").args(tests.selection);
    let mut totals = Totals::default();
    let mut failed = Vec::new();
    let mut step = Step::start(format!("unit tests of {}/", tests.of));
    let log = ctx.log(&format!("unit-{}", tests.of));
    let result = process::run(command, &log, &mut step, |_, line| {
        totals.add(&summary(line));
        if line.starts_with("test ") && line.ends_with("... FAILED") {
            failed.push(line.to_owned());
        }
        Some(format!("{} passed", totals.passed))
    });
    for line in &failed {
        step.print(line);
    }
    match result {
        Err(e) if totals.failed == 0 => return Err(e),
        Err(_) => step.done(&format!("{} failed, see {}", totals.failed, log.display())),
        Ok(()) => step.done(&format!("{} passed", totals.passed)),
    }
    Ok(totals)
}

/// What a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …` counts.
fn summary(line: &str) -> Totals {
    let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
        return Totals::default();
    };
    let count =
        |what: &str| counts.1.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok()).unwrap_or(0);
    Totals { passed: count("passed"), failed: count("failed"), skipped: count("ignored") }
}

/// `cargo SUBCOMMAND` for the workspace in `dir`; what it builds stays out of the clone.
///
/// Each clone has a place of its own for that: cargo tells by times alone whether a file of a workspace has changed, and
/// does not notice when it is another clone's.
pub fn cargo(ctx: &Context, dir: &Path, subcommand: &str) -> Result<Command> {
    if !dir.join("Cargo.toml").exists() {
        bail!("{}: there is no cargo workspace", dir.display());
    }
    let name = dir.file_name().context("a workspace without a name")?;
    let mut command = Command::new("cargo");
    command.arg(subcommand).arg("--locked").current_dir(dir);
    let clone = files::short_digest([ctx.repo.as_os_str().as_encoded_bytes()]);
    command.env("CARGO_TARGET_DIR", ctx.work.join("target").join(clone).join(name));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_summaries_are_counted() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(summary(line), Totals { passed: 12, failed: 2, skipped: 1 });
        assert_eq!(summary("running 3 tests"), Totals::default());
    }

    #[test]
    fn programs_are_told_apart() {
        let text = r#"{"reason":"compiler-artifact","manifest_path":"/repo/selftests/Cargo.toml","target":{"name":"pipe"},"executable":"/t/pipe"}"#;
        let found = program(serde_json::from_str(text).unwrap(), Path::new("/repo/selftests")).unwrap();
        assert!(found.is_selftest);
        assert_eq!(found.name, "pipe");
        let text = r#"{"reason":"compiler-artifact","manifest_path":"/x","target":{"name":"lib"},"executable":null}"#;
        assert!(program(serde_json::from_str(text).unwrap(), Path::new("/repo")).is_none());
    }
}
