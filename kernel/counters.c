// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/seq_file.h>
#include "counters.h"

atomic64_t pool_counters[POOL_CNT_COUNT];

static const char *const counter_names[POOL_CNT_COUNT] = {
#define POOL_COUNTER_NAME(name) #name,
	POOL_COUNTERS(POOL_COUNTER_NAME)
#undef POOL_COUNTER_NAME
};

void pool_counters_show(struct seq_file *m)
{
	int i;

	for (i = 0; i < POOL_CNT_COUNT; i++)
		seq_printf(m, "%s %llu\n", counter_names[i], (u64)atomic64_read(&pool_counters[i]));
}

void pool_counters_exhaust(void)
{
	int i;

	for (i = 0; i < POOL_CNT_COUNT; i++)
		atomic64_set(&pool_counters[i], -3);
}
