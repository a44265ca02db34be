# SPDX-License-Identifier: GPL-2.0-or-later
"""Every benchmark, one after the other:  python -m bench [reference] [node] [idle] [lab]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCHMARKS = {
    "reference": "bench.bench_reference",
    "node": "bench.bench_node",
    "idle": "bench.bench_idle",
    "lab": "poolproof.lab",
}
ROOT = Path(__file__).parents[1]


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(
            f"bench: no benchmark called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}",
            file=sys.stderr,
        )
        return 2
    failed = 0
    for name in names or BENCHMARKS:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", BENCHMARKS[name]]
        failed |= subprocess.run(command, cwd=ROOT, check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
