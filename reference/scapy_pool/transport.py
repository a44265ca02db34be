# SPDX-License-Identifier: GPL-2.0-or-later
"""Sockets that carry POOL packets, as scapy's own functions take them."""

from __future__ import annotations

import errno
import socket
import sys
from typing import Any

from scapy.packet import Packet
from scapy.supersocket import StreamSocket, SuperSocket

from poolref.constants import HEADER_SIZE
from poolref.keys import Keys

from .header import IP_PROTOCOL, Pool
from .keyring import KeyRing

_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3  # of Linux: DF set, whatever ICMP says
_UNREACHABLE = (errno.ECONNREFUSED, errno.ENOPROTOOPT, errno.EHOSTUNREACH, errno.ENETUNREACH)
_LONGEST = 1 << 16


class PoolStream(StreamSocket):
    """A TCP connection that carries POOL packets; with ``keys``, they are opened with those."""

    def __init__(self, sock: socket.socket, keys: Keys | KeyRing | None = None) -> None:
        super().__init__(sock, Pool)
        if keys is not None:
            self.rcvcls = lambda data, metadata, session: Pool.tcp_reassemble(data, metadata, session, keys)


class PoolDatagrams(SuperSocket):
    """POOL packets to and from one peer, one a datagram, over a connected raw IP socket."""

    desc = "POOL over raw IP"

    def __init__(self, sock: socket.socket, keys: Keys | KeyRing | None = None) -> None:
        self.ins: socket.socket = sock
        self.outs: socket.socket = sock
        self.keys = keys

    def recv(self, x: int = _LONGEST, **kwargs: Any) -> Packet | None:
        """The next packet; None for a datagram that is none."""
        try:
            data = self.ins.recv(x)
        except OSError as error:
            if error.errno in _UNREACHABLE:  # an ICMP message, which anybody can send
                return None
            raise
        if self.ins.family == socket.AF_INET:
            data = data[(data[:1] or b"\0")[0] % 16 * 4 :]
        return Pool(data, keys=self.keys) if len(data) >= HEADER_SIZE else None

    def send(self, x: Any) -> int:
        return self.outs.send(bytes(x))


def raw_socket(host: str) -> socket.socket:
    """A raw IP socket for POOL with ``host`` (IPv4), DF set; PermissionError without CAP_NET_RAW."""
    address = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, IP_PROTOCOL)
    try:
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
        sock.connect((address, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def transport_of(sock: socket.socket, keys: Keys | KeyRing | None = None) -> SuperSocket:
    """What carries POOL packets over a connected socket: a stream's or a datagram socket's."""
    return (PoolStream if sock.type == socket.SOCK_STREAM else PoolDatagrams)(sock, keys)
