// SPDX-License-Identifier: GPL-2.0
/*
 * Pseudo terminals, for kernel/checkpoint/files/tty.rs. None of the functions is exported to
 * modules.
 *
 * Locks: tty_lock() is not taken: those who could open, close or hang up a terminal of the tree
 * stand still, or it is on its way back and nobody has it yet. What others could read is changed
 * under the lock that guards it.
 */
#include <linux/checkpoint.h>
#include <linux/tty_driver.h>
#include <linux/tty_flip.h>

static struct tty_struct *tty_of(struct file *file)
{
	return ((struct tty_file_private *)file->private_data)->tty;
}

/* The master of the Unix98 pty that @file is an end of, or NULL. It stays as long as @file. */
struct tty_struct *checkpoint_pty_master(struct file *file)
{
	struct tty_struct *tty;

	if (!checkpoint_is_tty(file))
		return NULL;
	tty = tty_of(file);
	if (tty->driver->type != TTY_DRIVER_TYPE_PTY || !(tty->driver->flags & TTY_DRIVER_DEVPTS_MEM))
		return NULL;
	return tty->driver->subtype == PTY_TYPE_MASTER ? tty : tty->link;
}

bool checkpoint_is_pty_master(struct file *file)
{
	return checkpoint_pty_master(file) == tty_of(file);
}

/* The master of the pty that is the controlling terminal of the process of @task, or NULL. */
struct tty_struct *checkpoint_controlling_pty(struct task_struct *task, bool *other)
{
	struct tty_struct *tty = task->signal->tty;

	*other = tty;
	if (!tty || tty->driver->type != TTY_DRIVER_TYPE_PTY || !tty->link ||
	    !(tty->driver->flags & TTY_DRIVER_DEVPTS_MEM))
		return NULL;
	return tty->driver->subtype == PTY_TYPE_MASTER ? tty : tty->link;
}

/* Whether @file is /dev/tty, whatever terminal that is. */
bool checkpoint_is_current_tty(struct file *file)
{
	return file_inode(file)->i_rdev == MKDEV(TTYAUX_MAJOR, 0);
}

static void get_end(const struct tty_struct *tty, struct checkpoint_pty_end *end)
{
	end->exclusive = test_bit(TTY_EXCLUSIVE, &tty->flags);
	end->stopped = tty->flow.stopped;
	end->stopped_by_call = tty->flow.tco_stopped;
	end->other_closed = test_bit(TTY_OTHER_CLOSED, &tty->flags);
}

/* Read all of the pty of @master but for what is in its buffers. */
void checkpoint_get_pty(struct tty_struct *master, struct checkpoint_pty *pty)
{
	struct tty_struct *slave = master->link;
	struct dentry *node = slave->driver_data;

	memset(pty, 0, sizeof(*pty));
	pty->index = master->index;
	/* The line discipline of a terminal that was hung up is gone with its state. */
	pty->hung_up = test_bit(TTY_OTHER_CLOSED, &slave->flags);
	pty->locked = test_bit(TTY_PTY_LOCK, &master->flags);
	pty->packet = master->ctrl.packet;
	pty->pktstatus = slave->ctrl.pktstatus;
	/* Each end counts its peer. */
	pty->slaves = slave->count - 1;
	get_end(master, &pty->ends[0]);
	get_end(slave, &pty->ends[1]);
	scoped_guard(rwsem_read, &slave->termios_rwsem) {
		pty->termios = slave->termios;
		pty->termios_locked = slave->termios_locked;
	}
	scoped_guard(mutex, &slave->winsize_mutex)
		pty->winsize = slave->winsize;
	scoped_guard(spinlock_irq, &slave->ctrl.lock) {
		pty->session = pid_vnr(slave->ctrl.session);
		/* Of a group that has nobody left, the number is all there is. */
		if (slave->ctrl.pgrp && pid_has_task(slave->ctrl.pgrp, PIDTYPE_PGID))
			pty->pgrp = pid_vnr(slave->ctrl.pgrp);
	}
	if (!pty->hung_up && node) {
		pty->mode = d_inode(node)->i_mode;
		pty->uid = from_kuid(current_user_ns(), d_inode(node)->i_uid);
		pty->gid = from_kgid(current_user_ns(), d_inode(node)->i_gid);
	}
	/* Of another line discipline there is no telling what it has. */
	pty->ldisc = slave->ldisc ? slave->ldisc->ops->num : N_TTY;
	pty->master_ldisc = master->ldisc ? master->ldisc->ops->num : N_TTY;
}

/*
 * What one end has received: in its line discipline, and, where that had no room, the first @max
 * bytes before it in @flip. Returns how many bytes these are, or an error.
 */
int checkpoint_get_tty_queue(struct tty_struct *master, bool of_slave, struct n_tty_state *state,
			     u8 *flip, unsigned int max)
{
	struct tty_struct *tty = of_slave ? master->link : master;
	struct tty_bufhead *buf = &tty->port->buf;
	unsigned int count = 0;
	int err;

	flush_work(&tty->port->buf.work);
	err = n_tty_get_state(tty, state);
	if (err)
		return err;

	tty_buffer_lock_exclusive(tty->port);
	for (struct tty_buffer *b = buf->head; b; b = smp_load_acquire(&b->next)) {
		unsigned int commit = smp_load_acquire(&b->commit);

		for (unsigned int at = b->read; at < commit; at++, count++) {
			if (b->flags && *flag_buf_ptr(b, at) != TTY_NORMAL)
				err = -EIO;
			if (count < max)
				flip[count] = *char_buf_ptr(b, at);
		}
	}
	tty_buffer_unlock_exclusive(tty->port);
	return err ?: count;
}

/* Let one end have received this. */
int checkpoint_set_tty_queue(struct file *file, bool of_slave, const struct n_tty_state *state,
			     const u8 *flip, unsigned int count)
{
	struct tty_struct *master = checkpoint_pty_master(file);
	struct tty_struct *tty;
	int err, limit;

	if (!master)
		return -EINVAL;
	tty = of_slave ? master->link : master;
	err = n_tty_set_state(tty, state);
	if (err || !count)
		return err;
	/* It did fit, in other pieces; the image limits how much it is. */
	limit = tty->port->buf.mem_limit;
	tty->port->buf.mem_limit = INT_MAX;
	if (tty_insert_flip_string(tty->port, flip, count) != count)
		err = -ENOMEM;
	tty->port->buf.mem_limit = limit;
	tty_flip_buffer_push(tty->port);
	return err;
}

static void set_end(struct tty_struct *tty, const struct checkpoint_pty_end *end)
{
	assign_bit(TTY_EXCLUSIVE, &tty->flags, end->exclusive);
	guard(spinlock_irq)(&tty->flow.lock);
	tty->flow.stopped = end->stopped;
	tty->flow.tco_stopped = end->stopped_by_call;
}

/* Allow the slave of the new pty @file to be opened. Returns its index. */
int checkpoint_unlock_pty(struct file *file)
{
	struct tty_struct *master = checkpoint_pty_master(file);

	if (!master || !checkpoint_is_pty_master(file))
		return -EINVAL;
	clear_bit(TTY_PTY_LOCK, &master->flags);
	return master->index;
}

/* Give the pty of @file its settings. */
int checkpoint_set_pty(struct file *file, const struct checkpoint_pty *pty)
{
	struct tty_struct *master = checkpoint_pty_master(file);
	struct tty_struct *slave;
	struct ktermios termios = pty->termios;
	int err;

	if (!master)
		return -EINVAL;
	slave = master->link;
	err = tty_set_termios(slave, &termios);
	if (err)
		return err;
	scoped_guard(rwsem_write, &slave->termios_rwsem)
		slave->termios_locked = pty->termios_locked;
	scoped_guard(mutex, &slave->winsize_mutex) {
		slave->winsize = pty->winsize;
		master->winsize = pty->winsize;
	}
	set_end(master, &pty->ends[0]);
	set_end(slave, &pty->ends[1]);
	scoped_guard(spinlock_irq, &slave->ctrl.lock)
		slave->ctrl.pktstatus = pty->pktstatus;
	scoped_guard(spinlock_irq, &master->ctrl.lock)
		master->ctrl.packet = pty->packet;
	assign_bit(TTY_PTY_LOCK, &master->flags, pty->locked);
	/* As the last close of the slave leaves them. */
	if (pty->ends[0].other_closed) {
		set_bit(TTY_OTHER_CLOSED, &master->flags);
		set_bit(TTY_IO_ERROR, &slave->flags);
	}
	return 0;
}

/* Owner and permissions of the node of the slave, as current may set them. */
int checkpoint_set_pty_node(struct file *file, umode_t mode, uid_t uid, gid_t gid)
{
	struct tty_struct *master = checkpoint_pty_master(file);
	struct dentry *node;
	struct iattr attr = {};
	struct inode *inode;
	int err;

	if (!master || !master->link->driver_data)
		return -EINVAL;
	node = master->link->driver_data;
	inode = d_inode(node);
	attr.ia_uid = make_kuid(current_user_ns(), uid);
	attr.ia_gid = make_kgid(current_user_ns(), gid);
	if (!uid_valid(attr.ia_uid) || !gid_valid(attr.ia_gid))
		return -EINVAL;
	if (!uid_eq(attr.ia_uid, inode->i_uid))
		attr.ia_valid |= ATTR_UID;
	if (!gid_eq(attr.ia_gid, inode->i_gid))
		attr.ia_valid |= ATTR_GID;
	if (attr.ia_valid) {
		attr.ia_vfsuid = VFSUIDT_INIT(attr.ia_uid);
		attr.ia_vfsgid = VFSGIDT_INIT(attr.ia_gid);
		attr.ia_valid |= ATTR_CTIME;
		inode_lock(inode);
		err = notify_change(&nop_mnt_idmap, node, &attr, NULL);
		inode_unlock(inode);
		if (err)
			return err;
	}
	if ((inode->i_mode & S_IALLUGO) == (mode & S_IALLUGO))
		return 0;
	attr.ia_mode = (inode->i_mode & S_IFMT) | (mode & S_IALLUGO);
	attr.ia_valid = ATTR_MODE | ATTR_CTIME;
	inode_lock(inode);
	err = notify_change(&nop_mnt_idmap, node, &attr, NULL);
	inode_unlock(inode);
	return err;
}

/*
 * Make the slave of the pty of @file the controlling terminal of the session that @leader leads, with
 * this foreground group (0 for none), which has to be of that session: a terminal sends signals to
 * both, whoever they are.
 */
int checkpoint_set_tty_session(struct file *file, struct task_struct *leader, pid_t pgrp)
{
	struct tty_struct *master = checkpoint_pty_master(file);
	struct pid *session = task_pid(leader);
	struct pid *new_pgrp = NULL;
	struct task_struct *member;
	struct tty_struct *slave;

	if (!master)
		return -EINVAL;
	slave = master->link;
	guard(read_lock)(&tasklist_lock);
	if (!leader->signal->leader || task_session(leader) != session)
		return -EPERM;
	if (pgrp) {
		new_pgrp = find_vpid(pgrp);
		member = pid_task(new_pgrp, PIDTYPE_PGID);
		if (!member)
			return -ESRCH;
		if (task_session(member) != session)
			return -EPERM;
	}
	guard(spinlock_irq)(&slave->ctrl.lock);
	put_pid(slave->ctrl.session);
	put_pid(slave->ctrl.pgrp);
	slave->ctrl.session = get_pid(session);
	slave->ctrl.pgrp = get_pid(new_pgrp);
	return 0;
}

/* Make the slave of the pty of @file the controlling terminal of the process of @task. */
int checkpoint_set_controlling_tty(struct file *file, struct task_struct *task)
{
	struct tty_struct *master = checkpoint_pty_master(file);
	struct tty_struct *tty;
	unsigned long flags;

	if (!master)
		return -EINVAL;
	if (task_session(task) != master->link->ctrl.session)
		return -EPERM;
	/* It may have been killed. */
	if (!lock_task_sighand(task, &flags))
		return -ESRCH;
	tty = tty_kref_get(master->link);
	if (!(task->signal->flags & SIGNAL_GROUP_EXIT))
		swap(task->signal->tty, tty);
	unlock_task_sighand(task, &flags);
	tty_kref_put(tty);
	return 0;
}

/*
 * Open @path, which is /dev/tty, when the slave of the pty of @file is the controlling terminal.
 * The process of current is in this system call; only its other threads could see the difference.
 */
struct file *checkpoint_open_current_tty(struct file *file, const char *path, int flags)
{
	struct tty_struct *master = checkpoint_pty_master(file);
	struct signal_struct *signal = current->signal;
	struct tty_struct *old;
	struct file *opened;

	if (!master)
		return ERR_PTR(-EINVAL);
	scoped_guard(spinlock_irq, &current->sighand->siglock) {
		old = signal->tty;
		signal->tty = tty_kref_get(master->link);
	}
	opened = filp_open(path, flags | O_NOCTTY, 0);
	scoped_guard(spinlock_irq, &current->sighand->siglock)
		swap(signal->tty, old);
	tty_kref_put(old);
	return opened;
}
