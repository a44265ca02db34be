# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes as people write them, and one line on a terminal that follows a transfer."""

from __future__ import annotations

import argparse
import time
from typing import Final, TextIO

from poolref.tools.transfer import MAX_SIZE

_UNITS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_REDRAW_S: Final = 0.1
_BAR: Final = 24


def byte_count(text: str) -> int:
    """An argparse type: 500M, 64Ki, 1G or plain bytes."""
    digits = text.rstrip("kKMGi")
    unit = text[len(digits) :]
    try:
        size = int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise argparse.ArgumentTypeError(f"not a size: {text!r} (write 500M, 64Ki, 1G)") from None
    if not 0 < size <= MAX_SIZE:
        raise argparse.ArgumentTypeError(f"a size must be 1..{MAX_SIZE} bytes")
    return size


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


class ProgressLine:
    """One line on a terminal, rewritten ten times a second; nothing anywhere else."""

    def __init__(self, size: int, stream: TextIO, *, begin: int = 0) -> None:
        self._size = size
        self._stream = stream
        self._shown = stream.isatty()
        self._begin: int | None = None
        self._start = self._next = 0.0
        self._drawn = False

    def __call__(self, offset: int) -> None:
        if not self._shown:
            return
        now = time.monotonic()
        if self._begin is None:
            self._begin, self._start = offset, now
        if now < self._next and offset < self._size:
            return
        self._next = now + _REDRAW_S
        self._drawn = True
        self._stream.write("\r" + self._line(offset, now) + "\x1b[K")
        self._stream.flush()

    def _line(self, offset: int, now: float) -> str:
        done = offset / self._size
        bar = "#" * int(done * _BAR)
        rate = (offset - (self._begin or 0)) / max(now - self._start, 1e-9)
        left = f"{(self._size - offset) / rate:.0f} s left" if rate and offset < self._size else ""
        return (
            f"[{bar:<{_BAR}}] {done:4.0%}  {megabytes(offset)} of {megabytes(self._size)}"
            f"  {megabytes(rate)}/s  {left}"
        )

    def end(self) -> None:
        """Leave the line."""
        if self._drawn:
            self._stream.write("\n")
            self._drawn = False
