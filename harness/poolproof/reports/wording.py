# SPDX-License-Identifier: GPL-2.0-or-later
"""Words, colours and the four statuses that all views share, so that no two of them disagree."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from poolproof.verdicts.axes import Outcome, Wire
from poolproof.verdicts.results import Finding, RunResult, ScenarioResult

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


class Status(StrEnum):
    """What views with a single status show. BROKEN: no verdict about the device either way."""

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outside:
    """Trouble that belongs to no scenario but must not look green either."""

    name: str
    status: Status
    message: str
    detail: str


def style(outcome: Outcome) -> str:
    """The terminal colour of an outcome."""
    return _STYLES[outcome]


def status(result: ScenarioResult) -> Status:
    """The single status of a scenario: a device that was hurt is always a failure."""
    if result.wire is Wire.FAIL or result.health.hurt:
        return Status.FAILED
    if result.wire is Wire.INCONCLUSIVE:
        return Status.BROKEN
    return Status.SKIPPED if result.wire is Wire.NOT_SUPPORTED else Status.PASSED


def explain(result: ScenarioResult) -> str:
    """Why a scenario did not simply pass, as a sentence or more; empty if it did.

    The wire's reason comes first, then what the device's health adds to it.
    """
    parts = []
    hurts = [each for each in result.findings if each.health.hurt and each.title not in result.reason]
    if result.wire is Wire.PASS and result.health.hurt:
        parts.append(f"{result.outcome}.")
    if result.reason:
        prefix = f"{result.outcome}: " if result.wire in (Wire.INCONCLUSIVE, Wire.NOT_SUPPORTED) else ""
        parts.append(f"{prefix}{result.reason}")
    parts.extend(describe(each) for each in hurts)
    return "\n".join(parts)


def describe(finding: Finding) -> str:
    """A finding in one line."""
    return f"{finding.kind} ({finding.health}): {finding.title}"


def outside(run: RunResult) -> list[Outside]:
    """What went wrong outside of scenarios: errors of the harness, findings of the run, an early end."""
    troubles = [
        Outside(f"harness: {each.where}", Status.BROKEN, each.reason, each.trace)
        for each in run.harness_errors
        if not each.scenario
    ]
    troubles += [
        Outside(f"device: {each.kind}", Status.FAILED, describe(each), each.excerpt)
        for each in run.findings
        if each.health.hurt
    ]
    if run.aborted:
        troubles.append(Outside("harness: run ended early", Status.BROKEN, run.aborted, ""))
    if not run.complete:
        message = f"{len(run.scenarios)} results for {run.selected} selected scenarios"
        troubles.append(Outside("harness: results missing", Status.BROKEN, message, ""))
    return troubles
