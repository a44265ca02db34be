# SPDX-License-Identifier: GPL-2.0-or-later
"""Every switch by name, and every requirement that no switch violates, with why."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from . import (
    administration,
    discovery,
    handshake,
    integrity,
    messages,
    protection,
    raw,
    rekey,
    silence,
)
from .conduct import Misbehaviour
from .model import Switch, Value

_TABLES: Final = (
    protection.PROTECTION,
    protection.HEADER,
    protection.SEQUENCE,
    handshake.KEYS,
    handshake.PAYLOADS,
    handshake.HEADERS,
    handshake.PACKETS,
    messages.MESSAGES,
    messages.FRAGMENTS,
    messages.HEARTBEATS,
    messages.ENDS,
    silence.SILENCE,
    discovery.MTU,
    discovery.EXCHANGE,
    discovery.ANNOUNCE,
    administration.CONFIG,
    administration.JOURNAL,
    rekey.REKEY,
    integrity.INTEGRITY,
    raw.RAW,
    (raw.SEQ_REUSED,),
)

SWITCHES: Final[dict[str, Switch]] = {
    switch.name: replace(switch, raw=raw.OVER_RAW.get(switch.name, switch.raw))
    for table in _TABLES
    for switch in table
}


def parse(text: str) -> tuple[Switch, dict[str, Value]]:
    """``NAME`` or ``NAME:k=v,k=v``; ValueError that says what would be right."""
    name, _, given = text.partition(":")
    switch = SWITCHES.get(name)
    if switch is None:
        raise ValueError(f"there is no misbehaviour {name!r}")
    pairs = dict(pair.partition("=")[::2] for pair in given.split(",") if pair)
    return switch, switch.values(pairs)


def misbehaviour(*texts: str) -> Misbehaviour:
    """What a node is told to do wrong, each as :func:`parse` reads it; ValueError."""
    return Misbehaviour(*(parse(text) for text in texts))


NOT_VIOLABLE: Final = {
    "WIRE-04": "neither payload_len on TCP nor the length of an IPv4 datagram can express more",
    "TRN-05": "which transports a node may open, and which it tries, is its own affair",
    "TRN-08": "whoever does not repeat INIT or RESPONSE only fails to get a session itself",
    "WIRE-07": "it is what every switch puts to the test: the violation would be the other side's",
    "KEY-03": "the lengths are arguments of a local call; they never come from a peer",
    "KEY-04": "which primitives a node has is its own affair; no packet selects one",
    "SEAL-08": "where random bytes come from does not show in a packet",
    "HS-05": "when a server changes its secret does not show to a client that is honest within 30 s",
    "HS-13": "what is left behind is inside the node that failed",
    "AUTH-01": "it states a weakness; there is nothing that a peer must or must not send",
    "AUTH-02": "it is a switch of the receiving node; sending what that node does not allow is no violation",
    "ADDR-03": "version 1 carries no static key that a node_id could contradict",
    "DATA-03": "the size of a receiver's buffer is a matter of its local interface",
    "DATA-04": "the receive queue is the receiver's; a sender may send as fast as the transport takes it",
    "FRAG-05": "it permits orders to senders and forbids none",
    "JRN-04": "what a node journals is inside it; what it tells of it is JRN-01 and JRN-03",
    "DISC-04": "it says how little an announce proves; there is nothing that a peer must or must not send",
    "CFG-06": "how a node protects its configuration against itself does not show to a peer",
    "ERR-01": "what a node counts and journals is inside it",
}
"""Requirements of sections 1 to 18 that no peer can violate towards a sound one, and why."""
