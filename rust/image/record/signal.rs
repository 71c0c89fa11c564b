// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Signal actions and pending signals.

use zerocopy::{
    little_endian::{
        I32,
        U32,
        U64, //
    },
    FromBytes, //
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
    /// Signal actions. The tail is an array of Action, ascending by signal; those that it lacks are
    /// the default.
    pub struct Sighand {
        /// Number of actions.
        pub count: U32 => Check::Range(0, 64),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

layout! {
    /// The action of one signal, as rt_sigaction(2) of x86-64 has it.
    pub struct Action {
        /// Address of the handler; 0 default, 1 ignore.
        pub handler: U64,
        /// SA_* flags.
        pub flags: U64,
        /// Address that the handler returns to.
        pub restorer: U64,
        /// Signals blocked meanwhile, bit n-1 for signal n.
        pub mask: U64,
        /// Number of the signal.
        pub signo: U32 => Check::Range(1, 64),
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

record!(
    Sighand,
    object: true,
    tail: Tail::Items(Item::Action, core::mem::offset_of!(Sighand, count)),
    check: |_, tail| {
        let actions = <[Action]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        if !actions.is_sorted_by(|a, b| a.signo.get() < b.signo.get()) {
            return Err("the signals do not ascend");
        }
        Ok(())
    }
);

impl ArrayRecord for Sighand {
    type Item = Action;
}

layout! {
    /// Pending signals of a task, or, with `task` zero, the ones that a process shares; in the
    /// order in which they are delivered. The tail is an array of Siginfo.
    pub struct Signals {
        /// Id of the Task, or 0.
        pub task: U32 => Check::IdOrNone(&[Kind::Task]),
        /// Id of the Process, or 0: exactly one of the two is given.
        pub process: U32 => Check::IdOrNone(&[Kind::Process]),
        /// Number of signals.
        pub count: U32,
        /// Zero.
        pub reserved: U32 => Check::Zero,
    }
}

layout! {
    /// A pending signal: siginfo_t of the x86-64 ABI as a handler sees it.
    pub struct Siginfo {
        /// si_signo.
        pub signo: I32 => Check::Range(1, 64),
        /// si_errno.
        pub errno: I32,
        /// si_code.
        pub code: I32,
        /// The rest, whose meaning depends on si_signo and si_code.
        pub rest: [u8; 112],
        /// 0, or one more than the id of the POSIX timer whose signal it is.
        pub timer: U32 => Check::Range(0, 0x8000_0000),
    }
}

const _: () = assert!(size_of::<Siginfo>() == 128);

record!(
    Signals,
    object: false,
    tail: Tail::Items(Item::Siginfo, core::mem::offset_of!(Signals, count)),
    check: |signals, tail| {
        if (signals.task.get() == 0) == (signals.process.get() == 0) {
            return Err("signals belong to either a task or a process");
        }
        <[Siginfo]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        Ok(())
    }
);

impl ArrayRecord for Signals {
    type Item = Siginfo;
}
