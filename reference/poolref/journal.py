# SPDX-License-Identifier: GPL-2.0-or-later
"""The node's journal: a ring of entries, each of which hashes the one before it (section 17)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from . import constants as c
from .constants import ErrorCode
from .counters import Counters, DropReason
from .errors import DecodeError
from .wire import Buffer, offset_of, struct_of

ZERO_HASH: Final = bytes(32)

_ENTRY: Final = struct_of("journal_entry")
_SYNC: Final = struct_of("journal_sync")
_HASHED_BEFORE: Final = offset_of("journal_entry", "change_hash")
_HASHED_AFTER: Final = offset_of("journal_entry", "change_type")
_U64: Final = (1 << 64) - 1


class ChangeType(IntEnum):
    """What an entry is about.  DATA is reserved: it is never written here (E-55)."""

    CONNECT = 1
    DISCONNECT = 2
    CONFIG = 3
    REKEY = 4
    ERROR = 5
    DATA = 6
    INTEGRITY = 7


ERROR_OF: Final[dict[DropReason, ErrorCode]] = {
    DropReason.AUTH_FAIL: ErrorCode.AUTH_FAIL,
    DropReason.BAD_PROOF: ErrorCode.AUTH_FAIL,
    DropReason.BAD_PUZZLE: ErrorCode.AUTH_FAIL,
    DropReason.BAD_SESSION_ID: ErrorCode.AUTH_FAIL,
    DropReason.STALE_RESPONSE: ErrorCode.AUTH_FAIL,
    DropReason.LOW_ORDER_KEY: ErrorCode.AUTH_FAIL,
    DropReason.DECRYPT_FAIL: ErrorCode.DECRYPT_FAIL,
    DropReason.REFLECTED: ErrorCode.SEQ_INVALID,
    DropReason.REPLAY: ErrorCode.SEQ_INVALID,
    DropReason.FRAG_TIMEOUT: ErrorCode.FRAG_TIMEOUT,
    DropReason.FRAG_EVICTED: ErrorCode.FRAG_TIMEOUT,
    DropReason.NO_SLOT: ErrorCode.OVERLOAD,
    DropReason.OVERLOAD: ErrorCode.OVERLOAD,
    DropReason.VERSION_MISMATCH: ErrorCode.VERSION_MISMATCH,
}
"""The error category that a discard belongs to (ERR-01, E-76); the others are counted only."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.  ``timestamp`` is UNIX ns; ``change_type`` a plain int: a peer may write what this side does
    not know.
    """

    timestamp: int
    config_before: int
    config_after: int
    change_hash: bytes
    change_type: int
    detail: bytes

    @classmethod
    def after(
        cls, previous: bytes, timestamp: int, before: int, after: int, change_type: int, detail: bytes
    ) -> Entry:
        """The entry that follows the change_hash ``previous`` (JRN-01)."""
        unsigned = cls(timestamp, before, after, ZERO_HASH, change_type, detail)
        return cls(timestamp, before, after, unsigned.hash_after(previous), change_type, detail)

    @property
    def text(self) -> str:
        """The detail as text."""
        return self.detail.decode(errors="replace")

    def pack(self) -> bytes:
        """52 bytes and the detail; struct.error when a value does not fit its field."""
        return (
            _ENTRY.pack(
                self.timestamp, self.config_before, self.config_after, self.change_hash, self.change_type,
                len(self.detail),
            )
            + self.detail
        )  # fmt: skip

    @classmethod
    def unpack_from(cls, data: Buffer, offset: int = 0) -> Entry:
        """Read the entry at ``offset``; DecodeError when it is cut off or its detail exceeds 256 bytes."""
        if len(data) - offset < _ENTRY.size:
            raise DecodeError(len(data), "journal_entry", "truncated")
        timestamp, before, after, change_hash, change_type, size = _ENTRY.unpack_from(data, offset)
        start = offset + _ENTRY.size
        if size > c.JOURNAL_DETAIL or len(data) - start < size:
            raise DecodeError(start, "detail", f"{size} bytes")
        detail = bytes(data[start : start + size])
        return cls(timestamp, before, after, change_hash, change_type, detail)

    @property
    def size(self) -> int:
        """Bytes of :meth:`pack`."""
        return _ENTRY.size + len(self.detail)

    def hash_after(self, previous: bytes) -> bytes:
        """JRN-01: what the change_hash must be after the hash ``previous``."""
        packed = self.pack()
        return hashlib.sha256(previous + packed[:_HASHED_BEFORE] + packed[_HASHED_AFTER:]).digest()


def first_break(previous: bytes, entries: Iterable[Entry]) -> int | None:
    """The position of the first entry whose change_hash does not follow, None when the chain holds."""
    for position, entry in enumerate(entries):
        if entry.hash_after(previous) != entry.change_hash:
            return position
        previous = entry.change_hash
    return None


@dataclass(frozen=True, slots=True)
class Sync:
    """The plaintext of a JOURNAL packet that carries entries (JRN-03); ``previous_hash`` is the change_hash
    before the entry ``first_index``.
    """

    first_index: int
    previous_hash: bytes
    entries: tuple[Entry, ...]

    def pack(self) -> bytes:
        """42 bytes and the entries."""
        head = _SYNC.pack(self.first_index, self.previous_hash, len(self.entries))
        return head + b"".join(entry.pack() for entry in self.entries)

    @classmethod
    def unpack(cls, plaintext: Buffer) -> Sync:
        """DecodeError unless it holds exactly ``count`` entries whose indexes fit 64 bits."""
        if len(plaintext) < _SYNC.size:
            raise DecodeError(len(plaintext), "journal_sync", "truncated")
        first, previous, count = _SYNC.unpack_from(plaintext)
        if first + count > _U64:
            raise DecodeError(0, "first_index", f"{first} and {count} entries")
        offset = _SYNC.size
        entries = []
        for _ in range(count):
            entry = Entry.unpack_from(plaintext, offset)
            offset += entry.size
            entries.append(entry)
        if offset != len(plaintext):
            raise DecodeError(offset, "count", f"{len(plaintext) - offset} bytes after {count} entries")
        return cls(first, previous, tuple(entries))

    @property
    def next_index(self) -> int:
        """The index after the last entry."""
        return self.first_index + len(self.entries)

    @property
    def holds(self) -> bool:
        """Whether the chain holds inside the packet, from 32 zero bytes if it starts at index 0."""
        if self.first_index == 0 and self.previous_hash != ZERO_HASH:
            return False
        return first_break(self.previous_hash, self.entries) is None


class Ring:
    """The latest 1024 entries of a journal and the hash before the oldest of them (JRN-02); indexes count
    from the journal's first entry, 0.
    """

    def __init__(self, first_index: int = 0, previous_hash: bytes = ZERO_HASH) -> None:
        self.first_index = first_index
        self.previous_hash = previous_hash
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def next_index(self) -> int:
        """The index that the next entry gets."""
        return self.first_index + len(self._entries)

    @property
    def head(self) -> bytes:
        """The change_hash of the latest entry."""
        return self._entries[-1].change_hash if self._entries else self.previous_hash

    def entries(self) -> tuple[Entry, ...]:
        """The kept entries, oldest first; the first has the index :attr:`first_index`."""
        return tuple(self._entries)

    def entry(self, index: int) -> Entry:
        """The entry with this index; IndexError when it is not kept."""
        if not self.first_index <= index < self.next_index:
            raise IndexError(f"entry {index} is not within {self.first_index}..{self.next_index - 1}")
        return self._entries[index - self.first_index]

    def hash_before(self, index: int) -> bytes:
        """The change_hash before the entry ``index``, which may be the next one; IndexError outside."""
        return self.previous_hash if index == self.first_index else self.entry(index - 1).change_hash

    def verify(self) -> int | None:
        """The index of the first kept entry that does not follow from the one before it, None when the chain
        holds.
        """
        position = first_break(self.previous_hash, self._entries)
        return None if position is None else self.first_index + position

    def push(self, entry: Entry) -> bool:
        """Keep an entry; whether it overwrote the oldest one."""
        self._entries.append(entry)
        if len(self._entries) <= c.JOURNAL_RING:
            return False
        self.previous_hash = self._entries.popleft().change_hash
        self.first_index += 1
        return True


@dataclass(slots=True)
class _Category:
    """When the latest entries of one error category were written (ns), and how many were not since."""

    written: deque[int] = field(default_factory=lambda: deque(maxlen=c.ERRORS_PER_SECOND))
    suppressed: int = 0


class Journal(Ring):
    """The node's own."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters = counters
        self._categories: dict[int, _Category] = {}
        self._watchers: list[Callable[[], None]] = []

    def append(self, change_type: ChangeType, detail: str, wall: int, before: int, after: int) -> Entry:
        """Write an entry: ``wall`` in UNIX ns, the configuration's version ``before`` and ``after`` it, and
        who and why in ``detail``, which is cut to 256 bytes.  Overwriting counts ``journal_full`` (JRN-02).
        """
        entry = Entry.after(self.head, wall & _U64, before, after, change_type, clipped(detail))
        if self.push(entry):
            self._counters.count(DropReason.JOURNAL_FULL)
        for watcher in tuple(self._watchers):
            watcher()
        return entry

    def error(self, code: int, detail: str, now: int, wall: int, version: int) -> Entry | None:
        """Write an ERROR entry ``0xNN detail`` (E-54), unless 10 of its category were within the last second
        of ``now`` (ERR-01): these count ``errors_not_journalled``, and the category's next entry tells how
        many they were.
        """
        category = self._categories.setdefault(code, _Category())
        written = category.written
        if len(written) == c.ERRORS_PER_SECOND and now - written[0] < c.SECOND:
            category.suppressed += 1
            self._counters.count("errors_not_journalled")
            return None
        written.append(now)
        note = f" (and {category.suppressed} more before)" if category.suppressed else ""
        category.suppressed = 0
        text = clipped(f"{code:#04x} {detail}", c.JOURNAL_DETAIL - len(note)).decode()
        return self.append(ChangeType.ERROR, text + note, wall, version, version)

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` after each new entry; once, however often it is given."""
        if watcher not in self._watchers:
            self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], None]) -> None:
        """Stop calling ``watcher``; nothing when it is not called."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)


def clipped(text: str, limit: int = c.JOURNAL_DETAIL) -> bytes:
    """UTF-8 of ``text``, cut to at most ``limit`` bytes between two characters."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data
    while limit and data[limit] & 0xC0 == 0x80:
        limit -= 1
    return data[:limit]
