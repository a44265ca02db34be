/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a session does by the clock. Each part has a time at which it is due; one work
 * item serves them all, with rx_lock held.
 */
#ifndef POOL_PARTS_H
#define POOL_PARTS_H

#include <linux/types.h>

struct pool_session;
struct work_struct;

enum pool_part {
	POOL_PART_HEARTBEAT,
	POOL_PART_SILENCE,
	POOL_PART_FRAGMENTS,
	POOL_PART_REKEY,
	POOL_PART_RELIABLE,
	POOL_PART_CONFIG,
	POOL_PART_REPLICA,
	POOL_PART_MTU,
	POOL_PART_EXCHANGE,
	POOL_PART_VIGIL,
	POOL_PARTS
};

#define POOL_NEVER	U64_MAX

/* Due at that moment, ktime_get_ns(); POOL_NEVER: not at all. rx_lock is held. */
void pool_part_set(struct pool_session *s, enum pool_part part, u64 due_ns);
/* Due now; from any context that may not take rx_lock. */
void pool_part_kick(struct pool_session *s, enum pool_part part);
/* Nothing was read for so long: what waits for the peer waits as much longer (DATA-04). rx_lock is held. */
void pool_parts_postpone(struct pool_session *s, u64 ns);
void pool_parts_init(struct pool_session *s);
void pool_parts_work(struct work_struct *work);

#endif
