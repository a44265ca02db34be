# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast announces: what a listening node says of itself, and what it hears of others (section 18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from . import constants as c
from .address import acceptable
from .core import NodeCore, Peer
from .counters import DropReason, Outcome, Verdict
from .crypto import draw
from .errors import DecodeError
from .part import NEVER
from .peers import NO_KEY, Source, plausible
from .wire import Buffer, offset_of, sized, struct_of

_ANNOUNCE: Final = struct_of("announce")
_U32: Final = (1 << 32) - 1
_NO_CODE: Final = 0x00
"""Of an ERROR entry about what no code of section 15 names (E-82)."""


@dataclass(frozen=True, slots=True)
class Announce:
    """The datagram of 76 bytes (DISC-01)."""

    pubkey: bytes
    address: bytes
    port: int
    version: int = c.VERSION
    flags: int = 0
    sessions: int = 0
    uptime_s: int = 0

    def pack(self) -> bytes:
        """The 76 bytes; ``sessions`` and ``uptime_s`` saturate (HB-03)."""
        return _ANNOUNCE.pack(
            self.pubkey, self.address, self.port, self.version, self.flags, min(self.sessions, _U32),
            min(self.uptime_s, _U32),
        )  # fmt: skip

    @classmethod
    def unpack(cls, datagram: Buffer) -> Announce:
        """DecodeError unless it has 76 bytes, and no address or one whose checksum holds (E-56)."""
        sized(datagram, _ANNOUNCE.size, "announce")
        announce = cls(*_ANNOUNCE.unpack(datagram))
        if not acceptable(announce.address):
            raise DecodeError(offset_of("announce", "address"), "address", "wrong checksum")
        return announce


class RateLimit:
    """One event per source and 100 ms; at most 1024 sources at a time (E-80)."""

    def __init__(self) -> None:
        self._accepted: dict[bytes, int] = {}  # the oldest first

    def admits(self, source: bytes, now: int) -> bool:
        """Whether an event of ``source`` is let through; if so it counts."""
        accepted = self._accepted
        while accepted and now - next(iter(accepted.values())) >= c.ANNOUNCE_SPACING:
            del accepted[next(iter(accepted))]
        if source in accepted or len(accepted) >= c.ANNOUNCE_SOURCES:
            return False
        accepted[source] = now
        return True


class Announcer:
    """Announces this node every 30 s while it listens, and enters what others announce into the node's table.

    The network calls :meth:`receive`, the timer :meth:`handle_timer` when :meth:`next_timer` says so; after
    either take :attr:`datagrams_to_send`.  A socket that failed is opened anew with growing pauses (S08): the
    owner opens one while :attr:`wants_socket` and reports with :meth:`opened` and :meth:`failed`.
    """

    def __init__(self, core: NodeCore, now: int) -> None:
        """A node without a key in ``core.peers.own_key`` draws 32 random bytes instead (E-82):
        RandomnessError.
        """
        if core.peers.own_key == NO_KEY:
            core.peers.own_key = draw(core.rng, c.KEY_SIZE)
        self.port: int | None = None
        self.wants_socket = True
        """Whether a socket is to be opened now."""
        self._core = core
        self._started = now
        self._announce_due = NEVER
        self._retry_due = NEVER
        self._pause = 0
        self._open_since: int | None = None
        self._out: list[bytes] = []
        self._limit = RateLimit()

    def listening(self, port: int | None, now: int) -> None:
        """The node listens on ``port`` from now on, None: no more.  The first announce goes out at once."""
        self.port = port
        self._announce_due = NEVER if port is None else now

    # -- the network -----------------------------------------------------------------------------------

    def receive(self, datagram: bytes, source_ip: bytes, now: int) -> Outcome:
        """Take one datagram from 16 bytes of address.  Never raises (M08)."""
        outcome = self._receive(datagram, source_ip, now)
        if isinstance(outcome, DropReason):
            self._core.counters.count(outcome)
        return outcome

    def _receive(self, datagram: bytes, source_ip: bytes, now: int) -> Outcome:
        try:
            announce = Announce.unpack(datagram)
        except DecodeError:
            return DropReason.MALFORMED
        peer = Peer(source_ip, announce.port)
        if not plausible(peer):
            return DropReason.MALFORMED
        if announce.version != c.VERSION:
            return DropReason.VERSION_MISMATCH
        if announce.pubkey == self._core.peers.own_key:
            return Verdict.ACCEPTED
        if not self._limit.admits(source_ip, now):
            return DropReason.ANNOUNCE_LIMITED
        if not self._core.peers.see(peer, announce.pubkey, Source.ANNOUNCE, now):
            return DropReason.PEERS_FULL
        return Verdict.ACCEPTED

    def datagrams_to_send(self) -> list[bytes]:
        """What waits to be sent to the group; it counts as handed over."""
        out, self._out = self._out, []
        return out

    # -- the timer -------------------------------------------------------------------------------------

    def next_timer(self) -> int | None:
        """When :meth:`handle_timer` is due (ns), or None."""
        due = min(self._retry_due, self._announce_due if self._open_since is not None else NEVER)
        return None if due == NEVER else due

    def handle_timer(self, now: int) -> None:
        """Do what is due at ``now``; harmless when nothing is."""
        if now >= self._retry_due:
            self._retry_due = NEVER
            self.wants_socket = True
        if self._open_since is not None and now >= self._announce_due and self.port is not None:
            self._announce_due = now + c.ANNOUNCE_PERIOD
            datagram = self.announce(self.port, now).pack()
            wrong = self._core.settings.misbehaviour
            self._out += [datagram] if wrong is None else wrong.announces(datagram)

    def announce(self, port: int, now: int) -> Announce:
        """What this node says of itself."""
        core = self._core
        return Announce(
            core.peers.own_key, core.settings.address, port,
            sessions=c.MAX_SESSIONS - core.slots.free, uptime_s=(now - self._started) // c.SECOND,
        )  # fmt: skip

    # -- the socket ------------------------------------------------------------------------------------

    def opened(self, now: int) -> None:
        """A socket is open."""
        self.wants_socket = False
        self._open_since = now

    def failed(self, why: str, now: int) -> None:
        """The socket could not be opened, or failed in use and is closed."""
        core = self._core
        shortest, longest = c.MULTICAST_RETRY
        worked = self._open_since is not None and now - self._open_since >= longest
        self._pause = shortest if worked or not self._pause else min(2 * self._pause, longest)
        self._open_since = None
        self.wants_socket = False
        self._retry_due = now + self._pause
        if self.port is not None:
            self._announce_due = now  # as soon as there is a socket: the last one may not have left
        core.counters.count("multicast_failures")
        core.record_error(_NO_CODE, f"discovery: {why}; again in {self._pause // c.SECOND} s", now)
