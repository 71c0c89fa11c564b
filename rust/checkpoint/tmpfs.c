// SPDX-License-Identifier: GPL-2.0
/*
 * Images in tmpfs, for kernel/checkpoint/: whole pages go into the page cache and come out of it many
 * at a time. What is not plain is left to write(2) and read(2), which have been in the file for the
 * record before: whoever must know of that, does.
 *
 * Locks: inode lock of the file, for writing.
 */
#include <linux/checkpoint.h>
#include <linux/folio_batch.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/pagemap.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>

/* For what shmem keeps to mm/. */
#include "../../mm/internal.h"

/* Pages that are made at once: 1 << ORDER. */
#define ORDER	5
#define BATCH	(1 << ORDER)

/* A page of some runs. */
struct cursor {
	const struct checkpoint_run *run;
	unsigned int page;
};

static struct page *next(struct cursor *at)
{
	struct page *page = at->run->page + at->page;

	if (++at->page == at->run->nr) {
		at->run++;
		at->page = 0;
	}
	return page;
}

/* Whether pages may be made part of @file where it stands. */
bool checkpoint_takes_pages(struct file *file)
{
	return shmem_mapping(file->f_mapping) && !(file->f_flags & O_APPEND) &&
	       PAGE_ALIGNED(file->f_pos);
}

/*
 * Whether so many pages go to where @file stands by themselves: nothing limits the file before, and
 * they need not be large or come from certain nodes.
 */
static bool may_add(struct file *file, unsigned int pages)
{
	const loff_t want = (loff_t)pages << PAGE_SHIFT;
	struct inode *inode = file_inode(file);
	struct shmem_inode_info *info = SHMEM_I(inode);
	loff_t len = want;

	return !(info->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_GROW)) &&
	       !(info->flags & SHMEM_F_MAPPING_FROZEN) && RB_EMPTY_ROOT(&info->policy.root) &&
	       !shmem_allowable_huge_orders(inode, NULL, file->f_pos >> PAGE_SHIFT,
					    file->f_pos + want, false) &&
	       !generic_write_check_limits(file, file->f_pos, &len) && len == want;
}

/* Up to @nr new pages, in @pages, in one piece if there is one at hand; returns how many. */
static unsigned int new_pages(gfp_t gfp, unsigned int nr, struct page **pages)
{
	struct page *page = NULL;

	if (nr >= BATCH)
		page = alloc_pages((gfp & ~__GFP_RECLAIM) | __GFP_NOMEMALLOC | __GFP_NOWARN, ORDER);
	if (!page)
		return alloc_pages_bulk_mempolicy(gfp, min(nr, BATCH), pages);
	split_page(page, ORDER);
	for (unsigned int i = 0; i < BATCH; i++)
		pages[i] = page + i;
	return BATCH;
}

/* Add copies of up to @nr pages at @index; returns of how many. */
static unsigned int add_some(struct inode *inode, pgoff_t index, struct cursor *from,
			     unsigned int nr)
{
	struct address_space *mapping = inode->i_mapping;
	gfp_t gfp = mapping_gfp_mask(mapping);
	struct page *pages[BATCH] = {};
	unsigned int done = 0;
	struct folio *folio;

	nr = new_pages(gfp, nr, pages);
	for (; done < nr; done++) {
		folio = page_folio(pages[done]);
		if (mem_cgroup_charge(folio, NULL, gfp))
			break;
		copy_highpage(pages[done], next(from));
		__folio_set_locked(folio);
		__folio_set_swapbacked(folio);
		__folio_mark_uptodate(folio);
		folio_set_dirty(folio);
		if (shmem_add_to_page_cache(folio, mapping, index + done, NULL, gfp)) {
			folio_unlock(folio);
			break;
		}
		folio_add_lru(folio);
		folio_unlock(folio);
		folio_put(folio);
	}
	for (unsigned int i = done; i < nr; i++)
		put_page(pages[i]);
	return done;
}

/**
 * checkpoint_write_cached - add copies of pages to an image
 * @file:	open for writing
 * @runs:	the pages
 * @pages:	how many pages they are
 *
 * Return: how many are in the file now, which stands behind them. The others are to be written as
 * ever, should it not be in tmpfs, have something there already, or have come to a limit.
 */
unsigned int checkpoint_write_cached(struct file *file, const struct checkpoint_run *runs,
				     unsigned int pages)
{
	struct inode *inode = file_inode(file);
	struct cursor from = { .run = runs };
	unsigned int done = 0, more;

	if (!checkpoint_takes_pages(file))
		return 0;
	file_start_write(file);
	inode_lock(inode);
	if (may_add(file, pages) && !shmem_inode_acct_blocks(inode, pages)) {
		do {
			more = add_some(inode, file->f_pos >> PAGE_SHIFT, &from, pages - done);
			done += more;
			file->f_pos += (loff_t)more << PAGE_SHIFT;
			if (file->f_pos > i_size_read(inode))
				i_size_write(inode, file->f_pos);
			cond_resched();
		} while (more && done < pages);
		shmem_recalc_inode(inode, pages, 0);
	}
	inode_unlock(inode);
	file_end_write(file);
	return done;
}

/**
 * checkpoint_read_cached - copy what comes next in an image into pages
 * @file:	open for reading
 * @runs:	the pages
 * @pages:	how many pages they are
 *
 * Return: how many have their contents now; the file stands behind those. The others are to be read
 * as ever, should it not be in tmpfs, end before, have a hole, or have been swapped out.
 */
unsigned int checkpoint_read_cached(struct file *file, const struct checkpoint_run *runs,
				    unsigned int pages)
{
	struct address_space *mapping = file->f_mapping;
	struct cursor to = { .run = runs };
	struct folio_batch batch;
	pgoff_t index, start, end;
	bool good = true;

	if (!shmem_mapping(mapping) || !PAGE_ALIGNED(file->f_pos))
		return 0;
	start = file->f_pos >> PAGE_SHIFT;
	end = min_t(pgoff_t, start + pages, i_size_read(mapping->host) >> PAGE_SHIFT);
	folio_batch_init(&batch);
	index = start;
	while (good && index < end) {
		pgoff_t at = index;

		if (!filemap_get_folios_contig(mapping, &at, end - 1, &batch))
			break;
		for (unsigned int i = 0; good && i < folio_batch_count(&batch); i++) {
			struct folio *folio = batch.folios[i];

			good = folio_test_uptodate(folio) && !folio_contain_hwpoisoned_page(folio);
			at = min(folio_next_index(folio), end);
			for (; good && index < at; index++)
				copy_highpage(next(&to), folio_file_page(folio, index));
		}
		folio_batch_release(&batch);
		cond_resched();
	}
	file->f_pos = (loff_t)index << PAGE_SHIFT;
	return index - start;
}
