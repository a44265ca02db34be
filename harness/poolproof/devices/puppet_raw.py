# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams of raw IP in place of a TCP stream, for scripted peers."""

from __future__ import annotations

import socket
import time

from poolproof.devices.puppet_stream import WAIT, EndOfStream, NothingCame, Packet, PuppetError
from poolref import wire
from poolref.constants import HEADER_SIZE, RAW_PROTOCOL
from poolref.errors import DecodeError


class RawStream:
    """What `Stream` is over TCP: one peer's datagrams, a packet each. Nothing tells the peer of its end."""

    def __init__(self, address: str) -> None:
        self.closed = False
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, RAW_PROTOCOL)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.connect((address, 0))

    def send(self, data: bytes) -> None:
        """One datagram."""
        try:
            self.sock.send(data)
        except OSError as exc:
            raise EndOfStream(f"the datagram could not be sent: {exc}") from exc

    def receive(self, timeout: float = WAIT) -> Packet:
        """The next packet. Raises NothingCame, or PuppetError on bytes that are none."""
        deadline = time.monotonic() + timeout
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise NothingCame(f"nothing came within {timeout:g} s")
            self.sock.settimeout(remaining)
            try:
                data = self.sock.recv(65535)
            except TimeoutError:
                continue
            raw = data[(data[0] & 15) * 4 :]
            if len(raw) < HEADER_SIZE or len(raw) != wire.packet_size(raw):
                raise PuppetError(f"a datagram of {len(raw)} bytes is not one packet")
            try:
                return Packet(wire.parse(raw), raw[HEADER_SIZE:], raw)
            except DecodeError as exc:
                raise PuppetError(f"the peer sent bytes that are no packet: {exc}") from exc

    def close(self) -> None:
        """Listen no more."""
        self.closed = True
        self.sock.close()
