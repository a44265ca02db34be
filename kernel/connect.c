// SPDX-License-Identifier: GPL-2.0-or-later
/* The client's side of the handshake, in the caller's context and interruptible. */
#include <linux/in6.h>
#include <linux/ipv6.h>
#include <linux/net.h>
#include <linux/sched/signal.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <crypto/algapi.h>
#include "attest.h"
#include "compat.h"
#include "conn.h"
#include "connect.h"
#include "counters.h"
#include "journal.h"
#include "params.h"
#include "session.h"

/* HS-09, HS-04 */
#define CONNECT_WAIT	(10 * HZ)
#define CHALLENGE_WAIT	(10 * HZ)
#define ACK_WAIT	(30 * HZ)
#define SEARCH_LIMIT	(25 * HZ)
#define DIFFICULTY_MOST	24

/* What the client keeps between INIT and RESPONSE. */
struct attempt {
	u8 private[POOL_KEY_LEN];
	u8 public[POOL_KEY_LEN];
	u8 shared[POOL_KEY_LEN];
	u8 seed[32];
	u8 solution[32];
	unsigned int difficulty;
};

static int tcp_connect(struct pool_conn *c)
{
	struct sock *sk = c->sock->sk;
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(c->peer_port) };
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(c->peer_port) };
	int err;

	pool_conn_tune(c);
	lock_sock(sk);
	sk->sk_sndtimeo = CONNECT_WAIT;
	release_sock(sk);
	if (ipv6_addr_v4mapped(&c->peer)) {
		sin.sin_addr.s_addr = c->peer.s6_addr32[3];
		err = kernel_connect(c->sock, (pool_sockaddr *)&sin, sizeof(sin), 0);
	} else {
		sin6.sin6_addr = c->peer;
		err = kernel_connect(c->sock, (pool_sockaddr *)&sin6, sizeof(sin6), 0);
	}
	return err == -EINPROGRESS ? -ETIMEDOUT : err;
}

/* The next whole packet, or -ETIMEDOUT at the deadline however slowly bytes come. */
static struct pool_hdr *await_packet(struct pool_conn *c, unsigned long deadline)
{
	struct sock *sk = c->sock->sk;
	struct pool_hdr *h;
	int n;

	while (!(h = pool_conn_peek(c))) {
		unsigned long left = pool_time_left(deadline);

		if (!left)
			return ERR_PTR(-ETIMEDOUT);
		lock_sock(sk);
		sk->sk_rcvtimeo = pool_timer_step(left);
		release_sock(sk);
		n = pool_conn_fill(c, 0);
		if (n == 0)
			return ERR_PTR(-ECONNRESET);
		if (n < 0 && n != -EAGAIN)
			return ERR_PTR(n == -ERESTARTSYS ? -EINTR : n);
		if (n > 0)
			c->rx_tail += n;
	}
	return h;
}

static bool is_advisory(const struct pool_hdr *h)
{
	return pool_hdr_type(h) == POOL_CLOSE && pool_hdr_payload_len(h) == 1 && pool_hdr_plain(h) &&
	       !memchr_inv(h->session_id, 0, POOL_ID_LEN);
}

static int advisory_error(const struct pool_hdr *h)
{
	u8 code = *(const u8 *)(h + 1);

	pr_info("pool: the peer refused the handshake with code 0x%02x\n", code);
	if (code == POOL_CODE_VERSION_MISMATCH)
		return -EPROTONOSUPPORT;
	return code == POOL_CODE_OVERLOAD ? -ECONNREFUSED : -ECONNRESET;
}

/*
 * A packet of the wanted type in this state, or an error. Discards whatever the state
 * does not allow (SEAL-05: without keys, and in CHALLENGED, the state table comes first).
 */
static struct pool_hdr *await_type(struct pool_session *s, u8 wanted, unsigned long deadline)
{
	struct pool_conn *c = s->conn;
	struct pool_hdr *h;
	u8 type;

	for (;;) {
		h = await_packet(c, deadline);
		if (IS_ERR(h))
			return h;
		c->rx_head += POOL_HDR_LEN + pool_hdr_payload_len(h);
		type = pool_hdr_type(h);
		if (pool_hdr_version(h) != POOL_VERSION) {
			pool_count_error(version_mismatch, POOL_CODE_VERSION_MISMATCH, c);
			/* The answerer's own version, in an advisory CLOSE (WIRE-02). */
			if (is_advisory(h) && *(const u8 *)(h + 1) == POOL_CODE_VERSION_MISMATCH)
				return ERR_PTR(-EPROTONOSUPPORT);
		} else if (pool_header_malformed(h)) {
			pool_count(malformed);
		} else if (!pool_state_takes(s->state, type)) {
			continue;
		} else if (type == POOL_CLOSE) {
			if (is_advisory(h))
				return ERR_PTR(advisory_error(h));
			pool_count(malformed);
		} else if (type == wanted) {
			return h;
		}
	}
}

static int send_init(struct pool_session *s, struct attempt *a)
{
	struct pool_init init;
	int err = pool_random(a->private, sizeof(a->private));

	if (err)
		return err;
	if (!pool_x25519_public(a->public, a->private))
		return -EIO;
	memcpy(init.client_pubkey, a->public, sizeof(init.client_pubkey));
	pool_addr_make(init.client_addr, pool_node_pubkey);
	return pool_conn_send_plain(s->conn, POOL_INIT, NULL, ktime_get_real_ns(), &init, sizeof(init));
}

static int await_challenge(struct pool_session *s, struct attempt *a)
{
	unsigned long deadline = jiffies + CHALLENGE_WAIT;
	const struct pool_challenge *challenge;
	struct pool_hdr *h;

	for (;;) {
		h = await_type(s, POOL_CHALLENGE, deadline);
		if (IS_ERR(h))
			return PTR_ERR(h);
		challenge = (const void *)(h + 1);
		if (pool_hdr_payload_len(h) == sizeof(*challenge) && pool_hdr_plain(h) &&
		    pool_addr_valid(challenge->server_addr))
			break;
		pool_count(malformed);
	}
	a->difficulty = be16_to_cpu(challenge->difficulty);
	if (a->difficulty > DIFFICULTY_MOST) {
		pool_count(too_difficult);
		pr_info("pool: refusing a puzzle of difficulty %u, %u is the most\n", a->difficulty,
			DIFFICULTY_MOST);
		return -ERANGE;
	}
	if (!memchr_inv(h->session_id, 0, POOL_ID_LEN) || pool_session_id_taken(h->session_id, &s->conn->peer)) {
		pool_count_error(bad_session_id, POOL_CODE_AUTH_FAIL, s->conn);
		return -EBADMSG;
	}
	/* Before the search, which a bad key would waste (KEY-01). */
	if (!pool_x25519(a->shared, a->private, challenge->server_pubkey)) {
		pool_count_error(low_order_key, POOL_CODE_AUTH_FAIL, s->conn);
		pr_info("pool: the peer's public key is of low order\n");
		return -EBADMSG;
	}
	memcpy(a->seed, challenge->puzzle_seed, sizeof(a->seed));
	memcpy(s->id, h->session_id, sizeof(s->id));
	return 0;
}

static int solve(struct attempt *a)
{
	unsigned long deadline = jiffies + SEARCH_LIMIT;
	u64 n;
	int err = pool_random(a->solution, sizeof(a->solution));

	if (err)
		return err;
	for (n = 0; ; n++) {
		memcpy(a->solution, &n, sizeof(n));
		if (pool_puzzle_solved(a->seed, a->solution, a->difficulty))
			return 0;
		if (n % 1024)
			continue;
		cond_resched();
		if (signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline))
			return -ETIMEDOUT;
	}
}

static int send_response(struct pool_session *s, const struct attempt *a)
{
	struct pool_txbuf *b = pool_txbuf_alloc(sizeof(struct pool_response));
	struct pool_response *r;
	struct pool_hdr *h;
	u64 seq;
	int err;

	if (!b)
		return -ENOMEM;
	err = pool_random(&seq, sizeof(seq));
	if (err) {
		kvfree(b);
		return err;
	}
	s->tx_first = seq & POOL_SEQ_START_MASK;
	s->tx_next = s->tx_first + 1;
	h = (struct pool_hdr *)b->data;
	h->ver_type = POOL_VERSION << 4 | POOL_RESPONSE;
	h->flags = cpu_to_be16(POOL_F_ENCRYPTED | POOL_F_REQUIRE_ACK);
	h->seq = cpu_to_be64(s->tx_first);
	memcpy(h->session_id, s->id, POOL_ID_LEN);
	h->timestamp = cpu_to_be64(ktime_get_ns());
	h->payload_len = cpu_to_be16(sizeof(*r));
	r = (void *)(h + 1);
	memcpy(r->client_pubkey, a->public, sizeof(r->client_pubkey));
	memcpy(r->solution, a->solution, sizeof(r->solution));
	pool_hmac(r->sealed_proof, a->shared, sizeof(a->shared), s->id, POOL_ID_LEN);	/* HS-08 */
	pool_keys_seal(&s->keys, h, offsetof(struct pool_response, sealed_proof));
	pool_keys_sign(&s->keys, h);
	s->packets_sent = 1;
	pool_count(packets_sent);

	mutex_lock(&s->conn->tx_lock);
	pool_conn_queue(s->conn, b);
	pool_conn_flush(s->conn);
	mutex_unlock(&s->conn->tx_lock);
	return 0;
}

static int await_ack(struct pool_session *s)
{
	unsigned long deadline = jiffies + ACK_WAIT;
	struct pool_hdr *h;
	u64 seq;

	for (;;) {
		h = await_type(s, POOL_ACK, deadline);
		if (IS_ERR(h))
			return PTR_ERR(h);
		if (memcmp(h->session_id, s->id, POOL_ID_LEN)) {
			pool_count(unknown_session);
			continue;
		}
		if (!pool_keys_verify(&s->keys, h)) {
			pool_count_error(auth_fail, POOL_CODE_AUTH_FAIL, s->conn);
			return -EBADMSG;	/* HS-11 */
		}
		seq = be64_to_cpu(h->seq);
		if (seq < POOL_SEQ_SERVER || seq >= POOL_SEQ_SERVER_END) {
			pool_count_error(reflected, POOL_CODE_SEQ_INVALID, s->conn);
			continue;
		}
		if (be64_to_cpu(h->ack) != s->tx_first) {
			pool_count(bad_ack);
			continue;
		}
		s->window.highest = seq;
		s->window.seen = ~0ULL;
		s->packets_recv = 1;
		pool_count(packets_received);
		return 0;
	}
}

static int handshake(struct pool_session *s, struct attempt *a)
{
	int err = tcp_connect(s->conn);

	if (err)
		return err == -ERESTARTSYS ? -EINTR : err;
	err = send_init(s, a);
	if (err)
		return err;
	err = await_challenge(s, a);
	if (err)
		return err;
	pool_keys_derive(&s->keys, a->shared);
	memcpy(s->shared, a->shared, sizeof(s->shared));
	WRITE_ONCE(s->state, POOL_CHALLENGED);
	err = solve(a);
	if (err)
		return err;
	err = send_response(s, a);
	if (err)
		return err;
	err = await_ack(s);
	if (err)
		return err;
	return pool_conn_grow(s->conn);
}

int pool_connect(const struct in6_addr *peer, u16 port)
{
	int family = ipv6_addr_v4mapped(peer) ? AF_INET : AF_INET6;
	struct pool_session *s;
	struct attempt a = {};
	struct pool_conn *c;
	struct socket *sock;
	int err;

	if (pool_compromised())
		return -EKEYREJECTED;	/* ABI-12 */
	if (pool_table_full()) {
		pool_count_error(no_slot, POOL_CODE_OVERLOAD, NULL);
		pr_info("pool: no slot for another session\n");
		return -ENOSPC;
	}
	err = sock_create_kern(&init_net, family, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (err)
		return err;
	c = pool_conn_alloc(sock, POOL_PHASE_CLIENT);
	if (!c)
		return -ENOMEM;
	pool_conn_get(c);
	c->peer = *peer;
	c->peer_port = port;
	s = pool_session_alloc(c, POOL_CLIENT);
	if (!s) {
		err = -ENOMEM;
		goto kill;
	}
	s->state = POOL_INIT_SENT;
	err = pool_session_insert(s, NULL);
	if (err)
		goto kill;
	err = handshake(s, &a);
	if (err)
		goto remove;

	mutex_lock(&c->rx_lock);
	c->phase = POOL_PHASE_SESSION;
	pool_session_get(s);
	c->session = s;
	pool_session_establish(s);
	err = s->index;
	mutex_unlock(&c->rx_lock);
	net_info_ratelimited("pool: session %d established with %pI6c\n", s->index, &c->peer);
	pool_conn_attach(c);
	goto out;

remove:
	pool_count(handshakes_failed);
	if (err == -ETIMEDOUT)
		pool_count(handshake_timeouts);
	WRITE_ONCE(s->ended, true);
	pool_session_remove(s);
kill:
	pool_conn_kill(c);
out:
	memzero_explicit(&a, sizeof(a));
	if (s)
		pool_session_put(s);
	pool_conn_put(c);
	return err;
}
