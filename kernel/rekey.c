// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/string.h>
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "rekey.h"
#include "reliable.h"
#include "session.h"

#define ANSWER_NS	(60ULL * NSEC_PER_SEC)	/* RK-04, RK-05 */
#define OLD_KEYS_NS	(2ULL * NSEC_PER_SEC)	/* RK-04, raw IP */
#define OVERDUE_NS	(120ULL * NSEC_PER_SEC)	/* RK-05 */
#define OVERDUE_PACKETS	(1 << 20)

#define STAGE_PROPOSE	1
#define STAGE_ACCEPT	2

static const u8 repeat_sec[] = { 5, 10, 20 };	/* after the first */

static u64 packets_since(const struct pool_session *s)
{
	return READ_ONCE(s->packets_sent) + READ_ONCE(s->packets_recv) - READ_ONCE(s->rekey.since_packets);
}

static bool worn(const struct pool_session *s)
{
	return packets_since(s) >= pool_config_params().rekey_packets;
}

bool pool_rekey_wanted(const struct pool_session *s)
{
	if (READ_ONCE(s->rekey.overdue_ns))
		return packets_since(s) >= READ_ONCE(s->rekey.overdue_packets);
	return READ_ONCE(s->state) == POOL_ESTABLISHED && worn(s);
}

/* Over raw IP a proposal is resent like everything else. */
static int most_repeats(const struct pool_session *s)
{
	return s->rel ? 0 : ARRAY_SIZE(repeat_sec);
}

static void rekey_schedule(struct pool_session *s)
{
	struct pool_rekey *r = &s->rekey;
	u64 due;

	if (s->state == POOL_REKEYING && !r->asked) {
		due = r->proposed_ns + (r->repeats < most_repeats(s) ?
					repeat_sec[r->repeats] * NSEC_PER_SEC : ANSWER_NS);
	} else if (r->asked || r->overdue_ns) {
		due = ktime_get_ns() + NSEC_PER_SEC;
	} else {
		due = r->since_ns + pool_config_params().rekey_sec * NSEC_PER_SEC;
		if (r->old_valid)
			due = min(due, r->drop_ns ?: r->unused_ns + ANSWER_NS);
	}
	pool_part_set(s, POOL_PART_REKEY, due);
}

void pool_rekey_start(struct pool_session *s)
{
	s->rekey.since_ns = s->started_ns;
	rekey_schedule(s);
}

static int send_stage(struct pool_session *s, u8 stage, u32 epoch, const u8 public[POOL_KEY_LEN])
{
	struct pool_wire_rekey w = { .epoch = cpu_to_be32(epoch), .stage = stage };

	memcpy(w.pubkey, public, sizeof(w.pubkey));
	return pool_send_control_locked(s, POOL_REKEY, 0, POOL_MARK_NONE, &w, sizeof(w));
}

static int make_key(u8 private[POOL_KEY_LEN], u8 public[POOL_KEY_LEN])
{
	int err = pool_random(private, POOL_KEY_LEN);

	if (err) {
		pool_count(no_randomness);
		return err;
	}
	return pool_x25519_public(public, private) ? 0 : -EIO;
}

static int propose(struct pool_session *s)
{
	struct pool_rekey *r = &s->rekey;
	int err = make_key(r->private, r->public);

	mutex_lock(&s->conn->tx_lock);
	r->wants = false;
	if (err) {
		pool_send_held_locked(s);
		mutex_unlock(&s->conn->tx_lock);
		return err;
	}
	WRITE_ONCE(s->state, POOL_REKEYING);
	r->proposed_ns = ktime_get_ns();
	r->repeats = 0;
	send_stage(s, STAGE_PROPOSE, r->epoch + 1, r->public);
	mutex_unlock(&s->conn->tx_lock);
	rekey_schedule(s);
	return 0;
}

/* RK-02: over raw IP only when nothing of our own is in flight. */
static bool may_speak(const struct pool_session *s)
{
	return !s->rel || (!s->rel->flying && !s->rekey.unconfirmed);
}

bool pool_rekey_holds(const struct pool_session *s)
{
	const struct pool_rekey *r = &s->rekey;

	return s->state == POOL_REKEYING || r->wants || r->asked || r->unconfirmed;
}

const struct pool_keys *pool_rekey_tx_keys(const struct pool_session *s)
{
	return s->rekey.unconfirmed ? &s->rekey.old : &s->keys;
}

int pool_rekey_propose(struct pool_session *s)
{
	struct pool_rekey *r = &s->rekey;
	bool wait;

	lockdep_assert_held(&s->conn->rx_lock);
	if (s->ended || s->state == POOL_CLOSING)
		return -ENOTCONN;
	if (s->state == POOL_REKEYING || r->wants || r->asked)
		return -EALREADY;
	if (r->old_valid)
		return -EBUSY;		/* E-84 */
	mutex_lock(&s->conn->tx_lock);
	wait = !may_speak(s);
	r->wants = s->rel;		/* nothing new goes out meanwhile */
	mutex_unlock(&s->conn->tx_lock);
	return wait ? 0 : propose(s);
}

/* Packets are sealed with the new keys from now on (E-84). */
static void completed(struct pool_session *s)
{
	struct pool_rekey *r = &s->rekey;
	char peer[POOL_PEER_STR];

	WRITE_ONCE(r->count, r->count + 1);
	pool_journal(POOL_CHANGE_REKEY, "%s epoch %u", pool_peer_str(peer, s->conn), r->epoch);
}

/* The new keys from a fresh exchange and the old secret (RK-02); seq runs on. */
static void switch_keys(struct pool_session *s, const u8 fresh[POOL_KEY_LEN], bool accepted)
{
	struct pool_rekey *r = &s->rekey;
	u8 ikm[2 * POOL_KEY_LEN];

	lockdep_assert_held(&s->conn->rx_lock);
	lockdep_assert_held(&s->conn->tx_lock);
	memcpy(ikm, fresh, POOL_KEY_LEN);
	memcpy(ikm + POOL_KEY_LEN, s->shared, POOL_KEY_LEN);
	WARN_ON(pool_hkdf(s->shared, POOL_KEY_LEN, ikm, sizeof(ikm), "pool-rekey"));
	memzero_explicit(ikm, sizeof(ikm));
	r->old = s->keys;
	r->old_valid = true;
	r->drop_ns = 0;
	r->unconfirmed = s->rel && accepted;
	r->wants = false;
	r->answered = false;
	if (s->rel)
		pool_reliable_rekeyed(s);
	pool_keys_derive(&s->keys, s->shared);
	memzero_explicit(r->private, sizeof(r->private));
	r->accepted_any = false;
	r->asked = false;
	WRITE_ONCE(r->overdue_ns, 0);
	r->since_ns = ktime_get_ns();
	r->unused_ns = r->since_ns;
	WRITE_ONCE(r->since_packets, s->packets_sent + s->packets_recv);
	WRITE_ONCE(r->epoch, r->epoch + 1);
	WRITE_ONCE(s->state, POOL_ESTABLISHED);
	pool_vigil_rekeyed(s);
	if (!r->unconfirmed)
		completed(s);
	pool_send_held_locked(s);
}

static void rekey_fail(struct pool_session *s, const char *why)
{
	pool_session_end_locked(s, POOL_CODE_REKEY_FAIL, why);
}

static void rekey_accept(struct pool_session *s, const u8 peer[POOL_KEY_LEN])
{
	u8 private[POOL_KEY_LEN], public[POOL_KEY_LEN], fresh[POOL_KEY_LEN];
	struct pool_rekey *r = &s->rekey;

	if (make_key(private, public)) {
		/* Nothing changes; a second later there may be some (E-84). */
		r->asked = true;
		memmove(r->asked_public, peer, sizeof(r->asked_public));
		rekey_schedule(s);
		return;
	}
	if (!pool_x25519(fresh, private, peer)) {
		pool_count_error(low_order_key, POOL_CODE_AUTH_FAIL, s->conn);
		rekey_fail(s, "a rekey with a public key of low order");
		goto out;
	}
	mutex_lock(&s->conn->tx_lock);
	/* Without room to answer nothing happened: it will be proposed again, over raw IP it stays proposed. */
	r->asked = s->rel;
	if (!send_stage(s, STAGE_ACCEPT, r->epoch + 1, public)) {
		switch_keys(s, fresh, true);
		r->accepted_any = true;
		memcpy(r->accepted, peer, sizeof(r->accepted));
	}
	mutex_unlock(&s->conn->tx_lock);
	rekey_schedule(s);
out:
	memzero_explicit(private, sizeof(private));
	memzero_explicit(fresh, sizeof(fresh));
}

static void rekey_complete(struct pool_session *s, const u8 peer[POOL_KEY_LEN])
{
	u8 fresh[POOL_KEY_LEN];

	if (!pool_x25519(fresh, s->rekey.private, peer)) {
		pool_count_error(low_order_key, POOL_CODE_AUTH_FAIL, s->conn);
		rekey_fail(s, "a rekey with a public key of low order");
		return;
	}
	mutex_lock(&s->conn->tx_lock);
	switch_keys(s, fresh, false);
	mutex_unlock(&s->conn->tx_lock);
	memzero_explicit(fresh, sizeof(fresh));
	rekey_schedule(s);
	/* Tells the acceptor that we have them, too. */
	pool_owe_ack(s, true);
}

void pool_rekey_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len,
			bool old_keys)
{
	const struct pool_wire_rekey *w = (const void *)plaintext;
	struct pool_rekey *r = &s->rekey;
	u32 epoch;
	int order;

	if (len != sizeof(*w) || memchr_inv(w->zero, 0, sizeof(w->zero)) ||
	    (w->stage != STAGE_PROPOSE && w->stage != STAGE_ACCEPT)) {
		pool_count(malformed);
		return;
	}
	epoch = be32_to_cpu(w->epoch);
	if (w->stage == STAGE_PROPOSE && r->accepted_any && epoch == r->epoch &&
	    !memcmp(w->pubkey, r->accepted, POOL_KEY_LEN))
		return;		/* RK-05: a repeat of what was accepted */
	if (old_keys || epoch != r->epoch + 1 || (w->stage == STAGE_ACCEPT && s->state != POOL_REKEYING)) {
		pool_count(malformed);
		return;
	}
	if (w->stage == STAGE_ACCEPT) {
		/* What we sent under the old keys arrives first (E-85). */
		r->answered = s->rel && s->rel->flying;
		memcpy(r->answer_public, w->pubkey, POOL_KEY_LEN);
		if (!r->answered)
			rekey_complete(s, w->pubkey);
		return;
	}
	if (s->state == POOL_REKEYING) {
		/* RK-03: the lower key wins. */
		order = memcmp(r->public, w->pubkey, POOL_KEY_LEN);
		if (!order) {
			pool_count(malformed);
			rekey_fail(s, "both ends proposed the same key");
			return;
		}
		if (order < 0) {
			pool_owe_ack(s, true);
			return;
		}
	}
	if (!s->rel) {
		rekey_accept(s, w->pubkey);
		return;
	}
	mutex_lock(&s->conn->tx_lock);
	r->asked = true;
	memcpy(r->asked_public, w->pubkey, POOL_KEY_LEN);
	mutex_unlock(&s->conn->tx_lock);
	pool_rekey_drained(s);
}

void pool_rekey_drained(struct pool_session *s)
{
	struct pool_rekey *r = &s->rekey;
	bool now;

	lockdep_assert_held(&s->conn->rx_lock);
	if ((!r->wants && !r->asked && !r->answered) || s->ended || s->state == POOL_CLOSING)
		return;
	mutex_lock(&s->conn->tx_lock);
	now = may_speak(s);
	mutex_unlock(&s->conn->tx_lock);
	if (!now)
		return;
	if (r->answered)
		rekey_complete(s, r->answer_public);
	else if (r->asked)
		rekey_accept(s, r->asked_public);
	else
		propose(s);
}

bool pool_rekey_outdated(const struct pool_session *s, u64 seq)
{
	return s->rel && s->rekey.drop_ns && seq > s->rekey.lowest_new;
}

static void drop_old_keys(struct pool_rekey *r)
{
	r->old_valid = false;
	r->drop_ns = 0;
	memzero_explicit(&r->old, sizeof(r->old));
}

void pool_rekey_verified(struct pool_session *s, u64 seq)
{
	struct pool_rekey *r = &s->rekey;

	if (!r->old_valid)
		return;
	if (!s->rel) {
		drop_old_keys(r);
	} else if (!r->drop_ns) {
		r->drop_ns = ktime_get_ns() + OLD_KEYS_NS;
		r->lowest_new = seq;
		mutex_lock(&s->conn->tx_lock);
		if (r->unconfirmed) {
			r->unconfirmed = false;
			completed(s);
		}
		pool_send_held_locked(s);
		mutex_unlock(&s->conn->tx_lock);
		pool_rekey_drained(s);
	} else {
		r->lowest_new = min(r->lowest_new, seq);
		return;
	}
	rekey_schedule(s);
}

/* A proposal of ours waits for its accept (RK-05). */
static void await_accept(struct pool_session *s, u64 now)
{
	struct pool_rekey *r = &s->rekey;

	if (now >= r->proposed_ns + ANSWER_NS) {
		rekey_fail(s, "the peer never accepted a rekey");
		return;
	}
	if (r->repeats < most_repeats(s) && now >= r->proposed_ns + repeat_sec[r->repeats] * NSEC_PER_SEC) {
		r->repeats++;
		mutex_lock(&s->conn->tx_lock);
		send_stage(s, STAGE_PROPOSE, r->epoch + 1, r->public);
		mutex_unlock(&s->conn->tx_lock);
	}
	rekey_schedule(s);
}

/* The key has reached its limit: replace it, and end the session if nothing comes of that (RK-05, E-67). */
static void replace_worn(struct pool_session *s, u64 now)
{
	struct pool_rekey *r = &s->rekey;

	if (!r->overdue_ns) {
		WRITE_ONCE(r->overdue_packets, packets_since(s) + OVERDUE_PACKETS);
		WRITE_ONCE(r->overdue_ns, now);
	}
	pool_rekey_propose(s);
	rekey_schedule(s);
}

static void ask_again(struct pool_session *s)
{
	if (s->rel) {
		pool_rekey_drained(s);
		rekey_schedule(s);
	} else {
		rekey_accept(s, s->rekey.asked_public);
	}
}

static void forget_old_keys(struct pool_session *s)
{
	drop_old_keys(&s->rekey);
	rekey_schedule(s);
}

void pool_rekey_timer(struct pool_session *s, u64 now)
{
	struct pool_rekey *r = &s->rekey;

	if (r->overdue_ns && (now >= r->overdue_ns + OVERDUE_NS || packets_since(s) >= r->overdue_packets))
		rekey_fail(s, "the key is past its limit");
	else if (r->asked)
		ask_again(s);
	else if (s->state == POOL_REKEYING)
		await_accept(s, now);
	else if (r->old_valid && r->drop_ns && now >= r->drop_ns)
		forget_old_keys(s);
	else if (r->old_valid && !r->drop_ns && now >= r->unused_ns + ANSWER_NS)
		rekey_fail(s, "the peer never used the new keys");
	else if (r->overdue_ns || worn(s) ||
		 now >= r->since_ns + pool_config_params().rekey_sec * NSEC_PER_SEC)
		replace_worn(s, now);
	else
		rekey_schedule(s);
}

void pool_rekey_postpone(struct pool_session *s, u64 ns)
{
	s->rekey.proposed_ns += ns;
	s->rekey.unused_ns += ns;
}

void pool_rekey_erase(struct pool_session *s)
{
	memzero_explicit(s->shared, sizeof(s->shared));
	memzero_explicit(&s->rekey.private, sizeof(s->rekey.private));
	memzero_explicit(&s->rekey.old, sizeof(s->rekey.old));
	s->rekey.old_valid = false;
}
