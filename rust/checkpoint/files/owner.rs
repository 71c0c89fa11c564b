// SPDX-License-Identifier: GPL-2.0

//! Who gets signals about an open file: F_SETOWN, F_SETSIG, O_ASYNC. Set by the coordinator, after
//! leases, which have an owner of their own.
//!
//! Locks: that of the owner, inside the functions of C only.

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    task::Pid, //
};

use crate::{
    files::Name,
    image::record::{
        owner_flags,
        owner_kind,
        Owner, //
    },
    numbers::Numbers,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// Kinds of numbers, and what the image calls them.
const KINDS: Numbers = Numbers(&[
    (bindings::pid_type_PIDTYPE_PID, owner_kind::TASK),
    (bindings::pid_type_PIDTYPE_TGID, owner_kind::PROCESS),
    (bindings::pid_type_PIDTYPE_PGID, owner_kind::GROUP),
]);

fn owner_of(file: &File) -> Option<bindings::checkpoint_owner> {
    let mut owner = bindings::checkpoint_owner {
        type_: bindings::pid_type_PIDTYPE_TGID,
        ..Default::default()
    };
    // SAFETY: `file` is valid.
    unsafe { bindings::checkpoint_get_owner(file.as_ptr(), &mut owner) }.then_some(owner)
}

/// Whether anything of this was ever set for `file`.
pub(crate) fn has_any(file: &File) -> bool {
    owner_of(file).is_some()
}

/// Saves who gets signals about `file`, which has the number `id` and is known as descriptor `fd`.
pub(crate) fn save(
    saver: &mut Saver<'_>,
    place: Place,
    file: &File,
    id: u32,
    fd: Option<u32>,
) -> Result {
    let Some(owner) = owner_of(file) else {
        return Ok(());
    };
    let kind = KINDS.to_image(owner.type_).ok_or(EINVAL)?;
    if owner.pid != 0 && !inside(saver, kind, owner.pid) {
        saver.refuse(
            place,
            fmt!(
                "signal owner {} (F_SETOWN), which is outside the tree: not supported",
                owner.pid
            ),
        );
        return Ok(());
    }
    let record = Owner {
        file: id.into(),
        flags: if owner.async_ { owner_flags::ASYNC } else { 0 }.into(),
        kind: kind.into(),
        pid: owner.pid.into(),
        signum: u32::try_from(owner.signum)?.into(),
        uid: owner.uid.into(),
        euid: owner.euid.into(),
        fd: fd.unwrap_or(0).into(),
    };
    saver.put(&record, &[])
}

/// Whether a thread, process or group belongs to the tree.
fn inside(saver: &Saver<'_>, kind: u32, pid: Pid) -> bool {
    match kind {
        owner_kind::TASK => saver.is_task(pid),
        _ => saver.is_process(pid),
    }
}

/// Sets who gets signals about `file` as a record says.
///
/// # Errors
///
/// What fcntl(2) says, with a line in the report.
pub(crate) fn restore(record: &Owner, file: &File, report: &mut Report) -> Result {
    let owner = bindings::checkpoint_owner {
        type_: KINDS.to_kernel(record.kind.get())?,
        pid: record.pid.get(),
        signum: i32::try_from(record.signum.get())?,
        uid: record.uid.get(),
        euid: record.euid.get(),
        async_: record.flags.get() & owner_flags::ASYNC != 0,
    };
    let fd = i32::try_from(record.fd.get())?;
    // SAFETY: `file` is valid; the function looks the number up as the caller would.
    let set = to_result(unsafe { bindings::checkpoint_set_owner(file.as_ptr(), &owner, fd) });
    set.inspect_err(|err| {
        let (name, pid) = (Name(file), owner.pid);
        report.problem(
            Place::Tree,
            fmt!("file {name}: signal owner {pid} (F_SETOWN): {err:?}"),
        );
    })
}
