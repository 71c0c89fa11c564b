// SPDX-License-Identifier: GPL-2.0
/*
 * Donation, for kernel/checkpoint/: pages of tasks that are about to be killed become pages of their
 * image, where that is a file in tmpfs.
 *
 * Locks: inode lock of the file -> mmap_lock -> page table locks; inode lock -> lock of a page.
 */
#include <linux/checkpoint.h>
#include <linux/futex.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>

#include <asm/tlbflush.h>

/* For what shmem keeps to mm/. */
#include "../../mm/internal.h"

/* Whether @page can be given away: one address space has it, and nothing else. */
bool checkpoint_may_donate(struct page *page)
{
	struct folio *folio = page_folio(page);

	return !folio_test_large(folio) && folio_test_anon(folio) && !folio_test_ksm(folio) &&
	       PageAnonExclusive(page) && folio_mapcount(folio) == 1 &&
	       !folio_test_swapcache(folio) && !folio_test_mlocked(folio);
}

/*
 * The address space of @task, to be compared only, if its death is to be seen by others: the kernel
 * then goes through the robust futexes that it has, by a list in its memory.
 */
const void *checkpoint_robust_mm(struct task_struct *task)
{
	struct robust_list_head __user *list = task->futex.robust_list;
	struct mm_struct *mm = list ? get_task_mm(task) : NULL;
	struct robust_list_head head;
	int got;

	if (!mm)
		return NULL;
	got = access_remote_vm(mm, (unsigned long)list, &head, sizeof(head), FOLL_FORCE);
	mmput(mm);
	if (got == sizeof(head) && head.list.next == &list->list && !head.list_op_pending)
		return NULL;
	return mm;
}

/* Take the pages out of the address space, as far as they are there still. */
static void unmap(const struct checkpoint_donation *donation)
{
	const unsigned long end = donation->addr + donation->nr * PAGE_SIZE;
	struct page **page = donation->pages;
	unsigned long addr = donation->addr;
	struct mm_struct *mm = donation->mm;
	struct mmu_notifier_range range;

	mmap_read_lock(mm);
	mmu_notifier_range_init(&range, MMU_NOTIFY_CLEAR, 0, mm, addr, end);
	mmu_notifier_invalidate_range_start(&range);
	while (addr < end) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);
		unsigned long next = pmd_addr_end(addr, vma ? min(vma->vm_end, end) : end);
		pmd_t *pmd = vma ? mm_find_pmd(mm, addr) : NULL;
		pte_t *start_pte = NULL, *pte;
		spinlock_t *ptl;

		if (pmd)
			start_pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
		if (!start_pte) {
			page += (next - addr) >> PAGE_SHIFT;
			addr = next;
			continue;
		}
		for (pte = start_pte; addr < next; pte++, page++, addr += PAGE_SIZE) {
			struct folio *folio = page_folio(*page);
			pte_t entry = ptep_get(pte);

			if (!pte_present(entry) || pte_pfn(entry) != page_to_pfn(*page) ||
			    !checkpoint_may_donate(*page))
				continue;
			ptep_get_and_clear(mm, addr, pte);
			folio_remove_rmap_pte(folio, *page, vma);
			dec_mm_counter(mm, MM_ANONPAGES);
			/* That of the mapping; ours is left. */
			folio_put(folio);
		}
		pte_unmap_unlock(start_pte, ptl);
	}
	/* Before others see the pages. */
	flush_tlb_mm(mm);
	mmu_notifier_invalidate_range_end(&range);
	mmap_read_unlock(mm);
}

static struct folio *copy_of(struct page *page)
{
	struct folio *folio = folio_alloc(GFP_HIGHUSER | __GFP_NOFAIL, 0);

	mem_cgroup_charge(folio, NULL, GFP_KERNEL | __GFP_NOFAIL);
	copy_highpage(folio_page(folio, 0), page);
	__folio_set_locked(folio);
	__folio_set_swapbacked(folio);
	__folio_mark_uptodate(folio);
	return folio;
}

/*
 * The folio of @page if it is the caller's alone, or a copy, should reclaim or somebody who reads
 * the memory of another have it, too. It is locked and belongs to nothing.
 */
static struct folio *take(struct page *page, bool *copied)
{
	struct folio *folio = page_folio(page);

	folio_lock(folio);
	*copied = folio_mapped(folio) || folio_test_large(folio) || !folio_test_anon(folio) ||
		  folio_test_ksm(folio) || folio_test_swapcache(folio) ||
		  folio_test_writeback(folio) || !folio_ref_freeze(folio, 1);
	if (!*copied) {
		ClearPageAnonExclusive(page);
		folio->mapping = NULL;
		folio_ref_unfreeze(folio, 1);
		return folio;
	}
	folio_unlock(folio);
	folio = copy_of(page);
	put_page(page);
	return folio;
}

/* Write @page at @index, where somebody has made the file have a page meanwhile. */
static int overwrite(struct inode *inode, pgoff_t index, struct page *page)
{
	struct folio *folio;
	int err;

	err = shmem_get_folio(inode, index, 0, &folio, SGP_CACHE);
	if (err)
		return err;
	copy_highpage(folio_file_page(folio, index), page);
	folio_mark_dirty(folio);
	folio_unlock(folio);
	folio_put(folio);
	return 0;
}

/* Make @page, a reference to which is given away, that of the file at @index. */
static int give(struct inode *inode, pgoff_t index, struct page *page)
{
	bool copied;
	struct folio *folio = take(page, &copied);
	int err;

	err = shmem_add_to_page_cache(folio, inode->i_mapping, index, NULL,
				      GFP_KERNEL | __GFP_NOFAIL);
	if (!err) {
		folio_mark_dirty(folio);
		if (copied)
			folio_add_lru(folio);
	}
	folio_unlock(folio);
	if (err)
		err = overwrite(inode, index, folio_page(folio, 0));
	folio_put(folio);
	return err;
}

/**
 * checkpoint_donate_begin - make room for pages in an image, and keep others from writing to it
 * @file:	the image, which checkpoint_takes_pages() was true of
 * @pages:	how many will come, all of them within what has been written
 *
 * Return: 0, and checkpoint_donate_end() is to be called; -ENOSPC, -EDQUOT; -EPERM when the file was
 * sealed, -EIO when it was cut back.
 */
int checkpoint_donate_begin(struct file *file, unsigned long pages)
{
	struct inode *inode = file_inode(file);
	int err = 0;

	/* Pages that were made lately are in a batch, which has a reference. */
	lru_add_drain_all();
	inode_lock(inode);
	if (SHMEM_I(inode)->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_GROW))
		err = -EPERM;
	else if (i_size_read(inode) < file->f_pos)
		err = -EIO;
	else
		err = shmem_inode_acct_blocks(inode, pages);
	if (err)
		inode_unlock(inode);
	return err;
}

/**
 * checkpoint_donate - move pages from an address space into an image
 * @file:	the image
 * @donation:	the pages, a reference to each of which is given away
 *
 * What cannot be moved is copied, without fail. Whoever had the pages has them no more, and is to be
 * killed.
 *
 * Return: 0, or an error when somebody else has made the file have pages there, and those cannot be
 * read back from swap.
 */
int checkpoint_donate(struct file *file, const struct checkpoint_donation *donation)
{
	struct inode *inode = file_inode(file);
	int ret = 0;

	unmap(donation);
	for (unsigned int i = 0; i < donation->nr; i++) {
		int err = give(inode, donation->index + i, donation->pages[i]);

		ret = ret ?: err;
		cond_resched();
	}
	return ret;
}

/* End what checkpoint_donate_begin() has begun; @pages as there. */
void checkpoint_donate_end(struct file *file, unsigned long pages)
{
	struct inode *inode = file_inode(file);

	shmem_recalc_inode(inode, pages, 0);
	inode_unlock(inode);
}
