# SPDX-License-Identifier: GPL-2.0-or-later
"""Peers tell each other of the peers they know (DISC-03)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import constants as c
from .constants import Flag, Role, Type
from .core import Peer
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError
from .part import Part
from .peers import MAPPED, NO_KEY, Source, plausible
from .wire import Buffer, Header, struct_of

if TYPE_CHECKING:
    from .session import Session

_COUNT: Final = struct_of("exchange")
_ENTRY: Final = struct_of("exchange_entry")
_FLAGS: Final = int(Flag.TELEMETRY)


@dataclass(frozen=True, slots=True)
class Told:
    """One entry of an exchange: an IPv4 address (4 bytes), a port, and a public key or zero."""

    ip: bytes
    port: int
    pubkey: bytes

    @property
    def peer(self) -> Peer:
        """Where it is."""
        return Peer(MAPPED + self.ip, self.port)


def room(mtu: int) -> int:
    """How many entries fit into one packet of ``mtu`` bytes."""
    return (mtu - c.EXCHANGE_OVERHEAD) // _ENTRY.size


def pack_exchange(peers: list[Told]) -> bytes:
    """The plaintext for up to 65535 entries."""
    entries = (_ENTRY.pack(int.from_bytes(told.ip, "big"), told.port, told.pubkey) for told in peers)
    return _COUNT.pack(len(peers)) + b"".join(entries)


def unpack_exchange(plaintext: Buffer) -> list[Told]:
    """DecodeError unless it holds exactly ``count`` entries, no more than the largest packet has room for."""
    if len(plaintext) < _COUNT.size:
        raise DecodeError(len(plaintext), "exchange", "truncated")
    count: int = _COUNT.unpack_from(plaintext)[0]
    if len(plaintext) != _COUNT.size + count * _ENTRY.size:
        raise DecodeError(0, "count", f"{count} in {len(plaintext)} bytes")
    if count > room(c.MTU_RANGE[1]):
        raise DecodeError(0, "count", f"{count} are more than a packet holds")
    entries = _ENTRY.iter_unpack(plaintext[_COUNT.size :])
    return [Told(ip.to_bytes(4, "big"), port, pubkey) for ip, port, pubkey in entries]


class Exchange(Part):
    """Every 30 s tells the peer of the others this node saw, and enters what the peer tells (E-80, E-81)."""

    def __init__(self, session: Session, now: int) -> None:
        super().__init__(session)
        self._untold: list[Told] = []
        self._round_due = now + c.EXCHANGE_PERIOD
        self._deaf_until = now
        self.due = self._round_due
        self._seen(now)

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """At most one packet per 100 ms enters peers (S07)."""
        session = self.session
        if header.flags & Flag.REQUIRE_ACK:
            session.owe_ack(now)
        try:
            peers = unpack_exchange(plaintext)
        except DecodeError:
            return DropReason.MALFORMED
        if now < self._deaf_until:
            return DropReason.ANNOUNCE_LIMITED
        self._deaf_until = now + c.ANNOUNCE_SPACING
        table = session.core.peers
        for told in peers:
            if not plausible(told.peer):
                session.counters.count(DropReason.MALFORMED)
            elif told.pubkey != NO_KEY and told.pubkey == table.own_key:
                continue
            elif not table.see(told.peer, told.pubkey, Source.EXCHANGE, now):
                session.counters.count(DropReason.PEERS_FULL)
        return Verdict.ACCEPTED

    def send_now(self, now: int) -> None:
        """Begin an exchange at once."""
        self._round_due = self.due = now
        self.handle_timer(now)

    def handle_timer(self, now: int) -> None:
        session = self.session
        if now >= self._round_due:
            self._round_due = now + c.EXCHANGE_PERIOD
            self._seen(now)
            self._untold = self._others(now) if session.settings.peer_exchange else []
        if self._untold and session.writable and not session.congested:
            count = room(session.mtu)
            page, self._untold = self._untold[:count], self._untold[count:]
            session.transmit(Type.DISCOVER, now, pack_exchange(page), flags=_FLAGS)
        if session.end is None:
            self.due = min(self._round_due, now + c.EXCHANGE_SPACING) if self._untold else self._round_due

    def end(self, now: int) -> None:
        super().end(now)
        self._untold = []

    def _seen(self, now: int) -> None:
        """Whom this node connected to listens there; where an incoming peer listens is not known."""
        session = self.session
        if session.role is Role.CLIENT and session.peer.port:
            session.core.peers.see(session.peer, NO_KEY, Source.CONNECTED, now)

    def _others(self, now: int) -> list[Told]:
        """What this node saw itself, with an IPv4 address (E-58), without the peer itself."""
        return [
            Told(known.peer.ip[-4:], known.peer.port, known.pubkey)
            for known in self.session.core.peers.listed(now)
            if known.source is not Source.EXCHANGE
            and known.peer.ip.startswith(MAPPED)
            and plausible(known.peer)
            and known.peer != self.session.peer
        ]
