// SPDX-License-Identifier: GPL-2.0
/*
 * Flags of an interrupted FUTEX_WAIT, which the futex code keeps in a form of its own.
 */
#include <linux/checkpoint.h>

#include "../futex/futex.h"

/* Whether the futex of a restart block is shared between processes, and what its time-out is. */
bool checkpoint_futex_flags(unsigned int flags, bool *realtime, bool *timed)
{
	*realtime = flags & FLAGS_CLOCKRT;
	*timed = flags & FLAGS_HAS_TIMEOUT;
	return flags & FLAGS_SHARED;
}

unsigned int checkpoint_futex_kernel_flags(bool shared, bool realtime, bool timed)
{
	return FLAGS_SIZE_32 | (shared ? FLAGS_SHARED : 0) | (realtime ? FLAGS_CLOCKRT : 0) |
	       (timed ? FLAGS_HAS_TIMEOUT : 0);
}
