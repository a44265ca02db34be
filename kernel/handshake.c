// SPDX-License-Identifier: GPL-2.0-or-later
/* The server's side of the handshake: stateless until a RESPONSE verifies (HS-01). */
#include <linux/ipv6.h>
#include <linux/net.h>
#include <linux/slab.h>
#include <crypto/algapi.h>
#include "conn.h"
#include "counters.h"
#include "params.h"
#include "session.h"

#define SECRET_LEN		32
#define ROTATE_SEC		300		/* HS-05 */
#define KEEP_PREVIOUS_SEC	31
#define CHALLENGE_MAX_AGE	30		/* HS-02, seconds */
#define INIT_SKEW_NS		(30LL * NSEC_PER_SEC)	/* HS-06 */
#define RESPONSE_WAIT_MS	30000		/* HS-09 */

#define DIFFICULTY_MAX		22		/* HS-04 */
#define LOAD_STEP		64
#define LOAD_BUCKETS		16		/* of 2^26 ns each: 15 whole ones are a second */
#define LOAD_BUCKET_SHIFT	26

/* session_id: opaque to clients, all that the server remembers of a CHALLENGE. */
struct cookie {
	__be32 issued;		/* monotonic seconds */
	u8 difficulty;
	u8 random[3];
	u8 mac[8];
} __packed;
static_assert(sizeof(struct cookie) == POOL_ID_LEN);

#define COOKIE_HEAD		offsetof(struct cookie, mac)

/* What the MAC and the puzzle are bound to. */
struct peer_binding {
	struct in6_addr ip;
	u8 pubkey[POOL_KEY_LEN];
} __packed;

static DEFINE_SPINLOCK(secret_lock);
static u8 secret_now[SECRET_LEN];
static u8 secret_before[SECRET_LEN];
static bool secret_before_valid;

static void rotate_work_fn(struct work_struct *work);
static void forget_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(rotate_work, rotate_work_fn);
static DECLARE_DELAYED_WORK(forget_work, forget_work_fn);
static unsigned long rotate_at, forget_at;	/* jiffies */

static DEFINE_SPINLOCK(load_lock);
static struct {
	u64 tick;
	u32 issued, verified;
} load[LOAD_BUCKETS];

static void arm_until(struct delayed_work *work, unsigned long deadline)
{
	queue_delayed_work(pool_wq, work, pool_timer_step(pool_time_left(deadline)));
}

static void rotate_work_fn(struct work_struct *work)
{
	u8 fresh[SECRET_LEN];

	if (pool_time_left(rotate_at)) {
		arm_until(&rotate_work, rotate_at);
		return;
	}

	/* Without random bytes the old secret stays, and the next try is in a second. */
	if (pool_random(fresh, sizeof(fresh))) {
		queue_delayed_work(pool_wq, &rotate_work, HZ);
		return;
	}
	spin_lock(&secret_lock);
	memcpy(secret_before, secret_now, SECRET_LEN);
	memcpy(secret_now, fresh, SECRET_LEN);
	secret_before_valid = true;
	spin_unlock(&secret_lock);
	memzero_explicit(fresh, sizeof(fresh));
	forget_at = jiffies + KEEP_PREVIOUS_SEC * HZ;
	arm_until(&forget_work, forget_at);
	rotate_at = jiffies + ROTATE_SEC * HZ;
	arm_until(&rotate_work, rotate_at);
}

static void forget_work_fn(struct work_struct *work)
{
	if (pool_time_left(forget_at)) {
		arm_until(&forget_work, forget_at);
		return;
	}
	spin_lock(&secret_lock);
	memzero_explicit(secret_before, SECRET_LEN);
	secret_before_valid = false;
	spin_unlock(&secret_lock);
}

int pool_handshake_init(void)
{
	return pool_random(secret_now, SECRET_LEN);
}

void pool_handshake_start(void)
{
	rotate_at = jiffies + ROTATE_SEC * HZ;
	arm_until(&rotate_work, rotate_at);
}

void pool_handshake_exit(void)
{
	cancel_delayed_work_sync(&rotate_work);
	cancel_delayed_work_sync(&forget_work);
	memzero_explicit(secret_now, SECRET_LEN);
	memzero_explicit(secret_before, SECRET_LEN);
}

static bool get_secret(u8 out[SECRET_LEN], bool previous)
{
	bool valid;

	spin_lock(&secret_lock);
	valid = !previous || secret_before_valid;
	if (valid)
		memcpy(out, previous ? secret_before : secret_now, SECRET_LEN);
	spin_unlock(&secret_lock);
	return valid;
}

static void load_note(bool verified)
{
	u64 tick = ktime_get_ns() >> LOAD_BUCKET_SHIFT;
	typeof(&load[0]) bucket = &load[tick % LOAD_BUCKETS];

	spin_lock(&load_lock);
	if (bucket->tick != tick) {
		bucket->tick = tick;
		bucket->issued = 0;
		bucket->verified = 0;
	}
	if (verified)
		bucket->verified++;
	else
		bucket->issued++;
	spin_unlock(&load_lock);
}

/* HS-04: a step for each 64 unverified challenges of the last second. */
static u8 current_difficulty(void)
{
	u64 tick = ktime_get_ns() >> LOAD_BUCKET_SHIFT;
	u32 issued = 0, verified = 0, steps;
	int i;

	spin_lock(&load_lock);
	for (i = 0; i < LOAD_BUCKETS; i++) {
		if (tick - load[i].tick < LOAD_BUCKETS) {
			issued += load[i].issued;
			verified += load[i].verified;
		}
	}
	spin_unlock(&load_lock);
	steps = issued > verified ? (issued - verified) / LOAD_STEP : 0;
	return min_t(u32, pool_params.difficulty + steps, DIFFICULTY_MAX);
}

static void cookie_mac(u8 mac[8], const u8 secret[SECRET_LEN], const struct cookie *cookie,
		       const struct peer_binding *peer)
{
	struct {
		char label[8];
		u8 head[COOKIE_HEAD];
		struct peer_binding peer;
		u8 version;
	} __packed in = { .label = "pool-sid", .peer = *peer, .version = POOL_VERSION };
	u8 digest[POOL_HMAC_LEN];

	memcpy(in.head, cookie, sizeof(in.head));
	pool_hmac(digest, secret, SECRET_LEN, &in, sizeof(in));
	memcpy(mac, digest, 8);
}

static void puzzle_seed(u8 seed[32], const u8 secret[SECRET_LEN], const u8 session_id[POOL_ID_LEN],
			const struct peer_binding *peer)
{
	struct {
		char label[11];
		u8 id[POOL_ID_LEN];
		struct peer_binding peer;
	} __packed in = { .label = "pool-puzzle", .peer = *peer };

	memcpy(in.id, session_id, sizeof(in.id));
	pool_hmac(seed, secret, SECRET_LEN, &in, sizeof(in));
}

static int server_ephemeral(u8 private[POOL_KEY_LEN], const u8 secret[SECRET_LEN],
			    const u8 session_id[POOL_ID_LEN])
{
	u8 ikm[SECRET_LEN + POOL_ID_LEN];
	int err;

	memcpy(ikm, secret, SECRET_LEN);
	memcpy(ikm + SECRET_LEN, session_id, POOL_ID_LEN);
	err = pool_hkdf(private, POOL_KEY_LEN, ikm, sizeof(ikm), "pool-ephemeral");
	memzero_explicit(ikm, sizeof(ikm));
	return err;
}

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
static void note_full(const struct pool_conn *c)
{
	pool_count(no_slot);
	net_info_ratelimited("pool: refusing %pI6c: all %d sessions are taken\n", &c->peer, POOL_MAX_SESSIONS);
}

static void bind_peer(struct peer_binding *peer, const struct pool_conn *c, const u8 pubkey[POOL_KEY_LEN])
{
	peer->ip = c->peer;
	memcpy(peer->pubkey, pubkey, POOL_KEY_LEN);
}

static int receive_init(struct pool_conn *c, const struct pool_hdr *h)
{
	const struct pool_init *init = (const void *)(h + 1);
	struct pool_challenge challenge = {};
	u8 secret[SECRET_LEN], private[POOL_KEY_LEN];
	struct peer_binding peer;
	struct cookie cookie;
	s64 skew;
	int err;

	if (pool_hdr_payload_len(h) != sizeof(*init) || !pool_hdr_plain(h) ||
	    memchr_inv(h->session_id, 0, POOL_ID_LEN) || !pool_addr_valid(init->client_addr)) {
		pool_count(malformed);
		return POOL_RX_NEXT;
	}
	skew = be64_to_cpu(h->timestamp) - ktime_get_real_ns();
	if (skew > INIT_SKEW_NS || skew < -INIT_SKEW_NS) {
		pool_count(stale_init);
		return POOL_RX_NEXT;
	}
	if (pool_table_full()) {
		note_full(c);
		return refuse(c, POOL_CODE_OVERLOAD);
	}

	cookie.issued = cpu_to_be32(ktime_get_seconds());
	cookie.difficulty = current_difficulty();
	err = pool_random(cookie.random, sizeof(cookie.random));
	if (err) {
		pool_count(no_randomness);
		return POOL_RX_NEXT;
	}
	bind_peer(&peer, c, init->client_pubkey);
	get_secret(secret, false);
	cookie_mac(cookie.mac, secret, &cookie, &peer);
	puzzle_seed(challenge.puzzle_seed, secret, (u8 *)&cookie, &peer);
	err = server_ephemeral(private, secret, (u8 *)&cookie);
	if (!err && pool_x25519_public(challenge.server_pubkey, private)) {
		challenge.difficulty = cpu_to_be16(cookie.difficulty);
		pool_addr_make(challenge.server_addr, pool_node_pubkey);
		err = pool_conn_send_plain(c, POOL_CHALLENGE, (u8 *)&cookie, ktime_get_ns(), &challenge,
					   sizeof(challenge));
		if (!err) {
			load_note(false);
			pool_count(challenges_sent);
		}
		if (!c->challenged) {
			WRITE_ONCE(c->challenged, true);
			pool_conn_arm(c, RESPONSE_WAIT_MS);
		}
	}
	memzero_explicit(secret, sizeof(secret));
	memzero_explicit(private, sizeof(private));
	return POOL_RX_NEXT;
}

/* The secret a cookie was made with, if it is one of ours and this peer's. */
static bool cookie_check(const struct cookie *cookie, const struct peer_binding *peer, u8 secret[SECRET_LEN])
{
	int previous;
	u8 mac[8];

	for (previous = 0; previous < 2; previous++) {
		if (!get_secret(secret, previous))
			return false;
		cookie_mac(mac, secret, cookie, peer);
		if (!crypto_memneq(mac, cookie->mac, sizeof(mac)))
			return true;
	}
	return false;
}

/* HS-02: cheap checks first. 0: keys and shared secret are good. */
static int verify_response(struct pool_conn *c, struct pool_hdr *h, struct pool_keys *keys)
{
	struct pool_response *response = (void *)(h + 1);
	const struct cookie *cookie = (const void *)h->session_id;
	u8 secret[SECRET_LEN], private[POOL_KEY_LEN], shared[POOL_KEY_LEN], seed[32];
	u8 proof[POOL_HMAC_LEN];
	struct peer_binding peer;
	int err = -EBADMSG;

	bind_peer(&peer, c, response->client_pubkey);
	if (!cookie_check(cookie, &peer, secret)) {
		pool_count(bad_session_id);
		goto out;
	}
	if ((u32)ktime_get_seconds() - be32_to_cpu(cookie->issued) > CHALLENGE_MAX_AGE) {
		pool_count(stale_response);
		goto out;
	}
	if (pool_response_used(h->session_id)) {
		pool_count(replay_drops);
		goto out;
	}
	puzzle_seed(seed, secret, h->session_id, &peer);
	if (!pool_puzzle_solved(seed, response->solution, cookie->difficulty)) {
		pool_count(bad_puzzle);
		goto out;
	}
	if (server_ephemeral(private, secret, h->session_id) ||
	    !pool_x25519(shared, private, response->client_pubkey)) {
		pool_count(low_order_key);
		goto out;
	}
	pool_keys_derive(keys, shared);
	if (!pool_keys_verify(keys, h)) {
		pool_count(auth_fail);
		goto out;
	}
	if (be64_to_cpu(h->seq) >= POOL_SEQ_CLIENT_END) {
		pool_count(reflected);
		goto out;
	}
	if (!pool_keys_open(keys, h, offsetof(struct pool_response, sealed_proof))) {
		pool_count(decrypt_fail);
		goto out;
	}
	pool_hmac(proof, shared, sizeof(shared), h->session_id, POOL_ID_LEN);	/* HS-08 */
	if (crypto_memneq(proof, response->sealed_proof, sizeof(proof)))
		pool_count(bad_proof);
	else
		err = 0;
out:
	memzero_explicit(secret, sizeof(secret));
	memzero_explicit(private, sizeof(private));
	memzero_explicit(shared, sizeof(shared));
	memzero_explicit(proof, sizeof(proof));
	return err;
}

static int receive_response(struct pool_conn *c, struct pool_hdr *h)
{
	struct pool_session *s = NULL;
	u64 server_seq, client_seq = be64_to_cpu(h->seq);
	struct pool_keys keys = {};
	u8 id[POOL_ID_LEN];
	int err;

	if (pool_hdr_payload_len(h) != sizeof(struct pool_response) ||
	    !(pool_hdr_flags(h) & POOL_F_ENCRYPTED) || h->ack) {
		pool_count(malformed);
		return refuse(c, POOL_CODE_AUTH_FAIL);
	}
	memcpy(id, h->session_id, sizeof(id));
	err = verify_response(c, h, &keys);
	if (err)
		goto refuse;
	load_note(true);

	err = pool_random(&server_seq, sizeof(server_seq));
	if (err) {
		pool_count(no_randomness);
		goto refuse;
	}
	s = pool_session_alloc(c, POOL_SERVER);
	if (!s || pool_conn_grow(c)) {	/* h is gone from here on */
		pool_count(no_memory);
		err = -ENOMEM;
		goto refuse;
	}
	memcpy(s->id, id, sizeof(s->id));
	s->keys = keys;
	s->tx_first = POOL_SEQ_SERVER + (server_seq & POOL_SEQ_START_MASK);
	s->tx_next = s->tx_first;
	s->window.highest = client_seq;
	s->window.seen = ~0ULL;
	s->packets_recv = 1;
	pool_count(packets_received);

	/* Given way to another, or timed out, while this was being verified? */
	if (!pool_pending_claim(c)) {
		err = -ECONNABORTED;
		goto out;
	}
	err = pool_session_insert(s, id);
	if (err) {
		pool_count(handshakes_failed);
		if (err == -EEXIST)
			pool_count(replay_drops);
		if (err == -ENOSPC)
			note_full(c);
		pool_conn_send_advisory(c, err == -EEXIST ? POOL_CODE_AUTH_FAIL : POOL_CODE_OVERLOAD);
		pool_conn_disarm(c);
		pool_conn_linger(c);
		goto out;
	}
	pool_conn_disarm(c);
	c->phase = POOL_PHASE_SESSION;
	pool_session_get(s);
	c->session = s;
	pool_session_establish(s);
	/* The handshake ACK consumes S0; its ack is the window's highest, C0 (SEQ-03). */
	err = pool_send_control(s, POOL_ACK, 0, NULL, 0);
	if (err)
		pool_session_end_locked(s, POOL_CLOSE_NONE, "the handshake ACK could not be sent");
	else
		net_info_ratelimited("pool: session %d accepted from %pI6c\n", s->index, &c->peer);
	goto out;

refuse:
	refuse(c, err == -EBADMSG ? POOL_CODE_AUTH_FAIL : POOL_CODE_OVERLOAD);
out:
	memzero_explicit(&keys, sizeof(keys));
	if (s)
		pool_session_put(s);
	return err ? POOL_RX_STOP : POOL_RX_NEXT;
}

int pool_handshake_receive(struct pool_conn *c, struct pool_hdr *h)
{
	u8 type = pool_hdr_type(h);

	if (pool_hdr_version(h) != POOL_VERSION) {
		/* WIRE-02: only an INIT is answered. */
		pool_count(version_mismatch);
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
