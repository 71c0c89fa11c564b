// SPDX-License-Identifier: GPL-2.0
/*
 * Page tables and the vDSO, for kernel/checkpoint/: what is made of macros and inline functions.
 */
#include <linux/buildid.h>
#include <linux/checkpoint.h>
#include <linux/elf.h>
#include <linux/huge_mm.h>
#include <linux/leafops.h>
#include <linux/mempolicy.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagewalk.h>
#include <linux/shmem_fs.h>

#include <asm/tlb.h>
#include <asm/vdso/vsyscall.h>

static int found_page(struct checkpoint_pages *found, struct page *page, unsigned long addr)
{
	if (found->count == found->max) {
		found->next = addr;
		return 1;
	}
	get_page(page);
	found->pages[found->count] = page;
	found->addrs[found->count++] = addr;
	found->next = addr + PAGE_SIZE;
	return 0;
}

/* Whether @page belongs into the image: pages of the file behind a private mapping do not. */
static bool has_contents(struct vm_area_struct *vma, struct page *page)
{
	return vma_is_anonymous(vma) || PageAnon(page);
}

static int collect_pmd(pmd_t *pmd, unsigned long addr, unsigned long end, struct mm_walk *walk)
{
	struct checkpoint_pages *found = walk->private;
	struct vm_area_struct *vma = walk->vma;
	pte_t *start_pte, *pte;
	struct page *page;
	spinlock_t *ptl;
	int ret = 0;

	ptl = pmd_trans_huge_lock(pmd, vma);
	if (ptl) {
		if (pmd_present(*pmd)) {
			page = vm_normal_page_pmd(vma, addr & HPAGE_PMD_MASK, *pmd);
			if (page && has_contents(vma, page)) {
				page += (addr & ~HPAGE_PMD_MASK) >> PAGE_SHIFT;
				for (; addr != end && !ret; addr += PAGE_SIZE, page++)
					ret = found_page(found, page, addr);
			}
		} else {
			found->fault = addr;
			ret = 1;
		}
		spin_unlock(ptl);
		return ret;
	}

	start_pte = pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!pte) {
		walk->action = ACTION_AGAIN;
		return 0;
	}
	for (; addr != end && !ret; pte++, addr += PAGE_SIZE) {
		pte_t entry = ptep_get(pte);

		if (pte_none(entry))
			continue;
		if (pte_present(entry)) {
			/* NULL for the zero page, which stays a hole. */
			page = vm_normal_page(vma, addr, entry);
			if (page && has_contents(vma, page))
				ret = found_page(found, page, addr);
			continue;
		}
		if (pte_is_marker(entry)) {
			if (softleaf_is_guard_marker(softleaf_from_pte(entry))) {
				found->guard = addr;
				ret = 1;
			}
			continue;
		}
		found->fault = addr;
		ret = 1;
	}
	pte_unmap_unlock(start_pte, ptl);
	cond_resched();
	return ret;
}

static const struct mm_walk_ops collect_ops = {
	.pmd_entry	= collect_pmd,
	.walk_lock	= PGWALK_RDLOCK,
};

/**
 * checkpoint_collect_pages - the pages in [start, end) whose contents belong into an image
 * @mm:		address space, locked for reading
 * @start:	page aligned, within one VMA as @end is
 * @end:	page aligned
 * @found:	gets at most @found->max pages; what it holds already is kept
 *
 * Return: 0 when the range is done, 1 when @found is full or a page has to be looked at
 * (@found->fault, @found->guard), or an error.
 */
int checkpoint_collect_pages(struct mm_struct *mm, unsigned long start, unsigned long end,
			     struct checkpoint_pages *found)
{
	found->fault = 0;
	found->guard = 0;
	return walk_page_range(mm, start, end, &collect_ops, found);
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

/* Take @page down by the reference that checkpoint_collect_pages() or a page fault took. */
void checkpoint_put_page(struct page *page)
{
	put_page(page);
}

/* The contents of @page: on x86-64 all memory is mapped. */
void *checkpoint_page_address(struct page *page)
{
	return page_address(page);
}

/* The page at @index of the shared memory @file, with a reference; a hole is filled with zeroes. */
struct page *checkpoint_shmem_page(struct file *file, pgoff_t index)
{
	return shmem_read_mapping_page(file->f_mapping, index);
}

/* The kernel has written to @page, which the page tables may not know. */
void checkpoint_dirty_page(struct page *page)
{
	set_page_dirty_lock(page);
}

/* State of a mapping that has no flag in vm_flags: its name in a refusal, or NULL. */
const char *checkpoint_vma_blocker(struct vm_area_struct *vma)
{
	if (anon_vma_name(vma))
		return "name of anonymous memory";
	if (vma_policy(vma))
		return "memory policy";
	return NULL;
}

/* As mmap(MAP_SHARED | MAP_ANONYMOUS) makes it, of @size bytes. */
struct file *checkpoint_shmem_file(const char *name, loff_t size)
{
	return shmem_kernel_file_setup(name, size, mk_vma_flags(VMA_NORESERVE_BIT));
}

bool checkpoint_is_internal_shmem(struct file *file)
{
	return shmem_mapping(file->f_mapping) && (file_inode(file)->i_sb->s_flags & SB_NOUSER);
}

int checkpoint_mmap_lock(struct mm_struct *mm)
{
	return mmap_read_lock_killable(mm);
}
