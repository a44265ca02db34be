# SPDX-License-Identifier: GPL-2.0-or-later
"""pool_test's transfers over sessions that do to messages what a broken implementation would."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from poolref.tools.transfer import (
    KEPT,
    Client,
    Failed,
    FromFile,
    Generated,
    Interrupted,
    Offer,
    Result,
    Server,
    pack,
)

TIMEOUT = 20.0
SIZE = 300_000
Tamper = Callable[[int, bytes], list[bytes]]
"""From the number of a message on its way to what arrives in its place."""


def untouched(number: int, message: bytes) -> list[bytes]:
    return [message]


class Pipe:
    """One end of a session in memory; `tamper` sits on the way to the other end."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.other: Pipe
        self.tamper: Tamper = untouched
        self.sent = 0
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(32)
        self.open = True

    async def send(self, data: bytes) -> None:
        if not self.open:
            raise OSError(errno.ENOTCONN, "the session has ended")
        self.sent += 1
        for message in self.tamper(self.sent, data):
            await self.other.queue.put(message)

    async def recv(self, timeout: float) -> bytes:
        message = await self.queue.get() if self.open or not self.queue.empty() else None
        if message is None:
            raise OSError(errno.ENOTCONN, "the session has ended")
        return message

    async def close(self) -> None:
        for end in (self, self.other):
            if end.open:
                end.open = False
                if not end.queue.full():
                    end.queue.put_nowait(None)


def pipe() -> tuple[Pipe, Pipe]:
    near, far = Pipe("server"), Pipe("client")
    near.other, far.other = far, near
    return near, far


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT):
            await test

    asyncio.run(bounded())


def offer(direction: str = "up", **changes: Any) -> Offer:
    return dataclasses.replace(Offer("an id", direction, SIZE, 5, 4000), **changes)


async def outcomes(
    client: Client, server: Server, near: Pipe, far: Pipe
) -> tuple[Result | Exception, list[Result] | Exception]:
    """How one session went for the client and for the server."""

    async def serve() -> list[Result]:
        results = []
        try:
            async for result in server.serve(far):
                results.append(result)
        except Interrupted as lost:
            if lost.moved is not None:
                raise
        return results

    async def ask() -> Result:
        try:
            return await client.attempt(near)
        finally:
            await near.close()

    ours, theirs = await asyncio.gather(ask(), serve(), return_exceptions=True)
    assert not isinstance(ours, asyncio.CancelledError)
    assert not isinstance(theirs, asyncio.CancelledError)
    return ours, theirs  # type: ignore[return-value]


def digest(seed: int = 5, size: int = SIZE) -> str:
    source = Generated(seed, size)
    sha, offset = hashlib.sha256(), 0
    while offset < size:
        data = source.read(offset, 1000)
        sha.update(data)
        offset += len(data)
    return sha.hexdigest()


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_transfer_is_verified_at_both_ends(direction: str) -> None:
    async def test() -> None:
        seen: list[int] = []
        client = Client(offer(direction), None, TIMEOUT, seen.append)
        ours, theirs = await outcomes(client, Server(TIMEOUT), *pipe())
        assert isinstance(ours, Result)
        assert isinstance(theirs, list)
        (other,) = theirs
        for result in (ours, other):
            assert (result.direction, result.size, result.moved, result.resumed_at) == (
                direction,
                SIZE,
                SIZE,
                0,
            )
            assert result.sha256 == digest()
        assert seen[-1] == SIZE
        assert seen == sorted(seen)
        assert len(seen) == -(-SIZE // (4000 - 9))

    run(test())


def test_a_file_arrives_as_it_is(tmp_path: Any) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 300)

    async def test() -> None:
        source = FromFile(path)
        client = Client(offer(size=source.size), source, TIMEOUT, lambda offset: None)
        ours, _ = await outcomes(client, Server(TIMEOUT), *pipe())
        assert isinstance(ours, Result)
        assert ours.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    run(test())


def test_generated_bytes_do_not_depend_on_how_they_are_read() -> None:
    source = Generated(9, 200_000)
    whole = b"".join(source.read(offset, 1) for offset in range(65_500, 65_600))
    assert whole == source.read(65_500, 100) == source.read(65_500, 36) + source.read(65_536, 64)
    assert source.read(60_000, 140_000)[-100:] == source.read(199_900, 100)
    assert source.read(199_990, 100) == source.read(199_990, 10)
    assert Generated(10, 200_000).read(0, 100) != source.read(0, 100)


def flipped(number: int, message: bytes) -> list[bytes]:
    return [message[:-1] + bytes([message[-1] ^ 1]) if number == 5 else message]


def lost(number: int, message: bytes) -> list[bytes]:
    return [] if number == 5 else [message]


def doubled(number: int, message: bytes) -> list[bytes]:
    return [message] * (2 if number == 5 else 1)


def cut(number: int, message: bytes) -> list[bytes]:
    return [message[:-1] if number == 5 else message]


def early_end(number: int, message: bytes) -> list[bytes]:
    return [pack(b"E", sha256="x")] if number == 5 else [message]


def garbled_end(number: int, message: bytes) -> list[bytes]:
    return [b"E{" if message[:1] == b"E" else message]


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (flipped, "SHA-256 differs"),
        (lost, "after 11973 of 300000 bytes came 3991 at 15964"),
        (doubled, "after 15964 of 300000 bytes came 3991 at 11973"),
        (cut, "after 15963 of 300000 bytes came 3991 at 15964"),
        (early_end, "11973 of 300000 bytes came"),
        (garbled_end, "does not decode"),
    ],
)
@pytest.mark.parametrize("direction", ["up", "down"])
def test_what_a_broken_implementation_does_is_told(tamper: Tamper, said: str, direction: str) -> None:
    async def test() -> None:
        near, far = pipe()
        (near if direction == "up" else far).tamper = tamper
        client = Client(offer(direction), None, TIMEOUT, lambda offset: None)

        async def serve() -> None:
            try:
                async for _ in Server(TIMEOUT).serve(far):
                    pass
            finally:
                await far.close()

        async def ask() -> None:
            try:
                await client.attempt(near)
            finally:
                await near.close()

        ours, theirs = await asyncio.gather(ask(), serve(), return_exceptions=True)
        receiver, sender = (theirs, ours) if direction == "up" else (ours, theirs)
        assert isinstance(receiver, Failed)
        assert said in str(receiver)
        assert isinstance(sender, Failed | Interrupted)

    # The answer is the server's first message, as the offer is the client's.
    run(test())


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_interrupted_transfer_goes_on_where_it_stopped(direction: str) -> None:
    async def test() -> None:
        server = Server(TIMEOUT)
        client = Client(offer(direction), None, TIMEOUT, lambda offset: None)
        near, far = pipe()
        sender = near if direction == "up" else far

        def hang_up(number: int, message: bytes) -> list[bytes]:
            if number == 30:
                sender.open = False
                sender.other.queue.put_nowait(None)
                sender.other.open = False
            return [message] if number < 30 else []

        sender.tamper = hang_up
        ours, theirs = await outcomes(client, server, near, far)
        assert isinstance(ours, Interrupted)
        assert isinstance(theirs, Interrupted)
        assert theirs.moved is not None
        again, other = await outcomes(client, server, *pipe())
        assert isinstance(again, Result)
        assert isinstance(other, list)
        arrived = theirs.moved if direction == "up" else 28 * 3991
        assert again.resumed_at == other[0].resumed_at == arrived
        assert again.moved == SIZE - arrived
        assert again.sha256 == digest()

    run(test())


def test_another_client_process_can_go_on_with_an_upload() -> None:
    async def test() -> None:
        server = Server(TIMEOUT)
        near, far = pipe()

        def hang_up(number: int, message: bytes) -> list[bytes]:
            if number == 30:
                near.open = far.open = False
                far.queue.put_nowait(None)
            return [message] if number < 30 else []

        near.tamper = hang_up
        await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, near, far)
        again, _ = await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, *pipe())
        assert isinstance(again, Result)
        assert again.resumed_at == 28 * 3991
        other, _ = await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, *pipe())
        assert isinstance(other, Result)
        assert other.resumed_at == 0, "a finished transfer is forgotten"

    run(test())


def test_a_client_that_comes_back_early_takes_its_upload_over() -> None:
    async def test() -> None:
        server = Server(TIMEOUT)
        near, far = pipe()
        stuck = asyncio.create_task(
            outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, near, far)
        )
        near.tamper = lambda number, message: [message] if number < 30 else []
        # Nothing more arrives, and nobody has noticed: 29 messages are there, the client waits for a result.
        while near.sent < 77:
            await asyncio.sleep(0)
        again, _ = await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, *pipe())
        assert isinstance(again, Result)
        assert again.sha256 == digest()
        ours, theirs = await stuck
        assert isinstance(ours, Interrupted)
        assert isinstance(theirs, Interrupted)

    run(test())


class Gated(Pipe):
    """Delivers what is queued only once the session was closed, as a slow thread would."""

    async def recv(self, timeout: float) -> bytes:
        if self.other.sent > 5:
            while self.open:
                await asyncio.sleep(0)
        return await super().recv(timeout)


def test_what_is_still_queued_from_the_session_before_does_not_count() -> None:
    async def test() -> None:
        server = Server(TIMEOUT)
        near, far = Pipe("server"), Gated("client")
        near.other, far.other = far, near
        stuck = asyncio.create_task(
            outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, near, far)
        )
        while near.sent < 10:
            await asyncio.sleep(0)
        again, other = await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, *pipe())
        assert isinstance(again, Result), again
        assert isinstance(other, list)
        _, theirs = await stuck
        assert isinstance(theirs, Interrupted)
        assert "another session" in str(theirs)

    run(test())


def test_a_failed_upload_begins_anew() -> None:
    async def test() -> None:
        server = Server(TIMEOUT)
        near, far = pipe()
        near.tamper = flipped
        ours, theirs = await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, near, far)
        assert isinstance(ours, Failed)
        assert isinstance(theirs, Failed)
        again, _ = await outcomes(Client(offer(), None, TIMEOUT, lambda offset: None), server, *pipe())
        assert isinstance(again, Result)
        assert again.resumed_at == 0

    run(test())


def test_a_server_remembers_a_bounded_number_of_uploads() -> None:
    async def test() -> None:
        server = Server(TIMEOUT)
        for number in range(KEPT + 1):
            near, far = pipe()

            def hang_up(count: int, message: bytes, near: Pipe = near, far: Pipe = far) -> list[bytes]:
                if count == 3:
                    near.open = far.open = False
                    far.queue.put_nowait(None)
                return [message] if count < 3 else []

            near.tamper = hang_up
            await outcomes(
                Client(offer(id=str(number)), None, TIMEOUT, lambda offset: None), server, near, far
            )
        first, _ = await outcomes(Client(offer(id="0"), None, TIMEOUT, lambda offset: None), server, *pipe())
        last, _ = await outcomes(
            Client(offer(id=str(KEPT)), None, TIMEOUT, lambda offset: None), server, *pipe()
        )
        assert isinstance(first, Result)
        assert isinstance(last, Result)
        assert (first.resumed_at, last.resumed_at) == (0, 3991)

    run(test())


GOOD = dataclasses.asdict(offer())


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"O",
        b"O[]",
        b"O\xff",
        b"O{}",
        *(
            b"O" + json.dumps({**GOOD, **change}).encode()
            for change in (
                {"size": 0},
                {"size": 1 << 60},
                {"size": "1"},
                {"size": True},
                {"seed": -1},
                {"block": 8},
                {"block": 70_000},
                {"offset": SIZE + 1},
                {"offset": -1},
                {"direction": "sideways"},
                {"id": ""},
                {"id": ["x"]},
                {"more": 1},
            )
        ),
    ],
)
def test_a_server_refuses_what_is_no_offer(message: bytes) -> None:
    async def test() -> None:
        near, far = pipe()
        await near.send(message)
        with pytest.raises(Failed):
            await anext(Server(TIMEOUT).serve(far))
        answer = await near.recv(TIMEOUT)
        assert answer[:1] == b"A"
        assert json.loads(answer[1:])["refused"]

    run(test())


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"hello", "does it run pool_test?"),
        (pack(b"A", refused="no room"), "refused: no room"),
        (pack(b"A"), "would begin at None"),
        (pack(b"A", offset=SIZE + 1), "would begin at"),
        (pack(b"A", offset=-1), "would begin at"),
        (b"A{", "does not decode"),
        (b"A[1]", "does not decode"),
    ],
)
def test_a_client_tells_what_a_strange_server_answers(answer: bytes, said: str) -> None:
    async def test() -> None:
        near, far = pipe()
        await far.send(answer)
        with pytest.raises(Failed, match=said.replace("?", r"\?")):
            await Client(offer(), None, TIMEOUT, lambda offset: None).attempt(near)

    run(test())


def test_pings_come_back() -> None:
    async def test() -> None:
        near, far = pipe()
        await near.send(b"P123")
        serving = asyncio.ensure_future(anext(Server(TIMEOUT).serve(far)))
        assert await near.recv(TIMEOUT) == b"P123"
        await near.close()
        with pytest.raises(Interrupted):
            await serving

    run(test())
