# SPDX-License-Identifier: GPL-2.0-or-later
"""How large packets may be: probes, their answers, and the search between two bounds (section 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from . import constants as c
from .constants import Flag, State, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError
from .events import MtuChanged
from .part import NEVER, Part
from .wire import Buffer, Header, sized, struct_of

if TYPE_CHECKING:
    from .session import Session

_PROBE: Final = struct_of("mtu_probe")
_OVERHEAD: Final = c.HEADER_SIZE + c.TAG_SIZE
_PROBE_FLAGS: Final = int(Flag.REQUIRE_ACK)


def probe(size: int) -> bytes:
    """The plaintext of a probe whose packet has ``size`` bytes, at least 98 (MTU-01)."""
    return _PROBE.pack(size).ljust(size - _OVERHEAD, b"\0")


def answer(size: int) -> bytes:
    """The plaintext that answers a probe of ``size`` bytes: two bytes."""
    return _PROBE.pack(size)


def parse_probe(plaintext: Buffer) -> int:
    """The size of a probe; DecodeError unless it is the packet's own, 512 to 1400, the rest zero (E-83)."""
    if len(plaintext) < _PROBE.size:
        raise DecodeError(len(plaintext), "mtu_probe", "truncated")
    size: int = _PROBE.unpack_from(plaintext)[0]
    if size != _OVERHEAD + len(plaintext):
        raise DecodeError(0, "probe_size", f"{size} in a packet of {_OVERHEAD + len(plaintext)} bytes")
    low, high = c.MTU_RANGE
    if not low <= size <= high:
        raise DecodeError(0, "probe_size", f"{size} is not within {low}..{high}")
    if any(plaintext[_PROBE.size :]):
        raise DecodeError(_PROBE.size, "padding", "not zero")
    return size


def parse_answer(plaintext: Buffer) -> int:
    """The size that an answer confirms, as sent; DecodeError unless it has 2 bytes."""
    sized(plaintext, _PROBE.size, "mtu_probe")
    size: int = _PROBE.unpack(plaintext)[0]
    return size


class Search:
    """Binary search for the largest size that passes, between ``low``, which is taken for granted, and
    ``high`` (MTU-02).

    ``high`` itself is tried first; afterwards it is a size that did not pass.  :attr:`low` is the result.
    """

    __slots__ = ("_high", "_tried", "low")

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self._high = high
        self._tried = False

    @property
    def size(self) -> int | None:
        """What to probe next; None when the search is over."""
        if self.low >= self._high:
            return None
        if not self._tried:
            return self._high
        if self._high - self.low < c.MTU_SEARCH_STOP:
            return None
        return (self.low + self._high) // 2

    def passed(self) -> None:
        """A packet of :attr:`size` bytes arrived."""
        self._settle(True)

    def failed(self) -> None:
        """None of :attr:`size` bytes did."""
        self._settle(False)

    def _settle(self, passed: bool) -> None:
        size = self.size
        if size is None:
            return
        self._tried = True
        if passed:
            self.low = size
        else:
            self._high = size


class MtuSearch(Part):
    """Keeps the session's mtu: searches soon after the establishment, every 60 s, after a loss, and when the
    bounds change (MTU-03, E-49).
    """

    receive_driven: ClassVar[bool] = True

    def __init__(self, session: Session, now: int) -> None:
        super().__init__(session)
        self._search: Search | None = None
        self._in_flight: int | None = None
        self._held = False
        self._answered = now - c.PROBE_SPACING
        self.searches = 0
        """How many were completed."""
        self._quiet_until = now + c.PROBE_DELAY
        self.due = self._quiet_until
        self._bounds = self._configured()
        session.mtu = self._bounds[0] if session.reliable else self._bounds[1]
        session.core.configuration.watch(self._reconfigured)

    # -- the peer's probes -----------------------------------------------------------------------------

    def receive_probe(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """Answer a probe; the answer is also its ack (MTU-01)."""
        session = self.session
        try:
            size = parse_probe(plaintext)
        except DecodeError:
            session.owe_ack(now)
            return DropReason.MALFORMED
        reply = answer(size) if session.settings.dialect.probe_echo == "size" else plaintext
        # Where packets pile up, no more answers join them than there are probes that may be sent.
        crowded = (session.congested or not session.writable) and now < self._answered + c.PROBE_SPACING
        if crowded or session.transmit(Type.DISCOVER, now, reply) is None:  # held: an ACK can leave in time
            session.owe_ack(now)
        if not crowded:
            self._answered = now
        return Verdict.ACCEPTED

    # -- one's own -------------------------------------------------------------------------------------

    def receive_answer(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        """Only the size in flight counts (MTU-03)."""
        dialect = self.session.settings.dialect
        try:
            if dialect.probe_echo == "whole" and len(plaintext) > _PROBE.size:
                size = parse_probe(plaintext)
            else:
                size = parse_answer(plaintext)
        except DecodeError:
            return DropReason.MALFORMED
        if not dialect.probe_flagged and size != self._in_flight:
            return Verdict.ACCEPTED  # a probe of the peer's, which nobody answers in this dialect
        if self._search is None or size != self._in_flight:
            return DropReason.UNSOLICITED
        self._in_flight = None
        self._search.passed()
        self._proceed(self._search, now)
        return Verdict.ACCEPTED

    def probe_now(self, now: int) -> None:
        """Search again as soon as a probe may go out, unless a search is under way."""
        if self._search is None and not self._held:
            self.due = min(self.due, now)

    def lost(self, now: int) -> None:
        """A packet other than a probe was lost: the path may have changed (MTU-03)."""
        self.probe_now(now)

    def left(self, now: int) -> None:
        """A probe that was held is on its way: only now does the wait for its answer begin."""
        self._held = False
        self._quiet_until = now + c.PROBE_SPACING
        self.due = self._quiet_until if self._in_flight is None else now + c.PROBE_TIMEOUT

    def handle_timer(self, now: int) -> None:
        if self._search is None:
            self._search = Search(*self._bounds)
        elif self._in_flight is not None:
            self._in_flight = None
            self._search.failed()
        self._proceed(self._search, now)

    def end(self, now: int) -> None:
        super().end(now)
        self._search = self._in_flight = None
        self.session.core.configuration.unwatch(self._reconfigured)

    def _configured(self) -> tuple[int, int]:
        params = self.session.core.configuration.current.params
        return params.mtu_min, params.mtu_max

    def _proceed(self, search: Search, now: int) -> None:
        session = self.session
        size = search.size
        if size is None:
            self._search = None
            self.searches += 1
            self._set(search.low)
            self.due = now + c.PROBE_PERIOD
        elif now < self._quiet_until:
            self.due = self._quiet_until
        elif session.congested or session.state is State.REKEYING:
            self.due = now + c.PROBE_SPACING
        else:
            self._in_flight = size
            self._held = session.transmit(Type.DISCOVER, now, probe(size), flags=_PROBE_FLAGS) is None
            if not self._held:
                self.left(now)
            elif session.end is None:
                self.due = NEVER

    def _set(self, mtu: int) -> None:
        old = self.session.mtu
        if mtu != old:
            self.session.mtu = mtu
            self.session.emit(MtuChanged(old, mtu))

    def _reconfigured(self) -> None:
        """Other bounds are in force: keep within them at once, and search anew (E-49)."""
        bounds = self._configured()
        if bounds == self._bounds:
            return
        self._bounds = low, high = bounds
        self._set(min(max(self.session.mtu, low), high))
        self._search = self._in_flight = None
        self.due = NEVER if self._held else self._quiet_until
        self.session.core.stir(self.session)
