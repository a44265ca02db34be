# SPDX-License-Identifier: GPL-2.0-or-later
"""POOL over a TCP stream (section 4), without the socket: framing, and the handshake giving way to its
session.
"""

from __future__ import annotations

from . import wire
from .constants import HEADER_SIZE
from .counters import DropReason
from .events import Event
from .handshake import ClientHandshake, ServerHandshake
from .inbox import Message
from .session import Session
from .wire import Buffer


class Framer:
    """Cuts a stream into packets: 80 bytes of header tell how many follow."""

    __slots__ = ("_buffer", "_start")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0

    def __len__(self) -> int:
        """Bytes that wait for the rest of their packet, or for :meth:`next_packet`."""
        return len(self._buffer) - self._start

    def feed(self, data: Buffer) -> None:
        """Append bytes from the stream."""
        rest = self._buffer[self._start :]
        self._buffer = rest + data if rest else bytes(data)
        self._start = 0

    def next_packet(self) -> bytes | None:
        """The next whole packet, None until there is one."""
        buffer, start = self._buffer, self._start
        size = len(buffer)
        if size == start:
            self._buffer, self._start = b"", 0  # keeps no packets alive that were taken
            return None
        if size - start < HEADER_SIZE:
            return None
        end = start + wire.packet_size(buffer, start)
        if size < end:
            return None
        self._start = end
        return buffer[start:end]


class TcpConnection:
    """One stream from its handshake to its end.

    The transport feeds :meth:`receive_data` and :meth:`receive_eof`, calls :meth:`handle_timer` when
    :meth:`next_timer` says so, and after each of them (and after any call of :attr:`session`) writes
    :meth:`data_to_send`, takes :meth:`next_event`, reads on only while :attr:`reading`, and closes once
    :attr:`closing`.
    """

    def __init__(self, handshake: ClientHandshake | ServerHandshake) -> None:
        self.handshake = handshake
        self.session: Session | None = None
        self._framer = Framer()
        self._suspended = False
        self._ended = False
        self._pacer = None if handshake.conduct is None else handshake.conduct.pacer()

    @property
    def endpoint(self) -> ClientHandshake | ServerHandshake | Session:
        """What takes packets at present."""
        return self.handshake if self.session is None else self.session

    @property
    def reading(self) -> bool:
        """False while the receive queue is full (DATA-04)."""
        return not self._suspended

    @property
    def closing(self) -> bool:
        """The stream is to be closed once :meth:`data_to_send` is written."""
        return self.endpoint.closing and not self._pacer

    def receive_data(self, data: Buffer, now: int) -> None:
        """Take bytes as they come from the stream, in any portions."""
        self._framer.feed(data)
        self._pump(now)

    def receive_eof(self, now: int) -> None:
        """The peer closed the stream; packets still queued here are handled first."""
        self._ended = True
        self._pump(now)

    def lost(self, now: int) -> None:
        """The stream is gone for good."""
        self._finish(now)

    def take(self, now: int, channel: int | None = None, max_size: int | None = None) -> Message | None:
        """A message from the session's receive queue, which may set reading going again."""
        if self.session is None:
            return None
        message = self.session.take(channel, max_size)
        if self._suspended and not self.session.inbox.full:
            self._suspended = False
            self.session.resume(now)
            self._pump(now)
        return message

    def next_timer(self) -> int | None:
        """When :meth:`handle_timer` is due (ns), or None."""
        due = self.endpoint.next_timer()
        if self._pacer is not None:
            due = min((each for each in (due, self._pacer.next_timer()) if each is not None), default=None)
        return due

    def handle_timer(self, now: int) -> None:
        """Do what is due at ``now``."""
        self.endpoint.handle_timer(now)
        if self._pacer is not None:
            self._pacer.handle_timer(now)

    def data_to_send(self) -> bytes:
        """Everything to write to the stream, in one piece; empty when there is nothing."""
        packets = self.handshake.packets_to_send()
        if self.session is not None:
            packets += self.session.packets_to_send()
        data = b"".join(packets)
        return data if self._pacer is None else self._pacer.take(data)

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        event = self.handshake.next_event()
        if event is None and self.session is not None:
            event = self.session.next_event()
        return event

    def _pump(self, now: int) -> None:
        endpoint = self.endpoint
        while not self._suspended and not endpoint.closing:
            packet = self._framer.next_packet()
            if packet is None:
                if self._ended:
                    self._finish(now)
                return
            endpoint.receive_packet(packet, now)
            session = self.session
            if session is None:
                self.session = self.handshake.session
                endpoint = self.endpoint
            elif session.inbox.full and not session.closing:
                self._suspended = True
                session.suspend(now)

    def _finish(self, now: int) -> None:
        if self.closing:
            return
        if len(self._framer):
            self.endpoint.counters.count(DropReason.MALFORMED)  # a packet that was cut off
        self.endpoint.end_of_stream(now)
