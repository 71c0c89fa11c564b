// SPDX-License-Identifier: GPL-2.0
/*
 * What a program has set of its tasks and its address space by prctl(2), sched_setattr(2) and
 * membarrier(2).
 */
#include <linux/checkpoint.h>
#include <linux/futex.h>
#include <linux/ksm.h>
#include <linux/syscall_user_dispatch.h>

/* What @task has of CHECKPOINT_TASK_*. */
u32 checkpoint_task_attributes(struct task_struct *task)
{
	u32 attributes = 0;

	if (test_tsk_thread_flag(task, TIF_NOTSC))
		attributes |= CHECKPOINT_TASK_NO_TSC;
	if (task->flags & PF_MCE_PROCESS)
		attributes |= CHECKPOINT_TASK_MCE_POLICY;
	if (task->flags & PF_MCE_EARLY)
		attributes |= CHECKPOINT_TASK_MCE_EARLY;
	if (task->flags & PF_LOCAL_THROTTLE)
		attributes |= CHECKPOINT_TASK_IO_FLUSHER;
	return attributes;
}

/* Give current these, as prctl(2) does. */
int checkpoint_set_task_attributes(u32 wanted)
{
	const unsigned int io_flusher = PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE;
	u32 changed = wanted ^ checkpoint_task_attributes(current);

	if (changed & CHECKPOINT_TASK_NO_TSC)
		set_tsc_mode(wanted & CHECKPOINT_TASK_NO_TSC ? PR_TSC_SIGSEGV : PR_TSC_ENABLE);
	current->flags &= ~(PF_MCE_PROCESS | PF_MCE_EARLY);
	if (wanted & CHECKPOINT_TASK_MCE_POLICY)
		current->flags |= PF_MCE_PROCESS;
	if (wanted & CHECKPOINT_TASK_MCE_EARLY)
		current->flags |= PF_MCE_EARLY;
	if (changed & CHECKPOINT_TASK_IO_FLUSHER) {
		if (!capable(CAP_SYS_RESOURCE))
			return -EPERM;
		if (wanted & CHECKPOINT_TASK_IO_FLUSHER)
			current->flags |= io_flusher;
		else
			current->flags &= ~io_flusher;
	}
	return 0;
}

/* How @task is scheduled, in the form of sched_setattr(2) with everything given. */
void checkpoint_sched_attr(struct task_struct *task, struct sched_attr *attr)
{
	*attr = (struct sched_attr) {
		.size		= sizeof(*attr),
		.sched_policy	= task->policy,
		.sched_flags	= task->sched_reset_on_fork ? SCHED_FLAG_RESET_ON_FORK : 0,
		.sched_nice	= PRIO_TO_NICE(task->static_prio),
		.sched_priority	= task->rt_priority,
	};
	if (task->policy == SCHED_DEADLINE) {
		attr->sched_flags |= task->dl.flags & (SCHED_FLAG_RECLAIM | SCHED_FLAG_DL_OVERRUN);
		attr->sched_runtime = task->dl.dl_runtime;
		attr->sched_deadline = task->dl.dl_deadline;
		attr->sched_period = task->dl.dl_period;
	} else if (task->se.custom_slice) {
		attr->sched_runtime = task->se.slice;
	}
#ifdef CONFIG_UCLAMP_TASK
	if (task->uclamp_req[UCLAMP_MIN].user_defined) {
		attr->sched_flags |= SCHED_FLAG_UTIL_CLAMP_MIN;
		attr->sched_util_min = task->uclamp_req[UCLAMP_MIN].value;
	}
	if (task->uclamp_req[UCLAMP_MAX].user_defined) {
		attr->sched_flags |= SCHED_FLAG_UTIL_CLAMP_MAX;
		attr->sched_util_max = task->uclamp_req[UCLAMP_MAX].value;
	}
#endif
}

/* Whether a CPU of @mask, @words words of 64 bits, is there for current. */
bool checkpoint_has_cpu(const u64 *mask, unsigned int words)
{
	cpumask_var_t cpus;
	bool found;

	if (!zalloc_cpumask_var(&cpus, GFP_KERNEL))
		return true;
	bitmap_from_arr64(cpumask_bits(cpus), mask, min(nr_cpu_ids, words * 64));
	found = cpumask_intersects(cpus, cpu_active_mask);
	free_cpumask_var(cpus);
	return found;
}

static const struct {
	u32 option;
	int state;
} registrations[] = {
	{ CHECKPOINT_MM_MEMBARRIER_PRIVATE, MEMBARRIER_STATE_PRIVATE_EXPEDITED_READY },
	{ CHECKPOINT_MM_MEMBARRIER_GLOBAL, MEMBARRIER_STATE_GLOBAL_EXPEDITED_READY },
	{ CHECKPOINT_MM_MEMBARRIER_CORE, MEMBARRIER_STATE_PRIVATE_EXPEDITED_SYNC_CORE_READY },
	{ CHECKPOINT_MM_MEMBARRIER_RSEQ, MEMBARRIER_STATE_PRIVATE_EXPEDITED_RSEQ_READY },
};

static const struct {
	u32 option;
	int flag;
} mm_flag_options[] = {
	{ CHECKPOINT_MM_NO_THP, MMF_DISABLE_THP_COMPLETELY },
	{ CHECKPOINT_MM_ADVISED_THP, MMF_DISABLE_THP_EXCEPT_ADVISED },
	{ CHECKPOINT_MM_MERGE, MMF_VM_MERGE_ANY },
	{ CHECKPOINT_MM_MDWE, MMF_HAS_MDWE },
	{ CHECKPOINT_MM_MDWE_NO_INHERIT, MMF_HAS_MDWE_NO_INHERIT },
};

/* What @mm has of CHECKPOINT_MM_*, and how many @slots a futex hash that was chosen has. */
u32 checkpoint_mm_options(struct mm_struct *mm, unsigned int *slots)
{
	u32 options = 0;

	for (int i = 0; i < ARRAY_SIZE(mm_flag_options); i++) {
		if (mm_flags_test(mm_flag_options[i].flag, mm))
			options |= mm_flag_options[i].option;
	}
#ifdef CONFIG_MEMBARRIER
	for (int i = 0; i < ARRAY_SIZE(registrations); i++) {
		if (atomic_read(&mm->membarrier_state) & registrations[i].state)
			options |= registrations[i].option;
	}
#endif
	*slots = 0;
	if (futex_hash_chosen(mm, slots))
		options |= CHECKPOINT_MM_FUTEX_HASH;
	return options;
}

/*
 * Give the address space of current, which is still empty, those of CHECKPOINT_MM_* that mappings
 * take over, and take away what it has from the caller of restart(2).
 */
int checkpoint_prepare_mm_options(u32 wanted)
{
	struct mm_struct *mm = current->mm;
	int err;

#ifdef CONFIG_MEMBARRIER
	atomic_set(&mm->membarrier_state, 0);
#endif
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	for (int i = 0; i < ARRAY_SIZE(mm_flag_options); i++) {
		int flag = mm_flag_options[i].flag;

		if (flag != MMF_DISABLE_THP_COMPLETELY && flag != MMF_DISABLE_THP_EXCEPT_ADVISED)
			continue;
		if (wanted & mm_flag_options[i].option)
			mm_flags_set(flag, mm);
		else
			mm_flags_clear(flag, mm);
	}
	err = 0;
#ifdef CONFIG_KSM
	err = wanted & CHECKPOINT_MM_MERGE ? ksm_enable_merge_any(mm) : ksm_disable_merge_any(mm);
#endif
	mmap_write_unlock(mm);
	return err;
}

/* Give the address space of current the others, when it has its mappings. */
int checkpoint_finish_mm_options(u32 wanted, unsigned int slots)
{
	struct mm_struct *mm = current->mm;
	int err = 0;

	if (wanted & CHECKPOINT_MM_MDWE)
		mm_flags_set(MMF_HAS_MDWE, mm);
	if (wanted & CHECKPOINT_MM_MDWE_NO_INHERIT)
		mm_flags_set(MMF_HAS_MDWE_NO_INHERIT, mm);
	if (wanted & CHECKPOINT_MM_FUTEX_HASH)
		err = futex_hash_prctl(PR_FUTEX_HASH_SET_SLOTS, slots, 0);
#ifdef CONFIG_MEMBARRIER
	if (!err && wanted & CHECKPOINT_MM_MEMBARRIER_GLOBAL)
		err = membarrier_register_global_expedited();
	if (!err && wanted & CHECKPOINT_MM_MEMBARRIER_PRIVATE)
		err = membarrier_register_private_expedited(0);
	if (!err && wanted & CHECKPOINT_MM_MEMBARRIER_CORE)
		err = membarrier_register_private_expedited(MEMBARRIER_FLAG_SYNC_CORE);
	if (!err && wanted & CHECKPOINT_MM_MEMBARRIER_RSEQ)
		err = membarrier_register_private_expedited(MEMBARRIER_FLAG_RSEQ);
#endif
	return err;
}

/*
 * The range of addresses whose system calls @task makes itself, and where user space says whether
 * it makes the others; false if it makes all.
 */
bool checkpoint_user_dispatch(struct task_struct *task, u64 *offset, u64 *len, u64 *selector)
{
#ifdef CONFIG_SYSCALL_USER_DISPATCH
	*offset = task->syscall_dispatch.offset;
	*len = task->syscall_dispatch.len;
	*selector = (unsigned long)task->syscall_dispatch.selector;
	return test_task_syscall_work(task, SYSCALL_USER_DISPATCH);
#else
	return false;
#endif
}

/* Let current make only those system calls itself, as PR_SET_SYSCALL_USER_DISPATCH does. */
int checkpoint_set_user_dispatch(u64 offset, u64 len, u64 selector)
{
	unsigned int mode = PR_SYS_DISPATCH_EXCLUSIVE_ON;

	/* A range that was given as the one that is dispatched is kept as its complement. */
	if (offset && offset + len <= offset) {
		mode = PR_SYS_DISPATCH_INCLUSIVE_ON;
		offset += len;
		len = -len;
	}
	return set_syscall_user_dispatch(mode, offset, len,
					 (char __user *)(unsigned long)selector);
}
