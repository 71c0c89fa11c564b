// SPDX-License-Identifier: GPL-2.0
//! The guest's first file system: `/init`, the tools in `/bin`, the selftests in `/selftests`.

use crate::context::Context;
use crate::files;
use crate::userspace::Program;
use anyhow::Context as _;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// The selftest program that runs as the guest's init.
const INIT: &str = "selftest-init";

const DIRECTORIES: [&str; 9] = ["bin", "selftests", "dev", "proc", "sys", "tmp", "run", "scratch", "debian"];

/// Writes the archive and returns its path.
pub fn build(ctx: &Context, programs: &[Program]) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for dir in DIRECTORIES {
        archive.add(dir, 0o040_755, (0, 0), &[]);
    }
    archive.add("dev/console", 0o020_600, (5, 1), &[]);
    programs
        .iter()
        .find(|program| program.name == INIT)
        .with_context(|| format!("selftests/ has no program {INIT}"))?;
    for program in programs {
        let name = match program.name.as_str() {
            INIT => "init".to_owned(),
            name if program.is_selftest => format!("selftests/{name}"),
            name => format!("bin/{name}"),
        };
        let bytes = fs::read(&program.path).with_context(|| program.path.display().to_string())?;
        archive.add(&name, 0o100_755, (0, 0), &bytes);
    }
    let path = ctx.work.join("initramfs.cpio");
    files::write_if_changed(&path, archive.finish())?;
    Ok(path)
}

/// A cpio archive in the form "newc"; equal contents make equal archives.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds an entry of which `mode` says the type; `device` is (major, minor) of a device node.
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.inode += 1;
        self.entry(name, [self.inode, mode, 0, 0, 1, 0, contents.len() as u32, 0, 0, device.0, device.1], contents);
    }

    fn entry(&mut self, name: &str, fields: [u32; 11], contents: &[u8]) {
        self.bytes.extend(b"070701");
        for field in fields.into_iter().chain([name.len() as u32 + 1, 0]) {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", [0; 11], &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_archive_is_closed() {
        let mut archive = Archive::default();
        archive.add("init", 0o100_755, (0, 0), b"hello");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"070701000000010000"));
        let name_end = 110 + "init\0".len();
        let data = name_end.next_multiple_of(4);
        assert_eq!(&bytes[data..data + 5], b"hello");
        assert_eq!(&bytes[(data + 5).next_multiple_of(4)..][..6], b"070701");
        assert_eq!(bytes.len() % 4, 0);
    }
}
