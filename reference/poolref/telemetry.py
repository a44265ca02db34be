# SPDX-License-Identifier: GPL-2.0-or-later
"""Heartbeats: each side's figures, and the round-trip time from the ACKs that answer them (section 12)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from . import constants as c
from .constants import Flag, State, Type
from .counters import DropReason, Outcome, Verdict
from .errors import DecodeError
from .part import Part
from .wire import Header, Telemetry

if TYPE_CHECKING:
    from .session import Session


class RoundTrip:
    """Smoothed round-trip time and jitter in ns; both 0 before the first sample."""

    __slots__ = ("_outstanding", "jitter", "srtt")

    def __init__(self) -> None:
        self.srtt = 0
        self.jitter = 0
        self._outstanding: deque[tuple[int, int]] = deque(maxlen=c.HEARTBEATS_OUTSTANDING)

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
        if newest is not None:
            self.sample(now - newest[1])

    def forget(self, ack: int) -> None:
        """What ``ack`` covers gives no sample: it waited for something that was resent (TRN-04, E-88)."""
        while self._outstanding and self._outstanding[0][0] <= ack:
            self._outstanding.popleft()

    def sample(self, sample: int) -> None:
        """HB-01: one measured round trip (ns)."""
        if not self.srtt:
            self.srtt = sample
            return
        self.jitter += (abs(sample - self.srtt) - self.jitter) // 8
        self.srtt += (sample - self.srtt) // 8


class Heartbeats(Part):
    """Sends this side's report at the configured interval, keeps the peer's apart from it."""

    def __init__(self, session: Session, now: int) -> None:
        super().__init__(session)
        self.round_trip = RoundTrip()
        self.peer_report: Telemetry | None = None
        self._mark = (now, 0)
        self._previous = now
        self.due = now + self._interval
        session.core.configuration.watch(self._reconfigured)

    @property
    def _interval(self) -> int:
        return self.session.core.configuration.current.params.heartbeat_s * c.SECOND

    def receive(self, header: Header, plaintext: bytes, now: int) -> Outcome:
        # Answered whatever it holds: the ACK says that it arrived (HB-01, E-36).
        self.session.owe_ack(now, at_once=True)
        dialect = self.session.settings.dialect
        if len(plaintext) == c.TELEMETRY_SIZE + dialect.telemetry_digest:
            plaintext = plaintext[: c.TELEMETRY_SIZE]
        try:
            self.peer_report = Telemetry.unpack(plaintext, dialect.telemetry_order)
        except DecodeError:
            return DropReason.MALFORMED
        return Verdict.ACCEPTED

    def acknowledged(self, header: Header, now: int) -> None:
        self.round_trip.acknowledged(header.ack, now)

    def handle_timer(self, now: int) -> None:
        session = self.session
        if session.state is State.REKEYING:  # it would be held, and tell of the past
            self.due = now + c.HEARTBEAT_RETRY
            return
        self._previous = now
        self.due = now + self._interval
        if session.congested or not session.writable:
            return
        report = self.report(now).pack(session.settings.dialect.telemetry_order)
        self._mark = (now, session.bytes_sent)
        seq = session.transmit(Type.HEARTBEAT, now, report, flags=int(Flag.TELEMETRY))
        if seq is not None:
            self.round_trip.sent(seq, now)

    def report(self, now: int) -> Telemetry:
        """This side's own figures as of ``now``; throughput is of messages sent since the last heartbeat."""
        session = self.session
        since, sent = self._mark
        elapsed = now - since
        return Telemetry(
            rtt_ns=self.round_trip.srtt,
            jitter_ns=self.round_trip.jitter,
            loss_rate_ppm=session.window.loss_ppm,
            throughput_bps=(session.bytes_sent - sent) * 8 * c.SECOND // elapsed if elapsed > 0 else 0,
            mtu=session.mtu,
            queue_depth=len(session.inbox),
            uptime_ns=now - session.established_at,
            rekey_count=session.keys.epoch,
            config_version=session.core.configuration.current.version,
        )

    def end(self, now: int) -> None:
        super().end(now)
        self.session.core.configuration.unwatch(self._reconfigured)

    def _reconfigured(self) -> None:
        due = self._previous + self._interval
        if due != self.due:
            self.due = due
            self.session.core.stir(self.session)
