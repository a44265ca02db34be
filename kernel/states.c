// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/bits.h>
#include "counters.h"
#include "states.h"

#define KEYED (BIT(POOL_DATA) | BIT(POOL_ACK) | BIT(POOL_HEARTBEAT) | BIT(POOL_REKEY) | \
	       BIT(POOL_CLOSE) | BIT(POOL_CONFIG) | BIT(POOL_ROLLBACK) | BIT(POOL_DISCOVER) | \
	       BIT(POOL_JOURNAL) | BIT(POOL_INTEGRITY))

static const struct {
	const char *name;
	u16 types;
} states[POOL_STATE_COUNT] = {
	[POOL_IDLE]        = { "IDLE",        0 },
	[POOL_INIT_SENT]   = { "INIT_SENT",   BIT(POOL_CHALLENGE) | BIT(POOL_CLOSE) },
	[POOL_CHALLENGED]  = { "CHALLENGED",  BIT(POOL_ACK) | BIT(POOL_CLOSE) },
	[POOL_ESTABLISHED] = { "ESTABLISHED", KEYED },
	[POOL_REKEYING]    = { "REKEYING",    KEYED },
	[POOL_CLOSING]     = { "CLOSING",     BIT(POOL_CLOSE) | BIT(POOL_ACK) },
	[POOL_LISTENER]    = { "LISTENER",    BIT(POOL_INIT) | BIT(POOL_RESPONSE) },
};

bool pool_state_takes(enum pool_state state, u8 type)
{
	if (states[state].types & BIT(type))
		return true;
	if (type >= POOL_TYPE_FIRST_UNKNOWN)
		pool_count(unknown_type);
	else
		pool_count(unexpected_type);
	return false;
}

const char *pool_state_name(enum pool_state state)
{
	return states[state].name;
}
