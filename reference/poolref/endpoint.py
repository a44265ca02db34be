# SPDX-License-Identifier: GPL-2.0-or-later
"""What handshakes and sessions have in common: packets in, packets and events out, everything counted and
traced.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from .counters import Counters, DropReason, Outcome
from .events import Event, Observer, PacketTrace
from .keys import Keys

if TYPE_CHECKING:
    from .misbehaviour.conduct import Conduct


class Endpoint(ABC):
    """One side of a conversation, without any I/O.

    The network calls :meth:`receive_packet`, the timer :meth:`handle_timer` when :meth:`next_timer` says
    so; after either, and after any call of a subclass, take :meth:`packets_to_send` and
    :meth:`next_event`.
    """

    __slots__ = ("_answers", "_events", "_out", "closing", "conduct", "counters", "observer")

    def __init__(self, counters: Counters, observer: Observer | None, conduct: Conduct | None = None) -> None:
        self.counters = counters
        self.observer = observer
        self.conduct = conduct
        """How this side misbehaves on purpose; None: not at all."""
        self.closing = False
        """The transport is to be closed once everything is sent."""
        self._out: list[bytes] = []
        self._events: deque[Event] = deque()
        self._answers: list[PacketTrace] | None = None

    def receive_packet(self, packet: bytes, now: int) -> Outcome:
        """Take one whole packet (80 bytes and its payload) and say what became of it.  Never raises
        (WIRE-07).
        """
        if self.conduct is not None:
            self.conduct.hear(packet)
        if self.observer is None:
            outcome = self._receive(packet, now)
        else:
            outcome = self._observed(packet, now, self.observer)
        if isinstance(outcome, DropReason):
            self.counters.count(outcome)
            self._discarded(outcome, now)
        else:
            self.counters.count("packets_received")
        return outcome

    def packets_to_send(self) -> list[bytes]:
        """The packets that wait to be sent, oldest first; they count as handed over."""
        out, self._out = self._out, []
        return out

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        return self._events.popleft() if self._events else None

    @abstractmethod
    def next_timer(self) -> int | None:
        """When :meth:`handle_timer` is due (ns), or None."""

    @abstractmethod
    def handle_timer(self, now: int) -> None:
        """Do what is due at ``now``; harmless when nothing is."""

    @abstractmethod
    def end_of_stream(self, now: int) -> None:
        """The transport is gone or the peer closed it."""

    @abstractmethod
    def _receive(self, packet: bytes, now: int) -> Outcome: ...

    @abstractmethod
    def _discarded(self, reason: DropReason, now: int) -> None:
        """A packet was discarded and counted: journal what belongs there (ERR-01)."""

    @abstractmethod
    def _protection(self) -> Keys | None:
        """The keys that packets sent now are made with."""

    def _observed(self, packet: bytes, now: int, observer: Observer) -> Outcome:
        self._answers = []
        try:
            outcome = self._receive(packet, now)
        finally:
            answers, self._answers = self._answers, None
        for trace in (
            PacketTrace(now, "received", packet, outcome),
            *answers,
        ):  # the cause before its effects
            observer(trace)
        return outcome

    def _queue(self, packet: bytes, now: int) -> None:
        if self.conduct is None:
            self.put(packet, now)
        else:
            for each in self.conduct.emit(packet, self._protection(), now):
                self.put(each, now)

    def put(self, packet: bytes, now: int) -> None:
        """Queue a packet exactly as it is."""
        self.counters.count("packets_sent")
        self._out.append(packet)
        if self.observer is not None:
            trace = PacketTrace(now, "sent", packet, None)
            if self._answers is None:
                self.observer(trace)
            else:
                self._answers.append(trace)
