// SPDX-License-Identifier: GPL-2.0

//! Timerfds. One that was set to a point in time keeps that, any other the time that was left. They
//! start the moment before the tree does.
//!
//! Locks: that of the timerfd, while its state is read.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files,
    image::{
        record::{
            timerfd_clock,
            timerfd_flags,
            timerfd_state,
            FileTimerfd, //
        },
        RecordRef, //
    },
    machine::Offsets,
    numbers::{
        Bits,
        Numbers, //
    },
    plan::{
        Blueprint,
        Opening, //
    },
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// Clocks of timerfd_create(2), and their numbers in the image.
const CLOCKS: Numbers = Numbers(&[
    (bindings::CLOCK_REALTIME, timerfd_clock::REALTIME),
    (bindings::CLOCK_MONOTONIC, timerfd_clock::MONOTONIC),
    (bindings::CLOCK_BOOTTIME, timerfd_clock::BOOTTIME),
    (
        bindings::CLOCK_REALTIME_ALARM,
        timerfd_clock::REALTIME_ALARM,
    ),
    (
        bindings::CLOCK_BOOTTIME_ALARM,
        timerfd_clock::BOOTTIME_ALARM,
    ),
]);

/// Flags of timerfd_settime(2), and their bits in the image.
const FLAGS: Bits = Bits(&[
    (bindings::TFD_TIMER_ABSTIME, timerfd_flags::ABSTIME),
    (
        bindings::TFD_TIMER_CANCEL_ON_SET,
        timerfd_flags::CANCEL_ON_SET,
    ),
]);

/// The state of `file`, if it is a timerfd.
fn state(file: &File) -> Option<bindings::timerfd_state> {
    let mut state = bindings::timerfd_state::default();
    // SAFETY: `file` is valid.
    unsafe { bindings::timerfd_get_state(file.as_ptr(), &mut state) }.then_some(state)
}

/// Every timerfd.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    state(file).is_some()
}

/// By how much `clock` is ahead in a time namespace.
fn ahead(clock: u32, offsets: &Offsets) -> i64 {
    match clock {
        timerfd_clock::MONOTONIC => offsets.monotonic,
        timerfd_clock::BOOTTIME | timerfd_clock::BOOTTIME_ALARM => offsets.boottime,
        _ => 0,
    }
}

/// Saves an open timerfd.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let state = state(file).ok_or(EBADF)?;
    let number = state.clockid;
    let Some(clock) = CLOCKS.to_image(u32::try_from(number)?) else {
        saver.refuse(place, fmt!("timerfd of clock {number}: not supported"));
        return Ok(None);
    };
    let mut flags = FLAGS.to_image(u32::try_from(state.flags)?);
    let (number, mut time) = match (state.expired, state.armed) {
        (true, _) => (timerfd_state::EXPIRED, state.time),
        (false, true) => (timerfd_state::ARMED, state.time),
        (false, false) => (timerfd_state::IDLE, 0),
    };
    if number != timerfd_state::IDLE && flags & timerfd_flags::ABSTIME != 0 {
        time = time.saturating_add(ahead(clock, &saver.offsets));
    }
    if state.canceled {
        flags |= timerfd_flags::CANCELED;
    }
    let record = FileTimerfd {
        flags: files::image_flags(file).into(),
        clock: clock.into(),
        timer_flags: flags.into(),
        state: number.into(),
        interval_ns: state.interval.into(),
        ticks: state.ticks.into(),
        time_ns: time.into(),
    };
    saver.object(&record, &[]).map(Some)
}

/// Makes the timerfd of a record.
///
/// # Errors
///
/// What timerfd_create(2) says, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileTimerfd>().map_err(|_| EINVAL)?;
    let clock = i32::try_from(CLOCKS.to_kernel(record.clock.get())?)?;
    // SAFETY: The function makes a file.
    let file = unsafe { bindings::timerfd_create_file(clock, 0) };
    let file = files::owned(file).inspect_err(|err| {
        let what = if *err == EPERM {
            "timerfd of an alarm clock needs CAP_WAKE_ALARM"
        } else {
            "timerfd"
        };
        opening.report.problem(Place::Tree, fmt!("{what}: {err:?}"));
    })?;
    files::set_status(&file, record.flags.get());
    Ok(file)
}

/// Sets the timerfd of a record, which runs from now on.
///
/// # Errors
///
/// `EINVAL` for a defect of the image.
pub(crate) fn start(blueprint: &Blueprint, record: &RecordRef<'static>, _: &mut Report) -> Result {
    let file = blueprint.file(record.id)?;
    let (record, _) = record.get::<FileTimerfd>().map_err(|_| EINVAL)?;
    let kept = record.timer_flags.get();
    let number = record.state.get();
    let mut time = record.time_ns.get();
    if kept & timerfd_flags::ABSTIME != 0 {
        // SAFETY: The current task is valid; the namespace of its children is the tree's.
        let offsets = unsafe { Offsets::of(bindings::get_current()) };
        time = time.saturating_sub(ahead(record.clock.get(), &offsets));
    }
    let state = bindings::timerfd_state {
        time,
        interval: record.interval_ns.get(),
        ticks: record.ticks.get(),
        flags: i32::try_from(FLAGS.to_kernel(kept))?,
        armed: number == timerfd_state::ARMED,
        expired: number == timerfd_state::EXPIRED,
        canceled: kept & timerfd_flags::CANCELED != 0,
        ..Default::default()
    };
    // SAFETY: `file` is a timerfd that was made for the tree, which does not run yet.
    unsafe { bindings::timerfd_set_state(file.as_ptr(), &state) };
    Ok(())
}
