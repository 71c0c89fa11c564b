// SPDX-License-Identifier: GPL-2.0
//! A pristine tree of the kernel that the patches are for.

use crate::context::Context;
use crate::debian;
use crate::debian::Apt;
use crate::files;
use crate::files::Copying;
use crate::process;
use crate::ui::Step;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use clap::ValueEnum;
use serde::Deserialize;
use serde::Serialize;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use xshell::Shell;
use xshell::cmd;

/// The kernel series that the patches are for.
pub const SERIES: &str = "7.3";

const KERNEL_ORG: &str = "https://cdn.kernel.org/pub/linux/kernel/v7.x";

/// The suites in which Debian keeps, or kept, the package of [`SERIES`]; the likeliest first.
const SUITES: [&str; 5] = ["trixie-backports", "forky", "sid", "trixie", "experimental"];

/// A day on which the first of [`SUITES`] held the package, for the time when no mirror does any more.
const SNAPSHOT: &str = "http://snapshot.debian.org/archive/debian/20261119T000000Z";

/// Where a tree may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The tree that KSRC names; it is copied, and never changed.
    Ksrc,
    /// The tarball of kernel.org.
    KernelOrg,
    /// Debian's package linux-source: the kernel with Debian's patches.
    Debian,
    /// The upstream tarball in Debian's source package: the kernel less a few files.
    DebianOrig,
}

/// A pristine tree.
pub struct Source {
    /// The tree.
    pub dir: PathBuf,
    /// Names the tree in the cache.
    pub id: String,
    /// What is recorded about it.
    pub record: Record,
}

/// What is recorded about a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it came from.
    pub origin: Origin,
    /// Its version, as its Makefile says.
    pub version: String,
    /// SHA-256 of the file that was downloaded, or of names, sizes and times of the user's files.
    pub sha256: String,
}

impl Source {
    /// The tree to work with: KSRC's, else one that is there, else a download; `only` restricts where it may come from.
    pub fn get(ctx: &Context, only: Option<Origin>) -> Result<Self> {
        let _lock = ctx.lock_shared()?;
        let ksrc = env::var_os("KSRC").filter(|dir| !dir.is_empty());
        match (ksrc, only) {
            (Some(dir), None | Some(Origin::Ksrc)) => return from_user(ctx, Path::new(&dir)),
            (None, Some(Origin::Ksrc)) => bail!("KSRC= names no kernel tree"),
            _ => {}
        }
        let found = cached(ctx)?.into_iter().find(|source| match only {
            Some(origin) => source.record.origin == origin,
            None => source.record.origin != Origin::Ksrc,
        });
        if let Some(source) = found {
            return Ok(source);
        }
        ctx.require_space(4)?;
        let mut tried = Vec::new();
        for (origin, fetch) in FETCHERS {
            if only.is_some_and(|only| only != *origin) {
                continue;
            }
            match fetch(ctx, &mut tried)? {
                Some(file) => return unpack(ctx, *origin, &file),
                None => continue,
            }
        }
        bail!("no source of Linux {SERIES} (KSRC=/path/to/linux takes a tree of yours); tried: {}", tried.join("; "));
    }
}

/// All trees that are in the cache, the preferred ones first.
pub fn cached(ctx: &Context) -> Result<Vec<Source>> {
    let dir = ctx.cache.join("source");
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let entry = entry?;
        if let Some(record) = files::read_json::<Record>(&entry.path().join("source.json")) {
            let id = entry.file_name().to_string_lossy().into_owned();
            found.push(Source { dir: entry.path().join("linux"), id, record });
        }
    }
    found.sort_by_key(|source| (source.record.origin as u8, source.id.clone()));
    Ok(found)
}

/// Downloads a file, or notes in the list what was tried.
type Fetcher = fn(&Context, &mut Vec<String>) -> Result<Option<PathBuf>>;

const FETCHERS: &[(Origin, Fetcher)] = &[
    (Origin::KernelOrg, from_kernel_org),
    (Origin::Debian, |ctx, tried| {
        from_debian(ctx, tried, |apt, dir| apt.download(&format!("linux-source-{SERIES}"), dir))
    }),
    (Origin::DebianOrig, |ctx, tried| from_debian(ctx, tried, |apt, dir| apt.download_orig("linux", SERIES, dir))),
];

fn from_kernel_org(ctx: &Context, tried: &mut Vec<String>) -> Result<Option<PathBuf>> {
    let sh = Shell::new()?;
    let sums = format!("{KERNEL_ORG}/sha256sums.asc");
    let list = cmd!(sh, "curl -sSf --connect-timeout 5 --max-time 30 {sums}").quiet().ignore_stderr().read();
    let Some((sha256, name)) = list.ok().as_deref().and_then(newest) else {
        tried.push(format!("{KERNEL_ORG}: not reached, or no linux-{SERIES}"));
        return Ok(None);
    };
    let file = ctx.cache.join("download").join(&name);
    let mut step = Step::start(format!("downloading {name} from kernel.org"));
    let mut command = Command::new("curl");
    command
        .args(["-sSf", "--connect-timeout", "5", "--retry", "2", "-o"])
        .arg(&file)
        .arg(format!("{KERNEL_ORG}/{name}"));
    process::run(command, &ctx.log("fetch"), &mut step, |_, _| None)?;
    if files::sha256(&file)? != sha256 {
        bail!("{}: the checksum is not the one that kernel.org gives", file.display());
    }
    step.done("done");
    Ok(Some(file))
}

/// The newest tarball of [`SERIES`] in kernel.org's list of checksums: (checksum, name).
fn newest(list: &str) -> Option<(String, String)> {
    let patch_level = |name: &str| {
        let rest = name.strip_prefix("linux-")?.strip_suffix(".tar.xz")?.strip_prefix(SERIES)?;
        if rest.is_empty() { Some(0) } else { rest.strip_prefix('.')?.parse::<u32>().ok() }
    };
    list.lines()
        .filter_map(|line| line.split_once("  "))
        .filter_map(|(sha256, name)| Some((patch_level(name)?, sha256, name)))
        .max()
        .map(|(_, sha256, name)| (sha256.to_owned(), name.to_owned()))
}

fn from_debian(
    ctx: &Context,
    tried: &mut Vec<String>,
    download: fn(&Apt, &Path) -> Result<PathBuf>,
) -> Result<Option<PathBuf>> {
    let sh = Shell::new()?;
    if cmd!(sh, "apt-get --version").quiet().ignore_stdout().run().is_err() {
        tried.push("Debian's archive: there is no apt".into());
        return Ok(None);
    }
    let mirror = debian::mirror(&sh);
    let places = SUITES.map(|suite| (mirror.as_str(), suite)).into_iter().chain([(SNAPSHOT, SUITES[0])]);
    let mut step = Step::start(format!("looking for Linux {SERIES} in Debian's archive"));
    for (mirror, suite) in places {
        step.tick(&format!("{mirror} {suite}"));
        let attempt = Apt::update(&ctx.cache.join("apt"), mirror, suite)
            .and_then(|apt| download(&apt, &ctx.cache.join("download/debian")));
        match attempt {
            Ok(file) => {
                step.done(&format!("found in {suite}"));
                return Ok(Some(file));
            }
            Err(e) => tried.push(format!("{mirror} {suite}: {e:#}")),
        }
    }
    Ok(None)
}

/// Unpacks a tarball, or the tarball that a package holds.
fn unpack(ctx: &Context, origin: Origin, file: &Path) -> Result<Source> {
    let mut step = Step::start("unpacking the kernel source");
    let sha256 = files::sha256(file)?;
    let temp = tempfile::Builder::new().prefix(".unpack-").tempdir_in(ctx.cache.join("source"))?;
    let mut tarball = file.to_owned();
    if file.extension().is_some_and(|ext| ext == "deb") {
        let package = temp.path().join("package");
        let mut command = Command::new("dpkg-deb");
        command.arg("-x").arg(file).arg(&package);
        process::run(command, &ctx.log("unpack"), &mut step, |_, _| None)?;
        tarball = package.join(format!("usr/src/linux-source-{SERIES}.tar.xz"));
    }
    let tree = temp.path().join("linux");
    fs::create_dir(&tree)?;
    let mut command = Command::new("tar");
    command.args(["--strip-components=1", "--no-same-owner", "-xf"]).arg(&tarball).arg("-C").arg(&tree);
    process::run(command, &ctx.log("unpack"), &mut step, |_, _| None)?;
    let record = Record { origin, version: version(&tree)?, sha256 };
    files::remove(&temp.path().join("package"))?;
    files::write_json(&temp.path().join("source.json"), &record)?;
    let id = format!("{}-{}", record.version, &record.sha256[..12]);
    let dir = ctx.cache.join("source").join(&id);
    files::remove(&dir)?;
    fs::rename(temp.keep(), &dir)?;
    files::remove(file)?;
    step.done(&format!("Linux {} from {}", record.version, record.origin.describe()));
    Ok(Source { dir: dir.join("linux"), id, record })
}

impl Origin {
    /// What it is called in messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Ksrc => "KSRC",
            Self::KernelOrg => "kernel.org",
            Self::Debian => "Debian's linux-source",
            Self::DebianOrig => "Debian's upstream tarball",
        }
    }
}

/// Copies the user's tree, or brings the copy up to date.
fn from_user(ctx: &Context, ksrc: &Path) -> Result<Source> {
    let ksrc = fs::canonicalize(ksrc).with_context(|| format!("KSRC={}", ksrc.display()))?;
    let version = version(&ksrc)?;
    let list = user_files(&ksrc)?;
    let mut stamps = Vec::new();
    for file in &list {
        let meta = fs::symlink_metadata(ksrc.join(file)).with_context(|| file.display().to_string())?;
        stamps.push(format!("{} {} {}.{}", file.display(), meta.len(), meta.mtime(), meta.mtime_nsec()));
    }
    let record = Record { origin: Origin::Ksrc, version, sha256: files::digest(stamps) };
    let id = format!("ksrc-{}", files::short_digest([ksrc.to_string_lossy().as_bytes()]));
    let dir = ctx.cache.join("source").join(&id);
    let source = Source { dir: dir.join("linux"), id, record };
    let stamp = dir.join("source.json");
    if files::read_json::<Record>(&stamp).as_ref() != Some(&source.record) {
        ctx.require_space(4)?;
        let step = Step::start(format!("copying {}", ksrc.display()));
        files::remove(&stamp)?;
        let changed = files::mirror(&ksrc, &source.dir, &list, Copying::Copy, &|_| false)?;
        files::write_json(&stamp, &source.record)?;
        step.done(&format!("Linux {}, {changed} files changed", source.record.version));
    }
    Ok(source)
}

/// The files of a user's tree: what git knows of, or all that does not look like the product of a build.
fn user_files(ksrc: &Path) -> Result<Vec<PathBuf>> {
    if !ksrc.join(".git").exists() {
        return files::walk(ksrc, &|rel| {
            let name = rel.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            let made = ["include/config", "include/generated", "arch/x86/include/generated", "vmlinux", ".config"];
            name.ends_with(".o")
                || name.ends_with(".a")
                || name.ends_with(".cmd")
                || made.iter().any(|dir| rel == Path::new(dir))
        });
    }
    let sh = Shell::new()?;
    let list = cmd!(sh, "git -C {ksrc} ls-files -z --cached --others --exclude-standard").quiet().read()?;
    let mut found: Vec<PathBuf> = list
        .split_terminator('\0')
        .map(PathBuf::from)
        .filter(|file| ksrc.join(file).symlink_metadata().is_ok())
        .collect();
    found.sort();
    found.dedup();
    Ok(found)
}

/// The version that the tree's Makefile gives; one of another series is refused.
fn version(tree: &Path) -> Result<String> {
    let path = tree.join("Makefile");
    let text = fs::read_to_string(&path).with_context(|| format!("{}: no kernel tree", tree.display()))?;
    let version = makefile_version(&text).with_context(|| format!("{}: names no version", path.display()))?;
    if version != SERIES && !version.starts_with(&format!("{SERIES}.")) && !version.starts_with(&format!("{SERIES}-")) {
        bail!("{} holds Linux {version}; the patches are for {SERIES}", tree.display());
    }
    Ok(version)
}

fn makefile_version(text: &str) -> Option<String> {
    let field = |name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim()))
    };
    let mut version = format!("{}.{}", field("VERSION")?, field("PATCHLEVEL")?);
    match field("SUBLEVEL")? {
        "0" => {}
        sublevel => version += &format!(".{sublevel}"),
    }
    Some(version + field("EXTRAVERSION")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_point_release_wins() {
        let list = "-----BEGIN PGP SIGNED MESSAGE-----\n\
                    aa  linux-7.3.9.tar.xz\nbb  linux-7.3.10.tar.xz\ncc  linux-7.3.tar.xz\n\
                    dd  linux-7.30.1.tar.xz\nee  linux-7.3.11.tar.gz\n";
        assert_eq!(newest(list), Some(("bb".into(), "linux-7.3.10.tar.xz".into())));
        assert_eq!(newest("aa  linux-7.2.1.tar.xz\n"), None);
    }

    #[test]
    fn versions() {
        let makefile =
            |sub, extra| format!("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = {sub}\nEXTRAVERSION ={extra}\nNAME = x\n");
        assert_eq!(makefile_version(&makefile("4", "")).as_deref(), Some("7.3.4"));
        assert_eq!(makefile_version(&makefile("0", " -rc2")).as_deref(), Some("7.3-rc2"));
        assert_eq!(makefile_version("VERSION = 7\n"), None);
    }
}
