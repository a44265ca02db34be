# SPDX-License-Identifier: GPL-2.0-or-later
"""The asyncio node over loopback.  Every wait is for an event; the timeouts only bound a hang."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from poolref_loopback import V4, V6, asynchronous, connected, listening, raw, until
from poolref_sim import EASY

from poolref import crypto, puzzle, wire
from poolref.constants import MAX_PENDING_HANDSHAKES, MAX_SESSIONS, ErrorCode, Role, State, Type
from poolref.errors import (
    LocalError,
    MessageTooBig,
    MissingPrimitive,
    PeerError,
    PeerRefused,
    PoolTimeout,
    RandomnessError,
)
from poolref.events import Event, MessageReceived, PacketTrace, PuzzlePosed, SessionEnded, SessionEstablished
from poolref.io.tcp import ip_text, mapped_ip
from poolref.journal import ChangeType
from poolref.keylog import parse_line
from poolref.node import Node, Session, Settings

# -- the good case ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "shown"), [(V4, "::ffff:127.0.0.1"), (V6, "::1"), ("localhost", None)])
@asynchronous
async def test_sessions_over_both_families_on_one_listener(host: str, shown: str | None) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port, host)
        await ours.send(b"ping")
        assert await theirs.recv() == b"ping"
        await theirs.send(b"x" * 65535)
        assert await ours.recv() == b"x" * 65535
        mine, peers = ours.info(), theirs.info()
        assert shown in (None, mine.peer_addr)
        assert mine.peer_port == port == server.port
        assert mine.peer_addr == peers.peer_addr
        assert (mine.family is socket.AF_INET) == mine.peer_addr.startswith("::ffff:")
        assert (mine.role, peers.role) == (Role.CLIENT, Role.SERVER)
        assert mine.session_id == peers.session_id
        assert (mine.bytes_sent, mine.bytes_recv) == (4, 65535)
        assert (peers.bytes_sent, peers.bytes_recv) == (65535, 4)
        assert (mine.state, mine.transport, mine.version, mine.mtu) == (State.ESTABLISHED, "tcp", 1, 1400)
        assert server.sessions() == [theirs]
        assert client.sessions() == [ours]


@asynchronous
async def test_the_default_difficulty_is_searched_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()
    real = puzzle.Search.step

    def step(self: puzzle.Search, hashes: int) -> bytes | None:
        threads.add(threading.get_ident())
        return real(self, hashes)

    monkeypatch.setattr(puzzle.Search, "step", step)
    async with Node() as server, Node() as client:
        posed: list[Event] = []
        client.events = lambda session, event: posed.append(event)
        port = await server.listen(V4, 0)
        await client.connect(V4, port)
        (event,) = [event for event in posed if isinstance(event, PuzzlePosed)]
        assert event.difficulty == 16
    assert threads
    assert threading.get_ident() not in threads


@asynchronous
async def test_a_close_reaches_the_peer_and_frees_both_slots() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        await ours.send(b"last words")
        await ours.close(0x09)
        assert client.sessions() == []
        with pytest.raises(LocalError) as error:
            await ours.send(b"x")
        assert error.value.errno == errno.ENOTCONN
        await theirs.wait_closed()
        assert server.sessions() == [theirs], "its message is unread"
        assert theirs.info().state is State.CLOSING
        assert await theirs.recv() == b"last words"
        assert server.sessions() == []
        with pytest.raises(LocalError, match="0x09 OVERLOAD") as error:
            await theirs.recv()
        assert error.value.errno == errno.ENOTCONN
        await ours.close()
        again, _ = await connected(server, client, port)
        assert again.index == 1, "round-robin"


@asynchronous
async def test_stopping_a_node_closes_its_sessions_and_ends_its_waits() -> None:
    async with Node(EASY) as server, Node() as client:
        port = await server.listen(V4, 0)
        _ours, theirs = await connected(server, client, port)
        waiting = asyncio.create_task(theirs.recv())
        accepting = asyncio.create_task(client.accept())
        await asyncio.sleep(0)
        await client.stop()
        await client.stop()
        for task, number in ((waiting, errno.ENOTCONN), (accepting, errno.ESHUTDOWN)):
            with pytest.raises(LocalError) as error:
                await task
            assert error.value.errno == number
        assert theirs.core.end == SessionEnded("closed", None)
        for call in (client.connect(V4, port), client.listen(), client.accept()):
            with pytest.raises(LocalError) as error:
                await call
            assert error.value.errno == errno.ESHUTDOWN


@asynchronous
async def test_a_peer_that_vanishes_ends_the_session() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        ours.link.abort()
        await theirs.wait_closed()
        assert theirs.core.end is not None
        assert theirs.core.end.cause == "end_of_stream"
        await until(lambda: server.sessions() == [])


# -- receiving -------------------------------------------------------------------------------------


@asynchronous
async def test_receiving_with_timeout_size_and_channel() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        with pytest.raises(PoolTimeout):
            await theirs.recv(timeout=0.01)
        theirs.subscribe(5)
        assert theirs.channels() == (0, 5)
        await ours.send(b"on zero")
        await ours.send(b"on five", channel=5)
        assert await theirs.recv_message(channel=5) == (5, b"on five")
        with pytest.raises(PoolTimeout):
            await theirs.recv(channel=5, timeout=0)
        with pytest.raises(MessageTooBig) as error:
            await theirs.recv(max_size=6)
        assert error.value.needed == 7
        assert await theirs.recv(max_size=7, timeout=0) == b"on zero"
        theirs.unsubscribe(5)
        await ours.send(b"unheard", channel=5)
        await ours.send(b"heard")
        assert await theirs.recv() == b"heard"
        assert theirs.counters()["unsubscribed"] == server.counters()["unsubscribed"] == 1
        await theirs.close()
        for call in (lambda: theirs.subscribe(1), lambda: theirs.unsubscribe(1), theirs.channels):
            with pytest.raises(LocalError) as failure:
                call()
            assert failure.value.errno == errno.ENOENT


@asynchronous
async def test_a_cancelled_recv_loses_nothing_and_each_message_goes_to_one() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        waiting = [asyncio.create_task(theirs.recv()) for _ in range(4)]
        await asyncio.sleep(0)
        await ours.send(b"0")
        waiting[0].cancel()
        await ours.send(b"1")
        await ours.send(b"2")
        assert sorted(await asyncio.gather(*waiting[1:])) == [b"0", b"1", b"2"]
        assert waiting[0].cancelled()


@asynchronous
async def test_a_receiver_that_does_not_read_stops_the_stream_and_loses_nothing() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        count = 9000
        sending = asyncio.create_task(send_numbers(ours, count))
        await until(lambda: theirs.counters()["overload"] == 1)
        assert len(theirs.core.inbox) == 4096
        transport = theirs.link._transport
        assert transport is not None
        assert not transport.is_reading()
        assert [int.from_bytes(await theirs.recv(), "big") for _ in range(count)] == list(range(count))
        await sending


async def send_numbers(session: Session, count: int) -> None:
    for number in range(count):
        await session.send(number.to_bytes(4, "big"))


@asynchronous
async def test_both_sides_send_more_than_the_sockets_hold() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        message = b"x" * 65535

        async def talk(session: Session) -> None:
            for _ in range(40):
                await session.send(message)

        async def hear(session: Session) -> None:
            for _ in range(40):
                assert await session.recv() == message

        await asyncio.gather(talk(ours), talk(theirs), hear(ours), hear(theirs))
        assert ours.active
        assert theirs.active


# -- handshakes side by side -----------------------------------------------------------------------


@asynchronous
async def test_silent_and_slow_clients_delay_nobody() -> None:
    async with listening() as (server, client, port):
        silent = [await raw(port) for _ in range(20)]
        for _reader, writer in silent[10:]:
            writer.write(wire.build(Type.INIT, bytes(64))[:79])
        ours, theirs = await connected(server, client, port)
        await ours.send(b"at once")
        assert await theirs.recv() == b"at once"
        assert server.counters()["handshake_timeouts"] == 0, "they are all still there"
        for _reader, writer in silent:
            writer.close()


@asynchronous
async def test_the_oldest_silent_handshake_gives_way_to_the_257th() -> None:
    async with listening() as (server, client, port):
        reader, writer = await raw(port)
        init = wire.build(Type.INIT, b"\x09" + bytes(63), timestamp=server._parts.core.wall_clock())
        writer.write(init)
        assert wire.parse(await reader.readexactly(178)).type == Type.CHALLENGE
        silent = [await raw(port) for _ in range(MAX_PENDING_HANDSHAKES - 1)]
        assert server.counters()["handshakes_evicted"] == 0
        last = await raw(port)
        with contextlib.suppress(ConnectionResetError):
            assert await silent[0][0].read() == b""
        assert server.counters()["handshakes_evicted"] == 1
        assert not silent[1][0].at_eof()
        writer.write(init)
        assert wire.parse(await reader.readexactly(178)).type == Type.CHALLENGE, "it was not silent"
        for _reader, other in [*silent, last, (reader, writer)]:
            other.close()
        ours, _theirs = await connected(server, client, port)
        assert ours.active


@asynchronous
async def test_an_advisory_close_is_followed_by_the_end_of_the_stream() -> None:
    async with listening() as (server, _client, port):
        reader, writer = await raw(port)
        writer.write(wire.build(Type.INIT, bytes(64), version=2))
        answer = await reader.read()  # to the end, which comes although this side is still open
        assert wire.advisory_code(wire.parse(answer), answer) == ErrorCode.VERSION_MISMATCH
        assert len(server._table.links) == 1, (
            "it waits for this side, so that a reset cannot overtake the CLOSE"
        )
        writer.close()
        await until(lambda: not server._table.links)


@asynchronous
async def test_a_send_cancelled_while_the_transport_is_full_has_sent_nothing() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        theirs.link._transport.pause_reading()  # type: ignore[union-attr]
        while not ours.link.full:
            await ours.send(b"x" * 65535)
        before = ours.info().packets_sent
        task = asyncio.create_task(ours.send(b"never sent"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ours.info().packets_sent == before
        waiting = asyncio.create_task(ours.send(b"sent"))
        theirs.link._transport.resume_reading()  # type: ignore[union-attr]
        while (message := await theirs.recv()) == b"x" * 65535:
            pass
        await waiting
        assert message == b"sent"


@asynchronous
async def test_the_65th_session() -> None:
    async with listening() as (server, client, port), Node() as other:
        sessions = await asyncio.gather(*(client.connect(V4, port) for _ in range(MAX_SESSIONS)))
        assert sorted(session.index for session in sessions) == list(range(MAX_SESSIONS))
        with pytest.raises(LocalError) as error:
            await client.connect(V4, port)
        assert error.value.errno == errno.ENOSPC
        with pytest.raises(PeerRefused) as refused:
            await other.connect(V4, port)
        assert isinstance(refused.value, ConnectionRefusedError)
        assert refused.value.code == ErrorCode.OVERLOAD
        assert client.journal()[-1].text == f"0x09 {V4} {port} no_slot"
        (logged,) = [entry for entry in server.journal() if entry.change_type == ChangeType.ERROR]
        assert logged.text.startswith("0x09 127.0.0.1 ")
        await sessions[0].close()
        await until(lambda: len(server.sessions()) == MAX_SESSIONS - 1)
        assert (await other.connect(V4, port)).active


@asynchronous
async def test_tcp_looks_for_a_dead_peer_with_keepalive_60_10_3() -> None:
    async with listening() as (server, client, port):
        for session in await connected(server, client, port):
            transport = session.link._transport  # type: ignore[attr-defined]
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [60, 10, 3]


# -- attempts that fail ----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def fake_server(answer: bytes | None) -> Any:
    """Accepts, reads one INIT, answers it with fixed bytes (None: with nothing), and counts who hung up."""
    hung_up = asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readexactly(144)
            if answer is not None:
                writer.write(answer)
            await reader.read()
        writer.close()
        hung_up.release()

    server = await asyncio.start_server(serve, V4, 0)
    async with server:
        yield server.sockets[0].getsockname()[1], hung_up


def challenge(payload: bytes) -> bytes:
    return wire.build(Type.CHALLENGE, payload, session_id=b"s" * 16)


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        (wire.build(Type.CLOSE, b"\x0a", version=2), errno.EPROTONOSUPPORT),
        (wire.advisory_close(0x0A, 0), errno.EPROTONOSUPPORT),
        (wire.advisory_close(0x09, 0), errno.ECONNREFUSED),
        (
            wire.build(Type.CHALLENGE, b"\x09" + bytes(64) + b"\x19" + bytes(32), session_id=b"s" * 16),
            errno.ERANGE,
        ),
        (wire.build(Type.CHALLENGE, bytes(98), session_id=b"s" * 16), errno.EBADMSG),
    ],
)
@asynchronous
async def test_what_a_server_may_answer(answer: bytes, number: int) -> None:
    async with Node() as client, fake_server(answer) as (port, hung_up):
        with pytest.raises(OSError) as error:
            await client.connect(V4, port)
        assert error.value.errno == number
        assert isinstance(error.value, LocalError | PeerError)
        await hung_up.acquire()
        assert client.sessions() == []
        assert client._parts.core.slots.free == MAX_SESSIONS


@asynchronous
async def test_a_session_id_in_use_with_that_peer_is_refused() -> None:
    too_difficult = b"\x09" + bytes(64) + b"\x19" + bytes(32)  # what is noticed after the session id
    async with listening() as (server, client, port):
        for host, number in ((V6, errno.ERANGE), (V4, errno.EBADMSG)):
            session, _ = await connected(server, client, port, host)
            answer = wire.build(Type.CHALLENGE, too_difficult, session_id=session.info().session_id)
            async with fake_server(answer) as (fake_port, hung_up):
                with pytest.raises(OSError) as error:
                    await client.connect(V4, fake_port)
                assert error.value.errno == number
                await hung_up.acquire()


@asynchronous
async def test_a_silent_server_and_the_callers_own_timeout() -> None:
    async with Node() as client, fake_server(None) as (port, hung_up):
        with pytest.raises(PoolTimeout) as error:
            await client.connect(V4, port, timeout=0.05)
        assert error.value.errno == errno.ETIMEDOUT
        await hung_up.acquire()
        assert client._parts.core.slots.free == MAX_SESSIONS


@asynchronous
async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind((V4, 0))
        async with Node() as client:
            with pytest.raises(ConnectionRefusedError):
                await client.connect(V4, unused.getsockname()[1])
            assert client._parts.core.slots.free == MAX_SESSIONS


@asynchronous
async def test_a_literal_address_asks_no_resolver_and_an_unknown_name_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def unknown(host: str, port: int, **hints: object) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with listening() as (_server, client, port):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        assert (await client.connect(V4, port)).active
        with pytest.raises(OSError, match=r"no\.such\.host: Name or service not known") as error:
            await client.connect("no.such.host", port)
        assert error.value.errno == errno.EADDRNOTAVAIL
        assert asked == ["no.such.host"]


@pytest.mark.parametrize("moment", ["connecting", "searching", "established"])
@asynchronous
async def test_a_cancelled_connect_leaves_nothing(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    searching = threading.Event()
    if moment == "searching":

        def endless(self: puzzle.Search, hashes: int) -> None:
            searching.set()

        monkeypatch.setattr(puzzle.Search, "step", endless)
    async with listening() as (server, client, port):
        established: list[Event] = []
        task = asyncio.create_task(client.connect(V4, port))

        def notice(session: Session | None, event: Event) -> None:
            if isinstance(event, SessionEstablished):
                established.append(event)
                task.cancel()  # when the result is there, but not yet delivered

        client.events = notice
        if moment == "connecting":
            await asyncio.sleep(0)
            task.cancel()
        elif moment == "searching":
            await until(searching.is_set)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(established) == (moment == "established")
        if moment == "searching":
            await client.stop()
            await until(lambda: not any("puzzle" in thread.name for thread in threading.enumerate()))
        await until(lambda: not client._table.links)
        await until(lambda: not server._table.links)
        assert (client.sessions(), server.sessions()) == ([], [])
        assert client._parts.core.slots.free == server._parts.core.slots.free == MAX_SESSIONS
        if moment != "searching":
            client.events = None
            assert (await client.connect(V4, port)).active


@asynchronous
async def test_stopping_the_node_ends_an_attempt() -> None:
    async with Node() as client, fake_server(None) as (port, hung_up):
        task = asyncio.create_task(client.connect(V4, port))
        await until(lambda: client.counters()["packets_sent"] == 1)
        await client.stop()
        with pytest.raises(LocalError) as error:
            await task
        assert error.value.errno == errno.ECANCELED
        await hung_up.acquire()


def failing(size: int) -> bytes:
    raise OSError("no entropy")


@asynchronous
async def test_without_randomness_nothing_starts() -> None:
    async with listening() as (_server, _client, port), Node(rng=failing) as node:
        with pytest.raises(RandomnessError):
            await node.listen(V4, 0)
        assert node.port is None
        with pytest.raises(RandomnessError):
            await node.connect(V4, port)
        assert node._parts.core.slots.free == MAX_SESSIONS


@asynchronous
async def test_a_node_with_a_wrong_primitive_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "mac", lambda key, message: bytes(32))
    with pytest.raises(MissingPrimitive, match="HMAC-SHA256"):
        await Node().__aenter__()


# -- listening -------------------------------------------------------------------------------------


@asynchronous
async def test_stop_listening_keeps_sessions_and_frees_the_port() -> None:
    async with listening() as (server, client, port):
        with pytest.raises(LocalError) as error:
            await server.listen(V4, 0)
        assert error.value.errno == errno.EALREADY
        ours, theirs = await connected(server, client, port)
        reader, writer = await raw(port)
        await until(lambda: len(server._table.links) == 2)
        server.stop_listening()
        assert server.port is None
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await client.connect(V4, port)
        await ours.send(b"still there")
        assert await theirs.recv() == b"still there"
        assert await server.listen(port=port) == port
        assert (await client.connect(V6, port)).active


@asynchronous
async def test_a_cancelled_listen_leaves_the_port_free() -> None:
    async with Node(EASY) as server, Node() as client:
        with socket.socket() as probe:
            probe.bind((V4, 0))
            port = probe.getsockname()[1]
        task = asyncio.create_task(server.listen(V4, port))
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.port is None
        assert await server.listen(V4, port) == port
        assert (await client.connect(V4, port)).active


@asynchronous
async def test_a_taken_port_and_a_single_address() -> None:
    async with Node() as first, Node() as second:
        port = await first.listen(V6, 0)
        with pytest.raises(OSError) as error:
            await second.listen(V6, port)
        assert error.value.errno == errno.EADDRINUSE
        assert second.port is None
        with pytest.raises(ConnectionRefusedError):
            await second.connect(V4, port)
        assert await second.listen(V4, port) == port, "one address does not take the others"


@asynchronous
async def test_accept_in_order_and_with_timeout() -> None:
    async with listening() as (server, client, port):
        with pytest.raises(PoolTimeout):
            await server.accept(timeout=0.01)
        first = await client.connect(V4, port)
        second = await client.connect(V4, port)
        accepted = [await server.accept(), await server.accept()]
        assert [session.info().session_id for session in accepted] == [
            first.info().session_id,
            second.info().session_id,
        ]
        waiting = [asyncio.create_task(server.accept()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        third = await client.connect(V4, port)
        assert (await waiting[1]).info().session_id == third.info().session_id


# -- looking on ------------------------------------------------------------------------------------


@asynchronous
async def test_events_observer_and_keylog(tmp_path: Path) -> None:
    log = tmp_path / "keys"
    events: list[tuple[Session | None, Event]] = []
    traces: list[PacketTrace] = []
    observed: dict[str, Any] = {
        "keylog": log,
        "events": lambda session, event: events.append((session, event)),
        "observer": traces.append,
    }
    async with listening(**observed) as (server, client, port):
        ours, theirs = await connected(server, client, port)
        await ours.send(b"x")
        await theirs.recv()
        await ours.close()
        await theirs.wait_closed()
        session_id = theirs.info().session_id
    assert [(session is theirs, event) for session, event in events] == [
        (True, SessionEstablished(session_id, Role.SERVER)),
        (True, MessageReceived(0, 1)),
        (True, SessionEnded("closed", None)),
    ]
    assert [(trace.direction, trace.packet[0] & 0xF) for trace in traces][:4] == [
        ("received", Type.INIT),
        ("sent", Type.CHALLENGE),
        ("received", Type.RESPONSE),
        ("sent", Type.ACK),
    ]
    (line,) = log.read_text().splitlines()
    entry = parse_line(line)
    assert entry is not None
    assert entry.session_id == session_id
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    # The logged keys are the ones that were used.
    sent = next(trace.packet for trace in traces if trace.packet[0] & 0xF == Type.DATA)
    nonce = entry.hmac_key[:4] + sent[4:12]
    assert crypto.ChaCha20Poly1305(entry.session_key).decrypt(nonce, sent[80:], None) == b"x"


def test_ip_addresses() -> None:
    assert mapped_ip("192.0.2.1") == bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    assert mapped_ip("fe80::1%eth0") == b"\xfe\x80" + bytes(13) + b"\x01"
    assert mapped_ip("::ffff:192.0.2.1") == mapped_ip("192.0.2.1")
    assert ip_text(mapped_ip("192.0.2.1")) == "::ffff:192.0.2.1"
    with pytest.raises(OSError):
        mapped_ip("example")


def test_settings_reach_the_node() -> None:
    assert Node(Settings(difficulty=18)).settings.difficulty == 18
