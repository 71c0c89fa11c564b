// SPDX-License-Identifier: GPL-2.0
//! The guest's disks: Debian's root file system, and scratch space that outlives a boot.

use crate::context::Context;
use crate::debian;
use crate::files;
use crate::process;
use crate::ui::Step;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::fs;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// What the Debian of the tests holds beyond the minimum.
const PACKAGES: &[&str] = &["python3", "make", "tcc", "libc6-dev", "redis-server", "tmux", "vim-tiny", "inotify-tools"];

/// What it holds besides for the tests that take long.
const LONG_PACKAGES: &[&str] = &["openjdk-21-jdk-headless", "nodejs"];

const DEBIAN_SIZE: &str = "1500M";
const LONG_SIZE: &str = "3000M";

/// Space for images; the file is sparse.
const SCRATCH_BYTES: u64 = 4 << 30;

/// The disk with the Debian that the tests use, or that those need that take long.
pub fn debian(ctx: &Context, long: bool) -> Result<PathBuf> {
    if long {
        return root(ctx, debian::SUITE, &[PACKAGES, LONG_PACKAGES].concat(), LONG_SIZE);
    }
    root(ctx, debian::SUITE, PACKAGES, DEBIAN_SIZE)
}

/// The disk with the Debian that has the CRIU to compare with.
pub fn criu(ctx: &Context) -> Result<PathBuf> {
    root(ctx, debian::CRIU_SUITE, &["criu"], DEBIAN_SIZE)
}

/// A disk with the root file system of `suite` and `packages` beyond the minimum, made when it is not there.
fn root(ctx: &Context, suite: &str, packages: &[&str], size: &str) -> Result<PathBuf> {
    let _lock = ctx.lock_shared()?;
    let key = files::short_digest([suite, size].iter().chain(packages));
    let disk = ctx.cache.join("disk").join(format!("{suite}-{key}.ext4"));
    if disk.exists() {
        return Ok(disk);
    }
    ctx.require_space(3)?;
    let mut step = Step::start(format!("guest disk with Debian {suite}"));
    let (root, image) = (ctx.cache.join("disk/new"), ctx.cache.join("disk/new.ext4"));
    debian::remove_root_tree(&root)?;
    files::remove(&image)?;
    debian::bootstrap(ctx, suite, packages, &root, &mut step, "guest-disk")?;
    // Made here, so that a mke2fs that runs as root leaves us the owner.
    File::create(&image).with_context(|| image.display().to_string())?;
    let mut command = process::as_root("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg(size);
    process::run(command, &ctx.log("guest-disk"), &mut step, |_, _| None)?;
    debian::remove_root_tree(&root)?;
    fs::rename(&image, &disk).with_context(|| disk.display().to_string())?;
    step.done("made");
    Ok(disk)
}

/// A new, empty disk for both boots of one kernel.
pub fn scratch(ctx: &Context, name: &str) -> Result<PathBuf> {
    let disk = ctx.work.join(format!("scratch-{name}.ext4"));
    files::remove(&disk)?;
    File::create(&disk)?.set_len(SCRATCH_BYTES).with_context(|| disk.display().to_string())?;
    let output = Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&disk).output().context("mke2fs")?;
    if !output.status.success() {
        bail!("mke2fs failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(disk)
}
