# SPDX-License-Identifier: GPL-2.0-or-later
"""Challenges, answers and state reports (section 16): sound peers are never accused, others are."""

from __future__ import annotations

import errno
import hashlib
from dataclasses import fields, replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st
from poolref_sim import EASY, Pair, World, deliver, easy_pair

from poolref import crypto, integrity, wire
from poolref.constants import HEADER_SIZE, SECOND, Flag, Role, State, Type
from poolref.counters import DropReason, Outcome, Verdict
from poolref.errors import DecodeError, LocalError
from poolref.events import PeerUntrusted
from poolref.integrity import StateReport, answer, challenge, right
from poolref.journal import ChangeType
from poolref.keys import Keys
from poolref.session import Session
from poolref.settings import Settings

REQUIRE_ACK = int(Flag.REQUIRE_ACK)
C = bytes(range(16))


@pytest.fixture
def pair() -> Pair:
    return easy_pair()


def plaintexts(session: Session) -> list[bytes]:
    """Those of the INTEGRITY packets that ``session`` has to send; the others are lost."""
    found = []
    for packet in session.packets_to_send():
        header = wire.parse(packet)
        if header.type == Type.INTEGRITY:
            plaintext = session.keys.open(header.seq, packet[HEADER_SIZE:])
            assert plaintext is not None
            found.append(plaintext)
    return found


def say(pair: Pair, plaintext: bytes, flags: int = 0, to: str = "server") -> Outcome:
    """Let one side say something about integrity to the other."""
    sender = pair.c if to == "server" else pair.s
    return deliver(pair, sender.protect(Type.INTEGRITY, pair.world.now, plaintext, flags=flags), to)


def asked(pair: Pair) -> bytes:
    """The server challenges; the 16 random bytes."""
    pair.s.vigil.challenge_now(pair.world.now)
    plaintext = plaintexts(pair.s)[0]
    assert plaintext[0] == integrity.CHALLENGE
    return plaintext[1:]


def accusations(session: Session) -> list[str]:
    """What ``session`` journalled against its peer, checked against all other signs of it."""
    entries = [
        entry.text for entry in session.core.journal.entries() if entry.change_type == ChangeType.INTEGRITY
    ]
    assert session.untrusted is bool(entries)
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    told = [event.reason for event in events if isinstance(event, PeerUntrusted)]
    assert entries == [f"{session.peer} {reason}" for reason in told]
    return told


def discards(session: Session) -> dict[str, int]:
    return {str(reason): session.counters[reason] for reason in DropReason if session.counters[reason]}


# -- what is said -------------------------------------------------------------------------------------------


def test_an_answer_is_what_section_16_says() -> None:
    keys = Keys(b"s" * 32)
    for role in Role:
        message = bytes([role]) + C
        nonce = hashlib.sha256(message).digest()[:12]
        sealed = ChaCha20Poly1305(crypto.hkdf(b"s" * 32, b"pool-integrity-key", 32)).encrypt(nonce, C, None)
        mac = crypto.mac(crypto.hkdf(b"s" * 32, b"pool-integrity-mac", 32), message)
        assert answer(keys, role, C) == b"\2" + C + sealed + mac
        assert right(keys, role, C, answer(keys, role, C))
    assert not right(keys, Role.CLIENT, C, answer(keys, Role.SERVER, C))
    assert challenge(C) == b"\1" + C


def test_any_changed_bit_of_an_answer_is_wrong() -> None:
    keys = Keys(b"s" * 32)
    good = answer(keys, Role.SERVER, C)
    assert len(good) == 81
    for bit in range(8 * len(good)):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        assert not right(keys, Role.SERVER, C, bytes(changed))
    assert not right(keys, Role.SERVER, C, good[:-1])


U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@given(st.builds(StateReport, U32, U64, U64, U64, U64, U32, st.binary(min_size=32, max_size=32)))
def test_report_round_trip(report: StateReport) -> None:
    packed = report.pack()
    assert len(packed) == 73
    assert packed[0] == 3
    assert StateReport.unpack(packed) == report


@pytest.mark.parametrize("size", [0, 1, 72, 74])
def test_a_report_of_another_size(size: int) -> None:
    with pytest.raises(DecodeError):
        StateReport.unpack(bytes(size))


@pytest.mark.parametrize("seconds", [-1, 3601])
def test_the_interval_has_a_range(seconds: int) -> None:
    for good in (0, 1, 3600):
        assert Settings(integrity_s=good).integrity_s == good
    with pytest.raises(LocalError) as error:
        Settings(integrity_s=seconds)
    assert error.value.errno == errno.EINVAL


# -- sound peers ------------------------------------------------------------------------------------------


def test_a_challenge_every_45_seconds(pair: Pair) -> None:
    assert Settings().integrity_s == 45
    pair.advance(45 * SECOND - 1)
    assert pair.c.vigil.answered == pair.s.vigil.answered == 0
    pair.advance(1)
    assert pair.c.vigil.answered == pair.s.vigil.answered == 1
    pair.advance(3510 * SECOND)
    assert pair.c.vigil.answered == pair.s.vigil.answered == 79
    for session in (pair.c, pair.s):
        assert accusations(session) == []
        assert discards(session) == {}


def test_a_challenge_comes_with_a_report(pair: Pair) -> None:
    pair.s.vigil.challenge_now(pair.world.now)
    packets = pair.s.packets_to_send()
    headers = [wire.parse(packet) for packet in packets]
    assert [header.type for header in headers] == [Type.INTEGRITY, Type.INTEGRITY]
    assert headers[0].flags & REQUIRE_ACK
    report = StateReport.unpack(pair.s.keys.open(headers[1].seq, packets[1][HEADER_SIZE:]) or b"")
    assert report == StateReport(
        epoch=0,
        seq_sent=headers[0].seq,
        highest_seq_received=pair.s.window.highest,
        packets_sent=2,
        packets_received=1,
        config_version=0,
        journal_head=pair.s.core.journal.head,
    )
    assert deliver(pair, packets[0], "client") is Verdict.ACCEPTED
    assert deliver(pair, packets[1], "client") is Verdict.ACCEPTED
    (answered,) = plaintexts(pair.c)
    assert say(pair, answered) is Verdict.ACCEPTED
    assert pair.s.vigil.answered == 1


def test_no_challenges_but_answers_when_switched_off() -> None:
    off = replace(EASY, integrity_s=0)
    pair = World(server_settings=off, client_settings=replace(EASY, integrity_s=1)).pair()
    pair.advance(100 * SECOND)
    assert (pair.c.vigil.answered, pair.s.vigil.answered) == (100, 0)
    pair.s.vigil.challenge_now(pair.world.now)
    pair.run()
    assert pair.s.vigil.answered == 1
    pair.advance(100 * SECOND)
    assert pair.s.vigil.answered == 1


def test_challenges_are_fresh(pair: Pair) -> None:
    seen = set()
    for _ in range(20):
        random = asked(pair)
        seen.add(random)
        assert say(pair, answer(pair.c.keys, Role.CLIENT, random)) is Verdict.ACCEPTED
        pair.world.now += SECOND
    assert len(seen) == 20


def test_one_challenge_at_a_time(pair: Pair) -> None:
    asked(pair)
    pair.s.vigil.challenge_now(pair.world.now)
    assert plaintexts(pair.s) == []


def test_no_two_challenges_within_a_second() -> None:
    """Or the peer would take them for a flood."""
    pair = unprompted()
    random = asked(pair)
    assert say(pair, answer(pair.c.keys, Role.CLIENT, random)) is Verdict.ACCEPTED
    start = pair.world.now
    pair.s.vigil.challenge_now(start)
    pair.s.vigil.challenge_now(start + SECOND - 1)
    assert plaintexts(pair.s) == []
    assert pair.s.vigil.due == start + SECOND
    pair.s.vigil.handle_timer(start + SECOND)
    assert [plaintext[0] for plaintext in plaintexts(pair.s)] == [integrity.CHALLENGE, integrity.STATE]


def test_no_challenge_after_the_end(pair: Pair) -> None:
    pair.s.close(pair.world.now)
    with pytest.raises(LocalError) as error:
        pair.s.vigil.challenge_now(pair.world.now)
    assert error.value.errno == errno.ENOTCONN
    assert pair.s.vigil.due == 1 << 63


def test_no_challenge_without_random_bytes(pair: Pair) -> None:
    pair.s.core.rng = lambda size: b""
    pair.s.vigil.challenge_now(pair.world.now)
    assert plaintexts(pair.s) == []
    assert pair.s.counters[DropReason.NO_RANDOMNESS] == 1
    due = pair.s.next_timer()
    assert due is not None
    assert due > pair.world.now


def test_nothing_is_sent_while_packets_pile_up(pair: Pair) -> None:
    pair.s.congested = True
    pair.s.vigil.challenge_now(pair.world.now)
    assert say(pair, challenge(C)) is Verdict.ACCEPTED
    pair.s.vigil.handle_timer(pair.world.now + SECOND)
    assert plaintexts(pair.s) == []
    pair.s.congested = False
    pair.s.vigil.handle_timer(pair.s.vigil.due)
    assert [plaintext[0] for plaintext in plaintexts(pair.s)] == [
        integrity.ANSWER,
        integrity.CHALLENGE,
        integrity.STATE,
    ]


# -- answers (INT-01) ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [17, 48, 49, 80])
def test_a_wrong_answer(pair: Pair, place: int) -> None:
    good = answer(pair.c.keys, Role.CLIENT, asked(pair))
    wrong = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    assert say(pair, wrong) is DropReason.INTEGRITY_FAIL
    assert accusations(pair.s) == ["a challenge was answered wrongly"]
    assert pair.s.vigil.answered == 0
    assert pair.s.end is None, "it is not cut off"
    assert say(pair, good) is DropReason.UNSOLICITED, "one attempt for each challenge"


def test_an_answer_in_the_other_role(pair: Pair) -> None:
    random = asked(pair)
    assert say(pair, answer(pair.c.keys, Role.SERVER, random)) is DropReason.INTEGRITY_FAIL


def test_an_answer_by_somebody_without_the_secret(pair: Pair) -> None:
    """Somebody has the session's keys, but not what they come from."""
    random = asked(pair)
    assert say(pair, answer(Keys(bytes(32)), Role.CLIENT, random)) is DropReason.INTEGRITY_FAIL


def silent_peer(pair: Pair) -> int:
    """The server challenges a client that acknowledges, if the test lets it, and never answers; when (ns)."""
    asked(pair)
    return pair.world.now


def test_no_answer_within_5_s_of_the_ack(pair: Pair) -> None:
    now = silent_peer(pair)
    seq = pair.s.next_seq - 2
    early = pair.c.protect(Type.ACK, now, ack=seq - 1)
    ack = pair.c.protect(Type.ACK, now, ack=seq)
    pair.s.receive_packet(early, now + SECOND)
    pair.s.receive_packet(ack, now + 3 * SECOND)
    pair.s.receive_packet(pair.c.protect(Type.ACK, now, ack=seq + 1), now + 7 * SECOND)
    pair.s.handle_timer(now + 8 * SECOND - 1)
    assert accusations(pair.s) == []
    pair.s.handle_timer(now + 8 * SECOND)
    assert accusations(pair.s) == ["a challenge was not answered"]
    assert discards(pair.s) == {"integrity_fail": 1}
    assert pair.s.state is State.ESTABLISHED


def test_no_answer_within_60_s_even_without_an_ack(pair: Pair) -> None:
    now = silent_peer(pair)
    for second in range(1, 60):
        pair.s.receive_packet(pair.c.protect(Type.ACK, now, ack=pair.s.first_seq), now + second * SECOND)
        pair.s.vigil.handle_timer(now + second * SECOND)
    pair.s.vigil.handle_timer(now + 60 * SECOND - 1)
    assert accusations(pair.s) == []
    pair.s.vigil.handle_timer(now + 60 * SECOND)
    assert accusations(pair.s) == ["a challenge was not answered"]


def test_an_ack_late_in_the_60_s_does_not_lengthen_them(pair: Pair) -> None:
    now = silent_peer(pair)
    pair.s.receive_packet(pair.c.protect(Type.ACK, now, ack=pair.s.next_seq - 1), now + 58 * SECOND)
    pair.s.vigil.handle_timer(now + 60 * SECOND)
    assert accusations(pair.s) == ["a challenge was not answered"]


def unprompted() -> Pair:
    """Nobody challenges but when told to."""
    off = replace(EASY, integrity_s=0)
    return World(server_settings=off, client_settings=off).pair()


def test_an_answer_may_wait_unread() -> None:
    """DATA-04: this side does not read, so it cannot know."""
    pair = unprompted()
    now = silent_peer(pair)
    pair.s.suspend(now + SECOND)
    pair.s.handle_timer(now + 80 * SECOND)
    assert accusations(pair.s) == []
    pair.s.resume(now + 81 * SECOND)
    assert pair.s.vigil.due == now + 140 * SECOND
    pair.s.vigil.handle_timer(now + 140 * SECOND - 1)
    assert accusations(pair.s) == []
    pair.s.vigil.handle_timer(now + 140 * SECOND)
    assert accusations(pair.s) == ["a challenge was not answered"]


def test_nothing_is_due_without_a_challenge() -> None:
    pair = unprompted()
    random = asked(pair)
    assert pair.s.vigil.due == pair.world.now + 60 * SECOND
    assert say(pair, answer(pair.c.keys, Role.CLIENT, random)) is Verdict.ACCEPTED
    assert pair.s.vigil.due == 1 << 63
    pair.world.now += SECOND
    asked(pair)
    pair.c.rekeying.start(pair.world.now)
    pair.run()
    assert pair.s.keys.epoch == 1
    assert pair.s.vigil.due == 1 << 63


def test_ones_own_challenge_comes_back(pair: Pair) -> None:
    random = asked(pair)
    assert say(pair, challenge(random)) is DropReason.MALFORMED
    assert plaintexts(pair.s) == [], "it would have answered for its peer"
    assert say(pair, challenge(C)) is Verdict.ACCEPTED, "the control"
    assert plaintexts(pair.s) == [answer(pair.s.keys, Role.SERVER, C)]


@pytest.mark.parametrize("when", ["never asked", "answered", "of another challenge"])
def test_answers_that_nothing_asked_for(pair: Pair, when: str) -> None:
    random = C
    if when != "never asked":
        random = asked(pair)
    if when == "answered":
        assert say(pair, answer(pair.c.keys, Role.CLIENT, random)) is Verdict.ACCEPTED
    if when == "of another challenge":
        random = C
    assert say(pair, answer(pair.c.keys, Role.CLIENT, random)) is DropReason.UNSOLICITED
    assert accusations(pair.s) == []


@pytest.mark.parametrize(
    "plaintext",
    [
        b"", b"\0", b"\0" + C, b"\4" + C, b"\xff" + C, b"\1", b"\1" + C[:-1], b"\1" + C + b"\0",
        b"\2" + bytes(79), b"\2" + bytes(81), b"\3" + bytes(71), b"\3" + bytes(73),
    ],
)  # fmt: skip
def test_malformed(pair: Pair, plaintext: bytes) -> None:
    asked(pair)
    assert say(pair, plaintext) is DropReason.MALFORMED
    assert plaintexts(pair.s) == []
    assert accusations(pair.s) == []


def test_a_flood_of_challenges_is_bounded_work(pair: Pair) -> None:
    outcomes = [say(pair, challenge(number.to_bytes(16, "big"))) for number in range(1000)]
    assert outcomes.count(Verdict.ACCEPTED) == 16
    assert outcomes.count(DropReason.INTEGRITY_LIMITED) == 984
    assert len(plaintexts(pair.s)) == 16
    pair.world.now += SECOND
    outcomes = [say(pair, challenge(C)) for _ in range(20)]
    assert outcomes == [Verdict.ACCEPTED] * 16 + [DropReason.INTEGRITY_LIMITED] * 4
    assert accusations(pair.s) == []


# -- a change of keys (RK-06) -------------------------------------------------------------------------------


def test_a_rekey_voids_what_was_asked_before(pair: Pair) -> None:
    random = asked(pair)
    pair.c.rekeying.start(pair.world.now)
    pair.run()
    assert pair.s.keys.epoch == 1
    late = answer(pair.c.keys, Role.CLIENT, random)
    assert say(pair, late) is DropReason.UNSOLICITED
    pair.advance(30 * SECOND)
    assert accusations(pair.s) == []
    pair.s.vigil.challenge_now(pair.world.now)
    pair.run()
    assert pair.s.vigil.answered == 1


def test_no_answer_goes_out_after_a_rekey(pair: Pair) -> None:
    pair.s.rekeying.start(pair.world.now)
    assert say(pair, challenge(C)) is Verdict.ACCEPTED
    pair.run()
    assert pair.s.keys.epoch == 1
    pair.advance(SECOND)
    assert discards(pair.c) == {}, "no answer came that nothing asked for"
    assert accusations(pair.c) == accusations(pair.s) == []


def test_no_challenge_and_no_report_is_held(pair: Pair) -> None:
    pair.s.rekeying.start(pair.world.now)
    proposal = pair.s.packets_to_send()
    pair.s.vigil.challenge_now(pair.world.now)
    assert not pair.s.unsent
    pair.world.now += SECOND
    pair.s.vigil.handle_timer(pair.world.now)
    assert not pair.s.unsent
    assert deliver(pair, proposal[0], "client") is Verdict.ACCEPTED
    pair.run()
    pair.advance(SECOND)
    assert pair.s.vigil.answered == 1


# -- reports (INT-02) ---------------------------------------------------------------------------------------


def truth(pair: Pair) -> StateReport:
    """What the client would report now."""
    return pair.c.vigil.report()


def reported(pair: Pair, **changes: int) -> Outcome:
    """Let the client report the truth but for ``changes``, which are differences."""
    report = truth(pair)
    return say(pair, replace(report, **{n: getattr(report, n) + by for n, by in changes.items()}).pack())


def test_the_truth_is_believed(pair: Pair) -> None:
    for _ in range(5):
        assert reported(pair) is Verdict.ACCEPTED
        pair.c.send(b"x", pair.world.now)
        pair.s.send(b"x", pair.world.now)
        pair.run()
        pair.world.now += SECOND
    assert reported(pair, seq_sent=1, packets_sent=1) is Verdict.ACCEPTED, "the report's own packet counts"
    assert accusations(pair.s) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"highest_seq_received": 1}, "was received"),
        ({"highest_seq_received": -10}, "was received"),
        ({"packets_received": 1}, "packets were received of"),
        ({"seq_sent": 2}, "was sent last"),
        ({"seq_sent": -1}, "was sent last"),
        ({"packets_sent": 2}, "packets were sent"),
        ({"packets_sent": -1}, "packets were sent"),
        ({"epoch": 1}, "the epoch is 1 instead of 0"),
    ],
)
def test_contradictions(pair: Pair, changes: dict[str, int], reason: str) -> None:
    for session in (pair.c, pair.s):
        session.send(b"x", pair.world.now)
    pair.run()
    assert reported(pair) is Verdict.ACCEPTED
    assert reported(pair, **changes) is DropReason.INTEGRITY_FAIL
    (accusation,) = accusations(pair.s)
    assert reason in accusation
    assert pair.s.end is None


@pytest.mark.parametrize(
    "name", ["seq_sent", "highest_seq_received", "packets_sent", "packets_received", "epoch"]
)
def test_numbers_that_go_back(name: str) -> None:
    earlier = StateReport(1, 2, 3, 4, 5, 6, bytes(32))
    assert earlier.reversed_since(earlier) is None
    later = replace(earlier, **{name: getattr(earlier, name) - 1})
    assert later.reversed_since(earlier) == name
    assert earlier.reversed_since(later) is None


def test_every_field_but_two_can_go_back() -> None:
    report = StateReport(1, 2, 3, 4, 5, 6, bytes(32))
    kept = {
        field.name
        for field in fields(StateReport)
        if field.name != "journal_head" and replace(report, **{field.name: 0}).reversed_since(report) is None
    }
    assert kept == {"config_version"}, "a rollback restores an older version"


def test_a_number_that_goes_back_in_a_session(pair: Pair) -> None:
    for session in (pair.s, pair.s):
        session.send(b"x", pair.world.now)
    pair.run()
    assert reported(pair) is Verdict.ACCEPTED
    assert reported(pair, packets_received=-1) is DropReason.INTEGRITY_FAIL
    (accusation,) = accusations(pair.s)
    assert accusation.startswith("packets_received went back from ")


def test_each_kind_of_contradiction_is_told_once(pair: Pair) -> None:
    for _ in range(10):
        assert reported(pair, packets_received=1) is DropReason.INTEGRITY_FAIL
        assert reported(pair, highest_seq_received=1) is DropReason.INTEGRITY_FAIL
        assert reported(pair, epoch=1) is DropReason.INTEGRITY_FAIL
        pair.world.now += SECOND
    assert len(accusations(pair.s)) == 2
    assert pair.s.counters[DropReason.INTEGRITY_FAIL] == 30


def test_reports_are_limited_like_challenges(pair: Pair) -> None:
    outcomes = [reported(pair) for _ in range(20)]
    assert outcomes == [Verdict.ACCEPTED] * 16 + [DropReason.INTEGRITY_LIMITED] * 4


@pytest.mark.parametrize("moment", ["accepted", "completed", "confirmed"])
def test_epochs_while_keys_change(pair: Pair, moment: str) -> None:
    pair.c.rekeying.start(pair.world.now)
    deliver(pair, pair.c.packets_to_send()[0])
    if moment != "accepted":
        deliver(pair, pair.s.packets_to_send()[0], "client")
    if moment == "confirmed":
        deliver(pair, pair.c.packets_to_send()[0])
    assert reported(pair) is Verdict.ACCEPTED
    assert reported(pair, epoch=3 if moment == "accepted" else 1) is DropReason.INTEGRITY_FAIL
    assert len(accusations(pair.s)) == 1


def test_a_rekey_under_way_excuses_one_epoch(pair: Pair) -> None:
    pair.s.rekeying.start(pair.world.now)
    assert reported(pair, epoch=1) is Verdict.ACCEPTED
    assert reported(pair, epoch=2) is DropReason.INTEGRITY_FAIL


# -- the journal's head -------------------------------------------------------------------------------------


def replicating() -> Pair:
    """The server has a copy of the client's journal."""
    pair = easy_pair()
    pair.advance(3 * SECOND)
    pair.s.replication.request(pair.world.now)
    pair.run()
    pair.advance(SECOND)
    assert pair.s.replication.replica.knows(pair.c.core.journal.head)
    return pair


def head_reported(pair: Pair, head: bytes) -> Outcome:
    return say(pair, replace(truth(pair), journal_head=head).pack())


def journal(pair: Pair) -> None:
    pair.c.core.record(ChangeType.CONNECT, "somebody else")


def test_heads_of_a_journal_that_goes_on() -> None:
    pair = replicating()
    for _ in range(5):
        assert reported(pair) is Verdict.ACCEPTED
        journal(pair)
        assert reported(pair) is Verdict.ACCEPTED, "the entry is still to come"
        journal(pair)
        pair.advance(SECOND)
    assert accusations(pair.s) == []


def test_a_head_older_than_what_came_before() -> None:
    pair = replicating()
    before = pair.c.core.journal.head
    journal(pair)
    pair.advance(SECOND)
    assert head_reported(pair, before) is DropReason.INTEGRITY_FAIL
    assert accusations(pair.s) == ["the journal's head is older than entries that came before"]


def test_a_head_that_never_comes() -> None:
    """The peer has another journal for somebody else (T7)."""
    pair = replicating()
    assert head_reported(pair, b"\1" * 32) is Verdict.ACCEPTED, "it may still come"
    assert head_reported(pair, b"\2" * 32) is Verdict.ACCEPTED
    journal(pair)
    pair.advance(SECOND)
    assert reported(pair) is DropReason.INTEGRITY_FAIL
    assert accusations(pair.s) == ["the journal has another entry instead of what was its head"]


def test_a_head_that_was_overwritten_in_the_copy_is_no_contradiction() -> None:
    pair = replicating()
    journal(pair)
    expected = pair.c.core.journal.head
    assert reported(pair) is Verdict.ACCEPTED
    for _ in range(1500):
        journal(pair)
        if len(pair.c.core.journal) % 16 == 0:
            pair.advance(SECOND // 100)
    pair.advance(5 * SECOND)
    assert not pair.s.replication.replica.knows(expected)
    assert pair.s.replication.replica.knows(pair.c.core.journal.head)
    assert reported(pair) is Verdict.ACCEPTED
    assert accusations(pair.s) == []


@pytest.mark.parametrize(("entries", "told"), [(1024, 1), (1025, 0)])
def test_a_head_is_missed_as_long_as_the_copy_reaches_back(entries: int, told: int) -> None:
    pair = replicating()
    assert head_reported(pair, b"\1" * 32) is Verdict.ACCEPTED
    for number in range(entries):
        journal(pair)
        if number % 16 == 0 or number == entries - 1:
            pair.advance(SECOND // 100)
    assert pair.s.replication.replica.knows(pair.c.core.journal.head)
    reported(pair)
    assert len(accusations(pair.s)) == told


def test_without_a_copy_any_head_is_believed(pair: Pair) -> None:
    assert head_reported(pair, b"\1" * 32) is Verdict.ACCEPTED
    assert head_reported(pair, b"\2" * 32) is Verdict.ACCEPTED


# -- end to end ---------------------------------------------------------------------------------------------


def test_somebody_who_writes_under_the_peers_keys_is_found(pair: Pair) -> None:
    """Somebody has the session's keys and sends in the client's name: the server's next report tells the
    client of a packet that it never sent.
    """
    forged = pair.c.keys.packet(
        Type.DATA, REQUIRE_ACK, pair.c.next_seq + 5, pair.c.ack, pair.c.session_id, 0, 0, b"forged"
    )
    assert deliver(pair, forged) is Verdict.ACCEPTED
    pair.s.vigil.challenge_now(pair.world.now)
    pair.run()
    (accusation,) = [event.reason for event in pair.events["client"] if isinstance(event, PeerUntrusted)]
    assert "was received" in accusation
    assert pair.c.untrusted


def test_every_settled_hour_is_without_an_accusation() -> None:
    settings = replace(EASY, integrity_s=1, rekey_s=11)
    pair = World(server_settings=settings, client_settings=settings).pair()
    for _ in range(60):
        pair.c.send(bytes(3000), pair.world.now)
        pair.advance(7 * SECOND)
        pair.s.take()
    for session in (pair.c, pair.s):
        assert accusations(session) == []
        assert discards(session) == {}
        assert session.vigil.answered >= 400
