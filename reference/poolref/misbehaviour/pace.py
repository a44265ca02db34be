# SPDX-License-Identifier: GPL-2.0-or-later
"""A stream slowed down to single bytes."""

from __future__ import annotations


class Pacer:
    """Lets one byte through for each ``interval`` ns."""

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._waiting = bytearray()
        self._ready = True
        self._due = 0

    def __len__(self) -> int:
        """Bytes that wait."""
        return len(self._waiting)

    def take(self, data: bytes) -> bytes:
        """What may leave now of what waits, ``data`` included."""
        self._waiting += data
        if not self._waiting or not self._ready:
            return b""
        self._ready = False
        return bytes([self._waiting.pop(0)])

    def next_timer(self) -> int | None:
        """When :meth:`handle_timer` is due (ns), or None."""
        return None if self._ready else self._due

    def handle_timer(self, now: int) -> None:
        """Let the next byte through once its time has come."""
        if now >= self._due:
            self._ready = True
            self._due = now + self._interval
