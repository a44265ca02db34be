# SPDX-License-Identifier: GPL-2.0-or-later
"""A session of the reference, captured in process: what the layers are tested against."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache

from poolref import wire
from poolref.connection import TcpConnection
from poolref.constants import SECOND
from poolref.core import NodeCore, Peer
from poolref.dialect import Dialect
from poolref.events import PuzzlePosed
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.keylog import parse_line
from poolref.keys import Keys
from poolref.responder import Responder
from poolref.settings import Settings

SHORT = b"the quick brown fox"
LONG = random.Random(9).randbytes(5000)
_START = 1_000 * SECOND
_PEER = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])


@dataclass
class Capture:
    """``stream`` holds (from the client?, packet) in order: a handshake, SHORT, LONG, heartbeats, CLOSE."""

    stream: list[tuple[bool, bytes]] = field(default_factory=list)
    keylog: str = ""
    keys: Keys = None  # type: ignore[assignment]

    @property
    def packets(self) -> list[bytes]:
        return [packet for _, packet in self.stream]

    @property
    def session_id(self) -> bytes:
        return wire.parse(self.packets[1]).session_id

    def of_type(self, kind: int) -> list[bytes]:
        return [packet for packet in self.packets if packet[0] & 15 == kind]


@cache
def capture(seed: int = 1) -> Capture:
    """The same bytes for the same seed."""
    result = Capture()
    lines: list[str] = []
    now = _START
    easy = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))
    responder = Responder(NodeCore(easy, random.Random(2 * seed).randbytes, lambda: now), now)
    attempt = ClientHandshake(
        core=NodeCore(Settings(), random.Random(2 * seed + 1).randbytes, lambda: now, keylog=lines.append),
        index=0,
        now=now,
    )
    client, server = TcpConnection(attempt), TcpConnection(ServerHandshake(responder, Peer(_PEER), now))

    def carry() -> None:
        busy = True
        while busy:
            busy = False
            for from_client, here, there in ((True, client, server), (False, server, client)):
                while (event := here.next_event()) is not None:
                    if isinstance(event, PuzzlePosed):
                        attempt.solved(bytes(32), now)
                data = bytes(here.data_to_send())
                if data:
                    busy = True
                    there.receive_data(data, now)
                while data:
                    size = wire.packet_size(data)
                    result.stream.append((from_client, data[:size]))
                    data = data[size:]

    carry()
    assert client.session is not None
    for message in (SHORT, LONG):
        client.session.send(message, now)
        carry()
    now += 6 * SECOND
    for connection in (client, server):
        connection.handle_timer(now)
    carry()
    client.session.close(now)
    carry()
    result.keylog = "".join(f"{line}\n" for line in lines)
    entry = parse_line(result.keylog)
    assert entry is not None
    result.keys = Keys.from_log(entry)
    return result
