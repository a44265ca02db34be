# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person reads at the end of a run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from poolproof.reports import summary
from poolproof.reports.wording import Status, explain, outside, status
from poolproof.verdicts import Health, Wire
from poolproof.verdicts.requirements import Ledger, Level, Requirement, roll_up
from poolproof.verdicts.results import Environment, Finding, HarnessFault, RunResult, ScenarioResult

LEDGER = Ledger(
    {
        "A-1": Requirement("A-1", Level.MUST, "x", "p.md#a"),
        "A-2": Requirement("A-2", Level.MUST, "x", "p.md#a"),
        "B-1": Requirement("B-1", Level.MAY, "x", "p.md#b"),
    },
    "0123",
)


def scenario(name: str, wire: str, health: str, reason: str = "", *ids: str) -> ScenarioResult:
    hurt = Health(health)
    findings = (Finding(hurt, "kmemleak", "3 objects"),) if hurt.hurt else ()
    return ScenarioResult(
        name, f"does {name}", "F", "", "f.feature", 1, "data", "", (), ids, {}, Wire(wire), hurt, reason,
        f"make conformance ONLY={name}", findings=findings,
    )  # fmt: skip


def show(*scenarios: ScenarioResult, **changes: object) -> str:
    run = RunResult(
        "0.1", "0123", "make", "", Environment("kernel", "abc", kernel="6.1", cpu="max", seed=9), 0, 0, ()
    )
    run = replace(run, scenarios=scenarios, selected=len(scenarios), exit_status=1)
    run = replace(run, **changes)  # type: ignore[arg-type]
    stream = io.StringIO()
    summary.show(run, roll_up(LEDGER, run), Path("/r/latest/index.html"), stream=stream)
    return stream.getvalue()


def test_a_summary_says_what_failed_why_and_how_to_repeat_it() -> None:
    text = show(
        scenario("a", "pass", "clean", "", "A-1"),
        scenario("b", "fail", "clean", "5 expected\n4 seen\n1\n2\n3", "A-1"),
        scenario("c", "pass", "leaked", "", "A-2"),
        scenario("d", "inconclusive", "unknown", "no control"),
        scenario("e", "not_supported", "clean", "IPv6", "B-1"),
        harness_errors=(HarnessFault("after_all", "", "harness error: OSError"),),
        deselected=3,
    )
    lines = text.splitlines()
    start = lines.index("failed  data: does b  A-1")
    assert lines[start + 1 : start + 7] == [
        "    5 expected",
        "    4 seen",
        "    1",
        "    2",
        "    (1 more lines)",
        "    make conformance ONLY=b",
    ]
    for expected in (
        "passed but leaked  data: does c  A-2",
        "    kmemleak (leaked): 3 objects",
        "    inconclusive: no control",
        "harness: after_all     harness error: OSError",
        "Scenarios              5: 1 passed, 1 failed, 1 passed but leaked, 1 inconclusive, 1 not supported, "
        "3 not selected",
        "Health                 3 clean, 1 leaked, 1 unknown",
        "MUST requirements      2: 1 failed, 1 passed but leaked",
        "MAY requirements       1: 1 not supported",
        "passed but leaked      A-2",
        "Device build           abc",
        "CPU model              max",
        "Seed                   9",
        "Exit status            1: failures found, or not everything could be decided",
    ):
        assert expected.strip() in [each.strip() for each in lines], expected
    assert lines[-1] == "/r/latest/index.html"


def test_a_long_list_is_cut_but_counted() -> None:
    text = show(*(scenario(f"s{number}", "fail", "clean", "no") for number in range(100)))
    assert "... and 60 more, see the report" in text
    assert "100: 100 failed" in text


@pytest.mark.parametrize(
    ("wire", "health", "shown"),
    [
        ("pass", "clean", Status.PASSED),
        ("pass", "unknown", Status.PASSED),
        ("pass", "complained", Status.FAILED),
        ("pass", "leaked", Status.FAILED),
        ("pass", "died", Status.FAILED),
        ("fail", "clean", Status.FAILED),
        ("inconclusive", "clean", Status.BROKEN),
        ("inconclusive", "died", Status.FAILED),
        ("not_supported", "clean", Status.SKIPPED),
        ("not_supported", "leaked", Status.FAILED),
    ],
)
def test_the_single_status_never_flatters(wire: str, health: str, shown: Status) -> None:
    result = scenario("x", wire, health, "r" if wire != "pass" else "")
    assert status(result) is shown
    assert bool(explain(result)) is (shown is not Status.PASSED)


def test_missing_results_are_trouble() -> None:
    run = RunResult(
        "", "", "", "", Environment(), 3, 0, (scenario("a", "pass", "clean"),), aborted="interrupted"
    )
    assert [each.message for each in outside(run)] == ["interrupted", "1 results for 3 selected scenarios"]
