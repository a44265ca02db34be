# SPDX-License-Identifier: GPL-2.0-or-later
"""The requirement matrix: what this run says about each requirement of the ledger."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from poolproof.verdicts.axes import Outcome
from poolproof.verdicts.requirements import RequirementResult

_COLUMNS = ("requirement", "level", "outcome", "wire", "health", "section", "statement", "scenarios")


def write(rolled: Sequence[RequirementResult], path: Path) -> None:
    """Write one row for each requirement as CSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(_COLUMNS)
        for each in rolled:
            requirement = each.requirement
            writer.writerow(
                (
                    requirement.id,
                    requirement.level,
                    each.outcome,
                    each.wire or "",
                    each.health or "",
                    requirement.section,
                    requirement.statement,
                    " ".join(each.scenarios),
                )
            )


def counts(rolled: Sequence[RequirementResult]) -> dict[str, Counter[Outcome]]:
    """Outcomes counted for each level."""
    table: dict[str, Counter[Outcome]] = {}
    for each in rolled:
        table.setdefault(each.requirement.level, Counter())[each.outcome] += 1
    return table
