# SPDX-License-Identifier: GPL-2.0-or-later
"""Key replacement of a session in the user's hands (section 13)."""

from __future__ import annotations

from collections.abc import Callable

from poolref import crypto
from poolref.constants import KEY_SIZE
from poolref.keys import Keys
from poolref.rekey import ACCEPT, PROPOSE, own_wins

from .payloads import PoolRekey


class Rekey:
    """Makes proposals and accepts the peer's; each returns what follows, None where there is nothing to do.

    LowOrderKey for a public key that gives no secret, ValueError when both sides propose the same one.
    """

    def __init__(self, rng: Callable[[int], bytes]) -> None:
        self._rng = rng
        self._private: bytes | None = None
        self._public = b""
        self._taken = b""

    def propose(self, keys: Keys) -> PoolRekey:
        """This side's proposal for the epoch after ``keys``."""
        self._private = crypto.draw(self._rng, KEY_SIZE)
        self._public = crypto.public_key(self._private)
        return PoolRekey(epoch=keys.epoch + 1, stage=PROPOSE, pubkey=self._public)

    def accept(self, keys: Keys, proposal: PoolRekey) -> tuple[PoolRekey, Keys] | None:
        """The answer to the peer's proposal, to be sent under ``keys``, and the keys after it."""
        if proposal.epoch != keys.epoch + 1 or proposal.pubkey == self._taken:
            return None
        if self._private is not None and own_wins(self._public, proposal.pubkey):
            return None  # RK-03: it accepts ours
        private = crypto.draw(self._rng, KEY_SIZE)
        following = keys.successor(private, proposal.pubkey)
        self._private, self._taken = None, proposal.pubkey
        answer = PoolRekey(epoch=following.epoch, stage=ACCEPT, pubkey=crypto.public_key(private))
        return answer, following

    def complete(self, keys: Keys, answer: PoolRekey) -> Keys | None:
        """The keys after the peer's answer to this side's proposal."""
        if self._private is None or answer.epoch != keys.epoch + 1:
            return None
        private, self._private = self._private, None
        return keys.successor(private, answer.pubkey)
