// SPDX-License-Identifier: GPL-2.0-or-later
/* The rotating secret K, what is recomputed from it, and the load that raises the difficulty. */
#include <linux/string.h>
#include <linux/workqueue.h>
#include <crypto/algapi.h>
#include "conn.h"
#include "cookie.h"
#include "config.h"

#define ROTATE_SEC		300		/* HS-05 */
#define KEEP_PREVIOUS_SEC	31
#define CHALLENGE_MAX_AGE	30		/* HS-02, seconds */

#define DIFFICULTY_MAX		22		/* HS-04 */
#define LOAD_STEP		64
#define LOAD_BUCKETS		16		/* of 2^26 ns each: 15 whole ones are a second */
#define LOAD_BUCKET_SHIFT	26

#define COOKIE_HEAD		offsetof(struct pool_cookie, mac)

static DEFINE_SPINLOCK(secret_lock);
static u8 secret_now[POOL_SECRET_LEN];
static u8 secret_before[POOL_SECRET_LEN];
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
	u8 fresh[POOL_SECRET_LEN];

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
	memcpy(secret_before, secret_now, POOL_SECRET_LEN);
	memcpy(secret_now, fresh, POOL_SECRET_LEN);
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
	memzero_explicit(secret_before, POOL_SECRET_LEN);
	secret_before_valid = false;
	spin_unlock(&secret_lock);
}

int pool_cookie_init(void)
{
	return pool_random(secret_now, POOL_SECRET_LEN);
}

void pool_cookie_start(void)
{
	rotate_at = jiffies + ROTATE_SEC * HZ;
	arm_until(&rotate_work, rotate_at);
}

void pool_cookie_exit(void)
{
	cancel_delayed_work_sync(&rotate_work);
	cancel_delayed_work_sync(&forget_work);
	memzero_explicit(secret_now, POOL_SECRET_LEN);
	memzero_explicit(secret_before, POOL_SECRET_LEN);
}

static bool get_secret(u8 out[POOL_SECRET_LEN], bool previous)
{
	bool valid;

	spin_lock(&secret_lock);
	valid = !previous || secret_before_valid;
	if (valid)
		memcpy(out, previous ? secret_before : secret_now, POOL_SECRET_LEN);
	spin_unlock(&secret_lock);
	return valid;
}

void pool_load_note(bool verified)
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
	return min_t(u32, pool_config_params().difficulty + steps, DIFFICULTY_MAX);
}

static void cookie_mac(u8 mac[8], const u8 secret[POOL_SECRET_LEN], const struct pool_cookie *cookie,
		       const struct pool_binding *peer)
{
	struct {
		char label[8];
		u8 head[COOKIE_HEAD];
		struct pool_binding peer;
		u8 version;
	} __packed in = { .label = "pool-sid", .peer = *peer, .version = POOL_VERSION };
	u8 digest[POOL_HMAC_LEN];

	memcpy(in.head, cookie, sizeof(in.head));
	pool_hmac(digest, secret, POOL_SECRET_LEN, &in, sizeof(in));
	memcpy(mac, digest, 8);
}

void pool_cookie_seed(u8 seed[32], const u8 secret[POOL_SECRET_LEN], const u8 session_id[POOL_ID_LEN],
			const struct pool_binding *peer)
{
	struct {
		char label[11];
		u8 id[POOL_ID_LEN];
		struct pool_binding peer;
	} __packed in = { .label = "pool-puzzle", .peer = *peer };

	memcpy(in.id, session_id, sizeof(in.id));
	pool_hmac(seed, secret, POOL_SECRET_LEN, &in, sizeof(in));
}

int pool_cookie_ephemeral(u8 private[POOL_KEY_LEN], const u8 secret[POOL_SECRET_LEN],
			    const u8 session_id[POOL_ID_LEN])
{
	u8 ikm[POOL_SECRET_LEN + POOL_ID_LEN];
	int err;

	memcpy(ikm, secret, POOL_SECRET_LEN);
	memcpy(ikm + POOL_SECRET_LEN, session_id, POOL_ID_LEN);
	err = pool_hkdf(private, POOL_KEY_LEN, ikm, sizeof(ikm), "pool-ephemeral");
	memzero_explicit(ikm, sizeof(ikm));
	return err;
}

/* The secret a cookie was made with, if it is one of ours and this peer's. */
bool pool_cookie_check(const struct pool_cookie *cookie, const struct pool_binding *peer, u8 secret[POOL_SECRET_LEN])
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

int pool_cookie_issue(struct pool_cookie *cookie, const struct pool_binding *peer, u8 secret[POOL_SECRET_LEN])
{
	int err;

	cookie->issued = cpu_to_be32(ktime_get_seconds());
	cookie->difficulty = current_difficulty();
	err = pool_random(cookie->random, sizeof(cookie->random));
	if (err)
		return err;
	get_secret(secret, false);
	cookie_mac(cookie->mac, secret, cookie, peer);
	return 0;
}

bool pool_cookie_stale(const struct pool_cookie *cookie)
{
	return (u32)ktime_get_seconds() - be32_to_cpu(cookie->issued) > CHALLENGE_MAX_AGE;
}
