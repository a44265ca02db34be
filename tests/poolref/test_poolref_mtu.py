# SPDX-License-Identifier: GPL-2.0-or-later
"""MTU discovery: the search by itself, and probes and answers between two sides over a narrow path."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from poolref_sim import EASY, Pair, World, deliver, easy_pair, flipped

from poolref import wire
from poolref.config import ConfigPayload, Current, Undoing
from poolref.constants import MILLISECOND, SECOND, Flag, State, Type
from poolref.core import NodeCore
from poolref.counters import DropReason, Verdict
from poolref.errors import DecodeError
from poolref.events import MtuChanged, PacketTrace
from poolref.mtu import Search, answer, parse_answer, parse_probe, probe
from poolref.session import Session
from poolref.settings import Settings

HOSTILE = [0, 1, 511, 1401, 65535]
PROBE = int(Flag.REQUIRE_ACK)


def searched(low: int, high: int, path: int) -> tuple[int, list[int]]:
    """What a search finds on a path that carries ``path`` bytes, and the sizes it tries."""
    search = Search(low, high)
    sizes = []
    while (size := search.size) is not None:
        sizes.append(size)
        if size <= path:
            search.passed()
        else:
            search.failed()
    return search.low, sizes


# -- the search ------------------------------------------------------------------------------------


def test_on_every_path_the_search_ends_within_16_bytes_after_7_probes_at_most() -> None:
    longest = 0
    for path in range(512, 1401):
        found, sizes = searched(512, 1400, path)
        assert sizes[0] == 1400
        assert found <= path < found + 16
        assert len(sizes) == len(set(sizes))
        longest = max(longest, len(sizes))
    assert longest == 7


def test_midpoints_are_rounded_down_and_the_upper_bound_is_the_size_that_failed() -> None:
    assert searched(512, 1400, 1400) == (1400, [1400])
    assert searched(512, 1400, 1399) == (1386, [1400, 956, 1178, 1289, 1344, 1372, 1386])
    assert searched(512, 1400, 512) == (512, [1400, 956, 734, 623, 567, 539, 525])


def test_the_lower_bound_is_never_probed() -> None:
    assert searched(512, 1400, 0) == (512, [1400, 956, 734, 623, 567, 539, 525])
    assert searched(1400, 1400, 0) == (1400, [])


def test_bounds_closer_than_16_still_have_the_upper_one_tried() -> None:
    assert searched(1390, 1400, 1400) == (1400, [1400])
    assert searched(1390, 1400, 1395) == (1390, [1400])
    assert searched(512, 527, 520) == (512, [527])
    assert searched(512, 528, 520) == (520, [528, 520])


@given(st.integers(512, 1400), st.integers(512, 1400), st.integers(512, 1400))
def test_whatever_the_bounds(one: int, other: int, path: int) -> None:
    low, high = sorted((one, other))
    found, sizes = searched(low, high, path)
    assert low <= found <= high
    assert len(sizes) <= 7
    assert all(low < size <= high for size in sizes)
    if low <= path:
        assert found <= path
        assert min(path, high) < found + 16


def test_a_finished_search_does_not_move() -> None:
    search = Search(512, 1400)
    search.passed()
    search.failed()
    search.passed()
    assert (search.low, search.size) == (1400, None)


# -- payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [512, 513, 956, 1399, 1400])
def test_a_probe_fills_its_packet(size: int) -> None:
    plaintext = probe(size)
    assert 80 + len(plaintext) + 16 == size
    assert plaintext == size.to_bytes(2, "big") + bytes(size - 98)
    assert parse_probe(plaintext) == size
    assert answer(size) == size.to_bytes(2, "big")
    assert parse_answer(answer(size)) == size


@pytest.mark.parametrize(
    ("plaintext", "offset"),
    [
        (b"", 0),
        (b"\2", 1),
        (probe(1000)[:-1], 0),
        (probe(1000) + b"\0", 0),
        (probe(511), 0),
        (probe(1401), 0),
        (probe(1000)[:-1] + b"\1", 2),
        (probe(1000)[:2] + b"\1" + probe(1000)[3:], 2),
    ],
)
def test_a_probe_that_is_none_does_not_decode(plaintext: bytes, offset: int) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_probe(plaintext)
    assert caught.value.offset == offset


@pytest.mark.parametrize("plaintext", [b"", b"\2", b"\2\0\0"])
def test_an_answer_has_two_bytes(plaintext: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_answer(plaintext)


# -- one side's probes -----------------------------------------------------------------------------


class Log:
    """Sees what the client of a pair sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def __call__(self, trace: PacketTrace) -> None:
        header = wire.parse(trace.packet)
        if trace.direction == "sent" and header.seq < 1 << 62:
            self.sent.append((trace.now, trace.packet))

    def probes(self) -> list[tuple[int, int]]:
        """When each probe left, and its size."""
        return [
            (now, len(packet))
            for now, packet in self.sent
            if (header := wire.parse(packet)).type == Type.DISCOVER and header.flags & Flag.REQUIRE_ACK
        ]


def logged_pair(**client: Any) -> tuple[Pair, Log]:
    log = Log()
    world = World(server_settings=EASY, client_settings=Settings(**client), observer=log)
    return world.pair(), log


@pytest.mark.parametrize("path", [512, 527, 528, 600, 1000, 1399, 1400, 1500])
def test_a_session_finds_the_mtu_of_its_path(path: int) -> None:
    pair, log = logged_pair()
    start = pair.world.now
    pair.path_mtu = path
    pair.advance(15 * SECOND)
    found, sizes = searched(512, 1400, path)
    assert pair.c.mtu == found
    assert [size for _, size in log.probes()] == sizes
    changes = [MtuChanged(1400, found)] if found != 1400 else []
    assert [event for event in pair.events["client"] if isinstance(event, MtuChanged)] == changes
    times = [now - start for now, _ in log.probes()]
    expected = [SECOND]
    for size in sizes[:-1]:
        expected.append(expected[-1] + (SECOND if size <= path else 2 * SECOND))
    assert times == expected


def test_the_plaintext_and_flags_of_a_probe() -> None:
    pair, log = logged_pair()
    pair.advance(SECOND)
    (packet,) = [packet for _, packet in log.sent if len(packet) == 1400]
    header = wire.parse(packet)
    assert header.flags == Flag.ENCRYPTED | Flag.REQUIRE_ACK
    assert pair.c.keys.open(header.seq, packet[80:]) == probe(1400)


@pytest.mark.parametrize(("reliable", "mtu"), [(False, 1400), (True, 512)])
def test_what_holds_before_the_first_search_ends(
    monkeypatch: pytest.MonkeyPatch, reliable: bool, mtu: int
) -> None:
    monkeypatch.setattr(Session, "reliable", reliable)
    pair = easy_pair()
    assert pair.c.mtu == pair.s.mtu == mtu
    pair.path_mtu = 1000
    pair.advance(5 * SECOND)
    assert pair.c.mtu == mtu
    pair.advance(10 * SECOND)
    assert pair.c.mtu == searched(512, 1400, 1000)[0]
    (change,) = [event for event in pair.events["client"] if isinstance(event, MtuChanged)]
    assert change == MtuChanged(mtu, pair.c.mtu)


def test_it_searches_again_every_60_seconds_and_changes_the_mtu_at_the_end_only() -> None:
    pair, log = logged_pair()
    start = pair.world.now
    pair.advance(60 * SECOND)
    assert [now - start for now, _ in log.probes()] == [SECOND]
    pair.path_mtu = 700
    pair.advance(SECOND)
    assert [now - start for now, _ in log.probes()] == [SECOND, 61 * SECOND]
    for _ in range(8):
        pair.advance(SECOND)
        assert pair.c.mtu == 1400
    pair.advance(5 * SECOND)
    narrow, sizes = searched(512, 1400, 700)
    assert pair.c.mtu == narrow
    assert len(log.probes()) == 1 + len(sizes)
    ended = pair.world.now
    pair.path_mtu = None
    pair.advance(55 * SECOND)
    assert pair.c.mtu == narrow
    pair.advance(10 * SECOND)
    assert pair.c.mtu == 1400
    assert log.probes()[-1][0] - ended <= 60 * SECOND


def test_a_loss_starts_a_search_but_no_second_probe_within_a_second() -> None:
    pair, log = logged_pair()
    pair.advance(SECOND)
    (first,) = log.probes()
    pair.advance(300 * MILLISECOND)
    pair.c.discovery.lost(pair.world.now)
    pair.advance(700 * MILLISECOND - 1)
    assert log.probes() == [first]
    pair.advance(1)
    assert log.probes() == [first, (first[0] + SECOND, 1400)]
    pair.advance(10 * SECOND)
    assert len(log.probes()) == 2
    pair.c.discovery.probe_now(pair.world.now)
    pair.advance(1)
    assert len(log.probes()) == 3


def test_a_loss_during_a_search_does_not_start_it_over() -> None:
    pair, log = logged_pair()
    pair.path_mtu = 800
    for _ in range(30):
        pair.advance(500 * MILLISECOND)
        if pair.c.mtu == 1400:
            pair.c.discovery.lost(pair.world.now)
    assert [size for _, size in log.probes()] == searched(512, 1400, 800)[1]
    first, second = (now for now, _ in log.probes()[:2])
    assert second - first == 2 * SECOND, "nor does it cut the wait for an answer short"


def test_no_two_probes_within_a_second_whatever_happens() -> None:
    pair, log = logged_pair()
    for step in range(400):
        pair.path_mtu = (None, 600, 1100, 1399)[step % 4]
        pair.advance(137 * MILLISECOND)
        pair.c.discovery.lost(pair.world.now)
    times = [now for now, _ in log.probes()]
    assert len(times) > 20
    assert min(after - before for before, after in pairwise(times)) >= SECOND


def test_data_is_cut_to_the_mtu_of_the_moment() -> None:
    pair, log = logged_pair()
    pair.path_mtu = 600
    pair.c.send(bytes(1304), pair.world.now)
    assert [len(packet) for packet in pair.c.packets_to_send()] == [1400]
    pair.advance(20 * SECOND)
    del log.sent[:]
    pair.c.send(bytes(1304), pair.world.now)
    pair.run()
    sizes = [len(packet) for _, packet in log.sent]
    assert max(sizes) == pair.c.mtu <= 600
    message = pair.server.take(pair.world.now)
    assert message is not None
    assert len(message.data) == 1304


# -- answers ---------------------------------------------------------------------------------------


def in_flight(path: int = 600) -> Pair:
    """The client has just sent its first probe, of 1400 bytes, which got lost."""
    pair = easy_pair()
    pair.path_mtu = path
    pair.advance(SECOND)
    return pair


def reply(pair: Pair, size: int) -> bytes:
    return pair.s.protect(Type.DISCOVER, pair.world.now, answer(size))


def test_an_answer_of_the_size_in_flight_counts() -> None:
    pair = in_flight()
    assert deliver(pair, reply(pair, 1400), "client") is Verdict.ACCEPTED
    pair.advance(20 * SECOND)
    assert pair.c.mtu == 1400


@pytest.mark.parametrize("size", [*HOSTILE, 512, 956, 1399])
def test_an_answer_of_another_size_changes_nothing(size: int) -> None:
    pair = in_flight()
    assert deliver(pair, reply(pair, size), "client") is DropReason.UNSOLICITED
    assert pair.c.counters["unsolicited"] == 1
    assert pair.c.mtu == 1400
    pair.advance(20 * SECOND)
    assert pair.c.mtu == searched(512, 1400, 600)[0]


def test_a_late_or_repeated_answer_changes_nothing() -> None:
    pair = in_flight()
    pair.advance(2 * SECOND)
    assert deliver(pair, reply(pair, 1400), "client") is DropReason.UNSOLICITED
    assert deliver(pair, reply(pair, 956), "client") is Verdict.ACCEPTED
    assert deliver(pair, reply(pair, 956), "client") is DropReason.UNSOLICITED
    pair.advance(20 * SECOND)
    assert pair.c.mtu == 956


def test_once_the_wait_is_over_an_answer_is_late_even_before_the_next_probe() -> None:
    pair = in_flight()
    pair.c.congested = True
    pair.advance(2 * SECOND)
    assert deliver(pair, reply(pair, 1400), "client") is DropReason.UNSOLICITED
    pair.c.congested = False
    pair.advance(20 * SECOND)
    assert pair.c.mtu == searched(512, 1400, 600)[0]


def test_an_answer_that_nobody_asked_for_changes_nothing() -> None:
    pair = easy_pair()
    assert deliver(pair, reply(pair, 1400), "client") is DropReason.UNSOLICITED
    assert deliver(pair, reply(pair, 700), "client") is DropReason.UNSOLICITED
    assert pair.c.mtu == 1400


def test_an_answer_with_a_bad_hmac_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "reliable", True)
    pair = in_flight()
    assert deliver(pair, flipped(reply(pair, 1400)), "client") is DropReason.AUTH_FAIL
    assert pair.c.mtu == 512
    pair = in_flight()
    assert deliver(pair, reply(pair, 1400), "client") is Verdict.ACCEPTED
    assert pair.c.mtu == 1400


@pytest.mark.parametrize("plaintext", [b"\5", b"\5\x78\0", probe(600)])
def test_an_answer_of_another_length_is_malformed(plaintext: bytes) -> None:
    pair = in_flight()
    packet = pair.s.protect(Type.DISCOVER, pair.world.now, plaintext)
    assert deliver(pair, packet, "client") is DropReason.MALFORMED
    pair.advance(20 * SECOND)
    assert pair.c.mtu == searched(512, 1400, 600)[0]


# -- the peer's probes -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [512, 956, 1400])
def test_the_answer_is_two_bytes_and_the_ack(size: int) -> None:
    pair = easy_pair()
    packet = pair.c.protect(Type.DISCOVER, pair.world.now, probe(size), flags=PROBE)
    assert len(packet) == size
    assert deliver(pair, packet) is Verdict.ACCEPTED
    (reply,) = pair.s.packets_to_send()
    header = wire.parse(reply)
    assert (header.type, header.flags, header.payload_len) == (Type.DISCOVER, Flag.ENCRYPTED, 18)
    assert header.ack == wire.parse(packet).seq
    assert pair.s.keys.open(header.seq, reply[80:]) == answer(size)
    pair.s.handle_timer(pair.world.now + 60 * MILLISECOND)
    assert pair.s.packets_to_send() == [], "no ACK of its own"


@pytest.mark.parametrize("claimed", HOSTILE)
@pytest.mark.parametrize("honest", [True, False])
def test_a_hostile_probe_gets_an_ack_and_no_answer(claimed: int, honest: bool) -> None:
    pair = easy_pair()
    size = claimed if honest and claimed >= 98 else 1000
    plaintext = claimed.to_bytes(2, "big").ljust(size - 96, b"\0")
    packet = pair.c.protect(Type.DISCOVER, pair.world.now, plaintext, flags=PROBE)
    assert deliver(pair, packet) is DropReason.MALFORMED
    assert pair.s.counters["malformed"] == 1
    assert pair.s.packets_to_send() == []
    pair.s.handle_timer(pair.world.now + 50 * MILLISECOND)
    (ack,) = [wire.parse(packet) for packet in pair.s.packets_to_send()]
    assert (ack.type, ack.ack) == (Type.ACK, wire.parse(packet).seq)
    assert pair.s.mtu == pair.c.mtu == 1400
    assert pair.s.end is None


def types_sent(session: Session) -> list[int]:
    return [wire.parse(packet).type for packet in session.packets_to_send()]


def test_where_packets_pile_up_one_probe_a_second_is_answered() -> None:
    pair = easy_pair()
    pair.s.congested = True
    for step in range(25):
        now = pair.world.now + step * 100 * MILLISECOND
        packet = pair.c.protect(Type.DISCOVER, now, probe(1400), flags=PROBE)
        assert pair.s.receive_packet(packet, now) is Verdict.ACCEPTED
    assert types_sent(pair.s) == [Type.DISCOVER] * 3
    pair.s.handle_timer(pair.world.now + 3 * SECOND)
    assert Type.ACK not in types_sent(pair.s)
    pair.s.congested = False
    pair.s.handle_timer(pair.world.now + 3 * SECOND)
    assert Type.ACK in types_sent(pair.s)


def holding(monkeypatch: pytest.MonkeyPatch, one: Session | None) -> None:
    """From now on this session holds packets, and no other does."""
    monkeypatch.setattr(Session, "holding", property(lambda session: session is one))


def test_while_packets_are_held_a_probe_gets_an_ack_and_the_answer_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = easy_pair()
    holding(monkeypatch, pair.s)
    packet = pair.c.protect(Type.DISCOVER, pair.world.now, probe(1400), flags=PROBE)
    assert deliver(pair, packet) is Verdict.ACCEPTED
    pair.s.handle_timer(pair.world.now + 50 * MILLISECOND)
    assert types_sent(pair.s) == [Type.ACK]
    holding(monkeypatch, None)
    pair.s.release(pair.world.now + SECOND)
    assert types_sent(pair.s) == [Type.DISCOVER]


@pytest.mark.parametrize("path", [600, 1400])
def test_the_wait_for_an_answer_begins_when_a_held_probe_leaves(
    monkeypatch: pytest.MonkeyPatch, path: int
) -> None:
    pair, log = logged_pair()
    pair.path_mtu = path
    holding(monkeypatch, pair.c)
    pair.advance(50 * SECOND)
    assert log.probes() == []
    holding(monkeypatch, None)
    left = pair.world.now
    pair.c.release(left)
    pair.run()
    pair.advance(20 * SECOND)
    found, sizes = searched(512, 1400, path)
    assert [size for _, size in log.probes()] == sizes
    assert [now for now, _ in log.probes()][:2] == [left, left + 2 * SECOND][: len(sizes)]
    assert pair.c.mtu == found


def test_other_bounds_while_a_probe_is_held_wait_until_it_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, log = logged_pair()
    holding(monkeypatch, pair.c)
    pair.advance(5 * SECOND)
    configure(pair.world.client_core, pair.world.now, mtu_min=600, mtu_max=800)
    pair.c.discovery.probe_now(pair.world.now)
    pair.advance(5 * SECOND)
    holding(monkeypatch, None)
    left = pair.world.now
    pair.c.release(left)
    pair.run()
    pair.advance(20 * SECOND)
    assert log.probes() == [(left, 1400), (left + SECOND, 800)]
    assert pair.c.mtu == 800


def test_during_a_rekey_nothing_is_probed() -> None:
    pair, log = logged_pair()
    pair.c.state = State.REKEYING
    pair.advance(10 * SECOND)
    assert log.probes() == []
    pair.c.state = State.ESTABLISHED
    pair.advance(SECOND)
    assert [size for _, size in log.probes()] == [1400]


def test_while_the_transport_is_full_no_size_is_judged() -> None:
    pair, log = logged_pair()
    pair.c.congested = True
    pair.advance(10 * SECOND)
    assert log.probes() == []
    pair.c.congested = False
    pair.advance(SECOND)
    assert [size for _, size in log.probes()] == [1400]
    assert pair.c.mtu == 1400


def test_while_nothing_is_read_the_wait_for_an_answer_stands_still() -> None:
    pair = in_flight(path=512)
    pair.path_mtu = None
    answered = reply(pair, 1400)
    pair.c.suspend(pair.world.now)
    pair.advance(30 * SECOND)
    pair.c.resume(pair.world.now)
    pair.advance(SECOND)
    assert deliver(pair, answered, "client") is Verdict.ACCEPTED
    pair.advance(20 * SECOND)
    assert pair.c.mtu == 1400


# -- bounds ----------------------------------------------------------------------------------------


class Proposer:
    def undone(self, undone: Current, restored: Current, why: Undoing, now: int) -> None:
        raise AssertionError(why)


def configure(core: NodeCore, now: int, **changes: int) -> None:
    """Put other parameters in force, for an hour."""
    configuration = core.configuration
    payload = ConfigPayload.proposing(
        replace(configuration.current.params, **changes),
        configuration.reference,
        configuration.current.version + 1,
        3600 * SECOND,
        0,
    )
    assert configuration.propose(payload, Proposer(), now) is None


@pytest.mark.parametrize(("low", "high", "path"), [(700, 900, 1400), (700, 900, 800), (900, 900, 1400)])
def test_the_configured_bounds_are_those_of_the_search(low: int, high: int, path: int) -> None:
    pair, log = logged_pair(mtu_min=low, mtu_max=high)
    assert pair.c.mtu == high
    assert pair.s.mtu == 1400
    pair.path_mtu = path
    pair.advance(20 * SECOND)
    found, sizes = searched(low, high, path)
    assert pair.c.mtu == found
    assert [size for _, size in log.probes()] == sizes


def test_a_change_of_the_bounds_holds_at_once_and_starts_the_search_anew() -> None:
    pair, log = logged_pair()
    pair.advance(10 * SECOND)
    stirred: list[Session] = []
    pair.world.client_core.stir = stirred.append
    configure(pair.world.client_core, pair.world.now, mtu_min=600, mtu_max=800)
    assert stirred == [pair.c]
    assert pair.c.mtu == 800
    pair.advance(1)
    assert [size for _, size in log.probes()] == [1400, 800]
    pair.advance(10 * SECOND)
    assert len(log.probes()) == 2
    assert [event for event in pair.events["client"] if isinstance(event, MtuChanged)] == [
        MtuChanged(1400, 800)
    ]


def test_a_running_search_starts_anew_and_its_answer_no_longer_counts() -> None:
    pair, log = logged_pair()
    pair.path_mtu = 600
    pair.advance(SECOND)
    configure(pair.world.client_core, pair.world.now, mtu_min=512, mtu_max=1399)
    assert deliver(pair, reply(pair, 1400), "client") is DropReason.UNSOLICITED
    pair.advance(20 * SECOND)
    found, sizes = searched(512, 1399, 600)
    assert pair.c.mtu == found
    assert [size for _, size in log.probes()] == [1400, *sizes]


def test_other_changes_leave_the_search_alone() -> None:
    pair, log = logged_pair()
    pair.advance(10 * SECOND)
    configure(pair.world.client_core, pair.world.now, rekey_s=1000)
    pair.advance(20 * SECOND)
    assert len(log.probes()) == 1


def test_an_ended_session_neither_probes_nor_listens_to_the_configuration() -> None:
    pair, log = logged_pair()
    pair.c.close(pair.world.now)
    configure(pair.world.client_core, pair.world.now, mtu_min=600, mtu_max=800)
    assert pair.c.mtu == 1400
    pair.c.discovery.probe_now(pair.world.now)
    pair.advance(100 * SECOND)
    assert log.probes() == []
