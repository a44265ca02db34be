// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Answers an INIT with garbage of one of three kinds: random bytes; a CHALLENGE of the right size whose payload is
 * random and whose difficulty no one can meet; a header that promises 65535 bytes, and the end of the stream. The
 * first byte of the client's key chooses, so the client's seed repeats it.
 *
 * What it says to people is hostile as well: its kernel message and /proc/pool/status hold terminal escapes, control
 * characters, markup and an overlong line.
 */
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/random.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "pool_shell.h"

#define CHALLENGE_PAYLOAD 98
#define DIFFICULTY_OFFSET (POOL_HEADER_SIZE + 64)
#define STATUS_LINE 100000

enum kind { RANDOM_BYTES, IMPOSSIBLE_CHALLENGE, BROKEN_PROMISE, KINDS };

static const char hostile[] = "\033[2J\033]0;owned\007\r<script>alert(1)</script>&amp;\x01\x7f\xff\xfe]]>";
static struct proc_dir_entry *proc_dir;

static void put_header(u8 *packet, u8 type, u16 payload_len)
{
	memset(packet, 0, POOL_HEADER_SIZE);
	packet[0] = 1 << 4 | type;
	get_random_bytes(packet + 20, 16);
	packet[44] = payload_len >> 8;
	packet[45] = payload_len & 0xff;
}

static int on_packet(struct socket *client, const u8 *packet, size_t size)
{
	u8 answer[POOL_HEADER_SIZE + CHALLENGE_PAYLOAD];
	enum kind kind;
	int err;

	if (pool_packet_type(packet) != POOL_INIT || size == POOL_HEADER_SIZE)
		return 0;
	kind = packet[POOL_HEADER_SIZE] % KINDS;
	get_random_bytes(answer, sizeof(answer));
	if (kind == IMPOSSIBLE_CHALLENGE) {
		put_header(answer, POOL_CHALLENGE, CHALLENGE_PAYLOAD);
		memset(answer + DIFFICULTY_OFFSET, 0xff, 2);
	} else if (kind == BROKEN_PROMISE) {
		put_header(answer, POOL_CHALLENGE, 65535);
	}
	err = pool_shell_send(client, answer, sizeof(answer));
	return err < 0 || kind == BROKEN_PROMISE ? -EPIPE : 0;
}

static int status_show(struct seq_file *seq, void *unused)
{
	int i;

	seq_printf(seq, "POOL Protocol v1%s\nStatus: %s\nListen port: -1\nActive sessions: 99999999999 / 64\n", hostile,
		   hostile);
	for (i = 0; i < STATUS_LINE; i++)
		seq_putc(seq, 'A' + i % 26);
	return 0;
}

static const struct pool_shell_ops ops = { .packet = on_packet };

static int __init pool_init(void)
{
	int err;

	proc_dir = proc_mkdir("pool", NULL);
	if (!proc_dir || !proc_create_single("status", 0444, proc_dir, status_show)) {
		proc_remove(proc_dir);
		return -ENOMEM;
	}
	err = pool_shell_start(&ops);
	if (err) {
		proc_remove(proc_dir);
		return err;
	}
	pr_notice("pool: loaded%s\n", hostile);
	return 0;
}

static void __exit pool_exit(void)
{
	pool_shell_stop();
	proc_remove(proc_dir);
}

module_init(pool_init);
module_exit(pool_exit);
MODULE_DESCRIPTION("broken device: answers INIT with garbage");
MODULE_LICENSE("GPL");
