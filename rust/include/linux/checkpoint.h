/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The contract between the C and the Rust side of checkpoint(2) and restart(2).
 */
#ifndef _LINUX_CHECKPOINT_H
#define _LINUX_CHECKPOINT_H

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
#include <linux/ipc_namespace.h>
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
#include <linux/syscalls.h>
#include <linux/task_work.h>
#include <linux/time_namespace.h>
#include <linux/tty.h>
#include <linux/uio.h>
#include <linux/user_namespace.h>
#include <linux/utsname.h>
#include <net/sock.h>
#include <asm/elf.h>
#include <asm/vdso.h>
#include <uapi/linux/checkpoint.h>
#include <uapi/linux/major.h>
#include <uapi/linux/sched/types.h>

/* Rust: called by the system calls in kernel/checkpoint/sys.c. */
long rust_checkpoint(const struct checkpoint_args *args);
long rust_restart(const struct restart_args *args);

/* kernel/checkpoint/accounting.c */
void checkpoint_clock_offsets(struct task_struct *task, s64 *monotonic_ns, s64 *boottime_ns);
unsigned long checkpoint_maxrss(struct task_struct *task);
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

/* kernel/checkpoint/hooks.c */
int checkpoint_fd_cloexec(struct task_struct *task, unsigned int fd);
int checkpoint_get_fs(struct task_struct *task, struct path *root, struct path *pwd, int *umask);
bool checkpoint_path_unlinked(const struct path *path);
bool checkpoint_path_equal(const struct path *a, const struct path *b);
bool checkpoint_killed(void);
void checkpoint_close_all(void);
void checkpoint_set_umask(int umask);
int checkpoint_set_ids(struct task_struct *task, pid_t pgid, pid_t sid);
bool checkpoint_may_choose_pids(void);
void checkpoint_close_now(struct file *file);
pid_t checkpoint_pidfd_target(struct file *file);
struct file *checkpoint_open_pidfd(pid_t nr, unsigned int flags);
void checkpoint_set_rlimit(unsigned int resource, unsigned long cur, unsigned long max);
bool checkpoint_capable(int cap);
void checkpoint_set_oom_score_adj(short adj, short adj_min);
int checkpoint_set_cpus(const u64 *mask, unsigned int words);
bool checkpoint_pid_taken(pid_t nr);
int checkpoint_wait_parked(struct task_struct *task);
void checkpoint_wait_dead(struct task_struct *task);
int checkpoint_exit_signal(struct task_struct *task);
void checkpoint_set_execed(void);
bool checkpoint_same_label(const struct cred *a, const struct cred *b);
char *checkpoint_path_from_root(const struct path *path, char *buf, int len);
bool checkpoint_is_subreaper(struct task_struct *task);
const void *checkpoint_parent_signal(struct task_struct *task);
int checkpoint_enter_time_ns(s64 monotonic_ns, s64 boottime_ns, struct nsproxy **old);
void checkpoint_leave_time_ns(struct nsproxy *old);
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

/* kernel/checkpoint/memory.c */

/**
 * struct checkpoint_pages - pages found by checkpoint_collect_pages()
 * @pages:	@max entries, each with a reference
 * @addrs:	@max user addresses, ascending
 * @max:	size of both arrays
 * @count:	entries in use
 * @next:	where to go on
 * @fault:	a page that is not present but has contents (swapped out, migrating), or 0
 * @guard:	a page that a guard marker stands for, or 0
 */
struct checkpoint_pages {
	struct page **pages;
	unsigned long *addrs;
	unsigned int max;
	unsigned int count;
	unsigned long next;
	unsigned long fault;
	unsigned long guard;
};

int checkpoint_mmap_lock(struct mm_struct *mm);
int checkpoint_collect_pages(struct mm_struct *mm, unsigned long start, unsigned long end,
			     struct checkpoint_pages *found);
void checkpoint_put_page(struct page *page);
void *checkpoint_page_address(struct page *page);
struct page *checkpoint_shmem_page(struct file *file, pgoff_t index);
struct file *checkpoint_shmem_file(const char *name, loff_t size);
bool checkpoint_is_internal_shmem(struct file *file);
void checkpoint_dirty_page(struct page *page);
const char *checkpoint_vma_blocker(struct vm_area_struct *vma);
const char *checkpoint_vma_name(struct vm_area_struct *vma);
bool checkpoint_mm_flag(struct mm_struct *mm, unsigned int flag);
int checkpoint_set_layout(struct prctl_mm_map *map, const void *auxv, size_t len,
			  unsigned long mmap_base, u32 coredump_filter, bool topdown);
int checkpoint_vdso_id(u8 *id, u32 *len);
unsigned long checkpoint_vdso_text(unsigned long start);
unsigned long checkpoint_vdso_size(void);
int checkpoint_protect(unsigned long start, unsigned long end, vm_flags_t clear);
int checkpoint_map_vdso(unsigned long start);

#endif /* _LINUX_CHECKPOINT_H */
