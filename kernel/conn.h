/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A connection: TCP, a socket whose events are served by work items; or raw IP, which shares
 * the node's one socket (raw.h). No thread of its own.
 */
#ifndef POOL_CONN_H
#define POOL_CONN_H

#include <linux/in6.h>
#include <linux/jiffies.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "wire.h"

struct pool_session;
struct pool_raw;

#define POOL_HANDSHAKE_BUF	2048	/* a longer packet is skipped, unread */
#define POOL_TXQ_BYTES		(256 << 10)
#define POOL_TXQ_CONTROL_BYTES	(64 << 10)	/* beyond that, for what is no message */
#define POOL_LINGER_MS		2000

enum pool_phase {
	POOL_PHASE_CLIENT,	/* connect() reads the socket itself */
	POOL_PHASE_PENDING,	/* accepted, no session yet */
	POOL_PHASE_SESSION,
	POOL_PHASE_LINGER,	/* said its last; what comes in is dropped */
};

#define POOL_CONN_DEAD	0	/* bits of flags */
#define POOL_CONN_FIN	1

struct pool_conn {
	struct kref ref;
	unsigned long flags;
	struct list_head all;
	struct list_head pending;
	struct socket *sock;		/* TCP */
	struct pool_raw *raw;		/* raw IP */
	void (*saved_data_ready)(struct sock *sk);
	void (*saved_state_change)(struct sock *sk);
	void (*saved_write_space)(struct sock *sk);
	struct in6_addr peer;
	u16 peer_port;

	struct mutex rx_lock;
	enum pool_phase phase;
	struct pool_session *session;
	u8 *rx_buf;
	u32 rx_size, rx_head, rx_tail, rx_skip;
	bool challenged;		/* also read by whoever looks for a silent one */

	struct mutex tx_lock;
	struct list_head txq;
	size_t txq_bytes;
	wait_queue_head_t tx_wait;

	struct work_struct rx_work;
	struct work_struct tx_work;
	struct delayed_work timer;
	unsigned long deadline;		/* what the timer waits for, in jiffies */
};

/* A packet on its way out; data begins with the header. */
struct pool_txbuf {
	struct list_head list;
	u32 len, sent;
	/* For the header, which is written when the packet is sealed. */
	u16 flags;
	u8 type, channel, mark;
	bool exact_ack;
	u64 ack;
	/* Raw IP: in flight. */
	u64 seq, due_ns, interval_ns;
	u8 sends;
	u8 data[];
};

extern struct workqueue_struct *pool_wq;

/*
 * The timer wheel may be late by an eighth of the delay, seconds for a deadline half a
 * minute away. So nobody waits for one in a single step; this is the next step.
 */
static inline unsigned long pool_timer_step(unsigned long left)
{
	return left > HZ / 4 ? left - left / 8 : left;
}

/* Jiffies until then, 0 if that is past. */
static inline unsigned long pool_time_left(unsigned long deadline)
{
	unsigned long now = jiffies;

	return time_after(deadline, now) ? deadline - now : 0;
}

/* Takes the socket over, also on failure; without one it is raw IP. NULL: no memory. The reference is the list's: pool_conn_kill() drops it. */
struct pool_conn *pool_conn_alloc(struct socket *sock, enum pool_phase phase);
void pool_conn_put(struct pool_conn *c);
static inline void pool_conn_get(struct pool_conn *c)
{
	kref_get(&c->ref);
}
static inline bool pool_conn_dead(const struct pool_conn *c)
{
	return test_bit(POOL_CONN_DEAD, &c->flags);
}

int pool_conn_read_peer(struct pool_conn *c);
/* "10.0.0.1 9253"; returns buf. */
#define POOL_PEER_STR	64
char *pool_peer_str(char buf[POOL_PEER_STR], const struct pool_conn *c);
char *pool_address_str(char buf[POOL_PEER_STR], const struct in6_addr *ip, u16 port);
void pool_conn_tune(struct pool_conn *c);
void pool_conn_attach(struct pool_conn *c);
void pool_conn_kill(struct pool_conn *c);
/* Let what was queued reach the peer, then close; rx_lock is held. */
void pool_conn_linger(struct pool_conn *c);
void pool_conn_end_linger(struct pool_conn *c);
void pool_conn_arm(struct pool_conn *c, unsigned int ms);
void pool_conn_disarm(struct pool_conn *c);
void pool_conn_kick_rx(struct pool_conn *c);
void pool_conn_kick_tx(struct pool_conn *c);
void pool_conn_rx_work(struct work_struct *work);
void pool_conn_tx_work(struct work_struct *work);

/* Read what fits: bytes, 0 at the end of the stream, or an error. */
int pool_conn_fill(struct pool_conn *c, int msg_flags);
/* The next whole packet, at rx_head, or NULL; one too long for the buffer is skipped and counted. */
struct pool_hdr *pool_conn_peek(struct pool_conn *c);
int pool_conn_grow(struct pool_conn *c);

struct pool_txbuf *pool_txbuf_alloc(u32 payload_len);
void pool_free_packets(struct list_head *packets);
/* tx_lock is held. */
void pool_conn_queue(struct pool_conn *c, struct pool_txbuf *b);
void pool_conn_flush(struct pool_conn *c);
void pool_conn_drop_txq(struct pool_conn *c);
bool pool_conn_crowded(const struct pool_conn *c);

/* A packet outside any session, unauthenticated: made; made and queued. */
struct pool_txbuf *pool_plain_packet(u8 type, const u8 *session_id, u64 timestamp, const void *payload, u32 len);
int pool_conn_send_plain(struct pool_conn *c, u8 type, const u8 *session_id, u64 timestamp,
			 const void *payload, u32 len);
void pool_conn_send_advisory(struct pool_conn *c, u8 code);

/* Act on no packet any more, for good. */
void pool_conns_stop_receiving(void);
/* Wait for lingering connections, then drop every one that is left. */
void pool_conns_shutdown(void);
void pool_conns_await_freed(void);

/* listener.c: takes it off the pending list; false when someone else did. */
bool pool_pending_claim(struct pool_conn *c);
int pool_listener_start(u16 port);
void pool_listener_stop(void);
u16 pool_listener_port(void);

/* handshake.c: a packet on a pending connection; rx_lock is held. */
int pool_handshake_receive(struct pool_conn *c, struct pool_hdr *packet);

/* What a packet's handler wants next. */
enum { POOL_RX_NEXT, POOL_RX_PAUSE, POOL_RX_STOP };

#endif
