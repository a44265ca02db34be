# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding out which dialect a peer speaks: by the reference in each, by the old peer, by mixtures."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import pytest
from old_peer import Broken, OldPeer
from poolref_loopback import V4, asynchronous
from poolref_sim import World

from poolref import dialect_attempt, wire
from poolref.address import Address
from poolref.constants import SECOND, ErrorCode, Type
from poolref.dialect import DIALECTS, POOL_KO_1_0, SPEC, Dialect
from poolref.dialect_attempt import Attempt
from poolref.dialect_probe import ATTEMPTS, DialectProbe, Finding
from poolref.misbehaviour import misbehaviour
from poolref.node import Node
from poolref.settings import Settings
from poolref.tools import poolprobe


class Peer(Protocol):
    """The other end of one connection; an empty answer to ``feed`` with ``over`` set is its end."""

    over: bool

    def feed(self, data: bytes) -> bytes: ...
    def timer(self) -> int | None: ...
    def tick(self) -> bytes: ...


class Reference:
    """The reference serving."""

    def __init__(self, world: World) -> None:
        self.world, self.connection = world, world.server()

    @property
    def over(self) -> bool:
        return self.connection.closing

    def feed(self, data: bytes) -> bytes:
        self.connection.receive_data(data, self.world.now)
        return self.connection.data_to_send()

    def timer(self) -> int | None:
        return self.connection.next_timer()

    def tick(self) -> bytes:
        self.connection.handle_timer(self.world.now)
        return self.connection.data_to_send()


class Old:
    """The old peer serving; it hangs up on what it does not understand, and reports after 5 s."""

    def __init__(self, world: World, seed: int, digest: int | None, mtu: int = 1400) -> None:
        self.world, self.mtu = world, mtu
        self.peer = OldPeer(
            client=False, random=random.Random(seed).randbytes, monotonic=lambda: world.now, digest=digest
        )
        self.over = False
        self.due: int | None = None

    def feed(self, data: bytes) -> bytes:
        try:
            self.peer.feed(data)
        except Broken:
            self.over = True
        if self.peer.established and self.due is None:
            self.due = self.world.now + 5 * SECOND
        return self.peer.output()

    def timer(self) -> int | None:
        return self.due

    def tick(self) -> bytes:
        if self.due is not None and self.world.now >= self.due:
            self.due = self.world.now + 5 * SECOND
            self.peer.heartbeat(mtu=self.mtu, uptime=5 * SECOND)
        return self.peer.output()


class Saying:
    """Answers the first packet with fixed bytes, or hangs up without any."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer, self.over = answer, False

    def feed(self, data: bytes) -> bytes:
        self.over = self.answer is None
        return self.answer or b""

    def timer(self) -> int | None:
        return None

    def tick(self) -> bytes:
        return b""


def run(attempt: Attempt, peer: Peer, world: World) -> None:
    while True:
        outgoing = attempt.data_to_send()
        incoming = peer.feed(outgoing) if outgoing and not peer.over else b""
        if attempt.end:
            return
        if attempt.search is not None:
            solution = attempt.search.step(1 << 20)
            assert solution is not None
            attempt.solved(solution, world.now)
        elif incoming:
            attempt.receive_data(incoming, world.now)
        elif peer.over:
            attempt.end_of_stream(world.now)
        elif not outgoing:
            theirs = peer.timer()
            due = attempt.next_timer() if theirs is None else min(attempt.next_timer(), theirs)
            world.now = max(world.now, due)
            attempt.receive_data(peer.tick(), world.now)
            attempt.handle_timer(world.now)


def search(world: World, connect: Callable[[], Peer], seed: int = 1) -> Finding:
    probe = DialectProbe(random.Random(seed).randbytes)
    while probe.finding is None:
        run(probe.begin(world.wall, world.now), connect(), world)
        probe.ended()
    return probe.finding


def served(settings: Settings) -> Finding:
    """What is found out about the reference with these settings."""
    world = World(server_settings=settings)
    return search(world, lambda: Reference(world))


# -- what is known ---------------------------------------------------------------------------------


def test_the_specification_is_found_in_one_attempt() -> None:
    finding = served(Settings())
    assert (finding.name, finding.dialect, finding.attempts) == ("spec", SPEC, 1)
    assert finding.failed == ()
    assert finding.contradicting(SPEC) == []
    fields = {each.field for each in finding.evidence}
    assert fields >= {
        "plain_seq", "min_difficulty", "response", "nonce_seq_order", "handshake_ack", "acked",
        "telemetry_order", "telemetry_digest", "probe_echo",
    }  # fmt: skip


def test_an_mtu_that_reads_the_same_either_way() -> None:
    """0x0303: then the uptime tells."""
    world, seeds = World(), iter(range(10))
    finding = search(world, lambda: Old(world, next(seeds), None, mtu=0x0303))
    seen = {each.field: each.seen for each in finding.evidence}
    assert seen["telemetry_order"] == "little"


def test_an_address_speaks_against_who_has_none() -> None:
    finding = served(Settings(address=Address(1, 0, 0, 5).pack()))
    assert finding.dialect is SPEC
    assert [each.field for each in finding.contradicting(POOL_KO_1_0) if each.field == "addressed"]


def test_the_reference_in_the_dialect_is_found() -> None:
    finding = served(Settings(dialect=POOL_KO_1_0, difficulty=8))
    assert (finding.dialect, finding.attempts) == (POOL_KO_1_0, 2)
    assert finding.contradicting(POOL_KO_1_0) == []
    assert set(finding.failed) >= {"HB-01", "HS-01", "HS-02", "HS-04", "MTU-01", "SEAL-02", "SEQ-05"}


@pytest.mark.parametrize("digest", [None, 0xDEADBEEF])
def test_the_old_peer_is_found(digest: int | None) -> None:
    world, seeds = World(), iter(range(10))
    finding = search(world, lambda: Old(world, next(seeds), digest))
    assert (finding.dialect, finding.attempts) == (POOL_KO_1_0, 2)
    assert finding.contradicting(POOL_KO_1_0) == []
    assert set(finding.failed) >= {"HB-01", "HS-01", "HS-02", "HS-04", "SEAL-02", "SEQ-03", "SEQ-05"}
    seen = {each.field: each.seen for each in finding.evidence}
    assert (seen["min_difficulty"], seen["acked"], seen["probe_echo"]) == (8, "some", "whole")
    assert seen["telemetry_digest"] == (0 if digest is None else 4)
    assert seen["handshake_ack"] == "any"
    assert "handshake_ack" in {each.field for each in finding.contradicting(SPEC)}
    assert "WIRE-03" in finding.report()  # not known of this dialect


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_random_numbers(seed: int) -> None:
    for settings in (Settings(difficulty=16), Settings(dialect=POOL_KO_1_0, difficulty=8)):
        world = World(seed, server_settings=settings)
        finding = search(world, lambda world=world: Reference(world), seed)  # type: ignore[misc]
        assert finding.dialect is settings.dialect
        assert finding.contradicting(settings.dialect) == []


def test_a_peer_that_answers_either_init_is_found_by_its_challenge() -> None:
    """Whoever does not look at INIT's seq is found in one attempt."""
    world = World(server_settings=Settings(dialect=POOL_KO_1_0, difficulty=8))

    class Lenient(Reference):
        def feed(self, data: bytes) -> bytes:
            if wire.parse(data[: 80 + int.from_bytes(data[44:46], "big")]).type == Type.INIT:
                data = data[:4] + (1).to_bytes(8, "big") + data[12:]
            return super().feed(data)

    finding = search(world, lambda: Lenient(world))
    assert (finding.dialect, finding.attempts) == (POOL_KO_1_0, 1)


# -- a known dialect with a fault ------------------------------------------------------------------


def test_a_fault_does_not_hide_the_dialect() -> None:
    finding = served(Settings(misbehaviour=misbehaviour("silent-ack")))
    assert finding.dialect is SPEC
    assert [each.field for each in finding.contradicting(SPEC)] == ["acked"]
    assert finding.failed == ("SEQ-05",)
    assert "not as in spec" in finding.report()


def test_a_peer_without_heartbeats_is_found_without_them() -> None:
    finding = served(Settings(misbehaviour=misbehaviour("silent-heartbeat")))
    assert finding.dialect is SPEC
    assert "no HEARTBEAT came within 7 s" in finding.report()
    assert "telemetry_order" not in {each.field for each in finding.evidence}


def test_a_report_of_another_size_is_a_fault() -> None:
    finding = served(Settings(misbehaviour=misbehaviour("telemetry-size:size=50")))
    assert finding.dialect is SPEC
    assert [each.field for each in finding.contradicting(SPEC)] == ["telemetry_digest"]
    finding = served(Settings(misbehaviour=misbehaviour("telemetry-size:size=10")))
    assert [each.field for each in finding.contradicting(SPEC)] == ["telemetry_digest"]


# -- what is unknown -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        (replace(SPEC, name="mixed", nonce_seq_order="little"), "refused"),
        (replace(SPEC, name="mixed", plain_seq=1), "no CHALLENGE"),
        (replace(SPEC, name="mixed", plain_seq=7), "CHALLENGE"),
        (replace(POOL_KO_1_0, name="mixed", nonce_seq_order="big"), "refused"),
        (replace(POOL_KO_1_0, name="mixed", plain_seq=0), "session in pool-ko-1.0, but CHALLENGE has seq 0"),
    ],
)
def test_a_mixture_is_unknown_and_it_is_said_why(dialect: Dialect, said: str) -> None:
    finding = served(Settings(dialect=dialect, difficulty=16))
    assert finding.dialect is None
    assert finding.name == "unknown"
    assert finding.attempts <= ATTEMPTS
    assert said in finding.why
    assert finding.report().startswith(f"dialect unknown after {finding.attempts} attempts: {finding.why}")


def test_payloads_that_open_in_no_way_are_unknown() -> None:
    finding = served(Settings(misbehaviour=misbehaviour("other-nonce:kind=HEARTBEAT,every=1")))
    assert finding.dialect is None
    assert "opens in no order of the nonce" in finding.why


def challenge(**fields: int) -> bytes:
    payload = bytes([9]) * 64 + fields.pop("difficulty", 16).to_bytes(2, "big") + bytes(32)
    return wire.build(Type.CHALLENGE, payload, session_id=bytes([1]) * 16, **fields)


@pytest.mark.parametrize(
    ("answer", "attempts", "said"),
    [
        (None, 2, "closed the connection instead of sending a CHALLENGE"),
        (b"", 2, "no CHALLENGE within 10 s"),
        (wire.advisory_close(ErrorCode.VERSION_MISMATCH, 0), 1, "refuses version 1"),
        (wire.build(Type.ACK, version=2), 1, "speaks version 2"),
        (wire.advisory_close(ErrorCode.OVERLOAD, 0), 1, "no room"),
        (wire.advisory_close(ErrorCode.AUTH_FAIL, 0), 2, "refused the INIT with 01"),
        (wire.build(Type.CHALLENGE, bytes(97)), 1, "does not decode"),
        (challenge(difficulty=25), 1, "a puzzle of 25 bits"),
        (wire.build(Type.CHALLENGE, bytes(98)), 1, "low order"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n" * 3, 2, "no CHALLENGE within 10 s"),
    ],
)
def test_who_is_no_known_peer(answer: bytes | None, attempts: int, said: str) -> None:
    finding = search(World(), lambda: Saying(answer))
    assert finding.dialect is None
    assert finding.attempts == attempts
    assert said in finding.why


def test_a_forged_ack_is_no_session() -> None:
    finding = served(Settings(misbehaviour=misbehaviour("closing-hmac")))
    assert finding.dialect is None
    assert finding.attempts <= ATTEMPTS
    assert "is not authentic" in finding.why


def test_no_more_than_three_attempts() -> None:
    """A server that loses interest in another place each time."""
    world = World()
    peers = iter([Saying(None), Saying(challenge()), Saying(challenge(seq=1)), Saying(None), Saying(None)])
    finding = search(world, lambda: next(peers))
    assert finding.dialect is None
    assert finding.attempts == ATTEMPTS


def test_three_attempts_are_all_however_many_dialects_there_are() -> None:
    known = [replace(SPEC, name=f"dialect {number}", plain_seq=number) for number in range(5)]
    world = World()
    probe = DialectProbe(random.Random(1).randbytes, known)
    while probe.finding is None:
        run(probe.begin(world.wall, world.now), Saying(None), world)
        probe.ended()
    assert (probe.finding.dialect, probe.finding.attempts) == (None, ATTEMPTS)


def test_every_known_dialect_can_be_found() -> None:
    for dialect in DIALECTS.values():
        difficulty = max(8, dialect.min_difficulty)
        assert served(Settings(dialect=dialect, difficulty=difficulty)).dialect is dialect


# -- the tool --------------------------------------------------------------------------------------


@contextmanager
def old_server() -> Iterator[int]:
    """The old peer on a loopback port, for any number of connections, one after the other."""
    listener = socket.create_server((V4, 0))
    seeds = iter(range(100))

    def serve() -> None:
        while True:
            try:
                sock, _address = listener.accept()
            except OSError:
                return
            with sock:
                one(sock, next(seeds))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def one(sock: socket.socket, seed: int) -> None:
    peer = OldPeer(client=False, random=random.Random(seed).randbytes, monotonic=poolprobe.system.monotonic)
    told = False
    try:
        while data := sock.recv(65536):
            peer.feed(data)
            if peer.established and not told:
                told = True
                peer.heartbeat(mtu=1400)
            sock.sendall(peer.output())
    except (Broken, OSError):
        return


def test_the_tool_names_the_old_peer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect_attempt, "ACK_WAIT", SECOND // 50)
    with old_server() as port:
        assert poolprobe.main([V4, str(port), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dialect"], found["attempts"]) == ("pool-ko-1.0", 2)
    assert "SEAL-02" in found["failed"]
    assert {"field": "nonce_seq_order", "requirements": ["SEAL-02"]} in found["deviations"]


def test_the_tool_says_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((V4, 0)) as listener:
        thread = threading.Thread(target=lambda: [listener.accept()[0].close() for _ in range(2)])
        thread.start()
        assert poolprobe.main([V4, str(listener.getsockname()[1])]) == 1
        thread.join()
    assert capsys.readouterr().out.startswith("dialect unknown after 2 attempts: ")


def test_the_tool_cannot_reach_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((V4, 0)) as listener:
        port = listener.getsockname()[1]
    assert poolprobe.main([V4, str(port)]) == 2
    assert "refused" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        poolprobe.main([V4, "70000"])
    assert usage.value.code == 2


@asynchronous
async def test_a_node_serves_the_dialect_over_sockets() -> None:
    async with (
        Node(Settings(dialect=POOL_KO_1_0, difficulty=8)) as server,
        Node(Settings(dialect=POOL_KO_1_0, difficulty=8)) as client,
    ):
        port = await server.listen(V4, 0)
        ours = await client.connect(V4, port)
        theirs = await server.accept()
        await ours.send(b"in the dialect")
        assert await theirs.recv() == b"in the dialect"
