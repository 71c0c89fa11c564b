// SPDX-License-Identifier: GPL-2.0

//! Pseudo terminals with their master in the tree, and those whose master was closed.
//!
//! A terminal comes back as a new pty with the same number: open files of both ends, settings, what
//! either end has received, the session that it controls and the foreground group.
//!
//! Ptys and their ends are opened before any task exists. They get their settings and what they
//! have received when memory is complete; then sessions and processes get their controlling
//! terminals.
//!
//! Locks: see `kernel/checkpoint/tty.c`.

use core::ptr;

use kernel::{
    bindings,
    error::to_result,
    fs::File,
    prelude::*,
    rbtree::RBTree,
    sync::aref::ARef, //
};

use crate::{
    files,
    hold::Held,
    image::{
        record::{
            pty_flags,
            queue_flags,
            tty_end,
            ControllingTty,
            FileTty,
            Pty,
            Termios,
            TtyQueue, //
        },
        RecordRef, //
    },
    objects::Class,
    plan::Opening,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

/// The device that makes ptys, where none is known that has made one.
const PTMX: &[u8] = b"/dev/ptmx";

/// Longest queue beyond what the line discipline has: what the kernel lets a pty keep, and some.
const FLIP_MAX: usize = 2 << 16;

/// The ptys of a tree, by the addresses of their masters.
pub(crate) struct Survey {
    masters: RBTree<usize, ARef<File>>,
    slaves: RBTree<usize, u32>,
}

/// A pty, as an identity, as long as one of its open files is known to stay.
type Master = *mut bindings::tty_struct;

/// The pty that `file` is an end of, if it is.
fn master(file: &File) -> Option<Master> {
    // SAFETY: `file` is valid; the result is valid as long as it is.
    let master = unsafe { bindings::checkpoint_pty_master(file.as_ptr()) };
    (!master.is_null()).then_some(master)
}

fn is_master(file: &File) -> bool {
    // SAFETY: `file` is an end of a pty.
    unsafe { bindings::checkpoint_is_pty_master(file.as_ptr()) }
}

/// All of a pty but what is in its buffers.
fn read(master: Master) -> bindings::checkpoint_pty {
    let mut pty = bindings::checkpoint_pty::default();
    // SAFETY: An open file that stays keeps the pty.
    unsafe { bindings::checkpoint_get_pty(master, &mut pty) };
    pty
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self {
            masters: RBTree::new(),
            slaves: RBTree::new(),
        }
    }

    /// Counts `file`, which the tree has open.
    pub(crate) fn add(&mut self, file: &ARef<File>) -> Result {
        let Some(master) = master(file) else {
            return Ok(());
        };
        if is_master(file) {
            self.masters
                .try_create_and_insert(master.addr(), file.clone(), GFP_KERNEL)?;
            return Ok(());
        }
        match self.slaves.get_mut(&master.addr()) {
            Some(count) => *count += 1,
            None => {
                self.slaves
                    .try_create_and_insert(master.addr(), 1, GFP_KERNEL)?;
            }
        }
        Ok(())
    }

    /// Whether `file` is an end of a pty that nobody outside the tree serves.
    pub(crate) fn has(&self, file: &File) -> bool {
        master(file).is_some_and(|master| {
            self.masters.get(&master.addr()).is_some() || read(master).hung_up
        })
    }
}

/// Ends of ptys whose master is in the tree, or was closed.
pub(crate) fn takes(saver: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    saver.survey.ttys.has(file)
}

/// Saves an open end, and the pty itself unless it has been.
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let master = master(file).ok_or(EBADF)?;
    let Some(pty) = save_pty(saver, place, master)? else {
        return Ok(None);
    };
    // SAFETY: `file` is valid.
    let end = if is_master(file) {
        tty_end::MASTER
    } else if unsafe { bindings::checkpoint_is_current_tty(file.as_ptr()) } {
        tty_end::CURRENT
    } else {
        tty_end::SLAVE
    };
    // The name of a slave goes with its master.
    let path = if files::is_unlinked(file) {
        Some(files::Path::of(file)?)
    } else {
        files::saved_path(saver, place, file)?
    };
    let Some(path) = path else {
        return Ok(None);
    };
    let name = path.bytes();
    let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
    let record = FileTty {
        flags: files::image_flags(file).into(),
        end: end.into(),
        pty: pty.into(),
        mode: files::stat(file)?.mode.into(),
    };
    saver.object(&record, &[name]).map(Some)
}

/// Saves the controlling terminal of a process, which has the number `process`.
pub(crate) fn save_controlling(saver: &mut Saver<'_>, leader: &Held, process: u32) -> Result {
    let place = Place::Task(leader.pid());
    let mut other = false;
    // SAFETY: `leader` keeps its task, which stands still and keeps its terminal.
    let master = unsafe { bindings::checkpoint_controlling_pty(leader.as_raw(), &mut other) };
    if master.is_null() || saver.survey.ttys.masters.get(&master.addr()).is_none() {
        // SAFETY: As above. Others join the restarter's session, and so its terminal.
        if other && unsafe { (*(*leader.as_raw()).signal).leader } != 0 {
            saver.refuse(
                place,
                fmt!("controlling terminal outside the tree: not supported"),
            );
        }
        return Ok(());
    }
    if let Some(pty) = save_pty(saver, place, master)? {
        let record = ControllingTty {
            process: process.into(),
            pty: pty.into(),
        };
        saver.put(&record, &[])?;
    }
    Ok(())
}

fn save_pty(saver: &mut Saver<'_>, place: Place, master: Master) -> Result<Option<u32>> {
    if let Some(id) = saver.objects.get(Class::Pty, master) {
        return Ok(Some(id));
    }
    let pty = read(master);
    let index = pty.index;
    let known = saver
        .survey
        .ttys
        .slaves
        .get(&master.addr())
        .copied()
        .unwrap_or(0);
    let refused = if pty.hung_up {
        None
    } else if pty.ldisc != N_TTY || pty.master_ldisc != N_TTY {
        Some("line discipline other than N_TTY")
    } else if pty.slaves > known {
        Some("open outside the tree, too")
    } else if pty.session != 0 && !saver.is_process(pty.session) {
        Some("controlling terminal of a session outside the tree")
    } else {
        None
    };
    if let Some(what) = refused {
        saver.refuse(place, fmt!("pty {index}: {what}: not supported"));
        return Ok(None);
    }
    let file = saver.survey.ttys.masters.get(&master.addr()).cloned();
    let path = match &file {
        Some(file) => {
            let Some(path) = files::saved_path(saver, place, file)? else {
                return Ok(None);
            };
            Some(path)
        }
        None => None,
    };
    let record = Pty {
        index: index.into(),
        flags: image_flags(&pty).into(),
        pktstatus: pty.pktstatus.into(),
        mode: u32::from(pty.mode).into(),
        uid: pty.uid.into(),
        gid: pty.gid.into(),
        session: pty.session.into(),
        pgrp: pty.pgrp.into(),
        rows: pty.winsize.ws_row.into(),
        columns: pty.winsize.ws_col.into(),
        xpixel: pty.winsize.ws_xpixel.into(),
        ypixel: pty.winsize.ws_ypixel.into(),
        termios: image_termios(&pty.termios),
        locked: image_termios(&pty.termios_locked),
    };
    let path = path.as_ref().map_or(PTMX, |path| path.bytes());
    let id = saver.object(&record, &[path])?;
    saver.objects.insert(Class::Pty, master, id)?;
    if !pty.hung_up {
        for of_slave in [false, true] {
            save_queue(saver, place, master, id, of_slave)?;
        }
    }
    Ok(Some(id))
}

/// Number of the line discipline of every terminal that does not ask for another.
const N_TTY: i32 = bindings::N_TTY as i32;

/// Flags of a pty and their bits in the image.
type Flag = (fn(&mut bindings::checkpoint_pty) -> &mut bool, u32);

const FLAGS: &[Flag] = &[
    (|pty| &mut pty.hung_up, pty_flags::HUNG_UP),
    (|pty| &mut pty.locked, pty_flags::LOCKED),
    (|pty| &mut pty.packet, pty_flags::PACKET),
    (
        |pty| &mut pty.ends[0].exclusive,
        pty_flags::MASTER_EXCLUSIVE,
    ),
    (|pty| &mut pty.ends[0].stopped, pty_flags::MASTER_STOPPED),
    (
        |pty| &mut pty.ends[0].stopped_by_call,
        pty_flags::MASTER_STOPPED_BY_CALL,
    ),
    (|pty| &mut pty.ends[0].other_closed, pty_flags::SLAVE_CLOSED),
    (|pty| &mut pty.ends[1].exclusive, pty_flags::SLAVE_EXCLUSIVE),
    (|pty| &mut pty.ends[1].stopped, pty_flags::SLAVE_STOPPED),
    (
        |pty| &mut pty.ends[1].stopped_by_call,
        pty_flags::SLAVE_STOPPED_BY_CALL,
    ),
];

fn image_flags(pty: &bindings::checkpoint_pty) -> u32 {
    let mut pty = *pty;
    FLAGS.iter().fold(0, |flags, (field, bit)| {
        flags | if *field(&mut pty) { *bit } else { 0 }
    })
}

fn image_termios(termios: &bindings::ktermios) -> Termios {
    let mut cc = [0; 20];
    for (to, from) in cc.iter_mut().zip(termios.c_cc) {
        *to = from;
    }
    Termios {
        iflag: termios.c_iflag.into(),
        oflag: termios.c_oflag.into(),
        cflag: termios.c_cflag.into(),
        lflag: termios.c_lflag.into(),
        ispeed: termios.c_ispeed.into(),
        ospeed: termios.c_ospeed.into(),
        cc,
    }
}

fn kernel_termios(image: &Termios) -> bindings::ktermios {
    let mut termios = bindings::ktermios {
        c_iflag: image.iflag.get(),
        c_oflag: image.oflag.get(),
        c_cflag: image.cflag.get(),
        c_lflag: image.lflag.get(),
        c_ispeed: image.ispeed.get(),
        c_ospeed: image.ospeed.get(),
        ..Default::default()
    };
    for (to, from) in termios.c_cc.iter_mut().zip(image.cc) {
        *to = from;
    }
    termios
}

/// The state of a line discipline with nothing in it.
fn empty_state() -> Result<KBox<bindings::n_tty_state>> {
    let mut state = KBox::<bindings::n_tty_state>::new_uninit(GFP_KERNEL)?;
    // SAFETY: All zeroes is a state.
    unsafe {
        ptr::write_bytes(state.as_mut_ptr(), 0, 1);
        Ok(state.assume_init())
    }
}

fn save_queue(
    saver: &mut Saver<'_>,
    place: Place,
    master: Master,
    pty: u32,
    of_slave: bool,
) -> Result {
    let mut state = empty_state()?;
    let mut flip = KVVec::new();
    loop {
        let max = u32::try_from(flip.len())?;
        // SAFETY: An open file that stays keeps the pty; there is room for `max` bytes.
        let count = unsafe {
            bindings::checkpoint_get_tty_queue(
                master,
                of_slave,
                &mut *state,
                flip.as_mut_ptr(),
                max,
            )
        };
        if count < 0 {
            saver.refuse(place, fmt!("input with errors of a line: not supported"));
            return Ok(());
        }
        let count = usize::try_from(count)?;
        if count <= flip.len() {
            flip.truncate(count);
            break;
        }
        if count > FLIP_MAX {
            saver.refuse(place, fmt!("input of {count} bytes: not supported"));
            return Ok(());
        }
        flip.resize(count, 0, GFP_KERNEL)?;
    }
    let flags = [
        (of_slave, queue_flags::SLAVE),
        (state.lnext, queue_flags::LNEXT),
        (state.erasing, queue_flags::ERASING),
        (state.push, queue_flags::PUSH),
    ];
    let read = usize::try_from(state.read)?;
    let (input, marks, echo) = (
        state.read_buf.get(..read).ok_or(EIO)?,
        state.read_flags.get(..read.div_ceil(8)).ok_or(EIO)?,
        state
            .echo_buf
            .get(..usize::try_from(state.echo)?)
            .ok_or(EIO)?,
    );
    let len = input.len() + marks.len() + echo.len() + flip.len();
    let record = TtyQueue {
        pty: pty.into(),
        flags: flags
            .iter()
            .fold(0, |all, (set, bit)| all | if *set { *bit } else { 0 })
            .into(),
        len: u32::try_from(len)?.into(),
        read: state.read.into(),
        commit: state.commit.into(),
        canon: state.canon.into(),
        echo: state.echo.into(),
        echo_commit: state.echo_commit.into(),
        echo_mark: state.echo_mark.into(),
        column: state.column.into(),
        canon_column: state.canon_column.into(),
        flip: u32::try_from(flip.len())?.into(),
    };
    saver.put(&record, &[input, marks, echo, &flip])
}

/// Makes the pty of a record, and returns its master.
///
/// # Errors
///
/// What open(2) says, `EBUSY` when its number is taken, with a line in the report.
pub(crate) fn make(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<Pty>().map_err(|_| EINVAL)?;
    let index = record.index.get();
    make_index(path, index).inspect_err(|err| {
        let what = if *err == EBUSY {
            "its number is taken"
        } else {
            "cannot be made"
        };
        opening
            .report
            .problem(Place::Tree, fmt!("pty {index}: {what}: {err:?}"));
    })
}

/// The new pty gets the lowest free number: those below are taken until ours comes.
fn make_index(path: &[u8], index: u32) -> Result<ARef<File>> {
    let found = files::open(path, bindings::O_PATH)?;
    let stat = files::stat(&found)?;
    let is_ptmx = (stat.major, stat.minor) == (bindings::TTYAUX_MAJOR, PTMX_MINOR);
    if stat.mode & bindings::S_IFMT != bindings::S_IFCHR || !is_ptmx {
        return Err(ESTALE);
    }
    let mut below = KVVec::new();
    let made = loop {
        let flags = bindings::O_RDWR | bindings::O_NOCTTY;
        let file = match files::reopen(&found, flags) {
            Ok(file) => file,
            Err(err) => break Err(err),
        };
        // SAFETY: `file` is valid.
        let got = unsafe { bindings::checkpoint_unlock_pty(file.as_ptr()) };
        match u32::try_from(got) {
            Ok(got) if got == index => break Ok(file),
            Ok(got) if got < index => {
                if let Err(err) = below.push(file, GFP_KERNEL) {
                    break Err(err.into());
                }
            }
            Ok(_) => break Err(EBUSY),
            Err(_) => break Err(Error::from_errno(got)),
        }
    };
    for file in below {
        files::close(file);
    }
    made
}

/// Minor number of /dev/ptmx.
const PTMX_MINOR: u32 = 2;

/// Opens an end of what [`make`] has made.
///
/// # Errors
///
/// What open(2) says, or `ESTALE`, with a line in the report.
pub(crate) fn open(opening: &mut Opening<'_>, record: &RecordRef<'_>) -> Result<ARef<File>> {
    let (record, path) = record.get::<FileTty>().map_err(|_| EINVAL)?;
    let made = opening.plan.file(record.pty.get())?;
    let name: &kernel::str::BStr = path.as_ref();
    open_end(&made, record, path).inspect_err(|err| {
        let what = if *err == ESTALE {
            "is not the terminal that it was"
        } else {
            "cannot be opened"
        };
        opening
            .report
            .problem(Place::Tree, fmt!("terminal {name}: {what}: {err:?}"));
    })
}

fn open_end(made: &ARef<File>, record: &FileTty, path: &[u8]) -> Result<ARef<File>> {
    let flags = files::open_flags(record.flags.get());
    if record.end.get() == tty_end::MASTER {
        let status = bindings::O_NONBLOCK | bindings::O_LARGEFILE;
        // SAFETY: `made` is valid and nobody uses it yet.
        unsafe {
            let raw = made.as_ptr();
            (*raw).f_flags = (*raw).f_flags & !status | flags & status;
        }
        return Ok(made.clone());
    }
    let found = files::open(path, bindings::O_PATH)?;
    if files::file_type(&found) != bindings::S_IFCHR {
        return Err(ESTALE);
    }
    let stat = files::stat(&found)?;
    let file = if record.end.get() == tty_end::CURRENT {
        if (stat.major, stat.minor) != (bindings::TTYAUX_MAJOR, 0) {
            return Err(ESTALE);
        }
        let path = files::string(path)?;
        // SAFETY: `made` is valid, and `path` is a string.
        files::owned(unsafe {
            bindings::checkpoint_open_current_tty(
                made.as_ptr(),
                path.as_ptr().cast(),
                i32::try_from(flags)?,
            )
        })?
    } else {
        let majors = bindings::UNIX98_PTY_SLAVE_MAJOR;
        if !(majors..majors + bindings::UNIX98_PTY_MAJOR_COUNT).contains(&stat.major) {
            return Err(ESTALE);
        }
        files::reopen(&found, flags | bindings::O_NOCTTY)?
    };
    if master(&file) != master(made) {
        return Err(ESTALE);
    }
    Ok(file)
}

/// Gives a pty, of which the tree has all open files, its settings.
///
/// # Errors
///
/// What is not permitted, with a line in the report.
pub(crate) fn finish(file: &File, record: &RecordRef<'_>, report: &mut Report) -> Result {
    let (record, _) = record.get::<Pty>().map_err(|_| EINVAL)?;
    let flags = record.flags.get();
    if flags & pty_flags::HUNG_UP != 0 {
        return Ok(());
    }
    let mut pty = bindings::checkpoint_pty {
        pktstatus: record.pktstatus.get(),
        termios: kernel_termios(&record.termios),
        termios_locked: kernel_termios(&record.locked),
        winsize: bindings::winsize {
            ws_row: record.rows.get(),
            ws_col: record.columns.get(),
            ws_xpixel: record.xpixel.get(),
            ws_ypixel: record.ypixel.get(),
        },
        ..Default::default()
    };
    for (field, bit) in FLAGS {
        *field(&mut pty) = flags & bit != 0;
    }
    let (uid, gid, mode) = (record.uid.get(), record.gid.get(), record.mode.get());
    let index = record.index.get();
    let permissions = u16::try_from(mode & 0o7777)?;
    // SAFETY: `file` is valid, and nobody uses it yet.
    let set = unsafe {
        to_result(bindings::checkpoint_set_pty(file.as_ptr(), &pty)).and_then(|()| {
            to_result(bindings::checkpoint_set_pty_node(
                file.as_ptr(),
                permissions,
                uid,
                gid,
            ))
        })
    };
    set.inspect_err(|err| {
        report.problem(
            Place::Tree,
            fmt!("pty {index}: owner {uid}, group {gid}, mode {permissions:#o}: {err:?}"),
        );
    })
}

/// Makes a pty the controlling terminal of the session that `leader` leads, as its record says.
///
/// # Errors
///
/// `EPERM` when `leader` leads none, or the foreground group is of another, with a line in the
/// report.
///
/// # Safety
///
/// `leader` is valid.
pub(crate) unsafe fn set_session(
    file: &File,
    record: &Pty,
    leader: *mut bindings::task_struct,
    report: &mut Report,
) -> Result {
    let (session, pgrp) = (record.session.get(), record.pgrp.get());
    // SAFETY: `file` is valid, `leader` by the safety requirement.
    let set =
        to_result(unsafe { bindings::checkpoint_set_tty_session(file.as_ptr(), leader, pgrp) });
    set.inspect_err(|err| {
        let index = record.index.get();
        report.problem(
            Place::Tree,
            fmt!("pty {index}: session {session}, foreground group {pgrp}: {err:?}"),
        );
    })
}

/// Lets an end of a pty have received what a record says.
///
/// # Errors
///
/// `ENOSPC` when it takes no more, `ENOMEM`.
pub(crate) fn fill(file: &File, record: &TtyQueue, tail: &[u8]) -> Result {
    let received = record.split(tail).ok_or(EINVAL)?;
    let flags = record.flags.get();
    let mut state = empty_state()?;
    state.read = record.read.get();
    state.commit = record.commit.get();
    state.canon = record.canon.get();
    state.echo = record.echo.get();
    state.echo_commit = record.echo_commit.get();
    state.echo_mark = record.echo_mark.get();
    state.column = record.column.get();
    state.canon_column = record.canon_column.get();
    state.lnext = flags & queue_flags::LNEXT != 0;
    state.erasing = flags & queue_flags::ERASING != 0;
    state.push = flags & queue_flags::PUSH != 0;
    copy(&mut state.read_buf, received.input);
    copy(&mut state.read_flags, received.marks);
    copy(&mut state.echo_buf, received.echo);
    // SAFETY: `file` is valid; no position is past the end of its buffer, as the image's check
    // says.
    to_result(unsafe {
        bindings::checkpoint_set_tty_queue(
            file.as_ptr(),
            flags & queue_flags::SLAVE != 0,
            &*state,
            received.rest.as_ptr(),
            u32::try_from(received.rest.len())?,
        )
    })
}

fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// Makes the pty that `file` is the master of the controlling terminal of the process of `task`.
///
/// # Errors
///
/// `EPERM` when it controls another session.
///
/// # Safety
///
/// `task` is valid, and has not been in user mode.
pub(crate) unsafe fn set_controlling(file: &File, task: *mut bindings::task_struct) -> Result {
    // SAFETY: `file` is valid, `task` by the safety requirement.
    to_result(unsafe { bindings::checkpoint_set_controlling_tty(file.as_ptr(), task) })
}
