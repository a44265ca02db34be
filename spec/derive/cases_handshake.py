# SPDX-License-Identifier: GPL-2.0-or-later
"""Vectors of section 8: whole handshakes with fixed randomness, and each step with what must be refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from casework import U64, Area, Values, filler, flip
from derivations import (
    ACK,
    CHALLENGE,
    CLOSE,
    DATA,
    ENCRYPTED,
    INIT,
    REQUIRE_ACK,
    RESPONSE,
    SECOND,
    SERVER_BASE,
    proof_of,
    puzzle_seed_of,
)
from derive import (
    LOW_ORDER,
    address,
    header,
    leading_zero_bits,
    session_keys,
    sha256,
    sign,
    solve,
)
from exchange import WALL, Exchange, advisory, packet


def handshake() -> Area:
    area = Area("handshake", "The handshake of version 1 (section 8), on TCP")
    v6 = bytes.fromhex("20010db8000000000000000000000007")
    exchanges = [
        Exchange("first"),
        Exchange("second", client_addr=address(filler("c", 32)), server_addr=address(filler("s", 32), 1, 2)),
        Exchange("third", client_ip=v6, c0=0, s0=SERVER_BASE),
        Exchange("fourth", c0=2**61 - 1, s0=SERVER_BASE + 2**61 - 1, now=2 * SECOND),
        Exchange("fifth", difficulty=17, client_ip=bytes(15) + b"\1"),
    ]
    for x in exchanges:
        both = {**x.server(), **x.client()}
        del both["challenge"]
        area.case(
            f"transcript-{x.label}", "handshake.transcript", "HS-01 HS-03 HS-08 SEQ-01 SEQ-03 KEY-02 SEAL-03",
            "transcript recommended_construction valid", both,
            {"init": x.init, "challenge": x.challenge, "response": x.response, "ack": x.ack, **x.keys},
        )  # fmt: skip
        init = {"client_private": x.client_private, "client_addr": x.client_addr, "wall_ns": U64(WALL)}
        area.case(f"init-{x.label}", "handshake.init", "HS-06 SEQ-03", "valid", init, {"packet": x.init})
        _client(area, f"response-{x.label}", "HS-08 SEQ-03 KEY-01", "valid", x, x.challenge, x.response)
    x = exchanges[0]
    _challenges(area, x)
    _responses(area, x)
    _admissions(area, x)
    _establishing(area, x)
    return area


def _client(
    area: Area, slug: str, reqs: str, flags: str, x: Exchange, challenge: bytes, response: bytes | None,
    result: Values | None = None,
) -> None:  # fmt: skip
    expected = result if response is None else {"packet": response}
    area.case(slug, "handshake.response", reqs, flags, x.client(challenge=challenge), expected)


def _challenges(area: Area, x: Exchange) -> None:
    """The server and INIT."""

    def case(slug: str, reqs: str, flags: str, init: bytes, expected: Values, **more: Any) -> None:
        area.case(
            f"challenge-{slug}", "handshake.challenge", reqs, flags, x.server(packet=init, **more), expected
        )

    def refused(reason: str, answer: bytes = b"") -> Values:
        return {"drop": reason, "answer": answer}

    good = {"packet": x.challenge}
    payload = x.init[80:]
    case("valid", "HS-01", "valid recommended_construction", x.init, good)
    for name, offset, flags in (
        ("30s-ago", -30 * SECOND, "edge"), ("in-30s", 30 * SECOND, "edge"),
        ("over-30s-ago", -30 * SECOND - 1, "beyond stale"), ("in-over-30s", 30 * SECOND + 1, "beyond stale"),
        ("monotonic-clock", x.now - WALL, "stale"), ("zero", -WALL, "stale"),
        ("end-of-time", 2**64 - 1 - WALL, "stale"),
    ):  # fmt: skip
        init = packet(INIT, payload, timestamp=WALL + offset)
        result = good if flags == "edge" else refused("stale_init")
        case(f"init-clock-{name}", "HS-06", flags, init, result)
    bad = "malformed"
    fields: dict[str, dict[str, Any]] = {
        "seq": {"seq": 1}, "flags": {"flags": REQUIRE_ACK}, "session-id": {"session_id": b"\1" + bytes(15)},
    }  # fmt: skip
    for name, more in fields.items():
        init = packet(INIT, payload, timestamp=WALL, **more)
        case(f"init-{name}", "SEQ-03", "contradiction", init, refused(bad))
    init = x.init[:48] + b"\1" + x.init[49:]
    case("init-hmac", "SEQ-03", "contradiction", init, refused(bad))
    init = packet(INIT, payload, timestamp=WALL, ack=5)
    case("init-ack-is-not-looked-at", "SEQ-03", "valid recommended_construction", init, good)
    for size in (0, 32, 63, 65):
        init = packet(INIT, (payload + b"\0")[:size], timestamp=WALL)
        case(f"init-size-{size}", "HS-12", "wrong_size", init, refused(bad))
    wrong = flip(address(filler("c", 32)), 255)
    init = packet(INIT, payload[:32] + wrong, timestamp=WALL)
    case("client-addr", "HS-12 ADDR-02", "tampered", init, refused(bad))
    for version in (0, 2, 15):
        init = packet(INIT, payload, timestamp=WALL, version=version)
        answer = advisory(0x0A, x.now)
        case(f"version-{version}", "WIRE-02", "foreign_version", init, refused("version_mismatch", answer))
    for type_, reason in (
        (CHALLENGE, "unexpected_type"), (DATA, "unexpected_type"), (ACK, "unexpected_type"),
        (CLOSE, "unexpected_type"), (0xC, "unexpected_type"), (0xD, "unknown_type"), (0xF, "unknown_type"),
    ):  # fmt: skip
        case(f"type-{type_:x}", "WIRE-05 WIRE-06", "illegal_type", packet(type_), refused(reason))
    for version, type_ in ((2, DATA), (2, CLOSE), (0, RESPONSE)):
        sent = packet(type_, bytes(112 if type_ == RESPONSE else 0), version=version)
        case(
            f"version-{version}-type-{type_}-unanswered", "WIRE-02", "foreign_version", sent,
            refused("version_mismatch"),
        )  # fmt: skip


def _responses(area: Area, x: Exchange) -> None:
    """The client and CHALLENGE, or what comes in its place."""

    def refused(reason: str, error: str | None) -> Values:
        return {"drop": reason, "error": error}

    def case(slug: str, reqs: str, flags: str, sent: bytes, result: Values) -> None:
        _client(area, f"client-{slug}", reqs, flags, x, sent, None, result)

    def challenge(**changes: Any) -> bytes:
        fields = {"session_id": x.session_id, "timestamp": x.now, **changes.pop("head", {})}
        payload = (
            changes.get("pubkey", x.server_public) + x.seed
            + struct.pack(">H", changes.get("difficulty", x.difficulty))
            + changes.get("addr", x.server_addr)
        )  # fmt: skip
        return packet(CHALLENGE, (payload + b"\0")[: changes.get("size", 98)], **fields)

    for difficulty in (0, 15, 24):  # what the client does with any puzzle that it takes
        sent = challenge(difficulty=difficulty)
        _client(area, f"client-difficulty-{difficulty}", "HS-04", "edge", x, sent, x.response)
    for difficulty in (25, 256, 65535):
        sent = challenge(difficulty=difficulty)
        case(f"difficulty-{difficulty}", "HS-04", "beyond", sent, refused("too_difficult", "ERANGE"))
    for number, point in enumerate(LOW_ORDER):
        sent = challenge(pubkey=point)
        case(f"low-order-{number}", "KEY-01", "low_order", sent, refused("low_order_key", "EBADMSG"))
    sent = challenge(head={"session_id": bytes(16)})
    case("session-id-zero", "HS-14", "reserved", sent, refused("bad_session_id", "EBADMSG"))
    sent = challenge(addr=flip(address(filler("s", 32)), 0))
    case("server-addr", "HS-12", "tampered", sent, refused("malformed", None))
    for size in (0, 66, 97, 99):
        case(f"size-{size}", "HS-12", "wrong_size", challenge(size=size), refused("malformed", None))
    for name, head in {"seq": {"seq": 1}, "flags": {"flags": REQUIRE_ACK}}.items():
        case(f"{name}", "SEQ-03", "contradiction", challenge(head=head), refused("malformed", None))
    sent = x.challenge[:79] + b"\1" + x.challenge[80:]
    case("hmac", "SEQ-03", "contradiction", sent, refused("malformed", None))
    sent = challenge(head={"ack": 77})
    _client(area, "client-ack-is-not-looked-at", "SEQ-03", "valid", x, sent, x.response)
    sent = challenge(head={"version": 2})
    case("version-2", "WIRE-02", "foreign_version", sent, refused("version_mismatch", None))
    for type_ in (INIT, RESPONSE, DATA, ACK, 0xC):
        sent = packet(type_, bytes(112 if type_ == RESPONSE else 0))
        case(f"type-{type_:x}", "WIRE-06", "illegal_type", sent, refused("unexpected_type", None))
    case("type-e", "WIRE-05", "illegal_type", packet(0xE), refused("unknown_type", None))
    for code, error in ((0x09, "ECONNREFUSED"), (0x0A, "EPROTONOSUPPORT"), (0x01, "ECONNRESET")):
        sent = advisory(code, x.now)
        case(f"advisory-{code:02x}", "CLS-02 HS-10 WIRE-02", "valid", sent, {"closed": True, "error": error})
    sent = packet(CLOSE, b"\x0a", timestamp=x.now, version=2)
    result = refused("version_mismatch", "EPROTONOSUPPORT")
    case("advisory-0a-version-2", "WIRE-02", "foreign_version", sent, result)
    sent = packet(CLOSE, b"\x09", timestamp=x.now, version=2)
    case("advisory-09-version-2", "WIRE-02", "foreign_version", sent, refused("version_mismatch", None))
    for name, more in (("empty", b""), ("two-bytes", b"\x09\x09")):
        sent = packet(CLOSE, more)
        case(f"advisory-{name}", "CLS-02", "wrong_size", sent, refused("malformed", None))
    sent = packet(CLOSE, b"\x09", seq=1)
    case("advisory-with-seq", "CLS-02", "contradiction", sent, refused("malformed", None))


def _admissions(area: Area, x: Exchange) -> None:
    """The server and RESPONSE."""

    def case(
        slug: str, reqs: str, flags: str, sent: bytes, reason: str = "", late: int = 0, answered: bool = True,
        **more: Any,
    ) -> None:  # fmt: skip
        now = x.now + late * SECOND
        if reason:
            result = {"drop": reason, "answer": advisory(0x01, now) if answered else b""}
        else:
            result = {"packet": x.ack_with(timestamp=now), **x.keys}
        given = x.server(packet=sent, previous_secret=None, seen_before=False, now_ns=U64(now))
        area.case(
            f"admit-{slug}", "handshake.admit", reqs, f"{flags} recommended_construction", {**given, **more},
            result,
        )  # fmt: skip

    case("valid", "HS-01 HS-02 SEQ-03", "valid", x.response)
    case("second-time", "HS-07", "replayed", x.response, "replay_drops", seen_before=True)
    case("30s-late", "HS-02", "edge stale", x.response, late=30)
    case("31s-late", "HS-02", "beyond stale", x.response, "stale_response", late=31)
    for name, bit in (
        ("issue-time", 160 + 31), ("difficulty", 160 + 39), ("random", 160 + 40), ("mac", 160 + 64),
        ("mac-last", 160 + 127),
    ):  # fmt: skip
        sent = flip(x.response, bit)
        case(f"session-id-{name}", "HS-01 HS-02", "tampered", sent, "bad_session_id")
    sent = flip(x.response, 640 + 8)
    case("other-client-key", "HS-01", "tampered", sent, "bad_session_id")
    ip = x.client_ip[:15] + b"\x08"
    case("other-ip", "HS-01", "contradiction", x.response, "bad_session_id", client_ip=ip)
    plain_v4 = x.client_ip[12:] + bytes(12)
    case("ip-not-mapped", "HS-01", "contradiction", x.response, "bad_session_id", client_ip=plain_v4)
    case("other-secret", "HS-01", "wrong_key", x.response, "bad_session_id", secret=filler("other K", 32))
    case(
        "previous-secret", "HS-05", "edge", x.response, secret=filler("new K", 32),
        previous_secret={"secret": x.secret, "rotated_at_ns": U64(x.now)},
    )  # fmt: skip
    sent = x.response_with(solution=flip(x.solution, 0))
    case("wrong-solution", "HS-02 HS-03", "tampered", sent, "bad_puzzle")
    sent = flip(flip(x.response, 640 + 256), 400)
    case("puzzle-before-hmac", "HS-02", "tampered", sent, "bad_puzzle")
    y = replace(x, label="harder", difficulty=17)
    n = 0
    while leading_zero_bits(sha256(y.seed + n.to_bytes(32, "big"))) != 16:
        n += 1
    sent = y.response_with(solution=n.to_bytes(32, "big"))
    case("one-bit-short", "HS-03", "beyond", sent, "bad_puzzle", secret=y.secret, random=y.random)
    low = LOW_ORDER[4]
    session_id = x.session_id_for(low)
    solution = solve(puzzle_seed_of(x.secret, session_id, x.client_ip, low), x.difficulty)
    payload = low + solution + bytes(48)
    sent = packet(RESPONSE, payload, flags=ENCRYPTED | REQUIRE_ACK, session_id=session_id, timestamp=x.now)
    case("low-order", "KEY-01", "low_order", sent, "low_order_key")
    for name, bit in (
        ("require-ack", 26), ("seq", 95), ("timestamp", 351), ("hmac", 384), ("hmac-last", 639),
        ("sealed", 640 + 512), ("tag", 640 + 895),
    ):  # fmt: skip
        sent = flip(x.response, bit)
        case(f"bit-{name}", "HS-02 SEAL-06", "tampered", sent, "auth_fail")
    sent = x.response_with(nonce_seq=x.c0 + 1)
    case("sealed-for-other-seq", "SEAL-02 SEAL-07", "wrong_key", sent, "decrypt_fail")
    for name, proof in (
        ("zero", bytes(32)), ("over-seed", proof_of(x.shared, x.seed)), ("bit", flip(proof_of(x.shared,
         x.session_id), 255)), ("plain-hash", sha256(x.shared + x.session_id)),
    ):  # fmt: skip
        case(f"proof-{name}", "HS-08", "tampered", x.response_with(proof=proof), "bad_proof")
    for seq in (SERVER_BASE, 2**63 - 1, 2**64 - 1):
        sent = x.response_with(seq=seq)
        case(f"seq-{seq:x}", "SEQ-06", "reflected", sent, "reflected")
    case("ack-not-zero", "SEQ-03", "contradiction", x.response_with(ack=1), "malformed")
    sent = x.response_with(flags=REQUIRE_ACK)
    case("not-encrypted", "WIRE-08", "contradiction", sent, "malformed")
    case("size-113", "HS-13", "oversized", x.response_with(size=113), "malformed")
    sent = x.response_with(version=2)
    case("version-2", "WIRE-02", "foreign_version", sent, "version_mismatch", answered=False)


def _establishing(area: Area, x: Exchange) -> None:
    """The client and the handshake ACK."""

    def case(slug: str, reqs: str, flags: str, sent: bytes, reason: str, error: str | None) -> None:
        result = {"drop": reason, "error": error} if reason else {"peer_initial_seq": U64(x.s0), **x.keys}
        area.case(f"ack-{slug}", "handshake.establish", reqs, flags, x.client(packet=sent), result)

    case("valid", "HS-11 SEQ-03", "valid", x.ack, "", None)
    for name, bit in (
        ("hmac", 384), ("hmac-last", 639), ("seq", 95), ("ack", 159), ("timestamp", 288), ("flags", 26),
    ):  # fmt: skip
        case(f"bit-{name}", "HS-11 SEAL-06", "tampered", flip(x.ack, bit), "auth_fail", "EBADMSG")
    sent = x.ack[:48] + bytes(32)
    case("hmac-zero", "HS-11 SEAL-04", "tampered", sent, "auth_fail", "EBADMSG")
    for offset in (-1, 1):
        sent = x.ack_with(ack=x.c0 + offset)
        case(f"other-ack-{offset}", "SEQ-03", "contradiction", sent, "bad_ack", None)
    for seq in (0, x.c0, SERVER_BASE - 1, 2**63):
        case(f"seq-{seq:x}", "SEQ-06", "reflected", x.ack_with(seq=seq), "reflected", None)
    sent = flip(x.ack, 287)
    case("other-session", "SEQ-03", "contradiction", sent, "unknown_session", None)
    for type_ in (DATA, CHALLENGE, RESPONSE):
        sent = {RESPONSE: x.response, CHALLENGE: x.challenge}.get(type_) or x.ack_with(type_)
        case(f"type-{type_:x}", "WIRE-06 SEQ-03", "illegal_type", sent, "unexpected_type", None)
    case("type-d", "WIRE-05", "illegal_type", x.ack_with(0xD), "unknown_type", None)
    case("version-2", "WIRE-02", "foreign_version", x.ack_with(version=2), "version_mismatch", None)
    sent = packet(CLOSE, b"")
    case("close-empty", "CLS-02", "wrong_size", sent, "malformed", None)
    sent = sign(session_keys(x.shared)[1], header(CLOSE, seq=x.s0, session_id=x.session_id), b"")
    case("close-authentic", "CLS-02 SEQ-03", "contradiction", sent, "malformed", None)
