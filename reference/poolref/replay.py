# SPDX-License-Identifier: GPL-2.0-or-later
"""The 64-packet replay window (SEQ-02) with the loss account that falls out of it (SEQ-04)."""

from __future__ import annotations

from typing import Final

from .constants import REPLAY_WINDOW

_FULL: Final = (1 << REPLAY_WINDOW) - 1


class ReplayWindow:
    """Bit ``n`` of the bitmap stands for ``highest - n``.

    Starts with the peer's initial seq, which its handshake packet consumed; whatever lies below was never
    sent, so it counts as seen.
    """

    __slots__ = ("_bitmap", "highest", "lost", "received")

    def __init__(self, initial: int) -> None:
        self.highest = initial
        self.received = 1
        self.lost = 0
        self._bitmap = _FULL

    def fresh(self, seq: int) -> bool:
        """Whether ``seq`` may still be accepted; changes nothing."""
        behind = self.highest - seq
        if behind < 0:
            return True
        return behind < REPLAY_WINDOW and not (self._bitmap >> behind) & 1

    def commit(self, seq: int) -> None:
        """Record ``seq``, for which :meth:`fresh` holds, as received."""
        ahead = seq - self.highest
        self.received += 1
        if ahead > 0:
            self.lost += ahead - 1
            self._bitmap = ((self._bitmap << ahead) | 1) & _FULL if ahead < REPLAY_WINDOW else 1
            self.highest = seq
        else:
            self.lost -= 1
            self._bitmap |= 1 << -ahead

    @property
    def loss_ppm(self) -> int:
        """Packets lost per million expected."""
        return self.lost * 1_000_000 // (self.received + self.lost)
