// SPDX-License-Identifier: GPL-2.0
/*
 * The C side of a hold: walk a tree of tasks, set and clear their trap, see whether they stand
 * still, watch over the end of a hold. The policy is in hold.rs, tree.rs and access.rs; the trap
 * itself is do_checkpoint_trap() in kernel/signal.c.
 */
#include <linux/capability.h>
#include <linux/cgroup.h>
#include <linux/checkpoint.h>
#include <linux/pid.h>
#include <linux/sched/signal.h>
#include <linux/sched/task_stack.h>
#include <linux/seccomp.h>
#include <linux/sysctl.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

static int sysctl_checkpoint_unprivileged = 1;

static const struct ctl_table checkpoint_sysctls[] = {
	{
		.procname	= "checkpoint_unprivileged",
		.data		= &sysctl_checkpoint_unprivileged,
		.maxlen		= sizeof(int),
		.mode		= 0644,
		.proc_handler	= proc_dointvec_minmax,
		.extra1		= SYSCTL_ZERO,
		.extra2		= SYSCTL_ONE,
	},
};

static int __init checkpoint_sysctl_init(void)
{
	register_sysctl_init("kernel", checkpoint_sysctls);
	return 0;
}
late_initcall(checkpoint_sysctl_init);

bool checkpoint_unprivileged_allowed(void)
{
	return READ_ONCE(sysctl_checkpoint_unprivileged);
}

/* A filter passes system calls that it has never heard of. */
bool checkpoint_caller_filtered(void)
{
	return seccomp_mode(&current->seccomp) != SECCOMP_MODE_DISABLED;
}

bool checkpoint_caller_capable(void)
{
	return checkpoint_restore_ns_capable(&init_user_ns);
}

bool checkpoint_caller_killed(void)
{
	return fatal_signal_pending(current);
}

/*
 * May the caller checkpoint @t? With @settled under exec_update_lock, so that the answer belongs
 * to the mm and the credentials that @t has. Returns 0, -EPERM, or -EINTR when killed.
 */
int checkpoint_task_access(struct task_struct *t, bool settled)
{
	bool may;

	if (settled && down_read_killable(&t->signal->exec_update_lock))
		return -EINTR;
	may = ptrace_may_access(t, PTRACE_MODE_ATTACH_REALCREDS);
	if (settled)
		up_read(&t->signal->exec_update_lock);
	return may ? 0 : -EPERM;
}

/* Not the workers of io_uring: they have nothing of their own while no request is in flight. */
static size_t add_process(struct signal_struct *signal, struct task_struct **tasks, size_t n,
			  size_t max)
{
	struct task_struct *t;

	__for_each_thread(signal, t) {
		if (t->flags & PF_IO_WORKER)
			continue;
		if (n < max)
			tasks[n] = get_task_struct(t);
		n++;
	}
	return n;
}

/* Make @scope one of @count trees, whose roots the caller fills in, with references. */
int checkpoint_trees(struct checkpoint_scope *scope, size_t count)
{
	scope->kind = CHECKPOINT_SCOPE_TREES;
	scope->count = count;
	scope->roots = kvcalloc(count, sizeof(*scope->roots), GFP_KERNEL_ACCOUNT);
	return scope->roots ? 0 : -ENOMEM;
}

/* Make @scope that of @fd: a pidfd of a member, or the directory of a cgroup. */
int checkpoint_get_scope(struct checkpoint_scope *scope, enum checkpoint_scope_kind kind, int fd)
{
	struct task_struct *task;
	unsigned int flags;
	int err = 0;

	memset(scope, 0, sizeof(*scope));
	if (kind == CHECKPOINT_SCOPE_CGROUP) {
		struct cgroup *cgroup = cgroup_get_from_fd(fd);

		if (IS_ERR(cgroup))
			return PTR_ERR(cgroup);
		scope->kind = kind;
		scope->cgroup = cgroup;
		return 0;
	}

	task = pidfd_get_task(fd, &flags);
	if (IS_ERR(task))
		return PTR_ERR(task);
	/* Of a pid namespace that the caller does not see. */
	if (!task_pid_vnr(task)) {
		put_task_struct(task);
		return -ESRCH;
	}
	switch (kind) {
	case CHECKPOINT_SCOPE_GROUP:
		scope->pid = get_task_pid(task, PIDTYPE_PGID);
		break;
	case CHECKPOINT_SCOPE_SESSION:
		scope->pid = get_task_pid(task, PIDTYPE_SID);
		break;
	case CHECKPOINT_SCOPE_PID_NS:
		scope->pid_ns = get_pid_ns(task_active_pid_ns(task));
		break;
	default:
		err = checkpoint_trees(scope, 1);
		if (!err)
			scope->roots[0] = get_task_struct(task);
	}
	scope->kind = kind;
	put_task_struct(task);
	return err;
}

void checkpoint_put_scope(struct checkpoint_scope *scope)
{
	switch (scope->kind) {
	case CHECKPOINT_SCOPE_TREES:
		for (size_t i = 0; scope->roots && i < scope->count; i++) {
			if (scope->roots[i])
				put_task_struct(scope->roots[i]);
		}
		kvfree(scope->roots);
		break;
	case CHECKPOINT_SCOPE_GROUP:
	case CHECKPOINT_SCOPE_SESSION:
		put_pid(scope->pid);
		break;
	case CHECKPOINT_SCOPE_PID_NS:
		put_pid_ns(scope->pid_ns);
		break;
	case CHECKPOINT_SCOPE_CGROUP:
		cgroup_put(scope->cgroup);
		break;
	}
}

/* Whether @leader, a process, belongs to @scope by itself; under tasklist_lock. */
static bool in_scope(const struct checkpoint_scope *scope, struct task_struct *leader)
{
	switch (scope->kind) {
	case CHECKPOINT_SCOPE_TREES:
		return false;
	case CHECKPOINT_SCOPE_GROUP:
		return task_pgrp(leader) == scope->pid;
	case CHECKPOINT_SCOPE_SESSION:
		return task_session(leader) == scope->pid;
	case CHECKPOINT_SCOPE_PID_NS:
		return task_active_pid_ns(leader) == scope->pid_ns;
	case CHECKPOINT_SCOPE_CGROUP:
		return cgroup_is_descendant(task_dfl_cgroup(leader), scope->cgroup);
	}
	return false;
}

/* Whether @leader belongs to @scope, and is no descendant of one that does. */
static bool is_root(const struct checkpoint_scope *scope, struct task_struct *leader)
{
	struct task_struct *t = leader;

	if (!in_scope(scope, leader))
		return false;
	while (t->pid) {
		t = rcu_dereference(t->real_parent)->group_leader;
		if (t->pid && in_scope(scope, t))
			return false;
	}
	return true;
}

static size_t add_roots(const struct checkpoint_scope *scope, struct task_struct **tasks, size_t max)
{
	struct task_struct *leader;
	size_t n = 0;

	if (scope->kind == CHECKPOINT_SCOPE_TREES) {
		for (size_t i = 0; i < scope->count; i++)
			n = add_process(scope->roots[i]->signal, tasks, n, max);
		return n;
	}
	/* Not the lists of groups and sessions, which are not in the order of creation. */
	for_each_process(leader) {
		if (is_root(scope, leader))
			n = add_process(leader->signal, tasks, n, max);
	}
	return n;
}

/*
 * Fill @tasks with references to all threads of the processes of @scope and of their descendants:
 * parents before children, a leader before its other threads, and each in the order of creation.
 * Returns their number; when that is more than @max the references are dropped, and the number is
 * only a lower bound.
 */
size_t checkpoint_walk(const struct checkpoint_scope *scope, struct task_struct **tasks, size_t max)
{
	struct task_struct *child;
	size_t n, i;

	read_lock(&tasklist_lock);
	rcu_read_lock();
	n = add_roots(scope, tasks, max);
	for (i = 0; i < n && n <= max; i++)
		list_for_each_entry(child, &tasks[i]->children, sibling)
			n = add_process(child->signal, tasks, n, max);
	rcu_read_unlock();
	read_unlock(&tasklist_lock);

	if (n > max) {
		for (i = 0; i < max; i++)
			put_task_struct(tasks[i]);
	}
	return n;
}

/*
 * Make @t trap. Returns -ESRCH when it is gone or about to die, -EBUSY when it is held already,
 * -EOPNOTSUPP when it is traced.
 */
int checkpoint_trap_set(struct task_struct *t)
{
	unsigned long flags;
	int err = 0;

	if (!lock_task_sighand(t, &flags))
		return -ESRCH;
	if ((t->flags & PF_EXITING) || (t->signal->flags & SIGNAL_GROUP_EXIT) ||
	    (t->signal->group_exec_task && t->signal->group_exec_task != t)) {
		err = -ESRCH;
	} else if (t->jobctl & JOBCTL_TRAP_CHECKPOINT) {
		err = -EBUSY;
	} else if (READ_ONCE(t->ptrace)) {
		err = -EOPNOTSUPP;
	} else {
		t->jobctl |= JOBCTL_TRAP_CHECKPOINT;
		signal_wake_up(t, 0);
	}
	unlock_task_sighand(t, &flags);
	return err;
}

/* Let @t go on, if it was made to trap and has not died. */
void checkpoint_trap_clear(struct task_struct *t)
{
	unsigned long flags;

	if (!lock_task_sighand(t, &flags))
		return;
	if (t->jobctl & JOBCTL_TRAP_CHECKPOINT) {
		t->jobctl &= ~JOBCTL_TRAP_CHECKPOINT;
		if (t->jobctl & JOBCTL_CHECKPOINT_STOPPED)
			wake_up_state(t, TASK_INTERRUPTIBLE);
	}
	unlock_task_sighand(t, &flags);
}

enum checkpoint_still checkpoint_task_still(struct task_struct *t)
{
	enum checkpoint_still still = CHECKPOINT_STILL_NOT;
	unsigned long flags;

	if (!lock_task_sighand(t, &flags))
		return CHECKPOINT_STILL_GONE;
	if (READ_ONCE(t->exit_state))
		still = READ_ONCE(t->exit_state) == EXIT_ZOMBIE ? CHECKPOINT_STILL_ZOMBIE :
								  CHECKPOINT_STILL_NOT;
	else if (!(t->jobctl & JOBCTL_TRAP_CHECKPOINT))
		still = CHECKPOINT_STILL_NOT;
	else if (t->jobctl & JOBCTL_CHECKPOINT_STOPPED)
		still = CHECKPOINT_STILL_TRAPPED;
	else if (t->jobctl & JOBCTL_STOPPED)
		still = CHECKPOINT_STILL_STOPPED;
	unlock_task_sighand(t, &flags);
	return still;
}

/* Whether somebody wants @t to stand still. */
bool checkpoint_is_trapped(struct task_struct *t)
{
	return READ_ONCE(t->jobctl) & JOBCTL_TRAP_CHECKPOINT;
}

/* @t waits in wait_for_vfork_done() for @child: the completion lies on its kernel stack. */
static bool waits_for(struct task_struct *t, struct task_struct *child)
{
	unsigned long done, stack = (unsigned long)task_stack_page(t);

	task_lock(child);
	done = (unsigned long)child->vfork_done;
	task_unlock(child);
	return stack && done >= stack && done < stack + THREAD_SIZE;
}

/* The child that @t, held and asleep in vfork(2), waits for, with a reference; or NULL. */
struct task_struct *checkpoint_vfork_child(struct task_struct *t)
{
	struct task_struct *child, *found = NULL;

	/* Threads that wait otherwise need not look for a child. */
	if (!(READ_ONCE(t->__state) & TASK_WAKEKILL) ||
	    !(READ_ONCE(t->jobctl) & JOBCTL_TRAP_CHECKPOINT))
		return NULL;

	read_lock(&tasklist_lock);
	if (READ_ONCE(t->exit_state))
		goto out;
	list_for_each_entry(child, &t->children, sibling)
		if (waits_for(t, child))
			goto found;
	/* CLONE_THREAD | CLONE_VFORK */
	__for_each_thread(t->signal, child)
		if (waits_for(t, child))
			goto found;
	/* CLONE_PARENT | CLONE_VFORK */
	list_for_each_entry(child, &t->real_parent->children, sibling)
		if (waits_for(t, child))
			goto found;
	goto out;
found:
	found = get_task_struct(child);
out:
	read_unlock(&tasklist_lock);
	return found;
}

/*
 * Wait until @t is trapped or something else may have happened to it, @timeout jiffies at most.
 * Returns -ERESTARTSYS when the caller is killed.
 */
int checkpoint_wait_trapped(struct task_struct *t, long timeout)
{
	long ret = ___wait_var_event(&t->jobctl,
		___wait_cond_timeout(READ_ONCE(t->jobctl) & JOBCTL_CHECKPOINT_STOPPED),
		TASK_KILLABLE | TASK_FREEZABLE, 0, timeout, __ret = schedule_timeout(__ret));

	return ret < 0 ? ret : 0;
}

/* Wait until @t, which stands still as @still says, is off the CPU. False: it moved. */
bool checkpoint_wait_inactive(struct task_struct *t, enum checkpoint_still still)
{
	switch (still) {
	case CHECKPOINT_STILL_TRAPPED:
		return wait_task_inactive(t, TASK_INTERRUPTIBLE);
	case CHECKPOINT_STILL_STOPPED:
		return wait_task_inactive(t, __TASK_STOPPED);
	case CHECKPOINT_STILL_VFORK:
		return wait_task_inactive(t, TASK_WAKEKILL);
	default:
		return true;
	}
}

/* The letter of @t's state, as in /proc/PID/stat. */
char checkpoint_task_state(struct task_struct *t)
{
	return task_state_to_char(t);
}

/* The tracer's pid as the caller sees it, 0 when @t is not traced. */
pid_t checkpoint_tracer(struct task_struct *t)
{
	pid_t pid = 0;

	read_lock(&tasklist_lock);
	if (t->ptrace)
		pid = task_pid_vnr(t->parent) ?: -1;
	read_unlock(&tasklist_lock);
	return pid;
}

/* Not a task of user space: its stack and registers are the kernel's. */
bool checkpoint_kernel_task(struct task_struct *t)
{
	return READ_ONCE(t->flags) & (PF_KTHREAD | PF_IO_WORKER | PF_USER_WORKER);
}

/*
 * Made by restart(2), and not yet what it is to become: it has the registers that copy_thread() gives
 * to what begins in the kernel.
 */
bool checkpoint_task_unfinished(struct task_struct *t)
{
	struct pt_regs *regs;
	bool unfinished;

	/* A zombie of a restart never gets others. */
	if ((READ_ONCE(t->flags) & PF_EXITING) || !try_get_task_stack(t))
		return false;
	regs = task_pt_regs(t);
	unfinished = !instruction_pointer(regs) && !user_stack_pointer(regs);
	put_task_stack(t);
	return unfinished;
}

/* Send @sig to @t's process on behalf of the caller, who could have traced it. */
void checkpoint_signal(struct task_struct *t, int sig)
{
	do_send_sig_info(sig, SEND_SIG_NOINFO, t, PIDTYPE_TGID);
}

/* All threads of @t's process are stopped by job control, or dead. */
bool checkpoint_process_stopped(struct task_struct *t)
{
	return READ_ONCE(t->signal->flags) & (SIGNAL_STOP_STOPPED | SIGNAL_GROUP_EXIT);
}

bool checkpoint_writable(struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

/* Append @len bytes to @file where its position is, as write(2) does. */
ssize_t checkpoint_write(struct file *file, const void *buf, size_t len)
{
	bool locked = file->f_mode & FMODE_ATOMIC_POS;
	loff_t pos;
	ssize_t ret;

	if (file->f_mode & FMODE_STREAM)
		return kernel_write(file, buf, len, NULL);

	if (locked && mutex_lock_killable(&file->f_pos_lock))
		return -EINTR;
	pos = file->f_pos;
	ret = kernel_write(file, buf, len, &pos);
	if (ret > 0)
		file->f_pos = pos;
	if (locked)
		mutex_unlock(&file->f_pos_lock);
	return ret;
}

/* As pidfd_poll() sees it. */
static bool process_died(struct pid *pid)
{
	struct task_struct *task;

	guard(rcu)();
	task = pid_task(pid, PIDTYPE_PID);
	return !task || (task->exit_state && !delay_group_leader(task));
}

static void watch_work(struct work_struct *work)
{
	struct checkpoint_watch *watch =
		container_of(to_delayed_work(work), struct checkpoint_watch, work);
	long left = READ_ONCE(watch->deadline) - jiffies;

	if (left > 0 && !process_died(watch->opener))
		mod_delayed_work(system_dfl_wq, &watch->work, left);
	else
		rust_checkpoint_watch_expired(watch);
}

/* Called with the lock of the wait queue held. Somebody of the opener's process died. */
static int watch_wake(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key)
{
	struct checkpoint_watch *watch = container_of(entry, struct checkpoint_watch, entry);

	mod_delayed_work(system_dfl_wq, &watch->work, 0);
	return 0;
}

void checkpoint_watch_init(struct checkpoint_watch *watch)
{
	INIT_DELAYED_WORK(&watch->work, watch_work);
	init_waitqueue_func_entry(&watch->entry, watch_wake);
	watch->opener = NULL;
}

/*
 * Call rust_checkpoint_watch_expired() when the caller's process dies, or @lease jiffies after
 * the last checkpoint_watch_renew().
 */
void checkpoint_watch_start(struct checkpoint_watch *watch, unsigned long lease)
{
	watch->opener = get_pid(task_tgid(current));
	checkpoint_watch_renew(watch, lease);
	add_wait_queue(&watch->opener->wait_pidfd, &watch->entry);
	mod_delayed_work(system_dfl_wq, &watch->work, lease);
}

/* The work looks at the deadline when the old lease runs out. */
void checkpoint_watch_renew(struct checkpoint_watch *watch, unsigned long lease)
{
	WRITE_ONCE(watch->deadline, jiffies + lease);
}

/* May sleep. rust_checkpoint_watch_expired() is not running afterwards, and will not be called. */
void checkpoint_watch_stop(struct checkpoint_watch *watch)
{
	if (!watch->opener)
		return;
	remove_wait_queue(&watch->opener->wait_pidfd, &watch->entry);
	cancel_delayed_work_sync(&watch->work);
	put_pid(watch->opener);
	watch->opener = NULL;
}

pid_t checkpoint_watch_opener(struct checkpoint_watch *watch)
{
	return pid_vnr(watch->opener);
}
