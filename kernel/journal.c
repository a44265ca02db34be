// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/ktime.h>
#include "compat.h"
#include "config.h"
#include "conn.h"
#include "journal.h"
#include "session.h"

#define ERRORS_PER_SECOND	10

struct entry {
	struct pool_wire_entry wire;
	u8 detail[POOL_DETAIL_MAX];
};

static DEFINE_MUTEX(journal_lock);
static struct entry *ring;		/* by index modulo its size */
static u64 first_index, next_index;
static u8 hash_before_first[SHA256_DIGEST_SIZE];
static LIST_HEAD(subscribers);

/* Of each error category: when the latest entries were written, and how many were not since. */
static struct {
	u64 written_ns[ERRORS_PER_SECOND];
	unsigned int next, suppressed;
} categories[POOL_CODE_COUNT];

int pool_journal_init(void)
{
	ring = kvcalloc(POOL_JOURNAL_RING, sizeof(*ring), GFP_KERNEL);
	return ring ? 0 : -ENOMEM;
}

void pool_journal_exit(void)
{
	WARN_ON(!list_empty(&subscribers));
	kvfree(ring);
}

static struct entry *entry_at(u64 index)
{
	return &ring[index % POOL_JOURNAL_RING];
}

static const u8 *hash_before(u64 index)
{
	return index == first_index ? hash_before_first : entry_at(index - 1)->wire.change_hash;
}

void pool_entry_hash(u8 hash[SHA256_DIGEST_SIZE], const u8 previous[SHA256_DIGEST_SIZE],
		     const struct pool_wire_entry *e, const u8 *detail)
{
	pool_sha256 ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, previous, SHA256_DIGEST_SIZE);
	sha256_update(&ctx, (const u8 *)e, offsetof(struct pool_wire_entry, change_hash));
	sha256_update(&ctx, (const u8 *)&e->change_type, sizeof(*e) - offsetof(struct pool_wire_entry, change_type));
	sha256_update(&ctx, detail, be16_to_cpu(e->detail_length));
	sha256_final(&ctx, hash);
}

static void append_locked(enum pool_change type, u32 before, u32 after, const char *detail, u32 len)
{
	struct pool_session *s;
	struct entry *e;

	lockdep_assert_held(&journal_lock);
	if (next_index - first_index == POOL_JOURNAL_RING) {
		memcpy(hash_before_first, entry_at(first_index)->wire.change_hash, SHA256_DIGEST_SIZE);
		first_index++;
		pool_count(journal_full);
	}
	e = entry_at(next_index);
	e->wire.timestamp = cpu_to_be64(ktime_get_real_ns());
	e->wire.config_before = cpu_to_be32(before);
	e->wire.config_after = cpu_to_be32(after);
	e->wire.change_type = cpu_to_be16(type);
	e->wire.detail_length = cpu_to_be16(len);
	memcpy(e->detail, detail, len);
	pool_entry_hash(e->wire.change_hash, hash_before(next_index), &e->wire, e->detail);
	next_index++;
	list_for_each_entry(s, &subscribers, replica.subscriber)
		pool_part_kick(s, POOL_PART_REPLICA);
}

static __printf(4, 0) void append(enum pool_change type, u32 before, u32 after, const char *format, va_list args)
{
	char detail[POOL_DETAIL_MAX + 1];
	u32 len = vscnprintf(detail, sizeof(detail), format, args);

	mutex_lock(&journal_lock);
	append_locked(type, before, after, detail, len);
	mutex_unlock(&journal_lock);
}

void pool_journal(enum pool_change type, const char *detail, ...)
{
	u32 version = pool_config_version();
	va_list args;

	va_start(args, detail);
	append(type, version, version, detail, args);
	va_end(args);
}

void pool_journal_config(u32 before, u32 after, const char *detail, ...)
{
	va_list args;

	va_start(args, detail);
	append(POOL_CHANGE_CONFIG, before, after, detail, args);
	va_end(args);
}

static void journal_error(u8 code, const char *peer, const char *what)
{
	typeof(&categories[0]) category = &categories[code < POOL_CODE_COUNT ? code : 0];
	u32 version = pool_config_version(), len;
	char detail[POOL_DETAIL_MAX + 1];
	u64 now = ktime_get_ns(), *oldest;

	mutex_lock(&journal_lock);
	oldest = &category->written_ns[category->next];
	if (*oldest && now - *oldest < NSEC_PER_SEC) {
		category->suppressed++;
		pool_count(errors_not_journalled);
		mutex_unlock(&journal_lock);
		return;
	}
	*oldest = now;
	category->next = (category->next + 1) % ERRORS_PER_SECOND;
	len = scnprintf(detail, sizeof(detail), "0x%02x %s%s%s", code, peer, *peer ? " " : "", what);
	if (category->suppressed)
		len += scnprintf(detail + len, sizeof(detail) - len, " (and %u more before)",
				 category->suppressed);
	category->suppressed = 0;
	append_locked(POOL_CHANGE_ERROR, version, version, detail, len);
	mutex_unlock(&journal_lock);
}

void pool_journal_error(u8 code, const struct pool_conn *c, const char *what)
{
	char peer[POOL_PEER_STR] = "";

	if (c)
		pool_peer_str(peer, c);
	journal_error(code, peer, what);
}

void pool_journal_error_from(u8 code, const struct in6_addr *ip, u16 port, const char *what)
{
	char peer[POOL_PEER_STR];

	journal_error(code, pool_address_str(peer, ip, port), what);
}

u32 pool_journal_entries(void)
{
	u32 n;

	mutex_lock(&journal_lock);
	n = next_index - first_index;
	mutex_unlock(&journal_lock);
	return n;
}

u64 pool_journal_first(void)
{
	u64 first;

	mutex_lock(&journal_lock);
	first = first_index;
	mutex_unlock(&journal_lock);
	return first;
}

void pool_journal_head(u8 hash[SHA256_DIGEST_SIZE])
{
	mutex_lock(&journal_lock);
	memcpy(hash, hash_before(next_index), SHA256_DIGEST_SIZE);
	mutex_unlock(&journal_lock);
}

void pool_journal_subscribe(struct pool_session *s)
{
	mutex_lock(&journal_lock);
	if (list_empty(&s->replica.subscriber)) {
		pool_session_get(s);
		list_add_tail(&s->replica.subscriber, &subscribers);
	}
	mutex_unlock(&journal_lock);
}

void pool_journal_unsubscribe(struct pool_session *s)
{
	bool was;

	mutex_lock(&journal_lock);
	was = !list_empty(&s->replica.subscriber);
	list_del_init(&s->replica.subscriber);
	mutex_unlock(&journal_lock);
	if (was)
		pool_session_put(s);
}

int pool_journal_pack(u64 *cursor, void *out, u32 room, u32 *len)
{
	struct pool_wire_sync *sync = out;
	u16 count = 0;
	int err = 0;

	mutex_lock(&journal_lock);
	if (*cursor < first_index) {
		*cursor = first_index;
		err = -ESTALE;
	} else if (*cursor == next_index) {
		err = -ENODATA;
	}
	sync->first_index = cpu_to_be64(*cursor);
	memcpy(sync->previous_hash, hash_before(*cursor), SHA256_DIGEST_SIZE);
	*len = sizeof(*sync);
	for (; !err && *cursor < next_index; (*cursor)++) {
		const struct entry *e = entry_at(*cursor);
		u32 size = sizeof(e->wire) + be16_to_cpu(e->wire.detail_length);

		if (*len + size > room)
			break;
		memcpy(out + *len, e, size);
		*len += size;
		count++;
	}
	mutex_unlock(&journal_lock);
	sync->count = cpu_to_be16(count);
	return err;
}

static const char *change_name(u16 type)
{
	static const char *const names[] = {
		[POOL_CHANGE_CONNECT] = "CONNECT", [POOL_CHANGE_DISCONNECT] = "DISCONNECT",
		[POOL_CHANGE_CONFIG] = "CONFIG", [POOL_CHANGE_REKEY] = "REKEY", [POOL_CHANGE_ERROR] = "ERROR",
		[POOL_CHANGE_DATA] = "DATA", [POOL_CHANGE_INTEGRITY] = "INTEGRITY",
	};

	return type < ARRAY_SIZE(names) && names[type] ? names[type] : "UNKNOWN";
}

/* The position is the index + 1; 0 is the header. Entries may be overwritten between two reads. */
static void *journal_at(loff_t *pos)
{
	if (!*pos)
		return SEQ_START_TOKEN;
	if (*pos - 1 < first_index)
		*pos = first_index + 1;
	return *pos - 1 < next_index ? entry_at(*pos - 1) : NULL;
}

static void *journal_start(struct seq_file *m, loff_t *pos)
{
	mutex_lock(&journal_lock);
	return journal_at(pos);
}

static void *journal_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return journal_at(pos);
}

static void journal_stop(struct seq_file *m, void *v)
{
	mutex_unlock(&journal_lock);
}

static int journal_show(struct seq_file *m, void *v)
{
	const struct entry *e = v;
	u64 index;

	if (v == SEQ_START_TOKEN) {
		seq_puts(m, "IDX TIMESTAMP TYPE V_BEF V_AFT HASH DETAIL\n");
		return 0;
	}
	/* Its place in the ring tells the index. */
	index = first_index + (e - ring - first_index % POOL_JOURNAL_RING + POOL_JOURNAL_RING) % POOL_JOURNAL_RING;
	seq_printf(m, "%llu %llu %s %u %u %*phN %.*s\n", index, be64_to_cpu(e->wire.timestamp),
		   change_name(be16_to_cpu(e->wire.change_type)), be32_to_cpu(e->wire.config_before),
		   be32_to_cpu(e->wire.config_after), SHA256_DIGEST_SIZE, e->wire.change_hash,
		   be16_to_cpu(e->wire.detail_length), e->detail);
	return 0;
}

const struct seq_operations pool_journal_seq = {
	.start = journal_start,
	.next = journal_next,
	.stop = journal_stop,
	.show = journal_show,
};
