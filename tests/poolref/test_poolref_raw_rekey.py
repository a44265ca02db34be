# SPDX-License-Identifier: GPL-2.0-or-later
"""Rekeys, closes and challenges over raw IP when datagrams get lost (RK-02, RK-04, E-85, E-92, E-93)."""

from __future__ import annotations

import random

import pytest
from poolref_raw_sim import CLIENT, SERVER, Flight, RawPair, Weather, raw_pair, received, seconds, sound

from poolref import constants as c
from poolref.constants import MILLISECOND, SECOND, Flag, State, Type
from poolref.events import PeerUntrusted, SessionEnded


def silence(source: bytes):
    return lambda flight: [] if flight.source == source else sound(flight)


def acceptor_in_the_dark() -> RawPair:
    """The server has accepted the client's proposal and does not hear whether the client took that."""
    pair = raw_pair()
    for part in (pair.c.discovery, pair.s.discovery, pair.c.heartbeats, pair.s.heartbeats):
        part.due = 1 << 62
    pair.net.fate = lambda flight: (
        [] if flight.source == CLIENT and flight.type is Type.ACK else sound(flight)
    )
    pair.c.rekeying.start(pair.net.now)
    pair.run(100 * MILLISECOND)
    assert (pair.c.keys.epoch, pair.s.keys.epoch) == (1, 0)
    assert pair.s.rekeying.silent
    pair.net.sent.clear()
    return pair


@pytest.mark.parametrize("seed", range(1, 7))
def test_rekeys_disturb_nothing_over_a_bad_network(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    pair = raw_pair(seed, fate=Weather(chance, loss=0.2, duplication=0.2, reordering=0.3, corruption=0.02))
    sent: dict[str, list[bytes]] = {"client": [], "server": []}
    got: dict[str, list[bytes]] = {"client": [], "server": []}
    for number in range(60):
        for side, session in (("client", pair.c), ("server", pair.s)):
            message = b"%d " % number + chance.randbytes(chance.randrange(700))
            sent[side].append(message)
            pair.send(session, message)
        if number % 10 == 5:
            chance.choice((pair.c, pair.s)).rekeying.start(pair.net.now)
        if number == 35:  # both at once
            pair.c.rekeying.start(pair.net.now)
            pair.s.rekeying.start(pair.net.now)
        pair.run(chance.randrange(3 * SECOND))
        got["client"] += received(pair.s)
        got["server"] += received(pair.c)
    pair.run(60 * SECOND)
    got["client"] += received(pair.s)
    got["server"] += received(pair.c)
    assert got == sent
    assert (pair.c.end, pair.s.end) == (None, None)
    assert pair.c.keys.epoch == pair.s.keys.epoch >= 3


def test_a_worn_key_is_noticed_with_the_packet_that_wears_it() -> None:
    pair = raw_pair(fate=silence(SERVER))
    pair.c.rekeying.age.packets_due = pair.c.rekeying.age.packets + 3
    for number in range(5):
        pair.send(pair.c, b"%d" % number)
    assert len(pair.net.of(CLIENT, Type.DATA)) == 3  # the others wait for the new keys
    pair.net.fate = sound
    pair.run(3 * SECOND)
    assert pair.s.keys.epoch == 1
    assert received(pair.s) == [b"%d" % number for number in range(5)]


def test_an_answer_waits_for_the_new_keys() -> None:
    pair = acceptor_in_the_dark()
    pair.s.acknowledge(pair.net.now, flags=int(Flag.ROLLBACK_READY))
    pair.run(500 * MILLISECOND)
    assert [flight for flight in pair.net.of(SERVER, Type.ACK) if flight.header.flags] == []
    pair.net.fate = sound
    pair.run(3 * SECOND)
    (answer,) = [flight for flight in pair.net.of(SERVER, Type.ACK) if flight.header.flags]
    assert pair.s.keys.epoch == 1
    assert pair.s.keys.authentic(answer.datagram.packet)
    assert not pair.s.outstanding


def test_a_close_waits_for_the_new_keys() -> None:
    pair = acceptor_in_the_dark()
    pair.s.in_flight.clear()  # as if the accept had been acknowledged under the old keys
    pair.s.close(pair.net.now)
    pair.run(500 * MILLISECOND)
    assert pair.net.of(SERVER, Type.CLOSE) == []
    pair.net.fate = sound
    pair.send(pair.c, b"under the new keys")
    pair.run(SECOND)
    assert received(pair.s) == [b"under the new keys"]
    (close,) = pair.net.of(SERVER, Type.CLOSE)
    assert pair.c.end == SessionEnded("closed", None)
    assert pair.s.end == SessionEnded("local", None)
    assert close.header.seq >= pair.s.first_seq


def test_a_close_waits_no_longer_than_5_s_for_them() -> None:
    pair = acceptor_in_the_dark()
    start = pair.net.now
    pair.s.close(start)
    pair.run(5 * SECOND + 100 * MILLISECOND)
    assert seconds(pair.net.of(SERVER, Type.CLOSE), start) == [5]
    assert pair.c.end == SessionEnded("closed", None)


def test_what_a_rekey_holds_back_is_sent_before_the_close() -> None:
    pair = raw_pair()
    pair.net.fate = silence(SERVER)
    pair.c.rekeying.start(pair.net.now)
    pair.send(pair.c, b"held")
    assert pair.c.state is State.REKEYING
    pair.c.close(pair.net.now)
    pair.run(SECOND)
    assert pair.net.of(CLIENT, Type.DATA, Type.CLOSE) == []
    pair.net.fate = sound
    pair.run(3 * SECOND)
    assert received(pair.s) == [b"held"]
    assert pair.s.end == SessionEnded("closed", None)
    assert pair.c.end == SessionEnded("local", None)
    assert pair.c.rekeying.age.packets > 0


def test_a_packet_takes_effect_before_its_new_keys_do() -> None:
    """What the first packet under new keys lets go acknowledges that packet already."""
    pair = acceptor_in_the_dark()
    pair.send(pair.s, b"held until the peer has the new keys")
    pair.run(100 * MILLISECOND)
    assert pair.net.of(SERVER, Type.DATA) == []
    pair.net.fate = sound
    pair.send(pair.c, b"first under the new keys")
    seq = pair.c.next_seq - 1
    pair.run(100 * MILLISECOND)
    (data,) = pair.net.of(SERVER, Type.DATA)
    assert data.header.ack == seq


@pytest.mark.parametrize("seed", range(1, 5))
def test_an_honest_peer_is_not_accused_because_its_answers_get_lost(seed: int) -> None:
    print(f"seed {seed}")
    pair = raw_pair(seed, fate=Weather(random.Random(seed), loss=0.2, reordering=0.3))
    pair.run(900 * SECOND)
    accusations = [
        event for event in pair.client.events + pair.server.events if isinstance(event, PeerUntrusted)
    ]
    assert accusations == []
    assert pair.c.vigil.answered >= 10
    assert pair.s.vigil.answered >= 10


def test_an_answer_may_come_60_s_after_its_challenge_but_not_later() -> None:
    pair = raw_pair()

    def answers_lost(flight: Flight) -> list[tuple[int, bytes]]:
        lost = flight.source == SERVER and flight.type is Type.INTEGRITY
        return [] if lost else sound(flight)

    pair.net.fate = answers_lost
    pair.s.vigil.due = 1 << 62
    pair.c.vigil.challenge_now(pair.net.now)
    pair.run(c.ANSWER_LIMIT - 10 * SECOND)
    assert not pair.c.untrusted  # 5 s after the challenge's ack nothing happened
    pair.s.resend(pair.net.now)
    pair.run(20 * SECOND)
    assert pair.c.untrusted
