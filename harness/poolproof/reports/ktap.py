# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP, which kernel people's tools read: a subtest for each feature, one line for each scenario.

Only a clean pass is `ok`. Not supported is `ok # SKIP`, inconclusive `not ok # ERROR`; why it is not ok is in
the diagnostic lines before the result.
"""

from __future__ import annotations

from pathlib import Path

from poolproof.reports.text import line
from poolproof.reports.wording import Status, explain, outside, status
from poolproof.verdicts.results import RunResult, ScenarioResult


def write(run: RunResult, path: Path) -> None:
    """Write `run` as KTAP version 1."""
    features: dict[str, list[ScenarioResult]] = {}
    for scenario in run.scenarios:
        features.setdefault(scenario.file, []).append(scenario)
    troubles = outside(run)
    lines = ["KTAP version 1", f"1..{len(features) + bool(troubles)}"]
    environment = run.environment
    lines.append(
        f"# device: {line(environment.device)} {line(environment.build_id)} seed: {environment.seed}"
    )
    for number, scenarios in enumerate(features.values(), start=1):
        points = [_point(index, each) for index, each in enumerate(scenarios, start=1)]
        good = all(status(each) in (Status.PASSED, Status.SKIPPED) for each in scenarios)
        lines.extend(_subtest(number, scenarios[0].feature, points, good))
    if troubles:
        points = [
            [*_diagnostics(each.message), f"not ok {index} {_name(each.name)}"]
            for index, each in enumerate(troubles, start=1)
        ]
        lines.extend(_subtest(len(features) + 1, "outside of scenarios", points, good=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _subtest(number: int, name: str, points: list[list[str]], good: bool) -> list[str]:
    inner = ["KTAP version 1", f"# Subtest: {_name(name)}", f"1..{len(points)}"]
    inner.extend(each for point in points for each in point)
    return [*(f"  {each}" for each in inner), f"{'ok' if good else 'not ok'} {number} {_name(name)}"]


def _point(number: int, scenario: ScenarioResult) -> list[str]:
    verdict = status(scenario)
    name = _name(scenario.id)
    if verdict is Status.PASSED:
        return [f"ok {number} {name}"]
    if verdict is Status.SKIPPED:
        return [f"ok {number} {name} # SKIP {_name(scenario.reason)}"]
    directive = " # ERROR" if verdict is Status.BROKEN else ""
    return [*_diagnostics(explain(scenario)), f"not ok {number} {name}{directive}"]


def _diagnostics(text: str) -> list[str]:
    return [f"# {each}" for each in text.splitlines() if each.strip()]


def _name(text: str) -> str:
    """One line without `#`, which would start a directive."""
    return line(text, 300).replace("#", "№")
