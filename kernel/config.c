// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/printk.h>
#include <linux/spinlock.h>
#include "config.h"

static DEFINE_SPINLOCK(config_lock);
static struct pool_params current_params;

static bool within(const char *name, u32 value, u32 least, u32 most)
{
	if (value >= least && value <= most)
		return true;
	pr_err("pool: %s must be %u..%u, not %u\n", name, least, most, value);
	return false;
}

bool pool_params_valid(const struct pool_params *p)
{
	return within("difficulty", p->difficulty, 16, 20) && within("heartbeat_sec", p->heartbeat_sec, 1, 30) &&
	       within("rekey_packets", p->rekey_packets, 1 << 10, 1 << 28) &&
	       within("rekey_sec", p->rekey_sec, 10, 3600) && within("mtu_min", p->mtu_min, 512, 1400) &&
	       within("mtu_max", p->mtu_max, p->mtu_min, 1400);
}

void pool_config_init(const struct pool_params *params)
{
	current_params = *params;
}

struct pool_params pool_config_params(void)
{
	struct pool_params p;

	spin_lock(&config_lock);
	p = current_params;
	spin_unlock(&config_lock);
	return p;
}
