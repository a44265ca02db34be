# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments in any order, with duplicates, contradictions, evictions and timeouts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from poolref_sim import START, Pair, deliver, easy_pair

from poolref.constants import SECOND, Flag, Type
from poolref.counters import DropReason, Verdict
from poolref.fragments import Reassembly, split
from poolref.inbox import Message
from poolref.wire import FragmentHeader


def add(
    reassembly: Reassembly,
    chunk: bytes,
    offset: int,
    total: int,
    *,
    msg_id: int = 1,
    channel: int = 0,
    last: bool | None = None,
    now: int = 0,
) -> Message | Verdict | DropReason:
    end = offset + len(chunk) == total if last is None else last
    return reassembly.add(FragmentHeader(msg_id, offset, total), chunk, channel, end, now)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(1, 100), st.data())
def test_any_order_with_duplicates_and_other_messages_between(
    message: bytes, size: int, source: st.DataObject
) -> None:
    first = [(1, piece) for piece in split(message, 1, size)]
    second = [(2, piece) for piece in split(message[::-1], 2, size)]
    duplicates = source.draw(st.lists(st.sampled_from(first + second), max_size=5))
    arrival = source.draw(st.permutations(first + second + duplicates))
    reassembly = Reassembly()
    done = {}
    for msg_id, (plaintext, flags) in arrival:
        header = FragmentHeader.unpack_from(plaintext)
        result = reassembly.add(header, plaintext[8:], 3, bool(flags & Flag.LAST_FRAG), 0)
        assert not isinstance(result, DropReason)
        if isinstance(result, Message):
            assert msg_id not in done
            done[msg_id] = result
    assert done == {1: Message(3, message), 2: Message(3, message[::-1])}
    assert len(reassembly) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), max_size=20))
def test_completeness_is_by_bytes_covered(pieces: list[tuple[int, int]]) -> None:
    """Overlapping pieces of one message, against a set of covered bytes."""
    message = bytes(range(60))
    reassembly, covered, complete = Reassembly(), set(), False
    for offset, size in pieces:
        chunk = message[offset : offset + size]
        result = add(reassembly, chunk, offset, 60)
        if complete:
            assert result is Verdict.ACCEPTED
            continue
        covered |= set(range(offset, offset + len(chunk)))
        complete = len(covered) == 60
        assert result == (Message(0, message) if complete else Verdict.ACCEPTED)


def test_split_sizes_and_flags() -> None:
    pieces = list(split(bytes(250), 7, 100))
    assert [len(plaintext) for plaintext, _ in pieces] == [108, 108, 58]
    assert [bool(flags & Flag.LAST_FRAG) for _, flags in pieces] == [False, False, True]
    assert [FragmentHeader.unpack_from(plaintext).offset for plaintext, _ in pieces] == [0, 100, 200]


@pytest.mark.parametrize(
    ("chunk", "offset", "total", "extra"),
    [
        (b"xxxx", 7, 10, {}),  # past the end
        (b"x", 65535, 65535, {}),
        (b"x", 0, 0, {}),
        (b"x", 3, 10, {"last": True}),
        (b"x" * 8, 2, 10, {"last": False}),  # the end without LAST_FRAG (E-35)
        (b"", 3, 10, {"last": False}),
        (b"x", 3, 11, {}),  # another total
        (b"x", 3, 10, {"channel": 1}),
        (b"y", 0, 10, {}),  # other bytes where bytes are
    ],
)
def test_a_contradiction_discards_the_whole_message(
    chunk: bytes, offset: int, total: int, extra: dict[str, int]
) -> None:
    reassembly = Reassembly()
    assert add(reassembly, b"xx", 0, 10) is Verdict.ACCEPTED
    assert add(reassembly, chunk, offset, total, **extra) is DropReason.MALFORMED  # type: ignore[arg-type]
    assert len(reassembly) == 0
    assert add(reassembly, b"x" * 10, 0, 10) is DropReason.MALFORMED, "also what comes later of it"
    assert add(reassembly, b"x" * 10, 0, 10, msg_id=2) == Message(0, b"x" * 10)


def test_sixteen_messages_and_the_least_recently_touched_gives_way() -> None:
    reassembly = Reassembly()
    for msg_id in range(16):
        add(reassembly, b"x", 0, 10, msg_id=msg_id)
    add(reassembly, b"x", 0, 10, msg_id=0)  # a duplicate is a touch
    assert reassembly.evicted == 0
    add(reassembly, b"x", 0, 10, msg_id=16)
    assert (len(reassembly), reassembly.evicted) == (16, 1)
    assert add(reassembly, b"x" * 9, 1, 10, msg_id=0) == Message(0, b"x" * 10)
    assert add(reassembly, b"x" * 9, 1, 10, msg_id=1) is Verdict.ACCEPTED, "it was evicted"


def test_five_seconds_after_the_last_new_fragment() -> None:
    reassembly = Reassembly()
    assert reassembly.next_timer() is None
    add(reassembly, b"x", 0, 10, now=0)
    add(reassembly, b"x", 1, 10, now=3 * SECOND)
    add(reassembly, b"x", 1, 10, now=4 * SECOND)  # nothing new
    assert reassembly.next_timer() == 8 * SECOND
    assert reassembly.expire(8 * SECOND - 1) == 0
    assert reassembly.expire(8 * SECOND) == 1
    assert len(reassembly) == 0


@pytest.fixture
def pair() -> Pair:
    return easy_pair()


def fragment(pair: Pair, plaintext: bytes, flags: Flag = Flag.FRAGMENT, channel: int = 0) -> bytes:
    return pair.c.protect(Type.DATA, START, plaintext, flags=int(flags), channel=channel)


def test_fragments_in_a_session_out_of_order(pair: Pair) -> None:
    pair.c.send(b"".join(index.to_bytes(2, "big") for index in range(3000)), START)
    packets = pair.c.packets_to_send()
    assert len(packets) == 5
    for packet in reversed(packets):
        assert deliver(pair, packet) is Verdict.ACCEPTED
    message = pair.server.take(START)
    assert message is not None
    assert message.data[-2:] == (2999).to_bytes(2, "big")
    assert len(message.data) == 6000


def test_message_ids_increase_by_one(pair: Pair) -> None:
    ids = []
    for _ in range(3):
        pair.c.send(bytes(2000), START)
        for packet in pair.c.packets_to_send():
            plaintext = pair.c.keys.open(int.from_bytes(packet[4:12], "big"), packet[80:])
            assert plaintext is not None
            ids.append(FragmentHeader.unpack_from(plaintext).msg_id)
    assert ids == [0, 0, 1, 1, 2, 2]


def test_a_fragment_too_short_for_its_header_is_malformed(pair: Pair) -> None:
    assert deliver(pair, fragment(pair, bytes(7))) is DropReason.MALFORMED
    whole = FragmentHeader(5, 0, 3).pack() + b"abc"
    assert deliver(pair, fragment(pair, whole, Flag.FRAGMENT | Flag.LAST_FRAG)) is Verdict.ACCEPTED
    assert pair.server.take(START) == (0, b"abc")


def test_fragments_are_freed_in_time_and_with_the_session(pair: Pair) -> None:
    deliver(pair, fragment(pair, FragmentHeader(5, 0, 9).pack() + b"abc"))
    pair.s.handle_timer(START + 5 * SECOND - 1)
    assert len(pair.s.delivery.reassembly) == 1
    assert pair.s.next_timer() == START + 5 * SECOND
    pair.s.handle_timer(START + 5 * SECOND)
    assert len(pair.s.delivery.reassembly) == 0
    deliver(pair, fragment(pair, FragmentHeader(6, 0, 9).pack() + b"abc"))
    pair.s.close(START)
    assert len(pair.s.delivery.reassembly) == 0


def test_while_nothing_is_read_no_fragment_is_late(pair: Pair) -> None:
    deliver(pair, fragment(pair, FragmentHeader(5, 0, 9).pack() + b"abc"))
    pair.s.suspend(START + SECOND)
    pair.s.handle_timer(START + 60 * SECOND)
    pair.s.resume(START + 60 * SECOND)
    pair.s.handle_timer(START + 60 * SECOND)
    assert len(pair.s.delivery.reassembly) == 1
    pair.s.handle_timer(START + 64 * SECOND)
    assert len(pair.s.delivery.reassembly) == 0
