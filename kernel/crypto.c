// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/kernel.h>
#include <linux/random.h>
#include <linux/string.h>
#include <crypto/algapi.h>
#include <crypto/chacha.h>
#include <crypto/curve25519.h>
#include <crypto/poly1305.h>
#include <crypto/sha2.h>
#include "crypto.h"
#include "faults.h"

void pool_hmac_setkey(struct pool_hmac_key *key, const void *raw, size_t len)
{
	u8 block[SHA256_BLOCK_SIZE] = {};
	int i;

	if (len > sizeof(block))
		sha256(raw, len, block);
	else
		memcpy(block, raw, len);
	for (i = 0; i < sizeof(block); i++)
		block[i] ^= 0x36;
	sha256_init(&key->inner);
	sha256_update(&key->inner, block, sizeof(block));
	for (i = 0; i < sizeof(block); i++)
		block[i] ^= 0x36 ^ 0x5c;
	sha256_init(&key->outer);
	sha256_update(&key->outer, block, sizeof(block));
	memzero_explicit(block, sizeof(block));
}

void pool_hmac_init(pool_sha256 *ctx, const struct pool_hmac_key *key)
{
	*ctx = key->inner;
}

void pool_hmac_final(pool_sha256 *ctx, const struct pool_hmac_key *key, u8 out[POOL_HMAC_LEN])
{
	sha256_final(ctx, out);
	*ctx = key->outer;
	sha256_update(ctx, out, SHA256_DIGEST_SIZE);
	sha256_final(ctx, out);
	memzero_explicit(ctx, sizeof(*ctx));
}

void pool_hmac(u8 out[POOL_HMAC_LEN], const void *key, size_t key_len, const void *data, size_t len)
{
	struct pool_hmac_key k;
	pool_sha256 ctx;

	pool_hmac_setkey(&k, key, key_len);
	pool_hmac_init(&ctx, &k);
	sha256_update(&ctx, data, len);
	pool_hmac_final(&ctx, &k, out);
	memzero_explicit(&k, sizeof(k));
}

int pool_hkdf_salted(u8 *out, size_t out_len, const void *ikm, size_t ikm_len, const void *salt,
		     size_t salt_len, const void *info, size_t info_len)
{
	struct pool_hmac_key prk;
	u8 block[SHA256_DIGEST_SIZE];
	pool_sha256 ctx;
	size_t done = 0;
	u8 counter;

	if (!out_len || out_len > 255 * SHA256_DIGEST_SIZE)
		return -EINVAL;
	pool_hmac(block, salt, salt_len, ikm, ikm_len);
	pool_hmac_setkey(&prk, block, sizeof(block));
	for (counter = 1; done < out_len; counter++) {
		size_t part = min_t(size_t, out_len - done, sizeof(block));

		pool_hmac_init(&ctx, &prk);
		if (counter > 1)
			sha256_update(&ctx, block, sizeof(block));
		sha256_update(&ctx, info, info_len);
		sha256_update(&ctx, &counter, 1);
		pool_hmac_final(&ctx, &prk, block);
		memcpy(out + done, block, part);
		done += part;
	}
	memzero_explicit(&prk, sizeof(prk));
	memzero_explicit(block, sizeof(block));
	return 0;
}

int pool_hkdf(u8 *out, size_t out_len, const void *ikm, size_t ikm_len, const char *info)
{
	static const u8 salt[32];

	return pool_hkdf_salted(out, out_len, ikm, ikm_len, salt, sizeof(salt), info, strlen(info));
}

/*
 * lib/crypto's own chacha20poly1305_encrypt() takes a 64-bit nonce; ours has 96
 * bits (SEAL-02), so RFC 8439's construction is put together here from the library's
 * ChaCha20 and Poly1305.
 */
static void aead_stream(u8 *text, size_t len, u32 counter, const u8 nonce[POOL_NONCE_LEN],
			const u8 key[POOL_KEY_LEN])
{
	u32 words[POOL_KEY_LEN / sizeof(u32)];
	u8 iv[CHACHA_IV_SIZE];
	pool_chacha state;
	int i;

	for (i = 0; i < ARRAY_SIZE(words); i++)
		words[i] = get_unaligned_le32(key + 4 * i);
	put_unaligned_le32(counter, iv);
	memcpy(iv + sizeof(counter), nonce, POOL_NONCE_LEN);
	chacha_init(state, words, iv);
	chacha20_crypt(state, text, text, len);
	memzero_explicit(state, sizeof(state));
	memzero_explicit(words, sizeof(words));
}

static void aead_tag(u8 tag[POOL_TAG_LEN], const u8 *text, size_t len, const u8 nonce[POOL_NONCE_LEN],
		     const u8 key[POOL_KEY_LEN], const void *aad, size_t aad_len)
{
	static const u8 zero[POLY1305_BLOCK_SIZE];
	u8 one_time_key[POLY1305_KEY_SIZE] = {};
	struct poly1305_desc_ctx ctx;
	__le64 lengths[2] = { cpu_to_le64(aad_len), cpu_to_le64(len) };

	aead_stream(one_time_key, sizeof(one_time_key), 0, nonce, key);
	poly1305_init(&ctx, one_time_key);
	poly1305_update(&ctx, aad, aad_len);
	if (aad_len % POLY1305_BLOCK_SIZE)
		poly1305_update(&ctx, zero, POLY1305_BLOCK_SIZE - aad_len % POLY1305_BLOCK_SIZE);
	poly1305_update(&ctx, text, len);
	if (len % POLY1305_BLOCK_SIZE)
		poly1305_update(&ctx, zero, POLY1305_BLOCK_SIZE - len % POLY1305_BLOCK_SIZE);
	poly1305_update(&ctx, (const u8 *)lengths, sizeof(lengths));
	poly1305_final(&ctx, tag);
	memzero_explicit(&ctx, sizeof(ctx));
	memzero_explicit(one_time_key, sizeof(one_time_key));
}

void pool_aead_seal(u8 *text, size_t len, const u8 nonce[POOL_NONCE_LEN], const u8 key[POOL_KEY_LEN],
		    const void *aad, size_t aad_len)
{
	aead_stream(text, len, 1, nonce, key);
	aead_tag(text + len, text, len, nonce, key, aad, aad_len);
}

bool pool_aead_open(u8 *text, size_t len, const u8 nonce[POOL_NONCE_LEN], const u8 key[POOL_KEY_LEN],
		    const void *aad, size_t aad_len)
{
	u8 tag[POOL_TAG_LEN];
	bool good;

	aead_tag(tag, text, len, nonce, key, aad, aad_len);
	good = !crypto_memneq(tag, text + len, sizeof(tag));
	memzero_explicit(tag, sizeof(tag));
	if (good)
		aead_stream(text, len, 1, nonce, key);
	return good;
}

/*
 * Of low order only to whoever does not mask bit 255: curve25519() does, so these would give it an
 * ordinary secret (C02, E-70). Public values, compared in public.
 */
static const u8 unmasked_low_order[][POOL_KEY_LEN] = {
	{ 0xcd, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa,
	  0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd,
	  0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x80 },
	{ 0x4c, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55,
	  0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86,
	  0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0xd7 },
	{ 0xd9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
	{ 0xda, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
	{ 0xdb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
};

bool pool_x25519(u8 out[POOL_KEY_LEN], const u8 secret[POOL_KEY_LEN], const u8 point[POOL_KEY_LEN])
{
	u8 clamped[POOL_KEY_LEN];
	bool good;
	int i;

	for (i = 0; i < ARRAY_SIZE(unmasked_low_order); i++)
		if (!memcmp(point, unmasked_low_order[i], POOL_KEY_LEN))
			return false;
	memcpy(clamped, secret, sizeof(clamped));
	curve25519_clamp_secret(clamped);
	good = curve25519(out, clamped, point);
	memzero_explicit(clamped, sizeof(clamped));
	return good;
}

bool pool_x25519_public(u8 out[POOL_KEY_LEN], const u8 secret[POOL_KEY_LEN])
{
	u8 clamped[POOL_KEY_LEN];
	bool good;

	memcpy(clamped, secret, sizeof(clamped));
	curve25519_clamp_secret(clamped);
	good = curve25519_generate_public(out, clamped);
	memzero_explicit(clamped, sizeof(clamped));
	return good;
}

int pool_random(void *out, size_t len)
{
	int err;

	if (pool_fault("random"))
		return -EIO;
	err = wait_for_random_bytes();
	if (err)
		return err;
	get_random_bytes(out, len);
	return 0;
}
