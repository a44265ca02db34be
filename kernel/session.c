// SPDX-License-Identifier: GPL-2.0-or-later
#include <net/ipv6.h>
#include <linux/net.h>
#include <linux/slab.h>
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "parts.h"
#include "raw.h"
#include "reliable.h"
#include "session.h"

#define USED_LIFETIME_NS	(31ULL * NSEC_PER_SEC)	/* HS-07 */
#define USED_MAX		4096
#define READABLE_MS		5000			/* CLS-01 */

/* A RESPONSE that made a session; kept until it is too old to be presented again. */
struct used_response {
	struct list_head list;		/* oldest first */
	u64 when_ns;
	u8 id[POOL_ID_LEN];
};

static DEFINE_MUTEX(table_lock);
static struct pool_session *table[POOL_MAX_SESSIONS];
static unsigned int table_count;
static unsigned int table_next;		/* round robin, so that a stale index finds nobody */
static bool table_closed;
static LIST_HEAD(used_responses);
static unsigned int used_count;

struct pool_session *pool_session_alloc(struct pool_conn *conn, enum pool_role role)
{
	struct pool_session *s = kzalloc(sizeof(*s), GFP_KERNEL);

	if (!s)
		return NULL;
	if (conn->raw) {
		s->rel = pool_reliable_alloc();
		if (!s->rel) {
			kfree(s);
			return NULL;
		}
	}
	kref_init(&s->ref);
	s->index = -1;
	s->role = role;
	s->mtu = conn->raw ? POOL_MTU_LEAST : POOL_MTU_MOST;
	pool_conn_get(conn);
	s->conn = conn;
	set_bit(0, s->subscribed);	/* CHAN-01 */
	mutex_init(&s->recv_lock);
	spin_lock_init(&s->q_lock);
	INIT_LIST_HEAD(&s->rxq);
	INIT_LIST_HEAD(&s->held);
	INIT_LIST_HEAD(&s->replica.subscriber);
	pool_parts_init(s);
	init_waitqueue_head(&s->rx_wait);
	INIT_DELAYED_WORK(&s->ack_work, pool_ack_work);
	INIT_DELAYED_WORK(&s->parts_work, pool_parts_work);
	INIT_DELAYED_WORK(&s->reap_work, pool_reap_work);
	return s;
}

static void session_free(struct kref *ref)
{
	struct pool_session *s = container_of(ref, struct pool_session, ref);

	pool_fragments_purge(s);
	pool_rxq_purge(s);
	pool_reliable_free(s->rel);
	pool_replica_free(s);
	pool_conn_put(s->conn);
	kfree_sensitive(s);
}

void pool_session_put(struct pool_session *s)
{
	kref_put(&s->ref, session_free);
}

void pool_session_arm(struct pool_session *s, struct delayed_work *work, unsigned long delay)
{
	pool_session_get(s);
	if (!queue_delayed_work(pool_wq, work, delay))
		pool_session_put(s);
}

void pool_session_disarm(struct pool_session *s, struct delayed_work *work)
{
	if (cancel_delayed_work(work))
		pool_session_put(s);
}

static struct used_response *used_find(const u8 id[POOL_ID_LEN])
{
	struct used_response *u, *next;
	u64 now = ktime_get_ns();

	list_for_each_entry_safe(u, next, &used_responses, list) {
		if (now - u->when_ns <= USED_LIFETIME_NS)
			break;
		list_del(&u->list);
		used_count--;
		kfree(u);
	}
	list_for_each_entry(u, &used_responses, list)
		if (!memcmp(u->id, id, POOL_ID_LEN))
			return u;
	return NULL;
}

bool pool_response_used(const u8 id[POOL_ID_LEN])
{
	bool used;

	mutex_lock(&table_lock);
	used = used_find(id);
	mutex_unlock(&table_lock);
	return used;
}

bool pool_table_full(void)
{
	return READ_ONCE(table_count) >= POOL_MAX_SESSIONS;
}

unsigned int pool_table_count(void)
{
	return READ_ONCE(table_count);
}

int pool_session_insert(struct pool_session *s, const u8 *used_id)
{
	struct used_response *used = NULL;
	int i, err = 0;

	if (used_id) {
		used = kmalloc(sizeof(*used), GFP_KERNEL);
		if (!used)
			return -ENOMEM;
		memcpy(used->id, used_id, POOL_ID_LEN);
		used->when_ns = ktime_get_ns();
	}
	mutex_lock(&table_lock);
	if (table_closed)
		err = -ENODEV;
	else if (used && used_find(used_id))
		err = -EEXIST;
	else if (table_count >= POOL_MAX_SESSIONS || (used && used_count >= USED_MAX))
		err = -ENOSPC;
	if (err)
		goto out;
	for (i = 0; table[(table_next + i) % POOL_MAX_SESSIONS]; i++)
		;
	s->index = (table_next + i) % POOL_MAX_SESSIONS;
	pool_session_get(s);
	table[s->index] = s;
	table_next = (s->index + 1) % POOL_MAX_SESSIONS;
	WRITE_ONCE(table_count, table_count + 1);
	if (used) {
		list_add_tail(&used->list, &used_responses);
		used_count++;
		used = NULL;
	}
out:
	mutex_unlock(&table_lock);
	kfree(used);
	return err;
}

struct pool_session *pool_session_find(u32 index)
{
	struct pool_session *s;

	if (index >= POOL_MAX_SESSIONS)
		return NULL;
	mutex_lock(&table_lock);
	s = table[index];
	if (s)
		pool_session_get(s);
	mutex_unlock(&table_lock);
	return s;
}

/* HS-14 */
bool pool_session_id_taken(const u8 id[POOL_ID_LEN], const struct in6_addr *peer)
{
	bool taken = false;
	int i;

	mutex_lock(&table_lock);
	for (i = 0; i < POOL_MAX_SESSIONS && !taken; i++)
		taken = table[i] && READ_ONCE(table[i]->state) >= POOL_CHALLENGED &&
			!memcmp(table[i]->id, id, POOL_ID_LEN) && ipv6_addr_equal(&table[i]->conn->peer, peer);
	mutex_unlock(&table_lock);
	return taken;
}

static bool listed(struct pool_session *s)
{
	bool mine;

	mutex_lock(&table_lock);
	mine = s->index >= 0 && table[s->index] == s;
	mutex_unlock(&table_lock);
	return mine;
}

void pool_session_remove(struct pool_session *s)
{
	bool mine;

	mutex_lock(&table_lock);
	mine = s->index >= 0 && table[s->index] == s;
	if (mine) {
		table[s->index] = NULL;
		WRITE_ONCE(table_count, table_count - 1);
	}
	mutex_unlock(&table_lock);
	if (mine) {
		pool_session_disarm(s, &s->reap_work);
		pool_session_put(s);
	}
}

void pool_session_establish(struct pool_session *s)
{
	char peer[POOL_PEER_STR];

	s->started_ns = ktime_get_ns();
	WRITE_ONCE(s->rx_ack, s->window.highest);
	if (s->rel)
		pool_reliable_start(s);
	mutex_lock(&s->conn->tx_lock);
	WRITE_ONCE(s->state, POOL_ESTABLISHED);
	mutex_unlock(&s->conn->tx_lock);
	pool_count(handshakes_completed);
	pool_telemetry_start(s);
	pool_rekey_start(s);
	pool_mtu_start(s);
	pool_exchange_start(s);
	pool_vigil_start(s);
	pool_journal(POOL_CHANGE_CONNECT, "%s as %s", pool_peer_str(peer, s->conn),
		     s->role == POOL_CLIENT ? "client" : "server");
}

void pool_session_end_locked(struct pool_session *s, int close, const char *why)
{
	struct pool_conn *c = s->conn;
	char peer[POOL_PEER_STR];

	lockdep_assert_held(&c->rx_lock);
	if (s->rel && close != POOL_CLOSE_NONE && pool_reliable_part(s, close, why))
		return;
	mutex_lock(&c->tx_lock);
	if (s->ended) {
		mutex_unlock(&c->tx_lock);
		return;
	}
	if (close != POOL_CLOSE_NONE)
		pool_send_close_locked(s, close);
	WRITE_ONCE(s->ended, true);
	WRITE_ONCE(s->state, POOL_CLOSING);
	memzero_explicit(&s->keys, sizeof(s->keys));
	pool_rekey_erase(s);
	pool_drop_held_locked(s);
	if (s->rel)
		pool_reliable_erase(s);
	mutex_unlock(&c->tx_lock);

	pool_count(sessions_ended);
	net_info_ratelimited("pool: session %d with %pI6c ended: %s\n", s->index, &c->peer, why);
	pool_session_disarm(s, &s->ack_work);
	pool_session_disarm(s, &s->parts_work);
	if (close > POOL_CLOSE_EMPTY)
		pool_journal_error(close, c, why);
	pool_journal(POOL_CHANGE_DISCONNECT, "%s %s", pool_peer_str(peer, c), why);
	pool_configure_end(s);
	pool_replica_end(s);
	pool_fragments_purge(s);
	wake_up_all(&s->rx_wait);
	wake_up_all(&c->tx_wait);

	if (close != POOL_CLOSE_NONE && !c->raw)
		pool_conn_linger(c);
	else
		pool_conn_kill(c);
	pool_session_arm(s, &s->reap_work, msecs_to_jiffies(READABLE_MS));
	pool_session_release_slot(s);
	/* Whoever removed it since `ended` was set may have found no timer to cancel. */
	if (!listed(s))
		pool_session_disarm(s, &s->reap_work);
	if (c->session) {
		c->session = NULL;
		pool_session_put(s);
	}
}

void pool_session_end(struct pool_session *s, int close, const char *why)
{
	mutex_lock(&s->conn->rx_lock);
	pool_session_end_locked(s, close, why);
	mutex_unlock(&s->conn->rx_lock);
}

void pool_session_alert(struct pool_session *s, const char *reason)
{
	char peer[POOL_PEER_STR];

	lockdep_assert_held(&s->conn->rx_lock);
	WRITE_ONCE(s->untrusted, true);
	pool_journal(POOL_CHANGE_INTEGRITY, "%s %s", pool_peer_str(peer, s->conn), reason);
	net_info_ratelimited("pool: session %d with %pI6c is untrusted: %s\n", s->index, &s->conn->peer, reason);
}

void pool_sessions_distrust(const char *reason)
{
	struct pool_session *s;
	u32 i;

	for (i = 0; i < POOL_MAX_SESSIONS; i++) {
		s = pool_session_find(i);
		if (!s)
			continue;
		mutex_lock(&s->conn->rx_lock);
		if (!s->ended && s->state >= POOL_ESTABLISHED)
			pool_session_alert(s, reason);
		mutex_unlock(&s->conn->rx_lock);
		pool_session_put(s);
	}
}

void pool_sessions_reconfigure(void)
{
	int i;

	mutex_lock(&table_lock);
	for (i = 0; i < POOL_MAX_SESSIONS; i++) {
		if (!table[i])
			continue;
		pool_part_kick(table[i], POOL_PART_HEARTBEAT);
		pool_part_kick(table[i], POOL_PART_REKEY);
		pool_part_kick(table[i], POOL_PART_MTU);
	}
	mutex_unlock(&table_lock);
}

void pool_session_release_slot(struct pool_session *s)
{
	bool empty;

	if (!READ_ONCE(s->ended))
		return;
	spin_lock(&s->q_lock);
	empty = list_empty(&s->rxq);
	spin_unlock(&s->q_lock);
	if (empty)
		pool_session_remove(s);
}

void pool_session_info(struct pool_session *s, struct pool_session_info *info)
{
	memset(info, 0, sizeof(*info));
	info->index = s->index;
	memcpy(info->peer_addr, &s->conn->peer, sizeof(info->peer_addr));
	info->peer_port = s->conn->peer_port;
	info->addr_family = ipv6_addr_v4mapped(&s->conn->peer) ? AF_INET : AF_INET6;
	info->state = READ_ONCE(s->state);
	if (info->state != POOL_INIT_SENT)
		memcpy(info->session_id, s->id, sizeof(info->session_id));
	info->bytes_sent = READ_ONCE(s->bytes_sent);
	info->bytes_recv = READ_ONCE(s->bytes_recv);
	info->packets_sent = READ_ONCE(s->packets_sent);
	info->packets_recv = READ_ONCE(s->packets_recv);
	info->rekey_count = READ_ONCE(s->rekey.count);
	pool_session_telemetry(s, &info->telemetry);
}

void pool_sessions_shutdown(void)
{
	struct pool_session *s;
	u32 i;

	mutex_lock(&table_lock);
	table_closed = true;
	mutex_unlock(&table_lock);
	pool_reliable_hurry();
	for (i = 0; i < POOL_MAX_SESSIONS; i++) {
		s = pool_session_find(i);
		if (!s)
			continue;
		pool_session_end(s, POOL_CLOSE_EMPTY, "module unload");
		pool_session_remove(s);
		pool_session_put(s);
	}
}

void pool_table_wipe(void)
{
	struct used_response *u, *next;

	list_for_each_entry_safe(u, next, &used_responses, list)
		kfree(u);
	INIT_LIST_HEAD(&used_responses);
}
