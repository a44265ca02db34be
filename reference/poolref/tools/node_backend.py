# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's Node with the operations and errors of the kernel's control interface (`Backend`)."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence
from typing import Any

from poolref.constants import SECOND, VERSION, ErrorCode, State
from poolref.errors import LocalError, PeerError
from poolref.journal import ChangeType, Entry
from poolref.node import Node
from poolref.node_session import Session
from poolref.peers import NO_KEY
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
    """Coroutines named as the methods of `Control`; call them on the node's event loop."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def _session(self, index: int, inactive: int = errno.ENOTCONN) -> Session:
        if not 0 <= index < MAX_SESSIONS:
            raise LocalError(errno.EINVAL, f"there is no session index {index}")
        for session in self.node.sessions():
            if session.index == index:
                return session
        raise LocalError(inactive, f"session {index} is not active")

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
        session = self._session(index, errno.ENOENT)
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

    # -- Control ---------------------------------------------------------------------------------------

    async def configure(self, index: int, deadline_ns: int, **params: Any) -> int:
        return await self._session(index).configure(deadline=deadline_ns / SECOND, **params)

    async def propose(self, index: int, deadline_ns: int, **params: Any) -> int:
        """What `configure` of a module does: it does not wait for the outcome (E-97)."""
        return self._session(index).propose(deadline=deadline_ns / SECOND, **params)

    async def confirm(self, index: int) -> int:
        return await self._session(index).confirm()

    async def rollback(self, index: int) -> int:
        return await self._session(index).rollback()

    async def request_journal(self, index: int) -> list[dict[str, Any]]:
        session = self._session(index)
        entries = await session.request_journal()
        ring = session.core.replication.replica.ring
        return entry_rows(entries, 0 if ring is None else ring.first_index)

    async def rekey(self, index: int) -> None:
        await self._session(index).rekey()

    async def challenge(self, index: int) -> None:
        if not await self._session(index).challenge():
            raise PeerError(
                ErrorCode.AUTH_FAIL, "the peer failed the challenge and is untrusted", errno.EBADMSG
            )

    async def integrity(self) -> dict[str, str]:
        """What ABI-24 shows of a module; the reference has no code in a kernel to watch."""
        untrusted = [str(session.index) for session in self.node.sessions() if session.core.untrusted]
        return {"Integrity status": "not watched", "Untrusted peers": ", ".join(untrusted) or "none"}

    async def exchange(self, index: int) -> None:
        self._session(index).exchange_peers()

    async def probe_mtu(self, index: int) -> int:
        return await self._session(index).probe_mtu()

    async def journal(self) -> list[dict[str, Any]]:
        entries = self.node.journal()
        return entry_rows(entries, self.node.stats().journal_entries - len(entries))

    async def peers(self) -> list[dict[str, Any]]:
        now = self.node.now()
        return [
            {
                "address": str(known.peer).rpartition(" ")[0],
                "port": known.peer.port,
                "source": known.source.name.lower(),
                "age_s": (now - known.last_seen) // SECOND,
                "pubkey": known.pubkey.hex(),
            }
            for known in self.node.peers()
        ]

    async def add_peer(self, address: str, port: int, pubkey: bytes) -> None:
        self.node.add_peer(address, port, pubkey or NO_KEY)

    async def forget_peer(self, address: str, port: int) -> None:
        self.node.forget_peer(address, port)

    async def details(self) -> list[dict[str, str]]:
        """The keys of ABI-26."""
        rows = []
        for session in self.node.sessions():
            info = session.info()
            rows.append(
                {
                    "idx": str(info.index),
                    "id": info.session_id.hex(),
                    "role": info.role.name.lower(),
                    "transport": info.transport,
                    "version": str(info.version),
                    "epoch": str(info.epoch),
                    "mtu": str(info.mtu),
                    "subs": ",".join(map(str, info.channels)) or "none",
                    "untrusted": str(int(info.untrusted)),
                }
            )
        return rows

    async def stats(self) -> dict[str, Any]:
        stats = dataclasses.asdict(self.node.stats())
        return {**stats, "journal_head": stats["journal_head"].hex()}


def entry_rows(entries: Sequence[Entry], first: int) -> list[dict[str, Any]]:
    """Journal entries as mappings; `first` is the index of the first one."""
    return [
        {
            "index": first + position,
            "timestamp": entry.timestamp,
            "type": _type_name(entry.change_type),
            "before": entry.config_before,
            "after": entry.config_after,
            "hash": entry.change_hash.hex(),
            "detail": entry.text,
        }
        for position, entry in enumerate(entries)
    ]


def _type_name(change_type: int) -> str:
    try:
        return ChangeType(change_type).name
    except ValueError:
        return f"type {change_type}"


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
