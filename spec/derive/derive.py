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
    start += struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
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
RFC7748 = {  # section 6.1
    "alice_private": _hex("77076d0a7318a57d3c16c17251b26645df4c6d2f6f2f2f7f0f0f0f0f0f0f0f0f"),
}
RFC7748 = {
    "alice_private": _hex("77076d0a7318a57d3c16c17251b26645d6c2e6e8f27a2f0f1f5f1f5f1f5f1f5f"),
}
