# SPDX-License-Identifier: GPL-2.0-or-later
"""Replacing a session's keys (section 13).

One side proposes and is REKEYING until the other accepts; both then seal with the next epoch's keys.  The
old ones still open what is under way, until the peer has shown that it has the new ones.

Over raw IP a packet may arrive much later than it was sent, so nothing may be in flight when keys change:
what is to be proposed or accepted waits until everything sent is acknowledged, and whoever accepted goes
on with the old keys, sending nothing but ACKs, until it hears the new ones.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from . import constants as c
from . import crypto
from .constants import ErrorCode, State, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError, LocalError, LowOrderKey, RandomnessError
from .events import RekeyCompleted
from .journal import ChangeType
from .keys import Keys
from .part import NEVER, Part
from .wire import Buffer, Header, offset_of, sized, struct_of

if TYPE_CHECKING:
    from .session import Session

PROPOSE: Final = 1
ACCEPT: Final = 2

_PAYLOAD: Final = struct_of("rekey")
_ZERO: Final = bytes(3)
_LAST_EPOCH: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class RekeyPayload:
    """The plaintext of a REKEY (40 bytes)."""

    epoch: int
    stage: int
    pubkey: bytes

    def pack(self) -> bytes:
        return _PAYLOAD.pack(self.epoch, self.stage, _ZERO, self.pubkey)

    @classmethod
    def unpack(cls, plaintext: Buffer) -> RekeyPayload:
        """DecodeError unless it has 40 bytes, three of them zero, and stage 1 or 2 (E-52)."""
        sized(plaintext, _PAYLOAD.size, "rekey")
        epoch, stage, zero, pubkey = _PAYLOAD.unpack(plaintext)
        if zero != _ZERO:
            raise DecodeError(offset_of("rekey", "zero"), "zero", zero.hex())
        if stage not in (PROPOSE, ACCEPT):
            raise DecodeError(offset_of("rekey", "stage"), "stage", str(stage))
        return cls(epoch, stage, pubkey)


def own_wins(own: bytes, peer: bytes) -> bool:
    """RK-03: whether one's own proposal prevails when both sides made one; ValueError for equal keys."""
    if own == peer:
        raise ValueError("both sides proposed the same key")
    return own < peer


class _Proposal:
    """This side's own.  ``answer`` is the peer's accept, once it came; ``repeats`` says when (ns) the
    proposal goes out again.
    """

    __slots__ = ("answer", "payload", "private", "repeats")

    def __init__(self, payload: RekeyPayload, private: bytearray, repeats: Iterable[int]) -> None:
        self.payload = payload
        self.private = private
        self.answer: RekeyPayload | None = None
        self.repeats = deque(repeats)

    def erase(self) -> None:
        self.private[:] = bytes(len(self.private))


class Rekeying(Part):
    """Takes a session from one epoch to the next.

    Of these, one at most is set: ``_wanted``, a proposal is to be made; ``_own``, one was made;
    ``_theirs``, the peer's is to be accepted; ``_next``, it was, and the new keys wait for the peer's first
    packet under them (raw).  ``_previous`` are the old keys, kept for packets under way.
    """

    receive_driven: ClassVar[bool] = True

    def __init__(self, session: Session, now: int) -> None:
        super().__init__(session)
        self.age = KeyAge(session, now, self)
        self.holding = False
        """New packets other than REKEY, ACK and CLOSE wait (RK-02)."""
        self.overlapping = False
        """Packets of two epochs are authentic: :meth:`verified` wants to know of each."""
        self._wanted = False
        self._own: _Proposal | None = None
        self._theirs: RekeyPayload | None = None
        self._next: Keys | None = None
        self._previous: Keys | None = None
        self._taken: RekeyPayload | None = None
        """The proposal accepted last, which may be repeated."""
        self._lowest = NEVER
        """The lowest seq of the peer's under the present keys, while the previous ones are kept."""
        self._retry_at = NEVER
        self._forget_at = NEVER
        self._deadline = NEVER
        """When the peer has had 60 s for what is its turn now."""

    @property
    def underway(self) -> bool:
        """Whether the two sides may be at different epochs."""
        return self.overlapping or self._own is not None or self._theirs is not None

    @property
    def silent(self) -> bool:
        """Whether nothing goes out but ACKs without a seq: the peer may have changed keys, or not (RK-04)."""
        return self._next is not None

    # -- proposing -------------------------------------------------------------------------------------

    def start(self, now: int) -> None:
        """Propose new keys, unless a rekey is under way already; over raw once nothing is in flight.
        ENOTCONN when the session ended or is being closed.
        """
        if not self.session.active:
            raise LocalError(errno.ENOTCONN, "the session has ended")
        if self.underway or self._wanted or self.session.keys.epoch == _LAST_EPOCH:
            return
        self._wanted = self.holding = True
        self._proceed(now)

    def _propose(self, now: int) -> None:
        session = self.session
        private = self._draw()
        self._wanted = False
        payload = RekeyPayload(session.keys.epoch + 1, PROPOSE, crypto.public_key(private))
        # Over raw the packet itself is resent until it is acknowledged.
        delays = () if session.reliable else c.REKEY_REPEATS
        self._own = _Proposal(payload, private, (now + delay for delay in delays))
        self._deadline = now + c.REKEY_TIMEOUT
        session.state = State.REKEYING
        session.transmit(Type.REKEY, now, payload.pack())

    # -- receiving -------------------------------------------------------------------------------------

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """The peer's proposal, or its accept of this side's."""
        try:
            payload = RekeyPayload.unpack(plaintext)
        except DecodeError:
            return DropReason.MALFORMED
        receiver = self._proposed if payload.stage == PROPOSE else self._accepted
        return receiver(payload, now)

    def _proposed(self, payload: RekeyPayload, now: int) -> Outcome:
        session, own = self.session, self._own
        if payload == self._taken or payload == self._theirs:
            return Verdict.ACCEPTED  # repeated before it heard that it was accepted (RK-05)
        if (
            payload.epoch != session.keys.epoch + 1
            or self._theirs is not None
            or self._next is not None
            or (own is not None and own.answer is not None)
        ):
            return DropReason.MALFORMED
        if own is not None:
            try:
                if own_wins(own.payload.pubkey, payload.pubkey):
                    session.acknowledge(now)
                    return Verdict.ACCEPTED
            except ValueError:
                self.fail(now)
                return DropReason.MALFORMED
            self._drop_own()
            session.state = State.ESTABLISHED
        self._wanted = False
        self._theirs = payload
        self._deadline = NEVER  # it is the proposer who waits for the accept
        self.holding = True
        return self._proceed(now)

    def _accepted(self, payload: RekeyPayload, now: int) -> Outcome:
        own = self._own
        if own is None or payload.epoch != own.payload.epoch or own.answer is not None:
            return DropReason.MALFORMED
        own.answer = payload
        return self._proceed(now)

    def _proceed(self, now: int) -> Outcome:
        """Do what has to wait until nothing of this side's own is in flight (RK-02), if that is so."""
        self._retry_at = NEVER
        outcome: Outcome = Verdict.ACCEPTED
        try:
            if self.session.outstanding:
                pass
            elif self._wanted:
                self._propose(now)
            elif self._theirs is not None:
                self._accept(self._theirs, now)
            elif self._own is not None and self._own.answer is not None:
                self._complete(self._own, self._own.answer, now)
        except RandomnessError:
            self._put_off(now)
        except LowOrderKey:
            outcome = DropReason.LOW_ORDER_KEY
            self.fail(now)
        self._follow()
        return outcome

    def _put_off(self, now: int) -> None:
        """There are no random bytes: nothing changes (SEAL-08), what is due is tried again."""
        session = self.session
        session.counters.count(DropReason.NO_RANDOMNESS)
        if self._wanted:
            self._wanted = self.holding = False  # whoever wanted it asks again
            session.release(now)
        else:
            self._retry_at = now + c.REKEY_RETRY

    def _draw(self) -> bytearray:
        """A private key."""
        return bytearray(crypto.draw(self.session.core.rng, c.KEY_SIZE))

    def _accept(self, theirs: RekeyPayload, now: int) -> None:
        session = self.session
        private = self._draw()
        try:
            keys = session.keys.successor(private, theirs.pubkey)
            answer = RekeyPayload(keys.epoch, ACCEPT, crypto.public_key(private))
        finally:
            private[:] = bytes(len(private))
        if session.transmit(Type.REKEY, now, answer.pack()) is None:  # the last seq was due
            keys.erase()
            return
        self._theirs, self._taken = None, theirs
        if session.reliable:
            self._next = keys
            self.overlapping = True
            self._deadline = now + c.REKEY_TIMEOUT
        else:
            self._switch(keys, now)
            session.release(now)

    def _complete(self, own: _Proposal, answer: RekeyPayload, now: int) -> None:
        session = self.session
        keys = session.keys.successor(own.private, answer.pubkey)
        self._drop_own()
        self._taken = None
        self._switch(keys, now)
        session.acknowledge(now)
        session.release(now)

    def _switch(self, keys: Keys, now: int) -> None:
        session = self.session
        if self._previous is not None:
            self._previous.erase()
        self._previous, session.keys = session.keys, keys
        self.overlapping = True
        self._lowest = self._forget_at = NEVER
        self._deadline = now + c.REKEY_TIMEOUT
        self.holding = False
        session.state = State.ESTABLISHED
        self.age.renewed(now)
        session.vigil.rekeyed()
        if session.core.keylog is not None:
            session.core.keylog(keys.log_entry(session.session_id).line())
        session.record(ChangeType.REKEY, f"epoch {keys.epoch}")
        session.emit(RekeyCompleted(keys.epoch))

    # -- which keys a packet was made with --------------------------------------------------------------

    def older_keys(self, packet: bytes, header: Header) -> Keys | None:
        """The keys under which a packet is authentic that is not so under the session's own: the previous
        ones, up to the first packet under the present ones (RK-04); over raw also those that were agreed on
        and wait for the peer.
        """
        for keys in (self._previous, self._next):
            if keys is not None and keys.authentic(packet):
                return None if keys is self._previous and header.seq > self._lowest else keys
        return None

    def verified(self, keys: Keys, header: Header, now: int) -> None:
        """An authentic packet arrived that was made with ``keys``."""
        if self.session.state is State.CLOSING:
            return
        if keys is self._next:
            self._next = None
            self._switch(keys, now)
            self._confirmed(header, now)
            self.session.release(now)
        elif self._previous is not None and keys is self.session.keys:
            self._confirmed(header, now)

    def _confirmed(self, header: Header, now: int) -> None:
        """The peer has the new keys."""
        if not self.session.reliable:
            self._deadline = NEVER
            self._forget_previous()
        elif self._forget_at == NEVER:
            self._deadline = NEVER
            self._lowest = header.seq
            self._forget_at = now + c.REKEY_OVERLAP
        else:
            self._lowest = min(self._lowest, header.seq)
        self._follow()

    # -- the session's calls ---------------------------------------------------------------------------

    def drained(self, now: int) -> None:
        self._proceed(now)

    def handle_timer(self, now: int) -> None:
        own = self._own
        if now >= self._deadline:
            self.fail(now)
        elif now >= self._forget_at:
            self._forget_previous()
        elif now >= self._retry_at:
            self._proceed(now)
        elif own is not None and own.repeats and now >= own.repeats[0]:
            own.repeats.popleft()
            self.session.transmit(Type.REKEY, now, own.payload.pack())
        self._follow()

    def postpone(self, duration: int) -> None:
        if self._own is not None:
            self._own.repeats = deque(at + duration for at in self._own.repeats)
        if self._deadline != NEVER:
            self._deadline += duration
        self._follow()

    def end(self, now: int) -> None:
        self._drop_own()
        self._forget_previous()
        if self._next is not None:
            self._next.erase()
        self._wanted = self.holding = self.overlapping = False
        self._theirs = self._taken = self._next = None
        self._deadline = self._retry_at = NEVER
        super().end(now)

    def _drop_own(self) -> None:
        if self._own is not None:
            self._own.erase()
            self._own = None

    def _forget_previous(self) -> None:
        if self._previous is not None:
            self._previous.erase()
            self._previous = None
            self.overlapping = self._next is not None
        self._lowest = self._forget_at = NEVER

    def fail(self, now: int) -> None:
        """End the session because its keys could not be replaced."""
        self.session.close_with(now, "rekey", ErrorCode.REKEY_FAIL)

    def _follow(self) -> None:
        self.due = min(self._deadline, self._forget_at, self._retry_at)
        if self._own is not None and self._own.repeats:
            self.due = min(self.due, self._own.repeats[0])


class KeyAge(Part):
    """How much a key has been used: proposes the next one when that is enough, ends the session when
    nothing comes of it (RK-01, RK-05).

    Packets are those with a seq of their own, sent and received, since the keys were changed (E-50).
    """

    def __init__(self, session: Session, now: int, rekeying: Rekeying) -> None:
        super().__init__(session)
        self._rekeying = rekeying
        self.packets_due = 0
        """What :attr:`packets` must have come to for :meth:`worn`."""
        self._hard_time: int | None = None
        self._hard_packets = 0
        self.renewed(now)
        session.core.configuration.watch(self._reconfigured)

    @property
    def packets(self) -> int:
        """Grows by one for each packet sent or received."""
        return self.session.next_seq + self.session.window.received

    def renewed(self, now: int) -> None:
        """There are new keys."""
        self._first_packet = self.packets
        self._since = now
        self._hard_time = None
        self._reconfigured()

    def worn(self, now: int) -> None:
        """As many packets were sent and received as ``packets_due`` says."""
        if self._hard_time is not None and self.packets >= self._hard_packets:
            self._rekeying.fail(now)
        else:
            self._replace(now)

    def handle_timer(self, now: int) -> None:
        if self._hard_time is not None and now >= self._hard_time:
            self._rekeying.fail(now)
        else:
            self._replace(now)

    def end(self, now: int) -> None:
        super().end(now)
        self.session.core.configuration.unwatch(self._reconfigured)

    def _replace(self, now: int) -> None:
        """The key has reached its limit: try to replace it, and again if another rekey was in the way."""
        if self._hard_time is None:
            self._hard_time = now + c.REKEY_GRACE
            self._hard_packets = self.packets_due = self.packets + c.REKEY_GRACE_PACKETS
        self.due = min(now + c.REKEY_RETRY, self._hard_time)
        if self.session.active:
            self._rekeying.start(now)

    def _reconfigured(self) -> None:
        if self._hard_time is None:
            params = self.session.params
            self.packets_due = self._first_packet + params.rekey_packets
            due = self._since + params.rekey_s * c.SECOND
            if due != self.due:
                self.due = due
                self.session.core.stir(self.session)
