# SPDX-License-Identifier: GPL-2.0-or-later
"""The sessions and links of one node, and the parts that its listener and its attempts share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .core import NodeCore
from .errors import PoolTimeout
from .events import Event
from .io.link import BaseLink, Clock
from .node_session import Session, Traffic
from .session import Session as SessionCore

EventCallback = Callable[[Session | None, Event], None]
"""Called with each event and its session, None while there is none yet."""


class SessionTable:
    """Who holds which slot, and who waits for an incoming session."""

    def __init__(self, core: NodeCore, clock: Clock) -> None:
        self.core = core
        self.links: set[BaseLink] = set()
        self.by_link: dict[BaseLink, Session] = {}
        self.events: EventCallback | None = None
        self.ended_traffic: Traffic = (0, 0, 0, 0, 0)
        """That of sessions that no longer hold a slot."""
        self._clock = clock
        self._incoming: deque[Session] = deque()
        self._accepting: deque[asyncio.Future[None]] = deque()

    def establish(self, link: BaseLink, *, incoming: bool) -> Session:
        """The session that a link's handshake has led to."""
        core = link.connection.session
        if core is None:
            raise RuntimeError("the handshake has not led to a session")
        session = Session(core, link, self._clock, self.settle)
        self.by_link[link] = session
        if incoming:
            self._incoming.append(session)
            self.wake_acceptors()
        return session

    def event(self, link: BaseLink, event: Event) -> None:
        """Wake whom an event concerns and hand it on."""
        session = self.by_link.get(link)
        if session is not None:
            session.notice(event)
        if self.events is not None:
            try:
                self.events(session, event)
            except Exception as error:
                # A callback's mistake is not the session's: it goes where those of other callbacks go.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"the events callback failed with {event!r}", "exception": error}
                )

    def changed(self, link: BaseLink) -> None:
        """Let a link's session know, and free its slot if it has finished."""
        session = self.by_link.get(link)
        if session is not None:
            session.changed()
            self.settle(session)

    def settle(self, session: Session) -> None:
        """Free the slot of a session that has finished."""
        if session.core.finished:
            self.release(session)

    def release(self, session: Session) -> None:
        """Take a session out of the table; idempotent."""
        if self.by_link.pop(session.link, None) is not None:
            self.core.slots.release(session.core.index)
            sent, received, out, came, rekeys = self.ended_traffic
            more = session.traffic()
            self.ended_traffic = (
                sent + more[0], received + more[1], out + more[2], came + more[3], rekeys + more[4]
            )  # fmt: skip
            if session in self._incoming:
                self._incoming.remove(session)

    def in_use(self, peer_ip: bytes, session_id: bytes) -> bool:
        """Whether a session with this peer has that id (HS-14)."""
        return any(
            session.core.session_id == session_id and link.peer_ip == peer_ip
            for link, session in self.by_link.items()
        )

    def stir(self, core: SessionCore) -> None:
        """A session has something to send, or a new timer, from outside its own calls."""
        for link, session in self.by_link.items():
            if session.core is core:
                link.flush_soon()
                return

    async def accept(self, timeout: float | None, require_open: Callable[[], object]) -> Session:
        """The oldest incoming session not yet handed out; PoolTimeout after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not self._incoming:
                    require_open()
                    waiter = asyncio.get_running_loop().create_future()
                    self._accepting.append(waiter)
                    try:
                        await waiter
                    finally:
                        self._accepting.remove(waiter)
        except TimeoutError:
            raise PoolTimeout(f"no session came within {timeout} s") from None
        return self._incoming.popleft()

    def wake_acceptors(self) -> None:
        """Let everyone who waits for a session look again."""
        for waiter in self._accepting:
            if not waiter.done():
                waiter.set_result(None)


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What a node is made of."""

    core: NodeCore
    clock: Clock
    table: SessionTable
