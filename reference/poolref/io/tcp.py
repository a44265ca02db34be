# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP under asyncio: sockets, and a Link that binds one sans-IO connection to one asyncio transport."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Final, Protocol, cast

from ..connection import TcpConnection
from .link import BaseLink, Clock, LinkOwner

BACKLOG: Final = 256
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # HB-02
_FAREWELL_S: Final = 2.0
"""How long a closed connection waits for the peer to close as well, or to read on what was sent (E-74)."""


class TcpOwner(LinkOwner, Protocol):
    """Who decides what runs over a new socket."""

    def link_opened(self, link: Link) -> TcpConnection | None:
        """The socket is connected: the connection to run over it, None to drop it."""


class Link(BaseLink, asyncio.Protocol):
    """Over a TCP socket of its own."""

    connection: TcpConnection

    def __init__(self, owner: TcpOwner, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(clock, loop)
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self._unwritten = 0  # bytes, when the farewell began to wait
        self._reading = True
        self._full = False

    # -- asyncio.Protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        if peer is None:  # already gone again
            self._transport.abort()
            return
        self.peer_ip, self.peer_port = mapped_ip(peer[0]), peer[1]
        _tune(transport.get_extra_info("socket"))
        connection = self._owner.link_opened(self)
        if connection is None:
            self._transport.abort()
            return
        self.connection = connection
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self._farewell is None and self._opened:
            self.connection.receive_data(data, self._clock())
            self.flush()

    def eof_received(self) -> bool:
        if self._opened:
            self.connection.receive_eof(self._clock())
            self.flush()
        return False  # asyncio closes the transport once everything is written

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._farewell is not None:
            self._farewell.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        self._full = False
        if self._opened:
            self.connection.lost(self._clock())
            self.flush()
        self._owner.link_gone(self)

    def pause_writing(self) -> None:
        self._full = True
        self._congest(True)

    def resume_writing(self) -> None:
        self._full = False
        self._congest(False)
        self.flush()

    # -- the owner -------------------------------------------------------------------------------------

    def flush(self) -> None:
        connection = self.connection
        self._begin_flush()
        self._write(connection.data_to_send())
        while (event := connection.next_event()) is not None:
            self._owner.link_event(self, event)
        self._follow_reading(connection.reading)
        self._follow_timer(connection.next_timer())
        if connection.closing:
            self._say_farewell()
        self._owner.link_changed(self)

    @property
    def full(self) -> bool:
        return self._full

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- details ---------------------------------------------------------------------------------------

    @property
    def _opened(self) -> bool:
        return hasattr(self, "connection")

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _follow_reading(self, reading: bool) -> None:
        # A closed connection reads on, to nowhere: unread bytes would turn the close into a reset, which can
        # overtake what was sent last.
        reading = reading or self.connection.closing
        if self._transport is not None and reading != self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _say_farewell(self) -> None:
        if self._farewell is None and self._transport is not None:
            try:
                if not self._transport.is_closing():
                    self._transport.write_eof()
            except OSError:  # the peer reset it: there is nobody to wait for
                self._transport.abort()
            self._await_farewell()

    def _await_farewell(self) -> None:
        if self._transport is not None:
            self._unwritten = self._transport.get_write_buffer_size()
            self._farewell = self._loop.call_later(_FAREWELL_S, self._end_farewell)

    def _end_farewell(self) -> None:
        """What was sent last is not cut off while the peer goes on reading it."""
        if self._transport is not None and self._transport.get_write_buffer_size() < self._unwritten:
            self._await_farewell()
        else:
            self.abort()

    def _congest(self, congested: bool) -> None:
        if self._opened and self.connection.session is not None:
            self.connection.session.congested = congested


def mapped_ip(address: str) -> bytes:
    """16 bytes of an IP address, IPv4 as ``::ffff:a.b.c.d``, without scope id.  OSError when it is not
    one.
    """
    literal = address.partition("%")[0]
    if ":" in literal:
        return socket.inet_pton(socket.AF_INET6, literal)
    return bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, literal)


def ip_text(address: bytes) -> str:
    """The IPv6 text of 16 bytes; IPv4 shows as ``::ffff:a.b.c.d``."""
    return socket.inet_ntop(socket.AF_INET6, address)


def listening_socket(host: str | None, port: int) -> socket.socket:
    """Bound and non-blocking; without a host one IPv6 socket for both families (section 4).  OSError."""
    family = socket.AF_INET if host is not None and ":" not in host else socket.AF_INET6
    address: tuple[str, int] | tuple[str, int, int, int] = (host or "::", port)
    if host is not None:
        family, _type, _proto, _name, address = socket.getaddrinfo(  # type: ignore[assignment]
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def connected_socket(host: str, port: int) -> socket.socket:
    """Connect to the first address of ``host`` that answers; the last one's OSError when none does,
    EADDRNOTAVAIL when it has none.
    """
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
    try:  # a literal address needs no resolver, and no thread for it
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:  # whose errno is none
            raise OSError(errno.EADDRNOTAVAIL, f"{host}: {error.strerror}") from error
    for family, kind, proto, _name, address in found:
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            return sock
        except OSError as error:
            sock.close()
            # The system's words instead of asyncio's.
            failure = OSError(error.errno, os.strerror(error.errno)) if error.errno else error
        except BaseException:
            sock.close()
            raise
    raise failure


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
