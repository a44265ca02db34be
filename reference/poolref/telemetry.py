# SPDX-License-Identifier: GPL-2.0-or-later
"""Round-trip estimation from heartbeats and their ACKs (HB-01)."""

from __future__ import annotations

from collections import deque


class RoundTrip:
    """Smoothed round-trip time and jitter in ns; both 0 before the first sample."""

    __slots__ = ("_outstanding", "jitter", "srtt")

    def __init__(self) -> None:
        self.srtt = 0
        self.jitter = 0
        self._outstanding: deque[tuple[int, int]] = deque()

    def sent(self, seq: int, now: int) -> None:
        """A heartbeat with this seq left at ``now``."""
        self._outstanding.append((seq, now))

    def acknowledged(self, ack: int, now: int) -> None:
        """An ACK arrived that covers everything up to ``ack``; the newest heartbeat it covers gives the
        sample.
        """
        newest = None
        while self._outstanding and self._outstanding[0][0] <= ack:
            newest = self._outstanding.popleft()
        if newest is None:
            return
        sample = now - newest[1]
        if not self.srtt:
            self.srtt = sample
            return
        self.jitter += (abs(sample - self.srtt) - self.jitter) // 8
        self.srtt += (sample - self.srtt) // 8
