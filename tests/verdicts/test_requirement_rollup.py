# SPDX-License-Identifier: GPL-2.0-or-later
"""The ledger is read strictly, and a requirement is as good as its worst scenario."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.verdicts import Health, Wire, requirements
from poolproof.verdicts.results import Environment, RunResult, ScenarioResult

LEDGER = """
[[requirement]]
id = "HS-01"
level = "MUST"
statement = "Says\\n  hello."
section = "protocol.md#3"
seed = "4.2"

[[requirement]]
id = "HS-02"
level = "SHOULD"
statement = "Says it twice."
section = "protocol.md#3"

[[requirement]]
id = "HS-03"
level = "MAY"
statement = "Sings."
section = "protocol.md#3"
seed = ["1", "2"]
"""


def scenario(name: str, wire: str, health: str, *ids: str) -> ScenarioResult:
    return ScenarioResult(
        name, name, "F", "", "f.feature", 1, "a", "", (), ids, {}, Wire(wire), Health(health), "r", "make"
    )


def test_the_shipped_ledger_loads() -> None:
    ledger = requirements.load(Path(__file__).parents[2] / "spec" / "requirements.toml")
    assert len(ledger.requirements) > 50
    assert len(ledger.spec_id) == 16


def test_roll_up(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(LEDGER)
    ledger = requirements.load(path)
    assert ledger.requirements["HS-01"].statement == "Says hello."
    assert [each.seed for each in ledger.requirements.values()] == [("4.2",), (), ("1", "2")]
    scenarios = (
        scenario("a", "pass", "clean", "HS-01", "HS-02"),
        scenario("b", "pass", "leaked", "HS-02"),
        scenario("c", "fail", "clean", "HS-01", "HS-99"),
    )
    run = RunResult("", "", "", "", Environment(), 3, 0, scenarios)
    first, second, third = requirements.roll_up(ledger, run)
    assert (first.wire, first.health, str(first.outcome)) == (Wire.FAIL, Health.CLEAN, "failed")
    assert first.scenarios == ("a", "c")
    assert (second.wire, second.health) == (Wire.PASS, Health.LEAKED)
    assert str(second.outcome) == "passed but leaked"
    assert (third.wire, third.health, str(third.outcome)) == (None, None, "not run")
    assert requirements.unknown(ledger, scenarios) == {"HS-99": ["c"]}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"HS-02"', '"HS-01"', "HS-01 is there twice"),
        ('"SHOULD"', '"OUGHT"', "requirement 2: level is 'OUGHT'"),
        ('statement = "Sings."', "", "requirement 3: statement is missing"),
        ("[[requirement]]", "[[requirement", "requirement ledger"),
    ],
)
def test_a_malformed_ledger_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(LEDGER.replace(old, new))
    with pytest.raises(HarnessError) as caught:
        requirements.load(path)
    assert message in str(caught.value)


def test_tags_name_requirements() -> None:
    assert requirements.tagged(["slow", "req.B-2", "req.A-1", "req.B-2"]) == ("A-1", "B-2")
