# SPDX-License-Identifier: GPL-2.0-or-later
"""Packet layouts: one table of fields, and slotted dataclasses that pack and unpack by it.

:data:`FIELDS` is the single description of every fixed layout; the ``struct`` formats below are made from
it, and other implementations (dissectors, C structures) are checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from . import constants as c
from .constants import Flag, Type
from .counters import DropReason
from .errors import DecodeError

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Field:
    """One field: offset and size in bytes inside its layout, and the section of the specification it is
    from.
    """

    layout: str
    name: str
    offset: int
    size: int
    section: str

    @property
    def integer(self) -> bool:
        """Whether it is an unsigned big-endian integer rather than a string of bytes."""
        return self.size in _INTEGERS


_INTEGERS: Final = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _layout(layout: str, section: str, *fields: tuple[str, int]) -> tuple[Field, ...]:
    table = []
    offset = 0
    for name, size in fields:
        table.append(Field(layout, name, offset, size, section))
        offset += size
    return tuple(table)


_LAYOUTS: Final = (
    _layout(
        "header", "1",
        ("version_type", 1), ("reserved0", 1), ("flags", 2), ("seq", 8), ("ack", 8), ("session_id", 16),
        ("timestamp", 8), ("payload_len", 2), ("channel", 1), ("reserved1", 1), ("hmac", 32),
    ),
    _layout("init", "8", ("client_pubkey", 32), ("client_addr", 32)),
    _layout(
        "challenge", "8", ("server_pubkey", 32), ("puzzle_seed", 32), ("difficulty", 2), ("server_addr", 32)
    ),
    _layout("response", "8", ("client_pubkey", 32), ("solution", 32), ("sealed_proof", 48)),
    _layout(
        "address", "9", ("type_version", 4), ("org_id", 8), ("segment_id", 8), ("node_id", 8), ("crc32", 4)
    ),
    _layout("fragment", "10", ("msg_id", 4), ("offset", 2), ("total_len", 2)),
    _layout(
        "telemetry", "12",
        ("rtt_ns", 8), ("jitter_ns", 8), ("loss_rate_ppm", 4), ("throughput_bps", 4), ("mtu", 2),
        ("queue_depth", 2), ("uptime_ns", 8), ("rekey_count", 4), ("config_version", 4),
    ),
    _layout("mtu_probe", "11", ("probe_size", 2)),
    _layout("rekey", "13", ("epoch", 4), ("stage", 1), ("zero", 3), ("pubkey", 32)),
    _layout(
        "announce", "18",
        ("node_pubkey", 32), ("address", 32), ("listen_port", 2), ("version", 1), ("flags", 1),
        ("sessions", 4), ("uptime_s", 4),
    ),
    _layout("exchange", "18", ("count", 2)),
    _layout("exchange_entry", "18", ("ip", 4), ("port", 2), ("pubkey", 32)),
    _layout(
        "config", "14",
        ("version", 4), ("prev_version", 4), ("config_hash", 32), ("prev_hash", 32), ("timestamp", 8),
        ("deadline_ns", 8), ("params", 16),
    ),
    _layout(
        "parameters", "14",
        ("puzzle_difficulty", 1), ("zero", 1), ("heartbeat_sec", 2), ("rekey_packets", 4), ("rekey_sec", 4),
        ("mtu_min", 2), ("mtu_max", 2),
    ),
    _layout(
        "journal_entry", "17",
        ("timestamp", 8), ("config_before", 4), ("config_after", 4), ("change_hash", 32), ("change_type", 2),
        ("detail_length", 2),
    ),
    _layout("integrity_challenge", "16", ("op", 1), ("c", 16)),
    _layout("integrity_answer", "16", ("op", 1), ("c", 16), ("sealed_c", 32), ("mac", 32)),
    _layout(
        "integrity_state", "16",
        ("op", 1), ("epoch", 4), ("seq_sent", 8), ("highest_seq_received", 8), ("packets_sent", 8),
        ("packets_received", 8), ("config_version", 4), ("journal_head", 32),
    ),
    _layout("journal_sync", "17", ("first_index", 8), ("previous_hash", 32), ("count", 2)),
)  # fmt: skip

FIELDS: Final[dict[str, tuple[Field, ...]]] = {layout[0].layout: layout for layout in _LAYOUTS}


def struct_of(layout: str, order: str = ">") -> Struct:
    """The ``struct.Struct`` of a layout; ``order`` is ``>`` (the wire's) or ``<``."""
    return Struct(order + "".join(_INTEGERS.get(field.size, f"{field.size}s") for field in FIELDS[layout]))


def offset_of(layout: str, name: str) -> int:
    """Offset of a field in bytes; KeyError when there is none of that name."""
    for field in FIELDS[layout]:
        if field.name == name:
            return field.offset
    raise KeyError(f"{layout}.{name}")


_HEADER: Final = struct_of("header")
_PAYLOAD_LEN: Final = Struct(">H")
_INIT: Final = struct_of("init")
_CHALLENGE: Final = struct_of("challenge")
_RESPONSE: Final = struct_of("response")
_FRAGMENT: Final = struct_of("fragment")
_TELEMETRY: Final = {"big": struct_of("telemetry"), "little": struct_of("telemetry", "<")}

pack_header: Final = _HEADER.pack
"""From the values of the header's fields, in their order, to its 80 bytes."""

HMAC_OFFSET: Final = offset_of("header", "hmac")
PAYLOAD_LEN_OFFSET: Final = offset_of("header", "payload_len")
ZERO_HMAC: Final = bytes(c.HMAC_SIZE)
ZERO_SESSION_ID: Final = bytes(c.SESSION_ID_SIZE)


@dataclass(slots=True)
class Header:
    """The 80-byte header (WIRE-01).  ``type`` is a plain int: reserved types exist on the wire."""

    type: int
    flags: int = 0
    seq: int = 0
    ack: int = 0
    session_id: bytes = ZERO_SESSION_ID
    timestamp: int = 0
    payload_len: int = 0
    channel: int = 0
    hmac: bytes = ZERO_HMAC
    version: int = c.VERSION
    reserved0: int = 0
    reserved1: int = 0

    def pack(self) -> bytes:
        """The 80 bytes; struct.error when a value does not fit its field."""
        return _HEADER.pack(
            self.version << 4 | self.type, self.reserved0, self.flags, self.seq, self.ack, self.session_id,
            self.timestamp, self.payload_len, self.channel, self.reserved1, self.hmac,
        )  # fmt: skip


def parse(packet: Buffer) -> Header:
    """Read the header of one whole packet; DecodeError unless it has exactly 80 + payload_len bytes."""
    size = len(packet)
    if size < c.HEADER_SIZE:
        raise DecodeError(size, "header", "truncated")
    version_type, res0, flags, seq, ack, session_id, timestamp, payload_len, channel, res1, mac = (
        _HEADER.unpack_from(packet)
    )
    if size != c.HEADER_SIZE + payload_len:
        raise DecodeError(PAYLOAD_LEN_OFFSET, "payload_len", f"{payload_len} in a packet of {size} bytes")
    return Header(
        version_type & 0xF, flags, seq, ack, session_id, timestamp, payload_len, channel, mac,
        version_type >> 4, res0, res1,
    )  # fmt: skip


def packet_size(header: Buffer, offset: int = 0) -> int:
    """Bytes of the packet whose complete header starts at ``offset``."""
    size: int = c.HEADER_SIZE + _PAYLOAD_LEN.unpack_from(header, offset + PAYLOAD_LEN_OFFSET)[0]
    return size


def build(type: int, payload: bytes = b"", **fields: int | bytes) -> bytes:
    """A packet without protection: any header field may be given; payload_len follows from ``payload``."""
    header = Header(type, **{"payload_len": len(payload), **fields})  # type: ignore[arg-type]
    return header.pack() + payload


# Plain ints: comparing with members of an enumeration costs several times as much, for every packet.
_FORBIDDEN_FLAGS: Final = int(c.RESERVED_FLAGS | Flag.COMPRESSED)
_ENCRYPTED: Final = int(Flag.ENCRYPTED)
_DATA: Final = int(Type.DATA)
_ACK: Final = int(Type.ACK)
_RESPONSE_TYPE: Final = int(Type.RESPONSE)


def check(
    header: Header, version: int = c.VERSION, response_size: int = c.RESPONSE_SIZE
) -> DropReason | None:
    """What the header alone tells against a packet, whatever the state: WIRE-02, WIRE-03, WIRE-08, D-01."""
    if header.version != version:
        return DropReason.VERSION_MISMATCH
    flags = header.flags
    if header.reserved0 or header.reserved1 or flags & _FORBIDDEN_FLAGS:
        return DropReason.MALFORMED
    if flags & _ENCRYPTED and header.payload_len <= c.TAG_SIZE:
        return DropReason.MALFORMED
    type = header.type
    if type == _DATA:
        return None
    if (
        header.channel
        or (type == _ACK and header.payload_len)
        or (type == _RESPONSE_TYPE and header.payload_len < response_size)
    ):
        return DropReason.MALFORMED
    return None


def plain(header: Header, seq: int = 0) -> bool:
    """Whether a header fits a packet sent before keys exist: no flags, this seq, no hmac (SEQ-03, section
    1).
    """
    return not header.flags and header.seq == seq and header.hmac == ZERO_HMAC


def advisory_close(code: int, timestamp: int, ack: int = 0) -> bytes:
    """The unauthenticated CLOSE of a handshake (section 15); ``ack`` is the echo of HS-14."""
    return build(Type.CLOSE, bytes([code]), timestamp=timestamp, ack=ack)


def advisory_code(header: Header, packet: Buffer) -> int | None:
    """The code of an advisory CLOSE; None for a packet that is not one."""
    if header.type == Type.CLOSE and header.payload_len == 1 and plain(header):
        return packet[c.HEADER_SIZE]
    return None


def sized(payload: Buffer, size: int, layout: str) -> None:
    """DecodeError unless ``payload`` has exactly ``size`` bytes."""
    if len(payload) != size:
        raise DecodeError(min(len(payload), size), layout, f"{len(payload)} bytes instead of {size}")


@dataclass(slots=True)
class Init:
    """INIT payload (64 bytes)."""

    client_pubkey: bytes
    client_addr: bytes

    def pack(self) -> bytes:
        return _INIT.pack(self.client_pubkey, self.client_addr)

    @classmethod
    def unpack(cls, payload: Buffer) -> Init:
        """DecodeError unless it has 64 bytes."""
        sized(payload, _INIT.size, "init")
        return cls(*_INIT.unpack(payload))


@dataclass(slots=True)
class Challenge:
    """CHALLENGE payload (98 bytes)."""

    server_pubkey: bytes
    puzzle_seed: bytes
    difficulty: int
    server_addr: bytes

    def pack(self) -> bytes:
        return _CHALLENGE.pack(self.server_pubkey, self.puzzle_seed, self.difficulty, self.server_addr)

    @classmethod
    def unpack(cls, payload: Buffer) -> Challenge:
        """DecodeError unless it has 98 bytes."""
        sized(payload, _CHALLENGE.size, "challenge")
        return cls(*_CHALLENGE.unpack(payload))


@dataclass(slots=True)
class Response:
    """RESPONSE payload (112 bytes); ``sealed_proof`` is 32 bytes of proof with its tag."""

    client_pubkey: bytes
    solution: bytes
    sealed_proof: bytes

    def pack(self) -> bytes:
        return _RESPONSE.pack(self.client_pubkey, self.solution, self.sealed_proof)

    @classmethod
    def unpack(cls, payload: Buffer) -> Response:
        """DecodeError unless it has 112 bytes."""
        sized(payload, _RESPONSE.size, "response")
        return cls(*_RESPONSE.unpack(payload))


@dataclass(slots=True)
class FragmentHeader:
    """What precedes the bytes of a fragment (FRAG-01)."""

    msg_id: int
    offset: int
    total_len: int

    def pack(self) -> bytes:
        return _FRAGMENT.pack(self.msg_id, self.offset, self.total_len)

    @classmethod
    def unpack_from(cls, plaintext: Buffer) -> FragmentHeader:
        """Read the first 8 bytes; DecodeError when there are fewer."""
        if len(plaintext) < _FRAGMENT.size:
            raise DecodeError(len(plaintext), "fragment", "truncated")
        return cls(*_FRAGMENT.unpack_from(plaintext))


_U16: Final = (1 << 16) - 1
_U32: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Telemetry:
    """HEARTBEAT plaintext (44 bytes, section 12)."""

    rtt_ns: int = 0
    jitter_ns: int = 0
    loss_rate_ppm: int = 0
    throughput_bps: int = 0
    mtu: int = 0
    queue_depth: int = 0
    uptime_ns: int = 0
    rekey_count: int = 0
    config_version: int = 0

    def pack(self, order: str = "big") -> bytes:
        """Narrow fields saturate, they do not wrap (HB-03)."""
        return _TELEMETRY[order].pack(
            self.rtt_ns, self.jitter_ns, min(self.loss_rate_ppm, _U32), min(self.throughput_bps, _U32),
            min(self.mtu, _U16), min(self.queue_depth, _U16), self.uptime_ns, min(self.rekey_count, _U32),
            min(self.config_version, _U32),
        )  # fmt: skip

    @classmethod
    def unpack(cls, plaintext: Buffer, order: str = "big") -> Telemetry:
        """DecodeError unless it has 44 bytes."""
        sized(plaintext, c.TELEMETRY_SIZE, "telemetry")
        return cls(*_TELEMETRY[order].unpack(plaintext))
