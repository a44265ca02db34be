# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration over sessions: what the receiver of a CONFIG answers, keeps and undoes, what the proposer
makes of it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from poolref_sim import EASY, Pair, World, data, deliver, easy_pair

from poolref import wire
from poolref.config import START as NOTHING
from poolref.config import ConfigPayload, Parameters, Reference
from poolref.constants import MILLISECOND, SECOND, Flag, State, Type
from poolref.counters import DropReason, Outcome, Verdict
from poolref.errors import LocalError
from poolref.events import ConfigAccepted, ConfigConfirmed, ConfigRejected, ConfigRolledBack, Event
from poolref.journal import ChangeType, Entry
from poolref.part import NEVER
from poolref.session import Session
from poolref.settings import Settings
from poolref.wire import Header

MINUTE = 60 * SECOND
OTHERS = Parameters(18, 1, 1 << 10, 10, 600, 1000)
MORE = Parameters(19, 2, 1 << 11, 20, 700, 1100)
LOCKED, READY = Flag.CONFIG_LOCKED, Flag.ROLLBACK_READY
CONFIG_EVENTS = ConfigAccepted | ConfigConfirmed | ConfigRejected | ConfigRolledBack


@pytest.fixture
def pair() -> Pair:
    return easy_pair()


def first(params: Parameters = OTHERS, deadline: int = MINUTE, **changes: Any) -> ConfigPayload:
    """The CONFIG for a node that has no configuration yet, but for ``changes``."""
    return replace(ConfigPayload.proposing(params, NOTHING, 1, deadline, 0), **changes)


def config(pair: Pair, payload: ConfigPayload | bytes, flags: int = 0) -> tuple[Outcome, int]:
    """The client sends a CONFIG; what became of it, and the seq it had."""
    plaintext = payload if isinstance(payload, bytes) else payload.pack()
    seq = pair.c.next_seq
    return deliver(pair, pair.c.protect(Type.CONFIG, pair.world.now, plaintext, flags=flags)), seq


def rollback(pair: Pair, plaintext: bytes = b"") -> tuple[Outcome, int]:
    seq = pair.c.next_seq
    return deliver(pair, pair.c.protect(Type.ROLLBACK, pair.world.now, plaintext)), seq


def acks(session: Session) -> list[tuple[int, int]]:
    """``(flags, ack)`` of the ACKs that a session sent since."""
    headers = [wire.parse(packet) for packet in session.packets_to_send()]
    return [(header.flags, header.ack) for header in headers if header.type == Type.ACK]


def in_force(pair: Pair) -> Parameters:
    return pair.s.params


def entries(session: Session, change_type: ChangeType) -> list[Entry]:
    return [entry for entry in session.core.journal.entries() if entry.change_type == change_type]


def told(pair: Pair, side: str = "client") -> list[Event]:
    """The events about configurations, of a pair that was run."""
    return [event for event in pair.events[side] if isinstance(event, CONFIG_EVENTS)]


# -- the receiver ----------------------------------------------------------------------------------


def test_an_accepted_config_is_in_force_and_answered_by_an_ack_of_its_own(pair: Pair) -> None:
    payload = first()
    outcome, seq = config(pair, payload)
    assert outcome is Verdict.ACCEPTED
    assert acks(pair.s) == [(LOCKED, seq)]
    assert in_force(pair) == OTHERS
    (entry,) = entries(pair.s, ChangeType.CONFIG)
    assert (entry.config_before, entry.config_after) == (0, 1)
    assert entry.text == f"{payload.config_hash.hex()} accepted 192.0.2.1 40000"


def test_that_ack_is_the_only_one(pair: Pair) -> None:
    """Even if the CONFIG asks for one, and while another is owed."""
    deliver(pair, data(pair.c, b"x", pair.world.now))
    _, seq = config(pair, first(), int(Flag.REQUIRE_ACK))
    assert acks(pair.s) == [(LOCKED, seq)]
    pair.s.handle_timer(pair.world.now + 50 * MILLISECOND)
    assert acks(pair.s) == [(0, seq)], "the one owed for the message"


@pytest.mark.parametrize(("type", "flag"), [(Type.CONFIG, LOCKED), (Type.ROLLBACK, READY)])
def test_the_answer_has_the_ack_of_the_request_whatever_arrived_since(
    pair: Pair, type: Type, flag: Flag
) -> None:
    now = pair.world.now
    if type is Type.ROLLBACK:
        config(pair, first())
        acks(pair.s)
    packet = pair.c.protect(type, now, first().pack() if type is Type.CONFIG else b"")
    seq = wire.parse(packet).seq
    deliver(pair, pair.c.protect(Type.ACK, now))
    deliver(pair, packet)
    assert pair.s.window.highest == seq + 1
    assert acks(pair.s) == [(flag, seq)]


def test_a_request_that_asks_for_an_ack_gets_no_second_one(pair: Pair) -> None:
    config(pair, first(), int(Flag.REQUIRE_ACK))
    deliver(pair, pair.c.protect(Type.ROLLBACK, pair.world.now, flags=int(Flag.REQUIRE_ACK)))
    assert [flags for flags, _ in acks(pair.s)] == [LOCKED, READY]
    pair.s.handle_timer(pair.world.now + 50 * MILLISECOND)
    assert acks(pair.s) == []


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (first().pack()[:-1], "size"),
        (first().pack() + b"\0", "size"),
        (first(version=0), "version"),
        (first(prev_version=1), "prev_version"),
        (first(prev_hash=b"\x01" * 32), "prev_hash"),
        (first(config_hash=b"\x01" * 32), "config_hash"),
        (first(deadline=1), "deadline"),
        (first(replace(OTHERS, difficulty=21)), "parameters"),
    ],
)
def test_a_rejected_config_changes_nothing_and_says_so(
    pair: Pair, payload: ConfigPayload | bytes, why: str
) -> None:
    before = pair.s.core.configuration.current
    outcome, seq = config(pair, payload)
    assert outcome is DropReason.CONFIG_REJECT
    assert pair.s.counters[DropReason.CONFIG_REJECT] == 1
    assert acks(pair.s) == [(0, seq)]
    assert pair.s.core.configuration.current is before
    assert pair.s.core.configuration.tentative is None
    assert [entry.text for entry in entries(pair.s, ChangeType.ERROR)] == [f"0x06 192.0.2.1 40000 {why}"]
    assert entries(pair.s, ChangeType.CONFIG) == []
    assert pair.s.end is None


def test_a_hundred_rejected_configs_journal_ten_errors(pair: Pair) -> None:
    for _ in range(100):
        config(pair, first(version=0))
    assert len(entries(pair.s, ChangeType.ERROR)) == 10
    assert pair.s.counters[DropReason.CONFIG_REJECT] == 100
    assert pair.s.core.counters["errors_not_journalled"] == 90


def test_another_config_is_rejected_while_one_is_tentative(pair: Pair) -> None:
    payload = first()
    config(pair, payload)
    acks(pair.s)
    second = ConfigPayload.proposing(MORE, Reference(1, payload.config_hash), 2, MINUTE, 0)
    outcome, seq = config(pair, second)
    assert outcome is DropReason.CONFIG_REJECT
    assert acks(pair.s) == [(0, seq)]
    assert in_force(pair) == OTHERS


def test_a_confirmed_config_stays(pair: Pair) -> None:
    payload = first()
    config(pair, payload)
    acks(pair.s)
    outcome, seq = config(pair, payload, int(LOCKED))
    assert outcome is Verdict.ACCEPTED
    assert acks(pair.s) == [(LOCKED, seq)]
    pair.s.handle_timer(pair.world.now + 2 * MINUTE)
    assert in_force(pair) == OTHERS
    accepted, confirmed = entries(pair.s, ChangeType.CONFIG)
    assert (confirmed.config_before, confirmed.config_after) == (1, 1)
    assert confirmed.text == f"{payload.config_hash.hex()} confirmed 192.0.2.1 40000"
    assert accepted.text != confirmed.text


def test_each_repeat_of_a_confirm_is_acknowledged_and_changes_nothing(pair: Pair) -> None:
    payload = first()
    config(pair, payload)
    config(pair, payload, int(LOCKED))
    acks(pair.s)
    for _ in range(3):
        outcome, seq = config(pair, payload, int(LOCKED))
        assert outcome is Verdict.ACCEPTED
        assert acks(pair.s) == [(LOCKED, seq)]
    assert len(entries(pair.s, ChangeType.CONFIG)) == 2


def test_a_confirm_of_something_else_is_refused(pair: Pair) -> None:
    config(pair, first())
    acks(pair.s)
    outcome, seq = config(pair, first(MORE), int(LOCKED))
    assert outcome is DropReason.CONFIG_REJECT
    assert acks(pair.s) == [(0, seq)]
    assert pair.s.core.configuration.tentative is not None


def test_a_rollback_undoes(pair: Pair) -> None:
    before = pair.s.core.configuration.current
    payload = first()
    config(pair, payload)
    acks(pair.s)
    outcome, seq = rollback(pair)
    assert outcome is Verdict.ACCEPTED
    assert acks(pair.s) == [(READY, seq)]
    assert pair.s.core.configuration.current is before
    entry = entries(pair.s, ChangeType.CONFIG)[-1]
    assert (entry.config_before, entry.config_after) == (1, 0)
    assert entry.text == f"{'0' * 64} restored (rollback) 192.0.2.1 40000"


@pytest.mark.parametrize("plaintext", [b"", b"x"])
def test_a_rollback_of_nothing_is_refused(pair: Pair, plaintext: bytes) -> None:
    if plaintext:
        config(pair, first())
        acks(pair.s)
    outcome, seq = rollback(pair, plaintext)
    assert outcome is DropReason.CONFIG_REJECT
    assert acks(pair.s) == [(0, seq)]
    why = "size" if plaintext else "nothing is tentative"
    assert [entry.text for entry in entries(pair.s, ChangeType.ERROR)] == [f"0x06 192.0.2.1 40000 {why}"]
    assert (pair.s.core.configuration.tentative is not None) == bool(plaintext)


def test_at_the_deadline_the_previous_configuration_is_back(pair: Pair) -> None:
    before = pair.s.core.configuration.current
    config(pair, first(deadline=SECOND // 2))
    acks(pair.s)
    deadline = pair.world.now + SECOND // 2
    assert pair.s.next_timer() == deadline
    pair.s.handle_timer(deadline - 1)
    assert (acks(pair.s), in_force(pair)) == ([], OTHERS)
    pair.s.handle_timer(deadline)
    assert pair.s.core.configuration.current is before
    assert acks(pair.s) == [(READY, pair.s.window.highest)]
    pair.s.handle_timer(deadline + 1)
    assert acks(pair.s) == []
    undone = [entry.text for entry in entries(pair.s, ChangeType.CONFIG)[1:]]
    assert undone == [f"{'0' * 64} restored (deadline) 192.0.2.1 40000"]


def test_a_confirm_at_the_deadline_finds_it_undone(pair: Pair) -> None:
    payload = first(deadline=SECOND)
    config(pair, payload)
    acks(pair.s)
    pair.world.now += SECOND
    outcome, seq = config(pair, payload, int(LOCKED))
    assert outcome is DropReason.CONFIG_REJECT
    assert acks(pair.s) == [(READY, seq), (0, seq)]
    pair.s.handle_timer(pair.world.now)
    assert acks(pair.s) == []
    assert len(entries(pair.s, ChangeType.CONFIG)) == 2


def two_pairs(settings: Settings = EASY) -> tuple[Pair, Pair]:
    """Two sessions of one server."""
    world = World(server_settings=settings)
    return world.pair(), world.pair()


def test_other_sessions_neither_confirm_nor_undo(pair: Pair) -> None:
    owner, other = two_pairs()
    payload = first()
    config(owner, payload)
    refused = [config(other, payload, int(LOCKED)), rollback(other)]
    assert [outcome for outcome, _ in refused] == [DropReason.CONFIG_REJECT] * 2
    assert acks(other.s) == [(0, seq) for _, seq in refused]
    assert other.s.configuring.due == NEVER, "the deadline is the owner's business"
    assert owner.s.core.configuration.tentative is not None
    config(owner, payload, int(LOCKED))
    outcome, _ = config(other, payload, int(LOCKED))
    assert outcome is DropReason.CONFIG_REJECT, "a repeat counts from the proposing session only"
    assert in_force(other) == OTHERS, "the configuration is the node's"


def test_every_session_of_the_node_follows_at_once() -> None:
    owner, other = two_pairs()
    config(owner, first())
    for session in (owner.s, other.s):
        since = session.established_at
        assert session.heartbeats.due == since + OTHERS.heartbeat_s * SECOND
        assert session.rekeying.age.due == since + OTHERS.rekey_s * SECOND
        assert session.mtu == OTHERS.mtu_max
    assert owner.c.mtu == other.c.mtu == 1400, "other nodes do not"


def test_whoever_finds_the_deadline_passed_the_owners_peer_is_told() -> None:
    owner, other = two_pairs(Settings())
    stirred: list[Session] = []
    owner.world.server_core.stir = stirred.append
    same = Parameters.of(Settings())  # nobody else is stirred
    config(owner, first(same, SECOND))
    acks(owner.s)
    owner.world.now += SECOND
    outcome, seq = config(other, first(same))
    assert outcome is Verdict.ACCEPTED
    assert acks(other.s) == [(LOCKED, seq)]
    assert acks(owner.s) == [(READY, owner.s.window.highest)]
    assert stirred == [owner.s]
    owner.s.handle_timer(owner.world.now)
    assert acks(owner.s) == []


@pytest.mark.parametrize(
    "end",
    [
        lambda pair: pair.s.close(pair.world.now),
        lambda pair: pair.c.close(pair.world.now),
        lambda pair: pair.s.end_of_stream(pair.world.now),
        lambda pair: pair.s.handle_timer(pair.world.now + 91 * SECOND),
    ],
    ids=["local", "closed", "end of stream", "dead peer"],
)
def test_the_end_of_the_session_undoes_at_once(pair: Pair, end: Callable[[Pair], None]) -> None:
    config(pair, first(deadline=3600 * SECOND))
    end(pair)
    pair.run()
    assert pair.s.end is not None
    assert pair.s.core.configuration.current.version == 0
    *_, undone = entries(pair.s, ChangeType.CONFIG)
    assert undone.text == f"{'0' * 64} restored (session ended) 192.0.2.1 40000"


def test_the_end_of_a_session_leaves_what_it_confirmed(pair: Pair) -> None:
    config(pair, first())
    config(pair, first(), int(LOCKED))
    pair.s.close(pair.world.now)
    assert in_force(pair) == OTHERS


def test_a_node_without_remote_administration_refuses() -> None:
    pair = World(server_settings=replace(EASY, remote_admin=False)).pair()
    refused = [config(pair, first()), config(pair, first(), int(LOCKED)), rollback(pair)]
    assert [outcome for outcome, _ in refused] == [DropReason.CONFIG_REJECT] * 3
    assert acks(pair.s) == [(0, seq) for _, seq in refused]
    assert pair.s.counters[DropReason.CONFIG_REJECT] == 3
    assert pair.s.counters[DropReason.NOT_PERMITTED] == 3
    assert pair.s.core.configuration.current.version == 0
    assert [entry.text for entry in entries(pair.s, ChangeType.ERROR)] == [
        "0x06 192.0.2.1 40000 remote_admin is off"
    ] * 3


# -- the proposer ----------------------------------------------------------------------------------


def propose(pair: Pair, params: Parameters = OTHERS, deadline: int = MINUTE) -> None:
    pair.c.configuring.propose(params, deadline, pair.world.now)
    pair.run()


def test_proposed_accepted_confirmed(pair: Pair) -> None:
    propose(pair)
    assert told(pair) == [ConfigAccepted(1)]
    pair.c.configuring.confirm(pair.world.now)
    pair.run()
    assert told(pair) == [ConfigAccepted(1), ConfigConfirmed(1)]
    pair.advance(2 * MINUTE)
    assert told(pair)[2:] == []
    assert in_force(pair) == OTHERS
    assert pair.c.params != OTHERS, "a proposal is about its receiver only"


def test_the_next_proposal_builds_on_the_confirmed_one(pair: Pair) -> None:
    propose(pair)
    pair.c.configuring.confirm(pair.world.now)
    pair.run()
    propose(pair, MORE)
    assert told(pair)[2:] == [ConfigAccepted(2)]
    assert in_force(pair) == MORE


def test_a_rollback_on_request(pair: Pair) -> None:
    propose(pair)
    pair.c.configuring.rollback(pair.world.now)
    pair.run()
    assert told(pair)[1:] == [ConfigRolledBack(1, "asked for")]
    propose(pair, MORE)
    assert told(pair)[2:] == [ConfigAccepted(1)], "built on what is restored"


def test_a_rollback_at_the_deadline(pair: Pair) -> None:
    propose(pair, deadline=SECOND)
    pair.advance(SECOND - 1)
    assert told(pair)[1:] == []
    pair.advance(1)
    assert told(pair)[1:] == [ConfigRolledBack(1, "deadline")]
    propose(pair, MORE)
    assert told(pair)[2:] == [ConfigAccepted(1)]


def test_a_refused_proposal(pair: Pair) -> None:
    payload = ConfigPayload.proposing(OTHERS, Reference(5, b"\x05" * 32), 6, SECOND, 0)
    pair.c.configuring.propose_payload(payload, pair.world.now)
    pair.run()
    assert told(pair) == [ConfigRejected(6, "refused")]
    propose(pair)
    assert told(pair)[1:] == [ConfigAccepted(1)]


def test_a_proposal_without_an_answer_is_rejected_at_its_deadline(pair: Pair) -> None:
    now = pair.world.now
    pair.c.configuring.propose(OTHERS, SECOND, now)
    pair.c.packets_to_send()
    pair.advance(SECOND - 1)
    assert told(pair) == []
    pair.advance(1)
    assert told(pair) == [ConfigRejected(1, "no answer")]


def test_a_confirm_is_repeated_after_1_2_and_4_seconds_until_acknowledged(pair: Pair) -> None:
    propose(pair)
    now = pair.world.now
    pair.c.configuring.confirm(now)
    sent = {}
    for step in range(120):
        pair.c.handle_timer(now + step * 100 * MILLISECOND)
        for packet in pair.c.packets_to_send():
            header = wire.parse(packet)
            if header.type == Type.CONFIG:
                assert header.flags & LOCKED
                sent[step] = header.seq
    assert list(sent) == [0, 10, 20, 40]
    assert len(set(sent.values())) == 4
    assert pair.c.configuring.due < now + 2 * MINUTE, "it gives up some day"


def test_the_answer_to_any_of_the_confirms_will_do(pair: Pair) -> None:
    propose(pair)
    pair.c.configuring.confirm(pair.world.now)
    pair.c.packets_to_send()
    pair.advance(SECOND)
    assert told(pair)[1:] == [ConfigConfirmed(1)]
    pair.advance(10 * SECOND)
    assert told(pair)[2:] == []
    assert len(entries(pair.s, ChangeType.CONFIG)) == 2


def test_an_unacknowledged_confirm_is_given_up(pair: Pair) -> None:
    propose(pair)
    now = pair.world.now
    pair.c.configuring.confirm(now)
    pair.c.handle_timer(pair.c.configuring.due)
    for _ in range(5):
        pair.c.handle_timer(pair.c.configuring.due)
    pair.c.packets_to_send()
    pair.run()
    assert told(pair)[1:] == [ConfigRejected(1, "no answer")]


def test_a_confirm_that_comes_too_late_tells_of_the_rollback(pair: Pair) -> None:
    propose(pair, deadline=SECOND)
    pair.world.now += SECOND
    pair.c.configuring.confirm(pair.world.now)
    pair.run()
    assert told(pair)[1:] == [ConfigRolledBack(1, "deadline")]


def test_other_acks_are_no_answers(pair: Pair) -> None:
    now = pair.world.now
    pair.c.configuring.propose(OTHERS, MINUTE, now)
    (packet,) = pair.c.packets_to_send()
    seq = wire.parse(packet).seq
    pair.c.protect(Type.ACK, now)  # so that one more seq can be acknowledged
    for flags, ack in (
        (0, seq - 1),
        (0, seq + 1),
        (int(READY), seq),
        (int(READY), seq - 1),
        (int(LOCKED), seq - 1),
        (int(LOCKED), seq + 1),
    ):
        pair.c.receive_packet(pair.s.protect(Type.ACK, now, flags=flags, ack=ack), now)
    pair.run()
    assert told(pair) == []
    pair.c.receive_packet(pair.s.protect(Type.ACK, now, flags=int(LOCKED), ack=seq), now)
    pair.c.receive_packet(pair.s.protect(Type.ACK, now, ack=seq), now)
    pair.run()
    assert told(pair) == [ConfigAccepted(1)], "a later ACK without flags takes nothing back"
    assert pair.c.configuring.peer_configuration.version == 1
    pair.c.configuring.confirm(now)
    pair.c.packets_to_send()
    pair.c.receive_packet(pair.s.protect(Type.ACK, now, ack=seq), now)
    pair.run()
    assert told(pair) == [ConfigAccepted(1)], "nor is it an answer to the confirmation"


def test_a_rollback_that_crossed_the_deadline(pair: Pair) -> None:
    propose(pair)
    now = pair.world.now
    pair.c.configuring.rollback(now)
    (packet,) = pair.c.packets_to_send()
    seq = wire.parse(packet).seq
    pair.c.receive_packet(pair.s.protect(Type.ACK, now, flags=int(READY), ack=seq - 1), now)
    pair.run()
    assert told(pair)[1:] == [ConfigRolledBack(1, "deadline")]


def test_a_confirm_after_the_deadline_is_repeated_all_the_same(pair: Pair) -> None:
    """Word of the rollback may have been lost."""
    propose(pair, deadline=SECOND)
    now = pair.world.now + 11 * SECOND - 1
    pair.c.configuring.confirm(now)
    pair.c.packets_to_send()
    for after in (1, 2, 4):
        pair.c.handle_timer(now + after * SECOND)
        sent = [wire.parse(packet).type for packet in pair.c.packets_to_send()]
        assert Type.CONFIG in sent


def test_on_raw_an_ack_without_flags_does_not_overtake_the_answer(pair: Pair) -> None:
    """It comes at once, the answer in its turn: while something before it is missing, that may be it."""
    now = pair.world.now
    pair.c.configuring.propose(OTHERS, MINUTE, now)
    seq = pair.c.next_seq - 1
    missing = pair.c.ack + 1
    pair.c.configuring.acknowledged(Header(Type.ACK, 0, missing, seq), now)
    pair.c.configuring.acknowledged(Header(Type.ACK, int(LOCKED), missing, seq), now)
    pair.run()
    assert told(pair) == [ConfigAccepted(1)]


def test_on_raw_an_ack_without_flags_rejects_when_nothing_is_missing(pair: Pair) -> None:
    now = pair.world.now
    pair.c.configuring.propose(OTHERS, MINUTE, now)
    pair.c.configuring.acknowledged(Header(Type.ACK, 0, pair.c.ack, pair.c.next_seq - 1), now)
    pair.c.packets_to_send()
    pair.run()
    assert told(pair) == [ConfigRejected(1, "refused")]


def test_what_is_held_back_goes_out_later(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    now = pair.world.now
    monkeypatch.setattr(Session, "holding", True)
    pair.c.configuring.propose(OTHERS, MINUTE, now)
    assert pair.c.packets_to_send() == []
    pair.advance(SECOND)
    assert told(pair) == []
    monkeypatch.setattr(Session, "holding", False)
    pair.c.release(pair.world.now)
    pair.advance(SECOND)
    assert told(pair) == [ConfigAccepted(1)]


def test_a_held_proposal_that_is_rolled_back_first(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "holding", True)
    pair.c.configuring.propose(OTHERS, MINUTE, pair.world.now)
    pair.c.configuring.rollback(pair.world.now)
    monkeypatch.setattr(Session, "holding", False)
    pair.advance(SECOND)
    assert [type(event) for event in told(pair)] == [ConfigRolledBack]
    assert in_force(pair) != OTHERS


def test_the_end_of_the_session_ends_the_proposal(pair: Pair) -> None:
    propose(pair)
    pair.s.close(pair.world.now)
    pair.run()
    assert told(pair)[1:] == [ConfigRolledBack(1, "the session ended")]
    other = easy_pair()
    other.c.configuring.propose(OTHERS, MINUTE, other.world.now)
    other.c.close(other.world.now)
    other.c.packets_to_send()
    other.run()
    assert told(other) == [ConfigRejected(1, "the session ended")]


@pytest.mark.parametrize(
    ("params", "deadline", "base", "number"),
    [
        (replace(OTHERS, difficulty=21), MINUTE, NOTHING, errno.EINVAL),
        (replace(OTHERS, mtu_max=599), MINUTE, NOTHING, errno.EINVAL),
        (OTHERS, 50 * MILLISECOND - 1, NOTHING, errno.EINVAL),
        (OTHERS, 3600 * SECOND + 1, NOTHING, errno.EINVAL),
        (OTHERS, MINUTE, Reference((1 << 32) - 1, bytes(32)), errno.EOVERFLOW),
    ],
)
def test_proposals_that_cannot_be_made(
    pair: Pair, params: Parameters, deadline: int, base: Reference, number: int
) -> None:
    with pytest.raises(LocalError) as caught:
        pair.c.configuring.propose(params, deadline, pair.world.now, base)
    assert caught.value.errno == number
    assert pair.c.packets_to_send() == []


def test_one_proposal_at_a_time(pair: Pair) -> None:
    now = pair.world.now
    configuring = pair.c.configuring
    for call in (configuring.confirm, configuring.rollback):
        with pytest.raises(LocalError) as caught:
            call(now)
        assert caught.value.errno == errno.ENOENT
    configuring.propose(OTHERS, MINUTE, now)
    with pytest.raises(LocalError) as caught:
        configuring.propose(OTHERS, MINUTE, now)
    assert caught.value.errno == errno.EBUSY
    with pytest.raises(LocalError) as caught:
        configuring.confirm(now)
    assert caught.value.errno == errno.ENOENT, "not accepted yet"
    pair.run()
    configuring.confirm(now)
    with pytest.raises(LocalError) as caught:
        configuring.rollback(now)
    assert caught.value.errno == errno.ENOENT, "the confirmation is under way"


def test_nothing_is_proposed_after_the_end(pair: Pair) -> None:
    pair.c.close(pair.world.now)
    now = pair.world.now
    calls: list[Callable[[], object]] = [
        lambda: pair.c.configuring.propose(OTHERS, MINUTE, now),
        lambda: pair.c.configuring.confirm(now),
        lambda: pair.c.configuring.rollback(now),
    ]
    for call in calls:
        with pytest.raises(LocalError) as caught:
            call()
        assert caught.value.errno == errno.ENOTCONN


def test_both_sides_may_propose_at_once(pair: Pair) -> None:
    now = pair.world.now
    pair.c.configuring.propose(OTHERS, MINUTE, now)
    pair.s.configuring.propose(MORE, MINUTE, now)
    pair.run()
    assert (told(pair), told(pair, "server")) == ([ConfigAccepted(1)], [ConfigAccepted(1)])
    assert (pair.s.params, pair.c.params) == (OTHERS, MORE)


# -- effects ---------------------------------------------------------------------------------------


def test_sessions_take_the_new_parameters_and_the_old_ones_back(pair: Pair) -> None:
    propose(pair, deadline=10 * SECOND)
    report = pair.s.heartbeats.report(pair.world.now)
    assert report.config_version == 1
    pair.advance(10 * SECOND)
    assert pair.s.heartbeats.report(pair.world.now).config_version == 0
    assert pair.c.heartbeats.peer_report is not None
    assert pair.c.state is State.ESTABLISHED
