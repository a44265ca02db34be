# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about what is not sent, or too late (sections 7, 8, 12 to 16)."""

from __future__ import annotations

import errno
from typing import Final

from ..constants import (
    ACK_TIMEOUT,
    CHALLENGE_TIMEOUT,
    DEAD_PEER,
    INIT_TIMEOUT,
    RESPONSE_TIMEOUT,
    SECOND,
    Role,
)
from .kinds import Kind
from .model import ALL, CLIENT, NTH, SERVER, Deed, Draft, Parameter, Phase, Reaction, Switch, of_kind


def _nothing(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


def _itself(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet]


_PACE: Final = Parameter("ms", 100, "between two bytes", 1, 60_000)

SILENCE: Final = (
    Switch(
        "silent-init", ("HS-09",), "A client connects and says nothing.",
        Phase.HANDSHAKE, Reaction(gives_up=True, after_s=INIT_TIMEOUT / SECOND), roles=CLIENT,
        kinds=(Kind.INIT,), emit=_nothing,
    ),
    Switch(
        "silent-challenge", ("HS-09",), "A server does not answer INIT.",
        Phase.HANDSHAKE, Reaction(error=errno.ETIMEDOUT, after_s=CHALLENGE_TIMEOUT / SECOND), roles=SERVER,
        kinds=(Kind.CHALLENGE,), emit=_nothing,
    ),
    Switch(
        "silent-response", ("HS-09",), "A client does not answer CHALLENGE.",
        Phase.HANDSHAKE, Reaction(gives_up=True, after_s=RESPONSE_TIMEOUT / SECOND), roles=CLIENT,
        kinds=(Kind.RESPONSE,), emit=_nothing,
    ),
    Switch(
        "silent-handshake-ack", ("HS-09", "SEQ-03"), "A server does not answer RESPONSE.",
        Phase.HANDSHAKE, Reaction(error=errno.ETIMEDOUT, after_s=ACK_TIMEOUT / SECOND), roles=SERVER,
        kinds=(Kind.HANDSHAKE_ACK,), emit=_nothing,
    ),
    Switch(
        "silent-ack", ("SEQ-05",), "What asks for an ACK gets none.",
        Phase.DATA, Reaction(delivers=True), kinds=(Kind.ACK,), parameters=(ALL,), emit=_nothing,
    ),
    Switch(
        "silent-heartbeat", ("HB-01",), "No HEARTBEAT is sent.",
        Phase.HEARTBEAT, Reaction(), kinds=(Kind.HEARTBEAT,), parameters=(ALL,), emit=_nothing,
    ),
    Switch(
        "mute", ("HB-02",), "Once there is a session, nothing more is sent.",
        Phase.HEARTBEAT, Reaction(ends="dead_peer", after_s=DEAD_PEER / SECOND),
        parameters=(of_kind(Kind.ANY), NTH, ALL), emit=_nothing,
    ),
    Switch(
        "late-ack", ("SEQ-05",), "ACKs leave too late.",
        Phase.DATA, Reaction(delivers=True), kinds=(Kind.ACK,), emit=_itself, delay_ms="ms",
        parameters=(ALL, Parameter("ms", 500, "how late", 1, 3_600_000)),
    ),
    Switch(
        "late", ("SEQ-02",), "Packets leave late, behind those that were made after them.",
        Phase.DATA, Reaction(delivers=True), emit=_itself, delay_ms="ms",
        parameters=(
            of_kind(Kind.DATA), NTH, Parameter("every", 0, "1: all that follow, too", 0, 1),
            Parameter("ms", 500, "how late", 1, 3_600_000),
        ),
    ),
    Switch(
        "slow-bytes", ("HS-09",), "The stream comes byte by byte.",
        Phase.HANDSHAKE,
        {
            Role.CLIENT: Reaction(gives_up=True, after_s=INIT_TIMEOUT / SECOND),
            Role.SERVER: Reaction(error=errno.ETIMEDOUT, after_s=CHALLENGE_TIMEOUT / SECOND),
        },
        kinds=(Kind.ANY,), parameters=(_PACE, ALL), emit=_itself, pace_ms="ms",
    ),
)  # fmt: skip
