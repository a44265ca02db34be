# SPDX-License-Identifier: GPL-2.0-or-later
"""What the wire does to chosen frames, deterministically: the k-th match, random choices from a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from poolproof.lab.frames import Frame, Predicate, with_checksums

# How long a reordered frame waits at most for the frames that are to overtake it.
REORDER_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """Bytes to send on: after `delay_s`, or once `overtakers` more frames of the same origin have passed."""

    data: bytes
    delay_s: float = 0.0
    overtakers: int = 0


class Action(Protocol):
    """Turns one frame into what is delivered in its place."""

    @property
    def name(self) -> str: ...

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]: ...


@dataclass(frozen=True)
class Drop:
    name: str = "dropped"

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]:
        return ()


@dataclass(frozen=True)
class Duplicate:
    copies: int = 1
    gap_s: float = 0.0
    name: str = "duplicated"

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]:
        return [Delivery(frame.data, self.gap_s * n) for n in range(self.copies + 1)]


@dataclass(frozen=True)
class Delay:
    seconds: float
    jitter_s: float = 0.0
    name: str = "delayed"

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]:
        return [Delivery(frame.data, self.seconds + self.jitter_s * rng.random())]


@dataclass(frozen=True)
class Reorder:
    depth: int = 1
    name: str = "reordered"

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]:
        return [Delivery(frame.data, REORDER_PATIENCE_S, self.depth)]


@dataclass(frozen=True)
class Corrupt:
    """Flip `bits` bits of the payload (of the frame where there is none), or of its byte at `offset`.

    With `believable` the checksums of IP and TCP or UDP are made right again, so the change gets as far as
    the protocol above; without it the receiving kernel drops the packet.
    """

    offset: int | None = None
    bits: int = 1
    believable: bool = True
    name: str = "corrupted"

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]:
        packet = frame.packet
        start, end = (0, len(frame.data))
        if packet is not None and packet.end > packet.payload_at:
            start, end = packet.payload_at, packet.end
        data = bytearray(frame.data)
        if self.offset is not None:
            positions = [start + self.offset] if start + self.offset < end else []
            flips = [(at, bit) for at in positions for bit in rng.sample(range(8), min(self.bits, 8))]
        else:
            chosen = rng.sample(range((end - start) * 8), min(self.bits, (end - start) * 8))
            flips = [(start + bit // 8, bit % 8) for bit in chosen]
        for at, bit in flips:
            data[at] ^= 1 << bit
        return [Delivery(with_checksums(bytes(data)) if self.believable else bytes(data))]


@dataclass(frozen=True)
class Rewrite:
    """Replace the frame by what `function(frame)` gives: whole Ethernet frames, none or more."""

    function: Callable[[Frame], bytes | Sequence[bytes]]
    believable: bool = True
    name: str = "rewritten"

    def __call__(self, frame: Frame, rng: random.Random) -> Sequence[Delivery]:
        result = self.function(frame)
        frames = [result] if isinstance(result, bytes) else result
        return [Delivery(with_checksums(data) if self.believable else data) for data in frames]


@dataclass(eq=False)
class Rule:
    """`action` on matches number `k` to `k + count - 1`, each with `probability`.

    `k` counts from 1; with `count` None it goes on for ever.
    """

    match: Predicate
    action: Action
    k: int = 1
    count: int | None = 1
    probability: float = 1.0
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    seen: int = 0
    applied: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def apply(self, frame: Frame) -> Sequence[Delivery] | None:
        """Deliveries in place of `frame`, or None when the rule leaves it alone."""
        if not self.match(frame):
            return None
        with self._changed:
            self.seen += 1
            due = self.seen >= self.k and (self.count is None or self.seen < self.k + self.count)
            # One draw per match, so that a rule's choices depend on nothing but the order of its matches.
            if not due or self.rng.random() >= self.probability:
                return None
            self.applied += 1
            self._changed.notify_all()
        return self.action(frame, self.rng)

    def wait(self, times: int = 1, timeout: float = 10.0) -> bool:
        """Wait until the rule has acted `times` times; False when it has not within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.applied >= times, timeout)
