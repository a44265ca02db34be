# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's misbehaviour on scapy packets: one requirement violated at a time, by the switch's name.

``poolref.misbehaviour.SWITCHES`` lists them; a switch is written ``NAME`` or ``NAME:k=v,k=v``.
"""

from __future__ import annotations

from typing import Final

from scapy.packet import Packet, Raw

from poolref.constants import HEADER_SIZE, SEQ_RANGE, Role, Type
from poolref.keys import Keys
from poolref.misbehaviour import parse, tamper
from poolref.wire import packet_size

from .connection import PoolConnection
from .header import Pool
from .keyring import keyring

_SERVER_SEQ: Final = SEQ_RANGE[Role.SERVER][0]
_OPENING: Final = (Type.INIT, Type.CHALLENGE, Type.RESPONSE)


def misbehave(
    packet: Pool, switch: str, *, heard: bytes = b"", established: bool | None = None
) -> list[Packet]:
    """What a switch makes of a sound packet: Pool packets, or Raw where the bytes are no whole one.

    Its own keys, or those of the key ring, open it; without them, and where the switch is not about packets
    of its kind, it is returned as it is.  ``heard`` is the last packet of the other side, which some switches
    send back; ``established`` tells an ACK of a session from the handshake's.  ValueError for a switch that
    does not exist.
    """
    what, values = parse(switch)
    if established is None:
        established = packet.type not in _OPENING
    role = Role.SERVER if packet.type == Type.CHALLENGE or packet.seq >= _SERVER_SEQ else Role.CLIENT
    keys = packet.keys if isinstance(packet.keys, Keys) else next(iter(keyring.find(packet.session_id)), None)
    wrong = tamper(
        what, bytes(packet), keys, role=role, established=established, heard=heard,
        **{name: str(value) for name, value in values.items()},
    )  # fmt: skip
    return [_dissected(each, keys) for each in wrong]


def send_wrong(
    connection: PoolConnection, payload: Packet | bytes, switch: str, *, heard: bytes = b""
) -> list[Packet]:
    """Send a packet of a session as a switch makes it; what was sent.  Nothing of it is ever sent again."""
    packets = misbehave(connection.make(payload), switch, heard=heard)
    for packet in packets:
        connection.send_again(bytes(packet))
    return packets


def _dissected(data: bytes, keys: Keys | None) -> Packet:
    if len(data) < HEADER_SIZE or packet_size(data) != len(data):
        return Raw(data)
    packet: Pool = Pool(data, keys=keys)
    return packet
