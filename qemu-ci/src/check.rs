// SPDX-License-Identifier: GPL-2.0
//! Formatting, clippy and checkpatch.

use crate::context::Context;
use crate::files;
use crate::overlay;
use crate::process;
use crate::source;
use crate::ui;
use crate::ui::Step;
use crate::userspace;
use anyhow::Result;
use anyhow::bail;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

/// The workspaces with user-space code.
const WORKSPACES: [&str; 2] = ["qemu-ci", "tools"];

/// Runs all checks; fails when one did, after all have run.
pub fn check(ctx: &Context) -> Result<()> {
    let mut failed = 0;
    let mut run = |what: &str, command: Command| {
        let log = ctx.log(&format!("check-{}", what.replace([' ', '/'], "-")));
        let mut step = Step::start(what);
        match process::run(command, &log, &mut step, |_, _| None) {
            Ok(()) => step.done("clean"),
            Err(e) => {
                failed += 1;
                step.done("not clean");
                ui::say(&format!("{e:#}"));
            }
        }
    };
    for workspace in WORKSPACES.iter().filter(|dir| ctx.repo.join(dir).join("Cargo.toml").exists()) {
        let mut format = Command::new("cargo");
        format.args(["fmt", "--all", "--check"]).current_dir(ctx.repo.join(workspace));
        run(&format!("rustfmt {workspace}"), format);
        let mut clippy = userspace::cargo(ctx, &ctx.repo.join(workspace), "clippy")?;
        clippy.args(["--workspace", "--all-targets", "--", "-D", "warnings"]);
        run(&format!("clippy {workspace}"), clippy);
    }
    if let Some(source) = source::cached(ctx)?.into_iter().next() {
        if let Some(format) = kernel_rustfmt(ctx, &source.dir)? {
            run("rustfmt rust", format);
        }
        let patches = overlay::patches(&ctx.repo)?;
        if !patches.is_empty() {
            let mut checkpatch = Command::new("perl");
            checkpatch.arg(source.dir.join("scripts/checkpatch.pl")).arg(format!("--root={}", source.dir.display()));
            // The series signs off what is not signed yet.
            checkpatch.args(["--no-signoff", "--terse", "--no-summary", "--show-types"]).args(patches);
            run("checkpatch patches", checkpatch);
        }
    }
    if failed > 0 {
        bail!("{failed} checks failed");
    }
    Ok(())
}

/// Formats each of the files after the first argument by itself: its modules lie elsewhere in the kernel tree. What
/// rustfmt finds in its standard input is not in its exit status.
const FORMAT_EACH: &str = r#"
config=$1 status=0
shift
for file; do
	found=$(rustfmt --check --edition 2021 --config-path "$config" <"$file") || status=1
	[ -z "$found" ] || { printf 'error: %s\n%s\n' "$file" "$found"; status=1; }
done
exit $status
"#;

/// rustfmt for the kernel's Rust files, by the kernel's own rules.
fn kernel_rustfmt(ctx: &Context, tree: &Path) -> Result<Option<Command>> {
    let dir = ctx.repo.join("rust");
    if !dir.exists() {
        return Ok(None);
    }
    let found = files::walk(&dir, &|rel| rel.file_name() == Some(OsStr::new("target")))?;
    let mut command = Command::new("sh");
    command.args(["-c", FORMAT_EACH, "format"]).arg(tree.join(".rustfmt.toml")).current_dir(&dir);
    command.args(found.iter().filter(|file| file.extension() == Some(OsStr::new("rs"))));
    Ok(Some(command))
}
