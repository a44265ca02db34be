// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "conn.h"
#include "counters.h"
#include "session.h"

static u64 seq_end(const struct pool_session *s)
{
	return s->role == POOL_CLIENT ? POOL_SEQ_CLIENT_END : POOL_SEQ_SERVER_END;
}

/* Header, seal, sign, queue. The plaintext stands behind the header with room for the tag. */
static void xmit_locked(struct pool_session *s, struct pool_txbuf *b, u8 type, u16 flags, u8 channel)
{
	struct pool_hdr *h = (struct pool_hdr *)b->data;
	u32 payload_len = b->len - POOL_HDR_LEN;

	lockdep_assert_held(&s->conn->tx_lock);
	if (payload_len)
		flags |= POOL_F_ENCRYPTED;
	h->ver_type = POOL_VERSION << 4 | type;
	h->flags = cpu_to_be16(flags);
	h->seq = cpu_to_be64(s->tx_next);
	h->ack = cpu_to_be64(READ_ONCE(s->window.highest));
	memcpy(h->session_id, s->id, POOL_ID_LEN);
	h->timestamp = cpu_to_be64(ktime_get_ns());
	h->payload_len = cpu_to_be16(payload_len);
	h->channel = channel;
	if (payload_len)
		pool_keys_seal(&s->keys, h, 0);
	pool_keys_sign(&s->keys, h);
	WRITE_ONCE(s->tx_next, s->tx_next + 1);
	WRITE_ONCE(s->packets_sent, s->packets_sent + 1);
	pool_count(packets_sent);
	pool_conn_queue(s->conn, b);
}

/* May so many more packets be sent? The range's last number is the CLOSE's (SEQ-01). */
static int seq_left(struct pool_session *s, u64 count)
{
	if (s->ended)
		return -ENOTCONN;
	return seq_end(s) - s->tx_next > count ? 0 : -EOVERFLOW;
}

static u32 sealed_len(u32 len)
{
	return len ? len + POOL_TAG_LEN : 0;
}

void pool_send_close_locked(struct pool_session *s, int close)
{
	u32 len = close == POOL_CLOSE_EMPTY ? 0 : 1;
	struct pool_txbuf *b = pool_txbuf_alloc(sealed_len(len));

	if (!b)
		return;
	if (len)
		b->data[POOL_HDR_LEN] = close;
	xmit_locked(s, b, POOL_CLOSE, 0, 0);
	pool_conn_flush(s->conn);
}

int pool_send_control(struct pool_session *s, u8 type, u16 flags, const void *plaintext, u32 len)
{
	struct pool_txbuf *b = pool_txbuf_alloc(sealed_len(len));
	int err;

	if (!b)
		return -ENOMEM;
	if (len)
		memcpy(b->data + POOL_HDR_LEN, plaintext, len);
	mutex_lock(&s->conn->tx_lock);
	err = seq_left(s, 1);
	if (!err && pool_conn_crowded(s->conn))
		err = -ENOBUFS;
	if (err) {
		kvfree(b);
	} else {
		if (type == POOL_HEARTBEAT) {
			s->hb_seq = s->tx_next;
			s->hb_sent_ns = ktime_get_ns();
		}
		xmit_locked(s, b, type, flags, 0);
		pool_conn_flush(s->conn);
	}
	mutex_unlock(&s->conn->tx_lock);
	return err;
}

void pool_send_ack(struct pool_session *s)
{
	struct pool_txbuf *b = pool_txbuf_alloc(0);

	if (!b)
		return;
	mutex_lock(&s->conn->tx_lock);
	/* Without room it stays owed: the queue's emptying brings it here again. */
	if (seq_left(s, 1) || pool_conn_crowded(s->conn) || !atomic_xchg(&s->acks_owed, 0)) {
		kvfree(b);
	} else {
		xmit_locked(s, b, POOL_ACK, 0, 0);
		pool_conn_flush(s->conn);
	}
	mutex_unlock(&s->conn->tx_lock);
}

static void free_list(struct list_head *packets)
{
	struct pool_txbuf *b, *next;

	list_for_each_entry_safe(b, next, packets, list)
		kvfree(b);
}

/* The message as packets, not yet sealed: one, or as many fragments as it takes (FRAG-01). */
static int build_message(struct list_head *packets, const void __user *data, u32 len, u16 mtu)
{
	bool whole = len <= POOL_DATA_MAX(mtu);
	u32 prefix = whole ? 0 : sizeof(struct pool_wire_fragment);
	u32 most = whole ? len : POOL_FRAGMENT_MAX(mtu);
	u32 done, part;
	int count = 0;

	for (done = 0; done < len; done += part) {
		struct pool_wire_fragment *f;
		struct pool_txbuf *b;

		part = min(len - done, most);
		b = pool_txbuf_alloc(sealed_len(prefix + part));
		if (!b)
			return -ENOMEM;
		list_add_tail(&b->list, packets);
		if (prefix) {
			f = (void *)(b->data + POOL_HDR_LEN);
			f->offset = cpu_to_be16(done);
			f->total_len = cpu_to_be16(len);
		}
		if (copy_from_user(b->data + POOL_HDR_LEN + prefix, data + done, part))
			return -EFAULT;
		count++;
	}
	return count;
}

static void xmit_message(struct pool_session *s, struct list_head *packets, int count, u8 channel)
{
	struct pool_txbuf *b, *next;
	u16 flags = POOL_F_REQUIRE_ACK;

	list_for_each_entry_safe(b, next, packets, list) {
		if (count > 1) {
			struct pool_wire_fragment *f = (void *)(b->data + POOL_HDR_LEN);

			f->msg_id = cpu_to_be32(s->tx_msg_id);
			flags = POOL_F_REQUIRE_ACK | POOL_F_FRAGMENT;
			if (list_is_last(&b->list, packets))
				flags |= POOL_F_LAST_FRAG;
		}
		list_del(&b->list);
		xmit_locked(s, b, POOL_DATA, flags, channel);
	}
	if (count > 1)
		s->tx_msg_id++;
}

int pool_send_message(struct pool_session *s, u8 channel, const void __user *data, u32 len, bool nonblock)
{
	struct pool_conn *c = s->conn;
	LIST_HEAD(packets);
	int count, err;

	count = build_message(&packets, data, len, READ_ONCE(s->mtu));
	if (count < 0) {
		err = count;
		goto out;
	}
	mutex_lock(&c->tx_lock);
	while (!s->ended && pool_conn_crowded(c)) {
		mutex_unlock(&c->tx_lock);
		err = nonblock ? -EAGAIN :
		      wait_event_interruptible(c->tx_wait, !pool_conn_crowded(c) || READ_ONCE(s->ended));
		if (err)
			goto out;
		mutex_lock(&c->tx_lock);
	}
	err = seq_left(s, count);
	if (!err) {
		xmit_message(s, &packets, count, channel);
		WRITE_ONCE(s->bytes_sent, s->bytes_sent + len);
		pool_conn_flush(c);
	}
	mutex_unlock(&c->tx_lock);
	if (err == -EOVERFLOW)
		pool_session_end(s, POOL_CODE_SEQ_INVALID, "sequence numbers exhausted");
out:
	free_list(&packets);
	return err;
}
