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
    rbtree::RBTree,
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
};

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
    files: RBTree<usize, Seen>,
    /// How many of them each pipe has.
    pipes: RBTree<usize, u32>,
    /// The unix sockets of them.
    sockets: RBTree<usize, ()>,
    /// The ptys of them.
    pub(crate) ttys: tty::Survey,
    /// Tables of descriptors that have been looked at.
    tables: RBTree<usize, ()>,
}

impl<'a> Survey<'a> {
    /// `requests` is what the caller says of descriptors that lead outside.
    pub(crate) fn new(requests: &'a [Request]) -> Self {
        Self {
            requests,
            files: RBTree::new(),
            pipes: RBTree::new(),
            sockets: RBTree::new(),
            ttys: tty::Survey::new(),
            tables: RBTree::new(),
        }
    }

    /// Looks at what `held` has open, and at what is in the queues of its sockets.
    pub(crate) fn add(&mut self, held: &Held) -> Result {
        // SAFETY: `held` keeps its task, which stands still: the pointer is read, not followed.
        let table = unsafe { (*held.as_raw()).files }.addr();
        let before = self.tables.try_create_and_insert(table, (), GFP_KERNEL)?;
        // Threads share a table, but may be named each.
        let named = self
            .requests
            .iter()
            .any(|request| request.pid == held.pid());
        if before.is_some() && !named {
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
        let key = file.as_ptr().addr();
        if let Some(seen) = self.files.get_mut(&key) {
            seen.standard |= standard;
            seen.named = seen.named.or(named);
            return Ok(());
        }
        if let Some(socket) = unix::identity(file) {
            self.sockets.try_create_and_insert(socket, (), GFP_KERNEL)?;
            found.push(file.clone(), GFP_KERNEL)?;
        }
        let seen = Seen { standard, named };
        self.files.try_create_and_insert(key, seen, GFP_KERNEL)?;
        self.ttys.add(file)?;
        if let Some(pipe) = pipe::info(file) {
            let key = pipe.as_ptr().addr();
            match self.pipes.get_mut(&key) {
                Some(count) => *count += 1,
                None => {
                    self.pipes.try_create_and_insert(key, 1, GFP_KERNEL)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the open file at this address is in the tree.
    pub(crate) fn has(&self, file: usize) -> bool {
        self.files.get(&file).is_some()
    }

    /// Whether the unix socket at this address has a file in the tree.
    pub(crate) fn has_socket(&self, socket: usize) -> bool {
        self.sockets.get(&socket).is_some()
    }

    fn seen(&self, file: &File) -> Seen {
        let seen = self.files.get(&file.as_ptr().addr());
        seen.copied().unwrap_or_default()
    }

    /// How many open files of a pipe are in the tree.
    pub(crate) fn pipe_files(&self, pipe: NonNull<bindings::pipe_inode_info>) -> u32 {
        let count = self.pipes.get(&pipe.as_ptr().addr());
        count.copied().unwrap_or_default()
    }

    /// Whether `file` is standard input, output or error of a task.
    pub(crate) fn is_standard(&self, file: &File) -> bool {
        self.seen(file).standard
    }

    /// What the caller says of `file` by a number.
    pub(crate) fn named(&self, file: &File) -> Option<Action> {
        self.seen(file).named
    }

    /// What the caller says of `file`, should it lead outside.
    pub(crate) fn wish(&self, file: &File) -> Option<Action> {
        let all = |request: &&Request| request.fd.is_none();
        let general = self.requests.iter().find(all);
        self.named(file).or(general.map(|request| request.action))
    }

    /// Whether the other side of `file`, which leads outside, is to be gone.
    pub(crate) fn drops(&self, file: &File) -> bool {
        self.wish(file) == Some(Action::Drop)
    }
}
