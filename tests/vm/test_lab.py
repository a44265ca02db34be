# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab on real guests; inside_lab.py holds the tests that run in the sandbox."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from poolproof.image.store import ImageStore
from poolproof.settings import default_cache

pytestmark = pytest.mark.vm

ENTER = "import sys; from poolproof.lab import sandbox; sys.exit(sandbox.enter(sys.argv[1:]))"
INSIDE = Path(__file__).with_name("inside_lab.py")


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Images are built outside: the sandbox has no way to the archive."""
    image = ImageStore(default_cache()).guest()
    return {**os.environ, "POOLPROOF_TEST_IMAGE": json.dumps(asdict(image), default=str)}


def host_state() -> dict[str, object]:
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout,
        "run": sorted(os.listdir("/run")),
    }


def test_the_lab_inside_the_sandbox(environment: dict[str, str]) -> None:
    before = host_state()
    command = [sys.executable, "-c", ENTER, sys.executable, "-m", "pytest", "-m", "vm", "-v", str(INSIDE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=environment)
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= 12
    assert host_state() == before


def processes(marker: str) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except OSError:
                continue
    return found


def pid_namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def test_kill_9_of_the_harness_leaves_no_guest_behind(environment: dict[str, str]) -> None:
    before = host_state()
    marker = f"POOLPROOF_TEST_{os.getpid()}"
    code = (
        "from poolproof.lab.lab import Lab\n"
        "from inside_lab import config\n"
        "lab = Lab(config())\n"
        "lab.start()\n"
        "print('up', flush=True)\n"
        "input()\n"
    )
    environment |= {"PYTHONPATH": str(INSIDE.parent), "POOLPROOF_TEST": marker}
    process = subprocess.Popen(
        [sys.executable, "-c", ENTER, sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    ours = processes(marker)
    # QEMU gets an environment of libvirt's making: found through the pid namespace instead.
    spaces = {pid_namespace(str(pid)) for pid in ours} - {pid_namespace("self")}
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    everything = [int(pid) for pid in pids if pid_namespace(pid) in spaces]
    assert sum("qemu" in Path(f"/proc/{pid}/comm").read_text() for pid in everything) == 2
    handles = [os.pidfd_open(pid) for pid in {*everything, *ours}]
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    for handle in handles:
        assert select.select([handle], [], [], 15)[0], "a process outlived the harness"
        os.close(handle)
    assert host_state() == before
