# SPDX-License-Identifier: GPL-2.0-or-later
"""Primitives against RFC vectors, key derivation and packet protection against independent constructions."""

from __future__ import annotations

import hashlib
import hmac
import subprocess
import sys

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from poolref_sim import seeded, solve

from poolref import crypto, puzzle, wire
from poolref.constants import Flag, Type
from poolref.dialect import Dialect
from poolref.errors import LocalError, LowOrderKey, MissingPrimitive, RandomnessError
from poolref.events import PuzzlePosed
from poolref.keys import Keys
from poolref.wire import Header

P = 2**255 - 19
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [
    value.to_bytes(32, "little")
    for value in (
        0,
        1,
        *_ORDER_8,
        P - 1,
        P,
        P + 1,
        P + _ORDER_8[0],
        P + _ORDER_8[1],
        2 * P - 1,
        2 * P,
        2 * P + 1,
    )
]
LOW_ORDER_MASKED = [
    (int.from_bytes(point, "little") | 1 << 255).to_bytes(32, "little") for point in LOW_ORDER[:7]
]


def rfc5869(ikm: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256 with a salt of 32 zero bytes, from its definition."""
    prk = hmac.new(bytes(32), ikm, hashlib.sha256).digest()
    block, out, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
        counter += 1
    return out[:length]


def test_self_test_passes() -> None:
    crypto.self_test()


@pytest.mark.parametrize(
    ("primitive", "broken", "name"),
    [
        ("mac", lambda key, message: bytes(32), "HMAC-SHA256"),
        ("hkdf", lambda ikm, info, length: bytes(length), "HKDF-SHA256"),
        ("public_key", lambda private: bytes(32), "X25519"),
        ("exchange", lambda private, public: bytes(32), "X25519"),
    ],
)
def test_a_wrong_primitive_is_named(
    monkeypatch: pytest.MonkeyPatch, primitive: str, broken: object, name: str
) -> None:
    monkeypatch.setattr(crypto, primitive, broken)
    with pytest.raises(MissingPrimitive, match=f"{name} answers wrongly"):
        crypto.self_test()


def test_an_aead_that_accepts_forgeries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lax:
        def __init__(self, key: bytes) -> None:
            self.inner = ChaCha20Poly1305(key)
            self.seen: dict[bytes, bytes] = {}

        def encrypt(self, nonce: bytes, data: bytes, aad: bytes | None) -> bytes:
            sealed = self.inner.encrypt(nonce, data, aad)
            self.seen[sealed[:-16]] = data
            return sealed

        def decrypt(self, nonce: bytes, data: bytes, aad: bytes | None) -> bytes:
            return self.seen[data[:-16]]

    monkeypatch.setattr(crypto, "ChaCha20Poly1305", Lax)
    with pytest.raises(MissingPrimitive, match="ChaCha20-Poly1305 answers wrongly"):
        crypto.self_test()


def test_an_absent_primitive_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(key: bytes) -> None:
        raise UnsupportedAlgorithm("not in this build")

    monkeypatch.setattr(crypto, "ChaCha20Poly1305", absent)
    with pytest.raises(MissingPrimitive, match="ChaCha20-Poly1305 is not available"):
        crypto.self_test()


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_the_library_the_package_imports_and_the_primitives_fail_hard() -> None:
    hide = "import sys; sys.modules['cryptography'] = None\n"
    result = _python(hide + "import poolref, poolref.tools.kernel_abi, poolref.wire; print('imported')")
    assert result.stdout == "imported\n", result.stderr
    result = _python(hide + "import poolref.crypto")
    assert result.returncode != 0
    assert "MissingPrimitive: no cryptographic primitives" in result.stderr


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=32), st.integers(1, 200))
def test_hkdf_is_rfc_5869(ikm: bytes, info: bytes, length: int) -> None:
    assert crypto.hkdf(ikm, info, length) == rfc5869(ikm, info, length)


def test_hkdf_length_limits() -> None:
    assert len(crypto.hkdf(b"ikm", b"", 1)) == 1
    assert crypto.hkdf(b"ikm", b"", 8160) == rfc5869(b"ikm", b"", 8160)
    for length in (0, -1, 8161):
        with pytest.raises(LocalError, match="HKDF output"):
            crypto.hkdf(b"ikm", b"", length)


def test_x25519_rfc_7748_second_party() -> None:
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    alice_public = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert crypto.public_key(bob).hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = crypto.exchange(bob, alice_public)
    assert shared.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_every_low_order_point_is_refused() -> None:
    assert len(set(LOW_ORDER)) == 12
    private = seeded(3)(32)
    for point in LOW_ORDER + LOW_ORDER_MASKED:
        with pytest.raises(LowOrderKey):
            crypto.exchange(private, point)
    assert crypto.exchange(private, crypto.public_key(seeded(4)(32)))  # the control


def test_an_all_zero_result_is_refused_even_if_the_library_returned_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lenient:
        @classmethod
        def from_private_bytes(cls, data: bytes) -> Lenient:
            return cls()

        def exchange(self, public: object) -> bytes:
            return bytes(32)

    monkeypatch.setattr(crypto, "X25519PrivateKey", Lenient)
    with pytest.raises(LowOrderKey):
        crypto.exchange(bytes(32), crypto.public_key.__doc__.encode()[:32].ljust(32, b"x"))  # type: ignore[union-attr]


def test_draw_refuses_a_failing_or_short_source() -> None:
    def failing(size: int) -> bytes:
        raise OSError("no entropy")

    assert crypto.draw(seeded(1), 5) == seeded(1)(5)
    with pytest.raises(RandomnessError, match="no entropy"):
        crypto.draw(failing, 8)
    with pytest.raises(RandomnessError, match="7 bytes instead of 8"):
        crypto.draw(lambda size: bytes(size - 1), 8)


def test_key_derivation_labels() -> None:
    shared = seeded(5)(32)
    keys = Keys(shared)
    assert keys.session_key == rfc5869(shared, b"pool-session-key", 32)
    assert keys.hmac_key == rfc5869(shared, b"pool-hmac-key", 32)
    assert keys.seq_key == rfc5869(shared, b"pool-seq-key", 32)


@given(st.binary(max_size=100), st.integers(0, 2**64 - 1))
def test_protected_packet_from_its_definition(plaintext: bytes, seq: int) -> None:
    shared = seeded(6)(32)
    header = Header(Type.DATA, int(Flag.REQUIRE_ACK), seq, 7, bytes(range(16)), 99, channel=3)
    packet = Keys(shared).protect(header, plaintext)

    session_key, hmac_key = (rfc5869(shared, label, 32) for label in (b"pool-session-key", b"pool-hmac-key"))
    nonce = hmac_key[:4] + seq.to_bytes(8, "big")
    sealed = ChaCha20Poly1305(session_key).encrypt(nonce, plaintext, b"") if plaintext else b""
    start = (
        b"\x13\x00"
        + (0x21 if plaintext else 0x20).to_bytes(2, "big")
        + seq.to_bytes(8, "big")
        + (7).to_bytes(8, "big")
        + bytes(range(16))
        + (99).to_bytes(8, "big")
        + len(sealed).to_bytes(2, "big")
        + b"\x03\x00"
    )
    digest = hmac.new(hmac_key, start + bytes(32) + sealed, hashlib.sha256).digest()
    assert packet == start + digest + sealed


def test_every_bit_of_a_packet_is_authenticated() -> None:
    keys = Keys(seeded(7)(32))
    packet = keys.protect(Header(Type.DATA, seq=5), b"x")
    assert keys.authentic(packet)
    for bit in range(len(packet) * 8):
        forged = bytearray(packet)
        forged[bit // 8] ^= 1 << bit % 8
        assert not keys.authentic(bytes(forged)), bit


def test_open_refuses_each_flipped_bit_and_another_seq() -> None:
    keys = Keys(seeded(8)(32))
    sealed = keys.seal(5, b"plain")
    assert keys.open(5, sealed) == b"plain"
    assert keys.open(6, sealed) is None
    for bit in range(len(sealed) * 8):
        forged = bytearray(sealed)
        forged[bit // 8] ^= 1 << bit % 8
        assert keys.open(5, forged) is None


def test_erased_keys_are_zero_and_unusable() -> None:
    keys = Keys(seeded(9)(32))
    secrets = (keys.shared, keys.session_key, keys.hmac_key, keys.seq_key)
    assert all(any(secret) for secret in secrets)
    keys.erase()
    assert not any(any(secret) for secret in secrets)
    assert not keys.usable
    packet = Keys(seeded(9)(32)).protect(Header(Type.DATA), b"x")
    assert not keys.authentic(packet)
    for use in (
        lambda: keys.seal(1, b"x"),
        lambda: keys.open(1, packet[80:]),
        lambda: keys.protect(Header(4)),
    ):
        with pytest.raises(ValueError, match="erased"):
            use()


def test_a_prepared_mac_is_hmac() -> None:
    rng = seeded(11)
    for size in (0, 1, 32, 63, 64):
        key, message = rng(size), rng(300)
        prepared = crypto.Mac(key)
        for cut in (0, 1, 80, 300):
            expected = hmac.digest(key, message, "sha256")
            assert prepared.digest(message[:cut], message[cut:]) == expected, "also the second time"
        assert prepared.digest(bytearray(message)) == expected


def test_the_nonce_order_is_a_matter_of_dialect() -> None:
    keys = Keys(bytes(31) + b"\1", dialect=Dialect(nonce_seq_order="little"))
    assert keys.nonce(0x0102) == bytes(keys.hmac_key[:4]) + b"\x02\x01" + bytes(6)


def test_leading_zero_bits() -> None:
    for digest, bits in ((b"\x80", 0), (b"\x01", 7), (b"\x00\x40", 9), (bytes(4), 32)):
        assert puzzle.leading_zero_bits(digest) == bits


def test_search_finds_what_the_check_accepts() -> None:
    seed = seeded(10)(32)
    solution = solve(PuzzlePosed(seed, 12, 0))
    digest = hashlib.sha256(seed + solution).digest()
    assert int.from_bytes(digest, "big") >> (256 - 12) == 0
    assert puzzle.solves(seed, solution, 12)
    exact = puzzle.leading_zero_bits(digest)
    assert puzzle.solves(seed, solution, exact)
    assert not puzzle.solves(seed, solution, exact + 1)
    assert puzzle.Search(seed, 0, bytes(24)).step(1) is not None
    search = puzzle.Search(seed, 256, bytes(24))
    assert search.step(100) is None
    assert search.tried == 100
    with pytest.raises(ValueError, match="24"):
        puzzle.Search(seed, 1, bytes(23))


def test_the_search_resumes_where_it_stopped() -> None:
    seed = seeded(11)(32)
    whole, pieces = puzzle.Search(seed, 10, bytes(24)), puzzle.Search(seed, 10, bytes(24))
    expected = whole.step(1 << 14)
    found = None
    while found is None:
        found = pieces.step(7)
    assert found == expected


def test_build_makes_any_packet() -> None:
    packet = wire.build(0xE, b"abc", version=2, flags=0xFFFF, channel=9, hmac=b"h" * 32)
    header = wire.parse(packet)
    assert (header.type, header.version, header.flags, header.channel, header.payload_len) == (
        14,
        2,
        0xFFFF,
        9,
        3,
    )
    assert wire.parse(wire.build(0, b"abc", payload_len=3)).payload_len == 3


def test_logged_keys_verify_and_open_but_hold_no_secret_to_go_on_from() -> None:
    keys = Keys(seeded(12)(32))
    packet = keys.protect(Header(Type.DATA, seq=9), b"plain")
    logged = Keys.from_log(keys.log_entry(bytes(16)))
    assert logged.authentic(packet)
    assert logged.open(9, packet[80:]) == b"plain"
    assert logged.protect(Header(Type.DATA, seq=9), b"plain") == packet
    assert not logged.shared
