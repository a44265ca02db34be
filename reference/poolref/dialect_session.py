# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions of a dialect whose REKEY is one-way: a public key, in use from the next packet on (E-94).

Whoever sends one seals with the X25519 of its new key and the other side's key in use; the other side does
so as soon as it has it.  Each side draws its seq anew, so each epoch has a replay window of its own.
"""

from __future__ import annotations

import errno
from typing import Any, ClassVar

from . import constants as c
from . import crypto
from .constants import Type
from .counters import DropReason, Outcome, Verdict
from .dialect import Dialect
from .errors import LocalError, LowOrderKey, RandomnessError
from .keys import Keys
from .rekey import Rekeying
from .replay import ReplayWindow
from .session import Session
from .wire import Header


def session_type_of(dialect: Dialect, usual: type[Session]) -> type[Session]:
    """The class of a session in a dialect; ``usual`` is the one of its transport."""
    return OneWaySession if dialect.rekey == "one_way" and usual is Session else usual


class OneWayRekeying(Rekeying):
    """Nothing is proposed, accepted or held."""

    def start(self, now: int) -> None:
        """Change keys now.  ENOTCONN when the session ended."""
        session = self.session
        if not session.active:
            raise LocalError(errno.ENOTCONN, "the session has ended")
        halves = session.keys.halves
        if halves is None:
            return
        try:
            private = self._draw()
            self._change(private, halves[1], crypto.public_key(private), now)
        except RandomnessError:
            session.counters.count(DropReason.NO_RANDOMNESS)

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """The peer's new key."""
        halves = self.session.keys.halves
        if len(plaintext) != c.KEY_SIZE or halves is None:
            return DropReason.MALFORMED
        try:
            self._change(bytearray(halves[0]), plaintext, None, now)
        except LowOrderKey:
            self.fail(now)
            return DropReason.LOW_ORDER_KEY
        except RandomnessError:
            self.fail(now)
            return DropReason.NO_RANDOMNESS
        return Verdict.ACCEPTED

    def _change(self, private: bytearray, peer_public: bytes, told: bytes | None, now: int) -> None:
        """``told`` is the public key that the peer has to hear of first, under the old keys."""
        session = self.session
        dialect = session.settings.dialect
        first_seq = dialect.initial_seq(session.role, crypto.draw(session.core.rng, 8))
        shared = bytearray(crypto.exchange(private, peer_public))
        keys = Keys(shared, epoch=session.keys.epoch + 1, dialect=dialect)
        shared[:] = bytes(len(shared))
        keys.halves = private, peer_public
        if told is not None and session.transmit(Type.REKEY, now, told) is None:
            keys.erase()
            return
        if isinstance(session, OneWaySession):
            session.begin_epoch(first_seq)
        self._switch(keys, now)
        self._follow()


class _Unset(ReplayWindow):
    """The window of an epoch in which nothing was received yet: the first packet sets it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.received = 0

    def fresh(self, seq: int) -> bool:
        return self.received == 0 or super().fresh(seq)

    def commit(self, seq: int) -> None:
        if self.received == 0:
            self.highest, self.received = seq, 1
        else:
            super().commit(seq)


class OneWaySession(Session):
    """A session with a replay window for each epoch."""

    rekeying_type: ClassVar[type[Rekeying]] = OneWayRekeying

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._present = self.window
        self._past = self.window

    def begin_epoch(self, first_seq: int) -> None:
        """New keys: this side's seqs begin at ``first_seq``, the peer's anywhere."""
        self._past, self._present = self._present, _Unset()
        self.window = self._present
        self.first_seq = self.next_seq = first_seq

    def _keys_of(self, header: Header, packet: bytes) -> Keys | None:
        keys = super()._keys_of(header, packet)
        self.window = self._present if keys is self.keys or keys is None else self._past
        return keys
