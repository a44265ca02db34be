/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef POOL_SELFTEST_H
#define POOL_SELFTEST_H

/* Known answers of every primitive and of POOL's own derivations; an error refuses the load. */
int pool_selftest(void);

#endif
