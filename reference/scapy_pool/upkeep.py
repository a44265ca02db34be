# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session has to send so that its peer keeps it: acknowledgements, heartbeats, answers, and on raw IP
what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from scapy.packet import Packet

from poolref import integrity
from poolref.constants import HEARTBEAT_INTERVAL_S, SECOND, SEQ_RANGE, ErrorCode, Flag, Role, Type
from poolref.errors import LowOrderKey
from poolref.keys import Keys
from poolref.rekey import PROPOSE

from .header import Pool
from .payloads import (
    Auth,
    PoolAck,
    PoolClose,
    PoolHeartbeat,
    PoolIntegrityAnswer,
    PoolIntegrityChallenge,
    PoolProbe,
    PoolProbeAnswer,
    PoolRekey,
)
from .rekey import Rekey

SENDS: Final = 8
FIRST_TIMEOUT: Final = 1 * SECOND
LONGEST_TIMEOUT: Final = 10 * SECOND

_SERVER_SEQ: Final = SEQ_RANGE[Role.SERVER][0]
_HEARTBEAT_INTERVAL: Final = HEARTBEAT_INTERVAL_S * SECOND
_CONSUMING_ACK: Final = int(Flag.CONFIG_LOCKED | Flag.ROLLBACK_READY | Flag.PRIORITY)


def consumes_seq(packet: Pool, reliable: bool) -> bool:
    """Whether a packet takes a seq of its own: on raw IP (``reliable``) most ACKs do not (TRN-04)."""
    return not reliable or packet.type != Type.ACK or bool(int(packet.flags) & _CONSUMING_ACK)


class Sender(Protocol):
    """What upkeep needs of its session."""

    keys: Keys
    peer_seq: int
    rekeying: Rekey

    def send(self, payload: Packet) -> Pool: ...
    def send_again(self, packet: bytes) -> None: ...
    def send_void(self, seq: int) -> None: ...
    def switch(self, keys: Keys) -> None: ...


@dataclass(slots=True)
class _Unacknowledged:
    packet: bytes
    probe: bool
    due: int
    sends: int = 1

    @property
    def timeout(self) -> int:
        return min(FIRST_TIMEOUT << (self.sends - 1), LONGEST_TIMEOUT)


class Upkeep:
    """Times are monotonic ns.  ``reliable`` is raw IP's: cumulative acks, resending, no packet twice."""

    def __init__(self, session: Sender, reliable: bool, now: int) -> None:
        self.gave_up = False
        """The peer did not acknowledge a packet that was sent eight times."""
        self._session = session
        self._reliable = reliable
        self._started = now
        self._heartbeat_due = now + _HEARTBEAT_INTERVAL
        self._unacknowledged: dict[int, _Unacknowledged] = {}
        self._beyond: set[int] = set()

    @property
    def outstanding(self) -> bool:
        """Whether the peer has yet to acknowledge something."""
        return bool(self._unacknowledged)

    def sent(self, packet: Pool, data: bytes, now: int) -> None:
        """A packet of the session left; on raw IP it is sent again until it is acknowledged."""
        if self._reliable and consumes_seq(packet, True):
            probe = isinstance(packet.payload, PoolProbe)
            self._unacknowledged[packet.seq] = _Unacknowledged(data, probe, now + FIRST_TIMEOUT)

    def received(self, packet: Pool, *, answering: bool) -> bool:
        """Take note of a packet and, if ``answering``, send what it asks for; False for one that came before
        or is one's own.
        """
        if packet.auth is not Auth.OK:
            return True
        if self._reliable and packet.seq < _SERVER_SEQ:
            return False  # a raw socket on the loopback gets what it sends
        for seq in [seq for seq in self._unacknowledged if seq <= packet.ack]:
            del self._unacknowledged[seq]
        fresh = self._arrived(packet)
        if answering and not (fresh and self._answered(packet)) and self._asks(packet):
            self._session.send(PoolAck())
        return fresh

    def due(self) -> int:
        """When :meth:`tick` has something to do."""
        return min([self._heartbeat_due, *(item.due for item in self._unacknowledged.values())])

    def tick(self, now: int, *, heartbeat: bool) -> None:
        """Send a ``heartbeat`` and what was not acknowledged, as far as they are due."""
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + _HEARTBEAT_INTERVAL
            if heartbeat:
                self._session.send(PoolHeartbeat(uptime_ns=now - self._started))
        for seq, item in self._expired(now):
            if item.probe:
                self._session.send_void(seq)  # TRN-07
            else:
                self._session.send_again(item.packet)

    def _arrived(self, packet: Pool) -> bool:
        session, seq = self._session, packet.seq
        if not self._reliable:
            session.peer_seq = max(session.peer_seq, seq)
            return True
        if not consumes_seq(packet, True):
            return True
        if seq <= session.peer_seq or seq in self._beyond:
            return False
        self._beyond.add(seq)
        while session.peer_seq + 1 in self._beyond:
            session.peer_seq += 1
            self._beyond.remove(session.peer_seq)
        return True

    def _asks(self, packet: Pool) -> bool:
        """Whether a packet is to be acknowledged (SEQ-05, HB-01, TRN-06)."""
        if self._reliable:
            return consumes_seq(packet, True)
        if packet.type in (Type.ACK, Type.CLOSE):
            return False
        return packet.type == Type.HEARTBEAT or bool(packet.flags & Flag.REQUIRE_ACK)

    def _answered(self, packet: Pool) -> bool:
        """Whether an answer went out that acknowledges the packet as well."""
        session, payload = self._session, packet.payload
        if isinstance(payload, PoolProbe):
            session.send(PoolProbeAnswer(probe_size=payload.probe_size))
            return True
        if isinstance(payload, PoolRekey):
            return self._rekeyed(payload)
        if isinstance(payload, PoolIntegrityChallenge):
            session.send(PoolIntegrityAnswer(integrity.answer(session.keys, Role.CLIENT, payload.c)))
        return False

    def _rekeyed(self, payload: PoolRekey) -> bool:
        session = self._session
        try:
            if payload.stage == PROPOSE:
                accepted = session.rekeying.accept(session.keys, payload)
                if accepted is not None:
                    session.send(accepted[0])
                    session.switch(accepted[1])
                    return True
            elif (keys := session.rekeying.complete(session.keys, payload)) is not None:
                session.switch(keys)
                session.send(PoolAck())
                return True
        except (LowOrderKey, ValueError):
            session.send(PoolClose(code=ErrorCode.REKEY_FAIL))
        return False

    def _expired(self, now: int) -> Iterator[tuple[int, _Unacknowledged]]:
        for seq, item in list(self._unacknowledged.items()):
            if now < item.due:
                continue
            if item.sends == SENDS:
                self.gave_up = True
                self._unacknowledged.clear()
                return
            item.sends += 1
            item.due = now + item.timeout
            yield seq, item
