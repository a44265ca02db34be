/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults that tests ask for; compiled only with POOL_FAULTS=1.
 *
 * By the parameter `fault`, from loading on: selftest:NAME, random, chrdev, proc, multicast, announce; counters
 * (they begin two below their end).
 *
 * By calls: faults_wrap.h, included before every source, lets the calls of those kernel functions fail that
 * /sys/kernel/debug/pool_faults names (or the parameters fault_point, fault_nth, fault_times while it loads):
 *   point   a class (alloc, crypto, socket, register, random, copy), FILE:LINE or FILE:FUNCTION; writing it starts anew
 *   nth     the first call to fail, counted from that on
 *   times   how many fail from then on, 0: all
 *   hits    how many did
 *   sites   every call that was made yet: class, file:line, function, calls, failed ones
 *   live    allocations and sockets not freed yet, also said when the module goes
 */
#ifndef POOL_FAULTS_H
#define POOL_FAULTS_H

#include <linux/string.h>
#include <linux/types.h>

#ifdef POOL_FAULTS
extern char pool_fault_wanted[32];
static inline bool pool_fault(const char *which)
{
	return sysfs_streq(pool_fault_wanted, which);
}

/* At the end of loading, with its result, and of unloading. */
int pool_faults_loaded(int err);
void pool_faults_unloaded(void);
#else
static inline bool pool_fault(const char *which)
{
	return false;
}

static inline int pool_faults_loaded(int err)
{
	return err;
}

static inline void pool_faults_unloaded(void)
{
}
#endif

#endif
