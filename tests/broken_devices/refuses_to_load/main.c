// SPDX-License-Identifier: GPL-2.0-or-later
/* Refuses to load, as a module does whose self-test failed: it says why and returns an error. */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>

static int __init pool_init(void)
{
	pr_err("self-test failed: chacha20-poly1305: wrong tag\n");
	return -EKEYREJECTED;
}

static void __exit pool_exit(void)
{
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: refuses to load");
MODULE_LICENSE("GPL");
