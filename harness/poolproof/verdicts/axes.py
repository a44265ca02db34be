# SPDX-License-Identifier: GPL-2.0-or-later
"""The two axes of a verdict, and what a step raises to reach one that is not plain pass or fail.

The wire axis says whether the device did what the requirement asks; the health axis says what the doing
did to the device. They are independent: a device can pass every check and leak in each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Wire(StrEnum):
    """What was observed on the wire (and at the device's interfaces)."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NOT_SUPPORTED = "not_supported"


class Health(StrEnum):
    """What the device's own condition was afterwards. UNKNOWN: nobody looked."""

    CLEAN = "clean"
    COMPLAINED = "complained"
    LEAKED = "leaked"
    DIED = "died"
    UNKNOWN = "unknown"

    @property
    def hurt(self) -> bool:
        """True for what a device must answer for: complained, leaked, died."""
        return self in (Health.COMPLAINED, Health.LEAKED, Health.DIED)


class Outcome(StrEnum):
    """Both axes in one word, for counting and for views with room for a single status."""

    PASSED = "passed"
    PASSED_BUT_COMPLAINED = "passed but complained"
    PASSED_BUT_LEAKED = "passed but leaked"
    PASSED_BUT_DIED = "passed but died"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_SUPPORTED = "not supported"
    NOT_RUN = "not run"


_PASS_BUT = {
    Health.COMPLAINED: Outcome.PASSED_BUT_COMPLAINED,
    Health.LEAKED: Outcome.PASSED_BUT_LEAKED,
    Health.DIED: Outcome.PASSED_BUT_DIED,
}
_OTHER = {
    Wire.FAIL: Outcome.FAILED,
    Wire.INCONCLUSIVE: Outcome.INCONCLUSIVE,
    Wire.NOT_SUPPORTED: Outcome.NOT_SUPPORTED,
}
# Best first. A single failing scenario decides a requirement; a pass speaks only if nothing else does.
_WIRE_ORDER = (Wire.PASS, Wire.NOT_SUPPORTED, Wire.INCONCLUSIVE, Wire.FAIL)
_HEALTH_ORDER = (Health.CLEAN, Health.UNKNOWN, Health.COMPLAINED, Health.LEAKED, Health.DIED)


def outcome(wire: Wire, health: Health) -> Outcome:
    """The one-word outcome of a verdict: a pass is only `passed` if the device was not hurt."""
    if wire is Wire.PASS:
        return _PASS_BUT.get(health, Outcome.PASSED)
    return _OTHER[wire]


def worst_wire(verdicts: Iterable[Wire]) -> Wire:
    """The worst of one or more wire verdicts (fail > inconclusive > not supported > pass)."""
    return max(verdicts, key=_WIRE_ORDER.index)


def worst_health(verdicts: Iterable[Health]) -> Health:
    """The worst of one or more health verdicts (died > leaked > complained > unknown > clean)."""
    return max(verdicts, key=_HEALTH_ORDER.index)


class VerdictError(Exception):
    """Base of what a step or hook raises to end a scenario with a verdict of its own."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Inconclusive(VerdictError):
    """The check could not be carried out: no verdict about the device either way."""


class NotSupported(VerdictError):
    """The device declares that it lacks what the scenario needs."""


class DeviceUntestable(VerdictError):
    """The device could not be brought to the point where anything can be tested.

    It did not compile, refused to load, died or hung in init: all remaining scenarios are inconclusive and
    the run says why.
    """


class DeviceDied(VerdictError):
    """The device is gone: panic, oops, reboot, silence.

    `reason` says what died and of what (the console's oops title); `excerpt` is the console around it.
    In a step the scenario fails, its health is `died`.
    """

    def __init__(self, reason: str, excerpt: str = "") -> None:
        super().__init__(reason)
        self.excerpt = excerpt
