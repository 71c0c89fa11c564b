// SPDX-License-Identifier: GPL-2.0

//! The mappings of this process, as the kernel shows them.

use crate::{
    same,
    sys, //
};
use anyhow::{
    ensure,
    Context,
    Result, //
};
use std::fs::File;

/// All mappings at one moment: each line of /proc/self/maps, with the flags of the mapping.
///
/// There is room for two such texts from the beginning, so that looking moves no mapping.
pub struct Maps {
    before: Vec<u8>,
    after: Vec<u8>,
    len: usize,
}

impl Maps {
    /// Most that the kernel's text may take.
    const ROOM: usize = 4 << 20;

    /// Looks at the mappings.
    pub fn read() -> Result<Self> {
        let mut maps = Self {
            before: vec![1; Self::ROOM],
            after: vec![1; Self::ROOM],
            len: 0,
        };
        maps.len = read(&mut maps.before)?;
        Ok(maps)
    }

    /// Requires that they are now what they were.
    pub fn check(mut self) -> Result<()> {
        let len = read(&mut self.after)?;
        let before = lines(&self.before[..self.len])?;
        let after = lines(&self.after[..len])?;
        for (before, after) in before.iter().zip(&after) {
            same("mapping", before, after)?;
        }
        same("number of mappings", before.len(), after.len())
    }
}

fn read(buffer: &mut [u8]) -> Result<usize> {
    let file = File::open("/proc/self/smaps")?;
    let mut len = 0;
    loop {
        ensure!(len < buffer.len(), "no room for all mappings");
        match sys::read(&file, &mut buffer[len..])? {
            0 => return Ok(len),
            n => len += n,
        }
    }
}

/// One line for each mapping: that of maps, and the flags.
fn lines(text: &[u8]) -> Result<Vec<String>> {
    let mut found: Vec<String> = Vec::new();
    for line in std::str::from_utf8(text)?.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if !first.ends_with(':') {
            // Shared anonymous memory and huge pages have a new number after a restart.
            let mut words: Vec<_> = line.split_whitespace().collect();
            let is_shmem = words.get(3) == Some(&"00:01");
            let is_hugetlb = words.get(5) == Some(&"/anon_hugepage");
            if (is_shmem || is_hugetlb) && words.len() > 4 {
                words.remove(4);
            }
            found.push(words.join(" "));
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let last = found.last_mut().context("flags of no mapping")?;
            // What was written since somebody asked is no property of a mapping.
            last.push_str(&flags.replace(" sd", ""));
        }
    }
    ensure!(!found.is_empty(), "smaps shows nothing");
    Ok(found)
}

/// The flags of the mapping at `addr`, two letters each, as in /proc/self/smaps.
pub fn flags_at(addr: *const u8) -> Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/self/smaps")?;
    let prefix = format!("{:08x}-", addr as usize);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&prefix));
    let flags = lines
        .find_map(|line| line.strip_prefix("VmFlags:"))
        .with_context(|| format!("no mapping at {prefix}"))?;
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}
