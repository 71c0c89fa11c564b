// SPDX-License-Identifier: GPL-2.0
/*
 * Pages and page tables, for kernel/checkpoint/: which pages a mapping has, new pages for a
 * mapping, and pages that several address spaces have in common.
 *
 * Locks: mmap_lock, of two address spaces in the order source, destination -> page table locks.
 */
#include <linux/checkpoint.h>
#include <linux/huge_mm.h>
#include <linux/hugetlb.h>
#include <linux/khugepaged.h>
#include <linux/leafops.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/xarray.h>

#include <asm/pgalloc.h>
#include <asm/tlbflush.h>

/* For populate_vma_page_range(), which mm/ keeps to itself. */
#include "../../mm/internal.h"

/* Whether a mapping has contents that belong into the image of its address space. */
static bool has_private_contents(struct vm_area_struct *vma)
{
	/* What the kernel maps, as the vdso, is special; huge pages are so in another way. */
	return !(vma->vm_flags & (VM_MAYSHARE | VM_DROPPABLE)) &&
	       (is_vm_hugetlb_page(vma) || !(vma->vm_flags & VM_SPECIAL));
}

/* Add [@page, @page + @nr) at @addr to @found, which has room for them. */
static void add_run(struct checkpoint_runs *found, struct folio *folio, struct page *page,
		    unsigned int nr, unsigned long addr, bool shared)
{
	struct checkpoint_run *run = &found->runs[found->count];

	found->pages += nr;
	found->next = addr + nr * PAGE_SIZE;
	if (found->count) {
		struct checkpoint_run *last = run - 1;

		if (last->page + last->nr == page && last->shared == shared &&
		    last->addr + last->nr * PAGE_SIZE == addr && page_folio(last->page) == folio) {
			last->nr += nr;
			return;
		}
	}
	folio_get(folio);
	run->page = page;
	run->addr = addr;
	run->nr = nr;
	run->shared = shared;
	found->count++;
}

/* How many mappings there are of a @page of @folio, which may be more than it says. */
static int mappings(struct folio *folio, struct page *page)
{
	if (!folio_test_large(folio))
		return folio_mapcount(folio);
	if (!IS_ENABLED(CONFIG_PAGE_MAPCOUNT))
		return INT_MAX;
	return atomic_read(&page->_mapcount) + 1 + folio_entire_mapcount(folio);
}

static bool is_shared(struct checkpoint_runs *found, struct folio *folio, struct page *page)
{
	return mappings(folio, page) > found->own_mappings && !folio_test_ksm(folio);
}

static int collect_huge(pmd_t pmd, unsigned long addr, unsigned long end,
			struct vm_area_struct *vma, struct checkpoint_runs *found)
{
	unsigned int nr = (end - addr) >> PAGE_SHIFT;
	struct folio *folio;
	struct page *page;

	if (!pmd_present(pmd)) {
		found->fault = addr;
		return 1;
	}
	page = vm_normal_page_pmd(vma, addr & HPAGE_PMD_MASK, pmd);
	if (!page || !PageAnon(page))
		return 0;
	folio = page_folio(page);
	page += (addr & ~HPAGE_PMD_MASK) >> PAGE_SHIFT;
	nr = min(nr, found->max - found->pages);
	if (nr)
		add_run(found, folio, page, nr, addr, is_shared(found, folio, page));
	return addr + nr * PAGE_SIZE != end;
}

static int collect_pmd(pmd_t *pmd, unsigned long addr, unsigned long end, struct mm_walk *walk)
{
	struct checkpoint_runs *found = walk->private;
	struct vm_area_struct *vma = walk->vma;
	pte_t *start_pte, *pte;
	struct folio *folio;
	struct page *page;
	spinlock_t *ptl;
	int ret = 0;

	found->next = addr;
	ptl = pmd_trans_huge_lock(pmd, vma);
	if (ptl) {
		ret = collect_huge(*pmd, addr, end, vma, found);
		spin_unlock(ptl);
		return ret;
	}

	start_pte = pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!pte) {
		walk->action = ACTION_AGAIN;
		return 0;
	}
	for (; addr != end; pte++, addr += PAGE_SIZE) {
		pte_t entry = ptep_get(pte);

		if (pte_none(entry))
			continue;
		if (pte_present(entry)) {
			/* NULL for the zero page, which stays a hole. */
			page = vm_normal_page(vma, addr, entry);
			/* Pages of the file behind a private mapping are not its own. */
			if (!page || !PageAnon(page))
				continue;
			found->next = addr;
			ret = 1;
			if (found->pages == found->max)
				break;
			ret = 0;
			folio = page_folio(page);
			add_run(found, folio, page, 1, addr, is_shared(found, folio, page));
			continue;
		}
		if (pte_is_marker(entry)) {
			if (!softleaf_is_poison_marker(softleaf_from_pte(entry)))
				continue;
			found->poison = addr;
		} else {
			found->fault = addr;
		}
		ret = 1;
		break;
	}
	pte_unmap_unlock(start_pte, ptl);
	cond_resched();
	return ret;
}

#ifdef CONFIG_HUGETLB_PAGE
static int collect_hugetlb(pte_t *pte, unsigned long hmask, unsigned long addr, unsigned long next,
			   struct mm_walk *walk)
{
	struct checkpoint_runs *found = walk->private;
	unsigned int nr = (next - addr) >> PAGE_SHIFT;
	struct folio *folio;
	struct page *page;
	spinlock_t *ptl;
	pte_t entry;
	int ret = 0;

	found->next = addr;
	ptl = huge_pte_lock(hstate_vma(walk->vma), walk->mm, pte);
	entry = huge_ptep_get(walk->mm, addr, pte);
	if (pte_present(entry)) {
		page = pte_page(entry);
		if (PageAnon(page)) {
			folio = page_folio(page);
			page += (addr & ~hmask) >> PAGE_SHIFT;
			nr = min(nr, found->max - found->pages);
			if (nr)
				add_run(found, folio, page, nr, addr, false);
			ret = addr + nr * PAGE_SIZE != next;
		}
	} else if (!huge_pte_none(entry)) {
		found->fault = addr;
		ret = 1;
	}
	spin_unlock(ptl);
	cond_resched();
	return ret;
}
#endif

static const struct mm_walk_ops collect_ops = {
	.pmd_entry	= collect_pmd,
#ifdef CONFIG_HUGETLB_PAGE
	.hugetlb_entry	= collect_hugetlb,
#endif
	.walk_lock	= PGWALK_RDLOCK,
};

/**
 * checkpoint_collect_pages - the private pages in [start, end) whose contents belong into an image
 * @mm:		address space, locked for reading
 * @start:	page aligned
 * @end:	page aligned
 * @found:	gets runs of at most @found->max pages; what it holds already is kept
 *
 * Return: 0 when the range is done, 1 when @found is full (go on at @found->next) or a page has to
 * be looked at (@found->fault, @found->poison), or an error.
 */
int checkpoint_collect_pages(struct mm_struct *mm, unsigned long start, unsigned long end,
			     struct checkpoint_runs *found)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	int ret;

	found->fault = 0;
	found->poison = 0;
	found->next = start;
	for_each_vma_range(vmi, vma, end) {
		/* Without an anon_vma it has no page of its own, and never had one. */
		if (!vma->anon_vma || !has_private_contents(vma))
			continue;
		ret = walk_page_range_vma(vma, max(start, vma->vm_start), min(end, vma->vm_end),
					  &collect_ops, found);
		if (ret)
			return ret;
	}
	return 0;
}

struct same_walk {
	struct page *page;
	unsigned int nr;
};

static int same_pmd(pmd_t *pmd, unsigned long addr, unsigned long end, struct mm_walk *walk)
{
	struct same_walk *same = walk->private;
	pte_t *start_pte, *pte;
	spinlock_t *ptl;
	int ret = 0;

	ptl = pmd_trans_huge_lock(pmd, walk->vma);
	if (ptl) {
		if (pmd_present(*pmd) && pmd_page(*pmd) +
		    ((addr & ~HPAGE_PMD_MASK) >> PAGE_SHIFT) == same->page + same->nr)
			same->nr += (end - addr) >> PAGE_SHIFT;
		else
			ret = 1;
		spin_unlock(ptl);
		return ret;
	}
	start_pte = pte = pte_offset_map_lock(walk->mm, pmd, addr, &ptl);
	if (!pte)
		return 1;
	for (; addr != end && !ret; pte++, addr += PAGE_SIZE) {
		pte_t entry = ptep_get(pte);

		if (pte_present(entry) &&
		    vm_normal_page(walk->vma, addr, entry) == same->page + same->nr)
			same->nr++;
		else
			ret = 1;
	}
	pte_unmap_unlock(start_pte, ptl);
	return ret;
}

static const struct mm_walk_ops same_ops = {
	.pmd_entry	= same_pmd,
	.walk_lock	= PGWALK_RDLOCK,
};

/* How many of the @nr pages from @page on, which the caller has a reference to, @mm has at @addr. */
unsigned int checkpoint_same_pages(struct mm_struct *mm, unsigned long addr, struct page *page,
				   unsigned int nr)
{
	struct same_walk same = { .page = page };

	if (mmap_read_lock_killable(mm))
		return 0;
	walk_page_range(mm, addr, addr + nr * PAGE_SIZE, &same_ops, &same);
	mmap_read_unlock(mm);
	return same.nr;
}

/**
 * checkpoint_page_seen - where a run of pages was seen first
 * @seen:	numbers by page frame
 * @page:	first page of the run
 * @nr:		number of pages in it
 * @number:	what to remember for the first page; for the others it counts on
 * @before:	gets what was remembered for the first page, or 0 if it is new
 *
 * Return: how many pages from the first on are new, and remembered now, or were seen one after the
 * other; or an error.
 */
int checkpoint_page_seen(struct xarray *seen, struct page *page, unsigned int nr, u64 number,
			 u64 *before)
{
	unsigned long pfn = page_to_pfn(page);
	unsigned int i;

	*before = 0;
	for (i = 0; i < nr; i++) {
		void *entry = xa_load(seen, pfn + i);

		if (i == 0 && entry)
			*before = xa_to_value(entry);
		if (*before) {
			if (!entry || xa_to_value(entry) != *before + i)
				break;
			continue;
		}
		if (entry)
			break;
		entry = xa_store(seen, pfn + i, xa_mk_value(number + i), GFP_KERNEL_ACCOUNT);
		if (xa_is_err(entry))
			return xa_err(entry);
	}
	return i;
}

/* Remember @number for the @nr pages from @page on, whatever was remembered. */
int checkpoint_page_replace(struct xarray *seen, struct page *page, unsigned int nr, u64 number)
{
	unsigned long pfn = page_to_pfn(page);

	for (unsigned int i = 0; i < nr; i++) {
		void *entry = xa_store(seen, pfn + i, xa_mk_value(number + i), GFP_KERNEL_ACCOUNT);

		if (xa_is_err(entry))
			return xa_err(entry);
	}
	return 0;
}

void checkpoint_seen_init(struct xarray *seen)
{
	xa_init_flags(seen, XA_FLAGS_ACCOUNT);
}

void checkpoint_seen_destroy(struct xarray *seen)
{
	xa_destroy(seen);
}

/* Give up a reference to @page. */
void checkpoint_put_page(struct page *page)
{
	put_page(page);
}

/* Take another reference to @page. */
void checkpoint_get_page(struct page *page)
{
	get_page(page);
}

/* The contents of @page: on x86-64 all memory is mapped. */
void *checkpoint_page_address(struct page *page)
{
	return page_address(page);
}

/* The orders of larger folios that settings allow for up to @max pages of @vma. */
static unsigned long large_orders(struct vm_area_struct *vma, unsigned int max)
{
	if (max == 1 || !vma_is_anonymous(vma))
		return 0;
	return thp_vma_allowable_orders(vma, vma->vm_flags, TVA_PAGEFAULT,
					BIT(min_t(unsigned int, ilog2(max), PMD_ORDER) + 1) - 1);
}

/* The largest folio for @vma at @addr of one of @orders, or a small one; not zeroed. */
static struct folio *new_folio(struct vm_area_struct *vma, unsigned long addr,
			       unsigned long orders)
{
	struct mm_struct *mm = vma->vm_mm;
	struct folio *folio;
	gfp_t gfp;

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
	if (orders) {
		int order;

		/* There are no such folios of order 1. */
		orders = thp_vma_suitable_orders(vma, addr, orders);
		gfp = vma_thp_gfp_mask(vma);
		for (; orders; orders &= ~BIT(order)) {
			order = highest_order(orders);
			if (!IS_ALIGNED(addr, PAGE_SIZE << order))
				continue;
			folio = vma_alloc_folio(gfp, order, vma, addr);
			if (!folio)
				continue;
			if (mem_cgroup_charge(folio, mm, gfp) ||
			    (order > 1 && folio_memcg_alloc_deferred(folio))) {
				folio_put(folio);
				continue;
			}
			return folio;
		}
	}
#endif
	gfp = GFP_HIGHUSER_MOVABLE;
	folio = vma_alloc_folio(gfp, 0, vma, addr);
	if (folio && mem_cgroup_charge(folio, mm, gfp)) {
		folio_put(folio);
		folio = NULL;
	}
	return folio;
}

/* The huge page of @vma at @addr, made present and writable for the kernel, with a reference. */
static int get_hugetlb(struct vm_area_struct *vma, unsigned long addr, struct page **page)
{
	long got = get_user_pages_remote(vma->vm_mm, addr, 1, FOLL_FORCE | FOLL_WRITE, page, NULL);

	/* It says EFAULT when there is no huge page left. */
	return got == 1 ? 0 : got == -EFAULT ? -ENOMEM : got ?: -ENOMEM;
}

/*
 * Keep khugepaged from @mm, which nobody runs in: it would fill what has no pages yet. It looks at
 * the flag under mmap_lock.
 *
 * Return: whether @mm may have huge pages, so that checkpoint_end_fill() is to be called; -EINTR.
 */
int checkpoint_begin_fill(struct mm_struct *mm)
{
	bool huge;

	if (mmap_write_lock_killable(mm))
		return -EINTR;
	huge = !mm_flags_test_and_set(MMF_DISABLE_THP_COMPLETELY, mm);
	mmap_write_unlock(mm);
	return huge;
}

void checkpoint_end_fill(struct mm_struct *mm)
{
	mm_flags_clear(MMF_DISABLE_THP_COMPLETELY, mm);
}

static void add_new_run(struct checkpoint_runs *runs, struct page *page, unsigned long addr,
		    unsigned int nr)
{
	runs->runs[runs->count++] = (struct checkpoint_run) {
		.page = page,
		.addr = addr,
		.nr = nr,
	};
	runs->pages += nr;
}

/* Add up to @max small folios for @vma at @addr, many at a time, if they may come from anywhere. */
static unsigned int add_small(struct vm_area_struct *vma, unsigned long addr, unsigned int max,
			      struct checkpoint_runs *runs)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE;
	struct page *pages[32] = {};
	unsigned int done, nr;

	if (!vma_is_anonymous(vma) || vma_policy(vma))
		return 0;
	nr = alloc_pages_bulk_mempolicy(gfp, min(max, ARRAY_SIZE(pages)), pages);
	for (done = 0; done < nr; done++) {
		if (mem_cgroup_charge(page_folio(pages[done]), vma->vm_mm, gfp))
			break;
		add_new_run(runs, pages[done], addr + done * PAGE_SIZE, 1);
	}
	for (unsigned int i = done; i < nr; i++)
		put_page(pages[i]);
	return done;
}

/* Add some of the next @max pages of @vma from @addr on; returns how many. */
static int add_new(struct vm_area_struct *vma, unsigned long addr, unsigned int max,
		   struct checkpoint_runs *runs)
{
	unsigned long orders;
	struct folio *folio;
	struct page *page;
	unsigned int nr;
	int err;

	if (is_vm_hugetlb_page(vma)) {
		err = get_hugetlb(vma, addr, &page);
		if (err)
			return err;
		folio = page_folio(page);
		nr = min_t(unsigned long, max, folio_nr_pages(folio) - folio_page_idx(folio, page));
		add_new_run(runs, page, addr, nr);
		return nr;
	}
	orders = large_orders(vma, max);
	nr = orders ? 0 : add_small(vma, addr, max, runs);
	if (nr)
		return nr;
	folio = new_folio(vma, addr, orders);
	if (!folio)
		return -ENOMEM;
	nr = folio_nr_pages(folio);
	add_new_run(runs, folio_page(folio, 0), addr, nr);
	return nr;
}

/**
 * checkpoint_new_pages - pages for a range of private memory, to be filled and then mapped
 * @mm:		address space
 * @huge:	what checkpoint_begin_fill() has returned
 * @addr:	page aligned
 * @pages:	length of the range
 * @runs:	gets them, one folio a run; has room for one a page
 *
 * Huge pages of hugetlb are mapped at once, as nobody looks at them before all is verified.
 *
 * Return: 0, -EFAULT where no private memory is mapped, -ENOMEM, -EINTR. What has been added to
 * @runs is the caller's in any case.
 */
int checkpoint_new_pages(struct mm_struct *mm, bool huge, unsigned long addr, unsigned int pages,
			 struct checkpoint_runs *runs)
{
	struct vm_area_struct *vma = NULL;
	int err = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	/* Whom the flag is to keep away needs the lock for writing, and looks at it then. */
	if (huge)
		mm_flags_clear(MMF_DISABLE_THP_COMPLETELY, mm);
	while (pages) {
		int nr;

		if (!vma || addr >= vma->vm_end)
			vma = vma_lookup(mm, addr);
		if (!vma || !has_private_contents(vma)) {
			err = -EFAULT;
			break;
		}
		nr = add_new(vma, addr, min(pages, (vma->vm_end - addr) >> PAGE_SHIFT), runs);
		if (nr < 0) {
			err = nr;
			break;
		}
		addr += nr * PAGE_SIZE;
		pages -= nr;
	}
	if (huge)
		mm_flags_set(MMF_DISABLE_THP_COMPLETELY, mm);
	mmap_read_unlock(mm);
	return err;
}

static pmd_t *make_pmd(struct mm_struct *mm, unsigned long addr)
{
	p4d_t *p4d = p4d_alloc(mm, pgd_offset(mm, addr), addr);
	pud_t *pud = p4d ? pud_alloc(mm, p4d, addr) : NULL;

	return pud ? pmd_alloc(mm, pud, addr) : NULL;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
static int map_huge(struct vm_area_struct *vma, pmd_t *pmd, struct checkpoint_run *run)
{
	struct mm_struct *mm = vma->vm_mm;
	pgtable_t pgtable = pte_alloc_one(mm);
	spinlock_t *ptl;

	if (!pgtable)
		return -ENOMEM;
	ptl = pmd_lock(mm, pmd);
	if (!pmd_none(*pmd)) {
		spin_unlock(ptl);
		pte_free(mm, pgtable);
		return -EEXIST;
	}
	pgtable_trans_huge_deposit(mm, pmd, pgtable);
	map_anon_folio_pmd_nopf(page_folio(run->page), pmd, vma, run->addr);
	add_mm_counter(mm, MM_ANONPAGES, HPAGE_PMD_NR);
	mm_inc_nr_ptes(mm);
	spin_unlock(ptl);
	run->page = NULL;
	return 0;
}
#else
static int map_huge(struct vm_area_struct *vma, pmd_t *pmd, struct checkpoint_run *run)
{
	return -EINVAL;
}
#endif

static bool all_none(pte_t *pte, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++) {
		if (!pte_none(ptep_get(pte + i)))
			return false;
	}
	return true;
}

/* Map runs from @run on that lie in @vma and in one page table; return how many, or an error. */
static int map_some(struct vm_area_struct *vma, struct checkpoint_run *run, unsigned int count)
{
	const unsigned long end = min(pmd_addr_end(run->addr, vma->vm_end), vma->vm_end);
	const unsigned long start = run->addr & PMD_MASK;
	struct mm_struct *mm = vma->vm_mm;
	unsigned int done = 0, pages = 0;
	pmd_t *pmd = make_pmd(mm, run->addr);
	pte_t *start_pte, *pte;
	spinlock_t *ptl;
	int err = 0;

	if (!pmd)
		return -ENOMEM;
	if (run->nr == HPAGE_PMD_NR)
		return map_huge(vma, pmd, run) ?: 1;
	if (pte_alloc(mm, pmd))
		return -ENOMEM;
	start_pte = pte_offset_map_lock(mm, pmd, start, &ptl);
	if (!start_pte)
		return -EEXIST;
	for (; done < count && run->addr < end && run->addr >= start; run++, done++) {
		pte = start_pte + pte_index(run->addr);
		err = -EEXIST;
		if (!all_none(pte, run->nr))
			break;
		err = 0;
		/* Takes over the reference. */
		map_anon_folio_pte_nopf(page_folio(run->page), pte, vma, run->addr, false);
		pages += run->nr;
		run->page = NULL;
	}
	add_mm_counter(mm, MM_ANONPAGES, pages);
	pte_unmap_unlock(start_pte, ptl);
	return err ?: done;
}

/**
 * checkpoint_map_pages - map what checkpoint_new_pages() made, filled meanwhile
 * @mm:		address space, in which nobody runs
 * @runs:	loses the pages that are mapped
 *
 * Return: 0, -EEXIST where something is mapped already, -EFAULT, -ENOMEM, -EINTR.
 */
int checkpoint_map_pages(struct mm_struct *mm, struct checkpoint_runs *runs)
{
	struct vm_area_struct *vma = NULL;
	unsigned int at = 0;
	int ret = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	/* What was written to the pages is seen before they are. */
	for (unsigned int i = 0; i < runs->count; i++) {
		struct folio *folio = page_folio(runs->runs[i].page);

		if (folio_test_hugetlb(folio))
			folio_mark_dirty(folio);
		else
			__folio_mark_uptodate(folio);
	}
	while (at < runs->count) {
		struct checkpoint_run *run = &runs->runs[at];

		if (!vma || run->addr >= vma->vm_end || run->addr < vma->vm_start) {
			vma = vma_lookup(mm, run->addr);
			ret = -EFAULT;
			if (!vma || !has_private_contents(vma))
				break;
			ret = -ENOMEM;
			if (anon_vma_prepare(vma))
				break;
			khugepaged_enter_vma(vma, vma->vm_flags);
		}
		ret = -EFAULT;
		if (run->addr + run->nr * PAGE_SIZE > vma->vm_end)
			break;
		/* It is mapped already. */
		if (is_vm_hugetlb_page(vma)) {
			at++;
			ret = 0;
			continue;
		}
		ret = map_some(vma, run, runs->count - at);
		if (ret < 0)
			break;
		at += ret;
		ret = 0;
		cond_resched();
	}
	mmap_read_unlock(mm);
	return ret;
}

/* Relate @vma to @root, unless it is that itself. Nobody has a page yet. */
static int relate(struct vm_area_struct *vma, struct vm_area_struct *root)
{
	if (!vma || !has_private_contents(vma))
		return -EFAULT;
	if (vma == root)
		return 0;
	/* A guard region has brought one, or that it was moved. */
	if (vma->anon_vma)
		unlink_anon_vmas(vma);
	return anon_vma_join(vma, root);
}

/**
 * checkpoint_relate - relate private mappings to one that was made before, as they once were
 * @root_mm:	address space of that one
 * @root_addr:	address of that one
 * @mm:		address space of the others, which may be the same
 * @addrs:	their addresses
 * @count:	number of entries
 *
 * In another address space they are as fork(2) would have made them, in the same one as if they had
 * been split. Nobody has a page yet.
 */
int checkpoint_relate(struct mm_struct *root_mm, unsigned long root_addr, struct mm_struct *mm,
		      const unsigned long *addrs, unsigned int count)
{
	struct vm_area_struct *root;
	int err = -EFAULT;

	if (mmap_write_lock_killable(root_mm))
		return -EINTR;
	if (mm != root_mm)
		mmap_write_lock_nested(mm, SINGLE_DEPTH_NESTING);
	root = vma_lookup(root_mm, root_addr);
	if (root && has_private_contents(root))
		err = anon_vma_prepare(root);
	for (unsigned int i = 0; i < count && !err; i++)
		err = relate(vma_lookup(mm, addrs[i]), root);
	if (mm != root_mm)
		mmap_write_unlock(mm);
	mmap_write_unlock(root_mm);
	return err;
}

/* Pages that are mapped at one place and are to be mapped at another one too. */
struct sharing {
	struct vm_area_struct *from;
	struct vm_area_struct *to;
	unsigned long from_addr;
	unsigned long to_addr;
	unsigned int nr;
};

/* How many pages are looked at under one lock. */
#define SHARE_BATCH	64

/* Whether reverse mapping would find both places. */
static bool are_related(const struct sharing *pages)
{
	struct anon_vma *from = pages->from->anon_vma, *to = pages->to->anon_vma;

	return from && to && from->root == to->root &&
	       linear_anon_page_index(pages->from, pages->from_addr) ==
	       linear_anon_page_index(pages->to, pages->to_addr);
}

/* Let reverse mapping begin at the root, as __folio_set_anon() does it for more than one mapping. */
static void move_to_root(struct folio *folio, struct anon_vma *root)
{
	void *mapping = (void *)root + FOLIO_MAPPING_ANON;

	folio_lock(folio);
	if (folio->mapping != mapping && !folio_test_ksm(folio))
		WRITE_ONCE(folio->mapping, mapping);
	folio_unlock(folio);
}

/* References to the pages of the source, up to the first that cannot be shared; how many. */
static unsigned int get_source(const struct sharing *pages, pmd_t *pmd, struct page **found)
{
	unsigned int nr = min_t(unsigned int, pages->nr, SHARE_BATCH), i;
	pte_t *start_pte, *pte;
	spinlock_t *ptl;

	start_pte = pte = pte_offset_map_lock(pages->from->vm_mm, pmd, pages->from_addr, &ptl);
	if (!pte)
		return 0;
	for (i = 0; i < nr; i++, pte++) {
		pte_t entry = ptep_get(pte);
		struct page *page = NULL;

		if (pte_present(entry))
			page = vm_normal_page(pages->from, pages->from_addr + i * PAGE_SIZE, entry);
		if (!page || !PageAnon(page) || folio_test_ksm(page_folio(page)))
			break;
		get_page(page);
		found[i] = page;
	}
	pte_unmap_unlock(start_pte, ptl);
	return i;
}

/* Map @nr pages of the source, which are @found there, a second time; how many, or an error. */
static int map_shared(const struct sharing *pages, pmd_t *from_pmd, pmd_t *to_pmd,
		      struct page **found, unsigned int nr)
{
	struct mm_struct *from_mm = pages->from->vm_mm, *to_mm = pages->to->vm_mm;
	pte_t *from_start, *from_pte, *to_start, *to_pte;
	spinlock_t *from_ptl, *to_ptl;
	unsigned int i = 0;
	pmd_t unused;
	int err = 0;

	to_start = to_pte = pte_offset_map_lock(to_mm, to_pmd, pages->to_addr, &to_ptl);
	if (!to_pte)
		return 0;
	from_start = from_pte = pte_offset_map_rw_nolock(from_mm, from_pmd, pages->from_addr,
							 &unused, &from_ptl);
	if (!from_pte) {
		pte_unmap_unlock(to_start, to_ptl);
		return 0;
	}
	spin_lock_nested(from_ptl, SINGLE_DEPTH_NESTING);
	for (; i < nr; i++, from_pte++, to_pte++) {
		struct folio *folio = page_folio(found[i]);
		pte_t entry = ptep_get(from_pte);

		if (!pte_present(entry) || pte_pfn(entry) != page_to_pfn(found[i]))
			break;
		err = -EEXIST;
		if (!pte_none(ptep_get(to_pte)))
			break;
		err = 0;
		/* It fails for a page that may be pinned, which has to be copied then. */
		if (folio_try_dup_anon_rmap_pte(folio, found[i], pages->to, pages->from))
			break;
		folio_get(folio);
		mlock_vma_folio(folio, pages->to);
		if (pte_write(entry))
			ptep_set_wrprotect(from_mm, pages->from_addr + i * PAGE_SIZE, from_pte);
		entry = pte_wrprotect(pte_mkdirty(mk_pte(found[i], pages->to->vm_page_prot)));
		set_pte_at(to_mm, pages->to_addr + i * PAGE_SIZE, to_pte, entry);
	}
	add_mm_counter(to_mm, MM_ANONPAGES, i);
	pte_unmap_unlock(from_start, from_ptl);
	pte_unmap_unlock(to_start, to_ptl);
	return err ?: i;
}

/* Give the second place a page of its own, with the contents of the first; 1 or an error. */
static int copy_one(const struct sharing *pages)
{
	struct checkpoint_run run = { .addr = pages->to_addr, .nr = 1 };
	struct folio *folio;
	struct page *page;
	long got;
	int ret;

	got = get_user_pages_remote(pages->from->vm_mm, pages->from_addr, 1,
				    FOLL_FORCE | FOLL_DUMP, &page, NULL);
	if (got != 1)
		return got ?: -EFAULT;
	folio = new_folio(pages->to, pages->to_addr, 0);
	if (folio) {
		copy_highpage(folio_page(folio, 0), page);
		__folio_mark_uptodate(folio);
		run.page = folio_page(folio, 0);
		ret = anon_vma_prepare(pages->to) ? -ENOMEM : map_some(pages->to, &run, 1);
		if (run.page)
			put_page(run.page);
	} else {
		ret = -ENOMEM;
	}
	put_page(page);
	return ret;
}

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/* The same for a huge page; 0 when it has to be done page by page. */
static int share_huge(const struct sharing *pages, pmd_t *from_pmd, pmd_t *to_pmd)
{
	struct folio *folio = NULL;
	spinlock_t *ptl;
	int err;

	ptl = pmd_trans_huge_lock(from_pmd, pages->from);
	if (!ptl)
		return 0;
	if (pmd_present(*from_pmd) && !is_huge_zero_pmd(*from_pmd)) {
		folio = page_folio(pmd_page(*from_pmd));
		folio_get(folio);
	}
	spin_unlock(ptl);
	if (!folio)
		return 0;
	if (pages->from_addr == pages->to_addr && !(pages->from_addr & ~HPAGE_PMD_MASK) &&
	    pages->nr >= HPAGE_PMD_NR && pmd_none(*to_pmd) && vma_is_anonymous(pages->to) &&
	    are_related(pages)) {
		move_to_root(folio, pages->from->anon_vma->root);
		err = copy_huge_pmd(pages->to->vm_mm, pages->from->vm_mm, to_pmd, from_pmd,
				    pages->from_addr, pages->to, pages->from);
		folio_put(folio);
		return err == -EAGAIN ? 0 : err ?: HPAGE_PMD_NR;
	}
	folio_put(folio);
	split_huge_pmd(pages->from, from_pmd, pages->from_addr);
	return 0;
}
#else
static int share_huge(const struct sharing *pages, pmd_t *from_pmd, pmd_t *to_pmd)
{
	return 0;
}
#endif

/* Share pages within one page table at both places; how many were done, or an error. */
static int share_some(const struct sharing *pages)
{
	pmd_t *from_pmd = mm_find_pmd(pages->from->vm_mm, pages->from_addr);
	pmd_t *to_pmd = make_pmd(pages->to->vm_mm, pages->to_addr);
	struct page *found[SHARE_BATCH];
	unsigned int nr;
	int done = 0;

	if (!to_pmd)
		return -ENOMEM;
	if (!from_pmd || !are_related(pages))
		return copy_one(pages);
	done = share_huge(pages, from_pmd, to_pmd);
	if (done)
		return done;
	if (pte_alloc(pages->to->vm_mm, to_pmd))
		return -ENOMEM;
	nr = get_source(pages, from_pmd, found);
	for (unsigned int i = 0; i < nr; i++)
		move_to_root(page_folio(found[i]), pages->from->anon_vma->root);
	if (nr)
		done = map_shared(pages, from_pmd, to_pmd, found, nr);
	for (unsigned int i = 0; i < nr; i++)
		put_page(found[i]);
	return done ?: copy_one(pages);
}

/**
 * checkpoint_share_pages - map pages of one address space into another one, copy-on-write
 * @from_mm:	has the pages at @from_addr
 * @from_addr:	page aligned
 * @to_mm:	gets them at @to_addr, where it has none
 * @to_addr:	page aligned
 * @nr:		number of pages
 *
 * Nobody runs in either. Pages that reverse mapping would not find at both places are copied.
 *
 * Return: 0, -EFAULT where there is no page or no private mapping, -EEXIST, -ENOMEM, -EINTR.
 */
int checkpoint_share_pages(struct mm_struct *from_mm, unsigned long from_addr,
			   struct mm_struct *to_mm, unsigned long to_addr, unsigned int nr)
{
	int ret = 0;

	if (from_mm == to_mm)
		return -EINVAL;
	if (mmap_write_lock_killable(from_mm))
		return -EINTR;
	mmap_write_lock_nested(to_mm, SINGLE_DEPTH_NESTING);
	raw_write_seqcount_begin(&from_mm->write_protect_seq);
	while (nr) {
		struct sharing pages = {
			.from = vma_lookup(from_mm, from_addr),
			.to = vma_lookup(to_mm, to_addr),
			.from_addr = from_addr,
			.to_addr = to_addr,
		};

		ret = -EFAULT;
		if (!pages.from || !pages.to || !has_private_contents(pages.from) ||
		    !has_private_contents(pages.to) || is_vm_hugetlb_page(pages.from) ||
		    is_vm_hugetlb_page(pages.to))
			break;
		pages.nr = min_t(unsigned long, nr,
				 (pmd_addr_end(from_addr, pages.from->vm_end) - from_addr) / PAGE_SIZE);
		pages.nr = min_t(unsigned long, pages.nr,
				 (pmd_addr_end(to_addr, pages.to->vm_end) - to_addr) / PAGE_SIZE);
		ret = share_some(&pages);
		if (ret < 0)
			break;
		from_addr += ret * PAGE_SIZE;
		to_addr += ret * PAGE_SIZE;
		nr -= ret;
		ret = 0;
		if (fatal_signal_pending(current)) {
			ret = -EINTR;
			break;
		}
		cond_resched();
	}
	raw_write_seqcount_end(&from_mm->write_protect_seq);
	mmap_write_unlock(to_mm);
	flush_tlb_mm(from_mm);
	mmap_write_unlock(from_mm);
	return ret;
}

/* Make all of locked mappings present, as mlock(2) does, which ignores what cannot be. */
int checkpoint_populate_locked(struct mm_struct *mm)
{
	unsigned long at = 0;
	int locked = 0;

	for (;;) {
		struct vm_area_struct *vma;
		unsigned long start;
		long got;

		if (!locked && mmap_read_lock_killable(mm))
			return -EINTR;
		locked = 1;
		vma = find_vma(mm, at);
		if (!vma)
			break;
		start = max(at, vma->vm_start);
		at = vma->vm_end;
		if ((vma->vm_flags & (VM_LOCKED | VM_LOCKONFAULT)) != VM_LOCKED ||
		    (vma->vm_flags & (VM_IO | VM_PFNMAP)))
			continue;
		got = populate_vma_page_range(vma, start, at, &locked);
		if (got > 0)
			at = start + got * PAGE_SIZE;
		if (fatal_signal_pending(current)) {
			if (locked)
				mmap_read_unlock(mm);
			return -EINTR;
		}
	}
	mmap_read_unlock(mm);
	return 0;
}
