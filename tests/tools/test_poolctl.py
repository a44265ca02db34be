# SPDX-License-Identifier: GPL-2.0-or-later
"""poolctl's own part: arguments, addresses, output and exit status."""

from __future__ import annotations

import json

import pytest

from poolref.tools import arguments, poolctl
from poolref.tools.kernel_abi import SessionInfo


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("10.0.0.1", None, ("10.0.0.1", 9253)),
        ("10.0.0.1:99", None, ("10.0.0.1", 99)),
        ("10.0.0.1:99", 7, ("10.0.0.1", 7)),
        ("fd00::2", None, ("fd00::2", 9253)),
        ("[fd00::2]", None, ("fd00::2", 9253)),
        ("[fd00::2]:443", None, ("fd00::2", 443)),
        ("node.example:1", None, ("node.example", 1)),
    ],
)
def test_endpoints_are_split_as_people_write_them(text, port, expected):
    assert arguments.split_endpoint(text, port) == expected


@pytest.mark.parametrize("text", ["[fd00::2", "[fd00::2]x", ":99", "host:0", "host:65536", "host:x"])
def test_bad_endpoints_are_named(text):
    with pytest.raises(arguments.UsageError) as caught:
        arguments.split_endpoint(text, None)
    assert str(caught.value)


def test_a_missing_module_is_one_line_and_status_1(capsys, tmp_path):
    status = poolctl.main(["--device", str(tmp_path / "pool"), "sessions"])
    printed = capsys.readouterr()
    assert status == 1
    assert "is the module loaded?" in printed.err
    assert printed.err.count("\n") == 1


def test_a_missing_reference_node_says_how_to_start_one(capsys, tmp_path):
    status = poolctl.main(["--backend", "reference", "--socket", str(tmp_path / "s"), "--json", "sessions"])
    printed = capsys.readouterr()
    assert status == 1
    assert "poold" in printed.err
    assert json.loads(printed.out)["errno"] == 2


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["listen", "0"],
        ["listen", "65536"],
        ["send", "-1", "x"],
        ["channel", "0", "list", "256"],
        ["nope"],
    ],
)
def test_wrong_usage_is_status_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        poolctl.main(argv)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_session_table_lines_up():
    rows = [
        SessionInfo(0, "10.0.0.1", 9253, "ESTABLISHED", "aa" * 16, 1, 2, 3, 4, 5),
        SessionInfo(63, "fd00:253::22", 65535, "CLOSING", "bb" * 16, 10**12, 2, 3, 4, 5),
    ]
    lines = poolctl.table(rows).splitlines()
    assert len(lines) == 3
    assert (
        len({line.index(word) for line, word in zip(lines, ("STATE", "ESTABLISHED", "CLOSING"), strict=True)})
        == 1
    )
    assert poolctl.table([]) == "no sessions"
