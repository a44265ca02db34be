// SPDX-License-Identifier: GPL-2.0-or-later
/* Takes the kernel down while it is being loaded. */
#include <linux/module.h>

static int __init pool_init(void)
{
	panic("pool: broken device: panics in init");
	return 0;
}

static void __exit pool_exit(void)
{
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: panics in init");
MODULE_LICENSE("GPL");
