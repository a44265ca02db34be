# SPDX-License-Identifier: GPL-2.0-or-later
"""Views of results.json: JUnit, KTAP, the requirement matrix, Allure results and their page, the summary.

None of them decides anything; if one cannot be made, the results and the exit status stand.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from poolproof.errors import HarnessError
from poolproof.reports import allure, documents, junit, ktap, matrix, summary
from poolproof.reports.render import CannotRender, Renderer, TooLarge, prepare
from poolproof.verdicts.requirements import Ledger, roll_up
from poolproof.verdicts.results import RunResult

__all__ = ["CannotRender", "Renderer", "Written", "new_run_dir", "renderer", "show_summary", "write_all"]

_EVIDENCE_LIMITS = (4 << 20, 1 << 20, 0)  # bytes; base64 in the page makes a third more of it


@dataclass(frozen=True, slots=True)
class Written:
    """Where the views are. `page` is None if it could not be made, `missing` then says why."""

    run_dir: Path
    latest: Path
    junit: Path
    ktap: Path
    matrix: Path
    allure_results: Path
    page: Path | None
    missing: str = ""

    @property
    def report(self) -> Path:
        """What to open: the page below `latest`, else the directory."""
        return self.latest / self.page.name if self.page is not None else self.latest


def new_run_dir(report_dir: Path) -> Path:
    """A new directory `runs/<stamp>` below `report_dir`, also if other runs start in the same second."""
    runs = report_dir / "runs"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    try:
        runs.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            path = runs / (f"{stamp}-{number}" if number else stamp)
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise HarnessError(
            f"cannot write reports to {runs}: {error.strerror}", hint="name another place with REPORT_DIR"
        ) from error
    raise HarnessError(f"no free name for a run in {runs}", hint="remove old runs")


def renderer(
    cache: Path, *, offline: bool = False, progress: Callable[[str], None] = print
) -> Renderer | CannotRender:
    """What makes the HTML page, fetched into `cache` if need be, or why there will be none."""
    try:
        return prepare(cache, offline=offline, progress=progress)
    except CannotRender as error:
        return error


def write_all(
    run: RunResult, run_dir: Path, *, ledger: Ledger, spec_dir: Path, renderer: Renderer | CannotRender
) -> Written:
    """Write every view of `run` into `run_dir` and let `latest` (beside `runs/`) point there.

    `spec_dir` holds the documents that requirements link to; they become pages beside the report. Raises
    HarnessError if the directory cannot be written at all.
    """
    paths = {name: run_dir / name for name in ("junit.xml", "results.ktap", "requirements.csv")}
    results = run_dir / "allure-results"
    page: Path | None = run_dir / "index.html"
    missing = ""
    try:
        junit.write(run, paths["junit.xml"])
        ktap.write(run, paths["results.ktap"])
        matrix.write(roll_up(ledger, run), paths["requirements.csv"])
        documents.write(spec_dir, run_dir / "spec")
        try:
            _render(run, run_dir, results, ledger, renderer)
        except CannotRender as error:
            page, missing = None, str(error)
        latest = _publish(run_dir)
    except OSError as error:
        raise HarnessError(f"cannot write reports to {run_dir}: {error}") from error
    return Written(
        run_dir=run_dir,
        latest=latest,
        junit=paths["junit.xml"],
        ktap=paths["results.ktap"],
        matrix=paths["requirements.csv"],
        allure_results=results,
        page=page,
        missing=missing,
    )


def show_summary(run: RunResult, written: Written, *, ledger: Ledger, stream: TextIO | None = None) -> None:
    """Print the end of a run; the report's path is the last line."""
    summary.show(run, roll_up(ledger, run), written.report, missing=written.missing, stream=stream)


def _render(
    run: RunResult, run_dir: Path, results: Path, ledger: Ledger, renderer: Renderer | CannotRender
) -> None:
    """Write Allure's results and the page, with less evidence in it if it grows too large."""
    labelled = allure.Labelled(ledger.requirements)
    for limit in _EVIDENCE_LIMITS:
        allure.write(run, run_dir, results, labelled, limit)
        if isinstance(renderer, CannotRender):
            raise renderer
        try:
            renderer.render(results, run_dir / "index.html")
        except TooLarge:
            if limit == _EVIDENCE_LIMITS[-1]:
                raise
        else:
            return


def _publish(run_dir: Path) -> Path:
    """Point `latest` to `run_dir`, atomically: whoever looks sees the old or the new run."""
    latest = run_dir.parent.parent / "latest"
    scratch = latest.with_name(f".latest.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(Path(run_dir.parent.name) / run_dir.name)
    scratch.replace(latest)
    return latest
