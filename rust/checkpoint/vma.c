// SPDX-License-Identifier: GPL-2.0
/*
 * Mappings, for kernel/checkpoint/: made one by one and never merged, so that a restored address
 * space has the mappings that were saved. What mmap(2), mlock(2) and the like would refuse is
 * refused here too.
 *
 * Locks: mmap_lock (write), in each function that changes mappings.
 */
#include <linux/checkpoint.h>
#include <linux/cpuset.h>
#include <linux/io_uring.h>
#include <linux/khugepaged.h>
#include <linux/ksm.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/perf_event.h>
#include <linux/pkeys.h>
#include <linux/rmap.h>
#include <linux/security.h>

/* For insert_vm_struct() and split_vma(), which mm/ keeps to itself. */
#include "../../mm/internal.h"

/* As mm/madvise.c has it, with its NUL. */
#define ANON_NAME_MAX	80

#define PKEY_FLAGS	(VM_PKEY_BIT0 | VM_PKEY_BIT1 | VM_PKEY_BIT2 | VM_PKEY_BIT3)
#define LOCK_FLAGS	(VM_LOCKED | VM_LOCKONFAULT)
#define ADVICE_FLAGS	(VM_DONTCOPY | VM_WIPEONFORK | VM_DONTDUMP | VM_HUGEPAGE | VM_NOHUGEPAGE | \
			 VM_MERGEABLE | VM_SEQ_READ | VM_RAND_READ)
/* What checkpoint_map_anon() makes of a mapping, and what checkpoint_finish_vma() adds to one. */
#define ANON_FLAGS	(VM_READ | VM_WRITE | VM_EXEC | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC | \
			 VM_GROWSDOWN | VM_ACCOUNT | VM_NORESERVE)
#define LATE_FLAGS	(LOCK_FLAGS | ADVICE_FLAGS | VM_SEALED | PKEY_FLAGS | VM_MAYBE_GUARD)

/* The name of anonymous memory that @map asks for: NULL for none, or an error. */
static struct anon_vma_name *new_name(const struct checkpoint_vma *map)
{
	char name[ANON_NAME_MAX];
	struct anon_vma_name *made;

	if (!map->name)
		return NULL;
	if (map->name_len >= sizeof(name))
		return ERR_PTR(-EINVAL);
	memcpy(name, map->name, map->name_len);
	name[map->name_len] = '\0';
	made = anon_vma_name_alloc(name);
	return made ?: ERR_PTR(-ENOMEM);
}

/* What a mapping may be given that a program could give it by system calls. */
static int check_late_flags(struct mm_struct *mm, vm_flags_t flags, unsigned long pages)
{
	if (flags & ~LATE_FLAGS)
		return -EINVAL;
	if ((flags & VM_HUGEPAGE) && (flags & VM_NOHUGEPAGE))
		return -EINVAL;
	if ((flags & PKEY_FLAGS) && !arch_pkeys_enabled())
		return -EOPNOTSUPP;
	if ((flags & VM_LOCKONFAULT) && !(flags & VM_LOCKED))
		return -EINVAL;
	if (flags & VM_LOCKED) {
		if (!can_do_mlock())
			return -EPERM;
		if (!mlock_future_ok(mm, true, pages << PAGE_SHIFT))
			return -EAGAIN;
	}
	return 0;
}

/* What the memory manager does on behalf of the flags of a new mapping. */
static int follow_flags(struct vm_area_struct *vma, vm_flags_t flags)
{
	struct mm_struct *mm = vma->vm_mm;

	if (flags & VM_LOCKED)
		mm->locked_vm += vma_pages(vma);
#ifdef CONFIG_KSM
	if ((flags & VM_MERGEABLE) && !mm_flags_test(MMF_VM_MERGEABLE, mm))
		return __ksm_enter(mm);
#endif
	return 0;
}

static int map_anon(struct mm_struct *mm, const struct checkpoint_vma *map)
{
	const unsigned long pages = (map->end - map->start) >> PAGE_SHIFT;
	vm_flags_t flags = map->flags & ANON_FLAGS;
	const vm_flags_t late = map->flags & ~ANON_FLAGS;
	struct anon_vma_name *name;
	struct vm_area_struct *vma;
	unsigned long prot;
	vma_flags_t all;
	int err;

	if (!PAGE_ALIGNED(map->start) || !PAGE_ALIGNED(map->end) || map->start >= map->end ||
	    map->end > TASK_SIZE)
		return -EINVAL;
	err = check_late_flags(mm, late, pages);
	if (err)
		return err;
	if (mm->map_count >= get_sysctl_max_map_count())
		return -ENOMEM;
	err = security_mmap_addr(map->start);
	if (err)
		return err;

	/* Committed memory is counted as mmap(2) does it, whatever the image says. */
	if (sysctl_overcommit_memory == OVERCOMMIT_NEVER)
		flags &= ~VM_NORESERVE;
	if ((flags & (VM_WRITE | VM_NORESERVE)) == VM_WRITE)
		flags |= VM_ACCOUNT;
	flags |= late | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC;
	if (pgtable_supports_soft_dirty())
		flags |= VM_SOFTDIRTY;
	all = legacy_to_vma_flags(flags);
	if (map_deny_write_exec(&all, &all))
		return -EACCES;
	prot = (flags & VM_READ ? PROT_READ : 0) | (flags & VM_WRITE ? PROT_WRITE : 0) |
	       (flags & VM_EXEC ? PROT_EXEC : 0);
	err = security_mmap_file(NULL, prot, MAP_PRIVATE | MAP_ANONYMOUS);
	if (err)
		return err;
	if (!may_expand_vm(mm, &all, pages))
		return -ENOMEM;

	name = new_name(map);
	if (IS_ERR(name))
		return PTR_ERR(name);
	vma = vm_area_alloc(mm);
	if (!vma) {
		anon_vma_name_put(name);
		return -ENOMEM;
	}
	vma_set_anonymous(vma);
	vma->vm_start = map->start;
	vma->vm_end = map->end;
	vma->flags = all;
	vma->vm_page_prot = vma_get_page_prot(vma);
	vma->anon_name = name;
	err = insert_vm_struct(mm, vma);
	if (err) {
		vm_area_free(vma);
		return err;
	}
	if (map->pgoff != map->start >> PAGE_SHIFT) {
		/*
		 * It was moved, by mremap(2) or as the stack by execve(2), when it had pages. The
		 * kernel expects that of each mapping whose offset is not its address, and so that
		 * it has an anon_vma, which sorts by the offset: vma_set_pgoff() would come too late.
		 */
		vma->vm_pgoff = map->pgoff;
		vma_set_anon_pgoff(vma, map->pgoff);
		err = anon_vma_prepare(vma);
		if (err)
			return err;
	}
	vm_stat_account(mm, flags, pages);
	perf_event_mmap(vma);
	return follow_flags(vma, flags);
}

/**
 * checkpoint_map_anon - map private anonymous memory into current
 * @maps:	ascending and apart
 * @count:	number of entries
 *
 * Return: 0, or what mmap(2), mlock(2) and the like say; -ENOMEM where something is mapped.
 */
int checkpoint_map_anon(const struct checkpoint_vma *maps, unsigned int count)
{
	struct mm_struct *mm = current->mm;
	int err = 0;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	for (unsigned int i = 0; i < count && !err; i++)
		err = map_anon(mm, &maps[i]);
	mmap_write_unlock(mm);
	return err;
}

/**
 * checkpoint_map_ring - map memory of an io_uring into current
 * @map:	where, shared
 * @file:	the ring
 *
 * A program gets it wherever the kernel puts it, so that mmap(2) takes no address.
 *
 * Return: 0, or what mmap(2) says; -EEXIST where something is mapped.
 */
int checkpoint_map_ring(const struct checkpoint_vma *map, struct file *file)
{
	const loff_t offset = (loff_t)map->pgoff << PAGE_SHIFT;
	const unsigned long len = map->end - map->start;
	struct mm_struct *mm = current->mm;
	vm_flags_t flags = map->flags & (VM_READ | VM_WRITE);
	unsigned long prot, at;
	LIST_HEAD(uf);
	int err;

	if (!PAGE_ALIGNED(map->start) || !PAGE_ALIGNED(map->end) || map->start >= map->end ||
	    map->end > TASK_SIZE || map->pgoff > IORING_OFF_SQES >> PAGE_SHIFT ||
	    (offset != IORING_OFF_SQ_RING && offset != IORING_OFF_CQ_RING &&
	     offset != IORING_OFF_SQES))
		return -EINVAL;
	/* As for all of anonymous inodes. */
	if (map->flags & VM_EXEC)
		return -EPERM;
	prot = (flags & VM_READ ? PROT_READ : 0) | (flags & VM_WRITE ? PROT_WRITE : 0);
	err = security_mmap_addr(map->start);
	if (!err)
		err = security_mmap_file(file, prot, MAP_SHARED);
	if (err)
		return err;
	flags |= VM_SHARED | VM_MAYSHARE | VM_MAYREAD | VM_MAYWRITE;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	if (mm->map_count >= get_sysctl_max_map_count())
		err = -ENOMEM;
	else if (find_vma_intersection(mm, map->start, map->end))
		err = -EEXIST;
	if (!err) {
		at = mmap_region(file, map->start, len, legacy_to_vma_flags(flags), map->pgoff, &uf);
		if (IS_ERR_VALUE(at))
			err = at;
	}
	mmap_write_unlock(mm);
	return err;
}

#ifdef CONFIG_NUMA
/* The policy that @policy describes, whose set of nodes goes into @mask. */
static struct mempolicy *new_policy(const struct checkpoint_mempolicy *policy, nodemask_t *mask)
{
	unsigned short flags = policy->flags & MPOL_MODE_FLAGS;
	struct mempolicy *made;

	*mask = NODE_MASK_NONE;
	for (unsigned int node = 0; node < min_t(u32, MAX_NUMNODES, policy->words * 64); node++) {
		if (policy->nodes[node / 64] & BIT_ULL(node % 64))
			node_set(node, *mask);
	}
	/* As sanitize_mpol_flags() has it. */
	if (policy->mode >= MPOL_MAX ||
	    ((flags & MPOL_F_STATIC_NODES) && (flags & MPOL_F_RELATIVE_NODES)))
		return ERR_PTR(-EINVAL);
	if (flags & MPOL_F_NUMA_BALANCING) {
		if (policy->mode != MPOL_BIND && policy->mode != MPOL_PREFERRED_MANY)
			return ERR_PTR(-EINVAL);
		flags |= MPOL_F_MOF | MPOL_F_MORON;
	}
	if (policy->home_node != NUMA_NO_NODE &&
	    (policy->home_node < 0 || policy->home_node >= MAX_NUMNODES ||
	     !node_online(policy->home_node)))
		return ERR_PTR(-EINVAL);
	made = mpol_new(policy->mode, flags, mask);
	if (!IS_ERR_OR_NULL(made))
		made->home_node = policy->home_node;
	return made;
}

static int set_vma_policy(struct vm_area_struct *vma, const struct checkpoint_mempolicy *policy)
{
	NODEMASK_SCRATCH(scratch);
	struct mempolicy *made;
	nodemask_t mask;
	int err = -ENOMEM;

	if (scratch) {
		made = new_policy(policy, &mask);
		err = PTR_ERR_OR_ZERO(made);
		if (!err)
			err = mpol_set_nodemask(made, &mask, scratch);
		if (!err) {
			vma_start_write(vma);
			err = vma_replace_policy(vma, made);
		}
		if (!IS_ERR(made))
			mpol_put(made);
	}
	NODEMASK_SCRATCH_FREE(scratch);
	return err;
}

/* Give current a memory policy as set_mempolicy(2) does, or the default one for NULL. */
int checkpoint_set_mempolicy(const struct checkpoint_mempolicy *policy)
{
	struct mempolicy *made;
	unsigned short flags;
	nodemask_t mask;

	if (!policy)
		return current->mempolicy ? do_set_mempolicy(MPOL_DEFAULT, 0, NULL) : 0;
	/* Only to check it. */
	made = new_policy(policy, &mask);
	if (IS_ERR(made))
		return PTR_ERR(made);
	flags = made ? made->flags : 0;
	mpol_put(made);
	return do_set_mempolicy(policy->mode, flags, &mask);
}

/*
 * The memory policy of @vma, or of @task when that is NULL: what identifies it, or NULL when there
 * is none. @nodes has room for @policy->words words.
 */
const void *checkpoint_get_mempolicy(struct vm_area_struct *vma, struct task_struct *task,
				     struct checkpoint_mempolicy *policy, u64 *nodes)
{
	struct mempolicy *found = vma ? vma_policy(vma) : task->mempolicy;
	const nodemask_t *mask;

	if (!found)
		return NULL;
	policy->mode = found->mode;
	policy->flags = found->flags & MPOL_MODE_FLAGS;
	policy->home_node = found->home_node;
	mask = policy->flags & (MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES) ?
		&found->w.user_nodemask : &found->nodes;
	/* The local policy has no nodes, not even an empty set of them. */
	if (policy->mode == MPOL_LOCAL)
		memset(nodes, 0, policy->words * sizeof(*nodes));
	else
		bitmap_to_arr64(nodes, mask->bits, min_t(u32, MAX_NUMNODES, policy->words * 64));
	return found;
}

/* Whether @node has memory that current may use. */
bool checkpoint_node_usable(u32 node)
{
	return node < MAX_NUMNODES && node_state(node, N_MEMORY) &&
	       node_isset(node, cpuset_current_mems_allowed);
}
#else
static int set_vma_policy(struct vm_area_struct *vma, const struct checkpoint_mempolicy *policy)
{
	return -EOPNOTSUPP;
}

int checkpoint_set_mempolicy(const struct checkpoint_mempolicy *policy)
{
	return policy ? -EOPNOTSUPP : 0;
}

const void *checkpoint_get_mempolicy(struct vm_area_struct *vma, struct task_struct *task,
				     struct checkpoint_mempolicy *policy, u64 *nodes)
{
	return NULL;
}

bool checkpoint_node_usable(u32 node)
{
	return node == 0;
}
#endif

static int finish(struct mm_struct *mm, const struct checkpoint_vma *map)
{
	VMA_ITERATOR(vmi, mm, map->start);
	struct vm_area_struct *vma = vma_find(&vmi, map->end);
	vm_flags_t add = map->flags & LATE_FLAGS;
	struct anon_vma_name *name;
	int err;

	if (!vma || vma->vm_start > map->start || vma->vm_end < map->end)
		return -EFAULT;
	if (vma->vm_flags & (VM_SPECIAL | VM_HUGETLB))
		add &= ~(LOCK_FLAGS | VM_MERGEABLE | VM_HUGEPAGE | VM_MAYBE_GUARD);
	if (!vma_is_anonymous(vma))
		add &= ~VM_WIPEONFORK;
	if (vma->vm_flags & (VM_SHARED | VM_MAYSHARE))
		add &= ~VM_MERGEABLE;
	err = check_late_flags(mm, add, (map->end - map->start) >> PAGE_SHIFT);
	if (err)
		return err;
	/* What looked the same until now has been merged with it. */
	if (vma->vm_start < map->start) {
		err = split_vma(&vmi, vma, map->start, 1);
		if (err)
			return err;
	}
	if (vma->vm_end > map->end) {
		err = split_vma(&vmi, vma, map->end, 0);
		if (err)
			return err;
	}
	if (map->name && (vma_is_anonymous(vma) || vma_is_anon_shmem(vma))) {
		name = new_name(map);
		if (IS_ERR(name))
			return PTR_ERR(name);
		vma_start_write(vma);
		anon_vma_name_put(vma->anon_name);
		vma->anon_name = name;
	}
	if (map->policy) {
		err = set_vma_policy(vma, map->policy);
		if (err)
			return err;
	}
	if (!(add & ~vma->vm_flags))
		return 0;
	vma_start_write(vma);
	vm_flags_set(vma, add);
	vma_set_page_prot(vma);
	return follow_flags(vma, add);
}

/*
 * Give what is mapped in current at [@map->start, @map->end) its edges, its name, its policy and
 * those of its flags that mmap(2) does not give.
 */
int checkpoint_finish_vma(const struct checkpoint_vma *map)
{
	struct mm_struct *mm = current->mm;
	int err;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	err = finish(mm, map);
	mmap_write_unlock(mm);
	return err;
}

/* The first mappings of @mm, which is locked for reading, from @addr on: at most @max; how many. */
size_t checkpoint_vmas(struct mm_struct *mm, unsigned long addr, struct vm_area_struct **vmas,
		       size_t max)
{
	VMA_ITERATOR(vmi, mm, addr);
	size_t count = 0;

	while (count < max && (vmas[count] = vma_next(&vmi)))
		count++;
	return count;
}

unsigned long checkpoint_anon_pgoff(struct vm_area_struct *vma)
{
	return vma_start_anon_pgoff(vma);
}

/* What private mappings have in common that fork(2) made of one, as an identity; or NULL. */
const void *checkpoint_anon_root(struct vm_area_struct *vma)
{
	return vma->anon_vma ? vma->anon_vma->root : NULL;
}

/* The name that a program gave to anonymous memory, or NULL. */
const char *checkpoint_anon_name(struct vm_area_struct *vma)
{
	struct anon_vma_name *name = anon_vma_name(vma);

	return name ? name->name : NULL;
}

/* Protection keys in use, and the one of mappings that can only be executed, 0 for none. */
void checkpoint_pkeys(struct mm_struct *mm, u32 *keys, u32 *execute_only)
{
	*keys = 0;
	*execute_only = 0;
#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
	if (arch_pkeys_enabled()) {
		*keys = mm_pkey_allocation_map(mm);
		*execute_only = max_t(s16, mm->context.execute_only_pkey, 0);
	}
#endif
}

/* Take and free protection keys in current until these are in use. */
int checkpoint_set_pkeys(u32 keys, u32 execute_only)
{
#ifdef CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS
	struct mm_struct *mm = current->mm;

	if (arch_pkeys_enabled()) {
		/* Every address space has key 0. */
		mm_pkey_allocation_map(mm) = (keys & GENMASK(15, 0)) | 1;
		mm->context.execute_only_pkey = execute_only ?: -1;
		return 0;
	}
#endif
	return keys & ~1 || execute_only ? -EOPNOTSUPP : 0;
}

/* mlockall(MCL_FUTURE) and MCL_ONFAULT of @mm. */
void checkpoint_lock_future(struct mm_struct *mm, bool *future, bool *onfault)
{
	*future = mm->def_flags & VM_LOCKED;
	*onfault = mm->def_flags & VM_LOCKONFAULT;
}

int checkpoint_set_lock_future(bool onfault)
{
	struct mm_struct *mm = current->mm;

	if (!can_do_mlock())
		return -EPERM;
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	mm->def_flags |= VM_LOCKED | (onfault ? VM_LOCKONFAULT : 0);
	mmap_write_unlock(mm);
	return 0;
}

