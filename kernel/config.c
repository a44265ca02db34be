// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include "compat.h"
#include "config.h"
#include "conn.h"
#include "journal.h"
#include "session.h"

struct config {
	struct pool_config_ref ref;
	struct pool_params params;
};

static DEFINE_MUTEX(config_mutex);
static DEFINE_SPINLOCK(config_lock);
static struct config current_config;	/* written with both held */

/* With the mutex held. */
static struct config previous;
static struct pool_session *proposer;	/* of what is tentative, with a reference; NULL: nothing is */
static u64 deadline_ns;
static const struct pool_session *confirmer;	/* of what is in force; only compared */

static bool within(u32 value, u32 least, u32 most)
{
	return value >= least && value <= most;
}

const char *pool_params_wrong(const struct pool_params *p)
{
	if (!within(p->difficulty, 16, 20))
		return "difficulty";
	if (!within(p->heartbeat_sec, 1, 30))
		return "heartbeat_sec";
	if (!within(p->rekey_packets, 1 << 10, 1 << 28))
		return "rekey_packets";
	if (!within(p->rekey_sec, 10, 3600))
		return "rekey_sec";
	if (!within(p->mtu_min, POOL_MTU_LEAST, POOL_MTU_MOST))
		return "mtu_min";
	return within(p->mtu_max, p->mtu_min, POOL_MTU_MOST) ? NULL : "mtu_max";
}

void pool_params_pack(struct pool_wire_params *w, const struct pool_params *p)
{
	w->difficulty = p->difficulty;
	w->zero = 0;
	w->heartbeat_sec = cpu_to_be16(p->heartbeat_sec);
	w->rekey_packets = cpu_to_be32(p->rekey_packets);
	w->rekey_sec = cpu_to_be32(p->rekey_sec);
	w->mtu_min = cpu_to_be16(p->mtu_min);
	w->mtu_max = cpu_to_be16(p->mtu_max);
}

static struct pool_params unpack(const struct pool_wire_params *w)
{
	return (struct pool_params) {
		.difficulty = w->difficulty,
		.heartbeat_sec = be16_to_cpu(w->heartbeat_sec),
		.rekey_packets = be32_to_cpu(w->rekey_packets),
		.rekey_sec = be32_to_cpu(w->rekey_sec),
		.mtu_min = be16_to_cpu(w->mtu_min),
		.mtu_max = be16_to_cpu(w->mtu_max),
	};
}

void pool_config_hash(u8 hash[SHA256_DIGEST_SIZE], __be32 version, const struct pool_wire_params *params)
{
	pool_sha256 ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, (const u8 *)&version, sizeof(version));
	sha256_update(&ctx, (const u8 *)params, sizeof(*params));
	sha256_final(&ctx, hash);
}

void pool_config_init(const struct pool_params *params)
{
	current_config.params = *params;
}

static struct config in_force(void)
{
	struct config c;

	spin_lock(&config_lock);
	c = current_config;
	spin_unlock(&config_lock);
	return c;
}

struct pool_params pool_config_params(void)
{
	return in_force().params;
}

u32 pool_config_version(void)
{
	return in_force().ref.version;
}

struct pool_config_ref pool_config_current(bool *tentative)
{
	struct pool_config_ref ref;

	mutex_lock(&config_mutex);
	ref = current_config.ref;
	*tentative = proposer;
	mutex_unlock(&config_mutex);
	return ref;
}

static void put_in_force(const struct config *c)
{
	bool changed = memcmp(&c->params, &current_config.params, sizeof(c->params));

	lockdep_assert_held(&config_mutex);
	spin_lock(&config_lock);
	current_config = *c;
	spin_unlock(&config_lock);
	if (changed)
		pool_sessions_reconfigure();
}

/* E-46: the detail begins with the hash of what is in force afterwards. */
static void record(const struct pool_session *s, u32 before, const char *what)
{
	const struct pool_config_ref *ref = &current_config.ref;
	char peer[POOL_PEER_STR];

	pool_journal_config(before, ref->version, "%*phN %s %s", SHA256_DIGEST_SIZE, ref->hash, what,
			    pool_peer_str(peer, s->conn));
}

/* The exact previous configuration is back. Whoever comes here finds a proposer, and nobody after it does. */
static void undo(const char *why)
{
	struct pool_session *s = proposer;
	u32 undone = current_config.ref.version;

	lockdep_assert_held(&config_mutex);
	proposer = NULL;
	put_in_force(&previous);
	record(s, undone, why);
	pool_session_put(s);
}

/* CFG-04: at the deadline or after it means rollback, and the proposer's session is told. */
static void expire_locked(void)
{
	struct pool_session *s = proposer;

	if (!s || ktime_get_ns() < deadline_ns)
		return;
	pool_session_get(s);
	undo("restored (deadline)");
	pool_send_flagged_ack(s, POOL_F_ROLLBACK_READY);
	pool_session_put(s);
}

void pool_config_expire(void)
{
	mutex_lock(&config_mutex);
	expire_locked();
	mutex_unlock(&config_mutex);
}

static const char *judge(const struct pool_wire_config *w)
{
	const struct pool_config_ref *ref = &current_config.ref;
	u64 deadline = be64_to_cpu(w->deadline_ns);
	struct pool_params params = unpack(&w->params);
	u8 hash[SHA256_DIGEST_SIZE];

	if (proposer)
		return "another one is tentative";
	if (be32_to_cpu(w->version) <= ref->version)
		return "version";
	if (be32_to_cpu(w->prev_version) != ref->version)
		return "prev_version";
	if (memcmp(w->prev_hash, ref->hash, sizeof(ref->hash)))
		return "prev_hash";
	pool_config_hash(hash, w->version, &w->params);
	if (memcmp(w->config_hash, hash, sizeof(hash)))
		return "config_hash";
	if (deadline < POOL_DEADLINE_LEAST || deadline > POOL_DEADLINE_MOST)
		return "deadline";
	return w->params.zero || pool_params_wrong(&params) ? "parameters" : NULL;
}

const char *pool_config_propose(struct pool_session *s, const struct pool_wire_config *w)
{
	struct config c = { .ref.version = be32_to_cpu(w->version), .params = unpack(&w->params) };
	const char *wrong;

	mutex_lock(&config_mutex);
	expire_locked();
	wrong = judge(w);
	if (!wrong) {
		memcpy(c.ref.hash, w->config_hash, sizeof(c.ref.hash));
		previous = current_config;
		pool_session_get(s);
		proposer = s;
		deadline_ns = ktime_get_ns() + be64_to_cpu(w->deadline_ns);
		put_in_force(&c);
		record(s, previous.ref.version, "accepted");
	}
	mutex_unlock(&config_mutex);
	return wrong;
}

const char *pool_config_confirm(struct pool_session *s, const struct pool_wire_config *w)
{
	const struct pool_config_ref *ref = &current_config.ref;
	const char *wrong = NULL;
	bool same;

	mutex_lock(&config_mutex);
	expire_locked();
	same = be32_to_cpu(w->version) == ref->version &&
	       !memcmp(w->config_hash, ref->hash, sizeof(ref->hash));
	if (!proposer) {
		/* A repeat of the confirm changes nothing. */
		if (!same || s != confirmer)
			wrong = "nothing is tentative";
	} else if (s != proposer) {
		wrong = "another session proposed it";
	} else if (!same) {
		wrong = "config_hash";
	} else {
		proposer = NULL;
		confirmer = s;
		record(s, ref->version, "confirmed");
		pool_session_put(s);
	}
	mutex_unlock(&config_mutex);
	return wrong;
}

const char *pool_config_rollback(struct pool_session *s)
{
	const char *wrong = NULL;

	mutex_lock(&config_mutex);
	expire_locked();
	if (!proposer)
		wrong = "nothing is tentative";
	else if (s != proposer)
		wrong = "another session proposed it";
	else
		undo("restored (rollback)");
	mutex_unlock(&config_mutex);
	return wrong;
}

u64 pool_config_deadline(const struct pool_session *s)
{
	u64 deadline;

	mutex_lock(&config_mutex);
	deadline = proposer == s ? deadline_ns : POOL_NEVER;
	mutex_unlock(&config_mutex);
	return deadline;
}

void pool_config_session_ended(struct pool_session *s)
{
	mutex_lock(&config_mutex);
	expire_locked();
	if (proposer == s)
		undo("restored (session ended)");
	if (confirmer == s)
		confirmer = NULL;
	mutex_unlock(&config_mutex);
}
