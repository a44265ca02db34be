# SPDX-License-Identifier: GPL-2.0-or-later
"""The client puzzle (HS-03): a solution whose SHA-256 with the seed begins with enough zero bits."""

from __future__ import annotations

import hashlib
from typing import Final, Literal

from .wire import Buffer

SOLUTION_SIZE: Final = 32
_COUNTER_SIZE: Final = 8
START_SIZE: Final = SOLUTION_SIZE - _COUNTER_SIZE
_DIGEST_BITS: Final = 256


def leading_zero_bits(digest: Buffer) -> int:
    """Zero bits before the first one, counted from the most significant bit of byte 0."""
    return len(digest) * 8 - int.from_bytes(digest, "big").bit_length()


def solves(seed: Buffer, solution: Buffer, difficulty: int) -> bool:
    """Whether ``solution`` (32 bytes) answers ``seed`` (32 bytes) at ``difficulty`` bits."""
    return leading_zero_bits(hashlib.sha256(bytes(seed) + bytes(solution)).digest()) >= difficulty


class Search:
    """A search that can be interrupted: call :meth:`step` until it returns a solution.

    ``start`` (24 bytes) makes the searched range one's own; a counter in the last 8 bytes does the rest.
    ``counter_first``: an 8-byte little-endian counter and 24 zero bytes instead, whatever ``start`` says.
    """

    __slots__ = ("_end", "_next", "_order", "_prefix", "_start", "_target")

    def __init__(self, seed: bytes, difficulty: int, start: bytes, *, counter_first: bool = False) -> None:
        if len(start) != START_SIZE:
            raise ValueError(f"start has {len(start)} bytes instead of {START_SIZE}")
        self._order: Literal["big", "little"] = "little" if counter_first else "big"
        self._start, self._end = (b"", bytes(START_SIZE)) if counter_first else (start, b"")
        self._prefix = hashlib.sha256(seed + self._start)
        self._next = 0
        # The smallest digest that does not solve; compared as bytes, which is what makes a step cheap.
        self._target = ((1 << (_DIGEST_BITS - difficulty)) - 1).to_bytes(_DIGEST_BITS // 8, "big")

    @property
    def tried(self) -> int:
        """Hashes computed so far."""
        return self._next

    def step(self, hashes: int) -> bytes | None:
        """Try ``hashes`` more candidates; the solution (32 bytes) or None."""
        copy, target, first = self._prefix.copy, self._target, self._next
        order, end = self._order, self._end
        for counter in range(first, first + hashes):
            candidate = copy()
            suffix = counter.to_bytes(_COUNTER_SIZE, order) + end
            candidate.update(suffix)
            if candidate.digest() <= target:
                self._next = counter + 1
                return self._start + suffix
        self._next = first + hashes
        return None
