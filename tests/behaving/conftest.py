# SPDX-License-Identifier: GPL-2.0-or-later
"""Small feature trees that are really run."""

from __future__ import annotations

import io
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from poolproof.behaving import RunConfig, run
from poolproof.verdicts.results import RunResult, ScenarioResult, load

STEPS = """
import asyncio
import sys
from behave import given, step
from behave.api.pending_step import StepNotImplementedError
from poolproof.verdicts import DeviceDied, DeviceUntestable, Health, Inconclusive, NotSupported

@step("it passes")
def passes(context):
    pass

@step('it says "{text}"')
def says(context, text):
    print(text)

@step("it fails")
def fails(context):
    raise AssertionError("5 packets expected, 4 seen")

@step("it fails without words")
def fails_silently(context):
    assert 1 + 1 == 3

@step("it raises {name}")
def raises(context, name):
    kinds = {
        "Inconclusive": Inconclusive("no positive control"),
        "NotSupported": NotSupported("version 2 only"),
        "DeviceDied": DeviceDied("guest a: BUG: unable to handle page fault", "[1.0] BUG: x\\n[1.1] RIP"),
        "DeviceUntestable": DeviceUntestable("insmod: Exec format error"),
        "KeyError": KeyError("oops"),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "Pending": StepNotImplementedError("later"),
        "ConnectionRefusedError": ConnectionRefusedError(111, "refused"),
    }
    raise kinds[name]

@step("a task group fails")
def group(context):
    async def bad():
        raise AssertionError("inner check")
    async def broken():
        raise KeyError("mine")
    async def main():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bad())
            tasks.create_task(broken())
    asyncio.run(main())

@step("its cause is a death")
def caused(context):
    try:
        raise DeviceDied("guest b panicked")
    except DeviceDied as death:
        raise AssertionError("no answer") from death

@step("it dies on the way up")
def dies_early(context):
    try:
        raise DeviceDied("guest b panicked")
    except DeviceDied as death:
        raise DeviceUntestable("panics in init") from death

@step("it runs {steps}")
def nested(context, steps):
    context.execute_steps(f"Given {steps}")

@step("it leaks")
def leaks(context):
    context.evidence.finding("kmemleak", "3 objects of 64 bytes", "unreferenced object", Health.LEAKED)

@step("it attaches {name}")
def attaches(context, name):
    context.evidence.attach(name, "hello \\x1b[31mred\\x1b[0m", "text/plain")

@step("it uses behave's attach")
def behave_attach(context):
    context.attach("text/plain", b"mine")

@step("it skips")
def skips(context):
    context.scenario.skip("needs a kernel")

@step("it skips silently")
def skips_silently(context):
    context.scenario.skip()

@step("it cleans up badly")
def cleanup(context):
    def tidy():
        raise OSError("no such link")
    context.add_cleanup(tidy)

@step("{number:d} is a number")
def number(context, number):
    pass
"""


class Tree:
    """A features directory under construction, and its runs."""

    def __init__(self, root: Path) -> None:
        self.features = root / "features"
        self.run_dir = root / "run"
        (self.features / "steps").mkdir(parents=True)
        (self.features / "steps" / "steps.py").write_text(STEPS)
        self.runs = 0
        self.config = RunConfig(self.features, self.run_dir)
        self.output = ""

    def feature(self, name: str, text: str) -> None:
        path = self.features / f"{name}.feature"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def environment(self, text: str) -> None:
        names = "DeviceDied, DeviceUntestable, Health, Inconclusive, NotSupported"
        head = f"from poolproof.verdicts import {names}\n"
        (self.features / "environment.py").write_text(head + textwrap.dedent(text))

    def run(self, **changes: object) -> RunResult:
        """Run the tree; the result is what was read back from results.json, checked to be complete."""
        self.runs += 1
        self.run_dir = self.features.parent / f"run{self.runs}"
        self.run_dir.mkdir()
        stream = io.StringIO()
        settings = {"run_dir": self.run_dir, "stream": stream, **changes}
        config = replace(self.config, **settings)  # type: ignore[arg-type]
        result = run(config)
        self.output = stream.getvalue()
        assert load(self.run_dir / "results.json") == result
        assert result.complete, [each.id for each in result.scenarios]
        return result

    def one(self, steps: str, **changes: object) -> ScenarioResult:
        """Run a single scenario with these steps, one a line."""
        lines = "\n".join(f"    {each.strip()}" for each in steps.strip().splitlines())
        (self.features / "one.feature").write_text(f"Feature: One\n  Scenario: it\n{lines}\n")
        (result,) = self.run(**changes).scenarios
        return result


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)
