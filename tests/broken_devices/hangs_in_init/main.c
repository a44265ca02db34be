// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Never comes back from init and never lets go of the CPU: preemption is off, interrupts are on. On a guest with one
 * CPU nothing else runs any more, so no agent answers; a soft-lockup detector, where the kernel has one, may say so
 * after its time, and where it has none only silence tells.
 */
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/processor.h>

static int __init pool_init(void)
{
	pr_notice("pool: broken device: init never returns\n");
	preempt_disable();
	for (;;)
		cpu_relax();
	return 0;
}

static void __exit pool_exit(void)
{
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: hangs in init");
MODULE_LICENSE("GPL");
