# SPDX-License-Identifier: GPL-2.0-or-later
"""By hand against a node of the reference, over loopback TCP."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import scapy_pool as sp
from poolref import wire
from poolref.constants import SECOND, ErrorCode, Type
from poolref.counters import Outcome, Verdict
from poolref.dialect import Dialect
from poolref.errors import LocalError, PeerError
from poolref.events import PacketTrace
from poolref.node import Node
from poolref.settings import Settings

EASY = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))


@pytest.fixture(autouse=True)
def _empty_ring() -> Iterator[None]:
    sp.keyring.clear()
    yield
    sp.keyring.clear()


def against_node(client: Callable[[int], None], server: Callable[[Node], Any] | None = None) -> None:
    """Run ``client(port)`` in a thread beside a node, then ``server(node)`` on the node's loop."""

    async def run() -> None:
        async with Node(EASY) as node:
            port = await node.listen("127.0.0.1", 0)
            await asyncio.to_thread(client, port)
            if server is not None:
                await server(node)

    asyncio.run(run())


def test_a_session_by_hand() -> None:
    async def received(node: Node) -> None:
        session = await node.accept(5)
        assert (await session.recv(timeout=5)) == b"hello"
        with pytest.raises(LocalError, match="closed, 0x03"):
            await session.recv(timeout=5)

    def client(port: int) -> None:
        connection = sp.pool_connect("127.0.0.1", port)
        answer = connection.sr1(sp.PoolHeartbeat(rtt_ns=1))
        assert answer is not None
        assert (answer.type, answer.auth, answer.ack) == (Type.ACK, sp.Auth.OK, connection.seq - 1)
        assert connection.peer_seq == answer.seq
        answer = connection.sr1(b"hello")
        assert answer is not None
        connection.close(3)

    against_node(client, received)


def test_scapys_own_sr1_and_the_nodes_packets() -> None:
    def client(port: int) -> None:
        with sp.pool_connect("127.0.0.1", port) as connection:
            answer = connection.stream.sr1(connection.make(sp.PoolHeartbeat()), timeout=5, verbose=0)
            assert (answer.type, answer.auth) == (Type.ACK, sp.Auth.OK)
            connection.send(b"x", hmac=bytes(32))
            closed = connection.recv()
            assert closed is not None
            assert (closed.type, closed.code) == (Type.CLOSE, ErrorCode.AUTH_FAIL)
            with pytest.raises(EOFError):
                connection.recv()

    against_node(client)


def test_messages_from_the_node_are_decrypted() -> None:
    async def run() -> None:
        async with Node(EASY) as node:
            port = await node.listen("127.0.0.1", 0)
            connection = await asyncio.to_thread(sp.pool_connect, "127.0.0.1", port)
            session = await node.accept(5)
            assert session.core.session_id == connection.session_id
            await session.send(b"from the node")
            packet = await asyncio.to_thread(connection.recv)
            assert packet is not None
            assert (packet.auth, packet.data) == (sp.Auth.OK, b"from the node")
            assert await asyncio.to_thread(connection.recv, 0.01) is None
            await asyncio.to_thread(connection.close)

    asyncio.run(run())


@pytest.mark.parametrize("automatic", [True, False])
def test_what_keeps_a_session_alive_is_sent_by_itself(
    monkeypatch: pytest.MonkeyPatch, automatic: bool
) -> None:
    monkeypatch.setattr("scapy_pool.upkeep._HEARTBEAT_INTERVAL", SECOND // 100)
    heard: list[tuple[Type, Outcome | None]] = []

    def observe(trace: PacketTrace) -> None:
        header = wire.parse(trace.packet)
        if trace.direction == "received" and header.session_id == connection.session_id:
            heard.append((Type(header.type), trace.outcome))

    def connect(port: int) -> sp.PoolConnection:
        return sp.pool_connect("127.0.0.1", port, automatic=automatic)

    async def run() -> None:
        nonlocal connection
        async with Node(EASY) as node:
            port = await node.listen("127.0.0.1", 0)
            connection = await asyncio.to_thread(connect, port)
            session = await node.accept(5)
            session.core.observer = observe
            await session.send(b"from the node")
            expected = {Type.HEARTBEAT, Type.ACK}
            if not automatic:
                connection.send(b"by hand")
                expected = {Type.DATA}
            while not expected <= {kind for kind, _ in heard}:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(connection.close)
            assert {outcome for _, outcome in heard} <= {Verdict.ACCEPTED, Verdict.CLOSED}
            allowed = {Type.DISCOVER} if automatic else set()
            assert {kind for kind, _ in heard} <= {*expected, *allowed, Type.CLOSE}

    connection: sp.PoolConnection = None  # type: ignore[assignment]
    asyncio.run(asyncio.wait_for(run(), 20))


def test_keys_change_over_tcp_too() -> None:
    async def run() -> None:
        async with Node(EASY) as node:
            port = await node.listen("127.0.0.1", 0)
            connection = await asyncio.to_thread(sp.pool_connect, "127.0.0.1", port)
            session = await node.accept(5)
            assert await session.rekey() == 1
            await asyncio.to_thread(connection.send, b"under epoch 1")
            assert await session.recv(timeout=5) == b"under epoch 1"
            await asyncio.to_thread(connection.rekey)
            await asyncio.to_thread(connection.send, b"under epoch 2")
            assert await session.recv(timeout=5) == b"under epoch 2"
            assert session.core.keys.epoch == connection.keys.epoch == 2
            assert await session.challenge()
            await asyncio.to_thread(connection.close)

    asyncio.run(asyncio.wait_for(run(), 20))


def test_what_comes_before_an_answer_is_kept() -> None:
    async def run() -> None:
        async with Node(EASY) as node:
            port = await node.listen("127.0.0.1", 0)
            connection = await asyncio.to_thread(sp.pool_connect, "127.0.0.1", port)
            session = await node.accept(5)
            await session.send(b"before")
            answer = await asyncio.to_thread(connection.sr1, sp.PoolHeartbeat())
            assert answer is not None
            assert answer.type == Type.ACK
            kept = connection.recv(0)
            assert kept is not None
            assert kept.data == b"before"
            await asyncio.to_thread(connection.close)

    asyncio.run(run())


def test_the_keys_are_on_the_ring_afterwards() -> None:
    def client(port: int) -> None:
        with sp.pool_connect("127.0.0.1", port) as connection:
            packet = bytes(connection.make(b"text"))
            assert sp.Pool(packet).auth is sp.Auth.OK

    against_node(client)


class WrongProof(sp.PoolHandshake):
    def make_response(self, *args: Any) -> sp.Pool:
        packet = super().make_response(*args)
        packet[sp.PoolProof].proof = bytes(32)
        return packet


class WrongVersion(sp.PoolHandshake):
    def make_init(self) -> sp.Pool:
        packet = super().make_init()
        packet.version = 2
        return packet


@pytest.mark.parametrize(
    ("automaton", "code", "number"),
    [
        (WrongProof, ErrorCode.AUTH_FAIL, errno.ECONNRESET),
        (WrongVersion, ErrorCode.VERSION_MISMATCH, errno.EPROTONOSUPPORT),
    ],
)
def test_a_handshake_gone_wrong_on_purpose_is_refused(
    automaton: type[sp.PoolHandshake], code: ErrorCode, number: int
) -> None:
    def client(port: int) -> None:
        with pytest.raises(PeerError) as caught:
            sp.pool_connect("127.0.0.1", port, automaton=automaton)
        assert (caught.value.code, caught.value.errno) == (code, number)

    against_node(client)


def against_peer(answers: list[bytes]) -> OSError:
    """The automaton's error against a peer that sends one of ``answers`` for each packet, then ends."""
    ours, theirs = socket.socketpair()

    def peer() -> None:
        for answer in answers:
            theirs.recv(4096)
            theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=peer)
    thread.start()
    try:
        with pytest.raises(OSError) as caught:
            sp.PoolHandshake(ours, rng=random.Random(1).randbytes).connect()
    finally:
        thread.join()
        ours.close()
        theirs.close()
    return caught.value


def challenge(**fields: Any) -> bytes:
    base = {"server_pubkey": b"\x09" + bytes(31), "difficulty": 0, **fields}
    return bytes(sp.Pool(session_id=b"s" * 16) / sp.PoolChallenge(**base))


@pytest.mark.parametrize(
    ("answers", "number"),
    [
        ([], errno.ECONNRESET),
        ([challenge()], errno.ECONNRESET),
        ([challenge(difficulty=25)], errno.ERANGE),
        ([challenge(server_pubkey=bytes(32))], errno.EBADMSG),
        ([challenge(), bytes(sp.Pool(session_id=b"s" * 16) / sp.PoolAck())], errno.EBADMSG),
        ([bytes(sp.Pool() / sp.PoolClose(code=9))], errno.ECONNREFUSED),
    ],
    ids=["silence", "no-ack", "too-difficult", "low-order", "forged-ack", "overload"],
)
def test_what_a_bad_peer_leads_to(answers: list[bytes], number: int) -> None:
    assert against_peer(answers).errno == number
