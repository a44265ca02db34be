# SPDX-License-Identifier: GPL-2.0-or-later
"""A session as a coroutine-based program sees it; made by :class:`poolref.node.Node`."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from . import constants as c
from .constants import VERSION, Role, State
from .errors import LocalError, PoolTimeout, code_name
from .events import Event, MessageReceived, SessionEnded
from .inbox import Message
from .io.link import BaseLink, Clock
from .io.tcp import ip_text
from .node_operations import Operations, wake
from .session import Session as SessionCore
from .wire import Telemetry

Traffic = tuple[int, int, int, int, int]
"""Bytes sent and received, packets sent and received, rekeys."""

_MAPPED_PREFIX: Final = "::ffff:"
_GRACEFUL: Final = ("closed", "local", "end_of_stream")
"""How a session ends in the regular way (CLS-01, CLS-03), if it carries no code."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A snapshot.  Bytes count messages' contents; packets count those sealed or authenticated, handshake
    included.
    """

    index: int
    peer_addr: str
    """IPv6 text; an IPv4 peer shows as ``::ffff:a.b.c.d``."""
    peer_port: int
    family: socket.AddressFamily
    state: State
    session_id: bytes
    role: Role
    transport: str
    version: int
    epoch: int
    mtu: int
    bytes_sent: int
    bytes_recv: int
    packets_sent: int
    packets_recv: int
    rekey_count: int
    untrusted: bool
    """Integrity or journal checks speak against the peer."""
    channels: tuple[int, ...]
    telemetry: Telemetry
    peer_telemetry: Telemetry | None


class Session(Operations):
    """One end of an established session.

        async with await node.connect("::1") as session:
            await session.send(b"question")
            async for message in session:
                print(message.channel, message.data)

    Leaving the ``async with`` closes it; the ``async for`` ends when the peer closes it.  :attr:`core` is
    the sans-IO session; after driving it directly, call :meth:`flush`.
    """

    def __init__(
        self, core: SessionCore, link: BaseLink, clock: Clock, settle: Callable[[Session], None]
    ) -> None:
        super().__init__()
        self.core = core
        self.link = link
        self._clock = clock
        self._settle = settle
        self._receivers: dict[asyncio.Future[None], None] = {}  # the first comes first
        self._senders: dict[asyncio.Future[None], None] = {}

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def index(self) -> int:
        """The slot, 0..63."""
        return self.core.index

    @property
    def active(self) -> bool:
        """Whether the session can still send."""
        return self.core.active

    async def send(self, data: bytes, channel: int = 0) -> None:
        """Send a message of 1..65535 bytes: EINVAL, EMSGSIZE, ENOTCONN (DATA-01).

        Waits while the transport or the session takes no more; cancelled meanwhile, it has sent nothing.
        Returning says that the message is on its way, not that it arrived.
        """
        if self.link.spent:  # a transport that takes everything would never let anybody else run
            self.link.spent = False
            await asyncio.sleep(0)
        while (self.link.full or not self.core.writable) and self.core.active:
            await self._woken(self._senders)
        self.core.send(data, self._clock(), channel)
        self.link.flush_soon(len(data))

    async def recv(
        self, channel: int | None = None, timeout: float | None = None, max_size: int | None = None
    ) -> bytes:
        """The contents of the next message; see :meth:`recv_message`."""
        return (await self.recv_message(channel, timeout, max_size)).data

    async def recv_message(
        self, channel: int | None = None, timeout: float | None = None, max_size: int | None = None
    ) -> Message:
        """The next message, of ``channel`` if given.

        PoolTimeout after ``timeout`` seconds; MessageTooBig when it exceeds ``max_size`` bytes, it then stays
        queued (DATA-03); ENOTCONN when the session ended and nothing is left to read (CLS-01).  Cancelled, it
        has taken nothing.
        """
        message = self._take(channel, max_size)
        if message is not None:
            return message
        try:
            async with asyncio.timeout(timeout):
                while message is None:
                    if self.core.end is not None:
                        raise LocalError(errno.ENOTCONN, self._epitaph())
                    await self._woken(self._receivers)
                    message = self._take(channel, max_size)
        except TimeoutError as error:
            if isinstance(error, LocalError):
                raise
            raise PoolTimeout(f"no message came within {timeout} s") from None
        return message

    def __aiter__(self) -> Session:
        return self

    async def __anext__(self) -> Message:
        """The next message; the iteration ends with the session.  ENOTCONN when that was not a regular end:
        the peer is dead, an error code, protection failed.
        """
        try:
            return await self.recv_message()
        except LocalError as error:
            end = self.core.end
            regular = end is not None and end.cause in _GRACEFUL and end.code is None
            if error.errno == errno.ENOTCONN and regular:
                raise StopAsyncIteration from None
            raise

    async def close(self, code: int | None = None) -> None:
        """End the session at both sides (CLS-01); does nothing once it ended.  Received messages stay
        readable.

        What :meth:`send` took goes out before, over raw it arrives before, if that takes no longer than 5 s.
        Over TCP, cancelled meanwhile, the session is closed at once.
        """
        if self.core.reliable:  # it drains itself, and its CLOSE is acknowledged
            self.core.close(self._clock(), code)
            self.flush()
            await self.wait_closed()
            return
        try:
            async with asyncio.timeout(c.LINGER / c.SECOND):
                while self.core.unsent and self.core.end is None:
                    await self._woken(self._senders)
        except TimeoutError:
            pass
        finally:
            self.core.close(self._clock(), code)
            self.flush()

    async def wait_closed(self) -> None:
        """Wait until the session has ended, from whichever side."""
        while self.core.end is None:
            await self._woken(self._receivers)

    def subscribe(self, channel: int) -> None:
        """Receive messages of a channel (CHAN-01): EINVAL outside 0..255, ENOENT once the session ended."""
        self._require_active()
        self.core.subscriptions.subscribe(channel)

    def unsubscribe(self, channel: int) -> None:
        """Discard messages of a channel from now on: EINVAL outside 0..255, ENOENT once the session ended."""
        self._require_active()
        self.core.subscriptions.unsubscribe(channel)

    def channels(self) -> tuple[int, ...]:
        """The subscribed channels in ascending order; ENOENT once the session ended."""
        self._require_active()
        return self.core.subscriptions.listed()

    def counters(self) -> dict[str, int]:
        """Every counter by name, of this session and its handshake alone."""
        return dict(self.core.counters)

    def traffic(self) -> Traffic:
        """The figures of :class:`SessionInfo` that add up over sessions."""
        core = self.core
        sent = core.next_seq - core.first_seq
        return core.bytes_sent, core.delivery.bytes_received, sent, core.window.received, core.keys.epoch

    def info(self) -> SessionInfo:
        """A snapshot of the session."""
        core = self.core
        bytes_sent, bytes_recv, packets_sent, packets_recv, rekey_count = self.traffic()
        peer = ip_text(self.link.peer_ip)
        return SessionInfo(
            index=core.index,
            peer_addr=peer,
            peer_port=self.link.peer_port,
            family=socket.AF_INET if peer.startswith(_MAPPED_PREFIX) else socket.AF_INET6,
            state=core.state,
            session_id=core.session_id,
            role=core.role,
            transport=core.transport,
            version=VERSION,
            epoch=core.keys.epoch,
            mtu=core.mtu,
            bytes_sent=bytes_sent,
            bytes_recv=bytes_recv,
            packets_sent=packets_sent,
            packets_recv=packets_recv,
            rekey_count=rekey_count,
            untrusted=core.untrusted,
            channels=core.subscriptions.listed(),
            telemetry=core.heartbeats.report(self._clock()),
            peer_telemetry=core.heartbeats.peer_report,
        )

    def flush(self) -> None:
        """Send what the core has to send and handle its events."""
        self.link.flush()
        self._settle(self)

    def notice(self, event: Event) -> None:
        """Let those look again who wait for what an event tells."""
        if isinstance(event, MessageReceived):
            wake(self._receivers)
            return
        if isinstance(event, SessionEnded):
            wake(self._receivers)
        self._told(event)

    def changed(self) -> None:
        """Something happened: let those look again to whom it may make a difference."""
        core = self.core
        if self._senders and (not core.active or (core.writable and not self.link.full)):
            wake(self._senders)
        if self._watchers:
            wake(self._watchers)

    def _take(self, channel: int | None, max_size: int | None) -> Message | None:
        connection = self.link.connection
        reading = connection.reading
        message = connection.take(self._clock(), channel, max_size)
        if not reading or self.core.end is not None:
            self.flush()  # it reads on, or the last message was taken
        return message

    def _require_active(self) -> None:
        if self.core.end is not None:
            raise LocalError(errno.ENOENT, self._epitaph())

    def _epitaph(self) -> str:
        end = self.core.end
        if end is None:
            return "the session is active"
        return f"the session has ended: {end.cause}" + (
            "" if end.code is None else f", {code_name(end.code)}"
        )
