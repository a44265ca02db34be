/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The node's configuration: section 14. */
#ifndef POOL_CONFIG_H
#define POOL_CONFIG_H

#include <linux/types.h>

struct pool_params {
	u8 difficulty;		/* leading zero bits, 16..20 (HS-04) */
	u16 heartbeat_sec;	/* 1..30 */
	u32 rekey_packets;	/* 2^10..2^28 */
	u32 rekey_sec;		/* 10..3600 */
	u16 mtu_min, mtu_max;	/* 512..1400 */
};

/* Each parameter within its range? Says which is not. */
bool pool_params_valid(const struct pool_params *p);

void pool_config_init(const struct pool_params *params);
/* Those in force. */
struct pool_params pool_config_params(void);

#endif
