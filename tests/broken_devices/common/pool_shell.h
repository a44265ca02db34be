/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The shell of a POOL device: /dev/pool, its ioctls and a TCP listener, and none of the protocol.
 * The broken devices of this directory put their misbehaviour into it.
 */
#ifndef POOL_SHELL_H
#define POOL_SHELL_H

#include <linux/net.h>
#include <linux/types.h>

#define POOL_HEADER_SIZE 80
#define POOL_MAX_PACKET (POOL_HEADER_SIZE + 65535)

#define POOL_INIT 0x0
#define POOL_CHALLENGE 0x1

struct pool_shell_ops {
	/*
	 * One whole packet came in, header first; may be NULL. Runs in the listener's thread, may sleep.
	 * A negative return value ends the connection.
	 */
	int (*packet)(struct socket *client, const u8 *packet, size_t size);
	/* What the CONNECT ioctl returns; NULL: -EOPNOTSUPP. */
	int (*connect)(void);
};

int pool_shell_start(const struct pool_shell_ops *ops);
void pool_shell_stop(void);

/* Send all of it; 0 or a negative errno. */
int pool_shell_send(struct socket *client, const void *data, size_t size);

static inline u8 pool_packet_type(const u8 *packet)
{
	return packet[0] & 0xf;
}

#endif
