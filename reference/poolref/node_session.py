# SPDX-License-Identifier: GPL-2.0-or-later
"""A session as a coroutine-based program sees it; made by :class:`poolref.node.Node`."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from .constants import VERSION, Role, State
from .errors import LocalError, PoolTimeout, code_name
from .inbox import Message
from .io.tcp import Clock, Link, ip_text
from .session import Session as SessionCore
from .wire import Telemetry

_MAPPED_PREFIX = "::ffff:"


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
    channels: tuple[int, ...]
    telemetry: Telemetry
    peer_telemetry: Telemetry | None


class Session:
    """:attr:`core` is the sans-IO session; after driving it directly, call :meth:`flush`."""

    def __init__(
        self, core: SessionCore, link: Link, clock: Clock, settle: Callable[[Session], None]
    ) -> None:
        self.core = core
        self.link = link
        self._clock = clock
        self._settle = settle
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def index(self) -> int:
        """The slot, 0..63."""
        return self.core.index

    @property
    def active(self) -> bool:
        """Whether the session can still send."""
        return self.core.end is None

    async def send(self, data: bytes, channel: int = 0) -> None:
        """Send a message of 1..65535 bytes: EINVAL, EMSGSIZE, ENOTCONN (DATA-01).

        Waits until the transport takes more; cancelled meanwhile, it has sent nothing.
        """
        while self.link.full:
            await self.link.drained()
        self.core.send(data, self._clock(), channel)
        self.flush()

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
        queued (DATA-03); ENOTCONN when the session ended and nothing is left to read (CLS-01).
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = self.link.connection.take(self._clock(), channel, max_size)
                    if message is not None:
                        self.flush()
                        return message
                    if self.core.end is not None:
                        raise LocalError(errno.ENOTCONN, self._epitaph())
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.add(waiter)
                    try:
                        await waiter
                    finally:
                        self._waiters.discard(waiter)
        except TimeoutError as error:
            if isinstance(error, LocalError):
                raise
            raise PoolTimeout(f"no message came within {timeout} s") from None

    async def close(self, code: int | None = None) -> None:
        """End the session at both sides (CLS-01); does nothing once it ended.  Received messages stay
        readable.
        """
        self.core.close(self._clock(), code)
        self.flush()

    async def wait_closed(self) -> None:
        """Wait until the session has ended, from whichever side."""
        while self.core.end is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)

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

    def info(self) -> SessionInfo:
        """A snapshot of the session."""
        core = self.core
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
            bytes_sent=core.bytes_sent,
            bytes_recv=core.delivery.bytes_received,
            packets_sent=core.next_seq - core.first_seq,
            packets_recv=core.window.received,
            rekey_count=0,
            channels=core.subscriptions.listed(),
            telemetry=core.heartbeats.report(self._clock()),
            peer_telemetry=core.heartbeats.peer_report,
        )

    def flush(self) -> None:
        """Send what the core has to send and handle its events."""
        self.link.flush()
        self._settle(self)

    def wake(self) -> None:
        """Let waiting calls look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

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
