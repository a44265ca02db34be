# SPDX-License-Identifier: GPL-2.0-or-later
"""Windows and timers of raw IP (TRN-04, TRN-06), without packets."""

from __future__ import annotations

import random

import pytest

from poolref import constants as c
from poolref.constants import MILLISECOND, SECOND
from poolref.counters import DropReason
from poolref.part import NEVER
from poolref.reliable import ReceiveWindow, SendWindow, Sent, retransmission_timeout

SEQ = 1 << 40


@pytest.mark.parametrize(
    ("srtt", "jitter", "timeout"),
    [
        (0, 0, SECOND),
        (0, 5 * SECOND, SECOND),
        (300 * MILLISECOND, 10 * MILLISECOND, 340 * MILLISECOND),
        (199 * MILLISECOND, 0, 200 * MILLISECOND),
        (1, 0, 200 * MILLISECOND),
        (100 * MILLISECOND, 25 * MILLISECOND, 200 * MILLISECOND),
        (100 * MILLISECOND, 26 * MILLISECOND, 204 * MILLISECOND),
        (9 * SECOND, 250 * MILLISECOND, 10 * SECOND),
        (9 * SECOND, 251 * MILLISECOND, 10 * SECOND),
        (60 * SECOND, 0, 10 * SECOND),
    ],
)
def test_the_timeout_follows_the_round_trip_within_its_bounds(srtt: int, jitter: int, timeout: int) -> None:
    assert retransmission_timeout(srtt, jitter) == timeout


def schedule(interval: int) -> tuple[list[int], list[bool]]:
    """When a packet that is never acknowledged is sent, when it is given up, and which sends clear DF."""
    sent = Sent(SEQ, b"packet", 0, interval)
    times, fragmentable = [0], [False]
    while not sent.exhausted:
        now = sent.due
        fragmentable.append(sent.again(now))
        times.append(now)
    return [*times, sent.due], fragmentable


def test_eight_sends_doubling_up_to_ten_seconds_then_given_up() -> None:
    times, fragmentable = schedule(SECOND)
    assert times == [seconds * SECOND for seconds in (0, 1, 3, 7, 15, 25, 35, 45, 55)]
    assert fragmentable == [False] * 3 + [True] * 5


def test_a_short_timeout_doubles_as_well() -> None:
    times, _ = schedule(200 * MILLISECOND)
    assert times == [each * MILLISECOND for each in (0, 200, 600, 1400, 3000, 6200, 12600, 22600, 32600)]


def test_a_late_resend_moves_the_next_one() -> None:
    sent = Sent(SEQ, b"packet", 0, SECOND)
    sent.again(SECOND + 300 * MILLISECOND)
    assert sent.due == 3 * SECOND + 300 * MILLISECOND


def filled(count: int, interval: int = SECOND) -> SendWindow:
    window = SendWindow()
    for step in range(count):
        window.add(Sent(SEQ + step, b"", step, interval))
    return window


def test_thirty_two_packets_fill_the_window() -> None:
    window = filled(31)
    assert not window.full
    window.add(Sent(SEQ + 31, b"", 31, SECOND))
    assert window.full
    assert len(window) == c.IN_FLIGHT_LIMIT == 32


def test_an_ack_takes_everything_up_to_it_and_never_goes_back() -> None:
    window = filled(5)
    assert window.acknowledge(SEQ + 2).packets == 3
    assert len(window) == 2
    assert window.acknowledge(SEQ).packets == 0
    assert window.acknowledge(SEQ + 4).packets == 2
    assert len(window) == 0
    assert window.acknowledge(SEQ + 9).packets == 0


def test_an_ack_tells_whether_it_covers_a_resent_packet() -> None:
    window = filled(4)
    (oldest,) = window.overdue(SECOND)
    oldest.again(SECOND)
    assert window.acknowledge(SEQ + 1).resent
    assert not window.acknowledge(SEQ + 3).resent


def test_packets_become_due_in_their_order() -> None:
    window = filled(3)
    assert window.due == SECOND
    assert [sent.seq for sent in window.overdue(SECOND + 1)] == [SEQ, SEQ + 1]
    window.overdue(SECOND)[0].again(SECOND)
    assert window.due == SECOND + 1
    window.clear()
    assert window.due == NEVER
    assert window.overdue(NEVER) == []


def taken(window: ReceiveWindow[str]) -> list[str]:
    items = []
    while (item := window.next_ready()) is not None:
        items.append(item)
    return items


def test_items_come_out_in_order_whatever_order_they_arrive_in() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    window: ReceiveWindow[int] = ReceiveWindow(SEQ)
    missing = list(range(SEQ + 1, SEQ + 1001))
    out: list[int] = []
    while missing:
        seq = missing.pop(chance.randrange(min(len(missing), 40)))
        if window.objection(seq) is not None:
            missing.insert(0, seq)
            missing.sort()
            continue
        window.accept(seq, seq)
        assert window.objection(seq) is DropReason.DUPLICATE
        assert window.cumulative == (missing[0] - 1 if missing else SEQ + 1000)
        while (item := window.next_ready()) is not None:
            out.append(item)
    assert out == list(range(SEQ + 1, SEQ + 1001))
    assert window.lost == 0
    assert window.received == 1001


def test_what_arrived_or_was_never_sent_is_a_duplicate() -> None:
    window: ReceiveWindow[str] = ReceiveWindow(SEQ)
    for seq in (SEQ, SEQ - 1, SEQ - 1000, 0):
        assert window.objection(seq) is DropReason.DUPLICATE
    window.accept(SEQ + 2, "two")
    assert window.objection(SEQ + 2) is DropReason.DUPLICATE
    assert window.objection(SEQ + 1) is None


@pytest.mark.parametrize("arrived", [0, 1, 5])
def test_the_window_ends_64_above_the_next_expected(arrived: int) -> None:
    window: ReceiveWindow[str] = ReceiveWindow(SEQ)
    for step in range(1, arrived + 1):
        window.accept(SEQ + step, "")
    next_expected = SEQ + arrived + 1
    assert window.objection(next_expected + 63) is None
    assert window.objection(next_expected + 64) is DropReason.OUT_OF_WINDOW
    window.accept(next_expected + 63, "")  # it does not move: the gap is where it was
    assert window.objection(next_expected + 64) is DropReason.OUT_OF_WINDOW
    assert window.objection(next_expected) is None
    assert window.lost == 63


def test_a_packet_acted_upon_early_fills_its_place() -> None:
    window: ReceiveWindow[str] = ReceiveWindow(SEQ)
    window.accept(SEQ + 3, "three")
    window.accept(SEQ + 2, None)
    assert taken(window) == []
    assert window.cumulative == SEQ
    assert window.early() == ["three"]
    window.accept(SEQ + 1, "one")
    assert window.cumulative == SEQ + 3
    assert taken(window) == ["one", "three"]
    assert window.early() == []


def test_clearing_forgets_contents_but_not_what_arrived() -> None:
    window: ReceiveWindow[str] = ReceiveWindow(SEQ)
    window.accept(SEQ + 1, "one")
    window.accept(SEQ + 3, "three")
    window.clear()
    assert window.early() == []
    assert window.objection(SEQ + 3) is DropReason.DUPLICATE
    window.accept(SEQ + 2, "two")
    assert window.cumulative == SEQ + 3
    assert taken(window) == ["two"]
