// SPDX-License-Identifier: GPL-2.0
//! Files written whole or not at all, copied trees and digests.

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Digest as _;
use sha2::Sha256;
use std::fs;
use std::fs::File;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

/// Contents of a file, and whether it may be executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the execute bits are set.
    pub executable: bool,
}

impl Contents {
    /// Reads `path`; `None` when there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let executable = fs::metadata(path)?.mode() & 0o100 != 0;
        Ok(Some(Self { bytes, executable }))
    }

    /// Replaces `path` by these contents in one step; a hard link to the old file keeps the old contents.
    pub fn write(&self, path: &Path) -> Result<()> {
        let dir = path.parent().context("a file without a directory")?;
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let temp =
            tempfile::Builder::new().prefix(".new-").tempfile_in(dir).with_context(|| dir.display().to_string())?;
        fs::write(temp.path(), &self.bytes).with_context(|| path.display().to_string())?;
        let mode = if self.executable { 0o755 } else { 0o644 };
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(mode))?;
        temp.persist(path).with_context(|| path.display().to_string())?;
        Ok(())
    }
}

/// Writes `text` to `path` unless it holds it already; says whether it wrote.
pub fn write_if_changed(path: &Path, text: impl AsRef<[u8]>) -> Result<bool> {
    let new = Contents { bytes: text.as_ref().to_vec(), executable: false };
    if Contents::read(path)?.is_some_and(|old| old.bytes == new.bytes) {
        return Ok(false);
    }
    new.write(path)?;
    Ok(true)
}

/// Reads a JSON file; `None` when it is missing or does not parse.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a JSON file in one step.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_if_changed(path, serde_json::to_string_pretty(value)?).map(drop)
}

/// Removes a file or a directory tree that may be missing.
pub fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.with_context(|| format!("{}: cannot be removed", path.display()))
}

/// `text` with `new` between the lines `begin` and `end`; `None` when it has none.
pub fn between(text: &str, begin: &str, end: &str, new: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n\n{new}{end}{after}"))
}

/// All regular files and symbolic links below `dir`, relative to it, in order; `skip` names what is left out.
pub fn walk(dir: &Path, skip: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    fn descend(dir: &Path, rel: &Path, skip: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) -> Result<()> {
        let here = dir.join(rel);
        for entry in fs::read_dir(&here).with_context(|| here.display().to_string())? {
            let entry = entry?;
            let rel = rel.join(entry.file_name());
            if skip(&rel) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                descend(dir, &rel, skip, found)?;
            } else {
                found.push(rel);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    descend(dir, Path::new(""), skip, &mut found)?;
    found.sort();
    Ok(found)
}

/// How [`mirror`] makes the files of the copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    /// Real copies, for a tree that others may change.
    Copy,
    /// Hard links, for a tree that is only ever changed by replacing files.
    Link,
}

/// Makes `to` hold exactly `files` of `from`, leaving alone what `keep` names; says how many files it changed.
///
/// A file that replaces another gets a later time stamp than that had, so that make notices it.
pub fn mirror(from: &Path, to: &Path, files: &[PathBuf], how: Copying, keep: &dyn Fn(&Path) -> bool) -> Result<usize> {
    let mut changed = 0;
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for rel in files.iter().filter(|rel| !keep(rel)) {
        let (source, target) = (from.join(rel), to.join(rel));
        let new = fs::symlink_metadata(&source).with_context(|| source.display().to_string())?;
        let old = fs::symlink_metadata(&target).ok();
        if let Some(old) = &old {
            let same = match how {
                Copying::Link => old.ino() == new.ino(),
                Copying::Copy => same_file(&source, &new, &target, old)?,
            };
            if same {
                continue;
            }
        }
        if old.is_some() {
            remove(&target)?;
        } else if let Some(dir) = target.parent() {
            fs::create_dir_all(dir)?;
        }
        match how {
            Copying::Link => fs::hard_link(&source, &target),
            Copying::Copy if new.is_symlink() => std::os::unix::fs::symlink(fs::read_link(&source)?, &target),
            Copying::Copy => fs::copy(&source, &target).and_then(|_| {
                let mut time = new.modified()?;
                if let Some(old) = old.filter(|old| old.modified().is_ok_and(|old| old >= time)) {
                    time = SystemTime::now().max(old.modified()?);
                }
                File::options().write(true).open(&target)?.set_modified(time)
            }),
        }
        .with_context(|| target.display().to_string())?;
        changed += 1;
    }
    for rel in walk(to, &|rel| keep(rel))? {
        if files.binary_search(&rel).is_err() {
            remove(&to.join(&rel))?;
            changed += 1;
        }
    }
    Ok(changed)
}

/// Whether a copy is still good: by its size and time, or else by its contents.
fn same_file(source: &Path, new: &Metadata, target: &Path, old: &Metadata) -> Result<bool> {
    if old.file_type() != new.file_type() || old.len() != new.len() || old.mode() != new.mode() {
        return Ok(false);
    }
    if new.is_symlink() {
        return Ok(fs::read_link(source)? == fs::read_link(target)?);
    }
    Ok(old.modified()? == new.modified()? || fs::read(source)? == fs::read(target)?)
}

/// SHA-256 of several parts, each marked off from the next, in hexadecimal.
pub fn digest<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The first digits of [`digest`], enough for the name of a directory.
pub fn short_digest<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    digest(parts)[..12].to_owned()
}

/// SHA-256 of a file, in hexadecimal, as sha256sum prints it.
pub fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    io::copy(&mut file, &mut hash).with_context(|| path.display().to_string())?;
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            write_if_changed(&dir.path().join(path), text).unwrap();
        }
        dir
    }

    #[test]
    fn write_only_when_different() {
        let dir = tree(&[("a", "1")]);
        assert!(!write_if_changed(&dir.path().join("a"), "1").unwrap());
        assert!(write_if_changed(&dir.path().join("a"), "2").unwrap());
    }

    #[test]
    fn writing_leaves_a_hard_link_alone() {
        let dir = tree(&[("a", "1")]);
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        write_if_changed(&dir.path().join("b"), "2").unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"1");
    }

    #[test]
    fn mirror_adds_replaces_and_removes() {
        for how in [Copying::Copy, Copying::Link] {
            let from = tree(&[("same", "1"), ("dir/new", "22"), ("kept", "pristine")]);
            let to = tree(&[("gone/x", "1"), ("kept", "patched"), ("same", "0")]);
            let files = walk(from.path(), &|_| false).unwrap();
            let keep = |rel: &Path| rel == Path::new("kept");
            assert_eq!(mirror(from.path(), to.path(), &files, how, &keep).unwrap(), 3);
            assert_eq!(mirror(from.path(), to.path(), &files, how, &keep).unwrap(), 0);
            assert_eq!(fs::read(to.path().join("same")).unwrap(), b"1");
            assert_eq!(fs::read(to.path().join("dir/new")).unwrap(), b"22");
            assert_eq!(fs::read(to.path().join("kept")).unwrap(), b"patched");
            assert!(!to.path().join("gone/x").exists());
        }
    }

    #[test]
    fn digest_tells_parts_apart() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let old = "before\n<!-- b -->\nold\n<!-- e -->\nafter\n";
        let new = between(old, "<!-- b -->", "<!-- e -->", "table\n\n").unwrap();
        assert_eq!(new, "before\n<!-- b -->\n\ntable\n\n<!-- e -->\nafter\n");
        assert_eq!(between(&new, "<!-- b -->", "<!-- e -->", "table\n\n").unwrap(), new);
        assert_eq!(between("no markers", "<!-- b -->", "<!-- e -->", "table"), None);
    }
}
