/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node's one configuration (section 14). Changing it takes a mutex of its own, taken
 * with rx_lock held and before tx_lock; reading the parameters takes a spinlock only, so
 * nobody sees a mixture of two (CFG-06).
 */
#ifndef POOL_CONFIG_H
#define POOL_CONFIG_H

#include <linux/types.h>
#include <crypto/sha2.h>
#include "wire.h"

#define POOL_DEADLINE_LEAST	(50ULL * NSEC_PER_MSEC)
#define POOL_DEADLINE_MOST	(3600ULL * NSEC_PER_SEC)

struct pool_session;

struct pool_params {
	u8 difficulty;		/* leading zero bits, 16..20 (HS-04) */
	u16 heartbeat_sec;	/* 1..30 */
	u32 rekey_packets;	/* 2^10..2^28 */
	u32 rekey_sec;		/* 10..3600 */
	u16 mtu_min, mtu_max;	/* 512..1400 */
};

/* What the next change builds on. */
struct pool_config_ref {
	u32 version;
	u8 hash[SHA256_DIGEST_SIZE];
};

/* The name of a parameter outside its range, or NULL (CFG-01). */
const char *pool_params_wrong(const struct pool_params *p);
void pool_params_pack(struct pool_wire_params *w, const struct pool_params *p);
void pool_config_hash(u8 hash[SHA256_DIGEST_SIZE], __be32 version, const struct pool_wire_params *params);

void pool_config_init(const struct pool_params *params);
/* Those in force. */
struct pool_params pool_config_params(void);
u32 pool_config_version(void);
struct pool_config_ref pool_config_current(bool *tentative);

/*
 * What a peer's CONFIG or ROLLBACK does. NULL: done, and journalled; otherwise why nothing changed. rx_lock of
 * the session is held.
 */
const char *pool_config_propose(struct pool_session *s, const struct pool_wire_config *w);
const char *pool_config_confirm(struct pool_session *s, const struct pool_wire_config *w);
const char *pool_config_rollback(struct pool_session *s);
/* When what that session proposed runs out, POOL_NEVER if there is no such thing. */
u64 pool_config_deadline(const struct pool_session *s);
/* Roll back what is past its deadline. */
void pool_config_expire(void);
/* The session is over, and with it what it left unconfirmed. */
void pool_config_session_ended(struct pool_session *s);

#endif
