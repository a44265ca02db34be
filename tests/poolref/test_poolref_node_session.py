# SPDX-License-Identifier: GPL-2.0-or-later
"""A node's sessions: iteration, back-pressure, what a turn of the loop writes, and the end."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

import pytest
from poolref_loopback import V4, asynchronous, connected, listening, until

from poolref import node
from poolref.constants import HELD_LIMIT, ErrorCode
from poolref.errors import LocalError
from poolref.events import Event, MessageReceived
from poolref.inbox import Message
from poolref.io import link
from poolref.node import Session
from poolref.session import Session as SessionCore


class Hold:
    """Makes one core hold its packets back, as a rekey does."""

    def __init__(self, core: SessionCore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.core = core
        self.on = True
        monkeypatch.setattr(SessionCore, "holding", property(lambda each: each is core and self.on))

    def end(self, session: Session) -> None:
        self.on = False
        self.core.release(session._clock())
        self.core.core.stir(self.core)


def writes(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what this session writes to its transport from now on."""
    sizes: list[int] = []
    transport: Any = session.link._transport
    real = transport.write

    def write(data: bytes) -> None:
        sizes.append(len(data))
        real(data)

    monkeypatch.setattr(transport, "write", write)
    return sizes


# -- iteration -------------------------------------------------------------------------------------


@asynchronous
async def test_iterating_over_messages_ends_with_the_session() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        theirs.subscribe(7)
        async with ours:
            await ours.send(b"one")
            await ours.send(b"two", channel=7)
        assert not ours.active, "left the block"
        assert [message async for message in theirs] == [Message(0, b"one"), Message(7, b"two")]
        assert [message async for message in ours] == []


@asynchronous
async def test_iterating_ends_when_the_connection_does() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        ours.link.abort()
        assert [message async for message in theirs] == []


@asynchronous
async def test_iterating_tells_an_irregular_end() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        await ours.send(b"last")
        await ours.close(ErrorCode.REKEY_FAIL)
        assert await anext(theirs) == Message(0, b"last")
        with pytest.raises(LocalError, match="REKEY_FAIL") as error:
            await anext(theirs)
        assert error.value.errno == errno.ENOTCONN


@asynchronous
async def test_iterating_over_incoming_sessions_ends_with_the_node() -> None:
    async with listening() as (server, client, port):
        heard: list[bytes] = []

        async def serve() -> None:
            async for session in server.incoming():
                heard.append(await session.recv())

        serving = asyncio.create_task(serve())
        for number in range(3):
            async with await client.connect(V4, port) as session:
                await session.send(bytes([number]))
        await until(lambda: len(heard) == 3)
        assert heard == [b"\0", b"\1", b"\2"]
        await server.stop()
        await serving


# -- sending ---------------------------------------------------------------------------------------


@asynchronous
async def test_what_is_sent_in_one_turn_of_the_loop_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        sizes = writes(ours, monkeypatch)
        for _ in range(10):
            await ours.send(b"x" * 100)
        assert sizes == []
        for _ in range(10):
            assert await theirs.recv() == b"x" * 100
        assert sizes == [10 * 196]
        await ours.send(b"before the end")
        await ours.close()
        assert sizes[1:] == [96 + 14 + 80], "at once, and with what was sent before"


@asynchronous
async def test_a_turn_gathers_no_more_than_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        sizes = writes(ours, monkeypatch)
        for _ in range(130):
            await ours.send(b"x" * 1000)
        assert len(sizes) == 1
        assert sizes[0] >= link._BURST
        for _ in range(130):
            await theirs.recv()
        assert len(sizes) > 1


@asynchronous
async def test_a_sender_lets_others_run_though_the_transport_takes_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        monkeypatch.setattr(ours.link._transport, "write", lambda data: None)
        done = False
        turns = 0

        async def count() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for _ in range(1000):
            await ours.send(b"x" * 1000)
        done = True
        await counting
        assert turns >= 1000 * 1000 // link._BURST - 1


async def send_much(session: Session) -> None:
    for _ in range(1000):
        await session.send(b"x" * 60000)


@asynchronous
async def test_a_sender_learns_that_the_connection_is_gone() -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        theirs.link.abort()
        with pytest.raises(LocalError) as error:
            await send_much(ours)
        assert error.value.errno == errno.ENOTCONN


@asynchronous
async def test_sending_waits_while_the_session_holds_packets_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        hold = Hold(ours.core, monkeypatch)
        for number in range(HELD_LIMIT):
            await ours.send(number.to_bytes(2, "big"))
        with pytest.raises(LocalError) as error:
            ours.core.send(b"no", 0)
        assert error.value.errno == errno.EAGAIN
        waiting = [asyncio.create_task(ours.send(text)) for text in (b"first", b"cancelled", b"second")]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert [task.done() for task in waiting] == [False, True, False]
        hold.end(ours)
        await asyncio.gather(*waiting, return_exceptions=True)
        heard = [await theirs.recv() for _ in range(HELD_LIMIT + 2)]
        assert heard == [number.to_bytes(2, "big") for number in range(HELD_LIMIT)] + [b"first", b"second"]


@asynchronous
async def test_those_who_wait_to_send_learn_of_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        Hold(ours.core, monkeypatch)
        for _ in range(HELD_LIMIT):
            await ours.send(b"x")
        waiting = asyncio.create_task(ours.send(b"x"))
        await asyncio.sleep(0)
        await theirs.close()
        with pytest.raises(LocalError) as error:
            await waiting
        assert error.value.errno == errno.ENOTCONN


# -- the end ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_close_lets_out_what_was_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        hold = Hold(ours.core, monkeypatch)
        await ours.send(b"held")
        closing = asyncio.create_task(ours.close())
        await asyncio.sleep(0)
        assert ours.active
        hold.end(ours)
        await closing
        assert [message.data async for message in theirs] == [b"held"]


@pytest.mark.parametrize("how", ["cancelled", "too long"])
@asynchronous
async def test_a_close_that_cannot_wait_closes_all_the_same(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolref.constants.LINGER", 0 if how == "too long" else 10**12)
    async with listening() as (server, client, port):
        ours, theirs = await connected(server, client, port)
        Hold(ours.core, monkeypatch)
        await ours.send(b"never sent")
        closing = asyncio.create_task(ours.close())
        await asyncio.sleep(0)
        if how == "cancelled":
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        else:
            await closing
        assert not ours.active
        assert [message async for message in theirs] == []


class Unread:
    """A transport whose peer has read all but ``left`` bytes."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.aborted = True


@asynchronous
async def test_a_farewell_lasts_as_long_as_the_peer_reads() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        link, real, transport = ours.link, ours.link._transport, Unread(1000)
        link._transport = transport  # type: ignore[assignment]
        try:
            link._await_farewell()
            for left in (999, 500, 0):
                transport.left = left
                link._farewell.cancel()  # type: ignore[union-attr]
                link._end_farewell()
                assert not transport.aborted, "it has read something since"
            link._farewell.cancel()  # type: ignore[union-attr]
            link._end_farewell()
            assert transport.aborted
        finally:
            link._transport, link._farewell = real, None


@asynchronous
async def test_stopping_a_node_does_not_wait_for_a_peer_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_STOP_S", 0.0)
    async with listening() as (server, client, port):
        await connected(server, client, port)
        (link,) = client._table.links
        await client.stop()
        await link.gone
        assert client.sessions() == []


@asynchronous
async def test_a_cancelled_stop_leaves_nothing() -> None:
    async with listening() as (server, client, port):
        ours, _theirs = await connected(server, client, port)
        stopping = asyncio.create_task(client.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        await until(lambda: not client._table.links)
        assert client.sessions() == []
        assert not ours.active
        assert not ours.core.keys.usable


@asynchronous
async def test_a_callback_that_fails_disturbs_nothing() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))

    def events(session: Session | None, event: Event) -> None:
        if isinstance(event, MessageReceived):
            raise ZeroDivisionError

    async with listening(events=events) as (server, client, port):
        ours, theirs = await connected(server, client, port)
        await ours.send(b"x")
        assert await theirs.recv() == b"x"
        assert theirs.active
    assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
    assert "MessageReceived" in reported[0]["message"]
