// SPDX-License-Identifier: GPL-2.0

//! Epoll instances: what they watch, and what of it is ready.
//!
//! An instance keeps no file open. So what it watches is saved when all files of the tree are
//! known, and is added to it when all are open and have in them what they had.
//!
//! What is ready is what was ready. What a file has to tell at the restart it may have told before,
//! which matters for EPOLLET; only what it tells from then on is new.
//!
//! A signalfd tells about the signals of the process that has added it, whoever waits. So that
//! process adds it again. One that has told of a signal that is still pending tells of it once
//! more.
//!
//! Locks: the mutex of the instance, while its items are read.

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
        signalfd,
        survey::Saved, //
    },
    image::{
        record::{
            epoll_events,
            epoll_item_flags,
            socket_state,
            EpollItem,
            EpollItems,
            FileEpoll,
            UnixSocket, //
        },
        Kind,
        RecordRef, //
    },
    numbers::Bits,
    objects::Class,
    plan::{
        Blueprint,
        Opening, //
    },
    report::{
        Place,
        Report, //
    },
    save::{
        Later,
        Saver, //
    },
    sort, //
};

/// Most items of one record.
const PART: usize = 8192;

/// Events of epoll_ctl(2), and their bits in the image.
const EVENTS: Bits = Bits(&[
    (bindings::POLLIN, epoll_events::IN),
    (bindings::POLLPRI, epoll_events::PRI),
    (bindings::POLLOUT, epoll_events::OUT),
    (bindings::POLLERR, epoll_events::ERR),
    (bindings::POLLHUP, epoll_events::HUP),
    (bindings::POLLRDNORM, epoll_events::RDNORM),
    (bindings::POLLRDBAND, epoll_events::RDBAND),
    (bindings::POLLWRNORM, epoll_events::WRNORM),
    (bindings::POLLWRBAND, epoll_events::WRBAND),
    (bindings::POLLMSG, epoll_events::MSG),
    (bindings::POLLRDHUP, epoll_events::RDHUP),
    (1 << 28, epoll_events::EXCLUSIVE),
    (1 << 29, epoll_events::WAKEUP),
    (1 << 30, epoll_events::ONESHOT),
    (1 << 31, epoll_events::ET),
]);

/// Kinds of files that nobody but the tree can make ready, so that all they have to tell is known.
const CLOSED: &[Kind] = &[
    Kind::FileEventfd,
    Kind::FileEpoll,
    Kind::FilePipe,
    Kind::FilePidfd,
    Kind::FileTimerfd,
    Kind::FileUring,
];

/// Whether all that the open file `id` has to tell is known: nobody but the tree makes it ready.
fn is_closed(blueprint: &Blueprint, id: u32) -> bool {
    if let Ok((socket, _)) = blueprint.object::<UnixSocket>(id) {
        // Others may connect to one that listens, and send to one without a connection.
        return socket.state.get() == socket_state::CONNECTED;
    }
    blueprint
        .kind(id)
        .is_some_and(|kind| CLOSED.contains(&kind))
}

/// Every epoll instance.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    // SAFETY: `file` is valid.
    unsafe { bindings::is_file_epoll(file.as_ptr()) }
}

/// Saves an epoll instance; what it watches follows when all files are known.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let mut params = bindings::epoll_params::default();
    // SAFETY: `file` is an epoll instance.
    unsafe { bindings::epoll_get_params(file.as_ptr(), &mut params) };
    let record = FileEpoll {
        flags: files::image_flags(file).into(),
        busy_poll_usecs: params.busy_poll_usecs.into(),
        busy_poll_budget: u32::from(params.busy_poll_budget).into(),
        prefer_busy_poll: u32::from(params.prefer_busy_poll).into(),
    };
    let id = saver.object(&record, &[])?;
    saver.later(save_items, place, file, id)?;
    Ok(Some(id))
}

/// What an instance watches.
struct Items(KVVec<bindings::epoll_item>);

impl Items {
    /// Ready items first, in their order, the others by descriptor.
    fn of(file: &File) -> Result<Self> {
        let mut items = KVVec::<bindings::epoll_item>::new();
        loop {
            let max = u32::try_from(items.capacity())?;
            // SAFETY: `file` is an epoll instance, and there is place for so many.
            let count = unsafe {
                bindings::epoll_get_items(
                    file.as_ptr(),
                    items.spare_capacity_mut().as_mut_ptr().cast(),
                    max,
                )
            };
            let count = usize::try_from(count)?;
            if count <= items.capacity() {
                // SAFETY: So many were written.
                unsafe { items.inc_len(count) };
                break;
            }
            items.reserve(count, GFP_KERNEL)?;
        }
        let ready = items.iter().take_while(|item| item.ready).count();
        if let Some(others) = items.get_mut(ready..) {
            sort::by_key(others, |item| item.fd);
        }
        Ok(Self(items))
    }
}

impl Drop for Items {
    fn drop(&mut self) {
        for item in self.0.iter() {
            // SAFETY: Each item has a reference.
            unsafe { bindings::fput(item.file) };
        }
    }
}

/// Saves what an epoll instance watches.
fn save_items(saver: &mut Saver<'_>, epoll: &Later) -> Result {
    let items = Items::of(&epoll.file)?;
    let mut part = KVVec::new();
    for item in items.0.iter() {
        // SAFETY: The item has a reference to the file, for longer than this one lasts; the
        // position is not used.
        let file = unsafe { File::from_raw_file(item.file) };
        let fd = item.fd;
        let id = match saver.survey.saved(file.as_ptr()) {
            Saved::As(id) => id,
            Saved::Refused => continue,
            Saved::No => {
                saver.refuse(
                    epoll.place,
                    fmt!(
                        "epoll: watches descriptor {fd} of a file that the tree does not have \
                         open: not supported"
                    ),
                );
                continue;
            }
        };
        let (events, unknown) = EVENTS.split(item.events);
        if unknown != 0 {
            saver.refuse(
                epoll.place,
                fmt!("epoll: watches descriptor {fd} for events {unknown:#x}: not supported"),
            );
        }
        if part.len() == PART {
            save_part(saver, epoll.id, &part)?;
            part.clear();
        }
        let Ok(sighand) = waits_for(saver, file, item) else {
            saver.refuse(
                epoll.place,
                fmt!(
                    "epoll: watches descriptor {fd}, a signalfd, for a process outside the tree: \
                     not supported"
                ),
            );
            continue;
        };
        let ready = if item.ready {
            epoll_item_flags::READY
        } else {
            0
        };
        let entry = EpollItem {
            file: id.into(),
            fd: u32::try_from(fd)?.into(),
            events: events.into(),
            flags: ready.into(),
            data: item.data.into(),
            sighand: sighand.into(),
            reserved: 0.into(),
        };
        part.push(entry, GFP_KERNEL)?;
    }
    save_part(saver, epoll.id, &part)
}

/// The number of the signal actions with which the process goes that `item`, if it is a signalfd,
/// waits for signals of; 0 if that has ended.
///
/// # Errors
///
/// `ESRCH` if it is outside the tree.
fn waits_for(saver: &Saver<'_>, file: &File, item: &bindings::epoll_item) -> Result<u32> {
    if item.head.is_null() || !signalfd::takes(saver, None, file) {
        return Ok(0);
    }
    let offset = core::mem::offset_of!(bindings::sighand_struct, signalfd_wqh);
    let sighand = item.head.cast::<u8>().wrapping_sub(offset);
    saver.objects.get(Class::Sighand, sighand).ok_or(ESRCH)
}

fn save_part(saver: &mut Saver<'_>, epoll: u32, items: &[EpollItem]) -> Result {
    if items.is_empty() {
        return Ok(());
    }
    let record = EpollItems {
        epoll: epoll.into(),
        count: u32::try_from(items.len())?.into(),
    };
    saver.put(&record, &[items.as_bytes()])
}

/// Makes the epoll instance of a record, which watches nothing yet.
///
/// # Errors
///
/// What epoll_create(2) says, and `EPERM` when the caller may not poll network devices as it does,
/// with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, _) = record.get::<FileEpoll>().map_err(|_| EINVAL)?;
    make(record).inspect_err(|err| {
        opening.report.problem(Place::Tree, fmt!("epoll: {err:?}"));
    })
}

fn make(record: &FileEpoll) -> Result<ARef<File>> {
    // SAFETY: The function makes a file.
    let file = files::owned(unsafe { bindings::epoll_create_file(0) })?;
    let params = bindings::epoll_params {
        busy_poll_usecs: record.busy_poll_usecs.get(),
        busy_poll_budget: u16::try_from(record.busy_poll_budget.get())?,
        prefer_busy_poll: u8::try_from(record.prefer_busy_poll.get())?,
        __pad: 0,
    };
    let polls =
        params.busy_poll_usecs != 0 || params.busy_poll_budget != 0 || params.prefer_busy_poll != 0;
    if polls {
        // SAFETY: `file` is an epoll instance.
        to_result(unsafe { bindings::epoll_set_params(file.as_ptr(), &params) })?;
    }
    files::set_status(&file, record.flags.get());
    Ok(file)
}

/// Adds what an instance watches.
///
/// # Errors
///
/// What epoll_ctl(2) says, with a line in the report.
pub(crate) fn link(
    blueprint: &Blueprint,
    record: &RecordRef<'static>,
    report: &mut Report,
) -> Result {
    let (record, items) = record.get_array::<EpollItems>().map_err(|_| EINVAL)?;
    let epoll = blueprint.file(record.epoll.get())?;
    for item in items.iter().filter(|item| item.sighand.get() == 0) {
        let fd = item.fd.get();
        add(blueprint, &epoll, item).inspect_err(|err| {
            report.problem(
                Place::Tree,
                fmt!("epoll: descriptor {fd} cannot be watched: {err:?}"),
            );
        })?;
    }
    Ok(())
}

/// Adds what instances watch for the current task's process, number `index`.
///
/// # Errors
///
/// What epoll_ctl(2) says.
pub(crate) fn link_own(blueprint: &Blueprint, index: usize) -> Result {
    for (epoll, item) in blueprint.watches(index) {
        add(blueprint, &*blueprint.file(epoll)?, item)?;
    }
    Ok(())
}

fn add(blueprint: &Blueprint, epoll: &File, item: &EpollItem) -> Result {
    let id = item.file.get();
    let file = blueprint.file(id)?;
    // The process whose signals it told of has ended.
    let silent = blueprint.kind(id) == Some(Kind::FileSignalfd) && item.sighand.get() == 0;
    let item = bindings::epoll_item {
        file: file.as_ptr(),
        data: item.data.get(),
        fd: i32::try_from(item.fd.get())?,
        events: EVENTS.to_kernel(item.events.get()),
        ready: item.flags.get() & epoll_item_flags::READY != 0,
        exact: is_closed(blueprint, id),
        silent,
        ..Default::default()
    };
    // SAFETY: `epoll` is valid, and so is the file of the item.
    to_result(unsafe { bindings::epoll_restore_item(epoll.as_ptr(), &item) })
}
