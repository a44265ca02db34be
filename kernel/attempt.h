/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An attempt to connect: what the client keeps of it, and packets to and from the server. */
#ifndef POOL_ATTEMPT_H
#define POOL_ATTEMPT_H

#include "crypto.h"

struct pool_conn;
struct pool_session;
struct pool_txbuf;

/* What the client keeps between INIT and RESPONSE. */
struct pool_attempt {
	unsigned long challenge_wait;
	bool challenged;	/* there is no fallback any more (AUTO) */
	struct pool_txbuf *sent;	/* raw IP: what to send again */
	unsigned long sent_at;
	const unsigned int *repeats;	/* what is left of them, up to a 0 */
	u8 private[POOL_KEY_LEN];
	u8 public[POOL_KEY_LEN];
	u8 shared[POOL_KEY_LEN];
	u8 seed[32];
	u8 solution[32];
	unsigned int difficulty;
};

/* Over raw IP what gets no answer is sent again, so many ms after the first, up to a 0: section 4, TRN-08. */
extern const unsigned int pool_init_repeats[], pool_response_repeats[];

int pool_attempt_tcp(struct pool_conn *c);
/* Takes the packet. */
int pool_attempt_send(struct pool_conn *c, struct pool_attempt *a, struct pool_txbuf *b, const unsigned int *repeats);
/*
 * A packet of the wanted type in this state, or an error. Discards whatever the state
 * does not allow (SEAL-05: without keys, and in CHALLENGED, the state table comes first).
 */
struct pool_hdr *pool_attempt_await(struct pool_session *s, struct pool_attempt *a, u8 wanted, unsigned long deadline);

#endif
