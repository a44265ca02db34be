# SPDX-License-Identifier: GPL-2.0-or-later
"""Splitting messages into fragments and putting them together again (FRAG-01 .. FRAG-05)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .constants import REASSEMBLY_LIMIT, REASSEMBLY_TIMEOUT, Flag
from .counters import DropReason, Verdict
from .inbox import Message
from .wire import FragmentHeader

_FRAGMENT: Final = int(Flag.FRAGMENT)
_LAST: Final = int(Flag.LAST_FRAG)
_REMEMBERED: Final = 64


def split(data: bytes, msg_id: int, size: int) -> Iterator[tuple[bytes, int]]:
    """The plaintexts of the fragments of a message and their flags, ``size`` bytes of it in each."""
    total = len(data)
    for offset in range(0, total, size):
        flags = _FRAGMENT | (_LAST if offset + size >= total else 0)
        yield FragmentHeader(msg_id, offset, total).pack() + data[offset : offset + size], flags


class _Partial:
    """One message in reassembly; ``spans`` are the covered [start, end) ranges, disjoint and ascending."""

    __slots__ = ("buffer", "channel", "deadline", "spans")

    def __init__(self, channel: int, total: int) -> None:
        self.channel = channel
        self.buffer = bytearray(total)
        self.spans: list[tuple[int, int]] = []
        self.deadline = 0

    def place(self, start: int, chunk: bytes) -> bool | None:
        """Put a chunk in; whether it covers bytes not covered before, None when it contradicts (FRAG-03)."""
        end = start + len(chunk)
        before, after = [], []
        low, high = start, end
        covered = 0
        for span_start, span_end in self.spans:
            if span_end < start:
                before.append((span_start, span_end))
            elif span_start > end:
                after.append((span_start, span_end))
            else:
                overlap_start, overlap_end = max(start, span_start), min(end, span_end)
                if (
                    self.buffer[overlap_start:overlap_end]
                    != chunk[overlap_start - start : overlap_end - start]
                ):
                    return None
                covered += overlap_end - overlap_start
                low, high = min(low, span_start), max(high, span_end)
        self.buffer[start:end] = chunk
        self.spans = [*before, (low, high), *after]
        return covered < len(chunk)

    @property
    def complete(self) -> bool:
        return self.spans == [(0, len(self.buffer))]


class Reassembly:
    """The messages of one session that are still incomplete, at most 16 (FRAG-04).

    The last 64 messages that were completed or discarded are remembered by id: late duplicates of a
    completed one change nothing, further fragments of a discarded one are discarded with it.
    """

    __slots__ = ("_finished", "_partials", "_timeout", "evicted")

    def __init__(self, timeout: int = REASSEMBLY_TIMEOUT) -> None:
        """``timeout``: how long (ns) a message waits for another fragment."""
        self._timeout = timeout
        self._partials: dict[int, _Partial] = {}  # the least recently touched first
        self._finished: dict[int, bool] = {}  # whether it was completed
        self.evicted = 0
        """Messages that had to make room for newer ones."""

    def __len__(self) -> int:
        return len(self._partials)

    def add(
        self, header: FragmentHeader, chunk: bytes, channel: int, last: bool, now: int
    ) -> Message | Verdict | DropReason:
        """Take a fragment: the message it completes, ACCEPTED, or MALFORMED with the whole message gone."""
        msg_id = header.msg_id
        finished = self._finished.get(msg_id)
        if finished is not None:
            return Verdict.ACCEPTED if finished else DropReason.MALFORMED
        end = header.offset + len(chunk)
        partial = self._partials.pop(msg_id, None)
        if (
            not chunk
            or end > header.total_len
            or last != (end == header.total_len)
            or (partial is not None and (partial.channel, len(partial.buffer)) != (channel, header.total_len))
        ):
            self._finish(msg_id, completed=False)
            return DropReason.MALFORMED
        if partial is None:
            partial = _Partial(channel, header.total_len)
            if len(self._partials) >= REASSEMBLY_LIMIT:
                del self._partials[next(iter(self._partials))]
                self.evicted += 1
        placed = partial.place(header.offset, chunk)
        if placed is None:
            self._finish(msg_id, completed=False)
            return DropReason.MALFORMED
        if partial.complete:
            self._finish(msg_id, completed=True)
            return Message(channel, bytes(partial.buffer))
        if placed:
            partial.deadline = now + self._timeout
        self._partials[msg_id] = partial
        return Verdict.ACCEPTED

    def next_timer(self) -> int | None:
        """When :meth:`expire` has something to do."""
        return min((partial.deadline for partial in self._partials.values()), default=None)

    def expire(self, now: int) -> int:
        """Free messages that waited too long for another fragment; how many."""
        expired = [msg_id for msg_id, partial in self._partials.items() if now >= partial.deadline]
        for msg_id in expired:
            del self._partials[msg_id]
        return len(expired)

    def postpone(self, duration: int) -> None:
        """Move every deadline by ``duration`` ns, during which nothing was read."""
        for partial in self._partials.values():
            partial.deadline += duration

    def clear(self) -> None:
        """Forget everything."""
        self._partials.clear()
        self._finished.clear()

    def _finish(self, msg_id: int, *, completed: bool) -> None:
        self._finished[msg_id] = completed
        if len(self._finished) > _REMEMBERED:
            del self._finished[next(iter(self._finished))]
