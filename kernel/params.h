/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_PARAMS_H
#define POOL_PARAMS_H

#include <linux/types.h>

enum pool_transport { POOL_OVER_TCP, POOL_OVER_RAW, POOL_OVER_AUTO };

/* What the node listens on and connects over. */
extern enum pool_transport pool_transport;

/* The node's static key pair, made at load. */
extern u8 pool_node_pubkey[32];

/* May peers change the configuration and read the journal (AUTH-02)? */
extern bool pool_remote_admin;

/* Seconds between challenges (INT-01); 0: none. */
extern uint pool_integrity_sec;

/* Seconds since load. */
u32 pool_uptime_sec(void);

#endif
