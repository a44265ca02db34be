# SPDX-License-Identifier: GPL-2.0-or-later
"""Key replacement over TCP (section 13): both roles, crossing proposals, time limits, the age of keys."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st
from poolref_sealings import Sealings
from poolref_sim import EASY, WALL, Pair, World, data, deliver, easy_pair, seeded
from test_poolref_crypto import LOW_ORDER

from poolref import constants as c
from poolref import crypto, wire
from poolref.config import ConfigPayload, Parameters, Reference
from poolref.constants import HEADER_SIZE, SECOND, ErrorCode, Flag, Role, State, Type
from poolref.counters import DropReason, Outcome, Verdict
from poolref.errors import DecodeError, LocalError, LowOrderKey
from poolref.events import RekeyCompleted, SessionEnded
from poolref.journal import ChangeType
from poolref.keylog import parse_line
from poolref.keys import Keys
from poolref.rekey import ACCEPT, PROPOSE, RekeyPayload, own_wins
from poolref.session import Session
from poolref.settings import Settings
from poolref.wire import Header

REQUIRE_ACK = int(Flag.REQUIRE_ACK)
FAILED = SessionEnded("rekey", ErrorCode.REKEY_FAIL)


@pytest.fixture
def pair() -> Pair:
    return easy_pair()


@pytest.fixture
def sealings(monkeypatch: pytest.MonkeyPatch) -> Sealings:
    return Sealings(monkeypatch)


def packets(session: Session) -> list[bytes]:
    """What ``session`` has to send."""
    return session.packets_to_send()


def type_of(packet: bytes) -> Type:
    return Type(wire.parse(packet).type)


def rekeys(session: Session) -> list[bytes]:
    return [packet for packet in packets(session) if type_of(packet) is Type.REKEY]


def opened(keys: Keys, packet: bytes) -> RekeyPayload:
    """What a REKEY made with ``keys`` says."""
    assert keys.authentic(packet)
    plaintext = keys.open(wire.parse(packet).seq, packet[HEADER_SIZE:])
    assert plaintext is not None
    return RekeyPayload.unpack(plaintext)


def give(pair: Pair, session: Session, packet: bytes) -> Outcome:
    return session.receive_packet(packet, pair.world.now)


def rekey(pair: Pair, side: str = "client") -> None:
    """From beginning to end, until the old keys are gone at both sides."""
    session = pair.c if side == "client" else pair.s
    session.rekeying.start(pair.world.now)
    pair.run()
    for each in (pair.c, pair.s):
        each.send(b"confirmed", pair.world.now)
    pair.run()
    for each in (pair.c, pair.s):
        each.take()


def own_rekey(pair: Pair, session: Session, stage: int, epoch: int, pubkey: bytes) -> bytes:
    """A REKEY of ``session`` that it did not think of itself."""
    return session.protect(Type.REKEY, pair.world.now, RekeyPayload(epoch, stage, pubkey).pack())


def pubkey(number: int = 1) -> bytes:
    return crypto.public_key(bytes([number]) * 32)


def discards(session: Session) -> dict[str, int]:
    return {str(reason): session.counters[reason] for reason in DropReason if session.counters[reason]}


def settled(pair: Pair, epoch: int) -> None:
    """Both sides are at ``epoch`` with the same keys, and remember no others."""
    assert [pair.c.keys.epoch, pair.s.keys.epoch] == [epoch, epoch]
    assert pair.c.keys.session_key == pair.s.keys.session_key
    for session in (pair.c, pair.s):
        assert session.state is State.ESTABLISHED
        assert session.end is None
        assert not session.rekeying.underway
        assert not session.holding
        assert discards(session) == {}


# -- the payload, the keys -------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from([PROPOSE, ACCEPT]), st.binary(min_size=32, max_size=32))
def test_payload_round_trip(epoch: int, stage: int, key: bytes) -> None:
    payload = RekeyPayload(epoch, stage, key)
    packed = payload.pack()
    assert packed == epoch.to_bytes(4, "big") + bytes([stage, 0, 0, 0]) + key
    assert RekeyPayload.unpack(packed) == payload


@given(st.binary(max_size=60))
def test_any_other_plaintext_is_refused(plaintext: bytes) -> None:
    if len(plaintext) == 40 and plaintext[4] in (1, 2) and not any(plaintext[5:8]):
        return
    with pytest.raises(DecodeError):
        RekeyPayload.unpack(plaintext)


@pytest.mark.parametrize(("place", "value"), [(4, 0), (4, 3), (4, 255), (5, 1), (6, 0x80), (7, 0xFF)])
def test_stage_and_zero_bytes(place: int, value: int) -> None:
    good = RekeyPayload(1, PROPOSE, pubkey()).pack()
    with pytest.raises(DecodeError):
        RekeyPayload.unpack(good[:place] + bytes([value]) + good[place + 1 :])


def test_the_lower_key_wins() -> None:
    low, high = bytes(31) + b"\xff", b"\x01" + bytes(31)
    assert own_wins(low, high)
    assert not own_wins(high, low)
    with pytest.raises(ValueError, match="same key"):
        own_wins(low, low)


def test_the_next_keys_come_from_both_secrets() -> None:
    rng = seeded(7)
    old, one, two = rng(32), rng(32), rng(32)
    keys = Keys(old, epoch=4)
    mine = keys.successor(one, crypto.public_key(two))
    theirs = keys.successor(two, crypto.public_key(one))
    assert mine.session_key == theirs.session_key
    exchanged = X25519PrivateKey.from_private_bytes(one).exchange(
        X25519PublicKey.from_public_bytes(crypto.public_key(two))
    )
    shared = HKDF(hashes.SHA256(), 32, bytes(32), b"pool-rekey").derive(exchanged + old)
    assert bytes(mine.shared) == shared
    assert mine.epoch == 5
    assert bytes(keys.shared) == old, "the old ones stay as they are"
    assert mine.nonce(1) == bytes(mine.hmac_key[:4]) + (1).to_bytes(8, "big")


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_no_keys_from_a_point_of_low_order(point: bytes) -> None:
    with pytest.raises(LowOrderKey):
        Keys(bytes(32)).successor(bytes(32), point)


# -- one rekey, step by step ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_rekey_packet_by_packet(pair: Pair, side: str) -> None:
    own, peer = (pair.c, pair.s) if side == "client" else (pair.s, pair.c)
    old = own.keys
    proposer_seq, acceptor_seq = own.next_seq, peer.next_seq
    own.rekeying.start(pair.world.now)
    assert (own.state, peer.state) == (State.REKEYING, State.ESTABLISHED)
    (proposal,) = packets(own)
    said = opened(old, proposal)
    assert (said.epoch, said.stage) == (1, PROPOSE)

    assert give(pair, peer, proposal) is Verdict.ACCEPTED
    (accept,) = packets(peer)
    answer = opened(old, accept)
    assert (answer.epoch, answer.stage) == (1, ACCEPT)
    assert answer.pubkey != said.pubkey
    assert peer.keys.epoch == 1, "the acceptor switches as soon as it has answered"
    assert peer.state is State.ESTABLISHED

    assert give(pair, own, accept) is Verdict.ACCEPTED
    (ack,) = packets(own)
    assert type_of(ack) is Type.ACK
    assert own.keys.authentic(ack)
    assert not old.authentic(ack), "the ACK is the first packet under the new keys"
    assert own.state is State.ESTABLISHED
    assert own.keys.session_key == peer.keys.session_key != old.session_key
    assert give(pair, peer, ack) is Verdict.ACCEPTED
    assert own.next_seq == proposer_seq + 2, "seq runs on"
    assert peer.next_seq == acceptor_seq + 1
    for session in (own, peer):
        session.send(b"after", pair.world.now)
    pair.run()
    assert own.take() is not None
    assert peer.take() is not None
    settled(pair, 1)


def test_what_a_rekey_leaves_behind() -> None:
    lines: list[str] = []
    pair = World(server_settings=EASY, keylog=lines.append).pair()
    rekey(pair)
    rekey(pair, "server")
    settled(pair, 2)
    logged = [parse_line(line) for line in lines]
    assert [entry.epoch for entry in logged if entry is not None] == [0, 0, 1, 1, 2, 2]
    assert logged[-1] is not None
    assert (logged[-1].session_key, logged[-1].hmac_key) == (pair.c.keys.session_key, pair.c.keys.hmac_key)
    for side, session in (("client", pair.c), ("server", pair.s)):
        done = [event for event in pair.events[side] if isinstance(event, RekeyCompleted)]
        assert done == [RekeyCompleted(1), RekeyCompleted(2)]
        entries = [e for e in session.core.journal.entries() if e.change_type == ChangeType.REKEY]
        assert [entry.text for entry in entries] == [f"{session.peer} epoch 1", f"{session.peer} epoch 2"]
        assert session.heartbeats.report(pair.world.now).rekey_count == 2


def test_new_packets_are_held_not_lost(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    proposal = packets(pair.c)
    for number in range(20):
        pair.c.send(bytes([number]), pair.world.now)
    pair.c.send(bytes(5000), pair.world.now)
    pair.c.transmit(Type.JOURNAL, pair.world.now, flags=int(Flag.JOURNAL_SYNC) | REQUIRE_ACK)
    assert packets(pair.c) == []
    assert pair.c.unsent
    assert deliver(pair, proposal[0]) is Verdict.ACCEPTED
    pair.run()
    assert not pair.c.unsent
    received = []
    while (message := pair.s.take()) is not None:
        received.append(message.data)
    assert received == [*(bytes([number]) for number in range(20)), bytes(5000)]


def test_not_more_is_held_than_fits(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    for _ in range(c.HELD_LIMIT):
        pair.c.send(b"x", pair.world.now)
    with pytest.raises(LocalError) as error:
        pair.c.send(b"x", pair.world.now)
    assert error.value.errno == errno.EAGAIN


def test_whoever_proposes_goes_on_receiving_and_acknowledging(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    packets(pair.c)
    assert give(pair, pair.c, data(pair.s, b"under the old keys", pair.world.now)) is Verdict.ACCEPTED
    heartbeat = pair.s.protect(Type.HEARTBEAT, pair.world.now, bytes(44), flags=int(Flag.TELEMETRY))
    assert give(pair, pair.c, heartbeat) is Verdict.ACCEPTED
    assert [type_of(packet) for packet in packets(pair.c)] == [Type.ACK]
    message = pair.c.take()
    assert message is not None
    assert message.data == b"under the old keys"


def test_a_second_start_changes_nothing(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    pair.c.rekeying.start(pair.world.now)
    assert len(packets(pair.c)) == 1
    rekeyed = easy_pair()
    rekeyed.c.rekeying.start(rekeyed.world.now)
    rekeyed.run()
    rekeyed.c.rekeying.start(rekeyed.world.now)
    assert packets(rekeyed.c) == [], "the peer has not shown the new keys yet"


def test_no_rekey_after_the_end_or_the_last_epoch(pair: Pair) -> None:
    pair.c.keys.epoch = 2**32 - 1
    pair.c.rekeying.start(pair.world.now)
    assert packets(pair.c) == []
    assert pair.c.state is State.ESTABLISHED
    pair.c.close(pair.world.now)
    with pytest.raises(LocalError) as error:
        pair.c.rekeying.start(pair.world.now)
    assert error.value.errno == errno.ENOTCONN


# -- the old receive keys (RK-04) ------------------------------------------------------------------------


def accepted(pair: Pair) -> tuple[Keys, bytes]:
    """The server has accepted; the old keys, and its accept, which is still on its way."""
    old = pair.c.keys
    pair.c.rekeying.start(pair.world.now)
    assert deliver(pair, packets(pair.c)[0]) is Verdict.ACCEPTED
    (accept,) = packets(pair.s)
    return old, accept


def test_old_keys_open_until_the_first_packet_under_the_new_ones(pair: Pair) -> None:
    old, accept = accepted(pair)
    assert deliver(pair, data(pair.c, b"before it heard", pair.world.now)) is Verdict.ACCEPTED
    assert give(pair, pair.c, accept) is Verdict.ACCEPTED
    (ack,) = packets(pair.c)
    assert pair.s.rekeying.underway
    late = old.packet(
        Type.DATA, REQUIRE_ACK, pair.c.next_seq, pair.c.ack, pair.c.session_id, 0, 0, b"too late"
    )
    assert deliver(pair, ack) is Verdict.ACCEPTED
    assert not pair.s.rekeying.underway
    assert deliver(pair, late) is DropReason.AUTH_FAIL
    assert pair.s.end == SessionEnded("protection", ErrorCode.AUTH_FAIL), "E-51"


@pytest.mark.parametrize("forge", [lambda keys: Keys(bytes(32)), lambda keys: keys])
def test_a_forged_packet_confirms_nothing(pair: Pair, forge: Callable[[Keys], Keys]) -> None:
    """Neither one with a bad hmac nor an authentic replay, so that the old keys stay."""
    accepted(pair)
    keys = forge(pair.s.keys)
    replayed = keys.packet(Type.ACK, 0, pair.s.window.highest, 0, pair.s.session_id, 0, 0, b"")
    outcome = deliver(pair, replayed)
    assert outcome is (DropReason.REPLAY if keys is pair.s.keys else DropReason.AUTH_FAIL)
    assert pair.s.rekeying.underway is (pair.s.end is None)


def test_60_s_without_the_peers_new_keys_end_the_session(pair: Pair) -> None:
    accepted(pair)
    start = pair.world.now
    while pair.s.end is None:
        due = pair.s.next_timer()
        assert due is not None
        pair.world.now = due
        if due - start < 60 * SECOND:  # it lives, but goes on with the old keys
            packet = pair.c.protect(Type.ACK, due)
            assert deliver(pair, packet) is Verdict.ACCEPTED
        pair.s.handle_timer(due)
    assert pair.world.now == start + 60 * SECOND
    assert pair.s.end == FAILED
    assert pair.s.rekeying.due == 1 << 63
    last = packets(pair.s)[-1]
    assert type_of(last) is Type.CLOSE


def test_the_proposer_too_waits_60_s_for_the_new_keys(pair: Pair) -> None:
    old, accept = accepted(pair)
    assert give(pair, pair.c, accept) is Verdict.ACCEPTED
    start = pair.world.now
    pair.world.now = start + 60 * SECOND - 1
    packet = old.packet(Type.ACK, 0, pair.s.next_seq, 0, pair.s.session_id, 0, 0, b"")
    assert give(pair, pair.c, packet) is Verdict.ACCEPTED
    pair.c.handle_timer(pair.world.now)
    assert pair.c.end is None
    pair.c.handle_timer(start + 60 * SECOND)
    assert pair.c.end == FAILED


# -- a proposal that nobody accepts (RK-05, C05) ---------------------------------------------------------


def test_a_proposal_is_repeated_then_the_session_ends(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    start = pair.world.now
    seen = []
    while pair.c.end is None:
        for packet in packets(pair.c):
            if type_of(packet) is Type.REKEY:
                seen.append((pair.world.now - start, wire.parse(packet).seq, opened(pair.c.keys, packet)))
        due = pair.c.next_timer()
        assert due is not None
        pair.world.now = due
        pair.c.receive_packet(pair.s.protect(Type.ACK, due), due)
        pair.c.handle_timer(due)
    assert pair.world.now == start + 60 * SECOND
    assert [at // SECOND for at, _, _ in seen] == [0, 5, 10, 20]
    assert len({seq for _, seq, _ in seen}) == 4
    assert len({payload for _, _, payload in seen}) == 1
    assert pair.c.end == FAILED
    close = packets(pair.c)[-1]
    assert type_of(close) is Type.CLOSE
    assert deliver(pair, close) is Verdict.CLOSED
    assert pair.s.end == SessionEnded("closed", ErrorCode.REKEY_FAIL)
    errors = [e.text for e in pair.c.core.journal.entries() if e.change_type == ChangeType.ERROR]
    assert errors == [f"0x07 {pair.c.peer} rekey"]


def test_the_accept_of_a_repeat_is_as_good(pair: Pair) -> None:
    pair.advance(3 * SECOND)
    pair.c.rekeying.start(pair.world.now)
    packets(pair.c)  # lost by a man in the middle
    pair.advance(5 * SECOND)
    assert pair.c.keys.epoch == pair.s.keys.epoch == 1
    pair.advance(10 * SECOND)
    settled(pair, 1)


def test_a_repeat_of_what_was_accepted_is_ignored(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    (proposal,) = packets(pair.c)
    pair.c.handle_timer(pair.world.now + 5 * SECOND)
    again = rekeys(pair.c)[0]
    assert again != proposal
    assert deliver(pair, proposal) is Verdict.ACCEPTED
    assert deliver(pair, again) is Verdict.ACCEPTED
    assert len(rekeys(pair.s)) == 1, "accepted once"
    assert pair.s.keys.epoch == 1


def test_reading_that_stands_still_makes_no_proposal_fail(pair: Pair) -> None:
    """DATA-04: the accept may wait unread."""
    pair.c.rekeying.start(pair.world.now)
    start = pair.world.now
    pair.c.suspend(start + SECOND)
    packets(pair.c)
    pair.c.handle_timer(start + 50 * SECOND)
    assert rekeys(pair.c) == []
    pair.c.resume(start + 51 * SECOND)
    assert pair.c.next_timer() is not None
    pair.c.handle_timer(start + 55 * SECOND - 1)
    assert rekeys(pair.c) == []
    pair.c.handle_timer(start + 55 * SECOND)
    assert len(rekeys(pair.c)) == 1
    pair.c.receive_packet(pair.s.protect(Type.ACK, 0), start + 100 * SECOND)
    pair.c.rekeying.handle_timer(start + 110 * SECOND - 1)
    assert pair.c.end is None
    pair.c.rekeying.handle_timer(start + 110 * SECOND)
    assert pair.c.end == FAILED


# -- both at once (RK-03) ---------------------------------------------------------------------------------


class Line:
    """Two established sessions and the packets between them, moved one at a time."""

    def __init__(self, seed: int) -> None:
        self.pair = World(seed, server_settings=EASY).pair()
        self.queues: dict[str, deque[bytes]] = {"c": deque(), "s": deque()}
        self.starts = ["c", "s"]
        self.received: dict[str, list[bytes]] = {"c": [], "s": []}
        self.collect()

    def session(self, side: str) -> Session:
        return self.pair.c if side == "c" else self.pair.s

    def collect(self) -> None:
        for side, queue in self.queues.items():
            queue.extend(packets(self.session(side)))

    @property
    def steps(self) -> list[str]:
        return [f"start {side}" for side in self.starts] + [
            f"deliver {side}" for side, queue in self.queues.items() if queue
        ]

    def do(self, step: str) -> None:
        action, side = step.split()
        session, now = self.session(side), self.pair.world.now
        if action == "start":
            self.starts.remove(side)
            session.rekeying.start(now)
            session.send(b"from " + side.encode(), now)
        else:
            other = "s" if side == "c" else "c"
            outcome = self.session(other).receive_packet(self.queues[side].popleft(), now)
            assert outcome is Verdict.ACCEPTED, step
        self.collect()
        for each in self.received:
            while (message := self.session(each).take()) is not None:
                self.received[each].append(message.data)


def interleavings(seed: int, sealings: Sealings) -> Iterator[tuple[list[str], Line]]:
    """Every order in which two starts and the packets that follow can happen."""
    pending: list[list[str]] = [[]]
    while pending:
        path = pending.pop()
        sealings.plaintexts.clear()  # the same randomness as before
        line = Line(seed)
        for step in path:
            line.do(step)
        while len(line.steps) > 0:
            first, *others = line.steps
            pending.extend([*path, other] for other in others)
            path = [*path, first]
            line.do(first)
        yield path, line


def who_wins(seed: int) -> str:
    """Whose proposal is the lower one when both are made."""
    line = Line(seed)
    for side in ("c", "s"):
        line.do(f"start {side}")
    keys = line.pair.c.keys
    said = {side: opened(keys, queue[0]).pubkey for side, queue in line.queues.items()}
    return min(said, key=lambda side: said[side])


@pytest.mark.parametrize("winner", ["c", "s"])
def test_every_interleaving_of_two_proposals(winner: str, sealings: Sealings) -> None:
    seed = next(seed for seed in range(1, 50) if who_wins(seed) == winner)
    crossed = 0
    paths = 0
    for path, line in interleavings(seed, sealings):
        paths += 1
        pair = line.pair
        assert pair.c.keys.epoch == pair.s.keys.epoch, path
        assert pair.c.keys.session_key == pair.s.keys.session_key, path
        crossed += pair.c.keys.epoch == 1
        assert line.received == {"c": [b"from s"], "s": [b"from c"]}, path
        for session in (pair.c, pair.s):
            assert discards(session) == {}, path
        pair.advance(70 * SECOND)
        settled(pair, pair.c.keys.epoch)
    assert paths > 40
    assert 0 < crossed < paths, "in some the second start comes when the first rekey is over"
    assert sealings.reused == 0


def crossing(winner: str) -> tuple[Pair, bytes, bytes]:
    """Both have proposed; the client's and the server's proposal."""
    pair = World(next(seed for seed in range(1, 50) if who_wins(seed) == winner), server_settings=EASY).pair()
    packets(pair.c), packets(pair.s)
    for session in (pair.c, pair.s):
        session.rekeying.start(pair.world.now)
    return pair, packets(pair.c)[0], packets(pair.s)[0]


def test_the_winner_acks_and_ignores(sealings: Sealings) -> None:
    pair, own, others = crossing("c")
    assert give(pair, pair.c, others) is Verdict.ACCEPTED
    (ack,) = packets(pair.c)
    assert (type_of(ack), wire.parse(ack).ack) == (Type.ACK, wire.parse(others).seq)
    assert pair.c.state is State.REKEYING
    pair.s.handle_timer(pair.world.now + 5 * SECOND)
    assert give(pair, pair.c, rekeys(pair.s)[0]) is Verdict.ACCEPTED
    assert [type_of(packet) for packet in packets(pair.c)] == [Type.ACK], "again"
    assert deliver(pair, own) is Verdict.ACCEPTED
    assert pair.s.keys.epoch == 1
    assert pair.s.state is State.ESTABLISHED
    (accept,) = rekeys(pair.s)
    assert give(pair, pair.c, accept) is Verdict.ACCEPTED
    assert pair.c.keys.session_key == pair.s.keys.session_key


def test_the_loser_repeats_nothing_and_forgets_its_key() -> None:
    pair, own, _others = crossing("c")
    proposal = pair.s.rekeying._own
    assert proposal is not None
    private = proposal.private
    assert any(private)
    assert deliver(pair, own) is Verdict.ACCEPTED
    assert not any(private)
    accept = rekeys(pair.s)
    for seconds in (5, 10, 20):
        pair.s.handle_timer(pair.world.now + seconds * SECOND)
        assert rekeys(pair.s) == []
    assert give(pair, pair.c, accept[0]) is Verdict.ACCEPTED


def test_what_the_loser_held_goes_out_under_the_new_keys() -> None:
    pair, own, _others = crossing("c")
    pair.s.send(b"held", pair.world.now)
    assert packets(pair.s) == []
    assert deliver(pair, own) is Verdict.ACCEPTED
    accept, message = packets(pair.s)
    assert pair.s.keys.authentic(message)
    assert not pair.c.keys.authentic(message)
    assert give(pair, pair.c, accept) is Verdict.ACCEPTED
    assert give(pair, pair.c, message) is Verdict.ACCEPTED


def test_equal_keys_close_with_0x07(pair: Pair) -> None:
    pair.s.rekeying.start(pair.world.now)
    said = opened(pair.s.keys, packets(pair.s)[0])
    assert deliver(pair, own_rekey(pair, pair.c, PROPOSE, 1, said.pubkey)) is DropReason.MALFORMED
    assert pair.s.end == FAILED


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
@pytest.mark.parametrize("stage", [PROPOSE, ACCEPT])
def test_low_order_closes_with_0x07(pair: Pair, stage: int, point: bytes) -> None:
    if stage == ACCEPT:
        pair.s.rekeying.start(pair.world.now)
        packets(pair.s)
    outcome = deliver(pair, own_rekey(pair, pair.c, stage, 1, point))
    assert outcome is DropReason.LOW_ORDER_KEY
    assert discards(pair.s) == {"low_order_key": 1}
    assert pair.s.end == FAILED
    assert [type_of(packet) for packet in packets(pair.s)] == [Type.CLOSE]


@pytest.mark.parametrize("epoch", [0, 2, 3, 2**32 - 1])
@pytest.mark.parametrize("stage", [PROPOSE, ACCEPT])
@pytest.mark.parametrize("proposing", [False, True])
def test_a_wrong_epoch_is_malformed(pair: Pair, proposing: bool, stage: int, epoch: int) -> None:
    if proposing:
        pair.s.rekeying.start(pair.world.now)
    state = pair.s.state
    assert deliver(pair, own_rekey(pair, pair.c, stage, epoch, pubkey())) is DropReason.MALFORMED
    assert pair.s.state is state
    assert pair.s.keys.epoch == 0
    assert pair.s.end is None


def test_an_accept_without_a_proposal_is_malformed(pair: Pair) -> None:
    accept = own_rekey(pair, pair.c, ACCEPT, 1, pubkey())
    assert deliver(pair, accept) is DropReason.MALFORMED
    rekey(pair)
    again = own_rekey(pair, pair.c, ACCEPT, 1, pubkey())
    assert deliver(pair, again) is DropReason.MALFORMED


def test_another_proposal_in_the_same_epoch_is_malformed(pair: Pair) -> None:
    assert deliver(pair, own_rekey(pair, pair.c, PROPOSE, 1, pubkey(1))) is Verdict.ACCEPTED
    assert deliver(pair, own_rekey(pair, pair.c, PROPOSE, 1, pubkey(2))) is DropReason.MALFORMED
    assert pair.s.keys.epoch == 1
    assert len(rekeys(pair.s)) == 1


def test_what_was_accepted_in_an_earlier_epoch_is_malformed(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    proposal = pair.c.rekeying._own
    assert proposal is not None
    pair.run()
    rekey(pair, "server")
    assert pair.s.keys.epoch >= 1
    rekey(pair, "server")
    again = pair.c.protect(Type.REKEY, pair.world.now, proposal.payload.pack())
    assert deliver(pair, again) is DropReason.MALFORMED


@pytest.mark.parametrize("size", [0, 1, 39, 41])
def test_a_wrong_size_is_malformed(pair: Pair, size: int) -> None:
    plaintext = RekeyPayload(1, PROPOSE, pubkey()).pack().ljust(41, b"\0")[:size]
    assert deliver(pair, pair.c.protect(Type.REKEY, 0, plaintext)) is DropReason.MALFORMED
    assert pair.s.keys.epoch == 0


# -- without random bytes ----------------------------------------------------------------------------------


def test_nothing_is_proposed_without_random_bytes(pair: Pair) -> None:
    good, pair.c.core.rng = pair.c.core.rng, lambda size: b""
    pair.c.rekeying.start(pair.world.now)
    assert packets(pair.c) == []
    assert pair.c.state is State.ESTABLISHED
    assert pair.c.counters[DropReason.NO_RANDOMNESS] == 1
    pair.c.send(b"nothing is held", pair.world.now)
    assert len(packets(pair.c)) == 1
    pair.c.core.rng = good
    pair.c.rekeying.start(pair.world.now)
    assert len(rekeys(pair.c)) == 1


def test_a_proposal_waits_until_there_are_random_bytes(pair: Pair) -> None:
    good, pair.s.core.rng = pair.s.core.rng, lambda size: b""
    pair.c.rekeying.start(pair.world.now)
    pair.run()
    pair.advance(3 * SECOND)
    assert pair.s.keys.epoch == 0
    assert pair.s.counters[DropReason.NO_RANDOMNESS] == 4
    pair.s.core.rng = good
    pair.advance(SECOND)
    assert pair.s.keys.epoch == 1
    pair.advance(10 * SECOND)
    assert pair.c.keys.epoch == 1
    assert pair.s.counters[DropReason.MALFORMED] == 0, "a repeat came meanwhile"


# -- the age of a key (RK-01, RK-05) ----------------------------------------------------------------------


def aged(**changes: int) -> Pair:
    settings = replace(EASY, **changes)  # type: ignore[arg-type]
    return World(server_settings=settings, client_settings=replace(settings)).pair()


def test_a_key_is_replaced_in_time() -> None:
    pair = aged(rekey_s=10)
    pair.advance(10 * SECOND - 1)
    assert pair.c.keys.epoch == 0
    pair.advance(1)
    assert pair.c.keys.epoch == pair.s.keys.epoch == 1
    pair.advance(10 * SECOND - 1)
    assert pair.c.keys.epoch == 1
    pair.advance(1)
    assert pair.c.keys.epoch == pair.s.keys.epoch == 2


@pytest.mark.parametrize("sender", ["client", "server"])
def test_a_key_is_replaced_after_so_many_packets_of_both(sender: str) -> None:
    pair = aged(rekey_packets=1024)
    session = pair.c if sender == "client" else pair.s
    first = pair.c.next_seq + pair.s.next_seq
    while pair.c.keys.epoch == 0:
        session.send(b"x", pair.world.now)
        pair.run()
        assert pair.c.next_seq + pair.s.next_seq <= first + 1024 + 20
    # The rekey itself is three packets, five when both proposed; acks may be among the 1024.
    assert first + 1024 <= pair.c.next_seq + pair.s.next_seq
    settled_epochs = {pair.c.keys.epoch, pair.s.keys.epoch}
    assert settled_epochs == {1}
    assert pair.c.end is None


@pytest.mark.parametrize("packets", range(1010, 1030))
def test_the_limit_is_reached_in_the_middle_of_a_rekey(packets: int) -> None:
    """A rekey's own packets count as well: they start no second one."""
    pair = aged(rekey_packets=1024)
    for _ in range(packets):
        pair.c.transmit(Type.ACK, pair.world.now)
    pair.c.rekeying.start(pair.world.now)
    pair.run()
    for session in (pair.c, pair.s):
        session.send(b"x", pair.world.now)
        assert not session.unsent
    pair.run()
    settled(pair, 1)


def test_received_packets_alone_are_enough() -> None:
    pair = aged(rekey_packets=1024)
    for number in range(1023):
        assert deliver(pair, pair.c.protect(Type.ACK, pair.world.now)) is Verdict.ACCEPTED
        assert pair.s.state is State.ESTABLISHED, number
    assert deliver(pair, pair.c.protect(Type.ACK, pair.world.now)) is Verdict.ACCEPTED
    assert pair.s.state is State.REKEYING


def test_a_new_configuration_changes_the_limits(pair: Pair) -> None:
    stirred: list[Session] = []
    pair.c.core.stir = stirred.append
    params = replace(Parameters.of(Settings()), rekey_s=20, rekey_packets=1024)
    payload = ConfigPayload.proposing(params, Reference(0, bytes(32)), 1, 3600 * SECOND, WALL)
    pair.advance(15 * SECOND)
    pair.c.core.configuration.propose(payload, pair.c.configuring, pair.world.now)
    assert pair.c in stirred
    pair.advance(5 * SECOND - 1)
    assert pair.c.keys.epoch == 0
    pair.advance(1)
    assert pair.c.keys.epoch == 1


def test_a_session_that_ended_follows_no_configuration(pair: Pair) -> None:
    stirred: list[Session] = []
    pair.c.core.stir = stirred.append
    params = replace(Parameters.of(Settings()), rekey_s=20)
    payload = ConfigPayload.proposing(params, Reference(0, bytes(32)), 1, 3600 * SECOND, WALL)
    pair.c.close(pair.world.now)
    assert pair.s.core.configuration.propose(payload, pair.s.configuring, pair.world.now) is None
    assert pair.c.core.configuration.propose(payload, pair.s.configuring, pair.world.now) is None
    assert stirred == []


def test_a_key_beyond_a_new_limit_is_replaced_not_fatal(pair: Pair) -> None:
    pair.advance(600 * SECOND)
    params = replace(Parameters.of(Settings()), rekey_s=10)
    payload = ConfigPayload.proposing(params, Reference(0, bytes(32)), 1, 3600 * SECOND, WALL)
    pair.c.core.configuration.propose(payload, pair.c.configuring, pair.world.now)
    pair.advance(SECOND)
    assert pair.c.keys.epoch == 1
    assert pair.c.end is None


def test_120_s_past_its_limit_a_key_ends_the_session() -> None:
    pair = aged(rekey_s=10)
    start = pair.world.now
    for core in (pair.c.core, pair.s.core):
        core.rng = lambda size: b""
    pair.advance(130 * SECOND - 1)
    assert pair.c.end is None
    pair.c.send(b"still", pair.world.now)
    pair.run()
    pair.advance(1)
    assert pair.world.now == start + 130 * SECOND
    assert FAILED in (pair.c.end, pair.s.end)


def test_a_key_past_its_limit_is_replaced_as_soon_as_possible() -> None:
    pair = aged(rekey_s=10)
    good = [core.rng for core in (pair.c.core, pair.s.core)]
    for core in (pair.c.core, pair.s.core):
        core.rng = lambda size: b""
    pair.advance(15 * SECOND)
    assert pair.c.keys.epoch == 0
    pair.c.core.rng, pair.s.core.rng = good
    pair.advance(SECOND)
    assert pair.c.keys.epoch == pair.s.keys.epoch == 1


def test_so_many_packets_past_its_limit_a_key_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    assert c.REKEY_GRACE_PACKETS == 2**20
    monkeypatch.setattr(c, "REKEY_GRACE_PACKETS", 100)
    pair = aged(rekey_packets=1024)
    pair.c.core.rng = lambda size: b""
    sent = 0
    while pair.c.end is None:
        try:
            pair.c.send(b"x", pair.world.now)
        except LocalError:
            break
        sent += 1
    assert pair.c.end == FAILED
    assert 1024 + 100 - 5 <= sent <= 1024 + 100
    types = [type_of(packet) for packet in packets(pair.c)]
    assert types[-1] is Type.CLOSE, "no data after it"
    assert pair.c.counters[DropReason.NO_RANDOMNESS] == 1, "not tried again for each packet"


# -- key material ------------------------------------------------------------------------------------------


def secrets(keys: Keys) -> list[bytearray]:
    return [keys.shared, keys.session_key, keys.hmac_key, keys.seq_key, keys.k_int, keys.k_int_mac]


def test_old_keys_and_private_keys_are_overwritten(pair: Pair) -> None:
    old = {"c": pair.c.keys, "s": pair.s.keys}
    pair.c.rekeying.start(pair.world.now)
    proposal = pair.c.rekeying._own
    assert proposal is not None
    private = proposal.private
    pair.run()
    assert not any(private)
    assert not old["s"].usable, "the client has used the new keys"
    assert old["c"].usable, "the server has not"
    pair.s.send(b"x", pair.world.now)
    pair.run()
    for keys in old.values():
        assert not keys.usable
        assert all(not any(secret) for secret in secrets(keys))


@pytest.mark.parametrize("moment", ["proposed", "accepted", "completed"])
def test_the_end_overwrites_everything(pair: Pair, moment: str) -> None:
    known = [pair.c.keys, pair.s.keys]
    pair.c.rekeying.start(pair.world.now)
    proposal = pair.c.rekeying._own
    assert proposal is not None
    private = proposal.private
    if moment != "proposed":
        deliver(pair, packets(pair.c)[0])
        known.append(pair.s.keys)
    if moment == "completed":
        give(pair, pair.c, packets(pair.s)[0])
        known.append(pair.c.keys)
    for session in (pair.c, pair.s):
        session.close(pair.world.now)
        assert not session.holding
        assert session.rekeying.due == session.rekeying.age.due == 1 << 63
    assert not any(private)
    for keys in known:
        assert not keys.usable
        assert all(not any(secret) for secret in secrets(keys))


def test_the_end_forgets_a_proposal_that_waits(pair: Pair) -> None:
    pair.s.core.rng = lambda size: b""
    pair.c.rekeying.start(pair.world.now)
    pair.run()
    assert pair.s.rekeying.underway
    pair.s.close(pair.world.now)
    assert not pair.s.rekeying.underway


def test_private_keys_are_fresh() -> None:
    pair = easy_pair()
    seen = set()
    for _ in range(5):
        pair.c.rekeying.start(pair.world.now)
        proposal = pair.c.rekeying._own
        assert proposal is not None
        seen.add(bytes(proposal.private))
        seen.add(proposal.payload.pubkey)
        rekey(pair)
    assert len(seen) == 10
    settled(pair, 5)


# -- long runs -----------------------------------------------------------------------------------------------


def test_an_hour_with_a_rekey_every_10_seconds_under_traffic(sealings: Sealings) -> None:
    pair = aged(rekey_s=10, integrity_s=5)
    sent: dict[str, list[bytes]] = {"c": [], "s": []}
    received: dict[str, list[bytes]] = {"c": [], "s": []}
    rng = seeded(3)
    for second in range(3600):
        for side, session in (("c", pair.c), ("s", pair.s)):
            message = rng(1 + rng(1)[0]) if second % 60 else rng(3000)
            sent[side].append(message)
            session.send(message, pair.world.now)
        pair.advance(SECOND)
        for side, session in (("c", pair.s), ("s", pair.c)):
            while (message_in := session.take()) is not None:
                received[side].append(message_in.data)
    assert received == sent
    assert pair.c.keys.epoch == pair.s.keys.epoch == 360
    assert sealings.reused == 0
    assert len({key for key, _ in sealings.plaintexts}) > 360
    for session in (pair.c, pair.s):
        assert discards(session) == {}
        assert not session.untrusted
        assert session.vigil.answered > 600


def test_nonces_begin_with_the_hmac_key_of_their_epoch(pair: Pair, sealings: Sealings) -> None:
    rekey(pair)
    pair.c.send(b"x", pair.world.now)
    sealed = [
        nonce for (key, nonce), _ in sealings.plaintexts.items() if key == bytes(pair.c.keys.session_key)
    ]
    assert sealed
    assert {nonce[:4] for nonce in sealed} == {bytes(pair.c.keys.hmac_key[:4])}
    seqs = [int.from_bytes(nonce[4:], "big") for nonce in sealed]
    low, high = c.SEQ_RANGE[Role.CLIENT]
    assert any(low <= seq < high for seq in seqs)


def test_a_tampered_rekey_ends_the_session_and_changes_no_key(pair: Pair) -> None:
    pair.c.rekeying.start(pair.world.now)
    (proposal,) = packets(pair.c)
    header = wire.parse(proposal)
    forged = pair.c.keys.sign(
        Header(header.type, header.flags, header.seq, header.ack, header.session_id),
        proposal[HEADER_SIZE:-1] + bytes([proposal[-1] ^ 1]),
    )
    assert deliver(pair, forged) is DropReason.DECRYPT_FAIL
    assert pair.s.keys.epoch == 0
