# SPDX-License-Identifier: GPL-2.0-or-later
"""Vectors of sections 1 to 3, 7 and 10: headers, the replay window, fragments, MTU probes."""

from __future__ import annotations

import struct
from typing import Any

from casework import U64, Area, Values, drop, filler
from derivations import (
    ACK,
    CHALLENGE,
    CLOSE,
    COMPRESSED,
    CONFIG,
    DATA,
    ENCRYPTED,
    FRAGMENT,
    HEARTBEAT,
    INIT,
    INTEGRITY,
    LAST_FRAG,
    RESPONSE,
    SECOND,
    SERVER_BASE,
)
from derive import header

SIZES = {
    "version": 4, "type": 4, "reserved0": 8, "flags": 16, "seq": 64, "ack": 64, "timestamp": 64,
    "payload_len": 16, "channel": 8, "reserved1": 8,
}  # fmt: skip
NAMES = [
    "INIT", "CHALLENGE", "RESPONSE", "DATA", "ACK", "HEARTBEAT", "REKEY", "CLOSE", "CONFIG", "ROLLBACK",
    "DISCOVER", "JOURNAL", "INTEGRITY",
]  # fmt: skip
HMAC = filler("some hmac", 32)
SESSION_ID = filler("header session id", 16)


def packed(fields: Values) -> bytes:
    rest = {k: v for k, v in fields.items() if k not in ("type", "hmac", "reserved0", "reserved1")}
    head = header(
        fields["type"],
        reserved=(fields.get("reserved0", 0), fields.get("reserved1", 0)),
        **rest,
    )
    mac: bytes = fields.get("hmac", bytes(32))
    return head[:48] + mac


def whole(**changes: Any) -> Values:
    fields: Values = {
        "version": 1, "type": DATA, "reserved0": 0, "flags": 0, "seq": 0, "ack": 0, "session_id": SESSION_ID,
        "timestamp": 0, "payload_len": 0, "channel": 0, "reserved1": 0, "hmac": HMAC,
    }  # fmt: skip
    fields.update(changes)
    for name in ("seq", "ack", "timestamp"):
        fields[name] = U64(fields[name])
    return fields


def headers() -> Area:
    area = Area("header", "The header (sections 1 to 3): layout, and what it alone tells against a packet")
    samples = {
        "zero": whole(session_id=bytes(16), hmac=bytes(32)),
        "order": whole(
            flags=0x0203, seq=0x0405060708090A0B, ack=0x0C0D0E0F10111213, timestamp=0x1415161718191A1B,
            payload_len=0x1C1D, channel=0x1E,
        ),
    }  # fmt: skip
    for name, bits in SIZES.items():
        samples[f"{name}-max"] = whole(**{name: 2**bits - 1})
    for name, fields in samples.items():
        area.case(f"pack-{name}", "header.pack", "WIRE-01", "valid", fields, {"header": packed(fields)})

    def parsed(slug: str, reqs: str, flags: str, fields: Values, payload: bytes, result: Any = None) -> None:
        expected = {"header": fields} if result is None else drop(result)
        packet = packed(fields) + payload
        area.case(slug, "packet.parse", reqs, flags, {"packet": packet}, expected)

    for type_, name in enumerate([*NAMES, "RESERVED-D", "RESERVED-E", "RESERVED-F"]):
        size = {INIT: 64, CHALLENGE: 98, RESPONSE: 112, ACK: 0}.get(type_, 17)
        flags = ENCRYPTED if size and type_ not in (INIT, CHALLENGE) else 0
        fields = whole(type=type_, flags=flags, seq=type_, payload_len=size)
        parsed(f"type-{name}", "WIRE-01 WIRE-05", "valid", fields, filler(name, size))
    for bit in range(10):
        name, result = f"flag-bit-{bit}", "malformed" if 1 << bit == COMPRESSED else None
        fields = whole(flags=1 << bit | ENCRYPTED, payload_len=18)
        parsed(name, "WIRE-03", "valid" if result is None else "reserved", fields, bytes(18), result)
    for bit in range(10, 16):
        for type_ in (INIT, DATA):
            fields = whole(type=type_, flags=1 << bit)
            parsed(f"flag-bit-{bit}-{NAMES[type_]}", "WIRE-03", "reserved", fields, b"", "malformed")
    for name in ("reserved0", "reserved1"):
        for value in (1, 0x80, 0xFF):
            parsed(f"{name}-{value}", "WIRE-03", "reserved", whole(**{name: value}), b"", "malformed")
    for type_, name in enumerate(NAMES):
        if type_ != DATA:
            fields = whole(type=type_, channel=1)
            parsed(f"channel-{name}", "WIRE-03", "reserved", fields, b"", "malformed")
    for channel in (1, 255):
        parsed(f"channel-{channel}-DATA", "WIRE-03", "valid", whole(channel=channel), b"")
    for version in (0, 2, 3, 15):
        for type_ in (INIT, DATA):
            fields = whole(version=version, type=type_)
            slug = f"version-{version}-{NAMES[type_]}"
            parsed(slug, "WIRE-02", "foreign_version", fields, b"", "version_mismatch")
    for type_ in (DATA, HEARTBEAT, CLOSE, CONFIG, INTEGRITY):
        for size in (0, 1, 15, 16, 17):
            fields = whole(type=type_, flags=ENCRYPTED, payload_len=size)
            why, result = ("edge", None) if size == 17 else ("wrong_size", "malformed")
            parsed(f"encrypted-{NAMES[type_]}-{size}", "WIRE-08", why, fields, bytes(size), result)
    for size in (1, 17, 32):
        fields = whole(type=ACK, flags=ENCRYPTED if size > 16 else 0, payload_len=size)
        parsed(f"ack-payload-{size}", "WIRE-08", "wrong_size", fields, bytes(size), "malformed")
    for size in (17, 64, 111):
        fields = whole(type=RESPONSE, flags=ENCRYPTED, payload_len=size)
        parsed(f"response-{size}", "WIRE-08", "truncated", fields, bytes(size), "malformed")
    base = packed(whole(flags=ENCRYPTED, payload_len=20)) + bytes(20)
    for size in (0, 1, 44, 46, 79, 80, 99):
        given = {"packet": base[:size]}
        area.case(f"truncated-{size}", "packet.parse", "WIRE-01", "truncated", given, drop("malformed"))
    given = {"packet": base + b"\0"}
    area.case("one-byte-more", "packet.parse", "WIRE-01", "oversized", given, drop("malformed"))
    for length in (0, 19, 21, 0x1400, 0xFFFF):
        lying = base[:44] + struct.pack(">H", length) + base[46:]
        given = {"packet": lying}
        area.case(f"length-{length}", "packet.parse", "WIRE-01", "wrong_size", given, drop("malformed"))
    return area


def replay() -> Area:
    area = Area("replay", "The replay window and the loss account (SEQ-02, SEQ-04)")

    def case(slug: str, flags: str, initial: int, seqs: list[int], fresh: str, lost: int, ppm: int) -> None:
        """``fresh`` has a character for each seq: + is taken, - is a replay."""
        top = max([initial, *(s for s, f in zip(seqs, fresh, strict=True) if f == "+")])
        area.case(
            slug, "replay", "SEQ-02 SEQ-04", flags,
            {"initial": U64(initial), "seqs": [U64(s) for s in seqs]},
            {
                "fresh": [f == "+" for f in fresh], "highest": U64(top), "lost": U64(lost),
                "loss_rate_ppm": ppm,
            },
        )  # fmt: skip

    case("in-order", "valid", 100, [101, 102, 103], "+++", 0, 0)
    case("repeated-initial", "replayed", 100, [100], "-", 0, 0)
    case("repeated", "replayed", 100, [101, 101], "+-", 0, 0)
    case("repeated-late", "replayed", 100, [101, 102, 103, 101], "+++-", 0, 0)
    case("below-initial", "stale", 100, [99, 50, 0], "---", 0, 0)
    case("gap-of-one", "valid", 100, [102], "+", 1, 333333)
    case("gap-filled", "reordered", 100, [102, 101], "++", 0, 0)
    case("gap-filled-twice", "reordered replayed", 100, [102, 101, 101], "++-", 0, 0)
    case("reversed", "reordered", 100, [104, 103, 102, 101], "++++", 0, 0)
    case("last-of-window", "edge", 100, [164, 101], "++", 62, 62 * 10**6 // 65)
    case("beyond-window", "beyond", 100, [165, 101], "+-", 64, 64 * 10**6 // 66)
    case("window-full-of-holes", "reordered", 100, [163, 101, 131, 162, 131], "++++-", 59, 59 * 10**6 // 64)
    case("initial-at-the-edge", "edge replayed", 100, [163, 100], "+-", 62, 62 * 10**6 // 64)
    case("jump-by-63", "edge", 0, [63, 1], "++", 61, 61 * 10**6 // 64)
    case("jump-by-64", "edge", 0, [64, 1], "++", 62, 62 * 10**6 // 65)
    case("jump-by-65", "beyond", 0, [65, 1, 2], "+-+", 63, 63 * 10**6 // 66)
    case("big-jump", "valid", 0, [10**6, 10**6 - 63, 10**6 - 64], "++-", 999998, 999998 * 10**6 // 1000001)
    case("server-range", "valid", SERVER_BASE, [SERVER_BASE + 2, SERVER_BASE + 1], "++", 0, 0)
    top = 2**63 - 1
    case("end-of-server-range", "edge", top - 2, [top, top - 1, top], "++-", 0, 0)
    case("end-of-client-range", "edge", SERVER_BASE - 3, [SERVER_BASE - 1], "+", 1, 333333)
    case("all-of-a-window", "reordered", 0, [64, *range(1, 64)], "+" * 64, 0, 0)
    case("slide-then-late", "reordered", 0, [1, 2, 70, 7, 6], "++++-", 66, 66 * 10**6 // 71)
    return area


def piece(msg_id: int, offset: int, total: int, data: bytes) -> bytes:
    return struct.pack(">IHH", msg_id, offset, total) + data


def fragments() -> Area:
    area = Area("fragments", "Fragments: splitting, and reassembly (FRAG-01 .. FRAG-05)")
    for mtu, size in (
        (512, 417), (512, 408), (512, 816), (512, 817), (512, 1500), (1400, 1305), (1400, 2592), (1400, 2593),
        (700, 1200),
    ):  # fmt: skip
        message, msg_id = filler(f"message {size}", size), 2**32 - 1 if size == 1500 else size
        room = mtu - 104
        cut = [
            {
                "plaintext": piece(msg_id, at, size, message[at : at + room]),
                "flags": FRAGMENT | (LAST_FRAG if at + room >= size else 0),
            }
            for at in range(0, size, room)
        ]
        flags = "edge" if size % room == 0 or size == mtu - 95 else "valid"
        area.case(
            f"split-{mtu}-{size}", "fragment.split", "FRAG-01 DATA-02", flags,
            {"message": message, "msg_id": msg_id, "mtu": mtu}, {"fragments": cut},
        )  # fmt: skip
    _reassembly(area)
    return area


def _reassembly(area: Area) -> None:
    m = filler("reassembled", 90)
    a, b, c = piece(7, 0, 90, m[:30]), piece(7, 30, 90, m[30:60]), piece(7, 60, 90, m[60:])
    done = {"channel": 0, "data": m}

    def case(
        slug: str, reqs: str, flags: str, parts: list[tuple[Any, ...]], outcomes: str, messages: list[Values]
    ) -> None:
        """A part is plaintext, whether LAST_FRAG, channel, time in ns; + accepted, M malformed."""
        rows = []
        for part in parts:
            plaintext, last, channel, at = part + (False, 0, 0)[len(part) - 1 :]
            rows.append({"plaintext": plaintext, "last": last, "channel": channel, "at_ns": U64(at)})
        names = {"+": "accepted", "M": "malformed"}
        area.case(
            f"reassemble-{slug}", "fragment.reassemble", reqs, flags, {"fragments": rows},
            {"outcomes": [names[o] for o in outcomes], "messages": messages},
        )  # fmt: skip

    end = (c, True)
    case("in-order", "FRAG-01", "valid", [(a,), (b,), end], "+++", [done])
    orders = {"acb": [(a,), end, (b,)], "bac": [(b,), (a,), end], "bca": [(b,), end, (a,)],
              "cab": [end, (a,), (b,)], "cba": [end, (b,), (a,)]}  # fmt: skip
    for name, parts in orders.items():
        case(f"order-{name}", "FRAG-05", "reordered", parts, "+++", [done])
    case("single", "FRAG-01", "edge", [(piece(1, 0, 3, b"abc"), True)], "+", [{"channel": 0, "data": b"abc"}])
    case("channel", "FRAG-01 CHAN-01", "valid", [(piece(1, 0, 3, b"abc"), True, 9)], "+",
         [{"channel": 9, "data": b"abc"}])  # fmt: skip
    case("incomplete", "FRAG-03", "truncated", [(a,), end], "++", [])
    case("duplicate", "FRAG-03", "replayed", [(a,), (a,), (b,), end], "++++", [done])
    case("duplicate-is-not-coverage", "FRAG-03", "replayed", [(a,), (a,), end], "+++", [])
    case("duplicate-of-completed", "FRAG-03", "replayed", [(a,), (b,), end, (a,), end], "+++++", [done])
    over = piece(7, 20, 90, m[20:50])
    case("overlap-equal", "FRAG-03", "valid", [(a,), (over,), (b,), end], "++++", [done])
    case("overlap-bridges", "FRAG-03", "valid", [(a,), end, (piece(7, 10, 90, m[10:80]),)], "+++", [done])
    whole = [(piece(7, 10, 90, m[10:20]),), (piece(7, 0, 90, m), True)]
    case("overlap-swallows", "FRAG-03", "valid", whole, "++", [done])
    other = piece(7, 29, 90, b"\0" + m[30:50] if m[29] else b"\1" + m[30:50])
    case("overlap-differs", "FRAG-03", "contradiction", [(a,), (other,), (b,), end], "+MMM", [])
    case("overlap-differs-in-duplicate", "FRAG-03", "contradiction",
         [(a,), (piece(7, 0, 90, bytes(30)),), (b,)], "+MM", [])  # fmt: skip
    other_total = piece(7, 30, 91, m[30:60])
    case("total-differs", "FRAG-02", "contradiction", [(a,), (other_total,), (b,), end], "+MMM", [])
    case("channel-differs", "FRAG-02", "contradiction", [(a,), (b, False, 1), end], "+MM", [])
    case("total-zero", "FRAG-02", "wrong_size", [(piece(1, 0, 0, b""), True)], "M", [])
    case("total-zero-with-bytes", "FRAG-02", "wrong_size", [(piece(1, 0, 0, b"x"), True)], "M", [])
    case("past-the-end", "FRAG-02", "beyond", [(piece(1, 60, 90, bytes(31)), True)], "M", [])
    case("past-the-end-at-65535", "FRAG-02", "beyond", [(piece(1, 65535, 65535, b"x"), True)], "M", [])
    case("offset-wraps-u16", "FRAG-02", "beyond", [(piece(1, 65530, 100, bytes(10)), True)], "M", [])
    case("last-too-early", "FRAG-02", "contradiction", [(a, True), (b,), end], "MMM", [])
    case("last-missing", "FRAG-02", "contradiction", [(a,), (b,), (c,)], "++M", [])
    case("no-bytes", "FRAG-02", "wrong_size", [(a,), (piece(7, 30, 90, b""),), (b,), end], "+MMM", [])
    for size in (1, 7):
        case(f"header-of-{size}", "FRAG-02", "truncated", [(a[:size],)], "M", [])
    case("short-header-harms-no-other", "FRAG-02", "truncated", [(a,), (b[:7],), (b,), end], "+M++", [done])
    second = [piece(8, 0, 90, m[:45]), piece(8, 45, 90, m[45:])]
    mixed = [(a,), (second[0],), (b,), end, (second[1], True)]
    case("interleaved", "FRAG-05", "reordered", mixed, "+++++", [done, done])
    spoiled = [(second[0],), (a,), (piece(8, 0, 91, b"x"),), (b,), end]
    case("others-survive-a-bad-one", "FRAG-02 FRAG-05", "contradiction", spoiled, "++M++", [done])
    ids = [(piece(2**32 - 1, 0, 2, b"a"),), (piece(0, 0, 2, b"b"),), (piece(0, 1, 2, b"d"), True),
           (piece(2**32 - 1, 1, 2, b"c"), True)]  # fmt: skip
    both = [{"channel": 0, "data": b"bd"}, {"channel": 0, "data": b"ac"}]
    case("msg-id-wraps", "FRAG-01", "edge", ids, "++++", both)
    sixteen = [(piece(n, 0, 2, b"a"),) for n in range(16)] + [(piece(n, 1, 2, b"b"), True) for n in range(16)]
    case("sixteen", "FRAG-04", "edge", sixteen, "+" * 32, [{"channel": 0, "data": b"ab"}] * 16)
    evicting = [(piece(n, 0, 2, b"a"),) for n in range(17)] + [(piece(n, 1, 2, b"b"), True) for n in (0, 16)]
    case("seventeenth-evicts-the-first", "FRAG-04", "beyond", evicting, "+" * 19,
         [{"channel": 0, "data": b"ab"}])  # fmt: skip
    touched = [(piece(n, 0, 3, b"a"),) for n in range(16)] + [
        (piece(0, 1, 3, b"b"),), (piece(16, 0, 3, b"a"),), (piece(0, 2, 3, b"c"), True)
    ]  # fmt: skip
    case("least-recently-touched-goes", "FRAG-04", "valid", touched, "+" * 19,
         [{"channel": 0, "data": b"abc"}])  # fmt: skip
    late = [(a, False, 0, 0), (b, False, 0, 5 * SECOND - 1), (c, True, 0, 10 * SECOND - 2)]
    case("each-within-5s", "FRAG-04", "edge", late, "+++", [done])
    case("after-5s", "FRAG-04", "beyond", [(a, False, 0, 0), (b, False, 0, 5 * SECOND),
         (c, True, 0, 5 * SECOND)], "+++", [])  # fmt: skip
    held = [(a, False, 0, 0), (a, False, 0, 4 * SECOND), (b, False, 0, 6 * SECOND), (c, True, 0, 6 * SECOND)]
    case("a-duplicate-buys-no-time", "FRAG-04", "stale", held, "++++", [])
    anew = [*held[:1], (b, False, 0, 6 * SECOND), (c, True, 0, 6 * SECOND), (a, False, 0, 7 * SECOND)]
    case("after-5s-anew", "FRAG-04", "valid", anew, "++++", [done])


def mtu() -> Area:
    area = Area("mtu", "MTU probes and the search (section 11)")
    for size in (512, 513, 956, 1178, 1399, 1400):
        given = {"probe_size": size}
        plaintext = probe(size)
        area.case(f"probe-{size}", "mtu.probe", "MTU-01", "valid", given, {"plaintext": plaintext})
        area.case(
            f"read-{size}", "mtu.read_probe", "MTU-01", "edge" if size in (512, 1400) else "valid",
            {"plaintext": plaintext}, given,
        )  # fmt: skip
        plaintext = struct.pack(">H", size)
        area.case(f"answer-{size}", "mtu.answer", "MTU-01", "valid", given, {"plaintext": plaintext})
    for name, flags, plaintext in (
        ("511", "beyond", probe(511)), ("1401", "beyond", probe(1401)),
        ("size-below", "wrong_size", struct.pack(">H", 699) + bytes(700 - 98)),
        ("size-above", "wrong_size", struct.pack(">H", 701) + bytes(700 - 98)),
        ("padding", "reserved", probe(700)[:-1] + b"\1"), ("padding-first", "reserved", probe(700)[:2] + b"\1"
         + probe(700)[3:]), ("empty", "truncated", b""), ("one-byte", "truncated", b"\2"),
    ):  # fmt: skip
        area.case(
            f"read-bad-{name}", "mtu.read_probe", "MTU-01", flags, {"plaintext": plaintext}, drop("malformed")
        )
    bounds = [(512, 1400)] * 9 + [(600, 1000)] * 3 + [(512, 528), (512, 527), (1000, 1000), (512, 513)]
    paths = [1400, 1399, 1390, 1280, 1000, 956, 700, 512, 400, 1000, 800, 600, 520, 520, 1400, 512]
    for (low, high), path in zip(bounds, paths, strict=True):
        probes, found = search(low, high, path)
        given = {"mtu_min": low, "mtu_max": high, "path": path}
        area.case(
            f"search-{low}-{high}-{path}", "mtu.search", "MTU-02",
            "edge" if path in (low, high) or high - low < 17 else "valid", given,
            {"probes": probes, "mtu": found},
        )  # fmt: skip
    return area


def probe(size: int) -> bytes:
    """MTU-01: 80 + 16 of header and tag, two of probe_size, the rest zero."""
    return struct.pack(">H", size) + bytes(size - 98)


def search(low: int, high: int, path: int) -> tuple[list[int], int]:
    """MTU-02: the sizes probed where packets up to ``path`` pass, and the mtu found."""
    if low == high:
        return [], low
    probes = [high]
    if high <= path:
        return probes, high
    while high - low >= 16:
        size = (low + high) // 2
        probes.append(size)
        if size <= path:
            low = size
        else:
            high = size
    return probes, low
