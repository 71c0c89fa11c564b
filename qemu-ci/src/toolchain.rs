// SPDX-License-Identifier: GPL-2.0
//! What compiles the kernel: the host's own tools when the kernel accepts them, else a build root of Debian.

use crate::context::Context;
use crate::debian;
use crate::files;
use crate::process;
use crate::ui;
use crate::ui::Step;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// What a build root holds: the oldest tools that the kernel accepts, of a release that stays available.
const PACKAGES: &[&str] = &[
    "bc",
    "bindgen",
    "bison",
    "clang-19",
    "flex",
    "libelf-dev",
    "libssl-dev",
    "lld-19",
    "llvm-19",
    "make",
    "perl",
    "python3",
    "rust-clippy",
    "rust-src",
    "rustc",
    "rustfmt",
    "xz-utils",
];

const LLVM_OF_ROOT: &str = "-19";

/// Where a build root sees the source and the output, whatever they are called outside: builds do not depend on paths.
const ROOT_SOURCE: &str = "/src/linux";
const ROOT_OUTPUT: &str = "/src/out";

/// Enters the build root $1 as user $2 with the source $3 and the output $4; the mounts vanish with the process.
const ENTER: &str = r#"
set -eu
root=$1 user=$2 source=$3 output=$4
shift 4
mount --bind "$source" "$root/src/linux"
mount -o remount,bind,ro "$root/src/linux"
mount --bind "$output" "$root/src/out"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"#;

/// Fixed, so that equal sources make equal kernels.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("KBUILD_BUILD_USER", "linux-cr"),
    ("KBUILD_BUILD_HOST", "qemu-ci"),
    ("KBUILD_BUILD_TIMESTAMP", "2026-11-01"),
    ("LC_ALL", "C"),
];

/// A set of tools that builds the kernel.
pub struct Toolchain {
    kind: Kind,
    /// Names the tools; another id means another kernel.
    pub id: String,
}

enum Kind {
    /// The tools on PATH; the string is what `LLVM=` says.
    Host(String),
    /// A Debian root file system.
    Root(PathBuf),
}

impl Toolchain {
    /// The tools to build the tree `source` with.
    pub fn get(ctx: &Context, source: &Path) -> Result<Self> {
        let scratch = tempfile::tempdir_in(&ctx.work)?;
        for llvm in ["-19", "1"] {
            let Some(versions) = host_versions(llvm) else { continue };
            let id = files::short_digest([llvm, &versions]);
            let host = Self { kind: Kind::Host(llvm.into()), id: format!("host-{id}") };
            let mut probe = host.make(source, scratch.path(), &["rustavailable"]);
            if probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
                return Ok(host);
            }
        }
        let id = format!("{}-{}", debian::SUITE, files::short_digest(PACKAGES));
        Ok(Self { kind: Kind::Root(build_root(ctx, &id)?), id })
    }

    /// `make ARGS` for the tree `source` with its products in `output`.
    pub fn make(&self, source: &Path, output: &Path, args: &[&str]) -> Command {
        let (source_seen, output_seen, llvm) = match &self.kind {
            Kind::Host(llvm) => (source, output, llvm.as_str()),
            Kind::Root(_) => (Path::new(ROOT_SOURCE), Path::new(ROOT_OUTPUT), LLVM_OF_ROOT),
        };
        let mut command = self.command(source, output, "make");
        command.arg("-C").arg(source_seen);
        command.arg(format!("O={}", output_seen.display()));
        command.arg(format!("LLVM={llvm}")).args(args);
        command
    }

    /// A program that ends when this process ends.
    fn command(&self, source: &Path, output: &Path, program: &str) -> Command {
        match &self.kind {
            Kind::Host(_) => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "TERM", program]).envs(ENVIRONMENT);
                command
            }
            Kind::Root(root) => {
                let user = format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
                let mut command = process::as_root("setpriv");
                command.args(["--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]);
                command.args(["sh", "-c", ENTER, "enter"]).arg(root).arg(user).arg(source).arg(output);
                command.args(["PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/tmp"]);
                command.args(ENVIRONMENT.map(|(name, value)| format!("{name}={value}"))).arg(program);
                command
            }
        }
    }
}

/// What the host's tools call themselves; `None` when one is missing.
fn host_versions(llvm: &str) -> Option<String> {
    let suffix = if llvm == "1" { "" } else { llvm };
    [&format!("clang{suffix}"), &format!("ld.lld{suffix}"), "rustc", "bindgen"]
        .into_iter()
        .map(|tool| {
            let output = Command::new(tool).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .collect()
}

/// The build root `id`, made when it is not there.
fn build_root(ctx: &Context, id: &str) -> Result<PathBuf> {
    let _lock = ctx.lock_shared()?;
    let dir = ctx.cache.join("toolchain");
    let root = dir.join(id);
    if root.exists() {
        return Ok(root);
    }
    ctx.require_space(4)?;
    ui::say("the host's tools do not build this kernel: it is built in a build root");
    let mut step = Step::start(format!("build root of Debian {}", debian::SUITE));
    let temp = dir.join("new");
    fs::create_dir_all(&dir)?;
    debian::remove_root_tree(&temp)?;
    debian::bootstrap(ctx, debian::SUITE, PACKAGES, &temp, &mut step, "build-root")?;
    let mounts = [ROOT_SOURCE, ROOT_OUTPUT].map(|path| temp.join(&path[1..]));
    if !process::as_root("mkdir").arg("-p").args(mounts).status()?.success() {
        bail!("{}: cannot be written", temp.display());
    }
    fs::rename(&temp, &root).with_context(|| root.display().to_string())?;
    step.done("made");
    Ok(root)
}
