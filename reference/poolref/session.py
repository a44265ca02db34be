# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session: protected packets in and out, acknowledgement, messages, the end.

Driven by the user (:meth:`Session.send`, :meth:`Session.take`, :meth:`Session.close`), the network
(:meth:`Session.receive_packet`) and the timer.  Receiving is a flat pipeline (SEAL-05): parse, find the
session, hmac, sequence range, replay window, open, commit, state table, act.  Nothing changes before the
hmac holds, nothing reaches the user before the tag does.

Everything else that a session does is a :class:`~poolref.part.Part` in a file of its own.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import ClassVar, Final

from . import constants as c
from . import wire
from .config import Parameters
from .config_session import Configuring
from .constants import ErrorCode, Flag, Role, State, Type
from .core import NOBODY, NodeCore, Peer
from .counters import Counters, DropReason, Outcome, Verdict
from .delivery import Delivery
from .endpoint import Endpoint
from .errors import DecodeError, LocalError, code_name
from .events import EndCause, Event, PeerUntrusted, SessionEnded, SessionEstablished
from .exchange import Exchange
from .fragments import split
from .inbox import Message
from .integrity import Vigil
from .journal import ChangeType
from .keys import Keys
from .mtu import MtuSearch
from .part import NEVER, Part
from .rekey import Rekeying
from .replay import ReplayWindow
from .replication import Replication
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
_U32: Final = (1 << 32) - 1
_TELEMETRY: Final = int(Flag.TELEMETRY)
# An ACK never is, a heartbeat at once, a probe by its answer, CONFIG and ROLLBACK by an ACK of their own.
_ANSWERED_OTHERWISE: Final[tuple[int, ...]] = (
    _ACK,
    int(Type.HEARTBEAT),
    _DISCOVER,
    int(Type.CONFIG),
    int(Type.ROLLBACK),
)
_NEVER_HELD: Final = (_ACK, int(Type.REKEY), int(Type.CLOSE))  # RK-02
_SEALED_PROOF: Final = c.HEADER_SIZE + wire.offset_of("response", "sealed_proof")

Receiver = Callable[[Header, bytes, int], Outcome]
"""Acts on an authentic packet: its header, plaintext and the time."""


class Session(Endpoint):
    """Over TCP.  ``first_seq`` and ``peer_seq`` are the initial seqs, both consumed by the handshake
    (SEQ-03).
    """

    transport: ClassVar[str] = "tcp"
    reliable: ClassVar[bool] = False
    """Whether this session itself resends what is lost: acks are then cumulative (TRN-04)."""
    rekeying_type: ClassVar[type[Rekeying]] = Rekeying

    def __init__(
        self,
        *,
        core: NodeCore,
        counters: Counters,
        role: Role,
        index: int,
        session_id: bytes,
        keys: Keys,
        first_seq: int,
        peer_seq: int,
        now: int,
        peer: Peer = NOBODY,
    ) -> None:
        super().__init__(counters, core.observer, core.settings.conduct(role, established=True))
        self.core = core
        self.role = role
        self.index = index
        self.session_id = session_id
        self.keys = keys
        self.peer = peer
        self.settings = core.settings
        self.state = State.ESTABLISHED
        self.window = ReplayWindow(peer_seq)
        self.mtu = c.MTU_TCP_INITIAL  # from here on MtuSearch's
        self.established_at = now
        self.bytes_sent = 0
        self.congested = False
        """Set while the transport takes no more: ACKs and heartbeats then wait, so that nothing piles up."""
        self.untrusted = False
        """Set by :meth:`alert`, for good."""
        self.end: SessionEnded | None = None
        self.first_seq = first_seq
        self.next_seq = first_seq + 1
        peer_role = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        dialect = core.settings.dialect
        self._peer_low, self._peer_high = dialect.seq_range(peer_role)
        self._seq_limit = dialect.seq_range(role)[1]
        self._refuses_own = dialect.seq_ranges == "own"
        self._unacknowledged = _ANSWERED_OTHERWISE
        if dialect.acked is not None:
            self._unacknowledged += tuple(type for type in Type if type not in dialect.acked)
        self._next_msg_id = 0
        self._held: deque[tuple[Type, bytes, int, int]] = deque()
        self._ack_pending = 0
        self._ack_due: int | None = None
        self._last_heard = now
        self._suspended_at: int | None = None
        self._linger_until: int | None = None
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
        self.record(ChangeType.CONNECT, f"as {role.name.lower()}")
        self.emit(SessionEstablished(session_id, role))

    # -- the user --------------------------------------------------------------------------------------

    def send(self, data: bytes, now: int, channel: int = 0) -> None:
        """Send a message of 1..65535 bytes: EINVAL, EMSGSIZE, EAGAIN while not :attr:`writable`, or ENOTCONN
        once the session ended (DATA-01).
        """
        if not data:
            raise LocalError(errno.EINVAL, "a message has at least one byte")
        if len(data) > c.MAX_MESSAGE:
            raise LocalError(errno.EMSGSIZE, f"a message of {len(data)} bytes exceeds {c.MAX_MESSAGE}")
        if not 0 <= channel < c.CHANNELS:
            raise LocalError(errno.EINVAL, f"channel {channel} is not within 0..{c.CHANNELS - 1}")
        if not self.writable:
            raise LocalError(errno.EAGAIN, "too much waits to be sent")
        pieces: Iterable[tuple[bytes, int]] = ((data, 0),)
        if len(data) > self.mtu - c.DATA_OVERHEAD:
            pieces = split(data, self._next_msg_id, self.mtu - c.FRAGMENT_OVERHEAD)
            self._next_msg_id = (self._next_msg_id + 1) & _U32
        for plaintext, flags in pieces:
            self.transmit(Type.DATA, now, plaintext, flags=flags | _REQUIRE_ACK, channel=channel)
            if self.end is not None:
                raise LocalError(errno.ENOTCONN, "the session has ended")
        self.bytes_sent += len(data)

    @property
    def active(self) -> bool:
        """Whether the session takes messages: it has not ended and is not being closed."""
        return self.end is None

    @property
    def outstanding(self) -> bool:
        """Whether something of this side's own is unacknowledged and will be resent (raw only)."""
        return False

    @property
    def writable(self) -> bool:
        """Whether :meth:`send` takes a message: not too much is held back (RK-02, TRN-04)."""
        return len(self._held) < c.HELD_LIMIT

    @property
    def unsent(self) -> bool:
        """Whether something that :meth:`send` took is still held back."""
        return bool(self._held)

    def take(self, channel: int | None = None, max_size: int | None = None) -> Message | None:
        """The oldest received message, None without one; MessageTooBig as :meth:`Inbox.take`."""
        return self.inbox.take(channel, max_size)

    def close(self, now: int, code: int | None = None) -> None:
        """End the session with a CLOSE (CLS-01); does nothing once it ended."""
        if self.end is None:
            self.close_with(now, "local", code)

    # -- the parts -------------------------------------------------------------------------------------

    def transmit(
        self, type: Type, now: int, plaintext: bytes = b"", *, flags: int = 0, channel: int = 0
    ) -> int | None:
        """Seal and queue a packet; the seq it took, None when it is held for later or the session ended."""
        if self.end is not None:
            return None
        if type not in _NEVER_HELD and (self._held or self.holding):
            self._held.append((type, plaintext, flags, channel))
            return None
        return self._dispatch(type, now, plaintext, flags, channel)

    @property
    def holding(self) -> bool:
        """Whether packets other than REKEY, ACK and CLOSE are held back at present."""
        return self.rekeying.holding

    def release(self, now: int) -> None:
        """Send what was held, as far as it may go."""
        while self._held and not self.holding and self.end is None:
            type, plaintext, flags, channel = self._held.popleft()
            self._dispatch(type, now, plaintext, flags, channel)
            if type == _DISCOVER and flags & _REQUIRE_ACK:
                self.discovery.left(now)

    def acknowledge(self, now: int, *, ack: int | None = None, flags: int = 0) -> None:
        """Send an ACK of its own at once, with exactly this ``ack`` if given."""
        if self.end is None and self._seq_left(now):
            self._queue(self.protect(Type.ACK, now, flags=flags, ack=ack), now)

    def owe_ack(self, now: int, *, at_once: bool = False) -> None:
        """SEQ-05: an ACK within 50 ms, one for up to 16 packets."""
        self._ack_pending += 1
        if self._ack_due is None:
            self._ack_due = now + c.ACK_DELAY
        if at_once or self._ack_pending >= c.ACK_MERGE:
            self._send_ack(now)

    def protect(
        self,
        type: int,
        now: int,
        plaintext: bytes = b"",
        *,
        flags: int = 0,
        channel: int = 0,
        seq: int | None = None,
        ack: int | None = None,
    ) -> bytes:
        """A packet of this session, sealed and signed but not queued; takes the next seq unless one is
        given.
        """
        if seq is None:
            seq = self.next_seq
            self.next_seq += 1
        if ack is None:
            ack = self.ack
        return self.keys.packet(type, flags, seq, ack, self.session_id, now, channel, plaintext)

    @property
    def ack(self) -> int:
        """What packets sent now acknowledge (SEQ-05)."""
        return self.window.highest

    @property
    def params(self) -> Parameters:
        """The parameters in force (section 14)."""
        return self.core.configuration.current.params

    @property
    def flowing(self) -> bool:
        """Whether :meth:`transmit` sends at once."""
        return not self._held and not self.holding and self.end is None

    def record(self, change_type: ChangeType, why: str) -> None:
        """A journal entry that names this session's peer (JRN-04)."""
        self.core.record(change_type, f"{self.peer} {why}")

    def emit(self, event: Event) -> None:
        """Tell the user of an event."""
        self._events.append(event)

    def alert(self, now: int, reason: str) -> None:
        """The peer contradicts itself or the protocol in a way that only an intruder explains (E-53)."""
        self.untrusted = True
        self.record(ChangeType.INTEGRITY, reason)
        self.emit(PeerUntrusted(reason))

    def close_with(self, now: int, cause: EndCause, code: int | None) -> None:
        """Tell the peer with a CLOSE, then end."""
        if self.end is not None:
            return
        if cause != "local" and code is not None:
            self.core.record_error(code, f"{self.peer} {cause}", now)
        if self.next_seq < self._seq_limit:
            self._queue(self.protect(Type.CLOSE, now, b"" if code is None else bytes([code])), now)
        self.finish(now, cause, code)

    def finish(self, now: int, cause: EndCause, code: int | None) -> None:
        """End without a word to the peer."""
        self.end = SessionEnded(cause, code)
        self.state = State.CLOSING
        self.record(ChangeType.DISCONNECT, cause if code is None else f"{cause}, {code_name(code)}")
        for part in self.parts:
            part.end(now)
        self.keys.erase()
        self._held.clear()
        self.closing = True
        self._ack_due = None
        self._linger_until = now + c.LINGER
        self.counters.count("sessions_ended")
        self.emit(self.end)

    # -- the network -----------------------------------------------------------------------------------

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

    def _protection(self) -> Keys | None:
        return self.keys

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

    # -- the timer -------------------------------------------------------------------------------------

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

    # -- sending ---------------------------------------------------------------------------------------

    def _dispatch(self, type: Type, now: int, plaintext: bytes, flags: int, channel: int) -> int | None:
        if not self._seq_left(now):
            return None
        seq = self.next_seq
        self._queue(self.protect(type, now, plaintext, flags=flags, channel=channel), now)
        if self.next_seq + self.window.received >= self.rekeying.age.packets_due:
            self.rekeying.age.worn(now)
        return seq

    def _seq_left(self, now: int) -> bool:
        """False when the last seq is due, which goes to a CLOSE that ends the session (SEQ-01)."""
        if self.next_seq < self._seq_limit - 1:
            return True
        self.close_with(now, "sequence_exhausted", ErrorCode.SEQ_INVALID)
        return False

    def _send_ack(self, now: int) -> None:
        if self.congested:
            self._ack_due = now
            return
        self._ack_pending = 0
        self._ack_due = None
        self.acknowledge(now)
