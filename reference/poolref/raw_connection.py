# SPDX-License-Identifier: GPL-2.0-or-later
"""POOL over raw IP (section 4), without the socket: which datagram belongs to whom."""

from __future__ import annotations

from . import wire
from .constants import State, Type
from .core import NodeCore, Peer
from .counters import DropReason
from .errors import DecodeError
from .events import Event, PacketTrace
from .inbox import Message
from .raw_handshake import RawClientHandshake, RawServerHandshake
from .raw_sending import Datagram
from .raw_session import RawSession
from .responder import Responder
from .wire import Header


class RawConnection:
    """What one peer and this node say to each other, from the handshake to the end.

    The transport calls :meth:`handle_timer` when :meth:`next_timer` says so, and after it, after any call
    of :attr:`session`, and when the :class:`Demultiplexer` has given it something, sends
    :meth:`datagrams_to_send` to :attr:`peer`, takes :meth:`next_event`, and forgets it once
    :attr:`closing`.
    """

    reading = True
    """Datagrams are always taken: what finds no room is discarded (DATA-04)."""

    def __init__(self, peer: Peer, handshake: RawClientHandshake | RawServerHandshake) -> None:
        self.peer = peer
        self.handshake = handshake
        self.session: RawSession | None = None

    @property
    def endpoint(self) -> RawClientHandshake | RawServerHandshake | RawSession:
        """What takes packets at present."""
        return self.handshake if self.session is None else self.session

    @property
    def closing(self) -> bool:
        """Nothing more is sent after :meth:`datagrams_to_send`, and nothing more is taken."""
        return self.endpoint.closing

    @property
    def lasting(self) -> bool:
        """Whether it is more than the answer to one INIT or RESPONSE."""
        return self.session is not None or isinstance(self.handshake, RawClientHandshake)

    def receive_datagram(self, packet: bytes, now: int) -> None:
        """Take one datagram, without its IP header."""
        self.endpoint.receive_packet(packet, now)
        if self.session is None and isinstance(self.handshake.session, RawSession):
            self.session = self.handshake.session

    def take(self, now: int, channel: int | None = None, max_size: int | None = None) -> Message | None:
        """A message from the session's receive queue."""
        return None if self.session is None else self.session.take(channel, max_size)

    def next_timer(self) -> int | None:
        """When :meth:`handle_timer` is due (ns), or None."""
        return self.endpoint.next_timer()

    def handle_timer(self, now: int) -> None:
        """Do what is due at ``now``."""
        self.endpoint.handle_timer(now)

    def datagrams_to_send(self) -> list[Datagram]:
        """Everything to send, oldest first."""
        datagrams = [Datagram(packet) for packet in self.handshake.packets_to_send()]
        if self.session is not None:
            datagrams += self.session.datagrams_to_send()
        return datagrams

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        event = self.handshake.next_event()
        if event is None and self.session is not None:
            event = self.session.next_event()
        return event


class Demultiplexer:
    """The raw side of one node: hands each datagram to its connection, which it finds by the peer's
    address and the session id (TRN-03), or by the echo of an INIT (HS-14).

    ``responder`` answers INIT and RESPONSE while the node listens.  What belongs to nobody is discarded
    and counted for the node.
    """

    def __init__(self, core: NodeCore) -> None:
        self.responder: Responder | None = None
        self._core = core
        self._keyed: dict[tuple[bytes, bytes], RawConnection] = {}
        self._attempts: list[RawConnection] = []

    def __len__(self) -> int:
        """How many connections there are, attempts included."""
        return len(self._attempts) + len(self._keyed)

    def add(self, connection: RawConnection) -> None:
        """An attempt of this node's own begins."""
        self._attempts.append(connection)

    def remove(self, connection: RawConnection) -> None:
        """A connection is closing, or its attempt was given up; idempotent."""
        if connection in self._attempts:
            self._attempts.remove(connection)
        for key in [key for key, each in self._keyed.items() if each is connection]:
            del self._keyed[key]

    def receive_datagram(self, source: bytes, packet: bytes, now: int) -> RawConnection | None:
        """Take one datagram without its IP header, from an address (16 bytes).

        The connection to look at next, which can be a new one; None when no connection took it.
        """
        try:
            header = wire.parse(packet)
        except DecodeError:
            self._discard(source, packet, DropReason.MALFORMED, now)
            return None
        connection = self._keyed.get((source, header.session_id)) or self._attempt(source, header)
        if connection is not None:
            connection.receive_datagram(packet, now)
            self._follow(connection)
            return connection
        known = any(session_id == header.session_id for _, session_id in self._keyed)
        if self.responder is not None and (
            header.type == Type.INIT or (header.type == Type.RESPONSE and not known)
        ):
            return self._listen(self.responder, Peer(source), packet, now)
        reason = wire.check(header)
        if reason is None:
            reason = DropReason.SPOOFED if known else self._stray(header)
        self._discard(source, packet, reason, now)
        return None

    def _attempt(self, source: bytes, header: Header) -> RawConnection | None:
        """Whose INIT an unprotected packet answers.  Without an echo any attempt at that peer has to discard
        it, because it is the peer's address that says whom it is meant for.
        """
        if header.type not in (Type.CHALLENGE, Type.CLOSE):
            return None
        candidates = [each for each in self._attempts if each.peer.ip == source]
        for each in candidates:
            if header.ack == _echo_of(each):
                return each
        return candidates[0] if candidates else None

    def _follow(self, connection: RawConnection) -> None:
        """A connection has taken a packet: it may have got its session id, or its session."""
        key = _key_of(connection)
        if key is not None:
            self._keyed[key] = connection
        if connection.session is not None and connection in self._attempts:
            self._attempts.remove(connection)

    def _listen(self, responder: Responder, peer: Peer, packet: bytes, now: int) -> RawConnection:
        """An INIT or a RESPONSE: answered and, unless it led to a session, forgotten (HS-01)."""
        connection = RawConnection(peer, RawServerHandshake(responder, peer, now))
        connection.receive_datagram(packet, now)
        self._follow(connection)
        return connection

    def _stray(self, header: Header) -> DropReason:
        if header.type in (Type.INIT, Type.RESPONSE):
            return DropReason.UNEXPECTED_TYPE  # nobody listens
        if header.type in (Type.CHALLENGE, Type.CLOSE) and any(
            header.ack == _echo_of(each) for each in self._attempts
        ):
            return DropReason.SPOOFED
        return DropReason.UNKNOWN_SESSION

    def _discard(self, source: bytes, packet: bytes, reason: DropReason, now: int) -> None:
        self._core.counters.count(reason)
        self._core.record_discard(reason, Peer(source), now)
        if self._core.observer is not None:
            self._core.observer(PacketTrace(now, "received", packet, reason))


def _echo_of(connection: RawConnection) -> int | None:
    handshake = connection.handshake
    return handshake.echo if isinstance(handshake, RawClientHandshake) else None


def _key_of(connection: RawConnection) -> tuple[bytes, bytes] | None:
    """The peer's address and the session id, None while there is none."""
    if connection.session is not None:
        return connection.peer.ip, connection.session.session_id
    handshake = connection.handshake
    if isinstance(handshake, RawClientHandshake) and handshake.state is State.CHALLENGED:
        return connection.peer.ip, handshake.session_id
    return None
