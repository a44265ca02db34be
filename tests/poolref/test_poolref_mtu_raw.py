# SPDX-License-Identifier: GPL-2.0-or-later
"""MTU discovery over raw IP: probes that get lost, bulk data beside them, a path that becomes narrower."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from poolref_raw_sim import CLIENT, LATENCY, SERVER, Fate, Flight, RawPair, Weather, raw_pair, received
from test_poolref_mtu import searched

from poolref import wire
from poolref.constants import MILLISECOND, SECOND, Flag, Type
from poolref.raw_session import RawSession


def narrow(size: int, fate: Fate | None = None) -> Fate:
    """Larger datagrams are lost, unless they may be fragmented."""

    def carry(flight: Flight) -> list[tuple[int, bytes]]:
        if len(flight.datagram.packet) > size and flight.datagram.dont_fragment:
            return []
        return [(LATENCY, flight.datagram.packet)] if fate is None else fate(flight)

    return carry


def probes(pair: RawPair) -> list[Flight]:
    """The client's."""
    return [
        each
        for each in pair.net.of(CLIENT, Type.DISCOVER)
        if each.header.flags & (Flag.REQUIRE_ACK | Flag.TELEMETRY) == Flag.REQUIRE_ACK
    ]


def pour(pair: RawPair, session: RawSession, duration: int, size: int = 3000) -> list[bytes]:
    """Keep the window of a session full for a time; what was sent."""
    sent: list[bytes] = []
    until = pair.net.now + duration
    while pair.net.now < until:
        while session.writable:
            message = len(sent).to_bytes(4, "big") + random.Random(len(sent)).randbytes(size - 4)
            session.send(message, pair.net.now)
            sent.append(message)
        pair.run(100 * MILLISECOND)
    return sent


@pytest.mark.parametrize("path", [512, 600, 1000, 1399, 1400])
def test_both_sides_find_the_path(path: int) -> None:
    pair = raw_pair(fate=narrow(path))
    assert (pair.c.mtu, pair.s.mtu) == (512, 512)
    pair.run(30 * SECOND)
    found, sizes = searched(512, 1400, path)
    assert (pair.c.mtu, pair.s.mtu) == (found, found)
    assert [len(each.datagram.packet) for each in probes(pair)] == sizes
    assert pair.c.end is None
    assert pair.s.end is None


def test_a_lost_probe_is_not_resent_a_void_takes_its_place() -> None:
    pair = raw_pair(fate=narrow(600))
    pair.run(30 * SECOND)
    lost = [each for each in probes(pair) if len(each.datagram.packet) > 600]
    assert len(lost) > 3
    for each in lost:
        with_its_seq = [other for other in pair.net.of(CLIENT) if other.header.seq == each.header.seq]
        kinds = [(other.header.type, other.header.flags) for other in with_its_seq if other is not each]
        # An ACK that takes no seq repeats the last one.
        assert (Type.ACK, Flag.PRIORITY) in kinds
        assert set(kinds) <= {(Type.ACK, Flag.PRIORITY), (Type.ACK, 0)}


@pytest.mark.parametrize("who", ["c", "s"])
def test_bulk_data_does_not_keep_either_side_from_finding_the_path(who: str) -> None:
    pair = raw_pair()
    sender: RawSession = getattr(pair, who)
    receiver = pair.s if who == "c" else pair.c
    sent = pour(pair, sender, 5 * SECOND)
    assert (pair.c.mtu, pair.s.mtu) == (1400, 1400)
    pair.run(30 * SECOND)
    assert received(receiver) == sent
    for side in (pair.c, pair.s):
        assert side.counters["unsolicited"] == 0


def test_when_the_path_becomes_narrower_a_loss_starts_the_search_and_nothing_is_lost_for_good() -> None:
    pair = raw_pair()
    pair.run(10 * SECOND)
    assert pair.c.mtu == 1400
    pair.net.fate = narrow(700)
    pair.net.sent.clear()
    start = pair.net.now
    message = bytes(range(256)) * 20
    pair.send(pair.c, message)
    pair.run(40 * SECOND)
    found = searched(512, 1400, 700)[0]
    assert pair.c.mtu == found
    assert pair.s.mtu == 1400, "it lost nothing, and a minute has not passed"
    assert probes(pair)[0].at - start < 2 * SECOND
    assert received(pair.s) == [message]
    pair.net.sent.clear()
    pair.send(pair.c, message)
    assert max(len(each.datagram.packet) for each in pair.net.of(CLIENT, Type.DATA)) == found


@pytest.mark.parametrize("seed", range(5))
def test_on_a_lossy_path_the_mtu_never_exceeds_it_and_comes_close(seed: int) -> None:
    weather = Weather(random.Random(seed), loss=0.05, duplication=0.05, reordering=0.1)
    pair = raw_pair(seed + 1, fate=narrow(1100, weather))
    found = set()
    for _ in range(60):
        pair.run(10 * SECOND)
        assert pair.c.mtu <= 1100
        found.add(pair.c.mtu)
    assert max(found) == searched(512, 1400, 1100)[0]
    times = [each.at for each in probes(pair)]
    assert all(after - before >= SECOND for before, after in pairwise(times))
    assert pair.c.end is None


def test_an_answer_says_what_the_probe_said() -> None:
    pair = raw_pair()
    pair.run(5 * SECOND)
    (answer,) = [
        each for each in pair.net.of(SERVER, Type.DISCOVER) if not each.header.flags & Flag.REQUIRE_ACK
    ]
    plaintext = pair.c.keys.open(answer.header.seq, answer.datagram.packet[80:])
    assert plaintext == (1400).to_bytes(2, "big")
    acks = [
        each
        for each in pair.net.of(SERVER, Type.ACK)
        if answer.at - 30 * MILLISECOND <= each.at <= answer.at + 50 * MILLISECOND
    ]
    covering = [each for each in acks if each.header.ack >= probes(pair)[0].header.seq]
    assert len(covering) <= 1, "at most the one that acknowledges the client's own answer"
    assert wire.parse(answer.datagram.packet).ack >= probes(pair)[0].header.seq
