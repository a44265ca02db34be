// SPDX-License-Identifier: GPL-2.0-or-later
/* Raw IP, the receiving side: duplicates, and packets back into their order. rx_lock guards it. */
#include <linux/mm.h>
#include <linux/slab.h>
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "reliable.h"
#include "session.h"

#define EARLY_BYTES_MAX	(256 << 10)

bool pool_reliable_numbered(const struct pool_hdr *h)
{
	return pool_hdr_type(h) != POOL_ACK || (pool_hdr_flags(h) & POOL_NUMBERED_ACK);
}

static bool is_void(const struct pool_hdr *h)
{
	return pool_hdr_type(h) == POOL_ACK && (pool_hdr_flags(h) & POOL_NUMBERED_ACK) == POOL_F_PRIORITY;
}

/* A CLOSE comes when its sender has drained or given up; a probe and its answer tell of the path (section 11). */
static bool at_once(const struct pool_hdr *h)
{
	u8 type = pool_hdr_type(h);

	return type == POOL_CLOSE || is_void(h) ||
	       (type == POOL_DISCOVER && !(pool_hdr_flags(h) & POOL_F_TELEMETRY));
}

static size_t early_size(const struct pool_early *e)
{
	return struct_size(e, plaintext, e->len);
}

static void early_free(struct pool_early *e)
{
	if (e)
		kvfree_sensitive(e, early_size(e));
}

void pool_reliable_drop_early(struct pool_session *s)
{
	struct pool_reliable *rel = s->rel;
	int i;

	lockdep_assert_held(&s->conn->rx_lock);
	for (i = 0; i < POOL_AHEAD; i++) {
		early_free(rel->early[i]);
		rel->early[i] = NULL;
	}
	rel->early_bytes = 0;
	rel->early_data = 0;
}

bool pool_reliable_welcomed_again(struct pool_session *s, const struct pool_hdr *h)
{
	if (s->role != POOL_CLIENT || pool_hdr_type(h) != POOL_ACK ||
	    memcmp(h->hmac, s->rel->welcome.hmac, POOL_HMAC_LEN))
		return false;
	pool_count(duplicate);
	pool_owe_ack(s, false);
	return true;
}

/* TRN-06 */
static void answer_duplicate(struct pool_session *s, const struct pool_hdr *h)
{
	pool_count(duplicate);
	if (pool_hdr_type(h) == POOL_RESPONSE && s->role == POOL_SERVER && be64_to_cpu(h->seq) == s->rel->first) {
		mutex_lock(&s->conn->tx_lock);
		pool_reliable_welcome_again(s);		/* SEQ-03 */
		mutex_unlock(&s->conn->tx_lock);
	} else {
		pool_owe_ack(s, false);
	}
}

bool pool_reliable_admits(struct pool_session *s, const struct pool_hdr *h)
{
	struct pool_reliable *rel = s->rel;
	u64 seq = be64_to_cpu(h->seq);
	u32 len = pool_hdr_payload_len(h);

	if (seq < rel->next || !pool_window_fresh(&s->window, seq)) {
		answer_duplicate(s, h);
		return false;
	}
	if (seq - rel->next >= POOL_AHEAD) {
		pool_count(out_of_window);
		return false;
	}
	/* DATA-04 */
	if ((pool_hdr_type(h) == POOL_DATA && !pool_rxq_has_room(s, rel->early_data)) ||
	    (seq != rel->next && rel->early_bytes + len > EARLY_BYTES_MAX)) {
		pool_count_error(overload, POOL_CODE_OVERLOAD, s->conn);
		return false;
	}
	if (seq == rel->next || at_once(h))
		return true;
	/* Room for it before it is committed: after that it may not get lost. */
	early_free(rel->spare);
	rel->spare = kvmalloc(struct_size(rel->spare, plaintext, len), GFP_KERNEL);
	if (!rel->spare) {
		pool_count(no_memory);
		return false;
	}
	rel->spare->len = len;
	return true;
}

static void keep(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len, bool old_keys)
{
	struct pool_reliable *rel = s->rel;
	struct pool_early *e = rel->spare;

	rel->spare = NULL;
	e->h = *h;
	e->old_keys = old_keys;
	e->used = len;
	memcpy(e->plaintext, plaintext, len);
	rel->early[be64_to_cpu(h->seq) % POOL_AHEAD] = e;
	rel->early_bytes += e->len;
	if (pool_hdr_type(h) == POOL_DATA)
		rel->early_data++;
}

/* The next one's turn; h NULL: it was acted on when it came. */
static void turn(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len, bool old_keys)
{
	u64 seq = s->rel->next++;
	/* These are decided on before anything acknowledges them (E-44). */
	bool decision = h && (pool_hdr_type(h) == POOL_CONFIG || pool_hdr_type(h) == POOL_ROLLBACK);

	if (!decision)
		WRITE_ONCE(s->rx_ack, seq);
	if (h)
		pool_session_act(s, h, plaintext, len, old_keys);
	if (decision)
		WRITE_ONCE(s->rx_ack, seq);
}

static void advance(struct pool_session *s)
{
	struct pool_reliable *rel = s->rel;
	struct pool_early *e;

	while (!s->ended && rel->next <= s->window.highest && !pool_window_fresh(&s->window, rel->next)) {
		e = rel->early[rel->next % POOL_AHEAD];
		rel->early[rel->next % POOL_AHEAD] = NULL;
		if (!e) {
			turn(s, NULL, NULL, 0, false);
			continue;
		}
		rel->early_bytes -= e->len;
		if (pool_hdr_type(&e->h) == POOL_DATA)
			rel->early_data--;
		turn(s, &e->h, e->plaintext, e->used, e->old_keys);
		early_free(e);
	}
}

void pool_reliable_arrived(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len,
			   bool old_keys, bool numbered)
{
	u8 type = pool_hdr_type(h);
	bool answered = false;		/* by what acknowledges it as well */

	lockdep_assert_held(&s->conn->rx_lock);
	if (!numbered) {
		pool_session_act(s, h, plaintext, len, old_keys);
		return;
	}
	if (at_once(h)) {
		advance(s);
		if (!is_void(h) && !s->ended)
			pool_session_act(s, h, plaintext, len, old_keys);
		answered = type == POOL_DISCOVER && (pool_hdr_flags(h) & POOL_F_REQUIRE_ACK);
	} else if (be64_to_cpu(h->seq) == s->rel->next) {
		turn(s, h, plaintext, len, old_keys);
		advance(s);
		answered = type == POOL_CONFIG || type == POOL_ROLLBACK;
	} else {
		keep(s, h, plaintext, len, old_keys);
	}
	if (!s->ended && !answered)
		pool_owe_ack(s, type == POOL_HEARTBEAT);
}
