// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/init.h>
#include <linux/printk.h>
#include <linux/slab.h>
#include <linux/string.h>
#include "faults.h"
#include "keys.h"
#include "selftest.h"
#include "selftest_vectors.h"

/* Each computes into result and says what it must be; so a fault can falsify the result. */
struct answer {
	u8 result[256];
	const u8 *expected;
	size_t len;
};

static bool __init test_sha256(struct answer *a)
{
	sha256("abc", 3, a->result);
	a->expected = kat_sha256_abc;
	a->len = sizeof(kat_sha256_abc);
	return true;
}

static bool __init test_hmac(struct answer *a)
{
	u8 first[POOL_HMAC_LEN];

	pool_hmac(first, kat_hmac1_key, sizeof(kat_hmac1_key), kat_hmac1_data, sizeof(kat_hmac1_data));
	pool_hmac(a->result, kat_hmac2_key, sizeof(kat_hmac2_key), kat_hmac2_data, sizeof(kat_hmac2_data));
	a->expected = kat_hmac2_out;
	a->len = sizeof(kat_hmac2_out);
	return !memcmp(first, kat_hmac1_out, sizeof(first));
}

static bool __init test_hkdf(struct answer *a)
{
	u8 none[1];

	a->expected = kat_hkdf_okm;
	a->len = sizeof(kat_hkdf_okm);
	if (pool_hkdf_salted(a->result, a->len, kat_hkdf_ikm, sizeof(kat_hkdf_ikm), kat_hkdf_salt,
			     sizeof(kat_hkdf_salt), kat_hkdf_info, sizeof(kat_hkdf_info)))
		return false;
	/* KEY-03 */
	return pool_hkdf(none, 0, kat_hkdf_ikm, sizeof(kat_hkdf_ikm), "") == -EINVAL &&
	       pool_hkdf(none, 255 * 32 + 1, kat_hkdf_ikm, sizeof(kat_hkdf_ikm), "") == -EINVAL;
}

static bool __init test_x25519(struct answer *a)
{
	u8 out[POOL_KEY_LEN];
	int i;

	if (!pool_x25519(out, kat_x25519_1_scalar, kat_x25519_1_point) ||
	    memcmp(out, kat_x25519_1_out, sizeof(out)))
		return false;
	if (!pool_x25519_public(out, kat_x25519_2_scalar) || memcmp(out, kat_x25519_3_point, sizeof(out)))
		return false;
	if (!pool_x25519(out, kat_x25519_3_scalar, kat_x25519_3_point) ||
	    memcmp(out, kat_x25519_3_out, sizeof(out)))
		return false;
	/* KEY-01 */
	for (i = 0; i < sizeof(kat_low_order); i += POOL_KEY_LEN)
		if (pool_x25519(out, kat_x25519_2_scalar, kat_low_order + i))
			return false;
	a->expected = kat_x25519_2_out;
	a->len = sizeof(kat_x25519_2_out);
	return pool_x25519(a->result, kat_x25519_2_scalar, kat_x25519_2_point);
}

static bool __init test_aead(struct answer *a)
{
	const size_t len = sizeof(kat_aead_plain);
	u8 opened[sizeof(kat_aead_sealed)];

	a->expected = kat_aead_sealed;
	a->len = sizeof(kat_aead_sealed);
	memcpy(a->result, kat_aead_plain, len);
	pool_aead_seal(a->result, len, kat_aead_nonce, kat_aead_key, kat_aead_aad, sizeof(kat_aead_aad));
	memcpy(opened, kat_aead_sealed, sizeof(opened));
	if (!pool_aead_open(opened, len, kat_aead_nonce, kat_aead_key, kat_aead_aad, sizeof(kat_aead_aad)) ||
	    memcmp(opened, kat_aead_plain, len))
		return false;
	memcpy(opened, kat_aead_sealed, sizeof(opened));
	opened[sizeof(opened) - 1] ^= 1;
	return !pool_aead_open(opened, len, kat_aead_nonce, kat_aead_key, kat_aead_aad, sizeof(kat_aead_aad));
}

static bool __init test_keys(struct answer *a)
{
	struct pool_keys keys;
	u8 nonce[POOL_NONCE_LEN];
	bool good;

	pool_keys_derive(&keys, kat_pool_shared);
	pool_keys_nonce(&keys, KAT_POOL_SEQ, nonce);
	good = !memcmp(keys.session_key, kat_pool_session_key, POOL_KEY_LEN) &&
	       !memcmp(nonce, kat_pool_nonce, sizeof(nonce)) &&
	       !memcmp(keys.nonce_prefix, kat_pool_hmac_key, sizeof(keys.nonce_prefix));
	pool_hmac(a->result, kat_pool_shared, sizeof(kat_pool_shared), kat_pool_session_id, POOL_ID_LEN);
	a->expected = kat_pool_proof;
	a->len = sizeof(kat_pool_proof);
	return good;
}

static bool __init test_packet(struct answer *a)
{
	struct pool_hdr *h = (void *)a->result;
	u8 copy[sizeof(kat_pool_sealed_packet)];
	struct pool_keys keys;

	pool_keys_derive(&keys, kat_pool_shared);
	if (!pool_keys_verify(&keys, (const void *)kat_pool_empty_packet))
		return false;
	memcpy(copy, kat_pool_sealed_packet, sizeof(copy));
	if (!pool_keys_verify(&keys, (void *)copy) || !pool_keys_open(&keys, (void *)copy, 0) ||
	    memcmp(copy + POOL_HDR_LEN, kat_pool_plain_packet + POOL_HDR_LEN,
		   sizeof(copy) - POOL_HDR_LEN - POOL_TAG_LEN))
		return false;
	copy[POOL_HDR_LEN - 1] ^= 1;
	if (pool_keys_verify(&keys, (void *)copy))
		return false;
	memcpy(a->result, kat_pool_plain_packet, sizeof(kat_pool_plain_packet));
	pool_keys_seal(&keys, h, 0);
	pool_keys_sign(&keys, h);
	a->expected = kat_pool_sealed_packet;
	a->len = sizeof(kat_pool_sealed_packet);
	return true;
}

static bool __init test_puzzle(struct answer *a)
{
	a->result[0] = pool_puzzle_solved(kat_pool_puzzle_seed, kat_pool_puzzle_solution,
					  KAT_POOL_PUZZLE_BITS);
	a->expected = "\1";
	a->len = 1;
	return !pool_puzzle_solved(kat_pool_puzzle_seed, kat_pool_puzzle_solution, KAT_POOL_PUZZLE_BITS + 1);
}

static bool __init test_address(struct answer *a)
{
	u8 broken[POOL_ADDR_LEN] = {};
	bool good = pool_addr_valid(broken);

	memcpy(broken, kat_pool_address, sizeof(broken));
	broken[5] ^= 1;
	pool_addr_make(a->result, kat_pool_static_pubkey);
	a->expected = kat_pool_address;
	a->len = sizeof(kat_pool_address);
	return good && pool_addr_valid(kat_pool_address) && !pool_addr_valid(broken);
}

static const struct {
	const char *name;
	bool (*test)(struct answer *a);
} tests[] __initconst = {
	{ "sha256", test_sha256 },
	{ "hmac", test_hmac },
	{ "hkdf", test_hkdf },
	{ "x25519", test_x25519 },
	{ "chacha20poly1305", test_aead },
	{ "keys", test_keys },
	{ "packet", test_packet },
	{ "puzzle", test_puzzle },
	{ "address", test_address },
};

int __init pool_selftest(void)
{
	struct answer *a = kzalloc(sizeof(*a), GFP_KERNEL);
	char fault[32];
	int i, err = 0;

	if (!a)
		return -ENOMEM;
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		bool good = tests[i].test(a);

		snprintf(fault, sizeof(fault), "selftest:%s", tests[i].name);
		if (pool_fault(fault))
			a->result[0] ^= 1;
		if (!good || memcmp(a->result, a->expected, a->len)) {
			pr_err("pool: self-test of %s failed, refusing to load\n", tests[i].name);
			err = -EKEYREJECTED;
			break;
		}
		memset(a, 0, sizeof(*a));
	}
	kfree_sensitive(a);
	return err;
}
