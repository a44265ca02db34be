# SPDX-License-Identifier: GPL-2.0-or-later
"""The sandbox: isolation, exit status, signals, and that nothing is left, whatever ends it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from poolproof.errors import HarnessError
from poolproof.lab import sandbox

ENTER = "import sys; from poolproof.lab import sandbox; sys.exit(sandbox.enter(sys.argv[1:]))"


def enter(*command: str) -> list[str]:
    return [sys.executable, "-c", ENTER, *command]


def python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def inside(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        enter(sys.executable, "-c", code), capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    done = subprocess.run(enter("true"), capture_output=True, text=True, check=False, timeout=60)
    if done.returncode and "HarnessError" in done.stderr:
        pytest.skip(f"no sandbox on this host: {done.stderr.splitlines()[-1]}")


def host_state() -> dict[str, object]:
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout,
        "run": sorted(os.listdir("/run")),
        "dev": sorted(os.listdir("/dev")),
        "accounts": Path("/etc/passwd").read_bytes(),
    }


@pytest.fixture
def unchanged() -> Iterator[None]:
    before = host_state()
    yield
    assert host_state() == before


def descendants(marker: str) -> list[int]:
    """Processes anywhere on this machine whose environment carries `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


WORLD = """
import os, socket
from pathlib import Path
from poolproof.lab import netdev, sandbox
assert sandbox.active()
run = sandbox.prepare()
assert run.is_dir() and os.stat(run).st_dev != os.stat("/run").st_dev
(run / "file").write_text("x")
assert not os.path.exists("/dev/kvm")
assert os.getppid() == 1 and os.getpid() < 10
assert [n for _, n in socket.if_nameindex()] == ["lo"]
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
netdev.ip(["tuntap add dev probe0 mode tap", "link set dev probe0 up"])
assert Path("/proc/sys/net/ipv4/conf/probe0").exists()
"""


def test_the_world_inside_is_our_own(unchanged: None) -> None:
    done = inside(WORLD)
    assert done.returncode == 0, done.stderr


def test_the_exit_status_is_the_command_s(unchanged: None) -> None:
    assert inside("raise SystemExit(7)").returncode == 7
    assert inside("import os; os.kill(os.getpid(), 9)").returncode == 128 + 9


def test_a_command_that_does_not_exist_is_said(unchanged: None) -> None:
    done = subprocess.run(enter("/no/such"), capture_output=True, text=True, check=False, timeout=60)
    assert "No such file" in done.stderr


WAITS = """
import signal, subprocess, sys
stray = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print("up", flush=True)
def stop(number, frame):
    print("teardown", signal.Signals(number).name, flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
while True:
    signal.pause()
"""


def started(marker: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        enter(sys.executable, "-c", WAITS),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "POOLPROOF_TEST_MARKER": marker},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    assert len(descendants(marker)) >= 4
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_command_once_and_ends_everything(
    number: signal.Signals, unchanged: None
) -> None:
    marker = f"poolproof-{os.getpid()}-{number.name}"
    process = started(marker)
    os.killpg(process.pid, number)  # as a terminal does it: the whole group
    output, _ = process.communicate(timeout=30)
    assert output == f"teardown {number.name}\n"
    assert process.returncode == 3
    assert descendants(marker) == []


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_kill_9_of_any_of_ours_ends_everything(generation: int, unchanged: None) -> None:
    marker = f"poolproof-{os.getpid()}-kill{generation}"
    process = started(marker)
    victim = process.pid
    for _ in range(generation):
        victim = int(Path(f"/proc/{victim}/task/{victim}/children").read_text().split()[0])
    others = [os.pidfd_open(pid) for pid in descendants(marker)]
    os.kill(victim, signal.SIGKILL)
    process.wait(30)
    for fd in others:
        assert select.select([fd], [], [], 10)[0], "a process outlived the sandbox"
        os.close(fd)
    assert descendants(marker) == []


def test_two_sandboxes_side_by_side_do_not_meet() -> None:
    code = (
        "from poolproof.lab import netdev, sandbox\n"
        "netdev.ip(['tuntap add dev mine mode tap'])\n"
        "(sandbox.prepare() / 'mine').mkdir()\n"
        "input()"
    )
    command = enter(sys.executable, "-c", code)
    pair = [subprocess.Popen(command, stdin=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate("\n", timeout=60)[0] for process in pair] == [None, None]
    assert [process.returncode for process in pair] == [0, 0]


@pytest.mark.parametrize(
    ("values", "code", "said"),
    [
        ({"user/max_user_namespaces": "0"}, 28, "max_user_namespaces=10000"),
        ({"kernel/unprivileged_userns_clone": "0"}, 1, "unprivileged_userns_clone=1"),
        ({"kernel/apparmor_restrict_unprivileged_userns": "1"}, 13, "AppArmor"),
        ({}, 1, "run as root"),
    ],
)
def test_a_refusal_says_what_to_do(values: dict[str, str], code: int, said: str) -> None:
    assert said in sandbox.refusal_hint(lambda path: values.get(path, ""), code)


def test_outside_there_is_no_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sandbox.ENV_FLAG, raising=False)
    with pytest.raises(HarnessError, match="inside the sandbox"):
        sandbox.prepare()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_without_tun_there_is_one_clear_line() -> None:
    code = (
        "import os, stat\n"
        "from poolproof.lab import namespaces as ns, sandbox\n"
        "from poolproof.errors import HarnessError\n"
        "ns.unshare(ns.CLONE_NEWNS)\n"
        "ns.mount('none', '/', flags=ns.MS_REC | ns.MS_PRIVATE)\n"
        "ns.mount('tmpfs', '/dev/net', 'tmpfs')\n"
        "try:\n"
        "    sandbox.enter(['true'])\n"
        "except HarnessError as exc:\n"
        "    print(exc.message, '|', exc.hint)\n"
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "/dev/net/tun does not exist" in done.stdout
    assert "modprobe tun" in done.stdout


def reachable_by_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
@pytest.mark.skipif(not reachable_by_all(Path(sys.executable)), reason="others cannot reach the interpreter")
def test_as_an_ordinary_user() -> None:
    """With a usable /dev/net/tun, an ordinary user gets the same sandbox through a user namespace."""
    code = f"""
import os, sys
from poolproof.lab import namespaces as ns
ns.unshare(ns.CLONE_NEWNS)
ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
ns.mount("tmpfs", "/dev/net", "tmpfs", data="mode=755")
os.mknod("/dev/net/tun", 0o020666, os.makedev(10, 200))
os.chmod("/dev/net/tun", 0o666)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.execv(sys.executable, {enter(sys.executable, "-c", WORLD)!r})
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
