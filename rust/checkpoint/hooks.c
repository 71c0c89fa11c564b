// SPDX-License-Identifier: GPL-2.0
/*
 * Small accessors for kernel/checkpoint/: inline functions, macros and fields that Rust cannot
 * reach through bindgen. None of them is exported to modules.
 *
 * Locks: tasklist_lock; task_lock() -> file_lock of a descriptor table, or seq of an fs_struct;
 * siglock. checkpoint_lock_sighand() and checkpoint_task_lock() leave theirs taken.
 */
#include <linux/checkpoint.h>
#include <linux/delay.h>
#include <linux/sched/task_stack.h>
#include <linux/wait.h>
#include <uapi/linux/magic.h>
#include <uapi/linux/wait.h>

#include <asm/cpuid/api.h>
#include <asm/fpu/api.h>
#include <asm/fpu/xcr.h>

/*
 * The next descriptors of @task from number @from on, at most @max, each with a reference to its
 * file. Returns how many there are; 0 at the end.
 */
unsigned int checkpoint_get_fds(struct task_struct *task, unsigned int from,
				struct checkpoint_fd *found, unsigned int max)
{
	unsigned int fd = from, count = 0;
	struct files_struct *files;
	struct fdtable *fdt;

	guard(task_lock)(task);
	files = task->files;
	if (!files)
		return 0;
	guard(spinlock)(&files->file_lock);
	fdt = files_fdtable(files);
	for_each_set_bit_from(fd, fdt->open_fds, fdt->max_fds) {
		struct file *file = rcu_dereference_protected(fdt->fd[fd], true);

		/* It may be reserved and not open yet. */
		if (!file)
			continue;
		found[count++] = (struct checkpoint_fd) {
			.file = get_file(file),
			.fd = fd,
			.cloexec = test_bit(fd, fdt->close_on_exec),
		};
		if (count == max)
			break;
	}
	return count;
}

/* Root, working directory (each with a reference) and umask of @task; -ESRCH when it has exited. */
int checkpoint_get_fs(struct task_struct *task, struct path *root, struct path *pwd, int *umask)
{
	struct fs_struct *fs;

	guard(task_lock)(task);
	fs = task->fs;
	if (!fs)
		return -ESRCH;
	get_fs_root(fs, root);
	get_fs_pwd(fs, pwd);
	*umask = fs->umask;
	return 0;
}

bool checkpoint_path_unlinked(const struct path *path)
{
	return d_unlinked(path->dentry);
}

bool checkpoint_path_equal(const struct path *a, const struct path *b)
{
	return path_equal(a, b);
}

bool checkpoint_killed(void)
{
	return fatal_signal_pending(current);
}

/* Close all descriptors of current, whose table is its own. */
void checkpoint_close_all(void)
{
	unsigned int max;

	scoped_guard(rcu)
		max = files_fdtable(current->files)->max_fds;
	for (unsigned int fd = 0; fd < max; fd++)
		close_fd(fd);
}

void checkpoint_set_umask(int umask)
{
	current->fs->umask = umask & S_IRWXUGO;
}

/*
 * Fill @tgids with the processes that are in the group or session (@type) of number @nr, as current
 * sees them, and return how many they are; more than @max are not listed. @lives tells whether the
 * process that it is named after is one of those that exist.
 */
size_t checkpoint_group_members(pid_t nr, enum pid_type type, pid_t *tgids, size_t max, bool *lives)
{
	struct task_struct *task;
	struct pid *group;
	size_t n = 0;

	guard(read_lock)(&tasklist_lock);
	group = find_vpid(nr);
	*lives = group && pid_has_task(group, PIDTYPE_PID);
	do_each_pid_task(group, type, task) {
		if (n < max)
			tgids[n] = task_tgid_vnr(task);
		n++;
	} while_each_pid_task(group, type, task);
	return n;
}

/* A number for a group or session whose leader is gone, or NULL when there is one; or an error. */
static struct pid *missing_pid(pid_t nr)
{
	scoped_guard(rcu) {
		if (!nr || find_vpid(nr))
			return NULL;
	}
	return alloc_pid(task_active_pid_ns(current), &nr, 1);
}

static void free_unused_pid(struct pid *pid)
{
	if (pid && !pid_has_task(pid, PIDTYPE_PGID) && !pid_has_task(pid, PIDTYPE_SID))
		free_pid(pid);
}

/*
 * Move @task, the leader of a thread group that has not run in user mode yet, into the process
 * group and the session with these numbers in the pid namespace of current, or leave it (0). A number
 * that nobody has is taken, which needs what clone3(2) asks for set_tid.
 */
int checkpoint_set_ids(struct task_struct *task, pid_t pgid, pid_t sid)
{
	struct pid *pids[PIDTYPE_MAX] = {};
	struct pid *pgrp, *session, *new_session, *new_pgrp;
	int err = 0;

	new_session = missing_pid(sid);
	if (IS_ERR(new_session))
		return PTR_ERR(new_session);
	new_pgrp = missing_pid(pgid);
	if (IS_ERR(new_pgrp)) {
		free_unused_pid(new_session);
		return PTR_ERR(new_pgrp);
	}

	write_lock_irq(&tasklist_lock);
	pgrp = pgid ? find_vpid(pgid) : task_pgrp(task);
	session = sid ? find_vpid(sid) : task_session(task);
	if (!pgrp || !session || !task->sighand) {
		err = -ESRCH;
	} else {
		if (task_session(task) != session) {
			change_pid(pids, task, PIDTYPE_SID, session);
			proc_clear_tty(task);
		}
		if (session == task_pid(task))
			task->signal->leader = 1;
		if (task_pgrp(task) != pgrp)
			change_pid(pids, task, PIDTYPE_PGID, pgrp);
	}
	write_unlock_irq(&tasklist_lock);
	free_pids(pids);
	free_unused_pid(new_session);
	free_unused_pid(new_pgrp);
	return err;
}

/* Whether current may do what clone3(2) asks for set_tid. */
bool checkpoint_may_choose_pids(void)
{
	return checkpoint_restore_ns_capable(task_active_pid_ns(current)->user_ns);
}

/* Whether a task, a process group or a session of the pid namespace of current has this number. */
bool checkpoint_pid_taken(pid_t nr)
{
	guard(rcu)();
	return find_vpid(nr) != NULL;
}

#define FIRST_PAUSE_US 20UL

/*
 * Let others get to where they are expected. They are on their way, which takes far less than a tick;
 * who takes longer is looked for more and more rarely: @us begins with FIRST_PAUSE_US. False: the
 * caller is killed.
 */
static bool pause_briefly(unsigned long *us)
{
	usleep_range(*us, 2 * *us);
	*us = min(2 * *us, TICK_USEC);
	return !fatal_signal_pending(current);
}

/*
 * Wait, killably, until @task sleeps in wait_for_completion_killable() and is off its CPU. The only
 * such wait on its way is the last, which it leaves when the caller says so, or to die.
 */
int checkpoint_wait_parked(struct task_struct *task)
{
	unsigned long us = FIRST_PAUSE_US;

	while (!wait_task_inactive(task, TASK_WAKEKILL)) {
		if (READ_ONCE(task->exit_state))
			return -ESRCH;
		if (!pause_briefly(&us))
			return -EINTR;
	}
	return 0;
}

/* Whether @task has been killed, and dies or is dead. */
bool checkpoint_is_killed(struct task_struct *task)
{
	return (READ_ONCE(task->flags) & PF_EXITING) || __fatal_signal_pending(task);
}

/* Wait, killably, until @task, which has been sent SIGKILL, is dead. */
void checkpoint_wait_dead(struct task_struct *task)
{
	unsigned long us = FIRST_PAUSE_US;

	while (!READ_ONCE(task->exit_state) && pause_briefly(&us))
		;
	/* Ours to reap, unless its parent was one of those that died with it. */
	if (rcu_access_pointer(task->real_parent) == current)
		kernel_wait4(task_pid_vnr(task), NULL, __WALL | WNOHANG, NULL);
}

/* Wait, killably, until @task, which ends by itself, is dead and off its CPU. */
int checkpoint_wait_exited(struct task_struct *task)
{
	unsigned long us = FIRST_PAUSE_US;

	while (!wait_task_inactive(task, TASK_DEAD)) {
		if (!pause_briefly(&us))
			return -EINTR;
	}
	return 0;
}

/* From now on the parent of @task gets @sig at its death; for one that is dead it is too late. */
void checkpoint_set_exit_signal(struct task_struct *task, int sig)
{
	guard(write_lock_irq)(&tasklist_lock);
	task->exit_signal = sig;
}

/*
 * The parent of @task, as an identity: it may be used only if it is known to stay, as those do that
 * are held.
 */
struct task_struct *checkpoint_parent(struct task_struct *task)
{
	guard(rcu)();
	return rcu_dereference(task->real_parent);
}

/* The table of that kind that @task has, as an identity. */
const void *checkpoint_table(struct task_struct *task, enum checkpoint_table table)
{
	switch (table) {
	case CHECKPOINT_TABLE_MM:
		return READ_ONCE(task->mm);
	case CHECKPOINT_TABLE_FILES:
		return READ_ONCE(task->files);
	case CHECKPOINT_TABLE_FS:
		return READ_ONCE(task->fs);
	case CHECKPOINT_TABLE_SIGHAND:
		return READ_ONCE(task->sighand);
	}
	return NULL;
}

/* How many references there are to it, most of them by tasks. */
size_t checkpoint_table_users(struct task_struct *task, enum checkpoint_table table)
{
	struct sighand_struct *sighand;

	guard(task_lock)(task);
	guard(rcu)();
	switch (table) {
	case CHECKPOINT_TABLE_MM:
		return task->mm ? atomic_read(&task->mm->mm_users) : 0;
	case CHECKPOINT_TABLE_FILES:
		return task->files ? atomic_read(&task->files->count) : 0;
	case CHECKPOINT_TABLE_FS:
		return task->fs ? READ_ONCE(task->fs->users) : 0;
	case CHECKPOINT_TABLE_SIGHAND:
		sighand = rcu_dereference(task->sighand);
		return sighand ? refcount_read(&sighand->count) : 0;
	}
	return 0;
}

/*
 * Fill @pids with the numbers of the tasks that have the same table as @task, as current sees them,
 * and return how many they are, @max at most. Workers of io_uring are part of their task.
 */
size_t checkpoint_find_users(struct task_struct *task, enum checkpoint_table table, pid_t *pids,
			     size_t max)
{
	const void *wanted = checkpoint_table(task, table);
	struct task_struct *process, *thread;
	size_t n = 0;

	if (!wanted)
		return 0;
	guard(rcu)();
	for_each_process_thread(process, thread) {
		if (checkpoint_table(thread, table) == wanted && !(thread->flags & PF_IO_WORKER) &&
		    n < max)
			pids[n++] = task_pid_vnr(thread);
	}
	return n;
}

/* The semaphore adjustments of @task, as an identity; NULL for none. */
const void *checkpoint_sem_undo(struct task_struct *task)
{
#ifdef CONFIG_SYSVIPC
	return task->sysvsem.undo_list;
#else
	return NULL;
#endif
}

/* Orphans among the descendants of current, which has none yet, become its children. */
void checkpoint_set_subreaper(void)
{
	current->signal->is_child_subreaper = 1;
}

/* The descriptors of @task, with a reference for put_files_struct(); NULL when it has exited. */
struct files_struct *checkpoint_get_files(struct task_struct *task)
{
	struct files_struct *files;

	guard(task_lock)(task);
	files = task->files;
	if (files)
		atomic_inc(&files->count);
	return files;
}

/*
 * Let @task use the descriptors of @owner. Neither does meanwhile: they wait for the caller, or are
 * being killed. -ESRCH: one has none any more.
 */
int checkpoint_share_files(struct task_struct *task, struct task_struct *owner)
{
	struct files_struct *files = checkpoint_get_files(owner), *old;

	if (!files)
		return -ESRCH;
	scoped_guard(task_lock, task) {
		old = task->files;
		if (old)
			swap(task->files, files);
	}
	put_files_struct(files);
	return old ? 0 : -ESRCH;
}

static int change_users(struct fs_struct *fs, int change)
{
	int users;

	read_seqlock_excl(&fs->seq);
	fs->users += change;
	users = fs->users;
	read_sequnlock_excl(&fs->seq);
	return users;
}

/* The same for working directory and umask. */
int checkpoint_share_fs(struct task_struct *task, struct task_struct *owner)
{
	struct fs_struct *fs, *old;

	scoped_guard(task_lock, owner) {
		fs = owner->fs;
		if (fs)
			change_users(fs, 1);
	}
	if (!fs)
		return -ESRCH;
	scoped_guard(task_lock, task) {
		old = task->fs;
		if (old) {
			task->fs = fs;
			task->real_fs = fs;
			fs = old;
		}
	}
	if (!change_users(fs, -1))
		free_fs_struct(fs);
	return old ? 0 : -ESRCH;
}

/*
 * What the parent of @task's process may be told of it, and has not been: that it was @continued, or,
 * while it is @stopped, the signal @code that stopped it.
 */
void checkpoint_set_stopped(struct task_struct *task, bool stopped, bool continued, int code)
{
	struct signal_struct *signal = task->signal;
	unsigned long flags;

	if ((!stopped && !continued && !code) || !lock_task_sighand(task, &flags))
		return;
	if (!(signal->flags & SIGNAL_GROUP_EXIT)) {
		if (stopped)
			signal->flags |= SIGNAL_STOP_STOPPED;
		if (continued)
			signal->flags |= SIGNAL_STOP_CONTINUED;
		signal->group_exit_code = code;
	}
	unlock_task_sighand(task, &flags);
}

/*
 * Stop @task by @sig on its way to user mode. One that was @stopped does so without a word, another
 * completes the stop of its process, of which the parent is told then.
 */
void checkpoint_stop_task(struct task_struct *task, int sig, bool stopped)
{
	unsigned long flags, jobctl = sig | JOBCTL_STOP_PENDING;

	if (!stopped)
		jobctl |= JOBCTL_STOP_CONSUME;
	if (!lock_task_sighand(task, &flags))
		return;
	if (task_set_jobctl_pending(task, jobctl) && !stopped)
		task->signal->group_stop_count++;
	unlock_task_sighand(task, &flags);
}

/*
 * Wait, killably, until @task is stopped and off its CPU; unless it has been continued since it was
 * told to.
 */
int checkpoint_wait_stopped(struct task_struct *task)
{
	unsigned long us = FIRST_PAUSE_US;

	while (!wait_task_inactive(task, __TASK_STOPPED)) {
		if (READ_ONCE(task->exit_state))
			return -ESRCH;
		if (!(READ_ONCE(task->jobctl) & (JOBCTL_STOP_PENDING | JOBCTL_STOPPED)))
			return 0;
		if (!pause_briefly(&us))
			return -EINTR;
	}
	return 0;
}

/* From now on @done, on the stack of current, tells of the exec or the end of @child. */
void checkpoint_vfork_begin(struct task_struct *child, struct completion *done)
{
	init_completion(done);
	guard(task_lock)(child);
	/* Set before mm_release() looks for the completion, with the same lock. */
	if (child->flags & PF_EXITING)
		complete(done);
	else
		child->vfork_done = done;
}

/*
 * Do as wait_for_vfork_done(), or, unless @wait, give up. Whether it was given up, or current is being
 * killed.
 */
int checkpoint_vfork_end(struct task_struct *child, struct completion *done, bool wait)
{
	int err = -EINTR;

	if (wait) {
		cgroup_enter_frozen();
		err = wait_for_completion_state(done, TASK_KILLABLE | TASK_FREEZABLE);
		cgroup_leave_frozen(false);
	}
	if (err) {
		guard(task_lock)(child);
		if (child->vfork_done == done)
			child->vfork_done = NULL;
	}
	return err;
}

/*
 * Children of current are born into a time namespace in which the clocks stand @monotonic_ns and
 * @boottime_ns further than in its own, until checkpoint_leave_time_ns().
 */
int checkpoint_enter_time_ns(s64 monotonic_ns, s64 boottime_ns, struct nsproxy **old)
{
	struct nsproxy *new = NULL;
	struct timens_offsets *offsets;
	int err;

	err = unshare_nsproxy_namespaces(CLONE_NEWTIME, &new, NULL, NULL);
	if (err)
		return err;
	if (!ns_capable(new->time_ns_for_children->user_ns, CAP_SYS_TIME)) {
		put_nsproxy(new);
		return -EPERM;
	}

	/* Nobody else has seen the namespace yet. */
	offsets = &new->time_ns_for_children->offsets;
	offsets->monotonic = timespec64_add(offsets->monotonic, ns_to_timespec64(monotonic_ns));
	offsets->boottime = timespec64_add(offsets->boottime, ns_to_timespec64(boottime_ns));

	*old = current->nsproxy;
	get_nsproxy(*old);
	switch_task_namespaces(current, new);
	return 0;
}

void checkpoint_leave_time_ns(struct nsproxy *old)
{
	switch_task_namespaces(current, old);
}

/*
 * By how much CLOCK_MONOTONIC and CLOCK_BOOTTIME are ahead as @task sees them; current stands for
 * its children.
 */
void checkpoint_clock_offsets(struct task_struct *task, s64 *monotonic_ns, s64 *boottime_ns)
{
	struct timens_offsets *offsets;

	*monotonic_ns = 0;
	*boottime_ns = 0;

	guard(task_lock)(task);
	if (task->nsproxy) {
		offsets = task == current ? &task->nsproxy->time_ns_for_children->offsets
					  : &task->nsproxy->time_ns->offsets;
		*monotonic_ns = timespec64_to_ns(&offsets->monotonic);
		*boottime_ns = timespec64_to_ns(&offsets->boottime);
	}
}

/* CLOCK_MONOTONIC and CLOCK_BOOTTIME as @task sees them; current stands for its children. */
void checkpoint_clocks(struct task_struct *task, s64 *monotonic_ns, s64 *boottime_ns)
{
	s64 monotonic = ktime_get_ns();
	s64 boottime = ktime_get_boottime_ns();

	checkpoint_clock_offsets(task, monotonic_ns, boottime_ns);
	*monotonic_ns += monotonic;
	*boottime_ns += boottime;
}

/* Forget what current took over from the caller of restart(2) and what is about to be unmapped. */
void checkpoint_reset_inherited(void)
{
	rseq_execve(current);
	current->futex.robust_list = NULL;
	current->set_child_tid = NULL;
	current->clear_child_tid = NULL;
	sas_ss_reset(current);
	current->pdeath_signal = 0;
	/* READ_IMPLIES_EXEC changes what is mapped. */
	current->personality = PER_LINUX;
}

/*
 * Not rseq_register(): that clears rseq_cs in user memory, and with it the abort of a critical
 * section that the checkpoint interrupted.
 */
void checkpoint_restore_rseq(unsigned long ptr, u32 len, u32 sig)
{
	/* The size of the first version, which the second exceeds; see rseq_register(). */
	const u32 v1_size = 32;
	struct rseq __user *rseq = (struct rseq __user *)ptr;

	if (!access_ok(rseq, len) || len < v1_size)
		return;
	/*
	 * The ids are those of another CPU, and for the second version the kernel insists that they
	 * are the ones that it wrote last: now none, as checkpoint_reset_inherited() left them.
	 */
	if (put_user(RSEQ_CPU_ID_UNINITIALIZED, &rseq->cpu_id_start) ||
	    put_user(RSEQ_CPU_ID_UNINITIALIZED, &rseq->cpu_id) ||
	    put_user(0U, &rseq->node_id) || put_user(0U, &rseq->mm_cid)) {
		force_sig(SIGSEGV);
		return;
	}
	current->rseq.usrptr = rseq;
	current->rseq.len = len;
	current->rseq.sig = sig;
	current->rseq.event.has_rseq = len > v1_size ? 2 : 1;
	/* The critical section was interrupted in user mode, whatever brought current here. */
	current->rseq.event.user_irq = true;
	rseq_force_update();
}

struct sighand_struct *checkpoint_lock_sighand(struct task_struct *task, unsigned long *flags)
{
	return lock_task_sighand(task, flags);
}

void checkpoint_unlock_sighand(struct sighand_struct *sighand, unsigned long flags)
{
	spin_unlock_irqrestore(&sighand->siglock, flags);
}

void checkpoint_task_lock(struct task_struct *task)
{
	task_lock(task);
}

void checkpoint_task_unlock(struct task_struct *task)
{
	task_unlock(task);
}

void checkpoint_set_sigpending(struct task_struct *task)
{
	set_tsk_thread_flag(task, TIF_SIGPENDING);
}

bool checkpoint_restore_sigmask(struct task_struct *task)
{
	return test_tsk_restore_sigmask(task);
}

void checkpoint_set_restore_sigmask(struct task_struct *task)
{
	task->restore_sigmask = true;
}

/* Keep the kernel stack of @task, if it has one still, until put_task_stack(). */
bool checkpoint_get_stack(struct task_struct *task)
{
	return try_get_task_stack(task);
}

/* The caller keeps the kernel stack of @task, or is that. */
struct pt_regs *checkpoint_pt_regs(struct task_struct *task)
{
	return task_pt_regs(task);
}

/* What CPUID says of the components, which would take long to ask each time: hypervisors trap it. */
static struct {
	u32 offset;
	u32 size;
} xfeatures[XFEATURE_MAX] __ro_after_init;

static int __init checkpoint_xfeatures_init(void)
{
	unsigned int i;
	u32 ecx, edx;

	for (i = FIRST_EXTENDED_XFEATURE; i < XFEATURE_MAX; i++) {
		if (fpu_user_cfg.max_features & BIT_ULL(i))
			cpuid_count(CPUID_LEAF_XSTATE, i, &xfeatures[i].size, &xfeatures[i].offset,
				    &ecx, &edx);
	}
	return 0;
}
late_initcall(checkpoint_xfeatures_init);

/*
 * Offset and size of a component of the XSAVE area in its standard format, as user space sees it;
 * 0 for one that it cannot have.
 */
void checkpoint_xfeature(unsigned int feature, u32 *offset, u32 *size)
{
	if (feature < XFEATURE_MAX) {
		*offset = xfeatures[feature].offset;
		*size = xfeatures[feature].size;
	}
}

/* The extended states that @task, current or one off its CPU, has in use. */
u64 checkpoint_xfeatures_in_use(struct task_struct *task)
{
	struct fpu *fpu = x86_task_fpu(task);

	if (!cpu_feature_enabled(X86_FEATURE_XSAVE))
		return 0;
	if (task == current)
		fpu_sync_fpstate(fpu);
	return fpu->fpstate->regs.xsave.header.xfeatures & fpu->fpstate->user_xfeatures;
}

/* The extended states that user space may have. */
u64 checkpoint_user_xfeatures(void)
{
	return fpu_user_cfg.max_features;
}

u32 checkpoint_cpus_online(void)
{
	return num_online_cpus();
}

struct new_utsname *checkpoint_utsname(void)
{
	return utsname();
}

unsigned long checkpoint_task_size(void)
{
	return TASK_SIZE;
}

bool checkpoint_no_new_privs(struct task_struct *task)
{
	return task_no_new_privs(task);
}

void checkpoint_set_no_new_privs(void)
{
	task_set_no_new_privs(current);
}

int checkpoint_ioprio(struct task_struct *task)
{
#ifdef CONFIG_BLOCK
	guard(task_lock)(task);
	return task->io_context ? task->io_context->ioprio : 0;
#else
	return 0;
#endif
}

/* The CPUs that @task may run on, as @words words of 64 bits. */
void checkpoint_cpus(struct task_struct *task, u64 *mask, unsigned int words)
{
	bitmap_to_arr64(mask, cpumask_bits(&task->cpus_mask), min(nr_cpu_ids, words * 64));
}

bool checkpoint_is_tty(struct file *file)
{
	if (!S_ISCHR(file_inode(file)->i_mode))
		return false;
	switch (imajor(file_inode(file))) {
	case TTY_MAJOR:
	case TTYAUX_MAJOR:
	case UNIX98_PTY_MASTER_MAJOR ... UNIX98_PTY_MASTER_MAJOR + UNIX98_PTY_MAJOR_COUNT - 1:
	case UNIX98_PTY_SLAVE_MAJOR ... UNIX98_PTY_SLAVE_MAJOR + UNIX98_PTY_MAJOR_COUNT - 1:
		return true;
	}
	return false;
}

bool checkpoint_pipe_has_notifications(struct pipe_inode_info *pipe)
{
	return pipe_has_watch_queue(pipe);
}

/* Slots in use: from @tail up to @head, which wrap around. */
void checkpoint_pipe_slots(struct pipe_inode_info *pipe, u32 *head, u32 *tail)
{
	*head = pipe->head;
	*tail = pipe->tail;
}

/* Whether @file is a fifo with a name, and not what pipe(2) makes. */
bool checkpoint_is_fifo(struct file *file)
{
	return file_inode(file)->i_sb->s_magic != PIPEFS_MAGIC;
}

/* Whether @file was opened for reading when @pipe had no writer, and none came: see pipe_poll(). */
bool checkpoint_pipe_no_writer_yet(struct file *file, struct pipe_inode_info *pipe)
{
	return (file->f_mode & (FMODE_READ | FMODE_WRITE)) == FMODE_READ &&
	       file->f_pipe == pipe->w_counter;
}

void checkpoint_pipe_await_writer(struct file *file, struct pipe_inode_info *pipe)
{
	file->f_pipe = pipe->w_counter;
}

int checkpoint_may_chdir(const struct path *path)
{
	return path_permission(path, MAY_EXEC | MAY_CHDIR);
}

/* A new descriptor of current that refers to the process of @task, or an error. */
int checkpoint_install_pidfd(struct task_struct *task)
{
	struct pid *pid = get_task_pid(task, PIDTYPE_TGID);
	struct file *file;
	int fd;

	fd = pidfd_prepare(pid, 0, &file);
	put_pid(pid);
	if (fd >= 0)
		fd_install(fd, file);
	return fd;
}

/* The number of the task that pidfd @file refers to as current sees it, 0 if it has been reaped. */
pid_t checkpoint_pidfd_target(struct file *file)
{
	struct pid *pid = pidfd_pid(file);

	return pid_has_task(pid, PIDTYPE_PID) ? pid_vnr(pid) : 0;
}

/* A pidfd of task @nr, with the flags of pidfd_open(2), or an error. */
struct file *checkpoint_open_pidfd(pid_t nr, unsigned int flags)
{
	struct pid *pid = find_get_pid(nr);
	struct file *file = ERR_PTR(-ESRCH);

	if (pid && pid_has_task(pid, flags & PIDFD_THREAD ? PIDTYPE_PID : PIDTYPE_TGID))
		file = pidfs_alloc_file(pid, flags | O_RDWR);
	put_pid(pid);
	return file;
}

/*
 * Let go of @file; if this was the last reference, not by task work, since who is about to run must
 * not see it open any more.
 */
void checkpoint_close_now(struct file *file)
{
	__fput_sync(file);
}

/* The signal that the parent of @task gets at its death: exec of either resets it. */
int checkpoint_exit_signal(struct task_struct *task)
{
	guard(rcu)();
	if (task->parent_exec_id != READ_ONCE(rcu_dereference(task->real_parent)->self_exec_id))
		return SIGCHLD;
	return task->exit_signal;
}

/* current has called execve(2) since it was forked, as its parent may not change its group then. */
void checkpoint_set_execed(void)
{
	current->flags &= ~PF_FORKNOEXEC;
}

bool checkpoint_same_label(const struct cred *a, const struct cred *b)
{
	struct lsm_prop of_a, of_b;

	security_cred_getlsmprop(a, &of_a);
	security_cred_getlsmprop(b, &of_b);
	return !memcmp(&of_a, &of_b, sizeof(of_a));
}

/* The path of @path from the root of current, or NULL when it is not below it. */
char *checkpoint_path_from_root(const struct path *path, char *buf, int len)
{
	struct path root;
	char *name;

	get_fs_root(current->fs, &root);
	name = __d_path(path, &root, buf, len);
	path_put(&root);
	return name;
}

/* A path to @inode, with references; -ENOENT when the kernel knows no name of it. */
int checkpoint_inode_path(struct inode *inode, struct path *path)
{
	struct dentry *dentry = d_find_alias(inode);
	bool found;

	if (!dentry)
		return -ENOENT;
	found = dentry_mounted_path(dentry, path);
	dput(dentry);
	return found ? 0 : -ENOENT;
}

bool checkpoint_is_subreaper(struct task_struct *task)
{
	return task->signal->is_child_subreaper;
}

/* Set a limit of the process of current; the caller has checked that it may. */
void checkpoint_set_rlimit(unsigned int resource, unsigned long cur, unsigned long max)
{
	scoped_guard(task_lock, current->group_leader) {
		current->signal->rlim[resource].rlim_cur = cur;
		current->signal->rlim[resource].rlim_max = max;
	}
	if (resource == RLIMIT_CPU && cur != RLIM_INFINITY)
		update_rlimit_cpu(current, cur);
}

bool checkpoint_capable(int cap)
{
	return capable(cap);
}

void checkpoint_set_oom_score_adj(short adj, short adj_min)
{
	current->signal->oom_score_adj = adj;
	current->signal->oom_score_adj_min = adj_min;
}

/* Let current run on the CPUs of @mask, @words words of 64 bits, as sched_setaffinity(2) does. */
int checkpoint_set_cpus(const u64 *mask, unsigned int words)
{
	cpumask_var_t cpus;
	int err;

	if (!zalloc_cpumask_var(&cpus, GFP_KERNEL))
		return -ENOMEM;
	bitmap_from_arr64(cpumask_bits(cpus), mask, min(nr_cpu_ids, words * 64));
	err = sched_setaffinity(0, cpus);
	free_cpumask_var(cpus);
	return err;
}
