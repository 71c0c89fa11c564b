// SPDX-License-Identifier: GPL-2.0
//! From sources to a bzImage.

use crate::config;
use crate::config::Flavour;
use crate::context::Context;
use crate::files;
use crate::overlay;
use crate::overlay::Overlay;
use crate::process;
use crate::source::Source;
use crate::toolchain::Toolchain;
use crate::tree::Tree;
use crate::ui::Step;
use anyhow::Result;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// A kernel tree with what builds it.
pub struct Builder<'a> {
    ctx: &'a Context,
    source: Source,
    toolchain: Toolchain,
    tree: Tree,
    overlay: Overlay,
    /// Holds the output directories.
    dir: PathBuf,
}

impl<'a> Builder<'a> {
    /// The tree of the area with this clone's patches and files in it.
    pub fn prepare(ctx: &'a Context) -> Result<Self> {
        let source = Source::get(ctx, None)?;
        let overlay = overlay::overlay(&ctx.repo, &source.dir)?;
        let mut builder = Self::new(ctx, source, ctx.work.clone())?;
        builder.put(overlay)?;
        Ok(builder)
    }

    /// A pristine tree of `source` below `dir`.
    pub fn new(ctx: &'a Context, source: Source, dir: PathBuf) -> Result<Self> {
        let tree = Tree::open(&dir.join("linux"), &source)?;
        let toolchain = Toolchain::get(ctx, &source.dir)?;
        Ok(Self { ctx, source, toolchain, tree, overlay: Overlay::new(), dir })
    }

    /// Makes the tree the pristine one with `overlay` on it.
    pub fn put(&mut self, overlay: Overlay) -> Result<()> {
        self.tree.sync(&overlay)?;
        self.overlay = overlay;
        Ok(())
    }

    /// Makes the configuration of `flavour`; with `strict`, it has to hold all that the fragments ask for.
    pub fn configure(&self, flavour: Flavour, strict: bool) -> Result<()> {
        let output = self.output(flavour);
        let fragments = flavour.fragments();
        let is_kconfig =
            |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("Kconfig"));
        let kconfig = overlay::digest(&self.overlay, is_kconfig);
        let mut parts = vec![self.source.record.sha256.as_str(), &self.toolchain.id, &kconfig];
        parts.extend(fragments);
        let key = files::digest(parts);
        let (stamp, dot_config) = (output.join("linux-cr.config"), output.join(".config"));
        if fs::read_to_string(&stamp).is_ok_and(|old| old == key) && dot_config.exists() {
            return Ok(());
        }
        let mut step = Step::start(format!("configuration of the {} kernel", flavour.name()));
        files::remove(&stamp)?;
        let scratch = self.dir.join(format!("config-{}", self.toolchain.id));
        fs::create_dir_all(&scratch)?;
        fs::create_dir_all(&output)?;
        self.make(&scratch, &["rustavailable"], "config", &mut step)?;
        self.make(&scratch, &["tinyconfig"], "config", &mut step)?;
        let base = fs::read_to_string(scratch.join(".config"))?;
        files::write_if_changed(&scratch.join(".config"), config::merge(&base, fragments))?;
        self.make(&scratch, &["olddefconfig"], "config", &mut step)?;
        let made = fs::read_to_string(scratch.join(".config"))?;
        if strict {
            config::check(&made, fragments)?;
        }
        files::write_if_changed(&dot_config, made)?;
        files::write_if_changed(&stamp, key)?;
        step.done("made");
        Ok(())
    }

    /// Builds the kernel of `flavour` where anything changed; returns its bzImage.
    pub fn build(&self, flavour: Flavour) -> Result<PathBuf> {
        self.configure(flavour, true)?;
        let output = self.output(flavour);
        let image = output.join("arch/x86/boot/bzImage");
        let dot_config = fs::read(output.join(".config"))?;
        let overlay = overlay::digest(&self.overlay, |_| true);
        let key = files::digest([
            self.source.record.sha256.as_bytes(),
            self.toolchain.id.as_bytes(),
            overlay.as_bytes(),
            &dot_config,
        ]);
        let stamp = output.join("linux-cr.built");
        if fs::read_to_string(&stamp).is_ok_and(|old| old == key) && image.exists() {
            return Ok(image);
        }
        files::remove(&stamp)?;
        if !image.exists() {
            self.ctx.require_space(6)?;
        }
        self.build_targets(flavour, &["bzImage"], &format!("{} kernel", flavour.name()))?;
        files::write_if_changed(&stamp, key)?;
        Ok(image)
    }

    /// Builds `targets` in the output of `flavour`.
    pub fn build_targets(&self, flavour: Flavour, targets: &[&str], what: &str) -> Result<()> {
        // One more: some wait for the disk.
        let jobs = format!("-j{}", self.ctx.jobs + 1);
        let mut args = vec![jobs.as_str()];
        args.extend(targets);
        let mut step = Step::start(what);
        let objects = self.make(&self.output(flavour), &args, &format!("build-{}", flavour.name()), &mut step)?;
        step.done(&format!("{objects} objects built"));
        Ok(())
    }

    /// Runs make; returns how many objects it compiled.
    fn make(&self, output: &Path, args: &[&str], log: &str, step: &mut Step) -> Result<usize> {
        let command = self.toolchain.make(&self.tree.dir, output, args);
        let mut objects = 0;
        process::run(command, &self.ctx.log(log), step, |_, line| {
            let tool = line.split_whitespace().next()?;
            objects += usize::from(["CC", "AS", "RUSTC"].contains(&tool));
            (objects > 0).then(|| format!("{objects} objects"))
        })?;
        Ok(objects)
    }

    /// The kernel of `flavour` as it was linked; there once it has been built.
    pub fn vmlinux(&self, flavour: Flavour) -> PathBuf {
        self.output(flavour).join("vmlinux")
    }

    /// What bindgen made of the headers for the kernel of `flavour`; there once it has been built.
    pub fn bindings(&self, flavour: Flavour) -> PathBuf {
        self.output(flavour).join("rust/bindings/bindings_generated.rs")
    }

    fn output(&self, flavour: Flavour) -> PathBuf {
        self.dir.join(format!("out-{}-{}", flavour.name(), self.toolchain.id))
    }

    /// Which Linux it is.
    pub fn version(&self) -> &str {
        &self.source.record.version
    }

    /// The tree, with the overlay on it.
    pub fn tree(&self) -> &Path {
        &self.tree.dir
    }
}
