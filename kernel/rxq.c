// SPDX-License-Identifier: GPL-2.0-or-later
/* Messages on their way to the user: DATA, the receive queue, RECV. */
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "parts.h"
#include "session.h"

#define RECV_TIMEOUT	(5 * HZ)

/* Bytes of messages in all queues; bounded, or 64 silent readers would eat the memory. */
static atomic_long_t queued_bytes = ATOMIC_LONG_INIT(0);

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

/* q_lock is held. */
static bool rxq_full(const struct pool_session *s, u32 waiting)
{
	long most = (totalram_pages() << PAGE_SHIFT) / 8;

	/* A session with an empty queue may always take one more. */
	return s->rxq_len + waiting >= POOL_RXQ_MESSAGES || s->rxq_bytes >= POOL_RXQ_BYTES ||
	       (s->rxq_len && atomic_long_read(&queued_bytes) >= most);
}

bool pool_rxq_has_room(struct pool_session *s, u32 waiting)
{
	bool full;

	spin_lock(&s->q_lock);
	full = rxq_full(s, waiting);
	spin_unlock(&s->q_lock);
	return !full;
}

bool pool_rxq_full(struct pool_session *s)
{
	bool full, paused, resumed;

	lockdep_assert_held(&s->conn->rx_lock);
	spin_lock(&s->q_lock);
	full = rxq_full(s, 0);
	resumed = !full && s->rx_paused;
	paused = full && !s->rx_paused;
	if (paused)
		s->paused_ns = ktime_get_ns();
	WRITE_ONCE(s->rx_paused, full);
	spin_unlock(&s->q_lock);
	if (paused)
		pool_count_error(overload, POOL_CODE_OVERLOAD, s->conn);
	if (resumed)
		pool_parts_postpone(s, ktime_get_ns() - s->paused_ns);
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

void pool_data_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
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
		ended = !pool_session_active(s);
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
							rxq_has(s, *channel) || !pool_session_active(s), left);
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
