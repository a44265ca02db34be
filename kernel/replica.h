/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal over a session: ours to a peer that asks, the peer's held against what it
 * says later (JRN-03). rx_lock guards it, but for the list.
 */
#ifndef POOL_REPLICA_H
#define POOL_REPLICA_H

#include <linux/list.h>
#include <linux/types.h>
#include <crypto/sha2.h>

struct pool_session;
struct pool_hdr;

struct pool_replica {
	/* Ours, to the peer. */
	struct list_head subscriber;	/* the journal's lock */
	bool wanted, answering;
	u64 cursor;			/* the next entry to send */

	/* The peer's: the hashes of what came, for entries first..next - 1; a ring. */
	bool asked;			/* entries are welcome */
	bool started, anew, broken;
	u64 first, next;
	u8 before_first[SHA256_DIGEST_SIZE];
	u8 (*hashes)[SHA256_DIGEST_SIZE];
};

/* Ask the peer for its journal from the oldest entry on, and for all that follows. */
int pool_replica_request(struct pool_session *s);
void pool_replica_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);
void pool_replica_timer(struct pool_session *s, u64 now);
/* Is that the change_hash of an entry that came, or the one before them? */
bool pool_replica_knows(const struct pool_session *s, const u8 hash[SHA256_DIGEST_SIZE]);
/* The hash of the newest entry that came; only when some did. */
const u8 *pool_replica_head(struct pool_session *s);
void pool_replica_end(struct pool_session *s);
void pool_replica_free(struct pool_session *s);

#endif
