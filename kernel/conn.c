// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/ipv6.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <net/tcp.h>
#include "conn.h"
#include "counters.h"
#include "session.h"

#define FLUSH_VECS	16
#define READS_PER_WORK	16
#define LINGERING_MAX	256

static DEFINE_SPINLOCK(conns_lock);
static LIST_HEAD(conns);
static atomic_t conns_lingering = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(conns_gone);

static void conn_rx_work(struct work_struct *work);
static void conn_tx_work(struct work_struct *work);
static void conn_timer_work(struct work_struct *work);

struct pool_conn *pool_conn_alloc(struct socket *sock, enum pool_phase phase)
{
	struct pool_conn *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		goto no_conn;
	c->rx_size = POOL_HANDSHAKE_BUF;
	c->rx_buf = kvmalloc(c->rx_size, GFP_KERNEL);
	if (!c->rx_buf)
		goto no_buffer;
	kref_init(&c->ref);
	c->sock = sock;
	c->phase = phase;
	INIT_LIST_HEAD(&c->pending);
	INIT_LIST_HEAD(&c->txq);
	mutex_init(&c->rx_lock);
	mutex_init(&c->tx_lock);
	init_waitqueue_head(&c->tx_wait);
	INIT_WORK(&c->rx_work, conn_rx_work);
	INIT_WORK(&c->tx_work, conn_tx_work);
	INIT_DELAYED_WORK(&c->timer, conn_timer_work);
	spin_lock(&conns_lock);
	list_add_tail(&c->all, &conns);
	spin_unlock(&conns_lock);
	return c;

no_buffer:
	kfree(c);
no_conn:
	sock_release(sock);
	return NULL;
}

static void conn_drop_txq(struct pool_conn *c)
{
	struct pool_txbuf *b, *next;

	list_for_each_entry_safe(b, next, &c->txq, list)
		kvfree(b);
	INIT_LIST_HEAD(&c->txq);
	c->txq_bytes = 0;
}

static void conn_free(struct kref *ref)
{
	struct pool_conn *c = container_of(ref, struct pool_conn, ref);

	WARN_ON(c->session);
	sock_release(c->sock);
	conn_drop_txq(c);
	kvfree_sensitive(c->rx_buf, c->rx_size);
	kfree(c);
}

void pool_conn_put(struct pool_conn *c)
{
	kref_put(&c->ref, conn_free);
}

int pool_conn_read_peer(struct pool_conn *c)
{
	struct sockaddr_storage ss = {};
	int len = kernel_getpeername(c->sock, (struct sockaddr *)&ss);

	if (len < 0)
		return len;
	if (ss.ss_family == AF_INET) {
		const struct sockaddr_in *sin = (const void *)&ss;

		ipv6_addr_set_v4mapped(sin->sin_addr.s_addr, &c->peer);
		c->peer_port = ntohs(sin->sin_port);
	} else {
		const struct sockaddr_in6 *sin6 = (const void *)&ss;

		c->peer = sin6->sin6_addr;
		c->peer_port = ntohs(sin6->sin6_port);
	}
	return 0;
}

void pool_conn_tune(struct pool_conn *c)
{
	struct sock *sk = c->sock->sk;

	tcp_sock_set_nodelay(sk);
	/* HB-02 */
	sock_set_keepalive(sk);
	tcp_sock_set_keepidle(sk, 60);
	tcp_sock_set_keepintvl(sk, 10);
	tcp_sock_set_keepcnt(sk, 3);
}

static void kick(struct pool_conn *c, struct work_struct *work)
{
	pool_conn_get(c);
	if (!queue_work(pool_wq, work))
		pool_conn_put(c);
}

void pool_conn_kick_rx(struct pool_conn *c)
{
	kick(c, &c->rx_work);
}

void pool_conn_kick_tx(struct pool_conn *c)
{
	kick(c, &c->tx_work);
}

static void conn_event(struct sock *sk)
{
	struct pool_conn *c;

	read_lock_bh(&sk->sk_callback_lock);
	c = sk->sk_user_data;
	if (c)
		pool_conn_kick_rx(c);
	read_unlock_bh(&sk->sk_callback_lock);
}

static void conn_write_space(struct sock *sk)
{
	struct pool_conn *c;

	read_lock_bh(&sk->sk_callback_lock);
	c = sk->sk_user_data;
	if (c && sk_stream_is_writeable(sk)) {
		clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
		pool_conn_kick_tx(c);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

void pool_conn_attach(struct pool_conn *c)
{
	struct sock *sk = c->sock->sk;

	write_lock_bh(&sk->sk_callback_lock);
	c->saved_data_ready = sk->sk_data_ready;
	c->saved_state_change = sk->sk_state_change;
	c->saved_write_space = sk->sk_write_space;
	sk->sk_user_data = c;
	sk->sk_data_ready = conn_event;
	sk->sk_state_change = conn_event;
	sk->sk_write_space = conn_write_space;
	write_unlock_bh(&sk->sk_callback_lock);
	/* Whatever arrived before. */
	pool_conn_kick_rx(c);
}

static void conn_detach(struct pool_conn *c)
{
	struct sock *sk = c->sock->sk;

	write_lock_bh(&sk->sk_callback_lock);
	if (sk->sk_user_data == c) {
		sk->sk_user_data = NULL;
		sk->sk_data_ready = c->saved_data_ready;
		sk->sk_state_change = c->saved_state_change;
		sk->sk_write_space = c->saved_write_space;
	}
	write_unlock_bh(&sk->sk_callback_lock);
}

void pool_conn_kill(struct pool_conn *c)
{
	if (test_and_set_bit(POOL_CONN_DEAD, &c->flags))
		return;
	conn_detach(c);
	kernel_sock_shutdown(c->sock, SHUT_RDWR);
	pool_conn_disarm(c);
	wake_up_all(&c->tx_wait);
	spin_lock(&conns_lock);
	list_del(&c->all);
	spin_unlock(&conns_lock);
	wake_up_all(&conns_gone);
	pool_conn_put(c);
}

static void conn_arm_step(struct pool_conn *c)
{
	pool_conn_get(c);
	if (mod_delayed_work(pool_wq, &c->timer, pool_timer_step(pool_time_left(READ_ONCE(c->deadline)))))
		pool_conn_put(c);
	/* Killed meanwhile: whoever did may have looked for a timer too early. */
	if (pool_conn_dead(c))
		pool_conn_disarm(c);
}

void pool_conn_arm(struct pool_conn *c, unsigned int ms)
{
	WRITE_ONCE(c->deadline, jiffies + msecs_to_jiffies(ms));
	conn_arm_step(c);
}

void pool_conn_disarm(struct pool_conn *c)
{
	if (cancel_delayed_work(&c->timer))
		pool_conn_put(c);
}

static void conn_timer_work(struct work_struct *work)
{
	struct pool_conn *c = container_of(to_delayed_work(work), struct pool_conn, timer);

	if (pool_time_left(READ_ONCE(c->deadline))) {
		conn_arm_step(c);
	} else if (pool_pending_claim(c)) {
		pool_count(handshake_timeouts);
		pool_count(handshakes_failed);
		pool_conn_kill(c);
	} else {
		mutex_lock(&c->rx_lock);
		if (c->phase == POOL_PHASE_LINGER && !pool_conn_dead(c)) {
			atomic_dec(&conns_lingering);
			pool_conn_kill(c);
		}
		mutex_unlock(&c->rx_lock);
	}
	pool_conn_put(c);
}

void pool_conn_linger(struct pool_conn *c)
{
	lockdep_assert_held(&c->rx_lock);
	c->phase = POOL_PHASE_LINGER;
	if (pool_conn_dead(c))
		return;
	if (atomic_inc_return(&conns_lingering) > LINGERING_MAX) {
		atomic_dec(&conns_lingering);
		pool_conn_kill(c);
		return;
	}
	pool_conn_arm(c, POOL_LINGER_MS);
	mutex_lock(&c->tx_lock);
	set_bit(POOL_CONN_FIN, &c->flags);
	pool_conn_flush(c);
	mutex_unlock(&c->tx_lock);
	pool_conn_kick_rx(c);
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
		next = pool_session_receive(s, packet);
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
		atomic_dec(&conns_lingering);
		pool_conn_kill(c);
		break;
	case POOL_PHASE_CLIENT:
		break;
	}
}

static void conn_rx_work(struct work_struct *work)
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

struct pool_txbuf *pool_txbuf_alloc(u32 payload_len)
{
	struct pool_txbuf *b = kvmalloc(struct_size(b, data, POOL_HDR_LEN + payload_len), GFP_KERNEL);

	if (b) {
		b->len = POOL_HDR_LEN + payload_len;
		b->sent = 0;
		memset(b->data, 0, POOL_HDR_LEN);
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
			/* The stream is broken: the receiving side will see it end. */
			conn_drop_txq(c);
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
	}
	if (list_empty(&c->txq) && test_and_clear_bit(POOL_CONN_FIN, &c->flags))
		kernel_sock_shutdown(c->sock, SHUT_WR);
	if (!pool_conn_crowded(c))
		wake_up_all(&c->tx_wait);
}

static void conn_tx_work(struct work_struct *work)
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

int pool_conn_send_plain(struct pool_conn *c, u8 type, const u8 *session_id, u64 timestamp,
			 const void *payload, u32 len)
{
	struct pool_txbuf *b = pool_txbuf_alloc(len);
	struct pool_hdr *h;
	int err = 0;

	if (!b)
		return -ENOMEM;
	h = (struct pool_hdr *)b->data;
	h->ver_type = POOL_VERSION << 4 | type;
	h->timestamp = cpu_to_be64(timestamp);
	h->payload_len = cpu_to_be16(len);
	if (session_id)
		memcpy(h->session_id, session_id, POOL_ID_LEN);
	memcpy(h + 1, payload, len);
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

static bool conns_empty(void)
{
	bool empty;

	spin_lock(&conns_lock);
	empty = list_empty(&conns);
	spin_unlock(&conns_lock);
	return empty;
}

void pool_conns_shutdown(void)
{
	struct pool_conn *c;

	wait_event_timeout(conns_gone, conns_empty(), msecs_to_jiffies(1500));
	for (;;) {
		spin_lock(&conns_lock);
		c = list_first_entry_or_null(&conns, struct pool_conn, all);
		if (c)
			pool_conn_get(c);
		spin_unlock(&conns_lock);
		if (!c)
			return;
		pool_conn_kill(c);
		pool_conn_put(c);
	}
}
