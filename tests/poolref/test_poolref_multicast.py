# SPDX-License-Identifier: GPL-2.0-or-later
"""Announces over real sockets, each test in a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

INSIDE = Path(__file__).with_name("poolref_multicast_inside.py")
NAMESPACE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]


@cache
def obstacle() -> str:
    """Why there is no network namespace to be had, '' when there is."""
    try:
        made = subprocess.run([*NAMESPACE, "ip", "link"], capture_output=True, text=True, env=environment())
    except OSError as error:
        return str(error)
    return made.stderr if made.returncode else ""


def environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def inside(scenario: str) -> Any:
    """What a scenario of poolref_multicast_inside.py finds."""
    if obstacle():
        pytest.skip(f"no network namespace: {obstacle()}")
    command = [*NAMESPACE, sys.executable, str(INSIDE), scenario]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment())
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_nodes_of_one_host_hear_each_other() -> None:
    assert inside("loopback") == {
        "first": ["::ffff:127.0.0.1 4002"],
        "second": ["::ffff:127.0.0.1 4001"],
        "silent": ["::ffff:127.0.0.1 4001", "::ffff:127.0.0.1 4002"],
        "errors": [],
        "open after stop": [False, False, False],
    }


def test_a_node_connects_to_what_it_heard_of() -> None:
    assert inside("nodes") == {
        "port": True,
        "sources": ["ANNOUNCE", "CONNECTED"],
        "same key": True,
        "arrived": "hello",
        "listener knows": 0,
    }


def test_announces_are_repeated_until_the_node_stops_listening() -> None:
    assert inside("every_30_seconds") == {"more": 0}


def test_neighbours_hear_each_other_and_hostile_datagrams_are_counted() -> None:
    assert inside("cable") == {
        "here": ["::ffff:10.9.0.2 4002"],
        "there": ["::ffff:10.9.0.1 4001"],
        "malformed": 4,
        "version_mismatch": 1,
    }


def test_a_socket_that_cannot_be_opened_is_tried_again_and_journalled() -> None:
    result = inside("port_taken")
    assert result.pop("journal").startswith("0x00 discovery: [Errno 98] ")
    assert result == {"open": False, "sent": 0}


def test_a_socket_that_fails_in_use_is_opened_anew_and_journalled() -> None:
    result = inside("interface_lost")
    assert result.pop("journal").startswith("0x00 discovery: [Errno ")
    assert result == {"never up": 1, "source": "10.9.0.1"}


def test_announces_leave_with_ttl_1_on_every_interface_or_on_the_one_named() -> None:
    frames = {f"d{number}": [[f"10.9.{number}.1", 1, 9253, 76, 4001]] for number in range(3)}
    assert inside("interfaces") == {
        "early": 0,
        "frames": {**frames, "lo": [["127.0.0.1", 1, 9253, 76, 4002]]},
    }
