# SPDX-License-Identifier: GPL-2.0-or-later
"""A session over raw IP: nothing gets lost, doubled or out of order (TRN-04 .. TRN-07).

What comes in is committed and acknowledged when it arrives, and acted on when everything before it has
been; only what is indifferent to order is acted on at once.
"""

from __future__ import annotations

from typing import Any, Final

from . import constants as c
from . import wire
from .constants import ErrorCode, Flag, State, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError
from .keys import Keys
from .raw_sending import ANSWER, PRIORITY, RawSender, is_probe
from .reliable import Sent
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
_NUMBERED: Final = ANSWER | PRIORITY
"""Flags of the ACKs whose seq counts: answers to a configuration, and voids."""


class RawSession(RawSender):
    """Over raw IP.  Take :meth:`datagrams_to_send` instead of ``packets_to_send``."""

    def __init__(self, *, peer_seq: int, **arguments: Any) -> None:
        super().__init__(peer_seq=peer_seq, **arguments)
        self._peer_first = peer_seq
        self._handshake_ack: bytes | None = None
        self._welcome_hmac: bytes | None = None

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
            outcome = self._act(header, b"", now) if self.end is None else Verdict.ACCEPTED
            self._part_when_drained(now)
            return outcome
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
        return self._arrived(header, keys, plaintext, now)

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

    def _arrived(self, header: Header, keys: Keys, plaintext: bytes, now: int) -> Outcome:
        """A packet with a seq of its own that opened: committed and acknowledged whatever it is."""
        at_once = _indifferent_to_order(header)
        self.window.accept(header.seq, None if at_once else (header, plaintext))
        if header.type in _DECIDED_ON:
            self._undecided.add(header.seq)
        self._verified(header, keys, now)
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
        self._part_when_drained(now)
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

    def _closed(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if len(plaintext) > 1:
            return DropReason.MALFORMED
        self.acknowledge(now)  # before the keys are gone (section 15)
        if self.state is State.CLOSING:
            self._part(now)
            return Verdict.CLOSED
        return super()._closed(header, plaintext, now)


def _is_void(header: Header) -> bool:
    return header.type == _ACK and header.flags & _NUMBERED == PRIORITY


def _indifferent_to_order(header: Header) -> bool:
    """A CLOSE comes when its sender has drained or given up; a probe and its answer tell of the path."""
    return (
        header.type == _CLOSE
        or _is_void(header)
        or (header.type == _DISCOVER and not header.flags & _TELEMETRY)
    )


def _answers_itself(header: Header, acted: bool) -> bool:
    """Whether what was done with a packet has acknowledged it: a probe's answer is its ack (MTU-01)."""
    return acted and is_probe(header.type, header.flags)
