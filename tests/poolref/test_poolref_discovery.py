# SPDX-License-Identifier: GPL-2.0-or-later
"""The peer table, announces and the announcer, without sockets."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from poolref_sim import START, WALL, World, seeded
from poolref_vectors import cases

from poolref.address import Address, node_id_of
from poolref.constants import DEFAULT_PORT, MILLISECOND, SECOND
from poolref.core import NodeCore, Peer
from poolref.counters import DropReason, Verdict
from poolref.discovery import Announce, Announcer, RateLimit
from poolref.errors import DecodeError, LocalError, RandomnessError
from poolref.io.tcp import mapped_ip
from poolref.journal import ChangeType
from poolref.peers import NO_KEY, PeerTable, Source
from poolref.settings import Settings

KEY = bytes(range(32))
OTHER = bytes(range(1, 33))


def host(number: int, port: int = DEFAULT_PORT) -> Peer:
    return Peer(bytes(10) + b"\xff\xff" + bytes([10, 0, *divmod(number, 256)]), port)


# -- the table -------------------------------------------------------------------------------------


def test_peers_are_keyed_by_address_and_port() -> None:
    table = PeerTable()
    for peer in (host(1), host(1, 9254), host(2), host(1)):
        assert table.see(peer, KEY, Source.ANNOUNCE, START)
    assert [known.peer for known in table.listed(START)] == [host(1), host(1, 9254), host(2)]


def test_unseen_for_120_seconds_a_peer_is_gone_unless_it_is_static() -> None:
    table = PeerTable()
    table.add_static(host(0), START)
    for number, source in ((1, Source.EXCHANGE), (2, Source.ANNOUNCE), (3, Source.CONNECTED)):
        table.see(host(number), KEY, source, START)
    table.see(host(2), KEY, Source.ANNOUNCE, START + SECOND)
    assert len(table.listed(START + 120 * SECOND - 1)) == 4
    assert [known.peer for known in table.listed(START + 120 * SECOND)] == [host(0), host(2)]
    assert [known.peer for known in table.listed(START + 121 * SECOND)] == [host(0)]
    assert [known.peer for known in table.listed(START + 10**6 * SECOND)] == [host(0)]


def test_of_300_announced_peers_256_stay_the_oldest_go_and_static_ones_stay() -> None:
    table = PeerTable()
    for number in range(10):
        table.add_static(host(number), START)
    for number in range(10, 310):
        assert table.see(host(number), KEY, Source.ANNOUNCE, START + number)
    kept = [known.peer for known in table.listed(START + 310)]
    assert len(kept) == len(table) == 256
    assert kept == [*map(host, range(10)), *map(host, range(64, 310))]


def test_the_least_recently_seen_one_is_evicted_not_the_first_known() -> None:
    table = PeerTable(limit=3)
    for number in range(3):
        table.see(host(number), KEY, Source.ANNOUNCE, START + number)
    table.see(host(0), KEY, Source.ANNOUNCE, START + 3)
    table.see(host(3), KEY, Source.ANNOUNCE, START + 4)
    assert [known.peer for known in table.listed(START + 4)] == [host(0), host(2), host(3)]


def test_what_is_gone_makes_room_before_anything_is_evicted() -> None:
    table = PeerTable(limit=2)
    table.see(host(1), KEY, Source.ANNOUNCE, START)
    table.see(host(2), KEY, Source.ANNOUNCE, START + 100 * SECOND)
    assert table.see(host(3), KEY, Source.EXCHANGE, START + 120 * SECOND)
    assert [known.peer for known in table.listed(START + 120 * SECOND)] == [host(2), host(3)]


def test_a_peer_that_was_gone_comes_back_as_what_it_is_now() -> None:
    table = PeerTable()
    table.see(host(1), KEY, Source.CONNECTED, START)
    table.see(host(1), OTHER, Source.EXCHANGE, START + 120 * SECOND)
    assert table[host(1)].source is Source.EXCHANGE
    assert table[host(1)].pubkey == OTHER


def test_a_table_full_of_static_peers_takes_no_other() -> None:
    table = PeerTable(limit=2)
    table.add_static(host(1), START)
    table.add_static(host(2), START)
    table.add_static(host(2), START, KEY)
    assert not table.see(host(3), KEY, Source.ANNOUNCE, START)
    with pytest.raises(LocalError) as caught:
        table.add_static(host(3), START)
    assert caught.value.errno == errno.ENOSPC
    assert table[host(2)].pubkey == KEY
    table.forget(host(1))
    table.forget(host(9))
    table.add_static(host(3), START)
    assert host(3) in table
    with pytest.raises(LocalError) as caught:
        table.add_static(host(4), START, b"short")
    assert caught.value.errno == errno.EINVAL


def test_hearsay_neither_renews_nor_displaces_what_was_seen() -> None:
    table = PeerTable(limit=4)
    table.add_static(host(0), START)
    table.see(host(1), KEY, Source.ANNOUNCE, START)
    table.see(host(2), NO_KEY, Source.CONNECTED, START)
    for number in range(3, 60):
        assert table.see(host(number), KEY, Source.EXCHANGE, START + number)
    assert [known.peer for known in table.listed(START + 60)] == [*map(host, range(3)), host(59)]
    table.see(host(1), OTHER, Source.EXCHANGE, START + SECOND)
    assert (table[host(1)].last_seen, table[host(1)].pubkey) == (START, KEY)
    table.see(host(3), KEY, Source.ANNOUNCE, START + SECOND)
    assert [known.peer for known in table.listed(START + SECOND)] == [host(0), host(2), host(59), host(3)]
    full = PeerTable(limit=1)
    full.see(host(1), KEY, Source.ANNOUNCE, START)
    assert not full.see(host(2), KEY, Source.EXCHANGE, START)


def test_a_key_from_closer_by_is_not_replaced_from_further_away() -> None:
    table = PeerTable()
    table.add_static(host(1), START, KEY)
    table.see(host(1), OTHER, Source.ANNOUNCE, START + 1)
    assert (table[host(1)].pubkey, table[host(1)].source) == (KEY, Source.STATIC)
    assert table[host(1)].last_seen == START + 1
    table.see(host(2), NO_KEY, Source.CONNECTED, START)
    table.see(host(2), KEY, Source.ANNOUNCE, START)
    assert (table[host(2)].pubkey, table[host(2)].source) == (KEY, Source.CONNECTED)
    table.see(host(2), NO_KEY, Source.CONNECTED, START)
    assert table[host(2)].pubkey == KEY
    table.see(host(3), KEY, Source.EXCHANGE, START)
    table.see(host(3), OTHER, Source.ANNOUNCE, START)
    assert (table[host(3)].pubkey, table[host(3)].source) == (OTHER, Source.ANNOUNCE)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 7),
            st.sampled_from(list(Source)),
            st.integers(0, 50),
        ),
        max_size=60,
    )
)
def test_the_table_against_a_slow_model(steps: list[tuple[int, Source, int]]) -> None:
    table, model, now = PeerTable(limit=4), dict[Peer, tuple[int, Source]](), START
    for number, source, seconds in steps:
        now += seconds * SECOND
        peer = host(number)
        model = {
            at: (seen, kind)
            for at, (seen, kind) in model.items()
            if kind is Source.STATIC or now - seen < 120 * SECOND
        }
        if peer in model:
            seen, kind = model[peer]
            renewed = now if source >= kind or source is not Source.EXCHANGE else seen
            model[peer] = (renewed, max(source, kind))
            expected = True
        else:
            may_go = [
                at
                for at, (_, kind) in model.items()
                if kind is Source.EXCHANGE or (kind is not Source.STATIC and source is not Source.EXCHANGE)
            ]
            expected = len(model) < 4 or bool(may_go)
            if expected:
                if len(model) == 4:
                    del model[min(may_go, key=lambda at: model[at][0])]
                model[peer] = (now, source)
        assert table.see(peer, KEY, source, now) is expected
        assert {known.peer: (known.last_seen, known.source) for known in table.listed(now)} == model


# -- the rate limit --------------------------------------------------------------------------------


def test_one_source_gets_through_once_in_100_ms() -> None:
    limit = RateLimit()
    admitted = [step for step in range(0, 1000, 10) if limit.admits(b"a", START + step * MILLISECOND)]
    assert admitted == list(range(0, 1000, 100))


def test_sources_do_not_disturb_each_other() -> None:
    limit = RateLimit()
    for number in range(1000):
        assert limit.admits(b"%d" % number, START + number)
        assert not limit.admits(b"%d" % number, START + number)


def test_what_it_remembers_is_bounded() -> None:
    limit = RateLimit()
    assert sum(limit.admits(b"%d" % number, START) for number in range(5000)) == 1024
    assert limit.admits(b"new", START + 100 * MILLISECOND)


# -- announces -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "expected"), cases("discovery", "announce.encode"))
def test_encoding(values: dict[str, Any], expected: dict[str, Any]) -> None:
    announce = Announce(
        bytes.fromhex(values["pubkey"]),
        bytes.fromhex(values["address"]),
        values["port"],
        values["version"],
        values["flags"],
        values["sessions"],
        values["uptime_s"],
    )
    assert announce.pack().hex() == expected["datagram"]
    assert len(announce.pack()) == 76
    assert Announce.unpack(announce.pack()) == announce


def test_wide_figures_saturate() -> None:
    announce = Announce.unpack(Announce(KEY, bytes(32), 1, sessions=1 << 32, uptime_s=1 << 40).pack())
    assert (announce.sessions, announce.uptime_s) == (0xFFFFFFFF, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("datagram", "field"),
    [
        (b"", "announce"),
        (Announce(KEY, bytes(32), 1).pack()[:-1], "announce"),
        (Announce(KEY, bytes(32), 1).pack() + b"\0", "announce"),
        (Announce(KEY, bytes(31) + b"\1", 1).pack(), "address"),
    ],
)
def test_what_is_no_announce(datagram: bytes, field: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Announce.unpack(datagram)
    assert caught.value.field == field
    node = Fixture()
    assert node.announcer.receive(datagram, host(1).ip, START) is DropReason.MALFORMED
    assert node.core.counters["malformed"] == 1
    assert len(node.core.peers) == 0


@pytest.mark.parametrize(
    ("address", "port", "taken"),
    [
        ("0.0.0.0", 1, False),
        ("0.0.0.1", 1, False),
        ("1.0.0.0", 1, True),
        ("127.0.0.1", 1, True),
        ("223.255.255.255", 65535, True),
        ("224.0.0.0", 1, False),
        ("255.255.255.255", 1, False),
        ("10.0.0.1", 0, False),
        ("::1", 1, True),
    ],
)
def test_a_peer_that_cannot_be_is_not_taken(address: str, port: int, taken: bool) -> None:
    node = Fixture()
    outcome = node.announcer.receive(Announce(KEY, bytes(32), port).pack(), mapped_ip(address), START)
    assert outcome is (Verdict.ACCEPTED if taken else DropReason.MALFORMED)
    assert len(node.core.peers) == taken
    assert node.core.counters["malformed"] == (not taken)


class Fixture:
    """A node's announcer with an open socket."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.core = NodeCore(settings or Settings(), seeded(7), lambda: WALL)
        self.announcer = Announcer(self.core, START)
        self.announcer.opened(START)

    def sent(self, now: int) -> list[Announce]:
        self.announcer.handle_timer(now)
        return [Announce.unpack(datagram) for datagram in self.announcer.datagrams_to_send()]

    def hear(self, announce: Announce, now: int = START, source: int = 1) -> object:
        return self.announcer.receive(announce.pack(), host(source).ip, now)


def test_an_announce_enters_the_table_under_its_source_and_port() -> None:
    node = Fixture()
    assert node.hear(Announce(KEY, bytes(32), 4711)) is Verdict.ACCEPTED
    (known,) = node.core.peers.listed(START)
    assert (known.peer, known.pubkey, known.source) == (host(1, 4711), KEY, Source.ANNOUNCE)


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_ignored_and_counted(version: int) -> None:
    node = Fixture()
    assert node.hear(Announce(KEY, bytes(32), 1, version)) is DropReason.VERSION_MISMATCH
    assert node.core.counters["version_mismatch"] == 1
    assert len(node.core.peers) == 0


def test_ones_own_announce_is_ignored_and_no_discard() -> None:
    node = Fixture()
    node.announcer.listening(DEFAULT_PORT, START)
    (own,) = node.sent(START)
    before = dict(node.core.counters)
    assert node.hear(own) is Verdict.ACCEPTED
    assert len(node.core.peers) == 0
    assert dict(node.core.counters) == before


def test_flags_are_sent_as_zero_and_not_looked_at() -> None:
    node = Fixture()
    assert node.hear(Announce(KEY, bytes(32), 1, flags=0xFF)) is Verdict.ACCEPTED
    node.announcer.listening(DEFAULT_PORT, START)
    assert node.sent(START)[0].flags == 0


def test_a_flood_from_one_source_is_held_to_ten_a_second() -> None:
    node = Fixture()
    for step in range(1000):
        node.hear(Announce(KEY, bytes(32), 1 + step), START + step * MILLISECOND)
    assert len(node.core.peers) == 10
    assert node.core.counters["announce_limited"] == 990
    assert node.hear(Announce(KEY, bytes(32), 1), START + 999 * MILLISECOND, source=2) is Verdict.ACCEPTED


def test_discarded_announces_do_not_use_up_the_rate() -> None:
    node = Fixture()
    assert node.hear(Announce(KEY, bytes(32), 1, 2)) is DropReason.VERSION_MISMATCH
    assert node.announcer.receive(b"", host(1).ip, START) is DropReason.MALFORMED
    assert node.hear(Announce(KEY, bytes(32), 1)) is Verdict.ACCEPTED


def test_300_announced_peers_leave_256() -> None:
    node = Fixture()
    node.core.peers.add_static(host(0), START)
    for number in range(1, 301):
        assert node.hear(Announce(KEY, bytes(32), 9253), START + number, number) is Verdict.ACCEPTED
    assert [known.peer for known in node.core.peers.listed(START + 300)] == [
        host(0),
        *map(host, range(46, 301)),
    ]


@given(st.binary(max_size=100))
def test_garbage_never_raises(datagram: bytes) -> None:
    node = Fixture()
    outcome = node.announcer.receive(datagram, host(1).ip, START)
    assert outcome is Verdict.ACCEPTED or node.core.counters[str(outcome)] == 1


# -- announcing ------------------------------------------------------------------------------------


def test_a_listening_node_announces_itself_every_30_seconds() -> None:
    address = Address(1, 0, 0, node_id_of(KEY)).pack()
    node = Fixture(Settings(address=address))
    assert node.sent(START + 100 * SECOND) == []
    assert node.announcer.next_timer() is None
    node.announcer.listening(4711, START + 100 * SECOND)
    for number in range(4):
        now = START + (100 + 30 * number) * SECOND
        assert node.announcer.next_timer() == now
        assert node.sent(now - 1) == []
        assert node.sent(now) == [
            Announce(node.core.peers.own_key, address, 4711, uptime_s=100 + 30 * number)
        ]
        assert node.sent(now) == []
    node.announcer.listening(None, START + 200 * SECOND)
    assert node.announcer.next_timer() is None
    assert node.sent(START + 10_000 * SECOND) == []


def test_it_tells_its_sessions() -> None:
    node = Fixture()
    for _ in range(3):
        node.core.slots.take()
    node.announcer.listening(1, START)
    assert node.sent(START)[0].sessions == 3


def test_without_a_key_32_random_bytes_stand_for_it() -> None:
    first, second = NodeCore(Settings(), seeded(1), lambda: 0), NodeCore(Settings(), seeded(2), lambda: 0)
    Announcer(first, START)
    Announcer(second, START)
    assert first.peers.own_key != second.peers.own_key
    assert NO_KEY not in (first.peers.own_key, second.peers.own_key)
    key = first.peers.own_key
    Announcer(first, START)
    assert first.peers.own_key == key
    with pytest.raises(RandomnessError):
        Announcer(NodeCore(Settings(), lambda size: b"", lambda: 0), START)


# -- a socket that fails ---------------------------------------------------------------------------


def test_a_failing_socket_is_opened_anew_with_growing_pauses_and_journalled() -> None:
    node = Fixture()
    announcer, now = node.announcer, START
    pauses: list[int] = []
    announcer.listening(1, now)
    assert len(node.sent(now)) == 1
    for _ in range(9):
        announcer.failed("[Errno 100] Network is down", now)
        assert not announcer.wants_socket
        assert node.sent(now) == [], "nothing to send it with"
        due = announcer.next_timer()
        assert due is not None
        announcer.handle_timer(due - 1)
        assert not announcer.wants_socket
        announcer.handle_timer(due)
        assert announcer.wants_socket
        pauses.append((due - now) // SECOND)
        now = due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert node.core.counters["multicast_failures"] == 9
    entries = node.core.journal.entries()
    assert [entry.change_type for entry in entries] == [ChangeType.ERROR] * 9
    assert entries[0].text == "0x00 discovery: [Errno 100] Network is down; again in 1 s"
    assert entries[0].timestamp == WALL
    announcer.opened(now)
    assert not announcer.wants_socket
    assert len(node.sent(now)) == 1
    announcer.failed("again", now + 59 * SECOND)
    assert announcer.next_timer() == now + (59 + 60) * SECOND
    announcer.opened(now + 200 * SECOND)
    announcer.failed("after a good minute", now + 260 * SECOND)
    assert announcer.next_timer() == now + 261 * SECOND


def test_after_a_failure_it_announces_at_once_since_the_last_one_may_not_have_left() -> None:
    node = Fixture()
    node.announcer.listening(1, START)
    assert len(node.sent(START)) == 1
    node.announcer.failed("why", START)
    node.announcer.opened(START + SECOND)
    assert len(node.sent(START + SECOND)) == 1
    assert node.sent(START + 31 * SECOND - 1) == []
    node.announcer.listening(None, START + 31 * SECOND)
    node.announcer.failed("why", START + 32 * SECOND)
    node.announcer.opened(START + 40 * SECOND)
    assert node.sent(START + 40 * SECOND) == []
    assert node.announcer.next_timer() is None


def test_at_first_a_socket_is_wanted() -> None:
    assert Announcer(World().server_core, START).wants_socket
