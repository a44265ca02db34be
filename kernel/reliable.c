// SPDX-License-Identifier: GPL-2.0-or-later
/* Raw IP, the sending side: what is in flight, sending it again, parting. */
#include <linux/mm.h>
#include <linux/slab.h>
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "mtu.h"
#include "parts.h"
#include "raw.h"
#include "rekey.h"
#include "reliable.h"
#include "session.h"

/* TRN-04 */
#define RTO_FIRST_NS	(1ULL * NSEC_PER_SEC)
#define RTO_LEAST_NS	(200ULL * NSEC_PER_MSEC)
#define RTO_MOST_NS	(10ULL * NSEC_PER_SEC)
#define SENDS		8
#define FRAGMENTABLE	4		/* from this send on DF is clear */
/* Section 15 */
#define CLOSE_SENDS	3
#define DRAIN_NS	(5ULL * NSEC_PER_SEC)
#define CLOSE_NS	(5ULL * NSEC_PER_SEC)	/* E-92 */
#define DRAIN_HURRY_NS	(700ULL * NSEC_PER_MSEC)

#define ANSWER		(POOL_F_CONFIG_LOCKED | POOL_F_ROLLBACK_READY)

static bool hurry;

struct pool_reliable *pool_reliable_alloc(void)
{
	struct pool_reliable *rel = kzalloc(sizeof(*rel), GFP_KERNEL);

	if (rel) {
		INIT_LIST_HEAD(&rel->flight);
		rel->look_ns = POOL_NEVER;
	}
	return rel;
}

void pool_reliable_free(struct pool_reliable *rel)
{
	if (!rel)
		return;
	pool_free_packets(&rel->flight);
	kvfree_sensitive(rel->spare, rel->spare ? struct_size(rel->spare, plaintext, rel->spare->len) : 0);
	kfree_sensitive(rel);
}

void pool_reliable_start(struct pool_session *s)
{
	lockdep_assert_held(&s->conn->rx_lock);
	s->rel->first = s->window.highest;
	s->rel->next = s->rel->first + 1;
	pool_raw_established(s->conn);
}

static void drop_flight(struct pool_session *s)
{
	lockdep_assert_held(&s->conn->tx_lock);
	pool_free_packets(&s->rel->flight);
	s->rel->flying = 0;
	s->rel->look_ns = POOL_NEVER;
}

void pool_reliable_erase(struct pool_session *s)
{
	drop_flight(s);
	pool_reliable_drop_early(s);
	memzero_explicit(&s->rel->welcome, sizeof(s->rel->welcome));
}

bool pool_reliable_exempt(const struct pool_session *s, const struct pool_txbuf *b)
{
	bool welcome = s->role == POOL_SERVER && s->tx_next == s->tx_first;

	return b->type == POOL_ACK && !(b->flags & POOL_NUMBERED_ACK) && !welcome;
}

bool pool_reliable_full(const struct pool_session *s)
{
	return s->rel->flying >= POOL_IN_FLIGHT;
}

static u64 first_timeout(const struct pool_session *s)
{
	u64 srtt = READ_ONCE(s->srtt_ns);

	if (!srtt)
		return RTO_FIRST_NS;
	return clamp(srtt + 4 * READ_ONCE(s->jitter_ns), RTO_LEAST_NS, RTO_MOST_NS);
}

static void transmit(struct pool_session *s, const void *packet, u32 len, bool dont_fragment)
{
	struct pool_raw *raw = s->conn->raw;

	if (!pool_conn_dead(s->conn))
		pool_raw_transmit(raw->local, raw->peer, packet, len, dont_fragment);
}

void pool_reliable_launch(struct pool_session *s, struct pool_txbuf *b, bool exempt)
{
	struct pool_reliable *rel = s->rel;
	const struct pool_hdr *h = (const void *)b->data;

	lockdep_assert_held(&s->conn->tx_lock);
	transmit(s, b->data, b->len, true);
	if (exempt) {
		kvfree(b);
		return;
	}
	if (s->role == POOL_SERVER && b->seq == s->tx_first)
		rel->welcome = *h;
	if (b->exact_ack && (b->flags & ANSWER)) {
		rel->answer = *h;
		rel->answered = b->ack;
		rel->has_answer = true;
	}
	b->sends = 1;
	b->interval_ns = first_timeout(s);
	b->due_ns = ktime_get_ns() + b->interval_ns;
	list_add_tail(&b->list, &rel->flight);
	rel->flying++;
	if (b->due_ns < rel->look_ns) {
		rel->look_ns = b->due_ns;
		pool_part_kick(s, POOL_PART_RELIABLE);
	}
}

bool pool_reliable_repeat_answer(struct pool_session *s)
{
	struct pool_reliable *rel = s->rel;

	lockdep_assert_held(&s->conn->tx_lock);
	if (!rel->has_answer || rel->answered != READ_ONCE(s->rx_ack))
		return false;
	transmit(s, &rel->answer, sizeof(rel->answer), true);
	return true;
}

void pool_reliable_welcome_again(struct pool_session *s)
{
	transmit(s, &s->rel->welcome, sizeof(s->rel->welcome), true);
}

void pool_reliable_rekeyed(struct pool_session *s)
{
	s->rel->has_answer = false;
}

/* MTU-01 */
static bool is_probe(const struct pool_txbuf *b)
{
	return b->type == POOL_DISCOVER && (b->flags & POOL_F_REQUIRE_ACK) && !(b->flags & POOL_F_TELEMETRY);
}

/* TRN-07: what fills the place of a probe that got lost. */
static void make_void(struct pool_session *s, struct pool_txbuf *b)
{
	struct pool_hdr *h = (struct pool_hdr *)b->data;

	b->type = POOL_ACK;
	b->flags = POOL_F_PRIORITY;
	b->len = POOL_HDR_LEN;
	h->ver_type = POOL_VERSION << 4 | POOL_ACK;
	h->flags = cpu_to_be16(POOL_F_PRIORITY);
	h->ack = cpu_to_be64(READ_ONCE(s->rx_ack));
	h->timestamp = cpu_to_be64(ktime_get_ns());
	h->payload_len = 0;
	pool_keys_sign(pool_rekey_tx_keys(s), h);
}

/* Send again what has waited long enough. False: it was sent as often as it may be. */
static bool resend(struct pool_session *s, u64 now, bool *lost)
{
	struct pool_reliable *rel = s->rel;
	u64 next = POOL_NEVER;
	struct pool_txbuf *b;

	lockdep_assert_held(&s->conn->tx_lock);
	list_for_each_entry(b, &rel->flight, list) {
		if (b->due_ns <= now) {
			if (b->sends >= SENDS)
				return false;
			if (is_probe(b))
				make_void(s, b);
			else
				*lost = true;
			b->sends++;
			b->interval_ns = min(2 * b->interval_ns, RTO_MOST_NS);
			b->due_ns = now + b->interval_ns;
			transmit(s, b->data, b->len, b->sends < FRAGMENTABLE);
			pool_count(packets_resent);
			/* Nothing that could still come would change anything. */
			if (b->type == POOL_CLOSE && b->sends >= CLOSE_SENDS)
				return false;
		}
		next = min(next, b->due_ns);
	}
	rel->look_ns = next;
	return true;
}

/* Say CLOSE once nothing is left to wait for, and end once it is acknowledged. */
static void part_step(struct pool_session *s, u64 now)
{
	struct pool_reliable *rel = s->rel;
	bool done;

	lockdep_assert_held(&s->conn->rx_lock);
	mutex_lock(&s->conn->tx_lock);
	if (rel->parting == POOL_DRAINS && ((!rel->flying && list_empty(&s->held)) || now >= rel->part_ns)) {
		drop_flight(s);
		pool_drop_held_locked(s);
		rel->parting = POOL_SAID_CLOSE;
		WRITE_ONCE(s->state, POOL_CLOSING);
		pool_send_close_locked(s, rel->code);
		rel->part_ns = now + CLOSE_NS;
	}
	done = rel->parting == POOL_SAID_CLOSE && (!rel->flying || now >= rel->part_ns);
	mutex_unlock(&s->conn->tx_lock);
	if (done)
		pool_session_end_locked(s, POOL_CLOSE_NONE, rel->why);
}

static void set_timer(struct pool_session *s)
{
	u64 due = READ_ONCE(s->rel->look_ns);

	if (s->rel->parting)
		due = min(due, s->rel->part_ns);
	pool_part_set(s, POOL_PART_RELIABLE, due);
}

void pool_reliable_timer(struct pool_session *s, u64 now)
{
	struct pool_reliable *rel = s->rel;
	bool lost = false, hope;

	if (!rel)
		return;
	mutex_lock(&s->conn->tx_lock);
	hope = resend(s, now, &lost);
	mutex_unlock(&s->conn->tx_lock);
	if (!hope)
		pool_session_end_locked(s, POOL_CLOSE_NONE,
					rel->parting == POOL_SAID_CLOSE ? rel->why : "timeout");
	else if (rel->parting)
		part_step(s, now);
	if (s->ended)
		return;
	set_timer(s);
	if (lost && !rel->parting)
		pool_mtu_probe_now(s);		/* MTU-03 */
}

void pool_reliable_acked(struct pool_session *s, u64 ack)
{
	struct pool_reliable *rel = s->rel;
	struct pool_txbuf *b, *next;
	bool resent = false, any = false;

	lockdep_assert_held(&s->conn->rx_lock);
	mutex_lock(&s->conn->tx_lock);
	list_for_each_entry_safe(b, next, &rel->flight, list) {
		if (b->seq > ack)
			break;
		resent |= b->sends > 1;
		any = true;
		list_del(&b->list);
		rel->flying--;
		kvfree(b);
	}
	/* The time it took says nothing of the path. */
	if (resent && s->mark[POOL_MARK_HEARTBEAT].seq <= ack)
		WRITE_ONCE(s->marked, s->marked & ~BIT(POOL_MARK_HEARTBEAT));
	if (any)
		pool_send_held_locked(s);
	mutex_unlock(&s->conn->tx_lock);
	if (!any)
		return;
	pool_rekey_drained(s);
	if (rel->parting && !s->ended)
		part_step(s, ktime_get_ns());
}

bool pool_reliable_part(struct pool_session *s, int close, const char *why)
{
	struct pool_reliable *rel = s->rel;
	u64 now = ktime_get_ns();

	lockdep_assert_held(&s->conn->rx_lock);
	if (s->ended || (s->state != POOL_ESTABLISHED && s->state != POOL_REKEYING))
		return !s->ended && rel->parting;
	if (!rel->parting) {
		rel->part_ns = now + DRAIN_NS;
		rel->code = close;
		strscpy(rel->why, why, sizeof(rel->why));
	}
	rel->parting = POOL_DRAINS;
	WRITE_ONCE(s->parting, true);
	if (close != POOL_CLOSE_EMPTY) {
		rel->code = close;
		rel->part_ns = now;
		pool_journal_error(close, s->conn, why);
	} else if (READ_ONCE(hurry)) {
		rel->part_ns = min(rel->part_ns, now + DRAIN_HURRY_NS);
	}
	wake_up_all(&s->rx_wait);
	wake_up_all(&s->conn->tx_wait);
	part_step(s, now);
	if (!s->ended)
		set_timer(s);
	return true;
}

void pool_reliable_hurry(void)
{
	WRITE_ONCE(hurry, true);
}
