# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be seen of a node: sessions, peers, journal, configuration, figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import constants as c
from .config import Current
from .core import NodeCore, Peer
from .io.link import Clock
from .io.tcp import mapped_ip
from .journal import Entry
from .node_session import Session
from .node_table import EventCallback, SessionTable
from .peers import NO_KEY, KnownPeer
from .settings import Settings


@dataclass(frozen=True, slots=True)
class NodeStats:
    """A snapshot.  Bytes and packets as in SessionInfo, over all sessions since the node was made."""

    uptime_ns: int
    port: int | None
    sessions: int
    connections: int
    """Links of any kind: sessions, handshakes under way, farewells."""
    bytes_sent: int
    bytes_recv: int
    packets_sent: int
    packets_recv: int
    rekey_count: int
    config_version: int
    config_tentative: bool
    journal_entries: int
    """All that were ever written; the journal keeps the latest 1024 of them."""
    journal_head: bytes
    peers: int
    untrusted: int
    """Sessions whose peer integrity or journal checks speak against."""


class NodeView:
    """The part of a Node that only looks, and the table of peers."""

    def __init__(self, core: NodeCore, table: SessionTable, clock: Clock) -> None:
        self._core = core
        self._table = table
        self._clock = clock
        self._started = clock()

    def now(self) -> int:
        """The time on the node's clock: ns of an unspecified epoch."""
        return self._clock()

    @property
    def port(self) -> int | None:
        """The port being listened on, None while not listening."""
        return None

    @property
    def events(self) -> EventCallback | None:
        """Who is told of every event.  What a callback raises goes to the loop's exception handler."""
        return self._table.events

    @events.setter
    def events(self, callback: EventCallback | None) -> None:
        self._table.events = callback

    @property
    def settings(self) -> Settings:
        """What the node was started with; :attr:`configuration` is what is in force."""
        return self._core.settings

    @property
    def configuration(self) -> Current:
        """The configuration in force: version, hash and parameters (CFG-06)."""
        return self._core.configuration.current

    def sessions(self) -> list[Session]:
        """The sessions that hold a slot, by index."""
        return sorted(self._table.by_link.values(), key=lambda session: session.index)

    def counters(self) -> dict[str, int]:
        """Every counter by name, over all sessions and handshakes so far."""
        return dict(self._core.counters)

    def journal(self) -> tuple[Entry, ...]:
        """The journal, oldest kept entry first (JRN-02)."""
        return self._core.journal.entries()

    def watch_journal(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` after each new entry."""
        self._core.journal.watch(watcher)

    def stats(self) -> NodeStats:
        """A snapshot of the node's figures."""
        core = self._core
        sessions = self.sessions()
        traffic = [session.traffic() for session in sessions]
        sums = [sum(column) for column in zip(self._table.ended_traffic, *traffic, strict=True)]
        current = core.configuration
        return NodeStats(
            uptime_ns=self._clock() - self._started,
            port=self.port,
            sessions=len(sessions),
            connections=len(self._table.links),
            bytes_sent=sums[0],
            bytes_recv=sums[1],
            packets_sent=sums[2],
            packets_recv=sums[3],
            rekey_count=sums[4],
            config_version=current.current.version,
            config_tentative=current.tentative is not None,
            journal_entries=core.journal.next_index,
            journal_head=core.journal.head,
            peers=len(core.peers),
            untrusted=sum(session.core.untrusted for session in sessions),
        )

    # -- peers -----------------------------------------------------------------------------------------

    def peers(self) -> tuple[KnownPeer, ...]:
        """The peers that the node knows of, in the order in which they became known (DISC-02)."""
        return self._core.peers.listed(self._clock())

    def add_peer(self, address: str, port: int = c.DEFAULT_PORT, pubkey: bytes = NO_KEY) -> None:
        """Enter a peer for good, by literal address.  OSError when that is none, ENOSPC when static peers
        fill the table, EINVAL for a key of another size than 32 bytes.
        """
        self._core.peers.add_static(Peer(mapped_ip(address), port), self._clock(), pubkey)

    def forget_peer(self, address: str, port: int = c.DEFAULT_PORT) -> None:
        """Drop a peer; nothing when it is unknown."""
        self._core.peers.forget(Peer(mapped_ip(address), port))
