// SPDX-License-Identifier: GPL-2.0
//! What Debian's archive gives: packages by a private apt state, and root file systems.

use crate::context::Context;
use crate::files;
use crate::process;
use crate::ui::Step;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use xshell::Shell;
use xshell::cmd;

/// The release that build roots and the tests' guest disk are made of.
pub const SUITE: &str = "trixie";

/// The release whose CRIU copes with this kernel.
pub const CRIU_SUITE: &str = "forky";

/// Where the archive is when the machine's own configuration names no mirror of it.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The mirror of Debian's archive that this machine already uses.
pub fn mirror(sh: &Shell) -> String {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let targets = cmd!(sh, "apt-get indextargets --format {format}").quiet().ignore_stderr().read().unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("stable");
    main_mirror(&targets, codename).unwrap_or(DEFAULT_MIRROR).trim_end_matches('/').to_owned()
}

/// The first URI that offers the component `main` of the release itself, not of its updates.
fn main_mirror<'a>(targets: &'a str, codename: &str) -> Option<&'a str> {
    targets.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [uri, release, "main"] if [codename, "stable"].contains(&release) && uri.contains("debian") => Some(uri),
        _ => None,
    })
}

/// An apt of our own for one suite: it neither reads nor changes the machine's configuration and needs no root.
pub struct Apt {
    options: Vec<OsString>,
    sh: Shell,
}

impl Apt {
    /// Reads the index of `suite` on `mirror`; fails when there is none.
    pub fn update(dir: &Path, mirror: &str, suite: &str) -> Result<Self> {
        let sh = Shell::new()?;
        files::remove(dir)?;
        for sub in ["lists/partial", "cache/archives/partial", "parts"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| dir.display().to_string())?;
        }
        let signed = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let list = dir.join("sources.list");
        files::write_if_changed(
            &list,
            format!("deb {signed}{mirror} {suite} main\ndeb-src {signed}{mirror} {suite} main\n"),
        )?;
        let mut options = Vec::new();
        for (name, value) in [
            ("Dir::Etc::SourceList", list.as_os_str()),
            ("Dir::Etc::SourceParts", dir.join("parts").as_os_str()),
            ("Dir::State::Lists", dir.join("lists").as_os_str()),
            ("Dir::Cache", dir.join("cache").as_os_str()),
            ("APT::Architecture", "amd64".as_ref()),
            ("APT::Sandbox::User", "".as_ref()),
            ("Acquire::Languages", "none".as_ref()),
            ("Acquire::Retries", "1".as_ref()),
            ("Acquire::http::Timeout", "10".as_ref()),
            ("Acquire::https::Timeout", "10".as_ref()),
            // A mirror's index of a suite that moves seldom, and every snapshot, may be past its date.
            ("Acquire::Check-Valid-Until", "false".as_ref()),
        ] {
            let mut option = OsString::from(format!("-o{name}="));
            option.push(value);
            options.push(option);
        }
        let apt = Self { options, sh };
        let options = &apt.options;
        let output = cmd!(apt.sh, "apt-get {options...} update --error-on=any").quiet().ignore_status().output()?;
        if !output.status.success() {
            bail!("no index");
        }
        Ok(apt)
    }

    /// Downloads the package `name` into `dir`.
    pub fn download(&self, name: &str, dir: &Path) -> Result<PathBuf> {
        let options = &self.options;
        let known = cmd!(self.sh, "apt-cache {options...} show --no-all-versions {name}").quiet().ignore_stderr();
        if known.ignore_status().read()?.is_empty() {
            bail!("no package {name}");
        }
        self.fetch(dir, &["download", name], "deb").with_context(|| format!("{name} cannot be downloaded"))
    }

    /// Downloads the upstream tarball of the newest source package `name` whose version begins with `series`.
    pub fn download_orig(&self, name: &str, series: &str, dir: &Path) -> Result<PathBuf> {
        let options = &self.options;
        let known = cmd!(self.sh, "apt-cache {options...} showsrc --only-source {name}").quiet().ignore_stderr();
        let text = known.ignore_status().read()?;
        let version = text
            .lines()
            .filter_map(|line| line.strip_prefix("Version: "))
            .find(|version| version.starts_with(&format!("{series}.")))
            .with_context(|| format!("no source package {name} {series}"))?;
        self.fetch(dir, &["source", "--download-only", &format!("{name}={version}")], "orig.tar.xz")
            .with_context(|| format!("the source package {name} {version} cannot be downloaded"))
    }

    fn fetch(&self, dir: &Path, args: &[&str], suffix: &str) -> Result<PathBuf> {
        files::remove(dir)?;
        fs::create_dir_all(dir)?;
        let options = &self.options;
        let _cwd = self.sh.push_dir(dir);
        let output = cmd!(self.sh, "apt-get {options...} -qq {args...}").quiet().ignore_status().output()?;
        let found = files::walk(dir, &|_| false)?.into_iter().find(|file| file.to_string_lossy().ends_with(suffix));
        // A source package is still of use when only its other parts are gone from the mirror.
        found.map(|file| dir.join(file)).with_context(|| last_line(&output.stderr))
    }
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().rfind(|line| !line.is_empty()).unwrap_or("no reason given").to_owned()
}

/// Makes a root file system of `suite` with `packages` in `dir`, which must not exist; root owns it.
pub fn bootstrap(ctx: &Context, suite: &str, packages: &[&str], dir: &Path, step: &mut Step, log: &str) -> Result<()> {
    let source = format!("deb {} {suite} main", mirror(&Shell::new()?));
    let mut command = process::as_root("mmdebstrap");
    command
        .args(["--variant=minbase", "--architectures=amd64"])
        // A mirror's index of a suite that moves seldom may be past its date.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(format!("--include={}", packages.join(",")))
        .arg(suite)
        .arg(dir)
        .arg(source);
    process::run(command, &ctx.log(log), step, |_, line| line.strip_prefix("I: ").map(str::to_owned))
}

/// Removes a tree that root owns.
pub fn remove_root_tree(dir: &Path) -> Result<()> {
    if dir.exists() && !process::as_root("rm").args(["-rf", "--one-file-system", "--"]).arg(dir).status()?.success() {
        bail!("{}: cannot be removed", dir.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_release() {
        let targets = "https://packages.example/apt bookworm main\n\
                       http://mirror.example/debian-security/ bookworm-security main\n\
                       http://mirror.example/debian/ bookworm contrib\n\
                       http://mirror.example/debian/ bookworm main\n";
        assert_eq!(main_mirror(targets, "bookworm"), Some("http://mirror.example/debian/"));
        assert_eq!(main_mirror(targets, "trixie"), None);
    }
}
