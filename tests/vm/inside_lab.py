# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab on real guests; run inside the sandbox by test_lab.py."""

from __future__ import annotations

import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolproof.image.store import GuestImage
from poolproof.lab import sandbox
from poolproof.lab.agent import AgentError, AgentTimeout, GuestDied
from poolproof.lab.frames import matching, with_checksums
from poolproof.lab.guest import SNAPSHOT, Guest
from poolproof.lab.lab import Lab, LabConfig
from poolproof.settings import default_cache

pytestmark = pytest.mark.vm


def config() -> LabConfig:
    values = json.loads(os.environ["POOLPROOF_TEST_IMAGE"])
    paths = {name: Path(values[name]) for name in ("vmlinux", "bzimage", "initramfs", "rootfs")}
    return LabConfig(GuestImage(**{**values, **paths}), sandbox.prepare() / "out", default_cache(), seed=1)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(config()) as started:
        yield started


@pytest.fixture
def a(lab: Lab) -> Guest:
    return lab.guests["a"]


@pytest.fixture
def b(lab: Lab) -> Guest:
    return lab.guests["b"]


def shell(guest: Guest, command: str, timeout: float = 20.0) -> str:
    done = guest.agent.call("exec", argv=["sh", "-c", command], timeout=timeout)
    assert done["rc"] == 0, done
    return str(done["out"])


def test_the_console_is_there_from_the_first_byte(a: Guest) -> None:
    assert a.console.text().startswith("[    0.000000] Linux version ")
    assert a.console.findings() == []
    assert a.status().state == "running"


def test_the_agent_does_what_it_says(a: Guest) -> None:
    call = a.agent.call
    assert shell(a, "hostname") == "a\n"
    call("write", path="/run/x", data=b"\x00bytes\xff")
    assert call("read", path="/run/x", limit=6) == "\x00bytes"
    assert call("meminfo")["MemTotal"] > 200 << 20
    assert 1 < call("uptime") < 3600
    assert len(call("random", count=16)) == 16
    handle = call("open", path="/run/x")
    call("close", handle=handle)


def test_refusals_carry_the_kernel_s_errno(a: Guest) -> None:
    for method, params, errno in (
        ("read", {"path": "/no/such"}, 2),
        ("rmmod", {"name": "no_such_module"}, 2),
        ("insmod", {"name": "/etc/passwd"}, 8),
        ("pool.sessions", {}, 2),
    ):
        with pytest.raises(AgentError) as refusal:
            a.agent.call(method, **params)
        assert refusal.value.errno == errno
        assert refusal.value.method == method
    with pytest.raises(AgentError, match="no_such_method"):
        a.agent.call("no_such_method")


def test_a_module_is_loaded_and_unloaded(a: Guest) -> None:
    path = shell(a, "find /lib/modules/*/ -name af_packet_diag.ko").strip()
    a.agent.call("insmod", name=path)
    assert "af_packet_diag " in a.agent.call("read", path="/proc/modules")
    with pytest.raises(AgentError) as again:
        a.agent.call("insmod", name=path)
    assert again.value.errno == 17
    a.agent.call("rmmod", name="af_packet_diag")
    assert "af_packet_diag " not in a.agent.call("read", path="/proc/modules")


def test_a_blocked_call_holds_up_no_other_and_a_timeout_is_no_death(a: Guest) -> None:
    slow = a.agent.submit("exec", argv=["sleep", "3"])
    started = time.monotonic()
    a.agent.call("ping")
    assert not slow.done()
    assert time.monotonic() - started < 2
    with pytest.raises(AgentTimeout):
        a.agent.call("exec", argv=["sleep", "30"], timeout=0.3)
    assert slow.result(30)["rc"] == 0
    assert a.status().state == "running"


def test_a_step_takes_milliseconds(a: Guest) -> None:
    figures = []
    for _ in range(40):
        started = time.perf_counter()
        a.agent.call("uptime")
        figures.append(time.perf_counter() - started)
    print(f"agent call: median {statistics.median(figures) * 1000:.1f} ms")
    assert statistics.median(figures) < 0.030


@pytest.mark.parametrize("address", ["10.253.0.3", "fd00:253::3", "10.253.0.1", "fd00:253::1"])
def test_everybody_on_the_wire_reaches_everybody(lab: Lab, a: Guest, address: str) -> None:
    mark = lab.wire.mark()
    code = (
        "import socket\n"
        "s = socket.create_server(('::', 4000), family=socket.AF_INET6, dualstack_ipv6=True)\n"
        "c, _ = s.accept()\n"
        "c.sendall(c.recv(100)[::-1])\n"
    )
    if address.endswith((".1", "::1")):
        server = socket.create_server(("::", 4000), family=socket.AF_INET6, dualstack_ipv6=True)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100)[::-1])

        threading.Thread(target=serve, daemon=True).start()
    else:
        server = None
        future = lab.guests["b"].agent.submit("exec", argv=["python3", "-c", code])
    client = (
        "import socket\n"
        "while True:\n"
        "    try:\n"
        f"        c = socket.create_connection(('{address}', 4000))\n"
        "        break\n"
        "    except ConnectionRefusedError:\n"
        "        pass\n"
        "c.sendall(b'wire')\n"
        "print(c.recv(100).decode())\n"
    )
    done = a.agent.call("exec", argv=["python3", "-c", client], timeout=60)
    assert done["out"] == "eriw\n", done
    if server is not None:
        server.close()
    else:
        future.result(60)
    carried = [frame for frame in lab.wire.frames(mark) if frame.payload in (b"wire", b"eriw")]
    assert [frame.payload for frame in carried] == [b"wire", b"eriw"]
    # Whole frames: nothing left for a network card to fill in.
    assert all(with_checksums(frame.data) == frame.data for frame in carried)
    assert lab.wire.missed() == 0


def test_the_wire_drops_what_it_is_told_to(lab: Lab, a: Guest) -> None:
    rule = lab.wire.drop(matching(source="a", transport="icmp"), count=2)
    ping = a.agent.call("exec", argv=["busybox", "ping", "-c", "4", "-i", "0.3", "10.253.0.3"], timeout=30)
    assert "4 packets transmitted, 2 packets received" in ping["out"], ping
    assert rule.applied == 2
    lab.wire.clear()


def test_a_capture_has_the_frames_and_the_keys(lab: Lab, a: Guest, tmp_path: Path) -> None:
    scapy = pytest.importorskip("scapy.all")
    mark = lab.wire.mark()
    a.agent.call("exec", argv=["busybox", "ping", "-c", "1", "10.253.0.3"])
    path = tmp_path / "x.pcapng"
    count = lab.wire.write_pcapng(path, mark, secrets="POOL_SESSION x\n")
    packets = scapy.rdpcap(str(path))
    assert len(packets) == count >= 2
    assert b"POOL_SESSION x" in path.read_bytes()


def symbol(guest: Guest, name: str) -> int:
    line = guest.agent.call("exec", argv=["grep", "-w", name, "/proc/kallsyms"])["out"]
    return int(line.split()[0], 16)


def test_a_reset_brings_fresh_randomness_and_the_right_time(a: Guest) -> None:
    # The positive control: a bare restore brings the same key of the generator each time.
    key_at = symbol(a, "base_crng")
    machine = a._machine()
    machine.monitor("stop")
    bare = []
    for _ in range(2):
        machine.monitor(f"loadvm {SNAPSHOT}")
        bare.append(a.peek(key_at, 32))
    assert bare[0] == bare[1] != bytes(32)
    fresh, drawn = [], []
    for _ in range(2):
        a.reset()
        fresh.append(a.peek(key_at, 32))
        drawn.append(a.agent.call("random", count=32))
        assert abs(int(shell(a, "date +%s")) - time.time()) < 3
    assert len({bare[0], *fresh}) == 3
    assert drawn[0] != drawn[1]


def test_a_reset_forgets_everything_else(a: Guest, b: Guest) -> None:
    a.agent.call("write", path="/run/left", data="x")
    blocked = a.agent.submit("exec", argv=["sleep", "100"])
    a.reset()
    with pytest.raises(AgentError):
        a.agent.call("read", path="/run/left")
    with pytest.raises(Exception, match="reset"):
        blocked.result(1)
    assert a.console.findings() == []
    assert shell(b, "hostname") == "b\n"


def test_memory_and_registers_are_readable(a: Guest) -> None:
    address = symbol(a, "linux_banner")
    assert a.peek(address, 14) == b"Linux version "
    assert len(a.peek(address & ~0xFFF, 70_000)) == 70_000
    assert "RIP=" in a.registers()


def test_a_panic_is_told_at_once_and_the_guest_replaced(lab: Lab, a: Guest) -> None:
    banner = symbol(a, "linux_banner")
    other = a.agent.submit("exec", argv=["sleep", "100"])
    mark = a.console.mark()
    started = time.monotonic()
    with pytest.raises(GuestDied) as death:
        a.agent.call("write", path="/proc/sysrq-trigger", data="c", timeout=60)
    print(f"death told after {time.monotonic() - started:.2f} s")
    assert "sysrq triggered crash" in death.value.reason
    # The machine stops at the panic notifier, behind the call trace.
    assert "Call Trace:" in death.value.excerpt
    assert "</TASK>" in death.value.excerpt
    with pytest.raises(GuestDied):
        other.result(10)
    with pytest.raises(GuestDied):
        a.agent.call("ping")
    assert a.status().state == "crashed"
    (finding,) = a.console.findings(mark)
    assert (finding.kind, finding.fatal) == ("panic", True)
    assert a.peek(banner, 14) == b"Linux version "
    assert "RIP=" in a.registers()
    assert lab.replace("a") is a
    assert shell(a, "hostname") == "a\n"
    assert a.status().state == "running"
    assert a.console.findings(a.console.mark()) == []


def test_a_guest_that_powers_off_is_dead_and_is_booted_anew(lab: Lab, b: Guest) -> None:
    pending = b.agent.submit("exec", argv=["sleep", "100"])
    b.agent.submit("write", path="/proc/sysrq-trigger", data="o")
    with pytest.raises(GuestDied):
        pending.result(60)
    assert b.status().state in ("stopped", "gone")
    lab.replace("b")
    assert shell(b, "hostname") == "b\n"
    assert "reboot" not in [finding.kind for finding in b.console.findings(b.console.mark())]
    b.reset()
    assert shell(b, "hostname") == "b\n"


def test_a_paused_guest_is_no_obstacle(lab: Lab, a: Guest) -> None:
    a._machine().monitor("stop")
    with pytest.raises(AgentTimeout):
        a.agent.call("ping", timeout=0.5)
    lab.replace("a")
    assert shell(a, "hostname") == "a\n"
