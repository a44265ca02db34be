# SPDX-License-Identifier: GPL-2.0-or-later
"""The handshake of version 1 (section 8), one class for each side of one connection.

The client keeps its ephemeral key until it has the shared secret; the server keeps nothing at all but
deadlines and leaves everything else to the node's :class:`~poolref.responder.Responder` (HS-01).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import ClassVar

from . import constants as c
from . import crypto, wire
from .address import acceptable
from .constants import ErrorCode, Flag, Role, State, Type
from .core import NOBODY, NodeCore, Peer
from .counters import Counters, DropReason, Outcome, Verdict
from .dialect_session import session_type_of
from .endpoint import Endpoint
from .errors import DecodeError, HandshakeError, LowOrderKey, PoolTimeout, RandomnessError, peer_error
from .events import HandshakeFailed, PuzzlePosed
from .keys import Keys
from .responder import Admission, Responder
from .session import Session
from .states import lookup
from .wire import Challenge, Header, Init, Response


class ClientHandshake(Endpoint):
    """From INIT to ESTABLISHED; :attr:`session` is the result, a HandshakeFailed event the other one.

    After PuzzlePosed the user searches for a solution and hands it in with :meth:`solved`.
    """

    session_type: ClassVar[type[Session]] = Session

    def __init__(
        self,
        *,
        core: NodeCore,
        index: int,
        now: int,
        peer: Peer = NOBODY,
        in_use: Callable[[bytes], bool] = lambda session_id: False,
    ) -> None:
        """``in_use`` tells session ids held with this peer (HS-14).  RandomnessError when ``rng`` fails."""
        super().__init__(
            Counters(core.counters), core.observer, core.settings.conduct(Role.CLIENT, established=False)
        )
        self.state = State.INIT_SENT
        self.session: Session | None = None
        self._core = core
        self._dialect = core.settings.dialect
        self._index = index
        self._peer = peer
        self._in_use = in_use
        self._private = bytearray(crypto.draw(core.rng, c.KEY_SIZE))
        self._public = crypto.public_key(self._private)
        self._keys: Keys | None = None
        self._session_id = b""
        self._first_seq: int | None = None  # set when RESPONSE is sent
        self._deadline: int | None = now + c.CHALLENGE_TIMEOUT
        self._awaited = "CHALLENGE"
        timestamp = core.wall_clock() if self._dialect.init_timestamp == "wall" else now
        payload = Init(self._public, core.settings.sent_address).pack()
        self._send(wire.build(Type.INIT, payload, seq=self._dialect.plain_seq, timestamp=timestamp), now)

    def solved(self, solution: bytes, now: int) -> None:
        """Send RESPONSE with the puzzle's solution (32 bytes); ignored when the attempt is already over."""
        keys = self._keys
        if self.state is not State.CHALLENGED or keys is None or self._first_seq is not None:
            return
        try:
            seq = self._dialect.initial_seq(Role.CLIENT, crypto.draw(self._core.rng, 8))
        except RandomnessError as error:
            self._fail(error)
            return
        self._first_seq = seq
        self._deadline = now + c.ACK_TIMEOUT
        self._awaited = "ACK"
        proof = crypto.mac(keys.shared, self._session_id)
        if self._dialect.response == "keyed":
            payload = Response(self._public, solution, keys.seal(seq, proof)).pack()
        else:
            payload = keys.seal(seq, solution + proof)
        header = Header(Type.RESPONSE, Flag.ENCRYPTED | Flag.REQUIRE_ACK, seq, 0, self._session_id, now)
        self._send(keys.sign(header, payload), now)

    def cancel(self) -> None:
        """Give the attempt up without an event; key material is erased (HS-13)."""
        self._forget()

    def end_of_stream(self, now: int) -> None:
        self._fail(HandshakeError(errno.ECONNRESET, f"the connection ended before {self._awaited}"))

    def next_timer(self) -> int | None:
        return self._deadline

    def handle_timer(self, now: int) -> None:
        if self._deadline is not None and now >= self._deadline:
            self.counters.count("handshake_timeouts")
            self._fail(self._too_late())

    # -- where transports differ -----------------------------------------------------------------------

    def _send(self, packet: bytes, now: int) -> None:
        """INIT or RESPONSE goes out for the first time."""
        self._queue(packet, now)

    def _echoed(self, header: Header) -> bool:
        """Whether an unprotected packet comes from somebody who saw the INIT."""
        return True

    def _forged(self) -> None:
        """An ACK of this session is not authentic: on a stream, framing can no longer be trusted (E-12)."""
        self._fail(HandshakeError(errno.EBADMSG, "the peer's ACK is not authentic"))

    def _unfit(self, header: Header) -> DropReason | None:
        """What tells against an authentic ACK as the handshake's."""
        if header.ack == self._first_seq or self._dialect.handshake_ack == "any":
            return None
        return DropReason.BAD_ACK

    def _too_late(self) -> OSError:
        return PoolTimeout(f"no {self._awaited} in time")

    # -- receiving -------------------------------------------------------------------------------------

    def _receive(self, packet: bytes, now: int) -> Outcome:
        try:
            header = wire.parse(packet)
        except DecodeError:
            return DropReason.MALFORMED
        reason = wire.check(header)
        if reason is DropReason.VERSION_MISMATCH:
            if wire.advisory_code(header, packet) == ErrorCode.VERSION_MISMATCH and self._echoed(header):
                self._fail(peer_error(ErrorCode.VERSION_MISMATCH, "the handshake"))
            return reason
        if reason is not None:
            return reason
        transition = lookup(self.state, header.type)
        if isinstance(transition, DropReason):
            return transition
        if header.type == Type.CHALLENGE:
            return self._challenged(header, packet[c.HEADER_SIZE :], now)
        if header.type == Type.ACK:
            return self._acknowledged(header, packet, now)
        code = wire.advisory_code(header, packet)
        if code is None:
            return DropReason.MALFORMED
        if not self._echoed(header):
            return DropReason.SPOOFED
        self._fail(peer_error(code, "the handshake"))
        return Verdict.CLOSED

    def _challenged(self, header: Header, payload: bytes, now: int) -> Outcome:
        try:
            challenge = Challenge.unpack(payload)
        except DecodeError:
            return DropReason.MALFORMED
        if not wire.plain(header, self._dialect.plain_seq) or not acceptable(challenge.server_addr):
            return DropReason.MALFORMED
        if not self._echoed(header):
            return DropReason.SPOOFED
        if header.session_id == wire.ZERO_SESSION_ID or self._in_use(header.session_id):
            self._fail(HandshakeError(errno.EBADMSG, "the peer offered a session id that is zero or in use"))
            return DropReason.BAD_SESSION_ID
        if challenge.difficulty > c.MAX_ACCEPTED_DIFFICULTY:
            self._fail(
                HandshakeError(
                    errno.ERANGE,
                    f"a puzzle of {challenge.difficulty} bits, more than {c.MAX_ACCEPTED_DIFFICULTY}",
                )
            )
            return DropReason.TOO_DIFFICULT
        try:
            shared = bytearray(crypto.exchange(self._private, challenge.server_pubkey))
        except LowOrderKey as error:
            self._fail(error)
            return DropReason.LOW_ORDER_KEY
        if self.conduct is not None:
            shared[:] = self.conduct.agree(self._private, challenge.server_pubkey, shared)
        self._keys = Keys(shared, dialect=self._dialect)
        shared[:] = bytes(len(shared))
        if self._dialect.rekey == "one_way":
            self._keys.halves = bytearray(self._private), challenge.server_pubkey
        self._erase_private()
        self._session_id = header.session_id
        if self._core.keylog is not None:
            self._core.keylog(self._keys.log_entry(self._session_id).line())
        self.state = State.CHALLENGED
        self._awaited = "solution of the puzzle"
        self._deadline = now + c.SEARCH_LIMIT
        counter_first = self._dialect.solution == "counter_first"
        self._events.append(
            PuzzlePosed(challenge.puzzle_seed, challenge.difficulty, self._deadline, counter_first)
        )
        return Verdict.ACCEPTED

    def _acknowledged(self, header: Header, packet: bytes, now: int) -> Outcome:
        keys = self._keys
        if keys is None or self._first_seq is None:
            return DropReason.UNEXPECTED_TYPE
        if header.session_id != self._session_id:
            return DropReason.UNKNOWN_SESSION
        if not keys.authentic(packet):
            self._forged()
            return DropReason.AUTH_FAIL
        low, high = self._dialect.seq_range(Role.SERVER)
        if not low <= header.seq < high:
            return DropReason.REFLECTED
        reason = self._unfit(header)
        if reason is not None:
            return reason
        self.session = session_type_of(self._dialect, self.session_type)(
            core=self._core,
            counters=self.counters,
            role=Role.CLIENT,
            index=self._index,
            session_id=self._session_id,
            keys=keys,
            first_seq=self._first_seq,
            peer_seq=header.seq,
            now=now,
            peer=self._peer,
        )
        self.counters.count("handshakes_completed")
        self._keys = None  # the session's from now on
        self.state = State.ESTABLISHED
        self._deadline = None
        return Verdict.ACCEPTED

    def _protection(self) -> Keys | None:
        return self._keys

    def _discarded(self, reason: DropReason, now: int) -> None:
        self._core.record_discard(reason, self._peer, now)

    def _fail(self, error: OSError) -> None:
        if self.closing:
            return
        self._forget()
        self.closing = True
        self.counters.count("handshakes_failed")
        self._events.append(HandshakeFailed(error))

    def _forget(self) -> None:
        self.state = State.IDLE
        self._deadline = None
        self._erase_private()
        if self._keys is not None:
            self._keys.erase()
            self._keys = None

    def _erase_private(self) -> None:
        self._private[:] = bytes(len(self._private))


class ServerHandshake(Endpoint):
    """The listener's end of one TCP connection: IDLE until a RESPONSE verifies; :attr:`session` is the
    result.
    """

    session_type: ClassVar[type[Session]] = Session

    def __init__(self, responder: Responder, peer: Peer, now: int) -> None:
        core = responder.core
        super().__init__(
            Counters(core.counters), core.observer, core.settings.conduct(Role.SERVER, established=False)
        )
        self.state = State.IDLE
        self.session: Session | None = None
        self.silent = True
        """No INIT was answered yet."""
        self._core = core
        self._responder: Admission = responder.attend()
        self._response_size = core.settings.dialect.response_size
        self._peer = peer
        self._deadline: int | None = now + c.INIT_TIMEOUT

    def end_of_stream(self, now: int) -> None:
        self._give_up()

    def next_timer(self) -> int | None:
        return self._deadline

    def handle_timer(self, now: int) -> None:
        if self._deadline is not None and now >= self._deadline:
            self.counters.count("handshake_timeouts")
            self._give_up()

    def evict(self) -> None:
        """Make room for another connection (HS-09)."""
        self.counters.count("handshakes_evicted")
        self._give_up()

    def _receive(self, packet: bytes, now: int) -> Outcome:
        try:
            header = wire.parse(packet)
        except DecodeError:
            return DropReason.MALFORMED
        reason = wire.check(header, response_size=self._response_size)
        if reason is DropReason.VERSION_MISMATCH and header.type == Type.INIT:
            self._refuse(ErrorCode.VERSION_MISMATCH, packet, now)
        if reason is DropReason.MALFORMED and header.type == Type.RESPONSE:
            if header.payload_len < self._response_size:
                self._refuse(ErrorCode.AUTH_FAIL, packet, now)  # a RESPONSE that fails (E-07)
            return reason
        if reason is not None:
            return reason
        transition = lookup(self.state, header.type)
        if isinstance(transition, DropReason):
            return transition
        if header.type == Type.INIT:
            return self._init(header, packet, now)
        return self._response(header, packet, now)

    def _init(self, header: Header, packet: bytes, now: int) -> Outcome:
        answer = self._responder.challenge(
            header, packet[c.HEADER_SIZE :], self._peer.ip, now, self._echo(packet)
        )
        if isinstance(answer, DropReason):
            if answer is DropReason.NO_SLOT:
                self._refuse(ErrorCode.OVERLOAD, packet, now)
            return answer
        if self.silent:
            # Only the first INIT starts the clock: repeating it does not keep a connection open for ever.
            self.silent = False
            self._deadline = now + c.RESPONSE_TIMEOUT
        self.counters.count("challenges_sent")
        self._queue(answer, now)
        return Verdict.ACCEPTED

    def _response(self, header: Header, packet: bytes, now: int) -> Outcome:
        answer = self._responder.admit(header, packet, self._peer, now, self.counters, self.session_type)
        if isinstance(answer, DropReason):
            code = ErrorCode.OVERLOAD if answer is DropReason.NO_SLOT else ErrorCode.AUTH_FAIL
            self._refuse(code, packet, now)
            return answer
        self.session, ack = answer
        self.counters.count("handshakes_completed")
        self._welcome(self.session, ack, now)
        self.state = State.ESTABLISHED
        self._deadline = None
        return Verdict.ACCEPTED

    def _protection(self) -> Keys | None:
        return None if self.session is None else self.session.keys

    def _welcome(self, session: Session, ack: bytes, now: int) -> None:
        """The handshake ACK goes out."""
        self._queue(ack, now)

    def _discarded(self, reason: DropReason, now: int) -> None:
        self._core.record_discard(reason, self._peer, now)

    def _echo(self, packet: bytes) -> int:
        """The ``ack`` of an unprotected answer."""
        return 0

    def _refuse(self, code: ErrorCode, packet: bytes, now: int) -> None:
        self._queue(wire.advisory_close(code, now, self._echo(packet)), now)
        self._give_up()

    def _give_up(self) -> None:
        if self.closing:
            return
        self.closing = True
        self._deadline = None
        self._responder.forget()
        self.counters.count("handshakes_failed")
