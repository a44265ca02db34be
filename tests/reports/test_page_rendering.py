# SPDX-License-Identifier: GPL-2.0-or-later
"""The page is made safe to open, or it is left out with one clear line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from poolproof import reports
from poolproof.behaving.evidence import Evidence, Scope
from poolproof.errors import HarnessError
from poolproof.reports import render
from poolproof.reports.render import CannotRender, Renderer, harden, prepare, references
from poolproof.verdicts import Health, Wire
from poolproof.verdicts.requirements import Ledger
from poolproof.verdicts.results import Environment, RunResult, ScenarioResult

PAGE = """<!DOCTYPE html>
<html><head><link rel="icon" href="data:image/svg+xml,x"></head><body><div id="app"></div>
<script>window.allure = {};</script>
<script async src="https://www.googletagmanager.com/gtag/js?id=G-X"></script>
<script>
  window.dataLayer = window.dataLayer || [];
  gtag('js', new Date());
</script>
<script src="data:text/javascript;base64,AAAA"></script>
<a href="https://example.org">a link is no request</a>
</body></html>"""


def test_analytics_are_gone_and_a_policy_is_there() -> None:
    page = harden(PAGE)
    assert "googletagmanager" not in page
    assert "dataLayer" not in page
    assert "window.allure = {}" in page
    assert page.count("<script nonce=") == page.count("<script") == 2
    assert page.index("Content-Security-Policy") < page.index('rel="icon"')
    assert "default-src 'none'" in page
    assert "unsafe-inline'; style" not in page


def test_each_page_has_its_own_nonce() -> None:
    assert harden(PAGE) != harden(PAGE)


@pytest.mark.parametrize(
    "tag",
    [
        '<script src="https://cdn.test/x.js"></script>',
        '<img src="//cdn.test/x.png">',
        '<link rel="stylesheet" href="style.css">',
        '<iframe src="http://x.test">',
        '<object data="http://x.test">',
        '<video poster="http://x.test/p.png">',
        "<IMG SRC=http://x.test/p.png>",
    ],
)
def test_a_page_that_would_fetch_something_is_refused(tag: str) -> None:
    assert references(PAGE.replace("</body>", f"{tag}</body>"))
    with pytest.raises(CannotRender, match="refers to"):
        harden(PAGE.replace("</body>", f"{tag}</body>"))


def fake_node(root: Path, version: str = "v24.1.0", npm: str = "exit 1", cli: str = "exit 1") -> Path:
    """A `node` that knows its version, and behaves as told when it runs npm or Allure."""
    node = root / "bin" / "node"
    node.parent.mkdir(parents=True)
    script = root / "lib/node_modules/npm/bin/npm-cli.js"
    script.parent.mkdir(parents=True)
    script.touch()
    node.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo {version};; *npm-cli.js) {npm};; *) {cli};; esac\n',
    )
    node.chmod(0o755)
    return node


def use(monkeypatch: pytest.MonkeyPatch, *nodes: Path) -> None:
    monkeypatch.setattr(render, "_nodes", lambda: list(nodes))


def silent(_: str) -> None:
    """Nobody needs to see the progress."""


@pytest.mark.parametrize(
    ("version", "message"),
    [("v18.20.4", "needs Node 20 or later, found only v18.20.4"), ("what", "found only what")],
)
def test_an_old_node_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, message: str
) -> None:
    use(monkeypatch, fake_node(tmp_path / "n", version))
    with pytest.raises(CannotRender, match=message):
        prepare(tmp_path / "cache", progress=silent)


def test_no_node_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch)
    with pytest.raises(CannotRender, match="needs Node 20 or later, found none"):
        prepare(tmp_path, progress=silent)
    use(monkeypatch, tmp_path / "nowhere")
    with pytest.raises(CannotRender, match="found none"):
        prepare(tmp_path, progress=silent)


def test_offline_with_nothing_cached_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, fake_node(tmp_path / "n"))
    problem = reports.renderer(tmp_path / "cache", offline=True)
    assert isinstance(problem, CannotRender)
    assert "make prefetch" in str(problem)
    assert not (tmp_path / "cache").exists()


def test_npm_that_fails_leaves_one_line_and_no_half_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, fake_node(tmp_path / "n", npm="echo 'npm error network unreachable' >&2; exit 1"))
    with pytest.raises(CannotRender, match="npm failed: npm error network unreachable"):
        prepare(tmp_path / "cache", progress=silent)
    assert [each.suffix for each in (tmp_path / "cache").iterdir()] == [".lock"]


def test_an_installation_happens_once_even_for_two_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = tmp_path / "count"
    npm = f"echo x >> {count}; mkdir -p node_modules/allure; touch node_modules/allure/cli.js"
    use(monkeypatch, fake_node(tmp_path / "n", npm=npm))
    found: list[Renderer] = []

    def run() -> None:
        found.append(prepare(tmp_path / "cache", progress=silent))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found[0] == found[1]
    assert found[0].cli.exists()
    assert count.read_text() == "x\n"


def test_allure_that_fails_leaves_one_line(tmp_path: Path) -> None:
    for number, (cli, message) in enumerate(
        [("echo 'Error: boom' >&2; exit 3", "Allure failed: Error: boom"), ("exit 0", "Allure wrote no page")]
    ):
        renderer = Renderer(fake_node(tmp_path / str(number), cli=cli), tmp_path / "cli.js")
        with pytest.raises(CannotRender, match=message):
            renderer.render(tmp_path, tmp_path / "index.html")
    assert not (tmp_path / "index.html").exists()


def test_runs_get_their_own_directories_and_latest_follows(tmp_path: Path) -> None:
    first, second = reports.new_run_dir(tmp_path), reports.new_run_dir(tmp_path)
    assert first != second
    for run_dir in (first, second):
        (run_dir / "here").touch()
        latest = reports._publish(run_dir)
        assert latest == tmp_path / "latest"
        assert latest.resolve() == run_dir
    assert sorted(os.listdir(tmp_path)) == ["latest", "runs"]
    assert not os.path.isabs(os.readlink(latest))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HarnessError, match="cannot write reports to"):
        reports.new_run_dir(tmp_path / "file")


class Shrinking:
    """Stands in for a renderer whose page is too large for the first `times` attempts."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.sizes: list[int] = []

    def render(self, results: Path, target: Path) -> None:
        self.sizes.append(sum(each.stat().st_size for each in results.glob("*-attachment.*")))
        if len(self.sizes) <= self.times:
            raise render.TooLarge("the page would be larger than 15 MB")
        target.write_text("page")


def large_run(run_dir: Path) -> RunResult:
    """Failing scenarios with more evidence than fits into a page."""
    evidence = Evidence(run_dir, Environment())
    scenarios = []
    for number in range(12):
        scope = Scope(f"s/{number}")
        evidence.enter(scope)
        evidence.attach("capture", bytes(900_000), "application/x-pcapng")
        scenarios.append(
            ScenarioResult(
                scope.folder, "s", "S", "", "s.feature", 1, "s", "", (), (), {}, Wire.FAIL, Health.CLEAN, "r",
                "again", attachments=tuple(scope.attachments),
            )
        )  # fmt: skip
    return RunResult("", "", "", "", Environment(), 12, 0, tuple(scenarios))


@pytest.mark.parametrize(("times", "page"), [(0, True), (2, True), (3, False)])
def test_a_page_that_is_too_large_is_made_with_less_evidence(tmp_path: Path, times: int, page: bool) -> None:
    run_dir = reports.new_run_dir(tmp_path)
    renderer = Shrinking(times)
    written = reports.write_all(
        large_run(run_dir),
        run_dir,
        ledger=Ledger({}, ""),
        spec_dir=tmp_path,
        renderer=renderer,  # type: ignore[arg-type]
    )
    assert len(renderer.sizes) == min(times + 1, 3)
    assert renderer.sizes == sorted(renderer.sizes, reverse=True)
    assert 3_500_000 < renderer.sizes[0] < 4_300_000
    assert (written.page is not None) is page
    assert bool(written.missing) is not page
    listed = [
        each.read_text()
        for each in written.allure_results.glob("*-attachment.txt")
        if "these files are beside it" in each.read_text()
    ]
    for text in listed:
        (path,) = [line.split()[0] for line in text.splitlines()[1:]]
        assert (run_dir / path).stat().st_size == 900_000
    assert len(listed) + renderer.sizes[-1] // 900_000 == 12
