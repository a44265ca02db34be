# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference behind the JSON lines of spec/vectors/README.md.

Every answer is computed by poolref.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from poolref import crypto, puzzle, wire
from poolref.address import Address, node_id_of
from poolref.constants import FRAGMENT_HEADER_SIZE, FRAGMENT_OVERHEAD, Role
from poolref.counters import DropReason
from poolref.errors import DecodeError, LocalError, LowOrderKey
from poolref.fragments import Reassembly, split
from poolref.inbox import Message
from poolref.keys import Keys
from poolref.replay import ReplayWindow
from poolref.telemetry import RoundTrip

from . import (
    reference_discovery,
    reference_handshake,
    reference_raw,
    reference_records,
    reference_secrets,
)
from .reference_values import HEADER_FIELDS, Values, drop, established, header_of, raw, u64

Operation = Callable[[Values], Values]


def header_pack(given: Values) -> Values:
    return {"header": header_of(given).pack().hex()}


def packet_parse(given: Values) -> Values:
    try:
        header = wire.parse(raw(given["packet"]))
    except DecodeError:
        return drop(DropReason.MALFORMED)
    reason = wire.check(header)
    if reason is not None:
        return drop(reason)
    values = {name: getattr(header, name) for name in HEADER_FIELDS}
    for name in ("session_id", "hmac"):
        values[name] = values[name].hex()
    return {"header": {**values, **{name: str(values[name]) for name in ("seq", "ack", "timestamp")}}}


def x25519(given: Values) -> Values:
    try:
        return {"shared": crypto.exchange(raw(given["private"]), raw(given["public"])).hex()}
    except LowOrderKey:
        return drop(DropReason.LOW_ORDER_KEY)


def x25519_public(given: Values) -> Values:
    return {"public": crypto.public_key(raw(given["private"])).hex()}


def hkdf(given: Values) -> Values:
    try:
        return {"okm": crypto.hkdf(raw(given["ikm"]), raw(given["info"]), given["length"]).hex()}
    except LocalError:
        return {"refused": True}


def keys_derive(given: Values) -> Values:
    keys = Keys(raw(given["shared"]))
    return {name: bytes(getattr(keys, name)).hex() for name in ("session_key", "hmac_key", "seq_key")}


def nonce(given: Values) -> Values:
    return {"nonce": Keys(raw(given["shared"])).nonce(u64(given["seq"])).hex()}


def packet_protect(given: Values) -> Values:
    keys = Keys(raw(given["shared"]))
    return {"packet": keys.protect(header_of(given["header"]), raw(given["plaintext"])).hex()}


def packet_open(given: Values) -> Values:
    packet = raw(given["packet"])
    keys = Keys(raw(given["shared"]))
    try:
        header = wire.parse(packet)
    except DecodeError:
        return drop(DropReason.MALFORMED)
    reason = wire.check(header)
    if reason is not None:
        return drop(reason)
    if not keys.authentic(packet):
        return drop(DropReason.AUTH_FAIL)
    plaintext = keys.open(header.seq, packet[wire.struct_of("header").size :])
    return drop(DropReason.DECRYPT_FAIL) if plaintext is None else {"plaintext": plaintext.hex()}


def puzzle_verify(given: Values) -> Values:
    return {"holds": puzzle.solves(raw(given["seed"]), raw(given["solution"]), given["difficulty"])}


def _address(address: Address) -> Values:
    return {
        "type_version": address.type_version,
        "org_id": str(address.org_id),
        "segment_id": str(address.segment_id),
        "node_id": str(address.node_id),
    }


def address_node_id(given: Values) -> Values:
    return {"node_id": str(node_id_of(raw(given["static_pubkey"])))}


def address_encode(given: Values) -> Values:
    address = Address(
        given["type_version"], u64(given["org_id"]), u64(given["segment_id"]), u64(given["node_id"])
    )
    return {"address": address.pack().hex(), "text": str(address)}


def address_decode(given: Values) -> Values:
    try:
        return _address(Address.unpack(raw(given["address"])))
    except DecodeError:
        return drop(DropReason.MALFORMED)


def address_parse_text(given: Values) -> Values:
    try:
        return _address(Address.parse(given["text"]))
    except DecodeError:
        return {"refused": True}


def replay(given: Values) -> Values:
    window = ReplayWindow(u64(given["initial"]))
    fresh = []
    for seq in map(u64, given["seqs"]):
        fresh.append(window.fresh(seq))
        if fresh[-1]:
            window.commit(seq)
    return {
        "fresh": fresh,
        "highest": str(window.highest),
        "lost": str(window.lost),
        "loss_rate_ppm": window.loss_ppm,
    }


def fragment_split(given: Values) -> Values:
    pieces = split(raw(given["message"]), given["msg_id"], given["mtu"] - FRAGMENT_OVERHEAD)
    return {"fragments": [{"plaintext": plaintext.hex(), "flags": flags} for plaintext, flags in pieces]}


def fragment_reassemble(given: Values) -> Values:
    reassembly = Reassembly()
    outcomes, messages = [], []
    for part in given["fragments"]:
        plaintext, now = raw(part["plaintext"]), u64(part["at_ns"])
        reassembly.expire(now)
        try:
            header = wire.FragmentHeader.unpack_from(plaintext)
        except DecodeError:
            outcomes.append(str(DropReason.MALFORMED))
            continue
        chunk = plaintext[FRAGMENT_HEADER_SIZE:]
        result = reassembly.add(header, chunk, part["channel"], part["last"], now)
        if isinstance(result, Message):
            messages.append({"channel": result.channel, "data": result.data.hex()})
            outcomes.append("accepted")
        else:
            outcomes.append(str(result))
    return {"outcomes": outcomes, "messages": messages}


def session_receive(given: Values) -> Values:
    own, peer = u64(given["own_initial_seq"]), u64(given["peer_initial_seq"])
    role = Role[given["role"].upper()]
    session = established(role, raw(given["session_id"]), Keys(raw(given["shared"])), own, peer)
    for channel in given["subscribed"]:
        session.subscriptions.subscribe(channel)
    outcomes = [str(session.receive_packet(raw(packet), 0)) for packet in given["packets"]]
    messages = []
    while (message := session.take()) is not None:
        messages.append({"channel": message.channel, "data": message.data.hex()})
    end = session.end
    return {
        "outcomes": outcomes,
        "messages": messages,
        "ended": None if end is None else {"by_peer": end.cause == "closed", "code": end.code},
        "bad_acks": session.counters[DropReason.BAD_ACK],
    }


def telemetry_encode(given: Values) -> Values:
    values = {name: u64(value) for name, value in given.items()}
    return {"plaintext": wire.Telemetry(**values).pack().hex()}


def telemetry_decode(given: Values) -> Values:
    try:
        report = wire.Telemetry.unpack(raw(given["plaintext"]))
    except DecodeError:
        return drop(DropReason.MALFORMED)
    return {field.name: str(getattr(report, field.name)) for field in wire.FIELDS["telemetry"]}


def telemetry_round_trip(given: Values) -> Values:
    estimate = RoundTrip()
    for number, sample in enumerate(map(u64, given["samples_ns"])):
        estimate.sent(number, 0)
        estimate.acknowledged(number, sample)
    return {"srtt_ns": str(estimate.srtt), "jitter_ns": str(estimate.jitter)}


OPERATIONS: dict[str, Operation] = {
    "header.pack": header_pack,
    "packet.parse": packet_parse,
    "x25519": x25519,
    "x25519.public": x25519_public,
    "hkdf": hkdf,
    "keys.derive": keys_derive,
    "nonce": nonce,
    "packet.protect": packet_protect,
    "packet.open": packet_open,
    "puzzle.verify": puzzle_verify,
    "address.node_id": address_node_id,
    "address.encode": address_encode,
    "address.decode": address_decode,
    "address.parse_text": address_parse_text,
    "replay": replay,
    "fragment.split": fragment_split,
    "fragment.reassemble": fragment_reassemble,
    "session.receive": session_receive,
    "telemetry.encode": telemetry_encode,
    "telemetry.decode": telemetry_decode,
    "telemetry.round_trip": telemetry_round_trip,
    **reference_handshake.OPERATIONS,
    **reference_discovery.OPERATIONS,
    **reference_records.OPERATIONS,
    **reference_raw.OPERATIONS,
    **reference_secrets.OPERATIONS,
}


def answer(request: Values) -> Values:
    """The reply to one request; what goes wrong in the reference is an ``error`` of that case alone."""
    operation = OPERATIONS.get(request["op"])
    reply: Values = {"id": request["id"]}
    if operation is None:
        return {**reply, "unsupported": True}
    try:
        return {**reply, "result": operation(request["input"])}
    except Exception as error:
        return {**reply, "error": f"{type(error).__name__}: {error}"}


def main() -> None:
    for line in sys.stdin:
        reply: Any = answer(json.loads(line))
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
