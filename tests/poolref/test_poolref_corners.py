# SPDX-License-Identifier: GPL-2.0-or-later
"""What rarely happens: the last seq, an end in the middle of something, a call too many."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from poolref_raw_sim import CLIENT, RawPair, raw_pair
from poolref_sim import EASY, START, Pair, World, deliver, easy_pair, flipped, solve

from poolref import constants as c
from poolref import crypto, wire
from poolref.config import Configuration, Parameters
from poolref.constants import MILLISECOND, SECOND, ErrorCode, Flag, State, Type
from poolref.core import Peer
from poolref.counters import DropReason
from poolref.errors import LocalError
from poolref.events import ConfigRejected, HandshakeFailed, PuzzlePosed, SessionEnded
from poolref.journal import ChangeType
from poolref.keys import Keys
from poolref.part import NEVER
from poolref.peers import Source
from poolref.rekey import PROPOSE, RekeyPayload
from poolref.settings import Settings
from poolref.wire import Header

PARAMS = Parameters.of(Settings())


def last_seq(pair: Pair, side: str = "client") -> Any:
    """A session whose next packet would take the seq that is kept for a CLOSE (E-10)."""
    session = pair.c if side == "client" else pair.s
    session.next_seq = session._seq_limit - 1
    return session


class TestTheLastSeq:
    """Whatever wants to send then ends the session with CLOSE 0x03, and leaves nothing behind."""

    @pytest.mark.parametrize(
        "send",
        [
            lambda session, now: session.transmit(Type.DATA, now, b"x"),
            lambda session, now: session.acknowledge(now),
            lambda session, now: session.heartbeats.handle_timer(now),
            lambda session, now: session.vigil.challenge_now(now),
            lambda session, now: session.discovery.handle_timer(now),
            lambda session, now: session.replication.request(now),
            lambda session, now: session.configuring.propose(PARAMS, SECOND, now),
            lambda session, now: session.rekeying.start(now),
        ],
        ids=["data", "ack", "heartbeat", "challenge", "probe", "journal", "config", "rekey"],
    )
    def test_ends_the_session(self, send: Callable[[Any, int], object]) -> None:
        pair = easy_pair()
        session = last_seq(pair)
        send(session, pair.world.now + 2 * SECOND)
        assert session.end is not None
        assert (session.end.cause, session.end.code) == ("sequence_exhausted", ErrorCode.SEQ_INVALID)
        assert not session.keys.usable
        assert all(part.due == NEVER for part in session.parts)
        pair.run()
        assert pair.s.end is not None
        assert (pair.s.end.cause, pair.s.end.code) == ("closed", ErrorCode.SEQ_INVALID)

    def test_an_open_proposal_is_told_of(self) -> None:
        pair = easy_pair()
        last_seq(pair).configuring.propose(PARAMS, SECOND, pair.world.now)
        pair.run()
        assert [event for event in pair.events["client"] if isinstance(event, ConfigRejected)] == [
            ConfigRejected(1, "the session ended")
        ]

    def test_an_exchange_stops(self) -> None:
        pair = easy_pair()
        session = last_seq(pair)
        other = Peer(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 77]), 9253)
        session.core.peers.see(other, bytes(32), Source.ANNOUNCE, pair.world.now)
        session.exchange.send_now(pair.world.now)
        assert session.end is not None
        assert session.exchange.due == NEVER

    def test_a_proposal_of_new_keys_is_not_accepted_any_more(self) -> None:
        pair = easy_pair()
        session = last_seq(pair, "server")
        made: list[Keys] = []
        successor = Keys.successor

        def watched(keys: Keys, *args: bytes) -> Keys:
            made.append(successor(keys, *args))
            return made[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Keys, "successor", watched)
            proposal = RekeyPayload(1, PROPOSE, crypto.public_key(bytes(31) + b"p"))
            deliver(pair, pair.c.protect(Type.REKEY, pair.world.now, proposal.pack()))
        assert session.end is not None
        assert [keys.usable for keys in made] == [False]

    def test_not_even_a_close_is_left(self) -> None:
        pair = easy_pair()
        session = last_seq(pair)
        session.next_seq += 1
        session.close(pair.world.now)
        assert session.end == SessionEnded("local", None)
        assert session.packets_to_send() == []


class TestTheLastSeqOverRaw:
    @staticmethod
    def session() -> tuple[RawPair, Any]:
        pair = raw_pair()
        pair.c.next_seq = pair.c._seq_limit - 1
        return pair, pair.c

    def test_an_answer_to_a_configuration_ends_the_session(self) -> None:
        pair, session = self.session()
        session.acknowledge(pair.net.now, flags=int(Flag.CONFIG_LOCKED))
        assert session.state is State.CLOSING
        assert pair.net.of(CLIENT) == []
        pair.run(6 * SECOND)  # so far ahead its CLOSE is outside of the peer's window
        assert session.end == SessionEnded("sequence_exhausted", ErrorCode.SEQ_INVALID)
        assert pair.net.of(CLIENT, Type.CLOSE)
        assert not any(flight.header.flags & Flag.CONFIG_LOCKED for flight in pair.net.of(CLIENT))

    def test_not_even_a_close_is_left(self) -> None:
        pair, session = self.session()
        session.next_seq += 1
        session.close(pair.net.now)
        assert session.end == SessionEnded("local", None)
        assert pair.server.sessions[0].end is None


class TestCallsTooMany:
    def test_a_session_ends_once(self) -> None:
        pair = easy_pair()
        for _ in range(2):
            pair.c.close(pair.world.now)
            pair.c.close_with(pair.world.now, "protection", ErrorCode.AUTH_FAIL)
        pair.run()
        assert [event for event in pair.events["client"] if isinstance(event, SessionEnded)] == [
            SessionEnded("local", None)
        ]
        assert pair.c.counters["sessions_ended"] == 1

    def test_so_does_one_over_raw_that_is_being_closed(self) -> None:
        pair = raw_pair()
        pair.send(pair.c, b"on its way")
        for _ in range(2):
            pair.c.close(pair.net.now)
        pair.c.close_with(pair.net.now, "dead_peer", None)
        pair.c.close_with(pair.net.now, "protection", ErrorCode.AUTH_FAIL)
        pair.run(SECOND)
        assert pair.c.end == SessionEnded("dead_peer", None)
        assert pair.c.counters["sessions_ended"] == 1

    def test_a_timer_too_many_over_raw(self) -> None:
        pair = raw_pair()
        pair.c._parting_due = pair.net.now  # nobody closes
        pair.c.handle_timer(pair.net.now)
        assert pair.c.end is None

    def test_reading_goes_on_that_never_stopped(self) -> None:
        pair = easy_pair()
        due = pair.c.next_timer()
        pair.c.resume(pair.world.now + SECOND)
        assert pair.c.next_timer() == due

    def test_messages_are_given_up_only_when_their_time_has_come(self) -> None:
        pair = easy_pair()
        fragment = (7).to_bytes(4, "big") + bytes(2) + (9).to_bytes(2, "big") + b"part"
        deliver(pair, pair.c.protect(Type.DATA, pair.world.now, fragment, flags=int(Flag.FRAGMENT)))
        due = pair.s.delivery.due
        pair.s.delivery.handle_timer(due - 1)
        assert pair.s.counters[DropReason.FRAG_TIMEOUT] == 0
        assert pair.s.delivery.due == due
        pair.s.delivery.handle_timer(due)
        assert pair.s.counters[DropReason.FRAG_TIMEOUT] == 1

    def test_the_challenge_of_a_session_that_ended(self) -> None:
        pair = easy_pair()
        pair.c.close(pair.world.now)
        pair.c.vigil.rekeyed()
        assert pair.c.vigil.due == NEVER

    def test_an_attempt_fails_once(self) -> None:
        world = World()
        attempt = world.client_handshake()
        for _ in range(2):
            attempt.end_of_stream(world.now)
        events = [attempt.next_event(), attempt.next_event()]
        assert isinstance(events[0], HandshakeFailed)
        assert events[1] is None
        assert world.client_counters["handshakes_failed"] == 1

    def test_a_connection_of_the_listener_fails_once(self) -> None:
        world = World()
        server = world.server().handshake
        for _ in range(2):
            server.end_of_stream(world.now)
        assert world.counters["handshakes_failed"] == 1

    def test_nobody_watches(self) -> None:
        configuration = Configuration(PARAMS)
        calls: list[None] = []

        def watcher() -> None:
            calls.append(None)

        configuration.unwatch(watcher)
        configuration.watch(watcher)
        configuration.unwatch(watcher)
        configuration.unwatch(watcher)
        configuration._put(configuration.current)
        assert calls == []


class TestTheListener:
    def test_less_than_a_header(self) -> None:
        world = World()
        server = world.server().handshake
        assert server.receive_packet(bytes(79), world.now) is DropReason.MALFORMED
        assert not server.closing
        assert server.packets_to_send() == []

    def test_a_response_with_a_reserved_bit_is_not_judged(self) -> None:
        """E-05: the header is checked before it is known what the packet is about."""
        world = World(server_settings=EASY)
        pair = Pair(world, world.client(), world.server())
        pair.server.receive_data(pair.client.data_to_send(), world.now)
        pair.client.receive_data(pair.server.data_to_send(), world.now)
        puzzle = pair.client.next_event()
        assert isinstance(puzzle, PuzzlePosed)
        pair.client.handshake.solved(solve(puzzle), world.now)  # type: ignore[union-attr]
        response = pair.client.data_to_send()
        pair.server.receive_data(flipped(response, 1), world.now)
        assert not pair.server.closing
        assert pair.server.data_to_send() == b""
        assert world.counters[DropReason.MALFORMED] == 1
        pair.server.receive_data(response, world.now)
        assert pair.server.session is not None

    def test_a_secret_that_nobody_asked_for_is_overwritten(self) -> None:
        world = World()
        responder = world.responder
        responder.handle_timer(START + 300 * SECOND)
        previous = responder._previous
        assert previous is not None
        responder.handle_timer(START + 600 * SECOND)  # nothing happened in between
        assert not any(previous)
        assert responder._previous is not previous


class TestTools:
    def test_erased_keys_protect_nothing(self) -> None:
        keys = Keys(bytes(32))
        keys.erase()
        for attempt in (
            lambda: keys.protect(Header(Type.DATA), b"x"),
            lambda: keys.sign(Header(Type.ACK), b""),
            lambda: keys.packet(Type.ACK, 0, 1, 0, bytes(16), 0, 0, b""),
            lambda: keys.open(1, bytes(17)),
        ):
            with pytest.raises(ValueError, match="erased"):
                attempt()
        assert not keys.authentic(bytes(80))

    def test_a_field_that_does_not_exist(self) -> None:
        with pytest.raises(KeyError, match=r"header\.nothing"):
            wire.offset_of("header", "nothing")

    def test_a_cipher_that_computes_something_else(self, monkeypatch: pytest.MonkeyPatch) -> None:
        right = crypto.ChaCha20Poly1305
        monkeypatch.setattr(crypto, "ChaCha20Poly1305", lambda key: right(bytes(32)))
        with pytest.raises(crypto.MissingPrimitive, match="ChaCha20-Poly1305"):
            crypto.self_test()


def test_what_ends_for_another_reason_than_its_users_wish_is_journalled_with_its_code() -> None:
    for pair, now in ((easy_pair(), START), (raw_pair(), 0)):
        now = pair.world.now if isinstance(pair, Pair) else pair.net.now
        pair.c.close_with(now, "rekey", ErrorCode.REKEY_FAIL)
        errors = [e.text for e in pair.c.core.journal.entries() if e.change_type == ChangeType.ERROR]
        assert [text[:4] for text in errors] == ["0x07"]


def test_local_errors_have_their_errno() -> None:
    pair = easy_pair()
    pair.c.close(pair.world.now)
    with pytest.raises(LocalError) as caught:
        pair.c.vigil.challenge_now(pair.world.now)
    assert caught.value.errno == errno.ENOTCONN
    assert c.ACK_DELAY < 50 * MILLISECOND
