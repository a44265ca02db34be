# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of mutants fits the reference and misses no requirement; the runner tells killed from survived."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import run
from run import ROOT, Mutant, load

MUTANTS, NONE = load()
LAST_SECTION = 18  # of protocol.md; what follows is not about version 1's packets


def required() -> set[str]:
    """The IDs of protocol.md's sections 1 to 18."""
    document = tomllib.loads((ROOT / "spec/requirements.toml").read_text())
    found = set()
    for entry in document["requirement"]:
        file, _, anchor = entry["section"].partition("#")
        if file == "protocol.md" and int(anchor.split("-")[0]) <= LAST_SECTION:
            found.add(entry["id"])
    return found


def test_every_requirement_has_a_mutant_or_a_reason_why_not() -> None:
    broken = {requirement for mutant in MUTANTS for requirement in mutant.breaks}
    assert broken | NONE.keys() == required()
    assert not broken & NONE.keys()
    assert all(reason.strip() for reason in NONE.values())
    assert len(broken) > 80


def test_each_mutant_changes_one_place_and_compiles() -> None:
    problems = []
    for mutant in MUTANTS:
        try:
            text = mutant.applied()
            compile(text, mutant.file, "exec")
        except (OSError, ValueError, SyntaxError) as error:
            problems.append(f"{mutant.name}: {error}")
            continue
        if text == mutant.source.read_text():
            problems.append(f"{mutant.name}: changes nothing")
    assert not problems, "\n".join(problems)


def test_each_mutant_names_requirements_and_tests_that_exist() -> None:
    for mutant in MUTANTS:
        assert mutant.breaks, mutant
        assert mutant.tests, mutant
        assert mutant.file.endswith(".py"), mutant
        for name in mutant.tests:
            assert Path(name).name.startswith("test_"), mutant
            assert (ROOT / "tests" / name).is_file(), mutant


def test_no_mutant_is_there_twice() -> None:
    changes = [(mutant.file, mutant.applied()) for mutant in MUTANTS]
    assert len(set(changes)) == len(changes)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("return behind < REPLAY_WINDOW and", "return behind <= REPLAY_WINDOW and", "killed"),
        ('"""Packets lost per million expected."""', '"""Packets lost."""', "survived"),
    ],
)
def test_the_runner_tells_what_is_noticed(old: str, new: str, expected: str) -> None:
    mutant = Mutant(("SEQ-02",), "replay.py", old, new, ("poolref/test_poolref_replay.py",))
    assert run.outcome(mutant) == expected


def test_the_runner_tells_tests_that_say_nothing() -> None:
    tests = ("poolref/test_poolref_replay.py",)
    change = ("return behind < REPLAY_WINDOW and", "return behind <= REPLAY_WINDOW and")
    nothing_selected = Mutant(("SEQ-02",), "replay.py", *change, tests, "no_such_test")
    assert run.outcome(nothing_selected) == "broken: its tests do not pass without it"


@pytest.mark.parametrize(
    ("status", "expected"),
    [(0, "survived"), (1, "killed"), (None, "killed"), (2, "broken: pytest ended with 2")],
)
def test_the_runner_reads_how_pytest_ended(
    monkeypatch: pytest.MonkeyPatch, status: int | None, expected: str
) -> None:
    def ended(tests: tuple[str, ...], select: str, mutant: Mutant | None) -> int | None:
        return 0 if mutant is None else status

    run.passes_unbroken.cache_clear()
    monkeypatch.setattr(run, "_pytest", ended)
    try:
        assert run.outcome(MUTANTS[0]) == expected
    finally:
        run.passes_unbroken.cache_clear()


def test_a_result_is_kept_until_what_it_depends_on_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def outcome(mutant: Mutant) -> str:
        asked.append(mutant.name)
        return "killed"

    monkeypatch.setattr(run, "outcome", outcome)
    first, second = MUTANTS[:2]
    kept: dict[str, str] = {}
    store = tmp_path / "results.jsonl"
    for mutants in ([first], [first, second], [second]):
        assert [result for _, result in run.results(mutants, kept, store)] == ["killed"] * len(mutants)
    assert asked == [first.name, second.name]
    assert len(store.read_text().splitlines()) == 2
    assert first.digest() != replace(first, new=first.new + " ").digest()
