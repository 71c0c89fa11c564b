// SPDX-License-Identifier: GPL-2.0
/*
 * CPU time, and the timers that count it. Tasks that these functions write to have not been in user
 * mode yet, and sleep.
 */
#include <linux/checkpoint.h>
#include <linux/task_io_accounting_ops.h>

/* The most pages that the process of @task had in memory, now or before its last exec. */
unsigned long checkpoint_maxrss(struct task_struct *task)
{
	unsigned long maxrss = task->signal->maxrss;
	struct mm_struct *mm = get_task_mm(task);

	if (mm) {
		setmax_mm_hiwater_rss(&maxrss, mm);
		mmput(mm);
	}
	return maxrss;
}

/*
 * What the threads of @task's process have used that have ended, or, as workers of io_uring, do not
 * come back.
 */
void checkpoint_ended_usage(struct task_struct *task, struct checkpoint_usage *sum)
{
	struct signal_struct *signal = task->signal;
	struct task_struct *t;
	unsigned long flags;

	/* It keeps threads from ending. Who has been reaped has none. */
	const bool locked = lock_task_sighand(task, &flags);

	sum->utime = signal->utime;
	sum->stime = signal->stime;
	sum->gtime = signal->gtime;
	sum->runtime = signal->sum_sched_runtime;
	sum->nvcsw = signal->nvcsw;
	sum->nivcsw = signal->nivcsw;
	sum->min_flt = signal->min_flt;
	sum->maj_flt = signal->maj_flt;
	sum->inblock = signal->inblock;
	sum->oublock = signal->oublock;
	sum->ioac = signal->ioac;
	if (!locked)
		return;
	__for_each_thread(signal, t) {
		if (!(t->flags & PF_IO_WORKER))
			continue;
		sum->utime += t->utime;
		sum->stime += t->stime;
		sum->gtime += t->gtime;
		sum->runtime += t->se.sum_exec_runtime;
		sum->nvcsw += t->nvcsw;
		sum->nivcsw += t->nivcsw;
		sum->min_flt += t->min_flt;
		sum->maj_flt += t->maj_flt;
		sum->inblock += task_io_get_inblock(t);
		sum->oublock += task_io_get_oublock(t);
		task_io_accounting_add(&sum->ioac, &t->ioac);
	}
	unlock_task_sighand(task, &flags);
}

/* CPU-time timers and RLIMIT_CPU count on from what the threads of @task have used. */
void checkpoint_sync_cputimer(struct task_struct *task)
{
	struct task_cputime_atomic *timer = &task->signal->cputimer.cputime_atomic;
	struct task_cputime sum;

	thread_group_cputime(task, &sum);
	atomic64_set(&timer->utime, sum.utime);
	atomic64_set(&timer->stime, sum.stime);
	atomic64_set(&timer->sum_exec_runtime, sum.sum_exec_runtime);
}

/* What is left of a timer of setitimer(2) that counts CPU time, 0 if it does not run. */
u64 checkpoint_cpu_itimer(struct task_struct *task, unsigned int clock)
{
	u64 samples[CPUCLOCK_MAX], left = 0;
	unsigned long flags;

	if (!lock_task_sighand(task, &flags))
		return 0;
	if (task->signal->it[clock].expires) {
		u64 expires = task->signal->it[clock].expires;

		thread_group_sample_cputime(task, samples);
		/* It is about to fire when there is nothing left. */
		left = max_t(s64, expires - samples[clock], 1);
	}
	unlock_task_sighand(task, &flags);
	return left;
}

/* Start such a timer, as setitimer(2) does; @left_ns is not 0. */
void checkpoint_start_cpu_itimer(struct task_struct *task, unsigned int clock, u64 left_ns,
				 u64 interval_ns)
{
	struct cpu_itimer *it = &task->signal->it[clock];
	u64 expires = left_ns, none = 0;
	unsigned long flags;

	if (!lock_task_sighand(task, &flags))
		return;
	set_process_cpu_timer(task, clock, &expires, &none);
	it->expires = expires;
	it->incr = interval_ns;
	unlock_task_sighand(task, &flags);
}

/*
 * Start the timer of setitimer(ITIMER_REAL), as setitimer(2) does. One with an interval and nothing
 * left goes on when its signal, which is pending, is delivered.
 */
void checkpoint_start_itimer(struct task_struct *task, s64 left_ns, s64 interval_ns)
{
	struct hrtimer *timer = &task->signal->real_timer;
	unsigned long flags;

	if (!lock_task_sighand(task, &flags))
		return;
	/* Whoever has been killed may have cancelled it already, for good. */
	if (!(task->signal->flags & SIGNAL_GROUP_EXIT)) {
		task->signal->it_real_incr = interval_ns;
		if (left_ns)
			hrtimer_start(timer, left_ns, HRTIMER_MODE_REL);
		else
			hrtimer_set_expires(timer, hrtimer_cb_get_time(timer));
	}
	unlock_task_sighand(task, &flags);
}

/* The id that the next timer_create(2) tries, and whether it takes the one that it is told. */
int checkpoint_timer_ids(struct task_struct *task, bool *chosen)
{
	*chosen = task->signal->timer_create_restore_ids;
	return atomic_read(&task->signal->next_posix_timer_id);
}

void checkpoint_set_timer_ids(int next, bool chosen)
{
	atomic_set(&current->signal->next_posix_timer_id, next);
	current->signal->timer_create_restore_ids = chosen;
}
