# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session sends over raw IP, and how it ends (TRN-04, TRN-07, section 15).

What goes out with a seq of its own stays in the send window until it is acknowledged, and goes out again
as it was.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, ClassVar, Final, NamedTuple

from . import constants as c
from .constants import Flag, State, Type
from .errors import LocalError
from .events import EndCause
from .keys import Keys
from .part import NEVER, Part
from .reliable import ReceiveWindow, SendWindow, Sent, retransmission_timeout
from .session import Session
from .wire import Header

_ACK: Final = int(Type.ACK)
_HEARTBEAT: Final = int(Type.HEARTBEAT)
_CLOSE: Final = int(Type.CLOSE)
_DISCOVER: Final = int(Type.DISCOVER)
_REQUIRE_ACK: Final = int(Flag.REQUIRE_ACK)
_TELEMETRY: Final = int(Flag.TELEMETRY)
PRIORITY: Final = int(Flag.PRIORITY)
ANSWER: Final = int(Flag.CONFIG_LOCKED | Flag.ROLLBACK_READY)
"""Flags of an ACK that answers a configuration; its seq counts, as does that of a void."""


class Datagram(NamedTuple):
    """One packet and whether DF is set in its IP header."""

    packet: bytes
    dont_fragment: bool = True


def is_probe(type: int, flags: int) -> bool:
    """Whether a packet is an MTU probe (MTU-01)."""
    return type == _DISCOVER and flags & (_REQUIRE_ACK | _TELEMETRY) == _REQUIRE_ACK


class RawSender(Session):
    """The half of a raw session that sends; what is received is the other half's."""

    transport: ClassVar[str] = "raw"
    reliable: ClassVar[bool] = True

    def __init__(self, *, peer_seq: int, **arguments: Any) -> None:
        self.in_flight = SendWindow()
        super().__init__(peer_seq=peer_seq, **arguments)
        self.window: ReceiveWindow[tuple[Header, bytes]] = ReceiveWindow(peer_seq)
        self._resending = _Resending(self)
        self.parts += (self._resending,)
        self._fragmentable: set[int] = set()
        self._held_answers: deque[tuple[int, int | None]] = deque()
        """Flags and ack of the answers to a configuration that found the window full."""
        self._answered: tuple[int, Keys] | None = None
        """The seq that the last such answer was about, and the keys it was made with."""
        self._last_answer = b""
        self._undecided: set[int] = set()
        """The seqs of what will be answered like that and waits for its turn."""
        self._releasing = False
        self._acks_sent = 0
        self._parting: tuple[EndCause, int | None] | None = None
        """Why this side ends the session, once it has decided to."""
        self._parting_due = NEVER

    # -- the user --------------------------------------------------------------------------------------

    @property
    def active(self) -> bool:
        return super().active and self._parting is None

    def send(self, data: bytes, now: int, channel: int = 0) -> None:
        if not self.active:
            raise LocalError(errno.ENOTCONN, "the session is being closed")
        super().send(data, now, channel)
        if not self.active:
            raise LocalError(errno.ENOTCONN, "the session has no seq left")

    def datagrams_to_send(self) -> list[Datagram]:
        """The datagrams that wait to be sent, oldest first; they count as handed over."""
        fragmentable, self._fragmentable = self._fragmentable, set()
        return [
            Datagram(packet, place not in fragmentable) for place, packet in enumerate(self.packets_to_send())
        ]

    # -- sending ---------------------------------------------------------------------------------------

    @property
    def outstanding(self) -> bool:
        return len(self.in_flight) > 0

    @property
    def holding(self) -> bool:
        return self.in_flight.full or super().holding

    @property
    def flowing(self) -> bool:
        return super().flowing and self.state is not State.CLOSING

    @property
    def ack(self) -> int:
        cumulative = self.window.cumulative
        if not self._held_answers and not self._undecided:
            return cumulative
        # What is answered by an ACK of its own is acknowledged by nothing else before (E-44).
        waiting = self._undecided.union(ack for _, ack in self._held_answers if ack is not None)
        return min(cumulative, min(waiting, default=cumulative + 1) - 1)

    def transmit(
        self, type: Type, now: int, plaintext: bytes = b"", *, flags: int = 0, channel: int = 0
    ) -> int | None:
        if self.state is State.CLOSING:
            return None
        return super().transmit(type, now, plaintext, flags=flags, channel=channel)

    def release(self, now: int) -> None:
        while self._held_answers and self._may_answer:
            flags, ack = self._held_answers.popleft()
            self._answer(flags, ack, now)
        self._releasing = True
        super().release(now)
        self._releasing = False

    def acknowledge(self, now: int, *, ack: int | None = None, flags: int = 0) -> None:
        if self.end is not None:
            return
        if flags & ANSWER:
            if self._may_answer and not self._held_answers:
                self._answer(flags, ack, now)
            else:
                self._held_answers.append((flags, ack))
            return
        value = self.ack if ack is None else ack
        self._acknowledged_up_to(value)
        if (value, self.keys) == self._answered:  # without its flags the same ack would mean a refusal (E-44)
            self._queue(self._last_answer, now)
        else:
            # A plain ACK takes no seq: it repeats the last one, without anything sealed under it.
            self._queue(self.protect(_ACK, now, flags=flags, seq=self.next_seq - 1, ack=value), now)

    @property
    def _may_answer(self) -> bool:
        """Whether an ACK with a seq of its own may go out; it must not be resent after its keys (RK-04)."""
        return not self.in_flight.full and not self.rekeying.silent

    def _answer(self, flags: int, ack: int | None, now: int) -> None:
        """An ACK that is resent until it is acknowledged itself."""
        if not self._seq_left(now):
            return
        seq = self.next_seq
        value = self.ack if ack is None else ack
        self._acknowledged_up_to(value)
        packet = self.protect(_ACK, now, flags=flags, ack=value)
        self._launch(Sent(seq, packet, now, self._timeout()))
        if ack is not None:
            self._answered, self._last_answer = (ack, self.keys), packet
        self._queue(packet, now)

    def _acknowledged_up_to(self, ack: int) -> None:
        if ack == self.window.cumulative:
            self._acks_sent += 1
            self._ack_pending = 0
            self._ack_due = None

    def _dispatch(self, type: Type, now: int, plaintext: bytes, flags: int, channel: int) -> int | None:
        if not self._seq_left(now):
            return None
        seq = self.next_seq
        packet = self.protect(type, now, plaintext, flags=flags, channel=channel)
        self._launch(Sent(seq, packet, now, self._timeout(), probe=is_probe(type, flags)))
        self._queue(packet, now)
        if self._releasing and type == _HEARTBEAT:
            self.heartbeats.round_trip.sent(seq, now)  # only now does its round trip begin
        if self.next_seq + self.window.received >= self.rekeying.age.packets_due:
            self.rekeying.age.worn(now)
        return seq

    def _launch(self, sent: Sent) -> None:
        self.in_flight.add(sent)
        self._resending.due = min(self._resending.due, sent.due)

    def _timeout(self) -> int:
        round_trip = self.heartbeats.round_trip
        return retransmission_timeout(round_trip.srtt, round_trip.jitter)

    def resend(self, now: int) -> None:
        """Send again what has waited long enough for its acknowledgement."""
        lost = False
        for sent in self.in_flight.overdue(now):
            if sent.exhausted:
                self.counters.count("sessions_timed_out")
                self.finish(now, "timeout", None)
                return
            if sent.probe:
                sent.probe = False
                sent.packet = self.protect(_ACK, now, flags=PRIORITY, seq=sent.seq)
            else:
                lost = True
            fragmentable = sent.again(now)
            first = len(self._out)
            self._queue(sent.packet, now)
            if fragmentable:
                self._fragmentable.update(range(first, len(self._out)))
            self.counters.count("packets_resent")
            if self.state is State.CLOSING and sent.exhausted:
                self._part(now)  # nothing that could still come would change anything
                return
        self._resending.due = self.in_flight.due
        if lost:
            for part in self.parts:
                part.lost(now)

    # -- the end ---------------------------------------------------------------------------------------

    def close_with(self, now: int, cause: EndCause, code: int | None) -> None:
        """With a CLOSE, after what the user sent has arrived, if it is the user who closes."""
        if self.end is not None or self.state is State.CLOSING:
            return
        if cause != "local":
            if code is not None:
                self.core.record_error(code, f"{self.peer} {cause}", now)
            self._send_close(now, cause, code)
        elif self._parting is None:
            self._parting = cause, code
            self._parting_due = now + c.DRAIN_LIMIT
            self._part_when_drained(now)

    def finish(self, now: int, cause: EndCause, code: int | None) -> None:
        super().finish(now, cause, code)
        self.window.clear()
        self.in_flight.clear()
        self._held_answers.clear()
        self._undecided.clear()

    def _part_when_drained(self, now: int) -> None:
        if self._parting is None or self.end is not None:
            return
        if not (self.in_flight or self._held or self._held_answers or self.rekeying.silent):
            self._send_close(now, *self._parting)

    def _send_close(self, now: int, cause: EndCause, code: int | None) -> None:
        self._parting = cause, code
        self.state = State.CLOSING
        self.in_flight.clear()
        self._held.clear()
        self._held_answers.clear()
        seq = self.next_seq
        if seq >= self._seq_limit:
            self._part(now)
            return
        packet = self.protect(_CLOSE, now, b"" if code is None else bytes([code]))
        self._resending.due = NEVER
        self._launch(Sent(seq, packet, now, self._timeout(), limit=c.CLOSE_SENDS))
        self._queue(packet, now)
        self._parting_due = now + c.LINGER

    def _part(self, now: int) -> None:
        if self._parting is not None and self.end is None:
            self.finish(now, *self._parting)

    # -- the timer -------------------------------------------------------------------------------------

    def next_timer(self) -> int | None:
        if self.end is not None:
            return super().next_timer()
        if self.state is State.CLOSING:
            due = self._resending.due if self._ack_due is None else min(self._resending.due, self._ack_due)
        else:
            parts_due = super().next_timer()
            due = NEVER if parts_due is None else parts_due
        return min(due, self._parting_due)

    def handle_timer(self, now: int) -> None:
        if self.end is not None:
            super().handle_timer(now)
        elif now >= self._parting_due:
            self._part_on_time(now)
        elif self.state is not State.CLOSING:
            super().handle_timer(now)
        else:
            if self._ack_due is not None and now >= self._ack_due:
                self._send_ack(now)
            if now >= self._resending.due:
                self.resend(now)

    def _part_on_time(self, now: int) -> None:
        if self.state is State.CLOSING:
            self._part(now)
        elif self._parting is not None:
            self._send_close(now, *self._parting)


class _Resending(Part):
    """The timer of the packets in flight."""

    def __init__(self, session: RawSender) -> None:
        super().__init__(session)
        self._raw = session

    def handle_timer(self, now: int) -> None:
        self._raw.resend(now)
