// SPDX-License-Identifier: GPL-2.0

//! Credentials. A restart sets what its caller could set by setresuid(2), setgroups(2), capset(2)
//! and prctl(2), and refuses everything else: a task never has more than the caller may have.
//!
//! Checked with the plan, and set as the last step of furnishing. Tasks that have ended get theirs
//! when they are created.
//!
//! No locks: credentials that are in use do not change.

use core::ptr;

use kernel::{
    bindings,
    error::to_result,
    ffi,
    prelude::*, //
};

use zerocopy::{
    little_endian::U32,
    IntoBytes, //
};

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

/// What one may set without a capability: any of its own.
struct Ids<const N: usize> {
    name: &'static str,
    image: [U32; N],
    own: [U32; N],
    /// Those that the new ones may be taken from.
    from: [U32; 3],
    capability: u32,
}

impl<const N: usize> Ids<N> {
    fn check(&self, report: &mut Report) {
        let may_choose = || {
            // SAFETY: The current task's user namespace is alive.
            unsafe {
                bindings::ns_capable_setid((*current_cred()).user_ns, self.capability as ffi::c_int)
            }
        };
        let known = |id: &U32| self.from.contains(id);
        if self.image != self.own && !self.image.iter().all(known) && !may_choose() {
            let (name, image) = (self.name, self.image.map(|id| id.get()));
            report.problem(
                Place::Tree,
                fmt!("{name} {image:?}: the caller may not set them"),
            );
        }
    }
}

/// Whether `own` are the groups of an image. Those that the user namespace does not have, neither
/// the caller's nor the image's, are all the same in it, and the caller's stay.
fn same_groups(image: &[Group], own: &[Group]) -> bool {
    const NONE: u32 = u32::MAX;
    let unknown = |gid: u32| {
        // SAFETY: The current task's user namespace is alive.
        gid == NONE || !unsafe { bindings::checkpoint_has_gid(gid) }
    };
    image.len() == own.len()
        && image.iter().zip(own).all(|(image, own)| {
            let (image, own) = (image.gid.get(), own.gid.get());
            image == own || (own == NONE && unknown(image))
        })
}

/// Checks that the caller may set these credentials by system calls.
fn check_against(own: &View, record: &Cred, groups: &[Group], report: &mut Report) {
    let (image, own_groups, own) = (record, &own.groups, &own.record);
    Ids {
        name: "user ids",
        image: [image.uid, image.euid, image.suid, image.fsuid],
        own: [own.uid, own.euid, own.suid, own.fsuid],
        from: [own.uid, own.euid, own.suid],
        capability: bindings::CAP_SETUID,
    }
    .check(report);
    Ids {
        name: "group ids",
        image: [image.gid, image.egid, image.sgid, image.fsgid],
        own: [own.gid, own.egid, own.sgid, own.fsgid],
        from: [own.gid, own.egid, own.sgid],
        capability: bindings::CAP_SETGID,
    }
    .check(report);
    // SAFETY: The function looks at the current task.
    if !same_groups(groups, own_groups) && !unsafe { bindings::may_setgroups() } {
        report.problem(
            Place::Tree,
            fmt!("other supplementary groups than the caller's, which may not set them"),
        );
    }

    // SAFETY: The current task's user namespace is alive.
    let may_set_caps = unsafe {
        bindings::ns_capable(
            (*current_cred()).user_ns,
            bindings::CAP_SETPCAP as ffi::c_int,
        )
    };
    let inheritable = own.cap_inheritable.get();
    // What PR_CAP_AMBIENT raises, which it does not when that is switched off.
    let ambient = if own.securebits.get() & NO_AMBIENT_RAISE == 0 {
        u64::MAX
    } else {
        own.cap_ambient.get()
    };
    let gained = if may_set_caps {
        own.cap_bset.get()
    } else {
        own.cap_bset.get() & own.cap_permitted.get()
    };
    let sets = [
        ("permitted", image.cap_permitted, own.cap_permitted.get()),
        ("inheritable", image.cap_inheritable, inheritable | gained),
        ("bounding", image.cap_bset, own.cap_bset.get()),
        ("ambient", image.cap_ambient, ambient),
    ];
    for (name, image, most) in sets {
        let more = image.get() & !most;
        if more != 0 {
            report.problem(
                Place::Tree,
                fmt!("{name} capabilities {more:#x} are more than the caller may set"),
            );
        }
    }
    if image.cap_bset != own.cap_bset && !may_set_caps {
        report.problem(
            Place::Tree,
            fmt!("another set of bounding capabilities than the caller's, which may not set it"),
        );
    }
    check_securebits(
        own.securebits.get(),
        image.securebits.get(),
        may_set_caps,
        report,
    );
}

/// SECBIT_NO_CAP_AMBIENT_RAISE.
const NO_AMBIENT_RAISE: u32 = 1 << 6;

/// The second of each two bits, which locks the first.
const LOCKS: u32 = 0xaaa;

/// SECBIT_KEEP_CAPS, which PR_SET_KEEPCAPS sets.
const KEEP_CAPS: u32 = 1 << 4;

/// Bits that are only a convention of user space, and their locks.
const CONVENTIONS: u32 = 0xf00;

/// As PR_SET_SECUREBITS checks them, and PR_SET_KEEPCAPS.
fn check_securebits(own: u32, image: u32, may_set_caps: bool, report: &mut Report) {
    let changed = own ^ image;
    let locked = (own & LOCKS) >> 1 & changed != 0 || own & LOCKS & !image != 0;
    let free = CONVENTIONS | KEEP_CAPS;
    if locked || (changed & !free != 0 && !may_set_caps) {
        report.problem(
            Place::Tree,
            fmt!("securebits {image:#x}: the caller's are {own:#x}, and it may not set them"),
        );
    }
}

/// Checks that the caller may give these credentials to the tasks that it creates.
pub(crate) fn check(record: &Cred, groups: &[Group], report: &mut Report) -> Result {
    // SAFETY: The current task's credentials are committed.
    let own = unsafe { View::of(current_cred()) }?;
    check_against(&own, record, groups, report);
    Ok(())
}

/// Gives the current task, which has those of the restarter, the credentials of the image. Nothing
/// of the task may need what it gives up after that.
///
/// # Errors
///
/// `EINVAL` for an id that the user namespace does not have; what security modules say; `ENOMEM`.
pub(crate) fn restore(record: &Cred, groups: &[Group]) -> Result {
    // SAFETY: The current task's credentials are committed.
    let own = unsafe { View::of(current_cred()) }?;
    let same_groups = same_groups(groups, &own.groups);
    if record.as_bytes() == own.record.as_bytes() && same_groups {
        return Ok(());
    }
    let mut ids = KVec::new();
    for group in groups {
        ids.push(group.gid.get(), GFP_KERNEL)?;
    }
    let wanted = bindings::checkpoint_cred {
        uid: record.uid.get(),
        euid: record.euid.get(),
        suid: record.suid.get(),
        fsuid: record.fsuid.get(),
        gid: record.gid.get(),
        egid: record.egid.get(),
        sgid: record.sgid.get(),
        fsgid: record.fsgid.get(),
        securebits: record.securebits.get(),
        ngroups: record.ngroups.get(),
        groups: if same_groups {
            ptr::null()
        } else {
            ids.as_ptr()
        },
        inheritable: record.cap_inheritable.get(),
        permitted: record.cap_permitted.get(),
        effective: record.cap_effective.get(),
        bset: record.cap_bset.get(),
        ambient: record.cap_ambient.get(),
    };
    // SAFETY: The function acts on the current task; there are as many groups as it is told. The
    // caller of restart(2) may set all of it, see `check`.
    to_result(unsafe { bindings::checkpoint_set_cred(&wanted) })
}
