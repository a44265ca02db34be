# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference's answers about MTU probes, announces and the peer exchange."""

from __future__ import annotations

import os
from collections.abc import Callable

from poolref import mtu
from poolref.core import NodeCore, Peer
from poolref.counters import DropReason
from poolref.discovery import Announce, Announcer
from poolref.errors import DecodeError
from poolref.exchange import Told, pack_exchange, room, unpack_exchange
from poolref.settings import Settings

from .reference_values import Values, drop, raw

_SOMEBODY = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])


def mtu_probe(given: Values) -> Values:
    return {"plaintext": mtu.probe(given["probe_size"]).hex()}


def mtu_answer(given: Values) -> Values:
    return {"plaintext": mtu.answer(given["probe_size"]).hex()}


def mtu_read_probe(given: Values) -> Values:
    try:
        return {"probe_size": mtu.parse_probe(raw(given["plaintext"]))}
    except DecodeError:
        return drop(DropReason.MALFORMED)


def mtu_search(given: Values) -> Values:
    search = mtu.Search(given["mtu_min"], given["mtu_max"])
    probes = []
    while (size := search.size) is not None:
        probes.append(size)
        (search.passed if size <= given["path"] else search.failed)()
    return {"probes": probes, "mtu": search.low}


def exchange_encode(given: Values) -> Values:
    peers = [Told(raw(peer["ip"]), peer["port"], raw(peer["pubkey"])) for peer in given["peers"]]
    return {"plaintext": pack_exchange(peers).hex()}


def exchange_decode(given: Values) -> Values:
    try:
        peers = unpack_exchange(raw(given["plaintext"]))
    except DecodeError:
        return drop(DropReason.MALFORMED)
    return {
        "peers": [{"ip": told.ip.hex(), "port": told.port, "pubkey": told.pubkey.hex()} for told in peers]
    }


def exchange_room(given: Values) -> Values:
    return {"entries": room(given["mtu"])}


def announce_encode(given: Values) -> Values:
    announce = Announce(
        raw(given["pubkey"]), raw(given["address"]), given["port"], given["version"], given["flags"],
        given["sessions"], given["uptime_s"],
    )  # fmt: skip
    return {"datagram": announce.pack().hex()}


def announce_decode(given: Values) -> Values:
    """What a node with this key makes of a datagram: ignored unless its sender gets into the table."""
    core = NodeCore(Settings(), os.urandom, lambda: 0)
    core.peers.own_key = raw(given["own_pubkey"])
    datagram = raw(given["datagram"])
    Announcer(core, 0).receive(datagram, _SOMEBODY, 0)
    if not len(core.peers):
        return {"ignored": True}
    announce = Announce.unpack(datagram)
    known = core.peers[Peer(_SOMEBODY, announce.port)]
    return {
        "pubkey": known.pubkey.hex(), "address": announce.address.hex(), "port": known.peer.port,
        "version": announce.version, "flags": announce.flags, "sessions": announce.sessions,
        "uptime_s": announce.uptime_s,
    }  # fmt: skip


OPERATIONS: dict[str, Callable[[Values], Values]] = {
    "mtu.probe": mtu_probe,
    "mtu.answer": mtu_answer,
    "mtu.read_probe": mtu_read_probe,
    "mtu.search": mtu_search,
    "exchange.encode": exchange_encode,
    "exchange.decode": exchange_decode,
    "exchange.room": exchange_room,
    "announce.encode": announce_encode,
    "announce.decode": announce_decode,
}
