# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases of spec/vectors as parameters of tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

VECTORS = Path(__file__).parents[2] / "spec" / "vectors"


def cases(area: str, op: str) -> list[Any]:
    """``(input, expected)`` of each case of one operation."""
    return [
        pytest.param(case["input"], case["expected"], id=case["id"])
        for case in json.loads((VECTORS / f"{area}.json").read_text())["cases"]
        if case["op"] == op
    ]
