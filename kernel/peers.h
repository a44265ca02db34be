/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The peers a node knows of (DISC-02), all of them candidates only (DISC-04). A lock of its own, innermost. */
#ifndef POOL_PEERS_H
#define POOL_PEERS_H

#include <linux/in6.h>
#include <linux/types.h>
#include "wire.h"

struct seq_file;

#define POOL_MAX_PEERS	256

/* How a peer came to be known; a higher one is closer to the fact. */
enum pool_source { POOL_SOURCE_EXCHANGE, POOL_SOURCE_ANNOUNCE, POOL_SOURCE_CONNECTED, POOL_SOURCE_STATIC };

extern const u8 pool_no_key[POOL_KEY_LEN];	/* in place of a public key that is not known */

/* The module parameter `peers`: ip:port[:pubkey], an IPv6 address in brackets, separated by commas. */
int pool_peers_parse(const char *list);
/* Can somebody be there? Not port 0, nor an IPv4 address of nobody or of many. */
bool pool_peer_plausible(const struct in6_addr *ip, u16 port);
/* Enter or renew a peer; false has been counted: no room. */
bool pool_peers_see(const struct in6_addr *ip, u16 port, const u8 pubkey[POOL_KEY_LEN], enum pool_source source);
/*
 * What this node saw itself, with an IPv4 address, but the one at that address and port: up to `most` entries
 * from place *cursor of the table on. Returns how many; *cursor is POOL_MAX_PEERS at the end.
 */
u32 pool_peers_collect(u32 *cursor, struct pool_wire_told *out, u32 most, const struct in6_addr *but, u16 port);
void pool_peers_show(struct seq_file *m);

#endif
