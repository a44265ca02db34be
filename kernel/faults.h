/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults a test asks for by the module parameter `fault`; compiled only with
 * POOL_FAULTS=1: selftest:NAME, random, chrdev, proc.
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
#else
static inline bool pool_fault(const char *which)
{
	return false;
}
#endif

#endif
