// SPDX-License-Identifier: GPL-2.0-or-later
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "mtu.h"
#include "session.h"

#define SEARCH_STOP	16
#define DELAY_NS	NSEC_PER_SEC		/* from the establishment to the first probe */
#define SPACING_NS	NSEC_PER_SEC
#define ANSWER_NS	(2ULL * NSEC_PER_SEC)
#define PERIOD_NS	(60ULL * NSEC_PER_SEC)

/* What to probe next; 0: the search is over. */
static u16 next_size(const struct pool_mtu_search *m)
{
	if (m->low >= m->high)
		return 0;
	if (!m->tried)
		return m->high;
	return m->high - m->low < SEARCH_STOP ? 0 : (m->low + m->high) / 2;
}

static void settle(struct pool_mtu_search *m, bool passed)
{
	u16 size = next_size(m);

	m->in_flight = 0;
	m->tried = true;
	if (passed)
		m->low = size;
	else
		m->high = size;
}

static int send_probe(struct pool_session *s, u16 size)
{
	u8 plaintext[POOL_MTU_MOST] = {};

	put_unaligned_be16(size, plaintext);
	return pool_send_control(s, POOL_DISCOVER, POOL_F_REQUIRE_ACK, POOL_MARK_NONE, plaintext,
				 POOL_DATA_MAX(size));
}

static void proceed(struct pool_session *s, u64 now)
{
	struct pool_mtu_search *m = &s->mtu_search;
	u16 size = next_size(m);

	if (!size) {
		m->running = false;
		WRITE_ONCE(s->mtu, m->low);
		pool_part_set(s, POOL_PART_MTU, now + PERIOD_NS);
	} else if (now < m->quiet_until) {
		pool_part_set(s, POOL_PART_MTU, m->quiet_until);
	} else if (!pool_send_flows(s) || send_probe(s, size)) {
		/* Waiting to be sent is no sign of a small path. */
		pool_part_set(s, POOL_PART_MTU, now + SPACING_NS);
	} else {
		m->quiet_until = now + SPACING_NS;
		m->in_flight = size;
		pool_part_set(s, POOL_PART_MTU, now + ANSWER_NS);
	}
}

void pool_mtu_start(struct pool_session *s)
{
	struct pool_mtu_search *m = &s->mtu_search;
	struct pool_params params = pool_config_params();

	m->bound_low = params.mtu_min;
	m->bound_high = params.mtu_max;
	m->quiet_until = s->started_ns + DELAY_NS;
	WRITE_ONCE(s->mtu, s->rel ? m->bound_low : m->bound_high);	/* MTU-02 */
	pool_part_set(s, POOL_PART_MTU, m->quiet_until);
}

/* Other bounds are in force: keep within them at once, and search anew (E-49). */
static bool rebound(struct pool_session *s)
{
	struct pool_mtu_search *m = &s->mtu_search;
	struct pool_params params = pool_config_params();

	if (params.mtu_min == m->bound_low && params.mtu_max == m->bound_high)
		return false;
	m->bound_low = params.mtu_min;
	m->bound_high = params.mtu_max;
	m->running = false;
	m->in_flight = 0;
	WRITE_ONCE(s->mtu, clamp(s->mtu, m->bound_low, m->bound_high));
	return true;
}

void pool_mtu_timer(struct pool_session *s, u64 now)
{
	struct pool_mtu_search *m = &s->mtu_search;

	if (rebound(s) && now < m->quiet_until) {
		pool_part_set(s, POOL_PART_MTU, m->quiet_until);
		return;
	}
	if (!m->running) {
		m->running = true;
		m->low = m->bound_low;
		m->high = m->bound_high;
		m->tried = false;
		m->in_flight = 0;
	} else if (m->in_flight) {
		settle(m, false);
	}
	proceed(s, now);
}

void pool_mtu_probe_now(struct pool_session *s)
{
	struct pool_mtu_search *m = &s->mtu_search;

	if (!m->running)
		pool_part_set(s, POOL_PART_MTU, max(ktime_get_ns(), m->quiet_until));
}

/* MTU-01: the answer is also the ack. */
static void receive_probe(struct pool_session *s, const u8 *plaintext, u32 len)
{
	u16 size = len >= sizeof(__be16) ? get_unaligned_be16(plaintext) : 0;
	__be16 answer = cpu_to_be16(size);

	if (size < POOL_MTU_LEAST || size > POOL_MTU_MOST || POOL_DATA_MAX(size) != len ||
	    memchr_inv(plaintext + sizeof(answer), 0, len - sizeof(answer))) {
		pool_count(malformed);
		pool_owe_ack(s, false);
		return;
	}
	/* While packets are held or pile up no answer can leave in time; an ACK can. */
	if (!pool_send_flows(s) ||
	    pool_send_control(s, POOL_DISCOVER, 0, POOL_MARK_NONE, &answer, sizeof(answer)))
		pool_owe_ack(s, false);
}

static void receive_answer(struct pool_session *s, const u8 *plaintext, u32 len)
{
	struct pool_mtu_search *m = &s->mtu_search;

	if (len != sizeof(__be16)) {
		pool_count(malformed);
		return;
	}
	/* MTU-03: only the size in flight counts. */
	if (!m->in_flight || get_unaligned_be16(plaintext) != m->in_flight) {
		pool_count(unsolicited);
		return;
	}
	settle(m, true);
	proceed(s, ktime_get_ns());
}

void pool_mtu_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	if (pool_hdr_flags(h) & POOL_F_REQUIRE_ACK)
		receive_probe(s, plaintext, len);
	else
		receive_answer(s, plaintext, len);
}
