// SPDX-License-Identifier: GPL-2.0
/*
 * Images into pipes and sockets, for kernel/checkpoint/: pages that nobody will write to go there by
 * reference, as vmsplice(2) and sendfile(2) have it.
 *
 * Locks: lock of the pipe, or of the socket.
 */
#include <linux/bvec.h>
#include <linux/checkpoint.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <linux/pipe_fs_i.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/socket.h>
#include <linux/splice.h>
#include <linux/uio.h>

static void wake_readers(struct pipe_inode_info *pipe)
{
	wake_up_interruptible_poll(&pipe->rd_wait, EPOLLIN | EPOLLRDNORM);
	kill_fasync(&pipe->fasync_readers, SIGIO, POLL_IN);
}

/* Add @page to @pipe, which is locked and has room. */
static void add_page(struct pipe_inode_info *pipe, struct page *page)
{
	get_page(page);
	*pipe_buf(pipe, pipe->head) = (struct pipe_buffer) {
		.page = page,
		.len = PAGE_SIZE,
		.ops = &nosteal_pipe_buf_ops,
	};
	pipe->head++;
}

static int to_pipe(struct file *file, struct pipe_inode_info *pipe, const struct bio_vec *bvec,
		   unsigned int count)
{
	int err = 0;

	pipe_lock(pipe);
	for (; !err && count; bvec++, count--) {
		unsigned int nr = bvec->bv_len >> PAGE_SHIFT;

		for (unsigned int i = 0; !err && i < nr;) {
			if (!pipe->readers) {
				send_sig(SIGPIPE, current, 0);
				err = -EPIPE;
			} else if (!pipe_is_full(pipe)) {
				add_page(pipe, bvec->bv_page + i++);
			} else if (file->f_flags & O_NONBLOCK) {
				err = -EAGAIN;
			} else if (signal_pending(current)) {
				err = -EINTR;
			} else {
				wake_readers(pipe);
				pipe_wait_writable(pipe);
			}
		}
	}
	pipe_unlock(pipe);
	wake_readers(pipe);
	return err;
}

static int to_socket(struct file *file, struct socket *sock, const struct bio_vec *bvec,
		     unsigned int count, size_t len)
{
	struct msghdr msg = { .msg_flags = MSG_SPLICE_PAGES };
	int sent = 1;

	if (file->f_flags & O_NONBLOCK)
		msg.msg_flags |= MSG_DONTWAIT;
	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, bvec, count, len);
	while (sent > 0 && iov_iter_count(&msg.msg_iter))
		sent = sock_sendmsg(sock, &msg);
	return min(sent, 0);
}

/**
 * checkpoint_splice - hand pages to whoever reads a stream
 * @file:	open for writing
 * @bvec:	whole pages, which do not change any more
 * @count:	length of @bvec
 * @len:	bytes in @bvec
 *
 * Return: 1 when all have been, 0 when they are to be written: @file is no pipe and no socket, or
 * one whose packets matter; otherwise what write(2) says.
 */
int checkpoint_splice(struct file *file, const struct bio_vec *bvec, unsigned int count, size_t len)
{
	struct pipe_inode_info *pipe = get_pipe_info(file, true);
	struct socket *sock = sock_from_file(file);
	int err;

	if (pipe && !(file->f_flags & O_DIRECT))
		err = to_pipe(file, pipe, bvec, count);
	else if (sock && sock->type == SOCK_STREAM)
		err = to_socket(file, sock, bvec, count, len);
	else
		return 0;
	return err ?: 1;
}
