/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The contract between the C and the Rust side of checkpoint(2) and restart(2).
 */
#ifndef _LINUX_CHECKPOINT_H
#define _LINUX_CHECKPOINT_H

#include <linux/aio_abi.h>
#include <linux/anon_inodes.h>
#include <linux/bvec.h>
#include <linux/checkpoint_hold.h>
#include <linux/checkpoint_hooks.h>
#include <linux/crc32.h>
#include <linux/cred.h>
#include <linux/eventpoll.h>
#include <linux/fdtable.h>
#include <linux/filelock.h>
#include <linux/filter.h>
#include <linux/fs_struct.h>
#include <linux/inotify.h>
#include <linux/io_uring_types.h>
#include <linux/ipc_namespace.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <linux/mman.h>
#include <linux/nsproxy.h>
#include <linux/pagewalk.h>
#include <linux/personality.h>
#include <linux/pid_namespace.h>
#include <linux/pidfd.h>
#include <linux/pidfs.h>
#include <linux/pipe_fs_i.h>
#include <linux/posix-timers.h>
#include <linux/prctl.h>
#include <linux/ptrace.h>
#include <linux/regset.h>
#include <linux/rseq.h>
#include <linux/sched/cputime.h>
#include <linux/sched/jobctl.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/sched/task_stack.h>
#include <linux/seccomp.h>
#include <linux/shmem_fs.h>
#include <linux/sort.h>
#include <linux/syscalls.h>
#include <linux/task_work.h>
#include <linux/time_namespace.h>
#include <linux/timerfd.h>
#include <linux/tty.h>
#include <linux/uio.h>
#include <linux/user_namespace.h>
#include <linux/utsname.h>
#include <linux/xarray.h>
#include <net/af_unix.h>
#include <net/sock.h>
#include <asm/elf.h>
#include <asm/vdso.h>
#include <uapi/linux/checkpoint.h>
#include <uapi/linux/fadvise.h>
#include <uapi/linux/fanotify.h>
#include <uapi/linux/major.h>
#include <uapi/linux/memfd.h>
#include <uapi/linux/sched/types.h>

/* Rust: called by the system calls in kernel/checkpoint/sys.c. */
long rust_checkpoint(const struct checkpoint_args *args);
long rust_restart(const struct restart_args *args);

/* kernel/checkpoint/accounting.c */
unsigned long checkpoint_maxrss(struct task_struct *task);

/**
 * struct checkpoint_usage - what threads of a process have used together
 * @utime:	CPU time in ns: of the user
 * @stime:	of the kernel
 * @gtime:	of guests
 * @runtime:	as the scheduler counts it
 * @nvcsw:	voluntary context switches
 * @nivcsw:	involuntary ones
 * @min_flt:	minor page faults
 * @maj_flt:	major ones
 * @inblock:	blocks read
 * @oublock:	blocks written
 * @ioac:	bytes, and calls
 */
struct checkpoint_usage {
	u64 utime;
	u64 stime;
	u64 gtime;
	u64 runtime;
	unsigned long nvcsw;
	unsigned long nivcsw;
	unsigned long min_flt;
	unsigned long maj_flt;
	unsigned long inblock;
	unsigned long oublock;
	struct task_io_accounting ioac;
};

void checkpoint_ended_usage(struct task_struct *task, struct checkpoint_usage *sum);
void checkpoint_sync_cputimer(struct task_struct *task);
u64 checkpoint_cpu_itimer(struct task_struct *task, unsigned int clock);
void checkpoint_start_cpu_itimer(struct task_struct *task, unsigned int clock, u64 left_ns,
				 u64 interval_ns);
void checkpoint_start_itimer(struct task_struct *task, s64 left_ns, s64 interval_ns);
int checkpoint_timer_ids(struct task_struct *task, bool *chosen);
void checkpoint_set_timer_ids(int next, bool chosen);

/* kernel/checkpoint/credentials.c */

/**
 * struct checkpoint_cred - credentials, ids as the user namespace of current has them
 * @groups:	@ngroups of them, or NULL to keep those of current
 */
struct checkpoint_cred {
	u32 uid, euid, suid, fsuid;
	u32 gid, egid, sgid, fsgid;
	u32 securebits;
	u32 ngroups;
	const u32 *groups;
	u64 inheritable, permitted, effective, bset, ambient;
};

int checkpoint_set_cred(const struct checkpoint_cred *wanted);
bool checkpoint_admin(void);
bool checkpoint_has_gid(gid_t gid);
void checkpoint_set_dumpable(struct task_struct *task, unsigned int dumpable);

/* kernel/checkpoint/attributes.c */

#define CHECKPOINT_TASK_NO_TSC		0x1	/* PR_SET_TSC */
#define CHECKPOINT_TASK_MCE_POLICY	0x2	/* PR_MCE_KILL: early or late */
#define CHECKPOINT_TASK_MCE_EARLY	0x4	/* early */
#define CHECKPOINT_TASK_IO_FLUSHER	0x8	/* PR_SET_IO_FLUSHER */

#define CHECKPOINT_MM_NO_THP		0x001	/* PR_SET_THP_DISABLE */
#define CHECKPOINT_MM_ADVISED_THP	0x002	/* PR_THP_DISABLE_EXCEPT_ADVISED */
#define CHECKPOINT_MM_MERGE		0x004	/* PR_SET_MEMORY_MERGE */
#define CHECKPOINT_MM_MDWE		0x008	/* PR_SET_MDWE */
#define CHECKPOINT_MM_MDWE_NO_INHERIT	0x010	/* PR_MDWE_NO_INHERIT */
#define CHECKPOINT_MM_FUTEX_HASH	0x020	/* PR_FUTEX_HASH */
#define CHECKPOINT_MM_MEMBARRIER_PRIVATE	0x040	/* registrations of membarrier(2) */
#define CHECKPOINT_MM_MEMBARRIER_GLOBAL	0x080
#define CHECKPOINT_MM_MEMBARRIER_CORE	0x100
#define CHECKPOINT_MM_MEMBARRIER_RSEQ	0x200

u32 checkpoint_task_attributes(struct task_struct *task);
int checkpoint_set_task_attributes(u32 wanted);
void checkpoint_sched_attr(struct task_struct *task, struct sched_attr *attr);
bool checkpoint_has_cpu(const u64 *mask, unsigned int words);
u32 checkpoint_mm_options(struct mm_struct *mm, unsigned int *slots);
int checkpoint_prepare_mm_options(u32 wanted);
int checkpoint_finish_mm_options(u32 wanted, unsigned int slots);
bool checkpoint_user_dispatch(struct task_struct *task, u64 *offset, u64 *len, u64 *selector);
int checkpoint_set_user_dispatch(u64 offset, u64 len, u64 selector);

/* kernel/checkpoint/blockers.c */
const char *checkpoint_inherited_blocker(unsigned int *at);
const char *checkpoint_task_blocker(struct task_struct *task, unsigned int *at);
const char *checkpoint_mm_blocker(struct mm_struct *mm, unsigned int *at);
const char *checkpoint_file_blocker(struct file *file);

/**
 * enum checkpoint_table - what tasks of different processes may share
 * @CHECKPOINT_TABLE_MM:	address space
 * @CHECKPOINT_TABLE_FILES:	file descriptors
 * @CHECKPOINT_TABLE_FS:	working directory and umask
 * @CHECKPOINT_TABLE_SIGHAND:	signal actions
 */
enum checkpoint_table {
	CHECKPOINT_TABLE_MM,
	CHECKPOINT_TABLE_FILES,
	CHECKPOINT_TABLE_FS,
	CHECKPOINT_TABLE_SIGHAND,
};

/* kernel/checkpoint/hooks.c */
const void *checkpoint_table(struct task_struct *task, enum checkpoint_table table);
size_t checkpoint_table_users(struct task_struct *task, enum checkpoint_table table);
size_t checkpoint_find_users(struct task_struct *task, enum checkpoint_table table, pid_t *pids,
			     size_t max);

/**
 * struct checkpoint_fd - a descriptor
 * @file:	its file, with a reference
 * @fd:		its number
 * @cloexec:	it is closed by exec
 */
struct checkpoint_fd {
	struct file *file;
	unsigned int fd;
	bool cloexec;
};

unsigned int checkpoint_get_fds(struct task_struct *task, unsigned int from,
				struct checkpoint_fd *found, unsigned int max);
int checkpoint_get_fs(struct task_struct *task, struct path *root, struct path *pwd, int *umask);
bool checkpoint_path_unlinked(const struct path *path);
bool checkpoint_path_equal(const struct path *a, const struct path *b);
bool checkpoint_killed(void);
void checkpoint_close_all(void);
void checkpoint_set_umask(int umask);
size_t checkpoint_group_members(pid_t nr, enum pid_type type, pid_t *tgids, size_t max,
				bool *lives);
int checkpoint_set_ids(struct task_struct *task, pid_t pgid, pid_t sid);
bool checkpoint_may_choose_pids(void);
void checkpoint_close_now(struct file *file);
int checkpoint_lookup(const char *name, struct path *path);
bool checkpoint_is_internal(struct file *file);
int checkpoint_truncate(struct file *file, loff_t size);
pid_t checkpoint_pidfd_target(struct file *file);
struct file *checkpoint_open_pidfd(pid_t nr, unsigned int flags);
void checkpoint_set_rlimit(unsigned int resource, unsigned long cur, unsigned long max);
bool checkpoint_capable(int cap);
void checkpoint_set_oom_score_adj(short adj, short adj_min);
int checkpoint_set_cpus(const u64 *mask, unsigned int words);
bool checkpoint_pid_taken(pid_t nr);
int checkpoint_wait_parked(struct task_struct *task);
bool checkpoint_is_killed(struct task_struct *task);
void checkpoint_wait_dead(struct task_struct *task);
int checkpoint_exit_signal(struct task_struct *task);
void checkpoint_set_execed(void);
bool checkpoint_same_label(const struct cred *a, const struct cred *b);
char *checkpoint_path_from_root(const struct path *path, char *buf, int len);
int checkpoint_inode_path(struct inode *inode, struct path *path);
bool checkpoint_is_subreaper(struct task_struct *task);
int checkpoint_wait_exited(struct task_struct *task);
void checkpoint_set_exit_signal(struct task_struct *task, int sig);
struct task_struct *checkpoint_parent(struct task_struct *task);
const void *checkpoint_sem_undo(struct task_struct *task);
void checkpoint_set_subreaper(void);
struct files_struct *checkpoint_get_files(struct task_struct *task);
int checkpoint_share_files(struct task_struct *task, struct task_struct *owner);
int checkpoint_share_fs(struct task_struct *task, struct task_struct *owner);
void checkpoint_set_stopped(struct task_struct *task, bool stopped, bool continued, int code);
void checkpoint_stop_task(struct task_struct *task, int sig, bool stopped);
int checkpoint_wait_stopped(struct task_struct *task);
void checkpoint_vfork_begin(struct task_struct *child, struct completion *done);
int checkpoint_vfork_end(struct task_struct *child, struct completion *done, bool wait);
int checkpoint_enter_time_ns(s64 monotonic_ns, s64 boottime_ns, struct nsproxy **old);
void checkpoint_leave_time_ns(struct nsproxy *old);
void checkpoint_clock_offsets(struct task_struct *task, s64 *monotonic_ns, s64 *boottime_ns);
void checkpoint_clocks(struct task_struct *task, s64 *monotonic_ns, s64 *boottime_ns);
void checkpoint_reset_inherited(void);
void checkpoint_restore_rseq(unsigned long ptr, u32 len, u32 sig);
struct sighand_struct *checkpoint_lock_sighand(struct task_struct *task, unsigned long *flags);
void checkpoint_unlock_sighand(struct sighand_struct *sighand, unsigned long flags);
void checkpoint_task_lock(struct task_struct *task);
void checkpoint_task_unlock(struct task_struct *task);
void checkpoint_set_sigpending(struct task_struct *task);
bool checkpoint_restore_sigmask(struct task_struct *task);
void checkpoint_set_restore_sigmask(struct task_struct *task);
bool checkpoint_get_stack(struct task_struct *task);
struct pt_regs *checkpoint_pt_regs(struct task_struct *task);
u64 checkpoint_user_xfeatures(void);
u32 checkpoint_cpus_online(void);
struct new_utsname *checkpoint_utsname(void);
unsigned long checkpoint_task_size(void);
bool checkpoint_no_new_privs(struct task_struct *task);
void checkpoint_set_no_new_privs(void);
int checkpoint_ioprio(struct task_struct *task);
void checkpoint_cpus(struct task_struct *task, u64 *mask, unsigned int words);
bool checkpoint_is_tty(struct file *file);
bool checkpoint_pipe_has_notifications(struct pipe_inode_info *pipe);
void checkpoint_pipe_slots(struct pipe_inode_info *pipe, u32 *head, u32 *tail);
bool checkpoint_is_fifo(struct file *file);
bool checkpoint_pipe_no_writer_yet(struct file *file, struct pipe_inode_info *pipe);
void checkpoint_pipe_await_writer(struct file *file, struct pipe_inode_info *pipe);
int checkpoint_may_chdir(const struct path *path);
int checkpoint_install_pidfd(struct task_struct *task);
bool checkpoint_futex_flags(unsigned int flags, bool *realtime, bool *timed);
unsigned int checkpoint_futex_kernel_flags(bool shared, bool realtime, bool timed);
void checkpoint_xfeature(unsigned int feature, u32 *offset, u32 *size);
u64 checkpoint_xfeatures_in_use(struct task_struct *task);

/* kernel/checkpoint/files.c */
unsigned int checkpoint_links(struct file *file);
bool checkpoint_is_linkable(struct file *file);
const char *checkpoint_inode_blocker(struct file *file);
void checkpoint_directory_of(struct file *file, struct path *dir);
bool checkpoint_makes_unnamed(const struct path *dir);
int checkpoint_linked_path(struct file *file, struct path *path);
void checkpoint_owner_ids(struct file *file, uid_t *uid, gid_t *gid);
struct file *checkpoint_memfd(const char *name, bool executable);

/* Kinds of file locks, as the image numbers them. */
enum {
	CHECKPOINT_LOCK_POSIX	= 1,
	CHECKPOINT_LOCK_OFD	= 2,
	CHECKPOINT_LOCK_FLOCK	= 3,
	CHECKPOINT_LOCK_LEASE	= 4,
};

/**
 * struct checkpoint_lock - a lock of a file
 * @kind:	CHECKPOINT_LOCK_*
 * @type:	F_RDLCK or F_WRLCK
 * @start:	first byte
 * @end:	last byte
 * @fd:		of a lease, the descriptor that signals about it name, or -1
 * @pid:	who took it, in the initial pid namespace
 */
struct checkpoint_lock {
	u32 kind;
	u32 type;
	s64 start;
	s64 end;
	int fd;
	pid_t pid;
};

/**
 * struct checkpoint_owner - who gets signals about an open file
 * @type:	PIDTYPE_PID, PIDTYPE_TGID or PIDTYPE_PGID
 * @pid:	the task or group as current sees it, 0 for none
 * @signum:	F_SETSIG
 * @uid:	whose rights count for the signals, as current sees them
 * @euid:	the effective one
 * @async:	O_ASYNC
 */
struct checkpoint_owner {
	u32 type;
	pid_t pid;
	int signum;
	uid_t uid;
	uid_t euid;
	bool async;
};

int checkpoint_get_locks(struct file *file, struct files_struct *files,
			 struct checkpoint_lock *locks, unsigned int max);
int checkpoint_set_lock(struct file *file, struct task_struct *task,
			const struct checkpoint_lock *lock);
bool checkpoint_get_owner(struct file *file, struct checkpoint_owner *owner);
int checkpoint_set_owner(struct file *file, const struct checkpoint_owner *owner, int fd);
bool checkpoint_is_proc(struct file *file);
pid_t checkpoint_proc_pid(struct file *file);
u32 checkpoint_ns_type(struct file *file);
int checkpoint_ns_path(pid_t nr, u32 type, struct path *path);
bool checkpoint_path_internal(const struct path *path);
bool checkpoint_is_mount_root(const struct path *path);
unsigned int checkpoint_get_advice(struct file *file);
struct file *checkpoint_open_contents(struct file *file);
struct page *checkpoint_file_page(struct file *file, pgoff_t index);

/* kernel/checkpoint/tty.c */

/**
 * struct checkpoint_pty_end - what either end of a pty has
 * @exclusive:		TIOCEXCL
 * @stopped:		it sends nothing
 * @stopped_by_call:	because of TCOOFF
 * @other_closed:	the other end was closed
 */
struct checkpoint_pty_end {
	bool exclusive;
	bool stopped;
	bool stopped_by_call;
	bool other_closed;
};

/**
 * struct checkpoint_pty - a pty but for what is in its buffers
 * @index:		number of the slave
 * @mode:		type and permissions of the slave's node
 * @uid:		its owner
 * @gid:		its group
 * @hung_up:		the master was closed
 * @locked:		TIOCSPTLCK
 * @packet:		TIOCPKT
 * @pktstatus:		what a master in packet mode gets to read first
 * @slaves:		how many open files the slave has
 * @ends:		master, slave
 * @termios:		settings
 * @termios_locked:	which of them TIOCSLCKTRMIOS has locked
 * @winsize:		window size
 * @session:		the session whose controlling terminal it is, 0 for none
 * @pgrp:		the foreground group, 0 for none
 * @ldisc:		line discipline of the slave
 * @master_ldisc:	line discipline of the master
 */
struct checkpoint_pty {
	u32 index;
	umode_t mode;
	uid_t uid;
	gid_t gid;
	bool hung_up;
	bool locked;
	bool packet;
	u32 pktstatus;
	u32 slaves;
	struct checkpoint_pty_end ends[2];
	struct ktermios termios;
	struct ktermios termios_locked;
	struct winsize winsize;
	pid_t session;
	pid_t pgrp;
	int ldisc;
	int master_ldisc;
};

struct tty_struct *checkpoint_pty_master(struct file *file);
bool checkpoint_is_pty_master(struct file *file);
struct tty_struct *checkpoint_controlling_pty(struct task_struct *task, bool *other);
bool checkpoint_is_current_tty(struct file *file);
void checkpoint_get_pty(struct tty_struct *master, struct checkpoint_pty *pty);
int checkpoint_get_tty_queue(struct tty_struct *master, bool of_slave, struct n_tty_state *state,
			     u8 *flip, unsigned int max);
int checkpoint_set_tty_queue(struct file *file, bool of_slave, const struct n_tty_state *state,
			     const u8 *flip, unsigned int count);
int checkpoint_unlock_pty(struct file *file);
int checkpoint_set_pty(struct file *file, const struct checkpoint_pty *pty);
int checkpoint_set_pty_node(struct file *file, umode_t mode, uid_t uid, gid_t gid);
int checkpoint_set_tty_session(struct file *file, struct task_struct *leader, pid_t pgrp);
int checkpoint_set_controlling_tty(struct file *file, struct task_struct *task);
struct file *checkpoint_open_current_tty(struct file *file, const char *path, int flags);

/* kernel/checkpoint/vma.c */

/**
 * struct checkpoint_mempolicy - a memory policy, as set_mempolicy(2) has it
 * @mode:	MPOL_*
 * @flags:	MPOL_F_* of those that user space gives
 * @home_node:	set_mempolicy_home_node(2), or NUMA_NO_NODE
 * @words:	length of @nodes
 * @nodes:	the set of nodes, least significant first
 */
struct checkpoint_mempolicy {
	u32 mode;
	u32 flags;
	s32 home_node;
	u32 words;
	const u64 *nodes;
};

/**
 * struct checkpoint_vma - a mapping to be made or finished
 * @start:	first address
 * @end:	first address after it
 * @pgoff:	of anonymous memory: address at which it was first mapped, in pages
 * @flags:	VM_*
 * @name:	PR_SET_VMA_ANON_NAME, not terminated, or NULL
 * @name_len:	length of @name
 * @policy:	its memory policy, or NULL
 */
struct checkpoint_vma {
	unsigned long start;
	unsigned long end;
	unsigned long pgoff;
	vm_flags_t flags;
	const char *name;
	size_t name_len;
	const struct checkpoint_mempolicy *policy;
};

int checkpoint_map_anon(const struct checkpoint_vma *maps, unsigned int count);
int checkpoint_map_ring(const struct checkpoint_vma *map, struct file *file);
int checkpoint_finish_vma(const struct checkpoint_vma *map);
size_t checkpoint_vmas(struct mm_struct *mm, unsigned long addr, struct vm_area_struct **vmas,
		       size_t max);
unsigned long checkpoint_anon_pgoff(struct vm_area_struct *vma);
const void *checkpoint_anon_root(struct vm_area_struct *vma);
const char *checkpoint_anon_name(struct vm_area_struct *vma);
void checkpoint_pkeys(struct mm_struct *mm, u32 *keys, u32 *execute_only);
int checkpoint_set_pkeys(u32 keys, u32 execute_only);
void checkpoint_lock_future(struct mm_struct *mm, bool *future, bool *onfault);
int checkpoint_set_lock_future(bool onfault);
const void *checkpoint_get_mempolicy(struct vm_area_struct *vma, struct task_struct *task,
				     struct checkpoint_mempolicy *policy, u64 *nodes);
int checkpoint_set_mempolicy(const struct checkpoint_mempolicy *policy);
bool checkpoint_node_usable(u32 node);

/* kernel/checkpoint/memory.c */

int checkpoint_mmap_lock(struct mm_struct *mm);
int checkpoint_next_guard(struct mm_struct *mm, unsigned long *start, unsigned long *end);
int checkpoint_copy_shmem_page(struct file *from, struct file *to, pgoff_t index);
unsigned long checkpoint_private_pages(struct mm_struct *mm);
bool checkpoint_has_room(struct mm_struct *mm, unsigned long pages);
int checkpoint_clear_vma_flags(struct mm_struct *mm, unsigned long addr, vm_flags_t flags);
void checkpoint_restore_vma_flags(struct mm_struct *mm, unsigned long addr, vm_flags_t flags);
struct file *checkpoint_shmem_file(const char *name, loff_t size);
unsigned int checkpoint_hugetlb_shift(struct file *file);
u64 checkpoint_hugetlb_free(unsigned int shift);
struct file *checkpoint_hugetlb_file(const char *name, size_t size, unsigned int shift);
struct page *checkpoint_hugetlb_page(struct file *file, pgoff_t index, bool fill);
size_t checkpoint_hugetlb_left(struct file *file, pgoff_t index);
bool checkpoint_is_internal_shmem(struct file *file);
void checkpoint_dirty_page(struct page *page);
const char *checkpoint_vma_name(struct vm_area_struct *vma);
bool checkpoint_mm_flag(struct mm_struct *mm, unsigned int flag);
int checkpoint_set_layout(struct prctl_mm_map *map, const void *auxv, size_t len,
			  unsigned long mmap_base, u32 coredump_filter, bool topdown);
int checkpoint_vdso_id(u8 *id, u32 *len);
unsigned long checkpoint_vdso_text(unsigned long start);
unsigned long checkpoint_vdso_size(void);
int checkpoint_protect(unsigned long start, unsigned long end, vm_flags_t clear);
int checkpoint_map_vdso(unsigned long start);

/* kernel/checkpoint/unix.c */

#define CHECKPOINT_UNIX_NAME 109

/* Bits of struct checkpoint_unix.flags */
#define CHECKPOINT_UNIX_PASSCRED	(1U << 0)
#define CHECKPOINT_UNIX_PASSPIDFD	(1U << 1)
#define CHECKPOINT_UNIX_PASSSEC		(1U << 2)
#define CHECKPOINT_UNIX_NO_RIGHTS	(1U << 3) /* SO_PASSRIGHTS is off */
#define CHECKPOINT_UNIX_INQ		(1U << 4)
#define CHECKPOINT_UNIX_RIGHTS_NOTRUNC	(1U << 5)
#define CHECKPOINT_UNIX_OOBINLINE	(1U << 6)
#define CHECKPOINT_UNIX_REUSEADDR	(1U << 7)
#define CHECKPOINT_UNIX_KEEPALIVE	(1U << 8)
#define CHECKPOINT_UNIX_BROADCAST	(1U << 9)
#define CHECKPOINT_UNIX_DONTROUTE	(1U << 10)
#define CHECKPOINT_UNIX_LINGER		(1U << 11)
#define CHECKPOINT_UNIX_TIMESTAMP	(1U << 12)
#define CHECKPOINT_UNIX_TIMESTAMPNS	(1U << 13)
#define CHECKPOINT_UNIX_TIMESTAMP_NEW	(1U << 14)
#define CHECKPOINT_UNIX_TIMESTAMPNS_NEW	(1U << 15)
#define CHECKPOINT_UNIX_SNDBUF		(1U << 16) /* SO_SNDBUF was set */
#define CHECKPOINT_UNIX_RCVBUF		(1U << 17) /* SO_RCVBUF was set */
#define CHECKPOINT_UNIX_PEERCRED	(1U << 18) /* peer_pid, peer_uid and peer_gid are known */
#define CHECKPOINT_UNIX_BOUND		(1U << 19) /* others find it by its name */

/**
 * struct checkpoint_unix - the state of a unix socket
 * @rcvtimeo_ns:	SO_RCVTIMEO, all ones for none
 * @sndtimeo_ns:	SO_SNDTIMEO
 * @type:		SOCK_*
 * @state:		TCP_*
 * @shutdown:		RCV_SHUTDOWN, SEND_SHUTDOWN
 * @flags:		CHECKPOINT_UNIX_*
 * @backlog:		how many connections or messages may wait
 * @sndbuf:		bytes
 * @rcvbuf:		bytes
 * @rcvlowat:		SO_RCVLOWAT
 * @priority:		SO_PRIORITY
 * @linger:		seconds
 * @peer_uid:		SO_PEERCRED
 * @peer_gid:		SO_PEERCRED
 * @peer_pid:		SO_PEERCRED
 * @err:		number of the pending error, positive
 * @peek_off:		SO_PEEK_OFF
 * @name_len:		bytes in @name
 * @name:		what getsockname(2) shows
 */
struct checkpoint_unix {
	u64 rcvtimeo_ns;
	u64 sndtimeo_ns;
	u32 type;
	u32 state;
	u32 shutdown;
	u32 flags;
	u32 backlog;
	u32 sndbuf;
	u32 rcvbuf;
	u32 rcvlowat;
	u32 priority;
	u32 linger;
	u32 peer_uid;
	u32 peer_gid;
	s32 peer_pid;
	s32 err;
	s32 peek_off;
	u32 name_len;
	char name[CHECKPOINT_UNIX_NAME];
};

/**
 * struct checkpoint_unix_message - a message in the queue of a unix socket
 * @sender:	the socket that it came from
 * @stamp_ns:	when it came, or 0
 * @pid:	of its sender
 * @uid:	of its sender
 * @gid:	of its sender
 * @files:	number of files in it
 * @len:	bytes that have not been read
 * @consumed:	bytes that have
 * @creds:	whether @pid, @uid and @gid are known
 * @oob:	whether it is out of band
 */
struct checkpoint_unix_message {
	struct sock *sender;
	s64 stamp_ns;
	s32 pid;
	u32 uid;
	u32 gid;
	u32 files;
	u32 len;
	u32 consumed;
	bool creds;
	bool oob;
};

struct sock *checkpoint_unix_sock(struct file *file);
bool checkpoint_sock_hold(struct sock *sk);
void checkpoint_sock_put(struct sock *sk);
struct sock *checkpoint_unix_peer(struct sock *sk);
const void *checkpoint_unix_owner(struct sock *sk, const void **listener);
const char *checkpoint_unix_blocker(struct sock *sk);
void checkpoint_unix_get(struct sock *sk, struct checkpoint_unix *state, struct path *path);
void checkpoint_unix_lock_queue(struct sock *sk);
void checkpoint_unix_unlock_queue(struct sock *sk);
unsigned int checkpoint_unix_queue(struct sock *sk, struct sk_buff **skbs, unsigned int max);
bool checkpoint_unix_may_have_files(struct sock *sk);
void checkpoint_unix_put_skb(struct sk_buff *skb);
void checkpoint_unix_get_message(struct sock *sk, struct sk_buff *skb,
				 struct checkpoint_unix_message *state);
struct file *checkpoint_unix_message_file(struct sk_buff *skb, unsigned int index);
struct sock *checkpoint_unix_new(int type, struct file **file);
void checkpoint_unix_release(struct sock *sk);
int checkpoint_unix_mknod(const char *name, umode_t mode);
int checkpoint_unix_name(struct sock *sk, const char *name, unsigned int len,
			 const struct path *path, bool abstract);
int checkpoint_unix_link(struct sock *sk, struct sock *peer);
int checkpoint_unix_wait_accept(struct sock *listener, struct sock *sk);
struct pid *checkpoint_saved_pid(pid_t nr, bool ours);
void checkpoint_put_pid(struct pid *pid);
int checkpoint_unix_peercred(struct sock *sk, struct pid *pid, uid_t uid, gid_t gid);
int checkpoint_unix_set(struct sock *sk, const struct checkpoint_unix *state);
void checkpoint_unix_finish(struct sock *sk, u32 shutdown, int err);
int checkpoint_unix_put_message(struct sock *sk, struct sock *sender,
				const struct checkpoint_unix_message *state, struct pid *pid,
				const void *data, struct file **files);

/* kernel/checkpoint/pages.c */

/**
 * struct checkpoint_run - pages of one folio, one after the other
 * @page:	the first
 * @addr:	where they are mapped
 * @nr:		how many
 * @shared:	more mappings than its own may have them
 */
struct checkpoint_run {
	struct page *page;
	unsigned long addr;
	unsigned int nr;
	bool shared;
};

/**
 * struct checkpoint_runs - pages to be saved, or to be filled
 * @runs:	@max entries, ascending, each with a reference
 * @max:	most runs, and most pages in all of them
 * @count:	runs in use
 * @pages:	pages in them
 * @own_mappings:	mappings of a page that only one address space has
 * @next:	where to go on
 * @fault:	a page that is not present but has contents (swapped out, migrating), or 0
 * @poison:	a page whose contents are lost, or 0
 */
struct checkpoint_runs {
	struct checkpoint_run *runs;
	unsigned int max;
	unsigned int count;
	unsigned int pages;
	int own_mappings;
	unsigned long next;
	unsigned long fault;
	unsigned long poison;
};

int checkpoint_collect_pages(struct mm_struct *mm, unsigned long start, unsigned long end,
			     struct checkpoint_runs *found);
unsigned int checkpoint_same_pages(struct mm_struct *mm, unsigned long addr, struct page *page,
				   unsigned int nr);
void checkpoint_seen_init(struct xarray *seen);
void checkpoint_seen_destroy(struct xarray *seen);
int checkpoint_page_seen(struct xarray *seen, struct page *page, unsigned int nr, u64 number,
			 u64 *before);
int checkpoint_page_replace(struct xarray *seen, struct page *page, unsigned int nr, u64 number);
void checkpoint_put_page(struct page *page);
void checkpoint_get_page(struct page *page);
void *checkpoint_page_address(struct page *page);
int checkpoint_begin_fill(struct mm_struct *mm);
void checkpoint_end_fill(struct mm_struct *mm);
int checkpoint_new_pages(struct mm_struct *mm, bool huge, unsigned long addr, unsigned int pages,
			 struct checkpoint_runs *runs);
int checkpoint_map_pages(struct mm_struct *mm, struct checkpoint_runs *runs);
int checkpoint_relate(struct mm_struct *root_mm, unsigned long root_addr, struct mm_struct *mm,
		      const unsigned long *addrs, unsigned int count);
int checkpoint_share_pages(struct mm_struct *from_mm, unsigned long from_addr,
			   struct mm_struct *to_mm, unsigned long to_addr, unsigned int nr);
int checkpoint_populate_locked(struct mm_struct *mm);

/* kernel/checkpoint/splice.c */

int checkpoint_splice(struct file *file, const struct bio_vec *bvec, unsigned int count,
		      size_t len);

/* kernel/checkpoint/tmpfs.c */

bool checkpoint_takes_pages(struct file *file);
unsigned int checkpoint_write_cached(struct file *file, const struct checkpoint_run *runs,
				     unsigned int pages);
unsigned int checkpoint_read_cached(struct file *file, const struct checkpoint_run *runs,
				    unsigned int pages);

/* kernel/checkpoint/donate.c */

/**
 * struct checkpoint_donation - pages that move from an address space into an image
 * @mm:		address space
 * @addr:	where the first is in it; the others follow
 * @pages:	@nr pages, with a reference to each
 * @nr:		number of pages
 * @index:	where the first will be in the image, in pages
 */
struct checkpoint_donation {
	struct mm_struct *mm;
	unsigned long addr;
	struct page **pages;
	unsigned int nr;
	pgoff_t index;
};

bool checkpoint_may_donate(struct page *page);
const void *checkpoint_robust_mm(struct task_struct *task);
int checkpoint_donate_begin(struct file *file, unsigned long pages);
int checkpoint_donate(struct file *file, const struct checkpoint_donation *donation);
void checkpoint_donate_end(struct file *file, unsigned long pages);

/* How many rings a task may register for itself. */
#define CHECKPOINT_RING_SLOTS	16

/**
 * struct checkpoint_ring - the state of an io_uring that changes, but for its memory
 * @sq_head:		the next entry to be submitted, as the kernel counts them
 * @cq_tail:		the next completion, in the same way
 * @requests:		how many are in flight
 * @limits:		how many workers whoever uses it may have, if @limited
 * @uid:		whose pinned memory is limited, if @accounted, as current sees it
 * @issuer:		the only task that may submit to it, if @issued, as current sees it
 * @mm:			the address space that pinned memory is counted for, as an identity
 * @limited:		IORING_REGISTER_IOWQ_MAX_WORKERS
 * @accounted:		pinned memory is limited
 * @issued:		it has an issuer
 * @dropped:		completions were lost, and nobody has been told
 * @drain_next:		the next request waits for all before it
 * @drain_active:	requests wait for those before them
 * @drain_disabled:	none can, as IOSQE_CQE_SKIP_SUCCESS was used
 * @boottime:		timeouts are of CLOCK_BOOTTIME
 */
struct checkpoint_ring {
	u32 sq_head;
	u32 cq_tail;
	u32 requests;
	u32 limits[2];
	u32 uid;
	pid_t issuer;
	const void *mm;
	bool limited;
	bool accounted;
	bool issued;
	bool dropped;
	bool drain_next;
	bool drain_active;
	bool drain_disabled;
	bool boottime;
};

/**
 * struct checkpoint_ring_user - a task that has used a ring
 * @pid:		which, as current sees it
 * @slots:		under which numbers it has registered the ring for itself, as bits
 * @max_workers:	how many workers it may have, bounded and unbounded
 * @pinned:		they are kept from some CPUs
 */
struct checkpoint_ring_user {
	pid_t pid;
	u32 slots;
	u32 max_workers[2];
	bool pinned;
};

bool checkpoint_is_ring(struct file *file);
const void *checkpoint_ring(struct file *file);
void checkpoint_ring_setup(struct file *file, u32 *flags, u32 *sq_entries, u32 *cq_entries);
const char *checkpoint_ring_blocker(struct file *file, unsigned int *at);
int checkpoint_get_ring(struct file *file, struct checkpoint_ring *ring);
long checkpoint_ring_users(struct file *file, struct checkpoint_ring_user *users,
			   unsigned int max);
bool checkpoint_uses_uring(struct task_struct *task);
s64 checkpoint_uring_requests(struct task_struct *task);
size_t checkpoint_task_rings(struct task_struct *task, const void **rings, size_t max);
const void *checkpoint_registered_ring(struct task_struct *task, unsigned int slot);
size_t checkpoint_ring_size(struct file *file, bool sqes);
int checkpoint_read_ring(struct file *file, bool sqes, size_t offset, void *buf, size_t len);
int checkpoint_write_ring(struct file *file, bool sqes, size_t offset, const void *buf,
			  size_t len);
struct file *checkpoint_make_ring(u32 flags, u32 sq_entries, u32 cq_entries);
int checkpoint_set_ring(struct file *file, const struct checkpoint_ring *ring,
			struct task_struct *issuer, struct mm_struct *mm);
int checkpoint_use_ring(struct file *file, const struct checkpoint_ring_user *user);
const char *checkpoint_ring_vma_blocker(struct vm_area_struct *vma);

#endif /* _LINUX_CHECKPOINT_H */
