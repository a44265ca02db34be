/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_PARAMS_H
#define POOL_PARAMS_H

#include <linux/types.h>

/* The node's static key pair, made at load. */
extern u8 pool_node_pubkey[32];

#endif
