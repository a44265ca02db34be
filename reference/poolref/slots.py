# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of 64 session slots of a node (HS-10)."""

from __future__ import annotations

from .constants import MAX_SESSIONS


class Slots:
    """Indexes are given out round-robin, so that a stale one is not at once another session's."""

    __slots__ = ("_last", "_taken")

    def __init__(self) -> None:
        self._taken = [False] * MAX_SESSIONS
        self._last = MAX_SESSIONS - 1

    @property
    def free(self) -> int:
        """How many are left."""
        return self._taken.count(False)

    def take(self) -> int | None:
        """Reserve the next free index; None when all are taken."""
        for step in range(1, MAX_SESSIONS + 1):
            index = (self._last + step) % MAX_SESSIONS
            if not self._taken[index]:
                self._taken[index] = True
                self._last = index
                return index
        return None

    def release(self, index: int) -> None:
        """Give an index back."""
        self._taken[index] = False
