/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which packet types each state takes: section 5, WIRE-06. */
#ifndef POOL_STATES_H
#define POOL_STATES_H

#include <linux/types.h>
#include "wire.h"

enum pool_state {
	POOL_IDLE,
	POOL_INIT_SENT,
	POOL_CHALLENGED,
	POOL_ESTABLISHED,
	POOL_REKEYING,
	POOL_CLOSING,
	POOL_LISTENER,		/* a connection without a session; never shown */
	POOL_STATE_COUNT
};

/* False has been counted: unexpected_type or unknown_type. */
bool pool_state_takes(enum pool_state state, u8 type);
const char *pool_state_name(enum pool_state state);

#endif
