# SPDX-License-Identifier: GPL-2.0-or-later
"""JUnit XML, for CI systems: one suite for each feature, a test case for each scenario.

A pass that hurt the device is a failure here, an inconclusive scenario an error, one that the device does not
support is skipped. What happened outside of scenarios is a suite of its own.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from poolproof.reports.wording import Status, explain, outside, status
from poolproof.verdicts.results import RunResult, ScenarioResult

_ELEMENTS = {Status.FAILED: "failure", Status.BROKEN: "error", Status.SKIPPED: "skipped"}


def write(run: RunResult, path: Path) -> None:
    """Write `run` as JUnit XML."""
    root = ET.Element("testsuites", name="poolproof", time=_seconds(run.duration_ns))
    suites: dict[str, ET.Element] = {}
    for scenario in run.scenarios:
        suite = suites.get(scenario.file)
        if suite is None:
            suite = ET.SubElement(root, "testsuite", name=scenario.feature, file=scenario.file)
            suite.set("timestamp", run.started.rstrip("Z"))
            suites[scenario.file] = suite
        _case(suite, scenario)
    troubles = outside(run)
    if troubles:
        suite = ET.SubElement(root, "testsuite", name="outside of scenarios")
        for trouble in troubles:
            case = ET.SubElement(suite, "testcase", name=trouble.name, classname="run", time="0")
            element = ET.SubElement(case, _ELEMENTS[trouble.status], message=trouble.message.split("\n")[0])
            element.text = f"{trouble.message}\n{trouble.detail}"
    for suite in root:
        _count(suite)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _case(suite: ET.Element, scenario: ScenarioResult) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        name=scenario.name,
        classname=scenario.id.rpartition("/")[0].replace("/", "."),
        file=scenario.file,
        line=str(scenario.line),
        time=_seconds(scenario.duration_ns),
    )
    properties = ET.SubElement(case, "properties")
    pairs = [
        ("id", scenario.id),
        ("wire", scenario.wire),
        ("health", scenario.health),
        ("outcome", scenario.outcome),
        *(("requirement", each) for each in scenario.requirements),
        *scenario.parameters.items(),
        ("rerun", scenario.rerun),
    ]
    for name, value in pairs:
        ET.SubElement(properties, "property", name=name, value=value)
    verdict = status(scenario)
    if verdict is not Status.PASSED:
        message = explain(scenario)
        element = ET.SubElement(case, _ELEMENTS[verdict], message=message.split("\n")[0])
        element.set("type", scenario.outcome)
        excerpts = [each.excerpt for each in scenario.findings if each.excerpt]
        element.text = "\n".join([message, *([scenario.trace] if scenario.trace else []), *excerpts])
    steps = [f"{step.status:<13} {step.keyword} {step.name}" for step in scenario.steps]
    output = "\n".join([*steps, *([scenario.output] if scenario.output else [])])
    ET.SubElement(case, "system-out").text = output


def _count(suite: ET.Element) -> None:
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.6f}")


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.6f}"
