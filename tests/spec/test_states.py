# SPDX-License-Identifier: GPL-2.0-or-later
"""spec/states.md is what the state table says, all of it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from poolref.constants import State, Type
from poolref.counters import DropReason
from poolref.states import LOCAL, TABLE, lookup
from poolref.tools.state_document import document

DOCUMENT = Path(__file__).resolve().parents[2] / "spec" / "states.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def test_the_file_is_current() -> None:
    written = subprocess.run(
        [sys.executable, "-m", "poolref.tools.state_document"], capture_output=True, text=True, check=True
    )
    assert written.stdout == TEXT, "run: python -m poolref.tools.state_document > spec/states.md"


def arrows(text: str) -> dict[tuple[str, str], set[str]]:
    """(from, to) -> the labels of the diagram's arrows between named states."""
    found: dict[tuple[str, str], set[str]] = {}
    for source, target, label in re.findall(r"^    (\w+) --> (\w+) : (.+)$", text, re.MULTILINE):
        found.setdefault((source, target), set()).add(label)
    return found


def test_the_diagram_has_every_change_of_state_and_no_other() -> None:
    drawn = arrows(TEXT)
    for state in State:
        for target in State:
            labels = drawn.pop((state.name, target.name), set())
            cause = LOCAL.get((state, target))
            assert (cause in labels) == (cause is not None)
            (types,) = labels - {cause} or {""}
            reached = [
                kind.name
                for kind in Type
                if not isinstance(step := lookup(state, kind), DropReason) and step.target is target
            ]
            assert types == ", ".join(reached), (state, target)
    assert drawn == {}


def test_the_table_has_every_pair() -> None:
    rows = re.findall(r"^\| 0x(\w) \w+ \|(.*)\|$", TEXT, re.MULTILINE)
    assert len(rows) == len(Type)
    for digit, cells in rows:
        for state, cell in zip(State, cells.split("|"), strict=True):
            step = lookup(state, int(digit, 16))
            if isinstance(step, DropReason):
                assert not cell.strip()
                continue
            action, _, target = cell.strip().partition(" → ")
            assert action.replace(" ", "_") == step.action
            assert (target or state.name) == step.target.name


def test_a_changed_table_changes_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE, (State.CLOSING, Type.ACK))
    assert document() != TEXT
    monkeypatch.undo()
    monkeypatch.delitem(LOCAL, (State.REKEYING, State.ESTABLISHED))
    assert document() != TEXT
