# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about the header, packet protection and sequence numbers (sections 1, 3, 6, 7)."""

from __future__ import annotations

from typing import Final

from .. import crypto
from ..constants import HEADER_SIZE, MAX_PAYLOAD, SEQ_RANGE, TAG_SIZE, ErrorCode, Flag, Role, Type
from ..counters import DropReason
from ..wire import HMAC_OFFSET, ZERO_HMAC, Header, parse
from .kinds import Kind
from .model import EVERY, NTH, Deed, Draft, Parameter, Phase, Reaction, Switch, of_kind, sign

_UNAUTHENTIC: Final = Reaction({DropReason.AUTH_FAIL: 1}, ends="protection", code=ErrorCode.AUTH_FAIL)
_UNOPENED: Final = Reaction({DropReason.DECRYPT_FAIL: 1}, ends="protection", code=ErrorCode.DECRYPT_FAIL)
_MALFORMED: Final = Reaction({DropReason.MALFORMED: 1})
_ANY_DATA: Final = (of_kind(Kind.DATA), NTH, EVERY)
_BODY: Final = (Kind.FRAGMENT, Kind.HEARTBEAT)  # kinds with a payload that every session sends
_MESSAGES: Final = (of_kind(Kind.DATA, *_BODY), NTH, EVERY)


# -- protection


def _flip_hmac(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    at = HMAC_OFFSET + deed.number("byte")
    return [packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]]


def _flip_tag(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    """Signed anew, so that nothing but the tag is wrong."""
    at = len(packet) - TAG_SIZE + deed.number("byte")
    flipped = packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]
    return [flipped if draft.keys is None else sign(draft.keys, flipped)]


def _other_nonce(deed: Deed, draft: Draft) -> None:
    draft.nonce_seq = draft.header.seq ^ 1


def _little_endian_nonce(deed: Deed, draft: Draft) -> None:
    draft.nonce_seq = int.from_bytes(draft.header.seq.to_bytes(8, "big"), "little")


def _unsigned(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet[:HMAC_OFFSET] + ZERO_HMAC + packet[HEADER_SIZE:]]


def _mac_of_plaintext(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    if draft.keys is None:
        return [packet]
    header = packet[:HMAC_OFFSET]
    tag = crypto.mac(draft.keys.hmac_key, header + ZERO_HMAC + draft.plaintext)
    return [header + tag + packet[HEADER_SIZE:]]


def _in_clear(deed: Deed, draft: Draft) -> None:
    draft.seal, draft.encrypted = False, False


def _flag_cleared(deed: Deed, draft: Draft) -> None:
    draft.encrypted = False


def _flag_without_seal(deed: Deed, draft: Draft) -> None:
    draft.seal, draft.encrypted = False, True
    draft.plaintext = draft.plaintext.ljust(TAG_SIZE + 1, b"\0")


def _sealed_nothing(deed: Deed, draft: Draft) -> None:
    """ENCRYPTED over fewer bytes than a tag and one byte of contents."""
    draft.seal, draft.encrypted, draft.plaintext = False, True, bytes(deed.number("size"))


def _filled(deed: Deed, draft: Draft) -> None:
    draft.plaintext = bytes(8)


# -- the header


def _set_reserved0(deed: Deed, draft: Draft) -> None:
    draft.header.reserved0 = deed.number("value")


def _set_reserved1(deed: Deed, draft: Draft) -> None:
    draft.header.reserved1 = deed.number("value")


def _set_flag(deed: Deed, draft: Draft) -> None:
    draft.header.flags |= 1 << deed.number("bit")


def _compress(deed: Deed, draft: Draft) -> None:
    draft.header.flags |= Flag.COMPRESSED


def _set_channel(deed: Deed, draft: Draft) -> None:
    draft.header.channel = deed.number("channel")


def _set_version(deed: Deed, draft: Draft) -> None:
    draft.header.version = deed.number("version")


def _other_session(deed: Deed, draft: Draft) -> None:
    session_id = draft.header.session_id
    draft.header.session_id = session_id[:-1] + bytes([session_id[-1] ^ 1])


def _reserved_type(deed: Deed, draft: Draft) -> None:
    draft.header.type = deed.number("type")


def _handshake_type(deed: Deed, draft: Draft) -> None:
    draft.header.type = deed.number("type")


def _response_type(deed: Deed, draft: Draft) -> None:
    draft.header.type = int(Type.RESPONSE)
    draft.clear, draft.plaintext = bytes(64), bytes(32)


def _shorter(deed: Deed, draft: Draft) -> None:
    size = len(draft.clear) + len(draft.plaintext) + (TAG_SIZE if draft.keys and draft.plaintext else 0)
    draft.payload_len = max(0, size - deed.number("by"))


def _longer(deed: Deed, draft: Draft) -> None:
    size = len(draft.clear) + len(draft.plaintext) + (TAG_SIZE if draft.keys and draft.plaintext else 0)
    draft.payload_len = min(MAX_PAYLOAD, size + deed.number("by"))


def _cut_short(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet[: max(HEADER_SIZE, len(packet) - deed.number("by"))]]


def _without_request(deed: Deed, draft: Draft) -> None:
    draft.header.flags &= ~Flag.REQUIRE_ACK


def _with_request(deed: Deed, draft: Draft) -> None:
    draft.header.flags |= Flag.REQUIRE_ACK


# -- sequence numbers


def _replay(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet] * (1 + deed.number("times"))


def _replay_later(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    """The first of these packets comes again behind ``after`` others."""
    if not deed.notes:
        deed.notes["packet"], deed.notes["left"] = packet, deed.number("after")
        return [packet]
    deed.notes["left"] -= 1
    return [packet, deed.notes["packet"]] if deed.notes["left"] == 0 else [packet]


def _reflect(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet, deed.heard]


def _something_heard(deed: Deed, draft: Draft) -> bool:
    return bool(deed.heard) and _protected(parse(deed.heard))


def _protected(header: Header) -> bool:
    return header.hmac != ZERO_HMAC


def _reuse_seq(deed: Deed, draft: Draft) -> None:
    draft.header.seq = max(0, draft.header.seq - deed.number("behind"))


def _skip_seqs(deed: Deed, draft: Draft) -> None:
    draft.header.seq += deed.number("by")


def _peers_range(deed: Deed, draft: Draft) -> None:
    mine, other = SEQ_RANGE[deed.role], SEQ_RANGE[Role(1 - deed.role)]
    draft.header.seq += other[0] - mine[0]


def _beyond_all(deed: Deed, draft: Draft) -> None:
    draft.header.seq |= 1 << 63


def _ack_unsent(deed: Deed, draft: Draft) -> None:
    draft.header.ack += deed.number("by")


def _ack_before_first(deed: Deed, draft: Draft) -> None:
    low, _high = SEQ_RANGE[Role(1 - deed.role)]
    draft.header.ack = max(0, low - 1)


def _answers_own_range(deed: Deed, draft: Draft) -> None:
    draft.header.ack = SEQ_RANGE[deed.role][0] + 1


_BYTE = Parameter("byte", 0, "which byte of it, from its start", 0, 31)
_TAG_BYTE = Parameter("byte", TAG_SIZE - 1, "which byte of it, from its start", 0, TAG_SIZE - 1)
_BY = Parameter("by", 1, "how many bytes", 1, 4096)
_VERSION = Parameter("version", 2, "the version nibble", 0, 15)

PROTECTION: Final = (
    Switch(
        "bad-hmac", ("SEAL-03", "SEAL-04", "SEAL-06"), "One bit of the hmac is wrong.",
        Phase.DATA, _UNAUTHENTIC, parameters=(*_ANY_DATA, _BYTE), emit=_flip_hmac,
    ),
    Switch(
        "zero-hmac", ("SEAL-04",), "The hmac is zero, as if there were no keys yet.",
        Phase.DATA, _UNAUTHENTIC, parameters=_ANY_DATA, emit=_unsigned,
    ),
    Switch(
        "hmac-of-plaintext", ("SEAL-03",), "The hmac covers the plaintext instead of the bytes on the wire.",
        Phase.DATA, _UNAUTHENTIC, parameters=_MESSAGES, emit=_mac_of_plaintext,
    ),
    Switch(
        "bad-tag", ("SEAL-01", "SEAL-07"), "One bit of the tag is wrong under a right hmac.",
        Phase.DATA, _UNOPENED, parameters=(*_MESSAGES, _TAG_BYTE), emit=_flip_tag,
    ),
    Switch(
        "other-nonce", ("SEAL-02",), "The payload is sealed with the nonce of another seq.",
        Phase.DATA, _UNOPENED, parameters=_MESSAGES, change=_other_nonce,
    ),
    Switch(
        "little-endian-nonce", ("SEAL-02",), "The seq in the nonce is little-endian.",
        Phase.DATA, _UNOPENED, parameters=_MESSAGES, change=_little_endian_nonce,
    ),
    Switch(
        "unsealed", ("SEAL-04", "WIRE-08"), "The payload is sent in clear, and says so.",
        Phase.DATA, _MALFORMED, parameters=_MESSAGES, change=_in_clear,
    ),
    Switch(
        "encrypted-cleared", ("WIRE-08",), "The payload is sealed, but ENCRYPTED is not set.",
        Phase.DATA, _MALFORMED, parameters=_MESSAGES, change=_flag_cleared,
    ),
    Switch(
        "encrypted-unsealed", ("SEAL-01", "WIRE-08"), "ENCRYPTED is set over a payload in clear.",
        Phase.DATA, _UNOPENED, parameters=_MESSAGES, change=_flag_without_seal,
    ),
    Switch(
        "encrypted-short", ("WIRE-08",), "ENCRYPTED is set over less than a tag and one byte.",
        Phase.DATA, _MALFORMED, change=_sealed_nothing,
        parameters=(*_MESSAGES, Parameter("size", TAG_SIZE, "bytes of payload", 0, TAG_SIZE)),
    ),
    Switch(
        "ack-with-payload", ("WIRE-08",), "An ACK carries a sealed payload.",
        Phase.DATA, _MALFORMED, kinds=(Kind.ACK,), parameters=(NTH, EVERY), change=_filled,
    ),
)  # fmt: skip

HEADER: Final = (
    Switch(
        "reserved0", ("WIRE-01", "WIRE-03"), "The byte reserved0 is not zero.",
        Phase.DATA, _MALFORMED, change=_set_reserved0,
        parameters=(*_ANY_DATA, Parameter("value", 1, "of the byte", 1, 255)),
    ),
    Switch(
        "reserved1", ("WIRE-01", "WIRE-03"), "The byte reserved1 is not zero.",
        Phase.DATA, _MALFORMED, change=_set_reserved1,
        parameters=(*_ANY_DATA, Parameter("value", 1, "of the byte", 1, 255)),
    ),
    Switch(
        "reserved-flag", ("WIRE-03",), "A flag that has no meaning is set.",
        Phase.DATA, _MALFORMED, change=_set_flag,
        parameters=(*_ANY_DATA, Parameter("bit", 10, "which flag", 10, 15)),
    ),
    Switch(
        "compressed", ("WIRE-03",), "COMPRESSED is set.",
        Phase.DATA, _MALFORMED, parameters=_ANY_DATA, change=_compress,
    ),
    Switch(
        "channel-outside-data", ("WIRE-03", "CHAN-01"), "A packet other than DATA has a channel.",
        Phase.HEARTBEAT, _MALFORMED, change=_set_channel,
        parameters=(
            of_kind(Kind.HEARTBEAT, *(kind for kind in Kind if kind not in (Kind.DATA, Kind.HEARTBEAT))),
            NTH, EVERY, Parameter("channel", 1, "the channel", 1, 255),
        ),
    ),
    Switch(
        "wrong-version", ("WIRE-02", "AMD-02"), "A packet of the session has another version.",
        Phase.DATA, Reaction({DropReason.VERSION_MISMATCH: 1}), change=_set_version,
        parameters=(*_ANY_DATA, _VERSION),
    ),
    Switch(
        "other-session-id", ("TRN-01", "TRN-02", "SEAL-05"), "A packet has a foreign session_id.",
        Phase.DATA, Reaction({DropReason.UNKNOWN_SESSION: 1}), parameters=_ANY_DATA, change=_other_session,
    ),
    Switch(
        "unknown-type", ("WIRE-05",), "An authentic packet has a reserved type.",
        Phase.DATA, Reaction({DropReason.UNKNOWN_TYPE: 1}), change=_reserved_type,
        parameters=(*_MESSAGES, Parameter("type", 13, "the type", 13, 15)),
    ),
    Switch(
        "handshake-type", ("WIRE-06", "SEAL-05"), "An INIT or CHALLENGE comes inside a session.",
        Phase.DATA, Reaction({DropReason.UNEXPECTED_TYPE: 1}), change=_handshake_type,
        parameters=(*_MESSAGES, Parameter("type", 0, "0 INIT, 1 CHALLENGE", 0, 1)),
    ),
    Switch(
        "response-in-session", ("WIRE-06", "SEQ-03"), "A RESPONSE with a fresh seq comes inside a session.",
        Phase.DATA, Reaction({DropReason.UNEXPECTED_TYPE: 1}), parameters=_MESSAGES, change=_response_type,
    ),
    Switch(
        "payload-len-short", ("WIRE-01",), "payload_len says less than there is, under a hmac of all of it.",
        Phase.DATA, _UNAUTHENTIC, parameters=(*_MESSAGES, _BY), change=_shorter,
    ),
    Switch(
        "payload-len-long", ("WIRE-01",), "payload_len says more than there is, under a hmac of all of it.",
        Phase.DATA, _UNAUTHENTIC, parameters=(*_MESSAGES, _BY), change=_longer,
    ),
    Switch(
        "cut-short", ("WIRE-01",), "The end of a packet is missing from the stream.",
        Phase.DATA, _UNAUTHENTIC, parameters=(*_MESSAGES, _BY), emit=_cut_short,
    ),
    Switch(
        "ack-not-asked", ("DATA-02", "SEQ-05"), "DATA does not set REQUIRE_ACK.",
        Phase.DATA, Reaction(delivers=True), parameters=(of_kind(Kind.DATA, Kind.FRAGMENT), NTH, EVERY),
        change=_without_request,
    ),
    Switch(
        "ack-of-ack", ("SEQ-05",), "An ACK asks for an ACK.",
        Phase.DATA, Reaction(delivers=True), kinds=(Kind.ACK,), parameters=(NTH, EVERY), change=_with_request,
    ),
)  # fmt: skip

SEQUENCE: Final = (
    Switch(
        "replay", ("SEQ-02",), "A packet is sent again.",
        Phase.DATA, Reaction({DropReason.REPLAY: 1}, delivers=True), emit=_replay,
        parameters=(*_ANY_DATA, Parameter("times", 1, "how often", 1, 64)),
    ),
    Switch(
        "late-replay", ("SEQ-02",), "A packet is sent again behind others, outside the window from 64 on.",
        Phase.DATA, Reaction({DropReason.REPLAY: 1}, delivers=True), emit=_replay_later,
        parameters=(
            of_kind(Kind.DATA), NTH, Parameter("every", 1, "1, to count them", 1, 1),
            Parameter("after", 2, "how many others", 1, 1024),
        ),
    ),
    Switch(
        "reflection", ("SEQ-06",), "The peer's last packet is sent back to it.",
        Phase.DATA, Reaction({DropReason.REFLECTED: 1}, delivers=True), parameters=_ANY_DATA,
        emit=_reflect, ready=_something_heard,
    ),
    Switch(
        "stale-seq", ("SEQ-01", "SEQ-02"), "A packet has a seq that is behind the window.",
        Phase.DATA, Reaction({DropReason.REPLAY: 1}), change=_reuse_seq,
        parameters=(*_ANY_DATA, Parameter("behind", 64, "how far", 1, 1 << 16)),
    ),
    Switch(
        "seq-gap", ("SEQ-01", "SEQ-04"), "The seq jumps ahead and goes on from there.",
        Phase.DATA, Reaction(delivers=True), change=_skip_seqs,
        parameters=(
            of_kind(Kind.ANY), NTH, Parameter("every", 1, "0: only one packet jumps", 0, 1),
            Parameter("by", 3, "seqs that are never sent", 1, 1 << 32),
        ),
    ),
    Switch(
        "peers-seq", ("SEQ-01", "SEQ-06"), "A packet has a seq of the peer's range.",
        Phase.DATA, Reaction({DropReason.REFLECTED: 1}), parameters=_ANY_DATA, change=_peers_range,
    ),
    Switch(
        "seq-out-of-range", ("SEQ-01", "SEQ-06"), "A packet has a seq of 2^63 or more.",
        Phase.DATA, Reaction({DropReason.REFLECTED: 1}), parameters=_ANY_DATA, change=_beyond_all,
    ),
    Switch(
        "ack-unsent", ("SEQ-06",), "A packet acknowledges what was not sent.",
        Phase.DATA, Reaction({DropReason.BAD_ACK: 1}, delivers=True), change=_ack_unsent,
        parameters=(*_ANY_DATA, Parameter("by", 1_000_000, "how far ahead", 1, 1 << 60)),
    ),
    Switch(
        "ack-below-first", ("SEQ-06",), "A packet acknowledges less than the peer's initial seq.",
        Phase.DATA, Reaction({DropReason.BAD_ACK: 1}, delivers=True), parameters=_ANY_DATA,
        change=_ack_before_first,
    ),
    Switch(
        "ack-own-range", ("SEQ-06",), "A packet acknowledges a seq of its sender's own range.",
        Phase.DATA, Reaction({DropReason.BAD_ACK: 1}, delivers=True), parameters=_ANY_DATA,
        change=_answers_own_range,
    ),
)  # fmt: skip
