# SPDX-License-Identifier: GPL-2.0-or-later
"""What raw IP changes about the handshake: datagrams get lost, and anybody can send one (HS-13, HS-14,
TRN-08).
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import ClassVar, Final

from . import constants as c
from .constants import HEADER_SIZE, KEY_SIZE, ErrorCode, State
from .core import NOBODY, NodeCore, Peer
from .counters import DropReason, Outcome, Verdict
from .errors import HandshakeError
from .handshake import ClientHandshake, ServerHandshake
from .part import NEVER
from .raw_session import RawSession
from .session import Session
from .wire import Header

ECHO_SIZE: Final = 8
_PUBKEY_END: Final = HEADER_SIZE + KEY_SIZE


def echo_of(public_key: bytes) -> int:
    """The ``ack`` that proves to a client that its INIT was seen (HS-14)."""
    return int.from_bytes(public_key[:ECHO_SIZE], "big")


class RawClientHandshake(ClientHandshake):
    """Repeats INIT until a CHALLENGE comes and RESPONSE until the ACK does.

    ``patience`` is how long (ns) it waits for a CHALLENGE: 10 s, or 2.5 s when TCP is tried next (TRN-05).
    """

    session_type: ClassVar[type[Session]] = RawSession

    def __init__(
        self,
        *,
        core: NodeCore,
        index: int,
        now: int,
        peer: Peer = NOBODY,
        in_use: Callable[[bytes], bool] = lambda session_id: False,
        patience: int = c.CHALLENGE_TIMEOUT,
    ) -> None:
        self._repeats: deque[tuple[int, bytes]] = deque()
        self._forgeries = 0
        super().__init__(core=core, index=index, now=now, peer=peer, in_use=in_use)
        self.echo = echo_of(self._public)
        self.unanswered = False
        """It failed because no CHALLENGE came, so another transport may be tried."""
        self._deadline = now + patience

    @property
    def session_id(self) -> bytes:
        """The id that the server chose; empty before its CHALLENGE."""
        return self._session_id

    def next_timer(self) -> int | None:
        deadline = super().next_timer()
        if deadline is None or not self._repeats:
            return deadline
        return min(deadline, self._repeats[0][0])

    def handle_timer(self, now: int) -> None:
        super().handle_timer(now)
        while self._repeats and now >= self._repeats[0][0]:
            self.counters.count("packets_resent")
            self._queue(self._repeats.popleft()[1], now)

    def _send(self, packet: bytes, now: int) -> None:
        self._queue(packet, now)
        delays = c.INIT_REPEATS if self.state is State.INIT_SENT else c.RESPONSE_REPEATS
        self._repeats = deque((now + delay, packet) for delay in delays)

    def _echoed(self, header: Header) -> bool:
        return header.ack == self.echo

    def _challenged(self, header: Header, payload: bytes, now: int) -> Outcome:
        outcome = super()._challenged(header, payload, now)
        if outcome is Verdict.ACCEPTED:
            self._repeats.clear()
        return outcome

    def _forged(self) -> None:
        self._forgeries += 1  # anybody can have sent it: the wait goes on (E-39)

    def _unfit(self, header: Header) -> DropReason | None:
        # A void of the server's first MTU probe is authentic as well, and can come first (E-38).
        return DropReason.UNEXPECTED_TYPE if header.flags else super()._unfit(header)

    def _acknowledged(self, header: Header, packet: bytes, now: int) -> Outcome:
        outcome = super()._acknowledged(header, packet, now)
        if isinstance(self.session, RawSession):
            self.session.welcomed_by(header, now)
        return outcome

    def _too_late(self) -> OSError:
        self.unanswered = self.state is State.INIT_SENT
        if self._forgeries:
            return HandshakeError(errno.EBADMSG, "no ACK in time but ones that are not authentic")
        return super()._too_late()

    def _forget(self) -> None:
        super()._forget()
        self._repeats.clear()


class RawServerHandshake(ServerHandshake):
    """What a listener does with one INIT or RESPONSE: made for it, and done with it afterwards (HS-01)."""

    session_type: ClassVar[type[Session]] = RawSession

    def next_timer(self) -> int:
        return NEVER

    def _echo(self, packet: bytes) -> int:
        return echo_of(packet[HEADER_SIZE:])

    def _refuse(self, code: ErrorCode, packet: bytes, now: int) -> None:
        # Silence for a RESPONSE that fails (HS-13), and where there is no key to echo (E-43).
        if code is ErrorCode.AUTH_FAIL or len(packet) < _PUBKEY_END:
            self._give_up()
        else:
            super()._refuse(code, packet, now)

    def _welcome(self, session: Session, ack: bytes, now: int) -> None:
        super()._welcome(session, ack, now)
        if isinstance(session, RawSession):
            session.welcomed_with(ack, now)
