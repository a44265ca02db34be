/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node's journal: a ring of entries, each of which hashes the one before it (section
 * 17). Its lock is the innermost mutex: anybody may write an entry who may sleep.
 */
#ifndef POOL_JOURNAL_H
#define POOL_JOURNAL_H

#include <linux/list.h>
#include <linux/types.h>
#include <crypto/sha2.h>
#include "counters.h"
#include "wire.h"

#define POOL_JOURNAL_RING	1024	/* JRN-02 */

struct in6_addr;
struct pool_conn;
struct pool_session;
struct seq_operations;

enum pool_change {
	POOL_CHANGE_CONNECT = 1,
	POOL_CHANGE_DISCONNECT,
	POOL_CHANGE_CONFIG,
	POOL_CHANGE_REKEY,
	POOL_CHANGE_ERROR,
	POOL_CHANGE_DATA,	/* never written (E-55) */
	POOL_CHANGE_INTEGRITY,
};

int pool_journal_init(void);
void pool_journal_exit(void);

/* Who and why; the detail is cut to 256 bytes. */
__printf(2, 3) void pool_journal(enum pool_change type, const char *detail, ...);
__printf(3, 4) void pool_journal_config(u32 before, u32 after, const char *detail, ...);
/* An ERROR of a category of section 15, at most ten a second (ERR-01); c may be NULL. */
void pool_journal_error(u8 code, const struct pool_conn *c, const char *what);
void pool_journal_error_from(u8 code, const struct in6_addr *ip, u16 port, const char *what);

/* Count a discard that belongs to an error category, and journal it. */
#define pool_count_error(name, code, c) \
	do { \
		pool_count(name); \
		pool_journal_error(code, c, #name); \
	} while (0)

u32 pool_journal_entries(void);
void pool_journal_head(u8 hash[SHA256_DIGEST_SIZE]);
u64 pool_journal_first(void);

/* Tell of every new entry from now on, by kicking POOL_PART_REPLICA; holds a reference meanwhile. */
void pool_journal_subscribe(struct pool_session *s);
void pool_journal_unsubscribe(struct pool_session *s);

/*
 * A JOURNAL packet's plaintext with the entries from *cursor on, as many as room has space for; *cursor is
 * moved behind them. -ENODATA: no entry is left; -ESTALE: they were overwritten, and out says from where on
 * there are some.
 */
int pool_journal_pack(u64 *cursor, void *out, u32 room, u32 *len);

/* The change_hash that must follow: JRN-01. */
void pool_entry_hash(u8 hash[SHA256_DIGEST_SIZE], const u8 previous[SHA256_DIGEST_SIZE],
		     const struct pool_wire_entry *e, const u8 *detail);

extern const struct seq_operations pool_journal_seq;

#endif
