# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal: entries and their chain, the ring, rate-limited errors, what carries entries to a peer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from poolref_sim import START, WALL
from poolref_vectors import cases

from poolref.constants import JOURNAL_DETAIL, JOURNAL_RING, MILLISECOND, SECOND, ErrorCode
from poolref.counters import Counters, DropReason
from poolref.errors import DecodeError
from poolref.journal import ERROR_OF, ZERO_HASH, ChangeType, Entry, Journal, Ring, Sync, clipped, first_break


def entry_after(previous: str, given: dict[str, Any]) -> Entry:
    return Entry.after(
        bytes.fromhex(previous),
        int(given["timestamp"]),
        given["config_before"],
        given["config_after"],
        given["change_type"],
        bytes.fromhex(given["detail"]),
    )


def written(count: int, counters: Counters | None = None) -> Journal:
    journal = Journal(counters or Counters())
    for index in range(count):
        journal.append(ChangeType.CONNECT, f"peer {index}", WALL + index, 0, 0)
    return journal


# -- entries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("given", "expected"), cases("journal", "journal.encode_entry"))
def test_entries_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    entry = entry_after(given["previous_hash"], given["entry"])
    assert entry.pack().hex() == expected["entry"]
    assert Entry.unpack_from(entry.pack()) == entry


@pytest.mark.parametrize(("given", "expected"), cases("journal", "journal.chain"))
def test_chains_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    previous = given["previous_hash"]
    hashes = []
    for each in given["entries"]:
        previous = entry_after(previous, each).change_hash.hex()
        hashes.append(previous)
    assert hashes == expected["change_hashes"]


@pytest.mark.parametrize(("given", "expected"), cases("journal", "journal.encode_sync"))
def test_syncs_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    previous = given["previous_hash"]
    entries = []
    for each in given["entries"]:
        entries.append(entry_after(previous, each))
        previous = entries[-1].change_hash.hex()
    sync = Sync(int(given["first_index"]), bytes.fromhex(given["previous_hash"]), tuple(entries))
    assert sync.pack().hex() == expected["plaintext"]
    assert Sync.unpack(sync.pack()) == sync


@pytest.mark.parametrize(("given", "expected"), cases("journal", "journal.verify_sync"))
def test_the_chain_of_a_sync_as_in_the_vectors(given: dict[str, Any], expected: dict[str, Any]) -> None:
    plaintext = bytes.fromhex(given["plaintext"])
    if expected == {"drop": "malformed"}:
        with pytest.raises(DecodeError):
            Sync.unpack(plaintext)
        return
    sync = Sync.unpack(plaintext)
    assert {
        "first_index": str(sync.first_index),
        "count": len(sync.entries),
        "chain": "holds" if sync.holds else "broken",
    } == expected


def test_the_first_entry_follows_zero_bytes() -> None:
    first = written(1).entries()[0]
    elsewhere = Entry.after(b"\x01" * 32, *_hashed(first))
    assert Sync(0, ZERO_HASH, (first,)).holds
    assert not Sync(0, b"\x01" * 32, (elsewhere,)).holds
    assert Sync(1, b"\x01" * 32, (elsewhere,)).holds


def _hashed(entry: Entry) -> tuple[int, int, int, int, bytes]:
    return entry.timestamp, entry.config_before, entry.config_after, entry.change_type, entry.detail


def test_a_sync_that_is_cut_off_anywhere_does_not_decode() -> None:
    plaintext = Sync(0, ZERO_HASH, written(3).entries()).pack()
    for size in range(len(plaintext)):
        with pytest.raises(DecodeError):
            Sync.unpack(plaintext[:size])
    with pytest.raises(DecodeError):
        Sync.unpack(plaintext + b"\0")


def test_a_detail_of_more_than_256_bytes_does_not_decode() -> None:
    longest = Entry.after(ZERO_HASH, 1, 0, 0, 1, b"x" * 256)
    assert Entry.unpack_from(longest.pack()) == longest
    longer = Entry.after(ZERO_HASH, 1, 0, 0, 1, b"x" * 257)
    with pytest.raises(DecodeError):
        Entry.unpack_from(longer.pack())


def test_indexes_beyond_64_bits_do_not_decode() -> None:
    entry = Entry.after(ZERO_HASH, 1, 0, 0, 1, b"")
    last = (1 << 64) - 2
    assert Sync.unpack(Sync(last, ZERO_HASH, (entry,)).pack()).next_index == last + 1
    with pytest.raises(DecodeError):
        Sync.unpack(Sync(last + 1, ZERO_HASH, (entry,)).pack())


@given(st.binary(max_size=200))
def test_whatever_comes_a_sync_decodes_exactly_or_not_at_all(plaintext: bytes) -> None:
    try:
        sync = Sync.unpack(plaintext)
    except DecodeError:
        return
    assert sync.pack() == plaintext


def test_text_that_is_not_utf8_is_shown_all_the_same() -> None:
    assert Entry.after(ZERO_HASH, 1, 0, 0, 1, b"who \xff").text == "who �"


# -- details ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["x", "ö", "€", "𝄞"])
@pytest.mark.parametrize("before", range(4))
def test_a_detail_is_cut_to_256_bytes_between_characters(character: str, before: int) -> None:
    text = "-" * before + character * 300
    data = clipped(text)
    assert text.startswith(data.decode())
    assert 256 - len(character.encode()) < len(data) <= 256


@given(st.text(max_size=400), st.integers(0, 300))
def test_a_cut_detail_is_the_longest_whole_beginning(text: str, limit: int) -> None:
    data = clipped(text, limit)
    kept = data.decode()
    assert len(data) <= limit
    longer = text[: len(kept) + 1].encode(errors="replace")
    assert kept == text.encode(errors="replace").decode() or len(longer) > limit


def test_a_lone_surrogate_does_not_raise() -> None:
    assert clipped("a\ud800b") == b"a?b"


# -- the ring --------------------------------------------------------------------------------------


def test_3000_entries_leave_1024_whose_chain_holds() -> None:
    counters = Counters()
    journal = written(3000, counters)
    assert len(journal) == len(journal.entries()) == JOURNAL_RING
    assert (journal.first_index, journal.next_index) == (3000 - JOURNAL_RING, 3000)
    assert [entry.text for entry in journal.entries()][:: JOURNAL_RING - 1] == ["peer 1976", "peer 2999"]
    assert counters[DropReason.JOURNAL_FULL] == 3000 - JOURNAL_RING
    assert journal.verify() is None
    assert first_break(journal.previous_hash, journal.entries()) is None
    assert first_break(ZERO_HASH, journal.entries()) == 0


def test_1024_entries_overwrite_nothing() -> None:
    counters = Counters()
    journal = written(JOURNAL_RING, counters)
    assert (len(journal), journal.first_index, journal.previous_hash) == (JOURNAL_RING, 0, ZERO_HASH)
    assert counters[DropReason.JOURNAL_FULL] == 0
    first = journal.entries()[0]
    journal.append(ChangeType.CONNECT, "one more", WALL, 0, 0)
    assert (len(journal), journal.first_index, journal.previous_hash) == (JOURNAL_RING, 1, first.change_hash)
    assert counters[DropReason.JOURNAL_FULL] == 1


def test_indexes() -> None:
    journal = written(JOURNAL_RING + 5)
    entries = journal.entries()
    assert journal.entry(5) is entries[0]
    assert journal.entry(JOURNAL_RING + 4) is entries[-1]
    assert journal.hash_before(5) == journal.previous_hash
    assert journal.hash_before(6) == entries[0].change_hash
    assert journal.hash_before(JOURNAL_RING + 5) == entries[-1].change_hash == journal.head
    for index in (4, JOURNAL_RING + 5):
        with pytest.raises(IndexError):
            journal.entry(index)
    for index in (4, JOURNAL_RING + 6):
        with pytest.raises(IndexError):
            journal.hash_before(index)


def test_an_empty_journal() -> None:
    journal = Journal(Counters())
    assert (len(journal), journal.head, journal.next_index) == (0, ZERO_HASH, 0)
    assert journal.verify() is None
    assert journal.hash_before(0) == ZERO_HASH


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": WALL},
        {"config_before": 1},
        {"config_after": 1},
        {"change_hash": b"\x01" * 32},
        {"change_type": 2},
        {"detail": b"peer 2 "},
    ],
    ids=str,
)
def test_a_changed_entry_breaks_the_chain_where_it_is(change: dict[str, Any]) -> None:
    ring = Ring()
    for index, entry in enumerate(written(5).entries()):
        ring.push(replace(entry, **change) if index == 2 else entry)
    assert ring.verify() == 2


def test_an_entry_with_its_hash_redone_breaks_the_chain_at_the_next() -> None:
    entries = list(written(5).entries())
    entries[2] = Entry.after(entries[1].change_hash, *_hashed(entries[2])[:4], b"forged")
    ring = Ring()
    for entry in entries:
        ring.push(entry)
    assert ring.verify() == 3


def test_a_break_is_told_by_its_index_also_after_the_ring_went_round() -> None:
    journal = written(JOURNAL_RING + 7)
    ring = Ring(journal.first_index, journal.previous_hash)
    for index, entry in enumerate(journal.entries()):
        ring.push(replace(entry, config_after=9) if index == 10 else entry)
    assert ring.verify() == 17


@pytest.mark.parametrize("wall", [-1, 1 << 64])
def test_a_clock_beyond_64_bits_does_not_raise(wall: int) -> None:
    journal = Journal(Counters())
    journal.append(ChangeType.CONNECT, "", wall, 0, 0)
    assert journal.verify() is None


def test_watchers_hear_of_each_entry_until_they_leave() -> None:
    journal = Journal(Counters())
    heard: list[int] = []

    def watcher() -> None:
        heard.append(len(journal))

    journal.watch(watcher)
    journal.watch(watcher)
    journal.append(ChangeType.CONNECT, "", WALL, 0, 0)
    journal.append(ChangeType.CONNECT, "", WALL, 0, 0)
    journal.unwatch(watcher)
    journal.unwatch(watcher)
    journal.append(ChangeType.CONNECT, "", WALL, 0, 0)
    assert heard == [1, 2]


def test_what_an_entry_says() -> None:
    journal = Journal(Counters())
    entry = journal.append(ChangeType.CONFIG, "ab::1 9253 accepted", WALL, 3, 4)
    assert entry == journal.entries()[0]
    assert (entry.timestamp, entry.config_before, entry.config_after) == (WALL, 3, 4)
    assert (entry.change_type, entry.text) == (ChangeType.CONFIG, "ab::1 9253 accepted")


# -- errors ----------------------------------------------------------------------------------------


def test_an_error_begins_with_its_code() -> None:
    journal = Journal(Counters())
    entry = journal.error(ErrorCode.VERSION_MISMATCH, "::1 9253 version 2", START, WALL, 7)
    assert entry is not None
    assert entry.change_type == ChangeType.ERROR
    assert entry.text == "0x0a ::1 9253 version 2"
    assert (entry.config_before, entry.config_after) == (7, 7)


def test_ten_errors_a_second_in_each_category() -> None:
    counters = Counters()
    journal = Journal(counters)

    def error(code: int, now: int) -> str | None:
        entry = journal.error(code, "who why", now, WALL, 0)
        return None if entry is None else entry.text

    for step in range(10):
        assert error(1, START + step * 50 * MILLISECOND) == "0x01 who why"
    for _ in range(3):
        assert error(1, START + SECOND - 1) is None
    assert error(2, START + SECOND - 1) == "0x02 who why"
    assert counters["errors_not_journalled"] == 3
    assert error(1, START + SECOND) == "0x01 who why (and 3 more before)"
    assert error(1, START + SECOND) is None, "the second slides: nine more are within it"
    assert error(1, START + SECOND + 50 * MILLISECOND) == "0x01 who why (and 1 more before)"
    assert error(1, START + SECOND + 100 * MILLISECOND) == "0x01 who why"
    assert len(journal) == 14


def test_how_many_were_not_written_survives_a_long_detail() -> None:
    journal = Journal(Counters())
    for _ in range(12):
        journal.error(1, "ö" * 300, START, WALL, 0)
    entry = journal.error(1, "ö" * 300, START + SECOND, WALL, 0)
    assert entry is not None
    assert len(entry.detail) in (JOURNAL_DETAIL, JOURNAL_DETAIL - 1)
    assert entry.text.startswith("0x01 öö")
    assert entry.text.endswith("ö (and 2 more before)")


def test_an_overwritten_entry_is_no_error_of_its_own() -> None:
    """It would overwrite another one."""
    assert DropReason.JOURNAL_FULL not in ERROR_OF
