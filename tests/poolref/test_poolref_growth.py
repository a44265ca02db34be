# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing grows while time passes: hours of a session's life, in virtual time."""

from __future__ import annotations

import gc

from poolref_sim import Pair, easy_pair

from poolref.constants import JOURNAL_RING, SECOND
from poolref.journal import ChangeType

HOUR = 3600 * SECOND


def live(pair: Pair, hours: int) -> None:
    """An hour at a time: messages of all sizes every few minutes, otherwise nothing but time."""
    for _ in range(hours):
        for minute in range(12):
            for size in (1, 1304, 5000):
                pair.c.send(bytes(size), pair.world.now)
                pair.s.send(bytes(size), pair.world.now)
            pair.run()
            while pair.client.take(pair.world.now) or pair.server.take(pair.world.now):
                pass
            pair.advance(HOUR // 12 + minute)
        for events in pair.events.values():
            events.clear()


def tracked() -> int:
    gc.collect()
    return len(gc.get_objects())


def test_a_connection_that_is_silent_holds_no_packets() -> None:
    pair = easy_pair()
    for _ in range(100):
        pair.c.send(bytes(1000), pair.world.now)
    data = pair.client.data_to_send()
    pair.server.receive_data(data[:-1], pair.world.now)
    assert len(pair.server._framer) == 1000 + 96 - 1
    pair.server.receive_data(data[-1:], pair.world.now)
    assert not pair.server._framer._buffer


def test_nothing_grows_while_hours_pass() -> None:
    pair = easy_pair()
    for session in (pair.c, pair.s):
        for _ in range(JOURNAL_RING):  # what is bounded is full from the start
            session.core.record(ChangeType.CONFIG, "an entry")
    live(pair, 2)
    before = tracked()
    live(pair, 4)
    assert pair.c.end is None
    assert pair.c.keys.epoch >= 5, "its keys were replaced every hour"
    assert tracked() - before <= 16, "objects that the collector knows of"
