/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The contract between kernel/checkpoint/freeze.c and hold.rs: how a tree of tasks is made to
 * stand still. None of the functions is exported to modules.
 */
#ifndef _LINUX_CHECKPOINT_HOLD_H
#define _LINUX_CHECKPOINT_HOLD_H

#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

struct cgroup;
struct file;
struct pid;
struct pid_namespace;
struct task_struct;

/**
 * enum checkpoint_still - how a task stands still
 * @CHECKPOINT_STILL_NOT:	it does not
 * @CHECKPOINT_STILL_GONE:	it was reaped
 * @CHECKPOINT_STILL_TRAPPED:	in do_checkpoint_trap()
 * @CHECKPOINT_STILL_STOPPED:	stopped by job control, with the trap set
 * @CHECKPOINT_STILL_ZOMBIE:	dead, not reaped
 * @CHECKPOINT_STILL_VFORK:	in vfork(2), waiting for a child, with the trap set
 */
enum checkpoint_still {
	CHECKPOINT_STILL_NOT,
	CHECKPOINT_STILL_GONE,
	CHECKPOINT_STILL_TRAPPED,
	CHECKPOINT_STILL_STOPPED,
	CHECKPOINT_STILL_ZOMBIE,
	CHECKPOINT_STILL_VFORK,
};

/**
 * struct checkpoint_watch - ends a hold when its opener dies or its lease runs out
 * @work:	runs at the end of the lease, and when somebody of @opener's process died
 * @entry:	in the wait queue of @opener
 * @opener:	the process that asked for the hold
 * @deadline:	end of the lease, in jiffies
 */
struct checkpoint_watch {
	struct delayed_work work;
	struct wait_queue_entry entry;
	struct pid *opener;
	unsigned long deadline;
};

/**
 * enum checkpoint_scope_kind - what a hold is of
 * @CHECKPOINT_SCOPE_TREES:	processes
 * @CHECKPOINT_SCOPE_GROUP:	the processes of a group
 * @CHECKPOINT_SCOPE_SESSION:	those of a session
 * @CHECKPOINT_SCOPE_PID_NS:	those of a pid namespace
 * @CHECKPOINT_SCOPE_CGROUP:	those of a cgroup and the ones below
 */
enum checkpoint_scope_kind {
	CHECKPOINT_SCOPE_TREES,
	CHECKPOINT_SCOPE_GROUP,
	CHECKPOINT_SCOPE_SESSION,
	CHECKPOINT_SCOPE_PID_NS,
	CHECKPOINT_SCOPE_CGROUP,
};

/**
 * struct checkpoint_scope - what a hold is of, with a reference
 * @kind:	which of the others says
 * @count:	number of @roots
 * @roots:	tasks, with their processes
 * @pid:	group or session
 * @pid_ns:	pid namespace
 * @cgroup:	cgroup
 */
struct checkpoint_scope {
	enum checkpoint_scope_kind kind;
	size_t count;
	union {
		struct task_struct **roots;
		struct pid *pid;
		struct pid_namespace *pid_ns;
		struct cgroup *cgroup;
	};
};

int checkpoint_get_scope(struct checkpoint_scope *scope, enum checkpoint_scope_kind kind, int fd);
int checkpoint_trees(struct checkpoint_scope *scope, size_t count);
void checkpoint_put_scope(struct checkpoint_scope *scope);

bool checkpoint_unprivileged_allowed(void);
bool checkpoint_caller_filtered(void);
bool checkpoint_caller_capable(void);
bool checkpoint_caller_killed(void);
int checkpoint_task_access(struct task_struct *t, bool settled);

size_t checkpoint_walk(const struct checkpoint_scope *scope, struct task_struct **tasks, size_t max);
int checkpoint_trap_set(struct task_struct *t);
void checkpoint_trap_clear(struct task_struct *t);
enum checkpoint_still checkpoint_task_still(struct task_struct *t);
bool checkpoint_is_trapped(struct task_struct *t);
struct task_struct *checkpoint_vfork_child(struct task_struct *t);
int checkpoint_wait_trapped(struct task_struct *t, long timeout);
bool checkpoint_wait_inactive(struct task_struct *t, enum checkpoint_still still);
char checkpoint_task_state(struct task_struct *t);
pid_t checkpoint_tracer(struct task_struct *t);
bool checkpoint_kernel_task(struct task_struct *t);
bool checkpoint_task_unfinished(struct task_struct *t);
void checkpoint_signal(struct task_struct *t, int sig);
bool checkpoint_process_stopped(struct task_struct *t);

void checkpoint_watch_init(struct checkpoint_watch *watch);
void checkpoint_watch_start(struct checkpoint_watch *watch, unsigned long lease);
void checkpoint_watch_renew(struct checkpoint_watch *watch, unsigned long lease);
void checkpoint_watch_stop(struct checkpoint_watch *watch);
pid_t checkpoint_watch_opener(struct checkpoint_watch *watch);

bool checkpoint_writable(struct file *file);
ssize_t checkpoint_write(struct file *file, const void *buf, size_t len);

/* Rust: releases the tasks of the hold that @watch belongs to. May sleep. */
void rust_checkpoint_watch_expired(struct checkpoint_watch *watch);

#endif /* _LINUX_CHECKPOINT_HOLD_H */
