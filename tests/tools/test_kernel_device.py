# SPDX-License-Identifier: GPL-2.0-or-later
"""/dev/pool as poolctl uses it, against a device whose ioctls are answered here as spec/abi.md says."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolref.tools import kernel_abi, poolctl
from poolref.tools.kernel_abi import PoolDevice

Run = Callable[..., tuple[int, bytes, bytes]]


class Module:
    """What the ioctls of one module answer; ``seen`` has (number, argument as it came)."""

    def __init__(self, *, earliest: bool = False) -> None:
        self.earliest = earliest
        self.seen: list[tuple[int, bytes]] = []
        self.message: bytes | None = None
        self.sent: list[tuple[int, int, bytes]] = []
        self.subscribed = {0}
        self.rows: list[bytes] = []
        self.error: int | None = None

    def ioctl(self, fd: int, number: int, argument: Any = 0, mutate: bool = False) -> int:
        if number == kernel_abi.IOC_CONNECT and isinstance(argument, int):
            raise OSError(errno.ENOTTY if self.earliest else errno.EFAULT, "probe")
        if isinstance(argument, int):
            self.seen.append((number, struct.pack("=i", argument)))
            return 0
        assert mutate
        self.seen.append((number, bytes(argument)))
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        answers = {
            kernel_abi.IOC_CONNECT: lambda: 5,
            kernel_abi.IOC_CONNECT_EARLIEST: lambda: 6,
            kernel_abi.IOC_SEND: lambda: self.send(argument),
            kernel_abi.IOC_RECV: lambda: self.receive(argument),
            kernel_abi.IOC_SESSIONS: lambda: self.list(argument),
            kernel_abi.IOC_CHANNEL: lambda: self.channel(argument),
        }
        return answers.get(number, lambda: 0)()

    def send(self, argument: bytearray) -> int:
        index, channel, _, _, size, pointer = kernel_abi.MESSAGE_REQ.unpack(argument)
        self.sent.append((index, channel, ctypes.string_at(pointer, size)))
        return 0

    def receive(self, argument: bytearray) -> int:
        index, _, _, _, room, pointer = kernel_abi.MESSAGE_REQ.unpack(argument)
        if self.message is None:
            raise OSError(errno.ETIMEDOUT, "nothing came")
        needed = len(self.message)
        kernel_abi.MESSAGE_REQ.pack_into(argument, 0, index, 7, 0, 0, needed, pointer)
        if needed > room:
            raise OSError(errno.EMSGSIZE, "too small")
        ctypes.memmove(pointer, self.message, needed)
        return 0

    def list(self, argument: bytearray) -> int:
        _, room, pointer = kernel_abi.SESSION_LIST.unpack(argument)
        ctypes.memmove(pointer, b"".join(self.rows), len(b"".join(self.rows)))
        kernel_abi.SESSION_LIST.pack_into(argument, 0, len(self.rows), room, pointer)
        return 0

    def channel(self, argument: bytearray) -> int:
        _, channel, operation, _, _, pointer = kernel_abi.CHANNEL_REQ.unpack(argument)
        if operation == kernel_abi.CHANNEL_SUBSCRIBE:
            self.subscribed.add(channel)
        elif operation == kernel_abi.CHANNEL_UNSUBSCRIBE:
            self.subscribed.discard(channel)
        else:
            bitmap = bytearray(32)
            for number in self.subscribed:
                bitmap[number // 8] |= 1 << number % 8
            ctypes.memmove(pointer, bytes(bitmap), 32)
        return 0


def opened(monkeypatch: pytest.MonkeyPatch, module: Module, tmp_path: Path) -> PoolDevice:
    monkeypatch.setattr(kernel_abi.fcntl, "ioctl", module.ioctl)
    return PoolDevice(os.devnull, str(tmp_path))


@pytest.fixture
def module() -> Module:
    return Module()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, module: Module, tmp_path: Path) -> Iterator[PoolDevice]:
    with opened(monkeypatch, module, tmp_path) as device:
        yield device


def test_listening(device: PoolDevice, module: Module) -> None:
    assert device.variant == "current"
    assert device.listen(4711) == 4711
    device.stop()
    device.close_session(3)
    assert module.seen == [
        (kernel_abi.IOC_LISTEN, struct.pack("=H", 4711)),
        (kernel_abi.IOC_STOP, bytes(4)),
        (kernel_abi.IOC_CLOSE_SESS, struct.pack("=I", 3)),
    ]


@pytest.mark.parametrize(
    ("address", "mapped", "family"),
    [("192.0.2.1", "00000000000000000000ffffc0000201", 2), ("fd00::1", "fd" + "00" * 14 + "01", 10)],
)
def test_connecting(device: PoolDevice, module: Module, address: str, mapped: str, family: int) -> None:
    assert device.connect(address, 4711, version=2) == 5
    ((number, request),) = module.seen
    assert number == kernel_abi.IOC_CONNECT
    assert kernel_abi.CONNECT_REQ.unpack(request) == (bytes.fromhex(mapped), 4711, family, 2)


def test_an_early_build_takes_ipv4_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = Module(earliest=True)
    with opened(monkeypatch, module, tmp_path) as device:
        assert device.variant == "earliest"
        assert device.connect("192.0.2.1", 4711) == 6
        with pytest.raises(OSError, match="IPv4") as caught:
            device.connect("fd00::1")
        assert caught.value.errno == errno.EAFNOSUPPORT
    assert module.seen == [
        (kernel_abi.IOC_CONNECT_EARLIEST, kernel_abi.CONNECT_REQ_EARLIEST.pack(0xC0000201, 4711))
    ]


@pytest.mark.parametrize("data", [b"x", b"with a \0 inside", bytes(65535), b""])
def test_messages_go_as_they_are(device: PoolDevice, module: Module, data: bytes) -> None:
    device.send(2, data, channel=9)
    assert module.sent == [(2, 9, data)]


def test_messages_come_as_they_are(device: PoolDevice, module: Module) -> None:
    module.message = b"with a \0 inside"
    assert device.recv(2) == b"with a \0 inside"
    assert device.recv(2, max_size=15) == b"with a \0 inside"
    with pytest.raises(OSError, match="needs 15 bytes, the buffer has 14") as caught:
        device.recv(2, max_size=14)
    assert caught.value.errno == errno.EMSGSIZE
    module.message = None
    with pytest.raises(TimeoutError):
        device.recv(2)


def test_channels(device: PoolDevice, module: Module) -> None:
    assert device.channel(2, kernel_abi.CHANNEL_SUBSCRIBE, 255) == []
    assert device.channel(2, kernel_abi.CHANNEL_SUBSCRIBE, 9) == []
    assert device.channel(2, kernel_abi.CHANNEL_LIST) == [0, 9, 255]
    assert device.channel(2, kernel_abi.CHANNEL_UNSUBSCRIBE, 9) == []
    assert device.channel(2, kernel_abi.CHANNEL_LIST) == [0, 255]


FIGURES = tuple(range(11, 20))


@pytest.mark.parametrize("earliest", [False, True])
def test_sessions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, earliest: bool) -> None:
    module = Module(earliest=earliest)
    address: tuple[Any, ...] = (0xC0000201, 9253) if earliest else (kernel_abi.mapped("192.0.2.1"), 9253, 2)
    layout = kernel_abi.SESSION_INFO_EARLIEST if earliest else kernel_abi.SESSION_INFO
    telemetry = kernel_abi.TELEMETRY.pack(*FIGURES)
    row = layout.pack(4, *address, 3, b"i" * 16, 1, 2, 3, 4, 5, telemetry)
    module.rows = [row, row]
    with opened(monkeypatch, module, tmp_path) as device:
        first, second = device.sessions()
    assert first == second
    assert (first.index, first.peer_addr, first.peer_port, first.state) == (
        4,
        "192.0.2.1",
        9253,
        "ESTABLISHED",
    )
    assert first.session_id == "69" * 16
    assert (first.bytes_sent, first.bytes_recv, first.packets_sent) == (1, 2, 3)
    assert (first.packets_recv, first.rekey_count) == (4, 5)
    assert tuple(first.telemetry.values()) == FIGURES


def test_errors_keep_their_errno(device: PoolDevice, module: Module) -> None:
    module.error = errno.ENOSPC
    for call in (lambda: device.connect("192.0.2.1"), lambda: device.send(1, b"x"), device.sessions):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENOSPC


def test_closing_twice_closes_once(monkeypatch: pytest.MonkeyPatch, module: Module, tmp_path: Path) -> None:
    device = opened(monkeypatch, module, tmp_path)
    closed: list[int] = []
    monkeypatch.setattr(kernel_abi.os, "close", closed.append)
    device.shut()
    device.shut()
    assert len(closed) == 1
    monkeypatch.undo()
    os.close(closed[0])


def test_counters(device: PoolDevice, tmp_path: Path) -> None:
    (tmp_path / "counters").write_text(
        "malformed 3\nauth_fail 18446744073709551615\nodd line here\nname x\n\n"
    )
    assert device.counters() == {"malformed": 3, "auth_fail": 2**64 - 1}
    (tmp_path / "counters").unlink()
    with pytest.raises(FileNotFoundError):
        device.counters()


class TestPoolctl:
    """The command over such a device."""

    @pytest.fixture
    def run(
        self, monkeypatch: pytest.MonkeyPatch, module: Module, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> Run:
        monkeypatch.setattr(kernel_abi.fcntl, "ioctl", module.ioctl)

        def run(*arguments: str) -> tuple[int, bytes, bytes]:
            status = poolctl.main(["--device", os.devnull, *arguments])
            printed = capfdbinary.readouterr()
            return status, printed.out, printed.err

        return run

    def test_listen_and_stop(self, run: Run) -> None:
        assert run("listen", "4711") == (0, b"listening on port 4711\n", b"")
        assert run("stop") == (0, b"stopped listening\n", b"")
        assert run("--json", "listen") == (0, b'{"port": 9253}\n', b"")

    def test_send(self, run: Run, module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_bytes(b"\0from a file")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xfffrom stdin")))
        assert run("send", "3", "some text", "--channel", "2") == (0, b"", b"")
        assert run("send", "3", "--file", str(tmp_path / "file")) == (0, b"", b"")
        assert run("--json", "send", "3") == (0, b'{"sent": 11}\n', b"")
        assert module.sent == [(3, 2, b"some text"), (3, 0, b"\0from a file"), (3, 0, b"\xfffrom stdin")]
        status, _, complaint = run("send", "3", "--file", str(tmp_path / "none"))
        assert status == 2
        assert b"cannot read" in complaint

    def test_recv(self, run: Run, module: Module) -> None:
        module.message = b"\0bytes\xff"
        assert run("recv", "3") == (0, b"\0bytes\xff", b"")
        assert run("--json", "recv", "3") == (0, b'{"length": 7, "b64": "AGJ5dGVz/w=="}\n', b"")
        module.message = None
        status, out, complaint = run("recv", "3")
        assert (status, out) == (1, b"")
        assert b"ETIMEDOUT" in complaint

    def test_channels(self, run: Run) -> None:
        assert run("channel", "3", "subscribe", "255") == (0, b"", b"")
        assert run("channel", "3", "list") == (0, b"0 255\n", b"")
        status, _, complaint = run("channel", "3", "unsubscribe")
        assert status == 2
        assert b"needs a channel number" in complaint

    def test_connect_tries_every_address(
        self, run: Run, module: Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(poolctl, "resolve", lambda host: ["fd00::1", "192.0.2.1"])
        assert run("connect", "node.example") == (0, b"5\n", b"")
        assert len(module.seen) == 1
        module.error = errno.ECONNREFUSED
        status, _, complaint = run("connect", "node.example:4711")
        assert status == 1
        assert b"fd00::1 port 4711: Connection refused; 192.0.2.1 port 4711" in complaint
        assert len(module.seen) == 3
