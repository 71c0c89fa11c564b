/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What other subsystems offer to kernel/checkpoint/: functions that used to be static there.
 * None of them is exported to modules.
 */
#ifndef _LINUX_CHECKPOINT_HOOKS_H
#define _LINUX_CHECKPOINT_HOOKS_H

#include <linux/nodemask_types.h>
#include <linux/path.h>
#include <linux/signal_types.h>
#include <linux/types.h>
#include <linux/uidgid_types.h>

struct bpf_prog;
struct cred;
struct dentry;
struct epoll_params;
struct file;
struct mempolicy;
struct inode;
struct io_event;
struct inotify_event;
struct mm_struct;
struct net;
struct pid;
struct nodemask_scratch;
struct prctl_mm_map;
struct restart_block;
struct scm_fp_list;
struct seccomp_filter;
struct sk_buff;
struct sock;
struct sock_filter;
struct sock_fprog_kern;
struct sockaddr_un;
struct task_struct;
struct vm_area_struct;
struct tty_struct;

/* drivers/tty/n_tty.c */

/**
 * struct n_tty_state - what a terminal has received
 * @read:		bytes in @read_buf, the next to be read first
 * @commit:		how many of them a reader may have that does not read lines
 * @canon:		how many of them are whole lines
 * @echo:		bytes in @echo_buf, characters and operations that wait for room
 * @echo_commit:	how many of them may go
 * @echo_mark:		the end of the last that belong together
 * @column:		where the cursor is
 * @canon_column:	where it was at the start of the line
 * @lnext:		the next character is taken as it is
 * @erasing:		between the marks of what is erased on paper
 * @push:		a reader gets the rest although it is no line
 * @read_buf:		the input
 * @read_flags:		a bit for each byte of it, set where a line ends
 * @echo_buf:		the echoes
 */
struct n_tty_state {
	u32 read;
	u32 commit;
	u32 canon;
	u32 echo;
	u32 echo_commit;
	u32 echo_mark;
	u32 column;
	u32 canon_column;
	bool lnext;
	bool erasing;
	bool push;
	u8 read_buf[4096];
	u8 read_flags[512];
	u8 echo_buf[4096];
};

int n_tty_get_state(struct tty_struct *tty, struct n_tty_state *state);
int n_tty_set_state(struct tty_struct *tty, const struct n_tty_state *state);

/* fs/aio.c */

/**
 * struct aio_state - a context of asynchronous I/O with no request in flight
 * @address:	of its ring, which is the number of the context, too
 * @max_reqs:	what io_setup(2) was told
 * @slots:	for how many events its ring has room
 * @head:	the slot of the next event to be read
 * @tail:	the slot of the next event to come
 */
struct aio_state {
	unsigned long address;
	u32 max_reqs;
	u32 slots;
	u32 head;
	u32 tail;
};

bool is_file_aio_ring(struct file *file);
unsigned int aio_count_contexts(struct mm_struct *mm);
int aio_drain(struct mm_struct *mm, long timeout);
int aio_get_state(struct file *file, struct aio_state *state);
int aio_get_events(struct file *file, unsigned int first, unsigned int count,
		   struct io_event *events);
bool aio_has_room(unsigned long contexts, unsigned long nr, unsigned long extra);
int aio_restore_context(const struct aio_state *state);

/* fs/eventfd.c */
struct file *eventfd_create_file(u64 count, int flags);
bool eventfd_get_state(struct file *file, u64 *count, bool *semaphore);

/* fs/eventpoll.c */

/**
 * struct epoll_item - what an epoll instance watches
 * @file:	the open file
 * @head:	where it waits for the file to tell something, or NULL: an identity
 * @data:	what epoll_wait(2) returns with an event
 * @fd:		the descriptor by which it was added
 * @events:	what it waits for and how, in the bits of epoll_ctl(2)
 * @ready:	it is on the list of those that epoll_wait(2) looks at
 * @exact:	for epoll_restore_item(): it is ready only if it was, whatever its file says
 * @silent:	for epoll_restore_item(): its file will not tell anything
 */
struct epoll_item {
	struct file *file;
	const void *head;
	u64 data;
	int fd;
	u32 events;
	bool ready;
	bool exact;
	bool silent;
};

struct file *epoll_create_file(int flags);
unsigned int epoll_get_items(struct file *file, struct epoll_item *items, unsigned int max);
int epoll_restore_item(struct file *file, const struct epoll_item *item);
void epoll_get_params(struct file *file, struct epoll_params *params);
int epoll_set_params(struct file *file, const struct epoll_params *params);

/* fs/namespace.c */
bool dentry_mounted_path(struct dentry *dentry, struct path *path);

/* fs/notify/fanotify/fanotify_user.c */

/**
 * struct fanotify_group_state - how a fanotify group was made
 * @flags:		as fanotify_init(2) was told
 * @event_f_flags:	the same
 * @unprivileged:	it does not tell of other processes
 */
struct fanotify_group_state {
	u32 flags;
	u32 event_f_flags;
	bool unprivileged;
};

/**
 * struct fanotify_mark_state - what a fanotify group watches
 * @path:		to the root of a mount, or of one of a file system; to an inode when it is
 *			restored
 * @inode:		an inode
 * @type:		FAN_MARK_INODE, FAN_MARK_MOUNT, FAN_MARK_FILESYSTEM, FAN_MARK_MNTNS
 * @flags:		those of fanotify_mark(2) that a mark keeps
 * @mask:		the events
 * @ignore_mask:	the events that it ignores
 */
struct fanotify_mark_state {
	struct path path;
	struct inode *inode;
	u32 type;
	u32 flags;
	u32 mask;
	u32 ignore_mask;
};

struct file *fanotify_create_file(unsigned int flags, unsigned int event_f_flags);
bool is_file_fanotify(struct file *file);
int fanotify_get_group(struct file *file, struct fanotify_group_state *state);
unsigned int fanotify_get_marks(struct file *file, struct fanotify_mark_state *marks,
				unsigned int max);
void fanotify_set_unprivileged(struct file *file);
int fanotify_restore_mark(struct file *file, const struct fanotify_mark_state *state);

/* fs/notify/inotify/inotify_user.c */

/**
 * struct inotify_watch - what an inotify instance watches
 * @inode:	the file
 * @wd:		its number
 * @mask:	the events, in the bits of inotify_add_watch(2)
 */
struct inotify_watch {
	struct inode *inode;
	int wd;
	u32 mask;
};

struct file *inotify_create_file(int flags);
bool is_file_inotify(struct file *file);
unsigned int inotify_get_watches(struct file *file, struct inotify_watch *watches,
				 unsigned int max);
size_t inotify_peek_events(struct file *file, void *buf, size_t size);
int inotify_restore_event(struct file *file, const struct inotify_event *head, const char *name,
			  size_t len);
unsigned int inotify_get_next_wd(struct file *file);
void inotify_set_next_wd(struct file *file, unsigned int wd);
int inotify_restore_watch(struct file *file, const struct path *path, int wd, u32 mask);

/* fs/notify/dnotify/dnotify.c */
bool dnotify_has_watch(struct file *filp);

/* fs/pidfs.c */

/**
 * struct pidfd_end - how a task ended that has been reaped
 * @cgroupid:		the cgroup that it was in
 * @exit_code:		its status as wait(2) has it
 * @coredump_mask:	the next three as PIDFD_GET_INFO has them
 * @coredump_signal:
 * @coredump_code:
 * @exited:		@cgroupid and @exit_code are known
 * @coredumped:		the others are
 * @has_xattrs:		there are extended attributes, which are not here
 */
struct pidfd_end {
	u64 cgroupid;
	s32 exit_code;
	u32 coredump_mask;
	u32 coredump_signal;
	u32 coredump_code;
	bool exited;
	bool coredumped;
	bool has_xattrs;
};

void pidfs_get_end(struct pid *pid, struct pidfd_end *end);
struct file *pidfs_create_ended(const struct pidfd_end *end);

/* fs/signalfd.c */
struct file *signalfd_create_file(const sigset_t *mask, int flags);
bool signalfd_get_mask(struct file *file, sigset_t *mask);

/* fs/timerfd.c */

/**
 * struct timerfd_state - the state of a timerfd
 * @time:	when it expires next, or, @expired, did last; in ns on its clock if @flags say that it
 *		is absolute, otherwise from now on. The clock is not that of a time namespace.
 * @interval:	in ns, or 0
 * @ticks:	what a read returns, but for what @expired adds to it
 * @clockid:	as timerfd_create(2) has it
 * @flags:	as timerfd_settime(2) had them
 * @armed:	it is going to expire
 * @expired:	it has expired, and goes on by @interval when that is read
 * @canceled:	the clock was set
 */
struct timerfd_state {
	s64 time;
	s64 interval;
	u64 ticks;
	int clockid;
	int flags;
	bool armed;
	bool expired;
	bool canceled;
};

struct file *timerfd_create_file(int clockid, int flags);
bool timerfd_get_state(struct file *file, struct timerfd_state *state);
void timerfd_set_state(struct file *file, const struct timerfd_state *state);

/* io_uring/io_uring.c */
struct file *io_uring_create_file(u32 flags, u32 sq_entries, u32 cq_entries);

/* ipc/sem.c */
bool sem_has_undo(struct task_struct *task);

/* kernel/fork.c */
struct mm_struct *dup_mm(struct task_struct *tsk, struct mm_struct *oldmm);

/* For kernel_clone(), without CLONE_VM: nothing is mapped in the address space of the new task. */
#define CLONE_EMPTY_MM	(1ULL << 62)

/* kernel/time/posix-timers.c */

/**
 * struct posix_timer_saved - a POSIX timer of a process that stands still
 * @id:			its id
 * @clock:		its clock, as timer_create(2) was told
 * @notify:		SIGEV_*
 * @signo:		its signal
 * @notify_task:	who gets the signal, as current sees it; 0 when that is gone
 * @clock_task:		whose CPU time the clock counts; 0 when that is gone, or for other clocks
 * @value:		what the signal carries
 * @armed:		it will expire
 * @requeue:		it has expired, and goes on when its signal is delivered
 * @queued:		its signal is queued
 * @ignored:		its signal was ignored, and waits until it no longer is
 * @stale:		what is queued is of a time before it was set anew
 * @absolute:		@expires is a time of its clock, unless it is a CPU clock: then it always is
 * @interval:		nanoseconds, 0 for a timer that expires once
 * @expires:		when it expires or did, in nanoseconds, if not @absolute from now
 * @overrun:		how often it expired since its signal was queued, from -1
 * @overrun_last:	the same of the signal before
 */
struct posix_timer_saved {
	timer_t		id;
	clockid_t	clock;
	int		notify;
	int		signo;
	pid_t		notify_task;
	pid_t		clock_task;
	u64		value;
	bool		armed;
	bool		requeue;
	bool		queued;
	bool		ignored;
	bool		stale;
	bool		absolute;
	s64		interval;
	s64		expires;
	s64		overrun;
	s64		overrun_last;
};

unsigned int posix_timers_save(struct task_struct *task, struct posix_timer_saved *states,
			       unsigned int max);
int posix_timer_recreate(const struct posix_timer_saved *state);
void posix_timer_queue(struct task_struct *task, timer_t id);
void posix_timer_restore(struct task_struct *task, const struct posix_timer_saved *state);

/* kernel/futex/core.c */
bool futex_hash_chosen(struct mm_struct *mm, unsigned int *slots);

/* kernel/sched/membarrier.c */
int membarrier_register_global_expedited(void);
int membarrier_register_private_expedited(int flags);

/* kernel/seccomp.c */

/**
 * struct seccomp_filter_saved - a seccomp filter
 * @prev:	the one below it, or NULL
 * @program:	its program, NULL if that is not a classic one
 * @log:	SECCOMP_FILTER_FLAG_LOG
 * @listener:	user space decides about its system calls
 */
struct seccomp_filter_saved {
	struct seccomp_filter *prev;
	const struct sock_fprog_kern *program;
	bool log;
	bool listener;
};

void seccomp_filter_save(struct seccomp_filter *filter, struct seccomp_filter_saved *saved);
struct seccomp_filter *seccomp_filter_recreate(struct sock_fprog_kern *program, bool log,
					       struct seccomp_filter *prev);
void seccomp_filter_put(struct seccomp_filter *filter);
void seccomp_restore(struct task_struct *task, unsigned long mode, struct seccomp_filter *filter);

/* kernel/sys.c */
int set_user(struct cred *new);
void flag_nproc_exceeded(struct cred *new);
int validate_prctl_map_addr(struct prctl_mm_map *prctl_map);
void prctl_apply_mm_map(const struct prctl_mm_map *prctl_map, const unsigned long *auxv);
int prctl_check_exe_file(struct file *exe);

/* mm/mempolicy.c */
struct mempolicy *mpol_new(unsigned short mode, unsigned short flags, nodemask_t *nodes);
int mpol_set_nodemask(struct mempolicy *pol, const nodemask_t *nodes, struct nodemask_scratch *nsc);
int vma_replace_policy(struct vm_area_struct *vma, struct mempolicy *pol);
long do_set_mempolicy(unsigned short mode, unsigned short flags, nodemask_t *nodes);

/* mm/rmap.c */
int anon_vma_join(struct vm_area_struct *vma, struct vm_area_struct *other);

/* Restart functions of interrupted system calls: fs/select.c, kernel/futex/, kernel/time/ */
long do_restart_poll(struct restart_block *restart_block);
long futex_wait_restart(struct restart_block *restart);
long hrtimer_nanosleep_restart(struct restart_block *restart);

/* net/core/filter.c */
int bpf_prog_create_saved(struct bpf_prog **pfp, struct sock_fprog_kern *fprog,
			  int (*trans)(struct sock_filter *filter, unsigned int flen));

/**
 * struct unix_message - what comes with the data of a message in the queue of a unix socket
 * @pid:	process of the sender, if its credentials are there
 * @uid:	its user
 * @gid:	its group
 * @fp:		files on their way, or NULL
 * @consumed:	bytes that have been read
 */
struct unix_message {
	struct pid *pid;
	kuid_t uid;
	kgid_t gid;
	struct scm_fp_list *fp;
	u32 consumed;
};

/* net/unix/af_unix.c */
void unix_get_message(struct sk_buff *skb, struct unix_message *msg);
int unix_put_message(struct sock *sk, struct sk_buff *skb, const struct unix_message *msg,
		     bool oob);
struct sock *unix_create_bare(struct net *net, int type);
void unix_release_bare(struct sock *sk);
int unix_set_name(struct sock *sk, struct sockaddr_un *name, int len, const struct path *path);

#endif /* _LINUX_CHECKPOINT_HOOKS_H */
