# SPDX-License-Identifier: GPL-2.0-or-later
"""A TCP stream cut into POOL packets, for scripted peers. Blocking; every wait has a deadline in seconds."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field

from poolref import wire
from poolref.constants import HEADER_SIZE, Type
from poolref.errors import DecodeError
from poolref.wire import Header

WAIT = 15.0


class PuppetError(Exception):
    """The peer did something other than the script needs; the message says what came instead."""


class Unreachable(PuppetError):
    """The TCP connection could not be made; `errno` tells why."""

    def __init__(self, message: str, errno: int | None) -> None:
        super().__init__(message)
        self.errno = errno


class EndOfStream(PuppetError):
    """The peer closed or reset the connection."""


class NothingCame(PuppetError):
    """The deadline passed without a packet."""


@dataclass(frozen=True)
class Packet:
    """A received packet; `plaintext` is None until a session opened it."""

    header: Header
    payload: bytes
    raw: bytes
    plaintext: bytes | None = None
    authentic: bool = False

    def __str__(self) -> str:
        try:
            name = Type(self.header.type).name
        except ValueError:
            name = f"type {self.header.type}"
        code = (
            f" code {self.payload[0]:#04x}"
            if self.header.type == Type.CLOSE and len(self.payload) == 1
            else ""
        )
        return f"{name}{code} version {self.header.version} ({len(self.payload)} bytes of payload)"


@dataclass
class Stream:
    """A connected TCP socket cut into packets."""

    sock: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    closed: bool = False

    def send(self, data: bytes) -> None:
        """Raises EndOfStream when the peer is gone."""
        try:
            self.sock.sendall(data)
        except OSError as exc:
            raise EndOfStream(f"the connection broke while sending: {exc}") from exc

    def receive(self, timeout: float = WAIT) -> Packet:
        """The next whole packet. Raises EndOfStream, NothingCame, or PuppetError on bytes that are none."""
        deadline = time.monotonic() + timeout
        while True:
            if len(self.buffer) >= HEADER_SIZE:
                size = wire.packet_size(self.buffer)
                if len(self.buffer) >= size:
                    raw = bytes(self.buffer[:size])
                    del self.buffer[:size]
                    try:
                        return Packet(wire.parse(raw), raw[HEADER_SIZE:], raw)
                    except DecodeError as exc:
                        raise PuppetError(f"the peer sent bytes that are no packet: {exc}") from exc
            self._fill(deadline, timeout)

    def _fill(self, deadline: float, timeout: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            held = f" ({len(self.buffer)} bytes of an incomplete packet)" if self.buffer else ""
            raise NothingCame(f"nothing came within {timeout:g} s{held}")
        self.sock.settimeout(remaining)
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return
        except OSError as exc:
            raise EndOfStream(f"the connection was reset: {exc}") from exc
        if not data:
            raise EndOfStream("the peer closed the connection")
        self.buffer += data

    def close(self) -> None:
        """End this side of the connection; bytes not yet read make it a reset."""
        self.closed = True
        self.sock.close()
