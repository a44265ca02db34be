/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Peers tell each other of the peers they know (DISC-03). rx_lock guards it. */
#ifndef POOL_EXCHANGE_H
#define POOL_EXCHANGE_H

#include <linux/types.h>

struct pool_session;
struct pool_hdr;

struct pool_exchange {
	u64 round_due;
	u64 deaf_until;		/* one packet in 100 ms enters peers (S07) */
	bool telling;
	u32 cursor;		/* where in the table the next packet goes on */
};

void pool_exchange_start(struct pool_session *s);
void pool_exchange_timer(struct pool_session *s, u64 now);
/* Begin a round at once. */
void pool_exchange_now(struct pool_session *s);
void pool_exchange_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);

#endif
