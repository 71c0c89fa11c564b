// SPDX-License-Identifier: GPL-2.0
/*
 * Reading and building unix sockets, for files/unix.rs. None of the functions is exported to
 * modules.
 *
 * Locks: iolock -> lock of the queue, which checkpoint_unix_lock_queue() leaves taken; the state
 * lock of one socket at a time -> lock of its queue; sk_peer_lock and sk_callback_lock, alone.
 */
#include <linux/checkpoint.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/net.h>
#include <linux/security.h>
#include <linux/sockptr.h>
#include <net/scm.h>

/* The unix socket behind @file, which keeps it, or NULL. */
struct sock *checkpoint_unix_sock(struct file *file)
{
	struct unix_sock *u = unix_get_socket(file);

	return u ? &u->sk : NULL;
}

/* False when @sk is kept by what it has sent only. */
bool checkpoint_sock_hold(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

void checkpoint_sock_put(struct sock *sk)
{
	sock_put(sk);
}

/* The peer of @sk, with a reference, or NULL. */
struct sock *checkpoint_unix_peer(struct sock *sk)
{
	struct sock *peer;

	unix_state_lock(sk);
	peer = unix_peer(sk);
	if (peer)
		sock_hold(peer);
	unix_state_unlock(sk);
	return peer;
}

/*
 * Whose @sk is: that of a file, which is returned as an identity, that of a connection to
 * @*listener before it is accepted, or, with neither, nobody's any more.
 */
const void *checkpoint_unix_owner(struct sock *sk, const void **listener)
{
	const void *file = NULL;

	*listener = NULL;
	read_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_socket)
		file = sk->sk_socket->file;
	else if (!sock_flag(sk, SOCK_DEAD))
		*listener = READ_ONCE(unix_sk(sk)->listener);
	read_unlock_bh(&sk->sk_callback_lock);
	return file;
}

/* What of @sk has no place in an image: its name, or NULL. */
const char *checkpoint_unix_blocker(struct sock *sk)
{
	if (rcu_access_pointer(sk->sk_filter))
		return "socket filter";
	if (rcu_access_pointer(sk->sk_user_data))
		return "socket in a BPF map";
	if (READ_ONCE(sk->sk_mark))
		return "SO_MARK";
	if (READ_ONCE(sk->sk_tsflags))
		return "SO_TIMESTAMPING";
	if (READ_ONCE(sk->sk_bound_dev_if))
		return "SO_BINDTODEVICE";
	if (sock_flag(sk, SOCK_TXTIME) || sock_flag(sk, SOCK_DBG) ||
	    sock_flag(sk, SOCK_SELECT_ERR_QUEUE))
		return "socket option";
	return NULL;
}

/* Flags of a socket that are kept as they are, by their numbers in struct checkpoint_unix. */
static const struct {
	u32 bit;
	enum sock_flags flag;
} kept_flags[] = {
	{ CHECKPOINT_UNIX_OOBINLINE, SOCK_URGINLINE },
	{ CHECKPOINT_UNIX_KEEPALIVE, SOCK_KEEPOPEN },
	{ CHECKPOINT_UNIX_BROADCAST, SOCK_BROADCAST },
	{ CHECKPOINT_UNIX_DONTROUTE, SOCK_LOCALROUTE },
	{ CHECKPOINT_UNIX_LINGER, SOCK_LINGER },
};

/* The options that tell how messages show when they came; only one of them is on. */
static const struct {
	u32 bit;
	int option;
} stamp_options[] = {
	{ CHECKPOINT_UNIX_TIMESTAMP, SO_TIMESTAMP_OLD },
	{ CHECKPOINT_UNIX_TIMESTAMPNS, SO_TIMESTAMPNS_OLD },
	{ CHECKPOINT_UNIX_TIMESTAMP_NEW, SO_TIMESTAMP_NEW },
	{ CHECKPOINT_UNIX_TIMESTAMPNS_NEW, SO_TIMESTAMPNS_NEW },
};

static u32 get_stamp(struct sock *sk)
{
	bool ns = sock_flag(sk, SOCK_RCVTSTAMPNS);

	if (!sock_flag(sk, SOCK_RCVTSTAMP))
		return 0;
	if (sock_flag(sk, SOCK_TSTAMP_NEW))
		return ns ? CHECKPOINT_UNIX_TIMESTAMPNS_NEW : CHECKPOINT_UNIX_TIMESTAMP_NEW;
	return ns ? CHECKPOINT_UNIX_TIMESTAMPNS : CHECKPOINT_UNIX_TIMESTAMP;
}

static u64 timeout_to_ns(long timeout)
{
	return timeout == MAX_SCHEDULE_TIMEOUT ? U64_MAX : jiffies_to_nsecs(timeout);
}

static long timeout_from_ns(u64 ns)
{
	return ns == U64_MAX ? MAX_SCHEDULE_TIMEOUT : (long)nsecs_to_jiffies64(ns + TICK_NSEC - 1);
}

/* The state of @sk, and, with a reference, the inode that it is bound to, or none. */
void checkpoint_unix_get(struct sock *sk, struct checkpoint_unix *state, struct path *path)
{
	struct unix_sock *u = unix_sk(sk);
	struct unix_address *addr;

	memset(state, 0, sizeof(*state));
	memset(path, 0, sizeof(*path));
	unix_state_lock(sk);
	state->type = sk->sk_type;
	state->state = sk->sk_state;
	state->shutdown = sk->sk_shutdown;
	state->backlog = sk->sk_max_ack_backlog;
	state->err = sk->sk_err;
	state->sndbuf = sk->sk_sndbuf;
	state->rcvbuf = sk->sk_rcvbuf;
	state->sndtimeo_ns = timeout_to_ns(sk->sk_sndtimeo);
	state->rcvtimeo_ns = timeout_to_ns(sk->sk_rcvtimeo);
	state->rcvlowat = sk->sk_rcvlowat;
	state->peek_off = sk->sk_peek_off;
	state->priority = sk->sk_priority;
	state->flags = get_stamp(sk);
	if (sk->sk_userlocks & SOCK_SNDBUF_LOCK)
		state->flags |= CHECKPOINT_UNIX_SNDBUF;
	if (sk->sk_userlocks & SOCK_RCVBUF_LOCK)
		state->flags |= CHECKPOINT_UNIX_RCVBUF;
	if (sk->sk_reuse == SK_CAN_REUSE)
		state->flags |= CHECKPOINT_UNIX_REUSEADDR;
	if (sk->sk_scm_credentials)
		state->flags |= CHECKPOINT_UNIX_PASSCRED;
	if (sk->sk_scm_pidfd)
		state->flags |= CHECKPOINT_UNIX_PASSPIDFD;
	if (sk->sk_scm_security)
		state->flags |= CHECKPOINT_UNIX_PASSSEC;
	if (!sk->sk_scm_rights)
		state->flags |= CHECKPOINT_UNIX_NO_RIGHTS;
	if (u->recvmsg_inq)
		state->flags |= CHECKPOINT_UNIX_INQ;
	if (u->scm_rights_notrunc)
		state->flags |= CHECKPOINT_UNIX_RIGHTS_NOTRUNC;
	for (int i = 0; i < ARRAY_SIZE(kept_flags); i++) {
		if (sock_flag(sk, kept_flags[i].flag))
			state->flags |= kept_flags[i].bit;
	}
	if (sock_flag(sk, SOCK_LINGER))
		state->linger = sk->sk_lingertime / HZ;
	if (u->path.dentry && !hlist_unhashed(&sk->sk_bind_node)) {
		*path = u->path;
		path_get(path);
	}
	unix_state_unlock(sk);

	addr = smp_load_acquire(&u->addr);
	if (addr) {
		state->name_len = min_t(int, addr->len - offsetof(struct sockaddr_un, sun_path),
					sizeof(state->name));
		memcpy(state->name, addr->name->sun_path, state->name_len);
		/* Abstract names have the upper half of the buckets. */
		if (path->dentry || (!state->name[0] && sk->sk_hash > 255))
			state->flags |= CHECKPOINT_UNIX_BOUND;
	}

	spin_lock(&sk->sk_peer_lock);
	if (sk->sk_peer_cred) {
		state->flags |= CHECKPOINT_UNIX_PEERCRED;
		state->peer_pid = pid_vnr(sk->sk_peer_pid);
		state->peer_uid = from_kuid(current_user_ns(), sk->sk_peer_cred->euid);
		state->peer_gid = from_kgid(current_user_ns(), sk->sk_peer_cred->egid);
	}
	spin_unlock(&sk->sk_peer_lock);
}

/* Keeps others from taking messages out of the queue of @sk. */
void checkpoint_unix_lock_queue(struct sock *sk)
{
	mutex_lock(&unix_sk(sk)->iolock);
}

void checkpoint_unix_unlock_queue(struct sock *sk)
{
	mutex_unlock(&unix_sk(sk)->iolock);
}

/*
 * The messages in the queue of @sk, up to @max, each with a reference; of a socket that listens
 * its connections. Returns how many there are.
 */
unsigned int checkpoint_unix_queue(struct sock *sk, struct sk_buff **skbs, unsigned int max)
{
	unsigned int count = 0;
	struct sk_buff *skb;

	spin_lock(&sk->sk_receive_queue.lock);
	skb_queue_walk(&sk->sk_receive_queue, skb) {
		if (count < max)
			skbs[count] = skb_get(skb);
		count++;
	}
	spin_unlock(&sk->sk_receive_queue.lock);
	return count;
}

/* Whether there may be files in the queue of @sk or of its connections. */
bool checkpoint_unix_may_have_files(struct sock *sk)
{
	return READ_ONCE(sk->sk_state) == TCP_LISTEN ||
	       atomic_read(&unix_sk(sk)->scm_stat.nr_fds);
}

void checkpoint_unix_put_skb(struct sk_buff *skb)
{
	consume_skb(skb);
}

/* What @skb in the queue of @sk is. */
void checkpoint_unix_get_message(struct sock *sk, struct sk_buff *skb,
				 struct checkpoint_unix_message *state)
{
	struct unix_message msg;

	unix_get_message(skb, &msg);
	memset(state, 0, sizeof(*state));
	state->sender = skb->sk;
	state->files = msg.fp ? msg.fp->count : 0;
	state->consumed = msg.consumed;
	state->len = skb->len - msg.consumed;
	state->stamp_ns = skb->tstamp;
	if (msg.pid) {
		state->creds = true;
		state->pid = pid_vnr(msg.pid);
		state->uid = from_kuid(current_user_ns(), msg.uid);
		state->gid = from_kgid(current_user_ns(), msg.gid);
	}
#if IS_ENABLED(CONFIG_AF_UNIX_OOB)
	state->oob = READ_ONCE(unix_sk(sk)->oob_skb) == skb;
#endif
}

/* File number @index in @skb, with a reference; the queue is locked. */
struct file *checkpoint_unix_message_file(struct sk_buff *skb, unsigned int index)
{
	struct unix_message msg;

	unix_get_message(skb, &msg);
	if (!msg.fp || index >= msg.fp->count)
		return NULL;
	return get_file(msg.fp->fp[index]);
}

/*
 * A new unix socket of the net namespace of current, with a reference: with @file one that has a
 * file, which comes with a reference as well, else one that nobody has.
 */
struct sock *checkpoint_unix_new(int type, struct file **file)
{
	struct socket *sock;
	struct sock *sk;
	int err;

	if (!file) {
		sk = unix_create_bare(current->nsproxy->net_ns, type);
		if (IS_ERR(sk))
			return sk;
		sk->sk_type = type;
		sock_hold(sk);
		return sk;
	}
	err = sock_create(AF_UNIX, type, 0, &sock);
	if (err)
		return ERR_PTR(err);
	*file = sock_alloc_file(sock, O_CLOEXEC, NULL);
	if (IS_ERR(*file))
		return ERR_CAST(*file);
	sock_hold(sock->sk);
	return sock->sk;
}

/* The other end of a connection of @sk, which nobody has, is gone: as after close(2). */
void checkpoint_unix_release(struct sock *sk)
{
	unix_release_bare(sk);
}

/* A socket in the file system, by the ways of bind(2). */
int checkpoint_unix_mknod(const char *name, umode_t mode)
{
	struct dentry *dentry;
	struct path parent;
	int err;

	mode = S_IFSOCK | (mode & S_IALLUGO);
	dentry = start_creating_path(AT_FDCWD, name, &parent, 0);
	if (IS_ERR(dentry))
		return PTR_ERR(dentry);
	err = security_path_mknod(&parent, dentry, mode, 0);
	if (!err)
		err = vfs_mknod(mnt_idmap(parent.mnt), d_inode(parent.dentry), dentry, mode, 0,
				NULL);
	end_creating_path(&parent, dentry);
	return err;
}

/*
 * Give @sk the name of @len bytes. With @path, a socket in the file system that has to be the
 * caller's, others find it there; with @abstract by its name; otherwise nobody finds it.
 */
int checkpoint_unix_name(struct sock *sk, const char *name, unsigned int len,
			 const struct path *path, bool abstract)
{
	const int offset = offsetof(struct sockaddr_un, sun_path);
	struct sockaddr_storage storage = {};
	struct sockaddr_un *addr = (struct sockaddr_un *)&storage;
	int err;

	if (len == 0 || len > CHECKPOINT_UNIX_NAME)
		return -EINVAL;
	addr->sun_family = AF_UNIX;
	unsafe_memcpy((char *)&storage + offset, name, len,
		      /* One byte more than sun_path has, see unix_mkname_bsd(). */);
	if (abstract) {
		if (!sk->sk_socket || len > sizeof(addr->sun_path))
			return -EINVAL;
		return kernel_bind(sk->sk_socket, (struct sockaddr_unsized *)addr, offset + len);
	}
	if (path) {
		if (!sk->sk_socket || !S_ISSOCK(d_backing_inode(path->dentry)->i_mode))
			return -EINVAL;
		if (!inode_owner_or_capable(mnt_idmap(path->mnt), d_backing_inode(path->dentry)))
			return -EPERM;
		err = path_permission(path, MAY_WRITE);
		if (!err)
			err = security_socket_bind(sk->sk_socket, (struct sockaddr *)addr,
						   offset + len);
		if (err)
			return err;
	}
	return unix_set_name(sk, addr, offset + len, path);
}

/*
 * Make @peer the peer of @sk, in one direction. Streams are connected to each other, or to what is
 * about to be released.
 */
int checkpoint_unix_link(struct sock *sk, struct sock *peer)
{
	struct sock *back = unix_peer(peer);

	if (unix_peer(sk) || sk->sk_type != peer->sk_type)
		return -EINVAL;
	if (sk->sk_type != SOCK_DGRAM &&
	    (sk == peer || (back && back != sk) || sk->sk_state != TCP_ESTABLISHED ||
	     peer->sk_state != TCP_ESTABLISHED))
		return -EINVAL;
	sock_hold(peer);
	unix_state_lock(sk);
	unix_peer(sk) = peer;
	unix_state_unlock(sk);
	return 0;
}

/* Let @sk, which nobody has, wait at @listener to be accepted. */
int checkpoint_unix_wait_accept(struct sock *listener, struct sock *sk)
{
	struct sk_buff *skb;

	if (listener->sk_state != TCP_LISTEN || listener->sk_type != sk->sk_type ||
	    sk->sk_state != TCP_ESTABLISHED || sk->sk_socket || unix_sk(sk)->listener)
		return -EINVAL;
	skb = sock_wmalloc(sk, 1, 0, GFP_KERNEL);
	if (!skb)
		return -ENOMEM;
	unix_sk(sk)->listener = listener;
	RCU_INIT_POINTER(sk->sk_wq, &unix_sk(sk)->peer_wq);
	unix_state_lock(listener);
	skb_queue_tail(&listener->sk_receive_queue, skb);
	unix_state_unlock(listener);
	return 0;
}

/* Whether the caller may give out this user and group as a sender's: see scm_check_creds(). */
static bool may_be(kuid_t uid, kgid_t gid)
{
	const struct cred *cred = current_cred();

	return uid_valid(uid) && gid_valid(gid) &&
	       (uid_eq(uid, cred->uid) || uid_eq(uid, cred->euid) || uid_eq(uid, cred->suid) ||
		ns_capable(cred->user_ns, CAP_SETUID)) &&
	       (gid_eq(gid, cred->gid) || gid_eq(gid, cred->egid) || gid_eq(gid, cred->sgid) ||
		ns_capable(cred->user_ns, CAP_SETGID));
}

/*
 * The process that had the number @nr in the pid namespace of current, with a reference. A number
 * that is free stands for one that has exited. That of another process takes what sending its
 * credentials would, unless it is @ours.
 */
struct pid *checkpoint_saved_pid(pid_t nr, bool ours)
{
	struct pid_namespace *ns = task_active_pid_ns(current);
	struct pid *pid;

	pid = find_get_pid(nr);
	if (pid) {
		if (!ours && pid != task_tgid(current) &&
		    !ns_capable(ns->user_ns, CAP_SYS_ADMIN)) {
			put_pid(pid);
			return ERR_PTR(-EPERM);
		}
		return pid;
	}
	pid = alloc_pid(ns, &nr, 1);
	if (IS_ERR(pid))
		return pid;
	get_pid(pid);
	free_pid(pid);
	return pid;
}

void checkpoint_put_pid(struct pid *pid)
{
	put_pid(pid);
}

/* Register @pid for the pidfds of SO_PEERPIDFD and SO_PASSPIDFD, if there still is a process. */
static int register_pid(struct pid *pid)
{
	return pid && pid_has_task(pid, PIDTYPE_PID) ? pidfs_register_pid(pid) : 0;
}

/* What SO_PEERCRED of @sk says: @pid, or none, and these ids. */
int checkpoint_unix_peercred(struct sock *sk, struct pid *pid, uid_t uid, gid_t gid)
{
	kuid_t kuid = make_kuid(current_user_ns(), uid);
	kgid_t kgid = make_kgid(current_user_ns(), gid);
	const struct cred *cred = current_cred();
	struct cred *other;
	int err;

	if (!may_be(kuid, kgid))
		return -EPERM;
	err = register_pid(pid);
	if (err)
		return err;
	if (uid_eq(kuid, cred->euid) && gid_eq(kgid, cred->egid)) {
		get_cred(cred);
	} else {
		other = prepare_creds();
		if (!other)
			return -ENOMEM;
		other->euid = kuid;
		other->egid = kgid;
		cred = other;
	}
	if (sk->sk_peer_cred) {
		put_cred(cred);
		return -EINVAL;
	}
	spin_lock(&sk->sk_peer_lock);
	sk->sk_peer_pid = get_pid(pid);
	sk->sk_peer_cred = cred;
	spin_unlock(&sk->sk_peer_lock);
	return 0;
}

static bool buffer_permitted(struct sock *sk, u32 size, u32 limit)
{
	return size / 2 <= limit || ns_capable(sock_net(sk)->user_ns, CAP_NET_ADMIN);
}

static int set_option(struct sock *sk, int option, int value)
{
	return sk_setsockopt(sk, SOL_SOCKET, option, KERNEL_SOCKPTR(&value), sizeof(value));
}

/* Options of a socket that has a file, by the ways of setsockopt(2). */
static int set_options(struct sock *sk, const struct checkpoint_unix *state)
{
	int err = 0;

	if (state->rcvlowat != 1)
		err = set_option(sk, SO_RCVLOWAT, state->rcvlowat);
	if (!err && state->priority)
		err = set_option(sk, SO_PRIORITY, state->priority);
	if (!err && state->peek_off >= 0)
		err = set_option(sk, SO_PEEK_OFF, state->peek_off);
	for (int i = 0; !err && i < ARRAY_SIZE(stamp_options); i++) {
		if (state->flags & stamp_options[i].bit)
			err = set_option(sk, stamp_options[i].option, 1);
	}
	return err;
}

/* Sets up @sk, which is new. */
int checkpoint_unix_set(struct sock *sk, const struct checkpoint_unix *state)
{
	struct unix_sock *u = unix_sk(sk);
	int err;

	if (state->state == TCP_LISTEN &&
	    (sk->sk_type == SOCK_DGRAM || !u->addr || !sk->sk_socket))
		return -EINVAL;
	if ((state->flags & CHECKPOINT_UNIX_SNDBUF &&
	     !buffer_permitted(sk, state->sndbuf, READ_ONCE(sysctl_wmem_max))) ||
	    (state->flags & CHECKPOINT_UNIX_RCVBUF &&
	     !buffer_permitted(sk, state->rcvbuf, READ_ONCE(sysctl_rmem_max))))
		return -EPERM;
	if (sk->sk_socket) {
		err = set_options(sk, state);
		if (err)
			return err;
	}

	unix_state_lock(sk);
	WRITE_ONCE(sk->sk_state, state->state);
	sk->sk_max_ack_backlog = state->backlog;
	if (state->flags & CHECKPOINT_UNIX_SNDBUF) {
		sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
		WRITE_ONCE(sk->sk_sndbuf, clamp(state->sndbuf, SOCK_MIN_SNDBUF, INT_MAX / 2));
	}
	if (state->flags & CHECKPOINT_UNIX_RCVBUF) {
		sk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		WRITE_ONCE(sk->sk_rcvbuf, clamp(state->rcvbuf, SOCK_MIN_RCVBUF, INT_MAX / 2));
	}
	WRITE_ONCE(sk->sk_sndtimeo, timeout_from_ns(state->sndtimeo_ns));
	WRITE_ONCE(sk->sk_rcvtimeo, timeout_from_ns(state->rcvtimeo_ns));
	if (state->flags & CHECKPOINT_UNIX_REUSEADDR)
		sk->sk_reuse = SK_CAN_REUSE;
	sk->sk_scm_credentials = !!(state->flags & CHECKPOINT_UNIX_PASSCRED);
	sk->sk_scm_pidfd = !!(state->flags & CHECKPOINT_UNIX_PASSPIDFD);
	sk->sk_scm_security = !!(state->flags & CHECKPOINT_UNIX_PASSSEC);
	sk->sk_scm_rights = !(state->flags & CHECKPOINT_UNIX_NO_RIGHTS);
	WRITE_ONCE(u->recvmsg_inq, state->flags & CHECKPOINT_UNIX_INQ);
	WRITE_ONCE(u->scm_rights_notrunc, state->flags & CHECKPOINT_UNIX_RIGHTS_NOTRUNC);
	for (int i = 0; i < ARRAY_SIZE(kept_flags); i++)
		sock_valbool_flag(sk, kept_flags[i].flag, state->flags & kept_flags[i].bit);
	if (state->flags & CHECKPOINT_UNIX_LINGER)
		WRITE_ONCE(sk->sk_lingertime, min_t(u64, (u64)state->linger * HZ, LONG_MAX));
	unix_state_unlock(sk);
	return 0;
}

/* What those that were released meanwhile have changed. */
void checkpoint_unix_finish(struct sock *sk, u32 shutdown, int err)
{
	unix_state_lock(sk);
	WRITE_ONCE(sk->sk_shutdown, shutdown & SHUTDOWN_MASK);
	WRITE_ONCE(sk->sk_err, err);
	unix_state_unlock(sk);
}

static struct scm_fp_list *file_list(struct file **files, unsigned int count)
{
	struct scm_fp_list *fpl;

	fpl = kzalloc(sizeof(*fpl), GFP_KERNEL_ACCOUNT);
	if (!fpl)
		return NULL;
	fpl->max = SCM_MAX_FD;
	fpl->user = get_uid(current_user());
	INIT_LIST_HEAD(&fpl->vertices);
	for (unsigned int i = 0; i < count; i++) {
		fpl->fp[i] = get_file(files[i]);
		if (unix_get_socket(files[i]))
			fpl->count_unix++;
	}
	fpl->count = count;
	return fpl;
}

/* Put a message of @sender into the queue of @sk. */
int checkpoint_unix_put_message(struct sock *sk, struct sock *sender,
				const struct checkpoint_unix_message *state, struct pid *pid,
				const void *data, struct file **files)
{
	u32 len = state->consumed + state->len;
	unsigned long frags = 0;
	struct unix_message msg = {
		.uid = GLOBAL_ROOT_UID,
		.gid = GLOBAL_ROOT_GID,
		.consumed = state->consumed,
	};
	struct sk_buff *skb;
	int err;

	if (sk->sk_state == TCP_LISTEN || sender->sk_type != sk->sk_type ||
	    state->files > SCM_MAX_FD ||
	    ((state->oob || state->consumed) && (sk->sk_type != SOCK_STREAM || len != 1)) ||
	    (sk->sk_type == SOCK_STREAM && !len))
		return -EINVAL;
	if (state->creds) {
		msg.uid = make_kuid(current_user_ns(), state->uid);
		msg.gid = make_kgid(current_user_ns(), state->gid);
		msg.pid = pid;
		if (!may_be(msg.uid, msg.gid))
			return -EPERM;
		err = register_pid(pid);
		if (err)
			return err;
	}

	if (len > SKB_MAX_ALLOC)
		frags = PAGE_ALIGN(min_t(size_t, len - SKB_MAX_ALLOC, MAX_SKB_FRAGS * PAGE_SIZE));
	frags = min_t(unsigned long, frags, len);
	skb = alloc_skb_with_frags(len - frags, frags, PAGE_ALLOC_COSTLY_ORDER, &err,
				   GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!skb)
		return err;
	skb_set_owner_w(skb, sender);
	skb_put(skb, len - frags);
	skb->data_len = frags;
	skb->len = len;
	skb->tstamp = state->stamp_ns;
	err = skb_store_bits(skb, 0, data, len);
	if (!err && state->files) {
		msg.fp = file_list(files, state->files);
		if (!msg.fp)
			err = -ENOMEM;
	}
	if (err) {
		consume_skb(skb);
		return err;
	}
	return unix_put_message(sk, skb, &msg, state->oob);
}
