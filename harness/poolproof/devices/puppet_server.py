# SPDX-License-Identifier: GPL-2.0-or-later
"""A scripted POOL listener: serves one connection at a time, right or wrong as told."""

from __future__ import annotations

import socket
import threading
import time

from poolproof.devices.puppet import LOW_ORDER_POINTS, KeylogSink, Rng
from poolproof.devices.puppet_session import Session
from poolproof.devices.puppet_stream import WAIT, Packet, PuppetError, Stream
from poolref import crypto, wire
from poolref.constants import HEADER_SIZE, SEQ_RANGE, Role, Type
from poolref.errors import DecodeError
from poolref.keys import Keys
from poolref.wire import Challenge, Header, Init, Response

SERVER_MISDEEDS = frozenset(
    {
        "",
        "sends an ACK with a wrong hmac",
        "offers a key of low order",
        "asks for difficulty 25",
        "answers INIT with the advisory CLOSE 0x0A",
        "answers INIT with the advisory CLOSE 0x09",
    }
)


class Server:
    """Accepts in a thread of its own: `received` lists the packets that came, `session` is the last one made.

    `error` holds what went wrong in the thread, if anything; `served` is set when a script ended.
    """

    def __init__(self, address: str, rng: Rng, misdeed: str = "", keylog: KeylogSink | None = None) -> None:
        if misdeed not in SERVER_MISDEEDS:
            raise ValueError(f"unknown misdeed {misdeed!r}")
        self.rng, self.misdeed, self.keylog = rng, misdeed, keylog
        self.received: list[Packet] = []
        self.session: Session | None = None
        self.error: Exception | None = None
        self.served = threading.Event()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.address = address
        self.port = int(self._listener.getsockname()[1])
        self._streams: list[Stream] = []
        self._thread = threading.Thread(target=self._serve, name="scripted-server", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _peer = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = Stream(sock)
            self._streams.append(stream)
            try:
                self._handshake(stream)
            except (PuppetError, DecodeError) as exc:
                self.error = exc
            finally:
                self.served.set()

    def _take(self, stream: Stream) -> Packet:
        packet = stream.receive(WAIT * 2)
        self.received.append(packet)
        return packet

    def _handshake(self, stream: Stream) -> None:
        packet = self._take(stream)
        if packet.header.type != Type.INIT:
            raise PuppetError(f"instead of an INIT came {packet}")
        for code in (0x09, 0x0A):
            if self.misdeed == f"answers INIT with the advisory CLOSE 0x{code:02X}":
                stream.send(wire.build(Type.CLOSE, bytes([code])))
                stream.close()
                return
        init = Init.unpack(packet.payload)
        private = self.rng(32)
        public = crypto.public_key(private)
        session_id = self.rng(16)
        offered = LOW_ORDER_POINTS["order8-a"] if self.misdeed == "offers a key of low order" else public
        difficulty = 25 if self.misdeed == "asks for difficulty 25" else 16
        challenge = Challenge(offered, self.rng(32), difficulty, bytes(32)).pack()
        stamp = time.monotonic_ns()
        stream.send(wire.build(Type.CHALLENGE, challenge, session_id=session_id, timestamp=stamp))
        packet = self._take(stream)
        if packet.header.type != Type.RESPONSE:
            raise PuppetError(f"instead of a RESPONSE came {packet}")
        response = Response.unpack(packet.payload)
        if response.client_pubkey != init.client_pubkey:
            raise PuppetError("the RESPONSE names another client key than the INIT")
        self._acknowledge(stream, session_id, Keys(crypto.exchange(private, init.client_pubkey)), packet)

    def _acknowledge(self, stream: Stream, session_id: bytes, keys: Keys, response: Packet) -> None:
        if not keys.authentic(response.raw):
            raise PuppetError("the RESPONSE carries a wrong hmac")
        first = SEQ_RANGE[Role.SERVER][0] + int.from_bytes(self.rng(8), "big") % (1 << 61)
        header = Header(Type.ACK, seq=first, ack=response.header.seq, session_id=session_id)
        header.timestamp = time.monotonic_ns()
        ack = keys.sign(header, b"")
        if self.misdeed == "sends an ACK with a wrong hmac":
            ack = ack[: HEADER_SIZE - 1] + bytes([ack[HEADER_SIZE - 1] ^ 1])
        stream.send(ack)
        if self.keylog is not None:
            self.keylog(keys.log_entry(session_id).line())
        self.session = Session(stream, keys, session_id, Role.SERVER, first + 1, response.header.seq)

    def close(self) -> None:
        """Stop accepting and drop every connection."""
        # A plain close() does not wake a thread blocked in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            stream.close()
        self._thread.join(5)
