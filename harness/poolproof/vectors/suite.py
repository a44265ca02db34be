# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of spec/vectors as data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolproof.errors import HarnessError

VECTORS = Path(__file__).resolve().parents[3] / "spec" / "vectors"
SCHEMA = "vectors.schema.json"


@dataclass(frozen=True, slots=True)
class Case:
    """One computation, or one thing to receive, with what must come of it."""

    id: str
    area: str
    op: str
    requirements: tuple[str, ...]
    flags: tuple[str, ...]
    input: dict[str, Any]
    expected: dict[str, Any]


def load(directory: Path = VECTORS) -> list[Case]:
    """All cases of the directory's JSON files; HarnessError when there are none or one cannot be read."""
    cases: list[Case] = []
    for path in sorted(directory.glob("*.json")):
        if path.name == SCHEMA:
            continue
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            area = document["area"]
            cases += [
                Case(
                    c["id"],
                    area,
                    c["op"],
                    tuple(c["requirements"]),
                    tuple(c["flags"]),
                    c["input"],
                    c["expected"],
                )
                for c in document["cases"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HarnessError(
                f"{path} is not a file of test vectors: {error!r}", hint="see spec/vectors/README.md"
            ) from error
    if not cases:
        raise HarnessError(f"no test vectors in {directory}", hint="python3 spec/derive/vectors.py")
    return cases
