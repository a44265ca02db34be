# SPDX-License-Identifier: GPL-2.0-or-later
"""A device that attacks the reader of its report: in text views, and in a browser that opens the page."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from poolproof import reports
from poolproof.behaving.evidence import Evidence, Scope
from poolproof.settings import default_cache
from poolproof.verdicts import Health, Wire, requirements
from poolproof.verdicts.requirements import Ledger
from poolproof.verdicts.results import (
    Environment,
    HarnessFault,
    RunResult,
    ScenarioResult,
    StepResult,
    StepStatus,
)

SPEC = Path(__file__).parents[2] / "spec"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ATTACK = (
    "<script>document.title='owned'</script></script></title><img src=http://evil.test/a.png "
    "onerror=\"document.title='owned'\">]]>'\"\n# ok 1 forged\nok 2 forged # SKIP \x1b[2J\u202e{{7*7}}${x}"
)


@pytest.fixture
def ledger() -> Ledger:
    return requirements.load(SPEC / "requirements.toml")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return reports.new_run_dir(tmp_path)


@pytest.fixture
def run(run_dir: Path) -> RunResult:
    """A run whose device put the attack wherever a device's words go."""
    evidence = Evidence(run_dir, Environment(device="kernel", seed=7))
    evidence.describe(kernel=ATTACK, vendor=ATTACK)
    evidence.attach(ATTACK, ATTACK)
    scope = Scope("data/x")
    evidence.enter(scope)
    scope.step = 0
    evidence.attach(f"text {ATTACK}", ATTACK)
    evidence.attach("page.html", f"<html><body>{ATTACK}</body></html>", "text/html")
    evidence.attach("json", json.dumps({"key": ATTACK}), "application/json")
    evidence.attach("svg", f"<svg xmlns='http://www.w3.org/2000/svg'>{ATTACK}</svg>", "image/svg+xml")
    evidence.attach("packets", b"\x0a\x0d\x0d\x0a" + bytes(3000), "application/x-pcapng")
    evidence.finding(ATTACK, ATTACK, ATTACK, Health.LEAKED)
    evidence.note(f"[click]({ATTACK})")
    shown = scope.findings[0].title
    step = StepResult(
        "Then", f"it says {shown}", StepStatus.FAILED, 3, 1, 1, shown, shown, shown, (("a",), (shown,))
    )
    scenario = ScenarioResult(
        id="data/x", name=f"x {shown}", feature="Data", rule="", file="features/data.feature", line=2,
        area="data", description="", tags=("req.DATA-01",), requirements=("DATA-01",),
        parameters={"reply": shown}, wire=Wire.FAIL, health=Health.LEAKED, reason=shown, rerun="make",
        steps=(step,), findings=tuple(scope.findings), attachments=tuple(scope.attachments),
        notes=tuple(scope.notes), trace=shown, output=shown, started_ns=10**18, duration_ns=5,
    )  # fmt: skip
    good = replace(
        scenario, id="data/good", name="good", wire=Wire.PASS, health=Health.CLEAN, reason="", steps=(),
        findings=(), attachments=(), notes=(), trace="", output="",
    )  # fmt: skip
    return RunResult(
        tool_version="1", spec_id="x", command=f"make {ATTACK}", started="2026-01-01T00:00:00Z",
        environment=evidence.environment, selected=2, deselected=0, scenarios=(scenario, good),
        harness_errors=(HarnessFault("after_all", "", shown),),
        attachments=tuple(evidence.run_scope.attachments), started_ns=10**18, exit_status=1,
    )  # fmt: skip


@pytest.fixture
def written(run: RunResult, run_dir: Path, ledger: Ledger) -> reports.Written:
    no_page = reports.CannotRender("not wanted")
    return reports.write_all(run, run_dir, ledger=ledger, spec_dir=SPEC, renderer=no_page)


def test_junit_stays_well_formed(written: reports.Written) -> None:
    root = ET.parse(written.junit).getroot()
    names = [each.attrib["name"] for each in root.iter("testcase")]
    assert len(names) == 3
    assert all("\n" not in name for name in names)
    assert not list(root.iter("script"))


def test_ktap_cannot_be_forged(written: reports.Written) -> None:
    lines = written.ktap.read_text().splitlines()
    points = [each.strip() for each in lines if re.match(r" *(not )?ok ", each)]
    assert points == [
        "not ok 1 data/x",
        "ok 2 data/good",
        "not ok 1 Data",
        "not ok 1 harness: after_all",
        "not ok 2 outside of scenarios",
    ]
    assert not any("SKIP" in each for each in points)


def test_the_terminal_gets_no_escape(run: RunResult, written: reports.Written, ledger: Ledger) -> None:
    stream = io.StringIO()
    reports.show_summary(run, written, ledger=ledger, stream=stream)
    assert "\x1b" not in stream.getvalue()
    assert "\u202e" not in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == str(written.report)


def test_allure_gets_no_html_page_from_a_device(written: reports.Written) -> None:
    names = [each.name for each in written.allure_results.iterdir()]
    suffixes = {Path(each).suffix for each in names if "-attachment" in each}
    assert suffixes == {".txt", ".csv", ".json", ".pcapng"}
    environment = (written.allure_results / "environment.properties").read_text()
    assert len(environment.splitlines()) == len(set(environment.splitlines())) == 7


PROBE = Path(__file__).with_name("probe.js").read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this host")
def test_the_page_in_a_browser(run: RunResult, run_dir: Path, ledger: Ledger, tmp_path: Path) -> None:
    renderer = reports.renderer(default_cache(), offline=True)
    if isinstance(renderer, reports.CannotRender):
        pytest.skip(str(renderer))
    written = reports.write_all(run, run_dir, ledger=ledger, spec_dir=SPEC, renderer=renderer)
    assert written.page is not None, written.missing
    page = written.page.read_text()
    assert "evil.test" not in page
    assert len(page) < 15 << 20
    # Allure's own ID of each test, and what it calls it.
    tests = {}
    for identity, data in re.findall(r'"data/test-results/([0-9a-f]+)\.json", *"([A-Za-z0-9+/=]+)"', page):
        tests[identity] = json.loads(base64.b64decode(data))
    assert len(tests) == 3
    names = {identity: test["fullName"] for identity, test in tests.items()}
    expected_code = {identity: 6 if name == "data/x" else 0 for identity, name in names.items()}
    given = {"IDS": list(tests), "NAMES": names, "CODE": expected_code}
    probe = "".join(f"const {key} = {json.dumps(value)};\n" for key, value in given.items()) + PROBE
    nonce = re.search(r'<script nonce="([^"]+)"', page)
    assert nonce is not None
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</body>", f'<script nonce="{nonce.group(1)}">{probe}</script></body>'))
    seen = browse(probed, tmp_path / "profile")
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["alien"] == 0
    assert set(seen["titles"]) == {"POOL conformance"}
    assert {names[each]: status for each, status in seen["statuses"].items()} == {
        "data/x": ["failed"],
        "data/good": ["passed"],
        "run/0/harness: after_all": ["broken"],
    }
    text = next(text for each, text in seen["text"].items() if names[each] == "data/x")
    assert text.count("<script>document.title='owned'</script>") >= 8
    assert "Then it says <script>" in text
    # Two tries to load the attack's image would be two violations; nothing even tries.
    assert seen["violations"] == []


def browse(page: Path, profile: Path) -> dict[str, object]:
    """What the probe in `page` saw in a headless Chromium."""
    assert CHROMIUM is not None
    command = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", "--virtual-time-budget=60000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    verdict = re.search(r'<pre id="verdict">(.*?)</pre>', done.stdout, re.DOTALL)
    assert verdict is not None, done.stderr[-2000:]
    found: dict[str, object] = json.loads(unescape(verdict.group(1)))
    return found
