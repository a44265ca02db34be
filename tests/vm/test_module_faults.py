# SPDX-License-Identifier: GPL-2.0-or-later
"""pool.ko refuses to load on wrong answers, and rolls back: built with faults, run on a real guest."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from poolproof.image.modbuild import BuiltModule, build_module
from poolproof.image.store import ImageStore
from poolproof.settings import PROJECT, default_cache

pytestmark = pytest.mark.vm

ENTER = "import sys; from poolproof.lab import sandbox; sys.exit(sandbox.enter(sys.argv[1:]))"


def test_the_module_with_faults(tmp_path: Path) -> None:
    store = ImageStore(default_cache())
    built = build_module(store.build_tree(), PROJECT / "kernel", tmp_path, make_args=["POOL_FAULTS=1"])
    assert isinstance(built, BuiltModule), built
    environment = {
        **os.environ,
        "POOLPROOF_TEST_IMAGE": json.dumps(asdict(store.guest()), default=str),
        "POOLPROOF_TEST_MODULE": str(built.ko),
    }
    inside = Path(__file__).with_name("inside_faults.py")
    command = [sys.executable, "-c", ENTER, sys.executable, "-m", "pytest", "-m", "vm", "-v", str(inside)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 15
