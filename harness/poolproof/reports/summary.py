# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of a run on the terminal: what failed and why, both axes counted, where the report is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from poolproof.reports import matrix
from poolproof.reports.facts import facts
from poolproof.reports.text import line
from poolproof.reports.wording import Status, explain, outside, status, style
from poolproof.verdicts.axes import Outcome
from poolproof.verdicts.requirements import RequirementResult
from poolproof.verdicts.results import RunResult, ScenarioResult

_SHOWN = 40  # scenarios that are not as expected, in full
_LINES = 4  # of each reason

_EXIT = {
    0: "all as expected",
    1: "failures found, or not everything could be decided",
    2: "the harness could not run everything",
    125: "the device could not be tested (bisect: skip)",
}


def show(
    run: RunResult,
    rolled: Sequence[RequirementResult],
    report: Path,
    *,
    missing: str = "",
    stream: TextIO | None = None,
) -> None:
    """Print the summary; the last line is the path `report`. `missing` says why there is no HTML page."""
    console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
    console.print()
    _bad(console, run)
    for trouble in outside(run):
        _line(console, trouble.name, "red", trouble.message)
    if run.untestable:
        _line(console, "device", "red", run.untestable)
    _counts(console, run)
    _requirements(console, rolled)
    for key, value in facts(run):
        _line(console, key, "dim", value)
    _line(console, "Exit status", "bold" if run.exit_status else "green", _exit(run))
    if missing:
        _line(console, "No HTML page", "yellow", missing)
    console.print(Text(str(report)))


def _bad(console: Console, run: RunResult) -> None:
    bad = [each for each in run.scenarios if status(each) in (Status.FAILED, Status.BROKEN)]
    for scenario in bad[:_SHOWN]:
        _scenario(console, scenario)
    if len(bad) > _SHOWN:
        console.print(Text(f"... and {len(bad) - _SHOWN} more, see the report"))


def _scenario(console: Console, scenario: ScenarioResult) -> None:
    head = Text(f"{scenario.outcome}  ", style=style(scenario.outcome))
    head.append(f"{scenario.area}: {scenario.name}", style="bold")
    if scenario.requirements:
        head.append(f"  {' '.join(scenario.requirements)}", style="cyan")
    console.print(head)
    told = [each for each in explain(scenario).splitlines() if each.strip()]
    for each in told[:_LINES]:
        console.print(Text(f"    {line(each, 400)}"))
    if len(told) > _LINES:
        console.print(Text(f"    ({len(told) - _LINES} more lines)", style="dim"))
    console.print(Text(f"    {scenario.rerun}", style="dim"))


def _counts(console: Console, run: RunResult) -> None:
    outcomes = _counted(each.outcome for each in run.scenarios)
    left_out = f", {run.deselected} not selected" if run.deselected else ""
    _line(console, "Scenarios", "bold", f"{len(run.scenarios)}: {outcomes}{left_out}")
    _line(console, "Wire", "dim", _counted(each.wire for each in run.scenarios))
    _line(console, "Health", "dim", _counted(each.health for each in run.scenarios))


def _requirements(console: Console, rolled: Sequence[RequirementResult]) -> None:
    for level, outcomes in matrix.counts(rolled).items():
        counted = _counted(outcomes.elements())
        _line(console, f"{level} requirements", "bold", f"{outcomes.total()}: {counted}")
    unmet = [each for each in rolled if each.outcome not in (Outcome.PASSED, Outcome.NOT_RUN)]
    for outcome in Outcome:
        names = [each.requirement.id for each in unmet if each.outcome is outcome]
        if names:
            _line(console, str(outcome), style(outcome), " ".join(names))


def _counted(each: Iterable[str]) -> str:
    counted = Counter(str(name) for name in each)
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counted.most_common())


def _line(console: Console, label: str, colour: str, text: str) -> None:
    shown = Text(f"{line(label, 60):<22} ", style=colour)
    shown.append(line(text, 1000), style="default")
    console.print(shown)


def _exit(run: RunResult) -> str:
    return f"{run.exit_status}: {_EXIT.get(run.exit_status, '')}"
