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
#include "raw.h"
#include "session.h"

#define LINGERING_MAX	256

static DEFINE_SPINLOCK(conns_lock);
static LIST_HEAD(conns);
static atomic_t conns_lingering = ATOMIC_INIT(0);
static DECLARE_WAIT_QUEUE_HEAD(conns_gone);

static void conn_timer_work(struct work_struct *work);
static atomic_t conns_live = ATOMIC_INIT(0);	/* allocated and not yet freed */

struct pool_conn *pool_conn_alloc(struct socket *sock, enum pool_phase phase)
{
	struct pool_conn *c = kzalloc(sizeof(*c), GFP_KERNEL);

	if (!c)
		goto no_conn;
	if (sock) {
		c->rx_size = POOL_HANDSHAKE_BUF;
		c->rx_buf = kvmalloc(c->rx_size, GFP_KERNEL);
		if (!c->rx_buf)
			goto no_buffer;
	}
	kref_init(&c->ref);
	c->sock = sock;
	c->phase = phase;
	INIT_LIST_HEAD(&c->pending);
	INIT_LIST_HEAD(&c->txq);
	mutex_init(&c->rx_lock);
	mutex_init(&c->tx_lock);
	init_waitqueue_head(&c->tx_wait);
	INIT_WORK(&c->rx_work, sock ? pool_conn_rx_work : pool_raw_rx_work);
	INIT_WORK(&c->tx_work, pool_conn_tx_work);
	INIT_DELAYED_WORK(&c->timer, conn_timer_work);
	atomic_inc(&conns_live);
	spin_lock(&conns_lock);
	list_add_tail(&c->all, &conns);
	spin_unlock(&conns_lock);
	return c;

no_buffer:
	kfree(c);
no_conn:
	if (sock)
		sock_release(sock);
	return NULL;
}

static void conn_free(struct kref *ref)
{
	struct pool_conn *c = container_of(ref, struct pool_conn, ref);

	WARN_ON(c->session);
	if (c->sock)
		sock_release(c->sock);
	if (c->raw)
		pool_raw_free(c->raw);
	pool_conn_drop_txq(c);
	kvfree_sensitive(c->rx_buf, c->rx_size);
	kfree(c);
	if (atomic_dec_and_test(&conns_live))
		wake_up_all(&conns_gone);
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

char *pool_address_str(char buf[POOL_PEER_STR], const struct in6_addr *ip, u16 port)
{
	if (ipv6_addr_v4mapped(ip))
		snprintf(buf, POOL_PEER_STR, "%pI4 %u", &ip->s6_addr32[3], port);
	else
		snprintf(buf, POOL_PEER_STR, "%pI6c %u", ip, port);
	return buf;
}

char *pool_peer_str(char buf[POOL_PEER_STR], const struct pool_conn *c)
{
	return pool_address_str(buf, &c->peer, c->peer_port);
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
	if (c->raw) {
		pool_raw_forget(c);
	} else {
		conn_detach(c);
		kernel_sock_shutdown(c->sock, SHUT_RDWR);
	}
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

void pool_conn_end_linger(struct pool_conn *c)
{
	lockdep_assert_held(&c->rx_lock);
	atomic_dec(&conns_lingering);
	pool_conn_kill(c);
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
		if (c->phase == POOL_PHASE_LINGER && !pool_conn_dead(c))
			pool_conn_end_linger(c);
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

	wait_event_timeout(conns_gone, conns_empty(), msecs_to_jiffies(pool_raw_available() ? 2500 : 1500));
	for (;;) {
		spin_lock(&conns_lock);
		c = list_first_entry_or_null(&conns, struct pool_conn, all);
		if (c)
			pool_conn_get(c);
		spin_unlock(&conns_lock);
		if (!c)
			return;
		/* Over raw IP a peer may not have said anything to our CLOSE. */
		mutex_lock(&c->rx_lock);
		if (c->session)
			pool_session_end_locked(c->session, POOL_CLOSE_NONE, "module unload");
		mutex_unlock(&c->rx_lock);
		pool_conn_kill(c);
		pool_conn_put(c);
	}
}

/*
 * An armed timer holds a reference, to a connection or to a session, which holds one to its connection. None may
 * outlive the queue it fires into; the longest is armed for the 30 s of HS-09.
 */
void pool_conns_await_freed(void)
{
	flush_workqueue(pool_wq);
	if (wait_event_timeout(conns_gone, !atomic_read(&conns_live), HZ / 10))
		return;
	pr_warn("pool: %d connections still have a timer\n", atomic_read(&conns_live));
	if (!wait_event_timeout(conns_gone, !atomic_read(&conns_live), 31 * HZ))
		pr_err("pool: %d connections were never freed\n", atomic_read(&conns_live));
}
