# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches at work: what a node was told to do wrong, and how one connection of it does that.

The core asks at four points, and only when a node misbehaves at all: before a packet leaves
(:meth:`Conduct.emit`), when one arrives (:meth:`Conduct.hear`), before it is acted on
(:meth:`Conduct.ignores`), and when a shared secret was agreed on (:meth:`Conduct.agree`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import wire
from ..constants import HEADER_SIZE, Flag, Role, Type
from ..errors import DecodeError
from ..keys import Keys
from ..part import NEVER, Part
from ..wire import ZERO_HMAC, Buffer, Header
from .kinds import Kind, kinds_of
from .model import Deed, Draft, Phase, Switch, Value
from .pace import Pacer

if TYPE_CHECKING:
    from ..session import Session

_SEALED_PROOF = wire.offset_of("response", "sealed_proof")
_ANNOUNCE = frozenset({Kind.ANNOUNCE})


class Misbehaviour:
    """What one node does wrong: switches with their values.  ``done`` counts what it did, by switch."""

    def __init__(self, *switches: tuple[Switch, dict[str, Value]]) -> None:
        self.switches: Sequence[tuple[Switch, dict[str, Value]]] = switches
        self.done: dict[str, int] = {switch.name: 0 for switch, _ in switches}
        self._lasting: dict[str, dict[str, Any]] = {switch.name: {} for switch, _ in switches}

        self._announcing: list[Deed] = []

    def conduct(self, role: Role, established: bool) -> Conduct | None:
        """How one connection of that role misbehaves, in its handshake or afterwards; None: not at all."""
        deeds = [
            Deed(switch, values, role, self._lasting[switch.name])
            for switch, values in self.switches
            if role in switch.roles and (established or not _for_sessions(switch, values))
        ]
        return Conduct(self, deeds, established) if deeds else None

    def announces(self, datagram: bytes) -> list[bytes]:
        """What is announced instead of a sound announce."""
        if not self._announcing:
            self._announcing = [
                Deed(switch, values, Role.SERVER, self._lasting[switch.name])
                for switch, values in self.switches
                if switch.announce is not None
            ]
        datagrams = [datagram]
        for deed in self._announcing:
            if deed.switch.announce is not None and deed.chosen(_ANNOUNCE):
                self.done[deed.switch.name] += 1
                datagrams = [out for each in datagrams for out in deed.switch.announce(deed, each)]
        return datagrams

    def __str__(self) -> str:
        return " ".join(_text(switch, values) for switch, values in self.switches)


def _for_sessions(switch: Switch, values: dict[str, Value]) -> bool:
    """Any packet of a session is not any packet of its handshake."""
    return switch.phase is not Phase.HANDSHAKE and values.get("kind") == Kind.ANY


def _text(switch: Switch, values: dict[str, Value]) -> str:
    given = [f"{each.name}={values[each.name]}" for each in switch.parameters]
    return ":".join((switch.name, ",".join(given))) if given else switch.name


class Conduct:
    """One connection's misbehaviour.  ``established``: it is a session's, not a handshake's."""

    def __init__(self, misbehaviour: Misbehaviour, deeds: list[Deed], established: bool) -> None:
        self.deeds = deeds
        self._misbehaviour = misbehaviour
        self._established = established
        self._extra = 0
        """Packets sent again, each of which took a seq of its own."""
        self._late: deque[tuple[int, bytes]] = deque()
        self._part: Part | None = None

    def emit(self, packet: bytes, keys: Keys | None, now: int) -> list[bytes]:
        """What leaves at once instead of a sound packet; ``keys`` are those it was made with, if it was."""
        draft = opened(packet, keys, self._established)
        if draft is None:
            return [packet]
        chosen = [deed for deed in self.deeds if _sends(deed.switch) and deed.chosen(draft.kinds, draft)]
        draft.header.seq += self._extra
        if not chosen:
            return [draft.build() if self._extra else packet]
        for deed in chosen:
            self._misbehaviour.done[deed.switch.name] += 1
            if deed.switch.change is not None:
                deed.switch.change(deed, draft)
        packets = [draft.build()]
        for deed in chosen:
            if deed.switch.emit is not None:
                packets = [out for each in packets for out in deed.switch.emit(deed, draft, each)]
        for _ in range(max(deed.switch.again for deed in chosen)):
            self._extra += 1
            draft.header.seq += 1
            packets.append(draft.build())
        delay = max(deed.switch.delay(deed) for deed in chosen)
        if delay and self._part is not None:
            self._late.extend((now + delay, each) for each in packets)
            self._part.due = self._late[0][0]
            return []
        return packets

    def late(self, session: Session) -> Part:
        """What sends a session's late packets."""
        self._part = Latecomer(session, self._late)
        return self._part

    def pacer(self) -> Pacer | None:
        """What slows the stream down."""
        intervals = [deed.switch.pace(deed) for deed in self.deeds]
        return Pacer(max(intervals)) if any(intervals) else None

    def hear(self, packet: bytes) -> None:
        """A packet arrived, sound or not."""
        for deed in self.deeds:
            deed.heard = packet

    def ignores(self, header: Header, plaintext: bytes) -> bool:
        """Whether an authentic packet is to have no effect."""
        kinds = kinds_of(header, plaintext, self._established)
        for deed in self.deeds:
            if deed.switch.ignores in kinds:
                self._misbehaviour.done[deed.switch.name] += 1
                return True
        return False

    def agree(self, private: Buffer, peer_public: bytes, shared: Buffer) -> bytes:
        """The shared secret to go on with."""
        secret = bytes(shared)
        for deed in self.deeds:
            if deed.switch.agree is not None:
                secret = deed.switch.agree(deed, bytes(private), peer_public, secret)
        return secret


class Latecomer(Part):
    """Sends what was held back, each packet as it was made, when its time has come."""

    def __init__(self, session: Session, late: deque[tuple[int, bytes]]) -> None:
        super().__init__(session)
        self._late = late

    def handle_timer(self, now: int) -> None:
        while self._late and now >= self._late[0][0]:
            self.session.put(self._late.popleft()[1], now)
        self.due = self._late[0][0] if self._late else NEVER


def tamper(
    switch: Switch,
    packet: bytes,
    keys: Keys | None = None,
    *,
    role: Role,
    established: bool = True,
    heard: bytes = b"",
    **values: str,
) -> list[bytes]:
    """What a switch makes of one sound packet of a peer in ``role``; ``heard`` is the other side's last one.

    The packet alone when the switch is not about its kind, or ``keys`` do not open it.  ValueError as
    :meth:`Switch.values`.
    """
    conduct = Misbehaviour((switch, switch.values(values))).conduct(role, established)
    if conduct is None:
        return [packet]
    conduct.hear(heard)
    return conduct.emit(packet, keys, 0)


def _sends(switch: Switch) -> bool:
    return switch.change is not None or switch.emit is not None


def opened(packet: bytes, keys: Keys | None, established: bool) -> Draft | None:
    """The draft that a packet was built from; None when ``keys`` do not open it."""
    try:
        header = wire.parse(packet)
    except DecodeError:
        return None
    payload = packet[HEADER_SIZE:]
    if header.hmac == ZERO_HMAC:
        return Draft(header, payload, b"", None, kinds_of(header, b"", established))
    if keys is None or not keys.usable or not keys.authentic(packet):
        return None
    split = _SEALED_PROOF if header.type == Type.RESPONSE else 0
    plaintext: bytes | None = payload[split:]
    if header.flags & Flag.ENCRYPTED:
        plaintext = keys.open(header.seq, payload[split:])
    if plaintext is None:
        return None
    return Draft(header, payload[:split], plaintext, keys, kinds_of(header, plaintext, established))
