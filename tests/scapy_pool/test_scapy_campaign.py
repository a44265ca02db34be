# SPDX-License-Identifier: GPL-2.0-or-later
"""The UTscapy campaign and the interactive shell, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scapy_captured import capture

from scapy_pool.__main__ import main

HERE = Path(__file__).parent


def test_the_campaign_passes() -> None:
    command = [sys.executable, "-m", "scapy.tools.UTscapy", "-t", str(HERE / "pool.uts"), "-f", "text", "-N"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    expected = len(re.findall("^=", (HERE / "pool.uts").read_text(), re.MULTILINE))
    assert f"PASSED={expected} FAILED=0" in result.stdout, result.stdout + result.stderr
    assert result.returncode == 0


def test_a_plain_scapy_finds_the_layers(tmp_path: Path) -> None:
    commands = (
        "from scapy.all import *\n"
        "load_contrib('pool')\n"
        "print(Pool(raw(Pool() / PoolData(b'x'))).payload_len, pool_connect.__module__)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", commands], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "1 scapy_pool.automaton\n", result.stderr


def test_the_shell_knows_the_layers_and_the_key_log(tmp_path: Path) -> None:
    session = capture()
    log = tmp_path / "keys.log"
    log.write_text(session.keylog)
    result = subprocess.run(
        [sys.executable, "-m", "scapy_pool", "--keylog", str(log)],
        input=f"print('it is', Pool(bytes.fromhex('{session.packets[4].hex()}')).auth, IP)\n",
        env={**os.environ, "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "it is OK <class 'scapy.layers.inet.IP'>" in result.stdout
    assert "pool_connect(" in result.stdout
    assert "1 keys" in result.stdout


@pytest.mark.parametrize("text", [None, "not a key\n"])
def test_the_shell_refuses_a_wrong_key_log(
    tmp_path: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "keys.log"
    if text is not None:
        log.write_text(text)
    assert main(["--keylog", str(log)]) == 2
    assert str(log) in capsys.readouterr().err
