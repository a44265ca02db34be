# SPDX-License-Identifier: GPL-2.0-or-later
"""What a connection tells its user, as immutable data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .constants import Role
from .counters import Outcome


class Event:
    """Base of all events."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class PuzzlePosed(Event):
    """The client must hand in a solution (``solved``) before ``deadline`` (ns of the caller's clock)."""

    seed: bytes
    difficulty: int
    deadline: int
    counter_first: bool = False
    """The peer's dialect wants the solution to begin with a counter."""


@dataclass(frozen=True, slots=True)
class SessionEstablished(Event):
    """The handshake is complete; DATA may flow."""

    session_id: bytes
    role: Role


@dataclass(frozen=True, slots=True)
class HandshakeFailed(Event):
    """The attempt is over; ``error`` is what the caller gets."""

    error: OSError


@dataclass(frozen=True, slots=True)
class MessageReceived(Event):
    """A message of ``size`` bytes waits in the receive queue."""

    channel: int
    size: int


EndCause = Literal[
    "closed", "local", "end_of_stream", "dead_peer", "protection", "sequence_exhausted", "timeout", "rekey"
]


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """The session is over, its keys are erased.

    ``cause`` is ``closed`` only for the peer's own authentic CLOSE (CLS-02), whose code is ``code``;
    otherwise ``code`` is the one this side ended with, None for a graceful close.
    """

    cause: EndCause
    code: int | None


@dataclass(frozen=True, slots=True)
class PeerUntrusted(Event):
    """Integrity or journal checks speak against the peer; ``reason`` says what (INT-01, INT-02, JRN-03)."""

    reason: str


@dataclass(frozen=True, slots=True)
class RekeyCompleted(Event):
    """Packets sent from now on are made with the keys of ``epoch`` (RK-02)."""

    epoch: int


@dataclass(frozen=True, slots=True)
class MtuChanged(Event):
    """Packets of up to ``mtu`` bytes go out from now on (MTU-04)."""

    old: int
    mtu: int


@dataclass(frozen=True, slots=True)
class ConfigAccepted(Event):
    """The peer put this side's proposal in force until its deadline (CFG-02)."""

    version: int


@dataclass(frozen=True, slots=True)
class ConfigRejected(Event):
    """The peer refused this side's proposal, or did not answer it or its confirmation in time; ``reason``
    says which (CFG-01, E-44).
    """

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConfigConfirmed(Event):
    """What this side proposed is permanent at the peer (CFG-03)."""

    version: int


@dataclass(frozen=True, slots=True)
class ConfigRolledBack(Event):
    """What this side proposed is no longer in force at the peer (CFG-04, CFG-05); ``reason`` says why."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class JournalReceived(Event):
    """``count`` new entries of the peer's journal were verified, the first of them with ``first_index``; the
    ``missing`` ones before it had been overwritten at the peer (JRN-03).
    """

    first_index: int
    count: int
    missing: int


@dataclass(frozen=True, slots=True)
class PacketTrace:
    """One packet as an observer sees it; ``outcome`` is None for a sent one.  ``now`` is ns of the core's
    clock.
    """

    now: int
    direction: Literal["sent", "received"]
    packet: bytes
    outcome: Outcome | None


Observer = Callable[[PacketTrace], None]
