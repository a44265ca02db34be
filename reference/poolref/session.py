# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session: its parts, what it receives, its timers.  What it sends is :mod:`~poolref.sending`.

Driven by the user (:meth:`Session.send`, :meth:`Session.take`, :meth:`Session.close`), the network
(:meth:`Session.receive_packet`) and the timer.  Receiving is a flat pipeline (SEAL-05): parse, find the
session, hmac, sequence range, replay window, open, commit, state table, act.  Nothing changes before the
hmac holds, nothing reaches the user before the tag does.

Everything else that a session does is a :class:`~poolref.part.Part` in a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

from . import constants as c
from . import wire
from .config import Parameters
from .config_session import Configuring
from .constants import ErrorCode, Flag, Role, Type
from .counters import DropReason, Outcome, Verdict
from .delivery import Delivery
from .errors import DecodeError
from .events import PeerUntrusted, SessionEstablished
from .exchange import Exchange
from .inbox import Message
from .integrity import Vigil
from .journal import ChangeType
from .keys import Keys
from .mtu import MtuSearch
from .part import NEVER, Part
from .rekey import Rekeying
from .replication import Replication
from .sending import Sender
from .states import Action, lookup
from .telemetry import Heartbeats
from .wire import Header

# Plain ints: comparing with members of an enumeration costs several times as much, for every packet.
_DATA: Final = int(Type.DATA)
_ACK: Final = int(Type.ACK)
_DISCOVER: Final = int(Type.DISCOVER)
_RESPONSE: Final = int(Type.RESPONSE)
_CHALLENGE: Final = int(Type.CHALLENGE)
_ENCRYPTED: Final = int(Flag.ENCRYPTED)
_REQUIRE_ACK: Final = int(Flag.REQUIRE_ACK)
_TELEMETRY: Final = int(Flag.TELEMETRY)
# An ACK never is, a heartbeat at once, a probe by its answer, CONFIG and ROLLBACK by an ACK of their own.
_ANSWERED_OTHERWISE: Final[tuple[int, ...]] = (
    _ACK,
    int(Type.HEARTBEAT),
    _DISCOVER,
    int(Type.CONFIG),
    int(Type.ROLLBACK),
)
_SEALED_PROOF: Final = c.HEADER_SIZE + wire.offset_of("response", "sealed_proof")

Receiver = Callable[[Header, bytes, int], Outcome]
"""Acts on an authentic packet: its header, plaintext and the time."""


class Session(Sender):
    """Over TCP."""

    transport: ClassVar[str] = "tcp"
    rekeying_type: ClassVar[type[Rekeying]] = Rekeying

    def __init__(self, *, now: int, **arguments: Any) -> None:
        """Arguments as :class:`Sender`'s."""
        super().__init__(now=now, **arguments)
        self.untrusted = False
        """Set by :meth:`alert`, for good."""
        peer_role = Role.SERVER if self.role is Role.CLIENT else Role.CLIENT
        dialect = self.settings.dialect
        self._peer_low, self._peer_high = dialect.seq_range(peer_role)
        self._refuses_own = dialect.seq_ranges == "own"
        self._unacknowledged = _ANSWERED_OTHERWISE
        if dialect.acked is not None:
            self._unacknowledged += tuple(type for type in Type if type not in dialect.acked)
        self._last_heard = now
        self._suspended_at: int | None = None
        self.delivery = Delivery(self)
        self.inbox = self.delivery.inbox
        self.subscriptions = self.delivery.subscriptions
        self.heartbeats = Heartbeats(self, now)
        self.discovery = MtuSearch(self, now)
        self.exchange = Exchange(self, now)
        self.configuring = Configuring(self)
        self.replication = Replication(self)
        self.rekeying = self.rekeying_type(self, now)
        self.vigil = Vigil(self, now)
        self.parts: tuple[Part, ...] = (
            self.delivery,
            self.heartbeats,
            self.discovery,
            self.exchange,
            self.configuring,
            self.replication,
            self.rekeying,
            self.rekeying.age,
            self.vigil,
        )
        self._receivers: dict[Action, Receiver] = {
            Action.DELIVER: self.delivery.receive,
            Action.ACKNOWLEDGED: self._acknowledged,
            Action.HEARTBEAT: self.heartbeats.receive,
            Action.DISCOVER: self._discover,
            Action.CONFIG: self.configuring.receive_config,
            Action.ROLLBACK: self.configuring.receive_rollback,
            Action.JOURNAL: self.replication.receive,
            Action.REKEY: self.rekeying.receive,
            Action.INTEGRITY: self.vigil.receive,
            Action.CLOSED: self._closed,
        }
        if self.conduct is not None:
            self.parts += (self.conduct.late(self),)
        self.record(ChangeType.CONNECT, f"as {self.role.name.lower()}")
        self.emit(SessionEstablished(self.session_id, self.role))

    # -- the user ----------------------------------------------------------------------------------------

    def take(self, channel: int | None = None, max_size: int | None = None) -> Message | None:
        """The oldest received message, None without one; MessageTooBig as :meth:`Inbox.take`."""
        return self.inbox.take(channel, max_size)

    @property
    def params(self) -> Parameters:
        """The parameters in force (section 14)."""
        return self.core.configuration.current.params

    def alert(self, now: int, reason: str) -> None:
        """The peer contradicts itself or the protocol in a way that only an intruder explains (E-53)."""
        self.untrusted = True
        self.record(ChangeType.INTEGRITY, reason)
        self.emit(PeerUntrusted(reason))

    # -- the network -------------------------------------------------------------------------------------

    def end_of_stream(self, now: int) -> None:
        """CLS-03: the stream ended without CLOSE."""
        if self.end is None:
            self.finish(now, "end_of_stream", None)

    def suspend(self, now: int) -> None:
        """Reading stopped because the receive queue is full: hold the receive-driven timers (DATA-04)."""
        self.counters.count(DropReason.OVERLOAD)
        self._discarded(DropReason.OVERLOAD, now)
        self._suspended_at = now

    def resume(self, now: int) -> None:
        """Reading goes on."""
        if self._suspended_at is not None:
            duration = now - self._suspended_at
            self._last_heard += duration
            for part in self.parts:
                part.postpone(duration)
            self._suspended_at = None

    def _receive(self, packet: bytes, now: int) -> Outcome:
        try:
            header = wire.parse(packet)
        except DecodeError:
            return DropReason.MALFORMED
        reason = self._legible(header)
        if reason is not None:
            return reason
        keys = self._keys_of(header, packet)
        if keys is None:
            return self._refuse(now, DropReason.AUTH_FAIL, ErrorCode.AUTH_FAIL)
        seq = header.seq
        if not self._peer_low <= seq < self._peer_high:
            return DropReason.REFLECTED
        if self._refuses_own and self.first_seq <= seq < self.next_seq:
            return DropReason.REFLECTED
        if not self.window.fresh(seq):
            return DropReason.REPLAY
        if self.inbox.full and header.type == _DATA:
            return DropReason.OVERLOAD
        plaintext = self._open(header, packet, keys)
        if plaintext is None:
            return self._refuse(now, DropReason.DECRYPT_FAIL, ErrorCode.DECRYPT_FAIL)
        self.window.commit(seq)
        self._verified(header, keys, now)
        outcome = self._act(header, plaintext, now)
        if header.flags & _REQUIRE_ACK and header.type not in self._unacknowledged and self.end is None:
            self.owe_ack(now)
        return outcome

    def _discarded(self, reason: DropReason, now: int) -> None:
        if self.end is None:  # otherwise it has been said why it ended
            self.core.record_discard(reason, self.peer, now)

    def _legible(self, header: Header) -> DropReason | None:
        """What tells against a packet before its hmac is looked at."""
        reason = wire.check(header)
        if reason is not None:
            return reason
        if self.end is not None:
            return DropReason.UNKNOWN_SESSION
        if header.type <= _CHALLENGE:
            return DropReason.UNEXPECTED_TYPE
        if header.session_id != self.session_id:
            return DropReason.UNKNOWN_SESSION
        if header.payload_len and not header.flags & _ENCRYPTED:
            return DropReason.MALFORMED
        return None

    def _keys_of(self, header: Header, packet: bytes) -> Keys | None:
        """The keys under which a packet is authentic."""
        return self.keys if self.keys.authentic(packet) else self.rekeying.older_keys(packet, header)

    def _open(self, header: Header, packet: bytes, keys: Keys) -> bytes | None:
        return keys.open(header.seq, packet[_SEALED_PROOF if header.type == _RESPONSE else c.HEADER_SIZE :])

    def _verified(self, header: Header, keys: Keys, now: int) -> None:
        """An authentic packet arrived that opened."""
        self._last_heard = now
        if self.rekeying.overlapping:
            self.rekeying.verified(keys, header, now)

    def _refuse(self, now: int, reason: DropReason, code: ErrorCode) -> DropReason:
        """SEAL-06, SEAL-07: on a stream, framing can no longer be trusted."""
        self.close_with(now, "protection", code)
        return reason

    def _act(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if self.conduct is not None and self.conduct.ignores(header, plaintext):
            return Verdict.ACCEPTED
        transition = lookup(self.state, header.type)
        if isinstance(transition, DropReason):
            return transition
        if not self.first_seq <= header.ack < self.next_seq:
            self.counters.count(DropReason.BAD_ACK)
            header.ack = self.first_seq
        outcome = self._receivers[transition.action](header, plaintext, now)
        if self.next_seq + self.window.received >= self.rekeying.age.packets_due:
            self.rekeying.age.worn(now)
        return outcome

    def _acknowledged(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        self.heartbeats.acknowledged(header, now)
        self.configuring.acknowledged(header, now)
        self.replication.acknowledged(header, now)
        self.vigil.acknowledged(header, now)
        return Verdict.ACCEPTED

    def _discover(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """One type, three uses (MTU-01, DISC-03)."""
        if header.flags & _TELEMETRY:
            return self.exchange.receive(header, plaintext, now)
        if header.flags & _REQUIRE_ACK:
            return self.discovery.receive_probe(header, plaintext, now)
        return self.discovery.receive_answer(header, plaintext, now)

    def _closed(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if len(plaintext) > 1:
            return DropReason.MALFORMED
        self.finish(now, "closed", plaintext[0] if plaintext else None)
        return Verdict.CLOSED

    # -- the timer ---------------------------------------------------------------------------------------

    def next_timer(self) -> int | None:
        if self.end is not None:
            return self._linger_until
        suspended = self._suspended_at is not None
        due = NEVER
        for part in self.parts:
            if part.due < due and not (suspended and part.receive_driven):
                due = part.due
        if self._ack_due is not None and self._ack_due < due and not self.congested:
            due = self._ack_due
        if not suspended:
            due = min(due, self._last_heard + c.DEAD_PEER)
        return due

    def handle_timer(self, now: int) -> None:
        if self.end is not None:
            if self._linger_until is not None and now >= self._linger_until:
                self._linger_until = None
                self.inbox.clear()
            return
        suspended = self._suspended_at is not None
        if not suspended and now >= self._last_heard + c.DEAD_PEER:
            self.counters.count("peers_dead")
            self.finish(now, "dead_peer", None)
            return
        if self._ack_due is not None and now >= self._ack_due:
            self._send_ack(now)
        for part in self.parts:
            if now >= part.due and not (suspended and part.receive_driven) and self.end is None:
                part.handle_timer(now)

    @property
    def finished(self) -> bool:
        """It ended, and its messages were read or waited for 5 s: the slot is free (CLS-01)."""
        return self.end is not None and (not self.inbox or self._linger_until is None)
