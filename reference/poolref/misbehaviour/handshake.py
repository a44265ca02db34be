# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about the handshake (sections 8 and 9)."""

from __future__ import annotations

import errno
import hashlib
from typing import Final

from .. import crypto, puzzle, wire
from ..constants import (
    CHALLENGE_SIZE,
    HEADER_SIZE,
    HMAC_SIZE,
    KEY_SIZE,
    SECOND,
    SEQ_RANGE,
    ErrorCode,
    Flag,
    Role,
    Type,
)
from ..counters import DropReason
from ..errors import DecodeError
from ..wire import Challenge, offset_of
from .kinds import Kind
from .low_order import LOW_ORDER_POINTS
from .model import (
    CLIENT,
    SERVER,
    Deed,
    Draft,
    Parameter,
    Phase,
    Reaction,
    Switch,
    of_kind,
)

_C, _S = Role.CLIENT, Role.SERVER
_OPENING: Final = (Kind.INIT, Kind.CHALLENGE)
_CLOSING: Final = (Kind.RESPONSE, Kind.HANDSHAKE_ACK)
_CHALLENGE_KEY: Final = slice(offset_of("challenge", "server_pubkey"), KEY_SIZE)
_DIFFICULTY: Final = offset_of("challenge", "difficulty")
_SOLUTION: Final = slice(KEY_SIZE, 2 * KEY_SIZE)


def _refused(reason: DropReason) -> Reaction:
    """A RESPONSE that fails (HS-13)."""
    return Reaction({reason: 1}, refusal=ErrorCode.AUTH_FAIL, gives_up=True)


def _unanswered(reason: DropReason | None = None) -> Reaction:
    """No INIT worth an answer came: the server gives up 10 s after it accepted the connection."""
    return Reaction({} if reason is None else {reason: 1}, gives_up=True, after_s=10)


def _no_response(reason: DropReason | None = None) -> Reaction:
    return Reaction({} if reason is None else {reason: 1}, gives_up=True, after_s=30)


def _no_challenge(reason: DropReason | None = None) -> Reaction:
    return Reaction({} if reason is None else {reason: 1}, error=errno.ETIMEDOUT, after_s=10)


def _no_ack(reason: DropReason | None = None) -> Reaction:
    return Reaction({} if reason is None else {reason: 1}, error=errno.ETIMEDOUT, after_s=30)


def _failed(reason: DropReason) -> Reaction:
    return Reaction({reason: 1}, error=errno.EBADMSG)


# -- keys


def _agree_on_zero(deed: Deed, private: bytes, peer_public: bytes, shared: bytes) -> bytes:
    """What an X25519 that checks nothing gives the peer."""
    return bytes(KEY_SIZE)


def _low_order(deed: Deed, draft: Draft) -> None:
    draft.clear = LOW_ORDER_POINTS[str(deed.values["point"])] + draft.clear[KEY_SIZE:]


def _agree_anew(deed: Deed, private: bytes, peer_public: bytes, shared: bytes) -> bytes:
    other = hashlib.sha256(private).digest()
    deed.notes["public"] = crypto.public_key(other)
    return crypto.exchange(other, peer_public)


def _other_key(deed: Deed, draft: Draft) -> None:
    draft.clear = deed.notes.get("public", bytes(KEY_SIZE)) + draft.clear[KEY_SIZE:]


def _derive_otherwise(deed: Deed, private: bytes, peer_public: bytes, shared: bytes) -> bytes:
    return hashlib.sha256(shared).digest()


# -- payloads


def _wrong_solution(deed: Deed, draft: Draft) -> None:
    try:
        challenge = Challenge.unpack(deed.heard[HEADER_SIZE:])
    except DecodeError:  # the puzzle is not known
        challenge = Challenge(b"", b"", 0, b"")
    candidate = int.from_bytes(draft.clear[_SOLUTION], "big")
    while True:
        candidate = (candidate + 1) % (1 << 256)
        solution = candidate.to_bytes(KEY_SIZE, "big")
        if not challenge.difficulty or not puzzle.solves(
            challenge.puzzle_seed, solution, challenge.difficulty
        ):
            draft.clear = draft.clear[:KEY_SIZE] + solution
            return


def _wrong_proof(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:-1] + bytes([draft.plaintext[-1] ^ 1])


def _short_proof(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:-1]


def _resized(deed: Deed, draft: Draft) -> None:
    draft.clear = draft.clear[: deed.number("size")].ljust(deed.number("size"), b"\0")


def _too_difficult(deed: Deed, draft: Draft) -> None:
    difficulty = deed.number("bits").to_bytes(2, "big")
    draft.clear = draft.clear[:_DIFFICULTY] + difficulty + draft.clear[_DIFFICULTY + 2 :]


def _bad_address(deed: Deed, draft: Draft) -> None:
    """An address in which nothing but the checksum is set, and that is not the one of zeros."""
    draft.clear = draft.clear[:-1] + b"\1"


def _off_clock(deed: Deed, draft: Draft) -> None:
    draft.header.timestamp = max(0, draft.header.timestamp + deed.number("seconds") * SECOND)


# -- headers


def _not_plain(deed: Deed, draft: Draft) -> None:
    name = str(deed.values["field"])
    value: int | bytes = int(Flag.PRIORITY)
    if name == "hmac":
        value = b"\1" * HMAC_SIZE
    setattr(draft.header, name, value)


def _named_session(deed: Deed, draft: Draft) -> None:
    draft.header.session_id = b"\1" * 16


def _nameless(deed: Deed, draft: Draft) -> None:
    draft.header.session_id = wire.ZERO_SESSION_ID


def _repeat_id(deed: Deed, draft: Draft) -> None:
    draft.header.session_id = deed.lasting.setdefault("session_id", draft.header.session_id)


def _other_id(deed: Deed, draft: Draft) -> None:
    draft.header.session_id = draft.header.session_id[:-1] + bytes([draft.header.session_id[-1] ^ 1])


def _set_version(deed: Deed, draft: Draft) -> None:
    draft.header.version = deed.number("version")


def _set_type(deed: Deed, draft: Draft) -> None:
    draft.header.type = deed.number("type")


def _acknowledge(deed: Deed, draft: Draft) -> None:
    draft.header.ack = 1


def _acknowledge_another(deed: Deed, draft: Draft) -> None:
    draft.header.ack ^= 1


def _peers_range(deed: Deed, draft: Draft) -> None:
    mine, other = SEQ_RANGE[deed.role], SEQ_RANGE[Role(1 - deed.role)]
    draft.header.seq += other[0] - mine[0]


def _unencrypted(deed: Deed, draft: Draft) -> None:
    draft.encrypted = False


def _filled(deed: Deed, draft: Draft) -> None:
    draft.plaintext = bytes(8)


# -- what is sent


def _flip_hmac(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet[: HEADER_SIZE - 1] + bytes([packet[HEADER_SIZE - 1] ^ 1]) + packet[HEADER_SIZE:]]


def _twice(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet, packet]


def _the_first(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    first: bytes = deed.lasting.setdefault("packet", packet)
    return [first]


def _refusal(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [wire.advisory_close(deed.number("code"), draft.header.timestamp)]


def _foreign_refusal(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    close = wire.advisory_close(ErrorCode.VERSION_MISMATCH, draft.header.timestamp)
    return [bytes([deed.number("version") << 4 | Type.CLOSE]) + close[1:]]


def _long_refusal(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [wire.build(Type.CLOSE, bytes([ErrorCode.OVERLOAD, 0]), timestamp=draft.header.timestamp)]


_VERSION: Final = Parameter("version", 2, "the version nibble", 0, 15)

KEYS: Final = (
    Switch(
        "low-order-key", ("KEY-01",), "The public key is of low order, and the shared secret known to all.",
        Phase.HANDSHAKE,
        {_C: _refused(DropReason.LOW_ORDER_KEY), _S: _failed(DropReason.LOW_ORDER_KEY)},
        kinds=(Kind.INIT, Kind.CHALLENGE, Kind.RESPONSE), change=_low_order, agree=_agree_on_zero,
        parameters=(
            Parameter("point", "order8-a", "which of them", choices=tuple(LOW_ORDER_POINTS)),
            Parameter("every", 1, "1, to be consistent", 1, 1),
        ),
    ),
    Switch(
        "other-client-key", ("HS-01", "HS-02"), "RESPONSE has, and uses, another key than INIT.",
        Phase.HANDSHAKE, _refused(DropReason.BAD_SESSION_ID), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_other_key, agree=_agree_anew,
    ),
    Switch(
        "other-derivation", ("KEY-02",), "The keys are derived otherwise.",
        Phase.HANDSHAKE, _refused(DropReason.AUTH_FAIL), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=lambda deed, draft: None, agree=_derive_otherwise,
    ),
)  # fmt: skip

PAYLOADS: Final = (
    Switch(
        "wrong-solution", ("HS-03", "HS-02"), "The solution does not solve the puzzle.",
        Phase.HANDSHAKE, _refused(DropReason.BAD_PUZZLE), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_wrong_solution,
    ),
    Switch(
        "wrong-proof", ("HS-08",), "The proof is wrong, under a right tag and hmac.",
        Phase.HANDSHAKE, _refused(DropReason.BAD_PROOF), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_wrong_proof,
    ),
    Switch(
        "short-proof", ("HS-01", "WIRE-08"), "RESPONSE is a byte too short, within the proof.",
        Phase.HANDSHAKE, _refused(DropReason.MALFORMED), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_short_proof,
    ),
    Switch(
        "response-size", ("HS-01", "WIRE-08"), "The part of the RESPONSE before the proof has a wrong size.",
        Phase.HANDSHAKE, _refused(DropReason.MALFORMED), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_resized, parameters=(Parameter("size", 65, "bytes instead of 64", 0, 60_000),),
    ),
    Switch(
        "opening-size", ("HS-01",), "INIT or CHALLENGE has a wrong size.",
        Phase.HANDSHAKE,
        {_C: _unanswered(DropReason.MALFORMED), _S: _no_challenge(DropReason.MALFORMED)},
        kinds=_OPENING, change=_resized,
        parameters=(Parameter("size", CHALLENGE_SIZE - 1, "bytes instead of 64 or 98", 0, 60_000),),
    ),
    Switch(
        "bad-address", ("HS-12", "ADDR-01", "ADDR-02"), "The address has a wrong checksum.",
        Phase.HANDSHAKE,
        {_C: _unanswered(DropReason.MALFORMED), _S: _no_challenge(DropReason.MALFORMED)},
        kinds=_OPENING, change=_bad_address,
    ),
    Switch(
        "stale-init", ("HS-06",), "INIT's timestamp is not the present time.",
        Phase.HANDSHAKE, _unanswered(DropReason.STALE_INIT), roles=CLIENT, kinds=(Kind.INIT,),
        change=_off_clock,
        parameters=(Parameter("seconds", -31, "how far it is off", -(1 << 30), 1 << 30),),
    ),
    Switch(
        "too-difficult", ("HS-04",), "The puzzle is more difficult than any client has to accept.",
        Phase.HANDSHAKE, Reaction({DropReason.TOO_DIFFICULT: 1}, error=errno.ERANGE), roles=SERVER,
        kinds=(Kind.CHALLENGE,), change=_too_difficult,
        parameters=(Parameter("bits", 25, "its difficulty", 25, 65_535),),
    ),
)  # fmt: skip

HEADERS: Final = (
    Switch(
        "opening-version", ("WIRE-02", "AMD-02"), "INIT or CHALLENGE has another version.",
        Phase.HANDSHAKE,
        {
            _C: Reaction(
                {DropReason.VERSION_MISMATCH: 1}, refusal=ErrorCode.VERSION_MISMATCH, gives_up=True
            ),
            _S: _no_challenge(DropReason.VERSION_MISMATCH),
        },
        kinds=_OPENING, change=_set_version, parameters=(_VERSION,),
    ),
    Switch(
        "opening-not-plain", ("SEQ-03", "SEAL-04"), "INIT or CHALLENGE has a field that should be zero.",
        Phase.HANDSHAKE,
        {_C: _unanswered(DropReason.MALFORMED), _S: _no_challenge(DropReason.MALFORMED)},
        kinds=_OPENING, change=_not_plain,
        parameters=(Parameter("field", "flags", "which field", choices=("flags", "seq", "hmac")),),
    ),
    Switch(
        "init-session-id", ("WIRE-01",), "INIT has a session_id.",
        Phase.HANDSHAKE, _unanswered(DropReason.MALFORMED), roles=CLIENT, kinds=(Kind.INIT,),
        change=_named_session,
    ),
    Switch(
        "zero-session-id", ("HS-14",), "CHALLENGE's session_id is zero.",
        Phase.HANDSHAKE, _failed(DropReason.BAD_SESSION_ID), roles=SERVER, kinds=(Kind.CHALLENGE,),
        change=_nameless,
    ),
    Switch(
        "repeated-session-id", ("HS-14",), "CHALLENGE has the session_id of an earlier session.",
        Phase.HANDSHAKE, _failed(DropReason.BAD_SESSION_ID), roles=SERVER, kinds=(Kind.CHALLENGE,),
        change=_repeat_id, attempts=2,
    ),
    Switch(
        "other-type-first", ("WIRE-06",), "Another type comes where INIT or CHALLENGE should.",
        Phase.HANDSHAKE,
        {_C: _unanswered(DropReason.UNEXPECTED_TYPE), _S: _no_challenge(DropReason.UNEXPECTED_TYPE)},
        kinds=_OPENING, change=_set_type,
        parameters=(Parameter("type", int(Type.DATA), "the type", 3, 12),),
    ),
    Switch(
        "unknown-type-first", ("WIRE-05",), "A reserved type comes where INIT or CHALLENGE should.",
        Phase.HANDSHAKE,
        {_C: _unanswered(DropReason.UNKNOWN_TYPE), _S: _no_challenge(DropReason.UNKNOWN_TYPE)},
        kinds=_OPENING, change=_set_type, parameters=(Parameter("type", 13, "the type", 13, 15),),
    ),
    Switch(
        "response-ack", ("SEQ-03",), "RESPONSE acknowledges something.",
        Phase.HANDSHAKE, _refused(DropReason.MALFORMED), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_acknowledge,
    ),
    Switch(
        "response-unencrypted", ("WIRE-08",), "RESPONSE does not set ENCRYPTED.",
        Phase.HANDSHAKE, _refused(DropReason.MALFORMED), roles=CLIENT, kinds=(Kind.RESPONSE,),
        change=_unencrypted,
    ),
    Switch(
        "closing-session-id", ("HS-01", "TRN-01"), "RESPONSE or handshake ACK has another session_id.",
        Phase.HANDSHAKE,
        {_C: _refused(DropReason.BAD_SESSION_ID), _S: _no_ack(DropReason.UNKNOWN_SESSION)},
        kinds=_CLOSING, change=_other_id,
    ),
    Switch(
        "closing-seq", ("SEQ-01", "SEQ-06"), "RESPONSE or handshake ACK has a seq of the peer's range.",
        Phase.HANDSHAKE,
        {_C: _refused(DropReason.REFLECTED), _S: _no_ack(DropReason.REFLECTED)},
        kinds=_CLOSING, change=_peers_range,
    ),
    Switch(
        "ack-of-another", ("SEQ-03",), "The handshake ACK acknowledges something else than the RESPONSE.",
        Phase.HANDSHAKE, _no_ack(DropReason.BAD_ACK), roles=SERVER, kinds=(Kind.HANDSHAKE_ACK,),
        change=_acknowledge_another,
    ),
    Switch(
        "handshake-ack-payload", ("WIRE-08",), "The handshake ACK carries a sealed payload.",
        Phase.HANDSHAKE, _no_ack(DropReason.MALFORMED), roles=SERVER, kinds=(Kind.HANDSHAKE_ACK,),
        change=_filled,
    ),
)  # fmt: skip

PACKETS: Final = (
    Switch(
        "closing-hmac", ("SEAL-04", "HS-11", "HS-02"), "RESPONSE or handshake ACK has a wrong hmac.",
        Phase.HANDSHAKE,
        {_C: _refused(DropReason.AUTH_FAIL), _S: _failed(DropReason.AUTH_FAIL)},
        kinds=_CLOSING, emit=_flip_hmac,
    ),
    Switch(
        "response-twice", ("SEQ-03", "HS-07"), "RESPONSE is sent twice on its connection.",
        Phase.HANDSHAKE, Reaction({DropReason.REPLAY: 1}), roles=CLIENT, kinds=(Kind.RESPONSE,),
        emit=_twice,
    ),
    Switch(
        "replayed-response", ("HS-07",), "An earlier session's RESPONSE is sent instead of a new one.",
        Phase.HANDSHAKE, _refused(DropReason.REPLAY), roles=CLIENT, kinds=(Kind.RESPONSE,),
        emit=_the_first, attempts=2,
    ),
    Switch(
        "challenge-twice", ("SEQ-03", "WIRE-06"), "A second CHALLENGE follows the first.",
        Phase.HANDSHAKE, Reaction({DropReason.UNEXPECTED_TYPE: 1}), roles=SERVER, kinds=(Kind.CHALLENGE,),
        emit=_twice,
    ),
    Switch(
        "refuses", ("HS-10",), "A client is refused though there is room for it.",
        Phase.HANDSHAKE, Reaction(error=errno.ECONNREFUSED), roles=SERVER, kinds=(Kind.CHALLENGE,),
        emit=_refusal,
        parameters=(
            of_kind(Kind.CHALLENGE, Kind.HANDSHAKE_ACK),
            Parameter("code", int(ErrorCode.OVERLOAD), "of the advisory CLOSE", 0, 255),
        ),
    ),
    Switch(
        "claims-version", ("WIRE-02", "AMD-02"), "INIT is answered as if its version were another.",
        Phase.HANDSHAKE,
        Reaction({DropReason.VERSION_MISMATCH: 1}, error=errno.EPROTONOSUPPORT), roles=SERVER,
        kinds=(Kind.CHALLENGE,), emit=_foreign_refusal, parameters=(_VERSION,),
    ),
    Switch(
        "overlong-refusal", ("CLS-02",), "The advisory CLOSE has two bytes.",
        Phase.HANDSHAKE, _no_challenge(DropReason.MALFORMED), roles=SERVER, kinds=(Kind.CHALLENGE,),
        emit=_long_refusal,
    ),
)  # fmt: skip
