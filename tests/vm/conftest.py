# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests that boot virtual machines run only when asked for: ``pytest -m vm tests/vm``."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vm: boots virtual machines; minutes, not seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "vm" in config.getoption("markexpr"):
        return
    unasked = [item for item in items if item.get_closest_marker("vm")]
    if unasked:
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]
