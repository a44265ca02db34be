/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What makes raw IP reliable and ordered: TRN-04..08. What was sent stays in flight until
 * it is acknowledged and is sent again as it was; what came in is committed and
 * acknowledged at once, and acted on in the order of its seq.
 */
#ifndef POOL_RELIABLE_H
#define POOL_RELIABLE_H

#include <linux/list.h>
#include "wire.h"

struct pool_session;
struct pool_txbuf;

#define POOL_IN_FLIGHT		32
#define POOL_AHEAD		64
/* Flags of the ACKs whose seq counts: answers about a configuration, and voids (TRN-04, TRN-07). */
#define POOL_NUMBERED_ACK	(POOL_F_CONFIG_LOCKED | POOL_F_ROLLBACK_READY | POOL_F_PRIORITY)

/* A packet that waits for others before it, opened. */
struct pool_early {
	u32 len, used;		/* bytes there is room for, and bytes there are */
	bool old_keys;
	struct pool_hdr h;
	u8 plaintext[];
};

enum pool_parting { POOL_STAYS, POOL_DRAINS, POOL_SAID_CLOSE };

struct pool_reliable {
	/* conn->tx_lock */
	struct list_head flight;	/* by seq */
	u32 flying;
	u64 look_ns;			/* when the timer will look at them */
	struct pool_hdr welcome;	/* the handshake ACK */
	struct pool_hdr answer;		/* the last ACK about a configuration, and what it was about */
	u64 answered;
	bool has_answer;

	/* conn->rx_lock */
	u64 first, next;		/* the peer's initial seq; the next one expected */
	struct pool_early *early[POOL_AHEAD];	/* by seq modulo its size */
	struct pool_early *spare;	/* for the packet being received */
	u32 early_data;
	size_t early_bytes;
	enum pool_parting parting;
	int code;
	u64 part_ns;
	char why[64];
};

struct pool_reliable *pool_reliable_alloc(void);
void pool_reliable_free(struct pool_reliable *rel);
/* The session's windows are set: begin. rx_lock is held. */
void pool_reliable_start(struct pool_session *s);
/* Erase what is in flight or waits; rx_lock and tx_lock are held. */
void pool_reliable_erase(struct pool_session *s);
void pool_reliable_drop_early(struct pool_session *s);

/* -- sending, tx_lock is held. */

/* An ACK that repeats the last seq, is not resent and not acknowledged? */
bool pool_reliable_exempt(const struct pool_session *s, const struct pool_txbuf *b);
bool pool_reliable_full(const struct pool_session *s);
/* Send a packet, sealed, for the first time; takes it. */
void pool_reliable_launch(struct pool_session *s, struct pool_txbuf *b, bool exempt);
/* The last answer about a configuration in place of an ACK that would read as a refusal (E-44); false: none fits. */
bool pool_reliable_repeat_answer(struct pool_session *s);
/* The handshake ACK as it was (SEQ-03). */
void pool_reliable_welcome_again(struct pool_session *s);
/* New keys: packets made with the old ones are not sent again on their own. */
void pool_reliable_rekeyed(struct pool_session *s);

/* -- the timer and what came in, rx_lock is held. */

void pool_reliable_timer(struct pool_session *s, u64 now);
/* The peer has everything up to there; valid. */
void pool_reliable_acked(struct pool_session *s, u64 ack);
/* Does the packet carry a seq of its own? */
bool pool_reliable_numbered(const struct pool_hdr *h);
/* The handshake ACK once more? Then it has been dealt with. */
bool pool_reliable_welcomed_again(struct pool_session *s, const struct pool_hdr *h);
/* May the packet be opened and committed? False has been counted, and answered. */
bool pool_reliable_admits(struct pool_session *s, const struct pool_hdr *h);
/* A packet that was opened and, if it is numbered, committed. */
void pool_reliable_arrived(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len,
			   bool old_keys, bool numbered);

/*
 * Part from the peer: first what was sent is to arrive, 5 s at most, unless it ends for a fault; then a CLOSE, three
 * times at most. False: there is nobody to part from. rx_lock is held.
 */
bool pool_reliable_part(struct pool_session *s, int close, const char *why);
/* Sessions that part now have less time: the module is unloading. */
void pool_reliable_hurry(void);

#endif
