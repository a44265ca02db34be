# SPDX-License-Identifier: GPL-2.0-or-later
"""Vectors of what raw IP does otherwise: window, resending, handshake (TRN-04 to TRN-08, HS-13, HS-14)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from casework import U64, Area, Values, filler, flip
from derivations import ACK, CHALLENGE, CLOSE, INIT, PRIORITY, SECOND, SERVER_BASE
from exchange import WALL, Exchange, packet

MILLISECOND = 10**6


def raw() -> Area:
    area = Area("raw", "What raw IP does otherwise than TCP (TRN-04 to TRN-08, HS-13, HS-14)")
    _windows(area)
    _timeouts(area)
    _handshake(area, RawExchange("raw"))
    return area


def window(initial: int, seqs: Iterable[int]) -> Values:
    """TRN-04 and TRN-06: what becomes of each seq, and the ack after each."""
    expected, early = initial + 1, set[int]()
    outcomes, acks = [], []
    for seq in seqs:
        if seq < expected or seq in early:
            outcomes.append("duplicate")
        elif seq >= expected + 64:
            outcomes.append("out_of_window")
        else:
            outcomes.append("accepted")
            early.add(seq)
            while expected in early:
                expected += 1
        acks.append(U64(expected - 1))
    return {"outcomes": outcomes, "acks": acks}


def _windows(area: Area) -> None:
    def case(slug: str, flags: str, initial: int, seqs: list[int], reqs: str = "TRN-04 TRN-06") -> None:
        given = {"initial": U64(initial), "seqs": [U64(seq) for seq in seqs]}
        area.case(f"window-{slug}", "raw.window", reqs, flags, given, window(initial, seqs))

    case("in-order", "valid", 100, [101, 102, 103])
    case("gap", "reordered", 100, [101, 103, 104, 102, 105])
    case("backwards", "reordered", 100, list(range(110, 100, -1)))
    case("twice", "replayed", 100, [101, 101, 103, 103, 102, 103])
    case("the-initial-again", "replayed", 100, [100, 101, 100])
    case("below-the-initial", "stale", 100, [99, 0, 101])
    case("last-inside", "edge", 100, [164, 101])
    case("first-outside", "beyond", 100, [165, 101, 165])
    case("moves-with-the-gap", "edge", 100, [102, 165, 101, 166, 167])
    case("never-forgets", "replayed", 100, [*range(101, 180), 102, 101, 179])
    case("full", "edge", 100, [*range(102, 165), 165, 101, 165])
    case("server-range", "valid", SERVER_BASE, [SERVER_BASE + 2, SERVER_BASE + 1])
    case("end-of-range", "edge", 2**63 - 4, [2**63 - 1, 2**63 - 2, 2**63 - 3])


def _timeouts(area: Area) -> None:
    """TRN-04 with E-41: clamp(srtt + 4 jitter, 200 ms, 10 s), doubling up to 10 s, eight sends."""

    def case(slug: str, flags: str, samples: list[int], rto: int) -> None:
        wait, at, sends = rto, 0, [0]
        for _ in range(7):
            at += wait
            sends.append(at)
            wait = min(2 * wait, 10 * SECOND)
        given = {"samples_ns": [U64(sample) for sample in samples]}
        result = {
            "rto_ns": U64(rto), "sends_ns": [U64(send) for send in sends], "timeout_ns": U64(at + wait),
        }  # fmt: skip
        area.case(f"timeouts-{slug}", "raw.timeouts", "TRN-04", flags, given, result)

    case("no-sample", "valid", [], SECOND)
    case("quick", "edge", [20 * MILLISECOND], 200 * MILLISECOND)
    case("one-sample", "valid", [800 * MILLISECOND], 800 * MILLISECOND)
    # srtt 800 + 1600/8 - 800/8 = 900 ms, jitter 800/8 = 100 ms
    case("jitter", "valid", [800 * MILLISECOND, 1600 * MILLISECOND], 1300 * MILLISECOND)
    case("lower-clamp", "edge", [200 * MILLISECOND], 200 * MILLISECOND)
    case("slow", "edge", [10 * SECOND], 10 * SECOND)
    case("upper-clamp", "beyond", [16 * SECOND], 10 * SECOND)


@dataclass(frozen=True)
class RawExchange(Exchange):
    """The same handshake over raw IP: what is not protected echoes the client's key (HS-14)."""

    @property
    def echo(self) -> int:
        return int.from_bytes(self.client_public[:8], "big")

    @cached_property
    def challenge(self) -> bytes:
        return self.challenge_with()

    def challenge_with(self, **changes: Any) -> bytes:
        fields = {"session_id": self.session_id, "timestamp": self.now, "ack": self.echo, **changes}
        return packet(CHALLENGE, self.challenge_payload, **fields)

    def close(self, code: int, **changes: Any) -> bytes:
        """An advisory CLOSE."""
        return packet(CLOSE, bytes([code]), **{"timestamp": self.now, "ack": self.echo, **changes})

    def client(self, **more: Any) -> Values:
        return {"transport": "raw", **super().client(**more)}

    def server(self, **more: Any) -> Values:
        return {"transport": "raw", **super().server(**more)}


def _handshake(area: Area, x: RawExchange) -> None:
    both = {**x.server(), **x.client()}
    del both["challenge"]
    area.case(
        "transcript", "handshake.transcript", "HS-01 HS-14 TRN-03",
        "transcript recommended_construction valid", both,
        {"init": x.init, "challenge": x.challenge, "response": x.response, "ack": x.ack, **x.keys},
    )  # fmt: skip

    def challenged(slug: str, reqs: str, flags: str, init: bytes, reason: str, answer: bytes) -> None:
        result = {"drop": reason, "answer": answer} if reason else {"packet": answer}
        area.case(slug, "handshake.challenge", reqs, flags, x.server(packet=init), result)

    challenged("challenge", "HS-14", "valid recommended_construction", x.init, "", x.challenge)
    foreign = packet(INIT, x.init[80:], timestamp=WALL, version=2)
    refusal = x.close(0x0A)
    challenged("foreign-init", "WIRE-02 HS-14", "foreign_version", foreign, "version_mismatch", refusal)
    short = packet(INIT, x.init[80:111], timestamp=WALL, version=2)
    challenged("foreign-init-without-key", "WIRE-02 HS-14", "truncated", short, "version_mismatch", b"")
    stale = packet(INIT, x.init[80:], timestamp=WALL - 31 * SECOND)
    challenged("stale-init", "HS-06", "stale", stale, "stale_init", b"")

    def answered(slug: str, reqs: str, flags: str, sent: bytes, result: Values) -> None:
        area.case(slug, "handshake.response", reqs, flags, x.client(challenge=sent), result)

    def waits(reason: str) -> Values:
        return {"drop": reason, "error": None}

    answered("response", "HS-14 HS-08", "valid", x.challenge, {"packet": x.response})
    for name, ack in (("none", 0), ("other", x.echo ^ 1), ("little-endian", _swapped(x.echo))):
        flags = "contradiction"
        sent = x.challenge_with(ack=ack)
        answered(f"challenge-echo-{name}", "HS-14", flags, sent, waits("spoofed"))
        answered(f"close-echo-{name}", "HS-14", flags, x.close(9, ack=ack), waits("spoofed"))
    for code, error in ((0x09, "ECONNREFUSED"), (0x0A, "EPROTONOSUPPORT")):
        answered(f"close-{code:02x}", "HS-10 HS-14", "valid", x.close(code), {"closed": True, "error": error})
    sent = x.close(0x0A, version=2)
    result = {"drop": "version_mismatch", "error": "EPROTONOSUPPORT"}
    answered("close-0a-foreign", "WIRE-02 HS-14", "foreign_version", sent, result)
    sent = x.close(0x0A, version=2, ack=0)
    answered("close-0a-foreign-no-echo", "WIRE-02 HS-14", "contradiction", sent, waits("version_mismatch"))

    def admitted(slug: str, reqs: str, flags: str, sent: bytes, reason: str) -> None:
        result = {"drop": reason, "answer": b""} if reason else {"packet": x.ack, **x.keys}
        given = x.server(packet=sent, previous_secret=None, seen_before=False)
        area.case(slug, "handshake.admit", reqs, f"{flags} recommended_construction", given, result)

    admitted("admit", "HS-01", "valid", x.response, "")
    for name, sent, reason in (
        ("hmac", flip(x.response, 384), "auth_fail"),
        ("session-id", flip(x.response, 160 + 64), "bad_session_id"),
        ("solution", x.response_with(solution=flip(x.solution, 0)), "bad_puzzle"),
        ("proof", x.response_with(proof=bytes(32)), "bad_proof"),
    ):
        admitted(f"admit-{name}-in-silence", "HS-13", "tampered", sent, reason)

    def established(slug: str, reqs: str, flags: str, sent: bytes, reason: str) -> None:
        result = waits(reason) if reason else {"peer_initial_seq": U64(x.s0), **x.keys}
        area.case(slug, "handshake.establish", reqs, flags, x.client(packet=sent), result)

    established("ack", "HS-11 SEQ-03", "valid", x.ack, "")
    established("forged-ack", "HS-11 SEQ-03", "tampered", flip(x.ack, 384), "auth_fail")
    void = x.ack_with(seq=x.s0 + 1, flags=PRIORITY)
    established("void-before-ack", "SEQ-03 TRN-07", "reordered", void, "unexpected_type")
    other = x.ack_with(session_id=filler("another session", 16))
    established("ack-of-another-session", "SEQ-03", "contradiction", other, "unknown_session")
    wrong = x.ack_with(ACK, ack=x.c0 + 1)
    established("ack-of-another-seq", "SEQ-03", "contradiction", wrong, "bad_ack")


def _swapped(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "big"), "little")
