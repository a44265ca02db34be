# SPDX-License-Identifier: GPL-2.0-or-later
"""The dialect ``pool-ko-1.0`` against an independent peer, in both directions."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import old_peer
import pytest
from old_peer import Broken, OldPeer
from poolref_sim import PEER, World, flipped, solve

from poolref import wire
from poolref.address import Address
from poolref.config import START, ConfigPayload, Parameters
from poolref.connection import TcpConnection
from poolref.constants import SECOND, ErrorCode, Flag, Role, State, Type
from poolref.counters import DropReason
from poolref.dialect import CONTRADICTS, DIALECTS, POOL_KO_1_0, SPEC, Dialect, deviations
from poolref.errors import LocalError
from poolref.events import (
    ConfigAccepted,
    ConfigConfirmed,
    Event,
    PuzzlePosed,
    RekeyCompleted,
    SessionEnded,
)
from poolref.handshake import ClientHandshake
from poolref.journal import ChangeType
from poolref.session import Session
from poolref.settings import Settings

OLD = Settings(dialect=POOL_KO_1_0, difficulty=8)


class Talk:
    """One side of the reference, in a dialect, and the old peer as the other."""

    def __init__(
        self, role: Role, settings: Settings = OLD, *, seed: int = 1, digest: int | None = None
    ) -> None:
        self.role = role
        self.world = World(seed, server_settings=settings, client_settings=settings)
        self.here: TcpConnection = self.world.client() if role is Role.CLIENT else self.world.server(PEER)
        self.there = OldPeer(
            client=role is Role.SERVER,
            random=random.Random(f"old {seed}").randbytes,
            monotonic=lambda: self.world.now,
            digest=digest,
        )
        self.events: list[Event] = []
        self.run()

    @property
    def session(self) -> Session:
        assert self.here.session is not None, self.events
        return self.here.session

    def run(self) -> None:
        """Carry bytes to and fro until both are silent."""
        while True:
            while (event := self.here.next_event()) is not None:
                self.events.append(event)
                if isinstance(event, PuzzlePosed):
                    assert isinstance(self.here.handshake, ClientHandshake)
                    self.here.handshake.solved(solve(event), self.world.now)
            outgoing, incoming = self.here.data_to_send(), self.there.output()
            if not outgoing and not incoming:
                return
            if outgoing:
                self.there.feed(outgoing)
            if incoming:
                self.here.receive_data(incoming, self.world.now)

    def advance(self, nanoseconds: int) -> None:
        until = self.world.now + nanoseconds
        while (due := self.here.next_timer()) is not None and due <= until:
            self.world.now = max(self.world.now, due)
            self.here.handle_timer(self.world.now)
            self.run()
        self.world.now = until

    def received(self) -> list[bytes]:
        """Messages that arrived here."""
        found = []
        while (message := self.here.take(self.world.now)) is not None:
            found.append(message.data)
        return found

    def heard(self, type: int) -> list[old_peer.Packet]:
        """Packets of a type that arrived there."""
        return [packet for packet in self.there.received if packet.type == type]

    def say(self, data: bytes) -> None:
        self.session.send(data, self.world.now)
        self.run()


@pytest.fixture(params=list(Role), ids=["client", "server"])
def talk(request: pytest.FixtureRequest) -> Talk:
    """An established session with the old peer."""
    found = Talk(request.param)
    assert found.there.established
    assert found.session.state is State.ESTABLISHED
    return found


# -- both directions -------------------------------------------------------------------------------


def test_both_sides_have_the_same_session(talk: Talk) -> None:
    assert talk.session.session_id == talk.there.session_id
    assert talk.session.role is talk.role


def test_messages_pass_both_ways(talk: Talk) -> None:
    for number in range(100):
        talk.say(b"to the old peer %d" % number)
        talk.there.send(b"to the reference %d" % number)
    talk.run()
    assert [packet.plaintext for packet in talk.heard(old_peer.DATA)] == [
        b"to the old peer %d" % number for number in range(100)
    ]
    assert talk.received() == [b"to the reference %d" % number for number in range(100)]
    assert not any(talk.session.counters[reason] for reason in DropReason if reason != DropReason.BAD_ACK)


def test_only_some_types_are_acknowledged(talk: Talk) -> None:
    talk.there.send(b"a message that asks for an ACK")
    talk.run()
    talk.advance(SECOND)
    assert talk.heard(old_peer.ACK) == []
    seq = talk.there.heartbeat()
    talk.run()
    (ack,) = talk.heard(old_peer.ACK)
    assert (ack.ack, ack.plaintext) == (seq, b"")


@pytest.mark.parametrize("digest", [None, 0xDEADBEEF])
@pytest.mark.parametrize("role", list(Role))
def test_reports_are_little_endian_with_or_without_a_digest(role: Role, digest: int | None) -> None:
    talk = Talk(role, digest=digest)
    talk.there.heartbeat(rtt=0x0102030405060708, mtu=1400, uptime=77 * SECOND, config=9)
    talk.run()
    report = talk.session.heartbeats.peer_report
    assert report is not None
    assert (report.rtt_ns, report.mtu) == (0x0102030405060708, 1400)
    assert (report.uptime_ns, report.config_version) == (77 * SECOND, 9)
    talk.advance(5 * SECOND)
    own = talk.there.report()
    assert (own["mtu"], own["uptime"]) == (talk.session.mtu, 5 * SECOND)
    assert talk.session.counters[DropReason.MALFORMED] == 0


def test_a_round_trip_is_measured(talk: Talk) -> None:
    talk.advance(4 * SECOND)
    talk.world.now += SECOND
    talk.here.handle_timer(talk.world.now)
    talk.there.feed(talk.here.data_to_send())
    talk.world.now += SECOND // 100
    talk.here.receive_data(talk.there.output(), talk.world.now)
    assert talk.session.heartbeats.round_trip.srtt == SECOND // 100


@pytest.mark.parametrize("code", [None, 3])
def test_the_old_peer_closes(talk: Talk, code: int | None) -> None:
    talk.there.close(code)
    talk.run()
    assert talk.session.end == SessionEnded("closed", code)


@pytest.mark.parametrize("code", [None, 3])
def test_the_reference_closes(talk: Talk, code: int | None) -> None:
    talk.session.close(talk.world.now, code)
    talk.run()
    assert talk.there.closed == (-1 if code is None else code)


def test_a_seq_within_ones_own_range_is_refused_any_other_is_not(talk: Talk) -> None:
    talk.say(b"reflect this")
    mine = talk.session.protect(Type.DATA, talk.world.now, b"again", seq=talk.session.first_seq)
    assert talk.session.receive_packet(mine, talk.world.now) is DropReason.REFLECTED
    assert talk.session.end is None
    talk.there.send(b"still here")
    talk.run()
    assert talk.received() == [b"still here"]
    outside = talk.session.protect(Type.DATA, talk.world.now, b"again", seq=talk.session.next_seq)
    assert talk.session.receive_packet(outside, talk.world.now) is not DropReason.REFLECTED


# -- MTU -------------------------------------------------------------------------------------------


def test_a_probe_that_asks_is_echoed_whole(talk: Talk) -> None:
    talk.there.probe(900, old_peer.REQUIRE_ACK)
    talk.run()
    (echo,) = (packet for packet in talk.heard(old_peer.DISCOVER) if not packet.flags & Flag.REQUIRE_ACK)
    assert len(echo.plaintext) == 900 - 96
    assert echo.plaintext[:2] == (900).to_bytes(2, "big")


def test_a_probe_that_does_not_ask_is_not_answered_and_no_fault(talk: Talk) -> None:
    talk.there.probe(900)
    talk.run()
    assert [packet for packet in talk.heard(old_peer.DISCOVER) if not packet.flags & Flag.REQUIRE_ACK] == []
    assert talk.session.counters[DropReason.MALFORMED] == 0
    assert talk.session.counters[DropReason.UNSOLICITED] == 0


def test_the_whole_echo_answers_a_probe(talk: Talk) -> None:
    talk.advance(20 * SECOND)
    sizes = {len(packet.plaintext) + 96 for packet in talk.heard(old_peer.DISCOVER)}
    assert 1400 in sizes
    assert talk.session.mtu == 1400


# -- REKEY, one way --------------------------------------------------------------------------------


def carries(talk: Talk) -> None:
    """Messages pass both ways."""
    talk.say(b"to the old peer")
    talk.there.send(b"to the reference")
    talk.run()
    assert talk.heard(old_peer.DATA)[-1].plaintext == b"to the old peer"
    assert talk.received()[-1] == b"to the reference"


def test_the_old_peer_changes_keys(talk: Talk) -> None:
    carries(talk)
    before = bytes(talk.session.keys.session_key)
    talk.there.rekey()
    talk.run()
    assert talk.session.keys.epoch == talk.there.epoch == 1
    assert talk.session.keys.session_key != before
    assert RekeyCompleted(1) in talk.events
    carries(talk)
    talk.advance(120 * SECOND)
    assert talk.session.end is None
    assert talk.session.counters[DropReason.AUTH_FAIL] == 0


def test_the_reference_changes_keys(talk: Talk) -> None:
    carries(talk)
    talk.session.rekeying.start(talk.world.now)
    talk.run()
    assert talk.session.keys.epoch == talk.there.epoch == 1
    carries(talk)
    talk.advance(120 * SECOND)
    assert talk.session.end is None


def test_keys_change_many_times_from_either_side(talk: Talk) -> None:
    for number in range(1, 9):
        if number % 3:
            talk.there.rekey()
        else:
            talk.session.rekeying.start(talk.world.now)
        talk.run()
        assert talk.session.keys.epoch == talk.there.epoch == number
        carries(talk)
    assert talk.heard(old_peer.REKEY)
    journal = talk.session.core.journal.entries()
    assert [entry.change_type for entry in journal].count(ChangeType.REKEY) == 8


def test_seqs_are_drawn_anew_with_the_keys(talk: Talk) -> None:
    first = talk.session.first_seq
    talk.there.rekey()
    talk.run()
    assert talk.session.first_seq not in range(first, first + 1000)
    carries(talk)
    assert talk.heard(old_peer.DATA)[-1].seq == talk.session.first_seq


def test_packets_under_way_still_count(talk: Talk) -> None:
    carries(talk)
    talk.there.send(b"under way")
    talk.session.rekeying.start(talk.world.now)
    talk.run()
    assert talk.received() == [b"under way"]
    carries(talk)
    talk.session.send(b"under way, too", talk.world.now)
    talk.there.rekey()
    talk.run()
    assert talk.heard(old_peer.DATA)[-1].plaintext == b"under way, too"
    carries(talk)


def test_a_replay_is_one_in_every_epoch(talk: Talk) -> None:
    for _ in range(2):
        talk.there.send(b"once")
        packet = talk.there.output()
        for _ in range(2):
            talk.here.receive_data(packet, talk.world.now)
        assert talk.received() == [b"once"]
        talk.there.rekey()
        talk.run()
        talk.there.send(b"the first of its epoch")
        talk.run()
        talk.received()
    assert talk.session.counters[DropReason.REPLAY] == 2


def test_a_replay_under_old_keys_is_one_too(talk: Talk) -> None:
    for number in range(1, 3):
        talk.there.send(b"once")
        packet = talk.there.output()
        talk.here.receive_data(packet, talk.world.now)
        assert talk.received() == [b"once"]
        talk.session.rekeying.start(talk.world.now)
        talk.here.receive_data(packet, talk.world.now)
        assert talk.received() == []
        assert talk.session.counters[DropReason.REPLAY] == number
        talk.run()
        carries(talk)


@pytest.mark.parametrize("size", [0, 31, 33, 40])
def test_a_rekey_of_another_size_changes_nothing(talk: Talk, size: int) -> None:
    talk.there.raw(old_peer.REKEY, bytes([9]) * size)
    talk.run()
    assert talk.session.counters[DropReason.MALFORMED] == 1
    assert talk.session.keys.epoch == 0
    carries(talk)


def test_a_low_order_key_ends_the_session(talk: Talk) -> None:
    talk.there.raw(old_peer.REKEY, bytes(32))
    talk.run()
    assert talk.session.end == SessionEnded("rekey", ErrorCode.REKEY_FAIL)
    assert talk.there.closed == ErrorCode.REKEY_FAIL
    assert talk.session.counters[DropReason.LOW_ORDER_KEY] == 1


def test_without_randomness_the_keys_stay(talk: Talk) -> None:
    def broken(size: int) -> bytes:
        raise OSError("no entropy")

    rng, talk.session.core.rng = talk.session.core.rng, broken
    talk.session.rekeying.start(talk.world.now)
    talk.run()
    assert talk.session.keys.epoch == 0
    talk.session.core.rng = rng
    carries(talk)


def test_who_does_not_follow_is_left(talk: Talk) -> None:
    """E-94 is a guess about builds: one that derives otherwise is noticed by the first packet."""
    talk.there.rekey()
    talk.there._keys = old_peer.Secrets(bytes(31) + b"x")
    talk.there.send(b"under other keys")
    talk.here.receive_data(talk.there.output(), talk.world.now)
    assert talk.session.end == SessionEnded("protection", ErrorCode.AUTH_FAIL)


def test_the_halves_of_the_keys_are_erased_with_them(talk: Talk) -> None:
    halves = talk.session.keys.halves
    assert halves is not None
    assert halves[0] != bytes(32)
    talk.there.rekey()
    talk.run()
    carries(talk)  # the old keys are forgotten with the first packet under the new ones
    assert halves[0] == bytes(32)
    halves = talk.session.keys.halves
    assert halves is not None
    talk.session.close(talk.world.now)
    assert halves[0] == bytes(32)


# -- configurations --------------------------------------------------------------------------------

PARAMETERS = Parameters(17, 7, 1 << 20, 3600, 512, 1400)


def config(talk: Talk, deadline_ns: int) -> bytes:
    return ConfigPayload.proposing(PARAMETERS, START, 1, deadline_ns, 0).pack()


def test_a_deadline_is_a_time_of_the_senders_clock(talk: Talk) -> None:
    configuration = talk.session.core.configuration
    talk.there.raw(old_peer.CONFIG, config(talk, talk.world.now + 3 * SECOND), old_peer.REQUIRE_ACK)
    talk.run()
    assert configuration.current.version == 1
    (ack,) = talk.heard(old_peer.ACK)
    assert ack.flags & old_peer.CONFIG_LOCKED
    talk.advance(2 * SECOND)
    assert configuration.current.version == 1
    talk.advance(1 * SECOND)
    assert configuration.current.version == 0


@pytest.mark.parametrize("ago", [0, 1, 1000 * SECOND])
def test_a_deadline_that_has_passed_is_refused(talk: Talk, ago: int) -> None:
    talk.there.raw(old_peer.CONFIG, config(talk, talk.world.now - ago), old_peer.REQUIRE_ACK)
    talk.run()
    assert talk.session.core.configuration.current.version == 0
    assert talk.session.counters[DropReason.CONFIG_REJECT] == 1


def test_any_ack_with_the_flag_answers_a_proposal(talk: Talk) -> None:
    talk.world.now += 5 * SECOND
    sent = talk.world.now
    talk.session.configuring.propose(PARAMETERS, 3 * SECOND, sent)
    talk.run()
    assert ConfigAccepted(1) in talk.events  # the old peer's ACK acknowledges whatever came last
    (packet,) = talk.heard(old_peer.CONFIG)
    assert ConfigPayload.unpack(packet.plaintext).deadline_ns == sent + 3 * SECOND
    talk.session.configuring.confirm(talk.world.now)
    talk.run()
    assert ConfigConfirmed(1) in talk.events


# -- what makes it a dialect -----------------------------------------------------------------------


def test_the_specification_is_not_understood() -> None:
    with pytest.raises(Broken):
        Talk(Role.CLIENT, Settings(difficulty=16))
    talk = Talk(Role.SERVER, Settings(difficulty=16))
    assert talk.here.session is None
    assert talk.here.handshake.counters[DropReason.MALFORMED] == 1


def outcome(role: Role, dialect: Dialect) -> str:
    """How it goes, in all that a field of the dialect can change."""
    address = Address(1, 0, 0, 5).pack()
    difficulty = max(8, dialect.min_difficulty)
    try:
        talk = Talk(role, Settings(dialect=dialect, difficulty=difficulty, address=address), digest=1)
        if talk.here.session is None:
            return "no session"
        talk.there.heartbeat(mtu=1400)
        talk.run()
        talk.there.send(b"x" * 40)
        talk.there.probe(900, old_peer.REQUIRE_ACK)
        talk.there.probe(800)
        talk.there.raw(old_peer.CONFIG, config(talk, talk.world.now + 3 * SECOND), old_peer.REQUIRE_ACK)
        talk.run()
        talk.advance(SECOND)
        tentative = talk.session.core.configuration.tentative
        deadline = None if tentative is None else tentative.deadline
        talk.there.rekey()
        talk.there.send(b"under new keys")
        talk.run()
    except Broken as error:
        return f"broken: {error}"
    session = talk.session
    report = session.heartbeats.peer_report
    return " ".join(
        (
            f"drops {[str(reason) for reason in DropReason if session.counters[reason]]}",
            f"mtu {None if report is None else report.mtu}",
            f"acks {len(talk.heard(old_peer.ACK))}",
            f"echoes {[len(packet.plaintext) for packet in talk.heard(old_peer.DISCOVER)]}",
            f"first {session.first_seq >> 61:#x}",
            f"end {session.end}",
            f"deadline {deadline}",
        )
    )


ELSEWHERE = ("name", "unseen", "min_difficulty", "config_answer")
"""Fields that other tests are about."""


@pytest.mark.parametrize("name", [field.name for field in fields(Dialect) if field.name not in ELSEWHERE])
def test_no_field_is_without_effect(name: str) -> None:
    without = replace(POOL_KO_1_0, **{name: getattr(SPEC, name)})
    assert any(outcome(role, without) != outcome(role, POOL_KO_1_0) for role in Role)


def test_a_server_of_the_dialect_may_ask_for_less() -> None:
    assert Settings(dialect=POOL_KO_1_0, difficulty=8).difficulty == 8
    with pytest.raises(LocalError):
        Settings(dialect=replace(POOL_KO_1_0, min_difficulty=16), difficulty=8)


def test_every_deviation_names_what_it_fails() -> None:
    named = {field.name for field in fields(Dialect)} - {"name", "unseen"}
    assert CONTRADICTS.keys() == named
    assert deviations(SPEC) == []
    found = {each.field: each for each in deviations(POOL_KO_1_0)}
    assert found.keys() == named  # pool-ko-1.0 has every deviation there is
    assert found["min_difficulty"][1:] == (16, 8, ("HS-04",))
    assert DIALECTS == {"spec": SPEC, "pool-ko-1.0": POOL_KO_1_0}


# -- the server keeps state for each connection ----------------------------------------------------


class Served:
    """A server of the dialect, and packets by hand of a client that knows it."""

    def __init__(self) -> None:
        self.world = World(server_settings=OLD, client_settings=OLD)
        self.client = self.world.client_handshake()
        self.server = self.world.server()
        (self.init,) = self.client.packets_to_send()

    def challenge(self) -> bytes:
        self.server.receive_data(self.init, self.world.now)
        return self.server.data_to_send()

    def response(self) -> bytes:
        self.client.receive_packet(self.challenge(), self.world.now)
        event = self.client.next_event()
        assert isinstance(event, PuzzlePosed)
        self.client.solved(solve(event), self.world.now)
        (packet,) = self.client.packets_to_send()
        return packet

    def refusal(self, packet: bytes) -> dict[DropReason, int]:
        """What became of a RESPONSE: the counters, once the server refused it."""
        self.server.receive_data(packet, self.world.now)
        assert self.server.session is None
        close = self.server.data_to_send()
        assert wire.advisory_code(wire.parse(close), close) == ErrorCode.AUTH_FAIL
        counters = self.server.handshake.counters
        return {reason: counters[reason] for reason in DropReason if counters[reason]}

    def sealed(self, change: Callable[[bytes], bytes]) -> bytes:
        """The RESPONSE with other contents, sealed and signed as it should be."""
        packet = self.response()
        keys = self.client._protection()
        assert keys is not None
        header = wire.parse(packet)
        plaintext = keys.open(header.seq, packet[80:])
        assert plaintext is not None
        return keys.sign(header, keys.seal(header.seq, change(plaintext)))


def test_a_response_of_the_dialect_has_no_key_in_it() -> None:
    served = Served()
    packet = served.response()
    assert len(packet) == 80 + 80
    assert served.init[80:112] not in packet
    served.server.receive_data(packet, served.world.now)
    assert served.server.session is not None


def unsolved(plaintext: bytes) -> bytes:
    return b"\xff" * 32 + plaintext[32:]


def unproven(plaintext: bytes) -> bytes:
    return plaintext[:-1] + bytes([plaintext[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unsolved, DropReason.BAD_PUZZLE),
        (unproven, DropReason.BAD_PROOF),
        (lambda plaintext: plaintext + b"x", DropReason.MALFORMED),
    ],
)
def test_a_response_that_does_not_hold(change: Callable[[bytes], bytes], reason: DropReason) -> None:
    served = Served()
    assert served.refusal(served.sealed(change)) == {reason: 1}
    assert served.world.slots.free == 64


@pytest.mark.parametrize(("offset", "reason"), [(48, DropReason.AUTH_FAIL), (20, DropReason.BAD_SESSION_ID)])
def test_a_response_with_a_bit_changed(offset: int, reason: DropReason) -> None:
    served = Served()
    assert served.refusal(flipped(served.response(), offset)) == {reason: 1}


def test_a_response_with_a_wrong_tag() -> None:
    served = Served()
    packet = flipped(served.response(), 159)
    keys = served.client._protection()
    assert keys is not None
    assert served.refusal(keys.sign(wire.parse(packet), packet[80:])) == {DropReason.DECRYPT_FAIL: 1}


def test_a_response_is_bound_to_its_connection() -> None:
    served = Served()
    packet = served.response()
    other = served.world.server()
    other.receive_data(served.init, served.world.now)
    other.data_to_send()
    other.receive_data(packet, served.world.now)
    assert other.session is None
    assert other.handshake.counters[DropReason.BAD_SESSION_ID] == 1


def test_only_the_last_challenge_of_a_connection_can_be_answered() -> None:
    served = Served()
    packet = served.response()
    served.server.receive_data(served.init, served.world.now)
    served.server.data_to_send()
    assert served.refusal(packet) == {DropReason.BAD_SESSION_ID: 1}


def test_a_response_in_time_is_needed() -> None:
    served = Served()
    packet = served.response()
    served.world.now += 31 * SECOND
    assert served.refusal(packet) == {DropReason.STALE_RESPONSE: 1}


def test_low_order_keys_are_refused_at_init() -> None:
    served = Served()
    init = served.init[:80] + bytes(32) + served.init[112:]
    served.server.receive_data(init, served.world.now)
    assert served.server.data_to_send() == b""
    assert served.server.handshake.counters[DropReason.LOW_ORDER_KEY] == 1


def test_a_connection_that_ends_leaves_no_keys_behind() -> None:
    served = Served()
    served.challenge()
    attendant: Any = served.server.handshake._responder  # type: ignore[union-attr]
    keys = attendant._keys
    assert keys.usable
    served.server.lost(served.world.now)
    assert not keys.usable
    assert attendant._keys is None


def test_an_established_session_keeps_its_keys() -> None:
    served = Served()
    served.server.receive_data(served.response(), served.world.now)
    assert served.server.session is not None
    attendant: Any = served.server.handshake._responder  # type: ignore[union-attr]
    attendant.forget()
    assert served.server.session.keys.usable


def test_the_difficulty_rises_with_challenges_that_nobody_answers() -> None:
    served = Served()
    for _ in range(63):
        server = served.world.server()
        server.receive_data(served.init, served.world.now)
        assert server.data_to_send()[80 + 64 : 80 + 66] == (8).to_bytes(2, "big")
    packet = served.response()
    assert served.world.responder.difficulty(served.world.now) == 9
    served.server.receive_data(packet, served.world.now)
    assert served.server.session is not None
    assert served.world.responder.difficulty(served.world.now) == 8


def test_no_randomness_is_no_challenge() -> None:
    served = Served()

    def broken(size: int) -> bytes:
        raise OSError("no entropy")

    served.world.server_core.rng = broken
    assert served.challenge() == b""
    assert served.server.handshake.counters[DropReason.NO_RANDOMNESS] == 1


def test_a_full_node_refuses() -> None:
    served = Served()
    while served.world.slots.take() is not None:
        pass
    close = served.challenge()
    assert wire.advisory_code(wire.parse(close), close) == ErrorCode.OVERLOAD
