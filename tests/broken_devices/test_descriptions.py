# SPDX-License-Identifier: GPL-2.0-or-later
"""The broken devices are complete: every directory is described, and what is described is there.

That they break as described is tested with guests, under tests/vm.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
DEVICES: list[dict[str, Any]] = tomllib.loads((HERE / "expectations.toml").read_text())["device"]
SOURCES = sorted(path.parent.name for path in HERE.glob("*/Kbuild"))


def test_every_directory_has_its_expectation_and_its_row() -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", readme, re.MULTILINE)
    assert sorted(device["name"] for device in DEVICES) == SOURCES
    assert sorted(rows) == sorted((device["name"], str(device["bisect"])) for device in DEVICES)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: str(device["name"]))
def test_expectations_are_well_formed(device: dict[str, Any]) -> None:
    assert set(device) == {"name", "stage", "bisect", "health", "reported", "absent"}
    assert device["stage"] in ("build", "load", "scenario")
    assert device["bisect"] == (1 if device["stage"] == "scenario" else 125)
    assert set(device["health"]) <= {"clean", "complained", "leaked", "died", "unknown"}
    assert device["health"]
    assert device["reported"]
    for pattern in [*device["reported"], *device["absent"]]:
        re.compile(pattern)


@pytest.mark.parametrize("name", SOURCES)
def test_objects_and_includes_resolve(name: str) -> None:
    directory = HERE / name
    kbuild = (directory / "Kbuild").read_text()
    objects = re.search(r"^pool-y := (.+)$", kbuild, re.MULTILINE)
    assert objects
    for each in objects[1].split():
        assert (directory / each).with_suffix(".c").is_file(), each
    searched = [directory / path for path in re.findall(r"-I\$\(src\)/(\S+)", kbuild)]
    for include in re.findall(r'^#include "([^"]+)"', (directory / "main.c").read_text(), re.MULTILINE):
        assert any((path / include).is_file() for path in searched), include
