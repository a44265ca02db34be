# SPDX-License-Identifier: GPL-2.0-or-later
"""Two endpoints without sockets, in virtual time, with seeded randomness."""

from __future__ import annotations

import random
from collections.abc import Callable

from poolref.connection import TcpConnection
from poolref.constants import SECOND, Flag, State, Type
from poolref.core import NodeCore, Peer
from poolref.counters import Outcome
from poolref.dialect import Dialect
from poolref.dialect_server import responder_for
from poolref.events import Event, HandshakeFailed, Observer, PuzzlePosed
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.keylog import Keylog
from poolref.puzzle import Search
from poolref.session import Session
from poolref.settings import Settings
from poolref.wire import HMAC_OFFSET, packet_size

START = 1_000 * SECOND
WALL = 1_700_000_000 * SECOND
PEER = Peer(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]), 40_000)
SERVER = Peer(bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 2]), 9253)


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


EASY = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))
"""For a server whose puzzles are not what a test is about."""


def easy_pair() -> Pair:
    """An established pair, made quickly."""
    return World(server_settings=EASY).pair()


def solve(puzzle: PuzzlePosed) -> bytes:
    search = Search(puzzle.seed, puzzle.difficulty, bytes(24), counter_first=puzzle.counter_first)
    while (solution := search.step(1 << 14)) is None:
        pass
    return solution


class World:
    """A server node and any number of clients; ``now`` and ``wall`` are the clocks, moved by the test."""

    def __init__(
        self,
        seed: int = 1,
        *,
        server_settings: Settings | None = None,
        client_settings: Settings | None = None,
        observer: Observer | None = None,
        keylog: Keylog | None = None,
    ) -> None:
        self.now = START
        self.wall_offset = WALL - START
        self.server_settings = server_settings or Settings()
        self.client_settings = client_settings or Settings()
        self.client_core = NodeCore(
            self.client_settings, seeded(2 * seed), lambda: self.wall, observer=observer, keylog=keylog
        )
        self.server_core = NodeCore(
            self.server_settings, seeded(2 * seed + 1), lambda: self.wall, observer=observer, keylog=keylog
        )
        self.counters = self.server_core.counters
        self.client_counters = self.client_core.counters
        self.slots = self.server_core.slots
        self.responder = responder_for(self.server_core, self.now)

    @property
    def wall(self) -> int:
        return self.now + self.wall_offset

    def client_handshake(self, **overrides: object) -> ClientHandshake:
        arguments: dict[str, object] = {
            "core": self.client_core,
            "index": 0,
            "now": self.now,
            "peer": SERVER,
        }
        arguments.update(overrides)
        return ClientHandshake(**arguments)  # type: ignore[arg-type]

    def client(self, **overrides: object) -> TcpConnection:
        return TcpConnection(self.client_handshake(**overrides))

    def server(self, peer: Peer = PEER) -> TcpConnection:
        return TcpConnection(ServerHandshake(self.responder, peer, self.now))

    def pair(self) -> Pair:
        """Connected and established."""
        pair = Pair(self, self.client(), self.server())
        pair.run()
        assert pair.client.session is not None, pair.events
        assert pair.server.session is not None, pair.events
        return pair


class Pair:
    """Two connections and the stream between them; events are kept by side."""

    def __init__(self, world: World, client: TcpConnection, server: TcpConnection) -> None:
        self.world = world
        self.client = client
        self.server = server
        self.events: dict[str, list[Event]] = {"client": [], "server": []}
        self.path_mtu: int | None = None
        """Larger packets vanish on the way."""

    @property
    def c(self) -> Session:
        assert self.client.session is not None
        return self.client.session

    @property
    def s(self) -> Session:
        assert self.server.session is not None
        return self.server.session

    def run(self) -> None:
        """Carry bytes to and fro, solve puzzles, until both are silent."""
        busy = True
        while busy:
            busy = False
            for side, here, there in (
                ("client", self.client, self.server),
                ("server", self.server, self.client),
            ):
                while (event := here.next_event()) is not None:
                    self.events[side].append(event)
                    if isinstance(event, PuzzlePosed):
                        assert isinstance(here.handshake, ClientHandshake)
                        here.handshake.solved(solve(event), self.world.now)
                data = here.data_to_send()
                if data:
                    busy = True
                    there.receive_data(self._carried(data), self.world.now)

    def _carried(self, data: bytes) -> bytes:
        if self.path_mtu is None:
            return data
        packets = []
        while data:
            size = packet_size(data)
            packets.append(data[:size])
            data = data[size:]
        return b"".join(packet for packet in packets if len(packet) <= self.path_mtu)

    def advance(self, nanoseconds: int) -> None:
        """Let time pass; timers fire in their order, at their moments."""
        until = self.world.now + nanoseconds
        while True:
            due = [t for t in (self.client.next_timer(), self.server.next_timer()) if t is not None]
            if not due or min(due) > until:
                break
            self.world.now = max(self.world.now, min(due))
            for connection in (self.client, self.server):
                connection.handle_timer(self.world.now)
            self.run()
        self.world.now = until

    def failure(self) -> OSError:
        """The error of the client's HandshakeFailed."""
        (event,) = [event for event in self.events["client"] if isinstance(event, HandshakeFailed)]
        return event.error


def data(session: Session, message: bytes, now: int, **fields: int) -> bytes:
    """A DATA packet of ``session``, not queued."""
    return session.protect(Type.DATA, now, message, flags=int(Flag.REQUIRE_ACK), **fields)


def jump(session: Session, seq: int, now: int) -> None:
    """Let ``seq`` be the next one of ``session``, as if its keys had been replaced just before."""
    session.next_seq = seq
    session.rekeying.age.renewed(now)


def flipped(packet: bytes, offset: int = HMAC_OFFSET, bit: int = 1) -> bytes:
    """The packet with one bit changed."""
    return packet[:offset] + bytes([packet[offset] ^ bit]) + packet[offset + 1 :]


def deliver(pair: Pair, packet: bytes, to: str = "server") -> Outcome:
    """Hand one packet to an established side's session."""
    session = pair.s if to == "server" else pair.c
    return session.receive_packet(packet, pair.world.now)


ALL_STATES = tuple(State)
