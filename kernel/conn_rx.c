// SPDX-License-Identifier: GPL-2.0-or-later
/* Bytes of a connection into packets, and packets to whoever is concerned. */
#include <linux/mm.h>
#include <linux/slab.h>
#include "conn.h"
#include "counters.h"
#include "session.h"

#define READS_PER_WORK	16

/* The module is unloading: a flood of packets must not keep sessions from being closed. */
static bool stopped;

void pool_conns_stop_receiving(void)
{
	WRITE_ONCE(stopped, true);
}

int pool_conn_fill(struct pool_conn *c, int msg_flags)
{
	struct msghdr msg = { .msg_flags = msg_flags | MSG_NOSIGNAL };
	struct kvec vec;

	if (c->rx_head == c->rx_tail) {
		c->rx_head = 0;
		c->rx_tail = 0;
	} else if (c->rx_head && c->rx_tail > c->rx_size / 2) {
		memmove(c->rx_buf, c->rx_buf + c->rx_head, c->rx_tail - c->rx_head);
		c->rx_tail -= c->rx_head;
		c->rx_head = 0;
	}
	vec.iov_base = c->rx_buf + c->rx_tail;
	vec.iov_len = c->rx_size - c->rx_tail;
	return kernel_recvmsg(c->sock, &msg, &vec, 1, vec.iov_len, msg.msg_flags);
}

struct pool_hdr *pool_conn_peek(struct pool_conn *c)
{
	struct pool_hdr *h;
	u32 have, total;

	for (;;) {
		have = c->rx_tail - c->rx_head;
		if (c->rx_skip) {
			u32 part = min(have, c->rx_skip);

			c->rx_head += part;
			c->rx_skip -= part;
			if (c->rx_skip)
				return NULL;
			continue;
		}
		if (have < POOL_HDR_LEN)
			return NULL;
		h = (struct pool_hdr *)(c->rx_buf + c->rx_head);
		total = POOL_HDR_LEN + pool_hdr_payload_len(h);
		if (total > c->rx_size) {
			pool_count(malformed);
			c->rx_skip = total;
			continue;
		}
		return have < total ? NULL : h;
	}
}

/* A session's packets may be of any size. */
int pool_conn_grow(struct pool_conn *c)
{
	u8 *buf = kvmalloc(POOL_PACKET_MAX, GFP_KERNEL);

	if (!buf)
		return -ENOMEM;
	memcpy(buf, c->rx_buf + c->rx_head, c->rx_tail - c->rx_head);
	c->rx_tail -= c->rx_head;
	c->rx_head = 0;
	kvfree_sensitive(c->rx_buf, c->rx_size);
	c->rx_buf = buf;
	c->rx_size = POOL_PACKET_MAX;
	return 0;
}

static int conn_dispatch(struct pool_conn *c)
{
	struct pool_hdr *packet;
	struct pool_session *s;
	int next = POOL_RX_NEXT;

	if (c->phase == POOL_PHASE_CLIENT)
		return POOL_RX_STOP;
	while (next == POOL_RX_NEXT) {
		if (c->phase == POOL_PHASE_LINGER) {
			c->rx_head = c->rx_tail;
			return POOL_RX_NEXT;
		}
		if (READ_ONCE(stopped))
			return POOL_RX_STOP;
		packet = pool_conn_peek(c);
		if (!packet)
			return POOL_RX_NEXT;
		if (c->phase == POOL_PHASE_PENDING) {
			/* The handler may give the connection another buffer. */
			u32 total = POOL_HDR_LEN + pool_hdr_payload_len(packet);

			c->rx_head += total;
			next = pool_handshake_receive(c, packet);
			continue;
		}
		s = c->session;
		if (pool_rxq_full(s))
			return POOL_RX_PAUSE;
		c->rx_head += POOL_HDR_LEN + pool_hdr_payload_len(packet);
		/* The packet may end the session, and with that the connection's reference. */
		pool_session_get(s);
		next = pool_session_receive(s, packet);
		pool_session_put(s);
	}
	return next;
}

static void conn_eof(struct pool_conn *c, int err)
{
	switch (c->phase) {
	case POOL_PHASE_PENDING:
		if (pool_pending_claim(c)) {
			pool_count(handshakes_failed);
			pool_conn_kill(c);
		}
		break;
	case POOL_PHASE_SESSION:
		pool_session_end_locked(c->session, POOL_CLOSE_NONE,
					err ? "connection lost" : "connection closed by the peer");
		break;
	case POOL_PHASE_LINGER:
		pool_conn_end_linger(c);
		break;
	case POOL_PHASE_CLIENT:
		break;
	}
}

void pool_conn_rx_work(struct work_struct *work)
{
	struct pool_conn *c = container_of(work, struct pool_conn, rx_work);
	int reads, next, n;

	for (reads = 0; reads < READS_PER_WORK; reads++) {
		mutex_lock(&c->rx_lock);
		next = pool_conn_dead(c) ? POOL_RX_STOP : conn_dispatch(c);
		if (next != POOL_RX_NEXT || pool_conn_dead(c)) {
			mutex_unlock(&c->rx_lock);
			goto out;
		}
		n = pool_conn_fill(c, MSG_DONTWAIT);
		if (n > 0)
			c->rx_tail += n;
		else if (n != -EAGAIN && n != -ERESTARTSYS && n != -EINTR)
			conn_eof(c, n);
		mutex_unlock(&c->rx_lock);
		if (n <= 0)
			goto out;
		cond_resched();
	}
	pool_conn_kick_rx(c);
out:
	pool_conn_put(c);
}
