# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture as text: the POOL packets in its TCP streams, one a line, opened where the keys are known."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from poolproof.lab.frames import Frame, Packet
from poolref import wire
from poolref.constants import HEADER_SIZE, Flag, Type
from poolref.errors import DecodeError
from poolref.keylog import parse_line
from poolref.keys import Keys

MAX_LINES = 2000
_HEX_SHOWN = 32
_MAX_HELD = 256
_SYN, _FIN, _RST = 2, 1, 4


@dataclass
class _Stream:
    """One direction of a TCP connection, put into order; `held` are segments that came early."""

    next_seq: int | None = None
    buffer: bytearray = field(default_factory=bytearray)
    held: dict[int, bytes] = field(default_factory=dict)
    framed: bool = True

    def take(self, seq: int, data: bytes) -> None:
        if self.next_seq is None:
            self.next_seq = seq
        ahead = (seq - self.next_seq) & 0xFFFFFFFF
        if 0 < ahead < 1 << 31:
            if len(self.held) < _MAX_HELD:
                self.held[seq] = data
            return
        fresh = data[(-ahead) & 0xFFFFFFFF :]
        self.buffer += fresh
        self.next_seq = (self.next_seq + len(fresh)) & 0xFFFFFFFF
        early = self.held.pop(self.next_seq, None)
        if early is not None:
            self.take(self.next_seq, early)

    def packets(self) -> Iterator[bytes]:
        """Whole packets; once the bytes cannot be packets, whatever there is."""
        while self.framed and len(self.buffer) >= HEADER_SIZE:
            if not 1 <= self.buffer[0] >> 4 <= 2:
                self.framed = False
                break
            size = wire.packet_size(self.buffer)
            if len(self.buffer) < size:
                return
            yield bytes(self.buffer[:size])
            del self.buffer[:size]
        if not self.framed and self.buffer:
            yield bytes(self.buffer)
            self.buffer.clear()


def transcript(frames: Iterable[Frame], keylog: Sequence[str], names: dict[str, str]) -> str:
    """The packets in `frames`, opened with the `keylog` lines. `names` maps IP addresses to node names."""
    keys: dict[bytes, list[Keys]] = {}
    for text in keylog:
        entry = parse_line(text)
        if entry is not None:
            keys.setdefault(entry.session_id, []).append(Keys.from_log(entry))
    lines: list[str] = []
    start: int | None = None
    for when, who, what in _events(frames, keys, names):
        start = when if start is None else start
        if len(lines) == MAX_LINES:
            lines.append("[cut: more packets in the capture]")
            break
        lines.append(f"{(when - start) / 1e9:10.6f}  {who:24}  {what}")
    return "\n".join(lines)


def _events(
    frames: Iterable[Frame], keys: dict[bytes, list[Keys]], names: dict[str, str]
) -> Iterator[tuple[int, str, str]]:
    streams: dict[tuple[str, int, str, int], _Stream] = {}
    for frame in frames:
        packet = frame.packet
        if frame.outbound or packet is None or packet.protocol != socket.IPPROTO_TCP:
            continue
        flow = (packet.source, packet.source_port, packet.destination, packet.destination_port)
        who = f"{_name(names, *flow[:2])} > {_name(names, *flow[2:])}"
        if frame.note:
            yield frame.time_ns, who, f"[the wire: {frame.note}]"
        for flag, word in ((_SYN, "TCP SYN"), (_RST, "TCP RST"), (_FIN, "TCP FIN")):
            if packet.tcp_flags & flag:
                yield frame.time_ns, who, word
        seq = struct.unpack_from("!I", frame.data, packet.transport_at + 4)[0]
        if packet.tcp_flags & _SYN:
            streams[flow] = _Stream((seq + 1) & 0xFFFFFFFF)
            continue
        data = _payload(frame, packet)
        if data:
            stream = streams.setdefault(flow, _Stream())
            stream.take(seq, data)
            for each in stream.packets():
                yield frame.time_ns, who, describe(each, keys)


def _payload(frame: Frame, packet: Packet) -> bytes:
    return frame.data[packet.payload_at : packet.end]


def _name(names: dict[str, str], address: str, port: int) -> str:
    return f"{names.get(address, address)}:{port}"


def describe(raw: bytes, keys: dict[bytes, list[Keys]]) -> str:
    """One line on a packet: type, numbers, and its plaintext if a key both verifies and opens it."""
    try:
        header = wire.parse(raw)
    except DecodeError:
        return f"{len(raw)} bytes that are no packet: {_hex(raw)}"
    try:
        name = Type(header.type).name
    except ValueError:
        name = f"TYPE-{header.type}"
    flags = "|".join(str(flag.name) for flag in Flag if header.flags & flag) or "-"
    text = f"{name:9} v{header.version} seq={header.seq} ack={header.ack} {flags}"
    if header.channel:
        text += f" channel={header.channel}"
    payload = raw[HEADER_SIZE:]
    if header.hmac == wire.ZERO_HMAC:
        return f"{text} plain({len(payload)}) {_hex(payload)}"
    known = keys.get(header.session_id, [])
    right = next((each for each in known if each.authentic(raw)), None)
    if right is None:
        return f"{text} {'hmac BAD' if known else 'no key'} ({len(payload)} bytes)"
    plaintext = right.open(header.seq, payload[-48:] if header.type == Type.RESPONSE else payload)
    if plaintext is None:
        return f"{text} hmac OK, tag BAD ({len(payload)} bytes)"
    return f"{text} OK({len(plaintext)}) {_hex(plaintext)}"


def _hex(data: bytes) -> str:
    return data[:_HEX_SHOWN].hex() + ("..." if len(data) > _HEX_SHOWN else "")
