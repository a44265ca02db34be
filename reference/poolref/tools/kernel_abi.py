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
IOC_CONTROL = _ioc(_WRITE | _READ, 32, 24)  # CONTROL_REQ below

CONTROL_REQ = struct.Struct("=IB3xIiQ")
PARAMETERS = struct.Struct("=BBHIIHHQ")  # params of section 14 and the deadline, in host order (E-97)

CONTROL_REKEY, CONTROL_CONFIGURE, CONTROL_CONFIRM, CONTROL_ROLLBACK = 1, 2, 3, 4
CONTROL_JOURNAL, CONTROL_EXCHANGE, CONTROL_CHALLENGE, CONTROL_PROBE = 5, 6, 7, 8

DEFAULT_PARAMETERS = {
    "difficulty": 16,
    "heartbeat_s": 5,
    "rekey_packets": 1 << 28,
    "rekey_s": 3600,
    "mtu_min": 512,
    "mtu_max": 1400,
}
"""What a module starts with, unless its parameters say otherwise (section 14)."""

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

    def control(self, index: int, operation: int, data: bytes = b"") -> int:
        """An operation of the extension ioctl CONTROL (ABI-17): its result. OSError(EOPNOTSUPP) with a text
        that says so where a build does not have the ioctl or the operation.
        """
        buffer = ctypes.create_string_buffer(data, max(len(data), 1))
        request = CONTROL_REQ.pack(index, operation, len(data), 0, ctypes.addressof(buffer) if data else 0)
        try:
            answer = self.raw_ioctl(IOC_CONTROL, request)[1]
        except OSError as exc:
            if exc.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
                what = (
                    "the CONTROL ioctl" if exc.errno == errno.ENOTTY else f"operation {operation} of CONTROL"
                )
                raise OSError(errno.EOPNOTSUPP, f"this build of the module does not have {what}") from exc
            raise
        result = int(CONTROL_REQ.unpack(answer)[3])
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result

    def rekey(self, index: int) -> None:
        """Begin a rekey now."""
        self.control(index, CONTROL_REKEY)

    def configure(self, index: int, deadline_ns: int, **params: int) -> int:
        """Propose a configuration to the peer, `DEFAULT_PARAMETERS` where nothing else is stated; the version
        proposed.
        """
        values = {**DEFAULT_PARAMETERS, **params}
        packed = PARAMETERS.pack(
            values["difficulty"],
            0,
            values["heartbeat_s"],
            values["rekey_packets"],
            values["rekey_s"],
            values["mtu_min"],
            values["mtu_max"],
            deadline_ns,
        )
        return self.control(index, CONTROL_CONFIGURE, packed)

    def confirm(self, index: int) -> int:
        """Make what the peer accepted permanent."""
        return self.control(index, CONTROL_CONFIRM)

    def rollback(self, index: int) -> int:
        """Let the peer undo what was proposed."""
        return self.control(index, CONTROL_ROLLBACK)

    def request_journal(self, index: int) -> list[dict[str, int | str]]:
        """Ask for the peer's journal. The module verifies it and shows none of it, so nothing is returned."""
        self.control(index, CONTROL_JOURNAL)
        return []

    def exchange(self, index: int) -> None:
        """Tell the peer of other peers now."""
        self.control(index, CONTROL_EXCHANGE)

    def challenge(self, index: int) -> None:
        """Send an integrity challenge now."""
        self.control(index, CONTROL_CHALLENGE)

    def probe_mtu(self, index: int) -> int:
        """Probe the path now; the session's mtu as of before, since the search takes seconds."""
        self.control(index, CONTROL_PROBE)
        return next((row.telemetry["mtu"] for row in self.sessions() if row.index == index), 0)

    def journal(self) -> list[dict[str, int | str]]:
        """/proc/pool/journal: one mapping an entry; hash and detail only where a build shows them."""
        entries: list[dict[str, int | str]] = []
        for line in self._lines("journal")[1:]:
            words = line.split(None, 6)
            if len(words) < 5 or not (words[0] + words[1]).isdecimal():
                continue
            entries.append(
                {
                    "index": int(words[0]),
                    "timestamp": int(words[1]),
                    "type": words[2],
                    "before": int(words[3]),
                    "after": int(words[4]),
                    "hash": words[5] if len(words) > 5 else "",
                    "detail": words[6] if len(words) > 6 else "",
                }
            )
        return entries

    def peers(self) -> list[dict[str, int | str]]:
        """/proc/pool/peers: one mapping a peer; OSError(ENOENT) where a build has none."""
        rows = [line.split() for line in self._lines("peers")[1:]]
        return [
            {"address": row[0], "port": int(row[1]), "source": row[2], "age_s": int(row[3]), "pubkey": row[4]}
            for row in rows
            if len(row) == 5
        ]

    def add_peer(self, address: str, port: int, pubkey: bytes) -> None:
        """OSError(EOPNOTSUPP): the module knows its static peers from when it was loaded."""
        raise OSError(errno.EOPNOTSUPP, "the module takes static peers from its parameter `peers` only")

    def forget_peer(self, address: str, port: int) -> None:
        """OSError(EOPNOTSUPP), as `add_peer`."""
        raise OSError(errno.EOPNOTSUPP, "the module takes static peers from its parameter `peers` only")

    def integrity(self) -> dict[str, str]:
        """/proc/pool/integrity as a mapping of its `name: value` lines; OSError(ENOENT) where a build has
        none.
        """
        return self._pairs("integrity")

    def stats(self) -> dict[str, str]:
        """The same as `status`."""
        return self.status()

    def counters(self) -> dict[str, int]:
        """/proc/pool/counters as a mapping; OSError(ENOENT) where a build has none."""
        pairs = (line.split() for line in self._lines("counters"))
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

    def details(self) -> list[dict[str, str]]:
        """/proc/pool/details: one mapping of key=value a session; OSError(ENOENT) where a build has none."""
        lines = self._lines("details")
        return [
            dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if "=" in line
        ]

    def status(self) -> dict[str, str]:
        """/proc/pool/status as a mapping of its `name: value` lines."""
        return self._pairs("status")

    def _lines(self, name: str) -> list[str]:
        return (self._proc / name).read_text(errors="replace").splitlines()

    def _pairs(self, name: str) -> dict[str, str]:
        return {
            k.strip(): v.strip() for k, sep, v in (line.partition(":") for line in self._lines(name)) if sep
        }
