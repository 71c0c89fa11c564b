// SPDX-License-Identifier: GPL-2.0
/*
 * Guard regions, shared memory, huge pages and the vDSO, for kernel/checkpoint/: what is made of
 * macros and inline functions.
 *
 * Locks: mmap_lock, in functions that change mappings; checkpoint_mmap_lock() leaves it taken.
 */
#include <linux/buildid.h>
#include <linux/checkpoint.h>
#include <linux/elf.h>
#include <linux/falloc.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb.h>
#include <linux/leafops.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagewalk.h>
#include <linux/shmem_fs.h>

#include <asm/tlb.h>
#include <asm/vdso/vsyscall.h>

struct guard_search {
	unsigned long start;
	unsigned long end;
};

static int find_guard(pte_t *pte, unsigned long addr, unsigned long next, struct mm_walk *walk)
{
	struct guard_search *search = walk->private;
	pte_t entry = ptep_get(pte);
	bool guard = !pte_none(entry) && !pte_present(entry) && pte_is_marker(entry) &&
		     softleaf_is_guard_marker(softleaf_from_pte(entry));

	if (search->end && (!guard || search->end != addr))
		return 1;
	if (guard) {
		if (!search->end)
			search->start = addr;
		search->end = next;
	}
	return 0;
}

static const struct mm_walk_ops guard_ops = {
	.pte_entry	= find_guard,
	.walk_lock	= PGWALK_RDLOCK,
};

/*
 * Narrow [*@start, *@end) of @mm, which is locked for reading, to the first guard region in it, and
 * return whether there is one.
 */
int checkpoint_next_guard(struct mm_struct *mm, unsigned long *start, unsigned long *end)
{
	struct guard_search search = {};
	int err = walk_page_range(mm, *start, *end, &guard_ops, &search);

	if (err < 0)
		return err;
	*start = search.start;
	*end = search.end;
	return search.end != 0;
}

/* Name of a special mapping ([vdso], [vvar], ...), or NULL. */
const char *checkpoint_vma_name(struct vm_area_struct *vma)
{
	return vma->vm_ops && vma->vm_ops->name ? vma->vm_ops->name(vma) : NULL;
}

bool checkpoint_mm_flag(struct mm_struct *mm, unsigned int flag)
{
	return mm_flags_test(flag, mm);
}

/* What exec set up in the address space of current and nothing in user space depends on safely. */
int checkpoint_set_layout(struct prctl_mm_map *map, const void *auxv, size_t len,
			  unsigned long mmap_base, u32 coredump_filter, bool topdown)
{
	unsigned long words[AT_VECTOR_SIZE] = {};
	int err;

	if (len > sizeof(words) || mmap_base >= TASK_SIZE || !PAGE_ALIGNED(mmap_base))
		return -EINVAL;
	err = validate_prctl_map_addr(map);
	if (err)
		return err;

	memcpy(words, auxv, len);
	words[AT_VECTOR_SIZE - 2] = AT_NULL;
	words[AT_VECTOR_SIZE - 1] = AT_NULL;
	prctl_apply_mm_map(map, words);
	current->mm->mmap_base = mmap_base;
	if (topdown)
		mm_flags_set(MMF_TOPDOWN, current->mm);
	else
		mm_flags_clear(MMF_TOPDOWN, current->mm);
	for (unsigned int i = 0; i < MMF_DUMP_FILTER_BITS; i++) {
		if (coredump_filter & BIT(i))
			mm_flags_set(MMF_DUMP_FILTER_SHIFT + i, current->mm);
		else
			mm_flags_clear(MMF_DUMP_FILTER_SHIFT + i, current->mm);
	}
	return 0;
}

/* Build id of the 64-bit vDSO: two kernels with the same one have the same entry points. */
int checkpoint_vdso_id(u8 *id, u32 *len)
{
	const Elf64_Ehdr *ehdr = vdso64_image.data;
	const Elf64_Phdr *phdr = vdso64_image.data + ehdr->e_phoff;

	for (unsigned int i = 0; i < ehdr->e_phnum; i++) {
		if (phdr[i].p_type != PT_NOTE)
			continue;
		if (build_id_parse_buf(vdso64_image.data + phdr[i].p_offset, id,
				       phdr[i].p_filesz) == 0) {
			*len = BUILD_ID_SIZE_MAX;
			return 0;
		}
	}
	return -ENOENT;
}

/* Where the vDSO's text is when its data pages start at @start. */
unsigned long checkpoint_vdso_text(unsigned long start)
{
	return start + __VDSO_PAGES * PAGE_SIZE;
}

unsigned long checkpoint_vdso_size(void)
{
	return vdso64_image.size;
}

/* Take the protection bits @clear from [start, end) of current, which is within one mapping. */
int checkpoint_protect(unsigned long start, unsigned long end, vm_flags_t clear)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma, *prev;
	struct vma_iterator vmi;
	struct mmu_gather tlb;
	int err = -ENOMEM;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	vma_iter_init(&vmi, mm, start);
	prev = vma_prev(&vmi);
	vma = vma_next(&vmi);
	if (vma && vma->vm_start <= start && vma->vm_end >= end) {
		/* It has been merged with what is below. */
		if (start > vma->vm_start)
			prev = vma;
		tlb_gather_mmu(&tlb, mm);
		err = mprotect_fixup(&vmi, &tlb, vma, &prev, start, end, vma->vm_flags & ~clear);
		tlb_finish_mmu(&tlb);
	}
	mmap_write_unlock(mm);
	return err;
}

int checkpoint_map_vdso(unsigned long start)
{
	return map_vdso_once(&vdso64_image, start);
}

/* Copy the page at @index of the shared memory @from to @to, which is as large. */
int checkpoint_copy_shmem_page(struct file *from, struct file *to, pgoff_t index)
{
	struct page *source, *copy;

	source = checkpoint_file_page(from, index);
	if (IS_ERR(source))
		return PTR_ERR(source);
	copy = checkpoint_file_page(to, index);
	if (IS_ERR(copy)) {
		put_page(source);
		return PTR_ERR(copy);
	}
	copy_highpage(copy, source);
	set_page_dirty_lock(copy);
	put_page(copy);
	put_page(source);
	return 0;
}

/* The kernel has written to @page, which the page tables may not know. */
void checkpoint_dirty_page(struct page *page)
{
	set_page_dirty_lock(page);
}

/* As mmap(MAP_SHARED | MAP_ANONYMOUS) makes it, of @size bytes. */
struct file *checkpoint_shmem_file(const char *name, loff_t size)
{
	return shmem_kernel_file_setup(name, size, mk_vma_flags(VMA_NORESERVE_BIT));
}

/*
 * Size of the pages, as a power of two, of a @file that mmap(MAP_ANONYMOUS | MAP_HUGETLB) made; 0 for
 * another one.
 */
unsigned int checkpoint_hugetlb_shift(struct file *file)
{
	if (!is_file_hugepages(file) || !IS_ROOT(file->f_path.dentry))
		return 0;
	return huge_page_shift(hstate_file(file));
}

/* How many huge pages of this size can be had. */
u64 checkpoint_hugetlb_free(unsigned int shift)
{
	struct hstate *h = hstate_sizelog(shift);
	unsigned long free;

	if (!h || huge_page_shift(h) != shift)
		return 0;
	free = h->free_huge_pages - min(h->resv_huge_pages, h->free_huge_pages);
	if (h->nr_overcommit_huge_pages > h->surplus_huge_pages)
		free += h->nr_overcommit_huge_pages - h->surplus_huge_pages;
	return free;
}

/* As mmap(MAP_ANONYMOUS | MAP_HUGETLB) makes it, of @size bytes in pages of this size. */
struct file *checkpoint_hugetlb_file(const char *name, size_t size, unsigned int shift)
{
	struct hstate *h = hstate_sizelog(shift);

	if (!h || huge_page_shift(h) != shift)
		return ERR_PTR(-ENODEV);
	return hugetlb_file_setup(name, size, mk_vma_flags(VMA_NORESERVE_BIT),
				  HUGETLB_ANONHUGE_INODE, shift);
}

/*
 * The page at @index of the shared huge pages @file, with a reference; NULL for a hole, unless it is
 * to be filled with zeroes.
 */
struct page *checkpoint_hugetlb_page(struct file *file, pgoff_t index, bool fill)
{
	const pgoff_t first = round_down(index, pages_per_huge_page(hstate_file(file)));
	struct folio *folio;
	int err;

	if (fill) {
		err = vfs_fallocate(file, FALLOC_FL_KEEP_SIZE, (loff_t)index << PAGE_SHIFT, PAGE_SIZE);
		if (err)
			return ERR_PTR(err == -ENOSPC ? -ENOMEM : err);
	}
	folio = filemap_get_folio(file->f_mapping, first);
	if (IS_ERR(folio))
		return fill ? ERR_PTR(-ENOMEM) : NULL;
	return folio_page(folio, index - first);
}

/* How many pages the huge page at @index of @file has from there on. */
size_t checkpoint_hugetlb_left(struct file *file, pgoff_t index)
{
	const pgoff_t nr = pages_per_huge_page(hstate_file(file));

	return nr - index % nr;
}

bool checkpoint_is_internal_shmem(struct file *file)
{
	return shmem_mapping(file->f_mapping) && (file_inode(file)->i_sb->s_flags & SB_NOUSER);
}

/* Anonymous pages of @mm, those in swap included. */
unsigned long checkpoint_private_pages(struct mm_struct *mm)
{
	return get_mm_counter(mm, MM_ANONPAGES) + get_mm_counter(mm, MM_SWAPENTS);
}

/*
 * Whether the machine, and the memory cgroups that @mm belongs to, could do with @pages more pages,
 * which is what it takes to write to all memory that a snapshot shares.
 */
bool checkpoint_has_room(struct mm_struct *mm, unsigned long pages)
{
#ifdef CONFIG_MEMCG
	struct mem_cgroup *memcg = get_mem_cgroup_from_mm(mm), *at;
	bool room = true;

	for (at = memcg; at && room; at = parent_mem_cgroup(at)) {
		unsigned long max = min(READ_ONCE(at->memory.max), READ_ONCE(at->memory.high));
		unsigned long used = page_counter_read(&at->memory);
		unsigned long cache = memcg_page_state(at, NR_INACTIVE_FILE) +
				      memcg_page_state(at, NR_ACTIVE_FILE);

		room = max == PAGE_COUNTER_MAX || used + pages <= max + cache;
	}
	mem_cgroup_put(memcg);
	if (!room)
		return false;
#endif
	return si_mem_available() >= 0 && pages <= (unsigned long)si_mem_available();
}

static int change_vma(struct mm_struct *mm, unsigned long addr, vm_flags_t set, vm_flags_t clear)
{
	struct vm_area_struct *vma = vma_lookup(mm, addr);

	if (!vma)
		return -EFAULT;
	vma_start_write(vma);
	vm_flags_mod(vma, set, clear);
	return 0;
}

/* Take @flags from the mapping of @mm at @addr, in which nobody runs. */
int checkpoint_clear_vma_flags(struct mm_struct *mm, unsigned long addr, vm_flags_t flags)
{
	int err;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	err = change_vma(mm, addr, 0, flags);
	mmap_write_unlock(mm);
	return err;
}

/* Give them back, whoever is killed meanwhile. */
void checkpoint_restore_vma_flags(struct mm_struct *mm, unsigned long addr, vm_flags_t flags)
{
	mmap_write_lock(mm);
	change_vma(mm, addr, flags, 0);
	mmap_write_unlock(mm);
}

int checkpoint_mmap_lock(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}
