# SPDX-License-Identifier: GPL-2.0-or-later
"""pool.ko with faults compiled in, on a real guest; run inside the sandbox by test_module_faults.py."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from inside_lab import config

from poolproof.lab.agent import AgentError
from poolproof.lab.guest import Guest
from poolproof.lab.lab import Lab

pytestmark = pytest.mark.vm

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
