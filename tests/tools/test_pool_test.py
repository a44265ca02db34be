# SPDX-License-Identifier: GPL-2.0-or-later
"""pool_test as a person starts it: both backends, its output, its exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import io
import json
import socket
import threading
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from poolref.node import Node
from poolref.tools import pool_test, ports, progress
from poolref.tools.kernel_abi import SessionInfo
from poolref.tools.transfer import Failed, Interrupted, Offer, Port, Server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerThread:
    """`pool_test server` in a thread; `output` and `status` once it has ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
        self.port = 0
        self.status: int | None = None
        self.listening = threading.Event()
        real = ports.NodeSide.listen

        async def listen(side: ports.NodeSide, host: str | None, port: int) -> int:
            try:
                self.port = await real(side, host, 0)
            finally:
                self.listening.set()
            return self.port

        monkeypatch.setattr(ports.NodeSide, "listen", listen)
        argv = [*options, "server", "--once", "--host", "127.0.0.1"]
        self.thread = threading.Thread(target=lambda: setattr(self, "status", pool_test.main(argv)))

    def __enter__(self) -> ServerThread:
        self.thread.start()
        assert self.listening.wait(30)
        return self

    def __exit__(self, *exc: object) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_transfer_between_two_nodes(
    direction: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ServerThread(monkeypatch, "--json") as server:
        argv = ["--json", "client", f"127.0.0.1:{server.port}", "--size", "300k", "--direction", direction]
        assert pool_test.main([*argv, "--message", "5000"]) == 0
    assert server.status == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2
    assert lines[0]["sha256"] == lines[1]["sha256"]
    for line in lines:
        assert (line["direction"], line["size"], line["moved"]) == (direction, 300_000, 300_000)
        assert line["rate_bps"] > 0
        assert line["peak_memory"] > 1 << 20


def test_a_file_and_what_a_person_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"contents" * 2000)
    with ServerThread(monkeypatch) as server:
        assert pool_test.main(["client", "127.0.0.1", str(server.port), "--file", str(path)]) == 0
    printed = capsys.readouterr()
    assert f"waiting on port {server.port}" in printed.out
    assert printed.out.count("equal at both ends") == 2
    assert "0.0 MB" in printed.out
    assert printed.err == "", "no progress line where there is no terminal"


def test_the_bench(capsys: pytest.CaptureFixture[str]) -> None:
    assert pool_test.main(["--json", "bench", "--size", "100k"]) == 0
    up, down, trips = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (up["direction"], down["direction"]) == ("up", "down")
    assert 0 < trips["round_trip_s"] <= trips["worst_s"]
    assert pool_test.main(["bench", "--size", "100k"]) == 0
    assert "there and back, 200 x 64 bytes" in capsys.readouterr().out


def test_a_server_that_cannot_listen(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert pool_test.main(["server", "--host", "127.0.0.1", "--port", port]) == 1
    assert "EADDRINUSE" in capsys.readouterr().err


def test_a_client_without_a_server_says_so_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert pool_test.main(["client", f"127.0.0.1:{port}"]) == 1
    printed = capsys.readouterr().err
    assert f"127.0.0.1 port {port}" in printed
    assert "refused" in printed
    assert printed.count("\n") == 1


class Falling:
    """A side whose sessions fall apart, the first `times` of them."""

    def __init__(self, times: int, error: type[Exception] = Interrupted) -> None:
        self.left = times
        self.error = error

    async def connect(self, host: str, port: int) -> Port:
        self.left -= 1
        if self.left < 0:
            near, far = self.pair()
            self.serving = asyncio.ensure_future(anext(Server(5.0).serve(far)))
            return near
        session: Any = types.SimpleNamespace(
            peer="server", send=self._fail, recv=self._fail, close=self._close
        )
        return session  # type: ignore[no-any-return]

    async def _fail(self, *args: object) -> bytes:
        if self.error is Interrupted:
            raise OSError(errno.ECONNRESET, "the peer went away")
        raise self.error("broken")

    async def _close(self) -> None:
        pass

    @staticmethod
    def pair() -> tuple[Any, Any]:
        queues: list[asyncio.Queue[bytes]] = [asyncio.Queue(), asyncio.Queue()]

        def end(own: int) -> Any:
            async def recv(timeout: float) -> bytes:
                return await queues[own].get()

            async def close() -> None:
                pass

            return types.SimpleNamespace(peer="server", send=queues[1 - own].put, recv=recv, close=close)

        return end(0), end(1)


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> Callable[[Falling], None]:
    """Makes pool_test use a given side, and not wait between attempts."""

    def use(side: Falling) -> None:
        @contextlib.asynccontextmanager
        async def give(args: argparse.Namespace) -> AsyncIterator[Any]:
            yield side

        monkeypatch.setattr(pool_test, "side", give)
        monkeypatch.setattr(pool_test, "_LONGEST_PAUSE_S", 0.0)

    return use


CLIENT = ["--quiet", "client", "127.0.0.1:9", "--size", "10k"]


def test_a_client_goes_on_after_interruptions(
    falling: Callable[[Falling], None], capsys: pytest.CaptureFixture[str]
) -> None:
    falling(Falling(2))
    assert pool_test.main([*CLIENT, "--retries", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("interrupted after 0.0 MB: server: the peer went away") == 2
    assert "equal at both ends" in printed.out


def test_an_interrupted_client_says_how_to_go_on(
    falling: Callable[[Falling], None], capsys: pytest.CaptureFixture[str]
) -> None:
    falling(Falling(9))
    assert pool_test.main([*CLIENT, "--retries", "1"]) == 75
    *_, command = capsys.readouterr().err.splitlines()
    words = command.partition("to go on: ")[2].split()
    assert words[:1] == ["pool_test"]
    falling(Falling(9))
    assert pool_test.main(words[1:]) == 75
    assert capsys.readouterr().err.splitlines()[-1] == command, "the same transfer"
    falling(Falling(0))
    assert pool_test.main(words[1:]) == 0
    assert "10" in words[-1]


def test_a_failed_transfer_is_not_tried_again(
    falling: Callable[[Falling], None], capsys: pytest.CaptureFixture[str]
) -> None:
    side = Falling(9, Failed)
    falling(side)
    assert pool_test.main(CLIENT) == 1
    assert side.left == 8
    assert capsys.readouterr().err == "pool_test: broken\n"


def test_an_interrupt_from_the_keyboard_says_how_to_go_on(
    falling: Callable[[Falling], None], capsys: pytest.CaptureFixture[str]
) -> None:
    falling(Falling(9, KeyboardInterrupt))
    assert pool_test.main(CLIENT) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["client", "h", "--file", "/nonexistent"], "cannot read /nonexistent: No such file"),
        (["client", "h", "--file", "/dev/null"], "/dev/null is empty"),
        (["client", "h", "--file", "/dev/null", "--direction", "down"], "--file is for uploads"),
        (["client", "h", "--resume", "x"], "not what --resume takes: 'x'"),
        (["client", "h", "--resume", "x:1:0"], "not what --resume takes"),
        (["client", "h", "--file", __file__, "--resume", "x:1:7"], "the transfer had 7"),
        (["client", ":9"], "no host in ':9'"),
    ],
)
def test_usage_that_cannot_work(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool_test.main(argv) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["client"],
        ["client", "h", "--size", "0"],
        ["client", "h", "--size", "x"],
        ["client", "h", "--size", "5T"],
        ["client", "h", "--message", "63"],
        ["client", "h", "--message", "65536"],
        ["server", "--port", "0"],
    ],
)
def test_wrong_usage_is_status_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        pool_test.main(argv)
    assert caught.value.code == 2


def test_a_missing_module_or_poold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pool_test.main(["--backend", "kernel", "--device", str(tmp_path / "pool"), "server"]) == 1
    assert str(tmp_path / "pool") in capsys.readouterr().err
    assert pool_test.main(["--backend", "poold", "--socket", str(tmp_path / "s"), "server"]) == 1
    assert "start one with `poold`" in capsys.readouterr().err


# -- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("500M", 500_000_000), ("64Ki", 65536), ("1.5G", 1_500_000_000), ("2k", 2000)],
)
def test_sizes(text: str, size: int) -> None:
    assert progress.byte_count(text) == size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    terminal = Terminal()
    line = progress.ProgressLine(1_000_000, terminal)
    line(0)
    drawn = terminal.getvalue()
    now += 0.05
    line(10_000)
    assert terminal.getvalue() == drawn, "not more often than ten times a second"
    now += 0.95
    line(250_000)
    assert "######  " in terminal.getvalue()
    assert " 25%  0.2 MB of 1.0 MB  0.2 MB/s  3 s left" in terminal.getvalue()
    line(1_000_000)
    assert "100%" in terminal.getvalue(), "the last one always"
    line.end()
    line.end()
    assert terminal.getvalue().count("\n") == 1


class Handle:
    """A Backend that keeps a record."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.rows: list[SessionInfo] = []
        self.waits = 0

    def listen(self, port: int = 0) -> int:
        return port

    def sessions(self) -> list[SessionInfo]:
        return self.rows

    def send(self, index: int, data: bytes, channel: int = 0) -> None:
        self.log.append((index, data, threading.current_thread() is threading.main_thread()))

    def recv(self, index: int, channel: int = 0, max_size: int = 0) -> bytes:
        self.waits += 1
        if self.waits < 3:
            raise OSError(errno.ETIMEDOUT, "nothing within 5 s")
        return b"at last"

    def connect(self, address: str, port: int = 0, version: int = 0) -> int:
        self.rows.append(row(7, "c"))
        return 7

    def close_session(self, index: int) -> None:
        self.log.append(("closed", index))

    def shut(self) -> None:
        self.log.append("shut")


def row(index: int, session_id: str, state: str = "ESTABLISHED") -> SessionInfo:
    return SessionInfo(index, "10.0.0.1", 4, state, session_id)


def test_a_backends_session_waits_longer_than_the_backend_does() -> None:
    log: list[Any] = []

    async def test() -> None:
        port = ports.BackendPort(Handle(log), 3, "peer")  # type: ignore[arg-type]
        await port.send(b"x")
        assert await port.recv(30.0) == b"at last"
        port._handle.waits = 0  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="nothing within") as error:
            await port.recv(0.0)
        assert error.value.errno == errno.ETIMEDOUT
        await port.close()
        await port.close()
        with pytest.raises(OSError, match="closed here") as error:
            await port.send(b"x")
        assert error.value.errno == errno.ENOTCONN

    asyncio.run(test())
    for thread in threading.enumerate():
        if thread.name.startswith("pool-session-3"):
            thread.join()
    assert log == [(3, b"x", False), ("closed", 3), "shut"]


def test_a_backends_new_sessions_show_once_and_its_own_never() -> None:
    async def test() -> None:
        log: list[Any] = []
        handle = Handle(log)
        handle.rows = [row(0, "old")]
        side = ports.BackendSide(lambda: handle)  # type: ignore[arg-type, return-value]
        with pytest.raises(OSError, match="all addresses"):
            await side.listen("127.0.0.1", 5)
        assert await side.listen(None, 5) == 5
        assert (await side.connect("10.0.0.2", 9)).peer == "10.0.0.2 port 9"
        handle.rows += [row(1, "a"), row(2, "half", "INIT_SENT")]
        incoming = side.incoming()
        first = await anext(incoming)
        assert first.peer == "10.0.0.1 port 4"
        assert first._index == 1  # type: ignore[attr-defined]
        handle.rows[-1] = row(2, "half")
        assert (await anext(incoming))._index == 2  # type: ignore[attr-defined]
        handle.rows[:] = []
        waiting = asyncio.ensure_future(anext(incoming))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(test())


def test_a_nodes_sessions() -> None:
    async def test() -> None:
        async with Node() as server, Node() as client:
            far, near = ports.NodeSide(server), ports.NodeSide(client)
            port = await far.listen("127.0.0.1", 0)
            session = await near.connect("127.0.0.1", port)
            accepted = await anext(far.incoming())
            assert session.peer == f"127.0.0.1 port {port}"
            await session.send(b"x")
            assert await accepted.recv(30.0) == b"x"
            with pytest.raises(TimeoutError):
                await accepted.recv(0.0)
            await session.close()
            with pytest.raises(OSError, match="ended") as error:
                await accepted.recv(30.0)
            assert error.value.errno == errno.ENOTCONN

    asyncio.run(test())


def test_an_offer_is_new_each_time() -> None:
    args = argparse.Namespace(size=10, message=100)
    first, second = pool_test.make_offer(args, "up"), pool_test.make_offer(args, "up")
    assert isinstance(first, Offer)
    assert (first.id, first.seed) != (second.id, second.seed)
