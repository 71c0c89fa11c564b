// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Processes, tasks, registers and credentials.

use zerocopy::little_endian::{
    I32,
    U32,
    U64, //
};

use super::{
    super::layout::{
        ArrayRecord,
        Check,
        Field,
        IdRule,
        Layout,
        Record,
        Rule,
        Rules,
        Tail, //
    },
    Item,
    Kind, //
};

layout! {
    /// Working directory and umask, shared after clone(CLONE_FS). The tail is the absolute path of
    /// the working directory.
    pub struct Fs {
        /// The umask.
        pub umask: U32 => Check::Bits(0o777),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(Fs, object: true, tail: Tail::Path);

bits! {
    /// Bits of [`Process::flags`].
    pub mod process_flags {
        /// Its process group is one of outside the tree: it joins the restarter's.
        PGID_OUTSIDE = 0,
        /// Its session is one of outside the tree: it joins the restarter's, and a group of outside.
        SID_OUTSIDE = 1,
        /// It adopts orphans: PR_SET_CHILD_SUBREAPER.
        SUBREAPER = 2,
        /// It is stopped by job control.
        STOPPED = 3,
        /// It has called execve(2) since it was forked.
        EXECED = 4,
        /// It was continued, and nobody has been told: WCONTINUED of waitpid(2).
        CONTINUED = 5,
    }
}

layout! {
    /// A limit of a resource; all ones means none.
    pub struct Rlimit {
        /// Soft limit.
        pub cur: U64,
        /// Hard limit.
        pub max: U64,
    }
}

layout! {
    /// An interval timer in the time domain of its kind.
    pub struct Itimer {
        /// Interval in nanoseconds, 0 for none.
        pub interval_ns: U64,
        /// Time left in nanoseconds, 0 if the timer does not run.
        pub remaining_ns: U64,
    }
}

layout! {
    /// A process: what its threads share. The first is a root of the tree; a parent comes before its
    /// children. Its Tasks follow later, the leader (tid equal to tgid) first. One that has neither
    /// Mm nor Sighand has ended, and waits for its parent: its leader is its only Task, and EXITED.
    ///
    /// An Mm may be that of an earlier Process, and a Sighand with it: of the parent, or of a sibling
    /// of the same `parent`, which is then the first Process with the Mm.
    pub struct Process {
        /// Its id, as getpid(2) returns it.
        pub tgid: I32 => Check::Range(1, 0x3fff_ffff),
        /// Id of the process group.
        pub pgid: I32 => Check::Range(0, 0x3fff_ffff),
        /// Id of the session.
        pub sid: I32 => Check::Range(0, 0x3fff_ffff),
        /// Bits of `process_flags`.
        pub flags: U32 => Check::Bits(process_flags::ALL),
        /// Id of the Task that is its parent, the one thread at whose end it gets its death signal; 0
        /// for a root, whose parent is outside the tree.
        pub parent: U32 => Check::IdOrNone(&[Kind::Task]),
        /// Signal that the parent gets at its death.
        pub exit_signal: U32 => Check::Range(0, 64),
        /// Id of its Mm; 0 when it has ended.
        pub mm: U32 => Check::IdOrNone(&[Kind::Mm]),
        /// Id of its Sighand; 0 when it has ended.
        pub sighand: U32 => Check::IdOrNone(&[Kind::Sighand]),
        /// Readiness to be killed when memory runs out: -1000 to 1000.
        pub oom_score_adj: I32,
        /// The lowest that it may be set to without privilege.
        pub oom_score_adj_min: I32,
        /// Its limits, in the order of the numbers RLIMIT_*.
        pub rlimits: [Rlimit; 16],
        /// ITIMER_REAL.
        pub itimer_real: Itimer,
        /// ITIMER_VIRTUAL.
        pub itimer_virtual: Itimer,
        /// ITIMER_PROF.
        pub itimer_prof: Itimer,
        /// When it has ended, its status as waitpid(2) gives it; when it is stopped, the signal that
        /// stopped it, or 0 once its parent has been told.
        pub exit_code: U32 => Check::Bits(0xffff),
        /// The signal that stops those of its tasks that are STOPPED, else 0.
        pub stop_signal: U32 => Check::Range(0, 64),
        /// Zero.
        pub reserved: [u8; 24] => Check::Zero,
    }
}

record!(Process, object: true, tail: Tail::None, check: |process, _| {
    let range = -1000..=1000;
    if !range.contains(&process.oom_score_adj.get())
        || !range.contains(&process.oom_score_adj_min.get())
    {
        return Err("impossible OOM score");
    }
    if process.rlimits.iter().any(|limit| limit.cur.get() > limit.max.get()) {
        return Err("a soft limit is above the hard one");
    }
    let timers = [&process.itimer_real, &process.itimer_virtual, &process.itimer_prof];
    let most = i64::MAX.unsigned_abs();
    if timers.iter().any(|timer| timer.interval_ns.get() > most || timer.remaining_ns.get() > most)
    {
        return Err("impossible time of a timer");
    }
    if (process.mm.get() == 0) != (process.sighand.get() == 0) {
        return Err("it has ended in part");
    }
    Ok(())
});

bits! {
    /// Bits of [`Task::flags`].
    pub mod task_flags {
        /// PR_SET_NO_NEW_PRIVS.
        NO_NEW_PRIVS = 0,
        /// Its children start with the default policy: SCHED_RESET_ON_FORK.
        SCHED_RESET_ON_FORK = 1,
        /// `saved_mask` becomes the signal mask on the way back to user mode.
        RESTORE_SIGMASK = 2,
        /// Reading the time stamp counter is a fault: PR_SET_TSC.
        NO_TSC = 3,
        /// CPUID is a fault: ARCH_SET_CPUID.
        NO_CPUID = 4,
        /// SECCOMP_MODE_STRICT.
        SECCOMP_STRICT = 5,
        /// PR_MCE_KILL: MCE_EARLY says whether early or late.
        MCE_POLICY = 6,
        /// PR_MCE_KILL_EARLY.
        MCE_EARLY = 7,
        /// PR_SET_IO_FLUSHER.
        IO_FLUSHER = 8,
        /// It has ended: a leader, whose place is kept until its process has ended and its parent has
        /// been told.
        EXITED = 9,
        /// It is stopped by job control.
        STOPPED = 10,
    }
}

/// Values of [`Task::sched_policy`].
pub mod sched {
    /// SCHED_OTHER.
    pub const OTHER: u32 = 0;
    /// SCHED_FIFO.
    pub const FIFO: u32 = 1;
    /// SCHED_RR.
    pub const RR: u32 = 2;
    /// SCHED_BATCH.
    pub const BATCH: u32 = 3;
    /// SCHED_IDLE.
    pub const IDLE: u32 = 5;
    /// SCHED_DEADLINE.
    pub const DEADLINE: u32 = 6;
    /// Their names, the first for 0.
    pub const NAMES: &[&str] = &["other", "fifo", "rr", "batch", "-", "idle", "deadline"];
}

/// Values of [`Task::restart_kind`] and the meaning of the words that belong to each. Times are
/// nanoseconds left, as `i64`.
pub mod restart {
    /// No interrupted call waits for restart_syscall(2).
    pub const NONE: u32 = 0;
    /// nanosleep(2), clock_nanosleep(2): clock, user pointer for the rest of the time (0: none),
    /// time left.
    pub const NANOSLEEP: u32 = 1;
    /// futex(2) FUTEX_WAIT: address, value, `FUTEX_*` bits, time left, bitset.
    pub const FUTEX: u32 = 2;
    /// poll(2): address, number, 1 if there is a time-out, time left.
    pub const POLL: u32 = 3;
    /// Bit of FUTEX's word 2: the futex is shared between processes.
    pub const FUTEX_SHARED: u64 = 1 << 0;
    /// Bit of FUTEX's word 2: the time-out is one of CLOCK_REALTIME.
    pub const FUTEX_REALTIME: u64 = 1 << 1;
    /// Bit of FUTEX's word 2: there is a time-out.
    pub const FUTEX_TIMEOUT: u64 = 1 << 2;
    /// Their names, the first for 0.
    pub const NAMES: &[&str] = &["none", "nanosleep", "futex", "poll"];
}

layout! {
    /// A task: one thread of a process. The tail is the set of CPUs it may run on.
    pub struct Task {
        /// Its id, as gettid(2) returns it.
        pub tid: I32 => Check::Range(1, 0x3fff_ffff),
        /// Id of its Process.
        pub process: U32 => Check::Id(&[Kind::Process]),
        /// Bits of `task_flags`.
        pub flags: U32 => Check::Bits(task_flags::ALL),
        /// personality(2).
        pub personality: U32,
        /// Its name, then zeros; at least one.
        pub comm: [u8; 16],
        /// Id of its Files; 0 when it has ended.
        pub files: U32 => Check::IdOrNone(&[Kind::Files]),
        /// Id of its Fs; 0 when it has ended.
        pub fs: U32 => Check::IdOrNone(&[Kind::Fs]),
        /// Id of its Cred.
        pub cred: U32 => Check::Id(&[Kind::Cred]),
        /// Signal that it gets when its parent dies, 0 for none.
        pub pdeath_signal: U32 => Check::Range(0, 64),
        /// Signals that it blocks, bit n-1 for signal n.
        pub blocked: U64,
        /// The mask to come back with RESTORE_SIGMASK, else 0.
        pub saved_mask: U64,
        /// Alternate signal stack: address.
        pub altstack_sp: U64,
        /// Alternate signal stack: size in bytes.
        pub altstack_size: U64,
        /// Alternate signal stack: 2 disabled, bit 31 autodisarm, as sigaltstack(2) has them.
        pub altstack_flags: U32 => Check::Bits(0x8000_0002),
        /// Kind of the interrupted call that restart_syscall(2) goes on with: 0 none, 1 nanosleep,
        /// 2 futex, 3 poll.
        pub restart_kind: U32 => Check::Range(0, 3),
        /// What belongs to it; see `restart`.
        pub restart_words: [U64; 6],
        /// set_tid_address(2).
        pub clear_child_tid: U64,
        /// CLONE_CHILD_SETTID.
        pub set_child_tid: U64,
        /// set_robust_list(2): address.
        pub robust_list: U64,
        /// set_robust_list(2): length in bytes, 0 if there is none.
        pub robust_len: U64,
        /// rseq(2): address, 0 if it is not registered.
        pub rseq_ptr: U64,
        /// rseq(2): length in bytes.
        pub rseq_len: U32,
        /// rseq(2): signature.
        pub rseq_sig: U32,
        /// rseq(2): no flag is defined; zero.
        pub rseq_flags: U32 => Check::Zero,
        /// Scheduling policy: 0 other, 1 fifo, 2 rr, 3 batch, 5 idle, 6 deadline.
        pub sched_policy: U32 => Check::Range(0, 6),
        /// Nice value, -20 to 19.
        pub nice: I32,
        /// Real-time priority, 0 to 99.
        pub rt_priority: U32 => Check::Range(0, 99),
        /// prctl(PR_SET_TIMERSLACK), in nanoseconds.
        pub timerslack_ns: U64,
        /// The same at its creation, which 0 brings back.
        pub default_timerslack_ns: U64,
        /// I/O priority: class in bits 13 to 15, level below; 0 for none.
        pub ioprio: U32 => Check::Bits(0xffff),
        /// Id of its newest SeccompFilter, 0 for none.
        pub seccomp_filter: U32 => Check::IdOrNone(&[Kind::SeccompFilter]),
        /// Id of its memory policy, 0 if it has none.
        pub mempolicy: U32 => Check::IdOrNone(&[Kind::MemPolicy]),
        /// Tid of the child for whose exec or end it waits in vfork(2), or 0.
        pub vfork_child: I32 => Check::Range(0, 0x3fff_ffff),
        /// Tid of the first Task that its SysV semaphore adjustments are shared with, itself included;
        /// 0 for none.
        pub sem_undo: I32 => Check::Range(0, 0x3fff_ffff),
        /// Its status when it has ended, as exit(2) was told.
        pub exit_code: U32 => Check::Bits(0xffff),
        /// Zero.
        pub reserved: [u8; 8] => Check::Zero,
    }
}

record!(Task, object: true, tail: Tail::Mask, check: |task, _| {
    if !matches!(task.comm, [.., 0]) {
        return Err("the name does not end");
    }
    if !(-20..=19).contains(&task.nice.get()) {
        return Err("impossible nice value");
    }
    if task.sched_policy.get() == 4 {
        return Err("impossible policy");
    }
    if task.flags.get() & task_flags::SECCOMP_STRICT != 0 && task.seccomp_filter.get() != 0 {
        return Err("both modes of seccomp");
    }
    let exited = task.flags.get() & task_flags::EXITED != 0;
    if exited != (task.files.get() == 0) || exited != (task.fs.get() == 0) {
        return Err("it has ended in part");
    }
    Ok(())
});

layout! {
    /// General registers of a task. Exactly one record a task that has not ended. The names are those
    /// of the machine.
    pub struct Registers {
        /// Id of the Task.
        pub task: U32 => Check::Id(&[Kind::Task]),
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// r15.
        pub r15: U64,
        /// r14.
        pub r14: U64,
        /// r13.
        pub r13: U64,
        /// r12.
        pub r12: U64,
        /// rbp.
        pub rbp: U64,
        /// rbx.
        pub rbx: U64,
        /// r11.
        pub r11: U64,
        /// r10.
        pub r10: U64,
        /// r9.
        pub r9: U64,
        /// r8.
        pub r8: U64,
        /// rax.
        pub rax: U64,
        /// rcx.
        pub rcx: U64,
        /// rdx.
        pub rdx: U64,
        /// rsi.
        pub rsi: U64,
        /// rdi.
        pub rdi: U64,
        /// Number of the interrupted system call, or -1.
        pub orig_rax: U64,
        /// rip.
        pub rip: U64,
        /// cs.
        pub cs: U64,
        /// rflags.
        pub rflags: U64,
        /// rsp.
        pub rsp: U64,
        /// ss.
        pub ss: U64,
        /// Base of fs.
        pub fs_base: U64,
        /// Base of gs.
        pub gs_base: U64,
        /// ds.
        pub ds: U64,
        /// es.
        pub es: U64,
        /// fs.
        pub fs: U64,
        /// gs.
        pub gs: U64,
    }
}

record!(Registers, object: false, tail: Tail::None);

layout! {
    /// One component of the extended registers of a task. What has no record is in its initial
    /// state. The tail is the component as the machine lays it out.
    pub struct Xstate {
        /// Id of the Task.
        pub task: U32 => Check::Id(&[Kind::Task]),
        /// 0: the 512 bytes of FXSAVE, which hold x87 and SSE; from 2: the component of that
        /// number.
        pub feature: U32 => Check::Range(0, 62),
        /// Length of the component in bytes.
        pub size: U32 => Check::Range(1, 65536),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(
    Xstate,
    object: false,
    tail: Tail::Bytes(core::mem::offset_of!(Xstate, size)),
    check: |xstate, _| match (xstate.feature.get(), xstate.size.get()) {
        (0, 512) => Ok(()),
        (0, _) => Err("the legacy area has a wrong size"),
        (1, _) => Err("component 1 belongs to component 0"),
        _ => Ok(()),
    }
);

layout! {
    /// Credentials. The tail is an array of Group.
    pub struct Cred {
        /// Real user id.
        pub uid: U32,
        /// Effective user id.
        pub euid: U32,
        /// Saved user id.
        pub suid: U32,
        /// User id for files.
        pub fsuid: U32,
        /// Real group id.
        pub gid: U32,
        /// Effective group id.
        pub egid: U32,
        /// Saved group id.
        pub sgid: U32,
        /// Group id for files.
        pub fsgid: U32,
        /// PR_GET_SECUREBITS.
        pub securebits: U32 => Check::Bits(0xfff),
        /// Number of supplementary groups.
        pub ngroups: U32 => Check::Range(0, 65536),
        /// Inheritable capabilities, bit n for number n; so the next four.
        pub cap_inheritable: U64,
        /// Permitted capabilities.
        pub cap_permitted: U64,
        /// Effective capabilities.
        pub cap_effective: U64,
        /// Bounding set.
        pub cap_bset: U64,
        /// Ambient capabilities.
        pub cap_ambient: U64,
    }
}

layout! {
    /// One supplementary group.
    pub struct Group {
        /// Its id.
        pub gid: U32,
    }
}

record!(
    Cred,
    object: true,
    tail: Tail::Items(Item::Group, core::mem::offset_of!(Cred, ngroups)),
    check: |cred, _| {
        let permitted = cred.cap_permitted.get();
        let lasting = permitted & cred.cap_inheritable.get();
        if cred.cap_effective.get() & !permitted != 0 || cred.cap_ambient.get() & !lasting != 0 {
            return Err("impossible capabilities");
        }
        Ok(())
    }
);

impl ArrayRecord for Cred {
    type Item = Group;
}
