# SPDX-License-Identifier: GPL-2.0-or-later
"""``poolproof vectors check -- COMMAND...``"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from poolproof.errors import HarnessError

from . import check, suite
from .check import Judged, Judgement

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``poolproof vectors``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    checking = actions.add_parser(
        "check", help="run the vectors against an implementation on stdin and stdout"
    )
    checking.add_argument("--area", action="append", help="only this area (repeatable)")
    checking.add_argument("--only", default="", metavar="TEXT", help="only cases whose id contains TEXT")
    checking.add_argument("--timeout", type=float, default=10, metavar="SECONDS", help="for one answer")
    checking.add_argument("--require-all", action="store_true", help="unsupported is a failure")
    checking.add_argument("--vectors", type=Path, default=suite.VECTORS, metavar="DIR")
    checking.add_argument("implementation", nargs="+", metavar="COMMAND")


def run(args: argparse.Namespace) -> int:
    """Exit status: 0 no wrong answer, 1 wrong answers.  HarnessError when nothing can be run."""
    cases = suite.load(args.vectors)
    areas = dict.fromkeys(case.area for case in cases)
    for area in args.area or ():
        if area not in areas:
            raise HarnessError(f"no area {area}", hint="there are: " + ", ".join(areas))
    selected = [c for c in cases if (not args.area or c.area in args.area) and args.only in c.id]
    if not selected:
        raise HarnessError("no case is selected", hint="--only takes a part of a case's id")
    judged = check.run(selected, args.implementation, args.timeout)
    show(judged)
    failures = {Judgement.WRONG, Judgement.NOT_RUN}
    if args.require_all:
        failures.add(Judgement.UNSUPPORTED)
    return 1 if any(j.judgement in failures for j in judged) else 0


def show(judged: list[Judged]) -> None:
    """A table of the areas, then the first wrong answers."""
    counts = Counter((j.case.area, j.judgement) for j in judged)
    areas = dict.fromkeys(j.case.area for j in judged)
    print("area".ljust(14) + "".join(str(j).rjust(13) for j in Judgement))
    for area in areas:
        print(area.ljust(14) + "".join(str(counts[area, j]).rjust(13) for j in Judgement))
    total = Counter(j.judgement for j in judged)
    print("total".ljust(14) + "".join(str(total[j]).rjust(13) for j in Judgement))
    wrong = [j for j in judged if j.judgement is Judgement.WRONG]
    if not wrong:
        return
    from poolproof.reports.text import line  # late: it brings the whole report with it

    for j in wrong[:_SHOWN]:
        print(f"wrong: {j.case.id} ({', '.join(j.case.requirements)}): {line(j.detail)}")
    if len(wrong) > _SHOWN:
        print(f"and {len(wrong) - _SHOWN} more wrong answers")
