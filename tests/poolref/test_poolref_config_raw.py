# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration and journal over raw IP that loses, repeats and reorders: nothing is misunderstood."""

from __future__ import annotations

import random

import pytest
from poolref_raw_sim import Flight, RawPair, Weather, dropping, raw_pair
from poolref_sim import WALL

from poolref.config import Parameters, Reference
from poolref.constants import MILLISECOND, SECOND, Flag, Type
from poolref.counters import DropReason
from poolref.events import (
    ConfigAccepted,
    ConfigConfirmed,
    ConfigRejected,
    ConfigRolledBack,
    JournalReceived,
    PeerUntrusted,
)
from poolref.journal import ChangeType

OTHERS = Parameters(18, 1, 1 << 10, 10, 512, 1400)
MINUTE = 60 * SECOND
CONFIG_EVENTS = ConfigAccepted | ConfigConfirmed | ConfigRejected | ConfigRolledBack


def told(pair: RawPair) -> list[object]:
    return [event for event in pair.client.events if isinstance(event, CONFIG_EVENTS)]


def locked(flight: Flight) -> bool:
    return bool(flight.header.flags & Flag.CONFIG_LOCKED) and flight.type is Type.ACK


def plain_ack(flight: Flight) -> bool:
    return flight.type is Type.ACK and not flight.header.flags


def test_proposed_accepted_confirmed() -> None:
    pair = raw_pair()
    pair.c.configuring.propose(OTHERS, MINUTE, pair.net.now)
    pair.run(50 * MILLISECOND)
    assert told(pair) == [ConfigAccepted(1)]
    pair.c.configuring.confirm(pair.net.now)
    pair.run(50 * MILLISECOND)
    assert told(pair)[1:] == [ConfigConfirmed(1)]
    assert pair.s.params == OTHERS


def test_an_answer_that_is_lost_is_resent_and_no_duplicate_looks_like_a_refusal() -> None:
    """The CONFIG is resent as well: the plain ACK of that duplicate has the same ack."""
    pair = raw_pair(fate=dropping(locked))
    pair.c.configuring.propose(OTHERS, MINUTE, pair.net.now)
    pair.run(5 * SECOND)
    assert told(pair) == [ConfigAccepted(1)]
    assert pair.s.params == OTHERS


def test_nothing_acknowledges_a_config_before_it_is_decided_on() -> None:
    """It waits for a heartbeat before it, which is then acknowledged at once; and the answer is lost."""

    def heartbeat(flight: Flight) -> bool:
        return flight.type is Type.HEARTBEAT

    pair = raw_pair(fate=dropping(heartbeat, locked))
    pair.c.heartbeats.round_trip.sample(20 * MILLISECOND)  # resends come before the first MTU probe
    pair.c.heartbeats.handle_timer(pair.net.now)
    pair.c.configuring.propose(OTHERS, MINUTE, pair.net.now)
    seq = pair.c.next_seq - 1
    pair.run(5 * SECOND)
    answers = [each.header for each in pair.net.sent if each.type is Type.ACK and each.header.ack == seq]
    assert {header.flags for header in answers} == {Flag.CONFIG_LOCKED}
    assert told(pair) == [ConfigAccepted(1)]


def test_an_answer_overtaken_by_later_packets_still_counts() -> None:
    """Everything the server sends meanwhile acknowledges the CONFIG without flags."""
    pair = raw_pair(fate=dropping(locked))
    pair.c.configuring.propose(OTHERS, MINUTE, pair.net.now)
    pair.run(20 * MILLISECOND)
    for _ in range(5):
        pair.send(pair.c, b"x")
        pair.send(pair.s, b"y")
        pair.run(10 * MILLISECOND)
    pair.run(5 * SECOND)
    assert told(pair) == [ConfigAccepted(1)]


def test_a_refusal_that_is_lost_shows_at_the_deadline() -> None:
    pair = raw_pair(fate=dropping(*[plain_ack] * 50))
    pair.c.configuring.propose(OTHERS, 2 * SECOND, pair.net.now, Reference(9, b"\x09" * 32))
    pair.run(2 * SECOND)
    assert told(pair) == [ConfigRejected(10, "no answer")]
    assert pair.s.counters[DropReason.CONFIG_REJECT] == 1, "the duplicates are no new proposals"


def test_word_of_the_deadline_is_resent() -> None:
    def ready(flight: Flight) -> bool:
        return bool(flight.header.flags & Flag.ROLLBACK_READY)

    pair = raw_pair(fate=dropping(ready))
    pair.c.configuring.propose(OTHERS, SECOND, pair.net.now)
    pair.run(5 * SECOND)
    assert told(pair) == [ConfigAccepted(1), ConfigRolledBack(1, "deadline")]


@pytest.mark.parametrize("seed", range(8))
def test_both_sides_agree_whatever_the_network_does(seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    weather = Weather(random.Random(seed), loss=0.1, duplication=0.1, reordering=0.3)
    pair = raw_pair(seed + 1, fate=weather)
    configuration = pair.server.core.configuration
    for _ in range(12):
        before = configuration.current
        events = len(told(pair))
        pair.c.configuring.propose(OTHERS, 30 * SECOND, pair.net.now)
        for _ in range(chance.randrange(4)):
            pair.send(pair.c, bytes(100))
            pair.send(pair.s, bytes(100))
        pair.run(10 * SECOND)
        accepted = told(pair)[events:]
        assert accepted == [ConfigAccepted(before.version + 1)]
        last = chance.choice(["confirm", "rollback", "nothing"])
        if last == "confirm":
            pair.c.configuring.confirm(pair.net.now)
        elif last == "rollback":
            pair.c.configuring.rollback(pair.net.now)
        pair.run(30 * SECOND)
        assert configuration.tentative is None
        (outcome,) = told(pair)[events + 1 :]
        if last == "confirm":
            assert outcome == ConfigConfirmed(before.version + 1)
            assert configuration.current.version == before.version + 1
        else:
            assert isinstance(outcome, ConfigRolledBack)
            assert configuration.current is before
        assert pair.c.configuring.peer_configuration == configuration.reference


@pytest.mark.parametrize("seed", range(4))
def test_the_copy_is_the_journal_whatever_the_network_does(seed: int) -> None:
    print("seed", seed)
    weather = Weather(random.Random(seed), loss=0.1, duplication=0.1, reordering=0.3)
    pair = raw_pair(seed + 1, fate=weather)
    journal = pair.server.core.journal
    pair.c.replication.request(pair.net.now)
    for index in range(1500):
        journal.append(ChangeType.CONNECT, f"entry {index}", WALL, 0, 0)
        if index % 50 == 0:
            pair.run(200 * MILLISECOND)
    pair.run(60 * SECOND)
    ring = pair.c.replication.replica.ring
    assert ring is not None
    assert ring.entries() == journal.entries()
    assert not [event for event in pair.client.events if isinstance(event, PeerUntrusted)]
    news = [event for event in pair.client.events if isinstance(event, JournalReceived)]
    assert sum(event.count + event.missing for event in news) == 1501, "each of them once"


def test_a_journal_that_was_overwritten_faster_than_it_went_out() -> None:
    pair = raw_pair(fate=Weather(random.Random(5), loss=0.1))
    journal = pair.server.core.journal
    pair.c.replication.request(pair.net.now)
    for index in range(3000):
        journal.append(ChangeType.CONNECT, f"entry {index}", WALL, 0, 0)
        if index % 500 == 0:
            pair.run(20 * MILLISECOND)
            assert len(pair.s._held) < 5, "what waits waits in the ring"
    pair.run(60 * SECOND)
    ring = pair.c.replication.replica.ring
    assert ring is not None
    assert ring.entries() == journal.entries()
    assert not pair.c.untrusted
    missing = sum(event.missing for event in pair.client.events if isinstance(event, JournalReceived))
    assert missing > 0
