// SPDX-License-Identifier: GPL-2.0

//! Sorting, by the kernel's sort(): that of the core library is compiled anew for each type, to 4 KiB.
//! It is faster, which shows only where a list is long and in no order, in `hold.rs` and `mm.rs`.

use core::{
    mem::size_of,
    ptr, //
};

use kernel::{
    bindings,
    ffi::{
        c_int,
        c_void, //
    }, //
};

/// Sorts `items` by what `key` says of each. Those that are equal may change places.
pub(crate) fn by_key<T, K: Ord, F: Fn(&T) -> K>(items: &mut [T], key: F) {
    // As most are.
    if items.is_sorted_by_key(&key) {
        return;
    }
    // SAFETY: There are so many items of that size, which are swapped as any value may be. The
    // function is the one for their type and for that of `key`, which outlives the call.
    unsafe {
        bindings::sort_r(
            items.as_mut_ptr().cast(),
            items.len(),
            size_of::<T>(),
            Some(compare::<T, K, F>),
            None,
            ptr::from_ref(&key).cast(),
        )
    };
}

/// # Safety
///
/// `a` and `b` are two of the items of [`by_key`], `key` is its argument.
unsafe extern "C" fn compare<T, K: Ord, F: Fn(&T) -> K>(
    a: *const c_void,
    b: *const c_void,
    key: *const c_void,
) -> c_int {
    // SAFETY: By the safety requirements.
    let (a, b, key) = unsafe { (&*a.cast::<T>(), &*b.cast::<T>(), &*key.cast::<F>()) };
    key(a).cmp(&key(b)) as c_int
}
