# SPDX-License-Identifier: GPL-2.0-or-later
"""Vectors of section 6 (the order of receiving) and 12: an established session on TCP, and telemetry."""

from __future__ import annotations

from typing import Any

from cases_packets import piece
from casework import U64, Area, Values, drop, filler, flip
from derivations import (
    ACK,
    CHALLENGE,
    CLOSE,
    DATA,
    ENCRYPTED,
    FRAGMENT,
    HEARTBEAT,
    INIT,
    LAST_FRAG,
    PRIORITY,
    REQUIRE_ACK,
    RESPONSE,
    SERVER_BASE,
    TELEMETRY,
    TELEMETRY_FIELDS,
    telemetry,
)
from derive import aead_seal, header, nonce_of, session_keys, sign

SHARED = filler("session shared", 32)
SESSION_ID = filler("session", 16)
CLIENT, SERVER = 100, SERVER_BASE + 200
MILLISECOND = 10**6


def sealed(type_: int, seq: int, plaintext: bytes = b"", **changes: Any) -> bytes:
    """A packet of the session; its hmac is right for whatever else is changed."""
    session_key, hmac_key = session_keys(changes.pop("shared", SHARED))
    payload = aead_seal(session_key, nonce_of(hmac_key, changes.pop("nonce_seq", seq)), plaintext)
    payload = changes.pop("payload", payload if plaintext else b"")
    if changes.pop("spoil", False):
        payload = flip(payload, 0)
    ack = SERVER if seq < SERVER_BASE else CLIENT  # what is always in order: the receiver's initial seq
    fields = {"flags": 0, "ack": ack, "session_id": SESSION_ID, "timestamp": 1, **changes}
    fields["flags"] |= ENCRYPTED if payload and not fields.pop("clear", False) else 0
    fields.pop("clear", None)
    return sign(hmac_key, header(type_, seq=seq, payload_len=len(payload), **fields), payload)


def data(seq: int, message: bytes, **changes: Any) -> bytes:
    changes.setdefault("flags", REQUIRE_ACK)
    return sealed(DATA, seq, message, **changes)


def session() -> Area:
    area = Area("session", "Receiving in an established session on TCP (SEAL-05 and what it leads to)")

    def case(
        slug: str,
        reqs: str,
        flags: str,
        packets: list[bytes],
        outcomes: str,
        messages: list[Any] = [],  # noqa: B006
        ended: Values | None = None,
        role: str = "server",
        bad_acks: int = 0,
        channels: tuple[int, ...] = (),
    ) -> None:
        own, peer = (SERVER, CLIENT) if role == "server" else (CLIENT, SERVER)
        area.case(
            slug, "session.receive", reqs, flags,
            {
                "role": role, "shared": SHARED, "session_id": SESSION_ID, "own_initial_seq": U64(own),
                "peer_initial_seq": U64(peer), "subscribed": list(channels), "packets": packets,
            },
            {
                "outcomes": outcomes.split(), "ended": ended, "bad_acks": bad_acks,
                "messages": [
                    m if isinstance(m, dict) else {"channel": 0, "data": m} for m in messages
                ],
            },
        )  # fmt: skip

    c, s = CLIENT + 1, SERVER + 1
    one, two, three = data(c, b"one"), data(c + 1, b"two"), data(c + 2, b"three")
    ok = "accepted"
    case("data", "SEAL-05 DATA-01", "valid", [one, two, three], f"{ok} {ok} {ok}", [b"one", b"two", b"three"])
    sent = [data(s, b"one"), data(s + 1, b"two")]
    case("data-at-client", "SEAL-05", "valid", sent, f"{ok} {ok}", [b"one", b"two"], role="client")
    case("replay", "SEQ-02", "replayed", [one, one, two], f"{ok} replay_drops {ok}", [b"one", b"two"])
    sent = [data(c + 63, b"new"), one, two]
    case("oldest-in-window", "SEQ-02", "edge", sent, f"{ok} {ok} {ok}", [b"new", b"one", b"two"])
    sent = [data(c + 64, b"new"), one, two]
    case("behind-window", "SEQ-02", "beyond", sent, f"{ok} replay_drops {ok}", [b"new", b"two"])
    sent = [sealed(ACK, CLIENT)]
    case("seq-of-the-handshake", "SEQ-02 SEQ-03", "replayed", sent, "replay_drops")
    sent = [sealed(ACK, CLIENT - 1)]
    case("seq-before-the-handshake", "SEQ-02", "stale", sent, "replay_drops")
    for name, seq in (("own", s), ("own-first", SERVER_BASE), ("own-last", 2**63 - 1), ("no-ones", 2**63)):
        sent = [data(seq, b"x"), one]
        case(f"reflected-{name}", "SEQ-06", "reflected", sent, f"reflected {ok}", [b"one"])
        sent = [sealed(ACK, seq), one]
        case(f"reflected-ack-{name}", "SEQ-06", "reflected", sent, f"reflected {ok}", [b"one"])
    for name, seq in (("own", c), ("last-of-client", SERVER_BASE - 1), ("beyond-server", 2**63)):
        sent = [data(seq, b"x"), data(s, b"one")]
        case(
            f"reflected-to-client-{name}", "SEQ-06", "reflected", sent, f"reflected {ok}", [b"one"],
            role="client",
        )  # fmt: skip
    case("last-seq-of-client", "SEQ-01", "edge", [data(SERVER_BASE - 1, b"x")], ok, [b"x"])
    by_us = {"by_peer": False, "code": 1}
    for name, bit in (("hmac", 400), ("ciphertext", 640), ("timestamp", 300), ("ack", 100), ("flags", 26)):
        case(
            f"bad-hmac-{name}",
            "SEAL-06",
            "tampered",
            [two, flip(one, bit)],
            f"{ok} auth_fail",
            [b"two"],
            by_us,
        )
    sent = [data(c, b"one", shared=filler("other shared", 32))]
    case("other-keys", "SEAL-06", "wrong_key", sent, "auth_fail", [], by_us)
    forged = one[:48] + bytes(32) + one[80:]
    case("no-hmac", "SEAL-04 SEAL-06", "tampered", [forged], "auth_fail", [], by_us)
    by_us = {"by_peer": False, "code": 2}
    case("bad-tag", "SEAL-07", "tampered", [data(c, b"one", spoil=True)], "decrypt_fail", [], by_us)
    sent = [data(c, b"one", nonce_seq=c + 1)]
    case("sealed-for-other-seq", "SEAL-02 SEAL-07", "wrong_key", sent, "decrypt_fail", [], by_us)
    # The order of SEAL-05: what is wrong in two ways counts as the earlier one.
    sent = [flip(data(s, b"x"), 400)]
    case(
        "hmac-before-range",
        "SEAL-05",
        "tampered reflected",
        sent,
        "auth_fail",
        [],
        {"by_peer": False, "code": 1},
    )
    case(
        "range-before-tag",
        "SEAL-05 SEQ-06",
        "reflected",
        [data(s, b"x", spoil=True), one],
        f"reflected {ok}",
        [b"one"],
    )
    sent = [one, data(c, b"x", spoil=True), two]
    case("replay-before-tag", "SEAL-05", "replayed", sent, f"{ok} replay_drops {ok}", [b"one", b"two"])
    sent = [sealed(0xD, s), one]
    case("range-before-type", "SEAL-05", "reflected illegal_type", sent, f"reflected {ok}", [b"one"])
    sent = [flip(data(c, b"x", session_id=bytes(16)), 400), one]
    case("session-before-hmac", "SEAL-05", "contradiction", sent, f"unknown_session {ok}", [b"one"])
    sent = [flip(sealed(ACK, c, session_id=bytes(16), channel=1), 400), one]
    case("parse-before-session", "SEAL-05 WIRE-03", "reserved", sent, f"malformed {ok}", [b"one"])
    sent = [data(c, b"x", session_id=flip(SESSION_ID, 127)), one]
    case("other-session", "TRN-01 ERR-01", "contradiction", sent, f"unknown_session {ok}", [b"one"])
    for type_ in (INIT, CHALLENGE):
        sent = [sealed(type_, c), one]
        case(f"type-{type_}", "SEAL-05", "illegal_type", sent, f"unexpected_type {ok}", [b"one"])
    for type_ in (0xD, 0xE, 0xF):
        sent = [sealed(type_, c), sealed(type_, c), one, two]
        outcome = f"unknown_type replay_drops replay_drops {ok}"
        case(f"type-{type_:x}", "WIRE-05 SEQ-02", "illegal_type", sent, outcome, [b"two"])
        sent = [sealed(type_, c, b"sealed"), two]
        case(f"type-{type_:x}-sealed", "WIRE-05", "illegal_type", sent, f"unknown_type {ok}", [b"two"])
    sent = [flip(sealed(0xD, c), 400)]
    case("type-d-unauthentic", "WIRE-05", "tampered", sent, "auth_fail", [], {"by_peer": False, "code": 1})
    for name, changes in (("reserved0", {"reserved": (1, 0)}), ("reserved1", {"reserved": (0, 1)}),
                          ("bit-10", {"flags": 1 << 10}), ("compressed", {"flags": 2})):  # fmt: skip
        sent = [data(c, b"x", **changes), one]
        case(f"malformed-{name}", "WIRE-03", "reserved", sent, f"malformed {ok}", [b"one"])
    sent = [data(c, b"x", version=2), one]
    case("version-2", "WIRE-02", "foreign_version", sent, f"version_mismatch {ok}", [b"one"])
    sent = [data(c, b"x", payload=b"in the clear, but signed", clear=True), one]
    case("payload-not-sealed", "WIRE-08 SEAL-04", "contradiction", sent, f"malformed {ok}", [b"one"])
    sent = [sealed(ACK, c, b"x"), one]
    case("ack-with-payload", "WIRE-08", "wrong_size", sent, f"malformed {ok}", [b"one"])
    sent = [sealed(DATA, c, flags=REQUIRE_ACK), two]
    case("data-empty", "DATA-01", "wrong_size", sent, f"malformed {ok}", [b"two"])
    sent = [sealed(DATA, c, flags=REQUIRE_ACK), one]
    case("data-empty-commits", "SEAL-05", "wrong_size", sent, "malformed replay_drops")
    for ack, flag in ((SERVER - 1, 1), (SERVER, 0), (SERVER + 1, 1), (0, 1), (2**64 - 1, 1)):
        sent = [sealed(ACK, c, ack=ack), data(c + 1, b"on")]
        flags = "edge" if not flag else "beyond"
        case(f"ack-{ack - SERVER}", "SEQ-06", flags, sent, f"{ok} {ok}", [b"on"], bad_acks=flag)
    _channels(case, c)
    _ends(case, c)
    return area


def _channels(case: Any, c: int) -> None:
    ok = "accepted"
    sent = [data(c, b"zero"), data(c + 1, b"five", channel=5)]
    case("channel-unsubscribed", "CHAN-01", "contradiction", sent, f"{ok} unsubscribed", [b"zero"])
    five = {"channel": 5, "data": b"five"}
    case("channel-subscribed", "CHAN-01", "valid", sent, f"{ok} {ok}", [b"zero", five], channels=(5,))
    last = {"channel": 255, "data": b"last"}
    sent = [data(c, b"last", channel=255)]
    case("channel-255", "CHAN-01", "edge", sent, ok, [last], channels=(255,))
    sent = [sent[0], sent[0]]
    case("unsubscribed-commits", "CHAN-01 SEAL-05", "replayed", sent, "unsubscribed replay_drops")
    m = filler("message in fragments", 40)
    first = data(c, piece(1, 0, 40, m[:20]), flags=FRAGMENT | REQUIRE_ACK)
    flags = FRAGMENT | LAST_FRAG | REQUIRE_ACK
    second = data(c + 1, piece(1, 20, 40, m[20:]), flags=flags)
    case("fragments", "FRAG-01", "valid", [first, second], f"{ok} {ok}", [m])
    case("fragments-reordered", "FRAG-05", "reordered", [second, first], f"{ok} {ok}", [m])
    case("fragments-replayed", "SEQ-02", "replayed", [first, first, second], f"{ok} replay_drops {ok}", [m])
    short = data(c + 1, piece(1, 20, 40, b"")[:7], flags=flags)
    case("fragment-short", "FRAG-02", "truncated", [first, short], f"{ok} malformed")
    sent = [first, data(c + 1, piece(1, 20, 40, m[20:39]), flags=flags), second]
    case("fragment-early-last", "FRAG-02", "contradiction", sent, f"{ok} malformed replay_drops")
    # E-65: flags without a meaning for a type
    sent = [data(c, m, flags=LAST_FRAG | REQUIRE_ACK), data(c + 1, b"on")]
    case("last-fragment-of-nothing", "FRAG-01", "contradiction", sent, f"malformed {ok}", [b"on"])
    sent = [data(c, m, flags=PRIORITY | TELEMETRY | REQUIRE_ACK)]
    case("data-with-other-flags", "FRAG-01", "valid", sent, ok, [m])
    beat = telemetry({**dict.fromkeys(TELEMETRY_FIELDS, 0), "rtt_ns": 7})
    sent = [sealed(HEARTBEAT, c, beat, flags=TELEMETRY)]
    case("heartbeat", "HB-01", "valid", sent, ok)
    flags = TELEMETRY | FRAGMENT | LAST_FRAG | PRIORITY
    case("heartbeat-with-other-flags", "HB-01", "valid", [sealed(HEARTBEAT, c, beat, flags=flags)], ok)
    for size in (1, 43, 45):
        sent = [sealed(HEARTBEAT, c, (beat + b"\0")[:size], flags=TELEMETRY)]
        case(f"heartbeat-{size}", "HB-01", "wrong_size", sent, "malformed")


def _ends(case: Any, c: int) -> None:
    one = data(c, b"one")
    for name, plaintext, code in (
        ("empty", b"", None),
        ("code", b"\x03", 3),
        ("last-code", b"\x0a", 10),
        ("unknown-code", b"\xff", 255),
        ("zero-code", b"\0", 0),
    ):
        sent = [one, sealed(CLOSE, c + 1, plaintext)]
        ended = {"by_peer": True, "code": code}
        case(f"close-{name}", "CLS-01", "valid", sent, "accepted closed", [b"one"], ended)
    sent = [sealed(CLOSE, c, b"\x01\x02"), data(c + 1, b"on")]
    case("close-two-bytes", "CLS-01", "oversized", sent, "malformed accepted", [b"on"])
    sent = [header(CLOSE, payload_len=1) + b"\x01", one]
    case("close-advisory", "CLS-02", "contradiction", sent, "unknown_session accepted", [b"one"])
    sent = [header(CLOSE, session_id=SESSION_ID, seq=c)]
    ended = {"by_peer": False, "code": 1}
    case("close-unsigned", "CLS-02 SEAL-06", "tampered", sent, "auth_fail", [], ended)
    sent = [header(CLOSE, session_id=SESSION_ID, seq=c, payload_len=1) + b"\x01", one]
    case("close-in-the-clear", "CLS-02 WIRE-08", "contradiction", sent, "malformed accepted", [b"one"])
    sent = [sealed(CLOSE, SERVER + 1), one]
    case("close-reflected", "CLS-02 SEQ-06", "reflected", sent, "reflected accepted", [b"one"])
    sent = [sealed(CLOSE, CLIENT), one]
    case("close-replayed", "CLS-02 SEQ-02", "replayed", sent, "replay_drops accepted", [b"one"])
    payload = bytes(64) + aead_seal(
        session_keys(SHARED)[0], nonce_of(session_keys(SHARED)[1], CLIENT), bytes(32)
    )
    sent = [sealed(RESPONSE, CLIENT, payload=payload), one]
    case("response-again", "SEQ-03", "replayed", sent, "replay_drops accepted", [b"one"])


def heartbeat() -> Area:
    area = Area("heartbeat", "Telemetry and round-trip times (section 12)")
    zero = dict.fromkeys(TELEMETRY_FIELDS, 0)
    counting = {name: 0x0102030405060708 >> (64 - bits) for name, bits in TELEMETRY_FIELDS.items()}
    samples = {"zero": zero, "counting": counting}
    samples["max"] = {name: 2**bits - 1 for name, bits in TELEMETRY_FIELDS.items()}
    for name, bits in TELEMETRY_FIELDS.items():
        samples[f"{name}-max"] = {**zero, name: 2**bits - 1}

    def fields(values: dict[str, int]) -> Values:
        return {name: U64(value) for name, value in values.items()}

    for name, values in samples.items():
        plaintext = telemetry(values)
        flags = "edge" if "max" in name else "valid"
        given = {"plaintext": plaintext}
        area.case(f"encode-{name}", "telemetry.encode", "HB-01", flags, fields(values), given)
        area.case(f"decode-{name}", "telemetry.decode", "HB-01", flags, given, fields(values))
    for name, bits in TELEMETRY_FIELDS.items():
        for excess in (1, 2**bits) if bits < 64 else ():
            values = {**zero, name: 2**bits - 1 + excess}
            result = {"plaintext": telemetry(values)}
            slug = f"saturate-{name}-{excess}"
            area.case(slug, "telemetry.encode", "HB-03", "saturated beyond", fields(values), result)
    plaintext = telemetry(counting) + b"\0"
    for size in (0, 1, 43, 45):
        flags = "truncated" if size < 44 else "oversized"
        given = {"plaintext": plaintext[:size]}
        area.case(f"size-{size}", "telemetry.decode", "HB-01", flags, given, drop("malformed"))
    # Samples chosen so that every division is exact: the specification does not say how to round.
    for name, rtts, srtt, jitter in (
        ("first", [80], 80, 0),
        ("same", [80, 80], 80, 0),
        ("up", [64, 128], 72, 8),
        ("down", [128, 64], 120, 8),
        ("down-and-up", [512, 0, 960], 512, 120),
        ("first-is-large", [10**4], 10**4, 0),
        ("ten-times", [80, 800], 170, 90),
    ):
        area.case(
            f"rtt-{name}", "telemetry.round_trip", "HB-01", "valid",
            {"samples_ns": [U64(rtt * MILLISECOND) for rtt in rtts]},
            {"srtt_ns": U64(srtt * MILLISECOND), "jitter_ns": U64(jitter * MILLISECOND)},
        )  # fmt: skip
    area.case(
        "rtt-none", "telemetry.round_trip", "HB-01", "edge", {"samples_ns": []},
        {"srtt_ns": U64(0), "jitter_ns": U64(0)},
    )  # fmt: skip
    return area
