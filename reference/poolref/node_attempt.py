# SPDX-License-Identifier: GPL-2.0-or-later
"""One outgoing connection attempt of a node, from the first packet to the session."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from concurrent.futures import Executor
from typing import Final

from .connection import TcpConnection
from .core import Peer
from .crypto import draw
from .errors import HandshakeError, RandomnessError
from .events import Event, HandshakeFailed, PuzzlePosed, SessionEstablished
from .handshake import ClientHandshake
from .io.link import BaseLink
from .io.raw import RawPort
from .io.tcp import Link
from .node_session import Session
from .node_table import NodeParts
from .puzzle import START_SIZE, Search
from .raw_connection import RawConnection
from .raw_handshake import RawClientHandshake

_SEARCH_CHUNK: Final = 1024


class Attempt:
    """LinkOwner of an outgoing connection.  Holds slot ``index`` until a session takes it over."""

    def __init__(self, parts: NodeParts, executor: Executor, index: int) -> None:
        self._parts = parts
        self._executor = executor
        self._index = index
        self._link: BaseLink | None = None
        self._handshake: ClientHandshake | None = None
        self._established = False
        self._delivered = False
        self._result: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._search: asyncio.Task[None] | None = None

    async def run(self, sock: socket.socket) -> Session:
        """Run the handshake over a connected socket, which belongs to the attempt from now on."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Link(self, self._parts.clock, loop), sock=sock)
        except BaseException:
            sock.close()
            raise
        return await self._outcome()

    async def run_raw(self, port: RawPort, address: bytes, patience: int) -> Session:
        """Run the handshake over raw IP with a peer (16 bytes of address), whose CHALLENGE may take
        ``patience`` ns.
        """
        parts, peer = self._parts, Peer(address)
        handshake = self._handshake = RawClientHandshake(
            core=parts.core,
            index=self._index,
            now=parts.clock(),
            peer=peer,
            in_use=lambda session_id: parts.table.in_use(address, session_id),
            patience=patience,
        )
        self._link = port.attempt(self, RawConnection(peer, handshake))
        parts.table.links.add(self._link)
        self._link.flush()
        return await self._outcome()

    def renew(self) -> bool:
        """Whether another transport may be tried, because nobody answered over raw (TRN-05); if so, be ready
        for it.
        """
        if not isinstance(self._handshake, RawClientHandshake) or not self._handshake.unanswered:
            return False
        self._handshake = self._link = None
        self._result = asyncio.get_running_loop().create_future()
        return True

    def fail(self, error: OSError) -> None:
        """Let :meth:`run` raise, unless it has its result already."""
        if not self._result.done():
            self._result.set_exception(error)

    def finish(self) -> None:
        """The caller is served or gave up: leave nothing behind (HS-13)."""
        if self._search is not None:
            self._search.cancel()
        if self._result.done() and not self._result.cancelled():
            self._result.exception()  # retrieved, whether or not run() got as far as raising it
        if not self._established:
            self._parts.core.slots.release(self._index)
            if self._handshake is not None:
                self._handshake.cancel()
            if self._link is not None:
                self._link.abort()
        elif not self._delivered and self._link is not None and self._link.connection.session is not None:
            self._link.connection.session.close(self._parts.clock())
            self._link.flush()

    async def _outcome(self) -> Session:
        session = await self._result
        self._delivered = True
        return session

    # -- LinkOwner -------------------------------------------------------------------------------------

    def link_opened(self, link: Link) -> TcpConnection | None:
        parts = self._parts
        parts.table.links.add(link)
        self._link = link
        try:
            self._handshake = ClientHandshake(
                core=parts.core,
                index=self._index,
                now=parts.clock(),
                peer=Peer(link.peer_ip, link.peer_port),
                in_use=lambda session_id: parts.table.in_use(link.peer_ip, session_id),
            )
        except RandomnessError as error:
            self.fail(error)
            return None
        return TcpConnection(self._handshake)

    def link_event(self, link: BaseLink, event: Event) -> None:
        if isinstance(event, PuzzlePosed):
            self._search = asyncio.get_running_loop().create_task(self._solve(link, event))
        elif isinstance(event, HandshakeFailed):
            self.fail(event.error)
        elif isinstance(event, SessionEstablished):
            self._established = True
            session = self._parts.table.establish(link, incoming=False)
            if not self._result.done():
                self._result.set_result(session)
        self._parts.table.event(link, event)

    def link_changed(self, link: BaseLink) -> None:
        self._parts.table.changed(link)

    def link_gone(self, link: BaseLink) -> None:
        self.fail(HandshakeError(errno.ECONNRESET, "the connection ended during the handshake"))
        self._parts.table.links.discard(link)

    async def _solve(self, link: BaseLink, puzzle: PuzzlePosed) -> None:
        stop = threading.Event()
        try:
            start = draw(self._parts.core.rng, START_SIZE)
            search = Search(puzzle.seed, puzzle.difficulty, start, counter_first=puzzle.counter_first)
        except RandomnessError as error:
            self.fail(error)
            return

        def find() -> bytes | None:
            while not stop.is_set():
                solution = search.step(_SEARCH_CHUNK)
                if solution is not None:
                    return solution
                time.sleep(0)  # lets go of the interpreter lock, so that the event loop runs on time
            return None

        try:
            solution = await asyncio.get_running_loop().run_in_executor(self._executor, find)
        finally:
            stop.set()
        if solution is not None and self._handshake is not None:
            self._handshake.solved(solution, self._parts.clock())
            link.flush()
