# SPDX-License-Identifier: GPL-2.0-or-later
"""The exit status of a run: 0 as expected, 1 failures found, 2 the harness could not run, 125 bisect skip."""

from __future__ import annotations

from poolproof.verdicts.axes import Wire
from poolproof.verdicts.results import RunResult

OK, FAILURES, HARNESS, BISECT_SKIP = 0, 1, 2, 125


def exit_status(run: RunResult, *, bisect: bool = False) -> int:
    """The exit status `run` deserves, never mind what it says itself.

    A failure of the device that was established counts, whatever else went wrong (1). Without one, an error
    of the harness, an aborted run or a missing result means that nothing can be said (2). A device that
    could not be tested, an inconclusive scenario or a run in which nothing was decided is not as expected
    (1). `git bisect run` takes 125 as "skip this commit": with `bisect` that is what everything but a
    decided run gets, so that no commit is blamed for what was not seen.
    """
    failed = any(each.wire is Wire.FAIL or each.health.hurt for each in run.scenarios)
    failed = failed or any(each.health.hurt for each in run.findings)
    if failed and not (bisect and run.untestable and not _decided(run)):
        return FAILURES
    if run.harness_errors or run.aborted or not run.complete:
        return BISECT_SKIP if bisect else HARNESS
    if run.untestable or not _decided(run):
        return BISECT_SKIP if bisect else FAILURES
    if any(each.wire is Wire.INCONCLUSIVE for each in run.scenarios):
        return BISECT_SKIP if bisect else FAILURES
    return OK


def _decided(run: RunResult) -> bool:
    return any(each.wire in (Wire.PASS, Wire.FAIL) for each in run.scenarios)
