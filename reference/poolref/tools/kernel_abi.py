# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel module's control interface: /dev/pool ioctls and /proc/pool (spec/abi.md).

Standard library only: this file also runs inside test guests. Structures are x86-64 with natural C
alignment in host byte order. Every refusal of the module surfaces as OSError with its errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_PORT = 9253
MAX_SESSIONS = 64
MAX_MESSAGE = 65535

_NONE, _WRITE, _READ = 0, 1, 2


def _ioc(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | ord("P") << 8 | number


CONNECT_REQ = struct.Struct("=16sHBB4x")
CONNECT_REQ_EARLIEST = struct.Struct("=IHxx")
MESSAGE_REQ = struct.Struct("=IBBHI4xQ")
SESSION_LIST = struct.Struct("=IIQ")
CHANNEL_REQ = struct.Struct("=IBBHI4xQ")
SESSION_INFO = struct.Struct("=I16sHBB16sQQQQI44s")
SESSION_INFO_EARLIEST = struct.Struct("=IIHBx16sxxxxQQQQI44s")
TELEMETRY = struct.Struct("=QQIIHHQII")

IOC_LISTEN = _ioc(_WRITE, 1, 2)
IOC_CONNECT = _ioc(_WRITE, 2, CONNECT_REQ.size)
IOC_CONNECT_EARLIEST = _ioc(_WRITE, 2, CONNECT_REQ_EARLIEST.size)
IOC_SEND = _ioc(_WRITE, 3, MESSAGE_REQ.size)
IOC_RECV = _ioc(_WRITE | _READ, 4, MESSAGE_REQ.size)
IOC_SESSIONS = _ioc(_WRITE | _READ, 5, SESSION_LIST.size)
IOC_CLOSE_SESS = _ioc(_WRITE, 6, 4)
IOC_STOP = _ioc(_NONE, 7, 0)
IOC_CHANNEL = _ioc(_WRITE | _READ, 8, CHANNEL_REQ.size)
IOC_CONTROL = _ioc(_WRITE | _READ, 32, 24)

CHANNEL_SUBSCRIBE, CHANNEL_UNSUBSCRIBE, CHANNEL_LIST = 1, 2, 3

STATE_NAMES = ("IDLE", "INIT_SENT", "CHALLENGED", "ESTABLISHED", "REKEYING", "CLOSING")
TELEMETRY_FIELDS = (
    "rtt_ns",
    "jitter_ns",
    "loss_rate_ppm",
    "throughput_bps",
    "mtu",
    "queue_depth",
    "uptime_ns",
    "rekey_count",
    "config_version",
)


@dataclass(frozen=True)
class SessionInfo:
    """One row of the session table; counts in bytes and packets, `telemetry` as in protocol section 12."""

    index: int
    peer_addr: str
    peer_port: int
    state: str
    session_id: str
    bytes_sent: int = 0
    bytes_recv: int = 0
    packets_sent: int = 0
    packets_recv: int = 0
    rekey_count: int = 0
    telemetry: dict[str, int] = field(default_factory=dict)


def mapped(address: str) -> bytes:
    """16 bytes of an address, IPv4 as ::ffff:a.b.c.d. Raises ValueError when it is not a literal."""
    literal = address.partition("%")[0]
    for family, prefix in ((socket.AF_INET, b"\0" * 10 + b"\xff\xff"), (socket.AF_INET6, b"")):
        try:
            return prefix + socket.inet_pton(family, literal)
        except OSError:
            continue
    raise ValueError(f"not an IP address: {address!r}")


def unmapped(address: bytes) -> str:
    """Text of a 16-byte address: dotted quad when it is an IPv4-mapped one."""
    if address[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def state_name(value: int) -> str:
    return STATE_NAMES[value] if value < len(STATE_NAMES) else f"state {value}"


class PoolDevice:
    """An open /dev/pool. `variant` is "current" or "earliest" (the IPv4-only structures of early builds)."""

    def __init__(self, path: str = "/dev/pool", proc: str = "/proc/pool") -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._proc = Path(proc)
        self.variant = self._probe_variant()

    def __enter__(self) -> PoolDevice:
        return self

    def __exit__(self, *exc: object) -> None:
        self.shut()

    def shut(self) -> None:
        """Close the file descriptor; sessions stay as they are."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _probe_variant(self) -> str:
        # ioctl numbers encode the structure's size; a null pointer never gets further than the copy.
        try:
            fcntl.ioctl(self._fd, IOC_CONNECT, 0)
        except OSError as exc:
            if exc.errno == errno.ENOTTY:
                return "earliest"
        return "current"

    def raw_ioctl(self, number: int, argument: bytes | int) -> tuple[int, bytes]:
        """Issue any ioctl; returns (return value, the argument as the module left it)."""
        if isinstance(argument, int):
            return fcntl.ioctl(self._fd, number, argument), b""
        buffer = bytearray(argument)
        return fcntl.ioctl(self._fd, number, buffer, True), bytes(buffer)

    def listen(self, port: int = DEFAULT_PORT) -> int:
        """Accept sessions on TCP `port`, IPv4 and IPv6; returns the port."""
        self.raw_ioctl(IOC_LISTEN, struct.pack("=H", port))
        return port

    def stop(self) -> None:
        """Stop listening; established sessions go on."""
        self.raw_ioctl(IOC_STOP, 0)

    def connect(self, address: str, port: int = DEFAULT_PORT, version: int = 0) -> int:
        """Open a session to an IP literal; returns its index. Blocks until the handshake ends."""
        packed = mapped(address)
        is_v4 = packed.startswith(b"\0" * 10 + b"\xff\xff")
        if self.variant == "earliest":
            if not is_v4:
                raise OSError(errno.EAFNOSUPPORT, "this build's connect request holds IPv4 addresses only")
            request = CONNECT_REQ_EARLIEST.pack(int.from_bytes(packed[12:], "big"), port)
            return self.raw_ioctl(IOC_CONNECT_EARLIEST, request)[0]
        family = socket.AF_INET if is_v4 else socket.AF_INET6
        return self.raw_ioctl(IOC_CONNECT, CONNECT_REQ.pack(packed, port, family, version))[0]

    def send(self, index: int, data: bytes, channel: int = 0) -> None:
        """Send one message (1..65535 bytes, DATA-01)."""
        buffer = ctypes.create_string_buffer(bytes(data), max(len(data), 1))
        request = MESSAGE_REQ.pack(index, channel, 0, 0, len(data), ctypes.addressof(buffer))
        self.raw_ioctl(IOC_SEND, request)

    def recv(self, index: int, channel: int = 0, max_size: int = MAX_MESSAGE) -> bytes:
        """Receive one message; channel 0 takes any. Waits 5 s, then ETIMEDOUT (DATA-03 for EMSGSIZE)."""
        buffer = ctypes.create_string_buffer(max(max_size, 1))
        request = bytearray(MESSAGE_REQ.pack(index, channel, 0, 0, max_size, ctypes.addressof(buffer)))
        try:
            fcntl.ioctl(self._fd, IOC_RECV, request, True)
        except OSError as exc:
            if exc.errno == errno.EMSGSIZE:
                needed = MESSAGE_REQ.unpack(request)[4]
                text = f"the message needs {needed} bytes, the buffer has {max_size}"
                raise OSError(errno.EMSGSIZE, text) from exc
            raise
        return buffer.raw[: MESSAGE_REQ.unpack(request)[4]]

    def sessions(self) -> list[SessionInfo]:
        """Every session the module lists."""
        layout = SESSION_INFO_EARLIEST if self.variant == "earliest" else SESSION_INFO
        buffer = ctypes.create_string_buffer(layout.size * MAX_SESSIONS)
        request = SESSION_LIST.pack(0, MAX_SESSIONS, ctypes.addressof(buffer))
        count = SESSION_LIST.unpack(self.raw_ioctl(IOC_SESSIONS, request)[1])[0]
        rows = [layout.unpack_from(buffer.raw, layout.size * i) for i in range(min(count, MAX_SESSIONS))]
        return [self._session_info(row) for row in rows]

    def _session_info(self, row: tuple[int | bytes, ...]) -> SessionInfo:
        values = list(row)
        if self.variant == "earliest":
            values[1] = b"\0" * 10 + b"\xff\xff" + int(values[1]).to_bytes(4, "big")
            values.insert(3, socket.AF_INET)
        index, address, port, _family, state, session_id, sent, received, tx, rx, rekeys, telemetry = values
        figures = TELEMETRY.unpack(bytes(telemetry))
        return SessionInfo(
            index=int(index),
            peer_addr=unmapped(bytes(address)),
            peer_port=int(port),
            state=state_name(int(state)),
            session_id=bytes(session_id).hex(),
            bytes_sent=int(sent),
            bytes_recv=int(received),
            packets_sent=int(tx),
            packets_recv=int(rx),
            rekey_count=int(rekeys),
            telemetry=dict(zip(TELEMETRY_FIELDS, figures, strict=True)),
        )

    def close_session(self, index: int) -> None:
        """Close a session gracefully (CLS-01)."""
        self.raw_ioctl(IOC_CLOSE_SESS, struct.pack("=I", index))

    def channel(self, index: int, operation: int, channel: int = 0) -> list[int]:
        """Subscribe (1), unsubscribe (2) or list (3: returns the subscribed channels) (CHAN-01)."""
        bitmap = ctypes.create_string_buffer(32)
        request = CHANNEL_REQ.pack(index, channel, operation, 0, 0, ctypes.addressof(bitmap))
        self.raw_ioctl(IOC_CHANNEL, request)
        if operation != CHANNEL_LIST:
            return []
        return [n for n in range(256) if bitmap.raw[n >> 3] >> (n & 7) & 1]

    def counters(self) -> dict[str, int]:
        """/proc/pool/counters as a mapping; OSError(ENOENT) where a build has none."""
        lines = (self._proc / "counters").read_text(errors="replace").splitlines()
        pairs = (line.split() for line in lines)
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

    def details(self) -> list[dict[str, str]]:
        """/proc/pool/details: one mapping of key=value a session; OSError(ENOENT) where a build has none."""
        lines = (self._proc / "details").read_text(errors="replace").splitlines()
        return [
            dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if "=" in line
        ]

    def status(self) -> dict[str, str]:
        """/proc/pool/status as a mapping of its `name: value` lines."""
        lines = (self._proc / "status").read_text(errors="replace").splitlines()
        return {k.strip(): v.strip() for k, sep, v in (line.partition(":") for line in lines) if sep}
