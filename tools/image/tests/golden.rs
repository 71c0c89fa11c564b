// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Images of released versions stay readable, and the writer still writes the same bytes.

mod common;

use std::{
    fs,
    path::PathBuf, //
};

fn golden() -> [(PathBuf, Vec<u8>); 2] {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    [
        (folder.join("v1-minimal.img"), common::minimal()),
        (folder.join("v1-tree.img"), common::tree()),
    ]
}

#[test]
fn golden_images_are_read() {
    for (path, _) in golden() {
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() < 64 << 10);
        common::verify(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn golden_images_are_written() {
    for (path, bytes) in golden() {
        assert!(
            fs::read(&path).unwrap() == bytes,
            "{} is another",
            path.display()
        );
    }
}

#[test]
#[ignore = "writes the golden images anew, which breaks whoever has images of that version"]
fn write_golden_images() {
    for (path, bytes) in golden() {
        fs::write(path, bytes).unwrap();
    }
}
