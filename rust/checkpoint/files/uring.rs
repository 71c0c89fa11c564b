// SPDX-License-Identifier: GPL-2.0

//! Rings of io_uring that nothing is in flight on. Workers of io_uring have nothing of their own
//! then: they are not part of the tree, and come back when there is something to do.
//!
//! Whether anything is in flight is looked at before all else, as a worker, which nobody stops, could
//! change what has been saved. State and memory of a ring, and who has used it, are saved when all
//! tasks are in the plan.
//!
//! A restart makes a ring before any task exists. It gets its state and memory when all tasks do, as
//! it refers to some, and before it can be mapped or polled. Each task notes for itself that it uses
//! a ring.
//!
//! Locks: `uring_lock` of a ring; its `tctx_lock`; while a mapping is looked at, the `mmap_lock` of
//! the ring, then page table locks.

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use zerocopy::IntoBytes;

use crate::{
    files::{
        self,
        survey::Saved, //
    },
    hold::{
        Held,
        Still, //
    },
    image::{
        record::{
            uring_region,
            uring_setup,
            uring_state,
            FileUring,
            UringMemory,
            UringState,
            UringUser, //
        },
        RecordRef, //
    },
    numbers::Bits,
    objects::Class,
    plan::Opening,
    report::{
        Place,
        Report, //
    },
    save::{
        Later,
        Saver, //
    },
    stream::interrupted, //
};

/// Flags of io_uring_setup(2), and their bits in the image.
const SETUP: Bits = Bits(&[
    (bindings::IORING_SETUP_R_DISABLED, uring_setup::R_DISABLED),
    (bindings::IORING_SETUP_SUBMIT_ALL, uring_setup::SUBMIT_ALL),
    (
        bindings::IORING_SETUP_COOP_TASKRUN,
        uring_setup::COOP_TASKRUN,
    ),
    (
        bindings::IORING_SETUP_TASKRUN_FLAG,
        uring_setup::TASKRUN_FLAG,
    ),
    (bindings::IORING_SETUP_SQE128, uring_setup::SQE128),
    (bindings::IORING_SETUP_CQE32, uring_setup::CQE32),
    (
        bindings::IORING_SETUP_SINGLE_ISSUER,
        uring_setup::SINGLE_ISSUER,
    ),
    (
        bindings::IORING_SETUP_DEFER_TASKRUN,
        uring_setup::DEFER_TASKRUN,
    ),
    (bindings::IORING_SETUP_NO_SQARRAY, uring_setup::NO_SQARRAY),
    (bindings::IORING_SETUP_CQE_MIXED, uring_setup::CQE_MIXED),
    (bindings::IORING_SETUP_SQE_MIXED, uring_setup::SQE_MIXED),
    (bindings::IORING_SETUP_SQ_REWIND, uring_setup::SQ_REWIND),
]);

/// Flags that only say how others were meant when the ring was made, or that are refused by name.
const SETUP_PASSED: u32 = bindings::IORING_SETUP_CQSIZE
    | bindings::IORING_SETUP_CLAMP
    | bindings::IORING_SETUP_IOPOLL
    | bindings::IORING_SETUP_HYBRID_IOPOLL
    | bindings::IORING_SETUP_SQPOLL
    | bindings::IORING_SETUP_SQ_AFF
    | bindings::IORING_SETUP_ATTACH_WQ
    | bindings::IORING_SETUP_NO_MMAP
    | bindings::IORING_SETUP_REGISTERED_FD_ONLY;

/// How often it is looked at whether a request is still in flight, and how long after each time.
const WAITS: usize = 20;
const WAIT_MS: u32 = 5;

/// Bytes of memory in one record.
const PART: usize = 1 << 16;

/// Flags of mappings of a ring, which mapping it makes.
pub(crate) const VMA_FLAGS: u64 =
    1 << bindings::VMA_MIXEDMAP_BIT | 1 << bindings::VMA_DONTEXPAND_BIT;

/// Whether `file` is a ring.
pub(crate) fn is_ring(file: &File) -> bool {
    // SAFETY: `file` is valid.
    unsafe { bindings::checkpoint_is_ring(file.as_ptr()) }
}

/// Every ring.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    is_ring(file)
}

/// How many requests of `held` are in flight.
fn requests(held: &Held) -> i64 {
    match held.state() {
        Still::Zombie => 0,
        // SAFETY: `held` keeps its task.
        _ => unsafe { bindings::checkpoint_uring_requests(held.as_raw()) },
    }
}

/// Waits a moment for requests of `tasks` that are in flight, and refuses those that remain.
///
/// # Errors
///
/// `EINTR`.
pub(crate) fn check(saver: &mut Saver<'_>, tasks: &[Held]) -> Result {
    let mut waits = 0..WAITS;
    for held in tasks {
        while requests(held) != 0 && waits.next().is_some() {
            interrupted()?;
            // SAFETY: This is a context that may sleep, no spinlock is held.
            unsafe { bindings::msleep(WAIT_MS) };
        }
        let requests = requests(held);
        if requests != 0 {
            saver.refuse(
                Place::Task(held.pid()),
                fmt!("io_uring: {requests} requests in flight: not supported"),
            );
        }
    }
    Ok(())
}

/// Saves how a ring was set up; its state follows when all tasks are known.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let (mut flags, mut sq_entries, mut cq_entries) = (0, 0, 0);
    // SAFETY: `file` is a ring; the names are constants.
    let blocked = unsafe {
        bindings::checkpoint_ring_setup(
            file.as_ptr(),
            &mut flags,
            &mut sq_entries,
            &mut cq_entries,
        );
        let mut at = 0;
        let mut blocked = false;
        loop {
            let name = bindings::checkpoint_ring_blocker(file.as_ptr(), &mut at);
            if name.is_null() {
                break blocked;
            }
            let name = CStr::from_char_ptr(name);
            saver.refuse(place, fmt!("io_uring: {name}: not supported"));
            blocked = true;
        }
    };
    let (setup, unknown) = SETUP.split(flags & !SETUP_PASSED);
    if unknown != 0 {
        saver.refuse(
            place,
            fmt!("io_uring: setup flags {unknown:#x}: not supported"),
        );
    }
    // SAFETY: `file` is a ring.
    let ring = unsafe { bindings::checkpoint_ring(file.as_ptr()) };
    if blocked || unknown != 0 {
        saver.objects.insert(Class::Ring, ring, 0)?;
        return Ok(None);
    }
    let record = FileUring {
        flags: files::image_flags(file).into(),
        setup: setup.into(),
        sq_entries: sq_entries.into(),
        cq_entries: cq_entries.into(),
    };
    let id = saver.object(&record, &[])?;
    saver.objects.insert(Class::Ring, ring, id)?;
    saver.later(save_state, place, file, id)?;
    Ok(Some(id))
}

/// Refuses a mapping that could not be made again; returns whether it could.
///
/// # Safety
///
/// `vma` is a mapping of a ring, in an address space that is locked.
pub(crate) unsafe fn check_mapping(
    saver: &mut Saver<'_>,
    place: Place,
    vma: *mut bindings::vm_area_struct,
) -> bool {
    // SAFETY: By the safety requirement; the names are constants.
    let blocker = unsafe { bindings::checkpoint_ring_vma_blocker(vma) };
    if blocker.is_null() {
        return true;
    }
    // SAFETY: As above.
    let blocker = unsafe { CStr::from_char_ptr(blocker) };
    saver.refuse(place, fmt!("io_uring: {blocker}: not supported"));
    false
}

/// Saves state, users and memory of a ring.
fn save_state(saver: &mut Saver<'_>, later: &Later) -> Result {
    let place = later.place;
    let mut ring = bindings::checkpoint_ring::default();
    // SAFETY: The file is a ring.
    to_result(unsafe { bindings::checkpoint_get_ring(later.file.as_ptr(), &mut ring) })?;
    if ring.requests != 0 {
        let requests = ring.requests;
        saver.refuse(
            place,
            fmt!("io_uring: {requests} requests in flight: not supported"),
        );
    }
    if ring.issued && !saver.is_task(ring.issuer) {
        saver.refuse(
            place,
            fmt!("io_uring: its only issuer is not in the tree: not supported"),
        );
    }
    if ring.accounted && ring.uid == u32::MAX {
        saver.refuse(
            place,
            fmt!("io_uring: owner without a number: not supported"),
        );
    }
    let users = save_users(saver, later)?;
    let state = [
        (ring.dropped, uring_state::DROPPED),
        (ring.drain_next, uring_state::DRAIN_NEXT),
        (ring.drain_active, uring_state::DRAIN_ACTIVE),
        (ring.drain_disabled, uring_state::DRAIN_DISABLED),
        (ring.boottime, uring_state::BOOTTIME),
        (ring.limited, uring_state::LIMITED),
        (ring.accounted, uring_state::ACCOUNTED),
    ];
    let state = state
        .iter()
        .filter(|(is, _)| *is)
        .fold(0, |state, (_, bit)| state | bit);
    let record = UringState {
        ring: later.id.into(),
        state: state.into(),
        sq_head: ring.sq_head.into(),
        cq_tail: ring.cq_tail.into(),
        max_bounded: ring.limits[0].into(),
        max_unbounded: ring.limits[1].into(),
        uid: ring.uid.into(),
        issuer: ring.issuer.into(),
        // That of a process that has ended is nobody's.
        mm: saver
            .objects
            .get_addr(Class::Mm, ring.mm.addr())
            .unwrap_or(0)
            .into(),
        count: u32::try_from(users.len())?.into(),
    };
    saver.put(&record, &[users.as_bytes()])?;
    save_memory(saver, later, uring_region::QUEUES)?;
    save_memory(saver, later, uring_region::ENTRIES)
}

/// The tasks that have used a ring; those that cannot be saved as such are refused.
fn save_users(saver: &mut Saver<'_>, later: &Later) -> Result<KVVec<UringUser>> {
    // SAFETY: The file is a ring, and there is room for so many.
    let found: KVVec<bindings::checkpoint_ring_user> = unsafe {
        files::read_all(|place, max| {
            let count = bindings::checkpoint_ring_users(later.file.as_ptr(), place, max);
            if count < 0 {
                return Err(Error::from_errno(i32::try_from(count)?));
            }
            Ok(usize::try_from(count)?)
        })
    }?;
    let mut users = KVVec::with_capacity(found.len(), GFP_KERNEL)?;
    for user in found.iter() {
        if !saver.is_task(user.pid) {
            saver.refuse(
                later.place,
                fmt!("io_uring: used by a task outside the tree: not supported"),
            );
            continue;
        }
        if user.pinned {
            saver.refuse(
                Place::Task(user.pid),
                fmt!("io_uring: workers of some CPUs only: not supported"),
            );
        }
        let [bounded, unbounded] = user.max_workers;
        users.push(
            UringUser {
                tid: user.pid.into(),
                slots: user.slots.into(),
                max_bounded: bounded.into(),
                max_unbounded: unbounded.into(),
            },
            GFP_KERNEL,
        )?;
    }
    Ok(users)
}

/// Saves one of the two regions of a ring's memory, but for what is zero.
fn save_memory(saver: &mut Saver<'_>, later: &Later, region: u32) -> Result {
    let entries = region == uring_region::ENTRIES;
    // SAFETY: The file is a ring.
    let size = unsafe { bindings::checkpoint_ring_size(later.file.as_ptr(), entries) };
    let mut buffer = KVVec::from_elem(0u8, PART.min(size), GFP_KERNEL)?;
    let mut offset = 0;
    while offset < size {
        let len = PART.min(size - offset);
        let part = buffer.get_mut(..len).ok_or(EINVAL)?;
        // SAFETY: As above; there is room for so many bytes.
        to_result(unsafe {
            bindings::checkpoint_read_ring(
                later.file.as_ptr(),
                entries,
                offset,
                part.as_mut_ptr().cast(),
                len,
            )
        })?;
        if part.iter().any(|byte| *byte != 0) {
            let record = UringMemory {
                ring: later.id.into(),
                region: region.into(),
                offset: u64::try_from(offset)?.into(),
                len: u32::try_from(len)?.into(),
                reserved: 0.into(),
            };
            saver.put(&record, &[part])?;
        }
        offset += len;
    }
    Ok(())
}

/// Refuses rings that `tasks` have used and that are not in the plan.
pub(crate) fn finish(saver: &mut Saver<'_>, tasks: &[Held]) -> Result {
    for held in tasks.iter().filter(|held| held.state() != Still::Zombie) {
        // SAFETY: `held` keeps its task.
        if !unsafe { bindings::checkpoint_uses_uring(held.as_raw()) } {
            continue;
        }
        let mut rings: KVVec<*const core::ffi::c_void> = KVVec::new();
        loop {
            let max = rings.capacity();
            // SAFETY: `held` keeps its task, and there is room for so many.
            let count = unsafe {
                bindings::checkpoint_task_rings(
                    held.as_raw(),
                    rings.spare_capacity_mut().as_mut_ptr().cast(),
                    max,
                )
            };
            if count <= max {
                // SAFETY: So many were written.
                unsafe { rings.inc_len(count) };
                break;
            }
            rings.reserve(count, GFP_KERNEL)?;
        }
        let mut used = KVVec::new();
        let mut unknown = false;
        for ring in rings.iter() {
            match saver.objects.get(Class::Ring, *ring) {
                Some(id) => used.push(id, GFP_KERNEL)?,
                None => unknown = true,
            }
        }
        for slot in 0..bindings::CHECKPOINT_RING_SLOTS {
            // SAFETY: `held` keeps its task; the pointer is compared only.
            let file = unsafe { bindings::checkpoint_registered_ring(held.as_raw(), slot) };
            if file.is_null() {
                continue;
            }
            let saved = saver.survey.saved(file.cast());
            if saved == Saved::Refused {
                continue;
            }
            // They are saved with the rings that the task has used.
            unknown |= !saved.id().is_some_and(|id| used.contains(&id));
        }
        if unknown {
            saver.refuse(
                Place::Task(held.pid()),
                fmt!("io_uring: a ring that the tree does not have open: not supported"),
            );
        }
    }
    Ok(())
}

/// Makes the ring of a record.
///
/// # Errors
///
/// What io_uring_setup(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileUring>().map_err(|_| EINVAL)?;
    let flags = SETUP.to_kernel(record.setup.get());
    // SAFETY: The function makes a file.
    let file = files::owned(unsafe {
        bindings::checkpoint_make_ring(flags, record.sq_entries.get(), record.cq_entries.get())
    })
    .inspect_err(|err| {
        let hint = if *err == EPERM {
            ", see kernel.io_uring_disabled"
        } else {
            ""
        };
        opening
            .report
            .problem(Place::Tree, fmt!("io_uring: {err:?}{hint}"));
    })?;
    files::set_status(&file, record.flags.get());
    Ok(file)
}

/// Gives `file` some of its memory.
///
/// # Errors
///
/// `EINVAL` where the ring has none, with a line in the report.
pub(crate) fn fill(file: &File, memory: &UringMemory, bytes: &[u8], report: &mut Report) -> Result {
    let entries = memory.region.get() == uring_region::ENTRIES;
    let offset = usize::try_from(memory.offset.get())?;
    // SAFETY: `file` is a ring by the check of the record, and `bytes` are readable.
    to_result(unsafe {
        bindings::checkpoint_write_ring(
            file.as_ptr(),
            entries,
            offset,
            bytes.as_ptr().cast(),
            bytes.len(),
        )
    })
    .inspect_err(|err| {
        report.problem(
            Place::Image,
            fmt!("io_uring: memory at {offset:#x}: {err:?}"),
        );
    })
}

/// Gives `file` its state.
///
/// # Errors
///
/// `EPERM` when the caller's memory is limited and that of the image is not, with a line in the
/// report.
///
/// # Safety
///
/// `issuer` and `mm` are valid or null.
pub(crate) unsafe fn restore(
    file: &File,
    record: &UringState,
    issuer: *mut bindings::task_struct,
    mm: *mut bindings::mm_struct,
    report: &mut Report,
) -> Result {
    let state = record.state.get();
    let ring = bindings::checkpoint_ring {
        sq_head: record.sq_head.get(),
        cq_tail: record.cq_tail.get(),
        limits: [record.max_bounded.get(), record.max_unbounded.get()],
        uid: record.uid.get(),
        limited: state & uring_state::LIMITED != 0,
        accounted: state & uring_state::ACCOUNTED != 0,
        dropped: state & uring_state::DROPPED != 0,
        drain_next: state & uring_state::DRAIN_NEXT != 0,
        drain_active: state & uring_state::DRAIN_ACTIVE != 0,
        drain_disabled: state & uring_state::DRAIN_DISABLED != 0,
        boottime: state & uring_state::BOOTTIME != 0,
        ..Default::default()
    };
    // SAFETY: `file` is a ring by the check of the record; the others by the safety requirement.
    to_result(unsafe { bindings::checkpoint_set_ring(file.as_ptr(), &ring, issuer, mm) })
        .inspect_err(|err| {
            let hint = if *err == EPERM {
                ", without a limit of locked memory needs CAP_IPC_LOCK"
            } else {
                ""
            };
            report.problem(Place::Tree, fmt!("io_uring: {err:?}{hint}"));
        })
}

/// Notes that the current task uses `file`.
///
/// # Errors
///
/// `ENOMEM`, `EBUSY`.
pub(crate) fn restore_own(file: &File, user: &UringUser) -> Result {
    let user = bindings::checkpoint_ring_user {
        slots: user.slots.get(),
        max_workers: [user.max_bounded.get(), user.max_unbounded.get()],
        ..Default::default()
    };
    // SAFETY: `file` is a ring by the check of the record.
    to_result(unsafe { bindings::checkpoint_use_ring(file.as_ptr(), &user) })
}
