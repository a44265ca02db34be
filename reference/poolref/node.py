# SPDX-License-Identifier: GPL-2.0-or-later
"""The asyncio face of a POOL node: listen, connect, and sessions to send and receive on.

    async with Node() as node:
        session = await node.connect("::1", 9253)
        await session.send(b"hello")
        print(await session.recv(timeout=5))

Everything runs on one event loop; calls from other threads need ``asyncio.run_coroutine_threadsafe``.  Failures are
OSError (:mod:`poolref.errors`) with the errno that fits.  Cancelling any call is safe.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final

from . import constants as c
from .connection import TcpConnection
from .counters import Counters
from .crypto import Rng, draw, self_test
from .errors import HandshakeError, LocalError, PoolTimeout, RandomnessError
from .events import (
    Event,
    HandshakeFailed,
    MessageReceived,
    Observer,
    PuzzlePosed,
    SessionEnded,
    SessionEstablished,
)
from .handshake import ClientHandshake, ServerHandshake
from .io import system
from .io.tcp import Clock, Link, connected_socket, listening_socket
from .keylog import Keylog
from .node_session import Session
from .puzzle import START_SIZE, Search
from .responder import Responder
from .settings import Settings
from .slots import Slots

_SEARCH_CHUNK: Final = 1024
_SEARCH_THREADS: Final = 2
_RETRY_S: Final = 1.0

EventCallback = Callable[[Session | None, Event], None]
"""Called with each event and its session, None while there is none yet."""


class Node:
    """One POOL node with its 64 sessions.  Use as an asynchronous context manager.

    ``clock`` gives monotonic ns, ``wall_clock`` UNIX ns, ``rng(n)`` n random bytes.  ``keylog`` is a file to append
    to or a callable that takes lines.  ``observer`` sees every packet of every connection with its outcome.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        rng: Rng = system.random_bytes,
        clock: Clock = system.monotonic,
        wall_clock: Clock = system.wall_clock,
        keylog: Keylog | str | os.PathLike[str] | None = None,
        events: EventCallback | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.events = events
        self._rng = rng
        self._clock = clock
        self._wall_clock = wall_clock
        self._keylog = keylog if keylog is None or callable(keylog) else system.keylog_file(keylog)
        self._observer = observer
        self._counters = Counters()
        self._slots = Slots()
        self._sessions: dict[Link, Session] = {}
        self._links: set[Link] = set()
        self._pending: dict[Link, None] = {}  # incoming handshakes, the oldest first
        self._attempts: dict[Link, _Attempt] = {}
        self._incoming: deque[Session] = deque()
        self._accepting: deque[asyncio.Future[None]] = deque()
        self._server: asyncio.Server | None = None
        self._port: int | None = None
        self._responder: Responder | None = None
        self._responder_timer: asyncio.TimerHandle | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._open = False

    async def __aenter__(self) -> Node:
        """MissingPrimitive when a cryptographic primitive is absent or wrong: the node does not start."""
        self_test()
        self._executor = ThreadPoolExecutor(_SEARCH_THREADS, "poolref-puzzle")
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close everything: the listener, attempts under way, and every session with a CLOSE.  Idempotent."""
        self._open = False
        self.stop_listening()
        for link, attempt in list(self._attempts.items()):
            attempt.fail(LocalError(errno.ECANCELED, "the node is stopping"))
            link.abort()
        for link, session in list(self._sessions.items()):
            session.core.close(self._clock())
            link.flush()
        if self._links:
            await asyncio.wait([link.gone for link in self._links])  # bounded by the links' farewell
        for session in list(self._sessions.values()):
            self._release(session)
        for waiter in self._accepting:
            if not waiter.done():
                waiter.set_result(None)
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    # -- listening ----------------------------------------------------------------------------------------------

    async def listen(self, host: str | None = None, port: int = c.DEFAULT_PORT) -> int:
        """Accept sessions; returns the bound port (a free one for port 0).

        Without ``host`` on all addresses of both families.  EALREADY when already listening, otherwise bind's errno.
        """
        self._require_open()
        if self._server is not None:
            raise LocalError(errno.EALREADY, f"already listening on port {self._port}")
        loop = asyncio.get_running_loop()
        listener = listening_socket(host, port)
        try:
            self._responder = Responder(
                now=self._clock(), wall_clock=self._wall_clock, rng=self._rng, settings=self.settings,
                slots=self._slots, counters=self._counters, observer=self._observer, keylog=self._keylog,
            )  # fmt: skip
            self._server = await loop.create_server(
                lambda: Link(_Incoming(self), self._clock, loop),
                sock=listener,
                backlog=c.MAX_PENDING_HANDSHAKES,
            )
        except BaseException:
            listener.close()
            self.stop_listening()
            raise
        self._port = listener.getsockname()[1]
        self._run_responder()
        return self._port

    @property
    def port(self) -> int | None:
        """The port being listened on, None while not listening."""
        return self._port

    def stop_listening(self) -> None:
        """Accept no more sessions and drop handshakes under way; established sessions go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._port = None
        if self._responder_timer is not None:
            self._responder_timer.cancel()
            self._responder_timer = None
        for link in list(self._pending):
            link.abort()
        if self._responder is not None:
            self._responder.erase()
            self._responder = None

    async def accept(self, timeout: float | None = None) -> Session:
        """The next incoming session in order of establishment; PoolTimeout after ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                while not self._incoming:
                    self._require_open()
                    waiter = loop.create_future()
                    self._accepting.append(waiter)
                    try:
                        await waiter
                    finally:
                        self._accepting.remove(waiter)
        except TimeoutError:
            raise PoolTimeout(f"no session came within {timeout} s") from None
        return self._incoming.popleft()

    # -- connecting ---------------------------------------------------------------------------------------------

    async def connect(
        self, host: str, port: int = c.DEFAULT_PORT, *, timeout: float | None = None
    ) -> Session:
        """Establish a session with the node at a literal address or host name.

        ``timeout`` in seconds bounds the whole attempt beside the protocol's own limits (HS-09).  ENOSPC without a
        free slot, ETIMEDOUT (PoolTimeout), ECONNREFUSED, EPROTONOSUPPORT, EBADMSG, ERANGE (puzzle too difficult).
        """
        self._require_open()
        index = self._slots.take()
        if index is None:
            raise LocalError(errno.ENOSPC, f"all {c.MAX_SESSIONS} sessions are in use")
        attempt = _Attempt(self, index)
        try:
            async with asyncio.timeout(timeout):
                sock = await self._reach(host, port)
                return await attempt.run(sock)
        except TimeoutError as error:
            if isinstance(error, LocalError) or error.errno is not None:
                raise
            raise PoolTimeout(f"no session with {host} port {port} within {timeout} s") from None
        finally:
            attempt.finish()

    async def _reach(self, host: str, port: int) -> socket.socket:
        try:
            async with asyncio.timeout(c.CONNECT_TIMEOUT / c.SECOND):
                return await connected_socket(host, port)
        except TimeoutError as error:
            if error.errno is not None:
                raise
            raise PoolTimeout(f"{host} port {port} does not answer") from None

    # -- looking ------------------------------------------------------------------------------------------------

    def sessions(self) -> list[Session]:
        """The sessions that hold a slot, by index."""
        return sorted(self._sessions.values(), key=lambda session: session.core.index)

    def counters(self) -> dict[str, int]:
        """Every counter by name, over all sessions and handshakes so far."""
        return dict(self._counters)

    # -- from the links -----------------------------------------------------------------------------------------

    def _opened(self, link: Link) -> None:
        self._links.add(link)

    def _accept_link(self, link: Link) -> TcpConnection | None:
        if self._responder is None:
            return None
        if len(self._pending) >= c.MAX_PENDING_HANDSHAKES:
            self._evict()
        self._pending[link] = None
        return TcpConnection(ServerHandshake(self._responder, link.peer_ip, self._clock()))

    def _evict(self) -> None:
        oldest = next(iter(self._pending))
        victim = next((link for link in self._pending if link.connection.handshake.silent), oldest)  # type: ignore[union-attr]
        del self._pending[victim]
        victim.connection.handshake.evict()  # type: ignore[union-attr]
        victim.abort()

    def _establish(self, link: Link, incoming: bool) -> Session:
        core = link.connection.session
        if core is None:
            raise RuntimeError("no session to establish")
        session = Session(core, link, self._clock, self._settle)
        self._sessions[link] = session
        if incoming:
            self._pending.pop(link, None)
            self._incoming.append(session)
            for waiter in self._accepting:
                if not waiter.done():
                    waiter.set_result(None)
                    break
        return session

    def _session_event(self, link: Link, event: Event) -> None:
        session = self._sessions.get(link)
        if session is not None and isinstance(event, MessageReceived | SessionEnded):
            session.wake()
        if self.events is not None:
            self.events(session, event)

    def _settle(self, session: Session) -> None:
        if session.core.finished:
            self._release(session)

    def _release(self, session: Session) -> None:
        if self._sessions.pop(session.link, None) is not None:
            self._slots.release(session.core.index)
            if session in self._incoming:
                self._incoming.remove(session)

    def _link_changed(self, link: Link) -> None:
        session = self._sessions.get(link)
        if session is not None:
            self._settle(session)

    def _link_gone(self, link: Link) -> None:
        self._links.discard(link)
        self._pending.pop(link, None)

    def _session_id_in_use(self, peer_ip: bytes, session_id: bytes) -> bool:
        return any(
            session.core.session_id == session_id and session.link.peer_ip == peer_ip
            for session in self._sessions.values()
        )

    def _run_responder(self) -> None:
        responder = self._responder
        if responder is None:
            return
        delay = 0.0
        try:
            responder.handle_timer(self._clock())
        except RandomnessError:
            delay = _RETRY_S  # no new secret yet; INITs go unanswered meanwhile
        delay = max(delay, (responder.next_timer() - self._clock()) / c.SECOND)
        self._responder_timer = asyncio.get_running_loop().call_later(delay, self._run_responder)

    def _require_open(self) -> None:
        if not self._open:
            raise LocalError(errno.ESHUTDOWN, "the node is not running")


class _Incoming:
    """LinkOwner of an accepted connection."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        self._node = node

    def link_opened(self, link: Link) -> TcpConnection | None:
        self._node._opened(link)
        return self._node._accept_link(link)

    def link_event(self, link: Link, event: Event) -> None:
        if isinstance(event, SessionEstablished):
            self._node._establish(link, incoming=True)
        self._node._session_event(link, event)

    def link_changed(self, link: Link) -> None:
        if link.connection.closing:
            self._node._pending.pop(link, None)
        self._node._link_changed(link)

    def link_gone(self, link: Link) -> None:
        self._node._link_gone(link)


class _Attempt:
    """LinkOwner of an outgoing connection, and the attempt's result.  Holds a slot until a session takes it over."""

    def __init__(self, node: Node, index: int) -> None:
        self._node = node
        self._index = index
        self._link: Link | None = None
        self._established = False
        self._delivered = False
        self._result: asyncio.Future[Session] = asyncio.get_running_loop().create_future()
        self._search: asyncio.Task[None] | None = None

    async def run(self, sock: socket.socket) -> Session:
        """Run the handshake over a connected socket, which this closes in the end."""
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: Link(self, self._node._clock, loop), sock=sock)
        except BaseException:
            sock.close()
            raise
        session = await self._result
        self._delivered = True
        return session

    def fail(self, error: OSError) -> None:
        """Let :meth:`run` raise."""
        if not self._result.done():
            self._result.set_exception(error)

    def finish(self) -> None:
        """The caller is served, or gave up: leave nothing behind (HS-13)."""
        if self._search is not None:
            self._search.cancel()
        link = self._link
        if link is not None:
            self._node._attempts.pop(link, None)
        if self._established:
            if not self._delivered and link is not None and link.connection.session is not None:
                link.connection.session.close(self._node._clock())
                link.flush()
            return
        self._node._slots.release(self._index)
        if link is not None:
            if hasattr(link, "connection"):
                handshake = link.connection.handshake
                if isinstance(handshake, ClientHandshake):
                    handshake.cancel()
            link.abort()

    # -- LinkOwner ----------------------------------------------------------------------------------------------

    def link_opened(self, link: Link) -> TcpConnection | None:
        node = self._node
        node._opened(link)
        node._attempts[link] = self
        self._link = link
        try:
            handshake = ClientHandshake(
                index=self._index, now=node._clock(), wall=node._wall_clock(), rng=node._rng,
                settings=node.settings, counters=Counters(node._counters), observer=node._observer,
                keylog=node._keylog,
                in_use=lambda session_id: node._session_id_in_use(link.peer_ip, session_id),
            )  # fmt: skip
        except RandomnessError as error:
            self.fail(error)
            return None
        return TcpConnection(handshake)

    def link_event(self, link: Link, event: Event) -> None:
        if isinstance(event, PuzzlePosed):
            self._search = asyncio.get_running_loop().create_task(self._solve(link, event))
        elif isinstance(event, HandshakeFailed):
            self.fail(event.error)
        elif isinstance(event, SessionEstablished):
            self._established = True
            session = self._node._establish(link, incoming=False)
            if not self._result.done():
                self._result.set_result(session)
        self._node._session_event(link, event)

    def link_changed(self, link: Link) -> None:
        self._node._link_changed(link)

    def link_gone(self, link: Link) -> None:
        self.fail(HandshakeError(errno.ECONNRESET, "the connection ended during the handshake"))
        self._node._link_gone(link)

    async def _solve(self, link: Link, puzzle: PuzzlePosed) -> None:
        node = self._node
        stop = threading.Event()
        try:
            search = Search(puzzle.seed, puzzle.difficulty, draw(node._rng, START_SIZE))
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
            solution = await asyncio.get_running_loop().run_in_executor(node._executor, find)
        finally:
            stop.set()
        if solution is not None and isinstance(link.connection.handshake, ClientHandshake):
            link.connection.handshake.solved(solution, node._clock())
            link.flush()
