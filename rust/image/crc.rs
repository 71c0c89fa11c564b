// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Checksums. They detect damage; they authenticate nothing.

use core::marker::PhantomData;

/// The polynomial arithmetic of CRC-32C (Castagnoli), which comes from outside: the kernel and the
/// tools each have a fast one of their own.
pub trait Crc32c {
    /// Updates the raw remainder `crc` by `data`, without inverting it before or after, as Linux's
    /// `crc32c()` does.
    fn crc32c(crc: u32, data: &[u8]) -> u32;
}

/// A CRC-32C in the making.
pub struct Checksum<C: Crc32c>(u32, PhantomData<C>);

impl<C: Crc32c> Checksum<C> {
    /// Returns the checksum of nothing.
    pub const fn new() -> Self {
        Self(!0, PhantomData)
    }

    /// Returns the checksum of `data`.
    pub fn of(data: &[u8]) -> u32 {
        let mut sum = Self::new();
        sum.update(data);
        sum.finish()
    }

    /// Appends `data`.
    pub fn update(&mut self, data: &[u8]) {
        self.0 = C::crc32c(self.0, data);
    }

    /// Returns the CRC-32C of everything appended so far, which may go on.
    pub fn finish(&self) -> u32 {
        !self.0
    }
}

impl<C: Crc32c> Default for Checksum<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Crc32c> Clone for Checksum<C> {
    fn clone(&self) -> Self {
        Self(self.0, PhantomData)
    }
}
