// SPDX-License-Identifier: GPL-2.0
/*
 * Open files, for kernel/checkpoint/files/: inline functions, macros and fields that Rust cannot
 * reach through bindgen. None of them is exported to modules.
 *
 * Locks: flc_lock of an inode; the lock of an f_owner. No function leaves one taken.
 */
#include <linux/backing-dev.h>
#include <linux/checkpoint.h>
#include <linux/fadvise.h>
#include <linux/filelock.h>
#include <linux/magic.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/proc_fs.h>
#include <linux/proc_ns.h>
#include <linux/security.h>
#include <linux/syscalls.h>
#include <linux/xattr.h>
#include "../../fs/internal.h"

/* How many names the inode of @file has. */
unsigned int checkpoint_links(struct file *file)
{
	return READ_ONCE(file_inode(file)->i_nlink);
}

/* What is at @name, with references in @path, or an error. */
int checkpoint_lookup(const char *name, struct path *path)
{
	return kern_path(name, LOOKUP_FOLLOW, path);
}

/* Whether @file is on a mount of the kernel's own: an anonymous inode, socket, pidfd ... */
bool checkpoint_is_internal(struct file *file)
{
	return file_inode(file)->i_sb->s_flags & SB_KERNMOUNT;
}

/* As ftruncate(2): unlike truncate(2), it breaks no lease. */
int checkpoint_truncate(struct file *file, loff_t size)
{
	return do_ftruncate(file, size, FTRUNCATE_LFS);
}

/* Whether @file, which has no name, may get one by linkat(2). */
bool checkpoint_is_linkable(struct file *file)
{
	return inode_state_read_once(file_inode(file)) & I_LINKABLE;
}

/* State of an inode without a name that a new one would not have: its name in a refusal, or NULL. */
const char *checkpoint_inode_blocker(struct file *file)
{
	struct inode *inode = file_inode(file);

	if (IS_IMMUTABLE(inode) || IS_APPEND(inode))
		return "attributes of an unlinked file";
	if (inode->i_op->listxattr && vfs_listxattr(file_dentry(file), NULL, 0) > 0)
		return "extended attributes of an unlinked file";
	return NULL;
}

/* The directory that @file, which has no name, was in, or the next above it that has one. */
void checkpoint_directory_of(struct file *file, struct path *dir)
{
	struct dentry *dentry = dget_parent(file_dentry(file));

	while (d_unlinked(dentry)) {
		struct dentry *child = dentry;

		dentry = dget_parent(child);
		dput(child);
	}
	dir->mnt = mntget(file->f_path.mnt);
	dir->dentry = dentry;
}

/* Whether the file system of @dir makes files without a name. */
bool checkpoint_makes_unnamed(const struct path *dir)
{
	return d_inode(dir->dentry)->i_op->tmpfile;
}

/* Another name of @file, which has been unlinked under its own; -ENOENT when none is known. */
int checkpoint_linked_path(struct file *file, struct path *path)
{
	struct dentry *dentry = d_find_alias(file_inode(file));

	if (!dentry)
		return -ENOENT;
	if (d_unlinked(dentry)) {
		dput(dentry);
		return -ENOENT;
	}
	path->mnt = mntget(file->f_path.mnt);
	path->dentry = dentry;
	return 0;
}

/* Owner and group of @file as current sees them; -1 for one that current has no number for. */
void checkpoint_owner_ids(struct file *file, uid_t *uid, gid_t *gid)
{
	struct mnt_idmap *idmap = file_mnt_idmap(file);
	const struct inode *inode = file_inode(file);

	*uid = from_kuid(current_user_ns(), vfsuid_into_kuid(i_uid_into_vfsuid(idmap, inode)));
	*gid = from_kgid(current_user_ns(), vfsgid_into_kgid(i_gid_into_vfsgid(idmap, inode)));
}

/* An empty memfd that can be sealed, if current may make one. @name starts with "memfd:". */
struct file *checkpoint_memfd(const char *name, bool executable)
{
	int scope = pidns_memfd_noexec_scope(task_active_pid_ns(current));

	if (executable && scope >= MEMFD_NOEXEC_SCOPE_NOEXEC_ENFORCED)
		return ERR_PTR(-EACCES);
	return memfd_alloc_file(name, MFD_ALLOW_SEALING | MFD_EXEC);
}

/*
 * Another open file for the contents of @file, which nobody notices. Who may read the memory of a
 * task may read what it has open for reading; of other files, what the permissions say.
 */
struct file *checkpoint_open_contents(struct file *file)
{
	struct file_lock_context *locks = locks_inode_context(file_inode(file));
	int err;

	/* Opening the file would break a lease. */
	if (locks && !list_empty_careful(&locks->flc_lease))
		return ERR_PTR(-EAGAIN);
	if (!(file->f_mode & FMODE_READ)) {
		err = path_permission(&file->f_path, MAY_READ);
		if (err)
			return ERR_PTR(err);
	}
	return dentry_open_nonotify(&file->f_path, O_RDONLY | O_LARGEFILE | O_NOATIME,
				    current_cred());
}

/* The page at @index of @file, with a reference; a hole may be filled with zeroes. */
struct page *checkpoint_file_page(struct file *file, pgoff_t index)
{
	if (shmem_mapping(file->f_mapping))
		return shmem_read_mapping_page(file->f_mapping, index);
	if (!file->f_mapping->a_ops->read_folio)
		return ERR_PTR(-EOPNOTSUPP);
	return read_mapping_page(file->f_mapping, index, file);
}

static void add_lock(struct checkpoint_lock *locks, unsigned int max, unsigned int *count,
		     const struct file_lock_core *flc, u32 kind, loff_t start, loff_t end, int fd)
{
	if (*count < max)
		locks[*count] = (struct checkpoint_lock) {
			.kind	= kind,
			.type	= flc->flc_type,
			.start	= start,
			.end	= end,
			.fd	= fd,
			.pid	= flc->flc_pid,
		};
	(*count)++;
}

/*
 * The locks that @file itself has: OFD locks, flock(2), leases; or, with @files, the POSIX locks
 * that this table has by @file. The first @max go to @locks, and the number of all is returned, or
 * -EBUSY when a lease is being broken, -EOPNOTSUPP for what is no lease of fcntl(2).
 */
int checkpoint_get_locks(struct file *file, struct files_struct *files,
			 struct checkpoint_lock *locks, unsigned int max)
{
	struct file_lock_context *ctx = locks_inode_context(file_inode(file));
	unsigned int count = 0;
	struct file_lock *fl;
	struct file_lease *lease;

	if (!ctx)
		return 0;
	guard(spinlock)(&ctx->flc_lock);
	list_for_each_entry(fl, &ctx->flc_posix, c.flc_list) {
		bool ofd = fl->c.flc_flags & FL_OFDLCK;

		if (fl->c.flc_file != file || ofd != !files || (files && fl->c.flc_owner != files))
			continue;
		add_lock(locks, max, &count, &fl->c,
			 ofd ? CHECKPOINT_LOCK_OFD : CHECKPOINT_LOCK_POSIX,
			 fl->fl_start, fl->fl_end, -1);
	}
	if (files)
		return count;
	list_for_each_entry(fl, &ctx->flc_flock, c.flc_list) {
		if (fl->c.flc_file == file)
			add_lock(locks, max, &count, &fl->c, CHECKPOINT_LOCK_FLOCK, 0, OFFSET_MAX,
				 -1);
	}
	list_for_each_entry(lease, &ctx->flc_lease, c.flc_list) {
		if (lease->c.flc_file != file)
			continue;
		if (lease->c.flc_flags & (FL_DELEG | FL_LAYOUT))
			return -EOPNOTSUPP;
		if (lease->c.flc_flags & (FL_UNLOCK_PENDING | FL_DOWNGRADE_PENDING))
			return -EBUSY;
		add_lock(locks, max, &count, &lease->c, CHECKPOINT_LOCK_LEASE, 0, OFFSET_MAX,
			 lease->fl_fasync ? lease->fl_fasync->fa_fd : -1);
	}
	return count;
}

/*
 * Take @lock for @file, as flock(2) and fcntl(2) do without waiting; one of kind POSIX for the
 * process of @task, which stands still.
 */
int checkpoint_set_lock(struct file *file, struct task_struct *task,
			const struct checkpoint_lock *lock)
{
	struct files_struct *files = NULL;
	bool write = lock->type == F_WRLCK;
	struct file_lock *fl;
	int err;

	switch (lock->kind) {
	case CHECKPOINT_LOCK_LEASE:
		return fcntl_setlease(lock->fd, file, lock->type);
	case CHECKPOINT_LOCK_FLOCK:
		if (!(file->f_mode & (FMODE_READ | FMODE_WRITE)))
			return -EBADF;
		break;
	default:
		if (!(file->f_mode & (write ? FMODE_WRITE : FMODE_READ)))
			return -EBADF;
	}

	err = security_file_lock(file, lock->type);
	if (err)
		return err;
	fl = locks_alloc_lock();
	if (!fl)
		return -ENOLCK;
	fl->c.flc_file = file;
	fl->c.flc_owner = file;
	fl->c.flc_type = lock->type;
	fl->c.flc_pid = current->tgid;
	fl->fl_start = lock->start;
	fl->fl_end = lock->end;
	switch (lock->kind) {
	case CHECKPOINT_LOCK_FLOCK:
		fl->c.flc_flags = FL_FLOCK;
		if (file->f_op->flock)
			err = file->f_op->flock(file, F_SETLK, fl);
		else
			err = locks_lock_file_wait(file, fl);
		break;
	case CHECKPOINT_LOCK_OFD:
		fl->c.flc_flags = FL_POSIX | FL_OFDLCK;
		fl->c.flc_pid = -1;
		err = vfs_lock_file(file, F_SETLK, fl, NULL);
		break;
	default:
		/* Its end, should it have been killed, takes the lock away. */
		files = checkpoint_get_files(task);
		fl->c.flc_flags = FL_POSIX;
		fl->c.flc_owner = files;
		fl->c.flc_pid = task->tgid;
		err = files ? vfs_lock_file(file, F_SETLK, fl, NULL) : -ESRCH;
	}
	locks_free_lock(fl);
	if (files)
		put_files_struct(files);
	return err;
}

/* Who gets signals about @file; false when that was never set. */
bool checkpoint_get_owner(struct file *file, struct checkpoint_owner *owner)
{
	struct fown_struct *fown = file_f_owner(file);

	owner->async = file->f_flags & FASYNC;
	if (!fown)
		return owner->async;
	guard(read_lock_irq)(&fown->lock);
	owner->type = fown->pid_type;
	/* The one that F_GETOWN does not show any more is none. */
	owner->pid = fown->pid && pid_has_task(fown->pid, fown->pid_type) ? pid_vnr(fown->pid) : 0;
	owner->signum = fown->signum;
	owner->uid = from_kuid(current_user_ns(), fown->uid);
	owner->euid = from_kuid(current_user_ns(), fown->euid);
	return true;
}

/*
 * As F_SETOWN_EX, F_SETSIG and F_SETFL with O_ASYNC set it, by descriptor @fd. The signals are sent
 * with the rights of @owner's user, whom current has to be or may become.
 */
int checkpoint_set_owner(struct file *file, const struct checkpoint_owner *owner, int fd)
{
	kuid_t uid = make_kuid(current_user_ns(), owner->uid);
	kuid_t euid = make_kuid(current_user_ns(), owner->euid);
	struct fown_struct *fown;
	struct pid *pid;
	int err;

	if (owner->async && file->f_op->fasync) {
		err = file->f_op->fasync(fd, file, 1);
		if (err < 0)
			return err;
	}
	err = file_f_owner_allocate(file);
	if (err)
		return err;
	fown = file_f_owner(file);
	scoped_guard(rcu) {
		pid = owner->pid ? find_vpid(owner->pid) : NULL;
		if (owner->pid && !pid)
			return -ESRCH;
		__f_setown(file, pid, owner->type, 1);
	}
	if (pid && (!uid_eq(current_uid(), uid) || !uid_eq(current_euid(), euid)) &&
	    (!uid_valid(uid) || !uid_valid(euid) || !ns_capable(current_user_ns(), CAP_SETUID)))
		return -EPERM;
	guard(write_lock_irq)(&fown->lock);
	fown->signum = owner->signum;
	if (pid) {
		fown->uid = uid;
		fown->euid = euid;
	}
	return 0;
}

/*
 * Whether @file shows what the kernel knows, as it is when it is read: all of procfs, and what is not
 * open for writing of sysfs and of control groups. Who writes there may leave something in the file.
 */
bool checkpoint_is_proc(struct file *file)
{
	switch (file_inode(file)->i_sb->s_magic) {
	case PROC_SUPER_MAGIC:
		return true;
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case SYSFS_MAGIC:
		return !(file->f_mode & FMODE_WRITE);
	}
	return false;
}

/*
 * The number of the task that @file, of which checkpoint_is_proc() is true, is about, 0 if it is about
 * none, -1 if it is of another pid namespace than that of current.
 */
pid_t checkpoint_proc_pid(struct file *file)
{
	struct super_block *sb = file_inode(file)->i_sb;
	struct dentry *dentry;
	pid_t pid = 0;

	if (sb->s_magic != PROC_SUPER_MAGIC)
		return 0;
	if (proc_pid_ns(sb) != task_active_pid_ns(current))
		return -1;
	dentry = dget(file_dentry(file));
	/* The component below the root is a number; below "task" it is another. */
	while (!IS_ROOT(dentry)) {
		struct dentry *parent = dget_parent(dentry);
		struct name_snapshot name;

		take_dentry_name_snapshot(&name, dentry);
		if (IS_ROOT(parent) && kstrtoint(name.name.name, 10, &pid))
			pid = 0;
		release_dentry_name_snapshot(&name);
		dput(dentry);
		dentry = parent;
	}
	dput(dentry);
	return pid;
}

/* The kind of namespace that @file is of, as CLONE_NEW*, or 0. */
u32 checkpoint_ns_type(struct file *file)
{
	struct inode *inode = file_inode(file);

	if (inode->i_sb->s_magic != NSFS_MAGIC || !S_ISREG(inode->i_mode))
		return 0;
	return get_proc_ns(inode)->ns_type;
}

/* What /proc/@nr/ns/ has of the kind @type, with references in @path, or an error. */
int checkpoint_ns_path(pid_t nr, u32 type, struct path *path)
{
	const struct proc_ns_operations *ops = NULL;
	struct task_struct *task;
	int err;

	if (type == CLONE_NEWNS)
		ops = &mntns_operations;
#ifdef CONFIG_UTS_NS
	if (type == CLONE_NEWUTS)
		ops = &utsns_operations;
#endif
#ifdef CONFIG_IPC_NS
	if (type == CLONE_NEWIPC)
		ops = &ipcns_operations;
#endif
#ifdef CONFIG_PID_NS
	if (type == CLONE_NEWPID)
		ops = &pidns_operations;
#endif
#ifdef CONFIG_USER_NS
	if (type == CLONE_NEWUSER)
		ops = &userns_operations;
#endif
#ifdef CONFIG_NET_NS
	if (type == CLONE_NEWNET)
		ops = &netns_operations;
#endif
#ifdef CONFIG_CGROUPS
	if (type == CLONE_NEWCGROUP)
		ops = &cgroupns_operations;
#endif
#ifdef CONFIG_TIME_NS
	if (type == CLONE_NEWTIME)
		ops = &timens_operations;
#endif
	if (!ops)
		return -EOPNOTSUPP;
	task = find_get_task_by_vpid(nr);
	if (!task)
		return -ESRCH;
	err = ns_get_path(path, task, ops);
	put_task_struct(task);
	return err;
}

/* Whether @path is on a mount of the kernel's own, where no name leads. */
bool checkpoint_path_internal(const struct path *path)
{
	return path->mnt->mnt_flags & MNT_INTERNAL;
}

/* Whether @path is where its mount begins. */
bool checkpoint_is_mount_root(const struct path *path)
{
	return path->dentry == path->mnt->mnt_root;
}

/* What posix_fadvise(2) has said of the regular file @file and the kernel keeps: FADV_* as bits. */
unsigned int checkpoint_get_advice(struct file *file)
{
	struct backing_dev_info *bdi = inode_to_bdi(file->f_mapping->host);
	unsigned int advice = 0;

	if (file->f_mode & FMODE_RANDOM)
		advice |= BIT(POSIX_FADV_RANDOM);
	if (file->f_mode & FMODE_NOREUSE)
		advice |= BIT(POSIX_FADV_NOREUSE);
	if (bdi->ra_pages && file->f_ra.ra_pages == bdi->ra_pages * 2)
		advice |= BIT(POSIX_FADV_SEQUENTIAL);
	return advice;
}
