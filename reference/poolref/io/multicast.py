# SPDX-License-Identifier: GPL-2.0-or-later
"""Announces over UDP multicast (DISC-01): one socket hears the group, one per network interface sends."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import socket
import struct
from typing import Final, NamedTuple

from ..constants import ANNOUNCE_GROUP, ANNOUNCE_PERIOD, DEFAULT_PORT, SECOND
from ..core import NodeCore
from ..discovery import Announcer
from .link import Clock
from .tcp import mapped_ip

_GROUP: Final = socket.inet_aton(ANNOUNCE_GROUP)
_TTL: Final = 1  # N07
_DATAGRAM_LIMIT: Final = 2048
_BATCH: Final = 64
"""Datagrams read at a time, so that a flood leaves the loop to others."""

# linux/in.h, linux/sockios.h, linux/if.h
_IP_MULTICAST_ALL: Final = 49
_SIOCGIFFLAGS: Final = 0x8913
_SIOCGIFADDR: Final = 0x8915
_IFF_UP: Final = 0x1
_IFF_LOOPBACK: Final = 0x8
_IFF_MULTICAST: Final = 0x1000


class _Interface(NamedTuple):
    """The number of a network interface and its IPv4 address (4 bytes)."""

    number: int
    address: bytes

    @property
    def request(self) -> bytes:
        """A ``struct ip_mreqn``: the group, the source address, the interface."""
        return struct.pack("=4s4si", _GROUP, self.address, self.number)


class Multicast:
    """Runs a node's :class:`~poolref.discovery.Announcer` under asyncio until :meth:`stop`.

    Interfaces that come up are joined within 30 s.  A socket that fails is opened anew with growing pauses
    and journalled (S08).
    """

    def __init__(self, core: NodeCore, clock: Clock, *, interface: str | None = None) -> None:
        """``interface``: the name of the only one to use; by default every one that is up, can multicast and
        has an IPv4 address, or loopback when there is no other.

        RandomnessError when no key can be drawn (E-82).
        """
        self.announcer = Announcer(core, clock())
        self._clock = clock
        self._interface = interface
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._receiver: socket.socket | None = None
        self._senders: dict[_Interface, socket.socket] = {}

    def start(self) -> None:
        """Begin to listen for announces; to be called in a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._tick()

    def stop(self) -> None:
        """Close the sockets; nothing when they are."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._close()
        self._loop = None

    def listening(self, port: int | None) -> None:
        """Announce that the node listens on ``port``, from now on; None: no more."""
        self.announcer.listening(port, self._clock())
        if self._loop is not None:
            self._tick()

    @property
    def is_open(self) -> bool:
        """Whether announces can be heard at present."""
        return self._receiver is not None

    def _tick(self) -> None:
        """Do what is due, then sleep until something is."""
        assert self._loop is not None
        now = self._clock()
        announcer = self.announcer
        announcer.handle_timer(now)
        try:
            if announcer.wants_socket:
                self._open(self._loop)
                announcer.opened(now)
                announcer.handle_timer(now)
            if self._receiver is not None:
                self._join(self._receiver)
                for datagram in announcer.datagrams_to_send():
                    self._send(datagram)
        except OSError as error:
            self._fail(error)
        due = announcer.next_timer()
        delay = ANNOUNCE_PERIOD if due is None else min(max(due - self._clock(), 0), ANNOUNCE_PERIOD)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay / SECOND, self._tick)

    # -- sockets ---------------------------------------------------------------------------------------

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._receiver = receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # several nodes on one host
        receiver.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        receiver.bind((ANNOUNCE_GROUP, DEFAULT_PORT))
        loop.add_reader(receiver, self._readable, receiver)

    def _close(self) -> None:
        if self._receiver is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._receiver)
            self._receiver.close()
            self._receiver = None
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()

    def _fail(self, error: OSError) -> None:
        self._close()
        self.announcer.failed(str(error), self._clock())

    def _join(self, receiver: socket.socket) -> None:
        """Follow the interfaces that come and go; OSError when not a single one can be used."""
        usable = self._usable(receiver)
        for interface in self._senders.keys() - usable:
            self._senders.pop(interface).close()
        problem = OSError(errno.ENODEV, "no network interface to multicast on")
        for interface in usable - self._senders.keys():
            try:
                receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, interface.request)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # joined already, before it went down
                    problem = error
                    continue
            self._senders[interface] = _sender(interface)
        if not self._senders:
            raise problem

    def _usable(self, sock: socket.socket) -> set[_Interface]:
        usable, loopback = set(), set()
        for number, name in socket.if_nameindex():
            try:
                (flags,) = struct.unpack_from("=H", _ifreq(sock, _SIOCGIFFLAGS, name))
                interface = _Interface(number, _ifreq(sock, _SIOCGIFADDR, name)[4:8])  # after family and port
            except OSError:  # just gone, or without an address
                continue
            if not flags & _IFF_UP or self._interface not in (None, name):
                continue
            if flags & _IFF_LOOPBACK:
                loopback.add(interface)
            elif flags & _IFF_MULTICAST or name == self._interface:
                usable.add(interface)
        return usable or loopback

    # -- datagrams -------------------------------------------------------------------------------------

    def _send(self, datagram: bytes) -> None:
        """To the group on every interface; OSError when it leaves on none."""
        problem = None
        sent = False
        for sender in self._senders.values():
            try:
                sender.sendto(datagram, (ANNOUNCE_GROUP, DEFAULT_PORT))
                sent = True
            except BlockingIOError:  # the next one is 30 s away
                sent = True
            except OSError as error:  # an interface that just went down
                problem = error
        if problem is not None and not sent:
            raise problem

    def _readable(self, receiver: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                datagram, (address, _port) = receiver.recvfrom(_DATAGRAM_LIMIT)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(error)
                self._tick()
                return
            self.announcer.receive(datagram, mapped_ip(address), self._clock())


def _sender(interface: _Interface) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface.request)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    return sender


def _ifreq(sock: socket.socket, request: int, name: str) -> bytes:
    """What an ioctl on a ``struct ifreq`` puts after the interface's name."""
    return fcntl.ioctl(sock, request, struct.pack("16s24x", name.encode()))[16:]
