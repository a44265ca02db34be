# SPDX-License-Identifier: GPL-2.0-or-later
"""The fixed set of primitives: X25519, HKDF-SHA256, ChaCha20-Poly1305, HMAC-SHA256.  No fallback (KEY-04).

Importing this module runs known-answer tests; a primitive that is absent or answers wrongly raises
MissingPrimitive, so that no node starts without it.
"""

from __future__ import annotations

import errno
import hashlib
import hmac as _hmac
from collections.abc import Callable
from typing import Final

from .constants import KEY_SIZE
from .errors import LocalError, LowOrderKey, MissingPrimitive, RandomnessError
from .wire import Buffer

try:
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
except ImportError as error:
    raise MissingPrimitive(f"no cryptographic primitives: {error}") from error

__all__ = [
    "ChaCha20Poly1305", "InvalidTag", "Mac", "Rng", "constant_time_equal", "draw", "exchange", "hkdf", "mac",
    "public_key", "self_test",
]  # fmt: skip

Rng = Callable[[int], bytes]
"""Returns that many random bytes."""

_SALT: Final = bytes(32)
_HKDF_LIMIT: Final = 255 * 32
_ZERO_KEY: Final = bytes(KEY_SIZE)

_SHA256_BLOCK: Final = 64
_INNER_PAD: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD: Final = bytes(byte ^ 0x5C for byte in range(256))

_P: Final = 2**255 - 19
_ORDER_8: Final = (
    0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
    0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
)
# Encodings of low order modulo p that X25519 takes for other points, because it ignores bit 255.
_UNMASKED_LOW_ORDER: Final = frozenset(
    value.to_bytes(KEY_SIZE, "little")
    for value in (*(_P + point for point in _ORDER_8), 2 * _P - 1, 2 * _P, 2 * _P + 1)
)

constant_time_equal = _hmac.compare_digest


def draw(rng: Rng, size: int) -> bytes:
    """``size`` random bytes; RandomnessError when the source fails or falls short (SEAL-08)."""
    try:
        data = rng(size)
    except Exception as error:
        raise RandomnessError(f"the source of random bytes failed: {error}") from error
    if len(data) != size:
        raise RandomnessError(f"the source of random bytes gave {len(data)} bytes instead of {size}")
    return data


def mac(key: Buffer, message: Buffer) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    return _hmac.digest(key, message, "sha256")


class Mac:
    """HMAC-SHA256 under one key of at most 64 bytes: what depends on the key alone is computed once."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: Buffer) -> None:
        block = bytes(key).ljust(_SHA256_BLOCK, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def digest(self, head: Buffer, tail: Buffer = b"") -> bytes:
        """32 bytes, of ``head`` followed by ``tail``."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(head)
        inner.update(tail)
        outer.update(inner.digest())
        return outer.digest()


def hkdf(ikm: Buffer, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 with a salt of 32 zero bytes; EINVAL for lengths of 0 or above 8160 (KEY-03)."""
    if not 0 < length <= _HKDF_LIMIT:
        raise LocalError(errno.EINVAL, f"HKDF output of {length} bytes")
    return HKDF(hashes.SHA256(), length, _SALT, info).derive(bytes(ikm))


def public_key(private: Buffer) -> bytes:
    """The X25519 public key of a 32-byte private key."""
    return X25519PrivateKey.from_private_bytes(bytes(private)).public_key().public_bytes_raw()


def exchange(private: Buffer, public: Buffer) -> bytes:
    """X25519; LowOrderKey when the public key has low order, whose result is all zero (KEY-01)."""
    if bytes(public) in _UNMASKED_LOW_ORDER:
        raise LowOrderKey
    try:
        shared = X25519PrivateKey.from_private_bytes(bytes(private)).exchange(
            X25519PublicKey.from_public_bytes(bytes(public))
        )
    except ValueError:
        raise LowOrderKey from None
    if constant_time_equal(shared, _ZERO_KEY):
        raise LowOrderKey
    return shared


def _check_hmac() -> bool:  # RFC 4231, test case 2
    expected = bytes.fromhex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    message = b"what do ya want for nothing?"
    return mac(b"Jefe", message) == Mac(b"Jefe").digest(message[:8], message[8:]) == expected


def _check_hkdf() -> bool:  # RFC 5869, test case 3: an empty salt is the salt of 32 zero bytes
    return hkdf(bytes([0x0B] * 22), b"", 42) == bytes.fromhex(
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def _check_x25519() -> bool:  # RFC 7748, 6.1
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob_public = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    return public_key(alice) == bytes.fromhex(
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    ) and exchange(alice, bob_public) == bytes.fromhex(
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


def _check_aead() -> bool:  # RFC 8439, 2.8.2, and a forged tag
    aead = ChaCha20Poly1305(bytes(range(0x80, 0xA0)))
    nonce = bytes.fromhex("070000004041424344454647")
    aad = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = bytes.fromhex(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b"
        "1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
    )
    if aead.encrypt(nonce, plaintext, aad) != sealed or aead.decrypt(nonce, sealed, aad) != plaintext:
        return False
    try:
        aead.decrypt(nonce, sealed[:-1] + bytes([sealed[-1] ^ 1]), aad)
    except InvalidTag:
        return True
    return False


_CHECKS: Final = {
    "HMAC-SHA256": _check_hmac,
    "HKDF-SHA256": _check_hkdf,
    "X25519": _check_x25519,
    "ChaCha20-Poly1305": _check_aead,
}


def self_test() -> None:
    """Run the known answers of the RFCs; MissingPrimitive names the first one that fails."""
    for name, check in _CHECKS.items():
        try:
            right = check()
        except (UnsupportedAlgorithm, LowOrderKey, InvalidTag, ValueError) as error:
            raise MissingPrimitive(f"{name} is not available: {error}") from error
        if not right:
            raise MissingPrimitive(f"{name} answers wrongly")


self_test()
