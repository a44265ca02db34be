# SPDX-License-Identifier: GPL-2.0-or-later
"""Switches about INTEGRITY (section 16)."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..constants import Role, Type
from ..counters import DropReason as Drop
from ..integrity import ANSWER, CHALLENGE, StateReport
from ..integrity import answer as answer_of
from .kinds import Kind
from .model import ALL, EVERY, NTH, Deed, Draft, Parameter, Phase, Reaction, Switch

_ALERT: Final = Reaction({Drop.INTEGRITY_FAIL: 1}, untrusted=True)
_UNANSWERED: Final = Reaction({Drop.INTEGRITY_FAIL: 1}, untrusted=True, after_s=6)
_WORSE: Final = Reaction({Drop.MALFORMED: 1, Drop.INTEGRITY_FAIL: 1}, untrusted=True, after_s=6)
_MALFORMED: Final = Reaction({Drop.MALFORMED: 1})
_ANSWERS: Final = (Kind.INTEGRITY_ANSWER,)
_STATES: Final = (Kind.INTEGRITY_STATE,)
_RANDOM: Final = slice(1, 17)
_U64: Final = (1 << 64) - 1


def _wrong_answer(deed: Deed, draft: Draft) -> None:
    at = deed.number("byte")
    draft.plaintext = draft.plaintext[:at] + bytes([draft.plaintext[at] ^ 1]) + draft.plaintext[at + 1 :]


def _as_the_other(deed: Deed, draft: Draft) -> None:
    if draft.keys is not None and draft.keys.shared:  # what a key log has is not enough
        draft.plaintext = answer_of(draft.keys, Role(1 - deed.role), draft.plaintext[_RANDOM])


def _resized(deed: Deed, draft: Draft) -> None:
    draft.plaintext = draft.plaintext.ljust(deed.number("size"), b"\0")[: deed.number("size")]


def _returned(deed: Deed, draft: Draft) -> None:
    draft.plaintext = bytes([CHALLENGE]) + draft.plaintext[_RANDOM]


def _unasked(deed: Deed, draft: Draft) -> None:
    draft.header.type, draft.header.flags = int(Type.INTEGRITY), 0
    draft.plaintext = bytes([ANSWER]) + bytes(80)


def _unknown_op(deed: Deed, draft: Draft) -> None:
    draft.header.type, draft.header.flags = int(Type.INTEGRITY), 0
    draft.plaintext = bytes([deed.number("op")]) + bytes(16)


def _lying(deed: Deed, draft: Draft) -> None:
    report, name = StateReport.unpack(draft.plaintext), str(deed.values["figure"])
    value = max(0, min(_U64, getattr(report, name) + deed.number("by")))
    draft.plaintext = replace(report, **{name: value}).pack()


def _backwards(deed: Deed, draft: Draft) -> None:
    """Fewer packets received than were reported before, or one less than were."""
    report = StateReport.unpack(draft.plaintext)
    received = deed.notes.setdefault("received", report.packets_received)
    if report.packets_received > received:
        draft.plaintext = replace(report, packets_received=received - 1).pack()


def _nothing(deed: Deed, draft: Draft, packet: bytes) -> list[bytes]:
    return []


def _itself(deed: Deed, draft: Draft) -> None:
    """It is only sent again."""


_FIGURES: Final = (
    "highest_seq_received", "packets_received", "seq_sent", "packets_sent", "epoch",
)  # fmt: skip

INTEGRITY: Final = (
    Switch(
        "wrong-answer", ("INT-01",), "A challenge is answered wrongly.",
        Phase.CHALLENGED, _ALERT, kinds=_ANSWERS, change=_wrong_answer,
        parameters=(Parameter("byte", 80, "which byte is wrong, from the answer's start", 17, 80),),
    ),
    Switch(
        "other-roles-answer", ("INT-01",), "A challenge is answered as the challenger would.",
        Phase.CHALLENGED, _ALERT, kinds=_ANSWERS, change=_as_the_other,
    ),
    Switch(
        "answer-size", ("INT-01",), "The answer to a challenge has a wrong size.",
        Phase.CHALLENGED, _WORSE, kinds=_ANSWERS, change=_resized,
        parameters=(Parameter("size", 80, "bytes instead of 81", 17, 1024),),
    ),
    Switch(
        "silent-answer", ("INT-01",), "A challenge is not answered.",
        Phase.CHALLENGED, _UNANSWERED, kinds=_ANSWERS, emit=_nothing, parameters=(ALL,),
    ),
    Switch(
        "challenge-returned", ("INT-01",), "A challenge is answered by the same challenge.",
        Phase.CHALLENGED, _WORSE, kinds=_ANSWERS, change=_returned,
    ),
    Switch(
        "integrity-answer-unasked", ("INT-01",), "An answer comes to a challenge that was never made.",
        Phase.DATA, Reaction({Drop.UNSOLICITED: 1}), change=_unasked, parameters=(NTH, EVERY),
    ),
    Switch(
        "integrity-op", ("INT-01",), "An INTEGRITY has an op that means nothing.",
        Phase.DATA, _MALFORMED, change=_unknown_op,
        parameters=(NTH, EVERY, Parameter("op", 4, "the op", 4, 255)),
    ),
    Switch(
        "challenge-flood", ("INT-01",), "Challenges come much faster than they are answered.",
        Phase.INTEGRITY, Reaction({Drop.INTEGRITY_LIMITED: 5}), kinds=(Kind.INTEGRITY_CHALLENGE,),
        change=_itself, again=19, parameters=(Parameter("nth", 2, "which challenge is repeated", 1),),
    ),
    Switch(
        "state-size", ("INT-02",), "A state report has a wrong size.",
        Phase.INTEGRITY, _MALFORMED, kinds=_STATES, change=_resized,
        parameters=(NTH, EVERY, Parameter("size", 72, "bytes instead of 73", 1, 1024)),
    ),
    Switch(
        "state-lies", ("INT-02",), "A state report contradicts what its receiver knows.",
        Phase.INTEGRITY, _ALERT, kinds=_STATES, change=_lying,
        parameters=(
            Parameter("nth", 2, "which report lies", 1), EVERY,
            Parameter("figure", _FIGURES[0], "which figure", choices=_FIGURES),
            Parameter("by", 1000, "how far off", -1_000_000, 1 << 32),
        ),
    ),
    Switch(
        "state-backwards", ("INT-02",), "A counter in a later state report is lower than before.",
        Phase.INTEGRITY, _ALERT, kinds=_STATES, change=_backwards, parameters=(NTH, ALL),
    ),
)  # fmt: skip
