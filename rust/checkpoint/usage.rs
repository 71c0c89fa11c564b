// SPDX-License-Identifier: GPL-2.0

//! CPU time and resource usage, which go on as if a task had never ended, and its start, which
//! stays what the tree saw: programs tell by number and start whether a process is the one that
//! they knew.
//!
//! No locks: whoever is read stands still, and whoever is written to is parked, off its CPU. Others
//! who look meanwhile see some old and some new numbers.

use kernel::{
    bindings,
    prelude::*, //
};

use zerocopy::FromZeros;

use crate::{
    hold::Held,
    image::record::{
        Counts,
        CpuTime,
        IoCounts,
        ProcessUsage,
        Usage, //
    },
    save::Saver, //
};

/// What CLOCK_MONOTONIC and CLOCK_BOOTTIME of a task are ahead of the kernel's, in nanoseconds.
struct Offsets {
    monotonic: i64,
    boottime: i64,
}

impl Offsets {
    /// # Safety
    ///
    /// `task` is valid.
    unsafe fn of(task: *mut bindings::task_struct) -> Self {
        let (mut monotonic, mut boottime) = (0, 0);
        // SAFETY: By the safety requirement.
        unsafe { bindings::checkpoint_clock_offsets(task, &mut monotonic, &mut boottime) };
        Self {
            monotonic,
            boottime,
        }
    }
}

fn io(from: &bindings::task_io_accounting) -> IoCounts {
    let mut io = IoCounts::new_zeroed();
    #[cfg(CONFIG_TASK_XACCT)]
    {
        io.read = from.rchar.into();
        io.written = from.wchar.into();
        io.reads = from.syscr.into();
        io.writes = from.syscw.into();
    }
    #[cfg(CONFIG_TASK_IO_ACCOUNTING)]
    {
        io.storage_read = from.read_bytes.into();
        io.storage_written = from.write_bytes.into();
        io.cancelled = from.cancelled_write_bytes.into();
    }
    io
}

fn set_io(to: &mut bindings::task_io_accounting, io: &IoCounts) {
    #[cfg(CONFIG_TASK_XACCT)]
    {
        to.rchar = io.read.get();
        to.wchar = io.written.get();
        to.syscr = io.reads.get();
        to.syscw = io.writes.get();
    }
    #[cfg(CONFIG_TASK_IO_ACCOUNTING)]
    {
        to.read_bytes = io.storage_read.get();
        to.write_bytes = io.storage_written.get();
        to.cancelled_write_bytes = io.cancelled.get();
    }
}

/// Saves the usage of `held`, task number `id`.
pub(crate) fn save(saver: &mut Saver<'_>, held: &Held, id: u32) -> Result {
    let task = held.as_raw();
    // SAFETY: `held` keeps its task, which stands still: nobody writes these fields.
    let record = unsafe {
        let offsets = Offsets::of(task);
        let task = &*task;
        let mut record = Usage {
            task: id.into(),
            start_monotonic_ns: (task.start_time as i64)
                .saturating_add(offsets.monotonic)
                .into(),
            start_boottime_ns: (task.start_boottime as i64)
                .saturating_add(offsets.boottime)
                .into(),
            time: CpuTime {
                user: task.utime.into(),
                system: task.stime.into(),
                guest: task.gtime.into(),
            },
            runtime_ns: task.se.sum_exec_runtime.into(),
            shown_user: task.prev_cputime.utime.into(),
            shown_system: task.prev_cputime.stime.into(),
            counts: Counts {
                voluntary: (task.nvcsw as u64).into(),
                involuntary: (task.nivcsw as u64).into(),
                minor_faults: (task.min_flt as u64).into(),
                major_faults: (task.maj_flt as u64).into(),
            },
            io: io(&task.ioac),
            ..Usage::new_zeroed()
        };
        #[cfg(CONFIG_TASK_XACCT)]
        {
            record.rss_integral = task.acct_rss_mem1.into();
            record.vm_integral = task.acct_vm_mem1.into();
        }
        record
    };
    saver.put(&record, &[])
}

/// Saves the usage of the process that `leader` leads, number `id`, besides that of its tasks.
pub(crate) fn save_process(saver: &mut Saver<'_>, leader: &Held, id: u32) -> Result {
    let task = leader.as_raw();
    // SAFETY: `leader` keeps its task, which keeps its `signal`. It stands still, and nobody reaps
    // threads or children of it meanwhile.
    let record = unsafe {
        let signal = &*(*task).signal;
        let mut ended = bindings::checkpoint_usage::default();
        bindings::checkpoint_ended_usage(task, &mut ended);
        ProcessUsage {
            process: id.into(),
            reserved: 0.into(),
            time: CpuTime {
                user: ended.utime.into(),
                system: ended.stime.into(),
                guest: ended.gtime.into(),
            },
            runtime_ns: ended.runtime.into(),
            shown_user: signal.prev_cputime.utime.into(),
            shown_system: signal.prev_cputime.stime.into(),
            counts: Counts {
                voluntary: (ended.nvcsw as u64).into(),
                involuntary: (ended.nivcsw as u64).into(),
                minor_faults: (ended.min_flt as u64).into(),
                major_faults: (ended.maj_flt as u64).into(),
            },
            blocks_read: (ended.inblock as u64).into(),
            blocks_written: (ended.oublock as u64).into(),
            io: io(&ended.ioac),
            max_rss: bytes(bindings::checkpoint_maxrss(task)).into(),
            children_time: CpuTime {
                user: signal.cutime.into(),
                system: signal.cstime.into(),
                guest: signal.cgtime.into(),
            },
            children_counts: Counts {
                voluntary: (signal.cnvcsw as u64).into(),
                involuntary: (signal.cnivcsw as u64).into(),
                minor_faults: (signal.cmin_flt as u64).into(),
                major_faults: (signal.cmaj_flt as u64).into(),
            },
            children_blocks_read: (signal.cinblock as u64).into(),
            children_blocks_written: (signal.coublock as u64).into(),
            children_max_rss: bytes(signal.cmaxrss).into(),
        }
    };
    saver.put(&record, &[])
}

fn bytes(pages: usize) -> u64 {
    (pages as u64).saturating_mul(kernel::page::PAGE_SIZE as u64)
}

fn pages(bytes: u64) -> usize {
    (bytes / kernel::page::PAGE_SIZE as u64) as usize
}

/// Adds up the CPU time in an image: sums of it must not wrap, which the kernel divides by.
#[derive(Default)]
pub(crate) struct Total(u64);

impl Total {
    fn add(&mut self, times: impl IntoIterator<Item = u64>) {
        for time in times {
            self.0 = self.0.saturating_add(time);
        }
    }

    pub(crate) fn add_task(&mut self, record: &Usage) {
        let time = &record.time;
        self.add(
            [
                time.user,
                time.system,
                time.guest,
                record.runtime_ns,
                record.shown_user,
                record.shown_system,
            ]
            .map(|time| time.get()),
        );
    }

    pub(crate) fn add_process(&mut self, record: &ProcessUsage) {
        let (own, children) = (&record.time, &record.children_time);
        self.add(
            [
                own.user,
                own.system,
                own.guest,
                record.runtime_ns,
                record.shown_user,
                record.shown_system,
                children.user,
                children.system,
                children.guest,
            ]
            .map(|time| time.get()),
        );
    }

    /// Whether there could have been so much.
    pub(crate) fn is_possible(&self) -> bool {
        i64::try_from(self.0).is_ok()
    }
}

/// Lets the usage of `task` go on from that of the image.
///
/// # Safety
///
/// `task` is valid, has not been in user mode, and is parked.
pub(crate) unsafe fn restore(task: *mut bindings::task_struct, record: &Usage) {
    // SAFETY: By the safety requirement; the clocks are only read.
    unsafe {
        let offsets = Offsets::of(task);
        let (monotonic, boottime) = (
            bindings::ktime_get(),
            bindings::ktime_get_with_offset(bindings::tk_offsets_TK_OFFS_BOOT),
        );
        let task = &mut *task;
        // It did not start in the future, as it seems when clocks have gone back.
        let start = |saved: i64, offset: i64, now: i64| -> u64 {
            saved
                .saturating_sub(offset)
                .clamp(0, now.max(0))
                .unsigned_abs()
        };
        task.start_time = start(
            record.start_monotonic_ns.get(),
            offsets.monotonic,
            monotonic,
        );
        task.start_boottime = start(record.start_boottime_ns.get(), offsets.boottime, boottime);

        task.utime = record.time.user.get();
        task.stime = record.time.system.get();
        task.gtime = record.time.guest.get();
        task.se.sum_exec_runtime = record.runtime_ns.get();
        task.se.prev_sum_exec_runtime = record.runtime_ns.get();
        task.prev_cputime.utime = record.shown_user.get();
        task.prev_cputime.stime = record.shown_system.get();
        task.nvcsw = record.counts.voluntary.get() as usize;
        task.nivcsw = record.counts.involuntary.get() as usize;
        task.min_flt = record.counts.minor_faults.get() as usize;
        task.maj_flt = record.counts.major_faults.get() as usize;
        set_io(&mut task.ioac, &record.io);
        #[cfg(CONFIG_TASK_XACCT)]
        {
            task.acct_rss_mem1 = record.rss_integral.get();
            task.acct_vm_mem1 = record.vm_integral.get();
            // Up to here it has been summed.
            task.acct_timexpd = task.utime.saturating_add(task.stime);
        }
    }
}

/// Lets the usage of the process that `leader` leads go on from that of the image. Its tasks come
/// before.
///
/// # Safety
///
/// `leader` is valid, has not been in user mode, and is parked as all its threads are.
pub(crate) unsafe fn restore_process(leader: *mut bindings::task_struct, record: &ProcessUsage) {
    // SAFETY: By the safety requirement.
    unsafe {
        let signal = &mut *(*leader).signal;
        signal.utime = record.time.user.get();
        signal.stime = record.time.system.get();
        signal.gtime = record.time.guest.get();
        signal.sum_sched_runtime = record.runtime_ns.get();
        signal.prev_cputime.utime = record.shown_user.get();
        signal.prev_cputime.stime = record.shown_system.get();
        signal.nvcsw = record.counts.voluntary.get() as usize;
        signal.nivcsw = record.counts.involuntary.get() as usize;
        signal.min_flt = record.counts.minor_faults.get() as usize;
        signal.maj_flt = record.counts.major_faults.get() as usize;
        signal.inblock = record.blocks_read.get() as usize;
        signal.oublock = record.blocks_written.get() as usize;
        set_io(&mut signal.ioac, &record.io);
        signal.maxrss = pages(record.max_rss.get());
        signal.cutime = record.children_time.user.get();
        signal.cstime = record.children_time.system.get();
        signal.cgtime = record.children_time.guest.get();
        signal.cnvcsw = record.children_counts.voluntary.get() as usize;
        signal.cnivcsw = record.children_counts.involuntary.get() as usize;
        signal.cmin_flt = record.children_counts.minor_faults.get() as usize;
        signal.cmaj_flt = record.children_counts.major_faults.get() as usize;
        signal.cinblock = record.children_blocks_read.get() as usize;
        signal.coublock = record.children_blocks_written.get() as usize;
        signal.cmaxrss = pages(record.children_max_rss.get());
        bindings::checkpoint_sync_cputimer(leader);
    }
}
