# SPDX-License-Identifier: GPL-2.0-or-later
"""Each side challenges the other to show that it has the session's keys, and holds what the other says of
the session against its own view of it (section 16).
"""

from __future__ import annotations

import errno
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from . import constants as c
from . import crypto
from .constants import Flag, Role, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError, LocalError, RandomnessError
from .keys import Keys
from .part import NEVER, Part
from .wire import Buffer, Header, sized, struct_of

if TYPE_CHECKING:
    from .session import Session

CHALLENGE: Final = 1
ANSWER: Final = 2
STATE: Final = 3

_CHALLENGE: Final = struct_of("integrity_challenge")
_ANSWER: Final = struct_of("integrity_answer")
_STATE: Final = struct_of("integrity_state")
_RANDOM_SIZE: Final = _CHALLENGE.size - 1
_NONCE_SIZE: Final = 12
_REQUIRE_ACK: Final = int(Flag.REQUIRE_ACK)
_RETRY: Final = 50 * c.MILLISECOND
"""When to look again whether a packet may go out."""


def challenge(random: bytes) -> bytes:
    """The plaintext of a challenge of 16 random bytes."""
    return _CHALLENGE.pack(CHALLENGE, random)


def answer(keys: Keys, role: Role, random: bytes) -> bytes:
    """The plaintext with which a side in ``role`` answers the challenge ``random`` (81 bytes)."""
    message = bytes([role]) + random
    nonce = hashlib.sha256(message).digest()[:_NONCE_SIZE]
    sealed = crypto.ChaCha20Poly1305(keys.k_int).encrypt(nonce, random, None)
    return _ANSWER.pack(ANSWER, random, sealed, crypto.mac(keys.k_int_mac, message))


def right(keys: Keys, role: Role, random: bytes, plaintext: bytes) -> bool:
    """Whether ``plaintext`` is the answer of a side in ``role`` (compared in constant time)."""
    return crypto.constant_time_equal(answer(keys, role, random), plaintext)


@dataclass(frozen=True, slots=True)
class StateReport:
    """What a side says of the session; packets are those with a seq of their own, each counted once, the
    handshake's included, this report's own not (E-86).
    """

    epoch: int
    seq_sent: int
    """The seq sent last."""
    highest_seq_received: int
    packets_sent: int
    packets_received: int
    config_version: int
    journal_head: bytes

    def pack(self) -> bytes:
        """The plaintext (73 bytes)."""
        return _STATE.pack(
            STATE, self.epoch, self.seq_sent, self.highest_seq_received, self.packets_sent,
            self.packets_received, self.config_version, self.journal_head,
        )  # fmt: skip

    @classmethod
    def unpack(cls, plaintext: Buffer) -> StateReport:
        """DecodeError unless it has 73 bytes."""
        sized(plaintext, _STATE.size, "integrity_state")
        return cls(*_STATE.unpack(plaintext)[1:])

    def reversed_since(self, earlier: StateReport) -> str | None:
        """The first number that went back since an earlier report; a version may, by a rollback."""
        for name in ("epoch", "seq_sent", "highest_seq_received", "packets_sent", "packets_received"):
            if getattr(self, name) < getattr(earlier, name):
                return name
        return None


@dataclass(slots=True)
class _Open:
    """This side's challenge that waits for its answer, until ``answer_by`` (ns)."""

    random: bytes
    seq: int
    answer_by: int


class Vigil(Part):
    """Challenges the peer in regular intervals, answers its challenges and watches its reports."""

    receive_driven: ClassVar[bool] = True

    def __init__(self, session: Session, now: int) -> None:
        super().__init__(session)
        self._interval = session.settings.integrity_s * c.SECOND
        self._next_at = now + self._interval if self._interval else NEVER
        self._earliest = now
        self.answered = 0
        """Challenges of this side's that were answered rightly."""
        self._open: _Open | None = None
        self._report_owed = False
        self._asked: bytes | None = None
        """The peer's challenge, while its answer cannot go out."""
        self._retry_at = NEVER
        self._peer_first = session.window.highest
        self._latest: StateReport | None = None
        """What the peer said last."""
        self._expected_head: tuple[bytes, int] | None = None
        """A head of the peer's journal that has not come yet, and the lowest index it can have."""
        self._accused: set[str] = set()
        """Contradictions that were told: once each, or the peer could fill the journal."""
        self._second = now
        self._heard = 0
        self._follow()

    # -- challenging -----------------------------------------------------------------------------------

    def challenge_now(self, now: int) -> None:
        """Challenge the peer and report to it, unless a challenge waits for its answer; as soon as packets
        may go out, and no sooner than 1 s after the last challenge (E-87).  ENOTCONN once the session ended.
        """
        if not self.session.active:
            raise LocalError(errno.ENOTCONN, "the session has ended")
        self._next_at = max(now, self._earliest)
        self._work(now)

    def acknowledged(self, header: Header, now: int) -> None:
        """The answer is due within 5 s of the challenge's ack (INT-01); over raw a lost one comes again, and
        later than that (E-93).
        """
        waiting = None if self.session.reliable else self._open
        if waiting is not None and header.ack >= waiting.seq:
            waiting.answer_by = min(waiting.answer_by, now + c.ANSWER_AFTER_ACK)
            self._follow()

    def rekeyed(self) -> None:
        """The keys changed: what was asked under the old ones is void (RK-06)."""
        self._open = self._asked = None
        self._follow()

    def _challenge(self, now: int) -> None:
        session = self.session
        self._next_at = now + self._interval if self._interval else NEVER
        if self._open is not None:
            return
        try:
            random = crypto.draw(session.core.rng, _RANDOM_SIZE)
        except RandomnessError:
            session.counters.count(DropReason.NO_RANDOMNESS)
            return
        seq = session.transmit(Type.INTEGRITY, now, challenge(random), flags=_REQUIRE_ACK)
        if seq is not None:
            self._earliest = now + c.INTEGRITY_SPACING
            self._open = _Open(random, seq, now + c.ANSWER_LIMIT)
            self._report_owed = True

    def report(self) -> StateReport:
        """This side's view of the session."""
        session = self.session
        return StateReport(
            epoch=session.keys.epoch,
            seq_sent=session.next_seq - 1,
            highest_seq_received=session.window.highest,
            packets_sent=session.next_seq - session.first_seq,
            packets_received=session.window.received,
            config_version=session.core.configuration.current.version,
            journal_head=session.core.journal.head,
        )

    # -- the peer's packets ----------------------------------------------------------------------------

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        op = plaintext[0] if plaintext else 0
        if op == ANSWER:
            return self._answered(plaintext, now)
        if op == CHALLENGE:
            if len(plaintext) != _CHALLENGE.size or self._is_open(plaintext[1:]):
                return DropReason.MALFORMED
            return self._challenged(plaintext[1:], now)
        if op == STATE:
            try:
                report = StateReport.unpack(plaintext)
            except DecodeError:
                return DropReason.MALFORMED
            return self._reported(report, header, now)
        return DropReason.MALFORMED

    def _challenged(self, random: bytes, now: int) -> Outcome:
        if self._flooded(now):
            return DropReason.INTEGRITY_LIMITED
        self._asked = random
        self._work(now)
        return Verdict.ACCEPTED

    def _answered(self, plaintext: bytes, now: int) -> Outcome:
        session = self.session
        if len(plaintext) != _ANSWER.size:
            return DropReason.MALFORMED
        random = plaintext[1 : _CHALLENGE.size]
        if not self._is_open(random):
            return DropReason.UNSOLICITED
        self._open = None
        self._follow()
        peer = Role.SERVER if session.role is Role.CLIENT else Role.CLIENT
        if right(session.keys, peer, random, plaintext):
            self.answered += 1
            return Verdict.ACCEPTED
        session.alert(now, "a challenge was answered wrongly")
        return DropReason.INTEGRITY_FAIL

    def _reported(self, report: StateReport, header: Header, now: int) -> Outcome:
        if self._flooded(now):
            return DropReason.INTEGRITY_LIMITED
        contradiction = self._contradiction(report, header)
        self._latest = report
        if contradiction is None:
            return Verdict.ACCEPTED
        kind, reason = contradiction
        if kind not in self._accused:
            self._accused.add(kind)
            self.session.alert(now, reason)
        return DropReason.INTEGRITY_FAIL

    def _is_open(self, random: bytes) -> bool:
        return self._open is not None and crypto.constant_time_equal(self._open.random, random)

    def _flooded(self, now: int) -> bool:
        """Whether this is too much to look at: a sound peer sends one challenge and one report a second at
        most.
        """
        if now - self._second >= c.SECOND:
            self._second = now
            self._heard = 0
        self._heard += 1
        return self._heard > c.INTEGRITY_PER_SECOND

    # -- INT-02 ----------------------------------------------------------------------------------------

    def _contradiction(self, report: StateReport, header: Header) -> tuple[str, str] | None:
        """In what a report cannot be true: the kind, and a sentence for the journal."""
        session, window = self.session, self.session.window
        last, sent = session.next_seq - 1, session.next_seq - session.first_seq
        if not session.first_seq <= report.highest_seq_received <= last:
            return "received", f"seq {report.highest_seq_received} was received, {last} is the last one sent"
        if report.packets_received > sent:
            return "received", f"{report.packets_received} packets were received of {sent} sent"
        # The report's own seq may be counted or not (E-86).
        if not header.seq - 1 <= report.seq_sent <= header.seq:
            return "sent", f"seq {report.seq_sent} was sent last, before {header.seq}"
        later = max(0, window.highest - header.seq)
        most = header.seq - self._peer_first + 1
        if not window.received - later - 1 <= report.packets_sent <= most:
            return "sent", f"{report.packets_sent} packets were sent, {window.received} received"
        epoch = session.keys.epoch
        if abs(report.epoch - epoch) > session.rekeying.underway:
            return "epoch", f"the epoch is {report.epoch} instead of {epoch}"
        earlier = self._latest
        if earlier is not None:
            name = report.reversed_since(earlier)
            if name is not None:
                return "back", f"{name} went back from {getattr(earlier, name)} to {getattr(report, name)}"
        return self._other_journal(report.journal_head)

    def _other_journal(self, head: bytes) -> tuple[str, str] | None:
        """Where this side has a copy of the peer's journal, the head must be its newest entry, or come in
        time.
        """
        replica = self.session.replication.replica
        ring = replica.ring
        if ring is None:
            return None
        expected, self._expected_head = self._expected_head, None
        if not replica.knows(head):
            self._expected_head = expected or (head, ring.next_index)
            return None
        if head != ring.head:
            return "journal", "the journal's head is older than entries that came before"
        if expected is not None and expected[1] >= ring.first_index and not replica.knows(expected[0]):
            return "journal", "the journal has another entry instead of what was its head"
        return None

    # -- the session's calls ---------------------------------------------------------------------------

    def handle_timer(self, now: int) -> None:
        if self._open is not None and now >= self._open.answer_by:
            self._open = None
            self.session.counters.count(DropReason.INTEGRITY_FAIL)
            self.session.alert(now, "a challenge was not answered")
        self._work(now)

    def postpone(self, duration: int) -> None:
        if self._open is not None:
            self._open.answer_by += duration
        self._follow()

    def _work(self, now: int) -> None:
        """Send what is due, unless packets pile up or are held: then a report would no longer be true by the
        time it goes out, nor an answer welcome after a change of keys.
        """
        if self._asked is not None and self._may_send:
            self._answer(self._asked, now)
        if now >= self._next_at and self._may_send:
            self._challenge(now)
        if self._report_owed and self._may_send:
            self._report_owed = False
            self.session.transmit(Type.INTEGRITY, now, self.report().pack())
        waits = self._asked is not None or self._report_owed or now >= self._next_at
        self._retry_at = now + _RETRY if waits else NEVER
        self._follow()

    @property
    def _may_send(self) -> bool:
        return self.session.flowing and not self.session.congested

    def _answer(self, random: bytes, now: int) -> None:
        session = self.session
        self._asked = None
        session.transmit(Type.INTEGRITY, now, answer(session.keys, session.role, random))

    def _follow(self) -> None:
        if self.session.end is not None:
            return
        self.due = self._next_at if self._retry_at == NEVER else self._retry_at
        if self._open is not None:
            self.due = min(self.due, self._open.answer_by)
