# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session played by hand, and the packets that break one rule each."""

from __future__ import annotations

import time
from collections.abc import Callable

from poolproof.devices.puppet_raw import RawStream
from poolproof.devices.puppet_stream import WAIT, Packet, PuppetError, Stream
from poolref import wire
from poolref.constants import Flag, Role, Type
from poolref.keys import Keys
from poolref.wire import Header, Telemetry


class Session:
    """An established session played by hand. `seq` is the next one to be used."""

    def __init__(
        self, stream: Stream | RawStream, keys: Keys, session_id: bytes, role: Role, seq: int, peer_seq: int
    ) -> None:
        self.stream = stream
        self.keys = keys
        self.session_id = session_id
        self.role = role
        self.seq = seq
        self.first_seq = seq - 1
        """The handshake's."""
        self.first_peer_seq = peer_seq
        self.highest = peer_seq
        self.last_sent = b""

    def packet(
        self, type: int, plaintext: bytes = b"", *, seq: int | None = None, **fields: int | bytes
    ) -> bytes:
        """A rightly protected packet, any header field overridden. Consumes a seq unless given one."""
        if seq is None:
            seq = self.seq
            self.seq += 1
        header = Header(type, seq=seq, timestamp=time.monotonic_ns())
        header.session_id = self.session_id
        header.ack = self.highest
        for name, value in fields.items():
            setattr(header, name, value)
        return self.keys.protect(header, plaintext)

    def data(self, message: bytes, **fields: int | bytes) -> bytes:
        """A DATA packet as the specification wants it, header fields overridden as given."""
        fields.setdefault("flags", int(Flag.REQUIRE_ACK))
        return self.packet(Type.DATA, message, **fields)  # type: ignore[arg-type]

    def heartbeat(self) -> bytes:
        """A HEARTBEAT packet with empty telemetry."""
        return self.packet(Type.HEARTBEAT, Telemetry().pack(), flags=int(Flag.TELEMETRY))

    def send(self, packet: bytes) -> int:
        """Send bytes; returns the seq in their header."""
        self.last_sent = packet
        self.stream.send(packet)
        return int(wire.parse(packet).seq)

    def receive(self, timeout: float = WAIT) -> Packet:
        """The next packet, authenticated and opened. PuppetError when it is not authentic."""
        packet = self.stream.receive(timeout)
        if not self.keys.authentic(packet.raw):
            raise PuppetError(f"the peer sent a packet with a wrong hmac: {packet}")
        plaintext = self.keys.open(packet.header.seq, packet.payload)
        if plaintext is None:
            raise PuppetError(f"the peer sent a packet with a wrong tag: {packet}")
        self.highest = max(self.highest, packet.header.seq)
        return Packet(packet.header, packet.payload, packet.raw, plaintext, True)

    def receive_type(self, wanted: Type, timeout: float = WAIT) -> Packet:
        """The next packet of a type; others that a session may carry at any time are passed over."""
        deadline = time.monotonic() + timeout
        while True:
            packet = self.receive(max(deadline - time.monotonic(), 0.001))
            if packet.header.type == wanted:
                return packet

    def await_ack(self, seq: int, timeout: float = WAIT) -> Packet:
        """The first ACK packet that covers `seq`."""
        deadline = time.monotonic() + timeout
        while True:
            packet = self.receive_type(Type.ACK, max(deadline - time.monotonic(), 0.001))
            if packet.header.ack >= seq:
                return packet

    def data_with_wrong_tag(self, message: bytes) -> bytes:
        """DATA whose hmac is right over a payload whose tag is not."""
        header = self._header(Type.DATA, int(Flag.ENCRYPTED | Flag.REQUIRE_ACK))
        sealed = bytearray(self.keys.seal(header.seq, message))
        sealed[-1] ^= 1
        return self.keys.sign(header, bytes(sealed))

    def data_with_payload(self, payload: bytes, flags: int) -> bytes:
        """DATA with that payload on the wire, sealed or not, rightly signed."""
        return self.keys.sign(self._header(Type.DATA, flags), payload)

    def _header(self, type: int, flags: int) -> Header:
        header = Header(type, flags=flags, seq=self.seq, ack=self.highest, session_id=self.session_id)
        header.timestamp = time.monotonic_ns()
        self.seq += 1
        return header


_DATA_FLAGS = int(Flag.REQUIRE_ACK)

RULE_BREAKERS: dict[str, Callable[[Session, bytes], bytes]] = {
    "DATA with reserved0 set": lambda s, m: s.data(m, reserved0=1),
    "DATA with reserved1 set": lambda s, m: s.data(m, reserved1=0x80),
    "DATA with flag bit 10 set": lambda s, m: s.data(m, flags=_DATA_FLAGS | 1 << 10),
    "DATA with flag bit 15 set": lambda s, m: s.data(m, flags=_DATA_FLAGS | 1 << 15),
    "DATA with COMPRESSED set": lambda s, m: s.data(m, flags=_DATA_FLAGS | int(Flag.COMPRESSED)),
    "a HEARTBEAT with a channel": lambda s, m: s.packet(
        Type.HEARTBEAT, Telemetry().pack(), flags=int(Flag.TELEMETRY), channel=3
    ),
    "DATA in plaintext": lambda s, m: s.data_with_payload(m, _DATA_FLAGS),
    "DATA sealed but 16 bytes long": lambda s, m: s.data_with_payload(
        m[:16], _DATA_FLAGS | int(Flag.ENCRYPTED)
    ),
    "a packet of type 13": lambda s, m: s.packet(13, m),
    "a packet of type 15": lambda s, m: s.packet(15, m),
    "an INIT": lambda s, m: s.packet(Type.INIT, m),
    "a CHALLENGE": lambda s, m: s.packet(Type.CHALLENGE, m),
    "DATA on an unsubscribed channel": lambda s, m: s.data(m, channel=9),
    "DATA for another session id": lambda s, m: s.data(m, session_id=bytes(15) + b"\x01"),
}
"""Packets by the name that features use: each is authentic and breaks one rule."""
