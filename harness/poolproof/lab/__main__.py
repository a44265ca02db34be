# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m poolproof.lab`: boot the pair, print the figures, leave nothing."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from poolproof.errors import HarnessError
from poolproof.image.store import GuestImage, ImageStore
from poolproof.lab import sandbox
from poolproof.lab.lab import Lab, LabConfig
from poolproof.settings import default_cache

_IMAGE = "POOLPROOF_SMOKE_IMAGE"


def timed(action: Callable[[], object]) -> float:
    """Seconds an action takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def smoke(config: LabConfig) -> None:
    """Boot, call, reset; one figure a line."""
    lab = Lab(config)
    try:
        print(f"pair, cold start to both agents and snapshots: {timed(lab.start):.2f} s", flush=True)
        print(f"accelerator: {lab.accelerator.name} ({lab.accelerator.evidence}); cpu {config.cpu}")
        for name, guest in lab.guests.items():
            calls = sorted(timed(partial(guest.agent.call, "ping")) * 1000 for _ in range(50))
            print(f"{name}: agent call, median of 50: {statistics.median(calls):.1f} ms, max {calls[-1]:.1f}")
        a, b = lab.guests.values()
        print(f"reset of one guest: {timed(a.reset):.2f} s, again: {timed(a.reset):.2f} s")
        print(f"frames on the wire: {lab.wire.mark()}")
        print(f"findings on consoles: {[f.title for g in (a, b) for f in g.console.findings()]}")
    finally:
        print(f"teardown: {timed(lab.close):.2f} s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m poolproof.lab", description=__doc__)
    parser.add_argument("--cpu", default=None, help="QEMU CPU model, default max,-erms,-fsrm,-cx16")
    parser.add_argument("--kernel", default=None, help="kernel of the matrix")
    parser.add_argument("--run-dir", type=Path, default=None, help="where consoles are kept")
    options = parser.parse_args()
    try:
        if not sandbox.active():
            built = ImageStore(default_cache()).guest(options.kernel)
            environment = {**os.environ, _IMAGE: json.dumps(asdict(built), default=str)}
            return sandbox.enter([sys.executable, "-m", "poolproof.lab", *sys.argv[1:]], environment)
        values = json.loads(os.environ[_IMAGE])
        paths = {name: Path(values[name]) for name in ("vmlinux", "bzimage", "initramfs", "rootfs")}
        image = GuestImage(**{**values, **paths})
        run_dir = options.run_dir or Path(tempfile.mkdtemp(prefix="lab-", dir=sandbox.prepare()))
        chosen = {"cpu": options.cpu} if options.cpu else {}
        smoke(LabConfig(image, run_dir, default_cache(), seed=1, **chosen))
    except HarnessError as exc:
        print(f"poolproof.lab: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
