// SPDX-License-Identifier: GPL-2.0
//! The kernel tree that is built: a pristine one with the overlay on it.
//!
//! Only files whose contents differ are written, so that make rebuilds what a change asks for and nothing else.

use crate::files;
use crate::files::Contents;
use crate::files::Copying;
use crate::overlay::Overlay;
use crate::source::Record;
use crate::source::Source;
use crate::ui::Step;
use anyhow::Result;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A tree made of hard links to a pristine one; what is changed in it is replaced, never written over.
pub struct Tree {
    /// The tree.
    pub dir: PathBuf,
    pristine: PathBuf,
    state_file: PathBuf,
    state: State,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    /// The pristine tree that the links are to; none while they are being made.
    source: Option<(String, Record)>,
    /// Files that may differ from the pristine tree.
    changed: BTreeSet<PathBuf>,
}

impl Tree {
    /// The tree `dir`, made of `source` when it is not already.
    pub fn open(dir: &Path, source: &Source) -> Result<Self> {
        let state_file = dir.with_extension("json");
        let state: State = files::read_json(&state_file).unwrap_or_default();
        let mut tree = Self { dir: dir.into(), pristine: source.dir.clone(), state_file, state };
        let wanted = (source.id.clone(), source.record.clone());
        if tree.state.source.as_ref() == Some(&wanted) {
            return Ok(tree);
        }
        let step = Step::start(format!("kernel tree of Linux {}", source.record.version));
        if tree.state.source.take().is_none_or(|(id, _)| id != source.id) {
            files::remove(&tree.dir)?;
            tree.state.changed.clear();
        }
        tree.save()?;
        let list = files::walk(&tree.pristine, &|_| false)?;
        let changed = &tree.state.changed;
        let count = files::mirror(&tree.pristine, &tree.dir, &list, Copying::Link, &|rel| changed.contains(rel))?;
        tree.state.source = Some(wanted);
        tree.save()?;
        step.done(&format!("{count} files"));
        Ok(tree)
    }

    /// Makes the tree the pristine one with `overlay` on it; says how many files that changed.
    pub fn sync(&mut self, overlay: &Overlay) -> Result<usize> {
        self.state.changed.extend(overlay.keys().cloned());
        self.save()?;
        let mut count = 0;
        for path in &self.state.changed {
            let wanted = match overlay.get(path) {
                Some(contents) => contents.clone(),
                None => Contents::read(&self.pristine.join(path))?,
            };
            count += usize::from(replace(&self.dir, path, wanted)?);
        }
        self.state.changed = overlay.keys().cloned().collect();
        self.save()?;
        Ok(count)
    }

    fn save(&self) -> Result<()> {
        files::write_json(&self.state_file, &self.state)
    }
}

/// Makes one file hold `wanted`, or not exist; says whether it was otherwise.
fn replace(dir: &Path, rel: &Path, wanted: Option<Contents>) -> Result<bool> {
    let path = dir.join(rel);
    if Contents::read(&path)? == wanted {
        return Ok(false);
    }
    match wanted {
        Some(contents) => contents.write(&path)?,
        None => {
            files::remove(&path)?;
            // Directories that hold nothing any more go too; the first that does ends this.
            for parent in rel.ancestors().skip(1).take_while(|parent| !parent.as_os_str().is_empty()) {
                if fs::remove_dir(dir.join(parent)).is_err() {
                    break;
                }
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Origin;
    use std::time::SystemTime;

    fn text(text: &str) -> Option<Contents> {
        Some(Contents { bytes: text.into(), executable: false })
    }

    fn setup() -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        let linux = dir.path().join("pristine");
        for name in ["kernel/fork.c", "kernel/exit.c", "mm/mmap.c"] {
            files::write_if_changed(&linux.join(name), "pristine").unwrap();
        }
        let record = Record { origin: Origin::Ksrc, version: "7.3.4".into(), sha256: "0".into() };
        (dir, Source { dir: linux, id: "id".into(), record })
    }

    #[test]
    fn an_overlay_comes_and_goes() {
        let (dir, source) = setup();
        let mut tree = Tree::open(&dir.path().join("tree"), &source).unwrap();
        let overlay = Overlay::from([
            ("kernel/fork.c".into(), text("patched")),
            ("kernel/exit.c".into(), None),
            ("kernel/checkpoint/sys.c".into(), text("new")),
        ]);
        assert_eq!(tree.sync(&overlay).unwrap(), 3);
        assert_eq!(tree.sync(&overlay).unwrap(), 0);
        assert_eq!(fs::read(tree.dir.join("kernel/fork.c")).unwrap(), b"patched");
        assert!(!tree.dir.join("kernel/exit.c").exists());
        assert_eq!(fs::read(source.dir.join("kernel/fork.c")).unwrap(), b"pristine");

        let before = SystemTime::now() - std::time::Duration::from_secs(1);
        let mut tree = Tree::open(&dir.path().join("tree"), &source).unwrap();
        assert_eq!(tree.sync(&Overlay::new()).unwrap(), 3);
        assert_eq!(fs::read(tree.dir.join("kernel/fork.c")).unwrap(), b"pristine");
        assert!(fs::metadata(tree.dir.join("kernel/fork.c")).unwrap().modified().unwrap() > before);
        assert!(tree.dir.join("kernel/exit.c").exists());
        assert!(!tree.dir.join("kernel/checkpoint").exists());
    }

    #[test]
    fn an_interrupted_sync_is_repaired() {
        let (dir, source) = setup();
        let path = dir.path().join("tree");
        let mut tree = Tree::open(&path, &source).unwrap();
        tree.sync(&Overlay::from([("kernel/fork.c".into(), text("old"))])).unwrap();
        // As if the run had ended after the list was saved, in the middle of the writing.
        tree.state.changed.insert("mm/mmap.c".into());
        tree.save().unwrap();
        text("new").unwrap().write(&path.join("mm/mmap.c")).unwrap();
        let mut tree = Tree::open(&path, &source).unwrap();
        assert_eq!(tree.sync(&Overlay::new()).unwrap(), 2);
        assert_eq!(fs::read(path.join("mm/mmap.c")).unwrap(), b"pristine");
    }

    #[test]
    fn a_changed_source_is_followed() {
        let (dir, mut source) = setup();
        let path = dir.path().join("tree");
        let mut tree = Tree::open(&path, &source).unwrap();
        tree.sync(&Overlay::from([("kernel/fork.c".into(), text("patched"))])).unwrap();
        text("changed").unwrap().write(&source.dir.join("mm/mmap.c")).unwrap();
        source.record.sha256 = "1".into();
        let tree = Tree::open(&path, &source).unwrap();
        assert_eq!(fs::read(tree.dir.join("mm/mmap.c")).unwrap(), b"changed");
        assert_eq!(fs::read(tree.dir.join("kernel/fork.c")).unwrap(), b"patched");
    }
}
