// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Showing and verifying images.

mod json;
mod text;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{
        self,
        BufReader,
        Read,
        Write, //
    },
    path::Path,
    process::ExitCode, //
};

use anyhow::Context;
use checkpoint::{
    compress::reader,
    progress::Size,
    stream::{
        read_pages,
        slots,
        Image,
        Whole, //
    },
    Error, //
};
use checkpoint_image::{
    Extent,
    ImageError,
    Objects, //
};

/// What the chunks hold of an object.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pages: u64,
    extents: Vec<(u64, u64)>,
}

impl Contents {
    fn add(&mut self, extents: &[Extent]) {
        for extent in extents {
            let (start, pages) = (extent.addr.get(), u64::from(extent.pages.get()));
            self.pages += pages;
            match self.extents.last_mut() {
                Some((last, length)) if *last + *length * 4096 == start => *length += pages,
                _ => self.extents.push((start, pages)),
            }
        }
    }

    /// Returns the number of pages between two bytes.
    fn pages_in(&self, start: u64, end: u64) -> u64 {
        let first = self
            .extents
            .partition_point(|(at, pages)| at + pages * 4096 <= start);
        self.extents
            .iter()
            .skip(first)
            .take_while(|(at, _)| *at < end)
            .map(|(at, pages)| ((at + pages * 4096).min(end) - start.max(*at)) / 4096)
            .sum()
    }
}

fn open(path: &Path) -> anyhow::Result<Box<dyn Read>> {
    let image = if path == Path::new("-") {
        reader(io::stdin().lock())
    } else {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        reader(BufReader::with_capacity(1 << 20, file))
    };
    image.with_context(|| format!("cannot read {}", name(path)))
}

fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

/// Writes all of `text`; a reader that has seen enough is none of our business.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write"),
    }
}

pub fn show(path: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let mut from = open(path)?;
    let name = name(path);
    let image = Image::read(&mut from).with_context(|| name.clone())?;
    let plan = image
        .plan()
        .map_err(Error::from)
        .with_context(|| name.clone())?;
    let mut slots = slots(&plan);
    let objects = Objects::new(&plan, &mut slots)
        .map_err(Error::from)
        .with_context(|| name.clone())?;
    let mut contents = BTreeMap::<u32, Contents>::new();
    let whole = read_pages(&mut from, &plan, &objects, |chunk, _| {
        contents.entry(chunk.id).or_default().add(chunk.extents);
    });
    // A defect in the pages leaves the plan as good as it is.
    let text = if json {
        json::image(&plan, &contents, whole.as_ref().ok())
    } else {
        text::image(&plan, &objects, &contents, whole.as_ref().ok())
    };
    print(&text)?;
    whole.with_context(|| name)?;
    Ok(ExitCode::SUCCESS)
}

pub fn verify(path: &Path, quiet: bool) -> anyhow::Result<ExitCode> {
    let name = name(path);
    let mut from = open(path)?;
    let whole = whole(&mut from).with_context(|| name.clone())?;
    if !quiet {
        print(&format!(
            "{name}: good: {} records, {} pages in {} chunks, {}\n",
            whole.records,
            whole.pages,
            whole.chunks,
            Size(whole.bytes),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn whole(from: &mut dyn Read) -> Result<Whole, Error> {
    let mut from = from;
    let image = Image::read(&mut from)?;
    let plan = image.plan()?;
    let mut slots = slots(&plan);
    let objects = Objects::new(&plan, &mut slots)?;
    let whole = read_pages(&mut from, &plan, &objects, |_, _| ())?;
    if from.read(&mut [0])? != 0 {
        return Err(ImageError::MalformedHeader("something follows the trailer").into());
    }
    Ok(whole)
}
