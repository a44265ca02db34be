// SPDX-License-Identifier: GPL-2.0-or-later
/* Reassembly: FRAG-01..05. rx_lock guards it. */
#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include "conn.h"
#include "counters.h"
#include "journal.h"
#include "parts.h"
#include "session.h"

/* FRAG-04; over raw IP a lost fragment may take that long (E-89). */
static u64 frag_timeout_ns(const struct pool_session *s)
{
	return (s->rel ? 60ULL : 5ULL) * NSEC_PER_SEC;
}

static void reassembly_free(struct pool_reassembly *r)
{
	kvfree(r->msg);
	kvfree(r->have);
	memset(r, 0, sizeof(*r));
}

static struct pool_reassembly *reassembly_find(struct pool_session *s, u32 msg_id)
{
	int i;

	for (i = 0; i < POOL_REASSEMBLIES; i++)
		if (s->reassembly[i].msg && s->reassembly[i].msg_id == msg_id)
			return &s->reassembly[i];
	return NULL;
}

/* Messages completed or discarded lately: what comes late of them starts nothing anew. */
static const struct pool_finished *finished_find(const struct pool_session *s, u32 msg_id)
{
	int i;

	for (i = 0; i < s->finished_count; i++)
		if (s->finished[i].msg_id == msg_id)
			return &s->finished[i];
	return NULL;
}

static void finished_note(struct pool_session *s, u32 msg_id, bool discarded)
{
	struct pool_finished *f = &s->finished[s->finished_next];

	f->msg_id = msg_id;
	f->discarded = discarded;
	s->finished_next = (s->finished_next + 1) % POOL_FINISHED;
	s->finished_count = min(s->finished_count + 1, POOL_FINISHED);
}

/* A free place, or that of the one touched least recently (FRAG-04). */
static struct pool_reassembly *reassembly_start(struct pool_session *s, u32 msg_id, u16 total, u8 channel)
{
	struct pool_reassembly *r = &s->reassembly[0];
	int i;

	for (i = 0; i < POOL_REASSEMBLIES; i++) {
		if (!s->reassembly[i].msg) {
			r = &s->reassembly[i];
			break;
		}
		if (s->reassembly[i].touched_ns < r->touched_ns)
			r = &s->reassembly[i];
	}
	if (r->msg) {
		pool_count_error(frag_evicted, POOL_CODE_FRAG_TIMEOUT, s->conn);
		reassembly_free(r);
	}
	r->msg = pool_message_alloc(total);
	r->have = kvcalloc(BITS_TO_LONGS(total), sizeof(long), GFP_KERNEL);
	if (!r->msg || !r->have) {
		pool_count(no_memory);
		reassembly_free(r);
		return NULL;
	}
	r->msg->channel = channel;
	r->msg_id = msg_id;
	r->total_len = total;
	r->channel = channel;
	r->touched_ns = ktime_get_ns();
	if (s->due[POOL_PART_FRAGMENTS] == POOL_NEVER)
		pool_part_set(s, POOL_PART_FRAGMENTS, r->touched_ns + frag_timeout_ns(s));
	return r;
}

/* Bytes into their place: how many are new, or -1 where they contradict what is there (FRAG-03). */
static int reassembly_put(struct pool_reassembly *r, u32 offset, const u8 *bytes, u32 len)
{
	u32 i, fresh = 0;

	if (find_next_bit(r->have, offset + len, offset) >= offset + len) {
		memcpy(r->msg->data + offset, bytes, len);
		bitmap_set(r->have, offset, len);
		return len;
	}
	for (i = 0; i < len; i++)
		if (test_bit(offset + i, r->have) && r->msg->data[offset + i] != bytes[i])
			return -1;
	for (i = 0; i < len; i++) {
		if (!__test_and_set_bit(offset + i, r->have)) {
			r->msg->data[offset + i] = bytes[i];
			fresh++;
		}
	}
	return fresh;
}

void pool_fragment_receive(struct pool_session *s, const struct pool_hdr *h, const u8 *plaintext, u32 len)
{
	const struct pool_wire_fragment *f = (const void *)plaintext;
	bool last = pool_hdr_flags(h) & POOL_F_LAST_FRAG;
	const struct pool_finished *finished;
	struct pool_reassembly *r;
	struct pool_message *msg;
	u32 msg_id, offset, total;
	int fresh;

	if (len < sizeof(*f)) {
		pool_count(malformed);
		return;
	}
	len -= sizeof(*f);
	msg_id = be32_to_cpu(f->msg_id);
	offset = be16_to_cpu(f->offset);
	total = be16_to_cpu(f->total_len);
	finished = finished_find(s, msg_id);
	if (finished) {
		if (finished->discarded)
			pool_count(malformed);
		return;
	}
	r = reassembly_find(s, msg_id);
	/* FRAG-02: the whole message goes. */
	if (!len || !total || offset + len > total || last != (offset + len == total) ||
	    (r && (r->total_len != total || r->channel != h->channel)))
		goto discard;
	if (!r) {
		r = reassembly_start(s, msg_id, total, h->channel);
		if (!r)
			return;
	}
	fresh = reassembly_put(r, offset, (const u8 *)(f + 1), len);
	if (fresh < 0)
		goto discard;
	if (!fresh)
		return;
	r->touched_ns = ktime_get_ns();
	r->covered += fresh;
	if (r->covered < total)
		return;
	msg = r->msg;
	r->msg = NULL;
	reassembly_free(r);
	finished_note(s, msg_id, false);
	pool_deliver(s, msg);
	return;

discard:
	pool_count(malformed);
	finished_note(s, msg_id, true);
	if (r)
		reassembly_free(r);
}

void pool_fragments_timer(struct pool_session *s, u64 now)
{
	u64 next = POOL_NEVER;
	int i;

	for (i = 0; i < POOL_REASSEMBLIES; i++) {
		struct pool_reassembly *r = &s->reassembly[i];

		if (!r->msg)
			continue;
		if (now >= r->touched_ns + frag_timeout_ns(s)) {
			pool_count_error(frag_timeout, POOL_CODE_FRAG_TIMEOUT, s->conn);
			reassembly_free(r);
		} else {
			next = min(next, r->touched_ns + frag_timeout_ns(s));
		}
	}
	pool_part_set(s, POOL_PART_FRAGMENTS, next);
}

/* A receiver that did not read for so long could not expect the rest (DATA-04). */
void pool_fragments_postpone(struct pool_session *s, u64 ns)
{
	int i;

	for (i = 0; i < POOL_REASSEMBLIES; i++)
		s->reassembly[i].touched_ns += ns;
}

void pool_fragments_purge(struct pool_session *s)
{
	int i;

	for (i = 0; i < POOL_REASSEMBLIES; i++)
		reassembly_free(&s->reassembly[i]);
}
