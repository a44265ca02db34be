# SPDX-License-Identifier: GPL-2.0-or-later
"""What a session can do beside moving messages: the peer's configuration and journal, keys, integrity, MTU
probes, peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

from . import constants as c
from .config import Parameters, Reference
from .constants import ErrorCode
from .counters import DropReason
from .errors import LocalError, PeerError, PoolTimeout
from .events import (
    ConfigAccepted,
    ConfigConfirmed,
    ConfigRejected,
    ConfigRolledBack,
    Event,
    JournalReceived,
    SessionEnded,
)
from .io.link import Clock
from .journal import Entry
from .session import Session as SessionCore

DEADLINE_S: Final = 60.0
QUIET_S: Final = 0.5


class Operations(ABC):
    """Cancelling a call gives up waiting for its outcome; where that leaves something behind it is said."""

    core: SessionCore
    _clock: Clock

    def __init__(self) -> None:
        self._expecting: dict[asyncio.Future[Event], tuple[type[Event], ...]] = {}
        self._watchers: dict[asyncio.Future[None], None] = {}

    @abstractmethod
    def flush(self) -> None: ...

    # -- the peer's configuration ----------------------------------------------------------------------

    async def configure(
        self,
        params: Parameters | None = None,
        *,
        deadline: float = DEADLINE_S,
        base: Reference | None = None,
        **changes: int,
    ) -> int:
        """Propose a configuration to the peer and wait until it is in force: its version (CFG-01, CFG-02).

        ``params`` are this node's own by default, with ``changes`` to some of them; ``base`` is what the
        peer's configuration is, if this session cannot know.  Unless :meth:`confirm` follows within
        ``deadline`` seconds the peer goes back to what it had.  Cancelled, the proposal is withdrawn.

        EREMOTEIO (PeerError 0x06) when the peer refuses it or does not answer, EINVAL for what is out of
        range, EBUSY while another proposal is open, ENOTCONN once the session ended.
        """
        try:
            event = await self._outcome(
                lambda now: self.propose(params, deadline=deadline, base=base, **changes),
                ConfigAccepted, ConfigRejected, ConfigRolledBack,
            )  # fmt: skip
        except asyncio.CancelledError:
            with contextlib.suppress(LocalError):
                self.core.configuring.rollback(self._clock())
                self.flush()
            raise
        return _version(event, ConfigAccepted)

    def propose(
        self,
        params: Parameters | None = None,
        *,
        deadline: float = DEADLINE_S,
        base: Reference | None = None,
        **changes: int,
    ) -> int:
        """Begin what :meth:`configure` waits for: the version proposed.  Its outcome is an event."""
        mine = self.core.params if params is None else params
        try:
            wanted = dataclasses.replace(mine, **changes)
        except TypeError:
            raise LocalError(errno.EINVAL, f"unknown parameter in {', '.join(changes)}") from None
        nanoseconds = int(deadline * c.SECOND)
        payload = self.core.configuring.propose(wanted, nanoseconds, self._clock(), base)
        self.flush()
        return payload.version

    async def confirm(self) -> int:
        """Make the peer's new configuration permanent (CFG-03): its version.

        ENOENT when there is none that the peer accepted, EREMOTEIO (PeerError 0x06) when it is gone by now,
        ENOTCONN once the session ended.
        """
        event = await self._outcome(
            self.core.configuring.confirm, ConfigConfirmed, ConfigRejected, ConfigRolledBack
        )
        return _version(event, ConfigConfirmed)

    async def rollback(self) -> int:
        """Let the peer go back to the configuration it had (CFG-05): the version that is gone.

        ENOENT when nothing unconfirmed is open, ENOTCONN once the session ended.
        """
        event = await self._outcome(
            self.core.configuring.rollback, ConfigRolledBack, ConfigRejected, ConfigConfirmed
        )
        return _version(event, ConfigRolledBack, ConfigRejected)

    # -- the peer's journal ----------------------------------------------------------------------------

    async def request_journal(self, quiet: float = QUIET_S) -> tuple[Entry, ...]:
        """Ask for the peer's journal (JRN-03): its verified entries, as of when nothing new came for
        ``quiet`` seconds.  More arrive as they are written, see :meth:`peer_journal`.

        Empty when the peer does not permit it (AUTH-02), ENOTCONN once the session ended.
        """
        start: Callable[[int], object] = self.core.replication.request
        with contextlib.suppress(PoolTimeout):
            while True:
                await self._outcome(start, JournalReceived, timeout=quiet)
                start = _nothing
        return self.peer_journal()

    def peer_journal(self) -> tuple[Entry, ...]:
        """The peer's journal as far as it came, oldest entry first."""
        ring = self.core.replication.replica.ring
        return () if ring is None else ring.entries()

    # -- keys and integrity ----------------------------------------------------------------------------

    async def rekey(self) -> int:
        """Replace the session's keys (RK-01) and wait until they are in use: the new epoch.

        Messages sent meanwhile wait, nothing is lost.  EAGAIN when no new keys can be had: no random bytes,
        or the last epoch; ENOTCONN once the session ended.
        """
        core = self.core
        before = core.keys.epoch
        while core.keys.epoch == before:
            self._require_open()
            rekeying = core.rekeying
            if not rekeying.holding and not rekeying.underway:
                rekeying.start(self._clock())
                self.flush()
                if core.end is None and not rekeying.holding:
                    raise LocalError(errno.EAGAIN, "no new keys can be had at present")
                continue
            await self._woken(self._watchers)
        return core.keys.epoch

    async def challenge(self) -> bool:
        """Let the peer prove that it has the session's keys (INT-01): whether it did.  If not, it counts as
        untrusted from now on.  ENOTCONN once the session ended.
        """
        core = self.core
        vigil = core.vigil
        before = vigil.answered, core.counters[DropReason.INTEGRITY_FAIL]
        epoch = -1
        while (vigil.answered, core.counters[DropReason.INTEGRITY_FAIL]) == before:
            self._require_open()
            if core.keys.epoch != epoch:  # a change of keys voids what was asked under the old ones
                epoch = core.keys.epoch
                vigil.challenge_now(self._clock())
                self.flush()
            await self._woken(self._watchers)
        return vigil.answered > before[0]

    # -- the path and the peers ------------------------------------------------------------------------

    async def probe_mtu(self) -> int:
        """Search for the largest packet that passes (MTU-02), as soon as probes may go out: the result in
        bytes.  Takes seconds where large packets do not pass.  ENOTCONN once the session ended.
        """
        search = self.core.discovery
        before = search.searches
        self._require_open()
        search.probe_now(self._clock())
        self.flush()
        while search.searches == before:
            self._require_open()
            await self._woken(self._watchers)
        return self.core.mtu

    def exchange_peers(self) -> None:
        """Tell the peer at once of the peers this node knows (DISC-03).  ENOTCONN once the session ended."""
        self._require_open()
        self.core.exchange.send_now(self._clock())
        self.flush()

    # -- waiting ---------------------------------------------------------------------------------------

    def _told(self, event: Event) -> None:
        """Hand an event to those who expect it; the end of the session to all."""
        for waiter, kinds in self._expecting.items():
            if not waiter.done() and isinstance(event, (*kinds, SessionEnded)):
                waiter.set_result(event)

    async def _outcome(
        self, start: Callable[[int], object], *kinds: type[Event], timeout: float | None = None
    ) -> Event:
        """Start something and wait for the first event of these kinds; ENOTCONN when the session ends."""
        waiter: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._expecting[waiter] = kinds
        try:
            start(self._clock())
            self.flush()
            async with asyncio.timeout(timeout):
                event = await waiter
        except TimeoutError as error:
            if isinstance(error, LocalError):
                raise
            raise PoolTimeout(f"nothing came within {timeout} s") from None
        finally:
            del self._expecting[waiter]
        if isinstance(event, SessionEnded):
            raise LocalError(errno.ENOTCONN, self._epitaph())
        return event

    async def _woken(self, waiters: dict[asyncio.Future[None], None]) -> None:
        waiter = asyncio.get_running_loop().create_future()
        waiters[waiter] = None
        try:
            await waiter
        finally:
            del waiters[waiter]

    def _require_open(self) -> None:
        if self.core.end is not None:
            raise LocalError(errno.ENOTCONN, self._epitaph())

    @abstractmethod
    def _epitaph(self) -> str: ...


def _nothing(now: int) -> None:
    """Nothing to start."""


def _version(event: Event, *wanted: type[Event]) -> int:
    """The version in an event of the wanted kinds; PeerError for any other."""
    if isinstance(event, ConfigAccepted | ConfigConfirmed):
        version, reason = event.version, "confirmed already"
    elif isinstance(event, ConfigRejected | ConfigRolledBack):
        version, reason = event.version, event.reason
    else:
        raise TypeError(f"not about a configuration: {event!r}")
    if not isinstance(event, wanted):
        text = f"the peer does not have version {version}: {reason}"
        raise PeerError(ErrorCode.CONFIG_REJECT, text, errno.EREMOTEIO)
    return version


def wake(waiters: dict[asyncio.Future[None], None]) -> None:
    """Let all who wait look again."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
