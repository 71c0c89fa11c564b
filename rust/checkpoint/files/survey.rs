// SPDX-License-Identifier: GPL-2.0

//! What the tree has open, known before anything of it is saved: that tells what leads outside.
//!
//! Files in the queues of unix sockets count, too. The locks are those of descriptor tables
//! (`mod.rs`) and of queues (`unix.rs`).

use core::ptr::NonNull;

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

use crate::{
    files::{
        self,
        external::{
            Action,
            Request,
            STDERR, //
        },
        pipe,
        tty,
        unix, //
    },
    hold::Held,
    objects::{
        Class,
        Objects, //
    },
};

/// When another open file is supplied in place of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supplies {
    Always,
    /// If it leads outside.
    Outside,
    Never,
}

/// What is known of one open file.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// It is standard input, output or error of a task.
    standard: bool,
    /// The caller has named a descriptor of it.
    named: Option<Action>,
}

/// All open files of the tree.
pub(crate) struct Survey<'a> {
    requests: &'a [Request],
    files: Objects<Seen>,
    /// How many of them each pipe has.
    pipes: Objects,
    /// The unix sockets of them.
    sockets: Objects<()>,
    /// The ptys of them.
    pub(crate) ttys: tty::Survey,
    /// Tables of descriptors that have been looked at.
    tables: Objects<()>,
}

impl<'a> Survey<'a> {
    /// `requests` is what the caller says of descriptors that lead outside.
    pub(crate) fn new(requests: &'a [Request]) -> Self {
        Self {
            requests,
            files: Objects::new(),
            pipes: Objects::new(),
            sockets: Objects::new(),
            ttys: tty::Survey::new(),
            tables: Objects::new(),
        }
    }

    /// Looks at what `held` has open, and at what is in the queues of its sockets.
    pub(crate) fn add(&mut self, held: &Held) -> Result {
        // SAFETY: `held` keeps its task, which stands still: the pointer is read, not followed.
        let table = unsafe { (*held.as_raw()).files };
        let new = self.tables.insert(Class::Files, table, ())?;
        // Threads share a table, but may be named each.
        let named = self
            .requests
            .iter()
            .any(|request| request.pid == held.pid());
        if !new && !named {
            return Ok(());
        }
        let mut found = KVVec::new();
        files::each(held, |fd, file, _| {
            let standard = fd <= STDERR;
            let named = self
                .requests
                .iter()
                .filter(|request| request.pid == 0 || request.pid == held.pid())
                .find(|request| request.fd == Some(fd))
                .map(|request| request.action);
            self.add_file(&file, standard, named, &mut found)
        })?;
        while let Some(file) = found.pop() {
            unix::each_queued(&file, |file| self.add_file(&file, false, None, &mut found))?;
        }
        Ok(())
    }

    /// Sockets that were not known before go to `found`.
    fn add_file(
        &mut self,
        file: &ARef<File>,
        standard: bool,
        named: Option<Action>,
        found: &mut KVVec<ARef<File>>,
    ) -> Result {
        let seen = Seen { standard, named };
        let (known, new) = self.files.get_or_insert(Class::File, file.as_ptr(), seen)?;
        if !new {
            known.standard |= standard;
            known.named = known.named.or(named);
            return Ok(());
        }
        if let Some(socket) = unix::identity(file) {
            self.sockets.insert(Class::Sock, socket, ())?;
            found.push(file.clone(), GFP_KERNEL)?;
        }
        self.ttys.add(file)?;
        if let Some(pipe) = pipe::info(file) {
            let (count, _) = self.pipes.get_or_insert(Class::Pipe, pipe.as_ptr(), 0)?;
            *count += 1;
        }
        Ok(())
    }

    /// Whether the open file at this address is in the tree.
    pub(crate) fn has(&self, file: usize) -> bool {
        self.files.get_addr(Class::File, file).is_some()
    }

    /// Whether the unix socket at this address has a file in the tree.
    pub(crate) fn has_socket(&self, socket: usize) -> bool {
        self.sockets.get_addr(Class::Sock, socket).is_some()
    }

    fn seen(&self, file: &File) -> Seen {
        self.files
            .get(Class::File, file.as_ptr())
            .unwrap_or_default()
    }

    /// How many open files of a pipe are in the tree.
    pub(crate) fn pipe_files(&self, pipe: NonNull<bindings::pipe_inode_info>) -> u32 {
        self.pipes
            .get(Class::Pipe, pipe.as_ptr())
            .unwrap_or_default()
    }

    /// What the caller says of all that lead outside.
    fn general(&self) -> Option<Action> {
        let general = self.requests.iter().find(|request| request.fd.is_none());
        general.map(|request| request.action)
    }

    /// What the caller says of `file`, should it lead outside.
    fn wish(&self, file: &File) -> Option<Action> {
        self.seen(file).named.or_else(|| self.general())
    }

    /// Whether another file is supplied in place of `file`.
    pub(crate) fn supplies(&self, file: &File) -> Supplies {
        let seen = self.seen(file);
        match (seen.named, self.general()) {
            (Some(Action::Supply), _) => Supplies::Always,
            (None, Some(Action::Supply)) => Supplies::Outside,
            (None, None) if seen.standard => Supplies::Outside,
            _ => Supplies::Never,
        }
    }

    /// Whether the other side of `file`, which leads outside, is to be gone.
    pub(crate) fn drops(&self, file: &File) -> bool {
        self.wish(file) == Some(Action::Drop)
    }
}
