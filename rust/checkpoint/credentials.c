// SPDX-License-Identifier: GPL-2.0
/*
 * Giving current the credentials that it had, as the system calls do that change them one by one.
 */
#include <linux/checkpoint.h>
#include <linux/sched/exec_state.h>
#include <linux/security.h>

/* The id @wanted, or the one that current has when it is called the same. */
static int map_uid(kuid_t *uid, uid_t wanted)
{
	struct user_namespace *ns = current_user_ns();

	if (from_kuid(ns, *uid) == wanted)
		return 0;
	*uid = make_kuid(ns, wanted);
	return uid_valid(*uid) ? 0 : -EINVAL;
}

static int map_gid(kgid_t *gid, gid_t wanted)
{
	struct user_namespace *ns = current_user_ns();

	if (from_kgid(ns, *gid) == wanted)
		return 0;
	*gid = make_kgid(ns, wanted);
	return gid_valid(*gid) ? 0 : -EINVAL;
}

static int set_ids(struct cred *new, const struct cred *old, const struct checkpoint_cred *wanted)
{
	int err;

	err = map_gid(&new->gid, wanted->gid) ?: map_gid(&new->egid, wanted->egid) ?:
	      map_gid(&new->sgid, wanted->sgid) ?: map_gid(&new->fsgid, wanted->fsgid);
	if (err)
		return err;
	err = security_task_fix_setgid(new, old, LSM_SETID_RES);
	if (err)
		return err;

	err = map_uid(&new->uid, wanted->uid) ?: map_uid(&new->euid, wanted->euid) ?:
	      map_uid(&new->suid, wanted->suid) ?: map_uid(&new->fsuid, wanted->fsuid);
	if (err)
		return err;
	if (!uid_eq(new->uid, old->uid)) {
		err = set_user(new);
		if (err)
			return err;
	}
	err = security_task_fix_setuid(new, old, LSM_SETID_RES);
	if (err)
		return err;
	err = set_cred_ucounts(new);
	if (err)
		return err;
	flag_nproc_exceeded(new);
	return 0;
}

/* Whether the user namespace of current has a group of this number. */
bool checkpoint_has_gid(gid_t gid)
{
	return gid_valid(make_kgid(current_user_ns(), gid));
}

static int set_group_list(struct cred *new, const struct cred *old,
			  const struct checkpoint_cred *wanted)
{
	struct group_info *info;
	int err = 0;

	if (!wanted->groups)
		return 0;
	info = groups_alloc(wanted->ngroups);
	if (!info)
		return -ENOMEM;
	for (unsigned int i = 0; i < wanted->ngroups && !err; i++) {
		info->gid[i] = make_kgid(current_user_ns(), wanted->groups[i]);
		if (!gid_valid(info->gid[i]))
			err = -EINVAL;
	}
	if (!err) {
		groups_sort(info);
		set_groups(new, info);
		err = security_task_fix_setgroups(new, old);
	}
	put_group_info(info);
	return err;
}

static int set_capabilities(struct cred *new, const struct cred *old,
			    const struct checkpoint_cred *wanted)
{
	const kernel_cap_t effective = { wanted->effective };
	const kernel_cap_t inheritable = { wanted->inheritable };
	const kernel_cap_t permitted = { wanted->permitted };
	int err;

	/* Sees to it that none is gained. */
	err = security_capset(new, old, &effective, &inheritable, &permitted);
	if (err)
		return err;
	new->cap_bset = cap_intersect(old->cap_bset, (kernel_cap_t){ wanted->bset });
	new->cap_ambient = cap_intersect((kernel_cap_t){ wanted->ambient },
					 cap_intersect(permitted, inheritable));
	return 0;
}

/*
 * Give current these credentials, as far as it has the ids and what it takes to set them: whether
 * it may set ids, groups, bounding set, ambient set and securebits at all has been checked.
 */
int checkpoint_set_cred(const struct checkpoint_cred *wanted)
{
	const struct cred *old = current_cred();
	struct cred *new = prepare_creds();
	int err;

	if (!new)
		return -ENOMEM;
	err = set_ids(new, old, wanted) ?: set_group_list(new, old, wanted) ?:
	      set_capabilities(new, old, wanted);
	if (err) {
		abort_creds(new);
		return err;
	}
	new->securebits = wanted->securebits;
	return commit_creds(new);
}

/* Whether current may install a seccomp filter without no_new_privs. */
bool checkpoint_admin(void)
{
	return ns_capable_noaudit(current_user_ns(), CAP_SYS_ADMIN);
}

/* What PR_GET_DUMPABLE says of @task, which has not been in user mode yet and stands still. */
void checkpoint_set_dumpable(struct task_struct *task, unsigned int dumpable)
{
	guard(rcu)();
	WRITE_ONCE(task_exec_state_rcu(task)->dumpable, dumpable);
}
