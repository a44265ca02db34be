// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/bitops.h>
#include <linux/jiffies.h>
#include "conn.h"
#include "parts.h"
#include "rekey.h"
#include "reliable.h"
#include "session.h"

/* receive_driven: waits for something from the peer, so it stands still while nothing is read (DATA-04). */
static const struct {
	void (*timer)(struct pool_session *s, u64 now);
	bool receive_driven;
} parts[POOL_PARTS] = {
	[POOL_PART_HEARTBEAT] = { pool_heartbeat_timer, false },
	[POOL_PART_SILENCE]   = { pool_silence_timer, true },
	[POOL_PART_FRAGMENTS] = { pool_fragments_timer, true },
	[POOL_PART_REKEY]     = { pool_rekey_timer, true },
	[POOL_PART_RELIABLE]  = { pool_reliable_timer, false },
	[POOL_PART_CONFIG]    = { pool_configure_timer, false },
	[POOL_PART_REPLICA]   = { pool_replica_timer, false },
	[POOL_PART_MTU]       = { pool_mtu_timer, true },
	[POOL_PART_EXCHANGE]  = { pool_exchange_timer, false },
	[POOL_PART_VIGIL]     = { pool_vigil_timer, true },
};

static void arm(struct pool_session *s, unsigned long delay)
{
	pool_session_get(s);
	if (mod_delayed_work(pool_wq, &s->parts_work, delay))
		pool_session_put(s);
	/* Whoever ended the session meanwhile may have found no timer to cancel. */
	if (READ_ONCE(s->ended))
		pool_session_disarm(s, &s->parts_work);
}

static void arm_until(struct pool_session *s, u64 due, u64 now)
{
	s->parts_armed = due;
	arm(s, due > now ? pool_timer_step(nsecs_to_jiffies(due - now) + 1) : 0);
}

void pool_part_set(struct pool_session *s, enum pool_part part, u64 due_ns)
{
	lockdep_assert_held(&s->conn->rx_lock);
	s->due[part] = due_ns;
	if (due_ns < s->parts_armed && !s->ended)
		arm_until(s, due_ns, ktime_get_ns());
}

void pool_part_kick(struct pool_session *s, enum pool_part part)
{
	if (!test_and_set_bit(part, &s->parts_kicked))
		arm(s, 0);
}

void pool_parts_postpone(struct pool_session *s, u64 ns)
{
	int i;

	lockdep_assert_held(&s->conn->rx_lock);
	for (i = 0; i < POOL_PARTS; i++)
		if (parts[i].receive_driven && s->due[i] != POOL_NEVER)
			s->due[i] += ns;
	s->last_rx_ns += ns;
	pool_fragments_postpone(s, ns);
	pool_rekey_postpone(s, ns);
	pool_vigil_postpone(s, ns);
	/* Somebody may have become due while it stood still. */
	pool_part_kick(s, POOL_PART_SILENCE);
}

void pool_parts_init(struct pool_session *s)
{
	int i;

	for (i = 0; i < POOL_PARTS; i++)
		s->due[i] = POOL_NEVER;
	s->parts_armed = POOL_NEVER;
}

void pool_parts_work(struct work_struct *work)
{
	struct pool_session *s = container_of(to_delayed_work(work), struct pool_session, parts_work);
	u64 now, next = POOL_NEVER;
	int i;

	mutex_lock(&s->conn->rx_lock);
	s->parts_armed = POOL_NEVER;
	for (i = 0; i < POOL_PARTS && !s->ended; i++) {
		now = ktime_get_ns();
		if (s->rx_paused && parts[i].receive_driven)
			continue;
		if (test_and_clear_bit(i, &s->parts_kicked) || s->due[i] <= now) {
			s->due[i] = POOL_NEVER;
			parts[i].timer(s, now);
		}
	}
	for (i = 0; i < POOL_PARTS; i++)
		if (!(s->rx_paused && parts[i].receive_driven) && s->due[i] < next)
			next = s->due[i];
	if (next != POOL_NEVER && !s->ended)
		arm_until(s, next, ktime_get_ns());
	mutex_unlock(&s->conn->rx_lock);
	pool_session_put(s);
}
