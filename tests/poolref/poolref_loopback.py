# SPDX-License-Identifier: GPL-2.0-or-later
"""Nodes on loopback for tests.  Every wait is for an event; the timeout only bounds a hang."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from poolref_sim import EASY

from poolref.node import Node, Session

HANG = 30.0

V4, V6 = "127.0.0.1", "::1"


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(HANG):
                await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left

        asyncio.run(bounded())

    return run


@contextlib.asynccontextmanager
async def listening(**kwargs: Any) -> Any:
    """A server node, a client node and the port."""
    async with Node(EASY, **kwargs) as server, Node() as client:
        yield server, client, await server.listen(port=0)


async def connected(server: Node, client: Node, port: int, host: str = V4) -> tuple[Session, Session]:
    ours, theirs = await asyncio.gather(client.connect(host, port), server.accept())
    return ours, theirs


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until something came true; the test's own bound applies."""
    while not condition():
        await asyncio.sleep(0)


async def raw(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(V4, port)
