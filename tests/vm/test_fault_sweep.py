# SPDX-License-Identifier: GPL-2.0-or-later
"""A sweep over the calls of pool.ko that can fail, on a pair of guests.

POOLPROOF_TEST_KERNEL=NAME, or POOLPROOF_TEST_KERNEL_IMAGE and POOLPROOF_TEST_KERNEL_BUILD: on another kernel;
KERNEL_CMDLINE=TEXT: instead of slub_debug=FZPU, which a kernel with KASAN does not need;
POOLPROOF_SWEEP=FILE: keep the points there, and go on with those already in it; POOLPROOF_SWEEP_ONLY=TEXT.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from poolproof.image.modbuild import BuiltModule, build_module
from poolproof.image.store import ImageStore
from poolproof.settings import PROJECT, default_cache

pytestmark = pytest.mark.vm

ENTER = "import sys; from poolproof.lab import sandbox; sys.exit(sandbox.enter(sys.argv[1:]))"


def test_every_call_fails_once(tmp_path: Path) -> None:
    store = ImageStore(default_cache())
    name = os.environ.get("POOLPROOF_TEST_KERNEL") or None
    if image := os.environ.get("POOLPROOF_TEST_KERNEL_IMAGE"):
        guest, tree = store.custom(Path(image), Path(os.environ["POOLPROOF_TEST_KERNEL_BUILD"]))
        assert tree is not None
    else:
        guest, tree = store.guest(name), store.build_tree(name)
    built = build_module(tree, PROJECT / "kernel", tmp_path, make_args=["POOL_FAULTS=1"])
    assert isinstance(built, BuiltModule), built
    sweep = Path(os.environ.get("POOLPROOF_SWEEP") or tmp_path / "sweep.jsonl").absolute()
    environment = {
        **os.environ,
        "POOLPROOF_TEST_IMAGE": json.dumps(asdict(guest), default=str),
        "POOLPROOF_TEST_MODULE": str(built.ko),
        "POOLPROOF_TEST_BUILD": built.build_id,
        "POOLPROOF_SWEEP": str(sweep),
    }
    inside = Path(__file__).with_name("inside_fault_sweep.py")
    pytest_inside = [sys.executable, "-m", "pytest", "-m", "vm", "-v", "-s", str(inside)]
    command = [sys.executable, "-c", ENTER, *pytest_inside]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=7200, env=environment)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-3000:]
    points = [json.loads(line) for line in sweep.read_text().splitlines()[1:]]
    print(Counter((each["phase"], each["outcome"]) for each in points))
    assert re.search(r"\d+ passed", done.stdout)
