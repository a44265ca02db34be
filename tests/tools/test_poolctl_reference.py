# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command of poolctl over two running reference nodes, through their control sockets."""

from __future__ import annotations

import base64
import dataclasses
import errno
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tools_nodes import EASY, nodes

from poolref.node import Settings
from poolref.tools import poolctl
from poolref.tools.control import MAX_LINE, METHODS, ControlClient

Run = Callable[..., Any]


class Ctl:
    """poolctl on a client (`c`) and on a server (`s`) node, which listens on `port`."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[Any]) -> None:
        self.sockets = {"c": directory / "c", "s": directory / "s"}
        self._capsys = capsys

    def __call__(self, side: str, *words: str, fails: bool = False) -> Any:
        """The JSON that a command prints; with `fails` what it says is wrong."""
        options = ["--backend", "reference", "--socket", str(self.sockets[side])]
        status = poolctl.main([*options, "--json", *words])
        printed = self._capsys.readouterr()
        assert status == (1 if fails else 0), printed.err
        return json.loads(printed.out)

    def text(self, side: str, *words: str) -> str:
        options = ["--backend", "reference", "--socket", str(self.sockets[side])]
        assert poolctl.main([*options, *words]) == 0
        return str(self._capsys.readouterr().out)


@pytest.fixture
def ctl(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> Iterator[Ctl]:
    control = Ctl(tmp_path, capsys)
    with nodes({control.sockets["c"]: Settings(), control.sockets["s"]: EASY}):
        yield control


def connect(ctl: Ctl) -> None:
    with ControlClient(ctl.sockets["s"]) as server:
        port = server.listen(0)
    assert ctl("s", "listen", str(port), fails=True)["errno"] == errno.EALREADY
    assert ctl("c", "connect", "127.0.0.1", str(port)) == {"index": 0, "address": "127.0.0.1", "port": port}


@pytest.fixture
def connected(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> Ctl:
    monkeypatch.setattr("poolref.constants.PROBE_DELAY", 0)
    monkeypatch.setattr("poolref.constants.PROBE_SPACING", 0)
    connect(ctl)
    return ctl


def test_messages_channels_and_the_end(connected: Ctl) -> None:
    ctl = connected
    assert ctl("c", "send", "0", "hello") == {"sent": 5}
    assert base64.b64decode(ctl("s", "recv", "0")["b64"]) == b"hello"
    ctl("s", "channel", "0", "subscribe", "7")
    assert ctl("s", "channel", "0", "list") == {"channels": [0, 7]}
    ctl("c", "send", "0", "on seven", "--channel", "7")
    assert ctl("s", "recv", "0", "--channel", "7")["length"] == 8
    ctl("s", "channel", "0", "unsubscribe", "7")
    (row,) = ctl("c", "sessions")
    assert (row["state"], row["bytes_sent"]) == ("ESTABLISHED", 13)
    assert ctl("c", "counters")["handshakes_completed"] == 1
    ctl("c", "close", "0")
    assert ctl("c", "sessions") == []
    assert ctl("c", "close", "0", fails=True)["errno"] == errno.ENOTCONN
    ctl("s", "stop")


def test_configurations(connected: Ctl) -> None:
    ctl = connected
    assert ctl("c", "configure", "0", "--heartbeat-sec", "9", "--mtu-max", "1300") == {"version": 1}
    assert ctl("c", "configure", "0", "--mtu-max", "1200", fails=True)["errno"] == errno.EBUSY
    assert (ctl("s", "stats")["config_version"], ctl("s", "stats")["config_tentative"]) == (1, True)
    assert ctl("c", "rollback", "0") == {"version": 1}
    assert ctl("s", "stats")["config_version"] == 0
    assert ctl("c", "confirm", "0", fails=True)["errno"] == errno.ENOENT
    assert ctl.text("c", "configure", "0", "--rekey-sec", "100", "--deadline", "20") == "1\n"
    assert ctl("c", "confirm", "0") == {"version": 1}
    assert ctl("c", "configure", "0", "--difficulty", "3", fails=True)["errno"] == errno.EINVAL
    assert ctl("c", "configure", "9", fails=True)["errno"] == errno.ENOTCONN
    assert ctl("c", "configure", "64", fails=True)["errno"] == errno.EINVAL


def test_journals(connected: Ctl) -> None:
    ctl = connected
    (own,) = ctl("s", "journal")
    assert (own["index"], own["type"], own["before"], own["after"]) == (0, "CONNECT", 0, 0)
    assert len(bytes.fromhex(own["hash"])) == 32
    assert "127.0.0.1" in own["detail"]
    assert ctl("c", "journal", "--peer", "0") == [own]
    lines = ctl.text("s", "journal").splitlines()
    assert lines[0].split() == ["INDEX", "TIME", "TYPE", "CONFIG", "HASH", "DETAIL"]
    assert own["hash"][:16] in lines[1]
    assert ctl("s", "stats")["journal_head"] == own["hash"]


def test_peers(connected: Ctl) -> None:
    ctl = connected
    (known,) = ctl("c", "peers")
    assert (known["address"], known["source"]) == ("127.0.0.1", "connected")
    key = "ab" * 32
    ctl("c", "peers", "add", f"[2001:db8::1]:77:{key}")
    ctl("c", "peers", "add", "192.0.2.1")
    rows = {row["address"]: row for row in ctl("c", "peers", "list")}
    assert rows["2001:db8::1"] | {"age_s": 0} == {
        "address": "2001:db8::1", "port": 77, "source": "static", "age_s": 0, "pubkey": key,
    }  # fmt: skip
    assert rows["192.0.2.1"]["port"] == 9253
    ctl("c", "exchange", "0")
    ctl("c", "peers", "forget", "192.0.2.1")
    table = ctl.text("c", "peers")
    assert "static" in table
    assert "192.0.2.1" not in table
    assert {row["address"] for row in ctl("s", "peers")} <= {"192.0.2.1"}


def test_details_stats_and_the_mtu(connected: Ctl) -> None:
    ctl = connected
    (row,) = ctl("c", "details")
    assert row.items() >= {
        "idx": "0", "role": "client", "transport": "tcp", "version": "1", "epoch": "0", "mtu": "1400",
        "subs": "0", "untrusted": "0",
    }.items()  # fmt: skip
    assert row["id"] == ctl("s", "details")[0]["id"]
    assert "role=server transport=tcp" in ctl.text("s", "details")
    assert ctl("c", "probe-mtu", "0") == {"mtu": 1400}
    stats = ctl("c", "stats")
    assert (stats["sessions"], stats["untrusted"]) == (1, 0)
    assert "sessions 1\n" in ctl.text("c", "stats")
    ctl("c", "close", "0")
    assert ctl.text("c", "details") == "no sessions\n"


def test_keys_and_integrity(connected: Ctl) -> None:
    ctl = connected
    assert ctl("c", "rekey", "0") == {}
    assert ctl("s", "rekey", "0") == {}
    assert ctl("c", "details")[0]["epoch"] == "2"
    assert ctl("c", "stats")["rekey_count"] == 2
    assert ctl("c", "integrity", "0") == {}
    assert ctl("c", "integrity") == {"Integrity status": "not watched", "Untrusted peers": "none"}
    assert ctl("s", "rekey", "9", fails=True)["errno"] == errno.ENOTCONN
    ctl("c", "send", "0", "under the new keys")
    assert ctl("s", "recv", "0")["length"] == 18


def test_what_a_peer_does_not_permit(tmp_path: Path, capsys: pytest.CaptureFixture[Any]) -> None:
    ctl = Ctl(tmp_path, capsys)
    closed = dataclasses.replace(EASY, remote_admin=False)
    with nodes({ctl.sockets["c"]: Settings(), ctl.sockets["s"]: closed}):
        connect(ctl)
        refusal = ctl("c", "configure", "0", fails=True)
        assert refusal["errno"] == errno.EREMOTEIO
        assert "refused" in refusal["error"]
        assert ctl("c", "journal", "--peer", "0") == []


# -- the socket itself -----------------------------------------------------------------------------


def ask(path: Path, line: bytes) -> Any:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(line + b"\n")
        with client.makefile("rb") as file:
            return json.loads(file.readline())


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"", errno.EINVAL),
        (b"{", errno.EINVAL),
        (b"[]", errno.EINVAL),
        (b"[" * 100_000, errno.EINVAL),
        (b'{"method": "sessions", "params": {"object": 3}}', errno.EINVAL),
        (b'{"method": "sessions", "params": [1]}', errno.EINVAL),
        (b'{"method": "sessions", "params": {"x": 1}}', errno.EINVAL),
        (b'{"method": "node"}', errno.ENOTTY),
        (b'{"method": "_session", "params": {"index": 0}}', errno.ENOTTY),
        (b'{"method": "confirm", "params": {"index": 0}}', errno.ENOTCONN),
    ],
)
def test_what_is_no_request_is_answered(line: bytes, number: int, ctl: Ctl) -> None:
    answer = ask(ctl.sockets["c"], line)
    assert answer["errno"] == number
    assert answer["error"]
    assert ask(ctl.sockets["c"], b'{"method": "sessions"}') == {"result": []}


def test_a_line_without_an_end_ends_the_connection(ctl: Ctl) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(ctl.sockets["c"]))
        client.sendall(b"x" * (MAX_LINE + 1))
        assert client.recv(1) == b""
    assert ask(ctl.sockets["c"], b'{"method": "sessions"}') == {"result": []}


def test_the_client_has_every_method() -> None:
    assert {name for name in METHODS if not callable(getattr(ControlClient, name, None))} == set()
    assert {"listen", "sessions", "configure", "journal"} <= METHODS


def test_a_second_node_does_not_take_the_socket(ctl: Ctl, capsys: pytest.CaptureFixture[Any]) -> None:
    from poolref.tools import poold

    assert poold.main(["--socket", str(ctl.sockets["c"])]) == 1
    assert "another node already answers" in capsys.readouterr().err
    assert ctl("c", "sessions") == []
