# SPDX-License-Identifier: GPL-2.0-or-later
"""By hand over raw IP: the handshake, and what keeps a session alive over datagrams that get lost."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scapy.config import conf
from scapy.layers.inet import IP
from scapy.sendrecv import sr1
from scapy.supersocket import L3RawSocket
from scapy_raw_peer import Arrives, RawPeer, losing

import scapy_pool as sp
from poolref import crypto
from poolref.constants import SECOND, ErrorCode, Flag, Type
from poolref.errors import HandshakeError, PoolTimeout


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("scapy_pool.upkeep.FIRST_TIMEOUT", SECOND // 20)
    monkeypatch.setattr("scapy_pool.connection._NAP", 0.01)
    sp.keyring.clear()
    yield
    sp.keyring.clear()


class Hasty(sp.PoolHandshake):
    """Waits a twentieth of the time."""

    def parse_args(self, *args: Any, **kargs: Any) -> None:
        super().parse_args(*args, **kargs)
        for timers in self.timeout.values():
            for timer in timers:
                timer.set(timer.get() / 20)


def of_type(kind: int, flags: int = 0) -> Callable[[bytes], bool]:
    return lambda packet: packet[0] & 15 == kind and int.from_bytes(packet[2:4], "big") & flags == flags


def peered(**arrives: Arrives) -> tuple[socket.socket, RawPeer]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return ours, RawPeer(theirs, **arrives)


def message(connection: sp.PoolConnection, timeout: float = 5) -> bytes:
    """The next DATA's bytes."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        packet = connection.recv(left)
        if packet is not None and sp.PoolData in packet:
            return bytes(packet.data)
    raise TimeoutError


def until(condition: Callable[[], bool], timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_session_over_datagrams() -> None:
    sock, peer = peered()
    with peer, sp.PoolHandshake(sock).connect() as connection:
        assert connection.reliable
        answer = connection.sr1(sp.PoolHeartbeat(rtt_ns=1))
        assert answer is not None
        assert (answer.type, answer.auth) == (Type.ACK, sp.Auth.OK)
        for number in range(40):  # more than the peer's window
            connection.send(b"%d" % number)
            assert message(connection) == b"%d" % number
        until(lambda: not peer.session.outstanding)  # everything was acknowledged
        connection.close(3)
        until(lambda: peer.session.end is not None)
        assert peer.session.end is not None
        assert (peer.session.end.cause, peer.session.end.code) == ("closed", 3)


@pytest.mark.parametrize(
    "lost",
    [
        {"incoming": losing(of_type(Type.INIT))},
        {"outgoing": losing(of_type(Type.CHALLENGE))},
        {"incoming": losing(of_type(Type.RESPONSE))},
        {"outgoing": losing(of_type(Type.ACK))},
        {"incoming": losing(of_type(Type.DATA))},
        {"outgoing": losing(of_type(Type.DATA))},
        {"incoming": losing(of_type(Type.ACK), of_type(Type.ACK), of_type(Type.ACK))},
    ],
    ids=["init", "challenge", "response", "handshake-ack", "data-there", "data-back", "acks"],
)
def test_what_is_lost_is_sent_again(lost: dict[str, Any]) -> None:
    sock, peer = peered(**lost)
    with peer, Hasty(sock).connect() as connection:
        connection.send(b"once")
        assert message(connection) == b"once"
        until(lambda: not peer.session.outstanding)
        assert peer.received == [b"once"]
        with pytest.raises(TimeoutError):  # what was sent twice is there once
            message(connection, 0.1)


def test_a_lost_probe_leaves_no_gap() -> None:
    is_probe = of_type(0xA, Flag.REQUIRE_ACK)
    sock, peer = peered(incoming=losing(is_probe))
    with peer, sp.PoolHandshake(sock).connect() as connection:
        probe = connection.send(sp.PoolProbe(probe_size=700))
        connection.send(b"after it")
        assert message(connection) == b"after it"
        assert peer.session.window.cumulative > probe.seq


def test_the_peers_probes_are_answered() -> None:
    sock, peer = peered()
    with peer, sp.PoolHandshake(sock).connect() as connection:
        until(lambda: peer.session.mtu > 512, 3)
        connection.close()


def test_by_hand_nothing_is_sent_by_itself() -> None:
    seen: list[int] = []

    def incoming(packet: bytes) -> bool:
        seen.append(packet[0] & 15)
        return True

    sock, peer = peered(incoming=incoming)
    with peer:
        connection = sp.PoolHandshake(sock, automatic=False).connect()
        connection.send(b"x")
        assert message(connection) == b"x"
        assert seen == [Type.INIT, Type.RESPONSE, Type.DATA]
        first = connection.seq
        ack = connection.send(sp.PoolAck())
        assert (ack.seq, connection.seq) == (first - 1, first)  # an ACK takes no seq here
        connection.close()


def test_a_peer_that_acknowledges_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scapy_pool.upkeep.FIRST_TIMEOUT", SECOND // 1000)
    data: list[bytes] = []

    def incoming(packet: bytes) -> bool:
        if packet[0] & 15 == Type.DATA:
            data.append(packet)
            return False
        return True

    sock, peer = peered(incoming=incoming)
    with peer:
        connection = sp.PoolHandshake(sock).connect()
        connection.send(b"x")
        with pytest.raises(EOFError):
            message(connection)
        assert len(data) == 8
        assert len(set(data)) == 1  # byte for byte
        connection.close()


def spoofed(kind: str) -> OSError | None:
    """The attempt's error when somebody else's packet comes before the peer's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    forgery: Any = {
        "challenge": sp.Pool(ack=5, session_id=b"s" * 16) / sp.PoolChallenge(difficulty=0),
        "close": sp.Pool(ack=5) / sp.PoolClose(code=9),
    }[kind]
    theirs.send(bytes(forgery))
    theirs.send(b"short")
    with RawPeer(theirs):
        try:
            sp.PoolHandshake(ours).connect().close()
        except OSError as error:
            return error
    return None


@pytest.mark.parametrize("kind", ["challenge", "close"])
def test_a_blind_spoofer_makes_no_difference(kind: str) -> None:
    assert spoofed(kind) is None


def test_a_forged_ack_ends_nothing() -> None:
    forged: list[bytes] = []

    def outgoing(packet: bytes) -> bool:
        if packet[0] & 15 == Type.ACK and not forged:
            forged.append(packet[:79] + bytes([packet[79] ^ 1]))
            peer.sock.send(forged[0])
        return True

    sock, peer = peered()
    peer.outgoing = outgoing
    with peer, sp.PoolHandshake(sock).connect() as connection:
        connection.send(b"x")
        assert message(connection) == b"x"
    assert forged


def test_nobody_answers() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pytest.raises(PoolTimeout, match="no CHALLENGE"):
        Hasty(ours).connect()
    theirs.setblocking(False)
    repeats = [theirs.recv(4096) for _ in range(3)]
    assert len(set(repeats)) == 1
    with pytest.raises(BlockingIOError):
        theirs.recv(4096)
    ours.close()
    theirs.close()


def test_nothing_but_forged_acks() -> None:
    sock, peer = peered(outgoing=lambda packet: packet[0] & 15 != Type.ACK)
    peer.sock.send(bytes(sp.Pool(session_id=bytes(16)) / sp.PoolAck()))

    def incoming(packet: bytes) -> bool:
        if packet[0] & 15 == Type.RESPONSE:
            responses.append(packet)
            peer.sock.send(bytes(sp.Pool(session_id=packet[20:36]) / sp.PoolAck()))
        return True

    responses: list[bytes] = []
    peer.incoming = incoming
    with peer, pytest.raises(HandshakeError) as caught:
        Hasty(sock).connect()
    assert caught.value.errno == errno.EBADMSG
    assert len(responses) == 4
    assert len(set(responses)) == 1
    sock.close()


def test_each_attempt_has_timers_of_its_own() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    hasty, other = Hasty(ours), sp.PoolHandshake(ours)
    assert (hasty.timer_by_name("no_ack").get(), other.timer_by_name("no_ack").get()) == (1.5, 30)
    assert other.timer_by_name("repeat_response_at_last").get() == 4
    for each in (hasty, other):
        each.stop()
        each.destroy()
    ours.close()
    theirs.close()


def raw_peer() -> tuple[str, RawPeer]:
    """A node on a loopback address of this process's own, and that address; without privileges, a skip."""
    address = f"127.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.9"
    try:
        server = socket.socket(socket.AF_INET, socket.SOCK_RAW, sp.IP_PROTOCOL)
    except PermissionError:
        with pytest.raises(PermissionError):
            sp.pool_connect(address, transport="raw")
        pytest.skip("raw sockets need CAP_NET_RAW")
    server.bind((address, 0))
    server.connect(("127.0.0.1", 0))
    return address, RawPeer(server)


def test_real_raw_sockets() -> None:
    address, peer = raw_peer()
    with peer, sp.pool_connect(address, transport="raw") as connection:
        connection.send(b"over IP")
        assert message(connection) == b"over IP"
        until(lambda: peer.session.mtu > 512, 3)


def test_scapys_own_sr1_over_ip(monkeypatch: pytest.MonkeyPatch) -> None:
    address, peer = raw_peer()
    monkeypatch.setattr(conf, "L3socket", L3RawSocket)  # a packet socket does not reach the loopback's stack
    init = sp.PoolInit(client_pubkey=crypto.public_key(b"p" * 32))
    below = IP(src="127.0.0.1", dst=address)
    with peer:
        challenge = sr1(below / sp.Pool(timestamp=time.time_ns()) / init, timeout=5, verbose=0)
        assert challenge is not None
        assert (challenge.src, challenge[sp.Pool].type) == (address, Type.CHALLENGE)
        assert sp.PoolChallenge in challenge
        refused = sr1(below / sp.Pool(timestamp=time.time_ns(), version=2) / init, timeout=5, verbose=0)
        assert refused is not None
        assert refused[sp.PoolClose].code == ErrorCode.VERSION_MISMATCH
