# SPDX-License-Identifier: GPL-2.0-or-later
"""The layers write what the test vectors expect, and read it back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scapy.compat import raw

import scapy_pool as sp
from poolproof.vectors import suite
from poolref.keys import Keys

Values = dict[str, Any]
CASES = suite.load()
hexed = bytes.fromhex


def address(given: Values) -> Any:
    return sp.PoolAddress(
        type_version=given["type_version"], org_id=int(given["org_id"]), segment_id=int(given["segment_id"]),
        node_id=int(given["node_id"]),
    )  # fmt: skip


def config(given: Values) -> Any:
    tail = sp.PoolConfig(bytes(88) + hexed(given["params"]))
    return sp.PoolConfig(
        version=given["version"], prev_version=given["prev_version"], prev_hash=hexed(given["prev_hash"]),
        timestamp=int(given["timestamp"]), deadline_ns=int(given["deadline_ns"]),
        **{name: getattr(tail, name) for name in (
            "puzzle_difficulty", "zero", "heartbeat_sec", "rekey_packets", "rekey_sec", "mtu_min", "mtu_max",
        )},
    )  # fmt: skip


def state(given: Values) -> Any:
    return sp.PoolIntegrityState(
        epoch=given["epoch"], seq_sent=int(given["seq_sent"]),
        highest_seq_received=int(given["highest_received"]), packets_sent=int(given["packets_sent"]),
        packets_received=int(given["packets_received"]), config_version=given["config_version"],
        journal_head=hexed(given["journal_head"]),
    )  # fmt: skip


def announce(given: Values) -> Any:
    return sp.PoolAnnounce(
        node_pubkey=hexed(given["pubkey"]), address=sp.PoolAddress(hexed(given["address"])),
        listen_port=given["port"], version=given["version"], flags=given["flags"],
        sessions=given["sessions"], uptime_s=given["uptime_s"],
    )  # fmt: skip


def peers(given: Values) -> Any:
    return sp.PoolPeers(
        peers=[
            sp.PoolPeer(ip=".".join(map(str, hexed(p["ip"]))), port=p["port"], pubkey=hexed(p["pubkey"]))
            for p in given["peers"]
        ]
    )


MAKE: dict[str, tuple[Callable[[Values], Any], str]] = {
    "address.encode": (address, "address"),
    "config.encode": (config, "plaintext"),
    "rekey.encode": (lambda v: sp.PoolRekey(**{**v, "pubkey": hexed(v["pubkey"])}), "plaintext"),
    "mtu.probe": (lambda v: sp.PoolProbe(probe_size=v["probe_size"]), "plaintext"),
    "mtu.answer": (lambda v: sp.PoolProbeAnswer(probe_size=v["probe_size"]), "plaintext"),
    "exchange.encode": (peers, "plaintext"),
    "announce.encode": (announce, "datagram"),
    "integrity.challenge": (lambda v: sp.PoolIntegrityChallenge(c=hexed(v["challenge"])), "plaintext"),
    "integrity.state": (state, "plaintext"),
}


@pytest.mark.parametrize("op", MAKE)
def test_built_as_the_vectors_say(op: str) -> None:
    make, name = MAKE[op]
    cases = [case for case in CASES if case.op == op]
    assert cases
    for case in cases:
        layer = make(case.input)
        assert raw(layer).hex() == case.expected[name], case.id
        assert raw(type(layer)(raw(layer))) == raw(layer), case.id


def test_telemetry() -> None:
    for case in CASES:
        if case.op == "telemetry.decode" and "drop" not in case.expected:
            read = sp.PoolHeartbeat(hexed(case.input["plaintext"]))
            assert {name: str(getattr(read, name)) for name in case.expected} == case.expected, case.id


def test_journals_are_read_and_written_again() -> None:
    cases = [case for case in CASES if case.op == "journal.encode_sync"]
    assert cases
    for case in cases:
        data = hexed(case.expected["plaintext"])
        read = sp.PoolJournal(data)
        assert [entry.detail.hex() for entry in read.entries] == [e["detail"] for e in case.input["entries"]]
        read.clear_cache()
        assert raw(read) == data


def test_packets_are_protected_as_the_vectors_say() -> None:
    cases = [case for case in CASES if case.op == "packet.protect"]
    assert cases
    for case in cases:
        header, plaintext = case.input["header"], hexed(case.input["plaintext"])
        packet = sp.Pool(
            type=header["type"], flags=header["flags"] | bool(plaintext), seq=int(header["seq"]),
            ack=int(header["ack"]), session_id=hexed(header["session_id"]), channel=header.get("channel", 0),
            timestamp=int(header["timestamp"]), keys=Keys(hexed(case.input["shared"])),
        ) / (sp.PoolData(plaintext) if plaintext else sp.PoolAck())  # fmt: skip
        assert raw(packet).hex() == case.expected["packet"], case.id


def test_packets_are_opened_as_the_vectors_say() -> None:
    verdicts = {"auth_fail": sp.Auth.BAD, "decrypt_fail": sp.Auth.BAD}
    seen = set()
    for case in CASES:
        if case.op != "packet.open":
            continue
        drop = case.expected.get("drop")
        packet = hexed(case.input["packet"])
        if drop in ("malformed", "version_mismatch"):
            continue
        read = sp.Pool(packet, keys=Keys(hexed(case.input["shared"])))
        expected = sp.Auth.OK if drop is None else verdicts[drop]
        assert read.auth is expected, case.id
        seen.add(read.auth)
        if read.auth is sp.Auth.OK:
            assert raw(read.payload).hex() == case.expected["plaintext"], case.id
        else:
            assert sp.PoolData not in read
    assert seen == {sp.Auth.OK, sp.Auth.BAD}
