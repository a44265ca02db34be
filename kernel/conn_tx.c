// SPDX-License-Identifier: GPL-2.0-or-later
/* The queue of packets to send. Nothing here waits: what the socket does not take stays queued. */
#include <linux/mm.h>
#include <linux/slab.h>
#include "conn.h"
#include "session.h"

#define FLUSH_VECS	16

/* Some are not sealed yet. */
void pool_free_packets(struct list_head *packets)
{
	struct pool_txbuf *b, *next;

	list_for_each_entry_safe(b, next, packets, list)
		kvfree_sensitive(b, struct_size(b, data, b->len));
	INIT_LIST_HEAD(packets);
}

void pool_conn_drop_txq(struct pool_conn *c)
{
	pool_free_packets(&c->txq);
	c->txq_bytes = 0;
}

struct pool_txbuf *pool_txbuf_alloc(u32 payload_len)
{
	struct pool_txbuf *b = kvmalloc(struct_size(b, data, POOL_HDR_LEN + payload_len), GFP_KERNEL);

	if (b) {
		memset(b, 0, sizeof(*b) + POOL_HDR_LEN);
		b->len = POOL_HDR_LEN + payload_len;
	}
	return b;
}

bool pool_conn_crowded(const struct pool_conn *c)
{
	return READ_ONCE(c->txq_bytes) >= POOL_TXQ_BYTES;
}

void pool_conn_queue(struct pool_conn *c, struct pool_txbuf *b)
{
	lockdep_assert_held(&c->tx_lock);
	list_add_tail(&b->list, &c->txq);
	WRITE_ONCE(c->txq_bytes, c->txq_bytes + b->len);
}

void pool_conn_flush(struct pool_conn *c)
{
	lockdep_assert_held(&c->tx_lock);
	while (!list_empty(&c->txq) && !pool_conn_dead(c)) {
		struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
		struct kvec vec[FLUSH_VECS];
		struct pool_txbuf *b, *next;
		size_t total = 0;
		int n = 0;

		list_for_each_entry(b, &c->txq, list) {
			vec[n].iov_base = b->data + b->sent;
			vec[n].iov_len = b->len - b->sent;
			total += vec[n].iov_len;
			if (++n == FLUSH_VECS)
				break;
		}
		n = kernel_sendmsg(c->sock, &msg, vec, n, total);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			/* The stream is broken, perhaps within a packet: the receiving side is to see it end. */
			pool_conn_drop_txq(c);
			kernel_sock_shutdown(c->sock, SHUT_RDWR);
			pool_conn_kick_rx(c);
			break;
		}
		list_for_each_entry_safe(b, next, &c->txq, list) {
			u32 part = min_t(u32, n, b->len - b->sent);

			b->sent += part;
			n -= part;
			if (b->sent < b->len)
				break;
			list_del(&b->list);
			WRITE_ONCE(c->txq_bytes, c->txq_bytes - b->len);
			kvfree(b);
		}
		/* The peer goes on reading what was sent before the end: give it the time (E-98). */
		if (test_bit(POOL_CONN_FIN, &c->flags))
			pool_conn_arm(c, POOL_LINGER_MS);
	}
	if (list_empty(&c->txq) && test_and_clear_bit(POOL_CONN_FIN, &c->flags))
		kernel_sock_shutdown(c->sock, SHUT_WR);
	if (!pool_conn_crowded(c))
		wake_up_all(&c->tx_wait);
}

void pool_conn_tx_work(struct work_struct *work)
{
	struct pool_conn *c = container_of(work, struct pool_conn, tx_work);
	struct pool_session *s = NULL;

	mutex_lock(&c->tx_lock);
	pool_conn_flush(c);
	mutex_unlock(&c->tx_lock);

	/* An ACK that found no room. */
	mutex_lock(&c->rx_lock);
	if (c->session) {
		s = c->session;
		pool_session_get(s);
	}
	mutex_unlock(&c->rx_lock);
	if (s) {
		if (atomic_read(&s->acks_owed))
			pool_send_ack(s);
		pool_session_put(s);
	}
	pool_conn_put(c);
}

struct pool_txbuf *pool_plain_packet(u8 type, const u8 *session_id, u64 timestamp, const void *payload, u32 len)
{
	struct pool_txbuf *b = pool_txbuf_alloc(len);
	struct pool_hdr *h;

	if (!b)
		return NULL;
	h = (struct pool_hdr *)b->data;
	h->ver_type = POOL_VERSION << 4 | type;
	h->timestamp = cpu_to_be64(timestamp);
	h->payload_len = cpu_to_be16(len);
	if (session_id)
		memcpy(h->session_id, session_id, POOL_ID_LEN);
	memcpy(h + 1, payload, len);
	return b;
}

int pool_conn_send_plain(struct pool_conn *c, u8 type, const u8 *session_id, u64 timestamp,
			 const void *payload, u32 len)
{
	struct pool_txbuf *b = pool_plain_packet(type, session_id, timestamp, payload, len);
	int err = 0;

	if (!b)
		return -ENOMEM;
	mutex_lock(&c->tx_lock);
	if (pool_conn_crowded(c)) {
		err = -ENOBUFS;
		kvfree(b);
	} else {
		pool_conn_queue(c, b);
		pool_conn_flush(c);
	}
	mutex_unlock(&c->tx_lock);
	return err;
}

void pool_conn_send_advisory(struct pool_conn *c, u8 code)
{
	pool_conn_send_plain(c, POOL_CLOSE, NULL, ktime_get_ns(), &code, sizeof(code));
}
