// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "conn.h"
#include "counters.h"
#include "parts.h"
#include "reliable.h"
#include "session.h"

static u64 seq_end(const struct pool_session *s)
{
	return s->role == POOL_CLIENT ? POOL_SEQ_CLIENT_END : POOL_SEQ_SERVER_END;
}

/*
 * Raw IP: what is answered by an ACK of its own is acknowledged by nothing else before (E-44).
 * tx_lock is held.
 */
static u64 ack_value(const struct pool_session *s)
{
	u64 ack = READ_ONCE(s->rx_ack);
	const struct pool_txbuf *b;

	if (s->rel)
		list_for_each_entry(b, &s->held, list)
			if (b->exact_ack && b->ack <= ack)
				ack = b->ack - 1;
	return ack;
}

/* Header, seal, sign, queue. The plaintext stands behind the header with room for the tag. */
static void xmit_locked(struct pool_session *s, struct pool_txbuf *b)
{
	struct pool_hdr *h = (struct pool_hdr *)b->data;
	u32 payload_len = b->len - POOL_HDR_LEN;
	bool exempt = s->rel && pool_reliable_exempt(s, b);
	const struct pool_keys *keys = pool_rekey_tx_keys(s);

	lockdep_assert_held(&s->conn->tx_lock);
	b->seq = exempt ? s->tx_next - 1 : s->tx_next;
	h->ver_type = POOL_VERSION << 4 | b->type;
	h->flags = cpu_to_be16(b->flags | (payload_len ? POOL_F_ENCRYPTED : 0));
	h->seq = cpu_to_be64(b->seq);
	h->ack = cpu_to_be64(b->exact_ack ? b->ack : ack_value(s));
	memcpy(h->session_id, s->id, POOL_ID_LEN);
	h->timestamp = cpu_to_be64(ktime_get_ns());
	h->payload_len = cpu_to_be16(payload_len);
	h->channel = b->channel;
	if (b->mark) {
		s->mark[b->mark].seq = b->seq;
		s->mark[b->mark].sent_ns = ktime_get_ns();
		WRITE_ONCE(s->marked, s->marked | BIT(b->mark));
	}
	if (payload_len)
		pool_keys_seal(keys, h, 0);
	pool_keys_sign(keys, h);
	if (!exempt) {
		WRITE_ONCE(s->tx_next, s->tx_next + 1);
		WRITE_ONCE(s->packets_sent, s->packets_sent + 1);	/* those with a seq of their own (E-86) */
	}
	pool_count(packets_sent);
	if (s->rel)
		pool_reliable_launch(s, b, exempt);
	else
		pool_conn_queue(s->conn, b);
}

/* RK-02, TRN-04: may a packet of that type not go out now? numbered: it takes a seq of its own. */
static bool held_back(const struct pool_session *s, u8 type, bool numbered)
{
	if (type == POOL_REKEY || type == POOL_CLOSE)
		return false;
	if (!s->rel)
		return READ_ONCE(s->state) == POOL_REKEYING && type != POOL_ACK;
	if (!numbered)
		return false;
	/* The peer cannot accept before its CONFIG is answered (E-85). */
	return pool_reliable_full(s) || (type == POOL_ACK ? s->rekey.unconfirmed : pool_rekey_holds(s));
}

static bool held_packet(const struct pool_session *s, const struct pool_txbuf *b)
{
	return held_back(s, b->type, !s->rel || !pool_reliable_exempt(s, b));
}

/* Those that wait come first, but for what cannot wait. */
static bool overtakes(const struct pool_session *s, const struct pool_txbuf *b)
{
	return list_empty(&s->held) || b->type == POOL_REKEY || b->type == POOL_CLOSE || b->type == POOL_ACK;
}

/* Send it, or keep it behind those that already wait. */
static void submit_locked(struct pool_session *s, struct pool_txbuf *b)
{
	lockdep_assert_held(&s->conn->tx_lock);
	if (!held_packet(s, b) && overtakes(s, b)) {
		xmit_locked(s, b);
		return;
	}
	list_add_tail(&b->list, &s->held);
	s->held_count++;
	WRITE_ONCE(s->held_bytes, s->held_bytes + b->len);
}

void pool_send_held_locked(struct pool_session *s)
{
	struct pool_txbuf *b, *next;

	list_for_each_entry_safe(b, next, &s->held, list) {
		/* All DATA waits or none does, so its order stays. */
		if (held_packet(s, b))
			continue;
		list_del(&b->list);
		s->held_count--;
		WRITE_ONCE(s->held_bytes, s->held_bytes - b->len);
		xmit_locked(s, b);
	}
	pool_conn_flush(s->conn);
}

void pool_drop_held_locked(struct pool_session *s)
{
	pool_free_packets(&s->held);
	s->held_count = 0;
	s->held_bytes = 0;
}

/* May so many more packets be sent? The range's last number is the CLOSE's (SEQ-01). */
static int seq_left(struct pool_session *s, u64 count)
{
	if (s->ended || s->state == POOL_CLOSING)
		return -ENOTCONN;
	return seq_end(s) - s->tx_next > s->held_count + count ? 0 : -EOVERFLOW;
}

/* What a message may not add to: whatever waits, for the socket or for new keys. */
static bool crowded(const struct pool_session *s)
{
	return READ_ONCE(s->conn->txq_bytes) + READ_ONCE(s->held_bytes) >= POOL_TXQ_BYTES;
}

/* Answers and reports may add a little more, so that no sender of messages shuts them out. */
static bool crowded_for_control(const struct pool_session *s)
{
	return s->conn->txq_bytes + s->held_bytes >= POOL_TXQ_BYTES + POOL_TXQ_CONTROL_BYTES;
}

static u32 sealed_len(u32 len)
{
	return len ? len + POOL_TAG_LEN : 0;
}

static struct pool_txbuf *control_packet(u8 type, u16 flags, const void *plaintext, u32 len)
{
	struct pool_txbuf *b = pool_txbuf_alloc(sealed_len(len));

	if (!b)
		return NULL;
	b->type = type;
	b->flags = flags;
	if (len)
		memcpy(b->data + POOL_HDR_LEN, plaintext, len);
	return b;
}

void pool_send_close_locked(struct pool_session *s, int close)
{
	u8 code = close;
	struct pool_txbuf *b = control_packet(POOL_CLOSE, 0, &code, close == POOL_CLOSE_EMPTY ? 0 : 1);

	if (!b)
		return;
	xmit_locked(s, b);
	pool_conn_flush(s->conn);
}

static int send_locked(struct pool_session *s, struct pool_txbuf *b)
{
	int err;

	if (!b)
		return -ENOMEM;
	err = seq_left(s, 1);
	if (s->rel && b->type == POOL_ACK)
		err = s->ended ? -ENOTCONN : 0;		/* also while parting, and whatever waits */
	else if (!err && b->type != POOL_REKEY && crowded_for_control(s))
		err = -ENOBUFS;
	if (err) {
		kvfree(b);
		return err;
	}
	submit_locked(s, b);
	pool_conn_flush(s->conn);
	return 0;
}

int pool_send_control_locked(struct pool_session *s, u8 type, u16 flags, enum pool_mark mark,
			     const void *plaintext, u32 len)
{
	struct pool_txbuf *b = control_packet(type, flags, plaintext, len);

	if (b)
		b->mark = mark;
	return send_locked(s, b);
}

int pool_send_control(struct pool_session *s, u8 type, u16 flags, enum pool_mark mark,
		      const void *plaintext, u32 len)
{
	int err;

	mutex_lock(&s->conn->tx_lock);
	err = pool_send_control_locked(s, type, flags, mark, plaintext, len);
	mutex_unlock(&s->conn->tx_lock);
	return err;
}

bool pool_send_flows(const struct pool_session *s)
{
	return !READ_ONCE(s->held_count) && !held_back(s, POOL_DATA, true) && !crowded(s);
}

int pool_send_flagged_ack(struct pool_session *s, u16 flags)
{
	return pool_send_control(s, POOL_ACK, flags, POOL_MARK_NONE, NULL, 0);
}

int pool_send_exact_ack(struct pool_session *s, u64 ack, u16 flags)
{
	struct pool_txbuf *b = control_packet(POOL_ACK, flags, NULL, 0);
	int err;

	if (b) {
		b->exact_ack = true;
		b->ack = ack;
	}
	mutex_lock(&s->conn->tx_lock);
	err = send_locked(s, b);
	mutex_unlock(&s->conn->tx_lock);
	return err;
}

void pool_send_ack(struct pool_session *s)
{
	struct pool_txbuf *b = control_packet(POOL_ACK, 0, NULL, 0);

	if (!b)
		return;
	mutex_lock(&s->conn->tx_lock);
	/* Without room it stays owed: the queue's emptying brings it here again. */
	if (pool_conn_crowded(s->conn) || !atomic_xchg(&s->acks_owed, 0) ||
	    (s->rel && !s->ended && pool_reliable_repeat_answer(s)))
		kvfree(b);
	else
		send_locked(s, b);
	mutex_unlock(&s->conn->tx_lock);
}

bool pool_mark_acked(struct pool_session *s, enum pool_mark mark, u64 ack, struct pool_marked *m)
{
	bool acked;

	if (!(READ_ONCE(s->marked) & BIT(mark)))
		return false;
	mutex_lock(&s->conn->tx_lock);
	*m = s->mark[mark];
	acked = (s->marked & BIT(mark)) && ack >= m->seq;
	if (acked)
		WRITE_ONCE(s->marked, s->marked & ~BIT(mark));
	mutex_unlock(&s->conn->tx_lock);
	return acked;
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
		b->type = POOL_DATA;
		b->flags = POOL_F_REQUIRE_ACK;
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

static void submit_message(struct pool_session *s, struct list_head *packets, int count, u8 channel)
{
	struct pool_txbuf *b, *next;

	list_for_each_entry_safe(b, next, packets, list) {
		b->channel = channel;
		if (count > 1) {
			struct pool_wire_fragment *f = (void *)(b->data + POOL_HDR_LEN);

			f->msg_id = cpu_to_be32(s->tx_msg_id);
			b->flags |= POOL_F_FRAGMENT;
			if (list_is_last(&b->list, packets))
				b->flags |= POOL_F_LAST_FRAG;
		}
		list_del(&b->list);
		submit_locked(s, b);
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
	while (pool_session_active(s) && crowded(s)) {
		mutex_unlock(&c->tx_lock);
		err = nonblock ? -EAGAIN :
		      wait_event_interruptible(c->tx_wait, !crowded(s) || !pool_session_active(s));
		if (err)
			goto out;
		mutex_lock(&c->tx_lock);
	}
	err = pool_session_active(s) ? seq_left(s, count) : -ENOTCONN;
	if (!err) {
		submit_message(s, &packets, count, channel);
		WRITE_ONCE(s->bytes_sent, s->bytes_sent + len);
		pool_conn_flush(c);
	}
	mutex_unlock(&c->tx_lock);
	if (pool_rekey_wanted(s))
		pool_part_kick(s, POOL_PART_REKEY);
	if (err == -EOVERFLOW)
		pool_session_end(s, POOL_CODE_SEQ_INVALID, "sequence numbers exhausted");
out:
	pool_free_packets(&packets);
	return err;
}
