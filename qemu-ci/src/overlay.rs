// SPDX-License-Identifier: GPL-2.0
//! What this project changes in the kernel tree: the patches, and the files of `rust/` and
//! `Documentation/userspace-api/`.

use crate::files;
use crate::files::Contents;
use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// Where each directory lands in the kernel tree.
const PLACES: [(&str, &str); 6] = [
    ("rust/checkpoint", "kernel/checkpoint"),
    ("rust/image", "kernel/checkpoint/image"),
    ("rust/kernel", "rust/kernel"),
    ("rust/helpers", "rust/helpers"),
    ("rust/include", "include"),
    ("Documentation/userspace-api", "Documentation/userspace-api"),
];

/// Files by path in the kernel tree; `None` stands for a file that is removed.
pub type Overlay = BTreeMap<PathBuf, Option<Contents>>;

/// All that the project changes in the tree `pristine`.
pub fn overlay(repo: &Path, pristine: &Path) -> Result<Overlay> {
    let mut overlay = patched(pristine, &patches(repo)?)?;
    for (path, contents) in added(repo)? {
        if overlay.contains_key(&path) || pristine.join(&path).exists() {
            bail!("rust/: {} is a file of Linux; it is changed by a patch", path.display());
        }
        overlay.insert(path, Some(contents));
    }
    Ok(overlay)
}

/// The patches, in the order in which they apply.
pub fn patches(repo: &Path) -> Result<Vec<PathBuf>> {
    let dir = repo.join("patches");
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let is_patch = |path: &PathBuf| path.extension() == Some(OsStr::new("patch"));
    Ok(files::walk(&dir, &|_| false)?.into_iter().filter(is_patch).map(|path| dir.join(path)).collect())
}

/// The files of `rust/`, by their path in the kernel tree.
pub fn added(repo: &Path) -> Result<BTreeMap<PathBuf, Contents>> {
    let mut added = BTreeMap::new();
    for (from, to) in PLACES {
        let dir = repo.join(from);
        if !dir.exists() {
            continue;
        }
        for rel in files::walk(&dir, &stays_out)? {
            let contents = Contents::read(&dir.join(&rel))?.with_context(|| format!("{}: vanished", rel.display()))?;
            added.insert(Path::new(to).join(rel), contents);
        }
    }
    Ok(added)
}

/// What is for user space only, or for this pipeline.
fn stays_out(rel: &Path) -> bool {
    let name = rel.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.')
        || name.ends_with('~')
        || ["Cargo.toml", "Cargo.lock", "series.toml", "tests", "fuzz", "target"].contains(&&*name)
}

/// The files that `patches` change, as they are after the last of them.
pub fn patched(pristine: &Path, patches: &[PathBuf]) -> Result<Overlay> {
    let scratch = tempfile::tempdir()?;
    let mut touched = BTreeSet::new();
    for patch in patches {
        touched.extend(touched_by(patch)?);
    }
    for path in &touched {
        if let Some(contents) = Contents::read(&pristine.join(path))? {
            contents.write(&scratch.path().join(path))?;
        }
    }
    for patch in patches {
        apply(scratch.path(), patch)?;
    }
    touched.into_iter().map(|path| Ok((path.clone(), Contents::read(&scratch.path().join(path))?))).collect()
}

/// Applies one patch; unlike patch(1), git accepts no fuzz.
fn apply(dir: &Path, patch: &Path) -> Result<()> {
    let output = Command::new("git")
        .args(["apply", "--whitespace=nowarn"])
        .arg(patch)
        .current_dir(dir)
        .env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir))
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .output()
        .context("git cannot be run")?;
    if !output.status.success() {
        let name = patch.file_name().unwrap_or_default().to_string_lossy();
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().next().unwrap_or("no reason given").trim_start_matches("error: ");
        bail!("patches/{name} does not apply: {reason}");
    }
    Ok(())
}

/// The paths that a patch names in its headers.
pub fn touched_by(patch: &Path) -> Result<BTreeSet<PathBuf>> {
    let contents = Contents::read(patch)?.with_context(|| format!("{}: vanished", patch.display()))?;
    Ok(paths_in(&String::from_utf8_lossy(&contents.bytes)))
}

fn paths_in(text: &str) -> BTreeSet<PathBuf> {
    let prefixes = ["--- a/", "+++ b/", "rename from ", "rename to ", "copy from ", "copy to "];
    let path_of = |line: &str| {
        let path = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix))?;
        Some(PathBuf::from(path.split('\t').next()?.trim_end()))
    };
    text.lines().filter_map(path_of).collect()
}

/// A digest of the whole overlay, or of those of its files that `which` picks.
pub fn digest(overlay: &Overlay, which: impl Fn(&Path) -> bool) -> String {
    files::digest(overlay.iter().filter(|(path, _)| which(path)).flat_map(|(path, contents)| {
        let (mode, bytes) = match contents {
            None => ("removed", &[][..]),
            Some(contents) => (if contents.executable { "755" } else { "644" }, &contents.bytes[..]),
        };
        [path.as_os_str().as_encoded_bytes(), mode.as_bytes(), bytes].map(<[u8]>::to_vec)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_if_changed;

    const PATCH: &str = "From: A <a@example.org>\nSubject: [PATCH] x: y\n\n---\n f | 2 +-\n\n\
        diff --git a/f b/f\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
        diff --git a/gone b/gone\ndeleted file mode 100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";

    fn setup(text_of_f: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let patch = dir.path().join("0001-x.patch");
        write_if_changed(&patch, PATCH).unwrap();
        write_if_changed(&dir.path().join("linux/f"), text_of_f).unwrap();
        write_if_changed(&dir.path().join("linux/gone"), "x\n").unwrap();
        (dir, patch)
    }

    #[test]
    fn patched_files_are_changed_and_removed() {
        let (dir, patch) = setup("one\ntwo\nthree\n");
        let overlay = patched(&dir.path().join("linux"), &[patch]).unwrap();
        assert_eq!(overlay[Path::new("f")].as_ref().unwrap().bytes, b"one\n2\nthree\n");
        assert_eq!(overlay[Path::new("gone")], None);
        assert_eq!(overlay.len(), 2);
    }

    #[test]
    fn fuzz_is_refused_by_name() {
        let (dir, patch) = setup("one\ntwo\nfour\n");
        let error = patched(&dir.path().join("linux"), &[patch]).unwrap_err().to_string();
        assert_eq!(error, "patches/0001-x.patch does not apply: patch failed: f:1");
    }

    #[test]
    fn user_space_parts_stay_out() {
        for path in ["Cargo.toml", "tests", "a/fuzz", "series.toml", "a/.x.swp"] {
            assert!(stays_out(Path::new(path)), "{path}");
        }
        assert!(!stays_out(Path::new("tests.rs")));
    }
}
