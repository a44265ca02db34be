// SPDX-License-Identifier: GPL-2.0-or-later
/* One dual-stack listener; accepted connections wait here until their handshake is done. */
#include <linux/in6.h>
#include <linux/net.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include "announce.h"
#include "compat.h"
#include "conn.h"
#include "counters.h"
#include "params.h"
#include "raw.h"
#include "session.h"

#define PENDING_MAX	256	/* HS-09 */
#define INIT_WAIT_MS	10000
#define BACKLOG		128

static DEFINE_MUTEX(pool_listener_lock);
static struct socket *listen_sock;
static u16 listen_port;
static void (*default_data_ready)(struct sock *sk);

static DEFINE_SPINLOCK(pending_lock);
static LIST_HEAD(pending);	/* oldest first */
static unsigned int pending_count;
static bool pending_closed = true;

static void accept_work_fn(struct work_struct *work);
static DECLARE_WORK(accept_work, accept_work_fn);

bool pool_pending_claim(struct pool_conn *c)
{
	bool mine;

	spin_lock(&pending_lock);
	mine = !list_empty(&c->pending);
	if (mine) {
		list_del_init(&c->pending);
		pending_count--;
	}
	spin_unlock(&pending_lock);
	return mine;
}

/* The oldest that has not even sent an INIT gives way, else the oldest (HS-09). */
static struct pool_conn *pending_victim(void)
{
	struct pool_conn *c;

	list_for_each_entry(c, &pending, pending)
		if (!READ_ONCE(c->challenged))
			return c;
	return list_first_entry(&pending, struct pool_conn, pending);
}

static bool pending_add(struct pool_conn *c)
{
	struct pool_conn *victim = NULL;
	bool added;

	spin_lock(&pending_lock);
	added = !pending_closed;
	if (added) {
		if (pending_count >= PENDING_MAX) {
			victim = pending_victim();
			list_del_init(&victim->pending);
			pending_count--;
		}
		list_add_tail(&c->pending, &pending);
		pending_count++;
	}
	spin_unlock(&pending_lock);
	if (victim) {
		pool_count(handshakes_evicted);
		pool_count(handshakes_failed);
		net_info_ratelimited("pool: too many handshakes, dropping the one of %pI6c\n", &victim->peer);
		pool_conn_kill(victim);
	}
	return added;
}

static void accept_one(struct socket *sock)
{
	struct pool_conn *c;

	/* An accepted socket inherits the listener's callbacks. */
	write_lock_bh(&sock->sk->sk_callback_lock);
	sock->sk->sk_data_ready = default_data_ready;
	sock->sk->sk_user_data = NULL;
	write_unlock_bh(&sock->sk->sk_callback_lock);

	c = pool_conn_alloc(sock, POOL_PHASE_PENDING);
	if (!c) {
		pool_count(no_memory);
		return;
	}
	pool_conn_get(c);
	if (pool_conn_read_peer(c)) {
		/* Gone again already. */
		pool_conn_kill(c);
	} else {
		pool_conn_tune(c);
		pool_conn_arm(c, INIT_WAIT_MS);
		if (pending_add(c))
			pool_conn_attach(c);
		else
			pool_conn_kill(c);
	}
	pool_conn_put(c);
}

static void accept_work_fn(struct work_struct *work)
{
	struct socket *sock;

	/* listen_sock stays: whoever closes it waits for this work first. */
	while (!READ_ONCE(pending_closed) && kernel_accept(listen_sock, &sock, O_NONBLOCK) == 0) {
		accept_one(sock);
		cond_resched();
	}
}

static void listen_data_ready(struct sock *sk)
{
	/* Children not yet accepted come here too. */
	if (sk->sk_state == TCP_LISTEN)
		queue_work(pool_wq, &accept_work);
}

static struct socket *open_listener(u16 port)
{
	struct sockaddr_in6 addr = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct socket *sock;
	int err;

	err = sock_create_kern(&init_net, AF_INET6, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (err)
		return ERR_PTR(err);
	lock_sock(sock->sk);
	sock->sk->sk_ipv6only = 0;
	release_sock(sock->sk);
	sock_set_reuseaddr(sock->sk);
	err = kernel_bind(sock, (pool_sockaddr *)&addr, sizeof(addr));
	if (!err)
		err = kernel_listen(sock, BACKLOG);
	if (err) {
		sock_release(sock);
		return ERR_PTR(err);
	}
	return sock;
}

static void listen_tcp(struct socket *sock)
{
	spin_lock(&pending_lock);
	WRITE_ONCE(pending_closed, false);
	spin_unlock(&pending_lock);
	listen_sock = sock;
	write_lock_bh(&sock->sk->sk_callback_lock);
	default_data_ready = sock->sk->sk_data_ready;
	sock->sk->sk_data_ready = listen_data_ready;
	write_unlock_bh(&sock->sk->sk_callback_lock);
	/* Whoever connected before the callback was there. */
	queue_work(pool_wq, &accept_work);
}

int pool_listener_start(u16 port)
{
	bool raw = pool_transport != POOL_OVER_TCP;
	struct socket *sock;
	int err = 0;

	if (!port)
		return -EINVAL;
	if (raw && !capable(CAP_NET_RAW)) {
		/* TRN-05 */
		pr_info("pool: listening on raw IP needs CAP_NET_RAW\n");
		if (pool_transport == POOL_OVER_RAW)
			return -EPERM;
		raw = false;
	}
	mutex_lock(&pool_listener_lock);
	if (listen_port) {
		err = -EALREADY;
		goto out;
	}
	if (pool_transport != POOL_OVER_RAW) {
		sock = open_listener(port);
		if (IS_ERR(sock)) {
			err = PTR_ERR(sock);
			goto out;
		}
		listen_tcp(sock);
	}
	if (raw)
		pool_raw_listen(true);
	WRITE_ONCE(listen_port, port);
	pool_announce_start(port);
	if (listen_sock)
		pr_info("pool: listening on port %u\n", port);
	if (raw)
		pr_info("pool: listening on raw IP\n");
out:
	mutex_unlock(&pool_listener_lock);
	return err;
}

static void stop_tcp(void)
{
	struct pool_conn *c;

	spin_lock(&pending_lock);
	WRITE_ONCE(pending_closed, true);
	spin_unlock(&pending_lock);
	write_lock_bh(&listen_sock->sk->sk_callback_lock);
	listen_sock->sk->sk_data_ready = default_data_ready;
	write_unlock_bh(&listen_sock->sk->sk_callback_lock);
	/* A callback may be past the point of being taken away: let it finish before the work is. */
	synchronize_rcu();
	cancel_work_sync(&accept_work);
	sock_release(listen_sock);
	listen_sock = NULL;

	for (;;) {
		spin_lock(&pending_lock);
		c = list_first_entry_or_null(&pending, struct pool_conn, pending);
		if (c) {
			list_del_init(&c->pending);
			pending_count--;
		}
		spin_unlock(&pending_lock);
		if (!c)
			break;
		pool_conn_kill(c);
	}
}

void pool_listener_stop(void)
{
	mutex_lock(&pool_listener_lock);
	if (listen_port) {
		pool_announce_stop();
		pool_raw_listen(false);
		if (listen_sock)
			stop_tcp();
		WRITE_ONCE(listen_port, 0);
		pr_info("pool: no longer listening\n");
	}
	mutex_unlock(&pool_listener_lock);
}

u16 pool_listener_port(void)
{
	return READ_ONCE(listen_port);
}
