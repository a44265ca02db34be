# SPDX-License-Identifier: GPL-2.0-or-later
"""Layouts, and what is filled in and what is left alone when a packet is built."""

from __future__ import annotations

import hashlib
import random
import zlib
from typing import Any

import pytest
from scapy.compat import raw
from scapy_captured import capture

import scapy_pool as sp
from poolref import wire
from poolref.address import Address
from poolref.constants import Flag, Type
from poolref.keys import Keys
from poolref.wire import FIELDS, Header, Telemetry

LAYERS: dict[str, Any] = {
    "header": sp.Pool,
    "init": sp.PoolInit,
    "challenge": sp.PoolChallenge,
    "response": sp.PoolResponse,
    "address": sp.PoolAddress,
    "fragment": sp.PoolFragment,
    "telemetry": sp.PoolHeartbeat,
    "mtu_probe": sp.PoolProbeAnswer,
    "announce": sp.PoolAnnounce,
    "exchange": sp.PoolPeers,
    "exchange_entry": sp.PoolPeer,
    "config": sp.PoolConfig,
    "parameters": sp.PoolConfig,
    "journal_entry": sp.PoolJournalEntry,
    "journal_sync": sp.PoolJournal,
    "rekey": sp.PoolRekey,
    "integrity_challenge": sp.PoolIntegrityChallenge,
    "integrity_answer": sp.PoolIntegrityAnswer,
    "integrity_state": sp.PoolIntegrityState,
}
OFFSETS = {"parameters": wire.offset_of("config", "params")}
"""Layouts that are part of a layer, and where they begin in it."""


def zeroed(cls: Any) -> Any:
    """A layer in which every byte is zero, set explicitly."""
    layer = cls()
    for item in layer.fields_desc:
        if item.name in ("auth", "data", "detail"):
            continue
        size = item.sz if item.sz >= 1 else 1
        is_bytes = isinstance(layer.getfieldval(item.name), bytes) or item.name in ("hmac", "config_hash")
        setattr(layer, item.name, bytes(size) if is_bytes else bytes(32) if "addr" in item.name else 0)
    return layer


def test_every_layout_of_the_reference_has_a_layer() -> None:
    assert LAYERS.keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("layout", "item"),
    [pytest.param(name, item, id=f"{name}.{item.name}") for name, items in FIELDS.items() for item in items],
)
def test_offset_and_size_are_those_of_the_reference(layout: str, item: wire.Field) -> None:
    layer = zeroed(LAYERS[layout])
    start = OFFSETS.get(layout, 0)
    total = sum(other.size for other in FIELDS["config" if start else layout])
    if item.name == "params":
        for part in FIELDS["parameters"]:
            setattr(layer, part.name, (1 << 8 * part.size) - 1)
    elif item.name == "sealed_proof":
        layer = layer / sp.PoolSealed(sealed=b"\xff" * item.size)
    elif item.name == "version_type":
        layer.version = layer.type = 15
    elif item.integer or item.size == 3:
        setattr(layer, item.name, (1 << 8 * item.size) - 1)
    else:
        setattr(layer, item.name, b"\xff" * item.size)
    expected = bytearray(total if layout != "response" or item.name == "sealed_proof" else 64)
    expected[start + item.offset : start + item.offset + item.size] = b"\xff" * item.size
    assert raw(layer) == bytes(expected)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (sp.PoolInit(), 64),
        (sp.PoolChallenge(), 98),
        (sp.PoolResponse() / sp.PoolSealed(bytes(48)), 112),
        (sp.PoolProof(), 32),
        (sp.PoolHeartbeat(), 44),
        (sp.PoolRekey(), 40),
        (sp.PoolConfig(), 104),
        (sp.PoolPeer(), 38),
        (sp.PoolIntegrityChallenge(), 17),
        (sp.PoolIntegrityAnswer(), 81),
        (sp.PoolIntegrityState(), 1 + 4 + 8 + 8 + 8 + 8 + 4 + 32),
        (sp.PoolJournal(), 8 + 32 + 2),
        (sp.PoolJournalEntry(), 8 + 4 + 4 + 32 + 2 + 2),
        (sp.PoolAnnounce(), 76),
        (sp.PoolClose(), 0),
        (sp.PoolClose(code=0), 1),
        (sp.PoolAck(), 0),
    ],
)
def test_sizes_are_those_of_the_protocol(layer: Any, size: int) -> None:
    assert len(raw(layer)) == size


CONFIG_OFFSETS = {
    "version": (0, 4), "prev_version": (4, 4), "config_hash": (8, 32), "prev_hash": (40, 32),
    "timestamp": (72, 8), "deadline_ns": (80, 8), "puzzle_difficulty": (88, 1), "zero": (89, 1),
    "heartbeat_sec": (90, 2), "rekey_packets": (92, 4), "rekey_sec": (96, 4), "mtu_min": (100, 2),
    "mtu_max": (102, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIG_OFFSETS)
def test_config_offsets_are_those_of_section_14(name: str) -> None:
    layer = zeroed(sp.PoolConfig)
    offset, size = CONFIG_OFFSETS[name]
    setattr(layer, name, b"\xff" * size if size == 32 else (1 << 8 * size) - 1)
    expected = bytearray(104)
    expected[offset : offset + size] = b"\xff" * size
    assert raw(layer) == bytes(expected)


def test_a_header_is_that_of_the_reference() -> None:
    rng = random.Random(5)
    for _ in range(20):
        values: dict[str, Any] = {
            "version": rng.randrange(16), "type": rng.randrange(16), "reserved0": rng.randrange(256),
            "flags": rng.randrange(1 << 16), "seq": rng.randrange(1 << 64), "ack": rng.randrange(1 << 64),
            "session_id": rng.randbytes(16), "timestamp": rng.randrange(1 << 64),
            "payload_len": rng.randrange(1 << 16), "channel": rng.randrange(256),
            "reserved1": rng.randrange(256), "hmac": rng.randbytes(32),
        }  # fmt: skip
        built = raw(sp.Pool(**values))
        assert built == Header(**values).pack()
        read = sp.Pool(built)
        assert {name: read.getfieldval(name) for name in values} == values


def test_a_heartbeat_is_that_of_the_reference() -> None:
    report = Telemetry(1, 2, 3, 4, 5, 6, 7, 8, 9)
    fields = {name: getattr(report, name) for name in Telemetry.__dataclass_fields__}
    assert raw(sp.PoolHeartbeat(**fields)) == report.pack()


def test_an_address_gets_its_checksum_unless_it_is_given_or_all_zero() -> None:
    assert raw(sp.PoolAddress(type_version=1, node_id=7)) == Address(1, 0, 0, 7).pack()
    assert raw(sp.PoolAddress()) == bytes(32)
    assert raw(sp.PoolAddress(type_version=1, crc32=0))[-4:] == bytes(4)
    assert (
        zlib.crc32(raw(sp.PoolAddress(org_id=9))[:28]) == sp.PoolAddress(raw(sp.PoolAddress(org_id=9))).crc32
    )


def protected(kind: int, plaintext: bytes, flags: int, keys: Keys) -> bytes:
    return keys.protect(Header(kind, flags, 5, 6, bytes(range(16)), 7, channel=3), plaintext)


def crafted(payload: Any, keys: Keys | None, **header: Any) -> sp.Pool:
    fields = {"seq": 5, "ack": 6, "session_id": bytes(range(16)), "timestamp": 7, "channel": 3, "keys": keys}
    packet: sp.Pool = sp.Pool(**{**fields, **header}) / payload
    return packet


def test_built_with_keys_a_packet_is_the_references() -> None:
    keys = Keys(b"s" * 32)
    expected = protected(Type.DATA, b"hello", Flag.REQUIRE_ACK, keys)
    assert raw(crafted(sp.PoolData(b"hello"), keys)) == expected
    ring = sp.KeyRing()
    ring.add(bytes(range(16)), keys)
    assert raw(sp.Pool(raw(crafted(sp.PoolData(b"hello"), keys)), keys=ring)) == expected


def test_an_empty_payload_is_not_sealed_but_signed() -> None:
    keys = Keys(b"s" * 32)
    assert raw(crafted(sp.PoolAck(), keys)) == protected(Type.ACK, b"", 0, keys)
    assert raw(crafted(sp.PoolClose(), keys)) == protected(Type.CLOSE, b"", 0, keys)
    assert raw(crafted(sp.PoolClose(code=0), keys)) == protected(Type.CLOSE, b"\0", 0, keys)


@pytest.mark.parametrize(("name", "value"), [("payload_len", 0), ("payload_len", 9), ("hmac", bytes(32))])
def test_an_explicit_value_goes_out_as_it_is(name: str, value: Any) -> None:
    keys = Keys(b"s" * 32)
    built = raw(crafted(sp.PoolData(b"hello"), keys, **{name: value}))
    header = Header(
        Type.DATA, Flag.REQUIRE_ACK | Flag.ENCRYPTED, 5, 6, bytes(range(16)), 7, channel=3, payload_len=21
    )
    setattr(header, name, value)
    sealed = keys.seal(5, b"hello")
    if name == "hmac":
        assert built == header.pack() + sealed
    else:
        # The hmac follows from what is really sent.
        assert built[: wire.HMAC_OFFSET] == header.pack()[: wire.HMAC_OFFSET]
        assert keys.authentic(built)
        assert built.endswith(sealed)


def test_explicit_flags_decide_about_sealing() -> None:
    keys = Keys(b"s" * 32)
    clear = raw(crafted(sp.PoolData(b"hello"), keys, flags=0))
    assert clear.endswith(b"hello")
    assert wire.parse(clear).flags == 0
    assert keys.authentic(clear)
    forged = raw(crafted(sp.PoolSealed(b"x" * 20), keys, type=Type.DATA))
    assert forged.endswith(b"x" * 20)
    assert wire.parse(forged).flags == Flag.ENCRYPTED
    assert keys.authentic(forged)


def test_without_keys_nothing_is_sealed_or_signed() -> None:
    built = raw(crafted(sp.PoolData(b"hello"), None))
    assert wire.parse(built).hmac == bytes(32)
    assert not wire.parse(built).flags & Flag.ENCRYPTED


def test_handshake_packets_without_keys_are_never_signed() -> None:
    keys = Keys(b"s" * 32)
    for layer in (sp.PoolInit(), sp.PoolChallenge()):
        assert wire.parse(raw(crafted(layer, keys))).hmac == bytes(32)


@pytest.mark.parametrize(
    "layer",
    [
        sp.PoolData(b"d"),
        sp.PoolFragment(msg_id=1, offset=2, total_len=9, data=b"frag"),
        sp.PoolHeartbeat(rtt_ns=3),
        sp.PoolRekey(epoch=4, pubkey=b"k" * 32),
        sp.PoolClose(code=9),
        sp.PoolConfig(version=2, timestamp=3),
        sp.PoolProbe(probe_size=900),
        sp.PoolProbeAnswer(probe_size=900),
        sp.PoolPeers(peers=[sp.PoolPeer(ip="192.0.2.1"), sp.PoolPeer(port=1)]),
        sp.PoolJournal(entries=[sp.PoolJournalEntry(detail=b"who"), sp.PoolJournalEntry(change_type=5)]),
        sp.PoolIntegrityChallenge(c=b"c" * 16),
        sp.PoolIntegrityAnswer(c=b"c" * 16),
        sp.PoolIntegrityState(epoch=1),
        sp.PoolAck(),
        sp.PoolRollback(),
        sp.PoolJournalRequest(),
        sp.PoolClose(),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{len(raw(layer))}",
)
def test_each_payload_comes_back_as_its_own_layer(layer: Any) -> None:
    keys = Keys(b"s" * 32)
    built = raw(crafted(layer, keys, channel=0))
    read = sp.Pool(built, keys=keys)
    assert read.auth is sp.Auth.OK
    assert type(read.payload) is type(layer)
    assert raw(read.payload) == raw(layer)
    assert raw(read) == built
    assert raw(read.copy()) == built
    read.clear_cache()
    assert raw(read) == built  # from the fields alone


def test_lists_come_back_element_by_element() -> None:
    peers = sp.PoolPeers(raw(sp.PoolPeers(peers=[sp.PoolPeer(ip="192.0.2.1"), sp.PoolPeer(port=1)])))
    assert [(peer.ip, peer.port) for peer in peers.peers] == [("192.0.2.1", 9253), ("0.0.0.0", 1)]
    entries = [sp.PoolJournalEntry(detail=b"who"), sp.PoolJournalEntry(detail=b"why!")]
    journal = sp.PoolJournal(raw(sp.PoolJournal(entries=entries)))
    assert [(entry.detail_length, entry.detail) for entry in journal.entries] == [(3, b"who"), (4, b"why!")]
    assert raw(sp.PoolPeers(count=0, peers=[sp.PoolPeer()]))[:2] == bytes(2)


def test_the_length_of_a_message_follows_from_its_last_fragment() -> None:
    assert raw(sp.PoolFragment(offset=4, data=b"efg"))[6:8] == b"\0\7"
    assert raw(sp.PoolFragment(offset=4, total_len=0, data=b"efg"))[6:8] == bytes(2)
    assert raw(sp.PoolFragment(offset=65535, data=b"efg"))[6:8] == b"\xff\xff"
    assert sp.PoolFragment(raw(sp.PoolFragment(data=b"efg"))).total_len == 3


def test_a_probe_fills_its_packet_to_the_size_it_names() -> None:
    assert len(raw(crafted(sp.PoolProbe(probe_size=700), Keys(b"s" * 32)))) == 700


def test_the_hash_of_a_config_follows_from_its_parameters() -> None:
    built = raw(sp.PoolConfig(version=3, puzzle_difficulty=18))
    assert built[8:40] == hashlib.sha256(built[:4] + built[88:]).digest()
    assert raw(sp.PoolConfig(config_hash=bytes(32)))[8:40] == bytes(32)


def test_a_captured_session_is_rebuilt_byte_for_byte() -> None:
    session = capture()
    for keys in (None, session.keys):
        for packet in session.packets:
            assert raw(sp.Pool(packet, keys=keys).copy()) == packet


def test_a_changed_packet_is_sealed_and_signed_anew() -> None:
    session = capture()
    packet = sp.Pool(session.of_type(Type.DATA)[0], keys=session.keys)
    packet[sp.PoolData].data = b"another text"
    del packet.payload_len, packet.hmac
    read = sp.Pool(raw(packet), keys=session.keys)
    assert (read.auth, read[sp.PoolData].data) == (sp.Auth.OK, b"another text")
