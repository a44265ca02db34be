# SPDX-License-Identifier: GPL-2.0-or-later
"""Break the reference on purpose, one requirement at a time, and see whether its tests notice.

    python tests/mutants/run.py [--only TEXT] [--again] [--results FILE]

Each mutant of mutants.toml is applied to a copy of the reference and the tests it names are run against the
copy, after they have passed without it.  A mutant that they do not notice has survived: exit status 1.
Results are kept beside what they depend on (the mutant, the mutated file, the tests), so an interrupted run
goes on where it stopped; `--again` ignores them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TIMEOUT_S = 300


@dataclass(frozen=True)
class Mutant:
    """`old` occurs exactly once in reference/poolref/`file`; once it is `new`, `tests` (files below tests/,
    narrowed by pytest's `-k` expression `select`, if any) are to fail.
    """

    breaks: tuple[str, ...]
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    select: str = ""

    @property
    def source(self) -> Path:
        return ROOT / "reference/poolref" / self.file

    @property
    def name(self) -> str:
        """What is shown: the requirements, the file and the first line that changes."""
        line = next((each for each in self.old.splitlines() if each.strip()), "").strip()
        return f"{' '.join(self.breaks)}  {self.file}: {line[:70]}"

    def digest(self) -> str:
        """Changes with everything that the result depends on, as far as it is written in these files."""
        parts = [repr(self), self.source.read_text()]
        parts += [(ROOT / "tests" / name).read_text() for name in self.tests]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def applied(self) -> str:
        """The mutated text; ValueError when `old` does not occur exactly once."""
        text = self.source.read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: occurs {text.count(self.old)} times, not once")
        return text.replace(self.old, self.new)


def load(path: Path = HERE / "mutants.toml") -> tuple[list[Mutant], dict[str, str]]:
    """All mutants, and why a requirement has none."""
    table = tomllib.loads(path.read_text())
    mutants = [
        Mutant(
            tuple(each["breaks"]),
            each["file"],
            each["old"],
            each["new"],
            tuple(each["tests"]),
            each.get("select", ""),
        )
        for each in table["mutant"]
    ]
    return mutants, table.get("none", {})


@cache
def passes_unbroken(tests: tuple[str, ...], select: str) -> bool:
    """The positive control: the same tests on an unchanged copy."""
    return _pytest(tests, select, None) == 0


def outcome(mutant: Mutant) -> str:
    """`killed`, `survived`, or `broken: ...` when the tests say nothing about it."""
    if not passes_unbroken(mutant.tests, mutant.select):
        return "broken: its tests do not pass without it"
    status = _pytest(mutant.tests, mutant.select, mutant)
    return {0: "survived", 1: "killed", None: "killed"}.get(status, f"broken: pytest ended with {status}")


def _pytest(tests: tuple[str, ...], select: str, mutant: Mutant | None) -> int | None:
    """Exit status of pytest on a copy of the reference, None when it does not end."""
    with tempfile.TemporaryDirectory(prefix="poolproof-mutant-") as name:
        scratch = Path(name)
        unwanted = shutil.ignore_patterns("__pycache__", "vm", "broken_devices")
        for tree in ("reference/poolref", "reference/scapy_pool", "tests"):
            shutil.copytree(ROOT / tree, scratch / tree, ignore=unwanted)
        if mutant is not None:
            (scratch / "reference/poolref" / mutant.file).write_text(mutant.applied())
        for shared in ("pyproject.toml", "spec", "harness", "features", "kernel", "bench", "README.md"):
            (scratch / shared).symlink_to(ROOT / shared)
        # The copy comes first on the path, before the installed package.
        environment = os.environ | {"PYTHONPATH": str(scratch / "reference"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n0"]
        command += [str(scratch / "tests" / test) for test in tests]
        command += ["-k", select] if select else []
        try:
            return subprocess.run(
                command, cwd=scratch, env=environment, capture_output=True, check=False, timeout=TIMEOUT_S
            ).returncode
        except subprocess.TimeoutExpired:
            return None


def results(mutants: list[Mutant], kept: dict[str, str], store: Path) -> Iterator[tuple[Mutant, str]]:
    """Each mutant's outcome, from `kept` or by running it; written to `store` as it comes."""
    for mutant in mutants:
        digest = mutant.digest()
        if digest not in kept:
            kept[digest] = outcome(mutant)
            if not kept[digest].startswith("broken"):  # that can be due to anything
                with store.open("a") as file:
                    file.write(
                        json.dumps({"digest": digest, "name": mutant.name, "outcome": kept[digest]}) + "\n"
                    )
        yield mutant, kept[digest]


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Break the reference on purpose and see whether its tests notice."
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="requirement or file, in part")
    parser.add_argument("--again", action="store_true", help="run those with a known result too")
    parser.add_argument("--results", type=Path, default=ROOT / "reports/mutants.jsonl", metavar="FILE")
    options = parser.parse_args()
    mutants, _none = load()
    mutants = [mutant for mutant in mutants if options.only in mutant.name]
    kept: dict[str, str] = {}
    if options.results.exists() and not options.again:
        for line in options.results.read_text().splitlines():
            entry = json.loads(line)
            kept[entry["digest"]] = entry["outcome"]
    options.results.parent.mkdir(parents=True, exist_ok=True)
    matrix: dict[str, list[str]] = defaultdict(list)
    bad = 0
    for mutant, result in results(mutants, kept, options.results):
        for requirement in mutant.breaks:
            matrix[requirement].append(result)
        if result != "killed":
            bad += 1
        print(f"{result:9} {mutant.name}", flush=True)
    for requirement, found in sorted(matrix.items()):
        print(f"{requirement:9} {found.count('killed')} of {len(found)} killed")
    print(f"{len(mutants) - bad} of {len(mutants)} mutants killed, {len(matrix)} requirements")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
