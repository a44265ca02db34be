/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_PARAMS_H
#define POOL_PARAMS_H

#include <linux/types.h>

/* Module parameters, validated at load. */
struct pool_params {
	uint difficulty;	/* leading zero bits, 16..20 (HS-04) */
	uint heartbeat_sec;	/* 1..30 */
};

extern struct pool_params pool_params;

/* The node's static key pair, made at load. */
extern u8 pool_node_pubkey[32];

#endif
