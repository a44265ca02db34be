# SPDX-License-Identifier: GPL-2.0-or-later
"""Words and colours that all views share."""

from __future__ import annotations

from poolproof.verdicts.axes import Outcome, Wire
from poolproof.verdicts.results import ScenarioResult

_STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.PASSED_BUT_DIED: "bold red",
    Outcome.PASSED_BUT_LEAKED: "red",
    Outcome.PASSED_BUT_COMPLAINED: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.NOT_SUPPORTED: "cyan",
    Outcome.NOT_RUN: "dim",
}


def style(outcome: Outcome) -> str:
    """The terminal colour of an outcome."""
    return _STYLES[outcome]


def explain(result: ScenarioResult) -> str:
    """Why a scenario did not simply pass, as a sentence or more; empty if it did.

    The wire's reason comes first, then what the device's health adds to it.
    """
    parts = []
    if result.reason:
        prefix = f"{result.outcome}: " if result.wire in (Wire.INCONCLUSIVE, Wire.NOT_SUPPORTED) else ""
        parts.append(f"{prefix}{result.reason}")
    hurts = [each for each in result.findings if each.health.hurt and each.title not in result.reason]
    if hurts and result.wire is Wire.PASS:
        parts.insert(0, f"{result.outcome}.")
    parts.extend(f"{each.kind} ({each.health}): {each.title}" for each in hurts)
    return "\n".join(parts)
