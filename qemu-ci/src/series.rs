// SPDX-License-Identifier: GPL-2.0
//! The mailable series: the patches, and patches that add the files of `rust/`.
//!
//! `rust/checkpoint/series.toml` may say in which order and in which parts:
//!
//! ```toml
//! [cover]
//! subject = "..."
//! body = "..."
//!
//! [[patch]]
//! file = "0001-fork-....patch"    # one of patches/
//!
//! [[patch]]
//! subject = "rust: ..."           # a patch that adds files
//! body = "..."
//! paths = ["rust/kernel/mm/snapshot.rs", "kernel/checkpoint/"]   # as in the kernel tree
//! ```
//!
//! Patches that it does not name come last, in their own order. Without it, new files come first: they are built only
//! once a patch names them.

use crate::config::Flavour;
use crate::context::Context;
use crate::files;
use crate::files::Contents;
use crate::kernel::Builder;
use crate::overlay;
use crate::overlay::Overlay;
use crate::source;
use crate::source::Source;
use crate::ui;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;
use xshell::Shell;
use xshell::cmd;

const INSIDE: &str = "kernel/checkpoint/";

/// What `series.toml` says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    cover: Option<Cover>,
    #[serde(default)]
    patch: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cover {
    subject: String,
    body: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Entry {
    Existing { file: String },
    New(Addition),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Addition {
    subject: String,
    #[serde(default)]
    body: String,
    paths: Vec<String>,
}

/// One commit of the series.
enum Step {
    Patch(PathBuf),
    Add { subject: String, body: String, files: BTreeMap<PathBuf, Contents> },
}

impl Plan {
    fn read(repo: &Path) -> Result<Self> {
        let path = repo.join("rust/checkpoint/series.toml");
        if !path.exists() {
            return Ok(Self { cover: None, patch: Addition::defaults().into_iter().map(Entry::New).collect() });
        }
        toml::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())
    }

    /// The steps in order; every patch and every file is in exactly one of them.
    fn steps(&self, patches: Vec<PathBuf>, mut added: BTreeMap<PathBuf, Contents>) -> Result<Vec<Step>> {
        let mut left: Vec<PathBuf> = patches;
        let mut steps = Vec::new();
        for entry in &self.patch {
            match entry {
                Entry::Existing { file } => {
                    let index = left.iter().position(|path| path.file_name() == Some(OsStr::new(file)));
                    let index = index
                        .with_context(|| format!("series.toml: there is no patches/{file} (or it is named twice)"))?;
                    steps.push(Step::Patch(left.remove(index)));
                }
                Entry::New(addition) => {
                    let files: BTreeMap<_, _> = added.extract_if_matching(&addition.paths);
                    if !files.is_empty() {
                        let (subject, body) = (addition.subject.clone(), addition.body.clone());
                        steps.push(Step::Add { subject, body, files });
                    }
                }
            }
        }
        if let Some(path) = added.keys().next() {
            bail!("series.toml: no patch adds {}", path.display());
        }
        steps.extend(left.into_iter().map(Step::Patch));
        Ok(steps)
    }
}

impl Addition {
    /// The parts in which new files are added when nothing else is said.
    fn defaults() -> Vec<Self> {
        [
            ("rust: add abstractions for checkpoint and restart", &["rust/"][..]),
            ("checkpoint: add the interfaces to user space and to C", &["include/"]),
            ("checkpoint: add the image format", &["kernel/checkpoint/image/"]),
            ("checkpoint: add checkpoint(2) and restart(2)", &[INSIDE]),
        ]
        .into_iter()
        .map(|(subject, paths)| Self {
            subject: subject.into(),
            body: String::new(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        })
        .collect()
    }
}

trait ExtractMatching {
    /// Takes out the files at, or below, one of `paths`.
    fn extract_if_matching(&mut self, paths: &[String]) -> Self;
}

impl ExtractMatching for BTreeMap<PathBuf, Contents> {
    fn extract_if_matching(&mut self, paths: &[String]) -> Self {
        let all = std::mem::take(self);
        let (taken, left) = all.into_iter().partition(|(file, _)| paths.iter().any(|path| file.starts_with(path)));
        *self = left;
        taken
    }
}

/// Writes the series to `out`, checks it on every pristine tree in the cache and prints its footprint.
pub fn series(ctx: &Context, out: Option<PathBuf>, build: bool) -> Result<()> {
    let main = Source::get(ctx, None)?;
    let plan = Plan::read(&ctx.repo)?;
    let steps = plan.steps(overlay::patches(&ctx.repo)?, overlay::added(&ctx.repo)?)?;
    if steps.is_empty() {
        bail!("there is nothing in patches/ and rust/ to make a series of");
    }
    let out = out.map_or_else(|| ctx.work.join("series"), |out| std::path::absolute(&out).unwrap_or(out));
    if out.starts_with(&ctx.repo) {
        bail!("{}: the series is not written into the clone", out.display());
    }
    let touched = touched(&steps)?;
    let repo = Repo::new(ctx, &main, &touched)?;
    for step in &steps {
        repo.commit(step)?;
    }
    let mails = repo.format(&out, &plan)?;
    for source in source::cached(ctx)? {
        check_applies(ctx, &source, &touched, &mails)?;
    }
    if build {
        check_builds(ctx, main, &repo)?;
    }
    ui::say(&format!("{} patches in {}", mails.len() - 1, out.display()));
    ui::say(&format!("inside {INSIDE}:{}", repo.stat(&[INSIDE], "--shortstat")?));
    let outside = repo.stat(&[".", &format!(":!{INSIDE}")], "--stat=100")?;
    ui::say(&format!("outside {INSIDE}:\n{outside}"));
    Ok(())
}

fn touched(steps: &[Step]) -> Result<BTreeSet<PathBuf>> {
    let mut touched = BTreeSet::new();
    for step in steps {
        match step {
            Step::Patch(path) => touched.extend(overlay::touched_by(path)?),
            Step::Add { files, .. } => touched.extend(files.keys().cloned()),
        }
    }
    Ok(touched)
}

/// Applies the mails to the pristine files by `git am`; the result has to be the tree that is built and tested.
fn check_applies(ctx: &Context, source: &Source, touched: &BTreeSet<PathBuf>, mails: &[PathBuf]) -> Result<()> {
    let what = format!("{} {}", source.record.origin.describe(), source.record.version);
    let repo = Repo::new(ctx, source, touched)?;
    let patches = mails.iter().skip(1);
    let sh = &repo.sh;
    let output = cmd!(sh, "git am --quiet --keep-non-patch {patches...}").quiet().ignore_status().output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let reason =
            text.lines().find(|line| line.starts_with("error:") || line.starts_with("Patch failed")).unwrap_or(&text);
        bail!("the series does not apply to {what} by git am: {}", reason.trim());
    }
    for (path, contents) in overlay::overlay(&ctx.repo, &source.dir)? {
        if Contents::read(&repo.dir.path().join(&path))? != contents {
            bail!("{}: the series and the tree that is built differ", path.display());
        }
    }
    ui::say(&format!("git am: applies to {what}"));
    Ok(())
}

/// Builds after each step the objects that the step touches, and at the end the whole kernel.
fn check_builds(ctx: &Context, source: Source, repo: &Repo) -> Result<()> {
    let pristine = source.dir.clone();
    let mut builder = Builder::new(ctx, source, ctx.work.join("series-build"))?;
    let mut overlay = Overlay::new();
    for (commit, subject) in repo.commits()? {
        let mut targets = BTreeSet::new();
        for path in repo.changed(&commit)? {
            let contents = repo.contents(&commit, &path)?;
            targets.extend(contents.is_some().then(|| target(&path, &pristine)).flatten());
            overlay.insert(path, contents);
        }
        builder.put(overlay.clone())?;
        builder.configure(Flavour::Lean, false)?;
        let mut args = vec!["prepare"];
        args.extend(targets.iter().map(String::as_str));
        builder.build_targets(Flavour::Lean, &args, &subject)?;
    }
    builder.build(Flavour::Lean)?;
    Ok(())
}

/// What make builds for a changed file: the object of a C or assembler file; headers are built with what includes them.
fn target(path: &Path, pristine: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?;
    let reached = pristine.join(path).exists();
    (reached && ["c", "S"].contains(&extension) && !path.starts_with("rust") && !path.starts_with("tools"))
        .then(|| path.with_extension("o").to_string_lossy().into_owned())
}

/// A git repository of the files that the series touches.
struct Repo {
    dir: TempDir,
    sh: Shell,
}

impl Repo {
    /// Holds `touched` as they are in `source`, as its first commit; commits are by the user of the clone.
    fn new(ctx: &Context, source: &Source, touched: &BTreeSet<PathBuf>) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let sh = Shell::new()?;
        sh.change_dir(dir.path());
        for path in touched {
            if let Some(contents) = Contents::read(&source.dir.join(path))? {
                contents.write(&dir.path().join(path))?;
            }
        }
        cmd!(sh, "git init --quiet").quiet().run()?;
        let clone = &ctx.repo;
        for name in ["user.name", "user.email"] {
            let value = cmd!(sh, "git -C {clone} config {name}").quiet().ignore_stderr().read();
            let value = value.with_context(|| format!("git config {name} is not set"))?;
            cmd!(sh, "git config {name} {value}").quiet().run()?;
        }
        cmd!(sh, "git config commit.gpgsign false").quiet().run()?;
        cmd!(sh, "git add --all --force").quiet().run()?;
        cmd!(sh, "git commit --quiet --allow-empty --message pristine").quiet().run()?;
        cmd!(sh, "git tag pristine").quiet().run()?;
        Ok(Self { dir, sh })
    }

    fn commit(&self, step: &Step) -> Result<()> {
        let sh = &self.sh;
        match step {
            Step::Patch(path) => {
                let output = cmd!(sh, "git am --quiet --signoff {path}").quiet().ignore_status().output()?;
                if !output.status.success() {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let text = String::from_utf8_lossy(&output.stderr).into_owned();
                    bail!(
                        "patches/{name} is not taken by git am: {}",
                        text.lines().next().unwrap_or("no reason given")
                    );
                }
            }
            Step::Add { subject, body, files } => {
                for (path, contents) in files {
                    contents.write(&self.dir.path().join(path))?;
                }
                let message = format!("{subject}\n\n{}\n", body.trim());
                cmd!(sh, "git add --all --force").quiet().run()?;
                cmd!(sh, "git commit --quiet --signoff --message {message}").quiet().run()?;
            }
        }
        Ok(())
    }

    /// Writes the mails; the first one is the cover letter.
    fn format(&self, out: &Path, plan: &Plan) -> Result<Vec<PathBuf>> {
        files::remove(out)?;
        fs::create_dir_all(out)?;
        let sh = &self.sh;
        cmd!(sh, "git format-patch --quiet --cover-letter --output-directory {out} pristine..HEAD").quiet().run()?;
        let mails: Vec<PathBuf> = files::walk(out, &|_| false)?.into_iter().map(|mail| out.join(mail)).collect();
        let cover = mails.first().context("git format-patch wrote nothing")?;
        let (subject, body) = match &plan.cover {
            Some(cover) => (cover.subject.as_str(), cover.body.trim()),
            None => (
                "checkpoint and restart of running programs",
                "checkpoint(2) writes running programs to a stream, restart(2) brings them back.",
            ),
        };
        let inside = self.stat(&[INSIDE], "--shortstat")?;
        let outside = self.stat(&[".", &format!(":!{INSIDE}")], "--stat=72")?;
        let body = format!("{body}\n\nInside {INSIDE}:{inside}\nOutside {INSIDE}:\n{outside}");
        let text = fs::read_to_string(cover)?;
        files::write_if_changed(
            cover,
            text.replace("*** SUBJECT HERE ***", subject).replace("*** BLURB HERE ***", &body),
        )?;
        Ok(mails)
    }

    fn stat(&self, paths: &[&str], form: &str) -> Result<String> {
        let sh = &self.sh;
        let output = cmd!(sh, "git diff {form} pristine HEAD -- {paths...}").quiet().output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The commits in order: (hash, subject).
    fn commits(&self) -> Result<Vec<(String, String)>> {
        let sh = &self.sh;
        let format = "--format=%H %s";
        let list = cmd!(sh, "git log --reverse {format} pristine..HEAD").quiet().read()?;
        Ok(list
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(hash, subject)| (hash.into(), subject.into()))
            .collect())
    }

    fn changed(&self, commit: &str) -> Result<Vec<PathBuf>> {
        let sh = &self.sh;
        let list = cmd!(sh, "git diff-tree -r -z --no-commit-id --name-only --no-renames {commit}").quiet().read()?;
        Ok(list.split_terminator('\0').map(PathBuf::from).collect())
    }

    fn contents(&self, commit: &str, path: &Path) -> Result<Option<Contents>> {
        let sh = &self.sh;
        let entry = cmd!(sh, "git ls-tree {commit} -- {path}").quiet().read()?;
        if entry.is_empty() {
            return Ok(None);
        }
        let object = format!("{commit}:{}", path.display());
        let bytes = cmd!(sh, "git cat-file blob {object}").quiet().output()?.stdout;
        Ok(Some(Contents { bytes, executable: entry.starts_with("100755") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(paths: &[&str]) -> BTreeMap<PathBuf, Contents> {
        paths.iter().map(|path| (path.into(), Contents { bytes: Vec::new(), executable: false })).collect()
    }

    fn describe(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|step| match step {
                Step::Patch(path) => path.display().to_string(),
                Step::Add { subject, files, .. } => format!("{subject}: {}", files.len()),
            })
            .collect()
    }

    #[test]
    fn the_plan_orders_the_steps() {
        let plan: Plan = toml::from_str(
            "[[patch]]\nfile = \"0002-b.patch\"\n\
             [[patch]]\nsubject = \"rust\"\npaths = [\"rust/\"]\n\
             [[patch]]\nsubject = \"core\"\npaths = [\"kernel/checkpoint/\", \"include/\"]\n",
        )
        .unwrap();
        let patches = vec!["p/0001-a.patch".into(), "p/0002-b.patch".into()];
        let files = added(&["rust/kernel/x.rs", "kernel/checkpoint/sys.c", "include/linux/checkpoint.h"]);
        let steps = plan.steps(patches.clone(), files).unwrap();
        assert_eq!(describe(&steps), ["p/0002-b.patch", "rust: 1", "core: 2", "p/0001-a.patch"]);
        let error = plan.steps(patches, added(&["mm/x.rs"])).err().unwrap().to_string();
        assert_eq!(error, "series.toml: no patch adds mm/x.rs");
    }

    #[test]
    fn by_default_the_image_comes_before_the_core() {
        let plan = Plan { cover: None, patch: Addition::defaults().into_iter().map(Entry::New).collect() };
        let files = added(&["kernel/checkpoint/sys.c", "kernel/checkpoint/image/mod.rs"]);
        let steps = plan.steps(vec!["0001.patch".into()], files).unwrap();
        assert_eq!(
            describe(&steps),
            ["checkpoint: add the image format: 1", "checkpoint: add checkpoint(2) and restart(2): 1", "0001.patch"]
        );
    }
}
