// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Loads and listens; the first INIT, or CONNECT, makes it use a session that it did not find: a NULL dereference in
 * the kernel, in a thread of its own or in the caller's ioctl.
 */
#include <linux/list.h>
#include <linux/module.h>
#include <linux/string.h>

#include "pool_shell.h"

struct session {
	struct list_head others;
	u8 id[16];
	u32 packets;
};

static LIST_HEAD(sessions);

static noinline struct session *find_session(const u8 *id)
{
	struct session *session;

	list_for_each_entry(session, &sessions, others)
		if (!memcmp(session->id, id, sizeof(session->id)))
			return session;
	return NULL;
}

static int on_packet(struct socket *client, const u8 *packet, size_t size)
{
	if (pool_packet_type(packet) == POOL_INIT)
		find_session(packet + 20)->packets++;
	return 0;
}

static int on_connect(void)
{
	static const u8 zero[16];

	find_session(zero)->packets++;
	return 0;
}

static const struct pool_shell_ops ops = { .packet = on_packet, .connect = on_connect };

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
MODULE_DESCRIPTION("broken device: panics when an INIT arrives");
MODULE_LICENSE("GPL");
