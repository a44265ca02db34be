# SPDX-License-Identifier: GPL-2.0-or-later
"""An established session: protected packets in and out, acknowledgement, heartbeats, messages, the end.

Driven by the user (:meth:`Session.send`, :meth:`Session.take`, :meth:`Session.close`), the network
(:meth:`Session.receive_packet`) and the timer.  Receiving is a flat pipeline (SEAL-05): parse, find the
session, hmac, sequence range, replay window, open, commit, state table, act.  Nothing changes before the
hmac holds, nothing reaches the user before the tag does.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

from . import constants as c
from . import wire
from .constants import ErrorCode, Flag, Role, State, Type
from .counters import Counters, DropReason, Outcome, Verdict
from .endpoint import Endpoint
from .errors import DecodeError, LocalError
from .events import EndCause, MessageReceived, Observer, SessionEnded, SessionEstablished
from .fragments import Reassembly, split
from .inbox import Inbox, Message, Subscriptions
from .keys import Keys
from .replay import ReplayWindow
from .settings import Settings
from .states import Action, lookup
from .telemetry import RoundTrip
from .wire import FragmentHeader, Header, Telemetry

# Plain ints: comparing with members of an enumeration costs several times as much, for every packet.
_DATA = int(Type.DATA)
_RESPONSE = int(Type.RESPONSE)
_CHALLENGE = int(Type.CHALLENGE)
_ENCRYPTED = int(Flag.ENCRYPTED)
_REQUIRE_ACK = int(Flag.REQUIRE_ACK)
_FRAGMENT = int(Flag.FRAGMENT)
_LAST_FRAG = int(Flag.LAST_FRAG)
_U32 = (1 << 32) - 1
_ANSWERED_OTHERWISE = (int(Type.ACK), int(Type.HEARTBEAT))  # an ACK never is, a heartbeat at once
_SEALED_PROOF = wire.offset_of("response", "sealed_proof")


class Session(Endpoint):
    """``first_seq`` and ``peer_seq`` are the initial seqs, both consumed by the handshake (SEQ-03)."""

    def __init__(
        self,
        *,
        role: Role,
        index: int,
        session_id: bytes,
        keys: Keys,
        first_seq: int,
        peer_seq: int,
        now: int,
        settings: Settings,
        counters: Counters,
        observer: Observer | None = None,
    ) -> None:
        super().__init__(counters, observer)
        self.role = role
        self.index = index
        self.session_id = session_id
        self.keys = keys
        self.settings = settings
        self.state = State.ESTABLISHED
        self.subscriptions = Subscriptions()
        self.inbox = Inbox()
        self.reassembly = Reassembly()
        self.window = ReplayWindow(peer_seq)
        self.round_trip = RoundTrip()
        self.peer_report: Telemetry | None = None
        self.mtu = c.MTU_TCP_INITIAL
        self.established_at = now
        self.bytes_sent = 0
        self.bytes_received = 0
        self.congested = False
        """Set while the transport takes no more: ACKs and heartbeats then wait, so that nothing piles up."""
        self.end: SessionEnded | None = None
        self.first_seq = first_seq
        self.next_seq = first_seq + 1
        peer = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        self._peer_low, self._peer_high = c.SEQ_RANGE[peer]
        self._seq_limit = c.SEQ_RANGE[role][1]
        self._next_msg_id = 0
        self._ack_pending = 0
        self._ack_due: int | None = None
        self._heartbeat_due = now + settings.heartbeat_s * c.SECOND
        self._heartbeat_mark = (now, 0)
        self._last_heard = now
        self._suspended_at: int | None = None
        self._linger_until: int | None = None
        self._actions = {
            Action.DELIVER: self._deliver,
            Action.ACKNOWLEDGED: self._acknowledged,
            Action.HEARTBEAT: self._heartbeat,
            Action.CLOSED: self._closed,
        }
        self._events.append(SessionEstablished(session_id, role))

    # -- the user --------------------------------------------------------------------------------------

    def send(self, data: bytes, now: int, channel: int = 0) -> None:
        """Send a message of 1..65535 bytes: EINVAL, EMSGSIZE, or ENOTCONN once the session ended
        (DATA-01).
        """
        if not data:
            raise LocalError(errno.EINVAL, "a message has at least one byte")
        if len(data) > c.MAX_MESSAGE:
            raise LocalError(errno.EMSGSIZE, f"a message of {len(data)} bytes exceeds {c.MAX_MESSAGE}")
        if not 0 <= channel < c.CHANNELS:
            raise LocalError(errno.EINVAL, f"channel {channel} is not within 0..{c.CHANNELS - 1}")
        pieces: Iterable[tuple[bytes, int]] = ((data, 0),)
        if len(data) > self.mtu - c.DATA_OVERHEAD:
            pieces = split(data, self._next_msg_id, self.mtu - c.FRAGMENT_OVERHEAD)
            self._next_msg_id = (self._next_msg_id + 1) & _U32
        for plaintext, flags in pieces:
            if self.end is not None or not self._transmit(
                Type.DATA, now, plaintext, flags | _REQUIRE_ACK, channel
            ):
                raise LocalError(errno.ENOTCONN, "the session has ended")
        self.bytes_sent += len(data)

    def take(self, channel: int | None = None, max_size: int | None = None) -> Message | None:
        """The oldest received message, None without one; MessageTooBig as :meth:`Inbox.take`."""
        return self.inbox.take(channel, max_size)

    def close(self, now: int, code: int | None = None) -> None:
        """End the session with a CLOSE (CLS-01); does nothing once it ended."""
        if self.end is None:
            self._close(now, "local", code)

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
        header = Header(
            type,
            flags,
            seq,
            self.window.highest if ack is None else ack,
            self.session_id,
            now,
            channel=channel,
        )
        return self.keys.protect(header, plaintext)

    # -- the network -----------------------------------------------------------------------------------

    def end_of_stream(self, now: int) -> None:
        """CLS-03: the stream ended without CLOSE."""
        if self.end is None:
            self._finish(now, "end_of_stream", None)

    def suspend(self, now: int) -> None:
        """Reading stopped because the receive queue is full: hold the receive-driven timers (DATA-04)."""
        self.counters.count(DropReason.OVERLOAD)
        self._suspended_at = now

    def resume(self, now: int) -> None:
        """Reading goes on."""
        if self._suspended_at is not None:
            self._last_heard += now - self._suspended_at
            self.reassembly.postpone(now - self._suspended_at)
            self._suspended_at = None

    def _receive(self, packet: bytes, now: int) -> Outcome:
        try:
            header = wire.parse(packet)
        except DecodeError:
            return DropReason.MALFORMED
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
        if not self.keys.authentic(packet):
            self._close(now, "protection", ErrorCode.AUTH_FAIL)
            return DropReason.AUTH_FAIL
        seq = header.seq
        if not self._peer_low <= seq < self._peer_high:
            return DropReason.REFLECTED
        if not self.window.fresh(seq):
            return DropReason.REPLAY
        if self.inbox.full and header.type == _DATA:
            return DropReason.OVERLOAD
        sealed_from = c.HEADER_SIZE + (_SEALED_PROOF if header.type == _RESPONSE else 0)
        plaintext = self.keys.open(seq, memoryview(packet)[sealed_from:])
        if plaintext is None:
            self._close(now, "protection", ErrorCode.DECRYPT_FAIL)
            return DropReason.DECRYPT_FAIL
        self.window.commit(seq)
        self._last_heard = now
        outcome = self._act(header, plaintext, now)
        if header.flags & _REQUIRE_ACK and header.type not in _ANSWERED_OTHERWISE and self.end is None:
            self._owe_ack(now)
        return outcome

    def _act(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        transition = lookup(self.state, header.type)
        if isinstance(transition, DropReason):
            return transition
        action = self._actions.get(transition.action)
        if action is None:
            return DropReason.NOT_IMPLEMENTED
        if not self.first_seq <= header.ack < self.next_seq:
            self.counters.count(DropReason.BAD_ACK)
            header.ack = self.first_seq
        outcome = action(header, plaintext, now)
        if isinstance(outcome, Verdict) and self.end is None:  # an answer may have taken the last seq
            self.state = transition.target
        return outcome

    def _deliver(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if header.channel not in self.subscriptions:
            return DropReason.UNSUBSCRIBED
        if header.flags & _FRAGMENT:
            result = self._reassemble(header, plaintext, now)
            if not isinstance(result, Message):
                return result
            message = result
        elif not plaintext:
            return DropReason.MALFORMED
        else:
            message = Message(header.channel, plaintext)
        self.inbox.put(message)
        self.bytes_received += len(message.data)
        self._events.append(MessageReceived(message.channel, len(message.data)))
        return Verdict.ACCEPTED

    def _reassemble(self, header: Header, plaintext: bytes, now: int) -> Message | Outcome:
        try:
            fragment = FragmentHeader.unpack_from(plaintext)
        except DecodeError:
            return DropReason.MALFORMED
        evicted = self.reassembly.evicted
        result = self.reassembly.add(
            fragment,
            plaintext[c.FRAGMENT_HEADER_SIZE :],
            header.channel,
            bool(header.flags & _LAST_FRAG),
            now,
        )
        if self.reassembly.evicted > evicted:
            self.counters.count(DropReason.FRAG_EVICTED)
        return result

    def _acknowledged(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        self.round_trip.acknowledged(header.ack, now)
        return Verdict.ACCEPTED

    def _heartbeat(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        # Answered whatever it holds: the ACK says that it arrived (HB-01, E-36).
        self._ack_pending += 1
        self._send_ack(now)
        try:
            self.peer_report = Telemetry.unpack(plaintext, self.settings.dialect.telemetry_order)
        except DecodeError:
            return DropReason.MALFORMED
        return Verdict.ACCEPTED

    def _closed(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        if len(plaintext) > 1:
            return DropReason.MALFORMED
        self._finish(now, "closed", plaintext[0] if plaintext else None)
        return Verdict.CLOSED

    # -- the timer -------------------------------------------------------------------------------------

    def next_timer(self) -> int | None:
        if self.end is not None:
            return self._linger_until
        due = self._heartbeat_due
        if self._ack_due is not None and self._ack_due < due and not self.congested:
            due = self._ack_due
        if self._suspended_at is None:
            due = min(due, self._last_heard + c.DEAD_PEER)
            if self.reassembly:
                due = min(due, self.reassembly.next_timer() or due)
        return due

    def handle_timer(self, now: int) -> None:
        if self.end is not None:
            if self._linger_until is not None and now >= self._linger_until:
                self._linger_until = None
                self.inbox.clear()
            return
        if self._suspended_at is None and now >= self._last_heard + c.DEAD_PEER:
            self.counters.count("peers_dead")
            self._finish(now, "dead_peer", None)
            return
        if self._suspended_at is None and self.reassembly:
            expired = self.reassembly.expire(now)
            if expired:
                self.counters.count(DropReason.FRAG_TIMEOUT, expired)
        if self._ack_due is not None and now >= self._ack_due:
            self._send_ack(now)
        if now >= self._heartbeat_due and self.end is None:
            self._send_heartbeat(now)

    @property
    def finished(self) -> bool:
        """It ended, and its messages were read or waited for 5 s: the slot is free (CLS-01)."""
        return self.end is not None and (not self.inbox or self._linger_until is None)

    # -- sending ---------------------------------------------------------------------------------------

    def telemetry(self, now: int) -> Telemetry:
        """This side's own figures as of ``now``; throughput is of messages sent since the last heartbeat."""
        since, sent = self._heartbeat_mark
        elapsed = now - since
        return Telemetry(
            rtt_ns=self.round_trip.srtt,
            jitter_ns=self.round_trip.jitter,
            loss_rate_ppm=self.window.loss_ppm,
            throughput_bps=(self.bytes_sent - sent) * 8 * c.SECOND // elapsed if elapsed > 0 else 0,
            mtu=self.mtu,
            queue_depth=len(self.inbox),
            uptime_ns=now - self.established_at,
        )

    def _transmit(
        self,
        type: Type,
        now: int,
        plaintext: bytes = b"",
        flags: int = 0,
        channel: int = 0,
    ) -> bool:
        """Queue a packet; False when the last seq is due, which goes to a CLOSE that ends the session
        (SEQ-01).
        """
        if self.next_seq >= self._seq_limit - 1:
            self._close(now, "sequence_exhausted", ErrorCode.SEQ_INVALID)
            return False
        self._queue(self.protect(type, now, plaintext, flags=flags, channel=channel), now)
        return True

    def _owe_ack(self, now: int) -> None:
        self._ack_pending += 1
        if self._ack_due is None:
            self._ack_due = now + c.ACK_DELAY
        if self._ack_pending >= c.ACK_MERGE:
            self._send_ack(now)

    def _send_ack(self, now: int) -> None:
        if self.congested:
            self._ack_due = now
            return
        self._ack_pending = 0
        self._ack_due = None
        self._transmit(Type.ACK, now)

    def _send_heartbeat(self, now: int) -> None:
        self._heartbeat_due = now + self.settings.heartbeat_s * c.SECOND
        if self.congested:
            return
        report = self.telemetry(now).pack(self.settings.dialect.telemetry_order)
        self.round_trip.sent(self.next_seq, now)
        self._heartbeat_mark = (now, self.bytes_sent)
        self._transmit(Type.HEARTBEAT, now, report, int(Flag.TELEMETRY))

    # -- the end ---------------------------------------------------------------------------------------

    def _close(self, now: int, cause: EndCause, code: int | None) -> None:
        if self.next_seq < self._seq_limit:
            self._queue(self.protect(Type.CLOSE, now, b"" if code is None else bytes([code])), now)
        self._finish(now, cause, code)

    def _finish(self, now: int, cause: EndCause, code: int | None) -> None:
        self.end = SessionEnded(cause, code)
        self.state = State.CLOSING
        self.keys.erase()
        self.reassembly.clear()
        self.closing = True
        self._ack_due = None
        self._linger_until = now + c.LINGER
        self.counters.count("sessions_ended")
        self._events.append(self.end)
