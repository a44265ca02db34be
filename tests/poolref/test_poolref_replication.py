# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal over sessions: what a peer that asks gets, and what the copy notices."""

from __future__ import annotations

import errno
import itertools
from dataclasses import replace

import pytest
from poolref_sim import EASY, WALL, Pair, World, deliver, easy_pair

from poolref import wire
from poolref.config import Parameters
from poolref.constants import JOURNAL_RING, SECOND, Flag, Type
from poolref.counters import Counters, DropReason, Outcome, Verdict
from poolref.errors import LocalError
from poolref.events import ConfigAccepted, JournalReceived, PeerUntrusted
from poolref.journal import ZERO_HASH, ChangeType, Entry, Journal, Ring, Sync
from poolref.replication import Contradiction, Replica
from poolref.session import Session

SYNC = int(Flag.JOURNAL_SYNC)
REQUEST = int(Flag.JOURNAL_SYNC | Flag.REQUIRE_ACK)
OTHERS = Parameters(18, 1, 1 << 10, 10, 600, 1000)


@pytest.fixture
def pair() -> Pair:
    """The client has asked for the server's journal, which begins with this very session."""
    pair = easy_pair()
    ask(pair)
    return pair


def ask(pair: Pair) -> None:
    pair.c.replication.request(pair.world.now)
    pair.run()
    settle(pair)


def settle(pair: Pair) -> None:
    """Let what is due at this moment happen."""
    pair.advance(0)


def fill(journal: Journal, count: int, detail: str = "entry") -> None:
    for index in range(count):
        journal.append(ChangeType.CONNECT, f"{detail} {index}", WALL + index, 0, 0)


def copy(pair: Pair) -> tuple[Entry, ...]:
    ring = pair.c.replication.replica.ring
    assert ring is not None
    assert ring.verify() is None
    return ring.entries()


def received(pair: Pair) -> list[JournalReceived]:
    return [event for event in pair.events["client"] if isinstance(event, JournalReceived)]


def alerts(pair: Pair) -> list[str]:
    pair.run()
    return [event.reason for event in pair.events["client"] if isinstance(event, PeerUntrusted)]


def syncs(session: Session) -> list[Sync]:
    """What a session sent of its journal since, decoded."""
    out = []
    for packet in session.packets_to_send():
        header = wire.parse(packet)
        if header.type == Type.JOURNAL:
            assert header.flags == Flag.JOURNAL_SYNC | Flag.ENCRYPTED
            plaintext = session.keys.open(header.seq, packet[80:])
            assert plaintext is not None
            assert len(plaintext) <= session.mtu - 96
            out.append(Sync.unpack(plaintext))
    return out


def say(pair: Pair, sync: Sync | bytes, flags: int = SYNC) -> Outcome:
    """The server sends this to the client."""
    plaintext = sync if isinstance(sync, bytes) else sync.pack()
    return deliver(pair, pair.s.protect(Type.JOURNAL, pair.world.now, plaintext, flags=flags), "client")


# -- answers ---------------------------------------------------------------------------------------


def test_the_answer_is_the_whole_journal(pair: Pair) -> None:
    journal = pair.s.core.journal
    assert [entry.text for entry in journal.entries()] == ["192.0.2.1 40000 as server"]
    assert copy(pair) == journal.entries()
    assert received(pair) == [JournalReceived(0, 1, 0)]
    assert not pair.c.untrusted


def test_a_request_is_empty_with_sync_and_require_ack() -> None:
    pair = easy_pair()
    pair.c.replication.request(pair.world.now)
    (packet,) = pair.c.packets_to_send()
    header = wire.parse(packet)
    assert (header.type, header.flags, header.payload_len) == (Type.JOURNAL, REQUEST, 0)


def test_an_empty_journal_is_an_answer_too() -> None:
    pair = easy_pair()
    pair.s.core.journal = Journal(Counters())
    ask(pair)
    assert copy(pair) == ()
    fill(pair.s.core.journal, 1)
    settle(pair)
    assert received(pair) == [JournalReceived(0, 1, 0)]


@pytest.mark.parametrize(
    ("mtu", "detail"), [(1400, ""), (512, "x" * 256), (513, "ö" * 90)], ids=["short", "long", "some"]
)
def test_a_full_journal_comes_in_packets_that_fit(mtu: int, detail: str) -> None:
    pair = easy_pair()
    journal = pair.s.core.journal
    fill(journal, 3000, detail)
    pair.s.mtu = mtu
    pair.c.replication.request(pair.world.now)
    for packet in pair.c.packets_to_send():
        deliver(pair, packet)
    sent = syncs(pair.s)
    assert len(sent) == 16, "a burst, then the transport is asked again"
    while pair.s.replication.due <= pair.world.now:
        pair.s.replication.handle_timer(pair.world.now)
        sent += syncs(pair.s)
    assert sent[0].first_index == journal.first_index == 3001 - JOURNAL_RING
    assert tuple(entry for sync in sent for entry in sync.entries) == journal.entries()
    for sync, following in itertools.pairwise(sent):
        assert following.first_index == sync.next_index
        room = mtu - 96 - len(sync.pack())
        assert following.entries[0].size > room, "no packet is emptier than it needs to be"
    for sync in sent:
        assert sync.holds


@pytest.mark.parametrize(("second", "fits"), [(135, True), (136, False)])
def test_a_packet_is_filled_to_the_last_byte(second: int, fits: bool) -> None:
    pair = easy_pair()
    pair.s.mtu = 512  # 416 bytes of plaintext, 374 of them for entries
    journal = pair.s.core.journal = Journal(Counters())
    for size in (135, second):
        journal.append(ChangeType.CONNECT, "x" * size, WALL, 0, 0)
    pair.c.replication.request(pair.world.now)
    for packet in pair.c.packets_to_send():
        deliver(pair, packet)
    assert [len(sync.entries) for sync in syncs(pair.s)] == ([2] if fits else [1, 1])


def test_a_full_journal_arrives() -> None:
    pair = easy_pair()
    fill(pair.s.core.journal, 3000)
    ask(pair)
    assert copy(pair) == pair.s.core.journal.entries()
    assert received(pair)[0].missing == 3001 - JOURNAL_RING
    assert sum(event.count for event in received(pair)) == JOURNAL_RING


def test_asking_again_repeats_and_adds_nothing(pair: Pair) -> None:
    for _ in range(3):
        ask(pair)
    assert copy(pair) == pair.s.core.journal.entries()
    assert received(pair) == [JournalReceived(0, 1, 0)]


def test_syncing_creates_no_entries(pair: Pair) -> None:
    pair.s.replication.request(pair.world.now)
    pair.run()
    fill(pair.s.core.journal, 5)
    fill(pair.c.core.journal, 5)
    pair.advance(SECOND // 2)
    for session in (pair.c, pair.s):
        assert len(session.core.journal) == 6


def test_both_sides_may_follow_each_other(pair: Pair) -> None:
    pair.s.replication.request(pair.world.now)
    pair.run()
    fill(pair.s.core.journal, 100)
    fill(pair.c.core.journal, 100)
    settle(pair)
    ring = pair.s.replication.replica.ring
    assert ring is not None
    assert ring.entries() == pair.c.core.journal.entries()
    assert copy(pair) == pair.s.core.journal.entries()


# -- new entries -----------------------------------------------------------------------------------


def test_new_entries_go_to_those_who_asked() -> None:
    world = World(server_settings=EASY)
    curious, other = world.pair(), world.pair()
    stirred: list[Session] = []
    world.server_core.stir = stirred.append
    ask(curious)
    assert stirred == []
    fill(world.server_core.journal, 3)
    assert set(stirred) == {curious.s}
    assert curious.s.next_timer() == 0
    settle(curious)
    settle(other)
    assert copy(curious) == world.server_core.journal.entries()
    assert received(curious) == [JournalReceived(0, 2, 0), JournalReceived(2, 3, 0)]
    assert other.s.counters["packets_sent"] == 2, "its CHALLENGE and handshake ACK"


def test_after_the_end_nothing_is_pushed_and_the_copy_stays(pair: Pair) -> None:
    stirred: list[Session] = []
    before = copy(pair)
    pair.c.close(pair.world.now)
    pair.run()
    pair.world.server_core.stir = stirred.append
    fill(pair.s.core.journal, 1)
    assert stirred == []
    assert copy(pair) == before
    with pytest.raises(LocalError) as caught:
        pair.c.replication.request(pair.world.now)
    assert caught.value.errno == errno.ENOTCONN


def test_a_new_session_starts_a_new_copy(pair: Pair) -> None:
    """In version 1 nobody knows whether the same peer is at the same address (E-77)."""
    again = World(2, server_settings=EASY).pair()
    fill(again.s.core.journal, 3)
    ask(again)
    assert copy(again) == again.s.core.journal.entries()
    assert copy(again) != copy(pair)
    assert alerts(again) == []


def test_while_the_transport_takes_no_more_nothing_piles_up(pair: Pair) -> None:
    pair.s.congested = True
    for _ in range(10):
        fill(pair.s.core.journal, 50)
        pair.s.handle_timer(pair.world.now)
    assert syncs(pair.s) == []
    pair.s.congested = False
    pair.advance(SECOND // 2)
    assert copy(pair) == pair.s.core.journal.entries()
    assert len(copy(pair)) == 501


def test_while_packets_are_held_back_nothing_piles_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "holding", True)
    fill(pair.s.core.journal, 100)
    pair.s.handle_timer(pair.world.now)
    assert not pair.s.unsent
    monkeypatch.setattr(Session, "holding", False)
    pair.advance(SECOND // 2)
    assert len(copy(pair)) == 101


def test_an_ack_lets_it_go_on_at_once(pair: Pair) -> None:
    now = pair.world.now
    pair.s.congested = True
    fill(pair.s.core.journal, 1)
    pair.s.handle_timer(now)
    assert pair.s.replication.due > now
    pair.s.congested = False
    deliver(pair, pair.c.protect(Type.ACK, now))
    assert pair.s.next_timer() == now


def test_entries_overwritten_before_they_were_sent_make_the_peer_ask_again(pair: Pair) -> None:
    pair.s.congested = True
    fill(pair.s.core.journal, JOURNAL_RING + 10)
    pair.s.handle_timer(pair.world.now)
    pair.s.congested = False
    pair.advance(SECOND // 2)
    assert copy(pair) == pair.s.core.journal.entries()
    assert received(pair)[1].missing == 10
    assert alerts(pair) == []
    fill(pair.s.core.journal, 1)
    settle(pair)
    assert copy(pair) == pair.s.core.journal.entries(), "and it follows again"


def test_whoever_overwrote_says_so_and_stops(pair: Pair) -> None:
    journal = pair.s.core.journal
    pair.s.congested = True
    fill(journal, JOURNAL_RING + 10)
    pair.s.congested = False
    pair.s.handle_timer(pair.world.now)
    assert syncs(pair.s) == [Sync(journal.first_index, journal.previous_hash, ())]
    fill(journal, 1)
    assert pair.s.next_timer() != 0


# -- what the copy notices -------------------------------------------------------------------------


def forged(ring: Ring, index: int, redo: int) -> tuple[Entry, ...]:
    """The entries of ``ring`` with the detail of one changed, and ``redo`` hashes from it on made anew."""
    out: list[Entry] = []
    previous = ring.previous_hash
    for position, entry in enumerate(ring.entries()):
        changed = replace(entry, detail=b"forged") if position == index else entry
        if index <= position < index + redo:
            changed = replace(changed, change_hash=changed.hash_after(previous))
        previous = changed.change_hash
        out.append(changed)
    return tuple(out)


@pytest.mark.parametrize("redo", [0, 1, 100], ids=["nothing", "one hash", "the whole chain"])
def test_a_forged_entry_is_noticed(pair: Pair, redo: int) -> None:
    journal = pair.s.core.journal
    fill(journal, 10)
    settle(pair)
    before = copy(pair)
    entries = forged(journal, 4, redo)
    journal._entries.clear()
    journal._entries.extend(entries)
    assert (journal.verify() is None) == (redo == 100)
    ask(pair)
    assert alerts(pair) == [
        "journal: entry 4 is another one" if redo == 100 else "journal: the chain is broken"
    ]
    assert pair.c.untrusted
    assert pair.c.counters[DropReason.JOURNAL_BROKEN] == 1
    assert copy(pair) == before, "the copy keeps what was there"
    assert pair.c.core.journal.entries()[-1].change_type == ChangeType.INTEGRITY


def test_one_alert_for_each_request(pair: Pair) -> None:
    broken = Sync(0, b"\x01" * 32, ())
    outcomes = [say(pair, broken) for _ in range(5)]
    assert outcomes == [DropReason.JOURNAL_BROKEN] * 5
    assert len(alerts(pair)) == 1
    right = Sync(1, pair.s.core.journal.head, ())
    assert say(pair, right) is DropReason.JOURNAL_BROKEN, "until it is asked for again"
    ask(pair)
    assert say(pair, right) is Verdict.ACCEPTED
    assert say(pair, broken) is DropReason.JOURNAL_BROKEN
    assert len(alerts(pair)) == 2


def test_entries_that_are_left_out(pair: Pair) -> None:
    journal = pair.s.core.journal
    fill(journal, 3)
    pair.s.replication.end(pair.world.now)
    entries = journal.entries()
    assert say(pair, Sync(3, entries[2].change_hash, entries[3:])) is DropReason.JOURNAL_BROKEN
    assert alerts(pair) == ["journal: entries 1 to 2 are left out"]


def test_another_hash_before(pair: Pair) -> None:
    stranger = Entry.after(b"\x07" * 32, WALL, 0, 0, ChangeType.CONNECT, b"")
    assert say(pair, Sync(1, b"\x07" * 32, (stranger,))) is DropReason.JOURNAL_BROKEN
    assert alerts(pair) == ["journal: the hash before entry 1 is another one"]


def test_whoever_is_behind_asks_once_and_believes_no_jump_after_that(pair: Pair) -> None:
    """After the answer to that request, leaving entries out is noticed again."""
    elsewhere = Sync(500, b"\x05" * 32, ())
    assert say(pair, elsewhere) is Verdict.ACCEPTED
    requests = [wire.parse(packet) for packet in pair.c.packets_to_send()]
    assert [(each.type, each.flags) for each in requests] == [(Type.JOURNAL, REQUEST)]
    assert len(copy(pair)) == 1, "until then the copy stays"
    assert say(pair, elsewhere) is Verdict.ACCEPTED
    assert copy(pair) == ()
    assert received(pair)[1:] == []
    pair.run()
    assert received(pair)[1:] == [JournalReceived(500, 0, 499)]
    further = Entry.after(b"\x06" * 32, WALL, 0, 0, ChangeType.CONNECT, b"")
    assert say(pair, Sync(600, b"\x06" * 32, (further,))) is DropReason.JOURNAL_BROKEN


def test_a_copy_holds_1024_entries_however_many_come(pair: Pair) -> None:
    for _ in range(3):
        fill(pair.s.core.journal, 1000)
        settle(pair)
    assert len(copy(pair)) == JOURNAL_RING
    assert copy(pair) == pair.s.core.journal.entries()


def test_older_entries_than_the_copy_has_are_no_contradiction() -> None:
    journal = Journal(Counters())
    fill(journal, 10)
    replica = Replica()
    replica.asked()
    entries = journal.entries()
    replica.take(Sync(5, entries[4].change_hash, entries[5:7]))
    assert replica.take(Sync(0, ZERO_HASH, entries[:3])) == ()
    assert replica.take(Sync(2, entries[1].change_hash, entries[2:9])) == entries[7:9]
    assert replica.next_index == 9
    with pytest.raises(Contradiction):
        replica.take(Sync(2, entries[1].change_hash, forged(journal, 3, 100)[2:9]))


def test_whether_a_head_is_known() -> None:
    journal = Journal(Counters())
    fill(journal, 3)
    replica = Replica()
    assert not replica.knows(journal.head)
    replica.asked()
    replica.take(Sync(0, ZERO_HASH, journal.entries()[:2]))
    assert replica.knows(ZERO_HASH)
    assert replica.knows(journal.entry(1).change_hash)
    assert not replica.knows(journal.head)


# -- what is discarded -----------------------------------------------------------------------------


def test_entries_nobody_asked_for() -> None:
    pair = easy_pair()
    assert say(pair, Sync(0, ZERO_HASH, ())) is DropReason.UNSOLICITED
    assert pair.c.replication.replica.ring is None


@pytest.mark.parametrize(
    ("plaintext", "flags"),
    [
        (b"", 0),
        (b"", int(Flag.REQUIRE_ACK)),
        (b"", SYNC),
        (Sync(0, ZERO_HASH, ()).pack(), 0),
        (Sync(0, ZERO_HASH, ()).pack()[:-1], SYNC),
        (Sync(0, ZERO_HASH, ()).pack() + b"\0", SYNC),
    ],
)
def test_what_is_no_journal_packet(pair: Pair, plaintext: bytes, flags: int) -> None:
    assert say(pair, Sync(0, ZERO_HASH, ())) is Verdict.ACCEPTED, "the control"
    assert say(pair, plaintext, flags) is DropReason.MALFORMED
    assert pair.c.replication.due > pair.world.now
    assert alerts(pair) == []


def test_entries_may_ask_for_an_ack(pair: Pair) -> None:
    assert say(pair, Sync(0, ZERO_HASH, ()), REQUEST) is Verdict.ACCEPTED


def test_without_remote_administration_nobody_reads_the_journal() -> None:
    pair = World(server_settings=replace(EASY, remote_admin=False)).pair()
    ask(pair)
    assert pair.s.counters[DropReason.NOT_PERMITTED] == 1
    assert pair.c.replication.replica.ring is None
    stirred: list[Session] = []
    pair.world.server_core.stir = stirred.append
    fill(pair.s.core.journal, 1)
    assert stirred == []
    pair.s.replication.request(pair.world.now)
    pair.run()
    assert pair.s.replication.replica.ring is not None, "asking is not refused"


# -- the peer's configuration ----------------------------------------------------------------------


def test_who_did_not_make_the_last_change_learns_of_it() -> None:
    world = World(server_settings=EASY)
    changing, reading = world.pair(), world.pair()
    ask(reading)
    now = world.now
    changing.c.configuring.propose(OTHERS, SECOND, now)
    changing.run()
    changing.c.configuring.confirm(now)
    changing.run()
    settle(reading)
    current = world.server_core.configuration.reference
    assert current.version == 1
    assert reading.c.configuring.peer_configuration == current
    reading.c.configuring.propose(replace(OTHERS, difficulty=17), SECOND, now)
    reading.run()
    assert [event for event in reading.events["client"] if isinstance(event, ConfigAccepted)] == [
        ConfigAccepted(2)
    ]
    reading.c.configuring.rollback(now)
    reading.run()
    settle(reading)
    assert reading.c.configuring.peer_configuration == current


def test_a_config_entry_without_a_hash_teaches_nothing(pair: Pair) -> None:
    before = pair.c.configuring.peer_configuration
    pair.s.core.journal.append(ChangeType.CONFIG, "no hash here", WALL, 0, 9)
    pair.s.core.journal.append(ChangeType.CONFIG, "00ff too short", WALL, 0, 9)
    pair.s.core.journal.append(ChangeType.CONFIG, "00 " * 30, WALL, 0, 9)
    settle(pair)
    assert len(copy(pair)) == 4
    assert pair.c.configuring.peer_configuration == before
