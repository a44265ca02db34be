# SPDX-License-Identifier: GPL-2.0-or-later
"""What a node shows of itself, and its discovery of others."""

from __future__ import annotations

import errno
from typing import Any, ClassVar

import pytest
from poolref_loopback import V4, asynchronous, connected, listening, until

from poolref import node
from poolref.constants import MAX_PEERS
from poolref.errors import LocalError
from poolref.journal import ChangeType
from poolref.node import Node
from poolref.peers import Source


@asynchronous
async def test_figures_add_up_over_living_and_ended_sessions() -> None:
    async with listening() as (server, client, port):
        empty = client.stats()
        assert (empty.sessions, empty.connections, empty.bytes_sent, empty.journal_entries) == (0, 0, 0, 0)
        assert empty.journal_head == bytes(32)
        for size in (10, 20):
            ours, theirs = await connected(server, client, port)
            await ours.send(b"x" * size)
            await theirs.recv()
            await theirs.send(b"y")
            await ours.recv()
            assert (client.stats().sessions, client.stats().bytes_sent) == (1, 10 if size == 10 else 30)
            await ours.close()
            await until(lambda: not server.sessions())
        ours, theirs = await connected(server, client, port)
        ours.core.alert(0, "a test")
        mine, others = client.stats(), server.stats()
        assert (mine.bytes_sent, mine.bytes_recv) == (others.bytes_recv, others.bytes_sent) == (30, 2)
        assert mine.packets_sent >= 2 * 3 + 1
        assert mine.packets_sent + others.packets_sent >= mine.packets_recv + others.packets_recv
        assert (mine.port, others.port) == (None, port)
        assert (mine.untrusted, others.untrusted) == (1, 0)
        assert ours.info().untrusted
        assert not theirs.info().untrusted
        assert mine.uptime_ns > empty.uptime_ns
        journal = server.journal()
        assert others.journal_entries == len(journal) == 5
        assert others.journal_head == journal[-1].change_hash
        connect, disconnect = ChangeType.CONNECT, ChangeType.DISCONNECT
        assert [entry.change_type for entry in journal] == [connect, disconnect, connect, disconnect, connect]


@asynchronous
async def test_the_configuration_in_force() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        assert (server.configuration.version, server.configuration.params.mtu_max) == (0, 1400)
        await ours.configure(mtu_max=1300)
        assert (server.stats().config_version, server.stats().config_tentative) == (1, True)
        assert server.configuration.params.mtu_max == 1300
        await ours.confirm()
        assert (server.stats().config_version, server.stats().config_tentative) == (1, False)
        assert server.settings.mtu_max == 1400, "what it was started with"


@asynchronous
async def test_peers_are_entered_and_dropped_by_hand() -> None:
    async with Node() as alone:
        alone.add_peer("192.0.2.1", 7)
        alone.add_peer("2001:db8::1", pubkey=b"k" * 32)
        four, six = alone.peers()
        assert (str(four.peer), four.source) == ("192.0.2.1 7", Source.STATIC)
        assert (str(six.peer), six.pubkey) == ("2001:db8::1 9253", b"k" * 32)
        with pytest.raises(LocalError) as error:
            alone.add_peer("192.0.2.2", pubkey=b"short")
        assert error.value.errno == errno.EINVAL
        with pytest.raises(OSError):
            alone.add_peer("a name")
        alone.forget_peer("192.0.2.1", 7)
        alone.forget_peer("192.0.2.1", 7)
        assert alone.peers() == (six,)
        for number in range(MAX_PEERS - 1):
            alone.add_peer("192.0.2.1", 1000 + number)
        with pytest.raises(LocalError) as error:
            alone.add_peer("192.0.2.1", 7)
        assert error.value.errno == errno.ENOSPC
        assert alone.stats().peers == MAX_PEERS


@asynchronous
async def test_whom_a_node_connected_to_is_among_its_peers() -> None:
    async with listening() as (server, client, port):
        await connected(server, client, port)
        (peer,) = client.peers()
        assert (str(peer.peer), peer.source) == (f"127.0.0.1 {port}", Source.CONNECTED)
        assert server.peers() == ()


class Recorder:
    """In place of the multicast sockets."""

    made: ClassVar[list[Recorder]] = []

    def __init__(self, core: Any, clock: Any, *, interface: str | None = None) -> None:
        self.calls: list[Any] = [interface]
        Recorder.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> None:
        self.calls.append("stop")

    def listening(self, port: int | None) -> None:
        self.calls.append(port)


@pytest.mark.parametrize(("discovery", "interface"), [(True, None), ("eth7", "eth7")])
@asynchronous
async def test_a_node_announces_what_it_listens_on(
    discovery: bool | str, interface: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setattr(node, "Multicast", Recorder)
    async with Node(discovery=discovery) as announcing, Node():
        first = await announcing.listen(V4, 0)
        announcing.stop_listening()
        second = await announcing.listen(V4, 0)
    (recorder,) = Recorder.made
    assert recorder.calls == [interface, "start", first, None, second, None, "stop"]
