/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _UAPI_LINUX_CHECKPOINT_H
#define _UAPI_LINUX_CHECKPOINT_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * Flags of checkpoint(2). With none of HOLD, HELD and CHECK the call stops the
 * tree, writes its image to @fd and lets the tree go on.
 */
#define CHECKPOINT_HOLD		(1ULL << 0) /* only stop the tree; returns a hold descriptor */
#define CHECKPOINT_HELD		(1ULL << 1) /* @target is a hold descriptor */
#define CHECKPOINT_CHECK	(1ULL << 2) /* write no image, only list what blocks one */
#define CHECKPOINT_RELEASE	(1ULL << 3) /* with HELD: end the hold once the state is captured */
#define CHECKPOINT_NO_SNAPSHOT	(1ULL << 4) /* keep the tree stopped until the image is written */

/*
 * What is checkpointed: with none of these the process of the pidfd @target, with one of them all
 * processes of something that @target is a member of; in any case with all their descendants.
 */
#define CHECKPOINT_GROUP	(1ULL << 5) /* the process group */
#define CHECKPOINT_SESSION	(1ULL << 6) /* the session */
#define CHECKPOINT_PID_NS	(1ULL << 7) /* the pid namespace */
#define CHECKPOINT_CGROUP	(1ULL << 8) /* @target is a cgroup v2 directory: it, and those below */

#define CHECKPOINT_SAVE_FILES	(1ULL << 9) /* with the contents of executables and mapped files */
#define CHECKPOINT_KILL		(1ULL << 10) /* kill the tree when all of its image is on the disk */

/* What becomes of an open file that has another side outside the tree. */
#define CHECKPOINT_EXTERNAL_SUPPLY	1 /* the caller of restart(2) supplies another */
#define CHECKPOINT_EXTERNAL_DROP	2 /* the other side is gone after the restart */

/**
 * struct checkpoint_external - what becomes of descriptors that lead outside the tree
 * @pid:	task whose descriptor is meant, 0 for every task
 * @fd:		number of the descriptor, -1 for all that lead outside
 * @action:	CHECKPOINT_EXTERNAL_*
 * @reserved:	zero
 */
struct checkpoint_external {
	__s32 pid;
	__s32 fd;
	__u32 action;
	__u32 reserved;
};

#define CHECKPOINT_EXTERNAL_MAX	1024

/**
 * struct checkpoint_args - arguments of checkpoint(2)
 * @flags:	CHECKPOINT_* bits
 * @target:	pidfd of the root of the tree or of a member of what a flag says, a cgroup directory
 *		(CHECKPOINT_CGROUP), or a hold descriptor (CHECKPOINT_HELD)
 * @fd:		stream the image goes to, written in order; -1 with HOLD and CHECK
 * @log_fd:	gets one line for each problem, or -1
 * @timeout_ms:	how long to wait for all tasks to stand still, 0 for the default (10 s)
 * @lease_ms:	how long a hold lasts without being used, 0 for the default (10 s)
 * @reserved:	zero
 * @stats:	user pointer to struct checkpoint_stats, or 0
 * @external:	user pointer to struct checkpoint_external[]
 * @nr_external: number of entries at @external
 * @reserved2:	zero
 */
struct checkpoint_args {
	__aligned_u64 flags;
	__s32 target;
	__s32 fd;
	__s32 log_fd;
	__u32 timeout_ms;
	__u32 lease_ms;
	__u32 reserved;
	__aligned_u64 stats;
	__aligned_u64 external;
	__u32 nr_external;
	__u32 reserved2;
};

#define CHECKPOINT_ARGS_SIZE_VER0	40
#define CHECKPOINT_ARGS_SIZE_VER1	56

/**
 * struct checkpoint_stats - what checkpoint(2) and restart(2) did
 * @tasks:	tasks in the image
 * @pages:	pages of memory in the image
 * @bytes:	bytes of the image
 * @stopped_ns:	checkpoint: first task stopped to last task released, 0 while still held
 * @total_ns:	entry to return of the system call
 * @problems:	lines meant for @log_fd, whether or not there was one
 */
struct checkpoint_stats {
	__aligned_u64 tasks;
	__aligned_u64 pages;
	__aligned_u64 bytes;
	__aligned_u64 stopped_ns;
	__aligned_u64 total_ns;
	__aligned_u64 problems;
};

/* Operations on a hold descriptor. Closing it, or the death of its opener, releases the tree. */
#define CHECKPOINT_IOC_MAGIC	0xcb
#define CHECKPOINT_IOC_RENEW	_IO(CHECKPOINT_IOC_MAGIC, 0) /* start the lease anew */
#define CHECKPOINT_IOC_RELEASE	_IO(CHECKPOINT_IOC_MAGIC, 1) /* let the tree go on */
#define CHECKPOINT_IOC_KILL	_IO(CHECKPOINT_IOC_MAGIC, 2) /* SIGKILL to every task, then release */
#define CHECKPOINT_IOC_STOP	_IO(CHECKPOINT_IOC_MAGIC, 3) /* SIGSTOP to every process, then release */

/* Flags of restart(2). */
#define RESTART_FROZEN		(1ULL << 0) /* leave the tree built and held; go: RELEASE on @hold_fd */
#define RESTART_FILES_KEEP	(1ULL << 1) /* accept files that grew since the checkpoint, as they are */
#define RESTART_FILES_TRUNCATE	(1ULL << 2) /* cut files that grew back to their recorded size */
#define RESTART_FORCE		(1ULL << 3) /* accept files whose identity (mtime) differs */
#define RESTART_CLOCKS_KEEP	(1ULL << 4) /* accept that CLOCK_MONOTONIC and CLOCK_BOOTTIME go back */

/**
 * struct restart_inherit - a descriptor of the caller that takes the place of one outside the tree
 * @pid:	task whose descriptor it replaces, 0 for every task
 * @target_fd:	number of the descriptor in the restarted task
 * @fd:		descriptor of the caller
 * @reserved:	zero
 */
struct restart_inherit {
	__s32 pid;
	__s32 target_fd;
	__s32 fd;
	__u32 reserved;
};

#define RESTART_INHERIT_MAX	1024

/**
 * struct restart_relocate - another place for a directory or a file
 * @from:	user pointer to the absolute path that it had
 * @to:		user pointer to the absolute path that it has now
 * @from_len:	length of the path at @from in bytes
 * @to_len:	length of the path at @to in bytes
 */
struct restart_relocate {
	__aligned_u64 from;
	__aligned_u64 to;
	__u32 from_len;
	__u32 to_len;
};

#define RESTART_RELOCATE_MAX	256

/**
 * struct restart_args - arguments of restart(2)
 * @flags:	RESTART_* bits
 * @fd:		stream the image comes from, read in order to its end and never past it
 * @log_fd:	gets one line for each problem, or -1
 * @nr_inherit:	number of entries at @inherit
 * @reserved:	zero
 * @inherit:	user pointer to struct restart_inherit[]
 * @pidfd:	user pointer to an __s32 that receives a pidfd of the root task, or 0
 * @hold_fd:	user pointer to an __s32 that receives a hold descriptor (RESTART_FROZEN)
 * @stats:	user pointer to struct checkpoint_stats, or 0
 * @relocate:	user pointer to struct restart_relocate[]
 * @nr_relocate: number of entries at @relocate
 * @reserved2:	zero
 */
struct restart_args {
	__aligned_u64 flags;
	__s32 fd;
	__s32 log_fd;
	__u32 nr_inherit;
	__u32 reserved;
	__aligned_u64 inherit;
	__aligned_u64 pidfd;
	__aligned_u64 hold_fd;
	__aligned_u64 stats;
	__aligned_u64 relocate;
	__u32 nr_relocate;
	__u32 reserved2;
};

#define RESTART_ARGS_SIZE_VER0	56
#define RESTART_ARGS_SIZE_VER1	72

#endif /* _UAPI_LINUX_CHECKPOINT_H */
