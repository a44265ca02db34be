# SPDX-License-Identifier: GPL-2.0-or-later
"""The random walks find defects that are planted where only sequences of events reach them."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from test_poolref_machine import RawTalk, Talk, TcpTalk

from poolref import config, raw_session, reliable, session
from poolref.constants import State
from poolref.counters import DropReason
from poolref.keys import Keys
from poolref.part import NEVER
from poolref.replay import ReplayWindow

Plant = Callable[[pytest.MonkeyPatch], None]


def keys_not_erased(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Keys, "erase", lambda self: None)


def keys_half_erased(patch: pytest.MonkeyPatch) -> None:
    def erase(self: Keys) -> None:
        self._aead = None
        self.shared[:] = bytes(len(self.shared))

    patch.setattr(Keys, "erase", erase)


def replays_accepted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ReplayWindow, "fresh", lambda self, seq: True)


def gaps_acknowledged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(raw_session.RawSession, "ack", property(lambda self: self.window.highest))


def order_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(raw_session, "_indifferent_to_order", lambda header: True)


def never_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reliable.SendWindow, "due", property(lambda self: NEVER))


def nothing_rolled_back(patch: pytest.MonkeyPatch) -> None:
    good = config.Configuration._undo

    def undo(self: config.Configuration, tentative: config.Tentative, why: config.Undoing, now: int) -> None:
        current = self.current
        good(self, tentative, why, now)
        self.current = current

    patch.setattr(config.Configuration, "_undo", undo)


def discards_not_counted(patch: pytest.MonkeyPatch) -> None:
    good = session.Session._receive

    def receive(self: session.Session, packet: bytes, now: int) -> object:
        outcome = good(self, packet, now)
        if outcome is DropReason.REPLAY:
            self.counters.count(DropReason.REPLAY)
        return outcome

    patch.setattr(session.Session, "_receive", receive)


def closed_sessions_live_on(patch: pytest.MonkeyPatch) -> None:
    good = session.Session.finish

    def finish(self: session.Session, now: int, cause: object, code: int | None) -> None:
        good(self, now, cause, code)  # type: ignore[arg-type]
        self.state = State.ESTABLISHED

    patch.setattr(session.Session, "finish", finish)


@pytest.mark.parametrize(
    ("machine", "defect"),
    [
        (TcpTalk, keys_not_erased),
        (RawTalk, keys_half_erased),
        (TcpTalk, replays_accepted),
        (RawTalk, gaps_acknowledged),
        (RawTalk, order_lost),
        (RawTalk, never_sent_again),
        (TcpTalk, nothing_rolled_back),
        (TcpTalk, discards_not_counted),
        (TcpTalk, closed_sessions_live_on),
    ],
)
def test_a_defect_is_found(monkeypatch: pytest.MonkeyPatch, machine: type[Talk], defect: Plant) -> None:
    defect(monkeypatch)
    profile = settings(
        max_examples=400, stateful_step_count=40, deadline=None, database=None, phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    with pytest.raises((AssertionError, struct.error)):
        run_state_machine_as_test(seed(3)(machine), settings=profile)
