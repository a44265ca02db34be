# SPDX-License-Identifier: GPL-2.0-or-later
"""The requirement ledger (`spec/requirements.toml`) and what a run says about each of its entries."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from poolproof.errors import HarnessError
from poolproof.verdicts.axes import Health, Outcome, Wire, outcome, worst_health, worst_wire
from poolproof.verdicts.results import RunResult, ScenarioResult

TAG = "req."  # @req.HS-04 on a scenario says that it checks HS-04


class Level(StrEnum):
    """RFC 2119's words, in descending force."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One statement of the specification. `section` names its place; `seed` the sources it was drawn from."""

    id: str
    level: Level
    statement: str
    section: str
    seed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ledger:
    """All requirements by ID, in the file's order. `spec_id` identifies this exact text of them."""

    requirements: Mapping[str, Requirement]
    spec_id: str


@dataclass(frozen=True, slots=True)
class RequirementResult:
    """The worst that this run's scenarios say about a requirement, on both axes (None: none ran)."""

    requirement: Requirement
    scenarios: tuple[str, ...]
    wire: Wire | None
    health: Health | None

    @property
    def outcome(self) -> Outcome:
        """Both axes in one word; `not run` if no scenario of this run checks it."""
        if self.wire is None or self.health is None:
            return Outcome.NOT_RUN
        return outcome(self.wire, self.health)


def load(path: Path) -> Ledger:
    """Read a ledger: `[[requirement]]` tables with id, level, statement, section and optionally seed.

    Raises HarnessError naming the file and the entry if it is malformed or an ID comes twice.
    """
    try:
        raw = path.read_bytes()
        tables = tomllib.loads(raw.decode("utf-8")).get("requirement", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise HarnessError(f"requirement ledger {path}: {error}") from error
    found: dict[str, Requirement] = {}
    for number, table in enumerate(tables, start=1):
        requirement = _requirement(table, f"{path}: requirement {number}")
        if requirement.id in found:
            raise HarnessError(f"{path}: {requirement.id} is there twice")
        found[requirement.id] = requirement
    return Ledger(found, hashlib.sha256(raw).hexdigest()[:16])


def _requirement(table: object, where: str) -> Requirement:
    if not isinstance(table, dict):
        raise HarnessError(f"{where}: not a table")
    texts = {key: table.get(key) for key in ("id", "level", "statement", "section")}
    for key, text in texts.items():
        if not isinstance(text, str) or not text.strip():
            raise HarnessError(f"{where}: {key} is missing or not a text")
    if texts["level"] not in set(Level):
        raise HarnessError(f"{where}: level is {texts['level']!r}, not one of {', '.join(Level)}")
    seed = table.get("seed", [])
    seeds = (seed,) if isinstance(seed, str) else tuple(str(each) for each in seed)
    return Requirement(
        id=str(texts["id"]).strip(),
        level=Level(str(texts["level"])),
        statement=" ".join(str(texts["statement"]).split()),
        section=str(texts["section"]).strip(),
        seed=seeds,
    )


def tagged(tags: Iterable[str]) -> tuple[str, ...]:
    """The requirement IDs among a scenario's tags, sorted."""
    return tuple(sorted({tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)}))


def roll_up(ledger: Ledger, run: RunResult) -> list[RequirementResult]:
    """One result for each requirement of the ledger, in its order."""
    by_id: dict[str, list[ScenarioResult]] = {}
    for scenario in run.scenarios:
        for requirement in scenario.requirements:
            by_id.setdefault(requirement, []).append(scenario)
    return [_rolled(each, by_id.get(each.id, [])) for each in ledger.requirements.values()]


def _rolled(requirement: Requirement, scenarios: list[ScenarioResult]) -> RequirementResult:
    if not scenarios:
        return RequirementResult(requirement, (), None, None)
    return RequirementResult(
        requirement,
        tuple(each.id for each in scenarios),
        worst_wire(each.wire for each in scenarios),
        worst_health(each.health for each in scenarios),
    )


def unknown(ledger: Ledger, scenarios: Iterable[ScenarioResult]) -> dict[str, list[str]]:
    """Requirement IDs that scenarios claim but the ledger lacks, with those scenarios' IDs."""
    missing: dict[str, list[str]] = {}
    for scenario in scenarios:
        for requirement in scenario.requirements:
            if requirement not in ledger.requirements:
                missing.setdefault(requirement, []).append(scenario.id)
    return missing
