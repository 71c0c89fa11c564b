// SPDX-License-Identifier: GPL-2.0

//! Numbers for the objects of an image: each kernel object is saved once, however many refer to it.
//!
//! An object is known by its address. So whoever adds one sees to it that it lives until the plan
//! is complete: a held task keeps its own, [`Saver::keep`](crate::save::Saver::keep) keeps files.

use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

/// What an address stands for, since one address may start several objects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    Mm,
    Files,
    Fs,
    Sighand,
    Cred,
    Seccomp,
    File,
    /// An open file that was refused.
    Refused,
    Pipe,
    Shmem,
    Sock,
    Hugetlb,
    AnonName,
    MemPolicy,
    Task,
    Unnamed,
    Pty,
    Process,
    /// The `struct pid` of a task that has been reaped.
    Reaped,
}

/// Objects seen so far, by identity.
pub(crate) struct Objects {
    seen: RBTree<(Class, usize), u32>,
}

impl Objects {
    pub(crate) fn new() -> Self {
        Self {
            seen: RBTree::new(),
        }
    }

    /// The number of an object that has been saved.
    pub(crate) fn get<T>(&self, class: Class, object: *const T) -> Option<u32> {
        self.seen.get(&(class, object.addr())).copied()
    }

    /// Remembers that `object` was saved under `id`. The object must stay alive until the image is
    /// complete, or its address could come to mean another one. Returns whether it is new.
    pub(crate) fn insert<T>(&mut self, class: Class, object: *const T, id: u32) -> Result<bool> {
        let key = (class, object.addr());
        let before = self.seen.try_create_and_insert(key, id, GFP_KERNEL)?;
        Ok(before.is_none())
    }
}
