# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes raw IP reliable and ordered (TRN-04, TRN-06): both ends' windows, without packets' contents.

Pure: packets are bytes that go out again as they are, received items are whatever the caller wants back
in the order of their seqs.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, NamedTuple, TypeVar

from . import constants as c
from .counters import DropReason
from .part import NEVER
from .replay import ReplayWindow

Item = TypeVar("Item")


def retransmission_timeout(srtt: int, jitter: int) -> int:
    """How long (ns) to wait for the acknowledgement of a packet sent now; ``srtt`` 0: no sample yet."""
    if not srtt:
        return c.RTO_INITIAL
    low, high = c.RTO_RANGE
    return min(max(srtt + 4 * jitter, low), high)


class Sent:
    """A packet in flight."""

    __slots__ = ("due", "interval", "limit", "packet", "probe", "sends", "seq")

    def __init__(
        self,
        seq: int,
        packet: bytes,
        now: int,
        interval: int,
        *,
        limit: int = c.SENDS,
        probe: bool = False,
    ) -> None:
        self.seq = seq
        self.packet = packet
        self.sends = 1
        self.limit = limit
        """Sends in all."""
        self.interval = interval
        """ns between the latest send and the next one."""
        self.due = now + interval
        self.probe = probe
        """An MTU probe, which is never resent (TRN-07)."""

    @property
    def exhausted(self) -> bool:
        """It was sent as often as it may be."""
        return self.sends >= self.limit

    def again(self, now: int) -> bool:
        """Account for another send; whether DF is clear in it."""
        self.sends += 1
        self.interval = min(2 * self.interval, c.RTO_RANGE[1])
        self.due = now + self.interval
        return self.sends >= c.FRAGMENTABLE_FROM


class Acknowledged(NamedTuple):
    """What an ack did to the packets in flight."""

    packets: int
    resent: bool
    """One of them had been sent more than once."""


class SendWindow:
    """What was sent and is not acknowledged, in the order of seqs."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[int, Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        """Nothing more may be sent for now."""
        return len(self._sent) >= c.IN_FLIGHT_LIMIT

    @property
    def due(self) -> int:
        """When the next packet has waited long enough for its acknowledgement (ns)."""
        return min((sent.due for sent in self._sent.values()), default=NEVER)

    def add(self, sent: Sent) -> None:
        """A packet went out for the first time; seqs ascend."""
        self._sent[sent.seq] = sent

    def acknowledge(self, ack: int) -> Acknowledged:
        """Everything up to ``ack`` has arrived; an ack below an earlier one says nothing."""
        resent = False
        packets = 0
        while self._sent:
            seq = next(iter(self._sent))
            if seq > ack:
                break
            resent |= self._sent.pop(seq).sends > 1
            packets += 1
        return Acknowledged(packets, resent)

    def overdue(self, now: int) -> list[Sent]:
        """The packets that have waited long enough, the oldest first."""
        return [sent for sent in self._sent.values() if now >= sent.due]

    def clear(self) -> None:
        """Forget everything."""
        self._sent.clear()


class ReceiveWindow(ReplayWindow, Generic[Item]):
    """The replay window of a raw session, which also puts packets back into their order.

    Nothing is forgotten that it could still be asked about: ``next expected`` only moves when a packet
    arrives, and nothing from 64 above it on is accepted.
    """

    __slots__ = ("_early", "_ready", "cumulative")

    def __init__(self, initial: int) -> None:
        super().__init__(initial)
        self.cumulative = initial
        """Everything up to it has arrived."""
        self._early: dict[int, Item | None] = {}
        self._ready: deque[Item] = deque()

    def objection(self, seq: int) -> DropReason | None:
        """Why a packet with this seq is discarded, None if it is not; changes nothing (TRN-06)."""
        ahead = seq - self.cumulative
        if ahead <= 0 or seq in self._early:
            return DropReason.DUPLICATE
        return DropReason.OUT_OF_WINDOW if ahead > c.RECEIVE_AHEAD else None

    def accept(self, seq: int, item: Item | None) -> None:
        """Commit a seq without objection; ``item`` comes out of :meth:`next_ready` when it is its turn."""
        self.commit(seq)
        self._early[seq] = item
        while self.cumulative + 1 in self._early:
            self.cumulative += 1
            ready = self._early.pop(self.cumulative)
            if ready is not None:
                self._ready.append(ready)

    def next_ready(self) -> Item | None:
        """The next item in the order of seqs, None while a gap precedes it."""
        return self._ready.popleft() if self._ready else None

    def early(self) -> list[Item]:
        """The items that wait for a gap to be filled."""
        return [item for item in self._early.values() if item is not None]

    def clear(self) -> None:
        """Forget the items; the seqs stay."""
        self._early = dict.fromkeys(self._early)
        self._ready.clear()
