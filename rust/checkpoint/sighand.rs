// SPDX-License-Identifier: GPL-2.0

//! Signal actions, set while the first process that has them is furnished.
//!
//! Locks: `siglock`, while they are copied.

use kernel::{
    bindings,
    error::to_result,
    prelude::*, //
};

use zerocopy::{
    little_endian::U32,
    IntoBytes, //
};

use crate::{
    hold::Held,
    image::record::{
        Action,
        Sighand, //
    },
    objects::Class,
    save::Saver,
    signals::Locked, //
};

/// Signals that have an action.
const SIGNALS: usize = bindings::_NSIG as usize;

/// Saves the signal actions of `held` unless they have been, and returns their number.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held) -> Result<u32> {
    let mut actions = KVec::with_capacity(SIGNALS, GFP_KERNEL)?;
    let locked = Locked::new(held)?;
    let sighand = locked.sighand();
    if let Some(id) = saver.objects.get(Class::Sighand, sighand) {
        return Ok(id);
    }
    // SAFETY: The lock keeps the actions.
    for (signo, action) in (1..).zip(unsafe { &(*sighand).action }) {
        let sa = &action.sa;
        let (handler, restorer) = (handler_address(sa), restorer_address(sa));
        let (flags, mask) = (sa.sa_flags, sa.sa_mask.sig[0]);
        // That of most signals is the default.
        if (handler, restorer, flags, mask) == (0, 0, 0, 0) {
            continue;
        }
        // There is room: nothing is allocated under the lock.
        let _ = actions.push_within_capacity(Action {
            handler: (handler as u64).into(),
            flags: (flags as u64).into(),
            restorer: (restorer as u64).into(),
            mask: (mask as u64).into(),
            signo: U32::new(signo),
            reserved: 0.into(),
        });
    }
    drop(locked);
    let record = Sighand {
        count: u32::try_from(actions.len())?.into(),
        reserved: 0.into(),
    };
    let id = saver.object(&record, &[actions.as_bytes()])?;
    saver.objects.insert(Class::Sighand, sighand, id)?;
    Ok(id)
}

fn handler_address(sa: &bindings::sigaction) -> usize {
    sa.sa_handler.map_or(0, |handler| handler as usize)
}

fn restorer_address(sa: &bindings::sigaction) -> usize {
    sa.sa_restorer.map_or(0, |restorer| restorer as usize)
}

/// Gives the current task its signal actions.
///
/// # Errors
///
/// What sigaction(2) says.
pub(crate) fn restore(actions: &[Action]) -> Result {
    // SAFETY: The current task is valid. It has those of the restarter, and nobody who shares
    // them handles a signal before the tree runs.
    unsafe { bindings::flush_signal_handlers(bindings::get_current(), 1) };
    for action in actions {
        let signo = i32::try_from(action.signo.get())?;
        // SAFETY: All zeroes is a valid action. Addresses are those of user space, which the kernel
        // never calls: it only hands them to the task. An option of a function is as large as an
        // address, and null is none.
        let mut new = unsafe {
            let mut new: bindings::k_sigaction = core::mem::zeroed();
            new.sa.sa_handler = core::mem::transmute::<usize, Option<unsafe extern "C" fn(i32)>>(
                usize::try_from(action.handler.get())?,
            );
            new.sa.sa_restorer = core::mem::transmute::<usize, Option<unsafe extern "C" fn()>>(
                usize::try_from(action.restorer.get())?,
            );
            new.sa.sa_flags = usize::try_from(action.flags.get())?;
            new.sa.sa_mask.sig[0] = usize::try_from(action.mask.get())?;
            new
        };
        // SAFETY: `new` is a valid action.
        to_result(unsafe { bindings::do_sigaction(signo, &mut new, core::ptr::null_mut()) })?;
    }
    Ok(())
}
