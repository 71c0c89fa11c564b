// SPDX-License-Identifier: GPL-2.0
/*
 * Rings of io_uring, for kernel/checkpoint/files/uring.rs: what io_uring/ keeps to itself of rings
 * and of tasks that use them.
 *
 * Locks: uring_lock of a ring. Its tctx_lock. mmap_lock (read), then mmap_lock of a ring, then page
 * table locks. No function leaves one taken.
 */
#include <linux/checkpoint.h>
#include <linux/io_uring.h>
#include <linux/io_uring_types.h>
#include <linux/pagewalk.h>
#include <linux/sched/user.h>

#ifdef CONFIG_IO_URING
#include "../../io_uring/io_uring.h"
#include "../../io_uring/memmap.h"
#include "../../io_uring/tctx.h"

/* Where programs find these is part of the image format. */
static_assert(offsetof(struct io_rings, sq.head) == 0);
static_assert(offsetof(struct io_rings, sq.tail) == 4);
static_assert(offsetof(struct io_rings, cq.head) == 8);
static_assert(offsetof(struct io_rings, cq.tail) == 12);
static_assert(offsetof(struct io_rings, sq_ring_mask) == 16);
static_assert(offsetof(struct io_rings, cq_ring_mask) == 20);
static_assert(offsetof(struct io_rings, sq_ring_entries) == 24);
static_assert(offsetof(struct io_rings, cq_ring_entries) == 28);
static_assert(offsetof(struct io_rings, sq_dropped) == 32);
static_assert(offsetof(struct io_rings, sq_flags) == 36);
static_assert(offsetof(struct io_rings, cq_flags) == 40);
static_assert(offsetof(struct io_rings, cq_overflow) == 44);
static_assert(offsetof(struct io_rings, cqes) == 64);
static_assert(CHECKPOINT_RING_SLOTS == IO_RINGFD_REG_MAX);

/* Of int_flags, what stays when nothing is in flight; the rest follows from the setup flags. */
#define KEPT_FLAGS	(IO_RING_F_DRAIN_NEXT | IO_RING_F_DRAIN_ACTIVE | IO_RING_F_DRAIN_DISABLED)

bool checkpoint_is_ring(struct file *file)
{
	return io_is_uring_fops(file);
}

/* What tasks know the ring @file by, as an identity. */
const void *checkpoint_ring(struct file *file)
{
	return file->private_data;
}

/* How the ring @file was set up: flags as io_uring_setup(2) has them. */
void checkpoint_ring_setup(struct file *file, u32 *flags, u32 *sq_entries, u32 *cq_entries)
{
	struct io_ring_ctx *ctx = file->private_data;

	*flags = READ_ONCE(ctx->flags);
	*sq_entries = ctx->sq_entries;
	*cq_entries = ctx->cq_entries;
}

static bool has_iopoll(struct io_ring_ctx *ctx)
{
	return ctx->flags & IORING_SETUP_IOPOLL;
}

static bool has_sqpoll(struct io_ring_ctx *ctx)
{
	return ctx->flags & IORING_SETUP_SQPOLL;
}

static bool is_attached(struct io_ring_ctx *ctx)
{
	return ctx->flags & IORING_SETUP_ATTACH_WQ;
}

static bool has_user_memory(struct io_ring_ctx *ctx)
{
	return ctx->flags & (IORING_SETUP_NO_MMAP | IORING_SETUP_REGISTERED_FD_ONLY);
}

static bool is_32bit(struct io_ring_ctx *ctx)
{
	return ctx->int_flags & IO_RING_F_COMPAT;
}

static bool has_files(struct io_ring_ctx *ctx)
{
	return ctx->file_table.data.nr;
}

static bool has_buffers(struct io_ring_ctx *ctx)
{
	return ctx->buf_table.nr;
}

static bool has_provided_buffers(struct io_ring_ctx *ctx)
{
	return !xa_empty(&ctx->io_bl_xa);
}

static bool has_eventfd(struct io_ring_ctx *ctx)
{
	return rcu_access_pointer(ctx->io_ev_fd);
}

/* The number of the next personality is remembered when there is none any more. */
static bool has_personality(struct io_ring_ctx *ctx)
{
	return ctx->pers_next || !xa_empty(&ctx->personalities);
}

static bool has_restrictions(struct io_ring_ctx *ctx)
{
	return ctx->restrictions.op_registered || ctx->restrictions.reg_registered ||
	       ctx->restrictions.bpf_filters;
}

static bool has_region(struct io_ring_ctx *ctx)
{
	return io_region_is_set(&ctx->param_region);
}

static bool has_zcrx(struct io_ring_ctx *ctx)
{
	return !xa_empty(&ctx->zcrx_ctxs);
}

static bool has_napi(struct io_ring_ctx *ctx)
{
#ifdef CONFIG_NET_RX_BUSY_POLL
	return READ_ONCE(ctx->napi_track_mode) != IO_URING_NAPI_TRACKING_INACTIVE;
#else
	return false;
#endif
}

static bool has_bpf_ops(struct io_ring_ctx *ctx)
{
	return ctx->bpf_ops || ctx->loop_step;
}

static bool has_overflow(struct io_ring_ctx *ctx)
{
	return test_bit(IO_CHECK_CQ_OVERFLOW_BIT, &ctx->check_cq) ||
	       !list_empty(&ctx->cq_overflow_list);
}

/* Of requests in flight, or of IORING_OP_MSG_RING of another ring. */
static bool has_work(struct io_ring_ctx *ctx)
{
	return io_local_work_pending(ctx);
}

/* State of a ring that has no place in an image. */
static const struct {
	bool (*has)(struct io_ring_ctx *ctx);
	const char *name;
} ring_blockers[] = {
	{ has_iopoll, "IORING_SETUP_IOPOLL" },
	{ has_sqpoll, "IORING_SETUP_SQPOLL" },
	{ is_attached, "IORING_SETUP_ATTACH_WQ" },
	{ has_user_memory, "IORING_SETUP_NO_MMAP" },
	{ is_32bit, "ring of a 32-bit program" },
	{ has_files, "registered files" },
	{ has_buffers, "registered buffers" },
	{ has_provided_buffers, "provided buffers" },
	{ has_eventfd, "registered eventfd" },
	{ has_personality, "personality" },
	{ has_restrictions, "restrictions" },
	{ has_region, "memory region" },
	{ has_zcrx, "zero copy receive" },
	{ has_napi, "NAPI busy polling" },
	{ has_bpf_ops, "BPF loop" },
	{ has_overflow, "completions that found no room" },
	{ has_work, "completions on their way" },
};

/*
 * The name of the next such state that the ring @file has, from number *@at on, which goes behind
 * it; NULL at the end.
 */
const char *checkpoint_ring_blocker(struct file *file, unsigned int *at)
{
	while (*at < ARRAY_SIZE(ring_blockers)) {
		unsigned int i = (*at)++;

		if (ring_blockers[i].has(file->private_data))
			return ring_blockers[i].name;
	}
	return NULL;
}

/**
 * checkpoint_get_ring - the state of a ring, but for its memory
 * @file:	the ring
 * @ring:	gets it
 *
 * Return: 0, or -EINTR.
 */
int checkpoint_get_ring(struct file *file, struct checkpoint_ring *ring)
{
	struct io_ring_ctx *ctx = file->private_data;
	struct io_wq_work_node *node;

	memset(ring, 0, sizeof(*ring));
	if (mutex_lock_killable(&ctx->uring_lock))
		return -EINTR;
	/* Each request that does not wait to be used again is in flight. */
	ring->requests = ctx->nr_req_allocated;
	for (node = ctx->submit_state.free_list.next; node; node = node->next)
		ring->requests--;
	ring->sq_head = ctx->cached_sq_head;
	ring->cq_tail = ctx->cached_cq_tail;
	ring->drain_next = ctx->int_flags & IO_RING_F_DRAIN_NEXT;
	ring->drain_active = ctx->int_flags & IO_RING_F_DRAIN_ACTIVE;
	ring->drain_disabled = ctx->int_flags & IO_RING_F_DRAIN_DISABLED;
	ring->dropped = test_bit(IO_CHECK_CQ_DROPPED_BIT, &ctx->check_cq);
	ring->boottime = ctx->clockid == CLOCK_BOOTTIME;
	if (ctx->int_flags & IO_RING_F_IOWQ_LIMITS_SET) {
		ring->limited = true;
		ring->limits[0] = ctx->iowq_limits[0];
		ring->limits[1] = ctx->iowq_limits[1];
	}
	if (ctx->user) {
		ring->accounted = true;
		ring->uid = from_kuid(current_user_ns(), ctx->user->uid);
	}
	ring->mm = ctx->mm_account;
	if (ctx->submitter_task) {
		ring->issued = true;
		ring->issuer = task_pid_vnr(ctx->submitter_task);
	}
	mutex_unlock(&ctx->uring_lock);
	return 0;
}

/**
 * checkpoint_ring_users - the tasks that have used a ring
 * @file:	the ring
 * @users:	gets them
 * @max:	at most so many
 *
 * Return: how many there are, or -EINTR, -ENOMEM.
 */
long checkpoint_ring_users(struct file *file, struct checkpoint_ring_user *users, unsigned int max)
{
	struct io_ring_ctx *ctx = file->private_data;
	struct io_tctx_node *node;
	unsigned int n = 0;
	int err = 0;

	if (mutex_lock_killable(&ctx->tctx_lock))
		return -EINTR;
	/* Who dies takes this lock before it lets go of what it has. */
	list_for_each_entry(node, &ctx->tctx_list, ctx_node) {
		struct io_uring_task *tctx = node->task->io_uring;
		struct checkpoint_ring_user *user = &users[n];

		if (n++ >= max)
			continue;
		memset(user, 0, sizeof(*user));
		user->pid = task_pid_vnr(node->task);
		for (unsigned int i = 0; i < IO_RINGFD_REG_MAX; i++) {
			if (READ_ONCE(tctx->registered_rings[i]) == file)
				user->slots |= BIT(i);
		}
		if (!tctx->io_wq)
			continue;
		err = io_wq_get_limits(tctx->io_wq, user->max_workers, &user->pinned);
		if (err)
			break;
	}
	mutex_unlock(&ctx->tctx_lock);
	return err ?: n;
}

/* Whether @task has ever used a ring. */
bool checkpoint_uses_uring(struct task_struct *task)
{
	return task->io_uring;
}

/* How many requests of @task are in flight, on whatever ring. */
s64 checkpoint_uring_requests(struct task_struct *task)
{
	struct io_uring_task *tctx = task->io_uring;

	return tctx ? percpu_counter_sum(&tctx->inflight) - READ_ONCE(tctx->cached_refs) : 0;
}

/* The rings that @task has used, as identities: at most @max; how many there are. */
size_t checkpoint_task_rings(struct task_struct *task, const void **rings, size_t max)
{
	struct io_uring_task *tctx = task->io_uring;
	unsigned long index;
	size_t n = 0;
	void *node;

	if (!tctx)
		return 0;
	guard(rcu)();
	/* What is found is not looked at: it may go away. */
	xa_for_each(&tctx->xa, index, node) {
		if (n < max)
			rings[n] = (const void *)index;
		n++;
	}
	return n;
}

/* The open file in @task's table of registered rings, as an identity; NULL for none. */
const void *checkpoint_registered_ring(struct task_struct *task, unsigned int slot)
{
	struct io_uring_task *tctx = task->io_uring;

	return tctx ? READ_ONCE(tctx->registered_rings[slot]) : NULL;
}

static struct io_mapped_region *region_of(struct io_ring_ctx *ctx, bool sqes)
{
	return sqes ? &ctx->sq_region : &ctx->ring_region;
}

/* Length in bytes of the entries of the submission queue, @sqes, or of the queues of the ring @file. */
size_t checkpoint_ring_size(struct file *file, bool sqes)
{
	return io_region_size(region_of(file->private_data, sqes));
}

/* Copy @len bytes from @offset on out of that memory. */
int checkpoint_read_ring(struct file *file, bool sqes, size_t offset, void *buf, size_t len)
{
	struct io_mapped_region *region = region_of(file->private_data, sqes);

	if (offset > io_region_size(region) || len > io_region_size(region) - offset)
		return -EINVAL;
	memcpy(buf, io_region_get_ptr(region) + offset, len);
	return 0;
}

/* The other way round. Programs may write there what they like. */
int checkpoint_write_ring(struct file *file, bool sqes, size_t offset, const void *buf, size_t len)
{
	struct io_mapped_region *region = region_of(file->private_data, sqes);

	if (offset > io_region_size(region) || len > io_region_size(region) - offset)
		return -EINVAL;
	memcpy(io_region_get_ptr(region) + offset, buf, len);
	return 0;
}

/*
 * A new ring, which nobody has used yet. If one task only may submit to it, that is current until
 * checkpoint_set_ring() says otherwise.
 */
struct file *checkpoint_make_ring(u32 flags, u32 sq_entries, u32 cq_entries)
{
	struct file *file = io_uring_create_file(flags, sq_entries, cq_entries);
	struct io_ring_ctx *ctx;

	if (IS_ERR(file))
		return file;
	ctx = file->private_data;
	/* Those who poll it before it has its issuer would wait for him in vain. */
	ctx->int_flags |= IO_RING_F_POLL_ACTIVATED;
	mmdrop(ctx->mm_account);
	ctx->mm_account = NULL;
	return file;
}

/**
 * checkpoint_set_ring - give a ring that was made its state, but for its memory
 * @file:	the ring
 * @ring:	the state. Whatever the numbers are, they are masked where they are used.
 * @issuer:	the only task that may submit to it, for a ring that has one; otherwise NULL
 * @mm:		the address space that pinned memory is counted for, or NULL
 *
 * Return: 0, -EINTR, -EINVAL, or -EPERM where memory would not be limited that is for the caller.
 */
int checkpoint_set_ring(struct file *file, const struct checkpoint_ring *ring,
			struct task_struct *issuer, struct mm_struct *mm)
{
	struct io_ring_ctx *ctx = file->private_data;
	struct user_struct *user = NULL;

	/* As long as it is disabled there is none. */
	if (!issuer != !ctx->submitter_task || ctx->mm_account)
		return -EINVAL;
	if (!ring->accounted && ctx->user)
		return -EPERM;
	if (ring->accounted && !ctx->user) {
		kuid_t uid = make_kuid(current_user_ns(), ring->uid);

		if (!uid_valid(uid))
			return -EINVAL;
		user = alloc_uid(uid);
		if (!user)
			return -ENOMEM;
	}
	if (mutex_lock_killable(&ctx->uring_lock)) {
		free_uid(user);
		return -EINTR;
	}
	if (user)
		ctx->user = user;
	ctx->cached_sq_head = ring->sq_head;
	ctx->cached_cq_tail = ring->cq_tail;
	ctx->int_flags &= ~KEPT_FLAGS;
	if (ring->drain_next)
		ctx->int_flags |= IO_RING_F_DRAIN_NEXT;
	if (ring->drain_active)
		ctx->int_flags |= IO_RING_F_DRAIN_ACTIVE;
	if (ring->drain_disabled)
		ctx->int_flags |= IO_RING_F_DRAIN_DISABLED;
	if (ring->dropped)
		set_bit(IO_CHECK_CQ_DROPPED_BIT, &ctx->check_cq);
	if (ring->boottime) {
		ctx->clockid = CLOCK_BOOTTIME;
		ctx->clock_offset = TK_OFFS_BOOT;
	}
	if (ring->limited) {
		ctx->iowq_limits[0] = ring->limits[0];
		ctx->iowq_limits[1] = ring->limits[1];
		ctx->int_flags |= IO_RING_F_IOWQ_LIMITS_SET;
	}
	if (issuer) {
		put_task_struct(ctx->submitter_task);
		ctx->submitter_task = get_task_struct(issuer);
	}
	if (mm) {
		mmgrab(mm);
		ctx->mm_account = mm;
	}
	mutex_unlock(&ctx->uring_lock);
	return 0;
}

/* Note that current uses the ring @file, which it has registered under the numbers in @user->slots. */
int checkpoint_use_ring(struct file *file, const struct checkpoint_ring_user *user)
{
	int err = __io_uring_add_tctx_node(file->private_data);
	struct io_uring_task *tctx = current->io_uring;

	if (err)
		return err;
	if (tctx->io_wq)
		io_wq_set_limits(tctx->io_wq, user->max_workers);
	for (int i = 0; i < IO_RINGFD_REG_MAX; i++) {
		if (!(user->slots & BIT(i)))
			continue;
		err = io_ring_add_registered_file(tctx, get_file(file), i, i + 1);
		if (err < 0) {
			fput(file);
			return err;
		}
	}
	return 0;
}

/* Whether the @pages pages from the start of @vma on are the first of @region. */
static bool maps(struct vm_area_struct *vma, struct io_mapped_region *region, unsigned long pages)
{
	for (unsigned long i = 0; i < pages; i++) {
		struct folio_walk walk;
		bool same = false;

		if (folio_walk_start(&walk, vma, vma->vm_start + i * PAGE_SIZE, 0)) {
			same = walk.page == region->pages[i];
			folio_walk_end(&walk, vma);
		}
		if (!same)
			return false;
	}
	return true;
}

/* Why the mapping @vma of a ring could not be made again, or NULL. mmap_lock is held. */
const char *checkpoint_ring_vma_blocker(struct vm_area_struct *vma)
{
	struct io_ring_ctx *ctx = vma->vm_file->private_data;
	const bool sqes = vma->vm_pgoff == IORING_OFF_SQES >> PAGE_SHIFT;
	struct io_mapped_region *region = region_of(ctx, sqes);

	if (!(vma->vm_flags & VM_MAYSHARE))
		return "private mapping";
	guard(mutex)(&ctx->mmap_lock);
	if (!sqes && vma->vm_pgoff != IORING_OFF_SQ_RING >> PAGE_SHIFT &&
	    vma->vm_pgoff != IORING_OFF_CQ_RING >> PAGE_SHIFT)
		return "part of a mapping";
	/* mmap(2) takes less of the queues, but not of the entries. */
	if (sqes && vma_pages(vma) < region->nr_pages)
		return "part of a mapping";
	/* IORING_REGISTER_RESIZE_RINGS leaves mappings of the old memory behind. */
	if (!maps(vma, region, min_t(unsigned long, vma_pages(vma), region->nr_pages)))
		return "mapping of memory that is not the ring's";
	return NULL;
}
#else
bool checkpoint_is_ring(struct file *file)
{
	return false;
}

const void *checkpoint_ring(struct file *file)
{
	return NULL;
}

void checkpoint_ring_setup(struct file *file, u32 *flags, u32 *sq_entries, u32 *cq_entries)
{
}

const char *checkpoint_ring_blocker(struct file *file, unsigned int *at)
{
	return NULL;
}

int checkpoint_get_ring(struct file *file, struct checkpoint_ring *ring)
{
	return -EOPNOTSUPP;
}

long checkpoint_ring_users(struct file *file, struct checkpoint_ring_user *users, unsigned int max)
{
	return -EOPNOTSUPP;
}

bool checkpoint_uses_uring(struct task_struct *task)
{
	return false;
}

s64 checkpoint_uring_requests(struct task_struct *task)
{
	return 0;
}

size_t checkpoint_task_rings(struct task_struct *task, const void **rings, size_t max)
{
	return 0;
}

const void *checkpoint_registered_ring(struct task_struct *task, unsigned int slot)
{
	return NULL;
}

size_t checkpoint_ring_size(struct file *file, bool sqes)
{
	return 0;
}

int checkpoint_read_ring(struct file *file, bool sqes, size_t offset, void *buf, size_t len)
{
	return -EOPNOTSUPP;
}

int checkpoint_write_ring(struct file *file, bool sqes, size_t offset, const void *buf, size_t len)
{
	return -EOPNOTSUPP;
}

struct file *checkpoint_make_ring(u32 flags, u32 sq_entries, u32 cq_entries)
{
	return ERR_PTR(-EOPNOTSUPP);
}

int checkpoint_set_ring(struct file *file, const struct checkpoint_ring *ring,
			struct task_struct *issuer, struct mm_struct *mm)
{
	return -EOPNOTSUPP;
}

int checkpoint_use_ring(struct file *file, const struct checkpoint_ring_user *user)
{
	return -EOPNOTSUPP;
}

const char *checkpoint_ring_vma_blocker(struct vm_area_struct *vma)
{
	return NULL;
}
#endif
