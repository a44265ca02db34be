# SPDX-License-Identifier: GPL-2.0-or-later
# ruff: noqa: RUF012 - scapy's fields_desc is a list
"""A layer for every payload of version 1 (protocol.md sections 8 to 18).

Lengths, counts, checksums and hashes left None are filled in when the packet is built; any explicit value,
0 included, goes out as it is.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from enum import StrEnum
from typing import Any

from scapy.fields import (
    ByteEnumField,
    ByteField,
    Field,
    FieldLenField,
    IntField,
    IPField,
    LongField,
    PacketLenField,
    PacketListField,
    ShortEnumField,
    ShortField,
    StrField,
    StrLenField,
    ThreeBytesField,
    XIntField,
    XLongField,
    XStrField,
    XStrFixedLenField,
)
from scapy.packet import Packet

from poolref.address import ZERO_ADDRESS
from poolref.constants import ADDRESS_SIZE, HEADER_SIZE, MAX_MESSAGE, TAG_SIZE, ErrorCode

_KEY = bytes(32)
_CRC_OFFSET = ADDRESS_SIZE - 4


class Auth(StrEnum):
    """What came of authenticating a packet."""

    OK = "OK"
    BAD = "BAD"
    NO_KEY = "NO_KEY"


class _OptionalByte(ByteEnumField):
    """A byte that may be left out: None is no byte."""

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        return s if val is None else s + struct.pack("B", val)

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, Any]:
        return (s[1:], s[0]) if s else (s, None)


class Verdict(Field[Any, Any]):
    """A field without bytes: what was found out about the layer."""

    def __init__(self, name: str) -> None:
        super().__init__(name, None, "0s")

    def addfield(self, pkt: Any, s: bytes, val: Any) -> bytes:
        return s

    def getfield(self, pkt: Any, s: bytes) -> tuple[bytes, Any]:
        return s, None

    def i2repr(self, pkt: Any, x: Any) -> str:
        return str(x)


class _Element(Packet):
    """Part of another layer: what follows it belongs to that one."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class PoolAddress(_Element):
    """Section 9.  ``crc32`` None: right, and zero in an address that is all zero (HS-12)."""

    name = "POOL address"
    fields_desc = [
        IntField("type_version", 0),
        XLongField("org_id", 0),
        XLongField("segment_id", 0),
        XLongField("node_id", 0),
        XIntField("crc32", None),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.crc32 is None and pkt != ZERO_ADDRESS:
            pkt = pkt[:_CRC_OFFSET] + zlib.crc32(pkt[:_CRC_OFFSET]).to_bytes(4, "big")
        return pkt + pay


def _address(name: str) -> PacketLenField:
    return PacketLenField(name, PoolAddress(), PoolAddress, length_from=lambda pkt: ADDRESS_SIZE)


class PoolInit(Packet):
    """INIT, 64 bytes."""

    name = "POOL INIT"
    fields_desc = [XStrFixedLenField("client_pubkey", _KEY, 32), _address("client_addr")]


class PoolChallenge(Packet):
    """CHALLENGE, 98 bytes."""

    name = "POOL CHALLENGE"
    fields_desc = [
        XStrFixedLenField("server_pubkey", _KEY, 32),
        XStrFixedLenField("puzzle_seed", _KEY, 32),
        ShortField("difficulty", 16),
        _address("server_addr"),
    ]


class PoolResponse(Packet):
    """The part of a RESPONSE in clear, 64 bytes; PoolProof, or PoolSealed without keys, follows."""

    name = "POOL RESPONSE"
    fields_desc = [XStrFixedLenField("client_pubkey", _KEY, 32), XStrFixedLenField("solution", _KEY, 32)]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        return PoolProof if getattr(self.underlayer, "auth", None) is Auth.OK else PoolSealed


class PoolProof(Packet):
    """HMAC(shared, session_id), the sealed part of a RESPONSE (HS-08)."""

    name = "POOL proof"
    fields_desc = [XStrFixedLenField("proof", _KEY, 32)]


class PoolSealed(Packet):
    """Sealed bytes that were not opened, tag included; built as they are, never sealed again."""

    name = "POOL sealed"
    fields_desc = [XStrField("sealed", b"")]


class PoolData(Packet):
    """A whole message (DATA)."""

    name = "POOL DATA"
    fields_desc = [StrField("data", b"")]


_TOTAL_LEN = slice(6, 8)


class PoolFragment(Packet):
    """A fragment of a message (DATA with FRAGMENT, FRAG-01).  ``total_len`` None: this is its end."""

    name = "POOL fragment"
    fields_desc = [
        IntField("msg_id", 0),
        ShortField("offset", 0),
        ShortField("total_len", None),
        StrField("data", b""),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.total_len is None:
            total = min(self.offset + len(self.data), MAX_MESSAGE)
            pkt = pkt[: _TOTAL_LEN.start] + total.to_bytes(2, "big") + pkt[_TOTAL_LEN.stop :]
        return pkt + pay


class PoolAck(Packet):
    """ACK; no bytes."""

    name = "POOL ACK"
    fields_desc = []


class PoolHeartbeat(Packet):
    """Telemetry, 44 bytes (section 12)."""

    name = "POOL HEARTBEAT"
    fields_desc = [
        LongField("rtt_ns", 0),
        LongField("jitter_ns", 0),
        IntField("loss_rate_ppm", 0),
        IntField("throughput_bps", 0),
        ShortField("mtu", 1400),
        ShortField("queue_depth", 0),
        LongField("uptime_ns", 0),
        IntField("rekey_count", 0),
        IntField("config_version", 0),
    ]


class PoolRekey(Packet):
    """REKEY, 40 bytes (section 13)."""

    name = "POOL REKEY"
    fields_desc = [
        IntField("epoch", 1),
        ByteEnumField("stage", 1, {1: "propose", 2: "accept"}),
        ThreeBytesField("zero", 0),
        XStrFixedLenField("pubkey", _KEY, 32),
    ]


class PoolClose(Packet):
    """CLOSE; ``code`` None is an empty payload (section 15)."""

    name = "POOL CLOSE"
    fields_desc = [_OptionalByte("code", None, {code.value: code.name for code in ErrorCode})]


_PARAMS_OFFSET = 88


class PoolConfig(Packet):
    """CONFIG, 104 bytes (section 14).  ``config_hash`` None: SHA-256(version, params)."""

    name = "POOL CONFIG"
    fields_desc = [
        IntField("version", 1),
        IntField("prev_version", 0),
        XStrFixedLenField("config_hash", None, 32),
        XStrFixedLenField("prev_hash", _KEY, 32),
        LongField("timestamp", 0),
        LongField("deadline_ns", 5_000_000_000),
        ByteField("puzzle_difficulty", 16),
        ByteField("zero", 0),
        ShortField("heartbeat_sec", 5),
        IntField("rekey_packets", 1 << 28),
        IntField("rekey_sec", 3600),
        ShortField("mtu_min", 512),
        ShortField("mtu_max", 1400),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.config_hash is None:
            pkt = pkt[:8] + hashlib.sha256(pkt[:4] + pkt[_PARAMS_OFFSET:]).digest() + pkt[40:]
        return pkt + pay


class PoolRollback(Packet):
    """ROLLBACK; no bytes."""

    name = "POOL ROLLBACK"
    fields_desc = []


class PoolProbe(Packet):
    """An MTU probe (MTU-01).  ``padding`` None: zeros, so that the sealed packet has ``probe_size`` bytes."""

    name = "POOL MTU probe"
    fields_desc = [ShortField("probe_size", 1400), XStrField("padding", None)]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        if self.padding is None:
            pkt += bytes(max(0, self.probe_size - HEADER_SIZE - TAG_SIZE - len(pkt)))
        return pkt + pay


class PoolProbeAnswer(Packet):
    """The answer to an MTU probe, 2 bytes."""

    name = "POOL MTU probe answer"
    fields_desc = [ShortField("probe_size", 1400)]


class PoolPeer(_Element):
    """One peer of an exchange, 38 bytes."""

    name = "POOL peer"
    fields_desc = [IPField("ip", "0.0.0.0"), ShortField("port", 9253), XStrFixedLenField("pubkey", _KEY, 32)]


class PoolPeers(Packet):
    """Peer exchange (DISCOVER with TELEMETRY, DISC-03)."""

    name = "POOL peers"
    fields_desc = [
        FieldLenField("count", None, fmt="H", count_of="peers"),
        PacketListField("peers", [], PoolPeer, count_from=lambda pkt: pkt.count),
    ]


class PoolJournalEntry(_Element):
    """One journal entry (section 17); ``change_hash`` is the caller's to chain."""

    name = "POOL journal entry"
    fields_desc = [
        LongField("timestamp", 0),
        IntField("config_before", 0),
        IntField("config_after", 0),
        XStrFixedLenField("change_hash", _KEY, 32),
        ShortEnumField(
            "change_type",
            1,
            {1: "CONNECT", 2: "DISCONNECT", 3: "CONFIG", 4: "REKEY", 5: "ERROR", 6: "DATA", 7: "INTEGRITY"},
        ),
        FieldLenField("detail_length", None, fmt="H", length_of="detail"),
        StrLenField("detail", b"", length_from=lambda pkt: pkt.detail_length),
    ]


class PoolJournal(Packet):
    """Entries of a journal (JRN-03)."""

    name = "POOL JOURNAL"
    fields_desc = [
        LongField("first_index", 0),
        XStrFixedLenField("previous_hash", _KEY, 32),
        FieldLenField("count", None, fmt="H", count_of="entries"),
        PacketListField("entries", [], PoolJournalEntry, count_from=lambda pkt: pkt.count),
    ]


class PoolJournalRequest(Packet):
    """A request for a journal; no bytes."""

    name = "POOL JOURNAL request"
    fields_desc = []


_OPS = {1: "challenge", 2: "answer", 3: "state"}


class PoolIntegrityChallenge(Packet):
    """INTEGRITY, op 1 (section 16)."""

    name = "POOL INTEGRITY challenge"
    fields_desc = [ByteEnumField("op", 1, _OPS), XStrFixedLenField("c", bytes(16), 16)]


class PoolIntegrityAnswer(Packet):
    """INTEGRITY, op 2."""

    name = "POOL INTEGRITY answer"
    fields_desc = [
        ByteEnumField("op", 2, _OPS),
        XStrFixedLenField("c", bytes(16), 16),
        XStrFixedLenField("sealed_c", _KEY, 32),
        XStrFixedLenField("mac", _KEY, 32),
    ]


class PoolIntegrityState(Packet):
    """INTEGRITY, op 3."""

    name = "POOL INTEGRITY state"
    fields_desc = [
        ByteEnumField("op", 3, _OPS),
        IntField("epoch", 0),
        LongField("seq_sent", 0),
        LongField("highest_seq_received", 0),
        LongField("packets_sent", 0),
        LongField("packets_received", 0),
        IntField("config_version", 0),
        XStrFixedLenField("journal_head", _KEY, 32),
    ]


class PoolAnnounce(Packet):
    """The multicast announcement, 76 bytes in a UDP datagram of its own (DISC-01)."""

    name = "POOL announce"
    fields_desc = [
        XStrFixedLenField("node_pubkey", _KEY, 32),
        _address("address"),
        ShortField("listen_port", 9253),
        ByteField("version", 1),
        ByteField("flags", 0),
        IntField("sessions", 0),
        IntField("uptime_s", 0),
    ]
