// SPDX-License-Identifier: GPL-2.0 OR MIT

//! POSIX timers.

use zerocopy::{
    little_endian::{
        I32,
        I64,
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
    /// POSIX timers of a process. The tail is an array of Timer, by ascending ids.
    pub struct Timers {
        /// Id of the Process.
        pub process: U32 => Check::Id(&[Kind::Process]),
        /// Number of timers.
        pub count: U32,
        /// The id that the next timer gets, if it is free.
        pub next_id: I32,
        /// 1 if timer_create(2) takes the id that it is told: PR_TIMER_CREATE_RESTORE_IDS.
        pub chooses_ids: U32 => Check::Range(0, 1),
    }
}

/// Values of [`Timer::clock`].
pub mod timer_clock {
    /// CLOCK_REALTIME.
    pub const REALTIME: u32 = 0;
    /// CLOCK_MONOTONIC.
    pub const MONOTONIC: u32 = 1;
    /// CLOCK_BOOTTIME.
    pub const BOOTTIME: u32 = 2;
    /// CLOCK_TAI.
    pub const TAI: u32 = 3;
    /// User and system time of a process; so this and all behind it count CPU time.
    pub const PROCESS_PROF: u32 = 4;
    /// User time of a process.
    pub const PROCESS_VIRT: u32 = 5;
    /// CLOCK_PROCESS_CPUTIME_ID.
    pub const PROCESS_SCHED: u32 = 6;
    /// User and system time of a thread; so are this and all behind it of a thread.
    pub const THREAD_PROF: u32 = 7;
    /// User time of a thread.
    pub const THREAD_VIRT: u32 = 8;
    /// CLOCK_THREAD_CPUTIME_ID.
    pub const THREAD_SCHED: u32 = 9;
    /// Their names, the first for 0.
    pub const NAMES: &[&str] = &[
        "realtime",
        "monotonic",
        "boottime",
        "tai",
        "process-prof",
        "process-virt",
        "process-cpu",
        "thread-prof",
        "thread-virt",
        "thread-cpu",
    ];
}

/// Values of [`Timer::notify`].
pub mod timer_notify {
    /// SIGEV_SIGNAL.
    pub const SIGNAL: u32 = 0;
    /// SIGEV_NONE.
    pub const NONE: u32 = 1;
    /// SIGEV_THREAD: a signal of which the C library makes a thread.
    pub const THREAD: u32 = 2;
    /// SIGEV_THREAD_ID: a signal to one thread.
    pub const THREAD_ID: u32 = 3;
}

bits! {
    /// Bits of [`Timer::flags`].
    pub mod timer_flags {
        /// It will expire.
        ARMED = 0,
        /// It has expired, and its interval goes on when the signal is delivered.
        REQUEUE = 1,
        /// Its signal is pending.
        QUEUED = 2,
        /// Its signal was ignored, and comes when it no longer is.
        IGNORED = 3,
        /// The pending signal is of a time before the timer was set anew: it is not delivered.
        STALE = 4,
        /// `expires_ns` is a time of the clock.
        ABSOLUTE = 5,
        /// The clock was not named by a number: it is that of the task or process itself.
        OWN_CLOCK = 6,
    }
}

layout! {
    /// A POSIX timer.
    pub struct Timer {
        /// Its id.
        pub id: U32 => Check::Range(0, 0x7fff_ffff),
        /// 0 realtime, 1 monotonic, 2 boottime, 3 tai; CPU time of a process: 4 all, 5 in user mode,
        /// 6 as the scheduler counts it; 7 to 9 the same of a thread.
        pub clock: U32 => Check::Range(0, 9),
        /// Number of the task whose CPU time the clock counts, else 0.
        pub clock_task: I32 => Check::Range(0, 0x3fff_ffff),
        /// 0 signal, 1 none, 2 signal for a thread of the C library, 3 signal to one thread.
        pub notify: U32 => Check::Range(0, 3),
        /// Its signal; anything without notification.
        pub signo: I32,
        /// Number of the one thread, else 0.
        pub notify_task: I32 => Check::Range(0, 0x3fff_ffff),
        /// Bits of `timer_flags`.
        pub flags: U32 => Check::Bits(timer_flags::ALL),
        /// Zero.
        pub reserved: U32 => Check::Zero,
        /// si_value of its signal.
        pub value: U64,
        /// Interval in nanoseconds, 0 for none.
        pub interval_ns: U64,
        /// When it expires or did: nanoseconds of its clock if that counts CPU time or the time is
        /// ABSOLUTE, else nanoseconds from the checkpoint on.
        pub expires_ns: I64,
        /// How often it expired since its signal became pending, from -1.
        pub overrun: I64,
        /// The same of the signal before: timer_getoverrun(2).
        pub overrun_last: I64,
    }
}

impl Timer {
    /// Whether its clock counts CPU time.
    pub fn counts_cpu_time(&self) -> bool {
        self.clock.get() >= timer_clock::PROCESS_PROF
    }

    fn check(&self) -> Result<(), &'static str> {
        let thread = self.notify.get() == timer_notify::THREAD_ID;
        if (self.clock_task.get() != 0) != self.counts_cpu_time()
            || (self.notify_task.get() != 0) != thread
        {
            return Err("a timer with a wrong task");
        }
        if self.notify.get() != timer_notify::NONE && !(1..=64).contains(&self.signo.get()) {
            return Err("a timer with a wrong signal");
        }
        // Far from where sums of times and clocks do not fit any more.
        let most = i64::MAX / 2;
        let times = 0..=most;
        let expires = if self.counts_cpu_time() {
            times.contains(&self.expires_ns.get())
        } else {
            (-most..=most).contains(&self.expires_ns.get())
        };
        let interval = i64::try_from(self.interval_ns.get());
        if !expires || !interval.is_ok_and(|interval| times.contains(&interval)) {
            return Err("impossible time of a timer");
        }
        Ok(())
    }
}

record!(
    Timers,
    object: false,
    tail: Tail::Items(Item::Timer, core::mem::offset_of!(Timers, count)),
    check: |_, tail| {
        let timers = <[Timer]>::ref_from_bytes(tail).map_err(|_| "the tail has a wrong length")?;
        if !timers.is_sorted_by(|a, b| a.id.get() < b.id.get()) {
            return Err("the ids of timers do not ascend");
        }
        timers.iter().try_for_each(Timer::check)
    }
);

impl ArrayRecord for Timers {
    type Item = Timer;
}
