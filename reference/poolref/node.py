# SPDX-License-Identifier: GPL-2.0-or-later
"""The asyncio face of a POOL node: listen, connect, and sessions to send and receive on.

    async with Node() as node:
        session = await node.connect("::1", 9253)
        await session.send(b"hello")
        print(await session.recv(timeout=5))

Everything runs on one event loop; calls from other threads need ``asyncio.run_coroutine_threadsafe``.
Failures are OSError (:mod:`poolref.errors`) with the errno that fits.  Cancelling any call is safe.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Literal

from . import constants as c
from .connection import TcpConnection
from .core import NodeCore, Peer
from .crypto import Rng, self_test
from .dialect_server import responder_for
from .errors import LocalError, PoolTimeout, RandomnessError
from .events import Event, Observer, SessionEstablished
from .handshake import ServerHandshake
from .io import system
from .io.link import BaseLink, Clock
from .io.multicast import Multicast
from .io.raw import RawPort, ipv4_address, source_towards
from .io.tcp import Link, connected_socket, listening_socket
from .keylog import Keylog
from .node_attempt import Attempt
from .node_session import Session, SessionInfo
from .node_table import EventCallback, NodeParts, SessionTable
from .node_view import NodeStats, NodeView
from .settings import Settings

__all__ = ["EventCallback", "Node", "NodeStats", "Session", "SessionInfo", "Settings", "Transport"]

Transport = Literal["tcp", "raw", "auto"]
"""AUTO is raw where that is possible and answered, otherwise TCP (section 4)."""

_ANYWHERE: Final = ("0.0.0.0", "::")
_SEARCH_THREADS: Final = 2
_RETRY_S: Final = 1.0
_STOP_S: Final = 5.0


class Node(NodeView):
    """One POOL node with its 64 sessions.  Use as an asynchronous context manager.

    ``transport`` is what it listens on, and connects over unless told otherwise.  Listening on ``auto`` is
    listening on both, on TCP alone without the capability for raw.  With ``discovery`` it announces itself
    by multicast while it listens, and hears others (DISC-01): on every network interface, or the one named.

    ``clock`` gives monotonic ns, ``wall_clock`` UNIX ns, ``rng(n)`` n random bytes.  ``keylog`` is a file
    to append to or a callable that takes lines.  ``observer`` sees every packet of every connection with
    its outcome.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport = "tcp",
        discovery: bool | str = False,
        rng: Rng = system.random_bytes,
        clock: Clock = system.monotonic,
        wall_clock: Clock = system.wall_clock,
        keylog: Keylog | str | os.PathLike[str] | None = None,
        events: EventCallback | None = None,
        observer: Observer | None = None,
    ) -> None:
        log = keylog if keylog is None or callable(keylog) else system.keylog_file(keylog)
        core = NodeCore(settings or Settings(), rng, wall_clock, observer=observer, keylog=log)
        table = SessionTable(core, clock)
        super().__init__(core, table, clock)
        table.events = events
        core.stir = table.stir
        self._parts = NodeParts(core, clock, table)
        self._attempts: set[Attempt] = set()
        self._listener: _Listener | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._transport = transport
        self._raw: RawPort | None = None
        self._discovery = discovery
        self._multicast: Multicast | None = None

    async def __aenter__(self) -> Node:
        """MissingPrimitive when a cryptographic primitive is absent or wrong: the node does not start."""
        self_test()
        if self._discovery:
            interface = self._discovery if isinstance(self._discovery, str) else None
            self._multicast = Multicast(self._core, self._clock, interface=interface)
            self._multicast.start()
        self._executor = ThreadPoolExecutor(_SEARCH_THREADS, "poolref-puzzle")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Close everything: the listener, attempts under way, every session with a CLOSE.  Idempotent.

        Waits at most 5 s each for what was sent to go out and for the peers to close as well, over raw to
        acknowledge that; cancelled meanwhile, it drops the connections.
        """
        executor, self._executor = self._executor, None
        self.stop_listening()
        multicast, self._multicast = self._multicast, None
        if multicast is not None:
            multicast.stop()
        for attempt in list(self._attempts):
            attempt.fail(LocalError(errno.ECANCELED, "the node is stopping"))
            attempt.finish()
        try:
            await asyncio.gather(*(session.close() for session in self.sessions()))
            if self._table.links:
                await asyncio.wait([link.gone for link in self._table.links], timeout=_STOP_S)
        finally:
            for link in list(self._table.links):
                link.abort()
            for session in self.sessions():
                self._table.release(session)
            self._table.wake_acceptors()
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.close()
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)

    # -- listening -------------------------------------------------------------------------------------

    async def listen(self, host: str | None = None, port: int = c.DEFAULT_PORT) -> int:
        """Accept sessions; returns the bound port (a free one for port 0).  Raw IP has no ports.

        Without ``host`` on all addresses of both families.  EALREADY when already listening; for raw EPERM
        without the capability, EAFNOSUPPORT for an IPv6 address; otherwise the errno of bind.
        """
        self._running()
        if self._listener is not None:
            raise LocalError(errno.EALREADY, f"already listening on port {self._listener.port}")
        raw, address = None, None
        if self._transport != "tcp":
            try:
                if host is not None and host not in _ANYWHERE:
                    address = (await ipv4_address(host))[-4:]
                raw = self._raw_port()
            except OSError:
                if self._transport == "raw":
                    raise
        sock = None if self._transport == "raw" else listening_socket(host, port)
        try:
            listener = self._listener = _Listener(self._parts, sock, port)
            await listener.start(raw, address)
        except BaseException:
            self.stop_listening()
            if sock is not None:
                sock.close()
            raise
        if self._multicast is not None:
            self._multicast.listening(listener.port)
        return listener.port

    @property
    def port(self) -> int | None:
        """The port being listened on, None while not listening."""
        return None if self._listener is None else self._listener.port

    def stop_listening(self) -> None:
        """Accept no more sessions and drop handshakes under way; established sessions go on."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
            if self._multicast is not None:
                self._multicast.listening(None)

    async def accept(self, timeout: float | None = None) -> Session:
        """The next incoming session in order of establishment; PoolTimeout after ``timeout`` seconds."""
        return await self._table.accept(timeout, self._running)

    async def incoming(self) -> AsyncIterator[Session]:
        """Every incoming session in order of establishment; ends when the node stops."""
        while self._executor is not None:
            try:
                session = await self.accept()
            except LocalError as error:
                if error.errno == errno.ESHUTDOWN:
                    return
                raise
            yield session

    # -- connecting ------------------------------------------------------------------------------------

    async def connect(
        self,
        host: str,
        port: int = c.DEFAULT_PORT,
        *,
        timeout: float | None = None,
        transport: Transport | None = None,
    ) -> Session:
        """Establish a session with the node at a literal address or host name, over the node's transport
        unless another one is given.

        ``timeout`` in seconds bounds the whole attempt beside the protocol's own limits (HS-09).  ENOSPC
        without a free slot, ETIMEDOUT (PoolTimeout), ECONNREFUSED, EPROTONOSUPPORT, EBADMSG, ERANGE (the
        puzzle is too difficult); for ``raw`` EPERM without the capability, EAFNOSUPPORT for an IPv6 peer.
        """
        executor = self._running()
        index = self._parts.core.slots.take()
        if index is None:
            self._parts.core.record_error(c.ErrorCode.OVERLOAD, f"{host} {port} no_slot", self._parts.clock())
            raise LocalError(errno.ENOSPC, f"all {c.MAX_SESSIONS} sessions are in use")
        attempt = Attempt(self._parts, executor, index)
        self._attempts.add(attempt)
        try:
            async with asyncio.timeout(timeout):
                return await self._attempt(attempt, host, port, transport or self._transport)
        except TimeoutError as error:
            if error.errno is not None:
                raise
            raise PoolTimeout(f"no session with {host} port {port} within {timeout} s") from None
        finally:
            self._attempts.discard(attempt)
            attempt.finish()

    async def _attempt(self, attempt: Attempt, host: str, port: int, transport: Transport) -> Session:
        if transport == "raw":
            return await attempt.run_raw(self._raw_port(), await ipv4_address(host), c.CHALLENGE_TIMEOUT)
        if transport == "auto":
            try:
                raw, address = self._raw_port(), await ipv4_address(host)
                source_towards(address)
            except OSError:
                pass  # no capability, no IPv4, no way there
            else:
                try:
                    return await attempt.run_raw(raw, address, c.AUTO_TIMEOUT)
                except OSError:
                    if not attempt.renew():
                        raise
        return await attempt.run(await _reach(host, port))

    def _raw_port(self) -> RawPort:
        if self._raw is None:
            self._raw = RawPort(self._parts.core, self._parts.clock)
        return self._raw

    def _running(self) -> ThreadPoolExecutor:
        if self._executor is None:
            raise LocalError(errno.ESHUTDOWN, "the node is not running")
        return self._executor


async def _reach(host: str, port: int) -> socket.socket:
    try:
        async with asyncio.timeout(c.CONNECT_TIMEOUT / c.SECOND):
            return await connected_socket(host, port)
    except TimeoutError as error:
        if error.errno is not None:
            raise
        raise PoolTimeout(f"{host} port {port} does not answer") from None


class _Listener:
    """LinkOwner of the accepted connections; RandomnessError when the node cannot draw its secret."""

    def __init__(self, parts: NodeParts, sock: socket.socket | None, port: int) -> None:
        self.port: int = port if sock is None else sock.getsockname()[1]
        self._sock = sock
        self._raw: RawPort | None = None
        self._parts = parts
        self._responder = responder_for(parts.core, parts.clock())
        self._pending: dict[BaseLink, ServerHandshake] = {}  # the oldest first
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, raw: RawPort | None, address: bytes | None) -> None:
        """``address`` (4 bytes) is the only one to listen on over raw, if given."""
        loop = asyncio.get_running_loop()
        if self._sock is not None:
            # Started only once it is ours to stop, so that a cancelled start leaves nothing behind.
            self._server = await loop.create_server(
                lambda: Link(self, self._parts.clock, loop),
                sock=self._sock,
                backlog=c.MAX_PENDING_HANDSHAKES,
                start_serving=False,
            )
            await self._server.start_serving()
        if raw is not None:
            self._raw = raw
            raw.listen(self, self._responder, address)
        self._rotate()

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._raw is not None:
            self._raw.stop_listening()
            self._raw = None
        if self._timer is not None:
            self._timer.cancel()
        for link in list(self._pending):
            link.abort()
        self._responder.erase()

    def link_opened(self, link: Link) -> TcpConnection | None:
        if self._server is None:
            return None
        self._parts.table.links.add(link)
        if len(self._pending) >= c.MAX_PENDING_HANDSHAKES:
            self._evict()
        handshake = ServerHandshake(self._responder, Peer(link.peer_ip, link.peer_port), self._parts.clock())
        self._pending[link] = handshake
        return TcpConnection(handshake)

    def link_event(self, link: BaseLink, event: Event) -> None:
        if isinstance(event, SessionEstablished):
            self._pending.pop(link, None)  # over raw it was never there
            self._parts.table.links.add(link)
            self._parts.table.establish(link, incoming=True)
        self._parts.table.event(link, event)

    def link_changed(self, link: BaseLink) -> None:
        if link.connection.closing:
            self._pending.pop(link, None)
        self._parts.table.changed(link)

    def link_gone(self, link: BaseLink) -> None:
        self._pending.pop(link, None)
        self._parts.table.links.discard(link)

    def _evict(self) -> None:
        """HS-09: the oldest silent handshake gives way, the oldest of all when none is silent."""
        oldest = next(iter(self._pending))
        victim = next((link for link, handshake in self._pending.items() if handshake.silent), oldest)
        self._pending.pop(victim).evict()
        victim.abort()

    def _rotate(self) -> None:
        delay = 0.0
        try:
            self._responder.handle_timer(self._parts.clock())
        except RandomnessError:
            delay = _RETRY_S  # no new secret yet: INITs go unanswered meanwhile
        delay = max(delay, (self._responder.next_timer() - self._parts.clock()) / c.SECOND)
        self._timer = asyncio.get_running_loop().call_later(delay, self._rotate)
