# SPDX-License-Identifier: GPL-2.0-or-later
"""What a person sees while the scenarios run: a live line on a terminal, one plain line each elsewhere."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

from poolproof.reports.text import line
from poolproof.reports.wording import explain, style
from poolproof.verdicts.axes import Outcome
from poolproof.verdicts.results import ScenarioResult

_GOOD = (Outcome.PASSED, Outcome.NOT_SUPPORTED)


class Progress:
    """Reports scenarios as they start and finish. `stream` defaults to the present stdout."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        self._live = stream.isatty() and not os.environ.get("CI")
        self._console = Console(file=stream, highlight=False, soft_wrap=True)
        self._total = total
        self._done = 0
        self._bad = 0
        self._started = time.monotonic()
        self._bar = Bar(
            SpinnerColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=2 * len(str(total)) + 1)),
            TextColumn("{task.fields[bad]}", table_column=Column(no_wrap=True, min_width=5)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True)),
            expand=True,
            console=self._console,
            transient=True,
            refresh_per_second=4,
            disable=not self._live,
        )
        self._task = self._bar.add_task("", total=total, bad="0 bad")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def started(self, identity: str, name: str) -> None:
        """A scenario begins."""
        self._bar.update(self._task, description=f"{escape(line(name, 120))}  [dim]{escape(identity)}[/]")

    def finished(self, result: ScenarioResult) -> None:
        """A scenario has its result."""
        self._done += 1
        bad = result.outcome not in _GOOD
        self._bad += bad
        count = f"[red]{self._bad} bad[/]" if self._bad else "0 bad"
        self._bar.update(self._task, completed=self._done, bad=count)
        if bad or not self._live:
            self._print(result, bad)

    def _print(self, result: ScenarioResult, bad: bool) -> None:
        elapsed = int(time.monotonic() - self._started)
        count = f"[{self._done:>{len(str(self._total))}}/{self._total}]"
        head = f"{count} {elapsed // 60}:{elapsed % 60:02} {self._bad} bad"
        verdict = f"[{style(result.outcome)}]{result.outcome}[/]"
        seconds = f"{result.duration_ns / 1e9:.2f} s"
        self._console.print(f"{escape(head)}  {verdict} {seconds}  {escape(result.id)}")
        if bad:
            self._console.print(f"    {escape(line(explain(result), 300))}")
