# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the features: `run(config)` drives behave in this process and returns the run's results."""

from __future__ import annotations

import time
from dataclasses import replace

from poolproof.behaving.config import RunConfig
from poolproof.behaving.evidence import Evidence
from poolproof.behaving.journal import Journal, recover
from poolproof.behaving.progress import Progress
from poolproof.behaving.recorder import Recorder
from poolproof.behaving.runner import FeatureRunner, parse
from poolproof.behaving.selecting import Case, select
from poolproof.verdicts.gate import exit_status
from poolproof.verdicts.results import RunResult, save

__all__ = ["Case", "Evidence", "RunConfig", "listing", "recover", "run"]

RESULTS = "results.json"


def listing(config: RunConfig) -> list[Case]:
    """The scenarios that `run` would run. Raises HarnessError as `run` does."""
    return select(parse(config.features), config.tags, config.only)


def run(config: RunConfig) -> RunResult:
    """Run the selected scenarios; write `journal.jsonl` while they run, `results.json` at the end.

    Hooks and steps find `context.evidence` (an `Evidence`) and whatever `config.context` holds. Raises
    HarnessError if nothing could be started: unparsable features or steps, nothing selected. Whatever goes
    wrong later is in the results. Not reentrant: behave keeps its steps in global state.
    """
    found = parse(config.features)
    selected = select(found, config.tags, config.only)
    evidence = Evidence(config.run_dir, config.environment)
    journal = Journal(config.run_dir)
    started_ns, clock = time.time_ns(), time.monotonic_ns()
    config = replace(config, context={**config.context, "evidence": evidence})
    recorder = Recorder(config, selected, evidence, journal)
    result = RunResult(
        tool_version=config.tool_version,
        spec_id=config.spec_id,
        command=config.command,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started_ns // 10**9)),
        environment=config.environment,
        selected=len(selected),
        deselected=len(found) - len(selected),
        scenarios=tuple(recorder.blank(case) for case in selected),
        started_ns=started_ns,
    )
    try:
        journal.write("run_started", run=result)
        with Progress(len(selected), config.stream) as progress:
            FeatureRunner(config, found, recorder).run(progress)
        result = replace(
            result,
            environment=evidence.environment,
            scenarios=tuple(recorder.results[case.id] for case in selected if case.id in recorder.results),
            harness_errors=tuple(recorder.faults),
            findings=tuple(evidence.run_scope.findings),
            attachments=tuple(evidence.run_scope.attachments),
            untestable=recorder.untestable,
            aborted=recorder.aborted,
            duration_ns=time.monotonic_ns() - clock,
        )
        result = replace(result, exit_status=exit_status(result, bisect=config.bisect))
        save(result, config.run_dir / RESULTS)
        journal.write("run_finished", exit_status=result.exit_status)
    finally:
        journal.close()
    return result
