/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session_id as a cookie: opaque to clients, all that the server remembers of a CHALLENGE (HS-01). */
#ifndef POOL_COOKIE_H
#define POOL_COOKIE_H

#include <linux/in6.h>
#include "crypto.h"

#define POOL_SECRET_LEN 32

struct pool_cookie {
	__be32 issued;		/* monotonic seconds */
	u8 difficulty;
	u8 random[3];
	u8 mac[8];
} __packed;
static_assert(sizeof(struct pool_cookie) == POOL_ID_LEN);

/* What the MAC and the puzzle are bound to. */
struct pool_binding {
	struct in6_addr ip;
	u8 pubkey[POOL_KEY_LEN];
} __packed;

int pool_cookie_init(void);
void pool_cookie_start(void);
void pool_cookie_exit(void);

/* A fresh cookie and the secret it was made with; an error when there are no random bytes. */
int pool_cookie_issue(struct pool_cookie *cookie, const struct pool_binding *peer, u8 secret[POOL_SECRET_LEN]);
/* The secret a cookie was made with, if it is one of ours and this peer's. */
bool pool_cookie_check(const struct pool_cookie *cookie, const struct pool_binding *peer,
		       u8 secret[POOL_SECRET_LEN]);
bool pool_cookie_stale(const struct pool_cookie *cookie);

void pool_cookie_seed(u8 seed[32], const u8 secret[POOL_SECRET_LEN], const u8 session_id[POOL_ID_LEN],
		      const struct pool_binding *peer);
int pool_cookie_ephemeral(u8 private[POOL_KEY_LEN], const u8 secret[POOL_SECRET_LEN],
			  const u8 session_id[POOL_ID_LEN]);

/* A challenge was issued, or a RESPONSE verified: HS-04 counts them. */
void pool_load_note(bool verified);

#endif
