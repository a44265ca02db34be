# SPDX-License-Identifier: GPL-2.0-or-later
"""Vectors of sections 13 to 18: rekey, configuration, journal, exchange and announce, integrity."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from casework import U64, Area, Values, drop, filler, flip
from derivations import (
    SECOND,
    Config,
    Entry,
    Params,
    announce,
    chain,
    config_hash,
    exchange,
    integrity_answer,
    integrity_keys,
    journal_sync,
    public,
    rekey_plaintext,
    rekeyed,
)
from derive import LOW_ORDER, address, hkdf, session_keys, x25519


def rekey() -> Area:
    area = Area("rekey", "Key replacement (section 13)")
    shared = filler("rekey shared", 32)
    for number in range(6):
        private, peer = filler(f"rekey {number}", 32), public(filler(f"rekey peer {number}", 32))
        fresh = rekeyed(shared, x25519(private, peer))
        session_key, hmac_key = session_keys(fresh)
        area.case(
            f"derive-{number}", "rekey.derive", "RK-02 KEY-02", "valid",
            {"old_shared": shared, "private": private, "public": peer},
            {
                "shared": fresh, "session_key": session_key, "hmac_key": hmac_key,
                "seq_key": hkdf(fresh, b"pool-seq-key", 32),
            },
        )  # fmt: skip
        shared = fresh  # one epoch after the other
    for number, point in enumerate(LOW_ORDER):
        given = {"old_shared": shared, "private": filler("rekey 0", 32), "public": point}
        expected = {"close": 7}
        area.case(f"low-order-{number}", "rekey.derive", "RK-03 KEY-01", "low_order", given, expected)
    key = public(filler("rekey 0", 32))
    for epoch, stage in ((1, 1), (1, 2), (2, 1), (2**32 - 1, 2)):
        fields = {"epoch": epoch, "stage": stage, "pubkey": key}
        flags = "edge" if epoch > 2 else "valid"
        given = {"plaintext": rekey_plaintext(epoch, stage, key)}
        slug = f"{epoch}-{stage}"
        area.case(f"encode-{slug}", "rekey.encode", "RK-01", flags, fields, given)
        area.case(f"decode-{slug}", "rekey.decode", "RK-01", flags, given, fields)
    good = rekey_plaintext(1, 1, key)
    for size in (0, 8, 39, 41):
        given = {"plaintext": (good + b"\0")[:size]}
        flags = "truncated" if size < 40 else "oversized"
        area.case(f"size-{size}", "rekey.decode", "RK-01", flags, given, drop("malformed"))
    for stage in (0, 3, 255):
        given = {"plaintext": rekey_plaintext(1, stage, key)}
        area.case(f"stage-{stage}", "rekey.decode", "RK-01", "reserved", given, drop("malformed"))
    for byte in (5, 6, 7):
        given = {"plaintext": flip(good, 8 * byte + 7)}
        area.case(f"zero-byte-{byte}", "rekey.decode", "RK-01", "reserved", given, drop("malformed"))
    a, b = b"\x01" + bytes(31), bytes(31) + b"\xff"
    for name, mine, theirs, wins in (
        ("first-byte", a, b, False),
        ("first-byte-turned", b, a, True),
        ("last-byte", b, bytes(31) + b"\xfe", False),
        ("unsigned", b"\x7f" + bytes(31), b"\x80" + bytes(31), True),
        ("big-endian", bytes(31) + b"\x01", a, True),
    ):
        given = {"own_pubkey": mine, "peer_pubkey": theirs}
        area.case(f"tie-{name}", "rekey.tie", "RK-03", "valid", given, {"own_wins": wins})
    given = {"own_pubkey": key, "peer_pubkey": key}
    area.case("tie-equal", "rekey.tie", "RK-03", "contradiction", given, {"close": 7})
    return area


def config() -> Area:
    area = Area("config", "Configurations and their hashes (section 14)")
    for number, params in enumerate(
        [Params(), Params(20, 30, 2**10, 10, 1400, 1400), Params(17, 1, 2**20, 600, 576, 1280)]
    ):
        for version in (1, 2, 2**32 - 1):
            given = {"version": version, "params": params.pack()}
            result = {"hash": config_hash(version, params.pack())}
            flags = "edge" if version > 2 else "valid"
            area.case(f"hash-{number}-{version}", "config.hash", "CFG-01", flags, given, result)
    first = Config()
    second = Config(
        2, 1, first.hash, first.timestamp + SECOND, 50_000_000, Params(20, 1, 2**10, 10, 512, 512)
    )
    for name, sent in (("first", first), ("second", second)):
        fields = {
            "version": sent.version,
            "prev_version": sent.prev_version,
            "prev_hash": sent.prev_hash,
            "timestamp": U64(sent.timestamp),
            "deadline_ns": U64(sent.deadline_ns),
            "params": sent.params.pack(),
        }
        result = {"plaintext": sent.pack()}
        area.case(f"encode-{name}", "config.encode", "CFG-01", "valid", fields, result)
    now = {"version": 0, "hash": bytes(32)}
    then = {"version": 1, "hash": first.hash}

    def judge(slug: str, flags: str, current: Values, plaintext: bytes, accepted: bool) -> None:
        result = {"accepted": True} if accepted else drop("config_reject")
        given = {"current": current, "plaintext": plaintext}
        area.case(f"judge-{slug}", "config.judge", "CFG-01", flags, given, result)

    judge("first", "valid", now, first.pack(), True)
    judge("second", "valid", then, second.pack(), True)
    judge("version-jump", "valid", now, replace(first, version=9).pack(), True)
    judge("again", "replayed", then, first.pack(), False)
    judge(
        "older-version", "stale", {"version": 5, "hash": first.hash}, Config(4, 5, first.hash).pack(), False
    )
    judge("prev-version", "contradiction", then, replace(second, prev_version=0).pack(), False)
    judge("prev-hash", "contradiction", then, replace(second, prev_hash=bytes(32)).pack(), False)
    judge("first-prev-hash", "contradiction", now, replace(first, prev_hash=filler("h", 32)).pack(), False)
    for bit in (8 * 8, 40 * 8 - 1):
        judge(f"hash-bit-{bit}", "tampered", now, flip(first.pack(), bit), False)
    judge("params-without-hash", "tampered", now, flip(first.pack(), 91 * 8 + 7), False)
    middle = Params(18, 7, 2**20, 600, 600, 1300)
    ranges = {
        "puzzle_difficulty": (16, 20, 255),
        "heartbeat_sec": (1, 30, 65535),
        "rekey_packets": (2**10, 2**28, 2**32 - 1),
        "rekey_sec": (10, 3600, 2**32 - 1),
    }
    for name, (low, high, top) in ranges.items():
        values = {low: True, high: True, low - 1: False, high + 1: False, 0: False, top: False}
        for value, fits in values.items():
            proposal = replace(first, params=replace(middle, **{name: value})).pack()
            judge(f"{name}-{value}", "edge" if fits else "beyond", now, proposal, fits)
    for low, high, fits in (
        (512, 1400, True), (512, 512, True), (1400, 1400, True), (511, 1400, False), (512, 1401, False),
        (1400, 512, False), (1000, 999, False), (0, 0, False),
    ):  # fmt: skip
        params = replace(middle, mtu_min=low, mtu_max=high)
        judge(
            f"mtu-{low}-{high}", "edge" if fits else "beyond", now, replace(first, params=params).pack(), fits
        )
    for size in (0, 103, 105):
        judge(f"size-{size}", "wrong_size", now, (first.pack() + b"\0")[:size], False)
    for name, deadline, fits in (
        ("50ms", 50_000_000, True), ("below-50ms", 50_000_000 - 1, False), ("zero", 0, False),
        ("1h", 3600 * SECOND, True), ("over-1h", 3600 * SECOND + 1, False), ("max", 2**64 - 1, False),
    ):  # fmt: skip
        proposal = replace(first, deadline_ns=deadline).pack()
        judge(f"deadline-{name}", "edge" if fits else "beyond", now, proposal, fits)
    judge("zero-byte", "reserved", now, replace(first, params=replace(middle, zero=1)).pack(), False)
    judge("timestamp-is-not-looked-at", "stale", now, replace(first, timestamp=0).pack(), True)
    return area


WALL = 1_700_000_000 * SECOND
ENTRIES = [
    Entry(WALL, 0, 0, 1, b"connect 192.0.2.7:9253"),
    Entry(WALL + SECOND, 0, 1, 3, "proposer 192.0.2.7, Größe".encode()),
    Entry(WALL + 2 * SECOND, 1, 1, 4, b""),
    Entry(WALL + 3 * SECOND, 1, 1, 5, b"0x01 192.0.2.7 bad hmac"),
    Entry(2**64 - 1, 2**32 - 1, 2**32 - 1, 7, b"x" * 256),
    Entry(WALL + 4 * SECOND, 1, 0, 2, b"closed"),
]


def fields(entry: Entry) -> Values:
    return {
        "timestamp": U64(entry.timestamp), "config_before": entry.config_before,
        "config_after": entry.config_after, "change_type": entry.change_type, "detail": entry.detail,
    }  # fmt: skip


def journal() -> Area:
    given: Values
    result: Values
    area = Area("journal", "The journal's hash chain and its replication (section 17)")
    zero = bytes(32)
    for number, entry in enumerate(ENTRIES):
        for name, previous in (("first", zero), ("later", filler("previous", 32))):
            given = {"previous_hash": previous, "entry": fields(entry)}
            flags = "edge" if len(entry.detail) in (0, 256) else "valid"
            change = entry.change_hash(previous)
            area.case(
                f"hash-{number}-{name}", "journal.hash", "JRN-01", flags, given, {"change_hash": change}
            )
            result = {"entry": entry.pack(change)}
            area.case(f"entry-{number}-{name}", "journal.encode_entry", "JRN-01", flags, given, result)
    for count in (1, 2, 3, 6):
        given = {"previous_hash": zero, "entries": [fields(e) for e in ENTRIES[:count]]}
        result = {"change_hashes": chain(zero, ENTRIES[:count])}
        area.case(f"chain-{count}", "journal.chain", "JRN-01", "valid", given, result)
    for first, previous, count in (
        (0, zero, 1),
        (0, zero, 6),
        (2**64 - 6, filler("kept", 32), 3),
        (7, zero, 0),
    ):
        plaintext = journal_sync(first, previous, ENTRIES[:count])
        given = {
            "first_index": U64(first),
            "previous_hash": previous,
            "entries": [fields(e) for e in ENTRIES[:count]],
        }
        slug, flags = f"{first}-{count}", "edge" if not count or first > 9 else "valid"
        area.case(f"sync-{slug}", "journal.encode_sync", "JRN-03", flags, given, {"plaintext": plaintext})
        result = {"first_index": U64(first), "count": count, "chain": "holds"}
        given = {"plaintext": plaintext}
        area.case(f"verify-{slug}", "journal.verify_sync", "JRN-03 JRN-01", flags, given, result)
    good = journal_sync(0, zero, ENTRIES[:3])
    second = 42 + len(ENTRIES[0].pack(zero))
    places = {
        "previous": 8 * 8,
        "timestamp": 42 * 8,
        "before": 50 * 8,
        "after": 54 * 8,
        "hash": 58 * 8,
        "type": 91 * 8 + 7,
        "detail": 94 * 8,
        "second-hash": (second + 16) * 8,
        "last-hash": len(good) * 8 - 40,
    }
    for name, bit in places.items():
        given = {"plaintext": flip(good, bit)}
        result = {"first_index": U64(0), "count": 3, "chain": "broken"}
        area.case(f"broken-{name}", "journal.verify_sync", "JRN-01 JRN-03", "tampered", given, result)
    a, b = (e.pack(h) for e, h in zip(ENTRIES[:2], chain(zero, ENTRIES[:2]), strict=True))
    swapped, dropped = good[:42] + b + a, good[:40] + b"\0\1" + b
    for name, plaintext, count in (("swapped", swapped, 2), ("first-missing", dropped, 1)):
        if name == "swapped":
            plaintext = good[:40] + b"\0\2" + plaintext[42:]
        result = {"first_index": U64(0), "count": count, "chain": "broken"}
        given = {"plaintext": plaintext}
        area.case(f"broken-{name}", "journal.verify_sync", "JRN-01 JRN-03", "contradiction", given, result)
    journal_shapes(area, good)
    return area


def journal_shapes(area: Area, good: bytes) -> None:
    """E-55, E-79: what is no JOURNAL packet at all, and what is one."""
    zero = bytes(32)

    def case(slug: str, flags: str, plaintext: bytes, result: Values) -> None:
        given = {"plaintext": plaintext}
        area.case(f"shape-{slug}", "journal.verify_sync", "JRN-03", flags, given, result)

    for name, flags, plaintext in (
        ("head-cut", "truncated", good[:41]), ("entry-cut", "truncated", good[:-1]),
        ("one-byte-more", "oversized", good + b"\0"), ("count-above", "wrong_size", _count(good, 4)),
        ("count-below", "wrong_size", _count(good, 2)), ("count-zero", "wrong_size", _count(good, 0)),
        ("detail-257", "beyond", journal_sync(0, zero, [replace(ENTRIES[0], detail=b"x" * 257)])),
        ("beyond-64-bits", "beyond", journal_sync(2**64 - 1, zero, ENTRIES[:1])),
    ):  # fmt: skip
        case(name, flags, plaintext, drop("malformed"))
    for kind in (0, 6, 8, 65535):
        entries = [replace(ENTRIES[0], change_type=kind)]
        result = {"first_index": U64(5), "count": 1, "chain": "holds"}
        case(f"change-type-{kind}", "valid", journal_sync(5, zero, entries), result)
    result = {"first_index": U64(0), "count": 1, "chain": "broken"}
    case("first-not-from-zero", "contradiction", journal_sync(0, filler("h", 32), ENTRIES[:1]), result)


def _count(plaintext: bytes, count: int) -> bytes:
    return plaintext[:40] + struct.pack(">H", count) + plaintext[42:]


PEERS = [(bytes([192, 0, 2, n]), 9253 + n, filler(f"peer {n}", 32)) for n in range(35)]


def discovery() -> Area:
    given: Values
    area = Area("discovery", "Peer exchange and multicast announces (section 18)")
    for count in (0, 1, 2, 34):
        rows = [{"ip": ip, "port": port, "pubkey": key} for ip, port, key in PEERS[:count]]
        wire = {"plaintext": exchange(PEERS[:count])}
        flags = "edge" if count in (0, 34) else "valid"
        area.case(f"exchange-encode-{count}", "exchange.encode", "DISC-03", flags, {"peers": rows}, wire)
        area.case(f"exchange-decode-{count}", "exchange.decode", "DISC-03", flags, wire, {"peers": rows})
    body = exchange(PEERS[:2])
    for name, plaintext in {
        "count-above": b"\0\3" + body[2:],
        "count-below": b"\0\1" + body[2:],
        "count-max": b"\xff\xff" + body[2:],
        "count-little-endian": b"\2\0" + body[2:],
        "count-zero": b"\0\0" + body[2:],
        "truncated": body[:-1],
        "one-byte-more": body + b"\0",
        "half": body[: 2 + 38 + 19],
        "empty": b"",
        "half-a-count": b"\0",
        "35-entries": exchange(PEERS[:35]),
    }.items():
        given = {"plaintext": plaintext}
        area.case(f"exchange-{name}", "exchange.decode", "DISC-03", "wrong_size", given, drop("malformed"))
    for mtu in (512, 515, 516, 1389, 1390, 1400):
        result = {"entries": (mtu - 98) // 38}
        area.case(f"exchange-room-{mtu}", "exchange.room", "DISC-03", "edge", {"mtu": mtu}, result)
    key, own = filler("node key", 32), filler("own key", 32)
    sent = [
        {
            "pubkey": key,
            "address": address(key),
            "port": 9253,
            "version": 1,
            "flags": 0,
            "sessions": 0,
            "uptime_s": 0,
        },
        {
            "pubkey": key,
            "address": bytes(32),
            "port": 1,
            "version": 1,
            "flags": 0,
            "sessions": 64,
            "uptime_s": 86400,
        },
        {
            "pubkey": b"\xff" * 32,
            "address": address(key, 1, 2, 3),
            "port": 65535,
            "version": 1,
            "flags": 0,
            "sessions": 2**32 - 1,
            "uptime_s": 2**32 - 1,
        },
    ]

    def datagram(values: dict[str, Any]) -> bytes:
        return announce(*values.values())

    for number, values in enumerate(sent):
        plain = {"datagram": datagram(values)}
        given = {"own_pubkey": own, **plain}
        area.case(f"announce-encode-{number}", "announce.encode", "DISC-01", "valid", values, plain)
        area.case(f"announce-decode-{number}", "announce.decode", "DISC-01", "valid", given, values)
    good = datagram(sent[0])
    ignored = {"ignored": True}
    for size in (0, 75, 77):
        given = {"own_pubkey": own, "datagram": (good + b"\0")[:size]}
        area.case(f"announce-size-{size}", "announce.decode", "DISC-01", "wrong_size", given, ignored)
    for version in (0, 2, 255):
        given = {"own_pubkey": own, "datagram": datagram({**sent[0], "version": version})}
        area.case(
            f"announce-version-{version}", "announce.decode", "DISC-01", "foreign_version", given, ignored
        )
    wrong = {
        "checksum": {"address": flip(address(key), 255)}, "port-zero": {"port": 0},
    }  # fmt: skip
    for name, change in wrong.items():
        given = {"own_pubkey": own, "datagram": datagram({**sent[0], **change})}
        area.case(f"announce-{name}", "announce.decode", "DISC-01", "contradiction", given, ignored)
    values = {**sent[0], "flags": 255}
    given = {"own_pubkey": own, "datagram": datagram(values)}
    area.case("announce-flags-are-not-looked-at", "announce.decode", "DISC-01", "valid", given, values)
    given = {"own_pubkey": key, "datagram": good}
    area.case("announce-own", "announce.decode", "DISC-01", "reflected", given, ignored)
    return area


def integrity() -> Area:
    given: Values
    result: Values
    area = Area("integrity", "Integrity challenges and answers (section 16)")
    for number in range(4):
        shared, c = filler(f"integrity {number}", 32), filler(f"challenge {number}", 16)
        k_int, k_mac = integrity_keys(shared)
        given, result = {"shared": shared}, {"k_int": k_int, "k_int_mac": k_mac}
        area.case(f"keys-{number}", "integrity.keys", "INT-01", "valid", given, result)
        for role in (0, 1):
            given = {"shared": shared, "role": role, "challenge": c}
            result = {"plaintext": integrity_answer(shared, role, c)}
            area.case(f"answer-{number}-{role}", "integrity.answer", "INT-01", "valid", given, result)
            given = {**given, **result}
            area.case(f"right-{number}-{role}", "integrity.verify", "INT-01", "valid", given, {"right": True})
    shared, c = filler("integrity 0", 32), filler("challenge 0", 16)
    answer = integrity_answer(shared, 1, c)
    wrong = {
        "op": flip(answer, 7),
        "challenge": flip(answer, 8),
        "ciphertext": flip(answer, 17 * 8),
        "tag": flip(answer, 48 * 8),
        "mac": flip(answer, 49 * 8),
        "mac-last": flip(answer, 81 * 8 - 1),
        "role": integrity_answer(shared, 0, c),
        "short": answer[:-1],
        "long": answer + b"\0",
        "shared": integrity_answer(filler("integrity 1", 32), 1, c),
        "empty": b"",
        "other-challenge": integrity_answer(shared, 1, filler("challenge 1", 16)),
    }
    for name, plaintext in wrong.items():
        given = {"shared": shared, "role": 1, "challenge": c, "plaintext": plaintext}
        flags = "tampered" if len(plaintext) == 81 else "wrong_size"
        area.case(f"wrong-{name}", "integrity.verify", "INT-01", flags, given, {"right": False})
    c = filler("challenge 2", 16)
    area.case(
        "challenge", "integrity.challenge", "INT-01", "valid", {"challenge": c}, {"plaintext": b"\x01" + c}
    )  # fmt: skip
    for name, numbers in (
        ("zero", (0, 0, 0, 0, 0, 0)),
        ("counting", (1, 2**62 + 2, 3, 4, 5, 6)),
        ("max", (2**32 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**32 - 1)),
    ):
        epoch, sent, highest, out, received, version = numbers
        head = filler("head", 32) if any(numbers) else bytes(32)
        given = {
            "epoch": epoch, "seq_sent": U64(sent), "highest_received": U64(highest), "packets_sent": U64(out),
            "packets_received": U64(received), "config_version": version, "journal_head": head,
        }  # fmt: skip
        plaintext = b"\x03" + struct.pack(">IQQQQI", *numbers) + head
        flags = "edge" if name == "max" else "valid"
        read = {"plaintext": plaintext}
        area.case(f"state-{name}", "integrity.state", "INT-01 INT-02", flags, given, read)
        area.case(f"read-state-{name}", "integrity.read_state", "INT-01 INT-02", flags, read, given)
    for size in (0, 1, 72, 74):
        given = {"plaintext": (plaintext + b"\0")[:size]}
        flags = "truncated" if size < 73 else "oversized"
        area.case(f"state-size-{size}", "integrity.read_state", "INT-01", flags, given, drop("malformed"))
    return area
