// SPDX-License-Identifier: GPL-2.0-or-later
/* Whose each datagram is, and the connections over raw IP. */
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <net/ipv6.h>
#include "counters.h"
#include "journal.h"
#include "raw.h"
#include "session.h"

#define ACTS_PER_LOCK		16
#define QUEUE_MAX		256		/* datagrams of a connection; a send window is 32 */
#define QUEUE_BYTES_MAX		(512 << 10)
#define HANDSHAKES_MAX		256		/* INITs and RESPONSEs that wait (HS-09) */
#define HANDSHAKE_BYTES_MAX	2048

static DEFINE_SPINLOCK(raw_lock);	/* innermost */
static LIST_HEAD(raw_conns);
static LIST_HEAD(handshakes);
static unsigned int handshakes_queued;
static bool raw_listening;

static void handshake_work_fn(struct work_struct *work);
static DECLARE_WORK(handshake_work, handshake_work_fn);

static void queue_handshake(struct pool_datagram *d)
{
	bool queued;

	spin_lock(&raw_lock);
	queued = handshakes_queued < HANDSHAKES_MAX;
	if (queued) {
		list_add_tail(&d->list, &handshakes);
		handshakes_queued++;
	}
	spin_unlock(&raw_lock);
	if (queued) {
		queue_work(pool_wq, &handshake_work);
	} else {
		pool_count(overload);
		kvfree(d);
	}
}

static struct pool_datagram *take_handshake(void)
{
	struct pool_datagram *d;

	spin_lock(&raw_lock);
	d = list_first_entry_or_null(&handshakes, struct pool_datagram, list);
	if (d) {
		list_del(&d->list);
		handshakes_queued--;
	}
	spin_unlock(&raw_lock);
	return d;
}

static void handshake_work_fn(struct work_struct *work)
{
	struct pool_datagram *d;

	while ((d = take_handshake())) {
		if (READ_ONCE(raw_listening)) {
			pool_raw_handshake(d);
		} else {
			pool_count(unexpected_type);
			kvfree(d);
		}
		cond_resched();
	}
}

/* The connection a datagram is for, with a reference; else what it is discarded as. raw_lock is held. */
static struct pool_conn *conn_of(const struct pool_datagram *d, enum pool_counter *why)
{
	const struct pool_hdr *h = (const void *)d->data;
	bool answer = pool_hdr_type(h) == POOL_CHALLENGE || pool_hdr_type(h) == POOL_CLOSE;
	struct pool_raw *raw;
	struct pool_conn *c;

	*why = POOL_CNT_unknown_session;
	list_for_each_entry(raw, &raw_conns, all) {
		c = raw->conn;
		if (raw->keyed && !memcmp(raw->id, h->session_id, POOL_ID_LEN)) {
			if (raw->peer == d->from)
				goto found;
			*why = POOL_CNT_spoofed;
		} else if (raw->attempt && answer) {
			/* HS-14 */
			if (raw->peer == d->from && raw->echo == h->ack)
				goto found;
			if (raw->peer == d->from || raw->echo == h->ack)
				*why = POOL_CNT_spoofed;
		}
	}
	return NULL;
found:
	pool_conn_get(c);
	return c;
}

static void queue_for(struct pool_conn *c, struct pool_datagram *d)
{
	struct pool_raw *raw = c->raw;
	bool queued;

	spin_lock(&raw_lock);
	queued = raw->queued < QUEUE_MAX && raw->queued_bytes + d->len <= QUEUE_BYTES_MAX && !pool_conn_dead(c);
	if (queued) {
		list_add_tail(&d->list, &raw->queue);
		raw->queued++;
		raw->queued_bytes += d->len;
	}
	spin_unlock(&raw_lock);
	if (!queued) {
		pool_count_error(overload, POOL_CODE_OVERLOAD, c);
		kvfree(d);
		return;
	}
	wake_up_interruptible(&raw->wait);
	pool_conn_kick_rx(c);
}

static struct pool_datagram *take(struct pool_raw *raw)
{
	struct pool_datagram *d;

	spin_lock(&raw_lock);
	d = list_first_entry_or_null(&raw->queue, struct pool_datagram, list);
	if (d) {
		list_del(&d->list);
		raw->queued--;
		raw->queued_bytes -= d->len;
	}
	spin_unlock(&raw_lock);
	return d;
}

/* Section 4, HS-14, E-37. Takes the datagram. */
void pool_raw_sort(struct pool_datagram *d)
{
	const struct pool_hdr *h = (const void *)d->data;
	u8 type = pool_hdr_type(h);
	bool own_version = pool_hdr_version(h) == POOL_VERSION;
	enum pool_counter why;
	struct pool_conn *c;
	struct in6_addr ip;

	if (own_version && pool_header_malformed(h)) {
		why = POOL_CNT_malformed;
	} else if (type == POOL_INIT) {
		if (READ_ONCE(raw_listening) && d->len <= HANDSHAKE_BYTES_MAX) {
			queue_handshake(d);
			return;
		}
		why = READ_ONCE(raw_listening) ? POOL_CNT_malformed : POOL_CNT_unexpected_type;
	} else {
		spin_lock(&raw_lock);
		c = conn_of(d, &why);
		spin_unlock(&raw_lock);
		if (c && !own_version && type != POOL_CLOSE) {
			pool_conn_put(c);
			c = NULL;
		}
		if (c) {
			queue_for(c, d);
			pool_conn_put(c);
			return;
		}
		if (own_version && type == POOL_RESPONSE && why == POOL_CNT_unknown_session) {
			if (READ_ONCE(raw_listening) && d->len <= HANDSHAKE_BYTES_MAX) {
				queue_handshake(d);
				return;
			}
			why = READ_ONCE(raw_listening) ? POOL_CNT_malformed : POOL_CNT_unexpected_type;
		}
	}
	if (!own_version)
		why = POOL_CNT_version_mismatch;
	pool_count_one(why);
	if (!own_version) {
		ipv6_addr_set_v4mapped(d->from, &ip);
		pool_journal_error_from(POOL_CODE_VERSION_MISMATCH, &ip, 0, "version_mismatch");
	}
	kvfree(d);
}

void pool_raw_rx_work(struct work_struct *work)
{
	struct pool_conn *c = container_of(work, struct pool_conn, rx_work);
	struct pool_datagram *d;
	struct pool_session *s;
	int acts;

	do {
		mutex_lock(&c->rx_lock);
		for (acts = 0; acts < ACTS_PER_LOCK; acts++) {
			s = c->session;
			/* Before that connect() reads the queue. */
			d = c->phase == POOL_PHASE_SESSION && s ? take(c->raw) : NULL;
			if (!d)
				break;
			/* The packet may end the session, and with that the connection's reference. */
			pool_session_get(s);
			pool_session_receive(s, (struct pool_hdr *)d->data);
			pool_session_put(s);
			kvfree(d);
		}
		mutex_unlock(&c->rx_lock);
		cond_resched();
	} while (acts == ACTS_PER_LOCK);
	pool_conn_put(c);
}

struct pool_hdr *pool_raw_await(struct pool_conn *c, unsigned long deadline)
{
	struct pool_raw *raw = c->raw;
	unsigned long left;
	long woken;

	kvfree(raw->current_one);
	raw->current_one = NULL;
	for (;;) {
		raw->current_one = take(raw);
		if (raw->current_one)
			return (struct pool_hdr *)raw->current_one->data;
		left = pool_time_left(deadline);
		if (!left)
			return ERR_PTR(-ETIMEDOUT);
		woken = wait_event_interruptible_timeout(raw->wait, READ_ONCE(raw->queued), pool_timer_step(left));
		if (woken < 0)
			return ERR_PTR(-EINTR);
	}
}

struct pool_conn *pool_raw_conn_alloc(__be32 peer, __be32 local, enum pool_phase phase)
{
	struct pool_raw *raw = kzalloc(sizeof(*raw), GFP_KERNEL);
	struct pool_conn *c;

	if (!raw)
		return NULL;
	c = pool_conn_alloc(NULL, phase);
	if (!c) {
		kfree(raw);
		return NULL;
	}
	raw->conn = c;
	raw->peer = peer;
	raw->local = local;
	init_waitqueue_head(&raw->wait);
	INIT_LIST_HEAD(&raw->queue);
	ipv6_addr_set_v4mapped(peer, &c->peer);
	c->raw = raw;
	spin_lock(&raw_lock);
	list_add_tail(&raw->all, &raw_conns);
	spin_unlock(&raw_lock);
	return c;
}

void pool_raw_free(struct pool_raw *raw)
{
	struct pool_datagram *d;

	while ((d = take(raw)))
		kvfree(d);
	kvfree(raw->current_one);
	kfree(raw);
}

void pool_raw_set_attempt(struct pool_conn *c, __be64 echo)
{
	spin_lock(&raw_lock);
	c->raw->echo = echo;
	c->raw->attempt = true;
	spin_unlock(&raw_lock);
}

void pool_raw_set_id(struct pool_conn *c, const u8 id[POOL_ID_LEN])
{
	spin_lock(&raw_lock);
	memcpy(c->raw->id, id, POOL_ID_LEN);
	c->raw->keyed = true;
	spin_unlock(&raw_lock);
}

void pool_raw_established(struct pool_conn *c)
{
	spin_lock(&raw_lock);
	c->raw->attempt = false;
	spin_unlock(&raw_lock);
}

void pool_raw_forget(struct pool_conn *c)
{
	spin_lock(&raw_lock);
	list_del_init(&c->raw->all);
	spin_unlock(&raw_lock);
}

struct pool_conn *pool_raw_find(__be32 peer, const u8 id[POOL_ID_LEN])
{
	struct pool_conn *found = NULL;
	struct pool_raw *raw;

	spin_lock(&raw_lock);
	list_for_each_entry(raw, &raw_conns, all) {
		if (raw->keyed && raw->peer == peer && !memcmp(raw->id, id, POOL_ID_LEN)) {
			found = raw->conn;
			pool_conn_get(found);
			break;
		}
	}
	spin_unlock(&raw_lock);
	return found;
}

void pool_raw_give(struct pool_conn *c, struct pool_datagram *d)
{
	queue_for(c, d);
}

void pool_raw_listen(bool listening)
{
	WRITE_ONCE(raw_listening, listening);
	if (!listening)
		flush_work(&handshake_work);
}
