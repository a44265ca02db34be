# SPDX-License-Identifier: GPL-2.0-or-later
"""poolctl's control commands over the extension ioctl and /proc/pool, on a module that is played here."""

from __future__ import annotations

import ctypes
import errno
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolref.tools import arguments, kernel_abi, poolctl, poolctl_control


class Module:
    """Answers ioctls; `calls` are (session, operation, data) of the CONTROL ones."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, bytes]] = []
        self.result = 0
        self.error = 0
        self.proc: dict[str, str] = {}

    def ioctl(self, fd: int, number: int, argument: Any = 0, mutate: bool = False) -> int:
        if number == kernel_abi.IOC_CONTROL:
            if self.error:
                raise OSError(self.error, "refused")
            index, operation, size, _result, pointer = kernel_abi.CONTROL_REQ.unpack(argument)
            self.calls.append((index, operation, ctypes.string_at(pointer, size) if size else b""))
            struct.pack_into("=i", argument, 12, self.result)
        return 0


Ctl = Callable[..., Any]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    module = Module()
    monkeypatch.setattr(kernel_abi.fcntl, "ioctl", module.ioctl)
    return module


@pytest.fixture
def ctl(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ctl:
    """poolctl on that module: the JSON printed and the exit status."""
    proc = tmp_path / "proc"
    proc.mkdir()
    real = kernel_abi.PoolDevice

    def device(path: str) -> kernel_abi.PoolDevice:
        for name, text in module.proc.items():
            (proc / name).write_text(text)
        return real(path, str(proc))

    monkeypatch.setattr(poolctl, "PoolDevice", device)

    def run(*words: str) -> tuple[Any, int]:
        status = poolctl.main(["--device", "/dev/null", "--json", *words])
        printed = capsys.readouterr().out
        return (json.loads(printed) if printed else None), status

    return run


@pytest.mark.parametrize(
    ("words", "operation"),
    [
        (["rekey", "3"], 1),
        (["confirm", "3"], 3),
        (["rollback", "3"], 4),
        (["journal", "--peer", "3"], 5),
        (["exchange", "3"], 6),
        (["integrity", "3"], 7),
        (["probe-mtu", "3"], 8),
    ],
)
def test_each_command_is_its_operation(words: list[str], operation: int, ctl: Ctl, module: Module) -> None:
    assert ctl(*words)[1] == 0
    assert module.calls == [(3, operation, b"")]


def test_a_proposal_is_in_host_order(ctl: Ctl, module: Module) -> None:
    module.result = 7
    words = [
        "configure",
        "5",
        "--deadline",
        "2.5",
        "--difficulty",
        "18",
        "--heartbeat-sec",
        "258",
        "--mtu-min",
        "600",
    ]
    assert ctl(*words) == ({"version": 7}, 0)
    ((index, operation, data),) = module.calls
    assert (index, operation) == (5, 2)
    assert data == struct.pack("=BBHIIHHQ", 18, 0, 258, 1 << 28, 3600, 600, 1400, 2_500_000_000)
    assert len(data) == 24


@pytest.mark.parametrize(
    ("error", "result", "number", "said"),
    [
        (errno.ENOTTY, 0, errno.EOPNOTSUPP, "does not have the CONTROL ioctl"),
        (errno.EOPNOTSUPP, 0, errno.EOPNOTSUPP, "does not have operation 1 of CONTROL"),
        (errno.ENOTCONN, 0, errno.ENOTCONN, "refused"),
        (0, -errno.EBUSY, errno.EBUSY, "busy"),
    ],
)
def test_a_refusal_is_told(error: int, result: int, number: int, said: str, ctl: Ctl, module: Module) -> None:
    module.error, module.result = error, result
    answer, status = ctl("rekey", "0")
    assert (answer["errno"], status) == (number, 1)
    assert said in answer["error"]


def test_the_files_of_proc(ctl: Ctl, module: Module) -> None:
    module.proc = {
        "journal": "IDX TIMESTAMP TYPE V_BEF V_AFT HASH DETAIL\n"
        "4 1700000000000000000 CONFIG 1 2 abcd from 10.0.0.1 4\n"
        "5 1700000000000000001 CONNECT 2 2 ef\nrubbish\n",
        "peers": "IP PORT SOURCE AGE(s) PUBKEY\n10.0.0.1 9253 static 0 00ff\n",
        "integrity": "Integrity status: COMPROMISED\nChecks: 3\nLast failure: .text\n",
        "status": "POOL Protocol v1\nStatus: idle\nActive sessions: 0 / 64\n",
        "details": "idx=0 id=aa role=client mtu=1400 untrusted=0\n",
    }
    assert ctl("journal")[0] == [
        {
            "index": 4,
            "timestamp": 1_700_000_000_000_000_000,
            "type": "CONFIG",
            "before": 1,
            "after": 2,
            "hash": "abcd",
            "detail": "from 10.0.0.1 4",
        },
        {
            "index": 5,
            "timestamp": 1_700_000_000_000_000_001,
            "type": "CONNECT",
            "before": 2,
            "after": 2,
            "hash": "ef",
            "detail": "",
        },
    ]
    peer = {"address": "10.0.0.1", "port": 9253, "source": "static", "age_s": 0, "pubkey": "00ff"}
    assert ctl("peers")[0] == [peer]
    assert ctl("integrity")[0]["Integrity status"] == "COMPROMISED"
    assert ctl("stats")[0] == {"Status": "idle", "Active sessions": "0 / 64"}
    assert ctl("details")[0] == [{"idx": "0", "id": "aa", "role": "client", "mtu": "1400", "untrusted": "0"}]


def test_the_journal_of_a_deployed_build(ctl: Ctl, module: Module) -> None:
    module.proc = {"journal": "IDX TIMESTAMP TYPE V_BEF V_AFT\n0 5 1 0 0\n"}
    (entry,) = ctl("journal")[0]
    assert (entry["type"], entry["hash"], entry["detail"]) == ("1", "", "")


def test_what_a_build_does_not_show(ctl: Ctl) -> None:
    for words in (["journal"], ["peers"], ["integrity"], ["stats"], ["details"]):
        answer, status = ctl(*words)
        assert (answer["errno"], status) == (errno.ENOENT, 1)


@pytest.mark.parametrize("operation", ["add", "forget"])
def test_the_modules_peers_are_a_parameter(operation: str, ctl: Ctl) -> None:
    answer, status = ctl("peers", operation, "10.0.0.1")
    assert (answer["errno"], status) == (errno.EOPNOTSUPP, 1)
    assert "parameter `peers`" in answer["error"]
    assert ctl("peers", operation)[1] == 2


# -- what people type and read ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", 9253, b"")),
        ("10.0.0.1:7", ("10.0.0.1", 7, b"")),
        ("[fd00::2]:7", ("fd00::2", 7, b"")),
        ("fd00::2", ("fd00::2", 9253, b"")),
        ("10.0.0.1:7:" + "0f" * 32, ("10.0.0.1", 7, b"\x0f" * 32)),
        ("[fd00::2]:7:" + "0f" * 32, ("fd00::2", 7, b"\x0f" * 32)),
    ],
)
def test_static_peers(text: str, expected: tuple[str, int, bytes]) -> None:
    assert arguments.static_peer(text) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["configure", "0", "--deadline", "-1"],
        ["configure", "0", "--deadline", "nan"],
        ["configure", "0", "--deadline", "soon"],
        ["configure", "0", "--deadline", "1e30"],
        ["configure", "0", "--difficulty", "256"],
        ["configure", "0", "--rekey-sec", "-1"],
        ["configure", "0", "--rekey-packets", str(1 << 32)],
        ["peers", "remove"],
        ["peers", "add", "example.org"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str], ctl: Ctl) -> None:
    with pytest.raises(SystemExit) as caught:
        ctl(*words)
    assert caught.value.code == 2


def test_a_peers_journal_cannot_steer_the_terminal() -> None:
    entry = {"index": 0, "type": "ERROR", "before": 0, "after": 0, "hash": "ab" * 32}
    hostile = "\x1b[2J\r\nIDX\u202e"
    text = poolctl_control.journal_table([{**entry, "timestamp": 1 << 63, "detail": hostile}])
    assert len(text.splitlines()) == 2
    assert not {"\x1b", "\r", "\u202e"} & set(text)
    assert str(1 << 63) in text or "2262" in text
    assert poolctl_control.journal_table([]) == "no entries"
