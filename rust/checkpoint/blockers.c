// SPDX-License-Identifier: GPL-2.0
/*
 * What has no place in an image, by name: state of tasks, address spaces and open files that no
 * record has. A checkpoint that meets it is refused. None of these functions takes a lock that a
 * task which stands still could hold.
 */
#include <linux/checkpoint.h>
#include <linux/magic.h>
#include <linux/security.h>

#include <asm/fpu/sched.h>
#include <asm/fpu/types.h>

static bool has_semaphore_undo(struct task_struct *task)
{
#ifdef CONFIG_SYSVIPC
	return sem_has_undo(task);
#else
	return false;
#endif
}

static bool has_perf_events(struct task_struct *task)
{
#ifdef CONFIG_PERF_EVENTS
	return task->perf_event_ctxp;
#else
	return false;
#endif
}

static bool has_thread_area(struct task_struct *task)
{
	return memchr_inv(task->thread.tls_array, 0, sizeof(task->thread.tls_array));
}

static bool has_shadow_stack(struct task_struct *task)
{
#ifdef CONFIG_X86_USER_SHADOW_STACK
	return task->thread.features || task->thread.features_locked;
#else
	return false;
#endif
}

static bool has_faulting_cpuid(struct task_struct *task)
{
	return test_tsk_thread_flag(task, TIF_NOCPUID);
}

static bool has_io_ports(struct task_struct *task)
{
#ifdef CONFIG_X86_IOPL_IOPERM
	return task->thread.io_bitmap || task->thread.iopl_emul;
#else
	return false;
#endif
}

static bool is_32bit(struct task_struct *task)
{
	return !user_64bit_mode(task_pt_regs(task));
}

static bool has_32bit_space(struct task_struct *task)
{
	return test_tsk_thread_flag(task, TIF_ADDR32);
}

static bool in_32bit_call(struct task_struct *task)
{
#ifdef TS_COMPAT
	return task_thread_info(task)->status & TS_COMPAT;
#else
	return false;
#endif
}

static bool has_32bit_robust_list(struct task_struct *task)
{
#ifdef CONFIG_COMPAT
	return task->futex.compat_robust_list;
#else
	return false;
#endif
}

static bool has_speculation_control(struct task_struct *task)
{
	return task_spec_ssb_disable(task) || task_spec_ssb_force_disable(task) ||
	       task_spec_ssb_noexec(task) || task_spec_ib_disable(task) ||
	       task_spec_ib_force_disable(task) || test_tsk_thread_flag(task, TIF_SPEC_L1D_FLUSH);
}

static bool has_core_cookie(struct task_struct *task)
{
#ifdef CONFIG_SCHED_CORE
	return task->core_cookie;
#else
	return false;
#endif
}

static bool has_sched_ext(struct task_struct *task)
{
	return task->policy == SCHED_EXT;
}

static bool is_reaped_alone(struct task_struct *task)
{
	return task->signal->autoreap;
}

static bool has_rseq_slice(struct task_struct *task)
{
#ifdef CONFIG_RSEQ_SLICE_EXTENSION
	return task->rseq.slice.state.enabled;
#else
	return false;
#endif
}

static bool has_shared_segment(struct task_struct *task)
{
#ifdef CONFIG_SYSVIPC
	return !list_empty(&task->sysvshm.shm_clist);
#else
	return false;
#endif
}

static bool is_tracer(struct task_struct *task)
{
	return !list_empty(&task->ptraced);
}

static bool has_audit_login(struct task_struct *task)
{
#ifdef CONFIG_AUDIT
	return !uid_eq(task->loginuid, current->loginuid) || task->sessionid != current->sessionid;
#else
	return false;
#endif
}

static bool has_user_events(struct task_struct *task)
{
#ifdef CONFIG_USER_EVENTS
	return task->user_event_mm;
#else
	return false;
#endif
}

static bool has_uring_restriction(struct task_struct *task)
{
#ifdef CONFIG_IO_URING
	return task->io_uring_restrict;
#else
	return false;
#endif
}

/* Whether @task asked for more than every task may use, for itself or, unlike current, a guest. */
static bool has_xstate_permission(struct task_struct *task)
{
	const struct fpu *fpu = x86_task_fpu(task->group_leader);
	const struct fpu *own = x86_task_fpu(current->group_leader);

	return fpu->perm.__state_perm != fpu_kernel_cfg.default_features ||
	       fpu->guest_perm.__state_perm != own->guest_perm.__state_perm;
}

/*
 * State of a task that has no place in an image; of some of it, a restarted task would take over
 * what the caller of restart(2) has.
 */
static const struct {
	bool (*has)(struct task_struct *task);
	const char *name;
	bool inherited;
} task_blockers[] = {
	{ has_semaphore_undo, "SysV semaphore undo" },
	{ has_perf_events, "perf event" },
	{ has_thread_area, "32-bit thread area", true },
	{ has_shadow_stack, "shadow stack", true },
	{ has_faulting_cpuid, "ARCH_SET_CPUID", true },
	{ has_io_ports, "I/O port permission", true },
	{ is_32bit, "32-bit task" },
	{ has_32bit_space, "32-bit address space" },
	{ in_32bit_call, "32-bit system call" },
	{ has_32bit_robust_list, "32-bit robust list" },
	{ has_speculation_control, "PR_SET_SPECULATION_CTRL", true },
	{ has_core_cookie, "core scheduling cookie", true },
	{ has_sched_ext, "SCHED_EXT", true },
	{ is_reaped_alone, "CLONE_AUTOREAP" },
	{ has_rseq_slice, "PR_RSEQ_SLICE_EXTENSION" },
	{ has_shared_segment, "SysV shared memory segment" },
	{ is_tracer, "traces other tasks" },
	{ has_audit_login, "another audit login or session than the caller's" },
	{ has_user_events, "user events" },
	{ has_uring_restriction, "io_uring restriction", true },
	{ has_xstate_permission, "extended state permission", true },
};

/*
 * The name of the next such state that @task has, from number *@at on, which goes behind it; NULL
 * at the end.
 */
const char *checkpoint_task_blocker(struct task_struct *task, unsigned int *at)
{
	while (*at < ARRAY_SIZE(task_blockers)) {
		unsigned int i = (*at)++;

		if (task_blockers[i].has(task))
			return task_blockers[i].name;
	}
	return NULL;
}

/* The same, of what current would leave to its children. */
const char *checkpoint_inherited_blocker(unsigned int *at)
{
	while (*at < ARRAY_SIZE(task_blockers)) {
		unsigned int i = (*at)++;

		if (task_blockers[i].inherited && task_blockers[i].has(current))
			return task_blockers[i].name;
	}
	return NULL;
}

static bool has_ldt(struct mm_struct *mm)
{
#ifdef CONFIG_MODIFY_LDT_SYSCALL
	return mm->context.ldt;
#else
	return false;
#endif
}

static bool has_address_masking(struct mm_struct *mm)
{
#ifdef CONFIG_ADDRESS_MASKING
	return mm->context.lam_cr3_mask ||
	       test_bit(MM_CONTEXT_FORCE_TAGGED_SVA, &mm->context.flags);
#else
	return false;
#endif
}

static bool has_uprobes(struct mm_struct *mm)
{
	return mm_flags_test(MMF_HAS_UPROBES, mm);
}

/* State of an address space that has no place in an image. */
static const struct {
	bool (*has)(struct mm_struct *mm);
	const char *name;
} mm_blockers[] = {
	{ has_ldt, "LDT" },
	{ has_address_masking, "linear address masking" },
	{ has_uprobes, "uprobes" },
};

/* As checkpoint_task_blocker(), for @mm. */
const char *checkpoint_mm_blocker(struct mm_struct *mm, unsigned int *at)
{
	while (*at < ARRAY_SIZE(mm_blockers)) {
		unsigned int i = (*at)++;

		if (mm_blockers[i].has(mm))
			return mm_blockers[i].name;
	}
	return NULL;
}

/*
 * State of an open @file that opening its path again would not bring back: its name in a refusal,
 * or NULL.
 */
const char *checkpoint_file_blocker(struct file *file)
{
	struct super_block *sb = file_inode(file)->i_sb;

	if (IS_ENABLED(CONFIG_DNOTIFY) && S_ISDIR(file_inode(file)->i_mode) &&
	    dnotify_has_watch(file))
		return "dnotify (F_NOTIFY)";
	switch (sb->s_magic) {
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case SYSFS_MAGIC:
		return checkpoint_is_proc(file) ? NULL : "file of a kernel interface, open for writing";
	case DEBUGFS_MAGIC:
	case SECURITYFS_MAGIC:
	case TRACEFS_MAGIC:
		return "file of a kernel interface";
	}
	return NULL;
}
