/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_PARAMS_H
#define POOL_PARAMS_H

#include <linux/types.h>

/* The node's static key pair, made at load. */
extern u8 pool_node_pubkey[32];

/* May peers change the configuration and read the journal (AUTH-02)? */
extern bool pool_remote_admin;

/* Seconds between challenges (INT-01); 0: none. */
extern uint pool_integrity_sec;

/* Seconds since load. */
u32 pool_uptime_sec(void);

#endif
