// SPDX-License-Identifier: GPL-2.0-or-later
/* The server's side of the handshake: stateless until a RESPONSE verifies (HS-01). */
#include <linux/ipv6.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <crypto/algapi.h>
#include "attest.h"
#include "conn.h"
#include "cookie.h"
#include "counters.h"
#include "handshake.h"
#include "journal.h"
#include "params.h"
#include "session.h"

#define INIT_SKEW_NS		(30LL * NSEC_PER_SEC)	/* HS-06 */
#define RESPONSE_WAIT_MS	30000			/* HS-09 */

/* Say why and close; the connection leaves the pending list. */
static int refuse(struct pool_conn *c, u8 code)
{
	if (pool_pending_claim(c)) {
		pool_count(handshakes_failed);
		pool_conn_send_advisory(c, code);
		pool_conn_disarm(c);
		pool_conn_linger(c);
	}
	return POOL_RX_STOP;
}

/* HS-10 */
static void note_full(const struct pool_from *from)
{
	pool_count_from(no_slot, POOL_CODE_OVERLOAD, from);
	net_info_ratelimited("pool: refusing %pI6c: all %d sessions are taken\n", &from->ip, POOL_MAX_SESSIONS);
}

static void bind_peer(struct pool_binding *peer, const struct in6_addr *ip, const u8 pubkey[POOL_KEY_LEN])
{
	peer->ip = *ip;
	memcpy(peer->pubkey, pubkey, POOL_KEY_LEN);
}

int pool_handshake_challenge(const struct pool_from *from, const struct pool_hdr *h, struct pool_challenge *challenge,
			     struct pool_cookie *cookie)
{
	const struct pool_init *init = (const void *)(h + 1);
	u8 secret[POOL_SECRET_LEN], private[POOL_KEY_LEN];
	struct pool_binding peer;
	s64 skew;
	int err;

	if (pool_hdr_payload_len(h) != sizeof(*init) || !pool_hdr_plain(h) ||
	    memchr_inv(h->session_id, 0, POOL_ID_LEN) || !pool_addr_valid(init->client_addr)) {
		pool_count(malformed);
		return -EBADMSG;
	}
	skew = be64_to_cpu(h->timestamp) - ktime_get_real_ns();
	if (skew > INIT_SKEW_NS || skew < -INIT_SKEW_NS) {
		pool_count(stale_init);
		return -EBADMSG;
	}
	if (pool_table_full()) {
		note_full(from);
		return -ENOSPC;
	}

	/* CAN-05 */
	if (pool_compromised())
		return -ENOSPC;
	bind_peer(&peer, &from->ip, init->client_pubkey);
	err = pool_cookie_issue(cookie, &peer, secret);
	if (err) {
		pool_count(no_randomness);
		return err;
	}
	memset(challenge, 0, sizeof(*challenge));
	pool_cookie_seed(challenge->puzzle_seed, secret, (u8 *)cookie, &peer);
	err = pool_cookie_ephemeral(private, secret, (u8 *)cookie);
	if (!err && !pool_x25519_public(challenge->server_pubkey, private))
		err = -EIO;
	challenge->difficulty = cpu_to_be16(cookie->difficulty);
	pool_addr_make(challenge->server_addr, pool_node_pubkey);
	memzero_explicit(secret, sizeof(secret));
	memzero_explicit(private, sizeof(private));
	return err;
}

void pool_handshake_challenged(void)
{
	pool_load_note(false);
	pool_count(challenges_sent);
}

static int receive_init(struct pool_conn *c, const struct pool_hdr *h)
{
	struct pool_challenge challenge;
	struct pool_cookie cookie;
	struct pool_from from = { c->peer, c->peer_port };
	int err = pool_handshake_challenge(&from, h, &challenge, &cookie);

	if (err == -ENOSPC)
		return refuse(c, POOL_CODE_OVERLOAD);
	if (err)
		return POOL_RX_NEXT;
	if (!pool_conn_send_plain(c, POOL_CHALLENGE, (u8 *)&cookie, ktime_get_ns(), &challenge, sizeof(challenge)))
		pool_handshake_challenged();
	if (!c->challenged) {
		WRITE_ONCE(c->challenged, true);
		pool_conn_arm(c, RESPONSE_WAIT_MS);
	}
	return POOL_RX_NEXT;
}

/* HS-02: cheap checks first. 0: keys and shared are good. */
static int verify_response(const struct pool_from *from, struct pool_hdr *h, struct pool_keys *keys, u8 shared[POOL_KEY_LEN])
{
	struct pool_response *response = (void *)(h + 1);
	const struct pool_cookie *cookie = (const void *)h->session_id;
	u8 secret[POOL_SECRET_LEN], private[POOL_KEY_LEN], seed[32];
	u8 proof[POOL_HMAC_LEN];
	struct pool_binding peer;
	int err = -EBADMSG;

	bind_peer(&peer, &from->ip, response->client_pubkey);
	if (!pool_cookie_check(cookie, &peer, secret)) {
		pool_count_from(bad_session_id, POOL_CODE_AUTH_FAIL, from);
		goto out;
	}
	if (pool_cookie_stale(cookie)) {
		pool_count_from(stale_response, POOL_CODE_AUTH_FAIL, from);
		goto out;
	}
	if (pool_response_used(h->session_id)) {
		pool_count_from(replay_drops, POOL_CODE_SEQ_INVALID, from);
		goto out;
	}
	pool_cookie_seed(seed, secret, h->session_id, &peer);
	if (!pool_puzzle_solved(seed, response->solution, cookie->difficulty)) {
		pool_count_from(bad_puzzle, POOL_CODE_AUTH_FAIL, from);
		goto out;
	}
	if (pool_cookie_ephemeral(private, secret, h->session_id) ||
	    !pool_x25519(shared, private, response->client_pubkey)) {
		pool_count_from(low_order_key, POOL_CODE_AUTH_FAIL, from);
		goto out;
	}
	pool_keys_derive(keys, shared);
	if (!pool_keys_verify(keys, h)) {
		pool_count_from(auth_fail, POOL_CODE_AUTH_FAIL, from);
		goto out;
	}
	if (be64_to_cpu(h->seq) >= POOL_SEQ_CLIENT_END) {
		pool_count_from(reflected, POOL_CODE_SEQ_INVALID, from);
		goto out;
	}
	if (!pool_keys_open(keys, h, offsetof(struct pool_response, sealed_proof))) {
		pool_count_from(decrypt_fail, POOL_CODE_DECRYPT_FAIL, from);
		goto out;
	}
	pool_hmac(proof, shared, POOL_KEY_LEN, h->session_id, POOL_ID_LEN);	/* HS-08 */
	if (crypto_memneq(proof, response->sealed_proof, sizeof(proof)))
		pool_count_from(bad_proof, POOL_CODE_AUTH_FAIL, from);
	else
		err = 0;
out:
	memzero_explicit(secret, sizeof(secret));
	memzero_explicit(private, sizeof(private));
	memzero_explicit(proof, sizeof(proof));
	return err;
}

int pool_handshake_verify(const struct pool_from *from, struct pool_hdr *h, struct pool_proven *proven)
{
	u64 seq;
	int err;

	if (pool_hdr_payload_len(h) != sizeof(struct pool_response) ||
	    !(pool_hdr_flags(h) & POOL_F_ENCRYPTED) || h->ack) {
		pool_count(malformed);
		return -EBADMSG;
	}
	memcpy(proven->id, h->session_id, sizeof(proven->id));
	proven->client_seq = be64_to_cpu(h->seq);
	err = verify_response(from, h, &proven->keys, proven->shared);
	if (err)
		return err;
	pool_load_note(true);
	err = pool_random(&seq, sizeof(seq));
	if (err)
		pool_count(no_randomness);
	else
		proven->server_seq = POOL_SEQ_SERVER + (seq & POOL_SEQ_START_MASK);
	return err;
}

struct pool_session *pool_handshake_session(struct pool_conn *c, const struct pool_proven *proven)
{
	struct pool_session *s = pool_session_alloc(c, POOL_SERVER);

	if (!s) {
		pool_count(no_memory);
		return NULL;
	}
	memcpy(s->id, proven->id, sizeof(s->id));
	s->keys = proven->keys;
	memcpy(s->shared, proven->shared, sizeof(s->shared));
	s->tx_first = proven->server_seq;
	s->tx_next = s->tx_first;
	s->window.highest = proven->client_seq;
	s->window.seen = ~0ULL;
	s->packets_recv = 1;
	pool_count(packets_received);
	return s;
}

int pool_handshake_insert(struct pool_session *s)
{
	struct pool_from from = { s->conn->peer, s->conn->peer_port };
	int err = pool_compromised() ? -ENOSPC : pool_session_insert(s, s->id);

	if (!err)
		return 0;
	pool_count(handshakes_failed);
	if (err == -EEXIST)
		pool_count_from(replay_drops, POOL_CODE_SEQ_INVALID, &from);
	if (err == -ENOSPC)
		note_full(&from);
	return err;
}

void pool_handshake_establish(struct pool_session *s)
{
	struct pool_conn *c = s->conn;
	int err;

	lockdep_assert_held(&c->rx_lock);
	c->phase = POOL_PHASE_SESSION;
	pool_session_get(s);
	c->session = s;
	pool_session_establish(s);
	/* The handshake ACK consumes S0; its ack is the window's highest, C0 (SEQ-03). */
	err = pool_send_control(s, POOL_ACK, 0, POOL_MARK_NONE, NULL, 0);
	if (err)
		pool_session_end_locked(s, POOL_CLOSE_NONE, "the handshake ACK could not be sent");
	else
		net_info_ratelimited("pool: session %d accepted from %pI6c\n", s->index, &c->peer);
}

static int receive_response(struct pool_conn *c, struct pool_hdr *h)
{
	struct pool_proven proven = {};
	struct pool_session *s = NULL;
	struct pool_from from = { c->peer, c->peer_port };
	int err = pool_handshake_verify(&from, h, &proven);

	if (err)
		goto refuse;
	s = pool_handshake_session(c, &proven);
	if (!s || pool_conn_grow(c)) {	/* h is gone from here on */
		err = -ENOMEM;
		goto refuse;
	}
	/* Given way to another, or timed out, while this was being verified? */
	if (!pool_pending_claim(c)) {
		err = -ECONNABORTED;
		goto out;
	}
	err = pool_handshake_insert(s);
	pool_conn_disarm(c);
	if (err) {
		pool_conn_send_advisory(c, err == -EEXIST ? POOL_CODE_AUTH_FAIL : POOL_CODE_OVERLOAD);
		pool_conn_linger(c);
		goto out;
	}
	pool_handshake_establish(s);
	goto out;

refuse:
	refuse(c, err == -EBADMSG ? POOL_CODE_AUTH_FAIL : POOL_CODE_OVERLOAD);
out:
	memzero_explicit(&proven, sizeof(proven));
	if (s)
		pool_session_put(s);
	return err || c->phase != POOL_PHASE_SESSION || !c->session ? POOL_RX_STOP : POOL_RX_NEXT;
}

int pool_handshake_receive(struct pool_conn *c, struct pool_hdr *h)
{
	u8 type = pool_hdr_type(h);

	if (pool_hdr_version(h) != POOL_VERSION) {
		/* WIRE-02: only an INIT is answered. */
		pool_count_error(version_mismatch, POOL_CODE_VERSION_MISMATCH, c);
		return type == POOL_INIT ? refuse(c, POOL_CODE_VERSION_MISMATCH) : POOL_RX_NEXT;
	}
	if (pool_header_malformed(h)) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	if (!pool_state_takes(POOL_LISTENER, type))
		return POOL_RX_NEXT;
	return type == POOL_INIT ? receive_init(c, h) : receive_response(c, h);
}
