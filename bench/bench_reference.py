# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast the reference is, as ratios against named yardsticks.

    python bench/bench_reference.py [--seconds S]

Yardsticks, measured in the same run and alternating with what they measure, medians of all rounds:

* bare loop: only what the protocol cannot do without for a packet of 1304 bytes of message: pack a header,
  seal, hmac; unpack it, hmac, open.  No window, no states, no queue, no acknowledgements.
* bare handshake: the public-key operations of both sides (4 X25519 products) and nothing else.
* bare hashing: SHA-256 of 64 bytes in a Python loop, against the puzzle search.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import os
import statistics
import struct
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from poolref.connection import TcpConnection
from poolref.core import NOBODY, NodeCore
from poolref.dialect import Dialect
from poolref.events import PuzzlePosed
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.puzzle import START_SIZE, Search
from poolref.responder import Responder
from poolref.settings import Settings

MESSAGE = os.urandom(1304)
BATCH = 400
EASY = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))

Round = Callable[[], int]
"""Does a batch of work and says how many units it was."""


class Pair:
    """Two ends of one session in this process, without sockets."""

    def __init__(self) -> None:
        self.core = NodeCore(EASY, os.urandom, lambda: 0)
        self.responder = Responder(self.core, 0)
        self.now = 0
        self.connect()

    def connect(self) -> None:
        client = ClientHandshake(core=NodeCore(EASY, os.urandom, lambda: 0), index=0, now=0)
        self.client = TcpConnection(client)
        self.server = TcpConnection(ServerHandshake(self.responder, NOBODY, 0))
        while self.server.session is None or self.client.session is None:
            self.server.receive_data(self.client.data_to_send(), 0)
            self.client.receive_data(self.server.data_to_send(), 0)
            while (event := self.client.next_event()) is not None:
                if isinstance(event, PuzzlePosed):
                    client.solved(Search(event.seed, 0, bytes(START_SIZE)).step(1) or b"", 0)
        self.sender = self.client.session
        self.receiver = self.server.session

    def handshake(self) -> int:
        for _ in range(20):
            self.core.slots.release(self.receiver.index)
            self.connect()
        return 20

    def transfer(self) -> int:
        """One write to the stream for each burst of 20 messages, as a socket would take them."""
        for _ in range(BATCH // 20):
            self.now += 1_000_000
            for _ in range(20):
                self.sender.send(MESSAGE, self.now)
            self.server.receive_data(self.client.data_to_send(), self.now)
            self.client.receive_data(self.server.data_to_send(), self.now)
            while self.server.next_event() is not None:
                pass
            for _ in range(20):
                if self.server.take(self.now) is None:
                    raise RuntimeError("a message got lost")
        return BATCH


class Bare:
    """The bare loop: the same packets and primitives, without a protocol around them."""

    HEADER = struct.Struct(">BBHQQ16sQHBB32s")

    def __init__(self) -> None:
        self.key, self.mac_key, self.prefix = os.urandom(32), os.urandom(32), os.urandom(4)
        self.aead = ChaCha20Poly1305(self.key)
        self.seq = 0

    def transfer(self) -> int:
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
        for _ in range(20):
            client, server = X25519PrivateKey.generate(), X25519PrivateKey.generate()
            client.exchange(server.public_key())
            server.exchange(client.public_key())
        return 20

    def hashing(self) -> int:
        for counter in range(20_000):
            hashlib.sha256(counter.to_bytes(64, "big")).digest()
        return 20_000


def searching() -> int:
    Search(bytes(32), 256, bytes(START_SIZE)).step(20_000)
    return 20_000


def alternate(seconds: float, *rounds: Round) -> list[float]:
    """Median rate of each, in units a second; the rounds take turns for ``seconds``."""
    rates: list[list[float]] = [[] for _ in rounds]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates[0]) < 3:
        for work, samples in zip(rounds, rates, strict=True):
            start = time.perf_counter()
            done = work()
            samples.append(done / (time.perf_counter() - start))
    return [statistics.median(samples) for samples in rates]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each comparison (default: 3)")
    seconds = parser.parse_args().seconds
    pair, bare = Pair(), Bare()
    for name, unit, ours, theirs, yardstick in (
        ("data, both ends", "packets/s", pair.transfer, bare.transfer, "bare loop"),
        ("handshakes, both ends", "1/s", pair.handshake, bare.handshake, "bare handshake"),
        ("puzzle search", "hashes/s", searching, bare.hashing, "bare hashing"),
    ):
        rate, limit = alternate(seconds, ours, theirs)
        extra = f" ({rate * len(MESSAGE) * 8 / 1e6:.0f} Mbit/s of messages)" if ours == pair.transfer else ""
        print(f"{name}: {rate:,.0f} {unit}{extra} = {rate / limit:.2f} x {yardstick} ({limit:,.0f} {unit})")


if __name__ == "__main__":
    main()
