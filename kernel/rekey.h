/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Replacing a session's keys: section 13. rx_lock guards it, but for what says otherwise. */
#ifndef POOL_REKEY_H
#define POOL_REKEY_H

#include "keys.h"

struct pool_session;
struct pool_hdr;

struct pool_rekey {
	u32 epoch;			/* of the keys in force */
	u32 count;			/* completed */
	u64 since_ns;			/* the last switch */
	u64 since_packets;

	u64 overdue_ns;			/* the limit was noticed then; 0: not reached */
	u64 overdue_packets;

	/*
	 * The peer's proposal, while there are no random bytes to accept it with; over raw IP also while something
	 * of ours is in flight (RK-02), as with our own proposal, and the peer's accept (E-85). tx_lock too.
	 */
	bool asked, wants, answered;
	u8 asked_public[POOL_KEY_LEN];
	u8 answer_public[POOL_KEY_LEN];

	/* Our proposal, while REKEYING. */
	u64 proposed_ns;
	int repeats;
	u8 private[POOL_KEY_LEN];
	u8 public[POOL_KEY_LEN];

	/* Until the peer's first packet under the new keys (RK-04). */
	bool old_valid;
	u64 unused_ns;			/* since when we wait for it */
	struct pool_keys old;
	/* Raw IP: also until 2 s after it, and nothing above the lowest new-key seq under them. */
	u64 drop_ns;			/* 0: none came yet */
	u64 lowest_new;
	bool unconfirmed;		/* we accepted: until that packet we go on with the old ones; tx_lock too */
	bool accepted_any;
	u8 accepted[POOL_KEY_LEN];	/* the proposal that made the keys in force: repeats of it mean nothing */
};

void pool_rekey_start(struct pool_session *s);
/* Propose now. -EALREADY: one is under way; -EBUSY: the peer has not used the keys of the last one yet. */
int pool_rekey_propose(struct pool_session *s);
void pool_rekey_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len,
			bool old_keys);
void pool_rekey_timer(struct pool_session *s, u64 now);
/* An authentic packet under the keys in force was committed. */
void pool_rekey_verified(struct pool_session *s, u64 seq);
/* Raw IP: too late for the old keys? */
bool pool_rekey_outdated(const struct pool_session *s, u64 seq);
/* Raw IP: nothing of ours is in flight any more, perhaps. rx_lock is held. */
void pool_rekey_drained(struct pool_session *s);
/* Raw IP: do new packets wait? tx_lock is held. */
bool pool_rekey_holds(const struct pool_session *s);
/* What to seal with; tx_lock is held. */
const struct pool_keys *pool_rekey_tx_keys(const struct pool_session *s);
/* So many packets were protected by the keys in force that something is to be done about it. */
bool pool_rekey_wanted(const struct pool_session *s);
/* The peer could not be heard for so long (DATA-04). */
void pool_rekey_postpone(struct pool_session *s, u64 ns);
/* Zero all of it; rx_lock and tx_lock are held. */
void pool_rekey_erase(struct pool_session *s);

#endif
