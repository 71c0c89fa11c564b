// SPDX-License-Identifier: GPL-2.0

//! Unix sockets: names, connections, queues with files and credentials in them.
//!
//! Not all sockets have a file: a connection that waits to be accepted has none, and one that is
//! gone is still the peer of another, or the sender of a message. Two that are connected to each
//! other are mates: the second says so. Who else sends to whom, and what is in the queues, comes
//! after all sockets, and after the files that are only in queues: see [`finish`]. At a restart the
//! sockets are made when all tasks exist, whose numbers their credentials have.
//!
//! Locks: the lock of a queue's readers, while messages are copied; nothing is saved under it.

use core::{
    mem::MaybeUninit,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    bindings,
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    rbtree::RBTree,
    sync::aref::ARef,
    task::Pid, //
};

use zerocopy::IntoBytes;

use crate::{
    files::{
        self,
        external,
        HasPath, //
    },
    image::{
        record::{
            message_flags,
            socket_flags,
            socket_role,
            socket_state,
            socket_type,
            FileRef,
            UnixLink,
            UnixMessage,
            UnixPending,
            UnixSocket, //
        },
        RecordRef, //
    },
    numbers::{
        Bits,
        Numbers, //
    },
    objects::Class,
    plan::Opening,
    report::Place,
    save::Saver,
    stream::resize, //
};

/// Types of sockets, and their numbers in the image.
const TYPES: Numbers = Numbers(&[
    (bindings::sock_type_SOCK_STREAM, socket_type::STREAM),
    (bindings::sock_type_SOCK_DGRAM, socket_type::DGRAM),
    (bindings::sock_type_SOCK_SEQPACKET, socket_type::SEQPACKET),
]);

/// States of sockets, and their numbers in the image.
const STATES: Numbers = Numbers(&[
    (bindings::TCP_CLOSE, socket_state::CLOSED),
    (bindings::TCP_ESTABLISHED, socket_state::CONNECTED),
    (bindings::TCP_LISTEN, socket_state::LISTENING),
]);

/// Flags of a socket, and their bits in the image.
const FLAGS: Bits = Bits(&[
    (bindings::CHECKPOINT_UNIX_PEERCRED, socket_flags::PEERCRED),
    (bindings::CHECKPOINT_UNIX_PASSCRED, socket_flags::PASSCRED),
    (bindings::CHECKPOINT_UNIX_PASSPIDFD, socket_flags::PASSPIDFD),
    (bindings::CHECKPOINT_UNIX_PASSSEC, socket_flags::PASSSEC),
    (bindings::CHECKPOINT_UNIX_NO_RIGHTS, socket_flags::NO_RIGHTS),
    (bindings::CHECKPOINT_UNIX_INQ, socket_flags::INQ),
    (
        bindings::CHECKPOINT_UNIX_RIGHTS_NOTRUNC,
        socket_flags::RIGHTS_NOTRUNC,
    ),
    (bindings::CHECKPOINT_UNIX_OOBINLINE, socket_flags::OOBINLINE),
    (bindings::CHECKPOINT_UNIX_REUSEADDR, socket_flags::REUSEADDR),
    (bindings::CHECKPOINT_UNIX_KEEPALIVE, socket_flags::KEEPALIVE),
    (bindings::CHECKPOINT_UNIX_BROADCAST, socket_flags::BROADCAST),
    (bindings::CHECKPOINT_UNIX_DONTROUTE, socket_flags::DONTROUTE),
    (bindings::CHECKPOINT_UNIX_LINGER, socket_flags::LINGER),
    (bindings::CHECKPOINT_UNIX_TIMESTAMP, socket_flags::TIMESTAMP),
    (
        bindings::CHECKPOINT_UNIX_TIMESTAMPNS,
        socket_flags::TIMESTAMPNS,
    ),
    (
        bindings::CHECKPOINT_UNIX_TIMESTAMP_NEW,
        socket_flags::TIMESTAMP_NEW,
    ),
    (
        bindings::CHECKPOINT_UNIX_TIMESTAMPNS_NEW,
        socket_flags::TIMESTAMPNS_NEW,
    ),
    (bindings::CHECKPOINT_UNIX_SNDBUF, socket_flags::SNDBUF),
    (bindings::CHECKPOINT_UNIX_RCVBUF, socket_flags::RCVBUF),
    (bindings::CHECKPOINT_UNIX_BOUND, socket_flags::BOUND),
]);

/// A unix socket, with a reference.
///
/// # Invariants
///
/// The pointer is valid, and the reference is ours.
pub(crate) struct Sock(NonNull<bindings::sock>);

impl Sock {
    /// The socket behind `file`, if it is one.
    fn of(file: &File) -> Option<Self> {
        // SAFETY: `file` keeps its socket.
        unsafe { Self::get(identity(file)?) }
    }

    /// Takes a reference, unless `sk` is on its way out.
    ///
    /// # Safety
    ///
    /// `sk` is valid.
    unsafe fn get(sk: NonNull<bindings::sock>) -> Option<Self> {
        // SAFETY: By the safety requirement.
        let held = unsafe { bindings::checkpoint_sock_hold(sk.as_ptr()) };
        // INVARIANT: The reference has just been taken.
        held.then_some(Self(sk))
    }

    /// Another reference.
    fn again(&self) -> Result<Self> {
        // SAFETY: By the type invariant.
        unsafe { Self::get(self.0) }.ok_or(ESTALE)
    }

    fn as_raw(&self) -> *mut bindings::sock {
        self.0.as_ptr()
    }

    fn peer(&self) -> Option<Self> {
        // SAFETY: By the type invariant. The peer comes with a reference.
        let peer = unsafe { bindings::checkpoint_unix_peer(self.as_raw()) };
        // INVARIANT: As above.
        NonNull::new(peer).map(Self)
    }

    /// Whether its queue is empty.
    fn is_idle(&self) -> bool {
        // SAFETY: By the type invariant; nothing is written.
        unsafe { bindings::checkpoint_unix_queue(self.as_raw(), ptr::null_mut(), 0) == 0 }
    }

    /// The entries of its queue.
    fn queue(&self) -> Result<KVVec<Entry>> {
        let mut room = 0;
        loop {
            let mut entries = KVVec::from_elem(ptr::null_mut(), room, GFP_KERNEL)?;
            // SAFETY: By the type invariant, and `entries` has so much room.
            let count = unsafe {
                bindings::checkpoint_unix_queue(
                    self.as_raw(),
                    entries.as_mut_ptr(),
                    u32::try_from(room)?,
                )
            };
            let count = usize::try_from(count)?;
            let mut owned = KVVec::with_capacity(room.min(count), GFP_KERNEL)?;
            for entry in entries.into_iter().take(count) {
                // INVARIANT: Each comes with a reference.
                owned.push(Entry(NonNull::new(entry).ok_or(EINVAL)?), GFP_KERNEL)?;
            }
            if count <= room {
                return Ok(owned);
            }
            room = count;
        }
    }
}

impl Drop for Sock {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { bindings::checkpoint_sock_put(self.as_raw()) };
    }
}

/// Whose `sk` is.
///
/// # Safety
///
/// `sk` is valid.
unsafe fn owner(sk: *mut bindings::sock) -> Owner {
    let mut listener = ptr::null();
    // SAFETY: By the safety requirement.
    let file = unsafe { bindings::checkpoint_unix_owner(sk, &mut listener) };
    if !file.is_null() {
        Owner::File(file.addr())
    } else if !listener.is_null() {
        Owner::Listener(listener.addr())
    } else {
        Owner::Nobody
    }
}

/// Whose a socket is, as identities.
enum Owner {
    /// An open file's.
    File(usize),
    /// Nobody's yet: a connection to this socket.
    Listener(usize),
    /// Nobody's any more.
    Nobody,
}

/// An entry of a queue, with a reference.
///
/// # Invariants
///
/// The pointer is valid, and the reference is ours.
struct Entry(NonNull<bindings::sk_buff>);

impl Entry {
    /// The socket that sent it, or, of a socket that listens, the connection. The entry keeps it.
    fn sender(&self) -> *mut bindings::sock {
        // SAFETY: By the type invariant.
        unsafe { (*self.0.as_ptr()).sk }
    }

    /// The connection, unless it is on its way out.
    fn connection(&self) -> Option<Sock> {
        // SAFETY: An entry keeps the socket that it is charged to.
        unsafe { Sock::get(NonNull::new(self.sender())?) }
    }

    /// The files in it, whose queue is locked.
    fn files(&self, count: u32) -> Result<KVVec<ARef<File>>> {
        let mut files = KVVec::new();
        for index in 0..count {
            // SAFETY: By the type invariant; the file comes with a reference.
            let file = unsafe { bindings::checkpoint_unix_message_file(self.0.as_ptr(), index) };
            files.push(files::owned(file)?, GFP_KERNEL)?;
        }
        Ok(files)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the reference is ours.
        unsafe { bindings::checkpoint_unix_put_skb(self.0.as_ptr()) };
    }
}

/// Nobody takes messages out of the queue meanwhile.
struct Locked<'a>(&'a Sock);

impl<'a> Locked<'a> {
    fn new(sock: &'a Sock) -> Self {
        // SAFETY: By the type invariant of `Sock`.
        unsafe { bindings::checkpoint_unix_lock_queue(sock.as_raw()) };
        Self(sock)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: The lock has been taken by `new`.
        unsafe { bindings::checkpoint_unix_unlock_queue(self.0.as_raw()) };
    }
}

/// A message, taken down.
struct Message {
    /// Keeps the sender.
    entry: Entry,
    state: bindings::checkpoint_unix_message,
    files: KVVec<ARef<File>>,
    data: KVVec<u8>,
}

/// The messages in the queue of `sock`, which does not listen.
fn take_down(sock: &Sock) -> Result<KVVec<Message>> {
    let mut messages = KVVec::new();
    let _locked = Locked::new(sock);
    for entry in sock.queue()? {
        let mut state = bindings::checkpoint_unix_message::default();
        // SAFETY: Both are valid.
        unsafe {
            bindings::checkpoint_unix_get_message(sock.as_raw(), entry.0.as_ptr(), &mut state);
        }
        // Of bytes that have been read only a mark is left.
        let (from, len) = if state.len == 0 && state.consumed != 0 {
            (state.consumed - 1, 1)
        } else {
            (state.consumed, state.len)
        };
        let mut data = KVVec::new();
        resize(&mut data, usize::try_from(len)?, GFP_KERNEL)?;
        // SAFETY: `data` has so much room.
        to_result(unsafe {
            bindings::skb_copy_bits(
                entry.0.as_ptr(),
                i32::try_from(from)?,
                data.as_mut_ptr().cast(),
                i32::try_from(len)?,
            )
        })?;
        let message = Message {
            files: entry.files(state.files)?,
            entry,
            state,
            data,
        };
        messages.push(message, GFP_KERNEL)?;
    }
    Ok(messages)
}

/// Whether there may be files in the queue of a socket, or of a connection to it.
///
/// # Safety
///
/// `sk` is valid.
pub(crate) unsafe fn may_have_files(sk: NonNull<bindings::sock>) -> bool {
    // SAFETY: By the safety requirement.
    unsafe { bindings::checkpoint_unix_may_have_files(sk.as_ptr()) }
}

/// Calls `act` with each file that is in the queue of the socket behind `file`, or of a connection
/// to it.
pub(crate) fn each_queued(file: &File, mut act: impl FnMut(ARef<File>) -> Result) -> Result {
    let Some(sock) = Sock::of(file) else {
        return Ok(());
    };
    let mut queues = KVVec::new();
    if is_listening(&sock) {
        for entry in sock.queue()? {
            if let Some(connection) = entry.connection() {
                queues.push(connection, GFP_KERNEL)?;
            }
        }
    } else {
        queues.push(sock, GFP_KERNEL)?;
    }
    for sock in queues {
        let mut queued = KVVec::new();
        let locked = Locked::new(&sock);
        for entry in sock.queue()? {
            let mut state = bindings::checkpoint_unix_message::default();
            // SAFETY: Both are valid.
            unsafe {
                bindings::checkpoint_unix_get_message(sock.as_raw(), entry.0.as_ptr(), &mut state);
            }
            for file in entry.files(state.files)? {
                queued.push(file, GFP_KERNEL)?;
            }
        }
        drop(locked);
        for file in queued {
            act(file)?;
        }
    }
    Ok(())
}

fn is_listening(sock: &Sock) -> bool {
    // SAFETY: `sock` is valid. A socket that listens does not stop to do so while it is open.
    u32::from(unsafe { (*sock.as_raw()).__sk_common.skc_state }) == bindings::TCP_LISTEN
}

/// Whether `sk` belongs to the tree; `None` if it is nobody's any more.
///
/// # Safety
///
/// `sk` is valid.
unsafe fn is_ours(saver: &Saver<'_>, sk: *mut bindings::sock) -> Option<bool> {
    // SAFETY: By the safety requirement.
    match unsafe { owner(sk) } {
        Owner::File(file) => Some(saver.survey.has(file)),
        Owner::Listener(listener) => Some(saver.survey.has_socket(listener)),
        Owner::Nobody => None,
    }
}

/// Whether a peer lives outside the tree.
fn is_outside(saver: &Saver<'_>, peer: Option<&Sock>) -> bool {
    // SAFETY: The pointer of a `Sock` is valid.
    peer.is_some_and(|peer| unsafe { is_ours(saver, peer.as_raw()) } == Some(false))
}

/// Whether a socket is connected to one that is outside the tree, or such a one waits for it.
pub(crate) fn leads_outside(saver: &Saver<'_>, file: &File) -> bool {
    Sock::of(file).is_some_and(|sock| leads_outside_from(saver, &sock, sock.peer().as_ref()))
}

fn leads_outside_from(saver: &Saver<'_>, sock: &Sock, peer: Option<&Sock>) -> bool {
    if !is_listening(sock) {
        return is_outside(saver, peer);
    }
    // What cannot be read is found again when the socket is saved.
    sock.queue().unwrap_or_default().iter().any(|entry| {
        let pending = entry.connection();
        pending.is_some_and(|pending| is_outside(saver, pending.peer().as_ref()))
    })
}

/// Every unix socket.
pub(crate) fn takes(_: &Saver<'_>, _: Option<u32>, file: &File) -> bool {
    identity(file).is_some()
}

/// The socket behind `file`, which keeps it.
pub(crate) fn identity(file: &File) -> Option<NonNull<bindings::sock>> {
    // SAFETY: `file` is valid.
    NonNull::new(unsafe { bindings::checkpoint_unix_sock(file.as_ptr()) })
}

/// What is known of a socket, of which there may be more than files of the tree.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known {
    /// The tree has it open.
    pub(crate) is_open: bool,
    /// Its number in the image.
    id: Option<u32>,
    /// The records so far have whom it sends to, which is nobody if it is gone.
    is_linked: bool,
}

/// What is known of `sk`.
fn known(saver: &Saver<'_>, sk: *const bindings::sock) -> Known {
    saver
        .survey
        .sockets
        .get(Class::Sock, sk)
        .unwrap_or_default()
}

/// What is known of `sk`, to be changed.
fn known_mut<'a>(saver: &'a mut Saver<'_>, sk: *const bindings::sock) -> Result<&'a mut Known> {
    let sockets = &mut saver.survey.sockets;
    let (known, _) = sockets.get_or_insert(Class::Sock, sk, Known::default())?;
    Ok(known)
}

/// Saves an open socket. What is in its queue, and whom it is connected to, is left to [`finish`].
pub(crate) fn save(saver: &mut Saver<'_>, place: Place, file: &ARef<File>) -> Result<Option<u32>> {
    let sock = Sock::of(file).ok_or(EBADF)?;
    let peer = sock.peer();
    let outside = leads_outside_from(saver, &sock, peer.as_ref());
    if outside && !saver.survey.drops(file) {
        external::refuse(saver, place, file, fmt!("connected to outside the tree"));
        return Ok(None);
    }
    // SAFETY: `sock` is valid; the names are constants.
    let blocker = unsafe { bindings::checkpoint_unix_blocker(sock.as_raw()) };
    if !blocker.is_null() {
        // SAFETY: As above.
        let blocker = unsafe { CStr::from_char_ptr(blocker) };
        saver.refuse(
            place,
            fmt!("{}: {blocker}: not supported", files::Name(file)),
        );
        return Ok(None);
    }
    // It is only saved if its other side is to be gone.
    let cut = outside && !is_listening(&sock);
    let role = Role::Open(file);
    save_held(saver, place, sock, peer, role, cut)
}

/// Who has a socket.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// This file.
    Open(&'a File),
    /// The queue of one that listens.
    Pending,
    /// Nobody: it is gone.
    Gone,
}

/// Saves a socket, whose connection may be `cut`, and leaves its queue to [`finish`], and its peer
/// if that is not in the plan yet.
fn save_held(
    saver: &mut Saver<'_>,
    place: Place,
    sock: Sock,
    peer: Option<Sock>,
    role: Role<'_>,
    cut: bool,
) -> Result<Option<u32>> {
    let mate = peer.as_ref().filter(|_| !cut).and_then(|peer| {
        let known = known(saver, peer.as_raw());
        let sends_back = || peer.peer().is_some_and(|back| back.0 == sock.0);
        let id = known.id.filter(|_| !known.is_linked && sends_back())?;
        Some((peer, id))
    });
    // SAFETY: The pointer of a `Sock` is valid.
    let saved = unsafe { save_socket(saver, place, sock.as_raw(), mate, role, cut) }?;
    // What has a mate and an empty queue is complete, and kept by its file.
    let complete = mate.is_some() && matches!(role, Role::Open(_)) && sock.is_idle();
    if let Some(id) = saved.filter(|_| !complete) {
        let socket = Socket {
            sock,
            peer,
            id,
            place,
            queue: Queue::Empty,
        };
        saver.sockets.push(socket, GFP_KERNEL)?;
    }
    Ok(saved)
}

/// Saves a socket that has not been saved; if its connection is `cut`, as the peer's close(2) does
/// it. A `mate` is in the plan.
///
/// # Safety
///
/// `sk` is valid, and stays so until the image is complete.
unsafe fn save_socket(
    saver: &mut Saver<'_>,
    place: Place,
    sk: *mut bindings::sock,
    mate: Option<(&Sock, u32)>,
    role: Role<'_>,
    cut: bool,
) -> Result<Option<u32>> {
    let mut state = MaybeUninit::<bindings::checkpoint_unix>::uninit();
    let mut bound = MaybeUninit::<bindings::path>::uninit();
    // SAFETY: `sk` is valid. The function writes both; the path comes with a reference, if it is
    // one.
    let (state, bound) = unsafe {
        bindings::checkpoint_unix_get(sk, state.as_mut_ptr(), bound.as_mut_ptr());
        (state.assume_init_ref(), bound.assume_init())
    };
    let _put = kernel::types::ScopeGuard::new(|| {
        // SAFETY: The reference is ours, and there may be none.
        unsafe { bindings::path_put(&bound) }
    });

    let mut flags = FLAGS.to_image(state.flags);
    if state.shutdown & bindings::RCV_SHUTDOWN != 0 {
        flags |= socket_flags::SHUT_RD;
    }
    if state.shutdown & bindings::SEND_SHUTDOWN != 0 {
        flags |= socket_flags::SHUT_WR;
    }
    if cut && state.type_ != bindings::sock_type_SOCK_DGRAM {
        flags |= socket_flags::SHUT_RD | socket_flags::SHUT_WR;
    }
    let file = match role {
        Role::Open(file) => Some(file),
        Role::Pending | Role::Gone => None,
    };
    if file.is_none() {
        // It shows its name, and nobody finds it.
        flags &= !socket_flags::BOUND;
    }
    let mut path = None;
    let mut mode = 0;
    if !bound.dentry.is_null() && file.is_some() {
        // SAFETY: The path is valid.
        unsafe {
            mode = (*(*bound.dentry).d_inode).i_mode;
            if !bindings::checkpoint_path_unlinked(&bound) {
                path = files::Path::from_root(&bound)?;
                if path.is_none() {
                    saver.refuse(
                        place,
                        fmt!("socket bound where no path leads to: not supported"),
                    );
                    return Ok(None);
                }
            }
        }
        if path.is_none() {
            // The name was removed: nobody finds it any more.
            flags &= !socket_flags::BOUND;
        }
    }
    let path = path.as_ref().map_or(&[][..], files::Path::bytes);
    let name = state.name.as_bytes();
    let name = name.get(..usize::try_from(state.name_len)?).ok_or(EINVAL)?;
    let gone = matches!(role, Role::Gone);
    let record = UnixSocket {
        socket_type: TYPES.to_image(state.type_).ok_or(EINVAL)?.into(),
        role: match role {
            Role::Open(_) => socket_role::OPEN,
            Role::Pending => socket_role::PENDING,
            Role::Gone => socket_role::GONE,
        }
        .into(),
        // One that is gone was connected: so is what replaces it until it is gone, too.
        state: if gone {
            socket_state::CONNECTED
        } else {
            STATES.to_image(state.state).ok_or(EINVAL)?
        }
        .into(),
        flags: if gone { 0 } else { flags }.into(),
        backlog: state.backlog.into(),
        err: u32::try_from(state.err)?.into(),
        sndbuf: state.sndbuf.into(),
        rcvbuf: state.rcvbuf.into(),
        rcvtimeo_ns: state.rcvtimeo_ns.into(),
        sndtimeo_ns: state.sndtimeo_ns.into(),
        rcvlowat: state.rcvlowat.max(1).into(),
        peek_off: state.peek_off.into(),
        priority: state.priority.into(),
        linger: state.linger.into(),
        peer_pid: state.peer_pid.into(),
        peer_uid: state.peer_uid.into(),
        peer_gid: state.peer_gid.into(),
        mode: mode.into(),
        file_mode: u16::try_from(file.map_or(0, files::file_mode))?.into(),
        name_len: u32::try_from(name.len())?.into(),
        tail_len: u32::try_from(name.len() + path.len())?.into(),
        file_flags: file.map_or(0, files::image_flags).into(),
        mate: mate.map_or(0, |(_, id)| id).into(),
    };
    let id = if name.is_empty() {
        saver.object(&record, &[])?
    } else {
        saver.object(&record, &[name, path])?
    };
    if let Some((mate, _)) = mate {
        known_mut(saver, mate.as_raw())?.is_linked = true;
    }
    *known_mut(saver, sk)? = Known {
        is_open: file.is_some(),
        id: Some(id),
        is_linked: gone || mate.is_some(),
    };
    Ok(Some(id))
}

/// A socket that has been saved, and is not gone.
pub(crate) struct Socket {
    sock: Sock,
    peer: Option<Sock>,
    id: u32,
    place: Place,
    queue: Queue,
}

/// What is in the queue of a socket.
enum Queue {
    Empty,
    Messages(KVVec<Message>),
    /// Connections, by the numbers of their records.
    Pending(KVVec<u32>),
}

/// Saves what is in the queues of all sockets that were saved, and of those that are found in them;
/// then who is connected to whom.
pub(crate) fn finish(saver: &mut Saver<'_>) -> Result {
    let mut at = 0;
    while let Some(socket) = saver.sockets.get(at) {
        let place = socket.place;
        let waiting = (!socket.sock.is_idle())
            .then(|| socket.sock.again())
            .transpose()?;
        if let Some(peer) = &socket.peer {
            let peer = peer.as_raw();
            // SAFETY: The socket keeps its peer.
            unsafe { save_stranger(saver, place, peer) }?;
        }
        let index = at;
        at += 1;
        let Some(sock) = waiting else {
            continue;
        };
        let queue = if is_listening(&sock) {
            let mut pending = KVVec::new();
            for entry in sock.queue()? {
                let Some(connection) = entry.connection() else {
                    continue;
                };
                let peer = connection.peer();
                let cut = is_outside(saver, peer.as_ref());
                let saved = save_held(saver, place, connection, peer, Role::Pending, cut)?;
                if let Some(id) = saved {
                    pending.push(id, GFP_KERNEL)?;
                }
            }
            Queue::Pending(pending)
        } else {
            let messages = take_down(&sock)?;
            for message in messages.iter() {
                for file in message.files.iter() {
                    files::save_file(saver, place, None, file)?;
                }
                // SAFETY: The message keeps its sender.
                unsafe { save_stranger(saver, place, message.entry.sender()) }?;
            }
            Queue::Messages(messages)
        };
        saver.sockets.get_mut(index).ok_or(EINVAL)?.queue = queue;
    }
    let sockets = core::mem::replace(&mut saver.sockets, KVVec::new());
    for socket in sockets.iter() {
        put_links(saver, socket)?;
    }
    for socket in sockets.iter() {
        put_messages(saver, socket)?;
    }
    Ok(())
}

/// Saves as gone what is no socket of the tree.
///
/// # Safety
///
/// As for [`save_socket`].
unsafe fn save_stranger(saver: &mut Saver<'_>, place: Place, sk: *mut bindings::sock) -> Result {
    // SAFETY: By the safety requirement.
    unsafe {
        if known(saver, sk).id.is_none() && is_ours(saver, sk) != Some(true) {
            save_socket(saver, place, sk, None, Role::Gone, false)?;
        }
    }
    Ok(())
}

/// Whom a socket sends to, and what waits for it.
fn put_links(saver: &mut Saver<'_>, socket: &Socket) -> Result {
    if let Queue::Pending(pending) = &socket.queue {
        for pending in pending.iter() {
            let record = UnixPending {
                listener: socket.id.into(),
                socket: (*pending).into(),
            };
            saver.put(&record, &[])?;
        }
    }
    if let Some(peer) = &socket.peer {
        // Without a number the peer, or its file, was refused.
        let to = known(saver, peer.as_raw()).id;
        let is_linked = known(saver, socket.sock.as_raw()).is_linked;
        if let Some(peer) = to.filter(|_| !is_linked) {
            let record = UnixLink {
                socket: socket.id.into(),
                peer: peer.into(),
            };
            saver.put(&record, &[])?;
        }
    }
    Ok(())
}

fn put_messages(saver: &mut Saver<'_>, socket: &Socket) -> Result {
    let Queue::Messages(messages) = &socket.queue else {
        return Ok(());
    };
    for message in messages.iter() {
        let Some(sender) = known(saver, message.entry.sender()).id else {
            // It was refused.
            continue;
        };
        let mut refs = KVVec::with_capacity(message.files.len(), GFP_KERNEL)?;
        for file in message.files.iter() {
            // Without a number it was refused.
            let id = saver.survey.saved(file.as_ptr()).id().unwrap_or(0);
            refs.push(FileRef { file: id.into() }, GFP_KERNEL)?;
        }
        let state = &message.state;
        let mut flags = 0;
        if state.creds {
            flags |= message_flags::CREDS;
        }
        if state.oob {
            flags |= message_flags::OOB;
        }
        if state.len == 0 && state.consumed != 0 {
            flags |= message_flags::READ;
        }
        let record = UnixMessage {
            socket: socket.id.into(),
            sender: sender.into(),
            flags: flags.into(),
            pid: state.pid.into(),
            uid: state.uid.into(),
            gid: state.gid.into(),
            stamp_ns: state.stamp_ns.into(),
            files: u32::try_from(refs.len())?.into(),
            bytes: u32::try_from(message.data.len())?.into(),
        };
        saver.put(&record, &[refs.as_bytes(), &message.data])?;
    }
    Ok(())
}

/// A socket on its way back.
pub(crate) struct Made {
    sock: Sock,
    /// Nobody has it: it has to be released.
    bare: bool,
    gone: bool,
    shutdown: u32,
    err: i32,
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.bare {
            // SAFETY: Nobody has it, and it is released once.
            unsafe { bindings::checkpoint_unix_release(self.sock.as_raw()) };
        }
    }
}

/// A process by the number that it had.
///
/// # Invariants
///
/// The pointer is valid, and the reference is ours.
pub(crate) struct SavedPid(NonNull<bindings::pid>);

impl Drop for SavedPid {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::checkpoint_put_pid(self.0.as_ptr()) };
    }
}

/// Sockets on their way back.
pub(crate) struct Sockets {
    /// By the ids of their records.
    made: KVVec<(u32, Made)>,
    /// Processes that credentials name: the same ones for the same numbers.
    pids: RBTree<Pid, SavedPid>,
}

impl Sockets {
    pub(crate) fn new() -> Self {
        Self {
            made: KVVec::new(),
            pids: RBTree::new(),
        }
    }

    fn position(&self, id: u32) -> Result<usize> {
        let (first, _) = self.made.first().ok_or(EINVAL)?;
        // Sockets often follow one another in the image.
        let guess = usize::try_from(id.wrapping_sub(*first))?;
        if self.made.get(guess).is_some_and(|(of, _)| *of == id) {
            return Ok(guess);
        }
        let found = self.made.binary_search_by_key(&id, |(id, _)| *id);
        found.map_err(|_| EINVAL)
    }

    fn get(&self, id: u32) -> Result<&Made> {
        Ok(&self.made.get(self.position(id)?).ok_or(EINVAL)?.1)
    }

    fn get_mut(&mut self, id: u32) -> Result<&mut Made> {
        let at = self.position(id)?;
        Ok(&mut self.made.get_mut(at).ok_or(EINVAL)?.1)
    }

    /// Has a socket send to a peer.
    fn link(&self, socket: u32, peer: u32) -> Result {
        let (socket, peer) = (self.get(socket)?, self.get(peer)?);
        if socket.gone {
            return Err(EINVAL);
        }
        // SAFETY: Both are valid, and nobody else has them yet.
        to_result(unsafe {
            bindings::checkpoint_unix_link(socket.sock.as_raw(), peer.sock.as_raw())
        })
    }

    /// The process that had the number `nr`, or null for 0.
    fn pid(&mut self, nr: Pid, ours: bool) -> Result<*mut bindings::pid> {
        if nr == 0 {
            return Ok(ptr::null_mut());
        }
        if let Some(pid) = self.pids.get(&nr) {
            return Ok(pid.0.as_ptr());
        }
        // SAFETY: The function looks for the number in the caller's pid namespace.
        let pid = from_err_ptr(unsafe { bindings::checkpoint_saved_pid(nr, ours) })?;
        let pid = NonNull::new(pid).ok_or(ESRCH)?;
        // INVARIANT: It comes with a reference.
        let saved = SavedPid(pid);
        self.pids.try_create_and_insert(nr, saved, GFP_KERNEL)?;
        Ok(pid.as_ptr())
    }
}

/// What is wrong with a socket, in words.
type Wrong = (Error, &'static str);

/// Makes the socket of a record, and returns its file, if it has one.
///
/// # Errors
///
/// What the calls say by which a program would make it, with a line in the report.
pub(crate) fn make(
    opening: &mut Opening<'_>,
    record: &RecordRef<'static>,
) -> Result<Option<ARef<File>>> {
    let id = record.id;
    let (record, tail) = record.get::<UnixSocket>().map_err(|_| EINVAL)?;
    let (name, path) = record.split(tail).ok_or(EINVAL)?;
    let path = opening.locate(path)?;
    let (made, file) = try_make(opening, record, name, &path).map_err(|(err, what)| {
        let shown = Shown { id, name };
        opening
            .report
            .problem(Place::Tree, fmt!("{shown}: {what}: {err:?}"));
        err
    })?;
    opening.sockets.made.push((id, made), GFP_KERNEL)?;
    Ok(file)
}

/// What a socket is called in messages.
struct Shown<'a> {
    id: u32,
    name: &'a [u8],
}

impl kernel::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        let name = self.name.strip_suffix(b"\0").unwrap_or(self.name);
        let (mark, name) = match name.strip_prefix(b"\0") {
            Some(name) => ("@", name),
            None => ("", name),
        };
        if name.is_empty() {
            return write!(f, "socket {}", self.id);
        }
        write!(f, "socket {mark}")?;
        kernel::fmt::Display::fmt(kernel::str::BStr::from_bytes(name), f)
    }
}

fn try_make(
    opening: &mut Opening<'_>,
    record: &UnixSocket,
    name: &[u8],
    path: &[u8],
) -> Result<(Made, Option<ARef<File>>), Wrong> {
    let malformed = |_| (EINVAL, "its record is malformed");
    let role = record.role.get();
    let kind = TYPES
        .to_kernel(record.socket_type.get())
        .map_err(malformed)?;
    let kind = i32::try_from(kind).map_err(|_| (EINVAL, "its record is malformed"))?;
    let mut file = ptr::null_mut();
    let to = if role == socket_role::OPEN {
        &mut file
    } else {
        ptr::null_mut()
    };
    // SAFETY: `file` is valid for writes.
    let sk = from_err_ptr(unsafe { bindings::checkpoint_unix_new(kind, to) })
        .map_err(|err| (err, "cannot be made"))?;
    let sk = NonNull::new(sk).ok_or((ENOMEM, "cannot be made"))?;
    let mut made = Made {
        // INVARIANT: It comes with a reference.
        sock: Sock(sk),
        bare: role != socket_role::OPEN,
        gone: role == socket_role::GONE,
        shutdown: 0,
        err: 0,
    };
    let file = if role == socket_role::OPEN {
        let file = files::owned(file).map_err(|err| (err, "cannot be made"))?;
        files::set_status(&file, record.file_flags.get());
        let mode = record.file_mode.get();
        if files::file_mode(&file) != u32::from(mode) {
            // SAFETY: `file` is valid.
            to_result(unsafe { bindings::vfs_fchmod(file.as_ptr(), mode) })
                .map_err(|err| (err, "its permissions cannot be set"))?;
        }
        Some(file)
    } else {
        None
    };

    let flags = record.flags.get();
    for (bit, shutdown) in [
        (socket_flags::SHUT_RD, bindings::RCV_SHUTDOWN),
        (socket_flags::SHUT_WR, bindings::SEND_SHUTDOWN),
    ] {
        if flags & bit != 0 {
            made.shutdown |= shutdown;
        }
    }
    made.err = i32::try_from(record.err.get()).map_err(|_| (EINVAL, "its record is malformed"))?;
    if !name.is_empty() {
        set_name(&made.sock, record, name, path)?;
    }
    let state = bindings::checkpoint_unix {
        rcvtimeo_ns: record.rcvtimeo_ns.get(),
        sndtimeo_ns: record.sndtimeo_ns.get(),
        state: STATES.to_kernel(record.state.get()).map_err(malformed)?,
        flags: FLAGS.to_kernel(flags),
        backlog: record.backlog.get(),
        sndbuf: record.sndbuf.get(),
        rcvbuf: record.rcvbuf.get(),
        rcvlowat: record.rcvlowat.get(),
        priority: record.priority.get(),
        linger: record.linger.get(),
        peek_off: record.peek_off.get(),
        ..Default::default()
    };
    // SAFETY: Both are valid.
    to_result(unsafe { bindings::checkpoint_unix_set(made.sock.as_raw(), &state) })
        .map_err(|err| (err, "its options cannot be set"))?;
    if flags & socket_flags::PEERCRED != 0 {
        let nr = record.peer_pid.get();
        let what = "the credentials of its peer are not the caller's to give";
        let ours = opening.is_task(nr);
        let pid = opening.sockets.pid(nr, ours).map_err(|err| (err, what))?;
        let (uid, gid) = (record.peer_uid.get(), record.peer_gid.get());
        // SAFETY: The socket is valid, and `pid` is, or null.
        to_result(unsafe { bindings::checkpoint_unix_peercred(made.sock.as_raw(), pid, uid, gid) })
            .map_err(|err| (err, what))?;
    }
    Ok((made, file))
}

/// Gives a socket its name, and binds it if it was bound.
fn set_name(sock: &Sock, record: &UnixSocket, name: &[u8], path: &[u8]) -> Result<(), Wrong> {
    let bound = record.flags.get() & socket_flags::BOUND != 0;
    let abstracted = bound && name.first() == Some(&0);
    let found = if bound && !abstracted {
        Some(find(path, record.mode.get())?)
    } else {
        None
    };
    let path = found.as_ref().map_or(ptr::null(), HasPath::path);
    let len = u32::try_from(name.len()).map_err(|_| (EINVAL, "its name is too long"))?;
    // SAFETY: The socket is valid, `name` has so many bytes, and `path` is valid or null.
    to_result(unsafe {
        bindings::checkpoint_unix_name(sock.as_raw(), name.as_ptr().cast(), len, path, abstracted)
    })
    .map_err(|err| {
        let what = if err == EADDRINUSE {
            "another socket is bound to its name"
        } else {
            "cannot be bound to its name"
        };
        (err, what)
    })
}

/// The socket in the file system at `path`, which is made if there is nothing.
fn find(path: &[u8], mode: u16) -> Result<ARef<File>, Wrong> {
    let look_up = || files::open(path, bindings::O_PATH);
    let found = match look_up() {
        Err(err) if err == ENOENT => {
            mknod(path, mode).map_err(|err| (err, "cannot be bound to its path"))?;
            look_up()
        }
        found => found,
    };
    let found = found.map_err(|err| (err, "its path cannot be looked up"))?;
    if files::file_type(&found) != bindings::S_IFSOCK {
        return Err((EADDRINUSE, "its path leads to another file"));
    }
    Ok(found)
}

fn mknod(path: &[u8], mode: u16) -> Result {
    let name = kernel::str::CString::try_from_fmt(fmt!("{}", kernel::str::BStr::from_bytes(path)))?;
    // SAFETY: `name` is a string.
    to_result(unsafe { bindings::checkpoint_unix_mknod(name.as_char_ptr(), mode) })
}

/// Connects a socket and its mate to each other, if it has one.
///
/// # Errors
///
/// `EINVAL` when the two do not go together.
pub(crate) fn join(opening: &mut Opening<'_>, record: &RecordRef<'static>) -> Result {
    let id = record.id;
    let (record, _) = record.get::<UnixSocket>().map_err(|_| EINVAL)?;
    match record.mate.get() {
        0 => Ok(()),
        mate => opening
            .sockets
            .link(id, mate)
            .and_then(|()| opening.sockets.link(mate, id)),
    }
}

/// Has a socket send to another.
///
/// # Errors
///
/// `EINVAL` when the two do not go together.
pub(crate) fn link(opening: &mut Opening<'_>, record: &RecordRef<'static>) -> Result {
    let (record, _) = record.get::<UnixLink>().map_err(|_| EINVAL)?;
    opening.sockets.link(record.socket.get(), record.peer.get())
}

/// Lets a connection wait to be accepted.
///
/// # Errors
///
/// `EINVAL` when the two do not go together.
pub(crate) fn wait_accept(opening: &mut Opening<'_>, record: &RecordRef<'static>) -> Result {
    let (record, _) = record.get::<UnixPending>().map_err(|_| EINVAL)?;
    let listener = opening.sockets.get(record.listener.get())?.sock.as_raw();
    let socket = opening.sockets.get_mut(record.socket.get())?;
    if !socket.bare || socket.gone {
        return Err(EINVAL);
    }
    // SAFETY: Both are valid, and nobody else has them yet.
    to_result(unsafe { bindings::checkpoint_unix_wait_accept(listener, socket.sock.as_raw()) })?;
    socket.bare = false;
    Ok(())
}

/// Puts a message into the queue of its socket; `file` knows the files of the image.
///
/// # Errors
///
/// `EPERM` when its credentials are not the caller's to give, `ETOOMANYREFS` when too many files
/// are on their way.
pub(crate) fn put(
    opening: &mut Opening<'_>,
    record: &RecordRef<'static>,
    file: impl Fn(u32) -> Result<ARef<File>>,
) -> Result {
    let (record, tail) = record.get::<UnixMessage>().map_err(|_| EINVAL)?;
    let (refs, data) = record.split(tail).ok_or(EINVAL)?;
    let mut files = KVVec::with_capacity(refs.len(), GFP_KERNEL)?;
    let mut raw = KVVec::with_capacity(refs.len(), GFP_KERNEL)?;
    for entry in refs {
        let file = file(entry.file.get())?;
        raw.push(file.as_ptr(), GFP_KERNEL)?;
        files.push(file, GFP_KERNEL)?;
    }
    let flags = record.flags.get();
    let bytes = record.bytes.get();
    let read = if flags & message_flags::READ != 0 {
        bytes
    } else {
        0
    };
    let state = bindings::checkpoint_unix_message {
        stamp_ns: record.stamp_ns.get(),
        uid: record.uid.get(),
        gid: record.gid.get(),
        files: u32::try_from(raw.len())?,
        len: bytes - read,
        consumed: read,
        creds: flags & message_flags::CREDS != 0,
        oob: flags & message_flags::OOB != 0,
        ..Default::default()
    };
    let pid = if state.creds {
        let nr = record.pid.get();
        let ours = opening.is_task(nr);
        opening.sockets.pid(nr, ours)?
    } else {
        ptr::null_mut()
    };
    let socket = opening.sockets.get(record.socket.get())?;
    let sender = opening.sockets.get(record.sender.get())?;
    if socket.gone {
        return Err(EINVAL);
    }
    // SAFETY: Both sockets are valid, `pid` is or is null, `data` has as many bytes as `state`
    // says, and `raw` as many files, which `files` keeps.
    to_result(unsafe {
        bindings::checkpoint_unix_put_message(
            socket.sock.as_raw(),
            sender.sock.as_raw(),
            &state,
            pid,
            data.as_ptr().cast(),
            raw.as_mut_ptr(),
        )
    })
}

/// Lets those be gone that were, and undoes what the others notice of it now instead of then.
pub(crate) fn settle(opening: &mut Opening<'_>) {
    let mut sockets = core::mem::replace(&mut opening.sockets, Sockets::new());
    for (_, made) in sockets.made.iter_mut() {
        if made.gone && made.bare {
            made.bare = false;
            // SAFETY: Nobody has it, and it is released once.
            unsafe { bindings::checkpoint_unix_release(made.sock.as_raw()) };
        }
    }
    for (_, made) in sockets.made.iter() {
        if !made.gone {
            // SAFETY: The socket is valid.
            unsafe {
                bindings::checkpoint_unix_finish(made.sock.as_raw(), made.shutdown, made.err);
            }
        }
    }
}
