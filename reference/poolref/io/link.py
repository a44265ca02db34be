# SPDX-License-Identifier: GPL-2.0-or-later
"""What binds one sans-IO connection to asyncio, whatever the transport: its timer, and when to look at it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, Protocol

from ..connection import TcpConnection
from ..constants import SECOND
from ..events import Event
from ..raw_connection import RawConnection

_BURST: Final = 64 * 1024
"""Bytes of messages that may wait for the end of the loop's turn, to be sent in one go."""

Clock = Callable[[], int]


class LinkOwner(Protocol):
    """Who is told what happens on a link."""

    def link_event(self, link: BaseLink, event: Event) -> None:
        """An event of the link's connection."""

    def link_changed(self, link: BaseLink) -> None:
        """Something happened; called after each batch of events."""

    def link_gone(self, link: BaseLink) -> None:
        """Nothing goes over it any more."""


class BaseLink(ABC):
    """After any call of its connection from elsewhere, call :meth:`flush` or :meth:`flush_soon`."""

    connection: TcpConnection | RawConnection

    def __init__(self, clock: Clock, loop: asyncio.AbstractEventLoop) -> None:
        self.peer_ip = b""
        self.peer_port = 0
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when nothing goes over it any more."""
        self._clock = clock
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._burst = 0  # bytes of messages since the last flush
        self.spent = False
        """So much was sent in this turn of the loop that others are to have one before more is."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether the transport has more to send than it wants to hold; ``link_changed`` follows the end of
        that.
        """

    @abstractmethod
    def flush(self) -> None:
        """Send what the connection has to send, hand on its events, follow its timer and its end."""

    @abstractmethod
    def abort(self) -> None:
        """Let nothing go over it any more, without waiting for anything."""

    def flush_soon(self, size: int = 0) -> None:
        """Flush when the loop's turn ends: what is sent until then goes out in one go.  At once when a lot
        has gathered; ``size`` is that of a message (bytes).
        """
        self._burst += size
        if self._burst >= _BURST:
            self.spent = True
            self.flush()
        elif self._soon is None:
            self._soon = self._loop.call_soon(self.flush)

    def _begin_flush(self) -> None:
        self._burst = 0
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None

    def _follow_timer(self, due: int | None) -> None:
        if self._timer is not None:
            if due is not None and self._loop.time() <= self._timer.when() <= self._when(due):
                return  # fires early, does nothing and is set anew: cheaper than a new one for each packet
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(self._when(due), self._timeout)

    def _when(self, due: int) -> float:
        return self._loop.time() + max(0, due - self._clock()) / SECOND

    def _timeout(self) -> None:
        self._timer = None
        self.connection.handle_timer(self._clock())
        self.flush()
