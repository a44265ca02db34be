# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal over a session: this node's to a peer that asks, the peer's as a copy that is held against what
the peer says later (JRN-03).
"""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Final

from . import constants as c
from .config import Reference
from .config_session import may_administer
from .constants import Flag, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError, LocalError
from .events import JournalReceived
from .journal import ChangeType, Entry, Ring, Sync
from .part import NEVER, Part
from .wire import Header, struct_of

if TYPE_CHECKING:
    from .session import Session

_SYNC: Final = int(Flag.JOURNAL_SYNC)
_REQUIRE_ACK: Final = int(Flag.REQUIRE_ACK)
_BURST: Final = 16
"""Packets sent in a row before the transport is asked whether it takes more."""
_RETRY: Final = 20 * c.MILLISECOND
"""When to ask again once it did not."""
_HASH: Final = re.compile(b"[0-9a-f]{64}")
_SYNC_HEADER: Final = struct_of("journal_sync").size


class Contradiction(Exception):
    """What the peer says about its journal cannot be true."""


class Replica:
    """A copy of a peer's journal: entries that were verified, and all that later packets are held against."""

    def __init__(self) -> None:
        self.ring: Ring | None = None
        """The entries received; None before the first packet."""
        self._anew = False

    def asked(self) -> None:
        """A request went out: its answer starts at the peer's oldest entry, wherever that is by now."""
        self._anew = True

    @property
    def next_index(self) -> int:
        """The index of the entry that has not come yet."""
        return 0 if self.ring is None else self.ring.next_index

    def behind(self, sync: Sync) -> bool:
        """Whether the peer says that it overwrote entries before they could be sent."""
        return not self._anew and not sync.entries and sync.first_index > self.next_index

    def take(self, sync: Sync) -> tuple[Entry, ...]:
        """Add what is new, and return it.  Contradiction, with nothing added, when the chain is broken, when
        an entry or hash differs from the one received before, or when entries are left out (E-77).
        """
        if not sync.holds:
            raise Contradiction("the chain is broken")
        ring = self.ring
        if ring is None or (self._anew and sync.first_index > ring.next_index):
            ring = self.ring = Ring(sync.first_index, sync.previous_hash)
            self._anew = False
        self._compare(ring, sync)
        fresh = sync.entries[max(0, ring.next_index - sync.first_index) :]
        for entry in fresh:
            ring.push(entry)
        return fresh

    def knows(self, head: bytes) -> bool:
        """Whether ``head`` is the change_hash of an entry in the copy, or the hash before the oldest."""
        ring = self.ring
        return ring is not None and (
            head == ring.previous_hash or any(head == entry.change_hash for entry in ring.entries())
        )

    @staticmethod
    def _compare(ring: Ring, sync: Sync) -> None:
        if sync.first_index > ring.next_index:
            raise Contradiction(f"entries {ring.next_index} to {sync.first_index - 1} are left out")
        if sync.first_index >= ring.first_index and sync.previous_hash != ring.hash_before(sync.first_index):
            raise Contradiction(f"the hash before entry {sync.first_index} is another one")
        for index in range(max(sync.first_index, ring.first_index), min(sync.next_index, ring.next_index)):
            if sync.entries[index - sync.first_index] != ring.entry(index):
                raise Contradiction(f"entry {index} is another one")


class Replication(Part):
    """Answers requests and pushes what is new; asks, verifies and keeps what the peer sends."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.replica = Replica()
        """The peer's journal; stays readable after the end of the session."""
        self._asked = False
        self._broken = False
        self._cursor: int | None = None
        """The index of the next entry to send; None while the peer wants none."""
        self._answering = False

    # -- the peer's journal ----------------------------------------------------------------------------

    def request(self, now: int) -> None:
        """Ask for the peer's journal from its oldest entry on, and for every new entry after that; tells with
        JournalReceived.  ENOTCONN once the session ended.
        """
        if self.session.end is not None:
            raise LocalError(errno.ENOTCONN, "the session has ended")
        self._asked = True
        self._broken = False
        self.replica.asked()
        self.session.transmit(Type.JOURNAL, now, flags=_SYNC | _REQUIRE_ACK)

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """A request, or entries."""
        if not header.flags & _SYNC:
            return DropReason.MALFORMED
        if plaintext:
            return self._receive_entries(plaintext, now)
        if not header.flags & _REQUIRE_ACK:
            return DropReason.MALFORMED
        if not may_administer(self.session):
            return DropReason.NOT_PERMITTED
        self._answering = True
        self._cursor = 0
        self.session.core.journal.watch(self._appended)
        self._push(now)
        return Verdict.ACCEPTED

    def _receive_entries(self, plaintext: bytes, now: int) -> Outcome:
        try:
            sync = Sync.unpack(plaintext)
        except DecodeError:
            return DropReason.MALFORMED
        if not self._asked:
            return DropReason.UNSOLICITED
        if self._broken:
            return DropReason.JOURNAL_BROKEN  # one alert for each request, or the peer could fill the journal
        if self.replica.behind(sync):
            self.request(now)
            return Verdict.ACCEPTED
        missing = max(0, sync.first_index - self.replica.next_index)
        try:
            fresh = self.replica.take(sync)
        except Contradiction as contradiction:
            self._broken = True
            self.session.alert(now, f"journal: {contradiction}")
            return DropReason.JOURNAL_BROKEN
        if fresh or missing:
            self._learn(fresh)
            self.session.emit(JournalReceived(sync.next_index - len(fresh), len(fresh), missing))
        return Verdict.ACCEPTED

    def _learn(self, entries: tuple[Entry, ...]) -> None:
        """E-46: what the peer's configuration is, by its latest CONFIG entry."""
        for entry in reversed(entries):
            if entry.change_type == ChangeType.CONFIG:
                digits = _HASH.match(entry.detail)
                if digits is not None:
                    config_hash = bytes.fromhex(digits[0].decode())
                    self.session.configuring.learn(Reference(entry.config_after, config_hash))
                return

    # -- this node's journal ---------------------------------------------------------------------------

    def handle_timer(self, now: int) -> None:
        self._push(now)

    def acknowledged(self, header: Header, now: int) -> None:
        """What was in the way may be gone."""
        if self.due != NEVER:
            self.due = now

    def end(self, now: int) -> None:
        super().end(now)
        self._stop()

    def _appended(self) -> None:
        """A new entry, written by whichever session: sent as soon as the timer is looked at."""
        self.due = 0
        self.session.core.stir(self.session)

    def _stop(self) -> None:
        self._cursor = None
        self.session.core.journal.unwatch(self._appended)

    def _push(self, now: int) -> None:
        session, journal = self.session, self.session.core.journal
        self.due = NEVER
        for _ in range(_BURST):
            if self._cursor is None or (self._cursor == journal.next_index and not self._answering):
                return
            if session.congested or not session.flowing:
                self.due = now + _RETRY
                return
            if self._answering:
                self._cursor, self._answering = journal.first_index, False
            if self._cursor < journal.first_index:
                # Overwritten before they could be sent.  The peer has to ask again: whoever may leave entries
                # out can hide any.
                self._stop()
                sync = Sync(journal.first_index, journal.previous_hash, ())
            else:
                sync = self._from(self._cursor)
                self._cursor = sync.next_index
            session.transmit(Type.JOURNAL, now, sync.pack(), flags=_SYNC)
        self.due = now

    def _from(self, first: int) -> Sync:
        """The entries from ``first`` on, as many as a packet holds."""
        journal = self.session.core.journal
        room = self.session.mtu - c.DATA_OVERHEAD - _SYNC_HEADER
        entries: list[Entry] = []
        while first + len(entries) < journal.next_index:
            entry = journal.entry(first + len(entries))
            room -= entry.size
            if room < 0:
                break
            entries.append(entry)
        return Sync(first, journal.hash_before(first), tuple(entries))
