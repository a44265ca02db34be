# SPDX-License-Identifier: GPL-2.0-or-later
"""Transports raw and auto over real sockets, in a network namespace of their own (TRN-03, TRN-05)."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

INSIDE = Path(__file__).with_name("poolref_raw_inside.py")
NAMESPACE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


@cache
def found() -> dict[str, Any]:
    """What every scenario of poolref_raw_inside.py finds; skips where there are no network namespaces."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        made = subprocess.run([*NAMESPACE, "ip", "link"], capture_output=True, text=True, env=environment)
    except OSError as error:
        pytest.skip(f"no network namespace: {error}")
    if made.returncode:
        pytest.skip(f"no network namespace: {made.stderr}")
    run = subprocess.run(
        [*NAMESPACE, sys.executable, str(INSIDE)], capture_output=True, text=True, timeout=60, env=environment
    )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def test_two_nodes_converse_over_protocol_253() -> None:
    assert found()["conversation"] == {
        "arrived": True,
        "transports": ["raw", "raw"],
        "peers": ["::ffff:127.0.0.2", "::ffff:127.0.0.1", 0],
        "family": socket.AF_INET,
        "port": [9253, 9253],
        "ends": ["local", "closed"],
        "DF everywhere": True,
        "one packet each": True,
        "addresses": [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]],
        "begins": [["INIT", "RESPONSE"], ["CHALLENGE", "ACK"]],
        "CLOSE": "CLOSE",
        "acknowledged by": "ACK",
        "discarded": [{}, {}],
    }


def test_a_node_answers_from_the_address_it_was_called_by() -> None:
    assert found()["own_addresses"] == ["::ffff:127.0.0.5", "::ffff:127.0.0.6"]


def test_a_node_listens_on_the_address_it_was_told_to() -> None:
    elsewhere, there = found()["listening_on_one_address"]
    assert elsewhere["errno"] == errno.ETIMEDOUT
    assert there == "raw"


def test_auto_is_raw_where_that_is_answered() -> None:
    result = found()["fallbacks"]
    assert (result["answered"], result["raw alone"], result["tcp alone"]) == ("raw", "raw", "tcp")


def test_auto_takes_tcp_where_nobody_answers_over_raw() -> None:
    result = found()["fallbacks"]
    assert result["unanswered"] == "tcp"
    assert result["INITs"] == ["INIT"] * 3
    assert result["unanswered, raw"]["errno"] == errno.ETIMEDOUT
    assert result["slots"] == 64


def test_raw_is_ipv4_only_and_auto_takes_tcp_to_an_ipv6_peer() -> None:
    result = found()["fallbacks"]
    assert result["ipv6"] == "tcp"
    assert result["ipv6, raw"]["errno"] == errno.EAFNOSUPPORT
    assert result["mapped"] == "tcp"  # after raw went unanswered


def test_without_a_way_to_the_peer_raw_fails_at_once() -> None:
    result = found()["fallbacks"]
    assert result["no way"]["errno"] == errno.ENETUNREACH
    assert result["no way, auto"]["errno"] == errno.ENETUNREACH  # which is TCP's own word on it


@pytest.mark.parametrize(
    ("answer", "number", "heard"),
    [
        ("refuse", errno.ECONNREFUSED, ["INIT"]),
        ("challenge", errno.ETIMEDOUT, ["INIT", "RESPONSE"]),
        ("too_difficult", errno.ERANGE, ["INIT"]),
    ],
)
def test_whoever_answers_over_raw_decides_whatever_listens_on_tcp(
    answer: str, number: int, heard: list[str]
) -> None:
    outcome, packets = found()["answered"][answer]
    assert outcome["errno"] == number
    assert packets == heard


def test_an_answer_without_the_echo_is_none() -> None:
    assert found()["answered"]["blind"][0] == "tcp"
    assert found()["answered"]["spoofed"] == 1
    assert found()["answered"]["slots"] == 64


def test_df_is_clear_from_the_fourth_send_on_and_the_eighth_is_the_last() -> None:
    assert found()["unacknowledged"] == {
        "sends": [True] * 3 + [False] * 5,
        "cause": "timeout",
        "free": 64,
    }


def test_a_node_that_stops_delivers_what_was_sent_and_closes() -> None:
    assert found()["stopping"] == {"arrived": True, "end": "closed", "socket": -1}


def test_without_the_capability_raw_says_so_and_auto_takes_tcp() -> None:
    result = found()["without_capability"]
    assert result["auto"] == "tcp"
    for refused in (result["raw"], result["listening"]):
        assert refused == {"errno": errno.EPERM, "text": "transport raw needs the capability CAP_NET_RAW"}
    assert result["port"] is None
