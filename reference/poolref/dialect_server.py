# SPDX-License-Identifier: GPL-2.0-or-later
"""Serving clients whose RESPONSE does not carry their key (DIA-03): with state for each connection.

What HS-01 forbids is unavoidable here: the key comes with INIT alone, and nothing of a RESPONSE can be
checked before X25519.
"""

from __future__ import annotations

from . import constants as c
from . import crypto, wire
from .constants import Type
from .core import NodeCore, Peer
from .counters import Counters, DropReason
from .errors import LowOrderKey, RandomnessError
from .keys import Keys
from .puzzle import SOLUTION_SIZE, solves
from .responder import Admission, Responder
from .session import Session
from .wire import Challenge, Header

_SIZE = SOLUTION_SIZE + c.HMAC_SIZE + c.TAG_SIZE


def responder_for(core: NodeCore, now: int) -> Responder:
    """What serves a node's dialect.  RandomnessError when ``rng`` fails."""
    keyed = core.settings.dialect.response == "keyed"
    return Responder(core, now) if keyed else StatefulResponder(core, now)


class StatefulResponder(Responder):
    """The sealed RESPONSE: solution and proof, nothing in clear."""

    def attend(self) -> Admission:
        return _Attendant(self)


class _Attendant:
    """Remembers the last challenge of one connection, until it is answered once."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._core = responder.core
        self._challenge: Challenge | None = None
        self._session_id = b""
        self._keys: Keys | None = None
        self._issued_s = 0

    def challenge(
        self, header: Header, payload: bytes, peer_ip: bytes, now: int, ack: int = 0
    ) -> bytes | DropReason:
        init = self._responder.welcome(header, payload)
        if isinstance(init, DropReason):
            return init
        try:
            private = bytearray(crypto.draw(self._core.rng, c.KEY_SIZE))
            session_id = crypto.draw(self._core.rng, c.SESSION_ID_SIZE)
            seed = crypto.draw(self._core.rng, c.KEY_SIZE)
        except RandomnessError:
            return DropReason.NO_RANDOMNESS
        public = crypto.public_key(private)
        try:
            shared = bytearray(crypto.exchange(private, init.client_pubkey))
        except LowOrderKey:
            return DropReason.LOW_ORDER_KEY
        self.forget()
        settings = self._core.settings
        self._keys = Keys(shared, dialect=settings.dialect)
        shared[:] = bytes(len(shared))
        if settings.dialect.rekey == "one_way":
            self._keys.halves = bytearray(private), init.client_pubkey
        private[:] = bytes(len(private))
        self._session_id, self._issued_s = session_id, now // c.SECOND
        self._challenge = Challenge(public, seed, self._responder.issue(now), settings.sent_address)
        return wire.build(
            Type.CHALLENGE,
            self._challenge.pack(),
            session_id=session_id,
            seq=settings.dialect.plain_seq,
            timestamp=now,
            ack=ack,
        )

    def admit(
        self,
        header: Header,
        packet: bytes,
        peer: Peer,
        now: int,
        counters: Counters,
        session_type: type[Session] = Session,
    ) -> tuple[Session, bytes] | DropReason:
        challenge, keys = self._challenge, self._keys
        if challenge is None or keys is None or header.session_id != self._session_id:
            return DropReason.BAD_SESSION_ID
        if now // c.SECOND - self._issued_s > c.CHALLENGE_LIFETIME_S:
            return DropReason.STALE_RESPONSE
        if not header.flags & c.Flag.ENCRYPTED or header.payload_len != _SIZE:
            return DropReason.MALFORMED
        if not keys.authentic(packet):
            return DropReason.AUTH_FAIL
        plaintext = keys.open(header.seq, packet[c.HEADER_SIZE :])
        if plaintext is None:
            return DropReason.DECRYPT_FAIL
        solution, proof = plaintext[:SOLUTION_SIZE], plaintext[SOLUTION_SIZE:]
        if not solves(challenge.puzzle_seed, solution, challenge.difficulty):
            return DropReason.BAD_PUZZLE
        if not crypto.constant_time_equal(proof, crypto.mac(keys.shared, header.session_id)):
            return DropReason.BAD_PROOF
        answer = self._responder.establish(header, keys, now, peer, counters, session_type)
        if not isinstance(answer, DropReason):
            self._challenge = self._keys = None  # the session's from now on
            self._responder.verified(self._issued_s, now)
        return answer

    def forget(self) -> None:
        if self._keys is not None:
            self._keys.erase()
        self._challenge = self._keys = None
