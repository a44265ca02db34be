// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "conn.h"
#include "counters.h"
#include "session.h"

#define RECV_TIMEOUT	(5 * HZ)

/* Bytes of messages in all queues; bounded, or 64 silent readers would eat the memory. */
static atomic_long_t queued_bytes = ATOMIC_LONG_INIT(0);

/* WIRE-03, WIRE-08, D-01: what no packet of any state may be. */
bool pool_header_malformed(const struct pool_hdr *h)
{
	u16 flags = pool_hdr_flags(h), len = pool_hdr_payload_len(h);
	u8 type = pool_hdr_type(h);

	return h->reserved0 || h->reserved1 || (flags & (POOL_F_RESERVED | POOL_F_COMPRESSED)) ||
	       (h->channel && type != POOL_DATA) || ((flags & POOL_F_ENCRYPTED) && len <= POOL_TAG_LEN) ||
	       (type == POOL_ACK && len);
}

/* WIRE-08: once keys exist, every payload is sealed; only the end of a RESPONSE is. */
static bool payload_malformed(const struct pool_hdr *h)
{
	u16 len = pool_hdr_payload_len(h);

	if (pool_hdr_type(h) == POOL_RESPONSE && len < sizeof(struct pool_response))
		return true;
	return len && !(pool_hdr_flags(h) & POOL_F_ENCRYPTED);
}

static bool window_fresh(const struct pool_window *w, u64 seq)
{
	u64 behind;

	if (seq > w->highest)
		return true;
	behind = w->highest - seq;
	return behind < 64 && !(w->seen >> behind & 1);
}

/* A fresh seq into the window; lost is what it changes in the count of lost packets (SEQ-04). */
static void window_commit(struct pool_window *w, u64 seq, s64 *lost)
{
	if (seq > w->highest) {
		u64 ahead = seq - w->highest;

		*lost = ahead - 1;
		w->seen = ahead < 64 ? w->seen << ahead : 0;
		w->seen |= 1;
		WRITE_ONCE(w->highest, seq);
	} else {
		*lost = -1;
		w->seen |= 1ULL << (w->highest - seq);
	}
}

static bool in_peers_range(const struct pool_session *s, u64 seq)
{
	if (s->role == POOL_SERVER)
		return seq < POOL_SEQ_CLIENT_END;
	return seq >= POOL_SEQ_SERVER && seq < POOL_SEQ_SERVER_END;
}

struct pool_message *pool_message_alloc(u32 len)
{
	struct pool_message *msg = kvmalloc(struct_size(msg, data, len), GFP_KERNEL);

	if (msg)
		msg->len = len;
	return msg;
}

static size_t message_size(const struct pool_message *msg)
{
	return sizeof(*msg) + msg->len;
}

bool pool_rxq_full(struct pool_session *s)
{
	long most = (totalram_pages() << PAGE_SHIFT) / 8;
	bool full;

	spin_lock(&s->q_lock);
	/* A session with an empty queue may always take one more. */
	full = s->rxq_len >= POOL_RXQ_MESSAGES || s->rxq_bytes >= POOL_RXQ_BYTES ||
	       (s->rxq_len && atomic_long_read(&queued_bytes) >= most);
	if (full && !s->rx_paused) {
		pool_count(overload);
		WRITE_ONCE(s->rx_paused, true);
	} else if (!full && s->rx_paused) {
		WRITE_ONCE(s->last_rx_ns, ktime_get_ns());
		WRITE_ONCE(s->rx_paused, false);
	}
	spin_unlock(&s->q_lock);
	return full;
}

void pool_deliver(struct pool_session *s, struct pool_message *msg)
{
	atomic_long_add(message_size(msg), &queued_bytes);
	spin_lock(&s->q_lock);
	list_add_tail(&msg->list, &s->rxq);
	WRITE_ONCE(s->rxq_len, s->rxq_len + 1);
	s->rxq_bytes += message_size(msg);
	spin_unlock(&s->q_lock);
	WRITE_ONCE(s->bytes_recv, s->bytes_recv + msg->len);
	wake_up_interruptible(&s->rx_wait);
}

static void receive_data(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	struct pool_message *msg;

	if (!test_bit(h->channel, s->subscribed)) {
		pool_count(unsubscribed);
		return;
	}
	if (pool_hdr_flags(h) & POOL_F_FRAGMENT) {
		pool_fragment_receive(s, h, plaintext, len);
		return;
	}
	if (!len || (pool_hdr_flags(h) & POOL_F_LAST_FRAG)) {
		pool_count(malformed);
		return;
	}
	msg = pool_message_alloc(len);
	if (!msg) {
		pool_count(no_memory);
		return;
	}
	msg->channel = h->channel;
	memcpy(msg->data, plaintext, len);
	pool_deliver(s, msg);
}

static void receive_heartbeat(struct pool_session *s, const u8 *plaintext, u32 len)
{
	const struct pool_wire_telemetry *t = (const void *)plaintext;

	if (len != sizeof(*t)) {
		pool_count(malformed);
		return;
	}
	s->peer.rtt_ns = be64_to_cpu(t->rtt_ns);
	s->peer.jitter_ns = be64_to_cpu(t->jitter_ns);
	s->peer.loss_rate_ppm = be32_to_cpu(t->loss_rate_ppm);
	s->peer.throughput_bps = be32_to_cpu(t->throughput_bps);
	s->peer.mtu = be16_to_cpu(t->mtu);
	s->peer.queue_depth = be16_to_cpu(t->queue_depth);
	s->peer.uptime_ns = be64_to_cpu(t->uptime_ns);
	s->peer.rekey_count = be32_to_cpu(t->rekey_count);
	s->peer.config_version = be32_to_cpu(t->config_version);
}

static int receive_close(struct pool_session *s, const u8 *plaintext, u32 len)
{
	char why[32];

	if (len > 1) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	snprintf(why, sizeof(why), "closed by the peer, code %u", len ? plaintext[0] : 0);
	pool_session_end_locked(s, POOL_CLOSE_NONE, why);
	return POOL_RX_STOP;
}

static int act(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	switch (pool_hdr_type(h)) {
	case POOL_DATA:
		receive_data(s, h, plaintext, len);
		break;
	case POOL_ACK:
		break;
	case POOL_HEARTBEAT:
		receive_heartbeat(s, plaintext, len);
		break;
	case POOL_CLOSE:
		return receive_close(s, plaintext, len);
	default:
		/* Legal, and nobody here to act on it yet. */
		pool_count(not_implemented);
		break;
	}
	return POOL_RX_NEXT;
}

/* SEAL-05, from the top to the bottom. */
int pool_session_receive(struct pool_session *s, struct pool_hdr *h)
{
	u64 seq = be64_to_cpu(h->seq), ack = be64_to_cpu(h->ack);
	u16 flags = pool_hdr_flags(h);
	u8 type = pool_hdr_type(h);
	u32 len = pool_hdr_payload_len(h);
	/* Only the end of a RESPONSE is sealed; one that comes now is still opened before it is discarded. */
	u32 sealed_from = type == POOL_RESPONSE ? offsetof(struct pool_response, sealed_proof) : 0;
	s64 lost;

	lockdep_assert_held(&s->conn->rx_lock);
	if (pool_hdr_version(h) != POOL_VERSION) {
		pool_count(version_mismatch);
		return POOL_RX_NEXT;
	}
	if (pool_header_malformed(h)) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	if (type == POOL_INIT || type == POOL_CHALLENGE) {
		pool_count(unexpected_type);
		return POOL_RX_NEXT;
	}
	if (memcmp(h->session_id, s->id, POOL_ID_LEN)) {
		pool_count(unknown_session);
		return POOL_RX_NEXT;
	}
	if (payload_malformed(h)) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	if (!pool_keys_verify(&s->keys, h)) {
		pool_count(auth_fail);
		pool_session_end_locked(s, POOL_CODE_AUTH_FAIL, "a packet without a valid hmac");
		return POOL_RX_STOP;
	}
	if (!in_peers_range(s, seq)) {
		pool_count(reflected);
		return POOL_RX_NEXT;
	}
	if (!window_fresh(&s->window, seq)) {
		pool_count(replay_drops);
		return POOL_RX_NEXT;
	}
	if (len) {
		if (!pool_keys_open(&s->keys, h, sealed_from)) {
			pool_count(decrypt_fail);
			pool_session_end_locked(s, POOL_CODE_DECRYPT_FAIL, "a packet without a valid tag");
			return POOL_RX_STOP;
		}
		len -= sealed_from + POOL_TAG_LEN;
	}

	window_commit(&s->window, seq, &lost);
	WRITE_ONCE(s->packets_lost, s->packets_lost + lost);
	pool_count_add(packets_lost, lost);
	WRITE_ONCE(s->packets_recv, s->packets_recv + 1);
	pool_count(packets_received);
	WRITE_ONCE(s->last_rx_ns, ktime_get_ns());
	if (ack < s->tx_first || ack >= READ_ONCE(s->tx_next))
		pool_count(bad_ack);
	else if (type == POOL_ACK)
		pool_rtt_sample(s, ack);

	/* REQUIRE_ACK means nothing on an ACK, and a CLOSE is never answered. */
	if (type == POOL_HEARTBEAT)
		pool_owe_ack(s, true);
	else if ((flags & POOL_F_REQUIRE_ACK) && type != POOL_ACK && type != POOL_CLOSE)
		pool_owe_ack(s, false);

	if (!pool_state_takes(s->state, type))
		return POOL_RX_NEXT;
	return act(s, h, (const u8 *)(h + 1), len);
}

/* The first message on the channel, or on any (0). recv_lock is held, so it stays. */
static struct pool_message *rxq_find(struct pool_session *s, u8 channel)
{
	struct pool_message *msg, *found = NULL;

	spin_lock(&s->q_lock);
	list_for_each_entry(msg, &s->rxq, list) {
		if (!channel || msg->channel == channel) {
			found = msg;
			break;
		}
	}
	spin_unlock(&s->q_lock);
	return found;
}

static bool rxq_has(struct pool_session *s, u8 channel)
{
	return rxq_find(s, channel);
}

static void rxq_unlink(struct pool_session *s, struct pool_message *msg)
{
	bool resume;

	spin_lock(&s->q_lock);
	list_del(&msg->list);
	WRITE_ONCE(s->rxq_len, s->rxq_len - 1);
	s->rxq_bytes -= message_size(msg);
	/* Half empty before reading goes on, or every message would wake the reader. */
	resume = s->rx_paused && s->rxq_len <= POOL_RXQ_MESSAGES / 2 && s->rxq_bytes <= POOL_RXQ_BYTES / 2;
	spin_unlock(&s->q_lock);
	atomic_long_sub(message_size(msg), &queued_bytes);
	if (resume)
		pool_conn_kick_rx(s->conn);
}

int pool_recv_message(struct pool_session *s, u8 *channel, void __user *data, u32 *len, bool nonblock)
{
	long left = RECV_TIMEOUT;
	struct pool_message *msg;
	bool ended;
	int err;

	for (;;) {
		ended = READ_ONCE(s->ended);
		err = mutex_lock_interruptible(&s->recv_lock);
		if (err)
			return err;
		msg = rxq_find(s, *channel);
		if (msg)
			break;
		mutex_unlock(&s->recv_lock);
		if (ended)
			return -ENOTCONN;
		if (nonblock)
			return -EAGAIN;
		left = wait_event_interruptible_timeout(s->rx_wait,
							rxq_has(s, *channel) || READ_ONCE(s->ended), left);
		if (left < 0)
			return left;
		if (!left)
			return -ETIMEDOUT;
	}
	*channel = msg->channel;
	if (msg->len > *len) {
		err = -EMSGSIZE;
	} else if (copy_to_user(data, msg->data, msg->len)) {
		err = -EFAULT;
	} else {
		rxq_unlink(s, msg);
		err = 0;
	}
	*len = msg->len;
	mutex_unlock(&s->recv_lock);
	if (!err) {
		kvfree_sensitive(msg, message_size(msg));
		pool_session_release_slot(s);
	}
	return err;
}

void pool_rxq_purge(struct pool_session *s)
{
	struct pool_message *msg, *next;

	list_for_each_entry_safe(msg, next, &s->rxq, list) {
		atomic_long_sub(message_size(msg), &queued_bytes);
		kvfree_sensitive(msg, message_size(msg));
	}
}
