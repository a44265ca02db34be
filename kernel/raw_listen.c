// SPDX-License-Identifier: GPL-2.0-or-later
/* The server's side of the handshake over raw IP: nothing is kept of an INIT, and a RESPONSE that fails is met by silence. */
#include <linux/mm.h>
#include <net/ipv6.h>
#include "counters.h"
#include "handshake.h"
#include "journal.h"
#include "raw.h"
#include "session.h"

/* HS-14: both INIT and RESPONSE begin with the client's key. */
static __be64 echo_of(const struct pool_hdr *h)
{
	__be64 echo;

	memcpy(&echo, h + 1, sizeof(echo));
	return echo;
}

static int answer(const struct pool_datagram *d, u8 type, const u8 *session_id, const void *payload, u32 len)
{
	struct pool_txbuf *b = pool_plain_packet(type, session_id, ktime_get_ns(), payload, len);
	int err;

	if (!b)
		return -ENOMEM;
	((struct pool_hdr *)b->data)->ack = echo_of((const void *)d->data);
	err = pool_raw_transmit(d->to, d->from, b->data, b->len, true);
	kvfree(b);
	return err;
}

static void answer_advisory(const struct pool_datagram *d, u8 code)
{
	/* One too short to hold a key is not answered (E-43). */
	if (d->len >= POOL_HDR_LEN + POOL_KEY_LEN)
		answer(d, POOL_CLOSE, NULL, &code, sizeof(code));
}

static void receive_init(const struct pool_datagram *d, const struct pool_from *from)
{
	struct pool_challenge challenge;
	struct pool_cookie cookie;
	int err = pool_handshake_challenge(from, (const void *)d->data, &challenge, &cookie);

	if (err == -ENOSPC)
		answer_advisory(d, POOL_CODE_OVERLOAD);
	else if (!err && !answer(d, POOL_CHALLENGE, (u8 *)&cookie, &challenge, sizeof(challenge)))
		pool_handshake_challenged();
}

static void receive_response(const struct pool_datagram *d, const struct pool_from *from)
{
	struct pool_proven proven = {};
	struct pool_session *s = NULL;
	struct pool_conn *c;
	int err;

	if (pool_handshake_verify(from, (struct pool_hdr *)d->data, &proven))
		goto wipe;
	c = pool_raw_conn_alloc(d->from, d->to, POOL_PHASE_PENDING);
	if (!c) {
		pool_count(no_memory);
		goto wipe;
	}
	pool_conn_get(c);
	mutex_lock(&c->rx_lock);
	s = pool_handshake_session(c, &proven);
	err = s ? pool_handshake_insert(s) : -ENOMEM;
	if (!err) {
		pool_raw_set_id(c, proven.id);
		pool_handshake_establish(s);
	} else if (err == -ENOSPC) {
		answer_advisory(d, POOL_CODE_OVERLOAD);
	}
	mutex_unlock(&c->rx_lock);
	if (err)
		pool_conn_kill(c);
	else
		pool_conn_kick_rx(c);
	if (s)
		pool_session_put(s);
	pool_conn_put(c);
wipe:
	memzero_explicit(&proven, sizeof(proven));
}

void pool_raw_handshake(struct pool_datagram *d)
{
	const struct pool_hdr *h = (const void *)d->data;
	struct pool_from from = {};
	struct pool_conn *c;

	ipv6_addr_set_v4mapped(d->from, &from.ip);
	if (pool_hdr_version(h) != POOL_VERSION) {
		pool_count_from(version_mismatch, POOL_CODE_VERSION_MISMATCH, &from);
		if (pool_hdr_type(h) == POOL_INIT)
			answer_advisory(d, POOL_CODE_VERSION_MISMATCH);
	} else if (pool_hdr_type(h) == POOL_INIT) {
		receive_init(d, &from);
	} else {
		/* The one before it may have made the session meanwhile. */
		c = pool_raw_find(d->from, h->session_id);
		if (c) {
			pool_raw_give(c, d);
			pool_conn_put(c);
			return;
		}
		receive_response(d, &from);
	}
	kvfree(d);
}
