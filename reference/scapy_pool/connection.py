# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session over TCP, in the user's hands."""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any

from scapy.packet import Packet
from scapy.supersocket import StreamSocket

from poolref.keys import Keys

from .header import Pool
from .payloads import Auth, PoolClose, PoolData


class PoolStream(StreamSocket):
    """A TCP connection that carries POOL packets; with ``keys``, they are opened with those."""

    def __init__(self, sock: socket.socket, keys: Keys | None = None) -> None:
        super().__init__(sock, Pool)
        if keys is not None:
            self.rcvcls = lambda data, metadata, session: Pool.tcp_reassemble(data, metadata, session, keys)


class PoolConnection:
    """An established session in the user's hands.  Nothing is sent by itself: no ACK, no heartbeat.

    ``seq`` is the next one to send, ``peer_seq`` the highest authentic one received; both may be changed.
    Use as a context manager, or :meth:`close`.  ``stream`` serves scapy's own functions, such as
    ``connection.stream.sr1(connection.make(...))``.
    """

    def __init__(self, sock: socket.socket, keys: Keys, session_id: bytes, seq: int, peer_seq: int) -> None:
        self.sock = sock
        self.stream = PoolStream(sock, keys)
        self.keys = keys
        self.session_id = session_id
        self.seq = seq
        self.peer_seq = peer_seq
        self._backlog: deque[Pool] = deque()

    def make(self, payload: Packet | bytes, **header: Any) -> Pool:
        """A packet of this session; bytes are the data of a DATA packet.  Any header field may be given;
        without ``seq`` it takes the next one.
        """
        if "seq" not in header:
            header["seq"] = self.seq
            self.seq += 1
        fields = {
            "keys": self.keys,
            "session_id": self.session_id,
            "ack": self.peer_seq,
            "timestamp": time.monotonic_ns(),
            **header,
        }
        body = PoolData(payload) if isinstance(payload, bytes) else payload
        packet: Pool = Pool(**fields) / body
        return packet

    def send(self, payload: Packet | bytes, **header: Any) -> Pool:
        """Send a packet made by :meth:`make`, or a whole Pool packet as it is; returns it."""
        packet = payload if isinstance(payload, Pool) else self.make(payload, **header)
        self.sock.sendall(bytes(packet))
        return packet

    def recv(self, timeout: float = 5) -> Pool | None:
        """The next packet; None when none came within ``timeout`` seconds, EOFError at the stream's end."""
        return self._backlog.popleft() if self._backlog else self._read(timeout)

    def sr1(self, payload: Packet | bytes, timeout: float = 5, **header: Any) -> Pool | None:
        """Send and wait for the answer; other packets that come meanwhile are left for :meth:`recv`."""
        asked = self.send(payload, **header)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            packet = self._read(left)
            if packet is None:
                break
            if packet.answers(asked):
                return packet
            self._backlog.append(packet)
        return None

    def close(self, code: int | None = None) -> None:
        """Send a CLOSE and end the connection; the node may have ended it already."""
        try:
            self.send(PoolClose(code=code))
        except OSError:
            pass
        self.sock.close()

    def __enter__(self) -> PoolConnection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, timeout: float) -> Pool | None:
        self.sock.settimeout(timeout)
        try:
            packet: Any = self.stream.recv()
        except TimeoutError:
            return None
        finally:
            self.sock.settimeout(None)
        if packet.auth is Auth.OK:
            self.peer_seq = max(self.peer_seq, packet.seq)
        return packet  # type: ignore[no-any-return]
