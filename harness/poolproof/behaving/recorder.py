# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns what happens in a run into results, so that each selected scenario gets exactly one.

The runner reports what it sees (hooks and steps that raised, steps that ended); the recorder decides. A
scenario passes only if it had steps, each of them passed, nothing was raised around them, and behave agrees.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from behave.model_type import Status

from poolproof.behaving.config import RunConfig
from poolproof.behaving.evidence import Evidence, Scope
from poolproof.behaving.journal import Journal
from poolproof.behaving.judging import Judge, Judgement, Phase
from poolproof.behaving.selecting import Case
from poolproof.reports.text import line, sanitize
from poolproof.verdicts.axes import Health, Wire, worst_wire
from poolproof.verdicts.results import HarnessFault, ScenarioResult, StepResult, StepStatus

NOT_REACHED = "not reached"
_REASON_LIMIT = 4_000


@dataclass
class _Open:
    """The scenario under way."""

    case: Case
    scope: Scope
    started_ns: int
    clock: int
    judgements: list[tuple[str, Judgement]] = field(default_factory=list)
    steps: dict[int, StepResult] = field(default_factory=dict)  # by id() of behave's step
    raised: Judgement | None = None  # by the step under way
    step_started_ns: int = 0


class Recorder:
    """Collects one run. `results` is complete once `settle` was called for every feature."""

    def __init__(
        self, config: RunConfig, selected: Sequence[Case], evidence: Evidence, journal: Journal
    ) -> None:
        self._config = config
        self._judge = Judge(config.failures, config.deaths)
        self._evidence = evidence
        self._journal = journal
        self._cases = {id(case.scenario): case for case in selected}
        self._open: _Open | None = None
        self._outside: dict[int, Judgement] = {}  # by id() of the feature or rule a hook failed for
        self.selected = selected
        self.results: dict[str, ScenarioResult] = {}
        self.faults: list[HarnessFault] = []
        self.untestable = ""
        self.aborted = ""  # a person or an option ended the run early
        self._stopped = ""  # why whatever has not run yet will not

    # -- what the runner reports

    def scenario_started(self, scenario: Any) -> None:
        case = self._cases[id(scenario)]
        scope = Scope(case.id)
        self._open = _Open(case, scope, time.time_ns(), time.monotonic_ns())
        self._evidence.enter(scope)
        self._journal.write("scenario_started", id=case.id)

    def step_started(self, step: Any) -> None:
        opened = self._open
        if opened is None:  # context.execute_steps() in a hook of a feature
            return
        opened.raised = None
        opened.step_started_ns = time.time_ns()
        opened.scope.step = self._index(opened, step)
        self._journal.write("step_started", id=opened.case.id, line=step.line, name=step.name)

    def raised(
        self, error: BaseException, where: str, phase: Phase, statement: Any = None, *, tag: str = ""
    ) -> Judgement:
        """Something was raised: by a step (`phase` STEP), a hook or a cleanup, for behave's `statement`."""
        judgement = self._judge.judge(error, phase)
        self._take(judgement, f"{where} @{tag}" if tag else where, phase, statement)
        return judgement

    def _take(self, judgement: Judgement, where: str, phase: Phase, statement: Any = None) -> None:
        if judgement.untestable:
            self.untestable = self.untestable or line(judgement.reason)
            self.stop(judgement.reason)
        if judgement.died:
            self._evidence.finding("died", judgement.reason, judgement.excerpt, Health.DIED)
        if self._open is not None:
            if phase is Phase.STEP:
                self._open.raised = self._open.raised or judgement
            self._open.judgements.append((where, judgement))
        elif phase is Phase.BEFORE:
            self._outside[id(statement)] = replace(judgement, reason=f"{where}: {judgement.reason}")
        elif judgement.status is StepStatus.FAILED:
            # After the last scenario there is no wire verdict left to give; the device still has to answer.
            self._evidence.finding(where, judgement.reason, judgement.trace)
        elif not judgement.died:
            judgement = replace(judgement, status=StepStatus.HARNESS_ERROR)
        if judgement.harness:
            self.fault(where, judgement.reason, judgement.trace)

    def step_finished(self, step: Any) -> None:
        opened = self._opened()
        status, reason, trace = StepStatus.PASSED, "", ""
        if step.status.is_undefined():
            undefined = Judgement(
                StepStatus.UNDEFINED, Wire.INCONCLUSIVE, f"undefined step: {step.keyword} {step.name}"
            )
            self._take(undefined, "step", Phase.STEP)
        judgement = opened.raised
        if judgement is not None:
            status, reason, trace = judgement.status, judgement.reason, judgement.trace
        elif step.status is Status.skipped:
            status = StepStatus.SKIPPED
        elif step.status is not Status.passed:
            status, reason = StepStatus.HARNESS_ERROR, "a hook of this step failed"
        result = self._step(step, status, reason, trace, opened.step_started_ns)
        opened.steps[id(step)] = result
        opened.scope.step, opened.raised, opened.step_started_ns = None, None, 0
        self._journal.write("step_finished", id=opened.case.id, step=result)

    def scenario_finished(self, scenario: Any, output: str) -> ScenarioResult:
        opened = self._opened()
        scope = opened.scope
        self._open = None
        self._evidence.enter(self._evidence.run_scope)
        given = len(scenario.background_steps)
        steps = tuple(
            replace(self._rest(opened, step), background=index < given)
            for index, step in enumerate(scenario.all_steps)
        )
        wire, reasons, trace = self._verdict(opened, scenario, steps)
        if scope.left_out:
            scope.notes.append(f"{scope.left_out} more attachments, findings or notes left out")
        case = opened.case
        result = replace(
            self.blank(case),
            wire=wire,
            health=scope.health,
            reason=sanitize("\n".join(reasons), _REASON_LIMIT),
            parameters={**_harmless(case.parameters), **scope.parameters},
            steps=steps,
            findings=tuple(scope.findings),
            attachments=tuple(scope.attachments),
            notes=tuple(scope.notes),
            trace=sanitize(trace),
            output=sanitize(output),
            started_ns=opened.started_ns,
            duration_ns=time.monotonic_ns() - opened.clock,
        )
        self._store(result)
        return result

    def settle(self, feature: Any) -> list[ScenarioResult]:
        """Give every selected scenario of `feature` that has none yet its result, and return these."""
        return [
            self._unrun(case)
            for case in self.selected
            if case.scenario.feature is feature and case.id not in self.results
        ]

    def fault(self, where: str, reason: str, trace: str = "") -> None:
        """An error of our own."""
        scenario = self._open.case.id if self._open is not None else ""
        fault = HarnessFault(where, scenario, sanitize(reason, _REASON_LIMIT), sanitize(trace))
        self.faults.append(fault)
        self._journal.write("harness_error", fault=fault)

    def stop(self, reason: str) -> None:
        """Nothing more is to run; the first reason counts."""
        self._stopped = self._stopped or line(reason)

    def abort(self, reason: str) -> None:
        """Nothing more is to run although it could."""
        self.aborted = self.aborted or reason
        self.stop(reason)

    @property
    def stopped(self) -> bool:
        """True if nothing more is to run."""
        return bool(self._stopped)

    # -- how results come about

    def blank(self, case: Case) -> ScenarioResult:
        """The result of a scenario that nothing has happened to yet."""
        return ScenarioResult(
            id=case.id,
            name=line(case.name),
            feature=line(case.feature),
            rule=line(case.rule),
            file=case.file,
            line=case.line,
            area=line(case.area),
            description=sanitize(case.description),
            tags=tuple(line(tag) for tag in case.tags),
            requirements=case.requirements,
            parameters=_harmless(case.parameters),
            wire=Wire.INCONCLUSIVE,
            health=Health.UNKNOWN,
            reason=NOT_REACHED,
            rerun=f"{self._config.rerun} ONLY={case.id}",
        )

    def _verdict(
        self, opened: _Open, scenario: Any, steps: tuple[StepResult, ...]
    ) -> tuple[Wire, list[str], str]:
        """The wire verdict, its reasons (worst first), and the first trace."""
        told = [(where, each) for where, each in opened.judgements if each.wire is not Wire.PASS]
        afterthoughts = [each.reason for _, each in opened.judgements if each.wire is Wire.PASS]
        if not told:
            wire, reason = self._unremarkable(scenario, steps, bool(afterthoughts))
            return wire, [*([reason] if reason else []), *afterthoughts], ""
        wire = worst_wire(each.wire for _, each in told)
        told.sort(key=lambda each: each[1].wire is not wire)
        reasons = [each.reason if where == "step" else f"{where}: {each.reason}" for where, each in told]
        trace = next((each.trace for _, each in told if each.trace), "")
        return wire, [*dict.fromkeys(reasons), *afterthoughts], trace

    def _unremarkable(
        self, scenario: Any, steps: tuple[StepResult, ...], died_after: bool
    ) -> tuple[Wire, str]:
        """The wire verdict if nothing that was raised says otherwise."""
        if scenario.should_skip:
            return _skipped(scenario)
        if self._stopped and any(step.status is not StepStatus.PASSED for step in steps):
            return Wire.INCONCLUSIVE, self._stopped
        if not scenario.steps:
            return Wire.INCONCLUSIVE, "the scenario has no steps of its own"
        unpassed = next((step for step in steps if step.status is not StepStatus.PASSED), None)
        if unpassed is None and (scenario.status is Status.passed or died_after):
            return Wire.PASS, ""
        seen = f"step {unpassed.name!r} is {unpassed.status}" if unpassed else "no step says why"
        reason = f"harness error: behave says {scenario.status.name}, {seen}"
        self.fault("scenario", reason)
        return Wire.INCONCLUSIVE, reason

    def _unrun(self, case: Case) -> ScenarioResult:
        """The result of a scenario that behave never came to."""
        steps = tuple(self._step(step, StepStatus.SKIPPED) for step in case.scenario.all_steps)
        result = replace(self.blank(case), steps=steps)
        cause = self._outside.get(id(None))
        container = case.scenario
        while container is not None and cause is None:
            container = container.parent
            cause = self._outside.get(id(container))
        if cause is not None:
            wire = Wire.NOT_SUPPORTED if cause.wire is Wire.NOT_SUPPORTED else Wire.INCONCLUSIVE
            result = replace(result, wire=wire, reason=f"not run: {sanitize(cause.reason, _REASON_LIMIT)}")
        elif self._stopped:
            result = replace(result, reason=f"not run: {self._stopped}")
        elif case.scenario.should_skip:
            wire, reason = _skipped(case.scenario)
            result = replace(result, wire=wire, reason=reason)
        else:
            result = replace(result, reason="harness error: the scenario was selected but never ran")
            self.faults.append(HarnessFault("run", case.id, result.reason))
        self._store(result)
        return result

    def _rest(self, opened: _Open, step: Any) -> StepResult:
        """The result of `step`; of one that did not run if there is none."""
        known = opened.steps.get(id(step))
        if known is not None:
            return known
        undefined = step.status.is_undefined()
        return self._step(step, StepStatus.UNDEFINED if undefined else StepStatus.SKIPPED)

    def _step(
        self, step: Any, status: StepStatus, reason: str = "", trace: str = "", started_ns: int = 0
    ) -> StepResult:
        table = step.table
        rows = [] if table is None else [table.headings, *(row.cells for row in table)]
        return StepResult(
            keyword=step.keyword,
            name=line(step.name),
            status=status,
            line=step.line,
            started_ns=started_ns,
            duration_ns=max(0, round(step.duration * 1e9)),
            reason=sanitize(reason, _REASON_LIMIT),
            trace=sanitize(trace),
            text=sanitize(step.text or ""),
            table=tuple(tuple(line(cell) for cell in row) for row in rows),
        )

    def _store(self, result: ScenarioResult) -> None:
        self.results[result.id] = result
        self._journal.write("scenario_finished", result=result)

    def _opened(self) -> _Open:
        if self._open is None:
            raise RuntimeError("no scenario is under way")
        return self._open

    @staticmethod
    def _index(opened: _Open, step: Any) -> int | None:
        ids = [id(each) for each in opened.case.scenario.all_steps]
        return ids.index(id(step)) if id(step) in ids else None


def _skipped(scenario: Any) -> tuple[Wire, str]:
    """A scenario that was skipped on purpose: only a reason makes that a declared lack."""
    if scenario.skip_reason:
        return Wire.NOT_SUPPORTED, f"skipped: {line(scenario.skip_reason)}"
    return Wire.INCONCLUSIVE, "skipped without a reason"


def _harmless(parameters: dict[str, str]) -> dict[str, str]:
    return {line(name, 60): line(value, 200) for name, value in parameters.items()}
