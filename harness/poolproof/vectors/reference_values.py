# SPDX-License-Identifier: GPL-2.0-or-later
"""Between the vectors' JSON values and the reference's own."""

from __future__ import annotations

from typing import Any

from poolref.constants import Role
from poolref.core import NodeCore
from poolref.counters import DropReason
from poolref.keys import Keys
from poolref.session import Session
from poolref.settings import Settings
from poolref.wire import Header

Values = dict[str, Any]

HEADER_FIELDS = (
    "version", "type", "reserved0", "flags", "seq", "ack", "session_id", "timestamp", "payload_len",
    "channel", "reserved1", "hmac",
)  # fmt: skip


def raw(digits: str) -> bytes:
    """Bytes from hex digits."""
    return bytes.fromhex(digits)


def u64(decimal: str) -> int:
    """A 64-bit integer from its decimal string."""
    return int(decimal)


def drop(reason: DropReason) -> Values:
    """Discarded and counted under that name."""
    return {"drop": str(reason)}


def header_of(given: Values) -> Header:
    """A header from those of its fields that are given."""
    values = dict(given)
    for name in ("seq", "ack", "timestamp"):
        values[name] = u64(values[name])
    for name in ("session_id", "hmac"):
        if name in values:
            values[name] = raw(values[name])
    return Header(**values)


def established(role: Role, session_id: bytes, keys: Keys, own: int, peer: int) -> Session:
    """A session right after its handshake, at time 0."""
    core = NodeCore(Settings(), bytes, lambda: 0)
    return Session(
        core=core,
        counters=core.counters,
        role=role,
        index=0,
        session_id=session_id,
        keys=keys,
        first_seq=own,
        peer_seq=peer,
        now=0,
    )
