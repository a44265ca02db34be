/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A session's keys and what they do to a packet: KEY-02, SEAL-01..04. */
#ifndef POOL_KEYS_H
#define POOL_KEYS_H

#include "crypto.h"

struct pool_keys {
	u8 session_key[POOL_KEY_LEN];
	u8 nonce_prefix[4];
	struct pool_hmac_key hmac;
};

void pool_keys_derive(struct pool_keys *keys, const u8 shared[POOL_KEY_LEN]);
void pool_keys_nonce(const struct pool_keys *keys, u64 seq, u8 nonce[POOL_NONCE_LEN]);

/* A packet is its header with payload_len bytes behind it, sealed from the given offset of the payload on. */
void pool_keys_seal(const struct pool_keys *keys, struct pool_hdr *packet, u32 sealed_from);
bool __must_check pool_keys_open(const struct pool_keys *keys, struct pool_hdr *packet, u32 sealed_from);
void pool_keys_sign(const struct pool_keys *keys, struct pool_hdr *packet);
bool __must_check pool_keys_verify(const struct pool_keys *keys, const struct pool_hdr *packet);

/* Has SHA-256(seed ‖ solution) that many leading zero bits (HS-03)? */
bool pool_puzzle_solved(const u8 seed[32], const u8 solution[32], unsigned int difficulty);

/* The address's checksum holds, or it is all zero (HS-12). */
bool pool_addr_valid(const u8 addr[POOL_ADDR_LEN]);
void pool_addr_make(u8 addr[POOL_ADDR_LEN], const u8 static_pubkey[POOL_KEY_LEN]);

#endif
