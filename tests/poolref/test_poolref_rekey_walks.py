# SPDX-License-Identifier: GPL-2.0-or-later
"""Random walks with the smallest limits of a key's age: rekeys by hand, by packets and by time meet in any
order with messages, challenges and each other.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace

import pytest
from poolref_raw_sim import EASY, RawPair, Weather, raw_pair, received, sound
from poolref_sealings import Sealings
from poolref_sim import World

from poolref.constants import MILLISECOND, SECOND
from poolref.counters import DropReason, Verdict
from poolref.session import Session

HARMLESS = {DropReason.DUPLICATE, DropReason.UNSOLICITED}
"""What a bad network leads to: the latter for the answer to an MTU probe that came too late."""


@pytest.fixture
def sealings(monkeypatch: pytest.MonkeyPatch) -> Sealings:
    return Sealings(monkeypatch)


class Messages:
    """What either side has sent, and what arrived of it."""

    def __init__(self, chance: random.Random) -> None:
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self._chance = chance

    def make(self, side: int) -> bytes:
        message = self._chance.randbytes(self._chance.randrange(1, 300))
        self.sent[side].append(message)
        return message


def check(sessions: tuple[Session, ...], messages: Messages, sealings: Sealings) -> None:
    assert messages.got == messages.sent
    assert sealings.reused == 0
    for session in sessions:
        assert session.end is None
        assert not session.untrusted
        assert not session.unsent
    assert len({session.keys.epoch for session in sessions}) == 1


@pytest.mark.parametrize("seed", range(5))
def test_over_tcp(seed: int, sealings: Sealings) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    settings = replace(EASY, rekey_packets=1024, rekey_s=chance.choice([10, 3600]), integrity_s=1)
    world = World(seed, server_settings=settings, client_settings=settings)
    pair = world.pair()
    sessions = (pair.c, pair.s)
    streams: tuple[deque[bytes], deque[bytes]] = (deque(), deque())
    messages = Messages(chance)

    def carry(side: int, packets: int) -> None:
        streams[side].extend(sessions[side].packets_to_send())
        for _ in range(min(packets, len(streams[side]))):
            outcome = sessions[1 - side].receive_packet(streams[side].popleft(), world.now)
            assert outcome is Verdict.ACCEPTED
        while (message := sessions[1 - side].take()) is not None:
            messages.got[side].append(message.data)

    for _ in range(2500):
        side = chance.randrange(2)
        session, dice = sessions[side], chance.random()
        if dice < 0.25 and session.writable:
            session.send(messages.make(side), world.now)
        elif dice < 0.26:
            session.rekeying.start(world.now)
        elif dice < 0.27:
            session.vigil.challenge_now(world.now)
        elif dice < 0.30:
            world.now += chance.randrange(50 * MILLISECOND)
            for each in sessions:
                each.handle_timer(world.now)
        else:
            carry(side, chance.randrange(6))
    for _ in range(20):
        for side in (0, 1):
            carry(side, 10_000)
    check(sessions, messages, sealings)
    assert pair.c.keys.epoch > 10


@pytest.mark.parametrize("seed", range(5))
def test_over_raw(seed: int, sealings: Sealings) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    settings = replace(EASY, rekey_packets=1024, rekey_s=chance.choice([10, 3600]), integrity_s=2)
    pair: RawPair = raw_pair(seed + 1, client=settings, server=settings)
    pair.net.fate = Weather(chance, loss=chance.choice([0, 0.02, 0.1]), duplication=0.1, reordering=0.2)
    sessions = (pair.c, pair.s)
    messages = Messages(chance)
    for _ in range(1200):
        side = chance.randrange(2)
        session, dice = sessions[side], chance.random()
        if dice < 0.9 and session.writable:
            pair.send(session, messages.make(side))
        elif dice < 0.91:
            session.rekeying.start(pair.net.now)
            pair.flush()
        pair.run(chance.randrange(30 * MILLISECOND))
        messages.got[0].extend(received(pair.s))
        messages.got[1].extend(received(pair.c))
    pair.net.fate = sound
    pair.run(9 * SECOND)
    while pair.c.holding or pair.s.holding:
        pair.run(SECOND)
    messages.got[0].extend(received(pair.s))
    messages.got[1].extend(received(pair.c))
    check(sessions, messages, sealings)
    assert pair.c.keys.epoch > 1
    for session in sessions:
        assert {reason for reason in DropReason if session.counters[reason]} <= HARMLESS
