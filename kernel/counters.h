/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every discard has a counter that /proc/pool/counters shows (ERR-01). */
#ifndef POOL_COUNTERS_H
#define POOL_COUNTERS_H

#include <linux/atomic.h>

struct seq_file;

#define POOL_COUNTERS(x) \
	x(version_mismatch) x(malformed) x(unknown_type) x(unexpected_type) x(unknown_session) \
	x(spoofed) x(auth_fail) x(decrypt_fail) x(replay_drops) x(reflected) x(bad_ack) \
	x(stale_init) x(duplicate) x(out_of_window) x(overload) x(unsubscribed) x(frag_timeout) x(config_reject) \
	x(journal_full) x(journal_broken) x(not_permitted) x(unsolicited) x(integrity_fail) x(integrity_limited) \
	x(announce_limited) x(peers_full) \
	x(packets_lost) x(not_implemented) \
	x(bad_session_id) x(stale_response) x(bad_puzzle) x(low_order_key) x(bad_proof) x(no_slot) \
	x(too_difficult) x(no_randomness) x(frag_evicted) x(no_memory) \
	x(packets_sent) x(packets_received) x(packets_resent) x(send_failures) \
	x(challenges_sent) x(handshakes_completed) \
	x(handshakes_failed) x(handshake_timeouts) x(handshakes_evicted) x(sessions_ended) x(peers_dead) \
	x(multicast_failures) x(errors_not_journalled)

enum pool_counter {
#define POOL_COUNTER_ENUM(name) POOL_CNT_##name,
	POOL_COUNTERS(POOL_COUNTER_ENUM)
#undef POOL_COUNTER_ENUM
	POOL_CNT_COUNT
};

extern atomic64_t pool_counters[POOL_CNT_COUNT];

/* They saturate, they do not wrap (HB-03). */
static inline void pool_count_one(enum pool_counter which)
{
	atomic64_add_unless(&pool_counters[which], 1, -1);
}

#define pool_count(name)	pool_count_one(POOL_CNT_##name)
/* For what may be taken back. */
#define pool_count_add(name, n)	atomic64_add(n, &pool_counters[POOL_CNT_##name])

/* A fault: two below the end. */
void pool_counters_exhaust(void);

void pool_counters_show(struct seq_file *m);

#endif
