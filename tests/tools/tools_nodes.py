# SPDX-License-Identifier: GPL-2.0-or-later
"""Running poolds for tests: nodes in a thread, each behind a control socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from poolref.dialect import Dialect
from poolref.node import Node, Settings
from poolref.tools.poold import control_socket

EASY = Settings(difficulty=0, dialect=Dialect(min_difficulty=0))


@contextlib.contextmanager
def nodes(wanted: Mapping[Path, Settings]) -> Iterator[None]:
    """A node for each path of a control socket, until the block is left."""
    ready = threading.Event()
    over: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        over.append((asyncio.get_running_loop(), asyncio.Event()))
        async with contextlib.AsyncExitStack() as stack:
            for path, settings in wanted.items():
                node = await stack.enter_async_context(Node(settings))
                await stack.enter_async_context(control_socket(node, path))
            ready.set()
            await over[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield
    finally:
        if over:
            over[0][0].call_soon_threadsafe(over[0][1].set)
        thread.join(30)
        assert not thread.is_alive()
