# SPDX-License-Identifier: GPL-2.0-or-later
"""poold as a process, and its options."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from poolref.journal import ChangeType
from poolref.node import Node
from poolref.tools import poold
from poolref.tools.control import ControlClient


def test_a_process_from_start_to_sigterm(tmp_path: Path) -> None:
    path, journal, keys = tmp_path / "s", tmp_path / "journal", tmp_path / "keys"
    key = "cd" * 32
    options = ["--listen", "0", "--host", "127.0.0.1", "--journal", str(journal), "--keylog", str(keys)]
    options += ["--peer", "192.0.2.1", "--peer", f"[2001:db8::1]:8:{key}", "--heartbeat-sec", "7"]
    command = [sys.executable, "-m", "poolref.tools.poold", "--socket", str(path), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline().removeprefix("poold: listening on port "))
            assert str(path) in process.stdout.readline()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            with ControlClient(path) as node:
                assert {(row["address"], row["port"], row["pubkey"]) for row in node.peers()} == {
                    ("192.0.2.1", 9253, "00" * 32),
                    ("2001:db8::1", 8, key),
                }
                node.connect("127.0.0.1", port)  # to itself
                assert len(node.sessions()) == 2
                entries = node.journal()
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not path.exists()
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert rows[: len(entries)] == entries
    assert [row["type"] for row in rows] == ["CONNECT"] * 2 + ["DISCONNECT"] * 2
    assert len(keys.read_text().splitlines()) == 2


def started(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What poold would run a node with."""
    seen: dict[str, Any] = {}

    async def run(args: Any, settings: Any) -> None:
        seen.update(vars(args), settings=settings)

    monkeypatch.setattr(poold, "run", run)
    assert poold.main(argv) == 0
    return seen


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = "--difficulty 17 --heartbeat-sec 6 --rekey-packets 2048 --rekey-sec 60"
    argv += " --mtu-min 600 --mtu-max 1300 --integrity-sec 0"
    seen = started([*argv.split(), "--no-remote-admin", "--no-peer-exchange"], monkeypatch)["settings"]
    assert (seen.difficulty, seen.heartbeat_s, seen.rekey_packets, seen.rekey_s) == (17, 6, 2048, 60)
    assert seen.integrity_s == 0
    assert (seen.mtu_min, seen.mtu_max, seen.remote_admin, seen.peer_exchange) == (600, 1300, False, False)
    seen = started([], monkeypatch)
    assert (seen["settings"].difficulty, seen["settings"].remote_admin) == (16, True)
    assert (seen["transport"], seen["discovery"], seen["peer"], seen["listen"]) == ("tcp", False, [], None)


@pytest.mark.parametrize(
    ("argv", "expected"), [(["--discovery"], True), (["--discovery", "eth0"], "eth0"), ([], False)]
)
def test_discovery(argv: list[str], expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert started([*argv, "--transport", "auto"], monkeypatch)["discovery"] == expected


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--difficulty", "3"], "difficulty 3 is not within 16..20"),
        (["--mtu-min", "1400", "--mtu-max", "600"], "MTU bounds"),
        (["--rekey-sec", "5"], "rekey after 5 s"),
    ],
)
def test_settings_out_of_range(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert poold.main(argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["--listen", "65536"],
        ["--transport", "udp"],
        ["--peer", "a name"],
        ["--peer", "192.0.2.1:0"],
        ["--peer", "192.0.2.1:1:" + "zz" * 32],
        ["--heartbeat-sec", "soon"],
    ],
)
def test_wrong_usage_is_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        poold.main(argv)
    assert caught.value.code == 2


def test_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def hold() -> None:
        async with Node() as node:
            port = await node.listen("127.0.0.1", 0)
            argv = ["--socket", str(tmp_path / "s"), "--host", "127.0.0.1", "--listen", str(port)]
            command = [sys.executable, "-m", "poolref.tools.poold", *argv]
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            _, complaint = await process.communicate()
            assert process.returncode == 1
            assert complaint.count(b"\n") == 1
            assert os.strerror(errno.EADDRINUSE).encode() in complaint

    asyncio.run(hold())
    assert not (tmp_path / "s").exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"

    async def once() -> None:
        async with Node() as node, poold.control_socket(node, path):
            assert await asyncio.to_thread(lambda: ControlClient(path).sessions()) == []

    with socket_left_behind(path):
        asyncio.run(once())
    assert not path.exists()


def socket_left_behind(path: Path) -> Any:
    import contextlib
    import socket

    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    return contextlib.nullcontext()


# -- the journal's file ----------------------------------------------------------------------------


def record(node: Node, text: str) -> None:
    node._core.record(ChangeType.CONFIG, text)


def test_the_journal_file_holds_each_entry_once(tmp_path: Path) -> None:
    node, path = Node(), tmp_path / "journal"
    file = poold.JournalFile(path, node)
    for number in range(1030):  # more than the ring keeps
        record(node, f"entry {number} ü")
    file.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["index"], row["detail"]) for row in rows] == [(n, f"entry {n} ü") for n in range(1030)]


def test_a_journal_file_that_fails_disturbs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node()
    file = poold.JournalFile(Path("/dev/full"), node)
    record(node, "one")
    record(node, "two")
    file.close()
    assert len(node.journal()) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "/dev/full" in complaint
