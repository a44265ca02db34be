# SPDX-License-Identifier: GPL-2.0-or-later
"""A session over raw IP: nothing gets lost, doubled or out of order (TRN-04 .. TRN-07).

What goes out with a seq of its own stays in the send window until it is acknowledged, and goes out again
as it was.  What comes in is committed and acknowledged when it arrives, and acted on when everything
before it has been; only what is indifferent to order is acted on at once.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, ClassVar, Final, NamedTuple

from . import constants as c
from . import wire
from .constants import ErrorCode, Flag, State, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError, LocalError
from .events import EndCause
from .keys import Keys
from .part import NEVER, Part
from .reliable import ReceiveWindow, SendWindow, Sent, retransmission_timeout
from .session import Session
from .wire import Header

_DATA: Final = int(Type.DATA)
_ACK: Final = int(Type.ACK)
_RESPONSE: Final = int(Type.RESPONSE)
_HEARTBEAT: Final = int(Type.HEARTBEAT)
_CLOSE: Final = int(Type.CLOSE)
_DISCOVER: Final = int(Type.DISCOVER)
_DECIDED_ON: Final = (int(Type.CONFIG), int(Type.ROLLBACK))
_REQUIRE_ACK: Final = int(Flag.REQUIRE_ACK)
_TELEMETRY: Final = int(Flag.TELEMETRY)
_PRIORITY: Final = int(Flag.PRIORITY)
_ANSWER: Final = int(Flag.CONFIG_LOCKED | Flag.ROLLBACK_READY)
_NUMBERED: Final = _ANSWER | _PRIORITY
"""Flags of the ACKs whose seq counts: answers to a configuration, and voids."""


class Datagram(NamedTuple):
    """One packet and whether DF is set in its IP header."""

    packet: bytes
    dont_fragment: bool = True


class RawSession(Session):
    """Over raw IP.  Take :meth:`datagrams_to_send` instead of ``packets_to_send``."""

    transport: ClassVar[str] = "raw"
    reliable: ClassVar[bool] = True

    def __init__(self, *, peer_seq: int, **arguments: Any) -> None:
        self.in_flight = SendWindow()
        super().__init__(peer_seq=peer_seq, **arguments)
        self.window: ReceiveWindow[tuple[Header, bytes]] = ReceiveWindow(peer_seq)
        self._peer_first = peer_seq
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
        self._handshake_ack: bytes | None = None
        self._welcome_hmac: bytes | None = None
        self._parting: tuple[EndCause, int | None] | None = None
        """Why this side ends the session, once it has decided to."""
        self._parting_due = NEVER

    # -- the handshake's last packets ------------------------------------------------------------------

    def welcomed_with(self, ack: bytes, now: int) -> None:
        """The server's handshake ACK went out: it is resent like everything else (E-40), and answers a
        repeated RESPONSE (SEQ-03).
        """
        self._handshake_ack = ack
        self._launch(Sent(self.first_seq, ack, now, self._timeout()))

    def welcomed_by(self, header: Header, now: int) -> None:
        """The client took the handshake ACK, which wants an acknowledgement itself (TRN-06)."""
        self._welcome_hmac = header.hmac
        self.owe_ack(now)

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
        while self._held_answers and not self.in_flight.full:
            flags, ack = self._held_answers.popleft()
            self._answer(flags, ack, now)
        self._releasing = True
        super().release(now)
        self._releasing = False

    def acknowledge(self, now: int, *, ack: int | None = None, flags: int = 0) -> None:
        if self.end is not None:
            return
        if flags & _ANSWER:
            if self.in_flight.full or self._held_answers:
                self._held_answers.append((flags, ack))
            else:
                self._answer(flags, ack, now)
            return
        value = self.ack if ack is None else ack
        self._acknowledged_up_to(value)
        if (value, self.keys) == self._answered:  # without its flags the same ack would mean a refusal (E-44)
            self._queue(self._last_answer, now)
        else:
            # A plain ACK takes no seq: it repeats the last one, without anything sealed under it.
            self._queue(self.protect(_ACK, now, flags=flags, seq=self.next_seq - 1, ack=value), now)

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
        self._launch(Sent(seq, packet, now, self._timeout(), probe=_is_probe(type, flags)))
        self._queue(packet, now)
        if self._releasing and type == _HEARTBEAT:
            self.heartbeats.round_trip.sent(seq, now)  # only now does its round trip begin
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
                sent.packet = self.protect(_ACK, now, flags=_PRIORITY, seq=sent.seq)
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

    # -- receiving -------------------------------------------------------------------------------------

    def _receive(self, packet: bytes, now: int) -> Outcome:
        try:
            header = wire.parse(packet)
        except DecodeError:
            return DropReason.MALFORMED
        reason = self._legible(header)
        if reason is not None:
            return reason
        keys = self._keys_of(header, packet)
        if keys is None:
            return self._refuse(now, DropReason.AUTH_FAIL, ErrorCode.AUTH_FAIL)
        if not self._peer_low <= header.seq < self._peer_high:
            return DropReason.REFLECTED
        if header.type == _ACK and not header.flags & _NUMBERED:
            if header.hmac == self._welcome_hmac:
                self.owe_ack(now)
                return DropReason.DUPLICATE
            self._verified(header, keys, now)
            self._take_ack(header, now)
            return self._act(header, b"", now) if self.end is None else Verdict.ACCEPTED
        reason = self.window.objection(header.seq)
        if reason is not None:
            if reason is DropReason.DUPLICATE:
                self._answer_duplicate(header, now)
            return reason
        if header.type == _DATA and self._overloaded:
            return DropReason.OVERLOAD
        plaintext = self._open(header, packet, keys)
        if plaintext is None:
            return self._refuse(now, DropReason.DECRYPT_FAIL, ErrorCode.DECRYPT_FAIL)
        self._verified(header, keys, now)
        return self._arrived(header, plaintext, now)

    def _refuse(self, now: int, reason: DropReason, code: ErrorCode) -> DropReason:
        """SEAL-06, SEAL-07: anybody can send a datagram, so the session survives a forged one."""
        return reason

    def _answer_duplicate(self, header: Header, now: int) -> None:
        if header.type == _RESPONSE and header.seq == self._peer_first and self._handshake_ack is not None:
            self._queue(self._handshake_ack, now)
        else:
            self.owe_ack(now)

    @property
    def _overloaded(self) -> bool:
        """DATA-04: whether the receive queue has no room for another message, those on their way to it
        counted.
        """
        room = c.RECEIVE_QUEUE - len(self.inbox)
        if room > c.RECEIVE_AHEAD:
            return False
        return room <= sum(header.type == _DATA for header, _ in self.window.early())

    def _arrived(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """A packet with a seq of its own that opened: committed and acknowledged whatever it is."""
        at_once = _indifferent_to_order(header)
        self.window.accept(header.seq, None if at_once else (header, plaintext))
        if header.type in _DECIDED_ON:
            self._undecided.add(header.seq)
        acks_sent = self._acks_sent
        if header.type != _RESPONSE:  # whose ack is none (E-11)
            self._take_ack(header, now)
        outcome: Outcome = Verdict.ACCEPTED
        acted = False
        if at_once and self.end is None and not _is_void(header):
            acted = True
            outcome = self._act(header, plaintext, now)
        while self.end is None and (ready := self.window.next_ready()) is not None:
            result = self._act(*ready, now)
            self._undecided.discard(ready[0].seq)
            if ready[0] is header:
                acted = True
                outcome = result
            elif isinstance(result, DropReason):
                self.counters.count(result)
                self._discarded(result, now)
        if self.end is None and self._acks_sent == acks_sent and not _answers_itself(header, acted):
            self.owe_ack(now, at_once=header.type == _HEARTBEAT)
        return outcome

    def _take_ack(self, header: Header, now: int) -> None:
        """Everything of ours up to the packet's ack has arrived (TRN-04)."""
        ack = header.ack
        if not self.first_seq <= ack < self.next_seq:
            self.counters.count(DropReason.BAD_ACK)
            header.ack = self.first_seq
            return
        acknowledged = self.in_flight.acknowledge(ack)
        if not acknowledged.packets:
            return
        if acknowledged.resent:
            self.heartbeats.round_trip.forget(ack)
        self._resending.due = self.in_flight.due
        if self.state is State.CLOSING:
            self._part(now)
            return
        if not self.in_flight:
            for part in self.parts:
                part.drained(now)
        self.release(now)
        self._part_when_drained(now)

    def _closed(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if len(plaintext) > 1:
            return DropReason.MALFORMED
        self.acknowledge(now)  # before the keys are gone (section 15)
        if self.state is State.CLOSING:
            self._part(now)
            return Verdict.CLOSED
        return super()._closed(header, plaintext, now)

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
        self._handshake_ack = None

    def _part_when_drained(self, now: int) -> None:
        if self._parting is None or self.end is not None:
            return
        if not (self.in_flight or self._held or self._held_answers):
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

    def __init__(self, session: RawSession) -> None:
        super().__init__(session)
        self._raw = session

    def handle_timer(self, now: int) -> None:
        self._raw.resend(now)


def _is_probe(type: int, flags: int) -> bool:
    return type == _DISCOVER and flags & (_REQUIRE_ACK | _TELEMETRY) == _REQUIRE_ACK


def _is_void(header: Header) -> bool:
    return header.type == _ACK and header.flags & _NUMBERED == _PRIORITY


def _indifferent_to_order(header: Header) -> bool:
    """A CLOSE comes when its sender has drained or given up; a probe and its answer tell of the path."""
    return (
        header.type == _CLOSE
        or _is_void(header)
        or (header.type == _DISCOVER and not header.flags & _TELEMETRY)
    )


def _answers_itself(header: Header, acted: bool) -> bool:
    """Whether what was done with a packet has acknowledged it: a probe's answer is its ack (MTU-01)."""
    return acted and _is_probe(header.type, header.flags)
