# SPDX-License-Identifier: GPL-2.0-or-later
"""Key replacement over raw IP (RK-02, RK-04): whatever is lost, late or doubled, and nothing in flight when
keys change.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from poolref_raw_sim import EASY, LATENCY, Fate, Flight, RawPair, Weather, raw_pair, received, sound
from poolref_sealings import Sealings

from poolref import constants as c
from poolref.config import Parameters
from poolref.constants import HEADER_SIZE, MILLISECOND, SECOND, ErrorCode, Flag, State, Type
from poolref.counters import DropReason, Verdict
from poolref.events import ConfigAccepted, ConfigRolledBack, RekeyCompleted, SessionEnded
from poolref.keys import Keys
from poolref.raw_session import RawSession
from poolref.rekey import ACCEPT, PROPOSE, RekeyPayload
from poolref.settings import Settings
from poolref.states import Action

FAILED = SessionEnded("rekey", ErrorCode.REKEY_FAIL)
HARMLESS = {DropReason.DUPLICATE, DropReason.UNSOLICITED}
"""The latter for the answer to an MTU probe, which waited for the new keys."""


@pytest.fixture
def sealings(monkeypatch: pytest.MonkeyPatch) -> Sealings:
    return Sealings(monkeypatch)


def discards(session: RawSession) -> set[DropReason]:
    return {reason for reason in DropReason if session.counters[reason]}


def settled(pair: RawPair, epoch: int) -> None:
    """Both sides are at ``epoch`` with the same keys, and remember no others."""
    assert [pair.c.keys.epoch, pair.s.keys.epoch] == [epoch, epoch]
    assert pair.c.keys.session_key == pair.s.keys.session_key
    for session in (pair.c, pair.s):
        assert session.end is None
        assert session.state is State.ESTABLISHED
        assert not session.rekeying.underway
        assert not session.holding
        assert discards(session) <= HARMLESS


def start(pair: RawPair, session: RawSession) -> None:
    session.rekeying.start(pair.net.now)
    pair.flush()


def said(keys: Keys, flight: Flight) -> RekeyPayload:
    plaintext = keys.open(flight.header.seq, flight.datagram.packet[HEADER_SIZE:])
    assert plaintext is not None
    return RekeyPayload.unpack(plaintext)


def losing(numbers: Iterable[int]) -> Fate:
    """A sound network but for the datagrams with these numbers, which are lost."""
    count = itertools.count()
    lost = set(numbers)
    return lambda flight: [] if next(count) in lost else sound(flight)


def delaying(predicate: Callable[[Flight], bool], delay: int) -> Fate:
    """A sound network but for the first datagram of a kind, which comes ``delay`` ns later."""
    left = [predicate]

    def fate(flight: Flight) -> list[tuple[int, bytes]]:
        if left and left[0](flight):
            left.clear()
            return [(LATENCY + delay, flight.datagram.packet)]
        return sound(flight)

    return fate


# -- one rekey -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_rekey_datagram_by_datagram(side: str) -> None:
    pair = raw_pair()
    own, peer = (pair.c, pair.s) if side == "client" else (pair.s, pair.c)
    old = peer.keys
    seq, peer_seq = own.next_seq, peer.next_seq
    start(pair, own)
    assert own.state is State.REKEYING
    own.send(b"held", pair.net.now)
    pair.run(LATENCY)
    assert peer.keys is old, "the acceptor stays with the old keys"
    assert peer.rekeying.silent
    peer.send(b"held as well", pair.net.now)
    pair.run(LATENCY)
    assert own.keys.epoch == 1
    pair.run(LATENCY)
    assert peer.keys.epoch == 1
    pair.run(SECOND)
    proposal, accept, ack, message, answer = pair.net.sent[:5]
    assert [f.type for f in pair.net.sent[:5]] == [Type.REKEY, Type.REKEY, Type.ACK, Type.DATA, Type.DATA]
    assert said(old, proposal).stage == PROPOSE
    assert said(old, accept).stage == ACCEPT
    assert old.authentic(accept.datagram.packet)
    for flight in (ack, message, answer):
        assert own.keys.authentic(flight.datagram.packet)
    assert (ack.header.seq, ack.header.ack) == (seq, peer_seq), "an ACK without a seq of its own"
    assert (message.header.seq, answer.header.seq) == (seq + 1, peer_seq + 1)
    assert received(peer) == [b"held"]
    assert received(own) == [b"held as well"]
    pair.run(3 * SECOND)
    settled(pair, 1)
    for node in (pair.client, pair.server):
        assert [event for event in node.events if isinstance(event, RekeyCompleted)] == [RekeyCompleted(1)]


def test_a_proposal_waits_until_nothing_is_in_flight() -> None:
    pair = raw_pair()
    pair.send(pair.c, b"in flight")
    start(pair, pair.c)
    assert pair.c.state is State.ESTABLISHED
    assert pair.c.holding
    pair.c.send(b"held", pair.net.now)
    assert [flight.type for flight in pair.net.sent] == [Type.DATA]
    pair.run(LATENCY + c.ACK_DELAY + LATENCY)
    assert pair.c.state is State.REKEYING
    pair.run(3 * SECOND)
    assert received(pair.s) == [b"in flight", b"held"]
    settled(pair, 1)


def test_an_accept_waits_until_nothing_is_in_flight() -> None:
    pair = raw_pair()
    fate = delaying(lambda flight: flight.type is Type.DATA, 300 * MILLISECOND)
    pair.net.fate = fate
    pair.send(pair.s, b"late")
    start(pair, pair.c)
    pair.run(LATENCY)
    pair.s.send(b"held", pair.net.now)
    assert pair.s.holding
    assert pair.s.outstanding
    pair.run(200 * MILLISECOND)
    assert not pair.s.rekeying.silent, "nothing was accepted yet"
    pair.run(3 * SECOND)
    assert received(pair.c) == [b"late", b"held"]
    settled(pair, 1)


def test_between_accept_and_new_keys_only_acks_go_out() -> None:
    """RK-04.  The proposer is not heard for a while: all that it says under the new keys is lost."""
    pair = raw_pair()
    start(pair, pair.c)
    pair.run(LATENCY)
    assert pair.s.rekeying.silent
    old = pair.s.keys
    pair.net.fate = lambda flight: [] if flight.source == pair.client.address else sound(flight)
    pair.net.sent.clear()
    pair.s.send(b"x", pair.net.now)
    pair.s.heartbeats.handle_timer(pair.net.now)
    pair.s.vigil.challenge_now(pair.net.now)
    pair.s.discovery.probe_now(pair.net.now)
    pair.run(20 * SECOND)
    from_server = pair.net.of(pair.server.address)
    resent = [flight for flight in from_server if flight.type is Type.REKEY]
    assert len(resent) == 4
    assert len({flight.datagram.packet for flight in resent}) == 1
    for flight in from_server:  # otherwise ACKs that take no seq
        assert flight in resent or (flight.type, flight.header.seq) == (Type.ACK, resent[0].header.seq)
    assert all(old.authentic(flight.datagram.packet) for flight in from_server)
    pair.net.fate = sound
    pair.run(15 * SECOND)
    settled(pair, 1)
    assert received(pair.s) == []
    assert received(pair.c) == [b"x"]


def test_the_loser_is_no_proposer_any_more() -> None:
    """It accepts when its own proposal is acknowledged."""
    pair = raw_pair()
    for session in (pair.c, pair.s):
        session.rekeying.start(pair.net.now)
    assert pair.c.state is pair.s.state is State.REKEYING
    pair.run(LATENCY)
    assert {pair.c.state, pair.s.state} == {State.REKEYING, State.ESTABLISHED}
    loser = pair.c if pair.c.state is State.ESTABLISHED else pair.s
    assert loser.outstanding
    assert loser.holding
    pair.run(4 * SECOND)
    settled(pair, 1)


# -- losses ------------------------------------------------------------------------------------------------

STARTS = {"client": "c", "server": "s", "both": "cs", "both, one later": "c s"}


def exchange(pair: RawPair, starts: str) -> None:
    """A rekey while both sides send; afterwards all is as it should be."""
    sent: dict[str, list[bytes]] = {"c": [], "s": []}
    sides = {"c": pair.c, "s": pair.s}
    for moment in range(40):
        for name, session in sides.items():
            if name in starts and moment == (3 if starts != "c s" or name == "c" else 4):
                start(pair, session)
            if session.writable and moment < 12:
                message = f"{name} {moment}".encode()
                sent[name].append(message)
                pair.send(session, message)
        pair.run(LATENCY // 2 if moment < 20 else 2 * SECOND)
    assert received(pair.s) == sent["c"]
    assert received(pair.c) == sent["s"]
    settled(pair, 1)


def datagrams(starts: str) -> int:
    """How many there are until the rekey is through in any case."""
    pair = raw_pair()
    exchange(pair, starts)
    return sum(flight.at < pair.net.sent[0].at + 300 * MILLISECOND for flight in pair.net.sent)


@pytest.mark.parametrize("starts", STARTS.values(), ids=STARTS)
def test_any_datagram_may_be_lost(starts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    total = datagrams(starts)
    assert total > 20
    for number in range(total):
        sealings = Sealings(monkeypatch)
        pair = raw_pair()
        pair.net.fate = losing([number])
        exchange(pair, starts)
        assert sealings.reused == 0


def test_any_three_of_a_rekeys_datagrams_may_be_lost() -> None:
    """Without traffic: the proposal, the accept, the ACK under the new keys and what stands in for them."""
    for lost in itertools.combinations(range(7), 3):
        for starts in ("c", "cs"):
            pair = raw_pair(fate=losing(lost))
            for session in {"c": [pair.c], "cs": [pair.c, pair.s]}[starts]:
                start(pair, session)
            pair.run(40 * SECOND)
            settled(pair, 1)


@pytest.mark.parametrize("seed", range(8))
def test_rekeys_under_traffic_in_bad_weather(seed: int, sealings: Sealings) -> None:
    chance = random.Random(seed)
    settings = replace(EASY, rekey_s=10, integrity_s=3)
    pair = raw_pair(seed + 1, client=settings, server=settings)
    pair.net.fate = Weather(chance, loss=0.1, duplication=0.1, reordering=0.2)
    sent: dict[str, list[bytes]] = {"c": [], "s": []}
    got: dict[str, list[bytes]] = {"c": [], "s": []}
    for _ in range(600):
        for name, session in (("c", pair.c), ("s", pair.s)):
            if chance.random() < 0.5 and session.writable:
                message = chance.randbytes(chance.randrange(1, 700))
                sent[name].append(message)
                pair.send(session, message)
        pair.run(200 * MILLISECOND)
        got["c"] += received(pair.s)
        got["s"] += received(pair.c)
    pair.net.fate = sound
    pair.run(9 * SECOND)
    got["c"] += received(pair.s)
    got["s"] += received(pair.c)
    assert got == sent
    assert pair.c.keys.epoch >= 8
    assert abs(pair.c.keys.epoch - pair.s.keys.epoch) <= 1
    assert sealings.reused == 0
    for session in (pair.c, pair.s):
        assert session.end is None
        assert not session.untrusted
        assert discards(session) <= HARMLESS


# -- old keys ------------------------------------------------------------------------------------------------


def old_packet(pair: RawPair, old: Keys, seq: int, type: Type = Type.ACK, plaintext: bytes = b"") -> bytes:
    """A packet of the client's under other than its present keys."""
    return old.packet(type, 0, seq, pair.c.ack, pair.c.session_id, pair.net.now, 0, plaintext)


def rekeyed(pair: RawPair) -> Keys:
    """The server has just heard the new keys; the old ones, as they were."""
    shared = bytes(pair.c.keys.shared)
    start(pair, pair.c)
    pair.run(3 * LATENCY)
    assert pair.s.keys.epoch == 1
    return Keys(shared)


def test_old_keys_are_kept_for_2_s() -> None:
    pair = raw_pair()
    seq = pair.c.next_seq
    old = rekeyed(pair)
    kept = pair.s.rekeying._previous
    assert kept is not None
    late = old_packet(pair, old, seq)
    pair.run(2 * SECOND - 1)
    pair.s.receive_packet(late, pair.net.now)
    assert DropReason.AUTH_FAIL not in discards(pair.s)
    pair.run(1)
    assert not kept.usable
    assert not any(kept.shared)
    pair.s.receive_packet(late, pair.net.now)
    assert pair.s.counters[DropReason.AUTH_FAIL] == 1
    assert pair.s.end is None, "anybody can send a datagram"


def test_an_old_key_above_the_lowest_new_one_is_refused() -> None:
    pair = raw_pair()
    seq = pair.c.next_seq
    old = rekeyed(pair)
    assert pair.s.receive_packet(old_packet(pair, old, seq), pair.net.now) is not DropReason.AUTH_FAIL
    forged = old_packet(pair, old, seq + 1, Type.DATA, b"forged")
    assert pair.s.receive_packet(forged, pair.net.now) is DropReason.AUTH_FAIL
    assert received(pair.s) == []
    pair.send(pair.c, b"genuine")
    pair.run(SECOND)
    assert received(pair.s) == [b"genuine"]


def test_the_lowest_new_seq_may_come_later() -> None:
    """DATA under the new keys overtakes the ACK that precedes it."""
    pair = raw_pair()
    seq = pair.c.next_seq
    old = Keys(bytes(pair.c.keys.shared))
    start(pair, pair.c)
    pair.c.send(b"x", pair.net.now)
    pair.net.fate = delaying(lambda f: f.type is Type.ACK and f.source == pair.client.address, SECOND)
    pair.run(3 * LATENCY)
    assert pair.s.keys.epoch == 1
    between = old_packet(pair, old, seq + 1)
    assert pair.s.receive_packet(between, pair.net.now) is not DropReason.AUTH_FAIL
    pair.run(SECOND)
    assert pair.s.receive_packet(between, pair.net.now) is DropReason.AUTH_FAIL


def quiet_pair() -> RawPair:
    """Nobody says anything by himself."""
    pair = raw_pair(settle=3 * SECOND)
    for session in (pair.c, pair.s):
        for part in (session.heartbeats, session.discovery):
            part.due = 1 << 62
    return pair


def test_the_old_keys_may_go_while_new_ones_wait_for_the_peer() -> None:
    pair = quiet_pair()
    start(pair, pair.c)
    pair.run(2 * SECOND + 3 * LATENCY)
    assert not pair.s.rekeying.underway
    assert pair.c.rekeying.underway
    start(pair, pair.s)
    pair.run(3 * LATENCY)
    settled_epochs = (pair.c.keys.epoch, pair.s.keys.epoch)
    assert settled_epochs == (2, 2)


def test_a_second_rekey_soon_after_the_first_keeps_its_own_old_keys() -> None:
    """The first new-key packet that the client hears is already the proposal of the next epoch."""
    pair = quiet_pair()
    pair.net.fate = losing([3])  # the server's ACK
    start(pair, pair.c)
    pair.run(2 * SECOND + 3 * LATENCY)
    first = Keys(bytes(pair.s.keys.shared))
    seq = pair.s.next_seq
    start(pair, pair.s)
    pair.run(3 * LATENCY)
    assert (pair.c.keys.epoch, pair.s.keys.epoch) == (2, 2)
    late = first.packet(Type.ACK, 0, seq, pair.s.ack, pair.s.session_id, pair.net.now, 0, b"")
    pair.run(2 * SECOND - 1)
    assert pair.c.receive_packet(late, pair.net.now) is Verdict.ACCEPTED
    pair.run(1)
    assert pair.c.receive_packet(late, pair.net.now) is DropReason.AUTH_FAIL


def test_the_accept_is_acknowledged_again_under_the_new_keys() -> None:
    pair = raw_pair(settle=2 * SECOND)
    start(pair, pair.c)
    pair.net.fate = losing([1])  # after the accept: the ACK
    pair.run(3 * LATENCY)
    assert (pair.c.keys.epoch, pair.s.keys.epoch) == (1, 0)
    pair.run(5 * SECOND)
    settled(pair, 1)
    assert pair.c.counters[DropReason.DUPLICATE] == 1


# -- time limits ------------------------------------------------------------------------------------------


def test_60_s_without_an_accept_end_the_session() -> None:
    """The peer acknowledges the proposal, so that it is not resent, and never accepts."""
    pair = raw_pair()
    pair.s._receivers[Action.REKEY] = lambda header, plaintext, now: Verdict.ACCEPTED
    start(pair, pair.c)
    began = pair.net.now
    pair.run(60 * SECOND - 1)
    assert len(pair.net.of(pair.client.address, Type.REKEY)) == 1
    assert pair.c.end is None
    assert pair.c.state is State.REKEYING
    pair.run(SECOND)
    (close, *_) = pair.net.of(pair.client.address, Type.CLOSE)
    assert close.at == began + 60 * SECOND
    assert pair.c.end == FAILED
    assert pair.s.end == SessionEnded("closed", ErrorCode.REKEY_FAIL)


def test_60_s_after_its_accept_the_acceptor_ends_the_session() -> None:
    pair = raw_pair()
    start(pair, pair.c)
    pair.run(LATENCY)
    accepted = pair.net.now
    shared = bytes(pair.s.keys.shared)
    old = Keys(shared)
    pair.net.fate = lambda flight: [] if flight.source == pair.client.address else sound(flight)
    while pair.s.end is None and pair.s.state is not State.CLOSING:
        pair.run(SECOND)
        # It lives, acknowledges, but under the old keys.
        ack = old.packet(Type.ACK, 0, pair.c.first_seq + 1, pair.s.next_seq - 1, pair.c.session_id, 0, 0, b"")
        pair.s.receive_packet(ack, pair.net.now)
    (close, *_) = pair.net.of(pair.server.address, Type.CLOSE)
    assert close.at == accepted + 60 * SECOND
    assert old.authentic(close.datagram.packet)


# -- configuration meanwhile (E-85) ------------------------------------------------------------------------

CHANGED = replace(Parameters.of(Settings()), heartbeat_s=7)


def test_a_proposal_of_keys_crosses_one_of_a_configuration() -> None:
    """The answer must not wait for the rekey: the rekey waits for it."""
    for lost in range(-1, 8):
        pair = raw_pair(fate=losing([lost]))
        pair.s.configuring.propose(CHANGED, 60 * SECOND, pair.net.now)
        pair.flush()
        start(pair, pair.c)
        pair.run(30 * SECOND)
        assert ConfigAccepted(1) in pair.server.events, lost
        assert pair.c.core.configuration.current.params == CHANGED
        settled(pair, 1)


def test_the_proposer_changes_keys_when_its_answers_are_acknowledged() -> None:
    """Otherwise the answer would be resent under keys that the peer may have forgotten."""
    pair = raw_pair()
    start(pair, pair.c)
    old = pair.c.keys
    pair.c.acknowledge(pair.net.now, ack=pair.c.ack, flags=int(Flag.CONFIG_LOCKED))
    pair.net.fate = lambda flight: [] if flight.header.flags & Flag.CONFIG_LOCKED else sound(flight)
    pair.run(10 * LATENCY)
    assert pair.s.rekeying.silent, "it has accepted"
    assert pair.c.keys is old
    pair.net.fate = sound
    pair.run(5 * SECOND)
    settled(pair, 1)


def test_a_deadline_during_the_acceptors_silence() -> None:
    pair = raw_pair()
    pair.c.configuring.propose(CHANGED, SECOND, pair.net.now)
    pair.run(500 * MILLISECOND)
    assert ConfigAccepted(1) in pair.client.events
    start(pair, pair.c)
    pair.run(LATENCY)
    assert pair.s.rekeying.silent
    pair.net.fate = lambda flight: [] if flight.source == pair.client.address else sound(flight)
    pair.net.sent.clear()
    pair.run(2 * SECOND)
    assert pair.s.core.configuration.tentative is None
    assert not any(flight.header.flags for flight in pair.net.of(pair.server.address, Type.ACK))
    pair.net.fate = sound
    pair.run(10 * SECOND)
    assert ConfigRolledBack(1, "deadline") in pair.client.events
    (ready,) = [f for f in pair.net.of(pair.server.address, Type.ACK) if f.header.flags & Flag.ROLLBACK_READY]
    assert pair.s.keys.authentic(ready.datagram.packet)
    settled(pair, 1)


# -- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("latencies", range(5))
def test_a_close_during_a_rekey_loses_nothing(side: str, latencies: int) -> None:
    pair = raw_pair()
    closing, other = (pair.c, pair.s) if side == "client" else (pair.s, pair.c)
    start(pair, pair.c)
    pair.run(latencies * LATENCY)
    closing.send(b"last words", pair.net.now)
    closing.close(pair.net.now)
    pair.run(4 * SECOND)
    assert received(other) == [b"last words"]
    assert closing.end == SessionEnded("local", None)
    assert other.end == SessionEnded("closed", None)


@pytest.mark.parametrize("latencies", range(5))
def test_the_end_overwrites_every_key(latencies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Keys] = []
    good = Keys.__init__

    def make(self: Keys, *args: object, **kwargs: object) -> None:
        good(self, *args, **kwargs)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Keys, "__init__", make)
    pair = raw_pair()
    start(pair, pair.c)
    proposal = pair.c.rekeying._own
    assert proposal is not None
    pair.run(latencies * LATENCY)
    for session in (pair.c, pair.s):
        session.finish(pair.net.now, "timeout", None)
    assert not any(proposal.private)
    assert len(made) >= 2
    for keys in made:
        assert not keys.usable
        for secret in (keys.shared, keys.session_key, keys.hmac_key, keys.k_int, keys.k_int_mac):
            assert not any(secret)
