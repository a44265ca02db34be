# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about messages, fragments, heartbeats and the end (sections 10, 12, 15)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..constants import FRAGMENT_HEADER_SIZE, MAX_PLAINTEXT, REASSEMBLY_TIMEOUT, SECOND, ErrorCode, Flag
from ..counters import DropReason
from ..wire import ZERO_SESSION_ID, FragmentHeader
from .kinds import Kind
from .model import ALL, EVERY, NTH, Deed, Draft, Parameter, Phase, Reaction, Switch, of_kind

_MALFORMED: Final = Reaction({DropReason.MALFORMED: 1})
_ALL_THREE: Final = Reaction({DropReason.MALFORMED: 3})
_TIMED_OUT: Final = REASSEMBLY_TIMEOUT / SECOND


# -- messages


def _emptied(deed: Deed, draft: Draft) -> None:
    draft.plaintext = b""


def _other_channel(deed: Deed, draft: Draft) -> None:
    draft.header.channel = deed.number("channel")


def _oversized(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext.ljust(deed.number("size"), b"\0")


# -- fragments


def _header(draft: Draft) -> tuple[FragmentHeader, bytes]:
    return FragmentHeader.unpack_from(draft.plaintext), draft.plaintext[FRAGMENT_HEADER_SIZE:]


def _past_end(deed: Deed, draft: Draft) -> None:
    header, chunk = _header(draft)
    offset = header.total_len - len(chunk) + deed.number("by")
    draft.plaintext = replace(header, offset=min(offset, 0xFFFF)).pack() + chunk


def _no_total(deed: Deed, draft: Draft) -> None:
    header, chunk = _header(draft)
    draft.plaintext = replace(header, total_len=0).pack() + chunk


def _other_total(deed: Deed, draft: Draft) -> None:
    header, chunk = _header(draft)
    draft.plaintext = replace(header, total_len=header.total_len ^ 0x8000).pack() + chunk


def _overlapping(deed: Deed, draft: Draft) -> None:
    """It begins inside its predecessor, whose last bytes it contradicts."""
    header, chunk = _header(draft)
    offset = max(0, header.offset - deed.number("by"))
    draft.plaintext = replace(header, offset=offset).pack() + bytes(byte ^ 0xFF for byte in chunk)


def _end_mark(deed: Deed, draft: Draft) -> None:
    draft.header.flags |= Flag.LAST_FRAG


def _no_end_mark(deed: Deed, draft: Draft) -> None:
    draft.header.flags &= ~Flag.LAST_FRAG


def _only_part_of_header(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[: deed.number("size")]


def _only_header(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext[:FRAGMENT_HEADER_SIZE]


def _later_message(deed: Deed, draft: Draft) -> bool:
    header, _chunk = _header(draft)
    return bool(deed.notes.setdefault("msg_id", header.msg_id) != header.msg_id)


def _first_id(deed: Deed, draft: Draft) -> None:
    header, chunk = _header(draft)
    draft.plaintext = replace(header, msg_id=deed.notes["msg_id"]).pack() + chunk


# -- silence


def _nothing(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


# -- heartbeats


def _cut(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext.ljust(deed.number("size"), b"\0")[: deed.number("size")]


def _exaggerated(deed: Deed, draft: Draft) -> None:
    draft.plaintext = b"\xff" * len(draft.plaintext)


# -- CLOSE


def _flip_hmac(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet[:48] + bytes([packet[48] ^ 1]) + packet[49:]]


def _unauthenticated(deed: Deed, draft: Draft) -> None:
    draft.keys, draft.clear, draft.plaintext = None, bytes([ErrorCode.OVERLOAD]), b""
    draft.header.hmac = bytes(32)


def _advisory(deed: Deed, draft: Draft) -> None:
    _unauthenticated(deed, draft)
    draft.header.session_id, draft.header.seq, draft.header.ack = ZERO_SESSION_ID, 0, 0


def _overlong(deed: Deed, draft: Draft) -> None:
    draft.plaintext = bytes([ErrorCode.OVERLOAD, 0])


def _with_code(deed: Deed, draft: Draft) -> None:
    draft.plaintext = bytes([deed.number("code")])


def _truncated(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return [packet[:-1]]


MESSAGES: Final = (
    Switch(
        "empty-data", ("DATA-01",), "DATA without a single byte.",
        Phase.DATA, _MALFORMED, parameters=(NTH, EVERY), change=_emptied,
    ),
    Switch(
        "unsubscribed-channel", ("CHAN-01",), "DATA on a channel that the peer does not listen to.",
        Phase.DATA, Reaction({DropReason.UNSUBSCRIBED: 1}), change=_other_channel,
        parameters=(NTH, EVERY, Parameter("channel", 254, "the channel", 1, 255)),
    ),
    Switch(
        "oversized-data", ("DATA-02", "MTU-04"), "One DATA packet has more bytes than the mtu allows.",
        Phase.DATA, Reaction(delivers=True), change=_oversized,
        parameters=(NTH, EVERY, Parameter("size", 20_000, "bytes", 1305, MAX_PLAINTEXT)),
    ),
)  # fmt: skip

FRAGMENTS: Final = (
    Switch(
        "fragment-past-end", ("FRAG-02",), "A fragment ends behind the end of its message.",
        Phase.FRAGMENTS, _ALL_THREE, kinds=(Kind.FRAGMENT,), change=_past_end,
        parameters=(NTH, EVERY, Parameter("by", 1, "how many bytes", 1, 0xFFFF)),
    ),
    Switch(
        "fragment-zero-total", ("FRAG-02",), "A fragment says that its message has no bytes.",
        Phase.FRAGMENTS, _ALL_THREE, kinds=(Kind.FRAGMENT,), parameters=(NTH, EVERY), change=_no_total,
    ),
    Switch(
        "fragment-total-differs", ("FRAG-02",), "total_len differs within a message.",
        Phase.FRAGMENTS, Reaction({DropReason.MALFORMED: 2}), kinds=(Kind.FRAGMENT,), change=_other_total,
        parameters=(Parameter("nth", 2, "which fragment differs", 2),),
    ),
    Switch(
        "fragment-channel-differs", ("FRAG-02",), "The channel differs within a message.",
        Phase.FRAGMENTS, Reaction({DropReason.MALFORMED: 2}), kinds=(Kind.FRAGMENT,), change=_other_channel,
        parameters=(
            Parameter("nth", 2, "which fragment differs", 2),
            Parameter("channel", 1, "another channel that the peer listens to", 0, 255),
        ),
    ),
    Switch(
        "fragment-overlap", ("FRAG-03",), "A fragment overlaps its predecessor with other bytes.",
        Phase.FRAGMENTS, Reaction({DropReason.MALFORMED: 2}), kinds=(Kind.FRAGMENT,), change=_overlapping,
        parameters=(
            Parameter("nth", 2, "which fragment overlaps", 2), Parameter("by", 8, "by how much", 1, 0xFFFF)
        ),
    ),
    Switch(
        "last-frag-early", ("FRAG-01", "FRAG-02"), "LAST_FRAG is set before the end of the message.",
        Phase.FRAGMENTS, _ALL_THREE, kinds=(Kind.FRAGMENT,), parameters=(NTH,), change=_end_mark,
    ),
    Switch(
        "last-frag-missing", ("FRAG-01", "FRAG-02"), "The fragment that ends the message lacks LAST_FRAG.",
        Phase.FRAGMENTS, _MALFORMED, kinds=(Kind.LAST_FRAGMENT,), parameters=(NTH, EVERY),
        change=_no_end_mark,
    ),
    Switch(
        "fragment-withheld", ("FRAG-04",), "A fragment is never sent, so its message is never complete.",
        Phase.FRAGMENTS, Reaction({DropReason.FRAG_TIMEOUT: 1}, after_s=_TIMED_OUT), emit=_nothing,
        parameters=(of_kind(Kind.LAST_FRAGMENT, Kind.FRAGMENT), NTH, EVERY),
    ),
    Switch(
        "fragment-short", ("FRAG-01",), "A fragment is shorter than its own header.",
        Phase.FRAGMENTS,
        Reaction({DropReason.MALFORMED: 1, DropReason.FRAG_TIMEOUT: 1}, after_s=_TIMED_OUT),
        kinds=(Kind.FRAGMENT,), change=_only_part_of_header,
        parameters=(NTH, EVERY, Parameter("size", 7, "bytes that are left", 1, 7)),
    ),
    Switch(
        "fragment-empty", ("FRAG-02", "DATA-01"), "A fragment has no bytes of its message.",
        Phase.FRAGMENTS, _ALL_THREE, kinds=(Kind.FRAGMENT,), parameters=(NTH, EVERY), change=_only_header,
    ),
    Switch(
        "msg-id-reused", ("FRAG-01",), "All messages have the msg_id of the first.",
        Phase.FRAGMENTS, Reaction(), kinds=(Kind.FRAGMENT,), parameters=(ALL,), ready=_later_message,
        change=_first_id,
    ),
)  # fmt: skip

HEARTBEATS: Final = (
    Switch(
        "telemetry-size", ("HB-01",), "A HEARTBEAT's report has a wrong size.",
        Phase.HEARTBEAT, _MALFORMED, kinds=(Kind.HEARTBEAT,), change=_cut,
        parameters=(NTH, EVERY, Parameter("size", 43, "bytes instead of 44", 0, 1024)),
    ),
    Switch(
        "telemetry-lies", ("HB-01", "HB-03"), "Every figure of the report is the largest possible.",
        Phase.HEARTBEAT, Reaction(), kinds=(Kind.HEARTBEAT,), parameters=(NTH, EVERY), change=_exaggerated,
    ),
)  # fmt: skip

ENDS: Final = (
    Switch(
        "close-hmac", ("CLS-02", "SEAL-04"), "The CLOSE has a wrong hmac.",
        Phase.CLOSE, Reaction({DropReason.AUTH_FAIL: 1}, ends="protection", code=ErrorCode.AUTH_FAIL),
        kinds=(Kind.CLOSE,), emit=_flip_hmac,
    ),
    Switch(
        "close-unauthentic", ("CLS-02", "SEAL-04"), "The CLOSE is in clear and has no hmac.",
        Phase.CLOSE, Reaction({DropReason.MALFORMED: 1}, ends="end_of_stream"), kinds=(Kind.CLOSE,),
        change=_unauthenticated,
    ),
    Switch(
        "close-advisory", ("CLS-02",), "The session ends with the advisory CLOSE of a handshake.",
        Phase.CLOSE, Reaction({DropReason.UNKNOWN_SESSION: 1}, ends="end_of_stream"), kinds=(Kind.CLOSE,),
        change=_advisory,
    ),
    Switch(
        "close-overlong", ("CLS-01",), "The CLOSE carries two bytes.",
        Phase.CLOSE, Reaction({DropReason.MALFORMED: 1}, ends="end_of_stream"), kinds=(Kind.CLOSE,),
        change=_overlong,
    ),
    Switch(
        "close-unknown-code", ("CLS-01",), "The CLOSE carries a code that nobody knows.",
        Phase.CLOSE, Reaction(ends="closed", code=0xEE), kinds=(Kind.CLOSE,), change=_with_code,
        parameters=(Parameter("code", 0xEE, "the code", 0x0B, 0xFF),),
    ),
    Switch(
        "close-cut-short", ("WIRE-01", "CLS-03"), "The stream ends inside the CLOSE.",
        Phase.CLOSE, Reaction({DropReason.MALFORMED: 1}, ends="end_of_stream"), kinds=(Kind.CLOSE,),
        emit=_truncated,
    ),
    Switch(
        "silent-close", ("CLS-01", "CLS-03"), "The stream ends without a CLOSE.",
        Phase.CLOSE, Reaction(ends="end_of_stream"), kinds=(Kind.CLOSE,), emit=_nothing,
    ),
)  # fmt: skip
