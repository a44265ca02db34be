# SPDX-License-Identifier: GPL-2.0-or-later
"""Codecs: layouts, addresses, key log lines, framing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poolref import wire
from poolref.address import Address, acceptable, checksum_holds, node_id_of
from poolref.connection import Framer
from poolref.constants import Flag, Type
from poolref.counters import DropReason
from poolref.errors import DecodeError
from poolref.keylog import KeylogEntry, parse_line
from poolref.wire import FIELDS, Challenge, FragmentHeader, Header, Init, Response, Telemetry

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)


def octets(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


headers = st.builds(
    Header,
    type=st.integers(0, 15),
    flags=u16,
    seq=u64,
    ack=u64,
    session_id=octets(16),
    timestamp=u64,
    channel=u8,
    hmac=octets(32),
    version=st.integers(0, 15),
    reserved0=u8,
    reserved1=u8,
)


def test_field_table_is_the_layout_of_the_specification() -> None:
    offsets = {field.name: (field.offset, field.size) for field in FIELDS["header"]}
    assert offsets == {
        "version_type": (0, 1),
        "reserved0": (1, 1),
        "flags": (2, 2),
        "seq": (4, 8),
        "ack": (12, 8),
        "session_id": (20, 16),
        "timestamp": (36, 8),
        "payload_len": (44, 2),
        "channel": (46, 1),
        "reserved1": (47, 1),
        "hmac": (48, 32),
    }
    sizes = {name: fields[-1].offset + fields[-1].size for name, fields in FIELDS.items()}
    assert sizes == {
        "header": 80,
        "init": 64,
        "challenge": 98,
        "response": 112,
        "address": 32,
        "fragment": 8,
        "telemetry": 44,
        "mtu_probe": 2,
        "announce": 76,
        "exchange": 2,
        "exchange_entry": 38,
        "config": 104,
        "parameters": 16,
        "journal_entry": 52,
        "journal_sync": 42,
        "rekey": 40,
        "integrity_challenge": 17,
        "integrity_answer": 81,
        "integrity_state": 73,
    }


def test_each_header_field_lands_at_its_offset() -> None:
    """Independently of struct: set one field, look at the bytes."""
    values: dict[str, int | bytes] = {
        "flags": 0x0102,
        "seq": 0x0102030405060708,
        "ack": 0x1112131415161718,
        "session_id": bytes(range(16)),
        "timestamp": 0x2122232425262728,
        "payload_len": 0x3132,
        "channel": 0x41,
        "hmac": bytes(range(32)),
        "reserved0": 0x51,
        "reserved1": 0x52,
    }
    blank = Header(0, version=0).pack()
    for name, value in values.items():
        packed = Header(0, version=0, **{name: value}).pack()  # type: ignore[arg-type]
        field = next(field for field in FIELDS["header"] if field.name == name)
        expected = value if isinstance(value, bytes) else value.to_bytes(field.size, "big")
        assert packed[field.offset : field.offset + field.size] == expected
        rest = packed[: field.offset] + bytes(field.size) + packed[field.offset + field.size :]
        assert rest == blank
    assert Header(0xC, version=1).pack()[0] == 0x1C


@given(headers, st.binary(max_size=300))
def test_header_round_trip(header: Header, payload: bytes) -> None:
    header.payload_len = len(payload)
    assert wire.parse(header.pack() + payload) == header


@given(st.binary(max_size=400))
def test_parse_reads_or_refuses_any_bytes(packet: bytes) -> None:
    try:
        header = wire.parse(packet)
    except DecodeError:
        assert len(packet) < 80 or len(packet) != 80 + int.from_bytes(packet[44:46], "big")
    else:
        assert len(packet) == 80 + header.payload_len
        assert header.pack() == packet[:80]


@pytest.mark.parametrize("more", [-1, 1, 80])
def test_a_packet_has_exactly_the_bytes_that_its_header_says(more: int) -> None:
    packet = wire.build(Type.DATA, bytes(100))
    with pytest.raises(DecodeError):
        wire.parse((packet + bytes(80))[: len(packet) + more])


@pytest.mark.parametrize("size", [0, 1, 79])
def test_a_truncated_header_says_where(size: int) -> None:
    with pytest.raises(DecodeError) as error:
        wire.parse(bytes(size))
    assert (error.value.offset, error.value.field) == (size, "header")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (Init(b"a" * 32, b"b" * 32), 64),
        (Challenge(b"a" * 32, b"b" * 32, 0x1234, b"c" * 32), 98),
        (Response(b"a" * 32, b"b" * 32, b"c" * 48), 112),
        (Telemetry(1, 2, 3, 4, 5, 6, 7, 8, 9), 44),
    ],
)
def test_payload_round_trip_and_exact_size(value: Init, size: int) -> None:
    packed = value.pack()
    assert len(packed) == size
    assert type(value).unpack(packed) == value
    for wrong in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(DecodeError):
            type(value).unpack(wrong)


def test_challenge_difficulty_is_big_endian() -> None:
    assert Challenge(bytes(32), bytes(32), 0x0110, bytes(32)).pack()[64:66] == b"\x01\x10"


def test_fragment_header() -> None:
    header = FragmentHeader(0x01020304, 0x0506, 0x0708)
    assert header.pack() == bytes(range(1, 9))
    assert FragmentHeader.unpack_from(header.pack() + b"bytes") == header
    with pytest.raises(DecodeError):
        FragmentHeader.unpack_from(bytes(7))


def test_telemetry_saturates_its_narrow_fields() -> None:
    packed = Telemetry(
        loss_rate_ppm=1 << 32, throughput_bps=1 << 40, mtu=1 << 16, queue_depth=1 << 20, rekey_count=1 << 33,
        config_version=1 << 50,
    ).pack()  # fmt: skip
    assert struct.unpack(">QQIIHHQII", packed) == (
        0, 0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFF, 0xFFFF, 0, 0xFFFFFFFF, 0xFFFFFFFF,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"version": 2}, DropReason.VERSION_MISMATCH),
        ({"version": 0}, DropReason.VERSION_MISMATCH),
        ({"reserved0": 1}, DropReason.MALFORMED),
        ({"reserved1": 1}, DropReason.MALFORMED),
        ({"channel": 255}, None),
        ({"type": Type.HEARTBEAT, "channel": 1}, DropReason.MALFORMED),
        ({"flags": Flag.ENCRYPTED | Flag.COMPRESSED, "payload_len": 40}, DropReason.MALFORMED),
        ({"flags": Flag.ENCRYPTED, "payload_len": 16}, DropReason.MALFORMED),
        ({"flags": Flag.ENCRYPTED, "payload_len": 0}, DropReason.MALFORMED),
        ({"flags": Flag.ENCRYPTED, "payload_len": 17}, None),
        ({"type": Type.ACK}, None),
        ({"type": Type.ACK, "flags": Flag.ENCRYPTED, "payload_len": 17}, DropReason.MALFORMED),
        ({"type": Type.RESPONSE, "flags": Flag.ENCRYPTED, "payload_len": 111}, DropReason.MALFORMED),
        ({"type": Type.RESPONSE, "flags": Flag.ENCRYPTED, "payload_len": 112}, None),
        *(({"flags": 1 << bit}, DropReason.MALFORMED) for bit in range(10, 16)),
        *(({"flags": 1 << bit}, None) for bit in range(2, 10)),
    ],
)
def test_what_the_header_alone_tells(changes: dict[str, int], reason: DropReason | None) -> None:
    assert wire.check(Header(**{"type": Type.DATA, **changes})) is reason  # type: ignore[arg-type]


def test_address_text_and_checksum() -> None:
    address = Address(0x01000001, 2, 3, node_id_of(b"k" * 32))
    packed = address.pack()
    assert len(packed) == 32
    assert checksum_holds(packed)
    assert Address.unpack(packed) == address
    text = str(address)
    assert [len(part) for part in text.split(":")] == [5, 8, 16, 16, 16, 8]
    assert text.replace("pool1", "").replace(":", "") == packed.hex()
    assert Address.parse(text) == address
    assert acceptable(packed)
    assert acceptable(bytes(32))
    for bit in range(256):
        broken = bytearray(packed)
        broken[bit // 8] ^= 1 << bit % 8
        assert not acceptable(broken)
        with pytest.raises(DecodeError):
            Address.unpack(broken)


def test_address_crc_known_answer() -> None:
    # of 28 zero bytes, from its definition: polynomial 0xEDB88320, reflected, inverted at both ends
    crc = 0xFFFFFFFF
    for _ in range(28 * 8):
        crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    assert Address(0, 0, 0, 0).pack()[28:] == (crc ^ 0xFFFFFFFF).to_bytes(4, "big")


@pytest.mark.parametrize(
    "text", ["", "pool1:", "pool2:" + "0" * 68, "POOL1:00000000:" + "0" * 16, "pool1:00000000"]
)
def test_address_text_that_is_none(text: str) -> None:
    with pytest.raises(DecodeError):
        Address.parse(text)
    valid = str(Address(1, 2, 3, 4))
    for bad in (valid.upper(), valid + "0", valid.replace(":", ""), valid[:-1] + "g"):
        with pytest.raises(DecodeError):
            Address.parse(bad)


@given(octets(16), st.integers(0, 2**32), octets(32), octets(32))
def test_keylog_round_trip(session_id: bytes, epoch: int, session_key: bytes, hmac_key: bytes) -> None:
    entry = KeylogEntry(session_id, epoch, session_key, hmac_key)
    assert parse_line(entry.line() + "\n") == entry


def test_keylog_lines_that_are_none() -> None:
    assert parse_line("") is None
    assert parse_line("# comment") is None
    good = KeylogEntry(bytes(16), 0, bytes(32), bytes(32)).line()
    for bad in (good + " more", good[:-1], good.replace(" 0 ", " x "), good.replace("POOL", "TLS"), "POOL"):
        with pytest.raises(DecodeError):
            parse_line(bad)


@given(st.lists(st.binary(max_size=100), max_size=8), st.data())
def test_framer_gives_the_packets_whatever_the_portions(payloads: list[bytes], data: st.DataObject) -> None:
    packets = [wire.build(Type.DATA, payload) for payload in payloads]
    stream = b"".join(packets)
    framer = Framer()
    received = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        framer.feed(stream[:size])
        stream = stream[size:]
        while (packet := framer.next_packet()) is not None:
            received.append(packet)
    assert received == packets
    assert len(framer) == 0
