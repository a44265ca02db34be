/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The server's side of the handshake (section 8), whatever carries it. */
#ifndef POOL_HANDSHAKE_H
#define POOL_HANDSHAKE_H

#include "cookie.h"
#include "keys.h"

struct pool_conn;
struct pool_session;

/* Who sent a packet. */
struct pool_from {
	struct in6_addr ip;
	u16 port;		/* 0 over raw IP */
};

/* pool_count_error() before there is a connection to name. */
#define pool_count_from(name, code, from) \
	do { \
		pool_count(name); \
		pool_journal_error_from(code, &(from)->ip, (from)->port, #name); \
	} while (0)

/* What a RESPONSE has proven. */
struct pool_proven {
	u8 id[POOL_ID_LEN];
	u8 shared[POOL_KEY_LEN];
	struct pool_keys keys;
	u64 client_seq, server_seq;
};

/* The answer to an INIT. -ENOSPC: no slot; any other error: discarded, and counted. */
int pool_handshake_challenge(const struct pool_from *from, const struct pool_hdr *h, struct pool_challenge *challenge,
			     struct pool_cookie *cookie);
/* It was sent. */
void pool_handshake_challenged(void);

/* 0 for a RESPONSE that is good; what fails is counted. -EBADMSG: the client's fault. */
int pool_handshake_verify(const struct pool_from *from, struct pool_hdr *h, struct pool_proven *proven);
/* Its session, not in the table yet; NULL: no memory. */
struct pool_session *pool_handshake_session(struct pool_conn *c, const struct pool_proven *proven);
/* Into the table: pool_session_insert(), which marks the RESPONSE used. */
int pool_handshake_insert(struct pool_session *s);
/* Start it, with the handshake ACK; rx_lock is held. */
void pool_handshake_establish(struct pool_session *s);

#endif
