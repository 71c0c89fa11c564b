// SPDX-License-Identifier: GPL-2.0

//! Names of sockets that cannot be saved: those of other families than unix.

use kernel::{
    bindings,
    fs::File, //
};

/// Names of address families.
const FAMILIES: &[(u32, &str)] = &[
    (bindings::AF_INET, "AF_INET"),
    (bindings::AF_INET6, "AF_INET6"),
    (bindings::AF_NETLINK, "AF_NETLINK"),
    (bindings::AF_PACKET, "AF_PACKET"),
    (bindings::AF_ALG, "AF_ALG"),
    (bindings::AF_BLUETOOTH, "AF_BLUETOOTH"),
    (bindings::AF_CAN, "AF_CAN"),
    (bindings::AF_KEY, "AF_KEY"),
    (bindings::AF_QIPCRTR, "AF_QIPCRTR"),
    (bindings::AF_TIPC, "AF_TIPC"),
    (bindings::AF_VSOCK, "AF_VSOCK"),
    (bindings::AF_XDP, "AF_XDP"),
];

/// Names of types.
const TYPES: &[(u32, &str)] = &[
    (bindings::sock_type_SOCK_STREAM, "SOCK_STREAM"),
    (bindings::sock_type_SOCK_DGRAM, "SOCK_DGRAM"),
    (bindings::sock_type_SOCK_RAW, "SOCK_RAW"),
    (bindings::sock_type_SOCK_SEQPACKET, "SOCK_SEQPACKET"),
];

/// Family and type of a socket, for messages.
pub(crate) struct Described {
    family: u32,
    kind: u32,
}

impl Described {
    /// Those of `file`, if it is a socket.
    pub(crate) fn of(file: &File) -> Option<Self> {
        // SAFETY: `file` is valid, and keeps its socket.
        unsafe {
            let socket = bindings::sock_from_file(file.as_ptr());
            if socket.is_null() {
                return None;
            }
            Some(Self {
                family: u32::try_from((*(*socket).ops).family).ok()?,
                kind: u32::try_from((*socket).type_).ok()?,
            })
        }
    }
}

impl kernel::fmt::Display for Described {
    fn fmt(&self, f: &mut kernel::fmt::Formatter<'_>) -> kernel::fmt::Result {
        let name = |table: &[(u32, &'static str)], number: u32| {
            let row = table.iter().find(|(other, _)| *other == number);
            row.map(|(_, name)| *name)
        };
        match name(FAMILIES, self.family) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "address family {}", self.family)?,
        }
        match name(TYPES, self.kind) {
            Some(name) => write!(f, " {name}"),
            None => write!(f, " type {}", self.kind),
        }
    }
}
