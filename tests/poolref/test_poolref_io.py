# SPDX-License-Identifier: GPL-2.0-or-later
"""What sockets and event loops seldom do to a node on loopback: take no more, fail, come too early."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any

import pytest
from poolref_sim import EASY

from poolref.constants import SECOND
from poolref.core import NodeCore
from poolref.io import link as link_module
from poolref.io import multicast as multicast_module
from poolref.io import raw as raw_module
from poolref.io.link import BaseLink
from poolref.io.multicast import Multicast
from poolref.io.raw import RawPort, RawSocket
from poolref.raw_sending import Datagram

A, B = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])


class FakeSocket:
    """Takes datagrams, or fails as told; ``sent`` has (packet, DF set)."""

    def __init__(self) -> None:
        self.answers: list[OSError | None] = []
        self.sent: list[tuple[bytes, bool]] = []
        self.incoming: list[bytes] = []
        self.dont_fragment = True
        self.open = True

    def sendmsg(self, buffers: list[bytes], ancillary: Any, flags: int, address: tuple[str, int]) -> int:
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.sent.append((buffers[0], self.dont_fragment))
        return len(buffers[0])

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.dont_fragment = value != raw_module._IP_PMTUDISC_DONT

    def recv(self, size: int) -> bytes:
        if not self.incoming:
            raise BlockingIOError
        return self.incoming.pop(0)

    def fileno(self) -> int:
        return 7 if self.open else -1

    def close(self) -> None:
        self.open = False


class FakeLoop:
    """Remembers who waits for a socket to take more."""

    def __init__(self) -> None:
        self.writer: Callable[[], None] | None = None
        self.reading = True

    def add_writer(self, sock: FakeSocket, callback: Callable[[], None]) -> None:
        self.writer = callback

    def remove_writer(self, sock: FakeSocket) -> None:
        self.writer = None

    def remove_reader(self, sock: FakeSocket) -> None:
        self.reading = False


class Bench:
    """A RawSocket whose system socket and loop are ours."""

    def __init__(self) -> None:
        self.system, self.loop = FakeSocket(), FakeLoop()
        self.received: list[tuple[bytes, bytes, bytes]] = []
        self.drained = 0
        sock = RawSocket.__new__(RawSocket)
        sock._socket, sock._loop = self.system, self.loop  # type: ignore[assignment]
        sock._received = lambda *datagram: self.received.append(datagram)  # type: ignore[arg-type]
        sock._drained = self.count
        sock._backlog = raw_module.deque()
        self.socket = sock

    def count(self) -> None:
        self.drained += 1

    def send(self, *packets: bytes, whole: bool = True) -> list[bool]:
        return [self.socket.send(A, B, Datagram(packet, whole)) for packet in packets]


class TestRawSocket:
    def test_what_the_socket_does_not_take_waits_in_order(self) -> None:
        bench = Bench()
        bench.system.answers = [BlockingIOError()]
        assert bench.send(b"1", b"2", b"3") == [True, True, True]
        assert bench.socket.full
        assert bench.system.sent == []
        assert bench.loop.writer is not None
        bench.system.answers = [None, InterruptedError()]
        bench.loop.writer()
        assert [packet for packet, _ in bench.system.sent] == [b"1"]
        assert bench.loop.writer is not None
        assert bench.drained == 0
        bench.loop.writer()
        assert [packet for packet, _ in bench.system.sent] == [b"1", b"2", b"3"]
        assert bench.loop.writer is None
        assert bench.drained == 1
        assert not bench.socket.full

    def test_too_many_are_lost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(raw_module, "_BACKLOG", 2)
        bench = Bench()
        bench.system.answers = [BlockingIOError()]
        assert bench.send(b"1", b"2", b"3") == [True, True, False]

    def test_what_fails_is_lost(self) -> None:
        bench = Bench()
        bench.system.answers = [OSError(errno.ENETUNREACH, "no way")]
        assert bench.send(b"1", b"2") == [False, True]
        bench.system.answers = [BlockingIOError(), OSError(errno.EPERM, "filtered")]
        assert bench.send(b"3", b"4") == [True, True]
        assert bench.loop.writer is not None
        bench.loop.writer()
        assert [packet for packet, _ in bench.system.sent] == [b"2", b"4"]

    def test_df_is_clear_for_one_datagram_alone(self) -> None:
        bench = Bench()
        bench.send(b"1")
        bench.send(b"2", whole=False)
        bench.send(b"3")
        bench.system.answers = [OSError(errno.EPERM, "filtered")]
        bench.send(b"4", whole=False)
        bench.send(b"5")
        assert bench.system.sent == [(b"1", True), (b"2", False), (b"3", True), (b"5", True)]

    def test_reading_stops_with_the_end(self) -> None:
        bench = Bench()
        header = b"\x45" + bytes(11) + A + B
        bench.system.incoming = [header + b"first", header + b"second"]
        bench.socket._received = lambda *datagram: (  # type: ignore[assignment]
            bench.received.append(datagram), bench.socket.close(), bench.socket.close()
        )  # fmt: skip
        bench.socket._read()
        assert bench.received == [(A, B, b"first")]
        assert not bench.loop.reading

    def test_a_flood_leaves_the_loop_to_others(self) -> None:
        bench = Bench()
        bench.system.incoming = [b"\x46" + bytes(11) + A + B + b"opts" + b"x"] * 100
        bench.socket._read()
        assert len(bench.received) == 64
        assert bench.received[0] == (A, B, b"x")


class Port:
    """A RawPort over a :class:`Bench`, with links that count their flushes."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.core = NodeCore(EASY, bytes, lambda: 0)
        port = RawPort.__new__(RawPort)
        port._core, port._socket, port._links = self.core, self.bench.socket, {}
        self.port = port


class Sender:
    """Has two datagrams to send."""

    def __init__(self) -> None:
        class Peer:
            ip = bytes(12) + B

        self.peer = Peer

    def datagrams_to_send(self) -> list[Datagram]:
        return [Datagram(b"one"), Datagram(b"two")]


def test_datagrams_that_the_system_refuses_are_counted() -> None:
    port = Port()
    port.bench.system.answers = [OSError(errno.EPERM, "filtered")]
    port.port.send(A, Sender())  # type: ignore[arg-type]
    assert port.core.counters["send_failures"] == 1
    assert port.bench.system.sent == [(b"two", True)]


def test_every_link_goes_on_when_the_socket_takes_more() -> None:
    port = Port()
    flushed: list[int] = []

    class Link:
        def __init__(self, number: int) -> None:
            self.number = number

        def flush(self) -> None:
            flushed.append(self.number)
            port.port._links.clear()  # the end of one may end others

    port.port._links = {number: Link(number) for number in range(3)}  # type: ignore[misc, assignment]
    port.port._drained()
    assert flushed == [0, 1, 2]


class Nothing:
    """A connection to which nothing happens but timers."""

    def __init__(self) -> None:
        self.fired: list[int] = []

    def handle_timer(self, now: int) -> None:
        self.fired.append(now)


class Link(BaseLink):
    """Counts how often it is flushed."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = 0
        super().__init__(lambda: self.time, loop)
        self.connection = Nothing()  # type: ignore[assignment]
        self.flushes = 0

    @property
    def full(self) -> bool:
        return False

    def flush(self) -> None:
        self._begin_flush()
        self.flushes += 1

    def abort(self) -> None:
        self.gone.set_result(None)


def on_a_loop(scenario: Callable[[Link], Any]) -> None:
    async def run() -> None:
        link = Link(asyncio.get_running_loop())
        await scenario(link)
        link.abort()

    asyncio.run(run())


class TestLink:
    def test_what_is_sent_in_one_turn_goes_out_in_one_go(self) -> None:
        async def scenario(link: Link) -> None:
            for _ in range(10):
                link.flush_soon(100)
            assert link.flushes == 0
            await asyncio.sleep(0)
            assert (link.flushes, link.spent) == (1, False)
            await asyncio.sleep(0)
            assert link.flushes == 1

        on_a_loop(scenario)

    def test_a_lot_goes_out_at_once(self) -> None:
        async def scenario(link: Link) -> None:
            link.flush_soon(link_module._BURST - 1)
            assert link.flushes == 0
            link.flush_soon(1)
            assert (link.flushes, link.spent) == (1, True)
            await asyncio.sleep(0)
            assert link.flushes == 1  # nothing is left for the end of the turn

        on_a_loop(scenario)

    def test_the_timer_follows_what_is_due(self) -> None:
        async def scenario(link: Link) -> None:
            connection: Any = link.connection
            link._follow_timer(50_000_000_000)
            first = link._timer
            link._follow_timer(50_000_000_000)
            assert link._timer is first
            link._follow_timer(0)
            assert link._timer is not first
            link._follow_timer(None)
            assert link._timer is None
            await asyncio.sleep(0)
            assert connection.fired == []
            link.time = 5
            link._follow_timer(3)
            for _ in range(100):
                if connection.fired:
                    break
                await asyncio.sleep(0)
            assert (connection.fired, link.flushes) == ([5], 1)

        on_a_loop(scenario)


class FakeReceiver(FakeSocket):
    """Joins groups, unless told not to, and receives datagrams."""

    def __init__(self) -> None:
        super().__init__()
        self.joins: list[OSError | None] = []
        self.datagrams: list[bytes | OSError] = []

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        answer = self.joins.pop(0) if self.joins else None
        if answer is not None:
            raise answer

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:
        if not self.datagrams:
            raise BlockingIOError
        datagram = self.datagrams.pop(0)
        if isinstance(datagram, OSError):
            raise datagram
        return datagram, ("192.0.2.9", 9253)

    def sendto(self, datagram: bytes, address: tuple[str, int]) -> int:
        return self.sendmsg([datagram], [], 0, address)


INTERFACES = {multicast_module._Interface(n, bytes([192, 0, 2, n])) for n in (1, 2)}


class Group:
    """A Multicast whose sockets are ours, with two interfaces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.core = NodeCore(EASY, bytes, lambda: 0)
        self.now = 0
        self.multicast = Multicast(self.core, lambda: self.now)
        self.receivers: list[FakeReceiver] = []
        self.senders: list[FakeReceiver] = []
        self.failing: list[OSError | None] = []
        self.usable = set(INTERFACES)
        monkeypatch.setattr(Multicast, "_open", self.open)
        monkeypatch.setattr(Multicast, "_usable", lambda multicast, receiver: self.usable)
        monkeypatch.setattr(multicast_module, "_sender", self.sender)

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        self.receivers.append(FakeReceiver())
        self.receivers[-1].joins = self.failing
        self.multicast._receiver = self.receivers[-1]  # type: ignore[assignment]
        loop.remove_reader = lambda sock: True  # type: ignore[assignment, method-assign]

    def sender(self, interface: object) -> FakeReceiver:
        self.senders.append(FakeReceiver())
        return self.senders[-1]

    @property
    def failures(self) -> int:
        return self.core.counters["multicast_failures"]


def with_a_group(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Group], None]) -> None:
    async def run() -> None:
        group = Group(monkeypatch)
        group.multicast.stop()  # which never started
        group.multicast.start()
        try:
            scenario(group)
        finally:
            group.multicast.stop()
            group.multicast.stop()

    asyncio.run(run())


class TestMulticast:
    def test_one_interface_of_two_is_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scenario(group: Group) -> None:
            assert (len(group.senders), group.failures) == (2, 0)
            group.senders[0].answers = [OSError(errno.ENETDOWN, "down")]
            group.multicast.listening(9253)
            assert [len(sender.sent) for sender in group.senders] == [0, 1]
            assert group.failures == 0
            assert group.multicast.is_open

        with_a_group(monkeypatch, scenario)

    def test_an_announce_that_leaves_nowhere_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scenario(group: Group) -> None:
            for sender in group.senders:
                sender.answers = [OSError(errno.ENETDOWN, "down")]
            group.multicast.listening(9253)
            assert group.failures == 1
            assert not group.multicast.is_open
            assert not group.receivers[0].open

        with_a_group(monkeypatch, scenario)

    def test_one_that_has_to_wait_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scenario(group: Group) -> None:
            for sender in group.senders:
                sender.answers = [BlockingIOError()]
            group.multicast.listening(9253)
            assert (group.failures, [len(sender.sent) for sender in group.senders]) == (0, [0, 0])

        with_a_group(monkeypatch, scenario)

    @pytest.mark.parametrize(
        ("answers", "joined"),
        [
            ([OSError(errno.EADDRINUSE, "joined"), None], 2),
            ([OSError(errno.ENODEV, "gone"), None], 1),
            ([OSError(errno.ENODEV, "gone"), OSError(errno.ENOBUFS, "full")], 0),
        ],
    )
    def test_joining(self, monkeypatch: pytest.MonkeyPatch, answers: list[Any], joined: int) -> None:
        def scenario(group: Group) -> None:
            group.multicast._fail(OSError(errno.EIO, "anew"))
            group.failing = list(answers)
            group.now += 2 * SECOND  # later than the pause
            group.multicast._tick()
            assert len(group.multicast._senders) == joined
            assert group.failures == (1 if joined else 2)

        with_a_group(monkeypatch, scenario)

    def test_interfaces_come_and_go(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scenario(group: Group) -> None:
            group.usable = {multicast_module._Interface(3, bytes([192, 0, 2, 3]))}
            group.multicast._tick()
            assert [sender.open for sender in group.senders] == [False, False, True]
            group.usable = set()
            group.multicast._tick()
            assert group.failures == 1

        with_a_group(monkeypatch, scenario)

    def test_a_receiver_that_fails_is_opened_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scenario(group: Group) -> None:
            (receiver,) = group.receivers
            receiver.datagrams = [b"no announce", OSError(errno.ENETDOWN, "down"), b"never read"]
            group.multicast._readable(receiver)  # type: ignore[arg-type]
            assert group.core.counters["malformed"] == 1
            assert (group.failures, receiver.open, len(receiver.datagrams)) == (1, False, 1)
            group.now += 2 * SECOND
            group.multicast._tick()
            assert len(group.receivers) == 2
            assert group.multicast.is_open

        with_a_group(monkeypatch, scenario)

    def test_a_flood_leaves_the_loop_to_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def scenario(group: Group) -> None:
            (receiver,) = group.receivers
            receiver.datagrams = [b"no announce"] * 100
            group.multicast._readable(receiver)  # type: ignore[arg-type]
            assert len(receiver.datagrams) == 36

        with_a_group(monkeypatch, scenario)
