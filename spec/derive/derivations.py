# SPDX-License-Identifier: GPL-2.0-or-later
"""What sections 8 and 12 to 18 of the protocol compute, beside what derive.py has.

Like derive.py it is written from the text alone and imports no implementation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from derive import X25519_BASE, aead_seal, hkdf, hmac_sha256, sha256, x25519

# Flags of section 3.
ENCRYPTED, COMPRESSED, PRIORITY, FRAGMENT, LAST_FRAG, REQUIRE_ACK, TELEMETRY = (1 << bit for bit in range(7))
INIT, CHALLENGE, RESPONSE, DATA, ACK, HEARTBEAT, REKEY, CLOSE = range(8)
CONFIG, ROLLBACK, DISCOVER, JOURNAL, INTEGRITY = range(8, 13)
SECOND = 10**9
SERVER_BASE = 2**62


def public(private: bytes) -> bytes:
    return x25519(private, X25519_BASE)


# -- section 8 -----------------------------------------------------------------------------------------


def session_id_of(
    secret: bytes, issue_time: int, difficulty: int, random: bytes, client_ip: bytes, client_pubkey: bytes
) -> bytes:
    """HS-01, the recommended construction."""
    start = struct.pack(">IB", issue_time, difficulty) + random
    return start + hmac_sha256(secret, b"pool-sid" + start + client_ip + client_pubkey + b"\x01")[:8]


def server_ephemeral(secret: bytes, session_id: bytes) -> bytes:
    return hkdf(secret + session_id, b"pool-ephemeral", 32)


def puzzle_seed_of(secret: bytes, session_id: bytes, client_ip: bytes, client_pubkey: bytes) -> bytes:
    return hmac_sha256(secret, b"pool-puzzle" + session_id + client_ip + client_pubkey)


def proof_of(shared: bytes, session_id: bytes) -> bytes:
    """HS-08."""
    return hmac_sha256(shared, session_id)


# -- section 12 ----------------------------------------------------------------------------------------

TELEMETRY_FIELDS = {
    "rtt_ns": 64, "jitter_ns": 64, "loss_rate_ppm": 32, "throughput_bps": 32, "mtu": 16, "queue_depth": 16,
    "uptime_ns": 64, "rekey_count": 32, "config_version": 32,
}  # fmt: skip


def telemetry(values: dict[str, int]) -> bytes:
    """The plaintext of 44 bytes; a field saturates (HB-03)."""
    return b"".join(
        min(values[name], 2**bits - 1).to_bytes(bits // 8, "big") for name, bits in TELEMETRY_FIELDS.items()
    )


# -- section 13 ----------------------------------------------------------------------------------------


def rekey_plaintext(epoch: int, stage: int, pubkey: bytes) -> bytes:
    return struct.pack(">IB3x", epoch, stage) + pubkey


def rekeyed(old_shared: bytes, exchanged: bytes) -> bytes:
    """RK-02: the shared secret of the next epoch."""
    return hkdf(exchanged + old_shared, b"pool-rekey", 32)


# -- section 14 ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    puzzle_difficulty: int = 16
    heartbeat_sec: int = 5
    rekey_packets: int = 2**28
    rekey_sec: int = 3600
    mtu_min: int = 512
    mtu_max: int = 1400
    zero: int = 0

    def pack(self) -> bytes:
        return struct.pack(
            ">BBHIIHH", self.puzzle_difficulty, self.zero, self.heartbeat_sec, self.rekey_packets,
            self.rekey_sec, self.mtu_min, self.mtu_max,
        )  # fmt: skip


def config_hash(version: int, params: bytes) -> bytes:
    return sha256(struct.pack(">I", version) + params)


@dataclass(frozen=True)
class Config:
    version: int = 1
    prev_version: int = 0
    prev_hash: bytes = bytes(32)
    timestamp: int = 1_700_000_000 * SECOND
    deadline_ns: int = 60 * SECOND
    params: Params = Params()

    @property
    def hash(self) -> bytes:
        return config_hash(self.version, self.params.pack())

    def pack(self) -> bytes:
        return (
            struct.pack(">II", self.version, self.prev_version)
            + self.hash
            + self.prev_hash
            + struct.pack(">QQ", self.timestamp, self.deadline_ns)
            + self.params.pack()
        )


# -- section 16 ----------------------------------------------------------------------------------------


def integrity_keys(shared: bytes) -> tuple[bytes, bytes]:
    """k_int and k_int_mac."""
    return hkdf(shared, b"pool-integrity-key", 32), hkdf(shared, b"pool-integrity-mac", 32)


def integrity_answer(shared: bytes, role: int, challenge: bytes) -> bytes:
    """The plaintext of op 2, 81 bytes."""
    key, mac_key = integrity_keys(shared)
    tagged = bytes([role]) + challenge
    sealed = aead_seal(key, sha256(tagged)[:12], challenge)
    return b"\x02" + challenge + sealed + hmac_sha256(mac_key, tagged)


# -- section 17 ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    timestamp: int
    config_before: int
    config_after: int
    change_type: int
    detail: bytes

    def change_hash(self, previous: bytes) -> bytes:
        """JRN-01."""
        return sha256(
            previous
            + struct.pack(
                ">QIIHH", self.timestamp, self.config_before, self.config_after, self.change_type,
                len(self.detail),
            )
            + self.detail
        )  # fmt: skip

    def pack(self, change_hash: bytes) -> bytes:
        return (
            struct.pack(">QII", self.timestamp, self.config_before, self.config_after)
            + change_hash
            + struct.pack(">HH", self.change_type, len(self.detail))
            + self.detail
        )


def chain(previous: bytes, entries: list[Entry]) -> list[bytes]:
    """The change_hash of each entry."""
    hashes = []
    for entry in entries:
        previous = entry.change_hash(previous)
        hashes.append(previous)
    return hashes


def journal_sync(first_index: int, previous: bytes, entries: list[Entry]) -> bytes:
    """JRN-03: the plaintext of one JOURNAL packet."""
    packed = [entry.pack(h) for entry, h in zip(entries, chain(previous, entries), strict=True)]
    return struct.pack(">Q", first_index) + previous + struct.pack(">H", len(entries)) + b"".join(packed)


# -- section 18 ----------------------------------------------------------------------------------------


def announce(
    pubkey: bytes, address: bytes, port: int, version: int, flags: int, sessions: int, uptime_s: int
) -> bytes:
    """DISC-01, 76 bytes."""
    return pubkey + address + struct.pack(">HBBII", port, version, flags, sessions, uptime_s)


def exchange(peers: list[tuple[bytes, int, bytes]]) -> bytes:
    """DISC-03: (ip 4, port, pubkey) each."""
    rows = b"".join(ip + struct.pack(">H", port) + pubkey for ip, port, pubkey in peers)
    return struct.pack(">H", len(peers)) + rows
