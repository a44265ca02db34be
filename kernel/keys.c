// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/crc32.h>
#include <linux/string.h>
#include <crypto/algapi.h>
#include <crypto/sha2.h>
#include "keys.h"

void pool_keys_derive(struct pool_keys *keys, const u8 shared[POOL_KEY_LEN])
{
	u8 hmac_key[POOL_KEY_LEN];

	WARN_ON(pool_hkdf(keys->session_key, POOL_KEY_LEN, shared, POOL_KEY_LEN, "pool-session-key"));
	WARN_ON(pool_hkdf(hmac_key, POOL_KEY_LEN, shared, POOL_KEY_LEN, "pool-hmac-key"));
	memcpy(keys->nonce_prefix, hmac_key, sizeof(keys->nonce_prefix));
	pool_hmac_setkey(&keys->hmac, hmac_key, sizeof(hmac_key));
	memzero_explicit(hmac_key, sizeof(hmac_key));
}

void pool_keys_nonce(const struct pool_keys *keys, u64 seq, u8 nonce[POOL_NONCE_LEN])
{
	memcpy(nonce, keys->nonce_prefix, sizeof(keys->nonce_prefix));
	put_unaligned_be64(seq, nonce + sizeof(keys->nonce_prefix));
}

void pool_keys_seal(const struct pool_keys *keys, struct pool_hdr *packet, u32 sealed_from)
{
	u8 nonce[POOL_NONCE_LEN];

	pool_keys_nonce(keys, be64_to_cpu(packet->seq), nonce);
	pool_aead_seal((u8 *)(packet + 1) + sealed_from,
		       pool_hdr_payload_len(packet) - sealed_from - POOL_TAG_LEN, nonce, keys->session_key,
		       NULL, 0);
}

bool pool_keys_open(const struct pool_keys *keys, struct pool_hdr *packet, u32 sealed_from)
{
	u8 nonce[POOL_NONCE_LEN];

	pool_keys_nonce(keys, be64_to_cpu(packet->seq), nonce);
	return pool_aead_open((u8 *)(packet + 1) + sealed_from,
			      pool_hdr_payload_len(packet) - sealed_from - POOL_TAG_LEN, nonce,
			      keys->session_key, NULL, 0);
}

static void packet_hmac(const struct pool_keys *keys, const struct pool_hdr *packet,
			u8 out[POOL_HMAC_LEN])
{
	static const u8 zero[POOL_HMAC_LEN];
	pool_sha256 ctx;

	pool_hmac_init(&ctx, &keys->hmac);
	sha256_update(&ctx, (const u8 *)packet, POOL_HDR_AUTH_LEN);
	sha256_update(&ctx, zero, sizeof(zero));
	sha256_update(&ctx, (const u8 *)(packet + 1), pool_hdr_payload_len(packet));
	pool_hmac_final(&ctx, &keys->hmac, out);
}

void pool_keys_sign(const struct pool_keys *keys, struct pool_hdr *packet)
{
	packet_hmac(keys, packet, packet->hmac);
}

bool pool_keys_verify(const struct pool_keys *keys, const struct pool_hdr *packet)
{
	u8 expected[POOL_HMAC_LEN];
	bool good;

	packet_hmac(keys, packet, expected);
	good = !crypto_memneq(expected, packet->hmac, sizeof(expected));
	memzero_explicit(expected, sizeof(expected));
	return good;
}

bool pool_puzzle_solved(const u8 seed[32], const u8 solution[32], unsigned int difficulty)
{
	u8 digest[SHA256_DIGEST_SIZE];
	pool_sha256 ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, seed, 32);
	sha256_update(&ctx, solution, 32);
	sha256_final(&ctx, digest);
	/* Never above 32: 24 is the most a client takes, 22 the most a server asks. */
	return difficulty == 0 || (difficulty <= 32 && get_unaligned_be32(digest) >> (32 - difficulty) == 0);
}

bool pool_addr_valid(const u8 addr[POOL_ADDR_LEN])
{
	const struct pool_wire_addr *a = (const void *)addr;

	if (!memchr_inv(addr, 0, POOL_ADDR_LEN))
		return true;
	return be32_to_cpu(a->crc32) == ~crc32_le(~0, addr, offsetof(struct pool_wire_addr, crc32));
}

void pool_addr_make(u8 addr[POOL_ADDR_LEN], const u8 static_pubkey[POOL_KEY_LEN])
{
	struct pool_wire_addr *a = (void *)addr;
	u8 digest[SHA256_DIGEST_SIZE];

	memset(addr, 0, POOL_ADDR_LEN);
	a->type_version = cpu_to_be32(POOL_VERSION);
	sha256(static_pubkey, POOL_KEY_LEN, digest);
	memcpy(&a->node_id, digest, sizeof(a->node_id));
	a->crc32 = cpu_to_be32(~crc32_le(~0, addr, offsetof(struct pool_wire_addr, crc32)));
}
