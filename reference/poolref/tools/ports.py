# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions for `pool_test`, of a reference node in this process or of any `Backend` (/dev/pool, poold).

A Backend's calls block, so each session has a thread and a handle of its own for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

from poolref.tools.backend import Backend
from poolref.tools.transfer import Port

if TYPE_CHECKING:
    from poolref.node import Node, Session

T = TypeVar("T")

_POLL_S = 0.1


class Side(Protocol):
    """A node to transfer with."""

    async def listen(self, host: str | None, port: int) -> int: ...
    def incoming(self) -> AsyncIterator[Port]: ...
    async def connect(self, host: str, port: int) -> Port: ...


# -- the reference ---------------------------------------------------------------------------------


class NodePort:
    """A session of a node in this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        info = session.info()
        self.peer = f"{info.peer_addr.removeprefix('::ffff:')} port {info.peer_port}"

    async def send(self, data: bytes) -> None:
        await self._session.send(data)

    async def recv(self, timeout: float) -> bytes:
        return await self._session.recv(timeout=timeout)

    async def close(self) -> None:
        await self._session.close()


class NodeSide:
    """A running node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def listen(self, host: str | None, port: int) -> int:
        return await self._node.listen(host, port)

    async def incoming(self) -> AsyncIterator[Port]:
        async for session in self._node.incoming():
            yield NodePort(session)

    async def connect(self, host: str, port: int) -> Port:
        return NodePort(await self._node.connect(host, port))


# -- anything with a Backend -----------------------------------------------------------------------


class Handle(Backend, Protocol):
    """A Backend that holds something open."""

    def shut(self) -> None: ...


class BackendPort:
    """Session `index` of a node behind a Backend."""

    def __init__(self, handle: Handle, index: int, peer: str) -> None:
        self.peer = peer
        self._handle = handle
        self._index = index
        self._executor: ThreadPoolExecutor | None = ThreadPoolExecutor(1, f"pool-session-{index}")

    async def send(self, data: bytes) -> None:
        await self._run(lambda: self._handle.send(self._index, data))

    async def recv(self, timeout: float) -> bytes:
        return await self._run(lambda: self._wait(timeout))

    def _wait(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self._handle.recv(self._index)
            except OSError as exc:  # a Backend gives up after 5 s (ABI-05)
                if exc.errno != errno.ETIMEDOUT or time.monotonic() >= deadline or self._executor is None:
                    raise

    async def close(self) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.submit(self._end)
            executor.shutdown(wait=False)

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._handle.close_session(self._index)
        self._handle.shut()

    async def _run(self, call: Callable[[], T]) -> T:
        if self._executor is None:
            raise OSError(errno.ENOTCONN, "the session was closed here")
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class BackendSide:
    """`open_handle` gives a new handle of the same node each time."""

    def __init__(self, open_handle: Callable[[], Handle]) -> None:
        self._open = open_handle
        self._handle = open_handle()
        self._known: set[str] = set()

    def shut(self) -> None:
        self._handle.shut()

    async def listen(self, host: str | None, port: int) -> int:
        if host is not None:
            raise OSError(errno.EOPNOTSUPP, "this node listens on all addresses")
        self._known |= {session.session_id for session in self._handle.sessions()}
        return await asyncio.to_thread(self._handle.listen, port)

    async def incoming(self) -> AsyncIterator[Port]:
        """New sessions; one that is connected from here never shows."""
        while True:
            rows = await asyncio.to_thread(self._handle.sessions)
            for row in rows:
                if row.state == "ESTABLISHED" and row.session_id not in self._known:
                    self._known.add(row.session_id)
                    yield BackendPort(self._open(), row.index, f"{row.peer_addr} port {row.peer_port}")
            self._known &= {row.session_id for row in rows}
            await asyncio.sleep(_POLL_S)

    async def connect(self, host: str, port: int) -> Port:
        handle = self._open()
        try:
            index = await asyncio.to_thread(handle.connect, host, port)
            self._known |= {row.session_id for row in handle.sessions() if row.index == index}
        except BaseException:
            handle.shut()
            raise
        return BackendPort(handle, index, f"{host} port {port}")
