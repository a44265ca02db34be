// SPDX-License-Identifier: GPL-2.0-or-later
#include <crypto/algapi.h>
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "integrity.h"
#include "journal.h"
#include "params.h"
#include "session.h"

#define ACKED_NS	(5ULL * NSEC_PER_SEC)	/* INT-01: from the challenge's ack to its answer */
#define ANSWER_NS	(60ULL * NSEC_PER_SEC)
#define RETRY_NS	(50ULL * NSEC_PER_MSEC)
#define PER_SECOND	16			/* E-87: so many of the peer's are looked at */

#define OP_CHALLENGE	1
#define OP_ANSWER	2
#define OP_STATE	3

static void follow(struct pool_session *s)
{
	const struct pool_vigil *v = &s->vigil;
	u64 due = v->retry_ns != POOL_NEVER ? v->retry_ns : v->next_ns;

	pool_part_set(s, POOL_PART_VIGIL, v->open ? min(due, v->answer_by_ns) : due);
}

static u64 next_challenge(u64 now)
{
	return pool_integrity_sec ? now + pool_integrity_sec * NSEC_PER_SEC : POOL_NEVER;
}

void pool_vigil_start(struct pool_session *s)
{
	s->vigil.next_ns = next_challenge(s->started_ns);
	s->vigil.retry_ns = POOL_NEVER;
	s->vigil.second_ns = s->started_ns;
	s->vigil.peer_first = s->window.highest;
	follow(s);
}

/* The answer of the side in that role: role 0 is the client's (INT-01). */
static void make_answer(const struct pool_session *s, enum pool_role role, const u8 random[POOL_CHALLENGE_LEN],
			struct pool_wire_answer *w)
{
	u8 message[1 + POOL_CHALLENGE_LEN], digest[SHA256_DIGEST_SIZE], key[POOL_KEY_LEN];

	message[0] = role == POOL_SERVER;
	memcpy(message + 1, random, POOL_CHALLENGE_LEN);
	sha256(message, sizeof(message), digest);
	w->op = OP_ANSWER;
	memcpy(w->random, random, POOL_CHALLENGE_LEN);
	memcpy(w->sealed, random, POOL_CHALLENGE_LEN);
	WARN_ON(pool_hkdf(key, sizeof(key), s->shared, sizeof(s->shared), "pool-integrity-key"));
	pool_aead_seal(w->sealed, POOL_CHALLENGE_LEN, digest, key, NULL, 0);
	WARN_ON(pool_hkdf(key, sizeof(key), s->shared, sizeof(s->shared), "pool-integrity-mac"));
	pool_hmac(w->mac, key, sizeof(key), message, sizeof(message));
	memzero_explicit(key, sizeof(key));
}

/* Our view of the session; true of the moment it leaves, so tx_lock is held (E-86). */
static void make_report(const struct pool_session *s, struct pool_wire_report *w)
{
	w->op = OP_STATE;
	w->epoch = cpu_to_be32(s->rekey.epoch);
	w->seq_sent = cpu_to_be64(s->tx_next - 1);
	w->highest_received = cpu_to_be64(s->window.highest);
	w->packets_sent = cpu_to_be64(s->tx_next - s->tx_first);
	w->packets_received = cpu_to_be64(s->packets_recv);
	w->config_version = cpu_to_be32(pool_config_version());
	pool_journal_head(w->journal_head);
}

static void send_answer(struct pool_session *s)
{
	struct pool_wire_answer w;

	make_answer(s, s->role, s->vigil.asked_random, &w);
	if (!pool_send_control(s, POOL_INTEGRITY, 0, POOL_MARK_NONE, &w, sizeof(w)))
		s->vigil.asked = false;
}

static void send_challenge(struct pool_session *s, u64 now)
{
	struct pool_vigil *v = &s->vigil;
	struct pool_wire_challenge w = { .op = OP_CHALLENGE };

	v->next_ns = next_challenge(now);
	if (v->open)
		return;
	if (pool_random(v->random, sizeof(v->random))) {
		pool_count(no_randomness);
		return;
	}
	memcpy(w.random, v->random, sizeof(w.random));
	if (pool_send_control(s, POOL_INTEGRITY, POOL_F_REQUIRE_ACK, POOL_MARK_CHALLENGE, &w, sizeof(w)))
		return;
	v->open = true;
	v->answer_by_ns = now + ANSWER_NS;
	v->report_owed = true;
}

static void send_report(struct pool_session *s)
{
	struct pool_wire_report w;

	mutex_lock(&s->conn->tx_lock);
	make_report(s, &w);
	if (!pool_send_control_locked(s, POOL_INTEGRITY, 0, POOL_MARK_NONE, &w, sizeof(w)))
		s->vigil.report_owed = false;
	mutex_unlock(&s->conn->tx_lock);
}

/*
 * Send what is due, unless packets pile up or are held: then a report would no longer be true by the time it
 * leaves, nor an answer welcome after a change of keys.
 */
static void work(struct pool_session *s, u64 now)
{
	struct pool_vigil *v = &s->vigil;

	if (v->asked && pool_send_flows(s))
		send_answer(s);
	if (now >= v->next_ns && pool_send_flows(s))
		send_challenge(s, now);
	if (v->report_owed && pool_send_flows(s))
		send_report(s);
	v->retry_ns = v->asked || v->report_owed || now >= v->next_ns ? now + RETRY_NS : POOL_NEVER;
	follow(s);
}

void pool_vigil_timer(struct pool_session *s, u64 now)
{
	if (s->vigil.open && now >= s->vigil.answer_by_ns) {
		s->vigil.open = false;
		pool_count(integrity_fail);
		pool_session_alert(s, "a challenge was not answered");
	}
	work(s, now);
}

void pool_vigil_now(struct pool_session *s)
{
	u64 now = ktime_get_ns();

	s->vigil.next_ns = now;
	work(s, now);
}

void pool_vigil_acked(struct pool_session *s, u64 ack)
{
	struct pool_vigil *v = &s->vigil;
	struct pool_marked challenge;

	if (!pool_mark_acked(s, POOL_MARK_CHALLENGE, ack, &challenge) || !v->open)
		return;
	v->answer_by_ns = min(v->answer_by_ns, ktime_get_ns() + ACKED_NS);
	follow(s);
}

void pool_vigil_rekeyed(struct pool_session *s)
{
	s->vigil.open = false;
	s->vigil.asked = false;
	follow(s);
}

void pool_vigil_postpone(struct pool_session *s, u64 ns)
{
	s->vigil.answer_by_ns += ns;
}

/* A sound peer sends one challenge and one report a second at most. */
static bool flooded(struct pool_vigil *v)
{
	u64 now = ktime_get_ns();

	if (now - v->second_ns >= NSEC_PER_SEC) {
		v->second_ns = now;
		v->heard = 0;
	}
	if (++v->heard <= PER_SECOND)
		return false;
	pool_count(integrity_limited);
	return true;
}

static bool is_open(const struct pool_vigil *v, const u8 random[POOL_CHALLENGE_LEN])
{
	return v->open && !crypto_memneq(v->random, random, POOL_CHALLENGE_LEN);
}

static void receive_challenge(struct pool_session *s, const struct pool_wire_challenge *w)
{
	if (is_open(&s->vigil, w->random)) {
		pool_count(malformed);
		return;
	}
	if (flooded(&s->vigil))
		return;
	s->vigil.asked = true;
	memcpy(s->vigil.asked_random, w->random, POOL_CHALLENGE_LEN);
	work(s, ktime_get_ns());
}

static void receive_answer(struct pool_session *s, const struct pool_wire_answer *w)
{
	struct pool_wire_answer right;

	if (!is_open(&s->vigil, w->random)) {
		pool_count(unsolicited);
		return;
	}
	s->vigil.open = false;
	follow(s);
	make_answer(s, s->role == POOL_CLIENT ? POOL_SERVER : POOL_CLIENT, w->random, &right);
	if (crypto_memneq(&right, w, sizeof(right))) {
		pool_count(integrity_fail);
		pool_session_alert(s, "a challenge was answered wrongly");
	}
}

/* INT-02. Each kind of contradiction is told once, or the peer could fill our journal. */
enum { RECEIVED, SENT, EPOCH, BACK, JOURNAL };

static const char *const contradictions[] = {
	[RECEIVED] = "the peer received what was never sent",
	[SENT] = "the peer sent something else than what came",
	[EPOCH] = "the peer is in another epoch",
	[BACK] = "a number of the peer's went back",
	[JOURNAL] = "the peer has another journal than before",
};

/* Where we have a copy of the peer's journal, its head must be the newest entry of it, or come in time. */
static bool other_journal(struct pool_session *s, const u8 head[SHA256_DIGEST_SIZE])
{
	struct pool_vigil *v = &s->vigil;
	bool expected = v->head_expected;

	if (!s->replica.started)
		return false;
	v->head_expected = false;
	if (!pool_replica_knows(s, head)) {
		if (!expected) {
			memcpy(v->expected_head, head, SHA256_DIGEST_SIZE);
			v->expected_index = s->replica.next;
		}
		v->head_expected = true;
		return false;
	}
	return memcmp(head, pool_replica_head(s), SHA256_DIGEST_SIZE) ||
	       (expected && v->expected_index >= s->replica.first && !pool_replica_knows(s, v->expected_head));
}

static int contradiction(struct pool_session *s, const struct pool_report *r, u64 seq)
{
	const struct pool_report *before = &s->vigil.latest;
	u64 last = READ_ONCE(s->tx_next) - 1, sent = last + 1 - s->tx_first;
	u64 later = s->window.highest > seq ? s->window.highest - seq : 0;
	bool underway = s->rekey.old_valid || s->state == POOL_REKEYING;

	if (r->highest_received < s->tx_first || r->highest_received > last || r->packets_received > sent)
		return RECEIVED;
	/* The report's own seq may be counted or not (E-86). */
	if (r->seq_sent + 1 < seq || r->seq_sent > seq || r->packets_sent + later + 1 < s->packets_recv ||
	    r->packets_sent > seq - s->vigil.peer_first + 1)
		return SENT;
	if (r->epoch != s->rekey.epoch &&
	    (!underway || (r->epoch + 1 != s->rekey.epoch && r->epoch != s->rekey.epoch + 1)))
		return EPOCH;
	if (s->vigil.reported &&
	    (r->epoch < before->epoch || r->seq_sent < before->seq_sent ||
	     r->highest_received < before->highest_received || r->packets_sent < before->packets_sent ||
	     r->packets_received < before->packets_received))
		return BACK;
	return other_journal(s, r->journal_head) ? JOURNAL : -1;
}

static void receive_report(struct pool_session *s, const struct pool_wire_report *w, u64 seq)
{
	struct pool_vigil *v = &s->vigil;
	struct pool_report r = {
		.epoch = be32_to_cpu(w->epoch),
		.seq_sent = be64_to_cpu(w->seq_sent),
		.highest_received = be64_to_cpu(w->highest_received),
		.packets_sent = be64_to_cpu(w->packets_sent),
		.packets_received = be64_to_cpu(w->packets_received),
	};
	int what;

	if (flooded(v))
		return;
	memcpy(r.journal_head, w->journal_head, sizeof(r.journal_head));
	what = contradiction(s, &r, seq);
	v->latest = r;
	v->reported = true;
	if (what < 0)
		return;
	pool_count(integrity_fail);
	if (!(v->accused & BIT(what)))
		pool_session_alert(s, contradictions[what]);
	v->accused |= BIT(what);
}

void pool_vigil_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	u8 op = len ? *plaintext : 0;

	if (op == OP_CHALLENGE && len == sizeof(struct pool_wire_challenge))
		receive_challenge(s, (const void *)plaintext);
	else if (op == OP_ANSWER && len == sizeof(struct pool_wire_answer))
		receive_answer(s, (const void *)plaintext);
	else if (op == OP_STATE && len == sizeof(struct pool_wire_report))
		receive_report(s, (const void *)plaintext, be64_to_cpu(h->seq));
	else
		pool_count(malformed);
}
