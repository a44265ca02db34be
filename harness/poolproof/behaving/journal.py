# SPDX-License-Identifier: GPL-2.0-or-later
"""The run as it happens, one JSON object a line, so that a harness that is killed leaves what it knew.

Events: run_started, scenario_started, step_started, step_finished, scenario_finished, harness_error,
run_finished. A scenario_started without its scenario_finished is what the harness died in.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from poolproof.verdicts.gate import exit_status
from poolproof.verdicts.plain import from_plain, to_plain
from poolproof.verdicts.results import HarnessFault, RunResult, ScenarioResult

NAME = "journal.jsonl"


class Journal:
    """Appends events to `run_dir/journal.jsonl`; each line is out before the call returns."""

    def __init__(self, run_dir: Path) -> None:
        self._file = (run_dir / NAME).open("x", encoding="utf-8", buffering=1)

    def write(self, event: str, **content: Any) -> None:
        plain = {key: to_plain(value) for key, value in content.items()}
        record = {"event": event, "time_ns": time.time_ns(), **plain}
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


def recover(run_dir: Path) -> RunResult:
    """The results of a run that did not finish, from its journal.

    Finished scenarios stand; the one under way and those not reached are inconclusive. Raises ValueError
    if there is no usable journal.
    """
    try:
        lines = (run_dir / NAME).read_text(encoding="utf-8", errors="replace").splitlines()
        events = [each for each in map(_parse, lines) if each]
        run = from_plain(RunResult, next(each for each in events if each["event"] == "run_started")["run"])
    except (OSError, StopIteration, KeyError) as error:
        raise ValueError(f"{run_dir}: no usable journal") from error
    results = {each.id: each for each in run.scenarios}
    faults = list(run.harness_errors)
    under_way = step = ""
    for event in events:
        if event["event"] == "scenario_started":
            under_way, step = event["id"], ""
        elif event["event"] == "step_started":
            step = f" (step {event['name']!r})"
        elif event["event"] == "scenario_finished":
            result = from_plain(ScenarioResult, event["result"])
            results[result.id], under_way = result, ""
        elif event["event"] == "harness_error":
            faults.append(from_plain(HarnessFault, event["fault"]))
    if under_way:
        reason = f"the harness ended in the middle of this scenario{step}"
        results[under_way] = replace(results[under_way], reason=reason)
        faults.append(HarnessFault("run", under_way, reason))
    recovered = replace(
        run,
        scenarios=tuple(results.values()),
        harness_errors=tuple(faults),
        aborted="the harness ended before the run did",
        duration_ns=max(0, events[-1]["time_ns"] - run.started_ns),
    )
    return replace(recovered, exit_status=exit_status(recovered))


def _parse(text: str) -> dict[str, Any] | None:
    """A line of the journal; None for the torn last one of a crash."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "event" in record else None
