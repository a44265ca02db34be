# SPDX-License-Identifier: GPL-2.0-or-later
"""What all sessions and handshakes of one node share, without any I/O."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, NamedTuple

from .config import Configuration, Parameters
from .counters import Counters
from .crypto import Rng
from .events import Observer
from .journal import Journal
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
