// SPDX-License-Identifier: GPL-2.0-or-later
/* Does not compile: a warning first, then two errors; the first error is the one to show. */
#include <linux/module.h>

#warning "this is not the line to show"

static int __init pool_init(void)
{
	return pool_missing_function(pool_missing_argument);
}

static void __exit pool_exit(void)
{
	pool_another_missing_function();
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: does not compile");
MODULE_LICENSE("GPL");
