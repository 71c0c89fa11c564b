// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The stream format of checkpoint(2) and restart(2), for user space.
//!
//! The files are those that build into the kernel, under the same conditions.

#![no_std]
#![forbid(unsafe_code)]

#[path = "../../../rust/image/mod.rs"]
mod image;

pub use image::*;
