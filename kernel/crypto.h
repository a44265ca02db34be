/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SHA-256, HMAC, HKDF, ChaCha20-Poly1305 with a 96-bit nonce, X25519, random bytes. */
#ifndef POOL_CRYPTO_H
#define POOL_CRYPTO_H

#include <linux/types.h>
#include "compat.h"
#include "wire.h"

#define POOL_NONCE_LEN 12

/* An HMAC key with its two pads already hashed. */
struct pool_hmac_key {
	pool_sha256 inner;
	pool_sha256 outer;
};

void pool_hmac_setkey(struct pool_hmac_key *key, const void *raw, size_t len);
void pool_hmac_init(pool_sha256 *ctx, const struct pool_hmac_key *key);
void pool_hmac_final(pool_sha256 *ctx, const struct pool_hmac_key *key, u8 out[POOL_HMAC_LEN]);
void pool_hmac(u8 out[POOL_HMAC_LEN], const void *key, size_t key_len, const void *data, size_t len);

/* HKDF-SHA256 with a salt of 32 zero bytes; -EINVAL for a length of 0 or above 255 * 32 (KEY-03). */
int pool_hkdf(u8 *out, size_t out_len, const void *ikm, size_t ikm_len, const char *info);
/* RFC 5869 in full, for its own test vectors. */
int pool_hkdf_salted(u8 *out, size_t out_len, const void *ikm, size_t ikm_len, const void *salt,
		     size_t salt_len, const void *info, size_t info_len);

/* In place; the tag stands right behind the text. */
void pool_aead_seal(u8 *text, size_t len, const u8 nonce[POOL_NONCE_LEN], const u8 key[POOL_KEY_LEN],
		    const void *aad, size_t aad_len);
bool __must_check pool_aead_open(u8 *text, size_t len, const u8 nonce[POOL_NONCE_LEN],
				 const u8 key[POOL_KEY_LEN], const void *aad, size_t aad_len);

/* False: the result is all zero, or the peer's point of low order (KEY-01). */
bool __must_check pool_x25519(u8 out[POOL_KEY_LEN], const u8 secret[POOL_KEY_LEN],
			      const u8 point[POOL_KEY_LEN]);
bool __must_check pool_x25519_public(u8 out[POOL_KEY_LEN], const u8 secret[POOL_KEY_LEN]);

/* System CSPRNG, seeded; an error aborts the caller's operation (SEAL-08). */
int __must_check pool_random(void *out, size_t len);

#endif
