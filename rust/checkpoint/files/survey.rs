// SPDX-License-Identifier: GPL-2.0

//! What the tree has open, known before anything of it is saved: that tells what leads outside. And
//! what of it is in the plan, as the tree is saved.
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
        unix,
        Descriptor, //
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

/// Whether an open file is in the plan.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Saved {
    #[default]
    No,
    /// Nor will it be: that has been said.
    Refused,
    /// Under this number.
    As(u32),
}

impl Saved {
    /// The number.
    pub(crate) fn id(self) -> Option<u32> {
        match self {
            Self::As(id) => Some(id),
            Self::No | Self::Refused => None,
        }
    }
}

/// What is known of one open file.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// The tree has it open, or in a queue; otherwise it is only mapped.
    is_open: bool,
    saved: Saved,
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
    /// Unix sockets, those of them and what is found beside these.
    pub(crate) sockets: Objects<unix::Known>,
    /// The ptys of them.
    pub(crate) ttys: tty::Survey,
    /// Tables of descriptors, which keep their files.
    tables: KVVec<KVVec<Descriptor>>,
    /// Where each is among them.
    table_of: Objects<usize>,
    /// Files that are only in queues, to keep them.
    queued: KVVec<ARef<File>>,
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
            tables: KVVec::new(),
            table_of: Objects::new(),
            queued: KVVec::new(),
        }
    }

    /// Looks at what `held` has open, and at what is in the queues of its sockets.
    pub(crate) fn add(&mut self, held: &Held) -> Result {
        // SAFETY: `held` keeps its task, which stands still: the pointer is read, not followed.
        let table = unsafe { (*held.as_raw()).files };
        let next = self.tables.len();
        let (_, new) = self.table_of.get_or_insert(Class::Files, table, next)?;
        // Threads share a table, but may be named each.
        let named = self
            .requests
            .iter()
            .any(|request| request.pid == held.pid());
        if new {
            self.tables.push(files::descriptors(held)?, GFP_KERNEL)?;
        } else if !named {
            return Ok(());
        }
        let mut found = KVVec::new();
        let descriptors = self.take(table);
        for Descriptor { fd, file, .. } in descriptors.iter() {
            let standard = *fd <= STDERR;
            let named = self
                .requests
                .iter()
                .filter(|request| request.pid == 0 || request.pid == held.pid())
                .find(|request| request.fd == Some(*fd))
                .map(|request| request.action);
            self.add_file(file, standard, named, &mut found)?;
        }
        self.put_back(table, descriptors);
        while let Some(file) = found.pop() {
            unix::each_queued(&file, |file| {
                self.add_file(&file, false, None, &mut found)?;
                Ok(self.queued.push(file, GFP_KERNEL)?)
            })?;
        }
        Ok(())
    }

    fn table(&mut self, table: *const bindings::files_struct) -> Option<&mut KVVec<Descriptor>> {
        let index = self.table_of.get(Class::Files, table)?;
        self.tables.get_mut(index)
    }

    /// What is in a table of descriptors; it has to be put back.
    pub(crate) fn take(&mut self, table: *const bindings::files_struct) -> KVVec<Descriptor> {
        let table = self.table(table);
        table.map_or(KVVec::new(), |table| {
            core::mem::replace(table, KVVec::new())
        })
    }

    /// Puts it back: it keeps the files.
    pub(crate) fn put_back(
        &mut self,
        table: *const bindings::files_struct,
        descriptors: KVVec<Descriptor>,
    ) {
        if let Some(table) = self.table(table) {
            *table = descriptors;
        }
    }

    /// Sockets that were not known before go to `found`.
    fn add_file(
        &mut self,
        file: &ARef<File>,
        standard: bool,
        named: Option<Action>,
        found: &mut KVVec<ARef<File>>,
    ) -> Result {
        let seen = Seen {
            is_open: true,
            standard,
            named,
            saved: Saved::No,
        };
        let (known, new) = self.files.get_or_insert(Class::File, file.as_ptr(), seen)?;
        if !new {
            known.standard |= standard;
            known.named = known.named.or(named);
            return Ok(());
        }
        match files::file_type(file) {
            bindings::S_IFSOCK => {
                let Some(socket) = unix::identity(file) else {
                    return Ok(());
                };
                let known = unix::Known::default();
                let (known, _) = self
                    .sockets
                    .get_or_insert(Class::Sock, socket.as_ptr(), known)?;
                known.is_open = true;
                // SAFETY: `file` keeps its socket.
                if unsafe { unix::may_have_files(socket) } {
                    found.push(file.clone(), GFP_KERNEL)?;
                }
            }
            bindings::S_IFCHR => self.ttys.add(file)?,
            bindings::S_IFIFO => {
                if let Some(pipe) = pipe::info(file) {
                    let (count, _) = self.pipes.get_or_insert(Class::Pipe, pipe.as_ptr(), 0)?;
                    *count += 1;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the open file at this address is in the tree.
    pub(crate) fn has(&self, file: usize) -> bool {
        let seen = self.files.get_addr(Class::File, file);
        seen.is_some_and(|seen| seen.is_open)
    }

    /// Whether an open file is in the plan.
    pub(crate) fn saved(&self, file: *const bindings::file) -> Saved {
        let seen = self.files.get(Class::File, file);
        seen.unwrap_or_default().saved
    }

    /// Notes whether a file is in the plan. Returns whether nothing was known of it: then it has to
    /// be kept.
    pub(crate) fn set_saved(&mut self, file: *const bindings::file, saved: Saved) -> Result<bool> {
        let seen = Seen::default();
        let (seen, new) = self.files.get_or_insert(Class::File, file, seen)?;
        seen.saved = saved;
        Ok(new)
    }

    /// Whether the unix socket at this address has a file in the tree.
    pub(crate) fn has_socket(&self, socket: usize) -> bool {
        let socket = self.sockets.get_addr(Class::Sock, socket);
        socket.is_some_and(|socket| socket.is_open)
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
