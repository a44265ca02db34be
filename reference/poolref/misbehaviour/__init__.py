# SPDX-License-Identifier: GPL-2.0-or-later
"""Misbehaviour on demand: a peer that violates one requirement at a time.

    Node(misbehaviour=misbehaviour("bad-hmac:nth=3"))       a node
    tamper(SWITCHES["bad-tag"], packet, keys, Role.CLIENT)  a packet

:data:`SWITCHES` is all there is: each with the requirements that it violates, the roles and the phase in
which it shows, its parameters, and what a sound peer does about it.
"""

from .conduct import Misbehaviour, tamper
from .kinds import Kind
from .low_order import LOW_ORDER_POINTS
from .model import Parameter, Phase, Reaction, Switch
from .registry import NOT_VIOLABLE, SWITCHES, misbehaviour, parse

__all__ = [
    "LOW_ORDER_POINTS", "NOT_VIOLABLE", "SWITCHES", "Kind", "Misbehaviour", "Parameter", "Phase", "Reaction",
    "Switch", "misbehaviour", "parse", "tamper",
]  # fmt: skip
