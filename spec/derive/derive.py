# SPDX-License-Identifier: GPL-2.0-or-later
"""POOL's derivations, written down once more from the specification alone.

Nothing here imports the reference or any cryptographic library: X25519 (RFC 7748), ChaCha20-Poly1305
(RFC 8439), HMAC and HKDF (RFC 5869) are spelled out over integers and ``hashlib``, and are checked against
the RFCs' own vectors before anything is derived with them. Slow, and not constant-time: for test vectors
only.

``python3 spec/derive/derive.py`` prints ``kernel/selftest_vectors.h``, the known answers that the kernel
module checks at load.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import sys
import zlib

P = 2**255 - 19
A24 = 121665


# -- primitives ----------------------------------------------------------------------------------------


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def hkdf_salted(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869; ValueError for a length of 0 or above 255 * 32 (KEY-03)."""
    if not 1 <= length <= 255 * 32:
        raise ValueError(f"HKDF-SHA256 cannot give {length} bytes")
    prk = hmac_sha256(salt, ikm)
    out = block = b""
    counter = 0
    while len(out) < length:
        counter += 1
        block = hmac_sha256(prk, block + info + bytes([counter]))
        out += block
    return out[:length]


def hkdf(ikm: bytes, info: bytes, length: int) -> bytes:
    """POOL's HKDF: the salt is 32 zero bytes."""
    return hkdf_salted(ikm, bytes(32), info, length)


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748 section 5: the Montgomery ladder."""
    k = int.from_bytes(scalar, "little")
    k = (k & ~7 & (2**255 - 1)) | 2**254
    x1 = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + A24 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


X25519_BASE = (9).to_bytes(32, "little")


def _rotl(v: int, n: int) -> int:
    return (v << n | v >> (32 - n)) & 0xFFFFFFFF


def _quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    s[a] = (s[a] + s[b]) & 0xFFFFFFFF
    s[d] = _rotl(s[d] ^ s[a], 16)
    s[c] = (s[c] + s[d]) & 0xFFFFFFFF
    s[b] = _rotl(s[b] ^ s[c], 12)
    s[a] = (s[a] + s[b]) & 0xFFFFFFFF
    s[d] = _rotl(s[d] ^ s[a], 8)
    s[c] = (s[c] + s[d]) & 0xFFFFFFFF
    s[b] = _rotl(s[b] ^ s[c], 7)


def chacha20_block(key: bytes, counter: int, nonce: bytes) -> bytes:
    """RFC 8439 section 2.3."""
    start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    start += [*struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    s = list(start)
    for _ in range(10):
        for column in range(4):
            _quarter(s, column, column + 4, column + 8, column + 12)
        for d in range(4):
            _quarter(s, d, 4 + (d + 1) % 4, 8 + (d + 2) % 4, 12 + (d + 3) % 4)
    return struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(s, start, strict=True)))


def chacha20(key: bytes, counter: int, nonce: bytes, data: bytes) -> bytes:
    out = bytearray()
    for i in range(0, len(data), 64):
        stream = chacha20_block(key, counter + i // 64, nonce)
        out += bytes(x ^ y for x, y in zip(data[i : i + 64], stream, strict=False))
    return bytes(out)


def poly1305(key: bytes, message: bytes) -> bytes:
    """RFC 8439 section 2.5."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(message), 16):
        block = message[i : i + 16]
        total = (total + int.from_bytes(block + b"\x01", "little")) * r % (2**130 - 5)
    return ((total + int.from_bytes(key[16:], "little")) % 2**128).to_bytes(16, "little")


def _aead_tag(key: bytes, nonce: bytes, ciphertext: bytes, aad: bytes) -> bytes:
    def padded(data: bytes) -> bytes:
        return data + bytes(-len(data) % 16)

    lengths = struct.pack("<QQ", len(aad), len(ciphertext))
    return poly1305(chacha20_block(key, 0, nonce)[:32], padded(aad) + padded(ciphertext) + lengths)


def aead_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes = b"") -> bytes:
    """RFC 8439 section 2.8: ciphertext with the tag behind it."""
    ciphertext = chacha20(key, 1, nonce, plaintext)
    return ciphertext + _aead_tag(key, nonce, ciphertext, aad)


def aead_open(key: bytes, nonce: bytes, sealed: bytes, aad: bytes = b"") -> bytes:
    """The plaintext; ValueError when the tag is wrong."""
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if _aead_tag(key, nonce, ciphertext, aad) != tag:
        raise ValueError("wrong tag")
    return chacha20(key, 1, nonce, ciphertext)


# -- POOL ----------------------------------------------------------------------------------------------


def session_keys(shared: bytes) -> tuple[bytes, bytes]:
    """KEY-02: session_key and hmac_key."""
    return hkdf(shared, b"pool-session-key", 32), hkdf(shared, b"pool-hmac-key", 32)


def nonce_of(hmac_key: bytes, seq: int) -> bytes:
    """SEAL-02."""
    return hmac_key[:4] + struct.pack(">Q", seq)


def header(
    type_: int,
    *,
    version: int = 1,
    flags: int = 0,
    seq: int = 0,
    ack: int = 0,
    session_id: bytes = bytes(16),
    timestamp: int = 0,
    payload_len: int = 0,
    channel: int = 0,
    reserved: tuple[int, int] = (0, 0),
) -> bytes:
    """Section 1, with the hmac field zero."""
    return struct.pack(
        ">BBHQQ16sQHBB32s",
        version << 4 | type_, reserved[0], flags, seq, ack, session_id, timestamp, payload_len, channel,
        reserved[1], b"",
    )  # fmt: skip


def sign(hmac_key: bytes, head: bytes, payload: bytes) -> bytes:
    """SEAL-03: the packet with its hmac in place."""
    mac = hmac_sha256(hmac_key, head[:48] + bytes(32) + payload)
    return head[:48] + mac + payload


def leading_zero_bits(digest: bytes) -> int:
    return len(digest) * 8 - int.from_bytes(digest, "big").bit_length()


def solve(seed: bytes, difficulty: int) -> bytes:
    """HS-03: the first solution counting up from zero, big-endian."""
    n = 0
    while leading_zero_bits(sha256(seed + n.to_bytes(32, "big"))) < difficulty:
        n += 1
    return n.to_bytes(32, "big")


def address(static_pubkey: bytes, type_version: int = 1, org_id: int = 0, segment_id: int = 0) -> bytes:
    """Section 9."""
    body = struct.pack(">IQQ", type_version, org_id, segment_id) + sha256(static_pubkey)[:8]
    return body + struct.pack(">I", zlib.crc32(body))


# -- known answers -------------------------------------------------------------------------------------


def _hex(text: str) -> bytes:
    return bytes.fromhex("".join(text.split()))


# From the RFCs, letter by letter.
RFC4231 = [  # test cases 2 and 6: key, data, HMAC-SHA-256
    (
        b"Jefe",
        b"what do ya want for nothing?",
        _hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        _hex("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"),
    ),
]
RFC5869 = (  # test case 1: IKM, salt, info, OKM
    b"\x0b" * 22,
    _hex("000102030405060708090a0b0c"),
    _hex("f0f1f2f3f4f5f6f7f8f9"),
    _hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"),
)
RFC7748 = [  # scalar, point, result: section 5.2, then section 6.1 both ways
    (
        _hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"),
        _hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"),
        _hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"),
    ),
    (
        _hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
        _hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
        _hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"),
    ),
    (
        _hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"),
        _hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
        _hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"),
    ),
]
RFC8439 = (  # section 2.8.2: key, nonce, AAD, plaintext, ciphertext with tag
    bytes(range(0x80, 0xA0)),
    _hex("070000004041424344454647"),
    _hex("50515253c0c1c2c3c4c5c6c7"),
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it.",
    _hex(
        """d31a8d34648e60db7b86afbc53ef7ec2 a4aded51296e08fea9e2b5a736ee62d6
        3dbea45e8ca9671282fafb69da92728b 1a71de0a9e060b2905d6a5b67ecd3b36
        92ddbd7f2d778b8c9803aee328091b58 fab324e4fad675945585808b4831d7bc
        3ff4def08e4b7a9de576d26586cec64b 6116 1ae10b594f09e26a7e902ecbd0600691"""
    ),
)
SHA256_ABC = _hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")  # FIPS 180-4
# Points of low order: 0, 1, two of order 8, -1, and 0 and 1 written non-canonically.
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    _hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    _hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (P - 1).to_bytes(32, "little"),
    P.to_bytes(32, "little"),
    (P + 1).to_bytes(32, "little"),
]


class Mismatch(Exception):
    """A primitive above does not give an RFC's answer: nothing derived with it could be trusted."""


def check_against_rfcs() -> None:
    """Mismatch unless every primitive above gives the published answers."""
    results = {"SHA-256": sha256(b"abc") == SHA256_ABC}
    for number, (key, data, expected) in enumerate(RFC4231):
        results[f"HMAC {number}"] = hmac_sha256(key, data) == expected
    ikm, salt, info, okm = RFC5869
    results["HKDF"] = hkdf_salted(ikm, salt, info, len(okm)) == okm
    for number, (scalar, point, expected) in enumerate(RFC7748):
        results[f"X25519 {number}"] = x25519(scalar, point) == expected
    for number, point in enumerate(LOW_ORDER):
        results[f"low order {number}"] = x25519(RFC7748[1][0], point) == bytes(32)
    key, nonce, aad, plaintext, sealed = RFC8439
    results["ChaCha20-Poly1305"] = aead_seal(key, nonce, plaintext, aad) == sealed
    wrong = [name for name, good in results.items() if not good]
    if wrong:
        raise Mismatch(", ".join(wrong))


def _pattern(start: int, size: int) -> bytes:
    return bytes((start + i) & 0xFF for i in range(size))


def pool_vectors() -> dict[str, bytes]:
    """POOL's own known answers, from the shared secret of RFC 7748 section 6.1."""
    shared = RFC7748[1][2]
    session_key, hmac_key = session_keys(shared)
    session_id = _pattern(0xA0, 16)
    seq, ack = 2**62 + 0x0123456789ABCDEF, 0x0FEDCBA987654321
    plaintext = b"POOL known answer: one sealed DATA packet"
    sealed = aead_seal(session_key, nonce_of(hmac_key, seq), plaintext)
    head = header(
        0x3,
        flags=0x0021,
        seq=seq,
        ack=ack,
        session_id=session_id,
        timestamp=0x1122334455667788,
        payload_len=len(sealed),
        channel=7,
    )
    plain_packet = head + plaintext + bytes(16)
    empty = header(0x4, seq=seq + 1, ack=ack, session_id=session_id, timestamp=0x1122334455667789)
    seed = sha256(b"POOL puzzle seed")
    return {
        "shared": shared,
        "session_key": session_key,
        "hmac_key": hmac_key,
        "nonce": nonce_of(hmac_key, seq),
        "plain_packet": plain_packet,
        "sealed_packet": sign(hmac_key, head, sealed),
        "empty_packet": sign(hmac_key, empty, b""),
        "session_id": session_id,
        "proof": hmac_sha256(shared, session_id),
        "puzzle_seed": seed,
        "puzzle_solution": solve(seed, 12),
        "static_pubkey": RFC7748[2][1],
        "address": address(RFC7748[2][1]),
    }


# -- the header ----------------------------------------------------------------------------------------


def _array(name: str, data: bytes) -> str:
    lines = [", ".join(f"0x{b:02x}" for b in data[i : i + 16]) for i in range(0, len(data), 16)]
    body = ",\n\t".join(lines)
    return f"static const u8 {name}[{len(data)}] __initconst = {{\n\t{body}\n}};\n"


def c_header() -> str:
    """The text of ``kernel/selftest_vectors.h``."""
    check_against_rfcs()
    pool = pool_vectors()
    bits = leading_zero_bits(sha256(pool["puzzle_seed"] + pool["puzzle_solution"]))
    parts = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Written by spec/derive/derive.py. Do not edit. */",
        "#ifndef POOL_SELFTEST_VECTORS_H\n#define POOL_SELFTEST_VECTORS_H\n",
        _array("kat_sha256_abc", SHA256_ABC),
    ]
    for number, (key, data, expected) in enumerate(RFC4231, 1):
        parts += [
            _array(f"kat_hmac{number}_key", key),
            _array(f"kat_hmac{number}_data", data),
            _array(f"kat_hmac{number}_out", expected),
        ]
    parts += [
        _array(f"kat_hkdf_{n}", d) for n, d in zip(("ikm", "salt", "info", "okm"), RFC5869, strict=True)
    ]
    for number, (scalar, point, expected) in enumerate(RFC7748, 1):
        parts += [
            _array(f"kat_x25519_{number}_scalar", scalar),
            _array(f"kat_x25519_{number}_point", point),
            _array(f"kat_x25519_{number}_out", expected),
        ]
    parts += [_array("kat_low_order", b"".join(LOW_ORDER))]
    names = ("key", "nonce", "aad", "plain", "sealed")
    parts += [_array(f"kat_aead_{n}", d) for n, d in zip(names, RFC8439, strict=True)]
    parts += [_array(f"kat_pool_{name}", data) for name, data in pool.items()]
    parts += [f"#define KAT_POOL_SEQ 0x{2**62 + 0x0123456789ABCDEF:016x}ULL"]
    parts += [f"#define KAT_POOL_PUZZLE_BITS {bits}\n", "#endif"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(c_header())
