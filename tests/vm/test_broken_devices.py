# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness survives devices that break at build, at load and in a scenario, and says what happened.

Each device of tests/broken_devices is tested for real: built, booted, reported on.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from poolproof.verdicts.axes import Wire
from poolproof.verdicts.gate import exit_status
from poolproof.verdicts.results import Attachment, RunResult, load

pytestmark = pytest.mark.vm

BROKEN = Path(__file__).resolve().parents[1] / "broken_devices"
DEVICES: list[dict[str, Any]] = tomllib.loads((BROKEN / "expectations.toml").read_text())["device"]
SELECTION = "@req.HS-08 and @req.TRN-01"  # sessions in every pairing: one scenario each
DEADLINE_S = 600
CONTROL_BYTES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def test_device(tmp_path: Path, device: dict[str, Any]) -> None:
    status, said = run_conformance(BROKEN / device["name"], tmp_path)
    assert (tmp_path / "latest" / "results.json").exists(), said
    run = load(tmp_path / "latest" / "results.json")

    assert status == device["bisect"], said
    assert exit_status(run) == 1
    assert run.complete
    assert not run.harness_errors
    assert bool(run.untestable) == (device["stage"] != "scenario")
    assert all(scenario.wire is not Wire.PASS for scenario in run.scenarios)
    assert {str(worst(run))} <= set(device["health"])
    for pattern in device["reported"]:
        assert any(re.search(pattern, text) for text in everything(run, tmp_path / "latest")), pattern
    for pattern in device["absent"]:
        assert not any(re.search(pattern, text) for text in conclusions(run)), pattern


def test_what_a_hostile_device_says_is_harmless_where_it_is_shown(tmp_path: Path) -> None:
    _, said = run_conformance(BROKEN / "speaks_garbage", tmp_path)
    latest = tmp_path / "latest"
    views = [path for path in latest.iterdir() if path.suffix in (".html", ".xml", ".ktap", ".csv")]
    texts = list((latest / "evidence").rglob("*.txt"))

    assert len(views) >= 4
    assert any("alert(1)" in path.read_text(encoding="utf-8") for path in texts), "nothing hostile was shown"
    assert not CONTROL_BYTES.search(said.encode())
    for path in views:
        assert b"<script>alert(1)</script>" not in path.read_bytes(), path.name
    for path in [*views, *texts]:
        assert not CONTROL_BYTES.search(path.read_bytes()), path.name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", DEVICES, ids=[device["name"] for device in DEVICES])


def run_conformance(source: Path, report_dir: Path) -> tuple[int, str]:
    """Exit status, and what the run printed."""
    command = [
        *(sys.executable, "-m", "poolproof.cli", "conformance", "--bisect", "--seed", "1"),
        *("--pool-src", str(source), "--report-dir", str(report_dir), "--tags", SELECTION),
    ]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        env={**os.environ, "NO_COLOR": "1", "TERM": "dumb"},
        check=False,
    )
    return done.returncode, done.stdout


def worst(run: RunResult) -> str:
    order = ("clean", "unknown", "complained", "leaked", "died")
    seen = [scenario.health for scenario in run.scenarios] + [finding.health for finding in run.findings]
    return max((str(health) for health in seen), key=order.index)


def conclusions(run: RunResult) -> Iterator[str]:
    """What the report concludes in its own words."""
    yield run.untestable
    yield from (finding.title for finding in run.findings)
    for scenario in run.scenarios:
        yield scenario.reason
        yield from (finding.title for finding in scenario.findings)


def everything(run: RunResult, run_dir: Path) -> Iterator[str]:
    """Conclusions, excerpts and attached texts."""
    yield from conclusions(run)
    attachments: list[Attachment] = [*run.attachments]
    for scenario in run.scenarios:
        yield from (finding.excerpt for finding in scenario.findings)
        attachments += scenario.attachments
    yield from (finding.excerpt for finding in run.findings)
    for attachment in attachments:
        if attachment.mime.startswith("text/"):
            yield (run_dir / attachment.path).read_text(encoding="utf-8", errors="replace")
