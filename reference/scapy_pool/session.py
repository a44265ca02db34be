# SPDX-License-Identifier: GPL-2.0-or-later
"""A session for ``sniff`` and ``rdpcap``-like reading: whole POOL packets, whole messages."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from scapy.packet import Packet
from scapy.sessions import TCPSession

from poolref.constants import SECOND, Flag
from poolref.fragments import Reassembly
from poolref.inbox import Message
from poolref.wire import FragmentHeader

from .header import Pool
from .payloads import PoolData, PoolFragment


class PoolSession(TCPSession):
    """TCP streams re-framed into POOL packets, several in one segment stacked in one scapy packet; fragments
    are held back until their message is whole, which then stands in the place of the last of them.

    Only authentic fragments count; those that could not be decrypted pass through as they are.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._partial: dict[tuple[bytes, bool], Reassembly] = {}

    def process(self, pkt: Packet, cls: type[Packet] | None = None) -> Packet | None:
        whole = super().process(pkt, cls)
        if whole is None or Pool not in whole:
            return whole
        layer = whole[Pool]
        below = layer.underlayer
        kept = []
        now = int(whole.time * SECOND)
        while isinstance(layer, Pool):
            following: Any = layer.payload.getlayer(Pool)
            if following is not None:
                following.underlayer.remove_payload()
            complete = self._reassembled(layer, now)
            if complete is not None:
                kept.append(complete)
            layer = following
        if not kept:
            return None
        for upper, lower in pairwise(kept):
            upper.lastlayer().add_payload(lower)
        if below is None:
            return kept[0]
        below.remove_payload()
        below.add_payload(kept[0])
        return whole

    def _reassembled(self, packet: Pool, now: int) -> Pool | None:
        """The packet itself, one with the whole message, or None while fragments are missing."""
        fragment = packet.payload
        if not isinstance(fragment, PoolFragment):  # without a good tag it would be PoolSealed
            return packet
        direction = (packet.session_id, packet.seq >= 1 << 62)
        reassembly = self._partial.setdefault(direction, Reassembly())
        reassembly.expire(now)
        result = reassembly.add(
            FragmentHeader(fragment.msg_id, fragment.offset, fragment.total_len),
            fragment.data,
            packet.channel,
            bool(packet.flags & Flag.LAST_FRAG),
            now,
        )
        if not isinstance(result, Message):
            return None
        message = packet.copy()
        message.remove_payload()
        message.flags = int(packet.flags) & ~int(Flag.FRAGMENT | Flag.LAST_FRAG)
        del message.payload_len, message.hmac
        return message / PoolData(result.data)  # type: ignore[no-any-return]
