// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/mm.h>
#include <linux/slab.h>
#include "compat.h"
#include "config.h"
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "session.h"

#define BURST		16			/* packets before somebody else has a turn */
#define RETRY_NS	(20ULL * NSEC_PER_MSEC)

static bool send_request(struct pool_session *s)
{
	s->replica.anew = true;
	return !pool_send_control(s, POOL_JOURNAL, POOL_F_JOURNAL_SYNC | POOL_F_REQUIRE_ACK, POOL_MARK_NONE, NULL, 0);
}

int pool_replica_request(struct pool_session *s)
{
	struct pool_replica *r = &s->replica;

	lockdep_assert_held(&s->conn->rx_lock);
	if (!r->hashes)
		r->hashes = kvcalloc(POOL_JOURNAL_RING, sizeof(*r->hashes), GFP_KERNEL);
	if (!r->hashes)
		return -ENOMEM;
	r->asked = true;
	r->broken = false;
	return send_request(s) ? 0 : -ENOBUFS;
}

/* ours */

static void answer(struct pool_session *s, const struct pool_hdr *h)
{
	struct pool_replica *r = &s->replica;

	if (!(pool_hdr_flags(h) & POOL_F_REQUIRE_ACK)) {
		pool_count(malformed);
		return;
	}
	if (!pool_may_administer(s)) {
		pool_count(not_permitted);
		return;
	}
	r->wanted = true;
	r->answering = true;
	pool_journal_subscribe(s);
	pool_part_set(s, POOL_PART_REPLICA, ktime_get_ns());
}

void pool_replica_timer(struct pool_session *s, u64 now)
{
	struct pool_replica *r = &s->replica;
	u8 packet[POOL_MTU_MOST];
	u64 cursor;
	u32 len;
	int i, err;

	for (i = 0; i < BURST && r->wanted; i++) {
		cursor = r->answering ? pool_journal_first() : r->cursor;
		err = pool_journal_pack(&cursor, packet, POOL_DATA_MAX(READ_ONCE(s->mtu)), &len);
		if (err == -ENODATA && !r->answering)
			return;
		if (!pool_send_flows(s) ||
		    pool_send_control(s, POOL_JOURNAL, POOL_F_JOURNAL_SYNC, POOL_MARK_NONE, packet, len)) {
			pool_part_set(s, POOL_PART_REPLICA, now + RETRY_NS);
			return;
		}
		r->answering = false;
		r->cursor = cursor;
		/*
		 * Overwritten before they could be sent. The peer was told, and has to ask again: whoever may
		 * leave entries out can hide any.
		 */
		if (err == -ESTALE)
			r->wanted = false;
	}
	if (r->wanted)
		pool_part_set(s, POOL_PART_REPLICA, now);
	else
		pool_journal_unsubscribe(s);
}

/* the peer's */

static u8 *hash_of(struct pool_replica *r, u64 index)
{
	return r->hashes[index % POOL_JOURNAL_RING];
}

static const u8 *hash_before(struct pool_replica *r, u64 index)
{
	return index == r->first ? r->before_first : hash_of(r, index - 1);
}

static void push(struct pool_replica *r, const u8 hash[SHA256_DIGEST_SIZE])
{
	if (r->next - r->first == POOL_JOURNAL_RING) {
		memcpy(r->before_first, hash_of(r, r->first), SHA256_DIGEST_SIZE);
		r->first++;
	}
	memcpy(hash_of(r, r->next), hash, SHA256_DIGEST_SIZE);
	r->next++;
}

/* The entry at that place of a packet, or NULL where there is no whole one. */
static const struct pool_wire_entry *entry_in(const u8 *plaintext, u32 len, u32 at)
{
	const struct pool_wire_entry *e = (const void *)(plaintext + at);

	if (len - at < sizeof(*e) || be16_to_cpu(e->detail_length) > POOL_DETAIL_MAX ||
	    len - at - sizeof(*e) < be16_to_cpu(e->detail_length))
		return NULL;
	return e;
}

static u32 entry_size(const struct pool_wire_entry *e)
{
	return sizeof(*e) + be16_to_cpu(e->detail_length);
}

static bool well_formed(const u8 *plaintext, u32 len)
{
	const struct pool_wire_sync *sync = (const void *)plaintext;
	const struct pool_wire_entry *e;
	u32 at = sizeof(*sync);
	u16 n;

	if (len < sizeof(*sync) || be64_to_cpu(sync->first_index) > U64_MAX - U16_MAX)
		return false;
	for (n = be16_to_cpu(sync->count); n; n--) {
		e = entry_in(plaintext, len, at);
		if (!e)
			return false;
		at += entry_size(e);
	}
	return at == len;
}

/* What cannot be true of it, or NULL: the chain inside the packet, and against what came before (E-77). */
static const char *contradiction(struct pool_replica *r, const u8 *plaintext, u32 len)
{
	static const u8 zero[SHA256_DIGEST_SIZE];
	const struct pool_wire_sync *sync = (const void *)plaintext;
	u64 index = be64_to_cpu(sync->first_index);
	const u8 *previous = sync->previous_hash;
	u8 hash[SHA256_DIGEST_SIZE];
	u32 at;

	if (!index && memcmp(previous, zero, sizeof(zero)))
		return "journal: the chain is broken";
	if (r->started && index > r->next)
		return "journal: entries are left out";
	if (r->started && index >= r->first && memcmp(previous, hash_before(r, index), SHA256_DIGEST_SIZE))
		return "journal: a hash is another one than before";
	for (at = sizeof(*sync); at < len; index++) {
		const struct pool_wire_entry *e = (const void *)(plaintext + at);

		pool_entry_hash(hash, previous, e, (const u8 *)(e + 1));
		if (memcmp(hash, e->change_hash, sizeof(hash)))
			return "journal: the chain is broken";
		if (r->started && index >= r->first && index < r->next &&
		    memcmp(hash_of(r, index), hash, sizeof(hash)))
			return "journal: an entry is another one than before";
		previous = e->change_hash;
		at += entry_size(e);
	}
	return NULL;
}

/* E-46: the detail of a CONFIG entry begins with the hash of the peer's configuration. */
static void learn_config(struct pool_session *s, const struct pool_wire_entry *e)
{
	const char *detail = (const char *)(e + 1);
	struct pool_config_ref ref = { .version = be32_to_cpu(e->config_after) };

	if (be16_to_cpu(e->detail_length) >= 2 * SHA256_DIGEST_SIZE && !hex2bin(ref.hash, detail, SHA256_DIGEST_SIZE))
		pool_configure_learn(s, &ref);
}

static void take(struct pool_session *s, const u8 *plaintext, u32 len)
{
	const struct pool_wire_sync *sync = (const void *)plaintext;
	u64 index = be64_to_cpu(sync->first_index);
	struct pool_replica *r = &s->replica;
	u32 at;

	for (at = sizeof(*sync); at < len; index++) {
		const struct pool_wire_entry *e = (const void *)(plaintext + at);

		if (index >= r->next) {
			push(r, e->change_hash);
			if (be16_to_cpu(e->change_type) == POOL_CHANGE_CONFIG)
				learn_config(s, e);
		}
		at += entry_size(e);
	}
}

static void receive_entries(struct pool_session *s, const u8 *plaintext, u32 len)
{
	const struct pool_wire_sync *sync = (const void *)plaintext;
	struct pool_replica *r = &s->replica;
	const char *wrong;
	u64 first;

	if (!well_formed(plaintext, len)) {
		pool_count(malformed);
		return;
	}
	if (!r->asked) {
		pool_count(unsolicited);
		return;
	}
	/* One alert for each request, or the peer could fill our journal. */
	if (r->broken) {
		pool_count(journal_broken);
		return;
	}
	first = be64_to_cpu(sync->first_index);
	/* The peer overwrote what it could not send in time, and says so. */
	if (!r->anew && !sync->count && first > r->next) {
		send_request(s);
		return;
	}
	/* The answer to a request starts at the peer's oldest entry, wherever that is by now. */
	if (r->anew && first > r->next)
		r->started = false;
	wrong = contradiction(r, plaintext, len);
	if (wrong) {
		r->broken = true;
		pool_count(journal_broken);
		pool_session_alert(s, wrong);
		return;
	}
	if (!r->started) {
		r->started = true;
		r->anew = false;
		r->first = first;
		r->next = first;
		memcpy(r->before_first, sync->previous_hash, SHA256_DIGEST_SIZE);
	}
	take(s, plaintext, len);
}

void pool_replica_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	if (!(pool_hdr_flags(h) & POOL_F_JOURNAL_SYNC))
		pool_count(malformed);
	else if (len)
		receive_entries(s, plaintext, len);
	else
		answer(s, h);
}

bool pool_replica_knows(const struct pool_session *s, const u8 hash[SHA256_DIGEST_SIZE])
{
	const struct pool_replica *r = &s->replica;
	u64 i;

	if (!r->started)
		return false;
	if (!memcmp(r->before_first, hash, SHA256_DIGEST_SIZE))
		return true;
	for (i = r->first; i < r->next; i++)
		if (!memcmp(r->hashes[i % POOL_JOURNAL_RING], hash, SHA256_DIGEST_SIZE))
			return true;
	return false;
}

const u8 *pool_replica_head(struct pool_session *s)
{
	return hash_before(&s->replica, s->replica.next);
}

void pool_replica_end(struct pool_session *s)
{
	lockdep_assert_held(&s->conn->rx_lock);
	s->replica.wanted = false;
	pool_journal_unsubscribe(s);
}

void pool_replica_free(struct pool_session *s)
{
	kvfree(s->replica.hashes);
}
