# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of peers that a node knows of (DISC-02), all of them candidates only (DISC-04)."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from . import constants as c
from .errors import LocalError

if TYPE_CHECKING:
    from .core import Peer

NO_KEY: Final = bytes(c.KEY_SIZE)
"""In place of a public key that is not known."""
MAPPED: Final = bytes(10) + b"\xff\xff"
"""What an IPv4 address has before it to make 16 bytes."""
_MULTICAST: Final = 224
"""First byte of the first IPv4 address that is no host's."""


class Source(IntEnum):
    """How a peer came to be known; a higher one is closer to the fact."""

    EXCHANGE = 0
    ANNOUNCE = 1
    CONNECTED = 2
    STATIC = 3


@dataclass(slots=True)
class KnownPeer:
    """One entry; ``last_seen`` is ns of the node's clock, ``pubkey`` :data:`NO_KEY` while unknown."""

    peer: Peer
    pubkey: bytes
    source: Source
    last_seen: int


def plausible(peer: Peer) -> bool:
    """Whether somebody can be there: not port 0, nor an IPv4 address of nobody or of many (E-80)."""
    mapped = peer.ip.startswith(MAPPED)
    return peer.port != 0 and (not mapped or 0 < peer.ip[len(MAPPED)] < _MULTICAST)


class PeerTable:
    """At most 256 peers, keyed by (ip, port).

    What a peer tells of others (EXCHANGE) is hearsay: it neither renews nor displaces what this node itself
    saw, so a flood of it leaves the rest of the table alone (S07, E-81).
    """

    def __init__(self, limit: int = c.MAX_PEERS) -> None:
        self.own_key = NO_KEY
        """What this node announces itself with; NO_KEY while it does not."""
        self._limit = limit
        self._peers: dict[Peer, KnownPeer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer: object) -> bool:
        return peer in self._peers

    def __getitem__(self, peer: Peer) -> KnownPeer:
        """KeyError for an unknown one."""
        return self._peers[peer]

    def listed(self, now: int) -> tuple[KnownPeer, ...]:
        """Every entry, in the order in which they became known."""
        self.expire(now)
        return tuple(self._peers.values())

    def add_static(self, peer: Peer, now: int, pubkey: bytes = NO_KEY) -> None:
        """A peer that is never dropped; ENOSPC when static ones fill the table, EINVAL for another size of
        key.
        """
        if len(pubkey) != c.KEY_SIZE:
            raise LocalError(errno.EINVAL, f"a public key of {len(pubkey)} bytes")
        if not self.see(peer, pubkey, Source.STATIC, now):
            raise LocalError(errno.ENOSPC, f"the table is full: {self._limit} static peers")

    def see(self, peer: Peer, pubkey: bytes, source: Source, now: int) -> bool:
        """Enter or renew a peer; False when there is no room for it."""
        known = self._peers.get(peer)
        if known is None or _gone(known, now):
            self.expire(now)
            if len(self._peers) >= self._limit and not self._evict(source):
                return False
            self._peers[peer] = KnownPeer(peer, pubkey, source, now)
            return True
        if source >= known.source:
            known.source = source
            known.last_seen = now
            known.pubkey = pubkey if pubkey != NO_KEY else known.pubkey
        elif source is not Source.EXCHANGE:
            known.last_seen = now
        if known.pubkey == NO_KEY:
            known.pubkey = pubkey
        return True

    def forget(self, peer: Peer) -> None:
        """Drop a peer, static or not; nothing when it is unknown."""
        self._peers.pop(peer, None)

    def expire(self, now: int) -> None:
        """Drop what was unseen for 120 s and is not static."""
        for known in [known for known in self._peers.values() if _gone(known, now)]:
            del self._peers[known.peer]

    def _evict(self, source: Source) -> bool:
        """Make room for a peer of this source: the least recently seen one that may go."""
        highest = Source.EXCHANGE if source is Source.EXCHANGE else Source.CONNECTED
        candidates = [known for known in self._peers.values() if known.source <= highest]
        if not candidates:
            return False
        del self._peers[min(candidates, key=lambda known: known.last_seen).peer]
        return True


def _gone(known: KnownPeer, now: int) -> bool:
    return known.source is not Source.STATIC and now - known.last_seen >= c.PEER_LIFETIME
