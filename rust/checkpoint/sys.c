// SPDX-License-Identifier: GPL-2.0
/*
 * The system calls checkpoint(2) and restart(2): copy the arguments, hand over to Rust.
 */
#include <linux/build_bug.h>
#include <linux/checkpoint.h>
#include <linux/syscalls.h>
#include <linux/uaccess.h>

SYSCALL_DEFINE2(checkpoint, struct checkpoint_args __user *, uargs, size_t, size)
{
	struct checkpoint_args args;
	int err;

	BUILD_BUG_ON(sizeof(args) != CHECKPOINT_ARGS_SIZE_VER1);

	if (size < CHECKPOINT_ARGS_SIZE_VER0)
		return -EINVAL;
	err = copy_struct_from_user(&args, sizeof(args), uargs, size);
	if (err)
		return err;
	return rust_checkpoint(&args);
}

SYSCALL_DEFINE2(restart, struct restart_args __user *, uargs, size_t, size)
{
	struct restart_args args;
	int err;

	BUILD_BUG_ON(sizeof(args) != RESTART_ARGS_SIZE_VER1);

	if (size < RESTART_ARGS_SIZE_VER0)
		return -EINVAL;
	err = copy_struct_from_user(&args, sizeof(args), uargs, size);
	if (err)
		return err;
	return rust_restart(&args);
}
