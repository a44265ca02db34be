# SPDX-License-Identifier: GPL-2.0-or-later
"""Two nodes that talk over TCP or raw IP, one session after the other, through a meddled-with network, in
virtual time with seeded randomness; what tests of any length and order drive.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from poolref_raw_sim import LATENCY, Flight, Weather, sound
from poolref_sim import EASY, START, WALL, seeded, solve

from poolref import wire
from poolref.connection import TcpConnection
from poolref.constants import Type
from poolref.core import NodeCore, Peer
from poolref.events import Event, PacketTrace, PuzzlePosed
from poolref.handshake import ClientHandshake, ServerHandshake
from poolref.inbox import Message
from poolref.raw_connection import Demultiplexer, RawConnection
from poolref.raw_handshake import RawClientHandshake
from poolref.raw_sending import Datagram
from poolref.responder import Responder
from poolref.session import Session
from poolref.settings import Settings

SIDES = ("client", "server")
Side = Literal["client", "server"]
Connection = TcpConnection | RawConnection
ADDRESSES = {"client": bytes(10) + b"\xff\xff\xc0\0\2\1", "server": bytes(10) + b"\xff\xff\xc0\0\2\2"}


def other(side: Side) -> Side:
    return "server" if side == "client" else "client"


@dataclass(slots=True)
class End:
    """One node.  ``handed`` counts the packets that the network brought it."""

    core: NodeCore
    traces: list[PacketTrace] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    connection: Connection | None = None
    handed: int = 0

    @property
    def session(self) -> Session | None:
        return None if self.connection is None else self.connection.session


class Conversation:
    """``weather`` decides what becomes of packets (of whole packets on TCP too: a man in the middle);
    ``meddle`` is asked first and says, or returns None.
    """

    reliable: bool
    """Whether the session itself makes good what the network does."""

    def __init__(self, seed: int = 1, *, client: Settings = EASY, server: Settings = EASY) -> None:
        self.now = START
        self.weather: Weather | None = None
        self.meddle: Callable[[Flight], list[tuple[int, bytes]] | None] = lambda flight: None
        self.passing: Callable[[Flight], None] = lambda flight: None
        """Told of each packet that is sent."""
        self.touched: Callable[[Flight, list[tuple[int, bytes]]], None] = lambda flight, copies: None
        """Told of each packet that does not arrive once, whole and in time."""
        self.ends: dict[Side, End] = {}
        for number, (side, settings) in enumerate((("client", client), ("server", server))):
            core = NodeCore(settings, seeded(2 * seed + number), lambda: self.now + WALL - START)
            end = End(core)
            core.observer = end.traces.append
            self.ends[side] = end  # type: ignore[index]
        self.responder = Responder(self.server.core, self.now)
        self._arrivals: list[tuple[int, int, Side, bytes | None, int]] = []
        self._order = itertools.count()
        self._generation = 0
        self._index = 0

    @property
    def client(self) -> End:
        return self.ends["client"]

    @property
    def server(self) -> End:
        return self.ends["server"]

    @property
    def established(self) -> bool:
        """Whether both ends have a session that has not ended."""
        return all(end.session is not None and end.session.active for end in self.ends.values())

    def session(self, side: Side) -> Session:
        session = self.ends[side].session
        assert session is not None
        return session

    # -- what the two kinds of network do --------------------------------------------------------------

    def connect(self) -> None:
        """Begin another conversation; the one before is forgotten."""
        raise NotImplementedError

    def _outgoing(self, end: End) -> Iterable[bytes]:
        raise NotImplementedError

    def _arrive(self, side: Side, packet: bytes | None) -> None:
        raise NotImplementedError

    # -- the network -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take events and send what is to be sent, at both ends."""
        for side in SIDES:
            end = self.ends[side]  # type: ignore[index]
            connection = end.connection
            if connection is None:
                continue
            while (event := connection.next_event()) is not None:
                end.events.append(event)
                if isinstance(event, PuzzlePosed):
                    assert isinstance(connection.handshake, ClientHandshake)
                    connection.handshake.solved(solve(event), self.now)
            for packet in self._outgoing(end):
                self._send(side, packet)  # type: ignore[arg-type]

    def _send(self, side: Side, packet: bytes) -> None:
        flight = Flight(self.now, ADDRESSES[side], ADDRESSES[other(side)], Datagram(packet))
        self.passing(flight)
        copies = self.meddle(flight)
        if copies is None:
            copies = sound(flight) if self.weather is None else self.weather(flight)
        if copies != sound(flight):
            self.touched(flight, copies)
        for delay, data in copies:
            self.inject(other(side), data, delay)

    def inject(self, side: Side, packet: bytes | None, delay: int = 0) -> None:
        """Let a packet arrive at a node; None is the end of its stream."""
        arrival = (self.now + delay, next(self._order), side, packet, self._generation)
        heapq.heappush(self._arrivals, arrival)

    def run(self, duration: int) -> None:
        """Let ``duration`` ns pass; arrivals and timers happen in their order, at their moments."""
        until = self.now + duration
        self.flush()
        while True:
            timers = [
                (due, side)
                for side, end in self.ends.items()
                if end.connection is not None and (due := end.connection.next_timer()) is not None
            ]
            timer = min(timers, default=None)
            arrival = self._arrivals[0][0] if self._arrivals else None
            if arrival is not None and arrival <= until and (timer is None or arrival <= timer[0]):
                at, _, side, packet, generation = heapq.heappop(self._arrivals)
                self.now = max(self.now, at)
                if generation == self._generation:
                    self._arrive(side, packet)
            elif timer is not None and timer[0] <= until:
                self.now = max(self.now, timer[0])
                connection = self.ends[timer[1]].connection
                assert connection is not None
                connection.handle_timer(self.now)
            else:
                break
            self.flush()
        self.now = until

    def take(self, side: Side, channel: int | None = None) -> Message | None:
        """A message from a node's receive queue."""
        connection = self.ends[side].connection
        return None if connection is None else connection.take(self.now, channel)

    def _begin(self) -> int:
        """The conversation before is over for good; the client's slot for the next one."""
        self._generation += 1
        for end in self.ends.values():
            if end.session is not None:
                if end.session.end is None:
                    end.session.finish(self.now, "end_of_stream", None)
                end.core.slots.release(end.session.index)
            elif end.connection is not None and isinstance(end.connection.handshake, ClientHandshake):
                end.connection.handshake.cancel()
                end.core.slots.release(self._index)
            end.connection = None
        index = self.client.core.slots.take()
        assert index is not None
        self._index = index
        return index


class TcpConversation(Conversation):
    """Over a stream, which delivers at once unless somebody meddles with whole packets."""

    reliable = False

    def connect(self) -> None:
        server = Peer(ADDRESSES["server"], 9253)
        attempt = ClientHandshake(core=self.client.core, index=self._begin(), now=self.now, peer=server)
        self.client.connection = TcpConnection(attempt)
        peer = Peer(ADDRESSES["client"], 40_000)
        self.server.connection = TcpConnection(ServerHandshake(self.responder, peer, self.now))
        self._closed = {"client": False, "server": False}

    def _outgoing(self, end: End) -> Iterable[bytes]:
        connection = end.connection
        assert isinstance(connection, TcpConnection)
        data = connection.data_to_send()
        while data:
            size = wire.packet_size(data)
            yield data[:size]
            data = data[size:]
        side: Side = "client" if end is self.client else "server"
        if connection.closing and not self._closed[side]:
            self._closed[side] = True
            self.inject(other(side), None, LATENCY)

    def _arrive(self, side: Side, packet: bytes | None) -> None:
        end = self.ends[side]
        assert isinstance(end.connection, TcpConnection)
        if packet is None:
            end.connection.receive_eof(self.now)
        else:
            end.handed += 1
            end.connection.receive_data(packet, self.now)


class RawConversation(Conversation):
    """Over datagrams."""

    reliable = True

    def __init__(self, *args: int, **kwargs: Settings) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._demultiplexers = {side: Demultiplexer(end.core) for side, end in self.ends.items()}
        self._demultiplexers["server"].responder = self.responder

    def connect(self) -> None:
        for side, end in self.ends.items():
            if isinstance(end.connection, RawConnection):
                self._demultiplexers[side].remove(end.connection)
        server = Peer(ADDRESSES["server"])
        handshake = RawClientHandshake(core=self.client.core, index=self._begin(), now=self.now, peer=server)
        self.client.connection = RawConnection(server, handshake)
        self._demultiplexers["client"].add(self.client.connection)

    def _outgoing(self, end: End) -> Iterable[bytes]:
        assert isinstance(end.connection, RawConnection)
        packets = [datagram.packet for datagram in end.connection.datagrams_to_send()]
        if end.connection.closing:
            self._demultiplexers["client" if end is self.client else "server"].remove(end.connection)
        return packets

    def _arrive(self, side: Side, packet: bytes | None) -> None:
        if packet is None:
            return
        end = self.ends[side]
        end.handed += 1
        source = ADDRESSES[other(side)]
        connection = self._demultiplexers[side].receive_datagram(source, packet, self.now)
        if connection is None or connection is end.connection:
            return
        if connection.lasting:
            end.connection = connection
        else:
            for datagram in connection.datagrams_to_send():
                self._send(side, datagram.packet)


def types_of(packets: Iterable[bytes]) -> set[Type]:
    return {Type(packet[0] & 15) for packet in packets}
