# SPDX-License-Identifier: GPL-2.0-or-later
"""Results in Allure's own format, made from the run's data through the model of allure-python-commons.

allure-behave's listener is not used: it shows failing hooks as passes and loses scenarios under `Rule:`. Here
every scenario of results.json becomes one test, and so does each trouble outside of scenarios.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allure_commons.logger import AllureFileLogger
from allure_commons.model2 import (
    GlobalAttachment,
    GlobalError,
    Globals,
    Label,
    Link,
    Parameter,
    StatusDetails,
    TestResult,
    TestStepResult,
)
from allure_commons.types import LabelType, LinkType, Severity

from poolproof.reports import documents
from poolproof.reports.embedding import BAD_ALLOWANCE, GOOD_ALLOWANCE, Embedder
from poolproof.reports.facts import facts
from poolproof.reports.text import sanitize
from poolproof.reports.wording import Outside, Status, describe, explain, outside, status
from poolproof.verdicts.requirements import Level, Requirement
from poolproof.verdicts.results import Finding, RunResult, ScenarioResult, StepResult, StepStatus

MESSAGE_LIMIT, TRACE_LIMIT = 8 << 10, 8 << 10
FINDINGS_SHOWN = 12  # of one scenario; all are in results.json

_STEP = {
    StepStatus.PASSED: Status.PASSED,
    StepStatus.FAILED: Status.FAILED,
    StepStatus.DIED: Status.FAILED,
    StepStatus.INCONCLUSIVE: Status.BROKEN,
    StepStatus.HARNESS_ERROR: Status.BROKEN,
    StepStatus.UNDEFINED: Status.BROKEN,
    StepStatus.PENDING: Status.BROKEN,
    StepStatus.NOT_SUPPORTED: Status.SKIPPED,
    StepStatus.SKIPPED: Status.SKIPPED,
}
_SEVERITY = {Level.MUST: Severity.CRITICAL, Level.SHOULD: Severity.NORMAL, Level.MAY: Severity.MINOR}


@dataclass(frozen=True, slots=True)
class Labelled:
    """What is known about requirements, and where the specification's documents are linked to."""

    requirements: Mapping[str, Requirement]
    spec: str = "spec"  # the documents' directory, relative to the page


def write(run: RunResult, run_dir: Path, target: Path, labelled: Labelled, limit: int) -> None:
    """Write `run` as Allure results into `target`, which is emptied first; `limit` bytes of attachments."""
    writer = _Writer(run, run_dir, target, labelled, limit)
    # What is bad first: it gets its evidence into the page if there is not room for all.
    for scenario in sorted(run.scenarios, key=lambda each: status(each) is Status.PASSED):
        writer.scenario(scenario)
    for number, trouble in enumerate(outside(run)):
        writer.trouble(number, trouble)
    writer.globals()
    environment = "".join(f"{_property(key)} = {_property(value)}\n" for key, value in facts(run))
    (target / "environment.properties").write_text(environment, encoding="ascii")
    executor = {"name": f"poolproof {run.tool_version}", "type": "poolproof", "buildName": run.started}
    (target / "executor.json").write_text(json.dumps(executor), encoding="utf-8")


class _Writer:
    def __init__(self, run: RunResult, run_dir: Path, target: Path, labelled: Labelled, limit: int) -> None:
        self._run = run
        self._run_dir = run_dir
        make_logger: Any = AllureFileLogger  # allure_commons has no types
        self._logger = make_logger(target, clean=True)
        self._labelled = labelled
        self._embed = Embedder(self._logger.report_attached_data, run_dir, limit)

    # -- scenarios

    def scenario(self, scenario: ScenarioResult) -> None:
        verdict = status(scenario)
        self._embed.begin(GOOD_ALLOWANCE if verdict is Status.PASSED else BAD_ALLOWANCE)
        findings = scenario.findings[:FINDINGS_SHOWN]
        steps = [self._step(index, step, scenario, findings) for index, step in enumerate(scenario.steps)]
        steps.extend(self._finding(each, scenario) for each in findings if each.step is None)
        attachments = []
        for each in scenario.attachments:
            if each.step is None:
                attachments += self._embed.evidence(each)
        for name, text in (("notes", "\n".join(scenario.notes)), ("output of the steps", scenario.output)):
            if text:
                attachments += self._embed.text(name, text)
        attachments += self._embed.beside()
        trouble = _details(explain(scenario), scenario.trace)
        self._logger.report_result(
            TestResult(
                uuid=self._uuid(scenario.id),
                historyId=scenario.id,
                testCaseId=scenario.id,
                fullName=scenario.id,
                name=scenario.name,
                titlePath=[each for each in (scenario.area, scenario.feature, scenario.rule) if each],
                status=verdict.value,
                statusDetails=None if verdict is Status.PASSED else trouble,
                stage="finished",
                description=self._description(scenario),
                steps=steps,
                attachments=attachments,
                parameters=[Parameter(name=key, value=value) for key, value in scenario.parameters.items()],
                labels=self._labels(scenario),
                links=self._links(scenario),
                start=scenario.started_ns // 10**6 or None,
                stop=(scenario.started_ns + scenario.duration_ns) // 10**6 or None,
            )
        )

    def _step(
        self, index: int, step: StepResult, scenario: ScenarioResult, findings: Sequence[Finding]
    ) -> TestStepResult:
        inner = [self._finding(each, scenario) for each in findings if each.step == index]
        attachments = []
        if step.table:
            buffer = io.StringIO()
            csv.writer(buffer).writerows(step.table)
            attachments += self._embed.text("table", buffer.getvalue(), "text/csv")
        if step.text:
            attachments += self._embed.text("text", step.text)
        for each in scenario.attachments:
            if each.step == index:
                attachments += self._embed.evidence(each)
        details = _details(step.reason, step.trace) if step.reason else None
        # A step that Allure shows green must not hide a finding that turned the scenario red.
        verdict = _STEP[step.status]
        if verdict is Status.PASSED and any(each.status == Status.FAILED.value for each in inner):
            verdict = Status.FAILED
        prefix = "(background) " if step.background else ""
        return TestStepResult(
            name=f"{prefix}{step.keyword} {step.name}",
            status=verdict.value,
            statusDetails=details,
            stage="finished",
            steps=inner,
            attachments=attachments,
            start=step.started_ns // 10**6 or None,
            stop=(step.started_ns + step.duration_ns) // 10**6 or None,
        )

    def _finding(self, finding: Finding, scenario: ScenarioResult) -> TestStepResult:
        attachments = []
        if finding.excerpt:
            attachments += self._embed.text("console excerpt", finding.excerpt)
        verdict = Status.FAILED if finding.health.hurt else Status.PASSED
        end = (scenario.started_ns + scenario.duration_ns) // 10**6 or None
        return TestStepResult(
            name=f"Device health: {describe(finding)}",
            status=verdict.value,
            stage="finished",
            attachments=attachments,
            start=end,
            stop=end,
        )

    def _labels(self, scenario: ScenarioResult) -> list[Label]:
        pairs = [
            ("wire", scenario.wire),
            ("health", scenario.health),
            ("outcome", scenario.outcome),
            (LabelType.EPIC, scenario.area),
            (LabelType.FEATURE, scenario.feature),
            (LabelType.STORY, scenario.rule),
            (LabelType.PARENT_SUITE, scenario.area),
            (LabelType.SUITE, scenario.feature),
            (LabelType.SUB_SUITE, scenario.rule),
            (LabelType.SEVERITY, self._severity(scenario)),
            (LabelType.FRAMEWORK, "behave"),
            (LabelType.LANGUAGE, "gherkin"),
            *((LabelType.TAG, tag) for tag in scenario.tags),
            *(("requirement", each) for each in scenario.requirements),
        ]
        if any(fault.scenario == scenario.id for fault in self._run.harness_errors):
            pairs.append(("harness", "error"))
        return [Label(name=str(name), value=str(value)) for name, value in pairs if value]

    def _severity(self, scenario: ScenarioResult) -> str:
        levels = [each.level for each in self._known(scenario)]
        return next((_SEVERITY[level].value for level in Level if level in levels), Severity.NORMAL.value)

    def _known(self, scenario: ScenarioResult) -> list[Requirement]:
        known = self._labelled.requirements
        return [known[each] for each in scenario.requirements if each in known]

    def _links(self, scenario: ScenarioResult) -> list[Link]:
        return [
            Link(
                type=LinkType.LINK,
                url=f"{self._labelled.spec}/{documents.link(each.section)}",
                name=f"{each.id} {each.section}",
            )
            for each in self._known(scenario)
        ]

    def _description(self, scenario: ScenarioResult) -> str:
        """Markdown. Only our own words go into it: what devices say is never interpreted."""
        parts = [scenario.description]
        parts.extend(f"**{each.id}** ({each.level}) {each.statement}" for each in self._known(scenario))
        parts.append(f"`{scenario.file}:{scenario.line}`, again: `{scenario.rerun}`")
        return "\n\n".join(each for each in parts if each)

    # -- outside of scenarios

    def trouble(self, number: int, trouble: Outside) -> None:
        harness = trouble.status is Status.BROKEN
        labels = [
            (LabelType.EPIC, "run"),
            (LabelType.FEATURE, "outside of scenarios"),
            (LabelType.PARENT_SUITE, "run"),
            (LabelType.SUITE, "outside of scenarios"),
            ("harness" if harness else "outcome", "error" if harness else "failed"),
        ]
        identity = f"run/{number}/{trouble.name}"
        start = self._run.started_ns // 10**6
        self._logger.report_result(
            TestResult(
                uuid=self._uuid(identity),
                historyId=identity,
                fullName=identity,
                name=trouble.name,
                titlePath=["run", "outside of scenarios"],
                status=trouble.status.value,
                statusDetails=_details(trouble.message, trouble.detail),
                stage="finished",
                labels=[Label(name=str(name), value=value) for name, value in labels],
                start=start,
                stop=start,
            )
        )

    def globals(self) -> None:
        """The run's own attachments and errors."""
        now = (self._run.started_ns + self._run.duration_ns) // 10**6
        matrix = self._run_dir / "requirements.csv"
        self._embed.begin(BAD_ALLOWANCE)
        stored = self._embed.own(matrix, "text/csv")
        for each in self._run.attachments:
            stored += self._embed.evidence(each)
        stored += self._embed.beside()
        attachments = [
            GlobalAttachment(name=each.name, source=each.source, type=each.type, timestamp=now)
            for each in stored
        ]
        errors = [
            GlobalError(message=each.message, trace=each.detail, timestamp=now) for each in outside(self._run)
        ]
        if self._run.untestable:
            errors.insert(0, GlobalError(message=self._run.untestable, timestamp=now))
        self._logger.report_globals(Globals(attachments=attachments, errors=errors))

    def _uuid(self, identity: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._run.started_ns}/{identity}"))


def _details(message: str, trace: str) -> StatusDetails:
    return StatusDetails(
        message=sanitize(message, MESSAGE_LIMIT), trace=sanitize(trace, TRACE_LIMIT) if trace else None
    )


def _property(text: str) -> str:
    """`text` as a key or value of a Java properties file."""
    return "".join(
        each if each.isascii() and (each.isalnum() or each in "_-./,;") else _unit(each) for each in text
    )


def _unit(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2))
