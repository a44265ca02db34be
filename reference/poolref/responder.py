# SPDX-License-Identifier: GPL-2.0-or-later
"""The stateless server (HS-01 .. HS-07): everything about a pending client is recomputed from its RESPONSE
and a rotating secret, so that an INIT costs the node no memory at all.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from . import constants as c
from . import crypto, wire
from .address import acceptable
from .constants import Role, Type
from .core import NodeCore, Peer
from .counters import Counters, DropReason
from .dialect_session import session_type_of
from .errors import DecodeError, LowOrderKey, RandomnessError
from .keys import Keys
from .puzzle import solves
from .session import Session
from .wire import Challenge, Header, Init, Response

_RANDOM_SIZE: Final = 3
_MAC_SIZE: Final = 8
_DIFFICULTY: Final = 4
_MACED: Final = c.SESSION_ID_SIZE - _MAC_SIZE
_U32: Final = (1 << 32) - 1


class Admission(Protocol):
    """What answers the clients of one connection."""

    def challenge(
        self, header: Header, payload: bytes, peer_ip: bytes, now: int, ack: int = 0
    ) -> bytes | DropReason:
        """The CHALLENGE packet for an INIT, with that ``ack`` (HS-14), or why there is none."""

    def admit(
        self,
        header: Header,
        packet: bytes,
        peer: Peer,
        now: int,
        counters: Counters,
        session_type: type[Session] = Session,
    ) -> tuple[Session, bytes] | DropReason:
        """The new session and its handshake ACK for a RESPONSE, or why there is none."""

    def forget(self) -> None:
        """The connection is over: erase what is kept about it (HS-13)."""


class Responder:
    """One for each listening node.

    Its own state: the secret and its predecessor, when challenges were issued during the last second, which
    RESPONSEs were used during the last 31 s.  RandomnessError when ``rng`` fails at the start.
    """

    def __init__(self, core: NodeCore, now: int) -> None:
        self.core = core
        self._secret = bytearray(crypto.draw(core.rng, c.KEY_SIZE))
        self._rotate_at = now + c.SECRET_PERIOD
        self._previous: bytearray | None = None
        self._previous_until = 0
        # Enough of the latest challenges to reach the highest difficulty from the lowest that a configuration
        # may ask for; older ones change nothing.
        steps = c.MAX_ISSUED_DIFFICULTY - min(core.settings.difficulty, c.MIN_DIFFICULTY)
        self._issued: deque[int] = deque(maxlen=steps * c.LOAD_STEP)
        self._used: dict[bytes, int] = {}

    def attend(self) -> Admission:
        """What serves one more connection: the responder itself, which keeps nothing about it (HS-01)."""
        return self

    def forget(self) -> None:
        """Nothing is kept about a connection."""

    # -- INIT ------------------------------------------------------------------------------------------

    def difficulty(self, now: int) -> int:
        """HS-04: what a challenge issued at ``now`` asks for."""
        issued = self._issued
        while issued and issued[0] <= now - c.LOAD_PERIOD:
            issued.popleft()
        configured = self.core.configuration.current.params.difficulty
        return min(configured + len(issued) // c.LOAD_STEP, c.MAX_ISSUED_DIFFICULTY)

    def challenge(
        self, header: Header, payload: bytes, peer_ip: bytes, now: int, ack: int = 0
    ) -> bytes | DropReason:
        """The CHALLENGE packet for an INIT, with that ``ack`` (HS-14), or why there is none."""
        init = self.welcome(header, payload)
        if isinstance(init, DropReason):
            return init
        try:
            self._rotate(now)
            random = crypto.draw(self.core.rng, _RANDOM_SIZE)
        except RandomnessError:
            return DropReason.NO_RANDOMNESS
        difficulty = self.issue(now)
        start = (now // c.SECOND & _U32).to_bytes(4, "big") + bytes([difficulty]) + random
        session_id = start + _id_mac(self._secret, start, peer_ip, init.client_pubkey)
        private = _ephemeral(self._secret, session_id)
        challenge = Challenge(
            crypto.public_key(private),
            _puzzle_seed(self._secret, session_id, peer_ip, init.client_pubkey),
            difficulty,
            self.core.settings.sent_address,
        )
        private[:] = bytes(len(private))
        return wire.build(
            Type.CHALLENGE,
            challenge.pack(),
            session_id=session_id,
            seq=self.core.settings.dialect.plain_seq,
            timestamp=now,
            ack=ack,
        )

    def welcome(self, header: Header, payload: bytes) -> Init | DropReason:
        """An INIT that deserves a CHALLENGE, or why it does not."""
        try:
            init = Init.unpack(payload)
        except DecodeError:
            return DropReason.MALFORMED
        dialect = self.core.settings.dialect
        if (
            not wire.plain(header, dialect.plain_seq)
            or header.session_id != wire.ZERO_SESSION_ID
            or not acceptable(init.client_addr)
        ):
            return DropReason.MALFORMED
        if (
            dialect.init_timestamp == "wall"
            and abs(header.timestamp - self.core.wall_clock()) > c.INIT_CLOCK_TOLERANCE
        ):
            return DropReason.STALE_INIT
        return init if self.core.slots.free else DropReason.NO_SLOT

    def issue(self, now: int) -> int:
        """The difficulty of one more challenge, which counts as unverified from now on (HS-04)."""
        difficulty = self.difficulty(now)
        self._issued.append(now)
        return difficulty

    def verified(self, issued_s: int, now: int) -> None:
        """A challenge issued at that second is no longer an unverified one (E-73)."""
        if now // c.SECOND - issued_s <= c.LOAD_PERIOD // c.SECOND and self._issued:
            self._issued.popleft()

    # -- RESPONSE --------------------------------------------------------------------------------------

    def admit(
        self,
        header: Header,
        packet: bytes,
        peer: Peer,
        now: int,
        counters: Counters,
        session_type: type[Session] = Session,
    ) -> tuple[Session, bytes] | DropReason:
        """The new session and its handshake ACK, or why there is none.  Cheap checks come first (HS-02)."""
        try:
            response = Response.unpack(packet[c.HEADER_SIZE :])
        except DecodeError:
            return DropReason.MALFORMED
        if not header.flags & c.Flag.ENCRYPTED or header.ack:
            return DropReason.MALFORMED
        session_id = header.session_id
        try:
            self._rotate(now)
        except RandomnessError:
            return DropReason.NO_RANDOMNESS
        secret = self._secret_of(session_id, peer.ip, response.client_pubkey)
        if secret is None:
            return DropReason.BAD_SESSION_ID
        issued = int.from_bytes(session_id[:4], "big")
        if (now // c.SECOND - issued) & _U32 > c.CHALLENGE_LIFETIME_S:
            return DropReason.STALE_RESPONSE
        if session_id in self._used:
            return DropReason.REPLAY
        seed = _puzzle_seed(secret, session_id, peer.ip, response.client_pubkey)
        if not solves(seed, response.solution, session_id[_DIFFICULTY]):
            return DropReason.BAD_PUZZLE
        private = _ephemeral(secret, session_id)
        try:
            shared = bytearray(crypto.exchange(private, response.client_pubkey))
        except LowOrderKey:
            return DropReason.LOW_ORDER_KEY
        finally:
            private[:] = bytes(len(private))
        keys = Keys(shared, dialect=self.core.settings.dialect)
        shared[:] = bytes(len(shared))
        answer = self._verified(header, packet, response, keys, now, peer, counters, session_type)
        if isinstance(answer, DropReason):
            keys.erase()
        else:
            self.verified(issued, now)
        return answer

    def _verified(
        self,
        header: Header,
        packet: bytes,
        response: Response,
        keys: Keys,
        now: int,
        peer: Peer,
        counters: Counters,
        session_type: type[Session],
    ) -> tuple[Session, bytes] | DropReason:
        if not keys.authentic(packet):
            return DropReason.AUTH_FAIL
        low, high = self.core.settings.dialect.seq_range(Role.CLIENT)
        if not low <= header.seq < high:
            return DropReason.REFLECTED
        proof = keys.open(header.seq, response.sealed_proof)
        if proof is None:
            return DropReason.DECRYPT_FAIL
        if not crypto.constant_time_equal(proof, crypto.mac(keys.shared, header.session_id)):
            return DropReason.BAD_PROOF
        return self.establish(header, keys, now, peer, counters, session_type)

    def establish(
        self,
        header: Header,
        keys: Keys,
        now: int,
        peer: Peer,
        counters: Counters,
        session_type: type[Session],
    ) -> tuple[Session, bytes] | DropReason:
        """The session of a RESPONSE that holds, and its handshake ACK, or why there is no room for it."""
        dialect = self.core.settings.dialect
        try:
            first_seq = dialect.initial_seq(Role.SERVER, crypto.draw(self.core.rng, 8))
        except RandomnessError:
            return DropReason.NO_RANDOMNESS
        index = self.core.slots.take()
        if index is None:
            return DropReason.NO_SLOT
        self._used[header.session_id] = now + c.RESPONSE_MEMORY
        session = session_type_of(dialect, session_type)(
            core=self.core,
            counters=counters,
            role=Role.SERVER,
            index=index,
            session_id=header.session_id,
            keys=keys,
            first_seq=first_seq,
            peer_seq=header.seq,
            now=now,
            peer=peer,
        )
        if self.core.keylog is not None:
            self.core.keylog(keys.log_entry(header.session_id).line())
        return session, keys.protect(Header(Type.ACK, 0, first_seq, header.seq, header.session_id, now))

    # -- the timer -------------------------------------------------------------------------------------

    def next_timer(self) -> int:
        """When :meth:`handle_timer` is due (ns)."""
        due = self._rotate_at
        if self._previous is not None:
            due = min(due, self._previous_until)
        if self._used:
            due = min(due, next(iter(self._used.values())))  # in order of insertion, so of expiry
        return due

    def handle_timer(self, now: int) -> None:
        """Rotate the secret, forget the old one and used RESPONSEs.  RandomnessError: no new secret; call
        again.
        """
        self._rotate(now)

    def erase(self) -> None:
        """Forget the secrets: no pending client can be admitted any more."""
        for secret in (self._secret, self._previous):
            if secret is not None:
                secret[:] = bytes(len(secret))
        self._previous = None
        self._used.clear()

    def _rotate(self, now: int) -> None:
        if now >= self._rotate_at:
            fresh = bytearray(crypto.draw(self.core.rng, c.KEY_SIZE))
            if self._previous is not None:
                self._previous[:] = bytes(c.KEY_SIZE)
            self._previous, self._secret = self._secret, fresh
            self._previous_until = self._rotate_at + c.SECRET_OVERLAP
            self._rotate_at = now + c.SECRET_PERIOD
        if self._previous is not None and now >= self._previous_until:
            self._previous[:] = bytes(c.KEY_SIZE)
            self._previous = None
        while self._used:
            oldest = next(iter(self._used))
            if now < self._used[oldest]:
                break
            del self._used[oldest]

    def _secret_of(self, session_id: bytes, peer_ip: bytes, client_pubkey: bytes) -> bytearray | None:
        for secret in (self._secret, self._previous):
            if secret is not None and crypto.constant_time_equal(
                _id_mac(secret, session_id[:_MACED], peer_ip, client_pubkey), session_id[_MACED:]
            ):
                return secret
        return None


def _id_mac(secret: bytearray, start: bytes, peer_ip: bytes, client_pubkey: bytes) -> bytes:
    message = b"pool-sid" + start + peer_ip + client_pubkey + bytes([c.VERSION])
    return crypto.mac(secret, message)[:_MAC_SIZE]


def _ephemeral(secret: bytearray, session_id: bytes) -> bytearray:
    return bytearray(crypto.hkdf(bytes(secret) + session_id, b"pool-ephemeral", c.KEY_SIZE))


def _puzzle_seed(secret: bytearray, session_id: bytes, peer_ip: bytes, client_pubkey: bytes) -> bytes:
    return crypto.mac(secret, b"pool-puzzle" + session_id + peer_ip + client_pubkey)
