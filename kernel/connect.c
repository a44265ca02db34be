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
#include "attempt.h"
#include "attest.h"
#include "compat.h"
#include "conn.h"
#include "connect.h"
#include "counters.h"
#include "journal.h"
#include "params.h"
#include "raw.h"
#include "reliable.h"
#include "session.h"

/* HS-09, HS-04 */
#define CHALLENGE_WAIT	(10 * HZ)
#define AUTO_WAIT	(5 * HZ / 2)
#define ACK_WAIT	(30 * HZ)
#define SEARCH_LIMIT	(25 * HZ)
#define DIFFICULTY_MOST	24

static int send_init(struct pool_session *s, struct pool_attempt *a)
{
	struct pool_txbuf *b;
	struct pool_init init;
	__be64 echo;
	int err = pool_random(a->private, sizeof(a->private));

	if (err)
		return err;
	if (!pool_x25519_public(a->public, a->private))
		return -EIO;
	memcpy(init.client_pubkey, a->public, sizeof(init.client_pubkey));
	pool_addr_make(init.client_addr, pool_node_pubkey);
	b = pool_plain_packet(POOL_INIT, NULL, ktime_get_real_ns(), &init, sizeof(init));
	if (!b)
		return -ENOMEM;
	if (s->conn->raw) {
		memcpy(&echo, a->public, sizeof(echo));
		pool_raw_set_attempt(s->conn, echo);
	}
	return pool_attempt_send(s->conn, a, b, pool_init_repeats);
}

static int await_challenge(struct pool_session *s, struct pool_attempt *a)
{
	unsigned long deadline = jiffies + a->challenge_wait;
	const struct pool_challenge *challenge;
	struct pool_hdr *h;

	for (;;) {
		h = pool_attempt_await(s, a, POOL_CHALLENGE, deadline);
		if (IS_ERR(h))
			return PTR_ERR(h);
		challenge = (const void *)(h + 1);
		if (pool_hdr_payload_len(h) == sizeof(*challenge) && pool_hdr_plain(h) &&
		    pool_addr_valid(challenge->server_addr))
			break;
		pool_count(malformed);
	}
	a->challenged = true;
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
	if (s->conn->raw)
		pool_raw_set_id(s->conn, s->id);
	return 0;
}

static int solve(struct pool_attempt *a)
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

static int send_response(struct pool_session *s, struct pool_attempt *a)
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

	return pool_attempt_send(s->conn, a, b, pool_response_repeats);
}

static int await_ack(struct pool_session *s, struct pool_attempt *a)
{
	unsigned long deadline = jiffies + ACK_WAIT;
	bool forged = false;
	struct pool_hdr *h;
	u64 seq;

	for (;;) {
		h = pool_attempt_await(s, a, POOL_ACK, deadline);
		if (IS_ERR(h))
			return forged && h == ERR_PTR(-ETIMEDOUT) ? -EBADMSG : PTR_ERR(h);
		if (memcmp(h->session_id, s->id, POOL_ID_LEN)) {
			pool_count(unknown_session);
			continue;
		}
		if (!pool_keys_verify(&s->keys, h)) {
			pool_count_error(auth_fail, POOL_CODE_AUTH_FAIL, s->conn);
			if (!s->conn->raw)
				return -EBADMSG;	/* HS-11 */
			forged = true;			/* E-39: by anybody */
			continue;
		}
		/* E-38: voids have the same ack. */
		if (s->conn->raw && h->flags) {
			pool_count(unexpected_type);
			continue;
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
		if (s->rel)
			s->rel->welcome = *h;
		return 0;
	}
}

static int handshake(struct pool_session *s, struct pool_attempt *a)
{
	int err;

	err = s->conn->raw ? 0 : pool_attempt_tcp(s->conn);
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
	if (err && !s->conn->raw)
		return err;
	err = await_ack(s, a);
	if (err)
		return err;
	return s->conn->raw ? 0 : pool_conn_grow(s->conn);
}

static struct pool_conn *open_conn(const struct in6_addr *peer, bool raw, int *err)
{
	int family = ipv6_addr_v4mapped(peer) ? AF_INET : AF_INET6;
	struct pool_conn *c;
	struct socket *sock;

	*err = -ENOMEM;
	if (raw)
		return pool_raw_conn_alloc(peer->s6_addr32[3], 0, POOL_PHASE_CLIENT);
	*err = sock_create_kern(&init_net, family, SOCK_STREAM, IPPROTO_TCP, &sock);
	if (*err)
		return NULL;
	c = pool_conn_alloc(sock, POOL_PHASE_CLIENT);
	if (c)
		c->peer = *peer;
	else
		*err = -ENOMEM;
	return c;
}

/* unanswered: no CHALLENGE came, and nobody refused either. */
static int connect_over(const struct in6_addr *peer, u16 port, bool raw, unsigned long challenge_wait,
			bool *unanswered)
{
	struct pool_attempt a = { .challenge_wait = challenge_wait };
	struct pool_session *s;
	struct pool_conn *c;
	int err;

	*unanswered = false;
	c = open_conn(peer, raw, &err);
	if (!c)
		return err;
	pool_conn_get(c);
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
	if (raw) {
		pool_owe_ack(s, false);		/* the handshake ACK's (TRN-06) */
		pool_conn_kick_rx(c);
	} else {
		pool_conn_attach(c);
	}
	goto out;

remove:
	*unanswered = !a.challenged && err != -EINTR && err != -ECONNREFUSED && err != -EPROTONOSUPPORT &&
		      err != -ECONNRESET;
	pool_count(handshakes_failed);
	if (err == -ETIMEDOUT)
		pool_count(handshake_timeouts);
	WRITE_ONCE(s->ended, true);
	pool_session_remove(s);
kill:
	pool_conn_kill(c);
out:
	kvfree(a.sent);
	memzero_explicit(&a, sizeof(a));
	if (s)
		pool_session_put(s);
	pool_conn_put(c);
	return err;
}

/* Section 4: which transport, and when to give up raw IP. */
int pool_connect(const struct in6_addr *peer, u16 port)
{
	enum pool_transport transport = pool_transport;
	bool unanswered;
	int err;

	if (pool_compromised())
		return -EKEYREJECTED;	/* ABI-12 */
	if (pool_table_full()) {
		pool_count_error(no_slot, POOL_CODE_OVERLOAD, NULL);
		pr_info("pool: no slot for another session\n");
		return -ENOSPC;
	}
	if (transport != POOL_OVER_TCP && !ipv6_addr_v4mapped(peer)) {
		if (transport == POOL_OVER_RAW)
			return -EAFNOSUPPORT;
		transport = POOL_OVER_TCP;
	}
	if (transport != POOL_OVER_TCP && !capable(CAP_NET_RAW)) {
		/* TRN-05 */
		pr_info("pool: raw IP needs CAP_NET_RAW\n");
		if (transport == POOL_OVER_RAW)
			return -EPERM;
		transport = POOL_OVER_TCP;
	}
	switch (transport) {
	case POOL_OVER_RAW:
		return connect_over(peer, port, true, CHALLENGE_WAIT, &unanswered);
	case POOL_OVER_AUTO:
		err = connect_over(peer, port, true, AUTO_WAIT, &unanswered);
		if (!unanswered)
			return err;
		pr_info("pool: no answer over raw IP from %pI6c, going on over TCP\n", peer);
		fallthrough;
	default:
		return connect_over(peer, port, false, CHALLENGE_WAIT, &unanswered);
	}
}
