# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios run = results written = statuses shown, whatever went wrong."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

import pytest
from conftest import Tree

from poolproof import reports
from poolproof.reports.wording import outside, status
from poolproof.verdicts import requirements
from poolproof.verdicts.requirements import Ledger
from poolproof.verdicts.results import RunResult

SPEC = Path(__file__).parents[2] / "spec"

GOOD = """
    @area.data @req.DATA-01
    Feature: Good
      Background:
        Given it passes
      Scenario: passes
        Then it passes
      Scenario: fails
        Then it fails
      Scenario: leaks
        Then it leaks
      Scenario: has no device
        Then it raises NotSupported
      Scenario: dies
        Then it raises DeviceDied
        And it passes
      Scenario: is broken
        Then it raises KeyError
      Scenario: is not written yet
        Then nobody defined this
      Scenario: is pending
        Then it raises Pending
      Scenario: has nothing
      Scenario: cleans up
        Then it cleans up badly
      Scenario: skips
        Then it skips
      @bad_tag
      Scenario: has a tag
        Then it passes
      Scenario: before
        Then it passes
      Scenario: after
        Then it passes
      Rule: a rule
        Scenario Outline: outlined <what>
          Then <what>
          Examples:
            | what      |
            | it passes |
            | it fails  |
"""
OTHER = """
    Feature: Other
      Scenario: never gets there
        Given it passes
      Rule: a rule
        Scenario: nor this one
          Given it passes
"""
RULED = """
    Feature: Ruled
      Scenario: is fine
        Given it passes
      @broken
      Rule: whose hook fails
        Scenario: is not
          Given it passes
"""
HOOKS = """
    def before_feature(context, feature):
        if feature.name == "Other":
            raise OSError("no bridge")
    def after_feature(context, feature):
        if feature.name == "Ruled":
            raise AssertionError("module does not unload")
        raise OSError("no space left")
    def before_rule(context, rule):
        if "broken" in rule.tags:
            raise OSError("no rule")
    def before_tag(context, tag):
        if tag == "bad_tag":
            raise OSError("bad tag")
    def before_scenario(context, scenario):
        if scenario.name == "before":
            raise OSError("before")
    def after_scenario(context, scenario):
        context.evidence.healthy()
        if scenario.name == "after":
            raise OSError("after")
    def after_all(context):
        raise OSError("all over")
"""


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return requirements.load(SPEC / "requirements.toml")


@pytest.fixture
def messy(tree: Tree, ledger: Ledger) -> tuple[RunResult, reports.Written]:
    for name, text in (("good", GOOD), ("other", OTHER), ("ruled", RULED)):
        tree.feature(name, text)
    tree.environment(HOOKS)
    run = tree.run()
    no_page = reports.CannotRender("no node")
    return run, reports.write_all(run, tree.run_dir, ledger=ledger, spec_dir=SPEC, renderer=no_page)


def shown(run: RunResult) -> Counter[tuple[str, str]]:
    """What each view has to show: names and statuses."""
    scenarios = [(each.id, str(status(each))) for each in run.scenarios]
    return Counter([*scenarios, *((each.name, str(each.status)) for each in outside(run))])


def test_the_messy_run_is_what_it_should_be(messy: tuple[RunResult, reports.Written]) -> None:
    run, _ = messy
    outcomes = {each.id: (str(each.outcome), str(each.health)) for each in run.scenarios}
    assert outcomes == {
        "good/passes": ("passed", "clean"),
        "good/fails": ("failed", "clean"),
        "good/leaks": ("passed but leaked", "leaked"),
        "good/has-no-device": ("not supported", "clean"),
        "good/dies": ("failed", "died"),
        "good/is-broken": ("inconclusive", "clean"),
        "good/is-not-written-yet": ("inconclusive", "clean"),
        "good/is-pending": ("inconclusive", "clean"),
        "good/has-nothing": ("inconclusive", "clean"),
        "good/cleans-up": ("inconclusive", "clean"),
        "good/skips": ("not supported", "clean"),
        "good/has-a-tag": ("inconclusive", "clean"),
        "good/before": ("inconclusive", "clean"),
        "good/after": ("inconclusive", "clean"),
        "good/outlined/it-passes": ("passed", "clean"),
        "good/outlined/it-fails": ("failed", "clean"),
        "other/never-gets-there": ("inconclusive", "unknown"),
        "other/nor-this-one": ("inconclusive", "unknown"),
        "ruled/is-fine": ("passed", "clean"),
        "ruled/is-not": ("inconclusive", "unknown"),
    }
    assert [each.name for each in outside(run)] == [
        "harness: after_feature",
        "harness: before_feature",
        "harness: after_feature",
        "harness: before_rule",
        "harness: after_all",
        "device: after_feature",
    ]
    assert run.exit_status == 1


def test_junit_shows_every_result(messy: tuple[RunResult, reports.Written]) -> None:
    run, written = messy
    root = ET.parse(written.junit).getroot()
    found: Counter[tuple[str, str]] = Counter()
    for case in root.iter("testcase"):
        marks = {"failure": "failed", "error": "broken", "skipped": "skipped"}
        verdicts = [marks[each.tag] for each in case if each.tag in marks] or ["passed"]
        identity = case.find("properties/property[@name='id']")
        found[(identity.attrib["value"] if identity is not None else case.attrib["name"], *verdicts)] += 1  # type: ignore[index]
    assert found == shown(run)
    totals = Counter(verdict for _, verdict in found.elements())
    assert [int(root.attrib[key]) for key in ("tests", "failures", "errors", "skipped")] == [
        found.total(),
        totals["failed"],
        totals["broken"],
        totals["skipped"],
    ]


def test_ktap_shows_every_result(messy: tuple[RunResult, reports.Written]) -> None:
    run, written = messy
    lines = written.ktap.read_text().splitlines()
    assert lines[:2] == ["KTAP version 1", "1..4"]
    found: Counter[tuple[str, str]] = Counter()
    planned = 0
    for each in lines:
        plan = re.fullmatch(r"  1\.\.(\d+)", each)
        planned += int(plan.group(1)) if plan else 0
        point = re.fullmatch(r"  (ok|not ok) \d+ (.*?)(?: # (SKIP|ERROR).*)?", each)
        if point is None:
            assert not each.startswith(("  ok", "  not ok"))
            continue
        good, name, directive = point.groups()
        verdict = {("ok", None): "passed", ("ok", "SKIP"): "skipped", ("not ok", "ERROR"): "broken"}
        found[(name, verdict.get((good, directive), "failed"))] += 1
    assert planned == found.total()
    # KTAP does not tell whose fault a trouble outside of scenarios is: its message does.
    expected = shown(run)
    for name, verdict in list(expected):
        if name.startswith("harness: "):
            expected[(name, "failed")] += expected.pop((name, verdict))
    assert found == expected
    assert [each for each in lines if re.match(r"(not )?ok", each)] == [
        "not ok 1 Good",
        "not ok 2 Other",
        "not ok 3 Ruled",
        "not ok 4 outside of scenarios",
    ]


def test_allure_shows_every_result(messy: tuple[RunResult, reports.Written]) -> None:
    run, written = messy
    tests = [json.loads(path.read_text()) for path in written.allure_results.glob("*-result.json")]
    outsiders = {each.name for each in outside(run)}
    found = Counter(
        (each["name"] if each["name"] in outsiders else each["fullName"], each["status"]) for each in tests
    )
    assert found == shown(run)
    assert len({each["uuid"] for each in tests}) == len({each["historyId"] for each in tests}) == len(tests)
    by_id = {each["fullName"]: each for each in tests}
    for scenario in run.scenarios:
        test = by_id[scenario.id]
        labels = {(each["name"], each["value"]) for each in test["labels"]}
        assert {("wire", scenario.wire), ("health", scenario.health), ("outcome", scenario.outcome)} <= labels
        assert [step["name"] for step in test["steps"]][: len(scenario.steps)] == [
            f"{'(background) ' * step.background}{step.keyword} {step.name}" for step in scenario.steps
        ]
        if test["status"] != "passed":
            assert test["statusDetails"]["message"]
    for test in tests:
        steps = [step["status"] for step in test.get("steps", [])]
        if test["status"] == "passed":
            assert set(steps) == {"passed"}
        for each in [test, *test.get("steps", [])]:
            for attachment in each.get("attachments", []):
                assert (written.allure_results / attachment["source"]).is_file()


def test_allure_ranks_and_links_by_requirement(messy: tuple[RunResult, reports.Written]) -> None:
    _, written = messy
    (test,) = [
        each
        for path in written.allure_results.glob("*-result.json")
        if (each := json.loads(path.read_text()))["fullName"] == "good/passes"
    ]
    labels = {each["name"]: each["value"] for each in test["labels"]}
    assert (labels["epic"], labels["feature"], labels["severity"]) == ("data", "Good", "critical")
    (link,) = test["links"]
    document, _, _ = link["url"].partition("#")
    assert (written.run_dir / document).is_file()
    assert "**DATA-01** (MUST)" in test["description"]


def test_the_matrix_has_every_requirement(messy: tuple[RunResult, reports.Written], ledger: Ledger) -> None:
    _, written = messy
    rows = written.matrix.read_text().splitlines()[1:]
    assert len(rows) == len(ledger.requirements)
    (row,) = [each for each in rows if each.startswith("DATA-01,")]
    assert row.startswith("DATA-01,MUST,failed,fail,died,")


def test_a_missing_page_changes_nothing_else(
    messy: tuple[RunResult, reports.Written], ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    run, written = messy
    assert (written.page, written.missing) == (None, "no node")
    reports.show_summary(run, written, ledger=ledger)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(written.latest)
    assert [each.split() for each in lines if each.startswith("No HTML")] == [
        ["No", "HTML", "page", "no", "node"]
    ]
