# SPDX-License-Identifier: GPL-2.0-or-later
"""pool.ko with faults compiled in, on a real guest; run inside the sandbox by test_module_faults.py."""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from inside_lab import config

from poolproof.devices.stage import eventually as _eventually
from poolproof.lab.agent import AgentError
from poolproof.lab.guest import Guest
from poolproof.lab.lab import Lab
from poolref import wire
from poolref.constants import Type

pytestmark = pytest.mark.vm


def eventually(check: Callable[[], bool]) -> None:
    _eventually(check, "what a test waits for")


SELFTESTS = re.findall(
    r'\{ "(\w+)", test_', (Path(__file__).resolve().parents[2] / "kernel" / "selftest.c").read_text()
)


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    modules = {"pool": Path(os.environ["POOLPROOF_TEST_MODULE"])}
    with Lab(replace(config(), modules=modules)) as lab:
        yield lab.guests["a"]


def traces(guest: Guest) -> list[str]:
    """What a module that is not loaded must not have left."""
    paths = ["/dev/pool", "/proc/pool", "/sys/module/pool"]
    return [p for p in paths if guest.agent.call("exec", argv=["test", "-e", p])["rc"] == 0]


def loads(guest: Guest) -> None:
    """Positive control: without a fault the same module loads, serves and unloads."""
    guest.agent.call("insmod", name="pool")
    assert len(traces(guest)) == 3
    assert guest.agent.call("pool.sessions") == []
    guest.agent.call("rmmod", name="pool")
    assert traces(guest) == []


def refusal(guest: Guest, fault: str) -> int:
    """The errno with which loading fails under a fault; the guest is otherwise unharmed."""
    mark = guest.console.mark()
    with pytest.raises(AgentError) as caught:
        guest.agent.call("insmod", name="pool", params=f"fault={fault}")
    assert traces(guest) == []
    assert [each for each in guest.console.findings(mark) if each.kind != "module_message"] == []
    loads(guest)
    assert caught.value.errno is not None
    return caught.value.errno


def test_there_are_self_tests_of_every_primitive() -> None:
    assert {"sha256", "hmac", "hkdf", "x25519", "chacha20poly1305"} <= set(SELFTESTS)


@pytest.mark.parametrize("name", SELFTESTS)
def test_a_wrong_answer_refuses_to_load(guest: Guest, name: str) -> None:
    """C06."""
    mark = guest.console.mark()
    assert refusal(guest, f"selftest:{name}") == errno.EKEYREJECTED
    assert f"self-test of {name} failed" in guest.console.text(mark)


@pytest.mark.parametrize("name", ["chrdev", "proc"])
def test_a_failed_registration_is_rolled_back(guest: Guest, name: str) -> None:
    """L03."""
    assert refusal(guest, name) > 0


def test_without_random_bytes_it_refuses_to_load(guest: Guest) -> None:
    """C07."""
    assert refusal(guest, "random") == errno.EIO


@pytest.mark.parametrize(
    "parameter", ["difficulty=15", "difficulty=21", "heartbeat_sec=0", "transport=carrier", "version=3"]
)
def test_a_parameter_out_of_range_refuses_to_load(guest: Guest, parameter: str) -> None:
    with pytest.raises(AgentError):
        guest.agent.call("insmod", name="pool", params=parameter)
    assert traces(guest) == []
    loads(guest)


def test_counters_saturate(guest: Guest) -> None:
    """M04, HB-03: three discards with a counter two below its end."""
    agent = guest.agent
    agent.call("insmod", name="pool", params="fault=counters")
    try:
        last = (1 << 64) - 1
        assert agent.call("pool.counters")["malformed"] == last - 2
        agent.call("pool.listen", port=9253)
        garbage = wire.build(Type.INIT, bytes(3))
        for expected in (last - 1, last, last):
            with socket.create_connection((guest.address4, 9253), 10) as sock:
                sock.sendall(garbage)
                eventually(lambda expected=expected: agent.call("pool.counters")["malformed"] == expected)
    finally:
        agent.call("rmmod", name="pool")


@pytest.mark.parametrize(
    ("point", "what"),
    [("announce.c:sock_create_kern", "cannot be opened"), ("announce.c:kernel_sendmsg", "cannot be sent")],
)
def test_a_failing_discovery_socket_is_opened_anew(guest: Guest, point: str, what: str) -> None:
    """S08: after 1 and 2 s, journalled; the third time it works, and the node hears of others."""
    agent = guest.agent
    agent.call("exec", argv=["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"])
    agent.call("insmod", name="pool")
    try:
        for name, value in (("times", "2"), ("nth", "1"), ("point", point)):
            agent.call("write", path=f"/sys/kernel/debug/pool_faults/{name}", data=value)
        started = time.monotonic()
        agent.call("pool.listen", port=9253)
        eventually(lambda: agent.call("pool.counters")["multicast_failures"] == 2)
        assert time.monotonic() - started >= 0.9
        eventually(lambda: "0100FDEF" in agent.call("read", path="/proc/net/igmp"))
        assert agent.call("pool.counters")["multicast_failures"] == 2
        entries = [row["detail"] for row in agent.call("pool.journal") if row["type"] == "ERROR"]
        assert [what in each and each.startswith("0x00 discovery") for each in entries] == [True, True]
    finally:
        agent.call("rmmod", name="pool")
