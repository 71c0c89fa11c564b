// SPDX-License-Identifier: GPL-2.0

//! Contexts of asynchronous I/O: io_setup(2). A context is known by the address of its ring, which
//! is mapped, and is saved with that mapping: its limit, and what is in the ring, which has the events
//! that were not read among what was.
//!
//! Requests in flight are waited for before anything is saved: they write to memory, to files and to
//! eventfds. One that waits for an event, as IOCB_CMD_POLL does, may never come to an end.
//!
//! A context comes back when the address space does, and the ring is filled as user memory.
//!
//! Locks: those of the context, while it is read, inside `mmap_lock`.

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    time::{
        msecs_to_jiffies,
        Instant,
        Monotonic, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

use zerocopy::IntoBytes;

use crate::{
    hold::{
        Held,
        Hold,
        Still, //
    },
    image::record::{
        vma_flags,
        vma_kind,
        AioContext,
        AioEvent,
        Vma, //
    },
    mm::MmRef,
    plan::Blueprint,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// How long one wait lasts, in ms: after that, no request that waits for an event is waited for.
const WAIT: u32 = 100;

/// Length of an event in the ring, and of its head, in bytes.
const EVENT: usize = size_of::<bindings::io_event>();

/// Waits until no request of the tree is in flight, for as long as tasks may take to stand still, or
/// refuses the tree.
///
/// # Errors
///
/// `EINTR`; `ESRCH` when a task was killed meanwhile.
pub(crate) fn drain(saver: &mut Saver<'_>, hold: &Hold) -> Result {
    let since: Instant<Monotonic> = Instant::now();
    let mut last = core::ptr::null_mut();
    for held in hold
        .tasks()
        .iter()
        .filter(|held| held.state() != Still::Zombie)
    {
        // SAFETY: `held` keeps its task.
        let mm = unsafe { MmRef::of(held.as_raw()) }?;
        // Threads, which follow one another, share it.
        if mm.as_raw() == last {
            continue;
        }
        last = mm.as_raw();
        // SAFETY: The address space is alive.
        if unsafe { bindings::aio_count_contexts(mm.as_raw()) } == 0 {
            continue;
        }
        drain_one(saver, hold, held, &mm, since)?;
    }
    Ok(())
}

fn drain_one(
    saver: &mut Saver<'_>,
    hold: &Hold,
    held: &Held,
    mm: &MmRef,
    since: Instant<Monotonic>,
) -> Result {
    loop {
        let jiffies = isize::try_from(msecs_to_jiffies(WAIT))?;
        // SAFETY: The address space is alive.
        let drained = to_result(unsafe { bindings::aio_drain(mm.as_raw(), jiffies) });
        hold.renew();
        match drained {
            Err(err) if err == EINTR => return Err(err),
            Err(err) if err == EAGAIN && since.elapsed().as_millis() < hold.timeout_ms() => {}
            Err(_) => {
                saver.refuse(
                    Place::Task(held.pid()),
                    fmt!("asynchronous I/O: requests in flight: not supported"),
                );
                return Ok(());
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Whether `file` is the ring of a context.
pub(crate) fn is_ring(file: &File) -> bool {
    // SAFETY: `file` is valid.
    unsafe { bindings::is_file_aio_ring(file.as_ptr()) }
}

/// How the kernel maps a ring, but for flags that may be added.
const MAPPED: u32 = vma_flags::READ
    | vma_flags::WRITE
    | vma_flags::SHARED
    | vma_flags::MAYREAD
    | vma_flags::MAYWRITE
    | vma_flags::MAYSHARE
    | vma_flags::DONTFORK;

/// Saves the context whose ring is `file`, mapped from `start` to `end` as `flags` say, from `offset`
/// of the file on. Returns its number, or `None` when it was refused.
pub(crate) fn save(
    saver: &mut Saver<'_>,
    place: Place,
    file: &File,
    (start, end): (usize, usize),
    offset: u64,
    flags: u32,
) -> Result<Option<u32>> {
    let mut state = bindings::aio_state::default();
    // SAFETY: `file` is the ring of a context.
    let read = to_result(unsafe { bindings::aio_get_state(file.as_ptr(), &mut state) });
    let slots = usize::try_from(state.slots)?;
    let what = match read {
        Err(err) if err == ENOENT => Some("is gone"),
        Err(_) => Some("has been overwritten"),
        Ok(()) if flags & (MAPPED | vma_flags::EXEC) != MAPPED => Some("is mapped in another way"),
        Ok(()) if offset != 0 || start != state.address || end - start != (slots + 1) * EVENT => {
            Some("is mapped in part")
        }
        Ok(()) => None,
    };
    if let Some(what) = what {
        saver.refuse(
            place,
            fmt!("asynchronous I/O: ring that {what}: not supported"),
        );
        return Ok(None);
    }
    let mut events = KVVec::new();
    let mut at = 0;
    while at < state.slots {
        let mut part = [bindings::io_event::default(); 64];
        let count = (state.slots - at).min(u32::try_from(part.len())?);
        // SAFETY: As above, and there is room for so many.
        to_result(unsafe {
            bindings::aio_get_events(file.as_ptr(), at, count, part.as_mut_ptr())
        })?;
        for event in part.iter().take(usize::try_from(count)?) {
            if event.obj | event.data != 0 || event.res | event.res2 != 0 {
                let event = AioEvent {
                    slot: at.into(),
                    reserved: 0.into(),
                    obj: event.obj.into(),
                    data: event.data.into(),
                    res: event.res.into(),
                    res2: event.res2.into(),
                };
                events.push(event, GFP_KERNEL)?;
            }
            at += 1;
        }
    }
    if events.len() > AioContext::MAX_EVENTS {
        saver.refuse(
            place,
            fmt!("asynchronous I/O: ring of so many events: not supported"),
        );
        return Ok(None);
    }
    let record = AioContext {
        max_reqs: state.max_reqs.into(),
        slots: state.slots.into(),
        head: state.head.into(),
        tail: state.tail.into(),
        count: u32::try_from(events.len())?.into(),
        reserved: 0.into(),
    };
    saver.object(&record, &[events.as_bytes()]).map(Some)
}

/// Refuses contexts of `mm` of which no ring is mapped, where `saved` are.
pub(crate) fn check_all(saver: &mut Saver<'_>, place: Place, mm: &MmRef, saved: usize) -> Result {
    // SAFETY: The address space is alive.
    let all = unsafe { bindings::aio_count_contexts(mm.as_raw()) };
    if usize::try_from(all)? > saved {
        saver.refuse(
            place,
            fmt!("asynchronous I/O: context whose ring is not mapped: not supported"),
        );
    }
    Ok(())
}

/// Checks that the system allows the requests of all contexts together.
///
/// # Errors
///
/// `EAGAIN` when it does not, `EINVAL` when a ring is not mapped as the kernel does it; with a line
/// in the report.
pub(crate) fn check(plan: &Blueprint, report: &mut Report) -> Result {
    let (mut contexts, mut requests, mut extra) = (0usize, 0usize, 0usize);
    for vma in plan
        .all_vmas()
        .filter(|vma| vma.kind.get() == vma_kind::AIO)
    {
        let (record, _) = plan.object::<AioContext>(vma.object.get())?;
        let len = (u64::from(record.slots.get()) + 1) * EVENT as u64;
        let as_mapped = vma.flags.get() & (MAPPED | vma_flags::EXEC) == MAPPED;
        if vma.end.get() - vma.start.get() != len || vma.offset.get() != 0 || !as_mapped {
            report.problem(
                Place::Image,
                fmt!("ring of asynchronous I/O that is mapped in another way: malformed"),
            );
            return Err(EINVAL);
        }
        let max_reqs = usize::try_from(record.max_reqs.get())?;
        let slots = usize::try_from(record.slots.get())?;
        contexts += 1;
        requests = requests.saturating_add(max_reqs);
        extra = extra.saturating_add(slots.saturating_sub(max_reqs.saturating_mul(2)));
    }
    // SAFETY: The function looks at the system.
    if contexts == 0 || unsafe { bindings::aio_has_room(contexts, requests, extra) } {
        return Ok(());
    }
    report.problem(
        Place::Tree,
        fmt!("asynchronous I/O: {requests} requests are more than fs.aio-max-nr leaves"),
    );
    Err(EAGAIN)
}

/// Makes the context of a mapping, and the mapping, in the current task.
///
/// # Errors
///
/// What io_setup(2) says; `ENOMEM` where something is mapped.
pub(crate) fn restore(plan: &Blueprint, vma: &Vma) -> Result {
    let (record, events) = plan
        .objects()
        .get(vma.object.get())
        .and_then(|record| record.get_array::<AioContext>().ok())
        .ok_or(EINVAL)?;
    let state = bindings::aio_state {
        address: usize::try_from(vma.start.get())?,
        max_reqs: record.max_reqs.get(),
        slots: record.slots.get(),
        head: record.head.get(),
        tail: record.tail.get(),
    };
    // SAFETY: The current task runs in its address space.
    to_result(unsafe { bindings::aio_restore_context(&state) })?;
    for event in events {
        // The head comes first.
        let slot = usize::try_from(event.slot.get())? + 1;
        let kernel = bindings::io_event {
            obj: event.obj.get(),
            data: event.data.get(),
            res: event.res.get(),
            res2: event.res2.get(),
        };
        let at = UserPtr::from_addr(state.address + slot * EVENT);
        UserSlice::new(at, EVENT)
            .writer()
            .write_slice(bytes(&kernel))?;
    }
    Ok(())
}

fn bytes(event: &bindings::io_event) -> &[u8] {
    // SAFETY: The struct consists of integers, without padding.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(event).cast(), EVENT) }
}
