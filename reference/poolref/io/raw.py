# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw IP under asyncio (TRN-03): one IPv4 socket of protocol 253 for a whole node, and the links over it."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from ..constants import RAW_PROTOCOL
from ..core import NodeCore
from ..errors import LocalError
from ..raw_connection import Demultiplexer, RawConnection
from ..raw_sending import Datagram
from ..responder import Responder
from .link import BaseLink, Clock, LinkOwner

_MAPPED: Final = bytes(10) + b"\xff\xff"
_LARGEST: Final = 65535
_BATCH: Final = 64
"""Datagrams read at a time, so that a flood leaves the loop to others."""
_BACKLOG: Final = 4096
"""Datagrams that wait for the socket to take more; what comes beyond is lost, and resent."""
_RECEIVE_BUFFER: Final = 1 << 20

# linux/in.h
_IP_PKTINFO: Final = 8
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DONT: Final = 0
_IP_PMTUDISC_PROBE: Final = 3
_PKTINFO: Final = struct.Struct("=i4s4s")

Received = Callable[[bytes, bytes, bytes], None]
"""Takes a datagram: the address it came from, the one it came to (4 bytes each), and what follows the IP
header.
"""


class RawSocket:
    """EPERM without CAP_NET_RAW (TRN-05, E-42), otherwise the errno of socket(2)."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, received: Received, drained: Callable[[], None]
    ) -> None:
        """``drained`` is called when the socket takes more after it did not."""
        try:
            self._socket = socket.socket(
                socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, RAW_PROTOCOL
            )
        except PermissionError:
            raise LocalError(errno.EPERM, "transport raw needs the capability CAP_NET_RAW") from None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        # DF is set whatever the path is thought to take: finding that out is the protocol's own business.
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        self._loop = loop
        self._received = received
        self._drained = drained
        self._backlog: deque[tuple[bytes, bytes, Datagram]] = deque()
        loop.add_reader(self._socket, self._read)

    @property
    def full(self) -> bool:
        """Whether datagrams wait for the socket to take more."""
        return bool(self._backlog)

    def send(self, source: bytes, target: bytes, datagram: Datagram) -> bool:
        """Send from one address to another (4 bytes each); whether the system took it or will be asked
        again.
        """
        if self._backlog:
            if len(self._backlog) >= _BACKLOG:
                return False
            self._backlog.append((source, target, datagram))
            return True
        try:
            self._send(source, target, datagram)
        except (BlockingIOError, InterruptedError):
            self._backlog.append((source, target, datagram))
            self._loop.add_writer(self._socket, self._write)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Nothing is sent or received any more; idempotent."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._backlog.clear()
        self._socket.close()

    def _send(self, source: bytes, target: bytes, datagram: Datagram) -> None:
        info = (socket.IPPROTO_IP, _IP_PKTINFO, _PKTINFO.pack(0, source, bytes(4)))
        address = (socket.inet_ntoa(target), 0)
        if datagram.dont_fragment:
            self._socket.sendmsg([datagram.packet], [info], 0, address)
            return
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
        try:
            self._socket.sendmsg([datagram.packet], [info], 0, address)
        finally:
            self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                data = self._socket.recv(_LARGEST)
            except OSError:
                return
            header_size = (data[0] & 0xF) * 4
            self._received(data[12:16], data[16:20], data[header_size:])
            if self._socket.fileno() < 0:
                return

    def _write(self) -> None:
        while self._backlog:
            try:
                self._send(*self._backlog[0])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                pass  # lost, as datagrams are
            self._backlog.popleft()
        self._loop.remove_writer(self._socket)
        self._drained()


class RawLink(BaseLink):
    """What one peer and this node say to each other over the node's socket."""

    connection: RawConnection

    def __init__(
        self, port: RawPort, owner: LinkOwner, connection: RawConnection, source: bytes, clock: Clock
    ) -> None:
        """``source`` is this node's own address (4 bytes)."""
        super().__init__(clock, asyncio.get_running_loop())
        self.connection = connection
        self.source = source
        self.peer_ip = connection.peer.ip
        self._port = port
        self._owner = owner

    @property
    def full(self) -> bool:
        return self._port.full

    def flush(self) -> None:
        self._begin_flush()
        self._port.send(self.source, self.connection)
        while (event := self.connection.next_event()) is not None:
            self._owner.link_event(self, event)
        self._follow_timer(self.connection.next_timer())
        if self.connection.closing:
            self._leave()
        self._owner.link_changed(self)

    def abort(self) -> None:
        if not self.gone.done():
            self.connection.endpoint.end_of_stream(self._clock())
            self._leave()
            self.flush()

    def _leave(self) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
            self._port.forget(self)
            self._owner.link_gone(self)


class RawPort:
    """The raw side of one node: its socket, its demultiplexer, its links.  EPERM as :class:`RawSocket`."""

    def __init__(self, core: NodeCore, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._demultiplexer = Demultiplexer(core)
        self._links: dict[RawConnection, RawLink] = {}
        self._owner: LinkOwner | None = None
        self._address: bytes | None = None
        self._socket = RawSocket(asyncio.get_running_loop(), self._received, self._drained)

    @property
    def full(self) -> bool:
        """Whether the socket takes no more at present."""
        return self._socket.full

    def listen(self, owner: LinkOwner, responder: Responder, address: bytes | None) -> None:
        """Let ``responder`` answer INITs to ``address`` (4 bytes), or to any of this host's; the sessions are
        told to ``owner``.
        """
        self._owner, self._address = owner, address
        self._demultiplexer.responder = responder

    def stop_listening(self) -> None:
        """Answer no more INITs; sessions go on."""
        self._demultiplexer.responder = None

    def attempt(self, owner: LinkOwner, connection: RawConnection) -> RawLink:
        """Begin an attempt of this node's own.  ENETUNREACH and the like when there is no way to the peer."""
        source = source_towards(connection.peer.ip)
        link = self._links[connection] = RawLink(self, owner, connection, source, self._clock)
        self._demultiplexer.add(connection)
        return link

    def send(self, source: bytes, connection: RawConnection) -> None:
        """Send what a connection has to send."""
        target = connection.peer.ip[len(_MAPPED) :]
        for datagram in connection.datagrams_to_send():
            if not self._socket.send(source, target, datagram):
                self._core.counters.count("send_failures")

    def forget(self, link: RawLink) -> None:
        """Nothing goes over a link any more."""
        self._links.pop(link.connection, None)
        self._demultiplexer.remove(link.connection)

    def close(self) -> None:
        """Nothing is sent or received any more."""
        self._socket.close()

    def _received(self, source: bytes, target: bytes, packet: bytes) -> None:
        if not self._concerned(target):
            return
        connection = self._demultiplexer.receive_datagram(_MAPPED + source, packet, self._clock())
        if connection is None:
            return
        link = self._links.get(connection)
        if link is None:
            if not connection.lasting or self._owner is None:
                self.send(target, connection)
                return
            link = self._links[connection] = RawLink(self, self._owner, connection, target, self._clock)
        link.flush()

    def _concerned(self, target: bytes) -> bool:
        """Whether a datagram is for this node: every raw socket of a host gets a copy of each."""
        if self._demultiplexer.responder is not None and self._address in (None, target):
            return True
        return any(link.source == target for link in self._links.values())

    def _drained(self) -> None:
        for link in list(self._links.values()):
            link.flush()


def source_towards(address: bytes) -> bytes:
    """This host's own address (4 bytes) for datagrams to a mapped IPv4 address (16 bytes); the errno of
    connect(2) when there is no way.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((socket.inet_ntoa(address[len(_MAPPED) :]), 9))  # sends nothing
        own: str = probe.getsockname()[0]
    return socket.inet_aton(own)


async def ipv4_address(host: str) -> bytes:
    """16 bytes of the first IPv4 address of ``host``.  EAFNOSUPPORT when it has none (section 4), otherwise
    the error of the resolver.
    """
    literal = host.lower().removeprefix("::ffff:")  # a mapped address is an IPv4 one
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(literal, None, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except socket.gaierror:
        await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)  # raises if nothing is known of it at all
        raise LocalError(errno.EAFNOSUPPORT, f"transport raw is IPv4 only, {host} is not") from None
    return _MAPPED + socket.inet_aton(str(found[0][4][0]))
