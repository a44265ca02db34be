# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes that speak raw IP over a bad network, without sockets, in virtual time, with seeded randomness."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from poolref_sim import EASY, START, WALL, seeded, solve

from poolref import wire
from poolref.constants import MILLISECOND, SECOND, Type
from poolref.core import NodeCore, Peer
from poolref.events import Event, HandshakeFailed, PacketTrace, PuzzlePosed
from poolref.raw_connection import Demultiplexer, RawConnection
from poolref.raw_handshake import RawClientHandshake
from poolref.raw_sending import Datagram
from poolref.raw_session import RawSession
from poolref.responder import Responder
from poolref.settings import Settings

LATENCY = 10 * MILLISECOND


def ip(last: int) -> bytes:
    """192.0.2.last as 16 bytes."""
    return bytes(10) + b"\xff\xff" + bytes([192, 0, 2, last])


CLIENT, SERVER = ip(1), ip(2)


@dataclass(slots=True)
class Flight:
    """One datagram on its way."""

    at: int
    """ns: when it was sent"""
    source: bytes
    target: bytes
    datagram: Datagram

    @property
    def header(self) -> wire.Header:
        return wire.parse(self.datagram.packet)

    @property
    def type(self) -> Type:
        return Type(self.header.type)


Fate = Callable[[Flight], list[tuple[int, bytes]]]
"""What becomes of a datagram: each copy that arrives, with its delay in ns."""


def sound(flight: Flight) -> list[tuple[int, bytes]]:
    return [(LATENCY, flight.datagram.packet)]


@dataclass(slots=True)
class Weather:
    """Probabilities of what happens to a datagram on its way."""

    chance: random.Random
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """Probability of being up to 60 ms late."""
    corruption: float = 0.0

    def __call__(self, flight: Flight) -> list[tuple[int, bytes]]:
        chance = self.chance
        copies = []
        for _ in range(2 if chance.random() < self.duplication else 1):
            if chance.random() < self.loss:
                continue
            delay = LATENCY
            if chance.random() < self.reordering:
                delay += chance.randrange(60 * MILLISECOND)
            packet = flight.datagram.packet
            if chance.random() < self.corruption:
                place = chance.randrange(len(packet))
                packet = (
                    packet[:place] + bytes([packet[place] ^ 1 << chance.randrange(8)]) + packet[place + 1 :]
                )
            copies.append((delay, packet))
        return copies


def dropping(*predicates: Callable[[Flight], bool]) -> Fate:
    """A sound network, except that each predicate's first match is lost."""
    left = list(predicates)

    def fate(flight: Flight) -> list[tuple[int, bytes]]:
        for predicate in left:
            if predicate(flight):
                left.remove(predicate)
                return []
        return sound(flight)

    return fate


@dataclass(slots=True)
class RawNode:
    """One node: its core, its demultiplexer and its connections."""

    address: bytes
    core: NodeCore
    demultiplexer: Demultiplexer
    connections: list[RawConnection] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    traces: list[PacketTrace] = field(default_factory=list)

    @property
    def sessions(self) -> list[RawSession]:
        return [each.session for each in self.connections if each.session is not None]

    @property
    def session(self) -> RawSession:
        (session,) = self.sessions
        return session

    @property
    def failure(self) -> OSError:
        """The error of the only HandshakeFailed."""
        (event,) = [event for event in self.events if isinstance(event, HandshakeFailed)]
        return event.error


class Net:
    """Nodes and the network between them; ``sent`` has every datagram."""

    def __init__(self, seed: int = 1, fate: Fate = sound) -> None:
        self.now = START
        self.fate = fate
        self.sent: list[Flight] = []
        self.nodes: dict[bytes, RawNode] = {}
        self.solving = True
        """Whether puzzles are solved as soon as they are posed."""
        self._seed = seed
        self._arrivals: list[tuple[int, int, bytes, bytes, bytes]] = []
        self._order = itertools.count()

    @property
    def wall(self) -> int:
        return self.now + WALL - START

    def node(self, address: bytes, settings: Settings = EASY, *, listening: bool = False) -> RawNode:
        traces: list[PacketTrace] = []
        rng = seeded(self._seed * 1000 + address[-1])
        core = NodeCore(settings, rng, lambda: self.wall, observer=traces.append)
        node = RawNode(address, core, Demultiplexer(core), traces=traces)
        if listening:
            node.demultiplexer.responder = Responder(core, self.now)
        self.nodes[address] = node
        return node

    def connect(self, node: RawNode, target: bytes, **arguments: int) -> RawClientHandshake:
        index = node.core.slots.take()
        assert index is not None
        handshake = RawClientHandshake(
            core=node.core, index=index, now=self.now, peer=Peer(target), **arguments
        )
        connection = RawConnection(Peer(target), handshake)
        node.demultiplexer.add(connection)
        node.connections.append(connection)
        self.flush(node, connection)
        return handshake

    def flush(self, node: RawNode, connection: RawConnection) -> None:
        """Send what a connection has to send and take its events."""
        for datagram in connection.datagrams_to_send():
            self.send(Flight(self.now, node.address, connection.peer.ip, datagram))
        while (event := connection.next_event()) is not None:
            node.events.append(event)
            if isinstance(event, PuzzlePosed) and self.solving:
                assert isinstance(connection.handshake, RawClientHandshake)
                connection.handshake.solved(solve(event), self.now)
                self.flush(node, connection)
        if connection.closing:
            node.demultiplexer.remove(connection)

    def send(self, flight: Flight) -> None:
        self.sent.append(flight)
        for delay, packet in self.fate(flight):
            self.inject(flight.source, flight.target, packet, delay)

    def inject(self, source: bytes, target: bytes, packet: bytes, delay: int = 0) -> None:
        """Let a datagram arrive at a node, from whatever address it claims."""
        heapq.heappush(self._arrivals, (self.now + delay, next(self._order), source, target, packet))

    def run(self, duration: int) -> None:
        """Let ``duration`` ns pass; arrivals and timers happen in their order, at their moments."""
        until = self.now + duration
        while True:
            timers = [
                (due, number, node, connection)
                for number, node in enumerate(self.nodes.values())
                for connection in node.connections
                if (due := connection.next_timer()) is not None
            ]
            timer = min(timers, key=lambda each: each[:2], default=None)
            arrival = self._arrivals[0][0] if self._arrivals else None
            if arrival is not None and arrival <= until and (timer is None or arrival <= timer[0]):
                self._arrive()
            elif timer is not None and timer[0] <= until:
                self.now = max(self.now, timer[0])
                timer[3].handle_timer(self.now)
                self.flush(timer[2], timer[3])
            else:
                break
        self.now = until

    def _arrive(self) -> None:
        at, _, source, target, packet = heapq.heappop(self._arrivals)
        self.now = max(self.now, at)
        node = self.nodes.get(target)
        if node is None:
            return
        connection = node.demultiplexer.receive_datagram(source, packet, self.now)
        if connection is None:
            return
        if connection.lasting and connection not in node.connections:
            node.connections.append(connection)
        self.flush(node, connection)

    def of(self, source: bytes, *types: Type) -> list[Flight]:
        """What an address has sent, of the types if given."""
        return [each for each in self.sent if each.source == source and (not types or each.type in types)]


@dataclass(slots=True)
class RawPair:
    """A client and a server with an established session between them."""

    net: Net
    client: RawNode
    server: RawNode

    @property
    def c(self) -> RawSession:
        return self.client.session

    @property
    def s(self) -> RawSession:
        return self.server.session

    def flush(self) -> None:
        for node in (self.client, self.server):
            for connection in node.connections:
                self.net.flush(node, connection)

    def send(self, session: RawSession, data: bytes, channel: int = 0) -> None:
        session.send(data, self.net.now, channel)
        self.flush()

    def run(self, duration: int) -> None:
        self.flush()
        self.net.run(duration)


def raw_pair(
    seed: int = 1,
    *,
    fate: Fate = sound,
    settle: int = 100 * MILLISECOND,
    server: Settings = EASY,
    client: Settings = EASY,
) -> RawPair:
    """Established over a sound network, ``settle`` ns ago, and since then under ``fate``."""
    net = Net(seed)
    pair = RawPair(net, net.node(CLIENT, client), net.node(SERVER, server, listening=True))
    net.connect(pair.client, SERVER)
    net.run(4 * LATENCY)
    assert pair.client.sessions, pair.client.events
    assert pair.server.sessions, pair.server.events
    net.run(settle)
    net.fate = fate
    net.sent.clear()
    return pair


def received(session: RawSession) -> list[bytes]:
    """All messages in the receive queue."""
    messages = []
    while (message := session.take()) is not None:
        messages.append(message.data)
    return messages


def seconds(flights: list[Flight], since: int) -> list[float]:
    """When datagrams were sent, in s after ``since``."""
    return [(flight.at - since) / SECOND for flight in flights]
