# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's misbehaviour on scapy packets, and on a connection to a node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.packet import Raw
from test_scapy_connection import against_node

import scapy_pool as sp
from poolref.constants import ErrorCode, Role, Type
from poolref.counters import DropReason
from poolref.keys import Keys
from poolref.misbehaviour import SWITCHES
from poolref.node import Node
from scapy_pool.misbehaviour import misbehave, send_wrong

KEYS = Keys(bytes(range(32)))


@pytest.fixture(autouse=True)
def _empty_ring() -> Iterator[None]:
    sp.keyring.clear()
    yield
    sp.keyring.clear()


def data(message: bytes = b"sound", **fields: object) -> sp.Pool:
    packet: sp.Pool = sp.Pool(keys=KEYS, session_id=b"s" * 16, seq=7, **fields) / sp.PoolData(message)
    return packet


def test_a_packet_gets_one_thing_wrong() -> None:
    sound = data()
    (wrong,) = misbehave(sound, "bad-hmac:byte=31")
    assert isinstance(wrong, sp.Pool)
    assert wrong.auth is sp.Auth.BAD
    assert bytes(wrong)[:79] == bytes(sound)[:79]
    assert bytes(wrong)[80:] == bytes(sound)[80:]
    (wrong,) = misbehave(sound, "reserved-flag:bit=12")
    assert wrong.auth is sp.Auth.OK
    assert wrong.flags & 1 << 12


def test_keys_of_the_ring_serve_as_well() -> None:
    sp.keyring.add(b"s" * 16, KEYS)
    sound = sp.Pool(bytes(data()))
    (wrong,) = misbehave(sound, "unsealed")
    assert bytes(wrong)[80:] == b"sound"
    sp.keyring.clear()
    assert [bytes(each) for each in misbehave(sp.Pool(bytes(data())), "unsealed")] == [bytes(data())]


def test_several_packets_or_none_or_no_whole_one() -> None:
    assert [bytes(each) for each in misbehave(data(), "replay:times=2")] == [bytes(data())] * 3
    assert misbehave(data(), "mute") == []
    (cut,) = misbehave(data(), "cut-short:by=3")
    assert type(cut) is Raw
    assert bytes(cut) == bytes(data())[:-3]


def test_a_switch_about_other_packets_changes_nothing() -> None:
    assert [bytes(each) for each in misbehave(data(), "stale-init")] == [bytes(data())]
    with pytest.raises(ValueError, match="there is no misbehaviour"):
        misbehave(data(), "sing")
    with pytest.raises(ValueError, match=r"within 10\.\.15"):
        misbehave(data(), "reserved-flag:bit=9")


def test_packets_of_the_handshake() -> None:
    init = sp.Pool(timestamp=10**18) / sp.PoolInit(client_pubkey=b"k" * 32)
    (wrong,) = misbehave(init, "stale-init:seconds=-31")
    assert wrong.timestamp == 10**18 - 31 * 10**9
    challenge = sp.Pool(session_id=b"s" * 16) / sp.PoolChallenge(server_pubkey=b"k" * 32, difficulty=16)
    (wrong,) = misbehave(challenge, "too-difficult:bits=30")
    assert wrong[sp.PoolChallenge].difficulty == 30
    ack = sp.Pool(keys=KEYS, session_id=b"s" * 16, seq=1 << 62, ack=5) / sp.PoolAck()
    (wrong,) = misbehave(ack, "ack-of-another", established=False)
    assert (wrong.ack, wrong.auth) == (4, sp.Auth.OK)


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_takes_a_packet(name: str) -> None:
    """Not one of them raises, whatever it is given."""
    for role in Role:
        seq = 7 if role is Role.CLIENT else (1 << 62) + 7
        for packet in (
            data(),
            sp.Pool(keys=KEYS, session_id=b"s" * 16, seq=seq) / sp.PoolHeartbeat(),
            sp.Pool(keys=KEYS, session_id=b"s" * 16, seq=seq) / sp.PoolAck(),
            sp.Pool(keys=KEYS, session_id=b"s" * 16, seq=seq) / sp.PoolClose(code=1),
            sp.Pool(keys=KEYS, session_id=b"s" * 16, seq=seq) / sp.PoolProbe(probe_size=600),
        ):
            assert isinstance(misbehave(packet, name), list)


def test_a_node_reacts_to_what_a_connection_sends() -> None:
    async def server(node: Node) -> None:
        counters = node.counters()
        assert counters[DropReason.MALFORMED] == 2
        assert counters[DropReason.DECRYPT_FAIL] == 1
        assert counters["sessions_ended"] == 1

    def client(port: int) -> None:
        connection = sp.pool_connect("127.0.0.1", port)
        send_wrong(connection, b"with a reserved byte", "reserved0")
        send_wrong(connection, b"in clear", "unsealed")
        connection.send(b"sound")
        send_wrong(connection, b"with a wrong tag", "bad-tag")
        while (packet := connection.recv()) is not None and packet.type != Type.CLOSE:
            pass
        assert packet is not None
        assert packet[sp.PoolClose].code == ErrorCode.DECRYPT_FAIL
        connection.close()

    against_node(client, server)
