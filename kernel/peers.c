// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/inet.h>
#include <linux/ipv6.h>
#include <linux/kernel.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <net/ipv6.h>
#include "compat.h"
#include "conn.h"
#include "counters.h"
#include "peers.h"

#define LIFETIME_NS	(120ULL * NSEC_PER_SEC)

const u8 pool_no_key[POOL_KEY_LEN];

static DEFINE_MUTEX(peers_lock);
static struct peer {
	bool used;
	enum pool_source source;
	struct in6_addr ip;
	u16 port;
	u64 seen_ns;
	u8 pubkey[POOL_KEY_LEN];
} table[POOL_MAX_PEERS];

static bool same_key(const u8 *a, const u8 *b)
{
	return !memcmp(a, b, POOL_KEY_LEN);
}

static bool gone(const struct peer *p, u64 now)
{
	return !p->used || (p->source != POOL_SOURCE_STATIC && now - p->seen_ns >= LIFETIME_NS);
}

static struct peer *find(const struct in6_addr *ip, u16 port, u64 now)
{
	int i;

	for (i = 0; i < POOL_MAX_PEERS; i++)
		if (!gone(&table[i], now) && table[i].port == port && ipv6_addr_equal(&table[i].ip, ip))
			return &table[i];
	return NULL;
}

/*
 * A free place, or that of the least recently seen one that may go. What a peer tells of others displaces only
 * its like: a flood of it leaves alone what this node saw itself (E-81).
 */
static struct peer *place_for(enum pool_source source, u64 now)
{
	enum pool_source most = source == POOL_SOURCE_EXCHANGE ? POOL_SOURCE_EXCHANGE : POOL_SOURCE_CONNECTED;
	struct peer *oldest = NULL;
	int i;

	for (i = 0; i < POOL_MAX_PEERS; i++) {
		struct peer *p = &table[i];

		if (gone(p, now))
			return p;
		if (p->source <= most && (!oldest || p->seen_ns < oldest->seen_ns))
			oldest = p;
	}
	return oldest;
}

bool pool_peer_plausible(const struct in6_addr *ip, u16 port)
{
	u8 first = ip->s6_addr[12];

	return port && (!ipv6_addr_v4mapped(ip) || (first && first < 224));
}

bool pool_peers_see(const struct in6_addr *ip, u16 port, const u8 pubkey[POOL_KEY_LEN], enum pool_source source)
{
	u64 now = ktime_get_ns();
	struct peer *p;

	mutex_lock(&peers_lock);
	p = find(ip, port, now);
	if (!p) {
		p = place_for(source, now);
		if (p)
			*p = (struct peer) { .used = true, .source = source, .ip = *ip, .port = port,
					     .seen_ns = now };
	} else if (source >= p->source) {
		p->source = source;
		p->seen_ns = now;
		if (!same_key(pubkey, pool_no_key))
			memcpy(p->pubkey, pubkey, POOL_KEY_LEN);
	} else if (source != POOL_SOURCE_EXCHANGE) {
		p->seen_ns = now;
	}
	if (p && same_key(p->pubkey, pool_no_key))
		memcpy(p->pubkey, pubkey, POOL_KEY_LEN);
	mutex_unlock(&peers_lock);
	if (!p)
		pool_count(peers_full);
	return p;
}

u32 pool_peers_collect(u32 *cursor, struct pool_wire_told *out, u32 most, const struct in6_addr *but, u16 port)
{
	u64 now = ktime_get_ns();
	u32 n = 0;

	mutex_lock(&peers_lock);
	for (; *cursor < POOL_MAX_PEERS && n < most; (*cursor)++) {
		const struct peer *p = &table[*cursor];

		if (gone(p, now) || p->source == POOL_SOURCE_EXCHANGE || !ipv6_addr_v4mapped(&p->ip) ||
		    (p->port == port && ipv6_addr_equal(&p->ip, but)))
			continue;
		out[n].ip = p->ip.s6_addr32[3];
		out[n].port = cpu_to_be16(p->port);
		memcpy(out[n].pubkey, p->pubkey, POOL_KEY_LEN);
		n++;
	}
	mutex_unlock(&peers_lock);
	return n;
}

void pool_peers_show(struct seq_file *m)
{
	static const char *const sources[] = { "exchange", "announce", "connected", "static" };
	u64 now = ktime_get_ns();
	int i;

	seq_puts(m, "IP PORT SOURCE AGE(s) PUBKEY\n");
	mutex_lock(&peers_lock);
	for (i = 0; i < POOL_MAX_PEERS; i++) {
		const struct peer *p = &table[i];

		if (gone(p, now))
			continue;
		if (ipv6_addr_v4mapped(&p->ip))
			seq_printf(m, "%pI4", &p->ip.s6_addr32[3]);
		else
			seq_printf(m, "%pI6c", &p->ip);
		seq_printf(m, " %u %s %llu %*phN\n", p->port, sources[p->source],
			   div_u64(now - p->seen_ns, NSEC_PER_SEC), POOL_KEY_LEN, p->pubkey);
	}
	mutex_unlock(&peers_lock);
}

/* 1.2.3.4:9253[:KEY] or [fd00::1]:9253[:KEY] */
static int parse_one(const char *text)
{
	bool bracket = *text == '[';
	u8 pubkey[POOL_KEY_LEN] = {};
	struct in6_addr ip;
	const char *end;
	char digits[6];
	size_t len;
	u16 port;

	if (bracket) {
		if (!in6_pton(text + 1, -1, ip.s6_addr, ']', &end) || *end++ != ']')
			return -EINVAL;
	} else {
		__be32 four;

		if (!in4_pton(text, -1, (u8 *)&four, ':', &end))
			return -EINVAL;
		ipv6_addr_set_v4mapped(four, &ip);
	}
	if (*end++ != ':')
		return -EINVAL;
	len = strcspn(end, ":");
	if (len >= sizeof(digits))
		return -EINVAL;
	memcpy(digits, end, len);
	digits[len] = 0;
	if (kstrtou16(digits, 10, &port) || !pool_peer_plausible(&ip, port))
		return -EINVAL;
	end += len;
	if (*end == ':') {
		end++;
		if (strlen(end) != 2 * POOL_KEY_LEN || hex2bin(pubkey, end, POOL_KEY_LEN))
			return -EINVAL;
	}
	return pool_peers_see(&ip, port, pubkey, POOL_SOURCE_STATIC) ? 0 : -ENOSPC;
}

int pool_peers_parse(const char *list)
{
	char *copy, *rest, *one;
	int err = 0;

	if (!*list)
		return 0;
	copy = kstrdup(list, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	for (rest = copy; !err && (one = strsep(&rest, ",")); ) {
		err = parse_one(one);
		if (err)
			pr_err("pool: peers: \"%s\" %s\n", one,
			       err == -ENOSPC ? "is one too many" : "is not ip:port[:pubkey]");
	}
	kfree(copy);
	return err;
}
