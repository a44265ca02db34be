# SPDX-License-Identifier: GPL-2.0-or-later
"""Ethernet frames as the wire sees them: headers up to TCP and UDP, checksums, and predicates for rules."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

ETH_IPV4 = 0x0800
ETH_IPV6 = 0x86DD
ETH_HEADER = 14
IPPROTO_ICMPV6 = 58

TRANSPORTS = {"icmp": socket.IPPROTO_ICMP, "tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}

# Offset of the checksum inside each transport header.
_CHECKSUM_AT = {socket.IPPROTO_TCP: 16, socket.IPPROTO_UDP: 6, IPPROTO_ICMPV6: 2, socket.IPPROTO_ICMP: 2}


@dataclass(frozen=True, slots=True)
class Packet:
    """IP packet inside a frame. Offsets count from the frame's start; `end` cuts padding off."""

    version: int
    source: str
    destination: str
    protocol: int
    transport_at: int
    payload_at: int
    end: int
    source_port: int = 0
    destination_port: int = 0
    tcp_flags: int = 0
    ttl: int = 0


@dataclass(slots=True)
class Frame:
    """One frame at one place. `port` is where it entered or left, `note` what the wire did to it.

    `outbound` marks what the wire sent differently from what came in: altered, duplicated or injected.
    """

    data: bytes
    port: str
    time_ns: int
    number: int = 0
    outbound: bool = False
    note: str = ""
    _packet: Packet | None = field(default=None, repr=False, compare=False)

    @property
    def packet(self) -> Packet | None:
        """Its IP packet, None when it is something else or cut short."""
        if self._packet is None:
            self._packet = parse(self.data)
        return self._packet

    @property
    def payload(self) -> bytes:
        """What the transport carries (TCP and UDP), or what the IP packet does; empty without IP."""
        packet = self.packet
        return b"" if packet is None else self.data[packet.payload_at : packet.end]


Predicate = Callable[[Frame], bool]


def parse(data: bytes) -> Packet | None:
    """The IP packet of an Ethernet frame; None for anything else or a frame too short for its own headers."""
    try:
        kind = struct.unpack_from("!H", data, 12)[0]
        if kind == ETH_IPV4:
            return _parse_ipv4(data)
        if kind == ETH_IPV6:
            return _parse_ipv6(data)
    except struct.error:
        pass
    return None


def _parse_ipv4(data: bytes) -> Packet:
    first, total, fragment, ttl, protocol = struct.unpack_from("!BxHxxHBB", data, ETH_HEADER)
    source, destination = struct.unpack_from("!4s4s", data, ETH_HEADER + 12)
    start = ETH_HEADER + (first & 15) * 4
    addresses = (socket.inet_ntop(socket.AF_INET, source), socket.inet_ntop(socket.AF_INET, destination))
    end = min(len(data), ETH_HEADER + total)
    # Only the first fragment has a transport header.
    return _transport(data, 4, addresses, protocol if not fragment & 0x1FFF else -1, start, end, ttl)


def _parse_ipv6(data: bytes) -> Packet:
    length, protocol, ttl, source, destination = struct.unpack_from("!4xHBB16s16s", data, ETH_HEADER)
    addresses = (socket.inet_ntop(socket.AF_INET6, source), socket.inet_ntop(socket.AF_INET6, destination))
    start = ETH_HEADER + 40
    return _transport(data, 6, addresses, protocol, start, min(len(data), start + length), ttl)


def _transport(
    data: bytes, version: int, addresses: tuple[str, str], protocol: int, start: int, end: int, ttl: int
) -> Packet:
    ports, flags, payload = (0, 0), 0, start
    if protocol == socket.IPPROTO_TCP:
        source, destination, offset, flags = struct.unpack_from("!HH8xBB", data, start)
        ports, payload = (source, destination), start + (offset >> 4) * 4
    elif protocol == socket.IPPROTO_UDP:
        ports, payload = struct.unpack_from("!HH4x", data, start), start + 8
    return Packet(version, *addresses, protocol, start, min(payload, end), end, *ports, flags, ttl)


def matching(
    *,
    source: str | None = None,
    destination: str | None = None,
    transport: str | int | None = None,
    port: int | None = None,
    payload: bool | None = None,
    contains: bytes | None = None,
    where: Callable[[bytes], bool] | None = None,
) -> Predicate:
    """A predicate of all the given conditions.

    `source`, `destination`: an IP address or a wire port's name (`a`, `b`, `harness`; the name of the
    destination cannot be known from a frame, so only `source` takes one). `transport`: tcp, udp, icmp or a
    protocol number. `port`: TCP or UDP port of either end. `payload`: whether it carries any. `contains`:
    bytes within the payload. `where`: a test of the payload.
    """
    protocol = TRANSPORTS[transport] if isinstance(transport, str) else transport

    def predicate(frame: Frame) -> bool:
        packet = frame.packet
        if source is not None and source != frame.port and (packet is None or packet.source != source):
            return False
        if (destination, protocol, port, payload, contains, where) == (None,) * 6:
            return True
        if packet is None:
            return False
        content = frame.payload
        return (
            (destination is None or packet.destination == destination)
            and (protocol is None or packet.protocol == protocol)
            and (port is None or port in (packet.source_port, packet.destination_port))
            and (payload is None or bool(content) == payload)
            and (contains is None or contains in content)
            and (where is None or where(content))
        )

    return predicate


def anything(frame: Frame) -> bool:
    """The predicate that every frame meets."""
    return True


def _sum16(data: bytes | bytearray) -> int:
    if len(data) % 2:
        data = bytes(data) + b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def with_checksums(data: bytes) -> bytes:
    """The frame with its IPv4 and transport checksums made right, so that a change in it is believed."""
    packet = parse(data)
    if packet is None:
        return data
    out = bytearray(data)
    if packet.version == 4:
        struct.pack_into("!H", out, ETH_HEADER + 10, 0)
        header = out[ETH_HEADER : packet.transport_at]
        struct.pack_into("!H", out, ETH_HEADER + 10, 0xFFFF - _sum16(header))
    at = _CHECKSUM_AT.get(packet.protocol)
    if at is None or packet.transport_at + at + 2 > packet.end:
        return bytes(out)
    struct.pack_into("!H", out, packet.transport_at + at, 0)
    body = bytes(out[packet.transport_at : packet.end])
    pseudo = b""
    if packet.protocol != socket.IPPROTO_ICMP:
        family = socket.AF_INET if packet.version == 4 else socket.AF_INET6
        pseudo = socket.inet_pton(family, packet.source) + socket.inet_pton(family, packet.destination)
        pseudo += struct.pack("!II", len(body), packet.protocol)
    value = 0xFFFF - _sum16(pseudo + body)
    if value == 0 and packet.protocol == socket.IPPROTO_UDP:
        value = 0xFFFF
    struct.pack_into("!H", out, packet.transport_at + at, value)
    return bytes(out)
