// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/ipv6.h>
#include <net/ipv6.h>
#include "conn.h"
#include "counters.h"
#include "exchange.h"
#include "params.h"
#include "peers.h"
#include "session.h"

#define PERIOD_NS	(30ULL * NSEC_PER_SEC)
#define SPACING_NS	NSEC_PER_SEC			/* between the packets of one round */
#define DEAF_NS		(100ULL * NSEC_PER_MSEC)
#define ROOM(mtu)	((POOL_DATA_MAX(mtu) - sizeof(__be16)) / sizeof(struct pool_wire_told))
#define ROOM_MOST	ROOM(POOL_MTU_MOST)

/* Whom this node connected to listens there; where an incoming peer listens is not known. */
static void see_peer(struct pool_session *s)
{
	if (s->role == POOL_CLIENT && s->conn->peer_port)
		pool_peers_see(&s->conn->peer, s->conn->peer_port, pool_no_key, POOL_SOURCE_CONNECTED);
}

void pool_exchange_start(struct pool_session *s)
{
	s->exchange.round_due = s->started_ns + PERIOD_NS;
	pool_part_set(s, POOL_PART_EXCHANGE, s->exchange.round_due);
	see_peer(s);
}

static void tell(struct pool_session *s)
{
	struct pool_exchange *x = &s->exchange;
	struct {
		__be16 count;
		struct pool_wire_told told[ROOM_MOST];
	} __packed plaintext;
	u32 cursor = x->cursor, n;

	n = pool_peers_collect(&cursor, plaintext.told, ROOM(READ_ONCE(s->mtu)), &s->conn->peer,
			       s->conn->peer_port);
	if (n) {
		plaintext.count = cpu_to_be16(n);
		if (pool_send_control(s, POOL_DISCOVER, POOL_F_TELEMETRY, POOL_MARK_NONE, &plaintext,
				      sizeof(plaintext.count) + n * sizeof(plaintext.told[0])))
			return;
	}
	x->cursor = cursor;
	x->telling = cursor < POOL_MAX_PEERS;
}

void pool_exchange_timer(struct pool_session *s, u64 now)
{
	struct pool_exchange *x = &s->exchange;

	if (now >= x->round_due) {
		x->round_due = now + PERIOD_NS;
		x->telling = true;
		x->cursor = 0;
		see_peer(s);
	}
	if (x->telling && pool_send_flows(s))
		tell(s);
	pool_part_set(s, POOL_PART_EXCHANGE, x->telling ? min(x->round_due, now + SPACING_NS) : x->round_due);
}

void pool_exchange_now(struct pool_session *s)
{
	s->exchange.round_due = 0;
	pool_exchange_timer(s, ktime_get_ns());
}

void pool_exchange_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	u16 count = len >= sizeof(__be16) ? get_unaligned_be16(plaintext) : 0;
	const struct pool_wire_told *told = (const void *)(plaintext + sizeof(__be16));
	u64 now = ktime_get_ns();
	struct in6_addr ip;

	if (len != sizeof(__be16) + count * sizeof(*told) || count > ROOM_MOST) {
		pool_count(malformed);
		return;
	}
	if (now < s->exchange.deaf_until) {
		pool_count(announce_limited);
		return;
	}
	s->exchange.deaf_until = now + DEAF_NS;
	for (; count; count--, told++) {
		ipv6_addr_set_v4mapped(told->ip, &ip);
		if (!pool_peer_plausible(&ip, be16_to_cpu(told->port)))
			pool_count(malformed);
		else if (memcmp(told->pubkey, pool_node_pubkey, POOL_KEY_LEN))
			pool_peers_see(&ip, be16_to_cpu(told->port), told->pubkey, POOL_SOURCE_EXCHANGE);
	}
}
