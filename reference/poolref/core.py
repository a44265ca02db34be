# SPDX-License-Identifier: GPL-2.0-or-later
"""What all sessions and handshakes of one node share, without any I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from .config import Configuration, Parameters
from .counters import Counters, DropReason
from .crypto import Rng
from .events import Observer
from .journal import ERROR_OF, ChangeType, Journal
from .keylog import Keylog
from .peers import PeerTable
from .settings import Settings
from .slots import Slots

if TYPE_CHECKING:
    from .session import Session


class Peer(NamedTuple):
    """Where a session's other end is: 16 bytes of address, IPv4 mapped; port 0 where there is none."""

    ip: bytes
    port: int = 0

    def __str__(self) -> str:
        address = IPv6Address(self.ip)
        return f"{address.ipv4_mapped or address} {self.port}"


NOBODY = Peer(bytes(16))


def _unheard(session: Session) -> None:
    """For users that look at every session anyway."""


@dataclass(slots=True)
class NodeCore:
    """``wall_clock`` gives UNIX ns (HS-06, journal), ``rng(n)`` n random bytes."""

    settings: Settings
    rng: Rng
    wall_clock: Callable[[], int]
    counters: Counters = field(default_factory=Counters)
    observer: Observer | None = None
    keylog: Keylog | None = None
    slots: Slots = field(default_factory=Slots)
    stir: Callable[[Session], None] = _unheard
    """Told of a session that has something to send, or a new timer, from outside its own calls."""
    journal: Journal = field(init=False)
    configuration: Configuration = field(init=False)
    peers: PeerTable = field(default_factory=PeerTable)

    def __post_init__(self) -> None:
        self.journal = Journal(self.counters)
        self.configuration = Configuration(Parameters.of(self.settings))

    def record(self, change_type: ChangeType, detail: str) -> None:
        """Journal who and why (JRN-04)."""
        version = self.configuration.current.version
        self.journal.append(change_type, detail, self.wall_clock(), version, version)

    def record_error(self, code: int, detail: str, now: int) -> None:
        """Journal an error, at most 10 a second in each category (ERR-01)."""
        self.journal.error(code, detail, now, self.wall_clock(), self.configuration.current.version)

    def record_discard(self, reason: DropReason, who: Peer, now: int) -> None:
        """Journal a discard, if it belongs to an error category (E-76)."""
        code = ERROR_OF.get(reason)
        if code is not None:
            self.record_error(code, f"{who} {reason}", now)
