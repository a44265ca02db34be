# SPDX-License-Identifier: GPL-2.0-or-later
"""Results survive the disk, fit the schema, and their axes combine as documented."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from poolproof.verdicts import Health, Outcome, Wire, results
from poolproof.verdicts.axes import outcome, worst_health, worst_wire
from poolproof.verdicts.gate import exit_status
from poolproof.verdicts.plain import from_plain, to_plain
from poolproof.verdicts.results import (
    Attachment,
    Environment,
    Finding,
    HarnessFault,
    RunResult,
    ScenarioResult,
    StepResult,
    StepStatus,
)

SCENARIO = ScenarioResult(
    id="data/one/ipv4",
    name="one",
    feature="Data",
    rule="",
    file="features/data.feature",
    line=3,
    area="data",
    description="",
    tags=("req.DATA-01",),
    requirements=("DATA-01",),
    parameters={"family": "IPv4"},
    wire=Wire.PASS,
    health=Health.LEAKED,
    reason="",
    rerun="make conformance ONLY=data/one/ipv4",
    steps=(StepResult("Given ", "a\u2028b", StepStatus.PASSED, 4, table=(("a", "b"), ("1", "2"))),),
    findings=(Finding(Health.LEAKED, "kmemleak", "3 objects", step=0),),
    attachments=(Attachment("console", "evidence/data/one/ipv4/01-console.txt", "text/plain", 5),),
)
RUN = RunResult(
    tool_version="0.1.0",
    spec_id="0123",
    command="make conformance",
    started="2026-11-24T05:00:00Z",
    environment=Environment(device="kernel", seed=7, details={"qemu": "7.2"}),
    selected=1,
    deselected=0,
    scenarios=(SCENARIO,),
    harness_errors=(HarnessFault("step", "data/one/ipv4", "KeyError"),),
    exit_status=1,
)


def run_of(*verdicts: tuple[str, str], **changes: Any) -> RunResult:
    scenarios = tuple(
        replace(SCENARIO, id=f"s/{index}", wire=Wire(wire), health=Health(health), reason="r")
        for index, (wire, health) in enumerate(verdicts)
    )
    whole: dict[str, Any] = {"scenarios": scenarios, "selected": len(scenarios), "harness_errors": ()}
    return replace(RUN, **{**whole, **changes})


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.save(RUN, path)
    assert results.load(path) == RUN
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_what_is_saved_fits_the_schema() -> None:
    schema = json.loads(results.SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(to_plain(RUN))
    for change in (
        {"exit_status": 3},
        {"format": "other"},
        {"started": "yesterday"},
        {"scenarios": (replace(SCENARIO, id="Über"),)},
        {"scenarios": (replace(SCENARIO, wire=Wire.FAIL, reason=""),)},
        {"attachments": (Attachment("x", "evidence/../../x", "text/plain", 0),)},
    ):
        assert list(validator.iter_errors(to_plain(replace(RUN, **change)))), change


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", RunResult),
        ("scenario", ScenarioResult),
        ("step", StepResult),
        ("attachment", Attachment),
        ("finding", Finding),
        ("fault", HarnessFault),
        ("environment", Environment),
    ],
)
def test_the_schema_names_every_field(name: str, kind: Any) -> None:
    schema = json.loads(results.SCHEMA.read_text())
    shape = schema["$defs"][name] if name else schema
    assert set(shape["properties"]) == {each.name for each in fields(kind)} == set(shape["required"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"selected": "1"}, r"\$\.selected: expected int"),
        ({"selected": True}, r"\$\.selected: expected int"),
        ({"surprise": 1}, "unknown surprise"),
        ({"scenarios": [{}]}, r"\$\.scenarios\[0\]: id is missing"),
        ({"scenarios": {}}, "expected list"),
        ({"scenarios": [{**to_plain(SCENARIO), "wire": "great"}]}, "great"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(RunResult, {**to_plain(RUN), **change})


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"format": "poolproof-results/99"}')
    with pytest.raises(ValueError, match="not a poolproof-results/1 file"):
        results.load(path)


def test_a_pass_is_only_clean_if_the_device_is_not_hurt() -> None:
    passes = {health: str(outcome(Wire.PASS, health)) for health in Health}
    assert passes == {
        Health.CLEAN: "passed",
        Health.UNKNOWN: "passed",
        Health.COMPLAINED: "passed but complained",
        Health.LEAKED: "passed but leaked",
        Health.DIED: "passed but died",
    }
    assert outcome(Wire.FAIL, Health.DIED) is Outcome.FAILED
    assert worst_wire([Wire.PASS, Wire.FAIL, Wire.INCONCLUSIVE]) is Wire.FAIL
    assert worst_wire([Wire.NOT_SUPPORTED, Wire.PASS]) is Wire.NOT_SUPPORTED
    assert worst_health([Health.CLEAN, Health.UNKNOWN]) is Health.UNKNOWN
    assert worst_health([Health.LEAKED, Health.DIED, Health.CLEAN]) is Health.DIED


FAULT = (HarnessFault("run", "", "x"),)
FINDING = (Finding(Health.DIED, "panic", "x"),)


@pytest.mark.parametrize(
    ("run", "status", "bisecting"),
    [
        (run_of(("pass", "clean"), ("pass", "unknown")), 0, 0),
        (run_of(("pass", "clean"), ("not_supported", "unknown")), 0, 0),
        (run_of(("pass", "clean"), ("fail", "clean")), 1, 1),
        (run_of(("pass", "leaked")), 1, 1),
        (run_of(("pass", "clean"), ("inconclusive", "unknown")), 1, 125),
        (run_of(("inconclusive", "died")), 1, 1),
        (run_of(("pass", "clean"), findings=FINDING), 1, 1),
        (run_of(("not_supported", "unknown")), 1, 125),
        (run_of(("inconclusive", "unknown"), untestable="does not compile"), 1, 125),
        (run_of(("inconclusive", "died"), untestable="panics in init"), 1, 125),
        (run_of(("fail", "clean"), ("inconclusive", "unknown"), untestable="refuses to load again"), 1, 1),
        (run_of(("pass", "clean"), harness_errors=FAULT), 2, 125),
        (run_of(("fail", "clean"), harness_errors=FAULT), 1, 1),
        (run_of(("pass", "clean"), aborted="interrupted"), 2, 125),
        (run_of(("pass", "clean"), selected=2), 2, 125),
        (run_of(), 1, 125),
    ],
)
def test_the_exit_status(run: RunResult, status: int, bisecting: int) -> None:
    assert (exit_status(run), exit_status(run, bisect=True)) == (status, bisecting)
