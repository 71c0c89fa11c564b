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

struct file;
struct pid;
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

bool checkpoint_unprivileged_allowed(void);
bool checkpoint_caller_filtered(void);
bool checkpoint_caller_capable(void);
bool checkpoint_caller_killed(void);
int checkpoint_task_access(struct task_struct *t, bool settled);

size_t checkpoint_walk_tree(struct task_struct *root, struct task_struct **tasks, size_t max);
int checkpoint_trap_set(struct task_struct *t);
void checkpoint_trap_clear(struct task_struct *t);
enum checkpoint_still checkpoint_task_still(struct task_struct *t);
struct task_struct *checkpoint_vfork_child(struct task_struct *t);
int checkpoint_wait_trapped(struct task_struct *t, long timeout);
bool checkpoint_wait_inactive(struct task_struct *t, enum checkpoint_still still);
char checkpoint_task_state(struct task_struct *t);
pid_t checkpoint_tracer(struct task_struct *t);
bool checkpoint_kernel_task(struct task_struct *t);
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
