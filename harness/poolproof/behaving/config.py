# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run of the features needs to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from poolproof.verdicts.results import Environment


@dataclass(frozen=True)
class RunConfig:
    """One run of the scenarios under `features` (a directory with steps/ and environment.py).

    run_dir   exists; journal.jsonl, results.json and evidence/ are written into it.
    tags      behave tag expressions ("@req.HS-04", "not @slow"); a scenario must satisfy each of them.
    only      scenarios to run: an ID, an ID's leading part, a shell pattern of IDs, FILE.feature[:LINE] or a
              part of the name; empty runs everything.
    rerun     the command that repeats this run; ` ONLY=<id>` is appended for a single scenario.
    context   attributes for behave's context, there before before_all runs.
    failures  exceptions that mean the device did wrong, as an AssertionError does.
    deaths    exceptions that mean the device is gone, as DeviceDied does: the message says what died and of
              what, an `excerpt` attribute is kept.
    stream    where progress goes (default: stdout); live only if it is a terminal.
    """

    features: Path
    run_dir: Path
    environment: Environment = field(default_factory=Environment)
    tool_version: str = ""
    spec_id: str = ""
    command: str = ""
    rerun: str = "make conformance"
    tags: Sequence[str] = ()
    only: Sequence[str] = ()
    fail_fast: bool = False
    bisect: bool = False
    context: Mapping[str, object] = field(default_factory=dict)
    failures: tuple[type[BaseException], ...] = ()
    deaths: tuple[type[BaseException], ...] = ()
    stream: TextIO | None = None
