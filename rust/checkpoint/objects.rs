// SPDX-License-Identifier: GPL-2.0

//! What is known of kernel objects by their addresses: numbers of the objects of an image, each of
//! which is saved once, however many refer to it, and the like.
//!
//! Whoever adds an object sees to it that it lives until the plan is complete: a held task keeps its
//! own, [`Saver::keep`](crate::save::Saver::keep) keeps files.

use kernel::prelude::*;

/// What an address stands for, since one address may start several objects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Mm,
    Files,
    Fs,
    Sighand,
    Cred,
    Seccomp,
    File,
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
    /// The `struct io_ring_ctx` of an io_uring, 0 for one that was refused.
    Ring,
}

/// What is known of one object.
#[derive(Clone, Copy)]
struct Known<V> {
    class: Class,
    address: usize,
    value: V,
}

/// Something known of each of some objects.
///
/// A hash table without chains: tens of thousands of descriptors take a look each, several times.
///
/// # Invariants
///
/// There are as many slots as a power of two, or none. Even with `room` objects more, at least a
/// quarter of them is free. Of the objects, each is in the first slot, from [`Self::start`] on and
/// around, that was free.
pub(crate) struct Objects<V = u32> {
    slots: KVVec<Option<Known<V>>>,
    room: usize,
}

impl<V: Copy> Objects<V> {
    pub(crate) fn new() -> Self {
        // INVARIANT: There are no slots.
        Self {
            slots: KVVec::new(),
            room: 0,
        }
    }

    /// What is known of an object.
    pub(crate) fn get<T>(&self, class: Class, object: *const T) -> Option<V> {
        self.get_addr(class, object.addr())
    }

    /// The same of the object at an address.
    pub(crate) fn get_addr(&self, class: Class, address: usize) -> Option<V> {
        let slot = self.find(class, address)?;
        self.slots.get(slot)?.map(|known| known.value)
    }

    /// Notes something of an object, in place of what was known. The object must stay alive until
    /// the image is complete, or its address could come to mean another one. Returns whether it is
    /// new.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn insert<T>(&mut self, class: Class, object: *const T, value: V) -> Result<bool> {
        let (known, new) = self.get_or_insert(class, object, value)?;
        *known = value;
        Ok(new)
    }

    /// What is known of an object, to be changed: `value`, if that was nothing. Returns whether it
    /// is new.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn get_or_insert<T>(
        &mut self,
        class: Class,
        object: *const T,
        value: V,
    ) -> Result<(&mut V, bool)> {
        if self.room == 0 {
            self.grow()?;
        }
        let address = object.addr();
        let slot = self.find(class, address).ok_or(EINVAL)?;
        let slot = self.slots.get_mut(slot).ok_or(EINVAL)?;
        let new = slot.is_none();
        self.room -= usize::from(new);
        // INVARIANT: There was room for this one, and it goes where it is looked for.
        let known = slot.get_or_insert(Known {
            class,
            address,
            value,
        });
        Ok((&mut known.value, new))
    }

    /// The slot of an object, or the free one where it would go; `None` when there are no slots.
    fn find(&self, class: Class, address: usize) -> Option<usize> {
        let last = self.slots.len().checked_sub(1)?;
        let mut slot = self.start(class, address);
        // By the type invariant there is an end to it.
        while let Some(Some(known)) = self.slots.get(slot) {
            if known.address == address && known.class == class {
                break;
            }
            slot = (slot + 1) & last;
        }
        Some(slot)
    }

    /// Where the search for an object starts.
    fn start(&self, class: Class, address: usize) -> usize {
        // As hash_64() of the kernel does it: the upper bits depend on all bits.
        let hash = address
            .wrapping_add(class as usize)
            .wrapping_mul(0x61c8_8646_80b5_83eb);
        let bits = self.slots.len().trailing_zeros();
        hash.checked_shr(usize::BITS - bits).unwrap_or(0)
    }

    #[cold]
    fn grow(&mut self) -> Result {
        // By so much that not all is moved often.
        let len = (self.slots.len() * 4).max(64);
        let slots = KVVec::from_elem(None, len, GFP_KERNEL)?;
        // INVARIANT: Three quarters of the slots that there were are in use. So many slots have room
        // for all, which find their places anew.
        self.room = len / 4 * 3 - self.slots.len() / 4 * 3;
        let before = core::mem::replace(&mut self.slots, slots);
        for known in before.iter().flatten() {
            let slot = self.find(known.class, known.address).ok_or(EINVAL)?;
            *self.slots.get_mut(slot).ok_or(EINVAL)? = Some(*known);
        }
        Ok(())
    }
}
