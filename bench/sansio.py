# SPDX-License-Identifier: GPL-2.0-or-later
"""Two ends of one session in this process, without sockets, and the bare primitives beside them."""

from __future__ import annotations

import hashlib
import hmac
import os
import struct

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from poolref import crypto, wire
from poolref.connection import TcpConnection
from poolref.constants import SECOND, Type
from poolref.core import NOBODY, NodeCore
from poolref.dialect import Dialect
from poolref.events import PuzzlePosed
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.puzzle import START_SIZE, Search
from poolref.responder import Responder
from poolref.session import Session
from poolref.settings import Settings
from poolref.wire import Init

MESSAGE = os.urandom(1304)
"""What fits one packet at an mtu of 1400."""
BATCH = 400
BURST = 20
EASY = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))


class Pair:
    """An established pair; ``now`` is the clock of both (ns)."""

    def __init__(self) -> None:
        self.now = 0
        self.core = NodeCore(EASY, os.urandom, lambda: self.now)
        self.responder = Responder(self.core, 0)
        self.connect()

    def connect(self) -> None:
        """A new session in place of the old one."""
        handshake = ClientHandshake(core=NodeCore(EASY, os.urandom, lambda: self.now), index=0, now=self.now)
        self.client = TcpConnection(handshake)
        self.server = TcpConnection(ServerHandshake(self.responder, NOBODY, self.now))
        while self.server.session is None or self.client.session is None:
            self.server.receive_data(self.client.data_to_send(), self.now)
            self.client.receive_data(self.server.data_to_send(), self.now)
            while (event := self.client.next_event()) is not None:
                if isinstance(event, PuzzlePosed):
                    handshake.solved(Search(event.seed, 0, bytes(START_SIZE)).step(1) or b"", self.now)
        self.sender: Session = self.client.session
        self.receiver: Session = self.server.session

    def handshake(self) -> int:
        """Both ends of 20 handshakes, with nothing to search for; the sessions end at once."""
        for _ in range(20):
            self.now += SECOND // 1000
            self.sender.close(self.now)
            self.exchange()
            self.core.slots.release(self.receiver.index)
            self.connect()
        return 20

    def challenge(self) -> int:
        """What a server does for 100 INITs of as many clients."""
        public = crypto.public_key(os.urandom(32))
        for _ in range(100):
            self.now += SECOND // 1000
            handshake = ServerHandshake(self.responder, NOBODY, self.now)
            init = wire.build(Type.INIT, Init(public, bytes(32)).pack(), timestamp=self.now)
            handshake.receive_packet(init, self.now)
            if len(handshake.packets_to_send()) != 1:
                raise RuntimeError("an INIT was not answered")
        return 100

    def transfer(self) -> int:
        """One write to the stream for each burst of messages, as a socket would take them."""
        for _ in range(BATCH // BURST):
            self.now += SECOND // 1000
            for _ in range(BURST):
                self.sender.send(MESSAGE, self.now)
            self.exchange()
            for _ in range(BURST):
                if self.server.take(self.now) is None:
                    raise RuntimeError("a message got lost")
        return BATCH

    def exchange(self) -> None:
        """Carry bytes both ways until nobody has any left; events are dropped."""
        busy = True
        while busy:
            busy = False
            for here, there in ((self.client, self.server), (self.server, self.client)):
                data = here.data_to_send()
                if data:
                    busy = True
                    there.receive_data(data, self.now)
            for connection in (self.client, self.server):
                while connection.next_event() is not None:
                    pass

    def pass_time(self, duration: int) -> None:
        """Let ``duration`` ns pass; timers fire in their order, at their moments."""
        until = self.now + duration
        while True:
            due = min(connection.next_timer() or until for connection in (self.client, self.server))
            if due >= until:
                break
            self.now = max(self.now, due)
            for connection in (self.client, self.server):
                connection.handle_timer(self.now)
            self.exchange()
        self.now = until


class Bare:
    """What the protocol cannot do without, in plain loops: no window, no states, no queue, no ACKs."""

    HEADER = struct.Struct(">BBHQQ16sQHBB32s")

    def __init__(self) -> None:
        self.key, self.mac_key, self.prefix = os.urandom(32), os.urandom(32), os.urandom(4)
        self.aead = ChaCha20Poly1305(self.key)
        self.seq = 0

    def transfer(self) -> int:
        """Pack a header, seal, hmac; unpack it, hmac, open."""
        pack, unpack, zero, session_id = self.HEADER.pack, self.HEADER.unpack_from, bytes(32), bytes(16)
        for _ in range(BATCH):
            self.seq += 1
            nonce = self.prefix + self.seq.to_bytes(8, "big")
            sealed = self.aead.encrypt(nonce, MESSAGE, None)
            fields = (0x13, 0, 0x21, self.seq, 0, session_id, 0, len(sealed), 0, 0)
            unsigned = pack(*fields, zero) + sealed
            packet = unsigned[:48] + hmac.digest(self.mac_key, unsigned, "sha256") + sealed

            header = unpack(packet)
            expected = hmac.digest(self.mac_key, packet[:48] + zero + packet[80:], "sha256")
            if not hmac.compare_digest(expected, header[10]):
                raise RuntimeError("bad hmac")
            self.aead.decrypt(self.prefix + header[3].to_bytes(8, "big"), packet[80:], None)
        return BATCH

    def handshake(self) -> int:
        """The four X25519 products of both sides."""
        for _ in range(20):
            client, server = X25519PrivateKey.generate(), X25519PrivateKey.generate()
            client.exchange(server.public_key())
            server.exchange(client.public_key())
        return 20

    def challenge(self) -> int:
        """The one product that makes the server's public key."""
        for _ in range(100):
            X25519PrivateKey.generate().public_key().public_bytes_raw()
        return 100

    def hashing(self) -> int:
        """SHA-256 of 64 bytes."""
        for counter in range(20_000):
            hashlib.sha256(counter.to_bytes(64, "big")).digest()
        return 20_000


def searching() -> int:
    """The puzzle's search, without an end."""
    Search(bytes(32), 256, bytes(START_SIZE)).step(20_000)
    return 20_000
