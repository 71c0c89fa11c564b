// SPDX-License-Identifier: GPL-2.0

//! Numbers and bits of which the kernel and an image each have their own, by tables with a row for
//! each: the kernel's, the image's.

use kernel::prelude::*;

/// Numbers, of which there is one at a time.
pub(crate) struct Numbers(pub(crate) &'static [(u32, u32)]);

impl Numbers {
    /// The number in the image for one of the kernel's, if there is one.
    pub(crate) fn to_image(&self, kernel: u32) -> Option<u32> {
        let row = self.0.iter().find(|(other, _)| *other == kernel)?;
        Some(row.1)
    }

    /// And back.
    ///
    /// # Errors
    ///
    /// `EINVAL` when it is none of the table.
    pub(crate) fn to_kernel(&self, image: u32) -> Result<u32> {
        let row = self.0.iter().find(|(_, other)| *other == image);
        Ok(row.ok_or(EINVAL)?.0)
    }
}

/// Bits, any of which may be set. Each is in one row; those that often are come first.
pub(crate) struct Bits(pub(crate) &'static [(u32, u32)]);

impl Bits {
    /// The bits in the image for those of the kernel's, and those that the table does not have.
    pub(crate) fn split(&self, kernel: u32) -> (u32, u32) {
        translate(self.0.iter().copied(), kernel)
    }

    /// The bits in the image, without what the table does not have.
    pub(crate) fn to_image(&self, kernel: u32) -> u32 {
        self.split(kernel).0
    }

    /// The bits in the image, if the table has all that are set.
    pub(crate) fn all_to_image(&self, kernel: u32) -> Option<u32> {
        let (image, rest) = self.split(kernel);
        (rest == 0).then_some(image)
    }

    /// The kernel's bits for those of the image.
    pub(crate) fn to_kernel(&self, image: u32) -> u32 {
        translate(self.0.iter().map(|(bit, of)| (*of, *bit)), image).0
    }
}

/// What `rows` have for the bits that are set, and those that no row has.
fn translate(rows: impl Iterator<Item = (u32, u32)>, bits: u32) -> (u32, u32) {
    let (mut translated, mut rest) = (0, bits);
    for (from, to) in rows {
        if rest == 0 {
            break;
        }
        if rest & from != 0 {
            translated |= to;
            rest &= !from;
        }
    }
    (translated, rest)
}
