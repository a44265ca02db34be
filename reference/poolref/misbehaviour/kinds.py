# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for what packets are for, finer than their types: a misbehaviour is about one of them."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from ..constants import Flag, Type
from ..wire import ZERO_HMAC, Header


class Kind(StrEnum):
    """A packet has the kind named like its type and, where one type serves several purposes, a finer one."""

    ANY = "ANY"
    INIT = "INIT"
    CHALLENGE = "CHALLENGE"
    RESPONSE = "RESPONSE"
    HANDSHAKE_ACK = "HANDSHAKE_ACK"
    ADVISORY_CLOSE = "ADVISORY_CLOSE"
    DATA = "DATA"
    FRAGMENT = "FRAGMENT"
    LAST_FRAGMENT = "LAST_FRAGMENT"
    ACK = "ACK"
    CONFIG_ANSWER = "CONFIG_ANSWER"
    VOID = "VOID"  # TRN-07
    HEARTBEAT = "HEARTBEAT"
    REKEY = "REKEY"
    REKEY_PROPOSE = "REKEY_PROPOSE"
    REKEY_ACCEPT = "REKEY_ACCEPT"
    CLOSE = "CLOSE"
    CONFIG = "CONFIG"
    CONFIG_PROPOSAL = "CONFIG_PROPOSAL"
    CONFIG_CONFIRM = "CONFIG_CONFIRM"
    ROLLBACK = "ROLLBACK"
    DISCOVER = "DISCOVER"
    PROBE = "PROBE"
    PROBE_ANSWER = "PROBE_ANSWER"
    EXCHANGE = "EXCHANGE"
    JOURNAL = "JOURNAL"
    JOURNAL_REQUEST = "JOURNAL_REQUEST"
    JOURNAL_ENTRIES = "JOURNAL_ENTRIES"
    INTEGRITY = "INTEGRITY"
    INTEGRITY_CHALLENGE = "INTEGRITY_CHALLENGE"
    INTEGRITY_ANSWER = "INTEGRITY_ANSWER"
    INTEGRITY_STATE = "INTEGRITY_STATE"
    ANNOUNCE = "ANNOUNCE"  # a datagram, not a packet


_REKEY_STAGE: Final = 4
_BY_STAGE: Final = {1: Kind.REKEY_PROPOSE, 2: Kind.REKEY_ACCEPT}
_BY_OP: Final = {1: Kind.INTEGRITY_CHALLENGE, 2: Kind.INTEGRITY_ANSWER, 3: Kind.INTEGRITY_STATE}
_CONFIG_FLAGS: Final = int(Flag.CONFIG_LOCKED | Flag.ROLLBACK_READY)


def kinds_of(header: Header, plaintext: bytes, established: bool) -> frozenset[Kind]:
    """Every kind that a packet is of; ``established`` says whether its session exists already."""
    try:
        type = Type(header.type)
    except ValueError:
        return frozenset({Kind.ANY})
    if type is Type.ACK and not established:
        return frozenset({Kind.ANY, Kind.HANDSHAKE_ACK})
    if type is Type.CLOSE and header.hmac == ZERO_HMAC:
        return frozenset({Kind.ANY, Kind.ADVISORY_CLOSE})
    found = {Kind.ANY, Kind(type.name)}
    if type is Type.DATA and header.flags & Flag.FRAGMENT:
        found |= {Kind.FRAGMENT, Kind.LAST_FRAGMENT} if header.flags & Flag.LAST_FRAG else {Kind.FRAGMENT}
    finer = _finer(type, header.flags, plaintext)
    if finer is not None:
        found.add(finer)
    return frozenset(found)


def _finer(type: Type, flags: int, plaintext: bytes) -> Kind | None:
    match type:
        case Type.ACK:
            if flags & _CONFIG_FLAGS:
                return Kind.CONFIG_ANSWER
            return Kind.VOID if flags & Flag.PRIORITY else None
        case Type.REKEY:
            return _BY_STAGE.get(plaintext[_REKEY_STAGE]) if len(plaintext) > _REKEY_STAGE else None
        case Type.CONFIG:
            return Kind.CONFIG_CONFIRM if flags & Flag.CONFIG_LOCKED else Kind.CONFIG_PROPOSAL
        case Type.DISCOVER:
            if flags & Flag.TELEMETRY:
                return Kind.EXCHANGE
            return Kind.PROBE if flags & Flag.REQUIRE_ACK else Kind.PROBE_ANSWER
        case Type.JOURNAL:
            return Kind.JOURNAL_ENTRIES if plaintext else Kind.JOURNAL_REQUEST
        case Type.INTEGRITY:
            return _BY_OP.get(plaintext[0]) if plaintext else None
    return None
