/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How large a session's packets may be: section 11. rx_lock guards it. */
#ifndef POOL_MTU_H
#define POOL_MTU_H

#include <linux/types.h>

struct pool_session;
struct pool_hdr;

struct pool_mtu_search {
	u16 bound_low, bound_high;	/* as configured */
	bool running;
	u16 low, high;			/* low passes; high does not, once it was tried */
	bool tried;
	u16 in_flight;			/* the size of the probe that is out; 0: none */
	u64 quiet_until;		/* at most one probe a second */
};

void pool_mtu_start(struct pool_session *s);
void pool_mtu_timer(struct pool_session *s, u64 now);
/* Search again as soon as a probe may go out, unless a search is under way. */
void pool_mtu_probe_now(struct pool_session *s);
/* A DISCOVER without TELEMETRY: a probe, or the answer to one. */
void pool_mtu_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);

#endif
