// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Never comes back from init either, but sleeps: the loading process cannot be killed and the module stays "coming"
 * for ever, while everything else in the guest goes on. A hung-task detector may notice after its time.
 */
#include <linux/module.h>
#include <linux/sched.h>

static int __init pool_init(void)
{
	pr_notice("pool: broken device: init sleeps and never returns\n");
	for (;;) {
		set_current_state(TASK_UNINTERRUPTIBLE);
		schedule();
	}
	return 0;
}

static void __exit pool_exit(void)
{
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: sleeps in init");
MODULE_LICENSE("GPL");
