// SPDX-License-Identifier: GPL-2.0

//! Seccomp: strict mode, and filters, which tasks share again that shared them.
//!
//! Who may attach to a task may save its filters: they are in force there, and an image that lacks
//! them cannot be restarted.
//!
//! A restart never loosens anything. Tasks inherit the filters of the restarter, and those of the
//! image come on top. Where the image begins with the very filters that the restarter has, as when
//! both run in the same container, these are not added twice.
//!
//! The coordinator puts tasks into their modes when they lack nothing but signals and timers.
//!
//! Locks: `siglock`, by the kernel's own functions.

use kernel::{
    bindings,
    error::from_err_ptr,
    prelude::*, //
};

use zerocopy::IntoBytes;

use crate::{
    hold::Held,
    image::record::{
        seccomp_flags,
        task_flags,
        SeccompFilter,
        SeccompInsn,
        Task, //
    },
    objects::Class,
    report::{
        Place,
        Report, //
    },
    save::Saver, //
};

type Filter = *mut bindings::seccomp_filter;

/// What is saved of a filter.
///
/// # Safety
///
/// `filter` is one that a task keeps, which stands still or is the current one.
unsafe fn read(filter: Filter) -> bindings::seccomp_filter_saved {
    let mut saved = bindings::seccomp_filter_saved::default();
    // SAFETY: By the safety requirement.
    unsafe { bindings::seccomp_filter_save(filter, &mut saved) };
    saved
}

/// The program of a filter, `None` if it has none of classic BPF.
///
/// # Safety
///
/// As of [`read`], for as long as the program is used.
unsafe fn program<'a>(
    saved: &bindings::seccomp_filter_saved,
) -> Option<&'a [bindings::sock_filter]> {
    // SAFETY: By the safety requirement: a filter keeps its program, and never changes it.
    unsafe {
        let program = saved.program.as_ref()?;
        Some(core::slice::from_raw_parts(
            program.filter,
            usize::from(program.len),
        ))
    }
}

fn from_kernel(insn: &bindings::sock_filter) -> SeccompInsn {
    SeccompInsn {
        code: insn.code.into(),
        jt: insn.jt,
        jf: insn.jf,
        k: insn.k.into(),
    }
}

fn flags(saved: &bindings::seccomp_filter_saved) -> u32 {
    if saved.log {
        seccomp_flags::LOG
    } else {
        0
    }
}

/// The seccomp state of a task.
#[derive(Default)]
pub(crate) struct State {
    /// Number of its newest filter, or 0.
    pub(crate) filter: u32,
    pub(crate) strict: bool,
}

/// Saves the filters of `held` that have not been, and returns its state.
///
/// Returns `None` when something was refused.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held) -> Result<Option<State>> {
    let place = Place::Task(held.pid());
    // SAFETY: `held` keeps its task, which stands still, as does whoever could synchronize filters.
    let (mode, newest) = unsafe {
        let seccomp = &(*held.as_raw()).seccomp;
        (u32::try_from(seccomp.mode)?, seccomp.filter)
    };
    let strict = match mode {
        bindings::SECCOMP_MODE_DISABLED | bindings::SECCOMP_MODE_FILTER => false,
        bindings::SECCOMP_MODE_STRICT => true,
        _ => {
            saver.refuse(place, fmt!("seccomp mode {mode}: not supported"));
            return Ok(None);
        }
    };

    // From the newest to the first that has been saved.
    let mut chain = KVVec::new();
    let mut at = newest;
    while !at.is_null() && saver.objects.get(Class::Seccomp, at).is_none() {
        // SAFETY: A task keeps its filters, and each those below it.
        let saved = unsafe { read(at) };
        chain.push((at, saved), GFP_KERNEL)?;
        at = saved.prev;
    }
    for (filter, saved) in chain.iter().rev() {
        if saved.listener {
            saver.refuse(place, fmt!("seccomp filter with a listener: not supported"));
            return Ok(None);
        }
        // SAFETY: As above.
        let Some(program) = (unsafe { program(saved) }) else {
            saver.refuse(
                place,
                fmt!("seccomp filter without a program: not supported"),
            );
            return Ok(None);
        };
        let mut insns = KVVec::with_capacity(program.len(), GFP_KERNEL)?;
        for insn in program {
            insns.push(from_kernel(insn), GFP_KERNEL)?;
        }
        let record = SeccompFilter {
            prev: saver
                .objects
                .get(Class::Seccomp, saved.prev)
                .unwrap_or(0)
                .into(),
            flags: flags(saved).into(),
            count: u32::try_from(insns.len())?.into(),
            reserved: 0.into(),
        };
        let id = saver.object(&record, &[insns.as_bytes()])?;
        saver.objects.insert(Class::Seccomp, *filter, id)?;
    }
    Ok(Some(State {
        filter: saver.objects.get(Class::Seccomp, newest).unwrap_or(0),
        strict,
    }))
}

/// Checks that the caller may put a task into the mode of the image.
pub(crate) fn check(record: &Task, report: &mut Report) {
    let place = Place::Task(record.tid.get());
    let flags = record.flags.get();
    // SAFETY: The current task is valid, and only it changes its filters.
    let (own, admin) = unsafe {
        let own = (*bindings::get_current()).seccomp.mode != bindings::SECCOMP_MODE_DISABLED as i32;
        (own, bindings::checkpoint_admin())
    };
    if flags & task_flags::SECCOMP_STRICT != 0 && own {
        report.problem(
            place,
            fmt!("strict seccomp: the caller has filters, which its children keep"),
        );
    }
    if record.seccomp_filter.get() != 0 && flags & task_flags::NO_NEW_PRIVS == 0 && !admin {
        report.problem(
            place,
            fmt!("a seccomp filter without no_new_privs needs CAP_SYS_ADMIN"),
        );
    }
}

/// A filter of the image.
struct Built {
    id: u32,
    filter: Filter,
    /// How many are below it, if it is one of the restarter's.
    depth: Option<usize>,
}

/// The filters of the image, ready to be given to tasks.
///
/// # Invariants
///
/// The filters without a depth are this struct's to put; the others are the current task's.
pub(crate) struct Filters {
    /// In the order of their ids.
    built: KVVec<Built>,
    /// The newest of the restarter's.
    own: Filter,
}

impl Filters {
    /// Takes stock of those of the current task, the restarter's.
    pub(crate) fn new() -> Self {
        // SAFETY: The current task is valid, and only it changes its filters.
        let own = unsafe { (*bindings::get_current()).seccomp.filter };
        // INVARIANT: There are none.
        Self {
            built: KVVec::new(),
            own,
        }
    }

    /// The filter of the restarter that has `depth` others below it.
    fn own_at(&self, depth: usize) -> Option<Filter> {
        let chain = || {
            core::iter::successors(Some(self.own).filter(|own| !own.is_null()), |filter| {
                // SAFETY: The current task keeps its filters.
                Some(unsafe { read(*filter) }.prev).filter(|prev| !prev.is_null())
            })
        };
        let from_newest = chain().count().checked_sub(depth + 1)?;
        chain().nth(from_newest)
    }

    fn find(&self, id: u32) -> Option<&Built> {
        let found = self.built.binary_search_by_key(&id, |built| built.id);
        self.built.get(found.ok()?)
    }

    /// Makes filter `id` of the image; the one below it has been made.
    ///
    /// # Errors
    ///
    /// What seccomp(2) says.
    pub(crate) fn add(&mut self, id: u32, record: &SeccompFilter, insns: &[SeccompInsn]) -> Result {
        let below = match record.prev.get() {
            0 => None,
            prev => Some(self.find(prev).ok_or(EINVAL)?),
        };
        let depth = match below {
            None => Some(0),
            Some(below) => below.depth.map(|depth| depth + 1),
        };
        if let Some(depth) = depth {
            let own = self.own_at(depth).filter(|own| {
                // SAFETY: The current task keeps its filters.
                unsafe { is_same(*own, record, insns) }
            });
            if let Some(filter) = own {
                return self.push(id, filter, Some(depth));
            }
        }
        // What is new comes on top of everything that the restarter has.
        let prev = match below {
            Some(below) if below.depth.is_none() => below.filter,
            _ => self.own,
        };
        let mut program = KVVec::with_capacity(insns.len(), GFP_KERNEL)?;
        for insn in insns {
            let insn = bindings::sock_filter {
                code: insn.code.get(),
                jt: insn.jt,
                jf: insn.jf,
                k: insn.k.get(),
            };
            program.push(insn, GFP_KERNEL)?;
        }
        let mut program = bindings::sock_fprog_kern {
            len: u16::try_from(program.len())?,
            filter: program.as_mut_ptr(),
        };
        let log = record.flags.get() & seccomp_flags::LOG != 0;
        // SAFETY: The program is valid; the filter below is kept by this struct or the current
        // task.
        let filter =
            from_err_ptr(unsafe { bindings::seccomp_filter_recreate(&mut program, log, prev) })?;
        self.push(id, filter, None).inspect_err(|_| {
            // SAFETY: The filter is ours.
            unsafe { bindings::seccomp_filter_put(filter) }
        })
    }

    fn push(&mut self, id: u32, filter: Filter, depth: Option<usize>) -> Result {
        Ok(self
            .built
            .push(Built { id, filter, depth }, GFP_KERNEL_ACCOUNT)?)
    }

    /// Puts `task` into the mode of its record.
    ///
    /// # Safety
    ///
    /// `task` is valid, has not been in user mode, and is parked.
    pub(crate) unsafe fn give(&self, task: *mut bindings::task_struct, record: &Task) -> Result {
        if record.flags.get() & task_flags::SECCOMP_STRICT != 0 {
            let mode = bindings::SECCOMP_MODE_STRICT as usize;
            // SAFETY: By the safety requirement.
            unsafe { bindings::seccomp_restore(task, mode, core::ptr::null_mut()) };
            return Ok(());
        }
        let id = record.seccomp_filter.get();
        if id == 0 {
            return Ok(());
        }
        let built = self.find(id).ok_or(EINVAL)?;
        if built.depth.is_none() {
            let mode = bindings::SECCOMP_MODE_FILTER as usize;
            // SAFETY: As above; this struct keeps the filter.
            unsafe { bindings::seccomp_restore(task, mode, built.filter) };
        }
        Ok(())
    }
}

impl Drop for Filters {
    fn drop(&mut self) {
        for built in self.built.iter().filter(|built| built.depth.is_none()) {
            // SAFETY: By the type invariant the filter is ours.
            unsafe { bindings::seccomp_filter_put(built.filter) };
        }
    }
}

/// Whether `own` is what a record describes.
///
/// # Safety
///
/// As of [`read`].
unsafe fn is_same(own: Filter, record: &SeccompFilter, insns: &[SeccompInsn]) -> bool {
    // SAFETY: By the safety requirement.
    let saved = unsafe { read(own) };
    // SAFETY: As above.
    let program = unsafe { program(&saved) };
    program.is_some_and(|program| {
        flags(&saved) == record.flags.get()
            && program.iter().map(from_kernel).eq(insns.iter().copied())
    })
}
