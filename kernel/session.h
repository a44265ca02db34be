/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sessions and the table of 64 (HS-10).
 *
 * Lifetimes. A session is refcounted: its slot in the table holds one reference, its
 * connection one (until the session ends), each armed work item one, each ioctl at
 * work on it one. It holds a reference to its connection, for good; so a connection
 * outlives its session, and `conn` never changes.
 *
 * A connection (conn.h) is refcounted: the list of all connections holds one, each
 * queued work item one, its session one. pool_conn_kill() takes it off the list,
 * detaches the socket's callbacks and shuts the socket down; the last reference
 * releases the socket. Work that is already queued finds the connection dead.
 *
 * A session ends once, in pool_session_end(): keys zeroed, timers cancelled, waiters
 * woken. Messages already received stay readable; then, or after 5 s, the slot is
 * given back (CLS-01). Over raw IP it parts from the peer first (reliable.h).
 *
 * What a session does by the clock are parts (parts.h): one work item, a due time each.
 *
 * Locks, outermost first:
 *   pool_listener_lock  starting and stopping the listener
 *   conn->rx_lock       everything driven by received packets, and the parts: receive
 *                       buffer, phase, replay window, reassembly, rekey; reading the
 *                       keys to open
 *   session->recv_lock  one reader at a time hands out messages
 *   config mutex        changing the node's configuration (config.h)
 *   conn->tx_lock       sequence numbers, packets held back, the queue of packets to
 *                       send; reading the keys to seal. Sending never waits with it held.
 *   table lock          slots, used RESPONSEs
 *   journal, peers      entries of the journal (journal.h), known peers (peers.h)
 *   session->q_lock     (spinlock) queue of received messages
 *   raw.c's send_lock   one packet at a time to the raw socket
 *   raw_lock            (spinlock) raw IP: connections, what they are found by, their queues
 *   conn list lock      (spinlock) all connections, pending handshakes
 *   sk_callback_lock    a socket's callbacks and sk_user_data
 * The keys, `state` and `ended` change only with rx_lock and tx_lock both held.
 */
#ifndef POOL_SESSION_H
#define POOL_SESSION_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/in6.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include "configure.h"
#include "exchange.h"
#include "integrity.h"
#include "keys.h"
#include "mtu.h"
#include "parts.h"
#include "rekey.h"
#include "replica.h"
#include "states.h"
#include "uapi/pool.h"

#define POOL_MAX_SESSIONS	64
#define POOL_CHANNELS		256
#define POOL_RXQ_MESSAGES	4096		/* DATA-04 */
#define POOL_RXQ_BYTES		(8 << 20)	/* of one session, our own bound */
#define POOL_REASSEMBLIES	16		/* FRAG-04 */
#define POOL_FINISHED		64		/* fragmented messages remembered */

struct pool_conn;
struct pool_reliable;

enum pool_role { POOL_CLIENT, POOL_SERVER };

/* SEQ-02: bit n of seen is highest - n. */
struct pool_window {
	u64 highest;
	u64 seen;
};

struct pool_message {
	struct list_head list;
	u32 len;
	u8 channel;
	u8 data[];
};

struct pool_reassembly {
	u32 msg_id;
	u16 total_len;
	u8 channel;
	u32 covered;
	u64 touched_ns;
	struct pool_message *msg;	/* NULL: free */
	unsigned long *have;		/* one bit a byte */
};

struct pool_finished {
	u32 msg_id;
	bool discarded;
};

/* Packets whose acknowledgement tells something; of each kind the last one sent. */
enum pool_mark {
	POOL_MARK_NONE,
	POOL_MARK_HEARTBEAT,
	POOL_MARK_CHALLENGE,
	POOL_MARKS
};

struct pool_marked {
	u64 seq, sent_ns;
};

struct pool_session {
	struct kref ref;
	int index;
	enum pool_role role;
	enum pool_state state;
	bool ended;
	bool parting;			/* raw IP: ending, but not ended yet */
	struct pool_conn *conn;
	struct pool_reliable *rel;	/* raw IP */
	u8 id[POOL_ID_LEN];
	struct pool_keys keys;
	u8 shared[POOL_KEY_LEN];	/* what they come from, and the next ones will */
	u64 started_ns;
	u16 mtu;

	/* conn->tx_lock */
	u64 tx_first, tx_next;
	u32 tx_msg_id;
	u64 bytes_sent, packets_sent;
	struct list_head held;		/* packets that wait for new keys, not sealed yet */
	u32 held_count;
	size_t held_bytes;
	struct pool_marked mark[POOL_MARKS];
	unsigned long marked;		/* bits: not acknowledged yet */

	/* conn->rx_lock */
	struct pool_window window;
	u64 rx_ack;			/* what packets sent acknowledge */
	u64 last_rx_ns;
	u64 bytes_recv, packets_recv, packets_lost;
	u64 srtt_ns, jitter_ns;
	struct pool_telemetry peer;	/* what the peer reports of itself */
	u64 rate_bytes, rate_ns;
	u32 throughput_bps;
	struct pool_reassembly reassembly[POOL_REASSEMBLIES];
	struct pool_finished finished[POOL_FINISHED];	/* a ring */
	int finished_next, finished_count;
	struct pool_rekey rekey;
	struct pool_configuring configuring;
	struct pool_replica replica;
	struct pool_mtu_search mtu_search;
	struct pool_exchange exchange;
	struct pool_vigil vigil;
	bool untrusted;			/* for good */
	u64 due[POOL_PARTS];
	u64 parts_armed;		/* when parts_work is due */

	unsigned long parts_kicked;	/* bits: due whatever the time */
	atomic_t acks_owed;
	DECLARE_BITMAP(subscribed, POOL_CHANNELS);

	struct mutex recv_lock;
	spinlock_t q_lock;
	struct list_head rxq;
	u32 rxq_len;
	size_t rxq_bytes;
	bool rx_paused;
	u64 paused_ns;
	wait_queue_head_t rx_wait;

	struct delayed_work ack_work;
	struct delayed_work parts_work;
	struct delayed_work reap_work;
};

struct pool_session *pool_session_alloc(struct pool_conn *conn, enum pool_role role);
void pool_session_put(struct pool_session *s);
static inline void pool_session_get(struct pool_session *s)
{
	kref_get(&s->ref);
}

/*
 * Give the session a slot. With used_id, a RESPONSE's session id is marked used in the
 * same step (HS-07). -ENOSPC: no slot; -EEXIST: used before; -ENODEV: unloading.
 */
int pool_session_insert(struct pool_session *s, const u8 *used_id);
bool pool_response_used(const u8 id[POOL_ID_LEN]);
bool pool_session_id_taken(const u8 id[POOL_ID_LEN], const struct in6_addr *peer);
bool pool_table_full(void);
unsigned int pool_table_count(void);

/* The session at that index with a reference, or NULL. */
struct pool_session *pool_session_find(u32 index);

/* Take the session out of its slot. */
void pool_session_remove(struct pool_session *s);

/* May the user still send and receive over it? */
static inline bool pool_session_active(const struct pool_session *s)
{
	enum pool_state state = READ_ONCE(s->state);

	return (state == POOL_ESTABLISHED || state == POOL_REKEYING) && !READ_ONCE(s->parting);
}

/* Keys are in place and the peer's sequence number is known: start. */
void pool_session_establish(struct pool_session *s);

#define POOL_CLOSE_NONE		(-1)	/* send no CLOSE */
#define POOL_CLOSE_EMPTY	0	/* send one without a code */
/* End the session; close is a code or one of the above. The locked form: rx_lock is held. */
void pool_session_end(struct pool_session *s, int close, const char *why);
void pool_session_end_locked(struct pool_session *s, int close, const char *why);

/* What the peer says cannot be true, and only an intruder explains it (E-53). rx_lock is held. */
void pool_session_alert(struct pool_session *s, const char *reason);

/* Give the slot back if the session has ended and everything is read. */
void pool_session_release_slot(struct pool_session *s);

void pool_session_info(struct pool_session *s, struct pool_session_info *info);

/* Our own integrity is in doubt: no session is worth trust any more. */
void pool_sessions_distrust(const char *reason);

/* Other parameters are in force. */
void pool_sessions_reconfigure(void);

/* Refuse new sessions for good and end all with a CLOSE. */
void pool_sessions_shutdown(void);
void pool_table_wipe(void);

/* A queued work item holds a reference. */
void pool_session_arm(struct pool_session *s, struct delayed_work *work, unsigned long delay);
void pool_session_disarm(struct pool_session *s, struct delayed_work *work);

/* send.c; _locked: tx_lock is held. -ENOBUFS: too much waits to be sent. */
int pool_send_message(struct pool_session *s, u8 channel, const void __user *data, u32 len, bool nonblock);
int pool_send_control(struct pool_session *s, u8 type, u16 flags, enum pool_mark mark,
		      const void *plaintext, u32 len);
int pool_send_control_locked(struct pool_session *s, u8 type, u16 flags, enum pool_mark mark,
			     const void *plaintext, u32 len);
/* The ACK that is owed, if one is. */
void pool_send_ack(struct pool_session *s);
int pool_send_exact_ack(struct pool_session *s, u64 ack, u16 flags);
int pool_send_flagged_ack(struct pool_session *s, u16 flags);
/* Would a packet leave now, neither held nor behind too many others? */
bool pool_send_flows(const struct pool_session *s);
void pool_send_close_locked(struct pool_session *s, int close);
void pool_send_held_locked(struct pool_session *s);
void pool_drop_held_locked(struct pool_session *s);
/* Does that acknowledge the marked packet? Tells once, and what packet it was. */
bool pool_mark_acked(struct pool_session *s, enum pool_mark mark, u64 ack, struct pool_marked *m);

/* receive.c */
struct pool_hdr;
bool pool_header_malformed(const struct pool_hdr *h);
/* SEQ-02: not seen yet, and not behind the window? */
bool pool_window_fresh(const struct pool_window *w, u64 seq);
/* What the state table lets pass; old_keys: it came under those that a rekey replaced. */
void pool_session_act(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len, bool old_keys);
int pool_session_receive(struct pool_session *s, struct pool_hdr *packet);

/* rxq.c */
bool pool_rxq_full(struct pool_session *s);
/* Raw IP: room for one more message beside those that wait for their turn? */
bool pool_rxq_has_room(struct pool_session *s, u32 waiting);
void pool_data_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);
void pool_deliver(struct pool_session *s, struct pool_message *msg);
struct pool_message *pool_message_alloc(u32 len);
int pool_recv_message(struct pool_session *s, u8 *channel, void __user *data, u32 *len, bool nonblock);
void pool_rxq_purge(struct pool_session *s);

/* fragments.c */
void pool_fragment_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len);
void pool_fragments_purge(struct pool_session *s);
void pool_fragments_timer(struct pool_session *s, u64 now);
void pool_fragments_postpone(struct pool_session *s, u64 ns);

/* telemetry.c */
void pool_telemetry_start(struct pool_session *s);
void pool_session_telemetry(struct pool_session *s, struct pool_telemetry *t);
void pool_heartbeat_receive(struct pool_session *s, const u8 *plaintext, u32 len);
void pool_heartbeat_timer(struct pool_session *s, u64 now);
void pool_silence_timer(struct pool_session *s, u64 now);
void pool_rtt_acked(struct pool_session *s, u64 ack);

/* timers.c */
void pool_ack_work(struct work_struct *work);
void pool_reap_work(struct work_struct *work);
void pool_owe_ack(struct pool_session *s, bool at_once);

#endif
