# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of a run as plain data. `results.json` is the truth; every report is a view of it.

Times are integer nanoseconds: `started_ns` since the epoch, `duration_ns` monotonic. Paths of attachments
are relative to the run's directory. The shape on disk is described by `results.schema.json` beside this file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from poolproof.verdicts.axes import Health, Outcome, Wire, outcome
from poolproof.verdicts.plain import from_plain, to_plain

FORMAT = "poolproof-results/1"
SCHEMA = Path(__file__).with_name("results.schema.json")


class StepStatus(StrEnum):
    """How one step ended. SKIPPED: an earlier step or hook had already ended the scenario."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    NOT_SUPPORTED = "not_supported"
    DIED = "died"
    HARNESS_ERROR = "harness_error"
    UNDEFINED = "undefined"
    PENDING = "pending"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A piece of evidence. `cut` bytes were left out because of the size cap.

    `step` is the index of the step it was taken in, None when taken by a hook.
    """

    name: str
    path: str
    mime: str
    size: int
    cut: int = 0
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the device's health: `kind` groups (oops, warning, leak, ...), `title` is one line."""

    health: Health
    kind: str
    title: str
    excerpt: str = ""
    step: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step; `text` and `table` as in the feature file, `trace` only where it helps (not for asserts)."""

    keyword: str
    name: str
    status: StepStatus
    line: int
    started_ns: int = 0
    duration_ns: int = 0
    reason: str = ""
    trace: str = ""
    text: str = ""
    table: tuple[tuple[str, ...], ...] = ()
    background: bool = False


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """One scenario (one row of an outline). `id` is stable across runs, also when lines move."""

    id: str
    name: str
    feature: str
    rule: str
    file: str
    line: int
    area: str
    description: str
    tags: tuple[str, ...]
    requirements: tuple[str, ...]
    parameters: dict[str, str]
    wire: Wire
    health: Health
    reason: str
    rerun: str
    steps: tuple[StepResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    notes: tuple[str, ...] = ()
    trace: str = ""
    output: str = ""
    started_ns: int = 0
    duration_ns: int = 0

    @property
    def outcome(self) -> Outcome:
        """Both axes in one word."""
        return outcome(self.wire, self.health)


@dataclass(frozen=True, slots=True)
class HarnessFault:
    """An error of ours, never the device's. `scenario` is empty if it happened outside of any."""

    where: str
    scenario: str
    reason: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """What was tested, on what, from which seed.

    `device` is its kind (reference, kernel, ...), `build_id` identifies the exact build under test.
    `details` takes anything else worth showing.
    """

    device: str = ""
    build_id: str = ""
    release: str = ""
    kernel: str = ""
    accelerator: str = ""
    accelerator_evidence: str = ""
    cpu: str = ""
    seed: int = 0
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunResult:
    """A whole run. `selected` scenarios were to run; as many results are in `scenarios`, whatever happened.

    `untestable` says why the device could not be tested at all, `aborted` why the run ended early although it
    could have gone on. `findings` and `attachments` here belong to no single scenario.
    """

    tool_version: str
    spec_id: str
    command: str
    started: str
    environment: Environment
    selected: int
    deselected: int
    scenarios: tuple[ScenarioResult, ...]
    harness_errors: tuple[HarnessFault, ...] = ()
    findings: tuple[Finding, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    untestable: str = ""
    aborted: str = ""
    started_ns: int = 0
    duration_ns: int = 0
    exit_status: int = 2
    format: str = FORMAT

    @property
    def complete(self) -> bool:
        """True if every selected scenario has exactly one result."""
        return len({scenario.id for scenario in self.scenarios}) == len(self.scenarios) == self.selected


def save(run: RunResult, path: Path) -> None:
    """Write `run` as JSON, atomically: readers see the old file or the whole new one."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(to_plain(run), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)


def load(path: Path) -> RunResult:
    """Read what `save` wrote. Raises ValueError on a file that is not of this format."""
    plain = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        raise ValueError(f"{path}: not a {FORMAT} file")
    return from_plain(RunResult, plain)
