// SPDX-License-Identifier: GPL-2.0

//! Unix sockets by their system calls.

use crate::sys::{
    cvt,
    owned, //
};
use std::io;
use std::mem;
use std::os::fd::{
    AsRawFd,
    FromRawFd,
    OwnedFd, //
};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What is in front of the name in an address.
const FAMILY: usize = 2;

/// An address. The name of a path ends in a NUL, that of an abstract address begins with one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl Name {
    /// No name; to bind to it gets one from the kernel.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// That of a path.
    pub fn path(path: &Path) -> Self {
        let mut name = path.as_os_str().as_bytes().to_vec();
        name.push(0);
        Self(name)
    }

    /// An abstract one.
    pub fn hidden(name: &str) -> Self {
        let mut bytes = vec![0];
        bytes.extend(name.as_bytes());
        Self(bytes)
    }

    fn address(&self) -> Vec<u8> {
        let mut address = (libc::AF_UNIX as u16).to_ne_bytes().to_vec();
        address.extend(&self.0);
        address
    }

    fn of(
        call: unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut u32) -> i32,
        fd: &impl AsRawFd,
    ) -> io::Result<Self> {
        let mut bytes = [0u8; 128];
        let mut len = bytes.len() as u32;
        // SAFETY: there is room for so much.
        cvt(unsafe { call(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &mut len) })?;
        Ok(Self(bytes[FAMILY.min(len as usize)..len as usize].to_vec()))
    }
}

/// socket(2).
pub fn socket(kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved.
    owned(unsafe { libc::socket(libc::AF_UNIX, kind | libc::SOCK_CLOEXEC, 0) })
}

/// socketpair(2).
pub fn pair(kind: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = kind | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    cvt(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}

/// bind(2).
pub fn bind(fd: &impl AsRawFd, name: &Name) -> io::Result<()> {
    let address = name.address();
    // SAFETY: the address is valid.
    cvt(unsafe {
        libc::bind(
            fd.as_raw_fd(),
            address.as_ptr().cast(),
            address.len() as u32,
        )
    })
    .map(drop)
}

/// connect(2).
pub fn connect(fd: &impl AsRawFd, name: &Name) -> io::Result<()> {
    let address = name.address();
    // SAFETY: the address is valid.
    cvt(unsafe {
        libc::connect(
            fd.as_raw_fd(),
            address.as_ptr().cast(),
            address.len() as u32,
        )
    })
    .map(drop)
}

/// A socket that listens.
pub fn listener(kind: i32, name: &Name, backlog: i32) -> io::Result<OwnedFd> {
    let fd = socket(kind)?;
    bind(&fd, name)?;
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(fd)
}

/// A socket that is connected to `name`.
pub fn client(kind: i32, name: &Name) -> io::Result<OwnedFd> {
    let fd = socket(kind)?;
    connect(&fd, name)?;
    Ok(fd)
}

/// accept(2).
pub fn accept(fd: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: no address is asked for.
    owned(unsafe {
        libc::accept4(
            fd.as_raw_fd(),
            ptr::null_mut(),
            ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    })
}

/// getsockname(2).
pub fn name(fd: &impl AsRawFd) -> io::Result<Name> {
    Name::of(libc::getsockname, fd)
}

/// getpeername(2).
pub fn peer(fd: &impl AsRawFd) -> io::Result<Name> {
    Name::of(libc::getpeername, fd)
}

/// shutdown(2).
pub fn shutdown(fd: &impl AsRawFd, how: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    cvt(unsafe { libc::shutdown(fd.as_raw_fd(), how) }).map(drop)
}

/// send(2).
pub fn send(fd: &impl AsRawFd, bytes: &[u8], flags: i32) -> io::Result<usize> {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is readable.
    cvt(unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) })
        .map(|n| n as usize)
}

/// sendto(2).
pub fn send_to(fd: &impl AsRawFd, bytes: &[u8], to: &Name) -> io::Result<usize> {
    let address = to.address();
    // SAFETY: both are readable.
    cvt(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
            address.as_ptr().cast(),
            address.len() as u32,
        )
    })
    .map(|n| n as usize)
}

/// recv(2) of at most 64 KiB: what came.
pub fn recv(fd: &impl AsRawFd, flags: i32) -> io::Result<Vec<u8>> {
    Ok(recv_message(fd, flags)?.data)
}

/// recv(2) without waiting.
pub fn recv_now(fd: &impl AsRawFd) -> io::Result<Vec<u8>> {
    recv(fd, libc::MSG_DONTWAIT)
}

/// Credentials as in SCM_CREDENTIALS and SO_PEERCRED: process, user, group.
pub type Creds = (i32, u32, u32);

/// What recvmsg(2) got.
#[derive(Debug)]
pub struct Message {
    /// The data.
    pub data: Vec<u8>,
    /// The address that it came from.
    pub from: Name,
    /// The files that came with it.
    pub files: Vec<OwnedFd>,
    /// SCM_CREDENTIALS.
    pub creds: Option<Creds>,
    /// SCM_TIMESTAMP, in microseconds since 1970.
    pub stamp: Option<i64>,
    /// MSG_* flags.
    pub flags: i32,
}

/// recvmsg(2) of at most 64 KiB and some files.
pub fn recv_message(fd: &impl AsRawFd, flags: i32) -> io::Result<Message> {
    let mut data = vec![0u8; 65536];
    let mut address = [0u8; 128];
    let mut control = [0u64; 256];
    let mut part = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: all zeroes is a msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = address.as_mut_ptr().cast();
    header.msg_namelen = address.len() as u32;
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(&control) as _;
    let flags = flags | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: all that the header refers to is valid for writing.
    let n = cvt(unsafe { libc::recvmsg(fd.as_raw_fd(), &mut header, flags) })? as usize;
    data.truncate(n);
    let len = header.msg_namelen as usize;
    let mut message = Message {
        data,
        from: Name(address[FAMILY.min(len)..len].to_vec()),
        files: Vec::new(),
        creds: None,
        stamp: None,
        flags: header.msg_flags,
    };
    // SAFETY: the kernel has filled in the control messages, which the macros walk.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&header);
        while let Some(this) = at.as_ref() {
            let payload = libc::CMSG_DATA(this);
            let len = this.cmsg_len - payload.offset_from(at.cast()) as usize;
            match (this.cmsg_level, this.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                    for i in 0..len / 4 {
                        let number = payload.cast::<i32>().add(i).read_unaligned();
                        message.files.push(OwnedFd::from_raw_fd(number));
                    }
                }
                (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                    let creds = payload.cast::<libc::ucred>().read_unaligned();
                    message.creds = Some((creds.pid, creds.uid, creds.gid));
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMP) => {
                    let time = payload.cast::<libc::timeval>().read_unaligned();
                    message.stamp = Some(time.tv_sec * 1_000_000 + time.tv_usec);
                }
                _ => {}
            }
            at = libc::CMSG_NXTHDR(&header, at);
        }
    }
    Ok(message)
}

/// sendmsg(2) with files and perhaps credentials.
pub fn send_message(
    fd: &impl AsRawFd,
    bytes: &[u8],
    files: &[&OwnedFd],
    creds: Option<Creds>,
) -> io::Result<usize> {
    let mut control = [0u64; 256];
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let numbers: Vec<i32> = files.iter().map(|fd| fd.as_raw_fd()).collect();
    // SAFETY: all zeroes is a msghdr.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = mem::size_of_val(&control) as _;
    let mut used = 0;
    // SAFETY: there is room for both control messages, which the macros place.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(&header);
        if !numbers.is_empty() {
            let len = (numbers.len() * 4) as u32;
            (*at).cmsg_level = libc::SOL_SOCKET;
            (*at).cmsg_type = libc::SCM_RIGHTS;
            (*at).cmsg_len = libc::CMSG_LEN(len) as _;
            ptr::copy_nonoverlapping(
                numbers.as_ptr().cast(),
                libc::CMSG_DATA(at),
                numbers.len() * 4,
            );
            used += libc::CMSG_SPACE(len) as usize;
            at = libc::CMSG_NXTHDR(&header, at);
        }
        if let Some((pid, uid, gid)) = creds {
            let creds = libc::ucred { pid, uid, gid };
            let len = mem::size_of_val(&creds) as u32;
            (*at).cmsg_level = libc::SOL_SOCKET;
            (*at).cmsg_type = libc::SCM_CREDENTIALS;
            (*at).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::CMSG_DATA(at)
                .cast::<libc::ucred>()
                .write_unaligned(creds);
            used += libc::CMSG_SPACE(len) as usize;
        }
    }
    header.msg_controllen = used as _;
    if used == 0 {
        header.msg_control = ptr::null_mut();
    }
    // SAFETY: all that the header refers to is valid.
    cvt(unsafe { libc::sendmsg(fd.as_raw_fd(), &header, libc::MSG_NOSIGNAL) }).map(|n| n as usize)
}

/// An integer option of SOL_SOCKET.
pub fn option(fd: &impl AsRawFd, option: i32) -> io::Result<i32> {
    get(fd, option)
}

/// Sets an integer option of SOL_SOCKET.
pub fn set_option(fd: &impl AsRawFd, option: i32, value: i32) -> io::Result<()> {
    set(fd, option, value)
}

/// An option of SOL_SOCKET.
pub fn get<T: Copy>(fd: &impl AsRawFd, option: i32) -> io::Result<T> {
    let mut value = mem::MaybeUninit::<T>::zeroed();
    let mut len = mem::size_of::<T>() as u32;
    // SAFETY: there is room for the value, which consists of integers.
    unsafe {
        cvt(libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &mut len,
        ))?;
        Ok(value.assume_init())
    }
}

/// Sets an option of SOL_SOCKET.
pub fn set<T: Copy>(fd: &impl AsRawFd, option: i32, value: T) -> io::Result<()> {
    // SAFETY: the value is readable.
    cvt(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(&value).cast(),
            mem::size_of::<T>() as u32,
        )
    })
    .map(drop)
}

/// SO_PEERCRED.
pub fn peer_creds(fd: &impl AsRawFd) -> io::Result<Creds> {
    let creds: libc::ucred = get(fd, libc::SO_PEERCRED)?;
    Ok((creds.pid, creds.uid, creds.gid))
}

/// The credentials of this process.
pub fn own_creds() -> Creds {
    // SAFETY: no memory is involved.
    unsafe { (libc::getpid(), libc::getuid(), libc::getgid()) }
}

/// What poll(2) says at once, of all that it may say.
pub fn polled(fd: &impl AsRawFd) -> io::Result<i16> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: there is one entry.
    cvt(unsafe { libc::poll(&mut poll, 1, 0) })?;
    Ok(poll.revents)
}
