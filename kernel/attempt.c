// SPDX-License-Identifier: GPL-2.0-or-later
/* What an attempt to connect says to the server, and hears from it. */
#include <linux/in6.h>
#include <linux/ipv6.h>
#include <linux/mm.h>
#include <linux/net.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include "attempt.h"
#include "compat.h"
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "raw.h"
#include "session.h"

#define CONNECT_WAIT	(10 * HZ)	/* HS-09 */

const unsigned int pool_init_repeats[] = { 500, 1500, 0 };
const unsigned int pool_response_repeats[] = { 1000, 2000, 4000, 0 };

int pool_attempt_tcp(struct pool_conn *c)
{
	struct sock *sk = c->sock->sk;
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(c->peer_port) };
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(c->peer_port) };
	int err;

	pool_conn_tune(c);
	lock_sock(sk);
	sk->sk_sndtimeo = CONNECT_WAIT;
	release_sock(sk);
	if (ipv6_addr_v4mapped(&c->peer)) {
		sin.sin_addr.s_addr = c->peer.s6_addr32[3];
		err = kernel_connect(c->sock, (pool_sockaddr *)&sin, sizeof(sin), 0);
	} else {
		sin6.sin6_addr = c->peer;
		err = kernel_connect(c->sock, (pool_sockaddr *)&sin6, sizeof(sin6), 0);
	}
	return err == -EINPROGRESS ? -ETIMEDOUT : err;
}

int pool_attempt_send(struct pool_conn *c, struct pool_attempt *a, struct pool_txbuf *b, const unsigned int *repeats)
{
	if (c->raw) {
		kvfree(a->sent);
		a->sent = b;
		a->sent_at = jiffies;
		a->repeats = repeats;
		return pool_raw_transmit(c->raw->local, c->raw->peer, b->data, b->len, true);
	}
	mutex_lock(&c->tx_lock);
	pool_conn_queue(c, b);
	pool_conn_flush(c);
	mutex_unlock(&c->tx_lock);
	return 0;
}

/* Over raw IP, sending again meanwhile. */
static struct pool_hdr *await_datagram(struct pool_conn *c, struct pool_attempt *a, unsigned long deadline)
{
	unsigned long until;
	struct pool_hdr *h;

	for (;;) {
		until = a->sent_at + msecs_to_jiffies(*a->repeats);
		if (!*a->repeats || time_after(until, deadline))
			until = deadline;
		h = pool_raw_await(c, until);
		if (h != ERR_PTR(-ETIMEDOUT) || !pool_time_left(deadline))
			return h;
		a->repeats++;
		pool_raw_transmit(c->raw->local, c->raw->peer, a->sent->data, a->sent->len, true);
	}
}

/* The next whole packet, or -ETIMEDOUT at the deadline however slowly bytes come. */
static struct pool_hdr *await_packet(struct pool_conn *c, struct pool_attempt *a, unsigned long deadline)
{
	struct pool_hdr *h;
	struct sock *sk;
	int n;

	if (c->raw)
		return await_datagram(c, a, deadline);
	sk = c->sock->sk;
	while (!(h = pool_conn_peek(c))) {
		unsigned long left = pool_time_left(deadline);

		if (!left)
			return ERR_PTR(-ETIMEDOUT);
		lock_sock(sk);
		sk->sk_rcvtimeo = pool_timer_step(left);
		release_sock(sk);
		n = pool_conn_fill(c, 0);
		if (n == 0)
			return ERR_PTR(-ECONNRESET);
		if (n < 0 && n != -EAGAIN)
			return ERR_PTR(n == -ERESTARTSYS ? -EINTR : n);
		if (n > 0)
			c->rx_tail += n;
	}
	c->rx_head += POOL_HDR_LEN + pool_hdr_payload_len(h);
	return h;
}

static bool is_advisory(const struct pool_hdr *h)
{
	return pool_hdr_type(h) == POOL_CLOSE && pool_hdr_payload_len(h) == 1 && pool_hdr_plain(h) &&
	       !memchr_inv(h->session_id, 0, POOL_ID_LEN);
}

static int advisory_error(const struct pool_hdr *h)
{
	u8 code = *(const u8 *)(h + 1);

	pr_info("pool: the peer refused the handshake with code 0x%02x\n", code);
	if (code == POOL_CODE_VERSION_MISMATCH)
		return -EPROTONOSUPPORT;
	return code == POOL_CODE_OVERLOAD ? -ECONNREFUSED : -ECONNRESET;
}

struct pool_hdr *pool_attempt_await(struct pool_session *s, struct pool_attempt *a, u8 wanted, unsigned long deadline)
{
	struct pool_hdr *h;
	u8 type;

	for (;;) {
		h = await_packet(s->conn, a, deadline);
		if (IS_ERR(h))
			return h;
		type = pool_hdr_type(h);
		if (pool_hdr_version(h) != POOL_VERSION) {
			pool_count_error(version_mismatch, POOL_CODE_VERSION_MISMATCH, s->conn);
			/* The answerer's own version, in an advisory CLOSE (WIRE-02). */
			if (is_advisory(h) && *(const u8 *)(h + 1) == POOL_CODE_VERSION_MISMATCH)
				return ERR_PTR(-EPROTONOSUPPORT);
		} else if (pool_header_malformed(h)) {
			pool_count(malformed);
		} else if (!pool_state_takes(s->state, type)) {
			continue;
		} else if (type == POOL_CLOSE) {
			if (is_advisory(h))
				return ERR_PTR(advisory_error(h));
			pool_count(malformed);
		} else if (type == wanted) {
			return h;
		}
	}
}
