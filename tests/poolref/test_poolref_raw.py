# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session over raw IP (TRN-03 .. TRN-07): reliable and ordered whatever the network does."""

from __future__ import annotations

import errno
import random
from collections import defaultdict

import pytest
from poolref_raw_sim import (
    CLIENT,
    LATENCY,
    SERVER,
    Flight,
    RawPair,
    Weather,
    dropping,
    raw_pair,
    received,
    seconds,
    sound,
)
from poolref_sim import flipped

from poolref import constants as c
from poolref import wire
from poolref.config import START, ConfigPayload, Parameters
from poolref.constants import HEADER_SIZE, MILLISECOND, SECOND, ErrorCode, Flag, Role, State, Type
from poolref.counters import DropReason, Verdict
from poolref.errors import LocalError
from poolref.events import SessionEnded
from poolref.inbox import Message
from poolref.part import Part
from poolref.raw_session import RawSession
from poolref.session import Session
from poolref.settings import Settings

REQUIRE_ACK = int(Flag.REQUIRE_ACK)


def nothing_from(source: bytes):
    """Everything that one side sends is lost."""
    return lambda flight: [] if flight.source == source else sound(flight)


def craft(session: Session, type: int, now: int, plaintext: bytes = b"", **fields: int) -> bytes:
    """A packet of ``session`` that it does not send itself; it takes the next seq unless one is given."""
    return session.protect(type, now, plaintext, **fields)


def give(pair: RawPair, packet: bytes, to: str = "server"):
    """Hand one datagram to a side's session at once, and send what it says."""
    session = pair.s if to == "server" else pair.c
    outcome = session.receive_packet(packet, pair.net.now)
    pair.flush()
    return outcome


def by_seq(flights: list[Flight]) -> dict[int, list[Flight]]:
    """The datagrams that consume a seq, grouped by it; voids go with their probes."""
    groups: dict[int, list[Flight]] = defaultdict(list)
    for flight in flights:
        header = flight.header
        if header.type != Type.ACK or header.flags:
            groups[header.seq].append(flight)
    return groups


class Spy(Part):
    """Notes what a session tells its parts."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.told: list[tuple[str, int]] = []
        session.parts += (self,)

    def lost(self, now: int) -> None:
        self.told.append(("lost", now))

    def drained(self, now: int) -> None:
        self.told.append(("drained", now))


# -- reliability as a whole ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6])
def test_everything_arrives_once_and_in_order_over_a_bad_network(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    weather = Weather(chance, loss=0.3, duplication=0.2, reordering=0.3, corruption=0.02)
    pair = raw_pair(seed, fate=weather)
    messages = {
        side: [b"%d " % number + chance.randbytes(chance.randrange(900)) for number in range(40)]
        for side in ("client", "server")
    }
    for number in range(40):
        pair.send(pair.c, messages["client"][number])
        pair.send(pair.s, messages["server"][number])
        pair.run(chance.randrange(200 * MILLISECOND))
    got: dict[str, list[bytes]] = {"client": [], "server": []}
    for _ in range(200):
        pair.run(SECOND)
        got["client"] += received(pair.s)
        got["server"] += received(pair.c)
        if not pair.c.outstanding and not pair.s.outstanding and not pair.c.unsent and not pair.s.unsent:
            break
    assert got == messages
    assert pair.c.end is None
    assert pair.s.end is None
    assert pair.s.counters["packets_resent"] + pair.c.counters["packets_resent"] > 20
    check_what_was_sent(pair)


def check_what_was_sent(pair: RawPair) -> None:
    for source in (CLIENT, SERVER):
        flights = pair.net.of(source)
        acks = [flight.header.ack for flight in flights]
        firsts = []
        highest = 0
        for flight in flights:
            header = flight.header
            if header.seq > highest or (header.type == Type.ACK and not header.flags):
                firsts.append(header.ack)
            highest = max(highest, header.seq)
        assert acks
        assert firsts == sorted(firsts), "an ack went back"
        resent = 0
        for group in by_seq(flights).values():
            kinds = {flight.datagram.packet for flight in group}
            if group[0].type is Type.DISCOVER and group[0].header.flags & REQUIRE_ACK:
                assert len([flight for flight in group if flight.type is Type.DISCOVER]) == 1
                assert len(kinds) <= 2
            else:
                assert len(kinds) == 1, "a resend differs"
            assert [flight.datagram.dont_fragment for flight in group] == [
                number < 3 for number in range(len(group))
            ]
            resent += len(group) - 1
        assert resent > 0
        sent = sorted(by_seq(flights))
        assert sent == list(range(sent[0], sent[0] + len(sent))), "a seq was skipped"


def test_at_most_32_packets_are_ever_in_flight_on_the_wire() -> None:
    pair = raw_pair(3, fate=Weather(random.Random(3), loss=0.2))
    in_flight = 0
    for number in range(200):
        pair.send(pair.c, b"%d" % number)
        in_flight = max(in_flight, len(pair.c.in_flight))
        pair.run(7 * MILLISECOND)
    assert in_flight == 32
    pair.run(120 * SECOND)
    assert received(pair.s) == [b"%d" % number for number in range(200)]


# -- sending: the window, the schedule -----------------------------------------------------------------


def test_an_unacknowledged_packet_is_sent_eight_times_then_the_session_ends() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.c.heartbeats.due = pair.c.discovery.due = 1 << 62  # one packet is enough to look at
    start = pair.net.now
    pair.send(pair.c, b"lost")
    pair.run(55 * SECOND - 1)
    flights = pair.net.of(CLIENT, Type.DATA)
    assert seconds(flights, start) == [0, 1, 3, 7, 15, 25, 35, 45]
    assert len({flight.datagram.packet for flight in flights}) == 1
    assert [flight.datagram.dont_fragment for flight in flights] == [True] * 3 + [False] * 5
    assert pair.c.end is None
    pair.run(1)
    assert pair.c.end == SessionEnded("timeout", None)
    assert pair.c.counters["sessions_timed_out"] == 1
    assert pair.net.of(CLIENT, Type.CLOSE) == []
    assert not pair.c.keys.usable


def test_the_timeout_follows_the_heartbeats() -> None:
    pair = raw_pair()
    pair.run(6 * SECOND)
    assert pair.c.heartbeats.round_trip.srtt == 2 * LATENCY
    pair.net.fate = nothing_from(CLIENT)
    start = pair.net.now
    pair.send(pair.c, b"lost")
    pair.run(1500 * MILLISECOND)
    assert seconds(pair.net.of(CLIENT, Type.DATA), start) == [0, 0.2, 0.6, 1.4]


def test_a_resent_heartbeat_gives_no_sample() -> None:
    pair = raw_pair()
    pair.net.fate = dropping(lambda flight: flight.source == CLIENT and flight.type is Type.HEARTBEAT)
    pair.run(9 * SECOND)
    assert len(pair.net.of(CLIENT, Type.HEARTBEAT)) == 2
    assert not pair.c.outstanding
    assert pair.c.heartbeats.round_trip.srtt == 0
    pair.run(2 * SECOND)
    assert pair.c.heartbeats.round_trip.srtt == 2 * LATENCY


def test_an_ack_that_waited_for_a_resent_packet_gives_no_sample() -> None:
    pair = raw_pair()
    pair.run(4800 * MILLISECOND)
    pair.net.fate = dropping(lambda flight: flight.source == CLIENT and flight.type is Type.DATA)
    pair.send(pair.c, b"lost, and the heartbeat comes after it")
    pair.run(3 * SECOND)
    assert len(pair.net.of(CLIENT, Type.HEARTBEAT)) == 1
    assert not pair.c.outstanding
    assert pair.c.heartbeats.round_trip.srtt == 0


def test_a_heartbeat_that_had_to_wait_is_measured_from_its_departure() -> None:
    pair = raw_pair(fate=nothing_from(SERVER))
    pair.c.discovery.due = 1 << 62
    pair.run(4500 * MILLISECOND)
    for number in range(33):
        pair.send(pair.c, b"%d" % number)
    pair.run(600 * MILLISECOND)
    assert pair.net.of(CLIENT, Type.HEARTBEAT) == []
    pair.net.fate = sound
    pair.run(2 * SECOND)
    assert len(pair.net.of(CLIENT, Type.HEARTBEAT)) == 1
    assert 0 < pair.c.heartbeats.round_trip.srtt <= 2 * LATENCY + c.ACK_DELAY


def test_the_33rd_packet_waits_for_an_acknowledgement() -> None:
    pair = raw_pair(fate=nothing_from(SERVER))
    pair.c.discovery.due = 1 << 62
    for number in range(40):
        pair.send(pair.c, b"%d" % number)
    assert len(pair.net.of(CLIENT, Type.DATA)) == 32
    assert pair.c.unsent
    pair.net.fate = sound
    pair.run(3 * SECOND)
    assert len(by_seq(pair.net.of(CLIENT, Type.DATA))) == 40
    assert received(pair.s) == [b"%d" % number for number in range(40)]
    assert not pair.c.outstanding


def test_a_sender_has_to_wait_when_too_much_is_held() -> None:
    pair = raw_pair(fate=nothing_from(SERVER))
    for _ in range(32 + c.HELD_LIMIT):
        pair.c.send(b"x", pair.net.now)
    assert not pair.c.writable
    with pytest.raises(LocalError) as caught:
        pair.c.send(b"x", pair.net.now)
    assert caught.value.errno == errno.EAGAIN


def test_an_ack_below_an_earlier_one_says_nothing() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    first = pair.c.next_seq
    for _ in range(4):
        pair.send(pair.c, b"x")
    for ack, left in ((first + 2, 1), (first, 1), (first + 3, 0)):
        packet = craft(pair.s, Type.ACK, pair.net.now, seq=pair.s.next_seq - 1, ack=ack)
        assert give(pair, packet, "client") is Verdict.ACCEPTED
        assert len(pair.c.in_flight) == left


def test_an_ack_of_what_was_not_sent_is_ignored() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.send(pair.c, b"x")
    for ack in (pair.c.next_seq, pair.c.first_seq - 1, 0):
        give(pair, craft(pair.s, Type.ACK, pair.net.now, seq=pair.s.next_seq - 1, ack=ack), "client")
        assert len(pair.c.in_flight) == 1
    assert pair.c.counters["bad_ack"] == 3


def test_parts_hear_of_losses_and_of_an_empty_window() -> None:
    pair = raw_pair(fate=dropping(lambda flight: flight.type is Type.DATA))
    pair.c.discovery.due = 1 << 62
    spy = Spy(pair.c)
    start = pair.net.now
    pair.send(pair.c, b"lost")
    pair.send(pair.c, b"not lost")
    pair.run(2 * SECOND)
    assert spy.told[0] == ("lost", start + SECOND)
    assert [what for what, _ in spy.told] == ["lost", "drained"]


def test_a_packet_lost_makes_the_path_be_probed_again() -> None:
    pair = raw_pair()
    pair.run(30 * SECOND)  # the first search is over
    probes = len(pair.net.of(CLIENT, Type.DISCOVER))
    pair.net.fate = dropping(lambda flight: flight.type is Type.DATA)
    pair.send(pair.c, b"lost")
    pair.run(2 * SECOND)
    assert len(pair.net.of(CLIENT, Type.DISCOVER)) > probes


# -- plain ACKs ----------------------------------------------------------------------------------------


def test_a_plain_ack_repeats_the_last_seq_and_takes_none() -> None:
    pair = raw_pair()
    before = pair.s.next_seq
    pair.send(pair.c, b"x")
    pair.run(100 * MILLISECOND)
    (ack,) = pair.net.of(SERVER, Type.ACK)
    assert pair.s.next_seq == before
    assert ack.header.seq == before - 1
    assert ack.header.ack == pair.c.next_seq - 1
    assert ack.header.flags == 0


def test_plain_acks_are_exempt_from_the_replay_window() -> None:
    pair = raw_pair()
    window = pair.c.window
    state = (window.cumulative, window.highest, window.received, window.lost)
    ahead = craft(pair.s, Type.ACK, pair.net.now, seq=pair.s.next_seq + 500)
    behind = craft(pair.s, Type.ACK, pair.net.now, seq=pair.s.first_seq)
    for packet in (ahead, ahead, behind, behind):
        assert give(pair, packet, "client") is Verdict.ACCEPTED
    assert (window.cumulative, window.highest, window.received, window.lost) == state
    pair.send(pair.s, b"after them")
    pair.run(SECOND)
    assert received(pair.c) == [b"after them"]


@pytest.mark.parametrize("flags", [0, int(Flag.PRIORITY), int(Flag.CONFIG_LOCKED)])
def test_an_ack_with_a_seq_of_the_own_range_is_reflected(flags: int) -> None:
    pair = raw_pair()
    pair.send(pair.c, b"x")
    packet = craft(pair.c, Type.ACK, pair.net.now, flags=flags, seq=pair.c.next_seq - 1, ack=pair.c.next_seq)
    before = pair.c.window.received
    assert give(pair, packet, "client") is DropReason.REFLECTED
    assert pair.c.window.received == before
    assert pair.c.counters["bad_ack"] == 0


# -- receiving: acks, duplicates, the window -----------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "plaintext", "fields", "outcome"),
    [
        (Type.DATA, b"x", {}, Verdict.ACCEPTED),
        (Type.DATA, b"x", {"channel": 9}, DropReason.UNSUBSCRIBED),
        (Type.DATA, b"", {}, DropReason.MALFORMED),
        (Type.HEARTBEAT, bytes(44), {}, Verdict.ACCEPTED),
        (Type.HEARTBEAT, b"short", {}, DropReason.MALFORMED),
        (Type.DISCOVER, bytes(2), {"flags": int(Flag.TELEMETRY)}, Verdict.ACCEPTED),
        (Type.DISCOVER, b"odd", {}, DropReason.MALFORMED),
        (Type.DISCOVER, b"odd", {"flags": REQUIRE_ACK}, DropReason.MALFORMED),
        (Type.CLOSE, b"xx", {}, DropReason.MALFORMED),
        (0xE, b"x", {}, DropReason.UNKNOWN_TYPE),
    ],
)
def test_every_packet_that_opens_is_acknowledged_within_50_ms(
    type: int, plaintext: bytes, fields: dict[str, int], outcome: object
) -> None:
    pair = raw_pair()
    seq = pair.c.next_seq
    packet = craft(pair.c, type, pair.net.now, plaintext, **fields)
    start = pair.net.now
    assert give(pair, packet) == outcome
    pair.run(50 * MILLISECOND)
    acks = [each for each in pair.net.of(SERVER) if each.header.ack == seq]
    assert acks
    assert acks[0].at - start <= 50 * MILLISECOND
    assert pair.s.window.cumulative == seq
    assert give(pair, packet) is DropReason.DUPLICATE


def test_acks_are_merged_for_up_to_16_packets() -> None:
    pair = raw_pair()
    for _ in range(16):
        pair.c.send(b"x", pair.net.now)
    pair.run(100 * MILLISECOND)
    (ack,) = pair.net.of(SERVER, Type.ACK)
    assert ack.header.ack == pair.c.next_seq - 1
    assert ack.at == pair.net.sent[0].at + LATENCY  # without any delay


def test_a_probe_is_acknowledged_by_its_answer_alone() -> None:
    pair = raw_pair()
    pair.s.discovery.due = 1 << 62
    pair.run(SECOND)
    (probe,) = [each for each in pair.net.of(CLIENT, Type.DISCOVER) if each.header.flags & REQUIRE_ACK]
    replies = [each for each in pair.net.of(SERVER) if each.header.ack == probe.header.seq]
    assert (replies[0].type, replies[0].at) == (Type.DISCOVER, probe.at + LATENCY)
    assert len(replies) == 1


@pytest.mark.parametrize("again_after", [0, 1, 100])
def test_a_duplicate_is_counted_and_acknowledged_again(again_after: int) -> None:
    pair = raw_pair()
    packet = craft(pair.c, Type.DATA, pair.net.now, b"once")
    assert give(pair, packet) is Verdict.ACCEPTED
    for _ in range(again_after):
        give(pair, craft(pair.c, Type.DATA, pair.net.now, b"more"))
    pair.run(100 * MILLISECOND)
    acks = len(pair.net.of(SERVER, Type.ACK))
    assert acks >= 1
    start = pair.net.now
    assert give(pair, packet) is DropReason.DUPLICATE
    pair.run(50 * MILLISECOND)
    again = pair.net.of(SERVER, Type.ACK)[acks:]
    assert len(again) == 1
    assert again[0].header.ack == pair.s.window.cumulative
    assert again[0].at - start <= 50 * MILLISECOND
    assert pair.s.counters["duplicate"] == 1
    assert pair.s.counters["replay_drops"] == 0
    assert received(pair.s) == [b"once"] + [b"more"] * again_after


def test_a_forged_duplicate_is_not_acknowledged() -> None:
    pair = raw_pair()
    packet = craft(pair.c, Type.DATA, pair.net.now, b"once")
    give(pair, packet)
    pair.run(100 * MILLISECOND)
    acks = len(pair.net.of(SERVER, Type.ACK))
    assert give(pair, flipped(packet)) is DropReason.AUTH_FAIL
    pair.run(100 * MILLISECOND)
    assert len(pair.net.of(SERVER, Type.ACK)) == acks


def test_the_ack_is_cumulative_and_delivery_waits_for_the_gap() -> None:
    pair = raw_pair()
    first, second, third = (craft(pair.c, Type.DATA, pair.net.now, each) for each in (b"1", b"2", b"3"))
    before = pair.s.window.cumulative
    assert give(pair, third) is Verdict.ACCEPTED
    pair.run(50 * MILLISECOND)
    assert pair.net.of(SERVER, Type.ACK)[-1].header.ack == before
    assert received(pair.s) == []
    assert pair.s.window.lost == 2
    give(pair, first)
    assert received(pair.s) == [b"1"]
    give(pair, second)
    assert received(pair.s) == [b"2", b"3"]
    pair.run(50 * MILLISECOND)
    assert pair.net.of(SERVER, Type.ACK)[-1].header.ack == before + 3
    assert pair.s.window.lost == 0


def test_a_discard_of_what_waited_for_a_gap_is_counted() -> None:
    pair = raw_pair()
    gap = craft(pair.c, Type.DATA, pair.net.now, b"gap")
    foreign = craft(pair.c, Type.DATA, pair.net.now, b"x", channel=7)
    assert give(pair, foreign) is Verdict.ACCEPTED
    assert pair.s.counters["unsubscribed"] == 0
    assert give(pair, gap) is Verdict.ACCEPTED
    assert pair.s.counters["unsubscribed"] == 1


def test_a_heartbeat_is_answered_at_once_and_once() -> None:
    pair = raw_pair()
    start = pair.net.now
    give(pair, craft(pair.c, Type.HEARTBEAT, pair.net.now, bytes(44)))
    pair.run(200 * MILLISECOND)
    assert [ack.at for ack in pair.net.of(SERVER, Type.ACK)] == [start]


def test_an_early_heartbeat_is_answered_at_once_and_acted_on_in_its_turn() -> None:
    pair = raw_pair()
    gap = craft(pair.c, Type.DATA, pair.net.now, b"gap")
    report = wire.Telemetry(mtu=777).pack()
    start = pair.net.now
    give(pair, craft(pair.c, Type.HEARTBEAT, pair.net.now, report))
    assert [ack.at for ack in pair.net.of(SERVER, Type.ACK)] == [start]
    assert pair.s.heartbeats.peer_report is None
    give(pair, gap)
    assert pair.s.heartbeats.peer_report is not None
    assert pair.s.heartbeats.peer_report.mtu == 777


def test_the_window_ends_at_next_expected_plus_64() -> None:
    pair = raw_pair()
    next_expected = pair.c.next_seq
    inside = craft(pair.c, Type.DATA, pair.net.now, b"inside", seq=next_expected + 63)
    outside = craft(pair.c, Type.DATA, pair.net.now, b"outside", seq=next_expected + 64)
    assert give(pair, outside) is DropReason.OUT_OF_WINDOW
    pair.run(100 * MILLISECOND)
    assert pair.net.of(SERVER, Type.ACK) == []
    assert pair.s.window.highest == next_expected - 1
    assert give(pair, inside) is Verdict.ACCEPTED
    assert give(pair, outside) is DropReason.OUT_OF_WINDOW
    give(pair, craft(pair.c, Type.DATA, pair.net.now, b"first", seq=next_expected))
    assert give(pair, outside) is Verdict.ACCEPTED
    assert pair.s.counters["out_of_window"] == 2


def test_a_bad_hmac_or_tag_leaves_the_session_alone() -> None:
    pair = raw_pair()
    packet = craft(pair.c, Type.DATA, pair.net.now, b"genuine")
    header = wire.parse(packet)
    forged = pair.c.keys.sign(header, flipped(packet, HEADER_SIZE)[HEADER_SIZE:])
    assert give(pair, flipped(packet)) is DropReason.AUTH_FAIL
    assert give(pair, forged) is DropReason.DECRYPT_FAIL
    pair.run(100 * MILLISECOND)
    assert pair.s.end is None
    assert pair.net.of(SERVER) == []
    assert give(pair, packet) is Verdict.ACCEPTED
    assert received(pair.s) == [b"genuine"]


def test_a_full_queue_discards_without_committing_or_acknowledging() -> None:
    pair = raw_pair()
    for _ in range(c.RECEIVE_QUEUE - 1):
        pair.s.inbox.put(Message(0, b"old"))
    last = craft(pair.c, Type.DATA, pair.net.now, b"last")
    over = craft(pair.c, Type.DATA, pair.net.now, b"over")
    heartbeat = craft(pair.c, Type.HEARTBEAT, pair.net.now, bytes(44))
    assert give(pair, last) is Verdict.ACCEPTED
    pair.run(100 * MILLISECOND)
    acks = len(pair.net.of(SERVER, Type.ACK))
    assert give(pair, over) is DropReason.OVERLOAD
    pair.run(100 * MILLISECOND)
    assert len(pair.net.of(SERVER, Type.ACK)) == acks
    assert pair.s.window.cumulative == wire.parse(last).seq
    assert give(pair, heartbeat) is Verdict.ACCEPTED  # not DATA
    assert pair.s.take() is not None
    assert give(pair, over) is Verdict.ACCEPTED
    assert pair.s.counters["overload"] == 1


def test_what_waits_for_a_gap_has_its_place_in_the_queue() -> None:
    pair = raw_pair()
    packets = [craft(pair.c, Type.DATA, pair.net.now, b"%d" % number) for number in range(6)]
    for _ in range(c.RECEIVE_QUEUE - 3):
        pair.s.inbox.put(Message(0, b"old"))
    outcomes = [give(pair, packet) for packet in packets[1:]]
    assert outcomes == [Verdict.ACCEPTED] * 3 + [DropReason.OVERLOAD] * 2
    assert give(pair, packets[0]) is DropReason.OVERLOAD
    assert pair.s.take() is not None
    assert give(pair, packets[0]) is Verdict.ACCEPTED
    assert len(pair.s.inbox) == c.RECEIVE_QUEUE
    assert received(pair.s)[-4:] == [b"0", b"1", b"2", b"3"]


def test_a_message_survives_a_fragment_that_comes_late() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    message = random.Random(1).randbytes(1000)
    pair.send(pair.c, message)
    fragments = [flight.datagram.packet for flight in pair.net.of(CLIENT, Type.DATA)]
    assert len(fragments) == 3
    assert all(len(fragment) <= c.MTU_RAW_INITIAL for fragment in fragments)
    give(pair, fragments[0])
    pair.net.run(50 * SECOND)
    give(pair, fragments[1])
    give(pair, fragments[2])
    assert received(pair.s) == [message]


def test_an_abandoned_message_is_freed_after_60_s() -> None:
    pair = raw_pair()
    fragment = wire.FragmentHeader(1, 0, 100).pack() + b"part"
    packet = craft(pair.c, Type.DATA, pair.net.now, fragment, flags=int(Flag.FRAGMENT))
    give(pair, packet)
    pair.run(60 * SECOND - 1)
    assert pair.s.counters["frag_timeout"] == 0
    pair.run(1)
    assert pair.s.counters["frag_timeout"] == 1


# -- MTU probes and voids ------------------------------------------------------------------------------


def is_probe(flight: Flight) -> bool:
    header = flight.header
    return header.type == Type.DISCOVER and bool(header.flags & REQUIRE_ACK)


def test_a_lost_probe_is_replaced_by_a_void_until_that_is_acknowledged() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.c.heartbeats.due = pair.s.discovery.due = 1 << 62
    pair.run(SECOND)
    (probe,) = [each for each in pair.net.of(CLIENT) if is_probe(each)]
    pair.c.discovery.due = 1 << 62
    spy = Spy(pair.c)
    pair.run(8 * SECOND)
    same = by_seq(pair.net.of(CLIENT))[probe.header.seq]
    assert seconds(same, probe.at) == [0, 1, 3, 7]
    assert [flight.type for flight in same] == [Type.DISCOVER, Type.ACK, Type.ACK, Type.ACK]
    voids = {flight.datagram.packet for flight in same[1:]}
    assert len(voids) == 1
    header = same[1].header
    assert (header.flags, header.payload_len) == (int(Flag.PRIORITY), 0)
    assert spy.told[0] == ("lost", probe.at + 3 * SECOND)  # the probe's own loss does not count as one
    pair.net.fate = sound
    pair.run(8 * SECOND)
    assert not pair.c.outstanding
    assert pair.s.window.cumulative >= header.seq
    assert pair.s.window.lost == 0


def test_a_void_fills_the_gap_and_means_nothing_else() -> None:
    pair = raw_pair()
    seq = pair.c.next_seq
    void = craft(pair.c, Type.ACK, pair.net.now, flags=int(Flag.PRIORITY))
    after = craft(pair.c, Type.DATA, pair.net.now, b"after")
    probe = craft(pair.c, Type.DISCOVER, pair.net.now, bytes(432), flags=REQUIRE_ACK, seq=seq)
    give(pair, after)
    assert received(pair.s) == []
    assert give(pair, void) is Verdict.ACCEPTED
    assert received(pair.s) == [b"after"]
    pair.run(100 * MILLISECOND)
    assert pair.net.of(SERVER, Type.ACK)[-1].header.ack == seq + 1
    assert give(pair, void) is DropReason.DUPLICATE
    assert give(pair, probe) is DropReason.DUPLICATE
    pair.run(100 * MILLISECOND)
    assert pair.net.of(SERVER, Type.DISCOVER) == []


def test_a_void_acknowledges_but_is_no_ack_for_the_round_trip() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    seq = pair.c.transmit(Type.HEARTBEAT, pair.net.now, bytes(44))
    assert seq is not None
    pair.c.heartbeats.round_trip.sent(seq, pair.net.now)
    pair.run(30 * MILLISECOND)
    give(pair, craft(pair.s, Type.ACK, pair.net.now, flags=int(Flag.PRIORITY), ack=seq), "client")
    assert not pair.c.outstanding
    assert pair.c.heartbeats.round_trip.srtt == 0


def test_a_void_of_a_probe_that_arrived_is_a_duplicate() -> None:
    pair = raw_pair()
    pair.run(1500 * MILLISECOND)
    (probe,) = [each for each in pair.net.of(CLIENT) if is_probe(each)]
    void = craft(pair.c, Type.ACK, pair.net.now, flags=int(Flag.PRIORITY), seq=probe.header.seq)
    start = pair.net.now
    assert give(pair, void) is DropReason.DUPLICATE
    pair.run(50 * MILLISECOND)
    (ack,) = [each for each in pair.net.of(SERVER, Type.ACK) if each.at >= start]
    assert ack.header.ack >= probe.header.seq


def test_a_probe_and_its_answer_do_not_wait_for_a_gap() -> None:
    pair = raw_pair()
    gap = craft(pair.c, Type.DATA, pair.net.now, b"gap")
    probe = craft(pair.c, Type.DISCOVER, pair.net.now, b"\x02\x58".ljust(600 - 96, b"\0"), flags=REQUIRE_ACK)
    assert give(pair, probe) is Verdict.ACCEPTED
    assert len(pair.net.of(SERVER, Type.DISCOVER)) == 1
    give(pair, gap)
    assert len(pair.net.of(SERVER, Type.DISCOVER)) == 1
    assert pair.s.window.cumulative == wire.parse(probe).seq


def test_the_search_finds_the_path_over_raw() -> None:
    pair = raw_pair()
    assert (pair.c.mtu, pair.s.mtu) == (512, 512)
    pair.net.fate = lambda flight: [] if len(flight.datagram.packet) > 1000 else sound(flight)
    pair.run(30 * SECOND)
    assert 984 < pair.c.mtu <= 1000
    assert 984 < pair.s.mtu <= 1000
    pair.send(pair.c, bytes(5000))
    pair.run(SECOND)
    assert received(pair.s) == [bytes(5000)]


# -- ACKs with a seq of their own ----------------------------------------------------------------------


ANSWERS = [int(Flag.CONFIG_LOCKED), int(Flag.ROLLBACK_READY)]


@pytest.mark.parametrize("flags", ANSWERS)
def test_an_answer_takes_a_seq_and_is_resent_until_acknowledged(flags: int) -> None:
    pair = raw_pair(fate=nothing_from(SERVER))
    seq = pair.s.next_seq
    asked = pair.s.window.cumulative
    start = pair.net.now
    pair.s.acknowledge(pair.net.now, ack=asked, flags=flags)
    pair.run(800 * MILLISECOND)
    pair.net.fate = sound
    pair.run(2 * SECOND)
    answers = [each for each in pair.net.of(SERVER, Type.ACK) if each.header.flags]
    assert seconds(answers, start) == [0, 1]
    assert len({each.datagram.packet for each in answers}) == 1
    assert (answers[0].header.seq, answers[0].header.ack) == (seq, asked)
    assert pair.s.next_seq > seq
    assert give(pair, answers[0].datagram.packet, "client") is DropReason.DUPLICATE


def test_an_answer_is_repeated_rather_than_contradicted() -> None:
    # An ACK with the same ack and no flag would tell the proposer that its configuration was refused (E-44).
    pair = raw_pair(fate=nothing_from(SERVER))
    asked = craft(pair.c, Type.DATA, pair.net.now, b"stands for a CONFIG")
    give(pair, asked)
    pair.s.acknowledge(pair.net.now, ack=wire.parse(asked).seq, flags=int(Flag.CONFIG_LOCKED))
    pair.run(100 * MILLISECOND)
    assert give(pair, asked) is DropReason.DUPLICATE
    pair.run(100 * MILLISECOND)
    acks = pair.net.of(SERVER, Type.ACK)
    assert [each.header.flags for each in acks] == [int(Flag.CONFIG_LOCKED)] * 2
    assert acks[0].datagram.packet == acks[1].datagram.packet
    give(pair, craft(pair.c, Type.DATA, pair.net.now, b"next"))
    pair.run(100 * MILLISECOND)
    assert pair.net.of(SERVER, Type.ACK)[-1].header.flags == 0
    assert pair.net.of(SERVER, Type.ACK)[-1].header.ack == wire.parse(asked).seq + 1


def test_an_answer_that_finds_the_window_full_is_not_preceded_by_its_ack() -> None:
    pair = raw_pair(fate=nothing_from(SERVER))
    pair.s.discovery.due = 1 << 62
    before = pair.s.window.cumulative
    for _ in range(33):
        pair.send(pair.s, b"x")
    asked = craft(pair.c, Type.DATA, pair.net.now, b"stands for a CONFIG", ack=pair.s.first_seq)
    give(pair, asked)
    pair.s.acknowledge(pair.net.now, ack=wire.parse(asked).seq, flags=int(Flag.CONFIG_LOCKED))
    pair.run(100 * MILLISECOND)
    assert {each.header.ack for each in pair.net.of(SERVER)} == {before}
    assert len(pair.s.in_flight) == 32
    pair.net.fate = sound
    pair.run(5 * SECOND)
    acks = [each for each in pair.net.of(SERVER) if each.header.ack == wire.parse(asked).seq]
    assert acks[0].header.flags == int(Flag.CONFIG_LOCKED)
    assert len(received(pair.c)) == 33


def test_nothing_acknowledges_a_config_before_it_is_decided_on() -> None:
    pair = raw_pair()
    gap = craft(pair.c, Type.DATA, pair.net.now, b"gap")
    heartbeat = craft(pair.c, Type.HEARTBEAT, pair.net.now, bytes(44))
    params = Parameters.of(Settings())
    payload = ConfigPayload.proposing(params, START, 1, SECOND, pair.net.wall)
    config = craft(pair.c, Type.CONFIG, pair.net.now, payload.pack())
    later = craft(pair.c, Type.DATA, pair.net.now, b"later")
    seq = wire.parse(config).seq
    for packet in (later, config, heartbeat, gap):
        give(pair, packet)
    pair.run(100 * MILLISECOND)
    acks = [(each.header.ack, each.header.flags) for each in pair.net.of(SERVER, Type.ACK)]
    decided = acks.index((seq, int(Flag.CONFIG_LOCKED)))
    assert all(ack < seq for ack, _ in acks[:decided])
    assert (seq - 1, 0) in acks[:decided]  # the heartbeat's
    assert acks[decided + 1 :] == [(seq + 1, 0)]


def test_a_refusal_has_exactly_the_ack_it_was_given_and_no_seq() -> None:
    pair = raw_pair()
    refused = craft(pair.c, Type.DATA, pair.net.now, b"stands for a CONFIG")
    give(pair, refused)
    give(pair, craft(pair.c, Type.DATA, pair.net.now, b"later"))
    seq = pair.s.next_seq
    pair.s.acknowledge(pair.net.now, ack=wire.parse(refused).seq)
    pair.flush()
    (ack,) = pair.net.of(SERVER, Type.ACK)
    assert (ack.header.seq, ack.header.ack, ack.header.flags) == (seq - 1, wire.parse(refused).seq, 0)
    assert pair.s.next_seq == seq
    pair.run(50 * MILLISECOND)  # what came later still is to be acknowledged
    assert pair.net.of(SERVER, Type.ACK)[-1].header.ack == wire.parse(refused).seq + 1


# -- the handshake's last packets ----------------------------------------------------------------------


def test_a_duplicate_response_gets_the_same_handshake_ack_again() -> None:
    pair = raw_pair()
    traces = pair.server.traces
    (response,) = [
        each.packet
        for each in traces
        if each.direction == "received" and each.packet[0] & 0xF == Type.RESPONSE
    ]
    (ack,) = [
        each.packet
        for each in traces
        if each.direction == "sent" and wire.parse(each.packet).seq == pair.s.first_seq
    ][:1]
    received_before = pair.s.window.received
    pair.net.inject(CLIENT, SERVER, response)
    pair.run(MILLISECOND)
    (again,) = pair.net.of(SERVER)
    assert again.datagram.packet == ack
    assert pair.s.counters["duplicate"] == 1
    assert pair.s.window.received == received_before
    assert len(pair.server.sessions) == 1
    pair.run(100 * MILLISECOND)
    assert pair.c.counters["duplicate"] == 1  # and the client acknowledges it again
    assert pair.net.of(CLIENT, Type.ACK)[-1].header.ack == pair.s.first_seq


def test_a_response_with_another_seq_is_only_an_unexpected_packet() -> None:
    pair = raw_pair()
    seq = pair.c.next_seq
    pair.c.next_seq += 1
    payload = bytes(64) + pair.c.keys.seal(seq, bytes(32))
    header = wire.Header(Type.RESPONSE, int(Flag.ENCRYPTED), seq, 0, pair.c.session_id, pair.net.now)
    packet = pair.c.keys.sign(header, payload)
    assert give(pair, packet) is DropReason.UNEXPECTED_TYPE
    pair.run(100 * MILLISECOND)
    assert pair.net.of(SERVER, Type.ACK)[-1].header.ack == seq
    assert pair.s.counters["bad_ack"] == 0
    assert give(pair, packet) is DropReason.DUPLICATE
    pair.run(100 * MILLISECOND)
    assert [each.header.ack for each in pair.net.of(SERVER)] == [seq, seq]  # not the handshake's


@pytest.mark.parametrize("type", [Type.INIT, Type.CHALLENGE])
def test_init_and_challenge_have_no_place_in_a_session(type: Type) -> None:
    pair = raw_pair()
    packet = wire.build(type, bytes(64), session_id=pair.c.session_id)
    assert give(pair, packet) is DropReason.UNEXPECTED_TYPE


# -- the end -------------------------------------------------------------------------------------------


def test_a_close_is_acknowledged_and_ends_both_sides() -> None:
    pair = raw_pair()
    pair.send(pair.s, b"unread")
    pair.run(100 * MILLISECOND)
    pair.c.close(pair.net.now)
    assert not pair.c.active
    pair.run(2 * LATENCY)
    assert pair.s.end == SessionEnded("closed", None)
    assert pair.c.end == SessionEnded("local", None)
    assert not pair.c.keys.usable
    assert not pair.s.keys.usable
    (close,) = pair.net.of(CLIENT, Type.CLOSE)
    (ack,) = [each for each in pair.net.of(SERVER, Type.ACK) if each.header.ack == close.header.seq]
    assert ack.at == close.at + LATENCY
    assert received(pair.c) == [b"unread"]
    assert pair.c.finished
    assert pair.s.finished


def test_a_close_drains_first() -> None:
    pair = raw_pair()
    pair.net.fate = dropping(lambda flight: flight.type is Type.DATA)
    messages = [b"%d" % number for number in range(40)]
    for message in messages:
        pair.send(pair.c, message)
    pair.c.close(pair.net.now, 0)
    assert pair.c.state is State.ESTABLISHED
    with pytest.raises(LocalError) as caught:
        pair.c.send(b"too late", pair.net.now)
    assert caught.value.errno == errno.ENOTCONN
    pair.run(500 * MILLISECOND)
    assert pair.net.of(CLIENT, Type.CLOSE) == []
    pair.run(2 * SECOND)
    assert received(pair.s) == messages
    assert pair.s.end == SessionEnded("closed", 0)
    assert pair.c.end == SessionEnded("local", 0)
    seqs = list(by_seq(pair.net.of(CLIENT)))
    assert pair.net.of(CLIENT, Type.CLOSE)[0].header.seq == max(seqs)


def test_a_close_comes_with_the_last_acknowledgement() -> None:
    pair = raw_pair()
    start = pair.net.now
    pair.send(pair.c, b"x")
    pair.c.close(start)
    pair.run(SECOND)
    (ack,) = [each for each in pair.net.of(SERVER, Type.ACK) if each.at < start + 50 * MILLISECOND]
    (close,) = pair.net.of(CLIENT, Type.CLOSE)
    assert close.at == ack.at + LATENCY


def test_draining_ends_after_5_s_and_the_close_is_sent_three_times() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.c.heartbeats.due = 1 << 62
    pair.c.discovery.due = 1 << 62
    start = pair.net.now
    pair.send(pair.c, b"never arrives")
    pair.c.close(start)
    pair.run(5 * SECOND - 1)
    assert pair.net.of(CLIENT, Type.CLOSE) == []
    pair.run(30 * SECOND)
    closes = pair.net.of(CLIENT, Type.CLOSE)
    assert seconds(closes, start) == [5, 6, 8]
    assert len({each.datagram.packet for each in closes}) == 1
    assert seconds(pair.net.of(CLIENT, Type.DATA), start) == [0, 1, 3]
    assert pair.c.end == SessionEnded("local", None)
    ended = [each.now for each in pair.client.traces if each.packet == closes[0].datagram.packet]
    assert ended[-1] == closes[-1].at
    assert not pair.c.keys.usable


def test_a_close_without_answer_is_over_5_s_after_it_was_first_sent() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.c.heartbeats.round_trip.srtt = 9 * SECOND
    start = pair.net.now
    pair.c.close(start)
    pair.run(5 * SECOND - 1)
    assert pair.c.end is None
    pair.run(1)
    assert pair.c.end == SessionEnded("local", None)
    assert seconds(pair.net.of(CLIENT, Type.CLOSE), start) == [0]


def test_a_lost_close_is_resent() -> None:
    pair = raw_pair()
    pair.net.fate = dropping(lambda flight: flight.type is Type.CLOSE)
    pair.c.close(pair.net.now)
    pair.run(900 * MILLISECOND)
    assert pair.s.end is None
    pair.run(200 * MILLISECOND)
    assert pair.s.end == SessionEnded("closed", None)
    assert pair.c.end == SessionEnded("local", None)
    assert len(pair.net.of(CLIENT, Type.CLOSE)) == 2


def test_a_close_whose_ack_is_lost_ends_after_the_third() -> None:
    pair = raw_pair(fate=nothing_from(SERVER))
    start = pair.net.now
    pair.c.close(start)
    pair.run(10 * SECOND)
    assert seconds(pair.net.of(CLIENT, Type.CLOSE), start) == [0, 1, 3]
    assert pair.c.end == SessionEnded("local", None)
    assert pair.s.end == SessionEnded("closed", None)
    assert pair.server.core.counters["unknown_session"] == 2  # the other two found nobody


def test_both_sides_close_at_once() -> None:
    pair = raw_pair()
    pair.c.close(pair.net.now)
    pair.s.close(pair.net.now)
    pair.run(SECOND)
    assert pair.c.end == SessionEnded("local", None)
    assert pair.s.end == SessionEnded("local", None)
    assert len(pair.net.of(CLIENT, Type.CLOSE)) == len(pair.net.of(SERVER, Type.CLOSE)) == 1


def test_a_close_does_not_wait_for_a_gap() -> None:
    pair = raw_pair()
    craft(pair.c, Type.DATA, pair.net.now, b"never sent")
    close = craft(pair.c, Type.CLOSE, pair.net.now, bytes([ErrorCode.REKEY_FAIL]))
    before = pair.s.window.cumulative
    assert give(pair, close) is Verdict.CLOSED
    assert pair.s.end == SessionEnded("closed", 7)
    (ack,) = pair.net.of(SERVER, Type.ACK)
    assert ack.header.ack == before


def test_an_error_closes_without_draining() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.send(pair.c, b"x")
    pair.c.close_with(pair.net.now, "protection", 0x07)
    pair.flush()
    assert pair.c.state is State.CLOSING
    assert len(pair.net.of(CLIENT, Type.CLOSE)) == 1
    pair.run(2 * SECOND)
    assert len(pair.net.of(CLIENT, Type.DATA)) == 1
    pair.run(2 * SECOND)
    assert pair.c.end == SessionEnded("protection", 0x07)
    details = [entry.detail for entry in pair.client.core.journal.entries()]
    assert b"0x07 192.0.2.2 0 protection" in details


def test_data_is_still_received_while_draining_but_not_after_the_close() -> None:
    pair = raw_pair()
    pair.net.fate = dropping(lambda flight: flight.type is Type.DATA and flight.source == CLIENT)
    pair.send(pair.c, b"lost at first")
    pair.c.close(pair.net.now)
    pair.send(pair.s, b"in time")
    pair.run(200 * MILLISECOND)
    assert received(pair.c) == [b"in time"]
    pair.net.fate = nothing_from(CLIENT)
    pair.run(5 * SECOND)
    assert pair.c.state is State.CLOSING
    late = craft(pair.s, Type.DATA, pair.net.now, b"late")
    assert give(pair, late, "client") is DropReason.UNEXPECTED_TYPE
    pair.run(50 * MILLISECOND)
    assert pair.net.of(CLIENT, Type.ACK)[-1].header.ack == wire.parse(late).seq


def test_nothing_is_sent_with_a_seq_while_a_close_waits_for_its_ack() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.c.close(pair.net.now)
    seq = pair.c.next_seq
    assert pair.c.transmit(Type.HEARTBEAT, pair.net.now, bytes(44)) is None
    pair.run(2 * SECOND)
    assert pair.c.next_seq == seq


def test_the_last_seq_goes_to_a_close() -> None:
    pair = raw_pair(fate=nothing_from(CLIENT))
    pair.c.next_seq = c.SEQ_RANGE[Role.CLIENT][1] - 1
    with pytest.raises(LocalError) as caught:
        pair.c.send(b"x", pair.net.now)
    assert caught.value.errno == errno.ENOTCONN
    pair.flush()
    (close,) = pair.net.of(CLIENT, Type.CLOSE)
    assert close.header.seq == c.SEQ_RANGE[Role.CLIENT][1] - 1
    pair.run(10 * SECOND)
    assert pair.c.end == SessionEnded("sequence_exhausted", ErrorCode.SEQ_INVALID)


def test_an_ended_session_says_nothing_more() -> None:
    pair = raw_pair()
    pair.c.close(pair.net.now)
    pair.run(SECOND)
    sent = len(pair.net.sent)
    pair.c.acknowledge(pair.net.now)
    pair.c.close(pair.net.now)
    pair.run(20 * SECOND)
    assert len(pair.net.sent) == sent
    assert pair.c.next_timer() is None


# -- robustness ----------------------------------------------------------------------------------------


def test_no_bytes_raise_out_of_a_session() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    pair = raw_pair(2)
    for _ in range(1500):
        packet = bytearray(
            craft(
                pair.c,
                chance.randrange(16),
                pair.net.now,
                chance.randbytes(chance.choice((0, 1, 2, 44, 104, 500))),
                flags=chance.getrandbits(16) & ~3,
                seq=pair.s.window.cumulative + chance.randrange(-3, 70),
                ack=pair.s.next_seq + chance.randrange(-40, 3),
            )
        )
        if chance.random() < 0.5:
            header = wire.parse(packet)
            if header.type != Type.CLOSE:
                pair.s.receive_packet(bytes(packet), pair.net.now)
        else:
            packet[chance.randrange(len(packet))] ^= 1 << chance.randrange(8)
            pair.s.receive_packet(bytes(packet[: chance.randrange(len(packet) + 1)]), pair.net.now)
        pair.s.packets_to_send()
        if pair.s.end is not None:
            break
        pair.net.now += chance.randrange(20 * MILLISECOND)
        pair.s.handle_timer(pair.net.now)
    assert pair.s.inbox is not None


def test_the_transport_is_recorded() -> None:
    pair = raw_pair()
    assert isinstance(pair.c, RawSession)
    assert (pair.c.transport, pair.s.transport) == ("raw", "raw")
    assert pair.c.reliable
