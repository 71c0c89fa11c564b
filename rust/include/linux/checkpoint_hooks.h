/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What other subsystems offer to kernel/checkpoint/: functions that used to be static there.
 * None of them is exported to modules.
 */
#ifndef _LINUX_CHECKPOINT_HOOKS_H
#define _LINUX_CHECKPOINT_HOOKS_H

#include <linux/types.h>

struct file;
struct mm_struct;
struct prctl_mm_map;
struct restart_block;
struct task_struct;

/* ipc/sem.c */
bool sem_has_undo(struct task_struct *task);

/* kernel/fork.c */
struct mm_struct *dup_mm(struct task_struct *tsk, struct mm_struct *oldmm);

/* kernel/sys.c */
int validate_prctl_map_addr(struct prctl_mm_map *prctl_map);
void prctl_apply_mm_map(const struct prctl_mm_map *prctl_map, const unsigned long *auxv);
int prctl_check_exe_file(struct file *exe);

/* Restart functions of interrupted system calls: fs/select.c, kernel/futex/, kernel/time/ */
long do_restart_poll(struct restart_block *restart_block);
long futex_wait_restart(struct restart_block *restart);
long hrtimer_nanosleep_restart(struct restart_block *restart);

#endif /* _LINUX_CHECKPOINT_HOOKS_H */
