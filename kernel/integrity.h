/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Each side challenges the other to show that it has the session's keys, and holds what
 * the other says of the session against its own view of it (section 16). rx_lock guards it.
 */
#ifndef POOL_INTEGRITY_H
#define POOL_INTEGRITY_H

#include <linux/types.h>
#include <crypto/sha2.h>

struct pool_session;
struct pool_hdr;

#define POOL_CHALLENGE_LEN	16

/* A report of the peer's, in host order. */
struct pool_report {
	u32 epoch;
	u64 seq_sent, highest_received, packets_sent, packets_received;
	u8 journal_head[SHA256_DIGEST_SIZE];
};

struct pool_vigil {
	u64 next_ns;			/* the next challenge */
	u64 retry_ns;			/* something is due that may not go out now */

	/* Ours, while it waits for its answer. */
	bool open;
	u8 random[POOL_CHALLENGE_LEN];
	u64 answer_by_ns;
	bool report_owed;

	/* The peer's, while our answer cannot go out. */
	bool asked;
	u8 asked_random[POOL_CHALLENGE_LEN];

	u64 peer_first;			/* the seq the peer began with */
	bool reported;
	struct pool_report latest;
	bool head_expected;		/* a head of the peer's journal that has not come yet ... */
	u8 expected_head[SHA256_DIGEST_SIZE];
	u64 expected_index;		/* ... and the lowest index it can have */
	unsigned int accused;		/* bits: contradictions that were told */
	u64 second_ns;
	unsigned int heard;		/* since then */
};

void pool_vigil_start(struct pool_session *s);
void pool_vigil_timer(struct pool_session *s, u64 now);
void pool_vigil_acked(struct pool_session *s, u64 ack);
void pool_vigil_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);
/* Challenge the peer and report to it, unless a challenge waits for its answer. */
void pool_vigil_now(struct pool_session *s);
/* What was asked under the old keys is void (RK-06). */
void pool_vigil_rekeyed(struct pool_session *s);
void pool_vigil_postpone(struct pool_session *s, u64 ns);

#endif
