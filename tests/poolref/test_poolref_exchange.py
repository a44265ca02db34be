# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers telling each other of peers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from poolref_sim import EASY, PEER, SERVER, START, Pair, World, deliver, easy_pair
from poolref_vectors import cases

from poolref import wire
from poolref.constants import MILLISECOND, SECOND, Flag, Type
from poolref.core import Peer
from poolref.counters import DropReason, Verdict
from poolref.errors import DecodeError
from poolref.exchange import Told, pack_exchange, room, unpack_exchange
from poolref.peers import NO_KEY, KnownPeer, Source
from poolref.session import Session

KEY = bytes(range(32))
TELLING = int(Flag.TELEMETRY)


def told(number: int, port: int = 9253, pubkey: bytes = KEY) -> Told:
    return Told(bytes([10, 0, *divmod(number, 256)]), port, pubkey)


def peer_of(told: Told) -> Peer:
    return Peer(bytes(10) + b"\xff\xff" + told.ip, told.port)


def host(number: int) -> Peer:
    return peer_of(told(number))


def exchange(pair: Pair, *peers: Told, now: int | None = None, flags: int = TELLING) -> bytes:
    """What the client tells."""
    return pair.c.protect(Type.DISCOVER, now or pair.world.now, pack_exchange(list(peers)), flags=flags)


def server_peers(pair: Pair) -> tuple[KnownPeer, ...]:
    return pair.world.server_core.peers.listed(pair.world.now)


def exchanges(session: Session) -> list[list[Told]]:
    """What a session is about to send, the exchanges among it."""
    found = []
    for packet in session.packets_to_send():
        header = wire.parse(packet)
        if header.type == Type.DISCOVER and header.flags & Flag.TELEMETRY:
            assert header.flags == Flag.TELEMETRY | Flag.ENCRYPTED
            assert len(packet) <= session.mtu
            plaintext = session.keys.open(header.seq, packet[80:])
            assert plaintext is not None
            found.append(unpack_exchange(plaintext))
    return found


# -- payloads --------------------------------------------------------------------------------------


def as_told(rows: list[dict[str, Any]]) -> list[Told]:
    return [Told(bytes.fromhex(row["ip"]), row["port"], bytes.fromhex(row["pubkey"])) for row in rows]


@pytest.mark.parametrize(("values", "expected"), cases("discovery", "exchange.encode"))
def test_encoding(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert pack_exchange(as_told(values["peers"])).hex() == expected["plaintext"]


@pytest.mark.parametrize(("values", "expected"), cases("discovery", "exchange.decode"))
def test_decoding_and_receiving(values: dict[str, Any], expected: dict[str, Any]) -> None:
    plaintext = bytes.fromhex(values["plaintext"])
    pair = easy_pair()
    packet = pair.c.protect(Type.DISCOVER, START, plaintext, flags=TELLING)
    if "drop" in expected:
        with pytest.raises(DecodeError):
            unpack_exchange(plaintext)
        # Without bytes there is nothing to tell an exchange by but its flag; it is one all the same.
        assert deliver(pair, packet) is DropReason.MALFORMED
        assert pair.s.counters["malformed"] == 1
        assert server_peers(pair) == ()
        assert pair.s.end is None
    else:
        peers = as_told(expected["peers"])
        assert unpack_exchange(plaintext) == peers
        assert deliver(pair, packet) is Verdict.ACCEPTED
        assert [known.peer for known in server_peers(pair)] == [peer_of(each) for each in peers]
        assert all(known.source is Source.EXCHANGE for known in server_peers(pair))


@pytest.mark.parametrize(("values", "expected"), cases("discovery", "exchange.room"))
def test_room(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert room(values["mtu"]) == expected["entries"]


def test_no_packet_has_more_entries_than_the_largest_mtu_has_room_for() -> None:
    assert len(unpack_exchange(pack_exchange([told(1)] * 34))) == 34
    with pytest.raises(DecodeError):
        unpack_exchange(pack_exchange([told(1)] * 35))


@given(st.binary(max_size=200))
def test_garbage_never_raises(plaintext: bytes) -> None:
    pair = GARBAGE
    pair.world.now += SECOND
    outcome = deliver(pair, pair.c.protect(Type.DISCOVER, 0, plaintext, flags=TELLING))
    assert outcome in (Verdict.ACCEPTED, DropReason.MALFORMED)
    assert pair.s.end is None


GARBAGE = easy_pair()


# -- receiving -------------------------------------------------------------------------------------


def test_entries_that_name_nobody_are_left_out_and_counted() -> None:
    pair = easy_pair()
    nobody = [
        told(1, port=0),
        replace(told(1), ip=bytes(4)),
        replace(told(1), ip=bytes([224, 0, 0, 1])),
        replace(told(1), ip=b"\xff" * 4),
    ]
    assert deliver(pair, exchange(pair, *nobody, told(2))) is Verdict.ACCEPTED
    assert [known.peer for known in server_peers(pair)] == [host(2)]
    assert pair.s.counters["malformed"] == 4


def test_what_is_told_of_this_node_itself_is_left_out() -> None:
    pair = easy_pair()
    pair.world.server_core.peers.own_key = KEY
    other = told(2, pubkey=bytes(reversed(KEY)))
    assert deliver(pair, exchange(pair, told(1), other, told(3, pubkey=NO_KEY))) is Verdict.ACCEPTED
    assert [known.peer for known in server_peers(pair)] == [host(2), host(3)]
    assert pair.s.counters["malformed"] == 0


def test_a_flood_is_held_to_ten_packets_a_second_and_moves_nobody_who_was_seen() -> None:
    pair = easy_pair()
    peers = pair.world.server_core.peers
    peers.add_static(host(0), START)
    for number in range(1, 201):
        peers.see(host(number), KEY, Source.ANNOUNCE, START)
    seen = [known.peer for known in server_peers(pair)]
    accepted = 0
    for step in range(2000):
        now = START + step * MILLISECOND
        made_up = [told(1000 + step, port=1 + number) for number in range(34)]
        outcome = pair.s.receive_packet(exchange(pair, *made_up, now=now), now)
        accepted += outcome is Verdict.ACCEPTED
        assert len(peers) <= 256
    assert accepted == 20
    assert pair.s.counters["announce_limited"] == 1980
    assert [known.peer for known in server_peers(pair)][:201] == seen
    assert pair.s.end is None


def test_when_those_seen_fill_the_table_what_is_told_finds_no_place() -> None:
    pair = easy_pair()
    peers = pair.world.server_core.peers
    for number in range(256):
        peers.see(host(number), KEY, Source.ANNOUNCE, START)
    assert deliver(pair, exchange(pair, told(300), told(301))) is Verdict.ACCEPTED
    assert pair.s.counters["peers_full"] == 2
    assert len(peers) == 256
    assert host(300) not in peers


def test_a_malformed_packet_does_not_use_up_the_rate() -> None:
    pair = easy_pair()
    assert deliver(pair, pair.c.protect(Type.DISCOVER, START, b"\0", flags=TELLING)) is DropReason.MALFORMED
    assert deliver(pair, exchange(pair, told(1))) is Verdict.ACCEPTED
    assert deliver(pair, exchange(pair, told(2))) is DropReason.ANNOUNCE_LIMITED


@pytest.mark.parametrize("good", [True, False])
def test_one_that_asks_for_an_ack_gets_one(good: bool) -> None:
    pair = easy_pair()
    plaintext = pack_exchange([told(1)]) if good else b"\0"
    flags = TELLING | Flag.REQUIRE_ACK
    packet = pair.c.protect(Type.DISCOVER, START, plaintext, flags=int(flags))
    deliver(pair, packet)
    pair.s.handle_timer(START + 50 * MILLISECOND)
    (ack,) = [wire.parse(packet) for packet in pair.s.packets_to_send()]
    assert (ack.type, ack.ack) == (Type.ACK, wire.parse(packet).seq)


# -- telling ---------------------------------------------------------------------------------------


def knowing(*numbers: int, mtu: int = 1400) -> Pair:
    """The server has seen these peers."""
    pair = easy_pair()
    for number in numbers:
        pair.world.server_core.peers.add_static(host(number), START, KEY)
    pair.s.mtu = mtu
    return pair


def told_at(session: Session, until_s: int, step_ms: int = 1000) -> list[tuple[int, list[Told]]]:
    """What the session tells, and how many ms after its establishment."""
    found = []
    for ms in range(0, until_s * 1000 + 1, step_ms):
        session.handle_timer(START + ms * MILLISECOND)
        found += [(ms, page) for page in exchanges(session)]
    return found


def test_every_30_seconds_the_peers_are_told() -> None:
    pair = knowing(1, 2)
    pages = told_at(pair.s, 80)
    assert pages == [(30_000, [told(1), told(2)]), (60_000, [told(1), told(2)])]


def test_without_anybody_to_tell_of_nothing_is_sent() -> None:
    pair = easy_pair()
    assert told_at(pair.s, 80) == []
    assert told_at(pair.c, 80) == [], "the server itself is no news to it"
    assert [known.peer for known in pair.world.client_core.peers.listed(START)] == [SERVER]


def test_the_switch_turns_it_off() -> None:
    world = World(server_settings=replace(EASY, peer_exchange=False))
    pair = world.pair()
    world.server_core.peers.add_static(host(1), START)
    assert told_at(pair.s, 80) == []
    assert deliver(pair, exchange(pair, told(2))) is Verdict.ACCEPTED, "it listens all the same"
    assert host(2) in world.server_core.peers


def test_neither_hearsay_nor_ipv6_peers_nor_the_peer_itself_are_told() -> None:
    pair = easy_pair()
    peers = pair.world.server_core.peers
    peers.see(host(1), KEY, Source.EXCHANGE, START + 29 * SECOND)
    peers.add_static(Peer(bytes(15) + b"\1", 9253), START)
    peers.add_static(PEER, START)
    peers.add_static(Peer(host(2).ip, 0), START)
    assert told_at(pair.s, 40) == []
    peers.see(host(3), KEY, Source.ANNOUNCE, START + 40 * SECOND)
    assert told_at(pair.s, 70)[-1] == (60_000, [told(3)])


@pytest.mark.parametrize(("mtu", "sizes"), [(1400, [34, 34, 32]), (512, [10] * 10), (1000, [23] * 4 + [8])])
def test_many_peers_take_several_packets_a_second_apart(mtu: int, sizes: list[int]) -> None:
    pair = knowing(*range(100))
    pair.s.mtu = mtu
    pair.s.discovery.end(START)  # the mtu stays
    pages = told_at(pair.s, 59, step_ms=100)
    assert [(ms, len(page)) for ms, page in pages] == [
        (30_000 + 1000 * number, size) for number, size in enumerate(sizes)
    ]
    assert [entry for _, page in pages for entry in page] == [told(number) for number in range(100)]


def test_a_full_table_is_told_within_one_period() -> None:
    pair = knowing(*range(256))
    pair.s.mtu = 512
    pair.s.discovery.end(START)
    pages = told_at(pair.s, 59)
    assert len(pages) == 26
    assert len({entry for _, page in pages for entry in page}) == 256


def test_a_receiver_takes_every_packet_of_an_exchange() -> None:
    pair = knowing(*range(255))
    pair.advance(45 * SECOND)
    assert pair.c.counters["announce_limited"] == 0
    heard = [known.peer for known in pair.world.client_core.peers.listed(pair.world.now)]
    assert heard == [SERVER, *map(host, range(255))]


def test_at_once_on_demand() -> None:
    pair = knowing(1)
    pair.s.exchange.send_now(START + SECOND)
    assert exchanges(pair.s) == [[told(1)]]
    assert pair.s.exchange.due == START + 31 * SECOND


def test_while_the_transport_is_full_the_exchange_waits() -> None:
    pair = knowing(1)
    pair.s.congested = True
    assert told_at(pair.s, 40) == []
    pair.s.congested = False
    pair.s.handle_timer(START + 41 * SECOND)
    assert exchanges(pair.s) == [[told(1)]]


def test_an_ended_session_tells_nothing() -> None:
    pair = knowing(1)
    pair.s.close(START)
    pair.s.packets_to_send()
    assert told_at(pair.s, 40) == []


# -- who is known ----------------------------------------------------------------------------------


def test_whom_a_node_connected_to_is_known_while_the_session_lives_and_120_seconds_after() -> None:
    pair = easy_pair()
    peers = pair.world.client_core.peers
    pair.advance(600 * SECOND)
    (known,) = peers.listed(pair.world.now)
    assert (known.peer, known.source) == (SERVER, Source.CONNECTED)
    assert server_peers(pair) == (), "where an incoming peer listens is not known"
    pair.c.close(pair.world.now)
    assert len(peers.listed(pair.world.now + 89 * SECOND)) == 1
    assert peers.listed(pair.world.now + 120 * SECOND) == ()


def test_a_node_introduces_its_servers_to_each_other() -> None:
    first = World(1, server_settings=EASY)
    second = World(2, server_settings=EASY)
    pair = first.pair()
    elsewhere = Peer(SERVER.ip[:-1] + b"\x07", 9253)
    other = Pair(
        second,
        second.client(core=first.client_core, peer=elsewhere, index=1),
        second.server(),
    )
    other.run()
    for each in (pair, other):
        each.advance(31 * SECOND)
    assert [known.peer for known in first.server_core.peers.listed(first.now)] == [elsewhere]
    assert [known.peer for known in second.server_core.peers.listed(second.now)] == [SERVER]
    assert all(known.pubkey == NO_KEY for known in first.server_core.peers.listed(first.now))
