# SPDX-License-Identifier: GPL-2.0-or-later
"""A listening node of the reference that speaks datagrams, on a thread of its own."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable

from poolref.constants import SECOND
from poolref.core import NodeCore
from poolref.dialect import Dialect
from poolref.raw_connection import Demultiplexer, RawConnection
from poolref.raw_session import RawSession
from poolref.responder import Responder
from poolref.settings import Settings

CLIENT_IP = bytes(10) + b"\xff\xff" + bytes([127, 0, 0, 1])
EASY = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))

SPEED = 10
Arrives = Callable[[bytes], bool]


def now() -> int:
    return time.monotonic_ns() * SPEED


class RawPeer:
    """Sends messages back to whoever is at the other end of ``sock``, a connected datagram socket.  Its time
    runs SPEED times as fast as everybody's.

    ``incoming`` and ``outgoing`` say of each packet whether it arrives.  A context manager.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        incoming: Arrives = lambda packet: True,
        outgoing: Arrives = lambda packet: True,
    ) -> None:
        self.sock = sock
        self.incoming, self.outgoing = incoming, outgoing
        self.core = NodeCore(EASY, random.Random(5).randbytes, time.time_ns)
        self.demultiplexer = Demultiplexer(self.core)
        self.demultiplexer.responder = Responder(self.core, now())
        self.connection: RawConnection | None = None
        self.received: list[bytes] = []
        self.orders: list[Callable[[RawSession, int], None]] = []
        """Called once each, with the session and the time, by the thread."""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def session(self) -> RawSession:
        assert self.connection is not None
        assert self.connection.session is not None
        return self.connection.session

    def __enter__(self) -> RawPeer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._thread.join()
        self.sock.close()

    def _serve(self) -> None:
        while not self._ending.is_set():
            left = 0.02
            if self.connection is not None and (due := self.connection.next_timer()) is not None:
                left = min(left, max(0, due - now()) / SPEED / SECOND)
            ready, _, _ = select.select([self.sock], [], [], left)
            moment = now()
            if ready and (data := self._read()):
                if self.sock.family == socket.AF_INET:
                    data = data[20:]
                if self.incoming(data):
                    connection = self.demultiplexer.receive_datagram(CLIENT_IP, data, moment)
                    if connection is not None:
                        self._flush(connection)
                    if connection is not None and connection.lasting:
                        self.connection = connection
            if self.connection is not None:
                self.connection.handle_timer(moment)
                while (message := self.connection.take(moment)) is not None:
                    self.received.append(message.data)
                    self.session.send(message.data, moment)
                while self.orders and self.connection.session is not None:
                    self.orders.pop(0)(self.connection.session, moment)
                self._flush(self.connection)

    def _read(self) -> bytes:
        try:
            return self.sock.recv(1 << 16)
        except OSError:
            return b""  # an ICMP message: somebody's socket is gone

    def _flush(self, connection: RawConnection) -> None:
        for datagram in connection.datagrams_to_send():
            if self.outgoing(datagram.packet):
                try:
                    self.sock.send(datagram.packet)
                except OSError:
                    return  # the other end is gone


def losing(*predicates: Callable[[bytes], bool]) -> Arrives:
    """Each predicate's first match does not arrive."""
    left = list(predicates)

    def arrives(packet: bytes) -> bool:
        for predicate in left:
            if predicate(packet):
                left.remove(predicate)
                return False
        return True

    return arrives
