/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Raw IP, protocol 253 (TRN-03): one socket for the node. What it receives is sorted by
 * peer and session id and queued; each connection works off its own queue.
 *
 * A connection over raw IP is a pool_conn without a socket of its own, with a pool_raw.
 */
#ifndef POOL_RAW_H
#define POOL_RAW_H

#include <linux/in.h>
#include <linux/list.h>
#include <linux/wait.h>
#include "conn.h"

#define POOL_RAW_PROTOCOL	253

/* What came in, without its IP header. */
struct pool_datagram {
	struct list_head list;
	__be32 from, to;
	u32 len;
	u8 data[];
};

struct pool_raw {
	struct pool_conn *conn;
	__be32 peer;
	__be32 local;			/* what to send from; 0: what the route says */
	struct pool_datagram *current_one;	/* connect() looks at it */
	wait_queue_head_t wait;

	/* raw_lock */
	struct list_head all;
	bool attempt, keyed;
	__be64 echo;			/* attempt: what answers to its INIT carry (HS-14) */
	u8 id[POOL_ID_LEN];		/* keyed */
	struct list_head queue;
	u32 queued;
	size_t queued_bytes;
};

/* Open and close the socket; the node sends and receives in between. */
int pool_raw_start(void);
void pool_raw_stop(void);
bool pool_raw_available(void);

/* Answer INIT and RESPONSE? False returns once nobody is being answered any more. */
void pool_raw_listen(bool listening);

/* A connection over raw IP; the reference is the list's: pool_conn_kill() drops it. */
struct pool_conn *pool_raw_conn_alloc(__be32 peer, __be32 local, enum pool_phase phase);
void pool_raw_free(struct pool_raw *raw);
/* What makes a datagram this connection's. */
void pool_raw_set_attempt(struct pool_conn *c, __be64 echo);
void pool_raw_set_id(struct pool_conn *c, const u8 id[POOL_ID_LEN]);
void pool_raw_forget(struct pool_conn *c);
/* Its INIT needs no more answers. */
void pool_raw_established(struct pool_conn *c);
/* With a reference, or NULL. */
struct pool_conn *pool_raw_find(__be32 peer, const u8 id[POOL_ID_LEN]);
/* A datagram that turned out to be this connection's; takes it. */
void pool_raw_give(struct pool_conn *c, struct pool_datagram *d);

/* Never waits. What is not taken counts as lost on the way. */
int pool_raw_transmit(__be32 from, __be32 to, const void *packet, u32 len, bool dont_fragment);

/* Takes the datagram: to whom it concerns, or to the counters. */
void pool_raw_sort(struct pool_datagram *d);

/* For connect(): the next datagram, valid until the next call, or -ETIMEDOUT or -EINTR. */
struct pool_hdr *pool_raw_await(struct pool_conn *c, unsigned long deadline);
void pool_raw_rx_work(struct work_struct *work);

/* raw_listen.c: INIT or RESPONSE, of any version; takes the datagram. */
void pool_raw_handshake(struct pool_datagram *d);

#endif
