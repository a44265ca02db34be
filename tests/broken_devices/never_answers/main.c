// SPDX-License-Identifier: GPL-2.0-or-later
/* Loads, listens, accepts and reads everything; answers nothing, and loads and unloads cleanly. */
#include <linux/module.h>

#include "pool_shell.h"

static const struct pool_shell_ops ops = {};

static int __init pool_init(void)
{
	return pool_shell_start(&ops);
}

static void __exit pool_exit(void)
{
	pool_shell_stop();
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: never answers INIT");
MODULE_LICENSE("GPL");
