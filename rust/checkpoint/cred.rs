// SPDX-License-Identifier: GPL-2.0

//! Credentials: saved in full. At the restart the ids have to be the restarter's, and capabilities are
//! given up until they are those of the image: never gained.

use kernel::{
    bindings,
    prelude::*, //
};

use zerocopy::IntoBytes;

use crate::{
    hold::Held,
    image::record::{
        Cred,
        Group, //
    },
    objects::Class,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// Credentials in the image's form.
struct View {
    record: Cred,
    groups: KVec<Group>,
}

impl View {
    /// # Safety
    ///
    /// `cred` is valid and does not change, as committed credentials never do.
    unsafe fn of(cred: *const bindings::cred) -> Result<Self> {
        let mut groups = KVec::new();
        // SAFETY: By the safety requirement; the caller's user namespace is alive.
        unsafe {
            let ns = (*current_cred()).user_ns;
            let uid = |kuid| bindings::from_kuid(ns, kuid);
            let gid = |kgid| bindings::from_kgid(ns, kgid);
            let info = (*cred).group_info;
            let count = usize::try_from((*info).ngroups)?;
            for group in (*info).gid.as_slice(count) {
                groups.push(
                    Group {
                        gid: gid(*group).into(),
                    },
                    GFP_KERNEL,
                )?;
            }
            let record = Cred {
                uid: uid((*cred).uid).into(),
                euid: uid((*cred).euid).into(),
                suid: uid((*cred).suid).into(),
                fsuid: uid((*cred).fsuid).into(),
                gid: gid((*cred).gid).into(),
                egid: gid((*cred).egid).into(),
                sgid: gid((*cred).sgid).into(),
                fsgid: gid((*cred).fsgid).into(),
                securebits: (*cred).securebits.into(),
                ngroups: u32::try_from(count)?.into(),
                cap_inheritable: (*cred).cap_inheritable.val.into(),
                cap_permitted: (*cred).cap_permitted.val.into(),
                cap_effective: (*cred).cap_effective.val.into(),
                cap_bset: (*cred).cap_bset.val.into(),
                cap_ambient: (*cred).cap_ambient.val.into(),
            };
            Ok(Self { record, groups })
        }
    }
}

/// The credentials of the current task.
fn current_cred() -> *const bindings::cred {
    // SAFETY: The current task is valid, and only it changes its credentials.
    unsafe { (*bindings::get_current()).cred }
}

/// Saves the credentials of `held` unless they have been, and returns their number.
///
/// Returns `None` when something was refused.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held) -> Result<Option<u32>> {
    let place = Place::Task(held.pid());
    // SAFETY: `held` keeps its task; the credentials come with a reference.
    let cred = unsafe { bindings::get_task_cred(held.as_raw()) };
    let _put = kernel::types::ScopeGuard::new(|| {
        // SAFETY: The reference is ours.
        unsafe { bindings::put_cred(cred) }
    });
    if let Some(id) = saver.objects.get(Class::Cred, cred) {
        return Ok(Some(id));
    }
    let own = current_cred();
    // SAFETY: Both are valid.
    unsafe {
        if (*cred).user_ns != (*own).user_ns {
            saver.refuse(
                place,
                fmt!("another user namespace than the caller's: not supported"),
            );
            return Ok(None);
        }
        if !bindings::checkpoint_same_label(cred, own) {
            saver.refuse(
                place,
                fmt!("another security label than the caller's: not supported"),
            );
            return Ok(None);
        }
        #[cfg(CONFIG_KEYS)]
        if (*cred).jit_keyring != 0 {
            saver.refuse(place, fmt!("KEYCTL_SET_REQKEY_KEYRING: not supported"));
            return Ok(None);
        }
        #[cfg(CONFIG_KEYS)]
        if !(*cred).request_key_auth.is_null() {
            saver.refuse(place, fmt!("request-key authority: not supported"));
            return Ok(None);
        }
        #[cfg(CONFIG_KEYS)]
        if !(*cred).thread_keyring.is_null()
            || !(*cred).process_keyring.is_null()
            || (*cred).session_keyring != (*own).session_keyring
        {
            saver.refuse(place, fmt!("keyring: not supported"));
            return Ok(None);
        }
    }
    // SAFETY: The credentials are committed.
    let view = unsafe { View::of(cred) }?;
    let id = saver.object(&view.record, &[view.groups.as_bytes()])?;
    // The task keeps its credentials while it stands still.
    saver.objects.insert(Class::Cred, cred, id)?;
    Ok(Some(id))
}

/// Checks that the restarter has the ids of the image and at least its capabilities.
pub(crate) fn check(record: &Cred, groups: &[Group], report: &mut Report) -> Result {
    // SAFETY: The current task's credentials are committed.
    let own = unsafe { View::of(current_cred()) }?;
    let fields = [
        ("uid", record.uid, own.record.uid),
        ("euid", record.euid, own.record.euid),
        ("suid", record.suid, own.record.suid),
        ("fsuid", record.fsuid, own.record.fsuid),
        ("gid", record.gid, own.record.gid),
        ("egid", record.egid, own.record.egid),
        ("sgid", record.sgid, own.record.sgid),
        ("fsgid", record.fsgid, own.record.fsgid),
        ("securebits", record.securebits, own.record.securebits),
    ];
    for (name, image, own) in fields {
        if image != own {
            let (image, own) = (image.get(), own.get());
            report.problem(
                Place::Tree,
                fmt!("{name} is {image}, the caller's is {own}"),
            );
        }
    }
    let sets = [
        (
            "inheritable",
            record.cap_inheritable,
            own.record.cap_inheritable,
        ),
        ("permitted", record.cap_permitted, own.record.cap_permitted),
        ("effective", record.cap_effective, own.record.cap_effective),
        ("bounding", record.cap_bset, own.record.cap_bset),
        ("ambient", record.cap_ambient, own.record.cap_ambient),
    ];
    for (name, image, own) in sets {
        let more = image.get() & !own.get();
        if more != 0 {
            report.problem(
                Place::Tree,
                fmt!("{name} capabilities {more:#x} are more than the caller has"),
            );
        }
    }
    if groups != own.groups.as_slice() {
        report.problem(
            Place::Tree,
            fmt!("other supplementary groups than the caller's"),
        );
    }
    Ok(())
}

/// Gives up the capabilities that the image does not have, which the current task took over from the
/// restarter. Nothing of the task may need them after that.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn restore(record: &Cred) -> Result {
    // SAFETY: The function acts on the current task; the sets are subsets of its own, see `check`.
    kernel::error::to_result(unsafe {
        bindings::checkpoint_set_caps(
            record.cap_inheritable.get(),
            record.cap_permitted.get(),
            record.cap_effective.get(),
            record.cap_bset.get(),
            record.cap_ambient.get(),
        )
    })
}
