# SPDX-License-Identifier: GPL-2.0-or-later
"""What a node's sessions do to their peers: configuration, journal, MTU probes, exchange of peers."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from poolref_loopback import V4, asynchronous, connected, listening, until
from poolref_sim import EASY

from poolref.config import Reference
from poolref.constants import ErrorCode, State, Type
from poolref.core import Peer
from poolref.errors import LocalError, PeerError
from poolref.events import PacketTrace
from poolref.io.tcp import mapped_ip
from poolref.journal import ChangeType
from poolref.node import Node, Session

LOCKED = dataclasses.replace(EASY, remote_admin=False)


def configuration(node: Node) -> Any:
    return node._parts.core.configuration


def silent(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this side receives nothing."""
    monkeypatch.setattr(session.link, "data_received", lambda data: None)


async def failure(call: Awaitable[object]) -> OSError:
    with pytest.raises(OSError) as error:
        await call
    return error.value


# -- configuration ---------------------------------------------------------------------------------


@asynchronous
async def test_a_configuration_is_proposed_confirmed_and_built_upon() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        assert await ours.configure(heartbeat_s=7, rekey_s=100) == 1
        current = configuration(server).current
        assert (current.version, current.params.heartbeat_s, current.params.rekey_s) == (1, 7, 100)
        assert configuration(server).tentative is not None
        assert await ours.confirm() == 1
        assert configuration(server).tentative is None
        assert await ours.configure(heartbeat_s=8) == 2, "on top of what this session knows by now"
        assert await ours.confirm() == 2
        assert configuration(server).current.params.heartbeat_s == 8
        assert configuration(client).current.version == 0, "it is about the receiver alone"


@asynchronous
async def test_a_proposal_need_not_be_waited_for() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        assert ours.propose(mtu_max=1300) == 1
        with pytest.raises(LocalError) as error:
            ours.propose(mtu_max=1200)
        assert error.value.errno == errno.EBUSY
        await until(lambda: configuration(server).current.version == 1)


@asynchronous
async def test_a_rollback_brings_the_old_configuration_back() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        before = configuration(server).current
        await ours.configure(mtu_max=1300)
        assert await ours.rollback() == 1
        assert configuration(server).current == before
        assert (await failure(ours.confirm())).errno == errno.ENOENT
        assert (await failure(ours.rollback())).errno == errno.ENOENT


@asynchronous
async def test_an_unconfirmed_configuration_ends_at_its_deadline() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        await ours.configure(deadline=0.05, mtu_max=1300)
        await until(lambda: configuration(server).tentative is None)
        assert configuration(server).current.version == 0
        error = await failure(ours.confirm())
        # Whether this side has heard of it by now or only does when it confirms.
        assert error.errno in (errno.ENOENT, errno.EREMOTEIO)


@pytest.mark.parametrize("settings", [EASY, LOCKED], ids=["another is tentative", "not permitted"])
@asynchronous
async def test_a_refusal_is_the_peers_error(settings: Any) -> None:
    async with Node(settings) as server, Node() as client, Node() as other:
        port = await server.listen(V4, 0)
        if settings is EASY:
            first = await other.connect(V4, port)
            await first.configure(mtu_max=1300)
        ours = await client.connect(V4, port)
        error = await failure(ours.configure(mtu_max=1200))
        assert isinstance(error, PeerError)
        assert (error.code, error.errno) == (ErrorCode.CONFIG_REJECT, errno.EREMOTEIO)
        assert "refused" in str(error)


@asynchronous
async def test_a_proposal_on_top_of_what_is_not_there_is_refused() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        error = await failure(ours.configure(base=Reference(3, bytes(32)), mtu_max=1300))
        assert error.errno == errno.EREMOTEIO


@asynchronous
async def test_what_cannot_be_proposed() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: ours.configure(heartbeat_s=31),
            lambda: ours.configure(colour=3),
            lambda: ours.configure(deadline=0.01, mtu_max=1300),
        ]
        for call in calls:
            assert (await failure(call())).errno == errno.EINVAL
        await ours.configure(mtu_max=1300)
        assert (await failure(ours.configure(mtu_max=1200))).errno == errno.EBUSY
        await theirs.close()
        await ours.wait_closed()
        for call in (lambda: ours.configure(mtu_max=1300), ours.confirm, ours.rollback):
            assert (await failure(call())).errno == errno.ENOTCONN


@asynchronous
async def test_a_cancelled_proposal_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        with monkeypatch.context() as patch:
            silent(ours, patch)
            task = asyncio.create_task(ours.configure(mtu_max=1300))
            await until(lambda: configuration(server).current.version == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: configuration(server).current.version == 0)
        assert not ours._expecting


@asynchronous
async def test_the_end_of_the_session_ends_a_wait_for_its_peers_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        silent(theirs, monkeypatch)
        task = asyncio.create_task(ours.configure(mtu_max=1300))
        probing = asyncio.create_task(ours.probe_mtu())
        await asyncio.sleep(0)
        await ours.close()
        assert (await failure(task)).errno in (errno.ENOTCONN, errno.EREMOTEIO)
        assert (await failure(probing)).errno == errno.ENOTCONN
        for call in (ours.probe_mtu(), ours.request_journal()):
            assert (await failure(call)).errno == errno.ENOTCONN
        with pytest.raises(LocalError) as error:
            ours.exchange_peers()
        assert error.value.errno == errno.ENOTCONN


# -- journal ---------------------------------------------------------------------------------------


@asynchronous
async def test_the_peers_journal_and_what_is_added_to_it() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        assert ours.peer_journal() == ()
        entries = await ours.request_journal(quiet=0.05)
        await until(lambda: len(ours.peer_journal()) == 1)
        assert ours.peer_journal() == server._parts.core.journal.entries()
        assert entries in (ours.peer_journal(), ()), "nothing came for as long as it was to wait"
        assert [entry.change_type for entry in ours.peer_journal()] == [ChangeType.CONNECT]
        await client.connect(V4, port)
        await until(lambda: len(ours.peer_journal()) == 2)
        assert ours.peer_journal() == server._parts.core.journal.entries()
        assert await ours.request_journal(quiet=0.05) == ours.peer_journal(), "nothing new"


@asynchronous
async def test_a_long_journal_comes_whole() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        for number in range(1500):
            server._parts.core.record(ChangeType.CONFIG, f"entry {number}")
        await ours.request_journal(quiet=0.2)
        await until(lambda: len(ours.peer_journal()) == 1024)
        assert ours.peer_journal() == server._parts.core.journal.entries()


@asynchronous
async def test_a_journal_is_asked_for_once_and_the_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def observe(trace: PacketTrace) -> None:
        if trace.direction == "received" and trace.packet[0] & 0xF == Type.JOURNAL:
            asked.append(trace)

    async with listening(observer=observe) as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        for number in range(300):
            server._core.record(ChangeType.CONFIG, f"entry {number}")
        await ours.request_journal(quiet=0.05)
        assert len(asked) == 1
        silent(ours, monkeypatch)
        waiting = asyncio.create_task(ours.request_journal(quiet=600))
        await until(lambda: len(asked) == 2)
        await ours.close()
        assert (await failure(waiting)).errno == errno.ENOTCONN


@asynchronous
async def test_a_journal_that_is_not_permitted_is_empty() -> None:
    async with Node(LOCKED) as server, Node() as client:
        ours = await client.connect(V4, await server.listen(V4, 0))
        assert await ours.request_journal(quiet=0.05) == ()
        await until(lambda: server.counters()["not_permitted"] == 1)


# -- keys and integrity ----------------------------------------------------------------------------


@asynchronous
async def test_keys_are_replaced_under_traffic_and_from_both_sides() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        count = 500

        async def talk() -> None:
            for number in range(count):
                await ours.send(number.to_bytes(2, "big"))
                await asyncio.sleep(0)

        talking = asyncio.create_task(talk())
        epochs = [await ours.rekey() for _ in range(3)]
        assert epochs == [1, 2, 3]
        assert set(await asyncio.gather(ours.rekey(), ours.rekey(), theirs.rekey())) == {4}
        await talking
        assert [int.from_bytes(await theirs.recv(), "big") for _ in range(count)] == list(range(count))
        assert ours.info().epoch == theirs.info().epoch == ours.info().rekey_count == 4
        assert client.stats().rekey_count == 4
        assert not ours._watchers


@asynchronous
async def test_a_rekey_that_cannot_be() -> None:
    rng = Node(EASY)._core.rng
    left = [10**9]

    def limited(size: int) -> bytes:
        left[0] -= size
        if left[0] < 0:
            raise OSError("no entropy")
        return rng(size)

    async with Node(EASY) as server, Node(rng=limited) as client:
        ours = await client.connect(V4, await server.listen(V4, 0))
        left[0] = 0
        assert (await failure(ours.rekey())).errno == errno.EAGAIN
        left[0] = 10**9
        assert await ours.rekey() == 1
        await ours.close()
        assert (await failure(ours.rekey())).errno == errno.ENOTCONN


@asynchronous
async def test_the_end_of_the_session_ends_a_rekey(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        silent(theirs, monkeypatch)
        task = asyncio.create_task(ours.rekey())
        await until(lambda: ours.core.state is State.REKEYING)
        theirs.link.abort()
        assert (await failure(task)).errno == errno.ENOTCONN


@asynchronous
async def test_a_challenge_that_a_change_of_keys_voids_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        with monkeypatch.context() as patch:
            unanswered: list[bytes] = []
            patch.setattr(theirs.core.vigil, "_answer", lambda random, now: unanswered.append(random))
            challenging = asyncio.create_task(ours.challenge())
            await until(lambda: bool(unanswered))
        await ours.rekey()
        assert await challenging


@asynchronous
async def test_a_challenge_tells_who_has_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        assert await ours.challenge()
        assert await theirs.challenge()
        assert await asyncio.gather(ours.challenge(), ours.rekey(), ours.challenge()) == [True, 1, True]
        monkeypatch.setattr("poolref.integrity.right", lambda *arguments: False)
        assert not await ours.challenge()
        assert ours.info().untrusted
        assert client.journal()[-1].change_type == ChangeType.INTEGRITY
        monkeypatch.undo()
        assert await ours.challenge(), "it stays untrusted all the same"
        assert ours.info().untrusted
        await theirs.close()
        await ours.wait_closed()
        assert (await failure(ours.challenge())).errno == errno.ENOTCONN


@pytest.mark.parametrize("operation", ["rekey", "challenge", "probe_mtu", "request_journal", "wait_closed"])
@asynchronous
async def test_a_cancelled_operation_leaves_a_session_that_works(
    operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        with monkeypatch.context() as patch:
            received: list[bytes] = []
            patch.setattr(ours.link, "data_received", received.append)
            task = asyncio.create_task(getattr(ours, operation)())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert not ours._expecting
        assert not ours._watchers
        assert not ours._receivers
        for data in received:
            ours.link.data_received(data)
        assert await ours.rekey() >= 1
        assert await ours.challenge()
        await ours.send(b"still there")
        assert await theirs.recv() == b"still there"


# -- path and peers --------------------------------------------------------------------------------


@asynchronous
async def test_a_search_for_the_mtu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolref.constants.PROBE_DELAY", 0)
    monkeypatch.setattr("poolref.constants.PROBE_SPACING", 0)
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        assert await ours.probe_mtu() == 1400 == ours.info().mtu
        assert ours.core.discovery.searches == 1
        assert await asyncio.gather(ours.probe_mtu(), ours.probe_mtu()) == [1400, 1400]
        assert ours.core.discovery.searches == 2, "one search serves both"
        assert not ours._watchers


@asynchronous
async def test_peers_are_exchanged_at_once() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        told = Peer(mapped_ip("192.0.2.7"), 9)
        client._parts.core.peers.add_static(told, client._parts.clock())
        ours.exchange_peers()
        await until(lambda: told in server._parts.core.peers)
