# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's Node with the operations and errors of the kernel's control interface (`Backend`)."""

from __future__ import annotations

import dataclasses
import errno

from poolref.constants import VERSION, State
from poolref.errors import LocalError
from poolref.node import Node
from poolref.node_session import Session
from poolref.tools.kernel_abi import (
    CHANNEL_LIST,
    CHANNEL_SUBSCRIBE,
    CHANNEL_UNSUBSCRIBE,
    DEFAULT_PORT,
    MAX_MESSAGE,
    MAX_SESSIONS,
    SessionInfo,
)

RECEIVE_WAIT_S = 5.0
_MAPPED = "::ffff:"


class NodeBackend:
    """Coroutines named as the methods of `Backend`; call them on the node's event loop."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def _session(self, index: int) -> Session:
        if not 0 <= index < MAX_SESSIONS:
            raise LocalError(errno.EINVAL, f"there is no session index {index}")
        for session in self.node.sessions():
            if session.index == index:
                return session
        raise LocalError(errno.ENOTCONN, f"session {index} is not active")

    async def listen(self, port: int = DEFAULT_PORT) -> int:
        return await self.node.listen(None, port)

    async def stop(self) -> None:
        self.node.stop_listening()

    async def connect(self, address: str, port: int = DEFAULT_PORT, version: int = 0) -> int:
        if version not in (0, VERSION):
            raise LocalError(errno.EPROTONOSUPPORT, f"this node speaks version {VERSION} only")
        return (await self.node.connect(address, port)).index

    async def send(self, index: int, data: bytes, channel: int = 0) -> None:
        await self._session(index).send(data, channel)

    async def recv(self, index: int, channel: int = 0, max_size: int = MAX_MESSAGE) -> bytes:
        return await self._session(index).recv(channel or None, RECEIVE_WAIT_S, max_size)

    async def sessions(self) -> list[SessionInfo]:
        return [_row(session) for session in self.node.sessions()]

    async def close_session(self, index: int) -> None:
        session = self._session(index)
        if not session.active:
            raise LocalError(errno.ENOTCONN, f"session {index} is not active")
        await session.close()

    async def channel(self, index: int, operation: int, channel: int = 0) -> list[int]:
        session = self._session(index)
        if operation == CHANNEL_SUBSCRIBE:
            session.subscribe(channel)
        elif operation == CHANNEL_UNSUBSCRIBE:
            session.unsubscribe(channel)
        elif operation == CHANNEL_LIST:
            return list(session.channels())
        else:
            raise LocalError(errno.EINVAL, f"unknown channel operation {operation}")
        return []

    async def counters(self) -> dict[str, int]:
        return self.node.counters()


def _row(session: Session) -> SessionInfo:
    info = session.info()
    return SessionInfo(
        index=info.index,
        peer_addr=info.peer_addr.removeprefix(_MAPPED),
        peer_port=info.peer_port,
        state=State(info.state).name,
        session_id=info.session_id.hex(),
        bytes_sent=info.bytes_sent,
        bytes_recv=info.bytes_recv,
        packets_sent=info.packets_sent,
        packets_recv=info.packets_recv,
        rekey_count=info.rekey_count,
        telemetry=dataclasses.asdict(info.telemetry),
    )
