# SPDX-License-Identifier: GPL-2.0-or-later
"""A second, independent peer that speaks ``pool-ko-1.0`` over a byte stream, as client and as server.

Written from spec/protocol.md and spec/dialects.md alone: it imports nothing of the reference, so that an
error in the reference's idea of the dialect cannot hide in both.  Small on purpose: one session, no timers.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

INIT, CHALLENGE, RESPONSE, DATA, ACK, HEARTBEAT, REKEY, CLOSE, CONFIG, ROLLBACK, DISCOVER = range(11)
ENCRYPTED, REQUIRE_ACK, TELEMETRY, ROLLBACK_READY, CONFIG_LOCKED = 0x1, 0x20, 0x40, 0x80, 0x100

HEADER = struct.Struct(">BBHQQ16sQHBB32s")
TELEMETRY_LAYOUT = struct.Struct("<QQIIHHQII")
FIGURES = ("rtt", "jitter", "loss", "throughput", "mtu", "queue", "uptime", "rekeys", "config")
ACKNOWLEDGED = (HEARTBEAT, CONFIG, ROLLBACK)
DIFFICULTY = 8


class Broken(Exception):
    """The other side did what this dialect does not allow."""


@dataclass(frozen=True)
class Packet:
    """A received packet, opened."""

    type: int
    flags: int
    seq: int
    ack: int
    session_id: bytes
    timestamp: int
    channel: int
    plaintext: bytes


class Secrets:
    """The keys that one X25519 result gives."""

    def __init__(self, shared: bytes) -> None:
        self.shared = shared
        self.aead = ChaCha20Poly1305(self._derive(b"pool-session-key"))
        self.hmac_key = self._derive(b"pool-hmac-key")

    def _derive(self, label: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, bytes(32), label).derive(self.shared)

    def nonce(self, seq: int) -> bytes:
        return self.hmac_key[:4] + seq.to_bytes(8, "little")

    def sign(self, header: bytes, payload: bytes) -> bytes:
        digest = hmac.new(self.hmac_key, header[:48] + bytes(32) + payload, hashlib.sha256).digest()
        return header[:48] + digest + payload

    def proof(self, session_id: bytes) -> bytes:
        return hmac.new(self.shared, session_id, hashlib.sha256).digest()


def zero_bits(seed: bytes, solution: bytes) -> int:
    digest = int.from_bytes(hashlib.sha256(seed + solution).digest(), "big")
    return 256 - digest.bit_length()


class OldPeer:
    """Feed it what the stream brings, send on what :meth:`output` gives.

    ``random(n)`` gives n bytes, ``monotonic()`` nanoseconds.  ``digest`` is appended to telemetry, as later
    builds do, when it is not None.
    """

    def __init__(
        self,
        *,
        client: bool,
        random: Callable[[int], bytes],
        monotonic: Callable[[], int],
        digest: int | None = None,
    ) -> None:
        self.client = client
        self.random, self.monotonic, self.digest = random, monotonic, digest
        self.established = False
        self.closed: int | None = None
        """The code of the peer's CLOSE, -1 without one."""
        self.received: list[Packet] = []
        self.refused: list[int] = []
        """Seqs that were within this side's own range."""
        self.epoch = 0
        self.session_id = bytes(16)
        self._private = self._new_key()
        self._peer_key = b""
        self._keys: Secrets | None = None
        self._old_keys: Secrets | None = None
        self._seed = b""
        self._seq = 1
        self._first = 1
        self._highest = 0
        self._fresh_window = True
        self._in = b""
        self._out = b""
        if client:
            self._plain(INIT, self._public() + bytes(32))

    # -- what the test asks for

    def output(self) -> bytes:
        out, self._out = self._out, b""
        return out

    def send(self, data: bytes, channel: int = 0) -> int:
        """A DATA packet; returns its seq."""
        return self._sealed(DATA, data, REQUIRE_ACK, channel)

    def heartbeat(self, **figures: int) -> int:
        """A HEARTBEAT with these figures; returns its seq."""
        assert set(figures) <= set(FIGURES)
        report = TELEMETRY_LAYOUT.pack(*(figures.get(name, 0) for name in FIGURES))
        if self.digest is not None:
            report += struct.pack("<I", self.digest)
        return self._sealed(HEARTBEAT, report, TELEMETRY)

    def probe(self, size: int, flags: int = 0) -> int:
        return self._sealed(DISCOVER, struct.pack(">H", size).ljust(size - 96, b"\0"), flags)

    def raw(self, type: int, plaintext: bytes, flags: int = 0) -> int:
        """Any packet; returns its seq."""
        return self._sealed(type, plaintext, flags)

    def rekey(self) -> None:
        """One way: the new key is in use from the next packet on."""
        fresh = self._new_key()
        self._sealed(REKEY, fresh.public_key().public_bytes_raw(), 0)
        self._private = fresh
        self._change_keys()

    def close(self, code: int | None = None) -> None:
        self._sealed(CLOSE, b"" if code is None else bytes([code]), 0)

    def report(self) -> dict[str, int]:
        """The figures of the last HEARTBEAT received."""
        last = [packet for packet in self.received if packet.type == HEARTBEAT][-1]
        return dict(zip(FIGURES, TELEMETRY_LAYOUT.unpack(last.plaintext), strict=True))

    # -- the stream

    def feed(self, data: bytes) -> None:
        self._in += data
        while len(self._in) >= 80:
            size = 80 + int.from_bytes(self._in[44:46], "big")
            if len(self._in) < size:
                return
            packet, self._in = self._in[:size], self._in[size:]
            self._take(packet)

    def _take(self, packet: bytes) -> None:
        kind, reserved0, flags, seq, ack, session_id, stamp, _len, channel, reserved1, _mac = HEADER.unpack(
            packet[:80]
        )
        if kind >> 4 != 1 or reserved0 or reserved1:
            raise Broken(f"header {packet[:80].hex()}")
        kind &= 15
        payload = packet[80:]
        if not self.established and kind in (INIT, CHALLENGE):
            if (seq, flags) != (1, 0):
                raise Broken(f"type {kind} with seq {seq}, flags {flags:#x}")
            self._opening(kind, payload, session_id, stamp)
            return
        if session_id != self.session_id:
            raise Broken("another session id")
        plaintext, current = self._open(packet, seq, flags)
        if not self.established:
            self._closing(kind, plaintext, seq, flags)
            return
        if current and not self._fresh(seq):
            return
        self.received.append(Packet(kind, flags, seq, ack, session_id, stamp, channel, plaintext))
        if kind == CLOSE:
            self.closed = plaintext[0] if plaintext else -1
        elif kind == REKEY:
            if len(plaintext) != 32:
                raise Broken(f"a REKEY of {len(plaintext)} bytes")
            self._peer_key = plaintext
            self._change_keys()
        elif kind == DISCOVER and flags & REQUIRE_ACK:
            self._sealed(DISCOVER, plaintext, 0)
        elif kind == HEARTBEAT or (flags & REQUIRE_ACK and kind in ACKNOWLEDGED):
            self._sealed(ACK, b"", CONFIG_LOCKED if kind == CONFIG else 0)

    # -- the handshake

    def _opening(self, kind: int, payload: bytes, session_id: bytes, stamp: int) -> None:
        if self.client != (kind == CHALLENGE):
            raise Broken(f"type {kind} out of place")
        if self.client:
            if len(payload) != 98:
                raise Broken(f"a CHALLENGE of {len(payload)} bytes")
            self.session_id = session_id
            self._peer_key, seed = payload[:32], payload[32:64]
            difficulty = int.from_bytes(payload[64:66], "big")
            if payload[66:] != bytes(32):
                raise Broken("an address that is not zero")
            self._derive()
            counter = 0
            while zero_bits(seed, solution := struct.pack("<Q", counter) + bytes(24)) < difficulty:
                counter += 1
            assert self._keys is not None
            self._sealed(RESPONSE, solution + self._keys.proof(session_id), REQUIRE_ACK)
            return
        if len(payload) != 64 or payload[32:] != bytes(32):
            raise Broken(f"an INIT of {len(payload)} bytes, address {payload[32:].hex()}")
        if abs(stamp - self.monotonic()) > 60 * 10**9:
            raise Broken("an INIT whose clock is not this machine's monotonic one")
        self._peer_key = payload[:32]
        self.session_id, self._seed = self.random(16), self.random(32)
        self._plain(CHALLENGE, self._public() + self._seed + struct.pack(">H", DIFFICULTY) + bytes(32))
        self._derive()

    def _closing(self, kind: int, plaintext: bytes, seq: int, flags: int) -> None:
        if kind != (ACK if self.client else RESPONSE):
            raise Broken(f"type {kind} out of place")
        if not self.client:
            if len(plaintext) != 64 or not flags & ENCRYPTED:
                raise Broken(f"a RESPONSE with {len(plaintext)} bytes sealed")
            if zero_bits(self._seed, plaintext[:32]) < DIFFICULTY:
                raise Broken("the solution does not hold")
            if plaintext[8:32] != bytes(24):
                raise Broken("the solution is not a counter and zeros")
            assert self._keys is not None
            if plaintext[32:] != self._keys.proof(self.session_id):
                raise Broken("the proof does not hold")
        self._highest, self._fresh_window = seq, False
        self.established = True
        if not self.client:
            self._sealed(ACK, b"", 0, ack=1)  # not C0: whatever that rule is, it is its own

    # -- protection

    def _new_key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.random(32))

    def _public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def _derive(self) -> None:
        self._keys = Secrets(self._private.exchange(X25519PublicKey.from_public_bytes(self._peer_key)))
        self._seq = self._first = int.from_bytes(self.random(8), "big")

    def _change_keys(self) -> None:
        self._old_keys = self._keys
        self._derive()
        self._fresh_window = True
        self.epoch += 1

    def _fresh(self, seq: int) -> bool:
        if self._first <= seq < self._seq:
            self.refused.append(seq)
            return False
        if self._fresh_window:
            self._fresh_window, self._old_keys = False, None
        elif seq <= self._highest:
            return False
        self._highest = seq
        return True

    def _open(self, packet: bytes, seq: int, flags: int) -> tuple[bytes, bool]:
        """The plaintext, and whether the keys in use opened it rather than the ones before."""
        for keys in (self._keys, self._old_keys):
            if keys is None or keys.sign(packet[:80], packet[80:]) != packet:
                continue
            if not flags & ENCRYPTED:
                return packet[80:], keys is self._keys
            try:
                plaintext = keys.aead.decrypt(keys.nonce(seq), packet[80:], b"")
            except InvalidTag:
                raise Broken("a tag does not hold") from None
            return plaintext, keys is self._keys
        raise Broken("an hmac does not hold")

    def _plain(self, kind: int, payload: bytes) -> None:
        self._out += self._header(kind, 0, self._seq, 0, len(payload), 0) + payload

    def _sealed(
        self, kind: int, plaintext: bytes, flags: int, channel: int = 0, ack: int | None = None
    ) -> int:
        assert self._keys is not None
        seq = self._seq
        self._seq += 1
        payload = self._keys.aead.encrypt(self._keys.nonce(seq), plaintext, b"") if plaintext else b""
        flags |= ENCRYPTED if payload else 0
        header = self._header(kind, flags, seq, self._highest if ack is None else ack, len(payload), channel)
        self._out += self._keys.sign(header, payload)
        return seq

    def _header(self, kind: int, flags: int, seq: int, ack: int, size: int, channel: int) -> bytes:
        return HEADER.pack(
            0x10 | kind, 0, flags, seq, ack, self.session_id, self.monotonic(), size, channel, 0, bytes(32)
        )
