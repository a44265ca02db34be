/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Multicast announces: what a listening node says of itself, and hears of others (DISC-01). */
#ifndef POOL_ANNOUNCE_H
#define POOL_ANNOUNCE_H

#include <linux/types.h>

/* The node listens on that port from now on; the first announce goes out at once. */
void pool_announce_start(u16 port);
/* No more; returns when nothing of it runs. */
void pool_announce_stop(void);

#endif
